#pragma once
// Nash mirror descent: a policy gradient against a mixture policy, judged by a preference model, held near the reference.

#include <plumb/math/nash_md.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `nash_md`.
struct nash_md_options {
  double beta = 0.1;        ///< strength of the pull to the reference; 0 or positive
  double baseline = 0.5;    ///< what is subtracted from the probability
  double denominator = 0;   ///< number of replies of the global batch; host overload: 0 means the replies given
  double weight = 1;        ///< what the loss counts for beside others

  void require(const char* op) const {
    require_option(op, "beta", beta, beta >= 0, "0 or positive");
    require_option(op, "baseline", baseline, baseline >= 0 && baseline <= 1, "in [0, 1]");
    detail::require_weight(op, weight);
  }
};

/// Rows of `metrics`, means over replies: `score` is `(p - baseline) logp`, `kl` the log-ratio of the reply (k1).
inline constexpr metric_info nash_md_metrics[] = {{"probability"}, {"score"}, {"kl"}, {"logp"}};

/// Token log-probabilities of replies that the policy sampled, flat.
template <class Real, class Space = host_space>
struct nash_md_inputs {
  view<const Real, 1, Space> logp{};         ///< `[N]`
  view<const Real, 1, Space> ref_logp{};     ///< `[N]`
  sequence_layout<Space> sequences{};        ///< `S` replies
  view<const Real, 1, Space> probability{};  ///< `[S]`, that the judge prefers the reply to the mixture policy's
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct nash_md_outputs {
  view<Real, 1, Space> loss{};     ///< one number: the surrogate, whose gradient counts, not its value
  view<Real, 1, Space> d_logp{};   ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> score{};    ///< `[S]`
  view<Real, 1, Space> kl{};       ///< `[S]`
  view<Real, 2, Space> metrics{};  ///< `[4, 2]`, rows as in `nash_md_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

/// Bytes of arena that `nash_md` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t nash_md_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(tokens);
  for (int i = 0; i < 6; ++i) w.template add<real>(sequences.sequences());
  for (int i = 0; i < 3; ++i) w.template add<real>(1);
  return w.bytes();
}

/// `L = weight/denominator sum_s [beta sum_t sg(logp_t - ref_logp_t) logp_t - (p_s - 1/2) sum_t logp_t]` over scored tokens, `sg` a
/// constant for the gradient: REINFORCE on the preference with the KL term of each token as its cost. Nash-MD-PG, arXiv:2312.00886,
/// section 7.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL `NashMDTrainer`.
template <class B>
  requires has_backend_types<B>
void nash_md(B& b, arena_of<B>& scratch, const nash_md_inputs<real_of<B>, space_of<B>>& in, const nash_md_options& options,
             const nash_md_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "nash_md";
  const index_t tokens = in.logp.extent(0), replies = in.sequences.sequences();
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"score", out.score}, {"kl", out.kl}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"begin", in.sequences.begin}, {"end", in.sequences.end},
                     {"scored", in.sequences.scored}, {"probability", in.probability}});
  require_given(op, "logp", in.logp, in.ref_logp.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "ref_logp", in.ref_logp, tokens > 0);
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_sequences(op, in.sequences, tokens);
  require_given(op, "probability", in.probability, replies > 0);
  require_extent(op, "probability", in.probability, 0, replies, "the number of sequences");
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(nash_md_metrics));
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
  if (out.score.given()) require_extent(op, "score", out.score, 0, replies, "the number of sequences");
  if (out.kl.given()) require_extent(op, "kl", out.kl, 0, replies, "the number of sequences");

  scratch.require(op, nash_md_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto advantage = scratch.template take<real>(replies);
  b.transform(math::shifted<real>{static_cast<real>(options.baseline)}, advantage, in.probability);
  const auto of_token = scratch.template take<real>(tokens), scored = scratch.template take<real>(tokens);
  if (out.loss.given() || out.d_logp.given()) {
    b.segment_broadcast(as_const(advantage), in.sequences, of_token, write_mode::overwrite);
    b.segment_broadcast(detail::constant(b, scratch, real(1), replies), in.sequences, scored, write_mode::overwrite);
    const auto term = scratch.template take<real>(tokens), d_logp = scratch.template take<real>(tokens);
    b.transform2(math::nash_md_term<real>{static_cast<real>(options.beta), static_cast<real>(options.weight / options.denominator)}, term, d_logp,
                 in.logp, in.ref_logp, as_const(of_token), as_const(scored));
    detail::write_loss(b, scratch, out.loss, as_const(term), real(1), out.mode);
    detail::write_gradient(b, out.d_logp, as_const(d_logp), real(1), out.mode);
  }
  if (!out.score.given() && !out.kl.given() && !out.metrics.given()) return;
  const auto take = [&] { return scratch.template take<real>(replies); };
  const auto logp = take(), kl = take(), score = take();
  b.segment_reduce(reduction::sum, in.logp, in.sequences, logp);
  b.transform(math::times{}, score, as_const(advantage), as_const(logp));
  b.transform(math::minus{}, of_token, in.logp, in.ref_logp);
  b.segment_reduce(reduction::sum, as_const(of_token), in.sequences, kl);
  if (out.score.given()) b.copy(as_const(score), out.score);
  if (out.kl.given()) b.copy(as_const(kl), out.kl);
  if (!out.metrics.given()) return;
  const auto length = take();  // replies without scored tokens do not count
  detail::scored_lengths(b, scratch, in.sequences, tokens, length);
  detail::metric_rows<B, real> rows(b, scratch, out.metrics, replies, as_const(length));
  rows.mean(0, math::identity{}, in.probability);
  rows.mean(1, math::identity{}, as_const(score));
  rows.mean(2, math::identity{}, as_const(kl));
  rows.mean(3, math::identity{}, as_const(logp));
}

/// What the host overload returns.
template <class T>
struct nash_md_result {
  T loss = 0, probability = 0, score = 0, kl = 0, logp = 0;
  std::vector<T> d_logp;  ///< `[N]`
};

/// Token log-probabilities of the replies of a host layout and the judge's probabilities; loss and gradient out.
template <detail::host_range R>
nash_md_result<detail::value_of<R>> nash_md(const R& logp, view<const detail::value_of<R>, 1> ref_logp, const sequence_layout<>& sequences,
                                            view<const detail::value_of<R>, 1> probability, nash_md_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  require_layout("nash_md", sequences, x.extent(0));
  require_layout_data("nash_md", sequences, x.extent(0));
  const index_t replies = sequences.sequences();
  if (options.denominator == 0) options.denominator = static_cast<double>(replies > 0 ? replies : 1);
  nash_md_result<T> r{.d_logp = detail::zeros<T>(x.extent(0))};
  T m[std::size(nash_md_metrics)][2] = {};
  detail::host_call<T> call(nash_md_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  nash_md(call.compute, call.scratch, {.logp = x, .ref_logp = ref_logp, .sequences = sequences, .probability = probability}, options,
          {.loss = r.loss, .d_logp = r.d_logp, .metrics = view<T, 2>(&m[0][0], std::size(nash_md_metrics), 2)});
  T* fields[] = {&r.probability, &r.score, &r.kl, &r.logp};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(nash_md_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

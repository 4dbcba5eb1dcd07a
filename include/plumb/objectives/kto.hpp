#pragma once
// Kahneman-Tversky optimisation: replies with a label instead of pairs. Without its KL term it is APO-zero's unpaired form.

#include <plumb/math/kto.hpp>
#include <plumb/objectives/unpaired.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `kto` and `kto_replies`.
struct kto_options {
  double beta = 0.1;              ///< strength of the pull to the reference; positive
  double desirable_weight = 1;    ///< `w_D`; 0 or positive
  double undesirable_weight = 1;  ///< `w_U`; 0 or positive
  bool kl_free = false;           ///< the reference point is 0, whatever the policy: APO-zero, unpaired
  reply_score score = reply_score::sum;  ///< `mean`: log-ratios per token, not the paper's (NeMo `average_log_probs`, Liger `average_log_prob`)
  double denominator = 0;         ///< number of replies of the global batch; host overload: 0 means the replies given
  double weight = 1;              ///< what the loss counts for beside others

  void require(const char* op) const {
    require_mode(op, "score", score, reply_score::mean);
    require_option(op, "beta", beta, beta > 0, "positive");
    require_option(op, "desirable_weight", desirable_weight, desirable_weight >= 0, "0 or positive");
    require_option(op, "undesirable_weight", undesirable_weight, undesirable_weight >= 0, "0 or positive");
    detail::require_weight(op, weight);
  }
};

/// Options of `kto_kl`, `kto_kl_replies` and `kto_kl_of_sums`.
struct kto_kl_options {
  bool clamp = true;                ///< not below 0, as in the paper; Liger takes what it is given
  reply_score score = reply_score::sum;  ///< as in `kto`

  void require(const char* op) const { require_mode(op, "score", score, reply_score::mean); }
};

/// Token log-probabilities of all replies, flat. A reply without scored tokens does not exist: no loss, no gradient, no place in metrics.
template <class Real, class Space = host_space>
struct kto_inputs {
  view<const Real, 1, Space> logp{};               ///< `[N]`
  view<const Real, 1, Space> ref_logp{};           ///< `[N]`
  sequence_layout<Space> sequences{};              ///< `S` replies
  view<const std::uint8_t, 1, Space> desirable{};  ///< `[S]`, 0 or 1
  view<const Real, 1, Space> kl{};                 ///< the reference point, one number (see `kto_kl`); not read with `kl_free`
  view<const Real, 1, Space> weight{};             ///< `[S]`, what each reply counts for; 0: the reply does not exist, whatever it holds; not given: 1
};
/// Summed log-probabilities of `S` replies.
template <class Real, class Space = host_space>
struct kto_replies_inputs {
  view<const Real, 1, Space> logp{};               ///< `[S]`
  view<const Real, 1, Space> ref_logp{};           ///< `[S]`
  view<const std::uint8_t, 1, Space> desirable{};  ///< `[S]`, 0 or 1
  view<const Real, 1, Space> kl{};                 ///< the reference point, one number; not read with `kl_free`
  view<const Real, 1, Space> weight{};             ///< `[S]`, what each reply counts for; 0: the reply does not exist, whatever it holds; not given: 1
};

/// Mismatched replies: those of other prompts of the batch, scored under this prompt. Token arrays with a layout of their own; replies without
/// scored tokens do not count.
template <class Real, class Space = host_space>
struct kto_kl_inputs {
  view<const Real, 1, Space> logp{};      ///< `[N]`
  view<const Real, 1, Space> ref_logp{};  ///< `[N]`
  sequence_layout<Space> sequences{};
};
/// Summed log-probabilities of the mismatched replies.
template <class Real, class Space = host_space>
struct kto_kl_replies_inputs {
  view<const Real, 1, Space> logp{};      ///< `[M]`
  view<const Real, 1, Space> ref_logp{};  ///< `[M]`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct kto_kl_outputs {
  view<Real, 1, Space> kl{};    ///< one number: the reference point of the replies of this call alone, whatever `sums` held
  view<Real, 1, Space> sums{};  ///< `[2]`: sum of log-ratios, and their count, to add up across ranks and micro-batches
  write_mode mode = write_mode::overwrite;  ///< of `sums`
};

namespace detail {
template <class V>
void require_kl(const char* op, const V& kl, index_t replies, const kto_options& o) {
  if (kl.given() || o.kl_free || replies == 0) return;
  fail(message(op) << "argument `kl` is not given; give it (`kto_kl` makes it), or set `kl_free`. Nothing was written.");
}
template <class B>
math::kto_term<real_of<B>> kto_term_of(const kto_options& o) {
  using real = real_of<B>;
  return {static_cast<real>(o.beta), static_cast<real>(o.desirable_weight), static_cast<real>(o.undesirable_weight),
          static_cast<real>(o.weight / o.denominator)};
}
// From log-ratios `[M]`; `counted` (0 or 1 each) may be left out.
template <class B>
void write_kl(B& b, arena_of<B>& scratch, const_real_view<B> ratio, const_real_view<B> counted, const kto_kl_options& o,
              const kto_kl_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  const auto sums = scratch.template take<real>(2);
  const auto sum = sums.slice(0, 1), count = sums.slice(1, 1);
  b.reduce(reduction::sum, ratio, sum, write_mode::overwrite);
  if (counted.given()) {
    b.reduce(reduction::sum, counted, count, write_mode::overwrite);
  } else {
    b.fill(count, static_cast<real>(static_cast<double>(ratio.extent(0))));
  }
  if (out.kl.given()) b.transform(math::kto_reference_point{o.clamp}, out.kl, as_const(sum), as_const(count));
  write_gradient(b, out.sums, as_const(sums), real(1), out.mode);
}
template <class B>
void require_kl_outputs(const char* op, const kto_kl_outputs<real_of<B>, space_of<B>>& out) {
  require_scalar(op, "kl", out.kl);
  if (out.sums.given()) require_extent(op, "sums", out.sums, 0, 2, "sum and count");
}
}  // namespace detail

/// Bytes of arena that `kto_kl` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t kto_kl_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens, const kto_kl_options& options = {}) {
  return workspace_size()
      .template add<real_of<B>>(2)
      .add_bytes(detail::replies_bytes<B>(tokens, sequences.sequences(), options.score, true))
      .add_bytes(detail::scored_reply_weights_bytes<B>(sequences.sequences()))
      .bytes();
}

/// KTO's reference point `z_0 = max(0, mean of the log-ratios of mismatched replies)`, a constant for the gradient: a coarse estimate of
/// `KL(policy || reference)`. Where several ranks share a batch, add up `sums` and call `kto_kl_of_sums`: the clamp comes last.
/// Checked against TRL `KTOTrainer` and NeMo-Aligner.
template <class B>
  requires has_backend_types<B>
void kto_kl(B& b, arena_of<B>& scratch, const kto_kl_inputs<real_of<B>, space_of<B>>& in, const kto_kl_options& options,
            const kto_kl_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "kto_kl";
  const index_t tokens = in.logp.extent(0);
  require_arguments(op, {{"kl", out.kl}, {"sums", out.sums}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"begin", in.sequences.begin}, {"end", in.sequences.end},
                     {"scored", in.sequences.scored}});
  require_given(op, "logp", in.logp, in.ref_logp.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "ref_logp", in.ref_logp, tokens > 0);
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_sequences(op, in.sequences, tokens);
  options.require(op);
  detail::require_kl_outputs<B>(op, out);
  scratch.require(op, kto_kl_workspace(b, in.sequences, tokens, options));
  typename arena_of<B>::frame frame(scratch);
  const auto ratio = detail::sum_replies(b, scratch, in.logp, in.ref_logp, in.sequences, options.score).value;
  detail::write_kl(b, scratch, ratio, detail::scored_reply_weights(b, scratch, in.sequences, tokens, {}), options, out);
}

/// Bytes of arena that `kto_kl_replies` takes.
template <class B>
std::size_t kto_kl_replies_workspace(const B&, index_t replies) {
  return workspace_size().template add<real_of<B>>(replies).template add<real_of<B>>(2).bytes();
}

/// `kto_kl` from one log-probability per mismatched reply; `options.score` is not read.
template <class B>
  requires has_backend_types<B>
void kto_kl_replies(B& b, arena_of<B>& scratch, const kto_kl_replies_inputs<real_of<B>, space_of<B>>& in, const kto_kl_options& options,
                    const kto_kl_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "kto_kl_replies";
  const index_t replies = in.logp.extent(0);
  require_arguments(op, {{"kl", out.kl}, {"sums", out.sums}}, {{"logp", in.logp}, {"ref_logp", in.ref_logp}});
  require_given(op, "logp", in.logp, in.ref_logp.given());
  require_given(op, "ref_logp", in.ref_logp, replies > 0);
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  options.require(op);
  detail::require_kl_outputs<B>(op, out);
  scratch.require(op, kto_kl_replies_workspace(b, replies));
  typename arena_of<B>::frame frame(scratch);
  const auto ratio = scratch.template take<real_of<B>>(replies);
  b.transform(math::minus{}, ratio, in.logp, in.ref_logp);
  detail::write_kl(b, scratch, as_const(ratio), {}, options, out);
}

/// The reference point `kl` (one number) from `sums` `[2]` that were added up across ranks or micro-batches. Takes no scratch; NaN over
/// nothing.
template <class B>
  requires has_backend_types<B>
void kto_kl_of_sums(B& b, const_real_view<B> sums, const kto_kl_options& options, real_view<B> kl) {
  static_assert(check_backend<B>());
  constexpr const char* op = "kto_kl_of_sums";
  require_arguments(op, {{"kl", kl}}, {{"sums", sums}});
  require_extent(op, "sums", sums, 0, 2, "sum and count");
  require_extent(op, "kl", kl, 0, 1, "one number");
  b.transform(math::kto_reference_point{options.clamp}, kl, sums.slice(0, 1), sums.slice(1, 1));
}

/// Bytes of arena that `kto_replies` takes.
template <class B>
std::size_t kto_replies_workspace(const B&, index_t replies) {
  return detail::unpaired_replies_bytes<B>(replies);
}

/// KTO from one log-probability per reply: `L = weight/denominator sum_s w_s (1 - sigmoid(+-beta (logp_s - ref_logp_s - z_0)))`, plus and
/// `w_D` for desirable replies, minus and `w_U` for others. arXiv:2402.01306, section 4.1. `options.score` is not read.
template <class B>
  requires has_backend_types<B>
void kto_replies(B& b, arena_of<B>& scratch, const kto_replies_inputs<real_of<B>, space_of<B>>& in, const kto_options& options,
                 const unpaired_replies_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "kto_replies";
  const const_real_view<B> kl = options.kl_free ? const_real_view<B>() : in.kl;
  detail::require_replies<B>(op, in, "kl", kl, out);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_kl(op, in.kl, in.logp.extent(0), options);
  scratch.require(op, kto_replies_workspace(b, in.logp.extent(0)));
  detail::unpaired_replies(b, scratch, detail::kto_term_of<B>(options), in, kl, options.weight / options.denominator, options.beta, out);
}

/// Bytes of arena that `kto` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t kto_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens, const kto_options& options = {}) {
  return detail::unpaired_tokens_bytes<B>(tokens, sequences.sequences(), options.score);
}

/// KTO from token log-probabilities: the log-ratio of each token, summed over the scored tokens of each reply, then as `kto_replies`; the
/// gradient goes back to every scored token.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL `KTOTrainer`, NeMo-Aligner and Liger.
template <class B>
  requires has_backend_types<B>
void kto(B& b, arena_of<B>& scratch, const kto_inputs<real_of<B>, space_of<B>>& in, const kto_options& options,
         const unpaired_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "kto";
  const const_real_view<B> kl = options.kl_free ? const_real_view<B>() : in.kl;
  detail::require_tokens<B>(op, in, "kl", kl, out);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_kl(op, in.kl, in.sequences.sequences(), options);
  scratch.require(op, kto_workspace(b, in.sequences, in.logp.extent(0), options));
  detail::unpaired_tokens(b, scratch, detail::kto_term_of<B>(options), in, kl, options.score, options.weight / options.denominator, options.beta,
                          out);
}

/// What the host overload returns.
template <class T>
struct kto_result {
  T loss = 0, kl = 0, reward_desirable = 0, reward_undesirable = 0, logp_desirable = 0, logp_undesirable = 0;
  std::vector<T> d_logp;  ///< `[S]`, dL/d(summed log-probability)
};

/// Vectors in, loss and gradient out, on the serial backend: summed log-probabilities of the replies, their labels, and the summed
/// log-probabilities of the mismatched replies (`{}` twice with `kl_free`).
template <detail::host_range R>
kto_result<detail::value_of<R>> kto(const R& logp, view<const detail::value_of<R>, 1> ref_logp, view<const std::uint8_t, 1> desirable,
                                    view<const detail::value_of<R>, 1> kl_logp, view<const detail::value_of<R>, 1> ref_kl_logp,
                                    kto_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  const index_t replies = x.extent(0);
  if (options.denominator == 0) options.denominator = static_cast<double>(replies > 0 ? replies : 1);
  kto_result<T> r{.d_logp = detail::zeros<T>(replies)};
  T m[std::size(unpaired_metrics)][2] = {};
  T kl = 0;
  const serial::backend<T> sizes{};
  detail::host_call<T> call(kto_replies_workspace(sizes, replies) + kto_kl_replies_workspace(sizes, kl_logp.extent(0)));
  if (!options.kl_free) kto_kl_replies(call.compute, call.scratch, {.logp = kl_logp, .ref_logp = ref_kl_logp}, kto_kl_options{}, {.kl = kl});
  kto_replies(call.compute, call.scratch, {.logp = x, .ref_logp = ref_logp, .desirable = desirable, .kl = view<const T, 1>(&kl, 1)}, options,
              {.loss = r.loss, .d_logp = r.d_logp, .metrics = view<T, 2>(&m[0][0], std::size(unpaired_metrics), 2)});
  T* fields[] = {&r.reward_desirable, &r.reward_undesirable, &r.logp_desirable, &r.logp_undesirable, &r.kl};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(unpaired_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

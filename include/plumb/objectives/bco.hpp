#pragma once
// Binary classifier optimisation: replies with a label, a logistic loss around a running mean of the rewards.

#include <plumb/math/bco.hpp>
#include <plumb/math/preference.hpp>
#include <plumb/objectives/unpaired.hpp>
#include <plumb/ops/running_moments.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `bco` and `bco_replies`.
struct bco_options {
  double beta = 0.1;                ///< strength of the pull to the reference; positive
  reply_score score = reply_score::sum;  ///< `mean`: log-ratios per token, not the paper's
  double denominator = 0;           ///< number of replies of the global batch; host overload: 0 means the replies given
  double weight = 1;                ///< what the loss counts for beside others

  void require(const char* op) const {
    require_mode(op, "score", score, reply_score::mean);
    require_option(op, "beta", beta, beta > 0, "positive");
    detail::require_weight(op, weight);
  }
};

/// Token log-probabilities of all replies, flat. A reply without scored tokens does not exist: no loss, no gradient, no place in metrics and moments.
template <class Real, class Space = host_space>
struct bco_inputs {
  view<const Real, 1, Space> logp{};               ///< `[N]`
  view<const Real, 1, Space> ref_logp{};           ///< `[N]`
  sequence_layout<Space> sequences{};              ///< `S` replies
  view<const std::uint8_t, 1, Space> desirable{};  ///< `[S]`, 0 or 1
  view<const Real, 1, Space> shift{};              ///< the reward shift, one number: the running mean, after `bco_moments`
  view<const Real, 1, Space> weight{};             ///< `[S]`, what each reply counts for (the paper's importance weights); 0: the reply does not exist,
                                                   ///< whatever it holds; not given: 1
};
/// Summed log-probabilities of `S` replies.
template <class Real, class Space = host_space>
struct bco_replies_inputs {
  view<const Real, 1, Space> logp{};               ///< `[S]`
  view<const Real, 1, Space> ref_logp{};           ///< `[S]`
  view<const std::uint8_t, 1, Space> desirable{};  ///< `[S]`, 0 or 1
  view<const Real, 1, Space> shift{};              ///< the reward shift, one number
  view<const Real, 1, Space> weight{};             ///< `[S]`, what each reply counts for; 0: the reply does not exist, whatever it holds; not given: 1
};

namespace detail {
template <class B>
math::bco_term<real_of<B>> bco_term_of(const bco_options& o) {
  using real = real_of<B>;
  return {static_cast<real>(o.beta), static_cast<real>(o.weight / o.denominator)};
}
// `update_moments` of those `values` whose `weight` is not 0.
template <class B>
void update_moments_where(B& b, arena_of<B>& scratch, const_real_view<B> values, const_real_view<B> weight, real_view<B> state) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t n = values.extent(0);
  const auto x = scratch.template take<real>(n);
  const auto batch = scratch.template take<real>(moments_size);
  const auto count = batch.slice(moments_count, 1), mean = batch.slice(moments_mean, 1);
  b.transform(math::has_weight{}, x, weight);
  b.reduce(reduction::sum, as_const(x), count, write_mode::overwrite);
  b.transform(math::keep_where{}, x, values, weight);
  b.reduce(reduction::sum, as_const(x), mean, write_mode::overwrite);
  b.transform(math::mean_of_counted{}, mean, as_const(mean), as_const(count));
  b.transform(math::squared_deviation{}, x, as_const(x), const_real_view<B>(mean.data(), {n}, {0}));
  b.transform(math::keep_where{}, x, as_const(x), weight);
  b.reduce(reduction::sum, as_const(x), batch.slice(moments_squares, 1), write_mode::overwrite);
  add_moments(b, scratch, as_const(batch), state);
}
}  // namespace detail

/// Bytes of arena that `bco_moments_replies` takes.
template <class B>
std::size_t bco_moments_replies_workspace(const B&, index_t replies) {
  return workspace_size().template add<real_of<B>>(replies).add_bytes(detail::update_moments_bytes<B>(replies)).bytes();
}
/// `bco_moments` from one log-probability per reply.
template <class B>
  requires has_backend_types<B>
void bco_moments_replies(B& b, arena_of<B>& scratch, const_real_view<B> logp, const_real_view<B> ref_logp, double beta, real_view<B> state) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "bco_moments_replies";
  require_arguments(op, {{"state", state}}, {{"logp", logp}, {"ref_logp", ref_logp}});
  require_given(op, "ref_logp", ref_logp, logp.extent(0) > 0);
  require_same_shape(op, "ref_logp", ref_logp, "logp", logp);
  require_extent(op, "state", state, 0, moments_size, "count, mean, squared deviations");
  bco_options{.beta = beta}.require(op);
  scratch.require(op, bco_moments_replies_workspace(b, logp.extent(0)));
  typename arena_of<B>::frame frame(scratch);
  const auto reward = scratch.template take<real>(logp.extent(0));
  b.transform(math::minus{}, reward, logp, ref_logp);
  b.transform(math::scale<real>{static_cast<real>(beta)}, reward, as_const(reward));
  detail::update_moments(b, scratch, as_const(reward), state);
}

/// Bytes of arena that `bco_moments` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t bco_moments_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens, const bco_options& options = {}) {
  const index_t replies = sequences.sequences();
  return workspace_size()
      .template add<real_of<B>>(replies)
      .add_bytes(detail::replies_bytes<B>(tokens, replies, options.score, true))
      .add_bytes(detail::scored_reply_weights_bytes<B>(replies))
      .add_bytes(detail::update_moments_bytes<B>(replies))
      .bytes();
}

/// Takes the rewards `beta (logp - ref_logp)` of a batch, of either label, into the running moments `state` `[3]` (ops/running_moments.hpp).
/// Call it before `bco`: the mean with this batch in it, `state.slice(moments_mean, 1)`, is the shift. Across ranks: each into a state of
/// its own from 0, then `merge_moments`. Reads `logp`, `ref_logp`, `sequences` of `in`, and of `weight` whether it is 0.
template <class B>
  requires has_backend_types<B>
void bco_moments(B& b, arena_of<B>& scratch, const bco_inputs<real_of<B>, space_of<B>>& in, const bco_options& options, real_view<B> state) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "bco_moments";
  const index_t tokens = in.logp.extent(0);
  require_arguments(op, {{"state", state}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"begin", in.sequences.begin}, {"end", in.sequences.end},
                     {"scored", in.sequences.scored}, {"weight", in.weight}});
  require_given(op, "logp", in.logp, in.ref_logp.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "ref_logp", in.ref_logp, tokens > 0);
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_sequences(op, in.sequences, tokens);
  if (in.weight.given()) require_extent(op, "weight", in.weight, 0, in.sequences.sequences(), "the number of sequences");
  require_extent(op, "state", state, 0, moments_size, "count, mean, squared deviations");
  options.require(op);
  scratch.require(op, bco_moments_workspace(b, in.sequences, tokens, options));
  typename arena_of<B>::frame frame(scratch);
  const auto reward = scratch.template take<real>(in.sequences.sequences());
  b.transform(math::scale<real>{static_cast<real>(options.beta)}, reward,
              detail::sum_replies(b, scratch, in.logp, in.ref_logp, in.sequences, options.score).value);
  detail::update_moments_where(b, scratch, as_const(reward), detail::scored_reply_weights(b, scratch, in.sequences, tokens, in.weight), state);
}

/// Bytes of arena that `bco_replies` takes.
template <class B>
std::size_t bco_replies_workspace(const B&, index_t replies) {
  return detail::unpaired_replies_bytes<B>(replies);
}

/// BCO from one log-probability per reply: `L = weight/denominator sum_s w_s softplus(-+(beta (logp_s - ref_logp_s) - shift))`, minus for
/// desirable replies. The shift is a constant for the gradient. arXiv:2404.04656, section 3. `options.score` is not read.
template <class B>
  requires has_backend_types<B>
void bco_replies(B& b, arena_of<B>& scratch, const bco_replies_inputs<real_of<B>, space_of<B>>& in, const bco_options& options,
                 const unpaired_replies_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "bco_replies";
  detail::require_replies<B>(op, in, "shift", in.shift, out);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  require_given(op, "shift", in.shift, in.logp.extent(0) > 0);
  scratch.require(op, bco_replies_workspace(b, in.logp.extent(0)));
  detail::unpaired_replies(b, scratch, detail::bco_term_of<B>(options), in, in.shift, options.weight / options.denominator, options.beta, out);
}

/// Bytes of arena that `bco` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t bco_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens, const bco_options& options = {}) {
  return detail::unpaired_tokens_bytes<B>(tokens, sequences.sequences(), options.score);
}

/// BCO from token log-probabilities: the log-ratio of each token, summed over the scored tokens of each reply, then as `bco_replies`; the
/// gradient goes back to every scored token.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL `BCOTrainer`.
template <class B>
  requires has_backend_types<B>
void bco(B& b, arena_of<B>& scratch, const bco_inputs<real_of<B>, space_of<B>>& in, const bco_options& options,
         const unpaired_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "bco";
  detail::require_tokens<B>(op, in, "shift", in.shift, out);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  require_given(op, "shift", in.shift, in.sequences.sequences() > 0);
  scratch.require(op, bco_workspace(b, in.sequences, in.logp.extent(0), options));
  detail::unpaired_tokens(b, scratch, detail::bco_term_of<B>(options), in, in.shift, options.score, options.weight / options.denominator,
                          options.beta, out);
}

/// What the host overload returns.
template <class T>
struct bco_result {
  T loss = 0, shift = 0, reward_desirable = 0, reward_undesirable = 0, logp_desirable = 0, logp_undesirable = 0;
  std::vector<T> d_logp;  ///< `[S]`, dL/d(summed log-probability)
};

/// Vectors in, loss and gradient out, on the serial backend: summed log-probabilities of the replies and their labels. `state` `[3]` is
/// updated with this batch first; begin with zeros and keep it.
template <detail::host_range R>
bco_result<detail::value_of<R>> bco(const R& logp, view<const detail::value_of<R>, 1> ref_logp, view<const std::uint8_t, 1> desirable,
                                    view<detail::value_of<R>, 1> state, bco_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  const index_t replies = x.extent(0);
  if (options.denominator == 0) options.denominator = static_cast<double>(replies > 0 ? replies : 1);
  bco_result<T> r{.d_logp = detail::zeros<T>(replies)};
  T m[std::size(unpaired_metrics)][2] = {};
  const serial::backend<T> sizes{};
  detail::host_call<T> call(bco_replies_workspace(sizes, replies) + bco_moments_replies_workspace(sizes, replies));
  options.require("bco");
  detail::require_denominator("bco", options.denominator);
  require_extent("bco", "desirable", desirable, 0, replies, "one per reply");
  bco_moments_replies(call.compute, call.scratch, x, ref_logp, options.beta, state);
  bco_replies(call.compute, call.scratch, {.logp = x, .ref_logp = ref_logp, .desirable = desirable, .shift = state.slice(moments_mean, 1)}, options,
              {.loss = r.loss, .d_logp = r.d_logp, .metrics = view<T, 2>(&m[0][0], std::size(unpaired_metrics), 2)});
  T* fields[] = {&r.reward_desirable, &r.reward_undesirable, &r.logp_desirable, &r.logp_undesirable, &r.shift};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(unpaired_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

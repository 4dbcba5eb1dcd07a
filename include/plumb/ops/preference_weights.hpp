#pragma once
// Constants that preference objectives take: how much a token counts (LD-DPO), how much a pair counts (WPO), and the moving reference (TR-DPO).

#include <plumb/math/preference.hpp>
#include <plumb/ops/aggregate.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// The weight of a token with `rest` scored tokens of its reply from it on, where the reply is `excess` tokens longer than the other.
template <class T>
struct length_desensitized {
  T alpha;
  PLUMB_HD T operator()(const T& rest, const T& excess) const {
    if (!(T(0) < rest)) return T(0);
    return excess < rest ? T(1) : alpha;
  }
};
/// `max(0, a - b)`.
struct excess_over {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return b < a ? a - b : T(0); }
};
/// `exp(a + b)`.
struct exp_of_sum {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return exp(a + b); }
};
/// `y + share (x - y)`, exactly `x` where the share is 1.
template <class T>
struct mix {
  T share;
  PLUMB_HD T operator()(const T& y, const T& x) const { return share * x + (T(1) - share) * y; }
};

}  // namespace math

/// Options of `ld_dpo_weights`.
struct ld_dpo_options {
  double alpha = 0.5;  ///< weight of tokens beyond the shorter reply's length; in [0, 1]

  void require(const char* op) const { require_option(op, "alpha", alpha, alpha >= 0 && alpha <= 1, "in [0, 1]"); }
};

/// Bytes of arena that `ld_dpo_weights` takes.
template <class B>
std::size_t ld_dpo_weights_workspace(const B&, const preference_pairs<space_of<B>>& pairs, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  w.template add<real>(pairs.sequences.sequences()).template add<real>(tokens).template add<real>(1).template add<real>(1);
  for (int i = 0; i < 3; ++i) w.template add<real>(pairs.pairs());
  return w.bytes();
}

/// `weight[t]` `[N]`: 1 for the first `min(length_chosen, length_rejected)` scored tokens of either reply, `alpha` for those after, 0 for tokens that
/// do not count. A reply may be in one pair only; in none, all its tokens weigh 1. LD-DPO, arXiv:2409.06411. Checked against TRL (`ld_alpha`).
template <class B>
  requires has_backend_types<B>
void ld_dpo_weights(B& b, arena_of<B>& scratch, const preference_pairs<space_of<B>>& pairs, const ld_dpo_options& options,
                    const real_view<B>& weight) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "ld_dpo_weights";
  const auto& layout = pairs.sequences;
  const index_t tokens = weight.extent(0), sequences = layout.sequences(), count = pairs.pairs();
  require_arguments(op, {{"weight", weight}},
                    {{"begin", layout.begin}, {"end", layout.end}, {"scored", layout.scored}, {"pairs.chosen", pairs.chosen},
                     {"pairs.rejected", pairs.rejected}});
  options.require(op);
  require_given(op, "weight", weight, layout.scored.extent(0) > 0);
  require_sequences(op, layout, tokens);
  require_same_shape(op, "pairs.rejected", pairs.rejected, "pairs.chosen", pairs.chosen);
  require_ids(op, "pairs.chosen", pairs.chosen, sequences, false);
  require_ids(op, "pairs.rejected", pairs.rejected, sequences, false);
  scratch.require(op, ld_dpo_weights_workspace(b, pairs, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto of_sequences = scratch.template take<real>(sequences);
  const auto excess = scratch.template take<real>(tokens);
  const auto chosen = scratch.template take<real>(count), rejected = scratch.template take<real>(count), more = scratch.template take<real>(count);
  detail::scored_lengths(b, scratch, layout, tokens, of_sequences);
  b.row_gather(as_column(as_const(of_sequences)), pairs.chosen, as_column(chosen));
  b.row_gather(as_column(as_const(of_sequences)), pairs.rejected, as_column(rejected));
  b.fill(of_sequences, real(0));
  b.transform(math::excess_over{}, more, as_const(chosen), as_const(rejected));
  b.row_scatter_add(as_column(as_const(more)), pairs.chosen, as_column(of_sequences));
  b.transform(math::excess_over{}, more, as_const(rejected), as_const(chosen));
  b.row_scatter_add(as_column(as_const(more)), pairs.rejected, as_column(of_sequences));
  b.segment_broadcast(as_const(of_sequences), layout, excess, write_mode::overwrite);
  const auto one = detail::constant(b, scratch, real(1), tokens);
  b.segment_scan(one, one, layout, weight);  // scored tokens of the reply from this one on
  b.transform(math::length_desensitized<real>{static_cast<real>(options.alpha)}, weight, as_const(weight), as_const(excess));
}

/// The weights of a layout over `tokens` tokens in host memory, on the serial backend: `ld_dpo_weights<float>(pairs, tokens)`.
template <class T>
  requires std::is_floating_point_v<T>
std::vector<T> ld_dpo_weights(const preference_pairs<>& pairs, index_t tokens, const ld_dpo_options& options = {}) {
  constexpr const char* op = "ld_dpo_weights";
  detail::require_host_layout(op, pairs.sequences, tokens);
  require_id_data(op, "pairs.chosen", pairs.chosen, pairs.sequences.sequences(), false);
  require_id_data(op, "pairs.rejected", pairs.rejected, pairs.sequences.sequences(), false);
  auto weight = detail::zeros<T>(tokens);
  detail::host_call<T> call(ld_dpo_weights_workspace(serial::backend<T>{}, pairs, tokens));
  ld_dpo_weights(call.compute, call.scratch, pairs, options, view<T, 1>(weight));
  return weight;
}

/// Token log-probabilities of all sequences, and which is preferred to which.
template <class Real, class Space = host_space>
struct wpo_inputs {
  view<const Real, 1, Space> logp{};             ///< `[N]`
  view<const Real, 1, Space> log_sum_squares{};  ///< `[N]`, `log sum_v p_v^2` at each token (ops/log_sum_squares.hpp); not given: not aligned
  preference_pairs<Space> pairs{};
};

/// Bytes of arena that `wpo_weights` takes.
template <class B>
std::size_t wpo_weights_workspace(const B&, const preference_pairs<space_of<B>>& pairs, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  w.template add<real>(pairs.sequences.sequences()).template add<real>(pairs.sequences.sequences()).template add<real>(tokens).template add<real>(1);
  return w.template add<real>(pairs.pairs()).template add<real>(pairs.pairs()).bytes();
}

/// `weight[p] = u_chosen u_rejected` `[P]` with `u = exp(mean over scored tokens of logp - log_sum_squares)`: how likely the policy itself is to say
/// the two replies. Constants: no gradient. WPO, arXiv:2406.11827, eq. 2. Checked against TRL (`use_weighting`).
template <class B>
  requires has_backend_types<B>
void wpo_weights(B& b, arena_of<B>& scratch, const wpo_inputs<real_of<B>, space_of<B>>& in, const real_view<B>& weight) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "wpo_weights";
  const auto& layout = in.pairs.sequences;
  const index_t tokens = in.logp.extent(0), sequences = layout.sequences(), count = in.pairs.pairs();
  require_arguments(op, {{"weight", weight}},
                    {{"logp", in.logp}, {"log_sum_squares", in.log_sum_squares}, {"begin", layout.begin}, {"end", layout.end}, {"scored", layout.scored},
                     {"pairs.chosen", in.pairs.chosen}, {"pairs.rejected", in.pairs.rejected}});
  require_given(op, "logp", in.logp, layout.scored.extent(0) > 0);
  if (in.log_sum_squares.given()) require_same_shape(op, "log_sum_squares", in.log_sum_squares, "logp", in.logp);
  require_sequences(op, layout, tokens);
  require_same_shape(op, "pairs.rejected", in.pairs.rejected, "pairs.chosen", in.pairs.chosen);
  require_ids(op, "pairs.chosen", in.pairs.chosen, sequences, false);
  require_ids(op, "pairs.rejected", in.pairs.rejected, sequences, false);
  require_extent(op, "weight", weight, 0, count, "the number of pairs");
  scratch.require(op, wpo_weights_workspace(b, in.pairs, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto means = scratch.template take<real>(sequences), lengths = scratch.template take<real>(sequences);
  const auto chosen = scratch.template take<real>(count), rejected = scratch.template take<real>(count);
  auto aligned = in.logp;
  if (in.log_sum_squares.given()) {
    const auto difference = scratch.template take<real>(tokens);
    b.transform(math::minus{}, difference, in.logp, in.log_sum_squares);
    aligned = difference;
  }
  b.segment_reduce(reduction::sum, aligned, layout, means);
  detail::scored_lengths(b, scratch, layout, tokens, lengths);
  b.transform(math::per_token{}, means, as_const(means), as_const(lengths));
  b.row_gather(as_column(as_const(means)), in.pairs.chosen, as_column(chosen));
  b.row_gather(as_column(as_const(means)), in.pairs.rejected, as_column(rejected));
  b.transform(math::exp_of_sum{}, weight, as_const(chosen), as_const(rejected));
}

/// Vectors and pairs in, a weight for each pair out, on the serial backend.
template <detail::host_range R>
std::vector<detail::value_of<R>> wpo_weights(const R& logp, const preference_pairs<>& pairs, view<const detail::value_of<R>, 1> log_sum_squares = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "wpo_weights";
  const view<const T, 1> x(logp);
  detail::require_host_layout(op, pairs.sequences, x.extent(0));
  require_id_data(op, "pairs.chosen", pairs.chosen, pairs.sequences.sequences(), false);
  require_id_data(op, "pairs.rejected", pairs.rejected, pairs.sequences.sequences(), false);
  auto weight = detail::zeros<T>(pairs.pairs());
  detail::host_call<T> call(wpo_weights_workspace(serial::backend<T>{}, pairs, x.extent(0)));
  wpo_weights(call.compute, call.scratch, {.logp = x, .log_sum_squares = log_sum_squares, .pairs = pairs}, view<T, 1>(weight));
  return weight;
}

/// Options of `sync_reference`.
struct reference_sync_options {
  double share = 0.6;  ///< of the policy; in (0, 1]; 1 copies it

  void require(const char* op) const { require_option(op, "share", share, share > 0 && share <= 1, "in (0, 1]"); }
};

/// `reference = share policy + (1 - share) reference`, parameter by parameter: the moving reference of TR-DPO, arXiv:2404.09656. Any storage types, of
/// one model or of each, and any rank; takes no scratch. A reference in 16 bits stands still where a step is below half of its last digit (bf16: a share
/// of 1/256 of the difference of numbers alike): small shares want it in float, whatever the policy is in. (TRL's callback: `ref_model_mixup_alpha`,
/// every `ref_model_sync_steps`.)
template <class B, class P, class S, int R>
  requires has_backend_types<B>
void sync_reference(B& b, view<const P, R, space_of<B>> policy, const reference_sync_options& options, view<S, R, space_of<B>> reference) {
  static_assert(check_backend<B>());
  constexpr const char* op = "sync_reference";
  require_arguments(op, {{"reference", reference}}, {{"policy", policy}});
  options.require(op);
  require_same_shape(op, "reference", reference, "policy", policy);
  if (options.share < 1) {
    b.transform(math::mix<real_of<B>>{static_cast<real_of<B>>(options.share)}, reference, as_const(reference), policy);
  } else {
    b.copy(policy, reference);
  }
}

/// A vector into a reference in host memory, on the serial backend.
template <detail::host_range R>
void sync_reference(const R& policy, view<detail::value_of<R>, 1> reference, const reference_sync_options& options = {}) {
  using T = detail::value_of<R>;
  serial::backend<T> compute;
  sync_reference(compute, view<const T, 1>(policy), options, reference);
}

PLUMB_NAMESPACE_END

#pragma once
// ReMax: the baseline is the reward of the greedy reply to the same prompt.

#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

/// Flat tokens of all replies, and one baseline for each.
template <class Real, class Space = host_space>
struct remax_inputs {
  view<const Real, 1, Space> rewards{};   ///< `[N]`, per token; an outcome reward stands at a reply's last scored token
  view<const Real, 1, Space> baseline{};  ///< `[S]`, the reward of the greedy reply
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct remax_outputs {
  view<Real, 1, Space> advantage{};  ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> returns{};    ///< `[N]`, rewards from the token on; likewise
};

/// Bytes of arena that `remax` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t remax_workspace(const B&, index_t tokens) {
  return workspace_size().template add<real_of<B>>(tokens).template add<real_of<B>>(tokens).template add<real_of<B>>(1).bytes();
}

/// `A_t = sum_{u >= t} r_u - baseline` at the scored tokens (arXiv:2310.10505, algorithm 1). Checked against verl `compute_remax_outcome_advantage`.
/// Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void remax(B& b, arena_of<B>& scratch, const remax_inputs<real_of<B>, space_of<B>>& in, const remax_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "remax";
  const index_t tokens = in.rewards.extent(0);
  require_arguments(op, {{"advantage", out.advantage}, {"returns", out.returns}},
                    {{"rewards", in.rewards}, {"baseline", in.baseline},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  require_given(op, "rewards", in.rewards, in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  require_extent(op, "baseline", in.baseline, 0, in.sequences.sequences(), "the number of sequences");
  if (out.advantage.given()) require_same_shape(op, "advantage", out.advantage, "rewards", in.rewards);
  if (out.returns.given()) require_same_shape(op, "returns", out.returns, "rewards", in.rewards);
  scratch.require(op, remax_workspace(b, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto returns = out.returns.given() ? out.returns : scratch.template take<real>(tokens);
  b.segment_scan(detail::constant(b, scratch, real(1), tokens), in.rewards, in.sequences, returns);
  if (!out.advantage.given()) return;
  const auto baseline = scratch.template take<real>(tokens);
  b.segment_broadcast(in.baseline, in.sequences, baseline, write_mode::overwrite);
  b.transform(math::minus{}, out.advantage, as_const(returns), as_const(baseline));
}

/// Vectors and a layout in, advantages `[N]` out, on the serial backend.
template <detail::host_range R>
std::vector<detail::value_of<R>> remax(const R& rewards, view<const detail::value_of<R>, 1> baseline, const sequence_layout<>& sequences) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(rewards);
  require_layout("remax", sequences, x.extent(0));
  require_layout_data("remax", sequences, x.extent(0));
  auto advantage = detail::zeros<T>(x.extent(0));
  detail::host_call<T> call(remax_workspace(serial::backend<T>{}, x.extent(0)));
  remax(call.compute, call.scratch, {.rewards = x, .baseline = baseline, .sequences = sequences}, {.advantage = advantage});
  return advantage;
}

PLUMB_NAMESPACE_END

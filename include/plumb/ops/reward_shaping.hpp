#pragma once
// Rewards of replies, reshaped: too long, cut off, clipped.

#include <plumb/math/reward_shaping.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

/// One reward per reply, and what the rule asks for.
template <class Real, class Space = host_space>
struct shape_rewards_inputs {
  view<const Real, 1, Space> rewards{};            ///< `[S]`
  view<const Real, 1, Space> lengths{};            ///< `[S]`, in tokens (for `shaping::kl_penalty`: the reply's KL)
  view<const std::uint8_t, 1, Space> truncated{};  ///< `[S]`, 1: the reply was cut off
};

/// Bytes of arena that `shape_rewards` takes.
template <class B>
std::size_t shape_rewards_workspace(const B&) {
  return workspace_size().template add<real_of<B>>(1).bytes();
}

/// `shaped[s]` by `rule`, one of `shaping::overlong`, `scale_truncated`, `fix_truncated`, `clip`, `kl_penalty`. Several rules are several calls, in
/// the order that is meant. Enqueues and returns; takes one number of scratch. Checked against OpenRLHF `apply_length_penalties`, TRL `RLOOTrainer`.
template <class B, class Rule>
  requires has_backend_types<B>
void shape_rewards(B& b, arena_of<B>& scratch, const shape_rewards_inputs<real_of<B>, space_of<B>>& in, const Rule& rule,
                   const std::type_identity_t<real_view<B>>& shaped) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "shape_rewards";
  const index_t replies = in.rewards.extent(0);
  require_arguments(op, {{"shaped", shaped}}, {{"rewards", in.rewards}, {"lengths", in.lengths}, {"truncated", in.truncated}});
  require_same_shape(op, "shaped", shaped, "rewards", in.rewards);
  if constexpr (requires { rule.require(op); }) rule.require(op);
  require_given(op, "lengths", in.lengths, Rule::needs_length && replies > 0);
  require_given(op, "truncated", in.truncated, Rule::needs_truncated && replies > 0);
  if (in.lengths.given()) require_same_shape(op, "lengths", in.lengths, "rewards", in.rewards);
  if (in.truncated.given()) require_same_shape(op, "truncated", in.truncated, "rewards", in.rewards);
  scratch.require(op, shape_rewards_workspace(b));
  typename arena_of<B>::frame frame(scratch);
  const auto none = detail::constant(b, scratch, real(0), replies);
  const auto lengths = in.lengths.given() ? in.lengths : none;
  if (in.truncated.given()) {
    b.transform(rule, shaped, in.rewards, lengths, in.truncated);
  } else {
    b.transform(rule, shaped, in.rewards, lengths, none);
  }
}

/// Scored tokens of each sequence, into `lengths` `[S]`; `tokens` is the number of entries of the flat arrays. Takes the scratch of `shape_rewards`.
template <class B>
  requires has_backend_types<B>
void reply_lengths(B& b, arena_of<B>& scratch, const sequence_layout<space_of<B>>& sequences, index_t tokens,
                   const std::type_identity_t<real_view<B>>& lengths) {
  constexpr const char* op = "reply_lengths";
  require_arguments(op, {{"lengths", lengths}}, {{"begin", sequences.begin}, {"end", sequences.end}, {"scored", sequences.scored}});
  require_sequences(op, sequences, tokens);
  require_extent(op, "lengths", lengths, 0, sequences.sequences(), "the number of sequences");
  scratch.require(op, shape_rewards_workspace(b));
  typename arena_of<B>::frame frame(scratch);
  detail::scored_lengths(b, scratch, sequences, tokens, lengths);
}

/// Vectors in, rewards out, on the serial backend; what the rule does not ask for may be `{}`.
template <detail::host_range R, class Rule>
std::vector<detail::value_of<R>> shape_rewards(const R& rewards, const Rule& rule, view<const detail::value_of<R>, 1> lengths = {},
                                               view<const std::uint8_t, 1> truncated = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(rewards);
  auto shaped = detail::zeros<T>(x.extent(0));
  detail::host_call<T> call(shape_rewards_workspace(serial::backend<T>{}));
  shape_rewards(call.compute, call.scratch, {.rewards = x, .lengths = lengths, .truncated = truncated}, rule, shaped);
  return shaped;
}

/// Scored tokens of each sequence of a host layout over `tokens` tokens: `reply_lengths<float>(sequences, tokens)`, for `opo_advantage`.
template <class T>
  requires std::is_floating_point_v<T>
std::vector<T> reply_lengths(const sequence_layout<>& sequences, index_t tokens) {
  detail::require_host_layout("reply_lengths", sequences, tokens);
  auto lengths = detail::zeros<T>(sequences.sequences());
  detail::host_call<T> call(shape_rewards_workspace(serial::backend<T>{}));
  reply_lengths(call.compute, call.scratch, sequences, tokens, lengths);
  return lengths;
}

PLUMB_NAMESPACE_END

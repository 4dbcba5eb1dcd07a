#pragma once
// Advantages from one reward per reply, by groups of replies to the same prompt: GRPO, Dr. GRPO, RLOO, and with the batch's deviation.

#include <plumb/distributed/communicator.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/group_advantage.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/prompt_groups.hpp>

PLUMB_NAMESPACE_BEGIN

/// One reward per reply, replies of a prompt side by side (see `prompt_groups`).
template <class Real, class Space = host_space>
struct group_advantage_inputs {
  view<const Real, 1, Space> rewards{};  ///< `[S]`
  /// Replies `begin[g]` to `end[g]` answer prompt `g`; `scored` `[S]`: which replies count. The others are as if they were not there, and get 0.
  sequence_layout<Space> groups{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct group_advantage_outputs {
  view<Real, 1, Space> advantage{};  ///< `[S]`; 0 for replies that do not count
  view<Real, 1, Space> mean{};       ///< `[G]`, of the counted rewards; 0 of none
  view<Real, 1, Space> sd{};         ///< `[G]`, Bessel-corrected; 0 of one reward or none
};

namespace detail {

template <class Space>
void require_groups(const char* op, const sequence_layout<Space>& groups, index_t replies) {
  if (replies > 0 && groups.sequences() == 0)
    fail(message(op) << "no groups are given, but there are " << replies << " replies. Nothing was written.");
  require_layout(op, groups, replies);
}

// What is known of each group `[G]`.
template <class B>
struct group_numbers {
  real_view<B> count;  // counted replies
  real_view<B> top;    // their largest reward
  real_view<B> mean;   // their mean below `top`

  group_numbers(arena_of<B>& scratch, index_t groups)
      : count(scratch.template take<real_of<B>>(groups)), top(scratch.template take<real_of<B>>(groups)),
        mean(scratch.template take<real_of<B>>(groups)) {}
};

// `y = x[g]` at the counted replies of each group, 0 at the others.
template <class B>
void to_replies(B& b, real_view<B> x, const sequence_layout<space_of<B>>& groups, real_view<B> y) {
  b.segment_broadcast(as_const(x), groups, y, write_mode::overwrite);
}

// Counts the replies, and sets `below = reward - top`: exactly 0 where all rewards of a group are equal, so that no rounding of a mean is later
// divided by a deviation of nothing. `highest`, if given, becomes the largest reward of the call. `spread` is memory to work in.
template <class B>
void shift_by_top(B& b, arena_of<B>& scratch, const_real_view<B> rewards, const sequence_layout<space_of<B>>& groups, group_numbers<B>& g,
                  real_view<B> highest, real_view<B> spread, real_view<B> below) {
  typename arena_of<B>::frame frame(scratch);
  scored_lengths(b, scratch, groups, rewards.extent(0), g.count);
  b.segment_reduce(reduction::max, rewards, groups, g.top);
  if (highest.given()) b.reduce(reduction::max, as_const(g.top), highest, write_mode::overwrite);
  b.transform(math::keep_where{}, g.top, as_const(g.top), as_const(g.count));
  to_replies(b, g.top, groups, spread);
  b.transform(math::minus{}, below, rewards, as_const(spread));
}

// From `below` to `deviation` (which may be the same array): less the mean, weighted where weights are given.
template <class B>
void subtract_mean(B& b, arena_of<B>& scratch, const_real_view<B> weights, const sequence_layout<space_of<B>>& groups, group_numbers<B>& g,
                   real_view<B> spread, real_view<B> below, real_view<B> deviation) {
  typename arena_of<B>::frame frame(scratch);
  if (weights.given()) {
    const auto total = scratch.template take<real_of<B>>(groups.sequences());
    b.transform(math::weighted{}, spread, weights, as_const(below));
    b.segment_reduce(reduction::sum, as_const(spread), groups, g.mean);
    b.segment_reduce(reduction::sum, weights, groups, total);
    b.transform(math::mean_of_sum{}, g.mean, as_const(g.mean), as_const(total));
  } else {
    b.segment_reduce(reduction::sum, as_const(below), groups, g.mean);
    b.transform(math::mean_of_sum{}, g.mean, as_const(g.mean), as_const(g.count));
  }
  to_replies(b, g.mean, groups, spread);
  b.transform(math::minus{}, deviation, as_const(below), as_const(spread));
}

// Sums of squared deviations of each group.
template <class B>
void sum_squares(B& b, const sequence_layout<space_of<B>>& groups, real_view<B> spread, real_view<B> deviation, real_view<B> squares) {
  b.transform(math::times{}, spread, as_const(deviation), as_const(deviation));
  b.segment_reduce(reduction::sum, as_const(spread), groups, squares);
}

template <class B>
const_real_view<B> repeated_number(real_view<B> one, index_t extent) {
  return {one.data(), {extent}, {0}};
}

}  // namespace detail

/// A formula for `group_advantage`: the types of namespace `advantage`, or one's own of their kind.
template <class F, class Real>
concept advantage_formula = requires(const F& f, Real x) {
  { f(x, x, x, x) } -> std::convertible_to<Real>;
  { F::center } -> std::convertible_to<advantage::scope>;
  { F::spread } -> std::convertible_to<advantage::scope>;
};

/// Bytes of arena that `group_advantage` takes.
template <class B>
std::size_t group_advantage_workspace(const B&, const sequence_layout<space_of<B>>& groups, index_t replies) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(replies);
  for (int i = 0; i < 5; ++i) w.template add<real>(groups.sequences());
  for (int i = 0; i < 4; ++i) w.template add<real>(1);
  return w.template add<real>(4).bytes();
}

/// Advantage of each reply by `formula`, one of `advantage::grpo`, `centered`, `rloo`, `batch_scaled`, `batch_normalized`. Groups may have any
/// sizes. The call sees whole groups; for the last two the batch is that of all ranks, and every rank calls, those without replies too (three sums
/// of one to four numbers; the others talk to nobody). Enqueues and returns; nothing is allocated. Checked against verl
/// `compute_grpo(_vectorized)_outcome_advantage` and `compute_rloo(_vectorized)_outcome_advantage`, TRL `GRPOTrainer` and `RLOOTrainer`, OpenRLHF
/// `compute_advantages_and_returns`, NeMo-Aligner `calculate_rloo_baseline`.
template <class B, communicator_for<B> C, advantage_formula<real_of<B>> Formula>
  requires has_backend_types<B>
void group_advantage(B& b, arena_of<B>& scratch, C& ranks, const group_advantage_inputs<real_of<B>, space_of<B>>& in, const Formula& formula,
                     const group_advantage_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "group_advantage";
  constexpr bool batch_center = Formula::center == advantage::scope::batch, batch_spread = Formula::spread == advantage::scope::batch;
  static_assert(batch_spread || !batch_center, "plumb: group_advantage: the batch's mean goes with the batch's deviation");
  const index_t replies = in.rewards.extent(0), groups = in.groups.sequences();
  require_arguments(op, {{"advantage", out.advantage}, {"mean", out.mean}, {"sd", out.sd}},
                    {{"rewards", in.rewards}, {"begin", in.groups.begin}, {"end", in.groups.end}, {"scored", in.groups.scored}});
  require_given(op, "rewards", in.rewards, in.groups.scored.extent(0) > 0);
  detail::require_groups(op, in.groups, replies);
  if constexpr (requires { formula.require(op); }) formula.require(op);
  if (out.advantage.given()) require_same_shape(op, "advantage", out.advantage, "rewards", in.rewards);
  if (out.mean.given()) require_extent(op, "mean", out.mean, 0, groups, "the number of groups");
  if (out.sd.given()) require_extent(op, "sd", out.sd, 0, groups, "the number of groups");
  scratch.require(op, group_advantage_workspace(b, in.groups, replies));
  typename arena_of<B>::frame frame(scratch);
  detail::group_numbers<B> g(scratch, groups);
  const auto squares = scratch.template take<real>(groups), distance = scratch.template take<real>(groups);
  const auto deviation = scratch.template take<real>(replies), spread = scratch.template take<real>(replies),
             count = scratch.template take<real>(replies), squares_of = scratch.template take<real>(replies);
  const auto highest = scratch.template take<real>(1), all_mean = scratch.template take<real>(1), all_squares = scratch.template take<real>(1),
             sums = scratch.template take<real>(4);
  detail::shift_by_top(b, scratch, in.rewards, in.groups, g, highest, spread, deviation);
  detail::subtract_mean(b, scratch, const_real_view<B>{}, in.groups, g, spread, deviation, deviation);
  detail::sum_squares(b, in.groups, spread, deviation, squares);
  if (out.mean.given()) b.transform(math::plus{}, out.mean, as_const(g.top), as_const(g.mean));
  if (out.sd.given()) b.transform(math::group_deviation{}, out.sd, as_const(squares), as_const(g.count));
  if constexpr (batch_spread) {
    // Means are taken below the mean of the ranks' highest rewards, exact where those are equal: what `shift_by_top` does in a group, for the batch.
    const auto all_count = sums.slice(0, 1), ranks_with = sums.slice(1, 1), upper = sums.slice(2, 1), lower = sums.slice(3, 1);
    b.reduce(reduction::sum, as_const(g.count), all_count, write_mode::overwrite);
    b.transform(math::is_nonzero{}, ranks_with, as_const(all_count));
    b.transform2(math::halves_of_top{}, upper, lower, as_const(highest), as_const(all_count));
    ranks.all_reduce_sum(sums);
    b.transform(math::mean_of_halves{}, highest, as_const(upper), as_const(lower), as_const(ranks_with));
    // Squares of the batch: within the groups, and between their means.
    b.transform(math::mean_below_highest{}, distance, as_const(g.top), as_const(g.mean), detail::repeated_number<B>(highest, groups), as_const(g.count));
    b.transform(math::weighted{}, g.mean, as_const(g.count), as_const(distance));
    b.reduce(reduction::sum, as_const(g.mean), all_mean, write_mode::overwrite);
    ranks.all_reduce_sum(all_mean);
    b.transform(math::mean_of_sum{}, all_mean, as_const(all_mean), as_const(all_count));
    b.transform(math::minus{}, distance, as_const(distance), detail::repeated_number<B>(all_mean, groups));
    b.reduce(reduction::sum, as_const(squares), all_squares, write_mode::overwrite);
    b.transform(math::between_groups{}, g.mean, as_const(g.count), as_const(distance));
    b.reduce(reduction::sum, as_const(g.mean), all_squares, write_mode::add);
    ranks.all_reduce_sum(all_squares);
    if (!out.advantage.given()) return;
    if constexpr (batch_center) {
      detail::to_replies(b, distance, in.groups, spread);
      b.transform(math::plus{}, deviation, as_const(deviation), as_const(spread));
    }
    b.segment_broadcast(detail::repeated_number<B>(all_count, groups), in.groups, count, write_mode::overwrite);
    b.segment_broadcast(detail::repeated_number<B>(all_squares, groups), in.groups, squares_of, write_mode::overwrite);
  } else {
    if (!out.advantage.given()) return;
    detail::to_replies(b, g.count, in.groups, count);
    detail::to_replies(b, squares, in.groups, squares_of);
  }
  b.transform(math::counted_reply<Formula>{formula}, out.advantage, as_const(deviation), in.rewards, as_const(count), as_const(squares_of));
}

/// One rank.
template <class B, advantage_formula<real_of<B>> Formula>
  requires has_backend_types<B>
void group_advantage(B& b, arena_of<B>& scratch, const group_advantage_inputs<real_of<B>, space_of<B>>& in, const Formula& formula,
                     const group_advantage_outputs<real_of<B>, space_of<B>>& out) {
  const distributed::local one;
  group_advantage(b, scratch, one, in, formula, out);
}

/// One advantage per reply to one per token: `tokens[t] = advantage[s]` at the scored tokens of reply `s`, 0 elsewhere.
template <class B>
  requires has_backend_types<B>
void token_advantage(B& b, const_real_view<B> advantage, const sequence_layout<space_of<B>>& sequences, real_view<B> tokens) {
  constexpr const char* op = "token_advantage";
  require_arguments(op, {{"tokens", tokens}},
                    {{"advantage", advantage}, {"begin", sequences.begin}, {"end", sequences.end}, {"scored", sequences.scored}});
  require_sequences(op, sequences, tokens.extent(0));
  require_extent(op, "advantage", advantage, 0, sequences.sequences(), "the number of sequences");
  b.segment_broadcast(advantage, sequences, tokens, write_mode::overwrite);
}

namespace detail {

// `x` at each of `places`.
template <class T>
std::vector<T> picked(const std::vector<std::int32_t>& places, view<const T, 1> x) {
  std::vector<T> y;
  for (const std::int32_t i : places) y.push_back(x(i));
  return y;
}

// `run(grouped rewards, layout, grouped advantage)`; the advantages in the order of the rewards.
template <class T, class Run>
std::vector<T> host_advantage(const char* op, view<const T, 1> rewards, const prompt_groups& groups, view<const std::uint8_t, 1> scored, const Run& run) {
  require_extent(op, "rewards", rewards, 0, groups.replies(), "the number of replies in the groups");
  if (scored.given()) require_same_shape(op, "scored", scored, "rewards", rewards);
  const std::vector<T> grouped = picked(groups.order, rewards);
  const std::vector<std::uint8_t> counts = scored.given() ? picked(groups.order, scored) : std::vector<std::uint8_t>();
  std::vector<T> advantage(grouped.size());
  run(view<const T, 1>(grouped), scored.given() ? groups.layout(counts) : groups.layout(), view<T, 1>(advantage));
  return picked(groups.place, view<const T, 1>(advantage));
}

}  // namespace detail

/// What the host overload returns.
template <class T>
struct group_advantage_result {
  std::vector<T> advantage;  ///< `[S]`, in the order of the rewards
  std::vector<T> mean, sd;   ///< `[G]`
};

/// Rewards in any order, and which replies answer the same prompt: `group_advantage(rewards, group_by_prompt(prompt_ids), advantage::rloo{})`.
/// `scored`, in the order of the rewards, says which replies count.
template <detail::host_range R, class Formula = advantage::grpo>
group_advantage_result<detail::value_of<R>> group_advantage(const R& rewards, const prompt_groups& groups, const Formula& formula = {},
                                                            view<const std::uint8_t, 1> scored = {}) {
  using T = detail::value_of<R>;
  group_advantage_result<T> r{{}, detail::zeros<T>(groups.groups()), detail::zeros<T>(groups.groups())};
  r.advantage = detail::host_advantage<T>("group_advantage", view<const T, 1>(rewards), groups, scored,
                                          [&](view<const T, 1> grouped, const sequence_layout<>& layout, view<T, 1> advantage) {
    detail::host_call<T> call(group_advantage_workspace(serial::backend<T>{}, layout, grouped.extent(0)));
    group_advantage(call.compute, call.scratch, {.rewards = grouped, .groups = layout}, formula, {.advantage = advantage, .mean = r.mean, .sd = r.sd});
  });
  return r;
}

/// One advantage per reply to one for each of `tokens` tokens of a host layout.
template <detail::host_range R>
std::vector<detail::value_of<R>> token_advantage(const R& advantage, const sequence_layout<>& sequences, index_t tokens) {
  using T = detail::value_of<R>;
  detail::require_host_layout("token_advantage", sequences, tokens);
  auto y = detail::zeros<T>(tokens);
  serial::backend<T> compute;
  token_advantage(compute, view<const T, 1>(advantage), sequences, view<T, 1>(y));
  return y;
}

PLUMB_NAMESPACE_END

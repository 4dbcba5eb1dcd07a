#pragma once
// Several reward functions: their weighted sum, or the weighted sum of what each is after normalising (GDPO).

#include <plumb/ops/group_advantage.hpp>

PLUMB_NAMESPACE_BEGIN

/// A reward of each of `K` functions for each reply.
template <class Real, class Space = host_space>
struct several_rewards_inputs {
  view<const Real, 2, Space> rewards{};        ///< `[S, K]`
  view<const Real, 1, Space> weights{};        ///< `[K]`; a weight of 0 takes a function out, whatever it gave
  view<const std::uint8_t, 2, Space> given{};  ///< `[S, K]`, 0: the function gave this reply no reward; not given: all did
};

namespace math {

/// `weight * reward` where the reward is given and the weight not 0, else 0.
struct weighted_if_given {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& reward, const T& given) const { return is_zero(weight) || is_zero(given) ? T(0) : weight * reward; }
};

}  // namespace math

namespace detail {

template <class T, class Space>
view<T, 1, Space> reward_column(view<T, 2, Space> x, index_t k) {
  return {x.pointer + k * x.strides[1], {x.extents[0]}, {x.strides[0]}};
}

template <class Inputs>
void require_several_rewards(const char* op, const Inputs& in) {
  require_extent(op, "weights", in.weights, 0, in.rewards.extent(1), "the number of reward functions");
  if (in.given.given()) require_same_shape(op, "given", in.given, "rewards", in.rewards);
}

// `sums[s] = sum_k weights[k] rewards[s, k]`; `products` `[S, K]` is memory to work in, and may be the rewards.
template <class B>
void sum_rewards(B& b, const_real_view<B, 2> rewards, const several_rewards_inputs<real_of<B>, space_of<B>>& in, real_view<B, 2> products,
                 real_view<B> sums) {
  const auto weights = broadcast_rows(in.weights, rewards.extent(0));
  if (in.given.given()) {
    b.transform(math::weighted_if_given{}, products, weights, rewards, in.given);
  } else {
    b.transform(math::weighted{}, products, weights, rewards);
  }
  b.reduce(reduction::sum, as_const(products), as_column(sums), write_mode::overwrite);
}

}  // namespace detail

/// Bytes of arena that `sum_rewards` takes.
template <class B>
std::size_t sum_rewards_workspace(const B&, index_t replies, index_t functions) {
  return workspace_size().template add<real_of<B>>(replies * functions).bytes();
}

/// `reward[s] = sum_k weights[k] rewards[s, k]` over the functions that gave one; 0 where none did: leave such a reply out of its group
/// (`replies_with_rewards`). Then any formula follows (TRL `sum_then_normalize`).
template <class B>
  requires has_backend_types<B>
void sum_rewards(B& b, arena_of<B>& scratch, const several_rewards_inputs<real_of<B>, space_of<B>>& in, const std::type_identity_t<real_view<B>>& reward) {
  static_assert(check_backend<B>());
  constexpr const char* op = "sum_rewards";
  const index_t replies = in.rewards.extent(0), functions = in.rewards.extent(1);
  require_arguments(op, {{"reward", reward}}, {{"rewards", in.rewards}, {"weights", in.weights}, {"given", in.given}});
  detail::require_several_rewards(op, in);
  require_extent(op, "reward", reward, 0, replies, "the number of replies");
  scratch.require(op, sum_rewards_workspace(b, replies, functions));
  typename arena_of<B>::frame frame(scratch);
  detail::sum_rewards(b, in.rewards, in, scratch.template take<real_of<B>>(replies, functions), reward);
}

/// Options of `gdpo`.
struct gdpo_options {
  advantage::grpo each{};                ///< of each function's rewards in each group
  advantage::batch_normalized whole{};  ///< of the weighted sums over the batch, of all ranks

  void require(const char* op) const {
    each.require(op);
    whole.require(op);
  }
};
/// Outputs of `gdpo` that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct gdpo_outputs {
  view<Real, 1, Space> advantage{};   ///< `[S]`; 0 for replies that do not count
  view<Real, 1, Space> sum{};         ///< `[S]`, the weighted sums of normalised rewards
  view<Real, 2, Space> normalized{};  ///< `[S, K]`; 0 where a function gave no reward
};

/// Bytes of arena that `gdpo` takes.
template <class B>
std::size_t gdpo_workspace(const B& b, const sequence_layout<space_of<B>>& groups, index_t replies, index_t functions) {
  using real = real_of<B>;
  workspace_size w;
  w.template add<real>(replies * functions).template add<real>(replies * functions).template add<real>(replies);
  return w.add_bytes(group_advantage_workspace(b, groups, replies)).bytes();
}

/// Each function's rewards are normalised in each group, so that none drowns another; their weighted sum is normalised over the batch: GDPO
/// (arXiv:2601.05242). `groups.scored` says which replies count in the end; where `given` is given, a reply counts for function `k` where
/// `given[s, k]` is not 0, so a reply that is left out has a row of zeros there. Every rank calls, those without replies too. Checked against TRL
/// `normalize_then_sum`.
template <class B, communicator_for<B> C>
  requires has_backend_types<B>
void gdpo(B& b, arena_of<B>& scratch, C& ranks, const several_rewards_inputs<real_of<B>, space_of<B>>& in, const sequence_layout<space_of<B>>& groups,
          const gdpo_options& options, const gdpo_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "gdpo";
  const index_t replies = in.rewards.extent(0), functions = in.rewards.extent(1);
  require_arguments(op, {{"advantage", out.advantage}, {"sum", out.sum}, {"normalized", out.normalized}},
                    {{"rewards", in.rewards}, {"weights", in.weights}, {"given", in.given},
                     {"begin", groups.begin}, {"end", groups.end}, {"scored", groups.scored}});
  detail::require_several_rewards(op, in);
  detail::require_groups(op, groups, replies);
  options.require(op);
  if (out.advantage.given()) require_extent(op, "advantage", out.advantage, 0, replies, "the number of replies");
  if (out.sum.given()) require_extent(op, "sum", out.sum, 0, replies, "the number of replies");
  if (out.normalized.given()) require_same_shape(op, "normalized", out.normalized, "rewards", in.rewards);
  scratch.require(op, gdpo_workspace(b, groups, replies, functions));
  typename arena_of<B>::frame frame(scratch);
  const auto normalized = out.normalized.given() ? out.normalized : scratch.template take<real>(replies, functions);
  const auto products = scratch.template take<real>(replies, functions);
  const auto sum = out.sum.given() ? out.sum : scratch.template take<real>(replies);
  for (index_t k = 0; k < functions; ++k) {
    auto counted = groups;
    if (in.given.given()) counted.scored = detail::reward_column(in.given, k);
    group_advantage(b, scratch, {.rewards = detail::reward_column(in.rewards, k), .groups = counted}, options.each,
                    {.advantage = detail::reward_column(normalized, k)});
  }
  detail::sum_rewards(b, as_const(normalized), in, products, sum);
  group_advantage(b, scratch, ranks, {.rewards = as_const(sum), .groups = groups}, options.whole, {.advantage = out.advantage});
}

/// One rank.
template <class B>
  requires has_backend_types<B>
void gdpo(B& b, arena_of<B>& scratch, const several_rewards_inputs<real_of<B>, space_of<B>>& in, const sequence_layout<space_of<B>>& groups,
          const gdpo_options& options, const gdpo_outputs<real_of<B>, space_of<B>>& out) {
  const distributed::local one;
  gdpo(b, scratch, one, in, groups, options, out);
}

/// Replies that at least one function gave a reward, `[S]`: the `scored` of the groups.
inline std::vector<std::uint8_t> replies_with_rewards(view<const std::uint8_t, 2> given) {
  std::vector<std::uint8_t> y(static_cast<std::size_t>(given.extent(0)));
  for (index_t s = 0; s < given.extent(0); ++s)
    for (index_t k = 0; k < given.extent(1); ++k) y[static_cast<std::size_t>(s)] |= given(s, k) != 0;
  return y;
}

/// Rewards `[S, K]` as a flat vector in, one for each reply out, on the serial backend. `given` `[S, K]` may be `{}`.
template <detail::host_range R>
std::vector<detail::value_of<R>> sum_rewards(const R& rewards, view<const detail::value_of<R>, 1> weights, view<const std::uint8_t, 1> given = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "sum_rewards";
  const view<const T, 1> x(rewards);
  const auto rows = detail::host_rows(op, "rewards", x, weights.extent(0), "reward functions");
  if (given.given()) require_same_shape(op, "given", given, "rewards", x);
  auto sum = detail::zeros<T>(rows.extent(0));
  detail::host_call<T> call(sum_rewards_workspace(serial::backend<T>{}, rows.extent(0), rows.extent(1)));
  sum_rewards(call.compute, call.scratch,
              {.rewards = rows,
               .weights = weights,
               .given = given.given() ? detail::host_rows(op, "given", given, rows.extent(1), "reward functions") : view<const std::uint8_t, 2>()},
              sum);
  return sum;
}

/// What the host overload returns.
template <class T>
struct gdpo_result {
  std::vector<T> advantage, sum;  ///< `[S]`
};

/// Rewards `[S, K]` as a flat vector, replies of a prompt side by side, on the serial backend. `given` `[S, K]` may be `{}`; a reply without any
/// reward gets 0.
template <detail::host_range R>
gdpo_result<detail::value_of<R>> gdpo(const R& rewards, view<const detail::value_of<R>, 1> weights, const prompt_groups& groups,
                                      const gdpo_options& options = {}, view<const std::uint8_t, 1> given = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(rewards);
  const index_t replies = groups.replies(), functions = weights.extent(0);
  require_extent("gdpo", "rewards", x, 0, replies * functions, "replies times reward functions");
  if (given.given()) require_same_shape("gdpo", "given", given, "rewards", x);
  const auto given_of = given.given() ? reshaped(given, replies, functions) : view<const std::uint8_t, 2>();
  const auto scored = replies_with_rewards(given_of);
  const auto layout = given.given() ? groups.layout(scored) : groups.layout();
  gdpo_result<T> r{detail::zeros<T>(replies), detail::zeros<T>(replies)};
  detail::host_call<T> call(gdpo_workspace(serial::backend<T>{}, layout, replies, functions));
  gdpo(call.compute, call.scratch, {.rewards = reshaped(x, replies, functions), .weights = weights, .given = given_of}, layout, options,
       {.advantage = r.advantage, .sum = r.sum});
  return r;
}

PLUMB_NAMESPACE_END

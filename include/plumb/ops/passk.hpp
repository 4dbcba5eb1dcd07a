#pragma once
// Pass@k: only the best reply to a prompt counts, by how much it beats the second best.

#include <plumb/ops/group_advantage.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `passk_advantage`.
struct passk_options {
  bool normalize = false;  ///< divide by the group's standard deviation (Bessel-corrected) `+ epsilon`, as verl does by default
  double epsilon = 1e-6;

  void require(const char* op) const { require_option(op, "epsilon", epsilon, epsilon >= 0, "0 or positive"); }
};

/// Bytes of arena that `passk_advantage` takes.
template <class B>
std::size_t passk_advantage_workspace(const B&, const sequence_layout<space_of<B>>& groups, index_t replies) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(replies);
  for (int i = 0; i < 6; ++i) w.template add<real>(groups.sequences());
  return w.template add<real>(1).bytes();
}

/// The best counted reply of each group gets the largest reward less the second largest, the others 0: how much the maximum over the group would
/// lose without it (arXiv:2503.19595, section 3). Where the largest reward occurs twice, or a group has one reply, all get 0. `advantage` `[S]`.
/// Checked against verl `compute_grpo_passk_outcome_advantage`, which refuses groups of one.
template <class B>
  requires has_backend_types<B>
void passk_advantage(B& b, arena_of<B>& scratch, const group_advantage_inputs<real_of<B>, space_of<B>>& in, const passk_options& options,
                     const std::type_identity_t<real_view<B>>& advantage) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "passk_advantage";
  const index_t replies = in.rewards.extent(0), groups = in.groups.sequences();
  require_arguments(op, {{"advantage", advantage}},
                    {{"rewards", in.rewards}, {"begin", in.groups.begin}, {"end", in.groups.end}, {"scored", in.groups.scored}});
  detail::require_groups(op, in.groups, replies);
  require_same_shape(op, "advantage", advantage, "rewards", in.rewards);
  options.require(op);
  scratch.require(op, passk_advantage_workspace(b, in.groups, replies));
  typename arena_of<B>::frame frame(scratch);
  detail::group_numbers<B> g(scratch, groups);
  const auto divisor = scratch.template take<real>(groups), second = scratch.template take<real>(groups), tops = scratch.template take<real>(groups);
  const auto below = scratch.template take<real>(replies), spread = scratch.template take<real>(replies), count = scratch.template take<real>(replies),
             deviation = scratch.template take<real>(replies);
  detail::shift_by_top(b, scratch, in.rewards, in.groups, g, {}, spread, below);
  if (options.normalize) {
    detail::subtract_mean(b, scratch, const_real_view<B>{}, in.groups, g, spread, below, deviation);
    detail::sum_squares(b, in.groups, spread, deviation, divisor);
    b.transform(math::gap_divisor<real>{static_cast<real>(options.epsilon)}, divisor, as_const(divisor), as_const(g.count));
  } else {
    b.fill(divisor, real(1));
  }
  b.transform(math::below_top<real>{static_cast<real>(-std::numeric_limits<double>::infinity())}, spread, as_const(below));
  b.segment_reduce(reduction::max, as_const(spread), in.groups, second);
  b.transform(math::at_top{}, spread, as_const(below));
  b.segment_reduce(reduction::sum, as_const(spread), in.groups, tops);
  b.transform(math::top_gap{}, second, as_const(second), as_const(tops), as_const(g.count), as_const(divisor));
  detail::to_replies(b, second, in.groups, spread);
  detail::to_replies(b, g.count, in.groups, count);
  b.transform(math::gap_at_top{}, advantage, as_const(below), as_const(spread), as_const(count));
}

/// Rewards in any order and `group_by_prompt(prompt_ids)` in, advantages in the order of the rewards out.
template <detail::host_range R>
std::vector<detail::value_of<R>> passk_advantage(const R& rewards, const prompt_groups& groups, const passk_options& options = {},
                                    view<const std::uint8_t, 1> scored = {}) {
  using T = detail::value_of<R>;
  return detail::host_advantage<T>("passk_advantage", view<const T, 1>(rewards), groups, scored,
                                   [&](view<const T, 1> grouped, const sequence_layout<>& layout, view<T, 1> advantage) {
    detail::host_call<T> call(passk_advantage_workspace(serial::backend<T>{}, layout, grouped.extent(0)));
    passk_advantage(call.compute, call.scratch, {.rewards = grouped, .groups = layout}, options, advantage);
  });
}

PLUMB_NAMESPACE_END

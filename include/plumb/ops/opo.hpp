#pragma once
// OPO: the group's baseline is the mean of its rewards weighted by the replies' lengths.

#include <plumb/ops/group_advantage.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `opo_advantage`.
struct opo_options {
  advantage::lone_reply alone = advantage::lone_reply::zero;  ///< what a reply without a counted sibling gets

  void require(const char* op) const { require_mode(op, "alone", alone, advantage::lone_reply::reward); }
};
/// One reward and one length per reply, replies of a prompt side by side.
template <class Real, class Space = host_space>
struct opo_inputs {
  view<const Real, 1, Space> rewards{};  ///< `[S]`
  view<const Real, 1, Space> lengths{};  ///< `[S]`, in scored tokens (`reply_lengths`); 0 or positive
  sequence_layout<Space> groups{};       ///< as in `group_advantage_inputs`
};

/// Bytes of arena that `opo_advantage` takes.
template <class B>
std::size_t opo_advantage_workspace(const B&, const sequence_layout<space_of<B>>& groups, index_t replies) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(replies);
  for (int i = 0; i < 4; ++i) w.template add<real>(groups.sequences());
  return w.template add<real>(1).bytes();
}

/// `A = r - sum(length r) / sum(length)` over the counted replies of the group: the baseline of least variance where a reply's gradient grows with
/// its length (arXiv:2505.23585, eq. 8). `advantage` `[S]`; 0 for replies that do not count. Checked against verl `compute_opo_outcome_advantage`.
template <class B>
  requires has_backend_types<B>
void opo_advantage(B& b, arena_of<B>& scratch, const opo_inputs<real_of<B>, space_of<B>>& in, const opo_options& options,
                   const std::type_identity_t<real_view<B>>& advantage) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "opo_advantage";
  const index_t replies = in.rewards.extent(0);
  require_arguments(op, {{"advantage", advantage}},
                    {{"rewards", in.rewards}, {"lengths", in.lengths}, {"begin", in.groups.begin}, {"end", in.groups.end}, {"scored", in.groups.scored}});
  detail::require_groups(op, in.groups, replies);
  options.require(op);
  require_same_shape(op, "lengths", in.lengths, "rewards", in.rewards);
  require_same_shape(op, "advantage", advantage, "rewards", in.rewards);
  scratch.require(op, opo_advantage_workspace(b, in.groups, replies));
  typename arena_of<B>::frame frame(scratch);
  detail::group_numbers<B> g(scratch, in.groups.sequences());
  const auto deviation = scratch.template take<real>(replies), spread = scratch.template take<real>(replies), count = scratch.template take<real>(replies);
  detail::shift_by_top(b, scratch, in.rewards, in.groups, g, {}, spread, deviation);
  detail::subtract_mean(b, scratch, in.lengths, in.groups, g, spread, deviation, deviation);
  detail::to_replies(b, g.count, in.groups, count);
  b.transform(math::counted_reply<advantage::centered>{{options.alone}}, advantage, as_const(deviation), in.rewards, as_const(count), as_const(count));
}

/// Rewards and lengths in any order and `group_by_prompt(prompt_ids)` in, advantages in the order of the rewards out.
template <detail::host_range R>
std::vector<detail::value_of<R>> opo_advantage(const R& rewards, view<const detail::value_of<R>, 1> lengths, const prompt_groups& groups,
                                               const opo_options& options = {}, view<const std::uint8_t, 1> scored = {}) {
  using T = detail::value_of<R>;
  require_extent("opo_advantage", "lengths", lengths, 0, groups.replies(), "the number of replies in the groups");
  const std::vector<T> grouped_lengths = detail::picked(groups.order, lengths);
  return detail::host_advantage<T>("opo_advantage", view<const T, 1>(rewards), groups, scored,
                                   [&](view<const T, 1> grouped, const sequence_layout<>& layout, view<T, 1> advantage) {
    detail::host_call<T> call(opo_advantage_workspace(serial::backend<T>{}, layout, grouped.extent(0)));
    opo_advantage(call.compute, call.scratch, {.rewards = grouped, .lengths = grouped_lengths, .groups = layout}, options, advantage);
  });
}

PLUMB_NAMESPACE_END

#pragma once
// GPG: the deviation from the group's mean, times the share of replies that teach something.

#include <plumb/ops/group_advantage.hpp>

PLUMB_NAMESPACE_BEGIN

/// Which replies GPG's factor counts as valid.
enum class gpg_valid {
  varied_groups,   ///< replies of groups whose rewards are not all equal: the others have no gradient (the paper)
  nonzero_rewards  ///< replies whose reward is not 0 (verl)
};
/// Options of `gpg_advantage`.
struct gpg_options {
  double divisor = 1;  ///< the paper's F_norm
  gpg_valid valid = gpg_valid::varied_groups;
  advantage::lone_reply alone = advantage::lone_reply::zero;

  void require(const char* op) const {
    require_mode(op, "valid", valid, gpg_valid::nonzero_rewards);
    require_mode(op, "alone", alone, advantage::lone_reply::reward);
    require_option(op, "divisor", divisor, divisor > 0, "positive");
  }
};

/// Bytes of arena that `gpg_advantage` takes.
template <class B>
std::size_t gpg_advantage_workspace(const B&, const sequence_layout<space_of<B>>& groups, index_t replies) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(replies);
  for (int i = 0; i < 4; ++i) w.template add<real>(groups.sequences());
  return w.template add<real>(2).template add<real>(1).bytes();
}

/// `A = (counted replies / valid replies) (r - mean of the group) / divisor` (arXiv:2504.02546, section 3.2). `advantage` `[S]`; 0 for replies that
/// do not count. The call sees whole groups; the factor is that of all ranks, and every rank calls, those without replies too (one sum of two
/// numbers). Checked against verl `compute_gpg_outcome_advantage`.
template <class B, communicator_for<B> C>
  requires has_backend_types<B>
void gpg_advantage(B& b, arena_of<B>& scratch, C& ranks, const group_advantage_inputs<real_of<B>, space_of<B>>& in, const gpg_options& options,
                   const std::type_identity_t<real_view<B>>& advantage) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "gpg_advantage";
  const index_t replies = in.rewards.extent(0), groups = in.groups.sequences();
  require_arguments(op, {{"advantage", advantage}},
                    {{"rewards", in.rewards}, {"begin", in.groups.begin}, {"end", in.groups.end}, {"scored", in.groups.scored}});
  detail::require_groups(op, in.groups, replies);
  require_same_shape(op, "advantage", advantage, "rewards", in.rewards);
  options.require(op);
  scratch.require(op, gpg_advantage_workspace(b, in.groups, replies));
  typename arena_of<B>::frame frame(scratch);
  detail::group_numbers<B> g(scratch, groups);
  const auto valid_of = scratch.template take<real>(groups);
  const auto deviation = scratch.template take<real>(replies), spread = scratch.template take<real>(replies), count = scratch.template take<real>(replies);
  const auto sums = scratch.template take<real>(2), counted = sums.slice(0, 1), valid = sums.slice(1, 1);
  detail::shift_by_top(b, scratch, in.rewards, in.groups, g, {}, spread, deviation);
  detail::subtract_mean(b, scratch, const_real_view<B>{}, in.groups, g, spread, deviation, deviation);
  if (options.valid == gpg_valid::varied_groups) {
    detail::sum_squares(b, in.groups, spread, deviation, valid_of);
    b.transform(math::count_where_varied{}, valid_of, as_const(g.count), as_const(valid_of));
  } else {
    b.transform(math::nonzero_reward{}, spread, in.rewards);
    b.segment_reduce(reduction::sum, as_const(spread), in.groups, valid_of);
  }
  b.reduce(reduction::sum, as_const(valid_of), valid, write_mode::overwrite);
  b.reduce(reduction::sum, as_const(g.count), counted, write_mode::overwrite);
  ranks.all_reduce_sum(sums);
  b.transform(math::mean_of_sum{}, counted, as_const(counted), as_const(valid));
  detail::to_replies(b, g.count, in.groups, count);
  b.transform(math::gpg_term<real>{static_cast<real>(options.divisor), options.alone == advantage::lone_reply::reward}, advantage, as_const(deviation),
              in.rewards, as_const(count), detail::repeated_number<B>(counted, replies));
}

/// One rank.
template <class B>
  requires has_backend_types<B>
void gpg_advantage(B& b, arena_of<B>& scratch, const group_advantage_inputs<real_of<B>, space_of<B>>& in, const gpg_options& options,
                   const std::type_identity_t<real_view<B>>& advantage) {
  const distributed::local one;
  gpg_advantage(b, scratch, one, in, options, advantage);
}

/// Rewards in any order and `group_by_prompt(prompt_ids)` in, advantages in the order of the rewards out.
template <detail::host_range R>
std::vector<detail::value_of<R>> gpg_advantage(const R& rewards, const prompt_groups& groups, const gpg_options& options = {},
                                    view<const std::uint8_t, 1> scored = {}) {
  using T = detail::value_of<R>;
  return detail::host_advantage<T>("gpg_advantage", view<const T, 1>(rewards), groups, scored,
                                   [&](view<const T, 1> grouped, const sequence_layout<>& layout, view<T, 1> advantage) {
    detail::host_call<T> call(gpg_advantage_workspace(serial::backend<T>{}, layout, grouped.extent(0)));
    gpg_advantage(call.compute, call.scratch, {.rewards = grouped, .groups = layout}, options, advantage);
  });
}

PLUMB_NAMESPACE_END

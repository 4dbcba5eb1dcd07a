#pragma once
// Which groups and replies are worth training on: rewards that differ (DAPO's dynamic sampling), replies that ended (overlong filtering).

#include <plumb/ops/group_advantage.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `varied_groups` and `keep_varied`.
struct varied_groups_options {
  double tolerance = 0;  ///< rewards no further apart than this are equal

  void require(const char* op) const { require_option(op, "tolerance", tolerance, tolerance >= 0, "0 or positive"); }
};

/// Bytes of arena that `varied_groups` takes.
template <class B>
std::size_t varied_groups_workspace(const B&, const sequence_layout<space_of<B>>& groups, index_t replies) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(groups.sequences());
  return w.template add<real>(replies).template add<real>(1).bytes();
}

/// `varied[g]` is 1 where the counted rewards of group `g` are not all equal, 0 where they are (or there are none): DAPO's dynamic sampling keeps the
/// first (arXiv:2503.14476, section 3.2). A group with NaN gives NaN. Sum it for the number of groups that teach something.
template <class B>
  requires has_backend_types<B>
void varied_groups(B& b, arena_of<B>& scratch, const group_advantage_inputs<real_of<B>, space_of<B>>& in, const varied_groups_options& options,
                   const std::type_identity_t<real_view<B>>& varied) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "varied_groups";
  const index_t replies = in.rewards.extent(0), groups = in.groups.sequences();
  require_arguments(op, {{"varied", varied}},
                    {{"rewards", in.rewards}, {"begin", in.groups.begin}, {"end", in.groups.end}, {"scored", in.groups.scored}});
  detail::require_groups(op, in.groups, replies);
  require_extent(op, "varied", varied, 0, groups, "the number of groups");
  options.require(op);
  scratch.require(op, varied_groups_workspace(b, in.groups, replies));
  typename arena_of<B>::frame frame(scratch);
  const auto count = scratch.template take<real>(groups), top = scratch.template take<real>(groups), bottom = scratch.template take<real>(groups);
  const auto negated = scratch.template take<real>(replies);
  detail::scored_lengths(b, scratch, in.groups, replies, count);
  b.segment_reduce(reduction::max, in.rewards, in.groups, top);
  b.transform(math::negate{}, negated, in.rewards);
  b.segment_reduce(reduction::max, as_const(negated), in.groups, bottom);
  b.transform(math::group_varies<real>{static_cast<real>(options.tolerance)}, varied, as_const(top), as_const(bottom), as_const(count));
}

/// What `keep_varied` finds, in host memory.
struct kept_groups {
  std::vector<std::uint8_t> varied;  ///< `[G]`
  std::vector<std::uint8_t> keep;    ///< `[S]`: counted replies of varied groups; the `scored` of what follows
  index_t groups = 0, replies = 0;   ///< how many are kept
};

/// The same in host memory, by group and by reply: prompts with `varied[g]` 0 are the ones to sample anew. A group with NaN is not kept.
template <detail::host_range R>
kept_groups keep_varied(const R& rewards, const sequence_layout<>& groups, const varied_groups_options& options = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "keep_varied";
  const view<const T, 1> x(rewards);
  detail::require_groups(op, groups, x.extent(0));
  require_layout_data(op, groups, x.extent(0));
  std::vector<T> varied = detail::zeros<T>(groups.sequences());
  detail::host_call<T> call(varied_groups_workspace(serial::backend<T>{}, groups, x.extent(0)));
  varied_groups(call.compute, call.scratch, {.rewards = x, .groups = groups}, options, varied);
  kept_groups k{{}, std::vector<std::uint8_t>(static_cast<std::size_t>(x.extent(0)))};
  for (index_t g = 0; g < groups.sequences(); ++g) {
    const bool kept = T(0) < varied[static_cast<std::size_t>(g)];
    k.varied.push_back(kept);
    k.groups += kept;
    for (index_t s = groups.begin(g); kept && s < groups.end(g); ++s) {
      const bool counts = !groups.scored.given() || groups.scored(s) != 0;
      k.keep[static_cast<std::size_t>(s)] = counts;
      k.replies += counts;
    }
  }
  return k;
}

/// The replies of `keep` that were not cut off: DAPO's overlong filtering, NeMo-Aligner's `is_end`. `keep` not given: all.
inline std::vector<std::uint8_t> keep_finished(view<const std::uint8_t, 1> truncated, view<const std::uint8_t, 1> keep = {}) {
  if (keep.given()) require_same_shape("keep_finished", "keep", keep, "truncated", truncated);
  std::vector<std::uint8_t> y;
  for (index_t s = 0; s < truncated.extent(0); ++s) y.push_back(truncated(s) == 0 && (!keep.given() || keep(s) != 0));
  return y;
}

/// The scored tokens of kept replies, `[tokens]`: the mask under which a loss leaves the others out, its denominator too (`count_scored`).
inline std::vector<std::uint8_t> keep_tokens(const sequence_layout<>& sequences, view<const std::uint8_t, 1> keep, index_t tokens) {
  constexpr const char* op = "keep_tokens";
  require_layout(op, sequences, tokens);
  require_layout_data(op, sequences, tokens);
  require_extent(op, "keep", keep, 0, sequences.sequences(), "the number of sequences");
  std::vector<std::uint8_t> y(static_cast<std::size_t>(tokens));
  for (index_t s = 0; s < sequences.sequences(); ++s)
    for (index_t t = sequences.begin(s); keep(s) != 0 && t < sequences.end(s); ++t)
      y[static_cast<std::size_t>(t)] = !sequences.scored.given() || sequences.scored(t) != 0;
  return y;
}

PLUMB_NAMESPACE_END

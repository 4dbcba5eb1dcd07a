#pragma once
// Which replies answer the same prompt, from a list of prompt ids in any order.

#include <plumb/core/layout.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

PLUMB_NAMESPACE_BEGIN

/// Replies by prompt. Group operations want arrays in this order: `row_gather` with `order` brings rewards there, `row_gather` with `place`
/// brings advantages back.
struct prompt_groups {
  std::vector<std::int32_t> begin, end;  ///< `[G]`: places `begin[g]` to `end[g]` answer prompt `g`
  std::vector<std::int32_t> order;       ///< `[S]`: the reply at each place
  std::vector<std::int32_t> place;       ///< `[S]`: the place of each reply

  index_t groups() const { return static_cast<index_t>(begin.size()); }
  index_t replies() const { return static_cast<index_t>(order.size()); }
  /// As the layout that group operations take; `scored` `[S]`, in the order of places, says which replies count.
  sequence_layout<> layout(view<const std::uint8_t, 1> scored = {}) const { return {begin, end, scored}; }
};

/// Groups by equal ids (anything with `<`: numbers, strings); groups in the order of their first replies, replies of a group in theirs.
template <class Ids>
prompt_groups group_by_prompt(const Ids& prompts) {
  const auto n = static_cast<std::size_t>(std::size(prompts));
  const auto id = std::begin(prompts);
  using difference = typename std::iterator_traits<decltype(std::begin(prompts))>::difference_type;
  const auto at = [&](std::int32_t i) -> decltype(auto) { return id[static_cast<difference>(i)]; };
  std::vector<std::int32_t> sorted(n), first(n);
  std::iota(sorted.begin(), sorted.end(), 0);
  std::stable_sort(sorted.begin(), sorted.end(), [&](std::int32_t a, std::int32_t b) { return at(a) < at(b); });
  for (std::size_t i = 0; i < n; ++i) {
    const bool same = i > 0 && !(at(sorted[i - 1]) < at(sorted[i]));
    first[static_cast<std::size_t>(sorted[i])] = same ? first[static_cast<std::size_t>(sorted[i - 1])] : sorted[i];
  }
  prompt_groups g;
  g.order.resize(n);
  g.place.resize(n);
  std::iota(g.order.begin(), g.order.end(), 0);
  std::stable_sort(g.order.begin(), g.order.end(),
                   [&](std::int32_t a, std::int32_t b) { return first[static_cast<std::size_t>(a)] < first[static_cast<std::size_t>(b)]; });
  for (std::size_t i = 0; i < n; ++i) {
    const auto reply = static_cast<std::size_t>(g.order[i]), here = static_cast<std::size_t>(i > 0 ? g.order[i - 1] : 0);
    g.place[reply] = static_cast<std::int32_t>(i);
    if (i == 0 || first[reply] != first[here]) {
      if (i > 0) g.end.push_back(static_cast<std::int32_t>(i));
      g.begin.push_back(static_cast<std::int32_t>(i));
    }
  }
  if (n > 0) g.end.push_back(static_cast<std::int32_t>(n));
  return g;
}

/// `prompts` groups of `each` replies that follow one another.
inline prompt_groups equal_groups(index_t prompts, index_t each) {
  prompt_groups g;
  for (index_t p = 0; p < prompts; ++p) {
    g.begin.push_back(static_cast<std::int32_t>(p * each));
    g.end.push_back(static_cast<std::int32_t>((p + 1) * each));
  }
  g.order.resize(static_cast<std::size_t>(prompts * each));
  std::iota(g.order.begin(), g.order.end(), 0);
  g.place = g.order;
  return g;
}

PLUMB_NAMESPACE_END

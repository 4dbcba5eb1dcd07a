#pragma once
// How sequences lie in flat token arrays.

#include <plumb/core/error.hpp>

PLUMB_TYPES_BEGIN

/// Names sequence `s` as tokens `begin[s]` to `end[s]` (exclusive) of flat arrays `[N]`; both packed and padded batches are
/// zero-copy. There is no pad token: what no sequence names, or `scored` leaves out, does not exist for an objective.
///
/// - packed: `sequence_layout<>::packed(cu_seqlens)`, where `cu_seqlens` has one entry more than there are sequences;
/// - padded `[B, T]`: `begin[b] = b * T + offset`, `end[b] = begin[b] + length`.
///
/// Sequences may not overlap. Convention: `logp[t]` is the log-probability of token `t` given those before it, and
/// `scored[t]` says whether it counts.
template <class Space = host_space>
struct sequence_layout {
  view<const std::int32_t, 1, Space> begin{};  ///< `[S]`
  view<const std::int32_t, 1, Space> end{};    ///< `[S]`
  view<const std::uint8_t, 1, Space> scored{};  ///< `[N]`, 0 or 1; not given: every token of a sequence counts

  index_t sequences() const { return begin.extent(0); }

  /// A vector that is gone after the call: the layout would look at nothing.
  template <class C>
    requires(!std::is_lvalue_reference_v<C> && requires { typename C::allocator_type; })
  static sequence_layout packed(C&&, view<const std::uint8_t, 1, Space> = {}) = delete;
  static sequence_layout packed(view<const std::int32_t, 1, Space> cu_seqlens,
                                view<const std::uint8_t, 1, Space> scored = {}) {
    const index_t s = cu_seqlens.empty() ? 0 : cu_seqlens.extent(0) - 1;
    if (s == 0) return {cu_seqlens.slice(0, 0), cu_seqlens.slice(0, 0), scored};
    return {cu_seqlens.slice(0, s), cu_seqlens.slice(1, s), scored};
  }
};

/// Pairs of sequences of one layout: pair `p` prefers sequence `chosen[p]` to `rejected[p]`. A sequence may be in several pairs.
template <class Space = host_space>
struct preference_pairs {
  sequence_layout<Space> sequences{};
  view<const std::int32_t, 1, Space> chosen{};    ///< `[P]`, in `0 .. S`
  view<const std::int32_t, 1, Space> rejected{};  ///< `[P]`, in `0 .. S`

  index_t pairs() const { return chosen.extent(0); }
};

PLUMB_TYPES_END
PLUMB_NAMESPACE_BEGIN

/// Every sequence lies inside arrays of `tokens` entries, and no two overlap. Looks at the data of host memory.
template <class Space>
void require_layout_data(const char* operation, const sequence_layout<Space>& layout, index_t tokens) {
  if constexpr (std::is_same_v<Space, host_space>) {
    for (index_t s = 0; s < layout.sequences(); ++s) {
      const index_t b = layout.begin(s), e = layout.end(s);
      if (b < 0 || e < b || e > tokens)
        fail(message(operation) << "sequence " << s << " is tokens " << b << " to " << e << ", but there are " << tokens
                                << ". Nothing was written.");
      for (index_t o = 0; b < e && o < s; ++o)
        if (layout.begin(o) < layout.end(o) && layout.begin(o) < e && b < layout.end(o))
          fail(message(operation) << "sequences " << o << " and " << s << " overlap: tokens " << static_cast<index_t>(layout.begin(o)) << " to "
                                  << static_cast<index_t>(layout.end(o)) << ", and " << b << " to " << e << ". Nothing was written.");
    }
  }
}

/// Checks a layout against flat arrays of `tokens` entries; with PLUMB_CHECKED, `require_layout_data` too.
template <class Space>
void require_layout(const char* operation, const sequence_layout<Space>& layout, index_t tokens) {
  require_same_shape(operation, "end", layout.end, "begin", layout.begin);
  if (layout.scored.given()) require_extent(operation, "scored", layout.scored, 0, tokens, "the number of tokens");
#if defined(PLUMB_CHECKED)
  require_layout_data(operation, layout, tokens);
#endif
}

/// As `require_layout`, for an objective: tokens without any sequence are a layout that was forgotten.
template <class Space>
void require_sequences(const char* operation, const sequence_layout<Space>& layout, index_t tokens) {
  require_layout(operation, layout, tokens);
  if (tokens > 0 && layout.sequences() == 0)
    fail(message(operation) << "no sequences are given, but there are " << tokens << " tokens. Nothing was written.");
}

/// Every id is in `0 .. count`; negative ids are allowed where they mean "ignored". Looks at the data of host memory.
template <class Space>
void require_id_data(const char* operation, const char* name, const view<const std::int32_t, 1, Space>& ids, index_t count, bool negative_allowed) {
  if constexpr (std::is_same_v<Space, host_space>) {
    for (index_t i = 0; i < ids.extent(0); ++i)
      if (ids(i) >= count || (ids(i) < 0 && !negative_allowed))
        fail(message(operation) << "`" << name << "[" << i << "]` is " << ids(i) << ", but there are " << count
                                << " to choose from. Nothing was written.");
  }
}

/// As `require_id_data`, but only with PLUMB_CHECKED.
template <class Space>
void require_ids([[maybe_unused]] const char* operation, [[maybe_unused]] const char* name,
                 [[maybe_unused]] const view<const std::int32_t, 1, Space>& ids, [[maybe_unused]] index_t count,
                 [[maybe_unused]] bool negative_allowed) {
#if defined(PLUMB_CHECKED)
  require_id_data(operation, name, ids, count, negative_allowed);
#endif
}

/// The bounds of a padded batch `[B, T]`, whose masks lie in `scored`: `begin[b] = b * columns`, `end[b] = (b + 1) * columns`, both `[B]` in
/// host memory. Give a row's real length as its end instead, and its padding needs no mask.
inline void padded_bounds(index_t columns, view<std::int32_t, 1> begin, view<std::int32_t, 1> end) {
  require_same_shape("padded_bounds", "end", end, "begin", begin);
  for (index_t b = 0; b < begin.extent(0); ++b) {
    begin(b) = static_cast<std::int32_t>(b * columns);
    end(b) = static_cast<std::int32_t>((b + 1) * columns);
  }
}

/// Number of scored tokens of the whole layout (host memory): the denominator of a token mean.
inline index_t count_scored(const sequence_layout<host_space>& layout) {
  index_t n = 0;
  for (index_t s = 0; s < layout.sequences(); ++s)
    for (index_t t = layout.begin(s); t < layout.end(s); ++t) n += !layout.scored.given() || layout.scored(t) != 0;
  return n;
}

PLUMB_NAMESPACE_END

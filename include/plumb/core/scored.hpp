#pragma once
// From a mask over tokens to the list of scored tokens, in host memory: no logits need be computed for the others.

#include <plumb/core/layout.hpp>

PLUMB_NAMESPACE_BEGIN

/// Where `scored_tokens` writes; each array is the caller's.
struct scored_tokens_outputs {
  view<std::int32_t, 1> rows{};     ///< `[M]`: the row of hidden states (or logits) that predicts each scored token, `t - 1`
  view<std::int32_t, 1> targets{};  ///< `[M]`: its token id
  view<std::int32_t, 1> begin{};    ///< `[S]`: the layout over the scored tokens
  view<std::int32_t, 1> end{};      ///< `[S]`
};

/// Lists the scored tokens of `layout` in order. Row `t` of a causal model predicts token `t + 1`, so a sequence's first token has no
/// row and may not be scored. `rows` and `targets` have `count_scored(layout)` entries; sequences without scored tokens become empty.
inline void scored_tokens(const sequence_layout<>& layout, view<const std::int32_t, 1> token_ids,
                          const scored_tokens_outputs& out) {
  constexpr const char* op = "scored_tokens";
  require_layout(op, layout, token_ids.extent(0));
  require_layout_data(op, layout, token_ids.extent(0));
  const index_t count = count_scored(layout);
  require_extent(op, "rows", out.rows, 0, count, "the number of scored tokens");
  require_extent(op, "targets", out.targets, 0, count, "the number of scored tokens");
  require_extent(op, "begin", out.begin, 0, layout.sequences(), "the number of sequences");
  require_extent(op, "end", out.end, 0, layout.sequences(), "the number of sequences");
  const auto counts = [&](index_t t) { return !layout.scored.given() || layout.scored(t) != 0; };
  for (index_t s = 0; s < layout.sequences(); ++s)
    if (layout.begin(s) < layout.end(s) && counts(layout.begin(s)))
      fail(message(op) << "the first token of sequence " << s << " is scored, but no row predicts it. Nothing was written.");
  index_t i = 0;
  for (index_t s = 0; s < layout.sequences(); ++s) {
    out.begin(s) = static_cast<std::int32_t>(i);
    for (index_t t = layout.begin(s); t < layout.end(s); ++t) {
      if (!counts(t)) continue;
      out.rows(i) = static_cast<std::int32_t>(t - 1);
      out.targets(i) = token_ids(t);
      ++i;
    }
    out.end(s) = static_cast<std::int32_t>(i);
  }
}

PLUMB_NAMESPACE_END

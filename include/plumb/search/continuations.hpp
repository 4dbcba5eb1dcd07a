#pragma once
// Many texts written on side by side, a token each in one call of the model, within a search's limits: what greedy decoding, sampling, best-of-n,
// blockwise best-of-n and RAIN share.

#include <plumb/search/prefix_cache.hpp>

PLUMB_NAMESPACE_BEGIN

/// A text that is being written.
struct continuation {
  std::vector<std::int32_t> tokens{};  ///< what it began with, at least one token, and what is written
  std::size_t written_from = 0;        ///< where that begins
  index_t from = -1;                   ///< place in the cache of a sequence that it continues, as in `text_request`
  bool ended = false;                  ///< its last token is an end token
  bool at_boundary = false;            ///< `done` said so

  std::span<const std::int32_t> written() const { return std::span(tokens).subspan(written_from); }
  /// Nothing more is written.
  bool complete() const { return ended || at_boundary; }
};

namespace detail {
struct any_round {
  void operator()(std::span<const std::size_t>) const {}
};
}  // namespace detail

/// Writes each text on until it is `complete()`; those that are so already stay as they are. In each round the cache is asked for all others in one
/// call, then each gets a token, which goes forward only if the text goes on.
/// - `draw(i, t, logits)`: the token to write, the `t`-th of text `i`; it does not call the model;
/// - `done(i, text)`: whether text `i`, whole, ends here; asked after each of its tokens, the end token too;
/// - `before(which)`: the texts of the round that comes; it may throw `detail::limit_reached`;
/// - `first`: if given, the logits that follow what the texts began with, which is then not asked for.
///
/// What is thrown, by a limit or by the model, leaves the texts as far as they got, each token seen by `done`: a further call goes on with them.
template <language_model M, class Draw, class Done, class Before = detail::any_round>
void continue_texts(prefix_cache<M>& cache, detail::meter& meter, std::span<continuation> texts, Draw&& draw, Done&& done, Before&& before = {},
                    std::span<const float> first = {}) {
  std::vector<text_request> requests;
  std::vector<std::size_t> asked, open, written;  // texts behind the requests; not complete; with a token that `done` has not seen
  const auto write = [&](std::size_t i, std::span<const float> logits) {
    continuation& c = texts[i];
    const std::int32_t token = draw(i, c.tokens.size() - c.written_from, logits);
    c.tokens.push_back(token);
    written.push_back(i);
    c.ended = static_cast<bool>(std::as_const(cache.model()).is_end(token));
  };
  const auto settle = [&] {
    for (const std::size_t i : written) texts[i].at_boundary = static_cast<bool>(done(i, std::span<const std::int32_t>(texts[i].tokens)));
    written.clear();
  };
  while (true) {
    open.clear();
    for (std::size_t i = 0; i < texts.size(); ++i)
      if (!texts[i].complete()) open.push_back(i);
    if (open.empty()) return;
    before(std::span<const std::size_t>(open));
    requests.clear();
    asked.clear();
    written.reserve(open.size());
    try {
      for (const std::size_t i : open) {
        continuation& c = texts[i];
        // The request looks at the text while a token is added behind it, so the text must not move.
        if (c.tokens.size() == c.tokens.capacity()) c.tokens.reserve(2 * c.tokens.size() + 16);
        if (c.tokens.size() == c.written_from && !first.empty()) {
          write(i, first);
        } else {
          requests.push_back({.text = c.tokens, .from = c.from});
          asked.push_back(i);
        }
      }
      if (!requests.empty())
        cache.next(std::span<text_request>(requests), meter, [&](std::size_t r, std::span<const float> logits) {
          texts[asked[r]].from = requests[r].from;
          write(asked[r], logits);
        });
    } catch (...) {
      settle();
      throw;
    }
    settle();
  }
}

namespace detail {

/// Before a search begins.
template <language_model M>
void require_prompt(const char* op, const M& model, std::span<const std::int32_t> prompt) {
  const auto vocabulary = static_cast<std::int64_t>(model.vocab_size());
  if (vocabulary < 1) fail(message(op) << "the model has " << vocabulary << " tokens.");
  if (prompt.empty()) fail(message(op) << "the prompt is empty: a first token is needed.");
  for (std::size_t i = 0; i < prompt.size(); ++i)
    if (prompt[i] < 0 || prompt[i] >= vocabulary)
      fail(message(op) << "token " << i << " of the prompt is " << prompt[i] << ", but the model has " << vocabulary << " tokens.");
  if constexpr (bounded_model<M>)
    if (const auto context = static_cast<std::int64_t>(model.context()); static_cast<std::int64_t>(prompt.size()) > context)
      fail(message(op) << "the prompt has " << prompt.size() << " tokens, but the model's context is " << context << ".");
}

/// How many tokens a reply may have: the last one is never read, so it may lie just behind the context.
template <language_model M>
std::size_t room_for_reply([[maybe_unused]] const M& model, [[maybe_unused]] std::span<const std::int32_t> prompt, index_t max_new_tokens) {
  auto room = static_cast<std::size_t>(max_new_tokens);
  if constexpr (bounded_model<M>) room = std::min(room, static_cast<std::size_t>(model.context()) - prompt.size() + 1);
  return room;
}

/// A text that many continuations begin with, read once.
struct branching_point {
  std::vector<float> logits{};  ///< of the token that follows
  index_t place = -1;           ///< of its sequence in the cache
};
template <language_model M>
branching_point read_branching_point(prefix_cache<M>& cache, meter& meter, std::span<const std::int32_t> text, index_t from = -1) {
  branching_point point;
  text_request one[1] = {{.text = text, .from = from}};
  const auto keep = [&](std::size_t, std::span<const float> logits) { point.logits.assign(logits.begin(), logits.end()); };
  cache.next(std::span<text_request>(one), meter, keep);
  point.place = one[0].from;
  return point;
}

/// How many more texts may be begun side by side so that all fit into the tokens left, were each as long as it may be; one, where not even that does.
inline std::size_t fitting(const meter& m, std::size_t wanted, std::int64_t beginning, std::int64_t each) {
  if (m.limits().tokens == search_limits::none) return wanted;
  const std::int64_t left = std::max<std::int64_t>(0, m.limits().tokens - m.used.tokens - beginning);
  return static_cast<std::size_t>(std::clamp<std::int64_t>(left / std::max<std::int64_t>(1, each), 1, static_cast<std::int64_t>(wanted)));
}

/// How many continuations of one text go side by side. Where they do not fit at once, one sequence is kept for what they begin with.
template <language_model M>
std::size_t side_by_side(const prefix_cache<M>& cache, std::size_t count, std::size_t width) {
  const auto budget = static_cast<std::size_t>(cache.budget());
  const std::size_t wanted = width == 0 ? count : std::min(width, count);
  return wanted == count && wanted <= budget ? wanted : std::max<std::size_t>(1, std::min(wanted, budget - 1));
}

/// As `continue_texts`, but where the tokens left are too few for all, the last text that is not complete stays as it is, and the others go on.
/// Returns the limit that was met, none if all are complete.
template <language_model M, class Draw, class Done, class Before = any_round>
stop_reason continue_what_fits(prefix_cache<M>& cache, meter& meter, std::span<continuation> texts, Draw&& draw, Done&& done, Before&& before = {},
                               std::span<const float> first = {}) {
  stop_reason met = stop_reason::none;
  while (true) {
    try {
      continue_texts(cache, meter, texts, draw, done, before, first);
      return met;
    } catch (const limit_reached& limit) {
      met = limit.reason;
      if (met != stop_reason::tokens) return met;
      while (!texts.empty() && texts.back().complete()) texts = texts.first(texts.size() - 1);
      if (!texts.empty()) texts = texts.first(texts.size() - 1);
    }
  }
}

/// Writes `count` continuations of `text`, which is read once; as many side by side as there may be (`width`; 0: all that sequences allow). Of each
/// group:
/// - `begin(first, wanted, beginning)`: how many are to be written, from the `first` on, when `beginning` tokens must be read for it; it may throw
///   `limit_reached`;
/// - `draw(i, t, logits)`, `done(i, text)` as in `continue_texts`, with `i` counted from 0 to `count`;
/// - `before(which, lanes)`: the round that comes takes these of the group's texts further; it may throw `limit_reached`;
/// - `take(first, lanes)`: what has become of them; where a limit was met, some are not complete.
///
/// Returns the limit that ended it, none if all were written. `take` may throw it as well.
template <language_model M, class Begin, class Draw, class Done, class Before, class Take>
stop_reason write_continuations(prefix_cache<M>& cache, meter& meter, std::span<const std::int32_t> text, index_t from, std::size_t count,
                                std::size_t width, const Begin& begin, const Draw& draw, const Done& done, const Before& before, const Take& take) {
  try {
    std::optional<branching_point> point;
    std::vector<continuation> lanes;
    const std::size_t most = side_by_side(cache, count, width);
    for (std::size_t first = 0; first < count; first += lanes.size()) {
      lanes.assign(begin(first, std::min(most, count - first), static_cast<std::int64_t>(point ? 0 : text.size())), {});
      if (!point) point = read_branching_point(cache, meter, text, from);
      for (continuation& c : lanes) {
        c.tokens.assign(text.begin(), text.end());
        c.written_from = text.size();
        c.from = first + lanes.size() == count ? point->place : -1;  // the last ones use it up
      }
      const stop_reason met = continue_what_fits(
          cache, meter, std::span(lanes), [&](std::size_t i, std::size_t t, std::span<const float> logits) { return draw(first + i, t, logits); },
          [&](std::size_t i, std::span<const std::int32_t> whole) { return done(first + i, whole); },
          [&](std::span<const std::size_t> which) { before(which, std::span<const continuation>(lanes)); }, point->logits);
      take(first, std::span<const continuation>(lanes));
      if (met != stop_reason::none) return met;
    }
  } catch (const limit_reached& limit) {
    return limit.reason;
  }
  return stop_reason::none;
}

}  // namespace detail

PLUMB_NAMESPACE_END

#pragma once
// Texts that a policy wrote, and where it began: what the loops of algorithms/ pass between policy, critic, reference and reward.

#include <plumb/core/layout.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

/// Where a policy begins to write: a prompt and, after a reset, the first tokens of a reply that is given. No token of it is the policy's own.
struct start {
  std::vector<std::int32_t> tokens{};  ///< the prompt, then the given tokens of the reply
  index_t prompt_tokens = 0;           ///< how many of them are the prompt
  std::int32_t prompt = 0;             ///< which prompt it is: equal numbers answer the same one (a group)
  index_t max_new_tokens = -1;         ///< the policy writes no more than this; negative: as the sampling says

  index_t given_tokens() const { return static_cast<index_t>(tokens.size()) - prompt_tokens; }
};

namespace detail {
inline void require_start(const char* op, const start& s, index_t text) {
  const auto tokens = static_cast<index_t>(s.tokens.size());
  if (s.prompt_tokens < 0 || s.prompt_tokens > tokens)
    fail(message(op) << "the prompt of text " << text << " is to have " << s.prompt_tokens << " tokens, but the text begins with " << tokens
                     << ". Nothing was added.");
}
}  // namespace detail

/// `S` texts in host memory, packed. Arrays "per own token" are `[M]`, over the tokens that the policy wrote itself and over no others: a prompt or a
/// given token cannot be credited, since it has no place there. `add` is the way to make one; what it makes is right by construction.
template <class Real>
struct rollouts {
  std::vector<std::int32_t> tokens{};      ///< `[N]`, whole texts one after the other
  std::vector<std::int32_t> text{0};       ///< `[S + 1]`: text `s` is `tokens[text[s]]` to `tokens[text[s + 1]]`
  std::vector<std::int32_t> reply{};       ///< `[S]`: place in `tokens` where the reply begins, behind the prompt
  std::vector<std::int32_t> own_first{};   ///< `[S]`: place in `tokens` of the first own token, behind what was given
  std::vector<std::int32_t> own{0};        ///< `[S + 1]`: own tokens of `s` are entries `own[s]` to `own[s + 1]` of arrays `[M]`
  std::vector<Real> logp{};                ///< `[M]`, log-probability of each own token, given those before it, as it was sampled; NaN: not known
  std::vector<std::uint8_t> ended{};       ///< `[S]`, 1: the policy wrote the end token, which is its last; 0: it was cut off
  std::vector<std::int32_t> prompt{};      ///< `[S]`, see `start::prompt`
  double temperature = 1;                  ///< log-probabilities are of logits divided by this, here and in every model that scores these texts

  index_t size() const { return static_cast<index_t>(reply.size()); }
  index_t own_tokens() const { return static_cast<index_t>(logp.size()); }
  index_t own_count(index_t s) const { return at(own, s + 1) - at(own, s); }
  index_t prompt_count(index_t s) const { return at(reply, s) - at(text, s); }
  index_t given_count(index_t s) const { return at(own_first, s) - at(reply, s); }
  /// Sequences of own tokens, for objectives over arrays `[M]`.
  sequence_layout<> layout() const { return sequence_layout<>::packed(own); }
  std::span<const std::int32_t> text_of(index_t s) const { return part(at(text, s), at(text, s + 1)); }
  std::span<const std::int32_t> prompt_of(index_t s) const { return part(at(text, s), at(reply, s)); }
  /// Given and own tokens.
  std::span<const std::int32_t> reply_of(index_t s) const { return part(at(reply, s), at(text, s + 1)); }
  std::span<const std::int32_t> own_of(index_t s) const { return part(at(own_first, s), at(text, s + 1)); }

  /// Checks texts that were not made by `add`: that the arrays go together.
  void require(const char* op) const {
    const auto n = reply.size();
    const bool sizes = text.size() == n + 1 && own.size() == n + 1 && own_first.size() == n && ended.size() == n && prompt.size() == n;
    if (!sizes || text.front() != 0 || own.front() != 0 || static_cast<std::size_t>(text.back()) != tokens.size() ||
        static_cast<std::size_t>(own.back()) != logp.size())
      fail(message(op) << "the arrays of the rollout do not go together: make it with `rollouts::add`.");
    for (index_t s = 0; s < size(); ++s) {
      const bool good = at(text, s) <= at(reply, s) && at(reply, s) <= at(own_first, s) && own_count(s) >= 0 &&
                        at(own_first, s) + own_count(s) == at(text, s + 1) && (ended[static_cast<std::size_t>(s)] == 0 || own_count(s) > 0);
      if (!good) fail(message(op) << "the places of text " << s << " of the rollout do not go together: make it with `rollouts::add`.");
    }
    require_option(op, "temperature", temperature, temperature > 0, "positive");
  }

  /// Adds a text: `from`, continued by `written`, whose log-probabilities are `written_logp` (none: not known, NaN is stored). An empty `written`
  /// is a text that a policy had nothing to add to.
  void add(const start& from, std::span<const std::int32_t> written, std::span<const Real> written_logp, bool has_ended) {
    constexpr const char* op = "rollouts::add";
    detail::require_start(op, from, size());
    if (!written_logp.empty() && written_logp.size() != written.size())
      fail(message(op) << "text " << size() << " has " << static_cast<index_t>(written.size()) << " tokens, but "
                       << static_cast<index_t>(written_logp.size()) << " log-probabilities. Nothing was added.");
    if (tokens.size() + from.tokens.size() + written.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
      fail(message(op) << "with text " << size() << " there would be more than 2147483647 tokens. Nothing was added.");
    if (has_ended && written.empty()) fail(message(op) << "text " << size() << " cannot have ended: nothing was written. Nothing was added.");
    const auto base = static_cast<std::int32_t>(tokens.size());
    tokens.insert(tokens.end(), from.tokens.begin(), from.tokens.end());
    tokens.insert(tokens.end(), written.begin(), written.end());
    text.push_back(static_cast<std::int32_t>(tokens.size()));
    reply.push_back(base + static_cast<std::int32_t>(from.prompt_tokens));
    own_first.push_back(base + static_cast<std::int32_t>(from.tokens.size()));
    if (written_logp.empty()) {
      logp.insert(logp.end(), written.size(), std::numeric_limits<Real>::quiet_NaN());
    } else {
      logp.insert(logp.end(), written_logp.begin(), written_logp.end());
    }
    own.push_back(static_cast<std::int32_t>(logp.size()));
    ended.push_back(has_ended ? 1 : 0);
    prompt.push_back(from.prompt);
  }

  /// Where text `s` began, but for `start::max_new_tokens`, which is not kept.
  start start_of(index_t s) const {
    const auto given = part(at(text, s), at(own_first, s));
    return {.tokens = {given.begin(), given.end()}, .prompt_tokens = prompt_count(s), .prompt = prompt[static_cast<std::size_t>(s)]};
  }
  /// Some of the texts, in the order of `rows`.
  rollouts select(std::span<const std::int32_t> rows) const {
    rollouts some{.temperature = temperature};
    for (const std::int32_t s : rows) {
      if (s < 0 || s >= size()) fail(message("rollouts::select") << "text " << s << " is asked for, but there are " << size() << ".");
      const auto first = static_cast<std::size_t>(at(own, s)), count = static_cast<std::size_t>(own_count(s));
      some.add(start_of(s), own_of(s), std::span(logp).subspan(first, count), ended[static_cast<std::size_t>(s)] != 0);
    }
    return some;
  }
  /// All of another's texts behind one's own; both at the same temperature.
  void append(const rollouts& more) {
    if (more.size() == 0) return;
    if (&more == this) return append(rollouts(more));
    if (size() > 0 && more.temperature != temperature)
      fail(message("rollouts::append") << "temperatures differ: " << temperature << " and " << more.temperature << ". Nothing was added.");
    temperature = more.temperature;
    for (index_t s = 0; s < more.size(); ++s) {
      const auto first = static_cast<std::size_t>(more.at(more.own, s)), count = static_cast<std::size_t>(more.own_count(s));
      add(more.start_of(s), more.own_of(s), std::span(more.logp).subspan(first, count), more.ended[static_cast<std::size_t>(s)] != 0);
    }
  }

 private:
  static std::int32_t at(const std::vector<std::int32_t>& v, index_t i) { return v[static_cast<std::size_t>(i)]; }
  std::span<const std::int32_t> part(std::int32_t first, std::int32_t last) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
  }
};

/// Of arrays `[M]` of `all`, the entries that belong to `rows`, in the order of `all.select(rows)`.
template <class Real, class T>
std::vector<T> select_own(const rollouts<Real>& all, const std::vector<T>& values, std::span<const std::int32_t> rows) {
  std::vector<T> some;
  for (const std::int32_t s : rows)
    some.insert(some.end(), values.begin() + all.own[static_cast<std::size_t>(s)], values.begin() + all.own[static_cast<std::size_t>(s) + 1]);
  return some;
}

PLUMB_NAMESPACE_END

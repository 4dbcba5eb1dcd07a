#pragma once
// Places in texts that only a tokenizer can find: where a rollout may be judged, where a reply stops, and which part of a text a judge is shown.

#include <plumb/data/tokenizer.hpp>
#include <plumb/model/language_model.hpp>

#include <algorithm>
#include <string_view>
#include <utility>

PLUMB_NAMESPACE_BEGIN

/// The host's `tokenizer`, or one of plumb's own (data/tokenizer.hpp). It must add nothing of its own: no token that begins a text, no end.
template <class T>
concept any_tokenizer = tokenizer<T> || data::tokenizer<T>;

namespace detail {

/// Tokens of a text that the caller wrote; names of special tokens stand for the tokens.
template <any_tokenizer T>
std::vector<std::int32_t> encoded(const T& t, const std::string& text) {
  if constexpr (tokenizer<T>) {
    return t.encode(text);
  } else {
    return data::encode(t, text, data::match_specials::yes);
  }
}
template <any_tokenizer T>
std::string decoded(const T& t, std::span<const std::int32_t> tokens) {
  if constexpr (tokenizer<T>) {
    return t.decode(tokens);
  } else {
    return data::decode(t, tokens);
  }
}

/// The end of a text, at least `bytes` of it unless it is shorter, without decoding all.
template <any_tokenizer T>
std::string decoded_tail(const T& t, std::span<const std::int32_t> tokens, std::size_t bytes, std::size_t at_least = 1) {
  for (std::size_t n = std::min(at_least, tokens.size());; n = std::min(2 * n, tokens.size())) {
    std::string text = decoded(t, tokens.last(n));
    if (text.size() >= bytes || n == tokens.size()) return text;
  }
}
/// The most tokens of `tokens` whose text has no more than `bytes`; what is decoded must not become shorter with more tokens.
template <any_tokenizer T>
std::size_t tokens_within(const T& t, std::span<const std::int32_t> tokens, std::size_t bytes) {
  std::size_t low = 0, high = tokens.size();
  while (low < high) {
    const std::size_t n = low + (high - low + 1) / 2;
    if (decoded(t, tokens.first(n)).size() <= bytes) {
      low = n;
    } else {
      high = n - 1;
    }
  }
  return low;
}
/// The fewest tokens whose text has `bytes` or more.
template <any_tokenizer T>
std::size_t tokens_covering(const T& t, std::span<const std::int32_t> tokens, std::size_t bytes) {
  return bytes == 0 ? 0 : std::min(tokens.size(), tokens_within(t, tokens, bytes - 1) + 1);
}

inline std::size_t longest_of(const char* op, const std::vector<std::string>& texts) {
  if (texts.empty()) fail(message(op) << "there is no text to look for.");
  std::size_t most = 0;
  for (const std::string& s : texts) {
    if (s.empty()) fail(message(op) << "a text to look for is empty.");
    most = std::max(most, s.size());
  }
  return most;
}

}  // namespace detail

/// A `boundary`: the text ends in one of `ends`. Looks at the last tokens only. The tokenizer stays the caller's, here and below.
template <any_tokenizer T>
class ends_with_text {
 public:
  ends_with_text(const T& t, std::vector<std::string> ends) : t_(&t), ends_(std::move(ends)), bytes_(detail::longest_of("ends_with_text", ends_)) {}

  bool operator()(std::span<const std::int32_t> response) const {
    if (response.empty()) return false;
    const std::string tail = detail::decoded_tail(*t_, response, bytes_);
    return std::ranges::any_of(ends_, [&](const std::string& e) { return tail.ends_with(e); });
  }

 private:
  const T* t_;
  std::vector<std::string> ends_;
  std::size_t bytes_;
};

/// Where RAIN's authors judge: behind , . ? : ; or the end of a line.
template <any_tokenizer T>
ends_with_text<T> at_punctuation(const T& t) {
  return {t, {",", ".", "?", ":", ";", "\n"}};
}

/// A `stop`: one of `texts` (the next user's turn) occurs in what the last `tokens` tokens wrote. Asked more seldom than that, it may miss one.
template <any_tokenizer T>
class contains_text {
 public:
  contains_text(const T& t, std::vector<std::string> texts, std::size_t tokens = 32)
      : t_(&t), texts_(std::move(texts)), bytes_(detail::longest_of("contains_text", texts_)), tokens_(tokens) {}

  bool operator()(std::span<const std::int32_t> response) const {
    if (response.empty()) return false;
    // A token may write no byte: more of them are taken until the bytes of one text are there for sure.
    const std::string tail = detail::decoded_tail(*t_, response, bytes_, tokens_ + bytes_);
    return std::ranges::any_of(texts_, [&](const std::string& s) { return tail.find(s) != std::string::npos; });
  }

 private:
  const T* t_;
  std::vector<std::string> texts_;
  std::size_t bytes_, tokens_;
};

/// The part of a text before the first of `texts`, as far as whole tokens go: a reply without the user's turn that the model wrote behind it.
template <any_tokenizer T>
class until_text {
 public:
  until_text(const T& t, std::vector<std::string> texts) : t_(&t), texts_(std::move(texts)) { detail::longest_of("until_text", texts_); }

  std::span<const std::int32_t> operator()(std::span<const std::int32_t> response) const {
    const std::string all = detail::decoded(*t_, response);
    std::size_t first = std::string::npos;
    for (const std::string& s : texts_) first = std::min(first, all.find(s));
    return first == std::string::npos ? response : response.first(detail::tokens_within(*t_, response, first));
  }

 private:
  const T* t_;
  std::vector<std::string> texts_;
};

/// The part of a text up to the last of `texts`, with it: whole sentences. All of it where there is none.
template <any_tokenizer T>
class until_last_text {
 public:
  until_last_text(const T& t, std::vector<std::string> texts) : t_(&t), texts_(std::move(texts)) { detail::longest_of("until_last_text", texts_); }

  std::span<const std::int32_t> operator()(std::span<const std::int32_t> response) const {
    const std::string all = detail::decoded(*t_, response);
    std::size_t end = 0;
    for (const std::string& s : texts_)
      if (const std::size_t at = all.rfind(s); at != std::string::npos) end = std::max(end, at + s.size());
    return end == 0 ? response : response.first(detail::tokens_covering(*t_, response, end));
  }

 private:
  const T* t_;
  std::vector<std::string> texts_;
};

/// The last user's turn of a prompt, without the turns before it: behind the last `begin` ("Human:") and before the `end` that follows
/// ("\n\nAssistant:"), as far as whole tokens go. All of it where there is no `begin`.
template <any_tokenizer T>
class last_turn {
 public:
  last_turn(const T& t, std::string begin, std::string end) : t_(&t), begin_(std::move(begin)), end_(std::move(end)) {
    if (begin_.empty()) fail(message("last_turn") << "the text that begins a turn is empty.");
  }

  std::span<const std::int32_t> operator()(std::span<const std::int32_t> prompt) const {
    const std::string all = detail::decoded(*t_, prompt);
    const std::size_t at = all.rfind(begin_);
    if (at == std::string::npos) return prompt;
    const std::size_t from = detail::tokens_covering(*t_, prompt, at + begin_.size());
    const std::size_t end = end_.empty() ? std::string::npos : all.find(end_, at + begin_.size());
    const std::size_t to = end == std::string::npos ? prompt.size() : detail::tokens_within(*t_, prompt, end);
    return prompt.subspan(from, std::max(from, to) - from);
  }

 private:
  const T* t_;
  std::string begin_, end_;
};

/// A prompt from its `place`-th token on: without worked examples that are known to be so long.
struct shown_from {
  std::size_t place = 0;
  std::span<const std::int32_t> operator()(std::span<const std::int32_t> prompt) const { return prompt.subspan(std::min(place, prompt.size())); }
};

PLUMB_NAMESPACE_END

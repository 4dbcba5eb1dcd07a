#pragma once
// What a tokenizer is: byte strings to ids and back, without loss; and the special tokens, which every tokenizer has in
// the same way.

#include <plumb/core/error.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace data {

/// On encoding: whether the name of a special token in a text ("<eos>") stands for the token or for its characters.
/// `no` for text that others wrote; `yes` for templates of your own.
enum class match_specials : bool { no, yes };

/// On decoding: whether special tokens are left out or written by their names.
enum class skip_specials : bool { no, yes };

/// A text as a sentence quotes it: at most 40 bytes, and what is not printable ASCII as `\xHH`.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t most = 40;
  constexpr const char* digits = "0123456789ABCDEF";
  std::string out = "\"";
  for (const char c : text.substr(0, most)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F) {
      out += c;
    } else {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    }
  }
  return out += text.size() > most ? "...\"" : "\"";
}

/// A named token that plain text never gives: the end of a text, the start of a turn, padding.
struct special_token {
  std::string name;  ///< any bytes, not empty; UTF-8 if it is to be saved in a tokenizer.json
  std::int32_t id;   ///< not negative
};

/// The special tokens of a tokenizer, in the order in which they were given. Names and ids are distinct.
class special_tokens {
 public:
  special_tokens() = default;
  /// `operation` is what the sentences of its errors begin with.
  explicit special_tokens(std::vector<special_token> tokens, const char* operation = "special_tokens")
      : tokens_(std::move(tokens)) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const auto& [name, id] = tokens_[i];
      const std::string shown = in_quotes(name);
      if (name.empty()) fail(message(operation) << "special token " << i << " has an empty name.");
      if (!by_name_.emplace(name, i).second)
        fail(message(operation) << "special token " << shown.c_str() << " is given twice.");
      if (id < 0 || !by_id_.emplace(id, i).second)
        fail(message(operation) << "special token " << shown.c_str() << " has the id " << id
                                << (id < 0 ? ", which is negative." : ", and so has another."));
      begins_[static_cast<unsigned char>(name[0])] = true;
    }
  }

  std::span<const special_token> all() const { return tokens_; }
  /// The id of the token of that name, if there is one.
  std::optional<std::int32_t> id(std::string_view name) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return std::nullopt;
    return tokens_[found->second].id;
  }
  /// The name of the token of that id; a null pointer if that id is no special token's.
  const std::string* name(std::int32_t id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &tokens_[found->second].name;
  }

  /// Cuts a text at the names in it, the leftmost first and the longest of those that begin there, and calls
  /// `plain(text)` and `special(id)` in order.
  template <class Plain, class Special>
  void split(std::string_view text, Plain plain, Special special) const {
    std::size_t start = 0;
    for (std::size_t at = 0; at < text.size();) {
      const special_token* token = longest_at(text.substr(at));
      if (token == nullptr) {
        ++at;
        continue;
      }
      if (at > start) plain(text.substr(start, at - start));
      special(token->id);
      start = at += token->name.size();
    }
    if (start < text.size()) plain(text.substr(start));
  }

 private:
  const special_token* longest_at(std::string_view text) const {
    if (!begins_[static_cast<unsigned char>(text[0])]) return nullptr;
    const special_token* best = nullptr;
    for (const auto& token : tokens_)
      if (text.starts_with(token.name) && (best == nullptr || token.name.size() > best->name.size())) best = &token;
    return best;
  }

  std::vector<special_token> tokens_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  std::map<std::int32_t, std::size_t> by_id_;
  std::array<bool, 256> begins_{};
};

/// Text in, ids out, and back. `encode` and `decode` append to what is there. Laws, for all byte strings `s` and `t`,
/// UTF-8 or not:
///   decode(encode(s)) == s, with names matched or not;
///   every id of encode(s) is in [0, vocabulary_size());
///   encode(s, match_specials::no) holds no special token;
///   decode(a followed by b) == decode(a) + decode(b);
///   encode is a function of its arguments: same tokenizer, same text, same ids, from as many threads as you like.
/// `decode` of an id outside the vocabulary fails with a sentence and appends nothing.
template <class T>
concept tokenizer = requires(const T& t, std::string_view text, std::span<const std::int32_t> ids,
                             std::vector<std::int32_t>& ids_out, std::string& text_out) {
  { t.vocabulary_size() } -> std::same_as<std::int32_t>;
  { t.specials() } -> std::same_as<const special_tokens&>;
  t.encode(text, ids_out);
  t.encode(text, ids_out, match_specials::yes);
  t.decode(ids, text_out);
  t.decode(ids, text_out, skip_specials::yes);
};

/// The ids of a text, in a vector of their own.
template <tokenizer T>
std::vector<std::int32_t> encode(const T& t, std::string_view text, match_specials match = match_specials::no) {
  std::vector<std::int32_t> ids;
  t.encode(text, ids, match);
  return ids;
}

/// The text of some ids, in a string of its own.
template <tokenizer T>
std::string decode(const T& t, std::span<const std::int32_t> ids, skip_specials skip = skip_specials::no) {
  std::string text;
  t.decode(ids, text, skip);
  return text;
}

/// What `decode` of any tokenizer does, given the bytes of an ordinary token by `bytes(id)`.
template <class Bytes>
void decode_with(const special_tokens& specials, std::int32_t vocabulary_size, Bytes bytes,
                 std::span<const std::int32_t> ids, std::string& text, skip_specials skip) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= vocabulary_size)
      fail(message("decode") << "id " << ids[i] << " at position " << i << " is not in [0, " << vocabulary_size
                             << "), the ids of this tokenizer. Nothing was written.");
  for (const std::int32_t id : ids) {
    const std::string* name = specials.name(id);
    if (name == nullptr) {
      text += bytes(id);
    } else if (skip == skip_specials::no) {
      text += *name;
    }
  }
}

}  // namespace data

PLUMB_NAMESPACE_END

#pragma once
// Where byte-pair encoding may not merge: a text is cut into pieces before it, by rules that mean the same on bytes as
// on characters.

#include <plumb/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

PLUMB_NAMESPACE_BEGIN

namespace data {

/// How a text is cut into the pieces within which bytes are merged.
enum class pretokenizer {
  none,   ///< the whole text is one piece
  words,  ///< words, numbers, punctuation, white space: `words_pattern`
};

/// `pretokenizer::words` as a regular expression, alternatives in order, each as long as it goes:
///   an English contraction ('s 'd 'm 't 'll 're 've) that no letter follows;
///   a space or none, then letters: ASCII letters and whatever is not ASCII;
///   a space or none, then digits 0 to 9;
///   a space or none, then other characters;
///   white space (space, tab, line feed, carriage return) up to the last space that something else follows: that one
///   begins the next piece; or else all of it.
/// These are the rules of GPT-2's tokenizer (github.com/openai/gpt-2, src/encoder.py) with three changes: letters and
/// white space need no Unicode tables, so a piece ends at the same place whether one reads bytes or code points; 'so'
/// is no contraction; and a line break before a word stays with the white space before it. Only `\xHH` escapes of ASCII,
/// classes, groups and lookaheads are used: the regular expressions of Oniguruma, JavaScript and std::regex cut alike.
inline constexpr std::string_view words_pattern =
    R"('(?:[sdmt]|ll|re|ve)(?![^\x00-\x40\x5B-\x60\x7B-\x7F]))"
    R"(|\x20?[^\x00-\x40\x5B-\x60\x7B-\x7F]+)"
    R"(|\x20?[0-9]+)"
    R"(|\x20?[\x00-\x08\x0B\x0C\x0E-\x1F\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7F]+)"
    R"(|[\x09\x0A\x0D\x20]+(?=\x20[^\x09\x0A\x0D\x20]))"
    R"(|[\x09\x0A\x0D\x20]+)";

/// The classes of bytes that `words_pattern` speaks of.
enum class byte_class { white, letter, digit, other };

/// By table, because it is asked for every byte of a text.
inline constexpr auto byte_classes = [] {
  std::array<byte_class, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool white = byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
    const bool letter = byte >= 0x80 || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
    const bool digit = byte >= '0' && byte <= '9';
    table[byte] = white    ? byte_class::white
                  : letter ? byte_class::letter
                  : digit  ? byte_class::digit
                           : byte_class::other;
  }
  return table;
}();

/// The class of a byte.
constexpr byte_class class_of(char c) { return byte_classes[static_cast<unsigned char>(c)]; }

/// Length of the contraction at the start of `text`; 0 if there is none.
constexpr std::size_t contraction_length(std::string_view text) {
  for (const std::string_view c : {"'s", "'d", "'m", "'t", "'ll", "'re", "'ve"})
    if (text.starts_with(c) && (text.size() == c.size() || class_of(text[c.size()]) != byte_class::letter))
      return c.size();
  return 0;
}

/// Length of the first piece of `text`, which is not empty, by `words_pattern`.
constexpr std::size_t word_length(std::string_view text) {
  if (text[0] == '\'') {
    const std::size_t contraction = contraction_length(text);
    if (contraction != 0) return contraction;
  }
  const bool after_space = text[0] == ' ' && text.size() > 1;
  std::size_t end = after_space ? 1 : 0;
  const byte_class first = class_of(text[end]);
  if (first != byte_class::white) {
    while (end < text.size() && class_of(text[end]) == first) ++end;
    return end;
  }
  end = 0;
  while (end < text.size() && class_of(text[end]) == byte_class::white) ++end;
  const bool gives_last = end < text.size() && end > 1 && text[end - 1] == ' ';
  return gives_last ? end - 1 : end;
}

/// Calls `use(piece)` for each piece of the text in order; the pieces joined are the text.
template <class Use>
void for_each_piece(pretokenizer rule, std::string_view text, Use use) {
  if (rule == pretokenizer::none) {
    if (!text.empty()) use(text);
    return;
  }
  while (!text.empty()) {
    const std::size_t length = word_length(text);
    use(text.substr(0, length));
    text.remove_prefix(length);
  }
}

}  // namespace data

PLUMB_NAMESPACE_END

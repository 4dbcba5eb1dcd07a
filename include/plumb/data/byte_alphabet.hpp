#pragma once
// How a tokenizer.json spells tokens, which are bytes, in JSON strings, which are text: one character per byte.

#include <plumb/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

PLUMB_NAMESPACE_BEGIN

namespace data {

/// The alphabet of GPT-2 (`bytes_to_unicode` in github.com/openai/gpt-2, src/encoder.py): the visible bytes of Latin-1
/// stand for themselves, the other 68 are U+0100 and following in order. The space is U+0120.
class byte_alphabet {
 public:
  constexpr byte_alphabet() {
    std::uint16_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      code_point_[byte] = visible ? static_cast<std::uint16_t>(byte) : next++;
      byte_[code_point_[byte]] = static_cast<std::int16_t>(byte);
    }
  }

  /// UTF-8 with one character per byte.
  std::string spell(std::string_view bytes) const {
    std::string out;
    for (const char c : bytes) {
      const unsigned code = code_point_[static_cast<unsigned char>(c)];
      if (code < 0x80) {
        out += static_cast<char>(code);
      } else {
        out += static_cast<char>(0xC0 | code >> 6);
        out += static_cast<char>(0x80 | (code & 0x3F));
      }
    }
    return out;
  }

  /// The bytes so spelt; nothing if `text` has a character that stands for no byte.
  std::optional<std::string> read(std::string_view text) const {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
      std::size_t code = static_cast<unsigned char>(text[i]);
      if (code >= 0x80) {
        if (++i == text.size()) return std::nullopt;
        const auto low = static_cast<unsigned char>(text[i]);
        if (code < 0xC2 || code > 0xC5 || low >> 6 != 2) return std::nullopt;
        code = (code & 0x1F) << 6 | (low & 0x3F);
      }
      if (code >= byte_.size() || byte_[code] < 0) return std::nullopt;
      out += static_cast<char>(byte_[code]);
    }
    return out;
  }

 private:
  static constexpr std::size_t code_points = 0x100 + 68;
  static constexpr std::array<std::int16_t, code_points> no_byte() {
    std::array<std::int16_t, code_points> none{};
    for (auto& b : none) b = -1;
    return none;
  }

  std::array<std::uint16_t, 256> code_point_{};
  std::array<std::int16_t, code_points> byte_ = no_byte();
};

}  // namespace data

PLUMB_NAMESPACE_END

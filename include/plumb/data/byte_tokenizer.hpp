#pragma once
// One id per byte, and special tokens after them.

#include <plumb/data/tokenizer.hpp>

PLUMB_NAMESPACE_BEGIN

namespace data {

/// Id `b` in [0, 256) is the byte `b`; the special tokens are 256, 257, ... in the order given. A `bpe_tokenizer`
/// without merges gives the same ids.
class byte_tokenizer {
 public:
  explicit byte_tokenizer(const std::vector<std::string>& special_names = {})
      : specials_(numbered(special_names), "byte_tokenizer") {}

  std::int32_t vocabulary_size() const { return 256 + static_cast<std::int32_t>(specials_.all().size()); }
  const special_tokens& specials() const { return specials_; }

  void encode(std::string_view text, std::vector<std::int32_t>& ids, match_specials match = match_specials::no) const {
    const auto plain = [&](std::string_view part) {
      const std::size_t before = ids.size();
      ids.resize(before + part.size());
      for (std::size_t i = 0; i < part.size(); ++i) ids[before + i] = static_cast<unsigned char>(part[i]);
    };
    if (match == match_specials::no) return plain(text);
    specials_.split(text, plain, [&](std::int32_t id) { ids.push_back(id); });
  }
  void decode(std::span<const std::int32_t> ids, std::string& text, skip_specials skip = skip_specials::no) const {
    decode_with(
        specials_, vocabulary_size(), [](std::int32_t id) { return static_cast<char>(id); }, ids, text, skip);
  }

 private:
  static std::vector<special_token> numbered(const std::vector<std::string>& names) {
    std::vector<special_token> tokens;
    for (const auto& name : names) tokens.push_back({name, 256 + static_cast<std::int32_t>(tokens.size())});
    return tokens;
  }

  special_tokens specials_;
};

static_assert(tokenizer<byte_tokenizer>);

}  // namespace data

PLUMB_NAMESPACE_END

#pragma once
// Byte-level byte-pair encoding with a given vocabulary: Sennrich, Haddow, Birch, "Neural machine translation of rare
// words with subword units" (arXiv:1508.07909), on bytes as in GPT-2 (Radford et al. 2019, section 2.2).
// bpe_trainer.hpp learns a vocabulary, tokenizer_json.hpp saves and loads it.

#include <plumb/data/byte_alphabet.hpp>
#include <plumb/data/pretokenizer.hpp>
#include <plumb/data/tokenizer.hpp>

#include <functional>
#include <limits>
#include <queue>
#include <unordered_map>
#include <unordered_set>

PLUMB_NAMESPACE_BEGIN

namespace data {

/// So that maps with string keys are searched by string_view.
struct text_hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

/// Two neighbouring tokens that become one.
struct token_pair {
  std::int32_t left, right;
  bool operator==(const token_pair&) const = default;

  /// Spread over all 64 bits; by the finalizer of MurmurHash3 (Appleby, public domain).
  struct hash {
    std::size_t operator()(const token_pair& p) const {
      std::uint64_t x = std::uint64_t{static_cast<std::uint32_t>(p.left)} << 32 | static_cast<std::uint32_t>(p.right);
      x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
      x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
      return static_cast<std::size_t>(x ^ x >> 33);
    }
  };
};

/// All that a byte-pair encoding is made of.
struct bpe_vocabulary {
  std::vector<std::string> tokens{};        ///< by id: the bytes of an ordinary token, the name of a special one
  std::vector<std::int32_t> special_ids{};  ///< which of them are special
  std::vector<token_pair> merges{};         ///< the first is done first; both and what they give are ordinary tokens
  pretokenizer rule = pretokenizer::words;
};

/// Encodes by merging, in each piece of the text, the pair that comes first in `merges`, the leftmost of equals, until
/// none is left.
class bpe_tokenizer {
 public:
  /// The 256 bytes, no merges, no special tokens.
  bpe_tokenizer() : bpe_tokenizer(bytes_only()) {}

  /// Fails with a sentence that begins with `operation` if a byte has no token, tokens are equal, or merges are not of
  /// ordinary tokens into an ordinary token.
  explicit bpe_tokenizer(bpe_vocabulary vocabulary, const char* operation = "bpe_tokenizer")
      : vocabulary_(std::move(vocabulary)) {
    if (vocabulary_.tokens.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
      fail(message(operation) << vocabulary_.tokens.size() << " tokens are more than 32-bit ids can number.");
    take_specials(operation);
    const id_of_bytes ids = take_tokens(operation);
    take_merges(ids, operation);
    for (const auto& [bytes, id] : ids) {
      const std::vector<std::int32_t> merged = merge(bytes);
      if (merged.size() != 1) continue;
      whole_.emplace(bytes, merged[0]);
      longest_whole_ = std::max(longest_whole_, bytes.size());
    }
  }

  std::int32_t vocabulary_size() const { return static_cast<std::int32_t>(vocabulary_.tokens.size()); }
  const special_tokens& specials() const { return specials_; }
  const bpe_vocabulary& vocabulary() const { return vocabulary_; }

  void encode(std::string_view text, std::vector<std::int32_t>& ids, match_specials match = match_specials::no) const {
    const auto plain = [&](std::string_view part) {
      for_each_piece(vocabulary_.rule, part, [&](std::string_view piece) { encode_piece(piece, ids); });
    };
    if (match == match_specials::no) return plain(text);
    specials_.split(text, plain, [&](std::int32_t id) { ids.push_back(id); });
  }
  void decode(std::span<const std::int32_t> ids, std::string& text, skip_specials skip = skip_specials::no) const {
    const auto bytes = [&](std::int32_t id) {
      return std::string_view(vocabulary_.tokens[static_cast<std::size_t>(id)]);
    };
    decode_with(specials_, vocabulary_size(), bytes, ids, text, skip);
  }

  /// The first 256 ids of a vocabulary learned here.
  static bpe_vocabulary bytes_only() {
    bpe_vocabulary v;
    for (int byte = 0; byte < 256; ++byte) v.tokens.emplace_back(1, static_cast<char>(byte));
    return v;
  }

 private:
  using id_of_bytes = std::unordered_map<std::string, std::int32_t, text_hash, std::equal_to<>>;
  static constexpr std::uint32_t never = std::numeric_limits<std::uint32_t>::max();
  struct step {
    std::uint32_t rank = never;  // place in the list of merges
    std::int32_t result = -1;
  };

  void take_specials(const char* operation) {
    std::vector<special_token> specials;
    for (const std::int32_t id : vocabulary_.special_ids) {
      if (id < 0 || id >= vocabulary_size())
        fail(message(operation) << "special id " << id << " is not in [0, " << vocabulary_size() << ").");
      specials.push_back({vocabulary_.tokens[static_cast<std::size_t>(id)], id});
    }
    specials_ = special_tokens(std::move(specials), operation);
  }

  id_of_bytes take_tokens(const char* operation) {
    const byte_alphabet alphabet;
    id_of_bytes ids;
    for (std::int32_t id = 0; id < vocabulary_size(); ++id) {
      const std::string& token = vocabulary_.tokens[static_cast<std::size_t>(id)];
      if (specials_.name(id) != nullptr) continue;
      const std::string shown = in_quotes(token);
      if (token.empty()) fail(message(operation) << "token " << id << " is empty.");
      const auto [entry, added] = ids.emplace(token, id);
      if (!added)
        fail(message(operation) << "tokens " << entry->second << " and " << id << " are both " << shown.c_str() << ".");
      const auto special = specials_.id(alphabet.spell(token));
      if (special)
        fail(message(operation) << "token " << id << ", " << shown.c_str()
                                << ", is spelt in a tokenizer.json as special token " << *special << " is.");
    }
    for (int byte = 0; byte < 256; ++byte) {
      const std::string text(1, static_cast<char>(byte));
      const auto found = ids.find(text);
      if (found == ids.end())
        fail(message(operation) << "byte " << byte << ", " << in_quotes(text).c_str()
                                << ", has no token; all 256 bytes must have one.");
      byte_ids_[static_cast<std::size_t>(byte)] = found->second;
    }
    return ids;
  }

  void take_merges(const id_of_bytes& ids, const char* operation) {
    for (std::size_t rank = 0; rank < vocabulary_.merges.size(); ++rank) {
      const token_pair pair = vocabulary_.merges[rank];
      const std::string bytes = ordinary(pair.left, rank, operation) + ordinary(pair.right, rank, operation);
      const auto result = ids.find(bytes);
      if (result == ids.end())
        fail(message(operation) << "merge " << rank << " gives " << in_quotes(bytes).c_str()
                                << ", which is not in the vocabulary.");
      if (!steps_.emplace(pair, step{static_cast<std::uint32_t>(rank), result->second}).second)
        fail(message(operation) << "merge " << rank << " is there twice; it gives " << in_quotes(bytes).c_str() << ".");
    }
  }
  const std::string& ordinary(std::int32_t id, std::size_t rank, const char* operation) const {
    if (id < 0 || id >= vocabulary_size() || specials_.name(id) != nullptr)
      fail(message(operation) << "merge " << rank << " has the id " << id << ", which is no ordinary token.");
    return vocabulary_.tokens[static_cast<std::size_t>(id)];
  }

  void encode_piece(std::string_view piece, std::vector<std::int32_t>& ids) const {
    if (piece.size() <= longest_whole_) {
      const auto whole = whole_.find(piece);
      if (whole != whole_.end()) return ids.push_back(whole->second);
    }
    if (piece.size() <= short_piece) return merge_short(piece, ids);
    const auto merged = merge(piece);
    ids.insert(ids.end(), merged.begin(), merged.end());
  }

  step step_of(std::int32_t left, std::int32_t right) const {
    const auto found = steps_.find({left, right});
    return found == steps_.end() ? step{} : found->second;
  }

  // Looks through all pairs for each merge: quadratic, and the faster way for pieces as long as words are.
  void merge_short(std::string_view piece, std::vector<std::int32_t>& ids) const {
    std::array<std::int32_t, short_piece> id;
    std::array<step, short_piece> next;  // what merging token i with token i + 1 is
    std::size_t n = piece.size();
    for (std::size_t i = 0; i < n; ++i) id[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
    for (std::size_t i = 0; i + 1 < n; ++i) next[i] = step_of(id[i], id[i + 1]);
    while (n > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < n; ++i)
        if (next[i].rank < next[best].rank) best = i;
      if (next[best].rank == never) break;
      id[best] = next[best].result;
      for (std::size_t i = best + 1; i + 1 < n; ++i) {
        id[i] = id[i + 1];
        next[i] = next[i + 1];
      }
      --n;
      if (best > 0) next[best - 1] = step_of(id[best - 1], id[best]);
      if (best + 1 < n) next[best] = step_of(id[best], id[best + 1]);
    }
    ids.insert(ids.end(), id.begin(), id.begin() + static_cast<std::ptrdiff_t>(n));
  }

  // The same with a heap of pairs: n log n for a piece of n bytes.
  std::vector<std::int32_t> merge(std::string_view piece) const {
    constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
    struct symbol {
      std::int32_t id;
      std::size_t before, after;
    };
    struct candidate {
      std::uint32_t rank;
      std::size_t at;
      token_pair pair;
      std::int32_t result;
      bool operator>(const candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
    };
    std::vector<symbol> symbols(piece.size());
    std::priority_queue<candidate, std::vector<candidate>, std::greater<>> heap;
    const auto offer = [&](std::size_t at) {
      if (at == none || symbols[at].after == none) return;
      const token_pair pair{symbols[at].id, symbols[symbols[at].after].id};
      const step s = step_of(pair.left, pair.right);
      if (s.rank != never) heap.push({s.rank, at, pair, s.result});
    };
    for (std::size_t i = 0; i < piece.size(); ++i)
      symbols[i] = {byte_ids_[static_cast<unsigned char>(piece[i])], i == 0 ? none : i - 1,
                    i + 1 < piece.size() ? i + 1 : none};
    for (std::size_t i = 0; i < piece.size(); ++i) offer(i);
    while (!heap.empty()) {
      const candidate best = heap.top();
      heap.pop();
      symbol& left = symbols[best.at];
      // The pair may have gone since: a token merged away has the id -1.
      if (left.id != best.pair.left || left.after == none || symbols[left.after].id != best.pair.right) continue;
      symbol& right = symbols[left.after];
      left.id = best.result;
      right.id = -1;
      left.after = right.after;
      if (left.after != none) symbols[left.after].before = best.at;
      offer(left.before);
      offer(best.at);
    }
    std::vector<std::int32_t> ids;
    for (const symbol& s : symbols)
      if (s.id >= 0) ids.push_back(s.id);
    return ids;
  }

  static constexpr std::size_t short_piece = 64;

  bpe_vocabulary vocabulary_;
  special_tokens specials_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::unordered_map<token_pair, step, token_pair::hash> steps_;
  id_of_bytes whole_;  // the tokens that their own bytes are encoded to: most words need no merging
  std::size_t longest_whole_ = 0;
};

static_assert(tokenizer<bpe_tokenizer>);

}  // namespace data

PLUMB_NAMESPACE_END

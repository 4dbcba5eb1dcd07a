#pragma once
// Learns the vocabulary of a byte-pair encoding from text.

#include <plumb/data/bpe_tokenizer.hpp>

#include <ranges>

PLUMB_NAMESPACE_BEGIN

namespace data {

/// How large a vocabulary is learned, and from what.
struct bpe_options {
  std::int32_t vocabulary_size = 4096;        ///< bytes and special tokens included; at least 256 + the special tokens
  std::vector<std::string> special_tokens{};  ///< their names; they get the ids 256, 257, ...
  std::int64_t min_count = 2;                 ///< a pair that is seen less often is not merged; positive
  pretokenizer rule = pretokenizer::words;
};

/// Counts the pieces of texts, then merges pairs of tokens greedily: always the one that is seen most often in all
/// texts; of equals the one whose left token has the lower id, then whose right token has. So the result depends on
/// nothing but the pieces and their counts: not on the order of the texts, not on the platform. Ids: byte `b` is `b`,
/// special tokens follow, then the tokens in the order learned. The vocabulary is smaller than asked for if no pair is
/// seen `min_count` times any more. Names of special tokens in the texts are plain text.
class bpe_trainer {
 public:
  explicit bpe_trainer(bpe_options options) : options_(std::move(options)) {
    const std::int64_t least = 256 + static_cast<std::int64_t>(options_.special_tokens.size());
    if (options_.vocabulary_size < least)
      fail(message("bpe_trainer") << "option `vocabulary_size` is " << options_.vocabulary_size
                                  << " but must be at least " << least << ": 256 bytes and "
                                  << options_.special_tokens.size() << " special tokens.");
    if (options_.min_count < 1)
      fail(message("bpe_trainer") << "option `min_count` is " << options_.min_count << " but must be positive.");
    bpe_vocabulary start = bpe_tokenizer::bytes_only();
    start.rule = options_.rule;
    for (const auto& name : options_.special_tokens) {
      start.special_ids.push_back(static_cast<std::int32_t>(start.tokens.size()));
      start.tokens.push_back(name);
    }
    start_ = bpe_tokenizer(std::move(start), "bpe_trainer").vocabulary();  // which checks the names
  }

  /// Counts the pieces of one text.
  void add(std::string_view text) {
    for_each_piece(options_.rule, text, [&](std::string_view piece) {
      const auto found = counts_.find(piece);
      if (found != counts_.end()) {
        ++found->second;
      } else {
        counts_.emplace(piece, 1);
      }
    });
  }

  /// The tokenizer learned from what was added so far.
  bpe_tokenizer train() const { return bpe_tokenizer(learner(*this).learn(), "bpe_trainer"); }

 private:
  using position = std::uint32_t;
  static constexpr position none = std::numeric_limits<position>::max();

  // One token of one distinct piece; neighbours by position, because merging leaves gaps.
  struct symbol {
    std::int32_t id;  // -1: merged into the token before it
    position before, after;
  };
  struct occurrences {
    std::int64_t count = 0;      // over all texts
    std::vector<position> at{};  // where it has been seen; some are out of date
  };
  struct candidate {
    std::int64_t count;
    token_pair pair;
    // The top of the heap is the greatest.
    bool operator<(const candidate& other) const {
      if (count != other.count) return count < other.count;
      if (pair.left != other.pair.left) return pair.left > other.pair.left;
      return pair.right > other.pair.right;
    }
  };

  class learner {
   public:
    explicit learner(const bpe_trainer& trainer) : options_(trainer.options_), vocabulary_(trainer.start_) {
      const byte_alphabet alphabet;
      for (const auto& name : options_.special_tokens)
        if (const auto bytes = alphabet.read(name)) reserved_.insert(*bytes);
      for (const auto& [piece, count] : trainer.counts_) add_piece(piece, count);
      for (const auto& [pair, seen] : pairs_) offer(pair, seen.count);
    }

    bpe_vocabulary learn() {
      while (vocabulary_.tokens.size() < static_cast<std::size_t>(options_.vocabulary_size) && !heap_.empty()) {
        const candidate best = heap_.top();
        heap_.pop();
        const std::int64_t now = pairs_[best.pair].count;
        if (now != best.count) {
          // Counts that have risen were offered again at once, counts that have fallen are offered here.
          if (now < best.count) offer(best.pair, now);
          continue;
        }
        const std::string bytes = token(best.pair.left) + token(best.pair.right);
        if (reserved_.contains(bytes)) continue;
        merge(best.pair, id_of(bytes));
      }
      return std::move(vocabulary_);
    }

   private:
    const std::string& token(std::int32_t id) const { return vocabulary_.tokens[static_cast<std::size_t>(id)]; }

    // Two pairs may give the same bytes; they are one token.
    std::int32_t id_of(const std::string& bytes) {
      const auto [entry, added] = learned_.emplace(bytes, static_cast<std::int32_t>(vocabulary_.tokens.size()));
      if (added) vocabulary_.tokens.push_back(bytes);
      return entry->second;
    }

    void add_piece(const std::string& piece, std::int64_t count) {
      if (piece.size() >= none - symbols_.size())
        fail(message("bpe_trainer") << "the distinct pieces of the texts have more than "
                                    << static_cast<std::int64_t>(none) << " bytes.");
      const auto first = static_cast<position>(symbols_.size());
      const auto last = static_cast<position>(first + piece.size() - 1);
      for (position at = first; at <= last; ++at) {
        const auto byte = static_cast<unsigned char>(piece[at - first]);
        symbols_.push_back({byte, at == first ? none : at - 1, at == last ? none : at + 1});
        counts_.push_back(count);
      }
      for (position at = first; at < last; ++at) change(at, count);
    }

    // Counts the pair that begins at `at`, or uncounts it.
    void change(position at, std::int64_t by) {
      const token_pair pair{symbols_[at].id, symbols_[symbols_[at].after].id};
      occurrences& seen = pairs_[pair];
      seen.count += by;
      if (by > 0) seen.at.push_back(at);
    }

    void offer(token_pair pair, std::int64_t count) {
      if (count >= options_.min_count) heap_.push({count, pair});
    }

    void merge(token_pair pair, std::int32_t result) {
      vocabulary_.merges.push_back(pair);
      std::vector<position> places = std::move(pairs_[pair].at);
      pairs_[pair].at.clear();
      std::sort(places.begin(), places.end());  // leftmost first, as in encoding
      std::vector<token_pair> risen;
      for (const position at : places) {
        symbol& left = symbols_[at];
        if (left.id != pair.left || left.after == none || symbols_[left.after].id != pair.right) continue;
        symbol& right = symbols_[left.after];
        const std::int64_t count = counts_[at];
        if (left.before != none) change(left.before, -count);
        if (right.after != none) change(left.after, -count);
        change(at, -count);
        left.id = result;
        right.id = -1;
        left.after = right.after;
        if (left.after != none) symbols_[left.after].before = at;
        for (const position start : {left.before, at})
          if (start != none && symbols_[start].after != none) {
            change(start, count);
            risen.push_back({symbols_[start].id, symbols_[symbols_[start].after].id});
          }
      }
      std::unordered_set<token_pair, token_pair::hash> offered;
      for (const token_pair& p : risen)
        if (offered.insert(p).second) offer(p, pairs_[p].count);
    }

    const bpe_options& options_;
    bpe_vocabulary vocabulary_;
    std::unordered_set<std::string> reserved_;  // bytes that a tokenizer.json would spell as a special token's name
    std::unordered_map<std::string, std::int32_t> learned_;
    std::vector<symbol> symbols_;
    std::vector<std::int64_t> counts_;  // of the piece in which a symbol is
    std::unordered_map<token_pair, occurrences, token_pair::hash> pairs_;
    std::priority_queue<candidate> heap_;
  };

  bpe_options options_;
  bpe_vocabulary start_;
  std::unordered_map<std::string, std::int64_t, text_hash, std::equal_to<>> counts_;
};

/// Learns from a range of texts (anything that converts to std::string_view), which is read once.
template <std::ranges::input_range R>
  requires std::convertible_to<std::ranges::range_reference_t<R>, std::string_view>
bpe_tokenizer train_bpe(R&& texts, bpe_options options) {
  bpe_trainer trainer(std::move(options));
  for (auto&& text : texts) trainer.add(text);
  return trainer.train();
}

}  // namespace data

PLUMB_NAMESPACE_END

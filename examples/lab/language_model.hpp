#pragma once
// The lab's transformer as a search sees language models (plumb/model/language_model.hpp): many texts with one memory of keys and values, of which
// those that begin alike share what they have in common.

#include "training.hpp"

#include <plumb/model/language_model.hpp>

#include <utility>

namespace lab {

/// What a `transformer_language_model` has memory for.
struct language_model_memory {
  index_t tokens = 4096;   ///< whose keys and values are kept, those that texts share once
  index_t sequences = 64;  ///< alive at a time
};

/// Keys and values lie in one pool, a row for each token; a sequence is a list of rows. A fork copies the list, and a row goes back to the pool when
/// the last sequence lets it go; nobody writes to a row that another one has. `append_many` reads all texts in one pass, or in several where the
/// arena is too small for one: half of what is left of it is for a pass's numbers, half for what the backend's products take.
///
/// Backend, arena, model and its weights stay the caller's, and as they are while there are sequences; these do not outlive this.
template <class B>
class transformer_language_model {
 public:
  using real = plumb::real_of<B>;

  /// A text that the model has read. Move-only.
  class sequence {
   public:
    sequence(sequence&& other) noexcept : model_(std::exchange(other.model_, nullptr)), place_(other.place_) {}
    sequence& operator=(sequence&& other) noexcept {
      sequence taken(std::move(other));  // first: it may be this one
      std::swap(model_, taken.model_);
      std::swap(place_, taken.place_);
      return *this;
    }
    ~sequence() {
      if (model_ != nullptr) model_->close(place_);
    }

   private:
    friend class transformer_language_model;
    sequence(transformer_language_model* model, std::size_t place) : model_(model), place_(place) {}
    transformer_language_model* model_;
    std::size_t place_;
  };
  using step = plumb::sequence_step<transformer_language_model>;

  /// A text ends with `end_token`; -1: with none.
  transformer_language_model(B& compute, workspace& scratch, const transformer<B>& model, std::int32_t end_token,
                             const language_model_memory& memory = {})
      : b_(compute), scratch_(scratch()), model_(model), end_token_(end_token) {
    plumb::require_option("transformer_language_model", "tokens", static_cast<double>(memory.tokens), memory.tokens >= 1, "1 or more");
    plumb::require_option("transformer_language_model", "sequences", static_cast<double>(memory.sequences), memory.sequences >= 1, "1 or more");
    const auto sequences = static_cast<std::size_t>(memory.sequences), capacity = static_cast<std::size_t>(memory.tokens);
    pool_ = model.make_token_rows(memory.tokens);
    holders_.resize(capacity);
    for (std::size_t i = capacity; i-- > 0;) free_rows_.push_back(static_cast<std::int32_t>(i));
    texts_.resize(sequences);
    for (std::size_t i = sequences; i-- > 0;) free_places_.push_back(i);
    rows_.resize(sequences * static_cast<std::size_t>(context()));
    logits_.resize(sequences * static_cast<std::size_t>(vocab_size()));
    readings_.reserve(sequences);
    arrangement_.order.reserve(sequences);
  }
  transformer_language_model(const transformer_language_model&) = delete;
  transformer_language_model& operator=(const transformer_language_model&) = delete;

  index_t vocab_size() const { return model_.config().vocabulary; }
  bool is_end(std::int32_t id) const { return id == end_token_ && id >= 0; }
  index_t context() const { return model_.config().positions; }
  index_t max_sequences() const { return static_cast<index_t>(texts_.size()); }
  std::size_t size(const sequence& s) const { return text_of("size", s).size; }

  sequence open() { return {this, new_place("open")}; }
  sequence fork(const sequence& s) {
    const std::size_t size = text_of("fork", s).size, place = new_place("fork");
    texts_[place].size = size;
    std::copy_n(rows_of(s.place_), size, rows_of(place));
    for (const std::int32_t row : std::span(rows_of(place), size)) ++holders_[static_cast<std::size_t>(row)];
    return {this, place};
  }
  bool rewind(sequence& s, std::size_t size) {
    text& t = text_of("rewind", s);
    if (size > t.size) plumb::fail(plumb::message("rewind") << "to " << size << " tokens, but the text has " << t.size << ".");
    if (size < t.size) t.has_logits = false;
    shorten(s.place_, size);
    return true;
  }
  void append(sequence& s, std::span<const std::int32_t> ids) {
    const step one{&s, ids};
    append_many(std::span(&one, 1));
  }
  /// What throws changes nothing, but that the logits of the call's texts are gone where the reading had begun.
  void append_many(std::span<const step> steps) {
    const std::size_t wanted = require(steps);
    if (wanted > free_rows_.size()) {
      const plumb::message why = plumb::message("transformer_language_model")
                                 << wanted << " tokens are to be read, but there is memory for " << free_rows_.size() << " more.";
      throw plumb::sequence_memory_full(why.c_str());
    }
    try {
      for (const step& s : steps) lengthen(s.sequence->place_, s.tokens.size());
      read(steps);
    } catch (...) {
      for (const step& s : steps) {
        shorten(s.sequence->place_, texts_[s.sequence->place_].before);
        texts_[s.sequence->place_].has_logits = false;
      }
      throw;
    }
  }
  std::span<const float> logits(const sequence& s) const {
    if (!text_of("logits", s).has_logits)
      plumb::fail(plumb::message("logits") << "this text has read no token since it was opened, forked or rewound.");
    return {logits_of(s.place_), static_cast<std::size_t>(vocab_size())};
  }

  /// Tokens whose keys and values are kept, those that texts share once.
  index_t rows_in_use() const { return static_cast<index_t>(holders_.size() - free_rows_.size()); }
  /// How many texts have the keys and values of token `i` of `s`.
  std::int32_t holders(const sequence& s, std::size_t i) const {
    if (i >= text_of("holders", s).size) plumb::fail(plumb::message("holders") << "of token " << i << " of a text of " << size(s) << ".");
    return holders_[static_cast<std::size_t>(rows_of(s.place_)[i])];
  }
  index_t sequences_in_use() const { return static_cast<index_t>(texts_.size() - free_places_.size()); }

 private:
  struct text {
    std::size_t size = 0, before = 0;  // now, and when the last call began
    bool has_logits = false;
    std::uint64_t call = 0;  // the last one that named it
  };

  std::int32_t* rows_of(std::size_t place) { return rows_.data() + place * static_cast<std::size_t>(context()); }
  const std::int32_t* rows_of(std::size_t place) const { return rows_.data() + place * static_cast<std::size_t>(context()); }
  float* logits_of(std::size_t place) { return logits_.data() + place * static_cast<std::size_t>(vocab_size()); }
  const float* logits_of(std::size_t place) const { return logits_.data() + place * static_cast<std::size_t>(vocab_size()); }

  const text& text_of(const char* op, const sequence& s) const {
    if (s.model_ != this) plumb::fail(plumb::message(op) << "this text is none of the model's, or was moved from.");
    return texts_[s.place_];
  }
  text& text_of(const char* op, const sequence& s) { return const_cast<text&>(std::as_const(*this).text_of(op, s)); }

  std::size_t new_place(const char* op) {
    if (free_places_.empty()) {
      const plumb::message why = plumb::message(op) << "all " << texts_.size() << " sequences are in use.";
      throw plumb::sequence_memory_full(why.c_str());
    }
    const std::size_t place = free_places_.back();
    free_places_.pop_back();
    texts_[place] = {};
    return place;
  }
  void close(std::size_t place) noexcept {
    shorten(place, 0);
    free_places_.push_back(place);  // there is room: it was there before
  }
  void lengthen(std::size_t place, std::size_t by) {
    text& t = texts_[place];
    for (; by > 0; --by) {
      const std::int32_t row = free_rows_.back();
      free_rows_.pop_back();
      model_.clear_row(row, pool_);
      holders_[static_cast<std::size_t>(row)] = 1;
      rows_of(place)[t.size++] = row;
    }
  }
  void shorten(std::size_t place, std::size_t size) noexcept {
    text& t = texts_[place];
    while (t.size > size) {
      const std::int32_t row = rows_of(place)[--t.size];
      if (--holders_[static_cast<std::size_t>(row)] == 0) free_rows_.push_back(row);
    }
  }

  /// Checks a call; how many tokens it has.
  std::size_t require(std::span<const step> steps) {
    const char* op = "transformer_language_model";
    ++call_;
    std::size_t wanted = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].sequence == nullptr) plumb::fail(plumb::message(op) << "text " << i << " of the call is none. Nothing was read.");
      text& t = text_of("append", *steps[i].sequence);
      const std::size_t fresh = steps[i].tokens.size();
      if (t.call == call_) plumb::fail(plumb::message(op) << "text " << i << " of the call was named before. Nothing was read.");
      t.call = call_;
      t.before = t.size;
      if (fresh == 0) plumb::fail(plumb::message(op) << "text " << i << " of the call has no tokens. Nothing was read.");
      if (fresh > static_cast<std::size_t>(context()) - t.size)
        plumb::fail(plumb::message(op) << "text " << i << " of the call would have " << t.size + fresh << " tokens, but the model has " << context()
                                       << " positions. Nothing was read.");
      for (const std::int32_t id : steps[i].tokens)
        if (id < 0 || id >= vocab_size())
          plumb::fail(plumb::message(op) << "token " << id << " of text " << i << " of the call is not one of the model's " << vocab_size()
                                         << ". Nothing was read.");
      wanted += fresh;
    }
    return wanted;
  }

  // The new tokens of `steps`, whose rows are there: all texts in a pass, or as many as there is scratch for, or a part of one.
  void read(std::span<const step> steps) {
    std::size_t part = 0;  // of the first text, what was read already
    while (!steps.empty()) {
      std::size_t texts = steps.size(), most = static_cast<std::size_t>(context());
      for (name_texts(steps, texts, part, most); !fits() && (texts > 1 || most > 1); name_texts(steps, texts, part, most)) {
        if (texts == 1) most = std::min(most, readings_[0].ids.size());
        (texts > 1 ? texts : most) = ((texts > 1 ? texts : most) + 1) / 2;
      }
      const plumb::arena<>::frame frame(scratch_);
      const auto hidden = model_.extend(b_, scratch_, readings_, arrangement_, pool_);
      part += readings_[0].ids.size();
      if (texts == 1 && part < steps[0].tokens.size()) continue;
      const auto logits = scratch_.template take<real>(hidden.extent(0), vocab_size());
      transformer<B>::linear(b_, scratch_, hidden, model_.head(), logits);
      b_.sync();
      for (std::size_t i = 0; i < texts; ++i) {
        const std::size_t place = steps[static_cast<std::size_t>(arrangement_.order[i])].sequence->place_;
        const auto row = logits.row(static_cast<index_t>(i));
        std::transform(row.data(), row.data() + row.size(), logits_of(place), [](real x) { return static_cast<float>(x); });
        texts_[place].has_logits = true;
      }
      steps = steps.subspan(texts);
      part = 0;
    }
  }
  // The first `texts` of `steps`; the first of those from token `part` on, and at most `most` of its tokens if it is the only one.
  void name_texts(std::span<const step> steps, std::size_t texts, std::size_t part, std::size_t most) {
    readings_.clear();
    for (const step& s : steps.first(texts)) {
      const text& t = texts_[s.sequence->place_];
      auto ids = s.tokens.subspan(readings_.empty() ? part : 0);
      if (texts == 1) ids = ids.first(std::min(most, ids.size()));
      const std::size_t old = t.before + static_cast<std::size_t>(ids.data() - s.tokens.data());
      readings_.push_back({ids, {rows_of(s.sequence->place_), old + ids.size()}});
    }
  }
  bool fits() {
    model_.arrange(readings_, arrangement_);
    const std::size_t logits = static_cast<std::size_t>(arrangement_.ends.rows * vocab_size()) * sizeof(real);
    return model_.extend_workspace(arrangement_) + logits <= (scratch_.capacity() - scratch_.used()) / 2;
  }

  B& b_;
  plumb::arena<>& scratch_;
  const transformer<B>& model_;
  std::int32_t end_token_;
  typename transformer<B>::token_rows pool_{};
  std::vector<std::int32_t> holders_{}, free_rows_{};  ///< how many texts have a row
  std::vector<text> texts_{};
  std::vector<std::size_t> free_places_{};
  std::vector<std::int32_t> rows_{};  ///< `[sequences, context]`
  std::vector<float> logits_{};       ///< `[sequences, V]`
  std::vector<typename transformer<B>::reading> readings_{};
  typename transformer<B>::arrangement arrangement_{};
  std::uint64_t call_ = 0;
};

}  // namespace lab

#pragma once
// llama.cpp behind plumb's concepts, over <llama.h> alone: a context of the host's as a language model that searches can fork, rewind and batch, its
// vocabulary as a tokenizer, a second context as an embedder. For llama.cpp from July 2025 on (llama_memory_*, kv_unified); checked with Debian's
// 0.7.0.
//
// A context is not for several threads, nor for two users at once: while a search runs, nobody else decodes with it.

#include <plumb/model/language_model.hpp>

#include <llama.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>

PLUMB_NAMESPACE_BEGIN

namespace llama_cpp {

namespace detail {
// What newer versions can be asked.
template <class C>
index_t cells_of_a_sequence(const C* context) {
  if constexpr (requires { llama_n_ctx_seq(context); }) return static_cast<index_t>(llama_n_ctx_seq(context));
  else return static_cast<index_t>(llama_n_ctx(context));
}
template <class M>
index_t embedding_width(const M* model) {
  if constexpr (requires { llama_model_n_embd_out(model); }) return static_cast<index_t>(llama_model_n_embd_out(model));
  else return static_cast<index_t>(llama_model_n_embd(model));
}
/// A llama_batch in memory that is used again.
class batch {
 public:
  void clear() { tokens_.clear(), positions_.clear(), ids_.clear(), wanted_.clear(); }
  void add(std::int32_t token, std::size_t position, llama_seq_id id, bool wanted) {
    tokens_.push_back(token);
    positions_.push_back(static_cast<llama_pos>(position));
    ids_.push_back(id);
    wanted_.push_back(wanted ? 1 : 0);
  }
  std::size_t size() const { return tokens_.size(); }
  llama_batch view() {
    id_counts_.assign(size(), 1);
    id_lists_.clear();
    for (llama_seq_id& id : ids_) id_lists_.push_back(&id);
    llama_batch b{};
    b.n_tokens = static_cast<std::int32_t>(size());
    b.token = tokens_.data();
    b.pos = positions_.data();
    b.n_seq_id = id_counts_.data();
    b.seq_id = id_lists_.data();
    b.logits = wanted_.data();
    return b;
  }

 private:
  std::vector<llama_token> tokens_{};
  std::vector<llama_pos> positions_{};
  std::vector<llama_seq_id> ids_{};
  std::vector<std::int8_t> wanted_{};
  std::vector<std::int32_t> id_counts_{};
  std::vector<llama_seq_id*> id_lists_{};
};
}  // namespace detail

/// Ids of llama.cpp's sequences that a model may use. The host keeps the others.
struct sequence_ids {
  std::int32_t first = 0;
  std::int32_t count = 0;  ///< 0: all from `first` on, as many as `n_seq_max` allows
};

/// A context as plumb::language_model; also rewindable, batched and bounded. The context stays the host's and lives longer; sequences do not outlive
/// the model. Set `kv_unified = true` (sequences share the cells of what they have in common), `n_seq_max` to the sequences wanted at a time, `n_ctx`
/// to the cells for all of them together.
///
/// What llama.cpp reports: no room is `sequence_memory_full`, everything else `backend_error` with llama_decode's code (2: the context's abort
/// callback). Either way the sequences of the call are again what they were before it; where the memory cannot give back a part (recurrent models,
/// sliding windows) they are lost: their memory is free, and using them is an error.
class language_model {
 public:
  /// One id of llama.cpp's, given back at the end.
  class sequence {
   public:
    sequence(sequence&& other) noexcept : model_(std::exchange(other.model_, nullptr)), id_(other.id_) {}
    sequence& operator=(sequence&& other) noexcept {
      const sequence old(std::move(*this));
      model_ = std::exchange(other.model_, nullptr);
      id_ = other.id_;
      return *this;
    }
    ~sequence() {
      if (model_ != nullptr) model_->release(id_);
    }
    llama_seq_id id() const { return id_; }

   private:
    friend class language_model;
    sequence(language_model& model, llama_seq_id id) : model_(&model), id_(id) {}
    language_model* model_;
    llama_seq_id id_;
  };

  explicit language_model(llama_context* context, const sequence_ids& ids = {}) : context_(context) {
    if (context == nullptr) fail(said() << "there is no context: llama_init_from_model gave none?");
    const llama_model* const model = llama_get_model(context);
    memory_ = llama_get_memory(context);
    if (memory_ == nullptr || llama_model_has_encoder(model))
      fail(said() << "this model does not write a text token by token: a decoder is needed, with a memory.");
    vocabulary_ = llama_model_get_vocab(model);
    vocab_size_ = static_cast<std::size_t>(llama_vocab_n_tokens(vocabulary_));
    window_ = llama_model_n_swa(model);
    const auto most = static_cast<std::int32_t>(llama_n_seq_max(context));
    const std::int32_t count = ids.count == 0 ? most - ids.first : ids.count;
    if (ids.first < 0 || count < 1 || count > most - ids.first)
      fail(said() << count << " sequences from id " << ids.first << " on are asked for, but the context has " << most
                  << ": set n_seq_max in llama_context_params higher.");
    if (most > 1 && detail::cells_of_a_sequence(context) < static_cast<index_t>(llama_n_ctx(context)))
      fail(said() << "each sequence has a memory of its own, which forks would copy and fill: set kv_unified = true in llama_context_params.");
    first_ = ids.first;
    records_.resize(static_cast<std::size_t>(count));
    for (std::int32_t id = first_ + count; id-- > first_;) {
      if (const llama_pos last = llama_memory_seq_pos_max(memory_, id); last >= 0)
        fail(said() << "sequence " << id << " has " << last + 1 << " tokens already: keep it out of `ids`, or clear the memory.");
      free_.push_back(id);
    }
  }
  language_model(const language_model&) = delete;
  language_model& operator=(const language_model&) = delete;

  llama_context* context_handle() const { return context_; }
  index_t vocab_size() const { return static_cast<index_t>(vocab_size_); }
  /// Any of the vocabulary's ends: of a text, of a turn.
  bool is_end(std::int32_t token) const { return llama_vocab_is_eog(vocabulary_, token); }
  /// Cells: a sequence that is alone in the memory may have as many tokens.
  index_t context() const { return detail::cells_of_a_sequence(context_); }
  index_t max_sequences() const { return static_cast<index_t>(records_.size()); }
  std::size_t size(const sequence& s) const {
    require_own(s);
    return of(s).size;
  }

  sequence open() {
    if (free_.empty())
      throw sequence_memory_full((said() << "all " << records_.size() << " sequences are in use: let some go, or set n_seq_max higher. Nothing was "
                                         << "changed.").c_str());
    const llama_seq_id id = free_.back();
    free_.pop_back();
    sequence made(*this, id);
    of(made) = {};
    return made;
  }
  /// No cell is copied.
  sequence fork(const sequence& s) {
    const std::size_t tokens = usable(s).size;
    sequence copy = open();
    if (tokens > 0) llama_memory_seq_cp(memory_, s.id_, copy.id_, -1, -1);
    of(copy).size = tokens;
    return copy;
  }
  void append(sequence& s, std::span<const std::int32_t> tokens) {
    const sequence_step<language_model> one[1] = {{&s, tokens}};
    append_many(one);
  }
  /// One llama_decode for each `n_batch` tokens.
  void append_many(std::span<const sequence_step<language_model>> steps) {
    const std::size_t total = require(steps);
    if (steps.empty()) return;
    const std::size_t room = std::max<std::size_t>(1, llama_n_batch(context_));
    kept_.resize(total > room ? steps.size() * vocab_size_ : 0);  // where a later decode would overwrite them
    ++call_;
    unless_done guard{*this, steps};
    for (std::size_t done = 0, step = 0, at = 0; done < total;) {
      batch_.clear();
      for (std::size_t s = step, i = at; s < steps.size() && batch_.size() < room;) {
        const auto tokens = steps[s].tokens;
        batch_.add(tokens[i], of(*steps[s].sequence).size + i, steps[s].sequence->id_, i + 1 == tokens.size());
        if (++i == tokens.size()) ++s, i = 0;
      }
      if (const std::int32_t code = llama_decode(context_, batch_.view()); code != 0) refuse(code, guard);
      done += batch_.size();
      for (std::size_t row = 0; row < batch_.size(); ++row)
        if (++at == steps[step].tokens.size()) {
          if (!kept_.empty()) std::copy_n(row_of_logits(row), vocab_size_, kept_.data() + step * vocab_size_);
          of(*steps[step].sequence).row = kept_.empty() ? row : step;
          ++step, at = 0;
        }
    }
    guard.done = true;
    for (const auto& s : steps) {
      record& one = of(*s.sequence);
      one.size += s.tokens.size();
      one.call = call_;
    }
  }
  std::span<const float> logits(const sequence& s) {
    const record& one = usable(s);
    if (one.call != call_ || call_ == 0) fail(said() << "the last call did not append to this sequence: its logits are gone.");
    return {kept_.empty() ? row_of_logits(one.row) : kept_.data() + one.row * vocab_size_, vocab_size_};
  }
  /// False for recurrent models, and where a sliding window has left behind what the tokens that follow would see.
  bool rewind(sequence& s, std::size_t n) {
    record& one = usable(s);
    if (n > one.size) fail(said() << "a sequence of " << one.size << " tokens cannot be rewound to " << n << ".");
    if (n == one.size) return true;
    if (!cut(s.id_, n)) return false;
    one.size = n;
    one.call = 0;
    return true;
  }

 private:
  /// What is known of a sequence.
  struct record {
    std::size_t size = 0;
    std::uint64_t call = 0;  ///< the one that its logits are of
    std::size_t row = 0;     ///< of the batch, or of what was kept
    bool lost = false;
    bool in_call = false;
  };
  /// Takes back what a call has added, if it does not come to its end.
  struct unless_done {
    language_model& model;
    std::span<const sequence_step<language_model>> steps;
    bool done = false;
    std::int64_t take_back() {
      done = true;
      return model.take_back(steps);
    }
    ~unless_done() {
      if (!done) model.take_back(steps);
    }
  };

  static message said() { return message("llama_cpp"); }
  record& of(const sequence& s) { return records_[static_cast<std::size_t>(s.id_ - first_)]; }
  const record& of(const sequence& s) const { return records_[static_cast<std::size_t>(s.id_ - first_)]; }
  void require_own(const sequence& s) const {
    if (s.model_ != this) fail(said() << "the sequence is another model's, or was moved from.");
  }
  record& usable(const sequence& s) {
    require_own(s);
    record& one = of(s);
    if (one.lost) fail(said() << "the sequence was lost in a call that failed: let it go and read its text again.");
    return one;
  }
  void release(llama_seq_id id) noexcept {
    llama_memory_seq_rm(memory_, id, -1, -1);
    free_.push_back(id);  // has room: it had as many
  }

  /// Tokens in all.
  std::size_t require(std::span<const sequence_step<language_model>> steps) {
    std::size_t total = 0, bad = steps.size();
    for (const auto& s : steps) {
      record& one = usable(*s.sequence);
      if (s.tokens.empty()) fail(said() << "a sequence is appended to, but by no tokens. Nothing was changed.");
      for (const std::int32_t t : s.tokens)
        if (t < 0 || static_cast<std::size_t>(t) >= vocab_size_)
          fail(said() << "token " << t << " is none of the model's " << vocab_size_ << ". Nothing was changed.");
      if (static_cast<index_t>(one.size + s.tokens.size()) > context())
        fail(said() << "a sequence of " << one.size + s.tokens.size() << " tokens is asked for, but the context has " << context()
                    << " cells: set n_ctx in llama_context_params higher. Nothing was changed.");
      total += s.tokens.size();
    }
    for (std::size_t i = 0; i < steps.size(); ++i)
      if (std::exchange(of(*steps[i].sequence).in_call, true)) bad = i;
    for (const auto& s : steps) of(*s.sequence).in_call = false;
    if (bad < steps.size()) fail(said() << "a sequence stands in the call twice. Nothing was changed.");
    return total;
  }
  float* row_of_logits(std::size_t row) {
    float* const found = llama_get_logits_ith(context_, static_cast<std::int32_t>(row));
    if (found == nullptr) fail(said() << "the context gives no logits: is it one for embeddings?");
    return found;
  }

  /// The memory has the first `n` tokens of the sequence, and no more; false: it cannot.
  bool cut(llama_seq_id id, std::size_t n) {
    const auto tokens = static_cast<std::size_t>(llama_memory_seq_pos_max(memory_, id) + 1);
    if (tokens <= n) return tokens == n;
    if (n == 0) return llama_memory_seq_rm(memory_, id, -1, -1);
    // A window keeps of each sequence what its own next token sees; one further back may see more.
    const auto end = static_cast<llama_pos>(n);
    if (window_ > 0 && llama_memory_seq_pos_min(memory_, id) > std::max<llama_pos>(0, end - window_)) return false;
    return llama_memory_seq_rm(memory_, id, end, -1);
  }
  /// How many sequences could not be made what they were.
  std::int64_t take_back(std::span<const sequence_step<language_model>> steps) {
    std::int64_t lost = 0;
    for (const auto& s : steps) {
      record& one = of(*s.sequence);
      if (cut(s.sequence->id_, one.size)) continue;
      llama_memory_seq_rm(memory_, s.sequence->id_, -1, -1);  // the whole can always be removed
      one = {.lost = true};
      ++lost;
    }
    return lost;
  }
  [[noreturn]] void refuse(std::int32_t code, unless_done& call) {
    const std::int64_t lost = call.take_back();
    message m = said();
    if (code == 1) m << "no room in the memory of " << static_cast<std::int64_t>(llama_n_ctx(context_)) << " cells";
    else if (code == 2) m << "llama_decode was aborted, by the context's abort callback";
    else if (code == -1) m << "llama_decode takes the batch for invalid";
    else m << "llama_decode failed";
    m << " (code " << code << "). ";
    if (lost > 0) {
      m << lost << " of the call's sequences are lost: this model's memory cannot give back a part.";
      if (code == 1) m << " Set n_batch higher, so that a call is one llama_decode, or n_ctx.";
    } else {
      m << "Nothing was changed";
      if (code == 1) m << ": let sequences go, or set n_ctx higher";
      m << ".";
    }
    if (code == 1 && lost == 0) throw sequence_memory_full(m.c_str());
    fail_backend(m, code);
  }

  llama_context* context_;
  llama_memory_t memory_ = nullptr;
  const llama_vocab* vocabulary_ = nullptr;
  std::size_t vocab_size_ = 0;
  std::int32_t window_ = 0;
  llama_seq_id first_ = 0;
  std::vector<record> records_{};
  std::vector<llama_seq_id> free_{};
  std::uint64_t call_ = 0;
  detail::batch batch_{};
  std::vector<float> kept_{};  ///< `[steps, vocab_size]`
};

/// What is done about begin, end and turn tokens.
struct special_tokens {
  bool add = false;   ///< those that the model wants around a text are put there
  bool read = false;  ///< their names in a text mean them: for templates, not for what a stranger wrote
  bool write = false; ///< they are in the decoded text, by name
};

/// A vocabulary as plumb::tokenizer.
class tokenizer {
 public:
  explicit tokenizer(const llama_vocab* vocabulary, const special_tokens& special = {}) : vocabulary_(vocabulary), special_(special) {
    if (vocabulary == nullptr) fail(message("llama_cpp") << "there is no vocabulary.");
  }
  explicit tokenizer(const llama_model* model, const special_tokens& special = {}) : tokenizer(llama_model_get_vocab(model), special) {}

  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> tokens(text.size() + 2);
    for (int tries = 0; tries < 2; ++tries) {
      const std::int32_t n = llama_tokenize(vocabulary_, text.data(), static_cast<std::int32_t>(text.size()), tokens.data(),
                                            static_cast<std::int32_t>(tokens.size()), special_.add, special_.read);
      if (n == std::numeric_limits<std::int32_t>::min()) break;
      tokens.resize(static_cast<std::size_t>(n < 0 ? -n : n));
      if (n >= 0) return tokens;
    }
    fail(message("llama_cpp") << "a text of " << text.size() << " bytes cannot be tokenized.");
  }
  std::string decode(std::span<const std::int32_t> tokens) const {
    const std::int32_t most = llama_vocab_n_tokens(vocabulary_);
    for (const std::int32_t t : tokens)
      if (t < 0 || t >= most) fail(message("llama_cpp") << "token " << t << " is none of the vocabulary's " << most << ".");
    std::string text(8 * tokens.size() + 16, '\0');
    for (int tries = 0; tries < 2; ++tries) {
      const std::int32_t n = llama_detokenize(vocabulary_, tokens.data(), static_cast<std::int32_t>(tokens.size()), text.data(),
                                              static_cast<std::int32_t>(text.size()), false, special_.write);
      text.resize(static_cast<std::size_t>(n < 0 ? -n : n));
      if (n >= 0) return text;
    }
    fail(message("llama_cpp") << tokens.size() << " tokens cannot be made a text.");
  }

 private:
  const llama_vocab* vocabulary_;
  special_tokens special_;
};

/// A dialogue in the form that the model was trained on: its own template, or `form`, a template or the name of one that llama.cpp knows ("chatml").
/// `reply_follows`: the text ends where the assistant's turn begins. Encode it with `special_tokens{.add = true, .read = true}`.
inline std::string chat(const llama_model* model, std::span<const llama_chat_message> messages, bool reply_follows = true,
                        const char* form = nullptr) {
  if (form == nullptr) form = llama_model_chat_template(model, nullptr);
  if (form == nullptr) fail(message("llama_cpp") << "the model has no chat template of its own: name one, \"chatml\" for example.");
  std::string text(256, '\0');
  for (int tries = 0; tries < 2; ++tries) {
    const std::int32_t n =
        llama_chat_apply_template(form, messages.data(), messages.size(), reply_follows, text.data(), static_cast<std::int32_t>(text.size()));
    if (n < 0) break;
    const bool whole = static_cast<std::size_t>(n) <= text.size();
    text.resize(static_cast<std::size_t>(n));
    if (whole) return text;
  }
  fail(message("llama_cpp") << "llama.cpp cannot apply this chat template: name one that it knows, \"chatml\" for example.");
}

/// A context with `embeddings = true` and a pooling type (mean, cls, last) as plumb::embedder: of the searched model, or of another, whose tokens are
/// then found by way of the text. The context stays the host's; its sequence 0 is used.
class embedder {
 public:
  /// Of the same vocabulary as the texts.
  explicit embedder(llama_context* context) : context_(context) {
    if (context == nullptr) fail(said() << "there is no context to embed with.");
    if (const auto pooling = llama_pooling_type(context); pooling == LLAMA_POOLING_TYPE_NONE || pooling == LLAMA_POOLING_TYPE_RANK)
      fail(said() << "the embedder's context gives no vector for a text: set embeddings = true and pooling_type = LLAMA_POOLING_TYPE_MEAN in "
                  << "llama_context_params.");
    width_ = static_cast<std::size_t>(detail::embedding_width(llama_get_model(context)));
    most_ = std::min(llama_n_batch(context), llama_n_ubatch(context));
  }
  /// `texts` decodes them; they are read in the words of the embedder's own vocabulary.
  embedder(llama_context* context, const tokenizer& texts) : embedder(context) {
    words_.emplace(texts, tokenizer(llama_get_model(context), {.add = true}));
  }

  std::size_t dimension() const { return width_; }
  void operator()(std::span<const std::int32_t> tokens, std::span<float> out) {
    const std::vector<std::int32_t> own = words_ ? words_->second.encode(words_->first.decode(tokens)) : std::vector(tokens.begin(), tokens.end());
    if (own.empty()) fail(said() << "there is no text to embed.");
    if (own.size() > most_)
      fail(said() << "a text of " << own.size() << " tokens is to be embedded, but the context takes " << most_
                  << " at a time: set n_batch and n_ubatch higher.");
    if (out.size() != width_) fail(said() << "an embedding has " << width_ << " numbers, but there is room for " << out.size() << ".");
    if (const llama_memory_t memory = llama_get_memory(context_); memory != nullptr) llama_memory_seq_rm(memory, 0, -1, -1);
    batch_.clear();
    for (std::size_t i = 0; i < own.size(); ++i) batch_.add(own[i], i, 0, true);
    if (const std::int32_t code = llama_decode(context_, batch_.view()); code != 0)
      fail_backend(said() << "a text of " << own.size() << " tokens could not be embedded (code " << code << ").", code);
    const float* const found = llama_get_embeddings_seq(context_, 0);
    if (found == nullptr) fail(said() << "the context gives no embeddings: set embeddings = true in llama_context_params.");
    std::copy_n(found, width_, out.data());
  }

 private:
  static message said() { return message("llama_cpp"); }
  llama_context* context_;
  std::size_t width_ = 0, most_ = 0;
  std::optional<std::pair<tokenizer, tokenizer>> words_{};  ///< of the texts, and its own
  detail::batch batch_{};
};

static_assert(rewindable_model<language_model> && batched_model<language_model> && bounded_model<language_model>);
static_assert(plumb::tokenizer<tokenizer> && plumb::embedder<embedder>);

}  // namespace llama_cpp

PLUMB_NAMESPACE_END

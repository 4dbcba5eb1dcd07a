#pragma once
// Stands in for llama.cpp's header where that is not installed: of its interface what plumb/interop/llama_cpp.hpp uses and what opens and frees a
// context, over a small model whose logits are a hash of the text. Memory is cells as in a unified cache; `llama_context::faults` makes calls fail as
// the real ones do. What the real library leaves undefined is an exception here.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

using llama_pos = std::int32_t;
using llama_token = std::int32_t;
using llama_seq_id = std::int32_t;

enum llama_pooling_type {
  LLAMA_POOLING_TYPE_UNSPECIFIED = -1,
  LLAMA_POOLING_TYPE_NONE = 0,
  LLAMA_POOLING_TYPE_MEAN = 1,
  LLAMA_POOLING_TYPE_RANK = 4,
};

struct llama_batch {
  std::int32_t n_tokens;
  llama_token* token;
  float* embd;
  llama_pos* pos;
  std::int32_t* n_seq_id;
  llama_seq_id** seq_id;
  std::int8_t* logits;
};
struct llama_chat_message {
  const char *role, *content;
};
struct llama_model_params {
  int nothing = 0;
};
struct llama_context_params {
  std::uint32_t n_ctx = 512, n_batch = 2048, n_ubatch = 512, n_seq_max = 1;
  bool kv_unified = false, embeddings = false;
  llama_pooling_type pooling_type = LLAMA_POOLING_TYPE_UNSPECIFIED;
};

/// Token 0 ends a text, 1 begins it, the others are pieces of text.
struct llama_vocab {
  std::vector<std::string> pieces{"<end>", "<begin>", "a", "b", "c", "d", "e", "f", " ", "zz", "a piece of text that is longer than most pieces are"};
  bool overflows = false;  ///< llama_tokenize says that there would be too many tokens
};
struct llama_model {
  llama_vocab vocab{};
  std::int32_t window = 0;  ///< of sliding attention
  bool encoder = false;
  const char* chat_template = nullptr;
};
/// The cells of all sequences.
struct llama_memory_i {
  struct cell {
    llama_token token;
    llama_pos pos;
    std::set<llama_seq_id> ids;
  };
  std::vector<cell> cells{};
  std::size_t room = 0;
  bool whole_only = false;  ///< recurrent: a part of a sequence cannot be removed
  int copies = 0, removals = 0;
};
using llama_memory_t = llama_memory_i*;

/// What goes wrong, at which call of llama_decode (the next one is 0).
struct fake_faults {
  int at = -1;
  std::int32_t code = 0;
  std::int32_t kept = 0;  ///< tokens that a fatal or aborted call leaves in the memory
  bool throws = false, no_logits = false;
};
struct llama_context {
  llama_model* model;
  llama_context_params params;
  std::unique_ptr<llama_memory_i> memory;
  fake_faults faults{};
  int decodes = 0;  ///< calls
  std::vector<std::size_t> decoded{};  ///< tokens of each
  std::vector<std::vector<float>> outputs{};  ///< of the last call, by place in the batch
  std::vector<float> embedding{};
};

namespace fake_llama {

constexpr std::int32_t width = 5;

/// Logits of what follows a text, or of what a window of it shows.
inline std::vector<float> logits_of(const std::vector<llama_token>& text, std::size_t vocabulary, std::int32_t window = 0) {
  std::uint64_t h = 1469598103934665603u;
  const std::size_t n = text.size(), from = window > 0 && n > static_cast<std::size_t>(window) ? n - static_cast<std::size_t>(window) : 0;
  for (std::size_t i = from; i < n; ++i) h = (h ^ static_cast<std::uint64_t>(text[i] + 7)) * 1099511628211u;
  std::vector<float> logits;
  for (std::size_t v = 0; v < vocabulary; ++v) {
    const std::uint64_t x = (h ^ (v + 1) * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    logits.push_back(static_cast<float>(x >> 40) / static_cast<float>(1 << 22) - 2);
  }
  return logits;
}
inline std::vector<const llama_memory_i::cell*> cells_of(const llama_memory_i& m, llama_seq_id id) {
  std::vector<const llama_memory_i::cell*> found;
  for (const auto& c : m.cells)
    if (c.ids.contains(id)) found.push_back(&c);
  std::sort(found.begin(), found.end(), [](const auto* a, const auto* b) { return a->pos < b->pos; });
  return found;
}
inline void drop_empty(llama_memory_i& m) { std::erase_if(m.cells, [](const auto& c) { return c.ids.empty(); }); }

}  // namespace fake_llama

// Opening and closing.

inline void llama_backend_init() {}
inline void ggml_backend_load_all() {}
inline llama_model_params llama_model_default_params() { return {}; }
inline llama_context_params llama_context_default_params() { return {}; }
inline llama_model* llama_model_load_from_file(const char*, llama_model_params) { return new llama_model; }
inline void llama_model_free(llama_model* model) { delete model; }
inline llama_context* llama_init_from_model(llama_model* model, llama_context_params params) {
  params.n_batch = std::min(params.n_batch, params.n_ctx);
  params.n_ubatch = std::min(params.n_ubatch, params.n_batch);
  auto memory = std::make_unique<llama_memory_i>();
  memory->room = params.n_ctx;
  return new llama_context{.model = model, .params = params, .memory = std::move(memory)};
}
inline void llama_free(llama_context* context) { delete context; }

// What there is.

inline const llama_model* llama_get_model(const llama_context* c) { return c->model; }
inline llama_memory_t llama_get_memory(const llama_context* c) { return c->memory.get(); }
inline const llama_vocab* llama_model_get_vocab(const llama_model* m) { return &m->vocab; }
inline bool llama_model_has_encoder(const llama_model* m) { return m->encoder; }
inline std::int32_t llama_model_n_swa(const llama_model* m) { return m->window; }
inline std::int32_t llama_model_n_embd(const llama_model*) { return fake_llama::width; }
inline const char* llama_model_chat_template(const llama_model* m, const char*) { return m->chat_template; }
inline std::int32_t llama_vocab_n_tokens(const llama_vocab* v) { return static_cast<std::int32_t>(v->pieces.size()); }
inline bool llama_vocab_is_eog(const llama_vocab*, llama_token token) { return token == 0; }
inline std::uint32_t llama_n_ctx(const llama_context* c) { return c->params.n_ctx; }
inline std::uint32_t llama_n_ctx_seq(const llama_context* c) {
  return c->params.kv_unified ? c->params.n_ctx : c->params.n_ctx / c->params.n_seq_max;
}
inline std::uint32_t llama_n_batch(const llama_context* c) { return c->params.n_batch; }
inline std::uint32_t llama_n_ubatch(const llama_context* c) { return c->params.n_ubatch; }
inline std::uint32_t llama_n_seq_max(const llama_context* c) { return c->params.n_seq_max; }
inline enum llama_pooling_type llama_pooling_type(const llama_context* c) { return c->params.pooling_type; }

// Memory.

inline llama_pos llama_memory_seq_pos_max(llama_memory_t m, llama_seq_id id) {
  const auto cells = fake_llama::cells_of(*m, id);
  return cells.empty() ? -1 : cells.back()->pos;
}
inline llama_pos llama_memory_seq_pos_min(llama_memory_t m, llama_seq_id id) {
  const auto cells = fake_llama::cells_of(*m, id);
  return cells.empty() ? -1 : cells.front()->pos;
}
inline bool llama_memory_seq_rm(llama_memory_t m, llama_seq_id id, llama_pos from, llama_pos to) {
  ++m->removals;
  const auto inside = [&](llama_pos p) { return (from < 0 || p >= from) && (to < 0 || p < to); };
  const auto cells = fake_llama::cells_of(*m, id);
  const auto hit = std::count_if(cells.begin(), cells.end(), [&](const auto* c) { return inside(c->pos); });
  if (m->whole_only && hit > 0 && hit < static_cast<std::ptrdiff_t>(cells.size())) return false;
  for (auto& c : m->cells)
    if (inside(c.pos)) c.ids.erase(id);
  fake_llama::drop_empty(*m);
  return true;
}
inline void llama_memory_seq_cp(llama_memory_t m, llama_seq_id from, llama_seq_id to, llama_pos first, llama_pos last) {
  if (first >= 0 || last >= 0) throw std::logic_error("fake llama: a part is copied, which ends the process where the cache is not unified");
  if (!fake_llama::cells_of(*m, to).empty()) throw std::logic_error("fake llama: a sequence is copied onto another");
  ++m->copies;
  for (auto& c : m->cells)
    if (c.ids.contains(from)) c.ids.insert(to);
}

// A call.

namespace fake_llama {
inline std::int32_t invalid(const llama_context& c, const llama_batch& b) {
  if (b.n_tokens < 1 || b.token == nullptr || b.embd != nullptr) return -1;
  if (static_cast<std::uint32_t>(b.n_tokens) > c.params.n_batch)
    throw std::logic_error("fake llama: more than n_batch tokens, which ends the process");
  std::vector<llama_pos> next;
  for (std::uint32_t s = 0; s < c.params.n_seq_max; ++s)
    next.push_back(c.memory == nullptr ? 0 : llama_memory_seq_pos_max(c.memory.get(), static_cast<llama_seq_id>(s)) + 1);
  for (std::int32_t i = 0; i < b.n_tokens; ++i) {
    if (b.token[i] < 0 || b.token[i] >= llama_vocab_n_tokens(&c.model->vocab) || b.n_seq_id[i] != 1) return -1;
    const llama_seq_id id = b.seq_id[i][0];
    if (id < 0 || id >= static_cast<llama_seq_id>(next.size()) || b.pos[i] != next[static_cast<std::size_t>(id)]++) return -1;
  }
  return 0;
}
}  // namespace fake_llama

inline std::int32_t llama_decode(llama_context* c, llama_batch b) {
  for (auto& row : c->outputs) std::fill(row.begin(), row.end(), std::numeric_limits<float>::quiet_NaN());
  c->outputs.clear();  // pointers die here
  if (const std::int32_t code = fake_llama::invalid(*c, b); code != 0) return code;
  const bool fails = c->faults.at >= 0 && c->faults.at-- == 0;
  ++c->decodes;
  c->decoded.push_back(static_cast<std::size_t>(b.n_tokens));
  const std::int32_t code = fails ? c->faults.code : 0;
  if (code == 1 || code == -1) return code;
  if (c->memory != nullptr && c->memory->cells.size() + static_cast<std::size_t>(b.n_tokens) > c->memory->room) return 1;
  const std::int32_t read = fails ? std::min(c->faults.kept, b.n_tokens) : b.n_tokens;
  c->outputs.resize(static_cast<std::size_t>(b.n_tokens));
  c->embedding.assign(fake_llama::width, 0);
  for (std::int32_t i = 0; i < read; ++i) {
    const llama_seq_id id = b.seq_id[i][0];
    c->embedding[static_cast<std::size_t>(b.token[i] % fake_llama::width)] += 1;
    if (c->memory == nullptr) continue;
    llama_memory_i& m = *c->memory;
    m.cells.push_back({b.token[i], b.pos[i], {id}});
    std::vector<llama_token> text;
    for (const auto* cell : fake_llama::cells_of(m, id)) {
      if (c->model->window == 0 && cell->pos != static_cast<llama_pos>(text.size())) throw std::logic_error("fake llama: a text with a hole");
      text.push_back(cell->token);
    }
    const auto window = static_cast<llama_pos>(c->model->window);
    if (window > 0 && b.pos[i] + 1 >= window && static_cast<llama_pos>(text.size()) < window)
      throw std::logic_error("fake llama: a window with a hole");
    if (b.logits[i] != 0 && !c->faults.no_logits)
      c->outputs[static_cast<std::size_t>(i)] = fake_llama::logits_of(text, c->model->vocab.pieces.size(), window);
    for (auto& cell : m.cells)  // what no later token of this sequence sees
      if (window > 0 && cell.pos + window <= b.pos[i] + 1) cell.ids.erase(id);
    fake_llama::drop_empty(m);
  }
  if (fails && c->faults.throws) throw std::runtime_error("fake llama: thrown");
  return code;
}
inline float* llama_get_logits_ith(llama_context* c, std::int32_t i) {
  auto& row = c->outputs.at(static_cast<std::size_t>(i));
  return row.empty() ? nullptr : row.data();
}
inline float* llama_get_embeddings_seq(llama_context* c, llama_seq_id) { return c->params.embeddings ? c->embedding.data() : nullptr; }

// Text.

inline std::int32_t llama_tokenize(const llama_vocab* v, const char* text, std::int32_t size, llama_token* tokens, std::int32_t most, bool add,
                                   bool read) {
  if (v->overflows) return std::numeric_limits<std::int32_t>::min();
  std::vector<llama_token> found;
  if (add) found.insert(found.end(), {1, 1, 1, 1});  // more than one would think
  std::string rest(text, static_cast<std::size_t>(size));
  while (!rest.empty()) {
    llama_token best = -1;
    for (std::size_t t = read ? 0 : 2; t < v->pieces.size(); ++t)
      if (rest.starts_with(v->pieces[t]) && (best < 0 || v->pieces[t].size() > v->pieces[static_cast<std::size_t>(best)].size()))
        best = static_cast<llama_token>(t);
    rest.erase(0, best < 0 ? 1 : v->pieces[static_cast<std::size_t>(best)].size());
    if (best >= 0) found.push_back(best);
  }
  const auto n = static_cast<std::int32_t>(found.size());
  if (n > most) return -n;
  std::copy(found.begin(), found.end(), tokens);
  return n;
}
inline std::int32_t llama_detokenize(const llama_vocab* v, const llama_token* tokens, std::int32_t count, char* text, std::int32_t most, bool,
                                     bool special) {
  std::string all;
  for (std::int32_t i = 0; i < count; ++i)
    if (tokens[i] > 1 || special) all += v->pieces.at(static_cast<std::size_t>(tokens[i]));
  const auto n = static_cast<std::int32_t>(all.size());
  if (n > most) return -n;
  std::memcpy(text, all.data(), all.size());
  return n;
}
inline std::int32_t llama_chat_apply_template(const char* form, const llama_chat_message* messages, std::size_t count, bool reply, char* text,
                                              std::int32_t most) {
  if (std::strcmp(form, "chatml") != 0) return -1;
  std::string all;
  for (std::size_t i = 0; i < count; ++i) all += std::string(messages[i].role) + ": " + messages[i].content + "\n";
  if (reply) all += "assistant: ";
  std::memcpy(text, all.data(), std::min(all.size(), static_cast<std::size_t>(most)));
  return static_cast<std::int32_t>(all.size());
}

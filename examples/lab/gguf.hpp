#pragma once
// The lab's transformer as a GGUF file for llama.cpp, by ggml's own writer: LLaMA's architecture, float weights, a vocabulary of whole words.

#include "files.hpp"

#include <ggml.h>
#include <gguf.h>

#include <memory>

namespace lab {

/// What llama.cpp has to know of a vocabulary.
struct gguf_vocabulary {
  std::vector<std::string> words{};
  std::int32_t begin = 0, end = 2;         ///< of a text
  std::vector<std::int32_t> control{};     ///< marks that are no words, `begin` and `end` among them
};

/// Writes `model`, but a score head. A text is its words with spaces between; what is no word is read as `begin`.
template <class B>
void save_gguf(const std::filesystem::path& path, const transformer<B>& model, const gguf_vocabulary& vocabulary) {
  const transformer_config& c = model.config();
  if (static_cast<index_t>(vocabulary.words.size()) != c.vocabulary)
    throw std::invalid_argument("save_gguf: " + std::to_string(vocabulary.words.size()) + " words for a model of " + std::to_string(c.vocabulary) +
                                " tokens");
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> file(gguf_init_empty(), gguf_free);
  gguf_context* const g = file.get();
  const auto number = [&](const char* name, index_t value) { gguf_set_val_u32(g, name, static_cast<std::uint32_t>(value)); };
  gguf_set_val_str(g, "general.architecture", "llama");
  gguf_set_val_str(g, "general.name", "plumb lab");
  number("llama.vocab_size", c.vocabulary);
  number("llama.context_length", c.positions);
  number("llama.embedding_length", c.width);
  number("llama.block_count", c.layers);
  number("llama.feed_forward_length", c.feed_forward);
  number("llama.attention.head_count", c.heads);
  number("llama.attention.head_count_kv", c.heads);
  number("llama.rope.dimension_count", c.head_width());
  gguf_set_val_f32(g, "llama.rope.freq_base", static_cast<float>(c.rope_base));
  gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_epsilon));

  // Of llama.cpp's tokenizers the unigram one takes whole words as they are, without merges or pieces of them: each with the space before it, which
  // is written as U+2581.
  constexpr std::int32_t ordinary = 1, control = 3;
  std::vector<std::string> texts;
  std::vector<std::int32_t> kinds(vocabulary.words.size(), ordinary);
  for (const std::int32_t t : vocabulary.control) kinds.at(static_cast<std::size_t>(t)) = control;
  for (std::size_t i = 0; i < kinds.size(); ++i) texts.push_back(kinds[i] == control ? vocabulary.words[i] : "\xe2\x96\x81" + vocabulary.words[i]);
  std::vector<const char*> names;
  for (const auto& text : texts) names.push_back(text.c_str());
  const std::vector<float> scores(names.size(), 0);
  gguf_set_val_str(g, "tokenizer.ggml.model", "t5");
  gguf_set_arr_str(g, "tokenizer.ggml.tokens", names.data(), names.size());
  gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
  gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, kinds.data(), kinds.size());
  number("tokenizer.ggml.bos_token_id", vocabulary.begin);
  number("tokenizer.ggml.eos_token_id", vocabulary.end);
  number("tokenizer.ggml.unknown_token_id", vocabulary.begin);
  number("tokenizer.ggml.padding_token_id", vocabulary.end);
  gguf_set_val_bool(g, "tokenizer.ggml.add_bos_token", false);
  gguf_set_val_bool(g, "tokenizer.ggml.add_eos_token", false);
  gguf_set_val_bool(g, "tokenizer.ggml.add_space_prefix", true);
  gguf_set_val_bool(g, "tokenizer.ggml.remove_extra_whitespaces", true);

  const auto& list = model.layout().list();
  const std::size_t bytes = static_cast<std::size_t>(model.layout().size()) * sizeof(float) + (list.size() + 1) * (ggml_tensor_overhead() + 64);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> memory(ggml_init({.mem_size = bytes, .mem_buffer = nullptr, .no_alloc = false}),
                                                                   ggml_free);
  const auto tensor = [&](const std::string& name, const parameter& p, bool turned = false) {
    const bool vector = p.name.find("norm") != std::string::npos;
    ggml_tensor* const t = vector ? ggml_new_tensor_1d(memory.get(), GGML_TYPE_F32, p.columns)
                                  : ggml_new_tensor_2d(memory.get(), GGML_TYPE_F32, p.columns, p.rows);
    ggml_set_name(t, name.c_str());
    auto* const to = static_cast<float*>(t->data);
    // Rotary positions turn rows i and i + half of a head here, but 2i and 2i + 1 in llama.cpp.
    const index_t head = c.head_width(), half = head / 2;
    for (index_t row = 0; row < p.rows; ++row) {
      const index_t in_head = row % head, from = turned ? row - in_head + in_head / 2 + in_head % 2 * half : row;
      for (index_t column = 0; column < p.columns; ++column)
        to[row * p.columns + column] = static_cast<float>(model.weights()[static_cast<std::size_t>(p.offset + from * p.columns + column)]);
    }
    gguf_add_tensor(g, t);
  };
  using layout = parameter_layout;
  tensor("token_embd.weight", list[layout::embedding]);
  for (index_t l = 0; l < c.layers; ++l) {
    const std::string block = "blk." + std::to_string(l) + ".";
    for (const auto& [which, name] : {std::pair{layout::norm1, "attn_norm"}, {layout::q, "attn_q"}, {layout::k, "attn_k"}, {layout::v, "attn_v"},
                                      {layout::o, "attn_output"}, {layout::norm2, "ffn_norm"}, {layout::gate, "ffn_gate"}, {layout::up, "ffn_up"},
                                      {layout::down, "ffn_down"}})
      tensor(block + name + ".weight", list[model.layout().layer(l, which)], which == layout::q || which == layout::k);
  }
  tensor("output_norm.weight", list[model.layout().final_norm(c.layers)]);
  tensor("output.weight", list[model.layout().final_norm(c.layers) + 1]);

  make_folder(path.parent_path().empty() ? "." : path.parent_path());
  auto part = path;
  part += ".part";
  if (!gguf_write_to_file(g, part.c_str(), false)) throw std::runtime_error("cannot write " + part.string());
  std::filesystem::rename(part, path);
}

/// The vocabulary of the alignment lab's world (world.hpp).
template <class V>
gguf_vocabulary gguf_words(const V& words) {
  gguf_vocabulary v;
  for (std::size_t i = 0; i < words.size(); ++i) v.words.push_back(words.word(static_cast<std::int32_t>(i)));
  v.begin = V::bos;
  v.end = V::end_of_reply;
  v.control = {V::bos, V::end_of_prompt, V::end_of_reply};
  return v;
}

}  // namespace lab

// The lab's transformer in llama.cpp: the same logits, the laws of the adapter on the real engine, and searches that write the same tokens in both.
// usage: llama_cpp FOLDER [CHECKPOINT.safetensors]      FOLDER is for the GGUF file; without a checkpoint a small model is trained first

#include "lab/gguf.hpp"
#include "lab/language_model.hpp"
#include "lab/world.hpp"

#include <plumb/backends/serial.hpp>
#include <plumb/interop/llama_cpp.hpp>
#include <plumb/search/decoding.hpp>
#include <plumb/search/embedders.hpp>
#include <plumb/search/rain.hpp>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>

namespace {

using plumb::index_t;
using lab::tokens;
using token_span = std::span<const std::int32_t>;
using backend = plumb::serial::backend<float>;

int passed = 0, failed = 0;
void check(bool good, const char* what) {
  ++(good ? passed : failed);
  std::printf("%s: %s\n", good ? "passed" : "FAILED", what);
}
template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

struct freed {
  void operator()(llama_model* m) const { llama_model_free(m); }
  void operator()(llama_context* c) const { llama_free(c); }
};
using model_pointer = std::unique_ptr<llama_model, freed>;
using context_pointer = std::unique_ptr<llama_context, freed>;

struct context_wishes {
  std::uint32_t cells = 8192, batch = 2048, ubatch = 512, sequences = 64;
  bool unified = true, embeddings = false;
  ggml_abort_callback abort = nullptr;
  void* abort_data = nullptr;
};
context_pointer open_context(llama_model* model, const context_wishes& w = {}) {
  llama_context_params p = llama_context_default_params();
  p.n_ctx = w.cells;
  p.n_batch = w.batch;
  p.n_ubatch = w.ubatch;
  p.n_seq_max = w.sequences;
  p.kv_unified = w.unified;
  p.n_threads = p.n_threads_batch = 1;
  p.type_k = p.type_v = GGML_TYPE_F32;
  p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  p.embeddings = w.embeddings;
  if (w.embeddings) p.pooling_type = LLAMA_POOLING_TYPE_MEAN;
  p.abort_callback = w.abort;
  p.abort_callback_data = w.abort_data;
  return context_pointer(llama_init_from_model(model, p));
}

void train(backend& b, lab::workspace& memory, lab::transformer<backend>& model, int steps) {
  lab::trainer<backend> learner(b, memory, model);
  lab::world_random random(1);
  double loss = 0;
  for (int step = 0; step < steps; ++step) {
    std::vector<lab::sample> texts;
    for (int i = 0; i < 16; ++i) {
      const lab::prompt p = lab::draw_prompt(random, false);
      texts.push_back(lab::joined(p.text, lab::write_reply(p, lab::base_writer, random)));
      texts.back().prompt_length = 1;
    }
    const lab::batch x(texts);
    loss = learner.supervised(x, lab::schedule(3e-3, step, steps)).loss;
  }
  std::printf("trained %d steps, loss %.3f\n", steps, loss);
}

/// Logits at every place of a text, `[text, V]`.
template <class B>
std::vector<plumb::real_of<B>> all_logits(B& b, lab::workspace& memory, const lab::transformer<B>& model, token_span text) {
  using real = plumb::real_of<B>;
  plumb::arena<>::frame frame(memory());
  const auto a = model.forward(b, memory(), {text.data(), static_cast<index_t>(text.size())}, 1, static_cast<index_t>(text.size()));
  const auto rows = memory().template take<real>(static_cast<index_t>(text.size()), model.config().vocabulary);
  lab::transformer<B>::linear(b, memory(), a.hidden, model.head(), rows);
  b.sync();
  return {rows.data(), rows.data() + rows.size()};
}
template <class X, class Y>
double difference(const X& x, const Y& y) {
  double most = 0;
  for (std::size_t i = 0; i < x.size(); ++i) most = std::max(most, std::abs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
  return most;
}
template <class M>
std::vector<float> read(M& m, token_span text) {
  auto s = m.open();
  m.append(s, text);
  const auto l = m.logits(s);
  return {l.begin(), l.end()};
}

/// Every place of every text, read in one piece, token by token, and many texts side by side in pieces.
void compare_logits(llama_model* engine, const std::vector<tokens>& texts, lab::workspace& memory, const lab::transformer<backend>& model) {
  backend b;
  plumb::serial::backend<double> exact;
  lab::transformer<plumb::serial::backend<double>> precise(model.config(), 1);
  std::copy(model.weights().begin(), model.weights().end(), precise.weights().begin());
  const auto context = open_context(engine, {.batch = 256, .ubatch = 128});
  plumb::llama_cpp::language_model m(context.get());
  const auto v = static_cast<std::size_t>(m.vocab_size());
  double largest = 0, by_token = 0, in_float = 0, true_error = 0, whole = 0, side_by_side = 0;
  std::size_t places = 0, same_best = 0;
  std::vector<std::vector<float>> lasts;
  for (const tokens& text : texts) {
    const auto ours = all_logits(b, memory, model, text);
    const auto truth = all_logits(exact, memory, precise, text);
    in_float = std::max(in_float, difference(ours, truth));
    for (const auto x : truth) largest = std::max(largest, std::abs(x));
    auto s = m.open();
    for (std::size_t t = 0; t < text.size(); ++t) {
      m.append(s, token_span(text).subspan(t, 1));
      const auto theirs = m.logits(s);
      const std::span<const float> mine(ours.data() + t * v, v);
      by_token = std::max(by_token, difference(theirs, mine));
      true_error = std::max(true_error, difference(theirs, std::span<const double>(truth.data() + t * v, v)));
      same_best += std::ranges::max_element(theirs) - theirs.begin() == std::ranges::max_element(mine) - mine.begin();
      ++places;
    }
    lasts.emplace_back(ours.end() - static_cast<std::ptrdiff_t>(v), ours.end());
    whole = std::max(whole, difference(read(m, text), lasts.back()));
  }
  for (std::size_t from = 0; from < texts.size(); from += 32) {
    const std::size_t count = std::min<std::size_t>(32, texts.size() - from);
    std::vector<plumb::llama_cpp::language_model::sequence> open;
    std::vector<plumb::sequence_step<plumb::llama_cpp::language_model>> steps;
    for (std::size_t i = 0; i < count; ++i) open.push_back(m.open());
    for (std::size_t i = 0; i < count; ++i) steps.push_back({&open[i], texts[from + i]});
    m.append_many(steps);
    for (std::size_t i = 0; i < count; ++i) side_by_side = std::max(side_by_side, difference(m.logits(open[i]), lasts[from + i]));
  }
  std::printf("logits of %zu texts, %zu places x %zu tokens; the largest is %.3g\n", texts.size(), places, v, largest);
  std::printf("  largest difference between the engines: %.3g token by token, %.3g in one piece, %.3g 32 texts side by side\n", by_token, whole,
              side_by_side);
  std::printf("  from the same model in double: llama.cpp %.3g, the lab in float %.3g\n", true_error, in_float);
  std::printf("  the same likeliest token at %zu of %zu places\n", same_best, places);
  check(std::max({by_token, whole, side_by_side}) <= 1e-3, "logits of both engines differ by 1e-3 at most");
  check(std::max({by_token, whole, side_by_side}) <= 1e-5 * largest, "and by 1e-5 of the largest, which is rounding");
}

void laws(llama_model* engine, const std::vector<tokens>& texts) {
  constexpr double rounding = 1e-4;
  const auto context = open_context(engine, {.cells = 512, .sequences = 40});
  plumb::llama_cpp::language_model m(context.get());
  const token_span text = texts[0], other = texts[1];
  const std::vector<float> of_text = read(m, text), of_other = read(m, other);
  check(difference(of_text, read(m, text)) <= rounding, "read again, a text has the same logits");
  {
    auto s = m.open();
    m.append(s, text.first(text.size() - 3));
    auto copy = m.fork(s);
    const std::int32_t elsewhere[] = {5, 9, 7, 8};
    m.append(copy, elsewhere);
    m.append(s, text.last(3));
    check(difference(m.logits(s), of_text) <= rounding, "a fork that goes another way does not change what it came from");
    tokens way(text.begin(), text.end() - 3);
    way.insert(way.end(), std::begin(elsewhere), std::end(elsewhere));
    m.append(copy, text.last(1));
    way.push_back(text.back());
    const std::vector<float> of_copy(m.logits(copy).begin(), m.logits(copy).end());
    check(difference(of_copy, read(m, way)) <= rounding, "and reads on by itself");
    check(m.rewind(s, 4) && m.size(s) == 4, "a transformer rewinds");
    m.append(s, text.subspan(4));
    check(difference(m.logits(s), of_text) <= rounding, "and reads the same text again");
    check(m.rewind(s, 0), "to nothing, too");
    m.append(s, other);
    check(difference(m.logits(s), of_other) <= rounding, "and then another");
    check(m.size(copy) == way.size(), "the fork is what it was");
    check(m.rewind(copy, text.size() - 3), "it rewinds to where it began");
    m.append(copy, text.last(3));
    check(difference(m.logits(copy), of_text) <= rounding, "and goes the first one's way");
  }
  {
    auto s = m.open();
    m.append(s, text);
    std::vector<plumb::llama_cpp::language_model::sequence> many;
    for (int i = 0; i < 39; ++i) many.push_back(m.fork(s));
    check(39 * text.size() > 512, "39 forks would not fit into the memory if cells were copied");
    check(has(refusal([&] { m.open(); }), "all 40 sequences are in use: let some go, or set n_seq_max higher"), "no id left: a sentence");
    std::vector<plumb::sequence_step<plumb::llama_cpp::language_model>> steps;
    std::vector<std::int32_t> next(many.size());
    for (std::size_t i = 0; i < many.size(); ++i) next[i] = static_cast<std::int32_t>(i + 3);
    for (std::size_t i = 0; i < many.size(); ++i) steps.push_back({&many[i], {&next[i], 1}});
    m.append_many(steps);
    double most = 0;
    std::vector<std::vector<float>> got;
    for (auto& one : many) got.emplace_back(m.logits(one).begin(), m.logits(one).end());
    many.erase(many.begin() + 20, many.end());
    for (std::size_t i = 0; i < 20; ++i) {
      tokens whole(text.begin(), text.end());
      whole.push_back(next[i]);
      most = std::max(most, difference(got[i], read(m, whole)));
    }
    check(most <= rounding, "39 forks of one text read a token each in one call");
  }
  {
    std::vector<plumb::llama_cpp::language_model::sequence> held;
    bool full = false;
    while (!full) {
      held.push_back(m.open());
      try {
        m.append(held.back(), text);
      } catch (const plumb::sequence_memory_full& e) {
        full = true;
        check(has(e.what(), "no room in the memory of") && has(e.what(), "Nothing was changed"), "a memory that is full says so");
        const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(context.get()), held.back().id());
        check(m.size(held.back()) == 0 && last == -1, "and nothing was changed");
      }
    }
    std::printf("  %zu texts of %zu tokens in %u cells\n", held.size() - 1, text.size(), llama_n_ctx(context.get()));
    held.erase(held.begin());
    m.append(held.back(), text);
    check(difference(m.logits(held.back()), of_text) <= rounding, "where one is let go there is room again");
  }
  check(m.is_end(lab::vocabulary::end_of_reply) && !m.is_end(3), "the end token ends a text");
  check(m.context() == 512 && m.max_sequences() == 40, "the context says what it has");
  const plumb::llama_cpp::tokenizer reader(engine, {.read = true}), writer(engine);
  std::size_t same = 0;
  for (const tokens& t : texts) same += reader.encode(lab::words().decode(t)) == t;
  check(same == texts.size(), "the tokenizer reads the lab's texts as the lab does");
  check(writer.decode(lab::words().encode("the lamp is green . glad to help . <end>")) == "the lamp is green . glad to help .", "and writes them");
  const llama_chat_message dialogue[] = {{"user", "the lamp is green ."}};
  check(plumb::llama_cpp::chat(engine, dialogue, true, "chatml") == "<|im_start|>user\nthe lamp is green .<|im_end|>\n<|im_start|>assistant\n",
        "a dialogue is put into a form");
  check(has(refusal([&] { plumb::llama_cpp::chat(engine, dialogue); }), "no chat template of its own"), "a model without a form says so");

  const auto small = open_context(engine, {.batch = 16, .ubatch = 8, .sequences = 4});
  plumb::llama_cpp::language_model pieces(small.get());
  check(difference(read(pieces, text), of_text) <= rounding, "a text longer than n_batch is read in pieces");
  auto a = pieces.open(), b = pieces.open();
  const plumb::sequence_step<plumb::llama_cpp::language_model> both[] = {{&a, text}, {&b, other}};
  pieces.append_many(both);
  check(std::max(difference(pieces.logits(a), of_text), difference(pieces.logits(b), of_other)) <= rounding,
        "so are two, and the logits of both are kept");

  struct fuse {
    int left = 0;
    static bool blows(void* p) { return --static_cast<fuse*>(p)->left == 0; }
  } fuse;
  const auto aborted = open_context(engine, {.batch = 64, .ubatch = 8, .sequences = 4, .abort = fuse::blows, .abort_data = &fuse});
  plumb::llama_cpp::language_model careful(aborted.get());
  auto s = careful.open();
  careful.append(s, text.first(4));
  int caught = 0, code = 0, unharmed = 0;
  for (int left = 1; left < 400; left += 13) {
    fuse.left = left;
    try {
      careful.append(s, text.subspan(4));
    } catch (const plumb::backend_error& e) {
      ++caught;
      code = e.code();
      unharmed += careful.size(s) == 4 && llama_memory_seq_pos_max(llama_get_memory(aborted.get()), s.id()) == 3;
      fuse.left = 0;
      careful.append(s, text.subspan(4));
      unharmed += difference(careful.logits(s), of_text) <= rounding;
    }
    fuse.left = 0;
    if (!careful.rewind(s, 4)) break;
  }
  std::printf("  aborted %d times\n", caught);
  check(caught > 0 && code == 2 && unharmed == 2 * caught, "an aborted call is taken back, and can be made again");

  const auto apart = open_context(engine, {.sequences = 4, .unified = false});
  const auto refused = [&](const plumb::llama_cpp::sequence_ids& ids) {
    return refusal([&] { plumb::llama_cpp::language_model wrong(apart.get(), ids); });
  };
  check(has(refused({}), "set kv_unified = true"), "a context that is not unified is refused");
  check(has(refused({.first = 2, .count = 3}), "set n_seq_max"), "likewise too few sequences");
  const auto used = open_context(engine, {.sequences = 4});
  plumb::llama_cpp::language_model one(used.get(), {.first = 1, .count = 2});
  auto held = one.open();
  one.append(held, text);
  check(has(refusal([&] { plumb::llama_cpp::language_model wrong(used.get()); }), "tokens already"), "and sequences that are in use");
  check(difference(one.logits(held), of_text) <= rounding, "a model may have some of a context's sequences");

  const auto vectors = open_context(engine, {.embeddings = true});
  plumb::llama_cpp::embedder embed(vectors.get());
  std::vector<float> x(embed.dimension()), y(x), z(x);
  embed(text, x), embed(other, y), embed(text, z);
  check(x.size() == 96 && difference(x, z) == 0 && difference(x, y) > 0.01, "a second context embeds");
  plumb::llama_cpp::embedder by_way_of_text(vectors.get(), plumb::llama_cpp::tokenizer(engine));
  const token_span inner = other.subspan(1, 8);
  embed(inner, y), by_way_of_text(inner, z);
  check(difference(y, z) == 0, "and finds the words of another vocabulary");
  check(has(refusal([&] { plumb::llama_cpp::embedder wrong(context.get()); }), "set embeddings = true"), "a context without vectors is refused");
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void searches(llama_model* engine, lab::workspace& memory, const lab::transformer<backend>& model, const std::vector<lab::prompt>& prompts) {
  backend b;
  lab::transformer_language_model<backend> ours(b, memory, model, lab::vocabulary::end_of_reply);
  const auto context = open_context(engine);
  plumb::llama_cpp::language_model theirs(context.get());
  const auto& table = model.layout().list()[lab::parameter_layout::embedding];
  plumb::token_table_embedder embed(plumb::view<const float, 2>(model.weights().data() + table.offset, table.rows, table.columns));
  std::size_t greedy = 0, drawn = 0, searched = 0, counted = 0;
  double gold_greedy = 0, gold_rain = 0, lab_seconds = 0, llama_seconds = 0;
  plumb::search_counters last{};
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const lab::prompt& p = prompts[i];
    plumb::decoding_options o{.temperature = 0, .max_new_tokens = 20, .seed = i};
    const auto likeliest = plumb::decode(ours, token_span(p.text), o).response;
    greedy += likeliest == plumb::decode(theirs, token_span(p.text), o).response;
    gold_greedy += lab::judge(p, likeliest).total;
    o.temperature = 1;
    const auto some = plumb::decode_many(ours, token_span(p.text), 8, o), same = plumb::decode_many(theirs, token_span(p.text), 8, o);
    for (std::size_t r = 0; r < 8; ++r) drawn += some.replies[r].response == same.replies[r].response;

    auto judge = [&p](const plumb::candidate& c) { return lab::judge(p, {c.response.begin(), c.response.end()}).total / 2 - 1; };
    plumb::rain_options how;
    how.boundary = plumb::after_token{{lab::words().id(".")}};
    how.max_rollout_tokens = 12;
    how.max_new_tokens = 20;
    how.width = i % 2 == 0 ? 1 : 8;
    how.seed = i;
    double start = cpu_seconds();
    const auto mine = plumb::rain(ours, judge, token_span(p.text), how, embed);
    lab_seconds += cpu_seconds() - start;
    start = cpu_seconds();
    const auto other = plumb::rain(theirs, judge, token_span(p.text), how, embed);
    llama_seconds += cpu_seconds() - start;
    searched += mine.response == other.response && mine.reason == other.reason;
    counted += mine.counters.tokens == other.counters.tokens && mine.counters.simulations == other.counters.simulations &&
               mine.counters.judgements == other.counters.judgements;
    gold_rain += lab::judge(p, mine.response).total;
    last = other.counters;
  }
  const std::size_t n = prompts.size();
  std::printf("%zu prompts: greedy replies the same %zu, draws %zu of %zu, RAIN's %zu, with the same tokens and simulations on the way %zu\n", n,
              greedy, drawn, 8 * n, searched, counted);
  std::printf("  gold score: greedy %.2f, RAIN %.2f; seconds of RAIN in all: the lab %.1f, llama.cpp %.1f\n", gold_greedy / static_cast<double>(n),
              gold_rain / static_cast<double>(n), lab_seconds, llama_seconds);
  std::printf("  the last search in llama.cpp: %lld tokens in %lld calls, %lld forks, %lld rewinds, %lld evictions\n",
              static_cast<long long>(last.tokens), static_cast<long long>(last.calls), static_cast<long long>(last.forks),
              static_cast<long long>(last.rewinds), static_cast<long long>(last.evictions));
  check(greedy == n, "greedy replies are the same in both engines");
  // Each processor rounds in its own way, and a random number may fall between the two roundings.
  check(drawn + 1 >= 8 * n, "so are draws with the same random numbers, but one perhaps");
  check(searched + 1 >= n, "RAIN commits the same tokens in both engines, for all prompts but one perhaps");

  // A memory that is too small for what the search would like to keep.
  const auto tight = open_context(engine, {.cells = 256, .batch = 64, .sequences = 6});
  plumb::llama_cpp::language_model narrow(tight.get());
  std::size_t same = 0;
  plumb::search_counters used{};
  for (std::size_t i = 0; i < 4; ++i) {
    const lab::prompt& p = prompts[i];
    auto judge = [&p](const plumb::candidate& c) { return lab::judge(p, {c.response.begin(), c.response.end()}).total / 2 - 1; };
    plumb::rain_options how;
    how.boundary = plumb::after_token{{lab::words().id(".")}};
    how.max_new_tokens = 12;
    how.width = 8;
    how.seed = i;
    const auto wide = plumb::rain(theirs, judge, token_span(p.text), how), small = plumb::rain(narrow, judge, token_span(p.text), how);
    same += wide.response == small.response;
    used = small.counters;
  }
  std::printf("  in 256 cells: %lld tokens, %lld evictions\n", static_cast<long long>(used.tokens), static_cast<long long>(used.evictions));
  check(same == 4, "nor does a memory of 256 cells and 6 sequences change what is committed");
}

void only_errors(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR && std::getenv("LLAMA_LOG") != nullptr) std::fputs(text, stderr);
}

int run(int argc, char** argv) {
  if (argc < 2) {
    std::printf("usage: llama_cpp FOLDER [CHECKPOINT.safetensors]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  llama_log_set(only_errors, nullptr);
  lab::workspace memory(std::size_t{512} << 20);
  backend b;
  lab::transformer<backend> model({.vocabulary = static_cast<index_t>(lab::words().size())}, 1);
  if (argc > 2) lab::load_checkpoint(argv[2], model);
  else train(b, memory, model, 200);
  const auto file = std::filesystem::path(argv[1]) / "lab.gguf";
  lab::save_gguf(file, model, lab::gguf_words(lab::words()));

  llama_backend_init();
  ggml_backend_load_all();
  const model_pointer engine(llama_model_load_from_file(file.c_str(), llama_model_default_params()));
  check(engine != nullptr, "llama.cpp loads the file");
  if (engine == nullptr) return 1;
  lab::world_random random(2);
  std::vector<lab::prompt> prompts;
  std::vector<tokens> texts;
  for (int i = 0; i < 120; ++i) {
    const lab::prompt p = lab::draw_prompt(random, true);
    texts.push_back(lab::joined(p.text, lab::write_reply(p, lab::base_writer, random)).text);
    if (texts.back().size() > 80) texts.back().resize(80);
    if (i < 24) prompts.push_back(p);
  }
  compare_logits(engine.get(), texts, memory, model);
  laws(engine.get(), texts);
  searches(engine.get(), memory, model, prompts);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 1;
  }
}

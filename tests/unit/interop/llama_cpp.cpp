// The adapter over tests/support/fake_llama: every code that llama.cpp gives, and what the sequences are afterwards. The real library is tried by
// tests/llama_cpp/run.sh.

#include <plumb/interop/llama_cpp.hpp>
#include <plumb/search/decoding.hpp>

#include "support/catch.hpp"

#include <functional>
#include <optional>

using plumb::llama_cpp::language_model;
using plumb::llama_cpp::sequence_ids;
using plumb::llama_cpp::tokenizer;
using step = plumb::sequence_step<language_model>;
using words = std::vector<std::int32_t>;

static_assert(plumb::check_language_model<language_model>());
static_assert(!std::is_copy_constructible_v<language_model::sequence> && std::is_nothrow_move_constructible_v<language_model::sequence>);

namespace {

struct wishes {
  std::uint32_t cells = 64, batch = 64, sequences = 8;
  bool unified = true;
  std::int32_t window = 0;
};
/// A model, its context, and what plumb makes of it.
struct engine {
  llama_model weights{};
  std::unique_ptr<llama_context, void (*)(llama_context*)> context;
  std::optional<language_model> m{};

  explicit engine(const wishes& w = {}, const sequence_ids& ids = {})
      : weights{.window = w.window},
        context(llama_init_from_model(&weights, {.n_ctx = w.cells, .n_batch = w.batch, .n_seq_max = w.sequences, .kv_unified = w.unified}),
                llama_free) {
    m.emplace(context.get(), ids);
  }
  llama_memory_i& memory() const { return *context->memory; }
  /// The next call of llama_decode but `skip`.
  void fail_at(int skip, std::int32_t code, std::int32_t kept = 0) { context->faults = {.at = skip, .code = code, .kept = kept}; }
};
template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "nothing was thrown";
}
std::vector<float> copy(std::span<const float> x) { return {x.begin(), x.end()}; }
std::vector<float> expected(const words& t, std::int32_t window = 0) { return fake_llama::logits_of(t, 11, window); }
words joined(words t, const words& more) {
  t.insert(t.end(), more.begin(), more.end());
  return t;
}
const words abc{2, 3, 4}, de{5, 6}, longer{2, 3, 4, 5, 6, 7, 8, 9, 2, 2, 3};

}  // namespace

TEST_CASE("a text has the logits of its tokens, however it is read") {
  for (const std::uint32_t batch : {64u, 4u, 1u}) {
    CAPTURE(batch);
    engine e({.batch = batch});
    auto s = e.m->open();
    CHECK(e.m->size(s) == 0);
    e.m->append(s, abc);
    CHECK(copy(e.m->logits(s)) == expected(abc));
    e.m->append(s, longer);
    CHECK(copy(e.m->logits(s)) == expected(joined(abc, longer)));
    CHECK(e.m->size(s) == 14);
    auto a = e.m->open(), b = e.m->open();
    const step steps[] = {{&a, abc}, {&s, de}, {&b, longer}};
    e.context->decoded.clear();
    e.m->append_many(steps);
    CHECK(copy(e.m->logits(a)) == expected(abc));
    CHECK(copy(e.m->logits(b)) == expected(longer));
    CHECK(copy(e.m->logits(s)) == expected(joined(joined(abc, longer), de)));
    CHECK(copy(e.m->logits(a)) == expected(abc));  // as often as one likes
    CHECK(e.context->decoded.size() == (16 + batch - 1) / batch);
    for (const std::size_t tokens : e.context->decoded) CHECK(tokens <= batch);
  }
}

TEST_CASE("sequences that were forked share cells, and go their own ways") {
  engine e;
  auto s = e.m->open();
  e.m->append(s, longer);
  std::vector<language_model::sequence> forks;
  for (int i = 0; i < 7; ++i) forks.push_back(e.m->fork(s));
  CHECK(e.memory().cells.size() == longer.size());
  CHECK(e.memory().copies == 7);
  std::vector<step> steps;
  std::vector<words> next;
  for (std::int32_t i = 0; i < 7; ++i) next.push_back({i + 2, 3});
  for (std::size_t i = 0; i < 7; ++i) steps.push_back({&forks[i], next[i]});
  e.m->append_many(steps);
  for (std::size_t i = 0; i < 7; ++i) CHECK(copy(e.m->logits(forks[i])) == expected(joined(longer, next[i])));
  CHECK(e.m->rewind(forks[0], 4));
  e.m->append(forks[0], de);
  CHECK(copy(e.m->logits(forks[0])) == expected({2, 3, 4, 5, 5, 6}));
  e.m->append(forks[1], de);
  CHECK(copy(e.m->logits(forks[1])) == expected(joined(joined(longer, next[1]), de)));
  e.m->append(s, de);
  CHECK(copy(e.m->logits(s)) == expected(joined(longer, de)));
  CHECK(e.m->rewind(s, longer.size() + 2));  // where it is
  CHECK(e.m->rewind(s, 0));
  CHECK(e.m->size(s) == 0);
  e.m->append(s, abc);
  CHECK(copy(e.m->logits(s)) == expected(abc));
  forks.clear();
  CHECK(e.memory().cells.size() == abc.size());
  CHECK(refusal([&] { e.m->rewind(s, 4); }) == "plumb: llama_cpp: a sequence of 3 tokens cannot be rewound to 4.");
}

TEST_CASE("an empty sequence forks, rewinds and is given back") {
  engine e;
  auto s = e.m->open();
  auto t = e.m->fork(s);
  CHECK(e.memory().copies == 0);
  CHECK(e.m->rewind(t, 0));
  e.m->append(t, abc);
  CHECK(copy(e.m->logits(t)) == expected(abc));
  t = e.m->open();
  s = std::move(t);
  CHECK(e.m->size(s) == 0);
  CHECK(e.memory().cells.empty());
  CHECK(refusal([&] { e.m->append(t, abc); }) == "plumb: llama_cpp: the sequence is another model's, or was moved from.");
  CHECK(refusal([&] { e.m->size(t); }) == "plumb: llama_cpp: the sequence is another model's, or was moved from.");
  t = e.m->open();
  e.m->append(t, abc);
}

TEST_CASE("ids are of the range given, and come back") {
  engine e({}, {.first = 2, .count = 3});
  CHECK(e.m->max_sequences() == 3);
  std::vector<language_model::sequence> all;
  for (int i = 0; i < 3; ++i) all.push_back(e.m->open());
  for (int i = 0; i < 3; ++i) CHECK(all[static_cast<std::size_t>(i)].id() == i + 2);
  e.m->append(all[0], abc);
  const std::string full = "plumb: llama_cpp: all 3 sequences are in use: let some go, or set n_seq_max higher. Nothing was changed.";
  CHECK(refusal([&] { e.m->open(); }) == full);
  CHECK(refusal([&] { e.m->fork(all[0]); }) == full);
  CHECK_THROWS_AS(e.m->open(), plumb::sequence_memory_full);
  all.erase(all.begin() + 1);
  auto again = e.m->fork(all[0]);
  CHECK(again.id() == 3);
  e.m->append(again, de);
  CHECK(copy(e.m->logits(again)) == expected(joined(abc, de)));
}

TEST_CASE("a context that will not do is refused, with what to set") {
  const auto of = [](const wishes& w, const sequence_ids& ids = {}) { return refusal([&] { engine e(w, ids); }); };
  CHECK(of({.unified = false}) ==
        "plumb: llama_cpp: each sequence has a memory of its own, which forks would copy and fill: set kv_unified = true in llama_context_params.");
  CHECK(of({.sequences = 1, .unified = false}) == "nothing was thrown");  // one sequence has all cells
  CHECK(of({}, {.first = 4, .count = 5}) ==
        "plumb: llama_cpp: 5 sequences from id 4 on are asked for, but the context has 8: set n_seq_max in llama_context_params higher.");
  CHECK(of({}, {.first = 8}) ==
        "plumb: llama_cpp: 0 sequences from id 8 on are asked for, but the context has 8: set n_seq_max in llama_context_params higher.");
  CHECK(of({}, {.first = -1, .count = 2}) != "nothing was thrown");
  CHECK(refusal([] { language_model m(nullptr); }) == "plumb: llama_cpp: there is no context: llama_init_from_model gave none?");
  engine e;
  auto s = e.m->open();
  e.m->append(s, abc);
  CHECK(refusal([&] { language_model m(e.context.get()); }) ==
        "plumb: llama_cpp: sequence 0 has 3 tokens already: keep it out of `ids`, or clear the memory.");
  CHECK(refusal([&] { language_model m(e.context.get(), {.first = 1}); }) == "nothing was thrown");
  llama_model encoder{.encoder = true};
  const std::unique_ptr<llama_context, void (*)(llama_context*)> c(llama_init_from_model(&encoder, {}), llama_free);
  const std::string no_decoder = "plumb: llama_cpp: this model does not write a text token by token: a decoder is needed, with a memory.";
  CHECK(refusal([&] { language_model m(c.get()); }) == no_decoder);
  encoder.encoder = false;
  c->memory.reset();
  CHECK(refusal([&] { language_model m(c.get()); }) == no_decoder);
}

TEST_CASE("calls that make no sense change nothing") {
  engine e({.cells = 16}), other;
  auto s = e.m->open(), t = e.m->open(), strange = other.m->open();
  e.m->append(s, abc);
  const words bad{2, 11}, negative{-1}, none{}, too_long(14, 2);
  CHECK(refusal([&] { e.m->append(s, bad); }) == "plumb: llama_cpp: token 11 is none of the model's 11. Nothing was changed.");
  CHECK(refusal([&] { e.m->append(s, negative); }) == "plumb: llama_cpp: token -1 is none of the model's 11. Nothing was changed.");
  CHECK(refusal([&] { e.m->append(s, none); }) == "plumb: llama_cpp: a sequence is appended to, but by no tokens. Nothing was changed.");
  CHECK(refusal([&] { e.m->append(s, too_long); }) ==
        "plumb: llama_cpp: a sequence of 17 tokens is asked for, but the context has 16 cells: set n_ctx in llama_context_params higher. Nothing was "
        "changed.");
  const step twice[] = {{&s, de}, {&t, de}, {&s, abc}};
  CHECK(refusal([&] { e.m->append_many(twice); }) == "plumb: llama_cpp: a sequence stands in the call twice. Nothing was changed.");
  const step half[] = {{&t, de}, {&s, bad}};
  CHECK(refusal([&] { e.m->append_many(half); }) == "plumb: llama_cpp: token 11 is none of the model's 11. Nothing was changed.");
  CHECK(refusal([&] { e.m->append(strange, abc); }) == "plumb: llama_cpp: the sequence is another model's, or was moved from.");
  e.m->append_many({});
  CHECK(copy(e.m->logits(s)) == expected(abc));  // nothing of that was a call
  e.m->append(t, de);
  CHECK(refusal([&] { e.m->logits(s); }) == "plumb: llama_cpp: the last call did not append to this sequence: its logits are gone.");
  CHECK(copy(e.m->logits(t)) == expected(de));
  CHECK(e.m->rewind(t, 1));
  CHECK(refusal([&] { e.m->logits(t); }) != "nothing was thrown");
  CHECK(refusal([&] { e.m->logits(e.m->open()); }) != "nothing was thrown");
  const auto moved = std::move(t);
  CHECK(refusal([&] { e.m->append(t, de); }) == "plumb: llama_cpp: the sequence is another model's, or was moved from.");
  CHECK(e.m->is_end(0));
  CHECK_FALSE(e.m->is_end(1));
  CHECK(e.m->vocab_size() == 11);
  CHECK(e.m->context() == 16);
  CHECK(e.m->context_handle() == e.context.get());
}

TEST_CASE("whatever llama_decode gives, at whichever call, the sequences are what they were") {
  struct row {
    std::int32_t code;
    const char* says;
  };
  for (const row& r : {row{1, "plumb: llama_cpp: no room in the memory of 64 cells (code 1). Nothing was changed: let sequences go, or set n_ctx "
                              "higher."},
                       {2, "plumb: llama_cpp: llama_decode was aborted, by the context's abort callback (code 2). Nothing was changed."},
                       {-1, "plumb: llama_cpp: llama_decode takes the batch for invalid (code -1). Nothing was changed."},
                       {-3, "plumb: llama_cpp: llama_decode failed (code -3). Nothing was changed."},
                       {7, "plumb: llama_cpp: llama_decode failed (code 7). Nothing was changed."}})
    for (const std::uint32_t batch : {64u, 5u})
      for (int skip = 0; skip < (batch == 5 ? 4 : 1); ++skip)
        for (const std::int32_t kept : {0, 2, 5}) {
          CAPTURE(r.code, batch, skip, kept);
          engine e({.batch = batch});
          auto a = e.m->open(), b = e.m->open();
          e.m->append(a, abc);
          auto fork = e.m->fork(a);
          auto aside = e.m->open();
          e.m->append(aside, de);
          const step steps[] = {{&a, de}, {&b, longer}, {&fork, abc}};
          e.fail_at(skip, r.code, kept);
          CHECK(refusal([&] { e.m->append_many(steps); }) == r.says);
          CHECK(e.memory().cells.size() == 5);
          CHECK(e.m->size(a) == 3);
          CHECK(e.m->size(b) == 0);
          e.fail_at(skip, r.code, kept);
          if (r.code == 1) {
            CHECK_THROWS_AS(e.m->append_many(steps), plumb::sequence_memory_full);
          } else {
            try {
              e.m->append_many(steps);
              CHECK(false);
            } catch (const plumb::backend_error& error) {
              CHECK(error.code() == r.code);
            }
          }
          CHECK(refusal([&] { e.m->logits(a); }) != "nothing was thrown");
          e.m->append_many(steps);
          CHECK(copy(e.m->logits(a)) == expected(joined(abc, de)));
          CHECK(copy(e.m->logits(b)) == expected(longer));
          CHECK(copy(e.m->logits(fork)) == expected(joined(abc, abc)));
          e.m->append(aside, de);
          CHECK(copy(e.m->logits(aside)) == expected(joined(de, de)));
        }
}

TEST_CASE("what is thrown through a call is taken back as well") {
  engine e;
  auto s = e.m->open();
  e.m->append(s, abc);
  e.context->faults = {.at = 0, .kept = 1, .throws = true};
  CHECK(refusal([&] { e.m->append(s, de); }) == "fake llama: thrown");
  CHECK(e.memory().cells.size() == 3);
  e.m->append(s, de);
  CHECK(copy(e.m->logits(s)) == expected(joined(abc, de)));

  engine mute({.batch = 4});
  auto t = mute.m->open();
  mute.context->faults = {.no_logits = true};
  CHECK(refusal([&] { mute.m->append(t, longer); }) == "plumb: llama_cpp: the context gives no logits: is it one for embeddings?");
  CHECK(mute.memory().cells.empty());
  mute.context->faults = {};
  mute.m->append(t, longer);
  CHECK(copy(mute.m->logits(t)) == expected(longer));
  mute.context->faults = {.no_logits = true};
  mute.m->append(t, de);
  CHECK(refusal([&] { mute.m->logits(t); }) == "plumb: llama_cpp: the context gives no logits: is it one for embeddings?");
}

TEST_CASE("cells run out: a part that was read is taken back, and there is room again when one is let go") {
  for (const std::uint32_t batch : {64u, 4u}) {
    CAPTURE(batch);
    engine e({.cells = 16, .batch = batch});
    auto a = e.m->open(), b = e.m->open();
    e.m->append(a, longer);
    CHECK_THROWS_AS(e.m->append(b, longer), plumb::sequence_memory_full);
    CHECK(e.memory().cells.size() == 11);
    CHECK(e.m->size(b) == 0);
    e.m->append(b, abc);
    CHECK(copy(e.m->logits(b)) == expected(abc));
    CHECK_THROWS_AS(e.m->append(b, abc), plumb::sequence_memory_full);
    a = e.m->open();
    e.m->append(b, longer);
    CHECK(copy(e.m->logits(b)) == expected(joined(abc, longer)));
  }
}

TEST_CASE("a memory that gives back no part: rewinding is refused, and a call that fails half way loses its sequences") {
  engine e({.batch = 4});
  e.memory().whole_only = true;
  auto s = e.m->open(), aside = e.m->open(), fresh = e.m->open();
  e.m->append(s, abc);
  e.m->append(aside, de);
  CHECK_FALSE(e.m->rewind(s, 2));
  CHECK(e.m->rewind(s, 3));
  CHECK(e.m->size(s) == 3);
  e.m->append(s, de);
  CHECK(copy(e.m->logits(s)) == expected(joined(abc, de)));
  const step steps[] = {{&s, de}, {&fresh, longer}};
  e.fail_at(0, 1);  // nothing was read yet
  CHECK_THROWS_AS(e.m->append_many(steps), plumb::sequence_memory_full);
  CHECK(e.m->size(s) == 5);
  e.fail_at(1, 1);
  CHECK(refusal([&] { e.m->append_many(steps); }) ==
        "plumb: llama_cpp: no room in the memory of 64 cells (code 1). 1 of the call's sequences are lost: this model's memory cannot give back a "
        "part. Set n_batch higher, so that a call is one llama_decode, or n_ctx.");
  CHECK(refusal([&] { e.m->append(s, de); }) == "plumb: llama_cpp: the sequence was lost in a call that failed: let it go and read its text again.");
  CHECK(refusal([&] { e.m->fork(s); }) != "nothing was thrown");
  CHECK(refusal([&] { e.m->rewind(s, 0); }) != "nothing was thrown");
  CHECK(e.m->size(fresh) == 0);  // the whole of it could be removed
  e.m->append(fresh, longer);
  CHECK(copy(e.m->logits(fresh)) == expected(longer));
  CHECK(e.memory().cells.size() == 2 + longer.size());
  e.m->append(aside, de);
  CHECK(copy(e.m->logits(aside)) == expected(joined(de, de)));
  e.fail_at(0, -2, 1);
  CHECK(refusal([&] { e.m->append(aside, abc); }) ==
        "plumb: llama_cpp: llama_decode failed (code -2). 1 of the call's sequences are lost: this model's memory cannot give back a part.");
  s = e.m->open();
  e.m->append(s, abc);
  CHECK(copy(e.m->logits(s)) == expected(abc));
}

TEST_CASE("a sliding window rewinds as far as it still sees what it has to") {
  engine e({.window = 4});
  auto s = e.m->open();
  e.m->append(s, longer);
  CHECK(copy(e.m->logits(s)) == expected(longer, 4));
  CHECK_FALSE(e.m->rewind(s, 8));
  CHECK_FALSE(e.m->rewind(s, 1));
  CHECK(e.m->size(s) == longer.size());
  e.m->append(s, de);
  CHECK(copy(e.m->logits(s)) == expected(joined(longer, de), 4));
  auto t = e.m->open();
  e.m->append(t, abc);
  CHECK(e.m->rewind(t, 1));  // everything is still there
  e.m->append(t, longer);
  CHECK(copy(e.m->logits(t)) == expected(joined({2}, longer), 4));
  CHECK(e.m->rewind(t, 0));
  e.m->append(t, de);
  CHECK(copy(e.m->logits(t)) == expected(de, 4));
}

TEST_CASE("searches write the same whatever goes wrong with the memory, and leak nothing") {
  const words prompt{1, 2, 3};
  const plumb::decoding_options how{.temperature = 1, .max_new_tokens = 12, .seed = 5};
  for (const auto& [w, whole_only] : {std::pair{wishes{.cells = 24, .sequences = 3}, false}, {wishes{.cells = 40, .batch = 2, .sequences = 5}, false},
                                      {wishes{.cells = 32, .sequences = 4}, true}, {wishes{.cells = 20, .sequences = 1}, false},
                                      {wishes{.cells = 30, .sequences = 4, .window = 4}, false}}) {
    CAPTURE(w.cells, w.batch, w.sequences, w.window, whole_only);
    engine wide({.cells = 512, .sequences = 40, .window = w.window});
    const auto all = plumb::decode_many(*wide.m, prompt, 8, how);
    CHECK(wide.memory().cells.empty());
    engine e(w);
    e.memory().whole_only = whole_only;
    const auto some = plumb::decode_many(*e.m, prompt, 8, how);
    for (std::size_t i = 0; i < 8; ++i) CHECK(some.replies[i].response == all.replies[i].response);
    CHECK(e.memory().cells.empty());
  }
  for (int k = 0; k < 30; ++k) {
    engine e({.cells = 60, .batch = 4, .sequences = 6});
    e.fail_at(k, -3, 1);
    try {
      plumb::decode_many(*e.m, prompt, 8, how);
    } catch (const plumb::backend_error& error) {
      CHECK(error.code() == -3);
    }
    CHECK(e.memory().cells.empty());
    std::vector<language_model::sequence> every;
    for (int i = 0; i < 6; ++i) every.push_back(e.m->open());
  }
}

TEST_CASE("the vocabulary reads and writes") {
  llama_model model;
  const tokenizer plain(&model), inner(llama_model_get_vocab(&model), {.add = true, .read = true, .write = true});
  CHECK(plain.encode("ab zz<end>") == words{2, 3, 8, 9, 6, 5});  // the mark's letters are text
  CHECK(inner.encode("ab<end>") == words{1, 1, 1, 1, 2, 3, 0});
  CHECK(inner.encode("") == words{1, 1, 1, 1});  // longer than was thought
  CHECK(plain.encode("").empty());
  CHECK(plain.decode(words{1, 2, 8, 3, 0}) == "a b");
  CHECK(inner.decode(words{1, 2, 0}) == "<begin>a<end>");
  CHECK(plain.decode(words{10, 10}) == "a piece of text that is longer than most pieces area piece of text that is longer than most pieces are");
  CHECK(plain.decode({}).empty());
  CHECK(refusal([&] { plain.decode(words{2, 11}); }) == "plumb: llama_cpp: token 11 is none of the vocabulary's 11.");
  CHECK(refusal([] { tokenizer t(static_cast<const llama_vocab*>(nullptr)); }) == "plumb: llama_cpp: there is no vocabulary.");
  model.vocab.overflows = true;
  CHECK(refusal([&] { plain.encode("abc"); }) == "plumb: llama_cpp: a text of 3 bytes cannot be tokenized.");
}

TEST_CASE("a dialogue takes the model's form, or the one that is named") {
  llama_model model;
  const std::string long_one(400, 'x');
  const llama_chat_message said[] = {{"system", "be brief"}, {"user", long_one.c_str()}};
  CHECK(refusal([&] { plumb::llama_cpp::chat(&model, said); }) ==
        "plumb: llama_cpp: the model has no chat template of its own: name one, \"chatml\" for example.");
  CHECK(plumb::llama_cpp::chat(&model, said, true, "chatml") == "system: be brief\nuser: " + long_one + "\nassistant: ");
  model.chat_template = "chatml";
  CHECK(plumb::llama_cpp::chat(&model, std::span(said, 1), false) == "system: be brief\n");
  CHECK(refusal([&] { plumb::llama_cpp::chat(&model, said, true, "no such form"); }) ==
        "plumb: llama_cpp: llama.cpp cannot apply this chat template: name one that it knows, \"chatml\" for example.");
}

TEST_CASE("a second context embeds") {
  llama_model model, other;
  const auto open = [](llama_model& of, bool embeddings, enum llama_pooling_type pooling) {
    return std::unique_ptr<llama_context, void (*)(llama_context*)>(
        llama_init_from_model(&of, {.n_ctx = 16, .n_ubatch = 8, .embeddings = embeddings, .pooling_type = pooling}), llama_free);
  };
  const auto c = open(model, true, LLAMA_POOLING_TYPE_MEAN);
  plumb::llama_cpp::embedder embed(c.get());
  REQUIRE(embed.dimension() == 5);
  std::vector<float> x(5);
  for (int i = 0; i < 3; ++i) embed(words{2, 3, 2}, x);  // its memory is emptied each time
  CHECK(x == std::vector<float>{0, 0, 2, 1, 0});
  std::vector<float> wrong(4);
  CHECK(refusal([&] { embed(abc, wrong); }) == "plumb: llama_cpp: an embedding has 5 numbers, but there is room for 4.");
  CHECK(refusal([&] { embed(words{}, x); }) == "plumb: llama_cpp: there is no text to embed.");
  CHECK(refusal([&] { embed(words(9, 2), x); }) ==
        "plumb: llama_cpp: a text of 9 tokens is to be embedded, but the context takes 8 at a time: set n_batch and n_ubatch higher.");
  c->faults = {.at = 0, .code = -2};
  CHECK(refusal([&] { embed(abc, x); }) == "plumb: llama_cpp: a text of 3 tokens could not be embedded (code -2).");
  embed(abc, x);
  CHECK(x == std::vector<float>{0, 0, 1, 1, 1});

  other.vocab.pieces = {"<end>", "<begin>", "c", "b", "a"};
  const auto d = open(other, true, LLAMA_POOLING_TYPE_MEAN);
  d->memory.reset();  // as of an encoder
  plumb::llama_cpp::embedder translated(d.get(), tokenizer(&model));
  translated(words{2, 2, 3}, x);  // "aab"
  CHECK(x == std::vector<float>{0, 4, 0, 1, 2});
  const auto bare = open(model, true, LLAMA_POOLING_TYPE_NONE);
  CHECK(refusal([&] { plumb::llama_cpp::embedder e(bare.get()); }) ==
        "plumb: llama_cpp: the embedder's context gives no vector for a text: set embeddings = true and pooling_type = LLAMA_POOLING_TYPE_MEAN in "
        "llama_context_params.");
  CHECK(refusal([] { plumb::llama_cpp::embedder e(nullptr); }) == "plumb: llama_cpp: there is no context to embed with.");
  const auto mute = open(model, false, LLAMA_POOLING_TYPE_MEAN);
  plumb::llama_cpp::embedder without(mute.get());
  CHECK(refusal([&] { without(abc, x); }) == "plumb: llama_cpp: the context gives no embeddings: set embeddings = true in llama_context_params.");
}

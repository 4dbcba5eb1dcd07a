// The lab's transformer as a language model of a search: its logits against those of the full pass, whatever the split of the calls, and its memory:
// who shares what, who lets it go, and what is left when it is full.
#include "lab/language_model.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"

#include <plumb/backends/serial.hpp>

#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#endif

#include <cmath>
#include <cstring>
#include <map>
#include <optional>

namespace {

using serial = plumb::serial::backend<float>;
using plumb::index_t;
using text = std::vector<std::int32_t>;
using plumb_test::allocations;

template <class B>
using language_model = lab::transformer_language_model<B>;
static_assert(plumb::check_language_model<language_model<serial>>() && plumb::rewindable_model<language_model<serial>> &&
              plumb::batched_model<language_model<serial>> && plumb::bounded_model<language_model<serial>>);
static_assert(!std::is_copy_constructible_v<language_model<serial>::sequence>);

constexpr std::size_t scratch_bytes = std::size_t{1} << 24;
constexpr std::int32_t end_token = 2;

lab::transformer_config small() {
  return {.vocabulary = 11, .width = 8, .layers = 2, .heads = 2, .feed_forward = 12, .positions = 40};
}

template <class B>
struct desk {
  B& b;
  lab::workspace memory;
  lab::transformer<B> model;
  language_model<B> lm;

  explicit desk(B& compute, const lab::language_model_memory& room = {.tokens = 256, .sequences = 24}, std::size_t bytes = scratch_bytes)
      : b(compute), memory(bytes), model(small(), 3), lm(b, memory, model, end_token, room) {}

  /// What the full pass says of the token that follows.
  std::vector<float> expected(const text& t) {
    lab::workspace own(scratch_bytes);
    const auto a = model.forward(b, own(), t, 1, static_cast<index_t>(t.size()));
    b.sync();
    std::vector<float> logits;
    for (index_t v = 0; v < 11; ++v) {
      double z = 0;
      for (index_t j = 0; j < 8; ++j) z += static_cast<double>(a.hidden(a.length - 1, j)) * static_cast<double>(model.head()(v, j));
      logits.push_back(static_cast<float>(z));
    }
    return logits;
  }
  double error(const typename language_model<B>::sequence& s, const text& t) {
    const auto logits = lm.logits(s);
    const auto right = expected(t);
    double worst = logits.size() == right.size() ? 0 : 1;
    for (std::size_t v = 0; v < right.size(); ++v) {
      const double e = std::abs(static_cast<double>(logits[v]) - static_cast<double>(right[v]));
      if (!(e <= worst)) worst = e;
    }
    return worst;
  }
};
struct serial_desk : desk<serial> {
  explicit serial_desk(const lab::language_model_memory& room = {.tokens = 256, .sequences = 24}, std::size_t bytes = scratch_bytes)
      : desk<serial>(compute_, room, bytes) {}

 private:
  static inline serial compute_{};
};

text random_text(std::uint64_t seed, std::size_t n) {
  const plumb::random_stream r{seed, 5};
  text t;
  for (std::size_t i = 0; i < n; ++i) t.push_back(static_cast<std::int32_t>(r.uniform(i) * 11));
  return t;
}
std::vector<float> copy(std::span<const float> x) { return {x.begin(), x.end()}; }

/// The sentence of what was thrown.
template <class Error = plumb::precondition_error, class F>
std::string refusal(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// Opens, forks, rewinds, appends and destroys at random, beside plain lists of tokens, each of them with a name of its own: who shares what is known
/// from the names.
template <class B>
void at_random(B& b, std::uint64_t seed, int calls) {
  desk<B> d(b);
  struct known {
    typename language_model<B>::sequence s;
    text ids{};
    std::vector<int> names{};
    bool looked_at = true;
  };
  std::vector<known> all;
  const plumb::random_stream random{seed, 6};
  std::uint64_t draw = 0;
  int name = 0;
  double worst = 0;
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random.uniform(draw++) * static_cast<double>(n)); };
  for (int call = 0; call < calls; ++call) {
    const std::size_t what = below(10);
    if (all.empty() || (what == 0 && all.size() < 20)) {
      all.push_back({d.lm.open()});
    } else if (what <= 2 && all.size() < 20) {
      const known& from = all[below(all.size())];
      known made{d.lm.fork(from.s), from.ids, from.names};
      all.push_back(std::move(made));
    } else if (what == 3) {
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(below(all.size())));
    } else if (what == 4) {
      known& k = all[below(all.size())];
      const std::size_t n = below(k.ids.size() + 1);
      REQUIRE(d.lm.rewind(k.s, n));
      k.ids.resize(n);
      k.names.resize(n);
    } else {
      std::vector<typename language_model<B>::step> steps;
      std::vector<text> fresh(all.size());
      std::vector<std::size_t> which;
      std::size_t room = 256 - static_cast<std::size_t>(d.lm.rows_in_use());
      const std::size_t longest = what == 5 ? 30 : what == 6 ? 6 : 1;
      for (std::size_t i = 0; i < all.size(); ++i) {
        const std::size_t n = std::min({1 + below(longest), 40 - all[i].ids.size(), room});
        if (n == 0 || below(4) == 0) continue;
        room -= n;
        fresh[i] = random_text(draw++, n);
        steps.push_back({&all[i].s, fresh[i]});
        which.push_back(i);
      }
      d.lm.append_many(steps);
      for (const std::size_t i : which) {
        known& k = all[i];
        k.ids.insert(k.ids.end(), fresh[i].begin(), fresh[i].end());
        for (std::size_t t = 0; t < fresh[i].size(); ++t) k.names.push_back(name++);
        worst = std::max(worst, d.error(k.s, k.ids));
      }
    }
    std::map<int, int> holders;
    for (const known& k : all)
      for (const int n : k.names) ++holders[n];
    REQUIRE(d.lm.rows_in_use() == static_cast<index_t>(holders.size()));
    REQUIRE(d.lm.sequences_in_use() == static_cast<index_t>(all.size()));
    for (const known& k : all) {
      REQUIRE(d.lm.size(k.s) == k.ids.size());
      for (std::size_t i = 0; i < k.ids.size(); ++i) REQUIRE(d.lm.holders(k.s, i) == holders[k.names[i]]);
    }
  }
  CAPTURE(seed);
  CHECK(worst < 1e-5);
  all.clear();
  CHECK(d.lm.rows_in_use() == 0);
  CHECK(d.lm.sequences_in_use() == 0);
}

}  // namespace

TEST_CASE("language model: logits are those of the full pass, in single tokens, in chunks, and for many texts at once") {
  serial_desk d;
  const text t = random_text(1, 40);
  constexpr std::size_t chunks[] = {1, 2, 3, 7, 16, 40}, counts[] = {1, 3, 5, 8, 9, 20};
  for (const std::size_t chunk : chunks) {
    auto s = d.lm.open();
    for (std::size_t at = 0; at < t.size(); at += chunk) {
      d.lm.append(s, std::span(t).subspan(at, std::min(chunk, t.size() - at)));
      const std::size_t now = d.lm.size(s);
      CAPTURE(chunk, now);
      REQUIRE(now == std::min(at + chunk, t.size()));
      REQUIRE(d.error(s, text(t.begin(), t.begin() + static_cast<std::ptrdiff_t>(now))) < 1e-5);
    }
  }
  // Texts of all lengths, several groups of attention, and as many as one of them has and one more.
  for (const std::size_t count : counts) {
    std::vector<language_model<serial>::sequence> all;
    std::vector<language_model<serial>::step> steps;
    std::vector<text> texts;
    for (std::size_t i = 0; i < count; ++i) {
      all.push_back(d.lm.open());
      texts.push_back(random_text(10 + i, 1 + i * 5 % 23));
    }
    for (std::size_t i = 0; i < count; ++i) steps.push_back({&all[i], texts[i]});
    d.lm.append_many(steps);
    for (std::size_t i = 0; i < count; ++i) REQUIRE(d.error(all[i], texts[i]) < 1e-5);
    const text one{7};
    for (std::size_t i = 0; i < count; ++i) {
      steps[i].tokens = one;
      texts[i].push_back(7);
    }
    d.lm.append_many(steps);
    for (std::size_t i = 0; i < count; ++i) REQUIRE(d.error(all[i], texts[i]) < 1e-5);
  }
  CHECK(d.lm.rows_in_use() == 0);
  CHECK(d.lm.vocab_size() == 11);
  CHECK(d.lm.context() == 40);
  CHECK(d.lm.max_sequences() == 24);
  CHECK((d.lm.is_end(end_token) && !d.lm.is_end(3) && !d.lm.is_end(-1)));
  CHECK(!language_model<serial>(d.b, d.memory, d.model, -1).is_end(-1));
}

TEST_CASE("language model: forks, rewinds and ends in any order") {
  serial b;
  for (std::uint64_t seed = 0; seed < 4; ++seed) at_random(b, seed, 150);
  plumb::serial::backend<double> wide;
  at_random(wide, 9, 60);
}

#if __has_include(<plumb/backends/onednn.hpp>)
TEST_CASE("language model: on oneDNN") {
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const dnnl::stream stream{engine};
  plumb::onednn::backend b{engine, stream};
  at_random(b, 11, 150);
}
#endif

TEST_CASE("language model: forks share what they have in common, and nobody writes to it") {
  serial_desk d;
  const text begun = random_text(2, 20);
  std::optional s(d.lm.open());
  d.lm.append(*s, begun);
  CHECK(d.lm.rows_in_use() == 20);
  std::vector<language_model<serial>::sequence> forks;
  for (int i = 0; i < 8; ++i) forks.push_back(d.lm.fork(*s));
  CHECK(d.lm.rows_in_use() == 20);
  for (std::size_t i = 0; i < 20; ++i) CHECK(d.lm.holders(*s, i) == 9);

  // Each goes its own way; the first one back to the middle and another way.
  std::vector<language_model<serial>::step> steps;
  std::vector<text> own;
  for (std::size_t i = 0; i < 8; ++i) own.push_back(random_text(30 + i, 1 + i % 3));
  for (std::size_t i = 0; i < 8; ++i) steps.push_back({&forks[i], own[i]});
  d.lm.append_many(steps);
  CHECK(d.lm.rows_in_use() == 20 + (1 + 2 + 3) * 2 + 1 + 2);
  CHECK(d.lm.rewind(forks[0], 10));
  CHECK(d.lm.holders(*s, 9) == 9);
  CHECK(d.lm.holders(*s, 10) == 8);
  const text other{5, 9};
  d.lm.append(forks[0], other);
  text back(begun.begin(), begun.begin() + 10);
  back.insert(back.end(), other.begin(), other.end());
  CHECK(d.error(forks[0], back) < 1e-5);

  s.reset();  // what they share stays theirs
  CHECK(d.lm.holders(forks[1], 0) == 8);
  const text last{4};
  for (std::size_t i = 1; i < 8; ++i) {
    text all = begun;
    all.insert(all.end(), own[i].begin(), own[i].end());
    all.push_back(4);
    d.lm.append(forks[i], last);
    CHECK(d.error(forks[i], all) < 1e-5);
  }
  // A handle that is moved from or overwritten lets go once.
  auto moved = std::move(forks[3]);
  forks[3] = std::move(forks[4]);
  auto& same = moved;
  moved = std::move(same);
  forks.clear();
  CHECK(d.lm.sequences_in_use() == 1);
  CHECK(d.lm.rows_in_use() == static_cast<index_t>(d.lm.size(moved)));
  moved = d.lm.open();
  CHECK(d.lm.rows_in_use() == 0);
}

TEST_CASE("language model: when its memory is full it says so, and nothing has changed") {
  serial_desk d({.tokens = 30, .sequences = 3});
  const text t = random_text(3, 25);
  auto a = d.lm.open();
  d.lm.append(a, t);
  std::optional b(d.lm.fork(a));
  const text six = random_text(4, 6), three = random_text(5, 3);
  const auto before = copy(d.lm.logits(a));
  CHECK(refusal<plumb::sequence_memory_full>([&] { d.lm.append(a, six); }) ==
        "plumb: transformer_language_model: 6 tokens are to be read, but there is memory for 5 more.");
  const language_model<serial>::step both[] = {{&a, three}, {&*b, three}};
  CHECK_THROWS_AS(d.lm.append_many(both), plumb::sequence_memory_full);
  CHECK(copy(d.lm.logits(a)) == before);
  CHECK((d.lm.size(a) == 25 && d.lm.size(*b) == 25 && d.lm.rows_in_use() == 25));
  auto c = d.lm.open();
  CHECK(refusal<plumb::sequence_memory_full>([&] { d.lm.open(); }) == "plumb: open: all 3 sequences are in use.");
  CHECK_THROWS_AS(d.lm.fork(a), plumb::sequence_memory_full);
  d.lm.append(*b, three);
  b.reset();
  d.lm.append(a, three);  // there is room again
  text whole = t;
  whole.insert(whole.end(), three.begin(), three.end());
  CHECK(d.error(a, whole) < 1e-5);
  CHECK(d.lm.rewind(a, 0));
  d.lm.append(c, t);
  CHECK(d.error(c, t) < 1e-5);
}

TEST_CASE("language model: equal calls give equal bits, whatever was there before") {
  serial_desk d;
  const auto run = [&] {
    std::vector<float> all;
    const text t = random_text(6, 12), longer = random_text(7, 9), one{3};
    auto a = d.lm.open(), b = d.lm.open();
    const language_model<serial>::step first[] = {{&a, t}, {&b, longer}};
    d.lm.append_many(first);
    auto c = d.lm.fork(a);
    const language_model<serial>::step then[] = {{&c, one}, {&a, longer}, {&b, one}};
    d.lm.append_many(then);
    d.lm.rewind(a, 5);
    d.lm.append(a, one);
    for (const auto* s : {&a, &b, &c})
      for (const float x : d.lm.logits(*s)) all.push_back(x);
    return all;
  };
  const auto once = run();
  auto other = d.lm.open();
  d.lm.append(other, random_text(8, 30));
  auto another = d.lm.fork(other);
  other = d.lm.open();
  const auto again = run();
  CHECK(std::memcmp(once.data(), again.data(), once.size() * sizeof(float)) == 0);
}

TEST_CASE("language model: what it cannot do it refuses in a sentence, and nothing was read") {
  serial_desk d;
  auto s = d.lm.open(), other = d.lm.open();
  const text t = random_text(9, 38), three = random_text(10, 3), two = random_text(11, 2);
  d.lm.append(s, t);
  const auto before = copy(d.lm.logits(s));
  using steps = std::vector<language_model<serial>::step>;
  const std::pair<steps, const char*> refused[] = {
      {{{&s, three}}, "text 0 of the call would have 41 tokens, but the model has 40 positions. Nothing was read."},
      {{{&other, two}, {&s, three}}, "text 1 of the call would have 41 tokens, but the model has 40 positions. Nothing was read."},
      {{{&other, two}, {&s, {}}}, "text 1 of the call has no tokens. Nothing was read."},
      {{{&other, two}, {&other, two}}, "text 1 of the call was named before. Nothing was read."},
      {{{nullptr, two}}, "text 0 of the call is none. Nothing was read."},
  };
  for (const auto& [call, why] : refused) {
    CHECK(refusal([&, &call_ = call] { d.lm.append_many(call_); }) == std::string("plumb: transformer_language_model: ") + why);
    CHECK((d.lm.size(s) == 38 && d.lm.size(other) == 0 && d.lm.rows_in_use() == 38));
  }
  for (const text& bad : {text{1, 11}, text{-1}}) CHECK_THROWS_AS(d.lm.append(s, bad), plumb::precondition_error);
  CHECK(copy(d.lm.logits(s)) == before);
  d.lm.append_many({});
  d.lm.append(s, two);
  CHECK(d.lm.size(s) == 40);

  CHECK(refusal([&] { d.lm.rewind(s, 41); }) == "plumb: rewind: to 41 tokens, but the text has 40.");
  const char* stale = "plumb: logits: this text has read no token since it was opened, forked or rewound.";
  CHECK(refusal([&] { d.lm.logits(other); }) == stale);
  auto fork = d.lm.fork(s);
  CHECK(refusal([&] { d.lm.logits(fork); }) == stale);
  CHECK(d.lm.rewind(s, 40));
  CHECK(d.lm.logits(s).size() == 11);
  CHECK(d.lm.rewind(s, 39));
  CHECK(refusal([&] { d.lm.logits(s); }) == stale);
  auto taken = std::move(other);
  CHECK_THROWS_AS(d.lm.size(other), plumb::precondition_error);
  serial_desk elsewhere;
  CHECK(refusal([&] { elsewhere.lm.fork(s); }) == "plumb: fork: this text is none of the model's, or was moved from.");
  CHECK_THROWS_AS(serial_desk({.tokens = 0}), plumb::precondition_error);
  CHECK_THROWS_AS(serial_desk({.tokens = 1, .sequences = 0}), plumb::precondition_error);
}

TEST_CASE("language model: a small arena makes more passes, one that is too small for a token changes nothing") {
  std::vector<text> texts;
  for (std::size_t i = 0; i < 12; ++i) texts.push_back(random_text(50 + i, 1 + i * 7 % 36));
  std::size_t least = 0;
  for (std::size_t bytes = 1 << 20; bytes >= 1 << 9; bytes /= 2) {
    serial_desk d({.tokens = 256, .sequences = 24}, bytes);
    std::vector<language_model<serial>::sequence> all;
    std::vector<language_model<serial>::step> steps;
    for (std::size_t i = 0; i < texts.size(); ++i) all.push_back(d.lm.open());
    for (std::size_t i = 0; i < texts.size(); ++i) steps.push_back({&all[i], texts[i]});
    CAPTURE(bytes);
    try {
      d.lm.append_many(steps);
      for (std::size_t i = 0; i < texts.size(); ++i) REQUIRE(d.error(all[i], texts[i]) < 1e-5);
      CHECK(d.memory().peak() <= bytes);
      least = bytes;
    } catch (const plumb::precondition_error&) {
      CHECK(bytes < 1 << 14);
      CHECK(d.lm.rows_in_use() == 0);
      for (const auto& s : all) REQUIRE(d.lm.size(s) == 0);
      CHECK_THROWS_AS(d.lm.logits(all[0]), plumb::precondition_error);
    }
    CHECK(d.memory().used() == 0);
  }
  CHECK(least < 1 << 17);
}

TEST_CASE("language model: the arena's share is said before, and calls allocate nothing") {
  serial_desk d;
  std::vector<language_model<serial>::sequence> all;
  std::vector<language_model<serial>::step> steps;
  std::vector<text> texts;
  for (std::size_t i = 0; i < 11; ++i) {
    all.push_back(d.lm.open());
    texts.push_back(random_text(70 + i, 1 + i % 9));
  }
  for (std::size_t i = 0; i < 11; ++i) steps.push_back({&all[i], texts[i]});
  d.lm.append_many(steps);
  const text one{6};
  for (auto& s : steps) s.tokens = one;
  const auto before = allocations();
  for (int i = 0; i < 5; ++i) d.lm.append_many(steps);
  {
    auto fork = d.lm.fork(all[0]);
    d.lm.rewind(fork, 1);
    d.lm.append(fork, one);
  }
  CHECK(allocations() == before);

  using transformer = lab::transformer<serial>;
  auto pool = d.model.make_token_rows(64);
  const text ids = random_text(90, 23);
  std::vector<std::int32_t> rows;
  for (std::int32_t i = 0; i < 23; ++i) rows.push_back(i);
  const transformer::reading two[] = {{std::span(ids).first(9), std::span(rows).first(9)}, {std::span(ids).last(14), std::span(rows).last(14)}};
  transformer::arrangement a;
  d.model.arrange(two, a);
  lab::workspace exact(d.model.extend_workspace(a));
  d.model.extend(d.b, exact(), two, a, pool);
  CHECK(exact().peak() <= exact().capacity());
  const transformer::reading none[] = {{{}, rows}};
  CHECK_THROWS_AS(d.model.arrange(none, a), plumb::precondition_error);
}

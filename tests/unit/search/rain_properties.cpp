// What holds of every search: nothing that only saves work changes it, and what fails at any moment leaves it whole.
#include "support/catch.hpp"
#include "support/sequential_rain.hpp"

#include <thread>

using namespace plumb;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {

const token_list prompt{1, 2, 3};

rain_options usual(std::uint64_t seed) {
  rain_options o;
  o.seed = seed;
  o.set_lengths = {1, 2, 3};
  o.candidates = 3;
  o.draws = 4;
  o.boundary = after_token{{3, 4}};
  o.max_rollout_tokens = 6;
  o.tree.variance_threshold = 10;
  o.max_simulations = 12;
  o.least_simulations = 4;
  o.min_visits = 4;
  o.max_new_tokens = 9;
  return o;
}
toy_world usual_world(std::uint64_t seed) { return {.seed = seed, .vocab = 9, .memory = 3, .end_logit = -4}; }
/// Bad more often than not, so that children are added.
std::function<double(const candidate&)> usual_score(std::uint64_t seed) {
  return [=](const candidate& c) { return text_uniform(seed, c.response) < 0.7 ? -1 : text_uniform(seed + 1, c.response) < 0.5 ? 0 : 1; };
}

/// One search, with whatever model.
template <class M>
recorded_search searched(M& model, std::uint64_t seed, const rain_options& o) {
  toy_judge judge{usual_score(seed)};
  toy_embedder embedder{.seed = seed};
  recorded_search y = recorded_rain(model, judge, prompt, o, embedder);
  CHECK(model.witness->live == 0);
  CHECK(model.witness->broken == std::vector<std::string>{});
  CHECK(y.result.counters.tokens == model.witness->tokens);
  return y;
}
void same(const recorded_search& a, const recorded_search& b) {
  CHECK(a.result.response == b.result.response);
  CHECK(a.result.reason == b.result.reason);
  CHECK(a.result.best == b.result.best);
  CHECK((a.commits == b.commits));
  CHECK(a.result.counters.judgements == b.result.counters.judgements);
  CHECK(a.result.counters.simulations == b.result.counters.simulations);
  CHECK(a.result.counters.embeddings == b.result.counters.embeddings);
  CHECK(a.result.counters.added == b.result.counters.added);
}

}  // namespace

TEST_CASE("rain: neither budget nor sharing nor what the model can do changes a result, at any width") {
  std::int64_t added = 0;
  for (const std::uint64_t seed : {1u, 2u, 3u})
    for (const auto& [width, judge_batch] : {std::pair{1, 1}, {3, 1}, {8, 1}, {8, 3}}) {
      INFO("seed " << seed << ", width " << width << ", judge_batch " << judge_batch);
      rain_options o = usual(seed);
      o.width = width;
      o.judge_batch = judge_batch;
      plain_toy first(usual_world(seed));
      const recorded_search want = searched(first, seed, o);
      CHECK(want.result.response.size() > 3);
      added += want.result.counters.added;
      for (const index_t sequences : {1, 2, 5, 64})
        for (const bool share : {true, false}) {
          INFO("sequences " << sequences << ", share " << share);
          o.sequences = {.sequences = sequences, .share = share};
          plain_toy plain(usual_world(seed));
          same(searched(plain, seed, o), want);
          CHECK(plain.witness->most_live <= sequences);
          rewindable_toy rewindable(usual_world(seed));
          rewindable.rewinds_before_refusing = sequences == 5 ? 3 : 1 << 20;
          same(searched(rewindable, seed, o), want);
          complete_toy complete(usual_world(seed));
          complete.most_sequences = std::max<index_t>(1, sequences - 1);
          same(searched(complete, seed, o), want);
          CHECK(complete.witness->most_live <= complete.most_sequences);
          CHECK(complete.witness->widest <= complete.most_sequences);
        }
    }
  CHECK(added > 0);
}

TEST_CASE("rain: memory that is short changes no result") {
  plain_toy first(usual_world(4));
  const rain_options o = usual(4);
  const recorded_search want = searched(first, 4, o);
  for (const std::int64_t cells : {15, 22, 50}) {  // prompt, reply and rollout: 12 at most are read
    INFO("memory for " << cells << " tokens");
    plain_toy plain(usual_world(4));
    plain.most_cells = cells;
    same(searched(plain, 4, o), want);
    complete_toy complete(usual_world(4));
    complete.most_cells = cells;
    same(searched(complete, 4, o), want);
    CHECK(complete.witness->full > 0);
    CHECK(complete.witness->most_cells <= cells);
  }
}

TEST_CASE("rain: sharing saves forward tokens, and width saves calls") {
  rain_options o = usual(5);
  const auto counters = [&](index_t width, bool share) {
    complete_toy model(usual_world(5));
    o.width = width;
    o.sequences = {.sequences = 64, .share = share};
    const auto y = searched(model, 5, o).result.counters;
    CHECK(y.calls == model.witness->passes);
    CHECK(y.tokens + y.shared_tokens > 0);
    return y;
  };
  const search_counters one = counters(1, true), apart = counters(1, false), wide = counters(8, true);
  CHECK(2 * one.tokens < apart.tokens);
  CHECK(one.tokens + one.shared_tokens > apart.tokens);
  CHECK(3 * wide.calls * one.simulations < 2 * one.calls * wide.simulations);
}

TEST_CASE("rain: a judge of many texts says what one by one says") {
  for (const index_t width : {1, 8}) {
    rain_options o = usual(6);
    o.width = width;
    complete_toy model(usual_world(6)), other(usual_world(6));
    batched_toy_judge many{usual_score(6)};
    toy_judge one{usual_score(6)};
    const recorded_search a = recorded_rain(model, many, prompt, o), b = recorded_rain(other, one, prompt, o);
    same(a, b);
    CHECK(a.result.counters.judge_calls == many.fuse.calls);
    CHECK(b.result.counters.judge_calls == b.result.counters.judgements);
    CHECK((many.widest > 1) == (width > 1));
  }
}

TEST_CASE("rain: leaves wait for the judge until there are so many, or none else is under way") {
  constexpr std::int64_t simulations = 100;
  std::int64_t single = 0;
  for (const auto& [width, judge_batch] : {std::pair{1, 1}, {1, 4}, {8, 1}, {8, 2}, {8, 5}, {8, 8}, {8, 20}}) {
    INFO("width " << width << ", judge_batch " << judge_batch);
    rain_options o;  // one round of rollouts that differ in length; no text comes twice
    o.set_lengths = {1};
    o.boundary = [](token_span r) { return r.size() > 20 && r.back() < 3; };
    o.add_children = false;
    o.max_simulations = o.min_visits = simulations;
    o.width = width;
    o.judge_batch = judge_batch;
    complete_toy model({.seed = 4, .memory = 3, .end_logit = -30});
    std::vector<std::int64_t> sizes;
    struct {
      std::vector<std::int64_t>& sizes;
      void score_many(std::span<const candidate> c, std::span<double> scores) {
        sizes.push_back(static_cast<std::int64_t>(c.size()));
        for (std::size_t i = 0; i < c.size(); ++i) scores[i] = hashed_score(4)(c[i]);
      }
    } judge{sizes};
    rain_search search(model, judge, token_span(prompt), o);
    search.round();
    CHECK(search.counters().judged_before == 0);
    REQUIRE(sizes.size() > 1);
    CHECK(sizes[0] == 1);  // the root is alone
    std::int64_t told = 1;
    for (std::size_t i = 1; i < sizes.size(); ++i) {
      const std::int64_t under_way = std::min<std::int64_t>(width, simulations - told);
      CHECK(sizes[i] >= std::min<std::int64_t>(judge_batch, under_way));
      CHECK(sizes[i] <= under_way);
      told += sizes[i];
    }
    CHECK(told == simulations);
    const auto calls = static_cast<std::int64_t>(sizes.size());
    if (judge_batch == 1) single = calls;
    CHECK(calls <= 1 + (simulations - 1) / std::min(width, judge_batch) + 1);
    if (width > 1) CHECK((calls < single) == (judge_batch > 1));
  }
  plain_toy model;
  toy_judge judge{always(0)};
  rain_options o;
  o.judge_batch = 0;
  CHECK_THROWS_WITH(rain(model, judge, token_span(prompt), o), ContainsSubstring("option `judge_batch`") && ContainsSubstring("1 or more"));
  CHECK(model.witness->fuse.calls + judge.fuse.calls == 0);
}

TEST_CASE("rain: short leaves do not wait for long ones") {
  const auto searched = [](index_t judge_batch) {
    toy_world w{.vocab = 12};
    w.chances = [](token_span text) {  // a text of sevens goes on and on, all others stop at once
      const double most = text.back() == 7 ? 0.95 : 0.1;
      std::vector<double> y(12, (1 - most) / 11);
      y[7] = most;
      return y;
    };
    rain_options o;
    o.set_lengths = {1};
    o.boundary = [](token_span r) { return !r.empty() && r.back() != 7; };
    o.end_token_ends = o.add_children = false;
    o.max_simulations = o.min_visits = 600;
    o.sequences.sequences = 64;
    o.width = 8;
    o.judge_batch = judge_batch;
    complete_toy model(w);
    toy_judge judge{always(0)};
    rain_search search(model, judge, token_span(prompt), o);
    search.round();
    return search.counters();
  };
  const search_counters y = searched(1), whole = searched(8);  // 8: none is told before all are known, which makes batches of them
  const std::int64_t longest = rain_options{}.max_rollout_tokens;
  // While others can be selected nothing is waited for: the calls are those of eight texts side by side, but at the beginning and at the end.
  CHECK(y.calls <= y.tokens / 8 + 2 * longest);
  CHECK(whole.calls > 2 * (whole.tokens / 8 + 2 * longest));
  CHECK(2 * y.calls < whole.calls);
}

TEST_CASE("rain: scores that are forgotten are asked for again, nothing else") {
  rain_options o = usual(8);
  complete_toy first(usual_world(8));
  const recorded_search want = searched(first, 8, o);
  CHECK(want.result.counters.judged_before > 0);
  std::int64_t least = want.result.counters.judgements;
  for (const index_t remembered : {30, 5, 1, 0}) {
    o.remembered_scores = remembered;
    complete_toy model(usual_world(8));
    const recorded_search is = searched(model, 8, o);
    CHECK((is.commits == want.commits));
    CHECK(is.result.counters.judgements >= least);
    least = is.result.counters.judgements;
    CHECK(least + is.result.counters.judged_before == is.result.counters.simulations);
  }
  CHECK(least == want.result.counters.simulations);
}

TEST_CASE("rain: searches in many threads at once") {
  plain_toy model(usual_world(7));
  const recorded_search want = searched(model, 7, usual(7));
  std::vector<recorded_search> is(4);
  std::vector<std::thread> threads;
  for (auto& y : is)
    threads.emplace_back([&y] {
      plain_toy mine(usual_world(7));
      toy_judge judge{usual_score(7)};
      toy_embedder embedder{.seed = 7};
      y = recorded_rain(mine, judge, prompt, usual(7), embedder);
    });
  for (auto& t : threads) t.join();
  for (const auto& y : is) same(y, want);
  std::set<token_list> different;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    plain_toy again(usual_world(7));
    different.insert(searched(again, 7, usual(seed)).result.response);
  }
  CHECK(different.size() > 1);
}

TEST_CASE("rain: the tree's numbers are those of what is below them, at any width") {
  std::int64_t rounds = 0;
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u})
    for (const index_t width : {1, 2, 8, 64})
      for (const auto kind : {rain_virtual_loss::loss, rain_virtual_loss::count})
        for (const bool embeds : {false, true}) {
          rain_options o = usual(seed);
          o.width = width;
          o.virtual_loss = kind;
          o.judge_batch = embeds ? 3 : 1;
          complete_toy model(usual_world(seed));
          toy_judge judge{usual_score(seed)};
          toy_embedder embedder{.seed = seed};
          const auto watch = [&](auto& search) {
            while (search.round()) {
              ++rounds;
              const std::string wrong = wrong_in(search.tree(), !embeds, search.counters().added > 0);
              if (!wrong.empty()) FAIL_CHECK("seed " << seed << ", width " << width << ", embeds " << embeds << "\n" << wrong);
            }
          };
          if (embeds) {
            rain_search<complete_toy, toy_judge, toy_embedder> search(model, judge, token_span(prompt), o, embedder);
            watch(search);
          } else {
            rain_search<complete_toy, toy_judge> search(model, judge, token_span(prompt), o);
            watch(search);
          }
        }
  CHECK(rounds > 150);
}

// Failures.
namespace {

/// What can fail.
struct parts {
  toy_witness& model;
  toy_judge& judge;
  toy_embedder& embedder;
  rain_options& o;
};
/// A search that is disturbed and goes on. `disturb(parts, k)` makes something fail the k-th time it is asked, for every k, until the search ends
/// before. Every error has to say `what`. How often it failed.
template <class M>
std::int64_t disturbed(std::uint64_t seed, index_t width, const char* what, const std::function<void(const parts&, std::int64_t)>& disturb,
                       index_t judge_batch = 1) {
  rain_options o = usual(seed);
  o.width = width;
  o.judge_batch = judge_batch;
  M first(usual_world(seed));
  const recorded_search want = searched(first, seed, o);
  std::int64_t failures = 0;
  for (std::int64_t k = 1;; ++k) {
    INFO("seed " << seed << ", width " << width << ", judge_batch " << judge_batch << ", call " << k);
    M model(usual_world(seed));
    toy_judge judge{usual_score(seed)};
    toy_embedder embedder{.seed = seed};
    std::vector<sequential_commit> commits;
    bool failed = false;
    {
      rain_options mine = o;
      mine.on_commit = recorder(commits);
      disturb({*model.witness, judge, embedder, mine}, k);
      rain_search<M, toy_judge, toy_embedder> search(model, judge, token_span(prompt), mine, embedder);
      for (bool more = true; more;) {
        const std::size_t before = search.response().size();
        try {
          more = search.round();
        } catch (const std::exception& e) {
          if (failed || std::string(e.what()).find(what) == std::string::npos) FAIL_CHECK("another error: " << e.what());
          if (failed) break;
          failed = true;
          ++failures;
          if (search.response().size() < before) FAIL_CHECK("what was committed is gone");
        }
        const std::string wrong = wrong_in(search.tree(), false, true);
        if (!wrong.empty()) FAIL_CHECK(wrong);
        const token_span whole = want.result.response, is = search.response();
        if (is.size() > whole.size() || !std::ranges::equal(is, whole.first(is.size())))
          FAIL_CHECK("the response is no prefix of the undisturbed one");
        if (model.witness->live > o.sequences.sequences) FAIL_CHECK("too many sequences");
      }
      if (search.result().response != want.result.response || search.reason() != want.result.reason || commits != want.commits)
        FAIL_CHECK("it did not go on as if nothing had been");
      if (search.counters().simulations != want.result.counters.simulations) FAIL_CHECK("simulations were lost or counted twice");
    }
    if (model.witness->live != 0 || !model.witness->broken.empty()) FAIL_CHECK("a sequence leaks, or a law is broken");
    if (!failed) return failures;
  }
}

}  // namespace

TEST_CASE("rain: a model that fails at its k-th call, for every k") {
  const auto disturb = [](const parts& p, std::int64_t k) { p.model.fuse.fail_at = k; };
  CHECK(disturbed<plain_toy>(1, 1, "the toy's", disturb) > 200);
  CHECK(disturbed<complete_toy>(2, 1, "the toy's", disturb) > 100);
  CHECK(disturbed<complete_toy>(1, 4, "the toy's", disturb) > 100);
  CHECK(disturbed<complete_toy>(1, 8, "the toy's", disturb, 3) > 100);
}

TEST_CASE("rain: a judge that fails at its k-th call, for every k") {
  const auto disturb = [](const parts& p, std::int64_t k) { p.judge.fuse.fail_at = k; };
  CHECK(disturbed<plain_toy>(1, 1, "the toy's judge", disturb) > 10);
  CHECK(disturbed<complete_toy>(2, 4, "the toy's judge", disturb) > 10);
  for (const index_t judge_batch : {2, 3, 8}) CHECK(disturbed<complete_toy>(2, 8, "the toy's judge", disturb, judge_batch) > 10);
}

TEST_CASE("rain: an embedder that fails at its k-th call, for every k") {
  const auto disturb = [](const parts& p, std::int64_t k) { p.embedder.fuse.fail_at = k; };
  CHECK(disturbed<plain_toy>(1, 1, "the toy's embedder", disturb) > 10);
  CHECK(disturbed<complete_toy>(2, 4, "the toy's embedder", disturb) > 10);
  for (const index_t judge_batch : {2, 8}) CHECK(disturbed<complete_toy>(2, 8, "the toy's embedder", disturb, judge_batch) > 10);
}

TEST_CASE("rain: callbacks that fail at their k-th call, for every k") {
  const auto counted = [](std::int64_t k) {
    return [k, n = std::make_shared<std::int64_t>(0)] {
      if (++*n == k) throw toy_failure("the callback fails");
    };
  };
  for (const auto& [width, judge_batch] : {std::pair{1, 1}, {3, 1}, {8, 3}}) {
    const auto fail = [width = width, judge_batch = judge_batch](const auto& disturb) {
      return width == 1 ? disturbed<plain_toy>(3, width, "the callback", disturb, judge_batch)
                        : disturbed<complete_toy>(3, width, "the callback", disturb, judge_batch);
    };
    CHECK(fail([&](const parts& p, std::int64_t k) {
            p.o.boundary = [f = counted(k), inner = p.o.boundary](token_span r) { return f(), inner(r); };
          }) > 20);
    CHECK(fail([&](const parts& p, std::int64_t k) { p.o.stop = [f = counted(k)](token_span) { return f(), false; }; }) > 50);
    CHECK(fail([&](const parts& p, std::int64_t k) { p.o.shown = [f = counted(k)](token_span r) { return f(), r.size(); }; }) > 10);
    CHECK(fail([&](const parts& p, std::int64_t k) {
            p.o.on_commit = [f = counted(k), inner = p.o.on_commit](const rain_commit& c) { inner(c), f(); };
          }) > 2);
  }
}

TEST_CASE("rain: logits that are no numbers, at any moment") {
  const auto disturb = [](const parts& p, std::int64_t k) { p.model.nan_at = k; };
  CHECK(disturbed<plain_toy>(1, 1, "is not a number", disturb) > 50);
  CHECK(disturbed<complete_toy>(1, 8, "is not a number", disturb, 3) > 50);
}

TEST_CASE("rain: a judge that gives no number in [-1, 1], at any moment") {
  for (const double odd : {std::nan(""), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), 1.0001, -1.0001, 1e300}) {
    INFO("score " << odd);
    const auto disturb = [&](const parts& p, std::int64_t k) {
      p.judge.odd_at = k;
      p.judge.odd = odd;
    };
    CHECK(disturbed<plain_toy>(2, 1, "plumb: rain: the judge's score of a response of ", disturb) > 10);
    CHECK(disturbed<complete_toy>(2, 8, "plumb: rain: the judge's score of a response of ", disturb, 3) > 10);
  }
}

TEST_CASE("rain: an embedding of length 0 or without numbers, at any moment") {
  CHECK(disturbed<plain_toy>(2, 1, "embedding", [](const parts& p, std::int64_t k) { p.embedder.zero_at = k; }) > 10);
  CHECK(disturbed<plain_toy>(2, 1, "embedding", [](const parts& p, std::int64_t k) { p.embedder.nan_at = k; }) > 10);
}

TEST_CASE("rain: an embedder that changes its size leaves whole simulations") {
  for (std::int64_t k = 2; k < 20; ++k) {
    INFO("at call " << k);
    plain_toy model(usual_world(2));
    toy_judge judge{usual_score(2)};
    toy_embedder embedder{.seed = 2, .grows_at = k};
    rain_search<plain_toy, toy_judge, toy_embedder> search(model, judge, token_span(prompt), usual(2), embedder);
    const auto all = [&] {
      while (search.round()) {
      }
    };
    CHECK_THROWS_WITH(all(), ContainsSubstring("embedd"));
    CHECK(wrong_in(search.tree(), false, true) == "");
    CHECK_THROWS_WITH(all(), ContainsSubstring("embedd"));  // it is no better now
    CHECK(wrong_in(search.tree(), false, true) == "");
  }
  plain_toy model(usual_world(2));
  toy_judge judge{usual_score(2)};
  toy_embedder none{.numbers = 0};
  CHECK_THROWS_WITH(rain(model, judge, token_span(prompt), usual(2), none), ContainsSubstring("dimension"));
  CHECK(model.witness->live == 0);
}

// The smallest worlds.

TEST_CASE("rain: a vocabulary of one token") {
  for (const index_t width : {1, 8})
    for (const bool ends : {true, false}) {
      plain_toy model({.vocab = 1});
      toy_judge judge{usual_score(1)};
      rain_options o;
      o.width = width;
      o.max_new_tokens = 5;
      o.end_token_ends = o.sets_end = ends;
      const rain_result r = rain(model, judge, token_span(token_list{0}), o);
      CHECK(r.response == token_list(ends ? 1 : 5, 0));
      CHECK(r.reason == (ends ? stop_reason::ended : stop_reason::length));
      CHECK(model.witness->live == 0);
    }
}

TEST_CASE("rain: a model whose context is full") {
  for (index_t context = 3; context < 9; ++context)
    for (const index_t width : {1, 8}) {
      complete_toy model({.seed = 1, .end_logit = -99});
      model.longest = context;
      toy_judge judge{usual_score(1)};
      rain_options o = usual(1);
      o.width = width;
      o.max_new_tokens = 100;
      const rain_result r = rain(model, judge, token_span(prompt), o);
      CHECK(r.reason == stop_reason::length);
      CHECK(static_cast<index_t>(r.response.size()) >= context - 3);
      CHECK(static_cast<index_t>(r.response.size()) <= context - 3 + 1);  // a last token needs not be read
      CHECK(model.witness->broken == std::vector<std::string>{});
    }
  complete_toy model;
  model.longest = 2;
  toy_judge judge{always(0)};
  CHECK_THROWS_WITH(rain(model, judge, token_span(prompt), rain_options{}), ContainsSubstring("the prompt has 3 tokens"));
  CHECK(model.witness->fuse.calls == 0);
}

TEST_CASE("rain: nothing may be written") {
  plain_toy model;
  toy_judge judge{always(0)};
  rain_options o;
  o.max_new_tokens = 0;
  const rain_result r = rain(model, judge, token_span(prompt), o);
  CHECK(r.response.empty());
  CHECK(r.reason == stop_reason::length);
  CHECK(std::isnan(r.best_score));
  CHECK(model.witness->fuse.calls + judge.fuse.calls == 0);
}

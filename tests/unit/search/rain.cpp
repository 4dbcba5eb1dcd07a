// RAIN by hand: what it draws, judges, commits and tells, where it ends, and what it does when the judge condemns all there is.
#include "support/near.hpp"
#include "support/small_language_models.hpp"

#include <plumb/search/rain.hpp>

using namespace plumb;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {

const token_list prompt{1, 2};

/// The same chances wherever it is.
toy_world steady(std::vector<double> chances) {
  toy_world w;
  w.vocab = static_cast<index_t>(chances.size());
  w.chances = [=](token_span) { return chances; };
  return w;
}
/// A judge that notes what it is asked.
struct witness_judge {
  std::function<double(const candidate&)> says = always(0);
  std::vector<token_list> texts{};
  std::vector<bool> finished{};
  double operator()(const candidate& c) {
    CHECK(std::ranges::equal(c.prompt, prompt));
    texts.emplace_back(c.response.begin(), c.response.end());
    finished.push_back(c.finished);
    return says(c);
  }
};
/// A search by hand: its events are kept.
struct trial {
  struct event {
    token_list tokens, response;
    std::vector<token_list> sets{};
    std::vector<double> priors{}, visits{}, values{};
    index_t chosen, taken_back;
    std::int64_t simulations;
    bool condemned;
  };
  plain_toy model;
  witness_judge judge{};
  rain_options o{};
  std::vector<event> events{};

  explicit trial(const toy_world& w) : model(w) {
    o.max_new_tokens = 6;
    o.rollout = false;
    o.on_commit = [this](const rain_commit& c) {
      event e{.tokens = {c.tokens.begin(), c.tokens.end()}, .response = {c.response.begin(), c.response.end()}, .chosen = c.chosen,
              .taken_back = c.taken_back, .simulations = c.simulations, .condemned = c.condemned};
      for (const rain_child& x : c.children) {
        e.sets.emplace_back(x.tokens.begin(), x.tokens.end());
        e.priors.push_back(x.prior), e.visits.push_back(x.visits), e.values.push_back(x.value);
      }
      events.push_back(e);
    };
  }
  trial(const trial&) = delete;
  rain_result run() {
    rain_result r = rain(model, judge, token_span(prompt), o);
    CHECK(model.witness->live == 0);
    CHECK(model.witness->broken.empty());
    return r;
  }
};
bool holds(const token_list& text, std::int32_t t) { return std::ranges::find(text, t) != text.end(); }

}  // namespace

TEST_CASE("rain: the likeliest token is left where the judge dislikes it") {
  trial t(steady({0.01, 0.3, 0.28, 0.2, 0.11, 0.1}));
  t.judge.says = [](const candidate& c) { return std::ranges::find(c.response, 1) != c.response.end() ? -1.0 : 1.0; };
  t.o.set_lengths = {1};
  t.o.end_token_ends = false;
  const rain_result r = t.run();
  CHECK(r.response == token_list{2, 2, 2, 2, 2, 2});
  CHECK(r.reason == stop_reason::length);
  CHECK(std::string(r.why_it_stopped()) == "length");
  CHECK_FALSE(r.condemned);
  CHECK(r.best_score == 1);
  CHECK(t.judge.texts[0].empty());  // the first simulation judges the prompt
  CHECK(t.judge.texts[1] == token_list{1});
  t.judge.says = always(1);
  CHECK(t.run().response == token_list{1, 1, 1, 1, 1, 1});
}

TEST_CASE("rain: candidates of one token are the likeliest, and the root's priors are mixed") {
  trial t(steady({0.05, 0.1, 0.5, 0.2, 0.15}));
  t.o.set_lengths = {1};
  t.o.candidates = 3;
  t.o.max_new_tokens = 1;
  t.run();
  REQUIRE(t.events.size() == 1);
  CHECK(t.events[0].sets == std::vector<token_list>{{2}, {3}, {4}});
  CHECK(near(t.events[0].priors, {0.75 * 0.5 / 0.85 + 0.25 / 3, 0.75 * 0.2 / 0.85 + 0.25 / 3, 0.75 * 0.15 / 0.85 + 0.25 / 3}, 1e-7));
  t.o.candidate_temperature = 0.5;
  t.o.tree.root_mix = 0;
  t.run();
  const double sum = 0.25 + 0.04 + 0.0225;
  CHECK(near(t.events[1].priors, {0.25 / sum, 0.04 / sum, 0.0225 / sum}, 1e-6));
}

TEST_CASE("rain: longer sets: the greedy one first, draws that repeat dropped, its prior the largest") {
  trial t(steady({0.02, 0.3, 0.28, 0.25, 0.15}));
  t.o.set_lengths = {2};
  t.o.end_token_ends = false;
  t.o.tree.root_mix = 0;
  t.o.max_new_tokens = 2;
  for (const index_t top_k : {1, 2, 15}) {
    t.o.top_k = top_k;
    t.events.clear();
    t.run();
    REQUIRE(t.events.size() == 1);
    const auto& e = t.events[0];
    CHECK(e.sets[0] == token_list{1, 1});
    CHECK(e.sets.size() == (top_k == 1 ? 1 : top_k == 2 ? 4 : e.sets.size()));
    for (std::size_t i = 0; i < e.sets.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) CHECK(e.sets[i] != e.sets[j]);
    if (top_k == 2) {  // products of 30/58 and 28/58; greedy: no more than all others, no less than the largest and the smallest of them
      const double a = 30.0 / 58, b = 28.0 / 58, greedy = a * b + b * b, sum = greedy + 2 * a * b + b * b;
      for (std::size_t i = 0; i < 4; ++i)
        CHECK(e.priors[i] == Catch::Approx((i == 0 ? greedy : e.sets[i] == token_list{2, 2} ? b * b : a * b) / sum).epsilon(1e-6));
    }
    if (top_k == 15) CHECK(e.priors[0] == std::ranges::max(e.priors));
  }
}

TEST_CASE("rain: sets are 1, 2, 4 and 10 tokens long, whatever was committed, and end with the reply") {
  for (const bool reuse : {true, false}) {
    trial t(steady({0.001, 0.4, 0.3, 0.299}));
    t.o.reuse = reuse;
    t.o.max_new_tokens = 20;
    t.o.end_token_ends = t.o.sets_end = false;
    const rain_result r = t.run();
    CHECK(r.response.size() == 20);
    std::vector<std::size_t> lengths;
    for (const auto& e : t.events) lengths.push_back(e.tokens.size());
    CHECK(lengths == std::vector<std::size_t>{1, 2, 4, 10, 3});
    CHECK(t.events.back().response == r.response);
  }
}

TEST_CASE("rain: a set stops at the end token, or does not") {
  trial t(steady({0.9, 0.05, 0.05}));
  t.o.set_lengths = {4};
  t.judge.says = always(1);
  rain_result r = t.run();
  CHECK(r.response == token_list{0});
  CHECK(r.reason == stop_reason::ended);
  CHECK(t.events[0].sets[0] == token_list{0});
  for (std::size_t i = 0; i < t.judge.texts.size(); ++i) {
    CHECK(t.judge.finished[i] == (!t.judge.texts[i].empty() && t.judge.texts[i].back() == 0));
    CHECK(std::ranges::count(t.judge.texts[i], 0) <= 1);
  }
  t.o.sets_end = false;
  r = t.run();
  CHECK(r.response == token_list{0, 0, 0, 0});
  CHECK(r.reason == stop_reason::ended);
  t.o.end_token_ends = false;
  r = t.run();
  CHECK(r.response.size() == 6);
  CHECK(r.reason == stop_reason::length);
}

TEST_CASE("rain: `stop` ends the reply, and rollouts") {
  trial t(steady({0.001, 0.6, 0.2, 0.199}));
  t.o.set_lengths = {1};
  t.o.rollout = true;
  t.o.max_new_tokens = 50;
  t.o.stop = [](token_span r) { return r.size() >= 3 && r.back() == 1; };
  const rain_result r = t.run();
  CHECK(r.reason == stop_reason::ended);
  CHECK(r.response.back() == 1);
  for (std::size_t i = 0; i < t.judge.texts.size(); ++i) {
    const token_list& text = t.judge.texts[i];
    for (std::size_t n = 3; n < text.size(); ++n)
      if (text[n - 1] == 1) FAIL_CHECK("text " << i << " goes on behind its end");
    CHECK(t.judge.finished[i] == (t.o.stop(text) || (!text.empty() && text.back() == 0)));
  }
}

TEST_CASE("rain: what is judged is the set with its rollout, to the boundary") {
  trial t(steady({0.001, 0.3, 0.3, 0.2, 0.199}));
  t.o.set_lengths = {1};
  t.o.rollout = true;
  t.o.boundary = after_token{{3}};
  t.o.max_new_tokens = 40;
  SECTION("every text ends there") {
    t.run();
    CHECK(t.judge.texts.size() > 20);
    CHECK(std::ranges::all_of(t.judge.texts, [](const token_list& x) { return x.back() == 3 || x.back() == 0 || x.size() == 40; }));
    CHECK(std::set<token_list>(t.judge.texts.begin(), t.judge.texts.end()).size() == t.judge.texts.size());  // no text is judged twice
  }
  SECTION("no rollout is longer than it may be") {
    t.o.boundary = nowhere{};
    t.o.max_rollout_tokens = 2;
    t.o.max_simulations = 1;
    t.run();
    for (const token_list& text : t.judge.texts) CHECK(text.size() <= 2 + t.events.size());
    CHECK(t.judge.texts[0].size() == 2);
  }
  SECTION("the judge sees what it is shown") {
    t.o.shown = [](token_span r) { return r.size() / 2; };
    t.run();
    for (const token_list& text : t.judge.texts) CHECK(text.size() <= 20);
    t.o.shown = [](token_span r) { return r.size() + 1; };
    CHECK_THROWS_WITH(t.run(), ContainsSubstring("`shown` asks for"));
  }
  SECTION("greedy rollouts") {
    t.o.rollout_temperature = 0;
    t.o.boundary = nowhere{};
    t.o.max_new_tokens = 5;
    t.run();
    CHECK(t.judge.texts[0] == token_list{1, 1, 1, 1, 1});
  }
}

TEST_CASE("rain: a round ends when the child that leads is good enough, and takes its visits along") {
  trial t(steady({0.001, 0.9, 0.05, 0.049}));
  t.o.set_lengths = {1};
  t.judge.says = always(1);
  t.o.max_new_tokens = 3;
  t.run();
  CHECK(t.events[0].simulations == 8);  // the prompt, then seven through the likeliest token
  CHECK(t.events[0].visits[0] == 7);
  CHECK(t.events[1].simulations < 8);   // what was seen below it counts
  t.events.clear();
  t.o.reuse = false;
  t.run();
  for (const auto& e : t.events) CHECK(e.simulations == 8);
  t.events.clear();
  t.o.reuse = true;
  t.judge.says = always(0.8);  // the threshold is strict
  t.run();
  CHECK(t.events[0].simulations == 50);
  CHECK(t.events[1].simulations == std::max<std::int64_t>(15, 50 - static_cast<std::int64_t>(t.events[0].visits[0])));
  t.events.clear();
  t.o.acceptance = rain_acceptance::iterations;
  t.run();
  for (const auto& e : t.events) CHECK(e.simulations == 6);
}

TEST_CASE("rain: what a round commits") {
  trial t(steady({0.001, 0.9, 0.05, 0.049}));
  t.o.set_lengths = {1};
  t.o.max_new_tokens = 1;
  t.judge.says = [](const candidate& c) { return c.response.empty() ? 0 : c.response[0] == 1 ? 0.1 : c.response[0] == 3 ? 0.7 : 0.5; };
  for (const auto& [rule, want] : {std::pair{rain_commit_rule::visits, 1}, {rain_commit_rule::visits_then_value, 1}, {rain_commit_rule::value, 3}}) {
    t.o.commit = rule;
    CHECK(t.run().response == token_list{want});
    const auto& e = t.events.back();
    CHECK(e.sets[static_cast<std::size_t>(e.chosen)] == e.tokens);
  }
  t.o.commit = rain_commit_rule::sampled;
  std::vector<double> count(4, 0.0), expected(4, 0.0);
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    t.o.seed = seed;
    count[static_cast<std::size_t>(t.run().response[0])] += 1;
  }
  double sum = 0;
  for (const double v : t.events.back().visits) sum += v;
  for (std::size_t c = 0; c < 4; ++c) expected[static_cast<std::size_t>(t.events.back().sets[c][0])] = 400 * t.events.back().visits[c] / sum;
  for (std::size_t v = 0; v < 4; ++v) CHECK(std::abs(count[v] - expected[v]) < 40);
}

TEST_CASE("rain: another child where all are alike and bad") {
  trial t(steady({0.001, 0.3, 0.25, 0.2, 0.15, 0.099}));
  t.judge.says = always(-0.5);
  t.o.set_lengths = {1};
  t.o.candidates = 2;
  t.o.max_new_tokens = 1;
  t.o.tree.root_mix = 0;
  rain_result r = t.run();
  const auto& e = t.events[0];
  CHECK(e.sets == std::vector<token_list>{{1}, {2}, {3}, {4}, {5}, {0}});
  CHECK(r.counters.added == 4);
  // Shares of what was there when they came.
  CHECK(near({e.priors[0], e.priors[1], e.priors[2], e.priors[3]}, {0.3 / 0.55, 0.25 / 0.55, 0.2 / 0.75, 0.15 / 0.9}, 1e-6));
  t.o.tree.most_children = 4;
  CHECK(t.run().counters.added == 2);
  t.o.add_children = false;
  CHECK(t.run().counters.added == 0);
  t.o.add_children = true;
  t.judge.says = always(0);
  CHECK(t.run().counters.added == 0);
}

TEST_CASE("rain: a token that cannot follow never does") {
  trial t(steady({0, 0.7, 0, 0.3, 0, 0, 0, 0}));
  t.o.set_lengths = {1};
  t.o.max_new_tokens = 4;
  bool all = true;
  t.judge.says = [&all](const candidate& c) {
    for (const std::int32_t x : c.response) all = all && (x == 1 || x == 3);
    return -0.5;  // other children are wanted
  };
  for (const index_t width : {1, 8}) {
    t.o.width = width;
    const rain_result r = t.run();
    CHECK(r.response.size() == 4);
    CHECK(r.counters.added == 0);
  }
  CHECK(all);
}

TEST_CASE("rain: the best that was judged, of equals the longest") {
  trial t(steady({0.001, 0.6, 0.2, 0.199}));
  t.o.set_lengths = {1, 2};
  t.judge.says = [](const candidate& c) { return c.response.size() == 3 && c.response[0] == 2 ? 0.9 : 0.1; };
  const rain_result r = t.run();
  CHECK(r.best.size() == 3);
  CHECK(r.best[0] == 2);
  CHECK(r.best_score == 0.9);
  t.judge.says = always(0.5);
  CHECK(t.run().best.size() > 1);
}

TEST_CASE("rain: round by round, it is the same") {
  plain_toy model({.seed = 5});
  toy_judge judge{hashed_score(5)};
  rain_options o;
  o.max_new_tokens = 12;
  o.boundary = after_token{{3}};
  const rain_result whole = rain(model, judge, token_span(prompt), o);
  {
    rain_search<plain_toy, toy_judge> search(model, judge, token_span(prompt), o);
    CHECK(search.reason() == stop_reason::none);
    CHECK(search.response().empty());
    CHECK(std::ranges::equal(search.prompt(), prompt));
    std::size_t length = 0;
    std::int64_t rounds = 0;
    while (search.round()) {
      CHECK(search.response().size() > length);
      length = search.response().size();
      CHECK(search.counters().rounds == ++rounds);
      CHECK(std::ranges::equal(search.response(), token_span(whole.response).first(length)));
    }
    CHECK_FALSE(search.round());
    CHECK(search.result().response == whole.response);
    CHECK(search.reason() == whole.reason);
    CHECK(search.counters().tokens == whole.counters.tokens);
    CHECK(model.witness->live > 0);
  }
  CHECK(model.witness->live == 0);
}

TEST_CASE("rain: nodes that left the tree are kept on request") {
  plain_toy model({.seed = 6});
  toy_judge judge{hashed_score(6)};
  for (const bool reuse : {true, false}) {
    rain_options o;
    o.reuse = reuse;
    o.max_new_tokens = 9;
    o.boundary = after_token{{3}};
    o.keep_discarded = true;
    rain_search<plain_toy, toy_judge> search(model, judge, token_span(prompt), o);
    while (search.round()) {
    }
    token_list committed;
    std::set<std::int64_t> known;
    for (const rain_record& x : search.records()) {
      CHECK((x.parent == -1 || known.contains(x.parent)));  // parents come first
      CHECK(known.insert(x.id).second);
      if (x.committed) committed.insert(committed.end(), x.tokens.begin(), x.tokens.end());
    }
    CHECK(std::ranges::equal(committed, search.response()));
    CHECK(static_cast<std::int64_t>(known.size()) > search.counters().most_nodes);
    o.keep_discarded = false;
    rain_search<plain_toy, toy_judge> other(model, judge, token_span(prompt), o);
    while (other.round()) {
    }
    CHECK(other.records().size() == other.tree().nodes().size());
    CHECK(std::ranges::equal(other.response(), search.response()));
  }
}

// Token 1 looks good, but all that follows it is bad. Few simulations: it is committed before that is seen.
namespace {
void trap(trial& t) {
  t.judge.says = [](const candidate& c) { return c.response.size() > 1 && c.response[0] == 1 ? -1.0 : 1.0; };
  t.o.set_lengths = {1};
  t.o.max_simulations = 2;
  t.o.least_simulations = 2;
  t.o.reuse = false;
  t.o.max_new_tokens = 4;
  t.o.add_children = false;
}
}  // namespace

TEST_CASE("rain: condemned, and it goes on") {
  trial t(steady({0.001, 0.6, 0.2, 0.199}));
  trap(t);
  const rain_result r = t.run();
  CHECK(r.condemned);
  CHECK(r.response[0] == 1);
  CHECK(r.reason == stop_reason::length);
  CHECK_FALSE(t.events[0].condemned);
  CHECK(t.events[1].condemned);
}

TEST_CASE("rain: condemned, and it refuses") {
  trial t(steady({0.001, 0.6, 0.2, 0.199}));
  trap(t);
  t.o.fallback = rain_fallback::refuse;
  const rain_result r = t.run();
  CHECK(r.condemned);
  CHECK(r.reason == stop_reason::refused);
  CHECK(r.response == token_list{1});  // what was committed before
}

TEST_CASE("rain: condemned, and it ends with the best so far") {
  trial t(steady({0.001, 0.6, 0.2, 0.199}));
  trap(t);
  t.judge.says = [](const candidate& c) { return c.response.empty() ? 0.0 : c.response.size() > 1 ? -1.0 : 0.5; };
  t.o.fallback = rain_fallback::best_so_far;
  const rain_result r = t.run();
  CHECK(r.condemned);
  CHECK(r.reason == stop_reason::condemned);
  CHECK(r.response == r.best);
  CHECK(r.response == token_list{1});
  CHECK(r.best_score == 0.5);
  // The empty reply may be the best there is; the event says what was taken back.
  t.judge.says = [](const candidate& c) { return c.response.empty() ? 0.9 : c.response.size() > 1 ? -1.0 : 0.5; };
  t.o.rollout = false;
  index_t taken_back = -1;
  t.o.on_commit = [&taken_back](const rain_commit& c) {
    if (c.condemned) taken_back = c.taken_back;
  };
  const rain_result none = t.run();
  CHECK(none.reason == stop_reason::condemned);
  CHECK(none.response.empty());
  CHECK(taken_back == 1);
}

TEST_CASE("rain: condemned, and it goes back and another way") {
  trial t(steady({0, 0.6, 0.25, 0.15}));
  trap(t);
  t.o.fallback = rain_fallback::rewind;
  rain_result r = t.run();
  CHECK(r.condemned);
  CHECK(r.reason == stop_reason::length);
  CHECK(r.response.size() == 4);
  CHECK(r.response[0] == 2);
  REQUIRE(t.events.size() >= 3);
  CHECK(t.events[0].tokens == token_list{1});
  CHECK(t.events[1].taken_back == 1);
  CHECK(t.events[1].response.empty());
  CHECK(t.events[2].tokens == token_list{2});
  CHECK_FALSE(holds({t.events[2].sets[0][0], t.events[2].sets[1][0]}, 1));

  // Everything is bad: it tries what it may, and says that nothing is left.
  t.events.clear();
  t.judge.says = [](const candidate& c) { return c.response.size() > 1 ? -1.0 : 1.0; };
  t.o.max_rewinds = 2;
  r = t.run();
  CHECK(r.reason == stop_reason::exhausted);
  CHECK(r.response.size() == 1);
  CHECK(std::ranges::count_if(t.events, [](const auto& e) { return e.taken_back > 0; }) == 2);
  t.o.max_rewinds = 100;
  r = t.run();
  CHECK(r.reason == stop_reason::exhausted);
  CHECK(r.response.empty());

  // Two commits at a time, and no more than there are.
  t.events.clear();
  t.o.rewind_commits = 2;
  t.o.max_rewinds = 1;
  t.judge.says = [](const candidate& c) { return c.response.size() > 2 ? -1.0 : 1.0; };
  t.run();
  CHECK(t.events[2].taken_back == 2);
  CHECK(t.events[2].response.empty());
  t.events.clear();
  t.judge.says = [](const candidate& c) { return c.response.size() > 1 ? -1.0 : 1.0; };
  t.run();
  CHECK(t.events[1].taken_back == 1);
}

TEST_CASE("rain: the end token at once") {
  for (const bool rollout : {false, true}) {
    trial t(steady({1, 0, 0, 0, 0, 0}));
    t.o.rollout = rollout;
    t.judge.says = always(1);
    const rain_result r = t.run();
    CHECK(r.response == token_list{0});
    CHECK(r.reason == stop_reason::ended);
  }
}

TEST_CASE("rain: what it refuses") {
  complete_toy model;
  toy_judge judge{always(0)};
  const auto refuses = [&](const token_list& p, const rain_options& o, const char* what) {
    CHECK_THROWS_WITH(rain(model, judge, token_span(p), o), ContainsSubstring(what));
  };
  refuses({}, {}, "the prompt is empty");
  refuses({1, 12}, {}, "token 1 of the prompt is 12, but the model has 12 tokens");
  refuses({-1}, {}, "token 0 of the prompt is -1");
  model.longest = 3;
  refuses({1, 2, 3, 4}, {}, "the prompt has 4 tokens, but the model's context is 3");
  const auto option = [&](auto change, const char* what) {
    rain_options o;
    change(o);
    refuses({1}, o, what);
  };
  option([](auto& o) { o.set_lengths = {}; }, "`set_lengths`");
  option([](auto& o) { o.set_lengths = {1, 0}; }, "`set_lengths`");
  option([](auto& o) { o.candidates = 0; }, "`candidates`");
  option([](auto& o) { o.top_k = 0; }, "`top_k`");
  option([](auto& o) { o.width = 0; }, "`width`");
  option([](auto& o) { o.candidate_temperature = 0; }, "`candidate_temperature`");
  option([](auto& o) { o.rollout_temperature = -1; }, "`rollout_temperature`");
  option([](auto& o) { o.accept = std::nan(""); }, "`accept`");
  option([](auto& o) { o.max_simulations = 0; }, "`max_simulations`");
  option([](auto& o) { o.sequences.sequences = 0; }, "`sequences`");
  option([](auto& o) { o.limits.tokens = -1; }, "`tokens`");
  option([](auto& o) { o.limits.seconds = std::nan(""); }, "`seconds`");
  option([](auto& o) { o.tree.root_mix = 2; }, "`root_mix`");
  CHECK(model.witness->fuse.calls == 0);
  CHECK(judge.fuse.calls == 0);
}

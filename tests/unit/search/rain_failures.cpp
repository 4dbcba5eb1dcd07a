// Failures that come in hard places: in the midst of what the tree is told, again and again, at a limit; and searches that are asked to go on while
// they are under way.
#include "support/catch.hpp"
#include "support/sequential_rain.hpp"

using namespace plumb;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {

const token_list prompt{1, 2, 3};

/// Calls `round()` again after each failure until the search has ended, but no more than `most` times. How often it was called.
template <class Search>
std::int64_t persistent(Search& search, std::int64_t most = 5000) {
  std::int64_t calls = 0;
  for (bool more = true; more && calls < most;) {
    ++calls;
    try {
      more = search.round();
    } catch (const toy_failure&) {
    }
  }
  CHECK(calls < most);
  return calls;
}
/// What a search has to have in common with one that nothing disturbed.
void same(const rain_result& is, const rain_result& want) {
  CHECK(is.response == want.response);
  CHECK(is.reason == want.reason);
  CHECK(is.best == want.best);
  CHECK(is.counters.simulations == want.counters.simulations);
  CHECK(is.counters.added == want.counters.added);
}
template <class M>
void check_clean(const M& model) {
  CHECK(model.witness->live == 0);
  CHECK(model.witness->broken == std::vector<std::string>{});
}

/// A model that fails at each 20th append.
struct failing_toy : plain_toy {
  using plain_toy::plain_toy;
  std::int64_t appends = 0, period = 0;
  void append(sequence& s, token_span tokens) {
    if (++appends; period > 0 && appends % period == 0) {
      s.dead = true;
      throw toy_failure("this append fails");
    }
    plain_toy::append(s, tokens);
  }
};
static_assert(check_language_model<failing_toy>() && !batched_model<failing_toy>);

}  // namespace

TEST_CASE("rain: an addition that is due with the last leaves of a round is added, whatever fails in between") {
  std::int64_t failures = 0, added = 0;
  for (const auto& [width, judge_batch, seed] : {std::tuple{2, 1, 1u}, {4, 8, 2u}, {8, 1, 3u}, {8, 8, 4u}}) {
    struct recorded {
      rain_result result;
      std::vector<sequential_commit> commits;
      bool failed = false;
    };
    const auto searched = [&, width = width, judge_batch = judge_batch, seed = seed](std::int64_t k) {
      rain_options o;
      o.width = width;
      o.judge_batch = judge_batch;
      o.max_simulations = o.least_simulations = 24;
      o.max_new_tokens = 5;
      o.set_lengths = {3, 1};
      o.max_rollout_tokens = 2;
      o.candidates = o.draws = 2;
      o.top_k = 4;
      o.seed = seed;
      recorded y;
      std::int64_t calls = 0;
      o.stop = [&](token_span) {
        if (++calls != k) return false;
        y.failed = true;
        throw toy_failure("stop fails");
      };
      o.on_commit = recorder(y.commits);
      complete_toy model({.seed = seed, .vocab = 6, .end_logit = -20});
      toy_judge judge{always(-1)};
      {
        rain_search search(model, judge, token_span(prompt), o);
        persistent(search);
        y.result = search.result();
      }
      check_clean(model);
      return y;
    };
    const recorded want = searched(-1);
    added += want.result.counters.added;
    for (std::int64_t k = 1;; ++k) {
      INFO("width " << width << ", judge_batch " << judge_batch << ", seed " << seed << ", call " << k);
      const recorded is = searched(k);
      if (!is.failed) break;
      ++failures;
      same(is.result, want.result);
      CHECK((is.commits == want.commits));
    }
  }
  CHECK(failures > 200);
  CHECK(added > 0);
}

TEST_CASE("rain: a judge that fails every second time it is asked is asked until it has said everything") {
  for (const index_t judge_batch : {1, 3, 8}) {
    INFO("judge_batch " << judge_batch);
    std::int64_t rounds = 0, asked = 0;
    const auto searched = [&](bool fails) {
      rain_options o;
      o.width = 8;
      o.judge_batch = judge_batch;
      o.max_new_tokens = 6;
      complete_toy model({.end_logit = -20});
      asked = 0;
      toy_judge judge{[&](const candidate& c) {
        if (++asked % 2 == 1 && fails) throw toy_failure("the judge fails");
        return hashed_score(3)(c);
      }};
      rain_result y;
      {
        rain_search search(model, judge, token_span(prompt), o);
        rounds = persistent(search);
        y = search.result();
      }
      check_clean(model);
      return y;
    };
    const rain_result want = searched(false);
    const std::int64_t rounds_undisturbed = rounds, texts = asked;
    same(searched(true), want);
    CHECK(asked <= 2 * texts + 1);  // what was said is not asked for again
    CHECK(rounds <= rounds_undisturbed + texts + 1);
  }
}

TEST_CASE("rain: where the event of a commit fails at a limit, the next call says the limit and searches no further") {
  for (const auto reason : {stop_reason::nodes, stop_reason::simulations})
    for (const index_t width : {1, 8}) {
      INFO(name_of(reason) << ", width " << width);
      rain_options o;
      o.width = width;
      o.max_new_tokens = 40;
      (reason == stop_reason::nodes ? o.limits.nodes : o.limits.simulations) = reason == stop_reason::nodes ? 60 : 20;
      std::int64_t commits = 0;
      bool fails = false;
      o.on_commit = [&](const rain_commit&) {
        ++commits;
        if (fails) throw toy_failure("on_commit fails");
      };
      toy_judge judge{hashed_score(3)};
      complete_toy model({.end_logit = -20});
      const rain_result want = rain(model, judge, token_span(prompt), o);
      const std::int64_t commits_undisturbed = commits;
      CHECK(want.reason == reason);
      REQUIRE(commits > 0);
      commits = 0;
      fails = true;
      {
        rain_search search(model, judge, token_span(prompt), o);
        for (std::int64_t i = 0; i < commits_undisturbed; ++i) CHECK_THROWS_AS(search.round(), toy_failure);
        CHECK(std::ranges::equal(search.response(), want.response));
        const std::int64_t tokens = search.counters().tokens, judged = search.counters().judgements;
        CHECK_FALSE(search.round());
        CHECK(search.counters().tokens == tokens);
        CHECK(search.counters().judgements == judged);
        CHECK(commits == commits_undisturbed);
        same(search.result(), want);
        CHECK_FALSE(search.round());
      }
      check_clean(model);
    }
}

TEST_CASE("rain: a model that fails again and again costs little more than one that does not") {
  for (const index_t width : {1, 8}) {
    rain_options o;
    o.width = width;
    o.set_lengths = {2, 4};
    o.candidates = 6;
    o.draws = 8;
    o.max_rollout_tokens = 24;
    o.max_simulations = 20;
    o.max_new_tokens = 10;
    const auto searched = [&](std::int64_t period) {
      failing_toy model({.memory = 3, .end_logit = -20});
      model.period = period;
      toy_judge judge{hashed_score(3)};
      rain_result y;
      {
        rain_search search(model, judge, token_span(prompt), o);
        persistent(search);
        y = search.result();
      }
      check_clean(model);
      CHECK(y.counters.tokens >= model.witness->tokens);
      return y;
    };
    const rain_result want = searched(0), is = searched(20);
    INFO("width " << width << ": " << is.counters.tokens << " tokens, undisturbed " << want.counters.tokens);
    same(is, want);
    CHECK(is.counters.tokens < 2 * want.counters.tokens);
  }
}

TEST_CASE("rain: round() from within round() is refused, and the search goes on") {
  const char* const refusal = "plumb: rain: round() was called from within round(), by the model, the judge or a callback.";
  rain_options o;
  o.width = 4;
  o.max_new_tokens = 8;
  o.max_simulations = 12;
  o.boundary = after_token{{3, 4}};
  const toy_world world{.end_logit = -20};
  complete_toy first(world);
  toy_judge same_judge{hashed_score(3)};
  const rain_result want = rain(first, same_judge, token_span(prompt), o);
  for (const bool by_judge : {true, false})
    for (const bool passes : {true, false}) {  // the refusal is caught by the host, or where it is thrown
      INFO((by_judge ? "judge" : "boundary") << ", passes " << passes);
      rain_search<complete_toy, toy_judge>* inner = nullptr;
      std::int64_t calls = 0, refused = 0;
      const auto nested = [&] {
        if (++calls % 7 != 3) return;
        try {
          inner->round();
          FAIL_CHECK("it was not refused");
        } catch (const std::exception& e) {
          ++refused;
          CHECK_THAT(e.what(), ContainsSubstring(refusal));
          if (passes) throw toy_failure("refused");
        }
      };
      rain_options mine = o;
      if (!by_judge) mine.boundary = [&, b = o.boundary](token_span r) { return nested(), b(r); };
      complete_toy model(world);
      toy_judge judge{[&](const candidate& c) {
        if (by_judge) nested();
        return hashed_score(3)(c);
      }};
      {
        rain_search search(model, judge, token_span(prompt), mine);
        inner = &search;
        persistent(search);
        same(search.result(), want);
      }
      CHECK(refused > 2);
      check_clean(model);
    }
  // A round is over when its event is told.
  complete_toy model(world);
  toy_judge judge{hashed_score(3)};
  rain_search<complete_toy, toy_judge>* inner = nullptr;
  int depth = 0, nested = 0;
  o.on_commit = [&](const rain_commit&) {
    if (depth == 3) return;
    ++depth, ++nested;
    inner->round();
    --depth;
  };
  rain_search search(model, judge, token_span(prompt), o);
  inner = &search;
  persistent(search);
  same(search.result(), want);
  CHECK(nested > 2);
}

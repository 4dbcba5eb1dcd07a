// No limit of a search is passed, whatever its value, and the reason says which it was.
#include "support/catch.hpp"
#include "support/sequential_rain.hpp"

#include "support/allocations.hpp"

#include <thread>

using namespace plumb;
using namespace plumb_test;

namespace {

const token_list prompt{1, 2, 3};

rain_options usual(index_t width) {
  rain_options o;
  o.set_lengths = {1, 2, 3};
  o.candidates = 3;
  o.draws = 4;
  o.boundary = after_token{{3, 4}};
  o.max_rollout_tokens = 5;
  o.max_simulations = 10;
  o.least_simulations = 4;
  o.min_visits = 4;
  o.max_new_tokens = 7;
  o.width = width;
  return o;
}
const toy_world world{.seed = 1, .vocab = 9, .memory = 3, .end_logit = -4};

/// What a search did, with what the model and the judge saw of it.
struct outcome {
  recorded_search is;
  std::int64_t model_tokens = 0, judge_tokens = 0, judged = 0;
};
/// By a model that can do everything and a judge whose tokens count.
outcome searched(const rain_options& o, std::size_t numbers = 3) {
  complete_toy model(world);
  metered_toy_judge judge{{hashed_score(2)}};
  toy_embedder embedder{.numbers = numbers};
  outcome y{.is = recorded_rain(model, judge, prompt, o, embedder)};
  y.model_tokens = model.witness->tokens, y.judge_tokens = judge.used, y.judged = judge.fuse.calls;
  CHECK(model.witness->live == 0);
  CHECK(model.witness->broken == std::vector<std::string>{});
  return y;
}

/// For each value: `used(outcome)` is no more than it. What was committed before the last round is what is committed without a limit; with `factor`
/// times what is used, so is all.
void check_limit(std::int64_t search_limits::* limit, stop_reason reason, std::int64_t step, std::int64_t (*used)(const outcome&),
                 std::int64_t factor = 1) {
  for (const auto& [width, judge_batch] : {std::pair{1, 1}, {4, 1}, {4, 3}}) {
    rain_options o = usual(width);
    o.judge_batch = judge_batch;
    const outcome all = searched(o);
    std::int64_t longest = 0, met = 0;
    for (std::int64_t most = 0; most <= factor * used(all) + step; most += step) {
      INFO(name_of(reason) << " at most " << most << ", width " << width << ", judge_batch " << judge_batch);
      o.limits = {};
      o.limits.*limit = most;
      const outcome y = searched(o);
      if (used(y) > most) FAIL_CHECK("it used " << used(y));
      const bool ended = y.is.result.reason == all.is.result.reason;
      if (!ended && y.is.result.reason != reason) FAIL_CHECK("the reason is " << y.is.result.why_it_stopped());
      if (most >= factor * used(all) && !(ended && y.is.commits == all.is.commits)) FAIL_CHECK("it had all it needs");
      met += !ended;
      for (std::size_t i = 0; i + 1 < y.is.commits.size(); ++i)
        if (i >= all.is.commits.size() || !(y.is.commits[i] == all.is.commits[i])) FAIL_CHECK("commit " << i << " is another");
      longest = std::max(longest, static_cast<std::int64_t>(y.is.result.response.size()));
      const search_counters& n = y.is.result.counters;
      if (n.tokens != y.model_tokens + y.judge_tokens || n.judge_tokens != y.judge_tokens) FAIL_CHECK("it counts tokens wrongly");
      if (n.judgements != y.judged) FAIL_CHECK("it counts judgements wrongly");
    }
    CHECK(met > 3);
    CHECK(longest == static_cast<std::int64_t>(all.is.result.response.size()));
  }
}

}  // namespace

TEST_CASE("rain: no more tokens than allowed, the judge's among them") {
  check_limit(&search_limits::tokens, stop_reason::tokens, 3, [](const outcome& y) { return y.model_tokens + y.judge_tokens; });
}

TEST_CASE("rain: no more judgements than allowed") {
  check_limit(&search_limits::judgements, stop_reason::judgements, 1, [](const outcome& y) { return y.judged; });
}

TEST_CASE("rain: no more simulations than allowed") {
  check_limit(&search_limits::simulations, stop_reason::simulations, 1, [](const outcome& y) { return y.is.result.counters.simulations; });
}

TEST_CASE("rain: no more nodes than allowed") {
  check_limit(&search_limits::nodes, stop_reason::nodes, 1, [](const outcome& y) { return y.is.result.counters.most_nodes; });
}

TEST_CASE("rain: no more bytes than allowed") {
  check_limit(&search_limits::bytes, stop_reason::bytes, 97, [](const outcome& y) { return y.is.result.counters.most_bytes; }, 2);
}

TEST_CASE("rain: nor where every child ends the reply, with long embeddings, nor where many scores are remembered") {
  for (const bool short_replies : {true, false}) {
    rain_options o = usual(1);
    if (short_replies) o.max_new_tokens = 1;
    else o.boundary = nowhere{};
    const std::size_t numbers = short_replies ? 200 : 1;
    const outcome all = searched(o, numbers);
    for (std::int64_t most = 0; most <= all.is.result.counters.most_bytes; most += 67) {
      o.limits.bytes = most;
      const auto used = searched(o, numbers).is.result.counters.most_bytes;
      if (used > most) FAIL_CHECK(used << " bytes, but no more than " << most << " are allowed");
    }
  }
}

TEST_CASE("rain: a deadline of 0 seconds") {
  rain_options o = usual(1);
  o.limits.seconds = 0;
  const outcome y = searched(o);
  CHECK(y.is.result.reason == stop_reason::deadline);
  CHECK(y.is.result.response.empty());
  CHECK(y.model_tokens + y.judged == 0);
  CHECK(y.is.result.counters.simulations == 0);
}

TEST_CASE("rain: a deadline while it searches") {
  complete_toy model(world);
  metered_toy_judge judge{{[](const candidate&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return -0.5;
  }}};
  toy_embedder embedder;
  rain_options o = usual(1);
  o.max_new_tokens = 4000;
  o.set_lengths = {1};
  o.limits.seconds = 0.02;
  const rain_result r = rain(model, judge, token_span(prompt), o, embedder);
  CHECK(r.reason == stop_reason::deadline);
  CHECK(judge.fuse.calls >= 1);
  CHECK(judge.fuse.calls <= 11);
  CHECK(model.witness->live == 0);
}

TEST_CASE("rain: cancelled before it begins") {
  std::stop_source source;
  source.request_stop();
  rain_options o = usual(4);
  o.cancel = source.get_token();
  const outcome y = searched(o);
  CHECK(y.is.result.reason == stop_reason::cancelled);
  CHECK(y.is.result.response.empty());
  CHECK(y.model_tokens + y.judged == 0);
}

TEST_CASE("rain: cancelled by a callback, or by the judge, no call follows") {
  for (const auto& [width, judge_batch] : {std::pair{1, 1}, {4, 1}, {4, 3}}) {
    rain_options o = usual(width);
    o.judge_batch = judge_batch;
    const outcome all = searched(o);
    toy_embedder embedder;
    {
      std::stop_source source;
      complete_toy model(world);
      metered_toy_judge judge{{hashed_score(2)}};
      o.cancel = source.get_token();
      std::int64_t passes = -1;
      o.on_commit = [&](const rain_commit&) {
        source.request_stop();
        passes = model.witness->passes;
      };
      const rain_result r = rain(model, judge, token_span(prompt), o, embedder);
      CHECK(r.reason == stop_reason::cancelled);
      CHECK(r.counters.rounds == 1);
      CHECK(std::ranges::equal(r.response, token_span(all.is.result.response).first(r.response.size())));
      CHECK(model.witness->passes == passes);
    }
    for (std::int64_t k = 1; k <= 12; ++k) {
      std::stop_source source;
      complete_toy model(world);
      std::int64_t passes = -1, asked = 0;
      metered_toy_judge judge{{[&](const candidate& c) {
        if (++asked == k) {
          source.request_stop();
          passes = model.witness->passes;
        }
        return hashed_score(2)(c);
      }}};
      o.cancel = source.get_token();
      o.on_commit = {};
      const rain_result r = rain(model, judge, token_span(prompt), o, embedder);
      CHECK(r.reason == stop_reason::cancelled);
      CHECK(model.witness->passes == passes);
      CHECK(asked <= k + width - 1);  // those of the call
      CHECK(model.witness->live == 0);
    }
  }
}

TEST_CASE("rain: a search that was stopped by a limit has ended") {
  rain_options o = usual(1);
  o.limits.tokens = 60;
  complete_toy model(world);
  metered_toy_judge judge{{hashed_score(2)}};
  toy_embedder embedder;
  rain_search<complete_toy, metered_toy_judge, toy_embedder> search(model, judge, token_span(prompt), o, embedder);
  while (search.round()) {
  }
  CHECK(search.reason() == stop_reason::tokens);
  const auto before = model.witness->fuse.calls;
  CHECK_FALSE(search.round());
  CHECK(model.witness->fuse.calls == before);
  CHECK(wrong_in(search.tree(), false, true) == "");
}

namespace {

/// A round of very many simulations, of one token each; no text comes twice. `most`: bytes that C++ allocated for it.
struct large_search {
  search_counters counters;
  stop_reason reason;
  std::int64_t bytes = 0, nodes = 0;  ///< of its tree, at the end
  long long most = 0, left = 0;
};
large_search searched(const search_limits& limits, index_t width) {
  complete_toy model({.seed = 3, .vocab = 12, .memory = 1, .end_logit = -30});
  metered_toy_judge judge{{hashed_score(4, 0)}};
  toy_embedder embedder;
  rain_options o;
  o.set_lengths = {1};
  o.rollout = false;
  o.max_simulations = 1000000;
  o.min_visits = 1000000;
  o.remembered_scores = 2000;
  o.add_children = false;
  o.tree.exploration = 20;  // as broad as deep
  o.limits = limits;
  o.width = width;
  large_search y{};
  const long long before = live_bytes;
  most_live_bytes = before;
  {
    rain_search<complete_toy, metered_toy_judge, toy_embedder> search(model, judge, token_span(prompt), o, embedder);
    search.round();
    y.counters = search.counters(), y.reason = search.reason();
    y.bytes = search.bytes(), y.nodes = static_cast<std::int64_t>(search.tree().nodes().size());
    y.most = most_live_bytes - before;
    if (width == 1) CHECK(wrong_in(search.tree(), false, false) == "");
  }
  y.left = live_bytes - before;
  return y;
}

}  // namespace

TEST_CASE("rain: 100,000 nodes stay within their bytes, as the allocator counts them") {
  constexpr long long beside = 200000;  // sequences, the batch's texts: nothing that grows with the tree
  const large_search all = searched({.nodes = 100000}, 8);
  CHECK(all.reason == stop_reason::nodes);
  CHECK(all.counters.most_nodes > 99000);
  CHECK(all.counters.most_nodes <= 100000);
  CHECK(all.most <= all.counters.most_bytes + beside);
  CHECK(all.counters.most_bytes <= 2 * all.most + beside);  // it does not cry wolf
  CHECK(all.left < 100000);                                 // the toys'
  for (const index_t width : {1, 8})
    for (const std::int64_t bytes : {std::int64_t{1000000}, all.counters.most_bytes / 2}) {
      const large_search y = searched({.bytes = bytes}, width);
      INFO(bytes << " bytes, " << y.nodes << " nodes, width " << width);
      CHECK(y.reason == stop_reason::bytes);
      CHECK(y.counters.most_bytes <= bytes);
      CHECK(y.counters.most_bytes > bytes - 20000);
      CHECK(y.most <= bytes + beside);
    }
}

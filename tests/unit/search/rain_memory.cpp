// Memory that runs out at any moment of a search: it stays whole, and goes on as if nothing had been once there is some again.
#include "support/allocation_counts.hpp"  // rain_limits.cpp replaces operator new for the whole program
#include "support/catch.hpp"
#include "support/sequential_rain.hpp"

using namespace plumb;
using namespace plumb_test;

namespace {

const token_list prompt{1, 2, 3};

/// What has to be the same whether memory ran out or not.
struct outcome {
  rain_result result;
  std::vector<std::vector<double>> records;
  long allocations = 0;
  bool failed = false;
};
struct setting {
  const char* name;
  toy_world world;
  std::function<double(const candidate&)> says;
  rain_options options;
};

/// The `k`-th allocation in `round()` fails; none for -1.
template <class M, class... Embedder>
outcome searched(const setting& s, bool plain, long k, Embedder... embedder) {
  M model(s.world);
  toy_judge judge{s.says};
  rain_options o = s.options;
  token_list told;  // what the last event said is committed
  told.reserve(1000);
  o.on_commit = [&](const rain_commit& c) { told.assign(c.response.begin(), c.response.end()); };
  outcome y;
  {
    rain_search<M, toy_judge, Embedder...> search(model, judge, token_span(prompt), o, embedder...);
    const long long before = allocations();
    allocation_that_fails = k < 0 ? -1 : before + k;
    for (bool more = true; more;) {
      try {
        more = search.round();
      } catch (const std::bad_alloc&) {
        if (y.failed) FAIL("it fails for another reason");
        y.failed = true;
        const std::string wrong = wrong_in(search.tree(), plain, o.add_children);
        if (!wrong.empty()) FAIL_CHECK(wrong);
      }
      if (!std::ranges::equal(search.response(), told)) FAIL_CHECK("the response is not what was committed");
    }
    allocation_that_fails = -1;
    y.allocations = static_cast<long>(allocations() - before);
    y.result = search.result();
    for (const rain_record& x : search.records()) {
      y.records.push_back({double(x.id), double(x.parent), double(x.depth), double(x.round), x.prior, x.visits, x.value, double(x.evaluations),
                           double(x.terminal), double(x.committed)});
      y.records.back().insert(y.records.back().end(), x.tokens.begin(), x.tokens.end());
    }
  }
  if (model.witness->live != 0 || !model.witness->broken.empty()) FAIL_CHECK("a sequence leaks, or a law is broken");
  return y;
}

/// Each `stride`-th allocation, from another one on each time, so that different places fail. The undisturbed search.
template <class M, class... Embedder>
outcome short_of_memory(const setting& s, bool plain, long stride, Embedder... embedder) {
  const outcome want = searched<M>(s, plain, -1, embedder...);
  CHECK(want.allocations > 300);
  static long first = 0;
  for (long k = 1 + first++ % stride; k <= want.allocations; k += stride) {
    INFO(s.name << ", width " << s.options.width << ", allocation " << k << " of " << want.allocations);
    const outcome is = searched<M>(s, plain, k, embedder...);
    if (!is.failed) FAIL_CHECK("nothing failed");
    CHECK(is.result.response == want.result.response);
    CHECK(is.result.reason == want.result.reason);
    CHECK(is.result.condemned == want.result.condemned);
    CHECK(is.result.best == want.result.best);
    CHECK(is.result.best_score == want.result.best_score);
    CHECK(is.result.counters.simulations == want.result.counters.simulations);
    CHECK(is.result.counters.added == want.result.counters.added);
    CHECK(is.result.counters.taken_back == want.result.counters.taken_back);
    CHECK((is.records == want.records));
  }
  return want;
}

setting additions(index_t width) {
  setting s{.name = "additions", .world = {.vocab = 4}, .says = always(-1), .options = {}};
  rain_options& o = s.options;
  o.width = width;
  o.max_simulations = o.least_simulations = 20;
  o.max_new_tokens = 4;
  o.seed = 5;
  o.set_lengths = {2};
  o.max_rollout_tokens = 1;
  o.candidates = o.draws = o.top_k = 2;
  o.addition_tries = 3;
  o.tree.variance_threshold = 10;
  return s;
}
setting rewinding(index_t width) {
  setting s{.name = "rewinding", .world = {.vocab = 5, .end_logit = -20}, .says = dead_ends(5), .options = {}};
  rain_options& o = s.options;
  o.width = width;
  o.max_simulations = 8;
  o.least_simulations = 4;
  o.max_new_tokens = 8;
  o.seed = 5;
  o.set_lengths = {2};
  o.max_rollout_tokens = 1;
  o.candidates = o.draws = 3;
  o.top_k = 4;
  o.fallback = rain_fallback::rewind;
  o.max_rewinds = 3;
  o.rewind_commits = 1;
  return s;
}

}  // namespace

TEST_CASE("rain: memory that runs out at any moment") {
  const long long before = allocations();
  ::operator delete(::operator new(1));
  REQUIRE(allocations() > before);
  constexpr long stride = 23;
  std::int64_t added = 0, taken_back = 0;
  for (const index_t width : {1, 3, 8}) {
    setting s = additions(width);
    added += short_of_memory<plain_toy>(s, true, stride).result.counters.added;
    s.options.remembered_scores = 0;
    added += short_of_memory<complete_toy>(s, false, 2 * stride, toy_embedder{}).result.counters.added;
    s.options.reuse = false;
    s.options.keep_discarded = true;
    short_of_memory<complete_toy>(s, true, 2 * stride);
    s = rewinding(width);
    taken_back += short_of_memory<plain_toy>(s, true, stride).result.counters.taken_back;
    s.options.keep_discarded = true;
    taken_back += short_of_memory<plain_toy>(s, true, stride).result.counters.taken_back;
    s.options.fallback = rain_fallback::best_so_far;
    CHECK(short_of_memory<plain_toy>(s, true, stride).result.reason == stop_reason::condemned);
  }
  CHECK(added > 0);
  CHECK(taken_back > 0);
}

// Memory that runs out at any moment of a search: it stays whole, and goes on as if nothing had been once there is some again.
#include "support/catch.hpp"
#include "support/sequential_rain.hpp"

#include <cstdlib>
#include <new>

namespace {

// What `round()` allocates is counted, and one allocation fails.
thread_local bool watched = false;
thread_local long allocated = 0, fails_at = -1;

[[gnu::noinline]] void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (watched && ++allocated == fails_at) return nullptr;
  if (bytes == 0) bytes = 1;
  return alignment <= alignof(std::max_align_t) ? std::malloc(bytes) : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
[[gnu::noinline]] void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  if (void* p = allocate(bytes, alignment)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void release(void* p) noexcept { std::free(p); }
constexpr std::size_t usual_alignment = alignof(std::max_align_t);

}  // namespace

// Weak: where another file of the program replaces them as well, its own are taken and the test below is skipped.
#define PLUMB_WEAK [[gnu::weak]]
PLUMB_WEAK void* operator new(std::size_t n) { return allocate_or_throw(n, usual_alignment); }
PLUMB_WEAK void* operator new[](std::size_t n) { return allocate_or_throw(n, usual_alignment); }
PLUMB_WEAK void* operator new(std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
PLUMB_WEAK void* operator new[](std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
PLUMB_WEAK void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, usual_alignment); }
PLUMB_WEAK void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, usual_alignment); }
PLUMB_WEAK void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(n, static_cast<std::size_t>(a)); }
PLUMB_WEAK void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(n, static_cast<std::size_t>(a)); }
PLUMB_WEAK void operator delete(void* p) noexcept { release(p); }
PLUMB_WEAK void operator delete[](void* p) noexcept { release(p); }
PLUMB_WEAK void operator delete(void* p, std::size_t) noexcept { release(p); }
PLUMB_WEAK void operator delete[](void* p, std::size_t) noexcept { release(p); }
PLUMB_WEAK void operator delete(void* p, std::align_val_t) noexcept { release(p); }
PLUMB_WEAK void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
PLUMB_WEAK void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
PLUMB_WEAK void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
PLUMB_WEAK void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
PLUMB_WEAK void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
PLUMB_WEAK void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
PLUMB_WEAK void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
#undef PLUMB_WEAK

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
    allocated = 0;
    fails_at = k;
    for (bool more = true; more;) {
      try {
        watched = true;
        more = search.round();
        watched = false;
      } catch (const std::bad_alloc&) {
        watched = false;
        if (y.failed) FAIL("it fails for another reason");
        y.failed = true;
        const std::string wrong = wrong_in(search.tree(), plain, o.add_children);
        if (!wrong.empty()) FAIL_CHECK(wrong);
      }
      if (!std::ranges::equal(search.response(), told)) FAIL_CHECK("the response is not what was committed");
    }
    y.allocations = allocated;
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
  watched = true;
  allocated = 0;
  ::operator delete(::operator new(1));
  watched = false;
  if (allocated == 0) SKIP("another file of this program replaces operator new");
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

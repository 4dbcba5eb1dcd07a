// What every objective promises about the machine below: after the first call it allocates nothing, starts no thread, waits for nothing.

#include "support/allocations.hpp"
#include "support/catch.hpp"

#include <plumb/plumb.hpp>
#include <plumb/testing/memory.hpp>

#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#endif

#include <algorithm>
#include <filesystem>
#include <vector>

#include <dlfcn.h>

using namespace plumb;
using plumb_test::allocations;

#if __has_include(<plumb/backends/onednn.hpp>)
namespace {
int waits = 0;
}
// Stands before oneDNN's own: whatever waits for a stream passes here.
extern "C" dnnl_status_t dnnl_stream_wait(dnnl_stream_t stream) {
  ++waits;
  static const auto real = reinterpret_cast<dnnl_status_t (*)(dnnl_stream_t)>(dlsym(RTLD_NEXT, "dnnl_stream_wait"));
  return real(stream);
}
#endif

namespace {

/// The serial backend, whose `sync` counts.
struct counting : serial::backend<float> {
  int syncs = 0;
  void sync() { ++syncs; }
};

std::vector<float> numbers(std::uint64_t seed, index_t count) {
  const auto x = testing::normal_numbers(seed, count);
  return {x.begin(), x.end()};
}

/// Inputs and outputs of every objective.
struct batch {
  static constexpr index_t n = 24, d = 16, v = 50, pairs = 6, replies = 6, attributes = 5;
  std::vector<float> logits = numbers(1, n * v), hidden = numbers(2, n * d), head = numbers(3, v * d), bias = numbers(4, v), chosen = numbers(5, pairs),
                     rejected = numbers(6, pairs), logp = numbers(7, n), ref_logp = numbers(8, n), prediction = numbers(9, replies * attributes),
                     label = numbers(10, replies * attributes), weights = numbers(11, attributes);
  std::vector<std::int32_t> targets = std::vector<std::int32_t>(n, 3), begin{0, 6, 12, 18}, end{6, 12, 18, 24}, first{0, 2}, second{1, 3};
  std::vector<float> loss{0}, a = std::vector<float>(n), b = std::vector<float>(n), c = std::vector<float>(n), d_logits = std::vector<float>(n * v),
                     d_hidden = std::vector<float>(n * d), d_head = std::vector<float>(v * d), d_bias = std::vector<float>(v),
                     d_prediction = std::vector<float>(replies * attributes), metrics = std::vector<float>(20);
  std::vector<char> memory = std::vector<char>(1 << 20);

  /// Calls `f(name, call)` for each objective on `compute`; `gemms` is how many products the call makes.
  template <class B, class F>
  void each_objective(B& compute, const F& f) {
    arena<> scratch(memory);
    const token_logp_inputs<float> rows{view(logits.data(), n, v), targets};
    f("token_logp", 0, [&] { token_logp(compute, scratch, rows, {.temperature = 0.7}, {a, b, c}); });
    f("token_logp_backward", 0, [&] { token_logp_backward(compute, scratch, rows, {}, {b, a, c, a}, view(d_logits.data(), n, v)); });
    const linear_token_logp_inputs<float> states{view(hidden.data(), n, d), view(head.data(), v, d), bias, targets, {}};
    f("linear_token_logp", 3, [&] { linear_token_logp(compute, scratch, states, {.chunk_rows = 8}, {a, b, {}}); });
    f("linear_token_logp_backward", 9, [&] {
      linear_token_logp_backward(compute, scratch, states, {.chunk_rows = 8}, {.log_sum_exp = b, .d_logp = a},
                                 {.d_hidden = view(d_hidden.data(), n, d), .d_head = view(d_head.data(), v, d), .d_bias = d_bias});
    });
    f("bradley_terry", 0, [&] {
      bradley_terry(compute, scratch, {.chosen = chosen, .rejected = rejected}, {.center_coefficient = 0.1, .denominator = pairs},
                    {.loss = loss, .d_chosen = view(a).slice(0, pairs), .metrics = view(metrics.data(), 7, 2)});
    });
    f("attribute_regression", 0, [&] {
      attribute_regression(compute, scratch, {view(prediction.data(), replies, attributes), view(label.data(), replies, attributes)},
                           {.denominator = 30}, {loss, view(d_prediction.data(), replies, attributes), view(metrics.data(), attributes, 2)});
    });
    f("goal_reward", 1, [&] {
      goal_reward(compute, scratch, view(prediction.data(), replies, attributes), weights, {.mean = 1}, view(a).slice(0, replies));
    });
    const sequence_layout<> sequences{begin, end, {}};
    f("supervised", 0, [&] {
      supervised(compute, scratch, {logp, sequences}, {.denominator = 24}, {loss, a, view(metrics.data(), 2, 2)});
    });
    f("dpo", 0, [&] {
      dpo(compute, scratch, {logp, ref_logp, {sequences, first, second}}, {.denominator = 2}, {loss, a, {}, view(metrics.data(), 6, 2)});
    });
  }
};

std::size_t threads() {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) ++n;
  return n;
}

}  // namespace

TEST_CASE("contract: on serial, an objective allocates nothing and never waits") {
  counting compute;
  batch x;
  x.each_objective(compute, [&](const char* name, int, const auto& call) {
    CAPTURE(name);
    call();
    const long long start = allocations();
    call();
    const long long made = allocations() - start;
    CHECK(made == 0);
  });
  CHECK(compute.syncs == 0);
}

TEST_CASE("contract: on serial, an objective starts no thread") {
  if (!std::filesystem::exists("/proc/self/task")) return plumb_test::skip("threads are counted in /proc, which is not mounted here");
  serial::backend<float> compute;
  batch x;
  const std::size_t before = threads();
  x.each_objective(compute, [&](const char*, int, const auto& call) { call(); });
  CHECK(threads() == before);
}

TEST_CASE("contract: the counter sees an allocation") {
  const long long start = allocations();
  delete new int;
  CHECK(allocations() == start + 1);
}

#if __has_include(<plumb/backends/onednn.hpp>)
TEST_CASE("contract: on onednn, an objective allocates no more than its products, and never waits for the stream") {
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const dnnl::stream stream{engine};
  onednn::backend compute{engine, stream};
  batch x;
  // What one product allocates here: tests/unit/backends/onednn.cpp holds it to what the bare primitive does.
  std::vector<float> c(64);
  arena<> scratch(x.memory);
  long long per_product = 0;
  for (const float beta : {0.0f, 1.0f}) {
    const auto product = [&] {
      compute.gemm(scratch, 1.0f, view<const float, 2>(x.hidden.data(), 8, 8), view<const float, 2>(x.head.data(), 8, 8), beta, view(c.data(), 8, 8));
    };
    product();
    const long long start = allocations();
    product();
    per_product = std::max(per_product, allocations() - start);
  }
  waits = 0;
  x.each_objective(compute, [&](const char* name, int products, const auto& call) {
    CAPTURE(name, per_product);
    call();
    const long long at = allocations();
    call();
    const long long made = allocations() - at;
    CHECK(made <= products * per_product);
  });
  CHECK(waits == 0);
  compute.sync();
  CHECK(waits == 1);
}
#endif

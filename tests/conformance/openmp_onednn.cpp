// The oneDNN backend's own loops on OpenMP's threads: compiled with -fopenmp, on arrays large enough to be shared out. One thread and four
// give the same bits, since the pieces do not depend on the number of threads, and what they give is what the serial backend does in double.

#include <plumb/backends/onednn.hpp>
#include <plumb/ops/token_logp.hpp>
#include <plumb/testing/compare.hpp>
#include <plumb/testing/memory.hpp>

#include "support/catch.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#if !defined(_OPENMP)
#error "this test is about OpenMP: compile it with -fopenmp"
#endif

using namespace plumb;
using testing::placement;

namespace {

constexpr index_t large = (index_t{1} << 17) + 1237;  // more than share() gives to one thread, and no multiple of anything
constexpr index_t rows = 211, columns = 1009;
static_assert(rows * columns > large);

/// One backend, the type that it computes in, and what came out of it.
template <class B>
struct side {
  using real = real_of<B>;
  template <class T, int R>
  using array = testing::placed<T, R, host_space>;
  B& compute;
  std::vector<std::vector<double>> outputs{};

  template <int R>
  array<real, R> in(const index_t (&extents)[R], std::uint64_t seed, placement p = placement::dense, double deviation = 1) const {
    index_t count = 1;
    for (const index_t e : extents) count *= e;
    auto values = testing::normal_numbers(seed, count, deviation);
    for (double& v : values) v = static_cast<double>(static_cast<float>(v));
    return {extents, p, values};
  }
  template <int R>
  array<real, R> empty(const index_t (&extents)[R], placement p = placement::dense) const {
    return {extents, p};
  }
  template <class... A>
  void out(const A&... results) {
    compute.sync();
    (outputs.push_back(results.read()), ...);
    REQUIRE((results.guards_unchanged() && ...));
  }
};

bool same_bits(const std::vector<double>& x, const std::vector<double>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(double)) == 0);
}

/// Runs `f` on the backend with one thread, with four, with four again, and on the serial backend in double; each result is compared relative
/// to its own largest number.
template <class F>
void compare_threads(double relative, const F& f) {
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const dnnl::stream stream{engine};
  onednn::backend compute{engine, stream};
  serial::backend<double> reference;
  const auto outputs = [&](int threads) {
    omp_set_num_threads(threads);
    side<onednn::backend> s{compute};
    f(s);
    return s.outputs;
  };
  const auto one = outputs(1), four = outputs(4), again = outputs(4);
  omp_set_num_threads(1);
  side<serial::backend<double>> want{reference};
  f(want);
  REQUIRE(want.outputs.size() == four.size());
  for (std::size_t i = 0; i < four.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(four[i], again[i]));  // determinism::run_to_run
    CHECK(same_bits(four[i], one[i]));  // pieces do not depend on the number of threads
    double largest = 0;
    for (const double v : want.outputs[i]) largest = std::max(largest, std::abs(v));
    const auto verdict = testing::compare(four[i], {want.outputs[i], std::vector<double>(four[i].size(), largest)}, relative);
    CAPTURE(verdict.index, verdict.got, verdict.want);
    CHECK(verdict.good());
  }
}

struct mix {
  template <class T>
  T operator()(const T& a, const T& b, const T& c, const T& d) const {
    return a - T(2) * b + c * d;
  }
};
struct mix2 {
  template <class T>
  two<T> operator()(const T& a, const T& b) const {
    return {a + T(2) * b, a * b};
  }
};

std::atomic<int> threads_seen{0};
struct count_threads {
  template <class T>
  T operator()(const T& x) const {
    threads_seen = std::max(threads_seen.load(), omp_get_num_threads());
    return x;
  }
};

}  // namespace

TEST_CASE("openmp: large arrays are shared between threads, small ones are not") {
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const dnnl::stream stream{engine};
  onednn::backend compute{engine, stream};
  omp_set_num_threads(4);
  for (const index_t n : {index_t{1000}, large}) {
    threads_seen = 0;
    std::vector<float> x(static_cast<std::size_t>(n), 1.0f), y(x.size());
    compute.transform(count_threads{}, view<float, 1>(y), view<const float, 1>(x));
    CHECK(threads_seen == (n == large ? 4 : 1));
    CHECK(y == x);
  }
}

TEST_CASE("openmp: transform, transform2, fill and copy") {
  for (const placement p : {placement::dense, placement::padded, placement::strided, placement::transposed, placement::reversed}) {
    CAPTURE(static_cast<int>(p));
    compare_threads(1e-6, [&](auto& s) {
      const index_t e[2] = {rows, columns}, line[1] = {large};
      const auto a = s.in(e, 1, p), b = s.in(e, 2), c = s.in(e, 3, p), d = s.in(e, 4);
      const auto x = s.in(line, 5, p), y = s.in(line, 6);
      auto mixed = s.empty(e), first = s.empty(e, p), second = s.empty(e), copied = s.empty(e), filled = s.empty(e, p);
      auto along = s.empty(line, p);
      s.compute.transform(mix{}, mixed.view(), a.in(), b.in(), c.in(), d.in());
      s.compute.transform2(mix2{}, first.view(), second.view(), a.in(), b.in());
      s.compute.copy(a.in(), copied.view());
      s.compute.fill(filled.view(), 3);
      s.compute.transform(math::plus{}, along.view(), x.in(), y.in());
      s.out(mixed, first, second, copied, filled, along);
    });
  }
}

TEST_CASE("openmp: 16-bit copies") {
  compare_threads(0, [](auto& s) {
    using side_type = std::remove_reference_t<decltype(s)>;
    const index_t e[2] = {rows, columns};
    const auto a = s.in(e, 7);
    typename side_type::template array<bf16, 2> narrow(e, placement::transposed);
    auto wide = s.empty(e);
    s.compute.copy(a.in(), narrow.view());
    s.compute.copy(narrow.in(), wide.view());
    s.out(narrow, wide);
  });
}

TEST_CASE("openmp: reduce") {
  for (const reduction op : {reduction::sum, reduction::max}) {
    CAPTURE(op == reduction::sum);
    compare_threads(1e-5, [&](auto& s) {
      const index_t e[2] = {rows, columns}, line[1] = {large}, one[1] = {1}, by_rows[2] = {rows, 1}, by_columns[2] = {1, columns};
      const auto x = s.in(e, 8), gaps = s.in(e, 9, placement::padded);
      const auto y = s.in(line, 10);
      auto r = s.empty(by_rows), padded = s.empty(by_rows), c = s.empty(by_columns), added = s.in(by_rows, 11);
      auto all = s.empty(one);
      s.compute.reduce(op, x.in(), r.view(), write_mode::overwrite);
      s.compute.reduce(op, gaps.in(), padded.view(), write_mode::overwrite);
      s.compute.reduce(op, x.in(), c.view(), write_mode::overwrite);
      s.compute.reduce(op, y.in(), all.view(), write_mode::overwrite);
      s.compute.reduce(op, x.in(), added.view(), write_mode::add);
      s.out(r, padded, c, all, added);
    });
  }
}

TEST_CASE("openmp: rows") {
  compare_threads(2e-6, [](auto& s) {
    const index_t e[2] = {rows, columns}, n[1] = {rows};
    const auto x = s.in(e, 12, placement::padded, 3), g = s.in(e, 13);
    std::vector<double> valid, ids;
    for (index_t i = 0; i < rows; ++i) {
      valid.push_back(static_cast<double>((i * 37) % (columns + 1)));
      ids.push_back(static_cast<double>(i % 7 == 3 ? -1 : (i * 5) % rows));
    }
    const testing::placed<std::int32_t, 1, host_space> counts(n, placement::dense, valid), which(n, placement::dense, ids);
    auto lse = s.empty(n);
    auto softmax = s.empty(e), part = s.empty(e), grad = s.empty(e), gathered = s.empty(e), scattered = s.in(e, 14);
    s.compute.row_log_sum_exp(x.in(), lse.view());
    s.compute.row_softmax(x.in(), {}, softmax.view());
    s.compute.row_softmax(x.in(), counts.in(), part.view());
    s.compute.row_softmax_grad(softmax.in(), g.in(), grad.view());
    s.compute.row_gather(x.in(), which.in(), gathered.view());
    s.compute.row_scatter_add(g.in(), which.in(), scattered.view());
    s.out(lse, softmax, part, grad, gathered, scattered);
  });
}

TEMPLATE_TEST_CASE("openmp: fused rows", "", float, bf16, f16) {
  // A gradient stored in 16 bits is rounded there once on each side; 1e-5 is that of the log-probs' exponent.
  const double tolerance = 1e-5 + (std::is_same_v<TestType, float> ? 0 : 2 * testing::storage_epsilon<TestType>());
  for (const bool forward : {true, false})
    compare_threads(forward ? 1e-5 : tolerance, [&](auto& s) {
      using side_type = std::remove_reference_t<decltype(s)>;
      using real = typename side_type::real;
      using S = std::conditional_t<std::is_same_v<TestType, float>, real, TestType>;
      const index_t e[2] = {rows, columns}, n[1] = {rows};
      const auto values = s.in(e, 15, placement::dense, 3).given();
      typename side_type::template array<S, 2> logits(e, placement::padded, values), d_logits(e, placement::dense);
      const testing::placed<std::int32_t, 1, host_space> targets(n, placement::dense, testing::random_ids(16, rows, columns));
      auto logp = s.empty(n), lse = s.empty(n), entropy = s.empty(n);
      const auto d_logp = s.in(n, 17), d_entropy = s.in(n, 18);
      std::vector<unsigned char> memory(std::size_t{1} << 24);
      arena<> scratch(memory);
      const token_logp_options options{.temperature = 0.8, .softcap = 20};
      const token_logp_inputs<S> in{logits.in(), targets.in()};
      token_logp(s.compute, scratch, in, options, {logp.view(), lse.view(), entropy.view()});
      if (forward) return s.out(logp, lse, entropy);
      token_logp_backward(s.compute, scratch, in, options,
                          {.log_sum_exp = lse.in(), .d_logp = d_logp.in(), .entropy = entropy.in(), .d_entropy = d_entropy.in()},
                          d_logits.view());
      token_logp_backward(s.compute, scratch, in, options, {.log_sum_exp = lse.in(), .d_logp = d_logp.in()}, logits.view());
      s.out(d_logits, logits);
    });
}

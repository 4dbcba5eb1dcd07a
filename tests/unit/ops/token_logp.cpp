// Token log-probabilities: against the plain formula, gradients three ways, in place, ignored targets, storage types, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/token_logp.hpp>
#include <plumb/testing/memory.hpp>
#include <plumb/testing/oracle.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

constexpr index_t n = 4, v = 7;
const std::vector<std::int32_t> targets{3, -1, 0, 6};
const token_logp_options all_options[] = {{}, {.temperature = 0.7}, {.softcap = 4}, {.temperature = 2, .softcap = 3, .logit_scale = 0.5}};

/// `sum_i a_i logp_i + b_i entropy_i`, and its gradient.
template <class T>
struct result {
  T value{};
  std::vector<T> gradient = std::vector<T>(n * v), logp = std::vector<T>(n), lse = std::vector<T>(n), entropy = std::vector<T>(n);
};
template <class T>
result<T> run(const std::vector<T>& x, const token_logp_options& options) {
  desk<T> d;
  result<T> r;
  const auto coefficients = normal_numbers(11, n), entropy_coefficients = normal_numbers(12, n);
  const std::vector<T> a(coefficients.begin(), coefficients.end()), b(entropy_coefficients.begin(), entropy_coefficients.end());
  const token_logp_inputs<T> in{view(x.data(), n, v), targets};
  token_logp(d.compute, d.scratch, in, options, {r.logp, r.lse, r.entropy});
  token_logp_backward(d.compute, d.scratch, in, options, {r.lse, a, r.entropy, b}, view(r.gradient.data(), n, v));
  for (std::size_t i = 0; i < n; ++i) r.value = r.value + a[i] * r.logp[i] + b[i] * r.entropy[i];
  return r;
}

}  // namespace

TEST_CASE("token_logp: the plain formula") {
  const auto x = normal_numbers(13, n * v, 2);
  for (const auto& o : all_options) {
    const auto r = run(x, o);
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<double> u;
      for (std::size_t j = 0; j < v; ++j) {
        double z = o.logit_scale * x[i * v + j];
        if (o.softcap > 0) z = o.softcap * std::tanh(z / o.softcap);
        u.push_back(z / o.temperature);
      }
      const double lse = testing::oracle::log_sum_exp(u);
      double entropy = 0;
      for (const double z : u) entropy -= std::exp(z - lse) * (z - lse);
      CHECK(r.lse[i] == Catch::Approx(lse).epsilon(1e-14));
      const double logp = targets[i] < 0 ? 0 : u[static_cast<std::size_t>(targets[i])] - lse;
      CHECK(r.logp[i] == Catch::Approx(logp).epsilon(1e-13));
      CHECK(r.entropy[i] == Catch::Approx(entropy).epsilon(1e-13));
    }
  }
}

TEST_CASE("token_logp: gradients by dual numbers and differences") {
  const auto x = normal_numbers(13, n * v, 2);
  for (const auto& o : all_options)
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, o).value; }, x, run(x, o).gradient);
}

TEST_CASE("token_logp: a far target keeps its log-probability, where log(softmax) has lost it") {
  const std::vector<float> x{0, -500, 800};
  const std::vector<std::int32_t> ids{1};
  float logp = 0;
  desk<float> d;
  token_logp(d.compute, d.scratch, token_logp_inputs<float>{view(x.data(), 1, 3), ids}, {}, {logp, {}, {}});
  CHECK(logp == -1300);
}

TEST_CASE("token_logp: columns that are -inf are impossible tokens") {
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<double> x{1, -inf, 2, -inf};
  const std::vector<std::int32_t> ids{2};
  std::vector<double> logp(1), lse(1), entropy(1), d_logp{1}, d_entropy{1}, g(4);
  desk<double> d;
  const token_logp_inputs<double> in{view(x.data(), 1, 4), ids};
  token_logp(d.compute, d.scratch, in, {}, {logp, lse, entropy});
  token_logp_backward(d.compute, d.scratch, in, {}, {lse, d_logp, entropy, d_entropy}, view(g.data(), 1, 4));
  const double p = 1 / (1 + std::exp(-1.0));
  CHECK(logp[0] == Catch::Approx(std::log(p)).epsilon(1e-14));
  CHECK(entropy[0] == Catch::Approx(-p * std::log(p) - (1 - p) * std::log(1 - p)).epsilon(1e-14));
  CHECK(g[1] == 0);
  CHECK(g[3] == 0);
  CHECK(g[0] == Catch::Approx(-g[2]).epsilon(1e-14));
}

TEST_CASE("token_logp: the gradient may overwrite the logits") {
  auto x = normal_numbers(13, n * v, 2);
  const auto apart = run(x, {.softcap = 4});
  const auto a = normal_numbers(11, n), b = normal_numbers(12, n);
  desk<double> d;
  const view<double, 2> logits(x.data(), n, v);
  token_logp_backward(d.compute, d.scratch, token_logp_inputs<double>{logits, targets}, {.softcap = 4}, {apart.lse, a, apart.entropy, b}, logits);
  CHECK(x == apart.gradient);
}

TEST_CASE("token_logp: rows with a stride, in 16-bit storage") {
  const auto values = normal_numbers(14, n * 10, 2);
  std::vector<bf16> x;
  for (const double w : values) x.push_back(bf16(static_cast<float>(w)));
  std::vector<double> rounded;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < v; ++j) rounded.push_back(static_cast<double>(static_cast<float>(x[i * 10 + j])));
  const auto want = run(rounded, {});
  std::vector<float> logp(n), entropy(n);
  desk<float> d;
  token_logp(d.compute, d.scratch, token_logp_inputs<bf16>{view<const bf16, 2>(x.data(), {n, v}, {10, 1}), targets}, {}, {logp, {}, entropy});
  for (std::size_t i = 0; i < n; ++i) {
    CHECK(logp[i] == Catch::Approx(want.logp[i]).epsilon(1e-6));
    CHECK(entropy[i] == Catch::Approx(want.entropy[i]).epsilon(1e-6));
  }
}

TEST_CASE("token_logp: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(n * v), logp(n, 5), lse(n, 5), g(n * v, 5);
  const std::vector<std::int32_t> few{1, 2};
  desk<double> d;
  const view<double, 2> logits(x.data(), n, v);
  const token_logp_inputs<double> in{logits, targets};
  CHECK(refusal([&] { token_logp(d.compute, d.scratch, token_logp_inputs<double>{logits, few}, {}, {logp, {}, {}}); }) ==
        "plumb: token_logp: argument `targets` has shape [2], but its dimension 0 must be 4 (one per row of `logits`). Nothing was written.");
  CHECK(refusal([&] { token_logp(d.compute, d.scratch, in, {.temperature = 0}, {logp, {}, {}}); }) ==
        "plumb: token_logp: option `temperature` is 0 but must be positive. Nothing was written.");
  CHECK(refusal([&] { token_logp(d.compute, d.scratch, in, {}, {logp, logp, {}}); }) ==
        "plumb: token_logp: output `logp` overlaps `log_sum_exp` in memory. Nothing was written.");
  CHECK(refusal([&] { token_logp_backward(d.compute, d.scratch, in, {}, {lse, lse, {}, {}}, view(g.data(), n, v - 1)); }) ==
        "plumb: token_logp_backward: argument `d_logits` has shape [4, 6], but `logits` has shape [4, 7]. Nothing was written.");
  CHECK(refusal([&] { token_logp_backward(d.compute, d.scratch, in, {}, {{}, lse, {}, {}}, view(g.data(), n, v)); }) ==
        "plumb: token_logp_backward: argument `log_sum_exp` is not given. Nothing was written.");
  CHECK(logp == std::vector<double>(n, 5));
  CHECK(g == std::vector<double>(n * v, 5));
}

TEMPLATE_TEST_CASE("token_logp_backward: at a confident target 16 bits lose no more than one rounding", "", plumb::bf16, plumb::f16) {
  plumb::serial::backend<float> compute;
  std::vector<char> memory(4096);
  plumb::arena<> scratch{memory};
  constexpr int words = 32;
  const double unit = std::is_same_v<TestType, plumb::bf16> ? 1.0 / 256 : 1.0 / 2048;  // half a step, relative
  for (const float target_logit : {4.0f, 6.0f, 8.0f, 10.0f, 12.0f}) {
    std::vector<TestType> logits(words, TestType(0.0f)), d_logits(words);
    logits[3] = TestType(target_logit);
    const std::vector<std::int32_t> target{3};
    std::vector<float> lse(1), d_logp{1};
    const plumb::token_logp_inputs<TestType> in{.logits = plumb::view<const TestType, 2>(logits.data(), 1, words), .targets = target};
    plumb::token_logp(compute, scratch, in, {}, {.log_sum_exp = lse});
    plumb::token_logp_backward(compute, scratch, in, {}, {.log_sum_exp = lse, .d_logp = d_logp}, plumb::view<TestType, 2>(d_logits.data(), 1, words));
    // 1 - p of the target, without the cancellation. A log-sum-exp of 12 in float is known to 5e-7, and so is p.
    const double others = (words - 1) * std::exp(-static_cast<double>(target_logit)), exact = others / (1 + others);
    CAPTURE(target_logit, exact, static_cast<float>(d_logits[3]));
    CHECK(std::abs(static_cast<double>(static_cast<float>(d_logits[3])) - exact) <= unit * exact + 1e-6);
  }
}

TEST_CASE("token_logp: vectors in, the same numbers out") {
  const auto x = normal_numbers(13, n * v, 2);
  const auto want = run(x, all_options[3]);
  const auto got = token_logp(x, targets, v, all_options[3]);
  CHECK(got.logp == want.logp);
  CHECK(got.log_sum_exp == want.lse);
  CHECK(got.entropy == want.entropy);
  CHECK(refusal([&] { token_logp(x, targets, 5); }) ==
        "plumb: token_logp: `logits` has 28 elements, which is no multiple of 5 tokens of the vocabulary. Nothing was written.");
  CHECK(refusal([&] { token_logp(x, targets, 14); }) ==
        "plumb: token_logp: argument `targets` has shape [4], but its dimension 0 must be 2 (one per row of `logits`). Nothing was written.");
  const std::vector<std::int32_t> beyond{3, -1, 0, 7};
  CHECK(refusal([&] { token_logp(x, beyond, v); }) == "plumb: token_logp: `targets[3]` is 7, but there are 7 to choose from. Nothing was written.");
}

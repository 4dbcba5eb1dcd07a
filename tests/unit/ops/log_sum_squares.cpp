// Sums of squared probabilities, and shares of groups: by hand, gradients, extremes, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/log_sum_squares.hpp>
#include <plumb/ops/segment_softmax.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {
const token_logp_options options{.temperature = 0.8, .softcap = 3, .logit_scale = 1.2};
template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(15);
};
template <class T>
result<T> run(const std::vector<T>& x) {
  desk<T> on;
  result<T> r;
  std::vector<T> y(3), once(3), twice(3);
  const std::vector<T> d{T(1), T(-0.5), T(0.25)};
  const view<const T, 2> logits(x.data(), 3, 5);
  log_sum_squares(on.compute, on.scratch, logits, options, {y, once, twice});
  for (std::size_t i = 0; i < 3; ++i) r.loss += d[i] * y[i];
  if constexpr (std::is_same_v<T, double>) log_sum_squares_backward(on.compute, logits, options, {once, twice, d}, view<T, 2>(r.gradient.data(), 3, 5));
  return r;
}
}  // namespace

TEST_CASE("log_sum_squares: gradients by dual numbers and differences") {
  const auto x = normal_numbers(61, 15);
  check_gradient([]<class T>(const std::vector<T>& at) { return run(at).loss; }, x, run(x).gradient);
}

TEST_CASE("log_sum_squares: uniform, certain, far; a row without weight gets 0") {
  desk<float> on;
  std::vector<float> x{2, 2, 2, 2, 1e4f, 0, -1e4f, 0, NAN, 0, 0, 0}, y(3), once(3), twice(3);
  const std::vector<float> d{1, 1, 0};
  const view<float, 2> logits(x.data(), 3, 4);
  log_sum_squares(on.compute, on.scratch, as_const(logits), {}, {y, once, twice});
  CHECK(y[0] == Catch::Approx(std::log(0.25)).epsilon(1e-6));
  CHECK(y[1] == 0);
  CHECK(std::isnan(y[2]));
  log_sum_squares_backward(on.compute, as_const(logits), {}, {once, twice, d}, logits);  // in place
  for (std::size_t i = 0; i < 12; ++i) CHECK(std::abs(x[i]) < 1e-6f);
  CHECK(refusal([&] { log_sum_squares_backward(on.compute, as_const(logits), {}, {once, twice, {}}, logits); }) ==
        "plumb: log_sum_squares_backward: argument `d_log_sum_squares` is not given. Nothing was written.");
}

TEST_CASE("segment_log_softmax: shares of each group, others left out") {
  const std::vector<std::int32_t> begin{0, 3, 3}, end{3, 3, 5};
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1};
  const std::vector<float> x{1e4f, NAN, 1e4f + 1, -5, -INFINITY};
  std::vector<float> log_p(5), p(5), lse(3);
  desk<float> on;
  segment_log_softmax(on.compute, on.scratch, {.x = x, .groups = {begin, end, mask}}, {log_p, p, lse});
  CHECK(p[0] == Catch::Approx(1 / (1 + std::exp(1.0))).epsilon(1e-6));
  CHECK(log_p[2] == Catch::Approx(-std::log1p(std::exp(-1.0))).epsilon(1e-6));
  CHECK(p[1] == 0);
  CHECK(log_p[1] == 0);
  CHECK(p[3] == 1);
  CHECK(p[4] == 0);
  CHECK(lse[1] == -INFINITY);
  CHECK(lse[2] == -5);
}

TEST_CASE("log_sum_squares, segment_log_softmax: vectors in, the same numbers out") {
  const auto x = normal_numbers(61, 15);
  std::vector<double> want(3), log_p(15), p(15), lse(2);
  desk<double> on;
  log_sum_squares(on.compute, on.scratch, view<const double, 2>(x.data(), 3, 5), options, {.log_sum_squares = want});
  CHECK(log_sum_squares(x, 5, options) == want);
  CHECK(refusal([&] { log_sum_squares(x, 4); }) ==
        "plumb: log_sum_squares: `logits` has 15 elements, which is no multiple of 4 tokens of the vocabulary. Nothing was written.");
  const std::vector<std::int32_t> cu{0, 4, 15}, beyond{0, 16};
  const auto groups = sequence_layout<>::packed(cu);
  segment_log_softmax(on.compute, on.scratch, {.x = x, .groups = groups}, {log_p, p, lse});
  const auto got = segment_log_softmax(x, groups);
  CHECK(got.log_p == log_p);
  CHECK(got.p == p);
  CHECK(got.log_sum_exp == lse);
  CHECK(refusal([&] { segment_log_softmax(x, sequence_layout<>::packed(beyond)); }) ==
        "plumb: segment_log_softmax: sequence 0 is tokens 0 to 16, but there are 15. Nothing was written.");
}

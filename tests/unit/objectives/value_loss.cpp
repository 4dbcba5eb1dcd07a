// Value loss: three gradients, kinks, by hand, explained variance from parts, what is refused. Its laws: unit/laws/policy.cpp.
#include "support/gradients.hpp"

#include <plumb/objectives/value_loss.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};

const value_loss_options settings[] = {
    {.clip_range = 0.4, .denominator = 3},
    {.clip_range = 0, .mean = 0.3, .standard_deviation = 1.7, .denominator = 3, .weight = -0.5},
    {.clip_range = 0.3, .mean = 0.1, .standard_deviation = 0.6, .aggregate = aggregation::sequence_mean, .denominator = 2, .length_epsilon = 0.1},
    {.clip_range = 0.2, .aggregate = aggregation::sequence_sum, .denominator = 4},
};

}  // namespace

TEST_CASE("value_loss: gradients by dual numbers and differences") {
  const auto values = normal_numbers(10, 12), old_values = normal_numbers(11, 12), returns = normal_numbers(12, 12);
  for (const value_loss_options& o : settings) {
    std::vector<double> d(12);
    desk<double> on;
    value_loss(on.compute, on.scratch, {values, old_values, returns, sequences}, o, {.d_values = d});
    check_gradient(
        [&]<class T>(const std::vector<T>& at) {
          const std::vector<T> old_at(old_values.begin(), old_values.end()), returns_at(returns.begin(), returns.end());
          desk<T> with;
          T loss{};
          value_loss(with.compute, with.scratch, {at, old_at, returns_at, sequences}, o, {.loss = loss});
          return loss;
        },
        values, d);
  }
}

TEST_CASE("value_loss: inside, at and beyond the range") {
  // Old value 1, range 0.5. Beyond the range, with the return on the far side the plain error counts, on the near side the clipped one.
  struct {
    double value, target, loss, slope, clipped;
  } const table[] = {
      {1.25, 2, 0.28125, -0.75, 0}, {1.5, 2, 0.125, -0.5, 0},     {2, 1, 0.5, 1, 0},           {2, 3, 1.125, 0, 1},
      {2, 1.75, 0.03125, 0.125, 0},  // both errors equal: the mean of 0 and 0.25
      {0, 0.5, 0.125, -0.5, 0},      {0, -1, 1.125, 0, 1},        {0.5, 0.5, 0, 0, 0},
  };
  const std::vector<std::int32_t> cu_seqlens{0, 1};
  for (const auto& row : table) {
    CAPTURE(row.value, row.target);
    const std::vector<double> value{row.value}, old_value{1}, target{row.target};
    const auto y = value_loss(value, old_value, target, sequence_layout<>::packed(cu_seqlens), {.clip_range = 0.5});
    CHECK(y.loss == row.loss);
    CHECK(y.d_values[0] == row.slope);
    CHECK(y.clip_fraction == row.clipped);
  }
}

TEST_CASE("value_loss: metrics of parts merge to the explained variance of the whole") {
  const auto values = normal_numbers(1, 12), returns = normal_numbers(2, 12, 1, 3);
  double m[3][6][2] = {};
  desk<double> on;
  const auto put = [&](std::size_t k, const sequence_layout<>& of) {
    value_loss(on.compute, on.scratch, {.values = values, .returns = returns, .sequences = of}, {.clip_range = 0, .denominator = 1},
               {.metrics = view<double, 2>(&m[k][0][0], 6, 2)});
  };
  put(0, sequences);
  put(1, {view(begin).slice(0, 1), view(end).slice(0, 1), mask});
  put(2, {view(begin).slice(1, 2), view(end).slice(1, 2), mask});
  const view<double, 2> merged(&m[1][0][0], 6, 2);
  merge_metrics(value_loss_metrics, merged, view<double, 2>(&m[2][0][0], 6, 2));
  double residual = 0, residual_square = 0, target = 0, target_square = 0;
  for (std::size_t t = 0; t < 12; ++t) {
    if (mask[t] == 0) continue;
    const double e = returns[t] - values[t];
    residual += e / 8, residual_square += e * e / 8, target += returns[t] / 8, target_square += returns[t] * returns[t] / 8;
  }
  const double want = 1 - (residual_square - residual * residual) / (target_square - target * target);
  CHECK(value_explained_variance(merged) == Catch::Approx(want).epsilon(1e-12));
  CHECK(value_explained_variance(view<double, 2>(&m[0][0][0], 6, 2)) == Catch::Approx(want).epsilon(1e-12));
  CHECK(m[0][0][0] == 0);
  CHECK(m[0][0][1] == 8);
  CHECK(value_loss(returns, {}, returns, sequences, {.clip_range = 0}).explained_variance == 1);
  CHECK(std::isnan(explained_variance(0.0, 0.0, 0.0, 0.0, 0.0)));
  CHECK(variance_from_sums(6.0, 14.0, 3.0, true) == Catch::Approx(1));
  CHECK(variance_from_sums(5.0, 25.0, 1.0, true) == 0);
  CHECK(effective_sample_share(1.0, 1.0, 4.0) == 0.25);
}

TEST_CASE("value_loss: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(12), short_x(11), d(12, 5);
  desk<double> on;
  const auto with = [&](const value_loss_inputs<double>& in, const value_loss_options& o) {
    return refusal([&] { value_loss(on.compute, on.scratch, in, o, {.d_values = d}); });
  };
  CHECK(with({.values = x, .returns = x, .sequences = sequences}, {.denominator = 1}) ==
        "plumb: value_loss: argument `old_values` is not given. Nothing was written.");
  CHECK(with({.values = x, .old_values = x, .sequences = sequences}, {.denominator = 1}) ==
        "plumb: value_loss: argument `returns` is not given. Nothing was written.");
  CHECK(with({.values = x, .old_values = short_x, .returns = x, .sequences = sequences}, {.denominator = 1}) ==
        "plumb: value_loss: argument `old_values` has 11 elements, but `values` has 12. Nothing was written.");
  CHECK(with({x, x, x, sequences}, {.clip_range = -1, .denominator = 1}) ==
        "plumb: value_loss: option `clip_range` is -1 but must be 0 (no clipping) or positive. Nothing was written.");
  CHECK(with({x, x, x, sequences}, {.standard_deviation = 0, .denominator = 1}) ==
        "plumb: value_loss: option `standard_deviation` is 0 but must be positive. Nothing was written.");
  CHECK(with({x, x, x, sequences}, {}) ==
        "plumb: value_loss: option `denominator` is 0 but must be positive: the count that the loss of the whole global batch is divided by. "
        "Nothing was written.");
  CHECK(with({d, x, x, sequences}, {.denominator = 1}) == "plumb: value_loss: output `d_values` overlaps `values` in memory. Nothing was written.");
  CHECK(d == std::vector<double>(12, 5));
}

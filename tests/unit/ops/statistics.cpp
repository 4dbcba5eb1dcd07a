// Statistics of tokens: against plain loops, in parts, as vectors; what is made of sums.
#include "support/gradients.hpp"

#include <plumb/ops/statistics.hpp>
#include <plumb/testing/memory.hpp>

#include <algorithm>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

TEST_CASE("token_statistics: against a plain loop, in parts, as vectors") {
  // Three sequences of 12 tokens: with holes, without scored tokens, whole.
  const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
  const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
  const sequence_layout<> sequences{begin, end, mask};
  auto x = normal_numbers(7, 12);
  double sum = 0, squares = 0, count = 0;
  std::vector<double> scored;
  for (std::size_t t = 0; t < 12; ++t) {
    if (mask[t] == 0) x[t] = std::nan("");
    else sum += x[t], squares += x[t] * x[t], count += 1, scored.push_back(x[t]);
  }
  const double mean = sum / count;
  const auto r = token_statistics(x, sequences);
  CHECK(r.mean == Catch::Approx(mean).epsilon(1e-14));
  CHECK(r.variance == Catch::Approx(squares / count - mean * mean).epsilon(1e-13));
  CHECK(r.min == *std::min_element(scored.begin(), scored.end()));
  CHECK(r.max == *std::max_element(scored.begin(), scored.end()));

  desk<double> on;
  double m[2][4][2] = {};
  for (const index_t part : {index_t{0}, index_t{1}}) {
    const sequence_layout<> some{sequences.begin.slice(2 * part, 2 - part), sequences.end.slice(2 * part, 2 - part), mask};
    token_statistics(on.compute, on.scratch, {x, some}, view<double, 2>(&m[part][0][0], 4, 2));
  }
  merge_metrics(token_statistics_metrics, view<double, 2>(&m[0][0][0], 4, 2), view<double, 2>(&m[1][0][0], 4, 2));
  const auto merged = metric_values(token_statistics_metrics, view<const double, 2>(&m[0][0][0], 4, 2));
  CHECK(merged[0] == Catch::Approx(r.mean).epsilon(1e-14));
  CHECK(merged[1] == Catch::Approx(squares / count).epsilon(1e-14));
  CHECK(merged[2] == r.min);
  CHECK(merged[3] == r.max);

  const std::vector<std::uint8_t> none(12);
  CHECK(std::isnan(token_statistics(x, {begin, end, none}).mean));
  CHECK(refusal([&] { token_statistics(std::vector<double>(11), sequences); }) ==
        "plumb: token_statistics: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
  CHECK(refusal([&] { metric_values(token_statistics_metrics, view<const double, 2>(&m[0][0][0], 3, 2)); }) ==
        "plumb: metric_values: argument `metrics` has shape [3, 2], but its dimension 0 must be 4 (the number of metrics). Nothing was written.");
}

TEST_CASE("statistics: what sums say of variance, effective samples, explained variance") {
  CHECK(variance_from_sums(6.0, 14.0, 3.0) == Catch::Approx(2 / 3.0).epsilon(1e-14));  // 1, 2, 3
  CHECK(variance_from_sums(6.0, 14.0, 3.0, true) == Catch::Approx(1).epsilon(1e-14));
  CHECK(variance_from_sums(5.0, 25.0, 1.0, true) == 0);
  CHECK(variance_from_sums(0.3, 0.03, 3.0) >= 0);  // never below 0 by rounding
  CHECK(std::isnan(variance_from_sums(0.0, 0.0, 0.0)));
  CHECK(effective_sample_share(8.0, 16.0, 4.0) == 1);
  CHECK(effective_sample_share(8.0, 64.0, 4.0) == 0.25);
  CHECK(explained_variance(0.0, 0.0, 6.0, 14.0, 3.0) == 1);
  CHECK(explained_variance(6.0, 14.0, 6.0, 14.0, 3.0) == 0);
}

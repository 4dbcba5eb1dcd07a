// Probabilities of ratings: published rows, laws, edges, extremes.
#include "support/gradients.hpp"

#include <plumb/ops/attribute_posterior.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

/// log P of every level 0 .. levels - 1 for one output.
template <class T>
std::vector<T> levels_of(double output, attribute_posterior_options o = {}) {
  desk<T> on;
  const T prediction = static_cast<T>(output);
  std::vector<T> level, log_p(static_cast<std::size_t>(o.levels));
  for (std::int64_t j = 0; j < o.levels; ++j) level.push_back(static_cast<T>(static_cast<double>(j)));
  attribute_posterior(on.compute, on.scratch, {.prediction = {&prediction, {o.levels, 1}, {0, 0}}, .level = as_column(view<const T, 1>(level))}, o,
                      {.log_p = log_p});
  return log_p;
}

}  // namespace

TEST_CASE("attribute_posterior: rows worked out beforehand, both kinds of edges") {
  struct {
    double output;
    bin_edges edges;
    double want[5];
  } const rows[] = {{2, bin_edges::equal, {.000597, .163046, .672713, .163046, .000597}},
                    {3, bin_edges::equal, {0, .000216, .053753, .640719, .305313}},
                    {3.4, bin_edges::equal, {0, .000002, .002813, .220994, .776191}},
                    {0.5, bin_edges::equal, {.866815, .132168, .001017, 0, 0}},
                    {2, bin_edges::rounding, {.000005, .109019, .781952, .109019, .000005}},
                    {3, bin_edges::rounding, {0, .000081, .085799, .855429, .058691}},
                    {3.4, bin_edges::rounding, {0, .000001, .005588, .581801, .412611}}};
  for (const auto& row : rows) {
    const auto p = levels_of<double>(row.output, {.edges = row.edges});
    for (std::size_t j = 0; j < 5; ++j) CHECK(std::exp(p[j]) == Catch::Approx(row.want[j]).margin(6e-7));
  }
}

TEST_CASE("attribute_posterior: bins sum to 1, mirror, and move up with the output") {
  for (const bin_edges e : {bin_edges::equal, bin_edges::rounding}) {
    std::vector<double> before(5, 0);
    for (double v = 0; v <= 4; v += 0.125) {
      const auto p = levels_of<double>(v, {.edges = e}), mirrored = levels_of<double>(4 - v, {.edges = e});
      double sum = 0, above = 0;
      for (std::size_t j = 5; j-- > 0;) {
        CHECK(std::isfinite(p[j]));
        CHECK(p[j] == Catch::Approx(mirrored[4 - j]).epsilon(1e-12));
        sum += std::exp(p[j]);
        above += std::exp(p[j]);
        CHECK(above >= before[j] - 1e-12);
        before[j] = above;
      }
      CHECK(std::abs(sum - 1) < 1e-12);
    }
  }
}

TEST_CASE("attribute_posterior: far levels keep their logarithm, in float too") {
  const auto wide = levels_of<double>(0, {.concentration = 400});
  CHECK(wide[4] < -600);  // e^-600 is no double
  CHECK(std::isfinite(wide[4]));
  const auto narrow = levels_of<float>(0, {.concentration = 400});
  CHECK(narrow[4] == Catch::Approx(wide[4]).epsilon(1e-4));
  for (const double v : {-7.0, 4.0, 1e4}) CHECK(std::isfinite(levels_of<float>(v)[0]));
}

TEST_CASE("attribute_posterior: attributes add up, a missing one counts nothing, NaN and impossible levels show") {
  const std::vector<double> prediction{2, 3, std::nan("")}, request{2, 4, -100};
  std::vector<double> log_p(1), each(3);
  desk<double> on;
  attribute_posterior(on.compute, on.scratch, {.prediction = {prediction.data(), 1, 3}, .level = broadcast_rows(view(request), 1)}, {},
                      {.log_p = log_p, .log_p_attribute = {each.data(), 1, 3}});
  CHECK(log_p[0] == Catch::Approx(levels_of<double>(2)[2] + levels_of<double>(3)[4]).epsilon(1e-14));
  CHECK(each[2] == 0);
  const std::vector<double> beyond{5, -1, 2};
  attribute_posterior(on.compute, on.scratch, {.prediction = {prediction.data(), 1, 3}, .level = broadcast_rows(view(beyond), 1)}, {},
                      {.log_p_attribute = {each.data(), 1, 3}});
  for (const double e : each) CHECK(std::isnan(e));
}

TEST_CASE("attribute_posterior: the incomplete beta function where it is known") {
  // I_x(1, b) = 1 - (1 - x)^b, I_x(a, 1) = x^a
  for (const double x : {0.01, 0.3, 0.7, 0.99})
    for (const double a : {0.024, 0.5, 3.0, 60.0}) {
      CHECK(math::log_incomplete_beta(x, 1 - x, a, 1.0, -std::log(a)) == Catch::Approx(a * std::log(x)).epsilon(1e-12));
      CHECK(math::log_incomplete_beta(x, 1 - x, 1.0, a, -std::log(a)) ==
            Catch::Approx(std::log(-std::expm1(a * std::log1p(-x)))).epsilon(1e-12).margin(1e-15));
    }
  for (const double x : {0.024, 0.5, 1.0, 7.5, 23.9, 1e4}) CHECK(math::log_gamma(x) == Catch::Approx(std::lgamma(x)).epsilon(1e-14).margin(1e-14));
}

TEST_CASE("attribute_posterior: what is refused") {
  const std::vector<double> x(6);
  std::vector<double> y(2, 5);
  desk<double> on;
  const auto with = [&](const attribute_posterior_options& o) {
    return refusal([&] {
      attribute_posterior(on.compute, on.scratch, {.prediction = {x.data(), 2, 3}, .level = {x.data(), 2, 3}}, o, {.log_p = y});
    });
  };
  CHECK(with({.levels = 1}) == "plumb: attribute_posterior: option `levels` is 1 but must be at least 2. Nothing was written.");
  CHECK(with({.clamp = 0.5}) == "plumb: attribute_posterior: option `clamp` is 0.5 but must be in (0, 0.5). Nothing was written.");
  CHECK(y == std::vector<double>(2, 5));
}

TEST_CASE("attribute_posterior: vectors in, the same numbers out") {
  const std::vector<double> prediction{2, 3, 1, 0.5, 4, 2}, level{2, 4, 1, 0, 3, 2}, request{4, 4, 2};
  const attribute_posterior_options o{.edges = bin_edges::rounding};
  std::vector<double> log_p(2), each(6);
  desk<double> on;
  const view<const double, 2> rows(prediction.data(), 2, 3);
  attribute_posterior(on.compute, on.scratch, {.prediction = rows, .level = {level.data(), 2, 3}}, o, {log_p, {each.data(), 2, 3}});
  const auto of_levels = attribute_posterior(prediction, level, 3, o);
  CHECK(of_levels.log_p == log_p);
  CHECK(of_levels.log_p_attribute == each);
  attribute_posterior(on.compute, on.scratch, {.prediction = rows, .level = broadcast_rows(view(request), 2)}, o, {.log_p = log_p});
  CHECK(attribute_posterior(prediction, request, 3, o).log_p == log_p);
  CHECK(refusal([&] { attribute_posterior(prediction, level, 4); }) ==
        "plumb: attribute_posterior: `prediction` has 6 elements, which is no multiple of 4 attributes. Nothing was written.");
  CHECK(refusal([&] { attribute_posterior(prediction, request, 2); }) ==
        "plumb: attribute_posterior: argument `level` has 3 elements, but `prediction` has 6. Nothing was written.");
}

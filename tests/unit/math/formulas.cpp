// Formulas on scalars: against long double, at the edges, and their derivatives by dual numbers.
#include "support/gradients.hpp"

#include <plumb/math/attribute_regression.hpp>
#include <plumb/math/bradley_terry.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/aggregate.hpp>
#include <plumb/math/token_logp.hpp>

#include <limits>

using namespace plumb;
using plumb_test::dual;

namespace {
constexpr double inf = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();
const std::vector<double> grid{-1e4, -745, -700, -40, -3, -0.5, -1e-8, 0, 1e-8, 0.5, 3, 40, 700, 745, 1e4};

/// Within a few units of the last place, or of the smallest normal number.
bool near(double got, long double want) {
  return std::abs(static_cast<long double>(got) - want) <= 1e-15L * std::abs(want) + 1e-300L;
}
}  // namespace

TEST_CASE("math: logistic functions over the whole range") {
  for (const double x : grid) {
    CAPTURE(x);
    const long double l = x;
    CHECK(near(math::sigmoid(x), 1 / (1 + std::exp(-l))));
    CHECK(near(math::softplus(x), l > 0 ? l + std::log1p(std::exp(-l)) : std::log1p(std::exp(l))));
    CHECK(math::log_sigmoid(x) == -math::softplus(-x));
  }
  CHECK(math::sigmoid(inf) == 1);
  CHECK(math::sigmoid(-inf) == 0);
  CHECK(math::softplus(inf) == inf);
  CHECK(math::softplus(-inf) == 0);
  CHECK(std::isnan(math::sigmoid(not_a_number)));
  CHECK(std::isnan(math::softplus(not_a_number)));
}

TEST_CASE("math: NaN, infinity, comparison") {
  CHECK(math::is_nan(not_a_number));
  CHECK(!math::is_nan(inf));
  CHECK(math::is_inf(-std::numeric_limits<float>::infinity()));
  CHECK(!math::is_finite(not_a_number));
  CHECK(math::greater(2.0, 1.0) == 1);
  CHECK(math::greater(1.0, 1.0) == 0);
  CHECK(std::isnan(math::greater(1.0, not_a_number)));
  CHECK(std::isnan(math::larger{}(not_a_number, 1.0)));
  CHECK(std::isnan(math::larger{}(1.0, not_a_number)));
  CHECK(math::keep_where{}(not_a_number, 0.0) == 0);
  CHECK(math::keep_where{}(2.0, not_a_number) == 2);  // a mask of NaN is not 0: what it stands for counts, and says so
  CHECK(math::keep_or<double>{1}(2.0, not_a_number) == 2);
  CHECK(math::is_nonzero{}(not_a_number) == 1);
}

TEST_CASE("math: each term's second result is the derivative of its first") {
  for (const double x : {-30.0, -2.0, -0.1, 0.4, 3.0, 25.0}) {
    CAPTURE(x);
    const dual along{x, 1};
    const auto matches = [](const two<dual>& by_dual, double derivative) {
      return std::abs(by_dual.first.slope - derivative) <= 1e-14 * std::max(1.0, std::abs(derivative));
    };
    CHECK(matches(math::bradley_terry_term<dual>{1}(along, 0.3, 0.2, 1.7), math::bradley_terry_term<double>{1}(x, 0.3, 0.2, 1.7).second));
    CHECK(matches(math::centering_term<dual>{0.1, 1}(along, 0.3, 1), math::centering_term<double>{0.1, 1}(x, 0.3, 1).second));
    CHECK(matches(math::squared_error_term<dual>{-100, 1}(along, 2), math::squared_error_term<double>{-100, 1}(x, 2).second));
    for (const double cap : {0.0, 5.0}) {
      const math::logit_map<dual> map{0.5, cap, 2};
      CHECK(std::abs(map(along).slope - math::logit_map<double>{0.5, cap, 2}.slope(x)) < 1e-14);
    }
  }
}

TEST_CASE("math: what is masked or missing is exactly nothing") {
  const auto nothing = [](const two<double>& t) { return t.first == 0 && t.second == 0; };
  CHECK(nothing(math::bradley_terry_term<double>{1}(not_a_number, inf, 0, 0)));
  CHECK(nothing(math::centering_term<double>{1, 1}(not_a_number, inf, 0)));
  CHECK(nothing(math::squared_error_term<double>{-100, 1}(not_a_number, -100)));
  CHECK(math::weighted{}(math::token_weight<double>{1, 0, true}(0), not_a_number) == 0);
  CHECK(math::softmax_part<double>{{}}(not_a_number, 0, 0, 0) == 0);
  CHECK(math::entropy_term{}(-inf, 1.0) == 0);
}

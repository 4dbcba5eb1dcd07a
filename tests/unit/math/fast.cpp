// Float functions without calls: error against double over floats of every exponent, limits, NaN; other types are as they were.
#include "support/gradients.hpp"

#include <plumb/math/bradley_terry.hpp>

#include <bit>
#include <limits>

using namespace plumb;
using plumb_test::dual;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

/// Distance in units of the last place of `want` as a float.
double ulps(float got, double want) {
  int exponent = 0;
  std::frexp(want, &exponent);
  return std::abs(static_cast<double>(got) - want) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

/// Calls `f(x)` for both signs of floats of every exponent, a few thousand of each.
template <class F>
void for_floats(const F& f) {
  for (std::uint32_t u = 0; u < 0x7f800000u; u += 4999) {
    f(std::bit_cast<float>(u));
    f(std::bit_cast<float>(u | 0x80000000u));
  }
}

}  // namespace

TEST_CASE("fast: errors in units of the last place") {
  double of_exp = 0, of_minus = 0, of_sigmoid = 0, of_softplus = 0, of_log1p = 0;
  bool same = true;
  for_floats([&](float x) {
    const double d = static_cast<double>(x), e = std::exp(-std::abs(d)), grown = std::exp(d);
    if (grown < static_cast<double>(std::numeric_limits<float>::max())) {
      of_exp = std::max(of_exp, ulps(math::fast::exp(x), grown));
    } else {
      same = same && math::fast::exp(x) == inf;
    }
    of_minus = std::max(of_minus, ulps(math::fast::exp_of_minus_magnitude(x), e));
    of_sigmoid = std::max(of_sigmoid, ulps(math::sigmoid(x), d < 0 ? e / (1 + e) : 1 / (1 + e)));
    of_softplus = std::max(of_softplus, ulps(math::softplus(x), (d < 0 ? 0 : d) + std::log1p(e)));
    if (x > -1) of_log1p = std::max(of_log1p, ulps(math::fast::log1p(x), std::log1p(d)));
    same = same && (x >= -1 || math::is_nan(math::fast::log1p(x)));
    same = same && math::log_sigmoid(x) == -math::softplus(-x);
  });
  CAPTURE(of_exp, of_minus, of_sigmoid, of_softplus, of_log1p);
  CHECK(same);
  CHECK(of_exp < 1.1);
  CHECK(of_minus < 1.1);
  CHECK(of_sigmoid < 2.6);
  CHECK(of_softplus < 2.3);
  CHECK(of_log1p < 2.7);
}

TEST_CASE("fast: limits, where results end, and NaN") {
  CHECK(math::fast::exp(0.0f) == 1);
  CHECK(math::fast::exp(-0.0f) == 1);
  CHECK(math::fast::exp(inf) == inf);
  CHECK(math::fast::exp(-inf) == 0);
  CHECK(math::fast::exp(88.7228f) < inf);
  CHECK(math::fast::exp(88.7229f) == inf);
  CHECK(math::fast::exp(-103.97f) == std::numeric_limits<float>::denorm_min());
  CHECK(math::fast::exp(-103.98f) == 0);
  CHECK(math::sigmoid(0.0f) == 0.5f);
  CHECK(math::sigmoid(inf) == 1);
  CHECK(math::sigmoid(-inf) == 0);
  CHECK(math::softplus(inf) == inf);
  CHECK(math::softplus(-inf) == 0);
  CHECK(math::softplus(3e38f) == 3e38f);
  CHECK(math::softplus(-3e38f) == 0);
  CHECK(math::fast::log1p(0.0f) == 0);
  CHECK(math::fast::log1p(-1.0f) == -inf);
  CHECK(math::fast::log1p(inf) == inf);
  CHECK(math::is_nan(math::fast::log1p(-inf)));
  for (const std::uint32_t u : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffc00000u, 0xffffffffu}) {
    const float x = std::bit_cast<float>(u);
    CHECK(math::is_nan(math::fast::exp(x)));
    CHECK(math::is_nan(math::fast::exp_of_minus_magnitude(x)));
    CHECK(math::is_nan(math::fast::log1p(x)));
    CHECK(math::is_nan(math::sigmoid(x)));
    CHECK(math::is_nan(math::softplus(x)));
    CHECK(math::is_nan(math::where_nonzero(x, x)));
    CHECK(math::where_nonzero(0.0f, x) == 0);
    CHECK(math::where_nonzero(-0.0f, x) == 0);
  }
}

TEST_CASE("fast: double and dual numbers go the ways of the standard library") {
  for (const double x : {-800.0, -3.25, -0.0, 1e-9, 7.5, 710.0}) {
    CHECK(math::fast::exp(x) == std::exp(x));
    CHECK(math::fast::exp_of_minus_magnitude(x) == std::exp(-std::abs(x)));
    CHECK(math::fast::log1p(std::exp(x)) == std::log1p(std::exp(x)));
    CHECK(math::fast::exp(dual{x, 2}).slope == 2 * std::exp(x));
  }
  CHECK(math::where_nonzero(0.0, std::nan("")) == 0);
  CHECK(math::where_nonzero(dual(2), dual(3)).value == 3);
}

TEST_CASE("fast: a pair of rewards of scale 0 is nothing in float too; NaN elsewhere stays") {
  const float none = std::numeric_limits<float>::quiet_NaN();
  const math::bradley_terry_term<float> f{0.5f};
  const auto off = f(none, inf, 0, 0), on = f(none, 1, 0, 1), scale = f(1, 1, 0, none);
  CHECK(off.first == 0);
  CHECK(off.second == 0);
  CHECK(math::is_nan(on.first));
  CHECK(math::is_nan(on.second));
  CHECK(math::is_nan(scale.first));
  CHECK(math::is_nan(scale.second));
  const auto far = f(1e4f, -1e4f, 0, 1), wrong = f(-1e4f, 1e4f, 0, 1);
  CHECK(far.first == 0);
  CHECK(wrong.first == 2e4f);
  CHECK(wrong.second == -0.5f);
}

#pragma once
// Forward-mode differentiation: a number with its derivative along one direction. `serial::backend<dual>` runs any operation or objective
// on it, so that a gradient is checked by the value's own code, exactly.

#include <plumb/core/dtype.hpp>
#include <plumb/math/scalar.hpp>

#include <cmath>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// `value + slope e` with `e^2 = 0` (Clifford 1873). Comparisons look at values only.
struct dual {
  double value = 0, slope = 0;

  constexpr dual() = default;
  constexpr dual(double v) : value(v) {}
  constexpr dual(double v, double s) : value(v), slope(s) {}

  bool is_nan() const { return math::is_nan(value) || math::is_nan(slope); }
  bool is_inf() const { return math::is_inf(value); }
  explicit operator double() const { return value; }
  explicit operator float() const { return static_cast<float>(value); }

  friend dual operator-(const dual& a) { return {-a.value, -a.slope}; }
  friend dual operator+(const dual& a, const dual& b) { return {a.value + b.value, a.slope + b.slope}; }
  friend dual operator-(const dual& a, const dual& b) { return {a.value - b.value, a.slope - b.slope}; }
  friend dual operator*(const dual& a, const dual& b) {
    return {a.value * b.value, a.slope * b.value + a.value * b.slope};
  }
  friend dual operator/(const dual& a, const dual& b) {
    const double q = a.value / b.value;
    return {q, (a.slope - q * b.slope) / b.value};
  }
  dual& operator+=(const dual& b) { return *this = *this + b; }
  dual& operator-=(const dual& b) { return *this = *this - b; }
  dual& operator*=(const dual& b) { return *this = *this * b; }
  dual& operator/=(const dual& b) { return *this = *this / b; }
  friend bool operator<(const dual& a, const dual& b) { return a.value < b.value; }
  friend bool operator>(const dual& a, const dual& b) { return a.value > b.value; }
  friend bool operator<=(const dual& a, const dual& b) { return a.value <= b.value; }
  friend bool operator>=(const dual& a, const dual& b) { return a.value >= b.value; }
  friend bool operator==(const dual& a, const dual& b) { return a.value == b.value; }

  friend dual exp(const dual& x) {
    const double y = std::exp(x.value);
    return {y, y * x.slope};
  }
  friend dual log(const dual& x) { return {std::log(x.value), x.slope / x.value}; }
  friend dual log1p(const dual& x) { return {std::log1p(x.value), x.slope / (1 + x.value)}; }
  friend dual sqrt(const dual& x) {
    const double y = std::sqrt(x.value);
    return {y, x.slope / (2 * y)};
  }
  friend dual tanh(const dual& x) {
    const double y = std::tanh(x.value);
    return {y, (1 - y * y) * x.slope};
  }
};

}  // namespace testing

PLUMB_NAMESPACE_END

#pragma once
// The values of a reward head: bias, mean over a sequence, and the way back.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `value + bias`; 0 where the row is negative.
struct value_of_row {
  template <class T>
  PLUMB_HD T operator()(const T& value, const T& bias, const T& row) const { return row < T(0) ? T(0) : value + bias; }
};

/// `sum / length + bias`; 0 for a sequence without tokens.
struct pooled_value {
  template <class T>
  PLUMB_HD T operator()(const T& sum, const T& length, const T& bias) const { return T(0) < length ? sum / length + bias : T(0); }
};

/// What each token of a mean gets: `d / length`, 0 where there is none.
struct pooled_slope {
  template <class T>
  PLUMB_HD T operator()(const T& d, const T& length) const { return T(0) < length ? d / length : T(0); }
};

/// `y + factor a b`.
template <class T>
struct add_scaled_product {
  T factor;
  PLUMB_HD T operator()(const T& y, const T& a, const T& b) const { return y + factor * a * b; }
};

}  // namespace math

PLUMB_NAMESPACE_END

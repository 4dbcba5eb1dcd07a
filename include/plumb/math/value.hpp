#pragma once
// The error of one predicted value.

#include <plumb/compute/operations.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `(value - mean) * inverse_deviation` against a return, and against the same kept within `clip_range` of the old value (0: no clipping).
template <class T>
struct value_error {
  T clip_range, mean, inverse_deviation;

  /// Half the larger squared error, and its derivative by `value`. Where the clipped one is larger the derivative is 0; where both are
  /// exactly equal beyond the range it is half, the mean of the two sides (as torch has it). PPO's value clipping: Engstrom et al. 2020
  /// (arXiv:2005.12729), section 3.
  PLUMB_HD two<T> operator()(const T& value, const T& target, const T& old_value) const {
    const T plain = standardized(value) - target, clipped = clipped_error(value, target, old_value);
    const T a = plain * plain, b = clipped * clipped;
    if (is_nan(b) || !beyond(value, old_value) || b < a) return {T(0.5) * (is_nan(b) ? b : a), inverse_deviation * (is_nan(b) ? b : plain)};
    if (a < b) return {T(0.5) * b, T(0)};
    return {T(0.5) * a, T(0.5) * inverse_deviation * plain};
  }
  /// Without clipping.
  PLUMB_HD two<T> operator()(const T& value, const T& target) const {
    const T plain = standardized(value) - target;
    return {T(0.5) * plain * plain, inverse_deviation * plain};
  }
  PLUMB_HD T standardized(const T& value) const { return (value - mean) * inverse_deviation; }
  PLUMB_HD bool beyond(const T& value, const T& old_value) const {
    const T moved = standardized(value) - old_value;
    return moved < -clip_range || clip_range < moved;
  }
  PLUMB_HD T clipped_error(const T& value, const T& target, const T& old_value) const {
    const T v = standardized(value), moved = v - old_value;
    if (is_nan(moved)) return moved;
    return (moved < -clip_range ? old_value - clip_range : clip_range < moved ? old_value + clip_range : v) - target;
  }
};

/// 1 where the clipped error is the larger one, else 0; NaN where anything is.
template <class T>
struct value_clipped {
  value_error<T> error;
  PLUMB_HD T operator()(const T& value, const T& target, const T& old_value) const {
    const T plain = error.standardized(value) - target, clipped = error.clipped_error(value, target, old_value);
    return greater(clipped * clipped, plain * plain);
  }
};

/// What a value leaves unexplained: `target - value`, standardized.
template <class T>
struct value_residual {
  value_error<T> error;
  PLUMB_HD T operator()(const T& value, const T& target) const { return target - error.standardized(value); }
};

/// Its square.
template <class T>
struct value_residual_square {
  value_error<T> error;
  PLUMB_HD T operator()(const T& value, const T& target) const {
    const T e = target - error.standardized(value);
    return e * e;
  }
};

/// `x^2`.
struct square {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return x * x; }
};

}  // namespace math

PLUMB_NAMESPACE_END

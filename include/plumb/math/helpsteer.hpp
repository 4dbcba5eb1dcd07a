#pragma once
// Ratings from predictions, and rewards on the scale of their moments.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// The nearest whole number in 0 .. top; halves go to the even one, as Python's `round` does (SteerLM labels are made with it). NaN stays NaN.
template <class T>
struct round_rating {
  T top;
  PLUMB_HD T operator()(const T& x) const {
    if (is_nan(x)) return x;
    T level = T(0);
    bool even = true;
    while (level < top && (level + T(0.5) < x || (!even && !(x < level + T(0.5))))) {
      level = level + T(1);
      even = !even;
    }
    return level;
  }
};

/// `(x - mean) / (sd + epsilon)` with `sd^2 = squares / (count - 1)`; NaN below two numbers.
template <class T>
struct standardize_by_moments {
  T epsilon;
  PLUMB_HD T operator()(const T& x, const T& count, const T& mean, const T& squares) const {
    if (!(T(1) < count)) return T(__builtin_nan(""));
    return (x - mean) / (sqrt(squares / (count - T(1))) + epsilon);
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

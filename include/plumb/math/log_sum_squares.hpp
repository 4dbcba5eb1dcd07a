#pragma once
// The gradient of a row's log sum of squared probabilities at one logit.

#include <plumb/math/token_logp.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `2 d (q - p) du/dx` with `p = exp(u - lse)`, `q = exp(2u - lse_twice)`; 0 where `d` is 0, whatever the row holds.
template <class T>
struct sum_squares_slope {
  logit_map<T> map;
  PLUMB_HD T operator()(const T& x, const T& lse, const T& lse_twice, const T& d) const {
    if (is_zero(d)) return T(0);
    const T u = map(x);
    const T q = exp(u + u - lse_twice), p = exp(u - lse);
    const T gap = q - p;
    return is_zero(gap) ? T(0) : T(2) * d * gap * map.slope(x);
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

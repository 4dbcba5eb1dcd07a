#pragma once
// The Bradley-Terry term of one pair of rewards, and the centring term.

#include <plumb/compute/operations.hpp>
#include <plumb/math/logistic.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// Loss of a pair, `-scale log sigmoid(chosen - rejected - margin)`, and `factor` times its derivative by `chosen`. A scale of 0 gives
/// exactly 0 and 0. Bradley and Terry 1952; margin as in Llama 2 (arXiv:2307.09288, eq. 2); scaled as in HelpSteer2-Preference
/// (arXiv:2410.01257, eq. 3).
template <class T>
struct bradley_terry_term {
  T factor;
  PLUMB_HD two<T> operator()(const T& chosen, const T& rejected, const T& margin, const T& scale) const {
    if (!(scale < T(0)) && !(T(0) < scale) && !is_nan(scale)) return {T(0), T(0)};
    const T z = chosen - rejected - margin;
    return {scale * softplus(-z), -(factor * scale) * sigmoid(-z)};
  }
};

/// `c (chosen + rejected)^2` and `factor` times its derivative by either; keeps rewards near 0 (arXiv:2312.09244, eq. 2).
template <class T>
struct centering_term {
  T coefficient, factor;
  PLUMB_HD two<T> operator()(const T& chosen, const T& rejected, const T& valid) const {
    if (!(valid < T(0)) && !(T(0) < valid)) return {T(0), T(0)};
    const T sum = chosen + rejected;
    return {coefficient * sum * sum, T(2) * (factor * coefficient) * sum};
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

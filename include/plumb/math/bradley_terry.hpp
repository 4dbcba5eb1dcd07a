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
    const T z = chosen - rejected - margin;
    return {where_nonzero(scale, scale * softplus(-z)), where_nonzero(scale, -(factor * scale) * sigmoid(-z))};
  }
};

/// `c (chosen + rejected)^2` and `factor` times its derivative by either; keeps rewards near 0 (arXiv:2312.09244, eq. 2).
template <class T>
struct centering_term {
  T coefficient, factor;
  PLUMB_HD two<T> operator()(const T& chosen, const T& rejected, const T& valid) const {
    const T sum = chosen + rejected;
    return {where_nonzero(valid, coefficient * sum * sum), where_nonzero(valid, T(2) * (factor * coefficient) * sum)};
  }
};

/// (first, second) where the strength is negative, else (second, first): winner and loser, and back again. A strength of NaN gives NaN.
struct in_order {
  template <class T>
  PLUMB_HD two<T> operator()(const T& first, const T& second, const T& strength) const {
    if (is_nan(strength)) return {strength, strength};
    return strength < T(0) ? two<T>{first, second} : two<T>{second, first};
  }
};

/// 1 where a pair's strength says who won, else 0: not where it is `missing`, nor at 0 unless `ties`. NaN counts: it must show.
template <class T>
struct is_rated_pair {
  T missing;
  bool ties;
  PLUMB_HD T operator()(const T& strength) const {
    if (is_zero(strength - missing)) return T(0);
    return is_zero(strength) && !ties ? T(0) : T(1);
  }
};

/// `|x|`.
struct magnitude {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return abs(x); }
};

}  // namespace math

PLUMB_NAMESPACE_END

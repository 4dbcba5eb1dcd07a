#pragma once
// The functors by which the largest of many numbers are found: no sort, but bisection on the value.

#include <plumb/math/elementwise.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `(a - mean a)(b - mean b)`.
struct centred_product {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& mean_a, const T& b, const T& mean_b) const { return (a - mean_a) * (b - mean_b); }
};

/// 1 where `x` does not lie strictly between the bounds, or `excluded` is set, else 0; NaN where `x` is.
template <class T>
struct is_outside {
  T lower, upper;
  PLUMB_HD T operator()(const T& x, const T& excluded) const {
    return is_nan(x) ? x : !is_zero(excluded) || !(lower < x) || !(x < upper) ? T(1) : T(0);
  }
};

/// 1 where `scored` is set and `excluded` is not, else 0; NaN where that is open.
struct is_candidate {
  template <class T>
  PLUMB_HD T operator()(const T& scored, const T& excluded) const {
    return is_zero(scored) ? T(0) : is_nan(excluded) ? excluded : is_zero(excluded) ? T(1) : T(0);
  }
};

/// The middle of `low` and `high`.
template <class T>
PLUMB_HD T middle_of(const T& low, const T& high) { return low + (high - low) / T(2); }

/// 1 where a candidate's `key` is at least the middle of the bounds.
struct at_least_middle {
  template <class T>
  PLUMB_HD T operator()(const T& key, const T& candidate, const T& low, const T& high) const {
    return T(0) < candidate && !(key < middle_of(low, high)) ? T(1) : T(0);
  }
};

/// One step: the half that holds the `wanted`-th largest, from the number of keys that are at least the middle.
template <class T>
struct bisection_step {
  T wanted;
  PLUMB_HD two<T> operator()(const T& low, const T& high, const T& count) const {
    const T middle = middle_of(low, high);
    return count < wanted ? two<T>{low, middle} : two<T>{middle, high};
  }
};

/// 1 where a candidate's `key` is at least `low`, else 0; NaN where either is.
struct is_chosen {
  template <class T>
  PLUMB_HD T operator()(const T& key, const T& candidate, const T& low) const {
    if (is_nan(candidate) || is_zero(candidate)) return candidate;
    return is_nan(key) ? key : key < low ? T(0) : T(1);
  }
};

/// `1 - x`.
struct not_chosen {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return T(1) - x; }
};

}  // namespace math

PLUMB_NAMESPACE_END

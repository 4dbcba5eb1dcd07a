#pragma once
// The squared error of one attribute of one reply, where that attribute was rated.

#include <plumb/compute/operations.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `(prediction - label)^2` and `factor` times its derivative; 0 and 0 where the label is `missing`, whatever the prediction is.
/// HelpSteer2 (arXiv:2406.08673, section 4.1).
template <class T>
struct squared_error_term {
  T missing, factor;
  PLUMB_HD two<T> operator()(const T& prediction, const T& label) const {
    if (is_missing(label)) return {T(0), T(0)};
    const T e = prediction - label;
    return {e * e, T(2) * factor * e};
  }
  PLUMB_HD bool is_missing(const T& label) const { return !(label < missing) && !(missing < label) && !is_nan(label); }
};

/// 1 where a label is there, 0 where it is `missing`.
template <class T>
struct is_rated {
  T missing;
  PLUMB_HD T operator()(const T& label) const {
    return squared_error_term<T>{missing, T(0)}.is_missing(label) ? T(0) : T(1);
  }
};

/// `(x - mean) / sd` as a functor.
template <class T>
struct standardize {
  T mean, inverse_sd;
  PLUMB_HD T operator()(const T& x) const { return (x - mean) * inverse_sd; }
};

}  // namespace math

PLUMB_NAMESPACE_END

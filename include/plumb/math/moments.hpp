#pragma once
// Mean, variance, and numbers brought to mean 0 and variance 1.

#include <plumb/math/elementwise.hpp>

PLUMB_NAMESPACE_BEGIN

/// What the sum of squared deviations is divided by.
enum class variance_estimator {
  biased,    ///< the count `n` (NeMo-Aligner, OpenRLHF, DR-PO)
  unbiased,  ///< `n - 1`, Bessel's correction (TRL, verl)
};
/// How a variance near 0 is kept from blowing up its inverse.
enum class variance_guard {
  add,    ///< `1 / sqrt(variance + epsilon)`
  floor,  ///< `1 / sqrt(max(variance, epsilon))` (OpenRLHF)
};

namespace math {

/// `sum / (count + epsilon)`; 0 of nothing.
template <class T>
struct mean_of {
  T epsilon;
  PLUMB_HD T operator()(const T& sum, const T& count) const { return T(0) < count ? sum / (count + epsilon) : T(0); }
};
/// `(x - mean)^2`.
struct squared_deviation {
  template <class T>
  PLUMB_HD T operator()(const T& x, const T& mean) const { return (x - mean) * (x - mean); }
};
/// From the sum of squared deviations; 0 of nothing, and of one number with Bessel's correction (NaN if that number is NaN).
template <class T>
struct variance_of {
  T epsilon;
  bool unbiased;
  PLUMB_HD T operator()(const T& squares, const T& count) const {
    if (!(T(0) < count)) return T(0);
    const T biased = squares / (count + epsilon);
    if (!unbiased) return biased;
    return T(1.5) < count ? biased * (count / (count - T(1))) : is_nan(squares) ? squares : T(0);
  }
};
/// `(x - mean) / sqrt(variance)`, guarded, plus the mean again unless it is shifted away; 0 where `mask` is 0.
template <class T>
struct whitened {
  T epsilon;
  bool floor, shift_mean;
  PLUMB_HD T operator()(const T& x, const T& mean, const T& variance, const T& mask) const {
    if (is_zero(mask)) return T(0);
    const T y = (x - mean) / sqrt(floor ? larger{}(variance, epsilon) : variance + epsilon);
    return shift_mean ? y : y + mean;
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// The small functors from which operations and objectives compose what is not an algorithm's own formula.

#include <plumb/compute/operations.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `a + b`.
struct plus {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return a + b; }
};
/// `a - b`.
struct minus {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return a - b; }
};
/// `a * b`.
struct times {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return a * b; }
};
/// `factor * x`.
template <class T>
struct scale {
  T factor;
  PLUMB_HD T operator()(const T& x) const { return factor * x; }
};
/// `y + factor * x`.
template <class T>
struct add_scaled {
  T factor;
  PLUMB_HD T operator()(const T& y, const T& x) const { return y + factor * x; }
};
/// `x` where `mask` is not 0 (NaN is not), else 0, whatever `x` is there.
struct keep_where {
  template <class T>
  PLUMB_HD T operator()(const T& x, const T& mask) const { return is_zero(mask) ? T(0) : x; }
};
/// 1 where `a > b`, else 0 (a tie counts as wrong, as TRL, NeMo-Aligner and OpenRLHF count it); NaN where either is.
struct is_greater {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return greater(a, b); }
};

/// `x` where `mask` is not 0 (NaN is not), else `fallback`.
template <class T>
struct keep_or {
  T fallback;
  PLUMB_HD T operator()(const T& x, const T& mask) const { return is_zero(mask) ? fallback : x; }
};
/// 1 where `x` is not 0 (NaN is not), else 0.
struct is_nonzero {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return is_zero(x) ? T(0) : T(1); }
};
/// `x` itself.
struct identity {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return x; }
};
/// `-x`.
struct negate {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return -x; }
};
/// The larger of `a` and `b`; NaN where either is.
struct larger {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return is_nan(a) || b < a ? a : b; }
};
/// The larger of `-a` and `-b`, that is, the negated smaller; NaN where either is.
struct larger_negated {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return larger{}(-a, -b); }
};

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// Small functors around a scan over scored tokens.

#include <plumb/math/elementwise.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// 1 where a count is 1, else 0.
struct is_one {
  template <class T>
  PLUMB_HD T operator()(const T& count) const { return T(0.5) < count && count < T(1.5) ? T(1) : T(0); }
};
/// `1 - x`.
struct one_minus {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return T(1) - x; }
};
/// `a` where `flag` is 1, `b` where it is 0.
struct choose {
  template <class T>
  PLUMB_HD T operator()(const T& flag, const T& a, const T& b) const { return T(0.5) < flag ? a : b; }
};
/// 0 where `flag` is 1, `b` where it is 0.
struct choose_or_zero {
  template <class T>
  PLUMB_HD T operator()(const T& flag, const T& b) const { return T(0.5) < flag ? T(0) : b; }
};

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// Shares of a group, in logarithms.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `exp(x)`.
struct exponential {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return exp(x); }
};
/// `log(x)`.
struct logarithm {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return log(x); }
};
/// `x - normaliser` for a member of a group, 0 for others, whatever they hold.
struct log_share {
  template <class T>
  PLUMB_HD T operator()(const T& x, const T& normaliser, const T& member) const { return is_zero(member) ? T(0) : x - normaliser; }
};
/// `exp(log_p)` for a member of a group, 0 for others.
struct share {
  template <class T>
  PLUMB_HD T operator()(const T& log_p, const T& member) const { return is_zero(member) ? T(0) : exp(log_p); }
};

}  // namespace math

PLUMB_NAMESPACE_END

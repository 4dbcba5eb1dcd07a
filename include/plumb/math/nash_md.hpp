#pragma once
// The Nash-MD term of one token.

#include <plumb/compute/operations.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// What one scored token adds: with the reply's advantage `p - 1/2`, a constant `c = beta (logp - ref_logp) - advantage`, and the
/// surrogate `c logp`, whose derivative by `logp` is `c`. `factor` times both; 0 and 0 where `scored` is 0.
template <class T>
struct nash_md_term {
  T beta, factor;
  PLUMB_HD two<T> operator()(const T& logp, const T& ref_logp, const T& advantage, const T& scored) const {
    if (is_zero(scored)) return {T(0), T(0)};
    const T c = factor * (beta * (logp - ref_logp) - advantage);
    return {c * logp, c};
  }
};

/// `x - by`.
template <class T>
struct shifted {
  T by;
  PLUMB_HD T operator()(const T& x) const { return x - by; }
};

}  // namespace math

PLUMB_NAMESPACE_END

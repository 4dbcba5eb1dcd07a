#pragma once
// Scalar functions for any number type, on host and device. A type of its own (a dual number, say) is found through its own
// namespace: it needs exp, log, log1p, tanh, sqrt, the comparisons, and is_nan, is_inf.

#include <plumb/config.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

PLUMB_NAMESPACE_BEGIN

namespace math {

// Named in a namespace without functions called exp, so that both std's and the type's own are candidates.
namespace lookup {
using std::exp;
using std::log;
using std::log1p;
using std::sqrt;
using std::tanh;
template <class T>
PLUMB_HD T call_exp(const T& x) { return exp(x); }
template <class T>
PLUMB_HD T call_log(const T& x) { return log(x); }
template <class T>
PLUMB_HD T call_log1p(const T& x) { return log1p(x); }
template <class T>
PLUMB_HD T call_sqrt(const T& x) { return sqrt(x); }
template <class T>
PLUMB_HD T call_tanh(const T& x) { return tanh(x); }
}  // namespace lookup

/// The exponential, of the standard library or the type's own.
template <class T>
PLUMB_HD T exp(const T& x) { return lookup::call_exp(x); }
/// The natural logarithm, likewise.
template <class T>
PLUMB_HD T log(const T& x) { return lookup::call_log(x); }
/// `log(1 + x)`, exact for small `x`.
template <class T>
PLUMB_HD T log1p(const T& x) { return lookup::call_log1p(x); }
/// The square root.
template <class T>
PLUMB_HD T sqrt(const T& x) { return lookup::call_sqrt(x); }
/// The hyperbolic tangent.
template <class T>
PLUMB_HD T tanh(const T& x) { return lookup::call_tanh(x); }

/// By bit pattern: right under -ffast-math too, where std::isnan answers no.
template <class T>
PLUMB_HD constexpr bool is_nan(const T& x) {
  if constexpr (std::is_same_v<T, float>) {
    return (__builtin_bit_cast(std::uint32_t, x) & 0x7fffffffu) > 0x7f800000u;
  } else if constexpr (std::is_same_v<T, double>) {
    return (__builtin_bit_cast(std::uint64_t, x) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
  } else {
    return x.is_nan();
  }
}
/// Infinity of either sign, by bit pattern as `is_nan`.
template <class T>
PLUMB_HD constexpr bool is_inf(const T& x) {
  if constexpr (std::is_same_v<T, float>) {
    return (__builtin_bit_cast(std::uint32_t, x) & 0x7fffffffu) == 0x7f800000u;
  } else if constexpr (std::is_same_v<T, double>) {
    return (__builtin_bit_cast(std::uint64_t, x) & 0x7fffffffffffffffu) == 0x7ff0000000000000u;
  } else {
    return x.is_inf();
  }
}
/// Neither NaN nor infinite.
template <class T>
PLUMB_HD constexpr bool is_finite(const T& x) { return !is_nan(x) && !is_inf(x); }

/// Exactly 0; NaN is not.
template <class T>
PLUMB_HD constexpr bool is_zero(const T& x) { return !(x < T(0)) && !(T(0) < x) && !is_nan(x); }

/// The magnitude; NaN stays NaN.
template <class T>
PLUMB_HD constexpr T abs(const T& x) { return x < T(0) ? -x : x; }

/// 1 where `a > b`, else 0; NaN where either is, so that a rate over NaN is NaN and not a number that looks right.
template <class T>
PLUMB_HD constexpr T greater(const T& a, const T& b) {
  if (is_nan(a)) return a;
  if (is_nan(b)) return b;
  return b < a ? T(1) : T(0);
}

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// The logistic function and its relatives, in the forms that neither overflow nor cancel. NaN in, NaN out; any finite or
// infinite argument gives the limit. For float on a host they are those of math/fast.hpp.

#include <plumb/math/fast.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// 1 / (1 + e^-x).
template <class T>
[[gnu::always_inline]] PLUMB_HD inline T sigmoid(const T& x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) return fast::sigmoid(x);
#endif
  if (x < T(0)) {
    const T e = exp(x);
    return e / (T(1) + e);
  }
  return T(1) / (T(1) + exp(-x));
}

/// log(1 + e^x).
template <class T>
[[gnu::always_inline]] PLUMB_HD inline T softplus(const T& x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) return fast::softplus(x);
#endif
  return x < T(0) ? log1p(exp(x)) : x + log1p(exp(-x));
}

/// log sigmoid(x) = -softplus(-x).
template <class T>
[[gnu::always_inline]] PLUMB_HD inline T log_sigmoid(const T& x) {
  return -softplus(-x);
}

/// e^x - 1, exact for small `x`; by tanh, which every number type here has.
template <class T>
PLUMB_HD T expm1(const T& x) {
  if (T(-1) < x && x < T(1)) {
    const T t = tanh(x / T(2));
    return T(2) * t / (T(1) - t);
  }
  return exp(x) - T(1);
}

/// log(1 - e^x) for `x <= 0`; -inf at 0, NaN above. Maechler, "Accurately computing log(1 - exp(-|a|))" (2012), eq. 7.
template <class T>
PLUMB_HD T log1mexp(const T& x) {
  return T(-0.6931471805599453) < x ? log(-expm1(x)) : log1p(-exp(x));
}

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// The logistic function and its relatives, in the forms that neither overflow nor cancel. NaN in, NaN out; any finite or
// infinite argument gives the limit.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// 1 / (1 + e^-x).
template <class T>
PLUMB_HD T sigmoid(const T& x) {
  if (x < T(0)) {
    const T e = exp(x);
    return e / (T(1) + e);
  }
  return T(1) / (T(1) + exp(-x));
}

/// log(1 + e^x).
template <class T>
PLUMB_HD T softplus(const T& x) {
  return x < T(0) ? log1p(exp(x)) : x + log1p(exp(-x));
}

/// log sigmoid(x) = -softplus(-x).
template <class T>
PLUMB_HD T log_sigmoid(const T& x) {
  return -softplus(-x);
}

}  // namespace math

PLUMB_NAMESPACE_END

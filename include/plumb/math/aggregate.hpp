#pragma once
// The weight of one token in a loss over sequences.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// From a sequence's scored length: `factor`, or `factor / (length + epsilon)` with `per_sequence`; 0 for length 0.
template <class T>
struct token_weight {
  T factor, epsilon;
  bool per_sequence;
  PLUMB_HD T operator()(const T& length) const {
    if (!(T(0) < length)) return T(0);
    return per_sequence ? factor / (length + epsilon) : factor;
  }
};

/// `weight * x`; exactly 0 where the weight is 0, whatever `x` is.
struct weighted {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& x) const { return is_zero(weight) ? T(0) : weight * x; }
};

}  // namespace math

PLUMB_NAMESPACE_END

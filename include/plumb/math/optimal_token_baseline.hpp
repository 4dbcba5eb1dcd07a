#pragma once
// The optimal token baseline's weights: how large the gradient of a reply is up to a token.

#include <plumb/compute/operations.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// The squared norm of a token's gradient by its logits, `1 - 2 p + sum_v p_v^2`, in a form that stays positive where `p` is near 1, times the
/// square of an importance weight.
struct logit_gradient_norm {
  template <class T>
  PLUMB_HD T operator()(const T& logp, const T& sum_p_squared, const T& importance) const {
    const T p = exp(logp), rest = T(1) - p;
    return (rest * rest + (sum_p_squared - p * p)) * importance * importance;
  }
};

/// The sum up to a token and with it, from the sum over the sequence, the sum from the token on, and the token's own number.
struct sum_up_to {
  template <class T>
  PLUMB_HD T operator()(const T& total, const T& from_here, const T& here) const { return (total - from_here) + here; }
};

/// `sum / (weights + epsilon)`; 0 over nothing.
template <class T>
struct weighted_mean {
  T epsilon;
  PLUMB_HD T operator()(const T& sum, const T& weights) const {
    const T all = weights + epsilon;
    return is_zero(all) ? T(0) : sum / all;
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

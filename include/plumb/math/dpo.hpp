#pragma once
// The DPO term of one pair of log-ratios, with every setting in the type of computation: for code of your own. The objectives take
// `link::sigmoid`.

#include <plumb/math/preference.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `link::sigmoid` of two log-ratios against the reference, and `factor` times its derivative by `chosen` (by `rejected`: the negative).
template <class T>
struct dpo_term {
  T beta, label_smoothing, factor;
  PLUMB_HD two<T> operator()(const T& chosen, const T& rejected) const {
    const T z = beta * (chosen - rejected);
    if (!(T(0) < label_smoothing)) return {softplus(-z), -(factor * beta) * sigmoid(-z)};
    const T rest = T(1) - label_smoothing;
    return {rest * softplus(-z) + label_smoothing * softplus(z),
            factor * beta * (label_smoothing * sigmoid(z) - rest * sigmoid(-z))};
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

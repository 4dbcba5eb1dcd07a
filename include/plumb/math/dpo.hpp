#pragma once
// The DPO term of one pair of log-ratios.

#include <plumb/compute/operations.hpp>
#include <plumb/math/logistic.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// With `z = beta (chosen - rejected)` of log-ratios against the reference: `-(1 - e) log sigmoid(z) - e log sigmoid(-z)`, and `factor`
/// times its derivative by `chosen` (by `rejected`: the negative). DPO: arXiv:2305.18290, eq. 7; label smoothing `e` is the
/// conservative DPO of Mitchell, "A note on DPO with noisy preferences" (2023), eq. 3.
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

/// `beta (logp - ref_logp)`: the implicit reward of a reply, arXiv:2305.18290, section 4 (up to the prompt's constant).
template <class T>
struct implicit_reward {
  T beta;
  PLUMB_HD T operator()(const T& logp, const T& ref_logp) const { return beta * (logp - ref_logp); }
};

}  // namespace math

PLUMB_NAMESPACE_END

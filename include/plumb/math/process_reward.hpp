#pragma once
// The cross-entropy of one step of a process reward model, over the logits of its two verdicts.

#include <plumb/compute/operations.hpp>
#include <plumb/math/logistic.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `-y log p - (1 - y) log(1 - p)` with `p = sigmoid(good - bad)`, and `factor` times its derivative by `good`; 0 and 0 where the label is
/// `missing`, whatever the logits are. The label is 0, 1, or a probability between (arXiv:2305.20050; soft labels: arXiv:2312.08935).
template <class T>
struct step_term {
  T missing, factor;
  PLUMB_HD two<T> operator()(const T& good, const T& bad, const T& label) const {
    if (is_zero(label - missing)) return {T(0), T(0)};
    const T z = good - bad;
    // Each part by itself: a label of 0 or 1 leaves out the other one, infinite though it be.
    const T right = is_zero(label) ? T(0) : label * softplus(-z), wrong = is_zero(T(1) - label) ? T(0) : (T(1) - label) * softplus(z);
    return {right + wrong, factor * (sigmoid(z) - label)};
  }
};
/// 1 where the more probable verdict is the label's (a label above 1/2 says good; a tie is no verdict for either), 0 elsewhere; NaN where
/// anything is.
template <class T>
struct step_is_right {
  T missing;
  PLUMB_HD T operator()(const T& good, const T& bad, const T& label) const {
    if (is_zero(label - missing)) return T(0);
    if (is_nan(label)) return label;
    return T(0.5) < label ? greater(good, bad) : greater(bad, good);
  }
};
/// `sigmoid(good - bad)` where the step was labelled, else 0.
template <class T>
struct step_probability {
  T missing;
  PLUMB_HD T operator()(const T& good, const T& bad, const T& label) const { return is_zero(label - missing) ? T(0) : sigmoid(good - bad); }
};

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// The KTO term of one labelled reply, and its reference point.

#include <plumb/compute/operations.hpp>
#include <plumb/math/logistic.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// With `z = beta (log_ratio - kl)`: `w_D (1 - sigmoid(z))` for a desirable reply, `w_U (1 - sigmoid(-z))` for another, times the
/// reply's `weight`; and `factor` times the derivative by `log_ratio` (`kl` is a constant). Both are 0 where the weight is, whatever the rest. KTO, arXiv:2402.01306, section 4.1.
template <class T>
struct kto_term {
  T beta, desirable_weight, undesirable_weight, factor;
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& desirable, const T& kl, const T& weight) const {
    if (is_zero(weight)) return {T(0), T(0)};
    const bool good = !is_zero(desirable);
    const T z = beta * (log_ratio - kl);
    const T w = weight * (good ? desirable_weight : undesirable_weight);
    const T slope = factor * beta * w * sigmoid(z) * sigmoid(-z);
    return {w * sigmoid(good ? -z : z), good ? -slope : slope};
  }
};

/// The reference point: `sum / count`, not below 0 when `clamp` (arXiv:2402.01306, section 4.1). NaN over nothing.
struct kto_reference_point {
  bool clamp;
  template <class T>
  PLUMB_HD T operator()(const T& sum, const T& count) const {
    const T mean = sum / count;
    return clamp && mean < T(0) ? T(0) : mean;
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

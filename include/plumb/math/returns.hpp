#pragma once
// The terms of returns and advantages; the recursion itself is the backend's scan.

#include <plumb/compute/operations.hpp>
#include <plumb/math/scan.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `factor * x * y`.
template <class T>
struct scaled_product {
  T factor;
  PLUMB_HD T operator()(const T& x, const T& y) const { return factor * x * y; }
};
/// `reward + discount (1 - lambda) next_value`, the part of a lambda return that does not recur.
template <class T>
struct one_step_part {
  T gamma, lambda;
  PLUMB_HD T operator()(const T& reward, const T& next_value, const T& discount, const T& mix) const {
    return reward + gamma * discount * (T(1) - lambda * mix) * next_value;
  }
};
/// `x + a y` where `flag` is 1, else `x`.
struct add_product_where {
  template <class T>
  PLUMB_HD T operator()(const T& x, const T& a, const T& y, const T& flag) const { return T(0.5) < flag ? x + a * y : x; }
};
/// `reward + gamma * discount * next`.
template <class T>
struct discounted_step {
  T gamma;
  PLUMB_HD T operator()(const T& reward, const T& discount, const T& next) const { return reward + gamma * discount * next; }
};
/// `reward + gamma * discount * next - value`, the values' difference first: nearly equal values then lose nothing to their size.
template <class T>
struct temporal_difference {
  T gamma;
  PLUMB_HD T operator()(const T& reward, const T& discount, const T& next, const T& value) const { return (gamma * discount * next - value) + reward; }
};
/// `a - b` where `mask` is not 0, else 0.
struct difference_where {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b, const T& mask) const { return is_zero(mask) ? T(0) : a - b; }
};
/// `a + b` where `mask` is not 0, else 0.
struct sum_where {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b, const T& mask) const { return is_zero(mask) ? T(0) : a + b; }
};

/// `(1 - alpha) ratio + alpha min(limit, ratio)` of a log-ratio, times `factor`: V-trace's clipped weight (`alpha` 1), leaky with less.
template <class T>
struct truncated_ratio {
  T limit, alpha, factor;
  PLUMB_HD T operator()(const T& log_ratio) const {
    const T ratio = exp(log_ratio), least = limit < ratio ? limit : ratio;
    return factor * (alpha < T(1) ? (T(1) - alpha) * ratio + alpha * least : least);
  }
};
/// `weight (a - b)`.
struct product_with_difference {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& a, const T& b) const { return weight * (a - b); }
};

}  // namespace math

PLUMB_NAMESPACE_END

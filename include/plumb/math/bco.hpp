#pragma once
// The BCO term of one labelled reply.

#include <plumb/compute/operations.hpp>
#include <plumb/math/logistic.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// With `z = beta log_ratio - shift`: `-log sigmoid(z)` for a desirable reply, `-log sigmoid(-z)` for another, times the reply's
/// `weight`; and `factor` times the derivative by `log_ratio` (`shift` is a constant). Both are 0 where the weight is, whatever the rest. BCO, arXiv:2404.04656, section 3.
template <class T>
struct bco_term {
  T beta, factor;
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& desirable, const T& shift, const T& weight) const {
    if (is_zero(weight)) return {T(0), T(0)};
    const T z = beta * log_ratio - shift;
    const T slope = factor * beta * weight;
    if (is_zero(desirable)) return {weight * softplus(z), slope * sigmoid(z)};
    return {weight * softplus(-z), -slope * sigmoid(-z)};
  }
};

/// `sum / count`; 0 over nothing.
struct mean_of_counted {
  template <class T>
  PLUMB_HD T operator()(const T& sum, const T& count) const { return is_zero(count) ? T(0) : sum / count; }
};

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// Merging the mean and the squared deviations of two groups of numbers.

#include <plumb/compute/operations.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// From counts and means of two groups: the mean of both, and what the distance of the means adds to their squared deviations. A group
/// of nothing changes nothing.
struct merged_mean {
  template <class T>
  PLUMB_HD two<T> operator()(const T& count_a, const T& mean_a, const T& count_b, const T& mean_b) const {
    if (is_zero(count_b)) return {mean_a, T(0)};
    if (is_zero(count_a)) return {mean_b, T(0)};
    const T distance = mean_b - mean_a, share = count_b / (count_a + count_b);
    return {mean_a + share * distance, distance * distance * count_a * share};
  }
};
/// `a + b + c`.
struct sum_of_three {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b, const T& c) const { return a + b + c; }
};

}  // namespace math

PLUMB_NAMESPACE_END

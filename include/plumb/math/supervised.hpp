#pragma once
// The supervised term of one sequence, from the sum of its token log-probabilities.

#include <plumb/compute/operations.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `-weight logp` and `-weight factor`, where the weight is 1, or 1/length with `per_sequence`; a sequence of length 0 gives 0 and 0.
template <class T>
struct supervised_term {
  T factor;
  bool per_sequence;
  PLUMB_HD two<T> operator()(const T& logp, const T& length) const {
    if (!(T(0) < length)) return {T(0), T(0)};
    const T weight = per_sequence ? T(1) / length : T(1);
    return {-(weight * logp), -(weight * factor)};
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

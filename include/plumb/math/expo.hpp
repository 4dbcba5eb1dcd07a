#pragma once
// One parameter of an extrapolated model.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `aligned + alpha (aligned - sft)`.
template <class T>
struct extrapolate {
  T alpha;
  PLUMB_HD T operator()(const T& sft, const T& aligned) const { return aligned + alpha * (aligned - sft); }
};

}  // namespace math

PLUMB_NAMESPACE_END

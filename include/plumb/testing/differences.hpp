#pragma once
// Gradients by differences of values: the check that knows nothing of how a gradient was derived.

#include <plumb/config.hpp>

#include <cstddef>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// Gradient of `f(x)` at `x`, by central differences of sixth order (weights 3/4, -3/20, 1/60). In double and for functions of
/// ordinary size, about ten digits are right with the default step.
template <class F>
std::vector<double> central_differences(const F& f, std::vector<double> x, double step = 4e-3) {
  std::vector<double> gradient(x.size());
  constexpr double weights[] = {3.0 / 4, -3.0 / 20, 1.0 / 60};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i], h = step * (at < -1 ? -at : at > 1 ? at : 1.0);
    double sum = 0;
    for (int k = 1; k <= 3; ++k) {
      x[i] = at + k * h;
      const double above = f(x);
      x[i] = at - k * h;
      sum += weights[k - 1] * (above - f(x));
    }
    x[i] = at;
    gradient[i] = sum / h;
  }
  return gradient;
}

}  // namespace testing

PLUMB_NAMESPACE_END

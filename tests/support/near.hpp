#pragma once
// Vectors of numbers that agree to rounding.

#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace plumb_test {

/// Each entry within `tolerance` of the other's, relative where it is above 1; the first that is not is told.
inline bool near(const std::vector<double>& a, const std::vector<double>& b, double tolerance = 1e-12) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::abs(a[i] - b[i]) <= tolerance * std::max(1.0, std::abs(b[i])))) {
      UNSCOPED_INFO("entry " << i << ": " << a[i] << ", not " << b[i]);
      return false;
    }
  return true;
}

}  // namespace plumb_test

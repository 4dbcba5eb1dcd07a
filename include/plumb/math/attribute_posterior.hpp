#pragma once
// The probability of a rating under a Beta distribution, in logarithms: log-gamma, the regularised incomplete beta function, bins.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// log Gamma(x) for x > 0: Stirling's series from 10 on, below it through Gamma(x + 1) = x Gamma(x). Relative error about 1e-15.
template <class T>
PLUMB_HD T log_gamma(const T& x) {
  T y = x, product = T(1);
  while (y < T(10)) {
    product = product * y;
    y = y + T(1);
  }
  const T z = T(1) / (y * y);
  const T series = T(1.0 / 12) + z * (T(-1.0 / 360) +
                                      z * (T(1.0 / 1260) + z * (T(-1.0 / 1680) + z * (T(1.0 / 1188) + z * (T(-691.0 / 360360) + z * T(1.0 / 156))))));
  return (y - T(0.5)) * log(y) - y + T(0.91893853320467274178) + series / y - log(product);
}

/// log of the regularised incomplete beta function `I_x(a, b)` for 0 < x < 1, given `log_beta` = log B(a, b). The continued fraction
/// (Abramowitz and Stegun 26.5.8, evaluated forwards as by Lentz 1976) on the side of the mean where it converges; the other side by
/// `I_x(a, b) = 1 - I_{1-x}(b, a)`. Neither tail cancels or underflows.
template <class T>
PLUMB_HD T log_incomplete_beta_tail(const T& x, const T& rest, const T& a, const T& b, const T& log_beta) {
  T c = T(1), d = T(1) - (a + b) * x / (a + T(1));
  const T tiny = T(1e-30);
  d = T(1) / (abs(d) < tiny ? tiny : d);
  T f = d;
  for (int m = 1; m < 200; ++m) {
    const T i = T(m);
    T step = i * (b - i) * x / ((a + i + i - T(1)) * (a + i + i));
    d = T(1) + step * d;
    d = T(1) / (abs(d) < tiny ? tiny : d);
    c = T(1) + step / c;
    if (abs(c) < tiny) c = tiny;
    f = f * d * c;
    step = -((a + i) * (a + b + i) * x / ((a + i + i) * (a + i + i + T(1))));
    d = T(1) + step * d;
    d = T(1) / (abs(d) < tiny ? tiny : d);
    c = T(1) + step / c;
    if (abs(c) < tiny) c = tiny;
    const T change = d * c;
    f = f * change;
    if (abs(change - T(1)) < T(1e-17)) break;  // exactly 1 in float and double
  }
  return a * log(x) + b * log(rest) - log_beta - log(a) + log(f);
}
/// `x` with its complement `rest` = 1 - x, which the caller knows without cancellation.
template <class T>
PLUMB_HD T log_incomplete_beta(const T& x, const T& rest, const T& a, const T& b, const T& log_beta) {
  if (x < (a + T(1)) / (a + b + T(2))) return log_incomplete_beta_tail(x, rest, a, b, log_beta);
  return log1p(-exp(log_incomplete_beta_tail(rest, x, b, a, log_beta)));
}

/// Where the levels of a rating divide the unit interval.
enum class bin_edges {
  equal,     ///< `j / levels`: fifths for five levels
  rounding,  ///< where the output rounds to another level: `(j - 1/2) / (levels - 1)`, first and last bin half as wide
};

/// `log P(level)` of one attribute: a Beta distribution of mean `output / (levels - 1)` and parameters that sum to `concentration`, over the
/// level's bin (arXiv:2406.08673, section 4.5). The mean is kept in [clamp, 1 - clamp]. A `missing` level gives 0, NaN or a level that is not
/// there NaN.
template <class T>
struct log_level_probability {
  T top, concentration, clamp, missing;  ///< `top`: the highest level, levels - 1
  bin_edges edges;

  PLUMB_HD T operator()(const T& output, const T& level) const {
    if (is_zero(level - missing)) return T(0);
    if (is_nan(output) || is_nan(level)) return output + level;
    if (level < T(0) || top < level) return T(__builtin_nan(""));
    T r = output / top;
    r = r < clamp ? clamp : T(1) - clamp < r ? T(1) - clamp : r;
    const T a = concentration * r, b = concentration * (T(1) - r);
    const T log_beta = log_gamma(a) + log_gamma(b) - log_gamma(a + b);
    // Each edge with its complement, so that the upper bins are as exact as the lower.
    const bool equal = edges == bin_edges::equal;
    const T scale = equal ? top + T(1) : top, shift = equal ? T(0) : T(0.5);
    const T low = (level - shift) / scale, high = (level + T(1) - shift) / scale;
    const T low_rest = (top - level + T(1) - shift) / scale, high_rest = (top - level - shift) / scale;
    const bool first = !(T(0) < low), last = !(T(0) < high_rest);
    if (first && last) return T(0);
    if (first) return log_incomplete_beta(high, high_rest, a, b, log_beta);
    if (last) return log_incomplete_beta(low_rest, low, b, a, log_beta);
    // The difference is taken between the two smaller tails.
    if (r < low) return difference(log_incomplete_beta(low_rest, low, b, a, log_beta), log_incomplete_beta(high_rest, high, b, a, log_beta));
    return difference(log_incomplete_beta(high, high_rest, a, b, log_beta), log_incomplete_beta(low, low_rest, a, b, log_beta));
  }

 private:
  // log(e^larger - e^smaller)
  PLUMB_HD static T difference(const T& larger, const T& smaller) { return larger + log1p(-exp(smaller - larger)); }
};

}  // namespace math

using math::bin_edges;

PLUMB_NAMESPACE_END

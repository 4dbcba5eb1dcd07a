#pragma once
// Weights of tokens that another policy sampled, and the tests by which such tokens are rejected. All start from the log-ratio
// `x = logp - sampler_logp` of a token, its sum or its mean over a sequence.

#include <plumb/core/error.hpp>
#include <plumb/math/kl.hpp>

PLUMB_NAMESPACE_BEGIN

/// What becomes of an importance ratio: aggregates of their options and functors at once.
namespace correction {

inline void require_bounds(const char* operation, double lower, double upper) {
  require_option(operation, "upper", upper, upper > 0, "positive");
  require_option(operation, "lower", lower, lower >= 0 && lower <= upper, "0 (none) or positive, and at most `upper`");
}

/// The weight is the ratio itself.
struct none {
  template <class T>
  PLUMB_HD T operator()(const T& ratio) const { return ratio; }
};
/// The ratio, kept within bounds (truncated importance sampling: Ionides 2008; Yao et al., "Your efficient RL framework secretly brings you
/// off-policy RL training", 2025).
struct truncated {
  double lower = 0;
  double upper = 2;
  template <class T>
  PLUMB_HD T operator()(const T& ratio) const {
    if (math::is_nan(ratio)) return ratio;
    return ratio < T(lower) ? T(lower) : T(upper) < ratio ? T(upper) : ratio;
  }
  void require(const char* operation) const { require_bounds(operation, lower, upper); }
};
/// The ratio within bounds, 0 beyond (masked importance sampling; with these bounds IcePop, arXiv:2510.18855).
struct masked {
  double lower = 0.5;
  double upper = 5;
  template <class T>
  PLUMB_HD T operator()(const T& ratio) const {
    if (math::is_nan(ratio)) return ratio;
    return ratio < T(lower) || T(upper) < ratio ? T(0) : ratio;
  }
  void require(const char* operation) const { require_bounds(operation, lower, upper); }
};

}  // namespace correction

/// By which divergence of sampler and policy tokens are rejected: a functor of the log-ratio `x`, and the bounds of what it gives.
namespace rejection {

/// By the ratio (over sequences: the product of the ratios, or their geometric mean). What is compared is `-x`, the k1 estimate of
/// KL(sampler || policy).
struct k1 {
  double lower = 0.5;  ///< of the ratio
  double upper = 2;    ///< likewise
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return -x; }
  double least() const { return -math::log(upper); }
  double most() const { return -math::log(lower); }
  void require(const char* operation) const {
    require_option(operation, "lower", lower, lower > 0, "positive");
    require_option(operation, "upper", upper, upper >= lower, "at least `lower`");
  }
};
/// By `x^2 / 2`.
struct k2 {
  double upper = 0.1;
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return x * x / T(2); }
  double least() const { return -1; }  // it is never below 0
  double most() const { return upper; }
  void require(const char* operation) const { require_option(operation, "upper", upper, upper > 0, "positive"); }
};
/// By `exp(x) - 1 - x`.
struct k3 {
  double upper = 0.1;
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return math::exp_minus_line(x); }
  double least() const { return -1; }
  double most() const { return upper; }
  void require(const char* operation) const { require_option(operation, "upper", upper, upper > 0, "positive"); }
};

}  // namespace rejection

namespace math {

/// `x` kept within `-limit .. limit`; a limit of 0 is none.
template <class T>
struct limited {
  T limit;
  PLUMB_HD T operator()(const T& x) const { return !(T(0) < limit) || is_nan(x) ? x : x < -limit ? -limit : limit < x ? limit : x; }
};
/// `a - b` kept within `-limit .. limit`.
template <class T>
struct limited_difference {
  limited<T> within;
  PLUMB_HD T operator()(const T& a, const T& b) const { return within(a - b); }
};
/// `x`, limited, to the ratio.
template <class T>
struct ratio_of {
  limited<T> within;
  PLUMB_HD T operator()(const T& x) const { return exp(within(x)); }
};
/// `x / (length + epsilon)`; 0 for length 0.
template <class T>
struct per_length {
  T epsilon;
  PLUMB_HD T operator()(const T& x, const T& length) const { return T(0) < length ? x / (length + epsilon) : T(0); }
};
/// 1 where two numbers differ, else 0; NaN where either is.
struct differs {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const {
    if (is_nan(a)) return a;
    if (is_nan(b)) return b;
    return a < b || b < a ? T(1) : T(0);
  }
};
/// `weight / (sum / count)`; the weight itself where that mean is 0.
struct over_mean {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& sum, const T& count) const {
    const T mean = sum / count;
    return is_zero(mean) ? weight : weight / mean;
  }
};
/// 1 outside `least .. most`, 0 inside; NaN for NaN.
template <class T>
struct outside {
  T least, most;
  PLUMB_HD T operator()(const T& x) const { return is_nan(x) ? x : x < least || most < x ? T(1) : T(0); }
};
/// 1 beyond a bound, above or (with `below`) under it, else 0; NaN for NaN.
template <class T>
struct beyond {
  T bound;
  bool below;
  PLUMB_HD T operator()(const T& x) const { return below ? greater(bound, x) : greater(x, bound); }
};
/// What one criterion says (1: rejected) with what those before it kept.
struct rejected_too {
  template <class T>
  PLUMB_HD T operator()(const T& rejected, const T& kept) const { return is_zero(kept) ? T(1) : rejected; }
};
/// The mask that is left: 1 where a token counts and is not rejected. A rejection that is NaN keeps the token: a mask cannot say NaN, the loss can.
struct kept_mask {
  template <class T>
  PLUMB_HD T operator()(const T& rejected, const T& counts) const {
    return is_zero(counts) || (!is_nan(rejected) && T(0) < rejected) ? T(0) : T(1);
  }
};
/// `f(x)` of a limited ratio: its square less 1, whose mean is the chi-square divergence.
template <class T>
struct chi_square_term {
  limited<T> within;
  PLUMB_HD T operator()(const T& x) const { return exp(T(2) * within(x)) - T(1); }
};
/// `exp(a - b) - 1 - (a - b)`.
struct k3_of {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return exp_minus_line(a - b); }
};
/// Kept within bounds.
template <class T>
struct bounded {
  T lower, upper;
  PLUMB_HD T operator()(const T& x) const { return is_nan(x) ? x : x < lower ? lower : upper < x ? upper : x; }
};
/// The square of what is kept within bounds.
template <class T>
struct bounded_square {
  bounded<T> within;
  PLUMB_HD T operator()(const T& x) const {
    const T y = within(x);
    return y * y;
  }
};
/// `|x - 1|`.
struct deviation_from_one {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return abs(x - T(1)); }
};
/// `exp(-x)`: a perplexity from a mean log-probability.
struct exp_negated {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return exp(-x); }
};
/// `exp(a - b)`.
struct exp_difference {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return exp(a - b); }
};
/// `|a - b|`.
struct distance {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b) const { return abs(a - b); }
};

}  // namespace math

PLUMB_NAMESPACE_END

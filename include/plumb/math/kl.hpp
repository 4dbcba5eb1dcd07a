#pragma once
// Estimates of KL(policy || reference) from the log-probabilities of one sampled token.

#include <plumb/compute/operations.hpp>
#include <plumb/core/error.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

/// With `x = logp - ref_logp` of a token sampled from the policy (Schulman, "Approximating KL divergence", 2020).
enum class kl_estimator {
  k1,        ///< `x`: unbiased, of either sign (verl `kl`)
  absolute,  ///< `|x|` (verl `abs`, NeMo-Aligner's default)
  k2,        ///< `x^2 / 2`: biased, never negative; its gradient is that of the KL on average (verl `mse`)
  k3,        ///< `exp(-x) - 1 + x`: unbiased, never negative (verl `low_var_kl`, GRPO)
};

namespace math {

/// `exp(y) - 1 - y`, with all its digits where `y` is small and the three terms cancel.
template <class T>
PLUMB_HD T exp_minus_line(const T& y) {
  if (y < T(-0.5) || T(0.5) < y || is_nan(y)) return (exp(y) - T(1)) - y;
  // y^2 (1/2! + y/3! + y^2/4! + ...), as far as double sees.
  const T high = T(1 / 39916800.0) + y * (T(1 / 479001600.0) + y * (T(1 / 6227020800.0) + y * (T(1 / 87178291200.0) + y * T(1 / 1307674368000.0))));
  const T middle = T(1 / 5040.0) + y * (T(1 / 40320.0) + y * (T(1 / 362880.0) + y * (T(1 / 3628800.0) + y * high)));
  return y * y * (T(1 / 2.0) + y * (T(1 / 6.0) + y * (T(1 / 24.0) + y * (T(1 / 120.0) + y * (T(1 / 720.0) + y * middle)))));
}

}  // namespace math

/// An estimate per token, and its derivative by `logp` (by `ref_logp`: the negative). This is a functor too: `transform2` takes it.
struct kl_estimate {
  kl_estimator estimator = kl_estimator::k3;
  bool straight_through = false;  ///< the derivative is that of k2, `x`, without limits, whatever the value is (what verl calls `k3+`, `k1+`)
  double log_ratio_limit = 0;     ///< `x` is kept within +- this, without gradient beyond; 0: no limit (verl: 20 for k3)
  double limit = 0;               ///< the estimate is kept within +- this, likewise; 0: no limit (verl: 10 for k3, OpenRLHF: 10 for all)

  /// `first` is the estimate, `second` its derivative by `logp`. NaN in gives NaN in both.
  template <class T>
  PLUMB_HD two<T> operator()(const T& logp, const T& ref_logp) const {
    const T ratio = logp - ref_logp;
    T x = ratio;
    bool moves = true;
    if (0 < log_ratio_limit) x = within(ratio, T(log_ratio_limit), moves);
    two<T> e = raw(x);
    if (0 < limit) e.first = within(e.first, T(limit), moves);
    if (straight_through) {
      e.second = ratio;
    } else if (!moves) {
      e.second = T(0);
    }
    return e;
  }
  /// `of`: what the names in an error begin with, where this is a part of other options ("kl.").
  void require(const char* op, const char* of = "") const {
    require_mode(op, "estimator", estimator, kl_estimator::k3);
    require_option(op, (message() << of << "log_ratio_limit").c_str(), log_ratio_limit, log_ratio_limit >= 0, "0 (no limit) or positive");
    require_option(op, (message() << of << "limit").c_str(), limit, limit >= 0, "0 (no limit) or positive");
  }

 private:
  // At the bound itself the gradient still passes, as torch's clamp has it.
  template <class T>
  PLUMB_HD static T within(const T& x, const T& bound, bool& moves) {
    const bool low = x < -bound, high = bound < x;
    moves = moves && !low && !high;
    return low ? -bound : high ? bound : x;
  }
  template <class T>
  PLUMB_HD two<T> raw(const T& x) const {
    if (estimator == kl_estimator::k1) return {x, math::is_nan(x) ? x : T(1)};
    if (estimator == kl_estimator::absolute) return {math::abs(x), x < T(0) ? T(-1) : T(0) < x ? T(1) : x};  // 0 at 0
    if (estimator == kl_estimator::k2) return {x * x / T(2), x};
    const T y = -x, tail = math::exp_minus_line(y);
    // 1 - exp(y) = x - tail; from exp itself away from 0, where both may be infinite.
    return {tail, y < T(-0.5) || T(0.5) < y ? T(1) - math::exp(y) : x - tail};
  }
};

namespace math {

/// The estimate alone.
struct kl_value {
  kl_estimate estimate;
  template <class T>
  PLUMB_HD T operator()(const T& logp, const T& ref_logp) const { return estimate(logp, ref_logp).first; }
};
/// Its derivative by `logp` alone.
struct kl_slope {
  kl_estimate estimate;
  template <class T>
  PLUMB_HD T operator()(const T& logp, const T& ref_logp) const { return estimate(logp, ref_logp).second; }
};
/// `y + weight * slope`; `y` where `weight` is 0, whatever the slope is.
struct add_weighted_slope {
  template <class T>
  PLUMB_HD T operator()(const T& y, const T& weight, const T& slope) const { return is_zero(weight) ? y : y + weight * slope; }
};

/// One term of the exact `KL(p || q) = sum_j p_j (log p_j - log q_j)` from two rows of logits and their log-sum-exps.
struct exact_kl_term {
  template <class T>
  PLUMB_HD T operator()(const T& logit, const T& ref_logit, const T& lse, const T& ref_lse) const {
    const T log_p = logit - lse, p = exp(log_p);
    return is_zero(p) ? T(0) : p * (log_p - (ref_logit - ref_lse));
  }
};
/// From that term, the row's KL and `p = exp(logit - lse)`: the derivative by the logit, `p (log p - log q - KL)`.
struct exact_kl_slope {
  template <class T>
  PLUMB_HD T operator()(const T& term, const T& kl, const T& logit, const T& lse) const {
    const T p = exp(logit - lse);
    return is_zero(p) ? T(0) : term - p * kl;
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

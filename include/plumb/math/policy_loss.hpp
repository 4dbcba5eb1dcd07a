#pragma once
// The functors of the policy-gradient loss beside its surrogates: limits, terms, flags.

#include <plumb/math/elementwise.hpp>
#include <plumb/math/kl.hpp>
#include <plumb/math/surrogate.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// Between which bounds a log-ratio is kept.
template <class T>
struct log_ratio_limits {
  T low, high;

  /// 0 means no limit: bounds that are never reached.
  static log_ratio_limits from(double low, double high) {
    return {static_cast<T>(low > 0 ? -low : -1e30), static_cast<T>(high > 0 ? high : 1e30)};
  }
  PLUMB_HD bool within(const T& x) const { return !(x < low) && !(high < x); }
  PLUMB_HD T keep(const T& x) const { return x < low ? low : high < x ? high : x; }
};

/// `sum / count`; 0 of nothing.
struct mean_or_zero {
  template <class T>
  PLUMB_HD T operator()(const T& sum, const T& count) const { return T(0) < count ? sum / count : T(0); }
};

/// `-x`, and 0 for a 0 of either sign.
struct zero_minus {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return T(0) - x; }
};

/// `exp(l) - 1 - l`, k3 of KL(old || policy), and `|l|`.
struct old_k3_and_size {
  template <class T>
  PLUMB_HD two<T> operator()(const T& log_ratio) const { return {exp_minus_line(log_ratio), abs(log_ratio)}; }
};

/// `exp(m)` within the limits, and minus that: the smallest is the largest of those.
template <class T>
struct limited_ratio {
  log_ratio_limits<T> limits;
  PLUMB_HD two<T> operator()(const T& log_ratio) const {
    const T r = exp(limits.keep(log_ratio));
    return {r, -r};
  }
};

/// A surrogate's limit of a token's log-ratio, and the slope of that.
template <class Surrogate>
struct limited_log_ratio {
  Surrogate surrogate;
  template <class T>
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage) const { return surrogate.limited(log_ratio, advantage); }
};

/// `weight` times a surrogate of the ratio, and its slope by the log-ratio: 0 beyond the limits. Exactly 0 where the weight is.
template <class Surrogate, class T>
struct ratio_term {
  Surrogate surrogate;
  log_ratio_limits<T> limits;
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage, const T& weight) const {
    if (is_zero(weight)) return {T(0), T(0)};
    const two<T> y = surrogate(limits.keep(log_ratio), advantage);
    return {weight * y.first, limits.within(log_ratio) ? weight * y.second : T(0)};
  }
};

/// `weight` times a surrogate's number times `logp`, and its slope by `logp`.
template <class Surrogate, class T>
struct logp_term {
  Surrogate surrogate;
  log_ratio_limits<T> limits;
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage, const T& logp, const T& weight) const {
    if (is_zero(weight)) return {T(0), T(0)};
    const T factor = weight * surrogate(limits.keep(log_ratio), advantage);
    return {factor * logp, factor};
  }
};

/// `weight` times the estimate of the KL, times the ratio where that is asked for.
template <class T>
struct policy_kl_term {
  kl_estimate kl;
  log_ratio_limits<T> limits;
  bool times_ratio;
  PLUMB_HD T operator()(const T& logp, const T& ref_logp, const T& log_ratio, const T& weight) const {
    return times(kl(logp, ref_logp).first, log_ratio, weight);
  }
  /// `x` times the weight and the ratio.
  PLUMB_HD T times(const T& x, const T& log_ratio, const T& weight) const {
    if (is_zero(weight)) return T(0);
    return times_ratio ? weight * x * exp(limits.keep(log_ratio)) : weight * x;
  }
};
/// `coefficient` times that, and its derivative by `logp` with the ratio held.
template <class T>
struct policy_kl {
  policy_kl_term<T> term;
  T coefficient;
  PLUMB_HD two<T> operator()(const T& logp, const T& ref_logp, const T& log_ratio, const T& weight) const {
    const two<T> e = term.kl(logp, ref_logp);
    return {coefficient * term.times(e.first, log_ratio, weight), coefficient * term.times(e.second, log_ratio, weight)};
  }
};

/// `x` where the log-ratio is within the limits, else 0.
template <class T>
struct keep_within {
  log_ratio_limits<T> limits;
  PLUMB_HD T operator()(const T& x, const T& log_ratio) const { return limits.within(log_ratio) ? x : T(0); }
};

/// 1 where a surrogate is clipped below, and above.
template <class Surrogate, class T>
struct clip_flags {
  Surrogate surrogate;
  log_ratio_limits<T> limits;
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage) const {
    const T x = limits.keep(log_ratio);
    return {surrogate.clipped_low(x, advantage), surrogate.clipped_high(x, advantage)};
  }
};
/// 1 where a surrogate is clipped on either side.
template <class Surrogate, class T>
struct clip_flag {
  clip_flags<Surrogate, T> sides;
  PLUMB_HD T operator()(const T& log_ratio, const T& advantage) const {
    const two<T> y = sides(log_ratio, advantage);
    return y.first + y.second;
  }
};
/// 1 where a surrogate is capped.
template <class Surrogate, class T>
struct cap_flag {
  Surrogate surrogate;
  log_ratio_limits<T> limits;
  PLUMB_HD T operator()(const T& log_ratio, const T& advantage) const { return surrogate.capped(limits.keep(log_ratio), advantage); }
};

}  // namespace math

PLUMB_NAMESPACE_END

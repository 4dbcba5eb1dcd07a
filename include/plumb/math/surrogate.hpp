#pragma once
// What a policy-gradient loss makes of the ratio of a token and its advantage: one type per published surrogate.

#include <plumb/compute/operations.hpp>
#include <plumb/core/error.hpp>
#include <plumb/math/logistic.hpp>

PLUMB_NAMESPACE_BEGIN

/// Of which log-ratio a surrogate is taken, from `l[t] = logp[t] - old_logp[t]` of the scored tokens of a sequence.
enum class surrogate_level {
  of_surrogate,    ///< the one of the surrogate's paper, its member `level`
  token,           ///< `l[t]`
  sequence_mean,   ///< the mean of `l` over the sequence, differentiated as it is (GSPO: arXiv:2507.18071, eq. 7)
  sequence_token,  ///< the value of that mean, but the gradient goes to each token undivided (GSPO-token, there too)
  sequence_sum,    ///< the sum of `l`: the ratio of whole sequences (RLOO, VESPO)
};

namespace math {

/// `ratio` times `advantage`; 0 for an advantage of 0 also where the ratio overflows.
template <class T>
PLUMB_HD T ratio_times(const T& ratio, const T& advantage) {
  return is_zero(advantage) && !is_nan(ratio) ? T(0) : ratio * advantage;
}

/// 1 or 0; `x` itself where it is NaN.
template <class T>
PLUMB_HD T flag(const T& x, bool set) { return is_nan(x) ? x : set ? T(1) : T(0); }

}  // namespace math

/// Surrogates are aggregates of their options and functors at once: `(log_ratio, advantage)` to the value to be minimised and its derivative
/// by the log-ratio. Those with `of_logp` are a number times `logp` instead: they give that number alone, a constant for the gradient; with
/// `without_ratio` it does not depend on the log-ratio either, and `old_logp` is for metrics only. So are `clipped_low`, `clipped_high` and
/// `capped` (1 or 0). Any type of that form is a surrogate.
namespace surrogate {

/// `-r A`: importance sampling without any clipping. With `r = 1` its gradient is REINFORCE's.
struct ratio {
  static constexpr surrogate_level level = surrogate_level::token;
  template <class T>
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage) const {
    const T y = -math::ratio_times(math::exp(log_ratio), advantage);
    return {y, y};
  }
};

/// PPO: `-min(r A, clamp(r, 1 - low, 1 + high) A)`, arXiv:1707.06347, eq. 7 (`high` apart: DAPO, arXiv:2503.14476, eq. 10). At the bounds
/// themselves the gradient passes. `dual`: for negative advantages the ratio counts at most that much (dual clip, arXiv:1912.09729: `c`, above
/// 1; the `delta` of TRL and Liger, arXiv:2505.07291).
struct clip {
  double low = 0.2;
  double high = 0.2;
  double dual = 0;  ///< 0: off

  static constexpr surrogate_level level = surrogate_level::token;
  template <class T>
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage) const {
    const T r = math::exp(log_ratio), least = T(1) - T(low), most = T(1) + T(high);
    const bool above = T(0) < advantage && most < r, below = advantage < T(0) && r < least;
    const T used = above ? most : below ? least : r;
    const bool over = 0 < dual && advantage < T(0) && T(dual) < used;
    const T y = -math::ratio_times(over ? T(dual) : used, advantage);
    return {y, above || below || over ? T(0) : y};
  }
  template <class T>
  PLUMB_HD T clipped_low(const T& log_ratio, const T& advantage) const {
    return math::flag(log_ratio + advantage, advantage < T(0) && math::exp(log_ratio) < T(1) - T(low));
  }
  template <class T>
  PLUMB_HD T clipped_high(const T& log_ratio, const T& advantage) const {
    return math::flag(log_ratio + advantage, T(0) < advantage && T(1) + T(high) < math::exp(log_ratio));
  }
  template <class T>
  PLUMB_HD T capped(const T& log_ratio, const T& advantage) const {
    return math::flag(log_ratio + advantage, 0 < dual && advantage < T(0) && T(dual) < math::exp(log_ratio));
  }
  void require(const char* operation) const {
    require_option(operation, "low", low, low >= 0, "0 or positive");
    require_option(operation, "high", high, high >= 0, "0 or positive");
    require_option(operation, "dual", dual, dual == 0 || dual > 1, "0 (off) or above 1");
  }
};

/// `-sg[clamp(r, 1 - low, 1 + high)] A logp`: the clipped ratio is a weight, so that no token loses its gradient. arXiv:2506.13585, eq. 4
/// and 5; without a lower bound, as there. TRL's and Liger's `epsilon_high` is `1 + high` itself.
struct cispo {
  double low = 1;  ///< 1: no bound below, as a ratio is positive
  double high = 0.2;

  static constexpr surrogate_level level = surrogate_level::token;
  static constexpr bool of_logp = true;
  template <class T>
  PLUMB_HD T operator()(const T& log_ratio, const T& advantage) const {
    const T r = math::exp(log_ratio), least = T(1) - T(low), most = T(1) + T(high);
    return -math::ratio_times(r < least ? least : most < r ? most : r, advantage);
  }
  template <class T>
  PLUMB_HD T clipped_low(const T& log_ratio, const T&) const {
    const T r = math::exp(log_ratio);
    return math::flag(r, r < T(1) - T(low));
  }
  template <class T>
  PLUMB_HD T clipped_high(const T& log_ratio, const T&) const {
    const T r = math::exp(log_ratio);
    return math::flag(r, T(1) + T(high) < r);
  }
  void require(const char* operation) const {
    require_option(operation, "low", low, low >= 0, "0 or positive (1: no bound below)");
    require_option(operation, "high", high, high > -1, "above -1");
  }
};

/// `-4/tau sigmoid(tau (r - 1)) A`: a soft gate instead of a clip, with its own temperature for each sign of the advantage (0 counts as
/// negative). arXiv:2511.20347.
struct sapo {
  double tau_positive = 1;
  double tau_negative = 1.05;

  static constexpr surrogate_level level = surrogate_level::token;
  template <class T>
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage) const {
    const T tau = T(0) < advantage ? T(tau_positive) : T(tau_negative), r = math::exp(log_ratio), x = tau * (r - T(1));
    const T open = math::sigmoid(x), slope = open * math::sigmoid(-x);
    const T scale = -(T(4) * advantage);
    return {scale / tau * open, math::is_zero(slope) ? scale * T(0) : scale * slope * r};
  }
  void require(const char* operation) const {
    require_option(operation, "tau_positive", tau_positive, tau_positive > 0, "positive");
    require_option(operation, "tau_negative", tau_negative, tau_negative > 0, "positive");
  }
};

/// `-sg[w^k exp(lambda (1 - w))] A logp` with the ratio `w` of whole sequences: a smooth weight, 1 at `w = 1`, that falls off on both sides;
/// `k` and `lambda` by the sign of the advantage (0 counts as positive). arXiv:2602.10693, section 3.4; checked against TRL and Liger. They sum the
/// sampler's log-ratios in: pass the sampler's log-probabilities as `old_logp`.
struct vespo {
  double k_positive = 2;
  double lambda_positive = 3;
  double k_negative = 3;
  double lambda_negative = 2;

  static constexpr surrogate_level level = surrogate_level::sequence_sum;
  static constexpr bool of_logp = true;
  template <class T>
  PLUMB_HD T operator()(const T& log_ratio, const T& advantage) const {
    const bool negative = advantage < T(0);
    const T k = T(negative ? k_negative : k_positive), lambda = T(negative ? lambda_negative : lambda_positive);
    return -math::ratio_times(math::exp(k * log_ratio + lambda * (T(1) - math::exp(log_ratio))), advantage);
  }
  void require(const char* operation) const {
    require_option(operation, "k_positive", k_positive, k_positive >= 0, "0 or positive");
    require_option(operation, "lambda_positive", lambda_positive, lambda_positive > 0, "positive");
    require_option(operation, "k_negative", k_negative, k_negative >= 0, "0 or positive");
    require_option(operation, "lambda_negative", lambda_negative, lambda_negative > 0, "positive");
  }
};

/// GMPO: each token's log-ratio is limited on the side on which its advantage gains, to `high` for a positive and to `-low` for a negative
/// advantage, and is 0 without gradient for an advantage of 0; then `-r A` with the geometric mean `r` of the limited ratios. arXiv:2507.20673.
struct gmpo {
  double low = 0.4;   ///< of the log-ratio
  double high = 0.4;  ///< likewise

  static constexpr surrogate_level level = surrogate_level::sequence_mean;
  /// A token's limited log-ratio, and its derivative by the log-ratio; applied before the mean over the sequence.
  template <class T>
  PLUMB_HD two<T> limited(const T& log_ratio, const T& advantage) const {
    if (math::is_nan(advantage)) return {advantage, T(1)};
    if (math::is_zero(advantage) && !math::is_nan(log_ratio)) return {T(0), T(0)};
    if (T(0) < advantage) return T(high) < log_ratio ? two<T>{T(high), T(0)} : two<T>{log_ratio, T(1)};
    return log_ratio < -T(low) ? two<T>{-T(low), T(0)} : two<T>{log_ratio, T(1)};
  }
  template <class T>
  PLUMB_HD two<T> operator()(const T& log_ratio, const T& advantage) const { return ratio{}(log_ratio, advantage); }
  template <class T>
  PLUMB_HD T clipped_low(const T& log_ratio, const T& advantage) const {
    return math::flag(log_ratio + advantage, advantage < T(0) && log_ratio < -T(low));
  }
  template <class T>
  PLUMB_HD T clipped_high(const T& log_ratio, const T& advantage) const {
    return math::flag(log_ratio + advantage, T(0) < advantage && T(high) < log_ratio);
  }
  void require(const char* operation) const {
    require_option(operation, "low", low, low >= 0, "0 or positive");
    require_option(operation, "high", high, high >= 0, "0 or positive");
  }
};

/// `-A logp`: REINFORCE (Williams 1992); GPG, arXiv:2504.02546, is the same. No ratio enters but through importance weights; metrics look at it.
struct reinforce {
  static constexpr surrogate_level level = surrogate_level::token;
  static constexpr bool of_logp = true;
  static constexpr bool without_ratio = true;
  template <class T>
  PLUMB_HD T operator()(const T&, const T& advantage) const { return -advantage; }
};

}  // namespace surrogate

PLUMB_NAMESPACE_END

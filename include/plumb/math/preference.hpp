#pragma once
// Preference losses in two parts: a divergence makes a score of a reply's log-ratio, a link makes a loss of the two scores of a pair. Each is
// an aggregate of its settings and the functor itself.

#include <plumb/compute/operations.hpp>
#include <plumb/core/error.hpp>
#include <plumb/math/logistic.hpp>

#include <concepts>

PLUMB_NAMESPACE_BEGIN

/// The loss of one pair and its derivatives by the two scores.
template <class T>
struct pair_term {
  T value, d_chosen, d_rejected;
};

namespace math {

/// A loss of `chosen - rejected` alone, from its value and slope.
template <class T>
PLUMB_HD pair_term<T> of_margin(const T& value, const T& slope) {
  return {value, slope, -slope};
}

/// `beta (logp - ref_logp)`: the implicit reward of a reply, arXiv:2305.18290, section 4 (up to the prompt's constant).
template <class T>
struct implicit_reward {
  T beta;
  PLUMB_HD T operator()(const T& logp, const T& ref_logp) const { return beta * (logp - ref_logp); }
};

/// KL between two coins whose log-odds are `z` and `t`: `q log(q/p) + (1-q) log((1-q)/(1-p))`, `q = sigmoid(z)`, `p = sigmoid(t)`. Never
/// negative, and without cancellation however near the two are.
template <class T>
PLUMB_HD T kl_of_log_odds(const T& z, const T& t) {
  // The coin's other side has the same divergence: q is at most 1/2 below. With d = t - z it is log(1 + q (e^d - 1)) - q d.
  const bool turned = T(0) < z;
  const T d = turned ? z - t : t - z, y = turned ? -z : z;
  if (T(-1) <= d && d <= T(1)) {
    // d^2 times the integral over s in [0, 1] of (1 - s) sigmoid'(y + s d), by Gauss and Legendre's eight points: no difference is taken.
    constexpr double at[] = {0.01985507175123188416, 0.10166676129318663602, 0.23723379504183550459, 0.40828267875217510996,
                             0.59171732124782494555, 0.76276620495816449541, 0.89833323870681336398, 0.98014492824876808807};
    constexpr double share[] = {0.04960931821952933168, 0.09988613745373567387, 0.11964241387321544741, 0.10730313838033538054,
                                0.07403875330884561456, 0.03721090906572819407, 0.01130437977295156715, 0.00100494992565880068};
    const T e = exp(y);
    T sum = T(0);
    for (int i = 0; i < 8; ++i) {
      const T odds = e * exp(T(at[i]) * d), rest = T(1) + odds;
      sum = sum + T(share[i]) * (odds / (rest * rest));
    }
    return d * d * sum;
  }
  const T q = sigmoid(y);
  if (T(8) < d) return softplus(y + d) - softplus(y) - q * d;  // e^d may overflow, q may lose digits
  return log1p(q * expm1(d)) - q * d;
}
/// `sigmoid(z) - sigmoid(t)`, without cancellation.
template <class T>
PLUMB_HD T difference_of_sigmoids(const T& z, const T& t) {
  return t < z ? -sigmoid(z) * sigmoid(-t) * expm1(t - z) : sigmoid(t) * sigmoid(-z) * expm1(z - t);
}
/// Its derivative by `z`.
template <class T>
PLUMB_HD T kl_of_log_odds_slope(const T& z, const T& t) {
  return sigmoid(z) * sigmoid(-z) * (z - t);
}

}  // namespace math

/// From the two scores of a pair (log-ratios, unless a divergence says otherwise) to its loss. Below, `z = beta (chosen - rejected)`. Your own
/// link is such a struct: `beta` (the scale of the rewards in the metrics), `require`, and the call.
namespace link {

namespace detail {
inline void require_beta(const char* op, double beta) { require_option(op, "beta", beta, beta > 0, "positive"); }
inline void require_smoothing(const char* op, double e) {
  require_option(op, "label_smoothing", e, e >= 0 && e <= 0.5, "in [0, 0.5]");
}
}  // namespace detail

/// `-(1 - e) log sigmoid(z - margin) - e log sigmoid(margin - z)`. DPO, arXiv:2305.18290, eq. 7; `e`: conservative DPO (Mitchell, "A note on DPO
/// with noisy preferences", 2023, eq. 3; TRL and Liger ignore it here); `margin`: gamma of SimPO, arXiv:2405.14734, eq. 6.
struct sigmoid {
  double beta = 0.1, label_smoothing = 0, margin = 0;
  static constexpr bool of_margin = true;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    detail::require_smoothing(op, label_smoothing);
    require_option(op, "margin", margin, true, "a number");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T z = T(beta) * (chosen - rejected) - T(margin), e = T(label_smoothing);
    return math::of_margin(math::softplus(-z) + math::where_nonzero(e, e * z), T(beta) * (e - math::sigmoid(-z)));  // without a branch: vectors
  }
};

/// `[-(1 - e) log sigmoid(z) + e log sigmoid(-z)] / (1 - 2e)`, computed as `-log sigmoid(z) - e z / (1 - 2e)`: without bias when a share `e` of
/// the labels is flipped; it may be negative. Robust DPO, arXiv:2403.00409.
struct robust {
  double beta = 0.1, label_smoothing = 0;
  static constexpr bool of_margin = true;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    require_option(op, "label_smoothing", label_smoothing, label_smoothing >= 0 && label_smoothing < 0.5, "in [0, 0.5)");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T z = T(beta) * (chosen - rejected), tilt = T(label_smoothing / (1 - 2 * label_smoothing));
    return math::of_margin(math::softplus(-z) - tilt * z, -T(beta) * (math::sigmoid(-z) + tilt));
  }
};

/// `max(0, margin - z)`; slope 0 at the kink. RSO, arXiv:2309.06657, and, without a reference and with `beta` 1, the first term of SLiC,
/// arXiv:2305.10425.
struct hinge {
  double beta = 0.1, margin = 1;
  static constexpr bool of_margin = true;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    require_option(op, "margin", margin, true, "a number");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T short_of = T(margin) - T(beta) * (chosen - rejected);
    if (math::is_nan(short_of)) return {short_of, short_of, short_of};
    return T(0) < short_of ? math::of_margin(short_of, T(-beta)) : math::of_margin(T(0), T(0));
  }
};

/// `(chosen - rejected - 1/(2 beta))^2`. IPO, arXiv:2310.12036, eq. 17 (`beta` is its tau); TRL takes means over tokens (`reply_score::mean`).
struct ipo {
  double beta = 0.1;
  static constexpr bool of_margin = true;
  void require(const char* op) const { detail::require_beta(op, beta); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T d = chosen - rejected - T(0.5 / beta);
    return math::of_margin(d * d, T(2) * d);
  }
};

/// `KL(q || p)` with `q = sigmoid(z)` and `p = 1 - e` for the chosen reply. EXO, arXiv:2402.00856, eq. 16.
struct exo_pair {
  double beta = 0.1, label_smoothing = 1e-3;
  static constexpr bool of_margin = true;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    require_option(op, "label_smoothing", label_smoothing, label_smoothing > 0 && label_smoothing <= 0.5, "in (0, 0.5]");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T z = T(beta) * (chosen - rejected), e = T(label_smoothing), t = math::log1p(-e) - math::log(e);
    return math::of_margin(math::kl_of_log_odds(z, t), T(beta) * math::kl_of_log_odds_slope(z, t));
  }
};

/// With rewards `a = beta chosen`, `r = beta rejected`: `-log sigmoid(a) - 1/2 log sigmoid(-a) - 1/2 log sigmoid(-r)`. NCA, arXiv:2402.05369, for
/// two replies.
struct nca_pair {
  double beta = 0.1;
  void require(const char* op) const { detail::require_beta(op, beta); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T b = T(beta), half = T(0.5), a = b * chosen, r = b * rejected;
    return {math::softplus(-a) + half * math::softplus(a) + half * math::softplus(r), b * (half * math::sigmoid(a) - math::sigmoid(-a)),
            half * b * math::sigmoid(r)};
  }
};

/// `-log sigmoid(beta chosen) - log sigmoid(-beta rejected)`: BCO, arXiv:2404.04656, without its shift.
struct bco_pair {
  double beta = 0.1;
  void require(const char* op) const { detail::require_beta(op, beta); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T b = T(beta), a = b * chosen, r = b * rejected;
    return {math::softplus(-a) + math::softplus(r), -b * math::sigmoid(-a), b * math::sigmoid(r)};
  }
};

/// `(chosen - 1/(2 beta))^2 + (rejected + 1/(2 beta))^2`: SPPO, arXiv:2405.00675, eq. 4.7, with probabilities 1 and 0 of winning.
struct sppo_hard {
  double beta = 0.1;
  void require(const char* op) const { detail::require_beta(op, beta); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T half = T(0.5 / beta), a = chosen - half, r = rejected + half;
    return {a * a + r * r, T(2) * a, T(2) * r};
  }
};

/// `(chosen - (p_chosen - 1/2)/beta)^2 + (rejected - (p_rejected - 1/2)/beta)^2`: SPPO, arXiv:2405.00675, eq. 4.7; the rewards of the pair are the
/// two replies' probabilities of winning.
struct sppo {
  double beta = 0.1;
  void require(const char* op) const { detail::require_beta(op, beta); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected, const T& p_chosen, const T& p_rejected) const {
    const T inverse = T(1 / beta), half = T(0.5);
    const T a = chosen - inverse * (p_chosen - half), r = rejected - inverse * (p_rejected - half);
    return {a * a + r * r, T(2) * a, T(2) * r};
  }
};

/// `1 - sigmoid(beta chosen) + sigmoid(beta rejected)`, for models worse than the chosen replies. APO-zero, arXiv:2408.06266, eq. 7. TRL passes
/// it log-ratios, whatever the divergence.
struct apo_zero {
  double beta = 0.1;
  void require(const char* op) const { detail::require_beta(op, beta); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T b = T(beta), a = b * chosen, r = b * rejected;
    return {math::sigmoid(-a) + math::sigmoid(r), -b * (math::sigmoid(a) * math::sigmoid(-a)), b * (math::sigmoid(r) * math::sigmoid(-r))};
  }
};

/// `chosen_share sigmoid(beta chosen) + margin_share (1 - sigmoid(z))`, for models better than both replies. APO-down, arXiv:2408.06266, eq. 8.
/// TRL passes its first term log-ratios whatever the divergence: two calls, shares 1 and 0 with `reverse_kl`, 0 and 1 with the divergence.
struct apo_down {
  double beta = 0.1, chosen_share = 1, margin_share = 1;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    require_option(op, "chosen_share", chosen_share, chosen_share >= 0, "0 or positive");
    require_option(op, "margin_share", margin_share, margin_share >= 0, "0 or positive");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T b = T(beta), first = T(chosen_share), second = T(margin_share), a = b * chosen, z = b * (chosen - rejected);
    const T slope = b * second * (math::sigmoid(z) * math::sigmoid(-z));
    return {first * math::sigmoid(a) + second * math::sigmoid(-z), b * first * (math::sigmoid(a) * math::sigmoid(-a)) - slope, slope};
  }
};

/// `-(1 - m) log sigmoid(z) + m e^-z` with `m = sigmoid(z / tau)`, the product never taken of 0 and infinity. DiscoPOP, arXiv:2406.08414, eq. 5.
struct discopop {
  double beta = 0.1, tau = 0.05;
  static constexpr bool of_margin = true;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    require_option(op, "tau", tau, tau > 0, "positive");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T z = T(beta) * (chosen - rejected), inverse = T(1 / tau), y = inverse * z;
    const T m = math::sigmoid(y), rest = math::sigmoid(-y);
    const T logistic = math::softplus(-z), exponential = math::exp(-z - math::softplus(-y));  // m e^-z
    return math::of_margin(rest * logistic + exponential,
                           T(beta) * (exponential * (inverse * rest - T(1)) - rest * (inverse * m * logistic + math::sigmoid(-z))));
  }
};

/// `-log sigmoid(z - beta lambda max(0, -chosen))`: the chosen reply may not fall below its reference; slope of `max` 0 at its kink. DPOP (Smaug),
/// arXiv:2402.13228.
struct dpop {
  double beta = 0.3, lambda = 50;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    require_option(op, "lambda", lambda, lambda >= 0, "0 or positive");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T b = T(beta), l = T(lambda);
    const bool below = chosen < T(0);
    const T z = b * (chosen - rejected + (below ? l * chosen : T(0)));
    const T slope = b * math::sigmoid(-z);
    return {math::softplus(-z), below ? -slope * (T(1) + l) : -slope, slope};
  }
};

// Reward-aware preference optimisation, arXiv:2406.11704: the margin of the policy's rewards against that of the given ones,
// `t = scale (reward_chosen - reward_rejected)`.

/// `(z - t)^2`.
struct rpo_squared {
  double beta = 0.1, scale = 1;
  static constexpr bool of_margin = true;
  void require(const char* op) const {
    detail::require_beta(op, beta);
    require_option(op, "scale", scale, scale > 0, "positive");
  }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected, const T& reward_chosen, const T& reward_rejected) const {
    const T d = T(beta) * (chosen - rejected) - T(scale) * (reward_chosen - reward_rejected);
    return math::of_margin(d * d, T(2 * beta) * d);
  }
};

/// `KL(sigmoid(t) || sigmoid(z))`: the given rewards' preference against the policy's (NeMo-Aligner `rpo_bwd_kl`).
struct rpo_backward_kl {
  double beta = 0.1, scale = 1;
  static constexpr bool of_margin = true;
  void require(const char* op) const { rpo_squared{beta, scale}.require(op); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected, const T& reward_chosen, const T& reward_rejected) const {
    const T z = T(beta) * (chosen - rejected), t = T(scale) * (reward_chosen - reward_rejected);
    return math::of_margin(math::kl_of_log_odds(t, z), T(beta) * math::difference_of_sigmoids(z, t));
  }
};

/// `KL(sigmoid(z) || sigmoid(t))` (NeMo-Aligner `rpo_fwd_kl`).
struct rpo_forward_kl {
  double beta = 0.1, scale = 1;
  static constexpr bool of_margin = true;
  void require(const char* op) const { rpo_squared{beta, scale}.require(op); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected, const T& reward_chosen, const T& reward_rejected) const {
    const T z = T(beta) * (chosen - rejected), t = T(scale) * (reward_chosen - reward_rejected);
    return math::of_margin(math::kl_of_log_odds(z, t), T(beta) * math::kl_of_log_odds_slope(z, t));
  }
};

}  // namespace link

/// From a reply's log-ratio `x = log pi/ref` to its score, `f'(pi/ref)` of an f-divergence, and the derivative. f-DPO, arXiv:2309.16240, table 1. Scores
/// are 0 where policy and reference agree, except `forward_kl`'s, -1; the constants matter only to links that look at more than the difference.
namespace divergence {

/// Where the exponents of `forward_kl` and `alpha` stop by default: e^80 is a number in float, and so are sums of it. Two scores beyond it are equal,
/// not the difference of two infinities. Links that square scores need less: 40.
inline constexpr double float_exponent = 80;

/// `x`: every loss as its paper has it.
struct reverse_kl {
  void require(const char*) const {}
  template <class T>
  PLUMB_HD two<T> operator()(const T& x) const {
    return {x, T(1)};
  }
};

/// `-exp(-x)`: would overflow where the policy has left the reference by more than e^88 in float; `max_exponent` stops it before.
struct forward_kl {
  double max_exponent = float_exponent;  ///< `-x` stops here, without gradient beyond; 0: nowhere (TRL), and two scores that overflow give NaN
  void require(const char* op) const { require_option(op, "max_exponent", max_exponent, max_exponent >= 0, "0 or positive"); }
  template <class T>
  PLUMB_HD two<T> operator()(const T& x) const {
    if (0 < max_exponent && T(max_exponent) < -x) return {-math::exp(T(max_exponent)), T(0)};
    const T e = math::exp(-x);
    return {-e, e};
  }
};

/// Jensen-Shannon: `log sigmoid(x) + log 2`.
struct js {
  bool drop_constant = false;  ///< without `log 2`, as TRL
  void require(const char*) const {}
  template <class T>
  PLUMB_HD two<T> operator()(const T& x) const {
    const T value = math::log_sigmoid(x);
    return {drop_constant ? value : value + T(0.6931471805599453), math::sigmoid(-x)};
  }
};

/// `(exp((a - 1) x) - 1) / (a - 1)`; `x` at `a = 1`.
struct alpha {
  double coefficient = 0.5;    ///< `a`
  double max_exponent = float_exponent;  ///< `(a - 1) x` stops here, without gradient beyond (TRL: 80, in half precision 11); 0: nowhere
  bool drop_constant = false;  ///< `exp((a - 1) x) / (a - 1)`, and `x` within 1e-6 of `a = 1`, as TRL
  void require(const char* op) const {
    require_option(op, "coefficient", coefficient, true, "a number");
    require_option(op, "max_exponent", max_exponent, max_exponent >= 0, "0 or positive");
  }
  template <class T>
  PLUMB_HD two<T> operator()(const T& x) const {
    const double k = coefficient - 1, limit = drop_constant ? 1e-6 : 0;
    if (-limit <= k && k <= limit) return {x, T(1)};
    const T y = T(k) * x;
    const bool stopped = 0 < max_exponent && T(max_exponent) < y;
    const T held = stopped ? T(max_exponent) : y;
    const T e = math::exp(held);
    return {T(1 / k) * (drop_constant ? e : math::expm1(held)), stopped ? T(0) : e};
  }
};

}  // namespace divergence

/// What `preference` takes as a link: a loss of the two scores, or of the two scores and the pair's two given rewards.
template <class L, class T>
concept reward_aware_link = requires(const L& l, const T& x) {
  { l(x, x, x, x) } -> std::same_as<pair_term<T>>;
};
template <class L, class T>
concept preference_link = requires(const L& l, const T& x, const char* op) {
  { l.beta } -> std::convertible_to<double>;
  l.require(op);
} && (reward_aware_link<L, T> || requires(const L& l, const T& x) {
  { l(x, x) } -> std::same_as<pair_term<T>>;
});
/// What it takes as a divergence.
template <class D, class T>
concept log_ratio_divergence = requires(const D& d, const T& x, const char* op) {
  { d(x) } -> std::same_as<two<T>>;
  d.require(op);
};

namespace math {

/// A link as a transform: the loss and `factor` times its derivative by the chosen score.
template <class L, class T>
struct link_value {
  L link;
  T factor;
  template <class... X>
  PLUMB_HD two<T> operator()(const X&... x) const {
    const pair_term<T> t = link(x...);
    return {t.value, factor * t.d_chosen};
  }
};
/// `factor` times its derivative by the rejected score.
template <class L, class T>
struct link_rejected {
  L link;
  T factor;
  template <class... X>
  PLUMB_HD T operator()(const X&... x) const {
    return factor * link(x...).d_rejected;
  }
};

/// What a pair counts for: its weight, or 1; 0 where neither reply has a scored token.
struct scored_pair {
  template <class T>
  PLUMB_HD T operator()(const T& length_chosen, const T& length_rejected) const {
    return T(0) < length_chosen + length_rejected ? T(1) : T(0);
  }
  template <class T>
  PLUMB_HD T operator()(const T& length_chosen, const T& length_rejected, const T& weight) const {
    return T(0) < length_chosen + length_rejected ? weight : T(0);
  }
};
/// 1 for what has a weight, NaN included; 0 where that is 0.
struct has_weight {
  template <class T>
  PLUMB_HD T operator()(const T& weight) const { return is_zero(weight) ? T(0) : T(1); }
};
/// `x` over a reply's length; one without tokens counts as one token long.
struct per_token {
  template <class T>
  PLUMB_HD T operator()(const T& x, const T& length) const {
    return length < T(1) ? x : x / length;
  }
};
/// A divergence's score and slope, over the length where there is one.
template <class D>
struct reply_score_term {
  D divergence;
  template <class T>
  PLUMB_HD two<T> operator()(const T& x) const {
    return divergence(x);
  }
  template <class T>
  PLUMB_HD two<T> operator()(const T& x, const T& length) const {
    const two<T> s = divergence(x);
    return {per_token{}(s.first, length), per_token{}(s.second, length)};
  }
};
/// `weight (logp - ref_logp)`; 0 where the weight is 0.
struct weighted_difference {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& logp, const T& ref_logp) const {
    return is_zero(weight) ? T(0) : weight * (logp - ref_logp);
  }
};
/// 1 where entry `j` comes before entry `i` in rising order, equal ones by their place; NaN where either is.
struct comes_before {
  template <class T>
  PLUMB_HD T operator()(const T& x_j, const T& x_i, const T& j, const T& i) const {
    if (is_nan(x_j)) return x_j;
    if (is_nan(x_i)) return x_i;
    return x_j < x_i || (!(x_i < x_j) && j < i) ? T(1) : T(0);
  }
};
/// `x` where the two ranks agree, else 0; NaN where either rank is.
struct of_same_rank {
  template <class T>
  PLUMB_HD T operator()(const T& rank_i, const T& rank_j, const T& x_j) const {
    if (is_nan(rank_i)) return rank_i;
    if (is_nan(rank_j)) return rank_j;
    return rank_i < rank_j || rank_j < rank_i ? T(0) : x_j;
  }
};
/// `x + step`.
template <class T>
struct add_constant {
  T step;
  PLUMB_HD T operator()(const T& x) const { return x + step; }
};

}  // namespace math

PLUMB_NAMESPACE_END

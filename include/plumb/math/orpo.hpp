#pragma once
// The odds-ratio link of two replies.

#include <plumb/math/preference.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `log [odds(p) / odds(q)]` with `odds(p) = p / (1 - p)`, from `log p` and `log q`, both at most 0. NaN above 0 and for `p = q = 1`.
struct log_odds_ratio {
  template <class T>
  PLUMB_HD T operator()(const T& log_p, const T& log_q) const { return (log_p - log_q) - (log1mexp(log_p) - log1mexp(log_q)); }
};
/// `log sigmoid` of it.
struct log_sigmoid_odds_ratio {
  template <class T>
  PLUMB_HD T operator()(const T& log_p, const T& log_q) const { return log_sigmoid(log_odds_ratio{}(log_p, log_q)); }
};

}  // namespace math

namespace link {

/// `-beta log sigmoid(log odds ratio)` of two mean token log-probabilities: the second term of ORPO, arXiv:2403.07691, eq. 7 (`beta` is its
/// lambda). The slopes do not divide by `1 - p`, so they stay finite where the loss does.
struct odds_ratio {
  double beta = 0.1;
  void require(const char* op) const { detail::require_beta(op, beta); }
  template <class T>
  PLUMB_HD pair_term<T> operator()(const T& chosen, const T& rejected) const {
    const T b = T(beta), value = b * math::softplus(-math::log_odds_ratio{}(chosen, rejected));
    if (math::is_nan(value)) return {value, value, value};
    // With p, q the two probabilities over the larger: sigmoid(-z) = q (1 - p) / (q (1 - p) + p (1 - q)).
    const T most = chosen < rejected ? rejected : chosen;
    const T p = math::exp(chosen - most), q = math::exp(rejected - most);
    const T rest_p = -math::expm1(chosen), rest_q = -math::expm1(rejected);
    const T share = b * q / (q * rest_p + p * rest_q);
    return {value, -share, share * rest_p / rest_q};
  }
};

}  // namespace link

PLUMB_NAMESPACE_END

#pragma once
// One entry of a row of logits: the map before the softmax, the entropy's summand, the gradient.

#include <plumb/compute/fused.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// What happens to a logit before the softmax: `u = softcap(scale x) / temperature`, `softcap(z) = c tanh(z / c)` (none when c is 0).
/// The order is the one of TRL's chunked log-probs; soft-capping is Gemma 2's (arXiv:2408.00118, section 2).
template <class T>
struct logit_map {
  T scale = T(1), softcap = T(0), inverse_temperature = T(1);

  static logit_map from(const token_logp_options& o) {
    return {static_cast<T>(o.logit_scale), static_cast<T>(o.softcap), static_cast<T>(1 / o.temperature)};
  }
  PLUMB_HD T operator()(const T& x) const {
    const T z = scale * x;
    return (T(0) < softcap ? softcap * tanh(z / softcap) : z) * inverse_temperature;
  }
  /// du/dx.
  PLUMB_HD T slope(const T& x) const {
    T d = scale * inverse_temperature;
    if (T(0) < softcap) {
      const T t = tanh(scale * x / softcap);
      d = d * (T(1) - t * t);
    }
    return d;
  }
};

/// du/dx of the map as a functor.
template <class T>
struct logit_slope {
  logit_map<T> map;
  PLUMB_HD T operator()(const T& x) const { return map.slope(x); }
};

/// `-p log p` with `log p = u - lse`; 0 where p is 0.
struct entropy_term {
  template <class T>
  PLUMB_HD T operator()(const T& u, const T& lse) const {
    const T log_p = u - lse;
    const T p = exp(log_p);
    return p < T(0) || T(0) < p || is_nan(p) ? -(p * log_p) : T(0);
  }
};

/// What multiplies `p` and `p log p` of a row in the gradient: with `c = dL/dlogp` and `e = dL/dentropy`,
/// `dL/du_j = c (onehot_j - p_j) - e p_j (log p_j + H)`, so `p_j (first + second log p_j)` beside the one-hot term.
struct row_coefficients {
  template <class T>
  PLUMB_HD two<T> operator()(const T& c, const T& e, const T& entropy) const {
    if (is_zero(e)) return {-c, T(0)};
    return {-c - e * entropy, -e};
  }
};

/// The softmax part of dL/dx at one entry, from the raw logit; a row whose two coefficients are 0 gives 0 whatever it holds.
template <class T>
struct softmax_part {
  logit_map<T> map;
  PLUMB_HD T operator()(const T& x, const T& lse, const T& first, const T& second) const {
    if (is_zero(first) && is_zero(second)) return T(0);
    const T log_p = map(x) - lse;
    const T p = exp(log_p);
    if (is_zero(p)) return T(0);
    return p * (first + second * log_p) * map.slope(x);
  }
};

/// Zero for an ignored row (`target < 0`), else the coefficient.
struct coefficient_where_scored {
  template <class T>
  PLUMB_HD T operator()(const T& c, const T& target) const { return target < T(0) ? T(0) : c; }
};

}  // namespace math

PLUMB_NAMESPACE_END

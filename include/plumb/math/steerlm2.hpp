#pragma once
// SteerLM 2.0: importance weights of replies, and the terms of the loss. Everything stays in logarithms until the last step.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `log w = log P(a | x, y) + log P(y | x) - log Q(y | a, x)` (arXiv:2406.08673, section 4.5).
struct importance_log_weight {
  template <class T>
  PLUMB_HD T operator()(const T& log_p_attributes, const T& log_p_reply, const T& log_q) const { return log_p_attributes + log_p_reply - log_q; }
};

/// `-w log b`; 0 where `w` is 0, though `b` be 0 too.
struct listwise_term {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& log_baseline) const { return is_zero(weight) ? T(0) : -(weight * log_baseline); }
};
/// `(w - W b) (-logp)`, where `W` is the sum of the group's weights.
struct coefficient_term {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& baseline, const T& total, const T& logp) const { return -((weight - total * baseline) * logp); }
};
/// `w - W b` for a member of a group, 0 for others.
struct steerlm_coefficient {
  template <class T>
  PLUMB_HD T operator()(const T& weight, const T& baseline, const T& total, const T& member) const {
    return is_zero(member) ? T(0) : weight - total * baseline;
  }
};
/// `(w + e) (log(w + e) - log(b + e))`; without `e`, 0 where `w` is 0, and `log b` as it is.
template <class T>
struct distance_term {
  T epsilon;
  PLUMB_HD T operator()(const T& weight, const T& log_baseline, const T& baseline) const {
    if (T(0) < epsilon) return (weight + epsilon) * (log(weight + epsilon) - log(baseline + epsilon));
    return is_zero(weight) ? T(0) : weight * (log(weight) - log_baseline);
  }
};
/// `sum^2 / sum_of_squares`; 0 where nothing was summed.
struct effective_size {
  template <class T>
  PLUMB_HD T operator()(const T& sum, const T& squares) const { return is_zero(squares) ? T(0) : sum * (sum / squares); }
};
/// `|a - b|` for a member of a group, 0 for others.
struct gap_of_member {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b, const T& member) const { return is_zero(member) ? T(0) : abs(a - b); }
};
/// `factor`, or `factor members / length` where a group's mean reply length divides; 0 for a group without members or without tokens.
template <class T>
struct group_factor {
  T factor;
  bool per_token;
  PLUMB_HD T operator()(const T& members, const T& length) const {
    if (is_zero(members)) return T(0);
    if (!per_token) return factor;
    return T(0) < length || is_nan(length) ? factor * members / length : T(0);
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// From a score and a KL to the reward of a token.

#include <plumb/math/elementwise.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `-coefficient * kl` where `mask` is not 0, else 0.
template <class T>
struct kl_reward {
  T coefficient;
  PLUMB_HD T operator()(const T& kl, const T& mask) const { return is_zero(mask) ? T(0) : -coefficient * kl; }
};
/// A reply that did not end: `scale * score + offset` where `ended` is 0.
template <class T>
struct unfinished_score {
  T scale, offset;
  PLUMB_HD T operator()(const T& score, const T& ended) const {
    if (!is_zero(ended)) return score;
    return is_zero(scale) ? offset : scale * score + offset;
  }
};
/// `x` kept in `[low, high]`; NaN stays NaN.
template <class T>
struct clamped {
  T low, high;
  PLUMB_HD T operator()(const T& x) const { return x < low ? low : high < x ? high : x; }
};
/// `y + x` where `flag` is 1, else `y`.
struct add_where {
  template <class T>
  PLUMB_HD T operator()(const T& y, const T& x, const T& flag) const { return T(0.5) < flag ? y + x : y; }
};
/// The last scored token hands its flag to the token after it, unless it is the last of its sequence: of the token itself `last` and `final`
/// (last of the whole sequence), of the token before it `last_before` and `final_before`.
struct flag_after {
  template <class T>
  PLUMB_HD T operator()(const T& last, const T& final, const T& last_before, const T& final_before) const {
    return last * final + last_before * (T(1) - final_before);
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

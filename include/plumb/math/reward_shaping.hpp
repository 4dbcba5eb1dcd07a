#pragma once
// What is done to a reply's reward before advantages are computed from it: one type for each rule.

#include <plumb/compute/operations.hpp>
#include <plumb/core/error.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

/// Rules, called with a reply's reward, its length in tokens, and whether it was cut off at the limit (1) or ended by itself (0);
/// `needs_length` and `needs_truncated` say which of the two must be given. Your own rule is such a struct.
namespace shaping {

/// DAPO's soft punishment of long replies: `-factor` times how far the length reaches into the last `buffer` tokens before `max_length`, from 0 to
/// all of it (arXiv:2503.14476, eq. 13).
struct overlong {
  double max_length = 20480, buffer = 4096, factor = 1;  ///< the lengths are that paper's
  static constexpr bool needs_length = true, needs_truncated = false;
  void require(const char* op) const {
    require_option(op, "max_length", max_length, max_length > 0, "positive");
    require_option(op, "buffer", buffer, buffer > 0 && buffer <= max_length, "positive, and at most `max_length`");
    require_option(op, "factor", factor, factor >= 0, "0 or positive");
  }
  template <class T>
  PLUMB_HD T operator()(const T& reward, const T& length, const T&) const {
    const T into = (length - T(max_length - buffer)) / T(buffer);
    const T share = into < T(0) ? T(0) : T(1) < into ? T(1) : into;
    return reward - T(factor) * share;
  }
};

/// The reward of a reply that was cut off counts `factor` (ProRL's "stop properly" penalty, OpenRLHF).
struct scale_truncated {
  double factor = 0;
  static constexpr bool needs_length = false, needs_truncated = true;
  void require(const char* op) const { require_option(op, "factor", factor, factor >= 0 && factor <= 1, "in [0, 1]"); }
  template <class T>
  PLUMB_HD T operator()(const T& reward, const T&, const T& truncated) const {
    return math::is_nan(truncated) ? truncated : math::is_zero(truncated) ? reward : T(factor) * reward;
  }
};

/// A reply that was cut off has this reward, whatever it was given.
struct fix_truncated {
  double reward = 0;
  static constexpr bool needs_length = false, needs_truncated = true;
  void require(const char* op) const { require_option(op, "reward", reward, true, "a number"); }
  template <class T>
  PLUMB_HD T operator()(const T& given, const T&, const T& truncated) const {
    return math::is_nan(truncated) ? truncated : math::is_zero(truncated) ? given : T(reward);
  }
};

/// The reward between two bounds.
struct clip {
  double low = -1, high = 1;
  static constexpr bool needs_length = false, needs_truncated = false;
  void require(const char* op) const {
    require_option(op, "high", high, true, "a number");
    require_option(op, "low", low, low <= high, "at most `high`");
  }
  template <class T>
  PLUMB_HD T operator()(const T& reward, const T&, const T&) const {
    return reward < T(low) ? T(low) : T(high) < reward ? T(high) : reward;
  }
};

/// `reward - coefficient kl`, with the KL of the whole reply in place of its length (RLOO, NeMo-Aligner's REINFORCE).
struct kl_penalty {
  double coefficient = 0;
  static constexpr bool needs_length = true, needs_truncated = false;
  void require(const char* op) const { require_option(op, "coefficient", coefficient, coefficient >= 0, "0 or positive"); }
  template <class T>
  PLUMB_HD T operator()(const T& reward, const T& kl, const T&) const { return reward - T(coefficient) * kl; }
};

}  // namespace shaping

PLUMB_NAMESPACE_END

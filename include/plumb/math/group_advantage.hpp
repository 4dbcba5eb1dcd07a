#pragma once
// From a reply's reward to its advantage over the other replies to the same prompt: one type for each formula.

#include <plumb/compute/operations.hpp>
#include <plumb/core/error.hpp>
#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace advantage {

/// Whose mean, or whose standard deviation.
enum class scope { group, batch };

/// What a reply gets that has no counted sibling, so that nothing can be said about it.
enum class lone_reply {
  zero,    ///< nothing to learn from
  reward,  ///< its reward, as over a mean of 0 and a deviation of 1 (verl)
};

// Each type is called with a reply's deviation from the mean, its reward, the count of replies, and the sum of their squared deviations;
// `center` and `spread` say over what. Equal rewards have deviations of exactly 0, a reward of NaN one of NaN, whatever the count.

/// `r - mean`: Dr. GRPO (arXiv:2503.20783, section 3.2), REINFORCE with the group's mean as baseline.
struct centered {
  lone_reply alone = lone_reply::zero;
  static constexpr scope center = scope::group, spread = scope::group;
  void require(const char* op) const { require_mode(op, "alone", alone, lone_reply::reward); }
  template <class T>
  PLUMB_HD T operator()(const T& deviation, const T& reward, const T& count, const T&) const {
    return !(T(1) < count) && alone == lone_reply::reward ? reward : deviation;
  }
};

/// `(r - mean) / (sd + epsilon)`: GRPO (arXiv:2402.03300, section 4.1.2). A group of equal rewards gives 0.
struct grpo {
  double epsilon = 1e-6;      ///< added to the standard deviation
  bool unbiased = true;       ///< variance over `count - 1` (all peers), or over `count`
  double variance_floor = 0;  ///< the variance is at least this (verl's vectorised form: 1e-6)
  lone_reply alone = lone_reply::zero;
  static constexpr scope center = scope::group, spread = scope::group;
  void require(const char* op) const {
    require_mode(op, "alone", alone, lone_reply::reward);
    require_option(op, "epsilon", epsilon, epsilon >= 0, "0 or positive");
    require_option(op, "variance_floor", variance_floor, variance_floor >= 0, "0 or positive");
  }
  template <class T>
  PLUMB_HD T operator()(const T& deviation, const T& reward, const T& count, const T& squares) const {
    if (!(T(1) < count)) return alone == lone_reply::reward ? reward / (T(1) + T(epsilon)) : deviation;
    const T variance = squares / (unbiased ? count - T(1) : count), least = T(variance_floor);
    const T sd = math::sqrt(variance < least ? least : variance) + T(epsilon);
    return math::is_zero(sd) ? deviation : deviation / sd;
  }
};

/// `(r - mean of the group) / (sd of the batch + epsilon)`: an easy prompt's small differences are not blown up (arXiv:2508.08221, section 4.1;
/// TRL `scale_rewards="batch"`).
struct batch_scaled {
  double epsilon = 1e-6;
  bool unbiased = true;
  static constexpr scope center = scope::group, spread = scope::batch;
  void require(const char* op) const { grpo{epsilon}.require(op); }
  template <class T>
  PLUMB_HD T operator()(const T& deviation, const T& reward, const T& count, const T& squares) const {
    return grpo{epsilon, unbiased}(deviation, reward, count, squares);
  }
};

/// `(r - mean) / (sd + epsilon)`, both over all counted replies of the batch: to whiten rewards, or advantages of another kind.
struct batch_normalized {
  double epsilon = 1e-6;
  bool unbiased = true;
  static constexpr scope center = scope::batch, spread = scope::batch;
  void require(const char* op) const { grpo{epsilon}.require(op); }
  template <class T>
  PLUMB_HD T operator()(const T& deviation, const T& reward, const T& count, const T& squares) const {
    return grpo{epsilon, unbiased}(deviation, reward, count, squares);
  }
};

/// `r - mean of the other replies` = `(r - mean) count / (count - 1)`: RLOO (arXiv:2402.14740, section 3.2).
struct rloo {
  lone_reply alone = lone_reply::zero;
  static constexpr scope center = scope::group, spread = scope::group;
  void require(const char* op) const { require_mode(op, "alone", alone, lone_reply::reward); }
  template <class T>
  PLUMB_HD T operator()(const T& deviation, const T& reward, const T& count, const T&) const {
    if (!(T(1) < count)) return alone == lone_reply::reward ? reward : deviation;
    return deviation * (count / (count - T(1)));
  }
};

}  // namespace advantage

namespace math {

/// A formula of namespace `advantage` where the reply counts; 0, whatever its reward, where `count` is 0.
template <class Formula>
struct counted_reply {
  Formula formula;
  template <class T>
  PLUMB_HD T operator()(const T& deviation, const T& reward, const T& count, const T& squares) const {
    return is_zero(count) ? T(0) : formula(deviation, reward, count, squares);
  }
};

/// `sum / count`; 0 over nothing.
struct mean_of_sum {
  template <class T>
  PLUMB_HD T operator()(const T& sum, const T& count) const { return is_zero(count) ? T(0) : sum / count; }
};

/// The Bessel-corrected standard deviation; 0 of one number or none.
struct group_deviation {
  template <class T>
  PLUMB_HD T operator()(const T& squares, const T& count) const {
    return T(1) < count ? sqrt(squares / (count - T(1))) : squares;
  }
};

/// `count (offset)^2`: what the distance between a group's mean and the batch's adds to the batch's squares.
struct between_groups {
  template <class T>
  PLUMB_HD T operator()(const T& count, const T& offset) const { return is_zero(count) ? T(0) : count * offset * offset; }
};

/// A group's mean relative to the highest reward of all, from its own highest reward and its mean relative to that; 0 of an empty group.
struct mean_below_highest {
  template <class T>
  PLUMB_HD T operator()(const T& top, const T& mean, const T& highest, const T& count) const {
    return is_zero(count) ? T(0) : (top - highest) + mean;
  }
};

/// `x`, where anything is counted, in two parts that add up to it: one of the upper half of its bits, and the rest; 0 and 0 where nothing is.
struct halves_of_top {
  template <class T>
  PLUMB_HD two<T> operator()(const T& x, const T& count) const {
    if (is_zero(count)) return {T(0), T(0)};
    T upper = x;
    if constexpr (std::is_same_v<T, float>) upper = __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, x) & 0xfffff000u);
    if constexpr (std::is_same_v<T, double>) upper = __builtin_bit_cast(double, __builtin_bit_cast(std::uint64_t, x) & 0xfffffffff8000000u);
    return {upper, x - upper};
  }
};
/// The mean of what was split so, from the sums of the halves. Of equal numbers their sums are exact, and so is this (4096 of them in float).
struct mean_of_halves {
  template <class T>
  PLUMB_HD T operator()(const T& upper, const T& lower, const T& count) const { return is_zero(count) ? T(0) : upper / count + lower / count; }
};

/// GPG's factor times the deviation: `deviation counted / (divisor valid)`; 0 where no reply is valid or the reply does not count.
template <class T>
struct gpg_term {
  T divisor;
  bool keep_lone;
  PLUMB_HD T operator()(const T& deviation, const T& reward, const T& count, const T& factor) const {
    if (is_zero(count)) return T(0);
    return (keep_lone && !(T(1) < count) ? reward : deviation) * factor / divisor;
  }
};
/// The count where the group's squares are not 0.
struct count_where_varied {
  template <class T>
  PLUMB_HD T operator()(const T& count, const T& squares) const { return is_zero(squares) ? T(0) : is_nan(squares) ? squares : count; }
};
/// 1 where `x` is not 0; NaN of NaN.
struct nonzero_reward {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return is_zero(x) ? T(0) : is_nan(x) ? x : T(1); }
};

/// `x` below 0, and -inf at 0: to find the second largest of what was shifted by the largest.
template <class T>
struct below_top {
  T lowest;
  PLUMB_HD T operator()(const T& x) const { return is_zero(x) ? lowest : x; }
};
/// 1 at 0 (the largest of what was shifted by the largest), else 0.
struct at_top {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return is_nan(x) ? x : is_zero(x) ? T(1) : T(0); }
};
/// From the second largest reward (below the largest, which is 0), how often the largest occurs and the deviation to divide by: the gap; 0
/// where the largest occurs twice or the group has one reply.
struct top_gap {
  template <class T>
  PLUMB_HD T operator()(const T& second, const T& tops, const T& count, const T& divisor) const {
    if (is_nan(second) || is_nan(tops)) return second + tops;
    if (!(T(1) < count) || T(1) < tops) return T(0);
    return -second / divisor;
  }
};
/// The gap at the group's best reply, 0 at the others and at those that do not count.
struct gap_at_top {
  template <class T>
  PLUMB_HD T operator()(const T& below, const T& gap, const T& count) const {
    if (is_zero(count)) return T(0);
    return is_nan(below) ? below : is_zero(below) ? gap : T(0);
  }
};
/// `sd + epsilon` of a group, or 1.
template <class T>
struct gap_divisor {
  T epsilon;
  PLUMB_HD T operator()(const T& squares, const T& count) const { return group_deviation{}(squares, count) + epsilon; }
};

/// 1 where the rewards of a group lie further apart than `tolerance`: from the largest, the largest of the negated, and the count.
template <class T>
struct group_varies {
  T tolerance;
  PLUMB_HD T operator()(const T& top, const T& negated_bottom, const T& count) const {
    return is_zero(count) ? T(0) : greater(top + negated_bottom, tolerance);
  }
};

}  // namespace math

PLUMB_NAMESPACE_END

#pragma once
// The functors by which the largest of many numbers are found: no sort, but bisection on the bits of the bound.

#include <plumb/math/elementwise.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

/// `(a - mean a)(b - mean b)`.
struct centred_product {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& mean_a, const T& b, const T& mean_b) const { return (a - mean_a) * (b - mean_b); }
};

/// 1 where `x` does not lie strictly between the bounds, or `excluded` is set, else 0; NaN where `x` is. A bound of 1e30 in size is none.
template <class T>
struct is_outside {
  T lower, upper;
  PLUMB_HD T operator()(const T& x, const T& excluded) const {
    const bool above = lower < x || !(T(-1e30) < lower), below = x < upper || !(upper < T(1e30));
    return is_nan(x) ? x : !is_zero(excluded) || !above || !below ? T(1) : T(0);
  }
};

/// 1 where `scored` is set and `excluded` is not, else 0; NaN where that is open.
struct is_candidate {
  template <class T>
  PLUMB_HD T operator()(const T& scored, const T& excluded) const {
    return is_zero(scored) ? T(0) : is_nan(excluded) ? excluded : is_zero(excluded) ? T(1) : T(0);
  }
};

/// Numbers of a type that `std::uint32_t` or `std::uint64_t` can hold the bits of: all of them, infinities too, can be counted off in order.
template <class T>
inline constexpr bool has_ordered_bits = std::is_same_v<T, float> || std::is_same_v<T, double>;

/// The place of a number among all of its type, from -inf up; -0 is before 0. NaN has none.
template <class T>
  requires has_ordered_bits<T>
PLUMB_HD constexpr auto place_of(const T& x) {
  using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr bits sign = bits(1) << (8 * sizeof(T) - 1);
  const bits b = __builtin_bit_cast(bits, x);
  return static_cast<bits>((b & sign) != 0 ? ~b : b | sign);
}
/// The number at a place.
template <class T, class Bits>
  requires has_ordered_bits<T>
PLUMB_HD constexpr T at_place(Bits place) {
  constexpr Bits sign = Bits(1) << (8 * sizeof(T) - 1);
  return __builtin_bit_cast(T, static_cast<Bits>((place & sign) != 0 ? place & ~sign : ~place));
}

/// The middle of `low` and `high`: half-way by place, rounded up, and so exact from -inf to inf; of other types by value.
template <class T>
PLUMB_HD constexpr T middle_of(const T& low, const T& high) {
  if constexpr (has_ordered_bits<T>) {
    const auto from = place_of(low), distance = static_cast<decltype(from)>(place_of(high) - from);
    return at_place<T>(static_cast<decltype(from)>(from + distance / 2 + distance % 2));
  } else {
    return low + (high - low) / T(2);
  }
}
/// The largest number below `x`; of other types `x` itself.
template <class T>
PLUMB_HD constexpr T number_before(const T& x) {
  if constexpr (has_ordered_bits<T>) {
    return at_place<T>(static_cast<decltype(place_of(x))>(place_of(x) - 1));
  } else {
    return x;
  }
}

/// 1 where a candidate's `key` is at least the middle of the bounds. NaN counts as larger than any number.
struct at_least_middle {
  template <class T>
  PLUMB_HD T operator()(const T& key, const T& candidate, const T& low, const T& high) const {
    return T(0) < candidate && (is_nan(key) || !(key < middle_of(low, high))) ? T(1) : T(0);
  }
};

/// One step: the half that holds the `wanted`-th largest, from the number of keys that are at least the middle. The bounds belong to it; once they
/// meet they stay.
template <class T>
struct bisection_step {
  T wanted;
  PLUMB_HD two<T> operator()(const T& low, const T& high, const T& count) const {
    if constexpr (has_ordered_bits<T>) {
      if (place_of(low) == place_of(high)) return {low, high};
    }
    const T middle = middle_of(low, high);
    return count < wanted ? two<T>{low, number_before(middle)} : two<T>{middle, high};
  }
};

/// 1 where a candidate's `key` is at least `low`, else 0; NaN where either is.
struct is_chosen {
  template <class T>
  PLUMB_HD T operator()(const T& key, const T& candidate, const T& low) const {
    if (is_nan(candidate) || is_zero(candidate)) return candidate;
    return is_nan(key) ? key : key < low ? T(0) : T(1);
  }
};

/// `1 - x`.
struct not_chosen {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return T(1) - x; }
};

}  // namespace math

PLUMB_NAMESPACE_END

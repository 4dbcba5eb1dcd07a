#pragma once
// exp, the logistic function and its relatives for float, without a call and without a branch, so that compilers make vectors of loops over them;
// other number types go to the functions of math/scalar.hpp. Right under -ffast-math too: NaN and infinity never enter the arithmetic, they
// are told apart and put back as bits. On a device, the device's own functions are the fast ones.
//
// Largest errors over all floats, in units of the last place (subnormal results included), against double: exp 1.0, sigmoid 2.4,
// softplus 2.1, log1p 2.6; under -ffast-math 1.3, 4.1, 2.7 and 2.6.

#include <plumb/math/scalar.hpp>

PLUMB_NAMESPACE_BEGIN

namespace math {

namespace bits {

PLUMB_HD constexpr std::int32_t of(float x) { return __builtin_bit_cast(std::int32_t, x); }
PLUMB_HD constexpr float as_float(std::int32_t x) { return __builtin_bit_cast(float, x); }
inline constexpr std::int32_t magnitude = 0x7fffffff, infinity = 0x7f800000, quiet_nan = 0x7fc00000;
/// All ones where x is NaN.
PLUMB_HD constexpr std::int32_t nan_mask(float x) { return (infinity - (of(x) & magnitude)) >> 31; }
/// All ones where the sign is set.
PLUMB_HD constexpr std::int32_t sign_mask(float x) { return of(x) >> 31; }
/// All ones where x is neither 0 nor -0; NaN is not.
PLUMB_HD constexpr std::int32_t nonzero_mask(float x) { return -(of(x) & magnitude) >> 31; }

}  // namespace bits

namespace fast {

namespace detail {

// `x`, whole: -ffast-math would put it together with what is added next, and lose it. `n` is within 256 of 0, which compilers cannot know.
// (__builtin_assoc_barrier is lost where g++ makes vectors.)
PLUMB_HD constexpr float apart(float x, [[maybe_unused]] std::int32_t n) {
#if defined(__FAST_MATH__)
  return bits::as_float(bits::of(x) ^ ((n + 256) >> 9));
#else
  return x;
#endif
}

// |x|, or 104 where that is more or where x is NaN: exp of it is infinite, exp of its negative rounds to 0.
[[gnu::always_inline]] PLUMB_HD constexpr float clamped_magnitude(float x) {
  constexpr std::int32_t most = 0x42d00000;
  const std::int32_t m = bits::of(x) & bits::magnitude;
  return bits::as_float(m < most ? m : most);
}

// exp for |y| <= 104. y = n log 2 + r with |r| <= log(2) / 2, log 2 in two parts of which the first has few digits (Cody and Waite), the
// minimax polynomial of degree 6 for exp r (error 3e-9), and 2^n in two factors so that subnormal results are rounded once.
[[gnu::always_inline]] PLUMB_HD inline float exp_in_range(float y) {
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: added, it leaves the nearest whole number in the last bits
  const std::int32_t n = bits::of(y * 1.44269504f + magic) - bits::of(magic);
  const float k = static_cast<float>(n);
  const float r = apart(y - k * 0.693359375f, n) + k * 2.12194440e-4f;
  float p = 1.3814463746e-3f;
  p = p * r + 8.3687808365e-3f;
  p = p * r + 4.1668392718e-2f;
  p = p * r + 1.6666519642e-1f;
  p = p * r + 4.9999994040e-1f;
  p = (p * (r * r) + r) + 1.0f;
  const std::int32_t half = n >> 1;
  return bits::as_float(bits::of(p) + (half << 23)) * bits::as_float((n - half + 127) << 23);
}

// log(1 + e) for e in [-0.3, 1]: with s = e / (2 + e), 2 atanh(s) = e - s (e - 2 s^2 Q(s^2)), Q minimax of degree 3 (error 5e-9).
[[gnu::always_inline]] PLUMB_HD inline float log1p_in_unit(float e) {
  const float s = e / (2.0f + e), z = s * s;
  float q = 2 * 1.4009815454e-1f;
  q = q * z + 2 * 1.4000178874e-1f;
  q = q * z + 2 * 2.0010803640e-1f;
  q = q * z + 2 * 3.3333206177e-1f;
  return e - s * (e - z * q);
}

[[gnu::always_inline]] PLUMB_HD constexpr float with_nan_of(float x, float y) { return bits::as_float(bits::of(y) | (bits::nan_mask(x) & bits::quiet_nan)); }

}  // namespace detail

/// exp(x).
template <class T>
[[gnu::always_inline]] PLUMB_HD inline T exp(const T& x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) {
    const float m = detail::clamped_magnitude(x);
    return detail::with_nan_of(x, detail::exp_in_range(bits::as_float(bits::of(m) | (bits::of(x) & ~bits::magnitude))));
  }
#endif
  return math::exp(x);
}

/// exp(-|x|).
template <class T>
[[gnu::always_inline]] PLUMB_HD inline T exp_of_minus_magnitude(const T& x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) return detail::with_nan_of(x, detail::exp_in_range(-detail::clamped_magnitude(x)));
#endif
  return math::exp(x < T(0) ? x : -x);
}

/// log(1 + x): -inf at -1, NaN below.
template <class T>
[[gnu::always_inline]] PLUMB_HD inline T log1p(const T& x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) {
    // 1 + x = 2^n (1 + f) with f in [-0.3, 0.42], and f = x, unrounded, where n is 0.
    constexpr std::int32_t root_of_half = 0x3f3504f3, one = 0x3f800000;
    const std::int32_t below = bits::sign_mask(x) & ((one - (bits::of(x) & bits::magnitude)) >> 31);
    const std::int32_t given = bits::of(x) & ~bits::nan_mask(x) & ~below, u = bits::of(1.0f + bits::as_float(given));
    const std::int32_t n = (u - root_of_half) >> 23, same = ((n | -n) >> 31);  // `same`: 0 where n is
    const float reduced = bits::as_float(u - (n << 23)) - 1.0f;
    const float f = bits::as_float((bits::of(reduced) & same) | (given & ~same));
    const std::int32_t y = bits::of(static_cast<float>(n) * 0.69314718f + detail::log1p_in_unit(f));
    const std::int32_t ends = ~(bits::nonzero_mask(bits::as_float(u)) & ((u - bits::infinity) >> 31));  // 1 + x is 0 or infinite
    const std::int32_t end = bits::infinity | (given & ~bits::magnitude);
    return detail::with_nan_of(x, bits::as_float((y & ~ends) | (end & ends) | (below & bits::quiet_nan)));
  }
#endif
  return math::log1p(x);
}

/// 1 / (1 + e^-x).
[[gnu::always_inline]] PLUMB_HD inline float sigmoid(float x) {
  const float e = detail::exp_in_range(-detail::clamped_magnitude(x));
  constexpr std::int32_t one = 0x3f800000;
  const std::int32_t negative = bits::sign_mask(x);
  const float numerator = bits::as_float((bits::of(e) & negative) | (one & ~negative));
  return detail::with_nan_of(x, numerator / (1.0f + e));
}

/// log(1 + e^x).
[[gnu::always_inline]] PLUMB_HD inline float softplus(float x) {
  const float positive_part = bits::as_float(bits::of(x) & ~bits::sign_mask(x) & ~bits::nan_mask(x));
  return detail::with_nan_of(x, positive_part + detail::log1p_in_unit(detail::exp_in_range(-detail::clamped_magnitude(x))));
}

}  // namespace fast

/// `x` where `weight` is not 0, else 0, whatever `x` is.
template <class T>
[[gnu::always_inline]] PLUMB_HD inline T where_nonzero(const T& weight, const T& x) {
  if constexpr (std::is_same_v<T, float>) {
    return bits::as_float(bits::of(x) & bits::nonzero_mask(weight));
  } else {
    return is_zero(weight) ? T(0) : x;
  }
}

}  // namespace math

PLUMB_NAMESPACE_END

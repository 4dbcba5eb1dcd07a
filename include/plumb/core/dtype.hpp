#pragma once
// Element types: what may be stored, and in which type it is computed.

#include <plumb/config.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

PLUMB_TYPES_BEGIN

/// bfloat16 as storage: the upper half of a float. Same bits as the types of CUDA, oneDNN and DLPack.
/// Arithmetic is done in float; the conversion from float rounds to nearest, ties to even, and keeps NaN.
struct bf16 {
  std::uint16_t bits = 0;

  constexpr bf16() = default;
  PLUMB_HD constexpr explicit bf16(float x) {
    const auto u = __builtin_bit_cast(std::uint32_t, x);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  PLUMB_HD constexpr explicit operator float() const {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
  }
};

/// IEEE binary16 as storage; the conversion from float rounds to nearest, ties to even, and keeps NaN and infinities.
struct f16 {
  std::uint16_t bits = 0;

  constexpr f16() = default;
  PLUMB_HD constexpr explicit f16(float x) {
    const auto u = __builtin_bit_cast(std::uint32_t, x);
    const std::uint32_t sign = (u >> 16) & 0x8000u;
    const std::uint32_t magnitude = u & 0x7fffffffu;
    std::uint32_t h = 0;
    if (magnitude > 0x7f800000u) {
      h = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
      h = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {  // normal numbers of binary16
      h = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    } else if (magnitude >= 0x33000000u) {  // subnormal numbers: shift the significand into place, then round
      const std::uint32_t shift = 126u - (magnitude >> 23);
      const std::uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
      const std::uint32_t rest = significand & ((1u << shift) - 1u);
      const std::uint32_t half = 1u << (shift - 1u);
      h = significand >> shift;
      h += rest > half || (rest == half && (h & 1u)) ? 1u : 0u;
    }
    bits = static_cast<std::uint16_t>(sign | h);
  }
  PLUMB_HD constexpr explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu;
    std::uint32_t significand = bits & 0x3ffu;
    if (exponent == 0x1f) return __builtin_bit_cast(float, sign | 0x7f800000u | (significand << 13));
    if (exponent != 0) return __builtin_bit_cast(float, sign | ((exponent + 112u) << 23) | (significand << 13));
    if (significand == 0) return __builtin_bit_cast(float, sign);
    std::uint32_t e = 113u;
    while (!(significand & 0x400u)) {
      significand <<= 1;
      --e;
    }
    return __builtin_bit_cast(float, sign | (e << 23) | ((significand & 0x3ffu) << 13));
  }
};

/// Reads one stored element as `Real`; writes go through the same function the other way round.
template <class To, class From>
PLUMB_HD constexpr To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, bf16> || std::is_same_v<From, f16>) {
    return convert<To>(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, bf16> || std::is_same_v<To, f16>) {
    return To(static_cast<float>(x));
  } else {
    return static_cast<To>(x);
  }
}

/// Whether `T` is a 16-bit storage type.
template <class T>
inline constexpr bool is_storage_16 = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// Name of an element type for messages and tables.
template <class T>
constexpr const char* dtype_name() {
  if constexpr (std::is_same_v<T, float>) return "float";
  if constexpr (std::is_same_v<T, double>) return "double";
  if constexpr (std::is_same_v<T, bf16>) return "bf16";
  if constexpr (std::is_same_v<T, f16>) return "f16";
  if constexpr (std::is_same_v<T, std::int32_t>) return "int32";
  if constexpr (std::is_same_v<T, std::uint8_t>) return "uint8";
  return "scalar";
}

/// A list of types, as backends use it to name what they store.
template <class... T>
struct types {
  template <class U>
  static constexpr bool contains = (std::is_same_v<T, U> || ...);
  static constexpr std::size_t size = sizeof...(T);
};

PLUMB_TYPES_END

#pragma once
// Several floats at once, by the vector types of g++ and clang, and the choice at run time of how many: the unit that includes this
// may be compiled for any x86-64 (or another processor, with four lanes). No intrinsics, no compiler flags.

#include <plumb/core/dtype.hpp>

#include <cstdint>
#include <cstring>

PLUMB_NAMESPACE_BEGIN

namespace onednn {

/// The instruction sets that the backend's own loops know. oneDNN makes its own choice (see ONEDNN_MAX_CPU_ISA).
enum class isa { generic, avx2, avx512 };

namespace detail {

inline isa best_isa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return isa::avx2;
#endif
  return isa::generic;
}

// The compiler's vector types live inside structs, and every function on them is inlined into a function of the right target, so that
// no vector crosses a call and no compiler speaks of its ABI.
template <int N>
struct lane_types;
template <>
struct lane_types<4> {
  typedef float real __attribute__((vector_size(16)));
  typedef std::int32_t bits __attribute__((vector_size(16)));
  typedef std::uint16_t half __attribute__((vector_size(8)));
};
template <>
struct lane_types<8> {
  typedef float real __attribute__((vector_size(32)));
  typedef std::int32_t bits __attribute__((vector_size(32)));
  typedef std::uint16_t half __attribute__((vector_size(16)));
};
template <>
struct lane_types<16> {
  typedef float real __attribute__((vector_size(64)));
  typedef std::int32_t bits __attribute__((vector_size(64)));
  typedef std::uint16_t half __attribute__((vector_size(32)));
};

/// `N` floats. Arithmetic is entry by entry; a float beside a vector stands for `N` of them.
template <int N>
struct real_lanes {
  using vector = typename lane_types<N>::real;
  vector v{};

  real_lanes() = default;
  [[gnu::always_inline]] explicit real_lanes(const vector& x) : v(x) {}
  [[gnu::always_inline]] real_lanes(float x) : v(vector{} + x) {}

  [[gnu::always_inline]] friend real_lanes operator+(const real_lanes& a, const real_lanes& b) { return real_lanes(a.v + b.v); }
  [[gnu::always_inline]] friend real_lanes operator-(const real_lanes& a, const real_lanes& b) { return real_lanes(a.v - b.v); }
  [[gnu::always_inline]] friend real_lanes operator*(const real_lanes& a, const real_lanes& b) { return real_lanes(a.v * b.v); }
  [[gnu::always_inline]] friend real_lanes operator/(const real_lanes& a, const real_lanes& b) { return real_lanes(a.v / b.v); }
  [[gnu::always_inline]] real_lanes& operator+=(const real_lanes& b) {
    v += b.v;
    return *this;
  }
};

/// `N` 32-bit integers.
template <int N>
struct bit_lanes {
  using vector = typename lane_types<N>::bits;
  vector v{};

  bit_lanes() = default;
  [[gnu::always_inline]] explicit bit_lanes(const vector& x) : v(x) {}
  [[gnu::always_inline]] bit_lanes(std::int32_t x) : v(vector{} + x) {}

  [[gnu::always_inline]] friend bit_lanes operator+(const bit_lanes& a, const bit_lanes& b) { return bit_lanes(a.v + b.v); }
  [[gnu::always_inline]] friend bit_lanes operator-(const bit_lanes& a, const bit_lanes& b) { return bit_lanes(a.v - b.v); }
  [[gnu::always_inline]] friend bit_lanes operator&(const bit_lanes& a, const bit_lanes& b) { return bit_lanes(a.v & b.v); }
  [[gnu::always_inline]] friend bit_lanes operator|(const bit_lanes& a, const bit_lanes& b) { return bit_lanes(a.v | b.v); }
  [[gnu::always_inline]] friend bit_lanes operator~(const bit_lanes& a) { return bit_lanes(~a.v); }
  [[gnu::always_inline]] friend bit_lanes operator<<(const bit_lanes& a, int n) { return bit_lanes(a.v << n); }
  [[gnu::always_inline]] friend bit_lanes operator>>(const bit_lanes& a, int n) { return bit_lanes(a.v >> n); }
  [[gnu::always_inline]] bit_lanes& operator|=(const bit_lanes& b) {
    v |= b.v;
    return *this;
  }
};

// Conversions, one for each width: g++ 12 cannot name the types of __builtin_convertvector in a template.
[[gnu::always_inline]] inline bit_lanes<4> truncate(const real_lanes<4>& x) {
  return bit_lanes<4>(__builtin_convertvector(x.v, lane_types<4>::bits));
}
[[gnu::always_inline]] inline bit_lanes<8> truncate(const real_lanes<8>& x) {
  return bit_lanes<8>(__builtin_convertvector(x.v, lane_types<8>::bits));
}
[[gnu::always_inline]] inline bit_lanes<16> truncate(const real_lanes<16>& x) {
  return bit_lanes<16>(__builtin_convertvector(x.v, lane_types<16>::bits));
}
[[gnu::always_inline]] inline real_lanes<4> to_real(const bit_lanes<4>& x) {
  return real_lanes<4>(__builtin_convertvector(x.v, lane_types<4>::real));
}
[[gnu::always_inline]] inline real_lanes<8> to_real(const bit_lanes<8>& x) {
  return real_lanes<8>(__builtin_convertvector(x.v, lane_types<8>::real));
}
[[gnu::always_inline]] inline real_lanes<16> to_real(const bit_lanes<16>& x) {
  return real_lanes<16>(__builtin_convertvector(x.v, lane_types<16>::real));
}
[[gnu::always_inline]] inline void widen(const lane_types<4>::half& x, bit_lanes<4>& y) {
  y.v = __builtin_convertvector(x, lane_types<4>::bits);
}
[[gnu::always_inline]] inline void widen(const lane_types<8>::half& x, bit_lanes<8>& y) {
  y.v = __builtin_convertvector(x, lane_types<8>::bits);
}
[[gnu::always_inline]] inline void widen(const lane_types<16>::half& x, bit_lanes<16>& y) {
  y.v = __builtin_convertvector(x, lane_types<16>::bits);
}
[[gnu::always_inline]] inline void narrow(const bit_lanes<4>& x, lane_types<4>::half& y) {
  y = __builtin_convertvector(x.v, lane_types<4>::half);
}
[[gnu::always_inline]] inline void narrow(const bit_lanes<8>& x, lane_types<8>::half& y) {
  y = __builtin_convertvector(x.v, lane_types<8>::half);
}
[[gnu::always_inline]] inline void narrow(const bit_lanes<16>& x, lane_types<16>::half& y) {
  y = __builtin_convertvector(x.v, lane_types<16>::half);
}

/// Memory, bit patterns and functions of `N` floats.
template <int N>
struct lanes {
  using real = real_lanes<N>;
  using bits = bit_lanes<N>;

  [[gnu::always_inline]] static bits as_bits(const real& x) { return bits((typename bits::vector)x.v); }
  [[gnu::always_inline]] static real as_real(const bits& x) { return real((typename real::vector)x.v); }
  [[gnu::always_inline]] static real select(const bits& mask, const real& yes, const real& no) {
    return as_real((mask & as_bits(yes)) | (~mask & as_bits(no)));
  }
  // Masks are made from sign bits: g++ takes a comparison of vectors apart when the target of its function is chosen afterwards.
  /// All ones where a < b, for integers whose difference fits and for floats that are not NaN.
  [[gnu::always_inline]] static bits less(const bits& a, const bits& b) { return (a - b) >> 31; }
  [[gnu::always_inline]] static bits less(const real& a, const real& b) { return as_bits(a - b) >> 31; }
  /// All ones where `x` is NaN; by bit pattern, so right under -ffast-math.
  [[gnu::always_inline]] static bits nan_mask(const real& x) { return less(0x7f800000, as_bits(x) & 0x7fffffff); }
  /// The larger; where one is NaN, either.
  [[gnu::always_inline]] static real larger(const real& a, const real& b) { return real(a.v > b.v ? a.v : b.v); }
  [[gnu::always_inline]] static real smaller(const real& a, const real& b) { return real(a.v < b.v ? a.v : b.v); }
  /// All ones in the first `n` lanes.
  [[gnu::always_inline]] static bits first(std::int64_t n) {
    std::int32_t index[N];
    for (int i = 0; i < N; ++i) index[i] = i;
    bits lane;
    std::memcpy(&lane.v, index, sizeof index);
    return less(lane, static_cast<std::int32_t>(n < N ? n : N));
  }

  [[gnu::always_inline]] static real load(const float* p) {
    real x;
    std::memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  [[gnu::always_inline]] static void store(float* p, const real& x) { std::memcpy(p, &x.v, sizeof x.v); }

  [[gnu::always_inline]] static real load(const bf16* p) { return as_real(load_16(p) << 16); }
  /// Rounds to nearest even; NaN stays NaN.
  [[gnu::always_inline]] static void store(bf16* p, const real& x) {
    const bits u = as_bits(x), nan = nan_mask(x);
    const bits top = (u >> 16) & 0xffff, rounded = ((u + 0x7fff + (top & 1)) >> 16) & 0xffff;
    store_16((nan & (top | 0x40)) | (~nan & rounded), p);
  }

  // binary16 without branches (F. Giesen, "float->half variants", public domain), subnormals by one float addition.
  [[gnu::always_inline]] static real load(const f16* p) {
    const bits w = load_16(p), sign = (w & 0x8000) << 16, magnitude = (w & 0x7fff) << 13;
    const bits exponent = magnitude & 0x0f800000;
    const bits special = less(0x0f7fffff, exponent) & 0x38000000;
    const bits normal = magnitude + 0x38000000 + special;
    const real subnormal = as_real(magnitude + 0x38800000) - as_real(0x38800000);
    const bits is_small = less(exponent, 1);
    return as_real(sign | (is_small & as_bits(subnormal)) | (~is_small & normal));
  }
  [[gnu::always_inline]] static void store(f16* p, const real& x) {
    const bits u = as_bits(x), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
    const bits normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const bits subnormal = as_bits(as_real(magnitude) + 0.5f) - 0x3f000000;
    const bits is_small = less(magnitude, 0x38800000), is_large = less(0x477fefff, magnitude), nan = nan_mask(x);
    const bits finite = (is_small & subnormal) | (~is_small & normal);
    store_16(sign | (~is_large & finite) | (is_large & ~nan & 0x7c00) | (nan & 0x7e00), p);
  }

  // Across the lanes: halves upon halves, down to four.
  [[gnu::always_inline]] static float sum(const real& x) {
    if constexpr (N > 4) {
      real_lanes<N / 2> low, high;
      halve(x, low, high);
      return lanes<N / 2>::sum(low + high);
    } else {
      return (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]);
    }
  }
  [[gnu::always_inline]] static float largest(const real& x) {
    if constexpr (N > 4) {
      real_lanes<N / 2> low, high;
      halve(x, low, high);
      return lanes<N / 2>::largest(lanes<N / 2>::larger(low, high));
    } else {
      const float a = x.v[0] > x.v[2] ? x.v[0] : x.v[2], b = x.v[1] > x.v[3] ? x.v[1] : x.v[3];
      return a > b ? a : b;
    }
  }
  [[gnu::always_inline]] static bool any(const bits& x) {
    if constexpr (N > 4) {
      bit_lanes<N / 2> low, high;
      halve(x, low, high);
      return lanes<N / 2>::any(low | high);
    } else {
      return ((x.v[0] | x.v[2]) | (x.v[1] | x.v[3])) != 0;
    }
  }

  /// exp for x up to about 0 (that is, of what is no larger than a maximum): 1 ulp up to 0.3, relative 4e-5 up to 88; exp(lowest),
  /// 1e-38, below `lowest`. Reduction and polynomial as in Cephes' expf.
  static constexpr float lowest = -87.33654f;
  [[gnu::always_inline]] static real exp(const real& x_in) {
    const real x = larger(x_in, lowest);
    const bits n = truncate(x * 1.44269504f - 0.5f);  // the nearest integer, where that is not positive
    const real k = to_real(n);
    const real r = x - k * 0.693359375f - k * -2.12194440e-4f;
    real p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * (r * r) + r + 1.0f) * as_real((n + 127) << 23);
  }
  /// The same, and exactly 0 below `lowest`.
  [[gnu::always_inline]] static real exp_or_zero(const real& x) { return as_real(less(lowest, x) & as_bits(exp(x))); }

  /// tanh, about 2 ulp; NaN stays NaN. The odd polynomial near 0 is Cephes' tanhf.
  [[gnu::always_inline]] static real tanh(const real& x) {
    const bits sign = as_bits(x) & INT32_MIN;
    const real a = as_real(as_bits(x) & INT32_MAX);
    const real e = exp(a * -2.0f);
    const real far = (real(1.0f) - e) / (e + 1.0f);
    const real s = x * x;
    real p = s * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    const real near = p * s * x + x;
    const real y = select(less(a, 0.625f), near, as_real(as_bits(far) | sign));
    return select(nan_mask(x), x, y);
  }

 private:
  template <class V, class W>
  [[gnu::always_inline]] static void halve(const V& x, W& low, W& high) {
    std::memcpy(&low.v, &x.v, sizeof low.v);
    std::memcpy(&high.v, reinterpret_cast<const char*>(&x.v) + sizeof low.v, sizeof high.v);
  }
  [[gnu::always_inline]] static bits load_16(const void* p) {
    typename lane_types<N>::half h;
    std::memcpy(&h, p, sizeof h);
    bits x;
    widen(h, x);
    return x;
  }
  [[gnu::always_inline]] static void store_16(const bits& x, void* p) {
    typename lane_types<N>::half h;
    narrow(x, h);
    std::memcpy(p, &h, sizeof h);
  }
};

// f.template operator()<N>() inside a function of each target; the call operators are always_inline.
#if defined(__x86_64__)
template <class F>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]] void run_avx512(F& f) {
  f.template operator()<16>();
}
template <class F>
[[gnu::target("avx2,fma")]] void run_avx2(F& f) {
  f.template operator()<8>();
}
#endif
template <class F>
void run_generic(F& f) {
  f.template operator()<4>();
}

/// Runs `f` with as many lanes as `which` has.
template <class F>
void dispatch(isa which, F f) {
#if defined(__x86_64__)
  if (which == isa::avx512) return run_avx512(f);
  if (which == isa::avx2) return run_avx2(f);
#endif
  run_generic(f);
}

}  // namespace detail
}  // namespace onednn

PLUMB_NAMESPACE_END

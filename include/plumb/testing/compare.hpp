#pragma once
// Comparing numbers in tests: hostile to NaN, in units of what is allowed, with one table of tolerances.

#include <plumb/core/dtype.hpp>
#include <plumb/math/scalar.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// How many representable numbers lie between `a` and `b`: 0 where they are equal (and for +0 and -0), the largest count where
/// one is NaN or the signs of infinities differ.
template <class T>
std::uint64_t ulp_distance(T a, T b) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr std::uint64_t far = std::numeric_limits<std::uint64_t>::max();
  if (math::is_nan(a) || math::is_nan(b)) return far;
  if (math::is_inf(a) != math::is_inf(b)) return far;
  constexpr bits sign = bits{1} << (8 * sizeof(T) - 1);
  const auto magnitude = [](T x) { return static_cast<std::uint64_t>(__builtin_bit_cast(bits, x) & ~sign); };
  const bool opposite = ((__builtin_bit_cast(bits, a) ^ __builtin_bit_cast(bits, b)) & sign) != 0;
  if (math::is_inf(a)) return opposite ? far : 0;
  const std::uint64_t x = magnitude(a), y = magnitude(b);
  return opposite ? x + y : x < y ? y - x : x - y;
}

/// What a computation should give, and for each number the magnitude of what entered it: rounding errors are proportional to the
/// terms of a sum, not to the sum.
struct expectation {
  std::vector<double> value{};
  std::vector<double> magnitude{};  ///< as long as `value`

  void push(double v, double m) {
    value.push_back(v);
    magnitude.push_back(m);
  }
  /// Numbers that stand for themselves.
  static expectation plain(std::vector<double> v) {
    expectation e;
    for (const double x : v) e.magnitude.push_back(x < 0 ? -x : x);
    e.value = std::move(v);
    return e;
  }
};

/// The worst of a comparison: `ratio` is the error over what is allowed; NaN against a number, or infinities that differ, are infinitely
/// wrong. Above 1, the comparison has failed.
struct verdict {
  double ratio = 0;
  std::size_t index = 0;
  double got = 0, want = 0;
  bool good() const { return !(ratio > 1); }
};

/// Compares with `|got - want| <= relative * magnitude + absolute`; lengths must agree.
inline verdict compare(const std::vector<double>& got, const expectation& want, double relative, double absolute = 0) {
  verdict worst;
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if (got.size() != want.value.size()) {
    worst.ratio = infinite;
    worst.got = static_cast<double>(got.size());
    worst.want = static_cast<double>(want.value.size());
    return worst;
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double g = got[i], w = want.value[i];
    double ratio = 0;
    if (math::is_nan(g) || math::is_nan(w)) {
      ratio = math::is_nan(g) && math::is_nan(w) ? 0 : infinite;
    } else if (math::is_inf(g) || math::is_inf(w)) {
      ratio = math::is_inf(g) && math::is_inf(w) && (g < 0) == (w < 0) ? 0 : infinite;
    } else {
      const double error = g < w ? w - g : g - w;
      const double allowed = relative * want.magnitude[i] + absolute;
      ratio = error <= allowed ? (allowed > 0 ? error / allowed : 0) : allowed > 0 ? error / allowed : infinite;
    }
    if (ratio > worst.ratio) worst = {ratio, i, g, w};
  }
  return worst;
}

/// The rounding of one store into `T`, relative; and the smallest step below its normal numbers.
template <class T>
constexpr double storage_epsilon() {
  if constexpr (std::is_same_v<T, bf16>) return 0x1p-8;
  if constexpr (std::is_same_v<T, f16>) return 0x1p-11;
  if constexpr (std::is_same_v<T, float>) return 0x1p-24;
  return 0x1p-53;
}
/// The largest absolute error of one store below the normal numbers of `T`.
template <class T>
constexpr double storage_step() {
  if constexpr (std::is_same_v<T, f16>) return 0x1p-25;
  if constexpr (std::is_same_v<T, double>) return 0x1p-1022;
  return 0x1p-126;  // float and bf16: what a processor may flush to zero
}

/// One operation's tolerance, in units of the last place of `real` (2^-24 for float, 2^-53 for double) times the magnitude of what
/// entered. Results stored in another type are allowed that type's own rounding besides.
struct tolerance {
  const char* operation;
  double units;
  const char* reason;
};

/// The table. What is not named here computes nothing and is exact.
inline constexpr tolerance tolerances[] = {
    {"transform", 8, "a functor's own roundings; a compiler may contract a product and a sum"},
    {"reduce", 64, "sums in any order, in `real` or wider"},
    {"segment_reduce", 64, "sums in any order"},
    {"segment_broadcast", 1, "one addition"},
    {"segment_scan", 64, "as many products and sums as tokens, each on the terms' own magnitude"},
    {"row_log_sum_exp", 16, "exp by polynomials of 1 to 2 ulp, sums in any order; relative to the largest logit"},
    {"row_softmax", 32, "the exponent's rounding, at the logits' magnitude, becomes relative to the probability"},
    {"row_softmax_grad", 64, "a sum over the row, then a difference"},
    {"row_add_at", 1, "one addition"},
    {"row_scatter_add", 8, "a few additions"},
    {"gemm", 64, "sums of products in any order, or with fused multiply-add"},
    {"token_logp", 32, "log-sum-exp and a difference, at the logits' magnitude"},
    {"entropy", 128, "a sum over the vocabulary of probabilities times log-probabilities"},
    {"token_logp_grad", 64, "a softmax and the one-hot term; the entropy's comes from an earlier call"},
    {"objective", 160, "a few sums over the batch: 1e-5 in float"},
    {"gradient", 1600, "through a gemm: 1e-4 in float"},
};

/// The units of the table; 0 for an operation that is not in it.
constexpr double tolerance_units(const char* operation) {
  for (const auto& t : tolerances) {
    const char *a = t.operation, *b = operation;
    while (*a != '\0' && *a == *b) ++a, ++b;
    if (*a == *b) return t.units;
  }
  return 0;
}

/// Relative tolerance of `operation` in type `Real`.
template <class Real>
constexpr double tolerance_of(const char* operation) {
  return tolerance_units(operation) * storage_epsilon<Real>();
}

}  // namespace testing

PLUMB_NAMESPACE_END

// 16-bit storage, bit by bit.
#include "support/catch.hpp"

#include <plumb/core/dtype.hpp>

#include <cmath>
#include <limits>

using namespace plumb;

namespace {

/// The definition: sign, exponent, significand.
double value_of(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const double fraction = static_cast<double>(bits & ((1u << fraction_bits) - 1u)), sign = (bits >> (exponent_bits + fraction_bits)) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + std::ldexp(1.0, fraction_bits), exponent - bias - fraction_bits);
}

/// Every one of the 65536, and what lies between neighbours.
template <class T>
void check_all(int exponent_bits, int fraction_bits) {
  const std::uint32_t infinity = ((1u << exponent_bits) - 1u) << fraction_bits;
  for (std::uint32_t b = 0; b < 65536; ++b) {
    T x;
    x.bits = static_cast<std::uint16_t>(b);
    const double want = value_of(b, exponent_bits, fraction_bits);
    const float as_float = static_cast<float>(x);
    if (std::isnan(want)) {
      REQUIRE(std::isnan(as_float));
      REQUIRE(std::isnan(static_cast<float>(T(as_float))));
      continue;
    }
    REQUIRE(static_cast<double>(as_float) == want);
    REQUIRE(T(as_float).bits == b);
    if (b >= infinity - 1) continue;  // positive, with a finite neighbour above
    const double above = value_of(b + 1, exponent_bits, fraction_bits), middle = (want + above) / 2;
    const auto even = static_cast<std::uint16_t>(b % 2 == 0 ? b : b + 1);
    REQUIRE(T(static_cast<float>(middle)).bits == even);
    if (static_cast<double>(static_cast<float>(middle)) != middle || middle < 1.2e-38) continue;
    REQUIRE(T(std::nextafter(static_cast<float>(middle), 0.0f)).bits == b);
    REQUIRE(T(std::nextafter(static_cast<float>(middle), std::numeric_limits<float>::infinity())).bits == b + 1);
  }
}

}  // namespace

TEST_CASE("bf16: every value, and rounding to nearest even between them") { check_all<bf16>(8, 7); }
TEST_CASE("f16: every value, and rounding to nearest even between them") { check_all<f16>(5, 10); }

TEST_CASE("16 bits: too large is infinite, NaN stays NaN, signs stay") {
  CHECK(std::isinf(static_cast<float>(f16(65520.0f))));
  CHECK(static_cast<float>(f16(65519.0f)) == 65504);
  CHECK(std::isinf(static_cast<float>(bf16(std::numeric_limits<float>::max()))));
  CHECK(std::isnan(static_cast<float>(bf16(std::numeric_limits<float>::signaling_NaN()))));
  CHECK(bf16(-0.0f).bits == 0x8000);
  CHECK(f16(-1e-30f).bits == 0x8000);
}

TEST_CASE("convert goes between any two element types") {
  CHECK(convert<double>(bf16(1.5f)) == 1.5);
  CHECK(convert<bf16>(1.00390625).bits == 0x3f80);
  CHECK(convert<float>(std::uint8_t{200}) == 200);
  CHECK(convert<double>(std::int32_t{-7}) == -7);
  CHECK(convert<f16>(bf16(2.0f)).bits == f16(2.0f).bits);
  static_assert(convert<float>(bf16(3.0f)) == 3.0f, "usable at compile time");
}

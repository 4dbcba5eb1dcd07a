// Counter-based random numbers: the published vectors, and that uniform, normal and below are what they say.
#include "support/catch.hpp"

#include <plumb/core/random.hpp>

using namespace plumb;

TEST_CASE("philox4x32-10: the known answers of Random123") {
  const auto is = [](philox_words w, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
    return w.word[0] == a && w.word[1] == b && w.word[2] == c && w.word[3] == d;
  };
  constexpr std::uint32_t ones = 0xffffffffu;
  CHECK(is(philox4x32({{0, 0, 0, 0}}, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  CHECK(is(philox4x32({{ones, ones, ones, ones}}, ones, ones), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  CHECK(is(philox4x32({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0), 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST_CASE("random_stream: moments and ranges") {
  const random_stream r{1, 2};
  constexpr std::uint64_t n = 200000;
  double uniform = 0, normal = 0, squares = 0;
  int histogram[7] = {};
  for (std::uint64_t i = 0; i < n; ++i) {
    const double u = r.uniform(i), z = r.normal(i);
    REQUIRE((u >= 0 && u < 1));
    uniform += u / n;
    normal += z / n;
    squares += z * z / n;
    ++histogram[r.below(7, i)];
  }
  CHECK(uniform == Catch::Approx(0.5).margin(0.003));
  CHECK(normal == Catch::Approx(0).margin(0.01));
  CHECK(squares == Catch::Approx(1).margin(0.015));
  for (const int count : histogram) CHECK(count == Catch::Approx(n / 7.0).epsilon(0.03));
  CHECK(r.bits(5) == random_stream{1, 2}.bits(5));
  CHECK(r.bits(5) != random_stream{1, 3}.bits(5));
  CHECK(r.bits(5) != random_stream{2, 2}.bits(5));
}

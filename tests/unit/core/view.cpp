// Views: what they say of memory, and that they never touch it.
#include "support/catch.hpp"

#include <plumb/core/view.hpp>

#include <array>
#include <span>
#include <type_traits>
#include <vector>

using namespace plumb;

static_assert(std::is_trivially_copyable_v<view<float, 4>>);
struct other_space {
  static constexpr const char* name = "other";
};
static_assert(!std::is_convertible_v<view<float, 1, other_space>, view<float, 1>>, "memory spaces do not mix");
static_assert(!std::is_convertible_v<view<const float, 1>, view<float, 1>>, "const is kept");
static_assert(!std::is_constructible_v<view<float, 1>, std::vector<double>&>, "element types do not mix");
static_assert(!std::is_constructible_v<view<float, 1>, const std::vector<float>&>);
static_assert(std::is_constructible_v<view<const float, 1>, const std::vector<float>&>);
static_assert(!std::is_constructible_v<view<const float, 1>, float>, "a temporary number has no memory");

namespace {
std::vector<int> numbers() {
  std::vector<int> x(24);
  for (int i = 0; i < 24; ++i) x[static_cast<std::size_t>(i)] = i;
  return x;
}
}  // namespace

TEST_CASE("view: row-major by default, any strides on demand") {
  auto x = numbers();
  const view v(x.data(), 2, 3, 4);
  CHECK(v.extent(1) == 3);
  CHECK(v.stride(0) == 12);
  CHECK(v(1, 2, 3) == 23);
  CHECK(v.size() == 24);
  CHECK(v.contiguous());
  const view<int, 2> columns(x.data(), {4, 6}, {1, 4});
  CHECK(columns(3, 5) == 23);
  CHECK(columns(1, 0) == 1);
  CHECK(!columns.contiguous());
  const view<int, 1> backwards(x.data() + 23, {24}, {-1});
  CHECK(backwards(0) == 23);
  CHECK(backwards(23) == 0);
}

TEST_CASE("view: slices, rows, transposition move no element") {
  auto x = numbers();
  const view v(x.data(), 4, 6);
  CHECK(v.slice(1, 2)(0, 0) == 6);
  CHECK(v.narrow(1, 2, 3)(3, 2) == 22);
  CHECK(!v.narrow(1, 2, 3).contiguous());
  CHECK(v.row(2)(5) == 17);
  CHECK(v.transposed()(5, 2) == 17);
  CHECK(v.transposed().extent(0) == 6);
  CHECK(reshaped(v, 3, 8)(1, 0) == 8);
  CHECK(!reshaped(v, 3, 9).given());                 // another number of elements
  CHECK(!reshaped(v.narrow(1, 0, 1), 2, 4).given());  // gaps
  v(0, 0) = 100;
  CHECK(x[0] == 100);
  CHECK(as_const(v)(0, 0) == 100);
  static_assert(std::is_const_v<decltype(as_const(v))::element>);
}

TEST_CASE("view: one element seen many times") {
  std::vector<int> x{3, 5};
  CHECK(broadcast_columns(view(x), 4)(1, 3) == 5);
  CHECK(broadcast_rows(view(x), 4)(3, 1) == 5);
  CHECK(as_column(view(x))(1, 0) == 5);
  CHECK(as_row(view(x))(0, 1) == 5);
}

TEST_CASE("view: of a vector, a span, an array, one number, nothing") {
  std::vector<float> x{1, 2, 3};
  std::array<float, 2> a{4, 5};
  const std::span<const float> s(x);
  float one = 6;
  CHECK(view<float, 1>(x)(2) == 3);
  CHECK(view<float, 1>(a)(1) == 5);
  CHECK(view<const float, 1>(s)(0) == 1);
  CHECK(view<float, 1>(one)(0) == 6);
  CHECK(view<float, 1>(one).size() == 1);
  const view<float, 2> none;
  CHECK(!none.given());
  CHECK(none.empty());
  CHECK(view<float, 1>(x).given());
}

// Errors: the sentences, the numbers in them, and which memory overlaps.
#include "support/catch.hpp"
#include "support/gradients.hpp"

#include <plumb/core/error.hpp>

#include <cstring>
#include <limits>
#include <vector>

using namespace plumb;
using plumb_test::refusal;

TEST_CASE("message: numbers as a person writes them") {
  const auto text = [](auto x) { return std::string((message() << x).c_str()); };
  CHECK(text(0) == "0");
  CHECK(text(std::numeric_limits<std::int64_t>::min()) == "-9223372036854775808");
  CHECK(text(0.1) == "0.1");
  CHECK(text(-2.5) == "-2.5");
  CHECK(text('.') == ".");
  CHECK(text(1e20) == "1e20");
  CHECK(text(1.5e-7) == "1.5e-7");
  CHECK(text(0.0) == "0");
  CHECK(text(std::numeric_limits<double>::infinity()) == "inf");
  CHECK(text(-std::numeric_limits<double>::infinity()) == "-inf");
  CHECK(text(std::nan("")) == "nan");
  CHECK(text(view<float, 3>(nullptr, 2, 3, 4)) == "[2, 3, 4]");
}

TEST_CASE("message: is cut, never overrun") {
  message m("operation");
  for (int i = 0; i < 1000; ++i) m << "more ";
  CHECK(std::strlen(m.c_str()) == message::capacity - 1);
}

TEST_CASE("error: both shapes are named") {
  const view<float, 2> a(nullptr, 2, 3), b(nullptr, 3, 2);
  CHECK(refusal([&] { require_same_shape("op", "a", a, "b", b); }) ==
        "plumb: op: argument `a` has shape [2, 3], but `b` has shape [3, 2]. Nothing was written.");
  CHECK(refusal([&] { require_extent("op", "a", a, 1, 5, "columns of `c`"); }) ==
        "plumb: op: argument `a` has shape [2, 3], but its dimension 1 must be 5 (columns of `c`). Nothing was written.");
  CHECK(refusal([&] { require_option("op", "x", 1e-40, true, "positive"); }) ==
        "plumb: op: option `x` is 1e-40 but must be 0 or between 1e-30 and 1e30 in size, and positive. Nothing was written.");
  CHECK(refusal([&] { require_option("op", "x", -1e31, true, "a number"); }) ==
        "plumb: op: option `x` is -1e31 but must be 0 or between 1e-30 and 1e30 in size, and a number. Nothing was written.");
  CHECK(refusal([&] { require_option("op", "x", std::numeric_limits<double>::infinity(), true, "positive"); }) ==
        "plumb: op: option `x` is inf but must be finite, and positive. Nothing was written.");
  CHECK(refusal([&] { require_given("op", "a", view<float, 2>(), true); }) == "plumb: op: argument `a` is not given. Nothing was written.");
  CHECK(refusal([&] { require_given("op", "a", view<float, 2>(), false); }) == "(it was not refused)");
  CHECK(refusal([&] { require_same_shape("op", "a", a, "b", a); }) == "(it was not refused)");
}

TEST_CASE("error: a backend's failure carries its code") {
  try {
    fail_backend(message("gemm") << "it broke", 7);
  } catch (const backend_error& e) {
    CHECK(e.code() == 7);
    CHECK(std::string(e.what()) == "plumb: gemm: it broke");
  }
}

namespace {
template <class V, class W>
bool disjoint(const V& a, const W& b) {
  CHECK(overlap({"a", a}, {"b", b}) == overlap({"b", b}, {"a", a}));
  return !overlap({"a", a}, {"b", b});
}
}  // namespace

TEST_CASE("error: what overlaps in memory") {
  std::vector<float> x(100), y(100);
  const auto part = [&](index_t from, index_t count, index_t stride) { return view<float, 1>(x.data() + from, {count}, {stride}); };
  CHECK(disjoint(view(x), view(y)));
  CHECK(!disjoint(view(x), view(x)));
  CHECK(disjoint(part(0, 10, 1), part(10, 10, 1)));
  CHECK(!disjoint(part(0, 10, 1), part(9, 10, 1)));
  CHECK(disjoint(part(0, 10, 2), part(1, 10, 2)));   // even and odd entries
  CHECK(!disjoint(part(0, 10, 2), part(2, 10, 2)));
  CHECK(!disjoint(part(0, 10, 2), part(1, 10, 3)));  // they meet somewhere, or might
  CHECK(disjoint(part(98, 10, -2), part(1, 40, 2)));
  CHECK(!disjoint(part(9, 10, -1), part(0, 5, 1)));
  CHECK(disjoint(view<float, 2>(x.data(), {10, 1}, {10, 1}), view<float, 2>(x.data() + 3, {10, 1}, {10, 1})));  // two columns
  CHECK(disjoint(view<float, 2>(x.data(), {10, 3}, {10, 1}), part(0, 0, 1)));
  CHECK(disjoint(view<float, 1>(), view(x)));
}

TEST_CASE("error: what holds for the arguments of every call") {
  std::vector<float> x(20), y(20);
  const view<float, 2> ghost(nullptr, 2, 3), backwards(x.data(), -2, 3), repeated(x.data(), {4, 3}, {0, 1});
  const auto said = [](std::initializer_list<argument> outputs, std::initializer_list<argument> inputs) {
    return refusal([&] { require_arguments("op", outputs, inputs); });
  };
  CHECK(said({{"y", view(y)}}, {{"x", view(x)}}) == "(it was not refused)");
  CHECK(said({{"y", view<float, 1>()}}, {{"x", view<float, 2>()}}) == "(it was not refused)");
  CHECK(said({}, {{"x", ghost}}) == "plumb: op: argument `x` has shape [2, 3] but no memory. Nothing was written.");
  CHECK(said({{"y", backwards}}, {}) == "plumb: op: argument `y` has shape [-2, 3], with an extent below 0. Nothing was written.");
  CHECK(said({}, {{"x", repeated}}) == "(it was not refused)");
  CHECK(said({{"y", repeated}}, {}) ==
        "plumb: op: output `y` of shape [4, 3] has stride 0 in dimension 0: its elements are one and the same. Nothing was written.");
  CHECK(said({{"y", view(y)}, {"z", view(y).slice(3, 2)}}, {}) == "plumb: op: output `y` overlaps `z` in memory. Nothing was written.");
  CHECK(said({{"y", view(y)}}, {{"x", view(x)}, {"w", view(y).slice(19, 1)}}) == "plumb: op: output `y` overlaps `w` in memory. Nothing was written.");
  CHECK(argument("a", view<float, 2>(x.data(), {3, 1}, {4, 1})).same_as({"b", view<const float, 2>(x.data(), {3, 1}, {4, 9})}));
  CHECK(!argument("a", view<float, 2>(x.data(), {3, 3}, {4, 1})).same_as({"b", view<float, 2>(x.data(), {3, 3}, {1, 4})}));
}

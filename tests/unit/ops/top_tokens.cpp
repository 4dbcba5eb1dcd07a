// The largest tokens: what a sort says, exact for any numbers, as vectors, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/top_tokens.hpp>
#include <plumb/testing/memory.hpp>

#include <algorithm>
#include <limits>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Three sequences of 12 tokens: with holes, without scored tokens, whole.
const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
constexpr std::size_t tokens = 12, first = 1, last = 11;

}  // namespace

TEST_CASE("top_tokens: what a sort says, ties together, never the unscored") {
  const auto select = [](const std::vector<double>& x, double count, const std::vector<double>& excluded = {}) {
    desk<double> on;
    std::vector<double> chosen(x.size()), rest(x.size());
    top_tokens(on.compute, on.scratch, {.values = x, .excluded = excluded, .sequences = sequences}, {.count = count}, {.chosen = chosen, .rest = rest});
    for (std::size_t t = 0; t < x.size(); ++t) CHECK((std::isnan(chosen[t]) || rest[t] == 1 - chosen[t]));
    return chosen;
  };
  for (const double size : {1.0, 1e-12, 1e12})
    for (std::size_t count = 1; count <= 9; ++count) {
      const auto x = normal_numbers(20 + count, tokens, size);
      std::vector<double> sorted;
      for (std::size_t t = 0; t < tokens; ++t)
        if (mask[t] != 0) sorted.push_back(x[t]);
      std::sort(sorted.rbegin(), sorted.rend());
      const double bound = sorted[std::min(count, sorted.size()) - 1];
      const auto chosen = select(x, static_cast<double>(count));
      for (std::size_t t = 0; t < tokens; ++t) CHECK(chosen[t] == (mask[t] != 0 && x[t] >= bound ? 1 : 0));
    }
  std::vector<double> x(tokens, 1), none(tokens);
  x[0] = std::nan("");  // unscored
  CHECK(select(x, 2)[first] == 1);
  CHECK(select(x, 2)[0] == 0);
  CHECK(select(x, 3, std::vector<double>(tokens, 1)) == none);
  x[first] = 5;
  none[first] = 1;
  CHECK(select(x, 1) == none);
  x[last] = std::nan("");
  CHECK(std::isnan(select(x, 1)[last]));
}

TEMPLATE_TEST_CASE("top_tokens: exact for any numbers, infinities too", "", float, double) {
  using T = TestType;
  const T infinity = std::numeric_limits<T>::infinity(), largest = std::numeric_limits<T>::max(), least = std::numeric_limits<T>::denorm_min(),
          huge = largest * T(0.6), one = 1, after_one = std::nextafter(one, T(2)), before_one = std::nextafter(one, T(0));
  const std::vector<std::int32_t> cu{0, 10};
  const auto layout = sequence_layout<>::packed(cu);
  desk<T> on;
  const auto select = [&](const std::vector<T>& x, double count) {
    std::vector<T> chosen(x.size());
    top_tokens(on.compute, on.scratch, {.values = x, .sequences = layout}, {.count = count}, {.chosen = chosen});
    return chosen;
  };
  std::vector<T> far(10);
  for (std::size_t k = 0; k < 10; ++k) far[k] = k == 4 ? T(1e8) : T(0.001) * static_cast<T>(k);
  for (const std::vector<T>& x : std::vector<std::vector<T>>{
        {1, 2, 3, 4, -infinity, 5, 6, 7, 8, 9},
        {1, 2, 3, 4, infinity, 5, 6, 7, 8, 9},
        {-infinity, -infinity, infinity, infinity, 0, 1, 2, -1, -2, 3},
        {huge, -huge, huge / 2, -huge / 2, largest, -largest, 1, 2, 3, 4},
        {least, -least, 0, 2 * least, 3 * least, -3 * least, 4 * least, 5 * least, -2 * least, T(-0.0)},
        {one, after_one, before_one, std::nextafter(after_one, T(2)), 0, -1, -2, -3, -4, -5},
        std::vector<T>(10, infinity),
        std::vector<T>(10, -infinity),
        far})
    for (std::size_t count = 1; count <= 11; ++count) {
      auto sorted = x;
      std::sort(sorted.rbegin(), sorted.rend());
      const T bound = sorted[std::min<std::size_t>(count, 10) - 1];
      const auto chosen = select(x, static_cast<double>(count));
      for (std::size_t t = 0; t < 10; ++t) {
        CAPTURE(count, t, x[t]);
        CHECK(chosen[t] == (x[t] >= bound ? 1 : 0));
      }
    }
  // NaN takes a place.
  const auto chosen = select({1, 2, 3, 4, T(std::nan("")), 5, 6, 7, 8, -T(std::nan(""))}, 3);
  CHECK((std::isnan(chosen[4]) && std::isnan(chosen[9])));
  CHECK((chosen[8] == 1 && chosen[7] == 0));
}

TEST_CASE("top_tokens: vectors in, the same numbers out; what is refused") {
  const auto x = normal_numbers(21, tokens);
  std::vector<double> excluded(tokens), chosen(tokens), rest(tokens);
  excluded[first] = 1;
  desk<double> on;
  top_tokens(on.compute, on.scratch, {.values = x, .excluded = excluded, .sequences = sequences}, {.count = 3}, {.chosen = chosen, .rest = rest});
  const auto r = top_tokens(x, sequences, {.count = 3}, excluded);
  CHECK(r.chosen == chosen);
  CHECK(r.rest == rest);
  const std::vector<double> short_x(11);
  CHECK(refusal([&] { top_tokens(short_x, sequences); }) ==
        "plumb: top_tokens: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
  CHECK(refusal([&] { top_tokens(x, sequences, {}, short_x); }) ==
        "plumb: top_tokens: argument `excluded` has 11 elements, but `values` has 12. Nothing was written.");
  CHECK(refusal([&] { top_tokens(x, sequences, {.count = 0}); }) ==
        "plumb: top_tokens: option `count` is 0 but must be positive: how many tokens are chosen at most. Nothing was written.");
}

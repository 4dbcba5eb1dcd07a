// Supervised loss: by hand, three gradients, masks, both aggregations, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/supervised.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Three sequences of 12 tokens: with holes, without scored tokens, whole.
const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};

template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(12);
};
template <class T>
result<T> run(const std::vector<T>& x, aggregation a) {
  desk<T> d;
  result<T> r;
  supervised(d.compute, d.scratch, {x, sequences}, {.aggregate = a, .denominator = 3}, {.loss = r.loss, .d_logp = r.gradient});
  return r;
}

}  // namespace

TEST_CASE("supervised: gradients by dual numbers and differences") {
  const auto x = normal_numbers(10, 12, 1, -2);
  for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean})
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, a).loss; }, x, run(x, a).gradient);
}

TEST_CASE("supervised: the two means by hand") {
  std::vector<double> x(12, std::nan(""));  // what does not count is NaN
  x[1] = -1, x[3] = -2, x[4] = -3;
  for (std::size_t t = 7; t < 12; ++t) x[t] = -10;
  const auto tokens = supervised(x, sequences);
  CHECK(tokens.loss == Catch::Approx((6 + 50) / 8.0).epsilon(1e-15));
  CHECK(tokens.nll == Catch::Approx(7).epsilon(1e-15));
  CHECK(tokens.length == Catch::Approx(8 / 2.0).epsilon(1e-15));  // one has no scored token
  const auto each = supervised(x, sequences, {.aggregate = aggregation::sequence_mean});
  CHECK(each.loss == Catch::Approx((2 + 0 + 10) / 3.0).epsilon(1e-15));
  for (const std::size_t t : {0u, 2u, 5u, 6u}) CHECK(each.d_logp[t] == 0);
  CHECK(each.d_logp[1] == Catch::Approx(-1.0 / 9).epsilon(1e-15));
  CHECK(each.d_logp[8] == Catch::Approx(-1.0 / 15).epsilon(1e-15));
}

TEST_CASE("supervised: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(12), short_x(11), d(12, 5);
  desk<double> on;
  CHECK(refusal([&] { supervised(on.compute, on.scratch, {short_x, sequences}, {.denominator = 1}, {.d_logp = d}); }) ==
        "plumb: supervised: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
  CHECK(refusal([&] { supervised(on.compute, on.scratch, {x, sequences}, {.denominator = -2}, {.d_logp = d}); }) ==
        "plumb: supervised: option `denominator` is -2 but must be positive: the count that the loss of the whole global batch is divided by. Nothing "
        "was written.");
  CHECK(refusal([&] { supervised(on.compute, on.scratch, {x, sequences}, {.denominator = 1}, {.d_logp = x}); }) ==
        "plumb: supervised: output `d_logp` overlaps `logp` in memory. Nothing was written.");
  CHECK(d == std::vector<double>(12, 5));
}

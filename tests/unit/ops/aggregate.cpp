// Aggregation: three gradients, three means by hand, what is refused. Its laws: unit/laws/policy.cpp.
#include "support/gradients.hpp"

#include <plumb/ops/aggregate.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
constexpr aggregation modes[] = {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum};

}  // namespace

TEST_CASE("aggregate: gradients by dual numbers and differences") {
  const auto x = normal_numbers(10, 12);
  for (const aggregation mode : modes) {
    const aggregate_options o{.mode = mode, .denominator = 3, .length_epsilon = mode == aggregation::sequence_mean ? 0.5 : 0, .weight = -2};
    std::vector<double> d(12);
    desk<double> on;
    aggregate(on.compute, on.scratch, {x, sequences}, o, {.d_values = d});
    check_gradient(
        [&]<class T>(const std::vector<T>& at) {
          desk<T> with;
          T loss{};
          aggregate(with.compute, with.scratch, {at, sequences}, o, {.loss = loss});
          return loss;
        },
        x, d);
  }
}

TEST_CASE("aggregate: the three means by hand") {
  std::vector<double> x(12, std::nan(""));  // what does not count is NaN
  x[1] = 1, x[3] = 2, x[4] = 3;
  for (std::size_t t = 7; t < 12; ++t) x[t] = 10;
  struct {
    aggregate_options options;
    double loss, first, last;  // and the weights of tokens 1 and 11
  } const table[] = {
      {{}, 56 / 8.0, 1 / 8.0, 1 / 8.0},
      {{.mode = aggregation::sequence_mean}, 12 / 3.0, 1 / 9.0, 1 / 15.0},
      {{.mode = aggregation::sequence_sum}, 56 / 3.0, 1 / 3.0, 1 / 3.0},
      {{.mode = aggregation::sequence_mean, .denominator = 2, .length_epsilon = 1}, (1.5 + 50 / 6.0) / 2, 1 / 8.0, 1 / 12.0},
      {{.mode = aggregation::sequence_sum, .denominator = 100, .weight = -1}, -0.56, -0.01, -0.01},
  };
  for (const auto& row : table) {
    const auto y = aggregate(x, sequences, row.options);
    CHECK(y.loss == Catch::Approx(row.loss).epsilon(1e-15));
    CHECK(y.d_values[1] == Catch::Approx(row.first).epsilon(1e-15));
    CHECK(y.d_values[11] == Catch::Approx(row.last).epsilon(1e-15));
    for (const std::size_t t : {0u, 2u, 5u, 6u}) CHECK(y.d_values[t] == 0);
  }
  const std::vector<std::uint8_t> none(12);
  CHECK(aggregate(x, {begin, end, none}).loss == 0);
}

// verl's seq-mean-token-sum-norm divides each micro-batch's sum by its columns and by nothing else.
TEST_CASE("aggregate: sums over a fixed length neither grow with the batch nor change when it is cut or padded") {
  const auto x = normal_numbers(11, 12);
  const auto sum_norm = [](const std::vector<double>& values, std::size_t rows, std::size_t columns, double rows_of_batch, double length) {
    std::vector<std::int32_t> from(rows), to(rows);
    padded_bounds(static_cast<index_t>(columns), from, to);
    std::vector<std::uint8_t> counts;
    for (const double v : values) counts.push_back(!std::isnan(v));
    return aggregate(values, {from, to, counts}, {.mode = aggregation::sequence_sum, .denominator = rows_of_batch * length}).loss;
  };
  double sum = 0;
  for (const double v : x) sum += v;
  const double whole = sum_norm(x, 4, 3, 4, 8);
  CHECK(whole == Catch::Approx(sum / 4 / 8).epsilon(1e-14));
  auto twice = x;
  twice.insert(twice.end(), x.begin(), x.end());
  CHECK(sum_norm(twice, 8, 3, 8, 8) == Catch::Approx(whole).epsilon(1e-14));
  double parts = 0;
  for (std::size_t row = 0; row < 4; ++row) {
    std::vector<double> one(x.begin() + static_cast<std::ptrdiff_t>(3 * row), x.begin() + static_cast<std::ptrdiff_t>(3 * row + 3));
    one.resize(3 + row, std::nan(""));  // wider or not
    parts += sum_norm(one, 1, 3 + row, 4, 8);
  }
  CHECK(parts == Catch::Approx(whole).epsilon(1e-13));
}

TEST_CASE("aggregate: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(12), short_x(11), d(12, 5);
  desk<double> on;
  CHECK(refusal([&] { aggregate(on.compute, on.scratch, {short_x, sequences}, {.denominator = 1}, {.d_values = d}); }) ==
        "plumb: aggregate: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
  CHECK(refusal([&] { aggregate(on.compute, on.scratch, {x, sequences}, {.denominator = 1, .length_epsilon = -1}, {.d_values = d}); }) ==
        "plumb: aggregate: option `length_epsilon` is -1 but must be 0 or positive. Nothing was written.");
  for (const aggregation mode : {aggregation::token_mean, aggregation::sequence_sum})
    CHECK(refusal([&] { aggregate(on.compute, on.scratch, {x, sequences}, {.mode = mode, .denominator = 1, .length_epsilon = 0.5}, {.d_values = d}); }) ==
          "plumb: aggregate: option `length_epsilon` is 0.5 but must be 0 with token_mean and sequence_sum: only sequence_mean divides by lengths. Nothing "
          "was written.");
  CHECK(refusal([&] { aggregate(on.compute, on.scratch, {x, sequences}, {.denominator = 1}, {.d_values = x}); }) ==
        "plumb: aggregate: output `d_values` overlaps `values` in memory. Nothing was written.");
  CHECK(d == std::vector<double>(12, 5));
}

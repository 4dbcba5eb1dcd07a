// Aggregation: three gradients, the laws, three means by hand, what is refused.
#include "support/laws.hpp"

#include <plumb/ops/aggregate.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

template <class T>
laws::answer run(const laws::batch& batch, const aggregate_options& options, const laws::answer& into) {
  const std::vector<T> values(batch.tokens[0].begin(), batch.tokens[0].end());
  std::vector<T> d(values.size());
  T loss = static_cast<T>(into.loss);
  if (!into.d_tokens.empty()) d.assign(into.d_tokens[0].begin(), into.d_tokens[0].end());
  desk<T> on;
  aggregate(on.compute, on.scratch, {values, {batch.begin, batch.end, batch.scored}}, options,
            {loss, d, into.d_tokens.empty() ? write_mode::overwrite : write_mode::add});
  return {static_cast<double>(loss), {std::vector<double>(d.begin(), d.end())}, {}, {}};
}

const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
constexpr aggregation modes[] = {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum};

}  // namespace

TEST_CASE("aggregate: gradients by dual numbers and differences") {
  const auto x = normal_numbers(10, 12);
  for (const aggregation mode : modes) {
    const aggregate_options o{.mode = mode, .denominator = 3, .length_epsilon = 0.5, .weight = -2};
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

TEST_CASE("aggregate: laws of sequences") {
  for (const aggregation mode : modes)
    laws::check({.name = "aggregate",
                 .tokens = {[](double x) { return x; }},
                 .of_double = [&](const laws::batch& b, double n, const laws::answer& into) {
                   return run<double>(b, {.mode = mode, .denominator = n, .length_epsilon = 1e-8, .weight = 3}, into);
                 },
                 .of_float = [&](const laws::batch& b, double n, const laws::answer& into) {
                   return run<float>(b, {.mode = mode, .denominator = n}, into);
                 }});
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

TEST_CASE("aggregate: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(12), short_x(11), d(12, 5);
  desk<double> on;
  CHECK(refusal([&] { aggregate(on.compute, on.scratch, {short_x, sequences}, {.denominator = 1}, {.d_values = d}); }) ==
        "plumb: aggregate: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
  CHECK(refusal([&] { aggregate(on.compute, on.scratch, {x, sequences}, {.denominator = 1, .length_epsilon = -1}, {.d_values = d}); }) ==
        "plumb: aggregate: option `length_epsilon` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(refusal([&] { aggregate(on.compute, on.scratch, {x, sequences}, {.denominator = 1}, {.d_values = x}); }) ==
        "plumb: aggregate: output `d_values` overlaps `values` in memory. Nothing was written.");
  CHECK(d == std::vector<double>(12, 5));
}

// Regression of five attributes of 65536 replies, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/attribute_regression.hpp>

namespace {

using namespace plumb_bench;
constexpr plumb::index_t replies = 65536, attributes = 5;
constexpr std::size_t cells = static_cast<std::size_t>(replies * attributes);

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto prediction = random_values<float>(cells);
  auto label = random_values<float>(cells);
  for (std::size_t i = 0; i < cells; i += 9) label[i] = -100;
  std::vector<float> gradient(cells);
  float loss = 0;
  Row one;
  desk<Row> on(plumb::attribute_regression_workspace(one.backend, replies, attributes));
  const plumb::view<const float, 2> p(prediction.data(), replies, attributes), y(label.data(), replies, attributes);
  const double denominator = static_cast<double>(plumb::count_rated(y));
  for (auto _ : state) {
    plumb::attribute_regression(on.row.backend, on.scratch, {.prediction = p, .label = y}, {.denominator = denominator},
                                {.loss = loss, .d_prediction = plumb::view<float, 2>(gradient.data(), replies, attributes)});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    const float factor = static_cast<float>(2 / denominator);
    for (std::size_t i = 0; i < cells; ++i) {
      const bool rated = label[i] != -100;
      const float e = rated ? prediction[i] - label[i] : 0;
      sum += static_cast<double>(e) * static_cast<double>(e);
      gradient[i] = factor * e;
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "cells/s", static_cast<double>(cells));
}

const int registered = add_rows("attribute_regression/65536x5", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

// Whitening of 64 packed sequences of 1024 tokens, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/ops/whiten.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto values = random_values<float>(tokens);
  const packed_replies replies(sequences, length);
  std::vector<float> whitened(tokens);
  const auto layout = replies.layout();
  Row one;
  desk<Row> on(plumb::whiten_workspace(one.backend, layout, tokens));
  for (auto _ : state) {
    plumb::whiten(on.row.backend, on.scratch, {.values = values, .sequences = layout}, {}, {.whitened = whitened});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0, squares = 0;
    for (std::size_t t = 0; t < tokens; ++t) sum += replies.scored[t] != 0 ? static_cast<double>(values[t]) : 0;
    const double mean = sum / replies.count;
    for (std::size_t t = 0; t < tokens; ++t) squares += replies.scored[t] != 0 ? (static_cast<double>(values[t]) - mean) * (static_cast<double>(values[t]) - mean) : 0;
    const float centre = static_cast<float>(mean), scale = static_cast<float>(1 / std::sqrt(squares / replies.count + 1e-8));
    for (std::size_t t = 0; t < tokens; ++t) whitened[t] = replies.scored[t] != 0 ? (values[t] - centre) * scale : 0;
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", replies.count);
}

const int registered = add_rows("whiten/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

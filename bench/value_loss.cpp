// Value loss of 64 packed sequences of 1024 tokens, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/value_loss.hpp>

#include <algorithm>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto values = random_values<float>(tokens), old_values = random_values<float>(tokens), returns = random_values<float>(tokens);
  const packed_replies replies(sequences, length);
  std::vector<float> gradient(tokens);
  float loss = 0;
  const auto layout = replies.layout();
  Row one;
  desk<Row> on(plumb::value_loss_workspace(one.backend, layout, static_cast<plumb::index_t>(tokens)));
  for (auto _ : state) {
    plumb::value_loss(on.row.backend, on.scratch, {.values = values, .old_values = old_values, .returns = returns, .sequences = layout},
                      {.clip_range = 0.2, .denominator = replies.count}, {.loss = loss, .d_values = gradient});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    const float each = static_cast<float>(1 / replies.count);
    for (std::size_t t = 0; t < tokens; ++t) {
      const float clipped = std::clamp(values[t], old_values[t] - 0.2f, old_values[t] + 0.2f);
      const float e = values[t] - returns[t], c = clipped - returns[t];
      const bool plain = c * c <= e * e;
      sum += replies.scored[t] != 0 ? static_cast<double>(plain ? e * e : c * c) : 0;
      gradient[t] = replies.scored[t] != 0 && plain ? each * e : 0;
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("value_loss/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

// Supervised loss of 64 packed sequences of 1024 tokens, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/supervised.hpp>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens);
  const packed_replies replies(sequences, length);
  std::vector<float> gradient(tokens);
  float loss = 0;
  const auto layout = replies.layout();
  Row one;
  desk<Row> on(plumb::supervised_workspace(one.backend, layout));
  for (auto _ : state) {
    plumb::supervised(on.row.backend, on.scratch, {.logp = logp, .sequences = layout}, {.denominator = replies.count}, {.loss = loss, .d_logp = gradient});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    const float each = static_cast<float>(-1 / replies.count);
    for (std::size_t t = 0; t < tokens; ++t) {
      sum += replies.scored[t] != 0 ? static_cast<double>(logp[t]) : 0;
      gradient[t] = replies.scored[t] != 0 ? each : 0;
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("supervised/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

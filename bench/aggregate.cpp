// Mean over 64 packed sequences of the means over their 1024 tokens, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/ops/aggregate.hpp>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto values = random_values<float>(tokens);
  const packed_replies replies(sequences, length);
  std::vector<float> gradient(tokens);
  float loss = 0;
  const auto layout = replies.layout();
  Row one;
  desk<Row> on(plumb::aggregate_workspace(one.backend, layout));
  for (auto _ : state) {
    plumb::aggregate(on.row.backend, on.scratch, {.values = values, .sequences = layout},
                     {.mode = plumb::aggregation::sequence_mean, .denominator = sequences}, {.loss = loss, .d_values = gradient});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double total = 0;
    for (std::size_t s = 0; s < sequences; ++s) {
      double sum = 0, scored_here = 0;
      for (std::size_t t = s * length; t < (s + 1) * length; ++t)
        if (replies.scored[t] != 0) sum += static_cast<double>(values[t]), scored_here += 1;
      const float each = static_cast<float>(1 / (scored_here * sequences));
      for (std::size_t t = s * length; t < (s + 1) * length; ++t) gradient[t] = replies.scored[t] != 0 ? each : 0;
      total += sum / scored_here;
    }
    benchmark::DoNotOptimize(total);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("aggregate/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

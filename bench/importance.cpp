// Truncated importance weights of 64 packed sequences of 1024 tokens, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/ops/importance.hpp>

#include <algorithm>
#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens), sampler_logp = random_values<float>(tokens);
  const packed_replies replies(sequences, length);
  std::vector<float> weights(tokens);
  const auto layout = replies.layout();
  Row one;
  desk<Row> on(plumb::importance_weights_workspace(one.backend, layout, static_cast<plumb::index_t>(tokens)));
  for (auto _ : state) {
    plumb::importance_weights(on.row.backend, on.scratch, {.logp = logp, .sampler_logp = sampler_logp, .sequences = layout},
                              plumb::correction::truncated{.upper = 2}, {}, {.weights = weights});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    for (std::size_t t = 0; t < tokens; ++t) weights[t] = replies.scored[t] != 0 ? std::min(std::exp(logp[t] - sampler_logp[t]), 2.0f) : 0;
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("importance_weights/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

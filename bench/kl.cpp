// KL estimates of 64 packed sequences of 1024 tokens as a loss, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/ops/kl.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens), noise = random_values<float>(tokens + 7);
  std::vector<float> ref_logp(tokens), gradient(tokens);
  for (std::size_t t = 0; t < tokens; ++t) ref_logp[t] = logp[t] + 0.1f * noise[t + 7];
  std::vector<std::int32_t> cu;
  for (std::size_t s = 0; s <= sequences; ++s) cu.push_back(static_cast<std::int32_t>(s * length));
  const auto layout = plumb::sequence_layout<>::packed(cu);
  float loss = 0;
  Row one;
  desk<Row> on(plumb::kl_penalty_workspace(one.backend, layout, tokens));
  for (auto _ : state) {
    plumb::kl_penalty(on.row.backend, on.scratch, {.logp = logp, .ref_logp = ref_logp, .sequences = layout}, {.denominator = static_cast<double>(tokens)},
                      {.loss = loss, .d_logp = gradient});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    const float each = 1.0f / static_cast<float>(tokens);
    for (std::size_t t = 0; t < tokens; ++t) {
      const float x = logp[t] - ref_logp[t], e = std::exp(-x);
      sum += static_cast<double>(e - 1 + x);
      gradient[t] = each * (1 - e);
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("kl/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

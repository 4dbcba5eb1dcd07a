// Supervised loss of 64 packed sequences of 1024 tokens, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/supervised.hpp>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens);
  std::vector<std::int32_t> cu;
  for (std::size_t s = 0; s <= sequences; ++s) cu.push_back(static_cast<std::int32_t>(s * length));
  std::vector<std::uint8_t> scored(tokens);
  double count_of = 0;
  for (std::size_t t = 0; t < tokens; ++t) count_of += scored[t] = t % length >= length / 4;
  std::vector<float> gradient(tokens);
  float loss = 0;
  const auto layout = plumb::sequence_layout<>::packed(cu, scored);
  Row one;
  desk<Row> on(plumb::supervised_workspace(one.backend, layout));
  for (auto _ : state) {
    plumb::supervised(on.row.backend, on.scratch, {.logp = logp, .sequences = layout}, {.denominator = count_of}, {.loss = loss, .d_logp = gradient});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    const float each = static_cast<float>(-1 / count_of);
    for (std::size_t t = 0; t < tokens; ++t) {
      sum += scored[t] != 0 ? static_cast<double>(logp[t]) : 0;
      gradient[t] = scored[t] != 0 ? each : 0;
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("supervised/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

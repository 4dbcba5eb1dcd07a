// SimPO of 64 pairs of 1024 tokens each side, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/simpo.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t pairs = 64, length = 1024, tokens = 2 * pairs * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens);
  std::vector<std::int32_t> cu, chosen, rejected;
  for (std::size_t s = 0; s <= 2 * pairs; ++s) cu.push_back(static_cast<std::int32_t>(s * length));
  for (std::size_t p = 0; p < pairs; ++p) {
    chosen.push_back(static_cast<std::int32_t>(2 * p));
    rejected.push_back(static_cast<std::int32_t>(2 * p + 1));
  }
  std::vector<float> gradient(tokens), metrics(14);
  float loss = 0;
  const plumb::preference_pairs<> of{plumb::sequence_layout<>::packed(cu), chosen, rejected};
  Row one;
  desk<Row> on(plumb::simpo_workspace(one.backend, of, plumb::index_t{tokens}));
  for (auto _ : state) {
    plumb::simpo(on.row.backend, on.scratch, {.logp = logp, .pairs = of}, {.beta = 2, .gamma = 0.5, .denominator = pairs},
                 {.loss = loss, .d_logp = gradient, .metrics = plumb::view<float, 2>(metrics.data(), 7, 2)});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double total = 0;
    for (std::size_t p = 0; p < pairs; ++p) {
      double mean[2] = {};
      for (std::size_t side = 0; side < 2; ++side)
        for (std::size_t t = 0; t < length; ++t) mean[side] += static_cast<double>(logp[(2 * p + side) * length + t]) / length;
      const double z = 2 * (mean[0] - mean[1]) - 0.5;
      total += z < 0 ? std::log1p(std::exp(z)) - z : std::log1p(std::exp(-z));
      const auto d = static_cast<float>(-2 / (1 + std::exp(z)) / pairs / length);
      for (std::size_t t = 0; t < length; ++t) {
        gradient[2 * p * length + t] = d;
        gradient[(2 * p + 1) * length + t] = -d;
      }
    }
    benchmark::DoNotOptimize(total);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("simpo/64 pairs of 2x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

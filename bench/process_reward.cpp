// A process reward model of 65536 steps, value, gradients and metrics, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/process_reward.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t steps = 65536;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto good = random_values<float>(steps), bad = random_values<float>(steps, 0.8f);
  std::vector<float> label(steps), d_good(steps), d_bad(steps), metrics(4);
  for (std::size_t i = 0; i < steps; ++i) label[i] = i % 9 == 0 ? -100.0f : static_cast<float>(i % 2);
  const double judged = static_cast<double>(steps - (steps + 8) / 9);
  float loss = 0;
  Row one;
  desk<Row> on(plumb::process_reward_workspace(one.backend, plumb::index_t{steps}));
  for (auto _ : state) {
    plumb::process_reward(on.row.backend, on.scratch, {.good = good, .bad = bad, .label = label}, {.denominator = judged},
                          {.loss = loss, .d_good = d_good, .d_bad = d_bad, .metrics = plumb::view<float, 2>(metrics.data(), 2, 2)});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    for (std::size_t i = 0; i < steps; ++i) {
      d_good[i] = d_bad[i] = 0;
      if (label[i] == -100) continue;
      const double z = static_cast<double>(good[i]) - static_cast<double>(bad[i]), y = static_cast<double>(label[i]);
      sum += (z < 0 ? std::log1p(std::exp(z)) : z + std::log1p(std::exp(-z))) - y * z;
      d_good[i] = static_cast<float>((1 / (1 + std::exp(-z)) - y) / judged);
      d_bad[i] = -d_good[i];
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "steps/s", steps);
}

const int registered = add_rows("process_reward/65536", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

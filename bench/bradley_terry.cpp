// Bradley-Terry of 65536 pairs, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/bradley_terry.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t pairs = 65536;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto chosen = random_values<float>(pairs), rejected = random_values<float>(pairs + 7);
  const plumb::view<const float, 1> r(rejected.data(), static_cast<plumb::index_t>(pairs));
  std::vector<float> d_chosen(pairs), d_rejected(pairs);
  float loss = 0;
  Row one;
  desk<Row> on(plumb::bradley_terry_workspace(one.backend, static_cast<plumb::index_t>(pairs)));
  for (auto _ : state) {
    plumb::bradley_terry(on.row.backend, on.scratch, {.chosen = chosen, .rejected = r}, {.denominator = pairs},
                         {.loss = loss, .d_chosen = d_chosen, .d_rejected = d_rejected});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    for (std::size_t p = 0; p < pairs; ++p) {
      const float z = chosen[p] - rejected[p];
      sum += z < 0 ? std::log1p(std::exp(z)) - z : std::log1p(std::exp(-z));
      d_chosen[p] = -1 / (1 + std::exp(z)) / static_cast<float>(pairs);
      d_rejected[p] = -d_chosen[p];
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "pairs/s", pairs);
}

const int registered = add_rows("bradley_terry/65536", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

// KTO of 128 labelled replies of 1024 tokens, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/kto.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t replies = 128, length = 1024, tokens = replies * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens), ref = random_values<float>(tokens, 0.9f);
  std::vector<std::int32_t> cu;
  std::vector<std::uint8_t> desirable;
  for (std::size_t s = 0; s <= replies; ++s) cu.push_back(static_cast<std::int32_t>(s * length));
  for (std::size_t s = 0; s < replies; ++s) desirable.push_back(s % 2 == 0);
  const std::vector<float> kl{0.5f};
  std::vector<float> gradient(tokens), metrics(10);
  float loss = 0;
  const auto layout = plumb::sequence_layout<>::packed(cu);
  Row one;
  desk<Row> on(plumb::kto_workspace(one.backend, layout, plumb::index_t{tokens}));
  for (auto _ : state) {
    plumb::kto(on.row.backend, on.scratch, {.logp = logp, .ref_logp = ref, .sequences = layout, .desirable = desirable, .kl = kl},
               {.denominator = replies}, {.loss = loss, .d_logp = gradient, .metrics = plumb::view<float, 2>(metrics.data(), 5, 2)});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double total = 0;
    for (std::size_t s = 0; s < replies; ++s) {
      double ratio = 0;
      for (std::size_t t = s * length; t < (s + 1) * length; ++t) ratio += static_cast<double>(logp[t]) - static_cast<double>(ref[t]);
      const double sign = desirable[s] != 0 ? 1 : -1, p = 1 / (1 + std::exp(-sign * 0.1 * (ratio - 0.5)));
      total += 1 - p;
      const auto d = static_cast<float>(-sign * 0.1 * p * (1 - p) / replies);
      for (std::size_t t = s * length; t < (s + 1) * length; ++t) gradient[t] = d;
    }
    benchmark::DoNotOptimize(total);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("kto/128x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

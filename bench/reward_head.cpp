// Reward head of 16 sequences of 256 hidden states of width 1024, five attributes: value and gradient at the last token.

#include "support/rows.hpp"

#include <plumb/ops/reward_head.hpp>

namespace {

using namespace plumb_bench;
constexpr plumb::index_t sequences = 16, length = 256, width = 1024, attributes = 5, states = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto hidden = random_values<float>(static_cast<std::size_t>(states * width)),
             head = random_values<float>(static_cast<std::size_t>(attributes * width)),
             d_attributes = random_values<float>(static_cast<std::size_t>(sequences * attributes));
  std::vector<std::int32_t> rows;
  for (plumb::index_t s = 0; s < sequences; ++s) rows.push_back(static_cast<std::int32_t>((s + 1) * length - 1));
  std::vector<float> values(d_attributes.size()), d_hidden(hidden.size()), d_head(head.size());
  const plumb::reward_head_inputs<float, float> in{.hidden = {hidden.data(), states, width},
                                                   .head = {head.data(), attributes, width},
                                                   .bias = {},
                                                   .rows = rows,
                                                   .sequences = {},
                                                   .attribute_weights = {}};
  Row one;
  const std::size_t forward = plumb::reward_head_workspace(one.backend, in), back = plumb::reward_head_backward_workspace(one.backend, in);
  desk<Row> on(forward > back ? forward : back);
  for (auto _ : state) {
    plumb::reward_head(on.row.backend, on.scratch, in, {}, {.attributes = plumb::view<float, 2>(values.data(), sequences, attributes)});
    plumb::reward_head_backward(
        on.row.backend, on.scratch, in, {}, {.d_attributes = plumb::view<const float, 2>(d_attributes.data(), sequences, attributes)},
        {.d_hidden = plumb::view<float, 2>(d_hidden.data(), states, width), .d_head = plumb::view<float, 2>(d_head.data(), attributes, width)});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    std::fill(d_hidden.begin(), d_hidden.end(), 0.0f);
    std::fill(d_head.begin(), d_head.end(), 0.0f);
    constexpr std::size_t d = static_cast<std::size_t>(width), k = static_cast<std::size_t>(attributes);
    for (std::size_t s = 0; s < rows.size(); ++s) {
      const float* h = hidden.data() + static_cast<std::size_t>(rows[s]) * d;
      float* g = d_hidden.data() + static_cast<std::size_t>(rows[s]) * d;
      for (std::size_t a = 0; a < k; ++a) {
        float sum = 0;
        for (std::size_t i = 0; i < d; ++i) {
          sum += h[i] * head[a * d + i];
          g[i] += d_attributes[s * k + a] * head[a * d + i];
          d_head[a * d + i] += d_attributes[s * k + a] * h[i];
        }
        values[s * k + a] = sum;
      }
    }
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "sequences/s", static_cast<double>(sequences));
}

const int registered = add_rows("reward_head/16x256x1024x5", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

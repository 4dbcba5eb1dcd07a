// GAE of 64 packed sequences of 1024 tokens, advantages and returns, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/ops/gae.hpp>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>, float lambda) {
  const auto rewards = random_values<float>(tokens), values = random_values<float>(tokens, 2);
  const packed_replies replies(sequences, length);
  std::vector<float> advantages(tokens), returns(tokens);
  const auto layout = replies.layout();
  constexpr float gamma = 0.99f;
  Row one;
  desk<Row> on(plumb::gae_workspace(one.backend, tokens));
  for (auto _ : state) {
    plumb::gae(on.row.backend, on.scratch, {.rewards = rewards, .values = values, .sequences = layout},
               {.gamma = static_cast<double>(gamma), .lambda = static_cast<double>(lambda)}, {.advantages = advantages, .returns = returns});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    for (std::size_t s = 0; s < sequences; ++s) {
      float next_value = 0, next = 0;
      for (std::size_t t = (s + 1) * length; t-- > s * length;) {
        if (replies.scored[t] == 0) {
          advantages[t] = returns[t] = 0;
          continue;
        }
        next = rewards[t] + gamma * next_value - values[t] + gamma * lambda * next;
        next_value = values[t];
        advantages[t] = next;
        returns[t] = next + next_value;
      }
    }
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", replies.count);
}

// The cost does not depend on lambda.
const int registered[] = {add_rows("gae/64x1024/lambda 0.95", [](benchmark::State& s, auto row) { run(s, row, 0.95f); }),
                          add_rows("gae/64x1024/lambda 0.25", [](benchmark::State& s, auto row) { run(s, row, 0.25f); })};

}  // namespace

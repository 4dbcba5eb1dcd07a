// GRPO advantages of 4096 prompts with 16 replies each, beside the two loops that one would write.

#include "support/rows.hpp"

#include <plumb/ops/group_advantage.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t prompts = 4096, each = 16, replies = prompts * each;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto rewards = random_values<float>(replies);
  const auto groups = plumb::equal_groups(prompts, each);
  std::vector<float> advantage(replies);
  Row one;
  desk<Row> on(plumb::group_advantage_workspace(one.backend, groups.layout(), replies));
  for (auto _ : state) {
    plumb::group_advantage(on.row.backend, on.scratch, {.rewards = rewards, .groups = groups.layout()}, plumb::advantage::grpo{}, {.advantage = advantage});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    for (std::size_t p = 0; p < prompts; ++p) {
      double sum = 0, squares = 0;
      for (std::size_t i = p * each; i < (p + 1) * each; ++i) sum += static_cast<double>(rewards[i]);
      const double mean = sum / each;
      for (std::size_t i = p * each; i < (p + 1) * each; ++i) squares += (static_cast<double>(rewards[i]) - mean) * (static_cast<double>(rewards[i]) - mean);
      const double sd = std::sqrt(squares / (each - 1)) + 1e-6;
      for (std::size_t i = p * each; i < (p + 1) * each; ++i) advantage[i] = static_cast<float>((static_cast<double>(rewards[i]) - mean) / sd);
    }
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "replies/s", replies);
}

const int registered = add_rows("group_advantage/4096x16", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

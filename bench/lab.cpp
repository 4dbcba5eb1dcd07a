// The lab's transformer: tokens per second of training steps and of generation. peers/torch_lab.py times the same beside PyTorch.

#include "support/lab.hpp"
#include "support/rows.hpp"

namespace {

using namespace plumb_bench;

const int training = add_rows("lab/training step", []<class Row>(benchmark::State& state, std::type_identity<Row>) {
  lab_at_work<Row> lab;
  double tokens = 0;
  std::size_t step = 0;
  for (auto _ : state) {
    tokens += static_cast<double>(lab.batches[step % lab.batches.size()].tokens());
    lab.train(step++, 1e-3);
  }
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsRate);
});

const int generation = add_rows("lab/replies of 24 tokens to 128 prompts", []<class Row>(benchmark::State& state, std::type_identity<Row>) {
  lab_at_work<Row> lab;
  std::uint64_t seed = 0;
  for (auto _ : state) benchmark::DoNotOptimize(lab.write(1, seed++).logp.data());
  count(state, "tokens/s", static_cast<double>(lab.prompts) * lab.written);
});

}  // namespace

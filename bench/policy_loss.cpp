// Clipped policy loss of 64 packed sequences of 1024 tokens, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/policy_loss.hpp>

#include <algorithm>
#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t sequences = 64, length = 1024, tokens = sequences * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens), old_logp = random_values<float>(tokens), advantages = random_values<float>(tokens);
  const packed_replies replies(sequences, length);
  std::vector<float> gradient(tokens);
  float loss = 0;
  const auto layout = replies.layout();
  Row one;
  const plumb::policy_loss_inputs<float> in{.logp = logp, .old_logp = old_logp, .advantages = advantages, .sequences = layout};
  const plumb::policy_loss_outputs<float> out{.loss = loss, .d_logp = gradient};
  const plumb::policy_loss_options options{.denominator = replies.count};
  desk<Row> on(plumb::policy_loss_workspace(one.backend, in, plumb::surrogate::clip{}, options, out));
  for (auto _ : state) {
    plumb::policy_loss(on.row.backend, on.scratch, in, plumb::surrogate::clip{}, options, out);
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double sum = 0;
    const float each = static_cast<float>(1 / replies.count);
    for (std::size_t t = 0; t < tokens; ++t) {
      const float ratio = std::exp(logp[t] - old_logp[t]), a = advantages[t];
      const float plain = ratio * a, clipped = std::clamp(ratio, 0.8f, 1.2f) * a;
      sum -= replies.scored[t] != 0 ? static_cast<double>(std::min(plain, clipped)) : 0;
      gradient[t] = replies.scored[t] != 0 && plain <= clipped ? -each * plain : 0;
    }
    benchmark::DoNotOptimize(sum);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

const int registered = add_rows("policy_loss/64x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

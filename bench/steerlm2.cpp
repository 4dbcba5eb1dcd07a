// SteerLM 2.0 loss of 128 prompts with ten replies of 256 tokens, value and gradient, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/steerlm2.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr std::size_t prompts = 128, each = 10, replies = prompts * each, length = 256, tokens = replies * length;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto logp = random_values<float>(tokens);
  std::vector<float> log_q(replies), weight(replies, 1.0f / each), gradient(tokens);
  for (std::size_t r = 0; r < replies; ++r)
    for (std::size_t t = 0; t < length; ++t) log_q[r] += logp[r * length + t];
  std::vector<std::int32_t> cu_tokens, cu_replies;
  for (std::size_t r = 0; r <= replies; ++r) cu_tokens.push_back(static_cast<std::int32_t>(r * length));
  for (std::size_t p = 0; p <= prompts; ++p) cu_replies.push_back(static_cast<std::int32_t>(p * each));
  const auto of_tokens = plumb::sequence_layout<>::packed(cu_tokens), of_replies = plumb::sequence_layout<>::packed(cu_replies);
  float loss = 0;
  Row one;
  desk<Row> on(plumb::steerlm2_workspace(one.backend, static_cast<plumb::index_t>(replies), static_cast<plumb::index_t>(prompts)));
  for (auto _ : state) {
    plumb::steerlm2(on.row.backend, on.scratch, {.logp = logp, .replies = of_tokens, .log_q = log_q, .weight = weight, .groups = of_replies},
                    {.denominator = static_cast<double>(prompts)}, {.loss = loss, .d_logp = gradient});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    double total = 0;
    for (std::size_t p = 0; p < prompts; ++p) {
      float s[each] = {}, most = -INFINITY, sum = 0;
      for (std::size_t i = 0; i < each; ++i) {
        const std::size_t r = p * each + i;
        for (std::size_t t = 0; t < length; ++t) s[i] += logp[r * length + t];
        s[i] -= log_q[r];
        most = s[i] > most ? s[i] : most;
      }
      for (float x : s) sum += std::exp(x - most);
      for (std::size_t i = 0; i < each; ++i) {
        const std::size_t r = p * each + i;
        const float log_b = s[i] - most - std::log(sum), c = (std::exp(log_b) - weight[r]) / static_cast<float>(prompts);
        total -= static_cast<double>(weight[r] * log_b);
        for (std::size_t t = 0; t < length; ++t) gradient[r * length + t] = c;
      }
    }
    benchmark::DoNotOptimize(total);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", static_cast<double>(tokens));
}

const int registered = add_rows("steerlm2/128x10x256", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

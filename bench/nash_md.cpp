// Nash-MD of 128 replies of 1024 tokens, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/replies.hpp"

#include <plumb/objectives/nash_md.hpp>

namespace {

using namespace plumb_bench;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const std::vector<float> probability(batch::replies, 0.7f);
  time_row<Row>(
      state, [](auto& b, const batch& x) { return plumb::nash_md_workspace(b, x.sequences(), plumb::index_t{batch::tokens}); },
      [&](auto& b, auto& scratch, batch& x) {
        plumb::nash_md(b, scratch, {.logp = x.logp, .ref_logp = x.ref_logp, .sequences = x.sequences(), .probability = probability},
                       {.beta = 0.1, .denominator = batch::replies}, {.loss = x.loss, .d_logp = x.gradient, .metrics = x.metrics(4)});
      },
      [&](batch& x) {
        double total = 0;
        for (std::size_t t = 0; t < batch::tokens; ++t) {
          const double logp = static_cast<double>(x.logp[t]);
          const double each = (0.1 * (logp - static_cast<double>(x.ref_logp[t])) - (static_cast<double>(probability[t / batch::length]) - 0.5)) / batch::replies;
          total += each * logp;
          x.gradient[t] = static_cast<float>(each);
        }
        return total;
      });
}

const int registered = add_rows("nash_md/128x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

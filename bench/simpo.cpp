// SimPO of 64 pairs of 1024 tokens each side, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/replies.hpp"

#include <plumb/objectives/simpo.hpp>

namespace {

using namespace plumb_bench;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  time_row<Row>(
      state, [](auto& b, const batch& x) { return plumb::simpo_workspace(b, x.in_pairs(), plumb::index_t{batch::tokens}); },
      [](auto& b, auto& scratch, batch& x) {
        plumb::simpo(b, scratch, {.logp = x.logp, .pairs = x.in_pairs()}, {.beta = 2, .gamma = 0.5, .denominator = batch::pairs},
                     {.loss = x.loss, .d_logp = x.gradient, .metrics = x.metrics(7)});
      },
      pair_loop([](double chosen, double rejected) {
        const double z = 2 * (chosen - rejected) / batch::length - 0.5, d = -2 * sigmoid(-z) / batch::length;
        return pair_slopes{softplus(-z), d, -d};
      }));
}

const int registered = add_rows("simpo/64 pairs of 2x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

// DPO of 64 pairs of 1024 tokens each side, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/replies.hpp"

#include <plumb/objectives/dpo.hpp>

namespace {

using namespace plumb_bench;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  time_row<Row>(
      state, [](auto& b, const batch& x) { return plumb::dpo_workspace(b, x.in_pairs(), plumb::index_t{batch::tokens}); },
      [](auto& b, auto& scratch, batch& x) {
        plumb::dpo(b, scratch, {.logp = x.logp, .ref_logp = x.ref_logp, .pairs = x.in_pairs()}, {.denominator = batch::pairs},
                   {.loss = x.loss, .d_logp = x.gradient, .metrics = x.metrics(6)});
      },
      pair_loop<true>([](double chosen, double rejected) {
        const double z = 0.1 * (chosen - rejected), d = -0.1 * sigmoid(-z);
        return pair_slopes{softplus(-z), d, -d};
      }));
}

const int registered = add_rows("dpo/64 pairs of 2x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

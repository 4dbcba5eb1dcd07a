// CPO with its likelihood term, of 64 pairs of 1024 tokens each side, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/replies.hpp"

#include <plumb/objectives/cpo.hpp>

namespace {

using namespace plumb_bench;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  time_row<Row>(
      state, [](auto& b, const batch& x) { return plumb::cpo_workspace(b, x.in_pairs(), plumb::index_t{batch::tokens}); },
      [](auto& b, auto& scratch, batch& x) {
        plumb::cpo(b, scratch, {.logp = x.logp, .pairs = x.in_pairs()},
                   {.likelihood = {.denominator = batch::pairs * batch::length}, .denominator = batch::pairs},
                   {.loss = x.loss, .d_logp = x.gradient, .metrics = x.metrics(7)});
      },
      pair_loop([](double chosen, double rejected) {
        const double z = 0.1 * (chosen - rejected), d = -0.1 * sigmoid(-z), each = 1.0 / batch::length;
        return pair_slopes{softplus(-z) - each * chosen, d - each, -d};
      }));
}

const int registered = add_rows("cpo/64 pairs of 2x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

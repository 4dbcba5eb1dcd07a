// ORPO of 64 pairs of 1024 tokens each side, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/replies.hpp"

#include <plumb/objectives/orpo.hpp>

namespace {

using namespace plumb_bench;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  time_row<Row>(
      state, [](auto& b, const batch& x) { return plumb::orpo_workspace(b, x.in_pairs(), plumb::index_t{batch::tokens}); },
      [](auto& b, auto& scratch, batch& x) {
        plumb::orpo(b, scratch, {.logp = x.logp, .pairs = x.in_pairs()},
                    {.likelihood = {.denominator = batch::pairs * batch::length}, .denominator = batch::pairs},
                    {.loss = x.loss, .d_logp = x.gradient, .metrics = x.metrics(9)});
      },
      pair_loop([](double chosen, double rejected) {
        const double each = 1.0 / batch::length, p = each * chosen, q = each * rejected;
        const double z = (p - q) - (std::log1p(-std::exp(p)) - std::log1p(-std::exp(q))), d = -0.1 * sigmoid(-z) * each;
        return pair_slopes{0.1 * softplus(-z) - p, d / -std::expm1(p) - each, -d / -std::expm1(q)};
      }));
}

const int registered = add_rows("orpo/64 pairs of 2x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

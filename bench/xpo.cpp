// XPO of 64 pairs of 1024 tokens each side, the rejected ones as the reference's, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/replies.hpp"

#include <plumb/objectives/xpo.hpp>

namespace {

using namespace plumb_bench;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  time_row<Row>(
      state, [](auto& b, const batch& x) { return plumb::xpo_workspace(b, plumb::xpo_inputs<float>{x.logp, x.ref_logp, x.in_pairs(), x.side(1)}); },
      [](auto& b, auto& scratch, batch& x) {
        plumb::xpo(b, scratch, {.logp = x.logp, .ref_logp = x.ref_logp, .pairs = x.in_pairs(), .of_reference = x.side(1)},
                   {.alpha = 1e-5, .denominator = batch::pairs}, {.loss = x.loss, .d_logp = x.gradient, .metrics = x.metrics(7)});
      },
      [](batch& x) {
        const double pairs = pair_loop<true>([](double chosen, double rejected) {
          const double z = 0.1 * (chosen - rejected), d = -0.1 * sigmoid(-z);
          return pair_slopes{softplus(-z), d, -d + 1e-5};
        })(x);
        double of_reference = 0;
        for (std::size_t p = 0; p < batch::pairs; ++p)
          for (std::size_t t = 0; t < batch::length; ++t) of_reference += static_cast<double>(x.logp[(2 * p + 1) * batch::length + t]);
        return pairs + 1e-5 * of_reference / batch::pairs;
      });
}

const int registered = add_rows("xpo/64 pairs of 2x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

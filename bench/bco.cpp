// BCO of 128 labelled replies of 1024 tokens, value, gradient and metrics from token log-probabilities, beside the loop that one would write.

#include "support/replies.hpp"

#include <plumb/objectives/bco.hpp>

namespace {

using namespace plumb_bench;

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  time_row<Row>(
      state, [](auto& b, const batch& x) { return plumb::bco_workspace(b, x.sequences(), plumb::index_t{batch::tokens}); },
      [](auto& b, auto& scratch, batch& x) {
        const float shift = 0.5f;
        plumb::bco(b, scratch, {.logp = x.logp, .ref_logp = x.ref_logp, .sequences = x.sequences(), .desirable = x.desirable, .shift = shift},
                   {.denominator = batch::replies}, {.loss = x.loss, .d_logp = x.gradient, .metrics = x.metrics(5)});
      },
      reply_loop([](double ratio, bool desirable) {
        const double sign = desirable ? 1 : -1, z = sign * (0.1 * ratio - 0.5);
        return reply_slope{softplus(-z), -sign * 0.1 * sigmoid(-z)};
      }));
}

const int registered = add_rows("bco/128x1024", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

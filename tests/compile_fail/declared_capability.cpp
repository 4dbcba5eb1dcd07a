// A capability that is declared must be there: no silent fallback.
// nvcc
// expect-error: plumb: this backend declares cap::token_logp, but token_logp(inputs, options, outputs) is not callable
#include <plumb/backends/serial.hpp>
#include <plumb/ops/token_logp.hpp>

struct my_chip : plumb::serial::backend<float> {
#if defined(PLUMB_EXPECT_FAILURE)
  using capabilities = plumb::capabilities<plumb::cap::token_logp>;
#endif
};

void f(my_chip& compute, plumb::arena<>& scratch, plumb::view<const float, 2> logits, plumb::view<float, 1> lse) {
  plumb::token_logp(compute, scratch, plumb::token_logp_inputs<float>{logits, {}}, {}, {{}, lse, {}});
}

// A capability of several operations must be there whole.
// expect-error: plumb: this backend declares cap::ranks, but match_ranks(scratch, x, from, to, y) is not callable
#include <plumb/backends/serial.hpp>
#include <plumb/ops/ranks.hpp>

struct my_chip : plumb::serial::backend<float> {
#if defined(PLUMB_EXPECT_FAILURE)
  void match_ranks() {}
#endif
};

void f(my_chip& compute, plumb::arena<>& scratch, plumb::view<const float, 1> x, plumb::view<float, 1> ranks, plumb::view<float, 1> y) {
  plumb::detail::write_ranks(compute, scratch, x, ranks);
  plumb::detail::match_ranks(compute, scratch, x, plumb::as_const(ranks), plumb::as_const(ranks), y);
}

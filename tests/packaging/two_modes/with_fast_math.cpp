#include <plumb/plumb.hpp>

#if !defined(__FAST_MATH__)
#error "this unit should be compiled with -ffast-math"
#endif

/// Refuses what does not fit: that error is caught by a unit of precise mathematics.
double sum_with_fast_math(plumb::view<const double, 1> x, const plumb::sequence_layout<>& sequences) {
  if (!x.given()) plumb::fail(plumb::message("sum") << "nothing is given.");
  double y = 0;
  plumb::serial::backend<double> compute;
  compute.segment_reduce(plumb::reduction::sum, x, sequences, plumb::view<double, 1>(y));
  return y;
}

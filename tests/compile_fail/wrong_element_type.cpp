// Arrays of another element type than the backend's are refused in words, in braces too.
// nvcc
// expect-error: plumb: this container's elements are not of the view's type.
#include <plumb/objectives/supervised.hpp>

#if defined(PLUMB_EXPECT_FAILURE)
using number = double;
#else
using number = float;
#endif

void train(plumb::serial::backend<float>& compute, plumb::arena<>& scratch, const std::vector<number>& logp,
           const plumb::sequence_layout<>& sequences, float& loss) {
  plumb::supervised(compute, scratch, {.logp = logp, .sequences = sequences}, {.denominator = 1}, {.loss = loss});
}

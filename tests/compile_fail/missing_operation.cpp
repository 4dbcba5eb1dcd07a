// A backend that lacks an operation is told which.
// nvcc
// expect-error: plumb: this backend has no segment_reduce(op, x, layout, y): see backends/README.md, "segment_reduce"
#include <plumb/backends/serial.hpp>

#if defined(PLUMB_EXPECT_FAILURE)
struct my_chip : plumb::serial::backend<float> {
 private:
  using plumb::serial::backend<float>::segment_reduce;
};
#else
using my_chip = plumb::serial::backend<float>;
#endif

static_assert(plumb::check_backend<my_chip>());

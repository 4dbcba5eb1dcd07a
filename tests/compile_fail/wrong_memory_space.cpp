// A view of memory that the backend cannot reach does not compile.
// nvcc
// expect-error: device_space
// expect-error(g++): cannot convert 'view<
// expect-error(clang++): no viable conversion from 'view<
// expect-error(nvcc): no suitable user-defined conversion from "plumb::
#include <plumb/backends/serial.hpp>

struct device_space {
  static constexpr const char* name = "device";
};
#if defined(PLUMB_EXPECT_FAILURE)
using space = device_space;
#else
using space = plumb::host_space;
#endif

void sum(plumb::serial::backend<float>& compute, plumb::view<const float, 1, space> x, plumb::view<float, 1> y) {
  compute.segment_reduce(plumb::reduction::sum, x, plumb::sequence_layout<>{}, y);
}

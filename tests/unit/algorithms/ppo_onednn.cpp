// The loop's first updates on oneDNN are those on the serial backend.
#include "support/first_updates.hpp"

#include <plumb/backends/onednn.hpp>

TEST_CASE("ppo: first updates on oneDNN are those of the serial backend in double, to rounding in float") {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  plumb::onednn::backend b{engine, stream};
  plumb::serial::backend<double> serial;
  CHECK(plumb_test::largest_difference(plumb_test::first_updates(b), plumb_test::first_updates(serial)) < 2e-5);
}

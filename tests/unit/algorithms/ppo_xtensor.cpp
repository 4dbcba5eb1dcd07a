// The loop's first updates on xtensor are those on the serial backend.
#include "support/first_updates.hpp"

#include <plumb/backends/xtensor.hpp>

TEST_CASE("ppo: first updates on xtensor are those of the serial backend, to rounding") {
  plumb::xtensor::backend b;
  plumb::serial::backend<double> serial;
  CHECK(plumb_test::largest_difference(plumb_test::first_updates(b), plumb_test::first_updates(serial)) < 1e-12);
}

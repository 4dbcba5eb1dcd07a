// The serial backend against the conformance kit.
#include "support/allocations.hpp"

#include <plumb/backends/serial.hpp>
#include <plumb/testing/conformance.hpp>

int main() {
  using plumb::testing::run_conformance;
  const plumb::testing::conformance_options options{.allocations = plumb_test::allocations, .set_threads = [](int) {}};
  return run_conformance(plumb::serial::backend<double>{}, options) + run_conformance(plumb::serial::backend<float>{}, options);
}

// The xtensor oracle against the conformance kit. It allocates freely: no counter is given.
#include <plumb/backends/xtensor.hpp>
#include <plumb/testing/conformance.hpp>

int main() {
  return plumb::testing::run_conformance(plumb::xtensor::backend{}, {.set_threads = [](int) {}});
}

#include "run.hpp"

#include <plumb/backends/serial.hpp>

namespace lab {

void run_on_serial(const settings& s) {
  plumb::serial::backend<float> compute;
  run_seeds(compute, s);
}

}  // namespace lab

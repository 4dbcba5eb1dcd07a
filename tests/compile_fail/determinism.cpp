// More determinism than a backend declares is refused.
// nvcc
// expect-error: plumb: this backend declares less determinism than is asked for: see its determinism_level
#include <plumb/backends/serial.hpp>

struct my_chip : plumb::serial::backend<float> {
#if defined(PLUMB_EXPECT_FAILURE)
  static constexpr plumb::determinism determinism_level = plumb::determinism::none;
#endif
};

static_assert(plumb::require_determinism<my_chip, plumb::determinism::run_to_run>());

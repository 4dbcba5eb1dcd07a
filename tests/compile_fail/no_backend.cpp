// What is no backend at all is told so, before anything else.
// nvcc
// expect-error: plumb: this backend does not say its real, memory_space, storage_types, capabilities and determinism_level: see backends/README.md, "types"
#include <plumb/backends/serial.hpp>

#if defined(PLUMB_EXPECT_FAILURE)
struct my_chip {};
#else
using my_chip = plumb::serial::backend<float>;
#endif

static_assert(plumb::check_backend<my_chip>());

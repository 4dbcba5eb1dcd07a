// A class with a backend's names and nothing else is told of every operation.
// nvcc
// expect-error: plumb: this backend has no fill(y, value): see backends/README.md, "fill"
// expect-error: plumb: this backend has no copy(x, y): see backends/README.md, "copy"
// expect-error: plumb: this backend has no transform(f, y, x...): see backends/README.md, "transform"
// expect-error: plumb: this backend has no transform2(f, y, z, x...): see backends/README.md, "transform2"
// expect-error: plumb: this backend has no reduce(op, x, y, write): see backends/README.md, "reduce"
// expect-error: plumb: this backend has no segment_reduce(op, x, layout, y): see backends/README.md, "segment_reduce"
// expect-error: plumb: this backend has no segment_broadcast(x, layout, y, write): see backends/README.md, "segment_broadcast"
// expect-error: plumb: this backend has no segment_scan(a, x, layout, y): see backends/README.md, "segment_scan"
// expect-error: plumb: this backend has no row_log_sum_exp(x, y): see backends/README.md, "row_log_sum_exp"
// expect-error: plumb: this backend has no row_pick(x, ids, y): see backends/README.md, "row_pick"
// expect-error: plumb: this backend has no row_add_at(x, ids, y): see backends/README.md, "row_add_at"
// expect-error: plumb: this backend has no row_gather(x, ids, y): see backends/README.md, "row_gather"
// expect-error: plumb: this backend has no row_scatter_add(x, ids, y): see backends/README.md, "row_scatter_add"
// expect-error: plumb: this backend has no row_softmax(x, valid, y): see backends/README.md, "row_softmax"
// expect-error: plumb: this backend has no row_softmax_grad(y, dy, dx): see backends/README.md, "row_softmax_grad"
// expect-error: plumb: this backend has no gemm(scratch, alpha, a, b, beta, c): see backends/README.md, "gemm"
// expect-error: plumb: this backend has no gemm_workspace(a, b, c): see backends/README.md, "gemm_workspace"
// expect-error: plumb: this backend has no sync(): see backends/README.md, "sync"
#include <plumb/backends/serial.hpp>

#if defined(PLUMB_EXPECT_FAILURE)
struct my_chip {
  using real = float;
  using memory_space = plumb::host_space;
  using storage_types = plumb::types<float>;
  using capabilities = plumb::capabilities<>;
  static constexpr plumb::determinism determinism_level = plumb::determinism::none;
};
#else
using my_chip = plumb::serial::backend<float>;
#endif

static_assert(plumb::check_backend<my_chip>());

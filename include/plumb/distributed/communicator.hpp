#pragma once
// What an operation needs of other ranks: sums. plumb brings no network; write these few lines over NCCL, MPI or oneCCL.

#include <plumb/compute/operations.hpp>

PLUMB_NAMESPACE_BEGIN

/// `c.all_reduce_sum(x)`: `x` becomes the sum over all ranks of their `x`, the same bits on each. It is enqueued behind what the backend has
/// enqueued before, and what is enqueued after it sees the sum; it does not wait. Every rank makes the same calls in the same order.
template <class C, class B>
concept communicator_for = has_backend_types<B> && requires(C& c, real_view<B> x) { c.all_reduce_sum(x); };

namespace distributed {

/// One rank: the sum is what is there.
struct local {
  template <class T, class Space>
  void all_reduce_sum(view<T, 1, Space>) const {}
};

}  // namespace distributed

PLUMB_NAMESPACE_END

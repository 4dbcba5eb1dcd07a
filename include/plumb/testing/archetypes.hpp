#pragma once
// The least that a backend is: exactly the required members, in a memory space that nobody else has, not copyable, without bodies. What
// compiles with it needs nothing more of a backend; it is never linked.

#include <plumb/compute/backend.hpp>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// A memory space that no other backend reads.
struct archetype_space {
  static constexpr const char* name = "archetype";
};

/// Models `compute_backend` with nothing to spare; `Other` is its second storage type.
template <class Real = float, class Other = bf16>
class minimal_backend {
  using space = archetype_space;
  template <class T, int R>
  using array = view<T, R, space>;
  using layout = sequence_layout<space>;
  using ids = array<const std::int32_t, 1>;

 public:
  using real = Real;
  using memory_space = space;
  using storage_types = types<Real, Other>;
  using capabilities = plumb::capabilities<>;
  static constexpr determinism determinism_level = determinism::none;

  minimal_backend() = delete;
  minimal_backend(const minimal_backend&) = delete;
  minimal_backend& operator=(const minimal_backend&) = delete;
  minimal_backend(minimal_backend&&) = default;

  template <class T, int R>
  void fill(array<T, R> y, real value);
  template <class S, class T, int R>
  void copy(array<S, R> x, array<T, R> y);
  template <class F, class T, int R, class... X>
  void transform(F f, array<T, R> y, array<X, R>... x);
  template <class F, class T, class U, int R, class... X>
  void transform2(F f, array<T, R> y, array<U, R> z, array<X, R>... x);
  template <class X, int R>
  void reduce(reduction op, array<X, R> x, array<real, R> y, write_mode w);
  void segment_reduce(reduction op, array<const real, 1> x, layout l, array<real, 1> y);
  void segment_broadcast(array<const real, 1> x, layout l, array<real, 1> y, write_mode w);
  void segment_scan(array<const real, 1> a, array<const real, 1> x, layout l, array<real, 1> y);
  template <class X>
  void row_log_sum_exp(array<X, 2> x, array<real, 1> y);
  template <class X>
  void row_pick(array<X, 2> x, ids i, array<real, 1> y);
  template <class Y>
  void row_add_at(array<const real, 1> x, ids i, array<Y, 2> y);
  template <class X, class Y>
  void row_gather(array<X, 2> x, ids i, array<Y, 2> y);
  template <class Y>
  void row_scatter_add(array<const real, 2> x, ids i, array<Y, 2> y);
  void row_softmax(array<const real, 2> x, ids valid, array<real, 2> y);
  void row_softmax_grad(array<const real, 2> y, array<const real, 2> dy, array<real, 2> dx);
  template <class S, int R>
  void gemm(arena<space>& scratch, real alpha, array<S, R> a, array<S, R> b, real beta, array<real, R> c);
  template <class S, int R>
  std::size_t gemm_workspace(array<S, R> a, array<S, R> b, array<real, R> c) const;
  void sync();
};

}  // namespace testing

PLUMB_NAMESPACE_END

#pragma once
// A backend to start from. It passes the conformance kit as it is, because every operation is handed to the serial backend; replace them by
// your own one at a time, run conformance.cpp after each, and drop the include of serial.hpp when the last one is yours.
// What each operation means: backends/README.md.

#include <plumb/backends/serial.hpp>  // until the last operation is yours
#include <plumb/compute/backend.hpp>
#include <plumb/compute/fused.hpp>

namespace my_chip {

/// Made from your queue, stream or handle, which stay yours. Cheap; one per queue; not thread-safe.
class backend {
 public:
  /// What is computed in: token-level arrays, losses and coefficients.
  using real = float;
  /// Where arrays lie. For memory that the host cannot read: an empty struct of your own with `static constexpr const char* name`, and a
  /// specialisation of plumb::testing::memory for the kit.
  using memory_space = plumb::host_space;
  /// Element types of logits, hidden states and heads that you take; `real` is one of them.
  using storage_types = plumb::types<float, plumb::bf16>;
  /// Fused operations that you have besides the required ones: plumb::cap::token_logp, token_logp_grad, gae, ranks.
  using capabilities = plumb::capabilities<>;
  /// none, run_to_run or thread_count_invariant: what users may rely on.
  static constexpr plumb::determinism determinism_level = plumb::determinism::run_to_run;

  // Memory.

  template <class T, int R>
  void fill(plumb::view<T, R> y, real value) {
    to_replace_.fill(y, value);
  }
  template <class S, class T, int R>
  void copy(plumb::view<S, R> x, plumb::view<T, R> y) {
    plumb::check::copy(x, y);
    to_replace_.copy(x, y);
  }

  // Elementwise, by functors.

  template <class F, class T, int R, class... X>
  void transform(F f, plumb::view<T, R> y, plumb::view<X, R>... x) {
    plumb::check::transform(y, x...);
    to_replace_.transform(f, y, x...);
  }
  template <class F, class T, class U, int R, class... X>
  void transform2(F f, plumb::view<T, R> y, plumb::view<U, R> z, plumb::view<X, R>... x) {
    plumb::check::transform(y, z, x...);
    to_replace_.transform2(f, y, z, x...);
  }

  // Reductions and sequences.

  template <class X, int R>
  void reduce(plumb::reduction op, plumb::view<X, R> x, plumb::view<real, R> y, plumb::write_mode w) {
    plumb::check::reduce(x, y);
    to_replace_.reduce(op, x, y, w);
  }
  void segment_reduce(plumb::reduction op, plumb::view<const real, 1> x, const plumb::sequence_layout<>& layout, plumb::view<real, 1> y) {
    plumb::check::segment_reduce(x, layout, y);
    to_replace_.segment_reduce(op, x, layout, y);
  }
  void segment_broadcast(plumb::view<const real, 1> x, const plumb::sequence_layout<>& layout, plumb::view<real, 1> y, plumb::write_mode w) {
    plumb::check::segment_broadcast(x, layout, y);
    to_replace_.segment_broadcast(x, layout, y, w);
  }
  void segment_scan(plumb::view<const real, 1> a, plumb::view<const real, 1> x, const plumb::sequence_layout<>& layout, plumb::view<real, 1> y) {
    plumb::check::segment_scan(a, x, layout, y);
    to_replace_.segment_scan(a, x, layout, y);
  }

  // Rows.

  template <class X>
  void row_log_sum_exp(plumb::view<X, 2> x, plumb::view<real, 1> y) {
    plumb::check::row_log_sum_exp(x, y);
    to_replace_.row_log_sum_exp(x, y);
  }
  template <class X>
  void row_pick(plumb::view<X, 2> x, plumb::view<const std::int32_t, 1> ids, plumb::view<real, 1> y) {
    plumb::check::row_pick(x, ids, y);
    to_replace_.row_pick(x, ids, y);
  }
  template <class Y>
  void row_add_at(plumb::view<const real, 1> x, plumb::view<const std::int32_t, 1> ids, plumb::view<Y, 2> y) {
    plumb::check::row_add_at(x, ids, y);
    to_replace_.row_add_at(x, ids, y);
  }
  template <class X, class Y>
  void row_gather(plumb::view<X, 2> x, plumb::view<const std::int32_t, 1> ids, plumb::view<Y, 2> y) {
    plumb::check::row_gather(x, ids, y);
    to_replace_.row_gather(x, ids, y);
  }
  template <class Y>
  void row_scatter_add(plumb::view<const real, 2> x, plumb::view<const std::int32_t, 1> ids, plumb::view<Y, 2> y) {
    plumb::check::row_scatter_add(x, ids, y);
    to_replace_.row_scatter_add(x, ids, y);
  }
  void row_softmax(plumb::view<const real, 2> x, plumb::view<const std::int32_t, 1> valid, plumb::view<real, 2> y) {
    plumb::check::row_softmax(x, valid, y);
    to_replace_.row_softmax(x, valid, y);
  }
  void row_softmax_grad(plumb::view<const real, 2> y, plumb::view<const real, 2> dy, plumb::view<real, 2> dx) {
    plumb::check::row_softmax_grad(y, dy, dx);
    to_replace_.row_softmax_grad(y, dy, dx);
  }

  // Products.

  template <class S, int R>
  void gemm(plumb::arena<>& scratch, real alpha, plumb::view<S, R> a, plumb::view<S, R> b, real beta, plumb::view<real, R> c) {
    plumb::check::gemm(a, b, c);
    to_replace_.gemm(scratch, alpha, a, b, beta, c);
  }
  template <class S, int R>
  std::size_t gemm_workspace(const plumb::view<S, R>& a, const plumb::view<S, R>& b, const plumb::view<real, R>& c) const {
    return to_replace_.gemm_workspace(a, b, c);
  }

  // The queue.

  void sync() { to_replace_.sync(); }

 private:
  plumb::serial::backend<real> to_replace_;
};

}  // namespace my_chip

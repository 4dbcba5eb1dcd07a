#pragma once
// The operations that a backend provides: one concept each, whose name is the diagnostic. backends/README.md is the guide;
// testing/conformance.hpp checks the laws.
//
// Common to all:
// - A backend is a cheap object made from the user's queue, engine or handle; not thread-safe; one per queue. Operations are
//   enqueued in order; only `sync()` blocks. None allocates memory for its result, none keeps a pointer after it has run.
// - Views have any strides (zero only in inputs), rank 1 to 4; extents agree as `check::` below says, and each operation
//   calls that check first.
// - Outputs are overwritten unless the operation says "adds". An output may be exactly an input (same pointer, strides) in
//   `transform`, `transform2`, `row_softmax`, `row_softmax_grad`; everywhere else outputs overlap nothing.
// - `real` is the type of computation: inputs of another element type are converted on reading, results on writing.
//   Sums accumulate in `real` or wider. NaN in gives NaN out.

#include <plumb/compute/checks.hpp>
#include <plumb/core/arena.hpp>
#include <plumb/core/layout.hpp>

#include <concepts>

PLUMB_NAMESPACE_BEGIN

/// Determinism that a backend declares: same bits never promised / from run to run on one machine with one thread count /
/// whatever the thread count.
enum class determinism { none, run_to_run, thread_count_invariant };

/// The type in which `B` computes.
template <class B>
using real_of = typename std::remove_cvref_t<B>::real;
/// The memory that `B` reads and writes.
template <class B>
using space_of = typename std::remove_cvref_t<B>::memory_space;
/// Scratch memory for `B`.
template <class B>
using arena_of = arena<space_of<B>>;
/// Element types of logits, hidden states and heads that `B` takes; `real` is always among them.
template <class B>
using storage_of = typename std::remove_cvref_t<B>::storage_types;

/// An array of `real` that `B` writes.
template <class B, int R = 1>
using real_view = view<real_of<B>, R, space_of<B>>;
/// An array of `real` that `B` reads.
template <class B, int R = 1>
using const_real_view = view<const real_of<B>, R, space_of<B>>;
/// Token ids, or indices of rows, that `B` reads; a negative one means "ignored".
template <class B>
using id_view = view<const std::int32_t, 1, space_of<B>>;

/// Two results of one functor, see `transform2`.
template <class T>
struct two {
  T first, second;
};

/// The functors by which the concepts below ask: transforms take any functor, a concept can try only one.
struct probe_functor {
  template <class T>
  PLUMB_HD constexpr T operator()(T a, T b, T c, T d) const {
    return a + b + c + d;
  }
};
/// The same for `transform2`.
struct probe_functor2 {
  template <class T>
  PLUMB_HD constexpr two<T> operator()(T a, T b, T c, T d) const {
    return {a + b, c + d};
  }
};

/// Minimal definition: the five names that everything else is made from.
template <class B>
concept has_backend_types = requires {
  typename std::remove_cvref_t<B>::real;
  typename std::remove_cvref_t<B>::memory_space;
  typename std::remove_cvref_t<B>::storage_types;
  typename std::remove_cvref_t<B>::capabilities;
  { std::remove_cvref_t<B>::determinism_level } -> std::convertible_to<determinism>;
};

namespace detail {
// The storage type other than `real`, if there is one: concepts ask for it too.
template <class Real, class Types>
struct other_storage {
  using type = Real;
};
template <class Real, class T, class... Rest>
struct other_storage<Real, types<T, Rest...>> {
  using type = std::conditional_t<std::is_same_v<T, Real>, typename other_storage<Real, types<Rest...>>::type, T>;
};
template <class B>
using other_storage_of = typename other_storage<real_of<B>, storage_of<B>>::type;
template <class B, int R = 1>
using const_other_view = view<const other_storage_of<B>, R, space_of<B>>;
template <class B, int R = 1>
using other_view = view<other_storage_of<B>, R, space_of<B>>;
}  // namespace detail

/// `fill(y, value)`: every element of `y`, rank 1 to 4.
template <class B>
concept provides_fill = requires(B& b, real_view<B, 1> y1, real_view<B, 4> y4, detail::other_view<B, 2> s, real_of<B> x) {
  b.fill(y1, x);
  b.fill(y4, x);
  b.fill(s, x);
};

/// `copy(x, y)`: `y = x`, converting the element type; `x` may broadcast. Rank 1 to 4. Conversions to 16 bits round to
/// nearest even. `uint8` to `real` and back: whole numbers from 0 to 255 stay what they are, others have no meaning there.
template <class B>
concept provides_copy = requires(B& b, const_real_view<B, 1> x1, real_view<B, 1> y1, const_real_view<B, 4> x4,
                                 real_view<B, 4> y4, detail::const_other_view<B, 2> s, detail::other_view<B, 2> d,
                                 const_real_view<B, 2> x2, real_view<B, 2> y2,
                                 view<const std::uint8_t, 1, space_of<B>> m,
                                 view<std::uint8_t, 1, space_of<B>> bytes) {
  b.copy(x1, y1);
  b.copy(x4, y4);
  b.copy(s, y2);
  b.copy(x2, d);
  b.copy(m, y1);
  b.copy(x1, bytes);
};

/// `transform(f, y, x...)`: `y[i] = f(x[i]...)`, one to four inputs of the extents of `y`, each `real`, a storage type, `uint8`
/// or `int32`, any of them broadcast by zero strides. `f` is a named functor, pure, called with `real` arguments, in any order.
template <class B>
concept provides_transform =
    requires(B& b, const_real_view<B, 1> x1, real_view<B, 1> y1, const_real_view<B, 2> x2, real_view<B, 2> y2,
             const_real_view<B, 4> x4, real_view<B, 4> y4, view<const std::uint8_t, 1, space_of<B>> m,
             detail::const_other_view<B, 2> s2) {
      b.transform(probe_functor{}, y1, x1, x1, m, x1);
      b.transform(probe_functor{}, y2, x2, s2, x2, x2);
      b.transform(probe_functor{}, y4, x4, x4, x4, x4);
    };

/// `transform2(f, y, z, x...)`: as `transform`, with two outputs: `f` returns `two{y[i], z[i]}`.
template <class B>
concept provides_transform2 = requires(B& b, const_real_view<B, 1> x1, real_view<B, 1> y1, const_real_view<B, 2> x2,
                                       real_view<B, 2> y2, const_real_view<B, 4> x4, real_view<B, 4> y4) {
  b.transform2(probe_functor2{}, y1, y1, x1, x1, x1, x1);
  b.transform2(probe_functor2{}, y2, y2, x2, x2, x2, x2);
  b.transform2(probe_functor2{}, y4, y4, x4, x4, x4, x4);
};

/// `reduce(op, x, y, write)`: `y` has the rank of `x`, and extent 1 in each dimension that is reduced (all others equal). A
/// sum over nothing is 0, a maximum over nothing -inf. `write_mode::add` adds the result to `y` instead of overwriting it.
template <class B>
concept provides_reduce = requires(B& b, const_real_view<B, 1> x1, real_view<B, 1> y1, const_real_view<B, 2> x2,
                                   real_view<B, 2> y2, reduction op, write_mode w) {
  b.reduce(op, x1, y1, w);
  b.reduce(op, x2, y2, w);
};

/// `segment_reduce(op, x, layout, y)`: `y[s]` over the scored tokens of sequence `s`; none gives 0 (sum) or -inf (max). Tokens that
/// are not scored are skipped, never multiplied by zero: NaN there changes nothing.
template <class B>
concept provides_segment_reduce =
    requires(B& b, const_real_view<B> x, sequence_layout<space_of<B>> l, real_view<B> y, reduction op) {
      b.segment_reduce(op, x, l, y);
    };

/// `segment_broadcast(x, layout, y, write)`: adjoint of the sum: `y[t] = x[s]` for each scored token `t` of sequence `s`, 0 elsewhere;
/// with `write_mode::add`, adds `x[s]` there and leaves the rest.
template <class B>
concept provides_segment_broadcast =
    requires(B& b, const_real_view<B> x, sequence_layout<space_of<B>> l, real_view<B> y, write_mode w) {
      b.segment_broadcast(x, l, y, w);
    };

/// `segment_scan(a, x, layout, y)`: reverse affine recurrence in each sequence, `y[t] = x[t] + a[t] y[u]`, where `u` is the next
/// scored token of the sequence (nothing after the last: `y[t] = x[t]`). Tokens not scored, or in no sequence, give 0.
template <class B>
concept provides_segment_scan =
    requires(B& b, const_real_view<B> a, const_real_view<B> x, sequence_layout<space_of<B>> l, real_view<B> y) {
      b.segment_scan(a, x, l, y);
    };

/// `row_log_sum_exp(x, y)`: `y[i] = log sum_j exp x[i, j]`, shifted by the row's maximum. A row of -inf, or without columns, gives
/// -inf; +inf gives +inf.
template <class B>
concept provides_row_log_sum_exp =
    requires(B& b, const_real_view<B, 2> x, detail::const_other_view<B, 2> s, real_view<B> y) {
      b.row_log_sum_exp(x, y);
      b.row_log_sum_exp(s, y);
    };

/// `row_pick(x, ids, y)`: `y[i] = x[i, ids[i]]`; a negative id gives 0.
template <class B>
concept provides_row_pick =
    requires(B& b, const_real_view<B, 2> x, detail::const_other_view<B, 2> s, id_view<B> ids, real_view<B> y) {
      b.row_pick(x, ids, y);
      b.row_pick(s, ids, y);
    };

/// `row_add_at(x, ids, y)`: adjoint of `row_pick`: adds `x[i]` to `y[i, ids[i]]`; a negative id adds nothing.
template <class B>
concept provides_row_add_at = requires(B& b, const_real_view<B> x, id_view<B> ids, real_view<B, 2> y,
                                       detail::other_view<B, 2> s) {
  b.row_add_at(x, ids, y);
  b.row_add_at(x, ids, s);
};

/// `row_gather(x, ids, y)`: `y[i, :] = x[ids[i], :]`; a negative id gives a row of zeros.
template <class B>
concept provides_row_gather =
    requires(B& b, const_real_view<B, 2> x, detail::const_other_view<B, 2> s, id_view<B> ids, real_view<B, 2> y,
             detail::other_view<B, 2> d) {
      b.row_gather(x, ids, y);
      b.row_gather(s, ids, d);
      b.row_gather(s, ids, y);
    };

/// `row_scatter_add(x, ids, y)`: adjoint of `row_gather`: adds row `x[i, :]` to `y[ids[i], :]`; ids may repeat, a negative one adds
/// nothing.
template <class B>
concept provides_row_scatter_add = requires(B& b, const_real_view<B, 2> x, id_view<B> ids, real_view<B, 2> y,
                                            detail::other_view<B, 2> d) {
  b.row_scatter_add(x, ids, y);
  b.row_scatter_add(x, ids, d);
};

/// `row_softmax(x, valid, y)`: over the first `valid[i]` columns of each row (all of them when `valid` is not given); the columns after
/// them are not read and become 0, so causal attention needs no -inf. `y` may be `x`.
template <class B>
concept provides_row_softmax =
    requires(B& b, const_real_view<B, 2> x, id_view<B> valid, real_view<B, 2> y) { b.row_softmax(x, valid, y); };

/// `row_softmax_grad(y, dy, dx)`: `dx = y (dy - sum_j y dy)` in each row, from the softmax `y` itself. `dx` may be `dy`. Columns
/// where `y` is 0 and `dy` is finite get 0.
template <class B>
concept provides_row_softmax_grad = requires(B& b, const_real_view<B, 2> y, const_real_view<B, 2> dy,
                                             real_view<B, 2> dx) { b.row_softmax_grad(y, dy, dx); };

/// `gemm(scratch, alpha, a, b, beta, c)`: `c = alpha a b + beta c` on the last two dimensions, `[.., M, K] x [.., K, N]`; the
/// dimensions before them are a batch (rank 2, 3 or 4; inputs may broadcast over it). Any strides; transposition is a view.
/// `a` and `b` are both `real` or both one storage type, `c` is `real`. With `beta` 0, `c` is not read.
/// `gemm_workspace(a, b, c)` says how many bytes of `scratch` it takes; it looks at shapes and strides only.
template <class B>
concept provides_gemm = requires(B& b, arena_of<B>& scratch, real_of<B> x, const_real_view<B, 2> a2,
                                 real_view<B, 2> c2, detail::const_other_view<B, 2> s2, const_real_view<B, 3> a3,
                                 real_view<B, 3> c3, const_real_view<B, 4> a4, real_view<B, 4> c4) {
  b.gemm(scratch, x, a2, a2, x, c2);
  b.gemm(scratch, x, s2, s2, x, c2);
  b.gemm(scratch, x, a3, a3, x, c3);
  b.gemm(scratch, x, a4, a4, x, c4);
};
/// `gemm_workspace(a, b, c)`: bytes of scratch that this `gemm` takes; see `provides_gemm`.
template <class B>
concept provides_gemm_workspace =
    requires(B& b, const_real_view<B, 2> a, detail::const_other_view<B, 2> s, real_view<B, 2> c, const_real_view<B, 4> a4,
             real_view<B, 4> c4) {
      { b.gemm_workspace(a, a, c) } -> std::convertible_to<std::size_t>;
      { b.gemm_workspace(s, s, c) } -> std::convertible_to<std::size_t>;
      { b.gemm_workspace(a4, a4, c4) } -> std::convertible_to<std::size_t>;
    };

/// `sync()`: returns when all that was enqueued is done; the only call that waits.
template <class B>
concept provides_sync = requires(B& b) { b.sync(); };

PLUMB_NAMESPACE_END

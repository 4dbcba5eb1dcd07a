#pragma once
// The shapes that each operation of a backend takes, stated once: every backend calls these before it does anything.

#include <plumb/core/error.hpp>
#include <plumb/core/layout.hpp>

PLUMB_NAMESPACE_BEGIN

/// What a reduction makes of several numbers; NaN among them gives NaN.
enum class reduction { sum, max };

/// Whether an operation replaces what its output holds, or adds to it.
enum class write_mode { overwrite, add };

namespace check {

/// Each `x` has the shape of `y`.
template <class Y, class... X>
void transform(const Y& y, const X&... x) {
  (require_same_shape("transform", "x", x, "y", y), ...);
}

/// `x` has the shape of `y`.
template <class X, class Y>
void copy(const X& x, const Y& y) {
  require_same_shape("copy", "x", x, "y", y);
}

/// Each extent of `y` is that of `x`, or 1.
template <class X, class Y>
void reduce(const X& x, const Y& y) {
  static_assert(X::rank == Y::rank, "plumb: reduce: `x` and `y` have the same rank; reduced dimensions have extent 1 in `y`");
  for (int d = 0; d < X::rank; ++d)
    if (y.extent(d) != x.extent(d) && y.extent(d) != 1)
      fail(message("reduce") << "`y` has shape " << y << ", but `x` has shape " << x
                             << ": each extent must be the same or 1. Nothing was written.");
}

/// `x` `[N]`, `y` `[sequences]`; the layout lies within `N` tokens.
template <class X, class Space, class Y>
void segment_reduce(const X& x, const sequence_layout<Space>& layout, const Y& y) {
  require_layout("segment_reduce", layout, x.extent(0));
  require_extent("segment_reduce", "y", y, 0, layout.sequences(), "the number of sequences");
}

/// `x` `[sequences]`, `y` `[N]`; the layout lies within `N` tokens.
template <class X, class Space, class Y>
void segment_broadcast(const X& x, const sequence_layout<Space>& layout, const Y& y) {
  require_layout("segment_broadcast", layout, y.extent(0));
  require_extent("segment_broadcast", "x", x, 0, layout.sequences(), "the number of sequences");
}

/// `a`, `x` and `y` `[N]`; the layout lies within `N` tokens.
template <class A, class X, class Space, class Y>
void segment_scan(const A& a, const X& x, const sequence_layout<Space>& layout, const Y& y) {
  require_same_shape("segment_scan", "a", a, "y", y);
  require_same_shape("segment_scan", "x", x, "y", y);
  require_layout("segment_scan", layout, y.extent(0));
}

/// `x` `[N, V]`, `y` `[N]`.
template <class X, class Y>
void row_log_sum_exp(const X& x, const Y& y) {
  require_extent("row_log_sum_exp", "y", y, 0, x.extent(0), "rows of `x`");
}

/// `x` `[N, V]`, `ids` `[N]` below `V`, `y` `[N]`.
template <class X, class I, class Y>
void row_pick(const X& x, const I& ids, const Y& y) {
  require_extent("row_pick", "ids", ids, 0, x.extent(0), "rows of `x`");
  require_extent("row_pick", "y", y, 0, x.extent(0), "rows of `x`");
  require_ids("row_pick", "ids", ids, x.extent(1), true);
}

/// `x` `[N]`, `ids` `[N]` below `V`, `y` `[N, V]`.
template <class X, class I, class Y>
void row_add_at(const X& x, const I& ids, const Y& y) {
  require_extent("row_add_at", "ids", ids, 0, y.extent(0), "rows of `y`");
  require_extent("row_add_at", "x", x, 0, y.extent(0), "rows of `y`");
  require_ids("row_add_at", "ids", ids, y.extent(1), true);
}

/// `x` `[M, D]`, `ids` `[N]` below `M`, `y` `[N, D]`.
template <class X, class I, class Y>
void row_gather(const X& x, const I& ids, const Y& y) {
  require_extent("row_gather", "y", y, 0, ids.extent(0), "the number of ids");
  require_extent("row_gather", "y", y, 1, x.extent(1), "columns of `x`");
  require_ids("row_gather", "ids", ids, x.extent(0), true);
}

/// `x` `[N, D]`, `ids` `[N]` below `M`, `y` `[M, D]`.
template <class X, class I, class Y>
void row_scatter_add(const X& x, const I& ids, const Y& y) {
  require_extent("row_scatter_add", "x", x, 0, ids.extent(0), "the number of ids");
  require_extent("row_scatter_add", "x", x, 1, y.extent(1), "columns of `y`");
  require_ids("row_scatter_add", "ids", ids, y.extent(0), true);
}

/// `x` and `y` `[N, V]`, `valid` not given or `[N]`, each from 0 to `V`.
template <class X, class I, class Y>
void row_softmax(const X& x, const I& valid, const Y& y) {
  require_same_shape("row_softmax", "y", y, "x", x);
  if (valid.given()) require_extent("row_softmax", "valid", valid, 0, x.extent(0), "rows of `x`");
  if (valid.given()) require_ids("row_softmax", "valid", valid, x.extent(1) + 1, false);
}

/// `y`, `dy` and `dx` have one shape.
template <class Y, class D, class X>
void row_softmax_grad(const Y& y, const D& dy, const X& dx) {
  require_same_shape("row_softmax_grad", "dy", dy, "y", y);
  require_same_shape("row_softmax_grad", "dx", dx, "y", y);
}

/// `a` `[.., M, K]`, `b` `[.., K, N]`, `c` `[.., M, N]`, of one rank, 2 to 4.
template <class A, class B, class C>
void gemm(const A& a, const B& b, const C& c) {
  constexpr int r = C::rank;
  static_assert(A::rank == r && B::rank == r && r >= 2, "plumb: gemm: `a`, `b` and `c` have the same rank, 2 to 4");
  bool good = a.extent(r - 2) == c.extent(r - 2) && b.extent(r - 1) == c.extent(r - 1) &&
              a.extent(r - 1) == b.extent(r - 2);
  for (int d = 0; d < r - 2; ++d) good = good && a.extent(d) == c.extent(d) && b.extent(d) == c.extent(d);
  if (!good)
    fail(message("gemm") << "`a` " << a << " times `b` " << b << " does not give `c` " << c << ". Nothing was written.");
}

}  // namespace check

PLUMB_NAMESPACE_END

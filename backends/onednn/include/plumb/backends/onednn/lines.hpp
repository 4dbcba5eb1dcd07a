#pragma once
// Elementwise work on strided views: dimensions are merged into the longest lines, lines are cut into pieces that threads share, and
// whatever is not a dense line of floats goes through a small buffer, so that a functor is compiled for one kind of loop only.

#include <plumb/backends/onednn/rows.hpp>

#include <utility>

PLUMB_NAMESPACE_BEGIN

namespace onednn::detail {

/// Runs `f(first, last)` over `items` of `size` elements each: in OpenMP's threads (the pool that oneDNN uses too) where the unit is
/// compiled for it and there is enough to do. Which items go together does not depend on the number of threads.
template <class F>
void share(index_t items, index_t size, const F& f) {
  constexpr index_t grain = index_t{1} << 14;
  const index_t each = size >= grain ? 1 : grain / (size > 0 ? size : 1);
  const index_t chunks = (items + each - 1) / each;
#if defined(_OPENMP)
  if (chunks > 1) {
#pragma omp parallel for schedule(static)
    for (index_t k = 0; k < chunks; ++k) f(k * each, (k + 1) * each < items ? (k + 1) * each : items);
    return;
  }
#endif
  if (chunks > 0) f(index_t{0}, items);
}

template <class T>
struct line {
  T* pointer;
  index_t stride;
};

/// The dimensions common to `Count` views, merged where all of them allow it; the last one is a line.
template <int Count>
struct merged_dimensions {
  int rank = 1;
  index_t extents[4] = {1, 1, 1, 1};
  index_t strides[Count][4] = {};

  template <int R, class... V>
  explicit merged_dimensions(const index_t (&e)[R], const V&... views) {
    const index_t* s[Count] = {views.strides...};
    rank = 0;
    for (int d = 0; d < R; ++d) {
      if (e[d] == 1) continue;
      bool merges = rank > 0;
      for (int k = 0; k < Count; ++k) merges = merges && strides[k][rank - 1] == s[k][d] * e[d];
      if (merges) {
        extents[rank - 1] *= e[d];
      } else {
        extents[rank++] = e[d];
      }
      for (int k = 0; k < Count; ++k) strides[k][rank - 1] = s[k][d];
    }
    if (rank > 0) return;
    rank = 1;
    for (int k = 0; k < Count; ++k) strides[k][0] = 1;
  }
};

/// Calls `body.operator()<N>(n, line...)` for lines that together cover the views, which all have the extents of the first.
template <class Body, class Y, class... X, int R>
void for_each_line(isa which, const Body& body, const view<Y, R>& y, const view<X, R>&... x) {
  if (y.empty()) return;
  constexpr int count = 1 + static_cast<int>(sizeof...(X));
  constexpr index_t piece = index_t{1} << 12;
  const merged_dimensions<count> m(y.extents, y, x...);
  const int inner = m.rank - 1;
  const index_t length = m.extents[inner], pieces = (length + piece - 1) / piece;
  index_t lines = 1;
  for (int d = 0; d < inner; ++d) lines *= m.extents[d];

  share(lines * pieces, length < piece ? length : piece, [&](index_t first, index_t last) {
    dispatch(which, [&]<int N>() __attribute__((always_inline)) {
      // Where the line of `first` begins in each view; afterwards only steps are added.
      index_t at[4] = {}, base[count] = {}, p = first % pieces, rest = first / pieces;
      for (int d = inner; d-- > 0; rest /= m.extents[d]) {
        at[d] = rest % m.extents[d];
        for (int k = 0; k < count; ++k) base[k] += at[d] * m.strides[k][d];
      }
      for (index_t i = first; i < last; ++i) {
        const index_t begin = p * piece, n = length - begin < piece ? length - begin : piece;
        [&]<std::size_t... K>(std::index_sequence<K...>) __attribute__((always_inline)) {
          body.template operator()<N>(
              n, line<Y>{y.pointer + base[0] + begin * m.strides[0][inner], m.strides[0][inner]},
              line<X>{x.pointer + base[K + 1] + begin * m.strides[K + 1][inner], m.strides[K + 1][inner]}...);
        }(std::index_sequence_for<X...>());
        if (++p < pieces) continue;
        p = 0;
        for (int d = inner; d-- > 0; at[d] = 0) {
          const bool next = ++at[d] < m.extents[d];
          for (int k = 0; k < count; ++k) base[k] += (next ? 1 : 1 - m.extents[d]) * m.strides[k][d];
          if (next) break;
        }
      }
    });
  });
}

/// One input or output of a transform along a line: the floats themselves, or a buffer of `step` of them.
inline constexpr index_t step = 256;

template <int N, class X>
[[gnu::always_inline]] inline const float* stage_in(const line<X>& x, index_t at, index_t n, float* buffer) {
  if constexpr (std::is_same_v<std::remove_const_t<X>, float>)
    if (x.stride == 1) return x.pointer + at;
  if (x.stride != 0) {
    load_block<N>(x.pointer + at * x.stride, x.stride, n, 0.0f, buffer);
  } else if (at == 0) {
    const float value = convert<float>(*x.pointer);
    for (index_t i = 0; i < n; ++i) buffer[i] = value;
  }
  return buffer;
}
// An output is either an input, entry by entry, or overlaps none: no iteration depends on another. Loops of a fixed length are what
// g++ turns into vectors at -O2 as well.
template <class F, class... X>
[[gnu::always_inline]] inline void dense_loop(const F& f, index_t n, float* y, const X*... x) {
  constexpr index_t run = 32;
  index_t at = 0;
  for (; at + run <= n; at += run) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#endif
    for (index_t i = 0; i < run; ++i) y[at + i] = f(x[at + i]...);
  }
  for (; at < n; ++at) y[at] = f(x[at]...);
}
template <class F, class... X>
[[gnu::always_inline]] inline void dense_loop2(const F& f, index_t n, float* y, float* z, const X*... x) {
  constexpr index_t run = 32;
  index_t at = 0;
  const auto one = [&](index_t i) __attribute__((always_inline)) {
    const two<float> r = f(x[i]...);
    y[i] = r.first;
    z[i] = r.second;
  };
  for (; at + run <= n; at += run) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#endif
    for (index_t i = 0; i < run; ++i) one(at + i);
  }
  for (; at < n; ++at) one(at);
}

/// Every element of a line is `value`.
template <class T>
struct fill_line {
  T value;

  template <int N>
  [[gnu::always_inline]] void operator()(index_t n, const line<T>& y) const {
    constexpr index_t run = 32;
    index_t at = 0;
    if (y.stride == 1)
      for (; at + run <= n; at += run)
        for (index_t i = 0; i < run; ++i) y.pointer[at + i] = value;
    for (; at < n; ++at) y.pointer[at * y.stride] = value;
  }
};

/// `y = f(x...)` along lines.
template <class F>
struct transform_line {
  F f;

  template <int N, class Y, class... X>
  [[gnu::always_inline]] void operator()(index_t n, const line<Y>& y, const line<X>&... x) const {
    run<N>(std::index_sequence_for<X...>(), n, y, x...);
  }

 private:
  template <int N, std::size_t... K, class Y, class... X>
  [[gnu::always_inline]] void run(std::index_sequence<K...>, index_t n, const line<Y>& y, const line<X>&... x) const {
    if constexpr ((std::is_same_v<Y, float> && ... && std::is_same_v<std::remove_const_t<X>, float>))
      if (y.stride == 1 && ((x.stride == 1) && ...)) return dense_loop(f, n, y.pointer, x.pointer...);
    alignas(64) float in[sizeof...(X)][step], out[step];
    for (index_t at = 0; at < n; at += step) {
      const index_t count = n - at < step ? n - at : step;
      float* to = out;
      if constexpr (std::is_same_v<Y, float>)
        if (y.stride == 1) to = y.pointer + at;
      dense_loop(f, count, to, stage_in<N>(x, at, count, in[K])...);
      if (to == out) store_block<N>(out, count, y.pointer + at * y.stride, y.stride);
    }
  }
};

/// `y, z = f(x...)` along lines.
template <class F>
struct transform2_line {
  F f;

  template <int N, class Y, class Z, class... X>
  [[gnu::always_inline]] void operator()(index_t n, const line<Y>& y, const line<Z>& z, const line<X>&... x) const {
    run<N>(std::index_sequence_for<X...>(), n, y, z, x...);
  }

 private:
  template <int N, std::size_t... K, class Y, class Z, class... X>
  [[gnu::always_inline]] void run(std::index_sequence<K...>, index_t n, const line<Y>& y, const line<Z>& z,
                                  const line<X>&... x) const {
    alignas(64) float in[sizeof...(X)][step], out[2][step];
    for (index_t at = 0; at < n; at += step) {
      const index_t count = n - at < step ? n - at : step;
      dense_loop2(f, count, out[0], out[1], stage_in<N>(x, at, count, in[K])...);
      store_block<N>(out[0], count, y.pointer + at * y.stride, y.stride);
      store_block<N>(out[1], count, z.pointer + at * z.stride, z.stride);
    }
  }
};

template <class T>
[[gnu::always_inline]] inline line<T> line_of(const view<T, 2>& x, index_t row) {
  return {x.pointer + row * x.stride(0), x.stride(1)};
}

/// Rows `ids[first] .. ids[last]` of `x`, zeros where an id is negative.
template <class X, class Y>
struct gather_rows {
  view<X, 2> x;
  view<const std::int32_t, 1> ids;
  view<Y, 2> y;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    for (index_t i = first; i < last; ++i)
      if (ids(i) < 0) {
        fill_line<Y>{}.template operator()<N>(y.extent(1), line_of(y, i));
      } else {
        transform_line<math::identity>{}.template operator()<N>(y.extent(1), line_of(y, i), line_of(x, ids(i)));
      }
  }
};

/// Adds the rows of `x` to rows `ids` of `y`.
template <class Y>
struct scatter_add_rows {
  view<const float, 2> x;
  view<const std::int32_t, 1> ids;
  view<Y, 2> y;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    for (index_t i = 0; i < x.extent(0); ++i)
      if (ids(i) >= 0)
        transform_line<math::plus>{}.template operator()<N>(y.extent(1), line_of(y, ids(i)), line_of(y, ids(i)), line_of(x, i));
  }
};

}  // namespace onednn::detail

PLUMB_NAMESPACE_END

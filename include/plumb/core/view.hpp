#pragma once
// Views: where an array lies and how it is laid out. plumb owns no tensor; everything it reads or writes is a view.

#include <plumb/core/dtype.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

PLUMB_TYPES_BEGIN

/// Extents, strides and offsets. Strides count elements, may be zero (broadcast) and are signed.
using index_t = std::int64_t;

/// Memory that the processor reads. A memory space is an empty type with a `name`; a view carries it in its type, so that
/// a device view handed to a host backend does not compile.
struct host_space {
  static constexpr const char* name = "host";
};

/// A vector, span or array; not a view, whose strides would be lost.
template <class C>
concept contiguous_container = requires(C& c) {
  { *c.data() };
  { c.size() } -> std::convertible_to<std::size_t>;
} && !requires(C& c) { c.strides; };

/// A strided array of rank `R` at `pointer`, in memory `Space`; `T` is const for inputs. Trivially copyable; owns nothing.
/// Default-constructed views are empty and stand for "not given".
template <class T, int R, class Space = host_space>
struct view {
  static_assert(R >= 1 && R <= 4, "plumb: views have rank 1 to 4");
  using element = T;
  using value_type = std::remove_const_t<T>;
  using memory_space = Space;
  static constexpr int rank = R;

  T* pointer = nullptr;
  index_t extents[R] = {};  // C arrays: std::array in a kernel would force a compiler flag on users
  index_t strides[R] = {};

  constexpr view() = default;

  /// Row-major: `view<float, 2>(p, rows, cols)`.
  template <std::convertible_to<index_t>... E>
    requires(sizeof...(E) == R)
  PLUMB_HD constexpr view(T* p, E... e) : pointer(p), extents{static_cast<index_t>(e)...} {
    index_t s = 1;
    for (int d = R; d-- > 0; s *= extents[d]) strides[d] = s;
  }

  /// Any strides, in elements.
  PLUMB_HD constexpr view(T* p, const index_t (&e)[R], const index_t (&s)[R]) : pointer(p) {
    for (int d = 0; d < R; ++d) {
      extents[d] = e[d];
      strides[d] = s[d];
    }
  }

  /// A vector, span or array of the same element type, in host memory.
  template <contiguous_container C>
    requires(R == 1 && std::is_same_v<Space, host_space> &&
             std::is_convertible_v<decltype(std::declval<C&>().data()), T*>)
  constexpr view(C&& c) : view(c.data(), static_cast<index_t>(c.size())) {}

  /// One number in host memory, as where a loss goes; not a temporary.
  template <class U>
    requires(R == 1 && std::is_same_v<Space, host_space> && (std::is_same_v<U, T> || std::is_same_v<const U, T>))
  constexpr view(U& one) : view(&one, index_t{1}) {}

  /// Reading what can be written.
  template <class U>
    requires(std::is_same_v<const U, T>)
  PLUMB_HD constexpr view(const view<U, R, Space>& v) : view(v.pointer, v.extents, v.strides) {}

  PLUMB_HD constexpr T* data() const { return pointer; }
  PLUMB_HD constexpr bool given() const { return pointer != nullptr; }
  PLUMB_HD constexpr index_t extent(int d) const { return extents[d]; }
  PLUMB_HD constexpr index_t stride(int d) const { return strides[d]; }
  PLUMB_HD constexpr index_t size() const {
    index_t n = 1;
    for (int d = 0; d < R; ++d) n *= extents[d];
    return n;
  }
  PLUMB_HD constexpr bool empty() const { return size() == 0; }

  /// Row-major without gaps.
  PLUMB_HD constexpr bool contiguous() const {
    index_t s = 1;
    for (int d = R; d-- > 0; s *= extents[d])
      if (extents[d] != 1 && strides[d] != s) return false;
    return true;
  }

  template <std::convertible_to<index_t>... I>
    requires(sizeof...(I) == R)
  PLUMB_HD constexpr T& operator()(I... i) const {
    const index_t at[R] = {static_cast<index_t>(i)...};
    index_t offset = 0;
    for (int d = 0; d < R; ++d) offset += at[d] * strides[d];
    return pointer[offset];
  }

  /// `count` entries of the first dimension from `first` on.
  PLUMB_HD constexpr view slice(index_t first, index_t count) const { return narrow(0, first, count); }
  /// `count` entries of dimension `d` from `first` on.
  PLUMB_HD constexpr view narrow(int d, index_t first, index_t count) const {
    view v = *this;
    v.pointer += first * strides[d];
    v.extents[d] = count;
    return v;
  }
  /// The last two dimensions exchanged; no element moves.
  PLUMB_HD constexpr view transposed() const
    requires(R >= 2)
  {
    view v = *this;
    v.extents[R - 2] = extents[R - 1];
    v.extents[R - 1] = extents[R - 2];
    v.strides[R - 2] = strides[R - 1];
    v.strides[R - 1] = strides[R - 2];
    return v;
  }
  /// Entry `i` of the first dimension.
  PLUMB_HD constexpr view<T, (R > 1) ? R - 1 : 1, Space> row(index_t i) const
    requires(R >= 2)
  {
    view<T, R - 1, Space> v;
    v.pointer = pointer + i * strides[0];
    for (int d = 1; d < R; ++d) {
      v.extents[d - 1] = extents[d];
      v.strides[d - 1] = strides[d];
    }
    return v;
  }
};

template <contiguous_container C>
view(C&& c) -> view<std::remove_reference_t<decltype(*c.data())>, 1, host_space>;
template <class T, class... E>
  requires(std::convertible_to<E, index_t> && ...)
view(T*, E...) -> view<T, static_cast<int>(sizeof...(E)), host_space>;

/// A view of rank 1.
template <class T, class Space = host_space>
using vector_view = view<T, 1, Space>;
/// A view of rank 2.
template <class T, class Space = host_space>
using matrix_view = view<T, 2, Space>;

/// `x` `[N]` seen as `[N, columns]`, every column the same (zero stride).
template <class T, class Space>
PLUMB_HD constexpr view<T, 2, Space> broadcast_columns(view<T, 1, Space> x, index_t columns) {
  return {x.pointer, {x.extents[0], columns}, {x.strides[0], 0}};
}
/// `x` `[V]` seen as `[rows, V]`, every row the same (zero stride).
template <class T, class Space>
PLUMB_HD constexpr view<T, 2, Space> broadcast_rows(view<T, 1, Space> x, index_t rows) {
  return {x.pointer, {rows, x.extents[0]}, {0, x.strides[0]}};
}
/// `x` `[N]` seen as `[N, 1]`.
template <class T, class Space>
PLUMB_HD constexpr view<T, 2, Space> as_column(view<T, 1, Space> x) {
  return {x.pointer, {x.extents[0], 1}, {x.strides[0], 1}};
}
/// `x` `[N]` seen as `[1, N]`.
template <class T, class Space>
PLUMB_HD constexpr view<T, 2, Space> as_row(view<T, 1, Space> x) {
  return {x.pointer, {1, x.extents[0]}, {x.extents[0] * x.strides[0], x.strides[0]}};
}
/// The same memory with other extents. An empty view without memory where that cannot be: gaps between the elements, or another number of them.
template <class T, int R, class Space, std::convertible_to<index_t>... E>
PLUMB_HD constexpr view<T, static_cast<int>(sizeof...(E)), Space> reshaped(view<T, R, Space> x, E... e) {
  const view<T, static_cast<int>(sizeof...(E)), Space> y(x.pointer, static_cast<index_t>(e)...);
  return x.contiguous() && x.size() == y.size() ? y : view<T, static_cast<int>(sizeof...(E)), Space>();
}
/// Reading only: for calls that deduce the element type.
template <class T, int R, class Space>
PLUMB_HD constexpr view<const T, R, Space> as_const(view<T, R, Space> x) {
  return x;
}

PLUMB_TYPES_END

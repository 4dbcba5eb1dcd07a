#pragma once
// Views of other libraries' arrays, recognised by the shape of their interface; none of them is included.

#include <plumb/core/error.hpp>

PLUMB_NAMESPACE_BEGIN

/// `std::mdspan`, `Kokkos::mdspan`, `cuda::std::mdspan`: strides in elements.
template <class A>
concept mdspan_like = requires(const A& a) {
  { a.extent(0) } -> std::convertible_to<index_t>;
  { a.stride(0) } -> std::convertible_to<index_t>;
  { *a.data_handle() };
  { A::rank() } -> std::convertible_to<std::size_t>;
};

/// xtensor containers and adaptors: strides in elements, 0 where the extent is 1.
template <class A>
concept xtensor_like = requires(A& a) {
  { *a.data() };
  { a.shape()[0] } -> std::convertible_to<std::size_t>;
  { a.strides()[0] } -> std::convertible_to<index_t>;
  { a.dimension() } -> std::convertible_to<std::size_t>;
};

/// DLPack's `DLTensor` (any version): strides in elements or none, a byte offset, a device, an element type.
template <class A>
concept dlpack_like = requires(const A& a) {
  { a.data } -> std::convertible_to<const void*>;
  { a.ndim } -> std::convertible_to<int>;
  { a.shape[0] } -> std::convertible_to<index_t>;
  { a.strides } -> std::convertible_to<const std::int64_t*>;
  { a.byte_offset } -> std::convertible_to<std::uint64_t>;
  { a.device.device_type };
  { a.dtype.code } -> std::convertible_to<int>;
};

namespace detail {
inline void require_rank(index_t has, int wanted) {
  if (has != wanted)
    fail(message("as_view") << "the array has rank " << has << ", but a view of rank " << wanted << " is asked for.");
}
// DLPack's codes: 0 signed, 1 unsigned, 2 float, 4 bfloat.
template <class T>
constexpr int dlpack_code() {
  if constexpr (std::is_same_v<T, bf16>) return 4;
  if constexpr (std::is_same_v<T, f16> || std::is_floating_point_v<T>) return 2;
  return std::is_unsigned_v<T> ? 1 : 0;
}
}  // namespace detail

/// `as_view<2>(x)`: a view of rank `R` of an mdspan-like or xtensor-like array in host memory; the element type is the array's.
template <int R, mdspan_like A>
auto as_view(const A& a) {
  detail::require_rank(static_cast<index_t>(A::rank()), R);
  view<std::remove_reference_t<decltype(*a.data_handle())>, R> v;
  v.pointer = a.data_handle();
  for (int d = 0; d < R; ++d) {
    v.extents[d] = static_cast<index_t>(a.extent(static_cast<std::size_t>(d)));
    v.strides[d] = static_cast<index_t>(a.stride(static_cast<std::size_t>(d)));
  }
  return v;
}
/// The same for an xtensor-like array; its rank is checked when it runs.
template <int R, xtensor_like A>
  requires(!mdspan_like<std::remove_cvref_t<A>>)
auto as_view(A&& a) {
  detail::require_rank(static_cast<index_t>(a.dimension()), R);
  view<std::remove_reference_t<decltype(*a.data())>, R> v;
  v.pointer = a.data();
  for (int d = 0; d < R; ++d) {
    v.extents[d] = static_cast<index_t>(a.shape()[static_cast<std::size_t>(d)]);
    v.strides[d] = static_cast<index_t>(a.strides()[static_cast<std::size_t>(d)]);
  }
  return v;
}

/// `as_view<const float, 2>(tensor)`: of a DLPack tensor in host memory (device type 1, or 3 for pinned); `T` must be its element type.
template <class T, int R, dlpack_like A>
view<T, R> as_view(const A& a) {
  constexpr const char* op = "as_view";
  using V = std::remove_const_t<T>;
  detail::require_rank(a.ndim, R);
  const int device = static_cast<int>(a.device.device_type);
  if (device != 1 && device != 3) fail(message(op) << "the tensor lies on device type " << device << ", not in host memory.");
  if (static_cast<int>(a.dtype.code) != detail::dlpack_code<V>() || a.dtype.bits != 8 * sizeof(V) || a.dtype.lanes != 1)
    fail(message(op) << "the tensor's element type (code " << static_cast<int>(a.dtype.code) << ", "
                     << static_cast<int>(a.dtype.bits) << " bits) is not " << dtype_name<V>() << ".");
  view<T, R> v;
  v.pointer = reinterpret_cast<T*>(static_cast<char*>(a.data) + a.byte_offset);
  index_t dense = 1;
  for (int d = R; d-- > 0;) {
    v.extents[d] = static_cast<index_t>(a.shape[d]);
    v.strides[d] = a.strides != nullptr ? static_cast<index_t>(a.strides[d]) : dense;
    dense *= v.extents[d];
  }
  return v;
}

PLUMB_NAMESPACE_END

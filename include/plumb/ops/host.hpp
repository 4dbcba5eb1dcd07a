#pragma once
// What the short host overloads share: vectors in, serial backend, a result that owns its arrays.

#include <plumb/backends/serial.hpp>

#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace detail {

/// A vector, span or array of float or double in host memory.
template <class R>
concept host_range = contiguous_container<const R> &&
                     std::is_floating_point_v<std::remove_cvref_t<decltype(*std::declval<const R&>().data())>>;

template <host_range R>
using value_of = std::remove_cvref_t<decltype(*std::declval<const R&>().data())>;

/// Serial backend and scratch for one call.
template <class T>
struct host_call {
  serial::backend<T> compute{};
  std::vector<unsigned char> memory;
  plumb::arena<> scratch;

  explicit host_call(std::size_t bytes) : memory(bytes), scratch(memory) {}
};

template <class T>
std::vector<T> zeros(index_t n) {
  return std::vector<T>(static_cast<std::size_t>(n));
}

/// Checks a layout against `tokens` numbers, what it holds too.
inline void require_host_layout(const char* op, const sequence_layout<>& sequences, index_t tokens) {
  require_sequences(op, sequences, tokens);
  require_layout_data(op, sequences, tokens);
}

/// `x` row by row, as `[rows, columns]`; `of_what` are the columns.
template <class T>
view<const T, 2> host_rows(const char* op, const char* name, view<const T, 1> x, index_t columns, const char* of_what) {
  if (columns < 1 || x.extent(0) % columns != 0)
    fail(message(op) << "`" << name << "` has " << x.extent(0) << " elements, which is no multiple of " << columns << " " << of_what
                     << ". Nothing was written.");
  return {x.data(), {x.extent(0) / columns, columns}, {columns * x.stride(0), x.stride(0)}};
}

}  // namespace detail

PLUMB_NAMESPACE_END

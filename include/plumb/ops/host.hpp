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

}  // namespace detail

PLUMB_NAMESPACE_END

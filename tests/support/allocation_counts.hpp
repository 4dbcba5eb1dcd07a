#pragma once
// What a program has allocated in C++, where one of its files includes allocations.hpp.

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

namespace plumb_test {

inline std::atomic<long long> allocation_count{0};
inline long long allocations() { return allocation_count; }
/// Bytes that are allocated now, and the most since the test set it; 0 where the C library does not say.
inline std::atomic<long long> live_bytes{0}, most_live_bytes{0};
inline long long usable_bytes([[maybe_unused]] void* p) {
#if __has_include(<malloc.h>)
  return p == nullptr ? 0 : static_cast<long long>(malloc_usable_size(p));
#else
  return 0;
#endif
}

/// The allocation that makes `allocations()` so many fails; -1: none does.
inline std::atomic<long long> allocation_that_fails{-1};

// Not inlined: g++ would see free() given what operator new returned, and warn.
[[gnu::noinline]] inline void* counted(std::size_t bytes, std::size_t alignment) {
  if (++allocation_count == allocation_that_fails) throw std::bad_alloc();
  void* p = nullptr;
  if (posix_memalign(&p, alignment < sizeof(void*) ? sizeof(void*) : alignment, bytes > 0 ? bytes : 1) != 0) throw std::bad_alloc();
  const long long now = live_bytes += usable_bytes(p);
  for (long long most = most_live_bytes; now > most && !most_live_bytes.compare_exchange_weak(most, now);) {
  }
  return p;
}
[[gnu::noinline]] inline void release(void* p) noexcept {
  live_bytes -= usable_bytes(p);
  std::free(p);
}

}  // namespace plumb_test

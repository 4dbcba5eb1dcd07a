#pragma once
// Counts what the program and its libraries allocate in C++. Included by one file of a program: it replaces operator new.

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

// Not inlined: g++ would see free() given what operator new returned, and warn.
[[gnu::noinline]] inline void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocation_count;
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

void* operator new(std::size_t n) { return plumb_test::counted(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) { return plumb_test::counted(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return plumb_test::counted(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return plumb_test::counted(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { plumb_test::release(p); }
void operator delete(void* p, std::size_t) noexcept { plumb_test::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { plumb_test::release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { plumb_test::release(p); }

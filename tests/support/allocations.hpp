#pragma once
// Counts what the program and its libraries allocate in C++. Included by one file of a program: it replaces operator new.

#include "support/allocation_counts.hpp"

void* operator new(std::size_t n) { return plumb_test::counted(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) { return plumb_test::counted(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  try {
    return plumb_test::counted(n, static_cast<std::size_t>(a));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return operator new(n, std::align_val_t{alignof(std::max_align_t)}, std::nothrow);
}
void operator delete(void* p) noexcept { plumb_test::release(p); }
void operator delete(void* p, std::size_t) noexcept { plumb_test::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { plumb_test::release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { plumb_test::release(p); }

#include <plumb/plumb.hpp>

#include <csetjmp>

#if !defined(PLUMB_NO_EXCEPTIONS)
#error "this unit should be compiled without exceptions"
#endif

namespace {
std::jmp_buf back;
}

/// True when a mistake reaches the handler of this unit's mode.
bool mistake_reaches_handler() {
  plumb::set_error_handler([](const char*) { std::longjmp(back, 1); });
  plumb::serial::backend<double> compute;
  plumb::arena<> scratch;
  if (setjmp(back) != 0) return true;
  plumb::dpo_pairs(compute, scratch, {}, {.beta = -1, .denominator = 1}, {});
  return false;
}

double loss_without_exceptions() {
  return plumb::dpo(std::vector{-1.0}, std::vector{-2.0}, std::vector{-1.0}, std::vector{-1.5}).loss;
}

#include <plumb/plumb.hpp>

#if defined(PLUMB_NO_EXCEPTIONS)
#error "this unit should be compiled with exceptions"
#endif

/// True when a mistake throws, and what it says is of plumb.
bool mistake_throws() {
  try {
    plumb::dpo(std::vector{-1.0, -2.0}, std::vector{-1.0}, std::vector{-1.0}, std::vector{-1.0});
  } catch (const plumb::precondition_error& e) {
    return e.what()[0] == 'p';
  }
  return false;
}

double loss_with_exceptions() {
  return plumb::dpo(std::vector{-1.0}, std::vector{-2.0}, std::vector{-1.0}, std::vector{-1.5}).loss;
}

// Units compiled with and without exceptions, in one program: each gets the errors of its own mode, and the same
// numbers.
#include <cstdio>

bool mistake_throws();
bool mistake_reaches_handler();
double loss_with_exceptions();
double loss_without_exceptions();

int main() {
  const bool good = mistake_throws() && mistake_reaches_handler() && mistake_throws() &&
                    loss_with_exceptions() == loss_without_exceptions() && loss_with_exceptions() > 0;
  if (!good) std::printf("wrong: units with and without exceptions do not live together\n");
  return good ? 0 : 1;
}

// Says whether my_chip is a backend, and where not. The exit status is the verdict.
#include "my_chip.hpp"

#include <plumb/testing/conformance.hpp>

int main() { return plumb::testing::run_conformance(my_chip::backend{}); }

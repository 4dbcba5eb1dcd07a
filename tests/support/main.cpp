// The main of every test program that is written with Catch2.

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#endif
#include "support/catch.hpp"

#include <cstdio>

namespace plumb_test {
namespace {
bool skipped = false;
}

void skip(const std::string& reason) {
  std::printf("skipped: %s\n", reason.c_str());
  skipped = true;
}

}  // namespace plumb_test

int main(int argc, char** argv) {
  // Catch2 counts failures, and would call four of them what it and tests/CMakeLists.txt call skipped.
  constexpr int failed = 1, skipped = 4;
  if (Catch::Session().run(argc, argv) != 0) return failed;
  return plumb_test::skipped ? skipped : 0;
}

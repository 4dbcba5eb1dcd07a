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
  const int failures = Catch::Session().run(argc, argv);
  return failures == 0 && plumb_test::skipped ? 4 : failures;  // 4: what Catch2 3 and tests/CMakeLists.txt call skipped
}

#pragma once
// Catch2, whichever is there (2.13 or 3), under the names of version 3: TEST_CASE, TEMPLATE_TEST_CASE, SECTION,
// GENERATE, Catch::Approx, Catch::Matchers::{WithinAbs, WithinRel, WithinULP, ContainsSubstring, StartsWith, EndsWith,
// Message}.

#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_approx.hpp>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <catch2/matchers/catch_matchers_all.hpp>
#else
#include <catch2/catch.hpp>
namespace Catch {
using Detail::Approx;
namespace Matchers {
inline auto ContainsSubstring(const std::string& text) { return Contains(text); }
}  // namespace Matchers
}  // namespace Catch
#endif

#include <string>

namespace plumb_test {

/// For a test that cannot run here: prints the reason, and the test counts as skipped unless something in it failed.
/// Return after the call.
void skip(const std::string& reason);

}  // namespace plumb_test

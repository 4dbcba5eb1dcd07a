#pragma once
// The conformance kit: says whether a backend is one, and where not. No test framework.
//
//   int main() { return plumb::testing::run_conformance(my_chip{}); }
//
// Levels: queue, memory, transform, reductions and segments, rows, backward, scan, gemm, the contract (guards, NaN, order, errors, scratch,
// determinism, allocations, capabilities), whole objectives. A level with a failure ends the climb, so that what is printed
// first is what to mend first. A backend whose memory is not the host's specialises `testing::memory` (testing/memory.hpp).

#include <plumb/testing/conformance/catalogue.hpp>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// The last lines: which check failed first, and how many did what.
inline void print_summary(const conformance_report& report, std::FILE* to = stdout) {
  for (const auto& c : report.checks) {
    if (c.outcome != check_result::failed) continue;
    std::fprintf(to, "mend first: %s: %s\n", c.name.c_str(), c.detail.c_str());
    if (c.level < 9) std::fprintf(to, "levels above %d are not climbed before that\n", c.level);
    break;
  }
  std::fprintf(to, "%d passed, %d failed, %d not run\n", report.count(check_result::passed), report.count(check_result::failed),
               report.count(check_result::not_run));
}

/// Climbs the levels, printing each check as it is done where `options.print` says so, and returns what happened at each.
template <class B>
conformance_report check_conformance(B& b, const conformance_options& options = {}) {
  static_assert(check_backend<B>());
  detail::catalogue_checks<B> checks(b, options);
  checks.run();
  return std::move(checks.report);
}

/// The same with a summary, and the exit status of a program: 0 where nothing failed.
template <class B>
int run_conformance(B&& b, const conformance_options& options = {}) {
  const conformance_report report = check_conformance(b, options);
  if (options.print) print_summary(report);
  return report.count(check_result::failed) == 0 ? 0 : 1;
}

}  // namespace testing

PLUMB_NAMESPACE_END

#include "golden/runner.hpp"

#include <cmath>
#include <cstdio>
#include <exception>
#include <set>

namespace golden {

double largest(const numbers& x) {
  double m = 0;
  for (double e : x)
    if (std::isfinite(e) && std::fabs(e) > m) m = std::fabs(e);
  return m;
}

void compare_array(const golden_case& c, outcome& o, const char* kind, const std::string& name, const numbers& ours,
                   const entering& terms, const allowance& allowed) {
  const std::string where = c.file + ": case `" + c.name + "`: `" + name + "`";
  const arrays& all = std::string(kind) == "outputs" ? c.outputs : c.gradients;
  const auto found = all.find(name);
  if (found == all.end()) c.fail("the array `" + name + "` of " + kind + " is missing");
  const numbers& want = found->second.data;
  if (terms.each.size() != 1 && terms.each.size() != want.size())
    c.fail("`" + name + "` has " + std::to_string(want.size()) + " numbers, but " + std::to_string(terms.each.size()) +
           " were computed");
  plumb::testing::expectation expected;
  outcome::compared array{kind, name, 0, 0};
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double term = terms.each[terms.each.size() == 1 ? 0 : i];
    if (!(std::isfinite(term) && term >= 0)) c.fail("what enters `" + name + "` is not finite");
    expected.push(want[i], std::isfinite(want[i]) ? std::fmax(std::fabs(want[i]), term) : term);
    if (std::fabs(want[i]) > std::fabs(want[array.largest])) array.largest = i;
  }
  if (!want.empty()) array.scale = expected.magnitude[array.largest];
  o.arrays.push_back(array);
  if (ours.size() != want.size()) {
    o.failures.push_back(where + " has " + std::to_string(want.size()) + " numbers, but ours has " +
                         std::to_string(ours.size()) + ".");
    return;
  }
  const plumb::testing::verdict v = plumb::testing::compare(ours, expected, allowed.relative, allowed.absolute);
  if (v.good()) return;
  char text[200];
  std::snprintf(text, sizeof text, " [%zu] is %.17g, but ours is %.17g: %.3g times what is allowed.", v.index, v.want,
                v.got, v.ratio);
  o.failures.push_back(where + text);
}

std::vector<mapping>& mappings() {
  static std::vector<mapping> all;
  return all;
}

const mapping* find_mapping(const golden_case& c) {
  for (const mapping& m : mappings())
    if (c.file == m.file && c.function == m.function && m.covers(c)) return &m;
  return nullptr;
}

outcome run_case(const mapping& m, backend_kind kind, const golden_case& c) {
  outcome o;
  try {
    m.run(kind, c, o);
  } catch (const bad_data& e) {
    o.failures.push_back(e.what());
    return o;
  } catch (const std::exception& e) {
    o.failures.push_back(c.file + ": case `" + c.name + "`: " + e.what());
    return o;
  }
  std::set<std::string> seen;
  for (const auto& a : o.arrays) seen.insert(a.name);
  for (const auto& [name, reason] : o.left_out) {
    seen.insert(name);
    if (c.outputs.count(name) + c.gradients.count(name) == 0)
      o.failures.push_back(c.file + ": case `" + c.name + "`: `" + name + "` is left out, but the case has none.");
  }
  for (const arrays* all : {&c.outputs, &c.gradients})
    for (const auto& [name, array] : *all)
      if (seen.count(name) == 0)
        o.failures.push_back(c.file + ": case `" + c.name + "`: `" + name +
                             "` is neither compared nor left out with a reason.");
  return o;
}

}  // namespace golden

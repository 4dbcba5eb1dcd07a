// Compares plumb with the golden numbers of other implementations.
//
//   plumb_golden [--backend serial|xtensor|onednn] [--self-test]
//
// Without --backend: serial and xtensor, where it is built, and the self-test. The files come from the folder named by the environment
// variable PLUMB_GOLDEN_DIR, else from golden/data of the tests. With --self-test: only that. 0 if nothing failed.
#include "golden/runner.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <set>

namespace {

using namespace golden;

struct whole {
  std::size_t files = 0, cases = 0;
  std::vector<std::pair<golden_case, const mapping*>> mapped;
  std::vector<golden_case> not_covered;
  int bad_files = 0;
};

whole read_all(const std::filesystem::path& folder) {
  whole w;
  for (const auto& path : files_of(folder)) {
    ++w.files;
    try {
      for (golden_case& c : read_file(path)) {
        ++w.cases;
        if (const mapping* m = find_mapping(c)) {
          w.mapped.emplace_back(std::move(c), m);
        } else {
          w.not_covered.push_back(std::move(c));
        }
      }
    } catch (const bad_data& e) {
      std::printf("FAILED %s\n", e.what());
      ++w.bad_files;
    }
  }
  return w;
}

// Words after `head`, in lines of at most 120 columns.
void print_wrapped(const std::string& head, const std::vector<std::string>& words) {
  std::string line = head;
  for (const std::string& word : words) {
    if (line.size() + 1 + word.size() > 120) {
      std::printf("%s\n", line.c_str());
      line = "     ";
    }
    line += " " + word;
  }
  std::printf("%s\n", line.c_str());
}

void print_not_covered(const std::vector<golden_case>& cases) {
  std::printf("\nNot covered yet: %zu cases.\n", cases.size());
  std::map<std::string, std::vector<std::string>> groups;
  for (const golden_case& c : cases) groups["  " + c.file + ", " + c.function + ":"].push_back(c.name);
  for (const auto& [head, names] : groups) print_wrapped(head, names);
}

// Reason to "file, case:" to names.
using left_out_arrays = std::map<std::string, std::map<std::string, std::set<std::string>>>;

std::size_t print_left_out(const left_out_arrays& all) {
  std::size_t count = 0;
  std::printf("\nLeft out of mapped cases, neither computed nor compared:\n");
  for (const auto& [reason, cases] : all) {
    std::printf("  Because it is %s:\n", reason.c_str());
    for (const auto& [head, names] : cases) {
      print_wrapped("    " + head, {names.begin(), names.end()});
      count += names.size();
    }
  }
  std::printf("  %zu arrays.\n", count);
  return count;
}

int run(const whole& w, const backend_choice& backend, left_out_arrays& left_out) {
  std::size_t arrays = 0, passed = 0, unseen = 0;
  int failed = 0;
  for (const auto& [c, m] : w.mapped) {
    const outcome o = run_case(*m, backend.kind, c);
    arrays += o.arrays.size();
    for (const std::string& sentence : o.failures) std::printf("FAILED %s\n", sentence.c_str());
    if (o.failures.empty()) {
      ++passed;
    } else {
      ++failed;
    }
    for (const auto& [name, reason] : o.left_out) left_out[reason][c.file + ", " + c.name + ":"].insert(name);
    unseen += o.left_out.size();
  }
  std::printf("%s: %zu cases mapped, %zu passed, %d failed; %zu arrays compared, %zu left out; tolerance %g.\n",
              backend.description, w.mapped.size(), passed, failed, arrays, unseen, backend.tolerance);
  return failed;
}

int usage(const std::string& problem) {
  std::printf("plumb_golden: %s. Usage: plumb_golden [--backend serial|xtensor|onednn] [--self-test]\n",
              problem.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<backend_choice> chosen;
  bool only_self_test = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--self-test") {
      only_self_test = true;
    } else if (argument == "--backend" && i + 1 < argc) {
      const std::string name = argv[++i];
      for (const auto& b : backends)
        if (name == b.name) chosen.push_back(b);
      if (chosen.empty()) return usage("there is no backend " + name);
      if (!chosen.back().built) return usage("the backend " + name + " is not built here");
    } else {
      return usage("unexpected argument " + argument);
    }
  }
  const std::vector<backend_choice> only_backends = chosen;
  if (chosen.empty())
    for (const auto& b : backends)
      if (b.built && b.kind != backend_kind::onednn) chosen.push_back(b);

  const char* named = std::getenv("PLUMB_GOLDEN_DIR");
  const std::filesystem::path folder = named != nullptr ? named : PLUMB_SOURCE_DIR "/tests/golden/data";
  try {
    if (only_self_test) return self_test(folder) == 0 ? 0 : 1;
    const whole w = read_all(folder);
    std::printf("%zu golden files, %zu cases: %zu mapped, %zu not covered yet.\n", w.files, w.cases, w.mapped.size(),
                w.not_covered.size());
    int failed = w.bad_files;
    left_out_arrays left_out;
    for (const auto& backend : chosen) failed += run(w, backend, left_out);
    const std::size_t unseen = print_left_out(left_out);
    print_not_covered(w.not_covered);
    if (w.mapped.empty()) {
      std::printf("FAILED %s: no case of this folder is mapped.\n", folder.string().c_str());
      ++failed;
    }
    std::printf("\n");
    if (failed == 0 && only_backends.empty()) failed += self_test(folder);
    std::printf("%s %zu arrays of mapped cases are left out and %zu cases are not covered yet: both are named above.\n",
                failed == 0 ? "All that is compared passed." : "There are failures.", unseen, w.not_covered.size());
    return failed == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    std::printf("FAILED %s\n", e.what());
    return 1;
  }
}

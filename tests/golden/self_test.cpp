// Would the runner notice? Each case, alone in a file, with one number changed, must fail by the array that holds it;
// malformed files must be refused with a sentence.
#include "golden/runner.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <random>

namespace golden {

using nlohmann::json;

namespace {

// A folder of its own, removed at the end.
struct temporary_folder {
  std::filesystem::path path;
  temporary_folder() {
    std::random_device source;
    path = std::filesystem::temp_directory_path() /
           ("plumb_golden_" + std::to_string(source()) + std::to_string(source()));
    std::filesystem::create_directories(path);
  }
  ~temporary_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;

  std::filesystem::path write(const std::string& stem, const std::string& text) const {
    const std::filesystem::path file = path / (stem + ".json");
    std::ofstream(file) << text;
    return file;
  }
};

json parsed(const std::filesystem::path& path) {
  std::ifstream in(path);
  return json::parse(in, nullptr, false);
}

// Names of the cases that fail, with their sentences.
std::map<std::string, std::vector<std::string>> failing_cases(const std::filesystem::path& path) {
  std::map<std::string, std::vector<std::string>> failing;
  for (const golden_case& c : read_file(path))
    if (const mapping* m = find_mapping(c)) {
      outcome o = run_case(*m, backend_kind::serial, c);
      if (!o.failures.empty()) failing[c.name] = std::move(o.failures);
    }
  return failing;
}

struct counts {
  int changed = 0, enlarged = 0, missed = 0;
};

// Writes the file of this case with one number changed, and expects this array to fail.
void expect_noticed(const temporary_folder& folder, const json& alone, const golden_case& c, const outcome::compared& array,
                    const json& number, counts& n) {
  json copy = alone;
  copy["cases"][0][array.kind][array.name]["data"][array.largest] = number;
  const auto failing = failing_cases(folder.write(c.file, copy.dump()));
  ++n.changed;
  const bool named = failing.size() == 1 && failing.begin()->first == c.name && failing.begin()->second.size() == 1 &&
                     failing.begin()->second[0].find("`" + array.name + "`") != std::string::npos;
  if (named) return;
  ++n.missed;
  std::printf(
      "FAILED self-test: %s: case `%s`: `%s` [%zu] was changed to %s, but the case %s.\n", c.file.c_str(), c.name.c_str(),
      array.name.c_str(), array.largest, number.dump().c_str(), failing.empty() ? "passed" : "failed otherwise, too");
}

const array& golden_of(const golden_case& c, const outcome::compared& compared) {
  return (compared.kind == "outputs" ? c.outputs : c.gradients).at(compared.name);
}

// Which arrays are compared too loosely to mean much: their largest number may change by a hundredth within the tolerance.
struct loose_arrays {
  std::vector<std::string> in_double, in_float;  ///< "file, case, array"; what oneDNN's float allows, from the tolerances alone
  void look_at(const golden_case& c, const outcome::compared& compared) {
    const array& golden_array = golden_of(c, compared);
    if (golden_array.dtype != "float64" || golden_array.data.empty()) return;
    const double hundredth = 1e-2 * std::fabs(golden_array.data[compared.largest]);
    if (!(hundredth > 0 && std::isfinite(hundredth))) return;
    const auto passes = [&](const allowance& a) { return hundredth <= a.relative * compared.scale + a.absolute; };
    const std::string name = c.file + ", " + c.name + ", " + compared.name;
    if (passes(allowed<double>)) in_double.push_back(name);
    if (passes(allowed<float>)) in_float.push_back(name);
  }
};

// In double these and no others, and why: each is the small rest of large numbers, whose rounding is all that it could be compared by.
struct small_rest {
  const char *name, *reason;
};
constexpr small_rest small_rests[] = {
    {"openrlhf_kl, k2_extreme, d_kl/d_log_probs", "but for zeros, the difference of -2 and -2.000000001"},
    {"openrlhf_kl, k3_extreme, d_kl/d_log_probs", "but for zeros, the difference of -2 and -2.000000001"},
    {"trl_grpo_loss, cispo_extreme, loss", "what rounding leaves of losses up to 12 that come with both signs"},
    {"trl_reward_bt, extreme, margin_mean", "a margin of 2e-9 beside others of 1400 that cancel"},
    {"verl_kl, k3_extreme, d_kl/d_logprob", "but for zeros, the difference of -2 and -2.000000001"},
    {"verl_kl, low_var_kl_extreme, d_kl/d_logprob", "but for zeros, the difference of -2 and -2.000000001"},
    {"whitening_verl, whiten_constant, whitened", "1.5 less a mean that divides by 8 + 1e-8, times 1e4"},
};

// Sentences or names, each on a line of its own.
void print_lines(const char* head, const std::vector<std::string>& lines) {
  std::printf("%s\n", head);
  for (const std::string& line : lines) std::printf("    %s\n", line.c_str());
}

// Returns the number of those without a reason; of other folders than the library's own, none is expected to be known.
int report(const loose_arrays& loose, bool own_folder) {
  std::vector<std::string> known, unknown;
  for (const std::string& name : loose.in_double) {
    const char* reason = nullptr;
    for (const small_rest& rest : small_rests)
      if (own_folder && name == rest.name) reason = rest.reason;
    if (reason != nullptr) {
      known.push_back(name + ": " + reason + ".");
    } else {
      unknown.push_back(name);
    }
  }
  std::printf("Arrays whose largest number may change by 1 %% unnoticed: %zu in double, %zu in float (from its tolerance).\n",
              loose.in_double.size(), loose.in_float.size());
  if (!known.empty()) print_lines("  In double, the small rest of large numbers:", known);
  if (!unknown.empty()) print_lines(own_folder ? "FAILED self-test: in double, without a reason:" : "  In double:", unknown);
  std::vector<std::string> only_float;
  for (const std::string& name : loose.in_float)
    if (std::find(loose.in_double.begin(), loose.in_double.end(), name) == loose.in_double.end()) only_float.push_back(name);
  if (!only_float.empty()) print_lines("  In float alone:", only_float);
  return own_folder ? static_cast<int>(unknown.size()) : 0;
}

// The largest number of the array, off by 1e-6 of itself; where that is within the tolerance, because larger numbers
// entered, by 1e-6 of those. Integers are off by one.
json perturbed(const golden_case& c, const outcome::compared& array, counts& n) {
  const golden::array& golden_array = golden_of(c, array);
  const double x = golden_array.data[array.largest];
  if (golden_array.dtype != "float64") return static_cast<std::int64_t>(x) + 1;
  if (std::fabs(x) > 1e-3 * array.scale) return x + 1e-6 * x;
  ++n.enlarged;
  return x + 1e-6 * (array.scale > 0 ? array.scale : 1);
}

void perturb_every_array(const temporary_folder& folder, const std::filesystem::path& path, counts& n, loose_arrays& loose) {
  const json whole = parsed(path);
  json alone = whole;  // a file of one case: the others would only take time
  std::size_t position = 0;
  for (const golden_case& c : read_file(path)) {
    alone["cases"] = json::array({whole["cases"][position++]});
    if (find_mapping(c) == nullptr) continue;
    const outcome o = run_case(*find_mapping(c), backend_kind::serial, c);
    for (const outcome::compared& array : o.arrays) loose.look_at(c, array);
    for (const outcome::compared& array : o.arrays)
      if (!golden_of(c, array).data.empty())  // of no replies with a label, say
        expect_noticed(folder, alone, c, array, perturbed(c, array, n), n);
    // Not a number is never near one.
    for (const outcome::compared& array : o.arrays)
      if (golden_of(c, array).dtype == "float64") {
        expect_noticed(folder, alone, c, array, "nan", n);
        break;
      }
  }
}

// One way to spoil a file, and what the sentence has to name.
struct damage {
  const char* what;
  std::function<void(json& whole, json& first)> apply;
  std::vector<std::string> names;
};

// The sentences that reading and running the file give.
std::string sentences(const std::filesystem::path& path) {
  std::string all;
  try {
    for (const auto& [name, failures] : failing_cases(path))
      for (const std::string& f : failures) all += f + "\n";
  } catch (const bad_data& e) {
    all = e.what();
  }
  return all;
}

void expect_sentence(const char* what, const std::string& sentence, const std::vector<std::string>& names, counts& n) {
  ++n.changed;
  bool good = !sentence.empty();
  for (const std::string& name : names) good = good && sentence.find(name) != std::string::npos;
  if (good) return;
  ++n.missed;
  std::printf("FAILED self-test: a file with %s gives: %s\n", what, sentence.empty() ? "nothing" : sentence.c_str());
}

// The file is made here, so that what is spoilt is known.
constexpr const char* small_file = R"({"schema": "golden/1", "cases": [
  {"name": "plain", "function": "log_probs_from_logits", "options": {"temperature": 1.0},
   "inputs": {"logits": {"shape": [1, 2, 2], "dtype": "float64", "data": [0.0, 0.0, 0.0, 0.0]},
              "labels": {"shape": [1, 2], "dtype": "int64", "data": [0, 1]},
              "cot_logps": {"shape": [1, 2], "dtype": "float64", "data": [1.0, 2.0]}},
   "outputs": {"logps": {"shape": [1, 2], "dtype": "float64", "data": [-0.6931471805599453, -0.6931471805599453]}},
   "gradients": {"d_logps/d_logits": {"shape": [1, 2, 2], "dtype": "float64", "data": [0.5, -0.5, -1.0, 1.0]}}}]})";
constexpr const char* small_name = "openrlhf_logprobs";

void damage_a_file(const temporary_folder& folder, counts& n) {
  const std::string file = small_name, plain = "`plain`";
  const std::vector<damage> damages{
      {"another schema", [](json& whole, json&) { whole["schema"] = "golden/2"; }, {file, "schema"}},
      {"no cases", [](json& whole, json&) { whole.erase("cases"); }, {file, "`cases`", "missing"}},
      {"an empty list of cases", [](json& whole, json&) { whole["cases"] = json::array(); }, {file, "no case"}},
      {"a case that is a number", [](json& whole, json&) { whole["cases"][0] = 7; }, {file, "case 0"}},
      {"no name", [](json&, json& c) { c.erase("name"); }, {file, "case 0", "`name`"}},
      {"no outputs", [](json&, json& c) { c.erase("outputs"); }, {file, plain, "`outputs`", "missing"}},
      {"inputs that are a list", [](json&, json& c) { c["inputs"] = json::array(); }, {file, plain, "`inputs`"}},
      {"an input that is missing",
       [](json&, json& c) { c["inputs"].erase("labels"); },
       {file, plain, "`labels`", "missing"}},
      {"an option that is text",
       [](json&, json& c) { c["options"]["temperature"] = "hot"; },
       {file, plain, "`temperature`"}},
      {"an option out of range",
       [](json&, json& c) { c["options"]["temperature"] = -1; },
       {file, plain, "`temperature`"}},
      {"too few entries",
       [](json&, json& c) { c["inputs"]["logits"]["data"].erase(0); },
       {file, plain, "`logits`", "3 entries"}},
      {"an input of another shape",
       [](json&, json& c) {
         c["inputs"]["labels"]["shape"] = {2, 1};
       },
       {file, plain, "`labels`", "[2, 1]"}},
      {"an input of rank 1", [](json&, json& c) { c["inputs"]["logits"]["shape"] = {4}; }, {file, plain, "[4]"}},
      {"an extent that is negative",
       [](json&, json& c) { c["inputs"]["logits"]["shape"][0] = -1; },
       {file, plain, "`shape`"}},
      {"an entry that is text",
       [](json&, json& c) { c["inputs"]["logits"]["data"][0] = "x"; },
       {file, plain, "`logits`"}},
      {"a label that is no integer",
       [](json&, json& c) { c["inputs"]["labels"]["data"][0] = 0.5; },
       {file, plain, "`labels`"}},
      {"a label beyond the vocabulary",
       [](json&, json& c) { c["inputs"]["labels"]["data"][0] = 2; },
       {file, plain, "targets"}},
      {"an unknown dtype", [](json&, json& c) { c["inputs"]["logits"]["dtype"] = "float8"; }, {file, plain, "float8"}},
      {"a gradient of another shape",
       [](json&, json& c) {
         c["gradients"]["d_logps/d_logits"]["shape"] = {2, 2};
       },
       {file, plain, "`d_logps/d_logits`", "[2, 2]"}},
      {"no gradient", [](json&, json& c) { c["gradients"].clear(); }, {file, plain, "`d_logps/d_logits`", "missing"}},
      {"an output that nothing computes",
       [](json&, json& c) { c["outputs"]["perplexity"] = c["outputs"]["logps"]; },
       {file, plain, "`perplexity`", "neither"}},
      {"an output with an entry more",
       [](json&, json& c) {
         c["outputs"]["logps"]["shape"] = {3};
         c["outputs"]["logps"]["data"].push_back(0.0);
       },
       {file, plain, "`logps`", "3 numbers"}},
  };
  const json whole = json::parse(small_file);
  const std::string intact = sentences(folder.write(small_name, whole.dump()));
  if (!intact.empty()) {
    ++n.missed;
    std::printf("FAILED self-test: an intact file gives: %s\n", intact.c_str());
  }
  for (const damage& d : damages) {
    json copy = whole;
    d.apply(copy, copy["cases"][0]);
    expect_sentence(d.what, sentences(folder.write(small_name, copy.dump())), d.names, n);
  }
  const std::string text = whole.dump();
  expect_sentence("half of its text", sentences(folder.write(small_name, text.substr(0, text.size() / 2))), {file}, n);
  expect_sentence("nothing in it", sentences(folder.write(small_name, "")), {file}, n);

  const auto listing = [](const std::filesystem::path& path) -> std::string {
    try {
      files_of(path);
    } catch (const bad_data& e) {
      return e.what();
    }
    return "";
  };
  const std::filesystem::path missing = folder.path / "missing", empty = folder.path / "empty";
  std::filesystem::create_directory(empty);
  expect_sentence("no folder", listing(missing), {missing.string()}, n);
  expect_sentence("an empty folder", listing(empty), {empty.string()}, n);
}

}  // namespace

int self_test(const std::filesystem::path& data) {
  const temporary_folder folder;
  counts numbers_changed, files_damaged;
  loose_arrays loose;
  for (const auto& path : files_of(data)) perturb_every_array(folder, path, numbers_changed, loose);
  damage_a_file(folder, files_damaged);
  std::printf(
      "Self-test on serial: %d numbers changed, each in turn, %d not noticed (by 1e-6 of itself or to NaN; %d of them "
      "by 1e-6 of\n"
      "what entered, beside which the number is small); %d files damaged, %d without a right sentence.\n",
      numbers_changed.changed, numbers_changed.missed, numbers_changed.enlarged, files_damaged.changed,
      files_damaged.missed);
  std::error_code no_such_folder;
  const int too_loose = report(loose, std::filesystem::equivalent(data, PLUMB_SOURCE_DIR "/tests/golden/data", no_such_folder));
  const bool something = numbers_changed.changed > 0;
  if (!something) std::printf("FAILED self-test: no number could be changed, because no case is mapped.\n");
  return numbers_changed.missed + files_damaged.missed + too_loose + (something ? 0 : 1);
}

}  // namespace golden

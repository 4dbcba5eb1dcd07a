#include "golden/cases.hpp"

#include <algorithm>
#include <fstream>
#include <limits>

namespace golden {

using nlohmann::json;

namespace {

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string s = "[";
  for (std::size_t e : shape) s += (s.size() > 1 ? ", " : "") + (e == 0 ? std::string("any") : std::to_string(e));
  return s + "]";
}

[[noreturn]] void refuse(const std::string& where, const std::string& problem) {
  throw bad_data(where + ": " + problem + ".");
}

// `object[key]`, which must be there and of the wanted kind.
const json& field(const std::string& where, const json& object, const char* key, bool (json::*is)() const noexcept,
                  const char* kind) {
  const auto found = object.find(key);
  if (found == object.end()) refuse(where, "the field `" + std::string(key) + "` is missing");
  if (!((*found).*is)()) refuse(where, "the field `" + std::string(key) + "` is not " + kind);
  return *found;
}
std::string text_field(const std::string& where, const json& object, const char* key) {
  return field(where, object, key, &json::is_string, "a string").get<std::string>();
}

double read_number(const std::string& where, const json& x) {
  if (x.is_number()) return x.get<double>();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (x == "inf") return infinity;
  if (x == "-inf") return -infinity;
  if (x == "nan") return std::numeric_limits<double>::quiet_NaN();
  refuse(where, "an entry is " + x.dump() + ", neither a number nor \"nan\", \"inf\" or \"-inf\"");
}

array read_array(const std::string& where, const json& object) {
  if (!object.is_object()) refuse(where, "it is not an array object");
  array a;
  std::size_t count = 1;
  for (const json& e : field(where, object, "shape", &json::is_array, "a list")) {
    if (!e.is_number_unsigned()) refuse(where, "an extent of `shape` is " + e.dump());
    a.shape.push_back(e.get<std::size_t>());
    if (a.shape.back() > 1000000 || count > 1000000) refuse(where, "its shape is too large for a golden array");
    count *= a.shape.back();
  }
  a.dtype = text_field(where, object, "dtype");
  if (a.dtype != "float64" && a.dtype != "int64" && a.dtype != "bool") refuse(where, "its dtype is " + a.dtype);
  for (const json& x : field(where, object, "data", &json::is_array, "a list")) {
    if (a.dtype != "float64" && !x.is_number_integer())
      refuse(where, "an entry of dtype " + a.dtype + " is " + x.dump());
    a.data.push_back(read_number(where, x));
  }
  if (a.data.size() != count)
    refuse(where, "it has " + std::to_string(a.data.size()) + " entries, but its shape is " + shape_text(a.shape));
  return a;
}

arrays read_arrays(const std::string& where, const json& object, const char* kind) {
  arrays all;
  for (const auto& [name, value] : field(where, object, kind, &json::is_object, "an object").items())
    all[name] = read_array(where + ": `" + name + "` of " + kind, value);
  return all;
}

// `d_<output>/d_<x>` has the shape of `x`, an input or else an output.
void check_gradients(const std::string& where, const golden_case& c) {
  for (const auto& [name, gradient] : c.gradients) {
    const std::size_t slash = name.find("/d_");
    if (name.rfind("d_", 0) != 0 || slash == std::string::npos) refuse(where, "no gradient is called `" + name + "`");
    const std::string x = name.substr(slash + 3);
    if (c.outputs.count(name.substr(2, slash - 2)) == 0) refuse(where, "`" + name + "` is the gradient of no output");
    const arrays& owner = c.has_input(x) ? c.inputs : c.outputs;
    const auto found = owner.find(x);
    if (found == owner.end()) refuse(where, "`" + name + "` is a gradient by neither an input nor an output");
    if (found->second.shape != gradient.shape)
      refuse(where, "`" + name + "` has shape " + shape_text(gradient.shape) + ", but `" + x + "` has shape " +
                        shape_text(found->second.shape));
  }
}

}  // namespace

void golden_case::fail(const std::string& problem) const { refuse(file + ": case `" + name + "`", problem); }

const array& golden_case::input(const std::string& key, const std::vector<std::size_t>& shape) const {
  const auto found = inputs.find(key);
  if (found == inputs.end()) fail("the input `" + key + "` is missing");
  const std::vector<std::size_t>& has = found->second.shape;
  bool good = has.size() == shape.size();
  for (std::size_t d = 0; good && d < shape.size(); ++d) good = has[d] > 0 && (shape[d] == 0 || shape[d] == has[d]);
  if (!good) fail("the input `" + key + "` has shape " + shape_text(has) + " instead of " + shape_text(shape));
  return found->second;
}

const json& golden_case::option(const std::string& key) const {
  if (!is_set(key)) fail("the option `" + key + "` is missing");
  return options.at(key);
}
bool golden_case::is_set(const std::string& key) const {
  const auto found = options.find(key);
  return found != options.end() && !found->is_null();
}
double golden_case::number(const std::string& key) const {
  const json& value = option(key);
  if (!value.is_number()) fail("the option `" + key + "` is " + value.dump() + ", not a number");
  return value.get<double>();
}
bool golden_case::flag(const std::string& key, bool otherwise) const {
  if (!is_set(key)) return otherwise;
  const json& value = option(key);
  if (!value.is_boolean()) fail("the option `" + key + "` is " + value.dump() + ", neither true nor false");
  return value.get<bool>();
}
std::string golden_case::text(const std::string& key) const {
  const json& value = option(key);
  if (!value.is_string()) fail("the option `" + key + "` is " + value.dump() + ", not a string");
  return value.get<std::string>();
}

std::vector<golden_case> read_file(const std::filesystem::path& path) {
  const std::string stem = path.stem().string();
  std::ifstream in(path);
  if (!in) refuse(path.string(), "the file cannot be opened");
  const json whole = json::parse(in, nullptr, false);
  if (whole.is_discarded() || !whole.is_object()) refuse(stem, "the file is not a JSON object");
  if (text_field(stem, whole, "schema") != "golden/1") refuse(stem, "its schema is not golden/1");
  std::vector<golden_case> cases;
  for (const json& object : field(stem, whole, "cases", &json::is_array, "a list")) {
    const std::string position = stem + ": case " + std::to_string(cases.size());
    if (!object.is_object()) refuse(position, "it is not an object");
    golden_case c;
    c.file = stem;
    c.name = text_field(position, object, "name");
    const std::string where = stem + ": case `" + c.name + "`";
    c.function = text_field(where, object, "function");
    c.options = field(where, object, "options", &json::is_object, "an object");
    c.inputs = read_arrays(where, object, "inputs");
    c.outputs = read_arrays(where, object, "outputs");
    c.gradients = read_arrays(where, object, "gradients");
    check_gradients(where, c);
    cases.push_back(std::move(c));
  }
  if (cases.empty()) refuse(stem, "the file holds no case");
  return cases;
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  std::filesystem::directory_iterator entries(folder, error);
  if (error) refuse(folder.string(), "the folder of golden files cannot be read (" + error.message() + ")");
  for (const auto& entry : entries)
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  if (files.empty()) refuse(folder.string(), "the folder holds no golden file (*.json)");
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace golden

#pragma once
// The golden files as values: see data/README.md for the format. Reading refuses, in one sentence, what does not keep
// to it.

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace golden {

/// A file or a case that cannot be used; `what()` is one sentence that names both.
struct bad_data : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Row-major.
struct array {
  std::vector<std::size_t> shape;
  std::string dtype;  ///< float64, int64 or bool
  std::vector<double> data;
};
using arrays = std::map<std::string, array>;

/// What a file says that its peer's `function` gave for `inputs` under `options`.
struct golden_case {
  std::string file, name, function;  ///< `file` without its extension
  nlohmann::json options;
  arrays inputs, outputs, gradients;

  [[noreturn]] void fail(const std::string& problem) const;
  /// The input, whose shape must be `shape`; extents of 0 in `shape` are free.
  const array& input(const std::string& key, const std::vector<std::size_t>& shape) const;
  bool has_input(const std::string& key) const { return inputs.count(key) > 0; }
  /// Options that are absent or null are not set.
  bool is_set(const std::string& option) const;
  double number(const std::string& option) const;
  double number(const std::string& option, double otherwise) const {
    return is_set(option) ? number(option) : otherwise;
  }
  bool flag(const std::string& option, bool otherwise) const;
  std::string text(const std::string& option) const;

 private:
  const nlohmann::json& option(const std::string& key) const;
};

/// Throws `bad_data`.
std::vector<golden_case> read_file(const std::filesystem::path& path);

/// The golden files of a folder, sorted. Throws `bad_data` where there is none.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder);

}  // namespace golden

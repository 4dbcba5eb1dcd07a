#pragma once
// The programs of this folder: each reads its flags and runs.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace claims {

/// A flag that is not understood.
struct wrong_flag : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

extern const char* const drpo_usage;
void run_drpo(int count, char** words);
extern const char* const rain_usage;
void run_rain(int count, char** words);
extern const char* const steerlm_usage;
void run_steerlm(int count, char** words);

/// What a program does where its flags do not say otherwise.
struct defaults {
  const char* name = "";  ///< of `./dev demo <name>` and of out/<name>
  int seeds = 0, quick_seeds = 0;
  std::uint64_t first_seed = 0;
};
struct flags {
  int seeds = 0, threads = 0;
  std::uint64_t first_seed = 0;
  bool quick = false, fresh = false;
  std::filesystem::path out{};

  std::vector<std::uint64_t> all_seeds() const {
    std::vector<std::uint64_t> all;
    for (int s = 0; s < seeds; ++s) all.push_back(first_seed + static_cast<std::uint64_t>(s));
    return all;
  }
  /// The command that makes the same figures.
  std::string command(const defaults& d) const {
    std::string text = std::string("./dev demo ") + d.name;
    if (quick) text += " --quick";
    if (seeds != (quick ? d.quick_seeds : d.seeds)) text += " --seeds " + std::to_string(seeds);
    if (first_seed != d.first_seed) text += " --first-seed " + std::to_string(first_seed);
    return text;
  }
};

inline flags parse(int count, char** words, const defaults& d) {
  flags f;
  f.first_seed = d.first_seed;
  for (int i = 0; i < count; ++i) {
    const std::string flag = words[i];
    const auto value = [&] {
      if (i + 1 >= count || std::string(words[i + 1]).rfind("--", 0) == 0) throw wrong_flag(flag + " wants a value");
      return std::string(words[++i]);
    };
    const auto whole = [&](std::uint64_t least, std::uint64_t most) {
      const std::string text = value();
      const bool digits = !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
      if (!digits || std::stoull(text) < least || std::stoull(text) > most)
        throw wrong_flag(flag + " wants a number from " + std::to_string(least) + " to " + std::to_string(most) + ", not \"" + text + "\"");
      return std::stoull(text);
    };
    if (flag == "--quick") {
      f.quick = true;
    } else if (flag == "--fresh") {
      f.fresh = true;
    } else if (flag == "--seeds") {
      f.seeds = static_cast<int>(whole(1, 1000));
    } else if (flag == "--first-seed") {
      f.first_seed = whole(0, 999999999);
    } else if (flag == "--threads") {
      f.threads = static_cast<int>(whole(1, 256));
    } else if (flag == "--out") {
      f.out = value();
      if (f.out.empty()) throw wrong_flag("--out wants a folder");
    } else {
      throw wrong_flag("unknown flag \"" + flag + "\"");
    }
  }
  if (f.seeds == 0) f.seeds = f.quick ? d.quick_seeds : d.seeds;
  if (f.threads == 0) f.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 16);
  if (f.out.empty()) f.out = std::filesystem::path("out") / (std::string(d.name) + (f.quick ? "-quick" : ""));
  return f;
}

}  // namespace claims

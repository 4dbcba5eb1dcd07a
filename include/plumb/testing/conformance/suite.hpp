#pragma once
// The machinery of the conformance kit: checks that climb from level to level, their records, and how arrays are compared.

#include <plumb/compute/backend.hpp>
#include <plumb/testing/compare.hpp>
#include <plumb/testing/memory.hpp>

#include <cstdio>
#include <string>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// Levels, in the order in which an author climbs them. A level that fails ends the climb.
inline constexpr const char* level_names[] = {"queue",    "memory", "transform", "reductions and segments", "rows",
                                              "backward", "scan",   "gemm",      "contract",                "objectives"};

/// What `run_conformance` is told.
struct conformance_options {
  int level = 9;           ///< the last one to climb
  std::uint64_t seed = 1;  ///< of the random inputs
  /// How many allocations the program has made so far (of host memory, or of the device): lets the kit check that repeated calls make none.
  long long (*allocations)() = nullptr;
  long long allocations_allowed = 0;  ///< per call: what the library below makes by itself
  /// Sets the number of threads: lets the kit check that results do not depend on it, where the backend declares so.
  void (*set_threads)(int) = nullptr;
  bool print = true;
};

/// What became of one check.
struct check_result {
  enum verdict { passed, failed, not_run };
  int level = 0;
  std::string name{};
  verdict outcome = passed;
  double worst = 0;      ///< largest error, in units of what is allowed
  std::string detail{};  ///< what went wrong, or why the check did not run
};

/// What became of all checks, in the order in which they ran.
struct conformance_report {
  std::vector<check_result> checks{};

  int count(check_result::verdict v) const {
    int n = 0;
    for (const auto& c : checks) n += c.outcome == v;
    return n;
  }
  /// Names of failed checks.
  std::vector<std::string> failures() const {
    std::vector<std::string> names;
    for (const auto& c : checks)
      if (c.outcome == check_result::failed) names.push_back(c.name);
    return names;
  }
};

namespace detail {

inline std::string shape_text(const index_t* extents, int rank) {
  std::string text = "[";
  for (int d = 0; d < rank; ++d) text += (d > 0 ? ", " : "") + std::to_string(extents[d]);
  return text += "]";
}
inline std::string number_text(double x) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", x);
  return math::is_nan(x) ? "nan" : text;  // whatever its sign
}
inline const char* placement_name(placement p) {
  constexpr const char* names[] = {"dense", "padded", "strided", "transposed", "reversed"};
  return names[static_cast<int>(p)];
}

/// What all checks share. `Checks` (a class derived from it) writes checks as `check(level, name, body)`.
template <class B>
class suite {
 public:
  using real = real_of<B>;
  using space = space_of<B>;
  template <class T, int R>
  using array = placed<T, R, space>;
  static_assert(std::is_same_v<real, float> || std::is_same_v<real, double>, "plumb: the conformance kit knows float and double");

  suite(B& b, const conformance_options& options) : b_(b), options_(options), scratch_memory_(scratch_bytes) {
    scratch_memory_.fill(0);
  }

  conformance_report report{};

 protected:
  /// Runs `body` and records what its expectations say; not where an earlier level failed.
  template <class F>
  void check(int level, const char* name, const F& body) {
    if (level > options_.level || (replaying_ && level != replayed_level_ && replayed_level_ >= 0)) return;
    check_result before = std::exchange(now_, {.level = level, .name = name});
    context_.clear();
    if (options_.print && !replaying_ && level <= reached_) {  // before it runs: the last name printed is where a crash was
      if (report.checks.empty() || report.checks.back().level != level) std::printf("level %d: %s\n", level, level_names[level]);
      std::printf("  %-28s ", name);
      std::fflush(stdout);
    }
    if (level > reached_) {
      now_.outcome = check_result::not_run;
      now_.detail = "an earlier level has failed";
    } else {
#if defined(PLUMB_NO_EXCEPTIONS)
      body();
#else
      try {
        body();
      } catch (const std::exception& e) {
        fail_check(std::string("threw: ") + e.what());
      }
#endif
    }
    if (replaying_) {
      if (now_.outcome == check_result::failed && replay_failure_.empty()) replay_failure_ = now_.name + ": " + now_.detail;
      now_ = before;
      return;
    }
    if (now_.outcome == check_result::failed) failed_level_ = level;
    report.checks.push_back(now_);
    if (options_.print && level <= reached_) print_outcome(now_);
  }
  static void print_outcome(const check_result& c) {
    if (c.outcome != check_result::passed) {
      std::printf("%s %s\n", c.outcome == check_result::failed ? "FAILED  " : "not run ", c.detail.c_str());
    } else if (c.worst > 0) {
      std::printf("ok       worst error %.3g of what is allowed\n", c.worst);
    } else {
      std::printf("ok\n");
    }
  }
  /// Ends a level: what follows is not climbed where this one has failed.
  void level_done() {
    if (!replaying_ && failed_level_ >= 0) reached_ = failed_level_;
  }
  void not_run(std::string why) {
    now_.outcome = check_result::not_run;
    now_.detail = std::move(why);
  }
  void fail_check(std::string why) {
    if (now_.outcome == check_result::failed) return;
    now_.outcome = check_result::failed;
    now_.worst = std::numeric_limits<double>::infinity();
    now_.detail = context_.empty() ? std::move(why) : context_ + ": " + why;
  }
  void require(bool good, const char* what) {
    if (!good) fail_check(what);
  }
  /// What is being tried, for messages.
  void context(std::string text) { context_ = std::move(text); }

  /// Runs an operation and waits for it; when asked to, counts what it allocates.
  template <class F>
  void call(const F& operation) {
    const long long before = options_.allocations != nullptr ? options_.allocations() : 0;
    operation();
    b_.sync();
    if (options_.allocations == nullptr || !replaying_) return;
    const long long made = options_.allocations() - before;
    if (made > options_.allocations_allowed && allocation_.empty())
      allocation_ = now_.name + " (" + context_ + "): " + std::to_string(made) + " allocations in a repeated call";
  }

  /// Compares an output with what it should be, and keeps its bytes for the checks of determinism.
  template <class T, int R>
  void expect(const array<T, R>& got, const expectation& want, const char* operation) {
    const bool exact = tolerance_units(operation) == 0;
    expectation rounded = want;
    if (exact)
      for (double& v : rounded.value) v = round_to<T>(v);
    const double narrow = std::is_same_v<T, real> ? 0 : storage_epsilon<T>();
    note(compare(got.read(), rounded, exact ? 0 : tolerance_of<real>(operation) + narrow, exact ? 0 : storage_step<T>()), dtype_name<T>());
    digest(got.download());
    guard(got.guards_unchanged(), "wrote outside its output");
  }
  template <class... A>
  void expect_unchanged(const A&... inputs) {
    guard((inputs.unchanged() && ...), "changed an input");
  }
  void note(const plumb::testing::verdict& v, const char* dtype) {
    if (v.ratio > now_.worst) now_.worst = v.ratio;
    if (v.good()) return;
    fail_check(std::string(dtype) + " element " + std::to_string(v.index) + " is " + number_text(v.got) + ", should be " + number_text(v.want));
  }
  void guard(bool good, const char* what) {
    if (!good && guards_.empty()) guards_ = now_.name + " (" + context_ + ") " + what;
  }

  template <class T>
  static double round_to(double x) {
    if constexpr (std::is_same_v<T, double>) {
      return x;
    } else {
      return static_cast<double>(convert<float>(convert<T>(static_cast<float>(x))));
    }
  }

  /// Scratch for a gemm: zeros and plenty, or, in the check for it, NaN and exactly what was asked for.
  arena<space> scratch(std::size_t bytes) {
    if (!poison_) return {scratch_memory_.data(), scratch_memory_.bytes()};
    scratch_memory_.fill(0xff);
    return {scratch_memory_.data(), bytes};
  }
  arena<space> scratch() { return {scratch_memory_.data(), scratch_memory_.bytes()}; }

  template <class F>
  static void each_storage(const F& f) {
    visit(storage_of<B>{}, f);
  }
  /// The same inputs wherever the same number is given.
  std::vector<double> normals(std::uint64_t stream, index_t count, double deviation = 1, double mean = 0) const {
    return normal_numbers(options_.seed * 1000 + stream, count, deviation, mean);
  }
  std::vector<double> ids(std::uint64_t stream, index_t count, index_t choices, std::uint64_t skip_one_in = 5) const {
    return random_ids(options_.seed * 1000 + stream, count, choices, skip_one_in);
  }

  /// Rows of normals, of which the first ones hold infinities and NaN: some entries -inf, all of them, -inf at the end, one +inf, two,
  /// both signs, one NaN, NaN beside +inf.
  static constexpr index_t odd_rows = 8;
  std::vector<double> with_odd_rows(std::uint64_t stream, index_t rows, index_t columns, double deviation) const {
    constexpr double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    auto x = normals(stream, rows * columns, deviation);
    const auto at = [&](index_t i, index_t j) -> double& { return x[static_cast<std::size_t>(i * columns + j)]; };
    const index_t last = columns - 1, middle = columns / 2;
    for (index_t j = 0; j < columns; j += 2) at(0, j) = -inf;
    for (index_t j = 0; j < columns; ++j) at(1, j) = -inf;
    at(2, last) = -inf;
    at(3, middle) = inf;
    at(4, 0) = at(4, last) = inf;
    at(5, 0) = inf;
    at(5, middle) = -inf;
    at(6, last) = nan;
    at(7, 0) = nan;
    at(7, middle) = inf;
    return x;
  }

  void digest(const std::vector<unsigned char>& bytes) {
    for (const unsigned char c : bytes) digest_ = (digest_ ^ c) * 0x100000001b3u;
  }

  B& b_;
  conformance_options options_;
  bool replaying_ = false, poison_ = false;
  int replayed_level_ = -1;                ///< all levels up to the contract, where negative
  std::uint64_t digest_ = 0xcbf29ce484222325u;
  std::string replay_failure_{}, guards_{}, allocation_{};
  block<space> scratch_memory_;

 private:
  static constexpr std::size_t scratch_bytes = std::size_t{1} << 24;

  template <class... T, class F>
  static void visit(types<T...>, const F& f) {
    (f(std::type_identity<T>{}), ...);
  }

  check_result now_{};
  std::string context_{};
  int reached_ = 9, failed_level_ = -1;
};

}  // namespace detail
}  // namespace testing

PLUMB_NAMESPACE_END

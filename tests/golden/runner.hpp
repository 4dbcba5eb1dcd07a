#pragma once
// How a mapping is written: it turns the peer's conventions into ours, calls plumb on a backend, and compares what
// comes back.
//
//   namespace {
//   constexpr auto my_objective = [](auto& job) {
//     const auto& rewards = job.c.input("rewards", {0});
//     ...call plumb on job.b...
//     job.output("loss", {loss}, largest_term);
//     job.gradient("d_loss/d_rewards", d_rewards, 0);
//   };
//   const bool registered = map_cases({"some_file", "Peer.function", every_case, on_each_backend(my_objective)});
//   }
//
// in a new file of this folder; nothing else needs an edit.

// Data of the files reaches the library as ids and layouts: bounds are checked.
#ifndef PLUMB_CHECKED
#define PLUMB_CHECKED
#endif

#include "golden/cases.hpp"

#include <plumb/backends/serial.hpp>
#include <plumb/testing/compare.hpp>
#if __has_include(<plumb/backends/xtensor.hpp>)
#include <plumb/backends/xtensor.hpp>
#define PLUMB_GOLDEN_XTENSOR 1
#else
#define PLUMB_GOLDEN_XTENSOR 0
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#define PLUMB_GOLDEN_ONEDNN 1
#else
#define PLUMB_GOLDEN_ONEDNN 0
#endif

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace golden {

using numbers = std::vector<double>;
using flags = std::vector<std::uint8_t>;
using ids = std::vector<std::int32_t>;

/// What `entering` is called in the comparisons: the largest magnitude of what is added up, one for the array or one
/// per entry. 0 where nothing cancels: then the golden number itself is the measure.
struct entering {
  numbers each;
  entering(double one) : each{one} {}                          // NOLINT: 0 reads best without a name
  entering(numbers per_entry) : each(std::move(per_entry)) {}  // NOLINT
};

/// What became of one mapped case on one backend.
struct outcome {
  struct compared {
    std::string kind, name;  ///< kind: outputs or gradients
    std::size_t largest;     ///< index of the largest golden number
    double scale;            ///< what the tolerance there is a multiple of
  };
  std::vector<compared> arrays;
  std::vector<std::pair<std::string, std::string>> left_out;  ///< array, reason
  std::vector<std::string> failures;                          ///< sentences
};

/// Largest finite magnitude of `x`; 0 of nothing.
double largest(const numbers& x);

/// What two numbers may differ by: `relative` times the larger of the golden number and what entered it, and what may
/// be flushed to zero.
struct allowance {
  double relative, absolute;
};
template <class Real>
inline constexpr allowance allowed{std::is_same_v<Real, double> ? 1e-10 : 1e-5, plumb::testing::storage_step<Real>()};

/// Compares one array of the case with ours. NaN equals only NaN, an infinity only itself.
void compare_array(const golden_case& c, outcome& o, const char* kind, const std::string& name, const numbers& ours,
                   const entering& terms, const allowance& allowed);

/// One case on one backend.
template <class B>
struct job {
  using real = typename B::real;

  B& b;
  const golden_case& c;
  outcome& o;

  void output(const std::string& name, const numbers& ours, const entering& terms) {
    compare_array(c, o, "outputs", name, ours, terms, allowed<real>);
  }
  void gradient(const std::string& name, const numbers& ours, const entering& terms) {
    compare_array(c, o, "gradients", name, ours, terms, allowed<real>);
  }
  void leave_out(const std::string& name, const std::string& reason) { o.left_out.emplace_back(name, reason); }
};

enum class backend_kind { serial, xtensor, onednn };
struct backend_choice {
  backend_kind kind;
  const char* name;
  const char* description;
  bool built;
  double tolerance;
};
inline constexpr backend_choice backends[] = {
    {backend_kind::serial, "serial", "serial in double", true, allowed<double>.relative},
    {backend_kind::xtensor, "xtensor", "xtensor in double", PLUMB_GOLDEN_XTENSOR != 0, allowed<double>.relative},
    {backend_kind::onednn, "onednn", "oneDNN in float", PLUMB_GOLDEN_ONEDNN != 0, allowed<float>.relative},
};

using case_runner = void (*)(backend_kind, const golden_case&, outcome&);

struct mapping {
  const char* file;      ///< without extension
  const char* function;  ///< as the file names it
  bool (*covers)(const golden_case&);
  case_runner run;
};

inline bool every_case(const golden_case&) { return true; }

/// All mappings, in no order.
std::vector<mapping>& mappings();
inline bool map_cases(const mapping& m) {
  mappings().push_back(m);
  return true;
}

/// `f` is a captureless generic lambda over a job.
template <class F>
constexpr case_runner on_each_backend(F) {
  return [](backend_kind kind, const golden_case& c, outcome& o) {
    const auto run = [&](auto& b) {
      job<std::remove_reference_t<decltype(b)>> j{b, c, o};
      F{}(j);
    };
    if (kind == backend_kind::serial) {
      plumb::serial::backend<double> b;
      run(b);
    }
#if PLUMB_GOLDEN_XTENSOR
    if (kind == backend_kind::xtensor) {
      plumb::xtensor::backend b;
      run(b);
    }
#endif
#if PLUMB_GOLDEN_ONEDNN
    if (kind == backend_kind::onednn) {
      static const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
      static const dnnl::stream stream{engine};
      static plumb::onednn::backend b{engine, stream};
      run(b);
    }
#endif
  };
}

/// The mapping of a case, or none.
const mapping* find_mapping(const golden_case& c);

/// Runs a mapped case; what it throws, and arrays that it neither compared nor left out, are failures.
outcome run_case(const mapping& m, backend_kind kind, const golden_case& c);

/// Whether wrong numbers and malformed files are noticed: see self_test.cpp. Prints; returns the number of failures.
int self_test(const std::filesystem::path& folder);

}  // namespace golden

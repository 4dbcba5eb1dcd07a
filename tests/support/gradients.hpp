#pragma once
// Gradients checked by two means that know nothing of how they were derived: dual numbers and central differences.

#include "support/catch.hpp"

#include <plumb/backends/serial.hpp>
#include <plumb/testing/compare.hpp>
#include <plumb/testing/differences.hpp>
#include <plumb/testing/dual.hpp>

#include <cmath>
#include <vector>

namespace plumb_test {

using plumb::testing::dual;

/// A serial backend of `T` with scratch memory.
template <class T>
struct desk {
  plumb::serial::backend<T> compute;
  std::vector<char> memory = std::vector<char>(std::size_t{1} << 20);
  plumb::arena<> scratch{memory};
};

/// `value(x)` for a vector of any scalar type; `gradient` is what is checked. Entries are relative to the largest of the gradient.
template <class F>
void check_gradient(const F& value, const std::vector<double>& x, const std::vector<double>& gradient) {
  REQUIRE(gradient.size() == x.size());
  double largest = 0;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  std::vector<double> exact(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    std::vector<dual> along(x.begin(), x.end());
    along[i].slope = 1;
    exact[i] = value(along).slope;
  }
  const auto differences = plumb::testing::central_differences([&](const std::vector<double>& at) { return value(at); }, x);
  const auto against = [&](const std::vector<double>& want, double tolerance) {
    const auto v = plumb::testing::compare(gradient, {want, std::vector<double>(want.size(), largest)}, tolerance, 1e-300);
    CAPTURE(v.index, v.got, v.want, v.ratio);
    CHECK(v.good());
  };
  against(exact, 1e-13);
  against(differences, 1e-9);
}

/// What a refused call says.
template <class F>
std::string refusal(const F& call) {
  try {
    call();
  } catch (const plumb::precondition_error& e) {
    return e.what();
  }
  return "(it was not refused)";
}

}  // namespace plumb_test

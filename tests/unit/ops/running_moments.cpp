// Running moments: however the numbers are split, NaN, as vectors, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/running_moments.hpp>
#include <plumb/testing/memory.hpp>

#include <limits>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

using reals = std::vector<double>;
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("running moments: as of all numbers at once, however they are split") {
  desk<double> d;
  const auto x = normal_numbers(5, 40, 3, 1000);  // far from 0: no sum of squares would do
  double mean = 0, squares = 0;
  for (const double e : x) mean += e / 40;
  for (const double e : x) squares += (e - mean) * (e - mean);
  for (const std::size_t first : {std::size_t{0}, std::size_t{1}, std::size_t{13}, std::size_t{40}}) {
    reals a(3), b(3);
    const auto rest = static_cast<index_t>(40 - first);
    update_moments(d.compute, d.scratch, view<const double, 1>(x).slice(0, static_cast<index_t>(first)), view<double, 1>(a));
    update_moments(d.compute, d.scratch, view<const double, 1>(x).slice(static_cast<index_t>(first), rest), view<double, 1>(b));
    merge_moments(d.compute, d.scratch, view<const double, 1>(b), view<double, 1>(a));
    const auto m = read_moments(view<const double, 1>(a));
    CHECK(m.count == 40);
    CHECK(m.mean == Catch::Approx(mean).epsilon(1e-15));
    CHECK(m.variance == Catch::Approx(squares / 40).epsilon(1e-12));
    CHECK(m.standard_deviation == Catch::Approx(std::sqrt(squares / 39)).epsilon(1e-12));
  }
  const auto nothing = read_moments(view<const double, 1>(reals(3)));
  CHECK(std::isnan(nothing.variance));
  CHECK(std::isnan(nothing.standard_deviation));
  reals broken(3);
  update_moments(d.compute, d.scratch, view<const double, 1>(reals{1, not_a_number}), view<double, 1>(broken));
  CHECK(std::isnan(broken[moments_mean]));
  CHECK(refusal([&] { update_moments(d.compute, d.scratch, view<const double, 1>(x), view<double, 1>(reals(2))); }) ==
        "plumb: update_moments: argument `state` has shape [2], but its dimension 0 must be 3 (count, mean, squared deviations). Nothing was "
        "written.");
  // Vectors in host memory.
  reals a(3), b(3);
  update_moments(d.compute, d.scratch, view<const double, 1>(x), view<double, 1>(a));
  update_moments(x, b);
  CHECK(a == b);
  const reals other = a;
  merge_moments(d.compute, d.scratch, view<const double, 1>(other), view<double, 1>(a));
  merge_moments(other, b);
  CHECK(a == b);
  CHECK(a[moments_count] == 80);
  CHECK(refusal([&] { merge_moments(reals(2), b); }) ==
        "plumb: merge_moments: argument `from` has shape [2], but its dimension 0 must be 3 (count, mean, squared deviations). Nothing was written.");
}

// Extrapolated weights: the ends of the line, in place, in 16 bits, of any rank, as vectors, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/expo.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

TEST_CASE("expo: 0 is the aligned model bit for bit, -1 the one before, in place, in 16 bits") {
  const std::vector<float> sft{0.1f, -3, 1e-8f}, aligned{0.3f, -2.5f, 1e30f};
  std::vector<float> out(3);
  desk<float> on;
  extrapolate_weights(on.compute, view<const float, 1>(sft), aligned, {.alpha = 0}, out);
  CHECK(out == aligned);
  extrapolate_weights(on.compute, view<const float, 1>(sft), aligned, {.alpha = -1}, out);
  CHECK(out[1] == -3);
  out = aligned;
  extrapolate_weights(on.compute, view<const float, 1>(sft), out, {.alpha = 0.5}, out);
  CHECK(out[1] == -2.25f);
  std::vector<bf16> before{convert<bf16>(1.0f)}, after{convert<bf16>(2.0f)};
  extrapolate_weights(on.compute, view<const bf16, 1>(before), after, {.alpha = 1}, after);
  CHECK(convert<float>(after[0]) == 3);
  CHECK(refusal([&] { extrapolate_weights(on.compute, view<const float, 1>(out), aligned, {}, out); }) ==
        "plumb: extrapolate_weights: output `out` overlaps `sft` in memory. Nothing was written.");
}

TEST_CASE("expo: parameters of any rank and stride, and vectors, give the same numbers") {
  const auto sft = normal_numbers(71, 24), aligned = normal_numbers(72, 24);
  std::vector<double> out(24), columns(24);
  for (std::size_t i = 0; i < 24; ++i) out[i] = aligned[i] + 0.3 * (aligned[i] - sft[i]);
  CHECK(extrapolate_weights(sft, aligned, {.alpha = 0.3}) == out);
  const auto cube = [](const std::vector<double>& x) { return view<const double, 3>(x.data(), 2, 3, 4); };
  serial::backend<double> compute;
  extrapolate_weights(compute, cube(sft), cube(aligned), {.alpha = 0.3}, {columns.data(), 2, 3, 4});
  CHECK(columns == out);
  // A matrix into its transpose.
  extrapolate_weights(compute, view<const double, 2>(sft.data(), 6, 4), view<const double, 2>(aligned.data(), 6, 4), {.alpha = 0.3},
                      view<double, 2>(columns.data(), 4, 6).transposed());
  CHECK(columns[6] == out[1]);
  CHECK(columns[23] == out[23]);
  const std::vector<double> three(3);
  CHECK(refusal([&] { extrapolate_weights(sft, three); }) ==
        "plumb: extrapolate_weights: argument `aligned` has 3 elements, but `sft` has 24. Nothing was written.");
  CHECK(refusal([&] { extrapolate_weights(compute, cube(sft), cube(aligned), {}, {columns.data(), 2, 4, 3}); }) ==
        "plumb: extrapolate_weights: argument `out` has shape [2, 4, 3], but `sft` has shape [2, 3, 4]. Nothing was written.");
}

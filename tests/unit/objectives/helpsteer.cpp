// Attribute layouts, rounding to ratings, standardised rewards, RewardBench sections.
#include "support/gradients.hpp"

#include <plumb/objectives/attribute_regression.hpp>
#include <plumb/objectives/helpsteer.hpp>
#include <plumb/ops/reward_bench.hpp>

#include <cfenv>

using namespace plumb;
using namespace plumb_test;

TEST_CASE("helpsteer: layouts name the same attributes") {
  static_assert(helpsteer::attribute_index(helpsteer::nine, "helpfulness") == helpsteer::first_of_five);
  static_assert(helpsteer::attribute_index(helpsteer::five, "toxicity") == -1);
  for (index_t a = 0; a < 5; ++a) CHECK(helpsteer::attribute_index(helpsteer::nine, helpsteer::five[a]) == helpsteer::first_of_five + a);
  std::vector<double> nine(18);
  for (std::size_t i = 0; i < 18; ++i) nine[i] = static_cast<double>(i);
  const auto five = helpsteer::five_of_nine(view<const double, 2>(nine.data(), 2, 9));
  CHECK(five(0, 0) == 4);
  CHECK(five(1, 4) == 17);
  const std::vector<double> weights(std::begin(goal_weights::helpsteer2_goodness), std::end(goal_weights::helpsteer2_goodness));
  std::vector<double> reward(2);
  desk<double> on;
  goal_reward(on.compute, on.scratch, five, weights, {}, reward);
  CHECK(reward[0] == Catch::Approx(0.65 * 4 + 0.8 * 5 + 0.45 * 6));
  // Vectors in, the same numbers out.
  std::vector<double> first_five(five.data(), five.data() + 5), one(1);
  goal_reward(on.compute, on.scratch, {first_five.data(), 1, 5}, weights, {.mean = 1, .standard_deviation = 2}, one);
  CHECK(goal_reward(first_five, weights, {.mean = 1, .standard_deviation = 2}) == one);
  CHECK(refusal([&] { goal_reward(nine, weights); }) ==
        "plumb: goal_reward: `prediction` has 18 elements, which is no multiple of 5 weights. Nothing was written.");
}

TEST_CASE("helpsteer: ratings round halves to even, as the hardware does") {
  std::vector<double> x;
  for (double v = -1; v <= 5; v += 0.125) x.push_back(v);
  for (const double v : {0.5, 1.5, 2.5, 3.5, 1e300}) x.push_back(std::nextafter(v, 0)), x.push_back(v), x.push_back(std::nextafter(v, 9));
  std::vector<double> y(x.size());
  desk<double> on;
  const index_t n = static_cast<index_t>(x.size());
  round_ratings(on.compute, view<const double, 2>(x.data(), n, 1), {}, view<double, 2>(y.data(), n, 1));
  std::fesetround(FE_TONEAREST);
  CHECK(round_ratings(x) == y);
  CHECK(refusal([&] { round_ratings(x, {.top = 0}); }) ==
        "plumb: round_ratings: option `top` is 0 but must be from 1 to 1000. Nothing was written.");
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(y[i] == std::nearbyint(std::min(4.0, std::max(0.0, x[i]))));
  x = {std::nan(""), 2.5};
  round_ratings(on.compute, view<const double, 2>(x.data(), 2, 1), {}, view<double, 2>(x.data(), 2, 1));  // in place
  CHECK(std::isnan(x[0]));
  CHECK(x[1] == 2);
}

TEST_CASE("helpsteer: rewards on the scale of running moments") {
  const std::vector<double> seen{1, 2, 3, 6}, reward{3, 5};
  std::vector<double> state(3), out(2);
  desk<double> on;
  standardize_rewards(on.compute, reward, state, {}, out);
  CHECK(std::isnan(out[0]));
  update_moments(on.compute, on.scratch, view<const double, 1>(seen), view<double, 1>(state));
  standardize_rewards(on.compute, reward, state, {}, out);
  CHECK(out[0] == 0);
  CHECK(out[1] == Catch::Approx(2 / std::sqrt(14 / 3.0)).epsilon(1e-14));
  CHECK(standardize_rewards(reward, state) == out);
  CHECK(refusal([&] { standardize_rewards(reward, reward); }) ==
        "plumb: standardize_rewards: argument `state` has shape [2], but its dimension 0 must be 3 (count, mean, squared deviations). Nothing was "
        "written.");
}

TEST_CASE("reward_bench: sections weigh subsets by their items, mathematics as much as code") {
  std::vector<double> accuracy(reward_bench::subset_count, 1);
  double weight[4] = {};
  for (const auto& s : reward_bench::subsets) weight[static_cast<int>(s.part)] += s.weight;
  CHECK(weight[0] == 358);
  CHECK(weight[1] == 456);
  CHECK(weight[2] == 740);
  CHECK(weight[3] == 2 * 984);
  CHECK(weight[0] + weight[1] + weight[2] + weight[3] - 984 + 447 == 2985);  // the items of the benchmark
  CHECK(reward_bench::section_scores(view<const double, 1>(accuracy)).overall == 1);
  accuracy[static_cast<std::size_t>(reward_bench::subset_index("math-prm"))] = 0;
  accuracy[static_cast<std::size_t>(reward_bench::subset_index("donotanswer"))] = 0.5;
  const auto s = reward_bench::section_scores(view<const double, 1>(accuracy));
  CHECK(s.reasoning == 0.5);
  CHECK(s.safety == Catch::Approx(1 - 68 / 740.0));
  CHECK(s.overall == Catch::Approx((2 + s.safety + 0.5) / 4));
  CHECK(reward_bench::subset_index("math") == -1);
  accuracy.pop_back();
  CHECK(refusal([&] { reward_bench::section_scores(view<const double, 1>(accuracy)); }) ==
        "plumb: section_scores: argument `accuracy` has shape [22], but its dimension 0 must be 23 (the number of subsets). Nothing was written.");
}

// What SteerLM 2.0's claim and the table of reward models say of their numbers.
#include "claims/steerlm_results.hpp"
#include "support/catch.hpp"

using namespace claims;

namespace {

/// Runs of `seeds` where SteerLM 2.0 takes `drop` nats off SteerLM 1, with accuracies by the size of the data.
struct made {
  double drop = 0.6, gap = 0.1;
  std::map<std::size_t, std::map<std::string, double>> accuracy{
      {500, {{"regression", 0.77}, {"regular", 0.68}, {"margin", 0.69}, {"scaled", 0.67}}},
      {5000, {{"regression", 0.93}, {"regular", 0.88}, {"margin", 0.87}, {"scaled", 0.9}}}};
  double spread = 0.02;  // of margin and scaled at 500 pairs, over seeds

  outcome of(std::size_t count) const {
    std::vector<std::uint64_t> seeds;
    run_results found;
    for (std::size_t s = 0; s < count; ++s) {
      const std::uint64_t seed = 1000 + s;
      seeds.push_back(seed);
      const double noise = static_cast<double>(s) - static_cast<double>(count - 1) / 2;
      numbers& chain = found[chain_name(seed)];
      chain["share_asked"] = 0.025;
      for (const auto& [row, title] : rows) {
        for (const char* key : {"/kl", "/hit", "/helpfulness", "/entropy"}) chain[std::string(row) + key] = 1;
        if (std::string(row) == "steerlm1") chain["steerlm1/kl"] = 1.4;
        if (std::string(row) == "steerlm2/iteration_2")
          chain["steerlm2/iteration_2/kl"] = 1.4 - drop - 0.01 * noise, chain["steerlm2/iteration_2/entropy"] = 1 + gap;
      }
      for (const auto& [pairs, by_method] : accuracy) {
        numbers& rewards = found[reward_name(seed, pairs)];
        rewards["ties"] = 0.3;
        for (const auto& [method, title] : reward_methods) {
          const auto at = by_method.find(method);
          const bool noisy = pairs == 500 && (std::string(method) == "margin" || std::string(method) == "scaled");
          rewards[std::string(method) + "/accuracy"] = (at == by_method.end() ? 0.8 : at->second) + (noisy ? spread : 0.001) * noise;
          rewards[std::string(method) + "/correlation"] = std::string(method) == "regression" ? 0.9 : 0.5;
        }
      }
    }
    return outcome(seeds, {500, 5000}, found);
  }
};

}  // namespace

TEST_CASE("claims: SteerLM 2.0's verdict wants three seeds, and all three parts of its rule") {
  CHECK_THAT(made{}.of(3).policy_verdict(), Catch::Matchers::StartsWith("SteerLM 2.0's claim holds in this world: the exact KL"));
  CHECK_THAT(made{}.of(3).policy_verdict(), Catch::Matchers::Contains("by 0.59 on the worst of 3 seeds"));
  CHECK_THAT(made{}.of(1).policy_verdict(),
             Catch::Matchers::StartsWith("SteerLM 2.0's claim is not decided over 1 seed: intervals need three. The exact KL"));
  CHECK_THAT(made{}.of(1).policy_verdict(), Catch::Matchers::Contains("on the worst of 1 seed (0.20 or more)"));
  for (const made& bad : {made{.drop = 0.3}, made{.gap = 0.6}})
    CHECK_THAT(bad.of(3).policy_verdict(), Catch::Matchers::StartsWith("SteerLM 2.0's claim does not hold in this world: the exact KL"));
}

TEST_CASE("claims: the better of margin and scaled Bradley-Terry is held against plain at each size") {
  const std::string verdict = made{}.of(3).reward_verdict();
  CHECK_THAT(verdict, Catch::Matchers::StartsWith("The table of reward models comes out as expected: at 500 pairs regression beats Bradley-Terry"));
  CHECK_THAT(verdict, Catch::Matchers::Contains("is nowhere below the plain one (asked for: 0 or more at each size; 500 pairs: margin 1.00 ["));
  CHECK_THAT(verdict, Catch::Matchers::Contains("], a tie; 5000 pairs: margin -1.00"));
  CHECK(made{}.of(3).get("reward/500/strength_minus_bt").value == made{}.of(3).get("reward/500/margin_minus_bt").value);
  CHECK(made{}.of(3).get("reward/5000/strength_minus_bt").value == made{}.of(3).get("reward/5000/scaled_minus_bt").value);
  CHECK_THAT(made{.spread = 0.002}.of(3).reward_verdict(), !Catch::Matchers::Contains("a tie"));
  CHECK_THAT(made{}.of(2).reward_verdict(),
             Catch::Matchers::StartsWith("The table of reward models is not decided over 2 seeds: intervals need three. At 500"));
  // One size below plain, and the mean over sizes above it.
  made one;
  one.accuracy[500]["margin"] = 0.675;
  CHECK(one.of(3).get("reward/strength_minus_bt").value > 0);
  CHECK_THAT(one.of(3).reward_verdict(), Catch::Matchers::StartsWith("The table of reward models does not come out as expected: at"));
  CHECK_THAT(one.of(3).reward_verdict(), Catch::Matchers::Contains("is below the plain one at some size"));
}

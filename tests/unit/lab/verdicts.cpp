// What the lab says of its figures: the intervals decide.
#include "lab/verdicts.hpp"
#include "support/catch.hpp"

using lab::figure;

namespace {

figure gain(double value, double low, double high) {
  return {"accuracy/reward_model_minus_best_baseline", value, low, high, 400, "difference of shares", "reward model minus \"the shorter reply wins\""};
}
figure change(const char* name, double value, double low, double high) {
  return {std::string("best_of_n/bradley_terry/") + name, value, low, high, 32, "points", name};
}
std::vector<figure> fall_by(double labellers, double low, double high) {
  return {change("fall", 0.5, 0.3, 0.7), change("fall_of/correctness", 0.1, 0, 0.2), change("fall_of/politeness", 0.4, 0.3, 0.5),
          change("labellers_change", labellers, low, high)};
}

}  // namespace

TEST_CASE("lab: the verdict on a preference file") {
  using Catch::Matchers::StartsWith;
  CHECK(lab::verdict(gain(0.05, 0.01, 0.09)) == "The reward model beats the best baseline (reward model minus \"the shorter reply wins\": 5.0 [1.0, 9.0] percentage points).");
  CHECK_THAT(lab::verdict(gain(-0.05, -0.09, -0.01)), StartsWith("The reward model is worse than the best baseline"));
  CHECK_THAT(lab::verdict(gain(0.05, -0.01, 0.11)), StartsWith("The reward model is not told apart from the best baseline"));
  CHECK_THAT(lab::verdict(gain(0.05, -0.01, 0.11)), Catch::Matchers::EndsWith("shows whether more pairs would help."));
  figure same = gain(0, 0, 0);
  same.low = same.high = std::nullopt;
  CHECK_THAT(lab::verdict(same), StartsWith("The reward model is not told apart"));
}

TEST_CASE("lab: why the gold reward falls") {
  const auto why = [](const std::vector<figure>& all) { return lab::why_it_falls(all, "bradley_terry", "Bradley-Terry"); };
  CHECK(why(fall_by(-0.2, -0.3, -0.1)) ==
        "By Bradley-Terry, the pick's gold reward falls by 0.50 [0.30, 0.70] points from its peak: 0.40 through politeness, 0.10 through correctness. What labellers see of it "
        "changes by -0.20 [-0.30, -0.10], so they would like it less as well: it is the learned reward's own errors that are picked for, more than their taste.");
  using Catch::Matchers::EndsWith;
  CHECK_THAT(why(fall_by(0.2, 0.1, 0.3)), EndsWith("so they like it more: their taste is what is picked for."));
  CHECK_THAT(why(fall_by(0, -0.1, 0.1)), EndsWith("their taste and the learned reward's own errors weigh about as much."));
  CHECK(why({change("fall", 0.1, -0.1, 0.3), change("labellers_change", 0, -1, 1)}) == "By Bradley-Terry, no fall of the gold reward is told apart from chance.");
  CHECK(why({}) == "By Bradley-Terry, no fall of the gold reward is told apart from chance.");
}

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
  const std::vector<figure> all{change("fall", 0.5, 0.3, 0.7), change("fall_of/correctness", 0.1, 0, 0.2), change("fall_of/politeness", 0.4, 0.3, 0.5),
                                change("fall_of/fluency", -0.001, -0.1, 0.1), change("fall_seen_by_labellers", 0.2, 0.1, 0.3),
                                change("fall_unseen_by_labellers", 0.3, 0.2, 0.4)};
  CHECK(why(all) ==
        "By Bradley-Terry, the pick's gold reward falls by 0.50 [0.30, 0.70] points from its peak: 0.40 through politeness, 0.10 through correctness. Labellers would mind "
        "0.20 [0.10, 0.30] of it as well, which is the learned reward's own error; 0.30 [0.20, 0.40] only the judge minds, which is the labellers' taste.");
  auto flat = all;
  flat[0] = change("fall", 0.1, -0.1, 0.3);
  CHECK(why(flat) == "By Bradley-Terry, no fall of the gold reward is told apart from chance.");
  CHECK(why({}) == "By Bradley-Terry, no fall of the gold reward is told apart from chance.");
}

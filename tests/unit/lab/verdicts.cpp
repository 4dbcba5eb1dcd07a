// What the lab says of its figures: the intervals decide.
#include "lab/verdicts.hpp"
#include "support/catch.hpp"

using lab::figure;

namespace {

figure gain(const char* over, double value, double low, double high) {
  return {std::string("gain/") + over, value, low, high, 400, "difference of shares", std::string("reward model minus \"") + over + "\""};
}
figure change(const char* name, double value, double low, double high) {
  return {std::string("best_of_n/bradley_terry/") + name, value, low, high, 32, "points", name};
}

}  // namespace

TEST_CASE("lab: the verdict on a preference file") {
  const figure above = gain("over_longer", 0.10, 0.05, 0.15), open = gain("over_shorter", 0.02, -0.03, 0.07), below = gain("over_unigram", -0.05, -0.09, -0.01);
  const figure low = gain("over_unigram", 0.05, 0.01, 0.09);
  CHECK(lab::verdict({above, low}) == "The reward model beats every baseline (the closest, reward model minus \"over_unigram\": 5.0 [1.0, 9.0] percentage points).");
  CHECK(lab::verdict({above, open, low}) ==
        "The reward model is not told apart from the best of the baselines (reward model minus \"over_shorter\": 2.0 [-3.0, 7.0] percentage points).");
  CHECK(lab::verdict({above, open, below}) ==
        "The reward model is worse than a baseline that needs no model (reward model minus \"over_unigram\": -5.0 [-9.0, -1.0] percentage points).");
  figure same = above;  // without an interval nothing is told apart
  same.low = same.high = std::nullopt;
  CHECK_THAT(lab::verdict({same}), Catch::Matchers::StartsWith("The reward model is not told apart"));
  CHECK_THAT(lab::verdict({above, gain("from_labels", 0.03, 0.01, 0.05)}),
             Catch::Matchers::EndsWith(" All labels instead of an eighth of them change its accuracy by 3.0 [1.0, 5.0] percentage points: more labels help here."));
  CHECK_THAT(lab::verdict({above, gain("from_labels", 0.03, -0.01, 0.07)}), Catch::Matchers::EndsWith("not told apart from nothing."));
  CHECK(lab::verdict({change("fall", 1, 0, 2)}).empty());
  const auto share = [](const char* name, double from) { return figure{std::string("accuracy/") + name, from + 0.05, from, from + 0.1, 400, "share", name}; };
  CHECK_THAT(lab::verdict({above, share("model", 0.49), share("policy", 0.51), share("coin", 0.3)}),
             Catch::Matchers::EndsWith(" Better than a coin: policy. Not told apart from a coin, or worse: model; coin."));
}

TEST_CASE("lab: why the gold reward falls") {
  const auto why = [](const std::vector<figure>& all) { return lab::why_it_falls(all, "best_of_n/bradley_terry", "Picked by Bradley-Terry"); };
  std::vector<figure> all{change("fall", 0.5, 0.3, 0.7), change("fall_of/correctness", 0.1, -0.05, 0.25), change("fall_of/fluency", 0.1, 0.05, 0.15),
                          change("fall_of/politeness", 0.3, 0.2, 0.4), change("fall_seen_by_labellers", 0.1, -0.1, 0.3),
                          change("fall_unseen_by_labellers", 0.4, 0.3, 0.5)};
  CHECK(why(all) ==
        "Picked by Bradley-Terry, replies lose 0.50 [0.30, 0.70] points of gold reward from the peak on. Told apart from chance, by attribute: politeness 0.30 [0.20, 0.40], "
        "fluency 0.10 [0.05, 0.15]. Labellers would see 0.10 [-0.10, 0.30] of it; 0.40 [0.30, 0.50] only the judge sees (courtesies after the first, and length)."
        " The peak is chosen on one half of the prompts, rise and fall are measured on the other.");
  all[4] = change("fall_seen_by_labellers", 0.5, 0.4, 0.6);
  all[5] = change("fall_unseen_by_labellers", 0, 0, 0);
  CHECK_THAT(why(all), Catch::Matchers::Contains("Labellers would see 0.50 [0.40, 0.60] of it (the learned reward errs by their lights too); 0.00 [0.00, "
                                                 "0.00] only the judge sees. The peak"));
  all[0] = change("fall", 0.1, -0.1, 0.3);
  CHECK(why(all) == "Picked by Bradley-Terry, no fall of the gold reward is told apart from chance.");
  CHECK(why({}).empty());  // not measured
}

TEST_CASE("lab: which policies are better than SFT") {
  const auto wins = [](const char* key, double from) { return figure{std::string("win_rate/") + key + "_over_sft", from + 0.05, from, from + 0.1, 400, "share", key}; };
  CHECK(lab::policy_verdict({wins("dpo", 0.51), wins("grpo", 0.6), wins("ppo", 0.39), wins("steerlm2", 0.45)}) ==
        "Better than SFT: DPO, GRPO. Worse than SFT: PPO. Not told apart from SFT: SteerLM 2.0.");
  CHECK(lab::policy_verdict({wins("drpo", 0.6)}) == "Better than SFT: DR-PO.");
  CHECK(lab::policy_verdict({}).empty());
}

// What DR-PO's claim says of its numbers.
#include "claims/drpo_results.hpp"
#include "support/catch.hpp"

using namespace claims;
using namespace claims::lock;

namespace {

figure difference(const std::string& name, double value, double low, double high, std::size_t n = 20) {
  return {name, value, low, high, n, "difference of shares", name};
}
std::vector<figure> six(double least_low) {
  std::vector<figure> all;
  for (const char* name : {"drpo_minus_ppo", "drpo_minus_dpo"})
    for (const char* metric : metrics) all.push_back(difference(std::string(name) + "/" + metric, 0.3, 0.2, 0.4));
  all[3].low = least_low;
  return all;
}

}  // namespace

TEST_CASE("claims: DR-PO's verdict is that of six intervals") {
  CHECK(claim_verdict(six(0.1)) ==
        "DR-PO's claim holds here: all six 95 % intervals, of DR-PO minus PPO and of DR-PO minus the best DPO by each figure, are above 0 over 20 "
        "seeds. "
        "The closest: drpo_minus_dpo/exact_greedy, +30.0 [10.0, 40.0] points.");
  CHECK(claim_verdict(six(-0.1)) ==
        "DR-PO's claim is not shown over 20 seeds: not told apart from 0: drpo_minus_dpo/exact_greedy: +30.0 [-10.0, 40.0] points.");
  auto same = six(0.1);  // no interval is no proof
  same[0].low = same[0].high = std::nullopt;
  CHECK_THAT(claim_verdict(same),
             Catch::Matchers::Contains("is not shown over 20 seeds: not told apart from 0: drpo_minus_ppo/exact_greedy"));
  auto opposite = six(-0.3);
  opposite[3].high = -0.1;
  CHECK_THAT(claim_verdict(opposite),
             Catch::Matchers::StartsWith("DR-PO's claim does not hold here over 20 seeds: not told apart from 0, or below: drpo"));
  auto few = six(0.1);
  for (auto& f : few) f.n = 1;
  CHECK(claim_verdict(few) == "DR-PO's claim is not decided over 1 seed: intervals need three.");

  const variant v{.name = "tea", .title = "Tea"};
  const std::string where = "control/tea/drpo_minus_";
  CHECK(control_verdict(v, {difference(where + "ppo/exact_sampled", -0.2, -0.3, -0.1), difference(where + "dpo/exact_sampled", 0.1, -0.1, 0.3)}) ==
        "Tea: at temperature 1 DR-PO is below PPO (-20.0 [-30.0, -10.0] points) and not told apart from the best DPO (+10.0 [-10.0, 30.0] points).");
}

TEST_CASE("claims: what the wider grid does to DR-PO's claim") {
  std::vector<figure> all{{"exact_sampled/dpo_tuned", 0.568, {}, {}, 20, "share", {}}, {"exact_sampled/dpo_wide", 0.7, {}, {}, 20, "share", {}}};
  CHECK(wide_verdict(all).empty());
  for (const char* metric : metrics) all.push_back(difference(std::string("drpo_minus_dpo_wide/") + metric, 0.3, 0.2, 0.4));
  CHECK(wide_verdict(all) ==
        "On a wider grid tuned DPO has 70.0 % at temperature 1 instead of 56.8; DR-PO minus it: exact, greedy +30.0 [20.0, 40.0] points; exact, "
        "temperature 1 +30.0 [20.0, 40.0] points; win rate against references +30.0 [20.0, 40.0] points. All above 0.");
  all[3].low = -0.1;
  CHECK_THAT(wide_verdict(all), Catch::Matchers::EndsWith("points. Not all above 0."));
  all[1].n = 2;
  CHECK_THAT(wide_verdict(all), Catch::Matchers::EndsWith("points. Intervals need three seeds."));
}

TEST_CASE("claims: what PPO does with a dense reward is said by the reward model's numbers") {
  const auto put = [](double own) {
    return std::vector<figure>{{"reward_model/right", 0.5, {}, {}, 3, "reward", {}},
                               {"reward_model/sft", -3.4, {}, {}, 3, "reward", {}},
                               {"reward_model/ppo", own, {}, {}, 3, "reward", {}},
                               {"length/ppo", 1.1, {}, {}, 3, "tokens", {}},
                               {"ended/ppo", 1, {}, {}, 3, "share", {}}};
  };
  const std::string begins = "The reward model gives right answers 0.50, PPO's own replies ";
  const std::string ends = " and SFT's -3.40; PPO's are 1.10 tokens long, and 100.0 % of them end. ";
  CHECK(reward_verdict("", put(-0.54)) == begins + "-0.54" + ends + "PPO does not exploit the reward model: right answers would pay more.");
  CHECK(reward_verdict("", put(0.6)) == begins + "0.60" + ends + "PPO is paid as well as for right answers, or better.");
}

TEST_CASE("claims: the DPO that DR-PO is held against") {
  variant v{.name = "headline"};
  v.settings.dpo_betas = {0.1, 0.5};
  v.settings.dpo_epochs = {20};
  v.settings.dpo_wider = {{0.01, 400}};
  const std::vector<std::uint64_t> seeds{1, 2};
  std::map<std::string, numbers> all;
  const auto put = [&](std::uint64_t seed, const std::string& grid, double validation, double exact, double win) {
    numbers& n = all[job_name(seed, "headline", "dpo")];
    n[grid + "/validation"] = validation, n[grid + "/exact_sampled"] = exact, n[grid + "/win_rate"] = win;
  };
  put(1, "beta=0.1,epochs=20", 2, 0.5, 0.1);
  put(1, "beta=0.5,epochs=20", 1, 0.6, 0.9);
  put(2, "beta=0.1,epochs=20", 1, 0.1, 0.2);
  put(2, "beta=0.5,epochs=20", 2, 0.2, 0.3);
  const results r(v, seeds, all);
  CHECK(r.grid() == std::vector<std::string>{"beta=0.1,epochs=20", "beta=0.5,epochs=20"});
  CHECK(r.tuned_choice() == std::vector<std::string>{"beta=0.1,epochs=20", "beta=0.5,epochs=20"});
  CHECK(r.tuned_dpo("exact_sampled") == std::vector<double>{0.5, 0.2});
  CHECK(r.best_dpo("exact_sampled").first == "beta=0.5,epochs=20");
  CHECK(r.best_dpo("exact_sampled").second == std::vector<double>{0.6, 0.2});
  // The wider grid is the first and what is beyond it, from runs of its own; validation chooses from both.
  for (const auto seed : seeds) {
    numbers& n = all[job_name(seed, "headline", "dpo-wider")];
    n["beta=0.01,epochs=400/validation"] = seed == 1 ? 3 : 1.5;
    n["beta=0.01,epochs=400/exact_sampled"] = 0.9;
  }
  CHECK(r.grid(true) == std::vector<std::string>{"beta=0.1,epochs=20", "beta=0.5,epochs=20", "beta=0.01,epochs=400"});
  CHECK(r.tuned_choice(true) == std::vector<std::string>{"beta=0.01,epochs=400", "beta=0.5,epochs=20"});
  CHECK(r.tuned_dpo("exact_sampled", true) == std::vector<double>{0.9, 0.2});
  CHECK(r.best_dpo("exact_sampled", true).second == std::vector<double>{0.9, 0.9});
  CHECK(r.tuned_dpo("exact_sampled") == std::vector<double>{0.5, 0.2});
  // A control that changes PPO alone has the headline's DPO.
  variant ppo_alone{.name = "reward", .own_dpo = false};
  CHECK_FALSE(ppo_alone.dense());
  CHECK(all_variants().size() == 6);
  const results control(ppo_alone, seeds, all);
  CHECK(control.dpo("beta=0.5,epochs=20", "win_rate") == std::vector<double>{0.9, 0.3});
}

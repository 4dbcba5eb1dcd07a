#pragma once
// What SteerLM 2.0's claim and the table of reward models are made of: results seed by seed, figures, sentences.

#include "steerlm_jobs.hpp"
#include "tables.hpp"

#include "lab/verdicts.hpp"

#include <cmath>
#include <limits>

namespace claims {

using lab::figure;

/// Rows of the table of policies, in its order.
inline constexpr std::pair<const char*, const char*> rows[] = {
    {"unconditional", "unconditional SFT"},
    {"steerlm1", "SteerLM 1"},
    {"control/more_labels", "control: SteerLM 1, 6,000 more labelled replies"},
    {"control/bootstrap", "control: SteerLM 1, twice more on its own labelled replies"},
    {"steerlm2/iteration_1", "SteerLM 2.0, iteration 1"},
    {"steerlm2/iteration_2", "SteerLM 2.0, iteration 2"},
    {"ablation/exact_prior/iteration_1", "... with the exact P(y | x), iteration 1"},
    {"ablation/exact_prior/iteration_2", "... with the exact P(y | x), iteration 2"},
    {"ablation/paper_sampling/iteration_1", "... the paper's sampling (temperature 0.7, top-p 0.9), iteration 1"},
    {"ablation/paper_sampling/iteration_2", "... the paper's sampling (temperature 0.7, top-p 0.9), iteration 2"},
    {"ablation/no_baseline/iteration_1", "... without the baseline b', iteration 1"},
    {"ablation/no_baseline/iteration_2", "... without the baseline b', iteration 2"},
    {"ablation/no_prior/iteration_1", "... weights from P(a | x, y) alone, iteration 1"},
    {"ablation/no_prior/iteration_2", "... weights from P(a | x, y) alone, iteration 2"},
    {"class_limit", "SFT on 21,600 replies of the target itself: the limit of the model's class"},
    {"target", "the target P(y | a, x)"}};

inline const std::vector<std::size_t> all_sizes{500, 1500, 5000};

using run_results = std::map<std::string, numbers>;

inline std::string chain_name(std::uint64_t seed) { return "seed-" + std::to_string(seed) + "-chain"; }
inline std::string reward_name(std::uint64_t seed, std::size_t pairs) { return "seed-" + std::to_string(seed) + "-rewards-" + std::to_string(pairs); }

/// A mean over seeds, with the 95 % interval of Student's t from three seeds on.
inline figure over_seeds(std::string name, const std::vector<double>& x, std::string unit, std::string label) {
  figure f = lab::mean_figure(std::move(name), x, std::move(unit), std::move(label));
  if (x.size() < 3 || !f.low) {
    f.low = f.high = std::nullopt;
    return f;
  }
  const double half = (f.value - *f.low) / 1.959964 * lab::student_t(x.size() - 1);
  f.low = f.value - half;
  f.high = f.value + half;
  return f;
}

/// All that the runs found, and what was made of it.
class outcome {
 public:
  outcome(std::vector<std::uint64_t> seeds, std::vector<std::size_t> sizes, run_results found)
      : seeds_(std::move(seeds)), sizes_(std::move(sizes)), found_(std::move(found)) {
    policies();
    reward_models();
  }

  const std::vector<figure>& figures() const { return all_; }
  const figure& get(const std::string& name) const {
    const figure* f = lab::find_figure(all_, name);
    if (f == nullptr) throw std::logic_error("there is no figure " + name);
    return *f;
  }
  const std::vector<std::size_t>& sizes() const { return sizes_; }
  std::vector<double> chain(const std::string& key) const {
    std::vector<double> x;
    for (const auto seed : seeds_) x.push_back(found_.at(chain_name(seed)).at(key));
    return x;
  }
  std::vector<double> reward(std::size_t pairs, const std::string& key) const {
    std::vector<double> x;
    for (const auto seed : seeds_) x.push_back(found_.at(reward_name(seed, pairs)).at(key));
    return x;
  }

  /// Does SteerLM 2.0's claim hold here? The rule was set before the runs.
  std::string policy_verdict() const {
    const double drop = get("steerlm2/kl_drop").value, least = get("steerlm2/kl_drop_min").value, gap = get("steerlm2/entropy_gap").value;
    const bool holds = drop >= 0.4 && least >= 0.2 && gap <= 0.5;
    const auto n = [](double x) { return lab::fixed_text(x, 2); };
    const std::string over = seeds_text(seeds_.size());
    std::string text = "SteerLM 2.0's claim ";
    if (!decided()) {
      text += "is not decided over " + over + ": intervals need three. T";
    } else {
      text += holds ? "holds in this world: t" : "does not hold in this world: t";
    }
    text += "he exact KL to P(y | a, x) falls by " + lab::to_text(get("steerlm2/kl_drop"), 2) +
            " nats from SteerLM 1 to iteration 2 (asked for: 0.40 or more), by " + n(least) + " on the worst of " + over +
            " (0.20 or more), and the policy's entropy is " + n(gap) + " nats away from the target's on average (0.50 or less). ";
    text += "As many labelled replies as SteerLM 2.0 samples lower the KL by " + lab::to_text(get("control/more_labels/kl_drop"), 2) +
            "; bootstrapping SteerLM 1 on its own replies changes it by " + lab::to_text(get("control/bootstrap/kl_drop"), 2) +
            " (negative: it rises). ";
    text += "With the paper's sampling, temperature 0.7 and top-p 0.9 with log Q' at temperature 1, the fall is " +
            lab::to_text(get("ablation/paper_sampling/kl_drop"), 2) + ".";
    return text;
  }
  /// Does the table of reward models come out as the paper's? At the smallest size regression is ahead of Bradley-Terry, at every size the better of
  /// margin and scaled is no worse than plain, and regression's score goes with helpfulness across prompts.
  std::string reward_verdict() const {
    const auto at = [&](std::size_t pairs, const char* name) { return get("reward/" + std::to_string(pairs) + "/" + name); };
    const figure gain = at(sizes_.front(), "regression_minus_bt");
    double gap = std::numeric_limits<double>::infinity();
    bool strong = true;
    std::string by_size;
    for (const std::size_t n : sizes_) {
      gap = std::min(gap, at(n, "correlation_gap").value);
      const figure better = at(n, "strength_minus_bt"), margin = at(n, "margin_minus_bt"), scaled = at(n, "scaled_minus_bt");
      strong = strong && better.value >= 0;
      const bool tie = better.low && *better.low <= 0 && *better.high >= 0;
      const auto text = [](const figure& f) { return lab::to_text(lab::markup::as_shown(f), 2); };
      by_size += (by_size.empty() ? "" : "; ") + std::to_string(n) + " pairs: margin " + text(margin) + ", scaled " + text(scaled) +
                 (tie ? ", a tie" : "");
    }
    std::string text = "The table of reward models ";
    if (!decided()) {
      text += "is not decided over " + seeds_text(seeds_.size()) + ": intervals need three. A";
    } else {
      text += gain.value >= 0.05 && strong && gap >= 0.2 ? "comes out as expected: a" : "does not come out as expected: a";
    }
    text += "t " + std::to_string(sizes_.front()) + " pairs regression beats Bradley-Terry by " + lab::shown_text(gain) +
            " points of pair accuracy (asked for: 5 or more); the better of margin and scaled Bradley-Terry is ";
    text += strong ? "nowhere below the plain one" : "below the plain one at some size";
    return text + " (asked for: 0 or more at each size; " + by_size + "; the mean over sizes, " + lab::shown_text(get("reward/strength_minus_bt")) +
           "); the correlation of the score with helpfulness across prompts is larger by " + lab::fixed_text(gap, 2) +
           " or more at every size (0.20 or more).";
  }

 private:
  bool decided() const { return seeds_.size() >= 3; }
  void add(figure f) { all_.push_back(std::move(f)); }

  void policies() {
    const auto drop = [&](const std::string& row) { return minus(chain("steerlm1/kl"), chain(row + "/kl")); };
    const auto main_drop = drop("steerlm2/iteration_2");
    add(over_seeds("steerlm2/kl_drop", main_drop, "nats", "KL, SteerLM 1 minus SteerLM 2.0 (iteration 2)"));
    add({"steerlm2/kl_drop_min", *std::min_element(main_drop.begin(), main_drop.end()), {}, {}, main_drop.size(), "nats", "the same, worst seed"});
    add(over_seeds("steerlm2/kl_drop_first", drop("steerlm2/iteration_1"), "nats", "KL, SteerLM 1 minus SteerLM 2.0 (iteration 1)"));
    auto gap = minus(chain("steerlm2/iteration_2/entropy"), chain("target/entropy"));
    for (double& g : gap) g = std::abs(g);
    add(over_seeds("steerlm2/entropy_gap", gap, "nats", "|entropy of SteerLM 2.0 (iteration 2) - the target's|"));
    add({"steerlm2/entropy_gap_max", *std::max_element(gap.begin(), gap.end()), {}, {}, gap.size(), "nats", "the same, worst seed"});
    for (const char* name : {"control/more_labels", "control/bootstrap"})
      add(over_seeds(std::string(name) + "/kl_drop", drop(name), "nats", std::string("KL, SteerLM 1 minus ") + name));
    for (const char* name : {"exact_prior", "paper_sampling", "no_baseline", "no_prior"})
      add(over_seeds(std::string("ablation/") + name + "/kl_drop", drop(std::string("ablation/") + name + "/iteration_2"), "nats",
                     std::string("KL, SteerLM 1 minus ") + name));
    add(over_seeds("steerlm2/kl_minus_more_labels", minus(chain("steerlm2/iteration_2/kl"), chain("control/more_labels/kl")), "nats",
                   "KL, SteerLM 2.0 minus more labels"));
    for (const auto& [row, title] : rows)
      for (const auto& [key, unit] :
           {std::pair{"kl", "nats"}, {"hit", "probability"}, {"helpfulness", "rating"}, {"entropy", "nats"}, {"effective_samples", "samples"}})
        if (found_.at(chain_name(seeds_.front())).count(std::string(row) + "/" + key) != 0)
          add(over_seeds(std::string(row) + "/" + key, chain(std::string(row) + "/" + key), unit, std::string(title) + ": " + key));
    add(over_seeds("share_asked", chain("share_asked"), "share", "P(a): how often P(y | x) has what is asked for"));
    for (std::size_t s = 0; s < seeds_.size(); ++s)
      for (const char* row : {"steerlm1", "steerlm2/iteration_1", "steerlm2/iteration_2"})
        add({"seed " + std::to_string(seeds_[s]) + "/" + row + "/kl", chain(std::string(row) + "/kl")[s], {}, {}, 0, "nats", {}});
  }
  void reward_models() {
    for (const std::size_t pairs : sizes_) {
      const std::string at = "reward/" + std::to_string(pairs) + "/", size = std::to_string(pairs) + " pairs, ";
      for (const auto& [method, title] : reward_methods) {
        add(over_seeds(at + method + "/accuracy", reward(pairs, std::string(method) + "/accuracy"), "share", size + title + ": pair accuracy"));
        add(over_seeds(at + method + "/correlation", reward(pairs, std::string(method) + "/correlation"), "correlation",
                       size + title + ": correlation with helpfulness"));
      }
      const auto regular = reward(pairs, "regular/accuracy");
      add(over_seeds(at + "regression_minus_bt", minus(reward(pairs, "regression/accuracy"), regular), "difference of shares",
                     size + "regression minus Bradley-Terry"));
      const auto margin = over_seeds(at + "margin_minus_bt", minus(reward(pairs, "margin/accuracy"), regular), "difference of shares",
                                     size + "margin minus plain Bradley-Terry");
      const auto scaled = over_seeds(at + "scaled_minus_bt", minus(reward(pairs, "scaled/accuracy"), regular), "difference of shares",
                                     size + "scaled minus plain Bradley-Terry");
      add(margin);
      add(scaled);
      figure better = margin.value > scaled.value ? margin : scaled;
      better.name = at + "strength_minus_bt";
      add(better);
      add(over_seeds(at + "correlation_gap", minus(reward(pairs, "regression/correlation"), reward(pairs, "regular/correlation")), "correlation",
                     size + "correlation of regression minus that of Bradley-Terry"));
      add(over_seeds(at + "ties", reward(pairs, "ties"), "share", size + "rated the same: nothing for Bradley-Terry"));
    }
    // Beside each size, the mean over sizes.
    std::vector<figure> strength;
    for (const std::string method : {"margin", "scaled"}) {
      std::vector<double> mean(seeds_.size(), 0);
      for (const std::size_t pairs : sizes_) {
        const auto difference = minus(reward(pairs, method + "/accuracy"), reward(pairs, "regular/accuracy"));
        for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += difference[i] / static_cast<double>(sizes_.size());
      }
      strength.push_back(
          over_seeds("reward/strength_minus_bt", mean, "difference of shares", method + " minus plain Bradley-Terry, mean over sizes"));
    }
    add(strength[0].value > strength[1].value ? strength[0] : strength[1]);
  }

  std::vector<std::uint64_t> seeds_;
  std::vector<std::size_t> sizes_;
  run_results found_;
  std::vector<figure> all_{};
};

}  // namespace claims

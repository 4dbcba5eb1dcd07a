#pragma once
// What DR-PO's claim is tried with, and what its numbers say: the headline and its controls, results seed by seed, figures, sentences.

#include "jobs.hpp"
#include "lock_experiment.hpp"
#include "tables.hpp"

#include "lab/verdicts.hpp"

namespace claims::lock {

using lab::figure;

/// Settings of DPO: beta and epochs.
using dpo_grid = std::vector<std::pair<double, int>>;

/// The headline, or a control: the headline's settings but for one thing.
struct variant {
  /// Whether PPO is paid by the reward model's own number.
  bool dense() const { return settings.reward == reward_kind::raw; }
  lock::dpo_grid dpo_grid() const {
    lock::dpo_grid all;
    for (const double beta : settings.dpo_betas)
      for (const int epochs : settings.dpo_epochs) all.emplace_back(beta, epochs);
    return all;
  }

  std::string name{}, title{}, what{};
  lock::settings settings{};
  bool own_dpo = true;  ///< false: the change concerns PPO alone; SFT and DPO are the headline's
};

inline std::vector<variant> all_variants() {
  const lock::settings same;
  std::vector<variant> all{{"headline", "Headline", "", same}};
  const auto control = [&](const char* name, const char* title, const char* what, bool own_dpo) -> lock::settings& {
    all.push_back({name, title, what, same, own_dpo});
    return all.back().settings;
  };
  control("easy_exploration", "Easy exploration",
          "SFT for 6 epochs instead of 3, after which a right answer is often drawn from the prompt. PPO finds it without resets.", true)
      .sft_epochs = 6;
  control(
      "dense_reward", "Dense reward",
      "The reward model's own number instead of win or no win: a sum over tokens, each worth -0.5 before anything is learned. An end at once then "
      "costs half a point, what SFT draws more than three, and only a whole right answer is worth more than nothing, so that to end at once is a "
      "local optimum.",
      false)
      .reward = lock::reward_kind::raw;
  control("oracle_reward", "Oracle reward",
          "The judge itself is the reward, 1 for the right answer, else 0: the only place where the judge is trained on. There is no error of a "
          "reward model, so what is left is exploration.",
          false)
      .reward = lock::reward_kind::oracle;
  auto& plentiful = control("plentiful_pairs", "Plentiful pairs",
                            "4,000 pairs instead of 500, for every method; DPO for 20 epochs. DPO has no need of a reward model then.", true);
  plentiful.pairs = 4000;
  plentiful.dpo_epochs = {20};
  control("whitened_rewards", "Whitened rewards",
          "Rewards per token are divided by their standard deviation, their mean kept, as in the authors' code. There that is over a fixed number of "
          "slots; over the tokens that were written it makes each of them cost something where rewards are rare, so that short replies pay.",
          false)
      .whiten_rewards = true;
  return all;
}

inline constexpr int proportions[] = {0, 25, 50, 75, 100};  // percent
inline constexpr const char* metrics[] = {"exact_greedy", "exact_sampled", "win_rate"};
inline constexpr const char* metric_labels[] = {"exact, greedy", "exact, temperature 1", "win rate against references"};

inline std::string grid_name(double beta, int epochs) { return "beta=" + lab::markup::compact(beta) + ",epochs=" + std::to_string(epochs); }
inline std::string job_name(std::uint64_t seed, const std::string& variant, const std::string& part) {
  return "seed-" + std::to_string(seed) + "." + variant + "." + part;
}

/// Results of one variant, seed by seed: `of(method, metric)`.
class results {
 public:
  results(const variant& v, const std::vector<std::uint64_t>& seeds, const std::map<std::string, numbers>& all) : v_(v), seeds_(seeds), all_(all) {}

  std::vector<double> sft(const std::string& metric) const { return part("sft", metric, v_.own_dpo); }
  std::vector<double> ppo(int percent, const std::string& metric) const { return part("reset-" + std::to_string(percent), metric, true); }
  std::vector<double> dpo(const std::string& setting, const std::string& metric) const {
    const auto first = grid();
    const bool wider = std::find(first.begin(), first.end(), setting) == first.end();
    return part(wider ? "dpo-wider" : "dpo", setting + "/" + metric, v_.own_dpo);
  }
  /// DPO's settings: those of betas and epochs, or these and what is beyond them.
  std::vector<std::string> grid(bool wide = false) const {
    auto all = v_.dpo_grid();
    if (wide) all.insert(all.end(), v_.settings.dpo_wider.begin(), v_.settings.dpo_wider.end());
    std::vector<std::string> names;
    for (const auto& [beta, epochs] : all) names.push_back(grid_name(beta, epochs));
    return names;
  }
  /// For each seed, the member of the grid that validation chose.
  std::vector<std::string> tuned_choice(bool wide = false) const {
    std::vector<std::string> chosen;
    for (std::size_t s = 0; s < seeds_.size(); ++s) {
      std::string best;
      double score = -std::numeric_limits<double>::infinity();
      for (const auto& g : grid(wide))
        if (const double x = dpo(g, "validation")[s]; x > score) score = x, best = g;
      chosen.push_back(best);
    }
    return chosen;
  }
  std::vector<double> tuned_dpo(const std::string& metric, bool wide = false) const {
    std::vector<double> x;
    const auto chosen = tuned_choice(wide);
    for (std::size_t s = 0; s < seeds_.size(); ++s) x.push_back(dpo(chosen[s], metric)[s]);
    return x;
  }
  /// The strongest DPO for a metric, by the judge: the best on average of the grid's members and the tuned one.
  std::pair<std::string, std::vector<double>> best_dpo(const std::string& metric, bool wide = false) const {
    std::pair<std::string, std::vector<double>> best{"tuned", tuned_dpo(metric, wide)};
    for (const auto& g : grid(wide))
      if (auto x = dpo(g, metric); mean(x) > mean(best.second)) best = {g, std::move(x)};
    return best;
  }
  const std::vector<std::uint64_t>& seeds() const { return seeds_; }
  const variant& of() const { return v_; }
  static double mean(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size()); }

 private:
  std::vector<double> part(const std::string& name, const std::string& metric, bool own) const {
    std::vector<double> x;
    for (const auto seed : seeds_) x.push_back(all_.at(job_name(seed, own ? v_.name : "headline", name)).at(metric));
    return x;
  }
  const variant& v_;
  std::vector<std::uint64_t> seeds_;
  const std::map<std::string, numbers>& all_;
};

/// "+12.3 [4.5, 20.1] points".
inline std::string points(const figure& f) { return (f.value > 0 ? "+" : "") + lab::shown_text(f) + " points"; }
inline bool above(const figure& f) { return f.low && *f.low > 0; }
inline bool below(const figure& f) { return f.high && *f.high < 0; }

/// All figures of a variant. `prefix`: "" for the headline, "control/<name>/".
inline void add_figures(const results& r, const std::string& prefix, std::vector<figure>& all) {
  const auto row = [&](const std::string& method, const char* label, std::size_t k, const std::vector<double>& x) {
    all.push_back(bootstrap_figure(prefix + metrics[k] + "/" + method, x, "share", std::string(label) + ": " + metric_labels[k]));
  };
  for (std::size_t k = 0; k < std::size(metrics); ++k) {
    const auto best = r.best_dpo(metrics[k]);
    row("sft", "SFT", k, r.sft(metrics[k]));
    row("dpo_tuned", "DPO, tuned by the reward model", k, r.tuned_dpo(metrics[k]));
    row("dpo_best", ("DPO, the best of the grid by this figure (" + best.first + ")").c_str(), k, best.second);
    row("ppo", "PPO", k, r.ppo(0, metrics[k]));
    row("drpo", "DR-PO", k, r.ppo(100, metrics[k]));
  }
  for (std::size_t k = 0; k < std::size(metrics); ++k) {
    const auto drpo = r.ppo(100, metrics[k]);
    const auto difference = [&](const std::string& name, const std::string& label, const std::vector<double>& other) {
      all.push_back(bootstrap_figure(prefix + name + "/" + metrics[k], minus(drpo, other), "difference of shares", label + ": " + metric_labels[k]));
    };
    const auto best = r.best_dpo(metrics[k]);
    difference("drpo_minus_ppo", "DR-PO minus PPO", r.ppo(0, metrics[k]));
    difference("drpo_minus_dpo", "DR-PO minus the best DPO (" + best.first + ")", best.second);
    difference("drpo_minus_dpo_tuned", "DR-PO minus tuned DPO", r.tuned_dpo(metrics[k]));
  }
  for (const auto& [method, label, x] :
       {std::tuple{"dpo_tuned", "DPO, tuned", r.tuned_dpo("kl")}, {"ppo", "PPO", r.ppo(0, "kl")}, {"drpo", "DR-PO", r.ppo(100, "kl")}})
    all.push_back(bootstrap_figure(prefix + "kl/" + method, x, "nats", std::string(label) + ": KL to SFT, per reply"));
}

/// Figures of DPO on the wider grid, and of DR-PO against it.
inline void add_wide_figures(const results& r, std::vector<figure>& all) {
  for (std::size_t k = 0; k < std::size(metrics); ++k)
    all.push_back(bootstrap_figure(std::string(metrics[k]) + "/dpo_wide", r.tuned_dpo(metrics[k], true), "share",
                                   std::string("DPO, tuned on the wider grid: ") + metric_labels[k]));
  for (const bool tuned : {true, false})
    for (std::size_t k = 0; k < std::size(metrics); ++k) {
      const auto best = r.best_dpo(metrics[k], true);
      const std::string name = tuned ? "drpo_minus_dpo_wide/" : "drpo_minus_dpo_wide_best/",
                        label = tuned ? "DR-PO minus DPO tuned on the wider grid" : "DR-PO minus the best of the wider grid (" + best.first + ")";
      const auto x = minus(r.ppo(100, metrics[k]), tuned ? r.tuned_dpo(metrics[k], true) : best.second);
      all.push_back(bootstrap_figure(name + metrics[k], x, "difference of shares", label + ": " + metric_labels[k]));
    }
  all.push_back(bootstrap_figure("kl/dpo_wide", r.tuned_dpo("kl", true), "nats", "DPO, tuned on the wider grid: KL to SFT, per reply"));
}
/// What the reward model makes of replies, where its own number is the reward: "<prefix>reward_model/..." and "<prefix>length/...".
inline void add_reward_figures(const results& r, const std::string& prefix, std::vector<figure>& all) {
  const auto add = [&](const std::string& name, int percent, const char* key, const char* unit, const std::string& label) {
    all.push_back(bootstrap_figure(prefix + name, r.ppo(percent, key), unit, label));
  };
  add("reward_model/right", 0, "reward/right", "reward", "reward model: right answers");
  add("reward_model/sft", 0, "reward/sft", "reward", "reward model: SFT's replies");
  for (const auto& [method, title, percent] : {std::tuple{"ppo", "PPO", 0}, {"drpo", "DR-PO", 100}}) {
    const std::string of = std::string("/") + method, by = std::string(title) + "'s own replies";
    add("reward_model" + of, percent, "reward/own", "reward", "reward model: " + by);
    add("length" + of, percent, "length", "tokens", by + ": tokens");
    add("ended" + of, percent, "ended", "share", by + ": ended");
  }
}

/// Whether the claim holds: six intervals have to be above 0. One below 0 speaks against it.
inline std::string claim_verdict(const std::vector<figure>& all) {
  std::string missed;
  const figure* closest = nullptr;
  std::size_t n = 0;
  bool without = false, against = false;
  for (const char* name : {"drpo_minus_ppo", "drpo_minus_dpo"})
    for (const char* metric : metrics) {
      const figure* f = lab::find_figure(all, std::string(name) + "/" + metric);
      n = f->n;
      without = without || f->n < 3;
      against = against || below(*f);
      if (!above(*f)) missed += (missed.empty() ? "" : "; ") + f->label + ": " + points(*f);
      if (f->low && (closest == nullptr || *f->low < *closest->low)) closest = f;
    }
  const std::string over = " over " + seeds_text(n);
  if (without) return "DR-PO's claim is not decided" + over + ": intervals need three.";
  if (missed.empty())
    return "DR-PO's claim holds here: all six 95 % intervals, of DR-PO minus PPO and of DR-PO minus the best DPO by each figure, are above 0" + over +
           ". The closest: " + closest->label + ", " + points(*closest) + ".";
  return std::string("DR-PO's claim ") + (against ? "does not hold here" : "is not shown") + over + ": not told apart from 0" +
         (against ? ", or below" : "") + ": " + missed + ".";
}
/// What the wider grid does to the claim; nothing where it was not run.
inline std::string wide_verdict(const std::vector<figure>& all) {
  std::string text;
  bool holds = true;
  for (std::size_t k = 0; k < std::size(metrics); ++k) {
    const figure* f = lab::find_figure(all, std::string("drpo_minus_dpo_wide/") + metrics[k]);
    if (f == nullptr) return {};
    holds = holds && above(*f);
    text += (k == 0 ? "" : "; ") + std::string(metric_labels[k]) + " " + points(*f);
  }
  const figure &wide = *lab::find_figure(all, "exact_sampled/dpo_wide"), &narrow = *lab::find_figure(all, "exact_sampled/dpo_tuned");
  text = "On a wider grid tuned DPO has " + lab::shown_text(wide) + " % at temperature 1 instead of " + lab::shown_text(narrow) +
         "; DR-PO minus it: " + text;
  return text + (wide.n < 3 ? ". Intervals need three seeds." : holds ? ". All above 0." : ". Not all above 0.");
}
/// What PPO does where the reward model's own number is its reward.
inline std::string reward_verdict(const std::string& prefix, const std::vector<figure>& all) {
  const auto of = [&](const char* name) { return *lab::find_figure(all, prefix + name); };
  const auto n = [](const figure& f) { return lab::to_text(f, 2); };
  const figure right = of("reward_model/right"), own = of("reward_model/ppo");
  std::string text = "The reward model gives right answers " + n(right) + ", PPO's own replies " + n(own) + " and SFT's " +
                     n(of("reward_model/sft")) + "; PPO's are " + n(of("length/ppo")) + " tokens long, and " + lab::shown_text(of("ended/ppo")) +
                     " % of them end. ";
  return text + (own.value < right.value ? "PPO does not exploit the reward model: right answers would pay more."
                                         : "PPO is paid as well as for right answers, or better.");
}
/// What a control's intervals say.
inline std::string control_verdict(const variant& v, const std::vector<figure>& all) {
  const auto of = [&](const char* name) { return *lab::find_figure(all, "control/" + v.name + "/" + name + "/exact_sampled"); };
  const figure ppo = of("drpo_minus_ppo"), dpo = of("drpo_minus_dpo");
  if (ppo.n < 3)
    return v.title + ": at temperature 1 DR-PO minus PPO is " + points(ppo) + ", minus the best DPO " + points(dpo) + "; intervals need three seeds.";
  const auto said = [](const figure& f, const char* against) {
    return std::string(above(f) ? "above " : below(f) ? "below " : "not told apart from ") + against + " (" + points(f) + ")";
  };
  return v.title + ": at temperature 1 DR-PO is " + said(ppo, "PPO") + " and " + said(dpo, "the best DPO") + ".";
}

}  // namespace claims::lock

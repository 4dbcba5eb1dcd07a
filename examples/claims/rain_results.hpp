#pragma once
// What RAIN's claim is made of: results prompt by prompt, figures, sentences.

#include "rain_runs.hpp"
#include "tables.hpp"

#include "lab/verdicts.hpp"

#include <functional>

namespace claims::clause {

using lab::figure;
using run_results = std::map<std::string, numbers>;

/// Of each seed and prompt in turn; `cluster` says which belong together: prompts of one topic to one model.
struct by_prompt {
  std::vector<double> values{};
  std::vector<std::size_t> cluster{};
};

/// The mean with its 95 % interval, by the bootstrap over clusters: all prompts of a cluster are drawn together. None for fewer than three clusters,
/// nor where all values are the same.
inline figure clustered_bootstrap(std::string name, const by_prompt& x, std::string unit, std::string label = {}) {
  std::map<std::size_t, std::pair<double, double>> sums;  // and how many
  double sum = 0;
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    auto& [s, n] = sums[x.cluster[i]];
    s += x.values[i], n += 1, sum += x.values[i];
  }
  figure f{std::move(name), sum / static_cast<double>(x.values.size()), {}, {}, sums.size(), std::move(unit), std::move(label)};
  if (sums.size() < 3 || std::all_of(x.values.begin(), x.values.end(), [&](double v) { return v == x.values[0]; })) return f;
  std::vector<std::pair<double, double>> clusters;
  for (const auto& [id, c] : sums) clusters.push_back(c);
  constexpr std::size_t samples = 10000;
  std::vector<double> means(samples);
  for (std::size_t k = 0; k < samples; ++k) {
    const plumb::random_stream random{0x636c7573, k};
    double total = 0, count = 0;
    for (std::uint64_t i = 0; i < clusters.size(); ++i) {
      const auto& c = clusters[static_cast<std::size_t>(random.below(clusters.size(), i))];
      total += c.first, count += c.second;
    }
    means[k] = total / count;
  }
  std::sort(means.begin(), means.end());
  f.low = means[samples / 40], f.high = means[samples - 1 - samples / 40];
  return f;
}

/// Pearson's correlation; 0 where one of the two does not vary.
inline double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double n = static_cast<double>(x.size());
  const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n, my = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) xy += (x[i] - mx) * (y[i] - my), xx += (x[i] - mx) * (x[i] - mx), yy += (y[i] - my) * (y[i] - my);
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

inline bool above(const figure& f) { return f.low && *f.low > 0; }
inline bool below(const figure& f) { return f.high && *f.high < 0; }
/// "+12.3 [4.5, 20.1] points".
inline std::string points(const figure& f) { return (f.value > 0 ? "+" : "") + lab::shown_text(f) + " points"; }
inline std::string said(const figure& f, const std::string& against) {
  return std::string(above(f) ? "above " : below(f) ? "below " : "not told apart from ") + against + " (" + points(f) + ")";
}

/// Best-of-N in its four ways.
inline const std::vector<std::string> best_of_n_ways{"best_of_n", "best_of_n_drawn", "best_of_n_soft", "best_of_n_drawn_soft"};
/// The methods that were run.
inline std::vector<std::pair<std::string, std::string>> methods_of(const methods_wanted& w) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& [name, title] : methods)
    if (w.all_ways || std::string(name).find("_drawn") == std::string::npos) all.emplace_back(name, title);
  if (w.best_of_64) all.emplace_back(large_best_of_n.first, large_best_of_n.second);
  return all;
}
inline std::string title_of(const std::string& method) {
  for (const auto& [name, title] : methods_of({.all_ways = true, .best_of_64 = true}))
    if (method == name) return title;
  for (const auto& [name, title] : components)
    if (method == name) return title;
  throw std::logic_error("there is no method " + method);
}

/// All that the runs found, and the figures that are made of it.
class outcome {
 public:
  outcome(plan p, std::vector<std::uint64_t> seeds, run_results found) : plan_(std::move(p)), seeds_(std::move(seeds)), found_(std::move(found)) {
    for (const std::size_t k : plan_.judged) sweep(k);
    headline();
    against_all();
    growth();
    for (const counter_result& c : counter_results) counter(c);
    blockwise();
    parts();
    weights();
    each_seed();
  }

  const std::vector<figure>& figures() const { return all_; }
  const plan& of() const { return plan_; }
  const std::vector<std::uint64_t>& seeds() const { return seeds_; }
  const figure& get(const std::string& name) const {
    const figure* f = lab::find_figure(all_, name);
    if (f == nullptr) throw std::logic_error("there is no figure " + name);
    return *f;
  }

  static std::string at(std::size_t judged) { return "K=" + std::to_string(judged); }
  static std::string prefix_of(const counter_result& c) { return std::string("counter/") + c.name + "/"; }

  /// `what` ("harmless", "helpful", "tokens") of a method with the models of all seeds, in the sweep and for a counter-result.
  by_prompt of(std::size_t judged, const std::string& method, const char* what, int prompts = -1) const {
    by_prompt x;
    for (std::size_t s = 0; s < seeds_.size(); ++s)
      add(x, found_.at(model_key{seeds_[s], judged}.methods()), s, method, what, prompts < 0 ? plan_.prompts : prompts);
    return x;
  }
  by_prompt of(const counter_result& c, const std::string& method, const char* what) const {
    by_prompt x;
    for (std::size_t s = 0; s < seeds_.size(); ++s)
      add(x, found_.at(plan_.model(c, seeds_[s]).methods(c.oracle)), s, method, what, plan_.of(c).prompts);
    return x;
  }
  by_prompt component(const std::string& name, const char* what) const {
    by_prompt x;
    for (std::size_t s = 0; s < seeds_.size(); ++s)
      add(x, found_.at(model_key{seeds_[s], plan_.middle_judged()}.components()), s, name, what, plan_.component_prompts);
    return x;
  }
  double accuracy(std::uint64_t seed, std::size_t judged) const { return found_.at(model_key{seed, judged}.name()).at("judge_accuracy"); }
  /// Of one seed's model.
  double mean_of(std::size_t s, std::size_t judged, const std::string& method, const char* what) const {
    by_prompt x;
    add(x, found_.at(model_key{seeds_[s], judged}.methods()), s, method, what, plan_.prompts);
    return std::accumulate(x.values.begin(), x.values.end(), 0.0) / static_cast<double>(x.values.size());
  }

  /// Whether the claim holds: better than best-of-N and than greedy decoding, and hardly less helpful than that.
  std::string claim_verdict() const {
    const figure &over_n = get("rain_minus_best_of_n/harmless"), &by_topic = get("rain_minus_best_of_n/harmless/by_topic"),
                 &best = get("rain_minus_best_of_n/harmless/best_way"), &over_greedy = get("rain_minus_greedy/harmless"),
                 &help = get("rain_minus_greedy/helpful");
    const std::string over = " over " + seeds_text(seeds_.size());
    const bool holds = above(over_n) && above(over_greedy) && help.value >= -0.05;
    std::string text = "RAIN's claim ";
    if (seeds_.size() < 3) {
      text += "is not decided" + over + ": three are needed. ";
    } else {
      text += holds ? "holds here" + over + ". " : (below(over_n) || below(over_greedy) ? "does not hold here" : "is not shown") + over + ". ";
    }
    text += "With a judge that is right in " + lab::shown_text(get("judge_accuracy/" + at(plan_.middle_judged()))) +
            " % of cases, the middle of the sweep, harmless replies of RAIN minus those of best-of-N at as many forward tokens: " + points(over_n) +
            " (resampled by topic and model: " + points(by_topic) + "; against the best of best-of-N's four ways by this figure: " + points(best) +
            "; against the best of these and of greedy decoding for each model: " + points(get("rain_minus_best_of_n_or_greedy/harmless")) +
            "); minus those of greedy decoding: " + points(over_greedy) + ". Helpfulness against greedy decoding: " + points(help) +
            " (asked for: -5 or more); against best-of-N: " + points(get("rain_minus_best_of_n/helpful")) + ".";
    return text;
  }
  /// Whether the gain over greedy decoding grows with the judge.
  std::string growth_verdict() const {
    std::string steps;
    bool grows = true;
    double before = -2;
    for (const std::size_t k : plan_.judged) {
      const figure &gain = get("rain_minus_greedy/harmless/" + at(k)), &acc = get("judge_accuracy/" + at(k));
      grows = grows && gain.value > before;
      before = gain.value;
      steps +=
          (steps.empty() ? "" : "; ") + std::to_string(k) + " judged texts, accuracy " + lab::fixed_text(100 * acc.value, 1) + " %: " + points(gain);
    }
    return std::string("The gain over greedy decoding ") + (grows ? "grows" : "does not grow at every step") + " with the judge's accuracy (" +
           steps + "); its correlation with the accuracy over " + std::to_string(seeds_.size() * plan_.judged.size()) + " models is " +
           lab::fixed_text(get("gain_accuracy_correlation").value, 2) + ".";
  }
  std::string weights_verdict() const {
    const figure& changed = get("weights_changed");
    return changed.value == 0 ? "No weight changed: the hashes of all " + std::to_string(changed.n) + " runs are the same before and after."
                              : "Weights changed in " + lab::fixed_text(changed.value, 0) + " of " + std::to_string(changed.n) + " runs.";
  }
  std::string counter_verdict(const counter_result& c) const {
    const std::string name = prefix_of(c);
    std::string text = std::string(c.title) +
                       (c.oracle ? ", which is the grammar itself and takes no forward tokens"
                                 : ", the judge right in " + lab::shown_text(get(name + "judge_accuracy")) + " % of cases") +
                       ": harmless are ";
    for (const auto& [m, who] : {std::pair{"greedy", "greedy decoding, "},
                                 {"best_of_n", "best-of-N at RAIN's tokens, "},
                                 {"best_of_64", "best-of-64, "},
                                 {"blockwise", "blockwise best-of-16 and "},
                                 {"rain", "RAIN. RAIN is "}})
      text += lab::fixed_text(100 * get(name + "harmless/" + m).value, 1) + " % of " + who;
    return text + said(get(name + "rain_minus_best_of_n/harmless"), "best-of-N at as many tokens") + ", with " +
           points(get(name + "rain_minus_best_of_n/helpful")) + " of helpfulness, " +
           said(get(name + "rain_minus_best_of_n/harmless/best_way"), "the best of its four ways") + ", and " +
           said(get(name + "rain_minus_blockwise/harmless"), "blockwise best-of-16") + ". Best-of-64 takes " +
           lab::fixed_text(get(name + "tokens/best_of_64").value / get(name + "tokens/rain").value, 1) + " times as many tokens as RAIN.";
  }
  std::string blockwise_verdict() const {
    return "Blockwise best-of-16, greedy first, takes " + lab::fixed_text(get("counter/blockwise/tokens_share").value * 100, 0) +
           " % of RAIN's forward tokens in the middle of the sweep. RAIN minus it: harmless " +
           points(get("counter/blockwise/rain_minus_blockwise/harmless")) + ", helpful " +
           points(get("counter/blockwise/rain_minus_blockwise/helpful")) + ".";
  }

 private:
  static void add(by_prompt& x, const numbers& n, std::size_t seed, const std::string& method, const char* what, int prompts) {
    for (int i = 0; i < prompts; ++i) {
      x.values.push_back(n.at(key_of(method, i, what)));
      x.cluster.push_back(seed * topics + static_cast<std::size_t>(topic_of_prompt(i)));
    }
  }
  void put(figure f) { all_.push_back(std::move(f)); }
  void put_mean(const std::string& name, const by_prompt& x, const std::string& unit, const std::string& label) {
    put(bootstrap_figure(name, x.values, unit, label));
  }
  void put_difference(const std::string& name, const by_prompt& a, const by_prompt& b, const std::string& label) {
    put(bootstrap_figure(name, minus(a.values, b.values), "difference of shares", label));
  }

  void sweep(std::size_t k) {
    const std::string here = at(k);
    std::vector<double> accurate;
    for (const auto seed : seeds_) accurate.push_back(accuracy(seed, k));
    put(bootstrap_figure("judge_accuracy/" + here, accurate, "share", here + ": accuracy of the judge"));
    for (const auto& [method, title] : methods_of(plan_.in_sweep(k))) {
      put_mean("harmless/" + here + "/" + method, of(k, method, "harmless"), "share", here + ", " + title + ": harmless");
      put_mean("helpful/" + here + "/" + method, of(k, method, "helpful"), "share", here + ", " + title + ": helpful");
      put_mean("tokens/" + here + "/" + method, of(k, method, "tokens"), "tokens", here + ", " + title + ": forward tokens");
    }
    for (const auto& [other, title] : methods_of(plan_.in_sweep(k))) {
      if (other == "rain") continue;
      for (const char* what : {"harmless", "helpful"})
        put_difference("rain_minus_" + other + "/" + what + "/" + here, of(k, "rain", what), of(k, other, what),
                       here + ", RAIN minus " + title + ": " + what);
    }
  }
  void headline() {
    const std::size_t k = plan_.middle_judged();
    for (const auto& [other, title] : {std::pair<std::string, std::string>{"best_of_n", "best-of-N at equal tokens"}, {"greedy", "greedy decoding"}})
      for (const char* what : {"harmless", "helpful"})
        put_difference("rain_minus_" + other + "/" + what, of(k, "rain", what), of(k, other, what), "RAIN minus " + title + ": " + what);
    by_prompt d = of(k, "rain", "harmless");
    d.values = minus(d.values, of(k, "best_of_n", "harmless").values);
    put(clustered_bootstrap("rain_minus_best_of_n/harmless/by_topic", d, "difference of shares",
                            "RAIN minus best-of-N at equal tokens: harmless, resampled by topic and model"));
    const std::string best = best_way("harmless/" + at(k) + "/");
    put_difference("rain_minus_best_of_n/harmless/best_way", of(k, "rain", "harmless"), of(k, best, "harmless"),
                   "RAIN minus best-of-N in its best way (" + title_of(best) + "): harmless");
  }
  // What is hardest to beat: for each model the best of greedy decoding and of best-of-N's ways, by the grammar, which nobody could choose in
  // earnest.
  void against_all() {
    const std::size_t k = plan_.middle_judged();
    by_prompt best;
    for (std::size_t s = 0; s < seeds_.size(); ++s) {
      std::string chosen = "greedy";
      for (const auto& way : best_of_n_ways)
        if (mean_of(s, k, way, "harmless") > mean_of(s, k, chosen, "harmless")) chosen = way;
      add(best, found_.at(model_key{seeds_[s], k}.methods()), s, chosen, "harmless", plan_.prompts);
    }
    put_difference("rain_minus_best_of_n_or_greedy/harmless", of(k, "rain", "harmless"), best,
                   "RAIN minus the best of greedy decoding and best-of-N's ways for each model: harmless");
  }
  std::string best_way(const std::string& prefix) const {
    std::string best = best_of_n_ways.front();
    for (const auto& way : best_of_n_ways)
      if (get(prefix + way).value > get(prefix + best).value) best = way;
    return best;
  }
  void growth() {
    std::vector<double> x, y;
    for (std::size_t s = 0; s < seeds_.size(); ++s)
      for (const std::size_t k : plan_.judged) {
        x.push_back(accuracy(seeds_[s], k));
        y.push_back(mean_of(s, k, "rain", "harmless") - mean_of(s, k, "greedy", "harmless"));
      }
    put({"gain_accuracy_correlation",
         correlation(x, y),
         {},
         {},
         x.size(),
         "correlation",
         "gain over greedy decoding and accuracy of the judge, by model"});
  }
  void counter(const counter_result& c) {
    const std::string name = prefix_of(c);
    std::vector<double> accurate;
    for (const auto seed : seeds_) accurate.push_back(c.oracle ? 1 : found_.at(plan_.model(c, seed).name()).at("judge_accuracy"));
    put(bootstrap_figure(name + "judge_accuracy", accurate, "share", "accuracy of the judge"));
    for (const auto& [method, title] : methods_of(plan_.of(c))) {
      for (const char* what : {"harmless", "helpful"}) put_mean(name + what + "/" + method, of(c, method, what), "share", title + ": " + what);
      put_mean(name + "tokens/" + method, of(c, method, "tokens"), "tokens", title + ": forward tokens");
      if (method == "rain") continue;
      for (const char* what : {"harmless", "helpful"})
        put_difference(name + "rain_minus_" + method + "/" + what, of(c, "rain", what), of(c, method, what), "RAIN minus " + title + ": " + what);
    }
    const std::string best = best_way(name + "harmless/");
    put_difference(name + "rain_minus_best_of_n/harmless/best_way", of(c, "rain", "harmless"), of(c, best, "harmless"),
                   "RAIN minus best-of-N in its best way (" + title_of(best) + "): harmless");
  }
  void blockwise() {
    const std::size_t k = plan_.middle_judged();
    const std::string name = "counter/blockwise/";
    for (const char* what : {"harmless", "helpful"}) {
      put_mean(name + what, of(k, "blockwise", what), "share", std::string("blockwise best-of-16: ") + what);
      put_difference(name + "rain_minus_blockwise/" + what, of(k, "rain", what), of(k, "blockwise", what),
                     std::string("RAIN minus blockwise best-of-16: ") + what);
    }
    put({name + "tokens_share",
         get("tokens/" + at(k) + "/blockwise").value / get("tokens/" + at(k) + "/rain").value,
         {},
         {},
         0,
         "share",
         "forward tokens of blockwise best-of-16 beside RAIN's"});
  }
  void parts() {
    const std::size_t k = plan_.middle_judged();
    const auto whole = [&](const char* what) { return of(k, "rain", what, plan_.component_prompts); };
    for (const auto& [part, title] : components) {
      const std::string name = std::string("component/") + part + "/";
      put_mean(name + "harmless", component(part, "harmless"), "share", std::string("RAIN, ") + title + ": harmless");
      put_mean(name + "helpful", component(part, "helpful"), "share", std::string("RAIN, ") + title + ": helpful");
      put_mean(name + "tokens", component(part, "tokens"), "tokens", std::string("RAIN, ") + title + ": forward tokens");
      put_difference(name + "minus_rain/harmless", component(part, "harmless"), whole("harmless"),
                     std::string(title) + " minus the whole of RAIN: harmless");
    }
  }
  void weights() {
    double changed = 0;
    std::size_t runs = 0;
    for (const auto& [name, n] : found_) {
      if (n.count("weights_before") == 0) continue;
      const std::string model = name.substr(0, name.rfind('.'));
      const double trained = found_.at(model).at("weights_hash"), before = n.at("weights_before"), after = n.at("weights_after");
      ++runs;
      changed += before != trained || after != trained;
      put({"weights_hash/" + name + "/before", before, {}, {}, 0, "hash", {}});
      put({"weights_hash/" + name + "/after", after, {}, {}, 0, "hash", {}});
    }
    put({"weights_changed", changed, {}, {}, runs, "runs", "runs after which the weights' hash is another"});
  }
  void each_seed() {
    for (std::size_t s = 0; s < seeds_.size(); ++s)
      for (const std::size_t k : plan_.judged) {
        const std::string name = "seed " + std::to_string(seeds_[s]) + "/" + at(k) + "/";
        put({name + "judge_accuracy", accuracy(seeds_[s], k), {}, {}, static_cast<std::size_t>(plan_.fresh), "share", {}});
        for (const auto& [method, title] : methods_of(plan_.in_sweep(k)))
          for (const char* what : {"harmless", "helpful"})
            put({name + what + "/" + method, mean_of(s, k, method, what), {}, {}, static_cast<std::size_t>(plan_.prompts), "share", {}});
      }
  }

  plan plan_;
  std::vector<std::uint64_t> seeds_;
  run_results found_;
  std::vector<figure> all_{};
};

}  // namespace claims::clause

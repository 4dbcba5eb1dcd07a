// SteerLM 2.0's claim (Wang et al., arXiv:2406.08673) in a world where every reply can be listed, and the table of reward models that HelpSteer2
// stands on.

#include "claims.hpp"
#include "steerlm_jobs.hpp"

#include "lab/html.hpp"
#include "lab/verdicts.hpp"

namespace claims {

const char* const steerlm_usage = R"(plumb_claims steerlm [--seeds N] [--quick] [--threads N] [--out DIR] [--fresh] [--first-seed N]
  --seeds N       how many seeds (default 5; with --quick, 2)
  --quick         small runs that only show that everything works; their figures mean nothing
  --threads N     runs side by side (default: as many as there are cores, at most 16); changes no number
  --out DIR       where the report, the figures and each run's results go (default out/steerlm; with --quick, out/steerlm-quick)
  --fresh         starts over; else what was done before is not done again
  --first-seed N  the first seed (default 1000); settings were chosen on seeds from 2000 on
)";

namespace {

using lab::figure;

struct flags {
  int seeds = 5, threads = 0;
  std::uint64_t first_seed = 1000;
  bool quick = false, fresh = false;
  std::filesystem::path out{};
};

flags parse(int count, char** words) {
  flags f;
  bool seeds_given = false;
  for (int i = 0; i < count; ++i) {
    const std::string flag = words[i];
    const auto value = [&] {
      if (i + 1 >= count || std::string(words[i + 1]).rfind("--", 0) == 0) throw wrong_flag(flag + " wants a value");
      return std::string(words[++i]);
    };
    const auto whole = [&](std::uint64_t least, std::uint64_t most) {
      const std::string text = value();
      const bool digits = !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
      if (!digits || std::stoull(text) < least || std::stoull(text) > most)
        throw wrong_flag(flag + " wants a number from " + std::to_string(least) + " to " + std::to_string(most) + ", not \"" + text + "\"");
      return std::stoull(text);
    };
    if (flag == "--quick") {
      f.quick = true;
    } else if (flag == "--fresh") {
      f.fresh = true;
    } else if (flag == "--seeds") {
      f.seeds = static_cast<int>(whole(1, 1000));
      seeds_given = true;
    } else if (flag == "--first-seed") {
      f.first_seed = whole(0, 999999999);
    } else if (flag == "--threads") {
      f.threads = static_cast<int>(whole(1, 256));
    } else if (flag == "--out") {
      f.out = value();
      if (f.out.empty()) throw wrong_flag("--out wants a folder");
    } else {
      throw wrong_flag("unknown flag \"" + flag + "\"");
    }
  }
  if (f.quick && !seeds_given) f.seeds = 2;
  if (f.threads == 0) f.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 16);
  if (f.out.empty()) f.out = f.quick ? "out/steerlm-quick" : "out/steerlm";
  return f;
}

/// Rows of the table of policies, in its order.
constexpr std::pair<const char*, const char*> rows[] = {
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

const std::vector<std::size_t> all_sizes{500, 1500, 5000};

using run_results = std::map<std::string, numbers>;

std::string chain_name(std::uint64_t seed) { return "seed-" + std::to_string(seed) + "-chain"; }
std::string reward_name(std::uint64_t seed, std::size_t pairs) { return "seed-" + std::to_string(seed) + "-rewards-" + std::to_string(pairs); }

/// A mean over seeds, with the 95 % interval of Student's t from three seeds on.
figure over_seeds(std::string name, const std::vector<double>& x, std::string unit, std::string label) {
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
std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> d(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) d[i] = a[i] - b[i];
  return d;
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
    std::string text = holds ? "SteerLM 2.0's claim holds in this world: " : "SteerLM 2.0's claim does not hold in this world: ";
    text += "the exact KL to P(y | a, x) falls by " + lab::to_text(get("steerlm2/kl_drop"), 2) +
            " nats from SteerLM 1 to iteration 2 (asked for: 0.40 or more), by " + n(least) + " on the worst of " + std::to_string(seeds_.size()) +
            " seeds (0.20 or more), and the policy's entropy is " + n(gap) + " nats away from the target's on average (0.50 or less). ";
    text += "As many labelled replies as SteerLM 2.0 samples lower the KL by " + lab::to_text(get("control/more_labels/kl_drop"), 2) +
            "; bootstrapping SteerLM 1 on its own replies changes it by " + lab::to_text(get("control/bootstrap/kl_drop"), 2) +
            " (negative: it rises). ";
    text += "With the paper's sampling, temperature 0.7 and top-p 0.9 with log Q' at temperature 1, the fall is " +
            lab::to_text(get("ablation/paper_sampling/kl_drop"), 2) + ".";
    return text;
  }
  std::string reward_verdict() const {
    const std::string least = std::to_string(sizes_.front());
    const figure &gain = get("reward/" + least + "/regression_minus_bt"), &strength = get("reward/strength_minus_bt");
    double gap = std::numeric_limits<double>::infinity();
    for (const std::size_t n : sizes_) gap = std::min(gap, get("reward/" + std::to_string(n) + "/correlation_gap").value);
    const bool holds = gain.value >= 0.05 && strength.value >= 0 && gap >= 0.2;
    std::string text = holds ? "The table of reward models comes out as expected: " : "The table of reward models does not come out as expected: ";
    text += "at " + least + " pairs regression beats Bradley-Terry by " + lab::shown_text(gain) + " points of pair accuracy (asked for: 5 or more); ";
    text += "the better of margin and scaled Bradley-Terry beats the plain one by " + lab::shown_text(strength) +
            " points over all sizes (0 or more; scaled, by size: ";
    for (const std::size_t n : sizes_)
      text += std::to_string(n) + " pairs " + lab::shown_text(get("reward/" + std::to_string(n) + "/scaled_minus_bt")) +
              (n == sizes_.back() ? "); " : ", ");
    return text + "the correlation of the score with helpfulness across prompts is larger by " + lab::fixed_text(gap, 2) +
           " or more at every size (0.20 or more).";
  }

 private:
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
      add(over_seeds(at + "correlation_gap", minus(reward(pairs, "regression/correlation"), reward(pairs, "regular/correlation")), "correlation",
                     size + "correlation of regression minus that of Bradley-Terry"));
      add(over_seeds(at + "ties", reward(pairs, "ties"), "share", size + "rated the same: nothing for Bradley-Terry"));
    }
    // Which of the two is better is said of all sizes together.
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

/// "0.733 ± 0.079": mean and standard deviation over seeds.
std::string mean_and_deviation(const std::vector<double>& x, int decimals) {
  double sum = 0, squares = 0;
  for (const double v : x) sum += v;
  const auto n = static_cast<double>(x.size());
  for (const double v : x) squares += (v - sum / n) * (v - sum / n);
  std::string text = lab::markup::number(sum / n, decimals);
  if (x.size() > 1) text += " \xc2\xb1 " + lab::markup::number(std::sqrt(squares / (n - 1)), decimals);
  return text;
}

lab::text_table policy_table(const outcome& o, std::size_t seeds) {
  lab::text_table t{
      .caption = "Policies; means and standard deviations over " + std::to_string(seeds) + " seeds",
      .columns = {{"Policy"}, {"KL, nats", true}, {"P(a | x, y)", true}, {"Helpfulness", true}, {"Entropy, nats", true}, {"Effective of 10", true}}};
  for (const auto& [row, title] : rows) {
    const std::string r = row;
    const bool weighted = lab::find_figure(o.figures(), r + "/effective_samples") != nullptr;
    t.rows.push_back({title, mean_and_deviation(o.chain(r + "/kl"), 3), mean_and_deviation(o.chain(r + "/hit"), 3),
                      mean_and_deviation(o.chain(r + "/helpfulness"), 2), mean_and_deviation(o.chain(r + "/entropy"), 2),
                      weighted ? mean_and_deviation(o.chain(r + "/effective_samples"), 1) : ""});
  }
  return t;
}
lab::text_table reward_table(const outcome& o, const char* key, const char* title, bool percent) {
  lab::text_table t{.caption = title, .columns = {{"Reward model"}}};
  for (const std::size_t pairs : o.sizes()) t.columns.push_back({std::to_string(pairs) + " pairs", true});
  for (const auto& [method, name] : reward_methods) {
    std::vector<std::string> row{name};
    for (const std::size_t pairs : o.sizes()) {
      auto x = o.reward(pairs, std::string(method) + "/" + key);
      if (percent)
        for (double& v : x) v *= 100;
      row.push_back(mean_and_deviation(x, percent ? 1 : 3));
    }
    t.rows.push_back(row);
  }
  return t;
}

/// Columns as wide as they must be; a character of several bytes counts once.
void print(const lab::text_table& t) {
  const auto width_of = [](const std::string& text) {
    std::size_t n = 0;
    for (const char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    return n;
  };
  std::vector<std::size_t> width;
  for (const auto& c : t.columns) width.push_back(width_of(c.name));
  for (const auto& row : t.rows)
    for (std::size_t k = 0; k < row.size(); ++k) width[k] = std::max(width[k], width_of(row[k]));
  std::printf("\n%s\n", t.caption.c_str());
  const auto line = [&](auto cell) {
    for (std::size_t k = 0; k < width.size(); ++k) {
      const std::string text = cell(k), gap(width[k] - width_of(text), ' ');
      std::printf("  %s%s", (t.columns[k].numeric ? gap + text : text + gap).c_str(), k + 1 == width.size() ? "\n" : "");
    }
  };
  line([&](std::size_t k) { return t.columns[k].name; });
  for (const auto& row : t.rows) line([&](std::size_t k) { return row[k]; });
}

lab::chart_point point(double x, const figure& f, double scale, std::string name) {
  return {x, scale * f.value, f.low ? scale * *f.low : lab::missing_value, f.high ? scale * *f.high : lab::missing_value, std::move(name)};
}

lab::line_chart iteration_chart(const outcome& o) {
  lab::line_chart c{.title = "Exact KL to P(y | a, x) by iteration", .x_label = "iteration (0: SteerLM 1)", .y_label = "KL, nats"};
  for (const auto& [row, title] : {std::pair{"steerlm2", "SteerLM 2.0"},
                                   {"ablation/exact_prior", "exact P(y | x)"},
                                   {"ablation/paper_sampling", "the paper's sampling"},
                                   {"ablation/no_baseline", "no baseline"},
                                   {"ablation/no_prior", "no prior"}}) {
    lab::chart_series s{.name = title, .points = {point(0, o.get("steerlm1/kl"), 1, "SteerLM 1")}};
    for (const int i : {1, 2})
      s.points.push_back(point(i, o.get(std::string(row) + "/iteration_" + std::to_string(i) + "/kl"), 1, "iteration " + std::to_string(i)));
    c.series.push_back(s);
  }
  c.references = {{o.get("control/more_labels/kl").value, "SteerLM 1, more labels"}, {o.get("class_limit/kl").value, "limit of the class"}};
  return c;
}
lab::line_chart size_chart(const outcome& o, const char* key, const char* title, const char* axis, double scale) {
  lab::line_chart c{.title = title, .x_label = "labelled pairs", .y_label = axis, .x_scale = lab::axis_scale::log10};
  for (const auto& [method, name] : reward_methods) {
    lab::chart_series s{.name = name};
    for (const std::size_t pairs : o.sizes())
      s.points.push_back(point(static_cast<double>(pairs), o.get("reward/" + std::to_string(pairs) + "/" + method + "/" + key), scale,
                               std::to_string(pairs) + " pairs"));
    c.series.push_back(s);
  }
  return c;
}

}  // namespace

void run_steerlm(int count, char** words) {
  const flags f = parse(count, words);
  const std::vector<std::size_t> sizes = f.quick ? std::vector<std::size_t>{40, 80} : all_sizes;
  std::vector<std::uint64_t> seeds;
  for (int s = 0; s < f.seeds; ++s) seeds.push_back(f.first_seed + static_cast<std::uint64_t>(s));
  std::vector<job> jobs;
  for (const auto seed : seeds) jobs.push_back({chain_name(seed), 6, [seed, quick = f.quick] { return chain_run(quick, seed); }});
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size)  // the long ones first
    for (const auto seed : seeds)
      jobs.push_back({reward_name(seed, *size), 3 + static_cast<double>(*size) / 60,
                      [seed, pairs = *size, quick = f.quick] { return reward_run(quick, seed, pairs); }});

  const lab::folder_lock lock(f.out);
  lab::run_folder kept(f.out / "runs", f.quick ? "quick" : "whole", f.fresh);
  std::printf("SteerLM 2.0's claim, and the table of reward models: seeds %llu to %llu, %zu runs on %d thread%s\n",
              static_cast<unsigned long long>(seeds.front()), static_cast<unsigned long long>(seeds.back()), jobs.size(), f.threads,
              f.threads == 1 ? "" : "s");
  const lab::stopwatch watch;
  auto found = run_jobs(kept, f.out / "runs", jobs, f.threads);
  double seconds = 0;
  for (const auto& j : jobs) seconds += found.at(j.name).at("seconds");
  const outcome o(seeds, sizes, std::move(found));

  const std::string warning = f.quick ? "A quick run, whose figures mean nothing: " : "", verdict = warning + o.policy_verdict(),
                    rewards = warning + o.reward_verdict();
  lab::page page(
      "SteerLM 2.0's claim, tried",
      "A policy fitted to P(y | a, x) by its own replies, against SteerLM 1, where every reply can be listed. And which reward model to begin with.");
  if (f.quick) page.notes({{"A quick run", "Made with --quick to see that everything works. Its figures mean nothing."}});
  page.text(verdict).text(rewards);
  page.highlights({o.get("steerlm2/kl_drop"), o.get("steerlm2/kl_drop_min"), o.get("steerlm2/entropy_gap")});

  page.section("SteerLM 2.0")
      .notes({{"The world",
               "Four prompts, six tokens, six places: 46,656 replies to each prompt, all listed, so that KL divergences are exact sums. P(y | x) is "
               "a first-order chain; helpfulness and complexity of a reply are "
               "known functions, and the reward model has no error. Asked for is helpfulness 4 and complexity 3."},
              {"The policies",
               "Logits are a sum of tables for prompt, place and token before, for helpfulness, and for complexity, so the target is out of reach "
               "even with all data: see the limit of the class. "
               "SteerLM 1 learns from 2,000 replies of P(y | x) with their ratings. SteerLM 2.0 goes on from it: 300 prompts with 10 replies each of "
               "its own at temperature 1, a fifth of the prompts held out, "
               "twice. It stops early by the distance of the held-out prompts, never by the exact KL."},
              {"What it does not show",
               "More replies that have what is asked for: bootstrapping and weights without the prior have more of them, by collapsing to few "
               "replies. SteerLM 2.0's claim is fidelity to P(y | a, x). Nor what a large "
               "model gains: the paper's own gains over SteerLM 1 are small."}});
  std::vector<lab::text_table> tables{policy_table(o, seeds.size())};
  page.table(tables[0]).chart(iteration_chart(o));
  lab::forest_plot kl{.title = "Exact KL to P(y | a, x)", .x_label = "nats"}, entropy{.title = "Entropy", .x_label = "nats"};
  for (const auto& [row, title] : rows) {
    for (auto* plot : {&kl, &entropy}) {
      plot->rows.push_back(o.get(std::string(row) + (plot == &kl ? "/kl" : "/entropy")));
      plot->rows.back().label = title;
    }
  }
  kl.rows.pop_back();  // the target itself
  kl.reference = o.get("steerlm1/kl").value, kl.reference_label = "SteerLM 1";
  entropy.reference = o.get("target/entropy").value, entropy.reference_label = "the target";
  page.forest(kl).forest(entropy);
  lab::text_table each{.caption = "Each seed: exact KL, nats",
                       .columns = {{"Seed"}, {"SteerLM 1", true}, {"Iteration 1", true}, {"Iteration 2", true}, {"Fall", true}}};
  for (std::size_t s = 0; s < seeds.size(); ++s) {
    const double a = o.chain("steerlm1/kl")[s], b = o.chain("steerlm2/iteration_1/kl")[s], c = o.chain("steerlm2/iteration_2/kl")[s];
    each.rows.push_back(
        {std::to_string(seeds[s]), lab::markup::number(a, 3), lab::markup::number(b, 3), lab::markup::number(c, 3), lab::markup::number(a - c, 3)});
  }
  page.table(each);
  tables.push_back(each);

  page.section("Reward models")
      .notes(
          {{"The world",
            "Sixteen prompts with eight words each, replies of eight words. Helpfulness is the prompt's own level plus what its words are worth, "
            "minus something for repetitions; four more attributes hang on it or on the words. "
            "Three noisy annotators rate each reply; all methods see the same ratings. Pairs with equal helpfulness are of no use to Bradley-Terry."},
           {"The models",
            "The lab's transformer, two layers, a score on the last token. A tenth of the pairs is held out, and the weights of the best epoch are "
            "kept."},
           {"What it does not show",
            "That Bradley-Terry cannot do as well from labels that say more than ratings do: here pairs are made of the ratings. After regression it "
            "has nothing new to learn."}});
  tables.push_back(reward_table(o, "accuracy", "Pair accuracy on noise-free pairs that differ by more than 0.25, %", true));
  tables.push_back(reward_table(o, "correlation", "Correlation of the score with helpfulness, across prompts", false));
  page.table(tables[2]).table(tables[3]);
  page.chart(size_chart(o, "accuracy", "Pair accuracy", "%", 100))
      .chart(size_chart(o, "correlation", "Correlation with helpfulness, across prompts", "Pearson's r", 1));
  for (const auto& t : tables) print(t);

  std::string command = "./dev demo steerlm";
  if (f.quick) command += " --quick";
  if (f.seeds != (f.quick ? 2 : 5)) command += " --seeds " + std::to_string(f.seeds);
  if (f.first_seed != 1000) command += " --first-seed " + std::to_string(f.first_seed);
  page.section("How to reproduce it")
      .code(command)
      .text(
          "Numbers do not depend on the number of threads. Every figure of this page stands in summary.json beside it. Settings were chosen on seeds "
          "from 2000 on.");
  page.settings({{"policies computed by", chain_backend()}, {"reward models computed by", reward_backend()}});
  lab::summary written{.demo = "steerlm",
                       .backend = chain_backend() + "; " + reward_backend(),
                       .seeds = seeds,
                       .threads = f.threads,
                       .seconds = seconds,
                       .figures = o.figures()};
  written.write(f.out / "summary.json");
  lab::write_atomically(f.out / "report.html", page.html());
  std::printf("\n%s\n\n%s\n\n%.0f s of runs, %.0f s by the clock; %s shows it, summary.json beside it has every figure\n", verdict.c_str(),
              rewards.c_str(), seconds, watch.seconds(), (f.out / "report.html").string().c_str());
}

}  // namespace claims

#pragma once
// What a run says at its end: tables and replies on the terminal, every figure in summary.json, the same with curves in report.html.

#include "html.hpp"
#include "settings.hpp"
#include "stages.hpp"

#include <thread>

namespace lab {

/// What one seed's stages of measuring found, by stage, and how long each of its stages took.
struct seed_run {
  std::uint64_t seed = 0;
  std::map<std::string, findings> found{};
  std::map<std::string, double> seconds{};
};

/// A table of the report: the stage that measures it, and what it says and does not say.
struct table_text {
  std::string stage, title, shows, does_not_show;
};

inline const std::vector<table_text> lab_tables{
    {"judge-rewards", "Reward models",
     "How often each reward model prefers the reply that a labeller preferred, on pairs of fresh prompts, beside the gold judge and beside the best "
     "that anyone could do who knew the labellers' chances (the labels are noisy, and the labellers hasty: they like courtesy more than the judge does).",
     "Whether a reward model is good to optimise: see best of n below."},
    {"judge-policies", "Policies",
     "One reply of each policy to each fresh prompt, at temperature 1, as the gold judge sees them. KL is the mean over replies of the policy's log-probability minus "
     "the reference's.",
     "What a larger model would do; the world is small, and the judge is a program."},
    {"best-of-n", "Over-optimisation",
     "The SFT model draws 256 replies to each prompt, and a learned reward picks the best of n of them. As n grows the learned reward of the pick rises, as it must. The gold "
     "reward rises with it at first and then falls: rare replies are picked for the learned reward's own errors and, by Bradley-Terry, for what its hasty labellers like more than "
     "the judge does. The n of the peak is read off one half of the prompts, rise and fall are measured on the other.",
     "Best of n presses evenly on all prompts; a trained policy may find other weaknesses of the reward."}};
inline const std::vector<table_text> file_tables{
    {"measure", "Held-out pairs",
     "How often each model scores the chosen reply above the rejected one, on prompts that none of them was trained on; a tie counts a half. The baselines need no language "
     "model. The last row compares the reward model with the best baseline pair by pair.",
     "That these models are small: they were trained from nothing on this file alone, in minutes. A reward model made from a large pretrained one would do better."}};

inline void print_row(const figure& f) { std::printf("  %-52s %-24s %s\n", markup::label_of(f).c_str(), to_text(f).c_str(), f.unit.c_str()); }

inline const figure* find_figure(const std::vector<figure>& figures, const std::string& name) {
  for (const auto& f : figures)
    if (f.name == name) return &f;
  return nullptr;
}

/// The first 200 bytes of a text (whole characters), on one line.
inline std::string excerpt(const std::string& text) {
  std::size_t end = std::min<std::size_t>(text.size(), 200);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  std::string line = text.substr(0, end);
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return line + (end < text.size() ? " ..." : "");
}

/// A word for the shell.
inline std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char c : text) word.append(c == '\'' ? "'\\''" : std::string(1, c));
  return word + "'";
}

/// KL of best-of-n from the model that it draws from, in nats: log n - (n - 1)/n. Exact where no two replies score the same, else an upper bound
/// (Beirami et al., arXiv:2401.01879).
inline double best_of_n_kl(double n) { return std::log(n) - (n - 1) / n; }

/// The figures "<prefix><number>" in order of the number, as points of a chart; `x(number)` says where.
template <class X>
std::vector<chart_point> curve_of(const std::vector<figure>& figures, const std::string& prefix, X x) {
  std::vector<chart_point> points;
  for (const auto& f : figures)
    if (f.name.rfind(prefix, 0) == 0)
      points.push_back({x(std::stod(f.name.substr(prefix.size()))), f.value, f.low.value_or(missing_value), f.high.value_or(missing_value)});
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.x < b.x; });
  return points;
}

/// Whether the reward model beats what needs no model, in a sentence; its interval decides.
inline std::string verdict(const figure& gain) {
  const char* word = gain.low && *gain.low > 0 ? "beats" : gain.high && *gain.high < 0 ? "is worse than" : "is not told apart from";
  return std::string("On this file the reward model ") + word + " the best of the baselines (" + to_text(gain) +
         " of the pairs). If that disappoints: the curve over the number of training pairs shows whether more data would help.";
}

inline constexpr std::pair<const char*, const char*> reward_names[] = {{"bradley_terry", "Bradley-Terry"},
                                                                       {"attribute_regression", "attribute regression"}};

inline void print_best_of_n(const std::vector<figure>& all) {
  for (const auto& [model, name] : reward_names) {
    std::printf("  by %-22s %10s  %-24s %s\n", name, "KL (nats)", "gold reward", "its own reward (sd)");
    for (std::size_t n = 1;; n *= 2) {
      const std::string who = std::string("best_of_n/") + model, at = "/n=" + std::to_string(n);
      const figure *gold = find_figure(all, who + "/gold" + at), *learned = find_figure(all, who + "/learned" + at);
      if (gold == nullptr || learned == nullptr) break;
      std::printf("    n = %-4zu %24.2f  %-24s %s\n", n, best_of_n_kl(static_cast<double>(n)), to_text(*gold).c_str(), to_text(*learned).c_str());
    }
  }
}

inline void draw_best_of_n(page& p, const std::vector<figure>& all) {
  line_chart gold{.title = "What the gold judge thinks of the pick", .x_label = "KL from the SFT model, at most log n - (n - 1)/n, in nats", .y_label = "gold reward, 0 to 4"};
  line_chart learned{.title = "What the learned reward thinks of its own pick", .x_label = gold.x_label, .y_label = "standard deviations above the SFT model's mean"};
  for (const auto& [model, name] : reward_names) {
    gold.series.push_back({std::string("picked by ") + name, curve_of(all, std::string("best_of_n/") + model + "/gold/n=", best_of_n_kl)});
    learned.series.push_back({name, curve_of(all, std::string("best_of_n/") + model + "/learned/n=", best_of_n_kl)});
  }
  p.chart(gold).chart(learned);
}

/// Tables and replies on the terminal, summary.json and report.html in `s.out`. `tables` in order; those whose stage was not run are left out.
inline void report(const settings& s, const std::string& demo, const std::vector<table_text>& tables, const std::vector<seed_run>& runs,
                   const std::string& opening, const std::string& account = {}) {
  std::vector<std::pair<std::uint64_t, std::vector<figure>>> per_seed;
  std::map<std::string, double> seconds;
  for (const auto& run : runs) {
    per_seed.emplace_back(run.seed, std::vector<figure>{});
    for (const auto& table : tables)
      if (const auto at = run.found.find(table.stage); at != run.found.end())
        per_seed.back().second.insert(per_seed.back().second.end(), at->second.figures.begin(), at->second.figures.end());
    for (const auto& [stage, took] : run.seconds) seconds[stage] += took;
  }
  const std::vector<figure> all = over_seeds(per_seed);
  const std::string intervals = runs.size() == 1 ? "95 % intervals" : "means over " + std::to_string(runs.size()) + " seeds, 95 % intervals of Student's t";

  std::string seeds, command = "./dev demo";
  for (const std::uint64_t seed : s.seeds) seeds += (seeds.empty() ? "" : ",") + std::to_string(seed);
  page page(demo == "lab" ? "Alignment lab" : "Your preference file", opening);
  std::vector<figure> highlights;
  for (const char* name : {"win_rate/dpo_over_sft", "reward_accuracy/bradley_terry", "best_of_n/bradley_terry/fall", "accuracy/reward_model",
                           "accuracy/reward_model_minus_best_baseline"})
    if (const figure* f = find_figure(all, name)) highlights.push_back(*f);
  if (!highlights.empty()) page.highlights(highlights);
  if (!account.empty()) page.section("What was read").text(account);

  for (const auto& table : tables) {
    const auto found = runs.front().found.find(table.stage);
    if (found == runs.front().found.end()) continue;
    std::printf("\n%s (%s)\n", table.title.c_str(), intervals.c_str());
    page.section(table.title).notes({{"What this shows", table.shows}, {"What it does not show", table.does_not_show}});
    std::vector<figure> rows;
    for (const auto& f : found->second.figures)
      if (f.name.find("/n=") == std::string::npos) rows.push_back(*find_figure(all, f.name));
    for (const auto& f : rows) print_row(f);
    if (const figure* gain = find_figure(rows, "accuracy/reward_model_minus_best_baseline")) {
      std::printf("\n%s\n", verdict(*gain).c_str());
      page.text(verdict(*gain));
    }
    page.figures({.caption = table.title + " (" + intervals + ")", .rows = rows});
    if (table.stage == "best-of-n") {
      print_best_of_n(all);
      draw_best_of_n(page, all);
    }
    if (table.stage == "judge-policies" && runs.size() > 1) {
      forest_plot wins{.title = "Win rate of DPO over SFT, each seed", .reference = 0.5, .reference_label = "no better"};
      for (const std::uint64_t seed : s.seeds)
        if (const figure* f = find_figure(all, "seed " + std::to_string(seed) + "/win_rate/dpo_over_sft")) {
          wins.rows.push_back(*f);
          wins.rows.back().label = "seed " + std::to_string(seed);
        }
      page.forest(wins);
    }
    if (table.stage == "measure") {
      forest_plot accuracies{.title = "Accuracy on held-out pairs", .reference = 0.5, .reference_label = "coin"};
      for (const auto& f : rows)
        if (f.name.rfind("accuracy/", 0) == 0 && f.name != "accuracy/reward_model_minus_best_baseline") accuracies.rows.push_back(f);
      page.forest(accuracies);
      line_chart learning{.title = "Accuracy of the reward model by the number of its training pairs", .x_label = "training pairs", .y_label = "accuracy, share",
                          .x_scale = axis_scale::log2, .series = {{"reward model", curve_of(all, "learning_curve/pairs=", [](double n) { return n; })}},
                          .references = {{0.5, "coin"}}};
      page.chart(learning);
    }
    if (found->second.examples.empty()) continue;
    page.subsection("Replies");
    std::size_t shown = 0;
    for (const auto& e : found->second.examples) {
      page.replies(e);
      if (++shown > 6) continue;
      std::printf("\n  %s\n", excerpt(e.prompt).c_str());
      for (const auto& r : e.replies) {
        std::printf("    %-28s %s\n", r.by.c_str(), excerpt(r.text).c_str());
        if (r.score) std::printf("    %28.2f %s\n", *r.score, r.reasons.c_str());
      }
    }
  }
  double total = 0;
  std::printf("\nwhere the time went\n");
  text_table times{.caption = "Seconds by stage, all seeds together", .columns = {{"Stage"}, {"Seconds", true}}};
  for (const auto& [stage, took] : seconds) {
    std::printf("  %-52s %6.0f s\n", stage.c_str(), took);
    times.rows.push_back({stage, markup::number(took, 0)});
    total += took;
  }
  const int threads = s.backend == "serial" ? 1 : static_cast<int>(std::thread::hardware_concurrency());
  if (!s.data.empty()) command += " --data " + quoted(s.data.string()) + " --pairs " + std::to_string(s.file_pairs);
  if (s.only != stage_names)
    for (const auto& stage : s.only) command += (&stage == &s.only.front() ? " --only " : ",") + stage;
  command += " --seeds " + seeds + " --backend " + s.backend + (s.quick ? " --quick" : "");
  auto settings = s.described();
  settings.insert(settings.begin(), {"seeds", seeds});
  settings.emplace_back("threads", std::to_string(threads));
  page.section("How to reproduce it").code(command).text(
      "The same program, settings, seeds and number of threads give the same numbers. Every figure of this page stands in summary.json beside it.");
  page.settings(settings).table(times);

  summary written{.demo = demo, .backend = s.backend, .seeds = s.seeds, .threads = threads, .seconds = total, .figures = all};
  written.write(s.out / "summary.json");
  write_atomically(s.out / "report.html", page.html());
  std::printf("\n%.0f s in all; %s shows it, with figures and checkpoints beside it\n", total, (s.out / "report.html").string().c_str());
}

}  // namespace lab

// DR-PO's claim (Chang et al., arXiv:2404.08495) in the prefix-sum lock: with resets into the offline data PPO finds what it does not find without,
// and goes beyond DPO. Controls say where that ends.

#include "claims.hpp"
#include "drpo_results.hpp"

#include <plumb/backends/serial.hpp>

namespace claims {

const char* const drpo_usage = R"(plumb_claims drpo [--seeds N] [--quick] [--threads N] [--out DIR] [--fresh] [--first-seed N]
  --seeds N       how many seeds, from 1 on (default 20; with --quick, 3)
  --quick         three seeds, each control on one of them, no sweep, no wider grid: to see that it works
  --threads N     runs side by side (default: as many as there are cores, at most 16); changes no number
  --out DIR       where the report, the figures and each run's results go (default out/drpo; with --quick, out/drpo-quick)
  --fresh         starts over; else what was done before is not done again
  --first-seed N  the first seed (default 1); settings were chosen on seeds 1001, 1002 and 1003
)";

namespace {

using namespace lock;
using compute = plumb::serial::backend<float>;

constexpr defaults usual{.name = "drpo", .seeds = 20, .quick_seeds = 3, .first_seed = 1};

void put(numbers& all, const std::string& prefix, const lock::score_card& card) {
  card.visit([&](const char* name, double value) { all[prefix + name] = value; });
}

job make_job(const variant& v, std::uint64_t seed, const std::string& part, double cost, std::function<numbers(lock::experiment<compute>&)> work) {
  return {job_name(seed, v.name, part), cost, [settings = v.settings, seed, work = std::move(work)] {
            compute b;
            lock::experiment<compute> one(b, settings, seed);
            return work(one);
          }};
}
job sft_job(const variant& v, std::uint64_t seed) {
  return make_job(v, seed, "sft", 0.2, [](auto& one) {
    numbers n;
    auto p = one.sft();
    put(n, "", one.judged(p));
    n["reward_accuracy"] = one.reward_accuracy();
    return n;
  });
}
job dpo_job(const variant& v, std::uint64_t seed, const std::string& part, double cost, const dpo_grid& grid) {
  return make_job(v, seed, part, cost, [grid](auto& one) {
    numbers n;
    for (const auto& [beta, epochs] : grid) {
      auto p = one.dpo(beta, epochs);
      put(n, grid_name(beta, epochs) + "/", one.judged(p));
      n[grid_name(beta, epochs) + "/validation"] = one.validation_score(p);
    }
    return n;
  });
}
job ppo_job(const variant& v, std::uint64_t seed, int percent) {
  return make_job(v, seed, "reset-" + std::to_string(percent), 1, [percent, dense = v.dense()](auto& one) {
    numbers n;
    auto p = one.ppo(percent / 100.0, [&](int update, double exact, const plumb::ppo_metrics& m) {
      n["curve/" + std::to_string(update)] = exact;
      n["score/" + std::to_string(update)] = m.score;
    });
    put(n, "", one.judged(p));
    if (dense) {
      auto before = one.sft();
      n["reward/right"] = one.validation_score_of_answers();
      n["reward/own"] = one.validation_score(p);
      n["reward/sft"] = one.validation_score(before);
      n["length"] = one.validation_length(p);
    }
    return n;
  });
}

/// Method by method, the three figures, the KL, and the seeds' range at temperature 1.
lab::text_table method_table(const results& r, const std::string& caption, bool wide = false) {
  lab::text_table t{.caption = caption, .columns = {{"Method"}}};
  for (const char* label : metric_labels) t.columns.push_back({std::string(label) + ", %", true});
  t.columns.push_back({"KL to SFT", true});
  t.columns.push_back({"temperature 1 by seed, %", true});
  const auto add = [&](const std::string& name, auto of) {
    std::vector<std::string> row{name};
    for (const char* metric : metrics) row.push_back(lab::shown_text(bootstrap_figure("", of(metric), "share")));
    row.push_back(lab::fixed_text(results::mean(of("kl")), 2));
    const auto x = of("exact_sampled");
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    row.push_back(lab::fixed_text(100 * *low, 1) + " to " + lab::fixed_text(100 * *high, 1));
    t.rows.push_back(row);
  };
  add("SFT", [&](const char* m) { return r.sft(m); });
  add("DPO, tuned", [&](const char* m) { return r.tuned_dpo(m); });
  if (wide) add("DPO, tuned on the wider grid", [&](const char* m) { return r.tuned_dpo(m, true); });
  std::vector<std::string> shown;  // one row for each member of the grid that is the best by some figure
  for (std::size_t k = 0; k < std::size(metrics); ++k) {
    const std::string best = r.best_dpo(metrics[k]).first;
    if (best == "tuned" || std::find(shown.begin(), shown.end(), best) != shown.end()) continue;
    shown.push_back(best);
    add("DPO " + best + " (best " + metric_labels[k] + ")", [&](const char* m) { return r.dpo(best, m); });
  }
  add("PPO", [&](const char* m) { return r.ppo(0, m); });
  add("DR-PO", [&](const char* m) { return r.ppo(100, m); });
  return t;
}
lab::text_table grid_table(const results& r, bool wide) {
  lab::text_table t{.caption = "DPO's grid, means over seeds", .columns = {{"Setting"}}};
  for (const char* label : metric_labels) t.columns.push_back({std::string(label) + ", %", true});
  t.columns.push_back({"KL to SFT", true});
  t.columns.push_back({"validation score", true});
  t.columns.push_back({"chosen by it", true});
  if (wide) t.columns.push_back({"on the wider grid", true});
  const auto first = r.grid(), chosen = r.tuned_choice(), wide_choice = wide ? r.tuned_choice(true) : std::vector<std::string>{};
  for (const auto& g : r.grid(wide)) {
    std::vector<std::string> row{g};
    for (const char* metric : metrics) row.push_back(lab::fixed_text(100 * results::mean(r.dpo(g, metric)), 1));
    row.push_back(lab::fixed_text(results::mean(r.dpo(g, "kl")), 2));
    row.push_back(lab::fixed_text(results::mean(r.dpo(g, "validation")), 3));
    const auto times = [&](const std::vector<std::string>& of) {
      return seeds_text(static_cast<std::size_t>(std::count(of.begin(), of.end(), g)));
    };
    row.push_back(std::find(first.begin(), first.end(), g) == first.end() ? "" : times(chosen));
    if (wide) row.push_back(times(wide_choice));
    t.rows.push_back(row);
  }
  return t;
}
lab::text_table reward_model_table(const std::string& prefix, const std::vector<figure>& all) {
  lab::text_table t{.caption = "What the reward model makes of replies at temperature 1",
                    .columns = {{"Replies"}, {"its mean number", true}, {"tokens", true}, {"ended, %", true}}};
  const auto shown = [&](const std::string& name) {
    const figure* f = lab::find_figure(all, prefix + name);
    return f == nullptr ? "" : f->unit == "share" ? lab::shown_text(*f) : lab::to_text(*f, 2);
  };
  for (const auto& [key, name] : {std::pair{"right", "right answers"}, {"sft", "SFT"}, {"ppo", "PPO"}, {"drpo", "DR-PO"}}) {
    const std::string of = std::string("/") + key;
    t.rows.push_back({name, shown("reward_model" + of), shown("length" + of), shown("ended" + of)});
  }
  return t;
}
lab::text_table seed_table(const results& r) {
  lab::text_table t{.caption = "Each seed, %", .columns = {{"Seed", true}}};
  for (const char* method : {"DPO, tuned", "PPO", "DR-PO"})
    for (const char* label : {"greedy", "T = 1", "win"}) t.columns.push_back({std::string(method) + ", " + label, true});
  for (std::size_t s = 0; s < r.seeds().size(); ++s) {
    std::vector<std::string> row{std::to_string(r.seeds()[s])};
    for (int method = 0; method < 3; ++method)
      for (const char* metric : metrics)
        row.push_back(lab::fixed_text(100 * (method == 0 ? r.tuned_dpo(metric) : r.ppo(method == 1 ? 0 : 100, metric))[s], 1));
    t.rows.push_back(row);
  }
  return t;
}

std::vector<job> all_jobs(const std::vector<variant>& variants, const std::vector<std::uint64_t>& seeds,
                          const std::vector<std::uint64_t>& control_seeds, bool whole) {
  std::vector<job> jobs;
  for (const auto seed : seeds)
    for (job& j : std::vector<job>{sft_job(variants[0], seed), dpo_job(variants[0], seed, "dpo", 1.5, variants[0].dpo_grid()),
                                   ppo_job(variants[0], seed, 0), ppo_job(variants[0], seed, 100)})
      jobs.push_back(std::move(j));
  if (whole)
    for (const auto seed : seeds) {
      jobs.push_back(dpo_job(variants[0], seed, "dpo-wider", 3.4, variants[0].settings.dpo_wider));
      for (const int percent : {25, 50, 75}) jobs.push_back(ppo_job(variants[0], seed, percent));
    }
  for (std::size_t k = 1; k < variants.size(); ++k)
    for (const auto seed : control_seeds) {
      if (variants[k].own_dpo) {
        jobs.push_back(sft_job(variants[k], seed));
        jobs.push_back(dpo_job(variants[k], seed, "dpo", 1.5, variants[k].dpo_grid()));
      }
      for (const int percent : {0, 100}) jobs.push_back(ppo_job(variants[k], seed, percent));
    }
  return jobs;
}

std::vector<figure> all_figures(const results& headline, const std::vector<results>& controls, bool whole) {
  std::vector<figure> all;
  add_figures(headline, "", all);
  all.push_back(bootstrap_figure("reward_accuracy", headline.sft("reward_accuracy"), "share", "accuracy of the reward model on fresh pairs"));
  all.push_back(bootstrap_figure("token/sft", headline.sft("token"), "share", "SFT: probability of the right token, geometric mean"));
  if (whole) add_wide_figures(headline, all);
  for (const auto& g : headline.grid(whole))
    for (std::size_t k = 0; k < std::size(metrics); ++k)
      all.push_back(bootstrap_figure("dpo/" + g + "/" + metrics[k], headline.dpo(g, metrics[k]), "share", "DPO " + g + ": " + metric_labels[k]));
  if (whole)
    for (const int percent : proportions)
      for (std::size_t k = 0; k < std::size(metrics); ++k) {
        const std::string at = "reset=" + lab::markup::compact(percent / 100.0);
        all.push_back(bootstrap_figure("sweep/" + at + "/" + metrics[k], headline.ppo(percent, metrics[k]), "share", at + ": " + metric_labels[k]));
        if (percent > 0)
          all.push_back(bootstrap_figure("sweep/" + at + "_minus_ppo/" + metrics[k],
                                         minus(headline.ppo(percent, metrics[k]), headline.ppo(0, metrics[k])), "difference of shares",
                                         at + " minus PPO: " + metric_labels[k]));
      }
  for (const auto& c : controls) {
    add_figures(c, "control/" + c.of().name + "/", all);
    if (c.of().dense()) add_reward_figures(c, "control/" + c.of().name + "/", all);
  }
  for (std::size_t s = 0; s < headline.seeds().size(); ++s)
    for (const char* metric : metrics)
      for (const auto& [method, x] :
           {std::pair{"dpo_tuned", headline.tuned_dpo(metric)}, {"ppo", headline.ppo(0, metric)}, {"drpo", headline.ppo(100, metric)}})
        all.push_back({"seed " + std::to_string(headline.seeds()[s]) + "/" + metric + "/" + method,
                       x[s],
                       {},
                       {},
                       static_cast<std::size_t>(headline.of().settings.judged_prompts),
                       "share",
                       {}});
  return all;
}

// What follows goes on the page, and the same on the terminal.

void show_claim(lab::page& page, const results& headline, const std::vector<figure>& all, bool whole) {
  std::vector<figure> differences, tuned;
  for (const char* name : {"drpo_minus_ppo", "drpo_minus_dpo"})
    for (const char* metric : metrics) differences.push_back(*lab::find_figure(all, std::string(name) + "/" + metric));
  for (const char* metric : metrics) tuned.push_back(*lab::find_figure(all, std::string("drpo_minus_dpo_tuned/") + metric));
  if (whole)
    for (const char* name : {"drpo_minus_dpo_wide", "drpo_minus_dpo_wide_best"})
      for (const char* metric : metrics) tuned.push_back(*lab::find_figure(all, std::string(name) + "/" + metric));
  page.highlights(differences);

  page.section("The claim")
      .notes(
          {{"The world",
            "A prompt is eight symbols of six; the answer is their running sums modulo six, then the end. The judge gives 1 for the exact answer, "
            "else 0, and -1 where a reply does not end; nothing is trained on it. "
            "References are right in 80 % of cases. The SFT policy gives a right token with a probability of less than a half, so that a whole right "
            "answer is drawn once in a thousand."},
           {"The methods",
            "All have the same 500 preference pairs. PPO and DR-PO have one loop and one set of settings, and the same number of rollouts; DR-PO's "
            "begin behind a random part of the pair's chosen reply. Their reward is whether "
            "a Bradley-Terry reward model, learned from the pairs, likes the reply no less than the chosen one. DPO's beta and epochs are tuned for "
            "each seed by what may be looked at, the reward model's score of replies to "
            "validation prompts; the best DPO is the best of the grid by the judge itself, for each figure, which nobody could choose in earnest. "
            "The grid's best at temperature 1 is in a corner, so a wider grid stands beside it: beta 0.01, and 400 epochs. Its best is in a corner "
            "again."},
           {"What it does not show",
            "That resets help everywhere: see the controls. The world is small and its rewards are rare, which is where resets should matter; real "
            "summaries are neither."}});
  std::vector<lab::text_table> printed{
      method_table(headline, "Means over " + seeds_text(headline.seeds().size()) + ", 95 % bootstrap intervals", whole), grid_table(headline, whole)};
  for (const auto& t : printed) page.table(t), print(t);
  std::printf("\nDifferences, paired by seed, percentage points\n");
  for (const auto* list : {&differences, &tuned})
    for (const auto& d : *list) std::printf("  %-78s %s\n", d.label.c_str(), points(d).c_str());
  page.forest({.title = "DR-PO minus PPO and minus the best DPO",
               .x_label = "percentage points",
               .rows = differences,
               .reference = 0,
               .reference_label = "no difference"});
  page.forest({.title = "DR-PO minus tuned DPO, and on the wider grid",
               .x_label = "percentage points",
               .rows = tuned,
               .reference = 0,
               .reference_label = "no difference"});
  lab::line_chart curves{.title = "While it learns: exact rate at temperature 1", .x_label = "updates", .y_label = "exact, %"}, scores = curves;
  scores.title = "While it learns: the reward that the loop sees";
  scores.y_label = "replies that win, %";
  for (const auto& [percent, name] : {std::pair{0, "PPO"}, {100, "DR-PO"}}) {
    lab::chart_series exact{.name = name}, score{.name = name};
    for (int u = headline.of().settings.curve_every; u <= headline.of().settings.updates; u += headline.of().settings.curve_every)
      for (const auto& [series, key] : {std::pair{&exact, "curve/"}, {&score, "score/"}}) {
        const figure at = bootstrap_figure("", headline.ppo(percent, key + std::to_string(u)), "");
        series->points.push_back(
            {static_cast<double>(u), 100 * at.value, at.low ? 100 * *at.low : lab::missing_value, at.high ? 100 * *at.high : lab::missing_value, {}});
      }
    curves.series.push_back(exact);
    scores.series.push_back(score);
  }
  page.chart(curves).chart(scores);
}

void show_sweep(lab::page& page, const results& headline) {
  page.section("How much to reset")
      .notes({{"What this shows",
               "Each rollout is reset with this probability, else it begins at its prompt: 0 is PPO, 100 % is DR-PO. All else is the same."}});
  lab::line_chart sweep{.title = "Figures by the share of rollouts that are reset", .x_label = "reset, %", .y_label = "%"};
  lab::text_table t{.caption = "By reset proportion", .columns = {{"Reset, %", true}}};
  for (const char* label : metric_labels) t.columns.push_back({std::string(label) + ", %", true});
  for (std::size_t k = 0; k < std::size(metrics); ++k) sweep.series.push_back({.name = metric_labels[k]});
  for (const int percent : proportions) {
    std::vector<std::string> row{std::to_string(percent)};
    for (std::size_t k = 0; k < std::size(metrics); ++k) {
      const figure at = bootstrap_figure("", headline.ppo(percent, metrics[k]), "share");
      sweep.series[k].points.push_back({static_cast<double>(percent),
                                        100 * at.value,
                                        at.low ? 100 * *at.low : lab::missing_value,
                                        at.high ? 100 * *at.high : lab::missing_value,
                                        {}});
      row.push_back(lab::shown_text(at));
    }
    t.rows.push_back(row);
  }
  page.chart(sweep).table(t);
  print(t);
}

/// Gives a sentence for each control.
std::string show_controls(lab::page& page, const std::vector<results>& controls, const std::vector<figure>& all) {
  page.section("Controls")
      .notes({{"What these show", "Each changes one thing of the headline's settings. They say where the claim comes from, and where it ends."}});
  for (const auto& [name, against] : {std::pair{"drpo_minus_ppo", "PPO"}, {"drpo_minus_dpo", "the best DPO"}})
    for (std::size_t k = 0; k < std::size(metrics); ++k) {
      lab::forest_plot plot{.title = std::string("DR-PO minus ") + against + ": " + metric_labels[k],
                            .x_label = "percentage points",
                            .rows = {},
                            .reference = 0,
                            .reference_label = "no difference"};
      const auto add = [&, name = name](const std::string& prefix, const std::string& label) {
        plot.rows.push_back(*lab::find_figure(all, prefix + name + "/" + metrics[k]));
        plot.rows.back().label = label;
      };
      add("", "Headline");
      for (const auto& c : controls) add("control/" + c.of().name + "/", c.of().title);
      page.forest(plot);
    }
  std::string said;
  for (const auto& c : controls) {
    const std::string prefix = "control/" + c.of().name + "/";
    std::string sentence = control_verdict(c.of(), all);
    if (c.of().dense()) sentence += " " + reward_verdict(prefix, all);
    const auto t = method_table(c, c.of().title + ", " + seeds_text(c.seeds().size()));
    page.subsection(c.of().title).text(c.of().what).text(sentence).table(t);
    print(t);
    if (c.of().dense()) {
      const auto paid = reward_model_table(prefix, all);
      page.table(paid);
      print(paid);
    }
    said += sentence + "\n";
  }
  return said;
}

lab::text_pairs described(const settings& h) {
  const auto text = [](auto x) { return lab::markup::compact(static_cast<double>(x)); };
  return {{"policy, critic", "one hidden layer of " + text(h.hidden) + " tanh"},
          {"SFT", text(h.references) + " references, " + text(h.sft_epochs) + " epochs, batch " + text(h.sft_batch) + ", Adam " + text(h.sft_rate)},
          {"pairs", text(h.pairs) + ", each side a reference or an SFT sample, labels drawn from sigmoid(" + text(h.label_sharpness) +
                        " x the judge's difference), ties drawn again"},
          {"reward model", "Bradley-Terry, a table of (prompt's symbol, token before, token), " + text(h.reward_epochs) + " epochs, batch " +
                               text(h.reward_batch) + ", Adam " + text(h.reward_rate)},
          {"PPO and DR-PO", text(h.updates) + " updates of " + text(h.rollouts) + " rollouts at temperature 1, 4 epochs of one batch, Adam " +
                                text(h.policy_rate) + " (critic " + text(h.critic_rate) +
                                ") falling to 0, clip 0.2, value clip 0.2, gamma 1, lambda 0.95, KL " + text(h.kl_coefficient) +
                                " in the reward, advantages whitened, -1 where a reply does not end"},
          {"DR-PO alone", "rollouts begin behind c tokens of the chosen reply, c uniform from 0 to its length less 1"},
          {"DPO", "beta 0.05, 0.1, 0.5; 20, 60, 200 epochs (wider: also 0.01, and 400 epochs); batch " + text(h.dpo_batch) + ", Adam " +
                      text(h.dpo_rate) + " falling to 0"},
          {"judged on", text(h.judged_prompts) + " fresh prompts for each seed"}};
}

}  // namespace

void run_drpo(int count, char** words) {
  const flags f = parse(count, words, usual);
  const auto variants = all_variants();
  const auto seeds = f.all_seeds();
  const std::vector<std::uint64_t> control_seeds = f.quick ? std::vector{seeds.front()} : seeds;
  const auto jobs = all_jobs(variants, seeds, control_seeds, !f.quick);

  const lab::folder_lock alone(f.out);
  std::string text;  // what is not said here is the program's own, whose hash is kept as well
  for (const auto& [name, value] : described(variants.front().settings)) text += name + ": " + value + "; ";
  lab::run_folder kept(f.out / "runs", text, f.fresh);
  std::printf("DR-PO's claim in the prefix-sum lock: seeds %llu to %llu, %zu runs on %d thread%s\n", static_cast<unsigned long long>(seeds.front()),
              static_cast<unsigned long long>(seeds.back()), jobs.size(), f.threads, f.threads == 1 ? "" : "s");
  const lab::stopwatch watch;
  const auto found = run_jobs(kept, f.out / "runs", jobs, f.threads);

  const results headline(variants.front(), seeds, found);
  std::vector<results> controls;
  for (std::size_t k = 1; k < variants.size(); ++k) controls.emplace_back(variants[k], control_seeds, found);
  const auto all = all_figures(headline, controls, !f.quick);

  lab::page page("DR-PO's claim, tried",
                 "Resets into the offline data against PPO and DPO in the prefix-sum lock, a world where a good answer is easy to go on with and "
                 "hard to come upon.");
  std::string verdict = claim_verdict(all);
  if (!f.quick) verdict += " " + wide_verdict(all);
  if (f.quick) verdict += " (A quick run: three seeds only show that everything works.)";
  if (f.quick)
    page.notes({{"A quick run", "Few seeds, each control on one of them, no sweep, no wider grid: made with --quick to see that everything works."}});
  page.text(verdict);
  show_claim(page, headline, all, !f.quick);
  if (!f.quick) show_sweep(page, headline);
  const std::string said = show_controls(page, controls, all);
  page.section("Each seed").table(seed_table(headline));

  double seconds = 0;
  for (const auto& j : jobs) seconds += found.at(j.name).at("seconds");
  page.section("How to reproduce it")
      .code(f.command(usual))
      .text(
          "Numbers do not depend on the number of threads. Every figure of this page stands in summary.json beside it. Settings were chosen on "
          "seeds 1001, 1002 and 1003.")
      .settings(described(variants.front().settings));
  const lab::summary written{.demo = "drpo", .backend = "serial", .seeds = seeds, .threads = f.threads, .seconds = seconds, .figures = all};
  written.write(f.out / "summary.json");
  lab::write_atomically(f.out / "report.html", page.html());
  std::printf("\n%s\n%s\n%.0f s of runs, %.0f s by the clock; %s shows it, summary.json beside it has every figure\n", verdict.c_str(), said.c_str(),
              seconds, watch.seconds(), (f.out / "report.html").string().c_str());
}

}  // namespace claims

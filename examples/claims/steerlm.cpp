// SteerLM 2.0's claim (Wang et al., arXiv:2406.08673) in a world where every reply can be listed, and the table of reward models that HelpSteer2
// stands on.

#include "claims.hpp"
#include "steerlm_results.hpp"

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

constexpr defaults usual{.name = "steerlm", .seeds = 5, .quick_seeds = 2, .first_seed = 1000};

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
      .caption = "Policies; means and standard deviations over " + seeds_text(seeds),
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
  const flags f = parse(count, words, usual);
  const std::vector<std::size_t> sizes = f.quick ? std::vector<std::size_t>{40, 80} : all_sizes;
  const auto seeds = f.all_seeds();
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

  page.section("How to reproduce it")
      .code(f.command(usual))
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

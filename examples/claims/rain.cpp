// RAIN's claim (Li et al., arXiv:2309.07124) in the clause world: a frozen model that searches, judges its own text and rewinds writes fewer harmful
// replies than it does greedily, and than the best of as many replies as the same work would buy. Baselines, controls and counter-results say where
// that ends.

#include "claims.hpp"
#include "rain_results.hpp"
#include "rain_tree_view.hpp"

namespace claims {

const char* const rain_usage = R"(plumb_claims rain [--seeds N] [--quick] [--threads N] [--out DIR] [--fresh] [--first-seed N]
  --seeds N       how many models, from seed 1 on (default 3; with --quick, 2)
  --quick         small runs that only show that everything works; their figures mean nothing
  --threads N     runs side by side (default: as many as there are cores, at most 16); changes no number
  --out DIR       where the report, the figures, the models and each run's results go (default out/rain; with --quick, out/rain-quick)
  --fresh         starts over; else what was done before is not done again
  --first-seed N  the first seed (default 1); settings were chosen on seeds 11 and 12
)";

namespace {

using namespace clause;

constexpr defaults usual{.name = "rain", .seeds = 3, .quick_seeds = 2, .first_seed = 1};

std::vector<job> all_jobs(const std::filesystem::path& folder, const plan& p, const std::vector<std::uint64_t>& seeds) {
  std::vector<job> training, searching;
  const double train_cost = 10.0 * p.steps / 3000;
  for (const auto seed : seeds) {
    const auto train = [&](const model_key& key) { training.push_back({key.name(), train_cost, [=] { return train_run(folder, p, key); }}); };
    const auto search = [&](const model_key& key, const methods_wanted& w) {
      searching.push_back({key.methods(w.oracle), 0.08 * w.prompts, [=] { return methods_run(folder, p, key, w); }});
    };
    for (const std::size_t k : p.judged) {
      train({seed, k});
      search({seed, k}, p.in_sweep(k));
    }
    const model_key middle{seed, p.middle_judged()};
    searching.push_back({middle.components(), 0.4 * p.component_prompts, [=] { return components_run(folder, p, middle, p.component_prompts); }});
    for (const counter_result& c : counter_results) {
      if (c.world != world::own) train(p.model(c, seed));
      search(p.model(c, seed), p.of(c));
    }
  }
  training.insert(training.end(), searching.begin(), searching.end());
  return training;
}

std::string percent(const outcome& o, const std::string& name) { return lab::fixed_text(100 * o.get(name).value, 1); }

/// Method by method: how many replies are harmless, how helpful they are, what they took. `prefix` as in "harmless/K=100/".
lab::text_table method_table(const outcome& o, const std::string& caption, const methods_wanted& run,
                             const std::function<std::string(const char*, const std::string&)>& name) {
  lab::text_table t{.caption = caption, .columns = {{"Method"}, {"harmless, %", true}, {"helpful, %", true}, {"forward tokens", true}}};
  for (const auto& [method, title] : methods_of(run))
    t.rows.push_back({title, lab::shown_text(o.get(name("harmless", method))), percent(o, name("helpful", method)),
                      lab::markup::number(o.get(name("tokens", method)).value, 0)});
  return t;
}
/// The whole grid: a row for each method, a column for each K.
lab::text_table grid_table(const outcome& o, const char* what) {
  lab::text_table t{.caption = std::string(what) + ", %, by texts that the model learned to judge from", .columns = {{"Method"}}};
  std::vector<std::string> row{"(accuracy of the judge)"};
  for (const std::size_t k : o.of().judged) {
    t.columns.push_back({std::to_string(k), true});
    row.push_back(percent(o, "judge_accuracy/" + outcome::at(k)));
  }
  t.rows.push_back(row);
  for (const auto& [method, title] : methods) {
    row = {title};
    for (const std::size_t k : o.of().judged) {
      const std::string name = std::string(what) + "/" + outcome::at(k) + "/" + method;
      row.push_back(lab::find_figure(o.figures(), name) == nullptr ? "" : percent(o, name));
    }
    t.rows.push_back(row);
  }
  return t;
}
lab::text_table seed_table(const outcome& o) {
  lab::text_table t{.caption = "Each model: harmless, %", .columns = {{"Seed", true}, {"K", true}, {"judge", true}}};
  const std::vector<const char*> shown{"greedy", "sampling", "best_of_n", "best_of_n_soft", "blockwise", "rain"};
  for (const char* m : shown) t.columns.push_back({title_of(m), true});
  t.columns.push_back({"RAIN, helpful", true});
  for (std::size_t s = 0; s < o.seeds().size(); ++s)
    for (const std::size_t k : o.of().judged) {
      std::vector<std::string> row{std::to_string(o.seeds()[s]), std::to_string(k), lab::fixed_text(100 * o.accuracy(o.seeds()[s], k), 1)};
      for (const char* m : shown) row.push_back(lab::fixed_text(100 * o.mean_of(s, k, m, "harmless"), 1));
      row.push_back(lab::fixed_text(100 * o.mean_of(s, k, "rain", "helpful"), 1));
      t.rows.push_back(row);
    }
  return t;
}
lab::text_table component_table(const outcome& o) {
  lab::text_table t{
      .caption = "RAIN with one thing changed, in the middle of the sweep, " + std::to_string(o.of().component_prompts) + " prompts each",
      .columns = {{"RAIN"}, {"harmless, %", true}, {"minus the whole, points", true}, {"helpful, %", true}, {"forward tokens", true}}};
  for (const auto& [part, title] : components) {
    const std::string name = std::string("component/") + part + "/";
    t.rows.push_back({title, percent(o, name + "harmless"), lab::shown_text(o.get(name + "minus_rain/harmless")), percent(o, name + "helpful"),
                      lab::markup::number(o.get(name + "tokens").value, 0)});
  }
  return t;
}

lab::line_chart sweep_chart(const outcome& o) {
  lab::line_chart c{
      .title = "Harmless replies by how well the model judges", .x_label = "accuracy of the judge, mean over models, %", .y_label = "harmless, %"};
  for (const char* method : {"rain", "best_of_n", "best_of_n_soft", "blockwise", "greedy", "sampling"}) {
    lab::chart_series s{.name = title_of(method)};
    for (const std::size_t k : o.of().judged) {
      const figure& f = o.get("harmless/" + outcome::at(k) + "/" + method);
      s.points.push_back({100 * o.get("judge_accuracy/" + outcome::at(k)).value, 100 * f.value, f.low ? 100 * *f.low : lab::missing_value,
                          f.high ? 100 * *f.high : lab::missing_value, std::to_string(k) + " judged texts"});
    }
    c.series.push_back(s);
  }
  return c;
}
lab::line_chart gain_chart(const outcome& o) {
  lab::line_chart c{
      .title = "Each model: what RAIN gains over greedy decoding", .x_label = "accuracy of the judge, %", .y_label = "points of harmless replies"};
  for (std::size_t s = 0; s < o.seeds().size(); ++s) {
    lab::chart_series one{.name = "seed " + std::to_string(o.seeds()[s])};
    for (const std::size_t k : o.of().judged)
      one.points.push_back({100 * o.accuracy(o.seeds()[s], k), 100 * (o.mean_of(s, k, "rain", "harmless") - o.mean_of(s, k, "greedy", "harmless")),
                            lab::missing_value, lab::missing_value, std::to_string(k) + " judged texts"});
    std::sort(one.points.begin(), one.points.end(), [](const auto& a, const auto& b) { return a.x < b.x; });
    c.series.push_back(one);
  }
  c.references = {{0, "no gain"}};
  return c;
}
lab::forest_plot difference_plot(const outcome& o, const std::string& other, const char* what) {
  lab::forest_plot p{.title = "RAIN minus " + title_of(other) + ": " + what,
                     .x_label = "percentage points",
                     .rows = {},
                     .reference = 0,
                     .reference_label = "no difference"};
  for (const std::size_t k : o.of().judged) {
    p.rows.push_back(o.get("rain_minus_" + other + "/" + what + "/" + outcome::at(k)));
    p.rows.back().label = std::to_string(k) + " judged texts, judge " + percent(o, "judge_accuracy/" + outcome::at(k)) + " %";
  }
  return p;
}

// What follows goes on the page, and the same on the terminal.

void show_claim(lab::page& page, const outcome& o) {
  const std::string middle = outcome::at(o.of().middle_judged());
  page.highlights({o.get("rain_minus_best_of_n/harmless"), o.get("rain_minus_greedy/harmless"), o.get("rain_minus_greedy/helpful")});
  page.section("The claim")
      .notes({{"The world",
               "A reply has eight clauses of a connector, a content word, a tone and a comma. Which tones are harmful hangs on the kind of topic. "
               "Six topics are risky: their first clause is harmful more often than not, and after a harmful clause the next ones are likely to "
               "be. Harmful clauses hold a right fact more often, so that who avoids harm gives some help away. Harmless: no harmful tone in the "
               "reply. Helpful: right facts, of eight. Both are read off the grammar, never asked of a model."},
              {"The model",
               "One small transformer learns to write replies, and to say of a reply with one to eight clauses whether it is harmful, from K texts "
               "whose answer it is told. K sets how well it judges. Then its weights are frozen; it writes, and judges what it writes, in every "
               "method."},
              {"The methods",
               "All spend forward tokens of the same model, for writing and for judging, keys and values shared where texts begin alike. Best-of-N "
               "has for each prompt what RAIN used on it. It stands in four ways: with the greedy reply as its first or not, with hard votes as "
               "RAIN has them or with probabilities. Where the judge is no better than a coin, RAIN stays close to greedy decoding, and best-of-N "
               "falls to what sampling gives: see the seeds one by one, and RAIN against the best of all these for each model."},
              {"What it does not show",
               "That RAIN helps where the likeliest reply after a good beginning goes wrong again (see the counter-results), nor how it does "
               "with real text. The prompts are twelve topics over and over, with other draws: the interval by topic and model takes that into "
               "account. The world and the settings were chosen on seeds 11 and 12 so that there is something to be shown; docs/demos/rain.md "
               "says what was tried."}});
  std::vector<lab::text_table> tables{
      grid_table(o, "harmless"), grid_table(o, "helpful"),
      method_table(o, "In the middle of the sweep, " + middle + ", 95 % bootstrap intervals over prompts", o.of().in_sweep(o.of().middle_judged()),
                   [&](const char* what, const std::string& method) { return what + ("/" + middle + "/" + method); })};
  for (const auto& t : tables) page.table(t), print(t);
  page.chart(sweep_chart(o)).chart(gain_chart(o));
  for (const char* other : {"best_of_n", "best_of_n_soft", "greedy"}) page.forest(difference_plot(o, other, "harmless"));
  page.forest(difference_plot(o, "greedy", "helpful")).forest(difference_plot(o, "best_of_n", "helpful"));
}

/// Gives a sentence for each.
std::string show_counter_results(lab::page& page, const outcome& o) {
  page.section("Where it ends")
      .notes({{"What these show", "Where another method does as well or better, and where RAIN fails. They count as much as the claim."}});
  std::string said;
  for (const counter_result& c : counter_results) {
    const methods_wanted run = o.of().of(c);
    const std::string prefix = outcome::prefix_of(c);
    const auto t = method_table(
        o, std::string(c.title) + ", K=" + std::to_string(o.of().model(c, 0).judged) + ", " + std::to_string(run.prompts) + " prompts each", run,
        [&](const char* what, const std::string& method) { return prefix + what + "/" + method; });
    page.subsection(c.title).text(o.counter_verdict(c)).table(t);
    print(t);
    said += o.counter_verdict(c) + "\n";
  }
  page.subsection("Block by block")
      .text(o.blockwise_verdict())
      .forest(difference_plot(o, "blockwise", "harmless"))
      .forest(difference_plot(o, "blockwise", "helpful"));
  return said + o.blockwise_verdict() + "\n";
}

std::size_t harmful_words(int topic, const tokens& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [topic](token t) { return is_harmful(topic, t); }));
}

}  // namespace

void run_rain(int count, char** words) {
  const flags f = parse(count, words, usual);
  plan p;
  if (f.quick) p.make_quick();
  const auto seeds = f.all_seeds();
  const std::filesystem::path folder = f.out / "runs";

  const lab::folder_lock alone(f.out);
  std::string text = f.quick ? "quick; " : "";
  for (const auto& [name, value] : described(p)) text += name + ": " + value + "; ";
  lab::run_folder kept(folder, text, f.fresh);
  const auto jobs = all_jobs(folder, p, seeds);
  std::printf("RAIN's claim in the clause world: seeds %llu to %llu, %zu runs on %d thread%s\n", static_cast<unsigned long long>(seeds.front()),
              static_cast<unsigned long long>(seeds.back()), jobs.size(), f.threads, f.threads == 1 ? "" : "s");
  const lab::stopwatch watch;
  auto found = run_jobs(kept, folder, jobs, f.threads);
  double seconds = 0;
  for (const auto& j : jobs) seconds += found.at(j.name).at("seconds");
  const outcome o(p, seeds, std::move(found));
  const drawn_search search = example_search(folder, p, {seeds.front(), p.middle_judged()});

  const std::string warning = f.quick ? "A quick run, whose figures mean nothing: " : "", verdict = warning + o.claim_verdict(),
                    growth = o.growth_verdict(), weights = o.weights_verdict();
  lab::page page("RAIN's claim, tried",
                 "A frozen model that looks ahead, judges its own text and rewinds, against what the same work buys otherwise, in a world where "
                 "harm can be told.");
  if (f.quick) page.notes({{"A quick run", "Made with --quick to see that everything works. Its figures mean nothing."}});
  page.text(verdict).text(growth).text(weights);
  show_claim(page, o);
  const std::string said = show_counter_results(page, o);
  const auto parts = component_table(o), each = seed_table(o);
  page.section("What it is made of").table(parts);
  print(parts);
  page.section("One search")
      .text("The first prompt of seed " + std::to_string(seeds.front()) + " whose greedy reply is harmful, if there is one: " +
            text_of(prompt_of(search.topic)) + ". Greedy decoding writes: " + marked_text(search.topic, search.greedy_reply) +
            ". RAIN writes, with " + std::to_string(search.simulations) + " simulations and " + std::to_string(search.tokens_used) +
            " forward tokens: " + marked_text(search.topic, search.reply) + ". A harmful word has a star.")
      .text(harmful_words(search.topic, search.reply) == 0
                ? "The search went around every harmful word."
                : "The search did not save this reply: what was visited most is committed, not what the judge liked best, and a judge that errs leads it "
                  "astray. Below the value q stands beside the visits n, which are no whole numbers where similar siblings share what is learned of one.")
      .drawing(draw(search));
  page.section("Each model").table(each);
  print(each);
  page.section("How to reproduce it")
      .code(f.command(usual))
      .text(
          "Numbers do not depend on the number of threads. Every figure of this page stands in summary.json beside it. Settings were chosen on "
          "seeds 11 and 12.")
      .settings(described(p));
  page.settings({{"computed by", search_backend()}});
  const lab::summary all{
      .demo = "rain", .backend = search_backend(), .seeds = seeds, .threads = f.threads, .seconds = seconds, .figures = o.figures()};
  all.write(f.out / "summary.json");
  lab::write_atomically(f.out / "report.html", page.html());
  std::printf("\n%s\n\n%s\n%s\n\n%s\n%.0f s of runs, %.0f s by the clock; %s shows it, summary.json beside it has every figure\n", verdict.c_str(),
              growth.c_str(), weights.c_str(), said.c_str(), seconds, watch.seconds(), (f.out / "report.html").string().c_str());
}

}  // namespace claims

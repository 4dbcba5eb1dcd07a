#include "report.hpp"

#include "html.hpp"
#include "verdicts.hpp"

#include <plumb/algorithms/best_of_n.hpp>

#include <array>
#include <functional>

namespace lab {

const std::vector<table_text> lab_tables{
    {"judge-rewards", "Reward models",
     "How often each reward model prefers the reply that a labeller preferred, on pairs of fresh prompts, beside the gold judge and beside the noise ceiling: the best "
     "that anyone could do who knew each labeller's chances. Labels are drawn by chance, so even that is well below 100 %; and labellers are hasty: they like courtesy more than "
     "the judge does.",
     "Whether a reward model is good to optimise: see best of n below."},
    {"judge-policies", "Policies",
     "One reply of each policy to each fresh prompt, at temperature 1, as the gold judge sees them; the win rate is against the SFT model's reply to the same prompt, a tie counts a half. "
     "The learned reward is Bradley-Terry's, which PPO, GRPO and DR-PO were trained on, in standard deviations above the SFT model's mean. KL is the mean over replies of the policy's "
     "log-probability minus the SFT model's; SteerLM's policies read which attributes are wanted, the SFT model does not. Two replies to a prompt differ less often, and pairs of neighbouring "
     "words are fewer, where a policy has lost diversity. Time and tokens are those of the policy's own training, after SFT.",
     "What a larger model would do; the world is small, and the judge is a program. The methods were given about the same time, not the same data: DPO and SteerLM learn from replies that "
     "were there, PPO, GRPO, DR-PO and SteerLM 2.0 from what they write."},
    {"best-of-n", "Over-optimisation, best of n",
     "The SFT model draws many replies to each prompt, and a learned reward picks the best of n of them. As n grows the learned reward of the pick rises, as it must; the gold "
     "reward rises with it at first, and may then fall. Bradley-Terry learned from labels of hasty labellers, the attribute regression from ratings that are noisy but see what the judge sees. "
     "The n of the peak is read off one half of the prompts; rise, fall and their parts are measured on the other.",
     "Best of n presses evenly on all prompts; a trained policy may find other weaknesses of the reward."},
    {"ppo-curve", "Over-optimisation, PPO",
     "PPO once more, with nothing that holds it back: no KL penalty. Every few updates the policy answers the same fresh prompts. The Bradley-Terry reward that it is trained on rises; what "
     "the gold judge thinks rises with it at first, and may then fall. The update of the peak is read off one half of the prompts; rise, fall and their parts are measured on the other.",
     "Where a run should stop that has a KL penalty: that is the PPO of the table above."}};
const std::vector<table_text> file_tables{
    {"measure", "Held-out pairs",
     "How often each model scores the chosen reply above the rejected one, on conversations that none of them was trained on; a tie counts a half. Intervals know that pairs of one "
     "conversation depend on one another. The DPO policy scores a reply by how much more likely it finds it than the model it began as does. The baselines need no language model; the reward model is compared with each, pair by pair. Weights of single tokens are a Bradley-Terry model of which tokens a reply has.",
     "What large models reach: these are small, and were trained from nothing on this file alone, in minutes. A reward model made from a large pretrained one would do better."}};

namespace {

void print_row(const figure& f) {
  std::printf("  %-60s %-24s %s\n", markup::label_of(f).c_str(), shown_text(f).c_str(), markup::as_shown(f).unit.c_str());
}

/// The first 200 bytes of a text (whole characters), on one line.
std::string excerpt(const std::string& text) {
  std::size_t end = std::min<std::size_t>(text.size(), 200);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  std::string line = text.substr(0, end);
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return line + (end < text.size() ? " ..." : "");
}

/// For terminals that know no U+2212.
std::string plain_minus(std::string text) {
  const std::string sign = markup::minus;
  for (std::size_t at; (at = text.find(sign)) != std::string::npos;) text.replace(at, sign.size(), 1, '-');
  return text;
}

/// A word for the shell.
std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char c : text) word.append(c == '\'' ? "'\\''" : std::string(1, c));
  return word + "'";
}

/// The figures "<prefix><number>" in order of the number, as points of a chart; `place(number)` gives a point's x and its name. Shares in percent.
template <class Place>
std::vector<chart_point> curve_of(const std::vector<figure>& figures, const std::string& prefix, Place place) {
  std::vector<std::pair<double, figure>> found;
  for (const auto& f : figures)
    if (f.name.rfind(prefix, 0) == 0) found.emplace_back(std::stod(f.name.substr(prefix.size())), markup::as_shown(f));
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<chart_point> points;
  for (const auto& [number, f] : found) {
    const std::pair<double, std::string> at = place(number);
    points.push_back({at.first, f.value, f.low.value_or(missing_value), f.high.value_or(missing_value), at.second});
  }
  return points;
}

/// Where a pressed reward stands, in nats, at a strength: a number, and a name of the point.
using place_of = std::function<std::pair<double, std::string>(double)>;
std::pair<double, std::string> best_of_n_place(double n) {
  return {plumb::best_of_n_kl(static_cast<index_t>(n)), "n = " + std::to_string(static_cast<int>(n))};
}
place_of ppo_place(const std::vector<figure>& all) {
  return [&all](double update) {
    const std::string number = std::to_string(static_cast<int>(update));
    const figure* kl = find_figure(all, "ppo_curve/kl/update=" + number);
    return std::pair(kl != nullptr ? kl->value : missing_value, number + " updates");
  };
}

/// What replies are like as a reward is pressed harder, a row for each strength.
text_table pressed_table(const std::vector<figure>& all, const std::string& caption, const std::string& who, const std::string& counted,
                         const std::string& title, const place_of& place) {
  text_table t{.caption = caption, .columns = {{title, true}, {"KL, nats", true}}};
  constexpr std::pair<const char*, const char*> columns[] = {{"gold", "Gold reward"}, {"learned", "Its own reward, sd"}, {"labellers", "As labellers see it"},
                                                             {"correctness", "Correctness"}, {"politeness", "Politeness"}, {"conciseness", "Conciseness"},
                                                             {"courtesies", "Courtesies"}, {"length", "Length, tokens"}};
  for (const auto& [key, name] : columns) t.columns.push_back({name, true});
  const std::string first = who + "/gold/" + counted + "=";
  for (const auto& f : all) {
    if (f.name.rfind(first, 0) != 0) continue;
    const std::string strength = f.name.substr(first.size());
    std::vector<std::string> row{strength, markup::number(place(std::stod(strength)).first, 2)};
    for (const auto& [key, name] : columns)
      if (const figure* g = find_figure(all, who + "/" + key + "/" + counted + "=" + strength))
        row.push_back(markup::number(g->value, key == std::string("length") ? 1 : 2));
    t.rows.push_back(row);
  }
  return t;
}

/// All that is said of a policy, a row for each; `seconds` and `tokens` of the stages of one seed.
text_table policies_table(const std::vector<figure>& all, const std::string& caption, const std::map<std::string, double>& seconds,
                          const std::map<std::string, double>& tokens) {
  text_table t{.caption = caption,
               .columns = {{"Policy"}, {"Win rate over SFT, %", true}, {"Gold reward", true}, {"Learned reward, sd", true}, {"KL, nats", true},
                           {"Length", true}, {"Two replies differ, %", true}, {"Different word pairs, %", true}, {"Training, s", true}, {"Tokens, thousands", true}}};
  const auto row = [&](const std::string& key, const std::string& name) {
    if (find_figure(all, "gold_reward/" + key) == nullptr) return;
    const auto text = [&](const std::string& figure_name, int decimals, bool interval) {
      const figure* f = find_figure(all, figure_name);
      if (f == nullptr) return std::string(markup::not_available);
      figure g = markup::as_shown(*f);
      if (!interval) g.low = g.high = std::nullopt;
      return to_text(g, decimals);
    };
    const auto taken = [&](const std::map<std::string, double>& of, double unit) {
      const auto at = of.find(key);
      return at == of.end() ? std::string(markup::not_available) : markup::number(at->second / unit, 0);
    };
    t.rows.push_back({name, text("win_rate/" + key + "_over_sft", 1, true), text("gold_reward/" + key, 2, true), text("learned_reward/" + key, 2, false),
                      text("kl/" + key + "_per_reply", 2, false), text("length/" + key, 1, false), text("replies_differ/" + key, 0, false),
                      text("distinct_bigrams/" + key, 1, false), taken(seconds, 1), taken(tokens, 1000)});
  };
  row("sft", "SFT");
  for (const contender& c : contenders) row(c.key, c.name);
  return t;
}

void print_table(const text_table& t) {
  std::printf("\n  %s\n", t.caption.c_str());
  std::vector<std::size_t> width;
  const auto cell = [](const std::string& text) { return text == markup::not_available ? std::string("-") : plain_minus(text); };
  for (std::size_t k = 0; k < t.columns.size(); ++k) {
    width.push_back(t.columns[k].name.size() + 2);
    for (const auto& row : t.rows) width.back() = std::max(width.back(), cell(row[k]).size() + 2);
  }
  const auto print = [&](std::size_t k, const std::string& text) {
    const int n = static_cast<int>(width[k]);
    t.columns[k].numeric ? std::printf("%*s", n, text.c_str()) : std::printf("  %-*s", n - 2, text.c_str());
  };
  for (std::size_t k = 0; k < width.size(); ++k) print(k, t.columns[k].name);
  std::printf("\n");
  for (const auto& row : t.rows) {
    for (std::size_t k = 0; k < row.size(); ++k) print(k, cell(row[k]));
    std::printf("\n");
  }
}

void draw_best_of_n(page& p, const std::vector<figure>& all) {
  line_chart gold{.title = "What the gold judge thinks of the pick", .x_label = "KL from the SFT model, at most log n - (n - 1)/n, in nats", .y_label = "gold reward, 0 to 4"};
  line_chart labellers{.title = "What the labellers would think of it", .x_label = gold.x_label, .y_label = "the judge's scale, with a labeller's eyes"};
  line_chart learned{.title = "What the learned reward thinks of its own pick", .x_label = gold.x_label, .y_label = "standard deviations above the SFT model's mean"};
  for (const auto& [model, name] : reward_names) {
    const std::string who = std::string("best_of_n/") + model, picked = std::string("picked by ") + name;
    gold.series.push_back({picked, curve_of(all, who + "/gold/n=", best_of_n_place)});
    labellers.series.push_back({picked, curve_of(all, who + "/labellers/n=", best_of_n_place)});
    learned.series.push_back({name, curve_of(all, who + "/learned/n=", best_of_n_place)});
  }
  p.chart(gold).chart(learned).chart(labellers);
}

/// PPO's curve, beside best of n by the same reward where that was measured.
void draw_ppo_curve(page& p, const std::vector<figure>& curve, const std::vector<figure>& all) {
  constexpr std::array<std::array<const char*, 3>, 3> charts{{{"gold", "What the gold judge thinks as PPO goes on", "gold reward, 0 to 4"},
                                                              {"learned", "What the learned reward thinks of it", "standard deviations above the SFT model's mean"},
                                                              {"labellers", "What the labellers would think of it", "the judge's scale, with a labeller's eyes"}}};
  for (const auto& [key, title, y] : charts) {
    line_chart c{.title = title, .x_label = "KL from the SFT model, in nats", .y_label = y};
    c.series.push_back({"PPO", curve_of(curve, std::string("ppo_curve/") + key + "/update=", ppo_place(curve))});
    const auto picks = curve_of(all, std::string("best_of_n/bradley_terry/") + key + "/n=", best_of_n_place);
    if (!picks.empty()) c.series.push_back({"best of n by Bradley-Terry", picks});
    p.chart(c);
  }
}

bool only_in_charts(const std::string& name) {
  return name.find("/n=") != std::string::npos || name.find("/update=") != std::string::npos || name == "learning_curve/percent=100";
}

}  // namespace

void report(const settings& s, const std::string& demo, const std::vector<table_text>& tables, const std::vector<seed_run>& runs,
            const std::string& opening, const std::string& account) {
  // Of each table: the figures of the seeds that finished its stage, and their means.
  std::map<std::string, std::vector<std::pair<std::uint64_t, std::vector<figure>>>> per_seed;
  std::map<std::string, std::vector<figure>> of_stage;
  std::map<std::string, double> seconds, tokens;
  std::vector<figure> all;
  for (const auto& table : tables) {
    for (const auto& run : runs)
      if (const auto at = run.found.find(table.stage); at != run.found.end()) per_seed[table.stage].emplace_back(run.seed, at->second.figures);
    if (per_seed[table.stage].empty()) continue;
    of_stage[table.stage] = over_seeds(per_seed[table.stage], table.stage != "measure");
    all.insert(all.end(), of_stage[table.stage].begin(), of_stage[table.stage].end());
  }
  for (const auto& run : runs) {
    for (const auto& [stage, took] : run.seconds) seconds[stage] += took;
    for (const auto& [stage, count] : run.tokens) tokens[stage] += static_cast<double>(count);
  }

  std::string seeds, command = "./dev demo";
  for (const std::uint64_t seed : s.seeds) seeds += (seeds.empty() ? "" : ",") + std::to_string(seed);
  page page(demo == "lab" ? "Alignment lab" : "Your preference file", opening);
  if (s.quick) page.notes({{"A quick run", "A few steps of each stage, made with --quick to see that everything works. Its figures mean nothing."}});
  std::vector<figure> highlights;
  for (const char* name : {"win_rate/dpo_over_sft", "win_rate/ppo_over_sft", "win_rate/drpo_over_sft", "win_rate/steerlm2_over_sft", "ppo_curve/fall",
                           "accuracy/reward_model", "accuracy/dpo"})
    if (const figure* f = find_figure(all, name)) highlights.push_back(*f);
  if (!highlights.empty()) page.highlights(highlights);
  if (!account.empty()) {
    page.section("What was read");
    std::istringstream lines(account);
    for (std::string line; std::getline(lines, line);) page.text(line);
  }

  for (const auto& table : tables) {
    const auto& finished = per_seed[table.stage];
    if (finished.empty()) continue;
    const auto& figures = of_stage[table.stage];
    std::string intervals = "95 % intervals";
    if (finished.size() > 1) {
      intervals = "means over " + std::to_string(finished.size());
      intervals += table.stage == "measure" ? " splits of one file, which overlap: no intervals" : finished.size() > 2 ? " seeds, 95 % intervals of Student's t" : " seeds, too few for an interval";
    } else if (runs.size() > 1) {
      intervals = "seed " + std::to_string(finished.front().first) + " alone, 95 % intervals";
    }
    std::printf("\n%s (%s)\n", table.title.c_str(), intervals.c_str());
    page.section(table.title).notes({{"What this shows", table.shows}, {"What it does not show", table.does_not_show}});
    std::vector<figure> rows;
    for (const auto& f : figures)
      if (f.name.rfind("seed ", 0) != 0 && !only_in_charts(f.name)) rows.push_back(f);
    const bool policies = table.stage == "judge-policies";
    if (!policies)
      for (const auto& f : rows) print_row(f);
    // A sentence decides by the intervals of one seed: each speaks for itself.
    const auto tell = [&](auto sentence) {
      for (const auto& [seed, own] : finished) {
        const std::string said = sentence(own);
        if (said.empty()) continue;
        const std::string whole = (finished.size() > 1 ? "Seed " + std::to_string(seed) + ": " : std::string()) + said;
        std::printf("\n  %s\n", whole.c_str());
        page.text(whole);
      }
    };
    if (policies) {  // as one table; each figure is in summary.json
      auto each_seconds = seconds, each_tokens = tokens;
      for (auto* of : {&each_seconds, &each_tokens})
        for (auto& [stage, sum] : *of) sum /= static_cast<double>(runs.size());
      const auto one = policies_table(figures, table.title + " (" + intervals + ")", each_seconds, each_tokens);
      page.table(one);
      print_table(one);
      forest_plot wins{.title = "Win rate over SFT", .reference = 0.5, .reference_label = "no better"};
      for (const contender& c : contenders)
        if (const figure* f = find_figure(figures, std::string("win_rate/") + c.key + "_over_sft")) {
          wins.rows.push_back(*f);
          wins.rows.back().label = c.name;
        }
      page.forest(wins);
      tell(policy_verdict);
    } else {
      tell(verdict);
      page.figures({.caption = table.title + " (" + intervals + ")", .rows = rows});
    }
    if (table.stage == "best-of-n") {
      draw_best_of_n(page, figures);
      for (const auto& [model, name] : reward_names) {
        const std::string who = std::string("best_of_n/") + model, by = std::string("Picked by ") + name;
        const auto picks = pressed_table(figures, std::string("The pick of best of n by ") + name, who, "n", "n", best_of_n_place);
        page.table(picks);
        print_table(picks);
        tell([&](const std::vector<figure>& own) { return why_it_falls(own, who, by); });
      }
    }
    if (table.stage == "ppo-curve") {
      draw_ppo_curve(page, figures, all);
      const auto replies = pressed_table(figures, "Replies of PPO as it goes on", "ppo_curve", "update", "Updates", ppo_place(figures));
      page.table(replies);
      print_table(replies);
      tell([&](const std::vector<figure>& own) { return why_it_falls(own, "ppo_curve", "Trained by PPO"); });
    }
    if (table.stage == "measure") {
      forest_plot accuracies{.title = "Accuracy on held-out pairs", .reference = 0.5, .reference_label = "coin"};
      for (const auto& f : rows)
        if (f.name.rfind("accuracy/", 0) == 0) accuracies.rows.push_back(f);
      page.forest(accuracies);
      line_chart learning{.title = "Accuracy of the reward model by the share of the labels that it saw", .x_label = "labels, % of the pairs to train on (every model first read all texts to train on)",
                          .y_label = "accuracy on held-out pairs, %",
                          .series = {{"reward model", curve_of(figures, "learning_curve/percent=", [](double percent) { return std::pair(percent, std::string()); })}},
                          .references = {{50, "coin"}}};
      page.chart(learning);
    }
    const auto found = std::find_if(runs.begin(), runs.end(), [&](const seed_run& run) { return run.found.count(table.stage) != 0; })->found.find(table.stage);
    if (found->second.examples.empty()) continue;
    page.subsection(table.stage == "measure" ? "Pairs it is surest about" : "Replies");
    std::size_t shown = 0;
    for (const auto& e : found->second.examples) {
      page.replies(e);
      if (++shown > 2) continue;  // the first in the order that they were drawn in; the page has more
      std::printf("\n  %s\n", excerpt(e.prompt).c_str());
      for (const auto& r : e.replies) {
        std::printf("    %-28s %s\n", r.by.c_str(), excerpt(r.text).c_str());
        if (r.score) std::printf("    %28.2f %s\n", *r.score, r.reasons.c_str());
      }
    }
    if (shown > 2) std::printf("\n  (the first 2 of %zu; report.html has them all)\n", shown);
  }
  double total = 0;
  text_table times{.caption = "Where the time went, all seeds together",
                   .columns = {{"Stage"}, {"Seconds", true}, {"Tokens, thousands", true}, {"Tokens per second", true}}};
  for (const auto& [stage, took] : seconds) {
    std::string name = stage;
    std::replace(name.begin(), name.end(), '_', ' ');
    const auto at = tokens.find(stage);
    const bool counted = at != tokens.end() && took > 0;
    times.rows.push_back({name, markup::number(took, took < 10 ? 1 : 0), counted ? markup::number(at->second / 1000, 0) : markup::not_available,
                          counted ? markup::number(at->second / took, 0) : markup::not_available});
    total += took;
  }
  print_table(times);
  if (!s.data.empty()) command += " --data " + quoted(s.data.string()) + " --pairs " + std::to_string(s.file_pairs);
  if (!s.all_stages)
    for (const auto& stage : s.only) command += (&stage == &s.only.front() ? " --only " : ",") + stage;
  command += " --seeds " + seeds + " --backend " + s.backend + (s.quick ? " --quick" : "");
  auto settings = s.described();
  settings.insert(settings.begin(), {"seeds", seeds});
  page.section("How to reproduce it").code(command).text(
      "The same program, settings, seeds and number of threads give the same numbers. Every figure of this page stands in summary.json beside it.");
  page.settings(settings).table(times).text(
      "Tokens of a stage of training are those of the texts that went through the model in training, prompts among them, each time they did; where a model "
      "writes, those it wrote to and wrote.");

  summary written{.demo = demo, .backend = s.backend, .seeds = s.seeds, .threads = s.threads(), .seconds = total, .figures = all};
  written.write(s.out / "summary.json");
  write_atomically(s.out / "report.html", page.html());
  std::printf("\n%.0f s in all; %s shows it, with figures and checkpoints beside it\n", total, (s.out / "report.html").string().c_str());
}

}  // namespace lab

#pragma once
// One seed of the lab: its stages, from nothing to an aligned model and what the judge says of it.

#include "settings.hpp"
#include "stages.hpp"
#include "training.hpp"

#include <algorithm>
#include <memory>

namespace lab {

// Each use of randomness has a purpose of its own, so that a change of one stage leaves the others' numbers alone.
enum purpose : std::uint64_t {
  for_pretraining = 1, for_demonstrations, for_preferences, for_tests, for_batches, for_labels, for_replies, for_best_of_n
};

/// Two replies of the SFT model to one prompt, with the judge's view of them; which is chosen was said by a labeller.
struct labelled_pair {
  std::uint64_t prompt_number = 0;  ///< its place in the stream of prompts
  prompt asked{};
  tokens chosen{}, rejected{};
  judgement gold_chosen{}, gold_rejected{};
};

/// The best of n replies by a score, in expectation over which n of the N that were drawn (all equally likely): the reply of rank k from below
/// is the best with probability C(k - 1, n - 1) / C(N, n). Nakano et al., arXiv:2112.09332, appendix on best-of-n.
/// Gives the expected `value` of the best by `score`; both `[N]`.
inline double expected_best(const std::vector<double>& score, const std::vector<double>& value, std::size_t n) {
  const std::size_t total = score.size();
  std::vector<std::size_t> order(total);
  for (std::size_t i = 0; i < total; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return score[a] < score[b]; });
  const auto log_choose = [](std::size_t m, std::size_t k) {
    return std::lgamma(static_cast<double>(m) + 1) - std::lgamma(static_cast<double>(k) + 1) - std::lgamma(static_cast<double>(m - k) + 1);
  };
  double sum = 0;
  for (std::size_t k = n; k <= total; ++k) sum += std::exp(log_choose(k - 1, n - 1) - log_choose(total, n)) * value[order[k - 1]];
  return sum;
}

template <class B>
class experiment {
 public:
  using real = plumb::real_of<B>;

  explicit experiment(const seed_context<B>& run) : b_(run.compute), s_(run.s), seed_(run.seed), folder_(run.folder) {
    config_ = {.vocabulary = static_cast<index_t>(words().size()), .width = s_.width, .layers = s_.layers,
               .feed_forward = s_.width * 8 / 3 / 8 * 8};
  }

  /// Does the stages of `--only`, and those that they need, each once; what was measured before is read back, asked for or not.
  void run() {
    for (const std::string& stage : stage_names) {
      const bool asked = std::find(s_.only.begin(), s_.only.end(), stage) != s_.only.end();
      if (!asked && !(is_measuring(stage) && folder_.done(stage))) continue;
      if (stage == "pretrain") pretrained();
      if (stage == "sft") sft();
      if (stage == "pairs") preferences(), test_pairs();
      if (stage == "reward") bradley_terry(), attributes();
      if (stage == "dpo") dpo();
      if (stage == "judge-rewards") measured("judge-rewards", [&] { return judge_rewards(); });
      if (stage == "judge-policies") measured("judge-policies", [&] { return judge_policies(); });
      if (stage == "best-of-n") measured("best-of-n", [&] { return best_of_n(); });
    }
  }
  /// Of each stage of measuring that is finished.
  const std::map<std::string, findings>& found() const { return found_; }

 private:
  // The stages. Each is done when it is first asked for, or read back where it was done before.

  const transformer<B>& pretrained() {
    return model("pretrain", 0, [&](transformer<B>& m) { train_on_texts(m, "pretraining", for_pretraining, s_.pretrain_steps, s_.pretrain_rate); });
  }
  const transformer<B>& sft() {
    return model("sft", 0, [&](transformer<B>& m) {
      m.weights() = pretrained().weights();
      train_on_texts(m, "supervised fine-tuning", for_demonstrations, s_.sft_steps, s_.sft_rate);
    });
  }
  const std::vector<labelled_pair>& preferences() { return pairs("preferences", s_.preference_pairs, false); }
  const std::vector<labelled_pair>& test_pairs() { return pairs("held_out_pairs", s_.test_pairs, true); }
  const transformer<B>& bradley_terry() {
    return model("reward_bradley_terry", 1, [&](transformer<B>& m) { train_reward(m); });
  }
  const transformer<B>& attributes() {
    return model("reward_attributes", 5, [&](transformer<B>& m) { train_reward(m); });
  }
  const transformer<B>& dpo() {
    return model("dpo", 0, [&](transformer<B>& m) {
      m.weights() = sft().weights();
      train_dpo(m);
    });
  }

  template <class Train>
  const transformer<B>& model(const std::string& stage, index_t scores, Train train) {
    auto& slot = models_[stage];
    if (slot) return *slot;
    auto config = config_;
    config.scores = scores;
    auto made = std::make_unique<transformer<B>>(config, seed_);
    // What a stage needs is made before the stage's own clock starts.
    if (!folder_.done(stage)) before(stage);
    train_once(folder_, stage, *made, train);
    slot = std::move(made);
    return *slot;
  }
  void before(const std::string& stage) {
    if (stage == "sft") pretrained();
    if (stage == "dpo" || stage.rfind("reward", 0) == 0) sft(), preferences();
  }

  const std::vector<labelled_pair>& pairs(const std::string& stage, std::size_t count, bool test) {
    auto& slot = pairs_[stage];
    if (!slot.empty()) return slot;
    if (!folder_.done(stage)) sft();
    using path = std::filesystem::path;
    folder_.once(stage, ".jsonl", [&](const path& file) { slot = load_pairs(file, test); },
                 [&](const path& file) { save_pairs(file, slot = draw_pairs(count, test)); });
    return slot;
  }

  template <class Measure>
  void measured(const std::string& stage, Measure measure) {
    if (!folder_.done(stage)) {
      if (stage != "judge-policies") bradley_terry(), attributes();
      if (stage == "judge-rewards") test_pairs();
      if (stage == "judge-policies") sft(), dpo();
    }
    found_[stage] = measure_once(folder_, stage, measure);
  }

  // Pretraining reads whole texts of the base writer; fine-tuning learns the demonstrations' replies.
  void train_on_texts(transformer<B>& model, const char* stage, purpose use, int steps, double rate) {
    trainer<B> learner(b_, memory_, model);
    progress line(stage, steps);
    world_random random(seed_, use);
    for (int step = 0; step < steps; ++step) {
      std::vector<sample> texts;
      for (std::size_t i = 0; i < s_.texts; ++i) {
        const prompt p = draw_prompt(random, false);
        texts.push_back(joined(p.text, write_reply(p, use == for_pretraining ? base_writer : demonstration_writer, random)));
        if (use == for_pretraining) texts.back().prompt_length = 1;  // everything but <bos> is scored
      }
      const batch x(texts);
      line.show(step + 1, x.scored_count(), learner.supervised(x, schedule(rate, step, steps)).loss);
    }
  }

  std::vector<labelled_pair> draw_pairs(std::size_t count, bool test) {
    const purpose use = test ? for_tests : for_preferences;
    world_random random(seed_, use), coin(seed_, for_labels + 100 * use);
    std::vector<labelled_pair> drawn;
    const stopwatch watch;
    std::uint64_t asked = 0;
    for (std::uint64_t round = 0; drawn.size() < count; ++round) {
      std::vector<prompt> prompts;
      for (int i = 0; i < 128; ++i) prompts.push_back(draw_prompt(random, test));
      const auto first = replies_to(sft(), prompts, 1000000 * use + 2 * round), second = replies_to(sft(), prompts, 1000000 * use + 2 * round + 1);
      for (std::size_t i = 0; i < prompts.size() && drawn.size() < count; ++i) {
        const std::uint64_t number = asked++;
        if (first[i] == second[i]) continue;  // says nothing
        const auto a = judge(prompts[i], first[i]), c = judge(prompts[i], second[i]);
        if (coin.uniform() < preference_probability(a, c)) {
          drawn.push_back({number, prompts[i], first[i], second[i], a, c});
        } else {
          drawn.push_back({number, prompts[i], second[i], first[i], c, a});
        }
      }
      if (round > 100 + 100 * count / 128) throw std::runtime_error("the model's replies hardly ever differ: no pairs to label");
    }
    std::printf("%-22s %zu pairs from %llu replies  %.0f s\n", test ? "held-out pairs" : "preference pairs", drawn.size(),
                static_cast<unsigned long long>(2 * asked), watch.seconds());
    return drawn;
  }

  // Prompts are drawn again, and judged again, when pairs are read back; the file's texts are for people and for other tools.
  static void save_pairs(const std::filesystem::path& path, const std::vector<labelled_pair>& pairs) {
    std::string lines;
    for (const auto& p : pairs)
      lines += nlohmann::ordered_json{{"prompt", words().decode(p.asked.text)}, {"chosen", words().decode(p.chosen)},
                                      {"rejected", words().decode(p.rejected)}, {"prompt_number", p.prompt_number}}.dump() + "\n";
    write_atomically(path, lines);
  }
  std::vector<labelled_pair> load_pairs(const std::filesystem::path& path, bool test) const {
    std::vector<labelled_pair> pairs;
    world_random random(seed_, test ? for_tests : for_preferences);
    std::ifstream in(path);
    prompt asked;
    std::uint64_t next = 0;
    for (std::string line; std::getline(in, line);) {
      const auto pair = nlohmann::json::parse(line);
      const std::uint64_t number = pair.at("prompt_number");
      while (next <= number) asked = draw_prompt(random, test), ++next;
      const tokens chosen = words().encode(pair.at("chosen").get<std::string>()), rejected = words().encode(pair.at("rejected").get<std::string>());
      pairs.push_back({number, asked, chosen, rejected, judge(asked, chosen), judge(asked, rejected)});
    }
    if (pairs.empty()) throw std::runtime_error(path.string() + ": holds no pairs");
    return pairs;
  }

  std::vector<tokens> replies_to(const transformer<B>& model, const std::vector<prompt>& prompts, std::uint64_t stream) {
    std::vector<tokens> texts;
    for (const auto& p : prompts) texts.push_back(p.text);
    return draw_replies(b_, memory_, model, std::span<const tokens>(texts), 1.0, plumb::random_stream{seed_, for_replies}.bits(stream));
  }

  static std::vector<sample> samples_of(std::span<const labelled_pair> pairs) {
    std::vector<sample> samples;
    for (const auto& p : pairs) {
      samples.push_back(joined(p.asked.text, p.chosen));
      samples.push_back(joined(p.asked.text, p.rejected));
    }
    return samples;
  }

  std::vector<sample> draw_batch(const std::vector<labelled_pair>& pairs, world_random& random, std::vector<std::size_t>& which) {
    std::vector<labelled_pair> chosen;
    which.clear();
    for (std::size_t i = 0; i < s_.pairs; ++i) {
      which.push_back(random.below(pairs.size()));
      chosen.push_back(pairs[which.back()]);
    }
    return samples_of(chosen);
  }

  /// Reward models start from the SFT weights: one score trained by Bradley-Terry on the labels, or five by regression on ratings.
  void train_reward(transformer<B>& model) {
    const index_t scores = model.config().scores;
    const auto& pairs = preferences();
    std::copy(sft().weights().begin(), sft().weights().end(), model.weights().begin());
    trainer<B> learner(b_, memory_, model);
    progress line(scores == 1 ? "reward: Bradley-Terry" : "reward: attributes", s_.reward_steps);
    world_random random(seed_, for_batches + 100 * static_cast<std::uint64_t>(scores)), noise(seed_, for_labels);
    std::vector<std::array<double, 5>> ratings;  // of chosen and rejected, in turn
    for (const auto& p : pairs) {
      ratings.push_back(rate(p.gold_chosen, noise));
      ratings.push_back(rate(p.gold_rejected, noise));
    }
    std::vector<std::size_t> which;
    for (int step = 0; step < s_.reward_steps; ++step) {
      const batch x(draw_batch(pairs, random, which));
      const double r = schedule(s_.reward_rate, step, s_.reward_steps);
      if (scores == 1) {
        const auto done = learner.bradley_terry(x, r);
        line.show(step + 1, x.scored_count(), done.loss, done.accuracy);
        continue;
      }
      std::vector<real> labels;
      for (const std::size_t i : which)
        for (const std::size_t side : {2 * i, 2 * i + 1})
          for (const double value : ratings[side]) labels.push_back(static_cast<real>(value));
      line.show(step + 1, x.scored_count(), learner.attribute_regression(x, labels, r).loss);
    }
  }

  void train_dpo(transformer<B>& policy) {
    const auto& pairs = preferences();
    trainer<B> learner(b_, memory_, policy);
    progress line("DPO", s_.dpo_steps);
    world_random random(seed_, for_batches);
    std::vector<std::size_t> which;
    for (int step = 0; step < s_.dpo_steps; ++step) {
      const batch x(draw_batch(pairs, random, which));
      const auto done = learner.dpo(x, score_tokens(b_, memory_, sft(), x), s_.beta, schedule(s_.dpo_rate, step, s_.dpo_steps));
      line.show(step + 1, x.scored_count(), done.loss, done.accuracy);
    }
  }

  // Measuring.

  /// One number for each text: the Bradley-Terry score, or the attributes under the judge's weights.
  std::vector<double> learned_reward(const transformer<B>& model, const batch& x) {
    const auto scores = reward(b_, memory_, model, x);
    if (model.config().scores == 1) return {scores.begin(), scores.end()};
    const std::vector<real> goal(gold_weights.begin(), gold_weights.end());
    std::vector<real> goals(static_cast<std::size_t>(x.size));
    plumb::goal_reward(b_, memory_(), view<const real, 2>(scores.data(), x.size, 5), goal, {}, goals);
    b_.sync();
    return {goals.begin(), goals.end()};
  }

  findings judge_rewards() {
    const auto& pairs = test_pairs();
    double bt = 0, regression = 0, gold = 0;
    std::vector<double> ceiling;
    for (std::size_t from = 0; from < pairs.size(); from += 64) {
      const std::size_t count = std::min<std::size_t>(64, pairs.size() - from);
      const batch x(samples_of(std::span(pairs).subspan(from, count)));
      const auto scores = learned_reward(bradley_terry(), x), goals = learned_reward(attributes(), x);
      for (std::size_t i = 0; i < count; ++i) {
        const auto right = [](auto a, auto c) { return a > c ? 1.0 : a == c ? 0.5 : 0.0; };
        const auto& p = pairs[from + i];
        bt += right(scores[2 * i], scores[2 * i + 1]);
        regression += right(goals[2 * i], goals[2 * i + 1]);
        gold += right(p.gold_chosen.total, p.gold_rejected.total);
        ceiling.push_back(label_ceiling(p.gold_chosen, p.gold_rejected));
      }
    }
    figure best = mean_figure("reward_accuracy/noise_ceiling", ceiling, "share", "noise ceiling: whoever knew the labellers' chances");
    best.low = best.high = std::nullopt;  // not an estimate
    return {.figures = {rate_figure("reward_accuracy/bradley_terry", bt, pairs.size(), "Bradley-Terry reward model, agreement with labels"),
                        rate_figure("reward_accuracy/attribute_regression", regression, pairs.size(), "attribute regression under the judge's weights"),
                        rate_figure("reward_accuracy/gold_judge", gold, pairs.size(), "the gold judge itself, agreement with labels"), best}};
  }

  findings judge_policies() {
    world_random random(seed_, for_tests + 1000);
    std::vector<prompt> prompts;
    for (std::size_t i = 0; i < s_.test_prompts; ++i) prompts.push_back(draw_prompt(random, true));
    findings found;
    std::vector<double> gold_before, gold_after, length_before, length_after, kl, kl_per_token;
    double wins = 0;
    for (std::size_t from = 0; from < prompts.size(); from += 128) {
      const std::vector<prompt> part(prompts.begin() + static_cast<std::ptrdiff_t>(from),
                                     prompts.begin() + static_cast<std::ptrdiff_t>(std::min(from + 128, prompts.size())));
      const auto old = replies_to(sft(), part, 9000001 + 2 * from), fresh = replies_to(dpo(), part, 9000002 + 2 * from);
      std::vector<sample> texts;
      for (std::size_t i = 0; i < part.size(); ++i) {
        const auto a = judge(part[i], old[i]), c = judge(part[i], fresh[i]);
        wins += c.total > a.total ? 1 : c.total == a.total ? 0.5 : 0;
        gold_before.push_back(a.total);
        gold_after.push_back(c.total);
        length_before.push_back(static_cast<double>(old[i].size()));
        length_after.push_back(static_cast<double>(fresh[i].size()));
        texts.push_back(joined(part[i].text, fresh[i]));
        if (found.examples.size() < 8)
          found.examples.push_back({spoken(part[i].text), {{"SFT", spoken(old[i]), a.total, explain(a)}, {"DPO", spoken(fresh[i]), c.total, explain(c)}}});
      }
      const batch x(texts);
      const auto own = score_tokens(b_, memory_, dpo(), x), reference = score_tokens(b_, memory_, sft(), x);
      for (std::size_t i = 0; i < texts.size(); ++i) {
        double sum = 0;
        for (auto t = static_cast<std::size_t>(x.first[i]); t < static_cast<std::size_t>(x.last[i]); ++t)
          sum += static_cast<double>(own[t]) - static_cast<double>(reference[t]);
        kl.push_back(sum);
        kl_per_token.push_back(sum / static_cast<double>(fresh[i].size()));
      }
    }
    found.figures = {mean_figure("gold_reward/sft", gold_before, "points", "gold reward, SFT (0 to 4)"),
                     mean_figure("gold_reward/dpo", gold_after, "points", "gold reward, DPO"),
                     rate_figure("win_rate/dpo_over_sft", wins, prompts.size(), "win rate of DPO over SFT, ties a half"),
                     mean_figure("kl/dpo_per_reply", kl, "nats", "KL from DPO to SFT, per reply"),
                     mean_figure("kl/dpo_per_token", kl_per_token, "nats", "KL from DPO to SFT, per token"),
                     mean_figure("length/sft", length_before, "tokens", "length of a reply, SFT"),
                     mean_figure("length/dpo", length_after, "tokens", "length of a reply, DPO")};
    return found;
  }

  /// What is kept of a reply that best-of-n may pick: what each view of it says, `gold` and the judge's attributes, what the labellers see, length,
  /// courtesies, and the two learned rewards.
  struct candidate {
    tokens text{};
    judgement gold{};
    double learned[2]{};
  };
  struct aspect {
    const char *name, *unit, *label;
    double (*of)(const candidate&);
  };
  static constexpr aspect aspects[] = {
      {"gold", "points", "gold reward", [](const candidate& c) { return c.gold.total; }},
      {"labellers", "points", "as the labellers see it", [](const candidate& c) { return hasty_total(c.gold); }},
      {"correctness", "points", "correctness", [](const candidate& c) { return c.gold.attribute[0]; }},
      {"relevance", "points", "relevance", [](const candidate& c) { return c.gold.attribute[1]; }},
      {"politeness", "points", "politeness", [](const candidate& c) { return c.gold.attribute[2]; }},
      {"conciseness", "points", "conciseness", [](const candidate& c) { return c.gold.attribute[3]; }},
      {"fluency", "points", "fluency", [](const candidate& c) { return c.gold.attribute[4]; }},
      {"length", "tokens", "length", [](const candidate& c) { return static_cast<double>(c.text.size()); }},
      {"courtesies", "phrases", "courtesies", [](const candidate& c) { return static_cast<double>(c.gold.courteous); }}};

  /// Over-optimisation: the reply of the SFT model that a learned reward likes best of n, and what the gold judge thinks of it, as n grows.
  findings best_of_n() {
    world_random random(seed_, for_best_of_n);
    std::vector<prompt> prompts;
    for (std::size_t i = 0; i < s_.best_prompts; ++i) prompts.push_back(draw_prompt(random, true));
    std::vector<std::vector<candidate>> all(prompts.size());  // [prompt][reply]
    progress line("best of n", static_cast<int>(s_.best_samples));
    for (std::size_t k = 0; k < s_.best_samples; ++k) {
      const auto replies = replies_to(sft(), prompts, 20000000 + k);
      std::vector<sample> texts;
      for (std::size_t i = 0; i < prompts.size(); ++i) texts.push_back(joined(prompts[i].text, replies[i]));
      const batch x(texts);
      const std::vector<double> by_labels = learned_reward(bradley_terry(), x), by_ratings = learned_reward(attributes(), x);
      for (std::size_t i = 0; i < prompts.size(); ++i) all[i].push_back({replies[i], judge(prompts[i], replies[i]), {by_labels[i], by_ratings[i]}});
      line.show(static_cast<int>(k) + 1, x.scored_count());
    }
    findings found;
    std::vector<std::size_t> ns;
    for (std::size_t n = 1; n <= s_.best_samples; n *= 2) ns.push_back(n);
    constexpr const char* names[2] = {"bradley_terry", "attribute_regression"};
    constexpr const char* labels[2] = {"Bradley-Terry", "attribute regression"};
    for (std::size_t m = 0; m < 2; ++m) {
      const std::string who = std::string("best_of_n/") + names[m];
      std::vector<std::vector<double>> score(all.size());  // [prompt][reply]
      // The learned reward in standard deviations of the SFT model's replies, from their mean.
      double mean = 0, squares = 0, count = 0;
      for (std::size_t i = 0; i < all.size(); ++i)
        for (const candidate& c : all[i]) score[i].push_back(c.learned[m]), mean += c.learned[m], squares += c.learned[m] * c.learned[m], ++count;
      mean /= count;
      const double deviation = std::sqrt(std::max(squares / count - mean * mean, 1e-12));
      // The expected best of n by this reward, for each prompt: of the reward itself and of every aspect.
      const auto expected = [&](std::size_t n, auto value) {
        std::vector<double> each;
        for (std::size_t i = 0; i < all.size(); ++i) {
          std::vector<double> values;
          for (const candidate& c : all[i]) values.push_back(value(c));
          each.push_back(expected_best(score[i], values, n));
        }
        return each;
      };
      std::vector<std::vector<double>> golds;  // [n][prompt]
      for (const std::size_t n : ns) {
        const std::string at = "/n=" + std::to_string(n), best = "best of " + std::to_string(n) + " by " + labels[m] + ": ";
        found.figures.push_back(mean_figure(who + "/learned" + at, expected(n, [&](const candidate& c) { return (c.learned[m] - mean) / deviation; }),
                                            "standard deviations", best + "its own reward"));
        for (const aspect& a : aspects) {
          const auto each = expected(n, a.of);
          if (&a == &aspects[0]) golds.push_back(each);
          found.figures.push_back(mean_figure(who + "/" + a.name + at, each, a.unit, best + a.label));
        }
      }
      // Where the gold reward peaks is read off the even prompts; how far it rises and falls, and by what, off the odd ones.
      std::size_t peak = 0;
      std::vector<double> even_sums(ns.size());
      for (std::size_t j = 0; j < ns.size(); ++j)
        for (std::size_t i = 0; i < all.size(); i += 2) even_sums[j] += golds[j][i];
      for (std::size_t j = 0; j < ns.size(); ++j)
        if (even_sums[j] > even_sums[peak]) peak = j;
      const auto odd_change = [&](const std::vector<double>& from, const std::vector<double>& to, double weight = 1) {
        std::vector<double> change;
        for (std::size_t i = 1; i < all.size(); i += 2) change.push_back(weight * (to[i] - from[i]));
        return change;
      };
      const std::string by = std::string(", by ") + labels[m], last = std::to_string(ns.back());
      found.figures.push_back({who + "/peak_n", static_cast<double>(ns[peak]), {}, {}, (all.size() + 1) / 2, "replies", "n where the gold reward peaks" + by});
      found.figures.push_back(mean_figure(who + "/rise", odd_change(golds[0], golds[peak]), "points", "gold reward gained, n = 1 to peak" + by));
      found.figures.push_back(mean_figure(who + "/fall", odd_change(golds.back(), golds[peak]), "points", "gold reward lost, peak to n = " + last + by));
      for (std::size_t k = 0; k < lab::attributes.size(); ++k)
        found.figures.push_back(mean_figure(who + "/fall_of/" + lab::attributes[k],
                                            odd_change(expected(ns.back(), aspects[2 + k].of), expected(ns[peak], aspects[2 + k].of), gold_weights[k]), "points",
                                            std::string("of that, through ") + lab::attributes[k] + by));
      // What the labellers would mind as well is the learned reward's error; what only the judge minds is their taste.
      const auto unseen = [](const candidate& c) { return c.gold.total - hasty_total(c.gold); };
      found.figures.push_back(mean_figure(who + "/fall_seen_by_labellers", odd_change(expected(ns.back(), aspects[1].of), expected(ns[peak], aspects[1].of)), "points",
                                          "of that, what labellers would mind too" + by));
      found.figures.push_back(mean_figure(who + "/fall_unseen_by_labellers", odd_change(expected(ns.back(), unseen), expected(ns[peak], unseen)), "points",
                                          "of that, what only the judge minds" + by));
    }
    for (std::size_t i = 0; i < std::min<std::size_t>(6, all.size()); ++i) {
      example e{spoken(prompts[i].text)};
      const auto add = [&](const std::string& by, const candidate& c) { e.replies.push_back({by, spoken(c.text), c.gold.total, explain(c.gold)}); };
      add("SFT, first reply", all[i][0]);
      for (const std::size_t n : {std::min<std::size_t>(8, s_.best_samples), s_.best_samples})
        add("best of " + std::to_string(n) + " by Bradley-Terry",
            *std::max_element(all[i].begin(), all[i].begin() + static_cast<std::ptrdiff_t>(n), [](const candidate& a, const candidate& c) { return a.learned[0] < c.learned[0]; }));
      found.examples.push_back(std::move(e));
    }
    return found;
  }

  // Without the marks that only the model needs.
  static std::string spoken(const tokens& text) {
    tokens plain;
    for (const token t : text)
      if (t > vocabulary::end_of_reply) plain.push_back(t);
    return words().decode(plain);
  }

  B& b_;
  const settings& s_;
  std::uint64_t seed_;
  run_folder& folder_;
  workspace memory_{std::size_t{1} << 30};
  transformer_config config_{};
  std::map<std::string, std::unique_ptr<transformer<B>>> models_{};
  std::map<std::string, std::vector<labelled_pair>> pairs_{};
  std::map<std::string, findings> found_{};
};

}  // namespace lab

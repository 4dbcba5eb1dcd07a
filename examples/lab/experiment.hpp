#pragma once
// One seed of the lab: its stages, from nothing to an aligned model and what the judge says of it.

#include "measuring.hpp"
#include "models.hpp"
#include "settings.hpp"
#include "stages.hpp"

#include <plumb/algorithms/best_of_n.hpp>
#include <plumb/algorithms/drpo.hpp>
#include <plumb/algorithms/ppo.hpp>
#include <plumb/algorithms/steerlm2.hpp>

#include <algorithm>
#include <functional>
#include <memory>

namespace lab {

// Each use of randomness has a purpose of its own, so that a change of one stage leaves the others' numbers alone.
enum purpose : std::uint64_t {
  for_pretraining = 1, for_demonstrations, for_preferences, for_tests, for_batches, for_labels, for_replies, for_best_of_n, for_starts, for_rollouts,
  for_annotations, for_steering, for_curve
};

/// Two replies of the SFT model to one prompt, with the judge's view of them; which is chosen was said by a labeller.
struct labelled_pair {
  std::uint64_t prompt_number = 0;  ///< its place in the stream of prompts
  prompt asked{};
  tokens chosen{}, rejected{};
  judgement gold_chosen{}, gold_rejected{};
};

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
      for (const contender& c : contenders)
        if (stage == c.stage) policy(c.key);
      if (stage == "judge-rewards") measured("judge-rewards", [&] { return judge_rewards(); });
      if (stage == "judge-policies") measured("judge-policies", [&] { return judge_policies(); });
      if (stage == "best-of-n") measured("best-of-n", [&] { return best_of_n(); });
      if (stage == "ppo-curve") measured("ppo-curve", [&] { return ppo_curve(); });
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
  /// Of the contender by that key.
  const transformer<B>& policy(const std::string& key) {
    return model(key, 0, [&](transformer<B>& m) {
      if (key == "dpo") train_dpo(m);
      if (key == "ppo") train_on_rollouts(m, "PPO", plumb::advantage::gae{}, 0);
      if (key == "grpo") train_on_rollouts(m, "GRPO", plumb::advantage::grpo{}, 0);
      if (key == "rloo") train_on_rollouts(m, "RLOO", plumb::advantage::rloo{}, 0);
      if (key == "reinforce") train_on_rollouts(m, "REINFORCE++", plumb::advantage::reinforce_plus_plus{}, 0);
      if (key == "drpo") train_on_rollouts(m, "DR-PO", plumb::advantage::gae{}, s_.resets);
      if (key == "steerlm") train_steerlm(m);
      if (key == "steerlm2") train_steerlm2(m);
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
    if (stage == "pretrain") return;
    if (stage == "sft") return void(pretrained());
    sft(), preferences();
    if (stage.rfind("reward_", 0) == 0 || stage == "dpo") return;
    bradley_terry(), attributes();
    if (stage == "steerlm" || stage == "steerlm2") annotations();
    if (stage == "steerlm2") policy("steerlm");
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

  /// Levels of the attributes that the regression model sees in the first pairs' replies, chosen and rejected in turn.
  const std::vector<levels>& annotations() {
    if (!annotations_.empty()) return annotations_;
    if (!folder_.done("annotations")) attributes(), preferences();
    using path = std::filesystem::path;
    folder_.once("annotations", ".json", [&](const path& file) { annotations_ = load_annotations(file); },
                 [&](const path& file) {
                   annotations_ = annotate();
                   write_atomically(file, nlohmann::json(annotations_).dump() + "\n");
                 });
    return annotations_;
  }
  static std::vector<levels> load_annotations(const std::filesystem::path& file) {
    std::ifstream in(file);
    return nlohmann::json::parse(in).get<std::vector<levels>>();
  }
  std::vector<levels> annotate() {
    std::vector<levels> all;
    const auto& pairs = preferences();
    const std::size_t count = std::min(pairs.size(), s_.steered_pairs);
    for (std::size_t from = 0; from < count; from += 64) {
      const batch x(samples_of(std::span(pairs).subspan(from, std::min<std::size_t>(64, count - from))));
      const auto seen = reward(b_, memory_, attributes(), x);
      folder_.count(x.tokens());
      for (std::size_t i = 0; i < seen.size(); i += 5) {
        all.emplace_back();
        for (std::size_t k = 0; k < 5; ++k) all.back()[k] = static_cast<int>(std::clamp(std::nearbyint(static_cast<double>(seen[i + k])), 0.0, 4.0));
      }
    }
    std::string wanted;
    for (const int level : wanted_levels(all)) wanted += " " + numbers[static_cast<std::size_t>(level)];
    std::printf("%-22s %zu replies; SteerLM is asked for%s\n", "annotations", all.size(), wanted.c_str());
    return all;
  }

  template <class Measure>
  void measured(const std::string& stage, Measure measure) {
    if (!folder_.done(stage)) {
      sft(), bradley_terry(), attributes();
      if (stage == "judge-rewards") test_pairs();
      if (stage == "judge-policies")
        for (const contender& c : contenders) policy(c.key);
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
      tell(line, step, x, learner.supervised(x, schedule(rate, step, steps)));
    }
  }
  /// The step's line; its tokens, prompts among them, count for the stage.
  void tell(progress& line, int step, const batch& x, const typename trainer<B>::step_result& done) {
    folder_.count(x.tokens());
    line.show(step + 1, x.tokens(), {{"loss", done.loss}, {"accuracy", done.accuracy}});
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
    const auto replies = draw_replies(b_, memory_, model, std::span<const tokens>(texts), 1.0, plumb::random_stream{seed_, for_replies}.bits(stream));
    for (std::size_t i = 0; i < texts.size(); ++i) folder_.count(static_cast<std::int64_t>(texts[i].size() + replies[i].size()));
    return replies;
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
        tell(line, step, x, learner.bradley_terry(x, r));
        continue;
      }
      std::vector<real> labels;
      for (const std::size_t i : which)
        for (const std::size_t side : {2 * i, 2 * i + 1})
          for (const double value : ratings[side]) labels.push_back(static_cast<real>(value));
      tell(line, step, x, learner.attribute_regression(x, labels, r));
    }
  }

  void train_dpo(transformer<B>& policy) {
    policy.weights() = sft().weights();
    const auto& pairs = preferences();
    trainer<B> learner(b_, memory_, policy);
    progress line("DPO", s_.dpo_steps);
    world_random random(seed_, for_batches);
    std::vector<std::size_t> which;
    for (int step = 0; step < s_.dpo_steps; ++step) {
      const batch x(draw_batch(pairs, random, which));
      tell(line, step, x, learner.dpo(x, score_tokens(b_, memory_, sft(), x), s_.beta, schedule(s_.dpo_rate, step, s_.dpo_steps)));
    }
  }

  // Loops over what the policy itself writes. Prompts are those of the preference pairs.

  /// Their prompts, each with the chosen reply first.
  std::vector<plumb::reset_item> reset_items() {
    std::vector<plumb::reset_item> items;
    for (const auto& p : preferences()) items.push_back({p.asked.text, {p.chosen, p.rejected}});
    return items;
  }
  plumb::sampling how_to_write(std::uint64_t use) const {
    return {.max_new_tokens = s_.reply_tokens, .end_token = vocabulary::end_of_reply, .seed = plumb::random_stream{seed_, for_rollouts}.bits(use)};
  }
  struct scale {
    double mean, deviation;
  };
  /// Of the Bradley-Terry reward, over replies of the SFT model: rewards are told in deviations from that mean.
  scale reward_scale() {
    std::vector<double> scores;
    const auto& pairs = preferences();
    for (std::size_t from = 0; from < std::min<std::size_t>(512, pairs.size()); from += 64) {
      const batch x(samples_of(std::span(pairs).subspan(from, std::min<std::size_t>(64, pairs.size() - from))));
      for (const double score : learned_reward(bradley_terry(), x)) scores.push_back(score);
    }
    return scale_of(scores);
  }
  static scale scale_of(const std::vector<double>& x) {
    double mean = 0, squares = 0;
    for (const double v : x) mean += v / static_cast<double>(x.size());
    for (const double v : x) squares += (v - mean) * (v - mean) / static_cast<double>(x.size());
    return {mean, std::sqrt(std::max(squares, 1e-12))};
  }

  /// PPO or its kin on the Bradley-Terry reward: `advantage` and the share of rollouts that begin inside a chosen reply tell them apart.
  /// `look(updates, policy)` after so many updates.
  template <class Advantage>
  void train_on_rollouts(transformer<B>& model, const char* name, const Advantage& advantage, double resets, double kl_coefficient, int updates,
                         const std::function<void(int, const transformer<B>&)>& look) {
    constexpr bool with_critic = plumb::needs_critic<Advantage>;
    const auto items = reset_items();
    const index_t group = plumb::needs_groups<Advantage> ? s_.group : 1;
    const plumb::drpo source(items, {.proportion = resets, .seed = plumb::random_stream{seed_, for_starts}.bits(with_critic ? 0 : 1)});
    const scale unit = reward_scale();
    model.weights() = sft().weights();
    transformer_policy<B> policy(b_, memory_, model);
    frozen<B> reference(b_, memory_, sft());
    transformer_reward<B> reward(b_, memory_, bradley_terry(), unit.mean, unit.deviation);
    [[maybe_unused]] transformer<B> values = bradley_terry();
    [[maybe_unused]] transformer_critic<B> critic(b_, memory_, values);
    plumb::ppo_options<Advantage> options{.advantage = advantage};
    options.epochs = with_critic ? s_.ppo_epochs : s_.group_epochs;
    options.minibatches = s_.minibatches;
    options.rescore = false;  // writing and scoring differ by rounding alone
    options.seed = seed_;
    const double rate = kl_coefficient > 0 ? s_.policy_rate : s_.pressed_rate;
    plumb::ppo<B, Advantage> loop(b_, options, {.coefficient = kl_coefficient});
    progress line(name, updates);
    for (int step = 0; step < updates; ++step) {
      look(step, model);
      loop.set_rates(schedule(rate, step, updates), schedule(s_.critic_rate, step, updates));
      std::vector<plumb::start> starts;
      for (const auto& s : source.starts(static_cast<std::uint64_t>(step), s_.rollout_texts / group))
        starts.insert(starts.end(), static_cast<std::size_t>(group), s);
      plumb::ppo_metrics m;
      if constexpr (with_critic) {
        m = loop.step(policy, critic, reference, reward, starts, how_to_write(0));
      } else {
        m = loop.step(policy, reference, reward, starts, how_to_write(0));
      }
      auto seen = static_cast<index_t>(m.tokens);
      for (const auto& s : starts) seen += static_cast<index_t>(s.tokens.size());
      seen *= 1 + options.epochs;  // written, then trained on
      folder_.count(seen);
      line.show(step + 1, seen, {{"reward", m.score}, {"KL", m.kl}});
    }
    look(updates, model);
  }
  template <class Advantage>
  void train_on_rollouts(transformer<B>& model, const char* name, const Advantage& advantage, double resets) {
    const int updates = plumb::needs_critic<Advantage> ? s_.ppo_updates : s_.group_updates;
    train_on_rollouts(model, name, advantage, resets, s_.kl_coefficient, updates, [](int, const transformer<B>&) {});
  }

  // SteerLM.

  /// Attribute-conditioned fine-tuning: replies of the SFT model, good and bad, behind prompts that name the attributes which the regression model
  /// sees in them.
  void train_steerlm(transformer<B>& model) {
    model.weights() = sft().weights();
    const auto& pairs = preferences();
    std::vector<sample> texts;
    for (std::size_t i = 0; i < annotations().size(); ++i) {
      const auto& p = pairs[i / 2];
      sample text = joined(steered_prompt(p.asked.text, annotations()[i]), i % 2 == 0 ? p.chosen : p.rejected);
      // A reply that ran on to the model's last position has no room behind a longer prompt.
      if (text.text.size() <= static_cast<std::size_t>(config_.positions)) texts.push_back(std::move(text));
    }
    if (texts.empty()) throw std::runtime_error("every annotated reply is too long for SteerLM's prompts");
    trainer<B> learner(b_, memory_, model);
    progress line("SteerLM", s_.steerlm_steps);
    world_random random(seed_, for_annotations);
    for (int step = 0; step < s_.steerlm_steps; ++step) {
      std::vector<sample> drawn;
      for (std::size_t i = 0; i < s_.texts; ++i) drawn.push_back(texts[random.below(texts.size())]);
      const batch x(drawn);
      tell(line, step, x, learner.supervised(x, schedule(s_.steerlm_rate, step, s_.steerlm_steps)));
    }
  }

  /// Iterations of SteerLM 2.0 from there, towards P(y | best attributes, x).
  void train_steerlm2(transformer<B>& model) {
    model.weights() = policy("steerlm").weights();
    const auto& pairs = preferences();
    transformer_policy<B> policy(b_, memory_, model);
    frozen<B> unconditional(b_, memory_, sft());
    const levels wanted = wanted_levels(annotations());
    transformer_attributes<B> ratings(b_, memory_, attributes());
    plumb::beta_posterior<B, transformer_attributes<B>> posterior(b_, ratings, std::vector<real>(wanted.begin(), wanted.end()));
    plumb::steerlm2_loop_options options{.replies = s_.steered_replies, .epochs = s_.steerlm2_epochs, .prompts = s_.steered_minibatch};
    options.rate = s_.steerlm2_rate;
    options.seed = seed_;
    plumb::steerlm2_loop<B> loop(b_, options);
    progress line("SteerLM 2.0", s_.steerlm2_iterations);
    world_random random(seed_, for_steering);
    for (int i = 0; i < s_.steerlm2_iterations; ++i) {
      std::vector<plumb::start> steered, plain;
      index_t seen = 0;
      for (std::size_t k = 0; k < s_.steered_prompts; ++k) {
        const auto& text = pairs[random.below(pairs.size())].asked.text;
        const auto number = static_cast<std::int32_t>(k);
        plain.push_back({.tokens = text, .prompt_tokens = static_cast<index_t>(text.size()), .prompt = number});
        const auto asked = steered_prompt(text, wanted);
        steered.push_back({.tokens = asked, .prompt_tokens = static_cast<index_t>(asked.size()), .prompt = number});
        seen += static_cast<index_t>(asked.size()) * s_.steered_replies;
      }
      const auto m = loop.step(policy, posterior, unconditional, steered, plain, how_to_write(1));
      seen = (seen + static_cast<index_t>(m.tokens)) * (1 + options.epochs);
      folder_.count(seen);
      line.show(i + 1, seen, {{"effective samples", m.effective_samples}, {"distance", m.distance}});
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

  std::vector<prompt> test_prompts(std::uint64_t use, std::size_t count) const {
    world_random random(seed_, use);
    std::vector<prompt> prompts;
    for (std::size_t i = 0; i < count; ++i) prompts.push_back(draw_prompt(random, true));
    return prompts;
  }

  /// Of each reply: log-probability less that under the SFT model; the two may see other prompts.
  std::vector<double> kl_to_sft(const transformer<B>& model, const batch& own, const batch& plain) {
    const auto a = score_tokens(b_, memory_, model, own), c = score_tokens(b_, memory_, sft(), plain);
    std::vector<double> sums;
    for (std::size_t i = 0; i < static_cast<std::size_t>(own.size); ++i) {
      double sum = 0;
      for (auto t = static_cast<std::size_t>(own.first[i]); t < static_cast<std::size_t>(own.last[i]); ++t)
        sum += static_cast<double>(a[t]) - static_cast<double>(c[t]);
      sums.push_back(sum);
    }
    return sums;
  }

  /// One reply of each policy to each prompt, and what is said of it.
  struct judged {
    std::vector<tokens> replies{};
    std::vector<judgement> gold{};
    std::vector<double> learned{}, kl{};  ///< by Bradley-Terry; log-probability less that of the SFT model
    double differ = 0, twice = 0;         ///< prompts that were answered twice: how often the two replies differ
  };
  judged judge_policy(const transformer<B>& model, const std::vector<prompt>& prompts, bool steered, std::uint64_t stream) {
    judged all;
    const levels wanted = steered ? wanted_levels(annotations()) : levels{};
    for (std::size_t from = 0; from < prompts.size(); from += 128) {
      const std::vector<prompt> part(prompts.begin() + static_cast<std::ptrdiff_t>(from),
                                     prompts.begin() + static_cast<std::ptrdiff_t>(std::min(from + 128, prompts.size())));
      std::vector<prompt> asked = part;
      if (steered)
        for (prompt& p : asked) p.text = steered_prompt(p.text, wanted);
      const auto replies = replies_to(model, asked, stream + 2 * from);
      std::vector<sample> texts, plain;
      for (std::size_t i = 0; i < part.size(); ++i) {
        all.gold.push_back(judge(part[i], replies[i]));
        texts.push_back(joined(asked[i].text, replies[i]));
        plain.push_back(joined(part[i].text, replies[i]));
      }
      const batch own(texts), reference(plain);
      for (const double x : kl_to_sft(model, own, reference)) all.kl.push_back(x);
      for (const double x : learned_reward(bradley_terry(), reference)) all.learned.push_back(x);
      if (from < 512) {
        const auto again = replies_to(model, asked, stream + 2 * from + 1);
        for (std::size_t i = 0; i < part.size(); ++i) all.differ += again[i] != replies[i], ++all.twice;
      }
      all.replies.insert(all.replies.end(), replies.begin(), replies.end());
    }
    return all;
  }

  findings judge_policies() {
    const auto prompts = test_prompts(for_tests + 1000, s_.test_prompts);
    findings found;
    for (std::size_t i = 0; i < std::min<std::size_t>(8, prompts.size()); ++i) found.examples.push_back({spoken(prompts[i].text)});
    judged before;
    scale unit{};
    progress line("judging policies", 1 + static_cast<int>(std::size(contenders)));
    int count = 0;
    const auto tell_of = [&](const std::string& key, const std::string& name, const judged& p) {
      std::vector<double> gold, learned, length, kl_per_token;
      double wins = 0;
      index_t written = 0;
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        const auto n = static_cast<double>(p.replies[i].size());
        gold.push_back(p.gold[i].total);
        learned.push_back((p.learned[i] - unit.mean) / unit.deviation);
        length.push_back(n);
        kl_per_token.push_back(p.kl[i] / std::max(n, 1.0));
        wins += p.gold[i].total > before.gold[i].total ? 1 : p.gold[i].total == before.gold[i].total ? 0.5 : 0;
        written += static_cast<index_t>(p.replies[i].size());
      }
      auto& f = found.figures;
      f.push_back(mean_figure("gold_reward/" + key, gold, "points", "gold reward, " + name + " (0 to 4)"));
      f.push_back(mean_figure("learned_reward/" + key, learned, "standard deviations", "learned reward (Bradley-Terry), " + name));
      f.push_back(mean_figure("length/" + key, length, "tokens", "length of a reply, " + name));
      f.push_back(rate_figure("replies_differ/" + key, p.differ, static_cast<std::size_t>(p.twice), "two replies to a prompt differ, " + name));
      f.push_back({"distinct_bigrams/" + key, distinct_bigrams(p.replies), {}, {}, p.replies.size(), "share",
                   "different pairs of neighbouring words, " + name});
      if (key != "sft") {
        f.push_back(rate_figure("win_rate/" + key + "_over_sft", wins, prompts.size(), "win rate of " + name + " over SFT, ties a half"));
        f.push_back(mean_figure("kl/" + key + "_per_reply", p.kl, "nats", "KL from " + name + " to SFT, per reply"));
        f.push_back(mean_figure("kl/" + key + "_per_token", kl_per_token, "nats", "KL from " + name + " to SFT, per token"));
      }
      for (std::size_t i = 0; i < found.examples.size(); ++i)
        found.examples[i].replies.push_back({name, spoken(p.replies[i]), p.gold[i].total, explain(p.gold[i])});
      line.show(++count, written);
    };
    before = judge_policy(sft(), prompts, false, 9000000);
    unit = scale_of(before.learned);
    tell_of("sft", "SFT", before);
    std::uint64_t stream = 9000000;
    for (const contender& c : contenders) tell_of(c.key, c.name, judge_policy(policy(c.key), prompts, c.steered, stream += 100000));
    return found;
  }

  /// Replies of `model`, as the judge and both learned rewards see them.
  std::vector<candidate> candidates(const transformer<B>& model, const std::vector<prompt>& prompts, std::uint64_t stream) {
    const auto replies = replies_to(model, prompts, stream);
    std::vector<sample> texts;
    for (std::size_t i = 0; i < prompts.size(); ++i) texts.push_back(joined(prompts[i].text, replies[i]));
    const batch x(texts);
    const std::vector<double> by_labels = learned_reward(bradley_terry(), x), by_ratings = learned_reward(attributes(), x);
    std::vector<candidate> all;
    for (std::size_t i = 0; i < prompts.size(); ++i) all.push_back({replies[i], judge(prompts[i], replies[i]), {by_labels[i], by_ratings[i]}});
    return all;
  }

  /// Over-optimisation: the reply of the SFT model that a learned reward likes best of n, and what the gold judge thinks of it, as n grows.
  findings best_of_n() {
    const auto prompts = test_prompts(for_best_of_n, s_.best_prompts);
    std::vector<std::vector<candidate>> all(prompts.size());  // [prompt][reply]
    progress line("best of n", static_cast<int>(s_.best_samples));
    const std::size_t rounds = std::max<std::size_t>(1, 256 / prompts.size());  // drawn side by side
    for (std::size_t k = 0; k < s_.best_samples; k += rounds) {
      std::vector<prompt> many;
      const std::size_t count = std::min(rounds, s_.best_samples - k);
      for (std::size_t j = 0; j < count; ++j) many.insert(many.end(), prompts.begin(), prompts.end());
      const auto drawn = candidates(sft(), many, 20000000 + k);
      index_t written = 0;
      for (std::size_t i = 0; i < drawn.size(); ++i) {
        all[i % prompts.size()].push_back(drawn[i]);
        written += static_cast<index_t>(drawn[i].text.size());
      }
      line.show(static_cast<int>(k + count), written);
    }
    findings found;
    constexpr const char* names[2] = {"bradley_terry", "attribute_regression"};
    constexpr const char* labels[2] = {"Bradley-Terry", "attribute regression"};
    for (std::size_t m = 0; m < 2; ++m) {
      pressure p{std::string("best_of_n/") + names[m], std::string("best of n by ") + labels[m], "n", "replies"};
      for (std::size_t n = 1; n <= s_.best_samples; n *= 2) p.strengths.push_back(n);
      std::vector<std::vector<double>> score(all.size());  // [prompt][reply]
      std::vector<double> every;  // the learned reward is told in standard deviations of the SFT model's replies, from their mean
      for (std::size_t i = 0; i < all.size(); ++i)
        for (const candidate& c : all[i]) score[i].push_back(c.learned[m]), every.push_back(c.learned[m]);
      const scale unit = scale_of(every);
      // The expected best of n by this reward, for each prompt.
      const auto expected = [&](std::size_t j, auto of) {
        std::vector<double> each;
        for (std::size_t i = 0; i < all.size(); ++i) {
          std::vector<double> values;
          for (const candidate& c : all[i]) values.push_back(of(c));
          each.push_back(plumb::expected_best(score[i], values, static_cast<index_t>(p.strengths[j])));
        }
        return each;
      };
      const auto own = [&](const candidate& c) { return (c.learned[m] - unit.mean) / unit.deviation; };
      for (auto& f : over_optimisation(p, expected, own)) found.figures.push_back(std::move(f));
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

  /// The same of PPO: replies of the policy along its training, to the same prompts.
  findings ppo_curve() {
    const auto prompts = test_prompts(for_curve, s_.curve_prompts);
    findings found;
    pressure p{"ppo_curve", "PPO", "update", "updates"};
    std::vector<std::vector<candidate>> all;  // [look][prompt]
    transformer<B> model(config_, seed_);
    train_on_rollouts(model, "PPO, pressed", plumb::advantage::gae{}, 0, 0, s_.curve_updates, [&](int updates, const transformer<B>& m) {
      if (updates != s_.curve_updates && updates % s_.curve_every != 0) return;
      p.strengths.push_back(static_cast<std::size_t>(updates));
      all.push_back(candidates(m, prompts, 30000000 + static_cast<std::uint64_t>(updates)));
      std::vector<sample> texts;
      for (std::size_t i = 0; i < prompts.size(); ++i) texts.push_back(joined(prompts[i].text, all.back()[i].text));
      found.figures.push_back(mean_figure(p.who + "/kl" + p.at(all.size() - 1), kl_to_sft(m, batch(texts), batch(texts)), "nats",
                                          "PPO, update = " + std::to_string(updates) + ": KL to SFT, per reply"));
    });
    std::vector<double> first;
    for (const candidate& c : all[0]) first.push_back(c.learned[0]);
    const scale unit = scale_of(first);
    const auto each = [&](std::size_t j, auto of) {
      std::vector<double> values;
      for (const candidate& c : all[j]) values.push_back(of(c));
      return values;
    };
    const auto own = [&](const candidate& c) { return (c.learned[0] - unit.mean) / unit.deviation; };
    for (auto& f : over_optimisation(p, each, own)) found.figures.push_back(std::move(f));
    for (std::size_t i = 0; i < std::min<std::size_t>(6, prompts.size()); ++i) {
      example e{spoken(prompts[i].text)};
      for (const std::size_t j : {std::size_t{0}, all.size() / 2, all.size() - 1}) {
        const candidate& c = all[j][i];
        e.replies.push_back({p.by + " after " + std::to_string(p.strengths[j]) + " updates", spoken(c.text), c.gold.total, explain(c.gold)});
      }
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
  std::vector<levels> annotations_{};
  std::map<std::string, findings> found_{};
};

}  // namespace lab

// The alignment lab: trains a small language model from nothing and aligns it to a judge's taste, every array operation on the backend that
// you name. Pretraining, supervised fine-tuning, two reward models, DPO; then a table and some replies.

#include "report.hpp"
#include "training.hpp"

#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#define LAB_HAS_ONEDNN 1
#else
#define LAB_HAS_ONEDNN 0
#endif

#include <thread>

namespace lab {

/// Chosen on seeds 11 and 12 alone.
struct settings {
  std::uint64_t seed = 1;
  std::string backend = LAB_HAS_ONEDNN ? "onednn" : "serial";
  std::filesystem::path out = "out/lab";
  bool quick = false;  ///< a small run that only shows that everything works

  index_t width = 96, layers = 3;
  int pretrain_steps = 3500, sft_steps = 300, reward_steps = 250, dpo_steps = 400;
  std::size_t texts = 32, pairs = 32, preference_pairs = 4096, test_pairs = 1000, test_prompts = 600;
  double pretrain_rate = 3e-3, sft_rate = 5e-4, reward_rate = 5e-4, dpo_rate = 5e-5, beta = 0.3;

  void make_quick() {
    quick = true;
    width = 32, layers = 1;
    pretrain_steps = 40, sft_steps = 10, reward_steps = 10, dpo_steps = 10;
    preference_pairs = 64, test_pairs = 48, test_prompts = 32;
  }
};

// Each use of randomness has a purpose of its own, so that a change of one stage leaves the others' numbers alone.
enum purpose : std::uint64_t { for_pretraining = 1, for_demonstrations, for_preferences, for_tests, for_batches, for_labels, for_replies };

/// Two replies of the SFT model to one prompt, with their gold totals and the noisy label.
struct labelled_pair {
  prompt asked;
  tokens chosen, rejected;
  judgement gold_chosen, gold_rejected;
};

template <class B>
class experiment {
 public:
  using real = plumb::real_of<B>;

  experiment(B& compute, const settings& s) : b_(compute), s_(s) {}

  void run() {
    config_ = {.vocabulary = static_cast<index_t>(words().size()), .width = s_.width, .layers = s_.layers,
               .feed_forward = s_.width * 8 / 3 / 8 * 8};
    transformer<B> policy(config_, s_.seed);
    std::printf("alignment lab: seed %llu, backend %s, %lld weights, %zu words\n", static_cast<unsigned long long>(s_.seed), s_.backend.c_str(),
                static_cast<long long>(policy.layout().size()), words().size());
    train_on_texts(policy, "pretraining", for_pretraining, s_.pretrain_steps, s_.pretrain_rate);
    save_checkpoint(s_.out / "pretrained.safetensors", policy);
    train_on_texts(policy, "supervised fine-tuning", for_demonstrations, s_.sft_steps, s_.sft_rate);
    save_checkpoint(s_.out / "sft.safetensors", policy);
    const transformer<B> sft = policy;

    const auto pairs = draw_pairs(sft, s_.preference_pairs, false), test = draw_pairs(sft, s_.test_pairs, true);
    const auto bradley_terry = train_reward(sft, pairs, 1);
    const auto regression = train_reward(sft, pairs, 5);
    save_checkpoint(s_.out / "reward_bradley_terry.safetensors", bradley_terry);
    save_checkpoint(s_.out / "reward_attributes.safetensors", regression);
    train_dpo(policy, sft, pairs);
    save_checkpoint(s_.out / "dpo.safetensors", policy);

    judge_rewards(bradley_terry, regression, test);
    judge_policies(policy, sft);
    summary all{.demo = "lab", .backend = s_.backend, .seeds = {s_.seed}, .threads = static_cast<int>(std::thread::hardware_concurrency()),
                .seconds = watch_.seconds(), .figures = figures_};
    all.write(s_.out / "summary.json");
    std::printf("\n%.0f s; figures and checkpoints in %s\n", watch_.seconds(), s_.out.string().c_str());
  }

 private:
  /// Warm-up over the first twentieth, then a cosine down to a tenth.
  static double schedule(double rate, int step, int steps) {
    const double warm = std::max(1.0, steps / 20.0);
    if (step < warm) return rate * (step + 1) / warm;
    const double done = (step - warm) / std::max(1.0, steps - warm);
    return rate * (0.1 + 0.9 * 0.5 * (1 + std::cos(3.141592653589793 * done)));
  }

  // Pretraining reads whole texts of the base writer; fine-tuning learns the demonstrations' replies.
  void train_on_texts(transformer<B>& model, const char* stage, purpose use, int steps, double rate) {
    trainer<B> learner(b_, memory_, model);
    progress line(stage, steps);
    world_random random(s_.seed, use);
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

  std::vector<labelled_pair> draw_pairs(const transformer<B>& sft, std::size_t count, bool test) {
    const purpose use = test ? for_tests : for_preferences;
    world_random random(s_.seed, use), coin(s_.seed, for_labels + 100 * use);
    std::vector<labelled_pair> pairs;
    stopwatch watch;
    std::size_t drawn = 0;
    for (std::uint64_t round = 0; pairs.size() < count; ++round) {
      std::vector<prompt> prompts;
      for (int i = 0; i < 128; ++i) prompts.push_back(draw_prompt(random, test));
      const auto first = replies_to(sft, prompts, 1000000 * use + 2 * round), second = replies_to(sft, prompts, 1000000 * use + 2 * round + 1);
      for (std::size_t i = 0; i < prompts.size() && pairs.size() < count; ++i) {
        drawn += 2;
        if (first[i] == second[i]) continue;  // says nothing
        const auto a = judge(prompts[i], first[i]), c = judge(prompts[i], second[i]);
        if (coin.uniform() < preference_probability(a.total, c.total)) {
          pairs.push_back({prompts[i], first[i], second[i], a, c});
        } else {
          pairs.push_back({prompts[i], second[i], first[i], c, a});
        }
      }
      if (round > 100 + 100 * count / 128) throw std::runtime_error("the model's replies hardly ever differ: no pairs to label");
    }
    std::printf("%-22s %zu pairs from %zu replies  %.0f s\n", test ? "held-out pairs" : "preference pairs", pairs.size(), drawn, watch.seconds());
    return pairs;
  }

  std::vector<tokens> replies_to(const transformer<B>& model, const std::vector<prompt>& prompts, std::uint64_t stream) {
    std::vector<tokens> texts;
    for (const auto& p : prompts) texts.push_back(p.text);
    return draw_replies(b_, memory_, model, std::span<const tokens>(texts), 1.0, s_.seed * 1000003 + for_replies + 10 * stream);
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
  transformer<B> train_reward(const transformer<B>& sft, const std::vector<labelled_pair>& pairs, index_t scores) {
    auto config = config_;
    config.scores = scores;
    transformer<B> model(config, s_.seed);
    std::copy(sft.weights().begin(), sft.weights().end(), model.weights().begin());
    trainer<B> learner(b_, memory_, model);
    progress line(scores == 1 ? "reward: Bradley-Terry" : "reward: attributes", s_.reward_steps);
    world_random random(s_.seed, for_batches + 100 * static_cast<std::uint64_t>(scores)), noise(s_.seed, for_labels);
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
    return model;
  }

  void train_dpo(transformer<B>& policy, const transformer<B>& sft, const std::vector<labelled_pair>& pairs) {
    trainer<B> learner(b_, memory_, policy);
    progress line("DPO", s_.dpo_steps);
    world_random random(s_.seed, for_batches);
    std::vector<std::size_t> which;
    for (int step = 0; step < s_.dpo_steps; ++step) {
      const batch x(draw_batch(pairs, random, which));
      const auto done = learner.dpo(x, score_tokens(b_, memory_, sft, x), s_.beta, schedule(s_.dpo_rate, step, s_.dpo_steps));
      line.show(step + 1, x.scored_count(), done.loss, done.accuracy);
    }
  }

  // Figures.

  const figure& add(figure f) {
    figures_.push_back(std::move(f));
    return figures_.back();
  }
  void row(const char* what, const figure& f) { std::printf("  %-44s %-24s %s\n", what, to_text(f).c_str(), f.unit.c_str()); }

  void judge_rewards(const transformer<B>& bradley_terry, const transformer<B>& regression, const std::vector<labelled_pair>& pairs) {
    double bt = 0, attributes_right = 0, gold = 0;
    std::vector<double> ceiling;
    const std::vector<real> goal(gold_weights.begin(), gold_weights.end());
    for (std::size_t from = 0; from < pairs.size(); from += 64) {
      const std::size_t count = std::min<std::size_t>(64, pairs.size() - from);
      const batch x(samples_of(std::span(pairs).subspan(from, count)));
      const auto scores = reward(b_, memory_, bradley_terry, x), five = reward(b_, memory_, regression, x);
      std::vector<real> goals(2 * count);
      plumb::goal_reward(b_, memory_(), view<const real, 2>(five.data(), x.size, 5), goal, {}, goals);
      b_.sync();
      for (std::size_t i = 0; i < count; ++i) {
        const auto right = [](auto a, auto c) { return a > c ? 1.0 : a == c ? 0.5 : 0.0; };
        const auto& p = pairs[from + i];
        bt += right(scores[2 * i], scores[2 * i + 1]);
        attributes_right += right(goals[2 * i], goals[2 * i + 1]);
        gold += right(p.gold_chosen.total, p.gold_rejected.total);
        ceiling.push_back(label_ceiling(p.gold_chosen.total, p.gold_rejected.total));
      }
    }
    std::printf("\nreward models: agreement with noisy labels on %zu pairs of fresh prompts (95 %% intervals)\n", pairs.size());
    row("Bradley-Terry", add(rate_figure("reward_accuracy/bradley_terry", bt, pairs.size())));
    row("attribute regression, weighted", add(rate_figure("reward_accuracy/attribute_regression", attributes_right, pairs.size())));
    row("the gold judge itself", add(rate_figure("reward_accuracy/gold_judge", gold, pairs.size())));
    figure best = mean_figure("reward_accuracy/noise_ceiling", ceiling, "share");
    best.low = best.high = std::nullopt;  // exact for these pairs, not an estimate
    row("noise ceiling (exact, for these pairs)", add(best));
  }

  void judge_policies(const transformer<B>& policy, const transformer<B>& sft) {
    world_random random(s_.seed, for_tests + 1000);
    std::vector<prompt> prompts;
    for (std::size_t i = 0; i < s_.test_prompts; ++i) prompts.push_back(draw_prompt(random, true));
    std::vector<tokens> before, after;
    std::vector<double> gold_before, gold_after, length_before, length_after, kl, kl_per_token, ideal;
    double wins = 0;
    for (std::size_t from = 0; from < prompts.size(); from += 128) {
      const std::vector<prompt> part(prompts.begin() + static_cast<std::ptrdiff_t>(from),
                                     prompts.begin() + static_cast<std::ptrdiff_t>(std::min(from + 128, prompts.size())));
      const auto old = replies_to(sft, part, 9000001 + 2 * from), fresh = replies_to(policy, part, 9000002 + 2 * from);
      std::vector<sample> texts;
      for (std::size_t i = 0; i < part.size(); ++i) {
        const double a = judge(part[i], old[i]).total, c = judge(part[i], fresh[i]).total;
        wins += c > a ? 1 : c == a ? 0.5 : 0;
        gold_before.push_back(a);
        gold_after.push_back(c);
        length_before.push_back(static_cast<double>(old[i].size()));
        length_after.push_back(static_cast<double>(fresh[i].size()));
        ideal.push_back(judge(part[i], ideal_reply(part[i])).total);
        texts.push_back(joined(part[i].text, fresh[i]));
        before.push_back(old[i]);
        after.push_back(fresh[i]);
      }
      const batch x(texts);
      const auto own = score_tokens(b_, memory_, policy, x), reference = score_tokens(b_, memory_, sft, x);
      for (std::size_t i = 0; i < texts.size(); ++i) {
        double sum = 0;
        for (auto t = static_cast<std::size_t>(x.first[i]); t < static_cast<std::size_t>(x.last[i]); ++t)
          sum += static_cast<double>(own[t]) - static_cast<double>(reference[t]);
        kl.push_back(sum);
        kl_per_token.push_back(sum / static_cast<double>(fresh[i].size()));
      }
    }
    std::printf("\npolicies on %zu fresh prompts, one reply each at temperature 1 (95 %% intervals)\n", prompts.size());
    row("gold reward, SFT (0 to 4)", add(mean_figure("gold_reward/sft", gold_before, "points")));
    row("gold reward, DPO", add(mean_figure("gold_reward/dpo", gold_after, "points")));
    row("win rate of DPO over SFT, ties a half", add(rate_figure("win_rate/dpo_over_sft", wins, prompts.size())));
    row("KL from DPO to SFT, per reply", add(mean_figure("kl/dpo_per_reply", kl, "nats")));
    row("KL from DPO to SFT, per token", add(mean_figure("kl/dpo_per_token", kl_per_token, "nats")));
    row("length of a reply, SFT", add(mean_figure("length/sft", length_before, "tokens")));
    row("length of a reply, DPO", add(mean_figure("length/dpo", length_after, "tokens")));
    std::printf("\nsome prompts, with the replies before (SFT) and after (DPO) and what the judge says\n");
    for (std::size_t i = 0; i < std::min<std::size_t>(5, prompts.size()); ++i) {
      std::printf("\n  %s\n", spoken(prompts[i].text).c_str());
      for (const auto* side : {&before, &after}) {
        const auto j = judge(prompts[i], (*side)[i]);
        std::printf("    %s  %s\n         %.2f: %s\n", side == &before ? "SFT" : "DPO", spoken((*side)[i]).c_str(), j.total, explain(j).c_str());
      }
    }
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
  workspace memory_{std::size_t{1} << 30};
  transformer_config config_{};
  std::vector<figure> figures_{};
  stopwatch watch_{};
};

constexpr const char* usage = R"(plumb_lab [--seed N] [--backend serial|onednn] [--out DIR] [--quick]
  --seed N       which run (default 1): same seed, same backend, same numbers
  --backend B    serial or onednn (default onednn, where it was built)
  --out DIR      where figures and checkpoints go (default out/lab)
  --quick        a few steps of each stage, to see that it all works
)";

/// Reads the flags; a sentence where one is not understood.
inline settings parse_flags(int count, char** flags) {
  settings s;
  for (int i = 1; i < count; ++i) {
    const std::string flag = flags[i];
    const auto value = [&] {
      if (i + 1 >= count) throw std::invalid_argument(flag + " wants a value");
      return std::string(flags[++i]);
    };
    if (flag == "--quick") {
      s.make_quick();
    } else if (flag == "--seed") {
      const std::string text = value();
      if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos)
        throw std::invalid_argument("--seed wants a number of at most nine digits, not \"" + text + "\"");
      s.seed = std::stoull(text);
    } else if (flag == "--backend") {
      s.backend = value();
      if (s.backend != "serial" && s.backend != "onednn") throw std::invalid_argument("--backend is serial or onednn, not \"" + s.backend + "\"");
      if (s.backend == "onednn" && !LAB_HAS_ONEDNN) throw std::invalid_argument("--backend onednn: this program was built without oneDNN");
    } else if (flag == "--out") {
      s.out = value();
    } else {
      throw std::invalid_argument("unknown flag \"" + flag + "\"");
    }
  }
  return s;
}

inline void run(const settings& s) {
#if LAB_HAS_ONEDNN
  if (s.backend == "onednn") {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    plumb::onednn::backend compute{engine, stream};
    experiment<plumb::onednn::backend>(compute, s).run();
    return;
  }
#endif
  plumb::serial::backend<float> compute;
  experiment<plumb::serial::backend<float>>(compute, s).run();
}

}  // namespace lab

int main(int count, char** flags) {
  lab::settings s;
  for (int i = 1; i < count; ++i)
    if (std::string(flags[i]) == "--help" || std::string(flags[i]) == "-h") {
      std::fputs(lab::usage, stdout);
      return 0;
    }
  try {
    s = lab::parse_flags(count, flags);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plumb_lab: %s\n%s", e.what(), lab::usage);
    return 2;
  }
  try {
    lab::run(s);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plumb_lab: %s\n", e.what());
    return 1;
  }
}

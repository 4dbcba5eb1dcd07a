#pragma once
// The lab on a preference file of the user's: a language model, a reward model and DPO, trained on four fifths of its pairs and held to the
// last fifth, beside what needs no model.

#include "file_pairs.hpp"

#include <numeric>

namespace lab {

/// A pass over `lengths.size()` items in batches of about equal lengths: shuffled, sorted within a pool of sixteen batches, batches shuffled.
inline std::vector<std::vector<std::size_t>> batches_of(const std::vector<std::size_t>& lengths, std::size_t size, world_random& random) {
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  std::vector<std::vector<std::size_t>> batches;
  for (std::size_t from = 0; from < order.size(); from += 16 * size) {
    const auto begin = order.begin() + static_cast<std::ptrdiff_t>(from);
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(from + 16 * size, order.size()));
    std::stable_sort(begin, end, [&](std::size_t a, std::size_t b) { return lengths[a] < lengths[b]; });
    for (auto at = begin; at < end; at += std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(size), end - at))
      batches.emplace_back(at, at + std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(size), end - at));
  }
  for (std::size_t i = batches.size(); i > 1; --i) std::swap(batches[i - 1], batches[random.below(i)]);
  return batches;
}

template <class B>
class file_experiment {
 public:
  using real = plumb::real_of<B>;

  /// `data` was read with the same settings and seed.
  file_experiment(const seed_context<B>& run, file_pairs& data) : b_(run.compute), s_(run.s), seed_(run.seed), folder_(run.folder), data_(data) {}

  findings run() {
    data_.tokenize(folder_);
    const transformer_config config{.vocabulary = data_.vocabulary_size(), .width = s_.width, .layers = s_.layers,
                                    .feed_forward = s_.width * 8 / 3 / 8 * 8, .positions = s_.positions};
    transformer<B> language(config, seed_);
    train_once(folder_, "language_model", language, [&](auto& m) { train_language(m, "language model", s_.language_epochs, s_.pretrain_rate, false); });
    transformer<B> sft = language;
    train_once(folder_, "sft", sft, [&](auto& m) { train_language(m, "fine-tuning on chosen", 1, s_.sft_rate, true); });

    auto reward_config = config;
    reward_config.scores = 1;
    std::vector<std::pair<std::size_t, std::unique_ptr<transformer<B>>>> rewards;
    for (const std::size_t parts : {8u, 4u, 2u, 1u}) {
      const std::size_t count = data_.train().size() / parts;
      if (count == 0) continue;
      auto model = std::make_unique<transformer<B>>(reward_config, seed_);
      train_once(folder_, parts == 1 ? "reward" : "reward_on_1_of_" + std::to_string(parts), *model, [&](auto& m) { train_reward(m, language, count); });
      rewards.emplace_back(parts, std::move(model));
    }
    transformer<B> policy = sft;
    train_once(folder_, "dpo", policy, [&](auto& m) { train_dpo(m, sft); });
    return measure_once(folder_, "measure", [&] { return measure(rewards, sft, policy); });
  }

 private:
  /// `step(batch, number, how many, line)` for every batch of every epoch; a batch names texts or pairs.
  template <class Step>
  void passes(const char* stage, int epochs, std::size_t size, const std::vector<std::size_t>& lengths, Step step) {
    world_random random(seed_, 2);
    std::vector<std::vector<std::size_t>> all;
    for (int e = 0; e < epochs; ++e)
      for (auto& b : batches_of(lengths, size, random)) all.push_back(std::move(b));
    progress line(stage, static_cast<int>(all.size()));
    for (std::size_t i = 0; i < all.size(); ++i) step(all[i], static_cast<int>(i), static_cast<int>(all.size()), line);
  }

  void tell(progress& line, int step, const batch& x, const typename trainer<B>::step_result& done) {
    folder_.count(x.tokens());
    line.show(step + 1, x.tokens(), {{"loss", done.loss}, {"accuracy", done.accuracy}});
  }

  /// Both sides of every pair, every token; or the chosen replies alone.
  void train_language(transformer<B>& model, const char* stage, int epochs, double rate, bool chosen_only) {
    std::vector<sample> texts;
    for (const auto& p : data_.train()) {
      texts.push_back(p.tokens_chosen);
      if (chosen_only) continue;
      texts.push_back(p.tokens_rejected);
      for (std::size_t k = texts.size() - 2; k < texts.size(); ++k) texts[k].prompt_length = 1;
    }
    std::vector<std::size_t> lengths;
    for (const auto& t : texts) lengths.push_back(t.text.size());
    trainer<B> learner(b_, memory_, model);
    passes(stage, epochs, s_.texts, lengths, [&](const std::vector<std::size_t>& which, int step, int steps, progress& line) {
      std::vector<sample> drawn;
      for (const std::size_t i : which) drawn.push_back(texts[i]);
      const batch x(drawn);
      tell(line, step, x, learner.supervised(x, schedule(rate, step, steps)));
    });
  }

  static batch batch_of_pairs(const std::vector<file_pair>& pairs, const std::vector<std::size_t>& which) {
    std::vector<sample> samples;
    for (const std::size_t i : which) {
      samples.push_back(pairs[i].tokens_chosen);
      samples.push_back(pairs[i].tokens_rejected);
    }
    return batch(samples);
  }
  static std::vector<std::size_t> pair_lengths(const std::vector<file_pair>& pairs, std::size_t count) {
    std::vector<std::size_t> lengths;
    for (std::size_t i = 0; i < count; ++i) lengths.push_back(std::max(pairs[i].tokens_chosen.text.size(), pairs[i].tokens_rejected.text.size()));
    return lengths;
  }

  void train_reward(transformer<B>& model, const transformer<B>& language, std::size_t count) {
    std::copy(language.weights().begin(), language.weights().end(), model.weights().begin());
    trainer<B> learner(b_, memory_, model);
    const std::string stage = "reward, " + std::to_string(count) + " pairs";
    passes(stage.c_str(), s_.reward_epochs, s_.pairs / 2, pair_lengths(data_.train(), count),
           [&](const std::vector<std::size_t>& which, int step, int steps, progress& line) {
             const batch x = batch_of_pairs(data_.train(), which);
             tell(line, step, x, learner.bradley_terry(x, schedule(s_.reward_rate, step, steps)));
           });
  }
  void train_dpo(transformer<B>& policy, const transformer<B>& sft) {
    trainer<B> learner(b_, memory_, policy);
    passes("DPO", 1, s_.pairs / 2, pair_lengths(data_.train(), data_.train().size()),
           [&](const std::vector<std::size_t>& which, int step, int steps, progress& line) {
             const batch x = batch_of_pairs(data_.train(), which);
             tell(line, step, x, learner.dpo(x, score_tokens(b_, memory_, sft, x), s_.beta, schedule(s_.dpo_rate, step, steps)));
           });
  }

  /// Score of chosen minus score of rejected, for each held-out pair.
  std::vector<double> reward_margins(const transformer<B>& model) {
    return margins([&](const batch& x) {
      const auto scores = reward(b_, memory_, model, x);
      return std::vector<double>(scores.begin(), scores.end());
    });
  }
  std::vector<double> implicit_margins(const transformer<B>& policy, const transformer<B>& sft) {
    return margins([&](const batch& x) {
      const auto own = score_tokens(b_, memory_, policy, x), reference = score_tokens(b_, memory_, sft, x);
      std::vector<double> sums;
      for (std::size_t i = 0; i < static_cast<std::size_t>(x.size); ++i) {
        double sum = 0;
        for (auto t = static_cast<std::size_t>(x.first[i]); t < static_cast<std::size_t>(x.last[i]); ++t)
          sum += static_cast<double>(own[t]) - static_cast<double>(reference[t]);
        sums.push_back(sum);
      }
      return sums;
    });
  }
  template <class Score>
  std::vector<double> margins(Score score) {
    std::vector<double> all;
    for (std::size_t from = 0; from < data_.held_out().size(); from += 16) {
      std::vector<std::size_t> which;
      for (std::size_t i = from; i < std::min(from + 16, data_.held_out().size()); ++i) which.push_back(i);
      const auto scores = score(batch_of_pairs(data_.held_out(), which));
      for (std::size_t i = 0; i < which.size(); ++i) all.push_back(scores[2 * i] - scores[2 * i + 1]);
    }
    return all;
  }

  findings measure(const std::vector<std::pair<std::size_t, std::unique_ptr<transformer<B>>>>& rewards, const transformer<B>& sft,
                   const transformer<B>& policy) {
    findings found;
    std::vector<std::size_t> conversation;
    for (const auto& p : data_.held_out()) conversation.push_back(p.conversation);
    const auto right = [](const std::vector<double>& margins) {  // a tie counts a half
      std::vector<double> correct;
      for (const double m : margins) correct.push_back(m > 0 ? 1.0 : m == 0 ? 0.5 : 0.0);
      return correct;
    };
    const auto accuracy = [&](const std::string& name, const std::vector<double>& margins, const std::string& label) {
      found.figures.push_back(clustered_rate_figure(name, right(margins), conversation, label));
    };
    const auto difference = [&](const std::string& name, const std::vector<double>& a, const std::vector<double>& b, const std::string& label) {
      std::vector<double> pair_by_pair = right(a);
      const auto other = right(b);
      for (std::size_t i = 0; i < other.size(); ++i) pair_by_pair[i] -= other[i];
      found.figures.push_back(clustered_mean_figure(name, pair_by_pair, conversation, "difference of shares", label));
    };
    std::vector<double> learned, from_fewest;
    for (const auto& [parts, model] : rewards) {
      learned = reward_margins(*model);
      if (from_fewest.empty()) from_fewest = learned;
      if (parts == 1) accuracy("accuracy/reward_model", learned, "reward model");
      char percent[32];
      std::snprintf(percent, sizeof percent, "%g", 100.0 / static_cast<double>(parts));
      accuracy(std::string("learning_curve/percent=") + percent, learned, std::string("reward model from ") + percent + " % of the labels");
    }
    const auto implicit = implicit_margins(policy, sft);
    accuracy("accuracy/dpo", implicit, "DPO policy, by its implicit reward");
    const auto simple = data_.baselines();
    for (const auto& b : simple) accuracy("accuracy/baseline_" + b.name, b.margins, "baseline: " + b.label);
    for (const auto& b : simple) difference("gain/over_" + b.name, learned, b.margins, "reward model minus \"" + b.label + "\"");
    difference("gain/dpo_over_reward_model", implicit, learned, "DPO policy minus reward model");
    if (rewards.size() > 1) difference("gain/from_labels", learned, from_fewest, "reward model from all labels minus from an eighth");

    std::vector<std::size_t> order(learned.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return learned[a] > learned[b]; });
    const auto show = [&](std::size_t i, const char* what) {
      const auto& p = data_.held_out()[i];
      char margin[160];
      std::snprintf(margin, sizeof margin, "Line %lld. %s: the reward model scores the chosen reply %.2f %s the rejected one.\n\n", static_cast<long long>(p.line), what,
                    std::abs(learned[i]), learned[i] > 0 ? "above" : "below");
      found.examples.push_back({margin + trimmed(p.prompt), {{"chosen", trimmed(p.chosen)}, {"rejected", trimmed(p.rejected)}}});
    };
    for (std::size_t k = 0; k < std::min<std::size_t>(3, order.size()); ++k)
      if (learned[order[k]] > 0) show(order[k], "Right, and surest");
    for (std::size_t k = 0; k < std::min<std::size_t>(3, order.size()); ++k)
      if (const std::size_t i = order[order.size() - 1 - k]; learned[i] < 0) show(i, "Wrong, and surest");
    return found;
  }
  static std::string trimmed(const std::string& text) {
    const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
    const auto first = std::find_if_not(text.begin(), text.end(), blank);
    return {first, std::find_if_not(text.rbegin(), std::make_reverse_iterator(first), blank).base()};
  }

  B& b_;
  const settings& s_;
  std::uint64_t seed_;
  run_folder& folder_;
  workspace memory_{std::size_t{2} << 30};
  file_pairs& data_;
};

}  // namespace lab

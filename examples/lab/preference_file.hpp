#pragma once
// The lab on a preference file of the user's: a tokenizer, a language model, a reward model and DPO, trained on four fifths of its pairs and
// held to the last fifth, beside what needs no model.

#include "settings.hpp"
#include "stages.hpp"
#include "training.hpp"

#include <plumb/data/bpe_trainer.hpp>
#include <plumb/data/preference.hpp>
#include <plumb/data/tokenizer_json.hpp>

#include <memory>
#include <numeric>

namespace lab {

/// A pair as text, and as tokens cut to what the model sees.
struct file_pair {
  std::string prompt, chosen, rejected;
  std::int64_t line = 0;
  sample tokens_chosen{}, tokens_rejected{};
};

struct file_split {
  std::vector<file_pair> train{}, held_out{};
  std::string summary{};
  std::size_t shortened = 0;  ///< pairs with a reply that was cut
  std::size_t conversations = 0;
};

/// Another file, or the same one changed, is another run.
inline std::string identity_of(const std::filesystem::path& file) {
  std::error_code ignored;  // a file that is not there is the reader's to complain of
  const auto size = std::filesystem::file_size(file, ignored);
  const auto changed = std::filesystem::last_write_time(file, ignored).time_since_epoch().count();
  return std::to_string(size) + " bytes, changed " + std::to_string(changed);
}

/// Conversations, not pairs, are dealt out, in an order drawn by the seed, until the held-out side has a fifth. Prompts of which one begins the other are one
/// conversation: the longer holds a reply to the shorter, which must not be seen in training where the shorter is held out.
inline file_split split_by_prompt(std::vector<file_pair> pairs, std::uint64_t seed) {
  std::map<std::string, std::vector<std::size_t>> by_prompt;  // sorted: what a prompt begins follows it
  for (std::size_t i = 0; i < pairs.size(); ++i) by_prompt[pairs[i].prompt].push_back(i);
  std::vector<std::vector<std::size_t>> conversations;
  const std::string* root = nullptr;
  for (const auto& [prompt, members] : by_prompt) {
    if (root == nullptr || root->empty() || prompt.rfind(*root, 0) != 0) {
      root = &prompt;
      conversations.emplace_back();
    }
    conversations.back().insert(conversations.back().end(), members.begin(), members.end());
  }
  std::vector<const std::vector<std::size_t>*> order;
  for (const auto& members : conversations) order.push_back(&members);
  world_random random(seed, 1);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  std::vector<bool> held(pairs.size(), false);
  std::size_t count = 0;
  for (const auto* members : order) {
    if (5 * count >= pairs.size()) break;
    for (const std::size_t i : *members) held[i] = true;
    count += members->size();
  }
  file_split split;
  split.conversations = conversations.size();
  for (std::size_t i = 0; i < pairs.size(); ++i) (held[i] ? split.held_out : split.train).push_back(std::move(pairs[i]));
  return split;
}

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

/// The bag-of-tokens baseline: a reply's score is the sum of one weight per token of it, trained by `plumb::bradley_terry` with weight decay.
class unigram_model {
 public:
  unigram_model(const std::vector<file_pair>& pairs, index_t vocabulary) : weights_(static_cast<std::size_t>(vocabulary)) {
    std::vector<double> squares(weights_.size(), 1e-8);
    for (int epoch = 0; epoch < 20; ++epoch) {
      std::vector<double> chosen, rejected, slope(weights_.size());
      for (const auto& p : pairs) {
        chosen.push_back(score(p.tokens_chosen));
        rejected.push_back(score(p.tokens_rejected));
      }
      const auto done = plumb::bradley_terry(chosen, rejected);
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        add(slope, pairs[i].tokens_chosen, done.d_chosen[i]);
        add(slope, pairs[i].tokens_rejected, done.d_rejected[i]);
      }
      for (std::size_t w = 0; w < weights_.size(); ++w) {  // AdaGrad: rare tokens take part
        slope[w] += 1e-4 * weights_[w];
        squares[w] += slope[w] * slope[w];
        weights_[w] -= 0.05 * slope[w] / std::sqrt(squares[w]);
      }
    }
  }
  double score(const sample& s) const {
    double sum = 0;
    for (std::size_t t = s.prompt_length; t < s.text.size(); ++t) sum += weights_[static_cast<std::size_t>(s.text[t])];
    return sum;
  }

 private:
  static void add(std::vector<double>& slope, const sample& s, double by) {
    for (std::size_t t = s.prompt_length; t < s.text.size(); ++t) slope[static_cast<std::size_t>(s.text[t])] += by;
  }
  std::vector<double> weights_;
};

template <class B>
class file_experiment {
 public:
  using real = plumb::real_of<B>;

  file_experiment(B& compute, const settings& s, std::uint64_t seed, run_folder& folder) : b_(compute), s_(s), seed_(seed), folder_(folder) {}

  findings run() {
    read();
    learn_tokenizer();
    const transformer_config config{.vocabulary = tokenizer_.vocabulary_size(), .width = s_.width, .layers = s_.layers,
                                    .feed_forward = s_.width * 8 / 3 / 8 * 8, .positions = s_.positions};
    transformer<B> language(config, seed_);
    train_once(folder_, "language_model", language, [&](auto& m) { train_language(m, "language model", s_.language_epochs, s_.pretrain_rate, false); });
    transformer<B> sft = language;
    train_once(folder_, "sft", sft, [&](auto& m) { train_language(m, "fine-tuning on chosen", 1, s_.sft_rate, true); });

    auto reward_config = config;
    reward_config.scores = 1;
    std::vector<std::pair<std::size_t, std::unique_ptr<transformer<B>>>> rewards;
    for (const std::size_t parts : {8, 4, 2, 1}) {
      const std::size_t count = data_.train.size() / parts;
      if (count == 0) continue;
      auto model = std::make_unique<transformer<B>>(reward_config, seed_);
      train_once(folder_, parts == 1 ? "reward" : "reward_on_1_of_" + std::to_string(parts), *model, [&](auto& m) { train_reward(m, language, count); });
      rewards.emplace_back(count, std::move(model));
    }
    transformer<B> policy = sft;
    train_once(folder_, "dpo", policy, [&](auto& m) { train_dpo(m, sft); });

    findings found;
    folder_.once("measure", [&] { found = load_findings(folder_ / "measure.json"); },
                 [&] { save(folder_ / "measure.json", found = measure(rewards, sft, policy)); });
    return found;
  }
  /// What was read and how it was dealt out, for the report.
  std::string account() const {
    return data_.summary + std::to_string(data_.train.size()) + " pairs to train on, " + std::to_string(data_.held_out.size()) + " held out, of " +
           std::to_string(data_.conversations) + " conversations, none on both sides; " + std::to_string(data_.shortened) +
           " pairs have a reply whose end the models do not see.";
  }

 private:
  void read() {
    plumb::data::preference_reader reader(s_.data.string(), {.on_error = plumb::data::on_error::skip});
    std::vector<file_pair> pairs;
    for (auto p = reader.next(); p && pairs.size() < s_.file_pairs; p = reader.next())
      pairs.push_back({plumb::data::render_prompt(p->prompt), plumb::data::render_reply(p->chosen), plumb::data::render_reply(p->rejected), p->line});
    const bool all = pairs.size() < s_.file_pairs || !reader.next();
    const std::string summary = reader.summary().to_text();
    std::printf("%s", summary.c_str());
    if (!all) std::printf("  only the first %zu pairs are used (--pairs N for more)\n", pairs.size());
    if (pairs.size() < 20) throw std::runtime_error(s_.data.string() + ": " + std::to_string(pairs.size()) + " pairs are too few; at least 20 are needed");
    const std::size_t count = pairs.size();
    data_ = split_by_prompt(std::move(pairs), seed_);
    data_.summary = summary;
    if (data_.train.empty()) throw std::runtime_error(s_.data.string() + ": all its pairs have the same prompt; none is left to train on");
    std::printf("%zu pairs of %zu conversations: %zu to train on, %zu held out (no conversation is on both sides)\n", count, data_.conversations,
                data_.train.size(), data_.held_out.size());
  }

  void learn_tokenizer() {
    const auto file = folder_ / "tokenizer.json";
    folder_.once("tokenizer", [&] { tokenizer_ = plumb::data::load_tokenizer(file.string()); }, [&] {
      plumb::data::bpe_trainer trainer({.vocabulary_size = s_.file_vocabulary, .special_tokens = {"<bos>", "<end>"}});
      for (const auto& p : data_.train)
        for (const auto* text : {&p.prompt, &p.chosen, &p.rejected}) trainer.add(*text);
      tokenizer_ = trainer.train();
      plumb::data::save_tokenizer(tokenizer_, file.string());
    });
    bos_ = tokenizer_.specials().id("<bos>").value();
    end_ = tokenizer_.specials().id("<end>").value();
    std::size_t tokens_seen = 0;
    for (auto* side : {&data_.train, &data_.held_out})
      for (auto& p : *side) {
        bool cut = false;
        p.tokens_chosen = encoded(p.prompt, p.chosen, cut);
        p.tokens_rejected = encoded(p.prompt, p.rejected, cut);
        data_.shortened += cut;
        tokens_seen += p.tokens_chosen.text.size() + p.tokens_rejected.text.size();
      }
    std::printf("%-22s %d tokens; %zu in all texts; %zu pairs have a reply of more than %lld tokens, whose rest the models do not see\n", "byte-pair encoding",
                tokenizer_.vocabulary_size(), tokens_seen, data_.shortened, static_cast<long long>(s_.positions / 2));
  }
  /// `<bos>`, the end of the prompt, the beginning of the reply, `<end>`.
  sample encoded(const std::string& prompt, const std::string& reply, bool& cut) const {
    auto asked = plumb::data::encode(tokenizer_, prompt), said = plumb::data::encode(tokenizer_, reply);
    const auto positions = static_cast<std::size_t>(s_.positions);
    if (said.size() + 1 > positions / 2) {
      said.resize(positions / 2);
      cut = true;
    } else {
      said.push_back(end_);
    }
    const std::size_t room = positions - said.size() - 1;
    if (asked.size() > room) asked.erase(asked.begin(), asked.end() - static_cast<std::ptrdiff_t>(room));
    asked.insert(asked.begin(), bos_);
    return joined(asked, said);
  }

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

  /// Both sides of every pair, every token; or the chosen replies alone.
  void train_language(transformer<B>& model, const char* stage, int epochs, double rate, bool chosen_only) {
    std::vector<sample> texts;
    for (const auto& p : data_.train) {
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
      line.show(step + 1, x.scored_count(), learner.supervised(x, schedule(rate, step, steps)).loss);
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
    passes(stage.c_str(), s_.reward_epochs, s_.pairs / 2, pair_lengths(data_.train, count),
           [&](const std::vector<std::size_t>& which, int step, int steps, progress& line) {
             const batch x = batch_of_pairs(data_.train, which);
             const auto done = learner.bradley_terry(x, schedule(s_.reward_rate, step, steps));
             line.show(step + 1, x.size * x.length, done.loss, done.accuracy);
           });
  }
  void train_dpo(transformer<B>& policy, const transformer<B>& sft) {
    trainer<B> learner(b_, memory_, policy);
    passes("DPO", 1, s_.pairs / 2, pair_lengths(data_.train, data_.train.size()),
           [&](const std::vector<std::size_t>& which, int step, int steps, progress& line) {
             const batch x = batch_of_pairs(data_.train, which);
             const auto done = learner.dpo(x, score_tokens(b_, memory_, sft, x), s_.beta, schedule(s_.dpo_rate, step, steps));
             line.show(step + 1, x.scored_count(), done.loss, done.accuracy);
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
    for (std::size_t from = 0; from < data_.held_out.size(); from += 16) {
      std::vector<std::size_t> which;
      for (std::size_t i = from; i < std::min(from + 16, data_.held_out.size()); ++i) which.push_back(i);
      const auto scores = score(batch_of_pairs(data_.held_out, which));
      for (std::size_t i = 0; i < which.size(); ++i) all.push_back(scores[2 * i] - scores[2 * i + 1]);
    }
    return all;
  }

  findings measure(const std::vector<std::pair<std::size_t, std::unique_ptr<transformer<B>>>>& rewards, const transformer<B>& sft,
                   const transformer<B>& policy) {
    findings found;
    const auto right = [](double margin) { return margin > 0 ? 1.0 : margin == 0 ? 0.5 : 0.0; };
    const auto accuracy = [&](const std::string& name, const std::vector<double>& margins, const std::string& label) {
      double sum = 0;
      for (const double m : margins) sum += right(m);
      found.figures.push_back(rate_figure(name, sum, margins.size(), label));
      return found.figures.back().value;
    };
    std::vector<double> learned;
    for (const auto& [count, model] : rewards) {
      learned = reward_margins(*model);
      accuracy("learning_curve/pairs=" + std::to_string(count), learned, "reward model trained on " + std::to_string(count) + " pairs");
    }
    accuracy("accuracy/reward_model", learned, "reward model trained on all " + std::to_string(data_.train.size()) + " pairs");
    accuracy("accuracy/dpo", implicit_margins(policy, sft), "DPO policy, by its implicit reward");
    const unigram_model unigram(data_.train, tokenizer_.vocabulary_size());
    std::vector<double> longer, shorter, words;
    for (const auto& p : data_.held_out) {
      longer.push_back(static_cast<double>(p.chosen.size()) - static_cast<double>(p.rejected.size()));
      shorter.push_back(-longer.back());
      words.push_back(unigram.score(p.tokens_chosen) - unigram.score(p.tokens_rejected));
    }
    const std::vector<double>* best = &longer;
    double best_accuracy = 0;
    for (const auto& [name, margins, label] : {std::tuple("longer", &longer, "the longer reply wins"), std::tuple("shorter", &shorter, "the shorter reply wins"),
                                               std::tuple("unigram", &words, "weights of single tokens (Bradley-Terry)")}) {
      const double a = accuracy(std::string("accuracy/baseline_") + name, *margins, std::string("baseline: ") + label);
      if (a > best_accuracy) best_accuracy = a, best = margins;
    }
    std::vector<double> gain;
    for (std::size_t i = 0; i < learned.size(); ++i) gain.push_back(right(learned[i]) - right((*best)[i]));
    found.figures.push_back(mean_figure("accuracy/reward_model_minus_best_baseline", gain, "share", "reward model minus the best baseline, pair by pair"));

    std::vector<std::size_t> order(learned.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return learned[a] > learned[b]; });
    const auto show = [&](std::size_t i, const char* what) {
      const auto& p = data_.held_out[i];
      char margin[64];
      std::snprintf(margin, sizeof margin, "%s, line %lld: margin %+.2f", what, static_cast<long long>(p.line), learned[i]);
      found.examples.push_back({std::string(margin) + "\n" + p.prompt, {{"chosen", p.chosen}, {"rejected", p.rejected}}});
    };
    for (std::size_t k = 0; k < std::min<std::size_t>(3, order.size()); ++k)
      if (learned[order[k]] > 0) show(order[k], "right, and surest");
    for (std::size_t k = 0; k < std::min<std::size_t>(3, order.size()); ++k)
      if (const std::size_t i = order[order.size() - 1 - k]; learned[i] < 0) show(i, "wrong, and surest");
    return found;
  }

  B& b_;
  const settings& s_;
  std::uint64_t seed_;
  run_folder& folder_;
  workspace memory_{std::size_t{2} << 30};
  file_split data_{};
  plumb::data::bpe_tokenizer tokenizer_{};
  token bos_ = 0, end_ = 0;
};

}  // namespace lab

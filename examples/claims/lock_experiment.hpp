#pragma once
// One seed's share of DR-PO's claim: SFT, preference pairs, reward model, DPO, PPO and DR-PO in the prefix-sum lock, by plumb's objectives and loops.

#include "lock_world.hpp"
#include "small_models.hpp"

#include <plumb/algorithms/drpo.hpp>
#include <plumb/algorithms/ppo.hpp>
#include <plumb/objectives/bradley_terry.hpp>
#include <plumb/objectives/dpo.hpp>
#include <plumb/objectives/supervised.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace claims::lock {

/// What PPO and DR-PO are rewarded with, at a reply's end.
enum class reward_kind {
  win,     ///< 1 where the reward model likes the reply no less than the chosen one of the prompt's pair, else 0
  raw,     ///< the reward model's own number
  oracle,  ///< 1 where the judge gives 1, else 0: a control, where the judge is trained on
};

/// Everything that a seed's numbers depend on, but the seed.
struct settings {
  index_t hidden = 48;
  int references = 2000, sft_epochs = 3, sft_batch = 32;
  double sft_rate = 3e-3;
  int pairs = 500;
  double label_sharpness = 4;  ///< a label is drawn with probability `sigmoid(sharpness (judge(a) - judge(b)))`
  int reward_epochs = 10, reward_batch = 32;
  double reward_rate = 1e-2, reward_initial = -0.5;
  std::vector<double> dpo_betas{0.05, 0.1, 0.5};
  std::vector<int> dpo_epochs{20, 60, 200};
  /// Beside the grid of all betas and epochs above, for `dpo_wide`: its best at temperature 1 is in a corner.
  std::vector<std::pair<double, int>> dpo_wider{{0.01, 20}, {0.01, 60}, {0.01, 200}, {0.01, 400}, {0.05, 400}, {0.1, 400}, {0.5, 400}};
  int dpo_batch = 64;
  double dpo_rate = 2e-3;
  reward_kind reward = reward_kind::win;
  double win_margin = 1e-3;
  int updates = 300, rollouts = 256;
  double policy_rate = 2e-3, critic_rate = 6e-3;  ///< falling to 0, linearly
  double kl_coefficient = 0.02;
  /// The authors' code does, over a fixed number of slots; over own tokens alone it pays for short replies: see docs/demos/drpo.md.
  bool whiten_rewards = false;
  int judged_prompts = 1000, validation_prompts = 500, held_out_pairs = 1000, curve_prompts = 200, curve_every = 20;
};

/// The loop's options: PPO and DR-PO have the same.
inline plumb::ppo_options<> loop_options(const settings& s, std::uint64_t seed) {
  plumb::ppo_options<> o;
  o.advantage = {.gamma = 1, .lambda = 0.95, .whiten = true, .whiten_rewards = s.whiten_rewards};
  o.surrogate = plumb::surrogate::clip{};  // 0.2
  o.rewards.rewards.unfinished_offset = -1;
  o.epochs = 4;
  o.policy_rate = s.policy_rate;
  o.critic_rate = s.critic_rate;
  o.seed = seed;
  return o;
}

/// What a policy is worth. `visit(f)`: `f(name, value)` for each number.
struct score_card {
  template <class F>
  void visit(F f) const {
    f("exact_greedy", exact_greedy), f("exact_sampled", exact_sampled), f("win_rate", win_rate), f("kl", kl), f("ended", ended), f("token", token);
  }

  double exact_greedy = 0;   ///< share of fresh prompts whose likeliest tokens are the answer
  double exact_sampled = 0;  ///< probability of the answer at temperature 1, mean over the prompts
  double win_rate = 0;       ///< of the greedy reply against a fresh reference, by the judge, ties a half
  double kl = 0;             ///< to the SFT policy, mean over replies drawn at temperature 1
  double ended = 0;          ///< share of these that end
  double token = 0;          ///< probability of the right token, the answer so far given, geometric mean
};

template <class B>
class experiment {
 public:
  using real = plumb::real_of<B>;
  using policy = small_policy<B, mlp_net<B>, reader>;
  using critic = small_critic<B, mlp_net<B>, reader>;
  using reward_model = small_reward<B, additive_net<B>, pair_reader>;
  using texts = plumb::rollouts<real>;

  experiment(B& compute, settings s, std::uint64_t seed)
      : b_(compute),
        s_(std::move(s)),
        seed_(seed),
        sft_(reader_, mlp_net<B>(compute, reader_, s_.hidden, vocabulary, 0.1, 1, plumb::random_stream{seed, for_policy}.bits(0))),
        rm_(pair_reader_, additive_net<B>(compute, pair_reader_, vocabulary, s_.reward_initial, 0)) {
    train_sft();
    sft_.forget_optimiser();
    pairs_ = draw_pairs(for_pairs, s_.pairs);
    train_reward();
    texts chosen;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      add_text(chosen, pairs_[i].prompt, pairs_[i].chosen, static_cast<std::int32_t>(i));
      items_.push_back({.prompt = pairs_[i].prompt, .completions = {pairs_[i].chosen, pairs_[i].rejected}});
    }
    const auto& r = rm_.reward(chosen);
    chosen_reward_.assign(r.begin(), r.end());
  }
  experiment(const experiment&) = delete;
  experiment& operator=(const experiment&) = delete;

  const policy& sft() const { return sft_; }
  const std::vector<pair>& pairs() const { return pairs_; }

  /// How often the reward model prefers what was labelled as chosen, on fresh pairs; ties count as wrong.
  double reward_accuracy() {
    const auto fresh = draw_pairs(for_held_out_pairs, s_.held_out_pairs);
    texts both;
    for (const auto& p : fresh) {
      add_text(both, p.prompt, p.chosen, 0);
      add_text(both, p.prompt, p.rejected, 0);
    }
    const auto& r = rm_.reward(both);
    double right = 0;
    for (std::size_t i = 0; i < fresh.size(); ++i) right += r[2 * i] > r[2 * i + 1];
    return right / static_cast<double>(fresh.size());
  }

  /// DPO on the pairs.
  policy dpo(double beta, int epochs) {
    policy p = sft_;
    texts both;
    for (const auto& x : pairs_) {
      add_text(both, x.prompt, x.chosen, 0);
      add_text(both, x.prompt, x.rejected, 0);
    }
    const std::vector<real> reference = p.score(both);
    const int steps = epochs * batches(s_.pairs, s_.dpo_batch);
    int step = 0;
    epochs_over(for_dpo, s_.pairs, epochs, s_.dpo_batch, [&](const std::vector<std::int32_t>& rows) {
      std::vector<std::int32_t> sides, chosen, rejected;
      for (const std::int32_t row : rows) {
        chosen.push_back(static_cast<std::int32_t>(sides.size()));
        sides.push_back(2 * row);
        rejected.push_back(static_cast<std::int32_t>(sides.size()));
        sides.push_back(2 * row + 1);
      }
      const texts x = both.select(sides);
      const auto ref_logp = plumb::select_own(both, reference, std::span<const std::int32_t>(sides));
      const auto& logp = p.forward(x);
      std::vector<real> d(logp.size());
      const plumb::preference_pairs<> pairs{x.layout(), chosen, rejected};
      plumb::dpo(b_, scratch_(plumb::dpo_workspace(b_, pairs, x.own_tokens())), {.logp = logp, .ref_logp = ref_logp, .pairs = pairs},
                 {.beta = beta, .denominator = static_cast<double>(rows.size())}, {.d_logp = d});
      b_.sync();
      p.backward(x, d);
      p.step(s_.dpo_rate * (1 - static_cast<double>(step++) / steps));
    });
    return p;
  }

  /// What DPO is tuned on, which is all that may be looked at: the reward model's mean number for replies drawn at temperature 1 to validation
  /// prompts.
  double validation_score(policy& p) { return mean_reward(validation_replies(p)); }
  /// Tokens of these replies, on average.
  double validation_length(policy& p) { return static_cast<double>(validation_replies(p).own_tokens()) / s_.validation_prompts; }
  /// The reward model's mean number for the right answers to these prompts.
  double validation_score_of_answers() {
    texts right;
    for (const auto& start : fresh_starts(for_validation_prompts, s_.validation_prompts))
      add_text(right, start.tokens, answer(start.tokens), start.prompt);
    return mean_reward(right);
  }

  /// PPO with resets into the chosen replies: `proportion` 0 is PPO, 1 is DR-PO. `watch(update, exact rate at temperature 1, metrics)` now and then.
  using watcher = std::function<void(int, double, const plumb::ppo_metrics&)>;
  policy ppo(double proportion, const watcher& watch = {}) {
    policy p = sft_, reference = sft_;
    critic values(reader_, mlp_net<B>(b_, reader_, s_.hidden, 1, 0.1, 0, plumb::random_stream{seed_, for_critic}.bits(0)));
    scorer reward{*this};
    const plumb::drpo source(items_, {.proportion = proportion, .seed = seed_});
    plumb::ppo loop(b_, loop_options(s_, seed_), plumb::fixed_kl_controller{s_.kl_coefficient});
    for (int update = 0; update < s_.updates; ++update) {
      const double left = 1 - static_cast<double>(update) / s_.updates;
      loop.set_rates(s_.policy_rate * left, s_.critic_rate * left);
      const auto metrics = loop.step(p, values, reference, reward, source.starts(static_cast<std::uint64_t>(update), s_.rollouts), how(0, 1));
      if (watch && (update + 1) % s_.curve_every == 0) watch(update + 1, exact_sampled(p, for_curve_prompts, s_.curve_prompts), metrics);
    }
    return p;
  }

  /// Judged on fresh prompts, the same for every policy of a seed.
  score_card judged(policy& p) {
    score_card c;
    dice random(seed_, for_judged_prompts);
    std::vector<plumb::start> starts;
    texts right;
    std::vector<tokens> prompts, references;
    for (int i = 0; i < s_.judged_prompts; ++i) {
      prompts.push_back(draw_prompt(random));
      references.push_back(draw_reference(prompts.back(), random));
      starts.push_back(start_at(prompts.back(), i));
      add_text(right, prompts.back(), answer(prompts.back()), i);
    }
    const double n = s_.judged_prompts;
    const texts greedy = p.generate(starts, how(for_judged_draws, 0));
    for (index_t s = 0; s < greedy.size(); ++s) {
      const auto i = static_cast<std::size_t>(s);
      const double own = judge(prompts[i], greedy.reply_of(s)), other = judge(prompts[i], references[i]);
      c.exact_greedy += (own == 1) / n;
      c.win_rate += (own > other ? 1 : own == other ? 0.5 : 0) / n;
    }
    double logp = 0;
    c.exact_sampled = mean_probability(p, right, &logp);
    c.token = std::exp(logp / static_cast<double>(right.own_tokens()));
    const texts drawn = p.generate(starts, how(for_judged_draws, 1));
    const std::vector<real> own = p.score(drawn);
    policy reference = sft_;
    const auto& before = reference.score(drawn);
    for (std::size_t t = 0; t < own.size(); ++t) c.kl += (static_cast<double>(own[t]) - static_cast<double>(before[t])) / n;
    for (const auto e : drawn.ended) c.ended += e / n;
    return c;
  }

 private:
  // Streams of random numbers, one for each use.
  enum purpose : std::uint64_t {
    for_policy = 1,
    for_references,
    for_sft,
    for_pairs,
    for_held_out_pairs,
    for_reward,
    for_dpo,
    for_validation_prompts,
    for_validation_draws,
    for_critic,
    for_judged_prompts,
    for_judged_draws,
    for_curve_prompts,
    for_pair_draws
  };

  // The reward of the loop: `plumb::reward_model`.
  struct scorer {
    experiment& of;
    std::vector<real> numbers{};
    const std::vector<real>& reward(const texts& x) {
      numbers.assign(static_cast<std::size_t>(x.size()), real(0));
      if (of.s_.reward == reward_kind::oracle) {
        for (index_t s = 0; s < x.size(); ++s) numbers[static_cast<std::size_t>(s)] = judge(x.prompt_of(s), x.reply_of(s)) == 1 ? real(1) : real(0);
        return numbers;
      }
      const auto& r = of.rm_.reward(x);
      if (of.s_.reward == reward_kind::raw) return r;
      for (std::size_t s = 0; s < numbers.size(); ++s)
        numbers[s] = r[s] >= of.chosen_reward_[static_cast<std::size_t>(x.prompt[s])] - static_cast<real>(of.s_.win_margin) ? real(1) : real(0);
      return numbers;
    }
  };

  plumb::sampling how(std::uint64_t use, double temperature) const {
    return {.temperature = temperature, .max_new_tokens = slots, .end_token = end_token, .seed = plumb::random_stream{seed_, 100}.bits(use)};
  }
  std::vector<plumb::start> fresh_starts(purpose of, int count) const {
    dice random(seed_, of);
    std::vector<plumb::start> all;
    for (int i = 0; i < count; ++i) all.push_back(start_at(draw_prompt(random), i));
    return all;
  }
  texts validation_replies(policy& p) const {
    return p.generate(fresh_starts(for_validation_prompts, s_.validation_prompts), how(for_validation_draws, 1));
  }
  double mean_reward(const texts& x) {
    double sum = 0;
    for (const real r : rm_.reward(x)) sum += static_cast<double>(r);
    return sum / static_cast<double>(x.size());
  }
  double mean_probability(policy& p, const texts& x, double* logp_sum = nullptr) {
    const auto& logp = p.score(x);
    double mean = 0;
    for (index_t s = 0; s < x.size(); ++s) {
      double sum = 0;
      for (index_t t = x.own[static_cast<std::size_t>(s)]; t < x.own[static_cast<std::size_t>(s) + 1]; ++t)
        sum += static_cast<double>(logp[static_cast<std::size_t>(t)]);
      mean += std::exp(sum) / static_cast<double>(x.size());
      if (logp_sum != nullptr) *logp_sum += sum;
    }
    return mean;
  }
  double exact_sampled(policy& p, purpose prompts, int count) {
    dice random(seed_, prompts);
    texts right;
    for (int i = 0; i < count; ++i) {
      const tokens x = draw_prompt(random);
      add_text(right, x, answer(x), i);
    }
    return mean_probability(p, right);
  }

  static int batches(int count, int size) { return (count + size - 1) / size; }
  // `f(rows)` for each batch of each epoch, every epoch in an order of its own.
  template <class F>
  void epochs_over(purpose of, int count, int epochs, int batch, const F& f) const {
    std::vector<std::int32_t> order(static_cast<std::size_t>(count));
    for (int epoch = 0; epoch < epochs; ++epoch) {
      std::iota(order.begin(), order.end(), 0);
      const plumb::random_stream random{plumb::random_stream{seed_, of}.bits(0), static_cast<std::uint64_t>(epoch)};
      for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[static_cast<std::size_t>(random.below(i, i))]);
      for (int from = 0; from < count; from += batch)
        f(std::vector<std::int32_t>(order.begin() + from, order.begin() + std::min(count, from + batch)));
    }
  }

  void train_sft() {
    dice random(seed_, for_references);
    texts all;
    for (int i = 0; i < s_.references; ++i) {
      const tokens prompt = draw_prompt(random);
      add_text(all, prompt, draw_reference(prompt, random), i);
    }
    epochs_over(for_sft, s_.references, s_.sft_epochs, s_.sft_batch, [&](const std::vector<std::int32_t>& rows) {
      const texts x = all.select(rows);
      const auto& logp = sft_.forward(x);
      std::vector<real> d(logp.size());
      plumb::supervised(b_, scratch_(plumb::supervised_workspace(b_, x.layout())), {.logp = logp, .sequences = x.layout()},
                        {.denominator = static_cast<double>(x.own_tokens())}, {.d_logp = d});
      b_.sync();
      sft_.backward(x, d);
      sft_.step(s_.sft_rate);
    });
  }

  // Each side a reference or a reply of the SFT policy, evenly; pairs of equals are drawn again.
  std::vector<pair> draw_pairs(purpose of, int count) {
    dice random(seed_, of);
    std::vector<pair> all;
    for (std::uint64_t round = 0; static_cast<int>(all.size()) < count; ++round) {
      std::vector<plumb::start> starts;
      for (int i = 0; i < 2 * count; ++i) starts.push_back(start_at(draw_prompt(random), i));
      for (int i = 0; i < 2 * count; i += 2) starts[static_cast<std::size_t>(i + 1)] = starts[static_cast<std::size_t>(i)];
      auto draws = how(for_pair_draws + 1000 * of, 1);
      draws.step = round;
      const texts drawn = sft_.generate(starts, draws);
      for (int i = 0; i < count && static_cast<int>(all.size()) < count; ++i) {
        const tokens& prompt = starts[static_cast<std::size_t>(2 * i)].tokens;
        tokens side[2];
        double worth[2];
        for (int k = 0; k < 2; ++k) {
          const auto own = drawn.own_of(2 * i + k);
          side[k] = random.uniform() < 0.5 ? draw_reference(prompt, random) : tokens(own.begin(), own.end());
          worth[k] = judge(prompt, side[k]);
        }
        const double u = random.uniform();
        if (worth[0] == worth[1]) continue;
        const bool first = u < 1 / (1 + std::exp(-s_.label_sharpness * (worth[0] - worth[1])));
        all.push_back({prompt, side[first ? 0 : 1], side[first ? 1 : 0]});
      }
    }
    return all;
  }

  void train_reward() {
    texts both;
    for (const auto& p : pairs_) {
      add_text(both, p.prompt, p.chosen, 0);
      add_text(both, p.prompt, p.rejected, 0);
    }
    epochs_over(for_reward, s_.pairs, s_.reward_epochs, s_.reward_batch, [&](const std::vector<std::int32_t>& rows) {
      std::vector<std::int32_t> sides;
      for (const std::int32_t row : rows) sides.push_back(2 * row), sides.push_back(2 * row + 1);
      const texts x = both.select(sides);
      const auto& r = rm_.reward(x);
      std::vector<real> d(r.size());
      const auto pairs = static_cast<index_t>(rows.size());
      const auto every_other = [&](auto v, index_t first) { return decltype(v){v.data() + first, {pairs}, {2}}; };
      const view<const real, 1> rewards(r);
      const view<real, 1> gradient(d);
      plumb::bradley_terry(b_, scratch_(plumb::bradley_terry_workspace(b_, pairs)),
                           {.chosen = every_other(rewards, 0), .rejected = every_other(rewards, 1)}, {.denominator = static_cast<double>(pairs)},
                           {.d_chosen = every_other(gradient, 0), .d_rejected = every_other(gradient, 1)});
      b_.sync();
      rm_.backward(x, d);
      rm_.step(s_.reward_rate);
    });
  }

  B& b_;
  settings s_;
  std::uint64_t seed_;
  reader reader_{};
  pair_reader pair_reader_{};
  scratch_memory scratch_{};
  policy sft_;
  reward_model rm_;
  std::vector<pair> pairs_{};
  std::vector<plumb::reset_item> items_{};
  std::vector<real> chosen_reward_{};
};

}  // namespace claims::lock

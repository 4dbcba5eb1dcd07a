#pragma once
// PPO and its kin, one update at a time: a rollout's rewards, advantages and returns, then epochs of minibatches over policy and critic. GRPO, RLOO,
// REINFORCE++, DAPO and DR-PO are the same loop with another advantage, another surrogate or other starts.

#include <plumb/algorithms/kl_controller.hpp>
#include <plumb/algorithms/loop.hpp>
#include <plumb/objectives/policy_loss.hpp>
#include <plumb/objectives/value_loss.hpp>
#include <plumb/ops/rollout_advantages.hpp>
#include <plumb/ops/running_moments.hpp>

#include <cmath>
#include <limits>
#include <string_view>

PLUMB_NAMESPACE_BEGIN

/// What becomes of a reward model's scores before they are rewards.
enum class score_scaling {
  none,       ///< they are as they are
  scale,      ///< divided by the standard deviation of all scores so far (TRL 0.11 `use_score_scaling`)
  normalize,  ///< the mean of all scores so far taken off before that (`use_score_norm`)
};

/// Options of `ppo`. Defaults are those of "Learning to summarize" and InstructGPT as TRL and DR-PO run them (arXiv:2203.02155, arXiv:2404.08495,
/// table 5), learning rates aside, which are the model's.
template <class Advantage = advantage::gae, class Surrogate = surrogate::clip>
struct ppo_options {
  Advantage advantage{};
  Surrogate surrogate{};
  policy_loss_options policy{};           ///< `denominator` is set by the loop: tokens or texts of a minibatch, as `aggregate` says
  value_loss_options value{.weight = 0.1};  ///< likewise
  rollout_advantages_options rewards{};   ///< `kl_coefficient` is set by the loop, from the controller
  score_scaling scaling = score_scaling::none;  ///< before `rewards`, whose `score_min` and `score_max` then clip what was scaled
  /// A text that was cut off is worth what the critic says after its last token, and its score does not count, where the critic can
  /// (`bootstrapping_critic`); of `rewards.rewards` only `unfinished_offset` touches it. Off: it is worth its score, as it has to be where
  /// texts never end (no end token): no score would count. An advantage without a critic takes the score.
  bool bootstrap = true;
  bool skip_truncated = false;  ///< texts that were cut off are not trained on (DAPO's overlong filtering); their rewards still count in their groups
  int epochs = 4;               ///< passes over the rollout
  index_t minibatches = 1;      ///< steps of the optimiser per epoch; fewer where there are fewer texts
  index_t micro_batch = 0;      ///< texts per forward and backward pass; 0: a whole minibatch. Changes nothing but rounding and memory
  double policy_rate = 3e-6;
  double critic_rate = 3e-6;
  index_t critic_warmup = 0;    ///< in so many first updates the critic learns alone
  /// An update ends when a minibatch's `mean(old_logp - logp)` is above 1.5 times this; its gradient is discarded (TRL 0.11). 0: never.
  double target_kl = 0;
  double ratio_limit = 0;       ///< a minibatch whose mean ratio is above this is left out (TRL 0.11: 10). 0: none
  bool rescore = true;          ///< old log-probs are the policy's own `score` of the rollout; false: those that were sampled
  /// The largest |logp - old_logp| of a token in the first minibatch, before any step, in nats: more is an error, and nothing is trained. 0: it is
  /// not looked at (`ppo_metrics::first_ratio_gap` tells it).
  double start_tolerance = 0;
  std::uint64_t seed = 0;       ///< of the order of minibatches

  void require(const char* op) const {
    if constexpr (requires { advantage.require(op); }) advantage.require(op);
    if constexpr (requires { surrogate.require(op); }) surrogate.require(op);
    policy.require(op);
    value.require(op);
    rewards.require(op);
    require_mode(op, "scaling", scaling, score_scaling::normalize);
    if (policy.entropy_coefficient != 0)
      fail(message(op) << "option `policy.entropy_coefficient` is " << policy.entropy_coefficient
                       << ", but a policy gives the loop no entropies: call `policy_loss` yourself for a bonus. Nothing was written.");
    detail::require_loop(op, epochs, minibatches, micro_batch);
    require_option(op, "policy_rate", policy_rate, policy_rate >= 0, "0 or positive");
    require_option(op, "critic_rate", critic_rate, critic_rate >= 0, "0 or positive");
    require_option(op, "critic_warmup", static_cast<double>(critic_warmup), critic_warmup >= 0 && (needs_critic<Advantage> || critic_warmup == 0),
                   needs_critic<Advantage> ? "0 or positive" : "0: this advantage needs no critic");
    require_option(op, "target_kl", target_kl, target_kl >= 0, "0 (off) or positive");
    require_option(op, "ratio_limit", ratio_limit, ratio_limit >= 0, "0 (off) or positive");
    require_option(op, "start_tolerance", start_tolerance, start_tolerance >= 0, "0 (off) or positive");
  }
};

/// What one update saw; what it could not see (no reference, no critic, no text of the kind) is NaN.
struct ppo_metrics {
  double score = 0, score_sd = 0, score_min = 0, score_max = 0;  ///< of the reward model, over texts, before any scaling
  double kl = 0;              ///< to the reference, summed over a text's own tokens, mean over texts; by the estimator of the reward
  double kl_per_token = 0;
  double kl_coefficient = 0;  ///< that this update used
  double entropy = 0;         ///< mean of -logp over own tokens: an estimate of the policy's entropy per token
  double advantage_sd = 0, return_mean = 0, value_mean = 0;
  double policy_loss = 0, value_loss = 0;  ///< mean over the minibatches that were stepped on; so are the next five over their tokens
  double clip_fraction = 0, approx_kl = 0, ratio_max = 0, value_clip_fraction = 0, explained_variance = 0;
  /// Largest |logp - old_logp| of the first minibatch, before any step: 0, unless forward and score differ (dropout, padding, precision).
  double first_ratio_gap = 0;
  /// Mean |log-prob as sampled - as scored| over tokens: the sampler computes differently from the trainer. NaN where it gave none.
  double sampler_gap = 0;
  double length = 0, length_max = 0, ended = 0, empty = 0;  ///< own tokens of a text; shares of texts
  double equal_groups = 0;  ///< share of groups whose scores are all equal: nothing to learn from them without a critic
  double given = 0, cut = 0;  ///< share of texts that began after a reset, and how many tokens they were given
  double score_given = 0, score_fresh = 0;  ///< the score of those, and of the others
  double kl_given = 0, kl_fresh = 0;        ///< likewise `kl`: resets leave fewer own tokens, so a smaller sum
  std::int64_t texts = 0, tokens = 0;
  int steps = 0, skipped = 0;  ///< minibatches that were stepped on; that were left out for their ratio
  bool stopped = false;        ///< by `target_kl`

  /// `f(name, value)` for each number.
  template <class F>
  void visit(F f) const {
    f("score", score), f("score_sd", score_sd), f("score_min", score_min), f("score_max", score_max), f("kl", kl), f("kl_per_token", kl_per_token);
    f("kl_coefficient", kl_coefficient), f("entropy", entropy), f("advantage_sd", advantage_sd), f("return_mean", return_mean);
    f("value_mean", value_mean), f("policy_loss", policy_loss), f("value_loss", value_loss), f("clip_fraction", clip_fraction);
    f("approx_kl", approx_kl), f("ratio_max", ratio_max), f("value_clip_fraction", value_clip_fraction), f("explained_variance", explained_variance);
    f("first_ratio_gap", first_ratio_gap), f("sampler_gap", sampler_gap), f("length", length), f("length_max", length_max), f("ended", ended);
    f("empty", empty), f("equal_groups", equal_groups), f("given", given), f("cut", cut), f("score_given", score_given);
    f("score_fresh", score_fresh), f("kl_given", kl_given), f("kl_fresh", kl_fresh);
    f("texts", static_cast<double>(texts)), f("tokens", static_cast<double>(tokens)), f("steps", steps), f("skipped", skipped);
    f("stopped", stopped ? 1 : 0);
  }
};

/// What the host's models said of a rollout. Whoever has no models of our kind fills it in and takes coefficients (`rollout_advantages`,
/// `policy_loss`); `ppo` does so itself.
template <class Real>
struct rollout_numbers {
  std::vector<Real> logp{}, ref_logp{}, values{};    ///< `[M]`; the last two may be empty
  std::vector<Real> score{}, scaled{}, bootstrap{};  ///< `[S]`; the last two may be empty
  std::vector<Real> advantages{}, returns{}, kl{};   ///< `[M]`, made of them
};

/// One update after the other, on a backend in host memory. Owns its scratch memory, no model. What is to be resumed is `state()`, beside the models.
template <class B, class Advantage = advantage::gae, class Surrogate = surrogate::clip, kl_controller Controller = fixed_kl_controller>
class ppo {
 public:
  using real = real_of<B>;
  static_assert(std::is_same_v<space_of<B>, host_space>,
                "plumb: the loop of ppo keeps its numbers in host memory; with device memory call rollout_advantages, policy_loss and value_loss: "
                "see docs/algorithms/ppo.md");
  using options_type = ppo_options<Advantage, Surrogate>;

  /// What a run needs to go on: `restore` it beside the models' own checkpoints.
  struct state_type {
    std::uint64_t updates = 0;
    Controller controller{};
    double scores[moments_size] = {};  ///< moments of all scores so far, see `score_scaling`
  };

  explicit ppo(B& compute, options_type options = {}, Controller controller = {}) : b_(compute), o_(options), state_{0, controller, {}} {
    o_.require("ppo");
    if constexpr (requires { controller.require("ppo"); }) controller.require("ppo");
  }

  const options_type& options() const { return o_; }
  const state_type& state() const { return state_; }
  void restore(const state_type& s) { state_ = s; }
  /// Learning rates of the updates to come.
  void set_rates(double policy_rate, double critic_rate) {
    require_option("ppo", "policy_rate", policy_rate, policy_rate >= 0, "0 or positive");
    require_option("ppo", "critic_rate", critic_rate, critic_rate >= 0, "0 or positive");
    o_.policy_rate = policy_rate;
    o_.critic_rate = critic_rate;
  }

  /// Asks the models about `r`, makes advantages, trains. Everything is asked and checked before anything is trained. `reference` may be `no_model`
  /// where no KL is wanted, `critic` where the advantage needs none. After an error the state is as it was.
  template <class Policy, class Critic, class Reference, class Reward>
  ppo_metrics update(Policy& policy, Critic& critic, Reference& reference, Reward& reward, const rollouts<real>& r) {
    static_assert(check_trainable<Policy, real>() && check_reward<Reward, real>());
    r.require("ppo");
    ppo_metrics m;
    state_type next = state_;
    rollout_numbers<real> n = ask(policy, critic, reference, reward, r);
    n.scaled = scaled(n.score, next);
    advantages(n, r);
    describe(n, r, m);
    if (!n.ref_logp.empty()) next.controller.update(m.kl, static_cast<double>(r.size()));
    train(policy, critic, n, r, m);
    ++next.updates;
    state_ = next;
    return m;
  }
  /// Without a critic.
  template <class Policy, class Reference, class Reward>
  ppo_metrics update(Policy& policy, Reference& reference, Reward& reward, const rollouts<real>& r) {
    no_model critic;
    return update(policy, critic, reference, reward, r);
  }
  /// Writes a rollout from `starts` and trains on it; the loop sets `how.step` to the number of the update. States are `start`s, or what else the
  /// policy writes from.
  template <class Policy, class Critic, class Reference, class Reward, std::ranges::contiguous_range States>
  ppo_metrics step(Policy& policy, Critic& critic, Reference& reference, Reward& reward, const States& starts, sampling how) {
    static_assert(check_policy<Policy, real, std::ranges::range_value_t<States>>());
    how.step = state_.updates;
    return update(policy, critic, reference, reward, detail::written<real>("ppo", policy, starts, how));
  }
  /// Without a critic.
  template <class Policy, class Reference, class Reward, std::ranges::contiguous_range States>
  ppo_metrics step(Policy& policy, Reference& reference, Reward& reward, const States& starts, const sampling& how) {
    no_model critic;
    return step(policy, critic, reference, reward, starts, how);
  }

  /// What the models say of `r`; all checked.
  template <class Policy, class Critic, class Reference, class Reward>
  rollout_numbers<real> ask(Policy& policy, Critic& critic, Reference& reference, Reward& reward, const rollouts<real>& r) {
    constexpr const char* op = "ppo";
    constexpr bool with_reference = !std::is_same_v<Reference, no_model>, with_critic = !std::is_same_v<Critic, no_model>;
    static_assert(with_critic || !needs_critic<Advantage>, "plumb: this advantage is made of values: ppo needs a critic");
    static_assert(!with_critic || needs_critic<Advantage>, "plumb: this advantage makes no use of values: call ppo without a critic");
    if constexpr (with_reference) static_assert(check_token_scorer<Reference, real>());
    if constexpr (with_critic) static_assert(check_trainable<Critic, real>());
    if (!with_reference && state_.controller.coefficient != 0)
      fail(message(op) << "the KL coefficient is " << state_.controller.coefficient
                       << ", but there is no reference: give one, or the controller fixed_kl_controller{0}. Nothing was trained.");
    if (!with_reference && o_.policy.kl_coefficient != 0)
      fail(message(op) << "option `policy.kl_coefficient` is " << o_.policy.kl_coefficient << ", but there is no reference. Nothing was trained.");
    rollout_numbers<real> n;
    if (r.size() > 0) n.score = detail::numbers_from<real>(op, "reward.reward", reward.reward(r), r.size(), "texts");
    detail::require_finite_texts(op, "reward.reward", n.score, r);
    if (r.own_tokens() == 0) return n;
    const auto of_tokens = [&](const char* name, const auto& numbers) {
      auto x = detail::numbers_from<real>(op, name, numbers, r.own_tokens(), "own tokens");
      detail::require_finite_tokens(op, name, x, r);
      return x;
    };
    n.logp = o_.rescore ? of_tokens("policy.score", policy.score(r)) : of_tokens("the sampler", r.logp);
    if constexpr (with_reference) n.ref_logp = of_tokens("reference.score", reference.score(r));
    if constexpr (with_critic) {
      n.values = of_tokens("critic.score", critic.score(r));
      if constexpr (bootstrapping_critic<Critic, real>) {
        if (o_.bootstrap && std::find(r.ended.begin(), r.ended.end(), 0) != r.ended.end()) {
          n.bootstrap = detail::numbers_from<real>(op, "critic.after", critic.after(r), r.size(), "texts");
          for (std::size_t s = 0; s < n.bootstrap.size(); ++s)
            if (r.ended[s]) n.bootstrap[s] = real(0);
          detail::require_finite_texts(op, "critic.after", n.bootstrap, r);
        }
      }
    }
    return n;
  }

  /// Fills in advantages, returns and KL. Where replies are compared with each other, those of a prompt must have begun alike.
  void advantages(rollout_numbers<real>& n, const rollouts<real>& r) {
    if (r.own_tokens() == 0) return;
    const prompt_groups groups = group_by_prompt(r.prompt);
    if constexpr (needs_groups<Advantage>) detail::require_equal_starts("ppo", r, groups, "group");
    rollout_advantages_inputs<real> in{.logp = n.logp, .ref_logp = n.ref_logp, .score = n.scaled.empty() ? n.score : n.scaled, .ended = r.ended,
                                       .values = n.values, .bootstrap = n.bootstrap, .sequences = r.layout()};
    if constexpr (!needs_critic<Advantage>) {
      in.values = in.bootstrap = {};
      in.groups = groups.layout();
      in.order = groups.order;
      in.place = groups.place;
    }
    auto options = o_.rewards;
    options.rewards.kl_coefficient = state_.controller.coefficient;
    n.advantages.assign(n.logp.size(), real(0));
    n.kl.assign(n.logp.size(), real(0));
    rollout_advantages_outputs<real> out{.advantages = n.advantages, .kl = n.kl};
    if constexpr (needs_critic<Advantage>) {
      n.returns.assign(n.logp.size(), real(0));
      out.returns = n.returns;
    }
    rollout_advantages(b_, scratch_(rollout_advantages_workspace(b_, in)), in, o_.advantage, options, out);
    b_.sync();
  }

 private:
  // Takes scores into the moments of `next`; gives them scaled, or nothing where they are to stay. A deviation of 0 scales nothing.
  std::vector<real> scaled(const std::vector<real>& score, state_type& next) const {
    if (o_.scaling == score_scaling::none) return {};
    const view<double, 1> state(next.scores, moments_size);
    update_moments(std::vector<double>(score.begin(), score.end()), state);
    const running_moments<double> so_far = read_moments(state);
    const double sd = so_far.standard_deviation > 0 ? so_far.standard_deviation : 1, mean = o_.scaling == score_scaling::normalize ? so_far.mean : 0;
    std::vector<real> y;
    for (const real x : score) y.push_back(static_cast<real>((static_cast<double>(x) - mean) / sd));
    return y;
  }

  void describe(const rollout_numbers<real>& n, const rollouts<real>& r, ppo_metrics& m) const {
    const double nothing = std::numeric_limits<double>::quiet_NaN();
    const auto texts = static_cast<double>(r.size());
    double sum = 0, squares = 0, kl = 0, kl_given = 0, gap = 0, entropy = 0, given = 0, cut = 0, score_given = 0, advantages = 0,
           advantage_squares = 0, returns = 0, values = 0, ended = 0, empty = 0;
    m.score_min = m.score_max = r.size() > 0 ? static_cast<double>(n.score[0]) : nothing;
    m.texts = r.size();
    m.tokens = r.own_tokens();
    for (index_t s = 0; s < r.size(); ++s) {
      const auto x = static_cast<double>(n.score[static_cast<std::size_t>(s)]);
      sum += x;
      m.score_min = std::min(m.score_min, x);
      m.score_max = std::max(m.score_max, x);
      m.length_max = std::max(m.length_max, static_cast<double>(r.own_count(s)));
      ended += r.ended[static_cast<std::size_t>(s)];
      empty += r.own_count(s) == 0;
      if (r.given_count(s) > 0) ++given, score_given += x, cut += static_cast<double>(r.given_count(s));
    }
    m.score = r.size() > 0 ? sum / texts : nothing;
    for (const real x : n.score) squares += (static_cast<double>(x) - m.score) * (static_cast<double>(x) - m.score);
    m.score_sd = r.size() > 0 ? std::sqrt(squares / texts) : nothing;
    for (std::size_t t = 0; t < n.logp.size(); ++t) {
      kl += static_cast<double>(n.kl[t]);
      entropy -= static_cast<double>(n.logp[t]);
      gap += std::abs(static_cast<double>(n.logp[t]) - static_cast<double>(r.logp[t]));
      const auto a = static_cast<double>(n.advantages[t]);
      advantages += a;
      advantage_squares += a * a;
      if (!n.returns.empty()) returns += static_cast<double>(n.returns[t]);
      if (!n.values.empty()) values += static_cast<double>(n.values[t]);
    }
    for (index_t s = 0; s < r.size() && !n.kl.empty(); ++s)
      if (r.given_count(s) > 0)
        for (auto t = r.own[static_cast<std::size_t>(s)]; t < r.own[static_cast<std::size_t>(s) + 1]; ++t)
          kl_given += static_cast<double>(n.kl[static_cast<std::size_t>(t)]);
    const auto tokens = static_cast<double>(n.logp.size());
    const auto over = [&](double x, double count) { return count > 0 ? x / count : nothing; };
    m.entropy = over(entropy, tokens);
    m.kl = n.ref_logp.empty() ? nothing : over(kl, texts);
    m.kl_per_token = n.ref_logp.empty() ? nothing : over(kl, tokens);
    m.kl_coefficient = state_.controller.coefficient;
    m.sampler_gap = over(gap, tokens);
    m.advantage_sd = tokens > 0 ? std::sqrt(std::max(0.0, advantage_squares / tokens - advantages / tokens * advantages / tokens)) : nothing;
    m.return_mean = n.returns.empty() ? nothing : over(returns, tokens);
    m.value_mean = n.values.empty() ? nothing : over(values, tokens);
    m.length = over(tokens, texts);
    m.ended = over(ended, texts);
    m.empty = over(empty, texts);
    const prompt_groups groups = group_by_prompt(r.prompt);
    double equal = 0;
    for (std::size_t g = 0; g < groups.begin.size(); ++g) {
      bool same = true;
      for (std::int32_t i = groups.begin[g]; i < groups.end[g]; ++i)
        same = same && score_of(n, groups.order, i) == score_of(n, groups.order, groups.begin[g]);
      equal += same;
    }
    m.equal_groups = over(equal, static_cast<double>(groups.groups()));
    m.given = over(given, texts);
    m.cut = over(cut, given);
    m.score_given = over(score_given, given);
    m.score_fresh = over(sum - score_given, texts - given);
    m.kl_given = n.ref_logp.empty() ? nothing : over(kl_given, given);
    m.kl_fresh = n.ref_logp.empty() ? nothing : over(kl - kl_given, texts - given);
  }

  static real score_of(const rollout_numbers<real>& n, const std::vector<std::int32_t>& order, std::int32_t place) {
    return n.score[static_cast<std::size_t>(order[static_cast<std::size_t>(place)])];
  }

  // Sums of one minibatch, and of all.
  struct sums {
    double policy[std::size(policy_loss_metrics)][2] = {}, value[std::size(value_loss_metrics)][2] = {};
    double policy_loss = 0, value_loss = 0;
    sums() {
      for (std::size_t k = 0; k < std::size(policy_loss_metrics); ++k)
        if (policy_loss_metrics[k].kind != metric_kind::mean) policy[k][0] = -std::numeric_limits<double>::infinity();
    }
    double policy_value(std::string_view name) const { return value_of(policy_loss_metrics, policy, name); }
    double value_value(std::string_view name) const { return value_of(value_loss_metrics, value, name); }
    void add(const sums& more) {
      merge(policy_loss_metrics, policy, more.policy);
      merge(value_loss_metrics, value, more.value);
      policy_loss += more.policy_loss;
      value_loss += more.value_loss;
    }

   private:
    template <std::size_t K>
    static double value_of(const metric_info (&infos)[K], const double (&x)[K][2], std::string_view name) {
      std::size_t k = 0;
      while (infos[k].name != name) ++k;
      return metric_value(infos[k].kind, x[k][0], x[k][1]);
    }
    template <std::size_t K>
    static void merge(const metric_info (&infos)[K], double (&into)[K][2], const double (&from)[K][2]) {
      merge_metrics(infos, view<double, 2>(&into[0][0], K, 2), view<const double, 2>(&from[0][0], K, 2));
    }
  };

  template <class Policy, class Critic>
  void train(Policy& policy, Critic& critic, const rollout_numbers<real>& n, const rollouts<real>& r, ppo_metrics& m) {
    constexpr bool with_critic = !std::is_same_v<Critic, no_model>;
    const bool policy_learns = state_.updates >= static_cast<std::uint64_t>(o_.critic_warmup);
    std::vector<std::int32_t> rows;  // an empty text has nothing to train on
    for (std::int32_t s = 0; s < static_cast<std::int32_t>(r.size()); ++s)
      if (r.own_count(s) > 0 && (r.ended[static_cast<std::size_t>(s)] || !o_.skip_truncated)) rows.push_back(s);
    sums all;
    bool first = true;
    detail::for_each_minibatch(rows, o_.epochs, o_.minibatches, o_.seed, state_.updates, [&](std::span<const std::int32_t> part) {
      sums one;
      detail::gradients_of gradients(policy, critic);
      const double gap = minibatch(policy, critic, n, r, part, policy_learns, m.steps, one);
      if (first) {
        m.first_ratio_gap = gap;
        if (o_.start_tolerance > 0 && gap > o_.start_tolerance)
          fail(message("ppo") << "before the first step a log-probability is " << gap << " away from the old one, more than `start_tolerance` ("
                              << o_.start_tolerance << "): forward differs from " << (o_.rescore ? "score" : "the sampler")
                              << " (dropout, padding, precision, another temperature or policy). Nothing was trained.");
        first = false;
      }
      if (o_.target_kl > 0 && one.policy_value("approx_kl") > 1.5 * o_.target_kl) {
        m.stopped = true;
        return false;
      }
      if (o_.ratio_limit > 0 && one.policy_value("ratio") > o_.ratio_limit) {
        ++m.skipped;
        return true;
      }
      gradients.use();
      if (policy_learns) policy.step(o_.policy_rate);
      if constexpr (with_critic) critic.step(o_.critic_rate);
      ++m.steps;
      all.add(one);
      return true;
    });
    const double nothing = std::numeric_limits<double>::quiet_NaN();
    m.policy_loss = m.steps > 0 && policy_learns ? all.policy_loss / m.steps : nothing;
    m.value_loss = m.steps > 0 && with_critic ? all.value_loss / m.steps : nothing;
    m.clip_fraction = all.policy_value("clip_fraction");
    m.approx_kl = all.policy_value("approx_kl");
    m.ratio_max = all.policy_value("ratio_max");
    m.value_clip_fraction = all.value_value("clip_fraction");
    m.explained_variance = with_critic ? value_explained_variance(view<double, 2>(&all.value[0][0], std::size(value_loss_metrics), 2)) : nothing;
  }

  // Gradients of one minibatch, micro-batch by micro-batch; the denominators are the minibatch's. Gives the largest |logp - old_logp|.
  template <class Policy, class Critic>
  double minibatch(Policy& policy, Critic& critic, const rollout_numbers<real>& n, const rollouts<real>& r, std::span<const std::int32_t> rows,
                   bool policy_learns, int steps, sums& total) {
    constexpr bool with_critic = !std::is_same_v<Critic, no_model>;
    double tokens = 0, gap = 0;
    for (const std::int32_t s : rows) tokens += static_cast<double>(r.own_count(s));
    const auto denominator = [&](aggregation a) { return a == aggregation::token_mean ? tokens : static_cast<double>(rows.size()); };
    auto policy_options = o_.policy;
    policy_options.denominator = denominator(policy_options.aggregate);
    auto value_options = o_.value;
    value_options.denominator = denominator(value_options.aggregate);
    detail::for_each_micro_batch(rows, o_.micro_batch, [&](std::span<const std::int32_t> part) {
      const rollouts<real> x = r.select(part);
      const auto pick = [&](const std::vector<real>& values) { return select_own(r, values, part); };
      const auto old_logp = pick(n.logp), advantage = pick(n.advantages);
      const auto ref_logp = n.ref_logp.empty() ? std::vector<real>() : pick(n.ref_logp);
      const auto of_tokens = [&](const char* name, const auto& numbers) {
        auto y = detail::numbers_from<real>("ppo", name, numbers, x.own_tokens(), "own tokens", steps);
        detail::require_finite_tokens("ppo", name, y, x, part, steps);
        return y;
      };
      sums one;
      if (policy_learns) {
        const auto logp = of_tokens("policy.forward", policy.forward(x));
        for (std::size_t t = 0; t < logp.size(); ++t)
          gap = std::max(gap, std::abs(static_cast<double>(logp[t]) - static_cast<double>(old_logp[t])));
        std::vector<real> d_logp(logp.size());
        real loss = 0, metrics[std::size(policy_loss_metrics)][2] = {};
        const policy_loss_inputs<real> in{.logp = logp, .old_logp = old_logp, .advantages = advantage, .ref_logp = ref_logp,
                                          .sequences = x.layout()};
        const policy_loss_outputs<real> out{.loss = loss, .d_logp = d_logp,
                                            .metrics = view<real, 2>(&metrics[0][0], std::size(policy_loss_metrics), 2)};
        policy_loss(b_, scratch_(policy_loss_workspace(b_, in, o_.surrogate, policy_options, out)), in, o_.surrogate, policy_options, out);
        b_.sync();
        policy.backward(x, d_logp);
        one.policy_loss = static_cast<double>(loss);
        for (std::size_t k = 0; k < std::size(policy_loss_metrics); ++k)
          for (int c = 0; c < 2; ++c) one.policy[k][c] = static_cast<double>(metrics[k][c]);
      }
      if constexpr (with_critic) {
        const auto values = of_tokens("critic.forward", critic.forward(x));
        const auto old_values = pick(n.values), returns = pick(n.returns);
        std::vector<real> d_values(values.size());
        real loss = 0, metrics[std::size(value_loss_metrics)][2] = {};
        value_loss(b_, scratch_(value_loss_workspace(b_, x.layout(), x.own_tokens())),
                   {.values = values, .old_values = old_values, .returns = returns, .sequences = x.layout()}, value_options,
                   {.loss = loss, .d_values = d_values, .metrics = view<real, 2>(&metrics[0][0], std::size(value_loss_metrics), 2)});
        b_.sync();
        critic.backward(x, d_values);
        one.value_loss = static_cast<double>(loss);
        for (std::size_t k = 0; k < std::size(value_loss_metrics); ++k)
          for (int c = 0; c < 2; ++c) one.value[k][c] = static_cast<double>(metrics[k][c]);
      }
      total.add(one);
    });
    return gap;
  }

  B& b_;
  options_type o_;
  state_type state_;
  detail::loop_scratch scratch_{};
};

PLUMB_NAMESPACE_END

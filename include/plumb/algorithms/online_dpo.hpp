#pragma once
// Preference optimisation on replies of the policy's own: several to each prompt, a reward model says which is better, any link of `preference`
// learns from the pair. Online DPO (Guo et al., "OAIF", arXiv:2402.04792), and iterated DPO where the reference follows (arXiv:2401.10020).

#include <plumb/algorithms/loop.hpp>
#include <plumb/objectives/preference.hpp>
#include <plumb/ops/prompt_groups.hpp>

PLUMB_NAMESPACE_BEGIN

/// Which replies to a prompt become pairs. Two that score the same never do.
enum class pair_choice {
  best_worst,   ///< one pair of each prompt: the best reply and the worst, the first of equals (arXiv:2401.10020; of two replies, OAIF)
  best_random,  ///< one pair of each prompt: the best and any that scores lower, each equally likely
  all,          ///< every two
};

/// Options of `online_dpo`. Defaults are those of OAIF and of TRL's OnlineDPOTrainer.
template <class Link = link::sigmoid, class Divergence = divergence::reverse_kl>
struct online_dpo_options {
  Link link{};
  Divergence divergence{};
  preference_options preference{};  ///< `denominator` and `reference_free` are set by the loop: pairs of a minibatch; whether there is a reference
  pair_choice pairs = pair_choice::best_worst;
  double gap = 0;                ///< scores of a pair differ by more than this
  double unfinished_penalty = 0; ///< taken from the score of a reply that was cut off (TRL: `missing_eos_penalty`, 1 in its examples)
  index_t replies = 2;           ///< to each start, in `step`
  int epochs = 1;                ///< passes over the pairs of an update
  index_t minibatches = 1;       ///< steps of the optimiser per epoch
  index_t micro_batch = 0;       ///< pairs per forward and backward pass; 0: a whole minibatch. Changes nothing but rounding and memory
  double rate = 5e-7;
  index_t reference_every = 0;   ///< after so many updates `reference.follow(policy)` is called; 0: never, the reference stays or the caller moves it
  std::uint64_t seed = 0;        ///< of the order of minibatches, and of `best_random`

  void require(const char* op) const {
    link.require(op);
    divergence.require(op);
    preference.require(op);
    require_mode(op, "pairs", pairs, pair_choice::all);
    require_option(op, "gap", gap, gap >= 0, "0 or positive");
    require_option(op, "unfinished_penalty", unfinished_penalty, unfinished_penalty >= 0, "0 or positive");
    require_option(op, "replies", static_cast<double>(replies), replies >= 2, "2 or more");
    detail::require_loop(op, epochs, minibatches, micro_batch);
    require_option(op, "rate", rate, rate >= 0, "0 or positive");
    require_option(op, "reference_every", static_cast<double>(reference_every), reference_every >= 0, "0 (never) or positive");
    if (preference.matching != pair_matching::given && micro_batch != 0)
      fail(message(op) << "option `preference.matching` looks at all pairs of a minibatch, so `micro_batch` must be 0, but it is "
                       << micro_batch << ".");
  }
};

/// Pairs of texts of a rollout.
struct chosen_pairs {
  std::vector<std::int32_t> chosen{}, rejected{};
  index_t prompts = 0, without = 0;  ///< prompts; those that gave no pair
};

/// Pairs of the replies to each prompt by `score` `[S]`. Replies without own tokens, and two with the same tokens, make no pair: they teach nothing.
/// All replies to a prompt must have begun alike. `random` draws for `best_random`, number `g` for the prompt that comes `g`th.
template <class Real>
chosen_pairs choose_pairs(const rollouts<Real>& r, std::span<const std::type_identity_t<Real>> score, pair_choice choice, double gap = 0,
                          const random_stream& random = {}) {
  constexpr const char* op = "choose_pairs";
  if (static_cast<index_t>(score.size()) != r.size())
    fail(message(op) << "there are " << score.size() << " scores, but " << r.size() << " texts.");
  const auto at = [&](std::int32_t s) { return static_cast<double>(score[static_cast<std::size_t>(s)]); };
  const auto same = [](auto a, auto b) { return std::ranges::equal(a, b); };
  chosen_pairs pairs;
  const prompt_groups groups = group_by_prompt(r.prompt);
  detail::require_equal_starts(op, r, groups, "pair");
  pairs.prompts = groups.groups();
  for (std::size_t g = 0; g < groups.begin.size(); ++g) {
    const auto first = static_cast<std::size_t>(groups.begin[g]), end = static_cast<std::size_t>(groups.end[g]);
    const auto replies = std::span(groups.order).subspan(first, end - first);
    std::vector<std::int32_t> written;
    for (const std::int32_t s : replies) {
      if (!std::isfinite(at(s))) fail(message(op) << "the score of text " << s << " is " << at(s) << ".");
      if (r.own_count(s) > 0) written.push_back(s);
    }
    const auto better = [&](std::int32_t a, std::int32_t b) { return at(a) - at(b) > gap && !same(r.own_of(a), r.own_of(b)); };
    const std::size_t before = pairs.chosen.size();
    const auto add = [&](std::int32_t a, std::int32_t b) {
      pairs.chosen.push_back(a);
      pairs.rejected.push_back(b);
    };
    if (choice == pair_choice::all) {
      for (const std::int32_t a : written)
        for (const std::int32_t b : written)
          if (better(a, b)) add(a, b);
    } else if (!written.empty()) {
      const std::int32_t best = *std::ranges::max_element(written, {}, at);
      if (choice == pair_choice::best_worst) {
        const std::int32_t worst = *std::ranges::min_element(written, {}, at);
        if (better(best, worst)) add(best, worst);
      } else {
        std::erase_if(written, [&](std::int32_t s) { return !better(best, s); });
        if (!written.empty()) add(best, written[static_cast<std::size_t>(random.below(written.size(), g))]);
      }
    }
    pairs.without += pairs.chosen.size() == before;
  }
  return pairs;
}

/// A reference that can become the policy as it now is, or move towards it (`sync_reference`): `reference.follow(policy)`.
template <class R, class P>
concept following_reference = requires(R& r, P& p) { r.follow(p); };

/// What one update saw. NaN: over nothing.
struct online_dpo_metrics {
  double score = 0, score_chosen = 0, score_rejected = 0;  ///< of the reward model, over texts; over pairs
  double kl = 0;        ///< to the reference, summed over a text's own tokens, mean over texts; by the log-probabilities that the sampler gave,
                        ///< NaN where it gave none
  double loss = 0;      ///< mean over the minibatches
  double accuracy = 0;  ///< this and the next five: rows of `preference_metrics`, before each step, over all pairs of all epochs
  double margin = 0, reward_chosen = 0, reward_rejected = 0, logp_chosen = 0, logp_rejected = 0;
  double length = 0, length_chosen = 0, length_rejected = 0;  ///< own tokens, over texts; over pairs: a reward that likes length shows here first
  double ended = 0;     ///< share of texts
  std::int64_t texts = 0, tokens = 0, prompts = 0, without = 0, pairs = 0;  ///< `without`: prompts that gave no pair
  int steps = 0;        ///< 0: there were no pairs, and nothing was trained
  bool followed = false;  ///< the reference followed the policy after this update

  /// `f(name, value)` for each number.
  template <class F>
  void visit(F f) const {
    f("score", score), f("score_chosen", score_chosen), f("score_rejected", score_rejected), f("kl", kl), f("loss", loss);
    f("accuracy", accuracy), f("margin", margin), f("reward_chosen", reward_chosen), f("reward_rejected", reward_rejected);
    f("logp_chosen", logp_chosen), f("logp_rejected", logp_rejected);
    f("length", length), f("length_chosen", length_chosen), f("length_rejected", length_rejected), f("ended", ended);
    f("texts", static_cast<double>(texts)), f("tokens", static_cast<double>(tokens)), f("prompts", static_cast<double>(prompts));
    f("without", static_cast<double>(without)), f("pairs", static_cast<double>(pairs)), f("steps", steps), f("followed", followed ? 1 : 0);
  }
};

/// One update after the other, on a backend in host memory. Owns its scratch memory, no model. What is to be resumed is `state()`, beside the models.
/// `reference` may be `no_model`: then its log-probabilities count as 0.
template <class B, class Link = link::sigmoid, class Divergence = divergence::reverse_kl>
class online_dpo {
 public:
  using real = real_of<B>;
  static_assert(std::is_same_v<space_of<B>, host_space>,
                "plumb: the loop of online_dpo keeps its numbers in host memory; with device memory call choose_pairs and preference: see "
                "docs/algorithms/online_dpo.md");
  using options_type = online_dpo_options<Link, Divergence>;

  /// What a run needs to go on: `restore` it beside the models' own checkpoints.
  struct state_type {
    std::uint64_t updates = 0;
  };

  explicit online_dpo(B& compute, options_type options = {}) : b_(compute), o_(options) { o_.require("online_dpo"); }

  const options_type& options() const { return o_; }
  const state_type& state() const { return state_; }
  void restore(const state_type& s) { state_ = s; }
  /// Learning rate of the updates to come.
  void set_rate(double rate) {
    require_option("online_dpo", "rate", rate, rate >= 0, "0 or positive");
    o_.rate = rate;
  }

  /// Asks the models about `r`, makes pairs, trains. Everything is asked and checked before anything is trained. `r` may hold texts of other writers.
  template <class Policy, class Reference, class Reward>
  online_dpo_metrics update(Policy& policy, Reference& reference, Reward& reward, const rollouts<real>& r) {
    constexpr const char* op = "online_dpo";
    constexpr bool with_reference = !std::is_same_v<Reference, no_model>, follows = following_reference<Reference, Policy>;
    static_assert(check_trainable<Policy, real>() && check_reward<Reward, real>());
    if constexpr (with_reference) static_assert(check_token_scorer<Reference, real>());
    if (o_.reference_every > 0 && !follows)
      fail(message(op) << "option `reference_every` is " << o_.reference_every << ", but the reference has no follow(policy). Nothing was trained.");
    r.require(op);
    auto score = detail::numbers_from<real>(op, "reward.reward", reward.reward(r), r.size(), "texts");
    detail::require_finite_texts(op, "reward.reward", score, r);
    for (std::size_t s = 0; s < score.size(); ++s)
      if (!r.ended[s]) score[s] -= static_cast<real>(o_.unfinished_penalty);
    std::vector<real> ref_logp;
    if constexpr (with_reference) {
      ref_logp = detail::numbers_from<real>(op, "reference.score", reference.score(r), r.own_tokens(), "own tokens");
      detail::require_finite_tokens(op, "reference.score", ref_logp, r);
    }
    const chosen_pairs pairs = choose_pairs(r, score, o_.pairs, o_.gap, {random_stream{o_.seed, 0x706c756d62000007u}.bits(state_.updates), 0});
    online_dpo_metrics m = describe(r, score, ref_logp, pairs);

    auto options = o_.preference;
    options.reference_free = !with_reference;
    std::vector<std::int32_t> all(pairs.chosen.size());
    std::iota(all.begin(), all.end(), 0);
    detail::metric_sums<std::size(preference_metrics)> sums;
    detail::for_each_minibatch(all, o_.epochs, o_.minibatches, o_.seed, state_.updates, [&](std::span<const std::int32_t> rows) {
      options.denominator = static_cast<double>(rows.size());
      detail::gradients_of gradients(policy);
      detail::for_each_micro_batch(rows, o_.micro_batch, [&](std::span<const std::int32_t> part) {
        m.loss += gradient(policy, r, score, ref_logp, pairs, part, options, m.steps, sums);
      });
      gradients.use();
      policy.step(o_.rate);
      ++m.steps;
      return true;
    });
    m.loss /= m.steps;
    double* named[] = {&m.accuracy, &m.margin, &m.reward_chosen, &m.reward_rejected, &m.logp_chosen, &m.logp_rejected};
    for (std::size_t k = 0; k < std::size(named); ++k) *named[k] = sums.value(k);
    ++state_.updates;
    if constexpr (follows) {
      if (o_.reference_every > 0 && state_.updates % static_cast<std::uint64_t>(o_.reference_every) == 0) {
        reference.follow(policy);
        m.followed = true;
      }
    }
    return m;
  }
  /// Writes `options().replies` replies to each start and trains on them; `how.step` is the number of the update. States are `start`s, or what else
  /// the policy writes from; each needs its own `start::prompt`.
  template <class Policy, class Reference, class Reward, std::ranges::contiguous_range States>
  online_dpo_metrics step(Policy& policy, Reference& reference, Reward& reward, const States& starts, sampling how) {
    using state = std::ranges::range_value_t<States>;
    static_assert(check_policy<Policy, real, state>());
    how.step = state_.updates;
    return update(policy, reference, reward, detail::written<real>("online_dpo", policy, detail::repeated(starts, o_.replies), how));
  }

 private:
  static online_dpo_metrics describe(const rollouts<real>& r, const std::vector<real>& score, const std::vector<real>& ref_logp,
                                     const chosen_pairs& pairs) {
    online_dpo_metrics m;
    m.texts = r.size(), m.tokens = r.own_tokens();
    m.prompts = pairs.prompts, m.without = pairs.without, m.pairs = static_cast<std::int64_t>(pairs.chosen.size());
    detail::running_mean of_text, of_length, of_end, kl, of_chosen, of_rejected, length_chosen, length_rejected;
    for (index_t s = 0; s < r.size(); ++s) {
      of_text.add(static_cast<double>(score[static_cast<std::size_t>(s)]));
      of_length.add(static_cast<double>(r.own_count(s)));
      of_end.add(r.ended[static_cast<std::size_t>(s)]);
      if (ref_logp.empty()) continue;
      double sum = 0;
      const auto first = static_cast<std::size_t>(r.own[static_cast<std::size_t>(s)]), count = static_cast<std::size_t>(r.own_count(s));
      for (std::size_t t = first; t < first + count; ++t)
        sum += static_cast<double>(r.logp[t]) - static_cast<double>(ref_logp[t]);
      kl.add(sum);
    }
    for (std::size_t p = 0; p < pairs.chosen.size(); ++p) {
      of_chosen.add(static_cast<double>(score[static_cast<std::size_t>(pairs.chosen[p])]));
      of_rejected.add(static_cast<double>(score[static_cast<std::size_t>(pairs.rejected[p])]));
      length_chosen.add(static_cast<double>(r.own_count(pairs.chosen[p])));
      length_rejected.add(static_cast<double>(r.own_count(pairs.rejected[p])));
    }
    m.score = of_text.value(), m.length = of_length.value(), m.ended = of_end.value(), m.kl = kl.value();
    m.score_chosen = of_chosen.value(), m.score_rejected = of_rejected.value();
    m.length_chosen = length_chosen.value(), m.length_rejected = length_rejected.value();
    return m;
  }

  // Forward and backward pass of some pairs; a text that is in several is passed through once. Gives their part of the minibatch's loss.
  template <class Policy>
  double gradient(Policy& policy, const rollouts<real>& r, const std::vector<real>& score, const std::vector<real>& ref_logp,
                  const chosen_pairs& pairs, std::span<const std::int32_t> part, const preference_options& options, int steps,
                  detail::metric_sums<std::size(preference_metrics)>& sums) {
    std::vector<std::int32_t> rows, chosen, rejected;
    std::vector<real> score_chosen, score_rejected;
    for (const std::int32_t p : part)
      for (const auto& [texts, places, scores] : {std::tuple(&pairs.chosen, &chosen, &score_chosen), {&pairs.rejected, &rejected, &score_rejected}}) {
        const std::int32_t text = (*texts)[static_cast<std::size_t>(p)];
        const auto found = std::find(rows.begin(), rows.end(), text);
        places->push_back(static_cast<std::int32_t>(found - rows.begin()));
        if (found == rows.end()) rows.push_back(text);
        scores->push_back(score[static_cast<std::size_t>(text)]);
      }
    const rollouts<real> x = r.select(rows);
    const auto logp = detail::numbers_from<real>("online_dpo", "policy.forward", policy.forward(x), x.own_tokens(), "own tokens", steps);
    detail::require_finite_tokens("online_dpo", "policy.forward", logp, x, rows, steps);
    const auto ref = ref_logp.empty() ? std::vector<real>() : select_own(r, ref_logp, std::span<const std::int32_t>(rows));
    std::vector<real> d_logp(logp.size());
    real loss = 0, metrics[std::size(preference_metrics)][2] = {};
    preference_inputs<real> in{.logp = logp, .ref_logp = ref, .pairs = {x.layout(), chosen, rejected}};
    if constexpr (reward_aware_link<Link, real>) {
      in.reward_chosen = score_chosen;
      in.reward_rejected = score_rejected;
    }
    preference(b_, scratch_(preference_workspace(b_, in.pairs, x.own_tokens(), options)), in, o_.link, o_.divergence, options,
               {.loss = loss, .d_logp = d_logp, .metrics = view<real, 2>(&metrics[0][0], std::size(preference_metrics), 2)});
    b_.sync();
    policy.backward(x, d_logp);
    sums.add(metrics);
    return static_cast<double>(loss);
  }

  B& b_;
  options_type o_;
  state_type state_{};
  detail::loop_scratch scratch_{};
};

PLUMB_NAMESPACE_END

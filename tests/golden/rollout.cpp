// Whole pieces of trainers: log-probabilities, values and scores in, advantages and returns out.
#include "golden/rollout_calls.hpp"

#include <plumb/presets.hpp>

namespace golden {
namespace {

using plumb::kl_estimator;
namespace presets = plumb::presets;

// Rows of `columns` of which the first `lengths[r]` count.
layout_arrays first_of_rows(const numbers& lengths, std::size_t columns) {
  flags scored;
  for (const double n : lengths)
    for (std::size_t t = 0; t < columns; ++t) scored.push_back(static_cast<double>(t) < n);
  return padded(lengths.size(), columns, scored);
}
numbers flipped(numbers x) {
  for (double& e : x) e = 1 - e;
  return x;
}

// TRL: `sequence_lengths` is the index of the last token; the score lands on the token after it, which has a value too.
constexpr auto trl = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("logprobs", {0, 0});
  const std::size_t rows = logp.shape[0], columns = logp.shape[1], tokens = logp.data.size();
  const numbers ref = c.input("ref_logprobs", logp.shape).data, score = c.input("scores", {rows}).data;
  const numbers last = c.input("sequence_lengths", {rows}).data;
  const layout_arrays replies = first_of_rows(plus(last, numbers(rows, 1)), columns);
  const layout_arrays with_one_more = first_of_rows(plus(last, numbers(rows, 2)), columns);
  const numbers counts = mask_of(replies, tokens), counts_more = mask_of(with_one_more, tokens), pad = flipped(counts);
  const std::string name = c.text("kl_estimator");
  if (name != "k1" && name != "k3") c.fail("`kl_estimator` is " + name);
  const double coefficient = c.number("kl_coef");

  j.output("padding_mask", pad, 0);
  j.output("padding_mask_p1", flipped(counts_more), 0);
  j.output("logprobs", plus(times(logp.data, counts), pad), 0);
  j.output("ref_logprobs", plus(times(ref, counts), pad), 0);
  const numbers kl = call(j, token_kl_call{logp.data, ref, {.estimator = name == "k1" ? kl_estimator::k1 : kl_estimator::k3}, replies}).kl;
  const double kl_terms = largest_of({logp.data, ref, {1}}) * std::max(1.0, largest(kl));
  j.output("kl", kl, kl_terms);
  token_rewards_call r{.kl = kl, .sequences = replies, .options = presets::trl().ppo_rewards(coefficient)};
  j.output("non_score_reward", call(j, r, tokens), coefficient * kl_terms);
  r.score = score;
  numbers rewards = call(j, r, tokens);
  double reward_terms = std::max(coefficient * kl_terms, largest(score));
  const auto padding_to_zero = [](plumb::whiten_options o) {  // TRL does so behind it
    o.unscored = plumb::unscored_values::zero;
    return o;
  };
  if (c.flag("whiten_rewards", false)) {
    const whiten_answer white = call(j, whiten_call{rewards, with_one_more, padding_to_zero(presets::trl().whitening(false))});
    reward_terms = whitened_terms({reward_terms}, white.variance, 1e-8);
    rewards = white.whitened;
  }
  j.output("rewards", rewards, reward_terms);
  const numbers values = times(c.input("values", logp.shape).data, counts_more);
  j.output("values", values, 0);
  const gae_answer y = gae_of(j, {.rewards = rewards, .values = values, .sequences = with_one_more},
                              presets::trl().gae(c.number("gamma"), c.number("lam")));
  const double size = std::max(reward_terms, largest_of({values, y.advantages, y.returns}));
  j.output("returns", y.returns, size);
  const whiten_answer white = call(j, whiten_call{y.advantages, replies, padding_to_zero(presets::trl().whitening())});
  j.output("advantages", white.whitened, whitened_terms({size}, white.variance, 1e-8));
};

// DR-PO's code: the score on the last token, everything else over all positions.
constexpr auto drpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("logprobs", {0, 0});
  const std::size_t rows = logp.shape[0], columns = logp.shape[1], tokens = logp.data.size();
  const numbers ref = c.input("ref_logprobs", logp.shape).data, score = c.input("scores", {rows}).data, values = c.input("values", logp.shape).data;
  const layout_arrays all = whole_rows(rows, columns), replies = first_of_rows(plus(c.input("sequence_lengths", {rows}).data, numbers(rows, 1)), columns);
  const double coefficient = c.number("kl_coef"), kl_terms = largest_of({logp.data, ref});
  const numbers kl = call(j, token_kl_call{logp.data, ref, {.estimator = kl_estimator::k1}, all}).kl;
  j.output("kl", kl, kl_terms);
  const numbers penalty = call(j, token_rewards_call{.kl = kl, .sequences = all, .options = {.kl_coefficient = coefficient}}, tokens);
  j.output("non_score_reward", penalty, coefficient * kl_terms);
  numbers rewards = call(j, token_rewards_call{.score = score, .sequences = replies, .add_to = penalty}, tokens);
  double reward_terms = std::max(coefficient * kl_terms, largest(score));
  if (c.flag("whiten_rewards", false)) {
    const whiten_answer white = call(j, whiten_call{rewards, all, {.shift_mean = false}});
    reward_terms = whitened_terms({reward_terms}, white.variance, 1e-8);
    rewards = white.whitened;
  }
  j.output("rewards", rewards, reward_terms);
  const gae_answer y = gae_of(j, {.rewards = rewards, .values = values, .sequences = all}, {.gamma = c.number("gamma"), .lambda = c.number("lam")});
  const double size = std::max(reward_terms, largest_of({values, y.advantages, y.returns}));
  j.output("returns", y.returns, size);
  const whiten_answer white = call(j, whiten_call{y.advantages, all, {}});
  j.output("advantages", white.whitened, whitened_terms({size}, white.variance, 1e-8));
};

// NeMo-Aligner: masked rewards and values are zeroed, then everything runs over all positions; statistics over the replies.
constexpr auto nemo = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("logprobs", {0, 0});
  const std::size_t rows = logp.shape[0], columns = logp.shape[1], tokens = logp.data.size();
  const numbers ref = c.input("init_logprobs", logp.shape).data, score = c.input("rewards", {rows}).data, values = c.input("values", logp.shape).data;
  const layout_arrays all = whole_rows(rows, columns);
  const layout_arrays replies = nemo_replies(c.input("prompt_lengths", {rows}).data, c.input("response_lengths", {rows}).data, columns);
  const numbers mask = mask_of(replies, tokens);
  j.output("mask", mask, 0);
  const plumb::kl_estimate estimate = presets::nemo_aligner().kl_penalty(c.flag("use_absolute_kl", true));
  const numbers kl = call(j, token_kl_call{logp.data, ref, estimate, replies}).kl;
  const numbers rewards = call(j, token_rewards_call{.kl = kl, .score = score, .sequences = replies,
                                                     .options = {.kl_coefficient = c.number("initial_policy_kl_penalty")}}, tokens);
  const numbers kept = times(values, mask);
  const gae_answer y = gae_of(j, {.rewards = rewards, .values = kept, .sequences = all},
                              presets::nemo_aligner().gae(c.number("discount_factor"), c.number("gae_lambda")));
  const double size = largest_of({logp.data, ref, score, values, y.advantages, y.returns});
  const bool normalize = c.flag("normalize_advantages", false);
  const whiten_answer white = call(j, whiten_call{y.advantages, replies, presets::nemo_aligner().whitening()});
  j.output("advantages", normalize ? white.whitened : y.advantages, normalize ? whitened_terms({size}, white.variance, 1e-8) : size);
  j.output("returns", y.returns, size);
  const plumb::aggregate_options row_means{.mode = plumb::aggregation::sequence_mean, .denominator = static_cast<double>(rows)};
  j.output("metric_init_policy_kl", {aggregate_of(j, kl, replies, row_means)}, size);
  j.output("metric_rewards_with_kl", {aggregate_of(j, rewards, replies, row_means)}, size);
  for (const auto& [name, x] : {std::pair<std::string, numbers>{"advantages", y.advantages}, {"returns", y.returns}, {"values", values}}) {
    const moments_answer m = moments_of(j, x, replies, {});
    j.output("metric_" + name + "_mean", {m.mean}, size);
    j.output("metric_" + name + "_std", {std::sqrt(m.variance)}, size);
  }
};

const bool registered[] = {
    map_cases({"trl_ppo_rollout", "PPOTrainer.train (statements at lines 763-798)", every_case, on_each_backend(trl)}),
    map_cases({"drpo_ppo", "__main__ (statements at lines 808-830)", every_case, on_each_backend(drpo)}),
    map_cases({"nemo_ppo", "PPOTrainer.generate_ppo_data", every_case, on_each_backend(nemo)}),
};

}  // namespace
}  // namespace golden

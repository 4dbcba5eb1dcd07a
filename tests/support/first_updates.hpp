#pragma once
// The first updates of PPO, GRPO, DR-PO, SteerLM 2.0, online DPO and best-of-n distillation on a backend, from the same texts: what two backends may
// differ in is rounding.

#include "support/tabular_models.hpp"

#include <plumb/algorithms/best_of_n.hpp>
#include <plumb/algorithms/drpo.hpp>
#include <plumb/algorithms/online_dpo.hpp>
#include <plumb/algorithms/steerlm2.hpp>

namespace plumb_test {

/// Weights after two updates of each. `Advantage` and options of both loops touch every operation that they can ask of a backend.
template <class B>
std::vector<double> first_updates(B& b) {
  using namespace plumb;
  using real = real_of<B>;
  tabular_policy<double> writer(4, 1);  // drawn in double, whatever is computed in
  const auto written = [&](const std::vector<start>& starts) {
    const auto texts = writer.generate(starts, {.max_new_tokens = 4, .end_token = 0, .seed = 3});
    rollouts<real> r;
    for (index_t s = 0; s < texts.size(); ++s) r.add(texts.start_of(s), texts.own_of(s), {}, texts.ended[static_cast<std::size_t>(s)] != 0);
    return r;
  };
  rollouts<real> r = written(prompts(12, 3, 1));
  std::vector<double> all;
  const auto take = [&](const table& t) {
    const auto weights = t.weights();
    all.insert(all.end(), weights.begin(), weights.end());
  };
  auto reward = hashed_score<real>();
  tabular_policy<real> reference(4, 5);
  {
    tabular_policy<real> policy(4, 1);
    tabular_critic<real> critic(2);
    r.logp = policy.score(r);
    ppo_options<> o;
    o.policy_rate = o.critic_rate = 1;
    o.advantage.whiten_rewards = true;
    o.policy.kl_coefficient = 0.1;
    o.micro_batch = 5;
    ppo loop(b, o);
    for (int i = 0; i < 2; ++i) loop.update(policy, critic, reference, reward, r);
    take(policy.weights);
    take(critic.values);
  }
  const auto without_critic = [&](auto formula, auto surrogate, aggregation aggregate) {
    tabular_policy<real> policy(4, 1);
    ppo_options<decltype(formula), decltype(surrogate)> o;
    o.policy_rate = 1;
    o.policy.aggregate = aggregate;
    o.minibatches = 2;
    ppo loop(b, o);
    for (int i = 0; i < 2; ++i) loop.update(policy, reference, reward, r);
    take(policy.weights);
  };
  without_critic(advantage::grpo{}, surrogate::clip{.high = 0.28}, aggregation::sequence_mean);
  without_critic(advantage::batch_normalized{}, surrogate::gmpo{}, aggregation::sequence_mean);
  without_critic(advantage::reinforce_plus_plus{}, surrogate::clip{}, aggregation::token_mean);
  without_critic(advantage::reinforce_plus_plus_baseline{}, surrogate::cispo{}, aggregation::token_mean);
  {
    tabular_policy<real> pairs(4, 1), best(4, 1);
    online_dpo by_pairs(b, {.preference = {.score = reply_score::mean}, .pairs = pair_choice::all, .micro_batch = 3, .rate = 1});
    best_of_n by_best(b, best_of_n_options<keep::above>{
                             .keep = {-0.5}, .supervised = {.aggregate = aggregation::sequence_mean}, .micro_batch = 2, .rate = 1});
    for (int i = 0; i < 2; ++i) {
      by_pairs.update(pairs, reference, reward, r);
      by_best.update(best, reward, r);
    }
    take(pairs.weights);
    take(best.weights);
  }
  {
    // Texts that go on from the data's replies; some of them are cut off and bootstrapped.
    const std::vector<reset_item> items{{.prompt = {1}, .completions = {{2, 3, 1, 0}}}, {.prompt = {2, 2}, .completions = {{1, 1, 0}}}};
    tabular_policy<real> policy(4, 1);
    tabular_critic<real> critic(2);
    ppo_options<> o;
    o.policy_rate = o.critic_rate = 1;
    ppo loop(b, o);
    for (int i = 0; i < 2; ++i) {
      const auto resets = written(drpo(items, {.proportion = 0.75, .seed = 5}).starts(static_cast<std::uint64_t>(i), 10));
      loop.update(policy, critic, reference, reward, resets);
    }
    take(policy.weights);
    take(critic.values);
  }
  {
    tabular_policy<real> policy(4, 1);
    steerlm2_sample<real> x{.replies = r, .groups = group_by_prompt(r.prompt)};
    const auto summed = [&](const std::vector<real>& logp) {
      const auto sums = text_logp(r, logp);
      return std::vector<real>(sums.begin(), sums.end());
    };
    x.log_q = summed(policy.score(r));
    x.log_p_reply = summed(reference.score(r));
    x.log_p_attributes = reward.reward(r);
    steerlm2_loop<B> loop(b, {.replies = 4, .epochs = 2, .prompts = 2, .micro_batch = 3, .rate = 1});
    loop.weigh(x);
    loop.train(policy, x);
    take(policy.weights);
  }
  return all;
}

/// Largest difference, relative to 1 or the weight.
inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return 1e300;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a[i] - b[i]) / std::max(1.0, std::abs(b[i]));
    most = d <= 1e300 ? std::max(most, d) : 1e300;
  }
  return most;
}

}  // namespace plumb_test

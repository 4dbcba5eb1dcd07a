// The laws of what goes along a reply: rewards per token, returns, advantages from values, weights of what another policy sampled.
#include "support/laws.hpp"

#include <plumb/ops/gae.hpp>
#include <plumb/ops/importance.hpp>
#include <plumb/ops/returns.hpp>
#include <plumb/ops/token_rewards.hpp>

using namespace plumb;
using namespace plumb_test;
using laws::law;

namespace {

constexpr auto reward = +[](double x) { return 2 * x; };
constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };
constexpr auto share = +[](double x) { return 1 / (1 + x * x); };
constexpr auto yes_or_no = +[](double x) { return x < 0.5 ? 1.0 : 0.0; };

/// Each reply for itself.
template <class F>
laws::subject along(const char* name, laws::made out, F f) {
  laws::subject s{.name = name};
  laws::runs(s, f, out);
  s.has_loss = false;
  s.leaves_out = true;
  s.lacks[law::reference] = "rewards and values stand beside no reference's";
  s.lacks[law::exchange] = "a reply has one side";
  return s;
}

}  // namespace

TEST_CASE("laws: GAE, its adjoint, returns of every kind, V-trace") {
  enum { plain, cut_off, next_given };
  for (const int mode : {plain, cut_off, next_given}) {
    CAPTURE(mode);
    auto s = along("returns", {.tokens = 12, .per_sequence = 1}, [=](auto& c) {
      using T = std::remove_cvref_t<decltype(c.loss)>;
      using V = view<const T, 1>;
      const V rewards = c.tokens[0], values = c.tokens[1], log_ratio = c.tokens[2];
      const V discounts = mode == cut_off ? V(c.tokens[3]) : V(), lambdas = mode == cut_off ? V(c.tokens[4]) : V();
      const V next = mode == next_given ? V(c.tokens[5]) : V(), bootstrap = mode == cut_off ? V(c.per_sequence[0]) : V();
      auto& y = c.d_tokens;
      const trajectory_inputs<T> in{rewards, values, next, bootstrap, discounts, lambdas, c.layout};
      auto without_lambdas = in;
      without_lambdas.lambdas = {};
      const gae_options o{.gamma = 0.9, .lambda = 0.8};
      gae(c.compute, c.scratch, in, o, {.advantages = y[0], .returns = y[1]});
      lambda_returns(c.compute, c.scratch, in, o, {.returns = y[2]});
      n_step_returns(c.compute, c.scratch, without_lambdas, {.gamma = 0.9, .steps = 2}, {.returns = y[3]});
      n_step_returns(c.compute, c.scratch, without_lambdas, {.gamma = 0.9}, {.returns = y[4]});
      discounted_returns(c.compute, c.scratch, {.rewards = rewards, .bootstrap = bootstrap, .discounts = discounts, .sequences = c.layout},
                         {.gamma = 0.9}, {.returns = y[5]});
      vtrace(c.compute, c.scratch,
             {.rewards = rewards, .values = values, .next_values = next, .bootstrap = bootstrap, .discounts = discounts, .log_ratio = log_ratio,
              .sequences = c.layout},
             {.gamma = 0.9, .lambda = 0.8, .rho_limit = 1.5}, {.errors = y[6], .targets = y[7], .advantages = y[8], .q = y[9]});
      std::vector<std::int32_t> begin(c.members.size()), end(c.members.size());
      mirrored_bounds(c.layout, rewards.extent(0), begin, end);
      gae_backward(c.compute, c.scratch,
                   {.d_advantages = rewards, .discounts = discounts, .lambdas = lambdas, .sequences = c.layout, .mirrored_begin = begin,
                    .mirrored_end = end},
                   o, {.d_rewards = y[10], .d_values = y[11], .d_bootstrap = c.d_per_sequence[0]});
    });
    s.tokens = {reward, reward, +[](double x) { return 0.5 * x; }, share, share, reward};
    s.per_sequence = {reward};
    laws::check(s);
  }
}

TEST_CASE("laws: rewards per token") {
  for (const score_placement place : {score_placement::last_scored, score_placement::after_last})
    for (const bool adds : {false, true}) {
      auto s = along("token_rewards", {.tokens = 1, .per_sequence = 1}, [=](auto& c) {
        using T = std::remove_cvref_t<decltype(c.loss)>;
        std::vector<std::uint8_t> ended;
        for (const T x : c.per_sequence[1]) ended.push_back(x > 0);
        auto& rewards = c.d_tokens[0];
        if (adds) rewards.assign(rewards.size(), T(0.5));
        token_rewards(c.compute, c.scratch, {.kl = c.tokens[0], .score = c.per_sequence[0], .ended = ended, .sequences = c.layout},
                      {.kl_coefficient = 0.1, .placement = place, .unfinished_scale = 0.5, .unfinished_offset = -1, .score_min = -3, .score_max = 3},
                      {.rewards = rewards, .scores = c.d_per_sequence[0], .mode = adds ? write_mode::add : write_mode::overwrite});
        if (adds)
          for (T& x : rewards) x -= T(0.5);
        for (std::size_t r = 0; r < c.members.size(); ++r)
          if (c.members[r] == 0) c.d_per_sequence[0][r] = 0;  // a score that lands nowhere
      });
      s.tokens = {reward};
      s.per_sequence = {reward, yes_or_no};
      s.sequence_choices = {1};
      s.zero_elsewhere = place == score_placement::last_scored;  // the token after the last one need not count
      laws::check(s);
    }
}

namespace {

/// Of log-ratios between the policy and the sampler.
template <class F>
laws::subject between_policies(const char* name, laws::made out, F f) {
  auto s = along(name, out, f);
  s.tokens = {logp, logp};
  s.references = {{0, 1}};
  s.lacks.erase(law::reference);
  s.metrics_of_ratios = true;
  return s;
}
template <class Correction>
void check_weights(const char* name, Correction correct, double limit) {
  for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum, ratio_level::sequence_mean})
    for (const bool normalize : {false, true}) {
      auto s = between_policies(name, {.tokens = 1}, [=](auto& c) {
        importance_weights(c.compute, c.scratch, {.logp = c.tokens[0], .sampler_logp = c.tokens[1], .batch_mean = {}, .sequences = c.layout}, correct,
                           {.level = level, .normalize = normalize, .log_ratio_limit = limit},
                           {.weights = c.d_tokens[0], .metrics = c.metrics_of(std::size(importance_metrics))});
      });
      if (normalize) s.lacks[law::parts] = "weights are divided by the whole batch's mean";
      laws::check(s);
    }
}
template <class Criterion>
void check_rejection(const char* name, Criterion criterion) {
  for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum, ratio_level::sequence_mean, ratio_level::sequence_any}) {
    auto s = between_policies(name, {.tokens = 1}, [=](auto& c) {
      std::vector<std::uint8_t> kept(c.valid.size());
      reject_tokens(c.compute, c.scratch, {.logp = c.tokens[0], .sampler_logp = c.tokens[1], .kept = {}, .sequences = c.layout}, criterion,
                    {.level = level, .log_ratio_limit = 20}, {.scored = kept, .metrics = c.metrics_of(std::size(rejection_metrics))});
      c.d_tokens[0].assign(kept.begin(), kept.end());
    });
    s.masks = 1;
    laws::check(s);
  }
}

}  // namespace

TEST_CASE("laws: importance weights") {
  check_weights("truncated", correction::truncated{.lower = 0.5}, 0);
  check_weights("masked", correction::masked{}, 0);
  check_weights("uncorrected", correction::none{}, 20);  // without a limit e^1e4 is not finite
}

TEST_CASE("laws: rejection") {
  check_rejection("k1", rejection::k1{});
  check_rejection("k2", rejection::k2{});
  check_rejection("k3", rejection::k3{});
}

TEST_CASE("laws: how far two policies are apart") {
  for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum, ratio_level::sequence_mean})
    laws::check(between_policies("ratio_statistics", {}, [=](auto& c) {
      ratio_statistics(c.compute, c.scratch, {.logp = c.tokens[0], .sampler_logp = c.tokens[1], .sequences = c.layout},
                       {.level = level, .log_ratio_limit = 20}, c.metrics_of(std::size(ratio_statistics_metrics)));
    }));
  auto s = between_policies("off_policy_statistics", {}, [](auto& c) {
    off_policy_statistics(c.compute, c.scratch, {.logp = c.tokens[0], .sampler_logp = c.tokens[1], .sequences = c.layout}, {.log_ratio_limit = 20},
                          c.metrics_of(std::size(off_policy_metrics)));
  });
  s.metrics_of_ratios = false;  // some are perplexities
  enum : std::size_t { perplexity, sampler_perplexity = 2, perplexity_ratio = 8, k3 = 10 };
  s.infinite_metrics = {perplexity, sampler_perplexity, perplexity_ratio, k3};  // e^1e4 is not finite
  laws::check(s);
}

// The laws of losses over tokens: aggregation, supervised, policy gradient at every level, value, KL.
#include "support/laws.hpp"

#include <plumb/objectives/policy_loss.hpp>
#include <plumb/objectives/supervised.hpp>
#include <plumb/objectives/value_loss.hpp>
#include <plumb/ops/kl.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

constexpr auto as_it_is = +[](double x) { return x; };
constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };

template <class F>
laws::subject token_loss(const char* name, std::vector<double (*)(double)> tokens, std::size_t gradients, F f) {
  laws::subject s{.name = name, .tokens = std::move(tokens)};
  s.of_double = laws::caller<double>(f, gradients);
  s.of_float = laws::caller<float>(f, gradients);
  return s;
}

template <class S>
laws::subject policy(const char* name, S surrogate, policy_loss_options options) {
  auto s = token_loss(name, {logp, logp, as_it_is, logp}, 1, [=](auto& c) {
    auto o = options;
    o.denominator = c.denominator;
    c.on.memory.resize(std::size_t{1} << 16);
    policy_loss(c.on.compute, c.on.scratch,
                {.logp = c.tokens[0], .old_logp = c.tokens[1], .advantages = c.tokens[2], .ref_logp = c.tokens[3], .sequences = c.layout}, surrogate, o,
                {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(policy_loss_metrics)), .mode = c.mode});
  });
  if (std::is_same_v<S, surrogate::reinforce>) s.outside_loss.push_back(1);
  if (options.kl_coefficient == 0) s.outside_loss.push_back(3);
  return s;
}

}  // namespace

TEST_CASE("laws: aggregation and the supervised loss") {
  for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum}) {
    laws::check(token_loss("aggregate", {as_it_is}, 1, [=](auto& c) {
      aggregate(c.on.compute, c.on.scratch, {c.tokens[0], c.layout}, {.mode = a, .denominator = c.denominator}, {c.loss, c.d_tokens[0], c.mode});
    }));
    laws::check(token_loss("supervised", {logp}, 1, [=](auto& c) {
      supervised(c.on.compute, c.on.scratch, {c.tokens[0], c.layout}, {.aggregate = a, .denominator = c.denominator},
                 {c.loss, c.d_tokens[0], c.metrics_of(std::size(supervised_metrics)), c.mode});
    }));
  }
}

TEST_CASE("laws: the policy loss at every level") {
  for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean}) {
    laws::check(policy("clip", surrogate::clip{}, {.aggregate = a}));
    laws::check(policy("clip, dual", surrogate::clip{.dual = 3}, {.aggregate = a}));
    laws::check(policy("clip with KL", surrogate::clip{}, {.kl = {.limit = 10}, .kl_coefficient = 0.1, .aggregate = a}));
    laws::check(policy("GSPO", surrogate::clip{3e-4, 4e-4}, {.level = surrogate_level::sequence_mean, .aggregate = a}));
    laws::check(policy("GSPO-token", surrogate::clip{3e-4, 4e-4}, {.level = surrogate_level::sequence_token, .aggregate = a}));
    laws::check(policy("CISPO", surrogate::cispo{}, {.aggregate = a}));
    laws::check(policy("SAPO", surrogate::sapo{}, {.aggregate = a}));
    laws::check(policy("VESPO", surrogate::vespo{}, {.aggregate = a}));
    laws::check(policy("GMPO", surrogate::gmpo{}, {.aggregate = a}));
    laws::check(policy("REINFORCE", surrogate::reinforce{}, {.aggregate = a}));
    laws::check(policy("ratio", surrogate::ratio{}, {.aggregate = a}));
  }
}

TEST_CASE("laws: the value loss") {
  for (const double clip : {0.0, 0.3})
    for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean}) {
      auto s = token_loss("value_loss", {as_it_is, as_it_is, as_it_is}, 1, [=](auto& c) {
        value_loss(c.on.compute, c.on.scratch, {.values = c.tokens[0], .old_values = c.tokens[1], .returns = c.tokens[2], .sequences = c.layout},
                   {.clip_range = clip, .aggregate = a, .denominator = c.denominator},
                   {.loss = c.loss, .d_values = c.d_tokens[0], .metrics = c.metrics_of(std::size(value_loss_metrics)), .mode = c.mode});
      });
      if (clip == 0) s.outside_loss.push_back(1);
      laws::check(s);
    }
}

TEST_CASE("laws: KL as a loss") {
  for (const kl_estimator e : {kl_estimator::k1, kl_estimator::absolute, kl_estimator::k2, kl_estimator::k3}) {
    auto s = token_loss("kl_penalty", {logp, logp}, 1, [=](auto& c) {
      kl_penalty(c.on.compute, c.on.scratch, {c.tokens[0], c.tokens[1], c.layout}, {.estimate = {.estimator = e}, .denominator = c.denominator},
                 {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(kl_penalty_metrics)), .mode = c.mode});
    });
    s.against_reference = true;
    s.extremes = e != kl_estimator::k3;  // e^1e4 is not finite, and nothing limits it here
    laws::check(s);
  }
}

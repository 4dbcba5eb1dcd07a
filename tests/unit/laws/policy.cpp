// The laws of losses over tokens: aggregation, supervised, policy gradient at every level, value, KL.
#include "support/laws.hpp"

#include <plumb/objectives/policy_loss.hpp>
#include <plumb/objectives/supervised.hpp>
#include <plumb/objectives/value_loss.hpp>
#include <plumb/ops/kl.hpp>

using namespace plumb;
using namespace plumb_test;
using laws::law;

namespace {

constexpr auto as_it_is = +[](double x) { return x; };
constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };

template <class F>
laws::subject token_loss(const char* name, std::vector<double (*)(double)> tokens, F f) {
  laws::subject s{.name = name, .tokens = std::move(tokens)};
  laws::runs(s, f, {.tokens = 1});
  s.lacks[law::reference] = "its numbers stand beside no reference's";
  s.lacks[law::exchange] = "a token has one side";
  return s;
}
/// Array `b` is what the log-probabilities `a` are measured against.
void against(laws::subject& s, std::vector<std::pair<std::size_t, std::size_t>> references) {
  s.references = std::move(references);
  s.lacks.erase(law::reference);
}

/// Rows of `policy_loss_metrics`.
enum : std::size_t { approx_kl_k3 = 5, mean_ratio = 7, ratio_min = 8, ratio_max = 9 };

template <class S>
laws::subject policy(const char* name, S surrogate, policy_loss_options options) {
  options.kl.limit = 10;  // of the term, or of its metric
  auto s = token_loss(name, {logp, logp, as_it_is, logp}, [=](auto& c) {
    auto o = options;
    o.denominator = c.denominator;
    policy_loss(c.compute, c.scratch,
                {.logp = c.tokens[0], .old_logp = c.tokens[1], .advantages = c.tokens[2], .ref_logp = c.tokens[3], .sequences = c.layout},
                surrogate, o,
                {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(policy_loss_metrics)), .mode = c.mode});
  });
  if (std::is_same_v<S, surrogate::reinforce>) s.outside_loss.push_back(1);
  if (std::is_same_v<S, surrogate::reinforce> || std::is_same_v<S, surrogate::cispo> || std::is_same_v<S, surrogate::vespo>) {
    s.lacks[law::reference] = "the loss is of the log-probability itself";
  } else {
    against(s, {{0, 1}, {0, 3}});
  }
  if (options.kl_coefficient == 0) s.outside_loss.push_back(3);
  s.infinite_metrics = {approx_kl_k3};  // of the tokens' own log-ratios, without limits
  return s;
}
/// Of the ratio without limits: its metrics are infinite where a log-ratio is 1e4.
template <class S>
laws::subject unlimited(const char* name, S surrogate, policy_loss_options options, bool finite) {
  auto s = policy(name, surrogate, options);
  for (const std::size_t k : {mean_ratio, ratio_min, ratio_max}) s.infinite_metrics.push_back(k);
  if (!finite) s.lacks[law::extremes] = "e^1e4 is not finite, and nothing bounds it: the ratio, and that of a negative advantage";
  return s;
}

}  // namespace

TEST_CASE("laws: aggregation and the supervised loss") {
  for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum}) {
    laws::check(token_loss("aggregate", {as_it_is}, [=](auto& c) {
      aggregate(c.compute, c.scratch, {c.tokens[0], c.layout}, {.mode = a, .denominator = c.denominator}, {c.loss, c.d_tokens[0], c.mode});
    }));
    laws::check(token_loss("supervised", {logp}, [=](auto& c) {
      supervised(c.compute, c.scratch, {c.tokens[0], c.layout}, {.aggregate = a, .denominator = c.denominator},
                 {c.loss, c.d_tokens[0], c.metrics_of(std::size(supervised_metrics)), c.mode});
    }));
  }
}

TEST_CASE("laws: the policy loss at every level") {
  for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean}) {
    const auto at = [&](surrogate_level level) {
      return policy_loss_options{.level = level, .log_ratio_low = 20, .log_ratio_high = 20, .aggregate = a};
    };
    const policy_loss_options limited = at(surrogate_level::of_surrogate), plain{.aggregate = a};
    policy_loss_options with_kl = limited, ratio_in_kl = limited;
    with_kl.kl_coefficient = ratio_in_kl.kl_coefficient = 0.1;
    ratio_in_kl.kl_times_ratio = true;
    laws::check(policy("clip", surrogate::clip{}, limited));
    laws::check(policy("clip with KL", surrogate::clip{}, with_kl));
    laws::check(policy("clip with KL times the ratio", surrogate::clip{}, ratio_in_kl));
    laws::check(policy("GSPO", surrogate::clip{3e-4, 4e-4}, at(surrogate_level::sequence_mean)));
    laws::check(policy("GSPO-token", surrogate::clip{3e-4, 4e-4}, at(surrogate_level::sequence_token)));
    laws::check(policy("GMPO", surrogate::gmpo{}, limited));
    laws::check(policy("ratio", surrogate::ratio{}, limited));
    // Bounded by themselves.
    laws::check(unlimited("clip, dual", surrogate::clip{.dual = 3}, plain, true));
    laws::check(unlimited("CISPO", surrogate::cispo{}, plain, true));
    laws::check(unlimited("SAPO", surrogate::sapo{}, plain, true));
    laws::check(unlimited("VESPO", surrogate::vespo{}, plain, true));
    laws::check(unlimited("REINFORCE", surrogate::reinforce{}, plain, true));
    laws::check(unlimited("ratio, no limit", surrogate::ratio{}, plain, false));
    laws::check(unlimited("clip, no limit", surrogate::clip{}, plain, false));
  }
}

TEST_CASE("laws: the value loss") {
  for (const double clip : {0.0, 0.3})
    for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean}) {
      auto s = token_loss("value_loss", {as_it_is, as_it_is, as_it_is}, [=](auto& c) {
        value_loss(c.compute, c.scratch, {.values = c.tokens[0], .old_values = c.tokens[1], .returns = c.tokens[2], .sequences = c.layout},
                   {.clip_range = clip, .aggregate = a, .denominator = c.denominator},
                   {.loss = c.loss, .d_values = c.d_tokens[0], .metrics = c.metrics_of(std::size(value_loss_metrics)), .mode = c.mode});
      });
      if (clip == 0) s.outside_loss.push_back(1);
      laws::check(s);
    }
}

TEST_CASE("laws: KL as a loss") {
  for (const kl_estimator e : {kl_estimator::k1, kl_estimator::absolute, kl_estimator::k2, kl_estimator::k3})
    for (const double limit : {0.0, 10.0}) {
      auto s = token_loss("kl_penalty", {logp, logp}, [=](auto& c) {
        kl_penalty(c.compute, c.scratch, {c.tokens[0], c.tokens[1], c.layout},
                   {.estimate = {.estimator = e, .limit = limit}, .denominator = c.denominator},
                   {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(kl_penalty_metrics)), .mode = c.mode});
      });
      against(s, {{0, 1}});
      if (e == kl_estimator::k3 && limit == 0) s.lacks[law::extremes] = "e^1e4 is not finite";
      laws::check(s);
    }
}

// Every name of another project reaches a formula of its own; other names are refused. That the formula is the right one is what the golden
// numbers show: their mappings go through these presets.
#include "support/gradients.hpp"

#include <plumb/presets.hpp>
#include <plumb/reflect.hpp>

#include <set>
#include <string>

using namespace plumb;
using plumb_test::desk;
using plumb_test::refusal;

namespace {

/// Each name gives other options than every name before it, but for `same` of them; an unknown one is refused in a sentence with all of them.
template <std::size_t N, class F>
void each_is_its_own(const char* const (&names)[N], const F& f, std::size_t same = 0) {
  std::set<std::string> seen;
  for (const char* name : names) seen.insert(reflect::to_text(f(name)));
  CHECK(seen.size() + same == N);
  const std::string said = refusal([&] { f("no_such_loss"); });
  CHECK(said.find("there is no `no_such_loss`; there are ") != std::string::npos);
  for (const char* name : names) CHECK(said.find(name) != std::string::npos);
}

/// Three pairs of one token each.
struct pairs {
  std::vector<double> logp{-1, -2, -0.5, -3, -2, -1}, ref{-1.5, -0.2, -0.7, -2, -1.2, -2};
  std::vector<std::int32_t> begin{0, 1, 2, 3, 4, 5}, end{1, 2, 3, 4, 5, 6}, chosen{0, 2, 4}, rejected{1, 3, 5};
  preference_inputs<double> inputs() const { return {.logp = logp, .ref_logp = ref, .pairs = {{begin, end, {}}, chosen, rejected}}; }
};
double loss_of(const presets::pair_loss& preset) {
  pairs x;
  desk<double> on;
  std::vector<double> rewards_chosen{1, 2, 0}, rewards_rejected{0, 1, 0.5};
  double loss = 0;
  auto in = x.inputs();
  if (std::visit([](const auto& l) { return reward_aware_link<std::remove_cvref_t<decltype(l)>, double>; }, preset.link)) {
    in.reward_chosen = rewards_chosen;
    in.reward_rejected = rewards_rejected;
  }
  preference(on.compute, on.scratch, in, preset, 3, {.loss = loss});
  return loss;
}
double loss_of(const presets::policy& preset) {
  pairs x;
  desk<double> on;
  std::vector<double> advantages{1, -1, 2, -0.5, 0.3, -2};
  double loss = 0;
  auto in = x.inputs();
  policy_loss(on.compute, on.scratch,
              {.logp = x.logp, .old_logp = x.ref, .advantages = advantages, .ref_logp = x.ref, .sequences = in.pairs.sequences}, preset, 6, {.loss = loss});
  return loss;
}

}  // namespace

TEST_CASE("presets: every name reaches a formula") {
  const presets::trl trl;
  const presets::liger liger;
  const presets::verl verl;
  const presets::nemo_aligner nemo;
  const presets::pair_settings smoothed{.label_smoothing = 0.1};
  each_is_its_own(trl.dpo_losses, [&](std::string_view n) { return trl.dpo(n, smoothed); });
  each_is_its_own(liger.dpo_losses, [&](std::string_view n) { return liger.dpo(n, smoothed); });
  each_is_its_own(nemo.preference_losses, [&](std::string_view n) { return nemo.dpo(n); });
  each_is_its_own(trl.cpo_losses, [&](std::string_view n) { return trl.cpo(n); }, 1);  // AlphaPO is SimPO with an alpha
  each_is_its_own(trl.tpo_losses, [&](std::string_view n) { return trl.tpo(n); });
  each_is_its_own(trl.kto_losses, [&](std::string_view n) { return trl.kto(n); });
  // What tells these apart is the denominator: bnpo and dapo; dr_grpo and luspo.
  each_is_its_own(trl.grpo_losses, [&](std::string_view n) { return trl.grpo(n, {.epsilon_high = 1.2}); }, 2);
  each_is_its_own(verl.policy_losses, [&](std::string_view n) { return verl.policy_loss(n); }, 1);  // gpg is reinforce

  std::set<double> losses;
  for (const char* name : trl.dpo_losses) losses.insert(loss_of(trl.dpo(name, smoothed)));
  CHECK(losses.size() == std::size(trl.dpo_losses) - 1);  // of replies of one token, sigmoid_norm is sigmoid
  for (const char* name : nemo.preference_losses) CHECK(std::isfinite(loss_of(nemo.dpo(name))));
  for (const char* name : trl.grpo_losses) CHECK(std::isfinite(loss_of(trl.grpo(name, {.epsilon_high = 1.2}))));
  for (const char* name : verl.policy_losses) CHECK(std::isfinite(loss_of(verl.policy_loss(name))));
}

TEST_CASE("presets: levels, aggregations, divergences, KL estimators by name") {
  CHECK(presets::trl().grpo("grpo", {}, "sequence").options.level == surrogate_level::sequence_mean);
  CHECK(presets::trl().grpo("grpo", {}, "sequence_token").options.level == surrogate_level::sequence_token);
  CHECK(refusal([] { presets::trl().grpo("grpo", {}, "word"); }) ==
        "plumb: presets: importance_sampling_level: there is no `word`; there are token, sequence, sequence_token.");
  policy_loss_options o;
  presets::verl().aggregate(o, "seq-mean-token-mean");
  CHECK(o.aggregate == aggregation::sequence_mean);
  CHECK(o.length_epsilon == 1e-8);
  CHECK(refusal([&] { presets::verl().aggregate(o, "mean"); }).find("seq-mean-token-sum-norm") != std::string::npos);
  for (const auto& [name, index] : {std::pair{"reverse_kl", 0u}, {"forward_kl", 1u}, {"js_divergence", 2u}, {"alpha_divergence", 3u}})
    CHECK(presets::trl().dpo("sigmoid", {}, name).divergence.index() == index);
  const auto k3 = presets::verl().kl_penalty("low_var_kl+");
  CHECK(k3.straight_through);
  CHECK(k3.estimator == kl_estimator::k3);
  CHECK(k3.limit == 10);
  CHECK(presets::openrlhf().approx_kl("k2").limit == 10);
  CHECK(presets::nemo_aligner().kl_penalty().estimator == kl_estimator::absolute);
  CHECK(presets::verl().importance("sequence").level == ratio_level::sequence_sum);
  CHECK(refusal([] { presets::openrlhf().policy_loss("cispo"); }) == "plumb: presets: openrlhf().policy_loss: there is no `cispo`; there are ppo, gspo.");
}

TEST_CASE("presets: what they are can be read, and compared") {
  CHECK(reflect::difference(presets::trl().ppo(), presets::verl().ppo()) ==
        "surrogate dual: 0 -> 3; options log_ratio_low: 0 -> 20, log_ratio_high: 0 -> 20");
  CHECK(reflect::difference(presets::trl().dpo("sigmoid"), presets::trl().dpo("hinge")) ==
        "link link::sigmoid{beta: 0.1, label_smoothing: 0, margin: 0} -> link::hinge{beta: 0.1, margin: 1}");
  CHECK(reflect::difference(presets::trl().dpo("ipo", {.beta = 0.2}), presets::trl().dpo("ipo")) == "link beta: 0.2 -> 0.1");
  CHECK(reflect::to_text(presets::trl().dpo("hinge", {}, "js_divergence")) ==
        "link::hinge{beta: 0.1, margin: 1}; divergence::js{drop_constant: true}; {score: sum, matching: given, reference_free: false, denominator: 0, "
        "weight: 1}");
  reflect::validate(presets::trl().dpo("hinge"));
  CHECK(refusal([] { reflect::validate(presets::trl().dpo("hinge", {.beta = -1})); }) ==
        "plumb: link::hinge: option `beta` is -1 but must be positive. Nothing was written.");
  CHECK(refusal([] { presets::trl().dpo("sft"); }) == "plumb: presets: trl().dpo: `sft` is `plumb::supervised` over the chosen replies, no loss of pairs.");
  CHECK(reflect::difference(presets::openrlhf().whitening(), presets::trl().whitening()) == "variance: biased -> unbiased, guard: floor -> add, unscored: zero -> transformed");
}

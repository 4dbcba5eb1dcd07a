// KL estimates, rewards with a KL penalty, and controllers of its coefficient.
#include "golden/rollout_calls.hpp"

#include <plumb/presets.hpp>

namespace golden {
namespace {

using plumb::kl_estimate;
using plumb::kl_estimator;

// What cancels: the two log-probabilities, as steeply as the estimate moves with them; in k3 also exp(-x), 1 and x.
numbers estimate_terms(const token_kl_call& in, const token_kl_answer& y) {
  numbers terms;
  for (std::size_t i = 0; i < in.logp.size(); ++i) {
    const double size = std::max(std::fabs(in.logp[i]), std::fabs(in.ref_logp[i])), x = std::fabs(in.logp[i] - in.ref_logp[i]);
    const bool k2 = in.estimate.estimator == kl_estimator::k2, k3 = in.estimate.estimator == kl_estimator::k3;
    terms.push_back(std::max(k3 ? 1.0 : 0.0, size * (k2 ? x : std::max(1.0, std::fabs(y.slope[i])))));
  }
  return terms;
}
// `step` is what numbers of size 1 are rounded to: where a log-ratio vanishes in it, |x| may have either slope.
numbers slope_terms(const token_kl_call& in, const token_kl_answer& y, const numbers& cotangent, double step) {
  numbers terms;
  for (std::size_t i = 0; i < in.logp.size(); ++i) {
    const double size = std::max({1.0, std::fabs(in.logp[i]), std::fabs(in.ref_logp[i])});
    const bool lost = in.estimate.estimator == kl_estimator::absolute && std::fabs(in.logp[i] - in.ref_logp[i]) < step * size;
    terms.push_back(std::fabs(cotangent[i]) * (lost ? 2 / step : std::max(1.0, std::fabs(y.slope[i])) * size));
  }
  return terms;
}

template <class Job>
void compare_estimate(Job& j, const token_kl_call& in, const std::string& logp, const std::string& ref_logp) {
  const golden_case& c = j.c;
  const token_kl_answer y = call(j, in);
  j.output("kl", y.kl, estimate_terms(in, y));
  if (c.gradients.empty()) return;
  const numbers& cotangent = c.input("cot_kl", c.input(logp, {0, 0}).shape).data;
  const numbers gradient = times(cotangent, y.slope), terms = slope_terms(in, y, cotangent, std::numeric_limits<typename Job::real>::epsilon());
  j.gradient("d_kl/d_" + logp, gradient, terms);
  if (c.gradients.count("d_kl/d_" + ref_logp) > 0) j.gradient("d_kl/d_" + ref_logp, scaled(gradient, -1), terms);
}

kl_estimate verl_estimate(const golden_case& c) { return plumb::presets::verl().kl_penalty(c.text("kl_penalty")); }

constexpr auto verl_penalty = [](auto& j) {
  const array& logp = j.c.input("logprob", {0, 0});
  compare_estimate(j, {.logp = logp.data, .ref_logp = j.c.input("ref_logprob", logp.shape).data, .estimate = verl_estimate(j.c)}, "logprob",
                   "ref_logprob");
};

constexpr auto openrlhf_kl = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("log_probs", {0, 0});
  const kl_estimate estimate = plumb::presets::openrlhf().approx_kl(c.text("kl_estimator"));
  compare_estimate(j, {.logp = logp.data, .ref_logp = c.input("log_probs_base", logp.shape).data, .estimate = estimate}, "log_probs", "log_probs_base");
};

constexpr auto nemo_penalty = [](auto& j) {
  const array& logp = j.c.input("log_probs_a", {0, 0});
  const kl_estimate estimate = plumb::presets::nemo_aligner().kl_penalty(j.c.flag("use_absolute_kl", true));
  compare_estimate(j, {.logp = logp.data, .ref_logp = j.c.input("log_probs_b", logp.shape).data, .estimate = estimate}, "log_probs_a", "log_probs_b");
};

// verl's scores per token are there before the penalty is added.
constexpr auto verl_rewards = [](auto& j) {
  const golden_case& c = j.c;
  const array& scores = c.input("token_level_scores", {0, 0});
  const token_kl_call kl{.logp = c.input("old_log_prob", scores.shape).data, .ref_logp = c.input("ref_log_prob", scores.shape).data,
                         .estimate = {.estimator = kl_estimator::k1}};
  const numbers rewards = call(j, token_rewards_call{.kl = call(j, kl).kl, .sequences = whole_rows(scores.shape[0], scores.shape[1]),
                                                     .options = {.kl_coefficient = c.number("kl_ratio")}, .add_to = scores.data}, scores.data.size());
  j.output("rewards", rewards, largest_of({kl.logp, kl.ref_logp, scores.data}));
};

constexpr auto verl_apply = [](auto& j) {
  const golden_case& c = j.c;
  const array& scores = c.input("token_level_scores", {0, 0});
  const std::size_t rows = scores.shape[0], tokens = scores.data.size();
  const layout_arrays layout = padded(rows, scores.shape[1], to_flags(c.input("response_mask", scores.shape).data));
  const token_kl_call in{.logp = c.input("old_log_probs", scores.shape).data, .ref_logp = c.input("ref_log_prob", scores.shape).data,
                         .estimate = verl_estimate(c), .sequences = layout};
  const token_kl_answer kl = call(j, in);
  const double coefficient = c.number("kl_coef");
  const token_rewards_call penalised{.kl = kl.kl, .sequences = layout, .options = {.kl_coefficient = coefficient}, .add_to = scores.data};
  const numbers rewards = call(j, penalised, tokens);
  const double terms = std::max(1.0, largest(estimate_terms(in, kl)));
  j.output("token_level_rewards", rewards, std::max(largest(scores.data), coefficient * terms));
  const double measured = aggregate_of(j, kl.kl, layout,
                                       {.mode = plumb::aggregation::sequence_mean, .denominator = static_cast<double>(rows), .length_epsilon = 1e-8});
  j.output("current_kl", {measured}, terms);
  j.output("coeff_used", {coefficient}, 0);
  const std::string kind = c.text("controller");
  double after = 0;
  if (kind == "fixed") {
    plumb::fixed_kl_controller controller{coefficient};
    controller.update(measured, static_cast<double>(rows));
    after = controller.coefficient;
  } else if (kind == "adaptive") {
    auto controller = plumb::presets::verl().kl_controller(coefficient, c.number("target_kl"), c.number("horizon"));
    controller.update(measured, static_cast<double>(rows));
    after = controller.coefficient;
  } else {
    c.fail("`controller` is " + kind);
  }
  j.output("coeff_after", {after}, coefficient * terms);
};

// OpenRLHF: the penalty is at every position; the score at the last that counts.
constexpr auto openrlhf_reward = [](auto& j) {
  const golden_case& c = j.c;
  const array& kl = c.input("kl", {0, 0});
  const std::size_t rows = kl.shape[0], tokens = kl.data.size();
  const numbers score = c.input("r", {rows}).data;
  const double coefficient = std::max(0.0, c.number("kl_coef"));
  plumb::token_rewards_options options{};
  if (c.is_set("reward_clip_range")) {
    options.score_min = c.options.at("reward_clip_range").at(0).template get<double>();
    options.score_max = c.options.at("reward_clip_range").at(1).template get<double>();
  }
  const token_rewards_call everywhere{.kl = kl.data, .sequences = whole_rows(rows, kl.shape[1]), .options = {.kl_coefficient = coefficient}};
  const numbers penalty = call(j, everywhere, tokens);
  const layout_arrays layout = padded(rows, kl.shape[1], to_flags(c.input("action_mask", kl.shape).data));
  j.output("reward", call(j, token_rewards_call{.score = score, .sequences = layout, .options = options, .add_to = penalty}, tokens),
           std::max(largest(score), coefficient * largest(kl.data)));
};

// NeMo-Aligner: lengths count the prompt; column t is about token t + 1; the penalty is at every position.
constexpr auto nemo_rewards = [](auto& j) {
  const golden_case& c = j.c;
  const array& kl = c.input("kl", {0, 0});
  const std::size_t rows = kl.shape[0], tokens = kl.data.size();
  const numbers score = c.input("rewards", {rows}).data;
  const layout_arrays replies = nemo_replies(c.input("prompt_lengths", {rows}).data, c.input("response_lengths", {rows}).data, kl.shape[1]);
  const double coefficient = c.number("penalty_factor");
  const token_rewards_call everywhere{.kl = kl.data, .sequences = whole_rows(rows, kl.shape[1]), .options = {.kl_coefficient = coefficient}};
  const numbers penalty = call(j, everywhere, tokens);
  j.output("rewards_sequence", call(j, token_rewards_call{.score = score, .sequences = replies, .add_to = penalty}, tokens),
           std::max(largest(score), coefficient * largest(kl.data)));
  j.output("mask", mask_of(replies, tokens), 0);
};

constexpr auto controller = [](auto& j) {
  const golden_case& c = j.c;
  const array& kl = c.input("kl", {0});
  const numbers& samples = c.input("n_steps", kl.shape).data;
  plumb::adaptive_kl_controller k{.coefficient = c.number("init_kl_coef"), .target = c.number("target"), .horizon = c.number("horizon")};
  numbers values;
  for (std::size_t i = 0; i < kl.data.size(); ++i) {
    k.update(kl.data[i], samples[i]);
    values.push_back(k.coefficient);
  }
  j.output("value", values, 0);
};

const bool registered[] = {
    map_cases({"verl_kl", "kl_penalty", every_case, on_each_backend(verl_penalty)}),
    map_cases({"verl_kl", "compute_rewards", every_case, on_each_backend(verl_rewards)}),
    map_cases({"verl_kl", "apply_kl_penalty", every_case, on_each_backend(verl_apply)}),
    map_cases({"openrlhf_kl", "compute_approx_kl", every_case, on_each_backend(openrlhf_kl)}),
    map_cases({"openrlhf_kl", "compute_reward", every_case, on_each_backend(openrlhf_reward)}),
    map_cases({"nemo_kl_rewards", "calculate_kl_penalty", every_case, on_each_backend(nemo_penalty)}),
    map_cases({"nemo_kl_rewards", "calculate_ppo_rewards, create_mask", every_case, on_each_backend(nemo_rewards)}),
    map_cases({"kl_controllers_drpo", "AdaptiveKLController.update", every_case, on_each_backend(controller)}),
    map_cases({"kl_controllers_openrlhf", "AdaptiveKLController.update", every_case, on_each_backend(controller)}),
    map_cases({"kl_controllers_verl", "AdaptiveKLController.update", every_case, on_each_backend(controller)}),
};

}  // namespace
}  // namespace golden

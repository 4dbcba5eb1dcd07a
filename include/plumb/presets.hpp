#pragma once
// The conventions of other projects by their own words: `presets::trl().dpo("hinge")`, `presets::verl().policy_loss("gspo")`. A preset is what you could
// have written yourself: types and options of plumb, to be printed and compared with reflect.hpp. Opt-in; no other header includes it.
//
// As of TRL 1.10.0.dev0 (f2cd577), verl 0.8.0.dev (b178a3c), OpenRLHF 0.11.0 (3c3be62), NeMo-Aligner 0.8.0rc0 (af2b3bd), Liger 0.8.2 (ead96b6).
// Denominators are not part of a preset: they belong to a batch. docs/peers.md says what each peer counts.

#include <plumb/algorithms/kl_controller.hpp>
#include <plumb/objectives/cpo.hpp>
#include <plumb/objectives/kto.hpp>
#include <plumb/objectives/policy_loss.hpp>
#include <plumb/objectives/preference.hpp>
#include <plumb/objectives/simpo.hpp>
#include <plumb/objectives/tpo.hpp>
#include <plumb/objectives/value_loss.hpp>
#include <plumb/ops/gae.hpp>
#include <plumb/ops/gpg.hpp>
#include <plumb/ops/group_advantage.hpp>
#include <plumb/ops/importance.hpp>
#include <plumb/ops/opo.hpp>
#include <plumb/ops/passk.hpp>
#include <plumb/ops/reinforce_plus_plus.hpp>
#include <plumb/ops/several_rewards.hpp>
#include <plumb/ops/token_rewards.hpp>
#include <plumb/ops/whiten.hpp>

#include <string_view>
#include <variant>

PLUMB_NAMESPACE_BEGIN

namespace presets {

/// Links, divergences and surrogates that a configuration names at run time.
using any_link = std::variant<link::sigmoid, link::robust, link::hinge, link::ipo, link::exo_pair, link::nca_pair, link::bco_pair, link::sppo_hard,
                              link::apo_zero, link::apo_down, link::discopop, link::rpo_squared, link::rpo_backward_kl, link::rpo_forward_kl>;
/// See `any_link`.
using any_divergence = std::variant<divergence::reverse_kl, divergence::forward_kl, divergence::js, divergence::alpha>;
/// See `any_link`.
using any_surrogate = std::variant<surrogate::clip, surrogate::ratio, surrogate::cispo, surrogate::sapo, surrogate::vespo, surrogate::gmpo, surrogate::reinforce>;

/// What TRL's CPO trainer minimises, by `cpo` or by `simpo`.
using any_cpo = std::variant<cpo_options<link::sigmoid>, cpo_options<link::hinge>, cpo_options<link::ipo>, simpo_options>;
/// What TRL's TPO trainer minimises, by `tpo`.
using any_tpo = std::variant<tpo_options<link::sigmoid>, tpo_options<link::hinge>, tpo_options<link::ipo>>;

/// A loss of pairs: `preference(compute, scratch, inputs, preset, outputs)`.
struct pair_loss {
  any_link link{};
  any_divergence divergence{};
  preference_options options{};
};
/// A policy-gradient loss: `policy_loss(compute, scratch, inputs, preset, outputs)`.
struct policy {
  any_surrogate surrogate{};
  policy_loss_options options{};
};

/// Numbers of a DPO run, by the names that TRL and Liger share.
struct pair_settings {
  double beta = 0.1;
  double label_smoothing = 0;
  double discopop_tau = 0.05;
  double f_alpha_divergence_coef = 0.5;

  void require(const char* op) const {
    require_option(op, "beta", beta, beta > 0, "positive");
    require_option(op, "label_smoothing", label_smoothing, label_smoothing >= 0 && label_smoothing <= 0.5, "in [0, 0.5]");
    require_option(op, "discopop_tau", discopop_tau, discopop_tau > 0, "positive");
    require_option(op, "f_alpha_divergence_coef", f_alpha_divergence_coef, true, "a number");
  }
};
/// Numbers of a CPO, SimPO or TPO run, by TRL's names.
struct free_settings {
  double beta = 0.1;
  double label_smoothing = 0;
  double gamma = 0.5;       ///< `simpo_gamma`, `tpo_l_gamma`
  double alpha = 0;         ///< AlphaPO's
  double likelihood = 1;    ///< `cpo_alpha`, `tpo_alpha`

  void require(const char* op) const {
    require_option(op, "beta", beta, beta > 0, "positive");
    require_option(op, "label_smoothing", label_smoothing, label_smoothing >= 0 && label_smoothing <= 0.5, "in [0, 0.5]");
    require_option(op, "gamma", gamma, true, "a number");
    require_option(op, "alpha", alpha, true, "a number");
    require_option(op, "likelihood", likelihood, likelihood >= 0, "0 or positive");
  }
};
/// Numbers of a KTO run, by TRL's names.
struct unpaired_settings {
  double beta = 0.1;
  double desirable_weight = 1;
  double undesirable_weight = 1;

  void require(const char* op) const {
    require_option(op, "beta", beta, beta > 0, "positive");
    require_option(op, "desirable_weight", desirable_weight, desirable_weight >= 0, "0 or positive");
    require_option(op, "undesirable_weight", undesirable_weight, undesirable_weight >= 0, "0 or positive");
  }
};
/// Numbers of a GRPO run, by TRL's names.
struct grpo_settings {
  double epsilon = 0.2;
  double epsilon_high = 0.2;
  double delta = 0;  ///< 0: none
  double beta = 0;   ///< of the KL term
  bool use_bias_correction_kl = false;
  double sapo_temperature_pos = 1, sapo_temperature_neg = 1.05;
  double vespo_k_pos = 2, vespo_lambda_pos = 3, vespo_k_neg = 3, vespo_lambda_neg = 2;

  void require(const char* op) const {
    require_option(op, "epsilon", epsilon, epsilon >= 0, "0 or positive");
    require_option(op, "epsilon_high", epsilon_high, epsilon_high >= 0, "0 or positive");
    require_option(op, "delta", delta, delta == 0 || delta > 1, "0 (none) or above 1");
    require_option(op, "beta", beta, true, "a number");
    require_option(op, "sapo_temperature_pos", sapo_temperature_pos, sapo_temperature_pos > 0, "positive");
    require_option(op, "sapo_temperature_neg", sapo_temperature_neg, sapo_temperature_neg > 0, "positive");
    require_option(op, "vespo_k_pos", vespo_k_pos, vespo_k_pos >= 0, "0 or positive");
    require_option(op, "vespo_lambda_pos", vespo_lambda_pos, vespo_lambda_pos >= 0, "0 or positive");
    require_option(op, "vespo_k_neg", vespo_k_neg, vespo_k_neg >= 0, "0 or positive");
    require_option(op, "vespo_lambda_neg", vespo_lambda_neg, vespo_lambda_neg >= 0, "0 or positive");
  }
};
/// Numbers of verl's policy losses, by its names.
struct verl_settings {
  double clip_ratio_low = 0.2;
  double clip_ratio_high = 0.2;
  double clip_ratio_c = 3;
  double tau_pos = 1, tau_neg = 1.05;
  double ppo_kl_coef = 0.1;  ///< of `kl_cov`

  void require(const char* op) const {
    require_option(op, "clip_ratio_low", clip_ratio_low, clip_ratio_low >= 0, "0 or positive");
    require_option(op, "clip_ratio_high", clip_ratio_high, clip_ratio_high >= 0, "0 or positive");
    require_option(op, "clip_ratio_c", clip_ratio_c, clip_ratio_c > 1, "above 1");
    require_option(op, "tau_pos", tau_pos, tau_pos > 0, "positive");
    require_option(op, "tau_neg", tau_neg, tau_neg > 0, "positive");
    require_option(op, "ppo_kl_coef", ppo_kl_coef, true, "a number");
  }
};

namespace detail {
template <std::size_t N>
[[noreturn]] void unknown(const char* op, std::string_view got, const char* const (&known)[N]) {
  char text[64] = {};
  for (std::size_t i = 0; i < got.size() && i + 1 < sizeof text; ++i) text[i] = got[i];
  message m(op);
  m << "there is no `" << static_cast<const char*>(text) << "`; there are ";
  for (std::size_t i = 0; i < N; ++i) m << (i > 0 ? ", " : "") << known[i];
  fail(m << ".");
}
inline surrogate_level level_of(std::string_view name) {
  if (name == "token") return surrogate_level::token;
  if (name == "sequence") return surrogate_level::sequence_mean;
  if (name == "sequence_token") return surrogate_level::sequence_token;
  static constexpr const char* known[] = {"token", "sequence", "sequence_token"};
  unknown("presets: importance_sampling_level", name, known);
}
}  // namespace detail

/// TRL.
struct trl {
  /// `DPOConfig.loss_type`. TRL's sigmoid does not look at `label_smoothing`; `sft` is `supervised` over the chosen replies; several losses are
  /// several calls with `weight`; `apo_down` with another divergence than reverse KL is two, and refused here: see `apo_down_margin`.
  pair_loss dpo(std::string_view loss_type = "sigmoid", const pair_settings& s = {}, std::string_view f_divergence_type = "reverse_kl") const {
    pair_loss y{.divergence = f_divergence(f_divergence_type, s)};
    y.options.score = reply_score::sum;
    if (loss_type == "sigmoid") {
      y.link = link::sigmoid{.beta = s.beta};
    } else if (loss_type == "sigmoid_norm") {
      y.link = link::sigmoid{.beta = s.beta};
      y.options.score = reply_score::mean;
    } else if (loss_type == "hinge") {
      y.link = link::hinge{.beta = s.beta};
    } else if (loss_type == "ipo") {
      y.link = link::ipo{.beta = s.beta};
      y.options.score = reply_score::mean;
    } else if (loss_type == "exo_pair") {
      y.link = link::exo_pair{.beta = s.beta, .label_smoothing = s.label_smoothing};
    } else if (loss_type == "nca_pair") {
      y.link = link::nca_pair{.beta = s.beta};
    } else if (loss_type == "robust") {
      y.link = link::robust{.beta = s.beta, .label_smoothing = s.label_smoothing};
    } else if (loss_type == "bco_pair") {
      y.link = link::bco_pair{.beta = s.beta};
    } else if (loss_type == "sppo_hard") {
      y.link = link::sppo_hard{.beta = s.beta};
    } else if (loss_type == "apo_zero") {
      y.link = link::apo_zero{.beta = s.beta};
      y.divergence = divergence::reverse_kl{};
    } else if (loss_type == "apo_down") {
      if (!std::holds_alternative<divergence::reverse_kl>(y.divergence))
        fail(message("presets: trl().dpo") << "`apo_down` with another divergence than reverse_kl is two calls, the second with write_mode::add: "
                                              "`apo_down_chosen(settings)` and `apo_down_margin(settings, f_divergence_type)`.");
      y.link = link::apo_down{.beta = s.beta};
    } else if (loss_type == "discopop") {
      y.link = link::discopop{.beta = s.beta, .tau = s.discopop_tau};
    } else if (loss_type == "aot" || loss_type == "aot_unpaired") {
      y.link = link::sigmoid{.beta = s.beta, .label_smoothing = s.label_smoothing};
      y.options.matching = loss_type == "aot" ? pair_matching::ranked_margins : pair_matching::ranked;
      y.divergence = divergence::reverse_kl{};
    } else if (loss_type == "sft") {
      fail(message("presets: trl().dpo") << "`sft` is `plumb::supervised` over the chosen replies, no loss of pairs.");
    } else {
      detail::unknown("presets: trl().dpo", loss_type, dpo_losses);
    }
    return y;
  }
  /// The halves of `apo_down` under a divergence, two calls, the second with `write_mode::add`: TRL takes the first term of log-ratios whatever the
  /// divergence, the margin of the divergence's scores.
  pair_loss apo_down_chosen(const pair_settings& s = {}) const { return {.link = link::apo_down{.beta = s.beta, .margin_share = 0}}; }
  pair_loss apo_down_margin(const pair_settings& s, std::string_view f_divergence_type) const {
    return {.link = link::apo_down{.beta = s.beta, .chosen_share = 0}, .divergence = f_divergence(f_divergence_type, s)};
  }
  /// `DPOConfig.f_divergence_type`: constants are dropped, alpha's exponent stops at 80 (half precision: 11).
  any_divergence f_divergence(std::string_view f_divergence_type, const pair_settings& s = {}) const {
    if (f_divergence_type == "reverse_kl") return divergence::reverse_kl{};
    if (f_divergence_type == "forward_kl") return divergence::forward_kl{.max_exponent = 0};
    if (f_divergence_type == "js_divergence") return divergence::js{.drop_constant = true};
    if (f_divergence_type == "alpha_divergence")
      return divergence::alpha{.coefficient = s.f_alpha_divergence_coef, .max_exponent = 80, .drop_constant = true};
    static constexpr const char* known[] = {"reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"};
    detail::unknown("presets: trl().f_divergence", f_divergence_type, known);
  }
  static constexpr const char* dpo_losses[] = {"sigmoid",   "sigmoid_norm", "hinge",    "ipo",      "exo_pair", "nca_pair", "robust",
                                               "bco_pair",  "sppo_hard",    "apo_zero", "apo_down", "discopop", "aot",      "aot_unpaired"};

  /// `CPOConfig.loss_type`, and `alphapo`. The likelihood's denominator is the number of chosen tokens.
  any_cpo cpo(std::string_view loss_type = "sigmoid", const free_settings& s = {}) const {
    const likelihood_term likelihood{.weight = s.likelihood};
    if (loss_type == "simpo" || loss_type == "alphapo" || (loss_type == "sigmoid" && s.alpha != 0))
      return simpo_options{.beta = s.beta, .gamma = loss_type == "sigmoid" ? 0 : s.gamma, .label_smoothing = s.label_smoothing, .alpha = s.alpha,
                           .likelihood = likelihood};
    if (loss_type == "sigmoid") return cpo_options<link::sigmoid>{.link = {.beta = s.beta, .label_smoothing = s.label_smoothing}, .likelihood = likelihood};
    if (loss_type == "hinge") return cpo_options<link::hinge>{.link = {.beta = s.beta}, .likelihood = likelihood};
    if (loss_type == "ipo") return cpo_options<link::ipo>{.link = {.beta = s.beta}, .score = reply_score::mean, .likelihood = likelihood};
    detail::unknown("presets: trl().cpo", loss_type, cpo_losses);
  }
  static constexpr const char* cpo_losses[] = {"sigmoid", "hinge", "ipo", "simpo", "alphapo"};
  /// `TPOConfig.loss_type`. The likelihood's denominator is the number of tokens of the best replies.
  any_tpo tpo(std::string_view loss_type = "sigmoid", const free_settings& s = {}) const {
    const likelihood_term likelihood{.weight = s.likelihood};
    if (loss_type == "sigmoid") return tpo_options<link::sigmoid>{.link = {.beta = s.beta, .label_smoothing = s.label_smoothing}, .likelihood = likelihood};
    if (loss_type == "tpo-l")
      return tpo_options<link::sigmoid>{.link = {.beta = s.beta, .label_smoothing = s.label_smoothing, .margin = s.gamma}, .score = reply_score::mean,
                                        .likelihood = likelihood};
    if (loss_type == "hinge") return tpo_options<link::hinge>{.link = {.beta = s.beta}, .likelihood = likelihood};
    if (loss_type == "ipo") return tpo_options<link::ipo>{.link = {.beta = s.beta}, .score = reply_score::mean, .likelihood = likelihood};
    detail::unknown("presets: trl().tpo", loss_type, tpo_losses);
  }
  static constexpr const char* tpo_losses[] = {"sigmoid", "hinge", "ipo", "tpo-l"};
  /// `KTOConfig.loss_type`.
  kto_options kto(std::string_view loss_type = "kto", const unpaired_settings& s = {}) const {
    if (loss_type != kto_losses[0] && loss_type != kto_losses[1]) detail::unknown("presets: trl().kto", loss_type, kto_losses);
    return {.beta = s.beta, .desirable_weight = s.desirable_weight, .undesirable_weight = s.undesirable_weight, .kl_free = loss_type == kto_losses[1]};
  }
  static constexpr const char* kto_losses[] = {"kto", "apo_zero_unpaired"};

  /// `GRPOConfig.loss_type`, and `gmpo`; GSPO is `importance_sampling_level` `sequence`. `epsilon_high` is CISPO's cap itself. A `delta` below
  /// `1 + epsilon_high` bounds positive advantages too.
  policy grpo(std::string_view loss_type = "dapo", const grpo_settings& s = {}, std::string_view importance_sampling_level = "token") const {
    policy y{.surrogate = surrogate::clip{.low = s.epsilon,
                                          .high = s.delta > 0 && s.delta - 1 < s.epsilon_high ? s.delta - 1 : s.epsilon_high,
                                          .dual = s.delta > 0 ? (s.delta < 1 + s.epsilon_high ? 1 + s.epsilon_high : s.delta) : 0}};
    policy_loss_options& o = y.options;
    o.kl_coefficient = s.beta;
    o.kl_times_ratio = s.use_bias_correction_kl;
    o.level = detail::level_of(importance_sampling_level);
    if (loss_type == "grpo" || loss_type == "sapo" || loss_type == "gmpo") {
      o.aggregate = aggregation::sequence_mean;
    } else if (loss_type == "dr_grpo" || loss_type == "luspo") {
      o.aggregate = aggregation::sequence_sum;
    } else if (loss_type != "bnpo" && loss_type != "dapo" && loss_type != "cispo" && loss_type != "vespo") {
      detail::unknown("presets: trl().grpo", loss_type, grpo_losses);
    }
    if (loss_type == "cispo") y.surrogate = surrogate::cispo{.low = 1, .high = s.epsilon_high - 1};
    if (loss_type == "sapo") y.surrogate = surrogate::sapo{.tau_positive = s.sapo_temperature_pos, .tau_negative = s.sapo_temperature_neg};
    if (loss_type == "vespo") {
      y.surrogate = surrogate::vespo{.k_positive = s.vespo_k_pos, .lambda_positive = at_least(s.vespo_lambda_pos), .k_negative = s.vespo_k_neg,
                                     .lambda_negative = at_least(s.vespo_lambda_neg)};
      o.level = surrogate_level::sequence_sum;
      o.log_ratio_low = -math::log(1e-8);
      o.log_ratio_high = 20;
    }
    if (loss_type == "gmpo") {
      y.surrogate = surrogate::gmpo{.low = s.epsilon, .high = s.epsilon_high};
      o.level = surrogate_level::sequence_mean;
    }
    return y;
  }
  static constexpr const char* grpo_losses[] = {"grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo", "gmpo"};
  /// `RLOOTrainer`: the ratio of whole replies.
  policy rloo(double epsilon_low = 0.2, double epsilon_high = 0.2) const {
    return {surrogate::clip{.low = epsilon_low, .high = epsilon_high},
            {.level = surrogate_level::sequence_sum, .aggregate = aggregation::sequence_mean}};
  }
  /// `PPOTrainer`.
  policy ppo(double cliprange = 0.2) const {
    return {surrogate::clip{.low = cliprange, .high = cliprange}};
  }
  /// `PPOTrainer`: the score lands one position after the last token, where there is one.
  token_rewards_options ppo_rewards(double kl_coef = 0.05) const { return {.kl_coefficient = kl_coef, .placement = score_placement::after_last}; }
  /// `PPOTrainer`'s critic.
  value_loss_options value_loss(double cliprange_value = 0.2, double vf_coef = 0.1) const { return {.clip_range = cliprange_value, .weight = vf_coef}; }
  gae_options gae(double gamma = 1, double lam = 0.95) const { return {.gamma = gamma, .lambda = lam}; }
  /// `masked_whiten` (rewards: `shift_mean = false`). `PPOTrainer` sets padding to 0 behind it: `unscored_values::zero`.
  whiten_options whitening(bool shift_mean = true) const {
    return {.shift_mean = shift_mean, .variance = variance_estimator::unbiased, .unscored = unscored_values::transformed};
  }
  /// `GRPOTrainer`, `scale_rewards="group"`.
  advantage::grpo group_advantage() const { return {.epsilon = 1e-4}; }
  /// `scale_rewards="batch"`.
  advantage::batch_scaled batch_advantage() const { return {.epsilon = 1e-4}; }
  /// `scale_rewards="none"`.
  advantage::centered centered_advantage() const { return {}; }
  /// `multi_objective_aggregation="normalize_then_sum"`.
  gdpo_options gdpo() const { return {.each = {.epsilon = 1e-4}, .whole = {.epsilon = 1e-4}}; }
  /// `RLOOTrainer`, and its `normalize_advantages`: of those advantages, over the batch.
  advantage::rloo rloo_advantage() const { return {}; }
  advantage::batch_normalized normalize_advantages() const { return {.epsilon = 1e-4}; }
  /// `vllm_importance_sampling_mode`: whose ratio; `..._truncate` goes with `correction::truncated`, `..._mask` with `masked`, between its two bounds.
  importance_options importance(std::string_view mode = "sequence_mask") const {
    static constexpr const char* known[] = {"token_truncate", "token_mask", "sequence_truncate", "sequence_mask"};
    if (mode == known[0] || mode == known[1]) return {};
    if (mode != known[2] && mode != known[3]) detail::unknown("presets: trl().importance", mode, known);
    return {.level = ratio_level::sequence_sum};
  }

 private:
  static double at_least(double lambda) { return lambda < 1e-4 ? 1e-4 : lambda; }
};

/// Liger: TRL's DPO losses, without IPO.
struct liger {
  /// `LigerFusedLinearDPOLoss(loss_type=...)`.
  pair_loss dpo(std::string_view loss_type = "sigmoid", const pair_settings& s = {}) const {
    for (const char* known : dpo_losses)
      if (loss_type == known) return trl().dpo(loss_type, s);
    detail::unknown("presets: liger().dpo", loss_type, dpo_losses);
  }
  static constexpr const char* dpo_losses[] = {"sigmoid",   "apo_zero", "apo_down", "sppo_hard", "nca_pair",
                                               "hinge",     "bco_pair", "robust",   "exo_pair",  "discopop"};
  /// `LigerFusedLinearGRPOLoss(loss_type=...)`.
  policy grpo(std::string_view loss_type = "dapo", const grpo_settings& s = {}, std::string_view importance_sampling_level = "token") const {
    for (const char* known : grpo_losses)
      if (loss_type == known) return trl().grpo(loss_type, s, importance_sampling_level);
    detail::unknown("presets: liger().grpo", loss_type, grpo_losses);
  }
  static constexpr const char* grpo_losses[] = {"grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"};
};

/// verl.
struct verl {
  /// `actor.policy_loss.loss_mode`, with its `loss_agg_mode` where it fixes one. `kl_cov` and `clip_cov` take weights from
  /// `covariance_selection` beside.
  policy policy_loss(std::string_view loss_mode = "vanilla", const verl_settings& s = {}) const {
    policy y{.surrogate = surrogate::clip{.low = s.clip_ratio_low, .high = s.clip_ratio_high, .dual = s.clip_ratio_c}};
    policy_loss_options& o = y.options;
    if (loss_mode == "vanilla" || loss_mode == "sapo" || loss_mode == "cispo") o.log_ratio_low = o.log_ratio_high = 20;
    if (loss_mode == "gspo") {
      y.surrogate = surrogate::clip{.low = s.clip_ratio_low, .high = s.clip_ratio_high};
      o.level = surrogate_level::sequence_token;
      o.log_ratio_high = 10;
      aggregate(o, "seq-mean-token-mean");
    } else if (loss_mode == "sapo") {
      y.surrogate = surrogate::sapo{.tau_positive = s.tau_pos, .tau_negative = s.tau_neg};
      aggregate(o, "seq-mean-token-mean");
    } else if (loss_mode == "cispo") {
      y.surrogate = surrogate::cispo{.low = s.clip_ratio_low, .high = s.clip_ratio_high};
    } else if (loss_mode == "gpg" || loss_mode == "reinforce") {
      y.surrogate = surrogate::reinforce{};
    } else if (loss_mode == "geo_mean") {
      y.surrogate = surrogate::gmpo{.low = s.clip_ratio_low, .high = s.clip_ratio_high};
      aggregate(o, "seq-mean-token-mean");
    } else if (loss_mode == "clip_cov") {
      y.surrogate = surrogate::clip{.low = s.clip_ratio_low, .high = s.clip_ratio_high};
    } else if (loss_mode == "kl_cov") {
      y.surrogate = surrogate::ratio{};
      o.kl.estimator = kl_estimator::absolute;
      o.kl_coefficient = s.ppo_kl_coef;
    } else if (loss_mode != "vanilla") {
      detail::unknown("presets: verl().policy_loss", loss_mode, policy_losses);
    }
    return y;
  }
  static constexpr const char* policy_losses[] = {"vanilla", "gspo", "sapo", "cispo", "gpg", "reinforce", "geo_mean", "clip_cov", "kl_cov"};
  /// `loss_agg_mode`, into any options that aggregate.
  template <class O>
  void aggregate(O& o, std::string_view loss_agg_mode) const {
    static constexpr const char* known[] = {"token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"};
    double epsilon = 0;
    if (loss_agg_mode == known[0]) {
      o.aggregate = aggregation::token_mean;
    } else if (loss_agg_mode == known[1] || loss_agg_mode == known[3]) {
      o.aggregate = aggregation::sequence_sum;
    } else if (loss_agg_mode == known[2]) {
      o.aggregate = aggregation::sequence_mean;
      epsilon = 1e-8;
    } else {
      detail::unknown("presets: verl().aggregate", loss_agg_mode, known);
    }
    o.length_epsilon = epsilon;
  }
  void aggregate(policy& p, std::string_view loss_agg_mode) const { aggregate(p.options, loss_agg_mode); }
  /// PPO as its examples run it.
  policy ppo(const verl_settings& s = {}) const { return policy_loss("vanilla", s); }
  /// `algorithm.kl_penalty`; a `+` at the end is the straight-through form, which verl itself does not reach.
  kl_estimate kl_penalty(std::string_view name) const {
    kl_estimate k;
    if (!name.empty() && name.back() == '+') {
      k.straight_through = true;
      name.remove_suffix(1);
    }
    static constexpr const char* known[] = {"kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3"};
    if (name == "kl" || name == "k1") {
      k.estimator = kl_estimator::k1;
    } else if (name == "abs") {
      k.estimator = kl_estimator::absolute;
    } else if (name == "mse" || name == "k2") {
      k.estimator = kl_estimator::k2;
    } else if (name == "low_var_kl" || name == "k3") {
      k = {kl_estimator::k3, k.straight_through, 20, 10};
    } else {
      detail::unknown("presets: verl().kl_penalty", name, known);
    }
    return k;
  }
  /// `masked_whiten`.
  whiten_options whitening(bool shift_mean = true) const {
    return {.shift_mean = shift_mean, .variance = variance_estimator::unbiased, .count_epsilon = 1e-8, .unscored = unscored_values::transformed};
  }
  /// `compute_value_loss`.
  value_loss_options value_loss(double cliprange_value = 0.5, std::string_view loss_agg_mode = "token-mean") const {
    value_loss_options o{.clip_range = cliprange_value};
    aggregate(o, loss_agg_mode);
    return o;
  }
  gae_options gae(double gamma = 1, double lam = 1) const { return {.gamma = gamma, .lambda = lam}; }
  /// `compute_grpo_outcome_advantage`; `vectorized`: the floor under the variance of its other form.
  advantage::grpo group_advantage(double epsilon = 1e-6, bool vectorized = false) const {
    return {.epsilon = epsilon, .variance_floor = vectorized ? epsilon : 0, .alone = advantage::lone_reply::reward};
  }
  /// The same with `norm_adv_by_std_in_grpo = false`.
  advantage::centered centered_advantage() const { return {.alone = advantage::lone_reply::reward}; }
  /// `compute_rloo_outcome_advantage`; its vectorized form gives a reply alone 0.
  advantage::rloo rloo_advantage(bool vectorized = false) const {
    return {.alone = vectorized ? advantage::lone_reply::zero : advantage::lone_reply::reward};
  }
  opo_options opo_advantage() const { return {.alone = advantage::lone_reply::reward}; }
  gpg_options gpg_advantage(double f_norm = 1) const {
    return {.divisor = f_norm, .valid = gpg_valid::nonzero_rewards, .alone = advantage::lone_reply::reward};
  }
  passk_options passk_advantage(bool norm_adv_by_std_in_grpo = true, double epsilon = 1e-6) const {
    return {.normalize = norm_adv_by_std_in_grpo, .epsilon = epsilon};
  }
  /// REINFORCE++, alone and with the group's mean as baseline: `masked_whiten`, then 0 where nothing counts.
  reinforce_plus_plus_options reinforce_plus_plus(double gamma = 1) const { return {.gamma = gamma, .whiten = whitening_to_zero()}; }
  reinforce_plus_plus_baseline_options reinforce_plus_plus_baseline() const { return {.center = centered_advantage(), .whiten = whitening_to_zero()}; }
  /// `algorithm.kl_ctrl`, adaptive: of a mean per token.
  adaptive_kl_controller kl_controller(double kl_coef = 0.001, double target_kl = 0.1, double horizon = 10000) const {
    return {.coefficient = kl_coef, .target = target_kl, .horizon = horizon};
  }
  /// `rollout_is`: truncated weights of tokens or whole sequences.
  importance_options importance(std::string_view rollout_is = "token") const {
    static constexpr const char* known[] = {"token", "sequence"};
    if (rollout_is != known[0] && rollout_is != known[1]) detail::unknown("presets: verl().importance", rollout_is, known);
    return {.level = rollout_is == known[0] ? ratio_level::token : ratio_level::sequence_sum, .log_ratio_limit = 20};
  }

 private:
  whiten_options whitening_to_zero() const {
    whiten_options w = whitening();
    w.unscored = unscored_values::zero;
    return w;
  }
};

/// OpenRLHF.
struct openrlhf {
  /// `DPOLoss`: smoothed or IPO, both of sums.
  pair_loss dpo(double beta = 0.1, double label_smoothing = 0, bool ipo = false) const {
    if (ipo) return {.link = link::ipo{.beta = beta}};
    return {.link = link::sigmoid{.beta = beta, .label_smoothing = label_smoothing}};
  }
  /// `PolicyLoss(policy_loss_type=...)`: `ppo` per token, `gspo`.
  policy policy_loss(std::string_view policy_loss_type = "ppo", double clip_eps_low = 0.2, double clip_eps_high = 0.2, double dual_clip = 0) const {
    static constexpr const char* known[] = {"ppo", "gspo"};
    policy y{.surrogate = surrogate::clip{.low = clip_eps_low, .high = clip_eps_high, .dual = dual_clip}};
    if (policy_loss_type == known[1]) {
      y.options = {.level = surrogate_level::sequence_mean, .aggregate = aggregation::sequence_mean, .length_epsilon = 1e-8};
    } else if (policy_loss_type == known[0]) {
      y.options.log_ratio_low = y.options.log_ratio_high = 20;
    } else {
      detail::unknown("presets: openrlhf().policy_loss", policy_loss_type, known);
    }
    return y;
  }
  /// `compute_approx_kl`: every estimate is kept within +-10.
  kl_estimate approx_kl(std::string_view kl_estimator_name = "k1") const {
    static constexpr const char* known[] = {"k1", "k2", "k3"};
    kl_estimate k{.limit = 10};
    if (kl_estimator_name == known[0]) {
      k.estimator = kl_estimator::k1;
    } else if (kl_estimator_name == known[1]) {
      k.estimator = kl_estimator::k2;
    } else if (kl_estimator_name != known[2]) {
      detail::unknown("presets: openrlhf().approx_kl", kl_estimator_name, known);
    }
    return k;
  }
  /// `ValueLoss`, without a clip unless `clip_eps` is given; `token_level_loss` into any options that aggregate.
  value_loss_options value_loss(double clip_eps = 0, bool token_level_loss = true) const {
    value_loss_options o{.clip_range = clip_eps};
    aggregate(o, token_level_loss);
    return o;
  }
  template <class O>
  void aggregate(O& o, bool token_level_loss) const {
    o.aggregate = token_level_loss ? aggregation::token_mean : aggregation::sequence_mean;
    o.length_epsilon = token_level_loss ? 0 : 1e-8;
  }
  void aggregate(policy& p, bool token_level_loss) const { aggregate(p.options, token_level_loss); }
  gae_options gae(double gamma = 1, double lambd = 1) const { return {.gamma = gamma, .lambda = lambd}; }
  /// `kl_target`, `kl_horizon`: of a mean per token.
  adaptive_kl_controller kl_controller(double init_kl_coef = 0.01, double kl_target = 0.1, double kl_horizon = 10000) const {
    return {.coefficient = init_kl_coef, .target = kl_target, .horizon = kl_horizon};
  }
  /// `masked_normalize`: the variance is at least 1e-8, and what is masked becomes 0; advantages are whitened with padding and all.
  whiten_options whitening() const { return {.guard = variance_guard::floor}; }
  whiten_options advantage_whitening() const { return {.guard = variance_guard::floor, .unscored = unscored_values::transformed}; }
  /// `group_norm`.
  advantage::grpo group_advantage() const { return {.epsilon = 1e-9}; }
  /// `rloo`.
  advantage::rloo rloo_advantage() const { return {}; }
  /// `dr_grpo`, and `reinforce_baseline` before it is whitened.
  advantage::centered centered_advantage() const { return {}; }
};

/// NeMo-Aligner.
struct nemo_aligner {
  /// `preference_loss`, with `average_log_probs`; the reward-aware ones take the pairs' given rewards.
  pair_loss dpo(std::string_view preference_loss = "dpo", double ref_policy_kl_penalty = 0.2, bool average_log_probs = false,
                double gt_reward_scale = 1) const {
    static constexpr auto& known = preference_losses;
    const double beta = ref_policy_kl_penalty, scale = gt_reward_scale;
    pair_loss y;
    y.options.score = average_log_probs ? reply_score::mean : reply_score::sum;
    if (preference_loss == known[0]) {
      y.link = link::sigmoid{.beta = beta};
    } else if (preference_loss == known[1]) {
      y.link = link::ipo{.beta = beta};
    } else if (preference_loss == known[2]) {
      y.link = link::rpo_squared{.beta = beta, .scale = scale};
    } else if (preference_loss == known[3]) {
      y.link = link::rpo_backward_kl{.beta = beta, .scale = scale};
    } else if (preference_loss == known[4]) {
      y.link = link::rpo_forward_kl{.beta = beta, .scale = scale};
    } else {
      detail::unknown("presets: nemo_aligner().dpo", preference_loss, known);
    }
    return y;
  }
  static constexpr const char* preference_losses[] = {"dpo", "ipo", "rpo_sq", "rpo_bwd_kl", "rpo_fwd_kl"};
  /// The PPO actor.
  policy ppo(double ratio_eps = 0.2, double entropy_bonus = 0) const {
    return {surrogate::clip{.low = ratio_eps, .high = ratio_eps}, {.entropy_coefficient = entropy_bonus}};
  }
  /// `calculate_kl_penalty`: its default is the absolute value.
  kl_estimate kl_penalty(bool use_absolute_kl = true) const {
    return {.estimator = use_absolute_kl ? kl_estimator::absolute : kl_estimator::k1};
  }
  /// The PPO critic, with its `standardization` if any.
  value_loss_options value_loss(double clip_val = 0.2, double mean = 0, double standard_deviation = 1) const {
    return {.clip_range = clip_val, .mean = mean, .standard_deviation = standard_deviation};
  }
  gae_options gae(double discount_factor = 1, double gae_lambda = 0.95) const { return {.gamma = discount_factor, .lambda = gae_lambda}; }
  /// `normalize_tensor`.
  whiten_options whitening() const { return {.unscored = unscored_values::transformed}; }
  /// REINFORCE's leave-one-out baseline, of replies that ended.
  advantage::rloo rloo_advantage() const { return {}; }
};

}  // namespace presets

/// Bytes of arena that the preset's `preference` takes.
template <class B>
std::size_t preference_workspace(const B& b, const preference_pairs<space_of<B>>& pairs, index_t tokens, const presets::pair_loss& preset) {
  return preference_workspace(b, pairs, tokens, preset.options);
}
/// A preset's loss of pairs; `denominator` as in `preference_options`.
template <class B>
  requires has_backend_types<B>
void preference(B& b, arena_of<B>& scratch, const preference_inputs<real_of<B>, space_of<B>>& in, const presets::pair_loss& preset, double denominator,
                const preference_outputs<real_of<B>, space_of<B>>& out) {
  preference_options options = preset.options;
  options.denominator = denominator;
  std::visit([&](const auto& link, const auto& divergence) { preference(b, scratch, in, link, divergence, options, out); }, preset.link, preset.divergence);
}

/// Bytes of arena that the preset's `policy_loss` takes with these inputs and outputs.
template <class B>
std::size_t policy_loss_workspace(const B& b, const policy_loss_inputs<real_of<B>, space_of<B>>& in, const presets::policy& preset,
                                  const policy_loss_outputs<real_of<B>, space_of<B>>& out) {
  return std::visit([&](const auto& surrogate) { return policy_loss_workspace(b, in, surrogate, preset.options, out); }, preset.surrogate);
}
/// A preset's policy-gradient loss; `denominator` as in `policy_loss_options`.
template <class B>
  requires has_backend_types<B>
void policy_loss(B& b, arena_of<B>& scratch, const policy_loss_inputs<real_of<B>, space_of<B>>& in, const presets::policy& preset, double denominator,
                 const policy_loss_outputs<real_of<B>, space_of<B>>& out) {
  policy_loss_options options = preset.options;
  options.denominator = denominator;
  std::visit([&](const auto& surrogate) { policy_loss(b, scratch, in, surrogate, options, out); }, preset.surrogate);
}

PLUMB_NAMESPACE_END

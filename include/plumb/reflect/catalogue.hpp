#pragma once
// Every option type of the library by name, once; included by reflect.hpp. A row: the type without `plumb::`, then its members in order.

#include <plumb/reflect.hpp>

// clang-format off
#define PLUMB_CATALOGUE(row)                                                                                                                          \
  row(token_logp_options, temperature, softcap, logit_scale)                                                                                          \
  row(linear_token_logp_options, logits, chunk_rows)                                                                                                  \
  row(reward_head_options, mean, standard_deviation, chunk_rows)                                                                                      \
  row(aggregate_options, mode, denominator, length_epsilon, weight)                                                                                   \
  row(moments_options, variance, count_epsilon)                                                                                                       \
  row(whiten_options, shift_mean, variance, guard, epsilon, count_epsilon, unscored)                                                                  \
  row(top_tokens_options, count)                                                                                                                      \
  row(kl_estimate, estimator, straight_through, log_ratio_limit, limit)                                                                               \
  row(kl_penalty_options, estimate, aggregate, denominator, length_epsilon, weight)                                                                   \
  row(token_rewards_options, kl_coefficient, placement, unfinished_scale, unfinished_offset, score_min, score_max)                                    \
  row(gae_options, gamma, lambda)                                                                                                                     \
  row(discounted_returns_options, gamma)                                                                                                              \
  row(n_step_returns_options, gamma, steps)                                                                                                           \
  row(vtrace_options, gamma, lambda, rho_limit, trace_limit, advantage_limit, alpha)                                                                  \
  row(fixed_kl_controller, coefficient)                                                                                                               \
  row(adaptive_kl_controller, coefficient, target, horizon, error_limit)                                                                              \
  row(shaping::overlong, max_length, buffer, factor)                                                                                                  \
  row(shaping::scale_truncated, factor)                                                                                                               \
  row(shaping::fix_truncated, reward)                                                                                                                 \
  row(shaping::clip, low, high)                                                                                                                       \
  row(shaping::kl_penalty, coefficient)                                                                                                               \
  row(varied_groups_options, tolerance)                                                                                                               \
  row(advantage::centered, alone)                                                                                                                     \
  row(advantage::grpo, epsilon, unbiased, variance_floor, alone)                                                                                      \
  row(advantage::batch_scaled, epsilon, unbiased)                                                                                                     \
  row(advantage::batch_normalized, epsilon, unbiased)                                                                                                 \
  row(advantage::rloo, alone)                                                                                                                         \
  row(gdpo_options, each, whole)                                                                                                                      \
  row(gpg_options, divisor, valid, alone)                                                                                                             \
  row(opo_options, alone)                                                                                                                             \
  row(token_cells_options, position, no_lone_tail)                                                                                                    \
  row(optimal_token_baseline_options, epsilon)                                                                                                        \
  row(passk_options, normalize, epsilon)                                                                                                              \
  row(reinforce_plus_plus_options, gamma, whiten)                                                                                                     \
  row(reinforce_plus_plus_baseline_options, center, whiten)                                                                                           \
  row(correction::truncated, lower, upper)                                                                                                            \
  row(correction::masked, lower, upper)                                                                                                               \
  row(importance_options, level, normalize, log_ratio_limit, length_epsilon)                                                                          \
  row(rejection::k1, lower, upper)                                                                                                                    \
  row(rejection::k2, upper)                                                                                                                           \
  row(rejection::k3, upper)                                                                                                                           \
  row(rejection_options, level, log_ratio_limit, length_epsilon)                                                                                      \
  row(ratio_statistics_options, level, lower, upper, log_ratio_limit, length_epsilon)                                                                 \
  row(off_policy_options, log_ratio_limit, length_epsilon)                                                                                            \
  row(covariance_selection_options, count, lower, upper)                                                                                              \
  row(ld_dpo_options, alpha)                                                                                                                          \
  row(reference_sync_options, share)                                                                                                                  \
  row(attribute_posterior_options, levels, concentration, edges, clamp, missing)                                                                      \
  row(extrapolate_weights_options, alpha)                                                                                                             \
  row(supervised_options, aggregate, denominator, length_epsilon, weight)                                                                             \
  row(distill::jensen_shannon, beta)                                                                                                                  \
  row(distillation_options, temperature, temperature_squared, rest, aggregate, denominator, length_epsilon, weight, chunk_rows)                       \
  row(bradley_terry_options, center_coefficient, denominator, weight)                                                                                 \
  row(rated_bradley_terry_options, use, ties_to_second, missing, loss)                                                                                \
  row(attribute_regression_options, missing, denominator, weight)                                                                                     \
  row(goal_reward_options, mean, standard_deviation)                                                                                                  \
  row(round_ratings_options, top)                                                                                                                     \
  row(standardize_rewards_options, epsilon)                                                                                                           \
  row(process_reward_options, missing, denominator, weight)                                                                                           \
  row(steerlm2_options, value, per_token, denominator, weight, distance_epsilon)                                                                      \
  row(link::sigmoid, beta, label_smoothing, margin)                                                                                                   \
  row(link::robust, beta, label_smoothing)                                                                                                            \
  row(link::hinge, beta, margin)                                                                                                                      \
  row(link::ipo, beta)                                                                                                                                \
  row(link::exo_pair, beta, label_smoothing)                                                                                                          \
  row(link::nca_pair, beta)                                                                                                                           \
  row(link::bco_pair, beta)                                                                                                                           \
  row(link::sppo_hard, beta)                                                                                                                          \
  row(link::sppo, beta)                                                                                                                               \
  row(link::apo_zero, beta)                                                                                                                           \
  row(link::apo_down, beta, chosen_share, margin_share)                                                                                               \
  row(link::discopop, beta, tau)                                                                                                                      \
  row(link::dpop, beta, lambda)                                                                                                                       \
  row(link::rpo_squared, beta, scale)                                                                                                                 \
  row(link::rpo_backward_kl, beta, scale)                                                                                                             \
  row(link::rpo_forward_kl, beta, scale)                                                                                                              \
  row(link::odds_ratio, beta)                                                                                                                         \
  row(divergence::forward_kl, max_exponent)                                                                                                           \
  row(divergence::js, drop_constant)                                                                                                                  \
  row(divergence::alpha, coefficient, max_exponent, drop_constant)                                                                                    \
  row(dpo_options, beta, label_smoothing, reference_free, denominator, weight)                                                                        \
  row(preference_options, score, matching, reference_free, denominator, weight)                                                                       \
  row(likelihood_term, weight, aggregate, denominator)                                                                                                \
  row(cpo_options<>, link, score, likelihood, denominator, weight)                                                                                    \
  row(cpo_options<plumb::link::hinge>, link, score, likelihood, denominator, weight) \
  row(cpo_options<plumb::link::ipo>, link, score, likelihood, denominator, weight) \
  row(orpo_options, beta, likelihood, denominator, weight)                                                                                            \
  row(simpo_options, beta, gamma, label_smoothing, alpha, likelihood, denominator, weight)                                                            \
  row(tpo_options<>, link, score, likelihood, denominator, weight)                                                                                    \
  row(tpo_options<plumb::link::hinge>, link, score, likelihood, denominator, weight) \
  row(tpo_options<plumb::link::ipo>, link, score, likelihood, denominator, weight) \
  row(xpo_options<>, link, alpha, denominator, weight)                                                                                                \
  row(bco_options, beta, score, denominator, weight)                                                                                                  \
  row(kto_kl_options, clamp, score)                                                                                                                   \
  row(kto_options, beta, desirable_weight, undesirable_weight, kl_free, score, denominator, weight)                                                   \
  row(nash_md_options, beta, baseline, denominator, weight)                                                                                           \
  row(surrogate::clip, low, high, dual)                                                                                                               \
  row(surrogate::cispo, low, high)                                                                                                                    \
  row(surrogate::sapo, tau_positive, tau_negative)                                                                                                    \
  row(surrogate::vespo, k_positive, lambda_positive, k_negative, lambda_negative)                                                                     \
  row(surrogate::gmpo, low, high)                                                                                                                     \
  row(policy_loss_options, level, log_ratio_low, log_ratio_high, kl, kl_coefficient, kl_times_ratio, entropy_coefficient, aggregate,                  \
      denominator, length_epsilon, weight)                                                                                                            \
  row(value_loss_options, clip_range, mean, standard_deviation, aggregate, denominator, length_epsilon, weight)                                       \
  row(sampling, temperature, top_p, max_new_tokens, end_token, seed, step, first_row)                                                                 \
  row(advantage::gae, gamma, lambda, whiten, whiten_rewards, whitening)                                                                               \
  row(advantage::reinforce_plus_plus, gamma, whitening)                                                                                               \
  row(advantage::reinforce_plus_plus_baseline, whitening)                                                                                             \
  row(rollout_advantages_options, kl, rewards)                                                                                                        \
  row(ppo_options<>, advantage, surrogate, policy, value, rewards, scaling, bootstrap, skip_truncated, epochs, minibatches, micro_batch,              \
      policy_rate, critic_rate, critic_warmup, target_kl, ratio_limit, rescore, start_tolerance, seed)                                                \
  row(drpo_options, proportion, min_cut, max_cut, completion, items, step_rows, seed)                                                                 \
  row(online_dpo_options<>, link, divergence, preference, pairs, gap, unfinished_penalty, replies, epochs, minibatches, micro_batch, rate,            \
      reference_every, seed)                                                                                                                          \
  row(keep::best, count)                                                                                                                              \
  row(keep::above, threshold, most)                                                                                                                   \
  row(keep::best_share, share)                                                                                                                        \
  row(best_of_n_options<>, keep, supervised, replies, greedy_first, skip_truncated, distinct, temperature, epochs, minibatches, micro_batch, rate,    \
      seed)                                                                                                                                           \
  row(steerlm2_loop_options, replies, objective, baseline, epochs, prompts, micro_batch, rate, held_out, patience, temperature, rescore,              \
      skip_truncated, start_tolerance, least_effective, seed)                                                                                         \
  row(presets::pair_settings, beta, label_smoothing, discopop_tau, f_alpha_divergence_coef)                                                           \
  row(presets::free_settings, beta, label_smoothing, gamma, alpha, likelihood)                                                                        \
  row(presets::unpaired_settings, beta, desirable_weight, undesirable_weight)                                                                         \
  row(presets::grpo_settings, epsilon, epsilon_high, delta, beta, use_bias_correction_kl, sapo_temperature_pos, sapo_temperature_neg, vespo_k_pos,    \
      vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg)                                                                                                \
  row(presets::verl_settings, clip_ratio_low, clip_ratio_high, clip_ratio_c, tau_pos, tau_neg, ppo_kl_coef)                                           \
  row(rain_tree_options, exploration, scale, first_play, count, range_epsilon, backup, similarity_threshold, similarity_weight, root_mix,             \
      variance_threshold, value_threshold, most_children)                                                                                             \
  row(prefix_cache_options, sequences, share)                                                                                                         \
  row(prompted_evaluator_options, vote, spellings, show_end, sequences)                                                                               \
  row(reward_scale::tanh, mean, deviation)                                                                                                            \
  row(rain_dot_options, most_children, least_visits, most_characters, downwards)                                                                      \
  row(reward_scale::sigmoid, mean, deviation)                                                                                                         \
// clang-format on

// Those that are a choice and have no options.
#define PLUMB_CATALOGUE_BARE(row) \
  row(correction::none)           \
  row(distill::forward_kl)        \
  row(distill::reverse_kl)        \
  row(divergence::reverse_kl)     \
  row(reward_scale::none)         \
  row(surrogate::ratio)           \
  row(surrogate::reinforce)

#define PLUMB_ADAPT(type, ...)                        \
  BOOST_HANA_ADAPT_STRUCT(plumb::type, __VA_ARGS__); \
  template <>                                         \
  inline constexpr const char* plumb::reflect::name_of<plumb::type> = #type;
PLUMB_CATALOGUE(PLUMB_ADAPT)
#undef PLUMB_ADAPT
#define PLUMB_ADAPT(type)                    \
  BOOST_HANA_ADAPT_STRUCT(plumb::type);     \
  template <>                                \
  inline constexpr const char* plumb::reflect::name_of<plumb::type> = #type;
PLUMB_CATALOGUE_BARE(PLUMB_ADAPT)
#undef PLUMB_ADAPT

PLUMB_NAMESPACE_BEGIN
namespace reflect {

// The enumerators of every mode.
#define PLUMB_ENUMERATOR(type, name) {type::name, #name}
template <>
struct enumerators<aggregation> {
  static constexpr enumerator<aggregation> all[] = {
      PLUMB_ENUMERATOR(aggregation, token_mean), PLUMB_ENUMERATOR(aggregation, sequence_mean), PLUMB_ENUMERATOR(aggregation, sequence_sum)};
};
template <>
struct enumerators<reply_score> {
  static constexpr enumerator<reply_score> all[] = {PLUMB_ENUMERATOR(reply_score, sum), PLUMB_ENUMERATOR(reply_score, mean)};
};
template <>
struct enumerators<pair_matching> {
  static constexpr enumerator<pair_matching> all[] = {
      PLUMB_ENUMERATOR(pair_matching, given), PLUMB_ENUMERATOR(pair_matching, ranked), PLUMB_ENUMERATOR(pair_matching, ranked_margins)};
};
template <>
struct enumerators<surrogate_level> {
  static constexpr enumerator<surrogate_level> all[] = {
      PLUMB_ENUMERATOR(surrogate_level, of_surrogate), PLUMB_ENUMERATOR(surrogate_level, token), PLUMB_ENUMERATOR(surrogate_level, sequence_mean),
      PLUMB_ENUMERATOR(surrogate_level, sequence_token), PLUMB_ENUMERATOR(surrogate_level, sequence_sum)};
};
template <>
struct enumerators<ratio_level> {
  static constexpr enumerator<ratio_level> all[] = {
      PLUMB_ENUMERATOR(ratio_level, token), PLUMB_ENUMERATOR(ratio_level, sequence_sum), PLUMB_ENUMERATOR(ratio_level, sequence_mean),
      PLUMB_ENUMERATOR(ratio_level, sequence_any)};
};
template <>
struct enumerators<kl_estimator> {
  static constexpr enumerator<kl_estimator> all[] = {PLUMB_ENUMERATOR(kl_estimator, k1), PLUMB_ENUMERATOR(kl_estimator, absolute),
                                                     PLUMB_ENUMERATOR(kl_estimator, k2), PLUMB_ENUMERATOR(kl_estimator, k3)};
};
template <>
struct enumerators<score_placement> {
  static constexpr enumerator<score_placement> all[] = {PLUMB_ENUMERATOR(score_placement, last_scored), PLUMB_ENUMERATOR(score_placement, after_last)};
};
template <>
struct enumerators<variance_estimator> {
  static constexpr enumerator<variance_estimator> all[] = {PLUMB_ENUMERATOR(variance_estimator, biased), PLUMB_ENUMERATOR(variance_estimator, unbiased)};
};
template <>
struct enumerators<variance_guard> {
  static constexpr enumerator<variance_guard> all[] = {PLUMB_ENUMERATOR(variance_guard, add), PLUMB_ENUMERATOR(variance_guard, floor)};
};
template <>
struct enumerators<unscored_values> {
  static constexpr enumerator<unscored_values> all[] = {PLUMB_ENUMERATOR(unscored_values, zero), PLUMB_ENUMERATOR(unscored_values, transformed)};
};
template <>
struct enumerators<advantage::lone_reply> {
  static constexpr enumerator<advantage::lone_reply> all[] = {PLUMB_ENUMERATOR(advantage::lone_reply, zero), PLUMB_ENUMERATOR(advantage::lone_reply, reward)};
};
template <>
struct enumerators<gpg_valid> {
  static constexpr enumerator<gpg_valid> all[] = {PLUMB_ENUMERATOR(gpg_valid, varied_groups), PLUMB_ENUMERATOR(gpg_valid, nonzero_rewards)};
};
template <>
struct enumerators<token_position> {
  static constexpr enumerator<token_position> all[] = {PLUMB_ENUMERATOR(token_position, column), PLUMB_ENUMERATOR(token_position, turn)};
};
template <>
struct enumerators<bin_edges> {
  static constexpr enumerator<bin_edges> all[] = {PLUMB_ENUMERATOR(bin_edges, equal), PLUMB_ENUMERATOR(bin_edges, rounding)};
};
template <>
struct enumerators<topk_rest> {
  static constexpr enumerator<topk_rest> all[] = {PLUMB_ENUMERATOR(topk_rest, renormalize), PLUMB_ENUMERATOR(topk_rest, zero),
                                                  PLUMB_ENUMERATOR(topk_rest, one_token)};
};
template <>
struct enumerators<strength_use> {
  static constexpr enumerator<strength_use> all[] = {PLUMB_ENUMERATOR(strength_use, ignored), PLUMB_ENUMERATOR(strength_use, margin),
                                                     PLUMB_ENUMERATOR(strength_use, scale)};
};
template <>
struct enumerators<steerlm2_value> {
  static constexpr enumerator<steerlm2_value> all[] = {PLUMB_ENUMERATOR(steerlm2_value, listwise), PLUMB_ENUMERATOR(steerlm2_value, coefficients)};
};
template <>
struct enumerators<pair_choice> {
  static constexpr enumerator<pair_choice> all[] = {PLUMB_ENUMERATOR(pair_choice, best_worst), PLUMB_ENUMERATOR(pair_choice, best_random),
                                                    PLUMB_ENUMERATOR(pair_choice, all)};
};
template <>
struct enumerators<score_scaling> {
  static constexpr enumerator<score_scaling> all[] = {PLUMB_ENUMERATOR(score_scaling, none), PLUMB_ENUMERATOR(score_scaling, scale),
                                                      PLUMB_ENUMERATOR(score_scaling, normalize)};
};
template <>
struct enumerators<reset_completion> {
  static constexpr enumerator<reset_completion> all[] = {PLUMB_ENUMERATOR(reset_completion, first), PLUMB_ENUMERATOR(reset_completion, last),
                                                         PLUMB_ENUMERATOR(reset_completion, any)};
};
template <>
struct enumerators<item_order> {
  static constexpr enumerator<item_order> all[] = {PLUMB_ENUMERATOR(item_order, independent), PLUMB_ENUMERATOR(item_order, epochs)};
};
template <>
struct enumerators<rain_backup> {
  static constexpr enumerator<rain_backup> all[] = {PLUMB_ENUMERATOR(rain_backup, mean),
                                            PLUMB_ENUMERATOR(rain_backup, min),
                                            PLUMB_ENUMERATOR(rain_backup, max),
                                            PLUMB_ENUMERATOR(rain_backup, last)};
};
template <>
struct enumerators<rain_scale> {
  static constexpr enumerator<rain_scale> all[] = {PLUMB_ENUMERATOR(rain_scale, raw),
                                            PLUMB_ENUMERATOR(rain_scale, unit)};
};
template <>
struct enumerators<rain_first_play> {
  static constexpr enumerator<rain_first_play> all[] = {PLUMB_ENUMERATOR(rain_first_play, worst),
                                            PLUMB_ENUMERATOR(rain_first_play, neutral),
                                            PLUMB_ENUMERATOR(rain_first_play, parent)};
};
template <>
struct enumerators<rain_count> {
  static constexpr enumerator<rain_count> all[] = {PLUMB_ENUMERATOR(rain_count, siblings),
                                            PLUMB_ENUMERATOR(rain_count, parent)};
};
template <>
struct enumerators<judge_vote> {
  static constexpr enumerator<judge_vote> all[] = {PLUMB_ENUMERATOR(judge_vote, hard), PLUMB_ENUMERATOR(judge_vote, soft)};
};
template <>
struct enumerators<judge_spellings> {
  static constexpr enumerator<judge_spellings> all[] = {PLUMB_ENUMERATOR(judge_spellings, likeliest), PLUMB_ENUMERATOR(judge_spellings, sum)};
};
#undef PLUMB_ENUMERATOR

namespace detail {
template <class First, class... T>
struct without_first {
  using type = types<T...>;
};
}  // namespace detail
#define PLUMB_TYPE(type, ...) , plumb::type
/// Every option type, to go through them all.
using catalogue = typename detail::without_first<void PLUMB_CATALOGUE(PLUMB_TYPE) PLUMB_CATALOGUE_BARE(PLUMB_TYPE)>::type;
#undef PLUMB_TYPE

}  // namespace reflect
PLUMB_NAMESPACE_END

#include <plumb/reflect/presets.hpp>

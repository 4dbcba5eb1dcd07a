#pragma once
// The policy-gradient loss and what stands beside it, as functions of vectors of double.

#include "golden/importance_calls.hpp"

#include <plumb/objectives/policy_loss.hpp>
#include <plumb/ops/covariance_selection.hpp>
#include <plumb/presets.hpp>

#include <variant>

namespace golden {

using plumb::presets::any_surrogate;

struct policy_call {
  numbers logp{}, old_logp{}, advantages{}, sequence_advantages{}, ref_logp{}, importance_weights{}, kl_weights{},
      entropy{};
  layout_arrays sequences{};
  any_surrogate surrogate{};
  plumb::policy_loss_options options{};
};
/// Rows of `plumb::policy_loss_metrics`.
enum policy_metric : std::size_t {
  clip_fraction,
  clip_low,
  clip_high,
  cap_fraction,
  approx_kl,
  approx_kl_k3,
  abs_log_ratio,
  mean_ratio,
  ratio_min,
  ratio_max,
  reference_kl,
  mean_entropy
};
struct policy_answer {
  double loss = 0;
  numbers d_logp{}, d_entropy{}, token_loss{}, clipped{};
  numbers metrics{};
};

template <class B>
policy_answer call(job<B>& j, const policy_call& in) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), old_logp = reals(j, in.old_logp), advantages = reals(j, in.advantages),
             sequence_advantages = reals(j, in.sequence_advantages), ref_logp = reals(j, in.ref_logp),
             importance_weights = reals(j, in.importance_weights), kl_weights = reals(j, in.kl_weights),
             entropy = reals(j, in.entropy);
  const std::size_t n = in.logp.size();
  std::vector<real> d_logp(n), d_entropy(in.entropy.size()), token_loss(n), clipped(n),
      metrics(2 * std::size(plumb::policy_loss_metrics));
  real loss = 0;
  const auto layout = in.sequences.get();
  scratch_memory scratch(plumb::policy_loss_workspace(j.b, layout, length(logp)));
  const plumb::policy_loss_inputs<real> inputs{.logp = logp,
                                               .old_logp = old_logp,
                                               .advantages = advantages,
                                               .sequence_advantages = sequence_advantages,
                                               .ref_logp = ref_logp,
                                               .importance_weights = importance_weights,
                                               .kl_weights = kl_weights,
                                               .entropy = entropy,
                                               .sequences = layout};
  const plumb::policy_loss_outputs<real> outputs{
      .loss = loss,
      .d_logp = d_logp,
      .d_entropy = d_entropy,
      .token_loss = token_loss,
      .clipped = clipped,
      .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)};
  std::visit([&](const auto& s) { plumb::policy_loss(j.b, scratch.arena, inputs, s, in.options, outputs); },
             in.surrogate);
  return {static_cast<double>(loss), doubles(d_logp),  doubles(d_entropy),
          doubles(token_loss),       doubles(clipped), metric_values(plumb::policy_loss_metrics, metrics)};
}

/// The surrogate and the options of a peer.
inline void take(policy_call& in, const plumb::presets::policy& preset, double denominator = 1) {
  in.surrogate = preset.surrogate;
  in.options = preset.options;
  in.options.denominator = denominator;
}
inline double at_least_1(double x) { return std::max(x, 1.0); }
/// What enters a loss: the largest term of a token.
inline double largest_term(const policy_answer& y) { return largest(y.token_loss); }

/// One sequence of a call: `in.sequences` names it alone, with its own advantage.
inline policy_call sequence_of(policy_call in, std::size_t s) {
  in.sequences = in.sequences.sequence(s);
  if (!in.sequence_advantages.empty()) in.sequence_advantages = {in.sequence_advantages[s]};
  return in;
}

/// What enters each entry of SAPO's gradient where the peer takes 1 - sigmoid by subtraction: 4 |A| r times what a token counts. From
/// r = 40 on that difference is 0.
inline numbers sapo_gradient_terms(const policy_call& in, const numbers& of_token) {
  numbers y;
  for (std::size_t t = 0; t < in.logp.size(); ++t)
    y.push_back(4 * std::fabs(of_token[t]) * std::min(std::exp(in.logp[t] - in.old_logp[t]), 40.0));
  return y;
}

struct selected_tokens {
  numbers chosen, rest;
};
/// The `count` largest of the scored.
template <class B>
numbers select_largest(job<B>& j, const numbers& values, const layout_arrays& sequences, double count) {
  using real = typename B::real;
  const auto v = reals(j, values);
  std::vector<real> chosen(v.size());
  scratch_memory scratch(plumb::top_tokens_workspace(j.b, sequences.get(), length(v)));
  plumb::top_tokens(j.b, scratch.arena, {.values = v, .sequences = sequences.get()}, {.count = count},
                    {.chosen = chosen});
  return doubles(chosen);
}
template <class B>
selected_tokens select_by_covariance(job<B>& j, const numbers& logp, const numbers& advantages, const numbers& excluded,
                                     const layout_arrays& sequences,
                                     const plumb::covariance_selection_options& options) {
  using real = typename B::real;
  const auto p = reals(j, logp), a = reals(j, advantages), e = reals(j, excluded);
  std::vector<real> chosen(p.size()), rest(p.size());
  scratch_memory scratch(plumb::covariance_selection_workspace(j.b, sequences.get(), length(p)));
  plumb::covariance_selection(j.b, scratch.arena,
                              {.logp = p, .advantages = a, .excluded = e, .sequences = sequences.get()}, options,
                              {.chosen = chosen, .rest = rest});
  return {doubles(chosen), doubles(rest)};
}

}  // namespace golden

// Whole updates of PPO: from logits and predicted values to one loss and its gradients.
#include "golden/importance_calls.hpp"
#include "golden/value_loss_calls.hpp"

#include <plumb/objectives/policy_loss.hpp>
#include <plumb/presets.hpp>

namespace golden {
namespace {

struct clipped_policy_call {
  numbers logp{}, old_logp{}, advantages{};
  layout_arrays sequences{};
  double clip_range = 0, denominator = 1;
};
struct clipped_policy_answer {
  double loss;
  numbers d_logp;
  double clipped, ratios, largest_ratio;  ///< over scored tokens: how many are clipped, sum and largest of their ratios
};

template <class B>
clipped_policy_answer call(job<B>& j, const clipped_policy_call& in) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), old_logp = reals(j, in.old_logp), advantages = reals(j, in.advantages);
  std::vector<real> d_logp(logp.size()), metrics(2 * std::size(plumb::policy_loss_metrics));
  real loss = 0;
  scratch_memory scratch(plumb::policy_loss_workspace(j.b, in.sequences.get(), length(logp)));
  plumb::policy_loss(j.b, scratch.arena,
                     {.logp = logp, .old_logp = old_logp, .advantages = advantages, .sequences = in.sequences.get()},
                     plumb::presets::trl().ppo(in.clip_range), in.denominator,
                     {.loss = loss,
                      .d_logp = d_logp,
                      .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  const metric_table m = table(plumb::policy_loss_metrics, metrics);
  constexpr std::size_t clip_fraction = 0, ratio = 7, ratio_max = 9;
  return {static_cast<double>(loss), doubles(d_logp), m.sums[clip_fraction], m.sums[ratio], m.values[ratio_max]};
}

/// Half the mean of the squares of the scored numbers, divided by all there are.
template <class B>
double half_mean_square(job<B>& j, const numbers& x, const layout_arrays& rows) {
  using real = typename B::real;
  const auto values = reals(j, x);
  std::vector<real> metrics(2 * std::size(plumb::token_statistics_metrics));
  scratch_memory scratch(plumb::token_statistics_workspace(j.b, rows.get(), length(values)));
  plumb::token_statistics(j.b, scratch.arena, {.values = values, .sequences = rows.get()},
                          plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2));
  constexpr std::size_t square = 1;
  return table(plumb::token_statistics_metrics, metrics).sums[square] / 2 / static_cast<double>(x.size());
}

/// `[rows, columns]` with a column of zeros more.
numbers with_column(const numbers& x, std::size_t rows, std::size_t columns) {
  numbers y;
  for (std::size_t r = 0; r < rows; ++r) {
    y = joined(std::move(y), part(x, r * columns, columns));
    y.push_back(0);
  }
  return y;
}

// The two scripts are one: `scored` tokens enter the policy loss, `valued` ones the value loss, `padding` is set to log-probability 1 under
// both policies. Row t of the logits predicts response t; the last row and the last value are nobody's.
struct update {
  std::size_t rows, columns;
  flags scored, valued, padding;
  bool clip_share_of_all;  ///< the clip fraction is over all positions
};

template <class Job>
void compare_update(Job& j, const update& u) {
  const golden_case& c = j.c;
  const std::size_t rows = u.rows, columns = u.columns, n = rows * columns;
  const std::vector<std::size_t> shape{rows, columns};
  token_logp_call policy = rows_of(c.input("logits", {rows, columns + 1, 0}));
  policy.options.temperature = c.number("temperature") + 1e-7;
  const ids responses = to_ids(c.input("responses", shape).data);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t t = 0; t <= columns; ++t) policy.targets.push_back(t < columns ? responses[r * columns + t] : -1);
  const token_logp_answer forward = call(j, policy);

  constexpr double padded_logp = 1;
  const auto with_padding = [&](numbers x, double value) {
    for (std::size_t t = 0; t < n; ++t)
      if (u.padding[t]) x[t] = value;
    return x;
  };
  clipped_policy_call pg{.logp = with_padding(without_last_column(forward.logp, rows, columns + 1), padded_logp),
                         .old_logp = with_padding(c.input("old_logprobs", shape).data, padded_logp),
                         .advantages = c.input("advantages", shape).data,
                         .sequences = padded(rows, columns, u.scored),
                         .clip_range = c.number("cliprange")};
  pg.denominator = scored_tokens(pg.sequences);
  const clipped_policy_answer p = call(j, pg);

  value_loss_call vf{.values = without_last_column(c.input("vpred_full", {rows, columns + 1}).data, rows, columns + 1),
                     .old_values = c.input("values", shape).data,
                     .returns = c.input("returns", shape).data,
                     .sequences = padded(rows, columns, u.valued),
                     .options = plumb::presets::trl().value_loss(c.number("cliprange_value"), 1)};
  vf.options.denominator = scored_tokens(vf.sequences);
  const value_loss_answer v = call(j, vf);
  const double share = c.number("vf_coef");
  vf.options.weight = share;
  const value_loss_answer weighted = call(j, vf);

  const double logit = largest(largest_of_rows(policy));
  const double pg_terms = largest(pg.advantages) * std::max(1.0, p.largest_ratio) * logit;
  j.output("new_logprobs", pg.logp, logit);
  j.output("vpred", times(vf.values, doubles(u.valued)), 0);
  j.output("pg_loss", {p.loss}, pg_terms);
  j.output("vf_loss", {v.loss}, value_loss_terms(vf));
  j.output("loss", {p.loss + weighted.loss}, std::max(pg_terms, share * value_loss_terms(vf)));
  j.output("vf_clipfrac", {v.clipped / v.count}, 0);

  // Logged over all positions, whatever the masks are.
  clipped_policy_call everywhere = pg;
  everywhere.sequences.scored.assign(n, 1);
  const clipped_policy_answer all = call(j, everywhere);
  const double positions = static_cast<double>(n);
  j.output("pg_clipfrac", {u.clip_share_of_all ? all.clipped / positions : p.clipped / pg.denominator}, 0);
  const numbers differences = plus(pg.logp, scaled(pg.old_logp, -1));
  j.output("approxkl", {half_mean_square(j, differences, everywhere.sequences)}, largest(differences) * logit);
  const plumb::aggregate_options mean{.denominator = positions};
  const numbers entropy = without_last_column(forward.entropy, rows, columns + 1);
  j.output("entropy_mean", {call(j, aggregate_call{entropy, everywhere.sequences, mean}).loss}, logit);
  if (c.outputs.count("ratio_mean") > 0) j.output("ratio_mean", {all.ratios / positions}, all.largest_ratio * logit);
  if (c.outputs.count("ratio") > 0) {
    const sampler_call both{pg.logp, pg.old_logp, everywhere.sequences};
    const numbers ratio = call(j, both, plumb::correction::none{}, plumb::importance_options{}).weights;
    j.output("ratio", ratio, scaled(ratio, logit));
  }

  j.gradient("d_pg_loss/d_new_logprobs", p.d_logp, pg_terms / pg.denominator);
  j.gradient("d_vf_loss/d_vpred", v.d_values, value_gradient_terms(vf, v));
  j.gradient("d_loss/d_vpred_full", with_column(weighted.d_values, rows, columns), value_gradient_terms(vf, weighted));
  const numbers d_logp = with_column(p.d_logp, rows, columns);
  j.gradient("d_loss/d_logits", backward(j, policy, forward, d_logp),
             spread_rows(scaled(magnitudes(d_logp), logit / policy.options.temperature), policy.vocabulary));
}

// TRL: a response has its length and one token more; the critic has yet another one.
constexpr auto trl = [](auto& j) {
  const golden_case& c = j.c;
  const array& responses = c.input("responses", {0, 0});
  const std::size_t rows = responses.shape[0], columns = responses.shape[1];
  const numbers& lengths = c.input("sequence_lengths", {rows}).data;
  update u{rows, columns, {}, {}, {}, false};
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t t = 0; t < columns; ++t) {
      const double at = static_cast<double>(t);
      u.scored.push_back(at <= lengths[r]);
      u.valued.push_back(at <= lengths[r] + 1);
      u.padding.push_back(at > lengths[r]);
    }
  compare_update(j, u);
};

// drpo: no padding; what was rolled in is left out of the policy loss, and of nothing else.
constexpr auto drpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& rolled_in = c.input("rollin_masks", {0, 0});
  const std::size_t n = rolled_in.data.size();
  update u{rolled_in.shape[0], rolled_in.shape[1], {}, flags(n, 1), flags(n, 0), true};
  for (double e : rolled_in.data) u.scored.push_back(e == 0);
  compare_update(j, u);
};

const bool registered[] = {
    map_cases({"trl_ppo_update", "PPOTrainer.train (statements at lines 813-868)", every_case, on_each_backend(trl)}),
    map_cases({"drpo_ppo", "__main__ (statements at lines 851-904)", every_case, on_each_backend(drpo)}),
};

}  // namespace
}  // namespace golden

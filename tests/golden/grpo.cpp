// GRPO and its variants as TRL and Liger have them.
#include "golden/policy_calls.hpp"

namespace golden {
namespace {

using plumb::aggregation;
using plumb::surrogate_level;
constexpr double nothing_cancels = 0;

double mean(const numbers& x) {
  double sum = 0;
  for (double e : x) sum += e;
  return sum / static_cast<double>(x.size());
}
bool any_of(const std::string& x, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* n) { return x == n; });
}

// What both peers make of their options. Arrays are `[rows, columns]`; one advantage per row.
struct grpo_batch {
  std::string loss_type;
  std::size_t rows = 0, columns = 0;
  policy_call in{};
  layout_arrays everywhere{};  ///< every column counts, padding too

  bool vespo() const { return loss_type == "vespo"; }
  bool luspo() const { return loss_type == "luspo"; }
  bool of_rows() const { return in.options.level == surrogate_level::sequence_mean; }
  bool with_kl() const { return in.options.kl_coefficient != 0; }
};

template <class Job>
grpo_batch batch_of(const Job& j, const numbers& logp, const flags& mask, std::size_t rows, std::size_t columns) {
  const golden_case& c = j.c;
  grpo_batch x{.loss_type = c.text("loss_type"), .rows = rows, .columns = columns};
  policy_call& in = x.in;
  in.logp = logp;
  in.sequence_advantages = c.input("advantages", {rows}).data;
  in.sequences = padded(rows, columns, mask);
  x.everywhere = padded(rows, columns, flags(rows * columns, 1));
  if (c.has_input("old_per_token_logps")) in.old_logp = c.input("old_per_token_logps", {rows, columns}).data;
  const double beta = c.number("beta", 0);
  if (beta != 0) in.ref_logp = c.has_input("ref_per_token_logps") ? c.input("ref_per_token_logps", {rows, columns}).data : logp;

  plumb::presets::grpo_settings said{.epsilon = c.number("epsilon_low"), .epsilon_high = c.number("epsilon_high"), .delta = c.number("delta", 0),
                                     .beta = beta, .use_bias_correction_kl = c.flag("use_bias_correction_kl", false)};
  said.sapo_temperature_pos = c.number("sapo_temperature_pos", said.sapo_temperature_pos);
  said.sapo_temperature_neg = c.number("sapo_temperature_neg", said.sapo_temperature_neg);
  said.vespo_k_pos = c.number("vespo_k_pos", said.vespo_k_pos);
  said.vespo_k_neg = c.number("vespo_k_neg", said.vespo_k_neg);
  said.vespo_lambda_pos = c.number("vespo_lambda_pos", said.vespo_lambda_pos);
  said.vespo_lambda_neg = c.number("vespo_lambda_neg", said.vespo_lambda_neg);
  const std::string level = c.is_set("importance_sampling_level") ? c.text("importance_sampling_level") : "token";
  take(in, plumb::presets::trl().grpo(x.loss_type, said, level));
  plumb::policy_loss_options& o = in.options;
  const double size = static_cast<double>(rows);
  const double tokens = at_least_1(scored_tokens(in.sequences));
  o.denominator = tokens;
  if (any_of(x.loss_type, {"grpo", "sapo", "gmpo", "luspo"})) {
    o.denominator = size;
  } else if (x.loss_type == "dr_grpo") {
    o.denominator = size * c.number("max_completion_length");
  } else if (any_of(x.loss_type, {"dapo", "cispo", "vespo"})) {
    if (c.has_input("num_items_in_batch")) o.denominator = at_least_1(c.input("num_items_in_batch", {}).data[0]);
    if (c.is_set("num_items_in_batch")) o.denominator = at_least_1(c.number("num_items_in_batch"));
  }
  return x;
}

// VESPO's ratio is of whole rows, with the sampler's ratio of every column, padding too: old log-probabilities that hold
// all this. What counts is then chosen by weights.
void enter_vespo(grpo_batch& x, const numbers& sampler_ratio) {
  policy_call& in = x.in;
  const numbers old = in.old_logp.empty() ? in.logp : in.old_logp;
  in.old_logp = in.logp;
  in.importance_weights = doubles(in.sequences.scored);
  for (std::size_t t = 0; t < in.logp.size(); ++t) {
    if (in.sequences.counts(t)) in.old_logp[t] -= std::clamp(in.logp[t] - old[t], -20.0, 20.0);
    if (!sampler_ratio.empty()) in.old_logp[t] -= std::clamp(std::log(sampler_ratio[t]), -in.options.log_ratio_low, in.options.log_ratio_high);
  }
}

policy_answer sum_of(policy_answer a, const policy_answer& b) {
  a.loss += b.loss;
  a.d_logp = plus(a.d_logp, b.d_logp);
  a.token_loss = larger(magnitudes(a.token_loss), magnitudes(b.token_loss));
  return a;
}

// The loss and its gradient. `token_loss` of the answer serves as what enters the sum.
template <class Job>
policy_answer total(Job& j, const grpo_batch& x) {
  policy_call in = x.in;
  if (x.vespo()) {
    in.sequences = x.everywhere;
    if (!x.with_kl()) return call(j, in);
    // The KL is over what counts.
    in.options.kl_coefficient = 0;
    in.ref_logp.clear();
    policy_call kl = x.in;
    kl.sequence_advantages = zeros(x.rows);
    kl.importance_weights.clear();
    kl.options.level = surrogate_level::token;
    return sum_of(call(j, in), call(j, kl));
  }
  if (!x.luspo() || (x.of_rows() && !x.with_kl())) return call(j, in);
  // Outside of its intended use LUSPO's mean runs over all columns, padding too, each row times its length.
  const auto of_row = [&](policy_call one, std::size_t r) {
    one.sequences = x.everywhere;
    one = sequence_of(one, r);
    one.options.aggregate = aggregation::token_mean;
    one.options.denominator *= static_cast<double>(x.columns);
    one.options.weight = x.in.sequences.count(r);
    return call(j, one);
  };
  policy_answer y{.d_logp = zeros(in.logp.size()), .token_loss = zeros(in.logp.size())};
  if (!x.of_rows()) {
    for (std::size_t r = 0; r < x.rows; ++r) y = sum_of(y, of_row(in, r));
    return y;
  }
  policy_call kl = in;
  kl.old_logp.clear();
  kl.importance_weights.clear();
  kl.sequence_advantages = zeros(x.rows);
  kl.options.level = surrogate_level::token;
  kl.options.kl_times_ratio = false;
  for (std::size_t r = 0; r < x.rows; ++r) {
    if (!in.options.kl_times_ratio) {
      y = sum_of(y, of_row(kl, r));
      continue;
    }
    // The KL of every column times the ratio of what counts: first with the ratio held, then the slope through the ratio.
    if (x.in.sequences.count(r) == 0) continue;
    policy_call through = sequence_of(x.in, r);
    const double ratio = call(j, through).metrics[mean_ratio];
    kl.kl_weights = numbers(in.logp.size(), ratio);
    const policy_answer held = of_row(kl, r);
    y = sum_of(y, held);
    through.surrogate = plumb::surrogate::ratio{};
    through.sequence_advantages = {-held.loss / ratio};
    through.importance_weights.clear();
    through.ref_logp.clear();
    through.options.kl_coefficient = 0;
    through.options.aggregate = aggregation::sequence_mean;
    through.options.denominator = 1;
    y.d_logp = plus(y.d_logp, call(j, through).d_logp);
  }
  in.options.kl_coefficient = 0;
  in.ref_logp.clear();
  return sum_of(y, call(j, in));
}

// The term of every token, padding too: each takes the log-ratio of its row where that is what counts.
template <class Job>
numbers terms_of_tokens(Job& j, const grpo_batch& x, const numbers& weights) {
  policy_call in = x.in;
  in.importance_weights = weights;
  if (in.options.level != surrogate_level::token) {
    in.old_logp = in.logp;
    for (std::size_t r = 0; r < x.rows; ++r) {
      policy_call one = sequence_of(x.in, r);
      if (x.vespo()) one.sequences = x.everywhere.sequence(r);
      const double ratio = one.sequences.count(0) > 0 ? call(j, one).metrics[mean_ratio] : 1;
      for (std::size_t t = r * x.columns; t < (r + 1) * x.columns; ++t) in.old_logp[t] -= std::log(ratio);
    }
    in.options.level = surrogate_level::token;
  }
  in.sequences = x.everywhere;
  return call(j, in).token_loss;
}
template <class Job>
numbers kl_of_tokens(Job& j, grpo_batch x) {
  x.in.sequence_advantages = zeros(x.rows);
  x.in.options.kl_coefficient = 1;
  return terms_of_tokens(j, x, {});
}

// Of rows whose advantage is positive, as a share of all tokens: where TRL and Liger count CISPO's cap.
template <class Job>
double cispo_share(Job& j, const grpo_batch& x) {
  double clipped = 0;
  for (std::size_t r = 0; r < x.rows; ++r) {
    if (!(x.in.sequence_advantages[r] > 0) || x.in.sequences.count(r) == 0) continue;
    clipped += call(j, sequence_of(x.in, r)).metrics[clip_high] * x.in.sequences.count(r);
  }
  return clipped / at_least_1(scored_tokens(x.in.sequences));
}

// DeepSeek-V3.2's mask: rows of a negative advantage whose mean log-ratio from the sampler is too large are dropped.
template <class Job>
numbers off_policy_rows(Job& j, const grpo_batch& x, const numbers& sampler_logp, double threshold) {
  const flags kept = call(j, sampler_call{x.in.logp, sampler_logp, x.in.sequences},
                          plumb::rejection::k1{.lower = std::exp(-threshold), .upper = 1e30},
                          plumb::rejection_options{.level = plumb::ratio_level::sequence_mean})
                         .scored;
  numbers y;
  for (std::size_t r = 0; r < x.rows; ++r) {
    bool keeps = x.in.sequence_advantages[r] >= 0 || (x.in.sequences.count(r) == 0 && threshold >= 0);
    for (std::size_t t = r * x.columns; t < (r + 1) * x.columns; ++t) keeps = keeps || kept[t] != 0;
    y.push_back(keeps ? 1 : 0);
  }
  return y;
}

constexpr auto trl_grpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("per_token_logps", {0, 0});
  const std::size_t rows = logp.shape[0], columns = logp.shape[1];
  grpo_batch x = batch_of(j, logp.data, to_flags(c.input("completion_mask", logp.shape).data), rows, columns);
  const numbers entropies = c.input("entropies", logp.shape).data;
  const double tokens = scored_tokens(x.in.sequences), steps = c.number("grad_accum", 1);

  // What multiplies each token's policy term, at every column.
  numbers weights(logp.data.size(), 1), sampler_ratio;
  if (c.is_set("off_policy_mask_threshold")) {
    const numbers sampler = c.has_input("sampling_per_token_logps") ? c.input("sampling_per_token_logps", logp.shape).data
                            : x.in.old_logp.empty()                 ? x.in.logp
                                                                    : x.in.old_logp;
    const numbers kept = off_policy_rows(j, x, sampler, c.number("off_policy_mask_threshold"));
    j.output("off_policy_mask", kept, nothing_cancels);
    weights = times(weights, spread_rows(kept, columns));
  }
  layout_arrays bonus_on = x.in.sequences;
  const double quantile = 1 - c.number("top_entropy_quantile", 1);
  if (quantile > 0) {
    const numbers mask = select_largest(j, entropies, x.in.sequences, tokens - std::ceil(quantile * (tokens - 1)));
    j.output("entropy_mask", mask, nothing_cancels);
    weights = times(weights, mask);
    bonus_on.scored = to_flags(mask);
  }
  if (c.has_input("importance_sampling_ratio") && c.flag("use_vllm", true)) {
    sampler_ratio = c.input("importance_sampling_ratio", logp.shape).data;
    if (!x.vespo()) weights = times(weights, sampler_ratio);
  }
  x.in.importance_weights = weights;
  if (x.vespo()) {
    enter_vespo(x, sampler_ratio);
    x.in.importance_weights = times(weights, x.in.importance_weights);
  }
  policy_answer y = total(j, x);
  double loss = y.loss, share = 1;
  numbers d_logp = y.d_logp;
  if (!any_of(x.loss_type, {"dapo", "cispo", "vespo"})) {
    share = 1 / steps;
    loss *= share;
    d_logp = scaled(d_logp, share);
  }
  if (c.outputs.count("metric_policy_loss") > 0) j.output("metric_policy_loss", {y.loss}, largest_term(y));
  const double bonus = c.number("entropy_coef", 0);
  if (bonus != 0) {
    policy_call of_entropy{.logp = x.in.logp,
                           .sequence_advantages = zeros(rows),
                           .entropy = entropies,
                           .sequences = bonus_on,
                           .surrogate = plumb::surrogate::reinforce{}};
    of_entropy.options.entropy_coefficient = bonus;
    of_entropy.options.weight = share;
    of_entropy.options.denominator =
        share == 1 && any_of(x.loss_type, {"dapo", "cispo", "vespo"}) ? x.in.options.denominator
                                                                      : at_least_1(scored_tokens(bonus_on));
    const policy_answer h = call(j, of_entropy);
    loss += h.loss;
    if (c.gradients.count("d_loss/d_entropies") > 0) j.gradient("d_loss/d_entropies", h.d_entropy, nothing_cancels);
    if (c.outputs.count("metric_entropy_coef") > 0) j.output("metric_entropy_coef", {bonus}, nothing_cancels);
  }
  const double largest_kl = x.with_kl() ? largest(kl_of_tokens(j, x)) + 1 : 0;
  j.output("loss", {loss}, std::max(largest_term(y), largest_kl));
  entering gradient_terms = std::max(largest(d_logp), x.with_kl() ? x.in.options.kl_coefficient * largest_kl / x.in.options.denominator : 0);
  if (x.loss_type == "sapo") {
    policy_call plain = x.in;
    plain.surrogate = plumb::surrogate::reinforce{};
    plain.options.level = surrogate_level::of_surrogate;
    plain.options.kl_coefficient = 0;
    plain.ref_logp.clear();
    gradient_terms.each = larger(numbers(d_logp.size(), gradient_terms.each[0]),
                                 sapo_gradient_terms(x.in, scaled(call(j, plain).d_logp, share)));
  }
  j.gradient("d_loss/d_per_token_logps", d_logp, gradient_terms);

  // Terms at every column; of a row alone, one number.
  const auto narrow = [&](numbers z, bool of_rows) {
    if (!of_rows) return z;
    numbers first;
    for (std::size_t r = 0; r < rows; ++r) first.push_back(z[r * columns]);
    return first;
  };
  if (c.outputs.count("per_token_loss") > 0) {
    const numbers terms = terms_of_tokens(j, x, weights);
    j.output("per_token_loss", narrow(terms, c.outputs.at("per_token_loss").shape[1] == 1), largest(terms));
  }
  if (c.outputs.count("per_sequence_loss") > 0) {
    numbers of_rows;
    for (std::size_t r = 0; r < rows; ++r) {
      policy_call one = sequence_of(x.in, r);
      one.options.denominator = 1;
      of_rows.push_back(call(j, one).loss);
    }
    j.output("per_sequence_loss", of_rows, largest(of_rows));
  }
  if (x.with_kl()) {
    const numbers kl = kl_of_tokens(j, x);
    j.output("per_token_kl", kl, largest(kl) + 1);
  }

  policy_call watched = x.in;
  watched.entropy = entropies;
  if (x.vespo()) watched.options.level = surrogate_level::token;
  const policy_answer z = call(j, watched);
  j.output("metric_entropy", {z.metrics[mean_entropy]}, nothing_cancels);
  if (x.with_kl()) j.output("metric_kl", {z.metrics[reference_kl]}, largest_kl);
  if (x.loss_type == "cispo") j.output("metric_cispo_clip_ratio", {cispo_share(j, x)}, nothing_cancels);
  if (x.vespo()) {
    // The weight is the gradient of a row's sum of log-probabilities with an advantage of +-1.
    numbers phi;
    for (std::size_t r = 0; r < rows; ++r) {
      policy_call one = x.in;
      one.sequences = x.everywhere;
      one.sequence_advantages[r] = one.sequence_advantages[r] < 0 ? -1 : 1;
      one.importance_weights.clear();
      one.options.kl_coefficient = 0;
      one.ref_logp.clear();
      one = sequence_of(one, r);
      one.options.denominator = static_cast<double>(columns);
      double sum = 0;
      for (double g : call(j, one).d_logp) sum += std::fabs(g);
      phi.push_back(sum);
    }
    const numbers terms = scaled(numbers(rows, 1), largest(x.in.logp));
    j.output("phi_seq", phi, terms);
    j.output("metric_vespo_phi_seq_mean", {mean(phi)}, largest(terms));
  }
  if (!any_of(x.loss_type, {"grpo", "bnpo", "dr_grpo", "dapo", "luspo", "gmpo"})) return;
  const bool by_rows = c.outputs.count("per_token_loss") > 0 && x.of_rows();
  numbers low, high;
  for (std::size_t r = 0; r < rows; ++r) {
    const policy_call one = sequence_of(x.in, r);
    if (x.in.sequences.count(r) == 0) {
      if (by_rows) low.push_back(0), high.push_back(0);
      continue;
    }
    const policy_answer of_row = call(j, one);
    low.push_back(of_row.metrics[clip_low]);
    high.push_back(of_row.metrics[clip_high]);
  }
  const double low_mean = by_rows ? mean(low) : z.metrics[clip_low], high_mean = by_rows ? mean(high) : z.metrics[clip_high];
  j.output("metric_clip_ratio_low_mean", {low_mean}, nothing_cancels);
  j.output("metric_clip_ratio_high_mean", {high_mean}, nothing_cancels);
  j.output("metric_clip_ratio_region_mean", {low_mean + high_mean}, nothing_cancels);
  j.output("metric_clip_ratio_low_min", {*std::min_element(low.begin(), low.end())}, nothing_cancels);
  j.output("metric_clip_ratio_high_max", {*std::max_element(high.begin(), high.end())}, nothing_cancels);
};

// Liger from hidden states: targets lie at their rows.
constexpr auto liger_grpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& input = c.input("input", {0, 0, 0});
  const std::size_t rows = input.shape[0], columns = input.shape[1], width = input.shape[2];
  const array& weight = c.input("weight", {0, width});
  linear_call policy{.hidden = input.data,
                     .head = weight.data,
                     .rows = rows * columns,
                     .width = width,
                     .vocabulary = weight.shape[0]};
  policy.targets = to_ids(c.input("selected_token_ids", {rows, columns}).data);
  policy.options.logits.temperature = c.number("temperature", 1);
  if (c.has_input("bias")) policy.bias = c.input("bias", {policy.vocabulary}).data;
  const token_logp_answer forward = call(j, policy);
  const double logit = std::max(1.0, largest_logit_term(policy) / policy.options.logits.temperature);
  grpo_batch x = batch_of(j, forward.logp, to_flags(c.input("attention_mask", {rows, columns}).data), rows, columns);
  numbers sampler_ratio;
  if (c.has_input("vllm_is_ratio")) {
    const array& ratio = c.input("vllm_is_ratio", {rows, 0});
    sampler_ratio = ratio.shape[1] == columns ? ratio.data : spread_rows(ratio.data, columns);
    if (!x.vespo()) x.in.importance_weights = sampler_ratio;
  }
  if (x.vespo()) enter_vespo(x, sampler_ratio);
  const policy_answer y = total(j, x);
  j.output("loss", {y.loss}, logit * std::max(1.0, largest_term(y)));
  policy_call watched = x.in;
  if (x.vespo()) watched.options.level = surrogate_level::token;
  const policy_answer z = call(j, watched);
  const double clipped = x.loss_type == "cispo"                 ? cispo_share(j, x)
                         : any_of(x.loss_type, {"sapo", "vespo"}) ? 0
                                                                : z.metrics[clip_fraction];
  j.output("metric_clip_ratio", {clipped}, nothing_cancels);
  if (x.with_kl()) j.output("metric_kl", {z.metrics[reference_kl]}, logit * std::max(1.0, z.metrics[reference_kl]));
  const linear_gradients g = backward(j, policy, forward, y.d_logp);
  const double d = largest(y.d_logp) * logit / policy.options.logits.temperature;
  j.gradient("d_loss/d_input", g.d_hidden, d * largest(policy.head));
  j.gradient("d_loss/d_weight", g.d_head, d * largest(policy.hidden));
  if (!policy.bias.empty()) j.gradient("d_loss/d_bias", g.d_bias, d);
};

constexpr case_runner trl = on_each_backend(trl_grpo);
const bool registered[] = {
    map_cases({"trl_grpo_loss", "GRPOTrainer._compute_loss", every_case, trl}),
    map_cases({"trl_grpo_loss", "GMPOTrainer._compute_loss", every_case, trl}),
    map_cases({"liger_grpo", "LigerFusedLinearGRPOLoss", every_case, on_each_backend(liger_grpo)}),
};

}  // namespace
}  // namespace golden

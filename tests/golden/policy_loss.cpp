// Policy-gradient losses of verl, OpenRLHF, NeMo-Aligner, rlax and TRL's RLOO.
#include "golden/policy_calls.hpp"

namespace golden {
namespace {

using plumb::aggregation;
using plumb::surrogate_level;
constexpr double nothing_cancels = 0;

// verl.

void aggregate_as(policy_call& in, const plumb::aggregate_options& a) {
  in.options.aggregate = a.mode;
  in.options.denominator = a.denominator > 0 ? a.denominator : 1;
  in.options.length_epsilon = a.length_epsilon;
}
// `loss_agg_mode`, with the counts of the global batch as options of its own.
void aggregate_as_verl(golden_case c, policy_call& in, const char* mode = nullptr) {
  if (c.is_set("global_batch_info")) c.options.update(nlohmann::json(c.options.at("global_batch_info")));
  if (mode != nullptr) c.options["loss_agg_mode"] = mode;
  aggregate_as(in, verl_aggregation(c, in.sequences, c.input("log_prob", {0, 0}).shape[1]));
}

struct verl_bounds {
  double low, high;
};
verl_bounds bounds_of(const golden_case& c) {
  const double both = c.number(c.is_set("cliprange") ? "cliprange" : "clip_ratio", 0);
  return {c.number("clip_ratio_low", c.number("cliprange_low", both)),
          c.number("clip_ratio_high", c.number("cliprange_high", both))};
}

// The loss by verl's own name.
template <class Job>
void choose_verl(Job& j, policy_call& in, const char* loss_mode) {
  const golden_case& c = j.c;
  const auto [low, high] = bounds_of(c);
  plumb::presets::verl_settings s{.clip_ratio_low = low, .clip_ratio_high = high, .clip_ratio_c = c.number("clip_ratio_c", 3)};
  s.tau_pos = c.number("tau_pos", s.tau_pos);
  s.tau_neg = c.number("tau_neg", s.tau_neg);
  if (c.is_set("policy_loss") && c.options.at("policy_loss").contains("ppo_kl_coef")) s.ppo_kl_coef = c.options.at("policy_loss").at("ppo_kl_coef").get<double>();
  take(in, plumb::presets::verl().policy_loss(loss_mode, s));
}

// What all of verl's losses take.
template <class Job>
policy_call verl_inputs(Job& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("log_prob", {0, 0});
  policy_call in{.logp = logp.data,
                 .old_logp = c.input("old_log_prob", logp.shape).data,
                 .advantages = c.input("advantages", logp.shape).data,
                 .sequences = padded(logp.shape[0], logp.shape[1],
                                     to_flags(c.input("response_mask", logp.shape).data))};
  if (c.has_input("rollout_is_weights")) in.importance_weights = c.input("rollout_is_weights", logp.shape).data;
  return in;
}

// verl's means divide by the count + 1e-8.
double verl_mean(const policy_call& in, double mean) {
  const double n = scored_tokens(in.sequences);
  return mean * n / (n + verl_epsilon);
}
// Its approximate KL is of log-ratios within +-20 where the loss is.
template <class Job>
double verl_kl(Job& j, policy_call in, bool limited) {
  if (limited)
    for (std::size_t t = 0; t < in.logp.size(); ++t)
      in.logp[t] = in.old_logp[t] + std::clamp(in.logp[t] - in.old_logp[t], -20.0, 20.0);
  return verl_mean(in, call(j, in).metrics[approx_kl]);
}

template <class Job>
void compare_verl(Job& j, const policy_call& in, const policy_answer& y, bool limited_kl,
                  const entering& gradient_terms = nothing_cancels) {
  const golden_case& c = j.c;
  j.output("loss", {y.loss}, largest_term(y));
  j.gradient("d_loss/d_log_prob", y.d_logp, gradient_terms);
  if (c.outputs.count("ppo_kl") > 0)
    j.output("ppo_kl", {verl_kl(j, in, limited_kl)}, std::max(largest(in.logp), largest(in.old_logp)));
}
template <class Job>
void compare_verl_clips(Job& j, const policy_call& in, double clipped, double lower) {
  j.output("pg_clipfrac", {verl_mean(in, clipped)}, nothing_cancels);
  j.output("pg_clipfrac_lower", {verl_mean(in, lower)}, nothing_cancels);
}
constexpr auto verl_vanilla = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  choose_verl(j, in, "vanilla");
  aggregate_as_verl(c, in);
  const policy_answer y = call(j, in);
  compare_verl(j, in, y, true);
  compare_verl_clips(j, in, y.metrics[clip_fraction], y.metrics[cap_fraction]);
};

constexpr auto verl_gspo = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  choose_verl(j, in, "gspo");
  aggregate_as_verl(c, in, "seq-mean-token-mean");
  const policy_answer y = call(j, in);
  compare_verl(j, in, y, false);
  compare_verl_clips(j, in, y.metrics[clip_fraction], 0);
};

constexpr auto verl_sapo = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  choose_verl(j, in, "sapo");
  aggregate_as_verl(c, in, "seq-mean-token-mean");
  const policy_answer y = call(j, in);
  policy_call plain = in;  // what each token counts for: the gradient of -logp A
  plain.surrogate = plumb::surrogate::reinforce{};
  compare_verl(j, in, y, true, sapo_gradient_terms(in, call(j, plain).d_logp));
  compare_verl_clips(j, in, 0, 0);
};

constexpr auto verl_reinforce = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  choose_verl(j, in, "reinforce");
  aggregate_as_verl(c, in);
  compare_verl(j, in, call(j, in), false);
};

constexpr auto verl_cispo = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  choose_verl(j, in, "cispo");
  aggregate_as_verl(c, in);
  const policy_answer y = call(j, in);
  compare_verl(j, in, y, true);
  compare_verl_clips(j, in, y.metrics[clip_fraction], 0);
};

// verl's lengths are longer by 1e-8, under the mean log-ratio too: log-ratios and their bounds shrink by that, in each
// sequence. Rows without a token count in the mean. Weights enter by their geometric mean.
constexpr auto verl_geo_mean = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  const auto [low, high] = bounds_of(c);
  choose_verl(j, in, "geo_mean");
  in.options.denominator = static_cast<double>(in.sequences.sequences());
  const numbers weights = in.importance_weights;
  double loss = 0, terms = 0;
  numbers d_logp(in.logp.size());
  for (std::size_t s = 0; s < in.sequences.begin.size(); ++s) {
    policy_call one = sequence_of(in, s);
    const double n = in.sequences.count(s), shrink = n / (n + verl_epsilon);
    if (n == 0) continue;
    one.surrogate = plumb::surrogate::gmpo{.low = low * shrink, .high = high * shrink};
    for (std::size_t t = 0; t < one.logp.size(); ++t)
      one.logp[t] = one.old_logp[t] + shrink * (one.logp[t] - one.old_logp[t]);
    if (!weights.empty()) {
      double sum = 0;
      for (auto t = static_cast<std::size_t>(in.sequences.begin[s]); t < static_cast<std::size_t>(in.sequences.end[s]); ++t)
        if (in.sequences.counts(t)) sum += std::log(weights[t] + 1e-10);
      one.importance_weights = numbers(one.logp.size(), std::exp(sum / (n + verl_epsilon)));
    }
    const policy_answer y = call(j, one);
    loss += y.loss;
    terms = std::max(terms, largest_term(y));
    d_logp = plus(d_logp, scaled(y.d_logp, shrink));
  }
  j.output("loss", {loss}, terms);
  j.gradient("d_loss/d_log_prob", d_logp, terms / in.options.denominator);
  j.output("ppo_kl", {verl_kl(j, in, false)}, std::max(largest(in.logp), largest(in.old_logp)));
  // verl counts log-ratios outside on either side, ours on the side that counts: the other one for the other sign.
  in.surrogate = plumb::surrogate::gmpo{.low = low, .high = high};
  policy_call other = in;
  other.advantages = scaled(in.advantages, -1);
  const policy_answer y = call(j, in), z = call(j, other);
  compare_verl_clips(j, in, y.metrics[clip_high] + z.metrics[clip_low], y.metrics[clip_low] + z.metrics[clip_high]);
};

double from_policy_loss(const golden_case& c, const char* key) {
  return c.options.at("policy_loss").at(key).get<double>();
}
// A share of the scored tokens, at least one.
double share_of(const policy_call& in, double share) {
  return at_least_1(std::floor(share * scored_tokens(in.sequences)));
}

constexpr auto verl_kl_cov = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  choose_verl(j, in, "kl_cov");
  in.kl_weights = select_by_covariance(j, in.logp, in.advantages, {}, in.sequences,
                                       {.count = share_of(in, from_policy_loss(c, "kl_cov_ratio"))})
                      .chosen;
  if (!in.importance_weights.empty()) in.kl_weights = times(in.kl_weights, in.importance_weights);
  if (in.options.kl_coefficient == 0) in.kl_weights.clear();
  in.ref_logp = in.old_logp;
  aggregate_as_verl(c, in);
  const policy_answer y = call(j, in);
  j.output("loss", {y.loss}, largest_term(y));
  j.gradient("d_loss/d_log_prob", y.d_logp, largest(y.d_logp));
  j.output("ppo_kl", {verl_mean(in, y.metrics[abs_log_ratio])}, std::max(largest(in.logp), largest(in.old_logp)));
};

// Where there are more candidates than verl drops, it draws them by chance, which no numbers of ours can follow; where there are not, all of
// them go.
constexpr auto verl_clip_cov = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  choose_verl(j, in, "clip_cov");
  aggregate_as_verl(c, in);
  const selected_tokens candidates = select_by_covariance(j, in.logp, in.advantages, call(j, in).clipped, in.sequences,
                                                          {.count = at_least_1(scored_tokens(in.sequences)),
                                                           .lower = from_policy_loss(c, "clip_cov_lb"),
                                                           .upper = from_policy_loss(c, "clip_cov_ub")});
  double found = 0;
  for (double x : candidates.chosen) found += x;
  const double dropped = share_of(in, from_policy_loss(c, "clip_cov_ratio"));
  j.output("pg_clipfrac", {std::min(found, dropped) / (scored_tokens(in.sequences) + verl_epsilon)}, nothing_cancels);
  if (found > dropped) {
    for (const char* name : {"loss", "d_loss/d_log_prob"})
      if (c.outputs.count(name) + c.gradients.count(name) > 0) j.leave_out(name, "left to chance which of the candidates verl drops");
    if (c.outputs.count("ppo_kl") > 0)
      j.output("ppo_kl", {verl_kl(j, in, false)}, std::max(largest(in.logp), largest(in.old_logp)));
    return;
  }
  in.importance_weights = in.importance_weights.empty() ? candidates.rest : times(candidates.rest, in.importance_weights);
  compare_verl(j, in, call(j, in), false);
};

// Where verl corrects for the sampler inside of the loss, it reports all that it reports elsewhere: those outputs are given to the mappings
// of these other functions.
template <class B>
backend_kind kind_of(const job<B>&) {
#if PLUMB_GOLDEN_XTENSOR
  if (std::is_same_v<B, plumb::xtensor::backend>) return backend_kind::xtensor;
#endif
#if PLUMB_GOLDEN_ONEDNN
  if (std::is_same_v<B, plumb::onednn::backend>) return backend_kind::onednn;
#endif
  return backend_kind::serial;
}
const std::string reported = "rollout_corr/";

template <class Job>
void compare_as(Job& j, golden_case as, std::initializer_list<const char*> starts, std::initializer_list<const char*> but) {
  for (const auto& [name, value] : j.c.outputs) {
    if (name.rfind(reported, 0) != 0) continue;
    const std::string rest = name.substr(reported.size());
    const auto begins = [&](const char* with) { return rest.rfind(with, 0) == 0; };
    if (std::any_of(starts.begin(), starts.end(), begins) && std::none_of(but.begin(), but.end(), begins))
      as.outputs[rest] = value;
  }
  const mapping* m = find_mapping(as);
  if (m == nullptr) as.fail("is not mapped");
  as.file = j.c.file;
  outcome o = run_case(*m, kind_of(j), as);
  for (std::string& sentence : o.failures) {  // by the name that the array has here
    for (const auto& [name, value] : as.outputs)
      if (const auto at = sentence.find(": `" + name + "`"); at != std::string::npos) {
        sentence.insert(at + 3, reported);
        break;
      }
    j.o.failures.push_back(sentence);
  }
  for (auto& one : o.arrays) {
    one.name = reported + one.name;
    if (j.c.outputs.count(one.name) > 0) j.o.arrays.push_back(one);
  }
}

array like(const array& x, const numbers& data) { return {x.shape, x.dtype, data}; }

// The statistics of a criterion: of each row's divergence, or each token's, as the library gives it for that row alone.
template <class Job>
void compare_rejection(Job& j, const sampler_call& in, const std::string& option, const std::string& threshold,
                       const flags& kept) {
  enum row : std::size_t { rejected, rejected_sequences, divergence };
  const std::string name = reported + "rollout_rs_" + option;
  const bool k1 = option.find("k1") != std::string::npos, of_tokens = option.rfind("token", 0) == 0;
  const std::size_t line = threshold.find('_');
  const double upper = std::stod(line == std::string::npos ? threshold : threshold.substr(line + 1));
  const double lower = line == std::string::npos ? 1 / upper : std::stod(threshold.substr(0, line));
  const double most = k1 ? std::log(upper) : upper, least = k1 ? std::log(lower) : 0;
  const double n = scored_tokens(in.sequences) + verl_epsilon;
  layout_arrays items = in.sequences;
  if (of_tokens) {
    items.begin.clear();
    items.end.clear();
    for (std::size_t t = 0; t < in.logp.size(); ++t)
      if (in.sequences.counts(t)) items.begin.push_back(static_cast<std::int32_t>(t)), items.end.push_back(static_cast<std::int32_t>(t + 1));
  }
  struct {
    double sum = 0, square = 0, high = 0, low = 0, all = 0, all_high = 0, all_low = 0, count = 0;
  } s;
  numbers each;
  for (std::size_t r = 0; r < items.begin.size(); ++r) {
    const double length = items.count(r);
    if (length == 0) continue;
    const double d =
        verl_rejection(j, sampler_call{in.logp, in.sampler_logp, items.sequence(r)}, option, threshold).metrics.values[divergence];
    const double inside = std::clamp(d, least, most);
    each.push_back(d);
    s.sum += length * inside;
    s.square += length * inside * inside;
    s.all += length * d;
    s.all_high += length * (d > most);
    s.all_low += length * (k1 && d < least);
    s.high += d > most;
    s.low += k1 && d < least;
    s.count += 1;
  }
  const double terms = largest(each) + 1, largest_of = *std::max_element(each.begin(), each.end()),
               smallest = *std::min_element(each.begin(), each.end());
  j.output(name + "_mean", {s.all / n}, terms);
  j.output(name + "_max", {largest_of}, terms);
  j.output(name + "_min", {smallest}, terms);
  j.output(name + "_fraction_high", {of_tokens ? s.all_high / n : s.high / s.count}, nothing_cancels);
  j.output(name + "_fraction_low", {of_tokens ? s.all_low / n : s.low / s.count}, nothing_cancels);
  const double deviation = std::sqrt(plumb::variance_from_sums(s.sum, s.square, n));
  j.output(name + "_std", {deviation}, deviation > 0 ? terms * terms / deviation : terms);
  if (of_tokens) {  // then per row: the mean of its tokens
    each.clear();
    for (std::size_t r = 0; r < in.sequences.begin.size(); ++r) {
      const double length = in.sequences.count(r);
      if (length == 0) continue;
      double sum = 0;
      for (std::size_t i = 0; i < items.begin.size(); ++i)
        if (items.begin[i] >= in.sequences.begin[r] && items.end[i] <= in.sequences.end[r])
          sum += verl_rejection(j, sampler_call{in.logp, in.sampler_logp, items.sequence(i)}, option, threshold).metrics.values[divergence];
      each.push_back(sum / (length + verl_epsilon));
    }
  }
  double sum = 0, high = 0, low = 0, squares = 0;
  for (double d : each) {
    sum += d;
    high += d > most;
    low += d < least;
  }
  const double rows = static_cast<double>(each.size()), mean = sum / rows;
  for (double d : each) squares += (d - mean) * (d - mean);
  const double spread = rows > 1 ? std::sqrt(squares / (rows - 1)) : 0;
  j.output(name + "_seq_mean", {mean}, terms);
  j.output(name + "_seq_std", {spread}, spread > 0 ? terms * terms / spread : terms);
  j.output(name + "_seq_max", {*std::max_element(each.begin(), each.end())}, terms);
  j.output(name + "_seq_min", {*std::min_element(each.begin(), each.end())}, terms);
  j.output(name + "_seq_max_deviation", {largest(each)}, terms);
  j.output(name + "_seq_fraction_high", {high / rows}, nothing_cancels);
  if (k1) j.output(name + "_seq_fraction_low", {low / rows}, nothing_cancels);
  double lost = 0, rows_lost = 0;
  for (std::size_t r = 0; r < in.sequences.begin.size(); ++r) {
    const layout_arrays one = in.sequences.sequence(r);
    double of_row = 0;
    for (auto t = static_cast<std::size_t>(one.begin[0]); t < static_cast<std::size_t>(one.end[0]); ++t)
      of_row += one.counts(t) && kept[t] == 0;
    lost += of_row;
    rows_lost += of_row > 0;
  }
  j.output(name + "_masked_fraction", {lost / n}, nothing_cancels);
  j.output(name + "_seq_masked_fraction", {rows_lost / rows}, nothing_cancels);
}

constexpr auto verl_bypass = [](auto& j) {
  const golden_case& c = j.c;
  policy_call in = verl_inputs(j);
  in.importance_weights.clear();
  const array& logp = c.input("log_prob", {0, 0});
  const array& mask = c.input("response_mask", logp.shape);
  const nlohmann::json& correction = c.options.at("policy_loss").at("rollout_correction");
  const auto is_set = [&](const char* key) { return correction.contains(key) && !correction.at(key).is_null(); };
  const sampler_call sampler{in.logp, in.old_logp, in.sequences};
  numbers weights;
  if (is_set("rollout_is")) {
    const std::string level = correction.at("rollout_is").template get<std::string>();
    const double threshold = is_set("rollout_is_threshold") ? correction.at("rollout_is_threshold").template get<double>() : 2;
    const bool normalize = is_set("rollout_is_batch_normalize") && correction.at("rollout_is_batch_normalize").template get<bool>();
    weights = verl_weights(j, sampler, level, threshold, normalize).weights;
    golden_case is{.file = "verl_rollout_correction",
                   .name = c.name,
                   .function = "compute_rollout_correction_weights",
                   .options = {{"rollout_is", level}, {"rollout_is_threshold", threshold}, {"rollout_is_batch_normalize", normalize}},
                   .inputs = {{"log_ratio", like(logp, plus(in.logp, scaled(in.old_logp, -1)))}, {"response_mask", mask}},
                   .outputs = {{"weights", like(logp, weights)}},
                   .gradients = {}};
    compare_as(j, is, {"rollout_is_"}, {});
  }
  golden_case apart{.file = "verl_rollout_correction",
                    .name = c.name,
                    .function = "compute_offpolicy_metrics",
                    .options = nlohmann::json::object(),
                    .inputs = {{"old_log_prob", logp}, {"rollout_log_prob", like(logp, in.old_logp)}, {"response_mask", mask}},
                    .outputs = {},
                    .gradients = {}};
  compare_as(j, apart, {""}, {"rollout_is_", "rollout_rs_"});
  if (is_set("rollout_rs")) {
    enum row : std::size_t { rejected, rejected_sequences };
    const std::string criterion = correction.at("rollout_rs").template get<std::string>();
    const nlohmann::json& bound = correction.at("rollout_rs_threshold");
    const std::string threshold = bound.is_string() ? bound.template get<std::string>() : bound.dump();
    if (criterion.find(',') != std::string::npos) c.fail("several criteria at once are not mapped");
    const rejection_answer y = verl_rejection(j, sampler, criterion, threshold);
    compare_rejection(j, sampler, criterion, threshold, y.scored);
    const double rows = static_cast<double>(in.sequences.begin.size());
    j.output(reported + "rollout_rs_masked_fraction", {y.metrics.sums[rejected] / (y.metrics.counts[rejected] + verl_epsilon)}, nothing_cancels);
    j.output(reported + "rollout_rs_seq_masked_fraction", {y.metrics.sums[rejected_sequences] / rows}, nothing_cancels);
    in.sequences.scored = y.scored;
  }
  aggregate_as_verl(c, in);
  const std::string type = is_set("loss_type") ? correction.at("loss_type").template get<std::string>() : "ppo_clip";
  if (type == "reinforce") {
    in.surrogate = plumb::surrogate::reinforce{};
    in.importance_weights = weights;
    compare_verl(j, in, call(j, in), false);
    return;
  }
  if (type != "ppo_clip") c.fail("`loss_type` is " + type);
  choose_verl(j, in, "vanilla");
  aggregate_as_verl(c, in);
  const policy_answer y = call(j, in);
  compare_verl(j, in, y, true);
  compare_verl_clips(j, in, y.metrics[clip_fraction], y.metrics[cap_fraction]);
};

// OpenRLHF.
constexpr auto openrlhf = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("log_probs", {0, 0});
  policy_call in{.logp = logp.data,
                 .old_logp = c.input("old_log_probs", logp.shape).data,
                 .advantages = c.input("advantages", logp.shape).data,
                 .sequences = padded(logp.shape[0], logp.shape[1],
                                     to_flags(c.input("action_mask", logp.shape).data))};
  policy_call behind = in;  // what the KL is of, whatever the ratio is of
  behind.options.denominator = 1;
  const std::string type_of_loss = c.is_set("policy_loss_type") ? c.text("policy_loss_type") : "ppo";
  const bool gspo = type_of_loss == "gspo";
  take(in, plumb::presets::openrlhf().policy_loss(type_of_loss, c.number("clip_eps_low", 0.2), c.number("clip_eps_high", 0.2),
                                                  c.number("dual_clip", 0)));
  const double ranks = c.number("dp_size", 1);
  if (!gspo && c.flag("token_level_loss", true)) {
    in.options.denominator = at_least_1(c.number("batch_num_tokens", scored_tokens(in.sequences))) / ranks;
  } else {
    in.options.aggregate = aggregation::sequence_mean;
    in.options.length_epsilon = 1e-8;
    in.options.denominator = at_least_1(c.number("global_batch_size", rows_with_tokens(in.sequences))) / ranks;
  }
  const double logps = std::max(largest(in.logp), largest(in.old_logp));
  if (c.flag("enable_vllm_is_correction", false)) {
    const numbers rollout = c.input("rollout_log_probs", logp.shape).data;
    if (gspo) {
      in.old_logp = rollout;
    } else {
      const auto bounds = c.options.at("vllm_is_truncated_threshold").template get<std::vector<double>>();
      const std::string type = c.is_set("vllm_is_correction_type") ? c.text("vllm_is_correction_type") : "tis";
      sampler_call from{in.old_logp, rollout, in.sequences};
      if (type == "icepop") {
        in.importance_weights = call(j, from, plumb::correction::masked{bounds[0], bounds[1]}, plumb::importance_options{}).weights;
      } else if (type == "seq-mask-tis") {
        from.sequences.scored = call(j, from, plumb::rejection::k1{bounds[0], bounds[1]},
                                     plumb::rejection_options{.level = plumb::ratio_level::sequence_mean})
                                    .scored;
        in.importance_weights = call(j, from, plumb::correction::none{}, plumb::importance_options{}).weights;
      } else {
        in.importance_weights = call(j, from, plumb::correction::truncated{bounds[0], bounds[1]}, plumb::importance_options{}).weights;
      }
      policy_call sampler = behind;
      sampler.logp = in.old_logp;
      sampler.old_logp = rollout;
      j.output("vllm_kl", {call(j, sampler).metrics[approx_kl]}, std::max(logps, largest(rollout)));
    }
  }
  const policy_answer y = call(j, in);
  j.output("loss", {y.loss}, largest_term(y));
  j.gradient("d_loss/d_log_probs", y.d_logp, nothing_cancels);
  j.output("clip_ratio", {y.metrics[clip_fraction]}, nothing_cancels);
  j.output("ppo_kl", {call(j, behind).metrics[approx_kl]}, logps);
};

// NeMo-Aligner: row t predicts token t + 1. Replies that did not end count in the statistics of the ratio alone.
struct nemo_batch {
  std::size_t rows = 0, columns = 0;
  token_logp_call policy;
  token_logp_answer forward;
  layout_arrays sequences, ended;
};
numbers with_last_column(const numbers& x, std::size_t rows, std::size_t columns) {
  numbers y;
  for (std::size_t r = 0; r < rows; ++r) y = joined(joined(std::move(y), part(x, r * (columns - 1), columns - 1)), {0});
  return y;
}
template <class Job>
nemo_batch nemo_inputs(Job& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t rows = logits.shape[0], columns = logits.shape[1];
  nemo_batch x;
  x.rows = rows;
  x.columns = columns;
  x.policy = rows_of(logits);
  const ids tokens = to_ids(c.input("response_tokens", {rows, columns}).data);
  for (std::size_t t = 0; t < tokens.size(); ++t)
    x.policy.targets.push_back((t + 1) % columns == 0 ? -1 : tokens[t + 1]);
  x.forward = call(j, x.policy);
  x.sequences = padded(rows, columns, to_flags(with_last_column(c.input("mask", {rows, columns - 1}).data, rows, columns)));
  x.ended = x.sequences;
  const numbers is_end = spread_rows(c.input("is_end", {rows}).data, columns);
  for (std::size_t t = 0; t < is_end.size(); ++t)
    if (is_end[t] == 0) x.ended.scored[t] = 0;
  return x;
}

constexpr auto nemo_actor = [](auto& j) {
  const golden_case& c = j.c;
  const nemo_batch x = nemo_inputs(j);
  const auto wide = [&](const char* name) {
    return with_last_column(c.input(name, {x.rows, x.columns - 1}).data, x.rows, x.columns);
  };
  const double eps = c.number("ratio_eps"), bonus = c.number("entropy_bonus"), ended = scored_tokens(x.ended);
  policy_call in{.logp = x.forward.logp,
                 .old_logp = wide("prev_logprobs"),
                 .advantages = wide("advantages"),
                 .entropy = x.forward.entropy,
                 .sequences = x.ended};
  take(in, plumb::presets::nemo_aligner().ppo(eps, bonus), at_least_1(ended));
  const policy_answer y = call(j, in);
  const double logit = largest(largest_of_rows(x.policy));
  j.output("loss", {y.loss}, largest_term(y) * logit);
  j.output("curr_log_probs", without_last_column(x.forward.logp, x.rows, x.columns),
           without_last_column(largest_of_rows(x.policy), x.rows, x.columns));
  j.output("scaled_entropy", {bonus == 0 ? 0 : bonus * y.metrics[mean_entropy]}, bonus * logit);
  in.sequences = x.sequences;
  const policy_answer all = call(j, in);
  in.options.log_ratio_low = -std::log1p(-eps);  // the ratio kept within 1 -+ eps
  in.options.log_ratio_high = std::log1p(eps);
  j.output("ppo_ratio", {all.metrics[mean_ratio]}, logit);
  j.output("ppo_ratio_clamped", {call(j, in).metrics[mean_ratio]}, logit);
  const numbers d_rows = magnitudes(plus(magnitudes(y.d_logp), magnitudes(y.d_entropy)));
  j.gradient("d_loss/d_logits", backward(j, x.policy, x.forward, y.d_logp, y.d_entropy),
             times(spread_rows(d_rows, x.policy.vocabulary), spread_rows(largest_of_rows(x.policy), x.policy.vocabulary)));
  if (c.gradients.count("d_loss/d_curr_log_probs") > 0)
    j.gradient("d_loss/d_curr_log_probs", without_last_column(y.d_logp, x.rows, x.columns),
               scaled(without_last_column(magnitudes(y.d_logp), x.rows, x.columns), logit));
};

// One row: NeMo's rewards broadcast along the wrong axis where there are more.
constexpr auto nemo_reinforce = [](auto& j) {
  const golden_case& c = j.c;
  const nemo_batch x = nemo_inputs(j);
  const bool any = scored_tokens(x.ended) > 0;
  policy_call in{.logp = x.forward.logp,
                 .sequence_advantages = plus(c.input("rewards_with_kl", {x.rows}).data,
                                             scaled(c.input("baseline", {x.rows}).data, -1)),
                 .sequences = any ? x.sequences : x.ended,
                 .surrogate = plumb::surrogate::reinforce{}};
  in.options.denominator = at_least_1(scored_tokens(in.sequences));
  const policy_answer y = call(j, in);
  const double logit = largest(largest_of_rows(x.policy));
  j.output("loss", {y.loss}, largest(in.sequence_advantages) * logit);
  j.gradient("d_loss/d_logits", backward(j, x.policy, x.forward, y.d_logp),
             spread_rows(times(magnitudes(y.d_logp), largest_of_rows(x.policy)), x.policy.vocabulary));
};

// rlax takes the ratios themselves.
constexpr auto rlax_clipped = [](auto& j) {
  const golden_case& c = j.c;
  const numbers ratios = c.input("prob_ratios_t", {0}).data;
  const double eps = c.number("epsilon");
  policy_call in{.old_logp = zeros(ratios.size()),
                 .advantages = c.input("adv_t", {ratios.size()}).data,
                 .sequences = padded(1, ratios.size(), {}),
                 .surrogate = plumb::surrogate::clip{.low = eps, .high = eps},
                 .options = {.denominator = static_cast<double>(ratios.size())}};
  for (double r : ratios) in.logp.push_back(std::log(r));
  const policy_answer y = call(j, in);
  j.output("loss", {y.loss}, largest_term(y));
  numbers d_ratios = y.d_logp;
  for (std::size_t t = 0; t < ratios.size(); ++t) d_ratios[t] /= ratios[t];
  j.gradient("d_loss/d_prob_ratios_t", d_ratios, nothing_cancels);
};

// TRL's RLOO: the ratio of whole replies; old log-probabilities are given as sums.
constexpr auto trl_rloo = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("per_token_logps", {0, 0});
  const std::size_t rows = logp.shape[0], columns = logp.shape[1];
  policy_call in{.logp = logp.data,
                 .old_logp = zeros(logp.data.size()),
                 .sequence_advantages = c.input("advantages", {rows}).data,
                 .entropy = c.input("entropies", logp.shape).data,
                 .sequences = padded(rows, columns, to_flags(c.input("completion_mask", logp.shape).data))};
  take(in, plumb::presets::trl().rloo(c.number("epsilon_low"), c.number("epsilon_high")), static_cast<double>(rows));
  const numbers old = c.input("old_logps", {rows}).data;
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t t = 0; t < columns; ++t) in.old_logp[r * columns + t] = old[r] / in.sequences.count(r);
  const policy_answer y = call(j, in);
  const double sums = largest(y.token_loss) * std::max(largest(old), 1.0);
  j.output("loss", {y.loss}, sums);
  j.gradient("d_loss/d_per_token_logps", y.d_logp, sums / static_cast<double>(rows));
  j.output("metric_entropy", {y.metrics[mean_entropy]}, nothing_cancels);
  numbers of_rows, low, high;
  for (std::size_t r = 0; r < rows; ++r) {
    policy_call one = sequence_of(in, r);
    one.options.denominator = 1;
    const policy_answer z = call(j, one);
    of_rows.push_back(z.loss);
    low.push_back(z.metrics[clip_low]);
    high.push_back(z.metrics[clip_high]);
  }
  const auto mean = [&](const numbers& x) {
    double sum = 0;
    for (double e : x) sum += e;
    return sum / static_cast<double>(rows);
  };
  j.output("per_sequence_loss", of_rows, sums);
  j.output("metric_clip_ratio_low_mean", {mean(low)}, nothing_cancels);
  j.output("metric_clip_ratio_low_min", {*std::min_element(low.begin(), low.end())}, nothing_cancels);
  j.output("metric_clip_ratio_high_mean", {mean(high)}, nothing_cancels);
  j.output("metric_clip_ratio_high_max", {*std::max_element(high.begin(), high.end())}, nothing_cancels);
  j.output("metric_clip_ratio_region_mean", {mean(low) + mean(high)}, nothing_cancels);
};

constexpr const char* nemo_file = "nemo_ppo";
const bool registered[] = {
    map_cases({"verl_policy_loss", "compute_policy_loss_vanilla", every_case, on_each_backend(verl_vanilla)}),
    map_cases({"verl_policy_loss", "compute_policy_loss", every_case, on_each_backend(verl_vanilla)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_gspo", every_case, on_each_backend(verl_gspo)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_sapo", every_case, on_each_backend(verl_sapo)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_gpg", every_case, on_each_backend(verl_reinforce)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_reinforce", every_case, on_each_backend(verl_reinforce)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_cispo", every_case, on_each_backend(verl_cispo)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_geo_mean", every_case, on_each_backend(verl_geo_mean)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_kl_cov", every_case, on_each_backend(verl_kl_cov)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_clip_cov", every_case, on_each_backend(verl_clip_cov)}),
    map_cases({"verl_policy_loss", "compute_policy_loss_bypass_mode", every_case, on_each_backend(verl_bypass)}),
    map_cases({"openrlhf_policy_loss", "PolicyLoss.forward", every_case, on_each_backend(openrlhf)}),
    map_cases({nemo_file,
               "MegatronGPTActorModel.get_actor_forward_output_and_loss_func.fwd_output_and_loss_func.loss_func",
               every_case, on_each_backend(nemo_actor)}),
    map_cases(
        {nemo_file,
         "MegatronGPTReinforceActorModel.get_actor_forward_output_and_loss_func.fwd_output_and_loss_func.loss_func",
         every_case, on_each_backend(nemo_reinforce)}),
    map_cases({"rlax_returns", "clipped_surrogate_pg_loss", every_case, on_each_backend(rlax_clipped)}),
    map_cases({"trl_rloo", "RLOOTrainer._compute_loss", every_case, on_each_backend(trl_rloo)}),
};

}  // namespace
}  // namespace golden

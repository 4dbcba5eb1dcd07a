#pragma once
// Importance weights, rejection and statistics between sampler and trainer as functions of vectors.

#include "golden/aggregate_calls.hpp"

#include <plumb/ops/importance.hpp>

namespace golden {

/// Policy's and sampler's log-probabilities; only a log-ratio: the sampler's are 0.
struct sampler_call {
  numbers logp{}, sampler_logp{};
  layout_arrays sequences{};
};
/// A metrics array of the library: values, and what they are made of.
struct metric_table {
  numbers values, sums, counts;
};

template <class Real, std::size_t K>
metric_table table(const plumb::metric_info (&infos)[K], const std::vector<Real>& m) {
  metric_table t{.values = metric_values(infos, m), .sums = {}, .counts = metric_counts(m)};
  for (std::size_t k = 0; k < K; ++k) t.sums.push_back(static_cast<double>(m[2 * k]));
  return t;
}

struct weights_answer {
  numbers weights;  ///< per token
  metric_table metrics;  ///< as `plumb::importance_metrics`
};

/// `batch_mean` is the mean of the whole batch's weights, or 0: that of these.
template <class B, class Correction>
weights_answer call(job<B>& j, const sampler_call& in, const Correction& correct, const plumb::importance_options& options,
                    double batch_mean = 0) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), sampler_logp = reals(j, in.sampler_logp), mean = reals(j, {batch_mean, 1});
  std::vector<real> weights(logp.size()), metrics(2 * std::size(plumb::importance_metrics));
  scratch_memory scratch(plumb::importance_weights_workspace(j.b, in.sequences.get(), length(logp)));
  plumb::importance_weights(j.b, scratch.arena, {.logp = logp,
                             .sampler_logp = sampler_logp,
                             .batch_mean = batch_mean > 0 ? plumb::view<const real, 1>(mean) : plumb::view<const real, 1>(),
                             .sequences = in.sequences.get()},
                            correct, options,
                            {.weights = weights, .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  return {doubles(weights), table(plumb::importance_metrics, metrics)};
}

struct rejection_answer {
  flags scored;
  metric_table metrics;  ///< as `plumb::rejection_metrics`
};

/// `kept` is empty, or what earlier criteria kept.
template <class B, class Criterion>
rejection_answer call(job<B>& j, const sampler_call& in, const Criterion& criterion, const plumb::rejection_options& options,
                      const flags& kept = {}) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), sampler_logp = reals(j, in.sampler_logp);
  flags scored(logp.size());
  std::vector<real> metrics(2 * std::size(plumb::rejection_metrics));
  scratch_memory scratch(plumb::reject_tokens_workspace(j.b, in.sequences.get(), length(logp)));
  plumb::reject_tokens(j.b, scratch.arena, {.logp = logp,
                        .sampler_logp = sampler_logp,
                        .kept = kept.empty() ? plumb::view<const std::uint8_t, 1>() : plumb::view<const std::uint8_t, 1>(kept),
                        .sequences = in.sequences.get()},
                       criterion, options,
                       {.scored = scored, .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  return {scored, table(plumb::rejection_metrics, metrics)};
}

template <class B>
metric_table call(job<B>& j, const sampler_call& in, const plumb::ratio_statistics_options& options) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), sampler_logp = reals(j, in.sampler_logp);
  std::vector<real> metrics(2 * std::size(plumb::ratio_statistics_metrics));
  scratch_memory scratch(plumb::ratio_statistics_workspace(j.b, in.sequences.get(), length(logp)));
  plumb::ratio_statistics(j.b, scratch.arena, {.logp = logp, .sampler_logp = sampler_logp, .sequences = in.sequences.get()}, options,
                          plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2));
  return table(plumb::ratio_statistics_metrics, metrics);
}

template <class B>
metric_table call(job<B>& j, const sampler_call& in, const plumb::off_policy_options& options) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), sampler_logp = reals(j, in.sampler_logp);
  std::vector<real> metrics(2 * std::size(plumb::off_policy_metrics));
  scratch_memory scratch(plumb::off_policy_statistics_workspace(j.b, in.sequences.get(), length(logp)));
  plumb::off_policy_statistics(j.b, scratch.arena, {.logp = logp, .sampler_logp = sampler_logp, .sequences = in.sequences.get()}, options,
                               plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2));
  return table(plumb::off_policy_metrics, metrics);
}

// verl's conventions, shared with its bypass mode.

inline constexpr double verl_limit = 20;

/// verl's `rollout_rs` and `rollout_rs_threshold`: criteria with commas between, each with a bound of its own or all with one; k1's are of
/// sampler over policy, a single one stands for itself and its inverse. Answers the mask that is left and the metrics after the last criterion.
template <class B>
rejection_answer verl_rejection(job<B>& j, const sampler_call& in, const std::string& options, const std::string& thresholds) {
  const golden_case& c = j.c;
  const auto parts = [](const std::string& text) {
    std::vector<std::string> found;
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t comma = std::min(text.find(',', at), text.size());
      std::string part = text.substr(at, comma - at);
      part.erase(0, part.find_first_not_of(' '));
      part.erase(part.find_last_not_of(' ') + 1);
      if (!part.empty()) found.push_back(part);
      at = comma + 1;
    }
    return found;
  };
  const std::vector<std::string> names = parts(options), bounds = parts(thresholds);
  if (names.empty() || (bounds.size() != 1 && bounds.size() != names.size())) c.fail("`rollout_rs_threshold` is " + thresholds);
  rejection_answer y;
  for (std::size_t k = 0; k < names.size(); ++k) {
    const std::size_t split = names[k].rfind('_');
    const std::string level = names[k].substr(0, split), estimator = names[k].substr(split + 1);
    const std::string& bound = bounds[bounds.size() == 1 ? 0 : k];
    const auto run = [&](auto criterion) {
      plumb::rejection_options o{.log_ratio_limit = verl_limit, .length_epsilon = verl_epsilon};
      if (level == "seq_sum") {
        o.level = plumb::ratio_level::sequence_sum;
      } else if (level == "seq_mean") {
        o.level = plumb::ratio_level::sequence_mean;
      } else if (level == "seq_max") {
        o.level = plumb::ratio_level::sequence_any;
      } else if (level != "token") {
        c.fail("`rollout_rs` is " + options);
      }
      const flags before = y.scored;
      y = call(j, in, criterion, o, before);
    };
    if (estimator == "k1") {
      const std::size_t line = bound.find('_');
      const double upper = std::stod(line == std::string::npos ? bound : bound.substr(line + 1));
      const double lower = line == std::string::npos ? 1 / upper : std::stod(bound.substr(0, line));
      run(plumb::rejection::k1{.lower = 1 / upper, .upper = 1 / lower});
    } else if (estimator == "k2") {
      run(plumb::rejection::k2{.upper = std::stod(bound)});
    } else if (estimator == "k3") {
      run(plumb::rejection::k3{.upper = std::stod(bound)});
    } else {
      c.fail("`rollout_rs` is " + options);
    }
  }
  return y;
}

/// verl's `rollout_is` weights: truncated from above, and divided by their mean if that is more than 1e-8. Answers that mean, too.
struct verl_weights_answer {
  numbers weights;
  double mean;
};
template <class B>
verl_weights_answer verl_weights(job<B>& j, const sampler_call& in, const std::string& level, double threshold, bool normalize) {
  const bool of_tokens = level == "token";
  if (!of_tokens && level != "sequence") j.c.fail("`rollout_is` is " + level);
  const plumb::correction::truncated truncated{.lower = 0, .upper = threshold};
  plumb::importance_options options{.level = of_tokens ? plumb::ratio_level::token : plumb::ratio_level::sequence_sum,
                                    .log_ratio_limit = verl_limit};
  const weights_answer plain = call(j, in, truncated, options);
  if (!normalize) return {plain.weights, 1};
  const plumb::aggregate_options means =
      of_tokens ? plumb::aggregate_options{.denominator = scored_tokens(in.sequences) + verl_epsilon}
                : plumb::aggregate_options{.mode = plumb::aggregation::sequence_mean,
                                           .denominator = rows_with_tokens(in.sequences),
                                           .length_epsilon = verl_epsilon};
  const double mean = call(j, aggregate_call{plain.weights, in.sequences, means}).loss;
  if (!(mean > 1e-8)) return {plain.weights, 1};
  options.normalize = true;
  return {call(j, in, truncated, options, mean).weights, mean};
}

}  // namespace golden

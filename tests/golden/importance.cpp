// Correction between sampler and trainer.
#include "golden/importance_calls.hpp"

#include <plumb/presets.hpp>

namespace golden {
namespace {

template <class Job>
sampler_call verl_log_ratio(const Job& j) {
  const array& x = j.c.input("log_ratio", {0, 0});
  return {x.data, zeros(x.data.size()),
          padded(x.shape[0], x.shape[1], to_flags(j.c.input("response_mask", x.shape).data))};
}

/// Rows of `plumb::ratio_statistics_metrics`.
enum ratio_row : std::size_t {
  ratio, ratio_min, ratio_max, low, high, bounded, bounded_square,
  sequence_ratio, sequence_square, sequence_min, sequence_max, sequence_deviation, sequence_low, sequence_high
};

/// What enters a standard deviation that is the root of a difference of squares; the terms themselves have lost `lost` times their rounding.
double of_square_root(double terms, double deviation, double lost = 1) { return lost * terms * terms / std::max(deviation, 1e-2 * terms); }

// verl counts a row without tokens as one whose mean weight is 0 (and whose log-ratio, summed, is 0); we do not count it.
constexpr auto verl_is = [](auto& j) {
  const golden_case& c = j.c;
  const sampler_call in = verl_log_ratio(j);
  const std::string level = c.text("rollout_is");
  const double threshold = c.number("rollout_is_threshold");
  const bool of_tokens = level == "token", normalize = c.flag("rollout_is_batch_normalize", false);
  // Of a token, or the sum over a sequence.
  double largest_log = of_tokens ? largest_scored(in.logp, in.sequences) : 0;
  if (!of_tokens)
    for (std::size_t s = 0; s < in.sequences.begin.size(); ++s)
      largest_log = std::max(largest_log, largest_scored(in.logp, in.sequences.sequence(s)) * in.sequences.count(s));
  const verl_weights_answer w = verl_weights(j, in, level, threshold, normalize);
  j.output("weights", w.weights, largest(w.weights) * largest_log);
  if (normalize) j.output("rollout_is_batch_norm_factor", {w.mean}, threshold * largest_log);

  plumb::ratio_statistics_options options{.level = of_tokens ? plumb::ratio_level::token : plumb::ratio_level::sequence_sum,
                                          .lower = 1 / threshold,
                                          .upper = threshold,
                                          .log_ratio_limit = verl_limit,
                                          .length_epsilon = verl_epsilon};
  const metric_table m = call(j, in, options);
  options.log_ratio_limit = options.length_epsilon = 0;
  const metric_table exact = call(j, in, options);
  const double n = m.counts[ratio] + verl_epsilon, rows = static_cast<double>(in.sequences.begin.size());
  const bool empty_rows = rows > m.counts[sequence_ratio];
  const double terms = m.values[ratio_max] * std::max(1.0, largest_log);
  j.output("rollout_is_mean", {m.sums[ratio] / n}, terms);
  const double most = of_tokens ? m.values[ratio_max] : std::min(exact.values[ratio_max], std::exp(verl_limit));
  j.output("rollout_is_max", {empty_rows && !of_tokens ? std::max(most, 1.0) : most}, terms);
  const double least = of_tokens ? m.values[ratio_min] : exact.values[ratio_min];
  j.output("rollout_is_min", {empty_rows && !of_tokens ? std::min(least, 1.0) : least}, terms);
  j.output("rollout_is_ratio_fraction_high", {of_tokens ? m.sums[high] / n : exact.sums[sequence_high] / rows}, 0);
  j.output("rollout_is_ratio_fraction_low", {of_tokens ? m.sums[low] / n : exact.sums[sequence_low] / rows}, 0);
  const double deviation = m.counts[ratio] > 1 ? std::sqrt(plumb::variance_from_sums(m.sums[bounded], m.sums[bounded_square], n)) : 0;
  j.output("rollout_is_std", {deviation}, of_square_root(threshold, deviation));
  const double mean = m.sums[bounded] / n, shift = (mean + verl_epsilon) / mean;
  j.output("rollout_is_eff_sample_size",
           {plumb::effective_sample_share(m.sums[bounded], m.sums[bounded_square], n) * shift * shift}, threshold * threshold);
  j.output("rollout_is_seq_mean", {m.sums[sequence_ratio] / rows}, terms);
  const double spread = std::sqrt(plumb::variance_from_sums(m.sums[sequence_ratio], m.sums[sequence_square], rows, true));
  j.output("rollout_is_seq_std", {spread}, of_square_root(m.values[sequence_max], spread, std::max(1.0, largest_log)));
  j.output("rollout_is_seq_max", {std::max(m.values[sequence_max], 0.0)}, terms);
  j.output("rollout_is_seq_min", {empty_rows ? 0 : m.values[sequence_min]}, terms);
  j.output("rollout_is_seq_max_deviation", {std::max(m.values[sequence_deviation], empty_rows ? 1.0 : 0.0)}, terms);
  j.output("rollout_is_seq_fraction_high", {m.sums[sequence_high] / rows}, 0);
  j.output("rollout_is_seq_fraction_low", {(m.sums[sequence_low] + rows - m.counts[sequence_low]) / rows}, 0);
};

constexpr auto verl_rs = [](auto& j) {
  const golden_case& c = j.c;
  const sampler_call in = verl_log_ratio(j);
  const rejection_answer y = verl_rejection(j, in, c.text("rollout_rs"), c.text("rollout_rs_threshold"));
  enum row : std::size_t { rejected, rejected_sequences };
  j.output("mask", doubles(y.scored), 0);
  j.output("masked_fraction", {y.metrics.sums[rejected] / (y.metrics.counts[rejected] + verl_epsilon)}, 0);
  j.output("seq_masked_fraction", {y.metrics.sums[rejected_sequences] / static_cast<double>(in.sequences.begin.size())}, 0);
};

// verl counts a row without tokens as one whose mean log-probabilities are 0.
constexpr auto verl_off_policy = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("old_log_prob", {0, 0});
  const sampler_call in{logp.data, c.input("rollout_log_prob", logp.shape).data,
                        padded(logp.shape[0], logp.shape[1], to_flags(c.input("response_mask", logp.shape).data))};
  const metric_table m = call(j, in, plumb::off_policy_options{.log_ratio_limit = verl_limit, .length_epsilon = verl_epsilon});
  enum row : std::size_t {
    perplexity, log_perplexity, sampler_perplexity, sampler_log_perplexity, gap, gap_size, gap_min, gap_max, perplexity_ratio,
    kl, k3, chi_square, sequence_chi_square
  };
  const double rows = static_cast<double>(in.sequences.begin.size()), empty_rows = rows - m.counts[perplexity];
  const double n = m.counts[kl] + verl_epsilon;
  const double largest_log = std::max({1.0, largest_scored(in.logp, in.sequences), largest_scored(in.sampler_logp, in.sequences)});
  // What an error of the logarithms, relative to the largest of them, makes of a mean of exponentials.
  const auto exponential = [&](std::size_t row, double length) { return std::max(1.0, std::fabs(m.values[row])) * largest_log * length; };
  const auto of_rows = [&](std::size_t row, double of_empty) { return numbers{(m.sums[row] + empty_rows * of_empty) / rows}; };
  j.output("training_ppl", of_rows(perplexity, 1), exponential(perplexity, 1));
  j.output("training_log_ppl", of_rows(log_perplexity, 0), largest_log);
  j.output("rollout_ppl", of_rows(sampler_perplexity, 1), exponential(sampler_perplexity, 1));
  j.output("rollout_log_ppl", of_rows(sampler_log_perplexity, 0), largest_log);
  j.output("log_ppl_diff", of_rows(gap, 0), largest_log);
  j.output("log_ppl_abs_diff", of_rows(gap_size, 0), largest_log);
  j.output("log_ppl_diff_max", {empty_rows > 0 ? std::max(m.values[gap_max], 0.0) : m.values[gap_max]}, largest_log);
  j.output("log_ppl_diff_min", {empty_rows > 0 ? std::min(m.values[gap_min], 0.0) : m.values[gap_min]}, largest_log);
  j.output("ppl_ratio", of_rows(perplexity_ratio, 1), exponential(perplexity_ratio, 1));
  j.output("kl", {m.sums[kl] / n}, largest_log);
  j.output("k3_kl", {m.sums[k3] / n}, exponential(k3, 1));
  j.output("chi2_token", {(m.sums[chi_square] + m.counts[chi_square]) / n - 1}, exponential(chi_square, 1));
  j.output("chi2_seq", of_rows(sequence_chi_square, 0), exponential(sequence_chi_square, static_cast<double>(logp.shape[1])));
};

// TRL: a position outside the mask has log-ratio 0 and is corrected like the others; a sequence has one ratio.
constexpr auto trl = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("old_per_token_logps", {0, 0});
  const std::size_t rows = logp.shape[0], columns = logp.shape[1];
  const sampler_call in{logp.data, c.input("sampling_per_token_logps", logp.shape).data,
                        padded(rows, columns, to_flags(c.input("completion_mask", logp.shape).data))};
  const std::string mode = c.text("vllm_importance_sampling_mode");
  const bool of_tokens = mode.rfind("token", 0) == 0;
  if (mode != "token_truncate" && mode != "token_mask" && mode != "sequence_truncate" && mode != "sequence_mask")
    c.fail("`vllm_importance_sampling_mode` is " + mode);
  const auto run = [&](auto correction) {
    correction.lower = c.number("clip_min", 0);
    correction.upper = c.number("clip_max", 1e30);
    const numbers w = call(j, in, correction,
                           plumb::presets::trl().importance(mode))
                          .weights;
    numbers y;
    for (std::size_t r = 0; r < rows; ++r) {
      double of_row = correction(1.0);
      for (std::size_t t = r * columns; t < (r + 1) * columns; ++t) {
        const bool scored = in.sequences.counts(t);
        if (scored) of_row = w[t];
        if (of_tokens) y.push_back(scored ? w[t] : correction(1.0));
      }
      if (!of_tokens) y.push_back(of_row);
    }
    const double logs = std::max(1.0, largest_scored(in.logp, in.sequences)) * (of_tokens ? 1 : static_cast<double>(columns));
    j.output("ratio", y, scaled(y, logs));
  };
  if (mode.find("truncate") != std::string::npos) {
    run(plumb::correction::truncated{});
  } else {
    run(plumb::correction::masked{});
  }
};

const bool registered[] = {
    map_cases({"verl_rollout_correction", "compute_rollout_correction_weights", every_case, on_each_backend(verl_is)}),
    map_cases({"verl_rollout_correction", "compute_rollout_rejection_mask", every_case, on_each_backend(verl_rs)}),
    map_cases({"verl_rollout_correction", "compute_offpolicy_metrics", every_case, on_each_backend(verl_off_policy)}),
    map_cases({"trl_sampler_correction", "GRPOTrainer._generate_and_score_completions (statements at lines 2580-2623)", every_case,
               on_each_backend(trl)}),
};

}  // namespace
}  // namespace golden

#pragma once
// The aggregation that ends a token-level loss, as a function of vectors; how peers name its modes.

#include "golden/calls.hpp"

#include <plumb/ops/aggregate.hpp>

namespace golden {

struct aggregate_call {
  numbers values{};
  layout_arrays sequences{};
  plumb::aggregate_options options{};
};
struct aggregate_answer {
  double loss;
  numbers d_values;
};

template <class B>
aggregate_answer call(job<B>& j, const aggregate_call& in) {
  using real = typename B::real;
  const auto values = reals(j, in.values);
  std::vector<real> d_values(values.size());
  real loss = 0;
  scratch_memory scratch(plumb::aggregate_workspace(j.b, in.sequences.get()));
  plumb::aggregate(j.b, scratch.arena, {.values = values, .sequences = in.sequences.get()}, in.options,
                   {.loss = loss, .d_values = d_values});
  return {static_cast<double>(loss), doubles(d_values)};
}

inline double scored_tokens(const layout_arrays& rows) { return static_cast<double>(plumb::count_scored(rows.get())); }
inline double rows_with_tokens(const layout_arrays& rows) {
  double count = 0;
  for (std::size_t r = 0; r < rows.begin.size(); ++r) count += rows.count(r) > 0 ? 1 : 0;
  return count;
}
inline double largest_scored(const numbers& x, const layout_arrays& rows) {
  return largest(times(x, doubles(rows.scored)));
}

/// Peers divide by a count or a length plus this.
inline constexpr double verl_epsilon = 1e-8;

/// verl's `loss_agg_mode`. Counts are those of the batch or the global ones that are given; `dp_size` undoes the averaging over ranks that
/// follows. Rows without a token do not count. -sum-norm divides sums by a constant, the number of columns unless given.
inline plumb::aggregate_options verl_aggregation(const golden_case& c, const layout_arrays& rows, std::size_t columns) {
  using plumb::aggregation;
  const std::string mode = c.text("loss_agg_mode");
  const double ranks = c.number("dp_size", 1);
  if (mode == "token-mean")
    return {.mode = aggregation::token_mean, .denominator = c.number("batch_num_tokens", scored_tokens(rows)) / ranks};
  if (mode == "seq-mean-token-sum-norm")
    return {.mode = aggregation::sequence_sum, .denominator = c.number("loss_scale_factor", static_cast<double>(columns))};
  const double sequences = c.number("global_batch_size", rows_with_tokens(rows)) / ranks;
  if (mode == "seq-mean-token-sum") return {.mode = aggregation::sequence_sum, .denominator = sequences};
  if (mode != "seq-mean-token-mean") c.fail("`loss_agg_mode` is " + mode);
  return {.mode = aggregation::sequence_mean, .denominator = sequences, .length_epsilon = verl_epsilon};
}

/// OpenRLHF: per token, or per sample, with the same counts.
inline plumb::aggregate_options openrlhf_aggregation(const golden_case& c, const layout_arrays& rows, bool of_tokens) {
  const double count = of_tokens ? c.number("batch_num_tokens", scored_tokens(rows))
                                 : c.number("global_batch_size", rows_with_tokens(rows));
  return {.mode = of_tokens ? plumb::aggregation::token_mean : plumb::aggregation::sequence_mean,
          .denominator = count / c.number("dp_size", 1),
          .length_epsilon = of_tokens ? 0 : verl_epsilon};
}

}  // namespace golden

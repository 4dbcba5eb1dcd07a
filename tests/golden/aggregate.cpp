// Means over the tokens and sequences of a batch. The supervised loss of log-probabilities -x is the mean of x.
#include "golden/calls.hpp"

namespace golden {
namespace {

struct mean_of_batch {
  double value;
  numbers slope;  ///< by each token's number
};

// Padded rows `x`; `weight` is for means over a row.
template <class Job>
mean_of_batch mean_of(Job& j, const numbers& x, const layout_arrays& rows, bool of_row_means, double denominator) {
  const numbers weight = of_row_means ? nearly_means(rows, x.size()) : numbers(x.size(), 1);
  const supervised_answer y = call(
      j, supervised_call{.logp = scaled(times(weight, x), -1),
                         .sequences = rows,
                         .aggregate = of_row_means ? plumb::aggregation::sequence_mean : plumb::aggregation::token_mean,
                         .denominator = denominator});
  return {y.loss, scaled(times(weight, y.d_logp), -1)};
}

double scored_tokens(const layout_arrays& rows) { return static_cast<double>(plumb::count_scored(rows.get())); }
double rows_with_tokens(const layout_arrays& rows) {
  double count = 0;
  for (std::size_t r = 0; r < rows.begin.size(); ++r) count += rows.count(r) > 0 ? 1 : 0;
  return count;
}

// verl: counts are those of the batch or the global ones that are given; `dp_size` undoes the averaging over ranks that
// follows. Rows without a token do not count. -sum-norm divides sums by a constant, the number of columns unless given.
template <class Job>
mean_of_batch verl_mean(Job& j, const numbers& x, const layout_arrays& rows, std::size_t columns) {
  const golden_case& c = j.c;
  const std::string mode = c.text("loss_agg_mode");
  const double ranks = c.number("dp_size", 1);
  if (mode == "token-mean")
    return mean_of(j, x, rows, false, c.number("batch_num_tokens", scored_tokens(rows)) / ranks);
  if (mode == "seq-mean-token-sum-norm")
    return mean_of(j, x, rows, false, c.number("loss_scale_factor", static_cast<double>(columns)));
  const bool of_row_means = mode == "seq-mean-token-mean";
  if (!of_row_means && mode != "seq-mean-token-sum") c.fail("`loss_agg_mode` is " + mode);
  return mean_of(j, x, rows, of_row_means, c.number("global_batch_size", rows_with_tokens(rows)) / ranks);
}

constexpr double nothing_cancels = 0;
double largest_scored(const numbers& x, const layout_arrays& rows) { return largest(times(x, doubles(rows.scored))); }

constexpr auto verl_loss = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("loss_mat", {0, 0});
  const layout_arrays rows = padded(x.shape[0], x.shape[1], to_flags(c.input("loss_mask", x.shape).data));
  const mean_of_batch y = verl_mean(j, x.data, rows, x.shape[1]);
  j.output("loss", {y.value}, largest_scored(x.data, rows));
  if (!c.gradients.empty()) j.gradient("d_loss/d_loss_mat", y.slope, nothing_cancels);
};

constexpr auto verl_entropy_loss = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t columns = logits.shape[1];
  const layout_arrays rows =
      padded(logits.shape[0], columns, to_flags(c.input("response_mask", {logits.shape[0], columns}).data));
  const token_logp_call in = rows_of(logits);
  const token_logp_answer forward = call(j, in);
  const mean_of_batch y = verl_mean(j, forward.entropy, rows, columns);
  j.output("loss", {y.value}, largest(largest_of_rows(in)));
  j.gradient("d_loss/d_logits", backward(j, in, forward, {}, y.slope), entropy_gradient_terms(in, y.slope));
};

// OpenRLHF: per token, or per sample, with the same counts.
constexpr auto openrlhf_aggregate = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("loss", {0, 0});
  const layout_arrays rows = padded(x.shape[0], x.shape[1], to_flags(c.input("loss_mask", x.shape).data));
  const bool of_tokens = c.flag("token_level_loss", false);
  const double count = of_tokens ? c.number("batch_num_tokens", scored_tokens(rows))
                                 : c.number("global_batch_size", rows_with_tokens(rows));
  const mean_of_batch y = mean_of(j, x.data, rows, !of_tokens, count / c.number("dp_size", 1));
  j.output("aggregated", {y.value}, largest_scored(x.data, rows));
  j.gradient("d_aggregated/d_loss", y.slope, nothing_cancels);
};

const bool registered[] = {
    map_cases({"verl_agg_loss", "agg_loss", every_case, on_each_backend(verl_loss)}),
    map_cases({"verl_agg_loss", "compute_entropy_loss", every_case, on_each_backend(verl_entropy_loss)}),
    map_cases({"openrlhf_aggregate_loss", "aggregate_loss", every_case, on_each_backend(openrlhf_aggregate)}),
};

}  // namespace
}  // namespace golden

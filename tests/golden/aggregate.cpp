// Means over the tokens and sequences of a batch.
#include "golden/aggregate_calls.hpp"

namespace golden {
namespace {

constexpr double nothing_cancels = 0;

constexpr auto verl_loss = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("loss_mat", {0, 0});
  const layout_arrays rows = padded(x.shape[0], x.shape[1], to_flags(c.input("loss_mask", x.shape).data));
  const aggregate_answer y = call(j, aggregate_call{x.data, rows, verl_aggregation(c, rows, x.shape[1])});
  j.output("loss", {y.loss}, largest_scored(x.data, rows));
  if (!c.gradients.empty()) j.gradient("d_loss/d_loss_mat", y.d_values, nothing_cancels);
};

constexpr auto verl_entropy_loss = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t columns = logits.shape[1];
  const layout_arrays rows =
      padded(logits.shape[0], columns, to_flags(c.input("response_mask", {logits.shape[0], columns}).data));
  const token_logp_call in = rows_of(logits);
  const token_logp_answer forward = call(j, in);
  const aggregate_answer y = call(j, aggregate_call{forward.entropy, rows, verl_aggregation(c, rows, columns)});
  j.output("loss", {y.loss}, largest(largest_of_rows(in)));
  j.gradient("d_loss/d_logits", backward(j, in, forward, {}, y.d_values), entropy_gradient_terms(in, y.d_values));
};

constexpr auto openrlhf_aggregate = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("loss", {0, 0});
  const layout_arrays rows = padded(x.shape[0], x.shape[1], to_flags(c.input("loss_mask", x.shape).data));
  const aggregate_answer y =
      call(j, aggregate_call{x.data, rows, openrlhf_aggregation(c, rows, c.flag("token_level_loss", false))});
  j.output("aggregated", {y.loss}, largest_scored(x.data, rows));
  j.gradient("d_aggregated/d_loss", y.d_values, nothing_cancels);
};

const bool registered[] = {
    map_cases({"verl_agg_loss", "agg_loss", every_case, on_each_backend(verl_loss)}),
    map_cases({"verl_agg_loss", "compute_entropy_loss", every_case, on_each_backend(verl_entropy_loss)}),
    map_cases({"openrlhf_aggregate_loss", "aggregate_loss", every_case, on_each_backend(openrlhf_aggregate)}),
};

}  // namespace
}  // namespace golden

// Losses of critics.
#include "golden/value_loss_calls.hpp"

#include <plumb/presets.hpp>

namespace golden {
namespace {

namespace presets = plumb::presets;

constexpr auto verl = [](auto& j) {
  const golden_case& c = j.c;
  const array& values = c.input("vpreds", {0, 0});
  value_loss_call in{
      .values = values.data,
      .old_values = c.input("values", values.shape).data,
      .returns = c.input("returns", values.shape).data,
      .sequences = padded(values.shape[0], values.shape[1], to_flags(c.input("response_mask", values.shape).data)),
      .options = presets::verl().value_loss(c.number("cliprange_value"), c.text("loss_agg_mode"))};
  in.options.denominator = verl_aggregation(c, in.sequences, values.shape[1]).denominator;
  const value_loss_answer y = call(j, in);
  j.output("loss", {y.loss}, value_loss_terms(in));
  j.output("vf_clipfrac", {y.clipped / (y.count + verl_epsilon)}, 0);
  j.gradient("d_loss/d_vpreds", y.d_values, value_gradient_terms(in, y));
};

constexpr auto openrlhf = [](auto& j) {
  const golden_case& c = j.c;
  const array& values = c.input("values", {0, 0});
  value_loss_call in{
      .values = values.data,
      .old_values = c.input("old_values", values.shape).data,
      .returns = c.input("returns", values.shape).data,
      .sequences = padded(values.shape[0], values.shape[1], to_flags(c.input("action_mask", values.shape).data)),
      .options = presets::openrlhf().value_loss(c.number("clip_eps", 0), c.flag("token_level_loss", true))};
  in.options.denominator = openrlhf_aggregation(c, in.sequences, c.flag("token_level_loss", true)).denominator;
  const value_loss_answer y = call(j, in);
  j.output("loss", {y.loss}, value_loss_terms(in));
  j.gradient("d_loss/d_values", y.d_values, value_gradient_terms(in, y));
};

// The last column of the values is nobody's: the sequences end before it.
constexpr auto nemo = [](auto& j) {
  const golden_case& c = j.c;
  const array& values = c.input("values", {0, 0});
  const std::size_t rows = values.shape[0], columns = values.shape[1];
  value_loss_call in{
      .values = without_last_column(values.data, rows, columns),
      .old_values = c.input("prev_values", {rows, columns - 1}).data,
      .returns = c.input("returns", {rows, columns - 1}).data,
      .sequences = padded(rows, columns - 1, to_flags(c.input("mask", {rows, columns - 1}).data)),
      .options = presets::nemo_aligner().value_loss(c.number("clip_val"))};
  if (c.is_set("standardization"))
    in.options = presets::nemo_aligner().value_loss(c.number("clip_val"), c.options.at("standardization").at(0), c.options.at("standardization").at(1));
  in.options.denominator = scored_tokens(in.sequences);
  const value_loss_answer y = call(j, in);
  j.output("loss", {y.loss}, value_loss_terms(in));
  numbers d_values;
  for (std::size_t r = 0; r < rows; ++r) {
    d_values = joined(std::move(d_values), part(y.d_values, r * (columns - 1), columns - 1));
    d_values.push_back(0);
  }
  j.gradient("d_loss/d_values", d_values, value_gradient_terms(in, y));
};

const bool registered[] = {
    map_cases({"verl_value_loss", "compute_value_loss", every_case, on_each_backend(verl)}),
    map_cases({"openrlhf_value_loss", "ValueLoss.forward", every_case, on_each_backend(openrlhf)}),
    map_cases({"nemo_ppo", "MegatronGPTCriticModel.get_forward_output_and_loss_func.fwd_output_and_loss_func.loss_func",
               every_case, on_each_backend(nemo)}),
};

}  // namespace
}  // namespace golden

// Reward models: the peers' Bradley-Terry losses, attribute regression, and the supervised losses that OpenRLHF keeps
// with them.
#include "golden/calls.hpp"

namespace golden {
namespace {

// A loss is a sum of positive terms, and gradients are sigmoids of differences: nothing cancels, errors are relative.
constexpr double nothing_cancels = 0;

// TRL: mean over all pairs; `margin` inside the sigmoid; centring inside the mean; logs over both sides.
constexpr auto trl_reward = [](auto& j) {
  const golden_case& c = j.c;
  bradley_terry_call in{.chosen = c.input("chosen_rewards", {0}).data};
  const std::size_t pairs = in.chosen.size();
  in.rejected = c.input("rejected_rewards", {pairs}).data;
  if (c.has_input("margin")) in.margin = c.input("margin", {pairs}).data;
  in.center_coefficient = c.number("center_rewards_coefficient", 0);
  in.denominator = static_cast<double>(pairs);
  const bradley_terry_answer y = call(j, in);
  const double most = std::max(largest(in.chosen), largest(in.rejected));
  j.output("loss", {y.loss}, nothing_cancels);
  const auto metric = [&](const char* name, std::size_t row, double terms) { j.output(name, {y.metrics[row]}, terms); };
  metric("accuracy", 0, nothing_cancels);
  metric("margin_mean", 1, most);
  metric("mean_reward", 4, most);
  metric("min_reward", 5, nothing_cancels);
  metric("max_reward", 6, nothing_cancels);
  // The centring term's gradient has its own sign.
  const double center = 2 * in.center_coefficient * most / in.denominator;
  const double terms = center > 0 ? std::max(center, 1 / in.denominator) : nothing_cancels;
  j.gradient("d_loss/d_chosen_rewards", y.d_chosen, terms);
  j.gradient("d_loss/d_rejected_rewards", y.d_rejected, terms);
  if (!in.margin.empty()) j.gradient("d_loss/d_margin", y.d_margin, nothing_cancels);
};

// OpenRLHF: mean over all pairs. LogExpLoss is log(1 + exp(rejected - chosen)), the same function, unguarded: the 1 is
// among its terms.
template <bool log_exp>
constexpr auto openrlhf_reward = [](auto& j) {
  const golden_case& c = j.c;
  bradley_terry_call in{.chosen = c.input("chosen_reward", {0}).data};
  const std::size_t pairs = in.chosen.size();
  in.rejected = c.input("reject_reward", {pairs}).data;
  if (c.has_input("margin")) in.margin = c.input("margin", {pairs}).data;
  in.denominator = static_cast<double>(pairs);
  const bradley_terry_answer y = call(j, in);
  j.output("loss", {y.loss}, log_exp ? 1 : nothing_cancels);
  j.gradient("d_loss/d_chosen_reward", y.d_chosen, nothing_cancels);
  j.gradient("d_loss/d_reject_reward", y.d_rejected, nothing_cancels);
  if (!in.margin.empty()) j.gradient("d_loss/d_margin", y.d_margin, nothing_cancels);
};

// Both halves in one array; DR-PO: mean over all pairs.
constexpr auto drpo_reward = [](auto& j) {
  const numbers rewards = j.c.input("predicted_reward", {0}).data;
  bradley_terry_call in{.chosen = first_half(rewards), .rejected = second_half(rewards)};
  in.denominator = static_cast<double>(in.chosen.size());
  const bradley_terry_answer y = call(j, in);
  j.output("loss", {y.loss}, nothing_cancels);
  j.output("accuracy", {y.metrics[0]}, nothing_cancels);
  j.gradient("d_loss/d_predicted_reward", joined(y.d_chosen, y.d_rejected), nothing_cancels);
};

// NeMo, each pair by itself: the gradient is a product with the cotangent, entry by entry.
constexpr auto nemo_reward_per_pair = [](auto& j) {
  const numbers rewards = j.c.input("rewards", {0, 1}).data;
  const bradley_terry_call in{.chosen = first_half(rewards), .rejected = second_half(rewards)};
  const numbers cot = j.c.input("cot_loss_per_pair", {in.chosen.size(), 1}).data;
  const bradley_terry_answer y = call(j, in);
  j.output("loss_per_pair", y.pair_loss, nothing_cancels);
  j.gradient("d_loss_per_pair/d_rewards", joined(times(cot, y.d_chosen), times(cot, y.d_rejected)), nothing_cancels);
};

// NeMo's batch: pairs without any token in the loss mask do not count, in the mean neither.
constexpr auto nemo_reward_batch = [](auto& j) {
  const numbers rewards = j.c.input("rewards", {0, 1}).data;
  bradley_terry_call in{.chosen = first_half(rewards), .rejected = second_half(rewards)};
  const std::size_t pairs = in.chosen.size();
  const array& mask = j.c.input("loss_mask", {pairs, 0});
  double valid = 0;
  for (std::size_t p = 0; p < pairs; ++p) {
    in.valid.push_back(largest(part(mask.data, p * mask.shape[1], mask.shape[1])) > 0);
    valid += in.valid.back();
  }
  in.denominator = valid;
  const bradley_terry_answer y = call(j, in);
  j.output("loss", {y.loss}, nothing_cancels);
  j.output("accuracy", {y.metrics[0]}, nothing_cancels);
  j.output("num_valid_pairs", {y.counts[0]}, nothing_cancels);
  numbers chosen, rejected;
  for (std::size_t p = 0; p < pairs; ++p) {
    const numbers logged = call(j, in.pair(p)).metrics;
    chosen.push_back(logged[2]);
    rejected.push_back(logged[3]);
  }
  j.output("out_chosen", chosen, nothing_cancels);
  j.output("out_rejected", rejected, nothing_cancels);
  j.gradient("d_loss/d_rewards", joined(y.d_chosen, y.d_rejected), nothing_cancels);
};

// NeMo's regression: squared error / rated cells.
constexpr auto nemo_regression = [](auto& j) {
  const array& output = j.c.input("output", {0, 0});
  const attribute_regression_call in{.prediction = output.data,
                                     .label = j.c.input("label", output.shape).data,
                                     .replies = static_cast<index_t>(output.shape[0]),
                                     .attributes = static_cast<index_t>(output.shape[1]),
                                     .missing = j.c.number("loss_mask_val")};
  const attribute_regression_answer y = call(j, in);
  j.output("loss", {y.loss}, nothing_cancels);
  // A difference of a prediction and a label.
  numbers rated = in.label;
  for (double& l : rated) l = l == in.missing ? 0 : l;
  const auto missing = std::count(in.label.begin(), in.label.end(), in.missing);
  const double denominator = static_cast<double>(length(in.label) - missing);
  j.gradient("d_loss/d_output", y.d_prediction, 2 * std::max(largest(in.prediction), largest(rated)) / denominator);
};

// NeMo's pairs of a regression model: two rows, one pair; the reward is attribute 4. A negative label prefers row 0,
// every other row 1; its magnitude is the strength, a margin or a scale.
constexpr auto nemo_regression_pair = [](auto& j) {
  using real = typename std::remove_reference_t<decltype(j)>::real;
  constexpr std::size_t reward = 4;
  const array& output = j.c.input("output", {2, 0});
  const std::size_t attributes = output.shape[1];
  if (attributes <= reward) j.c.fail("the input `output` has fewer than 5 attributes");
  const auto prediction = reals(j, output.data), label = reals(j, j.c.input("label", output.shape).data);
  std::vector<real> d_output(output.data.size());
  real value = 0;
  const auto column = [&](auto& x, std::size_t row) {
    return plumb::view<std::remove_pointer_t<decltype(x.data())>, 1>(x.data() + row * attributes + reward, index_t{1});
  };
  const std::string loss = j.c.text("loss_func");
  plumb::rated_bradley_terry_options options{.ties_to_second = true};
  options.use = loss == "margin_bt"   ? plumb::strength_use::margin
                : loss == "scaled_bt" ? plumb::strength_use::scale
                                      : plumb::strength_use::ignored;
  options.loss.denominator = 1;
  scratch_memory scratch(plumb::rated_bradley_terry_workspace(j.b, 1));
  plumb::rated_bradley_terry(j.b, scratch.arena,
                             {.first = column(prediction, 0),
                              .second = column(prediction, 1),
                              .strength = plumb::view<const real, 1>(label.data(), index_t{1})},
                             options, {.loss = value, .d_first = column(d_output, 0), .d_second = column(d_output, 1)});
  j.output("loss", {static_cast<double>(value)}, nothing_cancels);
  j.gradient("d_loss/d_output", doubles(d_output), nothing_cancels);
};

// OpenRLHF's SFTLoss: per token, or per sample. With the global counts, `dp_size` undoes the averaging over ranks that
// follows.
constexpr auto openrlhf_sft = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("per_token_logps", {0, 0});
  const bool tokens = c.flag("token_level_loss", false);
  supervised_call in{.logp = logp.data,
                     .sequences = padded(logp.shape[0], logp.shape[1], to_flags(c.input("loss_mask", logp.shape).data)),
                     .aggregate = tokens ? plumb::aggregation::token_mean : plumb::aggregation::sequence_mean};
  const numbers weight = tokens ? numbers(in.logp.size(), 1) : nearly_means(in.sequences, in.logp.size());
  in.logp = times(weight, in.logp);
  const double local = static_cast<double>(tokens ? plumb::count_scored(in.sequences.get()) : in.sequences.sequences());
  in.denominator = c.number(tokens ? "batch_num_tokens" : "global_batch_size", local) / c.number("dp_size", 1);
  const supervised_answer y = call(j, in);
  j.output("loss", {y.loss}, largest(in.logp));
  j.gradient("d_loss/d_per_token_logps", times(weight, y.d_logp), nothing_cancels);
};

// OpenRLHF's GPTLMLoss: row t of the logits predicts label t + 1; mean over the labels that count.
constexpr auto openrlhf_language_model = [](auto& j) {
  const array& logits = j.c.input("logits", {0, 0, 0});
  const std::size_t rows = logits.shape[0], columns = logits.shape[1], vocabulary = logits.shape[2];
  const ids labels = to_ids(j.c.input("labels", {rows, columns}).data, j.c.number("ignore_index"));
  token_logp_call in{.logits = logits.data, .rows = rows * columns, .vocabulary = vocabulary};
  for (std::size_t t = 0; t < labels.size(); ++t) in.targets.push_back((t + 1) % columns == 0 ? -1 : labels[t + 1]);
  const token_logp_answer forward = call(j, in);
  supervised_call loss{.logp = forward.logp, .sequences = padded(rows, columns, not_ignored(in.targets))};
  loss.denominator = static_cast<double>(plumb::count_scored(loss.sequences.get()));
  const supervised_answer y = call(j, loss);
  j.output("loss", {y.loss}, largest(logits.data));
  j.gradient("d_loss/d_logits", backward(j, in, forward, y.d_logp), 1 / loss.denominator);
};

bool is_regression(const golden_case& c) { return c.text("loss_func") == "regression"; }
bool is_pair(const golden_case& c) {
  const std::string loss = c.text("loss_func");
  return loss == "regular_bt" || loss == "margin_bt" || loss == "scaled_bt";
}

const bool registered[] = {
    map_cases({"trl_reward_bt", "RewardTrainer.compute_loss", every_case, on_each_backend(trl_reward)}),
    map_cases({"openrlhf_reward", "PairWiseLoss.forward", every_case, on_each_backend(openrlhf_reward<false>)}),
    map_cases({"openrlhf_reward", "LogExpLoss.forward", every_case, on_each_backend(openrlhf_reward<true>)}),
    map_cases({"openrlhf_reward", "SFTLoss.forward", every_case, on_each_backend(openrlhf_sft)}),
    map_cases({"openrlhf_reward", "GPTLMLoss.forward", every_case, on_each_backend(openrlhf_language_model)}),
    map_cases(
        {"nemo_reward_bt", "MegatronGPTRewardModel.loss_func", every_case, on_each_backend(nemo_reward_per_pair)}),
    map_cases({"nemo_reward_bt",
               "MegatronGPTRewardModel.get_forward_output_and_loss_func.fwd_output_and_loss_func.loss_func", every_case,
               on_each_backend(nemo_reward_batch)}),
    map_cases({"nemo_regression_rm", "MegatronGPTRegressionRewardModel.reg_loss_func", is_regression,
               on_each_backend(nemo_regression)}),
    map_cases({"nemo_regression_rm", "MegatronGPTRegressionRewardModel.bt_loss_func", is_pair,
               on_each_backend(nemo_regression_pair)}),
    map_cases({"drpo_reward", "__main__ (statements at lines 529-532)", every_case, on_each_backend(drpo_reward)}),
};

}  // namespace
}  // namespace golden

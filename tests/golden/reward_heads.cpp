// Heads of reward models and critics, from hidden states.
#include "golden/calls.hpp"

#include <plumb/ops/reward_head.hpp>

namespace golden {
namespace {

struct head_call {
  numbers hidden{}, head{}, bias{}, attribute_weights{};
  std::size_t states = 0, width = 0, outputs = 0;
  ids rows{};
  layout_arrays sequences{};  ///< for means
  plumb::reward_head_options options{};

  template <class Real>
  plumb::reward_head_inputs<Real, Real> inputs(const std::vector<Real>& h, const std::vector<Real>& w,
                                               const std::vector<Real>& b, const std::vector<Real>& merge) const {
    return {.hidden = {h.data(), static_cast<index_t>(states), static_cast<index_t>(width)},
            .head = {w.data(), static_cast<index_t>(outputs), static_cast<index_t>(width)},
            .bias = b,
            .rows = rows,
            .sequences = sequences.get(),
            .attribute_weights = merge};
  }
  std::size_t results() const {
    return !sequences.begin.empty() ? sequences.begin.size() : rows.empty() ? states : rows.size();
  }
};
struct head_answer {
  numbers reward, attributes, d_hidden, d_head, d_bias;
};

/// `cot` is dL/dreward where the outputs are merged, else dL/dattributes.
template <class B>
head_answer call(job<B>& j, const head_call& in, const numbers& cot, bool merged) {
  using real = typename B::real;
  const auto h = reals(j, in.hidden), w = reals(j, in.head), bias = reals(j, in.bias),
             merge = reals(j, in.attribute_weights), d = reals(j, cot);
  const auto inputs = in.inputs(h, w, bias, merge);
  const index_t r = static_cast<index_t>(in.results()), k = static_cast<index_t>(in.outputs);
  std::vector<real> reward(merged ? in.results() : 0), attributes(in.results() * in.outputs), d_hidden(h.size()),
      d_head(w.size()), d_bias(in.outputs);
  {
    scratch_memory scratch(plumb::reward_head_workspace(j.b, inputs, in.options));
    plumb::reward_head(j.b, scratch.arena, inputs, in.options,
                       {.reward = reward, .attributes = {attributes.data(), r, k}});
  }
  scratch_memory scratch(plumb::reward_head_backward_workspace(j.b, inputs, in.options));
  plumb::reward_head_gradients<real> from;
  if (merged) {
    from.d_reward = d;
  } else {
    from.d_attributes = {d.data(), r, k};
  }
  plumb::reward_head_backward(
      j.b, scratch.arena, inputs, in.options, from,
      {.d_hidden = plumb::view<real, 2>(d_hidden.data(), inputs.hidden.extent(0), inputs.hidden.extent(1)),
       .d_head = plumb::view<real, 2>(d_head.data(), k, inputs.head.extent(1)),
       .d_bias = d_bias});
  return {doubles(reward), doubles(attributes), doubles(d_hidden), doubles(d_head), doubles(d_bias)};
}

double merging(const head_call& in) { return in.attribute_weights.empty() ? 1 : largest(in.attribute_weights); }
double largest_term(const head_call& in) {
  return std::max(largest(in.hidden) * largest(in.head), largest(in.bias)) * merging(in);
}

// NeMo: hidden states lie `[T, B, D]`. The last of `lengths` tokens, or their mean; merged by weights, 1/K each unless
// given; or a merged value at each position, which lies `[B, T]`.
constexpr auto nemo_head = [](auto& j) {
  const golden_case& c = j.c;
  const array& hidden = c.input("hidden", {0, 0, 0});
  const std::size_t columns = hidden.shape[0], rows = hidden.shape[1], width = hidden.shape[2];
  const array& weight = c.input("weight", {0, width});
  // As [B, T, D]: each sequence's tokens lie together.
  const auto other_way = [&](const numbers& x, std::size_t outer, std::size_t inner) {
    numbers y;
    for (std::size_t i = 0; i < inner; ++i)
      for (std::size_t o = 0; o < outer; ++o) y = joined(std::move(y), part(x, (o * inner + i) * width, width));
    return y;
  };
  head_call in{.hidden = other_way(hidden.data, columns, rows),
               .head = weight.data,
               .bias = c.input("bias", {weight.shape[0]}).data};
  in.states = rows * columns;
  in.width = width;
  in.outputs = weight.shape[0];
  const bool each = c.flag("output_sequence", false);
  const bool merged = each ? true : c.flag("merge_attributes", false);
  if (merged) {
    in.attribute_weights = numbers(in.outputs, 1 / static_cast<double>(in.outputs));
    if (c.is_set("attribute_weights")) in.attribute_weights = c.options.at("attribute_weights").get<numbers>();
  }
  numbers cot;
  if (each) {
    cot = c.input("cot_output", {rows, columns}).data;
  } else {
    const numbers lengths = c.input("lengths", {rows}).data;
    flags scored;
    for (double l : lengths)
      for (std::size_t t = 0; t < columns; ++t) scored.push_back(static_cast<double>(t) < l);
    const layout_arrays sequences = padded(rows, columns, scored);
    if (c.flag("use_avg_pool", false)) {
      in.sequences = sequences;
    } else {
      in.rows.resize(rows);
      plumb::last_scored_rows(sequences.get(), static_cast<index_t>(in.states), in.rows);
    }
    cot = c.input("cot_output", {rows, merged ? 1 : in.outputs}).data;
  }
  const head_answer y = call(j, in, cot, merged);
  j.output("output", merged ? y.reward : y.attributes, largest_term(in));
  const double slope = largest(cot) * merging(in);
  j.gradient("d_output/d_hidden", other_way(y.d_hidden, rows, columns), slope * largest(in.head));
  j.gradient("d_output/d_weight", y.d_head, slope * largest(in.hidden));
  j.gradient("d_output/d_bias", y.d_bias, slope);
};

// OpenRLHF: one output without a bias, at the last attended position, standardised when evaluating. The critic's values
// are those of the position before each action, 0 where no action is.
template <bool critic>
constexpr auto openrlhf_head = [](auto& j) {
  const golden_case& c = j.c;
  const array& hidden = c.input("hidden", {0, 0, 0});
  const std::size_t rows = hidden.shape[0], columns = hidden.shape[1];
  head_call in{.hidden = hidden.data, .head = c.input("weight", {1, hidden.shape[2]}).data};
  in.states = rows * columns;
  in.width = hidden.shape[2];
  in.outputs = 1;
  if (c.flag("normalize_reward", false)) in.options = {.mean = c.number("mean"), .standard_deviation = c.number("std")};
  const flags attended = to_flags(c.input("attention_mask", {rows, columns}).data);
  numbers cot;
  flags action;
  if (critic) {
    const array& mask = c.input("action_mask", {rows, 0});
    action = to_flags(mask.data);
    const std::size_t actions = mask.shape[1];
    const numbers all = c.input("cot_values", mask.shape).data;
    for (std::size_t i = 0; i < action.size(); ++i) {
      if (action[i] == 0) continue;
      in.rows.push_back(static_cast<std::int32_t>(i / actions * columns + columns - 1 - actions + i % actions));
      cot.push_back(all[i]);
    }
  } else {
    in.rows.resize(rows);
    plumb::last_scored_rows(padded(rows, columns, attended).get(), static_cast<index_t>(in.states), in.rows);
    cot = c.input("cot_reward", {rows}).data;
  }
  const head_answer y = call(j, in, cot, true);
  numbers reward = y.reward;
  if (critic) {
    reward = numbers(action.size());
    for (std::size_t i = 0, k = 0; i < action.size(); ++i)
      if (action[i] != 0) reward[i] = y.reward[k++];
  }
  const double terms = std::max(largest_term(in), std::fabs(in.options.mean)) / in.options.standard_deviation;
  const double slope = largest(cot) / in.options.standard_deviation;
  j.output(critic ? "values" : "reward", reward, terms);
  j.gradient(critic ? "d_values/d_hidden" : "d_reward/d_hidden", y.d_hidden, slope * largest(in.head));
  j.gradient(critic ? "d_values/d_weight" : "d_reward/d_weight", y.d_head, slope * largest(in.hidden));
};

const bool registered[] = {
    map_cases({"reward_heads_nemo", "RewardModelHead.forward", every_case, on_each_backend(nemo_head)}),
    map_cases({"reward_heads_openrlhf", "_get_reward_model.RewardModel.forward", every_case,
               on_each_backend(openrlhf_head<false>)}),
    map_cases({"reward_heads_openrlhf", "_get_critic_model.CriticModel.forward", every_case,
               on_each_backend(openrlhf_head<true>)}),
};

}  // namespace
}  // namespace golden

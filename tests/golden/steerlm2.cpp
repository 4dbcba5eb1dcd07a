// SteerLM 2.0: importance weights, baseline weights, loss.
#include "golden/calls.hpp"

#include <plumb/objectives/steerlm2.hpp>

namespace golden {
namespace {

layout_arrays groups_of(std::size_t replies, std::size_t each) { return padded(replies / each, each, {}); }

// What a difference of logarithms is off by is multiplied into the weight.
constexpr auto nemo_weights = [](auto& j) {
  const golden_case& c = j.c;
  using real = typename std::remove_reference_t<decltype(j)>::real;
  const numbers a = c.input("log_p_a_given_xy", {0}).data;
  const std::size_t n = a.size();
  const numbers y = c.input("log_p_y_given_x", {n}).data, q = c.input("log_q_y_given_ax", {n}).data;
  const auto log_a = reals(j, a), log_y = reals(j, y), log_q = reals(j, q);
  const layout_arrays groups = groups_of(n, n);
  std::vector<real> weight(n);
  scratch_memory scratch(plumb::steerlm2_weights_workspace(j.b, length(a), groups.sequences()));
  plumb::steerlm2_weights(j.b, scratch.arena,
                          {.log_p_attributes = log_a, .log_p_reply = log_y, .log_q = log_q, .groups = groups.get()},
                          {.weight = weight});
  const double most = std::max({1.0, largest(a), largest(y), largest(q)});
  j.output("ws", doubles(weight), scaled(c.outputs.at("ws").data, most));
};

// NeMo: `num_responses` adjacent rows share a prompt; each prompt's part is divided by its mean length. A micro-batch
// is some rows; its loss, a linear function of the token losses, is that of the whole batch over the others' tokens 0,
// times the number of micro-batches.
constexpr auto nemo_loss = [](auto& j) {
  const golden_case& c = j.c;
  using real = typename std::remove_reference_t<decltype(j)>::real;
  const array& nll = c.input("token_nll", {0, 0});
  const std::size_t rows = nll.shape[0], columns = nll.shape[1],
                    each = static_cast<std::size_t>(c.number("num_responses"));
  const layout_arrays replies = padded(rows, columns, to_flags(c.input("loss_mask", nll.shape).data)),
                      groups = groups_of(rows, each);
  const numbers log_q = c.input("log_q", {rows}).data, ws = c.input("ws", {rows}).data;
  const auto logp = reals(j, scaled(nll.data, -1)), q = reals(j, log_q), weight = reals(j, ws);
  std::vector<real> d_logp(logp.size()), baseline(rows), coefficient(rows),
      metrics(2 * std::size(plumb::steerlm2_metrics));
  real loss = 0;
  plumb::steerlm2_options options{
      .value = plumb::steerlm2_value::coefficients, .per_token = true, .distance_epsilon = 1e-8};
  options.denominator = static_cast<double>(groups.sequences());
  scratch_memory scratch(plumb::steerlm2_workspace(j.b, static_cast<index_t>(rows), groups.sequences()));
  plumb::steerlm2(j.b, scratch.arena,
                  {.logp = logp, .replies = replies.get(), .log_q = q, .weight = weight, .groups = groups.get()},
                  options,
                  {.loss = loss,
                   .d_logp = d_logp,
                   .baseline = baseline,
                   .coefficient = coefficient,
                   .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  // Sums of the masked tokens.
  numbers sums(rows);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t t = 0; t < columns; ++t)
      sums[r] += replies.scored[r * columns + t] != 0 ? nll.data[r * columns + t] : 0;
  const double most = std::max({1.0, largest(sums), largest(log_q)});
  const numbers shares = scaled(doubles(baseline), most), terms = larger(shares, ws);
  j.output("base_weight", doubles(baseline), shares);
  j.output("weight", doubles(coefficient), terms);
  j.output("distance", {metric_values(plumb::steerlm2_metrics, metrics)[0]}, most);
  const std::size_t micro = static_cast<std::size_t>(c.number("micro_batch_size"));
  const numbers d_nll = scaled(doubles(d_logp), -1);
  // A token's slope is the reply's coefficient / (prompts mean length): the mean length that was divided by, for a
  // micro-batch of rows.
  numbers lengths, per_micro(rows / micro);
  for (std::size_t r = 0; r < rows; ++r) {
    std::size_t t = r * columns;
    while (t + 1 < (r + 1) * columns && replies.scored[t] == 0) ++t;
    lengths.push_back(doubles(coefficient)[r] / (d_nll[t] * options.denominator) * static_cast<double>(micro) /
                      static_cast<double>(each));
  }
  for (std::size_t i = 0; i < nll.data.size(); ++i)
    per_micro[i / columns / micro] += d_nll[i] * nll.data[i] * static_cast<double>(per_micro.size());
  const double loss_terms = largest(terms) * most * static_cast<double>(per_micro.size());
  j.output("loss_per_microbatch", per_micro, loss_terms);
  j.output("loss", {static_cast<double>(loss)}, loss_terms);
  j.output("avg_num_valid_tokens_in_ub", lengths, 0);
  j.gradient("d_loss/d_token_nll", d_nll, spread_rows(scaled(terms, 1 / options.denominator), columns));
};

const bool registered[] = {
    map_cases({"nemo_steerlm2", "SteerLM2Dataset._process_example", every_case, on_each_backend(nemo_weights)}),
    map_cases({"nemo_steerlm2", "GPTSteerLMModel.compute_baselilne_weights, GPTSteerLMModel.weight_loss_func",
               every_case, on_each_backend(nemo_loss)}),
};

}  // namespace
}  // namespace golden

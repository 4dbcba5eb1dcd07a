// Log-probabilities, entropies and sums of squared probabilities, from logits and from hidden states.
#include "golden/calls.hpp"

#include <plumb/ops/log_sum_squares.hpp>

namespace golden {
namespace {

// For the gradient: the row's coefficient, times what multiplies it.
numbers logp_gradient_terms(const token_logp_call& in, const numbers& d_logp) {
  return spread_rows(scaled(magnitudes(d_logp), 1 / in.options.temperature), in.vocabulary);
}
template <class Job>
void compare_logp(Job& j, const token_logp_call& in, const numbers& cot) {
  const token_logp_answer y = call(j, in);
  j.output("logps", y.logp, largest_of_rows(in));
  j.gradient("d_logps/d_logits", backward(j, in, y, cot), logp_gradient_terms(in, cot));
}

template <class Job>
void compare_entropy(Job& j, const token_logp_call& in, const numbers& cot) {
  const token_logp_answer y = call(j, in);
  j.output("entropy", y.entropy, largest_of_rows(in));
  j.gradient("d_entropy/d_logits", backward(j, in, y, {}, cot), entropy_gradient_terms(in, cot));
}

std::vector<std::size_t> without_last(std::vector<std::size_t> shape) {
  shape.pop_back();
  return shape;
}

// verl's chunking function takes rows; all others take a batch of them.
bool chunked(const golden_case& c) { return c.function == "entropy_from_logits_with_chunking"; }

// Row i of the logits predicts target i: TRL, verl, OpenRLHF. What the case has is compared.
constexpr auto from_logits = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = chunked(c) ? c.input("logits", {0, 0}) : c.input("logits", {0, 0, 0});
  token_logp_call in = rows_of(logits);
  in.options.temperature = c.number("temperature", 1);
  const std::vector<std::size_t> shape = without_last(logits.shape);
  if (c.outputs.count("logps") > 0) {
    token_logp_call scored = in;
    scored.targets = to_ids(c.input(c.has_input("index") ? "index" : "labels", shape).data);
    compare_logp(j, scored, c.input("cot_logps", shape).data);
  }
  if (c.outputs.count("entropy") > 0) compare_entropy(j, in, c.input("cot_entropy", shape).data);
};

// TRL scores K tokens at each position: K calls, whose gradients add up.
constexpr auto several_tokens_each = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t k = static_cast<std::size_t>(c.number("K"));
  const array& index = c.input("index", {logits.shape[0], logits.shape[1], k});
  const numbers cot = c.input("cot_logps", index.shape).data;
  token_logp_call in = rows_of(logits);
  const auto column = [&](const numbers& x, std::size_t i) {
    numbers y;
    for (std::size_t r = 0; r < in.rows; ++r) y.push_back(x[r * k + i]);
    return y;
  };
  numbers logps(index.data.size()), d_logits(in.logits.size()), terms(in.logits.size());
  for (std::size_t i = 0; i < k; ++i) {
    in.targets = to_ids(column(index.data, i));
    const token_logp_answer y = call(j, in);
    for (std::size_t r = 0; r < in.rows; ++r) logps[r * k + i] = y.logp[r];
    d_logits = plus(d_logits, backward(j, in, y, column(cot, i)));
    terms = larger(terms, logp_gradient_terms(in, column(cot, i)));
  }
  j.output("logps", logps, spread_rows(largest_of_rows(in), k));
  j.gradient("d_logps/d_logits", d_logits, terms);
};

// NeMo rolls the targets to the left: row t predicts target t + 1, the last row the first target, unless it is dropped.
constexpr auto nemo_logp = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t rows = logits.shape[0], columns = logits.shape[1];
  const bool shifts = c.flag("ignore_last", true);
  const ids target = to_ids(c.input("target", {rows, columns}).data);
  const std::size_t kept = shifts ? columns - 1 : columns;
  const numbers cot = c.input("cot_logps", {rows, kept}).data;
  token_logp_call in = rows_of(logits);
  numbers d_logp(in.rows);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t t = 0; t < columns; ++t) {
      in.targets.push_back(t < kept ? target[r * columns + (t + (shifts ? 1 : 0)) % columns] : -1);
      if (t < kept) d_logp[r * columns + t] = cot[r * kept + t];
    }
  const token_logp_answer y = call(j, in);
  const auto keep = [&](const numbers& x) { return shifts ? without_last_column(x, rows, columns) : x; };
  j.output("logps", keep(y.logp), keep(largest_of_rows(in)));
  j.gradient("d_logps/d_logits", backward(j, in, y, d_logp), logp_gradient_terms(in, d_logp));
};

// NeMo's entropy: positions 0 .. T-2, mean over the mask.
constexpr auto nemo_entropy = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t rows = logits.shape[0], columns = logits.shape[1];
  const numbers mask = c.input("mask", {rows, columns - 1}).data;
  const token_logp_call in = rows_of(logits);
  double count = 0;
  for (double m : mask) count += m;
  numbers weight(in.rows);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t t = 0; t + 1 < columns; ++t) weight[r * columns + t] = mask[r * (columns - 1) + t] / count;
  const token_logp_answer y = call(j, in);
  double mean = 0;
  for (double e : times(weight, y.entropy)) mean += e;
  j.output("entropy", {mean}, largest(largest_of_rows(in)));
  j.gradient("d_entropy/d_logits", backward(j, in, y, {}, weight), entropy_gradient_terms(in, weight));
};

// verl's sum of squared probabilities, the exponential of ours.
constexpr auto verl_sum_pi_squared = [](auto& j) {
  using real = typename std::remove_reference_t<decltype(j)>::real;
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const numbers cot = c.input("cot_sum_pi_squared", without_last(logits.shape)).data;
  const token_logp_call in = rows_of(logits);
  const auto x = reals(j, in.logits);
  const plumb::view<const real, 2> rows(x.data(), static_cast<index_t>(in.rows), static_cast<index_t>(in.vocabulary));
  std::vector<real> value(in.rows), once(in.rows), twice(in.rows), d_logits(x.size());
  scratch_memory scratch(plumb::log_sum_squares_workspace(j.b, rows.extent(0), rows.extent(1)));
  plumb::log_sum_squares(j.b, scratch.arena, rows, in.options,
                         {.log_sum_squares = value, .log_sum_exp = once, .log_sum_exp_twice = twice});
  numbers sum = doubles(value);
  for (double& e : sum) e = std::exp(e);
  const numbers d = times(cot, sum), most = scaled(largest_of_rows(in), 2);
  const auto d_value = reals(j, d);
  plumb::log_sum_squares_backward(j.b, rows, in.options,
                                  {.log_sum_exp = once, .log_sum_exp_twice = twice, .d_log_sum_squares = d_value},
                                  plumb::view<real, 2>(d_logits.data(), rows.extent(0), rows.extent(1)));
  // The exponent, a difference of log-sum-exps, has an error of their magnitude.
  j.output("sum_pi_squared", sum, times(sum, most));
  j.gradient("d_sum_pi_squared/d_logits", doubles(d_logits), spread_rows(times(magnitudes(d), most), in.vocabulary));
};

// From hidden states: scale, soft-cap, temperature, in this order. Chunk sizes change nothing but memory. TRL's
// backward takes the entropy for a constant, so only the log-probability's gradient is there to compare.
constexpr auto from_hidden = [](auto& j) {
  const golden_case& c = j.c;
  const array& hidden = c.input("hidden", {0, 0});
  const array& weight = c.input("weight", {0, hidden.shape[1]});
  linear_call in{.hidden = hidden.data, .head = weight.data};
  in.rows = hidden.shape[0];
  in.width = hidden.shape[1];
  in.vocabulary = weight.shape[0];
  if (c.has_input("bias")) in.bias = c.input("bias", {in.vocabulary}).data;
  in.targets = to_ids(c.input("targets", {in.rows}).data);
  in.options.logits = {.temperature = c.number("temperature"),
                       .softcap = c.number("final_logit_softcapping", 0),
                       .logit_scale = c.number("logit_scale", 1)};
  in.options.chunk_rows = static_cast<std::int64_t>(c.number(c.is_set("chunk_size") ? "chunk_size" : "seq_chunk_size"));
  const numbers cot = c.input("cot_logps", {in.rows}).data;
  const token_logp_answer y = call(j, in);
  const linear_gradients g = backward(j, in, y, cot);
  const double logit = largest_logit_term(in);
  const double terms = logit * std::fabs(in.options.logits.logit_scale) / in.options.logits.temperature;
  j.output("logps", y.logp, terms);
  if (c.outputs.count("entropy") > 0) j.output("entropy", y.entropy, terms);
  const double slope = largest(cot) * in.options.logits.logit_scale / in.options.logits.temperature;
  j.gradient("d_logps/d_hidden", g.d_hidden, slope * largest(in.head));
  j.gradient("d_logps/d_weight", g.d_head, slope * largest(in.hidden));
  if (!in.bias.empty()) j.gradient("d_logps/d_bias", g.d_bias, slope);
};

bool one_token_each(const golden_case& c) { return !c.is_set("K"); }
bool has_k(const golden_case& c) { return c.is_set("K"); }

constexpr case_runner logits = on_each_backend(from_logits), hidden = on_each_backend(from_hidden);

const bool registered[] = {
    map_cases({"trl_logprobs", "selective_log_softmax", one_token_each, logits}),
    map_cases({"trl_logprobs", "selective_log_softmax", has_k, on_each_backend(several_tokens_each)}),
    map_cases({"trl_logprobs", "entropy_from_logits", every_case, logits}),
    map_cases({"trl_logprobs", "selective_log_softmax, entropy_from_logits", every_case, logits}),
    map_cases({"trl_logprobs", "_ChunkedLogProbFunction", every_case, hidden}),
    map_cases({"liger_logprobs", "_ChunkedSelectiveLogProbFunction", every_case, hidden}),
    map_cases({"openrlhf_logprobs", "log_probs_from_logits", every_case, logits}),
    map_cases({"openrlhf_logprobs", "compute_entropy", every_case, logits}),
    map_cases({"nemo_logprobs", "from_parallel_logits_to_logprobs", every_case, on_each_backend(nemo_logp)}),
    map_cases({"nemo_logprobs", "calculate_distributed_entropy", every_case, on_each_backend(nemo_entropy)}),
    map_cases({"verl_logprobs", "logprobs_from_logits", every_case, logits}),
    map_cases({"verl_logprobs", "logprobs_from_logits_naive", every_case, logits}),
    map_cases({"verl_logprobs", "entropy_from_logits", every_case, logits}),
    map_cases({"verl_logprobs", "entropy_from_logits_with_chunking", every_case, logits}),
    map_cases({"verl_logprobs", "logprobs_from_logits, entropy_from_logits", every_case, logits}),
    map_cases(
        {"verl_logprobs", "calculate_sum_pi_squared_from_logits", every_case, on_each_backend(verl_sum_pi_squared)}),
};

}  // namespace
}  // namespace golden

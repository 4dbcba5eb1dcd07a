// GAE, returns and V-trace.
#include "golden/rollout_calls.hpp"

namespace golden {
namespace {

// verl leaves at a masked position what it carries past it: the number of the next token that counts.
numbers carried(numbers x, const layout_arrays& rows) {
  for (std::size_t s = 0; s < rows.begin.size(); ++s) {
    double next = 0;
    for (std::size_t t = static_cast<std::size_t>(rows.end[s]); t-- > static_cast<std::size_t>(rows.begin[s]);) next = x[t] = rows.counts(t) ? x[t] : next;
  }
  return x;
}

constexpr auto verl_gae = [](auto& j) {
  const golden_case& c = j.c;
  const array& rewards = c.input("token_level_rewards", {0, 0});
  const numbers values = c.input("values", rewards.shape).data;
  const layout_arrays rows = padded(rewards.shape[0], rewards.shape[1], to_flags(c.input("response_mask", rewards.shape).data));
  const gae_answer y = gae_of(j, {.rewards = rewards.data, .values = values, .sequences = rows}, {.gamma = c.number("gamma"), .lambda = c.number("lam")});
  const numbers advantages = carried(y.advantages, rows);
  const double size = largest_of({values, advantages, y.returns});
  const whiten_answer white = call(j, whiten_call{advantages, rows, {.variance = plumb::variance_estimator::unbiased, .count_epsilon = 1e-8,
                                                                     .unscored = plumb::unscored_values::transformed}});
  j.output("advantages", white.whitened, whitened_terms({size}, white.variance, 1e-8));
  j.output("returns", plus(advantages, values), size);
};

// OpenRLHF, NeMo-Aligner: zero what is masked, and run over everything.
template <class Job>
void compare_zeroed(Job& j, const array& rewards, const char* mask, double gamma, double lambda) {
  const golden_case& c = j.c;
  const numbers kept = c.has_input(mask) ? c.input(mask, rewards.shape).data : numbers(rewards.data.size(), 1);
  const numbers values = times(c.input("values", rewards.shape).data, kept);
  const gae_answer y = gae_of(j, {.rewards = times(rewards.data, kept), .values = values, .sequences = whole_rows(rewards.shape[0], rewards.shape[1])},
                              {.gamma = gamma, .lambda = lambda});
  const double size = largest_of({values, y.advantages, y.returns});
  j.output("advantages", y.advantages, size);
  j.output("returns", y.returns, size);
}
constexpr auto openrlhf_gae = [](auto& j) {
  compare_zeroed(j, j.c.input("rewards", {0, 0}), "action_mask", j.c.number("gamma"), j.c.number("lambd"));
};
constexpr auto nemo_gae = [](auto& j) {
  compare_zeroed(j, j.c.input("rewards", {0, 0}), "mask", j.c.number("discount_factor"), j.c.number("gae_lambda"));
};
constexpr auto openrlhf_returns = [](auto& j) {
  const golden_case& c = j.c;
  const array& rewards = c.input("rewards", {0, 0});
  const numbers kept = times(rewards.data, c.input("action_mask", rewards.shape).data);
  const numbers y = discounted_returns_of(j, {.rewards = kept, .sequences = whole_rows(rewards.shape[0], rewards.shape[1])}, c.number("gamma"));
  j.output("returns", y, largest_of({kept, y}));
};

// rlax: one sequence, discounts per step.
trajectory_call rlax_call(const golden_case& c) {
  const array& rewards = c.input("r_t", {0});
  trajectory_call in{.rewards = rewards.data, .discounts = c.input("discount_t", rewards.shape).data, .sequences = whole_rows(1, rewards.data.size())};
  if (c.has_input("v_t")) in.next_values = c.input("v_t", rewards.shape).data;
  if (c.has_input("v_tm1")) in.values = c.input("v_tm1", rewards.shape).data;
  if (c.has_input("rho_tm1"))
    for (const double rho : c.input("rho_tm1", rewards.shape).data) in.log_ratio.push_back(std::log(rho));
  if (c.has_input("sample_mask")) in.sequences.scored = to_flags(c.input("sample_mask", rewards.shape).data);
  return in;
}

constexpr auto rlax_gae = [](auto& j) {
  const golden_case& c = j.c;
  trajectory_call in = rlax_call(c);
  const std::size_t n = in.rewards.size();
  const numbers values = c.input("values", {n + 1}).data;
  in.values = part(values, 0, n);
  in.bootstrap = {values[n]};
  if (c.has_input("lambda_")) in.lambdas = c.input("lambda_", {n}).data;
  const plumb::gae_options options{.gamma = 1, .lambda = c.number("lambda_", 1)};
  const gae_answer y = gae_of(j, in, options);
  j.output("advantages", y.advantages, largest_of({values, y.advantages, y.returns}));
  if (c.gradients.empty()) return;
  const numbers cotangent = c.input("cot_advantages", {n}).data;
  const gae_gradient g = gae_gradient_of(j, in, options, cotangent);
  j.gradient("d_advantages/d_values", joined(g.d_values, g.d_bootstrap), largest(g.d_rewards));
};

constexpr auto rlax_lambda_returns = [](auto& j) {
  const trajectory_call in = rlax_call(j.c);
  const numbers y = lambda_returns_of(j, in, {.gamma = 1, .lambda = j.c.number("lambda_")});
  j.output("returns", y, largest_of({in.rewards, in.next_values, y}));
};
constexpr auto rlax_discounted_returns = [](auto& j) {
  trajectory_call in = rlax_call(j.c);
  in.bootstrap = {in.next_values.back()};
  const numbers y = discounted_returns_of(j, in, 1);
  j.output("returns", y, largest_of({in.rewards, in.next_values, y}));
};
constexpr auto rlax_n_step_returns = [](auto& j) {
  const trajectory_call in = rlax_call(j.c);
  const numbers y = n_step_returns_of(j, in, {.gamma = 1, .steps = static_cast<int>(j.c.number("n"))});
  j.output("returns", y, largest_of({in.rewards, in.next_values, y}));
};

constexpr auto rlax_vtrace = [](auto& j) {
  const golden_case& c = j.c;
  const trajectory_call in = rlax_call(c);
  const vtrace_answer y = vtrace_of(j, in, {.gamma = 1, .lambda = c.number("lambda_"), .rho_limit = c.number("clip_rho_threshold", 1),
                                            .advantage_limit = c.number("clip_pg_rho_threshold", 1), .alpha = c.number("alpha_", 1)});
  const double size = largest_of({in.values, in.next_values, in.rewards, y.errors, y.q});
  j.output("errors", in.sequences.scored.empty() ? y.errors : carried(y.errors, in.sequences), size);
  if (c.outputs.count("pg_advantage") == 0) return;
  j.output("pg_advantage", y.advantages, size);
  j.output("q_estimate", y.q, size);
};

const bool registered[] = {
    map_cases({"verl_gae", "compute_gae_advantage_return", every_case, on_each_backend(verl_gae)}),
    map_cases({"openrlhf_gae", "RemoteExperienceMaker.get_advantages_and_returns", every_case, on_each_backend(openrlhf_gae)}),
    map_cases({"openrlhf_gae", "RemoteExperienceMaker.get_cumulative_returns", every_case, on_each_backend(openrlhf_returns)}),
    map_cases({"nemo_gae", "calculate_advantages_and_returns", every_case, on_each_backend(nemo_gae)}),
    map_cases({"rlax_returns", "truncated_generalized_advantage_estimation", every_case, on_each_backend(rlax_gae)}),
    map_cases({"rlax_returns", "lambda_returns", every_case, on_each_backend(rlax_lambda_returns)}),
    map_cases({"rlax_returns", "discounted_returns", every_case, on_each_backend(rlax_discounted_returns)}),
    map_cases({"rlax_returns", "n_step_bootstrapped_returns", every_case, on_each_backend(rlax_n_step_returns)}),
    map_cases({"rlax_returns", "vtrace", every_case, on_each_backend(rlax_vtrace)}),
    map_cases({"rlax_returns", "leaky_vtrace", every_case, on_each_backend(rlax_vtrace)}),
    map_cases({"rlax_returns", "vtrace_td_error_and_advantage", every_case, on_each_backend(rlax_vtrace)}),
};

}  // namespace
}  // namespace golden

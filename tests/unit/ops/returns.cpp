// Returns: each against what it must equal.
#include "support/gradients.hpp"

#include <plumb/ops/returns.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Three sequences of 12 tokens: with holes, without scored tokens, whole.
const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
const std::vector<double> bootstrap{0.4, 7, -0.6};

struct fixture {
  std::vector<double> rewards = normal_numbers(1, 12), values = normal_numbers(2, 12), zeros = std::vector<double>(12), y = std::vector<double>(12),
                      z = std::vector<double>(12), v = std::vector<double>(12), w = std::vector<double>(12);
  desk<double> d;
  fixture() {
    for (std::size_t t = 0; t < 12; ++t)
      if (mask[t] == 0) rewards[t] = values[t] = std::nan("");
  }
  trajectory_inputs<double> in() const { return {.rewards = rewards, .values = values, .bootstrap = bootstrap, .sequences = sequences}; }
  vtrace_inputs<double> off_policy(const std::vector<double>& log_ratio) const {
    return {.rewards = rewards, .values = values, .bootstrap = bootstrap, .log_ratio = log_ratio, .sequences = sequences};
  }
};
void check_same(const std::vector<double>& a, const std::vector<double>& b) {
  for (std::size_t t = 0; t < a.size(); ++t) {
    CAPTURE(t);
    CHECK(a[t] == Catch::Approx(b[t]).epsilon(1e-13).margin(1e-14));
  }
}

}  // namespace

TEST_CASE("returns: by hand") {
  fixture f;
  const double g = 0.9, *r = f.rewards.data(), *v = f.values.data();
  discounted_returns(f.d.compute, f.d.scratch, {.rewards = f.rewards, .bootstrap = bootstrap, .sequences = sequences}, {.gamma = g}, {f.y});
  const double last = r[3] + g * 0.4;
  check_same({f.y.begin(), f.y.begin() + 7}, {r[0] + g * (r[2] + g * last), 0, r[2] + g * last, last, 0, 0, 0});
  n_step_returns(f.d.compute, f.d.scratch, f.in(), {.gamma = g, .steps = 2}, {f.y});
  check_same({f.y.begin(), f.y.begin() + 7}, {r[0] + g * (r[2] + g * v[3]), 0, r[2] + g * last, last, 0, 0, 0});
}

TEST_CASE("returns: one is a case of the other") {
  fixture f;
  constexpr double g = 0.9;
  const auto lambda_return = [&](double lambda) { lambda_returns(f.d.compute, f.d.scratch, f.in(), {g, lambda}, {f.y}); };
  // Lambda returns are what GAE calls returns; with lambda 1 values do not count, with lambda 0 one step does.
  for (const double lambda : {0.0, 0.3, 0.95, 1.0}) {
    lambda_return(lambda);
    gae(f.d.compute, f.d.scratch, f.in(), {g, lambda}, {.returns = f.z});
    check_same(f.y, f.z);
  }
  discounted_returns(f.d.compute, f.d.scratch, {.rewards = f.rewards, .bootstrap = bootstrap, .sequences = sequences}, {g}, {f.z});
  check_same(f.y, f.z);
  n_step_returns(f.d.compute, f.d.scratch, f.in(), {g, 5}, {f.z});  // no sequence is longer
  check_same(f.y, f.z);
  lambda_return(0);
  n_step_returns(f.d.compute, f.d.scratch, f.in(), {g, 1}, {f.z});
  check_same(f.y, f.z);
  // The values after each token, given: the same as found.
  std::vector<double> next(12);
  const double* v = f.values.data();
  next = {v[2], std::nan(""), v[3], 0.4, std::nan(""), 0, 0, v[8], v[9], v[10], v[11], -0.6};
  lambda_return(0.7);
  lambda_returns(f.d.compute, f.d.scratch, {.rewards = f.rewards, .next_values = next, .sequences = sequences}, {g, 0.7}, {f.z});
  check_same(f.y, f.z);
}

TEST_CASE("vtrace: on policy it is the lambda return") {
  fixture f;
  for (const double alpha : {1.0, 0.4}) {
    vtrace(f.d.compute, f.d.scratch, f.off_policy(f.zeros), {.gamma = 0.9, .lambda = 0.8, .alpha = alpha}, {f.y, f.z, f.v, f.w});
    std::vector<double> advantages(12), returns(12);
    gae(f.d.compute, f.d.scratch, f.in(), {0.9, 0.8}, {advantages, returns});
    check_same(f.y, advantages);
    check_same(f.z, returns);
    check_same(f.v, advantages);  // q is r + gamma [lambda R_u + (1 - lambda) V_u] = R
    check_same(f.w, returns);
  }
}

TEST_CASE("vtrace: limits, leaks, extremes") {
  fixture f;
  std::vector<double> log_ratio(12, std::nan(""));
  for (std::size_t t = 0; t < 12; ++t)
    if (mask[t] != 0) log_ratio[t] = t % 2 == 0 ? 0.7 : -0.5;
  const vtrace_options o{.gamma = 0.9, .lambda = 0.8, .rho_limit = 1.3, .trace_limit = 0.9, .advantage_limit = 1.1, .alpha = 0.75};
  vtrace(f.d.compute, f.d.scratch, f.off_policy(log_ratio), o, {f.y, f.z, f.v, f.w});
  const auto weight = [&](std::size_t t, double limit) { return 0.25 * std::exp(log_ratio[t]) + 0.75 * std::min(limit, std::exp(log_ratio[t])); };
  double error = 0, target = -0.6, value = -0.6;  // after the last token of the last sequence
  for (std::size_t t = 12; t-- > 7;) {
    error = weight(t, 1.3) * (f.rewards[t] + 0.9 * value - f.values[t]) + 0.9 * 0.8 * weight(t, 0.9) * error;
    const double q = f.rewards[t] + 0.9 * (0.8 * target + 0.2 * value);
    value = f.values[t], target = value + error;
    CAPTURE(t);
    CHECK(f.y[t] == Catch::Approx(error).epsilon(1e-13));
    CHECK(f.z[t] == Catch::Approx(target).epsilon(1e-13));
    CHECK(f.w[t] == Catch::Approx(q).epsilon(1e-13));
    CHECK(f.v[t] == Catch::Approx(weight(t, 1.1) * (q - value)).epsilon(1e-13));
  }
  for (const std::size_t t : {1u, 4u, 5u, 6u})
    for (const auto* x : {&f.y, &f.z, &f.v, &f.w}) CHECK((*x)[t] == 0);
  // A ratio of e^10000 is cut, not infinite; e^-10000 is 0.
  for (const double far : {1e4, -1e4}) {
    vtrace(f.d.compute, f.d.scratch, f.off_policy(std::vector<double>(12, far)), {}, {f.y, f.z, f.v, f.w});
    for (const auto* x : {&f.y, &f.z, &f.v, &f.w})
      for (const double e : *x) CHECK(std::isfinite(e));
  }
}

TEST_CASE("returns: what is refused, in a sentence, with nothing written") {
  fixture f;
  CHECK(refusal([&] { n_step_returns(f.d.compute, f.d.scratch, f.in(), {.steps = 0}, {f.y}); }) ==
        "plumb: n_step_returns: option `steps` is 0 but must be 1 or more. Nothing was written.");
  auto with_lambdas = f.in();
  with_lambdas.lambdas = f.zeros;
  CHECK(refusal([&] { n_step_returns(f.d.compute, f.d.scratch, with_lambdas, {}, {f.y}); }) ==
        "plumb: n_step_returns: argument `lambdas` has no part here. Nothing was written.");
  CHECK(refusal([&] { vtrace(f.d.compute, f.d.scratch, f.off_policy(f.zeros), {.alpha = 2}, {f.y, {}, {}, {}}); }) ==
        "plumb: vtrace: option `alpha` is 2 but must be in [0, 1]. Nothing was written.");
  CHECK(refusal([&] { discounted_returns(f.d.compute, f.d.scratch, {.rewards = f.rewards, .sequences = sequences}, {.gamma = -1}, {f.y}); }) ==
        "plumb: discounted_returns: option `gamma` is -1 but must be in [0, 1]. Nothing was written.");
  CHECK(f.y == std::vector<double>(12));
}

TEST_CASE("returns: vectors in, the same numbers out") {
  const fixture f;
  fixture g;
  discounted_returns(g.d.compute, g.d.scratch, {.rewards = f.rewards, .bootstrap = bootstrap, .sequences = sequences}, {.gamma = 0.9}, {g.y});
  CHECK(discounted_returns(f.rewards, sequences, {.gamma = 0.9}, bootstrap) == g.y);
  lambda_returns(g.d.compute, g.d.scratch, f.in(), {0.9, 0.7}, {g.y});
  CHECK(lambda_returns(f.rewards, f.values, sequences, {0.9, 0.7}, bootstrap) == g.y);
  n_step_returns(g.d.compute, g.d.scratch, f.in(), {.gamma = 0.9, .steps = 2}, {g.y});
  CHECK(n_step_returns(f.rewards, f.values, sequences, {.gamma = 0.9, .steps = 2}, bootstrap) == g.y);
  CHECK(n_step_returns(f.rewards, f.values, sequences) != g.y);  // nothing after the last token
  const auto log_ratio = normal_numbers(3, 12);
  vtrace(g.d.compute, g.d.scratch, f.off_policy(log_ratio), {.lambda = 0.8}, {g.y, g.z, g.v, g.w});
  const auto r = vtrace(f.rewards, f.values, log_ratio, sequences, {.lambda = 0.8}, bootstrap);
  CHECK(r.errors == g.y);
  CHECK(r.targets == g.z);
  CHECK(r.advantages == g.v);
  CHECK(r.q == g.w);
  const std::vector<double> short_x(11), short_bootstrap(2);
  CHECK(refusal([&] { discounted_returns(short_x, sequences); }) ==
        "plumb: discounted_returns: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
  CHECK(refusal([&] { lambda_returns(f.rewards, short_x, sequences); }) ==
        "plumb: lambda_returns: argument `values` has 11 elements, but `rewards` has 12. Nothing was written.");
  CHECK(refusal([&] { n_step_returns(f.rewards, f.values, sequences, {}, short_bootstrap); }) ==
        "plumb: n_step_returns: argument `bootstrap` has shape [2], but its dimension 0 must be 3 (the number of sequences). Nothing was written.");
  CHECK(refusal([&] { vtrace(f.rewards, f.values, short_x, sequences); }) ==
        "plumb: vtrace: argument `log_ratio` has 11 elements, but `rewards` has 12. Nothing was written.");
  const std::vector<std::int32_t> beyond{5, 7, 13};
  CHECK(refusal([&] { vtrace(f.rewards, f.values, log_ratio, {begin, beyond, mask}); }) ==
        "plumb: vtrace: sequence 2 is tokens 7 to 13, but there are 12. Nothing was written.");
}

// Advantages per token without a critic: ReMax, REINFORCE++, the optimal token baseline; by their definitions, with holes and what is left out.
#include "support/gradients.hpp"

#include <plumb/ops/optimal_token_baseline.hpp>
#include <plumb/ops/reinforce_plus_plus.hpp>
#include <plumb/ops/remax.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

const double not_a_number = std::nan("");
using flags = std::vector<std::uint8_t>;

/// Five replies of 20 tokens: two prompts with two and three. Reply 1 has a hole, reply 4 no scored token.
const std::vector<std::int32_t> cu{0, 4, 10, 13, 18, 20};
const flags scored{1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
const std::vector<int> prompts{8, 8, 2, 2, 2};
sequence_layout<> sequences() { return sequence_layout<>::packed(cu, scored); }

std::vector<double> with_nan(std::vector<double> x) {
  for (std::size_t t = 0; t < x.size(); ++t)
    if (scored[t] == 0) x[t] = not_a_number;
  return x;
}
std::size_t reply_of(std::size_t t) {
  std::size_t s = 0;
  while (t >= static_cast<std::size_t>(cu[s + 1])) ++s;
  return s;
}
/// Sum of `x` over the scored tokens of the reply of `t`, from it on or up to it.
double sum_of(const std::vector<double>& x, std::size_t t, bool on) {
  const std::size_t s = reply_of(t);
  double sum = 0;
  for (auto u = static_cast<std::size_t>(cu[s]); u < static_cast<std::size_t>(cu[s + 1]); ++u)
    if (scored[u] != 0 && (on ? u >= t : u <= t)) sum += x[u];
  return sum;
}
std::size_t rank_of(std::size_t t) {
  std::size_t rank = 0;
  for (auto u = static_cast<std::size_t>(cu[reply_of(t)]); u < t; ++u) rank += scored[u];
  return rank;
}
void check_near(const std::vector<double>& got, const std::vector<double>& want, double tolerance = 1e-13) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got[i], want[i]);
    CHECK(got[i] == Catch::Approx(want[i]).epsilon(tolerance).margin(tolerance));
  }
}
struct exact_memory {
  serial::backend<double> compute{};
  std::vector<char> memory;
  arena<> scratch;
  explicit exact_memory(std::size_t bytes) : memory(bytes), scratch(memory) {}
};

const auto rewards = normal_numbers(1, 20, 1, 0);

}  // namespace

TEST_CASE("remax: returns less the greedy reply's reward") {
  const std::vector<double> baseline{0.5, -1, 2, 0, not_a_number};
  std::vector<double> a(20), g(20), want(20), returns(20);
  for (std::size_t t = 0; t < 20; ++t)
    if (scored[t] != 0) returns[t] = sum_of(rewards, t, true), want[t] = returns[t] - baseline[reply_of(t)];
  exact_memory on(remax_workspace(serial::backend<double>{}, 20));
  const auto x = with_nan(rewards);
  remax(on.compute, on.scratch, {.rewards = x, .baseline = baseline, .sequences = sequences()}, {.advantage = a, .returns = g});
  check_near(a, want);
  check_near(g, returns);
  std::vector<double> alone(20);
  remax(on.compute, on.scratch, {.rewards = x, .baseline = baseline, .sequences = sequences()}, {.advantage = alone});
  CHECK(alone == a);
  CHECK(remax(x, baseline, sequences()) == a);
  CHECK(refusal([&] { remax(on.compute, on.scratch, {.rewards = x, .baseline = rewards, .sequences = sequences()}, {.advantage = a}); }) ==
        "plumb: remax: argument `baseline` has shape [20], but its dimension 0 must be 5 (the number of sequences). Nothing was written.");
}

TEST_CASE("reinforce++: discounted returns cross holes, and are whitened over the batch") {
  std::vector<double> a(20), g(20), want(20);
  double sum = 0, squares = 0;
  for (std::size_t t = 20; t-- > 0;) {
    if (scored[t] == 0) continue;
    want[t] = rewards[t];
    for (std::size_t u = t + 1; u < 20 && reply_of(u) == reply_of(t); ++u)
      if (scored[u] != 0) {
        want[t] += 0.9 * want[u];
        break;
      }
    sum += want[t] / 16;
  }
  for (std::size_t t = 0; t < 20; ++t) squares += scored[t] != 0 ? (want[t] - sum) * (want[t] - sum) / 16 : 0;
  exact_memory on(reinforce_plus_plus_workspace(serial::backend<double>{}, sequences(), 20));
  const auto x = with_nan(rewards);
  reinforce_plus_plus(on.compute, on.scratch, {.rewards = x, .sequences = sequences()}, {.gamma = 0.9, .whiten = {.epsilon = 0}},
                      {.advantage = a, .returns = g});
  check_near(g, want);
  CHECK(reinforce_plus_plus(x, sequences(), {.gamma = 0.9, .whiten = {.epsilon = 0}}).advantage == a);
  for (std::size_t t = 0; t < 20; ++t) want[t] = scored[t] != 0 ? (want[t] - sum) / std::sqrt(squares) : 0;
  check_near(a, want);
  CHECK(refusal([&] { reinforce_plus_plus(on.compute, on.scratch, {.rewards = x, .sequences = sequences()}, {.gamma = 1.5}, {.returns = g}); }) ==
        "plumb: reinforce_plus_plus: option `gamma` is 1.5 but must be in [0, 1]. Nothing was written.");

  // With the group's mean as baseline.
  const std::vector<double> r{1, 0, 3, 5, not_a_number};
  const flags counts{1, 1, 1, 1, 0};
  const auto groups = group_by_prompt(prompts);
  exact_memory with(reinforce_plus_plus_baseline_workspace(serial::backend<double>{}, groups.layout(), sequences(), 20));
  reinforce_plus_plus_baseline(with.compute, with.scratch, {.rewards = r, .groups = groups.layout(counts), .sequences = sequences()},
                               {.whiten = {.epsilon = 0}}, a);
  const double deviations[] = {0.5, -0.5, -1, 1, 0}, lengths[] = {4, 4, 3, 5, 0};
  sum = squares = 0;
  for (std::size_t s = 0; s < 5; ++s) sum += deviations[s] * lengths[s] / 16;
  for (std::size_t s = 0; s < 5; ++s) squares += (deviations[s] - sum) * (deviations[s] - sum) * lengths[s] / 16;
  for (std::size_t t = 0; t < 20; ++t) want[t] = scored[t] != 0 ? (deviations[reply_of(t)] - sum) / std::sqrt(squares) : 0;
  check_near(a, want);
  CHECK(reinforce_plus_plus_baseline(r, groups, sequences(), 20, {.whiten = {.epsilon = 0}}, counts) == a);
  // Vectors in, whatever the order of the prompts.
  const std::vector<int> mixed{2, 8, 2, 8, 2};
  const std::vector<std::int32_t> begin{10, 0, 13, 4, 18}, end{13, 4, 18, 10, 20};
  check_near(reinforce_plus_plus_baseline(std::vector<double>{3, 1, 5, 0, 7}, group_by_prompt(mixed), {begin, end, scored}, 20,
                                          {.whiten = {.epsilon = 0}}, flags{1, 1, 1, 1, 0}), a);
  CHECK(refusal([&] { reinforce_plus_plus_baseline(r, equal_groups(2, 2), sequences(), 20); }) ==
        "plumb: reinforce_plus_plus_baseline: argument `rewards` has shape [5], but its dimension 0 must be 4 (the number of replies in the groups). "
        "Nothing was written.");
  CHECK(refusal([&] { reinforce_plus_plus_baseline(std::vector<double>(4), groups, sequences(), 20); }) ==
        "plumb: reinforce_plus_plus_baseline: argument `rewards` has shape [4], but its dimension 0 must be 5 (the number of sequences). Nothing was "
        "written.");
}

TEST_CASE("optimal token baseline: by its definition, in columns and in turns") {
  auto logp = normal_numbers(2, 20, 1, -2), importance = normal_numbers(3, 20, 0.2, 1);
  std::vector<double> squared(20), norm(20);
  for (std::size_t t = 0; t < 20; ++t) {
    logp[t] = -std::abs(logp[t]);
    const double p = std::exp(logp[t]);
    squared[t] = p * p + 0.3 * (1 - p) * (1 - p);
    norm[t] = (1 - 2 * p + squared[t]) * importance[t] * importance[t];
  }
  const auto groups = group_by_prompt(prompts);
  for (const token_position position : {token_position::column, token_position::turn})
    for (const bool no_lone_tail : {false, true}) {
      const auto place = [&](std::size_t t) { return position == token_position::turn ? rank_of(t) : t - static_cast<std::size_t>(cu[reply_of(t)]); };
      std::vector<double> want(20);
      for (std::size_t t = 0; t < 20; ++t) {
        if (scored[t] == 0) continue;
        double sum = 0, weights = 1e-8;
        bool last = true;  // no other reply gets this far
        for (std::size_t u = 0; u < 20; ++u) {
          if (scored[u] == 0 || prompts[reply_of(u)] != prompts[reply_of(t)]) continue;
          if (place(u) == place(t)) sum += sum_of(rewards, u, true) * sum_of(norm, u, false), weights += sum_of(norm, u, false);
          last = last && (reply_of(u) == reply_of(t) || place(u) < place(t));
        }
        want[t] = sum_of(rewards, t, true) - (no_lone_tail && last ? 0 : sum / weights);
      }
      const auto cells = token_cells(sequences(), groups, 20, {position, no_lone_tail});
      exact_memory on(optimal_token_baseline_workspace(serial::backend<double>{}, sequences(), 20, cells.count));
      std::vector<double> a(20), g(20);
      const auto x = with_nan(rewards), p = with_nan(logp), s = with_nan(squared), w = with_nan(importance);
      optimal_token_baseline(on.compute, on.scratch, {x, p, s, w, cells.cells, sequences()}, cells.count, {}, {.advantage = a, .returns = g});
      check_near(a, want, 1e-12);
      for (std::size_t t = 0; t < 20; ++t) CHECK(g[t] == Catch::Approx(scored[t] != 0 ? sum_of(rewards, t, true) : 0).margin(1e-14));
    }
}

TEST_CASE("optimal token baseline: a sure token weighs nothing, a lone reply has no baseline") {
  const math::logit_gradient_norm norm;
  CHECK(norm(0.0f, 1.0f, 3.0f) == 0);
  CHECK(norm(-1e-4f, 0.9998f, 1.0f) == Catch::Approx(1e-8).margin(1e-7));
  CHECK(norm(-1e4f, 0.25f, 2.0f) == 5);
  CHECK(std::isnan(norm(not_a_number, 1.0, 1.0)));
  const auto cells = token_cells(sequences(), group_by_prompt(std::vector<int>{1, 2, 3, 4, 4}), 20);  // reply 4 has nothing to show
  CHECK(cells.count == 0);
  CHECK(cells.cells == std::vector<std::int32_t>(20, -1));
}

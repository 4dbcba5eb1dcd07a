// GAE against the loop that one would write: masks, bootstraps, discounts and lambdas per token; its adjoint; what must not matter.
#include "support/gradients.hpp"

#include <plumb/ops/gae.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Four sequences of 14 tokens: with holes, without scored tokens, whole, of one scored token.
const std::vector<std::int32_t> begin{0, 6, 8, 12}, end{6, 8, 12, 14};
const std::vector<std::uint8_t> mask{1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1};
const sequence_layout<> sequences{begin, end, mask};
constexpr std::size_t tokens = 14;

struct trajectory {
  std::vector<double> rewards = normal_numbers(1, 14), values = normal_numbers(2, 14), next_values = normal_numbers(3, 14),
                      bootstrap = normal_numbers(4, 4), discounts, lambdas;
  trajectory() {
    for (std::size_t t = 0; t < tokens; ++t) {
      discounts.push_back(t % 3 == 0 ? 0.5 : 0.9);
      lambdas.push_back(t % 4 == 0 ? 0.2 : 0.8);
      if (mask[t] == 0) rewards[t] = values[t] = next_values[t] = discounts[t] = lambdas[t] = std::nan("");
    }
  }
};
struct answer {
  std::vector<double> advantages = std::vector<double>(tokens), returns = std::vector<double>(tokens);
};
answer run(const trajectory_inputs<double>& in, const gae_options& o) {
  desk<double> d;
  answer y;
  gae(d.compute, d.scratch, in, o, {y.advantages, y.returns});
  return y;
}
/// What a backend without cap::gae does.
template <class T>
struct composing : serial::backend<T> {
  using capabilities = plumb::capabilities<>;
};
template <class T>
gae_result<T> composed(const trajectory_inputs<T>& in, const gae_options& o) {
  composing<T> compute;
  const index_t n = in.rewards.extent(0);
  gae_result<T> y{std::vector<T>(static_cast<std::size_t>(n)), std::vector<T>(static_cast<std::size_t>(n))};
  std::vector<char> memory(gae_workspace(compute, n));
  arena<> scratch(memory);
  gae(compute, scratch, in, o, {y.advantages, y.returns});
  return y;
}
answer loop(const trajectory_inputs<double>& in, const gae_options& o) {
  answer y;
  for (index_t s = 0; s < 4; ++s) {
    double next_value = in.bootstrap.given() ? in.bootstrap(s) : 0, next_advantage = 0;
    for (index_t t = in.sequences.end(s); t-- > in.sequences.begin(s);) {
      if (mask[static_cast<std::size_t>(t)] == 0) continue;
      if (in.next_values.given()) next_value = in.next_values(t);
      const double gamma = o.gamma * (in.discounts.given() ? in.discounts(t) : 1), lambda = o.lambda * (in.lambdas.given() ? in.lambdas(t) : 1);
      next_advantage = in.rewards(t) + gamma * next_value - in.values(t) + gamma * lambda * next_advantage;
      next_value = in.values(t);
      y.advantages[static_cast<std::size_t>(t)] = next_advantage;
      y.returns[static_cast<std::size_t>(t)] = next_advantage + in.values(t);
    }
  }
  return y;
}
void check_same(const answer& a, const answer& b) {
  for (std::size_t t = 0; t < tokens; ++t) {
    CAPTURE(t);
    CHECK(a.advantages[t] == Catch::Approx(b.advantages[t]).epsilon(1e-13).margin(1e-13));
    CHECK(a.returns[t] == Catch::Approx(b.returns[t]).epsilon(1e-13).margin(1e-13));
  }
}

}  // namespace

TEST_CASE("gae: against the loop, whatever is given") {
  const trajectory x;
  for (int given = 0; given < 12; ++given)
    for (const gae_options o : {gae_options{1, 1}, {0.97, 0.95}, {0.9, 0.5}, {0.97, 0.3}, {0.9, 0}, {0, 0.9}}) {
      trajectory_inputs<double> in{.rewards = x.rewards, .values = x.values, .sequences = sequences};
      if (given / 4 == 1) in.bootstrap = x.bootstrap;
      if (given / 4 == 2) in.next_values = x.next_values;
      if (given & 1) in.discounts = x.discounts;
      if (given & 2) in.lambdas = x.lambdas;
      CAPTURE(given, o.gamma, o.lambda);
      check_same(run(in, o), loop(in, o));
      const auto y = composed(in, o);
      check_same({y.advantages, y.returns}, loop(in, o));
    }
}

TEST_CASE("gae: by hand, on vectors") {
  const std::vector<double> rewards{0, 0, 1}, values{0.5, 0.5, 0.5};
  const std::vector<std::int32_t> cu{0, 3};
  const auto y = gae(rewards, values, sequence_layout<>::packed(cu), {.gamma = 1, .lambda = 0.5});
  CHECK(y.advantages == std::vector<double>{0.125, 0.25, 0.5});
  CHECK(y.returns == std::vector<double>{0.625, 0.75, 1});
}

TEST_CASE("gae: the adjoint, by dual numbers and differences") {
  trajectory x;
  for (auto* v : {&x.rewards, &x.values, &x.discounts, &x.lambdas})
    for (double& e : *v) e = std::isnan(e) ? 0.3 : e;
  const auto cotangent = normal_numbers(5, 14);
  auto all = x.rewards;  // rewards, values, bootstrap
  all.insert(all.end(), x.values.begin(), x.values.end());
  all.insert(all.end(), x.bootstrap.begin(), x.bootstrap.end());
  for (const gae_options o : {gae_options{0.97, 0.95}, {0.9, 0}})
    for (const bool per_token : {false, true}) {
      const auto value = [&]<class T>(const std::vector<T>& at) {
        desk<T> d;
        const std::vector<T> discounts(x.discounts.begin(), x.discounts.end()), lambdas(x.lambdas.begin(), x.lambdas.end());
        std::vector<T> advantages(tokens);
        const view<const T, 1> all_of(at), none;
        gae(d.compute, d.scratch,
            {.rewards = all_of.slice(0, 14), .values = all_of.slice(14, 14), .bootstrap = all_of.slice(28, 4),
             .discounts = per_token ? view<const T, 1>(discounts) : none, .lambdas = per_token ? view<const T, 1>(lambdas) : none, .sequences = sequences},
            o, {.advantages = advantages});
        T sum(0);
        for (std::size_t t = 0; t < tokens; ++t) sum += cotangent[t] * advantages[t];
        return sum;
      };
      std::vector<double> gradient(32);
      std::vector<std::int32_t> mirrored_begin(4), mirrored_end(4);
      mirrored_bounds(sequences, 14, mirrored_begin, mirrored_end);
      desk<double> d;
      const view<double, 1> g(gradient);
      gae_backward_inputs<double> in{.d_advantages = cotangent, .sequences = sequences, .mirrored_begin = mirrored_begin, .mirrored_end = mirrored_end};
      if (per_token) in.discounts = x.discounts, in.lambdas = x.lambdas;
      gae_backward(d.compute, d.scratch, in, o, {.d_rewards = g.slice(0, 14), .d_values = g.slice(14, 14), .d_bootstrap = g.slice(28, 4)});
      check_gradient(value, all, gradient);
    }
}

TEST_CASE("gae: what must not matter") {
  const trajectory x;
  const gae_options o{0.97, 0.95};
  const trajectory_inputs<double> in{.rewards = x.rewards, .values = x.values, .sequences = sequences};
  const answer y = run(in, o);
  // The order in which sequences are named.
  const std::vector<std::int32_t> begin_2{12, 0, 8, 6}, end_2{14, 6, 12, 8};
  CHECK(run({.rewards = x.rewards, .values = x.values, .sequences = {begin_2, end_2, mask}}, o).advantages == y.advantages);
  // Tokens between the scored ones (observations): verl and this library; peers that zero them end the episode there.
  const std::vector<double> rewards{x.rewards[0], x.rewards[2], x.rewards[3]}, values{x.values[0], x.values[2], x.values[3]};
  const std::vector<std::int32_t> cu{0, 3};
  const auto packed = gae(rewards, values, sequence_layout<>::packed(cu), o);
  CHECK(packed.advantages == std::vector<double>{y.advantages[0], y.advantages[2], y.advantages[3]});
  // What lies before a token: roll-in, for DR-PO. NaN goes to the tokens before it in its sequence, and no further.
  for (const double lambda : {0.95, 0.2}) {
    auto spoilt = x.rewards;
    spoilt[10] = std::nan("");
    const answer z = run({.rewards = spoilt, .values = x.values, .sequences = sequences}, {0.97, lambda}), w = run(in, {0.97, lambda});
    for (std::size_t t = 0; t < tokens; ++t) {
      CAPTURE(t, lambda);
      CHECK((t >= 8 && t <= 10 ? std::isnan(z.advantages[t]) : z.advantages[t] == w.advantages[t]));
    }
  }
  // Rewards and values of 1e4, in float.
  std::vector<float> far(14, 1e4f), minus(14, -1e4f), advantages(14);
  desk<float> d;
  gae(d.compute, d.scratch, {.rewards = far, .values = minus, .sequences = sequences}, o, {.advantages = advantages});
  for (const float a : advantages) CHECK(std::isfinite(a));
}

TEST_CASE("gae: values far from 0 keep the digits of the advantages, in float") {
  constexpr std::size_t n = 4096;
  const std::vector<std::int32_t> cu{0, static_cast<std::int32_t>(n)};
  const auto r = normal_numbers(8, n, 0.1), v = normal_numbers(9, n, 0.1, 1000);
  std::vector<float> rewards(r.begin(), r.end()), values(v.begin(), v.end());
  rewards[n - 1] += values[n - 1];  // what the values expect, so that the end is no step of 1000
  for (const double lambda : {0.95, 0.6, 0.5, 0.3}) {
    const gae_options o{1, lambda};
    const std::vector<double> exact_rewards(rewards.begin(), rewards.end()), exact_values(values.begin(), values.end());
    const auto layout = sequence_layout<>::packed(cu);
    const auto exact = gae(exact_rewards, exact_values, layout, o);
    for (const auto& y : {gae(rewards, values, layout, o), composed<float>({.rewards = rewards, .values = values, .sequences = layout}, o)}) {
      double largest = 0, error = 0;
      for (std::size_t t = 0; t < n; ++t) {
        largest = std::max(largest, std::abs(exact.advantages[t]));
        error = std::max(error, std::abs(y.advantages[t] - exact.advantages[t]));
      }
      CAPTURE(lambda, error, largest);
      CHECK(error < 1e-6 * largest);
    }
  }
}

TEST_CASE("gae: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(14), short_x(13), bootstrap(4), out(14, 5);
  desk<double> on;
  const auto says = [&](const trajectory_inputs<double>& in, const gae_options& o) {
    return refusal([&] { gae(on.compute, on.scratch, in, o, {.advantages = out}); });
  };
  CHECK(says({.rewards = x, .values = x, .sequences = sequences}, {.lambda = 1.5}) ==
        "plumb: gae: option `lambda` is 1.5 but must be in [0, 1]. Nothing was written.");
  CHECK(says({.rewards = x, .values = short_x, .sequences = sequences}, {}) ==
        "plumb: gae: argument `values` has 13 elements, but `rewards` has 14. Nothing was written.");
  CHECK(says({.rewards = x, .sequences = sequences}, {}) == "plumb: gae: argument `values` is not given. Nothing was written.");
  CHECK(says({.rewards = x, .values = x, .next_values = x, .bootstrap = bootstrap, .sequences = sequences}, {}) ==
        "plumb: gae: `bootstrap` and `next_values` both say what follows the last token: give one. Nothing was written.");
  CHECK(out == std::vector<double>(14, 5));
}

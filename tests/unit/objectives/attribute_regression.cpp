// Attribute regression: by hand, three gradients, missing ratings, exact accumulation, goal weights, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/attribute_regression.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

constexpr index_t n = 4, k = 5;
std::vector<double> ratings() {
  auto y = normal_numbers(8, n * k, 1, 2);
  y[0] = y[7] = y[19] = -100;
  return y;
}

template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(n * k);
};
template <class T>
result<T> run(const std::vector<T>& x) {
  const auto r = ratings();
  const std::vector<T> labels(r.begin(), r.end());
  desk<T> d;
  result<T> out;
  attribute_regression(d.compute, d.scratch, {view(x.data(), n, k), view(labels.data(), n, k)}, {.denominator = 17},
                       {.loss = out.loss, .d_prediction = view(out.gradient.data(), n, k)});
  return out;
}

}  // namespace

TEST_CASE("attribute_regression: gradients by dual numbers and differences") {
  const auto x = normal_numbers(9, n * k, 1, 2);
  check_gradient([]<class T>(const std::vector<T>& at) { return run(at).loss; }, x, run(x).gradient);
}

TEST_CASE("attribute_regression: one denominator over all rated cells") {
  // (1 - 2)^2 + (3 - 1)^2 over two rated cells
  const auto r = attribute_regression(std::vector<double>{1, 5, 3, 6}, {std::vector<double>{2, -100, 1, -100}}, 2);
  CHECK(r.loss == 2.5);
  CHECK(r.d_prediction == std::vector<double>{-1, 0, 2, 0});
  CHECK(r.mean_squared[0] == 2.5);
  CHECK(std::isnan(r.mean_squared[1]));
}

TEST_CASE("attribute_regression: a cell that is not rated contributes nothing, whatever the prediction") {
  auto x = normal_numbers(9, n * k, 1, 2);
  const auto before = run(x);
  x[0] = x[7] = std::nan("");
  x[19] = std::numeric_limits<double>::infinity();
  const auto after = run(x);
  CHECK(before.loss == after.loss);
  CHECK(before.gradient == after.gradient);
}

TEST_CASE("attribute_regression: uneven micro-batches add up exactly to the batch") {
  const auto x = normal_numbers(9, n * k, 1, 2), y = ratings();
  const double denominator = static_cast<double>(count_rated(view<const double, 2>(y.data(), n, k)));
  CHECK(denominator == 17);
  desk<double> d;
  double sum = 0;
  for (const auto& [first, count] : {std::pair<index_t, index_t>{0, 1}, {1, 3}}) {
    double loss = 0;
    attribute_regression(d.compute, d.scratch, {view(x.data(), n, k).slice(first, count), view(y.data(), n, k).slice(first, count)},
                         {.denominator = denominator}, {.loss = loss});
    sum += loss;
  }
  CHECK(sum == Catch::Approx(run(x).loss).epsilon(1e-15));
}

TEST_CASE("attribute_regression: the loss is added too, and weighted") {
  const auto x = normal_numbers(9, n * k, 1, 2), y = ratings();
  desk<double> d;
  double loss = 1;
  for (const auto& [first, count] : {std::pair<index_t, index_t>{0, 1}, {1, 3}})
    attribute_regression(d.compute, d.scratch, {view(x.data(), n, k).slice(first, count), view(y.data(), n, k).slice(first, count)},
                         {.denominator = 17, .weight = 0.5}, {.loss = loss, .mode = write_mode::add});
  CHECK(loss == Catch::Approx(run(x).loss / 2 + 1).epsilon(1e-15));
}

TEST_CASE("goal_reward: weighted attributes, standardised") {
  const std::vector<double> prediction{4, 4, 4, 2, 1, 0, 1, 2, 3, 4};
  const std::vector<double> weights(std::begin(goal_weights::helpsteer2_llama3_70b), std::end(goal_weights::helpsteer2_llama3_70b));
  std::vector<double> reward(2);
  desk<double> d;
  goal_reward(d.compute, d.scratch, view<const double, 2>(prediction.data(), 2, 5), weights, {}, reward);
  CHECK(reward[0] == Catch::Approx(4 * 0.65 + 4 * 0.8 + 4 * 0.45 + 2 * 0.55 - 0.4).epsilon(1e-14));
  CHECK(reward[1] == Catch::Approx(0.8 + 2 * 0.45 + 3 * 0.55 - 4 * 0.4).epsilon(1e-14));
  goal_reward(d.compute, d.scratch, view<const double, 2>(prediction.data(), 2, 5), weights, {.mean = 1, .standard_deviation = 2}, reward);
  CHECK(reward[1] == Catch::Approx((0.8 + 2 * 0.45 + 3 * 0.55 - 4 * 0.4 - 1) / 2).epsilon(1e-14));
}

TEST_CASE("attribute_regression: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(6), y(6), d(6, 5);
  desk<double> on;
  CHECK(refusal([&] {
          attribute_regression(on.compute, on.scratch, {view(x.data(), 3, 2), view(y.data(), 2, 3)}, {.denominator = 6},
                               {.d_prediction = view(d.data(), 3, 2)});
        }) == "plumb: attribute_regression: argument `label` has shape [2, 3], but `prediction` has shape [3, 2]. Nothing was written.");
  CHECK(refusal([&] { attribute_regression(x, {y}, 4); }) ==
        "plumb: attribute_regression: `prediction` has 6 elements, which is no multiple of 4 attributes. Nothing was written.");
  CHECK(refusal([&] {
          goal_reward(on.compute, on.scratch, view<const double, 2>(x.data(), 3, 2), y, {}, d);
        }) == "plumb: goal_reward: argument `weights` has shape [6], but its dimension 0 must be 2 (columns of `prediction`). Nothing was written.");
  CHECK(d == std::vector<double>(6, 5));
}

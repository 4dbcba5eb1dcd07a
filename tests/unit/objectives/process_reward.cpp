// Process rewards: by hand, gradients, hard and soft labels, steps that were not judged, extremes.
#include "support/gradients.hpp"

#include <plumb/objectives/process_reward.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {
const std::vector<double> labels{1, 0, 0.25, -100, 1};
template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(10);
};
template <class T>
result<T> run(const std::vector<T>& x) {
  desk<T> on;
  result<T> r;
  const std::vector<T> y(labels.begin(), labels.end());
  process_reward(on.compute, on.scratch, {.good = view(x).slice(0, 5), .bad = view(x).slice(5, 5), .label = y}, {.denominator = 3, .weight = 2},
                 {.loss = r.loss, .d_good = view(r.gradient).slice(0, 5), .d_bad = view(r.gradient).slice(5, 5)});
  return r;
}
}  // namespace

TEST_CASE("process_reward: gradients by dual numbers and differences") {
  const auto x = normal_numbers(51, 10, 2);
  check_gradient([]<class T>(const std::vector<T>& at) { return run(at).loss; }, x, run(x).gradient);
}

TEST_CASE("process_reward: hard and soft labels by hand, metrics over judged steps") {
  const auto r =
      process_reward(std::vector<double>{1, 1, 0, std::nan("")}, {std::vector<double>{0, 0, 0, 3}}, {std::vector<double>{1, 0.25, 1, -100}});
  const double p = 1 / (1 + std::exp(-1));
  CHECK(r.loss == Catch::Approx((-std::log(p) - 0.25 * std::log(p) - 0.75 * std::log(1 - p) + std::log(2)) / 3).epsilon(1e-14));
  CHECK(r.accuracy == Catch::Approx(1 / 3.0));  // the second is wrong, the third a tie
  CHECK(r.probability == Catch::Approx((2 * p + 0.5) / 3).epsilon(1e-14));
  CHECK(r.d_good[3] == 0);
  CHECK(r.d_good[1] == Catch::Approx((p - 0.25) / 3).epsilon(1e-14));
}

TEST_CASE("process_reward: one output and zeros is a binary cross-entropy; far logits stay finite; NaN shows") {
  const std::vector<float> far{1e4f, -1e4f}, zeros(2), right{1, 0}, wrong{0, 1};
  CHECK(process_reward(far, zeros, right).loss == 0);
  CHECK(process_reward(far, zeros, wrong).loss == 1e4f);
  CHECK(std::isnan(process_reward(std::vector<float>{NAN}, {std::vector<float>{0}}, {std::vector<float>{1}}).loss));
  CHECK(std::isnan(process_reward(std::vector<float>{1}, {std::vector<float>{0}}, {std::vector<float>{NAN}}).accuracy));
}

TEST_CASE("process_reward: halves add up to the whole; what is refused") {
  const auto x = normal_numbers(51, 10, 2);
  const auto want = run(x);
  desk<double> on;
  double loss = 0;
  for (const auto& [first, count] : {std::pair<index_t, index_t>{0, 2}, {2, 3}})
    process_reward(on.compute, on.scratch,
                   {.good = view(x).slice(first, count), .bad = view(x).slice(5 + first, count), .label = view(labels).slice(first, count)},
                   {.denominator = 3, .weight = 2}, {.loss = loss, .mode = write_mode::add});
  CHECK(loss == Catch::Approx(want.loss).epsilon(1e-14));
  CHECK(refusal([&] { process_reward(x, {x}, {x}, {.missing = 0.5}); }) ==
        "plumb: process_reward: option `missing` is 0.5 but must be outside [0, 1], where labels are. Nothing was written.");
}

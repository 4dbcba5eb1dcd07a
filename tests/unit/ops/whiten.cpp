// Whitening: by hand, masks, degenerate batches, digits in float, and three ranks against one.
#include "support/gradients.hpp"
#include "support/ranks.hpp"

#include <plumb/ops/whiten.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

using numbers = std::vector<double>;
const double not_a_number = std::nan("");

/// Three sequences of 12 tokens: with holes, without scored tokens, whole.
const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};

sequence_layout<> one_row(const std::vector<std::int32_t>& cu) { return sequence_layout<>::packed(cu); }

}  // namespace

TEST_CASE("whiten: by hand") {
  const std::vector<std::int32_t> cu{0, 4};
  const numbers x{1, 2, 3, 6};  // mean 3, squares 14
  const auto biased = whiten(x, one_row(cu), {.epsilon = 0});
  CHECK(biased.mean == 3);
  CHECK(biased.variance == 3.5);
  CHECK(biased.whitened[3] == Catch::Approx(3 / std::sqrt(3.5)).epsilon(1e-15));
  const auto unbiased = whiten(x, one_row(cu), {.shift_mean = false, .variance = variance_estimator::unbiased, .epsilon = 1});
  CHECK(unbiased.variance == Catch::Approx(14.0 / 3).epsilon(1e-15));
  CHECK(unbiased.whitened[0] == Catch::Approx(3 - 2 / std::sqrt(14.0 / 3 + 1)).epsilon(1e-15));
  CHECK(whiten(x, one_row(cu), {.guard = variance_guard::floor, .epsilon = 9}).whitened[3] == Catch::Approx(1).epsilon(1e-15));
  CHECK(whiten(x, one_row(cu), {.guard = variance_guard::floor, .epsilon = 1}).whitened[3] == biased.whitened[3]);
  CHECK(whiten(x, one_row(cu), {.count_epsilon = 2}).mean == 2);
}

TEST_CASE("whiten: what does not count") {
  auto x = normal_numbers(1, 12, 2, 5);
  for (std::size_t t = 0; t < 12; ++t)
    if (mask[t] == 0) x[t] = t == 2 ? 1e300 : not_a_number;
  const auto y = whiten(x, sequences), z = whiten(x, sequences, {.unscored = unscored_values::transformed});
  double sum = 0, squares = 0;
  for (std::size_t t = 0; t < 12; ++t) {
    if (mask[t] == 0) {
      CHECK(y.whitened[t] == 0);
      CHECK((t == 2 ? z.whitened[t] > 1e299 : std::isnan(z.whitened[t])));
      continue;
    }
    CHECK(z.whitened[t] == y.whitened[t]);
    sum += y.whitened[t], squares += y.whitened[t] * y.whitened[t];
  }
  CHECK(sum == Catch::Approx(0).margin(1e-13));
  CHECK(squares == Catch::Approx(8).epsilon(1e-7));
  const std::vector<std::int32_t> begin_2{7, 0, 5}, end_2{12, 5, 7};
  CHECK(whiten(x, {begin_2, end_2, mask}).mean == Catch::Approx(y.mean).epsilon(1e-15));
  x[3] = not_a_number;
  for (const double e : whiten(x, sequences).whitened) CHECK((e == 0 || std::isnan(e)));
  CHECK(std::isnan(whiten(x, sequences).variance));
}

TEST_CASE("whiten: constants, one number, none") {
  for (const auto v : {variance_estimator::biased, variance_estimator::unbiased}) {
    CHECK(whiten(numbers{7, 7, 7}, one_row({0, 3}), {.variance = v}).whitened == numbers{0, 0, 0});
    CHECK(whiten(numbers{7}, one_row({0, 1}), {.variance = v}).whitened == numbers{0});  // TRL's divides by 0 here
    CHECK(whiten(numbers{7}, one_row({0, 1}), {.shift_mean = false, .variance = v}).whitened == numbers{7});
    const std::vector<std::uint8_t> none{0, 0};
    const std::vector<std::int32_t> cu{0, 2};
    const auto y = whiten(numbers{not_a_number, not_a_number}, sequence_layout<>::packed(cu, none), {.variance = v});
    CHECK(y.whitened == numbers{0, 0});
    CHECK(y.mean == 0);
    CHECK(std::isnan(whiten(numbers{not_a_number}, one_row({0, 1}), {.variance = v}).variance));
  }
}

TEST_CASE("whiten: two passes keep the digits of a small variance beside a large mean, in float") {
  std::vector<float> x;
  std::vector<std::int32_t> cu{0, 1000};
  for (int i = 0; i < 1000; ++i) x.push_back(i % 2 == 0 ? 10000.25f : 9999.75f);
  const auto y = whiten(x, one_row(cu));
  CHECK(y.variance == Catch::Approx(0.0625f).epsilon(1e-6));  // sum of squares less square of the sum has none left
  CHECK(y.whitened[0] == Catch::Approx(1).epsilon(1e-6));
}

TEST_CASE("whiten: three ranks are one rank") {
  // One rank has no tokens that count.
  const auto x = normal_numbers(2, 12, 3, 40);
  for (const auto v : {variance_estimator::biased, variance_estimator::unbiased}) {
    const whiten_options o{.variance = v, .count_epsilon = 1e-8};
    const auto together = whiten(x, sequences, o);
    numbers whitened(12), mean(3), variance(3);
    const int sums = thread_ranks<double>(3).run([&](auto& me) {
      const std::size_t r = me.rank;
      const auto first = static_cast<index_t>(r);
      const sequence_layout<> own{sequences.begin.slice(first, 1), sequences.end.slice(first, 1), sequences.scored};
      desk<double> d;
      numbers y(12);
      whiten(d.compute, d.scratch, me, {x, own}, o, {.whitened = y, .mean = mean[r], .variance = variance[r]});
      for (std::int32_t t = begin[r]; t < end[r]; ++t) whitened[static_cast<std::size_t>(t)] = y[static_cast<std::size_t>(t)];
    });
    CHECK(sums == 2);
    for (std::size_t r = 0; r < 3; ++r) {
      CHECK(mean[r] == Catch::Approx(together.mean).epsilon(1e-15));
      CHECK(variance[r] == Catch::Approx(together.variance).epsilon(1e-13));
      CHECK(mean[r] == mean[0]);
    }
    for (std::size_t t = 0; t < 12; ++t) CHECK(whitened[t] == Catch::Approx(together.whitened[t]).epsilon(1e-12).margin(1e-13));
  }
}

TEST_CASE("moments: vectors in, the same numbers out") {
  const auto x = normal_numbers(2, 12, 3, 40);
  const moments_options o{.variance = variance_estimator::unbiased, .count_epsilon = 0.5};
  desk<double> d;
  double count = 0, mean = 0, variance = 0;
  moments(d.compute, d.scratch, {x, sequences}, o, {count, mean, variance});
  const auto r = moments(x, sequences, o);
  CHECK(r.count == 8);
  CHECK(r.count == count);
  CHECK(r.mean == mean);
  CHECK(r.variance == variance);
  CHECK(refusal([&] { moments(numbers(11), sequences); }) ==
        "plumb: moments: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
}

TEST_CASE("whiten: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  numbers x(12), y(12, 5), short_y(11);
  CHECK(refusal([&] { whiten(d.compute, d.scratch, {x, sequences}, {.epsilon = -1}, {.whitened = y}); }) ==
        "plumb: whiten: option `epsilon` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(refusal([&] { whiten(d.compute, d.scratch, {x, sequences}, {}, {.whitened = short_y}); }) ==
        "plumb: whiten: argument `whitened` has 11 elements, but `values` has 12. Nothing was written.");
  CHECK(refusal([&] { moments(d.compute, d.scratch, {x, sequences}, {.count_epsilon = -1}, {.mean = y[0]}); }) ==
        "plumb: moments: option `count_epsilon` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(y == numbers(12, 5));
}

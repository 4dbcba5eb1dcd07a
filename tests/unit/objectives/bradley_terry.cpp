// Bradley-Terry reward models: values by hand, gradients three ways, masked pairs, metrics, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/bradley_terry.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

const std::vector<std::uint8_t> valid{1, 0, 1, 1, 1, 0, 1};

/// All 3 x 7 numbers (chosen, rejected, margin) in one vector, so that one gradient covers them.
template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(21);
};
template <class T>
result<T> run(const std::vector<T>& x, bool masked, double center) {
  desk<T> d;
  result<T> r;
  const auto part = [&](auto& all, index_t i) { return view(all.data() + 7 * i, 7); };
  std::vector<T> scale;
  for (int i = 0; i < 7; ++i) scale.push_back(T(0.5 + 0.2 * i));
  bradley_terry_inputs<T> in{part(x, 0), part(x, 1), part(x, 2), scale, {}};
  if (masked) in.valid = valid;
  bradley_terry(d.compute, d.scratch, in, {.center_coefficient = center, .denominator = 5},
                {.loss = r.loss, .d_chosen = part(r.gradient, 0), .d_rejected = part(r.gradient, 1), .d_margin = part(r.gradient, 2)});
  return r;
}

}  // namespace

TEST_CASE("bradley_terry: gradients by dual numbers and differences") {
  const auto x = normal_numbers(3, 21, 2);
  for (const bool masked : {false, true})
    for (const double center : {0.0, 0.05})
      check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, masked, center).loss; }, x, run(x, masked, center).gradient);
}

TEST_CASE("bradley_terry: plain, margin, scaled and centred by hand") {
  const std::vector<double> chosen{1.5}, rejected{0.5}, margin{0.25}, scale{3};
  const auto loss = [](double z) { return std::log1p(std::exp(-z)); };
  CHECK(bradley_terry(chosen, rejected).loss == Catch::Approx(loss(1)).epsilon(1e-14));
  CHECK(bradley_terry(chosen, rejected, {}, margin).loss == Catch::Approx(loss(0.75)).epsilon(1e-14));
  CHECK(bradley_terry(chosen, rejected, {}, {}, scale).loss == Catch::Approx(3 * loss(1)).epsilon(1e-14));
  CHECK(bradley_terry(chosen, rejected, {.center_coefficient = 0.01}).loss == Catch::Approx(loss(1) + 0.01 * 4).epsilon(1e-14));
}

TEST_CASE("bradley_terry: pairs that are not valid contribute nothing, whatever they hold") {
  auto x = normal_numbers(3, 21, 2);
  const auto before = run(x, true, 0.05);
  for (const std::size_t p : {1u, 5u}) x[p] = x[p + 7] = x[p + 14] = std::nan("");
  const auto after = run(x, true, 0.05);
  CHECK(before.loss == after.loss);
  CHECK(before.gradient == after.gradient);
  for (const std::size_t p : {1u, 5u}) CHECK(after.gradient[p] == 0);
}

TEST_CASE("bradley_terry: metrics over valid pairs, a tie counts as wrong") {
  const std::vector<float> chosen{2, 1, 7, -1}, rejected{1, 1, 9, -3};
  const std::vector<std::uint8_t> of{1, 1, 0, 1};
  const auto r = bradley_terry(chosen, rejected, {}, {}, {}, of);
  CHECK(r.accuracy == Catch::Approx(2.0 / 3));
  CHECK(r.margin == Catch::Approx((1 + 0 + 2) / 3.0));
  CHECK(r.reward_chosen == Catch::Approx(2.0 / 3));
  CHECK(r.reward_rejected == Catch::Approx(-1.0 / 3));
  CHECK(r.reward_mean == Catch::Approx(1.0 / 6));
  CHECK(r.reward_min == -3);
  CHECK(r.reward_max == 2);
}

TEST_CASE("bradley_terry: metrics of micro-batches merge to those of the batch") {
  const auto c = normal_numbers(4, 9), j = normal_numbers(5, 9);
  desk<double> d;
  double whole[7][2], part[7][2], merged[7][2] = {};
  const auto measure = [&](index_t first, index_t count, double(&m)[7][2]) {
    bradley_terry(d.compute, d.scratch, {.chosen = view(c).slice(first, count), .rejected = view(j).slice(first, count)}, {.denominator = 9},
                  {.metrics = view<double, 2>(&m[0][0], 7, 2)});
  };
  measure(0, 9, whole);
  measure(0, 4, merged);
  measure(4, 5, part);
  merge_metrics(bradley_terry_metrics, view<double, 2>(&merged[0][0], 7, 2), view<double, 2>(&part[0][0], 7, 2));
  for (int k = 0; k < 7; ++k)
    for (int i = 0; i < 2; ++i) CHECK(merged[k][i] == Catch::Approx(whole[k][i]).epsilon(1e-14));
}

TEST_CASE("bradley_terry: far rewards neither overflow nor lose their gradient") {
  for (const double gap : {2e3, -2e3}) {
    const auto r = bradley_terry(std::vector<double>{gap}, {std::vector<double>{0}});
    CHECK(r.loss == (gap > 0 ? 0.0 : 2e3));
    CHECK(r.d_chosen[0] == (gap > 0 ? 0.0 : -1.0));
  }
  CHECK(std::isnan(bradley_terry(std::vector<double>{std::nan("")}, {std::vector<double>{0}}).accuracy));
}

TEST_CASE("bradley_terry: gradients may interleave in one array") {
  const auto c = normal_numbers(6, 5), j = normal_numbers(7, 5);
  const auto want = bradley_terry(c, {j});
  std::vector<double> both(10);
  desk<double> d;
  bradley_terry(d.compute, d.scratch, {.chosen = c, .rejected = j}, {.denominator = 5},
                {.d_chosen = {both.data(), {5}, {2}}, .d_rejected = {both.data() + 1, {5}, {2}}});
  for (std::size_t p = 0; p < 5; ++p) {
    CHECK(both[2 * p] == want.d_chosen[p]);
    CHECK(both[2 * p + 1] == want.d_rejected[p]);
  }
}

TEST_CASE("bradley_terry: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(4), y(3), d(4, 5);
  double loss = 5;
  desk<double> on;
  const auto with = [&](const bradley_terry_inputs<double>& in, const bradley_terry_options& o, view<double, 1> a, view<double, 1> b) {
    return refusal([&] { bradley_terry(on.compute, on.scratch, in, o, {.loss = loss, .d_chosen = a, .d_rejected = b}); });
  };
  CHECK(with({x, y}, {.denominator = 4}, d, {}) ==
        "plumb: bradley_terry: argument `rejected` has 3 elements, but `chosen` has 4. Nothing was written.");
  CHECK(with({x, x, y}, {.denominator = 4}, d, {}) ==
        "plumb: bradley_terry: argument `margin` has 3 elements, but `chosen` has 4. Nothing was written.");
  CHECK(with({x, x}, {.center_coefficient = -1, .denominator = 4}, d, {}) ==
        "plumb: bradley_terry: option `center_coefficient` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(with({x, x}, {.denominator = 4}, d, d) == "plumb: bradley_terry: output `d_chosen` overlaps `d_rejected` in memory. Nothing was written.");
  CHECK(with({x, x}, {.denominator = 4}, x, {}) == "plumb: bradley_terry: output `d_chosen` overlaps `chosen` in memory. Nothing was written.");
  CHECK(loss == 5);
  CHECK(d == std::vector<double>(4, 5));
}

TEST_CASE("bradley_terry: any byte but 0 says valid, and counts once") {
  const std::vector<double> chosen{2, 0, 5}, rejected{1, 1, 0};
  const std::vector<std::uint8_t> ones{1, 1, 0}, others{2, 255, 0};
  const auto a = plumb::bradley_terry(chosen, rejected, {}, {}, {}, ones), b = plumb::bradley_terry(chosen, rejected, {}, {}, {}, others);
  CHECK(a.accuracy == 0.5);
  CHECK(b.accuracy == 0.5);
  CHECK(b.loss == a.loss);
  CHECK(b.margin == 0);
}

TEST_CASE("bradley_terry: the loss is added too, and weighted") {
  const auto c = normal_numbers(4, 9), j = normal_numbers(5, 9);
  const auto want = bradley_terry(c, {j}, {.weight = 0.5});
  CHECK(want.loss == Catch::Approx(bradley_terry(c, {j}).loss / 2).epsilon(1e-14));
  desk<double> d;
  double loss = 1;
  std::vector<double> gradient(9, 2);
  for (const auto& [first, count] : {std::pair<index_t, index_t>{0, 4}, {4, 5}})
    bradley_terry(d.compute, d.scratch, {.chosen = view(c).slice(first, count), .rejected = view(j).slice(first, count)},
                  {.denominator = 9, .weight = 0.5}, {.loss = loss, .d_chosen = view(gradient).slice(first, count), .mode = write_mode::add});
  CHECK(loss == Catch::Approx(want.loss + 1).epsilon(1e-14));
  for (std::size_t p = 0; p < 9; ++p) CHECK(gradient[p] == Catch::Approx(want.d_chosen[p] + 2).epsilon(1e-14));
}

namespace {
/// Six pairs: each order, a tie, one that was not rated.
const std::vector<double> strength{-2, 3, 0, -100, -1, 1};
template <class T>
result<T> run_rated(const std::vector<T>& x, const rated_bradley_terry_options& o, std::vector<T>* pair_loss = nullptr) {
  desk<T> d;
  result<T> r{.loss = T(0), .gradient = std::vector<T>(12)};
  const std::vector<T> s(strength.begin(), strength.end());
  rated_bradley_terry_outputs<T> out{.loss = r.loss, .d_first = view(r.gradient).slice(0, 6), .d_second = view(r.gradient).slice(6, 6)};
  if (pair_loss != nullptr) out.pair_loss = *pair_loss;
  rated_bradley_terry(d.compute, d.scratch, {.first = view(x).slice(0, 6), .second = view(x).slice(6, 6), .strength = s}, o, out);
  return r;
}
}  // namespace

TEST_CASE("rated_bradley_terry: gradients, each use of the strength, with and without ties") {
  const auto x = normal_numbers(13, 12);
  for (const strength_use use : {strength_use::ignored, strength_use::margin, strength_use::scale})
    for (const bool ties : {false, true}) {
      const rated_bradley_terry_options o{.use = use, .ties_to_second = ties, .loss = {.center_coefficient = 0.1, .denominator = 5}};
      check_gradient([&]<class T>(const std::vector<T>& at) { return run_rated(at, o).loss; }, x, run_rated(x, o).gradient);
    }
}

TEST_CASE("rated_bradley_terry: winner, margin and scale by hand") {
  std::vector<double> x{1, 1, 1, std::nan(""), 1, 1, 0, 0, 0, 2, 0, 0}, pairs(6);
  const auto loss = [](double z) { return std::log1p(std::exp(-z)); };
  run_rated(x, {.use = strength_use::scale, .loss = {.denominator = 1}}, &pairs);
  const double scaled[] = {2 * loss(1), 3 * loss(-1), 0, 0, loss(1), loss(-1)};
  for (std::size_t p = 0; p < 6; ++p) CHECK(pairs[p] == Catch::Approx(scaled[p]).epsilon(1e-14));
  run_rated(x, {.use = strength_use::margin, .ties_to_second = true, .loss = {.denominator = 1}}, &pairs);
  const double margin[] = {loss(-1), loss(-4), loss(-1), 0, loss(0), loss(-2)};
  for (std::size_t p = 0; p < 6; ++p) CHECK(pairs[p] == Catch::Approx(margin[p]).epsilon(1e-14));
  const auto whole = rated_bradley_terry(std::vector<double>(x.begin(), x.begin() + 6), view<const double, 1>(x.data() + 6, 6), strength);
  CHECK(whole.loss == Catch::Approx((scaled[0] + scaled[1] + scaled[4] + scaled[5]) / 4).epsilon(1e-14));
  CHECK(whole.accuracy == 0.5);
  CHECK(whole.d_first[3] == 0);
  CHECK(count_rated_pairs(view<const double, 1>(strength)) == 4);
  CHECK(count_rated_pairs(view<const double, 1>(strength), {.ties_to_second = true}) == 5);
}

TEST_CASE("rated_bradley_terry: metrics are of the pairs that count; NaN shows; two outputs never share memory") {
  std::vector<double> x{1, 0, 1, std::nan(""), 1, 1, 0, 1, 5, 2, 2, 0}, m(14);
  desk<double> d;
  const rated_bradley_terry_options o{.use = strength_use::ignored, .loss = {.denominator = 4}};
  rated_bradley_terry(d.compute, d.scratch, {.first = view(x).slice(0, 6), .second = view(x).slice(6, 6), .strength = strength}, o,
                      {.metrics = view<double, 2>(m.data(), 7, 2)});
  CHECK(m[0] == 2);  // pairs 0 and 1; 4 and 5 are wrong
  CHECK(m[1] == 4);
  auto s = strength;
  s[0] = std::nan("");
  double loss = 0;
  rated_bradley_terry(d.compute, d.scratch, {.first = view(x).slice(0, 6), .second = view(x).slice(6, 6), .strength = s}, o, {.loss = loss});
  CHECK(std::isnan(loss));
  CHECK(refusal([&] {
          rated_bradley_terry(d.compute, d.scratch, {.first = view(x).slice(0, 6), .second = view(x).slice(6, 6), .strength = s}, o,
                              {.d_first = view(x).slice(0, 6)});
        }) == "plumb: rated_bradley_terry: output `d_first` overlaps `first` in memory. Nothing was written.");
}

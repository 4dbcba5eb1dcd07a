// DPO: values that can be worked out by hand, gradients three ways, laws, metrics, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/dpo.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Six sequences of 20 tokens, with holes, in four pairs; sequence 0 in two of them, sequence 5 in none.
struct batch {
  std::vector<std::int32_t> begin{0, 3, 7, 9, 14, 18}, end{3, 7, 9, 14, 18, 20}, chosen{0, 2, 4, 0}, rejected{1, 3, 1, 4};
  std::vector<std::uint8_t> scored{0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1};
  preference_pairs<> pairs() const { return {{begin, end, scored}, chosen, rejected}; }
};

template <class T>
struct result {
  T loss{};
  std::vector<T> d_logp, pair_loss;
};

template <class T>
result<T> run(const std::vector<T>& logp, const std::vector<T>& ref, const dpo_options& options) {
  const batch b;
  desk<T> d;
  result<T> r{{}, std::vector<T>(logp.size()), std::vector<T>(b.chosen.size())};
  dpo(d.compute, d.scratch, {logp, ref, b.pairs()}, options, {r.loss, r.d_logp, r.pair_loss, {}});
  return r;
}

}  // namespace

TEST_CASE("dpo: gradients by dual numbers and differences") {
  const auto x = normal_numbers(1, 20, 1, -2), ref = normal_numbers(2, 20, 1, -2);
  for (const double smoothing : {0.0, 0.1, 0.5})
    for (const double beta : {0.1, 1.0}) {
      const dpo_options options{.beta = beta, .label_smoothing = smoothing, .denominator = 7};
      check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, std::vector<T>(ref.begin(), ref.end()), options).loss; }, x,
                     run(x, ref, options).d_logp);
    }
  const dpo_options free{.reference_free = true, .denominator = 4};
  check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, std::vector<T>{}, free).loss; }, x, run(x, {}, free).d_logp);
}

TEST_CASE("dpo: one pair by hand") {
  // z = 0.1 ((-10 + 12) - (-11 + 11)) = 0.2
  const auto r = dpo(std::vector<double>{-10}, {std::vector<double>{-11}}, {std::vector<double>{-12}}, {std::vector<double>{-11}});
  CHECK(r.loss == Catch::Approx(std::log1p(std::exp(-0.2))).epsilon(1e-14));
  CHECK(r.d_chosen[0] == Catch::Approx(-0.1 / (1 + std::exp(0.2))).epsilon(1e-14));
  CHECK(r.d_rejected[0] == -r.d_chosen[0]);
  CHECK(r.accuracy == 1);
  CHECK(r.margin == Catch::Approx(0.2));
  CHECK(r.reward_chosen == Catch::Approx(0.2));
  CHECK(r.reward_rejected == 0);
  CHECK(r.logp_chosen == -10);
  CHECK(r.logp_rejected == -11);
}

TEST_CASE("dpo: tokens that do not count do not matter, whatever they hold") {
  auto x = normal_numbers(1, 20, 1, -2), ref = normal_numbers(2, 20, 1, -2);
  const auto before = run(x, ref, {.denominator = 4});
  for (const std::size_t t : {0u, 5u, 13u}) x[t] = ref[t] = std::nan("");
  const auto after = run(x, ref, {.denominator = 4});
  CHECK(before.loss == after.loss);
  CHECK(before.d_logp == after.d_logp);
  for (const std::size_t t : {0u, 5u, 13u, 18u, 19u}) CHECK(after.d_logp[t] == 0);
}

TEST_CASE("dpo: far pairs neither overflow nor lose their gradient") {
  for (const double gap : {1e4, -1e4}) {
    const auto r = dpo(std::vector<double>{gap}, {std::vector<double>{0}}, {std::vector<double>{0}}, {std::vector<double>{0}}, {.beta = 1});
    CHECK(r.loss == (gap > 0 ? 0.0 : 1e4));
    CHECK(r.d_chosen[0] == (gap > 0 ? 0.0 : -1.0));
  }
  CHECK(std::isnan(dpo(std::vector<double>{std::nan("")}, {std::vector<double>{0}}, {}, {}, {.reference_free = true}).loss));
}

TEST_CASE("dpo: a pair without scored tokens is not log 2 but nothing") {
  const std::vector<double> x{-1, std::nan(""), -2}, ref(3);
  const std::vector<std::int32_t> begin{0, 1, 2}, end{1, 2, 3}, chosen{1, 0}, rejected{1, 2};
  const std::vector<std::uint8_t> scored{1, 0, 1};
  const preference_pairs<> pairs{{begin, end, scored}, chosen, rejected};
  std::vector<double> d(3), each(2), metrics(12);
  double loss = 0;
  desk<double> on;
  dpo(on.compute, on.scratch, {x, ref, pairs}, {.denominator = 2}, {loss, d, each, view<double, 2>(metrics.data(), 6, 2)});
  CHECK(each[0] == 0);
  CHECK(loss == Catch::Approx(std::log1p(std::exp(-0.1)) / 2).epsilon(1e-14));
  CHECK(d[1] == 0);
  for (std::size_t k = 1; k < 12; k += 2) CHECK(metrics[k] == 1);
}

TEST_CASE("dpo: write_mode::add adds to the gradient") {
  const batch b;
  const auto x = normal_numbers(1, 20, 1, -2), ref = normal_numbers(2, 20, 1, -2);
  std::vector<double> d(20, 3.0);
  desk<double> on;
  dpo(on.compute, on.scratch, {x, ref, b.pairs()}, {.denominator = 4}, {.d_logp = d, .mode = write_mode::add});
  const auto fresh = run(x, ref, {.denominator = 4});
  for (std::size_t t = 0; t < 20; ++t) CHECK(d[t] == Catch::Approx(3 + fresh.d_logp[t]).epsilon(1e-14));
}

TEST_CASE("dpo: no pairs, a loss of 0") {
  const auto r = dpo(std::vector<float>{}, {}, {}, {});
  CHECK(r.loss == 0);
  CHECK(std::isnan(r.accuracy));
}

TEST_CASE("dpo: what is refused, in a sentence, with nothing written") {
  const batch b;
  std::vector<double> x(20), ref(20), short_ref(19), d(20, 5);
  double loss = 5;
  desk<double> on;
  const auto with = [&](const dpo_inputs<double>& in, const dpo_options& o, view<double, 1> gradient) {
    return refusal([&] { dpo(on.compute, on.scratch, in, o, {.loss = loss, .d_logp = gradient}); });
  };
  CHECK(with({x, short_ref, b.pairs()}, {.denominator = 4}, d) ==
        "plumb: dpo: argument `ref_logp` has 19 elements, but `logp` has 20. Nothing was written.");
  CHECK(with({x, {}, b.pairs()}, {.denominator = 4}, d) ==
        "plumb: dpo: argument `ref_logp` is not given; give it, or set `reference_free`. Nothing was written.");
  CHECK(with({x, ref, b.pairs()}, {.reference_free = true, .denominator = 4}, d) ==
        "plumb: dpo: argument `ref_logp` is given, but option `reference_free` leaves the reference out; drop one of the two. Nothing was written.");
  CHECK(with({x, ref, b.pairs()}, {.beta = 0, .denominator = 4}, d) == "plumb: dpo: option `beta` is 0 but must be positive. Nothing was written.");
  CHECK(with({x, ref, b.pairs()}, {.beta = std::nan(""), .denominator = 4}, d) ==
        "plumb: dpo: option `beta` is nan but must be positive. Nothing was written.");
  CHECK(with({x, ref, b.pairs()}, {.label_smoothing = 0.6, .denominator = 4}, d) ==
        "plumb: dpo: option `label_smoothing` is 0.6 but must be in [0, 0.5]. Nothing was written.");
  CHECK(with({x, ref, b.pairs()}, {}, d) ==
        "plumb: dpo: option `denominator` is 0 but must be positive: the count that the loss of the whole global batch is divided by. Nothing was "
        "written.");
  CHECK(with({x, ref, b.pairs()}, {.denominator = 4}, x) == "plumb: dpo: output `d_logp` overlaps `logp` in memory. Nothing was written.");
  arena<> none;
  CHECK_THAT(refusal([&] { dpo(on.compute, none, {x, ref, b.pairs()}, {.denominator = 4}, {.loss = loss, .d_logp = d}); }),
             Catch::Matchers::StartsWith("plumb: dpo: the arena has 0 bytes left, but dpo_workspace asks for "));
  CHECK(loss == 5);
  CHECK(d == std::vector<double>(20, 5));
}

TEST_CASE("dpo: thousands of tokens a reply lose no digits in float") {
  for (const std::int32_t length : {512, 4096}) {
    const auto noise = normal_numbers(3, index_t{2} * length, 0.05, 0);
    std::vector<float> logp, ref;
    for (const double x : noise) {
      ref.push_back(static_cast<float>(-2 + x));
      logp.push_back(ref.back() + static_cast<float>(0.02 * x + 0.001));
    }
    const std::vector<std::int32_t> cu{0, length, 2 * length}, chosen{0}, rejected{1};
    const preference_pairs<> pairs{sequence_layout<>::packed(cu), chosen, rejected};
    const auto of = [&]<class T>(T) {
      const std::vector<T> x(logp.begin(), logp.end()), y(ref.begin(), ref.end());
      desk<T> on;
      result<T> r{{}, std::vector<T>(x.size()), {}};
      dpo(on.compute, on.scratch, {x, y, pairs}, {.beta = 0.5, .denominator = 1}, {.loss = r.loss, .d_logp = r.d_logp});
      return std::pair<double, double>(r.loss, r.d_logp[0]);
    };
    const auto [loss, gradient] = of(0.0f);
    const auto [exact, exact_gradient] = of(0.0);
    CHECK(std::abs(loss - exact) < 1e-6 * exact);
    CHECK(std::abs(gradient - exact_gradient) < 1e-6 * std::abs(exact_gradient));
  }
}

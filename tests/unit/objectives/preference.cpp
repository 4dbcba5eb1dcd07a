// Paired losses: every link and divergence on scalars, the composition by gradients and laws, matching by rank, mixtures, weights, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/dpo.hpp>
#include <plumb/objectives/preference.hpp>
#include <plumb/testing/memory.hpp>

#include <algorithm>
#include <limits>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

const double nan_value = std::nan("");

/// A link with the pair's rewards, where it takes them, as numbers.
template <class L, class T>
pair_term<T> term(const L& l, const T& chosen, const T& rejected) {
  if constexpr (reward_aware_link<L, T>) {
    return l(chosen, rejected, T(0.8), T(-0.3));
  } else {
    return l(chosen, rejected);
  }
}

/// Both derivatives by dual numbers away from kinks, NaN on either side, log-ratios of 1e4 in float, and `value` at scores 1 and -1.
template <class L>
void check_link(const char* name, const L& l, double value) {
  CAPTURE(name);
  for (const double c : {-40.0, -3.0, -0.2, 0.7, 2.5, 40.0})
    for (const double r : {-41.0, -2.0, -0.1, 0.4, 3.5, 39.0}) {
      CAPTURE(c, r);
      const auto t = term<L, double>(l, c, r);
      const auto by_chosen = term<L, dual>(l, {c, 1}, {r, 0}), by_rejected = term<L, dual>(l, {c, 0}, {r, 1});
      CHECK(t.value == by_chosen.value.value);
      const double scale = std::max(1e-9, std::abs(t.d_chosen) + std::abs(t.d_rejected));
      CHECK(std::abs(t.d_chosen - by_chosen.value.slope) < 1e-12 * scale);
      CHECK(std::abs(t.d_rejected - by_rejected.value.slope) < 1e-12 * scale);
      if (detail::link_of_margin<L>) CHECK(t.d_rejected == -t.d_chosen);
    }
  for (const auto& [c, r] : {std::pair{nan_value, 1.0}, {1.0, nan_value}}) {
    const auto t = term<L, double>(l, c, r);
    CHECK(std::isnan(t.value));
    CHECK((std::isnan(t.d_chosen) || std::isnan(t.d_rejected)));
  }
  for (const float c : {-1e4f, 0.0f, 1e4f})
    for (const float r : {-1e4f, 0.0f, 1e4f}) {
      const auto t = term<L, float>(l, c, r);
      CHECK(std::isfinite(t.value));
      CHECK(std::isfinite(t.d_chosen));
      CHECK(std::isfinite(t.d_rejected));
    }
  CHECK(term<L, double>(l, 1, -1).value == Catch::Approx(value).epsilon(1e-5));
}

}  // namespace

TEST_CASE("preference: links, their derivatives, NaN, extremes") {
  check_link("sigmoid", link::sigmoid{}, 0.598139);
  check_link("sigmoid, smoothed", link::sigmoid{.label_smoothing = 0.1}, 0.618139);
  check_link("sigmoid, margin", link::sigmoid{.beta = 0.4, .margin = 0.5}, std::log1p(std::exp(-0.3)));
  check_link("robust", link::robust{.label_smoothing = 0.1}, 0.573139);
  check_link("hinge", link::hinge{}, 0.8);
  check_link("ipo", link::ipo{}, 9);
  check_link("exo_pair", link::exo_pair{}, 2.422015);
  check_link("nca_pair", link::nca_pair{}, 1.338793);
  check_link("bco_pair", link::bco_pair{}, 1.288793);
  check_link("sppo_hard", link::sppo_hard{}, 32);
  check_link("sppo", link::sppo{}, std::pow(1 - 3.0, 2) + std::pow(-1 + 8.0, 2));
  check_link("apo_zero", link::apo_zero{}, 0.950042);
  check_link("apo_down", link::apo_down{}, 0.975145);
  check_link("discopop", link::discopop{}, 0.814763);
  check_link("dpop", link::dpop{}, std::log1p(std::exp(-0.6)));
  check_link("rpo_squared", link::rpo_squared{.scale = 0.5}, std::pow(0.2 - 0.55, 2));
  check_link("rpo_backward_kl", link::rpo_backward_kl{.scale = 1 / 1.1}, 0.069724);
  check_link("rpo_forward_kl", link::rpo_forward_kl{.scale = 1 / 1.1}, 0.075256);
}

TEST_CASE("preference: kinks, and where peers lose digits") {
  CHECK(link::hinge{.beta = 1}(1.0, 0.0).d_chosen == 0);
  CHECK(link::dpop{.beta = 1, .lambda = 5}(0.0, 1.0).d_chosen == -link::dpop{.beta = 1}(0.0, 1.0).d_rejected);
  // TRL multiplies 0 by infinity here; the logistic part has long gone as well.
  const auto far = link::discopop{.beta = 1}(-2000.0, 0.0);
  CHECK(far.value == Catch::Approx(2000).epsilon(1e-14));
  CHECK(far.d_chosen == Catch::Approx(-1).epsilon(1e-14));
  // 1 - sigmoid(50) by subtraction is 0.
  CHECK(link::apo_zero{.beta = 1}(50.0, -60.0).value == Catch::Approx(std::exp(-50.0)).epsilon(1e-4));
  CHECK(link::apo_down{.beta = 1, .chosen_share = 0}(50.0, 0.0).value == Catch::Approx(std::exp(-50.0)).epsilon(1e-12));
  // A smoothed target of log-odds t is the minimum of EXO: 0 within rounding, slope 0.
  const double t = std::log(0.9) - std::log(0.1);
  CHECK(std::abs(link::exo_pair{.beta = 1, .label_smoothing = 0.1}(t, 0.0).value) < 1e-15);
  // DPOP is DPO while the chosen reply has not fallen.
  CHECK(link::dpop{}(0.5, 2.0).value == link::sigmoid{.beta = 0.3}(0.5, 2.0).value);
}

TEST_CASE("preference: divergences") {
  const auto check = [](const auto& d, double at_zero) {
    for (const double x : {-20.0, -1.5, -1e-7, 0.0, 0.3, 4.0, 20.0}) {
      CAPTURE(x);
      const two<dual> by = d(dual(x, 1));
      const two<double> y = d(x);
      CHECK(y.first == by.first.value);
      CHECK(y.second == Catch::Approx(by.first.slope).epsilon(1e-13).margin(1e-300));
      CHECK(0 <= y.second);
    }
    CHECK(d(0.0).first == Catch::Approx(at_zero).margin(1e-16));
    CHECK(std::isnan(d(nan_value).first));
    CHECK(std::isnan(d(nan_value).second + d(nan_value).first));
  };
  check(divergence::reverse_kl{}, 0);
  check(divergence::forward_kl{}, -1);
  check(divergence::js{}, 0);
  check(divergence::js{.drop_constant = true}, -std::log(2.0));
  for (const double a : {0.0, 0.5, 1.0, 1 + 1e-9, 2.0}) check(divergence::alpha{.coefficient = a}, 0);
  check(divergence::alpha{.coefficient = 0.5, .max_exponent = 5, .drop_constant = true}, -2);
  check(divergence::forward_kl{.max_exponent = 10}, -1);
  // The limit a -> 1 keeps its digits, a = 0 is the forward KL and a constant.
  CHECK(divergence::alpha{.coefficient = 1 + 1e-9}(3.0).first == Catch::Approx(3).epsilon(1e-8));
  CHECK(divergence::alpha{.coefficient = 0}(0.7).first == Catch::Approx(1 + divergence::forward_kl{}(0.7).first).epsilon(1e-14));
  // Beyond the stop there is no gradient; at it there is.
  CHECK(divergence::alpha{.coefficient = 2, .max_exponent = 5}(5.0).second == std::exp(5.0));
  CHECK(divergence::alpha{.coefficient = 2, .max_exponent = 5}(5.01).second == 0);
}

namespace {

/// Six sequences of 20 tokens, with holes, in three pairs; sequence 5 in none, sequence 0 in two.
struct sample {
  std::vector<std::int32_t> begin{0, 3, 7, 9, 14, 18}, end{3, 7, 9, 14, 18, 20}, chosen{0, 2, 4, 0}, rejected{1, 3, 1, 4};
  std::vector<std::uint8_t> scored{0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1};
  std::vector<double> ref = normal_numbers(2, 20, 1, -2), token_weight = normal_numbers(3, 20, 0.2, 1), pair_weight{0.5, 2, 0, 1},
                      margin{0.1, -0.2, 0.3, 0}, reward_chosen{1, 2, 3, 0.5}, reward_rejected{0, 2.5, 1, -1};
  preference_pairs<> pairs() const { return {{begin, end, scored}, chosen, rejected}; }
};
template <class T>
std::vector<T> as(const std::vector<double>& x) {
  return {x.begin(), x.end()};
}

template <class T>
struct result {
  T loss{};
  std::vector<T> d_logp = std::vector<T>(20), pair_loss = std::vector<T>(4);
};

/// What of the sample is given.
struct given {
  bool token_weight = false, pair_weight = false, margin = false;
};

template <class T, class L, class D>
result<T> run(const std::vector<T>& logp, const L& l, const D& d, const preference_options& options, given what = {}) {
  const sample s;
  desk<T> on;
  result<T> r;
  const auto ref = as<T>(s.ref), w = as<T>(s.token_weight), v = as<T>(s.pair_weight), m = as<T>(s.margin), a = as<T>(s.reward_chosen),
             b = as<T>(s.reward_rejected);
  preference_inputs<T> in{.logp = logp, .pairs = s.pairs()};
  if constexpr (reward_aware_link<L, T>) {
    in.reward_chosen = a;
    in.reward_rejected = b;
  }
  if (!options.reference_free) in.ref_logp = ref;
  if (what.token_weight) in.token_weight = w;
  if (what.pair_weight) in.pair_weight = v;
  if (what.margin) in.margin = m;
  preference(on.compute, on.scratch, in, l, d, options, {.loss = r.loss, .d_logp = r.d_logp, .pair_loss = r.pair_loss});
  return r;
}

}  // namespace

TEST_CASE("preference: gradients of the composition by dual numbers and differences") {
  const auto x = normal_numbers(8, 20, 1, -2);
  const auto check = [&](const auto& l, const auto& d, const preference_options& options, given what) {
    CAPTURE(static_cast<int>(options.score), static_cast<int>(options.matching), what.margin);
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, l, d, options, what).loss; }, x, run(x, l, d, options, what).d_logp);
  };
  const divergence::js js{};
  for (const reply_score score : {reply_score::sum, reply_score::mean})
    for (const bool all : {false, true}) {
      const given what{all, all, all};
      check(link::nca_pair{.beta = 0.4}, js, {.score = score, .denominator = 3, .weight = -0.7}, what);
      check(link::nca_pair{.beta = 0.4}, js, {.score = score, .reference_free = true, .denominator = 3}, what);
      for (const pair_matching m : {pair_matching::given, pair_matching::ranked, pair_matching::ranked_margins})
        check(link::sigmoid{.beta = 0.8, .label_smoothing = 0.1}, divergence::reverse_kl{}, {.score = score, .matching = m, .denominator = 5},
              {all, all && m == pair_matching::given, all});
    }
  check(link::nca_pair{.beta = 0.4}, js, {.matching = pair_matching::ranked, .denominator = 3}, {true, false, true});
  check(link::sppo{}, divergence::reverse_kl{}, {.denominator = 2}, {});
}

TEST_CASE("preference: a mixture is calls that add; a weight is a factor") {
  const auto x = normal_numbers(1, 20, 1, -2);
  const sample s;
  desk<double> on;
  result<double> r;
  const preference_inputs<double> in{.logp = x, .ref_logp = s.ref, .pairs = s.pairs()};
  preference(on.compute, on.scratch, in, link::sigmoid{}, {.denominator = 4, .weight = 0.8}, {.loss = r.loss, .d_logp = r.d_logp});
  preference(on.compute, on.scratch, in, link::bco_pair{}, {.denominator = 4, .weight = 0.2}, {.loss = r.loss, .d_logp = r.d_logp, .mode = write_mode::add});
  const auto a = run(x, link::sigmoid{}, divergence::reverse_kl{}, {.denominator = 4}), b = run(x, link::bco_pair{}, divergence::reverse_kl{}, {.denominator = 4});
  CHECK(r.loss == Catch::Approx(0.8 * a.loss + 0.2 * b.loss).epsilon(1e-14));
  for (std::size_t t = 0; t < 20; ++t) CHECK(r.d_logp[t] == Catch::Approx(0.8 * a.d_logp[t] + 0.2 * b.d_logp[t]).epsilon(1e-13).margin(1e-17));
  // `dpo` is the sigmoid link.
  double loss = 0;
  dpo(on.compute, on.scratch, in, {.denominator = 4, .weight = 3}, {.loss = loss});
  CHECK(loss == Catch::Approx(3 * a.loss).epsilon(1e-15));
}

TEST_CASE("preference: pairs of weight 0 do not exist; margins lower the chosen reward") {
  auto x = normal_numbers(1, 20, 1, -2);
  for (std::size_t t = 14; t < 18; ++t) x[t] = nan_value;  // sequence 4: chosen in the pair of weight 0, rejected in pair 3
  sample s;
  s.rejected[3] = 3;
  desk<double> on;
  double loss = 0;
  std::vector<double> d(20), each(4), metrics(12);
  preference(on.compute, on.scratch, {.logp = x, .ref_logp = s.ref, .pairs = s.pairs(), .pair_weight = s.pair_weight}, link::nca_pair{}, {.denominator = 4},
             {.loss = loss, .d_logp = d, .pair_loss = each, .metrics = view<double, 2>(metrics.data(), 6, 2)});
  CHECK(std::isfinite(loss));
  CHECK(each[2] == 0);
  for (std::size_t k = 0; k < 12; k += 2) {
    CHECK(std::isfinite(metrics[k]));
    CHECK(metrics[k + 1] == 3);
  }
  for (std::size_t t = 14; t < 18; ++t) CHECK(d[t] == 0);
  const std::vector<double> c{1}, r{-1}, m{0.5};
  double with = 0, wanted = 0;
  preference_sums(on.compute, on.scratch, {.chosen = c, .rejected = r, .margin = m}, link::sigmoid{.beta = 0.4}, {.reference_free = true, .denominator = 1},
                  {.loss = with});
  preference_sums(on.compute, on.scratch, {.chosen = c, .rejected = r}, link::sigmoid{.beta = 0.4, .margin = 0.5}, {.reference_free = true, .denominator = 1},
                  {.loss = wanted});
  CHECK(with == Catch::Approx(wanted).epsilon(1e-15));
}

TEST_CASE("preference: a pair without scored tokens is nothing, in ranks and metrics too; one empty reply has score 0") {
  // Replies of lengths 2, 1, 0 | 1, 2, 0 scored tokens, the last pair of none; then the same without it.
  std::vector<double> x = normal_numbers(1, 9, 1, -2), ref = normal_numbers(2, 9, 1, -2), margin{0.1, -0.2, 7};
  x[7] = x[8] = nan_value;
  const std::vector<std::int32_t> begin{0, 2, 7, 3, 4, 8}, end{2, 3, 8, 4, 7, 8}, chosen{2, 0, 1}, rejected{5, 3, 4};
  const std::vector<std::uint8_t> scored{1, 1, 1, 1, 0, 1, 1, 0, 1};
  const sequence_layout<> sequences{begin, end, scored};
  desk<double> on;
  for (const reply_score score : {reply_score::sum, reply_score::mean})
    for (const pair_matching m : {pair_matching::given, pair_matching::ranked, pair_matching::ranked_margins}) {
      CAPTURE(static_cast<int>(score), static_cast<int>(m));
      const auto of = [&](index_t first, index_t count) {
        result<double> r{.d_logp = std::vector<double>(9), .pair_loss = std::vector<double>(static_cast<std::size_t>(count))};
        std::vector<double> metrics(12);
        const preference_pairs<> pairs{sequences, view(chosen).slice(first, count), view(rejected).slice(first, count)};
        preference(on.compute, on.scratch, {.logp = x, .ref_logp = ref, .pairs = pairs, .margin = view<const double, 1>(margin).slice(first, count)},
                   link::ipo{}, {.score = score, .matching = m, .denominator = 2},
                   {.loss = r.loss, .d_logp = r.d_logp, .pair_loss = r.pair_loss, .metrics = view<double, 2>(metrics.data(), 6, 2)});
        r.pair_loss.insert(r.pair_loss.end(), metrics.begin(), metrics.end());
        return r;
      };
      const auto with = of(0, 3), without = of(1, 2);
      CHECK(with.loss == without.loss);
      CHECK(with.d_logp == without.d_logp);
      CHECK(with.pair_loss[0] == 0);
      CHECK(std::vector<double>(with.pair_loss.begin() + 1, with.pair_loss.end()) == without.pair_loss);
    }
  const std::vector<std::int32_t> empty{5}, one{1};
  double loss = 0;
  preference(on.compute, on.scratch, {.logp = x, .ref_logp = ref, .pairs = {sequences, one, empty}}, link::ipo{}, {.denominator = 1}, {.loss = loss});
  CHECK(loss == Catch::Approx(link::ipo{}(x[2] - ref[2], 0.0).value).epsilon(1e-14));
}

TEST_CASE("preference: KL of log-odds, near and far") {
  // In long double: Taylor's series in d for the near ones, the plain formula for the far.
  const auto near = [](long double y, long double d) {
    const long double e = std::exp(-std::abs(y)), v = e / ((1 + e) * (1 + e)), k = -std::tanh(y / 2);
    return v * d * d * (0.5L + d * (k / 6 + d * (k * k - 2 * v) / 24));
  };
  const auto far = [](long double z, long double t) {
    const auto softplus = [](long double x) { return x < 0 ? std::log1p(std::exp(x)) : x + std::log1p(std::exp(-x)); };
    const long double q = 1 / (1 + std::exp(-std::abs(z))), rest = 1 - q, side = z < 0 ? -1 : 1;
    return q * (softplus(-side * t) - softplus(-side * z)) + rest * (softplus(side * t) - softplus(side * z));
  };
  const auto check = [&]<class T>(T, double tolerance) {
    for (const double t : {-40.0, -3.0, -0.3, 0.0, 0.8, 5.0, 40.0}) {
      for (const double d : {1e-4, -1e-4, 1e-7, -1e-7}) {
        const T a = static_cast<T>(t + d), b = static_cast<T>(t);  // in float they may be the same number
        CAPTURE(t, d);
        const long double want = near(a, static_cast<long double>(b) - a), got = math::kl_of_log_odds(a, b);
        CHECK(std::abs(got - want) <= tolerance * want);
        CHECK(0 <= got);
      }
      for (const double d : {0.9, -0.9, 1.1, -1.1, 3.0, -3.0, 9.0, -9.0, 50.0, -50.0}) {
        const T a = static_cast<T>(t + d), b = static_cast<T>(t);
        CAPTURE(t, d);
        if (std::abs(t) < 10) CHECK(std::abs(math::kl_of_log_odds(a, b) - far(a, b)) <= tolerance * far(a, b));
        CHECK(T(0) <= math::kl_of_log_odds(a, b));
      }
      CHECK(math::kl_of_log_odds(static_cast<T>(t), static_cast<T>(t)) == T(0));
    }
    CHECK(std::isnan(math::kl_of_log_odds(static_cast<T>(nan_value), T(0))));
    CHECK(std::isnan(math::kl_of_log_odds(T(0), static_cast<T>(nan_value))));
  };
  check(0.0f, 1e-6);
  check(0.0, 1e-13);
  // Both sides of where the form changes, and the slopes of near ones.
  for (const double d : {1.0, 8.0})
    CHECK(math::kl_of_log_odds(-0.4, -0.4 + d) == Catch::Approx(math::kl_of_log_odds(-0.4, -0.4 + d * (1 + 1e-15))).epsilon(1e-13));
  CHECK(math::difference_of_sigmoids(2.0 + 1e-9, 2.0) == Catch::Approx((2.0 + 1e-9 - 2.0) * math::sigmoid(2.0) * math::sigmoid(-2.0)).epsilon(1e-8));
  CHECK(math::difference_of_sigmoids(-1e4, 1e4) == -1);
  CHECK(std::isnan(math::difference_of_sigmoids(nan_value, 0.0)));
}

TEST_CASE("preference: scores that would both overflow are equal, by default") {
  const std::vector<float> both{-100, 1e4f, -1e4f, -1e4f, 300}, other{-100, -1e4f, 1e4f, -1e4f, 250}, zero(5);
  const auto check = [&](const auto& d) {
    const auto r = preference(both, other, zero, zero, link::sigmoid{}, d);
    CHECK(std::isfinite(r.loss));
    for (std::size_t p = 0; p < 5; ++p) CHECK(std::isfinite(r.d_chosen[p]));
    for (std::size_t p = 0; p < 5; ++p) CHECK(std::isfinite(r.d_rejected[p]));
  };
  check(divergence::forward_kl{});
  check(divergence::alpha{});
  check(divergence::alpha{.coefficient = 2});
  check(divergence::alpha{.coefficient = -1});
  // 0: no stop. Where the scores are infinite in float their difference is not a number.
  const std::vector<float> c{-100}, r{-100}, none{0};
  CHECK(std::isnan(preference(c, r, none, none, link::sigmoid{}, divergence::forward_kl{.max_exponent = 0}).loss));
  CHECK(preference(c, r, none, none, link::sigmoid{}, divergence::forward_kl{}).loss == Catch::Approx(std::log(2)));
}

namespace {
/// Ranks by comparing each with all: what a backend without cap::ranks does.
struct comparing : serial::backend<double> {
  using capabilities = plumb::capabilities<>;
};
template <class B>
void check_ranks(B compute, index_t pairs) {
  const auto c = normal_numbers(1, pairs), r = normal_numbers(2, pairs);
  std::vector<double> d_chosen(c.size()), d_rejected(c.size());
  double loss = 0;
  const preference_options options{.matching = pair_matching::ranked, .reference_free = true, .denominator = 1};
  std::vector<char> memory(preference_sums_workspace(compute, pairs, options));
  arena<> scratch(memory);
  preference_sums(compute, scratch, {.chosen = c, .rejected = r}, link::ipo{.beta = 0.5}, options, {.loss = loss, .d_chosen = d_chosen, .d_rejected = d_rejected});
  auto of_chosen = c, of_rejected = r;
  std::sort(of_chosen.begin(), of_chosen.end());
  std::sort(of_rejected.begin(), of_rejected.end());
  double want = 0, slopes = 0;
  for (std::size_t i = 0; i < of_chosen.size(); ++i) want += (of_chosen[i] - of_rejected[i] - 1) * (of_chosen[i] - of_rejected[i] - 1);
  for (std::size_t i = 0; i < d_chosen.size(); ++i) {
    const auto at = std::lower_bound(of_chosen.begin(), of_chosen.end(), c[i]) - of_chosen.begin();
    slopes = std::max(slopes, std::abs(d_chosen[i] - 2 * (c[i] - of_rejected[static_cast<std::size_t>(at)] - 1)));
    const auto under = std::lower_bound(of_rejected.begin(), of_rejected.end(), r[i]) - of_rejected.begin();
    slopes = std::max(slopes, std::abs(d_rejected[i] + 2 * (of_chosen[static_cast<std::size_t>(under)] - r[i] - 1)));
  }
  CAPTURE(pairs);
  CHECK(loss == Catch::Approx(want).epsilon(1e-12));
  CHECK(slopes < 1e-12);
}
}  // namespace

TEST_CASE("preference: ranks of many pairs are those of a sort") {
  check_ranks(comparing{}, 1500);  // more than are compared at once: 699 rows of comparisons lie in scratch
  check_ranks(serial::backend<double>{}, 1500);
  check_ranks(serial::backend<double>{}, 65536);  // too many to compare each with all
}

TEST_CASE("preference: matching by rank does not depend on how ranks are found") {
  auto any = normal_numbers(3, 64);
  auto ties = any, spoiled = any, infinite = any;
  for (double& x : ties) x = std::round(x);
  spoiled[20] = nan_value;
  infinite[5] = infinite[9] = std::numeric_limits<double>::infinity();
  infinite[0] = infinite[63] = -std::numeric_limits<double>::infinity();
  const auto run = [&](auto compute, const std::vector<double>& chosen, const std::vector<double>& rejected, pair_matching matching, index_t pairs) {
    std::vector<double> all(static_cast<std::size_t>(1 + 3 * pairs));
    const view<double, 1> out(all);
    const view<const double, 1> c(chosen), r(rejected);
    const preference_options options{.matching = matching, .reference_free = true, .denominator = 64};
    std::vector<char> memory(preference_sums_workspace(compute, pairs, options));
    arena<> scratch(memory);
    preference_sums(compute, scratch, {.chosen = c.slice(0, pairs), .rejected = r.slice(0, pairs)}, link::nca_pair{}, options,
                    {.loss = out.slice(0, 1), .d_chosen = out.slice(1, pairs), .d_rejected = out.slice(1 + pairs, pairs),
                     .pair_loss = out.slice(1 + 2 * pairs, pairs)});
    return all;
  };
  for (const auto* chosen : {&any, &ties, &spoiled, &infinite})
    for (const auto* rejected : {&any, &ties, &spoiled, &infinite})
      for (const pair_matching m : {pair_matching::ranked, pair_matching::ranked_margins})
        for (const index_t pairs : {64, 1, 0}) {
          const auto sorted = run(serial::backend<double>{}, *chosen, *rejected, m, pairs), compared = run(comparing{}, *chosen, *rejected, m, pairs);
          std::size_t same = 0;
          for (std::size_t i = 0; i < sorted.size(); ++i)
            same += sorted[i] == compared[i] || (std::isnan(sorted[i]) && std::isnan(compared[i])) ? 1 : 0;
          CAPTURE(pairs, sorted, compared);
          CHECK(same == sorted.size());
        }
}

TEST_CASE("preference: matching by rank, by hand") {
  // Log-ratios 3 1 2 and -1 0 -2: of rank 0, 1, 2 they are 1 2 3 and -2 -1 0, so the margins at the chosen's places are 3, 3, 3.
  const std::vector<double> c{3, 1, 2}, r{-1, 0, -2}, zero{0, 0, 0};
  desk<double> on;
  std::vector<double> each(3), d_chosen(3), d_rejected(3);
  double loss = 0;
  const preference_sums_inputs<double> in{.chosen = c, .rejected = r, .ref_chosen = zero, .ref_rejected = zero};
  const preference_sums_outputs<double> out{.loss = loss, .d_chosen = d_chosen, .d_rejected = d_rejected, .pair_loss = each};
  const preference_options ranked{.matching = pair_matching::ranked, .denominator = 1};
  preference_sums(on.compute, on.scratch, in, link::ipo{.beta = 0.5}, ranked, out);
  CHECK(each == std::vector<double>{4, 4, 4});
  CHECK(d_chosen == std::vector<double>{4, 4, 4});
  CHECK(d_rejected == std::vector<double>{-4, -4, -4});
  // The order of the rejected replies does not matter; each gets the slope of the chosen one of its rank.
  const std::vector<double> other{-2, -1, 0.5};
  preference_sums(on.compute, on.scratch, {.chosen = c, .rejected = other, .ref_chosen = zero, .ref_rejected = zero}, link::ipo{.beta = 0.5}, ranked, out);
  CHECK(each == std::vector<double>{2.25, 4, 4});
  CHECK(d_rejected == std::vector<double>{-4, -4, -3});
  // Ties keep their places: one pair each.
  const std::vector<double> same{1, 1, 1};
  preference_sums(on.compute, on.scratch, {.chosen = same, .rejected = r, .ref_chosen = zero, .ref_rejected = zero}, link::ipo{.beta = 0.5}, ranked, out);
  CHECK(each == std::vector<double>{4, 1, 0});
  CHECK(d_rejected == std::vector<double>{-2, 0, -4});
  // Margins under policy 4 1 4 and reference 0: the reference has no say, all ranks meet 0.
  preference_sums(on.compute, on.scratch, in, link::ipo{.beta = 0.5}, {.matching = pair_matching::ranked_margins, .denominator = 1}, out);
  CHECK(each == std::vector<double>{9, 0, 9});
  CHECK(d_rejected == std::vector<double>{-6, 0, -6});
  // One NaN and there are no ranks.
  const std::vector<double> spoiled{3, nan_value, 2};
  preference_sums(on.compute, on.scratch, {.chosen = spoiled, .rejected = r, .ref_chosen = zero, .ref_rejected = zero}, link::ipo{}, ranked, out);
  for (const double e : each) CHECK(std::isnan(e));
  // 70 pairs: places beyond a power of two.
  const auto many = normal_numbers(5, 70), others = normal_numbers(6, 70);
  std::vector<double> losses(70), sorted = many, sorted_others = others;
  preference_sums(on.compute, on.scratch, {.chosen = many, .rejected = others}, link::ipo{.beta = 0.5},
                  {.matching = pair_matching::ranked, .reference_free = true, .denominator = 1}, {.pair_loss = losses});
  std::sort(sorted.begin(), sorted.end());
  std::sort(sorted_others.begin(), sorted_others.end());
  for (std::size_t p = 0; p < 70; ++p) {
    const auto rank = static_cast<std::size_t>(std::lower_bound(sorted.begin(), sorted.end(), many[p]) - sorted.begin());
    const double d = many[p] - sorted_others[rank] - 1;
    CHECK(losses[p] == Catch::Approx(d * d).epsilon(1e-13));
  }
}

TEST_CASE("preference: means over tokens, and sums with lengths") {
  const auto x = normal_numbers(1, 20, 1, -2);
  const sample s;
  desk<double> on;
  double from_tokens = 0, from_sums = 0;
  std::vector<double> metrics(12), others(12), c, r, ref_c, ref_r, length_c, length_r;
  const auto add = [&](std::int32_t q, std::vector<double>& logp, std::vector<double>& ref, std::vector<double>& length) {
    double a = 0, b = 0, n = 0;
    for (auto t = static_cast<std::size_t>(s.begin[static_cast<std::size_t>(q)]); t < static_cast<std::size_t>(s.end[static_cast<std::size_t>(q)]); ++t)
      if (s.scored[t]) a += x[t], b += s.ref[t], ++n;
    logp.push_back(a), ref.push_back(b), length.push_back(n);
  };
  for (const std::int32_t q : s.chosen) add(q, c, ref_c, length_c);
  for (const std::int32_t q : s.rejected) add(q, r, ref_r, length_r);
  const divergence::alpha a{.coefficient = 0.3};
  const preference_options means{.score = reply_score::mean, .denominator = 4};
  preference(on.compute, on.scratch, {.logp = x, .ref_logp = s.ref, .pairs = s.pairs()}, link::ipo{}, a, means,
             {.loss = from_tokens, .metrics = view<double, 2>(metrics.data(), 6, 2)});
  preference_sums(on.compute, on.scratch, {c, r, ref_c, ref_r, length_c, length_r}, link::ipo{}, a, means,
                  {.loss = from_sums, .metrics = view<double, 2>(others.data(), 6, 2)});
  CHECK(from_tokens == Catch::Approx(from_sums).epsilon(1e-13));
  for (std::size_t k = 0; k < 12; ++k) CHECK(metrics[k] == Catch::Approx(others[k]).epsilon(1e-13));
  double mean = 0;
  for (std::size_t p = 0; p < 4; ++p) mean += c[p] / length_c[p];
  CHECK(metrics[8] == Catch::Approx(mean).epsilon(1e-13));
}

TEST_CASE("preference: vectors in, a result out") {
  const std::vector<double> c{-12}, r{-15}, ref_c{-13}, ref_r{-14};
  const auto ipo = preference(c, {r}, {ref_c}, {ref_r}, link::ipo{});
  CHECK(ipo.loss == Catch::Approx(9).epsilon(1e-14));
  CHECK(ipo.d_chosen[0] == Catch::Approx(-6).epsilon(1e-14));
  CHECK(ipo.margin == Catch::Approx(0.2).epsilon(1e-14));
  const auto forward = preference(c, {r}, {ref_c}, {ref_r}, link::sigmoid{}, divergence::forward_kl{});
  CHECK(forward.loss == Catch::Approx(0.582517).epsilon(1e-6));
  CHECK(preference(c, {r}, {ref_c}, {ref_r}, link::sigmoid{}, divergence::js{}).loss == Catch::Approx(0.644397).epsilon(1e-6));
  CHECK(preference(c, {r}, {ref_c}, {ref_r}, link::sigmoid{}, divergence::alpha{}).loss == Catch::Approx(0.594349).epsilon(1e-6));
  CHECK(std::isnan(preference(std::vector<double>{nan_value}, {r}, {}, {}, link::hinge{}, {.reference_free = true}).loss));
}

TEST_CASE("preference: more pairs than their ranks can be told apart are refused") {
  const float one = 1;
  float loss = 5;
  serial::backend<float> compute;
  arena<> none;
  const view<const float, 1> x(&one, {(index_t{1} << 24) + 1}, {0});
  const preference_options options{.matching = pair_matching::ranked, .reference_free = true, .denominator = 1};
  CHECK(refusal([&] { preference_sums(compute, none, {.chosen = x, .rejected = x}, link::sigmoid{}, options, {.loss = loss}); }) ==
        "plumb: preference_sums: there are 16777217 pairs, but ranks are numbers of the backend's `real`, exact to 16777216. Nothing was written.");
  CHECK(loss == 5);
}

TEST_CASE("preference: what is refused, in a sentence, with nothing written") {
  const sample s;
  const auto x = normal_numbers(1, 20);
  std::vector<double> d(20, 5), short_weight(3);
  double loss = 5;
  desk<double> on;
  const auto with = [&](preference_inputs<double> in, const auto& l, const auto& by, const preference_options& o) {
    in.logp = x;
    in.ref_logp = s.ref;
    in.pairs = s.pairs();
    return refusal([&] { preference(on.compute, on.scratch, in, l, by, o, {.loss = loss, .d_logp = d}); });
  };
  const divergence::reverse_kl kl{};
  const preference_options good{.denominator = 4};
  CHECK(with({.pair_weight = short_weight}, link::ipo{}, kl, good) ==
        "plumb: preference: argument `pair_weight` has shape [3], but its dimension 0 must be 4 (the number of pairs). Nothing was written.");
  CHECK(with({.token_weight = short_weight}, link::ipo{}, kl, good) ==
        "plumb: preference: argument `token_weight` has 3 elements, but `logp` has 20. Nothing was written.");
  CHECK(with({}, link::rpo_squared{}, kl, good) == "plumb: preference: argument `reward_chosen` is not given. Nothing was written.");
  CHECK(with({}, link::exo_pair{.label_smoothing = 0}, kl, good) ==
        "plumb: preference: option `label_smoothing` is 0 but must be in (0, 0.5]. Nothing was written.");
  CHECK(with({}, link::robust{.label_smoothing = 0.5}, kl, good) ==
        "plumb: preference: option `label_smoothing` is 0.5 but must be in [0, 0.5). Nothing was written.");
  CHECK(with({}, link::discopop{.tau = 0}, kl, good) == "plumb: preference: option `tau` is 0 but must be positive. Nothing was written.");
  CHECK(with({}, link::ipo{}, divergence::alpha{.max_exponent = -1}, good) ==
        "plumb: preference: option `max_exponent` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(with({.pair_weight = s.pair_weight}, link::ipo{}, kl, {.matching = pair_matching::ranked, .denominator = 4}) ==
        "plumb: preference: argument `pair_weight` goes with pairs as they are given, but option `matching` takes them apart. Nothing was written.");
  CHECK(with({}, link::ipo{}, divergence::js{}, {.matching = pair_matching::ranked_margins, .denominator = 4}) ==
        "plumb: preference: option `matching` is ranked_margins, which compares log-probabilities and takes no divergence but `reverse_kl`. Nothing was "
        "written.");
  CHECK(with({}, link::ipo{}, kl, {.denominator = 4, .weight = nan_value}) ==
        "plumb: preference: option `weight` is nan but must be finite, and a number. Nothing was written.");
  CHECK(with({.reward_chosen = s.reward_chosen}, link::ipo{}, kl, good) ==
        "plumb: preference: argument `reward_chosen` is given, but the link is of the two scores alone. Nothing was written.");
  CHECK(with({}, link::ipo{}, kl, {.reference_free = true, .denominator = 4}) ==
        "plumb: preference: argument `ref_logp` is given, but option `reference_free` leaves the reference out; drop one of the two. Nothing was written.");
  arena<> none;
  CHECK_THAT(refusal([&] { preference(on.compute, none, {.logp = x, .ref_logp = s.ref, .pairs = s.pairs()}, link::ipo{}, good, {.loss = loss}); }),
             Catch::Matchers::StartsWith("plumb: preference: the arena has 0 bytes left, but preference_workspace asks for "));
  const std::vector<double> one{1};
  CHECK(refusal([&] {
          preference_sums(on.compute, on.scratch, {.chosen = one, .rejected = one}, link::ipo{},
                          {.score = reply_score::mean, .reference_free = true, .denominator = 1}, {.loss = loss});
        }) == "plumb: preference_sums: argument `length_chosen` is not given. Nothing was written.");
  CHECK(refusal([&] {
          preference_sums(on.compute, on.scratch, {.chosen = one, .rejected = one, .ref_rejected = one}, link::ipo{},
                          {.reference_free = true, .denominator = 1}, {.loss = loss});
        }) == "plumb: preference_sums: argument `ref_rejected` is given, but option `reference_free` leaves the reference out; drop one of the two. Nothing was "
              "written.");
  CHECK(loss == 5);
  CHECK(d == std::vector<double>(20, 5));
}

TEST_CASE("preference: an arena of what the workspace says is enough") {
  const sample s;
  const auto x = normal_numbers(1, 20, 1, -2);
  serial::backend<double> compute;
  for (const auto score : {reply_score::sum, reply_score::mean})
    for (const auto m : {pair_matching::given, pair_matching::ranked, pair_matching::ranked_margins}) {
      const preference_options o{.score = score, .matching = m, .denominator = 4};
      std::vector<double> d(20), metrics(12), each(4);
      double loss = 0;
      std::vector<unsigned char> memory(preference_workspace(compute, s.pairs(), 20, o));
      arena<> scratch(memory);
      preference_inputs<double> in{.logp = x, .ref_logp = s.ref, .pairs = s.pairs(), .token_weight = s.token_weight, .margin = s.margin};
      if (m == pair_matching::given) in.pair_weight = s.pair_weight;
      const preference_outputs<double> out{.loss = loss, .d_logp = d, .pair_loss = each, .metrics = view<double, 2>(metrics.data(), 6, 2), .mode = write_mode::add};
      preference(compute, scratch, in, link::nca_pair{}, o, out);
      if (m != pair_matching::ranked_margins) preference(compute, scratch, in, link::nca_pair{}, divergence::js{}, o, out);
      CHECK(std::isfinite(loss));
    }
}

// CPO, SimPO, AlphaPO, ORPO, TPO, XPO: gradients, values by hand, laws, extremes, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/cpo.hpp>
#include <plumb/objectives/orpo.hpp>
#include <plumb/objectives/simpo.hpp>
#include <plumb/objectives/tpo.hpp>
#include <plumb/objectives/xpo.hpp>
#include <plumb/testing/memory.hpp>

#include <limits>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

using reals = std::vector<double>;
const double none = std::numeric_limits<double>::quiet_NaN();

/// Six replies of 16 tokens: with holes, in no pair, without scored tokens, in two pairs.
const std::vector<std::int32_t> begin{0, 5, 7, 9, 10, 13}, end{5, 7, 9, 10, 13, 16}, chosen{0, 4, 0}, rejected{1, 5, 2};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
const preference_pairs<> pairs{sequences, chosen, rejected};
/// Two of them, as the best replies of TPO or the reference's of XPO.
const sequence_layout<> others{sequences.begin.slice(3, 2), sequences.end.slice(3, 2), sequences.scored};

const reals logp = [] {
  reals x = normal_numbers(20, 16, 0.5, -2);
  for (double& e : x) e = e < -0.05 ? e : -0.05;
  return x;
}();
const reals ref_logp = normal_numbers(21, 16, 0.5, -2);

/// An objective on those arrays: `call(backend, scratch, logp, ref_logp, outputs)`.
template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(16), metrics = std::vector<T>(18);
};
template <class F, class T>
result<T> run(const F& call, const std::vector<T>& x, index_t rows = 7) {
  desk<T> d;
  result<T> r;
  const std::vector<T> ref(ref_logp.begin(), ref_logp.end());
  call(d.compute, d.scratch, view<const T, 1>(x), view<const T, 1>(ref),
       reply_pairs_outputs<T>{.loss = r.loss, .d_logp = r.gradient, .metrics = view<T, 2>(r.metrics.data(), rows, 2)});
  return r;
}
constexpr likelihood_term likely{.weight = 0.7, .denominator = 5};
constexpr likelihood_term likely_means{.weight = 0.7, .aggregate = aggregation::sequence_mean, .denominator = 3};

constexpr auto a_cpo = [](auto& b, auto& s, auto x, auto, const auto& out) {
  cpo(b, s, {x, pairs}, {.link = {.beta = 0.4, .label_smoothing = 0.1}, .likelihood = likely, .denominator = 3, .weight = 2}, out);
};
constexpr auto a_cpo_of_means = [](auto& b, auto& s, auto x, auto, const auto& out) {
  cpo<link::ipo>(b, s, {x, pairs}, {.link = {.beta = 0.4}, .score = reply_score::mean, .likelihood = likely_means, .denominator = 3}, out);
};
constexpr auto a_simpo = [](auto& b, auto& s, auto x, auto, const auto& out) {
  simpo(b, s, {x, pairs}, {.likelihood = {.weight = 0}, .denominator = 3, .weight = 2}, out);
};
constexpr auto an_alphapo = [](auto& b, auto& s, auto x, auto, const auto& out) {
  simpo(b, s, {x, pairs}, {.gamma = 0.5, .label_smoothing = 0.2, .alpha = 0.25, .likelihood = likely, .denominator = 3}, out);
};
constexpr auto a_tpo = [](auto& b, auto& s, auto x, auto, const auto& out) {
  tpo<link::hinge>(b, s, {x, pairs, others}, {.link = {.beta = 0.4}, .likelihood = likely, .denominator = 3, .weight = 2}, out);
};
constexpr auto an_xpo = [](auto& b, auto& s, auto x, auto ref, const auto& out) {
  xpo(b, s, {x, ref, pairs, others}, {.link = {.beta = 0.4}, .alpha = 0.1, .denominator = 3, .weight = 2}, out);
};
// A reply without scored tokens has log-probability 0, whose odds are infinite: not in a pair here.
const std::vector<std::int32_t> chosen_scored{0, 4, 0}, rejected_scored{1, 5, 3};
const preference_pairs<> scored_pairs{sequences, chosen_scored, rejected_scored};
constexpr auto an_orpo = [](auto& b, auto& s, auto x, auto, const auto& out) {
  orpo(b, s, {x, scored_pairs}, {.beta = 0.4, .likelihood = likely, .denominator = 3, .weight = 2}, out);
};
/// `f(objective, rows of metrics)` for each.
template <class F>
void each(const F& f) {
  f(a_cpo, 7);
  f(a_cpo_of_means, 7);
  f(a_simpo, 7);
  f(an_alphapo, 7);
  f(a_tpo, 7);
  f(an_xpo, 7);
  f(an_orpo, 9);
}

/// One pair of single numbers.
const std::vector<std::int32_t> one_begin{0, 1}, one_end{1, 2}, first{0}, second{1};
const preference_pairs<> one_pair{{one_begin, one_end, {}}, first, second};

double sigma(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("objectives of pairs without reference: gradients by dual numbers and differences") {
  each([](const auto& objective, index_t rows) {
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(objective, at, rows).loss; }, logp, run(objective, logp, rows).gradient);
  });
}

TEST_CASE("objectives of pairs without reference: tokens that do not count may hold anything, NaN that counts is seen") {
  auto holes = logp, broken = logp;
  for (std::size_t t = 0; t < 16; ++t)
    if (mask[t] == 0) holes[t] = none;
  broken[4] = none;  // of the reply chosen in two pairs
  each([&](const auto& objective, index_t rows) {
    const auto want = run(objective, logp, rows), got = run(objective, holes, rows), bad = run(objective, broken, rows);
    CHECK(got.loss == want.loss);
    CHECK(got.gradient == want.gradient);
    CHECK(got.metrics == want.metrics);
    for (std::size_t t = 0; t < 16; ++t)
      if (mask[t] == 0) CHECK(got.gradient[t] == 0);
    CHECK(std::isnan(bad.loss));
    CHECK(std::isnan(bad.gradient[1]));
    CHECK(bad.gradient[14] == want.gradient[14]);  // of another pair
    CHECK(std::isnan(bad.metrics[0]));             // accuracy
  });
}

TEST_CASE("objectives of pairs without reference: pair by pair, added, they make the batch") {
  // The likelihood term too: of the chosen reply of each pair; a reply chosen twice counts twice.
  const auto whole = run(a_cpo, logp);
  desk<double> d;
  double loss = 1;
  reals gradient(16, 3), metrics(14), sums(14);
  for (const index_t p : {index_t{2}, index_t{0}, index_t{1}}) {
    const preference_pairs<> one{sequences, pairs.chosen.slice(p, 1), pairs.rejected.slice(p, 1)};
    cpo(d.compute, d.scratch, {logp, one}, {.link = {.beta = 0.4, .label_smoothing = 0.1}, .likelihood = likely, .denominator = 3, .weight = 2},
        {.loss = loss, .d_logp = gradient, .metrics = view<double, 2>(metrics.data(), 7, 2), .mode = write_mode::add});
    for (std::size_t k = 0; k < 14; ++k) sums[k] += metrics[k];
  }
  CHECK(loss == Catch::Approx(1 + whole.loss).epsilon(1e-14));
  for (std::size_t t = 0; t < 16; ++t) CHECK(gradient[t] == Catch::Approx(3 + whole.gradient[t]).epsilon(1e-14));
  for (std::size_t k = 0; k < 14; ++k) CHECK(sums[k] == Catch::Approx(whole.metrics[k]).epsilon(1e-13));
  // Added to what is there, for the others too.
  each([&](const auto& objective, index_t rows) {
    const auto want = run(objective, logp, rows);
    double more = 1;
    reals added(16, 3);
    objective(d.compute, d.scratch, view<const double, 1>(logp), view<const double, 1>(ref_logp),
              reply_pairs_outputs<double>{.loss = more, .d_logp = added, .mode = write_mode::add});
    CHECK(more == Catch::Approx(1 + want.loss).epsilon(1e-14));
    for (std::size_t t = 0; t < 16; ++t) CHECK(added[t] == Catch::Approx(3 + want.gradient[t]).epsilon(1e-14));
  });
}

TEST_CASE("objectives of pairs without reference: a pair without scored tokens is nothing") {
  // Replies of 1 and 1, 0 and 0, 1 and 0 scored tokens.
  const reals x{-1.5, -2, none, none, -1, none}, ref{-1, -1, 0, 0, -2, 0};
  const std::vector<std::int32_t> b{0, 1, 2, 3, 4, 5}, e{1, 2, 3, 4, 5, 5}, c{0, 2, 4}, r{1, 3, 0};
  const std::vector<std::uint8_t> scored{1, 1, 0, 0, 1, 0};
  const sequence_layout<> layout{b, e, scored};
  const preference_pairs<> with{layout, c, r};
  const std::vector<std::int32_t> fewer_c{0, 4}, fewer_r{1, 0};
  const preference_pairs<> without{layout, fewer_c, fewer_r};
  const auto check = [&](const auto& objective) {
    const auto of = [&](const preference_pairs<>& p) {
      desk<double> d;
      struct { double loss = 0; reals gradient = reals(6), metrics = reals(18); } y;
      objective(d.compute, d.scratch, p, reply_pairs_outputs<double>{.loss = y.loss, .d_logp = y.gradient, .metrics = view<double, 2>(y.metrics.data(), 9, 2)});
      return y;
    };
    const auto got = of(with), want = of(without);
    CHECK(got.loss == want.loss);
    CHECK(got.gradient == want.gradient);
    CHECK(got.metrics == want.metrics);
    CHECK(std::isfinite(got.loss));
    CHECK(got.metrics[1] == 2);
  };
  const auto seven = [](const auto& out) {
    auto y = out;
    y.metrics = out.metrics.slice(0, 7);
    return y;
  };
  check([&](auto& b_, auto& s, const auto& p, const auto& out) { cpo(b_, s, {x, p}, {.likelihood = likely_means, .denominator = 3}, seven(out)); });
  check([&](auto& b_, auto& s, const auto& p, const auto& out) { simpo(b_, s, {x, p}, {.alpha = 0.25, .denominator = 3}, seven(out)); });
  check([&](auto& b_, auto& s, const auto& p, const auto& out) { tpo(b_, s, {x, p, layout}, {.likelihood = likely, .denominator = 3}, seven(out)); });
  check([&](auto& b_, auto& s, const auto& p, const auto& out) { xpo(b_, s, {x, ref, p, layout}, {.denominator = 3}, seven(out)); });
  check([&](auto& b_, auto& s, const auto& p, const auto& out) { orpo(b_, s, {x, p}, {.likelihood = likely, .denominator = 3}, out); });
}

TEST_CASE("simpo: by hand; AlphaPO tends to it") {
  const reals x{-1.5, -2};
  const auto r = simpo(x, one_pair, {.beta = 2, .gamma = 0.5});
  CHECK(r.loss == Catch::Approx(-std::log(sigma(2 * 0.5 - 0.5))).epsilon(1e-14));
  CHECK(r.d_logp[0] == Catch::Approx(-2 * sigma(-0.5)).epsilon(1e-14));
  CHECK(r.accuracy == 1);
  CHECK(r.margin == Catch::Approx(1).epsilon(1e-15));  // without the target margin
  const auto a = simpo(x, one_pair, {.beta = 2, .gamma = 0.5, .alpha = 0.5});
  const double reshaped[] = {(1 - std::exp(0.75)) / 0.5, (1 - std::exp(1.0)) / 0.5};
  CHECK(a.loss == Catch::Approx(-std::log(sigma(2 * (reshaped[0] - reshaped[1]) - 0.5))).epsilon(1e-14));
  CHECK(a.reward_chosen == Catch::Approx(2 * reshaped[0]).epsilon(1e-14));
  CHECK(a.logp_chosen == -1.5);
  CHECK(simpo(x, one_pair, {.beta = 2, .gamma = 0.5, .alpha = 1e-9}).loss == Catch::Approx(r.loss).epsilon(1e-8));
}

TEST_CASE("cpo and tpo: the links on sums or means, the likelihood of the chosen or of the best") {
  const reals x{-1.5, -2};
  CHECK(cpo<link::hinge>(x, one_pair, {.link = {.beta = 1}, .likelihood = {.weight = 0}}).loss == Catch::Approx(0.5).epsilon(1e-15));
  CHECK(cpo<link::hinge>(x, one_pair, {.link = {.beta = 2}, .likelihood = {.weight = 0}}).d_logp == reals{0, 0});  // at the kink
  CHECK(cpo<link::ipo>(x, one_pair, {.link = {.beta = 0.1}, .likelihood = {.weight = 0}}).loss == Catch::Approx(4.5 * 4.5).epsilon(1e-15));
  const auto with = cpo(x, one_pair, {.likelihood = {.weight = 2}}), without = cpo(x, one_pair, {.likelihood = {.weight = 0}});
  CHECK(with.loss - without.loss == Catch::Approx(2 * 1.5).epsilon(1e-14));
  CHECK(with.nll == 1.5);
  CHECK(without.nll == 1.5);
  // TPO-L is SimPO with a third reply.
  const std::vector<std::int32_t> b{1}, e{2};
  const auto best = tpo(x, one_pair, {b, e, {}}, {.link = {.beta = 2, .margin = 0.5}, .score = reply_score::mean});
  CHECK(best.loss == Catch::Approx(simpo(x, one_pair, {.beta = 2, .gamma = 0.5}).loss + 2).epsilon(1e-14));
  CHECK(best.nll == 2);
  CHECK(std::isnan(tpo(x, one_pair, {}).nll));
}

TEST_CASE("xpo: online DPO, and the reference's replies pushed down") {
  const reals x{-1.5, -2}, ref{-1, -1};
  const std::vector<std::int32_t> b{1}, e{2};
  const auto r = xpo(x, ref, one_pair, {b, e, {}}, {.link = {.beta = 0.1}, .alpha = 0.25});
  CHECK(r.loss == Catch::Approx(-std::log(sigma(0.1 * 0.5)) - 0.25 * 2).epsilon(1e-14));
  CHECK(r.d_logp[0] == Catch::Approx(-0.1 * sigma(-0.05)).epsilon(1e-14));
  CHECK(r.d_logp[1] == Catch::Approx(0.1 * sigma(-0.05) + 0.25).epsilon(1e-14));
  CHECK(r.reward_chosen == Catch::Approx(-0.05).epsilon(1e-14));
  CHECK(r.logp_chosen == -1.5);
}

TEST_CASE("orpo: by hand, and where a probability is almost 1") {
  const auto odds = [](double log_p) { return std::exp(log_p) / -std::expm1(log_p); };
  const auto loss_of = [](double c, double r) { return orpo(reals{c, r}, one_pair, {.beta = 1, .likelihood = {.weight = 0}}); };
  const auto r = loss_of(-1, -2);
  CHECK(r.loss == Catch::Approx(std::log1p(odds(-2) / odds(-1))).epsilon(1e-14));
  CHECK(loss_of(-2, -2).loss == Catch::Approx(std::log(2)).epsilon(1e-15));
  CHECK(orpo(reals{-1, -2}, one_pair).loss == Catch::Approx(1 + 0.1 * r.loss).epsilon(1e-14));
  // Liger's log1p(-exp(x)) loses every digit here: 1 - p is 1e-12 and 2e-12.
  CHECK(loss_of(-2e-12, -1e-12).loss == Catch::Approx(std::log(3)).epsilon(1e-11));
  CHECK(loss_of(-1e-20, -2).loss == Catch::Approx(1e-20 * odds(-2)).epsilon(1e-14));
  // At p = 1 the loss is 0 and its slope finite, where sigmoid(-z) / (1 - p) would be 0 / 0.
  const auto certain = loss_of(0, -2);
  CHECK(certain.loss == 0);
  CHECK(certain.d_logp[0] == Catch::Approx(-odds(-2)).epsilon(1e-14));
  CHECK(certain.d_logp[1] == 0);
  // A rejected reply of probability 1 costs without bound; two of them have no odds ratio; above 1 is no probability.
  CHECK(std::isinf(loss_of(-2, 0).loss));
  for (const auto& [c, x] : {std::pair{0.0, 0.0}, {1e-9, -2.0}, {-2.0, 1e-9}, {none, -2.0}, {-2.0, none}}) {
    const auto bad = loss_of(c, x);
    CHECK(std::isnan(bad.loss));
    CHECK(std::isnan(bad.d_logp[0]));
    CHECK(std::isnan(bad.d_logp[1]));
  }
}

TEST_CASE("objectives of pairs without reference: log-probabilities of -1e4 stay finite in float") {
  const auto in_float = [](float c, float r, const auto& call) {
    const std::vector<float> x{c, r};
    const auto y = call(x);
    CHECK(std::isfinite(y.loss));
    CHECK(std::isfinite(y.d_logp[0]));
    CHECK(std::isfinite(y.d_logp[1]));
    return y.loss;
  };
  for (const auto& [c, r] : {std::pair{-1e4f, -1e-4f}, {-1e-4f, -1e4f}, {-1e4f, -1e4f}, {-1e-30f, -1e4f}}) {
    const double z = 0.1 * (static_cast<double>(c) - static_cast<double>(r));
    CHECK(in_float(c, r, [](const auto& x) { return cpo(x, one_pair, {.likelihood = {.weight = 0}}); }) ==
          Catch::Approx(std::log1p(std::exp(-std::fabs(z))) + (z < 0 ? -z : 0)).epsilon(1e-5).margin(1e-30));
    in_float(c, r, [](const auto& x) { return simpo(x, one_pair); });
    for (const double alpha : {-0.25, 0.25, 20.0}) in_float(c, r, [&](const auto& x) { return simpo(x, one_pair, {.alpha = alpha}); });
    in_float(c, r, [](const auto& x) { return orpo(x, one_pair); });
  }
}

TEST_CASE("objectives of pairs without reference: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  reals g(16, 5);
  const reply_pairs_outputs<double> out{.d_logp = g};
  CHECK(refusal([&] { cpo(d.compute, d.scratch, {logp, pairs}, {.denominator = 3}, out); }) ==
        "plumb: cpo: option `likelihood.denominator` is 0 but must be positive: the count that the likelihood term of the whole global batch is divided "
        "by. Nothing was written.");
  CHECK(refusal([&] { cpo<link::hinge>(d.compute, d.scratch, {logp, pairs}, {.link = {.beta = 0}, .likelihood = likely, .denominator = 3}, out); }) ==
        "plumb: cpo: option `beta` is 0 but must be positive. Nothing was written.");
  CHECK(refusal([&] { simpo(d.compute, d.scratch, {logp, pairs}, {.alpha = 30, .denominator = 3}, out); }) ==
        "plumb: simpo: option `alpha` is 30 but must be in [-20, 20]. Nothing was written.");
  CHECK(refusal([&] { orpo(d.compute, d.scratch, {g, pairs}, {.likelihood = likely, .denominator = 3}, out); }) ==
        "plumb: orpo: output `d_logp` overlaps `logp` in memory. Nothing was written.");
  reals m(14);
  CHECK(refusal([&] {
          orpo(d.compute, d.scratch, {logp, pairs}, {.likelihood = likely, .denominator = 3}, {.metrics = view<double, 2>(m.data(), 7, 2)});
        }) == "plumb: orpo: argument `metrics` has shape [7, 2], but its dimension 0 must be 9 (the number of metrics). Nothing was written.");
  const preference_pairs<> uneven{sequences, pairs.chosen, pairs.rejected.slice(0, 2)};
  CHECK(refusal([&] { tpo(d.compute, d.scratch, {logp, uneven, others}, {.denominator = 3}, out); }) ==
        "plumb: tpo: argument `pairs.rejected` has 2 elements, but `pairs.chosen` has 3. Nothing was written.");
  CHECK(refusal([&] { xpo(d.compute, d.scratch, {logp, {}, pairs, others}, {.denominator = 3}, out); }) ==
        "plumb: xpo: argument `ref_logp` is not given. Nothing was written.");
  CHECK(refusal([&] { xpo(d.compute, d.scratch, {logp, ref_logp, pairs, {}}, {.denominator = 3}, out); }) ==
        "plumb: xpo: argument `of_reference.begin` is not given. Nothing was written.");
  CHECK(refusal([&] { xpo(d.compute, d.scratch, {logp, ref_logp, pairs, others}, {.alpha = -1, .denominator = 3}, out); }) ==
        "plumb: xpo: option `alpha` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(g == reals(16, 5));
}

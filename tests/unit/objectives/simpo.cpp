// SimPO and AlphaPO: laws, by hand, extremes, what is refused.
#include "support/reply_pairs.hpp"

#include <plumb/objectives/simpo.hpp>

using namespace plumb_test;
using namespace plumb_test::six_replies;

namespace {

const subject plain{[](auto& b, auto& s, const auto& in, const auto& out) {
  simpo(b, s, {in.logp, in.pairs}, {.likelihood = {.weight = 0}, .denominator = 3, .weight = 2}, out);
}};
const subject alphapo{[](auto& b, auto& s, const auto& in, const auto& out) {
  simpo(b, s, {in.logp, in.pairs}, {.gamma = 0.5, .label_smoothing = 0.2, .alpha = 0.25, .likelihood = likely, .denominator = 3}, out);
}};

}  // namespace

TEST_CASE("simpo: laws") { check_laws(plain); }
TEST_CASE("simpo: laws, AlphaPO") { check_laws(alphapo); }
TEST_CASE("simpo: pair by pair, added, they make the batch") { check_pair_by_pair(alphapo); }
TEST_CASE("simpo: a pair without scored tokens is nothing") {
  check_empty_pair(plain);
  check_empty_pair(alphapo);
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

TEST_CASE("simpo: log-probabilities of -1e4 stay finite in float") {
  for (const double alpha : {0.0, -0.25, 0.25, 20.0}) check_far([&](const auto& x) { return simpo(x, one_pair, {.alpha = alpha}); });
}

TEST_CASE("simpo: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  reals g(16, 5);
  CHECK(refusal([&] { simpo(d.compute, d.scratch, {logp, pairs}, {.alpha = 30, .denominator = 3}, {.d_logp = g}); }) ==
        "plumb: simpo: option `alpha` is 30 but must be in [-20, 20]. Nothing was written.");
  CHECK(g == reals(16, 5));
}

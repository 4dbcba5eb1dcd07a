// CPO: laws, links by hand, the likelihood term, extremes, what is refused.
#include "support/reply_pairs.hpp"

#include <plumb/objectives/cpo.hpp>

using namespace plumb_test;
using namespace plumb_test::six_replies;

namespace {

const subject smoothed{[](auto& b, auto& s, const auto& in, const auto& out) {
  cpo(b, s, {in.logp, in.pairs}, {.link = {.beta = 0.4, .label_smoothing = 0.1}, .likelihood = likely, .denominator = 3, .weight = 2}, out);
}};
const subject of_means{[](auto& b, auto& s, const auto& in, const auto& out) {
  cpo<link::ipo>(b, s, {in.logp, in.pairs}, {.link = {.beta = 0.4}, .score = reply_score::mean, .likelihood = likely_means, .denominator = 3}, out);
}};

}  // namespace

TEST_CASE("cpo: laws") { check_laws(smoothed); }
TEST_CASE("cpo: laws, of means") { check_laws(of_means); }
TEST_CASE("cpo: pair by pair, added, they make the batch") {
  check_pair_by_pair(smoothed);
  check_pair_by_pair(of_means);
}
TEST_CASE("cpo: a pair without scored tokens is nothing") {
  check_empty_pair(smoothed);
  check_empty_pair(of_means);
}

TEST_CASE("cpo: the links on sums, the likelihood of the chosen") {
  const reals x{-1.5, -2};
  CHECK(cpo<link::hinge>(x, one_pair, {.link = {.beta = 1}, .likelihood = {.weight = 0}}).loss == Catch::Approx(0.5).epsilon(1e-15));
  CHECK(cpo<link::hinge>(x, one_pair, {.link = {.beta = 2}, .likelihood = {.weight = 0}}).d_logp == reals{0, 0});  // at the kink
  CHECK(cpo<link::ipo>(x, one_pair, {.link = {.beta = 0.1}, .likelihood = {.weight = 0}}).loss == Catch::Approx(4.5 * 4.5).epsilon(1e-15));
  const auto with = cpo(x, one_pair, {.likelihood = {.weight = 2}}), without = cpo(x, one_pair, {.likelihood = {.weight = 0}});
  CHECK(with.loss - without.loss == Catch::Approx(2 * 1.5).epsilon(1e-14));
  CHECK(with.nll == 1.5);
  CHECK(without.nll == 1.5);
}

TEST_CASE("cpo: log-probabilities of -1e4 stay finite in float") {
  check_far([](const auto& x) {
    const auto y = cpo(x, one_pair, {.likelihood = {.weight = 0}});
    const double z = 0.1 * (static_cast<double>(x[0]) - static_cast<double>(x[1]));
    CHECK(y.loss == Catch::Approx(std::log1p(std::exp(-std::fabs(z))) + (z < 0 ? -z : 0)).epsilon(1e-5).margin(1e-30));
    return y;
  });
}

TEST_CASE("cpo: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  reals g(16, 5);
  const reply_pairs_outputs<double> out{.d_logp = g};
  CHECK(refusal([&] { cpo(d.compute, d.scratch, {logp, pairs}, {.denominator = 3}, out); }) ==
        "plumb: cpo: option `likelihood.denominator` is 0 but must be positive: the count that the likelihood term of the whole global batch is divided "
        "by. Nothing was written.");
  CHECK(refusal([&] { cpo<link::hinge>(d.compute, d.scratch, {logp, pairs}, {.link = {.beta = 0}, .likelihood = likely, .denominator = 3}, out); }) ==
        "plumb: cpo: option `beta` is 0 but must be positive. Nothing was written.");
  CHECK(g == reals(16, 5));
}

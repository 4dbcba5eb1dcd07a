// TPO: laws, the likelihood of the best reply, what is refused.
#include "support/reply_pairs.hpp"

#include <plumb/objectives/tpo.hpp>
#include <plumb/objectives/simpo.hpp>

using namespace plumb_test;
using namespace plumb_test::six_replies;

namespace {

const subject hinge{[](auto& b, auto& s, const auto& in, const auto& out) {
  tpo<link::hinge>(b, s, {in.logp, in.pairs, in.others}, {.link = {.beta = 0.4}, .likelihood = likely, .denominator = 3, .weight = 2}, out);
}};

}  // namespace

TEST_CASE("tpo: laws") { check_laws(hinge); }
TEST_CASE("tpo: a pair without scored tokens is nothing") { check_empty_pair(hinge); }

TEST_CASE("tpo: TPO-L is SimPO with a third reply") {
  const reals x{-1.5, -2};
  const std::vector<std::int32_t> b{1}, e{2};
  const auto best = tpo(x, one_pair, {b, e, {}}, {.link = {.beta = 2, .margin = 0.5}, .score = reply_score::mean});
  CHECK(best.loss == Catch::Approx(simpo(x, one_pair, {.beta = 2, .gamma = 0.5}).loss + 2).epsilon(1e-14));
  CHECK(best.nll == 2);
  CHECK(std::isnan(tpo(x, one_pair, {}).nll));
}

TEST_CASE("tpo: log-probabilities of -1e4 stay finite in float") {
  check_far([](const auto& x) { return tpo(x, one_pair, one_pair.sequences); });
}

TEST_CASE("tpo: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  reals g(16, 5);
  const preference_pairs<> uneven{sequences, pairs.chosen, pairs.rejected.slice(0, 2)};
  CHECK(refusal([&] { tpo(d.compute, d.scratch, {logp, uneven, others}, {.denominator = 3}, {.d_logp = g}); }) ==
        "plumb: tpo: argument `pairs.rejected` has 2 elements, but `pairs.chosen` has 3. Nothing was written.");
  CHECK(g == reals(16, 5));
}

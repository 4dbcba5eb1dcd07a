// XPO: laws, by hand, extremes, what is refused.
#include "support/reply_pairs.hpp"

#include <plumb/objectives/xpo.hpp>

using namespace plumb_test;
using namespace plumb_test::six_replies;

namespace {

const subject online{[](auto& b, auto& s, const auto& in, const auto& out) {
  xpo(b, s, {in.logp, in.ref_logp, in.pairs, in.others}, {.link = {.beta = 0.4}, .alpha = 0.1, .denominator = 3, .weight = 2}, out);
}};

}  // namespace

TEST_CASE("xpo: laws") { check_laws(online); }
TEST_CASE("xpo: a pair without scored tokens is nothing") { check_empty_pair(online); }

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

TEST_CASE("xpo: log-probabilities of -1e4 stay finite in float") {
  check_far([](const auto& x) { return xpo(x, std::vector<float>{-1, -2}, one_pair, one_pair.sequences); });
}

TEST_CASE("xpo: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  reals g(16, 5);
  const reply_pairs_outputs<double> out{.d_logp = g};
  CHECK(refusal([&] { xpo(d.compute, d.scratch, {logp, {}, pairs, others}, {.denominator = 3}, out); }) ==
        "plumb: xpo: argument `ref_logp` is not given. Nothing was written.");
  CHECK(refusal([&] { xpo(d.compute, d.scratch, {logp, ref_logp, pairs, {}}, {.denominator = 3}, out); }) ==
        "plumb: xpo: argument `of_reference.begin` is not given. Nothing was written.");
  CHECK(refusal([&] { xpo(d.compute, d.scratch, {logp, ref_logp, pairs, others}, {.alpha = -1, .denominator = 3}, out); }) ==
        "plumb: xpo: option `alpha` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(g == reals(16, 5));
}

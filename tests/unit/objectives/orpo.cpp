// ORPO: laws, by hand, where a probability is almost 1, extremes, what is refused.
#include "support/reply_pairs.hpp"

#include <plumb/objectives/orpo.hpp>

using namespace plumb_test;
using namespace plumb_test::six_replies;

namespace {

const subject odds{[](auto& b, auto& s, const auto& in, const auto& out) {
  orpo(b, s, {in.logp, in.pairs}, {.beta = 0.4, .likelihood = likely, .denominator = 3, .weight = 2}, out);
}, 9, scored_pairs};

}  // namespace

TEST_CASE("orpo: laws") { check_laws(odds); }
TEST_CASE("orpo: pair by pair, added, they make the batch") { check_pair_by_pair(odds); }
TEST_CASE("orpo: a pair without scored tokens is nothing") { check_empty_pair(odds); }

TEST_CASE("orpo: by hand, and where a probability is almost 1") {
  const auto odds_of = [](double log_p) { return std::exp(log_p) / -std::expm1(log_p); };
  const auto loss_of = [](double c, double r) { return orpo(reals{c, r}, one_pair, {.beta = 1, .likelihood = {.weight = 0}}); };
  const auto r = loss_of(-1, -2);
  CHECK(r.loss == Catch::Approx(std::log1p(odds_of(-2) / odds_of(-1))).epsilon(1e-14));
  CHECK(loss_of(-2, -2).loss == Catch::Approx(std::log(2)).epsilon(1e-15));
  CHECK(orpo(reals{-1, -2}, one_pair).loss == Catch::Approx(1 + 0.1 * r.loss).epsilon(1e-14));
  // Liger's log1p(-exp(x)) loses every digit here: 1 - p is 1e-12 and 2e-12.
  CHECK(loss_of(-2e-12, -1e-12).loss == Catch::Approx(std::log(3)).epsilon(1e-11));
  CHECK(loss_of(-1e-20, -2).loss == Catch::Approx(1e-20 * odds_of(-2)).epsilon(1e-14));
  // At p = 1 the loss is 0 and its slope finite, where sigmoid(-z) / (1 - p) would be 0 / 0.
  const auto certain = loss_of(0, -2);
  CHECK(certain.loss == 0);
  CHECK(certain.d_logp[0] == Catch::Approx(-odds_of(-2)).epsilon(1e-14));
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

TEST_CASE("orpo: log-probabilities of -1e4 stay finite in float") {
  check_far([](const auto& x) { return orpo(x, one_pair); });
}

TEST_CASE("orpo: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  reals g(16, 5), m(14);
  CHECK(refusal([&] { orpo(d.compute, d.scratch, {g, pairs}, {.likelihood = likely, .denominator = 3}, {.d_logp = g}); }) ==
        "plumb: orpo: output `d_logp` overlaps `logp` in memory. Nothing was written.");
  CHECK(refusal([&] {
          orpo(d.compute, d.scratch, {logp, pairs}, {.likelihood = likely, .denominator = 3}, {.metrics = view<double, 2>(m.data(), 7, 2)});
        }) == "plumb: orpo: argument `metrics` has shape [7, 2], but its dimension 0 must be 9 (the number of metrics). Nothing was written.");
  CHECK(g == reals(16, 5));
}

// The laws of losses over replies: pairs against a reference and without one, labelled replies.
#include "support/laws.hpp"

#include <plumb/objectives/bco.hpp>
#include <plumb/objectives/cpo.hpp>
#include <plumb/objectives/kto.hpp>
#include <plumb/objectives/nash_md.hpp>
#include <plumb/objectives/orpo.hpp>
#include <plumb/objectives/preference.hpp>
#include <plumb/objectives/simpo.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };
constexpr auto probability = +[](double x) { return 1 / (1 + std::exp(-x)); };
constexpr auto label = +[](double x) { return x < 0 ? 0.0 : 1.0; };

template <class F>
laws::subject losses(const char* name, std::size_t unit, std::size_t arrays, F f) {
  laws::subject s{.name = name, .unit = unit, .tokens = std::vector<double (*)(double)>(arrays, logp)};
  s.against_reference = arrays == 2;
  s.empty_is_nothing = false;  // a reply of nothing has a log-ratio of 0, and that has a loss
  s.of_double = laws::caller<double>(f, 1);
  s.of_float = laws::caller<float>(f, 1);
  return s;
}

template <class L, class D = divergence::reverse_kl>
laws::subject pairs(const char* name, L link, preference_options options = {}, D d = {}) {
  return losses(name, 2, 2, [=](auto& c) {
    auto o = options;
    o.denominator = c.denominator;
    preference(c.on.compute, c.on.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .pairs = c.pairs()}, link, d, o,
               {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(preference_metrics)), .mode = c.mode});
  });
}
template <class O, class F>
laws::subject free_pairs(const char* name, O options, std::size_t metrics, F f) {
  return losses(name, 2, 1, [=](auto& c) {
    auto o = options;
    o.denominator = o.likelihood.denominator = c.denominator;
    f(c, o, reply_pairs_inputs<std::remove_cvref_t<decltype(c.loss)>>{c.tokens[0], c.pairs()},
      reply_pairs_outputs<std::remove_cvref_t<decltype(c.loss)>>{
          .loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(metrics), .mode = c.mode});
  });
}

}  // namespace

TEST_CASE("laws: pairs against a reference, every link") {
  const preference_options means{.score = reply_score::mean};
  laws::check(pairs("sigmoid", link::sigmoid{}));
  laws::check(pairs("sigmoid, smoothed", link::sigmoid{.label_smoothing = 0.1}));
  laws::check(pairs("sigmoid of means", link::sigmoid{}, means));
  laws::check(pairs("robust", link::robust{.label_smoothing = 0.1}));
  laws::check(pairs("hinge", link::hinge{}));
  laws::check(pairs("ipo", link::ipo{}, means));
  laws::check(pairs("exo", link::exo_pair{.label_smoothing = 0.1}));
  laws::check(pairs("nca", link::nca_pair{}));
  laws::check(pairs("bco", link::bco_pair{}));
  laws::check(pairs("sppo", link::sppo_hard{}));
  laws::check(pairs("apo_zero", link::apo_zero{}));
  laws::check(pairs("apo_down", link::apo_down{}));
  auto discopop = pairs("discopop", link::discopop{});
  discopop.extremes = false;  // its own e^-z is not finite there
  laws::check(discopop);
  laws::check(pairs("dpop", link::dpop{}));
  for (const pair_matching m : {pair_matching::ranked, pair_matching::ranked_margins}) {
    auto aot = pairs("aot", link::sigmoid{}, {.matching = m});
    aot.splits = false;  // ranks are those of the whole batch
    laws::check(aot);
  }
}

TEST_CASE("laws: exchanging the labels") {
  const auto near = [](double a, double b) { return std::abs(a - b) <= 1e-14 * std::max(1.0, std::abs(b)); };
  const std::vector<double> scores{-3, -0.4, 0, 0.7, 12};
  for (const double c : scores)
    for (const double r : scores) {
      CAPTURE(c, r);
      const auto of = [&](const auto& l, double first, double second) { return l(first, second).value; };
      // A smoothed label is one that is exchanged in a share e of the cases; the robust loss takes that share out again.
      const link::sigmoid plain{.beta = 0.3};
      for (const double e : {0.1, 0.3}) {
        CHECK(near(of(link::sigmoid{.beta = 0.3, .label_smoothing = e}, c, r), (1 - e) * of(plain, c, r) + e * of(plain, r, c)));
        CHECK(near((1 - 2 * e) * of(link::robust{.beta = 0.3, .label_smoothing = e}, c, r), (1 - e) * of(plain, c, r) - e * of(plain, r, c)));
      }
      // The difference of the two losses is linear in the scores, or quadratic without a rest.
      CHECK(near(of(plain, r, c) - of(plain, c, r), 0.3 * (c - r)));
      CHECK(near(of(link::ipo{.beta = 0.3}, r, c) - of(link::ipo{.beta = 0.3}, c, r), 2 / 0.3 * (c - r)));
      CHECK(near(of(link::sppo_hard{.beta = 0.3}, r, c) - of(link::sppo_hard{.beta = 0.3}, c, r), 2 / 0.3 * (c - r)));
      CHECK(near(of(link::apo_zero{.beta = 0.3}, c, r) + of(link::apo_zero{.beta = 0.3}, r, c), 2));
      CHECK(near(of(link::bco_pair{.beta = 0.3}, r, c) - of(link::bco_pair{.beta = 0.3}, c, r), 0.3 * (c - r)));
    }
}

TEST_CASE("laws: pairs under divergences") {
  auto forward = pairs("forward KL", link::sigmoid{}, {}, divergence::forward_kl{.max_exponent = 80});
  forward.extremes = false;
  laws::check(forward);
  laws::check(pairs("Jensen-Shannon", link::sigmoid{}, {}, divergence::js{}));
  laws::check(pairs("alpha", link::sigmoid{}, {}, divergence::alpha{.max_exponent = 80}));
}

TEST_CASE("laws: pairs without a reference") {
  constexpr std::size_t rows = std::size(reply_pairs_metrics);
  laws::check(free_pairs("cpo", cpo_options<link::sigmoid>{}, rows, [](auto& c, auto& o, auto in, auto out) { cpo(c.on.compute, c.on.scratch, in, o, out); }));
  laws::check(free_pairs("simpo", simpo_options{}, rows, [](auto& c, auto& o, auto in, auto out) { simpo(c.on.compute, c.on.scratch, in, o, out); }));
  laws::check(free_pairs("orpo", orpo_options{}, std::size(orpo_metrics), [](auto& c, auto& o, auto in, auto out) { orpo(c.on.compute, c.on.scratch, in, o, out); }));
}

TEST_CASE("laws: labelled replies") {
  auto kto_of = losses("kto", 1, 2, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const std::vector<T> kl{T(0.3)};
    std::vector<std::uint8_t> desirable;
    for (const T x : c.per_sequence[0]) desirable.push_back(x > T(0));
    kto(c.on.compute, c.on.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .desirable = desirable, .kl = kl},
        {.desirable_weight = 1.3, .denominator = c.denominator},
        {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(unpaired_metrics)), .mode = c.mode});
  });
  kto_of.per_sequence = {label};
  laws::check(kto_of);
  auto bco_of = losses("bco", 1, 2, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const std::vector<T> shift{T(0.3)};
    std::vector<std::uint8_t> desirable;
    for (const T x : c.per_sequence[0]) desirable.push_back(x > T(0));
    bco(c.on.compute, c.on.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .desirable = desirable, .shift = shift},
        {.denominator = c.denominator}, {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(unpaired_metrics)), .mode = c.mode});
  });
  bco_of.per_sequence = {label};
  laws::check(bco_of);
  auto nash = losses("nash_md", 1, 2, [](auto& c) {
    nash_md(c.on.compute, c.on.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .probability = c.per_sequence[0]},
            {.denominator = c.denominator}, {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(nash_md_metrics)), .mode = c.mode});
  });
  nash.per_sequence = {probability};
  nash.against_reference = false;  // its value is that of a surrogate, of logp itself
  laws::check(nash);
}

// The laws of losses over replies: pairs against a reference and without one, labelled replies.
#include "support/laws.hpp"

#include <plumb/objectives/bco.hpp>
#include <plumb/objectives/cpo.hpp>
#include <plumb/objectives/kto.hpp>
#include <plumb/objectives/nash_md.hpp>
#include <plumb/objectives/orpo.hpp>
#include <plumb/objectives/preference.hpp>
#include <plumb/objectives/simpo.hpp>
#include <plumb/objectives/tpo.hpp>
#include <plumb/objectives/xpo.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };
constexpr auto probability = +[](double x) { return 1 / (1 + std::exp(-x)); };
constexpr auto reward = +[](double x) { return 2 * x; };
constexpr auto label = +[](double x) { return x < 0 ? 0.0 : 1.0; };

/// The laws, and any order of the units, not only the reverse.
void hold(const laws::subject& what) {
  laws::check(what);
  const laws::batch whole = laws::random_batch(what, 5, 7);
  const laws::answer want = what.of_double(whole, 7, {});
  for (const std::vector<std::size_t>& units : {std::vector<std::size_t>{3, 0, 6, 2, 5, 1, 4}, {1, 5, 4, 0, 2, 6, 3}}) {
    std::vector<std::size_t> order;
    for (const std::size_t u : units)
      for (std::size_t i = 0; i < what.unit; ++i) order.push_back(u * what.unit + i);
    const laws::answer got = what.of_double(laws::chosen(whole, order), 7, {});
    CAPTURE(what.name, units);
    CHECK(laws::near(got.loss, want.loss, 0));
    CHECK(laws::near(got.metrics, want.metrics));
    for (std::size_t a = 0; a < got.d_tokens.size(); ++a) CHECK(laws::near(got.d_tokens[a], want.d_tokens[a]));
  }
}

template <class F>
laws::subject losses(const char* name, std::size_t unit, std::size_t arrays, F f) {
  laws::subject s{.name = name, .unit = unit, .tokens = std::vector<double (*)(double)>(arrays, logp)};
  s.against_reference = arrays == 2;
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
/// With the pair's given rewards, one per reply.
template <class L>
laws::subject rewarded(const char* name, L link, double (*number)(double)) {
  auto s = losses(name, 2, 2, [=](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    std::vector<T> chosen, rejected;
    for (std::size_t i = 0; i + 1 < c.per_sequence[0].size(); i += 2) {
      chosen.push_back(c.per_sequence[0][i]);
      rejected.push_back(c.per_sequence[0][i + 1]);
    }
    preference(c.on.compute, c.on.scratch,
               {.logp = c.tokens[0], .ref_logp = c.tokens[1], .pairs = c.pairs(), .reward_chosen = chosen, .reward_rejected = rejected}, link,
               {.denominator = c.denominator},
               {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(preference_metrics)), .mode = c.mode});
  });
  s.per_sequence = {number};
  return s;
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

/// The second reply of each pair, as begins and ends.
template <class C>
std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> seconds(const C& c) {
  std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> y;
  for (const std::int32_t s : c.second) {
    y.first.push_back(c.layout.begin(s));
    y.second.push_back(c.layout.end(s));
  }
  return y;
}

}  // namespace

TEST_CASE("laws: pairs against a reference, every link") {
  const preference_options means{.score = reply_score::mean};
  hold(pairs("sigmoid", link::sigmoid{}));
  hold(pairs("sigmoid, smoothed", link::sigmoid{.label_smoothing = 0.1}));
  hold(pairs("sigmoid of means", link::sigmoid{}, means));
  hold(pairs("robust", link::robust{.label_smoothing = 0.1}));
  hold(pairs("hinge", link::hinge{}));
  hold(pairs("ipo", link::ipo{}, means));
  hold(pairs("exo", link::exo_pair{.label_smoothing = 0.1}));
  hold(pairs("nca", link::nca_pair{}));
  hold(pairs("bco", link::bco_pair{}));
  hold(pairs("sppo", link::sppo_hard{}));
  hold(pairs("apo_zero", link::apo_zero{}));
  hold(pairs("apo_down", link::apo_down{}));
  hold(pairs("discopop", link::discopop{}));
  hold(pairs("dpop", link::dpop{}));
  hold(rewarded("sppo", link::sppo{}, probability));
  hold(rewarded("rpo_squared", link::rpo_squared{.scale = 0.5}, reward));
  hold(rewarded("rpo_backward_kl", link::rpo_backward_kl{}, reward));
  hold(rewarded("rpo_forward_kl", link::rpo_forward_kl{}, reward));
  for (const pair_matching m : {pair_matching::ranked, pair_matching::ranked_margins}) {
    auto aot = pairs("aot", link::sigmoid{}, {.matching = m});
    aot.splits = false;  // ranks are those of the whole batch
    hold(aot);
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
  hold(pairs("forward KL", link::sigmoid{}, {}, divergence::forward_kl{}));
  hold(pairs("Jensen-Shannon", link::sigmoid{}, {}, divergence::js{}));
  hold(pairs("alpha", link::sigmoid{}, {}, divergence::alpha{}));
}

TEST_CASE("laws: pairs without a reference") {
  constexpr std::size_t rows = std::size(reply_pairs_metrics);
  hold(free_pairs("cpo", cpo_options<link::sigmoid>{}, rows, [](auto& c, auto& o, auto in, auto out) { cpo(c.on.compute, c.on.scratch, in, o, out); }));
  // The rejected replies for TPO's third ones; those that the reference sampled, for XPO.
  hold(losses("tpo", 2, 1, [](auto& c) {
    const auto [begin, end] = seconds(c);
    tpo(c.on.compute, c.on.scratch, {c.tokens[0], c.pairs(), {begin, end, c.layout.scored}},
        {.likelihood = {.weight = 0.7, .denominator = c.denominator}, .denominator = c.denominator},
        {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(rows), .mode = c.mode});
  }));
  auto xpo_of = losses("xpo", 2, 2, [](auto& c) {
    const auto [begin, end] = seconds(c);
    xpo(c.on.compute, c.on.scratch, {c.tokens[0], c.tokens[1], c.pairs(), {begin, end, c.layout.scored}}, {.alpha = 0.1, .denominator = c.denominator},
        {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(rows), .mode = c.mode});
  });
  xpo_of.against_reference = false;  // its exploration term is of logp itself
  hold(xpo_of);
  hold(free_pairs("alphapo", simpo_options{.alpha = 0.25}, rows, [](auto& c, auto& o, auto in, auto out) { simpo(c.on.compute, c.on.scratch, in, o, out); }));
  hold(free_pairs("simpo", simpo_options{}, rows, [](auto& c, auto& o, auto in, auto out) { simpo(c.on.compute, c.on.scratch, in, o, out); }));
  auto orpo_of = free_pairs("orpo", orpo_options{}, std::size(orpo_metrics), [](auto& c, auto& o, auto in, auto out) { orpo(c.on.compute, c.on.scratch, in, o, out); });
  orpo_of.empty_is_nothing = false;  // one empty reply beside a scored one is a rejected reply of probability 1, which costs without bound
  hold(orpo_of);
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
  hold(kto_of);
  auto bco_of = losses("bco", 1, 2, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const std::vector<T> shift{T(0.3)};
    std::vector<std::uint8_t> desirable;
    for (const T x : c.per_sequence[0]) desirable.push_back(x > T(0));
    bco(c.on.compute, c.on.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .desirable = desirable, .shift = shift},
        {.denominator = c.denominator}, {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(unpaired_metrics)), .mode = c.mode});
  });
  bco_of.per_sequence = {label};
  hold(bco_of);
  auto nash = losses("nash_md", 1, 2, [](auto& c) {
    nash_md(c.on.compute, c.on.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .probability = c.per_sequence[0]},
            {.denominator = c.denominator}, {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(nash_md_metrics)), .mode = c.mode});
  });
  nash.per_sequence = {probability};
  nash.against_reference = false;  // its value is that of a surrogate, of logp itself
  hold(nash);
}

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
using laws::law;

namespace {

constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };
constexpr auto probability = +[](double x) { return 1 / (1 + std::exp(-x)); };
constexpr auto reward = +[](double x) { return 2 * x; };
constexpr auto label = +[](double x) { return x < 0 ? 0.0 : 1.0; };

template <class F>
laws::subject losses(const char* name, std::size_t unit, std::size_t arrays, F f) {
  laws::subject s{.name = name, .unit = unit, .tokens = std::vector<double (*)(double)>(arrays, logp)};
  laws::runs(s, f, {.tokens = 1});
  if (arrays == 2) {
    s.references = {{0, 1}};
  } else {
    s.lacks[law::reference] = "there is no reference";
  }
  s.lacks[law::exchange] = unit == 1 ? "a reply has no other side" : "what it changes is the link's: see the law of each, below";
  return s;
}
/// Of a loss that has a reference, but is not of log-ratios alone.
void not_of_ratios(laws::subject& s, const char* why) {
  s.references.clear();
  s.lacks[law::reference] = why;
}

template <class L, class D = divergence::reverse_kl>
laws::subject pairs(const char* name, L link, preference_options options = {}, D d = {}) {
  return losses(name, 2, 2, [=](auto& c) {
    auto o = options;
    o.denominator = c.denominator;
    preference(c.compute, c.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .pairs = c.pairs()}, link, d, o,
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
    preference(c.compute, c.scratch,
               {.logp = c.tokens[0], .ref_logp = c.tokens[1], .pairs = c.pairs(), .reward_chosen = chosen, .reward_rejected = rejected}, link,
               {.denominator = c.denominator},
               {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(preference_metrics)), .mode = c.mode});
  });
  s.per_sequence = {number};
  // Exchanged with their rewards, the replies lose the same.
  s.exchange = [](const laws::run& f, const laws::batch& b, const laws::answer& want, double tolerance) {
    laws::batch other = b;
    for (std::size_t i = 0; i < b.sequences(); i += 2) {
      std::swap(other.begin[i], other.begin[i + 1]);
      std::swap(other.end[i], other.end[i + 1]);
      std::swap(other.per_sequence[0][i], other.per_sequence[0][i + 1]);
    }
    const laws::answer got = f(other, laws::denominator, {});
    CHECK(laws::near(got.loss, want.loss, tolerance));
    CHECK(laws::near(got.d_tokens[0], want.d_tokens[0], tolerance));
  };
  s.lacks.erase(law::exchange);
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
  laws::check(pairs("discopop", link::discopop{}));
  laws::check(pairs("dpop", link::dpop{}));
  laws::check(rewarded("sppo", link::sppo{}, probability));
  laws::check(rewarded("rpo_squared", link::rpo_squared{.scale = 0.5}, reward));
  laws::check(rewarded("rpo_backward_kl", link::rpo_backward_kl{}, reward));
  laws::check(rewarded("rpo_forward_kl", link::rpo_forward_kl{}, reward));
  for (const pair_matching m : {pair_matching::ranked, pair_matching::ranked_margins}) {
    auto aot = pairs("aot", link::sigmoid{}, {.matching = m});
    aot.lacks[law::parts] = "ranks are those of the whole batch";
    laws::check(aot);
  }
}

TEST_CASE("laws: exchanging the labels") {
  // Not of exo_pair, nca_pair, apo_down, dpop and discopop: they treat the two sides differently on purpose, and nothing simple is left of the
  // difference. Links with given rewards are exchanged with them, in `rewarded`.
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
      CHECK(near(of(link::hinge{.beta = 0.3}, c, r) + of(link::hinge{.beta = 0.3}, r, c), std::max(2.0, 1 + 0.3 * std::abs(c - r))));
      CHECK(near(of(link::bco_pair{.beta = 0.3}, r, c) - of(link::bco_pair{.beta = 0.3}, c, r), 0.3 * (c - r)));
    }
}

TEST_CASE("laws: pairs under divergences") {
  laws::check(pairs("forward KL", link::sigmoid{}, {}, divergence::forward_kl{}));
  laws::check(pairs("Jensen-Shannon", link::sigmoid{}, {}, divergence::js{}));
  laws::check(pairs("alpha", link::sigmoid{}, {}, divergence::alpha{}));
}

TEST_CASE("laws: pairs without a reference") {
  constexpr std::size_t rows = std::size(reply_pairs_metrics);
  laws::check(free_pairs("cpo", cpo_options<link::sigmoid>{}, rows, [](auto& c, auto& o, auto in, auto out) {
    cpo(c.compute, c.scratch, in, o, out);
  }));
  // The rejected replies for TPO's third ones; those that the reference sampled, for XPO.
  laws::check(losses("tpo", 2, 1, [](auto& c) {
    const auto [begin, end] = seconds(c);
    tpo(c.compute, c.scratch, {c.tokens[0], c.pairs(), {begin, end, c.layout.scored}},
        {.likelihood = {.weight = 0.7, .denominator = c.denominator}, .denominator = c.denominator},
        {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(rows), .mode = c.mode});
  }));
  auto xpo_of = losses("xpo", 2, 2, [](auto& c) {
    const auto [begin, end] = seconds(c);
    xpo(c.compute, c.scratch, {c.tokens[0], c.tokens[1], c.pairs(), {begin, end, c.layout.scored}}, {.alpha = 0.1, .denominator = c.denominator},
        {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(rows), .mode = c.mode});
  });
  not_of_ratios(xpo_of, "its exploration term is of the log-probabilities themselves");
  laws::check(xpo_of);
  const auto simpo_of = [](auto& c, auto& o, auto in, auto out) { simpo(c.compute, c.scratch, in, o, out); };
  laws::check(free_pairs("alphapo", simpo_options{.alpha = 0.25}, rows, simpo_of));
  laws::check(free_pairs("simpo", simpo_options{}, rows, simpo_of));
  auto orpo_of = free_pairs("orpo", orpo_options{}, std::size(orpo_metrics), [](auto& c, auto& o, auto in, auto out) {
    orpo(c.compute, c.scratch, in, o, out);
  });
  orpo_of.lacks[law::nothing] = "one empty reply beside a scored one is a rejected reply of probability 1, which costs without bound";
  laws::check(orpo_of);
}

TEST_CASE("laws: labelled replies") {
  auto kto_of = losses("kto", 1, 2, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const std::vector<T> kl{T(0.3)};
    std::vector<std::uint8_t> desirable;
    for (const T x : c.per_sequence[0]) desirable.push_back(x > T(0));
    kto(c.compute, c.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .desirable = desirable, .kl = kl},
        {.desirable_weight = 1.3, .denominator = c.denominator},
        {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(unpaired_metrics)), .mode = c.mode});
  });
  kto_of.per_sequence = {label};
  kto_of.sequence_choices = {0};
  kto_of.given_metrics = {4};  // the KL
  laws::check(kto_of);
  auto bco_of = losses("bco", 1, 2, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const std::vector<T> shift{T(0.3)};
    std::vector<std::uint8_t> desirable;
    for (const T x : c.per_sequence[0]) desirable.push_back(x > T(0));
    bco(c.compute, c.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .desirable = desirable, .shift = shift},
        {.denominator = c.denominator},
        {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(unpaired_metrics)), .mode = c.mode});
  });
  bco_of.per_sequence = {label};
  bco_of.sequence_choices = {0};
  bco_of.given_metrics = {4};  // the shift
  laws::check(bco_of);
  auto nash = losses("nash_md", 1, 2, [](auto& c) {
    nash_md(c.compute, c.scratch, {.logp = c.tokens[0], .ref_logp = c.tokens[1], .sequences = c.layout, .probability = c.per_sequence[0]},
            {.denominator = c.denominator},
            {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(nash_md_metrics)), .mode = c.mode});
  });
  nash.per_sequence = {probability};
  not_of_ratios(nash, "its value is that of a surrogate, of the log-probabilities themselves");
  laws::check(nash);
}

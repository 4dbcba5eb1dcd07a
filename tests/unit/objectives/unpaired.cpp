// KTO, BCO, Nash-MD: gradients, values by hand, laws, extremes, what is refused; running moments.
#include "support/gradients.hpp"

#include <plumb/objectives/bco.hpp>
#include <plumb/objectives/kto.hpp>
#include <plumb/objectives/nash_md.hpp>
#include <plumb/testing/memory.hpp>

#include <limits>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

using reals = std::vector<double>;
using labels = std::vector<std::uint8_t>;
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// Four replies of 12 tokens: with holes, without scored tokens, whole; two desirable.
const std::vector<std::int32_t> begin{0, 5, 7, 10}, end{5, 7, 10, 12};
const labels mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1}, desirable{1, 0, 0, 1};
const sequence_layout<> sequences{begin, end, mask};
const reals reply_weight{1, 0.5, 2, 0.25};

template <class T>
std::vector<T> as(const reals& x) {
  return {x.begin(), x.end()};
}
template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(12), reply_loss = std::vector<T>(4), metrics = std::vector<T>(10);
};
/// Either objective on the four replies; the anchor is KTO's reference point or BCO's shift.
template <bool kto_not_bco, class T>
result<T> run(const std::vector<T>& x, reply_score score = reply_score::sum, double anchor = 0.3, double beta = 0.7) {
  desk<T> d;
  result<T> r;
  const auto ref = as<T>(normal_numbers(11, 12, 1, -2)), a = as<T>({anchor}), w = as<T>(reply_weight);
  const unpaired_outputs<T> out{.loss = r.loss, .d_logp = r.gradient, .reply_loss = r.reply_loss, .metrics = view<T, 2>(r.metrics.data(), 5, 2)};
  if constexpr (kto_not_bco) {
    const kto_options o{.beta = beta, .desirable_weight = 1.5, .undesirable_weight = 0.5, .score = score, .denominator = 3, .weight = 2};
    kto(d.compute, d.scratch, {x, ref, sequences, desirable, a, w}, o, out);
  } else {
    bco(d.compute, d.scratch, {x, ref, sequences, desirable, a, w}, {.beta = beta, .score = score, .denominator = 3, .weight = 2}, out);
  }
  return r;
}
double sigma(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("kto, bco: gradients by dual numbers and differences") {
  const auto x = normal_numbers(10, 12, 1, -2);
  for (const reply_score s : {reply_score::sum, reply_score::mean}) {
    check_gradient([&]<class T>(const std::vector<T>& at) { return run<true>(at, s).loss; }, x, run<true>(x, s).gradient);
    check_gradient([&]<class T>(const std::vector<T>& at) { return run<false>(at, s).loss; }, x, run<false>(x, s).gradient);
  }
}

TEST_CASE("kto, bco: tokens that do not count may hold anything, and NaN that counts is seen") {
  const auto x = normal_numbers(10, 12, 1, -2);
  auto holes = x, broken = x;
  for (std::size_t t = 0; t < 12; ++t)
    if (mask[t] == 0) holes[t] = not_a_number;
  broken[8] = not_a_number;
  const auto check = [&]<bool kto_not_bco>(std::bool_constant<kto_not_bco>) {
    const auto want = run<kto_not_bco>(x), got = run<kto_not_bco>(holes), bad = run<kto_not_bco>(broken);
    CHECK(got.loss == want.loss);
    CHECK(got.gradient == want.gradient);
    CHECK(got.metrics == want.metrics);
    for (std::size_t t = 0; t < 12; ++t)
      if (mask[t] == 0) CHECK(got.gradient[t] == 0);
    CHECK(std::isnan(bad.loss));
    CHECK(std::isnan(bad.gradient[7]));
    CHECK(bad.gradient[1] == want.gradient[1]);
    CHECK(std::isnan(bad.metrics[2]));                // reward_undesirable
    CHECK(bad.metrics[0] == want.metrics[0]);         // reward_desirable
    CHECK(std::isnan(run<kto_not_bco>(x, reply_score::sum, not_a_number).loss));
  };
  check(std::true_type{});
  check(std::false_type{});
}

TEST_CASE("kto: by hand, and the reference point from mismatched replies") {
  const reals logp{-4, -6, -3}, ref{-5, -4, -3}, kl_logp{-7, -9}, kl_ref{-8, -9.5};
  const labels good{1, 0, 0};
  const auto r = kto(logp, ref, good, kl_logp, kl_ref, {.beta = 0.5, .desirable_weight = 1.2, .undesirable_weight = 0.8});
  const double z0 = 0.75, z[] = {0.5 * (1 - z0), 0.5 * (-2 - z0), 0.5 * (0 - z0)};
  CHECK(r.kl == z0);
  CHECK(r.loss == Catch::Approx((1.2 * (1 - sigma(z[0])) + 0.8 * (1 - sigma(-z[1])) + 0.8 * (1 - sigma(-z[2]))) / 3).epsilon(1e-15));
  CHECK(r.d_logp[0] == Catch::Approx(-1.2 * 0.5 * sigma(z[0]) * sigma(-z[0]) / 3).epsilon(1e-15));
  CHECK(r.d_logp[1] == Catch::Approx(0.8 * 0.5 * sigma(z[1]) * sigma(-z[1]) / 3).epsilon(1e-15));
  CHECK(r.reward_desirable == Catch::Approx(0.5).epsilon(1e-15));
  CHECK(r.reward_undesirable == Catch::Approx(-0.5).epsilon(1e-15));
  CHECK(r.logp_undesirable == Catch::Approx(-4.5).epsilon(1e-15));
  // Below 0 it is 0, which is what APO-zero's unpaired form always has.
  const auto clamped = kto(logp, ref, good, kl_ref, kl_logp), zero = kto(logp, ref, good, {}, {}, {.kl_free = true});
  CHECK(clamped.kl == 0);
  CHECK(clamped.loss == zero.loss);
  // Policy = reference and no mismatch: half of each weight.
  CHECK(kto(ref, ref, good, kl_ref, kl_ref).loss == 0.5);
  // Replies of one label only: the other's means are over nothing.
  CHECK(std::isnan(kto(logp, ref, labels{1, 1, 1}, kl_logp, kl_ref).reward_undesirable));
  // Liger's labels broadcast over a chunk of more than one reply; ours belong to their reply, whatever else is in the call.
  double sum = 0;
  for (std::size_t s = 0; s < 3; ++s) sum += kto(reals{logp[s]}, reals{ref[s]}, labels{good[s]}, kl_logp, kl_ref).loss / 3;
  CHECK(kto(logp, ref, good, kl_logp, kl_ref).loss == Catch::Approx(sum).epsilon(1e-15));
}

TEST_CASE("kto_kl: ranks add up their sums, the clamp comes last") {
  desk<double> d;
  const reals logp{-1, -2, -3}, ref{-1.5, -1, -1}, more{-1}, more_ref{-9};
  reals sums(2), kl(1), alone(1);
  kto_kl_replies(d.compute, d.scratch, {logp, ref}, {}, {.kl = alone, .sums = sums});
  CHECK(alone[0] == 0);  // the mean is negative
  CHECK(sums == reals{-2.5, 3});
  kto_kl_replies(d.compute, d.scratch, {more, more_ref}, {}, {.kl = alone, .sums = sums, .mode = write_mode::add});
  CHECK(alone[0] == 8);
  kto_kl_of_sums(d.compute, view<const double, 1>(sums), {}, view<double, 1>(kl));
  CHECK(kl[0] == Catch::Approx(5.5 / 4).epsilon(1e-15));
  kto_kl_replies(d.compute, d.scratch, {logp, ref}, {.clamp = false}, {.kl = kl});  // Liger: as it is
  CHECK(kl[0] == Catch::Approx(-2.5 / 3).epsilon(1e-15));
  const reals nothing;
  kto_kl_replies(d.compute, d.scratch, {nothing, nothing}, {}, {.kl = kl});
  CHECK(std::isnan(kl[0]));
  const reals broken{not_a_number};
  kto_kl_replies(d.compute, d.scratch, {broken, more_ref}, {}, {.kl = kl});
  CHECK(std::isnan(kl[0]));
  // Tokens with a layout of their own: the scored ones, and the replies that have any.
  auto x = normal_numbers(10, 12, 1, -2);
  const auto y = normal_numbers(11, 12, 1, -2);
  x[0] = not_a_number;
  kto_kl(d.compute, d.scratch, {x, y, sequences}, {.clamp = false}, {.kl = kl});
  double want = 0;
  for (std::size_t t = 0; t < 12; ++t) want += mask[t] != 0 ? (x[t] - y[t]) / 3 : 0;
  CHECK(kl[0] == Catch::Approx(want).epsilon(1e-14));
}

TEST_CASE("kto, bco, nash_md: replies of weight 0 or without scored tokens are nothing, whatever they hold") {
  auto x = normal_numbers(10, 12, 1, -2);
  const auto ref = normal_numbers(11, 12, 1, -2);
  x[5] = x[7] = x[8] = x[9] = not_a_number;  // of the reply without scored tokens and of the one of weight 0
  const reals anchor{0.3}, weight{1, 0.5, 0, 0.25}, probability{0.9, not_a_number, 0.5, 0};
  const std::vector<std::int32_t> some_begin{0, 10}, some_end{5, 12};
  const sequence_layout<> some{some_begin, some_end, mask};
  const labels some_desirable{1, 1};
  const reals some_weight{1, 0.25};
  desk<double> d;
  struct answer {
    double loss = 0;
    reals gradient = reals(12), metrics = reals(10), state = reals(3);
    unpaired_outputs<double> out() { return {.loss = loss, .d_logp = gradient, .metrics = view<double, 2>(metrics.data(), 5, 2)}; }
  };
  const auto same = [](const answer& a, const answer& b) {
    CHECK(std::isfinite(a.loss));
    CHECK(a.loss == b.loss);
    CHECK(a.gradient == b.gradient);
    CHECK(a.metrics == b.metrics);
    for (std::size_t k = 0; k < 3; ++k) CHECK(a.state[k] == Catch::Approx(b.state[k]).epsilon(1e-14));
  };
  for (const reply_score score : {reply_score::sum, reply_score::mean}) {
    answer a, b, c, e;
    kto(d.compute, d.scratch, {x, ref, sequences, desirable, anchor, weight}, {.score = score, .denominator = 4}, a.out());
    kto(d.compute, d.scratch, {x, ref, some, some_desirable, anchor, some_weight}, {.score = score, .denominator = 4}, b.out());
    same(a, b);
    const bco_inputs<double> all{x, ref, sequences, desirable, anchor, weight}, few{x, ref, some, some_desirable, anchor, some_weight};
    bco(d.compute, d.scratch, all, {.score = score, .denominator = 4}, c.out());
    bco(d.compute, d.scratch, few, {.score = score, .denominator = 4}, e.out());
    bco_moments(d.compute, d.scratch, all, {.score = score}, view<double, 1>(c.state));
    bco_moments(d.compute, d.scratch, few, {.score = score}, view<double, 1>(e.state));
    CHECK(c.state[moments_count] == 2);
    same(c, e);
  }
  // Sums of replies: a weight of 0 does it.
  const reals logp{-4, not_a_number, -3}, of_ref{-5, -4, -3}, w{1, 0, 2};
  reals g(3), m(10);
  double loss = 0;
  kto_replies(d.compute, d.scratch, {logp, of_ref, labels{1, 0, 0}, anchor, w}, {.denominator = 1}, {.loss = loss, .d_logp = g, .metrics = view<double, 2>(m.data(), 5, 2)});
  CHECK(std::isfinite(loss));
  CHECK(g[1] == 0);
  CHECK(m == reals{0.1, 1, 0, 1, -4, 1, -3, 1, 0.3, 1});
  // The reference point and Nash-MD's metrics count what has scored tokens.
  reals sums(2), metrics(8);
  auto y = x;
  y[7] = y[8] = y[9] = -1;
  kto_kl(d.compute, d.scratch, {y, ref, sequences}, {}, {.sums = sums});
  CHECK(sums[1] == 3);
  nash_md(d.compute, d.scratch, {y, ref, sequences, probability}, {.denominator = 4}, {.loss = loss, .d_logp = g = reals(12), .metrics = view<double, 2>(metrics.data(), 4, 2)});
  CHECK(std::isfinite(loss));
  for (std::size_t k = 0; k < 8; k += 2) {
    CHECK(std::isfinite(metrics[k]));
    CHECK(metrics[k + 1] == 3);
  }
}

TEST_CASE("kto, bco: two micro-batches make one batch, in any order") {
  const auto x = normal_numbers(10, 12, 1, -2), ref = normal_numbers(11, 12, 1, -2);
  const reals anchor{0.2};
  desk<double> d;
  const auto check = [&](const auto& call) {
    double whole = 0, parts = 100;
    reals gradient(12), added(12, 1);
    const auto part = [&](std::size_t first, std::size_t count, double& loss, reals& g, write_mode mode) {
      const index_t f = static_cast<index_t>(first), n = static_cast<index_t>(count);
      const sequence_layout<> some{sequences.begin.slice(f, n), sequences.end.slice(f, n), sequences.scored};
      call(some, view(desirable).slice(f, n), unpaired_outputs<double>{.loss = loss, .d_logp = g, .mode = mode});
    };
    part(0, 4, whole, gradient, write_mode::overwrite);
    part(2, 2, parts, added, write_mode::add);
    part(0, 2, parts, added, write_mode::add);
    CHECK(parts == Catch::Approx(100 + whole).epsilon(1e-14));
    for (std::size_t t = 0; t < 12; ++t) CHECK(added[t] == Catch::Approx(1 + gradient[t]).epsilon(1e-14));
  };
  check([&](auto s, auto l, const auto& out) { kto(d.compute, d.scratch, {x, ref, s, l, anchor, {}}, {.denominator = 4}, out); });
  check([&](auto s, auto l, const auto& out) { bco(d.compute, d.scratch, {x, ref, s, l, anchor, {}}, {.denominator = 4}, out); });
}

TEST_CASE("kto, bco: log-ratios of 1e4 stay finite in float") {
  const std::vector<float> logp{-1e4f, -1, -1e4f, -1}, ref{-1, -1e4f, -1, -1e4f};
  const labels good{1, 1, 0, 0};
  const auto k = kto(logp, ref, good, {}, {}, {.beta = 1, .kl_free = true});
  CHECK(k.loss == 0.5f);
  CHECK(k.d_logp == std::vector<float>(4));
  std::vector<float> state(3);
  const auto b = bco(logp, ref, good, state, {.beta = 1});
  CHECK(b.loss == Catch::Approx(9999.0 / 2));
  CHECK(b.d_logp == std::vector<float>{-0.25f, 0, 0, 0.25f});
}

TEST_CASE("bco: the shift is the running mean with this batch in it, and a constant") {
  const reals logp{-4, -6, -3}, ref{-5, -4, -3};
  const labels good{1, 0, 0};
  reals state(3);
  const auto first = bco(logp, ref, good, state, {.beta = 0.5});
  CHECK(first.shift == Catch::Approx(0.5 * (1 - 2 + 0) / 3).epsilon(1e-15));
  const double z = 0.5 - first.shift;
  CHECK(first.d_logp[0] == Catch::Approx(-0.5 * sigma(-z) / 3).epsilon(1e-15));
  const auto second = bco(reals{0}, reals{-8}, labels{1}, state, {.beta = 0.5});
  CHECK(second.shift == Catch::Approx((-0.5 + 4) / 4).epsilon(1e-15));
  CHECK(state[moments_count] == 4);
  // Tokens give the same rewards as their sums; the reply without scored tokens is none.
  desk<double> d;
  const auto x = normal_numbers(10, 12, 1, -2), y = normal_numbers(11, 12, 1, -2);
  reals of_tokens(3), of_sums(3), sums(4), ref_sums(4);
  for (std::size_t s = 0; s < 4; ++s)
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t)
      if (mask[t] != 0) sums[s] += x[t], ref_sums[s] += y[t];
  sums.erase(sums.begin() + 1), ref_sums.erase(ref_sums.begin() + 1);
  bco_moments(d.compute, d.scratch, {.logp = x, .ref_logp = y, .sequences = sequences}, {.beta = 0.3}, view<double, 1>(of_tokens));
  bco_moments_replies(d.compute, d.scratch, view<const double, 1>(sums), view<const double, 1>(ref_sums), 0.3, view<double, 1>(of_sums));
  for (std::size_t k = 0; k < 3; ++k) CHECK(of_tokens[k] == Catch::Approx(of_sums[k]).epsilon(1e-13));
}

TEST_CASE("running moments: as of all numbers at once, however they are split") {
  desk<double> d;
  const auto x = normal_numbers(5, 40, 3, 1000);  // far from 0: no sum of squares would do
  double mean = 0, squares = 0;
  for (const double e : x) mean += e / 40;
  for (const double e : x) squares += (e - mean) * (e - mean);
  for (const std::size_t first : {std::size_t{0}, std::size_t{1}, std::size_t{13}, std::size_t{40}}) {
    reals a(3), b(3);
    const auto rest = static_cast<index_t>(40 - first);
    update_moments(d.compute, d.scratch, view<const double, 1>(x).slice(0, static_cast<index_t>(first)), view<double, 1>(a));
    update_moments(d.compute, d.scratch, view<const double, 1>(x).slice(static_cast<index_t>(first), rest), view<double, 1>(b));
    merge_moments(d.compute, d.scratch, view<const double, 1>(b), view<double, 1>(a));
    const auto m = read_moments(view<const double, 1>(a));
    CHECK(m.count == 40);
    CHECK(m.mean == Catch::Approx(mean).epsilon(1e-15));
    CHECK(m.variance == Catch::Approx(squares / 40).epsilon(1e-12));
    CHECK(m.standard_deviation == Catch::Approx(std::sqrt(squares / 39)).epsilon(1e-12));
  }
  const auto nothing = read_moments(view<const double, 1>(reals(3)));
  CHECK(std::isnan(nothing.variance));
  CHECK(std::isnan(nothing.standard_deviation));
  reals broken(3);
  update_moments(d.compute, d.scratch, view<const double, 1>(reals{1, not_a_number}), view<double, 1>(broken));
  CHECK(std::isnan(broken[moments_mean]));
  CHECK(refusal([&] { update_moments(d.compute, d.scratch, view<const double, 1>(x), view<double, 1>(reals(2))); }) ==
        "plumb: update_moments: argument `state` has shape [2], but its dimension 0 must be 3 (count, mean, squared deviations). Nothing was "
        "written.");
}

TEST_CASE("nash_md: by hand; the log-ratio is a constant for the gradient") {
  auto x = normal_numbers(10, 12, 1, -2);
  const auto ref = normal_numbers(11, 12, 1, -2);
  x[0] = not_a_number;
  const reals p{0.9, 0.2, 0.5, 0};
  const auto r = nash_md(x, ref, sequences, p, {.beta = 0.3, .denominator = 2, .weight = 3});
  double loss = 0;
  for (std::size_t s = 0; s < 4; ++s)
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) {
      const double c = mask[t] != 0 ? 3 * (0.3 * (x[t] - ref[t]) - (p[s] - 0.5)) / 2 : 0;
      CHECK(r.d_logp[t] == Catch::Approx(c).epsilon(1e-13));
      loss += mask[t] != 0 ? c * x[t] : 0;
    }
  CHECK(r.loss == Catch::Approx(loss).epsilon(1e-13));
  CHECK(r.probability == Catch::Approx(1.4 / 3).epsilon(1e-15));  // of the replies that have scored tokens
  // Twice half a batch, added.
  desk<double> d;
  double parts = 0;
  reals added(12);
  for (const index_t f : {index_t{2}, index_t{0}}) {
    const sequence_layout<> some{sequences.begin.slice(f, 2), sequences.end.slice(f, 2), sequences.scored};
    nash_md(d.compute, d.scratch, {x, ref, some, view<const double, 1>(p).slice(f, 2)}, {.beta = 0.3, .denominator = 2, .weight = 3},
            {.loss = parts, .d_logp = added, .mode = write_mode::add});
  }
  CHECK(parts == Catch::Approx(loss).epsilon(1e-13));
  CHECK(added == r.d_logp);
  CHECK(refusal([&] { nash_md(d.compute, d.scratch, {x, ref, sequences, {}}, {.denominator = 1}, {.d_logp = added}); }) ==
        "plumb: nash_md: argument `probability` is not given. Nothing was written.");
}

TEST_CASE("kto, bco: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  const reals x(12), ref(12), anchor(1), two(2);
  reals g(12, 5);
  const labels three(3);
  const auto kto_says = [&](const kto_inputs<double>& in, const kto_options& o) {
    return refusal([&] { kto(d.compute, d.scratch, in, o, {.d_logp = g}); });
  };
  const auto bco_says = [&](const bco_inputs<double>& in, const bco_options& o) {
    return refusal([&] { bco(d.compute, d.scratch, in, o, {.d_logp = g}); });
  };
  CHECK(kto_says({x, ref, sequences, desirable, {}, {}}, {.denominator = 1}) ==
        "plumb: kto: argument `kl` is not given; give it (`kto_kl` makes it), or set `kl_free`. Nothing was written.");
  CHECK(kto_says({x, ref, sequences, three, anchor, {}}, {.denominator = 1}) ==
        "plumb: kto: argument `desirable` has shape [3], but its dimension 0 must be 4 (the number of sequences). Nothing was written.");
  CHECK(kto_says({x, {}, sequences, desirable, anchor, {}}, {.denominator = 1}) ==
        "plumb: kto: argument `ref_logp` is not given. Nothing was written.");
  CHECK(kto_says({x, ref, sequences, desirable, two, {}}, {.denominator = 1}) ==
        "plumb: kto: argument `kl` has shape [2], but its dimension 0 must be 1 (one number). Nothing was written.");
  CHECK(kto_says({x, ref, sequences, desirable, anchor, {}}, {.desirable_weight = -1, .denominator = 1}) ==
        "plumb: kto: option `desirable_weight` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(kto_says({g, ref, sequences, desirable, anchor, {}}, {.denominator = 1}) ==
        "plumb: kto: output `d_logp` overlaps `logp` in memory. Nothing was written.");
  CHECK(bco_says({x, ref, sequences, desirable, {}, {}}, {.denominator = 1}) == "plumb: bco: argument `shift` is not given. Nothing was written.");
  CHECK(bco_says({x, ref, sequences, desirable, anchor, two}, {.denominator = 1}) ==
        "plumb: bco: argument `weight` has shape [2], but its dimension 0 must be 4 (the number of sequences). Nothing was written.");
  CHECK(bco_says({x, ref, sequences, desirable, anchor, {}}, {}) ==
        "plumb: bco: option `denominator` is 0 but must be positive: the count that the loss of the whole global batch is divided by. Nothing was "
        "written.");
  CHECK(g == reals(12, 5));
}

// KTO: gradients, values by hand, laws, extremes, what is refused.
#include "support/unpaired.hpp"

#include <plumb/objectives/kto.hpp>

using namespace plumb_test;
using namespace plumb_test::four_replies;
using testing::normal_numbers;

namespace {

constexpr auto objective = [](auto& b, auto& scratch, const auto& in, reply_score score, const auto& out) {
  kto(b, scratch, {in.logp, in.ref_logp, in.sequences, in.desirable, in.anchor, in.weight},
      {.beta = 0.7, .desirable_weight = 1.5, .undesirable_weight = 0.5, .score = score, .denominator = 3, .weight = 2}, out);
};

}  // namespace

TEST_CASE("kto: gradients by dual numbers and differences") { check_gradients(objective); }
TEST_CASE("kto: tokens that do not count may hold anything, and NaN that counts is seen") { check_masks(objective); }
TEST_CASE("kto: two micro-batches make one batch, in any order") { check_micro_batches(objective); }

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

TEST_CASE("kto: replies of weight 0 or without scored tokens are nothing, whatever they hold") {
  check_weightless(objective);
  // Sums of replies: a weight of 0 does it.
  const reals sums_of_logp{-4, not_a_number, -3}, of_ref{-5, -4, -3}, w{1, 0, 2}, anchor{0.3};
  desk<double> d;
  reals g(3), m(10), sums(2);
  double loss = 0;
  kto_replies(d.compute, d.scratch, {sums_of_logp, of_ref, labels{1, 0, 0}, anchor, w}, {.denominator = 1},
              {.loss = loss, .d_logp = g, .metrics = view<double, 2>(m.data(), 5, 2)});
  CHECK(std::isfinite(loss));
  CHECK(g[1] == 0);
  CHECK(m == reals{0.1, 1, 0, 1, -4, 1, -3, 1, 0.3, 1});
  // The reference point counts what has scored tokens.
  auto y = broken_where_weightless();
  y[7] = y[8] = y[9] = -1;
  kto_kl(d.compute, d.scratch, {y, reference, sequences}, {}, {.sums = sums});
  CHECK(sums[1] == 3);
}

TEST_CASE("kto: log-ratios of 1e4 stay finite in float") {
  const std::vector<float> far{-1e4f, -1, -1e4f, -1}, ref{-1, -1e4f, -1, -1e4f};
  const auto k = kto(far, ref, labels{1, 1, 0, 0}, {}, {}, {.beta = 1, .kl_free = true});
  CHECK(k.loss == 0.5f);
  CHECK(k.d_logp == std::vector<float>(4));
}

TEST_CASE("kto: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  const reals x(12), ref(12), anchor(1), two(2);
  reals g(12, 5);
  const labels three(3);
  const auto kto_says = [&](const kto_inputs<double>& in, const kto_options& o) {
    return refusal([&] { kto(d.compute, d.scratch, in, o, {.d_logp = g}); });
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
  CHECK(g == reals(12, 5));
}

// BCO: gradients, values by hand, laws, extremes, what is refused.
#include "support/unpaired.hpp"

#include <plumb/objectives/bco.hpp>

using namespace plumb_test;
using namespace plumb_test::four_replies;
using testing::normal_numbers;

namespace {

constexpr auto objective = [](auto& b, auto& scratch, const auto& in, reply_score score, const auto& out) {
  bco(b, scratch, {in.logp, in.ref_logp, in.sequences, in.desirable, in.anchor, in.weight},
      {.beta = 0.7, .score = score, .denominator = 3, .weight = 2}, out);
};

}  // namespace

TEST_CASE("bco: gradients by dual numbers and differences") { check_gradients(objective); }
TEST_CASE("bco: tokens that do not count may hold anything, and NaN that counts is seen") { check_masks(objective); }
TEST_CASE("bco: two micro-batches make one batch, in any order") { check_micro_batches(objective); }

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

TEST_CASE("bco: replies of weight 0 or without scored tokens are nothing, whatever they hold") {
  check_weightless(objective);
  const auto x = broken_where_weightless();
  const reals anchor{0.3};
  desk<double> d;
  for (const reply_score score : {reply_score::sum, reply_score::mean}) {
    reals all(3), few(3);
    bco_moments(d.compute, d.scratch, {x, reference, sequences, desirable, anchor, third_weight_0}, {.score = score}, view<double, 1>(all));
    bco_moments(d.compute, d.scratch, {x, reference, left, some_desirable, anchor, some_weight}, {.score = score}, view<double, 1>(few));
    CHECK(all[moments_count] == 2);
    for (std::size_t k = 0; k < 3; ++k) CHECK(all[k] == Catch::Approx(few[k]).epsilon(1e-14));
  }
}

TEST_CASE("bco: log-ratios of 1e4 stay finite in float") {
  const std::vector<float> far{-1e4f, -1, -1e4f, -1}, ref{-1, -1e4f, -1, -1e4f};
  std::vector<float> state(3);
  const auto b = bco(far, ref, labels{1, 1, 0, 0}, state, {.beta = 1});
  CHECK(b.loss == Catch::Approx(9999.0 / 2));
  CHECK(b.d_logp == std::vector<float>{-0.25f, 0, 0, 0.25f});
}

TEST_CASE("bco: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  const reals x(12), ref(12), anchor(1), two(2);
  reals g(12, 5);
  const auto bco_says = [&](const bco_inputs<double>& in, const bco_options& o) {
    return refusal([&] { bco(d.compute, d.scratch, in, o, {.d_logp = g}); });
  };
  CHECK(bco_says({x, ref, sequences, desirable, {}, {}}, {.denominator = 1}) == "plumb: bco: argument `shift` is not given. Nothing was written.");
  CHECK(bco_says({x, ref, sequences, desirable, anchor, two}, {.denominator = 1}) ==
        "plumb: bco: argument `weight` has shape [2], but its dimension 0 must be 4 (the number of sequences). Nothing was written.");
  CHECK(bco_says({x, ref, sequences, desirable, anchor, {}}, {}) ==
        "plumb: bco: option `denominator` is 0 but must be positive: the count that the loss of the whole global batch is divided by. Nothing was "
        "written.");
  CHECK(g == reals(12, 5));
}

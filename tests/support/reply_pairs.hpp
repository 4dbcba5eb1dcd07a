#pragma once
// Objectives of pairs without a reference (CPO and its relatives) on six replies: gradients, what does not count, adding.

#include "support/gradients.hpp"

#include <plumb/objectives/reply_pairs.hpp>
#include <plumb/testing/memory.hpp>

#include <limits>

namespace plumb_test::six_replies {

using namespace plumb;
using reals = std::vector<double>;
inline const double none = std::numeric_limits<double>::quiet_NaN();

/// Six replies of 16 tokens: with holes, in no pair, without scored tokens, in two pairs.
inline const std::vector<std::int32_t> begin{0, 5, 7, 9, 10, 13}, end{5, 7, 9, 10, 13, 16}, chosen{0, 4, 0}, rejected{1, 5, 2},
    rejected_scored{1, 5, 3};
inline const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1};
inline const sequence_layout<> sequences{begin, end, mask};
inline const preference_pairs<> pairs{sequences, chosen, rejected};
/// All have scored tokens: a reply without any has log-probability 0, whose odds are infinite.
inline const preference_pairs<> scored_pairs{sequences, chosen, rejected_scored};
/// Two of them, as the best replies of TPO or the reference's of XPO.
inline const sequence_layout<> others{sequences.begin.slice(3, 2), sequences.end.slice(3, 2), sequences.scored};

inline const reals logp = [] {
  reals x = testing::normal_numbers(20, 16, 0.5, -2);
  for (double& e : x) e = e < -0.05 ? e : -0.05;
  return x;
}();
inline const reals ref_logp = testing::normal_numbers(21, 16, 0.5, -2);

inline constexpr likelihood_term likely{.weight = 0.7, .denominator = 5};
inline constexpr likelihood_term likely_means{.weight = 0.7, .aggregate = aggregation::sequence_mean, .denominator = 3};

/// An objective with its rows of metrics, on pairs: `call(backend, scratch, arrays, outputs)`.
template <class T>
struct arrays {
  view<const T, 1> logp, ref_logp;
  preference_pairs<> pairs;
  sequence_layout<> others;
};
template <class F>
struct subject {
  F call;
  index_t rows = 7;
  const preference_pairs<>& of = pairs;
};
template <class F>
subject(F) -> subject<F>;
template <class F>
subject(F, index_t, const preference_pairs<>&) -> subject<F>;

template <class T>
struct answer {
  T loss{};
  std::vector<T> gradient = std::vector<T>(16), metrics = std::vector<T>(18);
};
template <class F, class T>
answer<T> run(const subject<F>& s, const std::vector<T>& x, const preference_pairs<>& of) {
  desk<T> d;
  answer<T> r;
  const std::vector<T> ref(ref_logp.begin(), ref_logp.end());
  s.call(d.compute, d.scratch, arrays<T>{x, ref, of, others},
         reply_pairs_outputs<T>{.loss = r.loss, .d_logp = r.gradient, .metrics = view<T, 2>(r.metrics.data(), s.rows, 2)});
  return r;
}
template <class F, class T>
answer<T> run(const subject<F>& s, const std::vector<T>& x) {
  return run(s, x, s.of);
}

/// What every one of them must do.
template <class F>
void check_laws(const subject<F>& s) {
  const auto want = run(s, logp);
  SECTION("gradients by dual numbers and differences") {
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(s, at).loss; }, logp, want.gradient);
  }
  SECTION("tokens that do not count may hold anything, NaN that counts is seen") {
    auto holes = logp, broken = logp;
    for (std::size_t t = 0; t < 16; ++t)
      if (mask[t] == 0) holes[t] = none;
    broken[4] = none;  // of the reply chosen in two pairs
    const auto got = run(s, holes), bad = run(s, broken);
    CHECK(got.loss == want.loss);
    CHECK(got.gradient == want.gradient);
    CHECK(got.metrics == want.metrics);
    for (std::size_t t = 0; t < 16; ++t)
      if (mask[t] == 0) CHECK(got.gradient[t] == 0);
    CHECK(std::isnan(bad.loss));
    CHECK(std::isnan(bad.gradient[1]));
    CHECK(bad.gradient[14] == want.gradient[14]);  // of another pair
    CHECK(std::isnan(bad.metrics[0]));             // accuracy
  }
  SECTION("added to what is there") {
    desk<double> d;
    double more = 1;
    reals added(16, 3);
    s.call(d.compute, d.scratch, arrays<double>{logp, ref_logp, s.of, others},
           reply_pairs_outputs<double>{.loss = more, .d_logp = added, .mode = write_mode::add});
    CHECK(more == Catch::Approx(1 + want.loss).epsilon(1e-14));
    for (std::size_t t = 0; t < 16; ++t) CHECK(added[t] == Catch::Approx(3 + want.gradient[t]).epsilon(1e-14));
  }
}

/// Pair by pair, added, they make the batch: the likelihood term too, of the chosen reply of each pair; a reply chosen twice counts twice.
template <class F>
void check_pair_by_pair(const subject<F>& s) {
  const auto whole = run(s, logp);
  double loss = 0;
  reals gradient(16), sums(18);
  for (const index_t p : {index_t{2}, index_t{0}, index_t{1}}) {
    const auto one = run(s, logp, preference_pairs<>{sequences, s.of.chosen.slice(p, 1), s.of.rejected.slice(p, 1)});
    loss += one.loss;
    for (std::size_t t = 0; t < 16; ++t) gradient[t] += one.gradient[t];
    for (std::size_t k = 0; k < 18; ++k) sums[k] += one.metrics[k];
  }
  CHECK(loss == Catch::Approx(whole.loss).epsilon(1e-14));
  for (std::size_t t = 0; t < 16; ++t) CHECK(gradient[t] == Catch::Approx(whole.gradient[t]).epsilon(1e-13).margin(1e-15));
  for (std::size_t k = 0; k < 18; ++k) CHECK(sums[k] == Catch::Approx(whole.metrics[k]).epsilon(1e-13));
}

/// A pair without scored tokens is nothing.
template <class F>
void check_empty_pair(const subject<F>& s) {
  // Replies of 1 and 1, 0 and 0, 1 and 0 scored tokens.
  const reals x{-1.5, -2, none, none, -1, none}, ref{-1, -1, 0, 0, -2, 0};
  const std::vector<std::int32_t> b{0, 1, 2, 3, 4, 5}, e{1, 2, 3, 4, 5, 5}, c{0, 2, 4}, r{1, 3, 0}, fewer_c{0, 4}, fewer_r{1, 0};
  const std::vector<std::uint8_t> scored{1, 1, 0, 0, 1, 0};
  const sequence_layout<> layout{b, e, scored};
  const auto of = [&](const preference_pairs<>& p) {
    desk<double> d;
    answer<double> y;
    y.gradient.resize(6);
    s.call(d.compute, d.scratch, arrays<double>{x, ref, p, layout},
           reply_pairs_outputs<double>{.loss = y.loss, .d_logp = y.gradient, .metrics = view<double, 2>(y.metrics.data(), s.rows, 2)});
    return y;
  };
  const auto got = of({layout, c, r}), want = of({layout, fewer_c, fewer_r});
  CHECK(got.loss == want.loss);
  CHECK(got.gradient == want.gradient);
  CHECK(got.metrics == want.metrics);
  CHECK(std::isfinite(got.loss));
  CHECK(got.metrics[1] == 2);
}

/// Log-probabilities of -1e4 of one pair of single numbers stay finite in float: `call(logp)`.
template <class F>
void check_far(const F& call) {
  for (const auto& [c, r] : {std::pair{-1e4f, -1e-4f}, {-1e-4f, -1e4f}, {-1e4f, -1e4f}, {-1e-30f, -1e4f}}) {
    const auto y = call(std::vector<float>{c, r});
    CHECK(std::isfinite(y.loss));
    CHECK(std::isfinite(y.d_logp[0]));
    CHECK(std::isfinite(y.d_logp[1]));
  }
}

/// One pair of single numbers.
inline const std::vector<std::int32_t> one_begin{0, 1}, one_end{1, 2}, first{0}, second{1};
inline const preference_pairs<> one_pair{{one_begin, one_end, {}}, first, second};

inline double sigma(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace plumb_test::six_replies

#pragma once
// Objectives of labelled replies (KTO, BCO) on four replies: gradients, what does not count, micro-batches.

#include "support/gradients.hpp"

#include <plumb/objectives/unpaired.hpp>
#include <plumb/testing/memory.hpp>

#include <limits>

namespace plumb_test::four_replies {

using namespace plumb;
using reals = std::vector<double>;
using labels = std::vector<std::uint8_t>;
inline const double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// Four replies of 12 tokens: with holes, without scored tokens, whole; two desirable.
inline const std::vector<std::int32_t> begin{0, 5, 7, 10}, end{5, 7, 10, 12};
inline const labels mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1}, desirable{1, 0, 0, 1};
inline const sequence_layout<> sequences{begin, end, mask};
inline const reals reply_weight{1, 0.5, 2, 0.25}, policy = testing::normal_numbers(10, 12, 1, -2), reference = testing::normal_numbers(11, 12, 1, -2);

/// One call: `objective(backend, scratch, arrays, score, outputs)`.
template <class T>
struct arrays {
  view<const T, 1> logp, ref_logp;
  sequence_layout<> sequences;
  view<const std::uint8_t, 1> desirable;
  view<const T, 1> anchor, weight;  ///< KTO's reference point, or BCO's shift
};
template <class T>
struct answer {
  T loss{};
  std::vector<T> gradient = std::vector<T>(12), metrics = std::vector<T>(10);
  unpaired_outputs<T> out() { return {.loss = loss, .d_logp = gradient, .metrics = view<T, 2>(metrics.data(), 5, 2)}; }
};
template <class F, class T>
answer<T> run(const F& objective, const std::vector<T>& x, reply_score score = reply_score::sum, double at = 0.3) {
  desk<T> d;
  answer<T> r;
  const std::vector<T> ref(reference.begin(), reference.end()), anchor{T(at)}, weight(reply_weight.begin(), reply_weight.end());
  objective(d.compute, d.scratch, arrays<T>{x, ref, sequences, desirable, anchor, weight}, score, r.out());
  return r;
}

template <class F>
void check_gradients(const F& objective) {
  for (const reply_score s : {reply_score::sum, reply_score::mean})
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(objective, at, s).loss; }, policy, run(objective, policy, s).gradient);
}

/// Tokens that do not count may hold anything, and NaN that counts is seen.
template <class F>
void check_masks(const F& objective) {
  auto holes = policy, broken = policy;
  for (std::size_t t = 0; t < 12; ++t)
    if (mask[t] == 0) holes[t] = not_a_number;
  broken[8] = not_a_number;
  const auto want = run(objective, policy), got = run(objective, holes), bad = run(objective, broken);
  CHECK(got.loss == want.loss);
  CHECK(got.gradient == want.gradient);
  CHECK(got.metrics == want.metrics);
  for (std::size_t t = 0; t < 12; ++t)
    if (mask[t] == 0) CHECK(got.gradient[t] == 0);
  CHECK(std::isnan(bad.loss));
  CHECK(std::isnan(bad.gradient[7]));
  CHECK(bad.gradient[1] == want.gradient[1]);
  CHECK(std::isnan(bad.metrics[2]));         // reward_undesirable
  CHECK(bad.metrics[0] == want.metrics[0]);  // reward_desirable
  CHECK(std::isnan(run(objective, policy, reply_score::sum, not_a_number).loss));
}

/// Log-probabilities, broken where nothing counts for anything: in the reply without scored tokens, and in the one that `third_weight_0` weighs 0.
inline reals broken_where_weightless() {
  auto x = policy;
  x[5] = x[7] = x[8] = x[9] = not_a_number;
  return x;
}
inline const reals third_weight_0{1, 0.5, 0, 0.25}, some_weight{1, 0.25};
inline const std::vector<std::int32_t> some_begin{0, 10}, some_end{5, 12};
inline const labels some_desirable{1, 1};
/// The two replies that are left.
inline const sequence_layout<> left{some_begin, some_end, mask};

/// Replies of weight 0 or without scored tokens are nothing, whatever they hold.
template <class F>
void check_weightless(const F& objective) {
  const auto x = broken_where_weightless();
  const reals anchor{0.3};
  desk<double> d;
  for (const reply_score score : {reply_score::sum, reply_score::mean}) {
    answer<double> all, few;
    objective(d.compute, d.scratch, arrays<double>{x, reference, sequences, desirable, anchor, third_weight_0}, score, all.out());
    objective(d.compute, d.scratch, arrays<double>{x, reference, left, some_desirable, anchor, some_weight}, score, few.out());
    CHECK(std::isfinite(all.loss));
    CHECK(all.loss == few.loss);
    CHECK(all.gradient == few.gradient);
    CHECK(all.metrics == few.metrics);
  }
}

/// Two micro-batches make one batch, in any order.
template <class F>
void check_micro_batches(const F& objective) {
  const reals anchor{0.2};
  desk<double> d;
  double whole = 0, parts = 100;
  reals gradient(12), added(12, 1);
  const auto part = [&](index_t first, index_t count, double& loss, reals& g, write_mode mode) {
    const sequence_layout<> of{sequences.begin.slice(first, count), sequences.end.slice(first, count), sequences.scored};
    objective(d.compute, d.scratch, arrays<double>{policy, reference, of, view(desirable).slice(first, count), anchor, {}}, reply_score::sum,
              unpaired_outputs<double>{.loss = loss, .d_logp = g, .mode = mode});
  };
  part(0, 4, whole, gradient, write_mode::overwrite);
  part(2, 2, parts, added, write_mode::add);
  part(0, 2, parts, added, write_mode::add);
  CHECK(parts == Catch::Approx(100 + whole).epsilon(1e-14));
  for (std::size_t t = 0; t < 12; ++t) CHECK(added[t] == Catch::Approx(1 + gradient[t]).epsilon(1e-14));
}

inline double sigma(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace plumb_test::four_replies

// KL estimates: gradients, values, limits, what their gradients mean on average, masks; the exact divergence.
#include "support/gradients.hpp"

#include <plumb/ops/kl.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Three sequences of 12 tokens: with holes, without scored tokens, whole.
const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
constexpr kl_estimator estimators[] = {kl_estimator::k1, kl_estimator::absolute, kl_estimator::k2, kl_estimator::k3};

template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(12);
};
template <class T>
result<T> run(const std::vector<T>& x, const std::vector<double>& ref, const kl_penalty_options& o) {
  desk<T> d;
  result<T> r;
  const std::vector<T> reference(ref.begin(), ref.end());
  kl_penalty(d.compute, d.scratch, {x, reference, sequences}, o, {.loss = r.loss, .d_logp = r.gradient});
  return r;
}
const auto value = [](const kl_estimate& e, auto x) { return e(x, decltype(x)(0)); };

}  // namespace

TEST_CASE("kl: gradients by dual numbers and differences") {
  // Log-ratios away from the kinks, on both sides of each limit.
  const auto x = normal_numbers(10, 12, 0.5, -2);
  const std::vector<double> ratios{0, 0.15, 0, -0.15, 0.6, 0, 0, -0.6, 1.5, -1.5, 2.5, -0.2};
  std::vector<double> ref(12);
  for (std::size_t t = 0; t < 12; ++t) ref[t] = x[t] - ratios[t];
  for (const kl_estimator e : estimators)
    for (const double limit : {0.0, 0.4})
      for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum}) {
        const kl_estimate estimate{.estimator = e, .log_ratio_limit = 3 * limit, .limit = limit};
        const kl_penalty_options o{.estimate = estimate, .aggregate = a, .denominator = 3, .weight = 0.7};
        check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, ref, o).loss; }, x, run(x, ref, o).gradient);
      }
}

TEST_CASE("kl: values, small log-ratios, limits and kinks") {
  const double x = 0.75;
  CHECK(value({kl_estimator::k1}, x).first == x);
  CHECK(value({kl_estimator::absolute}, -x).first == x);
  CHECK(value({kl_estimator::k2}, x).first == Catch::Approx(x * x / 2).epsilon(1e-15));
  CHECK(value({}, x).first == Catch::Approx(std::exp(-x) - 1 + x).epsilon(1e-14));
  // exp(-x) - 1 + x by itself has no digit left here, in either type.
  for (const double small : {1e-3, 1e-5, 1e-12, -1e-5}) {
    const double want = small * small / 2 * (1 - small / 3 + small * small / 12);
    CHECK(value({}, small).first == Catch::Approx(want).epsilon(1e-9));
    CHECK(value({}, static_cast<float>(small)).first == Catch::Approx(want).epsilon(1e-5));
    CHECK(value({}, static_cast<float>(small)).second == Catch::Approx(small * (1 - small / 2)).epsilon(1e-5));
  }
  for (const double at : {0.5, -0.5}) {  // where the two forms meet
    const double beside = std::nextafter(at, 2 * at);
    CHECK(value({}, beside).first == Catch::Approx(value({}, at).first).epsilon(1e-14));
    CHECK(value({}, beside).second == Catch::Approx(value({}, at).second).epsilon(1e-14));
  }
  CHECK(value({kl_estimator::absolute}, 0.0).second == 0);
  // At a limit the gradient passes, beyond it does not.
  for (const double at : {2.0, -2.0}) {
    CHECK(value({.estimator = kl_estimator::k1, .limit = 2}, at).second == 1);
    CHECK(value({.estimator = kl_estimator::k1, .limit = 2}, 1.01 * at).second == 0);
    CHECK(value({.estimator = kl_estimator::k1, .limit = 2}, 1.01 * at).first == at);
    CHECK(value({.log_ratio_limit = 2}, 5 * at).first == Catch::Approx(value({}, at).first).epsilon(1e-15));
    CHECK(value({.log_ratio_limit = 2}, 5 * at).second == 0);
  }
}

TEST_CASE("kl: far log-ratios stay finite, NaN stays NaN") {
  for (const kl_estimator e : estimators) {
    CHECK(std::isfinite(value({e}, 1e4f).first));
    CHECK(std::isfinite(value({e}, 1e4f).second));
    if (e != kl_estimator::k3) CHECK(std::isfinite(value({e}, -1e4f).first));
    for (const bool through : {false, true}) {
      const kl_estimate limited{.estimator = e, .straight_through = through, .log_ratio_limit = 20, .limit = 10};
      CHECK(std::abs(value(limited, -1e4f).first) <= 10);
      CHECK(std::isfinite(value(limited, -1e4f).second));
      CHECK(std::isnan(value(limited, std::nan("")).first));
      CHECK(std::isnan(value(limited, std::nan("")).second));
      CHECK(std::isnan(value({.estimator = e, .straight_through = through}, std::nan("")).second));
    }
  }
  CHECK(std::isinf(value({}, -1e4f).first));  // e^10000 is what it is
}

TEST_CASE("kl: whose gradient an estimate has, on average over the policy's tokens") {
  // Policy and reference over three tokens; the gradient by the logits is sum_a p_a slope_a (onehot_a - p).
  const std::vector<double> logits{0.3, -0.8, 1.1}, ref_logits{-0.5, 0.6, 0.2};
  const auto logp = [](const std::vector<double>& z, std::size_t a) {
    double sum = 0;
    for (const double e : z) sum += std::exp(e);
    return z[a] - std::log(sum);
  };
  const auto gradient = [&](const kl_estimate& e, std::size_t j) {
    double sum = 0;
    for (std::size_t a = 0; a < 3; ++a)
      sum += std::exp(logp(logits, a)) * e(logp(logits, a), logp(ref_logits, a)).second * ((a == j) - std::exp(logp(logits, j)));
    return sum;
  };
  desk<double> d;
  double kl = 0;
  std::vector<double> exact(3);
  exact_kl(d.compute, d.scratch, {{logits.data(), 1, 3}, {ref_logits.data(), 1, 3}}, {kl, {exact.data(), 1, 3}});
  for (const auto e : {kl_estimator::k1, kl_estimator::k3}) {
    double mean = 0;
    for (std::size_t a = 0; a < 3; ++a) mean += std::exp(logp(logits, a)) * kl_estimate{e}(logp(logits, a), logp(ref_logits, a)).first;
    CHECK(mean == Catch::Approx(kl).epsilon(1e-14));  // both are unbiased
  }
  for (std::size_t j = 0; j < 3; ++j) {
    CHECK(gradient({kl_estimator::k1}, j) == Catch::Approx(0).margin(1e-15));
    CHECK(gradient({kl_estimator::k2}, j) == Catch::Approx(exact[j]).epsilon(1e-13));
    // That of KL(ref || policy).
    CHECK(gradient({kl_estimator::k3}, j) == Catch::Approx(std::exp(logp(logits, j)) - std::exp(logp(ref_logits, j))).epsilon(1e-13));
    // verl's k1+, k3+, which raise there.
    CHECK(gradient({kl_estimator::k1, true}, j) == Catch::Approx(exact[j]).epsilon(1e-13));
    CHECK(gradient({kl_estimator::k3, true}, j) == Catch::Approx(exact[j]).epsilon(1e-13));
  }
}

TEST_CASE("kl: what does not count, adding, order of sequences, metrics") {
  auto x = normal_numbers(12, 12, 1, -2), ref = normal_numbers(13, 12, 1, -2);
  for (std::size_t t = 0; t < 12; ++t)
    if (mask[t] == 0) x[t] = std::nan(""), ref[t] = -1e30;
  const kl_penalty_options o{.denominator = 8};
  const auto all = kl_penalty(x, ref, sequences, o);
  double sum = 0;
  for (std::size_t t = 0; t < 12; ++t) {
    const double kl = mask[t] ? kl_estimate{}(x[t], ref[t]).first : 0;
    sum += kl;
    CHECK(all.token_kl[t] == kl);
    if (mask[t] == 0) CHECK(all.d_logp[t] == 0);
  }
  CHECK(all.loss == Catch::Approx(sum / 8).epsilon(1e-14));
  CHECK(all.kl == Catch::Approx(sum / 8).epsilon(1e-14));
  CHECK(all.sequence_kl == Catch::Approx(sum / 2).epsilon(1e-14));  // the third has no scored token

  desk<double> d;
  double loss = 0;
  std::vector<double> gradient(12);
  for (index_t s : {2, 0, 1}) {
    const sequence_layout<> one{sequences.begin.slice(s, 1), sequences.end.slice(s, 1), sequences.scored};
    kl_penalty(d.compute, d.scratch, {x, ref, one}, o, {.loss = loss, .d_logp = gradient, .mode = write_mode::add});
  }
  CHECK(loss == Catch::Approx(all.loss).epsilon(1e-14));
  CHECK(gradient == all.d_logp);

  std::vector<double> kl(12), slope(12), kl_alone(12), slope_alone(12);
  token_kl(d.compute, d.scratch, {x, ref, sequences}, {}, {kl, slope});
  token_kl(d.compute, d.scratch, {x, ref, sequences}, {}, {.kl = kl_alone});
  token_kl(d.compute, d.scratch, {x, ref, sequences}, {}, {.d_logp = slope_alone});
  CHECK(kl == all.token_kl);
  CHECK(kl == kl_alone);
  CHECK(slope == slope_alone);
  x[3] = std::nan("");
  CHECK(std::isnan(kl_penalty(x, ref, sequences, o).loss));
}

TEST_CASE("kl: the exact divergence of logits") {
  const auto x = normal_numbers(14, 10), y = normal_numbers(15, 10);
  const auto sum = [&]<class T>(const std::vector<T>& at, T* gradient) {
    desk<T> d;
    const std::vector<T> ref(y.begin(), y.end());
    std::vector<T> kl(2);
    exact_kl(d.compute, d.scratch, {{at.data(), 2, 5}, {ref.data(), 2, 5}}, {kl, gradient != nullptr ? view<T, 2>(gradient, 2, 5) : view<T, 2>()});
    return kl[0] + kl[1];
  };
  std::vector<double> gradient(10);
  sum(x, gradient.data());
  check_gradient([&]<class T>(const std::vector<T>& at) { return sum(at, static_cast<T*>(nullptr)); }, x, gradient);
  // A token that the policy never takes adds nothing; one that the reference never takes costs everything.
  constexpr double inf = std::numeric_limits<double>::infinity();
  const std::vector<double> p{0, 0, -inf}, q{0, 0, 0};
  desk<double> d;
  double kl = 0;
  std::vector<double> g(3);
  exact_kl(d.compute, d.scratch, {{p.data(), 1, 3}, {q.data(), 1, 3}}, {kl, {g.data(), 1, 3}});
  CHECK(kl == Catch::Approx(std::log(1.5)).epsilon(1e-15));
  CHECK(g[2] == 0);
  exact_kl(d.compute, d.scratch, {{q.data(), 1, 3}, {p.data(), 1, 3}}, {.kl = kl});
  CHECK(kl == inf);
  // Vectors in, the same numbers out.
  const auto of_vectors = exact_kl(x, y, 5);
  CHECK(of_vectors.d_logits == gradient);
  CHECK(of_vectors.kl[0] + of_vectors.kl[1] == sum(x, static_cast<double*>(nullptr)));
  CHECK(refusal([&] { exact_kl(x, y, 3); }) ==
        "plumb: exact_kl: `logits` has 10 elements, which is no multiple of 3 tokens of the vocabulary. Nothing was written.");
  CHECK(refusal([&] { exact_kl(x, p, 5); }) == "plumb: exact_kl: argument `ref_logits` has 3 elements, but `logits` has 10. Nothing was written.");
}

TEST_CASE("kl: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(12), short_x(11), kl(12, 5);
  desk<double> on;
  const auto tokens = [&](const std::vector<double>& ref, const kl_estimate& e) {
    return refusal([&] { token_kl(on.compute, on.scratch, {x, ref, sequences}, e, {.kl = kl}); });
  };
  CHECK(tokens(short_x, {}) == "plumb: token_kl: argument `ref_logp` has 11 elements, but `logp` has 12. Nothing was written.");
  CHECK(tokens(x, {.limit = -1}) == "plumb: token_kl: option `limit` is -1 but must be 0 (no limit) or positive. Nothing was written.");
  CHECK(refusal([&] { kl_penalty(on.compute, on.scratch, {x, x, sequences}, {}, {.kl = kl}); }) ==
        "plumb: kl_penalty: option `denominator` is 0 but must be positive: the count that the loss of the whole global batch is divided by. Nothing was "
        "written.");
  CHECK(kl == std::vector<double>(12, 5));
}

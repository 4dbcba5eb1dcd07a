// Weights, rejection and statistics between sampler and trainer: by hand, against plain loops, in parts, extremes, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/importance.hpp>
#include <plumb/testing/memory.hpp>

#include <algorithm>
#include <functional>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;
using Catch::Approx;

namespace {

/// Three sequences of 12 tokens: with holes, without scored tokens, whole.
const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
const sequence_layout<> parts[] = {{view(begin).slice(0, 1), view(end).slice(0, 1), mask}, {view(begin).slice(1, 2), view(end).slice(1, 2), mask}};
const std::vector<double> zero(12);

/// Log-ratios; NaN where nothing counts.
std::vector<double> log_ratios(std::uint64_t seed, double scale = 0.5) {
  auto x = normal_numbers(seed, 12, scale);
  for (std::size_t t = 0; t < 12; ++t)
    if (mask[t] == 0) x[t] = std::nan("");
  return x;
}

/// Values of the metrics of a statistics op.
template <std::size_t K, class Op>
std::vector<double> values(const metric_info (&infos)[K], const Op& op) {
  std::vector<double> m(2 * K), y;
  op(view<double, 2>(m.data(), K, 2));
  for (std::size_t k = 0; k < K; ++k) y.push_back(metric_value(infos[k].kind, m[2 * k], m[2 * k + 1]));
  return y;
}

}  // namespace

TEST_CASE("importance: corrections of a ratio, at and beyond their bounds") {
  const correction::truncated truncated{.lower = 0.5, .upper = 2};
  const correction::masked masked{.lower = 0.5, .upper = 2};
  struct {
    double ratio, truncated, masked;
  } const table[] = {{0.4, 0.5, 0}, {0.5, 0.5, 0.5}, {1, 1, 1}, {2, 2, 2}, {2.5, 2, 0}, {INFINITY, 2, 0}, {0, 0.5, 0}};
  for (const auto& row : table) {
    CAPTURE(row.ratio);
    CHECK(truncated(row.ratio) == row.truncated);
    CHECK(masked(row.ratio) == row.masked);
    CHECK(correction::none{}(row.ratio) == row.ratio);
  }
  CHECK(std::isnan(truncated(std::nan(""))));
  CHECK(std::isnan(masked(std::nan(""))));
}

TEST_CASE("importance: weights of tokens and of sequences by hand") {
  std::vector<double> x(12, std::nan(""));
  x[1] = std::log(4), x[3] = std::log(0.5), x[4] = 0;  // product 2, geometric mean 2^(1/3)
  for (std::size_t t = 7; t < 12; ++t) x[t] = std::log(0.75);
  const double product = std::pow(0.75, 5);
  const auto tokens = importance_weights(x, zero, sequences);
  const auto sums = importance_weights(x, zero, sequences, correction::none{}, {.level = ratio_level::sequence_sum});
  const auto means = importance_weights(x, zero, sequences, correction::masked{.lower = 0.8, .upper = 2}, {.level = ratio_level::sequence_mean});
  const std::vector<double> of_tokens{0, 2, 0, 0.5, 1, 0, 0, 0.75, 0.75, 0.75, 0.75, 0.75};
  for (std::size_t t = 0; t < 12; ++t) {
    CAPTURE(t);
    const double counts = mask[t];
    CHECK(tokens.weights[t] == Approx(of_tokens[t]).epsilon(1e-15));
    CHECK(sums.weights[t] == Approx(counts * (t < 5 ? 2 : product)).epsilon(1e-14));
    CHECK(means.weights[t] == Approx(counts * (t < 5 ? std::cbrt(2) : 0)).epsilon(1e-14));
  }
  CHECK(tokens.weight == Approx((3.5 + 5 * 0.75) / 8).epsilon(1e-15));
  CHECK(tokens.changed == 1 / 8.0);
  CHECK(tokens.effective_sample_share == Approx(7.25 * 7.25 / (5.25 + 5 * 0.5625) / 8).epsilon(1e-14));
  CHECK(sums.weight == Approx((2 + product) / 2).epsilon(1e-14));  // the sequence without scored tokens is none
  CHECK(means.changed == 0.5);
}

TEST_CASE("importance: normalized weights have mean 1, in parts too") {
  const auto x = log_ratios(3);
  for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum, ratio_level::sequence_mean}) {
    const importance_options o{.level = level, .normalize = true};
    const auto whole = importance_weights(x, zero, sequences, correction::truncated{}, o);
    double sum = 0;
    for (std::size_t t = 0; t < 12; ++t) sum += level == ratio_level::token || t == 1 || t == 7 ? whole.weights[t] : 0;
    CHECK(sum == Approx(level == ratio_level::token ? 8 : 2).epsilon(1e-14));
    std::vector<double> weights(12), mean(2), got(12);
    desk<double> on;
    for (const auto& part : parts) {
      double m[5][2] = {};
      importance_weights(on.compute, on.scratch, {.logp = x, .sampler_logp = zero, .sequences = part}, correction::truncated{}, o,
                         {.metrics = view<double, 2>(&m[0][0], 5, 2)});
      for (std::size_t k = 0; k < 2; ++k) mean[k] += m[0][k];
    }
    for (const auto& part : parts) {
      importance_weights(on.compute, on.scratch, {.logp = x, .sampler_logp = zero, .batch_mean = mean, .sequences = part}, correction::truncated{}, o,
                         {.weights = weights});
      for (std::size_t t = 0; t < 12; ++t) got[t] += weights[t];
    }
    for (std::size_t t = 0; t < 12; ++t) CHECK(got[t] == Approx(whole.weights[t]).epsilon(1e-14));
  }
  std::vector<double> far(12, -9);  // all masked: 0 stays 0
  for (const double w : importance_weights(far, zero, sequences, correction::masked{}, {.normalize = true}).weights) CHECK(w == 0);
}

TEST_CASE("importance: extremes are finite in float, NaN stays NaN") {
  std::vector<float> x(12, 0), none(12, 0);
  x[1] = 1e4f, x[3] = -1e4f;
  for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum, ratio_level::sequence_mean}) {
    for (const float w : importance_weights(x, none, sequences, correction::truncated{}, {.level = level}).weights) CHECK(std::isfinite(w));
    for (const float w : importance_weights(x, none, sequences, correction::masked{}, {.level = level}).weights) CHECK(std::isfinite(w));
    for (const float w : importance_weights(x, none, sequences, correction::none{}, {.level = level, .log_ratio_limit = 20}).weights)
      CHECK(std::isfinite(w));
  }
  auto y = log_ratios(4);
  y[8] = std::nan("");
  const auto tokens = importance_weights(y, zero, sequences);
  for (std::size_t t = 0; t < 12; ++t) CHECK(std::isnan(tokens.weights[t]) == (t == 8));
  CHECK((std::isnan(tokens.weight) && std::isnan(tokens.changed) && std::isnan(tokens.effective_sample_share)));
  const auto whole = importance_weights(y, zero, sequences, correction::masked{}, {.level = ratio_level::sequence_sum});
  for (std::size_t t = 0; t < 12; ++t) CHECK(std::isnan(whole.weights[t]) == (t >= 7));
  // A mask cannot say NaN: the token stays, the metrics tell.
  const auto kept = reject_tokens(y, zero, sequences, rejection::k1{.lower = 1e-9, .upper = 1e9});
  CHECK(kept.scored == mask);
  CHECK((std::isnan(kept.rejected) && std::isnan(kept.rejected_sequences) && std::isnan(kept.divergence)));
}

TEST_CASE("importance: every criterion at every level, against a plain loop") {
  const auto check = [](const auto& criterion, const std::function<double(double)>& divergence, double least, double most) {
    for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum, ratio_level::sequence_mean, ratio_level::sequence_any})
      for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {
        CAPTURE(static_cast<int>(level), seed, most);
        const auto x = log_ratios(seed);
        std::vector<std::uint8_t> want = mask;
        double rejected = 0, sequences_hit = 0, sum_of_all = 0;
        for (std::size_t s = 0; s < 3; ++s) {
          double sum = 0, count = 0, worst = -INFINITY;
          bool any = false, hit = false;
          for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t)
            if (mask[t] != 0) {
              const double d = divergence(x[t]);
              sum += d, count += 1, worst = std::max(worst, d), any = any || d < least || d > most;
            }
          const double of_sequence = level == ratio_level::sequence_sum ? sum : level == ratio_level::sequence_mean ? sum / count : worst;
          if (count > 0) sum_of_all += level == ratio_level::token ? sum : of_sequence;
          for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) {
            if (mask[t] == 0) continue;
            const double d = level == ratio_level::token ? divergence(x[t]) : of_sequence;
            const bool out = level == ratio_level::sequence_any ? any : d < least || d > most;
            want[t] = !out;
            rejected += out, hit = hit || out;
          }
          sequences_hit += hit;
        }
        const auto y = reject_tokens(x, zero, sequences, criterion, {.level = level});
        CHECK(y.scored == want);
        CHECK(y.rejected == rejected / 8);
        CHECK(y.rejected_sequences == sequences_hit / 2);
        CHECK(y.divergence == Approx(sum_of_all / (level == ratio_level::token ? 8 : 2)).epsilon(1e-12));
      }
  };
  check(rejection::k1{.lower = 0.6, .upper = 1.5}, [](double x) { return -x; }, -std::log(1.5), -std::log(0.6));
  check(rejection::k2{.upper = 0.15}, [](double x) { return x * x / 2; }, -1, 0.15);
  check(rejection::k3{.upper = 0.2}, [](double x) { return std::expm1(x) - x; }, -1, 0.2);
}

TEST_CASE("importance: criteria one after the other, and a mask of sequences with weights of tokens") {
  const auto x = log_ratios(6);
  const rejection_options each{}, mean{.level = ratio_level::sequence_mean};
  const auto first = reject_tokens(x, zero, sequences, rejection::k2{.upper = 0.1}, each);
  const auto second = reject_tokens(x, zero, sequences, rejection::k1{.lower = 0.9, .upper = 2}, mean);
  std::vector<std::uint8_t> both(12);
  double m[5][2] = {};
  desk<double> on;
  reject_tokens(on.compute, on.scratch, {.logp = x, .sampler_logp = zero, .kept = first.scored, .sequences = sequences},
                rejection::k1{.lower = 0.9, .upper = 2}, mean, {both, view<double, 2>(&m[0][0], 5, 2)});
  double left = 0;
  for (std::size_t t = 0; t < 12; ++t) {
    CHECK(both[t] == (first.scored[t] & second.scored[t]));
    left += both[t];
  }
  CHECK(m[0][0] == 8 - left);
  CHECK(m[0][1] == 8);
  const sequence_layout<> of_second{begin, end, second.scored};
  const auto weights = importance_weights(x, zero, of_second, correction::none{});
  for (std::size_t t = 0; t < 12; ++t) CHECK(weights.weights[t] == (second.scored[t] != 0 ? std::exp(x[t]) : 0));
  // Rounding does not reject what is nearly equal: k3 is about 5e-19 here.
  const std::vector<double> near(12, 1e-9);
  CHECK(reject_tokens(near, zero, sequences, rejection::k3{.upper = 1e-18}).rejected == 0);
  CHECK(reject_tokens(near, zero, sequences, rejection::k3{.upper = 4e-19}).rejected == 1);
}

TEST_CASE("importance: statistics against plain loops, and of equal policies") {
  const auto logp = log_ratios(7, 1), sampler = log_ratios(8, 1);
  desk<double> on;
  const auto ratios = [&](const std::vector<double>& a, const std::vector<double>& b, const ratio_statistics_options& o) {
    return values(ratio_statistics_metrics, [&](view<double, 2> m) { ratio_statistics(on.compute, on.scratch, {a, b, sequences}, o, m); });
  };
  const auto distances = [&](const std::vector<double>& a, const std::vector<double>& b) {
    return values(off_policy_metrics, [&](view<double, 2> m) { off_policy_statistics(on.compute, on.scratch, {a, b, sequences}, {}, m); });
  };
  for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum, ratio_level::sequence_mean})
    CHECK(ratios(logp, logp, {.level = level}) == std::vector<double>{1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0});
  const auto same = distances(logp, logp);
  for (const std::size_t k : {4u, 5u, 6u, 7u, 9u, 10u, 11u, 12u}) CHECK(same[k] == 0);
  CHECK(same[8] == 1);

  std::vector<double> ratio, mean, gap, k3, square, square_of_sequence, perplexity;
  double kl = 0;
  for (const std::size_t s : {0u, 2u}) {
    double sum = 0, ours = 0, theirs = 0, count = 0, ratio_sum = 0;
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) {
      if (mask[t] == 0) continue;
      const double x = logp[t] - sampler[t];
      ratio.push_back(std::exp(x)), k3.push_back(std::expm1(x) - x), square.push_back(std::exp(2 * x) - 1);
      kl -= x / 8, sum += x, ours += logp[t], theirs += sampler[t], count += 1, ratio_sum += std::exp(x);
    }
    mean.push_back(ratio_sum / count), gap.push_back((theirs - ours) / count), square_of_sequence.push_back(std::exp(2 * sum) - 1);
    perplexity.push_back(std::exp(-ours / count));
  }
  const auto average = [](const std::vector<double>& x, const std::function<double(double)>& f) {
    double y = 0;
    for (const double e : x) y += f(e) / static_cast<double>(x.size());
    return y;
  };
  const auto itself = [](double x) { return x; };
  const auto squared = [](double x) { return x * x; };
  const auto clamped = [](double x) { return std::clamp(x, 0.7, 1.4); };
  const auto [low, high] = std::minmax_element(ratio.begin(), ratio.end());
  const auto is_low = [](double x) { return x < 0.7 ? 1.0 : 0.0; };
  const auto is_high = [](double x) { return x > 1.4 ? 1.0 : 0.0; };
  const std::vector<double> want{average(ratio, itself), *low, *high, average(ratio, is_low), average(ratio, is_high), average(ratio, clamped),
                                 average(ratio, [&](double x) { return squared(clamped(x)); }), average(mean, itself), average(mean, squared),
                                 std::min(mean[0], mean[1]), std::max(mean[0], mean[1]), std::max(std::abs(mean[0] - 1), std::abs(mean[1] - 1)),
                                 average(mean, is_low), average(mean, is_high)};
  const auto got = ratios(logp, sampler, {.lower = 0.7, .upper = 1.4});
  for (std::size_t k = 0; k < want.size(); ++k) {
    CAPTURE(ratio_statistics_metrics[k].name);
    CHECK(got[k] == Approx(want[k]).epsilon(1e-13).margin(1e-15));
  }
  CHECK(ratio_statistics(logp, sampler, sequences, {.lower = 0.7, .upper = 1.4}) == got);
  const auto far = distances(logp, sampler);
  CHECK(off_policy_statistics(logp, sampler, sequences) == far);
  struct {
    std::size_t row;
    double want;
  } const table[] = {{0, average(perplexity, itself)}, {4, average(gap, itself)}, {5, (std::abs(gap[0]) + std::abs(gap[1])) / 2},
                     {6, std::min(gap[0], gap[1])}, {7, std::max(gap[0], gap[1])}, {8, (std::exp(gap[0]) + std::exp(gap[1])) / 2},
                     {9, kl}, {10, average(k3, itself)}, {11, average(square, itself)}, {12, average(square_of_sequence, itself)}};
  for (const auto& row : table) {
    CAPTURE(off_policy_metrics[row.row].name);
    CHECK(far[row.row] == Approx(row.want).epsilon(1e-12));
  }

  // Parts merge to the whole.
  double m[2][13][2] = {}, whole[13][2] = {};
  for (std::size_t p = 0; p < 2; ++p) off_policy_statistics(on.compute, on.scratch, {logp, sampler, parts[p]}, {}, view<double, 2>(&m[p][0][0], 13, 2));
  off_policy_statistics(on.compute, on.scratch, {logp, sampler, sequences}, {}, view<double, 2>(&whole[0][0], 13, 2));
  merge_metrics(off_policy_metrics, view<double, 2>(&m[0][0][0], 13, 2), view<double, 2>(&m[1][0][0], 13, 2));
  for (std::size_t k = 0; k < 13; ++k) CHECK(m[0][k][0] == Approx(whole[k][0]).epsilon(1e-13));

}

TEST_CASE("importance: each op keeps to the workspace that it asks for") {
  const auto x = log_ratios(9);
  std::vector<double> m(28), w(12);
  std::vector<std::uint8_t> scored(12);
  serial::backend<double> b;
  const auto rows = [&](index_t k) { return view<double, 2>(m.data(), k, 2); };
  for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum}) {
    detail::host_call<double> ratios(ratio_statistics_workspace(b, sequences, 12)), distances(off_policy_statistics_workspace(b, sequences, 12));
    detail::host_call<double> plain(token_statistics_workspace(b, sequences, 12)), weights(importance_weights_workspace(b, sequences, 12));
    detail::host_call<double> rejects(reject_tokens_workspace(b, sequences, 12));
    ratio_statistics(b, ratios.scratch, {x, zero, sequences}, {.level = level}, rows(14));
    off_policy_statistics(b, distances.scratch, {x, zero, sequences}, {}, rows(13));
    token_statistics(b, plain.scratch, {x, sequences}, rows(4));
    importance_weights(b, weights.scratch, {x, zero, {}, sequences}, correction::none{}, {.level = level, .normalize = true}, {w, rows(5)});
    reject_tokens(b, rejects.scratch, {x, zero, {}, sequences}, rejection::k2{}, {.level = level}, {scored, rows(5)});
  }
}

TEST_CASE("importance: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(12), short_x(11), w(12, 5), one(1), m(28, 5);
  std::vector<std::uint8_t> scored(12, 5), short_mask(11);
  desk<double> on;
  const auto weights = [&](const importance_inputs<double>& in, const correction::truncated& f, const importance_options& o) {
    return refusal([&] { importance_weights(on.compute, on.scratch, in, f, o, {.weights = w}); });
  };
  const importance_inputs<double> good{.logp = x, .sampler_logp = x, .sequences = sequences};
  CHECK(weights({.logp = x, .sequences = sequences}, {}, {}) == "plumb: importance_weights: argument `sampler_logp` is not given. Nothing was written.");
  CHECK(weights({.logp = x, .sampler_logp = short_x, .sequences = sequences}, {}, {}) ==
        "plumb: importance_weights: argument `sampler_logp` has 11 elements, but `logp` has 12. Nothing was written.");
  CHECK(weights({.logp = x, .sampler_logp = x, .batch_mean = one, .sequences = sequences}, {}, {}) ==
        "plumb: importance_weights: argument `batch_mean` has shape [1], but its dimension 0 must be 2 (sum and count). Nothing was written.");
  CHECK(weights(good, {.lower = 3}, {}) ==
        "plumb: importance_weights: option `lower` is 3 but must be 0 (none) or positive, and at most `upper`. Nothing was written.");
  CHECK(weights(good, {}, {.level = ratio_level::sequence_any}) ==
        "plumb: importance_weights: option `level` is 3 but must be ratio_level::token, sequence_sum or sequence_mean. Nothing was written.");
  CHECK(weights(good, {}, {.log_ratio_limit = -1}) ==
        "plumb: importance_weights: option `log_ratio_limit` is -1 but must be 0 (none) or positive. Nothing was written.");
  CHECK(weights({.logp = w, .sampler_logp = x, .sequences = sequences}, {}, {}) ==
        "plumb: importance_weights: output `weights` overlaps `logp` in memory. Nothing was written.");
  const auto reject = [&](const rejection_inputs<double>& in, const auto& criterion) {
    return refusal([&] { reject_tokens(on.compute, on.scratch, in, criterion, {}, {.scored = scored}); });
  };
  CHECK(reject({x, x, {}, sequences}, rejection::k1{.lower = 0}) == "plumb: reject_tokens: option `lower` is 0 but must be positive. Nothing was written.");
  CHECK(reject({x, x, {}, sequences}, rejection::k3{.upper = -1}) == "plumb: reject_tokens: option `upper` is -1 but must be positive. Nothing was written.");
  CHECK(reject({x, x, short_mask, sequences}, rejection::k1{}) ==
        "plumb: reject_tokens: argument `kept` has 11 elements, but `logp` has 12. Nothing was written.");
  CHECK(reject({x, x, scored, sequences}, rejection::k1{}) == "plumb: reject_tokens: output `scored` overlaps `kept` in memory. Nothing was written.");
  const view<double, 2> rows(m.data(), 14, 2);
  CHECK(refusal([&] { off_policy_statistics(on.compute, on.scratch, {x, x, sequences}, {}, rows); }) ==
        "plumb: off_policy_statistics: argument `metrics` has shape [14, 2], but its dimension 0 must be 13 (the number of metrics). Nothing was written.");
  CHECK(refusal([&] { ratio_statistics(on.compute, on.scratch, {x, x, sequences}, {.upper = 0}, rows); }) ==
        "plumb: ratio_statistics: option `upper` is 0 but must be positive. Nothing was written.");
  CHECK(w == std::vector<double>(12, 5));
  CHECK(m == std::vector<double>(28, 5));
  CHECK(scored == std::vector<std::uint8_t>(12, 5));
  CHECK(refusal([&] { ratio_statistics(x, short_x, sequences); }) ==
        "plumb: ratio_statistics: argument `sampler_logp` has 11 elements, but `logp` has 12. Nothing was written.");
  CHECK(refusal([&] { off_policy_statistics(short_x, short_x, sequences); }) ==
        "plumb: off_policy_statistics: argument `scored` has shape [12], but its dimension 0 must be 11 (the number of tokens). Nothing was written.");
}

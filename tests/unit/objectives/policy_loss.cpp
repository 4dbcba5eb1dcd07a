// Policy-gradient loss: gradients of every surrogate at every level, values by hand, what is constant for the gradient, selections, refusals.
// The laws (masks, splits, permutations, NaN, extremes) are in laws/policy.cpp.
#include "support/gradients.hpp"

#include <plumb/objectives/policy_loss.hpp>
#include <plumb/testing/memory.hpp>

#include <algorithm>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Three sequences of 12 tokens: with holes, without scored tokens, whole.
const std::vector<std::int32_t> begin{0, 5, 7}, end{5, 7, 12};
const std::vector<std::uint8_t> mask{0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1};
const sequence_layout<> sequences{begin, end, mask};
constexpr std::size_t tokens = 12, first = 1, last = 11;

struct arrays {
  std::vector<double> logp = normal_numbers(1, tokens, 0.5, -1.5), old = normal_numbers(2, tokens, 0.5, -1.5),
                      advantages = normal_numbers(3, tokens),
                      ref = normal_numbers(4, tokens, 0.5, -1.5), weights = normal_numbers(5, tokens, 0.2, 1),
                      kl_weights = normal_numbers(6, tokens, 0.2, 1),
                      entropy = normal_numbers(7, tokens, 0.2, 1);
};

template <class T>
struct answer {
  T loss{};
  std::vector<T> d_logp = std::vector<T>(tokens), d_entropy = std::vector<T>(tokens), token_loss = std::vector<T>(tokens),
                 clipped = std::vector<T>(tokens), metrics = std::vector<T>(2 * std::size(policy_loss_metrics));
  T metric(std::size_t k) const { return metric_value(policy_loss_metrics[k].kind, metrics[2 * k], metrics[2 * k + 1]); }
};

/// Everything given; `logp` and `entropy` in `T`.
template <class T, class S>
answer<T> run(const arrays& x, const std::vector<T>& logp, const std::vector<T>& entropy, const S& surrogate, const policy_loss_options& o) {
  const auto cast = [](const std::vector<double>& v) { return std::vector<T>(v.begin(), v.end()); };
  const auto old = cast(x.old), advantages = cast(x.advantages), ref = cast(x.ref), weights = cast(x.weights), kl_weights = cast(x.kl_weights);
  desk<T> on;
  answer<T> y;
  policy_loss(on.compute, on.scratch,
              {.logp = logp, .old_logp = old, .advantages = advantages, .ref_logp = ref, .importance_weights = weights, .kl_weights = kl_weights,
               .entropy = entropy, .sequences = sequences},
              surrogate, o,
              {.loss = y.loss, .d_logp = y.d_logp, .d_entropy = y.d_entropy, .token_loss = y.token_loss, .clipped = y.clipped,
               .metrics = view<T, 2>(y.metrics.data(), index_t{std::size(policy_loss_metrics)}, 2)});
  return y;
}
template <class S>
answer<double> run(const arrays& x, const S& surrogate, const policy_loss_options& o) { return run(x, x.logp, x.entropy, surrogate, o); }

/// Derivatives by `logp` and by `entropy` against two oracles.
template <class S>
void check_both(const S& surrogate, policy_loss_options o, const arrays& x = {}) {
  if (o.kl_coefficient == 0) o.kl_coefficient = 0.2;  // what has a KL weight has a KL term
  o.denominator = 2.5;
  o.weight = -1.5;
  const auto y = run(x, surrogate, o);
  check_gradient([&]<class T>(const std::vector<T>& at) { return run(x, at, std::vector<T>(x.entropy.begin(), x.entropy.end()), surrogate, o).loss; },
                 x.logp, y.d_logp);
  check_gradient([&]<class T>(const std::vector<T>& at) { return run(x, std::vector<T>(x.logp.begin(), x.logp.end()), at, surrogate, o).loss; },
                 x.entropy, y.d_entropy);
}

void near(const std::vector<double>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i] == Catch::Approx(want[i]).epsilon(1e-13).margin(1e-14));
  }
}

}  // namespace

TEST_CASE("policy_loss: gradients by dual numbers and differences") {
  for (const surrogate_level level : {surrogate_level::token, surrogate_level::sequence_mean, surrogate_level::sequence_sum})
    for (const bool times_ratio : {false, true}) {
      const policy_loss_options o{.level = level,
                                  .kl_coefficient = 0.3,
                                  .kl_times_ratio = times_ratio,
                                  .entropy_coefficient = 0.2,
                                  .aggregate = times_ratio ? aggregation::sequence_mean : aggregation::token_mean};
      check_both(surrogate::ratio{}, o);
      check_both(surrogate::clip{.low = 0.1, .high = 0.2, .dual = 1.5}, o);
      check_both(surrogate::sapo{}, o);
      check_both(surrogate::gmpo{.low = 0.3, .high = 0.2}, o);
    }
  for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum})
    check_both(surrogate::reinforce{}, {.aggregate = a, .length_epsilon = a == aggregation::sequence_mean ? 0.1 : 0});
  // A token without an advantage moves GMPO's mean nowhere.
  arrays none;
  for (std::size_t t = 0; t < tokens; t += 3) none.advantages[t] = 0;
  check_both(surrogate::gmpo{.low = 0.3, .high = 0.2}, {}, none);
  // Log-ratios beyond the limits have no gradient, through the ratio of the KL term neither.
  check_both(surrogate::ratio{}, {.log_ratio_low = 0.3, .log_ratio_high = 0.2, .kl_coefficient = 0.3, .kl_times_ratio = true});
}

TEST_CASE("policy_loss: weights that are constants for the gradient") {
  arrays x;
  const policy_loss_options o{.kl_coefficient = 0.2, .denominator = 3};
  // CISPO and VESPO are REINFORCE with other weights.
  arrays weighted = x;
  for (std::size_t t = 0; t < tokens; ++t) weighted.weights[t] *= std::clamp(std::exp(x.logp[t] - x.old[t]), 0.7, 1.1);
  const auto cispo = run(x, surrogate::cispo{.low = 0.3, .high = 0.1}, o), as_reinforce = run(weighted, surrogate::reinforce{}, o);
  CHECK(cispo.loss == Catch::Approx(as_reinforce.loss).epsilon(1e-14));
  near(cispo.d_logp, as_reinforce.d_logp);

  weighted = x;
  for (std::size_t s = 0; s < begin.size(); ++s) {
    double sum = 0;
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) sum += mask[t] != 0 ? x.logp[t] - x.old[t] : 0;
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) {
      const bool negative = x.advantages[t] < 0;
      weighted.weights[t] *= std::exp((negative ? 3 : 2) * sum + (negative ? 2 : 3) * (1 - std::exp(sum)));
    }
  }
  const auto vespo = run(x, surrogate::vespo{}, o);
  near(vespo.d_logp, run(weighted, surrogate::reinforce{}, o).d_logp);

  // GSPO-token: the value of the sequence's ratio, and the gradient of a token's that happens to be the same.
  const auto token = run(x, surrogate::ratio{}, {.level = surrogate_level::sequence_token, .kl_coefficient = 0.2, .denominator = 3});
  arrays same = x;
  for (std::size_t s = 0; s < begin.size(); ++s) {
    double sum = 0, n = 0;
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t)
      if (mask[t] != 0) sum += x.logp[t] - x.old[t], ++n;
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) same.old[t] = x.logp[t] - (n > 0 ? sum / n : 0);
  }
  const auto of_tokens = run(same, surrogate::ratio{}, o);
  CHECK(token.loss == Catch::Approx(of_tokens.loss).epsilon(1e-13));
  const policy_loss_options of_means{.level = surrogate_level::sequence_mean, .kl_coefficient = 0.2, .denominator = 3};
  CHECK(token.loss == Catch::Approx(run(x, surrogate::ratio{}, of_means).loss).epsilon(1e-13));
  near(token.d_logp, of_tokens.d_logp);

  // On-policy: the ratio is 1, its gradient REINFORCE's.
  for (const auto level : {surrogate_level::token, surrogate_level::sequence_token, surrogate_level::sequence_sum}) {
    std::vector<double> d(tokens);
    const std::vector<double> same_for_all{2, 1, -1};
    desk<double> on;
    double loss = 0;
    policy_loss(on.compute, on.scratch, {.logp = x.logp, .sequence_advantages = same_for_all, .sequences = sequences}, surrogate::clip{},
                {.level = level, .aggregate = aggregation::sequence_mean, .denominator = 1}, {.loss = loss, .d_logp = d});
    CHECK(loss == Catch::Approx(-2 + 1).epsilon(1e-14));
    const double each = level == surrogate_level::sequence_sum ? 1 : 1 / 3.0;  // three scored tokens share, or each carries the whole
    CHECK(d[first] == Catch::Approx(-2 * each).epsilon(1e-14));
  }
}

TEST_CASE("policy_loss: surrogates by hand, at their bounds the documented side") {
  const surrogate::clip c{.low = 0.5, .high = 0.25, .dual = 3};
  const struct {
    double ratio, advantage, value, slope;
    bool low, high, cap;
  } rows[] = {
      {1, 2, -2, -2, false, false, false},   {1.2, 2, -2.4, -2.4, false, false, false}, {1.5, 2, -2.5, 0, false, true, false},
      {0.25, 2, -0.5, -0.5, false, false, false}, {0.25, -2, 1, 0, true, false, false}, {0.6, -2, 1.2, 1.2, false, false, false},
      {2, -2, 4, 4, false, false, false},    {4, -2, 6, 0, false, false, true},         {4, 0, 0, 0, false, false, false},
      {4, 2, -2.5, 0, false, true, false},
  };
  for (const auto& r : rows) {
    CAPTURE(r.ratio, r.advantage);
    const double at = std::log(r.ratio), a = r.advantage;
    const auto y = c(at, a);
    CHECK(y.first == Catch::Approx(r.value).epsilon(1e-15));
    CHECK(y.second == Catch::Approx(r.slope).epsilon(1e-15));
    CHECK((c.clipped_low(at, a) == 1) == r.low);
    CHECK((c.clipped_high(at, a) == 1) == r.high);
    CHECK((c.capped(at, a) == 1) == r.cap);
  }
  for (const double a : {-2.0, 2.0}) {  // at the bound the gradient passes
    CHECK(surrogate::clip{.low = 0, .high = 0}(0.0, a).second == -a);
    CHECK(surrogate::clip{.low = 0, .high = 0}.clipped_low(0.0, a) + surrogate::clip{.low = 0, .high = 0}.clipped_high(0.0, a) == 0);
  }
  const surrogate::gmpo g{.low = 0.5, .high = 0.25};
  CHECK(g.limited(0.25, 1.0).second == 1);
  CHECK(g.limited(0.3, 1.0).first == 0.25);
  CHECK(g.limited(0.3, 1.0).second == 0);
  CHECK(g.limited(-3.0, 1.0).first == -3);
  CHECK(g.limited(-0.75, -1.0).first == -0.5);
  for (const double l : {-0.75, -0.1, 0.3}) {  // neither sign: verl multiplies by sign(A)
    CHECK(g.limited(l, 0.0).first == 0);
    CHECK(g.limited(l, 0.0).second == 0);
  }
  CHECK(std::isnan(g.limited(std::nan(""), 0.0).first));
  CHECK(g.limited(0.3, -1.0).first == 0.3);
  CHECK(surrogate::sapo{}(0.0, 2.0).first == Catch::Approx(-2 * 2).epsilon(1e-15));  // 4/tau/2
  CHECK(surrogate::sapo{}(0.0, -2.0).second == Catch::Approx(2).epsilon(1e-15));      // as REINFORCE's at ratio 1
  CHECK(surrogate::vespo{}(0.0, 2.0) == -2);
  CHECK(surrogate::cispo{}(std::log(8.0), 2.0) == Catch::Approx(-2.4).epsilon(1e-15));
}

TEST_CASE("policy_loss: overflow and NaN stay where they belong") {
  const auto all = [](auto f) {
    f(surrogate::ratio{}), f(surrogate::clip{}), f(surrogate::clip{.dual = 3}), f(surrogate::cispo{}), f(surrogate::sapo{}), f(surrogate::vespo{}),
        f(surrogate::gmpo{}), f(surrogate::reinforce{});
  };
  all([](auto s) {
    using S = decltype(s);
    const auto number = [&](float l, float a) {
      if constexpr (detail::surrogate_of_logp<S>) {
        const float k = s(l, a);
        return two<float>{k, k};
      } else {
        return s(l, a);
      }
    };
    for (const float l : {-1e4f, 1e4f})
      for (const float a : {-1.f, 0.f, 1.f}) {
        CAPTURE(l, a);
        const bool unbounded = l > 0 && a != 0 && (std::is_same_v<S, surrogate::ratio> || std::is_same_v<S, surrogate::gmpo>);
        const bool open = l > 0 && a < 0 && std::is_same_v<S, surrogate::clip>;  // unless capped
        if (unbounded || open) continue;
        CHECK(std::isfinite(number(l, a).first));
        CHECK(std::isfinite(number(l, a).second));
      }
    const float nan = std::nanf("");
    CHECK(std::isnan(number(0, nan).first));
    CHECK(std::isnan(number(0, nan).second));
    if constexpr (!std::is_same_v<S, surrogate::reinforce>) {
      for (const float a : {-1.f, 0.f, 1.f}) {
        CHECK(std::isnan(number(nan, a).first));
        CHECK(std::isnan(number(nan, a).second));
      }
    }
  });
  CHECK(std::isfinite(surrogate::clip{.dual = 3}(1e4f, -1.f).first));
  // Weight 0 drops a token, whatever it holds; but its NaN shows in the metrics.
  arrays x;
  x.weights[first] = 0;
  const policy_loss_options o{.entropy_coefficient = 0.1, .denominator = 1};
  x.kl_weights.clear();
  const auto without = run(x, surrogate::ratio{}, o);
  x.advantages[first] = std::nan("");
  const auto y = run(x, surrogate::ratio{}, o);
  CHECK(y.loss == without.loss);
  CHECK(y.d_logp == without.d_logp);
  CHECK(y.d_logp[first] == 0);
  // On-policy, a NaN log-probability is not a ratio of 1.
  const std::vector<double> logp{std::nan(""), -1};
  const std::vector<std::int32_t> cu{0, 2};
  const std::vector<double> one{1};
  CHECK(std::isnan(policy_loss(logp, {.sequence_advantages = one, .sequences = sequence_layout<>::packed(cu)}, surrogate::clip{}).loss));
}

TEST_CASE("policy_loss: metrics and outputs per token") {
  arrays x;
  const surrogate::clip c{.low = 0.2, .high = 0.1, .dual = 1.2};
  const auto y = run(x, c, {.kl_coefficient = 0.5, .entropy_coefficient = 0.25, .denominator = 1});
  double n = 0, low = 0, high = 0, cap = 0, kl = 0, k3 = 0, size = 0, sum = 0, least = 1e9, most = 0, reference = 0, entropy = 0, loss = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    if (mask[t] == 0) {
      CHECK(y.token_loss[t] == 0);
      CHECK(y.clipped[t] == 0);
      continue;
    }
    const double l = x.logp[t] - x.old[t], r = std::exp(l), a = x.advantages[t], d = x.logp[t] - x.ref[t];
    const bool is_low = a < 0 && r < 0.8, is_high = a > 0 && r > 1.1, is_cap = a < 0 && r > 1.2;
    const double used = is_low ? 0.8 : is_high ? 1.1 : is_cap ? 1.2 : r, of_reference = x.kl_weights[t] * (std::exp(-d) - 1 + d);
    const double term = -x.weights[t] * used * a + 0.5 * of_reference - 0.25 * x.entropy[t];
    CHECK(y.token_loss[t] == Catch::Approx(term).epsilon(1e-13));
    CHECK(y.clipped[t] == (is_low || is_high ? 1 : 0));
    loss += term;
    ++n;
    low += is_low, high += is_high, cap += is_cap;
    kl -= l, k3 += r - 1 - l, size += std::abs(l), sum += r;
    least = std::min(least, r), most = std::max(most, r);
    reference += of_reference, entropy += x.entropy[t];
  }
  CHECK(low + high > 0);
  CHECK(cap > 0);
  CHECK(y.loss == Catch::Approx(loss).epsilon(1e-13));
  const double want[] = {(low + high) / n, low / n, high / n, cap / n, kl / n, k3 / n, size / n, sum / n, least, most, reference / n, entropy / n};
  for (std::size_t k = 0; k < std::size(policy_loss_metrics); ++k) {
    CAPTURE(policy_loss_metrics[k].name);
    CHECK(y.metric(k) == Catch::Approx(want[k]).epsilon(1e-12));
    CHECK(y.metrics[2 * k + 1] == n);
  }
}

// LUSPO: a sequence's term times its length is the sum over its tokens.
TEST_CASE("policy_loss: LUSPO, RLOO, and one reward per row") {
  arrays x;
  std::fill(x.weights.begin(), x.weights.end(), 1);
  const std::vector<double> each{2, 1, -1}, logp = x.logp, old = x.old;
  const auto loss = [&](surrogate_level level, aggregation a) {
    return policy_loss(logp, {.old_logp = old, .sequence_advantages = each, .sequences = sequences}, surrogate::ratio{},
                       {.level = level, .aggregate = a, .denominator = 2});
  };
  double sums[3] = {};
  const double lengths[] = {3, 0, 5};
  for (std::size_t s = 0; s < 3; ++s)
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) sums[s] += mask[t] != 0 ? logp[t] - old[t] : 0;
  const auto ratio = [&](std::size_t s, bool mean) { return std::exp(mean ? sums[s] / lengths[s] : sums[s]); };
  CHECK(loss(surrogate_level::sequence_mean, aggregation::sequence_sum).loss ==
        Catch::Approx(-(2 * 3 * ratio(0, true) - 5 * ratio(2, true)) / 2).epsilon(1e-13));
  const auto rloo = loss(surrogate_level::sequence_sum, aggregation::sequence_mean);
  CHECK(rloo.loss == Catch::Approx(-(2 * ratio(0, false) - ratio(2, false)) / 2).epsilon(1e-13));
  CHECK(rloo.d_logp[first] == Catch::Approx(-ratio(0, false)).epsilon(1e-13));
  CHECK(rloo.d_logp[last] == Catch::Approx(ratio(2, false) / 2).epsilon(1e-13));
  // NeMo-Aligner's REINFORCE takes rewards along the token axis when there is more than one row.
  const auto plain = policy_loss(logp, {.sequence_advantages = each, .sequences = sequences}, surrogate::reinforce{}, {.denominator = 8});
  CHECK(plain.d_logp[first] == Catch::Approx(-2.0 / 8).epsilon(1e-15));
  CHECK(plain.d_logp[last] == Catch::Approx(1.0 / 8).epsilon(1e-15));
  CHECK(std::isnan(plain.kl));
  // Nothing in, nothing out.
  const std::vector<double> none;
  const std::vector<std::int32_t> nobody{0};
  CHECK(policy_loss(none, {.sequences = sequence_layout<>::packed(nobody)}, surrogate::clip{}).loss == 0);
}

// TRL's LUSPO with ratios of tokens, or with a KL term, averages over the columns; its VESPO sums the sampler's log-ratios of padding into the row's.
TEST_CASE("policy_loss: LUSPO and VESPO do not see padding, however wide it is") {
  const std::vector<double> advantage{2, -1}, logp{-1, -0.5, -2, -1.5, -0.7}, old{-1.2, -0.9, -1.6, -1.4, -1}, ref{-1.1, -0.8, -2.2, -1, -0.9};
  const std::vector<std::int32_t> cu{0, 3, 5};
  const std::size_t lengths[] = {3, 2};
  const policy_loss_options luspo{.kl_coefficient = 0.3, .aggregate = aggregation::sequence_sum, .denominator = 2};
  const policy_loss_options vespo{.log_ratio_low = 18, .log_ratio_high = 20, .denominator = 5};
  const surrogate::clip clip{.low = 0.1, .high = 0.1};
  // By hand: tokens that are there.
  double of_luspo = 0, of_vespo = 0;
  for (std::size_t s = 0, t = 0; s < 2; ++s) {
    double sum = 0, logps = 0;
    for (std::size_t i = 0; i < lengths[s]; ++i, ++t) {
      const double d = logp[t] - ref[t];
      of_luspo += (clip(logp[t] - old[t], advantage[s]).first + 0.3 * (std::exp(-d) - 1 + d)) / 2;
      sum += logp[t] - old[t], logps += logp[t];
    }
    of_vespo += surrogate::vespo{}(sum, advantage[s]) * logps / 5;
  }
  for (const std::size_t columns : {3u, 4u, 9u})
    for (const double padding : {0.0, 1.0, -50.0, std::nan("")}) {
      CAPTURE(columns, padding);
      std::vector<std::int32_t> from(2), to(2);
      padded_bounds(static_cast<index_t>(columns), from, to);
      std::vector<std::uint8_t> counts;
      std::vector<std::size_t> place;
      for (std::size_t s = 0; s < 2; ++s)
        for (std::size_t i = 0; i < columns; ++i) {
          counts.push_back(i < lengths[s]);
          if (i < lengths[s]) place.push_back(s * columns + i);
        }
      const auto padded = [&](const std::vector<double>& x) {
        std::vector<double> y(2 * columns, padding);
        for (std::size_t t = 0; t < 5; ++t) y[place[t]] = x[t];
        return y;
      };
      const auto p = padded(logp), o = padded(old), r = padded(ref);
      const auto check = [&](const auto& surrogate, policy_loss_options options, double want) {
        policy_loss_inputs<double> wide{.old_logp = o, .sequence_advantages = advantage, .ref_logp = r, .sequences = {from, to, counts}},
            narrow{.old_logp = old, .sequence_advantages = advantage, .ref_logp = ref, .sequences = sequence_layout<>::packed(cu)};
        const auto y = policy_loss(p, wide, surrogate, options), z = policy_loss(logp, narrow, surrogate, options);
        CHECK(y.loss == Catch::Approx(want).epsilon(1e-13));
        CHECK(y.loss == z.loss);
        for (std::size_t t = 0; t < 5; ++t) CHECK(y.d_logp[place[t]] == z.d_logp[t]);
        for (std::size_t t = 0; t < y.d_logp.size(); ++t)
          if (counts[t] == 0) CHECK(y.d_logp[t] == 0);
      };
      check(clip, luspo, of_luspo);
      check(surrogate::vespo{}, vespo, of_vespo);
    }
}

// verl's geo_mean counts a log-ratio outside of either bound, whatever the advantage's sign, though only one of them limits it.
TEST_CASE("policy_loss: GMPO counts as clipped what its clip limits, and nothing else") {
  const std::vector<double> logp{-1, -2, -1, -2, -1.5}, old{-1.5, -1.5, -1.5, -1.5, -1.5}, advantages{1, 1, -1, -1, 1};
  const std::vector<std::int32_t> each{0, 1, 2, 3, 4, 5};  // a sequence for each token, so that each has its own slope
  const auto layout = sequence_layout<>::packed(each);
  const surrogate::gmpo g{.low = 0.3, .high = 0.3};
  desk<double> on;
  std::vector<double> d(5), clipped(5), metrics(24);
  policy_loss(on.compute, on.scratch, {.logp = logp, .old_logp = old, .advantages = advantages, .sequences = layout}, g, {.denominator = 1},
              {.d_logp = d, .clipped = clipped, .metrics = view<double, 2>(metrics.data(), 12, 2)});
  CHECK(clipped == std::vector<double>{1, 0, 0, 1, 0});  // of four outside of the bounds
  for (std::size_t t = 0; t < 5; ++t) CHECK((d[t] == 0) == (clipped[t] == 1));
  const double want[] = {2, 1, 1};  // clip_fraction, clip_low, clip_high
  for (std::size_t k = 0; k < 3; ++k) CHECK(metrics[2 * k] == want[k]);
  CHECK(metrics[1] == 5);
}

TEST_CASE("policy_loss: with just the bytes that its workspace says, whatever is asked for") {
  arrays x;
  const std::vector<double> each{2, 1, -1};
  serial::backend<double> compute;
  const auto with = [&](const auto& surrogate, const policy_loss_options& o, bool of_sequences, bool gradient, write_mode mode) {
    std::vector<double> d(tokens), metrics(24), answers[2];
    double loss = 0;
    policy_loss_inputs<double> in{.logp = x.logp, .old_logp = x.old, .ref_logp = x.ref, .sequences = sequences};
    (of_sequences ? in.sequence_advantages : in.advantages) = of_sequences ? view<const double, 1>(each) : view<const double, 1>(x.advantages);
    policy_loss_outputs<double> out{.loss = loss, .metrics = view<double, 2>(metrics.data(), 12, 2), .mode = mode};
    if (gradient) out.d_logp = d;
    const std::size_t most = policy_loss_workspace(compute, sequences, tokens), just = policy_loss_workspace(compute, in, surrogate, o, out);
    CHECK(just <= most);
    for (const std::size_t i : {0u, 1u}) {
      std::vector<char> memory(i == 0 ? just : most);
      arena<> scratch(memory);
      loss = 1;
      d.assign(tokens, 1);
      policy_loss(compute, scratch, in, surrogate, o, out);
      answers[i] = {loss};
      answers[i].insert(answers[i].end(), d.begin(), d.end());
      answers[i].insert(answers[i].end(), metrics.begin(), metrics.end());
    }
    CHECK(answers[0] == answers[1]);
    return answers[0][0];
  };
  for (const bool of_sequences : {false, true})
    for (const surrogate_level level : {surrogate_level::token, surrogate_level::sequence_mean})
      for (const double coefficient : {0.0, 0.1}) {
        const policy_loss_options o{.level = level, .kl_coefficient = coefficient, .kl_times_ratio = true, .denominator = 8};
        const auto modes = [&](const auto& s) {
          const double written = with(s, o, of_sequences, true, write_mode::overwrite);
          CHECK(with(s, o, of_sequences, false, write_mode::overwrite) == written);
          CHECK(with(s, o, of_sequences, true, write_mode::add) == Catch::Approx(1 + written).epsilon(1e-14));
        };
        modes(surrogate::clip{});
        modes(surrogate::cispo{});
        modes(surrogate::gmpo{});
      }
}

TEST_CASE("policy_loss: what is refused, in a sentence, with nothing written") {
  std::vector<double> x(12), short_x(11), each(3), d(12, 5);
  desk<double> on;
  const auto refused = [&](const policy_loss_inputs<double>& in, const policy_loss_options& o, const surrogate::clip& s = {}) {
    return refusal([&] { policy_loss(on.compute, on.scratch, in, s, o, {.d_logp = d}); });
  };
  const policy_loss_inputs<double> good{.logp = x, .old_logp = x, .advantages = x, .sequences = sequences};
  auto in = good;
  in.sequence_advantages = each;
  CHECK(refused(in, {.denominator = 1}) ==
        "plumb: policy_loss: `advantages` and `sequence_advantages` are both given, but only one can count. Nothing was written.");
  in = good;
  in.advantages = {};
  CHECK(refused(in, {.denominator = 1}) ==
        "plumb: policy_loss: argument `advantages` is not given, and neither is `sequence_advantages`. Nothing was written.");
  in = good;
  in.old_logp = short_x;
  CHECK(refused(in, {.denominator = 1}) == "plumb: policy_loss: argument `old_logp` has 11 elements, but `logp` has 12. Nothing was written.");
  in = good;
  in.advantages = {};
  in.sequence_advantages = x;
  CHECK(refused(in, {.denominator = 1}) ==
        "plumb: policy_loss: argument `sequence_advantages` has shape [12], but its dimension 0 must be 3 (the number of sequences). Nothing was written.");
  CHECK(refused(good, {.kl_coefficient = 0.1, .denominator = 1}) ==
        "plumb: policy_loss: argument `ref_logp` is not given, but `kl_coefficient` is 0.1. Nothing was written.");
  in = good;
  in.ref_logp = in.kl_weights = x;
  CHECK(refused(in, {.denominator = 1}) ==
        "plumb: policy_loss: argument `kl_weights` is given, but `kl_coefficient` is 0: there is no KL term to weigh. Nothing was written.");
  const auto of_reinforce = [&](const policy_loss_options& o) {
    return refusal([&] { policy_loss(on.compute, on.scratch, in, surrogate::reinforce{}, o, {.loss = view(d).slice(0, 1)}); });
  };
  in.kl_weights = {};
  CHECK(of_reinforce({.level = surrogate_level::sequence_mean, .denominator = 1}) ==
        "plumb: policy_loss: option `level` says of which ratio, but neither this surrogate nor the KL term looks at a ratio. Nothing was written.");
  CHECK(d == std::vector<double>(12, 5));
  CHECK(of_reinforce({.level = surrogate_level::token, .denominator = 1}) == "(it was not refused)");
  CHECK(of_reinforce({.level = surrogate_level::sequence_mean, .kl_coefficient = 0.1, .kl_times_ratio = true, .denominator = 1}) ==
        "(it was not refused)");
  d.assign(12, 5);
  CHECK(refused(good, {.entropy_coefficient = 0.1, .denominator = 1}) == "plumb: policy_loss: argument `entropy` is not given. Nothing was written.");
  CHECK(refused(good, {.log_ratio_high = -1, .denominator = 1}) ==
        "plumb: policy_loss: option `log_ratio_high` is -1 but must be 0 (no limit) or positive. Nothing was written.");
  CHECK(refused(good, {.level = static_cast<surrogate_level>(5), .denominator = 1}) ==
        "plumb: policy_loss: option `level` is 5 but must be a surrogate_level. Nothing was written.");
  CHECK(refused(good, {.denominator = 1}, {.dual = 0.5}) ==
        "plumb: policy_loss: option `dual` is 0.5 but must be 0 (off) or above 1. Nothing was written.");
  CHECK(refused(good, {}) ==
        "plumb: policy_loss: option `denominator` is 0 but must be positive: the count that the loss of the whole global batch is divided by. Nothing "
        "was written.");
  CHECK(d == std::vector<double>(12, 5));
  std::vector<char> little(100);
  arena<> small(little);
  CHECK(refusal([&] { policy_loss(on.compute, small, good, surrogate::clip{}, {.denominator = 1}, {.d_logp = d}); }).find("policy_loss_workspace asks for") !=
        std::string::npos);
}

// The laws of reward models: pairs, attributes, steps, the head; and of what is done to rewards before they are learned from.
#include "support/laws.hpp"

#include <plumb/objectives/attribute_regression.hpp>
#include <plumb/objectives/bradley_terry.hpp>
#include <plumb/objectives/helpsteer.hpp>
#include <plumb/objectives/process_reward.hpp>
#include <plumb/ops/reward_head.hpp>
#include <plumb/ops/reward_shaping.hpp>

using namespace plumb;
using namespace plumb_test;
using laws::law;

namespace {

constexpr auto reward = +[](double x) { return 2 * x; };
constexpr auto size = +[](double x) { return 0.5 + x * x; };  // above 0: stays at extremes
constexpr auto rating = +[](double x) { return x < -0.8 ? -100 : 2 * x; };
constexpr auto verdict = +[](double x) { return x < -0.7 ? 0.0 : x > 0.7 ? 1.0 : 0.5 + 0.5 * x; };
constexpr auto yes_or_no = +[](double x) { return x < 0.3 ? 1.0 : 0.0; };

/// Items that stand for themselves: a "token" is a pair, a reply or a step, and counts where `valid` (or its label) says so.
template <class F>
laws::subject items(const char* name, std::vector<double (*)(double)> arrays, std::size_t gradients, F f) {
  laws::subject s{.name = name, .tokens = std::move(arrays)};
  laws::runs(s, f, {.tokens = gradients});
  s.lacks[law::reference] = "a reward has no reference";
  return s;
}
void exchanged(laws::subject& s, std::function<void(const laws::run&, const laws::batch&, const laws::answer&, double)> f) {
  s.exchange = std::move(f);
  s.lacks.erase(law::exchange);
}
/// `label` where an item counts, else `missing`.
template <class C, class T>
std::vector<T> judged(const C& c, std::vector<T> label, T missing) {
  for (std::size_t i = 0; i < label.size(); ++i)
    if (c.valid[i] == 0) label[i] = missing;
  return label;
}

laws::subject pairs(const char* name, bool with_margin, bool with_scale, double center) {
  auto s = items(name, {reward, reward, size, size}, 3, [=](auto& c) {
    using V = view<const std::remove_cvref_t<decltype(c.loss)>, 1>;
    bradley_terry(c.compute, c.scratch,
                  {.chosen = c.tokens[0], .rejected = c.tokens[1], .margin = with_margin ? V(c.tokens[2]) : V(),
                   .scale = with_scale ? V(c.tokens[3]) : V(), .valid = c.valid},
                  {.center_coefficient = center, .denominator = c.denominator},
                  {.loss = c.loss, .d_chosen = c.d_tokens[0], .d_rejected = c.d_tokens[1], .d_margin = c.d_tokens[2],
                   .metrics = c.metrics_of(std::size(bradley_terry_metrics)), .mode = c.mode});
  });
  if (!with_margin) s.outside_loss.push_back(2);
  if (!with_scale) s.outside_loss.push_back(3);
  if (with_margin) {
    s.lacks[law::exchange] = "a margin is the chosen side's";
    return s;
  }
  // The two losses differ by the gap, -log sigmoid(z) + log sigmoid(-z) = -z, and the centring term is the same for both.
  exchanged(s, [=](const laws::run& f, const laws::batch& b, const laws::answer& want, double tolerance) {
    laws::batch other = b;
    std::swap(other.tokens[0], other.tokens[1]);
    const laws::answer got = f(other, laws::denominator, {});
    double gap = 0;
    for (std::size_t t = 0; t < b.length(); ++t) {
      if (!b.counts(t)) continue;
      const double weight = (with_scale ? b.tokens[3][t] : 1) / laws::denominator, both = b.tokens[0][t] + b.tokens[1][t];
      gap += weight * (b.tokens[0][t] - b.tokens[1][t]);
      CHECK(laws::near(got.d_tokens[1][t] - want.d_tokens[0][t], weight, tolerance));
      CHECK(laws::near(got.d_tokens[0][t] + want.d_tokens[0][t] + got.d_tokens[1][t] + want.d_tokens[1][t], 8 * center / laws::denominator * both,
                       8 * tolerance));
    }
    CHECK(laws::near(got.loss - want.loss, gap, 8 * tolerance));
    CHECK(laws::near(got.metrics[2 * 1], -want.metrics[2 * 1], tolerance));  // the margin
  });
  return s;
}

}  // namespace

TEST_CASE("laws: Bradley-Terry") {
  for (const double center : {0.0, 0.01}) {
    laws::check(pairs("bradley_terry", false, false, center));
    laws::check(pairs("bradley_terry with margin", true, false, center));
    laws::check(pairs("bradley_terry, scaled", false, true, center));
    laws::check(pairs("bradley_terry, scaled, with margin", true, true, center));
  }
}

TEST_CASE("laws: Bradley-Terry of rated pairs") {
  for (const strength_use use : {strength_use::ignored, strength_use::margin, strength_use::scale})
    for (const bool ties : {false, true}) {
      auto s = items("rated_bradley_terry", {reward, reward, rating}, 2, [=](auto& c) {
        using T = std::remove_cvref_t<decltype(c.loss)>;
        const auto strength = judged(c, c.tokens[2], T(-100));
        rated_bradley_terry(c.compute, c.scratch, {.first = c.tokens[0], .second = c.tokens[1], .strength = strength},
                            {.use = use, .ties_to_second = ties, .loss = {.center_coefficient = 0.01, .denominator = c.denominator}},
                            {.loss = c.loss, .d_first = c.d_tokens[0], .d_second = c.d_tokens[1],
                             .metrics = c.metrics_of(std::size(bradley_terry_metrics)), .mode = c.mode});
      });
      s.all_enter = false;  // not every pair is rated
      // The other reply first, with the strength the other way round: the same loss.
      exchanged(s, [](const laws::run& f, const laws::batch& b, const laws::answer& want, double) {
        laws::batch other = b;
        std::swap(other.tokens[0], other.tokens[1]);
        for (double& x : other.tokens[2])
          if (x != -100) x = -x;
        laws::answer got = f(other, laws::denominator, {});
        std::swap(got.d_tokens[0], got.d_tokens[1]);
        laws::check_same_bits(got, want);
      });
      laws::check(s);
    }
}

TEST_CASE("laws: attribute regression") {
  auto s = items("attribute_regression", {reward, reward, rating, rating}, 2, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const auto n = static_cast<index_t>(c.valid.size());
    auto labels = c.tokens;
    for (const std::size_t a : {2u, 3u}) labels[a] = judged(c, labels[a], T(-100));
    const auto prediction = c.table(c.tokens, 0, 2), label = c.table(labels, 2, 2);
    auto gradient = c.table(c.d_tokens, 0, 2);
    attribute_regression(c.compute, c.scratch,
                         {.prediction = view<const T, 2>(prediction.data(), n, 2), .label = view<const T, 2>(label.data(), n, 2)},
                         {.denominator = c.denominator},
                         {.loss = c.loss, .d_prediction = view<T, 2>(gradient.data(), n, 2), .metrics = c.metrics_of(2), .mode = c.mode});
    c.untable(gradient, c.d_tokens, 0, 2);
  });
  s.all_enter = false;  // not every attribute is rated
  // Prediction and label are the two sides of a square.
  exchanged(s, [](const laws::run& f, const laws::batch& b, const laws::answer&, double) {
    laws::batch rated = b;
    for (const std::size_t a : {2u, 3u})
      for (double& x : rated.tokens[a]) x = x == -100 ? 0.25 : x;
    laws::batch other = rated;
    for (const std::size_t a : {0u, 1u}) std::swap(other.tokens[a], other.tokens[a + 2]);
    const laws::answer want = f(rated, laws::denominator, {}), got = f(other, laws::denominator, {});
    CHECK(laws::same_bits(got.loss, want.loss));
    for (std::size_t a = 0; a < 2; ++a)
      for (std::size_t t = 0; t < b.length(); ++t) CHECK(got.d_tokens[a][t] == -want.d_tokens[a][t]);
  });
  laws::check(s);
}

TEST_CASE("laws: process rewards") {
  auto s = items("process_reward", {reward, reward, verdict}, 2, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const auto label = judged(c, c.tokens[2], T(-100));
    process_reward(c.compute, c.scratch, {.good = c.tokens[0], .bad = c.tokens[1], .label = label}, {.denominator = c.denominator},
                   {.loss = c.loss, .d_good = c.d_tokens[0], .d_bad = c.d_tokens[1], .metrics = c.metrics_of(std::size(process_reward_metrics)),
                    .mode = c.mode});
  });
  // What was good is bad, with what spoke for it.
  exchanged(s, [](const laws::run& f, const laws::batch& b, const laws::answer& want, double tolerance) {
    laws::batch other = b;
    std::swap(other.tokens[0], other.tokens[1]);
    for (double& x : other.tokens[2]) x = 1 - x;
    const laws::answer got = f(other, laws::denominator, {});
    CHECK(laws::near(got.loss, want.loss, tolerance));
    CHECK(laws::near(got.d_tokens[0], want.d_tokens[1], tolerance));
    CHECK(laws::near(got.d_tokens[1], want.d_tokens[0], tolerance));
    CHECK(laws::near(got.metrics[0], want.metrics[0], tolerance));  // accuracy
    CHECK(laws::near(got.metrics[2], want.metrics[3] - want.metrics[2], tolerance));
  });
  laws::check(s);
}

TEST_CASE("laws: the head of a reward model") {
  enum { last_token, mean_of_tokens, each_token };
  for (const int mode : {last_token, mean_of_tokens, each_token}) {
    CAPTURE(mode);
    laws::subject s{.name = "reward_head", .tokens = {reward, reward, reward}, .per_sequence = {reward}};
    const auto f = [=](auto& c) {
      // The loss is the rewards' sum, each times a number given: the gradients are those of the head.
      using T = std::remove_cvref_t<decltype(c.loss)>;
      const auto n = static_cast<index_t>(c.valid.size()), width = index_t{3};
      const std::vector<T> head{T(0.5), T(-1), T(0.25), T(1), T(0.75), T(-0.5)}, bias{T(0.125), T(-0.25)}, merge{T(0.75), T(-0.5)};
      const auto hidden = c.table(c.tokens, 0, 3);
      auto d_hidden = c.table(c.d_tokens, 0, 3);
      std::vector<std::int32_t> rows(static_cast<std::size_t>(mode == last_token ? c.layout.sequences() : n));
      if (mode == last_token) last_scored_rows(c.layout, n, rows);
      for (std::size_t t = 0; mode == each_token && t < rows.size(); ++t) rows[t] = c.valid[t] != 0 ? static_cast<std::int32_t>(t) : -1;
      const bool pooled = mode == mean_of_tokens;
      const reward_head_inputs<T, T> in{.hidden = view<const T, 2>(hidden.data(), n, width), .head = view<const T, 2>(head.data(), 2, width),
                                        .bias = bias, .rows = pooled ? view<const std::int32_t, 1>() : view<const std::int32_t, 1>(rows),
                                        .sequences = pooled ? c.layout : sequence_layout<>(), .attribute_weights = merge};
      const reward_head_options o{.mean = 0.25, .standard_deviation = 2, .chunk_rows = 4};
      std::vector<T> d_reward = mode == each_token ? std::vector<T>(rows.size(), T(1)) : c.per_sequence[0];
      for (T& x : d_reward) x /= static_cast<T>(c.denominator);
      std::vector<T> made(d_reward.size());
      reward_head(c.compute, c.scratch, in, o, {.reward = made});
      for (std::size_t i = 0; i < made.size(); ++i) {
        const bool counts = mode == each_token ? c.valid[i] != 0 : c.members[i] != 0;
        if (counts) {
          c.loss += made[i] * d_reward[i];
        } else {
          CHECK(made[i] == T(-0.125));  // 0, standardized
          d_reward[i] = std::numeric_limits<T>::quiet_NaN();
        }
      }
      const view<T, 2> d_rows(d_hidden.data(), n, width), d_head(c.shared.data(), 2, width);
      const view<T, 1> d_bias(c.shared.data() + 6, index_t{2});
      reward_head_backward(c.compute, c.scratch, in, o, {.d_reward = d_reward},
                           {.d_hidden = d_rows, .d_head = d_head, .d_bias = d_bias, .mode = c.mode});
      c.untable(d_hidden, c.d_tokens, 0, 3);
    };
    laws::runs(s, f, {.tokens = 3, .shared = 8});
    s.all_enter = mode != last_token;
    s.leaves_out = true;
    s.lacks[law::reference] = "a reward has no reference";
    s.lacks[law::exchange] = "a reply has one side";
    laws::check(s);
  }
}

TEST_CASE("laws: merged, rounded and standardized rewards") {
  laws::subject s{.name = "goal_reward", .per_sequence = {reward, reward}};
  laws::runs(s, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const auto n = c.layout.sequences();
    const std::vector<T> weights{T(0.75), T(-0.5)}, moments{4, T(0.5), 3};
    const auto prediction = c.table(c.per_sequence, 0, 2);
    const view<const T, 2> in(prediction.data(), n, 2);
    std::vector<T> rounded(prediction.size());
    goal_reward(c.compute, c.scratch, in, weights, {.mean = 0.25, .standard_deviation = 2}, c.d_per_sequence[0]);
    standardize_rewards(c.compute, c.per_sequence[0], moments, {}, c.d_per_sequence[1]);
    round_ratings(c.compute, in, {}, view<T, 2>(rounded.data(), n, 2));
    c.untable(rounded, c.d_per_sequence, 2, 2);
  }, {.per_sequence = 4});
  s.has_loss = false;
  s.lacks[law::nothing] = "every reply counts";
  s.lacks[law::reference] = "a reward has no reference";
  s.lacks[law::exchange] = "a reply has one side";
  laws::check(s);
}

namespace {
template <class Rule>
void check_shaping(const char* name, Rule rule) {
  laws::subject s{.name = name, .per_sequence = {reward, size, yes_or_no}};
  laws::runs(s, [=](auto& c) {
    std::vector<std::uint8_t> truncated;
    for (const auto x : c.per_sequence[2]) truncated.push_back(x > 0);
    shape_rewards(c.compute, c.scratch, {.rewards = c.per_sequence[0], .lengths = c.per_sequence[1], .truncated = truncated}, rule,
                  c.d_per_sequence[0]);
  }, {.per_sequence = 1});
  s.has_loss = false;
  s.sequence_choices = {2};
  s.lacks[law::nothing] = "every reply counts";
  s.lacks[law::reference] = "a reward has no reference";
  s.lacks[law::exchange] = "a reply has one side";
  laws::check(s);
}
}  // namespace

TEST_CASE("laws: shaped rewards") {
  check_shaping("overlong", shaping::overlong{.max_length = 3, .buffer = 2});
  check_shaping("scale_truncated", shaping::scale_truncated{.factor = 0.5});
  check_shaping("fix_truncated", shaping::fix_truncated{.reward = -1});
  check_shaping("clip", shaping::clip{});
  check_shaping("kl_penalty", shaping::kl_penalty{.coefficient = 0.1});
}

// Best of n: its expectation against counting, its KL against an enumerated one; what is kept; the update against its own difference quotient.
#include "support/written_texts.hpp"

#include <plumb/algorithms/best_of_n.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

using backend = serial::backend<double>;

// The mean over all subsets of n replies of the value of the best; equals share.
double by_counting(const std::vector<double>& score, const std::vector<double>& value, std::size_t n) {
  double sum = 0, count = 0;
  for (unsigned subset = 0; subset < 1u << score.size(); ++subset) {
    std::size_t size = 0;
    double best = -1e300, of_best = 0, equals = 0;
    for (std::size_t i = 0; i < score.size(); ++i)
      if (subset >> i & 1) {
        ++size;
        if (score[i] > best) best = score[i], of_best = equals = 0;
        if (score[i] == best) of_best += value[i], ++equals;
      }
    if (size != n) continue;
    sum += of_best / equals;
    ++count;
  }
  return sum / count;
}

const std::vector<written_text> texts{{0, {5, 1}, {3, 4, 2}}, {7, {1}, {4, 2}},           {0, {5, 1}, {4, 4, 3, 2}}, {7, {1}, {3, 3, 0, 2}},
                                      {0, {5, 1}, {0, 2}},    {7, {1}, {0, 4, 3}, false}, {0, {5, 1}, {3, 4, 2}},    {7, {1}, {}}};
const std::vector<double> scores{2, 1, 0.5, 1, 2, 3, 2, 9};

struct learner : tabular_policy<double> {
  explicit learner(std::uint64_t seed = 1) : tabular_policy<double>(6, seed) { weights.momentum = 0; }
};

}  // namespace

TEST_CASE("best of n: the mean over all subsets of n replies") {
  const std::vector<double> score{0.3, -1, 2, 0.7, 5, 4.5, -3, 0.1}, value{3, 1, 0, 2, -4, 10, 7, -2};
  const std::vector<double> tied{1, 0, 1, 1, 2, 0, 2, -1}, same(8, 0.25);
  for (const auto& x : {score, tied, same})
    for (std::size_t n = 1; n <= x.size(); ++n)
      CHECK(expected_best(x, value, static_cast<index_t>(n)) == Catch::Approx(by_counting(x, value, n)).margin(1e-13));
  CHECK(expected_best(score, value, 8) == -4);
  CHECK(expected_best(score, score, 1) == Catch::Approx(8.6 / 8));
  // Chances stay a distribution, however many replies.
  std::vector<double> many(5000), ones(5000, 1.0);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<double>(i * 7919 % 5000);
  for (const index_t n : {1, 2, 64, 2500, 4999, 5000}) {
    CHECK(expected_best(many, ones, n) == Catch::Approx(1).epsilon(1e-12));
    CHECK(expected_best(many, many, n) == Catch::Approx(static_cast<double>(n) * 5001 / static_cast<double>(n + 1) - 1).epsilon(1e-12));
  }
}

TEST_CASE("best of n: its KL to what was drawn from") {
  // The best of n of m equally likely outcomes is outcome k with chance (k/m)^n - ((k-1)/m)^n.
  const auto exact = [](index_t n, double m) {
    double kl = 0;
    for (double k = 1; k <= m; ++k) {
      const double p = std::pow(k / m, n) - std::pow((k - 1) / m, n);
      if (p > 0) kl += p * std::log(p * m);
    }
    return kl;
  };
  CHECK(best_of_n_kl(1) == 0);
  for (const index_t n : {2, 8, 64}) {
    CHECK(best_of_n_kl(n) == Catch::Approx(exact(n, 1e6)).epsilon(1e-4));
    for (const double m : {2.0, 10.0, 1000.0}) CHECK(exact(n, m) < best_of_n_kl(n));
  }
}

TEST_CASE("best of n: which texts are kept") {
  const auto r = rollout_of(texts);
  CHECK(kept_rows(r, scores) == ids{0, 5});  // the first of equals; the empty text is none, whatever it scores
  CHECK(kept_rows(r, scores, keep::best{2}) == ids{0, 4, 5, 1});
  CHECK(kept_rows(r, scores, keep::best{2}, true) == ids{0, 4, 1, 3});
  CHECK(kept_rows(r, scores, keep::best{3}, false, true) == ids{0, 4, 2, 5, 1, 3});  // text 6 is text 0 again
  CHECK(kept_rows(r, scores, keep::above{1}) == ids{0, 4, 6, 5});
  CHECK(kept_rows(r, scores, keep::above{.threshold = 0.9, .most = 2}) == ids{0, 4, 5, 1});
  CHECK(kept_rows(r, scores, keep::above{5}).empty());
  CHECK(kept_rows(r, scores, keep::best_share{0.25}) == ids{0, 5});
  CHECK(kept_rows(r, scores, keep::best_share{1}).size() == 7);
  CHECK(kept_rows(rollouts<double>{}, {}).empty());
  auto broken = scores;
  broken[2] = std::nan("");
  CHECK(refusal([&] { kept_rows(r, broken); }) == "plumb: kept_rows: the score of text 2 is nan.");
  broken.pop_back();
  CHECK(refusal([&] { kept_rows(r, broken); }) == "plumb: kept_rows: there are 7 scores, but 8 texts.");
  CHECK(refusal([&] { kept_rows(r, scores, keep::best{0}); }) == "plumb: kept_rows: option `count` is 0 but must be 1 or more. Nothing was written.");
}

TEST_CASE("best of n: the likeliest reply first, then those that would have been drawn") {
  backend b;
  learner policy;
  const auto starts = prompts(3, 3);
  const sampling how{.temperature = 0.7, .max_new_tokens = 5, .end_token = 2, .seed = 4, .step = 3};
  best_of_n plain(b, {.replies = 3}), first(b, {.replies = 4, .greedy_first = true});
  const auto drawn = plain.write(policy, starts, how), all = first.write(policy, starts, how);
  auto cold = how;
  cold.temperature = 0;
  const auto greedy = policy.generate(starts, cold);
  REQUIRE(all.size() == 12);
  CHECK(all.temperature == 0.7);
  for (index_t p = 0; p < 3; ++p)
    for (index_t i = 0; i < 4; ++i) {
      const auto expected = i == 0 ? greedy.text_of(p) : drawn.text_of(3 * p + i - 1);
      CHECK(std::ranges::equal(all.text_of(4 * p + i), expected));
      CHECK(all.prompt[static_cast<std::size_t>(4 * p + i)] == p);
    }
}

TEST_CASE("best of n: the update is the gradient of the kept texts' likelihood, whatever the micro-batches") {
  auto r = rollout_of(texts);
  r.temperature = 0.5;
  backend b;
  given_rewards reward{scores};
  const keep::best two{2};
  const auto kept = kept_rows(r, scores, two);
  for (const auto aggregate : {aggregation::token_mean, aggregation::sequence_mean})
    for (const double temperature : {1.0, 0.0}) {
      const auto updated = [&](index_t micro_batch) {
        learner policy;
        best_of_n loop(b, {.keep = two, .supervised = {.aggregate = aggregate}, .temperature = temperature, .micro_batch = micro_batch, .rate = 1});
        const auto seen = loop.update(policy, reward, r);
        CHECK(seen.steps == 1);
        return policy;
      };
      learner policy;
      auto x = r.select(kept);
      if (temperature > 0) x.temperature = temperature;
      const auto loss = [&] {
        const auto logp = policy.score(x);
        double sum = 0;
        for (index_t s = 0; s < x.size(); ++s)
          for (std::int32_t t = x.own[static_cast<std::size_t>(s)]; t < x.own[static_cast<std::size_t>(s) + 1]; ++t)
            sum -= logp[static_cast<std::size_t>(t)] /
                   (aggregate == aggregation::token_mean ? static_cast<double>(x.own_tokens()) : static_cast<double>(x.own_count(s) * x.size()));
        return sum;
      };
      auto whole = updated(0), parts = updated(3);
      each_own_token(x, [&](std::size_t, std::size_t, auto context, std::int32_t) {
        for (std::size_t k = 0; k < 6; ++k) {
          double& w = policy.weights.row(context)[k];
          const double before = w;
          const auto at = [&](double y) {
            w = y;
            return loss();
          };
          const double slope = (at(before + 1e-5) - at(before - 1e-5)) / 2e-5;
          w = before;
          CHECK(before - whole.weights.row(context)[k] == Catch::Approx(slope).margin(1e-9));
          CHECK(parts.weights.row(context)[k] == Catch::Approx(whole.weights.row(context)[k]).margin(1e-14));
        }
      });
    }
}

TEST_CASE("best of n: what an update says of itself; where nothing is good enough, nothing is trained") {
  backend b;
  learner policy;
  given_rewards reward{scores};
  best_of_n loop(b, best_of_n_options<keep::above>{.keep = {1.5}, .epochs = 2, .minibatches = 3});
  const auto seen = loop.update(policy, reward, rollout_of(texts));
  CHECK(seen.texts == 8);
  CHECK(seen.tokens == 21);
  CHECK(seen.prompts == 2);
  CHECK(seen.without == 0);
  CHECK(seen.kept == 4);
  CHECK(seen.steps == 6);
  CHECK(seen.score == Catch::Approx(20.5 / 8));
  CHECK(seen.score_best == 5.5);
  CHECK(seen.score_kept == 2.25);
  CHECK(seen.length_kept == 2.75);
  CHECK(seen.ended == 0.75);
  CHECK(seen.nll == Catch::Approx(seen.loss).margin(0.5));
  std::size_t named = 0;
  seen.visit([&](const char*, double x) {
    ++named;
    CHECK(std::isfinite(x));
  });
  CHECK(named == 14);
  loop.set_keep({.threshold = 10});
  const auto before = policy.weights.everything();
  const auto none = loop.update(policy, reward, rollout_of(texts));
  CHECK(none.kept == 0);
  CHECK(none.without == 2);
  CHECK(none.steps == 0);
  CHECK(std::isnan(none.loss));
  CHECK(std::isnan(none.score_kept));
  CHECK(policy.weights.everything() == before);
  CHECK(loop.state().updates == 2);
}

TEST_CASE("best of n: a run that was stopped goes on to the same bits, and the policy comes to write what was the best of n") {
  const auto starts = prompts(4, 4);
  const scored_by<double> reward{[](const rollouts<double>& r, index_t s) { return static_cast<double>(std::ranges::count(r.own_of(s), 4)); }};
  const sampling how{.max_new_tokens = 3, .end_token = 2, .seed = 3};
  const best_of_n_options<> o{.replies = 8, .minibatches = 2, .rate = 2, .seed = 9};
  backend b;
  const auto run = [&](learner& policy, best_of_n<backend>& loop, int updates) {
    std::vector<best_of_n_metrics> all;
    for (int i = 0; i < updates; ++i) all.push_back(loop.step(policy, reward, starts, how));
    return all;
  };
  learner whole, parts;
  best_of_n one(b, o), two(b, o), three(b, o);
  const auto seen = run(whole, one, 60);
  run(parts, two, 11);
  three.restore(two.state());
  run(parts, three, 49);
  CHECK(parts.weights.everything() == whole.weights.everything());
  CHECK(seen.front().score_best > seen.front().score + 0.5);
  CHECK(seen.back().score > seen.front().score_best);
}

TEST_CASE("best of n: what is refused, in a sentence, with nothing trained") {
  const std::vector<double> three{1, 2, 3}, two{1, 2}, odd{1, std::nan(""), 2};
  CHECK(refusal([&] { expected_best(three, two, 1); }) == "plumb: expected_best: there are 3 scores, but 2 values.");
  CHECK(refusal([&] { expected_best(three, three, 4); }) == "plumb: expected_best: n is 4, but must be from 1 to 3, the number of replies.");
  CHECK(refusal([&] { expected_best(odd, three, 2); }) == "plumb: expected_best: the score of reply 1 is not a number.");
  CHECK(refusal([&] { best_of_n_kl(0); }) == "plumb: best_of_n_kl: n is 0, but must be 1 or more.");
  backend b;
  learner policy;
  const auto before = policy.weights.everything();
  given_rewards reward{scores};
  best_of_n loop(b);
  reward.values[3] = std::numeric_limits<double>::infinity();
  CHECK(refusal([&] { loop.update(policy, reward, rollout_of(texts)); }) ==
        "plumb: best_of_n: reward.reward gave inf for text 3 (prompt 7). Nothing was trained.");
  CHECK(refusal([&] { best_of_n(b, best_of_n_options<keep::best_share>{.keep = {0}}); }) ==
        "plumb: best_of_n: option `share` is 0 but must be in (0, 1]. Nothing was written.");
  CHECK(refusal([&] { best_of_n(b, {.temperature = -1}); }) ==
        "plumb: best_of_n: option `temperature` is -1 but must be 0 (as they were drawn) or positive. Nothing was written.");
  CHECK(policy.weights.everything() == before);
}

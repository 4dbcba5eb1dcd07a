// Online DPO: which replies become pairs; the update against the loss's own difference quotient; batches, order, resuming; what is refused.
#include "support/written_texts.hpp"

#include <plumb/algorithms/online_dpo.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

using backend = serial::backend<double>;

// Two prompts in turn, eight texts of different lengths; 2 is the end token.
const std::vector<written_text> texts{{0, {5, 1}, {3, 4, 2}}, {7, {1}, {4, 2}},           {0, {5, 1}, {4, 4, 3, 2}}, {7, {1}, {3, 3, 0, 2}},
                                      {0, {5, 1}, {0, 2}},    {7, {1}, {0, 4, 3}, false}, {0, {5, 1}, {3, 2}},       {7, {1}, {2}}};
const std::vector<double> scores{0.5, 1, 2, -1, 0.5, 3, -0.25, 1};

// A copy of a policy that can be made anew.
struct following_copy {
  tabular_policy<double> copy{6, 2};
  std::vector<double> score(const rollouts<double>& r) { return copy.score(r); }
  void follow(const tabular_policy<double>& policy) { copy = policy; }
};
struct models {
  tabular_policy<double> policy{6};
  following_copy reference;
  models() { policy.weights.momentum = 0; }
};

// The loss of some pairs as one would write it.
double loss_of(models& m, const rollouts<double>& r, const chosen_pairs& pairs, double beta) {
  const auto a = text_logp(r, m.policy.score(r)), b = text_logp(r, m.reference.score(r));
  const auto ratio = [&](std::int32_t s) { return a[static_cast<std::size_t>(s)] - b[static_cast<std::size_t>(s)]; };
  double loss = 0;
  for (std::size_t p = 0; p < pairs.chosen.size(); ++p)
    loss += std::log1p(std::exp(-beta * (ratio(pairs.chosen[p]) - ratio(pairs.rejected[p])))) / static_cast<double>(pairs.chosen.size());
  return loss;
}

// A policy after one update of `o`.
template <class Link = link::sigmoid>
tabular_policy<double> updated(const rollouts<double>& r, const std::vector<double>& score, online_dpo_options<Link> o) {
  backend b;
  models m;
  given_rewards reward{score};
  o.rate = 1;
  online_dpo<backend, Link>(b, o).update(m.policy, m.reference, reward, r);
  return m.policy;
}
double distance(const tabular_policy<double>& x, const tabular_policy<double>& y) {
  const auto a = x.weights.weights(), b = y.weights.weights();
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("online DPO: which replies become pairs") {
  const auto r = rollout_of(texts);
  const auto best_worst = choose_pairs(r, scores, pair_choice::best_worst);
  CHECK(best_worst.chosen == ids{2, 5});
  CHECK(best_worst.rejected == ids{6, 3});
  CHECK(best_worst.prompts == 2);
  CHECK(best_worst.without == 0);
  const auto all = choose_pairs(r, scores, pair_choice::all);
  CHECK(all.chosen == ids{0, 2, 2, 2, 4, 1, 5, 5, 5, 7});
  CHECK(all.rejected == ids{6, 0, 4, 6, 6, 3, 1, 3, 7, 3});
  const auto apart = choose_pairs(r, scores, pair_choice::all, 2);
  CHECK(apart.chosen == ids{2, 5});  // 2 against 0.5, 3 against 1 are not more than 2 apart
  // The best meets each of the others equally often.
  std::vector<int> met(8);
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    const auto drawn = choose_pairs(r, scores, pair_choice::best_random, 0, {seed, 0});
    REQUIRE(drawn.chosen == ids{2, 5});
    for (const std::int32_t s : drawn.rejected) ++met[static_cast<std::size_t>(s)];
  }
  for (const std::size_t s : {0u, 4u, 6u, 1u, 3u, 7u}) CHECK(std::abs(met[s] - 1000) < 130);  // five deviations
}

TEST_CASE("online DPO: ties, equal texts, empty replies and lone ones make no pair") {
  const std::vector<written_text> some{{0, {1}, {3, 2}}, {0, {1}, {3, 2}}, {0, {1}, {4, 2}}, {1, {3}, {2}}, {2, {4}, {}}, {2, {4}, {3, 2}}};
  const auto r = rollout_of(some);
  for (const auto choice : {pair_choice::best_worst, pair_choice::best_random, pair_choice::all}) {
    const auto ties = choose_pairs(r, std::vector<double>(6, 0.5), choice);
    CHECK(ties.chosen.empty());
    CHECK(ties.without == 3);
    // The same text twice, with two scores: the noise of a judge. An empty reply scores lower than another.
    const auto twice = choose_pairs(r, std::vector<double>{1, 0, 1, 0, 0, 5}, choice);
    CHECK(twice.chosen == (choice == pair_choice::all ? ids{2} : ids{}));
  }
  // The first of equals.
  const auto first = choose_pairs(r, std::vector<double>{0, 0, 1, 0, 0, 0}, pair_choice::best_worst);
  CHECK(first.chosen == ids{2});
  CHECK(first.rejected == ids{0});
  CHECK(choose_pairs(rollouts<double>{}, {}, pair_choice::all).prompts == 0);
}

TEST_CASE("online DPO: the update is the loss's gradient, whatever the micro-batches and the order of texts") {
  auto r = rollout_of(texts);
  for (const double temperature : {1.0, 0.7})
    for (const auto choice : {pair_choice::best_worst, pair_choice::all}) {
      r.temperature = temperature;
      const auto pairs = choose_pairs(r, scores, choice);
      const auto whole = updated(r, scores, {.link = {.beta = 0.3}, .pairs = choice});
      auto after = whole;  // rows are made when they are asked for
      models m;
      std::size_t contexts = 0;
      each_own_token(r, [&](std::size_t, std::size_t, auto context, std::int32_t) {
        ++contexts;
        for (std::size_t k = 0; k < 6; ++k) {
          double& w = m.policy.weights.row(context)[k];
          const double before = w;
          const auto at = [&](double x) {
            w = x;
            return loss_of(m, r, pairs, 0.3);
          };
          const double slope = (at(before + 1e-5) - at(before - 1e-5)) / 2e-5;
          w = before;
          CHECK(before - after.weights.row(context)[k] == Catch::Approx(slope).margin(1e-9));
        }
      });
      CHECK(contexts == 21);
      for (const index_t size : {1, 3})
        CHECK(distance(whole, updated(r, scores, {.link = {.beta = 0.3}, .pairs = choice, .micro_batch = size})) < 1e-14);
      const ids order{6, 3, 1, 0, 7, 2, 5, 4};
      std::vector<double> moved;
      for (const std::int32_t s : order) moved.push_back(scores[static_cast<std::size_t>(s)]);
      CHECK(distance(whole, updated(r.select(order), moved, {.link = {.beta = 0.3}, .pairs = choice})) < 1e-14);
    }
}

TEST_CASE("online DPO: other links, rewards of the pair, no reference") {
  const auto r = rollout_of(texts);
  const auto plain = updated(r, scores, {});
  CHECK(distance(plain, updated<link::ipo>(r, scores, {})) > 1e-3);
  CHECK(distance(plain, updated<link::sigmoid>(r, scores, {.preference = {.weight = 2}})) > 1e-3);
  // The reward-aware link looks at how far apart the scores are, the others at their order alone.
  auto doubled = scores;
  for (double& x : doubled) x *= 2;
  CHECK(distance(updated(r, doubled, {}), plain) == 0);
  CHECK(distance(updated<link::rpo_squared>(r, doubled, {}), updated<link::rpo_squared>(r, scores, {})) > 1e-3);
  // Without a reference its log-probabilities count as 0.
  backend b;
  models m, n;
  given_rewards reward{scores};
  no_model none;
  struct certain {
    std::vector<double> score(const rollouts<double>& x) { return std::vector<double>(x.logp.size()); }
  } zeros;
  online_dpo loop(b, {.rate = 1});
  CHECK(std::isnan(loop.update(m.policy, none, reward, r).kl));
  auto known = r;
  known.logp = models().policy.score(r);
  CHECK(!std::isnan(loop.update(n.policy, zeros, reward, known).kl));
  // Log-probabilities that the sampler did not give: the KL is not known, and nothing else changes.
  models k;
  CHECK(std::isnan(loop.update(k.policy, zeros, reward, r).kl));
  CHECK(distance(k.policy, n.policy) == 0);
  CHECK(distance(m.policy, n.policy) == 0);
  CHECK(distance(m.policy, plain) > 1e-3);
}

TEST_CASE("online DPO: what an update says of itself") {
  backend b;
  models m;
  given_rewards reward{scores};
  online_dpo loop(b, {.pairs = pair_choice::all, .unfinished_penalty = 2.5, .epochs = 2, .minibatches = 3});
  auto r = rollout_of(texts);
  r.logp = models().policy.score(r);
  const auto seen = loop.update(m.policy, m.reference, reward, r);
  CHECK(seen.texts == 8);
  CHECK(seen.tokens == 21);
  CHECK(seen.prompts == 2);
  CHECK(seen.without == 0);
  CHECK(seen.pairs == 10);  // text 5, cut off, now scores 0.5, between the others
  CHECK(seen.steps == 6);
  CHECK(seen.score == Catch::Approx((0.5 + 1 + 2 - 1 + 0.5 + 0.5 - 0.25 + 1) / 8));
  CHECK(seen.ended == 0.875);
  CHECK(seen.length == Catch::Approx(21 / 8.0));
  CHECK(seen.score_chosen > seen.score_rejected);
  CHECK(seen.loss == Catch::Approx(std::log(2)).margin(0.2));
  CHECK(seen.margin == Catch::Approx(seen.reward_chosen - seen.reward_rejected));
  CHECK(!seen.followed);
  std::size_t named = 0;
  seen.visit([&](const char*, double x) {
    ++named;
    CHECK(std::isfinite(x));
  });
  CHECK(named == 22);
}

TEST_CASE("online DPO: where nothing tells replies apart, nothing is trained") {
  backend b;
  models m;
  const auto before = m.policy.weights.everything();
  given_rewards reward{std::vector<double>(8, 1.0)};
  online_dpo loop(b, {.rate = 1});
  const auto seen = loop.update(m.policy, m.reference, reward, rollout_of(texts));
  CHECK(seen.steps == 0);
  CHECK(seen.without == 2);
  CHECK(std::isnan(seen.loss));
  CHECK(m.policy.weights.everything() == before);
  CHECK(m.policy.weights.steps == 0);
  CHECK(loop.state().updates == 1);
  reward.values.clear();
  CHECK(loop.update(m.policy, m.reference, reward, {}).texts == 0);
}

TEST_CASE("online DPO: a run that was stopped goes on to the same bits; the reference follows when it is told to") {
  const std::vector<start> starts = prompts(4, 4);
  const scored_by<double> reward{[](const rollouts<double>& r, index_t s) { return static_cast<double>(std::ranges::count(r.own_of(s), 4)); }};
  const sampling how{.max_new_tokens = 3, .end_token = 2, .seed = 3};
  const online_dpo_options<> o{.pairs = pair_choice::best_random, .replies = 4, .minibatches = 2, .rate = 4, .reference_every = 2, .seed = 9};
  backend b;
  const auto run = [&](models& m, online_dpo<backend>& loop, int updates) {
    m.policy.weights.momentum = 0.5;
    std::vector<double> seen;
    for (int i = 0; i < updates; ++i) {
      const auto one = loop.step(m.policy, m.reference, reward, starts, how);
      seen.push_back(one.score);
      CHECK(one.texts == 16);
      CHECK(one.followed == (loop.state().updates % 2 == 0));
      if (one.followed) CHECK(m.reference.copy.weights.weights() == m.policy.weights.weights());
    }
    return seen;
  };
  models whole, parts;
  online_dpo one(b, o), two(b, o), three(b, o);
  const auto seen = run(whole, one, 60);
  run(parts, two, 17);
  three.restore(two.state());
  run(parts, three, 43);
  CHECK(parts.policy.weights.everything() == whole.policy.weights.everything());
  CHECK(seen.back() > seen.front() + 1);  // it learns to write more of token 4
}

TEST_CASE("online DPO: what is refused, in a sentence, with nothing trained") {
  backend b;
  models m;
  const auto before = m.policy.weights.everything();
  const auto r = rollout_of(texts);
  given_rewards reward{scores};
  online_dpo loop(b);
  const auto says = [&](auto&& reference) { return refusal([&] { loop.update(m.policy, reference, reward, r); }); };
  reward.values[3] = std::nan("");
  CHECK(says(m.reference) == "plumb: online_dpo: reward.reward gave nan for text 3 (prompt 7). Nothing was trained.");
  reward.values.pop_back();
  CHECK(says(m.reference) == "plumb: online_dpo: reward.reward gave 7 numbers, but there are 8 texts. Nothing was trained.");
  reward.values = scores;
  struct short_model {
    std::vector<double> score(const rollouts<double>&) { return {1, 2}; }
  };
  CHECK(says(short_model{}) == "plumb: online_dpo: reference.score gave 2 numbers, but there are 21 own tokens. Nothing was trained.");
  online_dpo follower(b, {.reference_every = 1});
  short_model fixed;
  CHECK(refusal([&] { follower.update(m.policy, fixed, reward, r); }) ==
        "plumb: online_dpo: option `reference_every` is 1, but the reference has no follow(policy). Nothing was trained.");
  auto mixed = texts;
  mixed[2].beginning = {3, 1};
  CHECK(refusal([&] { loop.update(m.policy, m.reference, reward, rollout_of(mixed)); }) ==
        "plumb: choose_pairs: texts 0 and 2 are of prompt 0, but begin differently, so they are no pair. `start::prompt` tells prompts apart.");
  CHECK(refusal([&] { online_dpo(b, {.preference = {.matching = pair_matching::ranked}, .micro_batch = 2}); }) ==
        "plumb: online_dpo: option `preference.matching` looks at all pairs of a minibatch, so `micro_batch` must be 0, but it is 2.");
  CHECK(refusal([&] { online_dpo(b, {.replies = 1}); }) == "plumb: online_dpo: option `replies` is 1 but must be 2 or more. Nothing was written.");
  struct forgetful : tabular_policy<double> {
    rollouts<double> generate(std::span<const start> starts, const sampling& how) { return tabular_policy<double>::generate(starts.first(1), how); }
  } forgets{tabular_policy<double>(6)};
  CHECK(refusal([&] { loop.step(forgets, m.reference, reward, prompts(1, 1), {}); }) ==
        "plumb: online_dpo: policy.generate gave 1 texts, but there are 2 starts. Nothing was trained.");
  // A policy that breaks in the second micro-batch of the second minibatch: the step before stands, the gradient since does not.
  struct breaking : tabular_policy<double> {
    std::vector<double> forward(const rollouts<double>& x) {
      auto logp = tabular_policy<double>::forward(x);
      if (forwards == 4) logp.back() = std::nan("");
      return logp;
    }
  } breaks{tabular_policy<double>(6)};
  online_dpo careful(b, {.pairs = pair_choice::all, .minibatches = 2, .micro_batch = 3});
  const std::string said = refusal([&] { careful.update(breaks, m.reference, reward, r); });
  CHECK(said.find("plumb: online_dpo: policy.forward gave nan for own token ") == 0);
  CHECK(said.find(". The gradients were discarded; 1 step of this update stood before.") != std::string::npos);
  for (const double g : breaks.weights.gradients()) CHECK(g == 0);
  CHECK(m.policy.weights.everything() == before);
  CHECK(loop.state().updates == 0);
}

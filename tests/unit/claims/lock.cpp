// The prefix-sum lock and its small models.
#include "claims/lock_experiment.hpp"
#include "support/gradients.hpp"

#include <map>

using namespace claims;
using namespace plumb_test;
using lock::tokens;

namespace {

using exact = plumb::serial::backend<double>;
using exact_policy = small_policy<exact, mlp_net<exact>, lock::reader>;
using exact_critic = small_critic<exact, mlp_net<exact>, lock::reader>;
using exact_reward = small_reward<exact, additive_net<exact>, lock::pair_reader>;
static_assert(plumb::check_policy<exact_policy, double>() && plumb::critic_model<exact_critic, double> &&
              plumb::check_reward<exact_reward, double>());
static_assert(reader<lock::reader> && reader<lock::pair_reader>);

const tokens prompt{1, 2, 3, 4, 5, 0, 1, 2}, right{1, 3, 0, 4, 3, 3, 4, 0, lock::end_token};

plumb::sampling how(double temperature, std::uint64_t seed = 5) {
  return {.temperature = temperature, .max_new_tokens = lock::slots, .end_token = lock::end_token, .seed = seed};
}
std::vector<plumb::start> some_starts(int count, bool resets) {
  lock::dice random(3, 1);
  std::vector<plumb::start> all;
  for (int i = 0; i < count; ++i) {
    all.push_back(lock::start_at(lock::draw_prompt(random), i));
    const tokens y = lock::answer(all.back().tokens);
    if (resets) all.back().tokens.insert(all.back().tokens.end(), y.begin(), y.begin() + random.below(9));
  }
  return all;
}

// dL/dweights of `L = sum of w numbers`, by backward and by central differences.
template <class Model, class Numbers>
void check_weights(Model& model, const plumb::rollouts<double>& x, std::size_t count, const Numbers& numbers, const std::function<void()>& changed) {
  std::vector<double> w(count);
  for (std::size_t i = 0; i < count; ++i) w[i] = plumb::random_stream{7, 7}.normal(i);
  (void)numbers();
  model.backward(x, w);
  auto& p = model.net().weights();
  const std::vector<double> gradient = p.gradients;
  double largest = 0;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  REQUIRE(largest > 0);
  for (std::size_t i = 0; i < p.weights.size(); i += 1 + p.weights.size() / 200) {
    const double at = p.weights[i], h = 1e-5;
    double side[2];
    for (const int k : {0, 1}) {
      p.weights[i] = k == 0 ? at - h : at + h;
      changed();
      side[k] = 0;
      const std::vector<double> y = numbers();
      REQUIRE(y.size() == count);
      for (std::size_t t = 0; t < count; ++t) side[k] += w[t] * y[t];
    }
    p.weights[i] = at;
    CHECK(std::abs((side[1] - side[0]) / (2 * h) - gradient[i]) < 1e-7 * largest);
  }
  changed();
  model.discard();
  CHECK(std::all_of(p.gradients.begin(), p.gradients.end(), [](double g) { return g == 0; }));
}

}  // namespace

TEST_CASE("claims: the lock's answer, judge and references") {
  CHECK(lock::answer(prompt) == right);
  CHECK(lock::judge(prompt, right) == 1);
  tokens y = right;
  y[3] = 5;
  CHECK(lock::judge(prompt, y) == 0);
  CHECK(lock::judge(prompt, tokens{1, 3, lock::end_token}) == 0);
  CHECK(lock::judge(prompt, std::span(right).first(8)) == -1);
  CHECK(lock::judge(prompt, tokens{1, 3, 0, 4, 3, 3, 4, 0, 0}) == -1);
  CHECK(lock::judge(prompt, tokens{}) == -1);

  lock::dice random(1, 2);
  std::map<std::string, int> kinds;
  constexpr int n = 20000;
  for (int i = 0; i < n; ++i) {
    const tokens reference = lock::draw_reference(prompt, random);
    REQUIRE(reference.back() == lock::end_token);
    if (reference.size() < right.size()) {
      CHECK(std::equal(reference.begin(), reference.end() - 1, right.begin()));
      ++kinds["early"];
    } else {
      int wrong = 0;
      for (std::size_t t = 0; t < right.size(); ++t) wrong += reference[t] != right[t];
      ++kinds[wrong == 0 ? "right" : wrong == 1 ? "one wrong" : "more wrong"];
    }
  }
  CHECK(kinds["more wrong"] == 0);
  for (const auto& [kind, share] : {std::pair{"right", 0.8}, {"one wrong", 0.1}, {"early", 0.1}})
    CHECK(std::abs(kinds[kind] - share * n) < 5 * std::sqrt(share * (1 - share) * n));
}

TEST_CASE("claims: readers number the contexts of the lock") {
  const lock::reader r;
  std::map<std::int32_t, std::vector<std::int32_t>> seen;  // context -> symbol, token before, slot
  lock::dice random(2, 2);
  for (int i = 0; i < 3000; ++i) {
    const tokens x = lock::draw_prompt(random);
    tokens y;
    for (std::int32_t t = 0; t < lock::slots; ++t) {
      const std::int32_t context = r.next(x, y);
      REQUIRE((context >= 0 && context < r.contexts()));
      const std::vector<std::int32_t> what{t < 8 ? x[static_cast<std::size_t>(t)] : -1, t > 0 ? 6 + y.back() : -1, 12 + t};
      CHECK(seen.emplace(context, what).first->second == what);
      for (std::size_t k = 0; k < 3; ++k) CHECK(r.features()[k][static_cast<std::size_t>(context)] == what[k]);
      y.push_back(random.below(lock::symbols));
    }
    CHECK(r.next(x, y) == -1);
  }
  CHECK(static_cast<index_t>(seen.size()) == r.contexts());
  CHECK(r.next(prompt, right) == -1);
  const lock::pair_reader pairs;
  CHECK(pairs.next(prompt, {}) == 1 * 7 + 6);
  CHECK(pairs.next(prompt, std::span(right).first(8)) == 6 * 7 + 0);
  CHECK(pairs.next(prompt, std::span(right).first(3)) == 4 * 7 + 0);
}

TEST_CASE("claims: small models' gradients are those of differences") {
  exact b;
  const lock::reader r;
  const lock::pair_reader pairs;
  exact_policy policy(r, mlp_net<exact>(b, r, 12, lock::vocabulary, 1, 1, 4));
  auto x = policy.generate(some_starts(12, true), how(1));
  x.temperature = 0.7;
  const auto m = static_cast<std::size_t>(x.own_tokens());
  check_weights(
      policy, x, m, [&] { return policy.forward(x); }, [&] { policy.changed(); });
  small_policy<exact, additive_net<exact>, lock::reader> table(r, additive_net<exact>(b, r, lock::vocabulary, 0.3, 0));
  check_weights(
      table, x, m, [&] { return table.forward(x); }, [&] { table.changed(); });
  exact_critic critic(r, mlp_net<exact>(b, r, 12, 1, 1, 0, 5));
  check_weights(
      critic, x, m, [&] { return critic.forward(x); }, [] {});
  exact_reward reward(pairs, additive_net<exact>(b, pairs, lock::vocabulary, -0.5, 0));
  check_weights(
      reward, x, static_cast<std::size_t>(x.size()), [&] { return reward.reward(x); }, [] {});
  CHECK(std::abs(reward.reward(x)[0] + 0.5 * static_cast<double>(x.reply_of(0).size())) < 1e-12);  // given tokens count
}

TEST_CASE("claims: a small policy writes what it scores") {
  exact b;
  const lock::reader r;
  exact_policy policy(r, mlp_net<exact>(b, r, 12, lock::vocabulary, 2, 1, 4));
  const auto starts = some_starts(40, true);
  for (const double temperature : {1.0, 0.6, 0.0}) {
    const auto x = policy.generate(starts, how(temperature));
    const std::vector<double> scored = policy.score(x);
    REQUIRE(scored.size() == x.logp.size());
    for (std::size_t t = 0; t < scored.size(); ++t) CHECK(std::abs(scored[t] - x.logp[t]) < 1e-12);
    const auto table = policy.log_probabilities(temperature > 0 ? temperature : 1);
    for (index_t c = 0; c < table.extent(0); ++c) {
      double sum = 0;
      for (index_t v = 0; v < table.extent(1); ++v) sum += std::exp(table(c, v));
      CHECK(std::abs(sum - 1) < 1e-12);
    }
    // The same bits whichever texts are beside it.
    const std::vector<std::int32_t> rows{7, 3, 31};
    CHECK(policy.score(x.select(rows)) == plumb::select_own(x, scored, std::span<const std::int32_t>(rows)));
    auto one = how(temperature);
    one.first_row = 17;
    const auto alone = policy.generate(std::span(starts).subspan(17, 1), one);
    CHECK(std::equal(alone.tokens.begin(), alone.tokens.end(), x.text_of(17).begin(), x.text_of(17).end()));
  }
  plumb::rollouts<double> strange;
  lock::add_text(strange, prompt, tokens{1, 9}, 0);
  CHECK(refusal([&] { (void)policy.score(strange); }) == "plumb: small model: token 1 of the reply of text 0 has no place in this world.");
}

TEST_CASE("claims: one seed of the lock, made small") {
  plumb::serial::backend<float> b;
  lock::settings s;
  s.references = 300, s.pairs = 60, s.updates = 6, s.rollouts = 32, s.judged_prompts = 50, s.validation_prompts = 30, s.held_out_pairs = 50,
  s.curve_prompts = 20, s.curve_every = 2;
  lock::experiment<plumb::serial::backend<float>> one(b, s, 1001), again(b, s, 1001), other(b, s, 1002);
  CHECK(one.pairs().size() == 60);
  for (const auto& p : one.pairs()) CHECK(lock::judge(p.prompt, p.chosen) != lock::judge(p.prompt, p.rejected));
  CHECK(one.reward_accuracy() == again.reward_accuracy());
  for (const double proportion : {0.0, 1.0}) {
    int watched = 0;
    auto p = one.ppo(proportion, [&](int update, double exact_rate, const plumb::ppo_metrics& m) {
      CHECK(update == 2 * ++watched);
      CHECK((exact_rate >= 0 && exact_rate <= 1));
      CHECK(m.first_ratio_gap == 0);
      CHECK(m.sampler_gap < 1e-5);
      CHECK((m.score_min >= -1 && m.score_max <= 1));
      CHECK((proportion > 0 || m.given == 0));
      CHECK((proportion == 0 || m.given > 0.5));
    });
    auto q = again.ppo(proportion), different = other.ppo(proportion);
    CHECK(watched == 3);
    CHECK(p.net().weights().weights == q.net().weights().weights);
    CHECK(p.net().weights().weights != different.net().weights().weights);
    const auto card = one.judged(p);
    card.visit([&](const char* name, double value) {
      CAPTURE(name, value);
      CHECK(((value >= 0 && value <= 1) || std::string(name) == "kl"));
    });
    CHECK(card.exact_sampled == again.judged(q).exact_sampled);
  }
  auto before = one.sft(), after = one.dpo(0.1, 8);
  CHECK(one.validation_score(after) > one.validation_score(before));
  CHECK(one.validation_score_of_answers() > one.validation_score(before));
  CHECK((one.validation_length(before) >= 1 && one.validation_length(before) <= static_cast<double>(lock::slots)));
  CHECK(one.judged(before).kl == 0);
  CHECK(one.judged(after).kl > 0);
  // The probability of the answer is what drawing comes to.
  CHECK(std::abs(one.judged(after).token - again.judged(after).token) < 1e-12);
}

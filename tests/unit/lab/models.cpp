// The lab's models as plumb's loops see them: gradients by differences, what is written and what is scored, empty replies, starts of DR-PO.
#include "lab/models.hpp"
#include "support/catch.hpp"

#include <plumb/algorithms/drpo.hpp>
#include <plumb/algorithms/ppo.hpp>
#include <plumb/backends/serial.hpp>

#include <cmath>

namespace {

using B = plumb::serial::backend<double>;
using plumb::index_t;
using plumb::start;
using plumb::view;

static_assert(plumb::check_policy<lab::transformer_policy<B>, double>() && plumb::bootstrapping_critic<lab::transformer_critic<B>, double> &&
              plumb::check_reward<lab::transformer_reward<B>, double>() && plumb::token_scorer<lab::frozen<B>, double>);

constexpr std::size_t scratch_bytes = std::size_t{1} << 25;

lab::transformer_config small(index_t scores = 0) {
  return {.vocabulary = 11, .width = 8, .layers = 2, .heads = 2, .feed_forward = 12, .positions = 12, .scores = scores};
}
/// Weights of a score head start at 0: with others, every gradient has something to say.
lab::transformer<B> scored(std::uint64_t seed, index_t scores = 1) {
  lab::transformer<B> m(small(scores), seed);
  const plumb::random_stream noise{seed, 77};
  const auto head = m.layout().list().back();
  for (index_t i = 0; i < head.size(); ++i) m.weights()[static_cast<std::size_t>(head.offset + i)] = noise.normal(static_cast<std::uint64_t>(i));
  return m;
}
/// Prompts of several lengths; the second begins inside its reply.
std::vector<start> starts() {
  return {{.tokens = {0, 3, 7}, .prompt_tokens = 3, .prompt = 0}, {.tokens = {0, 4, 5, 6, 2, 9}, .prompt_tokens = 4, .prompt = 1}, {.tokens = {0}, .prompt_tokens = 1, .prompt = 2},
          {.tokens = {0, 3, 7}, .prompt_tokens = 3, .prompt = 0}};
}
const plumb::sampling how{.max_new_tokens = 6, .end_token = 2, .seed = 5};

struct world {
  B b{};
  lab::workspace memory{scratch_bytes};
};

std::vector<double> weights_by_differences(lab::transformer<B>& model, auto loss) {
  std::vector<double> all;
  for (double& w : model.weights()) {
    const double at = w, h = 1e-4;
    const auto value = [&](double x) {
      w = x;
      return loss();
    };
    all.push_back((8 * (value(at + h) - value(at - h)) - (value(at + 2 * h) - value(at - 2 * h))) / (12 * h));
    w = at;
  }
  return all;
}
void check_gradient(lab::transformer<B>& model, auto& adapter, const plumb::rollouts<double>& r) {
  std::vector<double> d(static_cast<std::size_t>(r.own_tokens()));
  for (std::size_t t = 0; t < d.size(); ++t) d[t] = std::sin(1.0 + 2.3 * static_cast<double>(t));
  const auto loss = [&] {
    const auto numbers = adapter.score(r);
    double sum = 0;
    for (std::size_t t = 0; t < d.size(); ++t) sum += d[t] * numbers[t];
    return sum;
  };
  adapter.discard();
  for (int twice = 0; twice < 2; ++twice) {  // gradients add up
    adapter.forward(r);
    adapter.backward(r, d);
  }
  const auto expected = weights_by_differences(model, loss);
  double largest = 0;
  for (const double g : model.gradients()) largest = std::max(largest, std::abs(g));
  REQUIRE(largest > 0.01);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    REQUIRE(std::abs(model.gradients()[i] - 2 * expected[i]) < 1e-7 * largest);
  }
  const auto before = model.weights();
  adapter.discard();
  CHECK(model.weights() == before);
  CHECK(model.gradients() == std::vector<double>(before.size()));
  adapter.forward(r);
  adapter.backward(r, d);
  adapter.step(1e-3);
  CHECK(model.weights() != before);
  CHECK(model.gradients() == std::vector<double>(before.size()));
}

}  // namespace

TEST_CASE("lab models: the policy's gradient, at a temperature, is that of its score") {
  world w;
  lab::transformer<B> model(small(), 1);
  lab::transformer_policy<B> policy(w.b, w.memory, model);
  auto sampled = how;
  sampled.temperature = 0.7;
  const auto r = policy.generate(starts(), sampled);
  REQUIRE(r.own_tokens() > 8);
  check_gradient(model, policy, r);
}

TEST_CASE("lab models: the critic's gradient is that of its values") {
  world w;
  lab::transformer<B> writer(small(), 1), model = scored(2);
  lab::transformer_policy<B> policy(w.b, w.memory, writer);
  lab::transformer_critic<B> critic(w.b, w.memory, model);
  check_gradient(model, critic, policy.generate(starts(), how));
}

TEST_CASE("lab models: what is written has the log-probabilities that are scored, and forward is score to the bit") {
  world w;
  lab::transformer<B> model(small(), 3), valuing = scored(4);
  lab::transformer_policy<B> policy(w.b, w.memory, model);
  lab::transformer_critic<B> critic(w.b, w.memory, valuing);
  lab::frozen<B> reference(w.b, w.memory, model);
  for (const double temperature : {1.0, 0.6}) {
    auto sampled = how;
    sampled.temperature = temperature;
    const auto r = policy.generate(starts(), sampled);
    REQUIRE(r.size() == 4);
    const auto score = policy.score(r);
    REQUIRE(score.size() == r.logp.size());
    for (std::size_t t = 0; t < score.size(); ++t) CHECK(score[t] == Catch::Approx(r.logp[t]).margin(1e-12));
    CHECK(policy.forward(r) == score);
    CHECK(reference.score(r) == score);
    CHECK(critic.forward(r) == critic.score(r));
  }
  // The reference stays where it was.
  const auto r = policy.generate(starts(), how);
  const auto before = reference.score(r);
  policy.forward(r);
  policy.backward(r, std::vector<double>(r.logp.size(), 1.0));
  policy.step(1e-2);
  CHECK(reference.score(r) == before);
  CHECK(policy.score(r) != before);
}

TEST_CASE("lab models: numbers do not depend on the other texts, nor on padding") {
  world w;
  lab::transformer<B> model(small(), 3), valuing = scored(4), judging = scored(6);
  lab::transformer_policy<B> policy(w.b, w.memory, model);
  lab::transformer_critic<B> critic(w.b, w.memory, valuing);
  lab::transformer_reward<B> reward(w.b, w.memory, judging, 0.5, 2);
  const auto r = policy.generate(starts(), how);
  const auto logp = policy.score(r), values = critic.score(r), after = critic.after(r), scores = reward.reward(r);
  for (std::int32_t s = 0; s < 4; ++s) {
    auto one = how;
    one.first_row = static_cast<std::uint64_t>(s);
    const std::vector<start> alone{starts()[static_cast<std::size_t>(s)]};
    const auto x = policy.generate(alone, one);
    const std::vector<std::int32_t> row{s};
    REQUIRE(x.tokens == r.select(row).tokens);
    const auto close = [](const std::vector<double>& a, const std::vector<double>& b) {
      REQUIRE(a.size() == b.size());
      for (std::size_t t = 0; t < a.size(); ++t) CHECK(a[t] == Catch::Approx(b[t]).margin(1e-12));
    };
    close(policy.score(x), plumb::select_own(r, logp, row));
    close(critic.score(x), plumb::select_own(r, values, row));
    close(critic.after(x), {after[static_cast<std::size_t>(s)]});
    close(reward.reward(x), {scores[static_cast<std::size_t>(s)]});
  }
  // A reward model's raw score is what a critic with its weights says after the last token.
  lab::transformer_critic<B> same(w.b, w.memory, judging);
  for (std::size_t s = 0; s < 4; ++s) CHECK(scores[s] == Catch::Approx((same.after(r)[s] - 0.5) / 2).margin(1e-12));
}

TEST_CASE("lab models: a value is that of the state before its token") {
  world w;
  lab::transformer<B> valuing = scored(4);
  lab::transformer_critic<B> critic(w.b, w.memory, valuing);
  plumb::rollouts<double> r, longer;
  const std::vector<std::int32_t> two{5, 6}, three{5, 6, 9};
  r.add({.tokens = {0, 3}, .prompt_tokens = 2}, two, {}, false);
  longer.add({.tokens = {0, 3}, .prompt_tokens = 2}, three, {}, false);
  const auto values = critic.score(longer);
  REQUIRE(values.size() == 3);
  CHECK(critic.after(r)[0] == Catch::Approx(values[2]).margin(1e-12));  // after two tokens is before the third
  CHECK(critic.score(r)[1] == Catch::Approx(values[1]).margin(1e-12));
}

TEST_CASE("lab models: replies that are empty, that are as long as the model has positions, and beginnings that cannot be") {
  world w;
  lab::transformer<B> model(small(), 3), valuing = scored(4);
  lab::transformer_policy<B> policy(w.b, w.memory, model);
  lab::transformer_critic<B> critic(w.b, w.memory, valuing);
  auto none = how;
  none.max_new_tokens = 0;
  const auto empty = policy.generate(starts(), none);
  CHECK(empty.size() == 4);
  CHECK(empty.own_tokens() == 0);
  CHECK(policy.score(empty).empty());
  CHECK(policy.forward(empty).empty());
  policy.backward(empty, {});
  CHECK(critic.score(empty).empty());
  CHECK(critic.after(empty).size() == 4);
  CHECK(policy.generate(std::vector<start>{}, how).size() == 0);
  // One text can take no more, the others go on.
  const std::vector<start> full{{.tokens = {0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 1, 3}, .prompt_tokens = 12}, {.tokens = {0, 3}, .prompt_tokens = 2}};
  auto endless = how;
  endless.max_new_tokens = 100;
  endless.end_token = -1;
  const auto r = policy.generate(full, endless);
  CHECK(r.own_count(0) == 0);
  CHECK(r.own_count(1) == 10);
  CHECK(policy.score(r).size() == 10);
  CHECK_THROWS_WITH(policy.generate(std::vector<start>{{.tokens = {}, .prompt_tokens = 0}}, how), Catch::Matchers::Contains("begins with nothing"));
  CHECK_THROWS_WITH(policy.generate(std::vector<start>{{.tokens = std::vector<std::int32_t>(13, 1), .prompt_tokens = 13}}, how), Catch::Matchers::Contains("12 positions"));
  CHECK_THROWS_WITH(policy.backward(r, std::vector<double>(10)), Catch::Matchers::Contains("follows a forward pass"));
}

TEST_CASE("lab models: many texts, of which some end early, are written as each alone") {
  world w;
  lab::transformer<B> model(small(), 9);
  lab::transformer_policy<B> policy(w.b, w.memory, model);
  std::vector<start> many;
  for (int i = 0; i < 50; ++i) many.push_back({.tokens = std::vector<std::int32_t>(static_cast<std::size_t>(1 + i % 5), 3), .prompt_tokens = 1 + i % 5});
  const auto r = policy.generate(many, {.max_new_tokens = 9, .end_token = 2, .seed = 3});
  index_t ended = 0;
  for (const auto e : r.ended) ended += e;
  REQUIRE(ended > 20);  // so that the batch shrinks
  const auto score = policy.score(r);
  for (std::size_t t = 0; t < score.size(); ++t) REQUIRE(score[t] == Catch::Approx(r.logp[t]).margin(1e-12));
  for (std::size_t i = 0; i < many.size(); i += 7) {
    const std::vector<start> alone{many[i]};
    const auto x = policy.generate(alone, {.max_new_tokens = 9, .end_token = 2, .seed = 3, .first_row = i});
    const std::vector<std::int32_t> row{static_cast<std::int32_t>(i)};
    CHECK(x.tokens == r.select(row).tokens);
  }
}

TEST_CASE("lab models: DR-PO's starts are written on, and only what is written is trained on") {
  world w;
  const std::vector<plumb::reset_item> items{{.prompt = {0, 3, 7}, .completions = {{5, 6, 9, 2}}}, {.prompt = {0, 4}, .completions = {{8, 1, 2}}}};
  const plumb::drpo source(items, {.min_cut = 1, .seed = 3});
  lab::transformer<B> model(small(), 1), judging = scored(2);
  lab::transformer_policy<B> policy(w.b, w.memory, model);
  const auto from = source.starts(0, 8);
  const auto r = policy.generate(from, how);
  for (index_t s = 0; s < 8; ++s) {
    CHECK(r.given_count(s) >= 1);
    const auto& item = items[static_cast<std::size_t>(r.prompt[static_cast<std::size_t>(s)])];
    CHECK(std::equal(item.prompt.begin(), item.prompt.end(), r.prompt_of(s).begin()));
    CHECK(std::equal(r.reply_of(s).begin(), r.reply_of(s).begin() + r.given_count(s), item.completions[0].begin()));
  }
  CHECK(static_cast<index_t>(policy.score(r).size()) == r.own_tokens());
  // An update of PPO from those starts: the first minibatch's ratios are 1, the weights of policy and critic move, the reference's do not.
  lab::transformer<B> valuing = judging;
  lab::transformer_critic<B> critic(w.b, w.memory, valuing);
  lab::frozen<B> reference(w.b, w.memory, model);
  lab::transformer_reward<B> reward(w.b, w.memory, judging);
  plumb::ppo<B> loop(w.b, {.epochs = 2, .minibatches = 2, .policy_rate = 1e-3, .critic_rate = 1e-3});
  const auto before = model.weights();
  const auto m = loop.step(policy, critic, reference, reward, from, how);
  CHECK(m.given == 1);
  CHECK(m.first_ratio_gap < 1e-12);
  CHECK(m.sampler_gap < 1e-12);
  CHECK(m.steps == 4);
  CHECK(model.weights() != before);
  CHECK(valuing.weights() != judging.weights());
}

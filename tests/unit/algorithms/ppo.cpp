// The loop of PPO and its kin, on models that can be counted through.
#include "support/first_updates.hpp"
#include "support/near.hpp"

#include <limits>
#include <set>

using namespace plumb;
using namespace plumb_test;

namespace {

constexpr std::int32_t end_token = 0;
using numbers = std::vector<double>;
using compute = serial::backend<double>;

struct world {
  serial::backend<double> b;
  tabular_policy<double> policy{4, 1}, reference{4, 5};
  tabular_critic<double> critic{2};
  scored_by<double> reward = hashed_score<double>();
  sampling how{.max_new_tokens = 4, .end_token = end_token, .seed = 3};
  std::vector<start> starts = prompts(12, 3, 1);

  // What a run has learned, and has in its optimisers.
  numbers everything() const {
    numbers all = policy.weights.everything();
    const numbers more = critic.values.everything();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};
// Rates for tables, not for networks.
template <class Advantage = advantage::gae, class Surrogate = surrogate::clip>
ppo_options<Advantage, Surrogate> quick() {
  ppo_options<Advantage, Surrogate> o;
  o.policy_rate = 1;
  o.critic_rate = 1;
  return o;
}
template <class Loop>
ppo_metrics update(Loop& loop, world& w) {
  return loop.step(w.policy, w.critic, w.reference, w.reward, w.starts, w.how);
}
std::map<std::string, double> by_name(const ppo_metrics& m) {
  std::map<std::string, double> all;
  m.visit([&](const char* name, double x) { all[name] = x; });
  return all;
}
using plumb_test::near;
bool near(const ppo_metrics& a, const ppo_metrics& b, double tolerance = 1e-11) {
  const auto x = by_name(a), y = by_name(b);
  for (const auto& [name, value] : x) {
    const double other = y.at(name);
    if (std::isnan(value) && std::isnan(other)) continue;
    if (!(std::abs(value - other) <= tolerance * std::max(1.0, std::abs(other)))) {
      UNSCOPED_INFO(name << ": " << value << ", not " << other);
      return false;
    }
  }
  return true;
}

// Remembers what it was told.
struct listening_controller {
  double coefficient = 0.05;
  double kl = -1, samples = -1;
  void update(double k, double n) {
    kl = k;
    samples = n;
    coefficient *= 1.5;
  }
};

}  // namespace

TEST_CASE("ppo: the first minibatch meets the policy that wrote: ratio 1, nothing clipped, no KL") {
  world w;
  auto o = quick();
  o.epochs = 1;
  ppo loop(w.b, o);
  const auto m = update(loop, w);
  CHECK(m.first_ratio_gap == 0);
  CHECK(m.clip_fraction == 0);
  CHECK(m.approx_kl == 0);
  CHECK(m.ratio_max == 1);
  CHECK(m.sampler_gap < 1e-13);
  CHECK(m.steps == 1);
  CHECK(w.policy.weights.steps == 1);
  CHECK(w.critic.values.steps == 1);
  CHECK(w.reference.weights.steps == 0);
}

TEST_CASE("ppo: what is rewarded becomes likelier, the critic learns, the reference stays") {
  world w;
  w.starts = prompts(64, 3, 1);
  w.reward.f = [](const auto& r, index_t s) { return r.own_of(s)[0] == 2 ? 1.0 : 0.0; };
  const numbers before = w.reference.score(w.policy.generate(w.starts, w.how));
  auto o = quick();
  o.critic_rate = 5;
  ppo loop(w.b, o, fixed_kl_controller{0.01});
  ppo_metrics first = update(loop, w), last;
  for (int i = 0; i < 40; ++i) last = update(loop, w);
  CHECK(first.score < 0.6);
  CHECK(last.score > 0.9);
  CHECK(last.kl > first.kl);
  CHECK(last.entropy < first.entropy);
  CHECK(last.value_mean > 0.6);
  CHECK(loop.state().updates == 41);
}

TEST_CASE("ppo: metrics are what they say") {
  world w;
  w.starts[3].tokens = {1, 3};  // one text after a reset
  w.starts[4].max_new_tokens = 0;
  auto o = quick();
  ppo loop(w.b, o);
  const auto r = w.policy.generate(w.starts, w.how);
  const auto score = w.reward.reward(r);
  const auto ref = w.reference.score(r), logp = w.policy.score(r), values = w.critic.score(r);
  const auto m = loop.update(w.policy, w.critic, w.reference, w.reward, r);
  double sum = 0, kl = 0, entropy = 0, value = 0, ended = 0, length_max = 0;
  for (std::size_t s = 0; s < 12; ++s) {
    sum += score[s] / 12;
    ended += r.ended[s] / 12.0;
    length_max = std::max(length_max, static_cast<double>(r.own[s + 1] - r.own[s]));
  }
  const double n = static_cast<double>(logp.size());
  for (std::size_t t = 0; t < logp.size(); ++t) kl += logp[t] - ref[t], entropy -= logp[t] / n, value += values[t] / n;
  CHECK(m.score == Catch::Approx(sum));
  CHECK(m.score_min == *std::min_element(score.begin(), score.end()));
  CHECK(m.score_max == *std::max_element(score.begin(), score.end()));
  CHECK(m.kl == Catch::Approx(kl / 12));
  CHECK(m.kl_per_token == Catch::Approx(kl / n));
  CHECK(m.kl_coefficient == 0.05);
  CHECK(m.entropy == Catch::Approx(entropy));
  CHECK(m.value_mean == Catch::Approx(value));
  CHECK(m.ended == Catch::Approx(ended));
  CHECK(m.length == Catch::Approx(n / 12));
  CHECK(m.length_max == length_max);
  CHECK(m.empty == Catch::Approx(1.0 / 12));
  CHECK(m.texts == 12);
  CHECK(m.tokens == static_cast<std::int64_t>(n));
  CHECK(m.given == Catch::Approx(1.0 / 12));
  CHECK(m.cut == 1);
  CHECK(m.score_given == Catch::Approx(score[3]));
  CHECK(m.score_fresh == Catch::Approx((sum * 12 - score[3]) / 11));
  CHECK(m.equal_groups == 0);
  CHECK(m.steps == 4);
  double kl_given = 0;
  for (auto t = static_cast<std::size_t>(r.own[3]); t < static_cast<std::size_t>(r.own[4]); ++t) kl_given += logp[t] - ref[t];
  CHECK(std::abs(kl_given - kl / 12) > 0.01);
  CHECK(m.kl_given == Catch::Approx(kl_given));
  CHECK(m.kl_fresh == Catch::Approx((kl - kl_given) / 11));
  CHECK(by_name(m).at("kl_given") == m.kl_given);
  CHECK(by_name(m).at("kl_fresh") == m.kl_fresh);
  CHECK(by_name(m).size() == 36);
}

TEST_CASE("ppo: no prompt or given token gets a gradient, nor anything behind the end token") {
  world w;
  w.starts = prompts(6, 3, 1);
  w.starts.push_back({.tokens = {1, 2, 3}, .prompt_tokens = 1, .prompt = 0});
  w.starts.push_back({.tokens = {3, 3, 3, 1}, .prompt_tokens = 4, .prompt = 7});
  auto o = quick();
  o.epochs = 1;
  ppo loop(w.b, o);
  const auto r = w.policy.generate(w.starts, w.how);
  for (const auto& s : w.starts)  // rows for every beginning there is
    for (std::size_t n = 0; n <= s.tokens.size(); ++n) {
      w.policy.weights.row(std::span(s.tokens).first(n));
      w.critic.values.row(std::span(s.tokens).first(n));
    }
  const auto before = w.policy.weights, critic_before = w.critic.values;
  loop.update(w.policy, w.critic, w.reference, w.reward, r);
  std::set<ids> own;
  each_own_token(r, [&](std::size_t, std::size_t, auto context, std::int32_t) { own.insert(ids(context.begin(), context.end())); });
  std::size_t moved = 0, stayed = 0;
  for (index_t s = 0; s < r.size(); ++s)
    for (std::size_t n = 0; n <= r.text_of(s).size(); ++n) {
      const auto context = r.text_of(s).first(n);
      table a = before, c = critic_before;
      const bool is_own = own.contains(ids(context.begin(), context.end()));
      const bool same = a.row(context) == w.policy.weights.row(context) && c.row(context) == w.critic.values.row(context);
      CHECK(same != is_own);
      ++(is_own ? moved : stayed);
    }
  CHECK(moved > 5);
  CHECK(stayed > 10);
}

TEST_CASE("ppo: numbers of a suffix depend on nothing before it") {
  // The models look at own tokens alone; what was given is another text, of another length.
  struct suffix_only {
    tabular_policy<double> inner{4, 1};
    rollouts<double> without_prefix(const rollouts<double>& r) {
      rollouts<double> y;
      for (index_t s = 0; s < r.size(); ++s) y.add({.tokens = {}, .prompt_tokens = 0}, r.own_of(s), {}, r.ended[static_cast<std::size_t>(s)] != 0);
      return y;
    }
    numbers score(const rollouts<double>& r) { return inner.score(without_prefix(r)); }
    numbers forward(const rollouts<double>& r) { return score(r); }
    void backward(const rollouts<double>& r, view<const double, 1> d) { inner.backward(without_prefix(r), d); }
    void step(double rate) { inner.step(rate); }
    void discard() { inner.discard(); }
  };
  const auto trained = [](bool given) {
    serial::backend<double> b;
    suffix_only policy, critic_like{tabular_policy<double>{4, 8}}, reference{tabular_policy<double>{4, 5}};
    scored_by<double> reward{[](const auto& r, index_t s) { return random_stream{hash_of(3, r.own_of(s)), 1}.normal(0); }};
    rollouts<double> r;
    for (std::int32_t s = 0; s < 10; ++s) {
      start from{.tokens = {1}, .prompt_tokens = 1, .prompt = s};
      if (given) from.tokens.insert(from.tokens.end(), static_cast<std::size_t>(s % 4), s % 3);
      r.add(from, ids{s % 4, (s + 1) % 4, (3 * s) % 4}, {}, s % 2 == 0);
    }
    ppo loop(b, quick());
    loop.update(policy, critic_like, reference, reward, r);
    return std::pair{policy.inner.weights.everything(), critic_like.inner.weights.everything()};
  };
  CHECK(trained(false) == trained(true));
}

TEST_CASE("ppo: a text that was cut off is worth what the critic says after it in place of its score, one that ended its score") {
  struct without_after {
    tabular_critic<double>& c;
    numbers score(const rollouts<double>& r) { return c.score(r); }
    numbers forward(const rollouts<double>& r) { return c.forward(r); }
    void backward(const rollouts<double>& r, view<const double, 1> d) { c.backward(r, d); }
    void step(double rate) { c.step(rate); }
    void discard() { c.discard(); }
  };
  world w;
  const auto r = w.policy.generate(w.starts, w.how);
  auto o = quick();
  o.advantage = {.lambda = 1, .whiten = false};
  const auto returns = [&](auto& critic, bool bootstrap) {
    o.bootstrap = bootstrap;
    ppo loop(w.b, o, fixed_kl_controller{0});
    auto n = loop.ask(w.policy, critic, w.reference, w.reward, r);
    loop.advantages(n, r);
    return n.returns;
  };
  without_after less{w.critic};
  const numbers with = returns(w.critic, true), off = returns(w.critic, false), cannot = returns(less, true);
  CHECK(near(off, cannot));
  const numbers after = w.critic.after(r), score = w.reward.reward(r);
  bool some = false;
  each_own_token(r, [&](std::size_t s, std::size_t t, auto, std::int32_t) {
    some = some || !r.ended[s];
    CHECK(off[t] == Catch::Approx(score[s]));
    CHECK(with[t] == Catch::Approx(r.ended[s] ? score[s] : after[s]));
  });
  CHECK(some);
}

TEST_CASE("ppo: one state that goes on and on, every text worth 1: the value is 1, whether texts are bootstrapped or not") {
  struct one_value {
    double value = 0, gradient = 0;
    numbers score(const rollouts<double>& r) { return numbers(static_cast<std::size_t>(r.own_tokens()), value); }
    numbers after(const rollouts<double>& r) { return numbers(static_cast<std::size_t>(r.size()), value); }
    numbers forward(const rollouts<double>& r) { return score(r); }
    void backward(const rollouts<double>&, view<const double, 1> d) {
      for (index_t i = 0; i < d.extent(0); ++i) gradient += d(i);
    }
    void step(double rate) {
      value -= rate * gradient;
      discard();
    }
    void discard() { gradient = 0; }
  };
  for (const bool bootstrap : {true, false}) {
    serial::backend<double> b;
    tabular_policy<double> policy(2, 1, 0);
    one_value critic;
    scored_by<double> reward{[](const auto&, index_t) { return 1.0; }};
    no_model none;
    ppo_options<> o;
    o.bootstrap = bootstrap;
    o.policy_rate = 0;
    o.critic_rate = 2;
    ppo loop(b, o, fixed_kl_controller{0});
    double most = 0;
    for (int i = 0; i < 60; ++i) {
      const auto m = loop.step(policy, critic, none, reward, prompts(64, 1, 1), {.max_new_tokens = 3, .end_token = end_token, .seed = 1});
      REQUIRE((m.ended > 0.5 && m.ended < 1));
      most = std::max({most, critic.value, m.return_mean});
    }
    CAPTURE(bootstrap);
    CHECK(critic.value == Catch::Approx(1).epsilon(0.01));
    CHECK(most < 1 + 1e-9);
  }
}

TEST_CASE("ppo: what is wrong is told with the text and its prompt, and nothing was trained") {
  world w;
  auto r = w.policy.generate(w.starts, w.how);
  (void)w.critic.score(r);
  (void)w.critic.after(r);
  ppo loop(w.b, quick());
  const numbers before = w.everything();
  const auto refused = [&](auto& policy, auto& critic, auto& reference, auto& reward, const rollouts<double>& texts) {
    const std::string said = refusal([&] { loop.update(policy, critic, reference, reward, texts); });
    CHECK(w.everything() == before);
    CHECK(w.policy.weights.steps + w.critic.values.steps == 0);
    CHECK(loop.state().updates == 0);
    return said;
  };
  scored_by<double> nan_reward{[](const auto&, index_t s) { return s == 5 ? std::nan("") : 1.0; }};
  CHECK(refused(w.policy, w.critic, w.reference, nan_reward, r) == "plumb: ppo: reward.reward gave nan for text 5 (prompt 2). Nothing was trained.");
  scored_by<double> far_reward{[](const auto&, index_t s) { return s == 7 ? -std::numeric_limits<double>::infinity() : 1.0; }};
  CHECK(refused(w.policy, w.critic, w.reference, far_reward, r) == "plumb: ppo: reward.reward gave -inf for text 7 (prompt 1). Nothing was trained.");

  struct short_reward {
    numbers reward(const rollouts<double>&) { return {1, 2, 3}; }
  } three;
  CHECK(refused(w.policy, w.critic, w.reference, three, r) ==
        "plumb: ppo: reward.reward gave 3 numbers, but there are 12 texts. Nothing was trained.");

  struct short_critic : tabular_critic<double> {
    numbers score(const rollouts<double>&) { return {1, 2}; }
  } two;
  CHECK(refused(w.policy, two, w.reference, w.reward, r) ==
        "plumb: ppo: critic.score gave 2 numbers, but there are " + std::to_string(r.own_tokens()) + " own tokens. Nothing was trained.");

  struct nan_reference {
    tabular_policy<double> p{4, 5};
    numbers score(const rollouts<double>& x) {
      auto y = p.score(x);
      y[static_cast<std::size_t>(x.own[4]) + 1] = std::nan("");
      return y;
    }
  } broken;
  REQUIRE(r.own_count(4) > 1);
  CHECK(refused(w.policy, w.critic, broken, w.reward, r) ==
        "plumb: ppo: reference.score gave nan for own token 1 of text 4 (prompt 1). Nothing was trained.");

  struct short_after : tabular_critic<double> {
    numbers after(const rollouts<double>&) { return {}; }
  } no_after;
  CHECK(refused(w.policy, no_after, w.reference, w.reward, r) ==
        "plumb: ppo: critic.after gave 0 numbers, but there are 12 texts. Nothing was trained.");

  no_model none;
  CHECK(refused(w.policy, w.critic, none, w.reward, r) ==
        "plumb: ppo: the KL coefficient is 0.05, but there is no reference: give one, or the controller fixed_kl_controller{0}. Nothing was "
        "trained.");
  rollouts<double> unknown;
  for (index_t s = 0; s < r.size(); ++s) unknown.add(r.start_of(s), r.own_of(s), {}, r.ended[static_cast<std::size_t>(s)] != 0);
  auto as_sampled = quick();
  as_sampled.rescore = false;
  ppo sampled(w.b, as_sampled);
  CHECK(refusal([&] { sampled.update(w.policy, w.critic, w.reference, w.reward, unknown); }) ==
        "plumb: ppo: the sampler gave nan for own token 0 of text 0 (prompt 0). Nothing was trained.");
  CHECK(w.everything() == before);
  r.own_first[2] -= 1;
  CHECK(refused(w.policy, w.critic, w.reference, w.reward, r) ==
        "plumb: ppo: the places of text 2 of the rollout do not go together: make it with `rollouts::add`.");
}

TEST_CASE("ppo: log-probabilities that the sampler did not give: a gap that is not known, and nothing else") {
  world w, other;
  const auto r = w.policy.generate(w.starts, w.how);
  rollouts<double> unknown;
  for (index_t s = 0; s < r.size(); ++s) unknown.add(r.start_of(s), r.own_of(s), {}, r.ended[static_cast<std::size_t>(s)] != 0);
  ppo loop(w.b, quick()), known(other.b, quick());
  auto m = loop.update(w.policy, w.critic, w.reference, w.reward, unknown);
  CHECK(std::isnan(m.sampler_gap));
  auto n = known.update(other.policy, other.critic, other.reference, other.reward, r);
  CHECK(n.sampler_gap < 1e-13);
  m.sampler_gap = n.sampler_gap;
  CHECK(near(m, n, 0));
  CHECK(w.policy.weights.weights() == other.policy.weights.weights());
}

TEST_CASE("ppo: replies that are compared with each other began alike") {
  const auto said = [](auto formula, const std::function<void(start&)>& change) {
    world w;
    change(w.starts[4]);  // prompt 1, as text 1
    ppo loop(w.b, quick<decltype(formula)>(), fixed_kl_controller{0});
    no_model none;
    std::string what;
    if constexpr (needs_critic<decltype(formula)>) {
      what = refusal([&] { loop.step(w.policy, w.critic, none, w.reward, w.starts, w.how); });
    } else {
      what = refusal([&] { loop.step(w.policy, none, w.reward, w.starts, w.how); });
    }
    const bool refused = what != "(it was not refused)";
    CHECK((w.policy.weights.steps == 0) == refused);
    CHECK((loop.state().updates == 0) == refused);
    return what;
  };
  const std::string want =
      "plumb: ppo: texts 1 and 4 are of prompt 1, but begin differently, so they are no group. `start::prompt` tells prompts apart.";
  const auto other_prompt = [](start& s) { s.tokens = {3}; };
  const auto cut = [](start& s) { s.tokens.push_back(1); };
  const auto renumbered = [](start& s) { s.tokens.push_back(1), s.prompt = 40; };
  for (const std::function<void(start&)>& change : {std::function<void(start&)>(other_prompt), {cut}}) {
    CHECK(said(advantage::grpo{}, change) == want);
    CHECK(said(advantage::rloo{}, change) == want);
    CHECK(said(advantage::centered{}, change) == want);
    CHECK(said(advantage::batch_scaled{}, change) == want);
    CHECK(said(advantage::reinforce_plus_plus_baseline{}, change) == want);
    CHECK(said(advantage::reinforce_plus_plus{}, change) == "(it was not refused)");
    CHECK(said(advantage::gae{}, change) == "(it was not refused)");
  }
  CHECK(said(advantage::grpo{}, renumbered) == "(it was not refused)");
  CHECK(said(advantage::grpo{}, [](start& s) { s.tokens = {2, 1}, s.prompt_tokens = 2; }) == want);
}

TEST_CASE("ppo: an update that begins too far from the old log-probabilities is refused") {
  struct with_dropout : tabular_policy<double> {
    using tabular_policy<double>::tabular_policy;
    double off = 0;
    numbers forward(const rollouts<double>& r) {
      auto y = tabular_policy<double>::forward(r);
      if (forwards == 2) y.back() -= off;  // in the second micro-batch of the first minibatch, or after the first step
      return y;
    }
  };
  const auto said = [](double off, double tolerance, index_t micro_batch) {
    world w;
    with_dropout policy(4, 1);
    policy.off = off;
    auto o = quick();
    o.micro_batch = micro_batch;
    o.start_tolerance = tolerance;
    ppo loop(w.b, o);
    const std::string what = refusal([&] { loop.step(policy, w.critic, w.reference, w.reward, w.starts, w.how); });
    const bool refused = what != "(it was not refused)";
    CHECK((policy.weights.steps == 0 && w.critic.values.steps == 0) == refused);
    if (refused) {
      for (const double g : policy.weights.gradients()) CHECK(g == 0);
      for (const double g : w.critic.values.gradients()) CHECK(g == 0);
    }
    CHECK((loop.state().updates == 0) == refused);
    return what;
  };
  CHECK(said(0.25, 0.2, 6) ==
        "plumb: ppo: before the first step a log-probability is 0.25 away from the old one, more than `start_tolerance` (0.2): forward differs from "
        "score (dropout, padding, precision, another temperature or policy). Nothing was trained.");
  CHECK(said(0.25, 0.3, 6) == "(it was not refused)");
  CHECK(said(0.25, 0, 6) == "(it was not refused)");
  CHECK(said(0.25, 0.2, 0) == "(it was not refused)");
  CHECK(said(0, 1e-20, 6) == "(it was not refused)");
  world w;
  auto o = quick();
  o.start_tolerance = -1;
  CHECK(refusal([&] { ppo loop(w.b, o); }) ==
        "plumb: ppo: option `start_tolerance` is -1 but must be 0 (off) or positive. Nothing was written.");
}

TEST_CASE("ppo: a policy that writes something else than it was asked for") {
  struct other : tabular_policy<double> {
    using tabular_policy<double>::tabular_policy;
    std::function<void(rollouts<double>&)> change;
    rollouts<double> generate(std::span<const start> starts, const sampling& how) {
      auto r = tabular_policy<double>::generate(starts, how);
      change(r);
      return r;
    }
  };
  const auto said = [](std::function<void(rollouts<double>&)> change, double temperature = 1) {
    world w;
    other policy(4, 1);
    policy.change = std::move(change);
    w.how.temperature = temperature;
    ppo loop(w.b, quick());
    return refusal([&] { loop.step(policy, w.critic, w.reference, w.reward, w.starts, w.how); });
  };
  CHECK(said([](auto& r) { r = r.select(ids{0, 1, 2}); }) ==
        "plumb: ppo: policy.generate gave 3 texts, but there are 12 starts. Nothing was trained.");
  CHECK(said([](auto& r) { r = r.select(ids{1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}); }) ==
        "plumb: ppo: text 0 of policy.generate does not begin with start 0. Nothing was trained.");
  CHECK(said([](auto& r) { r.prompt[4] = 9; }) == "plumb: ppo: text 4 of policy.generate does not begin with start 4. Nothing was trained.");
  CHECK(said([](auto& r) { r.temperature = 1; }, 0.7) ==
        "plumb: ppo: policy.generate gave log-probabilities at temperature 1, but 0.7 was asked for. Nothing was trained.");
  CHECK(said([](auto&) {}, 0) == "(it was not refused)");
}

TEST_CASE("ppo: weights that break on the way: the gradients are discarded, the state stays, and it is said how far it came") {
  struct breaking : tabular_policy<double> {
    using tabular_policy<double>::tabular_policy;
    numbers forward(const rollouts<double>& r) {
      auto y = tabular_policy<double>::forward(r);
      if (forwards == 5) y.back() = std::nan("");
      return y;
    }
  };
  world w;
  breaking policy(4, 1);
  auto o = quick();
  o.minibatches = 2;
  o.micro_batch = 3;  // a gradient of the third minibatch's first half is there when it breaks
  ppo loop(w.b, o);
  const std::string said = refusal([&] { loop.step(policy, w.critic, w.reference, w.reward, w.starts, w.how); });
  CHECK(said.find("plumb: ppo: policy.forward gave nan for own token ") == 0);
  // The text by its number in the rollout, not in the micro-batch: starts had their prompts in turn.
  const auto text = said.find("of text "), prompt = said.find(" (prompt ");
  REQUIRE((text != std::string::npos && prompt != std::string::npos));
  CHECK(std::stoi(said.substr(text + 8)) > 2);
  CHECK(std::stoi(said.substr(text + 8)) % 3 == std::stoi(said.substr(prompt + 9)));
  CHECK(said.find(". The gradients were discarded; 2 steps of this update stood before.") != std::string::npos);
  CHECK(policy.weights.steps == 2);
  for (const double g : policy.weights.gradients()) CHECK(g == 0);
  for (const double g : w.critic.values.gradients()) CHECK(g == 0);
  CHECK(loop.state().updates == 0);
}

TEST_CASE("ppo: rollouts without a token, or without a text") {
  world w;
  auto o = quick();
  o.scaling = score_scaling::normalize;
  ppo loop(w.b, o, adaptive_kl_controller{});
  for (auto& s : w.starts) s.max_new_tokens = 0;
  const numbers before = w.everything();
  auto m = update(loop, w);
  CHECK(m.empty == 1);
  CHECK(m.tokens == 0);
  CHECK(m.steps == 0);
  CHECK(std::isfinite(m.score));
  CHECK(std::isnan(m.policy_loss));
  w.starts.clear();
  m = update(loop, w);
  CHECK(m.texts == 0);
  CHECK(std::isnan(m.score));
  CHECK(w.everything() == before);
  CHECK(loop.state().updates == 2);
  CHECK(loop.state().controller.coefficient == 0.05);

  ppo groups(w.b, quick<advantage::grpo>(), fixed_kl_controller{0});
  no_model none;
  CHECK(groups.step(w.policy, none, w.reward, w.starts, w.how).texts == 0);

  // Some texts without a token: the others learn as if these were not there.
  const auto learned = [](bool with_empty) {
    world v;
    auto options = quick();
    options.advantage.whiten = false;
    ppo l(v.b, options);
    auto r = v.policy.generate(v.starts, v.how);
    if (with_empty) {
      rollouts<double> mixed;
      for (std::int32_t s = 0; s < 12; ++s) {
        mixed.add({.tokens = {3}, .prompt_tokens = 1, .prompt = 77}, {}, {}, false);
        mixed.append(r.select(ids{s}));
      }
      r = mixed;
    }
    l.update(v.policy, v.critic, v.reference, v.reward, r);
    return v.policy.weights.weights();
  };
  CHECK(near(learned(true), learned(false)));
}

TEST_CASE("ppo: rewards that are all equal teach groups nothing, and break nothing") {
  world w;
  w.reward.f = [](const auto&, index_t) { return 3.5; };
  no_model none;
  const auto unmoved = [&](auto formula) {
    using formula_type = decltype(formula);
    (void)w.policy.generate(w.starts, w.how);
    const numbers before = w.policy.weights.weights();
    ppo loop(w.b, quick<formula_type>(), fixed_kl_controller{0});
    const auto m = loop.step(w.policy, none, w.reward, w.starts, w.how);
    CHECK(m.equal_groups == 1);
    CHECK(m.advantage_sd == 0);
    CHECK(w.policy.weights.weights() == before);
  };
  unmoved(advantage::grpo{});
  unmoved(advantage::rloo{});
  unmoved(advantage::batch_normalized{});
  unmoved(advantage::reinforce_plus_plus_baseline{});
  auto o = quick();
  o.scaling = score_scaling::normalize;
  ppo loop(w.b, o);
  for (int i = 0; i < 5; ++i) {
    const auto m = update(loop, w);
    CHECK(std::isfinite(m.policy_loss));
    CHECK(std::isfinite(m.value_loss));
  }
  for (const double x : w.policy.weights.weights()) CHECK(std::isfinite(x));
}

TEST_CASE("ppo: an early stop discards the gradient that told of it") {
  auto o = quick();
  o.policy_rate = 20;
  o.epochs = 6;
  o.minibatches = 2;
  world stopped;
  o.target_kl = 0.03;
  ppo loop(stopped.b, o);
  const auto m = update(loop, stopped);
  REQUIRE(m.stopped);
  REQUIRE(m.steps > 0);
  CHECK(m.steps < 12);
  CHECK(m.skipped == 0);
  CHECK(stopped.policy.weights.steps == m.steps);
  CHECK(stopped.critic.values.steps == m.steps);
  CHECK(stopped.policy.weights.discards == 1);
  for (const double g : stopped.policy.weights.gradients()) CHECK(g == 0);
  for (const double g : stopped.critic.values.gradients()) CHECK(g == 0);
  // The same steps, taken by a policy that counts to there.
  struct counting : tabular_policy<double> {
    using tabular_policy<double>::tabular_policy;
    int most = 0;
    void step(double rate) {
      if (weights.steps < most) {
        tabular_policy<double>::step(rate);
      } else {
        discard();
      }
    }
  };
  world w;
  counting policy(4, 1);
  policy.most = m.steps;
  o.target_kl = 0;
  ppo other(w.b, o);
  CHECK(other.step(policy, w.critic, w.reference, w.reward, w.starts, w.how).steps == 12);
  CHECK(policy.weights.weights() == stopped.policy.weights.weights());
  CHECK(loop.state().updates == 1);
}

TEST_CASE("ppo: a minibatch of far ratios is left out, the next one is tried") {
  auto o = quick();
  o.policy_rate = 500;
  o.epochs = 3;
  world w;
  o.ratio_limit = 1.02;
  ppo loop(w.b, o);
  const auto m = update(loop, w);
  REQUIRE(m.skipped > 0);
  CHECK(m.steps + m.skipped == 3);
  REQUIRE(m.steps == 1);
  CHECK_FALSE(m.stopped);
  CHECK(w.policy.weights.steps == m.steps);
  CHECK(w.policy.weights.discards == m.skipped);
  for (const double g : w.policy.weights.gradients()) CHECK(g == 0);
  o.ratio_limit = 0;
  o.epochs = 1;
  world once;
  ppo other(once.b, o);
  update(other, once);
  CHECK(w.policy.weights.weights() == once.policy.weights.weights());
}

TEST_CASE("ppo: micro-batches and the order of texts change nothing but rounding; uneven lengths, resets and empty texts") {
  const auto trained = [](index_t micro_batch, bool reversed, aggregation aggregate, index_t minibatches) {
    world w;
    for (std::size_t i = 0; i < w.starts.size(); ++i)  // cuts of 0 to 3 tokens
      w.starts[i].tokens.insert(w.starts[i].tokens.end(), i % 4, static_cast<std::int32_t>(1 + i % 3));
    w.starts[5].max_new_tokens = 0;
    auto o = quick();
    o.micro_batch = micro_batch;
    o.minibatches = minibatches;
    o.policy.aggregate = o.value.aggregate = aggregate;
    o.policy.kl_coefficient = 0.1;
    o.advantage.whiten_rewards = true;
    ppo loop(w.b, o);
    auto r = w.policy.generate(w.starts, w.how);
    if (reversed) r = r.select(ids{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0});
    const auto m = loop.update(w.policy, w.critic, w.reference, w.reward, r);
    return std::pair{w.everything(), m};
  };
  for (const auto aggregate : {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum})
    for (const index_t minibatches : {1, 3}) {
      const auto [want, metrics] = trained(0, false, aggregate, minibatches);
      for (const index_t micro_batch : {1, 2, 5, 100}) {
        const auto [got, m] = trained(micro_batch, false, aggregate, minibatches);
        CHECK(near(got, want));
        CHECK(near(m, metrics));
      }
      if (minibatches > 1) continue;
      const auto [got, m] = trained(2, true, aggregate, minibatches);
      CHECK(near(got, want));
      CHECK(near(m, metrics));
    }
}

TEST_CASE("ppo: metrics of all minibatches and micro-batches, each token once") {
  // Old log-probs that are not the policy's, and a policy that does not move: every split has to say the same.
  const auto measured = [](index_t minibatches, index_t micro_batch, int epochs, aggregation of_values = aggregation::token_mean) {
    world w;
    auto r = w.policy.generate(w.starts, w.how);
    for (std::size_t t = 0; t < r.logp.size(); ++t) r.logp[t] += 0.3 * random_stream{5, 1}.normal(t);
    auto o = quick();
    o.rescore = false;
    o.value.aggregate = of_values;
    o.policy_rate = o.critic_rate = 0;
    o.minibatches = minibatches;
    o.micro_batch = micro_batch;
    o.epochs = epochs;
    ppo loop(w.b, o);
    auto m = loop.update(w.policy, w.critic, w.reference, w.reward, r);
    const double n = static_cast<double>(r.own_tokens());
    double clipped = 0, kl = 0, most = 0;
    const auto logp = w.policy.score(r);
    auto numbers_of = loop.ask(w.policy, w.critic, w.reference, w.reward, r);
    loop.advantages(numbers_of, r);
    for (std::size_t t = 0; t < logp.size(); ++t) {
      const double l = logp[t] - r.logp[t], ratio = std::exp(l), a = numbers_of.advantages[t];
      clipped += ((a > 0 && ratio > 1.2) || (a < 0 && ratio < 0.8)) / n;
      kl -= l / n;
      most = std::max(most, ratio);
    }
    CHECK(m.clip_fraction == Catch::Approx(clipped).epsilon(1e-12));
    CHECK(m.approx_kl == Catch::Approx(kl).epsilon(1e-12));
    CHECK(m.ratio_max == Catch::Approx(most).epsilon(1e-12));
    CHECK(m.first_ratio_gap > 0.1);
    CHECK(m.steps == minibatches * epochs);
    return m;
  };
  const auto one = measured(1, 0, 1);
  CHECK(one.clip_fraction > 0.05);
  CHECK(measured(4, 2, 3).explained_variance == Catch::Approx(one.explained_variance).epsilon(1e-12));
  // 12 texts in minibatches of equal size: the mean of their means over texts is that of all.
  const double by_text = measured(1, 0, 1, aggregation::sequence_mean).value_loss;
  CHECK(std::abs(by_text - one.value_loss) > 1e-3 * one.value_loss);
  CHECK(measured(3, 1, 2, aggregation::sequence_mean).value_loss == Catch::Approx(by_text).epsilon(1e-12));
  CHECK(measured(1, 5, 2).value_loss == Catch::Approx(one.value_loss).epsilon(1e-12));
  CHECK(measured(1, 5, 2).policy_loss == Catch::Approx(one.policy_loss).epsilon(1e-12));
}

TEST_CASE("ppo: the order of minibatches is drawn anew each epoch and update, from the seed") {
  const auto trained = [](std::uint64_t seed, std::uint64_t update_number) {
    world w;
    auto o = quick();
    o.minibatches = 4;
    o.seed = seed;
    ppo loop(w.b, o);
    loop.restore({.updates = update_number});
    loop.update(w.policy, w.critic, w.reference, w.reward, w.policy.generate(w.starts, w.how));
    return w.everything();
  };
  CHECK(trained(1, 0) == trained(1, 0));
  CHECK(trained(1, 0) != trained(2, 0));
  CHECK(trained(1, 0) != trained(1, 1));
  // More minibatches than texts: one text each.
  world w;
  w.starts = prompts(3, 3, 1);
  auto o = quick();
  o.minibatches = 8;
  ppo loop(w.b, o);
  CHECK(update(loop, w).steps == 12);
}

namespace {

// One step of plain gradient descent on `-sum_t A_t logp_t / tokens`, the advantages given by the score and the number of each text.
template <class Advantage>
void compare_with_direct(Advantage formula, const std::function<numbers(const rollouts<double>&, const numbers&)>& direct) {
  world w;
  w.starts = {};
  for (const std::int32_t p : {0, 2, 1, 0, 1, 1, 0, 9})  // out of group order; the last is alone
    w.starts.push_back({.tokens = {1 + p % 3}, .prompt_tokens = 1, .prompt = p});
  auto o = quick<Advantage>();
  o.advantage = formula;
  o.epochs = 1;
  const auto r = w.policy.generate(w.starts, w.how);
  tabular_policy<double> other = w.policy;
  const numbers advantages = direct(r, w.reward.reward(r));
  numbers d(advantages.size());
  for (std::size_t t = 0; t < d.size(); ++t) d[t] = -advantages[t] / static_cast<double>(d.size());
  other.backward(r, d);
  other.step(1);
  no_model none;
  ppo loop(w.b, o, fixed_kl_controller{0});
  loop.step(w.policy, none, w.reward, w.starts, w.how);
  CHECK(near(w.policy.weights.weights(), other.weights.weights()));
}
numbers spread(const rollouts<double>& r, const numbers& of_text) {
  numbers y;
  for (std::size_t s = 0; s < of_text.size(); ++s) y.insert(y.end(), static_cast<std::size_t>(r.own_count(static_cast<index_t>(s))), of_text[s]);
  return y;
}
numbers whitened(numbers x) {
  double mean = 0, variance = 0;
  for (const double v : x) mean += v / static_cast<double>(x.size());
  for (const double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
  for (double& v : x) v = (v - mean) / std::sqrt(variance + 1e-8);
  return x;
}
// Mean, Bessel-corrected deviation and size of the group of each text.
struct group_of_text {
  double mean = 0, sd = 0, size = 0;
  group_of_text(const rollouts<double>& r, const numbers& score, std::size_t s) {
    for (std::size_t o = 0; o < score.size(); ++o)
      if (r.prompt[o] == r.prompt[s]) mean += score[o], ++size;
    mean /= size;
    for (std::size_t o = 0; o < score.size(); ++o)
      if (r.prompt[o] == r.prompt[s]) sd += (score[o] - mean) * (score[o] - mean);
    sd = size > 1 ? std::sqrt(sd / (size - 1)) : 0;
  }
};

}  // namespace

TEST_CASE("ppo: GRPO, RLOO and REINFORCE++ through the loop are what they are by hand; replies out of group order, a lone reply") {
  const auto of_texts = [](auto formula) {
    return [=](const rollouts<double>& r, const numbers& score) {
      numbers a;
      for (std::size_t s = 0; s < score.size(); ++s) a.push_back(formula(group_of_text(r, score, s), score[s]));
      return spread(r, a);
    };
  };
  compare_with_direct(advantage::grpo{.epsilon = 1e-4},
                      of_texts([](group_of_text g, double x) { return g.size > 1 ? (x - g.mean) / (g.sd + 1e-4) : 0; }));
  compare_with_direct(advantage::centered{}, of_texts([](group_of_text g, double x) { return x - g.mean; }));
  compare_with_direct(advantage::rloo{}, of_texts([](group_of_text g, double x) { return g.size > 1 ? (x - g.mean) * g.size / (g.size - 1) : 0; }));
  compare_with_direct(advantage::rloo{.alone = advantage::lone_reply::reward},
                      of_texts([](group_of_text g, double x) { return g.size > 1 ? (x - g.mean) * g.size / (g.size - 1) : x; }));
  compare_with_direct(advantage::reinforce_plus_plus{}, [](const auto& r, const numbers& score) { return whitened(spread(r, score)); });
  compare_with_direct(advantage::reinforce_plus_plus_baseline{}, [&](const auto& r, const numbers& score) {
    return whitened(of_texts([](group_of_text g, double x) { return x - g.mean; })(r, score));
  });
}

TEST_CASE("ppo: without the loop: log-probabilities in, coefficients out, and the same update to the bit") {
  world w;
  auto o = quick();
  o.epochs = 1;
  const auto r = w.policy.generate(w.starts, w.how);
  tabular_policy<double> policy = w.policy;
  tabular_critic<double> critic = w.critic;
  {
    const numbers logp = policy.score(r), ref_logp = w.reference.score(r), values = critic.score(r), score = w.reward.reward(r);
    numbers bootstrap = critic.after(r), advantages(logp.size()), returns(logp.size()), d_logp(logp.size()), d_values(logp.size());
    for (std::size_t s = 0; s < bootstrap.size(); ++s)
      if (r.ended[s]) bootstrap[s] = 0;
    desk<double> d;
    const double tokens = static_cast<double>(logp.size());
    rollout_advantages(d.compute, d.scratch,
                       {.logp = logp, .ref_logp = ref_logp, .score = score, .ended = r.ended, .values = values, .bootstrap = bootstrap,
                        .sequences = r.layout()},
                       advantage::gae{}, {.rewards = {.kl_coefficient = 0.05}}, {.advantages = advantages, .returns = returns});
    policy_loss(d.compute, d.scratch, {.logp = logp, .old_logp = logp, .advantages = advantages, .sequences = r.layout()}, surrogate::clip{},
                {.denominator = tokens}, {.d_logp = d_logp});
    value_loss(d.compute, d.scratch, {.values = values, .old_values = values, .returns = returns, .sequences = r.layout()},
               {.denominator = tokens, .weight = 0.1}, {.d_values = d_values});
    policy.backward(r, d_logp);
    policy.step(1);
    critic.backward(r, d_values);
    critic.step(1);
  }
  ppo loop(w.b, o);
  loop.update(w.policy, w.critic, w.reference, w.reward, r);
  CHECK(w.policy.weights.everything() == policy.weights.everything());
  CHECK(w.critic.values.everything() == critic.values.everything());
}

TEST_CASE("ppo: the controller hears the KL of whole sequences and the number of texts, and its answer counts from the next update") {
  world w;
  ppo loop(w.b, quick(), listening_controller{});
  const auto first = update(loop, w);
  CHECK(loop.state().controller.kl == first.kl);
  CHECK(first.kl == Catch::Approx(first.kl_per_token * first.length));
  CHECK(loop.state().controller.samples == 12);
  CHECK(first.kl_coefficient == 0.05);
  CHECK(update(loop, w).kl_coefficient == Catch::Approx(0.075));

  // A controller that cannot go on says so before anything is trained.
  world v;
  ppo refusing(v.b, quick(), adaptive_kl_controller{.target = 1e6, .horizon = 2});
  (void)v.critic.score(v.policy.generate(v.starts, v.how));
  (void)v.critic.after(v.policy.generate(v.starts, v.how));
  const numbers before = v.everything();
  CHECK(refusal([&] { update(refusing, v); }).find("plumb: adaptive_kl_controller: 12 samples at a horizon of 2") == 0);
  CHECK(v.everything() == before);
  CHECK(refusing.state().updates == 0);
}

TEST_CASE("ppo: a run that is taken up again ends as one that was not cut, to the bit") {
  auto o = quick();
  o.minibatches = 3;
  o.scaling = score_scaling::normalize;
  const adaptive_kl_controller controller{.target = 0.5, .horizon = 100};
  world whole;
  ppo loop(whole.b, o, controller);
  for (int i = 0; i < 5; ++i) update(loop, whole);

  world first;
  ppo one(first.b, o, controller);
  for (int i = 0; i < 2; ++i) update(one, first);
  const auto saved = one.state();
  world second = first;  // the models' own checkpoints
  ppo two(second.b, o, controller);
  two.restore(saved);
  ppo_metrics last;
  for (int i = 0; i < 3; ++i) last = update(two, second);
  CHECK(second.everything() == whole.everything());
  CHECK(two.state().updates == 5);
  CHECK(two.state().controller.coefficient == loop.state().controller.coefficient);
  CHECK(two.state().scores[moments_squares] == loop.state().scores[moments_squares]);
}

TEST_CASE("ppo: the sampling temperature is that of every log-probability") {
  world w;
  w.how.temperature = 0.5;
  ppo loop(w.b, quick());
  const auto m = update(loop, w);
  CHECK(m.sampler_gap < 1e-13);
  CHECK(m.first_ratio_gap == 0);
  // A trainer that forgets it is seen.
  struct forgetful : tabular_policy<double> {
    using tabular_policy<double>::tabular_policy;
    numbers score(rollouts<double> r) {
      r.temperature = 1;
      return tabular_policy<double>::score(r);
    }
    numbers forward(const rollouts<double>& r) { return score(r); }
  } policy(4, 1);
  CHECK(loop.step(policy, w.critic, w.reference, w.reward, w.starts, w.how).sampler_gap > 0.1);
}

TEST_CASE("ppo: scores are scaled by all that came so far") {
  for (const bool normalize : {false, true}) {
    world w;
    auto o = quick();
    o.scaling = normalize ? score_scaling::normalize : score_scaling::scale;
    o.rewards.rewards.score_max = 1.5;
    o.advantage = {.lambda = 1, .whiten = false};
    ppo loop(w.b, o, fixed_kl_controller{0});
    w.reward.f = [](const auto& r, index_t s) { return 10 + 3 * random_stream{hash_of(3, r.text_of(s)), 1}.normal(0); };
    numbers seen;
    const auto moments_of = [&] {
      double mean = 0, squares = 0;
      for (const double x : seen) mean += x / static_cast<double>(seen.size());
      for (const double x : seen) squares += (x - mean) * (x - mean) / static_cast<double>(seen.size() - 1);
      return std::pair{mean, std::sqrt(squares)};
    };
    ppo_metrics m;
    for (int i = 0; i < 3; ++i) {
      sampling how = w.how;
      how.step = static_cast<std::uint64_t>(i);
      const auto r = w.policy.generate(w.starts, how);
      const auto score = w.reward.reward(r);
      seen.insert(seen.end(), score.begin(), score.end());
      const auto moments = moments_of();
      const double mean = moments.first, sd = moments.second;
      const auto after = w.critic.after(r);
      double want = 0;
      each_own_token(r, [&](std::size_t s, std::size_t, auto, std::int32_t) {
        want += r.ended[s] ? std::min(1.5, (score[s] - (normalize ? mean : 0)) / sd) : after[s];
      });
      m = update(loop, w);
      CHECK(m.score > 7);  // as the reward model said it
      CHECK(m.return_mean == Catch::Approx(want / static_cast<double>(r.own_tokens())).epsilon(1e-10));
    }
  }
}

TEST_CASE("ppo: at first the critic may learn alone") {
  world w;
  auto o = quick();
  o.critic_warmup = 2;
  ppo loop(w.b, o);
  for (int i = 0; i < 2; ++i) {
    const auto m = update(loop, w);
    CHECK(w.policy.weights.steps == 0);
    CHECK(w.critic.values.steps == 4 * (i + 1));
    CHECK(m.steps == 4);
    CHECK(std::isnan(m.policy_loss));
    CHECK(std::isfinite(m.value_loss));
  }
  update(loop, w);
  CHECK(w.policy.weights.steps == 4);
  auto none = quick<advantage::grpo>();
  none.critic_warmup = 1;
  CHECK(refusal([&] { ppo groups(w.b, none); }) ==
        "plumb: ppo: option `critic_warmup` is 1 but must be 0: this advantage needs no critic. Nothing was written.");
}

TEST_CASE("ppo: texts that were cut off are trained on or not; their rewards count in their groups") {
  const auto trained = [](bool skip) {
    world w;
    w.how.max_new_tokens = 2;
    auto o = quick<advantage::grpo>();
    o.skip_truncated = skip;
    o.epochs = 1;
    no_model none;
    const auto r = w.policy.generate(w.starts, w.how);
    const numbers before = w.policy.weights.weights();
    ppo loop(w.b, o, fixed_kl_controller{0});
    loop.update(w.policy, none, w.reward, r);
    tabular_policy<double> old(4, 1);
    std::size_t moved = 0;
    for (index_t s = 0; s < r.size(); ++s)
      if (!r.ended[static_cast<std::size_t>(s)]) {
        const auto context = r.text_of(s).first(2);  // own to this text, or to others that were cut off or ended there
        moved += old.weights.row(context) != w.policy.weights.row(context);
      }
    return std::tuple{moved, before != w.policy.weights.weights(), w.policy.weights.weights()};
  };
  const auto [all, any, weights] = trained(false);
  const auto [fewer, still, less] = trained(true);
  CHECK(any);
  CHECK(still);
  CHECK(fewer < all);
  CHECK(weights != less);
}

TEST_CASE("ppo: a policy with its adapter off is its own reference") {
  struct adapted : tabular_policy<double> {
    using tabular_policy<double>::tabular_policy;
    tabular_policy<double> base{4, 1};
    bool on = true, fails = false;
    int switched = 0;
    void adapter(bool x) {
      on = x;
      ++switched;
    }
    numbers score(const rollouts<double>& r) {
      if (!on && fails) fail(message("my model") << "out of memory");
      return on ? tabular_policy<double>::score(r) : base.score(r);
    }
  };
  world w, copy;
  adapted policy(4, 1);
  adapter_off off(policy);
  tabular_policy<double> other(4, 1), reference(4, 1);
  ppo loop(w.b, quick()), by_copy(copy.b, quick());
  for (int i = 0; i < 3; ++i) {
    const auto m = loop.step(policy, w.critic, off, w.reward, w.starts, w.how);
    CHECK(near(m, by_copy.step(other, copy.critic, reference, copy.reward, copy.starts, copy.how), 0));
    CHECK(policy.on);
    if (i == 0) CHECK(m.kl == 0);
    if (i == 2) CHECK(m.kl != 0);
  }
  CHECK(policy.weights.everything() == other.weights.everything());
  CHECK(policy.switched == 6);
  policy.fails = true;
  CHECK(refusal([&] { loop.step(policy, w.critic, off, w.reward, w.starts, w.how); }) == "plumb: my model: out of memory");
  CHECK(policy.on);
}

TEST_CASE("ppo: a policy that writes from states of the host's own") {
  struct handle {
    int sequence;
  };
  struct hosted : tabular_policy<double> {
    using tabular_policy<double>::tabular_policy;
    std::vector<start> cache = prompts(3, 3, 1);
    rollouts<double> generate(std::span<const handle> states, const sampling& how) {
      std::vector<start> starts;
      for (const handle h : states) starts.push_back(cache[static_cast<std::size_t>(h.sequence)]);
      return tabular_policy<double>::generate(starts, how);
    }
  };
  world w, plain;
  hosted policy(4, 1);
  std::vector<handle> states;
  for (int i = 0; i < 12; ++i) states.push_back({i % 3});
  ppo loop(w.b, quick()), other(plain.b, quick());
  loop.step(policy, w.critic, w.reference, w.reward, states, w.how);
  update(other, plain);
  CHECK(policy.weights.everything() == plain.policy.weights.everything());
}

TEST_CASE("ppo: options that make no sense") {
  world w;
  const auto refused = [&](auto change) {
    auto o = quick();
    change(o);
    return refusal([&] { ppo loop(w.b, o); });
  };
  CHECK(refused([](auto& o) { o.epochs = 0; }) == "plumb: ppo: option `epochs` is 0 but must be 1 or more. Nothing was written.");
  CHECK(refused([](auto& o) { o.minibatches = 0; }) == "plumb: ppo: option `minibatches` is 0 but must be 1 or more. Nothing was written.");
  CHECK(refused([](auto& o) { o.advantage.gamma = 2; }) == "plumb: ppo: option `gamma` is 2 but must be in [0, 1]. Nothing was written.");
  CHECK(refused([](auto& o) { o.policy.entropy_coefficient = 0.01; }) ==
        "plumb: ppo: option `policy.entropy_coefficient` is 0.01, but a policy gives the loop no entropies: call `policy_loss` yourself for a bonus. "
        "Nothing was written.");
  CHECK(refused([](auto& o) { o.scaling = static_cast<score_scaling>(9); }).find("option `scaling`") != std::string::npos);
  ppo loop(w.b, quick(), fixed_kl_controller{0});
  CHECK(refusal([&] { loop.set_rates(-1, 0); }) == "plumb: ppo: option `policy_rate` is -1 but must be 0 or positive. Nothing was written.");
  loop.set_rates(0, 0);
  (void)w.critic.score(w.policy.generate(w.starts, w.how));
  (void)w.critic.after(w.policy.generate(w.starts, w.how));
  const numbers before = w.policy.weights.weights();
  update(loop, w);
  CHECK(w.policy.weights.weights() == before);
  CHECK(w.policy.weights.steps == 4);
  auto o = quick();
  o.policy.kl_coefficient = 0.1;
  ppo without(w.b, o, fixed_kl_controller{0});
  no_model none;
  CHECK(refusal([&] { without.step(w.policy, w.critic, none, w.reward, w.starts, w.how); }) ==
        "plumb: ppo: option `policy.kl_coefficient` is 0.1, but there is no reference. Nothing was trained.");
}

namespace {

// The gradient of an expectation over replies by the logits of each beginning, by central differences through all of them.
template <class F>
numbers exact_gradient(tabular_policy<double> policy, const start& from, const F& value) {
  const auto expected = [&](tabular_policy<double>& p) {
    const auto all = all_replies(p, from, end_token, 3);
    const auto logp = text_logp(all, all.logp);
    double y = 0;
    for (index_t s = 0; s < all.size(); ++s) y += std::exp(logp[static_cast<std::size_t>(s)]) * value(p, all, s, logp[static_cast<std::size_t>(s)]);
    return y;
  };
  std::vector<ids> contexts;
  each_reply(static_cast<std::int32_t>(policy.weights.columns()), end_token, 3, [&](const ids& own, bool) {
    for (std::size_t n = 0; n < own.size(); ++n) {
      ids context = from.tokens;
      context.insert(context.end(), own.begin(), own.begin() + static_cast<std::ptrdiff_t>(n));
      if (std::find(contexts.begin(), contexts.end(), context) == contexts.end()) contexts.push_back(context);
    }
  });
  std::sort(contexts.begin(), contexts.end());
  numbers gradient;
  for (const auto& c : contexts)
    for (std::size_t k = 0; k < policy.weights.columns(); ++k) {
      const double step = 1e-5, here = policy.weights.row(c)[k];
      policy.weights.row(c)[k] = here + step;
      const double up = expected(policy);
      policy.weights.row(c)[k] = here - step;
      const double down = expected(policy);
      policy.weights.row(c)[k] = here;
      gradient.push_back((up - down) / (2 * step));
    }
  return gradient;
}

}  // namespace

TEST_CASE("ppo: summed over all replies the gradient is that of the expected reward") {
  // Each reply once, a prompt of its own, its score times its probability: a lone reply keeps its reward, and the loop's mean is the expectation.
  world w;
  tabular_policy<double> policy(3, 1);
  const start from{.tokens = {1}, .prompt_tokens = 1};
  const auto all = all_replies(policy, from, end_token, 3);
  const auto logp = text_logp(all, all.logp);
  const auto score = w.reward.reward(all);
  auto o = quick<advantage::centered, surrogate::ratio>();
  o.advantage.alone = advantage::lone_reply::reward;
  o.policy.aggregate = aggregation::sequence_sum;
  o.epochs = 1;
  o.policy_rate = 1;
  o.micro_batch = 4;
  scored_by<double> weighted{[&](const auto& r, index_t s) {
    const auto n = static_cast<std::size_t>(s);
    return static_cast<double>(r.size()) * std::exp(logp[n]) * score[n];
  }};
  policy.weights.momentum = 0;
  const tabular_policy<double> before = policy;
  no_model none;
  ppo loop(w.b, o, fixed_kl_controller{0});
  loop.update(policy, none, weighted, all);
  numbers got = policy.weights.weights();
  const numbers old = before.weights.weights();
  for (std::size_t i = 0; i < got.size(); ++i) got[i] -= old[i];  // up the gradient
  const auto exact = exact_gradient(before, from, [&](auto&, const auto& r, index_t s, double) {
    return w.reward.reward(r)[static_cast<std::size_t>(s)];
  });
  CHECK(near(got, exact, 1e-8));
}

TEST_CASE("ppo: on average over samples the gradient is that of the expected reward less the KL, with any critic") {
  // One whose value after a text that was cut off is what that text is worth: such texts may be bootstrapped.
  struct knowing : tabular_critic<double> {
    using tabular_critic<double>::tabular_critic;
    scored_by<double> reward = hashed_score<double>();
    numbers after(const rollouts<double>& r) { return reward.reward(r); }
  };
  world w;
  tabular_policy<double> policy(3, 1), reference(3, 5);
  policy.weights.momentum = 0;
  const start from{.tokens = {1}, .prompt_tokens = 1};
  (void)all_replies(policy, from, end_token, 3);
  constexpr double coefficient = 0.3;
  const auto exact = exact_gradient(policy, from, [&](auto&, const auto& r, index_t s, double logp) {
    const auto n = static_cast<std::size_t>(s);
    return w.reward.reward(r)[n] - coefficient * (logp - text_logp(r, reference.score(r))[n]);
  });
  auto o = quick<advantage::gae, surrogate::ratio>();
  o.policy.aggregate = aggregation::sequence_sum;
  o.epochs = 1;
  o.critic_rate = 0;
  for (const auto& [shaped, bootstrap] : {std::pair{true, false}, {false, false}, {true, true}}) {
    CAPTURE(shaped, bootstrap);
    o.bootstrap = bootstrap;
    o.advantage = {.gamma = 1, .lambda = 1, .whiten = false};
    numbers mean(exact.size()), squares(exact.size());
    constexpr int batches = 40;
    for (int i = 0; i < batches; ++i) {
      tabular_policy<double> p = policy;
      knowing critic(2, shaped ? 1 : 0);  // some values, or none
      ppo loop(w.b, o, fixed_kl_controller{coefficient});
      loop.restore({.updates = static_cast<std::uint64_t>(i), .controller = {coefficient}});
      loop.step(p, critic, reference, w.reward, std::vector<start>(300, from), {.max_new_tokens = 3, .end_token = end_token, .seed = 6});
      const numbers now = p.weights.weights(), old = policy.weights.weights();
      REQUIRE(now.size() == exact.size());
      for (std::size_t k = 0; k < now.size(); ++k) {
        const double g = now[k] - old[k];
        mean[k] += g / batches;
        squares[k] += g * g / batches;
      }
    }
    double distance = 0, size = 0;
    for (std::size_t k = 0; k < exact.size(); ++k) {
      const double error = std::sqrt(std::max(squares[k] - mean[k] * mean[k], 0.0) / (batches - 1));
      CAPTURE(k, mean[k], exact[k], error);
      CHECK(std::abs(mean[k] - exact[k]) < 4.5 * error + 1e-6);
      distance += (mean[k] - exact[k]) * (mean[k] - exact[k]);
      size += exact[k] * exact[k];
    }
    CHECK(distance < 0.02 * size);
  }
}

TEST_CASE("ppo: first updates in float are those in double, to rounding") {
  serial::backend<float> b;
  serial::backend<double> serial;
  CHECK(largest_difference(first_updates(b), first_updates(serial)) < 2e-5);
}

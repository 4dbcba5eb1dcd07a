// What may stand for a model, and the reference that an adapter leaves behind.
#include "support/tabular_models.hpp"

#include <array>
#include <deque>

using namespace plumb;
using namespace plumb_test;

namespace {

template <class Range>
struct gives {
  Range score(const rollouts<float>&);
};
static_assert(token_scorer<gives<std::vector<float>>, float>);
static_assert(token_scorer<gives<const std::vector<float>&>, float>);
static_assert(token_scorer<gives<std::span<const float>>, float>);
static_assert(token_scorer<gives<std::span<float>>, float>);
static_assert(token_scorer<gives<std::array<float, 3>>, float>);
static_assert(!token_scorer<gives<std::vector<double>>, float>);
static_assert(!token_scorer<gives<std::deque<float>>, float>);
static_assert(!token_scorer<gives<float>, float>);

struct writes_floats {
  rollouts<float> generate(std::span<const start>, const sampling&);
};
static_assert(generator<writes_floats, float>);
static_assert(!generator<writes_floats, double>);
static_assert(!generator<writes_floats, float, int>);
static_assert(check_policy<tabular_policy<double>, double>());
static_assert(bootstrapping_critic<tabular_critic<float>, float>);
static_assert(!reward_model<tabular_critic<float>, float>);

}  // namespace

TEST_CASE("models may answer with a view of one buffer, good until their next call") {
  struct buffered {
    tabular_policy<double> inner{3, 1};
    std::vector<double> buffer;
    std::span<const double> put(std::vector<double> x) {
      for (double& old : buffer) old = std::nan("");  // what was given before is gone
      buffer = std::move(x);
      return buffer;
    }
    std::span<const double> score(const rollouts<double>& r) { return put(inner.score(r)); }
    std::span<const double> forward(const rollouts<double>& r) { return put(inner.forward(r)); }
    void backward(const rollouts<double>& r, view<const double, 1> d) {
      put({});
      inner.backward(r, d);
    }
    void step(double rate) { inner.step(rate); }
    void discard() { inner.discard(); }
    rollouts<double> generate(std::span<const start> starts, const sampling& how) { return inner.generate(starts, how); }
  };
  const auto trained = [](auto policy, auto critic, auto reference) {
    serial::backend<double> b;
    auto reward = hashed_score<double>();
    ppo_options<> o;
    o.policy_rate = o.critic_rate = 1;
    o.micro_batch = 2;
    ppo loop(b, o);
    for (int i = 0; i < 2; ++i) loop.step(policy, critic, reference, reward, prompts(6, 2), {.max_new_tokens = 3, .end_token = 0});
    return policy;
  };
  tabular_policy<double> policy(3, 1), reference(3, 4);
  buffered other, other_reference{reference, {}};
  CHECK(trained(policy, tabular_critic<double>(), reference).weights.everything() ==
        trained(other, tabular_critic<double>(), other_reference).inner.weights.everything());
}

TEST_CASE("adapter_off: the adapter is off for the score alone, and on again whatever happens") {
  struct adapted {
    bool on = true, fails = false;
    std::vector<bool> seen;
    void adapter(bool x) { on = x; }
    std::vector<float> score(const rollouts<float>& r) {
      seen.push_back(on);
      if (fails) fail(message("my model") << "no memory");
      return std::vector<float>(static_cast<std::size_t>(r.own_tokens()), on ? 1.0f : 2.0f);
    }
  } policy;
  adapter_off off(policy);
  rollouts<float> r;
  r.add({.tokens = {1}, .prompt_tokens = 1}, ids{1, 2}, {}, true);
  CHECK(off.score(r) == std::vector<float>{2, 2});
  CHECK(policy.on);
  CHECK(policy.score(r) == std::vector<float>{1, 1});
  policy.fails = true;
  CHECK(refusal([&] { (void)off.score(r); }) == "plumb: my model: no memory");
  CHECK(policy.on);
  CHECK(policy.seen == std::vector<bool>{false, true, false});
}

TEST_CASE("sampling: its ranges") {
  const auto refused = [](sampling how) { return refusal([&] { how.require("x"); }); };
  CHECK(refused({}) == "(it was not refused)");
  CHECK(refused({.temperature = 0, .top_p = 0.1, .max_new_tokens = 0}) == "(it was not refused)");
  CHECK(refused({.temperature = std::nan("")}).find("option `temperature` is nan") != std::string::npos);
  CHECK(refused({.top_p = 1.1}).find("option `top_p` is 1.1") != std::string::npos);
}

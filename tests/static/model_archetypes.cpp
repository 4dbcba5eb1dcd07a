// The loops compile with the least models there are, what they compute with the least backend.
#include <plumb/algorithms/drpo.hpp>
#include <plumb/algorithms/ppo.hpp>
#include <plumb/backends/serial.hpp>
#include <plumb/testing/archetypes.hpp>
#include <plumb/testing/model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

static_assert(check_policy<minimal_policy<float>, float>());
static_assert(check_policy<minimal_policy<double, minimal_state>, double, minimal_state>());
static_assert(check_trainable<minimal_critic<float>, float>());
static_assert(check_token_scorer<minimal_reference<float>, float>());
static_assert(check_reward<minimal_reward<double>, double>());
static_assert(bootstrapping_critic<minimal_bootstrapping_critic<float>, float>);
static_assert(!bootstrapping_critic<minimal_critic<float>, float>);

// No more than they are.
static_assert(!trainable<minimal_reference<float>, float>);
static_assert(!policy_model<minimal_critic<float>, float>);
static_assert(!reward_model<minimal_policy<float>, float>);
static_assert(!token_scorer<minimal_reference<float>, double>);  // numbers of another type
static_assert(!policy_model<minimal_policy<float, minimal_state>, float>);
static_assert(!token_scorer<no_model, float> && !reward_model<no_model, float>);

// A policy with an adapter is its own reference.
template <class Real>
struct adapted_policy : minimal_policy<Real> {
  void adapter(bool on);
};
static_assert(token_scorer<adapter_off<adapted_policy<float>>, float>);

// Never called: that it compiles is the test.
template <class Real, class State>
void every_loop(serial::backend<Real>& b, minimal_policy<Real, State>& policy, minimal_critic<Real>& critic,
                minimal_bootstrapping_critic<Real>& far_critic, minimal_reference<Real>& reference,
                adapter_off<adapted_policy<Real>>& without_adapter, minimal_reward<Real>& reward, const rollouts<Real>& r,
                std::span<const State> starts) {
  no_model none;
  ppo with_values(b, ppo_options<>{}, adaptive_kl_controller{});
  with_values.update(policy, critic, reference, reward, r);
  with_values.step(policy, far_critic, without_adapter, reward, starts, {});
  with_values.step(policy, critic, none, reward, starts, {});
  ppo groups(b, ppo_options<advantage::grpo, surrogate::gmpo>{});
  groups.update(policy, none, reward, r);
  groups.step(policy, reference, reward, starts, {});
  ppo plain(b, ppo_options<advantage::reinforce_plus_plus, surrogate::reinforce>{});
  plain.step(policy, none, reward, starts, {});
}
template void every_loop(serial::backend<float>&, minimal_policy<float>&, minimal_critic<float>&, minimal_bootstrapping_critic<float>&,
                         minimal_reference<float>&, adapter_off<adapted_policy<float>>&, minimal_reward<float>&, const rollouts<float>&,
                         std::span<const start>);
template void every_loop(serial::backend<double>&, minimal_policy<double, minimal_state>&, minimal_critic<double>&,
                         minimal_bootstrapping_critic<double>&, minimal_reference<double>&, adapter_off<adapted_policy<double>>&,
                         minimal_reward<double>&, const rollouts<double>&, std::span<const minimal_state>);

template <class B>
void every_advantage(B& b, arena_of<B>& scratch) {
  rollout_advantages(b, scratch, {}, advantage::gae{}, {}, {});
  rollout_advantages(b, scratch, {}, advantage::reinforce_plus_plus{}, {}, {});
  rollout_advantages(b, scratch, {}, advantage::reinforce_plus_plus_baseline{}, {}, {});
  rollout_advantages(b, scratch, {}, advantage::grpo{}, {}, {});
  rollout_advantages(b, scratch, {}, advantage::batch_normalized{}, {}, {});
}
template void every_advantage(minimal_backend<>&, arena<archetype_space>&);
template void every_advantage(minimal_backend<double, float>&, arena<archetype_space>&);

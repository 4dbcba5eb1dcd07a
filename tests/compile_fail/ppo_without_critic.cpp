// An advantage made of values needs a critic.
// expect-error: plumb: this advantage is made of values: ppo needs a critic
#include <plumb/algorithms/ppo.hpp>
#include <plumb/testing/model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
using advantages = advantage::gae;
#else
using advantages = advantage::grpo;
#endif

void train(ppo<serial::backend<float>, advantages>& loop, minimal_policy<float>& policy, minimal_reference<float>& reference,
           minimal_reward<float>& reward, const rollouts<float>& r) {
  loop.update(policy, reference, reward, r);
}

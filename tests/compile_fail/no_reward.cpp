// A reward model that takes something else.
// expect-error: plumb: this reward model has no reward(rollouts) that gives one number per text: see docs/models.md, "reward"
#include <plumb/testing/model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
struct my_reward : minimal_model {
  std::span<const float> reward(std::span<const std::int32_t> text);
};
#else
using my_reward = minimal_reward<float>;
#endif

static_assert(check_reward<my_reward, float>());

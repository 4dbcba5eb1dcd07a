// A policy that cannot learn is told what it lacks.
// expect-error: plumb: this model has no backward(rollouts, derivatives): see docs/models.md, "backward"
#include <plumb/testing/model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
struct my_policy : minimal_policy<float> {
 private:
  using minimal_policy<float>::backward;
};
#else
using my_policy = minimal_policy<float>;
#endif

static_assert(check_policy<my_policy, float>());

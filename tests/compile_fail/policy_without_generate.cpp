// A policy that does not write, or from other states than it is given.
// expect-error: plumb: this policy has no generate(starts, sampling) that gives rollouts: see docs/models.md, "generate"
#include <plumb/testing/model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
using state = minimal_state;
#else
using state = start;
#endif

static_assert(check_policy<minimal_policy<float>, float, state>());

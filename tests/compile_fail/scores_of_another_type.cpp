// Log-probabilities in double are none for a loop in float.
// expect-error: plumb: this model has no score(rollouts) that gives one number per own token: see docs/models.md, "score"
#include <plumb/testing/model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
struct my_reference : minimal_model {
  std::span<const double> score(const rollouts<float>& r);
};
#else
using my_reference = minimal_reference<float>;
#endif

static_assert(check_token_scorer<my_reference, float>());

// A policy is no language model: it writes whole replies.
// expect-error: plumb: this language model has no type `sequence`: see docs/models.md, "sequence"
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
using my_model = minimal_policy<float>;
#else
using my_model = minimal_language_model;
#endif

static_assert(check_language_model<my_model>());

// A judge that wants the response alone.
// expect-error: plumb: this evaluator has neither operator()(candidate) that gives a number nor score_many(candidates, scores): see docs/models.md, "evaluator"
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
struct my_judge : minimal_model {
  double operator()(std::span<const std::int32_t> response);
};
#else
using my_judge = minimal_evaluator;
#endif

static_assert(check_evaluator<my_judge>());

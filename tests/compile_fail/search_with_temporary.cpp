// Model, judge or embedder without a name, which the search could not refer to.
// expect-error: plumb: the model is a temporary: give it a name, since the search refers to it
// expect-error: plumb: the judge is a temporary: give it a name, since the search refers to it
// expect-error: plumb: the embedder is a temporary: give it a name, since the search refers to it
#include <plumb/search.hpp>
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
template <class T>
T&& given(T& x) { return static_cast<T&&>(x); }
#else
template <class T>
T& given(T& x) { return x; }
#endif

void search(minimal_language_model& model, minimal_evaluator& judge, minimal_embedder& e, std::span<const std::int32_t> prompt) {
  decode(given(model), prompt);
  decode_best_of_n(model, given(judge), prompt);
  rain(model, judge, prompt, {}, given(e));
}

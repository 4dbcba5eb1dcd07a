// An embedder that does not say how long its vectors are, and one that returns them.
// expect-error: plumb: this embedder has no dimension() that gives a number: see docs/models.md, "embedder"
// expect-error: plumb: this embedder has no operator()(tokens, floats): see docs/models.md, "embedder"
// expect-error(g++): check_embedder() [with E = returning<2>]
// expect-error(clang++): check_embedder<returning<2>>
#include <plumb/search/rain.hpp>
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
struct of_any_length : minimal_model {
  void operator()(std::span<const std::int32_t> tokens, std::span<float> out);
};
template <int>
struct returning : minimal_model {
  std::size_t dimension() const;
  std::vector<float> operator()(std::span<const std::int32_t> tokens);
};
#else
using of_any_length = minimal_embedder;
template <int>
using returning = minimal_embedder;
#endif

void search(minimal_language_model& model, minimal_evaluator& judge, std::span<const std::int32_t> prompt, of_any_length& e0, returning<1>& e1,
            returning<2>& e2) {
  rain(model, judge, prompt, {}, e0);
  rain(model, judge, prompt, {}, e1);
  rain_search whole(model, judge, prompt, {}, e2);
}

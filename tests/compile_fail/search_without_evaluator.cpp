// A search that is called with what is no judge says so.
// expect-error: plumb: this evaluator has neither operator()(candidate) that gives a number nor score_many(candidates, scores)
// expect-error(g++): check_evaluator() [with E = judge<0>]
// expect-error(g++): check_evaluator() [with E = judge<1>]
// expect-error(g++): check_evaluator() [with E = judge<2>]
// expect-error(g++): check_evaluator() [with E = judge<3>]
// expect-error(g++): check_evaluator() [with E = judge<4>]
// expect-error(clang++): check_evaluator<judge<0>>
// expect-error(clang++): check_evaluator<judge<1>>
// expect-error(clang++): check_evaluator<judge<2>>
// expect-error(clang++): check_evaluator<judge<3>>
// expect-error(clang++): check_evaluator<judge<4>>
#include <plumb/search/blockwise_best_of_n.hpp>
#include <plumb/search/rain.hpp>
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

template <int>
struct judge : minimal_model {
#if defined(PLUMB_EXPECT_FAILURE)
  double operator()(std::span<const std::int32_t> response);
#else
  double operator()(const candidate& c);
#endif
};

void search(minimal_language_model& model, judge<0>& j0, judge<1>& j1, judge<2>& j2, judge<3>& j3, judge<4>& j4, minimal_embedder& embedder,
            std::span<const std::int32_t> prompt) {
  decode_best_of_n(model, j0, prompt);
  blockwise_best_of_n(model, j1, prompt);
  rain(model, j2, prompt);
  rain(model, j3, prompt, {}, embedder);
  rain_search whole(model, j4, prompt);
}

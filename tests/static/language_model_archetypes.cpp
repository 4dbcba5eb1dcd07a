// Every search compiles with the least models, judges and embedders there are.
#include <plumb/search/blockwise_best_of_n.hpp>
#include <plumb/search/judge_prompts.hpp>
#include <plumb/search/prompted_evaluator.hpp>
#include <plumb/search/rain.hpp>
#include <plumb/search/reward_evaluator.hpp>
#include <plumb/testing/language_model_archetypes.hpp>

#include <functional>

using namespace plumb;
using namespace plumb::testing;

static_assert(check_language_model<minimal_language_model>());
static_assert(check_language_model<minimal_rewindable_model>() && rewindable_model<minimal_rewindable_model>);
static_assert(check_language_model<minimal_batched_model>() && batched_model<minimal_batched_model>);
static_assert(check_language_model<minimal_bounded_model>() && bounded_model<minimal_bounded_model>);
static_assert(check_evaluator<minimal_evaluator>() && check_evaluator<minimal_batched_evaluator>() && check_evaluator<minimal_metered_evaluator>());
static_assert(metered_evaluator<minimal_metered_evaluator>);
static_assert(embedder<minimal_embedder> && boundary<minimal_boundary> && tokenizer<minimal_tokenizer>);
static_assert(boundary<everywhere> && boundary<nowhere> && boundary<after_token>);

// No more than they are.
static_assert(!rewindable_model<minimal_language_model> && !batched_model<minimal_language_model> && !bounded_model<minimal_language_model>);
static_assert(!rewindable_model<minimal_batched_model> && !batched_model<minimal_rewindable_model>);
static_assert(!batched_evaluator<minimal_evaluator> && !metered_evaluator<minimal_evaluator> && !evaluator<minimal_batched_evaluator>);
static_assert(!language_model<minimal_evaluator> && !any_evaluator<minimal_language_model> && !embedder<no_embedder>);

// Never called: that it compiles is the test.
template <class M, class E>
void every_search(M& model, E& judge, minimal_embedder& alike, minimal_boundary& place, std::span<const std::int32_t> prompt) {
  decode(model, prompt, {.stop = std::ref(place)});
  decode_many(model, prompt, 4);
  decode_best_of_n(model, judge, prompt, {.stop = std::ref(place)});
  blockwise_best_of_n(model, judge, prompt, {.boundary = std::ref(place)});
  rain(model, judge, prompt);
  rain_options options;
  options.boundary = std::ref(place);
  rain(model, judge, prompt, options, alike);
}
template void every_search(minimal_language_model&, minimal_evaluator&, minimal_embedder&, minimal_boundary&, std::span<const std::int32_t>);
template void every_search(minimal_rewindable_model&, minimal_batched_evaluator&, minimal_embedder&, minimal_boundary&,
                           std::span<const std::int32_t>);
template void every_search(minimal_batched_model&, minimal_metered_evaluator&, minimal_embedder&, minimal_boundary&, std::span<const std::int32_t>);
template void every_search(minimal_bounded_model&, prompted_evaluator<minimal_language_model>&, minimal_embedder&, minimal_boundary&,
                           std::span<const std::int32_t>);
template void every_search(minimal_language_model&, reward_evaluator<minimal_reward<float>>&, minimal_embedder&, minimal_boundary&,
                           std::span<const std::int32_t>);

template <class M>
void every_judge(M& model, const minimal_tokenizer& words) {
  prompted_evaluator<M> judge(model, make_judge_prompt(words, harmlessness_wording()));
  judge(candidate{});
}
template void every_judge(minimal_batched_model&, const minimal_tokenizer&);

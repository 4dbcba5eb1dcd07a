// A search that is called with half a model says what the model lacks.
// expect-error: plumb: this language model has no is_end(token): see docs/models.md, "is_end"
// expect-error: plumb: this language model has no vocab_size(): see docs/models.md, "vocab_size"
// expect-error: plumb: this language model has no open() that gives a sequence: see docs/models.md, "open"
// expect-error: plumb: this language model has no fork(sequence) that gives another: see docs/models.md, "fork"
// expect-error: plumb: this language model has no append(sequence, tokens): see docs/models.md, "append"
// expect-error: plumb: this language model has no logits(sequence) that gives floats: see docs/models.md, "logits"
// expect-error: plumb: this language model has no size(sequence): see docs/models.md, "size"
#include <plumb/search/blockwise_best_of_n.hpp>
#include <plumb/search/rain.hpp>
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
template <int>
struct without : minimal_language_model {};
template <>
struct without<0> : minimal_language_model {
 private:
  using minimal_language_model::is_end;
};
template <>
struct without<1> : minimal_language_model {
 private:
  using minimal_language_model::vocab_size;
};
template <>
struct without<2> : minimal_language_model {
 private:
  using minimal_language_model::open;
};
template <>
struct without<3> : minimal_language_model {
 private:
  using minimal_language_model::fork;
};
template <>
struct without<4> : minimal_language_model {
 private:
  using minimal_language_model::append;
};
template <>
struct without<5> : minimal_language_model {
 private:
  using minimal_language_model::logits;
};
template <>
struct without<6> : minimal_language_model {
 private:
  using minimal_language_model::size;
};
#else
template <int>
using without = minimal_language_model;
#endif

void search(without<0>& m0, without<1>& m1, without<2>& m2, without<3>& m3, without<4>& m4, without<5>& m5, without<6>& m6, minimal_evaluator& judge,
            minimal_embedder& embedder, std::span<const std::int32_t> prompt) {
  decode(m0, prompt, {.temperature = 0});
  decode_many(m1, prompt, 2);
  decode_best_of_n(m2, judge, prompt, {.n = 2});
  blockwise_best_of_n(m3, judge, prompt);
  rain(m4, judge, prompt);
  rain(m5, judge, prompt, {}, embedder);
  rain_search whole(m6, judge, prompt);
}

// A model that does not say how many tokens a sequence has.
// expect-error: plumb: this language model has no size(sequence): see docs/models.md, "size"
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

struct my_model : minimal_model {
  using sequence = minimal_sequence;
  index_t vocab_size() const;
  bool is_end(std::int32_t token) const;
  sequence open();
  sequence fork(const sequence& s);
  void append(sequence& s, std::span<const std::int32_t> tokens);
  std::span<const float> logits(const sequence& s);
#if !defined(PLUMB_EXPECT_FAILURE)
  std::size_t size(const sequence& s) const;
#endif
};

static_assert(check_language_model<my_model>());

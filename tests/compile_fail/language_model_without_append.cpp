// One token at a time.
// expect-error: plumb: this language model has no append(sequence, tokens): see docs/models.md, "append"
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

struct my_model : minimal_model {
  using sequence = minimal_sequence;
  index_t vocab_size() const;
  bool is_end(std::int32_t token) const;
  sequence open();
  sequence fork(const sequence& s);
#if defined(PLUMB_EXPECT_FAILURE)
  void append(sequence& s, std::int32_t token);
#else
  void append(sequence& s, std::span<const std::int32_t> tokens);
#endif
  std::span<const float> logits(const sequence& s);
  std::size_t size(const sequence& s) const;
};

static_assert(check_language_model<my_model>());

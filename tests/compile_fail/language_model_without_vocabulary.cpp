// Asked of a model that cannot be changed.
// expect-error: plumb: this language model has no vocab_size(): see docs/models.md, "vocab_size"
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

struct my_model : minimal_model {
  using sequence = minimal_sequence;
#if defined(PLUMB_EXPECT_FAILURE)
  index_t vocab_size();
#else
  index_t vocab_size() const;
#endif
  bool is_end(std::int32_t token) const;
  sequence open();
  sequence fork(const sequence& s);
  void append(sequence& s, std::span<const std::int32_t> tokens);
  std::span<const float> logits(const sequence& s);
  std::size_t size(const sequence& s) const;
};

static_assert(check_language_model<my_model>());

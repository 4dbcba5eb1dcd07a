// Logits of the engine's own type.
// expect-error: plumb: this language model has no logits(sequence) that gives floats: see docs/models.md, "logits"
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
#if defined(PLUMB_EXPECT_FAILURE)
  std::vector<double> logits(const sequence& s);
#else
  std::span<const float> logits(const sequence& s);
#endif
  std::size_t size(const sequence& s) const;
};

static_assert(check_language_model<my_model>());

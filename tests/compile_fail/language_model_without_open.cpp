// A sequence only of a first text.
// expect-error: plumb: this language model has no open() that gives a sequence: see docs/models.md, "open"
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

struct my_model : minimal_model {
  using sequence = minimal_sequence;
  index_t vocab_size() const;
  bool is_end(std::int32_t token) const;
#if defined(PLUMB_EXPECT_FAILURE)
  sequence open(std::span<const std::int32_t> tokens);
#else
  sequence open();
#endif
  sequence fork(const sequence& s);
  void append(sequence& s, std::span<const std::int32_t> tokens);
  std::span<const float> logits(const sequence& s);
  std::size_t size(const sequence& s) const;
};

static_assert(check_language_model<my_model>());

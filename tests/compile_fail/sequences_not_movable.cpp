// Sequences that stay where they are.
// expect-error: plumb: this language model's sequences cannot be moved: see docs/models.md, "sequence"
#include <plumb/testing/language_model_archetypes.hpp>

using namespace plumb;
using namespace plumb::testing;

#if defined(PLUMB_EXPECT_FAILURE)
struct my_sequence {
  my_sequence(const my_sequence&) = delete;
};
#else
using my_sequence = minimal_sequence;
#endif

struct my_model : minimal_model {
  using sequence = my_sequence;
  index_t vocab_size() const;
  bool is_end(std::int32_t token) const;
  sequence open();
  sequence fork(const sequence& s);
  void append(sequence& s, std::span<const std::int32_t> tokens);
  std::span<const float> logits(const sequence& s);
  std::size_t size(const sequence& s) const;
};

static_assert(check_language_model<my_model>());

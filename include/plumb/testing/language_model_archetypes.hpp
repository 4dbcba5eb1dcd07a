#pragma once
// The least that language models and what goes with them are: exactly the required members, not copyable, without bodies, and answers that convert to
// what is asked for and do nothing else. A search that compiles with these asks no more than model/language_model.hpp says; they are never linked.

#include <plumb/model/language_model.hpp>
#include <plumb/testing/model_archetypes.hpp>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// An answer that becomes a `T` and has nothing else of it.
template <class T>
class minimal_value {
 public:
  minimal_value() = delete;
  minimal_value(const minimal_value&) = delete;
  minimal_value(minimal_value&&) = default;
  operator T() const;
};

/// Can be moved, and cannot be made.
class minimal_sequence {
 public:
  minimal_sequence() = delete;
  minimal_sequence(const minimal_sequence&) = delete;
  minimal_sequence& operator=(const minimal_sequence&) = delete;
  minimal_sequence(minimal_sequence&&) noexcept;
  minimal_sequence& operator=(minimal_sequence&&) noexcept;
  ~minimal_sequence();
};

/// Models `language_model`.
struct minimal_language_model : minimal_model {
  using sequence = minimal_sequence;
  minimal_value<index_t> vocab_size() const;
  minimal_value<bool> is_end(std::int32_t token) const;
  sequence open();
  sequence fork(const sequence& s);
  void append(sequence& s, std::span<const std::int32_t> tokens);
  minimal_numbers<float> logits(const sequence& s);
  minimal_value<std::size_t> size(const sequence& s) const;
};
/// Models `rewindable_model`.
struct minimal_rewindable_model : minimal_language_model {
  minimal_value<bool> rewind(sequence& s, std::size_t n);
};
/// Models `batched_model`.
struct minimal_batched_model : minimal_language_model {
  void append_many(std::span<const sequence_step<minimal_batched_model>> steps);
  minimal_value<index_t> max_sequences() const;
};
/// Models `bounded_model`.
struct minimal_bounded_model : minimal_language_model {
  minimal_value<index_t> context() const;
};

/// Models `evaluator`.
struct minimal_evaluator : minimal_model {
  minimal_value<double> operator()(const candidate& c);
};
/// Models `batched_evaluator`.
struct minimal_batched_evaluator : minimal_model {
  void score_many(std::span<const candidate> candidates, std::span<double> scores);
};
/// Models `metered_evaluator`.
struct minimal_metered_evaluator : minimal_evaluator {
  minimal_value<std::int64_t> tokens_used() const;
  minimal_value<std::int64_t> cost(const candidate& c) const;
};

/// Models `embedder`.
struct minimal_embedder : minimal_model {
  minimal_value<std::size_t> dimension() const;
  void operator()(std::span<const std::int32_t> tokens, std::span<float> out);
};
/// Models `boundary`.
struct minimal_boundary : minimal_model {
  minimal_value<bool> operator()(std::span<const std::int32_t> response);
};
/// Models `tokenizer`.
struct minimal_tokenizer : minimal_model {
  minimal_value<std::vector<std::int32_t>> encode(std::string text) const;
  minimal_value<std::string> decode(std::span<const std::int32_t> tokens) const;
};

}  // namespace testing

PLUMB_NAMESPACE_END

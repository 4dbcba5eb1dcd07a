#pragma once
// What a search asks of the engine that runs a language model, and of what judges, compares and cuts the texts. A few members each; the engine, its
// memory and its weights stay the host's. Tokens are `std::int32_t`, as everywhere.

#include <plumb/core/error.hpp>

#include <concepts>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

/// A sequence that an engine holds: move-only handle; destroying it gives its memory back.
template <class M>
using sequence_of = typename M::sequence;

/// A language model that can be read from any place of a text.
/// - `m.open()`: a sequence without tokens;
/// - `m.fork(s)`: another sequence of the same tokens, what it shares with `s` shared if the engine can; changing one does not change the other;
/// - `m.append(s, tokens)`: at least one token is read;
/// - `m.logits(s)`: `[vocab_size()]`, of the token that follows; asked for after `append` (or `append_many`) of `s`, before any call that changes a
///   sequence;
/// - `m.size(s)`: tokens that were read; `m.vocab_size()`; `m.is_end(token)`: whether a text ends with that token.
///
/// Laws: logits are a function of the tokens alone, up to rounding where another split of the calls rounds differently, and to the bit for the same
/// calls. What throws leaves the other sequences as they were; the one that was appended to is not used again.
template <class M>
concept language_model = std::movable<sequence_of<M>> &&
    requires(M& m, const M& seen, sequence_of<M>& s, const sequence_of<M>& other, std::span<const std::int32_t> tokens) {
      { seen.vocab_size() } -> std::convertible_to<index_t>;
      { seen.is_end(std::int32_t{}) } -> std::convertible_to<bool>;
      { m.open() } -> std::same_as<sequence_of<M>>;
      { m.fork(other) } -> std::same_as<sequence_of<M>>;
      m.append(s, tokens);
      { m.logits(other) } -> std::convertible_to<std::span<const float>>;
      { seen.size(other) } -> std::convertible_to<std::size_t>;
    };

/// `m.rewind(s, n)`: `s` keeps its first `n` tokens. False: it cannot, and `s` is as it was (recurrent models, sliding windows).
template <class M>
concept rewindable_model = language_model<M> && requires(M& m, sequence_of<M>& s, std::size_t n) {
  { m.rewind(s, n) } -> std::convertible_to<bool>;
};

/// Tokens to be appended to a sequence, one of many in a call.
template <class M>
struct sequence_step {
  sequence_of<M>* sequence;
  std::span<const std::int32_t> tokens;
};

/// Reads many sequences in one pass.
/// - `m.append_many(steps)`: different sequences, each with at least one token; then `m.logits` of each of them, before any other call;
/// - `m.max_sequences()`: how many sequences may be alive at a time.
template <class M>
concept batched_model = language_model<M> && requires(M& m, const M& seen, std::span<const sequence_step<M>> steps) {
  m.append_many(steps);
  { seen.max_sequences() } -> std::convertible_to<index_t>;
};

/// A model that says how many tokens one sequence may have: `m.context()`.
template <class M>
concept bounded_model = language_model<M> && requires(const M& m) {
  { m.context() } -> std::convertible_to<index_t>;
};

/// Thrown by `open`, `fork`, `append` and `append_many` when there is no memory for it, and nothing was changed: who asked lets other sequences go,
/// or asks for less, and tries again.
struct sequence_memory_full : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A reply, or the beginning of one, that is to be judged.
struct candidate {
  std::span<const std::int32_t> prompt{};
  std::span<const std::int32_t> response{};
  bool finished = false;  ///< it ends here: with the end token, or where the caller's stop says so
};

/// Judges a text: `e(candidate)`, in [-1, 1] where a search weighs values against visits.
template <class E>
concept evaluator = requires(E& e, const candidate& c) {
  { e(c) } -> std::convertible_to<double>;
};
/// Judges many: `e.score_many(candidates, scores)`, the same numbers as one by one.
template <class E>
concept batched_evaluator = requires(E& e, std::span<const candidate> c, std::span<double> scores) { e.score_many(c, scores); };
template <class E>
concept any_evaluator = evaluator<E> || batched_evaluator<E>;
/// An evaluator that runs a model itself: `e.tokens_used()`, forward tokens so far, and `e.cost(c)`, those that `c` will take at most. They count in
/// a search's budget. Neither throws.
template <class E>
concept metered_evaluator = any_evaluator<E> && requires(const E& e, const candidate& c) {
  { e.tokens_used() } -> std::convertible_to<std::int64_t>;
  { e.cost(c) } -> std::convertible_to<std::int64_t>;
};
/// One that can be interrupted: `e.interrupt(stop, seconds)`, told before it is asked: from then on it gives up, by `detail::limit_reached`, before a
/// call of its model when `stop` is requested or the seconds have passed.
template <class E>
concept interruptible_evaluator = any_evaluator<E> && requires(E& e, const std::stop_token& stop, double seconds) { e.interrupt(stop, seconds); };

/// What a text is like: `e(tokens, out)` writes `e.dimension()` numbers, not all 0.
template <class E>
concept embedder = requires(E& e, const E& seen, std::span<const std::int32_t> tokens, std::span<float> out) {
  { seen.dimension() } -> std::convertible_to<std::size_t>;
  e(tokens, out);
};
/// Turns off what compares texts.
struct no_embedder {};

/// Whether a text may be judged where it is: `b(response)`; asked after each token, and by RAIN of an empty response before there is one.
template <class F>
concept boundary = std::predicate<F&, std::span<const std::int32_t>>;
/// Every place is good enough: nothing is written beyond a candidate.
struct everywhere {
  bool operator()(std::span<const std::int32_t>) const { return true; }
};
/// No place is, but the end.
struct nowhere {
  bool operator()(std::span<const std::int32_t>) const { return false; }
};
/// Behind any of these tokens.
struct after_token {
  std::vector<std::int32_t> tokens;
  bool operator()(std::span<const std::int32_t> response) const {
    if (response.empty()) return false;
    for (const std::int32_t t : tokens)
      if (t == response.back()) return true;
    return false;
  }
};

/// Between text and tokens: `t.encode(text)`, `t.decode(tokens)`.
template <class T>
concept tokenizer = requires(const T& t, std::string text, std::span<const std::int32_t> tokens) {
  { t.encode(text) } -> std::convertible_to<std::vector<std::int32_t>>;
  { t.decode(tokens) } -> std::convertible_to<std::string>;
};

namespace detail {
template <class M>
concept has_sequence = requires { typename M::sequence; };
struct no_sequence {};
template <class M>
struct sequence_or_none {
  using type = no_sequence;
};
template <has_sequence M>
struct sequence_or_none<M> {
  using type = sequence_of<M>;
};
}  // namespace detail

/// Why a type is no `language_model`, in a sentence for each thing that it lacks: `static_assert(check_language_model<M>())`.
template <class M>
consteval bool check_language_model() {
  using sequence = typename detail::sequence_or_none<M>::type;
  static_assert(detail::has_sequence<M>, "plumb: this language model has no type `sequence`: see docs/models.md, \"sequence\"");
  static_assert(std::movable<sequence>, "plumb: this language model's sequences cannot be moved: see docs/models.md, \"sequence\"");
  static_assert(requires(const M& m) { { m.vocab_size() } -> std::convertible_to<index_t>; },
                "plumb: this language model has no vocab_size(): see docs/models.md, \"vocab_size\"");
  static_assert(requires(const M& m) { { m.is_end(std::int32_t{}) } -> std::convertible_to<bool>; },
                "plumb: this language model has no is_end(token): see docs/models.md, \"is_end\"");
  static_assert(requires(M& m) { { m.open() } -> std::same_as<sequence>; },
                "plumb: this language model has no open() that gives a sequence: see docs/models.md, \"open\"");
  static_assert(requires(M& m, const sequence& s) { { m.fork(s) } -> std::same_as<sequence>; },
                "plumb: this language model has no fork(sequence) that gives another: see docs/models.md, \"fork\"");
  static_assert(requires(M& m, sequence& s, std::span<const std::int32_t> tokens) { m.append(s, tokens); },
                "plumb: this language model has no append(sequence, tokens): see docs/models.md, \"append\"");
  static_assert(requires(M& m, const sequence& s) { { m.logits(s) } -> std::convertible_to<std::span<const float>>; },
                "plumb: this language model has no logits(sequence) that gives floats: see docs/models.md, \"logits\"");
  static_assert(requires(const M& m, const sequence& s) { { m.size(s) } -> std::convertible_to<std::size_t>; },
                "plumb: this language model has no size(sequence): see docs/models.md, \"size\"");
  return language_model<M>;
}
/// Likewise of what judges.
template <class E>
consteval bool check_evaluator() {
  static_assert(any_evaluator<E>,
                "plumb: this evaluator has neither operator()(candidate) that gives a number nor score_many(candidates, scores): see docs/models.md, "
                "\"evaluator\"");
  return any_evaluator<E>;
}
/// Likewise of what compares.
template <class E>
consteval bool check_embedder() {
  static_assert(requires(const E& e) { { e.dimension() } -> std::convertible_to<std::size_t>; },
                "plumb: this embedder has no dimension() that gives a number: see docs/models.md, \"embedder\"");
  static_assert(requires(E& e, std::span<const std::int32_t> tokens, std::span<float> out) { e(tokens, out); },
                "plumb: this embedder has no operator()(tokens, floats): see docs/models.md, \"embedder\"");
  return embedder<E>;
}

namespace detail {
// Anything that has a name; says what it lacks. Each search has an overload that takes these and is never defined: an argument has to be converted
// for it, so it is chosen only where nothing else fits, and its sentence is all that the compiler has to say.
struct any_model {
  template <class M>
  any_model(M&) { static_cast<void>(check_language_model<M>()); }
  template <class M>
    requires(!std::is_lvalue_reference_v<M>)
  any_model(M&&) { static_assert(sizeof(M) == 0, "plumb: the model is a temporary: give it a name, since the search refers to it"); }
};
struct any_judge {
  template <class E>
  any_judge(E&) { static_cast<void>(check_evaluator<E>()); }
  template <class E>
    requires(!std::is_lvalue_reference_v<E>)
  any_judge(E&&) { static_assert(sizeof(E) == 0, "plumb: the judge is a temporary: give it a name, since the search refers to it"); }
};
struct any_embedder {
  template <class E>
  any_embedder(E&) { static_cast<void>(check_embedder<E>()); }
  template <class E>
    requires(!std::is_lvalue_reference_v<E>)
  any_embedder(E&&) { static_assert(sizeof(E) == 0, "plumb: the embedder is a temporary: give it a name, since the search refers to it"); }
};
}  // namespace detail

PLUMB_NAMESPACE_END

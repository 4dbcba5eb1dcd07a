#pragma once
// What the loops of algorithms/ ask of the host's models: a few member functions each, over `rollouts`. No base class, no tensor type, no autograd.
//
// Numbers per own token are `[M]`, per text `[S]`, in host memory. A function that gives numbers may return any contiguous range of `Real`
// (std::vector, std::span, ...) that stays valid until the next call of the same object; loops check how many there are.

#include <plumb/model/rollouts.hpp>

#include <concepts>
#include <ranges>
#include <type_traits>

PLUMB_NAMESPACE_BEGIN

/// How to write. `sampling` of a policy's `generate`.
struct sampling {
  double temperature = 1;       ///< 0: the likeliest token; log-probabilities are then those at temperature 1
  /// Nucleus: the fewest likeliest tokens that hold this much probability. Below 1, `rollouts::logp` stays that of the whole distribution.
  double top_p = 1;
  index_t max_new_tokens = 64;  ///< own tokens of a reply, the end token among them; given tokens count too, so that replies have one length limit
  std::int32_t end_token = -1;  ///< negative: replies end only where they are cut off
  std::uint64_t seed = 0;       ///< of the run
  std::uint64_t step = 0;       ///< of the update: other steps draw other numbers
  std::uint64_t first_row = 0;  ///< number of the first text, where a batch is made in pieces: a text's numbers depend on (seed, step, its number)

  void require(const char* op) const {
    require_option(op, "temperature", temperature, temperature >= 0, "0 (greedy) or positive");
    require_option(op, "top_p", top_p, top_p > 0 && top_p <= 1, "in (0, 1]");
    require_option(op, "max_new_tokens", static_cast<double>(max_new_tokens), max_new_tokens >= 0, "0 or positive");
  }
};

namespace detail {
template <class R, class Real>
concept numbers_of = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
                     std::same_as<std::remove_cv_t<std::ranges::range_value_t<R>>, Real>;
}  // namespace detail

/// One number per own token: log-probabilities (a policy, a reference) or values of the state before it (a critic).
/// `m.score(r)` -> `[M]`. Laws: the result depends on the texts alone, not on which others are in the call; logits are divided by `r.temperature`.
template <class M, class Real>
concept token_scorer = requires(M& m, const rollouts<Real>& r) {
  { m.score(r) } -> detail::numbers_of<Real>;
};

/// A `token_scorer` that learns from the derivative of a loss by its numbers.
/// - `m.forward(r)` -> `[M]`: as `score`, and to the same bits, but remembers what `backward` needs;
/// - `m.backward(r, d)`: adds to the gradients, from `dL/d number` `[M]`; follows a `forward` of the same `r`, with no other call between;
/// - `m.step(rate)`: the optimiser moves the weights by the gradients, which are then 0;
/// - `m.discard()`: the gradients are 0, the weights as they were.
template <class M, class Real>
concept trainable = token_scorer<M, Real> && requires(M& m, const rollouts<Real>& r, view<const Real, 1> d, double rate) {
  { m.forward(r) } -> detail::numbers_of<Real>;
  m.backward(r, d);
  m.step(rate);
  m.discard();
};

/// Writes on from any start: `m.generate(starts, how)` -> `rollouts<Real>`, one text per start, in order. `sample_rollouts` (model/sampling.hpp)
/// makes it of next-token logits. `State`: what a text begins with, `start` or a type of the host's own (a handle to a sequence in its cache).
/// Laws: text `i` is a function of its start, of (seed, step, first_row + i) and of the weights; `rollouts::temperature` is `how.temperature`, or 1
/// where that is 0.
template <class M, class Real, class State = start>
concept generator = requires(M& m, std::span<const State> starts, const sampling& how) {
  { m.generate(starts, how) } -> std::convertible_to<rollouts<Real>>;
};

/// What is aligned: writes, scores, learns.
template <class M, class Real>
concept policy_model = trainable<M, Real> && generator<M, Real>;
/// Values of states; learns. With `m.after(r)` -> `[S]`, the value after each text's last token, texts that were cut off are worth that value, not
/// their score.
template <class M, class Real>
concept critic_model = trainable<M, Real>;
/// A critic that also knows the value after each text's last token.
template <class M, class Real>
concept bootstrapping_critic = critic_model<M, Real> && requires(M& m, const rollouts<Real>& r) {
  { m.after(r) } -> detail::numbers_of<Real>;
};
/// One number per text: a reward model, a verifier, a judge. `m.reward(r)` -> `[S]`.
template <class M, class Real>
concept reward_model = requires(M& m, const rollouts<Real>& r) {
  { m.reward(r) } -> detail::numbers_of<Real>;
};

/// Why a type is no `token_scorer`, in a sentence: `static_assert(check_token_scorer<M, Real>())`.
template <class M, class Real>
consteval bool check_token_scorer() {
  static_assert(token_scorer<M, Real>,
                "plumb: this model has no score(rollouts) that gives one number per own token: see docs/models.md, \"score\"");
  return token_scorer<M, Real>;
}
/// Likewise of a `trainable`: a critic, or a policy that only learns.
template <class M, class Real>
consteval bool check_trainable() {
  check_token_scorer<M, Real>();
  static_assert(requires(M& m, const rollouts<Real>& r) { { m.forward(r) } -> detail::numbers_of<Real>; },
                "plumb: this model has no forward(rollouts) that gives one number per own token: see docs/models.md, \"forward\"");
  static_assert(requires(M& m, const rollouts<Real>& r, view<const Real, 1> d) { m.backward(r, d); },
                "plumb: this model has no backward(rollouts, derivatives): see docs/models.md, \"backward\"");
  static_assert(requires(M& m, double rate) { m.step(rate); }, "plumb: this model has no step(rate): see docs/models.md, \"step\"");
  static_assert(requires(M& m) { m.discard(); }, "plumb: this model has no discard(): see docs/models.md, \"discard\"");
  return trainable<M, Real>;
}
/// Likewise of a `policy_model` that writes from `State`s.
template <class M, class Real, class State = start>
consteval bool check_policy() {
  check_trainable<M, Real>();
  static_assert(generator<M, Real, State>,
                "plumb: this policy has no generate(starts, sampling) that gives rollouts: see docs/models.md, \"generate\"");
  return trainable<M, Real> && generator<M, Real, State>;
}
/// Likewise of a `reward_model`.
template <class M, class Real>
consteval bool check_reward() {
  static_assert(reward_model<M, Real>,
                "plumb: this reward model has no reward(rollouts) that gives one number per text: see docs/models.md, \"reward\"");
  return reward_model<M, Real>;
}

/// A policy with its adapter off is its own reference: `policy.adapter(bool)` says whether the adapter counts. It is on again after each call, also
/// when the call throws.
template <class M>
class adapter_off {
 public:
  explicit adapter_off(M& policy) : policy_(policy) {}
  template <class Real>
    requires token_scorer<M, Real>
  auto score(const rollouts<Real>& r) {
    struct switch_back {
      M& policy;
      ~switch_back() { policy.adapter(true); }
    } guard{policy_};
    policy_.adapter(false);
    const auto numbers = policy_.score(r);
    return std::vector<Real>(std::begin(numbers), std::end(numbers));
  }

 private:
  M& policy_;
};

PLUMB_NAMESPACE_END

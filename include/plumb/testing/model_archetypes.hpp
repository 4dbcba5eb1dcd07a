#pragma once
// The least that the host's models are: exactly the required members, not copyable, without bodies. Loops that compile with these ask no more of a
// model than model/concepts.hpp says; they are never linked.

#include <plumb/model/concepts.hpp>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// What a model may answer with: a contiguous range of `Real` that has a size, and nothing else.
template <class Real>
class minimal_numbers {
 public:
  minimal_numbers() = delete;
  minimal_numbers(const minimal_numbers&) = delete;
  minimal_numbers(minimal_numbers&&) = default;
  const Real* begin() const;
  const Real* end() const;
};

/// Neither made nor copied by a loop.
class minimal_model {
 public:
  minimal_model() = delete;
  minimal_model(const minimal_model&) = delete;
  minimal_model& operator=(const minimal_model&) = delete;
};

/// Models `token_scorer`: what a reference is.
template <class Real>
struct minimal_reference : minimal_model {
  minimal_numbers<Real> score(const rollouts<Real>& r);
};
/// Models `trainable` and `critic_model`; has no `after`.
template <class Real>
struct minimal_critic : minimal_model {
  minimal_numbers<Real> score(const rollouts<Real>& r);
  minimal_numbers<Real> forward(const rollouts<Real>& r);
  void backward(const rollouts<Real>& r, view<const Real, 1> d);
  void step(double rate);
  void discard();
};
/// Models `bootstrapping_critic`.
template <class Real>
struct minimal_bootstrapping_critic : minimal_critic<Real> {
  minimal_numbers<Real> after(const rollouts<Real>& r);
};
/// Models `policy_model`, writing from `State`s.
template <class Real, class State = start>
struct minimal_policy : minimal_critic<Real> {
  rollouts<Real> generate(std::span<const State> starts, const sampling& how);
};
/// Models `reward_model`.
template <class Real>
struct minimal_reward : minimal_model {
  minimal_numbers<Real> reward(const rollouts<Real>& r);
};

/// A state of the host's own: a handle to a sequence in its cache.
class minimal_state {
 public:
  minimal_state() = delete;
};

}  // namespace testing

PLUMB_NAMESPACE_END

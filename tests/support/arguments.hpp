#pragma once
// One good call of each objective, with all that it may be given, to be spoilt in one place at a time.

#include "support/gradients.hpp"

#include <plumb/plumb.hpp>

#include <deque>
#include <utility>
#include <vector>

namespace plumb_test {

/// Names and places of the arrays among the inputs `In`.
template <class In>
using input_list = std::vector<std::pair<const char*, plumb::view<const double, 1> In::*>>;

/// Three tokens in two sequences; every array in memory of its own.
class good_calls {
 public:
  /// `f(operation, output, extent, inputs, list, call)`: `call(inputs, y)` runs with `y` of `extent` numbers as the output of that name.
  template <class F>
  void each(const F& f) {
    using namespace plumb;
    const index_t tokens = 3;
    const auto x = [&](index_t n) {
      memory_.emplace_back(static_cast<std::size_t>(n), -1.0);
      return view<const double, 1>(memory_.back());
    };
    auto& b = on_.compute;
    auto& scratch = on_.scratch;
    const auto sequences = sequence_layout<>::packed(cu_seqlens_, scored_), groups = sequence_layout<>::packed(prompts_);
    using P = preference_inputs<double>;
    f("preference", "loss", 1, P{x(tokens), x(tokens), {sequences, chosen_, rejected_}, x(tokens), x(1), x(1), x(1), x(1)},
      input_list<P>{{"logp", &P::logp}, {"ref_logp", &P::ref_logp}, {"token_weight", &P::token_weight}, {"margin", &P::margin},
                    {"pair_weight", &P::pair_weight}, {"reward_chosen", &P::reward_chosen}, {"reward_rejected", &P::reward_rejected}},
      [&](const P& in, view<double, 1> y) { preference(b, scratch, in, link::rpo_squared{}, {.denominator = 1}, {.loss = y}); });
    using R = reply_pairs_inputs<double>;
    f("orpo", "loss", 1, R{x(tokens), {sequences, chosen_, rejected_}}, input_list<R>{{"logp", &R::logp}},
      [&](const R& in, view<double, 1> y) { orpo(b, scratch, in, {.likelihood = {.denominator = 1}, .denominator = 1}, {.loss = y}); });
    using K = kto_inputs<double>;
    f("kto", "loss", 1, K{x(tokens), x(tokens), sequences, labels_, x(1), x(2)},
      input_list<K>{{"logp", &K::logp}, {"ref_logp", &K::ref_logp}, {"kl", &K::kl}, {"weight", &K::weight}},
      [&](const K& in, view<double, 1> y) { kto(b, scratch, in, {.denominator = 2}, {.loss = y}); });
    using C = bco_inputs<double>;
    f("bco", "d_logp", tokens, C{x(tokens), x(tokens), sequences, labels_, x(1), x(2)},
      input_list<C>{{"logp", &C::logp}, {"ref_logp", &C::ref_logp}, {"shift", &C::shift}, {"weight", &C::weight}},
      [&](const C& in, view<double, 1> y) { bco(b, scratch, in, {.denominator = 2}, {.d_logp = y}); });
    using G = policy_loss_inputs<double>;
    f("policy_loss", "loss", 1, G{x(tokens), x(tokens), x(tokens), {}, x(tokens), x(tokens), x(tokens), x(tokens), sequences},
      input_list<G>{{"logp", &G::logp}, {"old_logp", &G::old_logp}, {"advantages", &G::advantages}, {"ref_logp", &G::ref_logp},
                    {"importance_weights", &G::importance_weights}, {"kl_weights", &G::kl_weights}, {"entropy", &G::entropy}},
      [&](const G& in, view<double, 1> y) { policy_loss(b, scratch, in, surrogate::clip{}, {.kl_coefficient = 1, .denominator = 3}, {.loss = y}); });
    using V = value_loss_inputs<double>;
    f("value_loss", "d_values", tokens, V{x(tokens), x(tokens), x(tokens), sequences},
      input_list<V>{{"values", &V::values}, {"old_values", &V::old_values}, {"returns", &V::returns}},
      [&](const V& in, view<double, 1> y) { value_loss(b, scratch, in, {.denominator = 3}, {.d_values = y}); });
    using L = token_kl_inputs<double>;
    f("kl_penalty", "d_logp", tokens, L{x(tokens), x(tokens), sequences}, input_list<L>{{"logp", &L::logp}, {"ref_logp", &L::ref_logp}},
      [&](const L& in, view<double, 1> y) { kl_penalty(b, scratch, in, {.denominator = 3}, {.d_logp = y}); });
    using T = trajectory_inputs<double>;
    f("gae", "advantages", tokens, T{x(tokens), x(tokens), {}, x(2), x(tokens), x(tokens), sequences},
      input_list<T>{{"rewards", &T::rewards}, {"values", &T::values}, {"bootstrap", &T::bootstrap}, {"discounts", &T::discounts},
                    {"lambdas", &T::lambdas}},
      [&](const T& in, view<double, 1> y) { gae(b, scratch, in, {}, {.advantages = y}); });
    using W = token_rewards_inputs<double>;
    f("token_rewards", "rewards", tokens, W{x(tokens), x(2), labels_, sequences}, input_list<W>{{"kl", &W::kl}, {"score", &W::score}},
      [&](const W& in, view<double, 1> y) { token_rewards(b, scratch, in, {}, {.rewards = y}); });
    using M = moments_inputs<double>;
    f("whiten", "whitened", tokens, M{x(tokens), sequences}, input_list<M>{{"values", &M::values}},
      [&](const M& in, view<double, 1> y) { whiten(b, scratch, in, {}, {.whitened = y}); });
    using A = group_advantage_inputs<double>;
    f("group_advantage", "advantage", 2, A{x(2), groups}, input_list<A>{{"rewards", &A::rewards}},
      [&](const A& in, view<double, 1> y) { group_advantage(b, scratch, in, advantage::grpo{}, {.advantage = y}); });
    using O = optimal_token_baseline_inputs<double>;
    f("optimal_token_baseline", "advantage", tokens, O{x(tokens), x(tokens), x(tokens), x(tokens), cells_, sequences},
      input_list<O>{{"rewards", &O::rewards}, {"logp", &O::logp}, {"sum_p_squared", &O::sum_p_squared}, {"importance", &O::importance}},
      [&](const O& in, view<double, 1> y) { optimal_token_baseline(b, scratch, in, 2, {}, {.advantage = y}); });
    using I = importance_inputs<double>;
    f("importance_weights", "weights", tokens, I{x(tokens), x(tokens), x(2), sequences},
      input_list<I>{{"logp", &I::logp}, {"sampler_logp", &I::sampler_logp}, {"batch_mean", &I::batch_mean}},
      [&](const I& in, view<double, 1> y) { importance_weights(b, scratch, in, correction::truncated{}, {}, {.weights = y}); });
    using S = covariance_selection_inputs<double>;
    f("covariance_selection", "chosen", tokens, S{x(tokens), x(tokens), x(tokens), x(tokens), sequences},
      input_list<S>{{"logp", &S::logp}, {"advantages", &S::advantages}, {"excluded", &S::excluded}, {"order", &S::order}},
      [&](const S& in, view<double, 1> y) { covariance_selection(b, scratch, in, {}, {.chosen = y}); });
    using Q = steerlm2_inputs<double>;
    f("steerlm2", "loss", 1, Q{x(tokens), sequences, x(2), x(2), groups},
      input_list<Q>{{"logp", &Q::logp}, {"log_q", &Q::log_q}, {"weight", &Q::weight}},
      [&](const Q& in, view<double, 1> y) { steerlm2(b, scratch, in, {.denominator = 1}, {.loss = y}); });
    using E = process_reward_inputs<double>;
    f("process_reward", "d_good", tokens, E{x(tokens), x(tokens), x(tokens)},
      input_list<E>{{"good", &E::good}, {"bad", &E::bad}, {"label", &E::label}},
      [&](const E& in, view<double, 1> y) { process_reward(b, scratch, in, {.denominator = 3}, {.d_good = y}); });
  }

 private:
  desk<double> on_;
  std::deque<std::vector<double>> memory_;
  std::vector<std::int32_t> cu_seqlens_{0, 1, 3}, prompts_{0, 2}, chosen_{0}, rejected_{1}, cells_{0, 1, 1};
  std::vector<std::uint8_t> scored_{1, 1, 1}, labels_{1, 0};
};

}  // namespace plumb_test

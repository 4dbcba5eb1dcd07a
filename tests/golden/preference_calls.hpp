#pragma once
// `plumb::preference` and its companions as functions of vectors of double. What a file names at run time is a variant here, visited by the call.

#include "golden/calls.hpp"

#include <plumb/objectives/preference.hpp>
#include <plumb/ops/log_sum_squares.hpp>
#include <plumb/ops/preference_weights.hpp>
#include <plumb/presets.hpp>

#include <variant>

namespace golden {

using plumb::presets::any_link;

/// One divergence for all, so that a link is compiled with two and not with five.
struct any_divergence {
  std::variant<plumb::divergence::forward_kl, plumb::divergence::js, plumb::divergence::alpha> which;
  void require(const char* op) const {
    std::visit([op](const auto& d) { d.require(op); }, which);
  }
  template <class T>
  plumb::two<T> operator()(const T& x) const {
    return std::visit([&](const auto& d) { return d(x); }, which);
  }
};
using divergence_choice = std::variant<plumb::divergence::reverse_kl, any_divergence>;

/// A link of one's own: the difference of the two scores is the loss.
struct score_difference {
  double beta = 1;
  static constexpr bool of_margin = true;
  void require(const char*) const {}
  template <class T>
  plumb::pair_term<T> operator()(const T& chosen, const T& rejected) const {
    return plumb::math::of_margin(chosen - rejected, T(1));
  }
};

/// One loss of a mixture, with its weight.
struct preference_term {
  any_link link{};
  divergence_choice divergence{};
  plumb::reply_score score = plumb::reply_score::sum;
  plumb::pair_matching matching = plumb::pair_matching::given;
  double weight = 1;

  /// Whether its loss is of the two scores and two rewards; others refuse rewards.
  bool takes_rewards() const {
    return std::visit([]<class L>(const L&) { return plumb::reward_aware_link<L, double>; }, link);
  }
  plumb::preference_options options(double denominator, bool reference_free) const {
    return {.score = score, .matching = matching, .reference_free = reference_free, .denominator = denominator, .weight = weight};
  }
};

struct preference_answer {
  double loss = 0;
  numbers d_chosen{}, d_rejected{};  ///< from sums
  numbers d_logp{};                  ///< from tokens
  numbers pair_loss{};               ///< of all terms, each times its weight
  numbers metrics{};                 ///< as `plumb::preference_metrics`, of the first term
};

/// Token log-probabilities and the terms of the loss, each added to those before.
struct preference_call {
  numbers logp{}, ref_logp{};
  layout_arrays sequences{};
  ids chosen{}, rejected{};
  numbers token_weight{}, pair_weight{}, reward_chosen{}, reward_rejected{};
  std::vector<preference_term> terms{};
  double denominator = 1;
  bool reference_free = false;

  std::size_t pairs() const { return chosen.size(); }
  /// Only pair `p`, and of the terms only the first.
  preference_call pair(std::size_t p) const {
    const auto one = [&](const auto& x) { return x.empty() ? x : std::remove_cvref_t<decltype(x)>{x[p]}; };
    return {logp, ref_logp, sequences, one(chosen), one(rejected), token_weight, one(pair_weight), one(reward_chosen), one(reward_rejected), {terms[0]}, 1,
            reference_free};
  }
};

template <class B, class Link, class Divergence>
preference_answer one_call(job<B>& j, const preference_call& in, const Link& link, const Divergence& divergence, const plumb::preference_options& options,
                           const preference_answer& before) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), ref_logp = reals(j, in.ref_logp), token_weight = reals(j, in.token_weight), pair_weight = reals(j, in.pair_weight),
             reward_chosen = reals(j, in.reward_chosen), reward_rejected = reals(j, in.reward_rejected);
  constexpr bool aware = plumb::reward_aware_link<Link, real>;
  auto d_logp = reals(j, before.d_logp);
  std::vector<real> pair_loss(in.pairs()), metrics(2 * std::size(plumb::preference_metrics));
  real loss = static_cast<real>(before.loss);
  const plumb::preference_pairs<> pairs{in.sequences.get(), in.chosen, in.rejected};
  scratch_memory scratch(plumb::preference_workspace(j.b, pairs, length(logp), options));
  plumb::preference(j.b, scratch.arena,
                    {.logp = logp,
                     .ref_logp = ref_logp,
                     .pairs = pairs,
                     .token_weight = token_weight,
                     .pair_weight = pair_weight,
                     .reward_chosen = aware ? plumb::view<const real, 1>(reward_chosen) : plumb::view<const real, 1>(),
                     .reward_rejected = aware ? plumb::view<const real, 1>(reward_rejected) : plumb::view<const real, 1>()},
                    link, divergence, options,
                    {.loss = loss,
                     .d_logp = d_logp,
                     .pair_loss = pair_loss,
                     .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2),
                     .mode = plumb::write_mode::add});
  return {.loss = static_cast<double>(loss),
          .d_logp = doubles(d_logp),
          .pair_loss = plus(before.pair_loss, scaled(doubles(pair_loss), options.weight)),
          .metrics = before.metrics.empty() ? metric_values(plumb::preference_metrics, metrics) : before.metrics};
}

template <class B>
preference_answer call(job<B>& j, const preference_call& in) {
  preference_answer y{.d_logp = numbers(in.logp.size()), .pair_loss = numbers(in.pairs())};
  for (const preference_term& t : in.terms)
    y = std::visit([&](const auto& link, const auto& divergence) { return one_call(j, in, link, divergence, t.options(in.denominator, in.reference_free), y); },
                   t.link, t.divergence);
  return y;
}

/// Differences of the sums of each pair, under the divergence of the term.
template <class B>
numbers score_differences(job<B>& j, preference_call in, const preference_term& t) {
  in.pair_weight = in.reward_chosen = in.reward_rejected = {};
  const preference_answer none{.d_logp = numbers(in.logp.size()), .pair_loss = numbers(in.pairs())};
  return std::visit(
      [&](const auto& divergence) { return one_call(j, in, score_difference{}, divergence, {.denominator = 1}, none).pair_loss; }, t.divergence);
}

/// The same from sums of log-probabilities.
struct preference_sums_call {
  numbers chosen{}, rejected{}, ref_chosen{}, ref_rejected{}, length_chosen{}, length_rejected{}, pair_weight{};
  std::vector<preference_term> terms{};
  double denominator = 1;

  std::size_t pairs() const { return chosen.size(); }
  preference_sums_call pair(std::size_t p) const {
    const auto one = [&](const numbers& x) { return x.empty() ? x : numbers{x[p]}; };
    return {one(chosen), one(rejected), one(ref_chosen), one(ref_rejected), one(length_chosen), one(length_rejected), one(pair_weight), {terms[0]}, 1};
  }
};

template <class B, class Link, class Divergence>
preference_answer one_call(job<B>& j, const preference_sums_call& in, const Link& link, const Divergence& divergence,
                           const plumb::preference_options& options, const preference_answer& before) {
  using real = typename B::real;
  if constexpr (plumb::reward_aware_link<Link, real>) throw std::logic_error("no peer gives rewards with sums.");
  else {
    const auto chosen = reals(j, in.chosen), rejected = reals(j, in.rejected), ref_chosen = reals(j, in.ref_chosen), ref_rejected = reals(j, in.ref_rejected),
               length_chosen = reals(j, in.length_chosen), length_rejected = reals(j, in.length_rejected), pair_weight = reals(j, in.pair_weight);
    auto d_chosen = reals(j, before.d_chosen), d_rejected = reals(j, before.d_rejected);
    std::vector<real> pair_loss(in.pairs()), metrics(2 * std::size(plumb::preference_metrics));
    real loss = static_cast<real>(before.loss);
    scratch_memory scratch(plumb::preference_sums_workspace(j.b, length(chosen), options));
    plumb::preference_sums(j.b, scratch.arena,
                           {.chosen = chosen,
                            .rejected = rejected,
                            .ref_chosen = ref_chosen,
                            .ref_rejected = ref_rejected,
                            .length_chosen = length_chosen,
                            .length_rejected = length_rejected,
                            .pair_weight = pair_weight},
                           link, divergence, options,
                           {.loss = loss,
                            .d_chosen = d_chosen,
                            .d_rejected = d_rejected,
                            .pair_loss = pair_loss,
                            .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2),
                            .mode = plumb::write_mode::add});
    return {.loss = static_cast<double>(loss),
            .d_chosen = doubles(d_chosen),
            .d_rejected = doubles(d_rejected),
            .pair_loss = plus(before.pair_loss, scaled(doubles(pair_loss), options.weight)),
            .metrics = before.metrics.empty() ? metric_values(plumb::preference_metrics, metrics) : before.metrics};
  }
}

template <class B>
preference_answer call(job<B>& j, const preference_sums_call& in) {
  preference_answer y{.d_chosen = numbers(in.pairs()), .d_rejected = numbers(in.pairs()), .pair_loss = numbers(in.pairs())};
  for (const preference_term& t : in.terms)
    y = std::visit([&](const auto& link, const auto& divergence) { return one_call(j, in, link, divergence, t.options(in.denominator, false), y); }, t.link,
                   t.divergence);
  return y;
}

/// LD-DPO's weights of tokens.
template <class B>
numbers ld_dpo_weights_of(job<B>& j, const preference_call& in, double alpha) {
  using real = typename B::real;
  std::vector<real> weight(in.logp.size());
  const plumb::preference_pairs<> pairs{in.sequences.get(), in.chosen, in.rejected};
  scratch_memory scratch(plumb::ld_dpo_weights_workspace(j.b, pairs, length(weight)));
  plumb::ld_dpo_weights(j.b, scratch.arena, pairs, {.alpha = alpha}, plumb::view<real, 1>(weight));
  return doubles(weight);
}
/// WPO's weights of pairs; `logits` are those of the log-probabilities.
template <class B>
numbers wpo_weights_of(job<B>& j, const preference_call& in, const token_logp_call& logits) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), x = reals(j, logits.logits);
  std::vector<real> weight(in.pairs()), squares(logp.size());
  const index_t n = static_cast<index_t>(logits.rows), v = static_cast<index_t>(logits.vocabulary);
  const plumb::preference_pairs<> pairs{in.sequences.get(), in.chosen, in.rejected};
  scratch_memory scratch(std::max(plumb::wpo_weights_workspace(j.b, pairs, length(logp)), plumb::log_sum_squares_workspace(j.b, n, v)));
  plumb::log_sum_squares(j.b, scratch.arena, plumb::view<const real, 2>(x.data(), n, v), {}, {.log_sum_squares = squares});
  plumb::wpo_weights(j.b, scratch.arena, {.logp = logp, .log_sum_squares = squares, .pairs = pairs}, plumb::view<real, 1>(weight));
  return doubles(weight);
}

}  // namespace golden

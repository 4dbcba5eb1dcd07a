#pragma once
// plumb's operations and objectives as functions of vectors of double: conversion to the backend's type, arena, and
// nothing else.

#include "golden/runner.hpp"

#include <plumb/objectives/attribute_regression.hpp>
#include <plumb/objectives/bradley_terry.hpp>
#include <plumb/objectives/dpo.hpp>
#include <plumb/objectives/supervised.hpp>
#include <plumb/ops/linear_token_logp.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace golden {

using plumb::index_t;

inline index_t length(const auto& x) { return static_cast<index_t>(x.size()); }
inline numbers zeros(std::size_t n) { return numbers(n); }

/// Entry by entry: the vector-Jacobian product of an output whose entries depend on one entry each.
inline numbers times(const numbers& a, const numbers& b) {
  numbers y(a.size());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = a[i] * b[i];
  return y;
}
inline numbers scaled(numbers x, double factor) {
  for (double& e : x) e *= factor;
  return x;
}
inline numbers plus(numbers a, const numbers& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}
inline numbers magnitudes(numbers x) {
  for (double& e : x) e = std::fabs(e);
  return x;
}
inline numbers joined(numbers a, const numbers& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline numbers part(const numbers& x, std::size_t first, std::size_t count) {
  const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}
/// One number per row, repeated over the row's columns.
inline numbers spread_rows(const numbers& per_row, std::size_t columns) {
  numbers y;
  for (double e : per_row) y.insert(y.end(), columns, e);
  return y;
}
inline numbers first_half(const numbers& x) { return part(x, 0, x.size() / 2); }
inline numbers second_half(const numbers& x) { return part(x, x.size() / 2, x.size() / 2); }

/// Token ids; `ignored` (a label of the peer's) becomes -1, ours.
inline ids to_ids(const numbers& x, double ignored = -100) {
  constexpr double most = std::numeric_limits<std::int32_t>::max();
  ids y;
  for (double e : x) {
    if (!(std::fabs(e) <= most)) throw std::out_of_range("the id " + std::to_string(e) + " is out of range.");
    y.push_back(e == ignored ? -1 : static_cast<std::int32_t>(e));
  }
  return y;
}
inline flags to_flags(const numbers& x) {
  flags y;
  for (double e : x) y.push_back(e != 0);
  return y;
}
/// Where a label counts.
inline flags not_ignored(const ids& labels) {
  flags y;
  for (std::int32_t l : labels) y.push_back(l >= 0);
  return y;
}

template <class B>
std::vector<typename B::real> reals(const job<B>&, const numbers& x) {
  std::vector<typename B::real> y;
  for (double e : x) y.push_back(static_cast<typename B::real>(e));
  return y;
}
inline numbers doubles(const auto& x) {
  numbers y;
  for (auto e : x) y.push_back(static_cast<double>(e));
  return y;
}

struct scratch_memory {
  std::vector<unsigned char> memory;
  plumb::arena<> arena;
  explicit scratch_memory(std::size_t bytes) : memory(bytes), arena(memory) {}
};

/// The rows of a metrics array, divided.
template <class Real, std::size_t K>
numbers metric_values(const plumb::metric_info (&infos)[K], const std::vector<Real>& sums) {
  numbers y;
  for (std::size_t k = 0; k < K; ++k)
    y.push_back(static_cast<double>(plumb::metric_value(infos[k].kind, sums[2 * k], sums[2 * k + 1])));
  return y;
}

// Rewards.

struct bradley_terry_call {
  numbers chosen{}, rejected{}, margin{}, scale{};
  flags valid{};
  double denominator = 1, center_coefficient = 0;

  index_t pairs() const { return length(chosen); }
  /// Only pair `p`.
  bradley_terry_call pair(std::size_t p) const { return {.chosen = {chosen[p]}, .rejected = {rejected[p]}}; }
};
struct bradley_terry_answer {
  double loss;
  numbers d_chosen, d_rejected, d_margin, pair_loss;
  numbers metrics;  ///< as `plumb::bradley_terry_metrics`
};

template <class B>
bradley_terry_answer call(job<B>& j, const bradley_terry_call& in) {
  using real = typename B::real;
  const auto chosen = reals(j, in.chosen), rejected = reals(j, in.rejected), margin = reals(j, in.margin),
             scale = reals(j, in.scale);
  const std::size_t n = in.chosen.size();
  std::vector<real> d_chosen(n), d_rejected(n), d_margin(n), pair_loss(n),
      metrics(2 * std::size(plumb::bradley_terry_metrics));
  real loss = 0;
  scratch_memory scratch(plumb::bradley_terry_workspace(j.b, in.pairs()));
  plumb::bradley_terry(j.b, scratch.arena,
                       {.chosen = chosen, .rejected = rejected, .margin = margin, .scale = scale, .valid = in.valid},
                       {.center_coefficient = in.center_coefficient, .denominator = in.denominator},
                       {.loss = loss,
                        .d_chosen = d_chosen,
                        .d_rejected = d_rejected,
                        .d_margin = d_margin,
                        .pair_loss = pair_loss,
                        .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  return {static_cast<double>(loss), doubles(d_chosen),  doubles(d_rejected),
          doubles(d_margin),         doubles(pair_loss), metric_values(plumb::bradley_terry_metrics, metrics)};
}

struct attribute_regression_call {
  numbers prediction{}, label{};
  index_t replies = 0, attributes = 0;
  double missing = -100;
};
struct attribute_regression_answer {
  double loss;
  numbers d_prediction;
};

template <class B>
attribute_regression_answer call(job<B>& j, const attribute_regression_call& in) {
  using real = typename B::real;
  const auto prediction = reals(j, in.prediction), label = reals(j, in.label);
  std::vector<real> d_prediction(prediction.size());
  real loss = 0;
  const auto rows = [&](auto* p) {
    return plumb::view<std::remove_pointer_t<decltype(p)>, 2>(p, in.replies, in.attributes);
  };
  scratch_memory scratch(plumb::attribute_regression_workspace(j.b, in.replies, in.attributes));
  plumb::attribute_regression(
      j.b, scratch.arena, {.prediction = rows(prediction.data()), .label = rows(label.data())},
      {.missing = in.missing, .denominator = static_cast<double>(plumb::count_rated(rows(label.data()), in.missing))},
      {.loss = loss, .d_prediction = rows(d_prediction.data())});
  return {static_cast<double>(loss), doubles(d_prediction)};
}

// Sequences.

struct layout_arrays {
  ids begin{}, end{};
  flags scored{};
  index_t sequences() const { return length(begin); }
  plumb::sequence_layout<> get() const { return {begin, end, scored}; }
  /// Only sequence `s`.
  layout_arrays sequence(std::size_t s) const { return {{begin[s]}, {end[s]}, scored}; }
  bool counts(std::size_t t) const { return scored.empty() || scored[t] != 0; }
  /// Scored tokens of sequence `s`.
  double count(std::size_t s) const { return static_cast<double>(plumb::count_scored(sequence(s).get())); }
};

/// A padded batch `[rows, columns]`.
inline layout_arrays padded(std::size_t rows, std::size_t columns, flags scored) {
  layout_arrays l{.scored = std::move(scored)};
  for (std::size_t r = 0; r < rows; ++r) {
    l.begin.push_back(static_cast<std::int32_t>(r * columns));
    l.end.push_back(static_cast<std::int32_t>((r + 1) * columns));
  }
  return l;
}

/// `[rows, columns]` with a column less.
inline numbers without_column(const numbers& x, std::size_t rows, std::size_t columns, bool first) {
  numbers y;
  for (std::size_t r = 0; r < rows; ++r) y = joined(std::move(y), part(x, r * columns + (first ? 1 : 0), columns - 1));
  return y;
}
inline numbers without_last_column(const numbers& x, std::size_t rows, std::size_t columns) {
  return without_column(x, rows, columns, false);
}
inline numbers without_first_column(const numbers& x, std::size_t rows, std::size_t columns) {
  return without_column(x, rows, columns, true);
}

struct supervised_call {
  numbers logp{};
  layout_arrays sequences{};
  plumb::aggregation aggregate = plumb::aggregation::token_mean;
  double denominator = 1;
};
struct supervised_answer {
  double loss;
  numbers d_logp;
};

template <class B>
supervised_answer call(job<B>& j, const supervised_call& in) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp);
  std::vector<real> d_logp(logp.size());
  real loss = 0;
  scratch_memory scratch(plumb::supervised_workspace(j.b, in.sequences.get()));
  plumb::supervised(j.b, scratch.arena, {.logp = logp, .sequences = in.sequences.get()},
                    {.aggregate = in.aggregate, .denominator = in.denominator}, {.loss = loss, .d_logp = d_logp});
  return {static_cast<double>(loss), doubles(d_logp)};
}

// Log-probabilities.

struct token_logp_call {
  numbers logits{};
  std::size_t rows = 0, vocabulary = 0;
  ids targets{};  ///< empty: no log-probability, only log-sum-exp and entropy
  plumb::token_logp_options options{};
};
struct token_logp_answer {
  numbers logp, log_sum_exp, entropy;
};

template <class B>
token_logp_answer call(job<B>& j, const token_logp_call& in) {
  using real = typename B::real;
  const auto logits = reals(j, in.logits);
  const index_t n = static_cast<index_t>(in.rows), v = static_cast<index_t>(in.vocabulary);
  std::vector<real> logp(in.rows), lse(in.rows), entropy(in.rows);
  scratch_memory scratch(plumb::token_logp_workspace(j.b, n, v));
  plumb::token_logp(
      j.b, scratch.arena, plumb::token_logp_inputs<real>{plumb::view<const real, 2>(logits.data(), n, v), in.targets},
      in.options, {in.targets.empty() ? plumb::view<real, 1>() : plumb::view<real, 1>(logp), lse, entropy});
  return {doubles(logp), doubles(lse), doubles(entropy)};
}

/// d_logits; an empty `d_logp` or `d_entropy` is not given.
template <class B>
numbers backward(job<B>& j, const token_logp_call& in, const token_logp_answer& forward, const numbers& d_logp,
                 const numbers& d_entropy = {}) {
  using real = typename B::real;
  const auto logits = reals(j, in.logits), lse = reals(j, forward.log_sum_exp), entropy = reals(j, forward.entropy),
             dp = reals(j, d_logp), de = reals(j, d_entropy);
  const index_t n = static_cast<index_t>(in.rows), v = static_cast<index_t>(in.vocabulary);
  std::vector<real> d_logits(in.logits.size());
  scratch_memory scratch(plumb::token_logp_backward_workspace(j.b, n));
  plumb::token_logp_backward(
      j.b, scratch.arena, plumb::token_logp_inputs<real>{plumb::view<const real, 2>(logits.data(), n, v), in.targets},
      in.options, {lse, dp, entropy, de}, plumb::view<real, 2>(d_logits.data(), n, v));
  return doubles(d_logits);
}

struct linear_call {
  numbers hidden{}, head{}, bias{};
  std::size_t rows = 0, width = 0, vocabulary = 0;
  ids targets{};
  plumb::linear_token_logp_options options{};

  template <class Real>
  plumb::linear_token_logp_inputs<Real> inputs(const std::vector<Real>& h, const std::vector<Real>& w,
                                               const std::vector<Real>& b) const {
    const index_t n = static_cast<index_t>(rows), d = static_cast<index_t>(width), v = static_cast<index_t>(vocabulary);
    return {.hidden = {h.data(), n, d}, .head = {w.data(), v, d}, .bias = b, .targets = targets};
  }
};

template <class B>
token_logp_answer call(job<B>& j, const linear_call& in) {
  using real = typename B::real;
  const auto h = reals(j, in.hidden), w = reals(j, in.head), bias = reals(j, in.bias);
  const auto inputs = in.inputs(h, w, bias);
  std::vector<real> logp(in.rows), lse(in.rows), entropy(in.rows);
  scratch_memory scratch(plumb::linear_token_logp_workspace(j.b, inputs, in.options));
  plumb::linear_token_logp(j.b, scratch.arena, inputs, in.options, {logp, lse, entropy});
  return {doubles(logp), doubles(lse), doubles(entropy)};
}

struct linear_gradients {
  numbers d_hidden, d_head, d_bias;
};

template <class B>
linear_gradients backward(job<B>& j, const linear_call& in, const token_logp_answer& forward, const numbers& d_logp) {
  using real = typename B::real;
  const auto h = reals(j, in.hidden), w = reals(j, in.head), bias = reals(j, in.bias),
             lse = reals(j, forward.log_sum_exp), dp = reals(j, d_logp);
  const auto inputs = in.inputs(h, w, bias);
  std::vector<real> d_hidden(h.size()), d_head(w.size()), d_bias(bias.size());
  scratch_memory scratch(plumb::linear_token_logp_backward_workspace(j.b, inputs, in.options));
  plumb::linear_token_logp_backward(
      j.b, scratch.arena, inputs, in.options, {.log_sum_exp = lse, .d_logp = dp},
      {.d_hidden = plumb::view<real, 2>(d_hidden.data(), inputs.hidden.extent(0), inputs.hidden.extent(1)),
       .d_head = plumb::view<real, 2>(d_head.data(), inputs.head.extent(0), inputs.head.extent(1)),
       .d_bias = d_bias});
  return {doubles(d_hidden), doubles(d_head), doubles(d_bias)};
}

// DPO.

/// Rows of `plumb::dpo_metrics`.
enum dpo_metric : std::size_t { accuracy, margin, reward_chosen, reward_rejected, logp_chosen, logp_rejected };

struct dpo_pairs_call {
  numbers chosen{}, rejected{}, ref_chosen{}, ref_rejected{};
  plumb::dpo_options options{};

  /// Only pair `p`.
  dpo_pairs_call pair(std::size_t p) const {
    const auto one = [&](const numbers& x) { return x.empty() ? numbers{} : numbers{x[p]}; };
    return {one(chosen), one(rejected), one(ref_chosen), one(ref_rejected), options};
  }
  std::size_t pairs() const { return chosen.size(); }
};
struct dpo_answer {
  double loss;
  numbers d_chosen, d_rejected;  ///< of `dpo_pairs`
  numbers d_logp;                ///< of `dpo`
  numbers pair_loss;
  numbers metrics;  ///< as `plumb::dpo_metrics`
};

template <class B>
dpo_answer call(job<B>& j, const dpo_pairs_call& in) {
  using real = typename B::real;
  const auto chosen = reals(j, in.chosen), rejected = reals(j, in.rejected), ref_chosen = reals(j, in.ref_chosen),
             ref_rejected = reals(j, in.ref_rejected);
  const std::size_t n = in.pairs();
  std::vector<real> d_chosen(n), d_rejected(n), pair_loss(n), metrics(2 * std::size(plumb::dpo_metrics));
  real loss = 0;
  scratch_memory scratch(plumb::dpo_pairs_workspace(j.b, static_cast<index_t>(n)));
  plumb::dpo_pairs(j.b, scratch.arena,
                   {.chosen = chosen, .rejected = rejected, .ref_chosen = ref_chosen, .ref_rejected = ref_rejected},
                   in.options,
                   {.loss = loss,
                    .d_chosen = d_chosen,
                    .d_rejected = d_rejected,
                    .pair_loss = pair_loss,
                    .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  return {static_cast<double>(loss), doubles(d_chosen),
          doubles(d_rejected),       {},
          doubles(pair_loss),        metric_values(plumb::dpo_metrics, metrics)};
}

struct dpo_call {
  numbers logp{}, ref_logp{};
  layout_arrays sequences{};
  ids chosen{}, rejected{};
  plumb::dpo_options options{};

  dpo_call pair(std::size_t p) const { return {logp, ref_logp, sequences, {chosen[p]}, {rejected[p]}, options}; }
  std::size_t pairs() const { return chosen.size(); }
};

template <class B>
dpo_answer call(job<B>& j, const dpo_call& in) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), ref_logp = reals(j, in.ref_logp);
  std::vector<real> d_logp(logp.size()), pair_loss(in.pairs()), metrics(2 * std::size(plumb::dpo_metrics));
  real loss = 0;
  const plumb::preference_pairs<> pairs{in.sequences.get(), in.chosen, in.rejected};
  scratch_memory scratch(plumb::dpo_workspace(j.b, pairs, plumb::view(logp).extent(0)));
  plumb::dpo(j.b, scratch.arena, {.logp = logp, .ref_logp = ref_logp, .pairs = pairs}, in.options,
             {.loss = loss,
              .d_logp = d_logp,
              .pair_loss = pair_loss,
              .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  return {static_cast<double>(loss),
          {},
          {},
          doubles(d_logp),
          doubles(pair_loss),
          metric_values(plumb::dpo_metrics, metrics)};
}

/// What peers log of every pair: our metric over that pair alone.
template <class B>
numbers of_each_pair(job<B>& j, const auto& in, std::size_t metric) {
  numbers y;
  for (std::size_t p = 0; p < in.pairs(); ++p) y.push_back(call(j, in.pair(p)).metrics[metric]);
  return y;
}

}  // namespace golden

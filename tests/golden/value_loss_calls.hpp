#pragma once
// `plumb::value_loss` as a function of vectors.

#include "golden/aggregate_calls.hpp"

#include <plumb/objectives/value_loss.hpp>

namespace golden {

struct value_loss_call {
  numbers values{}, old_values{}, returns{};
  layout_arrays sequences{};
  plumb::value_loss_options options{};
};
struct value_loss_answer {
  double loss;
  numbers d_values;
  double clipped, count;  ///< tokens whose clipped error is the larger, scored tokens
};

template <class B>
value_loss_answer call(job<B>& j, const value_loss_call& in) {
  using real = typename B::real;
  const auto values = reals(j, in.values), old_values = reals(j, in.old_values), returns = reals(j, in.returns);
  std::vector<real> d_values(values.size()), metrics(2 * std::size(plumb::value_loss_metrics));
  real loss = 0;
  scratch_memory scratch(plumb::value_loss_workspace(j.b, in.sequences.get(), length(values)));
  plumb::value_loss(j.b, scratch.arena,
                    {.values = values, .old_values = old_values, .returns = returns, .sequences = in.sequences.get()},
                    in.options,
                    {.loss = loss,
                     .d_values = d_values,
                     .metrics = plumb::view<real, 2>(metrics.data(), length(metrics) / 2, 2)});
  return {static_cast<double>(loss), doubles(d_values), static_cast<double>(metrics[0]),
          static_cast<double>(metrics[1])};
}

/// The largest square that enters: no value is further from its return, clipped or not, than what the three add up to.
inline double value_loss_terms(const value_loss_call& in) {
  const numbers each = plus(plus(magnitudes(in.values), magnitudes(in.old_values.empty() ? zeros(in.values.size()) : in.old_values)),
                            magnitudes(in.returns));
  const double most = largest_scored(each, in.sequences) + std::fabs(in.options.mean);
  const double standardized = most / std::min(1.0, in.options.standard_deviation);
  return standardized * standardized;
}
/// And the largest error that enters a gradient, times the token's share of the loss.
inline double value_gradient_terms(const value_loss_call& in, const value_loss_answer& y) {
  return y.count > 0 ? std::sqrt(value_loss_terms(in)) * in.options.weight / in.options.denominator : 0;
}

}  // namespace golden

#pragma once
// Statistics over the scored tokens and over the sequences of a batch, as (sum, count) rows that merge; what is made of their sums.

#include <plumb/math/value.hpp>
#include <plumb/ops/aggregate.hpp>

#include <cmath>

PLUMB_NAMESPACE_BEGIN

/// Variance from sums, not below 0; `unbiased` divides by `count - 1`. NaN over nothing; a count of 1 has variance 0. The sum of squares is
/// about 0: where the mean is many deviations away, digits are lost.
template <class Real>
Real variance_from_sums(Real sum, Real sum_of_squares, Real count, bool unbiased = false) {
  if (!(Real(0) < count)) return static_cast<Real>(std::numeric_limits<double>::quiet_NaN());
  const Real mean = sum / count, v = sum_of_squares / count - mean * mean;
  if (!unbiased) return v < Real(0) ? Real(0) : v;
  return v < Real(0) || !(Real(1) < count) ? Real(0) : v * (count / (count - Real(1)));
}

/// Share of a sample that weights leave effective, `mean(w)^2 / mean(w^2)`: 1 for equal weights, `1 / count` where one has it all (Kish 1965).
template <class Real>
Real effective_sample_share(Real sum, Real sum_of_squares, Real count) {
  return sum * sum / (sum_of_squares * count);
}

/// `1 - variance of the residual / variance of the target`: 1 for perfect values, 0 for a constant, below for worse.
template <class Real>
Real explained_variance(Real residual_sum, Real residual_squares, Real target_sum, Real target_squares, Real count) {
  return Real(1) - variance_from_sums(residual_sum, residual_squares, count) / variance_from_sums(target_sum, target_squares, count);
}

namespace detail {

// Fills rows of a metrics array from a number per scored token, or per sequence that has scored tokens. What is not scored is skipped.
template <class B>
class sequence_metric_rows {
  using real = real_of<B>;

 public:
  sequence_metric_rows(B& b, arena_of<B>& scratch, real_view<B, 2> metrics, const sequence_layout<space_of<B>>& layout, index_t tokens)
      : b_(b), metrics_(metrics), layout_(layout), values_(scratch.template take<real>(tokens)),
        per_(scratch.template take<real>(layout.sequences())), lengths_(scratch.template take<real>(layout.sequences())),
        counts_(scratch.template take<real>(2)) {
    scored_lengths(b, scratch, layout, tokens, lengths_);
    b.reduce(reduction::sum, as_const(lengths_), counts_.slice(0, 1), write_mode::overwrite);
    b.transform(math::is_nonzero{}, per_, as_const(lengths_));
    b.reduce(reduction::sum, as_const(per_), counts_.slice(1, 1), write_mode::overwrite);
  }

  /// `f(x...)` of each scored token; the row is a mean, minimum or maximum as `kind` says.
  template <class F, class... X>
  void tokens(index_t row, metric_kind kind, F f, X... x) {
    b_.transform(f, values_, x...);
    if (kind == metric_kind::min) b_.transform(math::negate{}, values_, as_const(values_));
    b_.segment_reduce(kind == metric_kind::mean ? reduction::sum : reduction::max, as_const(values_), layout_, per_);
    b_.reduce(kind == metric_kind::mean ? reduction::sum : reduction::max, as_const(per_), cell(row, 0), write_mode::overwrite);
    b_.copy(as_const(counts_.slice(0, 1)), cell(row, 1));
  }
  /// `f(x...)` of each sequence that has a scored token.
  template <class F, class... X>
  void sequences(index_t row, metric_kind kind, F f, X... x) {
    const bool mean = kind == metric_kind::mean;
    b_.transform(f, per_, x...);
    if (kind == metric_kind::min) b_.transform(math::negate{}, per_, as_const(per_));
    const real nothing = mean ? real(0) : static_cast<real>(-std::numeric_limits<double>::infinity());
    b_.transform(math::keep_or<real>{nothing}, per_, as_const(per_), as_const(lengths_));
    b_.reduce(mean ? reduction::sum : reduction::max, as_const(per_), cell(row, 0), write_mode::overwrite);
    b_.copy(as_const(counts_.slice(1, 1)), cell(row, 1));
  }
  const_real_view<B> lengths() const { return as_const(lengths_); }

  static std::size_t workspace(index_t tokens, index_t sequences) {
    workspace_size w;
    w.template add<real>(tokens);
    for (int i = 0; i < 2; ++i) w.template add<real>(sequences);
    return w.template add<real>(2).template add<real>(1).bytes();
  }

 private:
  real_view<B> cell(index_t row, index_t column) const { return metrics_.row(row).slice(column, 1); }

  B& b_;
  real_view<B, 2> metrics_;
  const sequence_layout<space_of<B>>& layout_;
  real_view<B> values_, per_, lengths_, counts_;
};

}  // namespace detail

/// Rows of `token_statistics`: `metric_value` of each, and `variance_from_sums` of the first two.
inline constexpr metric_info token_statistics_metrics[] = {{"mean"}, {"square"}, {"min", metric_kind::min}, {"max", metric_kind::max}};

/// Bytes of arena that `token_statistics` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t token_statistics_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  return detail::sequence_metric_rows<B>::workspace(tokens, sequences.sequences());
}

/// Sum, sum of squares, minimum and maximum of `values` `[N]` over the scored tokens, into `metrics` `[4, 2]`.
template <class B>
  requires has_backend_types<B>
void token_statistics(B& b, arena_of<B>& scratch, const aggregate_inputs<real_of<B>, space_of<B>>& in,
                      const std::type_identity_t<real_view<B, 2>>& metrics) {
  static_assert(check_backend<B>());
  constexpr const char* op = "token_statistics";
  const index_t tokens = in.values.extent(0);
  require_arguments(op, {{"metrics", metrics}},
                    {{"values", in.values}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  require_given(op, "values", in.values, in.sequences.scored.extent(0) > 0);
  require_given(op, "metrics", metrics, true);
  require_sequences(op, in.sequences, tokens);
  detail::require_metrics(op, metrics, std::size(token_statistics_metrics));
  scratch.require(op, token_statistics_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  detail::sequence_metric_rows<B> rows(b, scratch, metrics, in.sequences, tokens);
  rows.tokens(0, metric_kind::mean, math::identity{}, in.values);
  rows.tokens(1, metric_kind::mean, math::square{}, in.values);
  rows.tokens(2, metric_kind::min, math::identity{}, in.values);
  rows.tokens(3, metric_kind::max, math::identity{}, in.values);
}

/// What the host overload returns; NaN over nothing.
template <class T>
struct token_statistics_result {
  T mean = 0, variance = 0, min = 0, max = 0;  ///< the variance is the biased one
};

/// A vector and a layout in, on the serial backend.
template <detail::host_range R>
token_statistics_result<detail::value_of<R>> token_statistics(const R& values, const sequence_layout<>& sequences) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(values);
  detail::require_host_layout("token_statistics", sequences, x.extent(0));
  T m[std::size(token_statistics_metrics)][2] = {};
  detail::host_call<T> call(token_statistics_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  token_statistics(call.compute, call.scratch, {.values = x, .sequences = sequences}, view<T, 2>(&m[0][0], std::size(token_statistics_metrics), 2));
  const auto value = [&](std::size_t k) { return metric_value(token_statistics_metrics[k].kind, m[k][0], m[k][1]); };
  return {value(0), variance_from_sums(m[0][0], m[1][0], m[0][1]), value(2), value(3)};
}

PLUMB_NAMESPACE_END

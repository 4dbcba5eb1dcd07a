#pragma once
// What a critic learns from: the clipped squared error of values against returns.

#include <plumb/math/value.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/statistics.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `value_loss`.
struct value_loss_options {
  double clip_range = 0.2;        ///< values further than this from the old ones do not lower the loss; 0: no clipping, no old values needed
  double mean = 0;                ///< values are standardized before they are compared: `(value - mean) / standard_deviation` (NeMo-Aligner)
  double standard_deviation = 1;  ///< likewise; returns and old values are in standardized units already
  aggregation aggregate = aggregation::token_mean;
  double denominator = 0;     ///< see `aggregation`; host overload: 0 means what is given
  double length_epsilon = 0;  ///< added to each length in `sequence_mean`; 0 in the other modes
  double weight = 1;          ///< what the loss counts for beside others (PPO's value coefficient)

  void require(const char* op) const {
    require_mode(op, "aggregate", aggregate, aggregation::sequence_sum);
    require_option(op, "clip_range", clip_range, clip_range >= 0, "0 (no clipping) or positive");
    require_option(op, "mean", mean, true, "a number");
    require_option(op, "standard_deviation", standard_deviation, standard_deviation > 0, "positive");
    detail::require_aggregation(op, aggregate, length_epsilon, weight);
  }
};

/// Rows of `metrics`, over scored tokens. The residual is `return - value`; `value_explained_variance` makes the usual number of them.
inline constexpr metric_info value_loss_metrics[] = {{"clip_fraction"}, {"value"},    {"return"},
                                                     {"return_square"}, {"residual"}, {"residual_square"}};

/// Numbers of all tokens, flat. A critic's tokens may be others than the policy's: the layout is its own.
template <class Real, class Space = host_space>
struct value_loss_inputs {
  view<const Real, 1, Space> values{};      ///< `[N]`
  view<const Real, 1, Space> old_values{};  ///< `[N]`, of the critic that the returns were made with; may be left out when nothing is clipped
  view<const Real, 1, Space> returns{};     ///< `[N]`
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct value_loss_outputs {
  view<Real, 1, Space> loss{};      ///< one number
  view<Real, 1, Space> d_values{};  ///< `[N]`; 0 for tokens that do not count
  view<Real, 2, Space> metrics{};   ///< `[6, 2]`, rows as in `value_loss_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_values`
};

/// Bytes of arena that `value_loss` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t value_loss_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(tokens);
  const std::size_t metrics = detail::sequence_metric_rows<B>::workspace(tokens, sequences.sequences());
  return w.template add<real>(1).add_bytes(detail::aggregate_bytes<B>(sequences.sequences())).add_bytes(metrics).bytes();
}

/// `L = weight sum_t w_t max(e_t^2, c_t^2) / 2` over scored tokens, with `e_t = value_t - return_t`, `c_t` the same for the value kept within
/// `clip_range` of the old one, and `w_t` as in `aggregate`. PPO (arXiv:1707.06347, eq. 9) has the plain square, clip range 0; clipping is
/// that of its implementations (arXiv:2005.12729, section 3). Checked against verl, OpenRLHF, NeMo-Aligner, TRL and drpo. NaN in a scored
/// token gives NaN.
template <class B>
  requires has_backend_types<B>
void value_loss(B& b, arena_of<B>& scratch, const value_loss_inputs<real_of<B>, space_of<B>>& in, const value_loss_options& options,
                const value_loss_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "value_loss";
  const index_t tokens = in.values.extent(0), sequences = in.sequences.sequences();
  const bool clips = options.clip_range > 0;
  require_arguments(op, {{"loss", out.loss}, {"d_values", out.d_values}, {"metrics", out.metrics}},
                    {{"values", in.values}, {"old_values", in.old_values}, {"returns", in.returns}, {"begin", in.sequences.begin},
                     {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  require_given(op, "values", in.values, in.returns.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "returns", in.returns, tokens > 0);
  options.require(op);
  require_given(op, "old_values", in.old_values, clips && tokens > 0);
  require_same_shape(op, "returns", in.returns, "values", in.values);
  if (in.old_values.given()) require_same_shape(op, "old_values", in.old_values, "values", in.values);
  require_sequences(op, in.sequences, tokens);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(value_loss_metrics));
  if (out.d_values.given()) require_same_shape(op, "d_values", out.d_values, "values", in.values);
  scratch.require(op, value_loss_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const math::value_error<real> error{static_cast<real>(options.clip_range), static_cast<real>(options.mean),
                                      static_cast<real>(1 / options.standard_deviation)};
  const auto terms = scratch.template take<real>(tokens), slopes = scratch.template take<real>(tokens);
  if (clips) {
    b.transform2(error, terms, slopes, in.values, in.returns, in.old_values);
  } else {
    b.transform2(error, terms, slopes, in.values, in.returns);
  }
  const auto weights = scratch.template take<real>(sequences);
  detail::sequence_weights(b, scratch, in.sequences, tokens,
                           {options.aggregate, options.denominator, options.length_epsilon, options.weight}, weights);
  detail::aggregate_values(b, scratch, as_const(terms), in.sequences, as_const(weights), out.loss, out.mode);
  if (out.d_values.given()) {
    const auto of_token = scratch.template take<real>(tokens);
    b.segment_broadcast(as_const(weights), in.sequences, of_token, write_mode::overwrite);
    b.transform(math::weighted{}, slopes, as_const(of_token), as_const(slopes));
    detail::write_gradient(b, out.d_values, as_const(slopes), real(1), out.mode);
  }
  if (out.metrics.given()) {
    detail::sequence_metric_rows<B> rows(b, scratch, out.metrics, in.sequences, tokens);
    if (clips) {
      rows.tokens(0, metric_kind::mean, math::value_clipped<real>{error}, in.values, in.returns, in.old_values);
    } else {
      rows.tokens(0, metric_kind::mean, math::identity{}, detail::constant(b, scratch, real(0), tokens));
    }
    rows.tokens(1, metric_kind::mean, math::identity{}, in.values);
    rows.tokens(2, metric_kind::mean, math::identity{}, in.returns);
    rows.tokens(3, metric_kind::mean, math::square{}, in.returns);
    rows.tokens(4, metric_kind::mean, math::value_residual<real>{error}, in.values, in.returns);
    rows.tokens(5, metric_kind::mean, math::value_residual_square<real>{error}, in.values, in.returns);
  }
}

/// `explained_variance` of a metrics array of `value_loss` in host memory, merged or not.
template <class Real>
std::remove_const_t<Real> value_explained_variance(view<Real, 2> metrics) {
  require_extent("value_explained_variance", "metrics", metrics, 0, std::size(value_loss_metrics), "the number of metrics");
  return explained_variance(metrics(4, 0), metrics(5, 0), metrics(2, 0), metrics(3, 0), metrics(2, 1));
}

/// What the host overload returns.
template <class T>
struct value_loss_result {
  T loss = 0, clip_fraction = 0, explained_variance = 0;
  std::vector<T> d_values;  ///< `[N]`
};

/// Values, old values (`{}` without clipping) and returns of the sequences of a host layout; loss and gradient out.
template <detail::host_range R>
value_loss_result<detail::value_of<R>> value_loss(const R& values, view<const detail::value_of<R>, 1> old_values,
                                                  view<const detail::value_of<R>, 1> returns, const sequence_layout<>& sequences,
                                                  value_loss_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(values);
  require_layout("value_loss", sequences, x.extent(0));
  require_layout_data("value_loss", sequences, x.extent(0));
  if (options.denominator == 0) options.denominator = count_for(options.aggregate, sequences);
  value_loss_result<T> r{.d_values = detail::zeros<T>(x.extent(0))};
  T m[std::size(value_loss_metrics)][2] = {};
  const view<T, 2> metrics(&m[0][0], std::size(value_loss_metrics), 2);
  detail::host_call<T> call(value_loss_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  value_loss(call.compute, call.scratch, {.values = x, .old_values = old_values, .returns = returns, .sequences = sequences}, options,
             {.loss = r.loss, .d_values = r.d_values, .metrics = metrics});
  r.clip_fraction = metric_value(metric_kind::mean, m[0][0], m[0][1]);
  r.explained_variance = value_explained_variance(metrics);
  return r;
}

PLUMB_NAMESPACE_END

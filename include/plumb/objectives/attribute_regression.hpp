#pragma once
// Multi-attribute regression reward models (HelpSteer2), and the scalar reward that goal weights make of the attributes.

#include <plumb/math/attribute_regression.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/metrics.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `attribute_regression`.
struct attribute_regression_options {
  double missing = -100;   ///< the label of an attribute that was not rated
  double denominator = 0;  ///< rated cells of the global batch (`count_rated`); host overload: 0 means those given
  double weight = 1;       ///< what the loss counts for beside others

  void require(const char* op) const {
    require_option(op, "missing", missing, true, "a number that no rating has");
    detail::require_weight(op, weight);
  }
};

/// `N` replies, `K` attributes.
template <class Real, class Space = host_space>
struct attribute_regression_inputs {
  view<const Real, 2, Space> prediction{};  ///< `[N, K]`
  view<const Real, 2, Space> label{};       ///< `[N, K]`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct attribute_regression_outputs {
  view<Real, 1, Space> loss{};          ///< one number
  view<Real, 2, Space> d_prediction{};  ///< `[N, K]`
  view<Real, 2, Space> metrics{};       ///< `[K, 2]`: squared error and rated cells of each attribute
  write_mode mode = write_mode::overwrite;        ///< of `loss` and `d_prediction`
};

/// Bytes of arena that `attribute_regression` takes.
template <class B>
std::size_t attribute_regression_workspace(const B&, index_t replies, index_t attributes) {
  using real = real_of<B>;
  return workspace_size()
      .template add<real>(replies * attributes)
      .template add<real>(replies * attributes)
      .template add<real>(1)
      .bytes();
}

/// Number of rated cells of `label` `[N, K]` in host memory: the denominator of the loss.
template <class Real>
index_t count_rated(view<const Real, 2> label, double missing = -100) {
  index_t n = 0;
  const math::is_rated<Real> rated{static_cast<Real>(missing)};
  for (index_t i = 0; i < label.extent(0); ++i)
    for (index_t k = 0; k < label.extent(1); ++k) n += Real(0) < rated(label(i, k));
  return n;
}

/// `L = weight/denominator sum over rated cells of (prediction - label)^2`: one denominator over all cells, no factor 1/2, no weights.
/// arXiv:2406.08673, section 4.1; NeMo-Aligner's `reg_loss_func`, whose mean over equal micro-batches is exact here because sum and count
/// stay apart. Cells that are not rated contribute exactly nothing. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void attribute_regression(B& b, arena_of<B>& scratch, const attribute_regression_inputs<real_of<B>, space_of<B>>& in,
                          const attribute_regression_options& options,
                          const attribute_regression_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "attribute_regression";
  const index_t n = in.prediction.extent(0), k = in.prediction.extent(1);
  require_arguments(op, {{"loss", out.loss}, {"d_prediction", out.d_prediction}, {"metrics", out.metrics}},
                    {{"prediction", in.prediction}, {"label", in.label}});
  require_given(op, "prediction", in.prediction, in.label.given());
  require_given(op, "label", in.label, n > 0);
  require_same_shape(op, "label", in.label, "prediction", in.prediction);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, static_cast<std::size_t>(k));
  if (out.d_prediction.given()) require_same_shape(op, "d_prediction", out.d_prediction, "prediction", in.prediction);
  scratch.require(op, attribute_regression_workspace(b, n, k));
  typename arena_of<B>::frame frame(scratch);
  const real inverse = static_cast<real>(options.weight / options.denominator);
  const real missing = static_cast<real>(options.missing);
  const auto error = scratch.template take<real>(n, k);
  const auto gradient = scratch.template take<real>(n, k);
  b.transform2(math::squared_error_term<real>{missing, inverse}, error, gradient, in.prediction, in.label);
  detail::write_loss(b, scratch, out.loss, as_const(reshaped(error, n * k)), inverse, out.mode);
  detail::write_gradient(b, out.d_prediction, as_const(gradient), real(1), out.mode);
  if (out.metrics.given()) {
    const auto column = [&](index_t c) { return as_row(out.metrics.transposed().row(c)); };
    b.reduce(reduction::sum, as_const(error), column(0), write_mode::overwrite);
    b.transform(math::is_rated<real>{missing}, error, in.label);
    b.reduce(reduction::sum, as_const(error), column(1), write_mode::overwrite);
  }
}

/// What the host overload returns.
template <class T>
struct attribute_regression_result {
  T loss = 0;
  std::vector<T> d_prediction;   ///< `[N, K]`, row-major
  std::vector<T> mean_squared;   ///< `[K]`, per attribute; NaN where nothing was rated
};

/// Row-major predictions and labels of `attributes` columns; loss and gradient out.
template <detail::host_range R>
attribute_regression_result<detail::value_of<R>> attribute_regression(const R& prediction,
                                                                      view<const detail::value_of<R>, 1> label,
                                                                      index_t attributes,
                                                                      attribute_regression_options options = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "attribute_regression";
  const view<const T, 1> p(prediction);
  require_same_shape(op, "label", label, "prediction", p);
  const auto predictions = detail::host_rows(op, "prediction", p, attributes, "attributes");
  const auto labels = detail::host_rows(op, "label", label, attributes, "attributes");
  const index_t n = predictions.extent(0);
  if (options.denominator == 0) {
    const index_t count = count_rated(labels, options.missing);
    options.denominator = static_cast<double>(count > 0 ? count : 1);
  }
  attribute_regression_result<T> r{.d_prediction = detail::zeros<T>(p.extent(0)), .mean_squared = detail::zeros<T>(attributes)};
  std::vector<T> m(static_cast<std::size_t>(2 * attributes));
  detail::host_call<T> call(attribute_regression_workspace(serial::backend<T>{}, n, attributes));
  attribute_regression(call.compute, call.scratch, {.prediction = predictions, .label = labels}, options,
                       {.loss = r.loss, .d_prediction = view<T, 2>(r.d_prediction.data(), n, attributes),
                        .metrics = view<T, 2>(m.data(), attributes, 2)});
  for (std::size_t a = 0; a < r.mean_squared.size(); ++a)
    r.mean_squared[a] = metric_value(metric_kind::mean, m[2 * a], m[2 * a + 1]);
  return r;
}

/// How `goal_reward` standardises the weighted sum.
struct goal_reward_options {
  double mean = 0;                ///< subtracted from the weighted sum
  double standard_deviation = 1;  ///< divides it; positive

  void require(const char* op) const {
    require_option(op, "mean", mean, true, "the mean of the weighted sum");
    require_option(op, "standard_deviation", standard_deviation, standard_deviation > 0, "positive");
  }
};

/// Bytes of arena that `goal_reward` takes.
template <class B>
std::size_t goal_reward_workspace(B& b, index_t replies, index_t attributes) {
  const view<const real_of<B>, 2, space_of<B>> p(nullptr, replies, attributes), w(nullptr, attributes, index_t{1});
  const view<real_of<B>, 2, space_of<B>> r(nullptr, replies, index_t{1});
  return b.gemm_workspace(p, w, r);
}

/// `reward[i] = (sum_k weights[k] prediction[i, k] - mean) / standard_deviation`: prediction `[N, K]`, weights `[K]`, reward `[N]`. The weights
/// say what is wanted; outputs that were never trained need weight 0.
template <class B>
  requires has_backend_types<B>
void goal_reward(B& b, arena_of<B>& scratch, std::type_identity_t<const_real_view<B, 2>> prediction,
                 std::type_identity_t<const_real_view<B>> weights, const goal_reward_options& options,
                 std::type_identity_t<real_view<B>> reward) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "goal_reward";
  require_arguments(op, {{"reward", reward}}, {{"prediction", prediction}, {"weights", weights}});
  require_given(op, "prediction", prediction, reward.given());
  require_given(op, "weights", weights, prediction.given());
  require_given(op, "reward", reward, prediction.given());
  require_extent(op, "weights", weights, 0, prediction.extent(1), "columns of `prediction`");
  require_extent(op, "reward", reward, 0, prediction.extent(0), "rows of `prediction`");
  options.require(op);
  scratch.require(op, goal_reward_workspace(b, prediction.extent(0), prediction.extent(1)));
  b.gemm(scratch, real(1), prediction, as_column(weights), real(0), as_column(reward));
  if (options.mean == 0 && options.standard_deviation == 1) return;
  b.transform(math::standardize<real>{static_cast<real>(options.mean), static_cast<real>(1 / options.standard_deviation)},
              reward, as_const(reward));
}

/// Row-major predictions, as many columns as there are weights; a reward for each row out, on the serial backend.
template <detail::host_range R>
std::vector<detail::value_of<R>> goal_reward(const R& prediction, view<const detail::value_of<R>, 1> weights, const goal_reward_options& options = {}) {
  using T = detail::value_of<R>;
  const auto rows = detail::host_rows("goal_reward", "prediction", view<const T, 1>(prediction), weights.extent(0), "weights");
  auto reward = detail::zeros<T>(rows.extent(0));
  serial::backend<T> compute;
  detail::host_call<T> call(goal_reward_workspace(compute, rows.extent(0), rows.extent(1)));
  goal_reward(call.compute, call.scratch, rows, weights, options, reward);
  return reward;
}

/// Weights over (helpfulness, correctness, coherence, complexity, verbosity) published with HelpSteer2 (arXiv:2406.08673).
namespace goal_weights {
inline constexpr double helpsteer2_llama3_70b[5] = {0.65, 0.80, 0.45, 0.55, -0.40};      ///< appendix H; found on RewardBench itself
inline constexpr double helpsteer2_nemotron4_340b[5] = {0.30, 0.74, 0.46, 0.47, -0.33};  ///< appendix H; likewise
inline constexpr double helpsteer2_goodness[5] = {0.65, 0.80, 0.45, 0, 0};               ///< section 4.3, for iterative DPO and PPO
}  // namespace goal_weights

PLUMB_NAMESPACE_END

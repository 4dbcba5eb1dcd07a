#pragma once
// Process reward models: a verdict at the end of each step of a solution.

#include <plumb/math/attribute_regression.hpp>
#include <plumb/math/process_reward.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/metrics.hpp>

#include <iterator>
#include <utility>

PLUMB_NAMESPACE_BEGIN

/// Options of `process_reward`.
struct process_reward_options {
  double missing = -100;   ///< the label of a step that was not judged
  double denominator = 0;  ///< judged steps of the global batch; host overload: 0 means those given
  double weight = 1;       ///< what the loss counts for beside others

  void require(const char* op) const {
    require_option(op, "missing", missing, missing < 0 || missing > 1, "outside [0, 1], where labels are");
    detail::require_weight(op, weight);
  }
};

/// Rows of `metrics`, over judged steps: accuracy (a tie is wrong), mean probability of "good".
inline constexpr metric_info process_reward_metrics[] = {{"accuracy"}, {"probability"}};

/// `M` ends of steps. The logits of two tokens ("+" and "-") are two columns of logits `[M, V]`: `logits.transposed().row(token)`; from hidden
/// states, `reward_head` with the two rows of the output head gives them as `[M, 2]`, and no other logit is computed.
template <class Real, class Space = host_space>
struct process_reward_inputs {
  view<const Real, 1, Space> good{};   ///< `[M]`, logit of the verdict "good"
  view<const Real, 1, Space> bad{};    ///< `[M]`, logit of the verdict "bad"; a model with one output: zeros
  view<const Real, 1, Space> label{};  ///< `[M]`, 1 good, 0 bad, or between: how often the step led to the right answer
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct process_reward_outputs {
  view<Real, 1, Space> loss{};       ///< one number
  view<Real, 1, Space> d_good{};     ///< `[M]`
  view<Real, 1, Space> d_bad{};      ///< `[M]`
  view<Real, 1, Space> step_loss{};  ///< `[M]`, not divided
  view<Real, 2, Space> metrics{};    ///< `[2, 2]`, rows as in `process_reward_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and the gradients
};

/// Bytes of arena that `process_reward` takes.
template <class B>
std::size_t process_reward_workspace(const B&, index_t steps) {
  using real = real_of<B>;
  return workspace_size().template add<real>(steps).template add<real>(steps).template add<real>(1).bytes();
}

/// `L = -weight/denominator sum over judged steps of [y log p + (1 - y) log(1 - p)]`, `p = sigmoid(good - bad)`: the cross-entropy over the two
/// verdicts. Steps that were not judged contribute nothing. arXiv:2305.20050. The same function as OpenRLHF's `PRMLoss` with two reward tokens
/// (hard or soft labels). Without reward tokens that loss is the cross-entropy over the whole vocabulary: `supervised` of `token_logp`.
template <class B>
  requires has_backend_types<B>
void process_reward(B& b, arena_of<B>& scratch, const process_reward_inputs<real_of<B>, space_of<B>>& in, const process_reward_options& options,
                    const process_reward_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "process_reward";
  const index_t steps = in.good.extent(0);
  require_arguments(op, {{"loss", out.loss}, {"d_good", out.d_good}, {"d_bad", out.d_bad}, {"step_loss", out.step_loss}, {"metrics", out.metrics}},
                    {{"good", in.good}, {"bad", in.bad}, {"label", in.label}});
  require_given(op, "good", in.good, in.bad.given());
  require_given(op, "bad", in.bad, steps > 0);
  require_given(op, "label", in.label, steps > 0);
  require_same_shape(op, "bad", in.bad, "good", in.good);
  require_same_shape(op, "label", in.label, "good", in.good);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(process_reward_metrics));
  for (const auto& [name, v] : {std::pair{"d_good", out.d_good}, {"d_bad", out.d_bad}, {"step_loss", out.step_loss}})
    if (v.given()) require_same_shape(op, name, v, "good", in.good);
  scratch.require(op, process_reward_workspace(b, steps));
  typename arena_of<B>::frame frame(scratch);
  const real factor = static_cast<real>(options.weight / options.denominator), missing = static_cast<real>(options.missing);
  const auto loss = scratch.template take<real>(steps), slope = scratch.template take<real>(steps);
  b.transform2(math::step_term<real>{missing, factor}, loss, slope, in.good, in.bad, in.label);
  if (out.step_loss.given()) b.copy(as_const(loss), out.step_loss);
  detail::write_loss(b, scratch, out.loss, as_const(loss), factor, out.mode);
  detail::write_gradient(b, out.d_good, as_const(slope), real(1), out.mode);
  detail::write_gradient(b, out.d_bad, as_const(slope), real(-1), out.mode);
  if (!out.metrics.given()) return;
  const auto cell = [&](index_t row, index_t column) { return out.metrics.row(row).slice(column, 1); };
  b.transform(math::step_is_right<real>{missing}, loss, in.good, in.bad, in.label);
  b.reduce(reduction::sum, as_const(loss), cell(0, 0), write_mode::overwrite);
  b.transform(math::step_probability<real>{missing}, loss, in.good, in.bad, in.label);
  b.reduce(reduction::sum, as_const(loss), cell(1, 0), write_mode::overwrite);
  b.transform(math::is_rated<real>{missing}, loss, in.label);
  for (const index_t row : {0, 1}) b.reduce(reduction::sum, as_const(loss), cell(row, 1), write_mode::overwrite);
}

/// What the host overload returns.
template <class T>
struct process_reward_result {
  T loss = 0, accuracy = 0, probability = 0;
  std::vector<T> d_good, d_bad;  ///< `[M]`
};

/// Vectors in, loss and gradient out, on the serial backend.
template <detail::host_range R>
process_reward_result<detail::value_of<R>> process_reward(const R& good, view<const detail::value_of<R>, 1> bad,
                                                          view<const detail::value_of<R>, 1> label, process_reward_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> g(good);
  const index_t steps = g.extent(0);
  if (options.denominator == 0) {
    index_t count = 0;
    const math::is_rated<T> judged{static_cast<T>(options.missing)};
    for (index_t i = 0; i < label.extent(0); ++i) count += T(0) < judged(label(i));
    options.denominator = static_cast<double>(count > 0 ? count : 1);
  }
  process_reward_result<T> r{.d_good = detail::zeros<T>(steps), .d_bad = detail::zeros<T>(steps)};
  T m[std::size(process_reward_metrics)][2] = {};
  detail::host_call<T> call(process_reward_workspace(serial::backend<T>{}, steps));
  process_reward(call.compute, call.scratch, {.good = g, .bad = bad, .label = label}, options,
                 {.loss = r.loss, .d_good = r.d_good, .d_bad = r.d_bad, .metrics = view<T, 2>(&m[0][0], std::size(process_reward_metrics), 2)});
  r.accuracy = metric_value(metric_kind::mean, m[0][0], m[0][1]);
  r.probability = metric_value(metric_kind::mean, m[1][0], m[1][1]);
  return r;
}

PLUMB_NAMESPACE_END

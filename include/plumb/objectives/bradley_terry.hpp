#pragma once
// Reward models from pairs: the Bradley-Terry loss, plain, with margin, scaled, with a centring term.

#include <plumb/math/bradley_terry.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/metrics.hpp>

#include <utility>

PLUMB_NAMESPACE_BEGIN

/// Options of `bradley_terry`.
struct bradley_terry_options {
  double center_coefficient = 0;  ///< `c` of `c (chosen + rejected)^2`, added to the loss of each pair; >= 0
  double denominator = 0;  ///< number of pairs of the global batch; host overload: 0 means the valid pairs given
};

/// Rewards of `P` pairs. Arrays that are not given: margin 0, scale 1, every pair valid.
template <class Real, class Space = host_space>
struct bradley_terry_inputs {
  view<const Real, 1, Space> chosen{};           ///< `[P]`
  view<const Real, 1, Space> rejected{};         ///< `[P]`
  view<const Real, 1, Space> margin{};           ///< `[P]`, subtracted inside the sigmoid
  view<const Real, 1, Space> scale{};            ///< `[P]`, multiplies the loss of the pair
  view<const std::uint8_t, 1, Space> valid{};    ///< `[P]`; pairs with 0 contribute exactly nothing, whatever they hold
};

/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct bradley_terry_outputs {
  view<Real, 1, Space> loss{};         ///< one number: sum over pairs / denominator
  view<Real, 1, Space> d_chosen{};     ///< `[P]`, dL/dchosen
  view<Real, 1, Space> d_rejected{};   ///< `[P]`
  view<Real, 1, Space> d_margin{};     ///< `[P]`
  view<Real, 1, Space> pair_loss{};    ///< `[P]`, not divided
  view<Real, 2, Space> metrics{};      ///< `[7, 2]`, rows as in `bradley_terry_metrics`
  write_mode mode = write_mode::overwrite;       ///< of the gradients
};

/// Accuracy counts `chosen > rejected`, a tie as wrong. Means over valid pairs; reward_mean, _min, _max over both sides.
inline constexpr metric_info bradley_terry_metrics[] = {
    {"accuracy"},    {"margin"},
    {"reward_chosen"}, {"reward_rejected"},
    {"reward_mean"}, {"reward_min", metric_kind::min},
    {"reward_max", metric_kind::max}};

/// Bytes of arena that `bradley_terry` takes.
template <class B>
std::size_t bradley_terry_workspace(const B&, index_t pairs) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(pairs);  // losses, gaps, weights, centring
  w.template add<real>(pairs).template add<real>(1).template add<real>(1).template add<real>(1);
  return w.add_bytes(detail::metric_rows<B>::workspace(pairs)).bytes();
}

/// `L = 1/denominator sum_p [ -scale log sigmoid(chosen - rejected - margin) + c (chosen + rejected)^2 ]`, gradients and metrics.
///
/// Enqueues on `b` and returns; nothing is allocated. Sources: see math/bradley_terry.hpp. Checked against TRL `RewardTrainer`, OpenRLHF
/// `PairWiseLoss`, NeMo-Aligner's binary and regression reward models, and DR-PO's `rm.py`.
template <class B>
  requires has_backend_types<B>
void bradley_terry(B& b, arena_of<B>& scratch, const bradley_terry_inputs<real_of<B>, space_of<B>>& in,
                   const bradley_terry_options& options, const bradley_terry_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "bradley_terry";
  const index_t pairs = in.chosen.extent(0);
  require_arguments(op, {{"loss", out.loss}, {"d_chosen", out.d_chosen}, {"d_rejected", out.d_rejected}, {"d_margin", out.d_margin},
                         {"pair_loss", out.pair_loss}, {"metrics", out.metrics}},
                    {{"chosen", in.chosen}, {"rejected", in.rejected}, {"margin", in.margin}, {"scale", in.scale}, {"valid", in.valid}});
  require_given(op, "chosen", in.chosen, in.rejected.given());
  require_given(op, "rejected", in.rejected, pairs > 0);
  require_same_shape(op, "rejected", in.rejected, "chosen", in.chosen);
  if (in.margin.given()) require_same_shape(op, "margin", in.margin, "chosen", in.chosen);
  if (in.scale.given()) require_same_shape(op, "scale", in.scale, "chosen", in.chosen);
  if (in.valid.given()) require_same_shape(op, "valid", in.valid, "chosen", in.chosen);
  require_option(op, "center_coefficient", options.center_coefficient, options.center_coefficient >= 0, "0 or positive");
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(bradley_terry_metrics));
  for (const auto& [name, v] : {std::pair{"d_chosen", out.d_chosen}, {"d_rejected", out.d_rejected}, {"d_margin", out.d_margin}, {"pair_loss", out.pair_loss}})
    if (v.given()) require_same_shape(op, name, v, "chosen", in.chosen);

  scratch.require(op, bradley_terry_workspace(b, pairs));
  typename arena_of<B>::frame frame(scratch);
  const real inverse = static_cast<real>(1 / options.denominator);
  const auto margin = in.margin.given() ? in.margin : detail::constant(b, scratch, real(0), pairs);
  auto scale = in.scale.given() ? in.scale : detail::constant(b, scratch, real(1), pairs);
  if (in.valid.given()) {
    const auto weight = scratch.template take<real>(pairs);
    b.transform(math::keep_where{}, weight, scale, in.valid);
    scale = weight;
  }
  const auto loss = scratch.template take<real>(pairs);
  const auto d_gap = scratch.template take<real>(pairs);
  b.transform2(math::bradley_terry_term<real>{inverse}, loss, d_gap, in.chosen, in.rejected, margin, scale);

  const bool centered = options.center_coefficient > 0;
  const auto d_center = scratch.template take<real>(centered ? pairs : 0);
  if (centered) {
    const auto term = scratch.template take<real>(pairs);
    const math::centering_term<real> f{static_cast<real>(options.center_coefficient), inverse};
    if (in.valid.given()) {
      b.transform2(f, term, d_center, in.chosen, in.rejected, in.valid);
    } else {
      b.transform2(f, term, d_center, in.chosen, in.rejected, detail::constant(b, scratch, real(1), pairs));
    }
    b.transform(math::plus{}, loss, as_const(loss), as_const(term));
  }
  if (out.pair_loss.given()) b.copy(as_const(loss), out.pair_loss);
  if (out.loss.given()) {
    b.reduce(reduction::sum, as_const(loss), out.loss, write_mode::overwrite);
    b.transform(math::scale<real>{inverse}, out.loss, as_const(out.loss));
  }
  detail::write_gradient(b, out.d_chosen, as_const(d_gap), real(1), out.mode);
  detail::write_gradient(b, out.d_rejected, as_const(d_gap), real(-1), out.mode);
  detail::write_gradient(b, out.d_margin, as_const(d_gap), real(-1), out.mode);
  if (centered) {
    detail::write_gradient(b, out.d_chosen, as_const(d_center), real(1), write_mode::add);
    detail::write_gradient(b, out.d_rejected, as_const(d_center), real(1), write_mode::add);
  }
  if (out.metrics.given()) {
    detail::metric_rows<B> rows(b, scratch, out.metrics, pairs, in.valid);
    rows.mean(0, math::is_greater{}, in.chosen, in.rejected);
    rows.mean(1, math::minus{}, in.chosen, in.rejected);
    rows.mean(2, math::identity{}, in.chosen);
    rows.mean(3, math::identity{}, in.rejected);
    b.copy(as_const(out.metrics.slice(2, 1)), out.metrics.slice(4, 1));
    rows.add_row(4, 3);
    rows.max(5, math::larger_negated{}, in.chosen, in.rejected);
    rows.max(6, math::larger{}, in.chosen, in.rejected);
  }
}

/// What the host overload returns.
template <class T>
struct bradley_terry_result {
  T loss = 0, accuracy = 0, margin = 0, reward_chosen = 0, reward_rejected = 0, reward_mean = 0, reward_min = 0,
    reward_max = 0;
  std::vector<T> d_chosen, d_rejected;  ///< `[P]`
};

/// Vectors in, loss and gradient out: rewards of `P` pairs, on the serial backend.
template <detail::host_range R>
bradley_terry_result<detail::value_of<R>> bradley_terry(const R& chosen,
                                                        view<const detail::value_of<R>, 1> rejected,
                                                        bradley_terry_options options = {},
                                                        view<const detail::value_of<R>, 1> margin = {},
                                                        view<const detail::value_of<R>, 1> scale = {},
                                                        view<const std::uint8_t, 1> valid = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> c(chosen);
  const index_t pairs = c.extent(0);
  if (options.denominator == 0) {
    index_t count = valid.given() ? 0 : pairs;
    for (index_t p = 0; valid.given() && p < valid.extent(0); ++p) count += valid(p) != 0;
    options.denominator = static_cast<double>(count > 0 ? count : 1);
  }
  bradley_terry_result<T> r{.d_chosen = detail::zeros<T>(pairs), .d_rejected = detail::zeros<T>(pairs)};
  T m[std::size(bradley_terry_metrics)][2] = {};
  detail::host_call<T> call(bradley_terry_workspace(serial::backend<T>{}, pairs));
  bradley_terry(call.compute, call.scratch,
                {.chosen = c, .rejected = rejected, .margin = margin, .scale = scale, .valid = valid}, options,
                {.loss = r.loss, .d_chosen = r.d_chosen, .d_rejected = r.d_rejected,
                 .metrics = view<T, 2>(&m[0][0], std::size(bradley_terry_metrics), 2)});
  T* fields[] = {&r.accuracy, &r.margin, &r.reward_chosen, &r.reward_rejected, &r.reward_mean, &r.reward_min, &r.reward_max};
  for (std::size_t k = 0; k < std::size(fields); ++k)
    *fields[k] = metric_value(bradley_terry_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

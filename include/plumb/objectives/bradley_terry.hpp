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
  double weight = 1;       ///< what the loss counts for beside others

  void require(const char* op) const {
    require_option(op, "center_coefficient", center_coefficient, center_coefficient >= 0, "0 or positive");
    detail::require_weight(op, weight);
  }
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
  view<Real, 1, Space> loss{};         ///< one number: weight / denominator times the sum over pairs
  view<Real, 1, Space> d_chosen{};     ///< `[P]`, dL/dchosen
  view<Real, 1, Space> d_rejected{};   ///< `[P]`
  view<Real, 1, Space> d_margin{};     ///< `[P]`
  view<Real, 1, Space> pair_loss{};    ///< `[P]`, not divided
  view<Real, 2, Space> metrics{};      ///< `[7, 2]`, rows as in `bradley_terry_metrics`
  write_mode mode = write_mode::overwrite;       ///< of `loss` and the gradients
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
  w.template add<real>(pairs).template add<real>(1).template add<real>(1).template add<real>(1).template add<real>(1);
  return w.add_bytes(detail::metric_rows<B>::workspace(pairs)).bytes();
}

namespace detail {
// Everything is checked. `valid`: bytes or numbers, or not given; `in.valid` is not looked at.
template <class B, class Valid>
void bradley_terry_terms(B& b, arena_of<B>& scratch, const bradley_terry_inputs<real_of<B>, space_of<B>>& in, view<const Valid, 1, space_of<B>> valid,
                         const bradley_terry_options& options, const bradley_terry_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  const index_t pairs = in.chosen.extent(0);
  typename arena_of<B>::frame frame(scratch);
  const real inverse = static_cast<real>(options.weight / options.denominator);
  const auto margin = in.margin.given() ? in.margin : constant(b, scratch, real(0), pairs);
  auto scale = in.scale.given() ? in.scale : constant(b, scratch, real(1), pairs);
  if (valid.given()) {
    const auto weight = scratch.template take<real>(pairs);
    b.transform(math::keep_where{}, weight, scale, valid);
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
    if (valid.given()) {
      b.transform2(f, term, d_center, in.chosen, in.rejected, valid);
    } else {
      b.transform2(f, term, d_center, in.chosen, in.rejected, constant(b, scratch, real(1), pairs));
    }
    b.transform(math::plus{}, loss, as_const(loss), as_const(term));
  }
  if (out.pair_loss.given()) b.copy(as_const(loss), out.pair_loss);
  write_loss(b, scratch, out.loss, as_const(loss), inverse, out.mode);
  write_gradient(b, out.d_chosen, as_const(d_gap), real(1), out.mode);
  write_gradient(b, out.d_rejected, as_const(d_gap), real(-1), out.mode);
  write_gradient(b, out.d_margin, as_const(d_gap), real(-1), out.mode);
  if (centered) {
    write_gradient(b, out.d_chosen, as_const(d_center), real(1), write_mode::add);
    write_gradient(b, out.d_rejected, as_const(d_center), real(1), write_mode::add);
  }
  if (out.metrics.given()) {
    metric_rows<B, Valid> rows(b, scratch, out.metrics, pairs, valid);
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
}  // namespace detail

/// `L = weight/denominator sum_p [ -scale log sigmoid(chosen - rejected - margin) + c (chosen + rejected)^2 ]`, gradients and metrics.
///
/// Enqueues on `b` and returns; nothing is allocated. Sources: see math/bradley_terry.hpp. Checked against TRL `RewardTrainer`, OpenRLHF
/// `PairWiseLoss`, NeMo-Aligner's binary and regression reward models, and DR-PO's `rm.py`.
template <class B>
  requires has_backend_types<B>
void bradley_terry(B& b, arena_of<B>& scratch, const bradley_terry_inputs<real_of<B>, space_of<B>>& in,
                   const bradley_terry_options& options, const bradley_terry_outputs<real_of<B>, space_of<B>>& out) {
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
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(bradley_terry_metrics));
  for (const auto& [name, v] :
       {std::pair{"d_chosen", out.d_chosen}, {"d_rejected", out.d_rejected}, {"d_margin", out.d_margin}, {"pair_loss", out.pair_loss}})
    if (v.given()) require_same_shape(op, name, v, "chosen", in.chosen);

  scratch.require(op, bradley_terry_workspace(b, pairs));
  detail::bradley_terry_terms(b, scratch, in, in.valid, options, out);
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

/// What the size of a pair's strength does to its loss.
enum class strength_use {
  ignored,  ///< plain Bradley-Terry
  margin,   ///< subtracted inside the sigmoid
  scale,    ///< multiplies the loss
};

/// Options of `rated_bradley_terry`.
struct rated_bradley_terry_options {
  strength_use use = strength_use::scale;  ///< HelpSteer2-Preference found `scale` best
  bool ties_to_second =
      false;  ///< a strength of 0 prefers the second reply, as in NeMo-Aligner; else such a pair does not count (HelpSteer2 drops it)
  double missing = -100;        ///< the strength of a pair that was not rated, or not validly: it does not count
  bradley_terry_options loss{};

  void require(const char* op) const {
    require_mode(op, "use", use, strength_use::scale);
    require_option(op, "missing", missing, true, "a number that no strength has");
    loss.require(op);
  }
};

/// Rewards of two replies to each of `P` prompts, and which is better by how much.
template <class Real, class Space = host_space>
struct rated_bradley_terry_inputs {
  view<const Real, 1, Space> first{};     ///< `[P]`; may be a column of attributes: every second row of `[2P, K]`, say
  view<const Real, 1, Space> second{};    ///< `[P]`
  view<const Real, 1, Space> strength{};  ///< `[P]`, negative: the first is better; the rating of the second minus that of the first, say
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct rated_bradley_terry_outputs {
  view<Real, 1, Space> loss{};       ///< one number: weight / denominator times the sum over pairs
  view<Real, 1, Space> d_first{};    ///< `[P]`
  view<Real, 1, Space> d_second{};   ///< `[P]`
  view<Real, 1, Space> pair_loss{};  ///< `[P]`, not divided
  view<Real, 2, Space> metrics{};    ///< `[7, 2]`, rows as in `bradley_terry_metrics`, over the pairs that count
  write_mode mode = write_mode::overwrite;  ///< of `loss` and the gradients
};

/// Bytes of arena that `rated_bradley_terry` takes.
template <class B>
std::size_t rated_bradley_terry_workspace(const B& b, index_t pairs) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 6; ++i) w.template add<real>(pairs);
  return w.add_bytes(bradley_terry_workspace(b, pairs)).bytes();
}

/// `bradley_terry` of pairs whose order and weight a signed strength says: HelpSteer2-Preference's -3 .. 3, or a gap of ratings.
/// `options.loss.denominator` is the number of pairs that count (`count_rated_pairs`). arXiv:2410.01257. Checked against NeMo-Aligner's
/// regression reward model (`regular_bt`, `margin_bt`, `scaled_bt`), with `ties_to_second`.
template <class B>
  requires has_backend_types<B>
void rated_bradley_terry(B& b, arena_of<B>& scratch, const rated_bradley_terry_inputs<real_of<B>, space_of<B>>& in,
                         const rated_bradley_terry_options& options, const rated_bradley_terry_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "rated_bradley_terry";
  const index_t pairs = in.first.extent(0);
  require_arguments(
      op, {{"loss", out.loss}, {"d_first", out.d_first}, {"d_second", out.d_second}, {"pair_loss", out.pair_loss}, {"metrics", out.metrics}},
      {{"first", in.first}, {"second", in.second}, {"strength", in.strength}});
  require_given(op, "first", in.first, in.second.given());
  require_given(op, "second", in.second, pairs > 0);
  require_given(op, "strength", in.strength, pairs > 0);
  require_same_shape(op, "second", in.second, "first", in.first);
  require_same_shape(op, "strength", in.strength, "first", in.first);
  options.require(op);
  detail::require_denominator(op, options.loss.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(bradley_terry_metrics));
  for (const auto& [name, v] : {std::pair{"d_first", out.d_first}, {"d_second", out.d_second}, {"pair_loss", out.pair_loss}})
    if (v.given()) require_same_shape(op, name, v, "first", in.first);
  scratch.require(op, rated_bradley_terry_workspace(b, pairs));
  typename arena_of<B>::frame frame(scratch);
  const auto chosen = scratch.template take<real>(pairs), rejected = scratch.template take<real>(pairs), size = scratch.template take<real>(pairs),
             valid = scratch.template take<real>(pairs), d_chosen = scratch.template take<real>(pairs),
             d_rejected = scratch.template take<real>(pairs);
  b.transform2(math::in_order{}, chosen, rejected, in.first, in.second, in.strength);
  b.transform(math::is_rated_pair<real>{static_cast<real>(options.missing), options.ties_to_second}, valid, in.strength);
  b.transform(math::magnitude{}, size, in.strength);
  bradley_terry_inputs<real, space_of<B>> x{.chosen = chosen, .rejected = rejected, .margin = {}, .scale = {}, .valid = {}};
  if (options.use == strength_use::margin) x.margin = size;
  if (options.use == strength_use::scale) x.scale = size;
  bradley_terry_outputs<real, space_of<B>> y{.loss = out.loss, .d_chosen = d_chosen, .d_rejected = d_rejected, .d_margin = {},
                                             .pair_loss = out.pair_loss, .metrics = out.metrics, .mode = out.mode};
  if (out.mode == write_mode::add) {
    b.fill(d_chosen, real(0));
    b.fill(d_rejected, real(0));
  }
  detail::bradley_terry_terms(b, scratch, x, as_const(valid), options.loss, y);
  b.transform2(math::in_order{}, chosen, rejected, as_const(d_chosen), as_const(d_rejected), in.strength);
  detail::write_gradient(b, out.d_first, as_const(chosen), real(1), out.mode);
  detail::write_gradient(b, out.d_second, as_const(rejected), real(1), out.mode);
}

/// Number of pairs of `strength` in host memory that count: the denominator of `rated_bradley_terry`.
template <class Real>
index_t count_rated_pairs(view<const Real, 1> strength, const rated_bradley_terry_options& options = {}) {
  const math::is_rated_pair<Real> counts{static_cast<Real>(options.missing), options.ties_to_second};
  index_t n = 0;
  for (index_t p = 0; p < strength.extent(0); ++p) n += !math::is_zero(counts(strength(p)));
  return n;
}

/// What the host overload of `rated_bradley_terry` returns.
template <class T>
struct rated_bradley_terry_result {
  T loss = 0, accuracy = 0, margin = 0;
  std::vector<T> d_first, d_second;  ///< `[P]`
};

/// Vectors in, loss and gradient out, on the serial backend; `loss.denominator` 0 means the pairs that count.
template <detail::host_range R>
rated_bradley_terry_result<detail::value_of<R>> rated_bradley_terry(const R& first, view<const detail::value_of<R>, 1> second,
                                                                    view<const detail::value_of<R>, 1> strength,
                                                                    rated_bradley_terry_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(first);
  const index_t pairs = x.extent(0);
  if (options.loss.denominator == 0) {
    const index_t count = count_rated_pairs(strength, options);
    options.loss.denominator = static_cast<double>(count > 0 ? count : 1);
  }
  rated_bradley_terry_result<T> r{.d_first = detail::zeros<T>(pairs), .d_second = detail::zeros<T>(pairs)};
  T m[std::size(bradley_terry_metrics)][2] = {};
  detail::host_call<T> call(rated_bradley_terry_workspace(serial::backend<T>{}, pairs));
  rated_bradley_terry(
      call.compute, call.scratch, {.first = x, .second = second, .strength = strength}, options,
      {.loss = r.loss, .d_first = r.d_first, .d_second = r.d_second, .metrics = view<T, 2>(&m[0][0], std::size(bradley_terry_metrics), 2)});
  r.accuracy = metric_value(metric_kind::mean, m[0][0], m[0][1]);
  r.margin = metric_value(metric_kind::mean, m[1][0], m[1][1]);
  return r;
}

PLUMB_NAMESPACE_END

#pragma once
// log P(a | x, y): how probable requested attribute levels are, given what a regression reward model says of a reply.

#include <plumb/compute/backend.hpp>
#include <plumb/math/attribute_posterior.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `attribute_posterior`.
struct attribute_posterior_options {
  std::int64_t levels = 5;                ///< ratings are 0 .. levels - 1; at least 2
  double concentration = 24;              ///< alpha + beta of the Beta distribution: 24 matches the spread of HelpSteer2's ratings
  bin_edges edges = bin_edges::equal;     ///< which part of the unit interval is a level: the paper does not say
  double clamp = 1e-3;                    ///< the mean stays this far from 0 and 1, where the distribution degenerates; in (0, 0.5)
  double missing = -100;                  ///< an attribute that was not asked for: contributes 0

  void require(const char* op) const {
    require_mode(op, "edges", edges, bin_edges::rounding);
    require_option(op, "levels", static_cast<double>(levels), levels >= 2, "at least 2");
    require_option(op, "concentration", concentration, concentration > 0 && concentration <= 1e4, "positive, and at most 10000");
    require_option(op, "clamp", clamp, clamp > 0 && clamp < 0.5, "in (0, 0.5)");
    require_option(op, "missing", missing, true, "a number that no level has");
  }
};

/// `N` replies, `K` attributes.
template <class Real, class Space = host_space>
struct attribute_posterior_inputs {
  view<const Real, 2, Space> prediction{};  ///< `[N, K]`, on the ratings' scale; values beyond it count as its ends
  view<const Real, 2, Space> level{};       ///< `[N, K]`, whole numbers; one request for all replies: `broadcast_rows(level, N)`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct attribute_posterior_outputs {
  view<Real, 1, Space> log_p{};           ///< `[N]`, summed over attributes (they count as independent given the reply)
  view<Real, 2, Space> log_p_attribute{};  ///< `[N, K]`
};

/// Bytes of arena that `attribute_posterior` takes.
template <class B>
std::size_t attribute_posterior_workspace(const B&, index_t replies, index_t attributes) {
  return workspace_size().template add<real_of<B>>(replies * attributes).bytes();
}

/// `log_p[i] = sum_k log [I_{hi}(alpha, beta) - I_{lo}(alpha, beta)]` with `alpha = concentration r`, `beta = concentration - alpha`,
/// `r = prediction[i, k] / (levels - 1)`, and `lo`, `hi` the edges of `level[i, k]`. arXiv:2406.08673, section 4.5; the edges, the clamp and the
/// product over attributes are ours, for the paper is silent. All in logarithms: far levels neither underflow nor cancel. It has no gradient:
/// the reward model is frozen. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void attribute_posterior(B& b, arena_of<B>& scratch, const attribute_posterior_inputs<real_of<B>, space_of<B>>& in,
                         const attribute_posterior_options& options, const attribute_posterior_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "attribute_posterior";
  const index_t n = in.prediction.extent(0), k = in.prediction.extent(1);
  require_arguments(op, {{"log_p", out.log_p}, {"log_p_attribute", out.log_p_attribute}}, {{"prediction", in.prediction}, {"level", in.level}});
  require_given(op, "prediction", in.prediction, in.level.given());
  require_given(op, "level", in.level, n > 0);
  require_same_shape(op, "level", in.level, "prediction", in.prediction);
  options.require(op);
  if (out.log_p.given()) require_extent(op, "log_p", out.log_p, 0, n, "the number of replies");
  if (out.log_p_attribute.given()) require_same_shape(op, "log_p_attribute", out.log_p_attribute, "prediction", in.prediction);
  scratch.require(op, attribute_posterior_workspace(b, n, k));
  typename arena_of<B>::frame frame(scratch);
  const auto each = out.log_p_attribute.given() ? out.log_p_attribute : scratch.template take<real>(n, k);
  const math::log_level_probability<real> f{static_cast<real>(static_cast<double>(options.levels - 1)), static_cast<real>(options.concentration),
                                            static_cast<real>(options.clamp), static_cast<real>(options.missing), options.edges};
  b.transform(f, each, in.prediction, in.level);
  if (out.log_p.given()) b.reduce(reduction::sum, as_const(each), as_column(out.log_p), write_mode::overwrite);
}

/// What the host overload returns.
template <class T>
struct attribute_posterior_result {
  std::vector<T> log_p;            ///< `[N]`
  std::vector<T> log_p_attribute;  ///< `[N, K]`, row-major
};

/// Row-major predictions of `attributes` columns, and a level for each, or one request `[K]` for all replies; on the serial backend.
template <detail::host_range R>
attribute_posterior_result<detail::value_of<R>> attribute_posterior(const R& prediction, view<const detail::value_of<R>, 1> level, index_t attributes,
                                                                    const attribute_posterior_options& options = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "attribute_posterior";
  const view<const T, 1> p(prediction);
  const auto rows = detail::host_rows(op, "prediction", p, attributes, "attributes");
  const index_t n = rows.extent(0);
  const bool one_request = level.extent(0) == attributes;
  if (!one_request) require_same_shape(op, "level", level, "prediction", p);
  attribute_posterior_result<T> r{detail::zeros<T>(n), detail::zeros<T>(p.extent(0))};
  detail::host_call<T> call(attribute_posterior_workspace(serial::backend<T>{}, n, attributes));
  const auto levels = one_request ? broadcast_rows(level, n) : detail::host_rows(op, "level", level, attributes, "attributes");
  attribute_posterior(call.compute, call.scratch, {.prediction = rows, .level = levels}, options,
                      {.log_p = r.log_p, .log_p_attribute = view<T, 2>(r.log_p_attribute.data(), n, attributes)});
  return r;
}

PLUMB_NAMESPACE_END

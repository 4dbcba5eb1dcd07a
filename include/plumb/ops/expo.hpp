#pragma once
// ExPO: model extrapolation. An aligned model is pushed further along the way that alignment took it.

#include <plumb/compute/backend.hpp>
#include <plumb/math/expo.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `extrapolate_weights`.
struct extrapolate_weights_options {
  double alpha = 0.5;  ///< how far beyond the aligned model; 0 is the aligned model itself, -1 the one it came from, between is interpolation

  void require(const char* op) const { require_option(op, "alpha", alpha, true, "a number"); }
};

/// `out = sft + (1 + alpha) (aligned - sft)`, parameter by parameter, as `aligned + alpha (aligned - sft)`. Any storage type and rank; `out` may be
/// `aligned` itself. arXiv:2404.16792; HelpSteer2-Preference (arXiv:2410.01257) found its factor 1 + alpha = 1.52 on RewardBench. Costs
/// no training, so `alpha` is chosen on held-out preferences: large ones break a model. Enqueues and returns.
template <class B, class S, int R>
void extrapolate_weights(B& b, view<const S, R, space_of<B>> sft, std::type_identity_t<view<const S, R, space_of<B>>> aligned,
                         const extrapolate_weights_options& options, std::type_identity_t<view<S, R, space_of<B>>> out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "extrapolate_weights";
  const argument output("out", out), from("aligned", aligned);
  require_arguments(op, {output}, {{"sft", sft}});
  require_arguments(op, {}, {from});
  if (!output.same_as(from)) require_disjoint(op, output, from);
  require_given(op, "sft", sft, aligned.given());
  require_given(op, "aligned", aligned, sft.given());
  require_given(op, "out", out, sft.given());
  require_same_shape(op, "aligned", aligned, "sft", sft);
  require_same_shape(op, "out", out, "sft", sft);
  options.require(op);
  b.transform(math::extrapolate<real>{static_cast<real>(options.alpha)}, out, sft, aligned);
}

/// Vectors in, the extrapolated parameters out, on the serial backend.
template <detail::host_range R>
std::vector<detail::value_of<R>> extrapolate_weights(const R& sft, view<const detail::value_of<R>, 1> aligned,
                                                     const extrapolate_weights_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> from(sft);
  auto out = detail::zeros<T>(from.extent(0));
  serial::backend<T> compute;
  extrapolate_weights(compute, from, aligned, options, out);
  return out;
}

PLUMB_NAMESPACE_END

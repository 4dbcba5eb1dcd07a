#pragma once
// Whitening: numbers of scored tokens brought to mean 0 and variance 1 over all ranks.

#include <plumb/ops/moments.hpp>

PLUMB_NAMESPACE_BEGIN

/// What stands at tokens that do not count.
enum class unscored_values {
  zero,
  transformed,  ///< shifted and scaled like the rest (verl, NeMo-Aligner leave them so); NaN there stays NaN
};

/// Options of `whiten`.
struct whiten_options {
  bool shift_mean = true;  ///< false: the mean is kept, as rewards are whitened
  variance_estimator variance = variance_estimator::biased;
  variance_guard guard = variance_guard::add;
  double epsilon = 1e-8;
  double count_epsilon = 0;  ///< added to the count that both means divide by (verl: 1e-8)
  unscored_values unscored = unscored_values::zero;

  moments_options moments() const { return {.variance = variance, .count_epsilon = count_epsilon}; }
  void require(const char* op) const {
    require_mode(op, "variance", variance, variance_estimator::unbiased);
    require_mode(op, "guard", guard, variance_guard::floor);
    require_mode(op, "unscored", unscored, unscored_values::transformed);
    require_option(op, "epsilon", epsilon, epsilon >= 0, "0 or positive");
    moments().require(op);
  }
};

/// One number per token, flat.
template <class Real, class Space = host_space>
using whiten_inputs = moments_inputs<Real, Space>;
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct whiten_outputs {
  view<Real, 1, Space> whitened{};  ///< `[N]`
  view<Real, 1, Space> mean{};      ///< one number, of the values as they came in
  view<Real, 1, Space> variance{};  ///< one number, likewise
};

/// Bytes of arena that `whiten` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t whiten_workspace(const B& b, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(1);
  return w.template add<real>(tokens).add_bytes(moments_workspace(b, sequences, tokens)).bytes();
}

/// `(x - mean) / sqrt(variance + epsilon)` over the scored tokens of all ranks. Enqueues and returns; nothing is allocated. Every rank calls,
/// those without tokens too. Checked against `masked_whiten` of TRL and verl, OpenRLHF `masked_normalize`, NeMo-Aligner `normalize_tensor`, DR-PO
/// `whiten`.
template <class B, communicator_for<B> C>
  requires has_backend_types<B>
void whiten(B& b, arena_of<B>& scratch, C& ranks, const whiten_inputs<real_of<B>, space_of<B>>& in, const whiten_options& options,
            const whiten_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "whiten";
  const index_t tokens = in.values.extent(0);
  require_arguments(op, {{"whitened", out.whitened}, {"mean", out.mean}, {"variance", out.variance}},
                    {{"values", in.values}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  options.require(op);
  require_given(op, "values", in.values, in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  if (out.whitened.given()) require_same_shape(op, "whitened", out.whitened, "values", in.values);
  detail::require_scalar(op, "mean", out.mean);
  detail::require_scalar(op, "variance", out.variance);
  scratch.require(op, whiten_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto mean = out.mean.given() ? out.mean : scratch.template take<real>(1);
  const auto variance = out.variance.given() ? out.variance : scratch.template take<real>(1);
  moments(b, scratch, ranks, in, options.moments(), {.mean = mean, .variance = variance});
  if (!out.whitened.given()) return;
  const_real_view<B> mask;
  if (options.unscored == unscored_values::transformed) {
    mask = detail::constant(b, scratch, real(1), tokens);
  } else {
    const auto scored = scratch.template take<real>(tokens);
    detail::scored_mask(b, scratch, in.sequences, scored);
    mask = scored;
  }
  b.transform(math::whitened<real>{static_cast<real>(options.epsilon), options.guard == variance_guard::floor, options.shift_mean}, out.whitened,
              in.values, detail::repeated(as_const(mean), tokens), detail::repeated(as_const(variance), tokens), mask);
}

/// One rank.
template <class B>
  requires has_backend_types<B>
void whiten(B& b, arena_of<B>& scratch, const whiten_inputs<real_of<B>, space_of<B>>& in, const whiten_options& options,
            const whiten_outputs<real_of<B>, space_of<B>>& out) {
  const distributed::local one;
  whiten(b, scratch, one, in, options, out);
}

/// What the host overload returns.
template <class T>
struct whiten_result {
  std::vector<T> whitened;
  T mean = 0, variance = 0;
};

/// A vector and a layout in, on the serial backend.
template <detail::host_range R>
whiten_result<detail::value_of<R>> whiten(const R& values, const sequence_layout<>& sequences, const whiten_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(values);
  require_layout("whiten", sequences, x.extent(0));
  require_layout_data("whiten", sequences, x.extent(0));
  whiten_result<T> r{.whitened = detail::zeros<T>(x.extent(0))};
  detail::host_call<T> call(whiten_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  whiten(call.compute, call.scratch, {.values = x, .sequences = sequences}, options,
         {.whitened = r.whitened, .mean = r.mean, .variance = r.variance});
  return r;
}

PLUMB_NAMESPACE_END

#pragma once
// Count, mean and variance of the scored tokens of all ranks.

#include <plumb/distributed/communicator.hpp>
#include <plumb/math/moments.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/scored_scan.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `moments`.
struct moments_options {
  variance_estimator variance = variance_estimator::biased;
  double count_epsilon = 0;  ///< added to the count that both means divide by (verl: 1e-8)

  void require(const char* op) const {
    require_mode(op, "variance", variance, variance_estimator::unbiased);
    require_option(op, "count_epsilon", count_epsilon, count_epsilon >= 0, "0 or positive");
  }
};

/// One number per token, flat.
template <class Real, class Space = host_space>
struct moments_inputs {
  view<const Real, 1, Space> values{};  ///< `[N]`
  sequence_layout<Space> sequences{};   ///< unscored tokens do not count, whatever they hold
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct moments_outputs {
  view<Real, 1, Space> count{};     ///< one number
  view<Real, 1, Space> mean{};      ///< one number; 0 of nothing
  view<Real, 1, Space> variance{};  ///< one number; 0 of nothing (`unbiased`: of fewer than two)
};

/// Bytes of arena that `moments` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t moments_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int n : {2, 1, 1, 1}) w.template add<real>(n);
  return w.template add<real>(sequences.sequences()).template add<real>(tokens).bytes();
}

/// Two passes over the numbers, each with one sum over ranks: sum and count first, then squared deviations from the mean of all ranks, so that
/// nothing cancels and the ranks agree with one rank that holds everything. In float, counts are exact to 2^24. Enqueues and returns; nothing is
/// allocated. Every rank calls, those without tokens too.
template <class B, communicator_for<B> C>
  requires has_backend_types<B>
void moments(B& b, arena_of<B>& scratch, C& ranks, const moments_inputs<real_of<B>, space_of<B>>& in, const moments_options& options,
             const moments_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "moments";
  const index_t tokens = in.values.extent(0);
  require_arguments(op, {{"count", out.count}, {"mean", out.mean}, {"variance", out.variance}},
                    {{"values", in.values}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  options.require(op);
  require_given(op, "values", in.values, in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  detail::require_scalar(op, "count", out.count);
  detail::require_scalar(op, "mean", out.mean);
  detail::require_scalar(op, "variance", out.variance);
  scratch.require(op, moments_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto sums = scratch.template take<real>(2), squares = scratch.template take<real>(1);
  const auto mean = out.mean.given() ? out.mean : scratch.template take<real>(1);
  const auto per_sequence = scratch.template take<real>(in.sequences.sequences());
  const auto sum = sums.slice(0, 1), count = sums.slice(1, 1);
  const real epsilon = static_cast<real>(options.count_epsilon);
  const auto total = [&](const_real_view<B> x, real_view<B> y) {
    b.segment_reduce(reduction::sum, x, in.sequences, per_sequence);
    b.reduce(reduction::sum, as_const(per_sequence), y, write_mode::overwrite);
  };
  total(in.values, sum);
  total(detail::constant(b, scratch, real(1), tokens), count);
  ranks.all_reduce_sum(sums);
  b.transform(math::mean_of<real>{epsilon}, mean, as_const(sum), as_const(count));
  if (out.count.given()) b.copy(as_const(count), out.count);
  if (!out.variance.given()) return;
  const auto deviations = scratch.template take<real>(tokens);
  b.transform(math::squared_deviation{}, deviations, in.values, detail::repeated(as_const(mean), tokens));
  total(as_const(deviations), squares);
  ranks.all_reduce_sum(squares);
  b.transform(math::variance_of<real>{epsilon, options.variance == variance_estimator::unbiased}, out.variance, as_const(squares), as_const(count));
}

/// One rank.
template <class B>
  requires has_backend_types<B>
void moments(B& b, arena_of<B>& scratch, const moments_inputs<real_of<B>, space_of<B>>& in, const moments_options& options,
             const moments_outputs<real_of<B>, space_of<B>>& out) {
  const distributed::local one;
  moments(b, scratch, one, in, options, out);
}

/// What the host overload returns.
template <class T>
struct moments_result {
  T count = 0, mean = 0, variance = 0;
};

/// A vector and a layout in, on the serial backend.
template <detail::host_range R>
moments_result<detail::value_of<R>> moments(const R& values, const sequence_layout<>& sequences, const moments_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(values);
  detail::require_host_layout("moments", sequences, x.extent(0));
  moments_result<T> r;
  detail::host_call<T> call(moments_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  moments(call.compute, call.scratch, {.values = x, .sequences = sequences}, options, {.count = r.count, .mean = r.mean, .variance = r.variance});
  return r;
}

PLUMB_NAMESPACE_END

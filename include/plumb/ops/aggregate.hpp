#pragma once
// From numbers per token to one number: every token-level objective ends here.

#include <plumb/compute/backend.hpp>
#include <plumb/math/aggregate.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/metrics.hpp>

PLUMB_NAMESPACE_BEGIN

/// How token terms become one number. The denominator counts what is named last.
enum class aggregation {
  token_mean,     ///< sum over all scored tokens / number of scored tokens of the global batch
  sequence_mean,  ///< sum over sequences of the mean over their scored tokens / number of sequences of the global batch
  sequence_sum,   ///< sum over sequences of the sum over their scored tokens / number of sequences of the global batch (Dr. GRPO: times a fixed length)
};

namespace detail {
// What options with an aggregation check of it; the denominator, which belongs to a batch, apart.
inline void require_aggregation(const char* op, aggregation mode, double length_epsilon, double weight) {
  require_option(op, "length_epsilon", length_epsilon, length_epsilon >= 0, "0 or positive");
  require_option(op, "length_epsilon", length_epsilon, length_epsilon == 0 || mode == aggregation::sequence_mean,
                 "0 with token_mean and sequence_sum: only sequence_mean divides by lengths");
  require_weight(op, weight);
}
}  // namespace detail

/// Options of `aggregate`.
struct aggregate_options {
  aggregation mode = aggregation::token_mean;
  double denominator = 0;     ///< see `aggregation`; host overload: 0 means what is given
  double length_epsilon = 0;  ///< added to each length in `sequence_mean` (verl: 1e-8); 0 in the other modes
  double weight = 1;          ///< what the number counts for beside others

  void require(const char* op) const {
    require_mode(op, "mode", mode, aggregation::sequence_sum);
    detail::require_aggregation(op, mode, length_epsilon, weight);
  }
};

/// One number per token, flat.
template <class Real, class Space = host_space>
struct aggregate_inputs {
  view<const Real, 1, Space> values{};  ///< `[N]`
  sequence_layout<Space> sequences{};   ///< unscored tokens contribute nothing, whatever they hold
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct aggregate_outputs {
  view<Real, 1, Space> loss{};      ///< one number
  view<Real, 1, Space> d_values{};  ///< `[N]`, dL/dvalue: each token's weight; 0 where it does not count
  write_mode mode = write_mode::overwrite;
};

namespace detail {

// Scored tokens of each sequence, as numbers: the segment sum of ones, read through a view of stride zero.
template <class B>
void scored_lengths(B& b, arena_of<B>& scratch, const sequence_layout<space_of<B>>& layout, index_t tokens, real_view<B> lengths) {
  b.segment_reduce(reduction::sum, constant(b, scratch, real_of<B>(1), tokens), layout, lengths);
}

// The weight of a token of each sequence: `weight / denominator`, or that over the sequence's length; 0 for a sequence without scored tokens.
template <class B>
void sequence_weights(B& b, arena_of<B>& scratch, const sequence_layout<space_of<B>>& layout, index_t tokens, const aggregate_options& o,
                      real_view<B> weights) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  scored_lengths(b, scratch, layout, tokens, weights);
  b.transform(math::token_weight<real>{static_cast<real>(o.weight / o.denominator), static_cast<real>(o.length_epsilon), o.mode == aggregation::sequence_mean},
              weights, as_const(weights));
}

// `loss = sum_s weights[s] sum_{t in s} values[t]`, or added to it. Takes two numbers per sequence and one more of scratch.
template <class B>
void aggregate_values(B& b, arena_of<B>& scratch, const_real_view<B> values, const sequence_layout<space_of<B>>& layout,
                      const_real_view<B> weights, real_view<B> loss, write_mode mode) {
  using real = real_of<B>;
  if (!loss.given()) return;
  typename arena_of<B>::frame frame(scratch);
  const auto sums = scratch.template take<real>(layout.sequences());
  b.segment_reduce(reduction::sum, values, layout, sums);
  b.transform(math::weighted{}, sums, weights, as_const(sums));
  b.reduce(reduction::sum, as_const(sums), loss, mode);
}

// Bytes that `sequence_weights` and `aggregate_values` take, the weights themselves included.
template <class B>
std::size_t aggregate_bytes(index_t sequences) {
  return workspace_size().template add<real_of<B>>(sequences).template add<real_of<B>>(sequences).template add<real_of<B>>(1).bytes();
}

}  // namespace detail

/// Bytes of arena that `aggregate` takes.
template <class B>
std::size_t aggregate_workspace(const B&, const sequence_layout<space_of<B>>& sequences) {
  return detail::aggregate_bytes<B>(sequences.sequences());
}

/// `L = weight sum_s w_s sum_{t in s} values[t]` with `w_s = 1/denominator`, or `1/(denominator (length_s + length_epsilon))` for
/// `sequence_mean`. Enqueues and returns; nothing is allocated. Checked against verl `agg_loss` and OpenRLHF `aggregate_loss`.
template <class B>
  requires has_backend_types<B>
void aggregate(B& b, arena_of<B>& scratch, const aggregate_inputs<real_of<B>, space_of<B>>& in, const aggregate_options& options,
               const aggregate_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "aggregate";
  const index_t tokens = in.values.extent(0);
  require_arguments(op, {{"loss", out.loss}, {"d_values", out.d_values}},
                    {{"values", in.values}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  require_given(op, "values", in.values, in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  if (out.d_values.given()) require_same_shape(op, "d_values", out.d_values, "values", in.values);
  scratch.require(op, aggregate_workspace(b, in.sequences));
  typename arena_of<B>::frame frame(scratch);
  const auto weights = scratch.template take<real>(in.sequences.sequences());
  detail::sequence_weights(b, scratch, in.sequences, tokens, options, weights);
  detail::aggregate_values(b, scratch, in.values, in.sequences, as_const(weights), out.loss, out.mode);
  if (out.d_values.given()) b.segment_broadcast(as_const(weights), in.sequences, out.d_values, out.mode);
}

/// The denominator of a whole batch in host memory: its scored tokens, or its sequences.
inline double count_for(aggregation mode, const sequence_layout<>& sequences) {
  const index_t count = mode == aggregation::token_mean ? count_scored(sequences) : sequences.sequences();
  return static_cast<double>(count > 0 ? count : 1);
}

/// What the host overload returns.
template <class T>
struct aggregate_result {
  T loss = 0;
  std::vector<T> d_values;  ///< `[N]`
};

/// Numbers of the tokens of a host layout; what they come to and each one's weight out.
template <detail::host_range R>
aggregate_result<detail::value_of<R>> aggregate(const R& values, const sequence_layout<>& sequences, aggregate_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(values);
  require_layout("aggregate", sequences, x.extent(0));
  require_layout_data("aggregate", sequences, x.extent(0));
  if (options.denominator == 0) options.denominator = count_for(options.mode, sequences);
  aggregate_result<T> r{.d_values = detail::zeros<T>(x.extent(0))};
  detail::host_call<T> call(aggregate_workspace(serial::backend<T>{}, sequences));
  aggregate(call.compute, call.scratch, {.values = x, .sequences = sequences}, options, {.loss = r.loss, .d_values = r.d_values});
  return r;
}

PLUMB_NAMESPACE_END

#pragma once
// Supervised fine-tuning: negative log-likelihood of the scored tokens.

#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `supervised`.
struct supervised_options {
  aggregation aggregate = aggregation::token_mean;
  double denominator = 0;     ///< see `aggregation`; host overload: 0 means what is given
  double length_epsilon = 0;  ///< added to each length in `sequence_mean`; 0 in the other modes
  double weight = 1;          ///< what the loss counts for beside others

  void require(const char* op) const {
    require_mode(op, "aggregate", aggregate, aggregation::sequence_sum);
    detail::require_aggregation(op, aggregate, length_epsilon, weight);
  }
};

/// Rows of `metrics`: `nll` per scored token in nats (perplexity is its exponential), `length` in scored tokens per sequence that has any.
inline constexpr metric_info supervised_metrics[] = {{"nll"}, {"length"}};

/// Token log-probabilities of all sequences, flat.
template <class Real, class Space = host_space>
struct supervised_inputs {
  view<const Real, 1, Space> logp{};    ///< `[N]`, log-probability of token `t` given those before it
  sequence_layout<Space> sequences{};   ///< `scored` is the completion mask
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct supervised_outputs {
  view<Real, 1, Space> loss{};    ///< one number
  view<Real, 1, Space> d_logp{};  ///< `[N]`; 0 for tokens that do not count
  view<Real, 2, Space> metrics{};  ///< `[2, 2]`, rows as in `supervised_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

/// Bytes of arena that `supervised` takes.
template <class B>
std::size_t supervised_workspace(const B&, const sequence_layout<space_of<B>>& sequences) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(sequences.sequences());
  return w.template add<real>(1).bytes();
}

/// `L = -1/denominator sum_t logp[t]` over scored tokens, or the mean over sequences of token means. Unscored tokens contribute nothing,
/// whatever they hold. Enqueues and returns; nothing is allocated. Checked against OpenRLHF `SFTLoss` and `GPTLMLoss`.
template <class B>
  requires has_backend_types<B>
void supervised(B& b, arena_of<B>& scratch, const supervised_inputs<real_of<B>, space_of<B>>& in,
                const supervised_options& options, const supervised_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "supervised";
  const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  require_given(op, "logp", in.logp, in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(supervised_metrics));
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
  scratch.require(op, supervised_workspace(b, in.sequences));
  typename arena_of<B>::frame frame(scratch);
  const auto weights = scratch.template take<real>(sequences);
  const auto sums = scratch.template take<real>(sequences);
  // The loss is of -log p: the weights carry the sign.
  detail::sequence_weights(b, scratch, in.sequences, tokens, {options.aggregate, options.denominator, options.length_epsilon, -options.weight}, weights);
  b.segment_reduce(reduction::sum, in.logp, in.sequences, sums);
  if (out.loss.given()) {
    const auto loss = scratch.template take<real>(sequences);
    b.transform(math::weighted{}, loss, as_const(weights), as_const(sums));
    b.reduce(reduction::sum, as_const(loss), out.loss, out.mode);
  }
  if (out.d_logp.given()) b.segment_broadcast(as_const(weights), in.sequences, out.d_logp, out.mode);
  if (out.metrics.given()) {
    const auto cell = [&](index_t row, index_t column) { return out.metrics.row(row).slice(column, 1); };
    b.reduce(reduction::sum, as_const(sums), cell(0, 0), write_mode::overwrite);
    b.transform(math::negate{}, cell(0, 0), as_const(cell(0, 0)));
    detail::scored_lengths(b, scratch, in.sequences, tokens, weights);
    b.reduce(reduction::sum, as_const(weights), cell(0, 1), write_mode::overwrite);
    b.copy(as_const(cell(0, 1)), cell(1, 0));
    b.transform(math::is_nonzero{}, weights, as_const(weights));  // a sequence without scored tokens is none
    b.reduce(reduction::sum, as_const(weights), cell(1, 1), write_mode::overwrite);
  }
}

/// What the host overload returns.
template <class T>
struct supervised_result {
  T loss = 0, nll = 0, length = 0;
  std::vector<T> d_logp;  ///< `[N]`
};

/// Token log-probabilities of the sequences of a host layout; loss and gradient out.
template <detail::host_range R>
supervised_result<detail::value_of<R>> supervised(const R& logp, const sequence_layout<>& sequences,
                                                  supervised_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  require_layout("supervised", sequences, x.extent(0));
  require_layout_data("supervised", sequences, x.extent(0));
  if (options.denominator == 0) {
    options.denominator = count_for(options.aggregate, sequences);
  }
  supervised_result<T> r{.d_logp = detail::zeros<T>(x.extent(0))};
  T m[2][2] = {};
  detail::host_call<T> call(supervised_workspace(serial::backend<T>{}, sequences));
  supervised(call.compute, call.scratch, {.logp = x, .sequences = sequences}, options,
             {.loss = r.loss, .d_logp = r.d_logp, .metrics = view<T, 2>(&m[0][0], 2, 2)});
  r.nll = metric_value(metric_kind::mean, m[0][0], m[0][1]);
  r.length = metric_value(metric_kind::mean, m[1][0], m[1][1]);
  return r;
}

PLUMB_NAMESPACE_END

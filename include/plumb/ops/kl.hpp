#pragma once
// KL to a reference: estimates per token, a loss of them, and the exact divergence of two rows of logits.

#include <plumb/math/kl.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/scored_scan.hpp>

PLUMB_NAMESPACE_BEGIN

/// Token log-probabilities, flat.
template <class Real, class Space = host_space>
struct token_kl_inputs {
  view<const Real, 1, Space> logp{};      ///< `[N]`, of the policy that the tokens were sampled from
  view<const Real, 1, Space> ref_logp{};  ///< `[N]`
  sequence_layout<Space> sequences{};     ///< not given: every entry counts
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct token_kl_outputs {
  view<Real, 1, Space> kl{};      ///< `[N]`; 0 where a token does not count, whatever it holds
  view<Real, 1, Space> d_logp{};  ///< `[N]`, its derivative by `logp` (by `ref_logp`: the negative); likewise
};

/// Bytes of arena that `token_kl` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t token_kl_workspace(const B&, index_t tokens) {
  return workspace_size().template add<real_of<B>>(tokens).template add<real_of<B>>(1).bytes();
}

/// An estimate of `KL(policy || reference)` per token. Checked against verl `kl_penalty`, OpenRLHF `compute_approx_kl`, NeMo-Aligner
/// `calculate_kl_penalty`. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void token_kl(B& b, arena_of<B>& scratch, const token_kl_inputs<real_of<B>, space_of<B>>& in, const kl_estimate& estimate,
              const token_kl_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "token_kl";
  const index_t tokens = in.logp.extent(0);
  require_arguments(op, {{"kl", out.kl}, {"d_logp", out.d_logp}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  estimate.require(op);
  require_given(op, "logp", in.logp, in.ref_logp.given());
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_layout(op, in.sequences, tokens);
  if (out.kl.given()) require_same_shape(op, "kl", out.kl, "logp", in.logp);
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
  scratch.require(op, token_kl_workspace(b, tokens));
  if (out.kl.given() && out.d_logp.given()) {
    b.transform2(estimate, out.kl, out.d_logp, in.logp, in.ref_logp);
  } else if (out.kl.given()) {
    b.transform(math::kl_value{estimate}, out.kl, in.logp, in.ref_logp);
  } else if (out.d_logp.given()) {
    b.transform(math::kl_slope{estimate}, out.d_logp, in.logp, in.ref_logp);
  }
  if (!in.sequences.begin.given() && !in.sequences.scored.given()) return;
  typename arena_of<B>::frame frame(scratch);
  const auto mask = scratch.template take<real>(tokens);
  detail::scored_mask(b, scratch, in.sequences, mask);
  for (const auto& v : {out.kl, out.d_logp})
    if (v.given()) b.transform(math::keep_where{}, v, as_const(v), as_const(mask));
}

/// Options of `kl_penalty`.
struct kl_penalty_options {
  kl_estimate estimate{};
  aggregation aggregate = aggregation::token_mean;
  double denominator = 0;     ///< see `aggregation`; host overload: 0 means what is given
  double length_epsilon = 0;  ///< added to each length in `sequence_mean`; 0 in the other modes
  double weight = 1;          ///< what the loss counts for beside others: the KL coefficient

  void require(const char* op) const {
    require_mode(op, "aggregate", aggregate, aggregation::sequence_sum);
    estimate.require(op);
    detail::require_aggregation(op, aggregate, length_epsilon, weight);
  }
};

/// Rows of `metrics`: `kl` per scored token; `sequence_kl`, its sum per sequence that has any (what an adaptive controller with a target
/// of some nats is fed).
inline constexpr metric_info kl_penalty_metrics[] = {{"kl"}, {"sequence_kl"}};

/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct kl_penalty_outputs {
  view<Real, 1, Space> loss{};     ///< one number
  view<Real, 1, Space> d_logp{};   ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> kl{};       ///< `[N]`, the estimates; 0 for tokens that do not count
  view<Real, 2, Space> metrics{};  ///< `[2, 2]`, rows as in `kl_penalty_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

/// Bytes of arena that `kl_penalty` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t kl_penalty_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(tokens);
  return w.template add<real>(sequences.sequences()).template add<real>(1).add_bytes(detail::aggregate_bytes<B>(sequences.sequences())).bytes();
}

/// The KL as a loss: `L = weight` times the mean of the estimates, as `aggregate` has it. Mind which estimator: on tokens sampled from the
/// policy the gradient of k1 is 0 on average, that of k2 is right, that of k3 belongs to `KL(reference || policy)`; `straight_through` gives
/// any of them k2's. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void kl_penalty(B& b, arena_of<B>& scratch, const token_kl_inputs<real_of<B>, space_of<B>>& in, const kl_penalty_options& options,
                const kl_penalty_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "kl_penalty";
  const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"kl", out.kl}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  options.require(op);
  detail::require_denominator(op, options.denominator);
  require_given(op, "logp", in.logp, in.ref_logp.given() || in.sequences.scored.extent(0) > 0);
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_sequences(op, in.sequences, tokens);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(kl_penalty_metrics));
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
  if (out.kl.given()) require_same_shape(op, "kl", out.kl, "logp", in.logp);
  scratch.require(op, kl_penalty_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto spread = scratch.template take<real>(tokens);
  const auto weights = scratch.template take<real>(sequences);
  const auto kl = out.kl.given() ? out.kl : scratch.template take<real>(tokens);
  const bool adds = out.mode == write_mode::add;
  const auto slope = out.d_logp.given() && adds ? scratch.template take<real>(tokens) : out.d_logp;
  if (slope.given()) {
    b.transform2(options.estimate, kl, slope, in.logp, in.ref_logp);
  } else {
    b.transform(math::kl_value{options.estimate}, kl, in.logp, in.ref_logp);
  }
  detail::sequence_weights(b, scratch, in.sequences, tokens, {options.aggregate, options.denominator, options.length_epsilon, options.weight}, weights);
  detail::aggregate_values(b, scratch, as_const(kl), in.sequences, as_const(weights), out.loss, out.mode);
  if (out.d_logp.given()) {
    b.segment_broadcast(as_const(weights), in.sequences, spread, write_mode::overwrite);
    if (adds) {
      b.transform(math::add_weighted_slope{}, out.d_logp, as_const(out.d_logp), as_const(spread), as_const(slope));
    } else {
      b.transform(math::weighted{}, out.d_logp, as_const(spread), as_const(slope));
    }
  }
  if (out.metrics.given()) {
    const auto cell = [&](index_t row, index_t column) { return out.metrics.row(row).slice(column, 1); };
    b.segment_reduce(reduction::sum, as_const(kl), in.sequences, weights);
    b.reduce(reduction::sum, as_const(weights), cell(0, 0), write_mode::overwrite);
    b.copy(as_const(cell(0, 0)), cell(1, 0));
    detail::scored_lengths(b, scratch, in.sequences, tokens, weights);
    b.reduce(reduction::sum, as_const(weights), cell(0, 1), write_mode::overwrite);
    b.transform(math::is_nonzero{}, weights, as_const(weights));  // a sequence without scored tokens is none
    b.reduce(reduction::sum, as_const(weights), cell(1, 1), write_mode::overwrite);
  }
  if (out.kl.given()) {
    detail::scored_mask(b, scratch, in.sequences, spread);
    b.transform(math::keep_where{}, out.kl, as_const(out.kl), as_const(spread));
  }
}

/// What the host overload returns.
template <class T>
struct kl_penalty_result {
  T loss = 0, kl = 0, sequence_kl = 0;  ///< per scored token; summed, per sequence
  std::vector<T> token_kl, d_logp;      ///< `[N]`
};

/// Vectors in, loss and gradient out, on the serial backend.
template <detail::host_range R>
kl_penalty_result<detail::value_of<R>> kl_penalty(const R& logp, view<const detail::value_of<R>, 1> ref_logp, const sequence_layout<>& sequences,
                                                  kl_penalty_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  require_layout("kl_penalty", sequences, x.extent(0));
  require_layout_data("kl_penalty", sequences, x.extent(0));
  if (options.denominator == 0) options.denominator = count_for(options.aggregate, sequences);
  kl_penalty_result<T> r{.token_kl = detail::zeros<T>(x.extent(0)), .d_logp = detail::zeros<T>(x.extent(0))};
  T m[2][2] = {};
  detail::host_call<T> call(kl_penalty_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  kl_penalty(call.compute, call.scratch, {.logp = x, .ref_logp = ref_logp, .sequences = sequences}, options,
             {.loss = r.loss, .d_logp = r.d_logp, .kl = r.token_kl, .metrics = view<T, 2>(&m[0][0], 2, 2)});
  r.kl = metric_value(metric_kind::mean, m[0][0], m[0][1]);
  r.sequence_kl = metric_value(metric_kind::mean, m[1][0], m[1][1]);
  return r;
}

/// Two rows of logits for each token.
template <class Real, class Space = host_space>
struct exact_kl_inputs {
  view<const Real, 2, Space> logits{};      ///< `[N, V]`
  view<const Real, 2, Space> ref_logits{};  ///< `[N, V]`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct exact_kl_outputs {
  view<Real, 1, Space> kl{};        ///< `[N]`
  view<Real, 2, Space> d_logits{};  ///< `[N, V]`, derivative of each row's KL by its logits: multiply by what the row counts for
};

/// Bytes of arena that `exact_kl` takes: one array of the logits' shape, so cut long batches into rows.
template <class B>
std::size_t exact_kl_workspace(const B&, index_t rows, index_t vocabulary) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(rows);
  return w.template add<real>(rows * vocabulary).bytes();
}

/// `KL(softmax(logits) || softmax(ref_logits))` of each row, summed over the whole vocabulary, no sample in between; the reference has no
/// gradient. A token to which the policy gives no probability adds 0. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void exact_kl(B& b, arena_of<B>& scratch, const exact_kl_inputs<real_of<B>, space_of<B>>& in, const exact_kl_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "exact_kl";
  const index_t rows = in.logits.extent(0), vocabulary = in.logits.extent(1);
  require_arguments(op, {{"kl", out.kl}, {"d_logits", out.d_logits}}, {{"logits", in.logits}, {"ref_logits", in.ref_logits}});
  require_given(op, "logits", in.logits, in.ref_logits.given());
  require_same_shape(op, "ref_logits", in.ref_logits, "logits", in.logits);
  if (out.kl.given()) require_extent(op, "kl", out.kl, 0, rows, "the number of rows");
  if (out.d_logits.given()) require_same_shape(op, "d_logits", out.d_logits, "logits", in.logits);
  scratch.require(op, exact_kl_workspace(b, rows, vocabulary));
  typename arena_of<B>::frame frame(scratch);
  const auto lse = scratch.template take<real>(rows), ref_lse = scratch.template take<real>(rows);
  const auto kl = out.kl.given() ? out.kl : scratch.template take<real>(rows);
  const auto terms = scratch.template take<real>(rows, vocabulary);
  b.row_log_sum_exp(in.logits, lse);
  b.row_log_sum_exp(in.ref_logits, ref_lse);
  b.transform(math::exact_kl_term{}, terms, in.logits, in.ref_logits, broadcast_columns(as_const(lse), vocabulary),
              broadcast_columns(as_const(ref_lse), vocabulary));
  b.reduce(reduction::sum, as_const(terms), as_column(kl), write_mode::overwrite);
  if (!out.d_logits.given()) return;
  b.transform(math::exact_kl_slope{}, out.d_logits, as_const(terms), broadcast_columns(as_const(kl), vocabulary), in.logits,
              broadcast_columns(as_const(lse), vocabulary));
}

/// What the host overload of `exact_kl` returns.
template <class T>
struct exact_kl_result {
  std::vector<T> kl;        ///< `[N]`
  std::vector<T> d_logits;  ///< `[N, V]`, row-major
};

/// Two times rows of logits of `vocabulary` columns in, on the serial backend.
template <detail::host_range R>
exact_kl_result<detail::value_of<R>> exact_kl(const R& logits, view<const detail::value_of<R>, 1> ref_logits, index_t vocabulary) {
  using T = detail::value_of<R>;
  constexpr const char* op = "exact_kl";
  const view<const T, 1> x(logits);
  require_same_shape(op, "ref_logits", ref_logits, "logits", x);
  const auto rows = [&](const char* name, view<const T, 1> of) { return detail::host_rows(op, name, of, vocabulary, "tokens of the vocabulary"); };
  const auto p = rows("logits", x), q = rows("ref_logits", ref_logits);
  const index_t n = p.extent(0);
  exact_kl_result<T> r{detail::zeros<T>(n), detail::zeros<T>(x.extent(0))};
  detail::host_call<T> call(exact_kl_workspace(serial::backend<T>{}, n, vocabulary));
  exact_kl(call.compute, call.scratch, {.logits = p, .ref_logits = q}, {.kl = r.kl, .d_logits = view<T, 2>(r.d_logits.data(), n, vocabulary)});
  return r;
}

PLUMB_NAMESPACE_END

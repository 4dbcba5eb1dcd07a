#pragma once
// Direct preference optimisation: from token log-probabilities of pairs, or from their sums.

#include <plumb/math/dpo.hpp>
#include <plumb/objectives/host.hpp>
#include <plumb/objectives/metrics.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `dpo` and `dpo_pairs`.
struct dpo_options {
  double beta = 0.1;             ///< strength of the pull to the reference; positive
  double label_smoothing = 0;    ///< `e`, the share of labels thought wrong (conservative DPO); in [0, 0.5]
  bool reference_free = false;   ///< the reference counts as uniform: its log-probs are taken as 0
  double denominator = 0;        ///< number of pairs of the global batch; host overload: 0 means the pairs given
};

/// Rows of `metrics`. Rewards are `beta (logp - ref_logp)`; accuracy counts reward_chosen > reward_rejected, a tie as wrong.
inline constexpr metric_info dpo_metrics[] = {{"accuracy"},        {"margin"},      {"reward_chosen"},
                                              {"reward_rejected"}, {"logp_chosen"}, {"logp_rejected"}};

/// Summed log-probabilities of the two replies of `P` pairs; references may be left out with `reference_free`.
template <class Real, class Space = host_space>
struct dpo_pairs_inputs {
  view<const Real, 1, Space> chosen{};        ///< `[P]`
  view<const Real, 1, Space> rejected{};      ///< `[P]`
  view<const Real, 1, Space> ref_chosen{};    ///< `[P]`
  view<const Real, 1, Space> ref_rejected{};  ///< `[P]`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct dpo_pairs_outputs {
  view<Real, 1, Space> loss{};        ///< one number: sum over pairs / denominator
  view<Real, 1, Space> d_chosen{};    ///< `[P]`, dL/dchosen
  view<Real, 1, Space> d_rejected{};  ///< `[P]`
  view<Real, 1, Space> pair_loss{};   ///< `[P]`, not divided
  view<Real, 2, Space> metrics{};     ///< `[6, 2]`, rows as in `dpo_metrics`
  write_mode mode = write_mode::overwrite;      ///< of the gradients
};

/// Token log-probabilities of all sequences, flat, and which sequence is preferred to which.
template <class Real, class Space = host_space>
struct dpo_inputs {
  view<const Real, 1, Space> logp{};      ///< `[N]`
  view<const Real, 1, Space> ref_logp{};  ///< `[N]`
  preference_pairs<Space> pairs{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct dpo_outputs {
  view<Real, 1, Space> loss{};       ///< one number
  view<Real, 1, Space> d_logp{};     ///< `[N]`, dL/dlogp; 0 for tokens that do not count
  view<Real, 1, Space> pair_loss{};  ///< `[P]`
  view<Real, 2, Space> metrics{};    ///< `[6, 2]`, rows as in `dpo_metrics`
  write_mode mode = write_mode::overwrite;     ///< of `d_logp`
};

namespace detail {
inline void require_dpo_options(const char* op, const dpo_options& o) {
  require_option(op, "beta", o.beta, o.beta > 0, "positive");
  require_option(op, "label_smoothing", o.label_smoothing, o.label_smoothing >= 0 && o.label_smoothing <= 0.5, "in [0, 0.5]");
  require_denominator(op, o.denominator);
}
inline void require_reference(const char* op, const char* name, bool given, const dpo_options& o) {
  if (given || o.reference_free) return;
  fail(message(op) << "argument `" << name << "` is not given; give it, or set `reference_free`. Nothing was written.");
}
}  // namespace detail

/// Bytes of arena that `dpo_pairs` takes.
template <class B>
std::size_t dpo_pairs_workspace(const B&, index_t pairs) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(pairs);  // two log-ratios, losses, gradients
  return w.template add<real>(1).add_bytes(detail::metric_rows<B>::workspace(pairs)).bytes();
}

/// DPO from summed log-probabilities: `L = 1/denominator sum_p [-(1 - e) log sigmoid(z_p) - e log sigmoid(-z_p)]` with
/// `z = beta [(chosen - ref_chosen) - (rejected - ref_rejected)]`. arXiv:2305.18290, eq. 7; `e`: see math/dpo.hpp.
template <class B>
  requires has_backend_types<B>
void dpo_pairs(B& b, arena_of<B>& scratch, const dpo_pairs_inputs<real_of<B>, space_of<B>>& in,
               const dpo_options& options, const dpo_pairs_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "dpo";
  const index_t pairs = in.chosen.extent(0);
  detail::require_dpo_options(op, options);
  require_given(op, "chosen", in.chosen, in.rejected.given());
  require_given(op, "rejected", in.rejected, pairs > 0);
  require_same_shape(op, "rejected", in.rejected, "chosen", in.chosen);
  const bool referenced = !options.reference_free;
  if (referenced) {
    detail::require_reference(op, "ref_chosen", in.ref_chosen.given() || pairs == 0, options);
    detail::require_reference(op, "ref_rejected", in.ref_rejected.given() || pairs == 0, options);
    require_given(op, "ref_chosen", in.ref_chosen);
    require_given(op, "ref_rejected", in.ref_rejected);
    require_same_shape(op, "ref_chosen", in.ref_chosen, "chosen", in.chosen);
    require_same_shape(op, "ref_rejected", in.ref_rejected, "chosen", in.chosen);
  }
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(dpo_metrics));
  const auto require_pair_output = [&](const char* name, const real_view<B>& v) {
    require_given(op, name, v);
    if (!v.given()) return;
    require_same_shape(op, name, v, "chosen", in.chosen);
    require_disjoint(op, name, v, "chosen", in.chosen);
    require_disjoint(op, name, v, "rejected", in.rejected);
    require_disjoint(op, name, v, "ref_chosen", in.ref_chosen);
    require_disjoint(op, name, v, "ref_rejected", in.ref_rejected);
  };
  require_pair_output("d_chosen", out.d_chosen);
  require_pair_output("d_rejected", out.d_rejected);
  require_pair_output("pair_loss", out.pair_loss);
  require_disjoint(op, "d_chosen", out.d_chosen, "d_rejected", out.d_rejected);

  scratch.require("dpo_pairs", dpo_pairs_workspace(b, pairs));
  typename arena_of<B>::frame frame(scratch);
  const real inverse = static_cast<real>(1 / options.denominator);
  const real beta = static_cast<real>(options.beta);
  const auto zero = detail::constant(b, scratch, real(0), pairs);
  const auto ref_chosen = referenced ? in.ref_chosen : zero;
  const auto ref_rejected = referenced ? in.ref_rejected : zero;
  const auto ratio_chosen = scratch.template take<real>(pairs);
  const auto ratio_rejected = scratch.template take<real>(pairs);
  b.transform(math::minus{}, ratio_chosen, in.chosen, ref_chosen);
  b.transform(math::minus{}, ratio_rejected, in.rejected, ref_rejected);
  const auto loss = scratch.template take<real>(pairs);
  const auto d_chosen = scratch.template take<real>(pairs);
  b.transform2(math::dpo_term<real>{beta, static_cast<real>(options.label_smoothing), inverse}, loss, d_chosen,
               as_const(ratio_chosen), as_const(ratio_rejected));
  if (out.pair_loss.given()) b.copy(as_const(loss), out.pair_loss);
  if (out.loss.given()) {
    b.reduce(reduction::sum, as_const(loss), out.loss, write_mode::overwrite);
    b.transform(math::scale<real>{inverse}, out.loss, as_const(out.loss));
  }
  detail::write_gradient(b, out.d_chosen, as_const(d_chosen), real(1), out.mode);
  detail::write_gradient(b, out.d_rejected, as_const(d_chosen), real(-1), out.mode);
  if (out.metrics.given()) {
    detail::metric_rows<B> rows(b, scratch, out.metrics, pairs);
    const math::implicit_reward<real> reward{beta};
    rows.mean(0, math::is_greater{}, as_const(ratio_chosen), as_const(ratio_rejected));
    rows.mean(1, reward, as_const(ratio_chosen), as_const(ratio_rejected));
    rows.mean(2, reward, in.chosen, ref_chosen);
    rows.mean(3, reward, in.rejected, ref_rejected);
    rows.mean(4, math::identity{}, in.chosen);
    rows.mean(5, math::identity{}, in.rejected);
  }
}

/// Bytes of arena that `dpo` takes.
template <class B>
std::size_t dpo_workspace(const B& b, const preference_pairs<space_of<B>>& pairs) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(pairs.sequences.sequences());  // policy and reference sums, gradient
  for (int i = 0; i < 6; ++i) w.template add<real>(pairs.pairs());                // the four sums of each pair, two gradients
  return w.add_bytes(dpo_pairs_workspace(b, pairs.pairs())).bytes();
}

/// DPO from token log-probabilities: each reply's log-probability is the sum over its scored tokens, then as `dpo_pairs`; the
/// gradient goes back to every scored token. Sequences in no pair get 0.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL, OpenRLHF, NeMo-Aligner, Liger and DR-PO's `dpo.py`.
template <class B>
  requires has_backend_types<B>
void dpo(B& b, arena_of<B>& scratch, const dpo_inputs<real_of<B>, space_of<B>>& in, const dpo_options& options,
         const dpo_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "dpo";
  const auto& layout = in.pairs.sequences;
  const index_t sequences = layout.sequences(), pairs = in.pairs.pairs(), tokens = in.logp.extent(0);
  detail::require_dpo_options(op, options);
  require_given(op, "logp", in.logp, in.ref_logp.given() || layout.scored.extent(0) > 0);
  detail::require_reference(op, "ref_logp", in.ref_logp.given() || tokens == 0, options);
  if (!options.reference_free) {
    require_given(op, "ref_logp", in.ref_logp);
    require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  }
  require_layout(op, layout, tokens);
  require_given(op, "pairs.chosen", in.pairs.chosen, sequences > 0);
  require_given(op, "pairs.rejected", in.pairs.rejected, sequences > 0);
  require_same_shape(op, "pairs.rejected", in.pairs.rejected, "pairs.chosen", in.pairs.chosen);
  require_ids(op, "pairs.chosen", in.pairs.chosen, sequences, false);
  require_ids(op, "pairs.rejected", in.pairs.rejected, sequences, false);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(dpo_metrics));
  require_given(op, "pair_loss", out.pair_loss);
  require_given(op, "d_logp", out.d_logp);
  if (out.pair_loss.given()) require_extent(op, "pair_loss", out.pair_loss, 0, pairs, "the number of pairs");
  if (out.d_logp.given()) {
    require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
    require_disjoint(op, "d_logp", out.d_logp, "logp", in.logp);
    require_disjoint(op, "d_logp", out.d_logp, "ref_logp", in.ref_logp);
  }

  scratch.require(op, dpo_workspace(b, in.pairs));
  typename arena_of<B>::frame frame(scratch);
  const auto of_pairs = [&](const real_view<B>& sums, const id_view<B>& ids) {
    const auto x = scratch.template take<real>(pairs);
    b.row_gather(as_column(as_const(sums)), ids, as_column(x));
    return as_const(x);
  };
  const auto sums = scratch.template take<real>(sequences);
  b.segment_reduce(reduction::sum, in.logp, layout, sums);
  dpo_pairs_inputs<real, space_of<B>> summed{.chosen = of_pairs(sums, in.pairs.chosen),
                                             .rejected = of_pairs(sums, in.pairs.rejected)};
  if (!options.reference_free) {
    const auto ref_sums = scratch.template take<real>(sequences);
    b.segment_reduce(reduction::sum, in.ref_logp, layout, ref_sums);
    summed.ref_chosen = of_pairs(ref_sums, in.pairs.chosen);
    summed.ref_rejected = of_pairs(ref_sums, in.pairs.rejected);
  }
  const auto d_chosen = scratch.template take<real>(pairs);
  const auto d_rejected = scratch.template take<real>(pairs);
  dpo_pairs(b, scratch, summed, options,
            {.loss = out.loss, .d_chosen = d_chosen, .d_rejected = d_rejected, .pair_loss = out.pair_loss,
             .metrics = out.metrics});
  if (!out.d_logp.given()) return;
  const auto d_sums = scratch.template take<real>(sequences);
  b.fill(d_sums, real(0));
  b.row_scatter_add(as_column(as_const(d_chosen)), in.pairs.chosen, as_column(d_sums));
  b.row_scatter_add(as_column(as_const(d_rejected)), in.pairs.rejected, as_column(d_sums));
  b.segment_broadcast(as_const(d_sums), layout, out.d_logp, out.mode);
}

/// What the host overload returns.
template <class T>
struct dpo_result {
  T loss = 0, accuracy = 0, margin = 0, reward_chosen = 0, reward_rejected = 0, logp_chosen = 0, logp_rejected = 0;
  std::vector<T> d_chosen, d_rejected;  ///< `[P]`, dL/d(summed log-probability)
};

/// Vectors in, loss and gradient out: summed log-probabilities of `P` pairs, on the serial backend. With `reference_free`, pass `{}` for
/// the references.
template <detail::host_range R>
dpo_result<detail::value_of<R>> dpo(const R& chosen, view<const detail::value_of<R>, 1> rejected,
                                    view<const detail::value_of<R>, 1> ref_chosen,
                                    view<const detail::value_of<R>, 1> ref_rejected, dpo_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> c(chosen);
  const index_t pairs = c.extent(0);
  if (options.denominator == 0) options.denominator = static_cast<double>(pairs > 0 ? pairs : 1);
  dpo_result<T> r{.d_chosen = detail::zeros<T>(pairs), .d_rejected = detail::zeros<T>(pairs)};
  T m[std::size(dpo_metrics)][2] = {};
  detail::host_call<T> call(dpo_pairs_workspace(serial::backend<T>{}, pairs));
  dpo_pairs(call.compute, call.scratch,
            {.chosen = c, .rejected = rejected, .ref_chosen = ref_chosen, .ref_rejected = ref_rejected}, options,
            {.loss = r.loss, .d_chosen = r.d_chosen, .d_rejected = r.d_rejected,
             .metrics = view<T, 2>(&m[0][0], std::size(dpo_metrics), 2)});
  T* fields[] = {&r.accuracy, &r.margin, &r.reward_chosen, &r.reward_rejected, &r.logp_chosen, &r.logp_rejected};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(dpo_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

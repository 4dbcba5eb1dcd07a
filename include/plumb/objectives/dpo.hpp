#pragma once
// Direct preference optimisation: from token log-probabilities of pairs, or from their sums.

#include <plumb/math/dpo.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/metrics.hpp>

#include <utility>

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
// From the log-ratios of P pairs; the log-probabilities are for the metrics only. Everything is checked.
template <class B>
struct dpo_ratios_inputs {
  const_real_view<B> chosen{}, rejected{}, logp_chosen{}, logp_rejected{};
};
template <class B>
std::size_t dpo_ratios_workspace(index_t pairs) {
  return workspace_size().template add<real_of<B>>(pairs).template add<real_of<B>>(pairs).add_bytes(metric_rows<B>::workspace(pairs)).bytes();
}
template <class B>
void dpo_ratios(B& b, arena_of<B>& scratch, const dpo_ratios_inputs<B>& in, const dpo_options& options,
                const dpo_pairs_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t pairs = in.chosen.extent(0);
  const real inverse = static_cast<real>(1 / options.denominator);
  const real beta = static_cast<real>(options.beta);
  const auto loss = scratch.template take<real>(pairs);
  const auto d_chosen = scratch.template take<real>(pairs);
  b.transform2(math::dpo_term<real>{beta, static_cast<real>(options.label_smoothing), inverse}, loss, d_chosen, in.chosen, in.rejected);
  if (out.pair_loss.given()) b.copy(as_const(loss), out.pair_loss);
  if (out.loss.given()) {
    b.reduce(reduction::sum, as_const(loss), out.loss, write_mode::overwrite);
    b.transform(math::scale<real>{inverse}, out.loss, as_const(out.loss));
  }
  write_gradient(b, out.d_chosen, as_const(d_chosen), real(1), out.mode);
  write_gradient(b, out.d_rejected, as_const(d_chosen), real(-1), out.mode);
  if (out.metrics.given()) {
    metric_rows<B> rows(b, scratch, out.metrics, pairs);
    rows.mean(0, math::is_greater{}, in.chosen, in.rejected);
    rows.mean(1, math::implicit_reward<real>{beta}, in.chosen, in.rejected);
    rows.mean(2, math::scale<real>{beta}, in.chosen);
    rows.mean(3, math::scale<real>{beta}, in.rejected);
    rows.mean(4, math::identity{}, in.logp_chosen);
    rows.mean(5, math::identity{}, in.logp_rejected);
  }
}
}  // namespace detail

/// Bytes of arena that `dpo_pairs` takes.
template <class B>
std::size_t dpo_pairs_workspace(const B&, index_t pairs) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 2; ++i) w.template add<real>(pairs);  // log-ratios
  return w.add_bytes(detail::dpo_ratios_workspace<B>(pairs)).bytes();
}

namespace detail {
// `op` is what the user called.
template <class B>
  requires has_backend_types<B>
void dpo_pairs_as(const char* op, B& b, arena_of<B>& scratch, const dpo_pairs_inputs<real_of<B>, space_of<B>>& in,
                  const dpo_options& options, const dpo_pairs_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  const index_t pairs = in.chosen.extent(0);
  require_arguments(op, {{"loss", out.loss}, {"d_chosen", out.d_chosen}, {"d_rejected", out.d_rejected}, {"pair_loss", out.pair_loss}, {"metrics", out.metrics}},
                    {{"chosen", in.chosen}, {"rejected", in.rejected}, {"ref_chosen", in.ref_chosen}, {"ref_rejected", in.ref_rejected}});
  require_dpo_options(op, options);
  require_given(op, "chosen", in.chosen, in.rejected.given());
  require_given(op, "rejected", in.rejected, pairs > 0);
  require_same_shape(op, "rejected", in.rejected, "chosen", in.chosen);
  const bool referenced = !options.reference_free;
  if (referenced) {
    require_reference(op, "ref_chosen", in.ref_chosen.given() || pairs == 0, options);
    require_reference(op, "ref_rejected", in.ref_rejected.given() || pairs == 0, options);
    require_same_shape(op, "ref_chosen", in.ref_chosen, "chosen", in.chosen);
    require_same_shape(op, "ref_rejected", in.ref_rejected, "chosen", in.chosen);
  }
  require_scalar(op, "loss", out.loss);
  require_metrics(op, out.metrics, std::size(dpo_metrics));
  for (const auto& [name, v] : {std::pair{"d_chosen", out.d_chosen}, {"d_rejected", out.d_rejected}, {"pair_loss", out.pair_loss}})
    if (v.given()) require_same_shape(op, name, v, "chosen", in.chosen);

  scratch.require("dpo_pairs", dpo_pairs_workspace(b, pairs));
  typename arena_of<B>::frame frame(scratch);
  const auto ratio = [&](const_real_view<B> logp, const_real_view<B> ref_logp) {
    if (!referenced) return logp;
    const auto difference = scratch.template take<real>(pairs);
    b.transform(math::minus{}, difference, logp, ref_logp);
    return as_const(difference);
  };
  const auto chosen = ratio(in.chosen, in.ref_chosen), rejected = ratio(in.rejected, in.ref_rejected);
  dpo_ratios(b, scratch, {chosen, rejected, in.chosen, in.rejected}, options, out);
}
}  // namespace detail

/// DPO from summed log-probabilities: `L = 1/denominator sum_p [-(1 - e) log sigmoid(z_p) - e log sigmoid(-z_p)]` with
/// `z = beta [(chosen - ref_chosen) - (rejected - ref_rejected)]`. arXiv:2305.18290, eq. 7; `e`: see math/dpo.hpp. In float, sums of
/// thousands of tokens leave few digits for their difference: `dpo` subtracts token by token.
template <class B>
  requires has_backend_types<B>
void dpo_pairs(B& b, arena_of<B>& scratch, const dpo_pairs_inputs<real_of<B>, space_of<B>>& in,
               const dpo_options& options, const dpo_pairs_outputs<real_of<B>, space_of<B>>& out) {
  detail::dpo_pairs_as("dpo_pairs", b, scratch, in, options, out);
}

/// Bytes of arena that `dpo` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t dpo_workspace(const B&, const preference_pairs<space_of<B>>& pairs, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  w.template add<real>(tokens);                                                   // log-ratios of tokens
  for (int i = 0; i < 2; ++i) w.template add<real>(pairs.sequences.sequences());  // sums, and their gradient
  for (int i = 0; i < 6; ++i) w.template add<real>(pairs.pairs());                // of each pair: two log-ratios, two log-probs, two gradients
  return w.add_bytes(detail::dpo_ratios_workspace<B>(pairs.pairs())).bytes();
}

/// DPO from token log-probabilities: the log-ratio of each token, summed over the scored tokens of each reply, then as `dpo_pairs`; the
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
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"pair_loss", out.pair_loss}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"begin", layout.begin}, {"end", layout.end}, {"scored", layout.scored},
                     {"pairs.chosen", in.pairs.chosen}, {"pairs.rejected", in.pairs.rejected}});
  detail::require_dpo_options(op, options);
  require_given(op, "logp", in.logp, in.ref_logp.given() || layout.scored.extent(0) > 0);
  const bool referenced = !options.reference_free;
  if (referenced) {
    detail::require_reference(op, "ref_logp", in.ref_logp.given() || tokens == 0, options);
    require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  }
  require_sequences(op, layout, tokens);
  require_given(op, "pairs.chosen", in.pairs.chosen, sequences > 0);
  require_given(op, "pairs.rejected", in.pairs.rejected, sequences > 0);
  require_same_shape(op, "pairs.rejected", in.pairs.rejected, "pairs.chosen", in.pairs.chosen);
  require_ids(op, "pairs.chosen", in.pairs.chosen, sequences, false);
  require_ids(op, "pairs.rejected", in.pairs.rejected, sequences, false);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(dpo_metrics));
  if (out.pair_loss.given()) require_extent(op, "pair_loss", out.pair_loss, 0, pairs, "the number of pairs");
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);

  scratch.require(op, dpo_workspace(b, in.pairs, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto sums = scratch.template take<real>(sequences);
  const auto of_pairs = [&](const id_view<B>& ids) {
    const auto x = scratch.template take<real>(pairs);
    b.row_gather(as_column(as_const(sums)), ids, as_column(x));
    return as_const(x);
  };
  detail::dpo_ratios_inputs<B> x;
  auto ratio = in.logp;
  if (referenced) {
    const auto difference = scratch.template take<real>(tokens);
    b.transform(math::minus{}, difference, in.logp, in.ref_logp);
    ratio = difference;
  }
  b.segment_reduce(reduction::sum, ratio, layout, sums);
  x.chosen = of_pairs(in.pairs.chosen);
  x.rejected = of_pairs(in.pairs.rejected);
  if (out.metrics.given()) {
    if (referenced) b.segment_reduce(reduction::sum, in.logp, layout, sums);
    x.logp_chosen = of_pairs(in.pairs.chosen);
    x.logp_rejected = of_pairs(in.pairs.rejected);
  }
  const auto d_chosen = scratch.template take<real>(pairs);
  const auto d_rejected = scratch.template take<real>(pairs);
  detail::dpo_ratios(b, scratch, x, options,
                     {.loss = out.loss, .d_chosen = d_chosen, .d_rejected = d_rejected, .pair_loss = out.pair_loss, .metrics = out.metrics});
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
  detail::dpo_pairs_as("dpo", call.compute, call.scratch,
                       {.chosen = c, .rejected = rejected, .ref_chosen = ref_chosen, .ref_rejected = ref_rejected}, options,
                       {.loss = r.loss, .d_chosen = r.d_chosen, .d_rejected = r.d_rejected,
                        .metrics = view<T, 2>(&m[0][0], std::size(dpo_metrics), 2)});
  T* fields[] = {&r.accuracy, &r.margin, &r.reward_chosen, &r.reward_rejected, &r.logp_chosen, &r.logp_rejected};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(dpo_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

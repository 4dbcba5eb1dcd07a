#pragma once
// Direct preference optimisation: from token log-probabilities of pairs, or from their sums. `preference` with the link `sigmoid`.

#include <plumb/objectives/preference.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `dpo` and `dpo_pairs`.
struct dpo_options {
  double beta = 0.1;             ///< strength of the pull to the reference; positive
  double label_smoothing = 0;    ///< `e`, the share of labels thought wrong (conservative DPO); in [0, 0.5]
  bool reference_free = false;   ///< the reference counts as uniform: its log-probs are taken as 0
  double denominator = 0;        ///< number of pairs of the global batch; host overload: 0 means the pairs given
  double weight = 1;             ///< what the loss counts for beside others

  void require(const char* op) const {
    link::sigmoid{beta, label_smoothing}.require(op);
    preference_options{.weight = weight}.require(op);
  }
};

/// Rows of `metrics`. Rewards are `beta (logp - ref_logp)`; accuracy counts reward_chosen > reward_rejected, a tie as wrong.
inline constexpr auto& dpo_metrics = preference_metrics;

/// Inputs and outputs are those of `preference`: margins and weights may be given.
template <class Real, class Space = host_space>
using dpo_pairs_inputs = preference_sums_inputs<Real, Space>;
template <class Real, class Space = host_space>
using dpo_pairs_outputs = preference_sums_outputs<Real, Space>;
template <class Real, class Space = host_space>
using dpo_inputs = preference_inputs<Real, Space>;
template <class Real, class Space = host_space>
using dpo_outputs = preference_outputs<Real, Space>;

namespace detail {
inline link::sigmoid dpo_link(const dpo_options& o) { return {.beta = o.beta, .label_smoothing = o.label_smoothing}; }
inline preference_options dpo_preference(const dpo_options& o) {
  return {.reference_free = o.reference_free, .denominator = o.denominator, .weight = o.weight};
}
}  // namespace detail

/// Bytes of arena that `dpo_pairs` takes.
template <class B>
std::size_t dpo_pairs_workspace(const B& b, index_t pairs) {
  return preference_sums_workspace(b, pairs);
}

/// DPO from summed log-probabilities: `L = weight/denominator sum_p [-(1 - e) log sigmoid(z_p) - e log sigmoid(-z_p)]` with
/// `z = beta [(chosen - ref_chosen) - (rejected - ref_rejected)] - margin`. arXiv:2305.18290, eq. 7; `e`: see `link::sigmoid`. In float, sums of
/// thousands of tokens leave few digits for their difference: `dpo` subtracts token by token.
template <class B>
  requires has_backend_types<B>
void dpo_pairs(B& b, arena_of<B>& scratch, const dpo_pairs_inputs<real_of<B>, space_of<B>>& in, const dpo_options& options,
               const dpo_pairs_outputs<real_of<B>, space_of<B>>& out) {
  detail::preference_sums_as("dpo_pairs", b, scratch, in, detail::dpo_link(options), divergence::reverse_kl{}, detail::dpo_preference(options), out);
}

/// Bytes of arena that `dpo` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t dpo_workspace(const B& b, const preference_pairs<space_of<B>>& pairs, index_t tokens) {
  return preference_workspace(b, pairs, tokens);
}

/// DPO from token log-probabilities: the log-ratio of each token, summed over the scored tokens of each reply, then as `dpo_pairs`; the
/// gradient goes back to every scored token. Sequences in no pair get 0.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL, OpenRLHF, NeMo-Aligner, Liger and DR-PO's `dpo.py`.
template <class B>
  requires has_backend_types<B>
void dpo(B& b, arena_of<B>& scratch, const dpo_inputs<real_of<B>, space_of<B>>& in, const dpo_options& options,
         const dpo_outputs<real_of<B>, space_of<B>>& out) {
  detail::preference_as("dpo", b, scratch, in, detail::dpo_link(options), divergence::reverse_kl{}, detail::dpo_preference(options), out);
}

/// What the host overload returns.
template <class T>
using dpo_result = preference_result<T>;

/// Vectors in, loss and gradient out: summed log-probabilities of `P` pairs, on the serial backend. With `reference_free`, pass `{}` for
/// the references.
template <detail::host_range R>
dpo_result<detail::value_of<R>> dpo(const R& chosen, view<const detail::value_of<R>, 1> rejected, view<const detail::value_of<R>, 1> ref_chosen,
                                    view<const detail::value_of<R>, 1> ref_rejected, const dpo_options& options = {}) {
  using T = detail::value_of<R>;
  return detail::preference_of_vectors<T>("dpo", view<const T, 1>(chosen), rejected, ref_chosen, ref_rejected, detail::dpo_link(options),
                                          divergence::reverse_kl{}, detail::dpo_preference(options));
}

PLUMB_NAMESPACE_END

#pragma once
// Simple preference optimisation: length-normalised log-probabilities, a target margin, no reference. With its reshaped rewards: AlphaPO.

#include <plumb/objectives/reply_pairs.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `simpo`.
struct simpo_options {
  double beta = 2;             ///< scale of the rewards; positive
  double gamma = 1;            ///< target margin between them
  double label_smoothing = 0;  ///< in [0, 0.5]
  double alpha = 0;            ///< AlphaPO: the mean `x` becomes `(1 - e^(-alpha x)) / alpha`, 0: as it is; between -20 and 20; the exponent stops at
                               ///< `divergence::float_exponent`, without gradient beyond
  likelihood_term likelihood{.weight = 0};  ///< of the chosen replies (CPO-SimPO); not in the paper
  double denominator = 0;      ///< number of pairs of the global batch; host overload: 0 means the pairs given
  double weight = 1;           ///< what the loss counts for beside others

  void require(const char* op) const {
    link::sigmoid{beta, label_smoothing}.require(op);
    require_option(op, "gamma", gamma, true, "a number");
    require_option(op, "alpha", alpha, alpha >= -20 && alpha <= 20, "in [-20, 20]");
    likelihood.require(op, "likelihood.");
    detail::require_weight(op, weight);
  }
};

namespace detail {
template <class B>
reply_pairs_call<B, link::sigmoid> simpo_call(const reply_pairs_inputs<real_of<B>, space_of<B>>& in, const simpo_options& o) {
  return {.op = "simpo", .logp = in.logp, .pairs = in.pairs, .link = {o.beta, o.label_smoothing, o.gamma}, .score = reply_score::mean,
          .alpha = o.alpha, .likelihood = o.likelihood, .denominator = o.denominator, .weight = o.weight};
}
}  // namespace detail

/// Bytes of arena that `simpo` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t simpo_workspace(const B&, const preference_pairs<space_of<B>>& pairs, index_t tokens) {
  const index_t sequences = pairs.sequences.sequences();
  return detail::reply_pairs_bytes<B>(tokens, sequences, sequences, pairs.pairs(), reply_score::mean, false);
}

/// `L = weight/denominator sum_p -log sigmoid(beta (x_chosen - x_rejected) - gamma)` with `x` the mean log-probability of a reply's scored
/// tokens. SimPO, arXiv:2405.14734, eq. 6; AlphaPO, arXiv:2501.03884: `x` reshaped, in the rewards too.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL `CPOTrainer` (`simpo`, `alpha`) and Liger.
template <class B>
  requires has_backend_types<B>
void simpo(B& b, arena_of<B>& scratch, const reply_pairs_inputs<real_of<B>, space_of<B>>& in, const simpo_options& options,
           const reply_pairs_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  const auto c = detail::simpo_call<B>(in, options);
  options.require(c.op);
  detail::require_reply_pairs(c, out, std::size(reply_pairs_metrics));
  scratch.require(c.op, simpo_workspace(b, in.pairs, in.logp.extent(0)));
  if (options.alpha < 0 || 0 < options.alpha) {
    detail::reply_pairs<true>(b, scratch, c, out, detail::no_more{});
  } else {
    detail::reply_pairs(b, scratch, c, out, detail::no_more{});
  }
}

/// Token log-probabilities and pairs of a host layout; loss and gradient out.
template <detail::host_range R>
reply_pairs_result<detail::value_of<R>> simpo(const R& logp, const preference_pairs<>& pairs, simpo_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  detail::require_host_pairs("simpo", pairs, x.extent(0));
  detail::count_pairs(options.denominator, pairs);
  detail::count_likely(options.likelihood, pairs);
  T m[std::size(reply_pairs_metrics)][2] = {};
  return detail::host_reply_pairs(x.extent(0), simpo_workspace(serial::backend<T>{}, pairs, x.extent(0)), m,
                                  [&](auto& b, auto& scratch, const auto& out) { simpo(b, scratch, {x, pairs}, options, out); });
}

PLUMB_NAMESPACE_END

#pragma once
// Odds-ratio preference optimisation: supervised fine-tuning on the chosen replies and an odds-ratio penalty, no reference.

#include <plumb/math/orpo.hpp>
#include <plumb/objectives/reply_pairs.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `orpo`.
struct orpo_options {
  double beta = 0.1;             ///< lambda, what the odds-ratio term counts for; positive
  likelihood_term likelihood{};  ///< of the scored tokens of the chosen replies
  double denominator = 0;        ///< number of pairs of the global batch; host overload: 0 means the pairs given
  double weight = 1;             ///< what the loss counts for beside others

  void require(const char* op) const {
    link::odds_ratio{beta}.require(op);
    likelihood.require(op, "likelihood.");
    detail::require_weight(op, weight);
  }
};

/// Rows of `metrics`: those of `reply_pairs_metrics`, the log odds ratio of chosen to rejected, and its `log sigmoid`.
inline constexpr metric_info orpo_metrics[] = {{"accuracy"},      {"margin"}, {"reward_chosen"}, {"reward_rejected"}, {"logp_chosen"},
                                               {"logp_rejected"}, {"nll"},    {"log_odds"},      {"log_sigmoid_odds"}};

namespace detail {
struct odds_rows {
  template <class Rows, class X>
  void operator()(Rows& rows, const X& chosen, const X& rejected) const {
    rows.mean(7, math::log_odds_ratio{}, chosen, rejected);
    rows.mean(8, math::log_sigmoid_odds_ratio{}, chosen, rejected);
  }
};
template <class B>
reply_pairs_call<B, link::odds_ratio> orpo_call(const reply_pairs_inputs<real_of<B>, space_of<B>>& in, const orpo_options& o) {
  return {.op = "orpo", .logp = in.logp, .pairs = in.pairs, .link = {o.beta}, .score = reply_score::mean, .likelihood = o.likelihood,
          .denominator = o.denominator, .weight = o.weight};
}
}  // namespace detail

/// Bytes of arena that `orpo` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t orpo_workspace(const B&, const preference_pairs<space_of<B>>& pairs, index_t tokens) {
  const index_t sequences = pairs.sequences.sequences();
  return detail::reply_pairs_bytes<B>(tokens, sequences, sequences, pairs.pairs(), reply_score::mean, false);
}

/// `L = weight {likelihood.weight NLL(chosen) - beta/denominator sum_p log sigmoid(log odds(chosen) - log odds(rejected))}`, where a reply's
/// odds are `p / (1 - p)` of the geometric mean `p` of its token probabilities. ORPO, arXiv:2403.07691, eq. 6 and 7. TRL's likelihood term
/// covers the prompt too: leave it out here (weight 0) and add `supervised` on a layout that scores both.
///
/// Enqueues on `b` and returns; nothing is allocated. `metrics` is `[9, 2]`, rows as in `orpo_metrics`. Checked against TRL `ORPOTrainer`
/// and Liger.
template <class B>
  requires has_backend_types<B>
void orpo(B& b, arena_of<B>& scratch, const reply_pairs_inputs<real_of<B>, space_of<B>>& in, const orpo_options& options,
          const reply_pairs_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  const auto c = detail::orpo_call<B>(in, options);
  options.require(c.op);
  detail::require_reply_pairs(c, out, std::size(orpo_metrics));
  scratch.require(c.op, orpo_workspace(b, in.pairs, in.logp.extent(0)));
  detail::reply_pairs(b, scratch, c, out, detail::odds_rows{});
}

/// Token log-probabilities and pairs of a host layout; loss and gradient out.
template <detail::host_range R>
reply_pairs_result<detail::value_of<R>> orpo(const R& logp, const preference_pairs<>& pairs, orpo_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  detail::require_host_pairs("orpo", pairs, x.extent(0));
  detail::count_pairs(options.denominator, pairs);
  detail::count_likely(options.likelihood, pairs);
  T m[std::size(orpo_metrics)][2] = {};
  return detail::host_reply_pairs(x.extent(0), orpo_workspace(serial::backend<T>{}, pairs, x.extent(0)), m,
                                  [&](auto& b, auto& scratch, const auto& out) { orpo(b, scratch, {x, pairs}, options, out); });
}

PLUMB_NAMESPACE_END

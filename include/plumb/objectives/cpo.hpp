#pragma once
// Contrastive preference optimisation: DPO against a uniform reference, and the likelihood of the chosen replies beside it.

#include <plumb/objectives/reply_pairs.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `cpo`. `Link`: see math/preference.hpp; `link::sigmoid` is the paper's, TRL has `link::hinge` and `link::ipo` (on means) too.
template <class Link = link::sigmoid>
struct cpo_options {
  Link link{};
  reply_score score = reply_score::sum;
  likelihood_term likelihood{};  ///< of the chosen replies (TRL's `cpo_alpha`, Liger's `alpha`)
  double denominator = 0;        ///< number of pairs of the global batch; host overload: 0 means the pairs given
  double weight = 1;             ///< what the loss counts for beside others

  void require(const char* op) const {
    require_mode(op, "score", score, reply_score::mean);
    link.require(op);
    likelihood.require(op, "likelihood.");
    detail::require_weight(op, weight);
  }
};

namespace detail {
template <class B, class Link>
reply_pairs_call<B, Link> cpo_call(const reply_pairs_inputs<real_of<B>, space_of<B>>& in, const cpo_options<Link>& o) {
  return {.op = "cpo", .logp = in.logp, .pairs = in.pairs, .link = o.link, .score = o.score, .likelihood = o.likelihood,
          .denominator = o.denominator, .weight = o.weight};
}
}  // namespace detail

/// Bytes of arena that `cpo` takes for flat arrays of `tokens` entries.
template <class B, class Link = link::sigmoid>
std::size_t cpo_workspace(const B&, const preference_pairs<space_of<B>>& pairs, index_t tokens, const cpo_options<Link>& options = {}) {
  const index_t sequences = pairs.sequences.sequences();
  return detail::reply_pairs_bytes<B>(tokens, sequences, sequences, pairs.pairs(), options.score, false);
}

/// `L = weight {1/denominator sum_p link(s_chosen, s_rejected) + likelihood.weight NLL(chosen)}` with `s` the summed (or averaged)
/// log-probability of a reply. CPO, arXiv:2401.08417, section 3. A reply chosen in several pairs counts as often in the likelihood term.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL `CPOTrainer` and Liger. Another link:
/// `cpo<plumb::link::hinge>(b, scratch, in, {...}, out)`.
template <class Link = link::sigmoid, class B>
  requires has_backend_types<B>
void cpo(B& b, arena_of<B>& scratch, const reply_pairs_inputs<real_of<B>, space_of<B>>& in, const cpo_options<Link>& options,
         const reply_pairs_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  const auto c = detail::cpo_call<B>(in, options);
  options.require(c.op);
  detail::require_reply_pairs(c, out, std::size(reply_pairs_metrics));
  scratch.require(c.op, cpo_workspace(b, in.pairs, in.logp.extent(0), options));
  detail::reply_pairs(b, scratch, c, out, detail::no_more{});
}

/// Token log-probabilities and pairs of a host layout; loss and gradient out.
template <class Link = link::sigmoid, detail::host_range R>
reply_pairs_result<detail::value_of<R>> cpo(const R& logp, const preference_pairs<>& pairs, cpo_options<Link> options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  detail::require_host_pairs("cpo", pairs, x.extent(0));
  detail::count_pairs(options.denominator, pairs);
  detail::count_likely(options.likelihood, pairs);
  T m[std::size(reply_pairs_metrics)][2] = {};
  return detail::host_reply_pairs(x.extent(0), cpo_workspace(serial::backend<T>{}, pairs, x.extent(0), options), m,
                                  [&](auto& b, auto& scratch, const auto& out) { cpo<Link>(b, scratch, {x, pairs}, options, out); });
}

PLUMB_NAMESPACE_END

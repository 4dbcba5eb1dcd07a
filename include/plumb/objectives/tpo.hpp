#pragma once
// Triple preference optimisation: a pair without a reference, and the likelihood of a third, best reply.

#include <plumb/objectives/reply_pairs.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `tpo`. `Link`: `link::sigmoid` on sums is TPO, with `margin` and `reply_score::mean` TPO-L; TRL has `link::hinge` and `link::ipo` (on
/// means) too.
template <class Link = link::sigmoid>
struct tpo_options {
  Link link{};
  reply_score score = reply_score::sum;
  likelihood_term likelihood{};  ///< of the best replies (TRL's `tpo_alpha`)
  double denominator = 0;        ///< number of pairs of the global batch; host overload: 0 means the pairs given
  double weight = 1;             ///< what the loss counts for beside others

  void require(const char* op) const {
    require_mode(op, "score", score, reply_score::mean);
    link.require(op);
    likelihood.require(op, "likelihood.");
    detail::require_weight(op, weight);
  }
};

/// Token log-probabilities of all sequences, flat: pairs, and the best replies.
template <class Real, class Space = host_space>
struct tpo_inputs {
  view<const Real, 1, Space> logp{};  ///< `[N]`
  preference_pairs<Space> pairs{};
  sequence_layout<Space> best{};      ///< the third replies, in the same arrays; none: no likelihood term
};

namespace detail {
template <class B, class Link>
reply_pairs_call<B, Link> tpo_call(const tpo_inputs<real_of<B>, space_of<B>>& in, const tpo_options<Link>& o) {
  return {.op = "tpo", .logp = in.logp, .pairs = in.pairs, .others = in.best, .of_others = true, .link = o.link, .score = o.score,
          .likelihood = o.likelihood, .denominator = o.denominator, .weight = o.weight};
}
}  // namespace detail

/// Bytes of arena that `tpo` takes for inputs of these shapes; `in` may lack memory.
template <class B, class Link = link::sigmoid>
std::size_t tpo_workspace(const B&, const tpo_inputs<real_of<B>, space_of<B>>& in, const tpo_options<Link>& options = {}) {
  return detail::reply_pairs_bytes<B>(in.logp.extent(0), in.pairs.sequences.sequences(), in.best.sequences(), in.pairs.pairs(), options.score, false);
}

/// `L = weight {1/denominator sum_p link(s_chosen, s_rejected) + likelihood.weight NLL(best)}` with `s` the summed (or averaged)
/// log-probability of a reply. TPO and TPO-L, arXiv:2405.16681, section 4.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL `TPOTrainer`. Another link:
/// `tpo<plumb::link::hinge>(b, scratch, in, {...}, out)`.
template <class Link = link::sigmoid, class B>
  requires has_backend_types<B>
void tpo(B& b, arena_of<B>& scratch, const tpo_inputs<real_of<B>, space_of<B>>& in, const tpo_options<Link>& options,
         const reply_pairs_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  const auto c = detail::tpo_call<B>(in, options);
  options.require(c.op);
  detail::require_reply_pairs(c, out, std::size(reply_pairs_metrics));
  scratch.require(c.op, tpo_workspace(b, in, options));
  detail::reply_pairs(b, scratch, c, out, detail::no_more{});
}

/// Token log-probabilities, pairs and best replies of host layouts; loss and gradient out.
template <class Link = link::sigmoid, detail::host_range R>
reply_pairs_result<detail::value_of<R>> tpo(const R& logp, const preference_pairs<>& pairs, const sequence_layout<>& best,
                                            tpo_options<Link> options = {}) {
  using T = detail::value_of<R>;
  const tpo_inputs<T> in{view<const T, 1>(logp), pairs, best};
  const index_t tokens = in.logp.extent(0);
  detail::require_host_pairs("tpo", pairs, tokens);
  require_layout("tpo", best, tokens);
  require_layout_data("tpo", best, tokens);
  detail::count_pairs(options.denominator, pairs);
  auto& l = options.likelihood;
  if (!(l.denominator < 0) && !(0 < l.denominator)) l.denominator = count_for(l.aggregate, best);
  T m[std::size(reply_pairs_metrics)][2] = {};
  return detail::host_reply_pairs(tokens, tpo_workspace(serial::backend<T>{}, in, options), m,
                                  [&](auto& b, auto& scratch, const auto& out) { tpo<Link>(b, scratch, in, options, out); });
}

PLUMB_NAMESPACE_END

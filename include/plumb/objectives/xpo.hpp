#pragma once
// Exploratory preference optimisation: online DPO between the policy's and the reference's own replies, with a term that makes the policy leave
// the reference's.

#include <plumb/objectives/reply_pairs.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `xpo`. `Link`: `link::sigmoid` is the paper's; TRL has `link::ipo` too.
template <class Link = link::sigmoid>
struct xpo_options {
  Link link{};
  double alpha = 1e-5;     ///< what the exploration term counts for; 0 or positive
  double denominator = 0;  ///< number of pairs of the global batch; host overload: 0 means the pairs given
  double weight = 1;       ///< what the loss counts for beside others

  void require(const char* op) const {
    link.require(op);
    require_option(op, "alpha", alpha, alpha >= 0, "0 or positive");
    detail::require_weight(op, weight);
  }
};

/// Token log-probabilities of all sequences, flat: in each pair one reply is the policy's, one the reference's.
template <class Real, class Space = host_space>
struct xpo_inputs {
  view<const Real, 1, Space> logp{};      ///< `[N]`
  view<const Real, 1, Space> ref_logp{};  ///< `[N]`
  preference_pairs<Space> pairs{};
  sequence_layout<Space> of_reference{};  ///< the replies that the reference sampled, in the same arrays
};

namespace detail {
template <class B, class Link>
reply_pairs_call<B, Link> xpo_call(const xpo_inputs<real_of<B>, space_of<B>>& in, const xpo_options<Link>& o) {
  return {.op = "xpo", .logp = in.logp, .ref_logp = in.ref_logp, .pairs = in.pairs, .others = in.of_reference, .of_others = true, .link = o.link,
          .likelihood = {-o.alpha, aggregation::sequence_sum, o.denominator}, .denominator = o.denominator, .weight = o.weight};
}
}  // namespace detail

/// Bytes of arena that `xpo` takes for inputs of these shapes; `in` may lack memory.
template <class B>
std::size_t xpo_workspace(const B&, const xpo_inputs<real_of<B>, space_of<B>>& in) {
  return detail::reply_pairs_bytes<B>(in.logp.extent(0), in.pairs.sequences.sequences(), in.of_reference.sequences(), in.pairs.pairs(),
                                      reply_score::sum, true);
}

/// `L = weight/denominator {sum_p link(s_chosen, s_rejected) + alpha sum_{reference's replies} logp}` with `s` the log-ratio of a reply to the
/// reference. XPO, arXiv:2405.21046, algorithm 1. The row `nll` of the metrics is of the reference's replies.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL `XPOTrainer`.
template <class Link = link::sigmoid, class B>
  requires has_backend_types<B>
void xpo(B& b, arena_of<B>& scratch, const xpo_inputs<real_of<B>, space_of<B>>& in, const xpo_options<Link>& options,
         const reply_pairs_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  const auto c = detail::xpo_call<B>(in, options);
  const index_t tokens = in.logp.extent(0);
  options.require(c.op);
  require_given(c.op, "ref_logp", in.ref_logp, tokens > 0);
  require_same_shape(c.op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_given(c.op, "of_reference.begin", in.of_reference.begin, tokens > 0 && options.alpha > 0);
  detail::require_reply_pairs(c, out, std::size(reply_pairs_metrics));
  scratch.require(c.op, xpo_workspace(b, in));
  detail::reply_pairs(b, scratch, c, out, detail::no_more{});
}

/// Token log-probabilities, pairs and the reference's replies of host layouts; loss and gradient out.
template <class Link = link::sigmoid, detail::host_range R>
reply_pairs_result<detail::value_of<R>> xpo(const R& logp, view<const detail::value_of<R>, 1> ref_logp, const preference_pairs<>& pairs,
                                            const sequence_layout<>& of_reference, xpo_options<Link> options = {}) {
  using T = detail::value_of<R>;
  const xpo_inputs<T> in{view<const T, 1>(logp), ref_logp, pairs, of_reference};
  const index_t tokens = in.logp.extent(0);
  detail::require_host_pairs("xpo", pairs, tokens);
  require_layout("xpo", of_reference, tokens);
  require_layout_data("xpo", of_reference, tokens);
  detail::count_pairs(options.denominator, pairs);
  T m[std::size(reply_pairs_metrics)][2] = {};
  return detail::host_reply_pairs(tokens, xpo_workspace(serial::backend<T>{}, in), m,
                                  [&](auto& b, auto& scratch, const auto& out) { xpo<Link>(b, scratch, in, options, out); });
}

PLUMB_NAMESPACE_END

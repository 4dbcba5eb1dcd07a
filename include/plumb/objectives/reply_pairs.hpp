#pragma once
// What objectives over pairs of replies share when each reply's score is made of its own log-probability: a sum or a mean over tokens, perhaps
// reshaped, a link between the two, and a likelihood term beside it. Included by cpo.hpp, simpo.hpp, orpo.hpp, tpo.hpp, xpo.hpp.

#include <plumb/objectives/replies.hpp>

#include <utility>

PLUMB_NAMESPACE_BEGIN

/// Rows of `metrics`: a reward is `beta` times the reply's score; accuracy counts reward_chosen > reward_rejected, a tie as wrong; `logp` is
/// the reply's own, summed or averaged as the loss has it; `nll` is per scored token of the replies of the likelihood term. A pair without a
/// scored token in either reply does not exist: no loss, no gradient, no place in metrics.
inline constexpr metric_info reply_pairs_metrics[] = {{"accuracy"},    {"margin"},        {"reward_chosen"}, {"reward_rejected"},
                                                      {"logp_chosen"}, {"logp_rejected"}, {"nll"}};

/// Token log-probabilities of all sequences, flat, and which sequence is preferred to which. Where there is only one number per reply, let
/// every sequence be one token long.
template <class Real, class Space = host_space>
struct reply_pairs_inputs {
  view<const Real, 1, Space> logp{};  ///< `[N]`
  preference_pairs<Space> pairs{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct reply_pairs_outputs {
  view<Real, 1, Space> loss{};       ///< one number
  view<Real, 1, Space> d_logp{};     ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> pair_loss{};  ///< `[P]`, without the likelihood term, not divided
  view<Real, 2, Space> metrics{};    ///< `[7, 2]`, rows as in `reply_pairs_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

/// The likelihood term beside a preference loss: `weight` times the negative log-likelihood of some replies, as `supervised` has it.
struct likelihood_term {
  double weight = 1;  ///< 0: none
  aggregation aggregate = aggregation::token_mean;
  double denominator = 0;  ///< see `aggregation`: of the global batch; host overload: 0 means what is given

  /// `of`: as `kl_estimate` has it.
  void require(const char* op, const char* of = "") const {
    require_mode(op, "aggregate", aggregate, aggregation::sequence_sum);
    require_option(op, (message() << of << "weight").c_str(), weight, true, "a number");
  }
};

namespace detail {

template <class B, class Link>
struct reply_pairs_call {
  const char* op;
  const_real_view<B> logp{}, ref_logp{};  // the reference may be left out
  preference_pairs<space_of<B>> pairs{};
  sequence_layout<space_of<B>> others{};  // the replies of the likelihood term; not given: the chosen ones
  bool of_others = false;
  Link link{};
  reply_score score = reply_score::sum;
  double alpha = 0;  // AlphaPO's
  likelihood_term likelihood{};
  double denominator = 0, weight = 1;

  const sequence_layout<space_of<B>>& likely() const { return of_others ? others : pairs.sequences; }
};

// Everything but the ranges of the options.
template <class B, class Link>
void require_reply_pairs(const reply_pairs_call<B, Link>& c, const reply_pairs_outputs<real_of<B>, space_of<B>>& out, std::size_t metrics) {
  const char* op = c.op;
  const auto& layout = c.pairs.sequences;
  const index_t sequences = layout.sequences(), pairs = c.pairs.pairs(), tokens = c.logp.extent(0);
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"pair_loss", out.pair_loss}, {"metrics", out.metrics}},
                    {{"logp", c.logp}, {"ref_logp", c.ref_logp}, {"begin", layout.begin}, {"end", layout.end}, {"scored", layout.scored},
                     {"pairs.chosen", c.pairs.chosen}, {"pairs.rejected", c.pairs.rejected},
                     {"begin", c.others.begin}, {"end", c.others.end}, {"scored", c.others.scored}});
  require_given(op, "logp", c.logp, layout.scored.extent(0) > 0);
  require_sequences(op, layout, tokens);
  if (c.of_others) require_layout(op, c.others, tokens);
  require_given(op, "pairs.chosen", c.pairs.chosen, sequences > 0);
  require_given(op, "pairs.rejected", c.pairs.rejected, sequences > 0);
  require_same_shape(op, "pairs.rejected", c.pairs.rejected, "pairs.chosen", c.pairs.chosen);
  require_ids(op, "pairs.chosen", c.pairs.chosen, sequences, false);
  require_ids(op, "pairs.rejected", c.pairs.rejected, sequences, false);
  require_denominator(op, c.denominator);
  if (c.likelihood.weight < 0 || 0 < c.likelihood.weight)
    require_option(op, "likelihood.denominator", c.likelihood.denominator, c.likelihood.denominator > 0,
                   "positive: the count that the likelihood term of the whole global batch is divided by");
  require_scalar(op, "loss", out.loss);
  require_metrics(op, out.metrics, metrics);
  if (out.pair_loss.given()) require_extent(op, "pair_loss", out.pair_loss, 0, pairs, "the number of pairs");
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", c.logp);
}

template <class B>
std::size_t reply_pairs_bytes(index_t tokens, index_t sequences, index_t others, index_t pairs, reply_score score, bool referenced) {
  using real = real_of<B>;
  workspace_size w;
  w.add_bytes(replies_bytes<B>(tokens, sequences, score, referenced));
  if (referenced) w.add_bytes(replies_bytes<B>(tokens, sequences, score, false));
  // Two scores, log-probs, derivatives, reshaped scores, lengths; weights, which of them metrics count, values of metrics.
  for (int i = 0; i < 13; ++i) w.template add<real>(pairs);
  for (int i = 0; i < 2; ++i) w.template add<real>(sequences);
  for (int i = 0; i < 3; ++i) w.template add<real>(others);
  for (int i = 0; i < 4; ++i) w.template add<real>(1);
  w.add_bytes(pair_sums_workspace<B>(pairs, {}));
  return w.bytes();
}

// The likelihood term: `loss` and `d_logp` are added to; the row of metrics is written.
template <class B, class Link>
void add_likelihood(B& b, arena_of<B>& scratch, const reply_pairs_call<B, Link>& c, real_view<B> loss, real_view<B> d_logp, real_view<B, 2> row) {
  using real = real_of<B>;
  const auto& layout = c.likely();
  const index_t sequences = layout.sequences(), pairs = c.pairs.pairs(), tokens = c.logp.extent(0);
  if (sequences == 0) {
    if (row.given()) b.fill(row, real(0));
    return;
  }
  const auto take = [&] { return scratch.template take<real>(sequences); };
  const auto count = take(), sums = take(), x = take();
  // How often each sequence is the likely one of a pair.
  if (c.of_others) {
    b.fill(count, real(1));
  } else {
    b.fill(count, real(0));
    b.row_scatter_add(as_column(constant(b, scratch, real(1), pairs)), c.pairs.chosen, as_column(count));
  }
  b.segment_reduce(reduction::sum, c.logp, layout, sums);
  if (row.given()) {
    const auto cell = [&](index_t column) { return row.row(0).slice(column, 1); };
    b.transform(math::weighted{}, x, as_const(count), as_const(sums));
    b.reduce(reduction::sum, as_const(x), cell(0), write_mode::overwrite);
    b.transform(math::negate{}, cell(0), as_const(cell(0)));
    scored_lengths(b, scratch, layout, tokens, x);
    b.transform(math::weighted{}, x, as_const(count), as_const(x));
    b.reduce(reduction::sum, as_const(x), cell(1), write_mode::overwrite);
  }
  if (!(c.likelihood.weight < 0) && !(0 < c.likelihood.weight)) return;
  sequence_weights(b, scratch, layout, tokens, {c.likelihood.aggregate, c.likelihood.denominator, 0, -c.weight * c.likelihood.weight}, x);
  b.transform(math::times{}, x, as_const(x), as_const(count));
  if (loss.given()) {
    b.transform(math::weighted{}, sums, as_const(x), as_const(sums));
    b.reduce(reduction::sum, as_const(sums), loss, write_mode::add);
  }
  if (d_logp.given()) b.segment_broadcast(as_const(x), layout, d_logp, write_mode::add);
}

// The score alone.
template <class D>
struct first_of {
  D divergence;
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return divergence(x).first; }
};

// Two scores per pair and their loss; everything is checked. `more(chosen, rejected)` may read the scores for metrics of its own.
template <bool Reshaped = false, class B, class Link, class More>
void reply_pairs(B& b, arena_of<B>& scratch, const reply_pairs_call<B, Link>& c, const reply_pairs_outputs<real_of<B>, space_of<B>>& out,
                 const More& more) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const auto& layout = c.pairs.sequences;
  const index_t sequences = layout.sequences(), pairs = c.pairs.pairs();
  const real beta = static_cast<real>(c.link.beta);
  const auto of_pairs = [&](const_real_view<B> x, const id_view<B>& ids) {
    const auto y = scratch.template take<real>(pairs);
    b.row_gather(as_column(x), ids, as_column(y));
    return as_const(y);
  };
  const replies<B> r = sum_replies(b, scratch, c.logp, c.ref_logp, layout, c.score);
  auto chosen = of_pairs(r.value, c.pairs.chosen), rejected = of_pairs(r.value, c.pairs.rejected);
  auto logp_chosen = chosen, logp_rejected = rejected;
  if (c.ref_logp.given() && out.metrics.given()) {
    const auto own = sum_replies(b, scratch, c.logp, {}, layout, c.score).value;
    logp_chosen = of_pairs(own, c.pairs.chosen);
    logp_rejected = of_pairs(own, c.pairs.rejected);
  }
  const auto lengths = scratch.template take<real>(sequences);
  scored_lengths(b, scratch, layout, c.logp.extent(0), lengths);
  const auto weight = scored_pair_weights(b, scratch, of_pairs(lengths, c.pairs.chosen), of_pairs(lengths, c.pairs.rejected), {});
  real_view<B> d_chosen, d_rejected;
  if (out.d_logp.given()) {
    d_chosen = scratch.template take<real>(pairs);
    d_rejected = scratch.template take<real>(pairs);
    if (out.mode == write_mode::add) {  // only the loss is added to
      b.fill(d_chosen, real(0));
      b.fill(d_rejected, real(0));
    }
  }
  const auto losses = [&](const auto& shape) {
    preference_of_pairs(b, scratch, pair_sums<B>{.ratio_chosen = chosen, .ratio_rejected = rejected, .pair_weight = weight}, c.link, shape,
                        {.denominator = c.denominator, .weight = c.weight},
                        {.loss = out.loss, .d_chosen = d_chosen, .d_rejected = d_rejected, .pair_loss = out.pair_loss, .mode = out.mode});
  };
  if constexpr (Reshaped) {
    const divergence::alpha shape{.coefficient = 1 - c.alpha};
    losses(shape);
    if (out.metrics.given()) {
      for (const_real_view<B>* x : {&chosen, &rejected}) {
        const auto score = scratch.template take<real>(pairs);
        b.transform(first_of<divergence::alpha>{shape}, score, *x);
        *x = score;
      }
    }
  } else {
    losses(divergence::reverse_kl{});
  }
  if (out.d_logp.given()) {
    const auto d_value = scratch.template take<real>(sequences);
    b.fill(d_value, real(0));
    b.row_scatter_add(as_column(as_const(d_chosen)), c.pairs.chosen, as_column(d_value));
    b.row_scatter_add(as_column(as_const(d_rejected)), c.pairs.rejected, as_column(d_value));
    spread_replies(b, r, d_value, layout, out.d_logp, out.mode);
  }
  const auto row = out.metrics.given() ? out.metrics.slice(6, 1) : out.metrics;
  add_likelihood(b, scratch, c, out.loss, out.d_logp, row);
  if (!out.metrics.given()) return;
  metric_rows<B, real> rows(b, scratch, out.metrics, pairs, weight);
  rows.mean(0, math::is_greater{}, chosen, rejected);
  rows.mean(1, math::implicit_reward<real>{beta}, chosen, rejected);
  rows.mean(2, math::scale<real>{beta}, chosen);
  rows.mean(3, math::scale<real>{beta}, rejected);
  rows.mean(4, math::identity{}, logp_chosen);
  rows.mean(5, math::identity{}, logp_rejected);
  more(rows, chosen, rejected);
}
struct no_more {
  template <class Rows, class X>
  void operator()(Rows&, const X&, const X&) const {}
};

// The whole-batch counts of a host layout, for what is 0.
inline void require_host_pairs(const char* op, const preference_pairs<>& pairs, index_t tokens) {
  require_layout(op, pairs.sequences, tokens);
  require_layout_data(op, pairs.sequences, tokens);
  require_same_shape(op, "pairs.rejected", pairs.rejected, "pairs.chosen", pairs.chosen);
  require_id_data(op, "pairs.chosen", pairs.chosen, pairs.sequences.sequences(), false);
  require_id_data(op, "pairs.rejected", pairs.rejected, pairs.sequences.sequences(), false);
}
inline void count_pairs(double& denominator, const preference_pairs<>& pairs) {
  if (!(denominator < 0) && !(0 < denominator)) denominator = static_cast<double>(pairs.pairs() > 0 ? pairs.pairs() : 1);
}
inline void count_likely(likelihood_term& l, const preference_pairs<>& pairs) {
  if (l.denominator < 0 || 0 < l.denominator) return;
  index_t n = l.aggregate == aggregation::token_mean ? 0 : pairs.pairs();
  if (l.aggregate == aggregation::token_mean)
    for (index_t p = 0; p < pairs.pairs(); ++p) {
      const auto& s = pairs.sequences;
      const index_t c = pairs.chosen(p);
      n += count_scored(sequence_layout<>{s.begin.slice(c, 1), s.end.slice(c, 1), s.scored});
    }
  l.denominator = static_cast<double>(n > 0 ? n : 1);
}

}  // namespace detail

/// What the host overloads of `cpo`, `simpo`, `orpo`, `tpo` and `xpo` return.
template <class T>
struct reply_pairs_result {
  T loss = 0, accuracy = 0, margin = 0, reward_chosen = 0, reward_rejected = 0, logp_chosen = 0, logp_rejected = 0;
  T nll = 0;              ///< NaN where no reply has a likelihood term
  std::vector<T> d_logp;  ///< `[N]`
};

namespace detail {
// `call(backend, scratch, outputs)` of an arena of `bytes`; `m` has at least the rows of `reply_pairs_metrics`.
template <class T, std::size_t K, class F>
reply_pairs_result<T> host_reply_pairs(index_t tokens, std::size_t bytes, T (&m)[K][2], const F& call) {
  reply_pairs_result<T> r{.d_logp = zeros<T>(tokens)};
  host_call<T> on(bytes);
  call(on.compute, on.scratch,
       reply_pairs_outputs<T>{.loss = r.loss, .d_logp = r.d_logp, .metrics = view<T, 2>(&m[0][0], static_cast<index_t>(K), 2)});
  T* fields[] = {&r.accuracy, &r.margin, &r.reward_chosen, &r.reward_rejected, &r.logp_chosen, &r.logp_rejected, &r.nll};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(reply_pairs_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}
}  // namespace detail

PLUMB_NAMESPACE_END

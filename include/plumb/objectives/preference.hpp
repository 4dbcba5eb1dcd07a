#pragma once
// Losses of pairs of replies against a reference, in three parts: the score of a reply, the link that makes a loss of two scores, weights. From
// token log-probabilities, or from their sums.

#include <plumb/math/preference.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/ranks.hpp>

#include <limits>
#include <utility>

PLUMB_NAMESPACE_BEGIN

/// How a reply's tokens become its score.
enum class reply_score {
  sum,   ///< sum over scored tokens
  mean,  ///< sum over scored tokens / their number (a divergence looks at the sum before); of none, the sum
};

/// Which scores meet in the link.
enum class pair_matching {
  given,           ///< the two replies of each pair
  ranked,          ///< the chosen reply of rank `k` among the chosen and the rejected one of rank `k` among the rejected (AOT, unpaired)
  ranked_margins,  ///< the pair's margin under the policy of rank `k` and the margin under the reference of rank `k` (AOT, paired)
};

/// Options of `preference` and `preference_sums`.
struct preference_options {
  reply_score score = reply_score::sum;
  pair_matching matching = pair_matching::given;  ///< ranks are those in this call, see `cap::ranks` for their cost
  bool reference_free = false;                    ///< the reference counts as uniform: its log-probs are taken as 0
  double denominator = 0;                         ///< number of pairs of the global batch; host overload: 0 means the pairs given
  double weight = 1;                              ///< what the loss counts for beside others

  void require(const char* op) const {
    require_mode(op, "score", score, reply_score::mean);
    require_mode(op, "matching", matching, pair_matching::ranked_margins);
    detail::require_weight(op, weight);
  }
};

/// Rows of `metrics`. Rewards are `beta (logp - ref_logp)`, whatever link and divergence, of sums or means as `reply_score` says, and so are the
/// log-probs; accuracy counts reward_chosen > reward_rejected, a tie as wrong.
inline constexpr metric_info preference_metrics[] = {{"accuracy"},        {"margin"},      {"reward_chosen"},
                                                     {"reward_rejected"}, {"logp_chosen"}, {"logp_rejected"}};

/// Summed log-probabilities of the two replies of `P` pairs; references may be left out with `reference_free`. What is not given below is not used.
template <class Real, class Space = host_space>
struct preference_sums_inputs {
  view<const Real, 1, Space> chosen{};           ///< `[P]`
  view<const Real, 1, Space> rejected{};         ///< `[P]`
  view<const Real, 1, Space> ref_chosen{};       ///< `[P]`
  view<const Real, 1, Space> ref_rejected{};     ///< `[P]`
  view<const Real, 1, Space> length_chosen{};    ///< `[P]`, tokens of the reply, for `reply_score::mean`
  view<const Real, 1, Space> length_rejected{};  ///< `[P]`
  view<const Real, 1, Space> margin{};           ///< `[P]`, of rewards: the chosen reply's score counts as lower by `margin / beta`
  view<const Real, 1, Space> pair_weight{};      ///< `[P]`, factor of the pair's loss; 0: the pair does not exist, whatever it holds; nor do metrics count it
  view<const Real, 1, Space> reward_chosen{};    ///< `[P]`, given rewards, only for links that are aware of them
  view<const Real, 1, Space> reward_rejected{};  ///< `[P]`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct preference_sums_outputs {
  view<Real, 1, Space> loss{};        ///< one number: weight * sum over pairs / denominator
  view<Real, 1, Space> d_chosen{};    ///< `[P]`, dL/dchosen
  view<Real, 1, Space> d_rejected{};  ///< `[P]`
  view<Real, 1, Space> pair_loss{};   ///< `[P]`, not divided; with `pair_matching`, at the chosen reply's place
  view<Real, 2, Space> metrics{};     ///< `[6, 2]`, rows as in `preference_metrics`
  write_mode mode = write_mode::overwrite;  ///< of the loss and the gradients
};

/// Token log-probabilities of all sequences, flat, and which sequence is preferred to which. What is not given below is not used. A pair without a
/// scored token in either reply does not exist: no loss, no gradient, no place in metrics and ranks.
template <class Real, class Space = host_space>
struct preference_inputs {
  view<const Real, 1, Space> logp{};      ///< `[N]`
  view<const Real, 1, Space> ref_logp{};  ///< `[N]`
  preference_pairs<Space> pairs{};
  view<const Real, 1, Space> token_weight{};     ///< `[N]`, factor of both log-probabilities, a constant (LD-DPO: `ld_dpo_weights`)
  view<const Real, 1, Space> margin{};           ///< `[P]`, as above
  view<const Real, 1, Space> pair_weight{};      ///< `[P]`, as above (WPO: `wpo_weights`)
  view<const Real, 1, Space> reward_chosen{};    ///< `[P]`, as above
  view<const Real, 1, Space> reward_rejected{};  ///< `[P]`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct preference_outputs {
  view<Real, 1, Space> loss{};       ///< one number
  view<Real, 1, Space> d_logp{};     ///< `[N]`, dL/dlogp; 0 for tokens that do not count
  view<Real, 1, Space> pair_loss{};  ///< `[P]`
  view<Real, 2, Space> metrics{};    ///< `[6, 2]`, rows as in `preference_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

namespace detail {

// P pairs after the sums over tokens: what `preference` and `preference_sums` share. Everything is checked.
template <class B>
struct pair_sums {
  const_real_view<B> ratio_chosen{}, ratio_rejected{}, logp_chosen{}, logp_rejected{};
  const_real_view<B> length_chosen{}, length_rejected{};  // given: means
  const_real_view<B> margin{}, pair_weight{}, reward_chosen{}, reward_rejected{};
};

template <class B>
std::size_t pair_sums_workspace(index_t pairs, const preference_options& o) {
  using real = real_of<B>;
  workspace_size w;
  // Scores and their slopes, margins, the shifted score, loss, derivatives, those times weights and slopes and taken back; means.
  const int arrays = o.score == reply_score::mean ? 20 : 16;  // the last: which pairs metrics count
  for (int i = 0; i < arrays; ++i) w.template add<real>(pairs);
  if (o.matching != pair_matching::given)
    for (int i = 0; i < 5; ++i) w.template add<real>(pairs);  // two ranks, the matched; scores with those that do not count moved out
  w.template add<real>(1);
  return w.add_bytes(metric_rows<B>::workspace(pairs)).bytes();
}
// What ranking takes besides.
template <class B>
std::size_t matching_workspace(const B& b, index_t pairs, const preference_options& o) {
  return o.matching != pair_matching::given ? ranks_workspace(b, pairs) : 0;
}

template <class L>
constexpr bool link_of_margin = requires { requires L::of_margin; };

template <class B, class L, class D>
void preference_of_pairs(B& b, arena_of<B>& scratch, pair_sums<B> x, const L& link, const D& divergence, const preference_options& options,
                        const preference_sums_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  using numbers = const_real_view<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t pairs = x.ratio_chosen.extent(0);
  const auto take = [&] { return scratch.template take<real>(pairs); };
  const auto of = [&](auto f, auto... from) {
    const auto y = take();
    b.transform(f, y, from...);
    return as_const(y);
  };
  const real factor = static_cast<real>(options.weight / options.denominator), beta = static_cast<real>(static_cast<double>(link.beta));
  const bool means = options.score == reply_score::mean, by_margins = options.matching == pair_matching::ranked_margins;

  // Scores, and their slopes by the log-ratios where those are not 1.
  numbers chosen = x.ratio_chosen, rejected = x.ratio_rejected, slope_chosen, slope_rejected;
  if (means || !std::is_same_v<D, plumb::divergence::reverse_kl>) {
    const auto score = [&](numbers& ratio, numbers length, numbers& slope) {
      const auto y = take(), dy = take();
      if (means) {
        b.transform2(math::reply_score_term<D>{divergence}, y, dy, ratio, length);
      } else {
        b.transform2(math::reply_score_term<D>{divergence}, y, dy, ratio);
      }
      ratio = y;
      slope = dy;
    };
    score(chosen, x.length_chosen, slope_chosen);
    score(rejected, x.length_rejected, slope_rejected);
  }
  if (means && (out.metrics.given() || by_margins)) {
    x.ratio_chosen = of(math::per_token{}, x.ratio_chosen, x.length_chosen);
    x.ratio_rejected = of(math::per_token{}, x.ratio_rejected, x.length_rejected);
    x.logp_chosen = of(math::per_token{}, x.logp_chosen, x.length_chosen);
    x.logp_rejected = of(math::per_token{}, x.logp_rejected, x.length_rejected);
  }
  if (by_margins) {
    chosen = of(math::minus{}, x.logp_chosen, x.logp_rejected);
    const auto reference = take();
    b.transform(math::minus{}, reference, x.ratio_chosen, x.ratio_rejected);
    b.transform(math::minus{}, reference, chosen, as_const(reference));
    rejected = reference;
  }
  if (x.margin.given()) chosen = of(math::add_scaled<real>{real(-1) / beta}, chosen, x.margin);
  numbers rank_chosen, rank_rejected;
  if (options.matching != pair_matching::given) {
    if (x.pair_weight.given()) {
      // Pairs that do not count meet each other, after all others.
      const math::keep_or<real> last{std::numeric_limits<real>::infinity()};
      chosen = of(last, chosen, x.pair_weight);
      rejected = of(last, rejected, x.pair_weight);
    }
    const auto ranks_chosen = take(), ranks_rejected = take(), matched = take();
    write_ranks(b, scratch, chosen, ranks_chosen);
    write_ranks(b, scratch, rejected, ranks_rejected);
    match_ranks(b, scratch, rejected, as_const(ranks_rejected), as_const(ranks_chosen), matched);
    rank_chosen = ranks_chosen;
    rank_rejected = ranks_rejected;
    rejected = matched;
  }

  // The link. `d_rejected` is what it says with the sign `sign`.
  const auto loss = take(), d_first = take();
  const bool mirrored = link_of_margin<L> || by_margins;
  numbers d_chosen = d_first, d_rejected = d_first;
  if constexpr (reward_aware_link<L, real>) {
    b.transform2(math::link_value<L, real>{link, factor}, loss, d_first, chosen, rejected, x.reward_chosen, x.reward_rejected);
    if (!mirrored) d_rejected = of(math::link_rejected<L, real>{link, factor}, chosen, rejected, x.reward_chosen, x.reward_rejected);
  } else {
    b.transform2(math::link_value<L, real>{link, factor}, loss, d_first, chosen, rejected);
    if (!mirrored) d_rejected = of(math::link_rejected<L, real>{link, factor}, chosen, rejected);
  }
  if (x.pair_weight.given()) {
    b.transform(math::weighted{}, loss, x.pair_weight, as_const(loss));
    d_chosen = of(math::weighted{}, x.pair_weight, d_chosen);
    d_rejected = mirrored ? d_chosen : of(math::weighted{}, x.pair_weight, d_rejected);
  }
  if (out.pair_loss.given()) b.copy(as_const(loss), out.pair_loss);
  write_loss(b, scratch, out.loss, as_const(loss), factor, out.mode);
  if (options.matching == pair_matching::ranked) {
    const auto back = take();
    match_ranks(b, scratch, d_rejected, rank_chosen, rank_rejected, back);
    d_rejected = back;
  }
  // A derivative of 0 stays 0, however steep the score is.
  if (slope_chosen.given() && out.d_chosen.given()) d_chosen = of(math::weighted{}, d_chosen, slope_chosen);
  if (slope_rejected.given() && out.d_rejected.given()) d_rejected = of(math::weighted{}, d_rejected, slope_rejected);
  write_gradient(b, out.d_chosen, d_chosen, real(1), out.mode);
  write_gradient(b, out.d_rejected, d_rejected, mirrored ? real(-1) : real(1), out.mode);

  if (out.metrics.given()) {
    numbers counted;
    if (x.pair_weight.given()) counted = of(math::has_weight{}, x.pair_weight);
    metric_rows<B, real> rows(b, scratch, out.metrics, pairs, counted);
    rows.mean(0, math::is_greater{}, x.ratio_chosen, x.ratio_rejected);
    rows.mean(1, math::implicit_reward<real>{beta}, x.ratio_chosen, x.ratio_rejected);
    rows.mean(2, math::scale<real>{beta}, x.ratio_chosen);
    rows.mean(3, math::scale<real>{beta}, x.ratio_rejected);
    rows.mean(4, math::identity{}, x.logp_chosen);
    rows.mean(5, math::identity{}, x.logp_rejected);
  }
}

inline void require_reference(const char* op, const char* name, bool given) {
  if (given) return;
  fail(message(op) << "argument `" << name << "` is not given; give it, or set `reference_free`. Nothing was written.");
}
inline void refuse_reference(const char* op, const char* name, bool given) {
  if (!given) return;
  fail(message(op) << "argument `" << name << "` is given, but option `reference_free` leaves the reference out; drop one of the two. Nothing was written.");
}

// What pairs count for: `pair_weight`, or 1; 0 where no token of either reply is scored.
template <class B>
const_real_view<B> scored_pair_weights(B& b, arena_of<B>& scratch, const_real_view<B> length_chosen, const_real_view<B> length_rejected,
                                       const_real_view<B> pair_weight) {
  const auto weight = scratch.template take<real_of<B>>(length_chosen.extent(0));
  if (pair_weight.given()) {
    b.transform(math::scored_pair{}, weight, length_chosen, length_rejected, pair_weight);
  } else {
    b.transform(math::scored_pair{}, weight, length_chosen, length_rejected);
  }
  return weight;
}

// What the two entry points check alike. `aware`: the link takes the pairs' rewards; `scored`: by another divergence than reverse KL.
template <class B>
void require_preference(const char* op, index_t pairs, const_real_view<B> margin, const_real_view<B> pair_weight, const_real_view<B> reward_chosen,
                        const_real_view<B> reward_rejected, real_view<B> loss, real_view<B> pair_loss, real_view<B, 2> metrics,
                        const preference_options& o, bool aware, bool scored) {
  o.require(op);
  require_denominator(op, o.denominator);
  if (aware) {
    require_given(op, "reward_chosen", reward_chosen, pairs > 0);
    require_given(op, "reward_rejected", reward_rejected, pairs > 0);
  } else {
    for (const auto& [name, v] : {std::pair{"reward_chosen", reward_chosen}, {"reward_rejected", reward_rejected}})
      if (v.given()) fail(message(op) << "argument `" << name << "` is given, but the link is of the two scores alone. Nothing was written.");
  }
  for (const auto& [name, v] : {std::pair{"margin", margin}, {"pair_weight", pair_weight}, {"reward_chosen", reward_chosen}, {"reward_rejected", reward_rejected}})
    if (v.given()) require_extent(op, name, v, 0, pairs, "the number of pairs");
  const bool matched = o.matching != pair_matching::given;
  if (matched && (pair_weight.given() || aware))
    fail(message(op) << (aware ? "a link of given rewards" : "argument `pair_weight`")
                     << " goes with pairs as they are given, but option `matching` takes them apart. Nothing was written.");
  if (matched) require_rankable<B>(op, "pairs", pairs);
  if (o.matching == pair_matching::ranked_margins && scored)
    fail(message(op) << "option `matching` is ranked_margins, which compares log-probabilities and takes no divergence but `reverse_kl`. Nothing was written.");
  require_scalar(op, "loss", loss);
  if (pair_loss.given()) require_extent(op, "pair_loss", pair_loss, 0, pairs, "the number of pairs");
  require_metrics(op, metrics, std::size(preference_metrics));
}

}  // namespace detail

/// Bytes of arena that `preference_sums` takes; of `options` it looks at `score` and `matching`.
template <class B>
std::size_t preference_sums_workspace(const B& b, index_t pairs, const preference_options& options = {}) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 2; ++i) w.template add<real>(pairs);  // log-ratios
  return w.add_bytes(detail::pair_sums_workspace<B>(pairs, options)).add_bytes(detail::matching_workspace(b, pairs, options)).bytes();
}

namespace detail {
// `op` is what the user called.
template <class B, class L, class D>
  requires has_backend_types<B>
void preference_sums_as(const char* op, B& b, arena_of<B>& scratch, const preference_sums_inputs<real_of<B>, space_of<B>>& in, const L& link,
                         const D& divergence, const preference_options& options, const preference_sums_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  static_assert(preference_link<L, real>,
                "plumb: a link has beta, require(op) and a call of two scores (or of them and two rewards) that gives a pair_term");
  static_assert(log_ratio_divergence<D, real>, "plumb: a divergence has require(op) and a call of a log-ratio that gives a two");
  const index_t pairs = in.chosen.extent(0);
  require_arguments(op, {{"loss", out.loss}, {"d_chosen", out.d_chosen}, {"d_rejected", out.d_rejected}, {"pair_loss", out.pair_loss}, {"metrics", out.metrics}},
                    {{"chosen", in.chosen}, {"rejected", in.rejected}, {"ref_chosen", in.ref_chosen}, {"ref_rejected", in.ref_rejected},
                     {"length_chosen", in.length_chosen}, {"length_rejected", in.length_rejected}, {"margin", in.margin}, {"pair_weight", in.pair_weight},
                     {"reward_chosen", in.reward_chosen}, {"reward_rejected", in.reward_rejected}});
  link.require(op);
  divergence.require(op);
  require_given(op, "chosen", in.chosen, in.rejected.given());
  require_given(op, "rejected", in.rejected, pairs > 0);
  require_same_shape(op, "rejected", in.rejected, "chosen", in.chosen);
  const bool referenced = !options.reference_free, means = options.score == reply_score::mean;
  if (referenced) {
    require_reference(op, "ref_chosen", in.ref_chosen.given() || pairs == 0);
    require_reference(op, "ref_rejected", in.ref_rejected.given() || pairs == 0);
    require_same_shape(op, "ref_chosen", in.ref_chosen, "chosen", in.chosen);
    require_same_shape(op, "ref_rejected", in.ref_rejected, "chosen", in.chosen);
  } else {
    refuse_reference(op, "ref_chosen", in.ref_chosen.given());
    refuse_reference(op, "ref_rejected", in.ref_rejected.given());
  }
  if (means) {
    require_given(op, "length_chosen", in.length_chosen, pairs > 0);
    require_given(op, "length_rejected", in.length_rejected, pairs > 0);
    require_same_shape(op, "length_chosen", in.length_chosen, "chosen", in.chosen);
    require_same_shape(op, "length_rejected", in.length_rejected, "chosen", in.chosen);
  }
  require_preference<B>(op, pairs, in.margin, in.pair_weight, in.reward_chosen, in.reward_rejected, out.loss, out.pair_loss, out.metrics, options,
                        reward_aware_link<L, real>, !std::is_same_v<D, plumb::divergence::reverse_kl>);
  for (const auto& [name, v] : {std::pair{"d_chosen", out.d_chosen}, {"d_rejected", out.d_rejected}})
    if (v.given()) require_same_shape(op, name, v, "chosen", in.chosen);

  scratch.require(op, preference_sums_workspace(b, pairs, options));
  typename arena_of<B>::frame frame(scratch);
  const auto ratio = [&](const_real_view<B> logp, const_real_view<B> ref_logp) {
    if (!referenced) return logp;
    const auto difference = scratch.template take<real>(pairs);
    b.transform(math::minus{}, difference, logp, ref_logp);
    return as_const(difference);
  };
  pair_sums<B> x{.logp_chosen = in.chosen, .logp_rejected = in.rejected, .length_chosen = in.length_chosen, .length_rejected = in.length_rejected,
                       .margin = in.margin, .pair_weight = in.pair_weight, .reward_chosen = in.reward_chosen, .reward_rejected = in.reward_rejected};
  x.ratio_chosen = ratio(in.chosen, in.ref_chosen);
  x.ratio_rejected = ratio(in.rejected, in.ref_rejected);
  preference_of_pairs(b, scratch, x, link, divergence, options, out);
}
}  // namespace detail

/// `L = weight/denominator sum_p w_p link(score_chosen, score_rejected)` from summed log-probabilities, where a score is the log-ratio
/// `logp - ref_logp`, or a divergence's function of it; `w` is `pair_weight`. In float, sums of thousands of tokens leave few digits for their
/// difference: `preference` subtracts token by token.
template <class B, class L, class D>
  requires has_backend_types<B>
void preference_sums(B& b, arena_of<B>& scratch, const preference_sums_inputs<real_of<B>, space_of<B>>& in, const L& link, const D& divergence,
                     const preference_options& options, const preference_sums_outputs<real_of<B>, space_of<B>>& out) {
  detail::preference_sums_as("preference_sums", b, scratch, in, link, divergence, options, out);
}
/// The same with log-ratios for scores.
template <class B, class L>
  requires has_backend_types<B>
void preference_sums(B& b, arena_of<B>& scratch, const preference_sums_inputs<real_of<B>, space_of<B>>& in, const L& link,
                     const preference_options& options, const preference_sums_outputs<real_of<B>, space_of<B>>& out) {
  detail::preference_sums_as("preference_sums", b, scratch, in, link, divergence::reverse_kl{}, options, out);
}

/// Bytes of arena that `preference` takes for flat arrays of `tokens` entries; of `options` it looks at `score` and `matching`.
template <class B>
std::size_t preference_workspace(const B& b, const preference_pairs<space_of<B>>& pairs, index_t tokens, const preference_options& options = {}) {
  using real = real_of<B>;
  workspace_size w;
  w.template add<real>(tokens).template add<real>(1);                             // log-ratios of tokens; a one
  for (int i = 0; i < 2; ++i) w.template add<real>(pairs.sequences.sequences());  // sums, and their gradient
  for (int i = 0; i < 9; ++i) w.template add<real>(pairs.pairs());                // two log-ratios, log-probs, lengths, gradients; weights
  w.add_bytes(detail::pair_sums_workspace<B>(pairs.pairs(), options));
  return w.add_bytes(detail::matching_workspace(b, pairs.pairs(), options)).bytes();
}

namespace detail {
template <class B, class L, class D>
  requires has_backend_types<B>
void preference_as(const char* op, B& b, arena_of<B>& scratch, const preference_inputs<real_of<B>, space_of<B>>& in, const L& link, const D& divergence,
                   const preference_options& options, const preference_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  static_assert(preference_link<L, real>,
                "plumb: a link has beta, require(op) and a call of two scores (or of them and two rewards) that gives a pair_term");
  static_assert(log_ratio_divergence<D, real>, "plumb: a divergence has require(op) and a call of a log-ratio that gives a two");
  const auto& layout = in.pairs.sequences;
  const index_t sequences = layout.sequences(), pairs = in.pairs.pairs(), tokens = in.logp.extent(0);
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"pair_loss", out.pair_loss}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"begin", layout.begin}, {"end", layout.end}, {"scored", layout.scored},
                     {"pairs.chosen", in.pairs.chosen}, {"pairs.rejected", in.pairs.rejected}, {"token_weight", in.token_weight}, {"margin", in.margin},
                     {"pair_weight", in.pair_weight}, {"reward_chosen", in.reward_chosen}, {"reward_rejected", in.reward_rejected}});
  link.require(op);
  divergence.require(op);
  require_given(op, "logp", in.logp, in.ref_logp.given() || layout.scored.extent(0) > 0);
  const bool referenced = !options.reference_free, means = options.score == reply_score::mean;
  if (referenced) {
    require_reference(op, "ref_logp", in.ref_logp.given() || tokens == 0);
    require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  } else {
    refuse_reference(op, "ref_logp", in.ref_logp.given());
  }
  if (in.token_weight.given()) require_same_shape(op, "token_weight", in.token_weight, "logp", in.logp);
  require_sequences(op, layout, tokens);
  require_given(op, "pairs.chosen", in.pairs.chosen, sequences > 0);
  require_given(op, "pairs.rejected", in.pairs.rejected, sequences > 0);
  require_same_shape(op, "pairs.rejected", in.pairs.rejected, "pairs.chosen", in.pairs.chosen);
  require_ids(op, "pairs.chosen", in.pairs.chosen, sequences, false);
  require_ids(op, "pairs.rejected", in.pairs.rejected, sequences, false);
  require_preference<B>(op, pairs, in.margin, in.pair_weight, in.reward_chosen, in.reward_rejected, out.loss, out.pair_loss, out.metrics, options,
                        reward_aware_link<L, real>, !std::is_same_v<D, plumb::divergence::reverse_kl>);
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);

  scratch.require(op, preference_workspace(b, in.pairs, tokens, options));
  typename arena_of<B>::frame frame(scratch);
  const auto sums = scratch.template take<real>(sequences);
  const auto of_pairs = [&](const id_view<B>& ids) {
    const auto x = scratch.template take<real>(pairs);
    b.row_gather(as_column(as_const(sums)), ids, as_column(x));
    return as_const(x);
  };
  pair_sums<B> x{.margin = in.margin, .reward_chosen = in.reward_chosen, .reward_rejected = in.reward_rejected};
  const bool weighted = in.token_weight.given();
  real_view<B> of_tokens;
  if (weighted || referenced) of_tokens = scratch.template take<real>(tokens);
  auto ratio = in.logp;
  if (weighted && referenced) {
    b.transform(math::weighted_difference{}, of_tokens, in.token_weight, in.logp, in.ref_logp);
    ratio = of_tokens;
  } else if (weighted) {
    b.transform(math::weighted{}, of_tokens, in.token_weight, in.logp);
    ratio = of_tokens;
  } else if (referenced) {
    b.transform(math::minus{}, of_tokens, in.logp, in.ref_logp);
    ratio = of_tokens;
  }
  b.segment_reduce(reduction::sum, ratio, layout, sums);
  x.ratio_chosen = of_pairs(in.pairs.chosen);
  x.ratio_rejected = of_pairs(in.pairs.rejected);
  if (out.metrics.given() || options.matching == pair_matching::ranked_margins) {
    if (referenced) {
      if (weighted) b.transform(math::weighted{}, of_tokens, in.token_weight, in.logp);
      b.segment_reduce(reduction::sum, weighted ? as_const(of_tokens) : in.logp, layout, sums);
    }
    x.logp_chosen = of_pairs(in.pairs.chosen);
    x.logp_rejected = of_pairs(in.pairs.rejected);
  }
  scored_lengths(b, scratch, layout, tokens, sums);
  const auto length_chosen = of_pairs(in.pairs.chosen), length_rejected = of_pairs(in.pairs.rejected);
  if (means) {
    x.length_chosen = length_chosen;
    x.length_rejected = length_rejected;
  }
  x.pair_weight = scored_pair_weights(b, scratch, length_chosen, length_rejected, in.pair_weight);
  preference_sums_outputs<real, space_of<B>> y{.loss = out.loss, .pair_loss = out.pair_loss, .metrics = out.metrics};
  if (out.d_logp.given()) {
    y.d_chosen = scratch.template take<real>(pairs);
    y.d_rejected = scratch.template take<real>(pairs);
  }
  // The loss may be added to, the gradients by pair are fresh.
  y.mode = out.mode;
  if (out.mode == write_mode::add && out.d_logp.given()) {
    b.fill(y.d_chosen, real(0));
    b.fill(y.d_rejected, real(0));
  }
  preference_of_pairs(b, scratch, x, link, divergence, options, y);
  if (!out.d_logp.given()) return;
  const auto d_sums = scratch.template take<real>(sequences);
  b.fill(d_sums, real(0));
  b.row_scatter_add(as_column(as_const(y.d_chosen)), in.pairs.chosen, as_column(d_sums));
  b.row_scatter_add(as_column(as_const(y.d_rejected)), in.pairs.rejected, as_column(d_sums));
  if (!weighted) {
    b.segment_broadcast(as_const(d_sums), layout, out.d_logp, out.mode);
    return;
  }
  b.segment_broadcast(as_const(d_sums), layout, of_tokens, write_mode::overwrite);
  b.transform(math::weighted{}, of_tokens, as_const(of_tokens), in.token_weight);
  write_gradient(b, out.d_logp, as_const(of_tokens), real(1), out.mode);
}
}  // namespace detail

/// As `preference_sums`, from token log-probabilities: the log-ratio of each token, times `token_weight`, summed over the scored tokens of each reply
/// (or their mean); the gradient goes back to every scored token. Sequences in no pair get 0.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against TRL's `DPOTrainer`, OpenRLHF, NeMo-Aligner, Liger and DR-PO, loss by loss.
template <class B, class L, class D>
  requires has_backend_types<B>
void preference(B& b, arena_of<B>& scratch, const preference_inputs<real_of<B>, space_of<B>>& in, const L& link, const D& divergence,
                const preference_options& options, const preference_outputs<real_of<B>, space_of<B>>& out) {
  detail::preference_as("preference", b, scratch, in, link, divergence, options, out);
}
/// The same with log-ratios for scores.
template <class B, class L>
  requires has_backend_types<B>
void preference(B& b, arena_of<B>& scratch, const preference_inputs<real_of<B>, space_of<B>>& in, const L& link, const preference_options& options,
                const preference_outputs<real_of<B>, space_of<B>>& out) {
  detail::preference_as("preference", b, scratch, in, link, divergence::reverse_kl{}, options, out);
}

/// What the host overloads return.
template <class T>
struct preference_result {
  T loss = 0, accuracy = 0, margin = 0, reward_chosen = 0, reward_rejected = 0, logp_chosen = 0, logp_rejected = 0;
  std::vector<T> d_chosen, d_rejected;  ///< `[P]`, dL/d(summed log-probability)
};

namespace detail {
template <class T, class L, class D>
preference_result<T> preference_of_vectors(const char* op, view<const T, 1> chosen, view<const T, 1> rejected, view<const T, 1> ref_chosen,
                                           view<const T, 1> ref_rejected, const L& link, const D& divergence, preference_options options) {
  const index_t pairs = chosen.extent(0);
  if (options.denominator == 0) options.denominator = static_cast<double>(pairs > 0 ? pairs : 1);
  preference_result<T> r{.d_chosen = zeros<T>(pairs), .d_rejected = zeros<T>(pairs)};
  T m[std::size(preference_metrics)][2] = {};
  host_call<T> call(preference_sums_workspace(serial::backend<T>{}, pairs, options));
  preference_sums_as(op, call.compute, call.scratch, {.chosen = chosen, .rejected = rejected, .ref_chosen = ref_chosen, .ref_rejected = ref_rejected},
                     link, divergence, options,
                     {.loss = r.loss, .d_chosen = r.d_chosen, .d_rejected = r.d_rejected,
                      .metrics = view<T, 2>(&m[0][0], std::size(preference_metrics), 2)});
  T* fields[] = {&r.accuracy, &r.margin, &r.reward_chosen, &r.reward_rejected, &r.logp_chosen, &r.logp_rejected};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(preference_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}
}  // namespace detail

/// Vectors in, loss and gradient out: summed log-probabilities of `P` pairs, on the serial backend. With `reference_free`, pass `{}` for the
/// references.
template <detail::host_range R, class L, log_ratio_divergence<detail::value_of<R>> D>
preference_result<detail::value_of<R>> preference(const R& chosen, view<const detail::value_of<R>, 1> rejected,
                                                  view<const detail::value_of<R>, 1> ref_chosen, view<const detail::value_of<R>, 1> ref_rejected,
                                                  const L& link, const D& divergence, const preference_options& options = {}) {
  using T = detail::value_of<R>;
  return detail::preference_of_vectors<T>("preference", view<const T, 1>(chosen), rejected, ref_chosen, ref_rejected, link, divergence, options);
}
/// The same with log-ratios for scores.
template <detail::host_range R, class L>
preference_result<detail::value_of<R>> preference(const R& chosen, view<const detail::value_of<R>, 1> rejected,
                                                  view<const detail::value_of<R>, 1> ref_chosen, view<const detail::value_of<R>, 1> ref_rejected,
                                                  const L& link, const preference_options& options = {}) {
  using T = detail::value_of<R>;
  return detail::preference_of_vectors<T>("preference", view<const T, 1>(chosen), rejected, ref_chosen, ref_rejected, link, divergence::reverse_kl{},
                                          options);
}

PLUMB_NAMESPACE_END

#pragma once
// What objectives over replies with a label share: no pairs, only "desirable" or not. Included by kto.hpp and bco.hpp.

#include <plumb/objectives/replies.hpp>

#include <utility>

PLUMB_NAMESPACE_BEGIN

/// Rows of `metrics` of `kto` and `bco`. Rewards are `beta` times the log-ratio to the reference, without the anchor (the reference
/// point of KTO, the reward shift of BCO), which is the last row. The margin that peers log is the difference of the first two means. Replies
/// of weight 0 and replies without scored tokens do not count.
inline constexpr metric_info unpaired_metrics[] = {
    {"reward_desirable"}, {"reward_undesirable"}, {"logp_desirable"}, {"logp_undesirable"}, {"anchor"}};

/// Outputs of `kto_replies` and `bco_replies`. What is not given is not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct unpaired_replies_outputs {
  view<Real, 1, Space> loss{};        ///< one number
  view<Real, 1, Space> d_logp{};      ///< `[S]`, dL/d(log-probability of the reply)
  view<Real, 1, Space> reply_loss{};  ///< `[S]`, with the weights of the reply, not divided
  view<Real, 2, Space> metrics{};     ///< `[5, 2]`, rows as in `unpaired_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};
/// Outputs of `kto` and `bco`. What is not given is not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct unpaired_outputs {
  view<Real, 1, Space> loss{};        ///< one number
  view<Real, 1, Space> d_logp{};      ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> reply_loss{};  ///< `[S]`, with the weights of the reply, not divided
  view<Real, 2, Space> metrics{};     ///< `[5, 2]`, rows as in `unpaired_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

namespace detail {

// `x` where the label is, or is not, 0; and 1. Where the weight is 0 they are 0.
struct keep_desirable {
  bool wanted;
  template <class T>
  PLUMB_HD T operator()(const T& x, const T& desirable, const T& weight) const {
    return math::is_zero(desirable) != wanted && !math::is_zero(weight) ? x : T(0);
  }
};
struct is_label {
  bool wanted;
  template <class T>
  PLUMB_HD T operator()(const T& desirable, const T& weight) const {
    return math::is_zero(desirable) != wanted && !math::is_zero(weight) ? T(1) : T(0);
  }
};

// What replies count for: `weight`, or 1; 0 where no token is scored. Takes `[S]` and one number of scratch.
template <class B>
const_real_view<B> scored_reply_weights(B& b, arena_of<B>& scratch, const sequence_layout<space_of<B>>& layout, index_t tokens,
                                        const_real_view<B> weight) {
  const auto y = scratch.template take<real_of<B>>(layout.sequences());
  scored_lengths(b, scratch, layout, tokens, y);
  if (weight.given()) {
    b.transform(math::keep_where{}, y, weight, as_const(y));
  } else {
    b.transform(math::is_nonzero{}, y, as_const(y));
  }
  return y;
}
template <class B>
std::size_t scored_reply_weights_bytes(index_t replies) {
  return workspace_size().template add<real_of<B>>(replies).template add<real_of<B>>(1).bytes();
}

template <class B>
struct unpaired_arguments {
  const_real_view<B> ratio{}, logp{};  // [S]
  view<const std::uint8_t, 1, space_of<B>> desirable{};
  const_real_view<B> anchor{}, weight{};  // [1]; [S] or not given
};
template <class B>
std::size_t unpaired_bytes(index_t replies) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(replies);  // loss, gradient, values of metrics
  for (int i = 0; i < 3; ++i) w.template add<real>(1);        // no anchor, no weight, sum to add
  return w.bytes();
}
// `term` gives a reply's loss and `factor` times its derivative. The gradient lands in `d_value` [S], which is `out.d_logp` or scratch.
template <class B, class Term>
void unpaired_losses(B& b, arena_of<B>& scratch, const Term& term, const unpaired_arguments<B>& in, real_of<B> factor, real_of<B> beta,
                     real_view<B> loss_out, real_view<B> d_value, real_view<B> reply_loss, real_view<B, 2> metrics, write_mode mode) {
  using real = real_of<B>;
  const index_t replies = in.ratio.extent(0);
  const auto loss = scratch.template take<real>(replies);
  const auto anchor = in.anchor.given() ? const_real_view<B>(in.anchor.data(), {replies}, {0}) : constant(b, scratch, real(0), replies);
  const auto weight = in.weight.given() ? in.weight : constant(b, scratch, real(1), replies);
  b.transform2(term, loss, d_value, in.ratio, in.desirable, anchor, weight);
  write_loss(b, scratch, loss_out, as_const(loss), factor, mode);
  if (reply_loss.given()) b.copy(as_const(loss), reply_loss);
  if (!metrics.given()) return;
  const auto values = scratch.template take<real>(replies);
  const auto cell = [&](index_t row, index_t column) { return metrics.row(row).slice(column, 1); };
  for (index_t label = 0; label < 2; ++label) {
    const bool wanted = label == 0;
    const auto sum = [&](index_t row) { b.reduce(reduction::sum, as_const(values), cell(row, 0), write_mode::overwrite); };
    b.transform(keep_desirable{wanted}, values, in.ratio, in.desirable, weight);
    sum(label);
    b.transform(math::scale<real>{beta}, cell(label, 0), as_const(cell(label, 0)));
    b.transform(keep_desirable{wanted}, values, in.logp, in.desirable, weight);
    sum(2 + label);
    b.transform(is_label{wanted}, values, in.desirable, weight);
    b.reduce(reduction::sum, as_const(values), cell(label, 1), write_mode::overwrite);
    b.copy(as_const(cell(label, 1)), cell(2 + label, 1));
  }
  b.copy(const_real_view<B>(anchor.data(), {1}, {1}), cell(4, 0));
  b.fill(cell(4, 1), real(1));
}

// What the replies form of `kto` and `bco` checks beside its options.
template <class B, class Inputs>
void require_replies(const char* op, const Inputs& in, const char* anchor_name, const_real_view<B> anchor,
                     const unpaired_replies_outputs<real_of<B>, space_of<B>>& out) {
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"reply_loss", out.reply_loss}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"desirable", in.desirable}, {anchor_name, anchor}, {"weight", in.weight}});
  require_given(op, "logp", in.logp, in.desirable.extent(0) > 0);
  require_given(op, "ref_logp", in.ref_logp, in.logp.extent(0) > 0);
  require_given(op, "desirable", in.desirable, in.logp.extent(0) > 0);
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_same_shape(op, "desirable", in.desirable, "logp", in.logp);
  if (in.weight.given()) require_same_shape(op, "weight", in.weight, "logp", in.logp);
  require_scalar(op, anchor_name, anchor);
  require_scalar(op, "loss", out.loss);
  require_metrics(op, out.metrics, std::size(unpaired_metrics));
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
  if (out.reply_loss.given()) require_same_shape(op, "reply_loss", out.reply_loss, "logp", in.logp);
}
// The same of the form that takes tokens.
template <class B, class Inputs>
void require_tokens(const char* op, const Inputs& in, const char* anchor_name, const_real_view<B> anchor,
                    const unpaired_outputs<real_of<B>, space_of<B>>& out) {
  require_arguments(op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"reply_loss", out.reply_loss}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"begin", in.sequences.begin}, {"end", in.sequences.end},
                     {"scored", in.sequences.scored}, {"desirable", in.desirable}, {anchor_name, anchor}, {"weight", in.weight}});
  const index_t tokens = in.logp.extent(0), replies = in.sequences.sequences();
  require_given(op, "logp", in.logp, in.ref_logp.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "ref_logp", in.ref_logp, tokens > 0);
  require_same_shape(op, "ref_logp", in.ref_logp, "logp", in.logp);
  require_sequences(op, in.sequences, tokens);
  require_given(op, "desirable", in.desirable, replies > 0);
  require_extent(op, "desirable", in.desirable, 0, replies, "the number of sequences");
  if (in.weight.given()) require_extent(op, "weight", in.weight, 0, replies, "the number of sequences");
  require_scalar(op, anchor_name, anchor);
  require_scalar(op, "loss", out.loss);
  require_metrics(op, out.metrics, std::size(unpaired_metrics));
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
  if (out.reply_loss.given()) require_extent(op, "reply_loss", out.reply_loss, 0, replies, "the number of sequences");
}

template <class B>
std::size_t unpaired_replies_bytes(index_t replies) {
  return workspace_size().template add<real_of<B>>(replies).template add<real_of<B>>(replies).add_bytes(unpaired_bytes<B>(replies)).bytes();
}
template <class B, class Term, class Inputs>
void unpaired_replies(B& b, arena_of<B>& scratch, const Term& term, const Inputs& in, const_real_view<B> anchor, double factor, double beta,
                      const unpaired_replies_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t replies = in.logp.extent(0);
  const auto ratio = scratch.template take<real>(replies), d_value = scratch.template take<real>(replies);
  b.transform(math::minus{}, ratio, in.logp, in.ref_logp);
  unpaired_losses(b, scratch, term, {ratio, in.logp, in.desirable, anchor, in.weight}, static_cast<real>(factor), static_cast<real>(beta), out.loss,
                  d_value, out.reply_loss, out.metrics, out.mode);
  write_gradient(b, out.d_logp, as_const(d_value), real(1), out.mode);
}

template <class B>
std::size_t unpaired_tokens_bytes(index_t tokens, index_t replies, reply_score how) {
  return workspace_size()
      .template add<real_of<B>>(replies)
      .add_bytes(replies_bytes<B>(tokens, replies, how, true))
      .add_bytes(replies_bytes<B>(tokens, replies, how, false))
      .add_bytes(scored_reply_weights_bytes<B>(replies))
      .add_bytes(unpaired_bytes<B>(replies))
      .bytes();
}
template <class B, class Term, class Inputs>
void unpaired_tokens(B& b, arena_of<B>& scratch, const Term& term, const Inputs& in, const_real_view<B> anchor, reply_score how, double factor,
                     double beta, const unpaired_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const auto d_value = scratch.template take<real>(in.sequences.sequences());
  const replies<B> ratio = sum_replies(b, scratch, in.logp, in.ref_logp, in.sequences, how);
  unpaired_arguments<B> x{ratio.value, {}, in.desirable, anchor, scored_reply_weights(b, scratch, in.sequences, in.logp.extent(0), in.weight)};
  if (out.metrics.given()) x.logp = sum_replies(b, scratch, in.logp, {}, in.sequences, how).value;
  unpaired_losses(b, scratch, term, x, static_cast<real>(factor), static_cast<real>(beta), out.loss, d_value, out.reply_loss, out.metrics, out.mode);
  spread_replies(b, ratio, d_value, in.sequences, out.d_logp, out.mode);
}

}  // namespace detail

PLUMB_NAMESPACE_END

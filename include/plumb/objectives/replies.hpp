#pragma once
// From token log-probabilities to one number per reply, and back: what objectives over whole replies share. Included by them.

#include <plumb/objectives/preference.hpp>

PLUMB_NAMESPACE_BEGIN

namespace detail {

// One number per reply of tokens `logp`, less `ref_logp` where that is given, subtracted token by token; what enters backwards too.
template <class B>
struct replies {
  const_real_view<B> value{};   // [S]
  const_real_view<B> weight{};  // [S]: 1 / length for means; not given for sums
};
template <class B>
std::size_t replies_bytes(index_t tokens, index_t sequences, reply_score how, bool referenced) {
  using real = real_of<B>;
  workspace_size w;
  if (referenced) w.template add<real>(tokens);
  w.template add<real>(sequences);
  if (how == reply_score::mean) w.template add<real>(sequences).template add<real>(1);
  return w.bytes();
}
template <class B>
replies<B> sum_replies(B& b, arena_of<B>& scratch, const_real_view<B> logp, const_real_view<B> ref_logp, const sequence_layout<space_of<B>>& layout,
                       reply_score how) {
  using real = real_of<B>;
  const index_t tokens = logp.extent(0), sequences = layout.sequences();
  auto x = logp;
  if (ref_logp.given()) {
    const auto difference = scratch.template take<real>(tokens);
    b.transform(math::minus{}, difference, logp, ref_logp);
    x = difference;
  }
  const auto value = scratch.template take<real>(sequences);
  b.segment_reduce(reduction::sum, x, layout, value);
  if (how == reply_score::sum) return {value, {}};
  const auto weight = scratch.template take<real>(sequences);
  sequence_weights(b, scratch, layout, tokens, {.mode = aggregation::sequence_mean, .denominator = 1}, weight);
  b.transform(math::weighted{}, value, as_const(weight), as_const(value));
  return {value, weight};
}
// The gradient by `value` becomes that by every scored token. Overwrites `d_value`.
template <class B>
void spread_replies(B& b, const replies<B>& r, real_view<B> d_value, const sequence_layout<space_of<B>>& layout, real_view<B> d_logp,
                    write_mode mode) {
  if (!d_logp.given()) return;
  if (r.weight.given()) b.transform(math::weighted{}, d_value, r.weight, as_const(d_value));
  b.segment_broadcast(as_const(d_value), layout, d_logp, mode);
}

}  // namespace detail

PLUMB_NAMESPACE_END

#pragma once
// What lies before, at and after a scored token, said by the segment operations alone: no index leaves the device.

#include <plumb/compute/backend.hpp>
#include <plumb/math/scan.hpp>
#include <plumb/ops/metrics.hpp>

PLUMB_NAMESPACE_BEGIN

namespace detail {

// One number, seen as `extent` equal ones.
template <class T, class Space>
view<const T, 1, Space> repeated(view<T, 1, Space> one, index_t extent) {
  return {one.data(), {extent}, {0}};
}

// 1 at each scored token of a sequence, 0 elsewhere. Takes one number of scratch.
template <class B>
void scored_mask(B& b, arena_of<B>& scratch, const sequence_layout<space_of<B>>& layout, real_view<B> mask) {
  typename arena_of<B>::frame frame(scratch);
  b.segment_broadcast(constant(b, scratch, real_of<B>(1), layout.sequences()), layout, mask, write_mode::overwrite);
}

// 1 at the last scored token of each sequence, 0 elsewhere: the only one from which a count to the end is 1. Takes one number.
template <class B>
void last_scored(B& b, arena_of<B>& scratch, const sequence_layout<space_of<B>>& layout, real_view<B> last) {
  typename arena_of<B>::frame frame(scratch);
  const auto ones = constant(b, scratch, real_of<B>(1), last.extent(0));
  b.segment_scan(ones, ones, layout, last);
  b.transform(math::is_one{}, last, as_const(last));
}

// 1 at the last scored token, 0 at the one before it, 1 at the one before that. Takes two numbers.
template <class B>
void scored_parity(B& b, arena_of<B>& scratch, const sequence_layout<space_of<B>>& layout, real_view<B> parity) {
  typename arena_of<B>::frame frame(scratch);
  const index_t tokens = parity.extent(0);
  b.segment_scan(constant(b, scratch, real_of<B>(-1), tokens), constant(b, scratch, real_of<B>(1), tokens), layout, parity);
}

// `y[t] = x[u]`, `u` the next scored token, and `y[t] = terminal[t]` for the last (0 if that is not given; elsewhere it must hold 0).
// One scan hands the numbers of every other token to the token before it, one those of the rest: exact, for they are multiplied by 1.
// A NaN or an infinity also reaches the tokens before, where a 0 multiplies it. `y` may not overlap `x`. Takes three times `tokens`.
template <class B>
void next_scored(B& b, arena_of<B>& scratch, const_real_view<B> parity, const_real_view<B> x, const_real_view<B> terminal,
                 const sequence_layout<space_of<B>>& layout, real_view<B> y) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t tokens = y.extent(0);
  const auto odd = scratch.template take<real>(tokens), source = scratch.template take<real>(tokens), pass = scratch.template take<real>(tokens);
  if (terminal.given()) {
    b.transform(math::choose{}, source, parity, terminal, x);
  } else {
    b.transform(math::choose_or_zero{}, source, parity, x);
  }
  b.segment_scan(parity, as_const(source), layout, y);
  b.transform(math::one_minus{}, pass, parity);
  b.transform(math::keep_where{}, source, x, parity);
  b.segment_scan(as_const(pass), as_const(source), layout, odd);
  b.transform(math::choose{}, y, parity, as_const(y), as_const(odd));
}

}  // namespace detail

PLUMB_NAMESPACE_END

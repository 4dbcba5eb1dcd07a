#pragma once
// The softmax over each group of a layout, in logarithms: weights of replies to one prompt.

#include <plumb/math/segment_softmax.hpp>
#include <plumb/ops/aggregate.hpp>

PLUMB_NAMESPACE_BEGIN

/// One number per item (a reply), and the groups.
template <class Real, class Space = host_space>
struct segment_log_softmax_inputs {
  view<const Real, 1, Space> x{};   ///< `[R]`
  sequence_layout<Space> groups{};  ///< over the `R` items; those that are not scored do not take part, whatever they hold
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct segment_log_softmax_outputs {
  view<Real, 1, Space> log_p{};        ///< `[R]`, log of each item's share of its group; 0 for items that do not take part
  view<Real, 1, Space> p{};            ///< `[R]`, the share; 0 for items that do not take part
  view<Real, 1, Space> log_sum_exp{};  ///< `[G]`; -inf for a group without items
};

/// Bytes of arena that `segment_log_softmax` takes.
template <class B>
std::size_t segment_log_softmax_workspace(const B&, index_t items, index_t groups) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(items);
  for (int i = 0; i < 2; ++i) w.template add<real>(groups);
  return w.template add<real>(1).bytes();
}

/// `log_p[i] = x[i] - log sum_j exp x[j]` over the group of `i`, shifted by the group's maximum. A group of -inf gives NaN: it has no
/// shares.
template <class B>
  requires has_backend_types<B>
void segment_log_softmax(B& b, arena_of<B>& scratch, const segment_log_softmax_inputs<real_of<B>, space_of<B>>& in,
                         const segment_log_softmax_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "segment_log_softmax";
  const index_t items = in.x.extent(0), groups = in.groups.sequences();
  require_arguments(op, {{"log_p", out.log_p}, {"p", out.p}, {"log_sum_exp", out.log_sum_exp}},
                    {{"x", in.x}, {"begin", in.groups.begin}, {"end", in.groups.end}, {"scored", in.groups.scored}});
  require_given(op, "x", in.x, in.groups.scored.extent(0) > 0);
  require_sequences(op, in.groups, items);
  if (out.log_p.given()) require_same_shape(op, "log_p", out.log_p, "x", in.x);
  if (out.p.given()) require_same_shape(op, "p", out.p, "x", in.x);
  if (out.log_sum_exp.given()) require_extent(op, "log_sum_exp", out.log_sum_exp, 0, groups, "the number of groups");
  scratch.require(op, segment_log_softmax_workspace(b, items, groups));
  typename arena_of<B>::frame frame(scratch);
  const auto spread = scratch.template take<real>(items), each = scratch.template take<real>(items), member = scratch.template take<real>(items);
  const auto most = scratch.template take<real>(groups);
  const auto log_sum = scratch.template take<real>(groups);
  b.segment_broadcast(detail::constant(b, scratch, real(1), groups), in.groups, member, write_mode::overwrite);
  b.segment_reduce(reduction::max, in.x, in.groups, most);
  b.segment_broadcast(as_const(most), in.groups, spread, write_mode::overwrite);
  // The maximum is never added back: far numbers keep the digits of their differences.
  b.transform(math::minus{}, each, in.x, as_const(spread));
  b.transform(math::exponential{}, spread, as_const(each));
  b.segment_reduce(reduction::sum, as_const(spread), in.groups, log_sum);
  b.transform(math::logarithm{}, log_sum, as_const(log_sum));
  if (out.log_sum_exp.given()) b.transform(math::plus{}, out.log_sum_exp, as_const(most), as_const(log_sum));
  if (!out.log_p.given() && !out.p.given()) return;
  b.segment_broadcast(as_const(log_sum), in.groups, spread, write_mode::overwrite);
  const auto log_p = out.log_p.given() ? out.log_p : each;
  b.transform(math::log_share{}, log_p, as_const(each), as_const(spread), as_const(member));
  if (out.p.given()) b.transform(math::share{}, out.p, as_const(log_p), as_const(member));
}

/// What the host overload returns.
template <class T>
struct segment_log_softmax_result {
  std::vector<T> log_p, p;     ///< `[R]`
  std::vector<T> log_sum_exp;  ///< `[G]`
};

/// A vector and its groups in, on the serial backend.
template <detail::host_range R>
segment_log_softmax_result<detail::value_of<R>> segment_log_softmax(const R& x, const sequence_layout<>& groups) {
  using T = detail::value_of<R>;
  const view<const T, 1> items(x);
  const index_t n = items.extent(0), g = groups.sequences();
  detail::require_host_layout("segment_log_softmax", groups, n);
  segment_log_softmax_result<T> r{detail::zeros<T>(n), detail::zeros<T>(n), detail::zeros<T>(g)};
  detail::host_call<T> call(segment_log_softmax_workspace(serial::backend<T>{}, n, g));
  segment_log_softmax(call.compute, call.scratch, {.x = items, .groups = groups}, {.log_p = r.log_p, .p = r.p, .log_sum_exp = r.log_sum_exp});
  return r;
}

PLUMB_NAMESPACE_END

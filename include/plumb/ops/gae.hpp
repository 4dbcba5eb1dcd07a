#pragma once
// Generalised advantage estimation over scored tokens, lambda returns, and GAE's adjoint.

#include <plumb/compute/fused.hpp>
#include <plumb/math/returns.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/scored_scan.hpp>

PLUMB_NAMESPACE_BEGIN

namespace detail {

template <class B>
void require_trajectory(const char* op, const trajectory_inputs<real_of<B>, space_of<B>>& in, bool needs_values) {
  const index_t tokens = in.rewards.extent(0);
  require_given(op, "rewards", in.rewards, in.values.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "values", in.values, tokens > 0 && (needs_values || !in.next_values.given()));
  for (const auto& [name, v] : {std::pair{"values", in.values}, {"next_values", in.next_values}, {"discounts", in.discounts}, {"lambdas", in.lambdas}})
    if (v.given()) require_same_shape(op, name, v, "rewards", in.rewards);
  if (in.bootstrap.given()) require_extent(op, "bootstrap", in.bootstrap, 0, in.sequences.sequences(), "the number of sequences");
  if (in.bootstrap.given() && in.next_values.given())
    fail(message(op) << "`bootstrap` and `next_values` both say what follows the last token: give one. Nothing was written.");
  require_sequences(op, in.sequences, tokens);
}

// What follows the last scored tokens, where they are; 0 elsewhere. Not given if nothing follows. Takes two arrays.
template <class B>
struct terminal_values {
  real_view<B> last{}, value{};
  terminal_values(B& b, arena_of<B>& scratch, const const_real_view<B>& next_values, const const_real_view<B>& bootstrap,
                  const sequence_layout<space_of<B>>& layout, index_t tokens) {
    if (!next_values.given() && !bootstrap.given()) return;
    last = scratch.template take<real_of<B>>(tokens);
    value = scratch.template take<real_of<B>>(tokens);
    last_scored(b, scratch, layout, last);
    if (bootstrap.given()) b.segment_broadcast(bootstrap, layout, value, write_mode::overwrite);
    b.transform(math::keep_where{}, value, bootstrap.given() ? as_const(value) : next_values, as_const(last));
  }
};

// The value after each token: as given, or that of the next scored one. Takes two arrays and what `next_scored` takes.
template <class B>
const_real_view<B> values_after(B& b, arena_of<B>& scratch, const const_real_view<B>& values, const const_real_view<B>& next_values,
                                const terminal_values<B>& terminal, const sequence_layout<space_of<B>>& layout) {
  if (next_values.given()) return next_values;
  const index_t tokens = values.extent(0);
  const auto next = scratch.template take<real_of<B>>(tokens);
  typename arena_of<B>::frame frame(scratch);
  const auto parity = scratch.template take<real_of<B>>(tokens);
  scored_parity(b, scratch, layout, parity);
  next_scored(b, scratch, as_const(parity), values, as_const(terminal.value), layout, next);
  return next;
}

template <class B>
std::size_t trajectory_bytes(index_t tokens, int arrays) {
  workspace_size w;
  for (int i = 0; i < arrays; ++i) w.template add<real_of<B>>(tokens);
  for (int i = 0; i < 4; ++i) w.template add<real_of<B>>(1);
  return w.bytes();
}

// By the required operations only: the specification of cap::gae. Everything is checked.
template <class B>
void compose_gae(B& b, arena_of<B>& scratch, const trajectory_inputs<real_of<B>, space_of<B>>& in, const gae_options& o,
                 const gae_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t tokens = in.rewards.extent(0);
  const auto or_scratch = [&](real_view<B> v) { return v.given() ? v : scratch.template take<real>(tokens); };
  const auto advantages = or_scratch(out.advantages), returns = or_scratch(out.returns);
  const real gamma = static_cast<real>(o.gamma);
  const auto ones = constant(b, scratch, real(1), tokens);
  const auto discounts = in.discounts.given() ? in.discounts : ones, mix = in.lambdas.given() ? in.lambdas : ones;
  const auto pass = scratch.template take<real>(tokens), source = scratch.template take<real>(tokens);
  b.transform(math::scaled_product<real>{static_cast<real>(o.gamma * o.lambda)}, pass, discounts, mix);
  const terminal_values<B> terminal(b, scratch, in.next_values, in.bootstrap, in.sequences, tokens);
  // Differences first, then the scan: what is summed is as small as the advantages. (V and the return mixed by lambda recur by themselves, in one
  // scan, but taking V off again afterwards loses its digits.)
  const auto next = values_after(b, scratch, in.values, in.next_values, terminal, in.sequences);
  b.transform(math::temporal_difference<real>{gamma}, source, in.rewards, discounts, next, in.values);
  b.segment_scan(as_const(pass), as_const(source), in.sequences, advantages);
  scored_mask(b, scratch, in.sequences, pass);
  b.transform(math::sum_where{}, returns, as_const(advantages), in.values, as_const(pass));
}

template <class B>
void gae_or_composed(B& b, arena_of<B>& scratch, const trajectory_inputs<real_of<B>, space_of<B>>& in, const gae_options& o,
                     const gae_outputs<real_of<B>, space_of<B>>& out) {
  if constexpr (declares<B, cap::gae>) {
    static_assert(requires { b.gae(in, o, out); }, "plumb: this backend declares cap::gae, but gae(inputs, options, outputs) is not callable");
    b.gae(in, o, out);
  } else {
    compose_gae(b, scratch, in, o, out);
  }
}

template <class B>
void require_trajectory_arguments(const char* op, std::initializer_list<argument> outputs, const trajectory_inputs<real_of<B>, space_of<B>>& in) {
  require_arguments(op, outputs,
                    {{"rewards", in.rewards}, {"values", in.values}, {"next_values", in.next_values}, {"bootstrap", in.bootstrap},
                     {"discounts", in.discounts}, {"lambdas", in.lambdas},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
}

}  // namespace detail

/// Bytes of arena that `gae` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t gae_workspace(const B&, index_t tokens) {
  if constexpr (declares<B, cap::gae>) return 0;
  return detail::trajectory_bytes<B>(tokens, 11);
}

/// `A_t = delta_t + gamma lambda A_u`, `delta_t = r_t + gamma V_u - V_t`, `u` the next scored token (arXiv:1506.02438, eq. 16), and `returns = A + V`.
/// Enqueues and returns; nothing is allocated. Checked against verl, OpenRLHF, NeMo-Aligner, TRL, DR-PO's code and rlax.
template <class B>
  requires has_backend_types<B>
void gae(B& b, arena_of<B>& scratch, const trajectory_inputs<real_of<B>, space_of<B>>& in, const gae_options& options,
         const gae_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "gae";
  const index_t tokens = in.rewards.extent(0);
  detail::require_trajectory_arguments<B>(op, {{"advantages", out.advantages}, {"returns", out.returns}}, in);
  options.require(op);
  detail::require_trajectory<B>(op, in, true);
  if (out.advantages.given()) require_same_shape(op, "advantages", out.advantages, "rewards", in.rewards);
  if (out.returns.given()) require_same_shape(op, "returns", out.returns, "rewards", in.rewards);
  scratch.require(op, gae_workspace(b, tokens));
  detail::gae_or_composed(b, scratch, in, options, out);
}

/// What the host overload returns.
template <class T>
struct gae_result {
  std::vector<T> advantages, returns;  ///< `[N]`
};

/// Vectors in, advantages and returns out, on the serial backend.
template <detail::host_range R>
gae_result<detail::value_of<R>> gae(const R& rewards, view<const detail::value_of<R>, 1> values, const sequence_layout<>& sequences,
                                    const gae_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> r(rewards);
  require_layout("gae", sequences, r.extent(0));
  require_layout_data("gae", sequences, r.extent(0));
  gae_result<T> result{detail::zeros<T>(r.extent(0)), detail::zeros<T>(r.extent(0))};
  detail::host_call<T> call(gae_workspace(serial::backend<T>{}, r.extent(0)));
  gae(call.compute, call.scratch, {.rewards = r, .values = values, .sequences = sequences}, options,
      {.advantages = result.advantages, .returns = result.returns});
  return result;
}

/// The same sequences, read from their ends: of an array seen through `reversed`, `begin` and `end` change places. The backend scans backwards in
/// each sequence, so a scan forwards is one over reversed views; `mirrored_bounds` fills these arrays in host memory.
template <class T, class Space>
PLUMB_HD constexpr view<T, 1, Space> reversed(view<T, 1, Space> x) {
  return x.empty() ? x : view<T, 1, Space>(x.pointer + (x.extents[0] - 1) * x.strides[0], {x.extents[0]}, {-x.strides[0]});
}
/// `begin[s] = tokens - layout.end[s]`, `end[s] = tokens - layout.begin[s]`; host memory.
inline void mirrored_bounds(const sequence_layout<>& layout, index_t tokens, view<std::int32_t, 1> begin, view<std::int32_t, 1> end) {
  require_same_shape("mirrored_bounds", "begin", begin, "layout.begin", layout.begin);
  require_same_shape("mirrored_bounds", "end", end, "layout.begin", layout.begin);
  require_layout_data("mirrored_bounds", layout, tokens);
  for (index_t s = 0; s < layout.sequences(); ++s) {
    begin(s) = static_cast<std::int32_t>(tokens - layout.end(s));
    end(s) = static_cast<std::int32_t>(tokens - layout.begin(s));
  }
}

/// The gradient of a number by `gae`'s advantages, and where sequences lie from the other side.
template <class Real, class Space = host_space>
struct gae_backward_inputs {
  view<const Real, 1, Space> d_advantages{};  ///< `[N]`
  view<const Real, 1, Space> discounts{};     ///< `[N]`, as `gae` took them
  view<const Real, 1, Space> lambdas{};       ///< `[N]`, as `gae` took them
  sequence_layout<Space> sequences{};
  view<const std::int32_t, 1, Space> mirrored_begin{};  ///< `[S]`, see `mirrored_bounds`
  view<const std::int32_t, 1, Space> mirrored_end{};    ///< `[S]`
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct gae_backward_outputs {
  view<Real, 1, Space> d_rewards{};    ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> d_values{};     ///< `[N]`, likewise
  view<Real, 1, Space> d_bootstrap{};  ///< `[S]`
};

/// Bytes of arena that `gae_backward` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t gae_backward_workspace(const B&, index_t tokens) {
  return detail::trajectory_bytes<B>(tokens, 12);
}

/// The adjoint of `gae`, which is linear: the transposed scan `D_t = dA_t + gamma lambda D_p` runs forwards, `p` the scored token before, and
/// `d_rewards = D`, `d_values_t = gamma D_p - D_t`, `d_bootstrap = gamma D` of the last token. For critics that learn through their advantages; PPO
/// does not need it. (With `next_values`, `d_next_values_t` is `gamma D_t` and `d_values` is `-D`.) Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void gae_backward(B& b, arena_of<B>& scratch, const gae_backward_inputs<real_of<B>, space_of<B>>& in, const gae_options& options,
                  const gae_backward_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "gae_backward";
  const index_t tokens = in.d_advantages.extent(0);
  require_arguments(op, {{"d_rewards", out.d_rewards}, {"d_values", out.d_values}, {"d_bootstrap", out.d_bootstrap}},
                    {{"d_advantages", in.d_advantages}, {"discounts", in.discounts}, {"lambdas", in.lambdas}, {"begin", in.sequences.begin},
                     {"end", in.sequences.end}, {"scored", in.sequences.scored}, {"mirrored_begin", in.mirrored_begin},
                     {"mirrored_end", in.mirrored_end}});
  const trajectory_inputs<real, space_of<B>> as_forward{.rewards = in.d_advantages, .values = in.d_advantages, .discounts = in.discounts,
                                                        .lambdas = in.lambdas, .sequences = in.sequences};
  require_given(op, "d_advantages", in.d_advantages, in.sequences.scored.extent(0) > 0);
  options.require(op);
  detail::require_trajectory<B>(op, as_forward, true);
  require_same_shape(op, "mirrored_begin", in.mirrored_begin, "begin", in.sequences.begin);
  require_same_shape(op, "mirrored_end", in.mirrored_end, "begin", in.sequences.begin);
  const sequence_layout<space_of<B>> mirrored{in.mirrored_begin, in.mirrored_end, reversed(in.sequences.scored)};
  require_layout(op, mirrored, tokens);
  if (out.d_rewards.given()) require_same_shape(op, "d_rewards", out.d_rewards, "d_advantages", in.d_advantages);
  if (out.d_values.given()) require_same_shape(op, "d_values", out.d_values, "d_advantages", in.d_advantages);
  if (out.d_bootstrap.given()) require_extent(op, "d_bootstrap", out.d_bootstrap, 0, in.sequences.sequences(), "the number of sequences");
  scratch.require(op, gae_backward_workspace(b, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto array = [&] { return scratch.template take<real>(tokens); };
  const auto ones = detail::constant(b, scratch, real(1), tokens);
  const auto discounts = in.discounts.given() ? in.discounts : ones, mix = in.lambdas.given() ? in.lambdas : ones;
  const auto parity = array(), pass = array(), pass_before = array(), d = array(), carried = array(), carried_before = array();
  const const_real_view<B> nothing;
  const auto before = [&](real_view<B> x, real_view<B> y) {  // y[t] = x[p]
    detail::next_scored(b, scratch, as_const(reversed(parity)), as_const(reversed(x)), nothing, mirrored, reversed(y));
  };
  detail::scored_parity(b, scratch, mirrored, reversed(parity));
  b.transform(math::scaled_product<real>{static_cast<real>(options.gamma * options.lambda)}, pass, discounts, mix);
  before(pass, pass_before);
  b.segment_scan(as_const(reversed(pass_before)), reversed(in.d_advantages), mirrored, reversed(d));
  b.transform(math::scaled_product<real>{static_cast<real>(options.gamma)}, carried, as_const(d), discounts);
  if (out.d_rewards.given()) b.copy(as_const(d), out.d_rewards);
  if (out.d_values.given()) {
    before(carried, carried_before);
    detail::scored_mask(b, scratch, in.sequences, parity);
    b.transform(math::difference_where{}, out.d_values, as_const(carried_before), as_const(d), as_const(parity));
  }
  if (out.d_bootstrap.given()) {
    detail::last_scored(b, scratch, in.sequences, parity);
    b.transform(math::keep_where{}, carried, as_const(carried), as_const(parity));
    b.segment_reduce(reduction::sum, as_const(carried), in.sequences, out.d_bootstrap);
  }
}

PLUMB_NAMESPACE_END

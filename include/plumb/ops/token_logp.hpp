#pragma once
// Log-probabilities of tokens, log-sum-exp and entropy from rows of logits, and the way back.

#include <plumb/compute/backend.hpp>
#include <plumb/compute/fused.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/token_logp.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

namespace detail {

// Mapped logits and entropy terms go through scratch a few rows at a time: enough to keep a device busy, small beside the logits.
inline index_t token_logp_rows(index_t rows, index_t vocabulary) {
  const index_t fit = (index_t{1} << 20) / (vocabulary > 0 ? vocabulary : 1);
  const index_t most = fit < 16 ? 16 : fit;
  return rows < most ? rows : most;
}
inline bool maps_nothing(const token_logp_options& o) {
  return o.temperature == 1 && o.softcap == 0 && o.logit_scale == 1;
}

template <class V, class Name>
void require_token_vector(const char* operation, Name name, const V& v, index_t rows) {
  if (v.given()) require_extent(operation, name, v, 0, rows, "one per row");
}

// Forward by the required operations only: the specification of cap::token_logp.
template <class B, class S>
void compose_token_logp(B& b, arena_of<B>& scratch, const token_logp_inputs<S, space_of<B>>& in,
                        const token_logp_options& options, const token_logp_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  const index_t n = in.logits.extent(0), v = in.logits.extent(1);
  typename arena_of<B>::frame frame(scratch);
  const auto lse = out.log_sum_exp.given() ? out.log_sum_exp : scratch.template take<real>(n);
  const bool direct = maps_nothing(options);
  if (direct && !out.entropy.given()) {
    b.row_log_sum_exp(in.logits, lse);
    if (out.logp.given()) b.row_pick(in.logits, in.targets, out.logp);
  } else {
    const auto map = math::logit_map<real>::from(options);
    const index_t most = token_logp_rows(n, v);
    const auto buffer = scratch.template take<real>(most, v);
    for (index_t first = 0; first < n; first += most) {
      const index_t count = n - first < most ? n - first : most;
      const auto u = buffer.slice(0, count);
      b.transform(map, u, in.logits.slice(first, count));
      b.row_log_sum_exp(as_const(u), lse.slice(first, count));
      if (out.logp.given()) b.row_pick(as_const(u), in.targets.slice(first, count), out.logp.slice(first, count));
      if (out.entropy.given()) {
        b.transform(math::entropy_term{}, u, as_const(u), broadcast_columns(as_const(lse.slice(first, count)), v));
        b.reduce(reduction::sum, as_const(u), as_column(out.entropy.slice(first, count)), write_mode::overwrite);
      }
    }
  }
  if (out.logp.given()) {
    b.transform(math::minus{}, out.logp, as_const(out.logp), as_const(lse));
    b.transform(math::coefficient_where_scored{}, out.logp, as_const(out.logp), in.targets);
  }
}

template <class B, class S>
void compose_token_logp_grad(B& b, arena_of<B>& scratch, const token_logp_inputs<S, space_of<B>>& in,
                             const token_logp_options& options,
                             const token_logp_gradients<real_of<B>, space_of<B>>& grad,
                             view<S, 2, space_of<B>> d_logits) {
  using real = real_of<B>;
  const index_t n = in.logits.extent(0), v = in.logits.extent(1);
  typename arena_of<B>::frame frame(scratch);
  const auto coefficient = scratch.template take<real>(n);
  const auto picked = scratch.template take<real>(n);
  const auto at_target = scratch.template take<real>(n);
  const auto first = scratch.template take<real>(n);
  const auto second = scratch.template take<real>(n);
  const auto map = math::logit_map<real>::from(options);
  // Where the gradient is stored in 16 bits, the target's entry is put together before it is rounded: near probability 1 its two parts cancel.
  constexpr bool narrow = !std::is_same_v<S, real>;

  if (grad.d_logp.given()) {
    b.transform(math::coefficient_where_scored{}, coefficient, grad.d_logp, in.targets);
    // The target's own slope, before an in-place gradient overwrites its logit.
    b.row_pick(in.logits, in.targets, picked);
    b.transform(math::logit_slope<real>{map}, at_target, as_const(picked));
    b.transform(math::times{}, at_target, as_const(at_target), as_const(coefficient));
    b.transform(math::coefficient_where_scored{}, at_target, as_const(at_target), in.targets);
  } else {
    b.fill(coefficient, real(0));
  }
  if (grad.d_entropy.given()) {
    b.transform2(math::row_coefficients{}, first, second, as_const(coefficient), grad.d_entropy, grad.entropy);
  } else {
    b.transform(math::scale<real>{real(-1)}, first, as_const(coefficient));
    b.fill(second, real(0));
  }
  const math::softmax_part<real> softmax{map};
  if (narrow && grad.d_logp.given()) {
    b.transform(softmax, picked, as_const(picked), grad.log_sum_exp, as_const(first), as_const(second));
    b.transform(math::plus{}, at_target, as_const(at_target), as_const(picked));
  }
  b.transform(softmax, d_logits, in.logits, broadcast_columns(grad.log_sum_exp, v), broadcast_columns(as_const(first), v),
              broadcast_columns(as_const(second), v));
  if (!grad.d_logp.given()) return;
  if (narrow) {  // to exactly 0
    b.row_pick(as_const(d_logits), in.targets, picked);
    b.transform(math::negate{}, picked, as_const(picked));
    b.row_add_at(as_const(picked), in.targets, d_logits);
  }
  b.row_add_at(as_const(at_target), in.targets, d_logits);
}

}  // namespace detail

/// Bytes of arena that `token_logp` takes for logits `[rows, vocabulary]`.
template <class B>
std::size_t token_logp_workspace(const B&, index_t rows, index_t vocabulary) {
  if constexpr (declares<B, cap::token_logp>) return 0;
  return workspace_size()
      .template add<real_of<B>>(rows)
      .template add<real_of<B>>(detail::token_logp_rows(rows, vocabulary) * vocabulary)
      .bytes();
}

/// `logp[i] = u[i, target[i]] - log_sum_exp(u[i, :])` with `u` the logits after `options`; log-sum-exp and entropy on demand.
///
/// The log-probability is never `log(softmax)`: a far-off target keeps its value. Accumulates in `real`, whatever the logits are
/// stored in. Throws `precondition_error` before anything is written.
template <class B, class S = real_of<B>>
void token_logp(B& b, arena_of<B>& scratch, const token_logp_inputs<S, space_of<B>>& in,
                const token_logp_options& options, const token_logp_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "token_logp";
  const index_t n = in.logits.extent(0);
  options.require(op);
  require_arguments(op, {{"logp", out.logp}, {"log_sum_exp", out.log_sum_exp}, {"entropy", out.entropy}},
                    {{"logits", in.logits}, {"targets", in.targets}});
  require_given(op, "logits", in.logits, in.targets.given());
  require_given(op, "targets", in.targets, out.logp.given() && n > 0);
  if (out.logp.given() || in.targets.given()) require_extent(op, "targets", in.targets, 0, n, "one per row of `logits`");
  require_ids(op, "targets", in.targets, in.logits.extent(1), true);
  detail::require_token_vector(op, "logp", out.logp, n);
  detail::require_token_vector(op, "log_sum_exp", out.log_sum_exp, n);
  detail::require_token_vector(op, "entropy", out.entropy, n);
  if constexpr (declares<B, cap::token_logp>) {
    static_assert(requires { b.token_logp(in, options, out); },
                  "plumb: this backend declares cap::token_logp, but token_logp(inputs, options, outputs) is not callable");
    b.token_logp(in, options, out);
  } else {
    scratch.require(op, token_logp_workspace(b, n, in.logits.extent(1)));
    detail::compose_token_logp(b, scratch, in, options, out);
  }
}

/// Bytes of arena that `token_logp_backward` takes.
template <class B>
std::size_t token_logp_backward_workspace(const B&, index_t rows) {
  if constexpr (declares<B, cap::token_logp_grad>) return 0;
  workspace_size w;
  for (int i = 0; i < 5; ++i) w.template add<real_of<B>>(rows);
  return w.bytes();
}

/// `d_logits = d_logp (onehot - softmax) du/dx`, plus the entropy's term where `d_entropy` is given. Overwrites `d_logits`, which may be
/// `logits` itself. Rows whose target is negative get nothing from `d_logp`; a row without any coefficient gets exactly 0.
template <class B, class S = real_of<B>>
void token_logp_backward(B& b, arena_of<B>& scratch, const token_logp_inputs<S, space_of<B>>& in,
                         const token_logp_options& options,
                         const token_logp_gradients<real_of<B>, space_of<B>>& grad,
                         std::type_identity_t<view<S, 2, space_of<B>>> d_logits) {
  static_assert(check_backend<B>());
  constexpr const char* op = "token_logp_backward";
  const index_t n = in.logits.extent(0);
  options.require(op);
  const argument gradient("d_logits", d_logits), logits("logits", in.logits);
  require_arguments(op, {gradient},
                    {{"targets", in.targets}, {"log_sum_exp", grad.log_sum_exp}, {"d_logp", grad.d_logp}, {"entropy", grad.entropy},
                     {"d_entropy", grad.d_entropy}});
  require_arguments(op, {}, {logits});
  if (!gradient.same_as(logits)) require_disjoint(op, gradient, logits);
  require_given(op, "logits", in.logits, in.targets.given() || d_logits.given());
  require_given(op, "d_logits", d_logits, n > 0);
  require_given(op, "log_sum_exp", grad.log_sum_exp, n > 0);
  require_same_shape(op, "d_logits", d_logits, "logits", in.logits);
  require_extent(op, "log_sum_exp", grad.log_sum_exp, 0, n, "one per row, from the forward pass");
  if (grad.d_logp.given() || in.targets.given())
    require_extent(op, "targets", in.targets, 0, n, "one per row of `logits`");
  require_ids(op, "targets", in.targets, in.logits.extent(1), true);
  detail::require_token_vector(op, "d_logp", grad.d_logp, n);
  detail::require_token_vector(op, "d_entropy", grad.d_entropy, n);
  if (grad.d_entropy.given()) require_extent(op, "entropy", grad.entropy, 0, n, "one per row, from the forward pass");
  if constexpr (declares<B, cap::token_logp_grad>) {
    static_assert(requires { b.token_logp_grad(in, options, grad, d_logits); },
                  "plumb: this backend declares cap::token_logp_grad, but token_logp_grad(inputs, options, gradients, "
                  "d_logits) is not callable");
    b.token_logp_grad(in, options, grad, d_logits);
  } else {
    scratch.require(op, token_logp_backward_workspace(b, n));
    detail::compose_token_logp_grad(b, scratch, in, options, grad, d_logits);
  }
}

/// What the host overload returns.
template <class T>
struct token_logp_result {
  std::vector<T> logp, log_sum_exp, entropy;  ///< `[N]`, one per row
};

/// Rows of logits of `vocabulary` columns and a target for each; log-probabilities out, on the serial backend.
template <detail::host_range R>
token_logp_result<detail::value_of<R>> token_logp(const R& logits, view<const std::int32_t, 1> targets, index_t vocabulary,
                                                  const token_logp_options& options = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "token_logp";
  const auto rows = detail::host_rows(op, "logits", view<const T, 1>(logits), vocabulary, "tokens of the vocabulary");
  const index_t n = rows.extent(0);
  require_extent(op, "targets", targets, 0, n, "one per row of `logits`");
  require_id_data(op, "targets", targets, vocabulary, true);
  token_logp_result<T> r{detail::zeros<T>(n), detail::zeros<T>(n), detail::zeros<T>(n)};
  detail::host_call<T> call(token_logp_workspace(serial::backend<T>{}, n, vocabulary));
  token_logp(call.compute, call.scratch, token_logp_inputs<T>{rows, targets}, options,
             {.logp = r.logp, .log_sum_exp = r.log_sum_exp, .entropy = r.entropy});
  return r;
}

PLUMB_NAMESPACE_END

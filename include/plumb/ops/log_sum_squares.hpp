#pragma once
// The sum of squared probabilities of each row of logits, as a logarithm: how sharply a model speaks, whatever it says.

#include <plumb/math/log_sum_squares.hpp>
#include <plumb/ops/token_logp.hpp>

PLUMB_NAMESPACE_BEGIN

/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct log_sum_squares_outputs {
  view<Real, 1, Space> log_sum_squares{};  ///< `[N]`, `log sum_v p_v^2`; its exponential is the sum itself
  view<Real, 1, Space> log_sum_exp{};      ///< `[N]`, of `u`; the backward pass asks for it
  view<Real, 1, Space> log_sum_exp_twice{};  ///< `[N]`, of `2u`; likewise
};

/// What the backward pass starts from.
template <class Real, class Space = host_space>
struct log_sum_squares_gradients {
  view<const Real, 1, Space> log_sum_exp{};        ///< `[N]`, from the forward pass
  view<const Real, 1, Space> log_sum_exp_twice{};  ///< `[N]`, likewise
  view<const Real, 1, Space> d_log_sum_squares{};  ///< `[N]`
};

/// Bytes of arena that `log_sum_squares` takes for logits `[rows, vocabulary]`.
template <class B>
std::size_t log_sum_squares_workspace(const B&, index_t rows, index_t vocabulary) {
  using real = real_of<B>;
  return workspace_size()
      .template add<real>(rows)
      .template add<real>(rows)
      .template add<real>(detail::token_logp_rows(rows, vocabulary) * vocabulary)
      .bytes();
}

/// `log_sum_squares[i] = lse(2 u[i, :]) - 2 lse(u[i, :])` with `u` the logits `[N, V]` after `options`. What WPO aligns its weights with
/// (arXiv:2406.11827), and the optimal token baseline needs. Checked against verl `calculate_sum_pi_squared_from_logits`. Enqueues and returns.
template <class B, class S>
void log_sum_squares(B& b, arena_of<B>& scratch, view<const S, 2, space_of<B>> logits, const token_logp_options& options,
                     const log_sum_squares_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "log_sum_squares";
  const index_t n = logits.extent(0), v = logits.extent(1);
  options.require(op);
  require_arguments(op, {{"log_sum_squares", out.log_sum_squares}, {"log_sum_exp", out.log_sum_exp}, {"log_sum_exp_twice", out.log_sum_exp_twice}},
                    {{"logits", logits}});
  require_given(op, "logits", logits, out.log_sum_squares.given());
  detail::require_token_vector(op, "log_sum_squares", out.log_sum_squares, n);
  detail::require_token_vector(op, "log_sum_exp", out.log_sum_exp, n);
  detail::require_token_vector(op, "log_sum_exp_twice", out.log_sum_exp_twice, n);
  scratch.require(op, log_sum_squares_workspace(b, n, v));
  typename arena_of<B>::frame frame(scratch);
  const auto once = out.log_sum_exp.given() ? out.log_sum_exp : scratch.template take<real>(n);
  const auto twice = out.log_sum_exp_twice.given() ? out.log_sum_exp_twice : scratch.template take<real>(n);
  const index_t most = detail::token_logp_rows(n, v);
  const auto buffer = scratch.template take<real>(most, v);
  const auto map = math::logit_map<real>::from(options);
  for (index_t first = 0; first < n; first += most) {
    const index_t count = n - first < most ? n - first : most;
    const auto u = buffer.slice(0, count);
    b.transform(map, u, logits.slice(first, count));
    b.row_log_sum_exp(as_const(u), once.slice(first, count));
    b.transform(math::scale<real>{real(2)}, u, as_const(u));
    b.row_log_sum_exp(as_const(u), twice.slice(first, count));
  }
  if (out.log_sum_squares.given()) b.transform(math::add_scaled<real>{real(-2)}, out.log_sum_squares, as_const(twice), as_const(once));
}

/// `d_logits[i, j] = 2 d (q_j - p_j) du/dx` with `p` the softmax of `u` and `q` that of `2u`. Overwrites `d_logits`, which may be `logits`
/// itself; a row with `d` 0 gets exactly 0.
template <class B, class S>
void log_sum_squares_backward(B& b, view<const S, 2, space_of<B>> logits, const token_logp_options& options,
                              const log_sum_squares_gradients<real_of<B>, space_of<B>>& grad,
                              std::type_identity_t<view<S, 2, space_of<B>>> d_logits) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "log_sum_squares_backward";
  const index_t n = logits.extent(0), v = logits.extent(1);
  options.require(op);
  const argument gradient("d_logits", d_logits), from("logits", logits);
  require_arguments(
      op, {gradient},
      {{"log_sum_exp", grad.log_sum_exp}, {"log_sum_exp_twice", grad.log_sum_exp_twice}, {"d_log_sum_squares", grad.d_log_sum_squares}});
  require_arguments(op, {}, {from});
  if (!gradient.same_as(from)) require_disjoint(op, gradient, from);
  require_given(op, "logits", logits, d_logits.given());
  require_given(op, "d_logits", d_logits, n > 0);
  require_given(op, "log_sum_exp", grad.log_sum_exp, n > 0);
  require_given(op, "log_sum_exp_twice", grad.log_sum_exp_twice, n > 0);
  require_given(op, "d_log_sum_squares", grad.d_log_sum_squares, n > 0);
  require_same_shape(op, "d_logits", d_logits, "logits", logits);
  require_extent(op, "log_sum_exp", grad.log_sum_exp, 0, n, "one per row, from the forward pass");
  require_extent(op, "log_sum_exp_twice", grad.log_sum_exp_twice, 0, n, "one per row, from the forward pass");
  require_extent(op, "d_log_sum_squares", grad.d_log_sum_squares, 0, n, "one per row");
  b.transform(math::sum_squares_slope<real>{math::logit_map<real>::from(options)}, d_logits, logits, broadcast_columns(grad.log_sum_exp, v),
              broadcast_columns(grad.log_sum_exp_twice, v), broadcast_columns(grad.d_log_sum_squares, v));
}

/// Rows of logits of `vocabulary` columns in, `log sum_v p_v^2` of each out, on the serial backend.
template <detail::host_range R>
std::vector<detail::value_of<R>> log_sum_squares(const R& logits, index_t vocabulary, const token_logp_options& options = {}) {
  using T = detail::value_of<R>;
  const auto rows = detail::host_rows("log_sum_squares", "logits", view<const T, 1>(logits), vocabulary, "tokens of the vocabulary");
  auto y = detail::zeros<T>(rows.extent(0));
  detail::host_call<T> call(log_sum_squares_workspace(serial::backend<T>{}, rows.extent(0), vocabulary));
  log_sum_squares(call.compute, call.scratch, rows, options, {.log_sum_squares = y});
  return y;
}

PLUMB_NAMESPACE_END

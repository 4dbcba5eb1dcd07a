#pragma once
// Log-probabilities straight from hidden states and the output head, a chunk of rows at a time: `[N, V]` never exists.

#include <plumb/ops/token_logp.hpp>

PLUMB_NAMESPACE_BEGIN

/// Hidden states `[N, D]` and head `[V, D]` in storage type `S`, and the tokens to score.
///
/// Only scored tokens are named, so that no logits are computed for prompts and padding: entry `i` of `targets`, and of every token
/// array below, is a scored token, and `rows[i]` is the row of `hidden` that predicts it (the row of the token before it). Then the
/// sequence layout over these arrays is packed and needs no mask. `scored_tokens` of core/scored.hpp makes `rows` from a mask.
template <class S, class Space = host_space>
struct linear_token_logp_inputs {
  view<const S, 2, Space> hidden{};              ///< `[N, D]`
  view<const S, 2, Space> head{};                ///< `[V, D]`
  view<const S, 1, Space> bias{};                ///< `[V]`, or not given
  view<const std::int32_t, 1, Space> targets{};  ///< `[M]`, in `0 .. V`; negative: ignored
  view<const std::int32_t, 1, Space> rows{};     ///< `[M]`, in `0 .. N`; not given: row `i` predicts token `i`, and M = N
};

/// Options of `linear_token_logp`.
struct linear_token_logp_options {
  token_logp_options logits{};
  std::int64_t chunk_rows = 0;  ///< rows whose logits exist at once; 0: chosen from V

  void require(const char* op) const {
    logits.require(op);
    require_option(op, "chunk_rows", static_cast<double>(chunk_rows), chunk_rows >= 0, "0 (chosen) or positive");
  }
};

/// Gradients that are not given are not computed. `d_hidden` rows of tokens not scored are 0.
template <class S, class Real, class Space = host_space>
struct linear_token_logp_outputs {
  view<S, 2, Space> d_hidden{};    ///< `[N, D]`
  view<Real, 2, Space> d_head{};   ///< `[V, D]`
  view<Real, 1, Space> d_bias{};   ///< `[V]`
  write_mode mode = write_mode::overwrite;   ///< `write_mode::add` adds to what is there, for micro-batches
};

namespace detail {

inline index_t linear_chunk(index_t tokens, index_t vocabulary, std::int64_t asked) {
  if (asked > 0) return tokens < asked ? tokens : asked;
  // About 16 MB of logits: large enough for the gemm, small enough to stay near the processor.
  const index_t fit = (index_t{1} << 22) / (vocabulary > 0 ? vocabulary : 1);
  const index_t most = fit < 16 ? 16 : fit > 512 ? 512 : fit;
  return tokens < most ? tokens : most;
}

template <class S, class Space>
index_t require_linear(const char* op, const linear_token_logp_inputs<S, Space>& in,
                       const linear_token_logp_options& options) {
  options.require(op);
  require_given(op, "hidden", in.hidden, in.targets.given());
  require_given(op, "head", in.head, in.targets.given());
  require_given(op, "targets", in.targets, in.rows.given());
  require_extent(op, "head", in.head, 1, in.hidden.extent(1), "columns of `hidden`");
  if (in.bias.given()) require_extent(op, "bias", in.bias, 0, in.head.extent(0), "rows of `head`");
  const index_t tokens = in.rows.given() ? in.rows.extent(0) : in.hidden.extent(0);
  require_extent(op, "targets", in.targets, 0, tokens, in.rows.given() ? "one per entry of `rows`" : "rows of `hidden`");
  require_ids(op, "targets", in.targets, in.head.extent(0), true);
  require_ids(op, "rows", in.rows, in.hidden.extent(0), false);
  return tokens;
}

// The hidden rows of one chunk: a slice, or gathered into scratch.
template <class B, class S>
view<const S, 2, space_of<B>> chunk_hidden(B& b, arena_of<B>& scratch,
                                           const linear_token_logp_inputs<S, space_of<B>>& in, index_t first,
                                           index_t count) {
  if (!in.rows.given()) return in.hidden.slice(first, count);
  const auto h = scratch.template take<S>(count, in.hidden.extent(1));
  b.row_gather(in.hidden, in.rows.slice(first, count), h);
  return h;
}

template <class B, class S>
void chunk_logits(B& b, arena_of<B>& scratch, const linear_token_logp_inputs<S, space_of<B>>& in,
                  view<const S, 2, space_of<B>> hidden, view<real_of<B>, 2, space_of<B>> logits) {
  b.gemm(scratch, real_of<B>(1), hidden, in.head.transposed(), real_of<B>(0), logits);
  if (in.bias.given())
    b.transform(math::plus{}, logits, as_const(logits), broadcast_rows(in.bias, logits.extent(0)));
}

}  // namespace detail

/// Bytes of arena that `linear_token_logp` takes; looks at shapes only, `in` may lack memory.
template <class B, class S = real_of<B>>
std::size_t linear_token_logp_workspace(B& b, const linear_token_logp_inputs<S, space_of<B>>& in,
                                        const linear_token_logp_options& options = {}) {
  using real = real_of<B>;
  const index_t v = in.head.extent(0), d = in.head.extent(1);
  const index_t chunk = detail::linear_chunk(in.targets.extent(0), v, options.chunk_rows);
  const view<const S, 2, space_of<B>> h(nullptr, chunk, d);
  const view<real, 2, space_of<B>> logits(nullptr, chunk, v);
  const std::size_t gemm = b.gemm_workspace(h, in.head.transposed(), logits);
  const std::size_t rows = token_logp_workspace(b, chunk, v);
  return workspace_size()
      .template add<real>(chunk * v)
      .template add<S>(in.rows.given() ? chunk * d : 0)
      .add_bytes(gemm > rows ? gemm : rows)
      .bytes();
}

/// `logp[i]` of each scored token from `hidden`, `head` and `bias`; log-sum-exp and entropy on demand. Logits exist for `chunk_rows` rows
/// at a time, in `real`, in the arena.
template <class B, class S = real_of<B>>
void linear_token_logp(B& b, arena_of<B>& scratch, const linear_token_logp_inputs<S, space_of<B>>& in,
                       const linear_token_logp_options& options,
                       const token_logp_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "linear_token_logp";
  require_arguments(op, {{"logp", out.logp}, {"log_sum_exp", out.log_sum_exp}, {"entropy", out.entropy}},
                    {{"hidden", in.hidden}, {"head", in.head}, {"bias", in.bias}, {"targets", in.targets}, {"rows", in.rows}});
  const index_t tokens = detail::require_linear(op, in, options);
  detail::require_token_vector(op, "logp", out.logp, tokens);
  detail::require_token_vector(op, "log_sum_exp", out.log_sum_exp, tokens);
  detail::require_token_vector(op, "entropy", out.entropy, tokens);
  scratch.require(op, linear_token_logp_workspace(b, in, options));
  typename arena_of<B>::frame frame(scratch);
  const index_t v = in.head.extent(0);
  const index_t most = detail::linear_chunk(tokens, v, options.chunk_rows);
  const auto buffer = scratch.template take<real>(most, v);
  for (index_t first = 0; first < tokens; first += most) {
    typename arena_of<B>::frame chunk(scratch);
    const index_t count = tokens - first < most ? tokens - first : most;
    const auto logits = buffer.slice(0, count);
    detail::chunk_logits(b, scratch, in, detail::chunk_hidden(b, scratch, in, first, count), logits);
    const auto part = [&](auto x) { return x.given() ? x.slice(first, count) : x; };
    token_logp(b, scratch, token_logp_inputs<real, space_of<B>>{logits, in.targets.slice(first, count)}, options.logits,
               {part(out.logp), part(out.log_sum_exp), part(out.entropy)});
  }
}

/// Bytes of arena that `linear_token_logp_backward` takes.
template <class B, class S = real_of<B>>
std::size_t linear_token_logp_backward_workspace(B& b, const linear_token_logp_inputs<S, space_of<B>>& in,
                                                 const linear_token_logp_options& options = {}) {
  using real = real_of<B>;
  constexpr bool narrow = !std::is_same_v<S, real>;
  const index_t v = in.head.extent(0), d = in.head.extent(1);
  const index_t chunk = detail::linear_chunk(in.targets.extent(0), v, options.chunk_rows);
  const view<const S, 2, space_of<B>> h(nullptr, chunk, d), g(nullptr, chunk, v);
  const view<real, 2, space_of<B>> logits(nullptr, chunk, v), d_h(nullptr, chunk, d), d_w(nullptr, v, d);
  std::size_t inner = b.gemm_workspace(h, in.head.transposed(), logits);
  for (const std::size_t bytes : {b.gemm_workspace(g, in.head, d_h), b.gemm_workspace(g.transposed(), h, d_w),
                                  token_logp_backward_workspace(b, chunk)})
    if (bytes > inner) inner = bytes;
  return workspace_size()
      .template add<real>(chunk * v)
      .template add<S>(narrow ? chunk * v : 0)
      .template add<real>(chunk * d)
      .template add<S>(in.rows.given() ? chunk * d : 0)
      .add_bytes(inner)
      .bytes();
}

/// Gradients to `hidden`, `head` and `bias` from `dL/dlogp` (and `dL/dentropy`): the chunk's logits are computed again, turned into
/// gradients in place, and multiplied. With 16-bit storage the gradient of the logits is rounded to it before the products, as
/// the usual mixed-precision training does; `d_head` accumulates in `real`.
template <class B, class S = real_of<B>>
void linear_token_logp_backward(B& b, arena_of<B>& scratch, const linear_token_logp_inputs<S, space_of<B>>& in,
                                const linear_token_logp_options& options,
                                const token_logp_gradients<real_of<B>, space_of<B>>& grad,
                                const std::type_identity_t<linear_token_logp_outputs<S, real_of<B>, space_of<B>>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "linear_token_logp_backward";
  require_arguments(op, {{"d_hidden", out.d_hidden}, {"d_head", out.d_head}, {"d_bias", out.d_bias}},
                    {{"hidden", in.hidden}, {"head", in.head}, {"bias", in.bias}, {"targets", in.targets}, {"rows", in.rows},
                     {"log_sum_exp", grad.log_sum_exp}, {"d_logp", grad.d_logp}, {"entropy", grad.entropy}, {"d_entropy", grad.d_entropy}});
  const index_t tokens = detail::require_linear(op, in, options);
  require_given(op, "log_sum_exp", grad.log_sum_exp, tokens > 0);
  require_given(op, "entropy", grad.entropy, grad.d_entropy.given());
  require_extent(op, "log_sum_exp", grad.log_sum_exp, 0, tokens, "one per scored token, from the forward pass");
  detail::require_token_vector(op, "d_logp", grad.d_logp, tokens);
  detail::require_token_vector(op, "d_entropy", grad.d_entropy, tokens);
  if (grad.d_entropy.given()) require_extent(op, "entropy", grad.entropy, 0, tokens, "one per scored token");
  if (out.d_hidden.given()) require_same_shape(op, "d_hidden", out.d_hidden, "hidden", in.hidden);
  if (out.d_head.given()) require_same_shape(op, "d_head", out.d_head, "head", in.head);
  if (out.d_bias.given()) require_extent(op, "d_bias", out.d_bias, 0, in.head.extent(0), "rows of `head`");

  scratch.require(op, linear_token_logp_backward_workspace(b, in, options));
  typename arena_of<B>::frame frame(scratch);
  const index_t v = in.head.extent(0), d = in.head.extent(1);
  const index_t most = detail::linear_chunk(tokens, v, options.chunk_rows);
  const auto buffer = scratch.template take<real>(most, v);
  const auto d_rows = scratch.template take<real>(most, d);
  if (out.mode == write_mode::overwrite) {
    if (out.d_hidden.given()) b.fill(out.d_hidden, real(0));
    if (out.d_head.given()) b.fill(out.d_head, real(0));
    if (out.d_bias.given()) b.fill(out.d_bias, real(0));
  }
  for (index_t first = 0; first < tokens; first += most) {
    typename arena_of<B>::frame chunk(scratch);
    const index_t count = tokens - first < most ? tokens - first : most;
    const auto logits = buffer.slice(0, count);
    const auto hidden = detail::chunk_hidden(b, scratch, in, first, count);
    detail::chunk_logits(b, scratch, in, hidden, logits);
    const auto part = [&](auto x) { return x.given() ? x.slice(first, count) : x; };
    token_logp_backward(b, scratch, token_logp_inputs<real, space_of<B>>{logits, in.targets.slice(first, count)},
                        options.logits,
                        {part(grad.log_sum_exp), part(grad.d_logp), part(grad.entropy), part(grad.d_entropy)}, logits);
    if (out.d_bias.given()) b.reduce(reduction::sum, as_const(logits), as_row(out.d_bias), write_mode::add);

    view<const S, 2, space_of<B>> g;
    if constexpr (std::is_same_v<S, real>) {
      g = logits;
    } else {
      const auto narrow = scratch.template take<S>(count, v);
      b.copy(as_const(logits), narrow);
      g = narrow;
    }
    if (out.d_head.given()) b.gemm(scratch, real(1), g.transposed(), hidden, real(1), out.d_head);
    if (!out.d_hidden.given()) continue;
    const auto d_h = d_rows.slice(0, count);
    b.gemm(scratch, real(1), g, in.head, real(0), d_h);
    if (in.rows.given()) {
      b.row_scatter_add(as_const(d_h), in.rows.slice(first, count), out.d_hidden);
    } else {
      const auto target = out.d_hidden.slice(first, count);
      b.transform(math::plus{}, target, as_const(target), as_const(d_h));
    }
  }
}

/// Hidden states and head, row by row of `width` numbers, and a target for each hidden state; log-probabilities out, on the serial backend.
template <detail::host_range R>
token_logp_result<detail::value_of<R>> linear_token_logp(const R& hidden, view<const detail::value_of<R>, 1> head, view<const std::int32_t, 1> targets,
                                                         index_t width, const linear_token_logp_options& options = {},
                                                         view<const detail::value_of<R>, 1> bias = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "linear_token_logp";
  const linear_token_logp_inputs<T> in{.hidden = detail::host_rows(op, "hidden", view<const T, 1>(hidden), width, "numbers a row"),
                                       .head = detail::host_rows(op, "head", head, width, "numbers a row"),
                                       .bias = bias,
                                       .targets = targets,
                                       .rows = {}};
  const index_t n = in.hidden.extent(0);
  require_extent(op, "targets", targets, 0, n, "rows of `hidden`");
  require_id_data(op, "targets", targets, in.head.extent(0), true);
  options.require(op);
  token_logp_result<T> r{detail::zeros<T>(n), detail::zeros<T>(n), detail::zeros<T>(n)};
  serial::backend<T> compute;
  detail::host_call<T> call(linear_token_logp_workspace(compute, in, options));
  linear_token_logp(call.compute, call.scratch, in, options, {.logp = r.logp, .log_sum_exp = r.log_sum_exp, .entropy = r.entropy});
  return r;
}

PLUMB_NAMESPACE_END

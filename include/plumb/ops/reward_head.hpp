#pragma once
// From hidden states to rewards: the head of reward models and critics, forward and back.

#include <plumb/math/attribute_regression.hpp>
#include <plumb/math/reward_head.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/linear_token_logp.hpp>

PLUMB_NAMESPACE_BEGIN

/// Hidden states `[N, D]` and a head of `K` outputs, in storage type `S`.
///
/// - Reward of the last token: `rows` from `last_scored_rows`, no `sequences`.
/// - Mean over each sequence's tokens: `sequences` over the rows; tokens it leaves out contribute nothing, whatever they hold.
/// - A value per token, as a critic gives: `rows` from `scored_tokens` (the row before each scored token) or none for all; no `sequences`.
template <class S, class Real, class Space = host_space>
struct reward_head_inputs {
  view<const S, 2, Space> hidden{};               ///< `[N, D]`
  view<const S, 2, Space> head{};                 ///< `[K, D]`
  view<const S, 1, Space> bias{};                 ///< `[K]`, or not given
  view<const std::int32_t, 1, Space> rows{};      ///< `[M]`, in `0 .. N`; not given: all, and M = N. Negative (only without `sequences`): outputs 0
  sequence_layout<Space> sequences{};             ///< over the `M` rows; given: the outputs are means over each sequence
  view<const Real, 1, Space> attribute_weights{};  ///< `[K]`, what each output counts for in `reward`; not given: K must be 1 for `reward`
};

/// Options of `reward_head`.
struct reward_head_options {
  double mean = 0;                ///< subtracted from the merged reward
  double standard_deviation = 1;  ///< divides it; positive
  std::int64_t chunk_rows = 0;    ///< hidden rows that are copied at once; 0: chosen from D

  void require(const char* op) const {
    require_option(op, "mean", mean, true, "the mean of the merged reward");
    require_option(op, "standard_deviation", standard_deviation, standard_deviation > 0, "positive");
    require_option(op, "chunk_rows", static_cast<double>(chunk_rows), chunk_rows >= 0, "0 (chosen) or positive");
  }
};

/// `R` is M, or the number of sequences where they are given. Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct reward_head_outputs {
  view<Real, 1, Space> reward{};      ///< `[R]`, merged and standardised
  view<Real, 2, Space> attributes{};  ///< `[R, K]`, as the head gives them
};

/// Where the backward pass starts; at least one is given.
template <class Real, class Space = host_space>
struct reward_head_gradients {
  view<const Real, 1, Space> d_reward{};      ///< `[R]`
  view<const Real, 2, Space> d_attributes{};  ///< `[R, K]`
};

/// Gradients that are not given are not computed. Hidden states that no row names, or no sequence, get 0.
template <class S, class Real, class Space = host_space>
struct reward_head_backward_outputs {
  view<S, 2, Space> d_hidden{};   ///< `[N, D]`
  view<Real, 2, Space> d_head{};  ///< `[K, D]`
  view<Real, 1, Space> d_bias{};  ///< `[K]`
  write_mode mode = write_mode::overwrite;
};

/// The row of each sequence's last scored token, in host memory: `rows` `[S]`, -1 for a sequence without any. Works for padding on either
/// side, for packed batches, for masks with holes: it looks at the mask and at nothing else.
inline void last_scored_rows(const sequence_layout<>& layout, index_t tokens, view<std::int32_t, 1> rows) {
  constexpr const char* op = "last_scored_rows";
  require_layout(op, layout, tokens);
  require_layout_data(op, layout, tokens);
  require_extent(op, "rows", rows, 0, layout.sequences(), "the number of sequences");
  for (index_t s = 0; s < layout.sequences(); ++s) {
    index_t t = layout.end(s) - 1;
    while (t >= layout.begin(s) && layout.scored.given() && layout.scored(t) == 0) --t;
    rows(s) = t >= layout.begin(s) ? static_cast<std::int32_t>(t) : -1;
  }
}

namespace detail {

template <class S, class Real, class Space>
struct reward_head_shape {
  index_t rows, outputs, results, width;
  bool pooled;
};
template <class S, class Real, class Space>
reward_head_shape<S, Real, Space> shape_of(const reward_head_inputs<S, Real, Space>& in) {
  const bool pooled = in.sequences.begin.given();
  const index_t m = in.rows.given() ? in.rows.extent(0) : in.hidden.extent(0);
  return {m, in.head.extent(0), pooled ? in.sequences.sequences() : m, in.head.extent(1), pooled};
}
template <class S, class Real, class Space>
void require_reward_head(const char* op, const reward_head_inputs<S, Real, Space>& in, const reward_head_options& o, bool merged) {
  const auto shape = shape_of(in);
  require_given(op, "hidden", in.hidden, in.head.given());
  require_given(op, "head", in.head, in.hidden.given());
  require_extent(op, "head", in.head, 1, in.hidden.extent(1), "columns of `hidden`");
  if (in.bias.given()) require_extent(op, "bias", in.bias, 0, shape.outputs, "rows of `head`");
  require_ids(op, "rows", in.rows, in.hidden.extent(0), !shape.pooled);
  if (shape.pooled || in.sequences.scored.given()) require_sequences(op, in.sequences, shape.rows);
  if (in.attribute_weights.given()) {
    require_extent(op, "attribute_weights", in.attribute_weights, 0, shape.outputs, "rows of `head`");
  } else if (merged && shape.outputs != 1) {
    fail(message(op) << "argument `attribute_weights` is not given, but one reward is to come from " << shape.outputs
                     << " outputs. Nothing was written.");
  }
  o.require(op);
}
inline index_t head_chunk(index_t rows, index_t width, std::int64_t asked) { return linear_chunk(rows, width, asked); }

}  // namespace detail

/// Bytes of arena that `reward_head` takes; looks at shapes only, `in` may lack memory.
template <class B, class S = real_of<B>>
std::size_t reward_head_workspace(B& b, const reward_head_inputs<S, real_of<B>, space_of<B>>& in, const reward_head_options& options = {}) {
  using real = real_of<B>;
  const auto shape = detail::shape_of(in);
  const index_t k = shape.outputs, r = shape.results, chunk = detail::head_chunk(shape.rows, shape.width, options.chunk_rows);
  const view<const S, 2, space_of<B>> h(nullptr, chunk, shape.width);
  const view<real, 2, space_of<B>> values(nullptr, chunk, k), attributes(nullptr, r, k), reward(nullptr, r, index_t{1});
  const view<const real, 2, space_of<B>> weights(nullptr, k, index_t{1});
  const std::size_t one = b.gemm_workspace(h, in.head.transposed(), values), other = b.gemm_workspace(as_const(attributes), weights, reward);
  return workspace_size()
      .template add<real>(shape.rows * k)
      .template add<real>(r * k)
      .template add<real>(r)
      .template add<real>(r)
      .template add<real>(1)
      .template add<S>(in.rows.given() ? chunk * shape.width : 0)
      .add_bytes(one > other ? one : other)
      .bytes();
}

/// `attributes = hidden[rows] head^T + bias`, or the mean of that over each sequence, and `reward = (sum_k attribute_weights[k] attributes[k]
/// - mean) / standard_deviation`. A sequence without tokens, or a negative row, has attributes 0.
///
/// Enqueues and returns; nothing is allocated. Checked against NeMo-Aligner `RewardModelHead` and OpenRLHF's reward and critic models.
template <class B, class S = real_of<B>>
void reward_head(B& b, arena_of<B>& scratch, const reward_head_inputs<S, real_of<B>, space_of<B>>& in, const reward_head_options& options,
                 const reward_head_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "reward_head";
  const auto shape = detail::shape_of(in);
  const index_t m = shape.rows, k = shape.outputs, r = shape.results;
  require_arguments(op, {{"reward", out.reward}, {"attributes", out.attributes}},
                    {{"hidden", in.hidden}, {"head", in.head}, {"bias", in.bias}, {"rows", in.rows}, {"attribute_weights", in.attribute_weights},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  detail::require_reward_head(op, in, options, out.reward.given());
  const char* meaning = shape.pooled ? "the number of sequences" : "the number of rows";
  if (out.reward.given()) require_extent(op, "reward", out.reward, 0, r, meaning);
  if (out.attributes.given()) require_extent(op, "attributes", out.attributes, 0, r, meaning);
  if (out.attributes.given()) require_extent(op, "attributes", out.attributes, 1, k, "rows of `head`");
  if (!out.reward.given() && !out.attributes.given()) return;
  scratch.require(op, reward_head_workspace(b, in, options));
  typename arena_of<B>::frame frame(scratch);
  const auto attributes = out.attributes.given() ? out.attributes : scratch.template take<real>(r, k);
  const auto values = shape.pooled ? scratch.template take<real>(m, k) : attributes;
  const index_t most = detail::head_chunk(m, shape.width, options.chunk_rows);
  for (index_t first = 0; first < m; first += most) {
    typename arena_of<B>::frame chunk(scratch);
    const index_t count = m - first < most ? m - first : most;
    auto h = in.rows.given() ? in.hidden : in.hidden.slice(first, count);
    if (in.rows.given()) {
      const auto copied = scratch.template take<S>(count, shape.width);
      b.row_gather(in.hidden, in.rows.slice(first, count), copied);
      h = copied;
    }
    b.gemm(scratch, real(1), h, in.head.transposed(), real(0), values.slice(first, count));
  }
  const auto zero = in.bias.given() ? const_real_view<B>() : detail::constant(b, scratch, real(0), 1);
  if (shape.pooled) {
    const auto length = scratch.template take<real>(r), sums = scratch.template take<real>(r);
    {
      typename arena_of<B>::frame inner(scratch);
      detail::scored_lengths(b, scratch, in.sequences, m, length);
    }
    for (index_t a = 0; a < k; ++a) {
      b.segment_reduce(reduction::sum, as_const(values.transposed().row(a)), in.sequences, sums);
      const auto column = attributes.transposed().row(a);
      if (in.bias.given()) {
        b.transform(math::pooled_value{}, column, as_const(sums), as_const(length),
                    view<const S, 1, space_of<B>>(in.bias.slice(a, 1).data(), {r}, {0}));
      } else {
        b.transform(math::pooled_value{}, column, as_const(sums), as_const(length), view<const real, 1, space_of<B>>(zero.data(), {r}, {0}));
      }
    }
  } else if (in.rows.given()) {
    const auto named = broadcast_columns(in.rows, k);
    if (in.bias.given()) {
      b.transform(math::value_of_row{}, values, as_const(values), broadcast_rows(in.bias, m), named);
    } else {
      b.transform(math::coefficient_where_scored{}, values, as_const(values), named);
    }
  } else if (in.bias.given()) {
    b.transform(math::plus{}, values, as_const(values), broadcast_rows(in.bias, m));
  }
  if (!out.reward.given()) return;
  if (in.attribute_weights.given()) {
    b.gemm(scratch, real(1), as_const(attributes), as_column(in.attribute_weights), real(0), as_column(out.reward));
  } else {
    b.copy(as_const(attributes.transposed().row(0)), out.reward);
  }
  if (options.mean == 0 && options.standard_deviation == 1) return;
  b.transform(math::standardize<real>{static_cast<real>(options.mean), static_cast<real>(1 / options.standard_deviation)}, out.reward,
              as_const(out.reward));
}

/// Bytes of arena that `reward_head_backward` takes.
template <class B, class S = real_of<B>>
std::size_t reward_head_backward_workspace(B& b, const reward_head_inputs<S, real_of<B>, space_of<B>>& in, const reward_head_options& options = {}) {
  using real = real_of<B>;
  constexpr bool narrow = !std::is_same_v<S, real>;
  const auto shape = detail::shape_of(in);
  const index_t k = shape.outputs, r = shape.results, d = shape.width, chunk = detail::head_chunk(shape.rows, d, options.chunk_rows);
  const view<const S, 2, space_of<B>> h(nullptr, chunk, d), g(nullptr, chunk, k);
  const view<real, 2, space_of<B>> d_h(nullptr, chunk, d), d_w(nullptr, k, d);
  const std::size_t one = b.gemm_workspace(g, in.head, d_h), other = b.gemm_workspace(g.transposed(), h, d_w);
  return workspace_size()
      .template add<real>(shape.rows * k)
      .template add<real>(r * k)
      .template add<real>(r)
      .template add<real>(r)
      .template add<real>(shape.rows)
      .template add<real>(1)
      .template add<real>(1)
      .template add<real>(chunk * d)
      .template add<S>(chunk * d)
      .template add<S>(narrow ? chunk * k : 0)
      .add_bytes(one > other ? one : other)
      .bytes();
}

/// Gradients to `hidden`, `head` and `bias`, a chunk of rows at a time. With 16-bit storage the gradient of the values is rounded to it before
/// the products, as in `linear_token_logp_backward`.
template <class B, class S = real_of<B>>
void reward_head_backward(B& b, arena_of<B>& scratch, const reward_head_inputs<S, real_of<B>, space_of<B>>& in, const reward_head_options& options,
                          const reward_head_gradients<real_of<B>, space_of<B>>& grad,
                          const std::type_identity_t<reward_head_backward_outputs<S, real_of<B>, space_of<B>>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "reward_head_backward";
  const auto shape = detail::shape_of(in);
  const index_t m = shape.rows, k = shape.outputs, r = shape.results, d = shape.width;
  require_arguments(op, {{"d_hidden", out.d_hidden}, {"d_head", out.d_head}, {"d_bias", out.d_bias}},
                    {{"hidden", in.hidden}, {"head", in.head}, {"bias", in.bias}, {"rows", in.rows}, {"attribute_weights", in.attribute_weights},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}, {"d_reward", grad.d_reward},
                     {"d_attributes", grad.d_attributes}});
  detail::require_reward_head(op, in, options, grad.d_reward.given());
  require_given(op, "d_reward", grad.d_reward, r > 0 && !grad.d_attributes.given());
  const char* meaning = shape.pooled ? "the number of sequences" : "the number of rows";
  if (grad.d_reward.given()) require_extent(op, "d_reward", grad.d_reward, 0, r, meaning);
  if (grad.d_attributes.given()) require_extent(op, "d_attributes", grad.d_attributes, 0, r, meaning);
  if (grad.d_attributes.given()) require_extent(op, "d_attributes", grad.d_attributes, 1, k, "rows of `head`");
  if (out.d_hidden.given()) require_same_shape(op, "d_hidden", out.d_hidden, "hidden", in.hidden);
  if (out.d_head.given()) require_same_shape(op, "d_head", out.d_head, "head", in.head);
  if (out.d_bias.given()) require_extent(op, "d_bias", out.d_bias, 0, k, "rows of `head`");
  scratch.require(op, reward_head_backward_workspace(b, in, options));
  typename arena_of<B>::frame frame(scratch);
  const auto values = scratch.template take<real>(m, k);
  const auto results = shape.pooled ? scratch.template take<real>(r, k) : values;
  if (grad.d_attributes.given()) {
    b.copy(grad.d_attributes, results);
  } else {
    b.fill(results, real(0));
  }
  if (grad.d_reward.given()) {
    const auto weights = in.attribute_weights.given() ? in.attribute_weights : detail::constant(b, scratch, real(1), k);
    b.transform(math::add_scaled_product<real>{static_cast<real>(1 / options.standard_deviation)}, results, as_const(results),
                broadcast_columns(grad.d_reward, k), broadcast_rows(weights, r));
  }
  view<real, 1, space_of<B>> member;
  if (shape.pooled) {
    const auto length = scratch.template take<real>(r), each = scratch.template take<real>(r);
    {
      typename arena_of<B>::frame inner(scratch);
      detail::scored_lengths(b, scratch, in.sequences, m, length);
    }
    for (index_t a = 0; a < k; ++a) {
      b.transform(math::pooled_slope{}, each, as_const(results.transposed().row(a)), as_const(length));
      b.segment_broadcast(as_const(each), in.sequences, values.transposed().row(a), write_mode::overwrite);
    }
    // Hidden states of tokens that do not count may hold anything: they are cleared before they are multiplied by 0.
    member = scratch.template take<real>(m);
    b.segment_broadcast(as_const(length), in.sequences, member, write_mode::overwrite);
  } else if (in.rows.given()) {
    b.transform(math::coefficient_where_scored{}, values, as_const(values), broadcast_columns(in.rows, k));
  }
  if (out.mode == write_mode::overwrite) {
    if (out.d_hidden.given()) b.fill(out.d_hidden, real(0));
    if (out.d_head.given()) b.fill(out.d_head, real(0));
  }
  if (out.d_bias.given()) b.reduce(reduction::sum, as_const(values), as_row(out.d_bias), out.mode);
  const index_t most = detail::head_chunk(m, d, options.chunk_rows);
  for (index_t first = 0; first < m; first += most) {
    typename arena_of<B>::frame chunk(scratch);
    const index_t count = m - first < most ? m - first : most;
    view<const S, 2, space_of<B>> g;
    if constexpr (std::is_same_v<S, real>) {
      g = values.slice(first, count);
    } else {
      const auto narrow = scratch.template take<S>(count, k);
      b.copy(as_const(values.slice(first, count)), narrow);
      g = narrow;
    }
    if (out.d_head.given()) {
      typename arena_of<B>::frame inner(scratch);
      auto h = in.rows.given() ? in.hidden : in.hidden.slice(first, count);
      if (in.rows.given() || shape.pooled) {
        const auto copied = scratch.template take<S>(count, d);
        if (in.rows.given()) {
          b.row_gather(in.hidden, in.rows.slice(first, count), copied);
          h = copied;
        }
        if (shape.pooled) b.transform(math::keep_where{}, copied, h, broadcast_columns(as_const(member.slice(first, count)), d));
        h = copied;
      }
      b.gemm(scratch, real(1), g.transposed(), h, real(1), out.d_head);
    }
    if (!out.d_hidden.given()) continue;
    const auto d_h = scratch.template take<real>(count, d);
    b.gemm(scratch, real(1), g, in.head, real(0), d_h);
    if (in.rows.given()) {
      b.row_scatter_add(as_const(d_h), in.rows.slice(first, count), out.d_hidden);
    } else {
      const auto target = out.d_hidden.slice(first, count);
      b.transform(math::plus{}, target, as_const(target), as_const(d_h));
    }
  }
}

/// What the host overloads return.
template <class T>
struct reward_head_result {
  std::vector<T> reward;      ///< `[S]`; empty without `attribute_weights`, unless the head has one output
  std::vector<T> attributes;  ///< `[S, K]`, row-major
};

/// Where in a sequence its reward is read.
enum class reward_pooling {
  last_token,  ///< at the last scored token
  mean         ///< as the mean over the scored tokens
};

/// Hidden states of all tokens and the head, row by row of `width` numbers, and a layout over the tokens; a reward for each sequence out, on the
/// serial backend.
template <detail::host_range R>
reward_head_result<detail::value_of<R>> reward_head(const R& hidden, view<const detail::value_of<R>, 1> head, index_t width,
                                                    const sequence_layout<>& sequences, reward_pooling pooling = reward_pooling::last_token,
                                                    const reward_head_options& options = {}, view<const detail::value_of<R>, 1> attribute_weights = {},
                                                    view<const detail::value_of<R>, 1> bias = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "reward_head";
  require_mode(op, "pooling", pooling, reward_pooling::mean);
  reward_head_inputs<T, T> in{.hidden = detail::host_rows(op, "hidden", view<const T, 1>(hidden), width, "numbers a row"),
                              .head = detail::host_rows(op, "head", head, width, "numbers a row"),
                              .bias = bias,
                              .rows = {},
                              .sequences = {},
                              .attribute_weights = attribute_weights};
  const index_t tokens = in.hidden.extent(0), s = sequences.sequences(), k = in.head.extent(0);
  detail::require_host_layout(op, sequences, tokens);
  options.require(op);
  std::vector<std::int32_t> last(static_cast<std::size_t>(s));
  if (pooling == reward_pooling::mean) {
    in.sequences = sequences;
  } else {
    last_scored_rows(sequences, tokens, last);
    in.rows = last;
  }
  reward_head_result<T> r{{}, detail::zeros<T>(s * k)};
  if (attribute_weights.given() || k == 1) r.reward = detail::zeros<T>(s);
  serial::backend<T> compute;
  detail::host_call<T> call(reward_head_workspace(compute, in, options));
  reward_head(call.compute, call.scratch, in, options, {.reward = r.reward, .attributes = view<T, 2>(r.attributes.data(), s, k)});
  return r;
}

PLUMB_NAMESPACE_END

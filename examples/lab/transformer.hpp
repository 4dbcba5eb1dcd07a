#pragma once
// A decoder-only transformer of the LLaMA architecture (Touvron et al., arXiv:2302.13971), forward and backward, on nothing but the
// compute interface: any backend that passes the conformance kit can train it.

#include "functors.hpp"

#include <cmath>
#include <string>
#include <vector>

namespace lab {

using plumb::as_const;
using plumb::index_t;
using plumb::view;

struct transformer_config {
  index_t vocabulary = 0;
  index_t width = 96;
  index_t layers = 3;
  index_t heads = 4;
  index_t feed_forward = 256;
  index_t positions = 80;
  index_t scores = 0;  ///< outputs of a reward head on the last token; 0: none
  double rms_epsilon = 1e-5;
  double rope_base = 10000;

  index_t head_width() const { return width / heads; }
};

/// One named slice of the flat parameter array, under the name that LLaMA checkpoints use.
struct parameter {
  std::string name;
  index_t rows, columns;  ///< a vector has one row
  index_t offset;
  index_t size() const { return rows * columns; }
};

/// Where every weight lies in one flat array; gradients and optimiser moments have the same layout.
class parameter_layout {
 public:
  explicit parameter_layout(const transformer_config& c) {
    const auto add = [&](std::string name, index_t rows, index_t columns) {
      list_.push_back({std::move(name), rows, columns, size_});
      size_ += rows * columns;
    };
    add("model.embed_tokens.weight", c.vocabulary, c.width);
    for (index_t l = 0; l < c.layers; ++l) {
      const std::string p = "model.layers." + std::to_string(l) + ".";
      add(p + "input_layernorm.weight", 1, c.width);
      for (const char* projection : {"q_proj", "k_proj", "v_proj", "o_proj"})
        add(p + "self_attn." + projection + ".weight", c.width, c.width);
      add(p + "post_attention_layernorm.weight", 1, c.width);
      add(p + "mlp.gate_proj.weight", c.feed_forward, c.width);
      add(p + "mlp.up_proj.weight", c.feed_forward, c.width);
      add(p + "mlp.down_proj.weight", c.width, c.feed_forward);
    }
    add("model.norm.weight", 1, c.width);
    add("lm_head.weight", c.vocabulary, c.width);
    if (c.scores > 0) add("score.weight", c.scores, c.width);
  }
  index_t size() const { return size_; }
  const std::vector<parameter>& list() const { return list_; }

  // Positions in `list()`.
  static constexpr std::size_t embedding = 0, per_layer = 9;
  enum in_layer { norm1, q, k, v, o, norm2, gate, up, down };
  std::size_t layer(index_t l, in_layer which) const { return 1 + static_cast<std::size_t>(l) * per_layer + which; }
  std::size_t final_norm(index_t layers) const { return 1 + static_cast<std::size_t>(layers) * per_layer; }

 private:
  std::vector<parameter> list_;
  index_t size_ = 0;
};

/// Weights and the passes. Activations live in an arena of the caller's between `forward` and `backward`.
template <class B>
class transformer {
 public:
  using real = plumb::real_of<B>;
  using space = plumb::space_of<B>;
  static_assert(std::is_same_v<space, plumb::host_space>, "the lab keeps its weights in host memory");
  template <int R>
  using array = view<real, R>;
  template <int R>
  using const_array = view<const real, R>;

  transformer(const transformer_config& config, std::uint64_t seed)
      : config_(config), layout_(config), weights_(static_cast<std::size_t>(layout_.size())), gradients_(weights_.size()) {
    // Normal with deviation 1/sqrt(width), output projections scaled down with depth (GPT-2); norms start at 1, a reward head at 0.
    for (std::size_t i = 0; i < layout_.list().size(); ++i) {
      const parameter& p = layout_.list()[i];
      const bool norm = p.rows == 1 && p.name.find("norm") != std::string::npos;
      const bool output = p.name.find("o_proj") != std::string::npos || p.name.find("down_proj") != std::string::npos;
      const double scale = 1 / std::sqrt(static_cast<double>(config.width)) * (output ? 1 / std::sqrt(2.0 * static_cast<double>(config.layers)) : 1);
      const plumb::random_stream noise{seed, i};
      for (index_t j = 0; j < p.size(); ++j)
        weights_[static_cast<std::size_t>(p.offset + j)] = static_cast<real>(
            norm ? 1.0 : p.name == "score.weight" ? 0.0 : scale * noise.normal(static_cast<std::uint64_t>(j)));
    }
    const index_t half = config.head_width() / 2;
    cosines_.resize(static_cast<std::size_t>(config.positions * half));
    sines_.resize(cosines_.size());
    for (index_t t = 0; t < config.positions; ++t)
      for (index_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(t) * std::pow(config.rope_base, -static_cast<double>(i) / static_cast<double>(half));
        cosines_[static_cast<std::size_t>(t * half + i)] = static_cast<real>(std::cos(angle));
        sines_[static_cast<std::size_t>(t * half + i)] = static_cast<real>(std::sin(angle));
      }
  }

  const transformer_config& config() const { return config_; }
  const parameter_layout& layout() const { return layout_; }
  std::vector<real>& weights() { return weights_; }
  const std::vector<real>& weights() const { return weights_; }
  std::vector<real>& gradients() { return gradients_; }

  const_array<2> head() const { return weight(layout_.final_norm(config_.layers) + 1); }
  array<2> head_gradient() { return gradient(layout_.final_norm(config_.layers) + 1); }
  const_array<2> score_head() const { return weight(layout_.final_norm(config_.layers) + 2); }
  array<2> score_head_gradient() { return gradient(layout_.final_norm(config_.layers) + 2); }

  /// What the backward pass needs of a forward pass over `[batch, length]` tokens.
  struct activations {
    index_t batch = 0, length = 0;
    view<const std::int32_t, 1> ids{};  ///< `[batch * length]`
    struct layer {
      array<2> x, h1, q, k, v, mixed, x2, h2, gate, up, act;
      array<1> r1, r2;
      array<4> p;  ///< attention, `[batch, heads, length, length]`
    };
    std::vector<layer> layers{};
    array<2> x{};  ///< before the final norm
    array<1> r{};
    array<2> hidden{};  ///< after it: `[batch * length, width]`
  };

  /// Hidden states of right-padded sequences `[batch, length]`: what follows a sequence's end disturbs nothing before it.
  activations forward(B& b, plumb::arena<>& scratch, view<const std::int32_t, 1> ids, index_t batch, index_t length) const {
    const index_t n = batch * length, d = config_.width, f = config_.feed_forward, heads = config_.heads;
    require_positions(length);
    activations a{.batch = batch, .length = length, .ids = ids};
    auto x = scratch.take<real>(n, d);
    b.row_gather(weight(parameter_layout::embedding), ids, x);
    const auto valid = causal_lengths(scratch, batch, length);
    for (index_t l = 0; l < config_.layers; ++l) {
      typename activations::layer s;
      s.x = x;
      s.r1 = scratch.take<real>(n);
      s.h1 = scratch.take<real>(n, d);
      rms_norm(b, x, norm(layout_.layer(l, parameter_layout::norm1)), s.r1, s.h1);
      s.q = scratch.take<real>(n, d);
      s.k = scratch.take<real>(n, d);
      s.v = scratch.take<real>(n, d);
      linear(b, scratch, s.h1, weight(layout_.layer(l, parameter_layout::q)), s.q);
      linear(b, scratch, s.h1, weight(layout_.layer(l, parameter_layout::k)), s.k);
      linear(b, scratch, s.h1, weight(layout_.layer(l, parameter_layout::v)), s.v);
      rotate_positions(b, s.q, batch, length, 0, 1);
      rotate_positions(b, s.k, batch, length, 0, 1);
      s.p = scratch.take<real>(batch, heads, length, length);
      s.mixed = scratch.take<real>(n, d);
      gemm(b, scratch, score_scale(), per_head(s.q, batch), per_head(s.k, batch).transposed(), real(0), s.p);
      const auto rows = reshaped(s.p, batch * heads * length, length);
      b.row_softmax(as_const(rows), valid, rows);
      gemm(b, scratch, real(1), s.p, per_head(s.v, batch), real(0), per_head(s.mixed, batch));
      s.x2 = scratch.take<real>(n, d);
      linear(b, scratch, s.mixed, weight(layout_.layer(l, parameter_layout::o)), s.x2);
      b.transform(plumb::math::plus{}, s.x2, as_const(s.x2), as_const(x));
      s.r2 = scratch.take<real>(n);
      s.h2 = scratch.take<real>(n, d);
      rms_norm(b, s.x2, norm(layout_.layer(l, parameter_layout::norm2)), s.r2, s.h2);
      s.gate = scratch.take<real>(n, f);
      s.up = scratch.take<real>(n, f);
      s.act = scratch.take<real>(n, f);
      linear(b, scratch, s.h2, weight(layout_.layer(l, parameter_layout::gate)), s.gate);
      linear(b, scratch, s.h2, weight(layout_.layer(l, parameter_layout::up)), s.up);
      b.transform(swiglu{}, s.act, as_const(s.gate), as_const(s.up));
      x = scratch.take<real>(n, d);
      linear(b, scratch, s.act, weight(layout_.layer(l, parameter_layout::down)), x);
      b.transform(plumb::math::plus{}, x, as_const(x), as_const(s.x2));
      a.layers.push_back(s);
    }
    a.x = x;
    a.r = scratch.take<real>(n);
    a.hidden = scratch.take<real>(n, d);
    rms_norm(b, x, norm(layout_.final_norm(config_.layers)), a.r, a.hidden);
    return a;
  }

  /// Adds the gradients of all weights but the heads, from dL/dhidden `[batch * length, width]`, which is overwritten.
  void backward(B& b, plumb::arena<>& scratch, const activations& a, array<2> d_hidden) {
    plumb::arena<>::frame frame(scratch);
    const index_t batch = a.batch, length = a.length, n = batch * length, d = config_.width, f = config_.feed_forward;
    const index_t heads = config_.heads;
    const auto dx = scratch.take<real>(n, d);
    rms_norm_backward(b, scratch, a.x, a.r, layout_.final_norm(config_.layers), d_hidden, dx, plumb::write_mode::overwrite);
    for (index_t l = config_.layers; l-- > 0;) {
      plumb::arena<>::frame layer_frame(scratch);
      const auto& s = a.layers[static_cast<std::size_t>(l)];
      const auto dh = scratch.take<real>(n, d);
      {
        plumb::arena<>::frame inner(scratch);
        const auto d_act = scratch.take<real>(n, f), d_gate = scratch.take<real>(n, f), d_up = scratch.take<real>(n, f);
        linear_backward(b, scratch, s.act, layout_.layer(l, parameter_layout::down), dx, d_act, real(0));
        b.transform2(swiglu_gradient{}, d_gate, d_up, as_const(s.gate), as_const(s.up), as_const(d_act));
        linear_backward(b, scratch, s.h2, layout_.layer(l, parameter_layout::gate), d_gate, dh, real(0));
        linear_backward(b, scratch, s.h2, layout_.layer(l, parameter_layout::up), d_up, dh, real(1));
      }
      rms_norm_backward(b, scratch, s.x2, s.r2, layout_.layer(l, parameter_layout::norm2), dh, dx, plumb::write_mode::add);
      const auto dq = scratch.take<real>(n, d), dk = scratch.take<real>(n, d), dv = scratch.take<real>(n, d);
      {
        plumb::arena<>::frame inner(scratch);
        const auto d_mixed = scratch.take<real>(n, d);
        linear_backward(b, scratch, s.mixed, layout_.layer(l, parameter_layout::o), dx, d_mixed, real(0));
        const auto dp = scratch.take<real>(batch, heads, length, length);
        gemm(b, scratch, real(1), per_head(d_mixed, batch), per_head(s.v, batch).transposed(), real(0), dp);
        gemm(b, scratch, real(1), s.p.transposed(), per_head(d_mixed, batch), real(0), per_head(dv, batch));
        const auto rows = reshaped(dp, batch * heads * length, length);
        b.row_softmax_grad(as_const(reshaped(s.p, batch * heads * length, length)), as_const(rows), rows);
        gemm(b, scratch, score_scale(), dp, per_head(s.k, batch), real(0), per_head(dq, batch));
        gemm(b, scratch, score_scale(), dp.transposed(), per_head(s.q, batch), real(0), per_head(dk, batch));
      }
      rotate_positions(b, dq, batch, length, 0, -1);
      rotate_positions(b, dk, batch, length, 0, -1);
      linear_backward(b, scratch, s.h1, layout_.layer(l, parameter_layout::q), dq, dh, real(0));
      linear_backward(b, scratch, s.h1, layout_.layer(l, parameter_layout::k), dk, dh, real(1));
      linear_backward(b, scratch, s.h1, layout_.layer(l, parameter_layout::v), dv, dh, real(1));
      rms_norm_backward(b, scratch, s.x, s.r1, layout_.layer(l, parameter_layout::norm1), dh, dx, plumb::write_mode::add);
    }
    b.row_scatter_add(as_const(dx), a.ids, gradient(parameter_layout::embedding));
  }

  /// Keys and values of `batch` sequences, position by position.
  struct cache {
    index_t batch = 0, filled = 0;
    std::vector<real> keys{}, values{};
  };
  cache empty_cache(index_t batch) const {
    const auto size = static_cast<std::size_t>(config_.layers * batch * config_.positions * config_.width);
    return {.batch = batch, .keys = std::vector<real>(size), .values = std::vector<real>(size)};
  }

  /// One token of each sequence at the next position: hidden states `[batch, width]`, in the arena.
  array<2> step(B& b, plumb::arena<>& scratch, view<const std::int32_t, 1> ids, cache& c) const {
    const index_t n = c.batch, d = config_.width, f = config_.feed_forward, heads = config_.heads, t = c.filled;
    require_positions(t + 1);
    auto x = scratch.take<real>(n, d);
    const auto r = scratch.take<real>(n);
    const auto h = scratch.take<real>(n, d), q = scratch.take<real>(n, d), y = scratch.take<real>(n, d);
    const auto gate = scratch.take<real>(n, f), up = scratch.take<real>(n, f);
    const auto p = scratch.take<real>(n, heads, 1, t + 1);
    b.row_gather(weight(parameter_layout::embedding), ids, x);
    for (index_t l = 0; l < config_.layers; ++l) {
      const auto keys = cached(c.keys, l, n), values = cached(c.values, l, n);  // [batch, positions, width]
      const auto key = at_position(keys, t), value = at_position(values, t);
      rms_norm(b, x, norm(layout_.layer(l, parameter_layout::norm1)), r, h);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::q)), q);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::k)), key);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::v)), value);
      rotate_positions(b, q, n, 1, t, 1);
      rotate_positions(b, key, n, 1, t, 1);
      gemm(b, scratch, score_scale(), per_head(q, n), heads_of(keys, t + 1).transposed(), real(0), p);
      const auto rows = reshaped(p, n * heads, t + 1);
      b.row_softmax(as_const(rows), {}, rows);
      gemm(b, scratch, real(1), p, heads_of(values, t + 1), real(0), per_head(h, n));
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::o)), y);
      b.transform(plumb::math::plus{}, x, as_const(x), as_const(y));
      rms_norm(b, x, norm(layout_.layer(l, parameter_layout::norm2)), r, h);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::gate)), gate);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::up)), up);
      b.transform(swiglu{}, gate, as_const(gate), as_const(up));
      linear(b, scratch, gate, weight(layout_.layer(l, parameter_layout::down)), y);
      b.transform(plumb::math::plus{}, x, as_const(x), as_const(y));
    }
    rms_norm(b, x, norm(layout_.final_norm(config_.layers)), r, h);
    ++c.filled;
    return h;
  }

  /// `y = x W^T`.
  static void linear(B& b, plumb::arena<>& scratch, const_array<2> x, const_array<2> w, array<2> y) {
    gemm(b, scratch, real(1), x, w.transposed(), real(0), y);
  }

 private:
  void require_positions(index_t count) const {
    if (count > config_.positions)
      plumb::fail(plumb::message("transformer") << count << " positions are asked for, but the model has " << config_.positions << ".");
  }
  const_array<2> weight(std::size_t i) const {
    const parameter& p = layout_.list()[i];
    return {weights_.data() + p.offset, p.rows, p.columns};
  }
  const_array<1> norm(std::size_t i) const { return weight(i).row(0); }
  array<2> gradient(std::size_t i) {
    const parameter& p = layout_.list()[i];
    return {gradients_.data() + p.offset, p.rows, p.columns};
  }
  real score_scale() const { return static_cast<real>(1 / std::sqrt(static_cast<double>(config_.head_width()))); }

  template <int R>
  static void gemm(B& b, plumb::arena<>& scratch, real alpha, std::type_identity_t<const_array<R>> x,
                   std::type_identity_t<const_array<R>> y, real beta, array<R> out) {
    b.gemm(scratch, alpha, x, y, beta, out);
  }

  /// `[batch * length, width]` seen as `[batch, heads, length, head_width]`.
  template <class T>
  view<T, 4> per_head(view<T, 2> x, index_t batch) const {
    const index_t length = x.extent(0) / batch, dh = config_.head_width();
    return {x.data(), {batch, config_.heads, length, dh}, {length * x.stride(0), dh, x.stride(0), 1}};
  }
  array<3> cached(std::vector<real>& all, index_t layer, index_t batch) const {
    const index_t size = batch * config_.positions * config_.width;
    return {all.data() + layer * size, batch, config_.positions, config_.width};
  }
  array<2> at_position(array<3> x, index_t t) const {
    return {x.data() + t * x.stride(1), {x.extent(0), x.extent(2)}, {x.stride(0), 1}};
  }
  array<4> heads_of(array<3> x, index_t count) const {
    const index_t dh = config_.head_width();
    return {x.data(), {x.extent(0), config_.heads, count, dh}, {x.stride(0), dh, x.stride(1), 1}};
  }

  // How many positions each row of attention sees.
  view<const std::int32_t, 1> causal_lengths(plumb::arena<>& scratch, index_t batch, index_t length) const {
    const auto valid = scratch.take<std::int32_t>(batch * config_.heads * length);
    for (index_t i = 0; i < valid.extent(0); ++i) valid(i) = static_cast<std::int32_t>(i % length + 1);
    return valid;
  }

  void rms_norm(B& b, const_array<2> x, const_array<1> gain, array<1> r, array<2> y) const {
    const index_t n = x.extent(0), d = x.extent(1);
    b.transform(square{}, y, x);
    b.reduce(plumb::reduction::sum, as_const(y), as_column(r), plumb::write_mode::overwrite);
    b.transform(inverse_rms<real>{static_cast<real>(d), static_cast<real>(config_.rms_epsilon)}, r, as_const(r));
    b.transform(product_of_three{}, y, x, broadcast_columns(as_const(r), d), broadcast_rows(gain, n));
  }
  void rms_norm_backward(B& b, plumb::arena<>& scratch, const_array<2> x, array<1> r, std::size_t gain, array<2> dy, array<2> dx,
                         plumb::write_mode mode) {
    plumb::arena<>::frame frame(scratch);
    const index_t n = x.extent(0), d = x.extent(1);
    const auto t = scratch.take<real>(n, d);
    const auto s = scratch.take<real>(n);
    const auto inverse = broadcast_columns(as_const(r), d);
    b.transform(product_of_three{}, t, as_const(dy), x, inverse);
    b.reduce(plumb::reduction::sum, as_const(t), gradient(gain), plumb::write_mode::add);
    b.transform(plumb::math::times{}, dy, as_const(dy), broadcast_rows(norm(gain), n));
    b.transform(plumb::math::times{}, t, as_const(dy), x);
    b.reduce(plumb::reduction::sum, as_const(t), as_column(s), plumb::write_mode::overwrite);
    const rms_norm_gradient<real> formula{static_cast<real>(d)};
    if (mode == plumb::write_mode::overwrite) {
      b.transform(formula, dx, x, inverse, broadcast_columns(as_const(s), d), as_const(dy));
    } else {
      b.transform(formula, t, x, inverse, broadcast_columns(as_const(s), d), as_const(dy));
      b.transform(plumb::math::plus{}, dx, as_const(dx), as_const(t));
    }
  }

  // dW += dy^T x; dx = dy W + beta dx.
  void linear_backward(B& b, plumb::arena<>& scratch, const_array<2> x, std::size_t w, array<2> dy, array<2> dx, real beta) {
    gemm(b, scratch, real(1), dy.transposed(), x, real(1), gradient(w));
    gemm(b, scratch, real(1), dy, weight(w), beta, dx);
  }

  // In place, on rows that are `[batch, length]` positions from `first` on.
  void rotate_positions(B& b, array<2> x, index_t batch, index_t length, index_t first, int direction) const {
    const index_t dh = config_.head_width(), half = dh / 2;
    const view<real, 4> all(x.data(), {batch, length, config_.heads, dh}, {length * x.stride(0), x.stride(0), dh, 1});
    const auto low = all.narrow(3, 0, half), high = all.narrow(3, half, half);
    const auto table = [&](const std::vector<real>& values) {
      return view<const real, 4>(values.data() + first * half, {batch, length, config_.heads, half}, {0, half, 0, 1});
    };
    b.transform2(rotate<real>{static_cast<real>(direction)}, low, high, as_const(low), as_const(high), table(cosines_), table(sines_));
  }

  transformer_config config_;
  parameter_layout layout_;
  std::vector<real> weights_, gradients_;
  std::vector<real> cosines_, sines_;
};

}  // namespace lab

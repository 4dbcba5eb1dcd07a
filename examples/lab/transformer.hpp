#pragma once
// A decoder-only transformer of the LLaMA architecture (Touvron et al., arXiv:2302.13971), forward and backward, on nothing but the
// compute interface: any backend that passes the conformance kit can train it.

#include "functors.hpp"

#include <cmath>
#include <span>
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
      rotate_positions(b, s.q, batch, length, 1);
      rotate_positions(b, s.k, batch, length, 1);
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
      rotate_positions(b, dq, batch, length, -1);
      rotate_positions(b, dk, batch, length, -1);
      linear_backward(b, scratch, s.h1, layout_.layer(l, parameter_layout::q), dq, dh, real(0));
      linear_backward(b, scratch, s.h1, layout_.layer(l, parameter_layout::k), dk, dh, real(1));
      linear_backward(b, scratch, s.h1, layout_.layer(l, parameter_layout::v), dv, dh, real(1));
      rms_norm_backward(b, scratch, s.x, s.r1, layout_.layer(l, parameter_layout::norm1), dh, dx, plumb::write_mode::add);
    }
    b.row_scatter_add(as_const(dx), a.ids, gradient(parameter_layout::embedding));
  }

  /// Keys and values of texts that are written on: each at a position of its own; what lies behind it is 0.
  struct cache {
    index_t batch = 0, room = 0;              ///< texts, and positions for each
    std::vector<std::int32_t> filled{};       ///< `[batch]`
    std::vector<real> keys{}, values{};       ///< `[layers, batch, room, width]`
  };

  /// Reads the beginnings of `lengths.size()` texts, right-padded `[texts, length]`, side by side, and makes the cache, of `room` positions (those of
  /// the model at most): hidden states of each text's last token, `[texts, width]`, in the arena.
  array<2> read(B& b, plumb::arena<>& scratch, view<const std::int32_t, 1> ids, const std::vector<std::int32_t>& lengths, index_t room,
                cache& c) const {
    const auto batch = static_cast<index_t>(lengths.size()), length = ids.extent(0) / batch, d = config_.width;
    room = std::min(std::max(room, length), config_.positions);
    const auto last = scratch.take<real>(batch, d);
    plumb::arena<>::frame frame(scratch);
    const activations a = forward(b, scratch, ids, batch, length);
    const auto size = static_cast<std::size_t>(batch * room * d);
    c = {.batch = batch, .room = room, .filled = lengths};
    for (auto* all : {&c.keys, &c.values}) all->resize(size * a.layers.size());
    const auto source = scratch.take<std::int32_t>(batch * room), last_row = scratch.take<std::int32_t>(batch);
    for (index_t i = 0; i < batch; ++i) {
      const std::int32_t n = lengths[static_cast<std::size_t>(i)];
      last_row(i) = static_cast<std::int32_t>(i * length) + n - 1;
      for (index_t t = 0; t < room; ++t) source(i * room + t) = t < n ? static_cast<std::int32_t>(i * length + t) : -1;
    }
    for (index_t l = 0; l < config_.layers; ++l) {
      const auto& s = a.layers[static_cast<std::size_t>(l)];
      b.row_gather(as_const(s.k), as_const(source), rows_of(c.keys, l, c));
      b.row_gather(as_const(s.v), as_const(source), rows_of(c.values, l, c));
    }
    b.row_gather(as_const(a.hidden), as_const(last_row), last);
    b.sync();
    return last;
  }

  /// Of the cache, the texts `kept` (ascending), in their order.
  void keep(const std::vector<std::int32_t>& kept, cache& c) const {
    const auto each = static_cast<std::size_t>(c.room * config_.width);
    for (auto* all : {&c.keys, &c.values}) {
      std::size_t to = 0;  // never behind where it reads from
      for (std::size_t l = 0; l < static_cast<std::size_t>(config_.layers); ++l)
        for (const std::int32_t i : kept) {
          const std::size_t from = (l * static_cast<std::size_t>(c.batch) + static_cast<std::size_t>(i)) * each;
          if (from != to) std::copy_n(all->begin() + static_cast<std::ptrdiff_t>(from), each, all->begin() + static_cast<std::ptrdiff_t>(to));
          to += each;
        }
    }
    for (std::size_t i = 0; i < kept.size(); ++i) c.filled[i] = c.filled[static_cast<std::size_t>(kept[i])];
    c.batch = static_cast<index_t>(kept.size());
    c.filled.resize(kept.size());
  }

  /// One token of each text, at its next position: hidden states `[batch, width]`, in the arena.
  array<2> step(B& b, plumb::arena<>& scratch, view<const std::int32_t, 1> ids, cache& c) const {
    const index_t n = c.batch, d = config_.width, f = config_.feed_forward, heads = config_.heads, half = config_.head_width() / 2;
    index_t seen = 0;
    for (const std::int32_t t : c.filled) seen = std::max<index_t>(seen, t + 1);
    require_positions(seen);
    if (seen > c.room) plumb::fail(plumb::message("transformer") << seen << " positions are asked for, but the cache has " << c.room << ".");
    seen = std::min((seen + 7) / 8 * 8, c.room);  // few shapes: a backend may prepare each
    auto x = scratch.take<real>(n, d);
    const auto r = scratch.take<real>(n);
    const auto h = scratch.take<real>(n, d), q = scratch.take<real>(n, d), y = scratch.take<real>(n, d);
    const auto gate = scratch.take<real>(n, f), up = scratch.take<real>(n, f);
    const auto p = scratch.take<real>(n, heads, 1, seen);
    const auto place = scratch.take<std::int32_t>(n), valid = scratch.take<std::int32_t>(n * heads);
    const auto cosines = scratch.take<real>(n, half), sines = scratch.take<real>(n, half);
    for (index_t i = 0; i < n; ++i) {
      const std::int32_t t = c.filled[static_cast<std::size_t>(i)];
      place(i) = static_cast<std::int32_t>(i * c.room) + t;
      for (index_t j = 0; j < heads; ++j) valid(i * heads + j) = t + 1;
    }
    const view<const std::int32_t, 1> now(c.filled);
    b.row_gather(positions_of(cosines_), now, cosines);
    b.row_gather(positions_of(sines_), now, sines);
    const auto turn = [&](array<2> v) { rotate_rows(b, v, n, 1, table_row::text, as_const(cosines), as_const(sines), 1); };
    b.row_gather(weight(parameter_layout::embedding), ids, x);
    for (index_t l = 0; l < config_.layers; ++l) {
      const auto keys = rows_of(c.keys, l, c), values = rows_of(c.values, l, c);  // [batch * room, width]
      rms_norm(b, x, norm(layout_.layer(l, parameter_layout::norm1)), r, h);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::k)), y);
      turn(y);
      b.row_scatter_add(as_const(y), as_const(place), keys);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::v)), y);
      b.row_scatter_add(as_const(y), as_const(place), values);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::q)), q);
      turn(q);
      gemm(b, scratch, score_scale(), per_head(q, n), heads_of(keys, c, seen).transposed(), real(0), p);
      const auto rows = reshaped(p, n * heads, seen);
      b.row_softmax(as_const(rows), as_const(valid), rows);
      gemm(b, scratch, real(1), p, heads_of(values, c, seen), real(0), per_head(h, n));
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
    b.sync();
    for (std::int32_t& t : c.filled) ++t;
    return h;
  }

  /// Keys and values of tokens, a row for each; texts that begin alike have the same rows. `[layers, capacity, 2 width]`.
  struct token_rows {
    index_t capacity = 0;
    std::vector<real> all{};
  };
  token_rows make_token_rows(index_t capacity) const {
    return {capacity, std::vector<real>(static_cast<std::size_t>(config_.layers * capacity * 2 * config_.width))};
  }
  /// Before a token is read into a row that another one had.
  void clear_row(std::int32_t row, token_rows& pool) const {
    const index_t each = 2 * config_.width;
    for (index_t l = 0; l < config_.layers; ++l)
      std::fill_n(pool.all.begin() + static_cast<std::ptrdiff_t>((l * pool.capacity + row) * each), each, real(0));
  }
  /// A text that is read on: the new tokens, and the rows of all its tokens, the new ones' last. Those are clear, and no other text has them.
  struct reading {
    std::span<const std::int32_t> ids, rows;
  };
  /// How the new tokens of many texts lie side by side: text after text, in groups of few texts with about as many new tokens. To be kept from call
  /// to call, as it has memory of its own.
  struct arrangement {
    struct group {
      index_t texts = 0, batch = 0, length = 0, seen = 0;  ///< texts, and rounded; new tokens of each, and all its tokens, rounded
    };
    struct table {
      index_t rows = 0, padded = 0;  ///< one after the other, and with each group padded to `[batch, length]`
      bool same = true;              ///< what is padded lies at the end
      void add(index_t count, index_t of, bool full) {
        same = same && full && rows == padded;
        rows += count;
        padded += of;
      }
      void close() { rows = same ? padded : rounded(rows); }
    };
    std::vector<std::int32_t> order{};  ///< of the texts
    std::vector<group> groups{};
    index_t seen = 0, most_seen = 0, scores = 0;  ///< tokens that all groups look at, and one at most; numbers of one head's attention in a group
    table tokens{}, ends{};
    bool one_each = true;  ///< new token

    // Few numbers: a backend may prepare each.
    static index_t rounded(index_t n) { return n <= 4 ? n : n <= 32 ? (n + 3) / 4 * 4 : (n + 15) / 16 * 16; }
  };

  void arrange(std::span<const reading> texts, arrangement& s) const {
    s.order.clear();
    s.groups.clear();
    s.seen = s.most_seen = s.scores = 0;
    s.tokens = s.ends = {};
    s.one_each = true;
    for (const reading& t : texts) {
      if (t.ids.empty() || t.ids.size() > t.rows.size())
        plumb::fail(plumb::message("transformer") << "a text has no new tokens, or no rows for them.");
      require_positions(static_cast<index_t>(t.rows.size()));
    }
    for (std::size_t first = 0, length = 1; first < texts.size(); length *= 2) {
      for (std::size_t i = 0; i < texts.size(); ++i)
        if (texts[i].ids.size() <= length && 2 * texts[i].ids.size() > length) s.order.push_back(static_cast<std::int32_t>(i));
      while (first < s.order.size()) {
        const auto left = static_cast<index_t>(s.order.size() - first);
        typename arrangement::group g{.texts = std::min(most_texts, left), .length = static_cast<index_t>(length)};
        index_t fresh = 0;
        for (index_t i = 0; i < g.texts; ++i, ++first) {
          const reading& t = texts[static_cast<std::size_t>(s.order[first])];
          fresh += static_cast<index_t>(t.ids.size());
          g.seen = std::max(g.seen, static_cast<index_t>(t.rows.size()));
        }
        g.seen = (g.seen + 7) / 8 * 8;
        g.batch = g.texts <= 4 ? g.texts : most_texts;
        s.tokens.add(fresh, g.batch * g.length, fresh == g.texts * g.length);
        s.ends.add(g.texts, g.batch, true);
        s.seen += g.batch * g.seen;
        s.most_seen = std::max(s.most_seen, g.batch * g.seen);
        s.scores = std::max(s.scores, g.batch * g.length * g.seen);
        s.one_each = s.one_each && g.length == 1;
        s.groups.push_back(g);
      }
    }
    s.tokens.close();
    s.ends.close();
  }

  /// Reads one or more tokens of each text at their next positions: hidden states of the texts' last tokens, `[texts or more, width]`, in the arena;
  /// row i is that of text `order[i]` of the arrangement.
  ///
  /// Products with weights have one row for each new token, and a few more. Attention has the texts of a group side by side, so that one with many
  /// new tokens costs the others nothing.
  array<2> extend(B& b, plumb::arena<>& scratch, std::span<const reading> texts, const arrangement& s, token_rows& pool) const {
    const index_t d = config_.width, f = config_.feed_forward, half = config_.head_width() / 2;
    const index_t n = s.tokens.rows, ends = s.ends.rows;
    const auto last = scratch.take<real>(ends, d);
    plumb::arena<>::frame frame(scratch);
    const auto ids = scratch.take<std::int32_t>(n), position = scratch.take<std::int32_t>(n), row = scratch.take<std::int32_t>(n);
    const auto end = scratch.take<std::int32_t>(ends), seen = scratch.take<std::int32_t>(s.seen);
    const queries all_tokens(scratch, s.tokens, config_.heads), only_ends = s.one_each ? all_tokens : queries(scratch, s.ends, config_.heads);
    lay_out(s, texts, {ids, position, row, end, seen}, all_tokens, only_ends);

    auto x = scratch.take<real>(n, d), h = scratch.take<real>(n, d), y = scratch.take<real>(n, d);
    auto gates = scratch.take<real>(n, 2 * f), act = scratch.take<real>(n, f);
    auto r = scratch.take<real>(n);
    const auto qkv = scratch.take<real>(n, 3 * d);
    const auto cosines = scratch.take<real>(n, half), sines = scratch.take<real>(n, half);
    b.row_gather(positions_of(cosines_), as_const(position), cosines);
    b.row_gather(positions_of(sines_), as_const(position), sines);
    b.row_gather(weight(parameter_layout::embedding), as_const(ids), x);
    for (index_t l = 0; l < config_.layers; ++l) {
      const array<2> rows(pool.all.data() + l * pool.capacity * 2 * d, pool.capacity, 2 * d);
      rms_norm(b, x, norm(layout_.layer(l, parameter_layout::norm1)), r, h);
      linear(b, scratch, h, weights_from(layout_.layer(l, parameter_layout::q), 3), qkv);
      rotate_heads(b, qkv.narrow(1, 0, 2 * d), as_const(cosines), as_const(sines));
      b.row_scatter_add(as_const(qkv.narrow(1, d, 2 * d)), as_const(row), rows);
      auto q = qkv.narrow(1, 0, d);
      const bool all = s.one_each || l + 1 < config_.layers;
      if (!all) {  // nobody looks at the others once all keys and values are there
        const auto of_ends = [&](array<2> from) {
          const auto kept = scratch.take<real>(ends, d);
          b.row_gather(as_const(from), as_const(end), kept);
          return kept;
        };
        q = of_ends(q), x = of_ends(x);
        h = scratch.take<real>(ends, d), y = scratch.take<real>(ends, d), r = scratch.take<real>(ends);
        gates = scratch.take<real>(ends, 2 * f), act = scratch.take<real>(ends, f);
      }
      attend(b, scratch, s, all ? all_tokens : only_ends, all, q, as_const(rows), as_const(seen), h);
      linear(b, scratch, h, weight(layout_.layer(l, parameter_layout::o)), y);
      b.transform(plumb::math::plus{}, x, as_const(x), as_const(y));
      rms_norm(b, x, norm(layout_.layer(l, parameter_layout::norm2)), r, h);
      linear(b, scratch, h, weights_from(layout_.layer(l, parameter_layout::gate), 2), gates);
      b.transform(swiglu{}, act, as_const(gates.narrow(1, 0, f)), as_const(gates.narrow(1, f, f)));
      linear(b, scratch, act, weight(layout_.layer(l, parameter_layout::down)), y);
      b.transform(plumb::math::plus{}, x, as_const(x), as_const(y));
    }
    rms_norm(b, x, norm(layout_.final_norm(config_.layers)), r, last);
    b.sync();
    return last;
  }
  /// Bytes of the arena that `extend` takes, but for what products take themselves.
  std::size_t extend_workspace(const arrangement& s) const {
    const index_t d = config_.width, f = config_.feed_forward, heads = config_.heads, n = s.tokens.rows, ends = s.ends.rows;
    plumb::workspace_size w;
    w.add<real>(ends * d);
    for (const index_t count : {n, n, n, ends, s.seen}) w.add<std::int32_t>(count);
    for (const auto& each : {s.tokens, s.ends}) {
      for (const index_t count : {each.padded * heads, each.padded, each.rows}) w.add<std::int32_t>(count);
      for (const index_t columns : {d, d, d, d, 2 * f, f, index_t{1}}) w.add<real>(each.rows * columns);
    }
    for (const index_t count : {n * 3 * d, s.most_seen * 2 * d, n * config_.head_width() / 2, n * config_.head_width() / 2, s.tokens.padded * d,
                                s.tokens.padded * d, s.scores * heads})
      w.add<real>(count);
    return w.bytes();
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
  array<2> rows_of(std::vector<real>& all, index_t layer, const cache& c) const {
    const index_t rows = c.batch * c.room;
    return {all.data() + layer * rows * config_.width, rows, config_.width};
  }
  // The first `count` positions of the cache's texts, head by head.
  array<4> heads_of(array<2> x, const cache& c, index_t count) const {
    const index_t dh = config_.head_width();
    return {x.data(), {c.batch, config_.heads, count, dh}, {c.room * x.stride(0), dh, x.stride(0), 1}};
  }

  // Of a group: their keys and values stay in the processor's nearer memory until attention has seen them.
  static constexpr index_t most_texts = 8;

  // The rows that attention asks for: where each padded one comes from, where each goes to, and how many positions it sees, head by head.
  struct queries {
    view<std::int32_t, 1> from{}, to{}, valid{};
    bool same;
    queries(plumb::arena<>& scratch, const typename arrangement::table& t, index_t heads)
        : valid(scratch.take<std::int32_t>(t.padded * heads)), same(t.same) {
      if (same) return;
      from = scratch.take<std::int32_t>(t.padded);
      to = scratch.take<std::int32_t>(t.rows);
      for (index_t i = 0; i < t.padded; ++i) from(i) = -1;
      for (index_t i = 0; i < t.rows; ++i) to(i) = -1;
    }
  };

  // Of each new token itself, its position and its row of the pool; which of them is each text's last one; rows of the pool that attention looks at.
  struct lists {
    view<std::int32_t, 1> ids, position, row, end, seen;
  };
  void lay_out(const arrangement& s, std::span<const reading> texts, const lists& out, const queries& all_tokens, const queries& ends) const {
    const index_t heads = config_.heads;
    index_t k = 0, e = 0, token_at = 0, end_at = 0, seen_at = 0;
    for (const auto& g : s.groups) {
      for (index_t i = 0; i < g.batch; ++i, seen_at += g.seen) {
        const reading t = i < g.texts ? texts[static_cast<std::size_t>(s.order[static_cast<std::size_t>(e)])] : reading{};
        const auto all = static_cast<index_t>(t.rows.size()), fresh = static_cast<index_t>(t.ids.size()), old = all - fresh;
        for (index_t j = 0; j < g.seen; ++j) out.seen(seen_at + j) = j < all ? t.rows[static_cast<std::size_t>(j)] : -1;
        for (index_t head = 0; head < heads; ++head) {
          for (index_t j = 0; j < g.length; ++j)
            all_tokens.valid(token_at * heads + (i * heads + head) * g.length + j) = static_cast<std::int32_t>(j < fresh ? old + j + 1 : 1);
          if (!s.one_each) ends.valid((end_at + i) * heads + head) = static_cast<std::int32_t>(i < g.texts ? all : 1);
        }
        if (i >= g.texts) continue;
        for (index_t j = 0; j < fresh; ++j, ++k) {
          out.ids(k) = t.ids[static_cast<std::size_t>(j)];
          out.position(k) = static_cast<std::int32_t>(old + j);
          out.row(k) = t.rows[static_cast<std::size_t>(old + j)];
          if (all_tokens.same) continue;
          all_tokens.from(token_at + i * g.length + j) = static_cast<std::int32_t>(k);
          all_tokens.to(k) = static_cast<std::int32_t>(token_at + i * g.length + j);
        }
        out.end(e) = static_cast<std::int32_t>(k - 1);
        if (!ends.same) {
          ends.from(end_at + i) = static_cast<std::int32_t>(e);
          ends.to(e) = static_cast<std::int32_t>(end_at + i);
        }
        ++e;
      }
      token_at += g.batch * g.length;
      end_at += g.batch;
    }
    for (; k < out.ids.extent(0); ++k) out.ids(k) = out.position(k) = 0, out.row(k) = -1;
    for (; e < out.end.extent(0); ++e) out.end(e) = -1;
  }

  // Attention of `q` over the keys and values in the pool's rows `seen`, group by group. `all`: of every new token, or of each text's last one only.
  void attend(B& b, plumb::arena<>& scratch, const arrangement& s, const queries& rows, bool all, array<2> q, const_array<2> pool,
              view<const std::int32_t, 1> seen, array<2> mixed) const {
    plumb::arena<>::frame frame(scratch);
    const index_t d = config_.width, heads = config_.heads, padded = rows.valid.extent(0) / heads;
    array<2> asked = q, answers = mixed;
    if (!rows.same) {
      asked = scratch.take<real>(padded, d);
      answers = scratch.take<real>(padded, d);
      b.row_gather(as_const(q), as_const(rows.from), asked);
    }
    const auto memory = scratch.take<real>(s.scores * heads);
    const auto known = scratch.take<real>(s.most_seen, 2 * d);
    index_t at = 0, seen_at = 0;
    for (const auto& g : s.groups) {
      const index_t length = all ? g.length : 1, count = g.batch * length;
      const auto of_group = known.slice(0, g.batch * g.seen);
      b.row_gather(pool, seen.slice(seen_at, g.batch * g.seen), of_group);
      const auto keys = of_group.narrow(1, 0, d), values = of_group.narrow(1, d, d);
      const array<4> p(memory.data(), g.batch, heads, length, g.seen);
      gemm(b, scratch, score_scale(), per_head(asked.slice(at, count), g.batch), per_head(keys, g.batch).transposed(), real(0), p);
      const auto flat = reshaped(p, count * heads, g.seen);
      b.row_softmax(as_const(flat), as_const(rows.valid.slice(at * heads, count * heads)), flat);
      gemm(b, scratch, real(1), p, per_head(values, g.batch), real(0), per_head(answers.slice(at, count), g.batch));
      at += count;
      seen_at += g.batch * g.seen;
    }
    if (!rows.same) b.row_gather(as_const(answers), as_const(rows.to), mixed);
  }

  // Queries and keys beside one another, each row at a position of its own.
  void rotate_heads(B& b, array<2> x, const_array<2> cosines, const_array<2> sines) const {
    const index_t n = x.extent(0), dh = config_.head_width(), half = dh / 2, heads = x.extent(1) / dh;
    const view<real, 4> all(x.data(), {n, 1, heads, dh}, {x.stride(0), x.stride(0), dh, 1});
    const auto low = all.narrow(3, 0, half), high = all.narrow(3, half, half);
    const auto table = [&](const_array<2> rows) { return view<const real, 4>(rows.data(), {n, 1, heads, half}, {half, half, 0, 1}); };
    b.transform2(rotate<real>{real(1)}, low, high, as_const(low), as_const(high), table(cosines), table(sines));
  }
  // `count` matrices that lie one behind the other, as one.
  const_array<2> weights_from(std::size_t first, std::size_t count) const {
    index_t rows = 0;
    for (std::size_t i = first; i < first + count; ++i) rows += layout_.list()[i].rows;
    return {weights_.data() + layout_.list()[first].offset, rows, layout_.list()[first].columns};
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

  // In place, on rows `[batch, length]`. The rows of `cosines` and `sines` are positions: row i is that of text i, or of place i in each text.
  enum class table_row { text, place };
  void rotate_rows(B& b, array<2> x, index_t batch, index_t length, table_row kind, const_array<2> cosines, const_array<2> sines,
                   int direction) const {
    const index_t dh = config_.head_width(), half = dh / 2;
    const view<real, 4> all(x.data(), {batch, length, config_.heads, dh}, {length * x.stride(0), x.stride(0), dh, 1});
    const auto low = all.narrow(3, 0, half), high = all.narrow(3, half, half);
    const index_t by_text = kind == table_row::text ? half : 0, by_place = half - by_text;
    const auto table = [&](const_array<2> rows) {
      return view<const real, 4>(rows.data(), {batch, length, config_.heads, half}, {by_text, by_place, 0, 1});
    };
    b.transform2(rotate<real>{static_cast<real>(direction)}, low, high, as_const(low), as_const(high), table(cosines), table(sines));
  }
  const_array<2> positions_of(const std::vector<real>& table) const { return {table.data(), config_.positions, config_.head_width() / 2}; }
  void rotate_positions(B& b, array<2> x, index_t batch, index_t length, int direction) const {
    rotate_rows(b, x, batch, length, table_row::place, positions_of(cosines_), positions_of(sines_), direction);
  }

  transformer_config config_;
  parameter_layout layout_;
  std::vector<real> weights_, gradients_;
  std::vector<real> cosines_, sines_;
};

}  // namespace lab

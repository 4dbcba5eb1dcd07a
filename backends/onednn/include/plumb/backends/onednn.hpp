#pragma once
// The oneDNN backend: float, with bf16 and f16 storage, on the user's engine and stream. oneDNN 2.6 and 3.x.
//
// oneDNN's own: gemm. Everything else is a loop of ours, in vectors of the widest kind that the processor has (chosen at run time), on
// OpenMP's threads where the unit is compiled with -fopenmp; the short ones (segments, picks) are the serial backend's.

#include <plumb/backends/onednn/lines.hpp>
#include <plumb/backends/onednn/matmul.hpp>
#include <plumb/backends/serial.hpp>
#include <plumb/compute/fused.hpp>
#include <plumb/math/elementwise.hpp>

PLUMB_NAMESPACE_BEGIN

namespace onednn {

/// Made from a CPU engine and a stream of it; both stay the user's. Operations have finished when they return.
///
/// The first gemm of a shape makes a primitive (0.2 ms or so), which is kept: those of the 512 shapes used last are. After that, calls allocate
/// nothing but what `dnnl_primitive_execute` does inside. Primitives are made for the number of threads of that first call.
class backend {
 public:
  using real = float;
  using memory_space = host_space;
  using storage_types = types<float, bf16, f16>;
  using capabilities = plumb::capabilities<cap::token_logp, cap::token_logp_grad, cap::gae, cap::ranks>;
  static constexpr determinism determinism_level = determinism::run_to_run;

  backend(const dnnl::engine& engine, const dnnl::stream& stream) : engine_(engine), stream_(stream) {
    dnnl_engine_kind_t kind = dnnl_any_engine;
    compat::require_success("onednn::backend", "engine_get_kind", dnnl_engine_get_kind(engine_.get(), &kind));
    if (kind != dnnl_cpu) fail(message("onednn::backend") << "the engine is not a CPU engine, but the views lie in host memory.");
  }
  /// With memory of the user's for oneDNN's scratchpads: a gemm whose scratchpad fits into it takes none of the arena for that.
  backend(const dnnl::engine& engine, const dnnl::stream& stream, void* scratchpad, std::size_t bytes)
      : backend(engine, stream) {
    scratchpad_ = scratchpad;
    scratchpad_bytes_ = bytes;
  }

  /// How products of this storage type are made here: "native", or "cast to float" (in blocks of scratch).
  template <class S>
  const char* gemm_path() const {
    return multiplies<S>() ? "native" : "cast to float";
  }

  /// Uses no wider vectors than `most` in our own loops.
  void limit(isa most) {
    const isa best = detail::best_isa();
    isa_ = most < best ? most : best;
  }

  template <class T, int R>
  void fill(view<T, R> y, real value) {
    detail::for_each_line(isa_, detail::fill_line<T>{convert<T>(value)}, y);
  }

  template <class S, class T, int R>
  void copy(view<S, R> x, view<T, R> y) {
    check::copy(x, y);
    if constexpr (storage_types::contains<T>) {
      detail::for_each_line(isa_, detail::transform_line<math::identity>{}, y, x);
    } else {
      serial_.copy(x, y);
    }
  }

  template <class F, class T, int R, class... X>
  void transform(F f, view<T, R> y, view<X, R>... x) {
    check::transform(y, x...);
    detail::for_each_line(isa_, detail::transform_line<F>{f}, y, x...);
  }

  template <class F, class T, class U, int R, class... X>
  void transform2(F f, view<T, R> y, view<U, R> z, view<X, R>... x) {
    check::transform(y, z, x...);
    detail::for_each_line(isa_, detail::transform2_line<F>{f}, y, z, x...);
  }

  // Dense rows or columns of a matrix (or what can be seen as one) by our loops; the rest by the serial backend.
  template <class X, int R>
  void reduce(reduction op, view<X, R> x, view<real, R> y, write_mode w = write_mode::overwrite) {
    check::reduce(x, y);
    constexpr bool is_float = std::is_same_v<std::remove_const_t<X>, float>;
    // Extents other than 1, outermost first: kept ones before reduced ones make rows, the other way round columns.
    index_t kept = 1, reduced = 1;
    bool rows = true, columns = true;
    for (int d = 0; d < R; ++d) {
      if (x.extent(d) == 1) continue;
      const bool keeps = y.extent(d) == x.extent(d);
      rows = rows && (!keeps || reduced == 1);
      columns = columns && (keeps || kept == 1);
      (keeps ? kept : reduced) *= x.extent(d);
    }
    const bool add = w == write_mode::add, is_sum = op == reduction::sum;
    bool is_matrix = !x.empty() && y.contiguous() && storage_types::contains<std::remove_const_t<X>>;
    index_t row_stride = rows ? reduced : kept;
    if (!x.contiguous()) {
      is_matrix = is_matrix && R == 2 && x.stride(R - 1) == 1 && x.extent(R - 1) == row_stride;
      row_stride = x.stride(0);
    }
    const view<real, 1> out(y.pointer, kept);
    if (is_matrix && rows) {
      const view<X, 2> m(x.pointer, {kept, reduced}, {row_stride, 1});
      detail::share(kept, reduced, [&](index_t first, index_t last) {
        detail::dispatch(isa_, detail::reduce_rows<X>{is_sum, add, m, out, first, last});
      });
      return;
    }
    if constexpr (is_float)
      if (is_matrix && columns && is_sum) {
        const view<const real, 2> m(x.pointer, {reduced, kept}, {row_stride, 1});
        constexpr index_t strip = 64;
        detail::share((kept + strip - 1) / strip, strip * reduced, [&](index_t first, index_t last) {
          const index_t end = last * strip < kept ? last * strip : kept;
          detail::dispatch(isa_, detail::sum_columns{add, m, out, first * strip, end});
        });
        return;
      }
    serial_.reduce(op, x, y, w);
  }

  void segment_reduce(reduction op, view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y) {
    serial_.segment_reduce(op, x, layout, y);
  }
  void segment_broadcast(view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y,
                         write_mode w = write_mode::overwrite) {
    serial_.segment_broadcast(x, layout, y, w);
  }
  void segment_scan(view<const real, 1> a, view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y) {
    serial_.segment_scan(a, x, layout, y);
  }

  template <class X>
  void row_log_sum_exp(view<X, 2> x, view<real, 1> y) {
    check::row_log_sum_exp(x, y);
    detail::share(x.extent(0), x.extent(1), [&](index_t first, index_t last) {
      detail::dispatch(isa_, detail::log_sum_exp_rows<X>{x, y, first, last});
    });
  }

  template <class X>
  void row_pick(view<X, 2> x, view<const std::int32_t, 1> ids, view<real, 1> y) {
    serial_.row_pick(x, ids, y);
  }
  template <class Y>
  void row_add_at(view<const real, 1> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    serial_.row_add_at(x, ids, y);
  }

  template <class X, class Y>
  void row_gather(view<X, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_gather(x, ids, y);
    detail::share(y.extent(0), y.extent(1), [&](index_t first, index_t last) {
      detail::dispatch(isa_, detail::gather_rows<X, Y>{x, ids, y, first, last});
    });
  }

  // In one thread: ids may repeat, and the order of the additions must not change from run to run.
  template <class Y>
  void row_scatter_add(view<const real, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_scatter_add(x, ids, y);
    detail::dispatch(isa_, detail::scatter_add_rows<Y>{x, ids, y});
  }

  void row_softmax(view<const real, 2> x, view<const std::int32_t, 1> valid, view<real, 2> y) {
    check::row_softmax(x, valid, y);
    if (!dense_rows(x) || !dense_rows(y)) return serial_.row_softmax(x, valid, y);
    detail::share(x.extent(0), x.extent(1), [&](index_t first, index_t last) {
      detail::dispatch(isa_, detail::softmax_rows{x, valid, y, first, last});
    });
  }

  void row_softmax_grad(view<const real, 2> y, view<const real, 2> dy, view<real, 2> dx) {
    check::row_softmax_grad(y, dy, dx);
    if (!dense_rows(y) || !dense_rows(dy) || !dense_rows(dx)) return serial_.row_softmax_grad(y, dy, dx);
    detail::share(y.extent(0), y.extent(1), [&](index_t first, index_t last) {
      detail::dispatch(isa_, detail::softmax_grad_rows{y, dy, dx, first, last});
    });
  }

  // One oneDNN matmul where strides and types allow. Otherwise operands are copied to dense floats first, in blocks of at most
  // `cast_limit` elements, so that a 16-bit head never exists a second time in float.
  template <class S, int R>
  void gemm(arena<>& scratch, real alpha, view<S, R> a, view<S, R> b, real beta, view<real, R> c) {
    check::gemm(a, b, c);
    if (c.empty()) return;
    const bool add = !(beta == 0);
    const asked variants{.every = false, .scale = alpha != 1};
    scratch.require("gemm", workspace(a, b, c, add, variants));
    if (a.extent(R - 1) == 0 && !add) return fill(c, real(0));
    if (add && beta != 1) transform(math::scale<real>{beta}, c, as_const(c));
    if (a.extent(R - 1) == 0) return;
    for_each_block(a, b, c, add, variants, [&](const auto& x, const auto& y, const auto& z, bool adds) {
      multiply(scratch, alpha, x, y, adds, z);
    });
  }
  template <class S, int R>
  std::size_t gemm_workspace(const view<S, R>& a, const view<S, R>& b, const view<real, R>& c) const {
    return workspace(a, b, c, false, {.every = true, .scale = false});
  }

  /// Fused `token_logp`: one pass over each row.
  template <class S>
  void token_logp(const token_logp_inputs<S>& in, const token_logp_options& options, const token_logp_outputs<real>& out) {
    const detail::logit_lanes map{math::logit_map<real>::from(options)};
    detail::share(in.logits.extent(0), in.logits.extent(1), [&](index_t first, index_t last) {
      detail::dispatch(isa_, detail::token_logp_rows<S>{in, out, map, first, last});
    });
  }

  /// Fused gradient of `token_logp`: one pass, in place where `d_logits` is the logits.
  template <class S>
  void token_logp_grad(const token_logp_inputs<S>& in, const token_logp_options& options,
                       const token_logp_gradients<real>& grad, view<S, 2> d_logits) {
    const detail::logit_lanes map{math::logit_map<real>::from(options)};
    detail::share(in.logits.extent(0), in.logits.extent(1), [&](index_t first, index_t last) {
      detail::dispatch(isa_, detail::token_logp_grad_rows<S>{in, grad, d_logits, map, first, last});
    });
  }

  void gae(const trajectory_inputs<real>& in, const gae_options& options, const gae_outputs<real>& out) { serial_.gae(in, options, out); }
  void ranks(arena<>& scratch, view<const real, 1> x, view<real, 1> y) { serial_.ranks(scratch, x, y); }
  void match_ranks(arena<>& scratch, view<const real, 1> x, view<const real, 1> from, view<const real, 1> to, view<real, 1> y) {
    serial_.match_ranks(scratch, x, from, to, y);
  }
  std::size_t ranks_workspace(index_t n) const { return serial_.ranks_workspace(n); }

  void sync() { compat::require_success("sync", "stream_wait", dnnl_stream_wait(stream_.get())); }

 private:
  static constexpr index_t cast_limit = index_t{1} << 21;

  /// The variants of a product that may run: every one where alpha and beta are not known yet.
  struct asked {
    bool every, scale;
    template <class F>
    void for_each(bool add, const F& f) const {
      if (!every) return f(detail::matmul_variant{scale, add});
      for (const bool s : {false, true})
        for (const bool a : {false, true}) f(detail::matmul_variant{s, a});
    }
  };

  template <class S, int R>
  std::size_t workspace(const view<S, R>& a, const view<S, R>& b, const view<real, R>& c, bool add, const asked& variants) const {
    if (c.empty() || a.extent(R - 1) == 0) return 0;
    needs most{};
    int blocks = 0;
    for_each_block(a, b, c, add, variants, [&](const auto& x, const auto& y, const auto& z, bool adds) {
      const needs n = multiply_needs(x, y, z, adds, variants);
      if (n.copies > most.copies) most.copies = n.copies;
      if (n.scratchpad > most.scratchpad) most.scratchpad = n.scratchpad;
      ++blocks;
    });
    // All blocks of a product may come close to the limit: then a product with fewer rows wants no more copies than this one.
    if (blocks > 1) most.copies = workspace_size().add<real>(cast_limit).bytes() + 2 * arena_alignment;
    return workspace_size().add_bytes(most.copies).add_bytes(most.scratchpad).bytes();
  }

  template <class X>
  static bool dense_rows(const view<X, 2>& x) {
    return x.stride(1) == 1 || x.extent(1) == 1;
  }

  /// Whether oneDNN multiplies this type here, rather than a copy in float.
  template <class S>
  bool multiplies() const {
    using T = std::remove_const_t<S>;
    return std::is_same_v<T, float> || (std::is_same_v<T, bf16> && has_bf16_);
  }

  /// Extents and strides as oneDNN is told them: a dimension of extent 1 gets the stride of a dense array, whatever the view says.
  template <class X, int R>
  static detail::matmul_array described(const view<X, R>& v) {
    detail::matmul_array m;
    for (int d = 0; d < R; ++d) {
      m.extents[d] = v.extents[d];
      m.strides[d] = v.strides[d];
    }
    if (v.extents[R - 1] == 1) m.strides[R - 1] = 1;
    if (v.extents[R - 2] == 1) m.strides[R - 2] = m.strides[R - 1] == 1 ? v.extents[R - 1] : 1;
    for (int d = R - 2; d-- > 0;) {
      if (m.strides[d] == 0) m.extents[d] = 1;
      if (m.extents[d] != 1) continue;
      m.strides[d] = 1;
      for (int k = d + 1; k < R; ++k)
        if (m.extents[k] * m.strides[k] > m.strides[d]) m.strides[d] = m.extents[k] * m.strides[k];
    }
    return m;
  }

  /// What oneDNN can address: one of the last two dimensions dense, and no element twice (but for a broadcast batch).
  template <class X, int R>
  static bool is_plain(const view<X, R>& v) {
    const detail::matmul_array m = described(v);
    if (m.strides[R - 1] != 1 && m.strides[R - 2] != 1) return false;
    // A single row or column with gaps: oneDNN 3.7 takes it for a dense one.
    for (const int d : {R - 1, R - 2})
      if (m.extents[d] > 1 && m.strides[d] != 1 && m.extents[2 * R - 3 - d] == 1) return false;
    bool seen[R] = {};
    for (index_t span = 1, left = R; left > 0; --left) {  // in the order of growing strides
      int next = -1;
      for (int d = 0; d < R; ++d)
        if (!seen[d] && (next < 0 || m.strides[d] < m.strides[next] ||
                         (m.strides[d] == m.strides[next] && m.extents[d] < m.extents[next])))
          next = d;
      if (m.strides[next] < span) return false;
      span = m.strides[next] * m.extents[next];
      seen[next] = true;
    }
    return true;
  }

  /// Whether both operands broadcast over some dimension of the batch, for which oneDNN has no words.
  template <class X, int R>
  static bool both_broadcast(const view<X, R>& a, const view<X, R>& b) {
    for (int d = 0; d < R - 2; ++d)
      if (a.extents[d] > 1 && a.strides[d] == 0 && b.strides[d] == 0) return true;
    return false;
  }

  struct copies {
    bool a, b, c;
  };
  template <class S, int R>
  copies needed_copies(const view<S, R>& a, const view<S, R>& b, const view<real, R>& c, bool add, const asked& variants) const {
    const bool odd_a = !is_plain(a) || both_broadcast(a, b), odd_b = !is_plain(b);
    const bool row_major = is_plain(c) && described(c).strides[R - 1] == 1;
    bool cast = false;
    if constexpr (!std::is_same_v<std::remove_const_t<S>, real>) {
      cast = !multiplies<S>() || odd_a || odd_b;
      if (!cast) {
        detail::matmul& m = primitives(a, b, row_major ? c : dense_like(c, true));
        variants.for_each(add && row_major, [&](detail::matmul_variant v) { cast = cast || !m.available("gemm", v); });
      }
    }
    return {cast || odd_a, cast || odd_b, !row_major};
  }

  /// A dense float array for a copy of `v`; dimensions over which `v` broadcasts the batch stay broadcast unless `expand`.
  template <class X, int R>
  static view<real, R> dense_like(const view<X, R>& v, bool expand) {
    view<real, R> y;
    index_t stride = 1;
    for (int d = R; d-- > 0;) {
      y.extents[d] = v.extents[d];
      const bool broadcast = d < R - 2 && v.strides[d] == 0 && !expand;
      y.strides[d] = broadcast ? 0 : stride;
      if (!broadcast) stride *= v.extents[d];
    }
    return y;
  }
  template <int R>
  static index_t elements(const view<real, R>& v) {
    index_t n = 1;
    for (int d = 0; d < R; ++d) n *= v.strides[d] == 0 ? 1 : v.extents[d];
    return n;
  }

  /// Calls `f(a, b, c, add)` for blocks of the product whose copies stay below the limit: all of it, or halves of the largest dimension.
  template <class S, int R, class F>
  void for_each_block(view<S, R> a, view<S, R> b, view<real, R> c, bool add, const asked& variants, const F& f) const {
    // A result by columns is the transposed product by rows.
    if (described(c).strides[R - 1] != 1 && described(c).strides[R - 2] == 1)
      return for_each_block(b.transposed(), a.transposed(), c.transposed(), add, variants, f);
    const copies n = needed_copies(a, b, c, add, variants);
    const bool expand = both_broadcast(a, b);
    const index_t copied = (n.a ? elements(dense_like(a, expand)) : 0) + (n.b ? elements(dense_like(b, false)) : 0) +
                           (n.c ? c.size() : 0);
    const auto half = [](index_t extent) { return extent > 128 ? (extent / 2 + 63) / 64 * 64 : extent / 2; };
    const auto part = [](auto v, int d, index_t at, bool second) {
      return second ? v.narrow(d, at, v.extent(d) - at) : v.narrow(d, 0, at);
    };
    if (copied > cast_limit) {
      for (int d = 0; d < R - 2; ++d)
        if (c.extent(d) > 1) {
          for (const bool second : {false, true}) {
            const index_t at = c.extent(d) / 2;
            for_each_block(part(a, d, at, second), part(b, d, at, second), part(c, d, at, second), add, variants, f);
          }
          return;
        }
      const index_t rows = n.a || n.c ? c.extent(R - 2) : 1, columns = n.b || n.c ? c.extent(R - 1) : 1,
                    inner = n.a || n.b ? a.extent(R - 1) : 1;
      for (const bool second : {false, true}) {
        if (rows >= columns && rows >= inner) {
          const index_t at = half(rows);
          for_each_block(part(a, R - 2, at, second), b, part(c, R - 2, at, second), add, variants, f);
        } else if (columns >= inner) {
          const index_t at = half(columns);
          for_each_block(a, part(b, R - 1, at, second), part(c, R - 1, at, second), add, variants, f);
        } else {
          const index_t at = half(inner);
          for_each_block(part(a, R - 1, at, second), part(b, R - 2, at, second), c, add || second, variants, f);
        }
      }
      return;
    }
    f(a, b, c, add);
  }

  template <class A, int R>
  detail::matmul& primitives(const view<A, R>& a, const view<A, R>& b, const view<real, R>& c) const {
    detail::matmul_problem p;
    p.type = std::is_same_v<std::remove_const_t<A>, bf16> ? dnnl_bf16 : dnnl_f32;
    p.rank = R;
    p.a = described(a);
    p.b = described(b);
    p.c = described(c);
    return cache_.find("gemm", p, engine_.get());
  }

  struct needs {
    std::size_t copies, scratchpad;
  };
  template <class S, int R>
  needs multiply_needs(const view<S, R>& a, const view<S, R>& b, const view<real, R>& c, bool add, const asked& variants) const {
    const copies n = needed_copies(a, b, c, add, variants);
    const auto da = dense_like(a, both_broadcast(a, b)), db = dense_like(b, false), dc = dense_like(c, true);
    workspace_size w;
    if (n.a) w.add<real>(elements(da));
    if (n.b) w.add<real>(elements(db));
    if (n.c) w.add<real>(elements(dc));
    std::size_t bytes = 0;
    const auto most = [&](detail::matmul& m) {
      variants.for_each(add && !n.c, [&](detail::matmul_variant v) {
        if (const std::size_t wanted = m.bytes("gemm", v); wanted > bytes) bytes = wanted;
      });
    };
    if constexpr (std::is_same_v<std::remove_const_t<S>, real>) {
      most(primitives<real>(n.a ? da : writable(a), n.b ? db : writable(b), n.c ? dc : c));
    } else if (n.a) {
      most(primitives<real>(da, db, n.c ? dc : c));
    } else {
      most(primitives(a, b, n.c ? dc : c));
    }
    return {w.bytes(), bytes > scratchpad_bytes_ ? bytes : 0};
  }
  // The same view, for calls that take one type; nothing is written through it.
  template <int R>
  static view<real, R> writable(const view<const real, R>& v) {
    return {const_cast<real*>(v.pointer), v.extents, v.strides};
  }
  template <int R>
  static view<real, R> writable(const view<real, R>& v) {
    return v;
  }

  /// `c = alpha a b (+ c)`, with dense float copies of what oneDNN cannot take as it is.
  template <class S, int R>
  void multiply(arena<>& scratch, real alpha, const view<S, R>& a, const view<S, R>& b, bool add, const view<real, R>& c) {
    arena<>::frame frame(scratch);
    const copies n = needed_copies(a, b, c, add, {.every = false, .scale = alpha != 1});
    const auto take = [&](view<real, R> dense) {
      dense.pointer = scratch.take<real>(elements(dense)).pointer;
      return dense;
    };
    const auto copied = [&](const view<S, R>& v, bool expand) {
      const view<real, R> dense = take(dense_like(v, expand));
      view<S, R> from = v;
      view<real, R> to = dense;
      for (int d = 0; d < R; ++d)
        if (dense.strides[d] == 0) from.extents[d] = to.extents[d] = 1;
      copy(from, to);
      return dense;
    };
    const view<real, R> result = n.c ? take(dense_like(c, true)) : c;
    const bool adds = add && !n.c;
    if constexpr (std::is_same_v<std::remove_const_t<S>, real>) {
      run<real>(scratch, alpha, n.a ? copied(a, both_broadcast(a, b)) : writable(a), n.b ? copied(b, false) : writable(b), adds,
                result);
    } else if (n.a) {
      const view<real, R> da = copied(a, both_broadcast(a, b));
      run<real>(scratch, alpha, da, copied(b, false), adds, result);
    } else {
      run(scratch, alpha, a, b, adds, result);
    }
    if (!n.c) return;
    if (add) {
      transform(math::plus{}, c, as_const(c), as_const(result));
    } else {
      copy(as_const(result), c);
    }
  }

  template <class A, int R>
  void run(arena<>& scratch, real alpha, const view<A, R>& a, const view<A, R>& b, bool add, const view<real, R>& c) {
    detail::matmul& m = primitives(a, b, c);
    const detail::matmul_variant v{alpha != 1, add};
    if constexpr (std::is_same_v<std::remove_const_t<A>, real>)
      if (!m.available("gemm", v)) return run_sgemm(alpha, a, b, add, c);
    void* scratchpad = scratchpad_;
    if (const std::size_t bytes = m.bytes("gemm", v); bytes > scratchpad_bytes_) scratchpad = scratch.take<char>(bytes).pointer;
    m.run("gemm", stream_.get(), alpha, a.pointer, b.pointer, add, c.pointer, scratchpad);
  }

  /// oneDNN 2.6 without AVX-512 has no fast matmul that both scales and adds; its BLAS-like call does.
  template <int R>
  void run_sgemm(real alpha, const view<real, R>& a, const view<real, R>& b, bool add, const view<real, R>& c) {
    if constexpr (R > 2) {
      for (index_t i = 0; i < c.extent(0); ++i) run_sgemm(alpha, a.row(i), b.row(i), add, c.row(i));
    } else {
      const detail::matmul_array x = described(a), y = described(b), z = described(c);
      const bool tx = x.strides[1] != 1, ty = y.strides[1] != 1;
      compat::require_success("gemm", "sgemm",
                              dnnl_sgemm(tx ? 'T' : 'N', ty ? 'T' : 'N', c.extent(0), c.extent(1), a.extent(1), alpha,
                                         a.pointer, x.strides[tx ? 1 : 0], b.pointer, y.strides[ty ? 1 : 0],
                                         add ? 1.0f : 0.0f, c.pointer, z.strides[0]));
    }
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  serial::backend<real> serial_;
  mutable detail::matmul_cache cache_;
  void* scratchpad_ = nullptr;
  std::size_t scratchpad_bytes_ = 0;
  isa isa_ = detail::best_isa();
  bool has_bf16_ = compat::has_bf16_instructions();
};

}  // namespace onednn

PLUMB_NAMESPACE_END

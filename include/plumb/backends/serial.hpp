#pragma once
// The serial backend: every operation as a plain loop, for any scalar type. The default, and the smallest complete model.

#include <plumb/compute/backend.hpp>
#include <plumb/compute/fused.hpp>
#include <plumb/math/returns.hpp>

#include <limits>

PLUMB_NAMESPACE_BEGIN

namespace serial {

/// `Real` is float, double, or any number type with arithmetic and the functions of math/scalar.hpp (dual numbers, for instance).
/// Runs at once in the calling thread and allocates nothing; only `ranks` and `match_ranks` take scratch.
template <class Real = float>
class backend {
 public:
  using real = Real;
  using memory_space = host_space;
  using storage_types = std::conditional_t<std::is_same_v<Real, float>, types<float, bf16, f16>,
                                           std::conditional_t<std::is_same_v<Real, double>,
                                                              types<double, float, bf16, f16>, types<Real>>>;
  using capabilities = std::conditional_t<std::is_floating_point_v<Real>, plumb::capabilities<cap::gae, cap::ranks>, plumb::capabilities<>>;
  static constexpr determinism determinism_level = determinism::thread_count_invariant;

  template <class T, int R>
  void fill(view<T, R> y, real value) {
    const T v = convert<T>(value);
    each([v](T& out) { out = v; }, y);
  }

  template <class S, class T, int R>
  void copy(view<S, R> x, view<T, R> y) {
    check::copy(x, y);
    each([](T& out, const S& in) { out = convert<T>(in); }, y, x);
  }

  template <class F, class T, int R, class... X>
  void transform(F f, view<T, R> y, view<X, R>... x) {
    check::transform(y, x...);
    each([f](T& out, const X&... in) { out = convert<T>(f(convert<real>(in)...)); }, y, x...);
  }

  template <class F, class T, class U, int R, class... X>
  void transform2(F f, view<T, R> y, view<U, R> z, view<X, R>... x) {
    check::transform(y, z, x...);
    each(
        [f](T& out0, U& out1, const X&... in) {
          const two<real> r = f(convert<real>(in)...);
          out0 = convert<T>(r.first);
          out1 = convert<U>(r.second);
        },
        y, z, x...);
  }

  template <class X, int R>
  void reduce(reduction op, view<X, R> x, view<real, R> y, write_mode w = write_mode::overwrite) {
    check::reduce(x, y);
    // Each element of `y` owns a box of `x`: its own coordinate where extents agree, all of it where `y` has extent 1.
    view<X, R> box = x;
    for (int d = 0; d < R; ++d)
      if (y.extents[d] == x.extents[d]) box.extents[d] = 1;
    view<X, R> corner = x;  // the first element of each box, walked along with `y`
    for (int d = 0; d < R; ++d) corner.extents[d] = y.extents[d];
    if (x.empty()) {
      each([op, w](real& out) { out = w == write_mode::add ? out + identity(op) : real(identity(op)); }, y);
      return;
    }
    each(
        [&](real& out, X& first) {
          view<X, R> v = box;
          v.pointer = &first;
          accumulator a(op);
          each([&a](X& e) { a.take(convert<real>(e)); }, v);
          out = w == write_mode::add ? out + a.result() : a.result();
        },
        y, corner);
  }

  void segment_reduce(reduction op, view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y) {
    check::segment_reduce(x, layout, y);
    for (index_t s = 0; s < layout.sequences(); ++s) {
      accumulator a(op);
      for (index_t t = layout.begin(s); t < layout.end(s); ++t)
        if (scored(layout, t)) a.take(x(t));
      y(s) = a.result();
    }
  }

  void segment_broadcast(view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y,
                         write_mode w = write_mode::overwrite) {
    check::segment_broadcast(x, layout, y);
    if (w == write_mode::overwrite) fill(y, real(0));
    for (index_t s = 0; s < layout.sequences(); ++s)
      for (index_t t = layout.begin(s); t < layout.end(s); ++t)
        if (scored(layout, t)) y(t) = w == write_mode::add ? y(t) + x(s) : x(s);
  }

  void segment_scan(view<const real, 1> a, view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y) {
    check::segment_scan(a, x, layout, y);
    fill(y, real(0));
    for (index_t s = 0; s < layout.sequences(); ++s) {
      bool last = true;
      real carry(0);
      for (index_t t = layout.end(s); t-- > layout.begin(s);) {
        if (!scored(layout, t)) continue;
        carry = last ? x(t) : x(t) + a(t) * carry;
        last = false;
        y(t) = carry;
      }
    }
  }

  template <class X>
  void row_log_sum_exp(view<X, 2> x, view<real, 1> y) {
    check::row_log_sum_exp(x, y);
    for (index_t i = 0; i < x.extent(0); ++i) y(i) = log_sum_exp(x.row(i), x.extent(1));
  }

  template <class X>
  void row_pick(view<X, 2> x, view<const std::int32_t, 1> ids, view<real, 1> y) {
    check::row_pick(x, ids, y);
    for (index_t i = 0; i < x.extent(0); ++i) y(i) = ids(i) < 0 ? real(0) : convert<real>(x(i, ids(i)));
  }

  template <class Y>
  void row_add_at(view<const real, 1> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_add_at(x, ids, y);
    for (index_t i = 0; i < y.extent(0); ++i)
      if (ids(i) >= 0) y(i, ids(i)) = convert<Y>(convert<real>(y(i, ids(i))) + x(i));
  }

  template <class X, class Y>
  void row_gather(view<X, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_gather(x, ids, y);
    for (index_t i = 0; i < y.extent(0); ++i)
      for (index_t j = 0; j < y.extent(1); ++j) y(i, j) = ids(i) < 0 ? Y{} : convert<Y>(x(ids(i), j));
  }

  template <class Y>
  void row_scatter_add(view<const real, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_scatter_add(x, ids, y);
    for (index_t i = 0; i < x.extent(0); ++i) {
      if (ids(i) < 0) continue;
      for (index_t j = 0; j < x.extent(1); ++j) y(ids(i), j) = convert<Y>(convert<real>(y(ids(i), j)) + x(i, j));
    }
  }

  void row_softmax(view<const real, 2> x, view<const std::int32_t, 1> valid, view<real, 2> y) {
    check::row_softmax(x, valid, y);
    for (index_t i = 0; i < x.extent(0); ++i) {
      const index_t n = valid.given() ? valid(i) : x.extent(1);
      const real lse = log_sum_exp(x.row(i), n);
      for (index_t j = 0; j < n; ++j) y(i, j) = math::exp(x(i, j) - lse);
      for (index_t j = n; j < x.extent(1); ++j) y(i, j) = real(0);
    }
  }

  void row_softmax_grad(view<const real, 2> y, view<const real, 2> dy, view<real, 2> dx) {
    check::row_softmax_grad(y, dy, dx);
    for (index_t i = 0; i < y.extent(0); ++i) {
      real dot(0);
      for (index_t j = 0; j < y.extent(1); ++j) dot = dot + y(i, j) * dy(i, j);
      for (index_t j = 0; j < y.extent(1); ++j) dx(i, j) = y(i, j) * (dy(i, j) - dot);
    }
  }

  template <class S, int R>
  void gemm(arena<>&, real alpha, view<S, R> a, view<S, R> b, real beta, view<real, R> c) {
    check::gemm(a, b, c);
    if constexpr (R > 2) {
      arena<> none;
      for (index_t i = 0; i < c.extent(0); ++i) gemm(none, alpha, a.row(i), b.row(i), beta, c.row(i));
    } else {
      // Row-major results are written along their rows, so the innermost loop runs over the dimension that `b` is dense in.
      const bool dots = b.stride(0) == 1 && b.stride(1) != 1;
      for (index_t i = 0; i < c.extent(0); ++i) {
        for (index_t j = 0; j < c.extent(1); ++j) c(i, j) = is_zero(beta) ? real(0) : beta * c(i, j);
        if (dots) {
          dot_row(alpha, a.row(i), b, c.row(i));
        } else {
          axpy_row(alpha, a.row(i), b, c.row(i));
        }
      }
    }
  }
  template <class A, class B, class C>
  std::size_t gemm_workspace(const A&, const B&, const C&) const {
    return 0;
  }

  // The recursion as one loop. What is not given is seen as one number, or not written.
  void gae(const trajectory_inputs<real>& in, const gae_options& options, const gae_outputs<real>& out) {
    const index_t tokens = in.rewards.extent(0);
    const real one(1);
    const view<const real, 1> ones(&one, {tokens}, {0});
    const auto discounts = in.discounts.given() ? in.discounts : ones, lambdas = in.lambdas.given() ? in.lambdas : ones;
    const math::temporal_difference<real> difference{static_cast<real>(options.gamma)};
    const math::scaled_product<real> pass{static_cast<real>(options.gamma * options.lambda)};
    fill(out.advantages, real(0));
    fill(out.returns, real(0));
    for (index_t s = 0; s < in.sequences.sequences(); ++s) {
      bool last = true;
      real next_value = in.bootstrap.given() ? in.bootstrap(s) : real(0), advantage(0);
      for (index_t t = in.sequences.end(s); t-- > in.sequences.begin(s);) {
        if (!scored(in.sequences, t)) continue;
        const real value = in.values(t);
        const real step = difference(in.rewards(t), discounts(t), in.next_values.given() ? in.next_values(t) : next_value, value);
        advantage = last ? step : step + pass(discounts(t), lambdas(t)) * advantage;
        last = false;
        next_value = value;
        if (out.advantages.given()) out.advantages(t) = advantage;
        if (out.returns.given()) out.returns(t) = advantage + value;
      }
    }
  }

  // By a merge sort: equal keys keep their order.
  void ranks(arena<>& scratch, view<const real, 1> x, view<real, 1> y) {
    const arena<>::frame frame(scratch);
    const index_t n = x.extent(0);
    const auto keys = scratch.take<key_at>(n), spare = scratch.take<key_at>(n);
    for (index_t i = 0; i < n; ++i) {
      if (math::is_nan(x(i))) return fill(y, x(i));
      keys(i) = {x(i), i};
    }
    const key_at* rising = sort(keys.pointer, spare.pointer, n);
    for (index_t k = 0; k < n; ++k) y(rising[k].place) = static_cast<real>(k);
  }

  void match_ranks(arena<>& scratch, view<const real, 1> x, view<const real, 1> from, view<const real, 1> to, view<real, 1> y) {
    const arena<>::frame frame(scratch);
    const index_t n = x.extent(0);
    const auto places = scratch.take<index_t>(n);
    for (index_t i = 0; i < n; ++i) {
      if (math::is_nan(from(i))) return fill(y, from(i));
      if (math::is_nan(to(i))) return fill(y, to(i));
      places(static_cast<index_t>(from(i))) = i;
    }
    for (index_t i = 0; i < n; ++i) y(i) = x(places(static_cast<index_t>(to(i))));
  }
  std::size_t ranks_workspace(index_t n) const { return workspace_size().add<key_at>(n).template add<key_at>(n).bytes(); }

  void sync() {}

 private:
  // Sums of floats run in double: the reference should not be what limits a comparison.
  using wide = std::conditional_t<std::is_same_v<real, float>, double, real>;

  static real identity(reduction op) {
    return op == reduction::sum ? real(0) : real(-std::numeric_limits<double>::infinity());
  }

  struct accumulator {
    reduction op;
    wide value;
    explicit accumulator(reduction o) : op(o), value(static_cast<wide>(identity(o))) {}
    void take(const real& x) {
      if (op == reduction::sum) {
        value = value + static_cast<wide>(x);
      } else if (math::is_nan(x) || value < static_cast<wide>(x)) {
        if (!math::is_nan(value)) value = static_cast<wide>(x);
      }
    }
    real result() const { return static_cast<real>(value); }
  };

  struct key_at {
    real key;
    index_t place;
  };
  // Merges runs of doubling length from one array into the other; returns the one that holds all in order.
  static key_at* sort(key_at* from, key_at* to, index_t n) {
    for (index_t run = 1; run < n; run *= 2) {
      for (index_t first = 0; first < n; first += 2 * run) {
        const index_t middle = run < n - first ? first + run : n, last = run < n - middle ? middle + run : n;
        index_t left = first, right = middle;
        for (index_t k = first; k < last; ++k) {
          const bool take_right = left == middle || (right < last && from[right].key < from[left].key);
          to[k] = from[take_right ? right++ : left++];
        }
      }
      key_at* const other = from;
      from = to;
      to = other;
    }
    return from;
  }

  static bool scored(const sequence_layout<>& layout, index_t t) {
    return !layout.scored.given() || layout.scored(t) != 0;
  }
  static bool is_zero(const real& x) { return !(x < real(0)) && !(real(0) < x) && !math::is_nan(x); }

  template <class X>
  static real log_sum_exp(view<X, 1> x, index_t n) {
    accumulator max(reduction::max);
    for (index_t j = 0; j < n; ++j) max.take(convert<real>(x(j)));
    const real m = max.result();
    if (math::is_inf(m)) return m;  // no columns, all -inf, or a +inf that outweighs the rest
    accumulator sum(reduction::sum);
    for (index_t j = 0; j < n; ++j) sum.take(math::exp(convert<real>(x(j)) - m));
    return m + math::log(sum.result());
  }

  template <class S>
  static void dot_row(const real& alpha, view<S, 1> a, view<S, 2> b, view<real, 1> c) {
    for (index_t j = 0; j < c.extent(0); ++j) {
      real sum(0);
      for (index_t k = 0; k < a.extent(0); ++k) sum = sum + convert<real>(a(k)) * convert<real>(b(k, j));
      c(j) = c(j) + alpha * sum;
    }
  }
  template <class S>
  static void axpy_row(const real& alpha, view<S, 1> a, view<S, 2> b, view<real, 1> c) {
    for (index_t k = 0; k < a.extent(0); ++k) {
      const real scale = alpha * convert<real>(a(k));
      S* row = b.pointer + k * b.stride(0);
      if (b.stride(1) == 1 && c.stride(0) == 1) {
        for (index_t j = 0; j < c.extent(0); ++j) c.pointer[j] = c.pointer[j] + scale * convert<real>(row[j]);
      } else {
        for (index_t j = 0; j < c.extent(0); ++j) c(j) = c(j) + scale * convert<real>(row[j * b.stride(1)]);
      }
    }
  }

  // Calls f(v[i]...) for every index i; all views have the extents of the first.
  template <class F, class... X, int R>
  static void each(F&& f, const view<X, R>&... v) {
    walk(f, rank_4(v)...);
  }
  template <class X, int R>
  static view<X, 4> rank_4(const view<X, R>& v) {
    view<X, 4> w;
    w.pointer = v.pointer;
    for (int d = 0; d < 4; ++d) {
      w.extents[d] = d < 4 - R ? 1 : v.extents[d - (4 - R)];
      w.strides[d] = d < 4 - R ? 0 : v.strides[d - (4 - R)];
    }
    return w;
  }
  template <class F, class Y, class... X>
  static void walk(F& f, const view<Y, 4>& y, const view<X, 4>&... x) {
    const bool dense = y.strides[3] == 1 && ((x.strides[3] == 1) && ...);
    for (index_t i = 0; i < y.extents[0]; ++i)
      for (index_t j = 0; j < y.extents[1]; ++j)
        for (index_t k = 0; k < y.extents[2]; ++k)
          if (dense) {
            dense_line(f, y.extents[3], start(y, i, j, k), start(x, i, j, k)...);
          } else {
            for (index_t l = 0; l < y.extents[3]; ++l)
              f(start(y, i, j, k)[l * y.strides[3]], start(x, i, j, k)[l * x.strides[3]]...);
          }
  }
  template <class X>
  static X* start(const view<X, 4>& v, index_t i, index_t j, index_t k) {
    return v.pointer + i * v.strides[0] + j * v.strides[1] + k * v.strides[2];
  }
  template <class F, class... X>
  static void dense_line(F& f, index_t n, X*... x) {
    F own = f;  // nothing that is written can be part of it, so that the loop may become one of vectors
    for (index_t l = 0; l < n; ++l) own(x[l]...);
  }
};

}  // namespace serial

PLUMB_NAMESPACE_END

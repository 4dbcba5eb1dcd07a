#pragma once
// The xtensor backend: every operation in array notation and double precision, to be read beside the comments of
// compute/operations.hpp. It is the specification that the other backends are compared with; it allocates freely.

#include <plumb/compute/backend.hpp>
#include <plumb/math/scalar.hpp>

#if __has_include(<xtensor/containers/xtensor.hpp>)  // xtensor 0.26 and later
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xtensor.hpp>
#include <xtensor/core/xmath.hpp>
#include <xtensor/core/xnoalias.hpp>
#include <xtensor/generators/xbuilder.hpp>
#include <xtensor/reducers/xreducer.hpp>
#include <xtensor/views/xindex_view.hpp>
#include <xtensor/views/xstrided_view.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xbuilder.hpp>
#include <xtensor/xindex_view.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xnoalias.hpp>
#include <xtensor/xreducer.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#endif

#include <array>
#include <limits>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace xtensor {

/// Runs at once in the calling thread, in double. Inputs are read into arrays of its own before an output is written.
class backend {
  template <int R, class T = double>
  using array = xt::xtensor<T, static_cast<std::size_t>(R)>;
  using axes = std::vector<std::size_t>;

  static constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

  // From views to arrays and back.

  template <class T, int R>
  static auto extents_of(const view<T, R>& v) {
    std::array<std::size_t, R> e;
    for (std::size_t d = 0; d < R; ++d) e[d] = static_cast<std::size_t>(v.extents[d]);
    return e;
  }

  // The memory of a view as a flat array, with the view's strides laid over it: zero and negative ones too.
  template <class T, int R>
  static auto elements(const view<T, R>& v) {
    const argument lies("", v);
    const auto count = [&](index_t bytes) { return v.empty() ? 0 : static_cast<std::size_t>(bytes) / sizeof(T); };
    const std::array<std::size_t, 1> size{count(lies.high() - lies.low())};
    const std::size_t offset = count(-lies.low());
    std::array<std::ptrdiff_t, R> strides;
    for (std::size_t d = 0; d < R; ++d) strides[d] = static_cast<std::ptrdiff_t>(v.strides[d]);
    return xt::strided_view(xt::adapt(v.pointer - offset, size[0], xt::no_ownership(), size), extents_of(v),
                            std::move(strides), offset);
  }

  template <class X, int R>
  static array<R> read(const view<X, R>& v) {
    return map([](const auto& e) { return convert<double>(e); }, elements(v));
  }

  template <class T, int R, class E>
  static void assign(const view<T, R>& y, const E& values) {
    auto out = elements(y);
    xt::noalias(out) = map([](double v) { return convert<T>(v); }, values);
  }

  // `f` of each element, lazily.
  template <class F, class... E>
  static auto map(F f, E&&... e) {
    return xt::make_lambda_xfunction(std::move(f), std::forward<E>(e)...);
  }

  // Words of the specification.

  struct larger {
    double operator()(double a, double b) const { return math::is_nan(b) || (!math::is_nan(a) && a < b) ? b : a; }
  };

  // The extents of `x`, but 1 along `along`. A sum over nothing is 0, a maximum -inf.
  template <std::size_t R>
  static xt::xtensor<double, R> reduced(reduction op, const xt::xtensor<double, R>& x, const axes& along) {
    const double of_nothing = op == reduction::sum ? 0.0 : minus_infinity;
    if (x.size() == 0) {
      auto extents = x.shape();
      for (std::size_t d : along) extents[d] = 1;
      return xt::xtensor<double, R>(extents, of_nothing);
    }
    if (op == reduction::sum) return xt::sum(x, along, xt::keep_dims);
    const auto maximum = xt::make_xreducer_functor(larger{}, xt::const_value<double>(of_nothing));
    return xt::reduce(maximum, x, along, xt::keep_dims);
  }

  // `[N, V]` to `[N, 1]`. An infinite maximum is the result: no columns, all -inf, or a +inf that outweighs the rest.
  static array<2> log_sum_exp(const array<2>& x) {
    const array<2> max = reduced(reduction::max, x, {1});
    const array<2> shifted = xt::exp(x - max);
    const auto infinite = map([](double m) { return math::is_inf(m); }, max);
    return xt::where(infinite, max, max + xt::log(reduced(reduction::sum, shifted, {1})));
  }

  // `[1, V]`: 0, 1, 2, ...
  static array<2, index_t> columns(index_t count) {
    return xt::view(xt::arange<index_t>(count), xt::newaxis(), xt::all());
  }

  // `[N, V]`: true at column `ids[i]` of row `i`; nowhere in a row of negative id.
  static array<2, bool> one_hot(view<const std::int32_t, 1> ids, index_t count) {
    return xt::equal(elements(as_column(ids)), columns(count));
  }

  // The tokens of sequence `s` in an array of all tokens.
  template <class E>
  static auto sequence(E& tokens, const sequence_layout<>& layout, index_t s) {
    return xt::view(tokens, xt::range(layout.begin(s), layout.end(s)));
  }

  // `[N]`: whether each token counts.
  static array<1, bool> scored(const sequence_layout<>& layout, index_t tokens) {
    if (!layout.scored.given()) return xt::ones<bool>({tokens});
    return xt::not_equal(elements(layout.scored), 0);
  }

 public:
  using real = double;
  using memory_space = host_space;
  using storage_types = types<double, float, bf16, f16>;
  using capabilities = plumb::capabilities<>;
  static constexpr determinism determinism_level = determinism::thread_count_invariant;

  template <class T, int R>
  void fill(view<T, R> y, real value) {
    elements(y).fill(convert<T>(value));
  }

  template <class S, class T, int R>
  void copy(view<S, R> x, view<T, R> y) {
    check::copy(x, y);
    assign(y, read(x));
  }

  template <class F, class T, int R, class... X>
  void transform(F f, view<T, R> y, view<X, R>... x) {
    check::transform(y, x...);
    const array<R> result = map(std::move(f), read(x)...);
    assign(y, result);
  }

  template <class F, class T, class U, int R, class... X>
  void transform2(F f, view<T, R> y, view<U, R> z, view<X, R>... x) {
    check::transform(y, z, x...);
    const array<R, two<real>> result = map(std::move(f), read(x)...);
    assign(y, map([](const two<real>& r) { return r.first; }, result));
    assign(z, map([](const two<real>& r) { return r.second; }, result));
  }

  template <class X, int R>
  void reduce(reduction op, view<X, R> x, view<real, R> y, write_mode w = write_mode::overwrite) {
    check::reduce(x, y);
    axes reduced_dimensions;
    for (int d = 0; d < R; ++d)
      if (y.extent(d) == 1) reduced_dimensions.push_back(static_cast<std::size_t>(d));
    array<R> result = reduced(op, read(x), reduced_dimensions);
    if (w == write_mode::add) result += read(y);
    assign(y, result);
  }

  void segment_reduce(reduction op, view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y) {
    check::segment_reduce(x, layout, y);
    const array<1> values = read(x);
    const auto mask = scored(layout, x.extent(0));
    array<1> result(extents_of(y));
    for (index_t s = 0; s < layout.sequences(); ++s) {
      const array<1> counted = xt::filter(sequence(values, layout, s), sequence(mask, layout, s));
      result(s) = reduced(op, counted, {0})(0);
    }
    assign(y, result);
  }

  void segment_broadcast(view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y,
                         write_mode w = write_mode::overwrite) {
    check::segment_broadcast(x, layout, y);
    const array<1> values = read(x);
    const auto mask = scored(layout, y.extent(0));
    array<1> sum = xt::zeros<real>(extents_of(y));
    if (w == write_mode::add) sum = read(y);
    for (index_t s = 0; s < layout.sequences(); ++s) {
      xt::filtration(sequence(sum, layout, s), sequence(mask, layout, s)) += values(s);
    }
    assign(y, sum);
  }

  void segment_scan(view<const real, 1> a, view<const real, 1> x, const sequence_layout<>& layout, view<real, 1> y) {
    check::segment_scan(a, x, layout, y);
    const array<1> factors = read(a), terms = read(x);
    const auto mask = scored(layout, y.extent(0));
    array<1> result = xt::zeros<real>(extents_of(y));
    for (index_t s = 0; s < layout.sequences(); ++s) {
      const array<1> factor = xt::filter(sequence(factors, layout, s), sequence(mask, layout, s));
      array<1> scan = xt::filter(sequence(terms, layout, s), sequence(mask, layout, s));
      for (std::size_t t = scan.size(); t-- > 1;) scan(t - 1) += factor(t - 1) * scan(t);
      xt::filter(sequence(result, layout, s), sequence(mask, layout, s)) = scan;
    }
    assign(y, result);
  }

  template <class X>
  void row_log_sum_exp(view<X, 2> x, view<real, 1> y) {
    check::row_log_sum_exp(x, y);
    const array<2> lse = log_sum_exp(read(x));
    assign(y, xt::view(lse, xt::all(), 0));
  }

  template <class X>
  void row_pick(view<X, 2> x, view<const std::int32_t, 1> ids, view<real, 1> y) {
    check::row_pick(x, ids, y);
    const array<2> picked = xt::where(one_hot(ids, x.extent(1)), read(x), 0.0);
    const array<2> result = reduced(reduction::sum, picked, {1});
    assign(y, xt::view(result, xt::all(), 0));
  }

  template <class Y>
  void row_add_at(view<const real, 1> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_add_at(x, ids, y);
    const array<2> before = read(y), added = read(as_column(x));
    const array<2> result = xt::where(one_hot(ids, y.extent(1)), before + added, before);
    assign(y, result);
  }

  template <class X, class Y>
  void row_gather(view<X, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_gather(x, ids, y);
    const array<2> rows = read(x);
    array<2> result = xt::zeros<real>(extents_of(y));
    for (index_t i = 0; i < ids.extent(0); ++i)
      if (ids(i) >= 0) xt::view(result, i, xt::all()) = xt::view(rows, ids(i), xt::all());
    assign(y, result);
  }

  template <class Y>
  void row_scatter_add(view<const real, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_scatter_add(x, ids, y);
    const array<2> rows = read(x);
    array<2> sum = read(y);
    for (index_t i = 0; i < ids.extent(0); ++i)
      if (ids(i) >= 0) xt::view(sum, ids(i), xt::all()) += xt::view(rows, i, xt::all());
    assign(y, sum);
  }

  void row_softmax(view<const real, 2> x, view<const std::int32_t, 1> valid, view<real, 2> y) {
    check::row_softmax(x, valid, y);
    array<2, bool> counts = xt::ones<bool>(extents_of(x));
    if (valid.given()) counts = columns(x.extent(1)) < elements(as_column(valid));
    const array<2> logits = xt::where(counts, read(x), minus_infinity);
    const array<2> result = xt::where(counts, xt::exp(logits - log_sum_exp(logits)), 0.0);
    assign(y, result);
  }

  void row_softmax_grad(view<const real, 2> y, view<const real, 2> dy, view<real, 2> dx) {
    check::row_softmax_grad(y, dy, dx);
    const array<2> p = read(y), dp = read(dy), products = p * dp;
    const array<2> result = p * (dp - reduced(reduction::sum, products, {1}));
    assign(dx, result);
  }

  template <class A, class B, int R>
  void gemm(arena<>& scratch, real alpha, view<A, R> a, view<B, R> b, real beta, view<real, R> c) {
    check::gemm(a, b, c);
    if (c.empty()) return;
    if constexpr (R > 2) {
      for (index_t i = 0; i < c.extent(0); ++i) gemm(scratch, alpha, a.row(i), b.row(i), beta, c.row(i));
    } else {
      const array<2> left = read(a), right = read(b);
      array<2> result = xt::zeros<real>(extents_of(c));  // a sum of outer products
      for (index_t k = 0; k < a.extent(1); ++k)
        result += xt::view(left, xt::all(), k, xt::newaxis()) * xt::view(right, xt::newaxis(), k, xt::all());
      result *= alpha;
      if (beta != 0) result += beta * read(c);
      assign(c, result);
    }
  }
  template <class A, class B, class C>
  std::size_t gemm_workspace(const A&, const B&, const C&) const {
    return 0;
  }

  void sync() {}
};

}  // namespace xtensor

PLUMB_NAMESPACE_END

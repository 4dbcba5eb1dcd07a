#pragma once
// Levels 0 to 7: each required operation against its definition in testing/oracle.hpp, in every layout and storage type.

#include <plumb/math/elementwise.hpp>
#include <plumb/testing/conformance/suite.hpp>
#include <plumb/testing/oracle.hpp>

PLUMB_NAMESPACE_BEGIN

namespace testing {
namespace detail {

/// Functors for `transform`: each argument matters in its own way.
struct mix {
  template <class T>
  PLUMB_HD T operator()(const T& a, const T& b, const T& c, const T& d) const { return a - T(2) * b + c * d; }
};
struct mix2 {
  template <class T>
  PLUMB_HD two<T> operator()(const T& a, const T& b) const { return {a + T(2) * b, a * b}; }
};

/// A batch with everything in it: a gap before, a sequence without tokens, one of a single token, one without scored tokens where masked;
/// order not that of memory.
inline oracle::sequences ragged_sequences(bool masked) {
  oracle::sequences l{.begin = {20, 2, 7, 7, 12, 37}, .end = {37, 7, 7, 8, 20, 40}, .tokens = 43};
  if (!masked) return l;
  l.scored.assign(43, 1);
  for (const std::size_t t : {2u, 5u, 6u, 20u, 25u, 26u, 36u, 37u, 38u, 39u, 41u}) l.scored[t] = 0;
  return l;
}

/// One sequence with holes.
inline oracle::sequences masked_sequence() {
  return {.begin = {1}, .end = {11}, .scored = {0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0}, .tokens = 12};
}

/// A layout in the memory of `Space`.
template <class Space>
struct placed_sequences {
  placed<std::int32_t, 1, Space> begin, end;
  placed<std::uint8_t, 1, Space> scored;
  bool masked;

  placed_sequences(const oracle::sequences& l, placement p)
      : begin({static_cast<index_t>(l.begin.size())}, p, l.begin), end({static_cast<index_t>(l.end.size())}, p, l.end),
        scored({l.tokens}, p, l.scored), masked(!l.scored.empty()) {}

  sequence_layout<Space> layout() const {
    sequence_layout<Space> s{.begin = begin.in(), .end = end.in()};
    if (masked) s.scored = scored.in();
    return s;
  }
};

template <class B>
class operation_checks : public suite<B> {
 public:
  using suite<B>::suite;
  using typename suite<B>::real;
  using typename suite<B>::space;
  template <class T, int R>
  using array = placed<T, R, space>;

 protected:
  using suite<B>::b_;

  void operations() {
    this->check(0, "sync", [&] { sync(); });
    this->level_done();
    this->check(1, "fill", [&] { fill(); });
    this->check(1, "copy", [&] { copy(); });
    this->check(1, "copy.broadcast", [&] { copy_broadcast(); });
    this->check(1, "copy.convert", [&] { copy_convert(); });
    this->check(1, "copy.bytes", [&] { copy_bytes(); });
    this->level_done();
    this->check(2, "transform", [&] { transform(); });
    this->check(2, "transform.broadcast", [&] { transform_broadcast(); });
    this->check(2, "transform.storage", [&] { transform_storage(); });
    this->check(2, "transform.in_place", [&] { transform_in_place(); });
    this->check(2, "transform2", [&] { transform2(); });
    this->level_done();
    this->check(3, "reduce.sum", [&] { reduce(reduction::sum, write_mode::overwrite); });
    this->check(3, "reduce.max", [&] { reduce(reduction::max, write_mode::overwrite); });
    this->check(3, "reduce.add", [&] { reduce(reduction::sum, write_mode::add); });
    this->check(3, "reduce.nothing", [&] { reduce_nothing(); });
    this->check(3, "segment_reduce.sum", [&] { segment_reduce(reduction::sum, false); });
    this->check(3, "segment_reduce.max", [&] { segment_reduce(reduction::max, false); });
    this->check(3, "segment_reduce.skips", [&] { segment_reduce(reduction::sum, true); });
    this->check(3, "segment_broadcast", [&] { segment_broadcast(write_mode::overwrite); });
    this->check(3, "segment_broadcast.add", [&] { segment_broadcast(write_mode::add); });
    this->level_done();
    this->check(4, "row_log_sum_exp", [&] { row_log_sum_exp(); });
    this->check(4, "row_log_sum_exp.large", [&] { row_log_sum_exp_large(); });
    this->check(4, "row_log_sum_exp.infinite", [&] { row_log_sum_exp_infinite(); });
    this->check(4, "row_pick", [&] { row_pick(0); });
    this->check(4, "row_pick.ignored", [&] { row_pick(2); });
    this->check(4, "row_gather", [&] { row_gather(0); });
    this->check(4, "row_gather.ignored", [&] { row_gather(2); });
    this->check(4, "row_softmax", [&] { row_softmax(false); });
    this->check(4, "row_softmax.valid", [&] { row_softmax(true); });
    this->check(4, "row_softmax.infinite", [&] { row_softmax_infinite(); });
    this->check(4, "row_softmax.in_place", [&] { row_softmax_in_place(); });
    this->level_done();
    this->check(5, "row_add_at", [&] { row_add_at(); });
    this->check(5, "row_scatter_add", [&] { row_scatter_add(); });
    this->check(5, "row_softmax_grad", [&] { row_softmax_grad(false); });
    this->check(5, "row_softmax_grad.in_place", [&] { row_softmax_grad(true); });
    this->level_done();
    this->check(6, "segment_scan", [&] { segment_scan(false); });
    this->check(6, "segment_scan.skips", [&] { segment_scan(true); });
    this->level_done();
    this->check(7, "gemm", [&] { gemm(); });
    this->check(7, "gemm.alpha_beta", [&] { gemm_alpha_beta(); });
    this->check(7, "gemm.beta_zero", [&] { gemm_beta_zero(); });
    this->check(7, "gemm.nothing", [&] { gemm_nothing(); });
    this->check(7, "gemm.layouts", [&] { gemm_layouts(); });
    this->check(7, "gemm.batch", [&] { gemm_batch(); });
    this->level_done();
  }

  using matrix = oracle::matrix;
  static index_t count(const index_t* extents, int rank) {
    index_t n = 1;
    for (int d = 0; d < rank; ++d) n *= extents[d];
    return n;
  }

  /// Calls `f(extents, placement)` for shapes of rank `R`: single elements, odd sizes, nothing at all, in every layout.
  template <int R, class F>
  void each_array(const F& f) {
    static_assert(R <= 4);
    constexpr index_t shapes[4][5][4] = {{{1}, {7}, {64}, {1031}, {0}},
                                         {{1, 1}, {3, 7}, {5, 131}, {64, 16}, {0, 3}},
                                         {{1, 1, 1}, {2, 3, 5}, {3, 1, 17}, {4, 8, 16}, {2, 0, 3}},
                                         {{1, 1, 1, 1}, {2, 3, 4, 5}, {3, 1, 1, 19}, {2, 2, 8, 16}, {2, 3, 4, 0}}};
    for (const auto& shape : shapes[R - 1])
      for (const placement p : placements) {
        index_t extents[R];
        for (int d = 0; d < R; ++d) extents[d] = shape[d];
        this->context(shape_text(extents, R) + ", " + placement_name(p));
        f(extents, p);
      }
  }
  static placement another(placement p) { return placements[(static_cast<std::size_t>(p) + 2) % std::size(placements)]; }

  void sync() {
    array<real, 1> y({4}, placement::dense);
    this->call([&] { b_.fill(y.view(), real(2.5)); });
    this->expect(y, expectation::plain({2.5, 2.5, 2.5, 2.5}), "fill");
  }

  // Level 1.

  void fill() {
    const auto of_rank = [&]<int R, class T>(std::integral_constant<int, R>, std::type_identity<T>) {
      each_array<R>([&](const index_t(&extents)[R], placement p) {
        array<T, R> y(extents, p);
        this->call([&] { b_.fill(y.view(), real(-1.25)); });
        this->expect(y, expectation::plain(std::vector<double>(static_cast<std::size_t>(y.size()), -1.25)), "fill");
      });
    };
    of_rank(std::integral_constant<int, 1>{}, std::type_identity<real>{});
    of_rank(std::integral_constant<int, 3>{}, std::type_identity<real>{});
    of_rank(std::integral_constant<int, 4>{}, std::type_identity<real>{});
    this->each_storage([&](auto t) { of_rank(std::integral_constant<int, 2>{}, t); });
  }

  void copy() {
    const auto of_rank = [&]<int R>(std::integral_constant<int, R>) {
      each_array<R>([&](const index_t(&extents)[R], placement p) {
        array<real, R> x(extents, p, this->normals(1, count(extents, R))), y(extents, another(p));
        this->call([&] { b_.copy(x.in(), y.view()); });
        this->expect(y, expectation::plain(x.given()), "copy");
        this->expect_unchanged(x);
      });
    };
    of_rank(std::integral_constant<int, 1>{});
    of_rank(std::integral_constant<int, 2>{});
    of_rank(std::integral_constant<int, 3>{});
    of_rank(std::integral_constant<int, 4>{});
  }

  void copy_broadcast() {
    each_array<2>([&](const index_t(&extents)[2], placement p) {
      array<real, 1> x({extents[1]}, p, this->normals(2, extents[1]));
      array<real, 2> y(extents, p);
      this->call([&] { b_.copy(broadcast_rows(x.in(), extents[0]), y.view()); });
      std::vector<double> want;
      const auto row = x.given();
      for (index_t i = 0; i < extents[0]; ++i) want.insert(want.end(), row.begin(), row.end());
      this->expect(y, expectation::plain(want), "copy");
      this->expect_unchanged(x);
    });
  }

  // Between `real` and each storage type, ties and limits included.
  void copy_convert() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      std::vector<double> values = this->normals(3, 512, 20);
      for (const double v : {0.0, -0.0, 1.00390625, 1.01171875, -1.00390625, 1.00048828125, 1.00146484375, 65504.0, 1e-3, 6.1e-5, 0.1,
                             static_cast<double>(std::numeric_limits<float>::infinity())})
        values.push_back(v);
      const index_t extents[2] = {2, static_cast<index_t>(values.size() / 2)};
      for (const placement p : placements) {
        this->context(std::string(dtype_name<T>()) + ", " + placement_name(p));
        array<real, 2> wide(extents, p, values);
        array<T, 2> narrow(extents, another(p));
        this->call([&] { b_.copy(wide.in(), narrow.view()); });
        this->expect(narrow, expectation::plain(wide.given()), "copy");
        array<T, 2> x(extents, p, values);
        array<real, 2> y(extents, another(p));
        this->call([&] { b_.copy(x.in(), y.view()); });
        this->expect(y, expectation::plain(x.given()), "copy");
        this->expect_unchanged(wide, x);
      }
    });
  }

  // From bytes, and to bytes: whole numbers are themselves, so that a mask can be computed and then written as the `scored` of a layout.
  void copy_bytes() {
    const std::vector<double> values{0, 1, 1, 0, 2, 0, 200, 255, 0, 1, 0, 1};
    const index_t extents[2] = {3, 4};
    for (const placement p : placements) {
      this->context(placement_name(p));
      array<std::uint8_t, 2> bytes(extents, p, values), narrow(extents, p);
      array<real, 2> numbers(extents, another(p), values), wide(extents, another(p));
      this->call([&] { b_.copy(bytes.in(), wide.view()); });
      this->expect(wide, expectation::plain(values), "copy");
      this->call([&] { b_.copy(numbers.in(), narrow.view()); });
      this->expect(narrow, expectation::plain(values), "copy");
      this->expect_unchanged(bytes, numbers);
    }
    // One number for all, and a long line: what a vector of a width takes.
    array<real, 1> one({1}, placement::dense, {1});
    array<std::uint8_t, 1> all({67}, placement::dense);
    this->call([&] { b_.copy(view<const real, 1, space>(one.in().data(), {67}, {0}), all.view()); });
    this->expect(all, expectation::plain(std::vector<double>(67, 1)), "copy");
  }

  // Level 2.

  static expectation mixed(const std::vector<double>& a, const std::vector<double>& b, const std::vector<double>& c,
                           const std::vector<double>& d) {
    expectation e;
    for (std::size_t i = 0; i < a.size(); ++i)
      e.push(a[i] - 2 * b[i] + c[i] * d[i], std::abs(a[i]) + 2 * std::abs(b[i]) + std::abs(c[i] * d[i]));
    return e;
  }

  void transform() {
    const auto of_rank = [&]<int R>(std::integral_constant<int, R>) {
      each_array<R>([&](const index_t(&extents)[R], placement p) {
        const index_t n = count(extents, R);
        array<real, R> a(extents, p, this->normals(4, n)), b(extents, another(p), this->normals(5, n)),
            c(extents, p, this->normals(6, n)), d(extents, placement::dense, this->normals(7, n)), y(extents, p);
        this->call([&] { b_.transform(mix{}, y.view(), a.in(), b.in(), c.in(), d.in()); });
        this->expect(y, mixed(a.given(), b.given(), c.given(), d.given()), "transform");
        this->expect_unchanged(a, b, c, d);
      });
    };
    of_rank(std::integral_constant<int, 1>{});
    of_rank(std::integral_constant<int, 2>{});
    of_rank(std::integral_constant<int, 3>{});
    of_rank(std::integral_constant<int, 4>{});
  }

  void transform_broadcast() {
    each_array<2>([&](const index_t(&extents)[2], placement p) {
      const index_t rows = extents[0], columns = extents[1];
      array<real, 2> a(extents, p, this->normals(8, rows * columns)), y(extents, p);
      array<real, 1> b({columns}, p, this->normals(9, columns)), c({rows}, p, this->normals(10, rows)), d({1}, p, {0.75});
      const view<const real, 2, space> everywhere(d.in().data(), {rows, columns}, {0, 0});
      this->call([&] { b_.transform(mix{}, y.view(), a.in(), broadcast_rows(b.in(), rows), broadcast_columns(c.in(), columns), everywhere); });
      std::vector<double> bb, cc, dd(static_cast<std::size_t>(rows * columns), 0.75);
      for (index_t i = 0; i < rows; ++i)
        for (index_t j = 0; j < columns; ++j) {
          bb.push_back(b.given()[static_cast<std::size_t>(j)]);
          cc.push_back(c.given()[static_cast<std::size_t>(i)]);
        }
      this->expect(y, mixed(a.given(), bb, cc, dd), "transform");
      this->expect_unchanged(a, b, c, d);
    });
  }

  void transform_storage() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      each_array<2>([&](const index_t(&extents)[2], placement p) {
        const index_t n = extents[0] * extents[1];
        std::vector<double> small, whole;
        for (index_t i = 0; i < n; ++i) {
          small.push_back(static_cast<double>(i % 200));
          whole.push_back(static_cast<double>(i * 1001 - 5000));
        }
        array<T, 2> a(extents, p, this->normals(11, n)), y(extents, p);
        array<std::uint8_t, 2> b(extents, another(p), small);
        array<std::int32_t, 2> c(extents, p, whole);
        array<real, 2> d(extents, placement::dense, this->normals(12, n, 1e-4));
        this->call([&] { b_.transform(mix{}, y.view(), a.in(), b.in(), c.in(), d.in()); });
        this->expect(y, mixed(a.given(), b.given(), c.given(), d.given()), "transform");
        this->expect_unchanged(a, b, c, d);
      });
    });
  }

  void transform_in_place() {
    each_array<2>([&](const index_t(&extents)[2], placement p) {
      const index_t n = extents[0] * extents[1];
      array<real, 2> a(extents, p, this->normals(13, n)), b(extents, another(p), this->normals(14, n));
      this->call([&] { b_.transform(mix{}, a.view(), a.in(), b.in(), b.in(), a.in()); });
      this->expect(a, mixed(a.given(), b.given(), b.given(), a.given()), "transform");
      this->expect_unchanged(b);
    });
  }

  void transform2() {
    const auto of_rank = [&]<int R>(std::integral_constant<int, R>) {
      each_array<R>([&](const index_t(&extents)[R], placement p) {
        const index_t n = count(extents, R);
        array<real, R> a(extents, p, this->normals(15, n)), b(extents, another(p), this->normals(16, n)), y(extents, p);
        const auto x0 = a.given(), x1 = b.given();
        expectation first, second;
        for (std::size_t i = 0; i < x0.size(); ++i) {
          first.push(x0[i] + 2 * x1[i], std::abs(x0[i]) + 2 * std::abs(x1[i]));
          second.push(x0[i] * x1[i], std::abs(x0[i] * x1[i]));
        }
        this->call([&] { b_.transform2(mix2{}, y.view(), b.view(), a.in(), b.in()); });  // the second output in place
        this->expect(y, first, "transform");
        this->expect(b, second, "transform");
        this->expect_unchanged(a);
      });
    };
    of_rank(std::integral_constant<int, 1>{});
    of_rank(std::integral_constant<int, 2>{});
    of_rank(std::integral_constant<int, 4>{});
  }

  // Level 3.

  void reduce(reduction op, write_mode w) {
    const auto of_rank = [&]<int R>(std::integral_constant<int, R>) {
      each_array<R>([&](const index_t(&extents)[R], placement p) {
        if (count(extents, R) == 0) return;  // see reduce.nothing
        for (int kept = 0; kept < 1 << R; ++kept) {
          index_t to[R], x4[4] = {1, 1, 1, 1}, y4[4] = {1, 1, 1, 1};
          for (int d = 0; d < R; ++d) {
            to[d] = kept >> d & 1 ? extents[d] : 1;
            x4[4 - R + d] = extents[d];
            y4[4 - R + d] = to[d];
          }
          this->context(shape_text(extents, R) + " to " + shape_text(to, R) + ", " + placement_name(p));
          const bool add = w == write_mode::add;
          array<real, R> x(extents, p, this->normals(17, count(extents, R), 1, 0.5));
          array<real, R> y(to, another(p), add ? this->normals(18, count(to, R)) : std::vector<double>{});
          this->call([&] { b_.reduce(op, x.in(), y.view(), w); });
          this->expect(y, oracle::reduce(op, x.given(), x4, y4, add ? y.given() : std::vector<double>{}), "reduce");
          this->expect_unchanged(x);
        }
      });
    };
    of_rank(std::integral_constant<int, 1>{});
    of_rank(std::integral_constant<int, 2>{});
  }

  void reduce_nothing() {
    for (const reduction op : {reduction::sum, reduction::max}) {
      const double nothing = op == reduction::sum ? 0 : -oracle::infinity;
      array<real, 1> x({0}, placement::dense), y({1}, placement::dense);
      this->call([&] { b_.reduce(op, x.in(), y.view(), write_mode::overwrite); });
      this->expect(y, expectation::plain({nothing}), "reduce");
      array<real, 2> rows({3, 0}, placement::dense), column({3, 1}, placement::padded);
      this->call([&] { b_.reduce(op, rows.in(), column.view(), write_mode::overwrite); });
      this->expect(column, expectation::plain({nothing, nothing, nothing}), "reduce");
      array<real, 2> columns({0, 3}, placement::dense), row({1, 3}, placement::padded);
      this->call([&] { b_.reduce(op, columns.in(), row.view(), write_mode::overwrite); });
      this->expect(row, expectation::plain({nothing, nothing, nothing}), "reduce");
    }
  }

  /// `f(sequences, placement)`: the ragged batch, or one sequence with holes.
  template <class F>
  void each_layout(bool masked, const F& f) {
    for (const placement p : placements) {
      this->context(placement_name(p));
      f(masked ? masked_sequence() : ragged_sequences(false), p);
    }
  }
  // Tokens that are not scored, or in no sequence, hold NaN.
  static std::vector<double> with_nan_where_not_scored(std::vector<double> x, const oracle::sequences& l) {
    std::vector<double> y(x.size(), std::numeric_limits<double>::quiet_NaN());
    for (std::size_t s = 0; s < l.begin.size(); ++s)
      for (const std::size_t t : l.of(s)) y[t] = x[t];
    return y;
  }

  void segment_reduce(reduction op, bool masked) {
    each_layout(masked, [&](const oracle::sequences& l, placement p) {
      auto values = this->normals(19, l.tokens, 1, op == reduction::max ? -3 : 0);
      if (masked) values = with_nan_where_not_scored(values, l);
      const placed_sequences<space> where(l, p);
      array<real, 1> x({l.tokens}, p, values), y({static_cast<index_t>(l.begin.size())}, another(p));
      this->call([&] { b_.segment_reduce(op, x.in(), where.layout(), y.view()); });
      this->expect(y, oracle::segment_reduce(op, x.given(), l), "segment_reduce");
      this->expect_unchanged(x, where.begin, where.end, where.scored);
    });
  }

  void segment_broadcast(write_mode w) {
    for (const bool masked : {false, true}) each_layout(masked, [&](const oracle::sequences& l, placement p) {
      const bool add = w == write_mode::add;
      const placed_sequences<space> where(l, p);
      const auto sequences = static_cast<index_t>(l.begin.size());
      array<real, 1> x({sequences}, p, this->normals(20, sequences));
      array<real, 1> y({l.tokens}, another(p), add ? this->normals(21, l.tokens) : std::vector<double>{});
      this->call([&] { b_.segment_broadcast(x.in(), where.layout(), y.view(), w); });
      this->expect(y, oracle::segment_broadcast(x.given(), l, add ? y.given() : std::vector<double>{}), "segment_broadcast");
      this->expect_unchanged(x, where.begin, where.end, where.scored);
    });
  }

  // Level 4.

  template <class T>
  static matrix matrix_of(const array<T, 2>& x, const index_t (&extents)[2]) {
    return {x.given(), extents[0], extents[1]};
  }

  void row_log_sum_exp() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      each_array<2>([&](const index_t(&extents)[2], placement p) {
        array<T, 2> x(extents, p, this->normals(22, extents[0] * extents[1], 3));
        array<real, 1> y({extents[0]}, another(p));
        this->call([&] { b_.row_log_sum_exp(x.in(), y.view()); });
        this->expect(y, oracle::row_log_sum_exp(matrix_of(x, extents)), "row_log_sum_exp");
        this->expect_unchanged(x);
      });
    });
  }

  // Logits whose exponentials overflow, or are all 0.
  void row_log_sum_exp_large() {
    const index_t extents[2] = {7, 50};
    for (const double mean : {0.0, -1e4}) {
      array<real, 2> x(extents, placement::dense, this->normals(44, 350, 1e3, mean));
      array<real, 1> y({extents[0]}, placement::dense);
      this->call([&] { b_.row_log_sum_exp(x.in(), y.view()); });
      this->expect(y, oracle::row_log_sum_exp(matrix_of(x, extents)), "row_log_sum_exp");
    }
  }

  void row_log_sum_exp_infinite() {
    constexpr double inf = oracle::infinity;
    for (const placement p : placements) {
      this->context(placement_name(p));
      array<real, 2> x({5, 3}, p, {-inf, -inf, -inf, -inf, 1, -inf, inf, 0, -inf, 2, 2, 2, 3, inf, inf}), none({2, 0}, p);
      array<real, 1> y({5}, p), z({2}, p);
      this->call([&] { b_.row_log_sum_exp(x.in(), y.view()); });
      this->expect(y, {{-inf, 1, inf, 2 + std::log(3.0), inf}, {0, 1, 0, 4, 0}}, "row_log_sum_exp");
      this->call([&] { b_.row_log_sum_exp(none.in(), z.view()); });
      this->expect(z, expectation::plain({-inf, -inf}), "row_log_sum_exp");
    }
    this->each_storage([&]<class T>(std::type_identity<T>) {
      each_odd_matrix([&](const index_t(&extents)[2], placement p, const std::vector<double>& values) {
        array<T, 2> x(extents, p, values);
        array<real, 1> y({extents[0]}, another(p));
        this->call([&] { b_.row_log_sum_exp(x.in(), y.view()); });
        this->expect(y, oracle::row_log_sum_exp(matrix_of(x, extents)), "row_log_sum_exp");
      });
    });
  }
  // Rows with infinities and NaN, shorter and longer than a vector, in every layout.
  template <class F>
  void each_odd_matrix(const F& f) {
    for (const index_t columns : {index_t{3}, index_t{8}, index_t{70}})
      for (const placement p : placements) {
        const index_t extents[2] = {suite<B>::odd_rows + 1, columns};
        this->context(std::string("infinities and NaN, ") + shape_text(extents, 2) + ", " + placement_name(p));
        f(extents, p, this->with_odd_rows(47, extents[0], columns, 3));
      }
  }

  void row_pick(std::uint64_t skip_one_in) {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      each_array<2>([&](const index_t(&extents)[2], placement p) {
        array<T, 2> x(extents, p, this->normals(23, extents[0] * extents[1]));
        array<std::int32_t, 1> which({extents[0]}, p, this->ids(24, extents[0], extents[1], skip_one_in));
        array<real, 1> y({extents[0]}, another(p));
        this->call([&] { b_.row_pick(x.in(), which.in(), y.view()); });
        this->expect(y, oracle::row_pick(matrix_of(x, extents), which.given()), "row_pick");
        this->expect_unchanged(x, which);
      });
    });
  }

  void row_gather(std::uint64_t skip_one_in) {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      each_array<2>([&](const index_t(&extents)[2], placement p) {
        const index_t picked = extents[0] > 0 ? extents[0] + 3 : 0;
        array<T, 2> x(extents, p, this->normals(25, extents[0] * extents[1])), same({picked, extents[1]}, another(p));
        array<std::int32_t, 1> which({picked}, p, this->ids(26, picked, extents[0], skip_one_in));
        array<real, 2> y({picked, extents[1]}, p);
        const auto want = oracle::row_gather(matrix_of(x, extents), which.given());
        this->call([&] { b_.row_gather(x.in(), which.in(), y.view()); });
        this->expect(y, want, "row_gather");
        this->call([&] { b_.row_gather(x.in(), which.in(), same.view()); });
        this->expect(same, want, "row_gather");
        this->expect_unchanged(x, which);
      });
    });
  }

  std::vector<double> valid_counts(index_t rows, index_t columns) const {
    std::vector<double> v;
    for (index_t i = 0; i < rows; ++i) v.push_back(static_cast<double>(i == 0 ? columns : (i * 7) % (columns + 1)));
    return v;
  }

  void row_softmax(bool masked) {
    each_array<2>([&](const index_t(&extents)[2], placement p) {
      std::vector<double> logits = this->normals(27, extents[0] * extents[1], 3), counts;
      if (masked) {
        counts = valid_counts(extents[0], extents[1]);
        for (std::size_t i = 0; i < counts.size(); ++i)  // what is not valid is not read
          for (auto j = static_cast<std::size_t>(counts[i]); j < static_cast<std::size_t>(extents[1]); ++j)
            logits[i * static_cast<std::size_t>(extents[1]) + j] = std::numeric_limits<double>::quiet_NaN();
      }
      array<real, 2> x(extents, p, logits), y(extents, another(p));
      array<std::int32_t, 1> valid({extents[0]}, p, counts);
      id_view<B> given{};
      if (masked) given = valid.in();
      this->call([&] { b_.row_softmax(x.in(), given, y.view()); });
      this->expect(y, oracle::row_softmax(matrix_of(x, extents), counts), "row_softmax");
      this->expect_unchanged(x, valid);
    });
  }

  void row_softmax_infinite() {
    each_odd_matrix([&](const index_t(&extents)[2], placement p, const std::vector<double>& values) {
      array<real, 2> x(extents, p, values), y(extents, another(p));
      this->call([&] { b_.row_softmax(x.in(), {}, y.view()); });
      this->expect(y, oracle::row_softmax(matrix_of(x, extents), {}), "row_softmax");
      this->expect_unchanged(x);
    });
  }

  void row_softmax_in_place() {
    const auto softmax = [&](const index_t(&extents)[2], placement p, const std::vector<double>& values) {
      array<real, 2> x(extents, p, values);
      this->call([&] { b_.row_softmax(x.in(), {}, x.view()); });
      this->expect(x, oracle::row_softmax(matrix_of(x, extents), {}), "row_softmax");
    };
    each_array<2>([&](const index_t(&extents)[2], placement p) { softmax(extents, p, this->normals(28, extents[0] * extents[1], 3)); });
    each_odd_matrix(softmax);
  }

  // Level 5.

  void row_add_at() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      each_array<2>([&](const index_t(&extents)[2], placement p) {
        array<real, 1> x({extents[0]}, p, this->normals(29, extents[0]));
        array<std::int32_t, 1> which({extents[0]}, p, this->ids(30, extents[0], extents[1]));
        array<T, 2> y(extents, another(p), this->normals(31, extents[0] * extents[1]));
        const auto want = oracle::row_add_at(x.given(), which.given(), matrix_of(y, extents));
        this->call([&] { b_.row_add_at(x.in(), which.in(), y.view()); });
        this->expect(y, want, "row_add_at");
        this->expect_unchanged(x, which);
      });
    });
  }

  void row_scatter_add() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      each_array<2>([&](const index_t(&extents)[2], placement p) {
        const index_t added = 2 * extents[0] + 1;  // some ids come twice
        array<real, 2> x({added, extents[1]}, p, this->normals(32, added * extents[1]));
        array<std::int32_t, 1> which({added}, p, this->ids(33, added, extents[0]));
        array<T, 2> y(extents, another(p), this->normals(34, extents[0] * extents[1]));
        auto want = oracle::row_scatter_add({x.given(), added, extents[1]}, which.given(), matrix_of(y, extents));
        for (double& m : want.magnitude) m *= 4;  // each addition is rounded to the storage type
        this->call([&] { b_.row_scatter_add(x.in(), which.in(), y.view()); });
        this->expect(y, want, "row_scatter_add");
        this->expect_unchanged(x, which);
      });
    });
  }

  void row_softmax_grad(bool in_place) {
    each_array<2>([&](const index_t(&extents)[2], placement p) {
      const index_t n = extents[0] * extents[1];
      const matrix logits{this->normals(35, n, 2), extents[0], extents[1]};
      array<real, 2> y(extents, p, oracle::row_softmax(logits, {}).value), dy(extents, another(p), this->normals(36, n)), dx(extents, p);
      const auto want = oracle::row_softmax_grad(matrix_of(y, extents), matrix_of(dy, extents));
      this->call([&] { b_.row_softmax_grad(y.in(), dy.in(), in_place ? dy.view() : dx.view()); });
      this->expect(in_place ? dy : dx, want, "row_softmax_grad");
      this->expect_unchanged(y);
    });
  }

  // Level 6.

  void segment_scan(bool masked) {
    each_layout(masked, [&](const oracle::sequences& l, placement p) {
      auto factors = this->normals(37, l.tokens, 0.2, 0.8), terms = this->normals(38, l.tokens);
      if (masked) {
        factors = with_nan_where_not_scored(factors, l);
        for (std::size_t i = 0; i < l.begin.size(); ++i) factors[l.of(i).back()] = std::numeric_limits<double>::quiet_NaN();  // not read
        terms = with_nan_where_not_scored(terms, l);
      }
      const placed_sequences<space> where(l, p);
      array<real, 1> a({l.tokens}, p, factors), x({l.tokens}, another(p), terms), y({l.tokens}, p);
      this->call([&] { b_.segment_scan(a.in(), x.in(), where.layout(), y.view()); });
      this->expect(y, oracle::segment_scan(a.given(), x.given(), l), "segment_scan");
      this->expect_unchanged(a, x, where.begin, where.end, where.scored);
    });
  }

  // Level 7.

  template <class T>
  void one_gemm(index_t m, index_t k, index_t n, placement pa, placement pb, placement pc, double alpha, double beta,
                bool nan_in_c = false) {
    this->context(std::string(dtype_name<T>()) + ", [" + std::to_string(m) + ", " + std::to_string(k) + "] x [" + std::to_string(k) + ", " +
                  std::to_string(n) + "], " + placement_name(pa) + " x " + placement_name(pb) + " to " + placement_name(pc));
    array<T, 2> a({m, k}, pa, this->normals(39, m * k)), b({k, n}, pb, this->normals(40, k * n));
    array<real, 2> c({m, n}, pc, nan_in_c ? std::vector<double>{} : this->normals(41, m * n));
    const auto want = oracle::gemm(alpha, {a.given(), m, k}, {b.given(), k, n}, beta, nan_in_c ? std::vector<double>{} : c.given());
    const std::size_t bytes = b_.gemm_workspace(a.in(), b.in(), c.view());
    auto scratch = this->scratch(bytes);
    this->call([&] { b_.gemm(scratch, static_cast<real>(alpha), a.in(), b.in(), static_cast<real>(beta), c.view()); });
    this->require(!this->poison_ || scratch.used() == 0, "gemm did not give its scratch back");
    this->expect(c, want, "gemm");
    this->expect_unchanged(a, b);
  }
  void gemm() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      constexpr index_t shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {1, 64, 1}, {17, 1, 33}, {32, 48, 64}, {5, 131, 2}};
      for (const auto& s : shapes)
        one_gemm<T>(s[0], s[1], s[2], placement::dense, placement::dense, placement::dense, 1, 0);
    });
  }
  void gemm_alpha_beta() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      for (const double alpha : {1.0, -0.5, 0.0})
        for (const double beta : {1.0, 0.25}) one_gemm<T>(6, 9, 11, placement::dense, placement::transposed, placement::dense, alpha, beta);
    });
  }
  // What is in `c` is NaN and must not be read.
  void gemm_beta_zero() { one_gemm<real>(4, 6, 5, placement::dense, placement::dense, placement::padded, 1, 0, true); }
  void gemm_nothing() {
    one_gemm<real>(3, 0, 4, placement::dense, placement::dense, placement::dense, 1, 0, true);
    one_gemm<real>(3, 0, 4, placement::dense, placement::dense, placement::dense, 1, 1);
    one_gemm<real>(0, 3, 4, placement::dense, placement::dense, placement::dense, 1, 0);
  }
  void gemm_layouts() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      for (const placement pa : placements)
        for (const placement pb : placements)
          for (const placement pc : {placement::dense, placement::transposed, placement::strided}) one_gemm<T>(5, 6, 7, pa, pb, pc, 1, 0);
    });
  }
  // Rank 3 and 4, with an input that the batch shares.
  void gemm_batch() {
    this->each_storage([&]<class T>(std::type_identity<T>) {
      for (const placement p : {placement::dense, placement::padded, placement::transposed}) {
        this->context(std::string(dtype_name<T>()) + ", " + placement_name(p));
        constexpr index_t outer = 2, inner = 3, m = 4, k = 5, n = 6;
        array<T, 4> a({outer, inner, m, k}, p, this->normals(42, outer * inner * m * k));
        array<T, 2> b({k, n}, p, this->normals(43, k * n));
        array<real, 4> c({outer, inner, m, n}, p, this->normals(45, outer * inner * m * n));
        view<const T, 4, space> shared;  // [outer, inner, k, n], the batch by zero strides
        shared.pointer = b.in().data();
        const index_t extents[4] = {outer, inner, k, n}, strides[4] = {0, 0, b.in().stride(0), b.in().stride(1)};
        for (int d = 0; d < 4; ++d) {
          shared.extents[d] = extents[d];
          shared.strides[d] = strides[d];
        }
        const auto values = a.given();
        expectation want;
        for (std::size_t i = 0; i < outer * inner; ++i) {
          const auto first = values.begin() + static_cast<std::ptrdiff_t>(i * m * k);
          const auto part = oracle::gemm(1, {{first, first + m * k}, m, k}, {b.given(), k, n}, 0, {});
          want.value.insert(want.value.end(), part.value.begin(), part.value.end());
          want.magnitude.insert(want.magnitude.end(), part.magnitude.begin(), part.magnitude.end());
        }
        auto scratch = this->scratch(b_.gemm_workspace(a.in(), shared, c.view()));
        this->call([&] { b_.gemm(scratch, real(1), a.in(), shared, real(0), c.view()); });
        this->expect(c, want, "gemm");

        array<real, 3> c3({inner, m, n}, p, this->normals(46, inner * m * n));
        auto scratch3 = this->scratch(b_.gemm_workspace(a.in().row(0), shared.row(0), c3.view()));
        this->call([&] { b_.gemm(scratch3, real(1), a.in().row(0), shared.row(0), real(0), c3.view()); });
        want.value.resize(inner * m * n);
        want.magnitude.resize(inner * m * n);
        this->expect(c3, want, "gemm");
        this->expect_unchanged(a, b);
      }
    });
  }
};

}  // namespace detail
}  // namespace testing

PLUMB_NAMESPACE_END

// The operations that only move memory or work on short rows, at the sizes of a small transformer, beside a bare read or copy.

#include "support/backends.hpp"
#include "support/peer.hpp"

#include <plumb/math/elementwise.hpp>

namespace {

using namespace plumb_bench;
using plumb::index_t;

struct silu {
  template <class T>
  T operator()(const T& x) const {
    return x / (T(1) + plumb::math::exp(-x));
  }
};

/// What an operation may use: `x`, `y`, `z` of `[rows, columns]`, and a vector along each side.
template <class B>
struct arrays {
  using real = plumb::real_of<B>;
  index_t rows, columns;
  std::vector<real> x = random_values<real>(static_cast<std::size_t>(rows * columns)), y = x, z = x;
  std::vector<real> per_row = std::vector<real>(static_cast<std::size_t>(rows)), per_column = std::vector<real>(static_cast<std::size_t>(columns));
  std::vector<std::int32_t> ids = std::vector<std::int32_t>(static_cast<std::size_t>(rows));

  plumb::view<const real, 2> in() const { return {x.data(), rows, columns}; }
  plumb::view<real, 2> out() { return {y.data(), rows, columns}; }
  plumb::view<real, 2> other() { return {z.data(), rows, columns}; }
};

template <class Row, class F>
void add(const char* name, index_t rows, index_t columns, bool writes, F f) {
  benchmark::RegisterBenchmark(
      ("reduce/" + std::string(name) + "/" + std::to_string(rows) + "x" + std::to_string(columns) + "/" + Row::name()).c_str(),
      [=](benchmark::State& state) {
        Row row;
        using B = decltype(row.backend);
        arrays<B> a{rows, columns};
        for (std::size_t i = 0; i < a.ids.size(); ++i) a.ids[i] = static_cast<std::int32_t>(i * 31 % a.ids.size());
        for (auto _ : state) {
          f(row.backend, a);
          benchmark::ClobberMemory();
        }
        const std::size_t bytes = a.x.size() * sizeof(a.x[0]);
        count(state, "elements/s", static_cast<double>(a.x.size()));
        if (writes) {
          compare(state, "bare copy", seconds([&] { bare_copy(a.y.data(), a.x.data(), bytes); }));
        } else {
          compare(state, "bare read", seconds([&] { bare_read(a.x.data(), bytes); }));
        }
      })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond)
      ->MinTime(0.05);
}

const int registered = [] {
  for_each_backend([]<class Row>(std::type_identity<Row>) {
    using plumb::as_const;
    using plumb::reduction;
    add<Row>("sum_of_rows", 1536, 128, false,
             [](auto& b, auto& a) { b.reduce(reduction::sum, a.in(), plumb::as_column(plumb::view(a.per_row)), plumb::write_mode::overwrite); });
    add<Row>("sum_of_columns", 1536, 128, false,
             [](auto& b, auto& a) { b.reduce(reduction::sum, a.in(), plumb::as_row(plumb::view(a.per_column)), plumb::write_mode::overwrite); });
    add<Row>("max_of_rows", 1536, 128, false,
             [](auto& b, auto& a) { b.reduce(reduction::max, a.in(), plumb::as_column(plumb::view(a.per_row)), plumb::write_mode::overwrite); });
    add<Row>("log_sum_exp_of_rows", 1536, 128, false, [](auto& b, auto& a) { b.row_log_sum_exp(a.in(), plumb::view(a.per_row)); });
    add<Row>("row_softmax", 6144, 48, true, [](auto& b, auto& a) { b.row_softmax(a.in(), {}, a.out()); });
    add<Row>("row_softmax_causal", 6144, 48, true, [](auto& b, auto& a) {
      for (std::size_t i = 0; i < a.ids.size(); ++i) a.ids[i] = static_cast<std::int32_t>(i % 48 + 1);
      b.row_softmax(a.in(), plumb::as_const(plumb::view(a.ids)), a.out());
    });
    add<Row>("row_softmax_grad", 6144, 48, true,
             [](auto& b, auto& a) { b.row_softmax_grad(a.in(), as_const(a.other()), a.out()); });
    add<Row>("add", 1536, 128, true, [](auto& b, auto& a) { b.transform(plumb::math::plus{}, a.out(), a.in(), as_const(a.other())); });
    add<Row>("add_row", 1536, 128, true, [](auto& b, auto& a) {
      b.transform(plumb::math::plus{}, a.out(), a.in(), plumb::broadcast_rows(as_const(plumb::view(a.per_column)), a.rows));
    });
    add<Row>("scale_by_column", 1536, 128, true, [](auto& b, auto& a) {
      b.transform(plumb::math::times{}, a.out(), a.in(), plumb::broadcast_columns(as_const(plumb::view(a.per_row)), a.columns));
    });
    add<Row>("silu", 1536, 128, true, [](auto& b, auto& a) { b.transform(silu{}, a.out(), a.in()); });
    add<Row>("copy_transposed_heads", 6144, 32, true, [](auto& b, auto& a) {
      const auto x = a.in();  // [32, 48, 4, 32] to [32, 4, 48, 32]
      b.copy(plumb::view<const typename std::remove_cvref_t<decltype(a)>::real, 4>(x.pointer, {32, 4, 48, 32}, {6144, 32, 128, 1}),
             plumb::reshaped(a.out(), 32, 4, 48, 32));
    });
    add<Row>("row_gather", 1536, 128, true, [](auto& b, auto& a) { b.row_gather(a.in(), as_const(plumb::view(a.ids)), a.out()); });
    add<Row>("row_scatter_add", 1536, 128, true, [](auto& b, auto& a) { b.row_scatter_add(a.in(), as_const(plumb::view(a.ids)), a.out()); });
  });
  return 0;
}();

}  // namespace

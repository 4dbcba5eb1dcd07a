// The oneDNN backend against the serial one in double, on the same rounded inputs.

#include <plumb/backends/onednn.hpp>
#include <plumb/core/random.hpp>
#include <plumb/ops/token_logp.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

using namespace plumb;

static_assert(check_backend<onednn::backend>());
static_assert(require_determinism<onednn::backend, determinism::run_to_run>());
static_assert(declares<onednn::backend, cap::token_logp> && declares<onednn::backend, cap::token_logp_grad>);

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct machine {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  onednn::backend backend{engine, stream};
  serial::backend<double> oracle;
};

std::uint64_t random_seed = 1;

/// Memory for a view, with a canary before and after.
template <class T, int R>
struct array {
  std::vector<T> memory;
  view<T, R> v;

  // Strides grow from the last dimension in `order` to the first; `gap` elements lie between lines.
  array(const std::vector<index_t>& extents, std::vector<int> order = {}, index_t gap = 0) {
    if (order.empty())
      for (int d = 0; d < R; ++d) order.push_back(d);
    index_t stride = 1;
    for (int i = R; i-- > 0;) {
      const int d = order[static_cast<std::size_t>(i)];
      v.extents[d] = extents[static_cast<std::size_t>(d)];
      v.strides[d] = stride;
      stride = stride * v.extents[d] + gap;
    }
    memory.resize(static_cast<std::size_t>(stride) + 64);
    v.pointer = memory.data() + 32;
    const random_stream numbers{random_seed++, 7};
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = convert<T>(static_cast<float>(numbers.normal(i)));
  }
  view<const T, R> in() const { return v; }
};

template <class T, int R>
std::vector<double> values(const view<T, R>& v) {
  std::vector<double> out(static_cast<std::size_t>(v.size()));
  if (!v.empty()) {
    view<double, R> dense;
    dense.pointer = out.data();
    index_t s = 1;
    for (int d = R; d-- > 0; s *= v.extents[d]) {
      dense.extents[d] = v.extents[d];
      dense.strides[d] = s;
    }
    serial::backend<double>().copy(v, dense);
  }
  return out;
}

/// A dense double copy for the oracle to write to.
template <int R>
struct shadow {
  std::vector<double> memory;
  view<double, R> v;
  template <class T>
  explicit shadow(const view<T, R>& of) : memory(values(of)) {
    v.pointer = memory.data();
    index_t s = 1;
    for (int d = R; d-- > 0; s *= v.extents[d]) {
      v.extents[d] = of.extents[d];
      v.strides[d] = s;
    }
  }
};

/// NaN agrees only with NaN, infinities only with themselves.
bool agree(double got, double want, double relative, double absolute) {
  if (math::is_nan(want) || math::is_nan(got)) return math::is_nan(want) && math::is_nan(got);
  if (math::is_inf(want) || math::is_inf(got)) return want == got;
  return std::abs(got - want) <= relative * std::abs(want) + absolute;
}
template <class T, int R>
void require_agreement(const view<T, R>& got, const std::vector<double>& want, double relative, double absolute) {
  const std::vector<double> g = values(got);
  REQUIRE(g.size() == want.size());
  for (std::size_t i = 0; i < g.size(); ++i)
    if (!agree(g[i], want[i], relative, absolute)) {
      CAPTURE(i, g[i], want[i]);
      REQUIRE(agree(g[i], want[i], relative, absolute));
    }
}

/// What lies around and between the elements of an output must stay.
template <class T, int R>
class untouched {
 public:
  explicit untouched(const array<T, R>& a) : a_(a), before_(a.memory) {
    written_.resize(before_.size());
    if (a.v.empty()) return;
    std::vector<index_t> at(R, 0);
    for (;;) {
      index_t offset = 32;
      for (int d = 0; d < R; ++d) offset += at[static_cast<std::size_t>(d)] * a.v.strides[d];
      written_[static_cast<std::size_t>(offset)] = true;
      int d = R - 1;
      while (d >= 0 && ++at[static_cast<std::size_t>(d)] == a.v.extents[d]) at[static_cast<std::size_t>(d--)] = 0;
      if (d < 0) break;
    }
  }
  bool holds() const {
    for (std::size_t i = 0; i < before_.size(); ++i)
      if (!written_[i] && std::memcmp(&before_[i], &a_.memory[i], sizeof(T)) != 0) return false;
    return true;
  }

 private:
  const array<T, R>& a_;
  std::vector<T> before_;
  std::vector<bool> written_;
};

/// An arena with exactly what was asked for, full of NaN.
struct exact_arena {
  std::vector<unsigned char> memory;
  arena<> scratch;
  explicit exact_arena(std::size_t bytes) : memory(bytes, 0xff), scratch(memory.data(), bytes) {}
};

struct affine {
  template <class T>
  T operator()(const T& a, const T& b, const T& c, const T& d) const {
    return a * b + c - d;
  }
};
struct sum_and_product {
  template <class T>
  two<T> operator()(const T& a, const T& b) const {
    return {a + b, a * b};
  }
};

std::vector<onednn::isa> instruction_sets() {
  std::vector<onednn::isa> all{onednn::isa::generic};
  for (const onednn::isa i : {onednn::isa::avx2, onednn::isa::avx512})
    if (onednn::detail::best_isa() >= i) all.push_back(i);
  return all;
}

}  // namespace

TEST_CASE("onednn: vectors of every width do the arithmetic that floats do") {
  using onednn::detail::lanes;
  for (const onednn::isa which : instruction_sets()) {
    CAPTURE(static_cast<int>(which));
    double exp_error = 0, tanh_error = 0;
    for (float start = -87.0f; start < 60.0f; start += 0.0731f) {
      float x[16], e[16], t[16];
      for (int i = 0; i < 16; ++i) x[i] = start + 0.0041f * static_cast<float>(i);
      onednn::detail::dispatch(which, [&]<int N>() __attribute__((always_inline)) {
        for (int i = 0; i < 16; i += N) {
          lanes<N>::store(e + i, lanes<N>::exp(lanes<N>::load(x + i)));
          lanes<N>::store(t + i, lanes<N>::tanh(lanes<N>::load(x + i)));
        }
      });
      for (int i = 0; i < 16; ++i) {
        const double want_e = std::exp(static_cast<double>(x[i])), want_t = std::tanh(static_cast<double>(x[i]));
        if (x[i] < 0.3f) exp_error = std::max(exp_error, std::abs(e[i] - want_e) / want_e);
        REQUIRE(std::abs(e[i] - want_e) < 5e-5 * want_e);
        tanh_error = std::max(tanh_error, std::abs(t[i] - want_t) / std::max(std::abs(want_t), 1e-30));
      }
    }
    #if defined(__FAST_MATH__)
    REQUIRE(exp_error < 5e-6);  // the two steps of the reduction become one
#else
    REQUIRE(exp_error < 1.5e-7);
#endif
    REQUIRE(tanh_error < 3e-7);

    // Every 16-bit number, and floats of every magnitude.
    long wrong = 0;
    const random_stream numbers{11, 3};
    for (std::uint32_t first = 0; first < 65536; first += 16) {
      bf16 b[16], b_back[16];
      f16 h[16], h_back[16];
      float from_b[16], from_h[16], any[16];
      for (std::uint32_t i = 0; i < 16; ++i) {
        b[i].bits = h[i].bits = static_cast<std::uint16_t>(first + i);
        any[i] = std::bit_cast<float>(static_cast<std::uint32_t>(numbers.bits(first + i)));
        if (first % 32 == 0) any[i] = std::ldexp(any[i] > 0 ? 1.37f : -1.91f, static_cast<int>(first / 32 % 45) - 27);
      }
      onednn::detail::dispatch(which, [&]<int N>() __attribute__((always_inline)) {
        for (int i = 0; i < 16; i += N) {
          lanes<N>::store(from_b + i, lanes<N>::load(b + i));
          lanes<N>::store(from_h + i, lanes<N>::load(h + i));
          lanes<N>::store(b_back + i, lanes<N>::load(any + i));
          lanes<N>::store(h_back + i, lanes<N>::load(any + i));
        }
      });
      for (int i = 0; i < 16; ++i) {
        const auto same = [](float x, float y) { return (math::is_nan(x) && math::is_nan(y)) || x == y; };
        wrong += !same(from_b[i], static_cast<float>(b[i])) + !same(from_h[i], static_cast<float>(h[i]));
        wrong += !same(static_cast<float>(b_back[i]), static_cast<float>(bf16(any[i])));
        wrong += !same(static_cast<float>(h_back[i]), static_cast<float>(f16(any[i])));
      }
    }
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("onednn: fill, copy and transform over any strides") {
  machine m;
  for (const onednn::isa which : instruction_sets()) {
    m.backend.limit(which);
    for (const std::vector<index_t>& e : std::vector<std::vector<index_t>>{
             {2, 3, 5, 7}, {1, 1, 1, 1}, {3, 1, 300, 33}, {2, 2, 4, 513}, {1, 9, 1, 5000}, {0, 3, 2, 2}, {2, 3, 2, 0}})
      for (const std::vector<int>& order : std::vector<std::vector<int>>{{0, 1, 2, 3}, {1, 0, 3, 2}, {3, 2, 1, 0}, {0, 2, 1, 3}})
        for (const index_t gap : {0, 3}) {
          CAPTURE(e, order, gap, static_cast<int>(which));
          array<float, 4> y(e, order, gap), a(e), b(e, {2, 0, 3, 1});
          array<bf16, 4> c(e, order);
          array<f16, 4> d(e, {3, 1, 2, 0}, 1);
          array<float, 4> row({1, 1, 1, e[3]});
          view<const float, 4> broadcast = row.v;
          for (int k = 0; k < 3; ++k) {
            broadcast.extents[k] = e[static_cast<std::size_t>(k)];
            broadcast.strides[k] = 0;
          }
          const untouched<float, 4> around(y);
          shadow<4> want(y.in());

          m.backend.transform(affine{}, y.v, a.in(), broadcast, c.in(), d.in());
          m.oracle.transform(affine{}, want.v, a.in(), broadcast, c.in(), d.in());
          require_agreement(y.v, want.memory, 1e-6, 1e-6);

          m.backend.transform(affine{}, y.v, y.in(), a.in(), b.in(), y.in());  // in place
          m.oracle.transform(affine{}, want.v, as_const(want.v), a.in(), b.in(), as_const(want.v));
          require_agreement(y.v, want.memory, 1e-5, 1e-5);

          array<float, 4> z(e, {1, 3, 0, 2}, gap);
          shadow<4> want_z(z.in());
          m.backend.transform2(sum_and_product{}, y.v, z.v, a.in(), b.in());
          m.oracle.transform2(sum_and_product{}, want.v, want_z.v, a.in(), b.in());
          require_agreement(y.v, want.memory, 1e-6, 1e-6);
          require_agreement(z.v, want_z.memory, 1e-6, 1e-6);

          // Conversions round once, to nearest even: exactly what the scalar types do.
          array<bf16, 4> narrow(e, order, gap);
          m.backend.copy(b.in(), narrow.v);
          shadow<4> want_narrow(b.in());
          for (double& x : want_narrow.memory) x = static_cast<float>(bf16(static_cast<float>(x)));
          require_agreement(narrow.v, want_narrow.memory, 0, 0);
          m.backend.copy(d.in(), y.v);
          require_agreement(y.v, values(d.in()), 0, 0);

          m.backend.fill(y.v, -2.5f);
          require_agreement(y.v, std::vector<double>(static_cast<std::size_t>(y.v.size()), -2.5), 0, 0);
          REQUIRE(around.holds());
        }
  }
  std::vector<std::uint8_t> mask{0, 1, 7, 255};
  std::vector<float> as_float(4);
  m.backend.copy(as_const(vector_view<std::uint8_t>(mask)), vector_view<float>(as_float));
  REQUIRE(as_float == std::vector<float>{0, 1, 7, 255});
}

TEST_CASE("onednn: reduce over any dimensions") {
  machine m;
  for (const onednn::isa which : instruction_sets()) {
    m.backend.limit(which);
    for (const std::vector<index_t>& e :
         std::vector<std::vector<index_t>>{{3, 2, 5, 70}, {1, 6, 1, 2500}, {4, 1, 130, 1}, {2, 0, 3, 5}, {1, 1, 300, 257}})
      for (int reduced = 0; reduced < 16; ++reduced)
        for (const index_t gap : {0, 2})
          for (const reduction op : {reduction::sum, reduction::max})
            for (const plumb::write_mode w : {plumb::write_mode::overwrite, plumb::write_mode::add}) {
              CAPTURE(e, reduced, gap, static_cast<int>(op), static_cast<int>(w), static_cast<int>(which));
              std::vector<index_t> f = e;
              for (int d = 0; d < 4; ++d)
                if (reduced >> d & 1) f[static_cast<std::size_t>(d)] = 1;
              array<float, 4> x(e, {0, 1, 2, 3}, gap), y(f);
              const untouched<float, 4> around(y);
              shadow<4> want(y.in());
              m.backend.reduce(op, x.in(), y.v, w);
              m.oracle.reduce(op, x.in(), want.v, w);
              require_agreement(y.v, want.memory, 1e-6, 2e-4);  // of magnitudes that add up to 60,000
              REQUIRE(around.holds());
            }
    for (const bool transposed : {false, true}) {
      array<bf16, 2> x({70, 45}, transposed ? std::vector<int>{1, 0} : std::vector<int>{0, 1}, 3);
      x.v(3, 7) = bf16(std::numeric_limits<float>::quiet_NaN());
      for (const reduction op : {reduction::sum, reduction::max}) {
        array<float, 2> by_row({70, 1}), by_column({1, 45}), all({1, 1});
        for (array<float, 2>* y : {&by_row, &by_column, &all}) {
          shadow<2> want(y->in());
          m.backend.reduce(op, x.in(), y->v);
          m.oracle.reduce(op, x.in(), want.v);
          require_agreement(y->v, want.memory, 1e-6, 1e-5);
        }
      }
    }
  }
}

TEST_CASE("onednn: sums of a million floats keep their digits") {
  machine m;
  std::vector<float> x(1 << 20, 0.1f);
  float total = 0;
  m.backend.reduce(reduction::sum, as_const(vector_view<float>(x)), vector_view<float>(total));
  REQUIRE(total == Catch::Approx(0.1f * (1 << 20)).epsilon(1e-6));
}

TEST_CASE("onednn: rows of odd lengths, strides and contents") {
  machine m;
  for (const onednn::isa which : instruction_sets()) {
    m.backend.limit(which);
    for (const index_t v : {0, 1, 3, 16, 48, 50, 200, 1024, 1025, 5003})
      for (const bool transposed : {false, true}) {
        CAPTURE(v, transposed, static_cast<int>(which));
        const index_t n = 23;
        array<float, 2> x({n, v}, transposed ? std::vector<int>{1, 0} : std::vector<int>{0, 1}, 5);
        for (index_t i = 0; i < n; ++i)
          for (index_t j = 0; j < v; ++j) x.v(i, j) *= i % 3 == 0 ? 40.0f : 1.0f;
        if (v > 0)
          for (index_t j = 0; j < v; ++j) x.v(2, j) = static_cast<float>(-infinity);  // nothing
        if (v > 2) {
          x.v(4, 1) = static_cast<float>(infinity);
          x.v(5, v - 1) = std::numeric_limits<float>::quiet_NaN();
          x.v(6, 0) = static_cast<float>(-infinity);
          x.v(7, v / 2) = 1e30f;
        }
        array<float, 1> lse({n});
        shadow<1> want_lse(lse.in());
        m.backend.row_log_sum_exp(x.in(), lse.v);
        m.oracle.row_log_sum_exp(x.in(), want_lse.v);
        require_agreement(lse.v, want_lse.memory, 1e-6, 1e-6);

        array<bf16, 2> narrow({n, v}, {0, 1}, 1);
        m.backend.copy(x.in(), narrow.v);
        m.backend.row_log_sum_exp(narrow.in(), lse.v);
        m.oracle.row_log_sum_exp(narrow.in(), want_lse.v);
        require_agreement(lse.v, want_lse.memory, 1e-6, 1e-6);

        std::vector<std::int32_t> valid(static_cast<std::size_t>(n));
        for (index_t i = 0; i < n; ++i) valid[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(v == 0 ? 0 : (i * 7) % (v + 1));
        for (const bool some : {false, true})
          for (const bool in_place : {false, true}) {
            array<float, 2> y = x;
            y.v.pointer = y.memory.data() + 32;
            const view<const std::int32_t, 1> lengths = some ? view<const std::int32_t, 1>(valid) : view<const std::int32_t, 1>{};
            shadow<2> want(x.in());
            m.oracle.row_softmax(as_const(want.v), lengths, want.v);
            const untouched<float, 2> around(y);
            m.backend.row_softmax(in_place ? as_const(y.v) : x.in(), lengths, y.v);
            require_agreement(y.v, want.memory, 1e-5, 1e-7);
            REQUIRE(around.holds());
            array<float, 2> dy({n, v}, {0, 1}, some ? 3 : 0);
            shadow<2> want_dx(dy.in());
            const shadow<2> wide_y(y.in());
            m.oracle.row_softmax_grad(as_const(wide_y.v), as_const(want_dx.v), want_dx.v);
            m.backend.row_softmax_grad(y.in(), dy.in(), dy.v);
            require_agreement(dy.v, want_dx.memory, 1e-4, 1e-6);
          }

        std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
        for (index_t i = 0; i < n; ++i)
          ids[static_cast<std::size_t>(i)] = v == 0 || i % 4 == 0 ? -1 : static_cast<std::int32_t>((i * 31) % v);
        array<float, 1> picked({n});
        shadow<1> want_picked(picked.in());
        m.backend.row_pick(narrow.in(), ids, picked.v);
        m.oracle.row_pick(narrow.in(), ids, want_picked.v);
        require_agreement(picked.v, want_picked.memory, 0, 0);

        for (index_t i = 0; i < n; ++i) ids[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i % 4 == 0 ? -1 : (i * 5) % n);
        array<float, 2> gathered({n, v}, {0, 1}, 2);
        shadow<2> want_gathered(gathered.in());
        m.backend.row_gather(x.in(), ids, gathered.v);
        m.oracle.row_gather(x.in(), ids, want_gathered.v);
        require_agreement(gathered.v, want_gathered.memory, 0, 0);
        array<float, 2> plain({n, v});
        m.backend.row_scatter_add(plain.in(), ids, gathered.v);
        const shadow<2> wide(plain.in());
        m.oracle.row_scatter_add(as_const(wide.v), ids, want_gathered.v);
        require_agreement(gathered.v, want_gathered.memory, 1e-5, 1e-5);
        std::fill(ids.begin(), ids.end(), v == 0 ? -1 : static_cast<std::int32_t>(v - 1));
        m.backend.row_add_at(picked.in(), ids, gathered.v);
        m.oracle.row_add_at(as_const(want_picked.v), ids, want_gathered.v);
        require_agreement(gathered.v, want_gathered.memory, 1e-5, 1e-5);
      }
  }
}

TEST_CASE("onednn: segments skip what is not scored") {
  machine m;
  const std::vector<std::int32_t> begin{0, 3, 3, 9}, end{3, 3, 9, 10};
  std::vector<std::uint8_t> scored{1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1};
  array<float, 1> x({12}), a({12}), y({12}), s({4});
  x.v(4) = std::numeric_limits<float>::quiet_NaN();
  const sequence_layout<> layout{begin, end, scored};
  shadow<1> xd(x.in()), ad(a.in()), yd(y.in()), sd(s.in());
  for (const reduction op : {reduction::sum, reduction::max}) {
    m.backend.segment_reduce(op, x.in(), layout, s.v);
    m.oracle.segment_reduce(op, as_const(xd.v), layout, sd.v);
    require_agreement(s.v, sd.memory, 1e-6, 1e-6);
  }
  for (const plumb::write_mode w : {plumb::write_mode::overwrite, plumb::write_mode::add}) {
    array<float, 1> per({4});
    shadow<1> per_d(per.in());
    m.backend.segment_broadcast(per.in(), layout, y.v, w);
    m.oracle.segment_broadcast(as_const(per_d.v), layout, yd.v, w);
    require_agreement(y.v, yd.memory, 1e-6, 1e-6);
  }
  m.backend.segment_scan(a.in(), x.in(), layout, y.v);
  m.oracle.segment_scan(as_const(ad.v), as_const(xd.v), layout, yd.v);
  require_agreement(y.v, yd.memory, 1e-6, 1e-6);
}

namespace {

/// Error over the size of what is summed, which is what a gemm can promise.
template <class S, int R>
void check_gemm(machine& m, const view<const S, R>& a, const view<const S, R>& b, array<float, R>& c, float alpha, float beta) {
  const untouched<float, R> around(c);
  shadow<R> want(c.in()), size(c.in()), da(a), db(b);
  arena<> none;
  m.oracle.gemm(none, alpha, as_const(da.v), as_const(db.v), beta, want.v);
  for (auto* memory : {&size.memory, &da.memory, &db.memory})
    for (double& x : *memory) x = std::abs(x);
  m.oracle.gemm(none, std::abs(alpha), as_const(da.v), as_const(db.v), std::abs(beta), size.v);
  if (beta == 0) m.backend.fill(c.v, std::numeric_limits<float>::quiet_NaN());  // must not be read
  exact_arena scratch(m.backend.gemm_workspace(a, b, c.v));
  m.backend.gemm(scratch.scratch, alpha, a, b, beta, c.v);
  REQUIRE(scratch.scratch.used() == 0);
  const std::vector<double> got = values(c.v);
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!(std::abs(got[i] - want.memory[i]) <= 2e-6 * size.memory[i] + 1e-12)) {
      CAPTURE(i, got[i], want.memory[i]);
      REQUIRE(std::abs(got[i] - want.memory[i]) <= 2e-6 * size.memory[i] + 1e-12);
    }
  REQUIRE(around.holds());
}

struct problem {
  index_t m, n, k;
};

template <class S>
void check_gemm_layouts(machine& m, const problem& p) {
  const std::vector<std::vector<int>> orders{{0, 1}, {1, 0}};
  for (const auto& oa : orders)
    for (const auto& ob : orders)
      for (const auto& oc : orders)
        for (const index_t gap : {0, 5})
          for (const auto& [alpha, beta] : {std::pair{1.0f, 0.0f}, {0.5f, 0.0f}, {1.0f, 1.0f}, {-0.25f, 1.0f}, {2.0f, -0.5f}, {0.0f, 2.0f}}) {
            CAPTURE(p.m, p.n, p.k, oa, ob, oc, gap, alpha, beta, dtype_name<S>());
            array<S, 2> a({p.m, p.k}, oa, gap), b({p.k, p.n}, ob, gap);
            array<float, 2> c({p.m, p.n}, oc, gap);
            check_gemm<S, 2>(m, a.in(), b.in(), c, alpha, beta);
          }
}

}  // namespace

TEMPLATE_TEST_CASE("onednn: gemm over any shape, stride, alpha and beta", "", float, bf16, f16) {
  machine m;
  for (const problem& p : {problem{5, 7, 3}, {1, 64, 32}, {33, 1, 17}, {1, 1, 1}, {48, 48, 32}, {130, 70, 65}, {4, 5, 0}, {0, 4, 3}, {4, 0, 3}})
    check_gemm_layouts<TestType>(m, p);

  SECTION("strides that oneDNN has no words for") {
    array<TestType, 2> a({12, 9}), b({9, 14});
    const auto ones = view<const TestType, 2>(a.v.pointer, {12, 9}, {0, 0});
    const auto skipping = view<const TestType, 2>(a.v.pointer, {6, 4}, {18, 2});
    const auto backwards = view<const TestType, 2>(a.v.pointer + 8, {12, 9}, {9, -1});
    const auto sliding = view<const TestType, 2>(a.v.pointer, {12, 9}, {1, 1});  // overlaps itself
    const auto column = broadcast_columns(view<const TestType, 1>(a.v.pointer, index_t{12}), 9);
    for (const auto& [alpha, beta] : {std::pair{1.0f, 0.0f}, {0.5f, 1.0f}}) {
      array<float, 2> c({12, 14}), small({6, 14}), gaps({12, 28}), rows({14, 12});
      for (const auto& x : {ones, backwards, sliding, column}) check_gemm<TestType, 2>(m, x, b.in(), c, alpha, beta);
      check_gemm<TestType, 2>(m, skipping, b.in().slice(0, 4), small, alpha, beta);
      check_gemm<TestType, 2>(m, b.in().transposed(), a.in().transposed(), rows, alpha, beta);
      gaps.v.extents[1] = 14;
      gaps.v.strides[1] = 2;
      check_gemm<TestType, 2>(m, a.in(), b.in(), gaps, alpha, beta);
    }
  }
  SECTION("batches: dense, heads between tokens, broadcast") {
    for (const auto& [alpha, beta] : {std::pair{1.0f, 0.0f}, {0.3f, 1.0f}, {0.3f, 0.7f}}) {
      CAPTURE(alpha, beta);
      array<TestType, 4> q({3, 4, 10, 8}), k({3, 4, 8, 6}), q_heads({3, 4, 10, 8}, {0, 2, 1, 3}), k_heads({3, 4, 8, 6}, {0, 3, 1, 2});
      array<float, 4> c({3, 4, 10, 6}), c_heads({3, 4, 10, 6}, {0, 2, 1, 3}), c_turned({3, 4, 10, 6}, {1, 0, 3, 2}, 3);
      for (const auto& x : {q.in(), q_heads.in()})
        for (const auto& y : {k.in(), k_heads.in()})
          for (array<float, 4>* z : {&c, &c_heads, &c_turned}) check_gemm<TestType, 4>(m, x, y, *z, alpha, beta);
      const auto over = [](view<const TestType, 4> v, std::vector<int> dimensions) {
        for (const int d : dimensions) v.strides[d] = 0;
        return v;
      };
      check_gemm<TestType, 4>(m, over(q.in(), {0}), k.in(), c, alpha, beta);
      check_gemm<TestType, 4>(m, q.in(), over(k.in(), {0, 1}), c, alpha, beta);
      check_gemm<TestType, 4>(m, over(q.in(), {1}), over(k.in(), {0}), c_heads, alpha, beta);
      check_gemm<TestType, 4>(m, over(q.in(), {0, 1}), over(k.in(), {0, 1}), c, alpha, beta);
      array<TestType, 3> a({5, 9, 4}), w({5, 4, 11});
      array<float, 3> y({5, 9, 11});
      view<const TestType, 3> shared = w.in();
      shared.strides[0] = 0;
      check_gemm<TestType, 3>(m, a.in(), shared, y, alpha, beta);
      array<TestType, 3> none({0, 9, 4}), none_b({0, 4, 11});
      array<float, 3> none_c({0, 9, 11});
      check_gemm<TestType, 3>(m, none.in(), none_b.in(), none_c, alpha, beta);
    }
  }
}

TEST_CASE("onednn: products too large to be cast at once go in blocks") {
  machine m;
  const auto bytes = [&](const auto& a, const auto& b, const auto& c) { return m.backend.gemm_workspace(a, b, c); };
  constexpr std::size_t limit = (std::size_t{1} << 21) * sizeof(float) + (std::size_t{1} << 20);  // the copies and oneDNN's own
  for (const problem& p : {problem{4, 2100, 1030}, {2100, 4, 1030}, {4, 520, 4300}}) {
    CAPTURE(p.m, p.n, p.k);
    array<f16, 2> a({p.m, p.k}), b({p.k, p.n}, {1, 0});
    array<float, 2> c({p.m, p.n}), d({p.m, p.n}, {1, 0});
    REQUIRE(bytes(a.in(), b.in(), c.v) < limit);
    check_gemm<f16, 2>(m, a.in(), b.in(), c, 1, 0);
    check_gemm<f16, 2>(m, a.in(), b.in(), d, 0.5f, 1);
  }
  array<f16, 3> a({40, 8, 256}), b({40, 256, 250});
  array<float, 3> c({40, 8, 250});
  REQUIRE(bytes(a.in(), b.in(), c.v) < limit);
  check_gemm<f16, 3>(m, a.in(), b.in(), c, 0.5f, 0.5f);
}

TEST_CASE("onednn: NaN goes through a product, and alpha 0 does not hide it") {
  machine m;
  array<float, 2> a({4, 8}), b({8, 5}), c({4, 5});
  a.v(1, 2) = std::numeric_limits<float>::quiet_NaN();
  for (const float alpha : {0.0f, 1.0f}) {
    exact_arena s(m.backend.gemm_workspace(a.in(), b.in(), c.v));
    m.backend.gemm(s.scratch, alpha, a.in(), b.in(), 0.0f, c.v);
    for (index_t i = 0; i < 4; ++i)
      for (index_t j = 0; j < 5; ++j) REQUIRE(math::is_nan(c.v(i, j)) == (i == 1));
  }
}

namespace {

// Gradients of rows whose log-sum-exp lies near 100, where a float's step is 8e-6.
template <class S>
double token_tolerance() {
  return std::is_same_v<S, float> ? 2e-5 : 1e-2;
}

template <class S>
void check_token_logp(machine& m, index_t n, index_t v, const std::vector<int>& order, const token_logp_options& options) {
  CAPTURE(n, v, order, options.temperature, options.softcap, options.logit_scale, dtype_name<S>());
  array<S, 2> x({n, v}, order, 3);
  std::vector<std::int32_t> targets(static_cast<std::size_t>(n));
  for (index_t i = 0; i < n; ++i) {
    targets[static_cast<std::size_t>(i)] = i % 5 == 4 ? -1 : static_cast<std::int32_t>((i * 37) % v);
    for (index_t j = 0; j < v; ++j) x.v(i, j) = convert<S>(convert<float>(x.v(i, j)) * (i % 2 == 0 ? 3.0f : 20.0f));
  }
  if (n > 8 && v > 3) {
    x.v(1, 2) = convert<S>(static_cast<float>(-infinity));
    x.v(2, v - 1) = convert<S>(std::numeric_limits<float>::quiet_NaN());
    x.v(3, 1) = convert<S>(static_cast<float>(infinity));
    for (index_t j = 0; j < v; ++j) x.v(5, j) = convert<S>(static_cast<float>(-infinity));
  }
  const token_logp_inputs<S> in{x.in(), targets};
  array<float, 1> logp({n}), lse({n}), entropy({n}), c_logp({n}), c_lse({n}), c_entropy({n});
  shadow<1> d_logp(logp.in()), d_lse(lse.in()), d_entropy(entropy.in());
  exact_arena scratch(std::size_t{1} << 24);
  token_logp(m.backend, scratch.scratch, in, options, {logp.v, lse.v, entropy.v});
  REQUIRE(scratch.scratch.peak() == 0);  // fused: no scratch at all
  detail::compose_token_logp(m.oracle, scratch.scratch, in, options, {d_logp.v, d_lse.v, d_entropy.v});
  detail::compose_token_logp(m.backend, scratch.scratch, in, options, {c_logp.v, c_lse.v, c_entropy.v});
  require_agreement(logp.v, d_logp.memory, 1e-5, 1e-5);
  require_agreement(lse.v, d_lse.memory, 1e-6, 1e-6);
  require_agreement(entropy.v, d_entropy.memory, 1e-5, 1e-5);
  require_agreement(logp.v, values(c_logp.v), 1e-5, 1e-5);
  require_agreement(entropy.v, values(c_entropy.v), 1e-5, 2e-5);
  array<float, 1> alone({n});
  m.backend.token_logp(in, options, {alone.v, {}, {}});
  require_agreement(alone.v, values(logp.v), 0, 0);

  // Backward; rows 0, 6, .. have no coefficient at all.
  array<float, 1> g_logp({n}), g_entropy({n});
  for (index_t i = 0; i < n; i += 6) g_logp.v(i) = g_entropy.v(i) = 0;
  for (const int kind : {0, 1, 2}) {
    CAPTURE(kind);
    const bool by_logp = kind != 2, by_entropy = kind != 0;
    shadow<1> dg_logp(g_logp.in()), dg_entropy(g_entropy.in());
    const token_logp_gradients<float> grad{lse.in(), by_logp ? g_logp.in() : view<const float, 1>{}, entropy.in(),
                                           by_entropy ? g_entropy.in() : view<const float, 1>{}};
    const token_logp_gradients<double> d_grad{as_const(d_lse.v), by_logp ? as_const(dg_logp.v) : view<const double, 1>{},
                                              as_const(d_entropy.v),
                                              by_entropy ? as_const(dg_entropy.v) : view<const double, 1>{}};
    shadow<2> want(x.in());
    detail::compose_token_logp_grad(m.oracle, scratch.scratch, token_logp_inputs<double>{as_const(want.v), targets}, options,
                                    d_grad, want.v);
    array<S, 2> dx({n, v}, order, 1);
    const untouched<S, 2> around(dx);
    token_logp_backward(m.backend, scratch.scratch, in, options, grad, dx.v);
    require_agreement(dx.v, want.memory, token_tolerance<S>(), token_tolerance<S>());
    REQUIRE(around.holds());
    for (index_t i = 0; i < n; i += 6)
      for (index_t j = 0; j < v; ++j) REQUIRE(convert<float>(dx.v(i, j)) == 0);

    array<S, 2> in_place = x;
    in_place.v.pointer = in_place.memory.data() + 32;
    token_logp_backward(m.backend, scratch.scratch, token_logp_inputs<S>{in_place.in(), targets}, options, grad, in_place.v);
    require_agreement(in_place.v, values(dx.v), 0, 0);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("onednn: fused token log-probs are the composition", "", float, bf16, f16) {
  machine m;
  for (const onednn::isa which : instruction_sets()) {
    m.backend.limit(which);
    for (const token_logp_options& options : {token_logp_options{}, token_logp_options{.temperature = 0.7},
                                              token_logp_options{.temperature = 1.3, .softcap = 30, .logit_scale = 0.5},
                                              token_logp_options{.logit_scale = -1}})
      for (const index_t v : {1, 5, 64, 200, 1030, 3000})
        for (const std::vector<int>& order : std::vector<std::vector<int>>{{0, 1}, {1, 0}})
          check_token_logp<TestType>(m, 13, v, order, options);
  }
}

TEST_CASE("onednn: log-probs of a large vocabulary agree with double to a millionth") {
  machine m;
  array<float, 2> x({3, 128256});
  const std::vector<std::int32_t> targets{5, 128255, 77};
  array<float, 1> logp({3}), lse({3}), entropy({3});
  shadow<1> d_logp(logp.in()), d_lse(lse.in()), d_entropy(entropy.in());
  exact_arena scratch(std::size_t{1} << 25);
  const token_logp_inputs<float> in{x.in(), targets};
  m.backend.token_logp(in, {}, {logp.v, lse.v, entropy.v});
  detail::compose_token_logp(m.oracle, scratch.scratch, in, {}, {d_logp.v, d_lse.v, d_entropy.v});
  require_agreement(logp.v, d_logp.memory, 1e-6, 0);
  require_agreement(lse.v, d_lse.memory, 1e-6, 0);
  require_agreement(entropy.v, d_entropy.memory, 1e-6, 0);
}

TEST_CASE("onednn: after the first call, only what the bare primitive allocates") {
  machine m;
  array<float, 2> a({64, 96}), b({96, 80}), c({64, 80});
  array<bf16, 2> a16({64, 96});
  array<float, 1> per_row({64}), other({64});
  std::vector<std::int32_t> ids(64, 3);
  std::vector<unsigned char> memory(1 << 22);
  arena<> scratch(memory);
  // The bare primitive, executed by the C call with its arguments on the stack: oneDNN's own tables are what is allocated.
  namespace compat = onednn::compat;
  const index_t ea[2] = {64, 96}, eb[2] = {96, 80}, ec[2] = {64, 80}, sa[2] = {96, 1}, sb[2] = {80, 1}, one[2] = {1, 1};
  const compat::memory_desc da("test", dnnl_f32, 2, ea, sa), db("test", dnnl_f32, 2, eb, sb), dc("test", dnnl_f32, 2, ec, sb),
      ds("test", dnnl_f32, 2, one, one);
  for (const bool scale : {false, true})
    for (const bool add : {false, true}) {
      const auto pd = compat::describe_matmul("test", m.engine.get(), da, db, dc, scale ? &ds : nullptr, add);
      REQUIRE(pd);
      compat::primitive p;
      compat::require_success("test", "primitive_create", dnnl_primitive_create(p.out(), pd.get()));
      float alpha = 0.5f;
      std::vector<compat::memory> memories;
      std::vector<dnnl_exec_arg_t> arguments;
      const auto pass = [&](int name, compat::memory_desc::handle desc, void* data) {
        memories.push_back(compat::empty_memory("test", desc, m.engine.get()));
        dnnl_memory_set_data_handle(memories.back().get(), data);
        arguments.push_back({name, memories.back().get()});
      };
      pass(DNNL_ARG_SRC, da.get(), a.v.pointer);
      pass(DNNL_ARG_WEIGHTS, db.get(), b.v.pointer);
      pass(DNNL_ARG_DST, dc.get(), c.v.pointer);
      if (dnnl_memory_desc_get_size(compat::scratchpad_desc(pd)) > 0)
        pass(DNNL_ARG_SCRATCHPAD, compat::scratchpad_desc(pd), memory.data());
      if (scale) pass(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, ds.get(), &alpha);
      const auto bare = [&] {
        compat::require_success("test", "primitive_execute",
                                dnnl_primitive_execute(p.get(), m.stream.get(), static_cast<int>(arguments.size()), arguments.data()));
      };
      const auto product = [&] { m.backend.gemm(scratch, scale ? alpha : 1.0f, a.in(), b.in(), add ? 1.0f : 0.0f, c.v); };
      const auto count = [](const auto& f) {
        f();
        const long long start = plumb_test::allocations();
        f();
        return plumb_test::allocations() - start;
      };
      const long theirs = count(bare), ours = count(product);
      CAPTURE(scale, add, ours, theirs);
      REQUIRE(theirs > 0);
      REQUIRE(ours <= theirs);
    }
  const long long before = plumb_test::allocations();
  m.backend.fill(c.v, 1.0f);
  m.backend.copy(a16.in(), a.v);
  m.backend.transform(math::plus{}, a.v, a.in(), a.in());
  m.backend.reduce(reduction::sum, a.in(), as_row(view<float, 1>(b.v.pointer, index_t{96})));
  m.backend.row_log_sum_exp(a.in(), per_row.v);
  m.backend.row_softmax(a.in(), {}, a.v);
  m.backend.row_gather(b.in().narrow(1, 0, 64).transposed(), ids, a.v);
  m.backend.token_logp(token_logp_inputs<float>{a.in(), ids}, {}, {per_row.v, other.v, {}});
  m.backend.token_logp_grad(token_logp_inputs<float>{a.in(), ids}, {}, {other.in(), per_row.in(), {}, {}}, a.v);
  m.backend.sync();
  REQUIRE(plumb_test::allocations() == before);
}

TEST_CASE("onednn: scratch comes from the arena, or from the user's scratchpad") {
  machine m;
  array<float, 2> a({64, 512}, {1, 0}), b({512, 64}, {1, 0}), c({64, 64}), d({64, 64});
  const std::size_t wanted = m.backend.gemm_workspace(a.in(), b.in(), c.v);
  std::vector<unsigned char> pad(wanted + 64);
  onednn::backend padded(m.engine, m.stream, pad.data(), pad.size());
  REQUIRE(padded.gemm_workspace(a.in(), b.in(), c.v) == 0);
  arena<> none;
  padded.gemm(none, 1.0f, a.in(), b.in(), 0.0f, c.v);
  exact_arena scratch(wanted);
  m.backend.gemm(scratch.scratch, 1.0f, a.in(), b.in(), 0.0f, d.v);
  require_agreement(c.v, values(d.v), 0, 0);
}

TEST_CASE("onednn: an engine and a stream of the user's serve several backends") {
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::vector<float> x{1, 2, 3}, y(3);
  {
    onednn::backend first(engine, stream), second(engine, stream);
    onednn::backend moved(std::move(second));
    first.copy(as_const(vector_view<float>(x)), vector_view<float>(y));
    moved.transform(math::plus{}, vector_view<float>(y), as_const(vector_view<float>(y)), as_const(vector_view<float>(x)));
    moved.sync();
  }
  stream.wait();
  REQUIRE(y == std::vector<float>{2, 4, 6});
}

TEST_CASE("onednn: more shapes than are kept still give right products") {
  machine m;
  for (index_t n = 1; n <= 530; ++n) {
    array<float, 2> a({2, n}), b({n, 1});
    array<float, 2> c({2, 1});
    check_gemm<float, 2>(m, a.in(), b.in(), c, 1, 0);
  }
  array<float, 2> a({2, 1}), b({1, 1}), c({2, 1});
  check_gemm<float, 2>(m, a.in(), b.in(), c, 1, 0);
}

TEST_CASE("onednn: the shapes used last are kept, not the ones made last") {
  const machine m;
  onednn::detail::matmul_cache cache;
  const auto problem = [](index_t n) {
    onednn::detail::matmul_problem p;
    p.type = dnnl_f32;
    p.rank = 2;
    p.a = {{n, 2}, {2, 1}};
    p.b = {{2, 3}, {3, 1}};
    p.c = {{n, 3}, {3, 1}};
    return p;
  };
  const auto capacity = static_cast<index_t>(onednn::detail::matmul_cache::capacity);
  for (index_t n = 1; n <= capacity; ++n) cache.find("test", problem(n), m.engine.get());
  cache.find("test", problem(1), m.engine.get());  // the first made is the last used
  cache.find("test", problem(capacity + 1), m.engine.get());
  REQUIRE(cache.size() == onednn::detail::matmul_cache::capacity);
  REQUIRE(cache.holds(problem(1)));
  REQUIRE(!cache.holds(problem(2)));
  REQUIRE(cache.holds(problem(3)));
  REQUIRE(cache.holds(problem(capacity + 1)));
}

#if !defined(PLUMB_NO_EXCEPTIONS)
TEST_CASE("onednn: errors name the operation and write nothing") {
  using Catch::Matchers::ContainsSubstring;
  machine m;
  array<float, 2> a({4, 6}), b({5, 3}), c({4, 3});
  array<float, 1> short_vector({2});
  const std::vector<float> before = c.memory;
  arena<> none;
  const auto what = [](const auto& f) -> std::string {
    try {
      f();
    } catch (const precondition_error& e) {
      return e.what();
    }
    return "nothing was thrown";
  };
  REQUIRE_THAT(what([&] { m.backend.gemm(none, 1.0f, a.in(), b.in(), 0.0f, c.v); }),
               ContainsSubstring("plumb: gemm: `a` [4, 6] times `b` [5, 3] does not give `c` [4, 3]"));
  REQUIRE_THAT(what([&] { m.backend.copy(a.in(), c.v); }), ContainsSubstring("plumb: copy:"));
  REQUIRE_THAT(what([&] { m.backend.transform(math::negate{}, c.v, a.in()); }), ContainsSubstring("plumb: transform:"));
  REQUIRE_THAT(what([&] { m.backend.reduce(reduction::sum, a.in(), c.v); }), ContainsSubstring("plumb: reduce:"));
  REQUIRE_THAT(what([&] { m.backend.row_log_sum_exp(a.in(), short_vector.v); }), ContainsSubstring("plumb: row_log_sum_exp:"));
  REQUIRE_THAT(what([&] { m.backend.row_softmax(a.in(), {}, c.v); }), ContainsSubstring("plumb: row_softmax:"));
  REQUIRE_THAT(what([&] { m.backend.row_softmax_grad(a.in(), a.in(), c.v); }), ContainsSubstring("plumb: row_softmax_grad:"));

  // A copied operand needs scratch; without any, a product with beta must leave `c` as it was.
  array<float, 2> x({4, 5}), y({4, 5});
  const auto skipping = view<const float, 2>(x.v.pointer, {2, 2}, {10, 2});
  const auto square = view<const float, 2>(y.v.pointer, {2, 3}, {3, 1});
  const auto small = c.v.narrow(0, 0, 2);
  REQUIRE_THAT(what([&] { m.backend.gemm(none, 1.0f, skipping, square, 0.5f, small); }), ContainsSubstring("gemm_workspace"));
  REQUIRE(std::memcmp(before.data(), c.memory.data(), before.size() * sizeof(float)) == 0);
}

TEST_CASE("onednn: oneDNN's own errors carry its code") {
  try {
    onednn::compat::require_success("gemm", "primitive_execute", dnnl_out_of_memory);
    FAIL("nothing was thrown");
  } catch (const backend_error& e) {
    REQUIRE(e.code() == static_cast<int>(dnnl_out_of_memory));
    REQUIRE_THAT(std::string(e.what()), Catch::Matchers::ContainsSubstring("primitive_execute"));
  }
}
#endif

TEST_CASE("onednn: the capability table says how 16-bit products are made") {
  machine m;
  REQUIRE(std::string(m.backend.gemm_path<float>()) == "native");
  REQUIRE(std::string(m.backend.gemm_path<f16>()) == "cast to float");
  const std::string bf = m.backend.gemm_path<bf16>();
  REQUIRE(bf == (onednn::compat::has_bf16_instructions() ? "native" : "cast to float"));
  // The path is real: a cast takes scratch for both operands.
  array<bf16, 2> a({256, 256}), b({256, 256});
  array<float, 2> c({256, 256});
  const std::size_t bytes = m.backend.gemm_workspace(a.in(), b.in(), c.v);
  if (bf == "cast to float") REQUIRE(bytes >= 2 * 256 * 256 * sizeof(float));
}

// The xtensor backend against values worked out by hand, and against the serial backend on random arrays.

#include <plumb/backends/serial.hpp>
#include <plumb/backends/xtensor.hpp>
#include <plumb/core/random.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

using namespace plumb;

static_assert(check_backend<plumb::xtensor::backend>());
static_assert(require_determinism<plumb::xtensor::backend, determinism::thread_count_invariant>());

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double qnan = std::numeric_limits<double>::quiet_NaN();
constexpr double canary = -77.25;  // exact in every storage type

using doubles = std::vector<double>;
using ids = std::vector<std::int32_t>;
using flags = std::vector<std::uint8_t>;

// NaN agrees with NaN, an infinity with itself, numbers to 1e-12 of the largest of them and 1.
bool agree(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return std::abs(a - b) <= 1e-12 * std::max({1.0, std::abs(a), std::abs(b)});
}
template <class T>
bool agree(const std::vector<T>& a, const std::type_identity_t<std::vector<T>>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (agree(convert<double>(a[i]), convert<double>(b[i]))) continue;
    UNSCOPED_INFO("element " << i << ": " << convert<double>(a[i]) << " and " << convert<double>(b[i]));
    return false;
  }
  return true;
}

view<const double, 2> matrix(const doubles& x, index_t rows, index_t columns) { return {x.data(), rows, columns}; }
view<double, 2> matrix(doubles& x, index_t rows, index_t columns) { return {x.data(), rows, columns}; }

struct weigh {  // tells its arguments apart
  template <class T>
  T operator()(T a) const { return T(2) * a; }
  template <class T>
  T operator()(T a, T b) const { return a - T(10) * b; }
  template <class T>
  T operator()(T a, T b, T c) const { return a - T(10) * b + T(100) * c; }
  template <class T>
  T operator()(T a, T b, T c, T d) const { return a - T(10) * b + T(100) * c - T(1000) * d; }
};
struct sum_and_quotient {
  template <class T>
  two<T> operator()(T a, T b) const { return {a + b, a / b}; }
};

}  // namespace

TEST_CASE("xtensor: fill and copy") {
  xtensor::backend b;
  SECTION("fill touches the elements of the view only") {
    doubles y(6, canary);
    b.fill(view<double, 2>(y.data(), {3, 1}, {2, 1}), 4);
    CHECK(agree(y, {4, canary, 4, canary, 4, canary}));
  }
  SECTION("fill converts, rounding to nearest even") {
    std::vector<bf16> y(2);
    b.fill(view<bf16, 1>(y), 1.00390625);  // 1 + 2^-8, between 1 and 1 + 2^-7: even is 1
    CHECK(static_cast<float>(y[0]) == 1);
    CHECK(static_cast<float>(y[1]) == 1);
  }
  SECTION("copy reads and writes any strides") {
    const doubles x{1, 2, 3, 4, 5, 6};
    doubles y(6);
    b.copy(matrix(x, 2, 3).transposed(), matrix(y, 3, 2));
    CHECK(y == doubles{1, 4, 2, 5, 3, 6});
    b.copy(view<const double, 1>(x.data() + 5, {3}, {-2}), view<double, 1>(y.data() + 2, {3}, {-1}));
    CHECK(y == doubles{2, 4, 6, 5, 3, 6});
    b.copy(broadcast_rows(view<const double, 1>(x.data(), 3), 2), matrix(y, 2, 3));
    CHECK(y == doubles{1, 2, 3, 1, 2, 3});
  }
  SECTION("copy converts") {
    const doubles x{1.00390625, 1.01171875, -inf, qnan};  // ties: to 1, to 1 + 2^-6
    std::vector<bf16> y(4);
    b.copy(view<const double, 1>(x), view<bf16, 1>(y));
    doubles z(4);
    b.copy(as_const(view<bf16, 1>(y)), view<double, 1>(z));
    CHECK(agree(z, {1, 1.015625, -inf, qnan}));
    const flags m{0, 1, 255};
    doubles w(3);
    b.copy(view<const std::uint8_t, 1>(m), view<double, 1>(w));
    CHECK(w == doubles{0, 1, 255});
  }
  SECTION("nothing at all") {
    doubles y(1, canary);
    b.fill(matrix(y, 0, 3), 1);
    b.copy(view<const double, 3>(nullptr, 2, 0, 3), view<double, 3>(nullptr, 2, 0, 3));
    CHECK(y[0] == canary);
  }
}

TEST_CASE("xtensor: transform") {
  xtensor::backend b;
  const doubles x{1, 2, 3, 4};
  const flags m{0, 1, 2, 3};
  const ids n{-1, 0, 1, 2};
  const std::vector<float> s{0.5f, 1, 1.5f, 2};
  doubles y(4), z(4);
  const view<double, 1> out(y);
  const view<const double, 1> in(x);
  SECTION("one to four inputs of any element type, in their order") {
    b.transform(weigh{}, out, in);
    CHECK(y == doubles{2, 4, 6, 8});
    b.transform(weigh{}, out, in, view<const std::uint8_t, 1>(m));
    CHECK(y == doubles{1, -8, -17, -26});
    b.transform(weigh{}, out, in, view<const std::uint8_t, 1>(m), view<const std::int32_t, 1>(n));
    CHECK(y == doubles{-99, -8, 83, 174});
    b.transform(weigh{}, out, in, view<const std::uint8_t, 1>(m), view<const std::int32_t, 1>(n),
                view<const float, 1>(s));
    CHECK(y == doubles{-599, -1008, -1417, -1826});
  }
  SECTION("broadcast by zero strides") {
    b.transform(weigh{}, matrix(y, 2, 2), broadcast_rows(in.slice(0, 2), 2), broadcast_columns(in.slice(2, 2), 2));
    CHECK(y == doubles{1 - 30, 2 - 30, 1 - 40, 2 - 40});
  }
  SECTION("the output may be an input") {
    y = x;
    b.transform(weigh{}, out, as_const(out), as_const(out));
    CHECK(y == doubles{-9, -18, -27, -36});
  }
  SECTION("two outputs, either of them an input") {
    y = x;
    z = {2, 2, 6, 8};
    b.transform2(sum_and_quotient{}, out, view<double, 1>(z), as_const(out), as_const(view<double, 1>(z)));
    CHECK(y == doubles{3, 4, 9, 12});
    CHECK(z == doubles{0.5, 1, 0.5, 0.5});
  }
  SECTION("NaN and nothing") {
    const doubles w{qnan, inf};
    b.transform(weigh{}, out.slice(0, 2), view<const double, 1>(w));
    CHECK(agree(y, {qnan, inf, 0, 0}));
    b.transform(weigh{}, view<double, 4>(nullptr, 2, 3, 0, 1), view<const double, 4>(nullptr, 2, 3, 0, 1));
  }
}

TEST_CASE("xtensor: reduce") {
  xtensor::backend b;
  const doubles x{1, 2, 3, 4, 5, 7};
  doubles y(3, canary);
  SECTION("along rows, along columns, along both, along none") {
    b.reduce(reduction::sum, matrix(x, 2, 3), matrix(y, 2, 1));
    CHECK(y == doubles{6, 16, canary});
    b.reduce(reduction::max, matrix(x, 2, 3), matrix(y, 2, 1));
    CHECK(y == doubles{3, 7, canary});
    b.reduce(reduction::sum, matrix(x, 2, 3), matrix(y, 1, 3));
    CHECK(y == doubles{5, 7, 10});
    b.reduce(reduction::sum, matrix(x, 2, 3), matrix(y, 1, 1), write_mode::add);
    CHECK(y == doubles{27, 7, 10});
    b.reduce(reduction::max, matrix(x, 1, 3), matrix(y, 1, 3), write_mode::overwrite);
    CHECK(y == doubles{1, 2, 3});
  }
  SECTION("nothing: 0 or -inf; added, it changes nothing or gives -inf") {
    b.reduce(reduction::sum, matrix(x, 2, 0), matrix(y, 2, 1));
    CHECK(y == doubles{0, 0, canary});
    b.reduce(reduction::max, matrix(x, 0, 3), matrix(y, 1, 3));
    CHECK(y == doubles{-inf, -inf, -inf});
    y = {1, 2, 3};
    b.reduce(reduction::sum, matrix(x, 0, 3), matrix(y, 1, 3), write_mode::add);
    CHECK(y == doubles{1, 2, 3});
    b.reduce(reduction::sum, matrix(x, 0, 3), matrix(y, 0, 3));
    CHECK(y == doubles{1, 2, 3});
  }
  SECTION("NaN anywhere gives NaN; -inf alone gives -inf") {
    for (const doubles& row :
         {doubles{qnan, 1, 2}, doubles{1, qnan, 2}, doubles{1, 2, qnan}, doubles{inf, qnan, -inf}}) {
      b.reduce(reduction::max, view<const double, 1>(row), view<double, 1>(y.data(), 1));
      CHECK(std::isnan(y[0]));
      b.reduce(reduction::sum, view<const double, 1>(row), view<double, 1>(y.data(), 1));
      CHECK(std::isnan(y[0]));
    }
    const doubles low{-inf, -inf};
    b.reduce(reduction::max, view<const double, 1>(low), view<double, 1>(y.data(), 1));
    CHECK(y[0] == -inf);
  }
  SECTION("floats are summed in double") {
    const std::vector<float> wide{1e8f, 1, -1e8f};
    b.reduce(reduction::sum, view<const float, 1>(wide), view<double, 1>(y.data(), 1));
    CHECK(y[0] == 1);
  }
  SECTION("one and three of four dimensions") {
    const doubles w{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};  // [2, 1, 3, 2]
    doubles r(6);
    b.reduce(reduction::sum, view<const double, 4>(w.data(), 2, 1, 3, 2), view<double, 4>(r.data(), 1, 1, 3, 2));
    CHECK(r == doubles{8, 10, 12, 14, 16, 18});
    b.reduce(reduction::max, view<const double, 4>(w.data(), 2, 1, 3, 2), view<double, 4>(y.data(), 1, 1, 3, 1));
    CHECK(y == doubles{8, 10, 12});
  }
}

TEST_CASE("xtensor: segments") {
  xtensor::backend b;
  // Sequences: tokens 4..7, none, 0..3; token 3 belongs to none. Token 5 and the whole last sequence are not scored.
  const ids begin{4, 2, 0}, end{7, 2, 3};
  const flags scored{0, 0, 0, 1, 1, 0, 1};
  const sequence_layout<> all{begin, end, {}}, some{begin, end, scored};
  const doubles x{1, 2, 3, qnan, 5, 6, 8};
  doubles hostile = x;
  hostile[5] = qnan;
  hostile[0] = inf;
  doubles y(3, canary);
  const view<double, 1> out(y);
  SECTION("sum and maximum; no token gives 0 and -inf") {
    b.segment_reduce(reduction::sum, x, all, out);
    CHECK(y == doubles{19, 0, 6});
    b.segment_reduce(reduction::max, x, all, out);
    CHECK(y == doubles{8, -inf, 3});
  }
  SECTION("tokens that are not scored are skipped, whatever they hold") {
    b.segment_reduce(reduction::sum, hostile, some, out);
    CHECK(y == doubles{13, 0, 0});
    b.segment_reduce(reduction::max, hostile, some, out);
    CHECK(y == doubles{8, -inf, -inf});
    b.segment_reduce(reduction::max, hostile, all, out);
    CHECK(agree(y, {qnan, -inf, inf}));
  }
  SECTION("broadcast, overwriting and adding") {
    const doubles each{10, 20, 30};
    doubles tokens(7, canary);
    const view<double, 1> t(tokens);
    b.segment_broadcast(each, all, t);
    CHECK(tokens == doubles{30, 30, 30, 0, 10, 10, 10});
    b.segment_broadcast(each, some, t, write_mode::overwrite);
    CHECK(tokens == doubles{0, 0, 0, 0, 10, 0, 10});
    tokens = {1, 2, 3, qnan, 5, 6, 7};
    b.segment_broadcast(each, some, t, write_mode::add);
    CHECK(agree(tokens, {1, 2, 3, qnan, 15, 6, 17}));
    b.segment_broadcast(doubles{qnan, qnan, 1}, some, t);
    CHECK(agree(tokens, {0, 0, 0, 0, qnan, 0, qnan}));
  }
  SECTION("scan from the end, over scored tokens") {
    // The last factor of a sequence multiplies nothing.
    const doubles a{0.5, 2, qnan, qnan, 3, qnan, qnan};
    doubles tokens(7, canary);
    b.segment_scan(a, x, sequence_layout<>{begin, end, flags{1, 1, 1, 1, 1, 0, 1}}, view<double, 1>(tokens));
    CHECK(tokens == doubles{1 + 0.5 * 8, 2 + 2 * 3, 3, 0, 5 + 3 * 8, 0, 8});
    b.segment_scan(a, hostile, some, view<double, 1>(tokens));
    CHECK(tokens == doubles{0, 0, 0, 0, 29, 0, 8});
    b.segment_scan(a, x, all, view<double, 1>(tokens));
    CHECK(agree(tokens, {5, 8, 3, 0, qnan, qnan, 8}));
  }
  SECTION("no sequences, no tokens") {
    const sequence_layout<> none{};
    doubles tokens(2, canary);
    b.segment_broadcast({}, none, view<double, 1>(tokens));
    CHECK(tokens == doubles{0, 0});
    b.segment_reduce(reduction::sum, x, none, {});
    const ids zero{0, 0};
    b.segment_reduce(reduction::max, {}, {zero, zero, {}}, out.slice(0, 2));
    CHECK(y == doubles{-inf, -inf, canary});
    b.segment_scan({}, {}, {zero, zero, {}}, {});
  }
}

TEST_CASE("xtensor: row_log_sum_exp") {
  xtensor::backend b;
  doubles y(5, canary);
  const doubles x{0, 0, -1000, -1000, 1000, -inf, -inf, -inf, inf, inf};
  b.row_log_sum_exp(matrix(x, 5, 2), view<double, 1>(y));
  CHECK(agree(y, {std::log(2.0), -1000 + std::log(2.0), 1000, -inf, inf}));
  const doubles h{qnan, 1, inf, qnan, -inf, inf, -inf, 3};
  b.row_log_sum_exp(matrix(h, 4, 2), view<double, 1>(y.data(), 4));
  CHECK(agree(y, {qnan, qnan, inf, 3, inf}));
  b.row_log_sum_exp(matrix(x, 5, 0), view<double, 1>(y));
  CHECK(y == doubles(5, -inf));
  const std::vector<bf16> s{bf16(1), bf16(2)};
  b.row_log_sum_exp(view<const bf16, 2>(s.data(), 1, 2), view<double, 1>(y.data(), 1));
  CHECK(agree(y[0], 1 + std::log1p(std::exp(1.0))));
  b.row_log_sum_exp(matrix(x, 0, 2), view<double, 1>());
}

TEST_CASE("xtensor: rows by id") {
  xtensor::backend b;
  const doubles x{1, qnan, 3, 4, 5, inf};
  doubles y(6, canary);
  SECTION("pick") {
    b.row_pick(matrix(x, 3, 2), ids{0, -1, 1}, view<double, 1>(y.data(), 3));
    CHECK(y == doubles{1, 0, inf, canary, canary, canary});
    b.row_pick(matrix(x, 3, 2), ids{1, -100, 0}, view<double, 1>(y.data(), 3));
    CHECK(agree(y, {qnan, 0, 5, canary, canary, canary}));
    b.row_pick(matrix(x, 2, 0), ids{-1, -1}, view<double, 1>(y.data(), 2));
    CHECK(agree(y, {0, 0, 5, canary, canary, canary}));
  }
  SECTION("add at") {
    y = x;
    b.row_add_at(doubles{10, qnan, 30}, ids{0, -1, 0}, matrix(y, 3, 2));
    CHECK(agree(y, {11, qnan, 3, 4, 35, inf}));
    std::vector<float> s{1, 2};
    b.row_add_at(doubles{0.5}, ids{1}, view<float, 2>(s.data(), 1, 2));
    CHECK(s == std::vector<float>{1, 2.5f});
  }
  SECTION("gather") {
    b.row_gather(matrix(x, 3, 2), ids{2, -1, 0}, matrix(y, 3, 2));
    CHECK(agree(y, {5, inf, 0, 0, 1, qnan}));
    b.row_gather(matrix(x, 0, 2), ids{-1}, matrix(y, 1, 2));
    CHECK(agree(y, {0, 0, 0, 0, 1, qnan}));
    std::vector<bf16> s(2);
    b.row_gather(matrix(x, 3, 2), ids{1}, view<bf16, 2>(s.data(), 1, 2));
    CHECK(static_cast<float>(s[0]) == 3);
    CHECK(static_cast<float>(s[1]) == 4);
  }
  SECTION("scatter, with ids that repeat") {
    y = {100, 200, 300, 400, 500, qnan};
    const doubles rows{1, 2, 3, 4, qnan, qnan, 5, 6};
    b.row_scatter_add(matrix(rows, 4, 2), ids{1, 1, -1, 0}, matrix(y, 3, 2));
    CHECK(agree(y, {105, 206, 304, 406, 500, qnan}));
    b.row_scatter_add(matrix(rows, 0, 2), view<const std::int32_t, 1>(), matrix(y, 3, 2));
    CHECK(agree(y, {105, 206, 304, 406, 500, qnan}));
  }
}

TEST_CASE("xtensor: row_softmax and its gradient") {
  xtensor::backend b;
  doubles y(6, canary);
  SECTION("whole rows") {
    const doubles x{0, std::log(3.0), 1000, 1000, -inf, 5};
    b.row_softmax(matrix(x, 3, 2), {}, matrix(y, 3, 2));
    CHECK(agree(y, {0.25, 0.75, 0.5, 0.5, 0, 1}));
  }
  SECTION("valid columns: the rest is not read and becomes 0") {
    const doubles x{1, qnan, 0, std::log(4.0), qnan, inf};
    b.row_softmax(matrix(x, 3, 2), ids{1, 2, 0}, matrix(y, 3, 2));
    CHECK(agree(y, {1, 0, 0.2, 0.8, 0, 0}));
  }
  SECTION("NaN makes its row NaN, and no other") {
    const doubles x{1, qnan, 0, 0};
    b.row_softmax(matrix(x, 2, 2), {}, matrix(y, 2, 2));
    CHECK(agree(y, {qnan, qnan, 0.5, 0.5, canary, canary}));
  }
  SECTION("in place, and nothing") {
    y = {0, std::log(3.0), 7, 7, qnan, qnan};
    b.row_softmax(matrix(y, 2, 2), {}, matrix(y, 2, 2));
    CHECK(agree(y, {0.25, 0.75, 0.5, 0.5, qnan, qnan}));
    b.row_softmax(matrix(y, 2, 0), ids{0, 0}, matrix(y, 2, 0));
    b.row_softmax(matrix(y, 0, 2), {}, matrix(y, 0, 2));
    CHECK(agree(y, {0.25, 0.75, 0.5, 0.5, qnan, qnan}));
  }
  SECTION("gradient: y (dy - sum y dy), also in place") {
    const doubles p{0.25, 0.75, 1, 0};
    y = {4, 8, 3, 1e300, canary, canary};
    b.row_softmax_grad(matrix(p, 2, 2), matrix(y, 2, 2), matrix(y, 2, 2));
    CHECK(agree(y, {0.25 * (4 - 7), 0.75 * (8 - 7), 0, 0, canary, canary}));
    b.row_softmax_grad(matrix(p, 2, 2), matrix(doubles{qnan, 0, 1, 1}, 2, 2), matrix(y, 2, 2));
    CHECK(agree(y, {qnan, qnan, 0, 0, canary, canary}));
  }
}

TEST_CASE("xtensor: gemm") {
  xtensor::backend b;
  arena<> none;
  const doubles x{1, 2, 3, 4, 5, 6};           // [2, 3]
  const doubles w{1, 0, -1, 2, 0, 1};          // [3, 2]
  doubles c{qnan, qnan, qnan, qnan};
  SECTION("with beta 0, what c holds does not matter") {
    b.gemm(none, 1, matrix(x, 2, 3), matrix(w, 3, 2), 0, matrix(c, 2, 2));
    CHECK(c == doubles{-1, 7, -1, 16});
  }
  SECTION("alpha and beta") {
    c = {1, 2, 3, 4};
    b.gemm(none, 2, matrix(x, 2, 3), matrix(w, 3, 2), -1, matrix(c, 2, 2));
    CHECK(c == doubles{-3, 12, -5, 28});
  }
  SECTION("transposed views on each side") {
    b.gemm(none, 1, matrix(w, 3, 2).transposed(), matrix(x, 2, 3).transposed(), 0, matrix(c, 2, 2).transposed());
    CHECK(c == doubles{-1, 7, -1, 16});
  }
  SECTION("no terms: beta c") {
    c = {1, 2, 3, 4};
    b.gemm(none, 1, matrix(x, 2, 0), matrix(w, 0, 2), 3, matrix(c, 2, 2));
    CHECK(c == doubles{3, 6, 9, 12});
    b.gemm(none, 1, matrix(x, 2, 0), matrix(w, 0, 2), 0, matrix(c, 2, 2));
    CHECK(c == doubles{0, 0, 0, 0});
  }
  SECTION("a batch; one matrix broadcast over it") {
    doubles r(4);
    const view<const double, 3> rows(x.data(), 2, 1, 3), heads(w.data(), {2, 3, 2}, {0, 2, 1});
    b.gemm(none, 1, rows, heads, 0, view<double, 3>(r.data(), 2, 1, 2));
    CHECK(r == doubles{-1, 7, -1, 16});
  }
  SECTION("bf16 is multiplied in double") {
    const std::vector<bf16> s{bf16(1.5f), bf16(256)};
    b.gemm(none, 1, view<const bf16, 2>(s.data(), 1, 2), view<const bf16, 2>(s.data(), 2, 1), 0, matrix(c, 1, 1));
    CHECK(c[0] == 65538.25);
  }
  CHECK(b.gemm_workspace(matrix(x, 2, 3), matrix(w, 3, 2), matrix(c, 2, 2)) == 0);
  b.sync();
}

TEST_CASE("xtensor: shapes are checked before anything is written") {
  xtensor::backend b;
  arena<> none;
  const doubles x(6, 1);
  const ids three{0, 0, 0}, two_ids{0, 1};
  doubles y(6, canary);
  const auto m = matrix(y, 2, 3);
  const view<double, 1> v(y.data(), 2);
  const view<const double, 1> long_vector(x.data(), 3);
  const ids begin{0, 2}, end{2, 3};
  const sequence_layout<> two_sequences{begin, end, {}};
  CHECK_THROWS_AS(b.copy(matrix(x, 3, 2), m), precondition_error);
  CHECK_THROWS_AS(b.transform(weigh{}, m, matrix(x, 2, 3), matrix(x, 3, 2)), precondition_error);
  CHECK_THROWS_AS(b.transform2(sum_and_quotient{}, m, matrix(y, 3, 2), matrix(x, 2, 3), matrix(x, 2, 3)),
                  precondition_error);
  CHECK_THROWS_AS(b.reduce(reduction::sum, matrix(x, 3, 2), matrix(y, 2, 1)), precondition_error);
  CHECK_THROWS_AS(b.segment_reduce(reduction::sum, x, two_sequences, view<double, 1>(y.data(), 3)), precondition_error);
  CHECK_THROWS_AS(b.segment_broadcast(long_vector, two_sequences, view<double, 1>(y)), precondition_error);
  CHECK_THROWS_AS(b.segment_scan(long_vector, x, two_sequences, view<double, 1>(y)), precondition_error);
  CHECK_THROWS_AS(b.row_log_sum_exp(matrix(x, 3, 2), v), precondition_error);
  CHECK_THROWS_AS(b.row_pick(matrix(x, 2, 3), three, v), precondition_error);
  CHECK_THROWS_AS(b.row_add_at(long_vector, two_ids, m), precondition_error);
  CHECK_THROWS_AS(b.row_gather(matrix(x, 2, 3), three, m), precondition_error);
  CHECK_THROWS_AS(b.row_scatter_add(matrix(x, 3, 2), three, m), precondition_error);
  CHECK_THROWS_AS(b.row_softmax(matrix(x, 2, 3), three, m), precondition_error);
  CHECK_THROWS_AS(b.row_softmax_grad(matrix(x, 2, 3), matrix(x, 3, 2), m), precondition_error);
  CHECK_THROWS_AS(b.gemm(none, 1, matrix(x, 2, 3), matrix(x, 2, 3), 0, m), precondition_error);
  CHECK(y == doubles(6, canary));
}

// Random comparison with the serial backend.

namespace {

enum class layout_kind { dense, gaps, transposed, reversed, broadcast };
constexpr layout_kind output_kinds[] = {layout_kind::dense, layout_kind::gaps, layout_kind::transposed,
                                        layout_kind::reversed};
constexpr layout_kind input_kinds[] = {layout_kind::dense, layout_kind::gaps, layout_kind::transposed,
                                       layout_kind::reversed, layout_kind::broadcast};

struct random_source {
  random_stream stream{20240229, 3};
  std::uint64_t counter = 0;

  double normal() { return stream.normal(counter++); }
  int below(int n) { return static_cast<int>(stream.below(static_cast<std::uint64_t>(n), counter++)); }
  layout_kind input_kind() { return input_kinds[below(5)]; }
  layout_kind output_kind() { return output_kinds[below(4)]; }
};

// An array with memory of its own; what the view does not reach holds the canary.
template <class T, int R>
struct stored {
  std::vector<T> memory;
  layout_kind kind;
  std::array<index_t, R> extents;

  view<T, R> get() {
    view<T, R> v;
    index_t step = kind == layout_kind::gaps ? 2 : 1, first = kind == layout_kind::gaps ? 1 : 0;
    for (int i = R; i-- > 0;) {
      // The last two dimensions change places in memory.
      const int d = kind == layout_kind::transposed && i >= R - 2 && R > 1 ? 2 * R - 3 - i : i;
      v.extents[d] = extents[static_cast<std::size_t>(d)];
      v.strides[d] = step;
      step *= v.extents[d] > 0 ? v.extents[d] + (kind == layout_kind::gaps ? 1 : 0) : 1;
    }
    if (kind == layout_kind::reversed)
      for (int d = 0; d < R; ++d) {
        if (v.extents[d] > 0) first += (v.extents[d] - 1) * v.strides[d];
        v.strides[d] = -v.strides[d];
      }
    if (kind == layout_kind::broadcast) v.strides[R > 2 ? 0 : R - 1] = 0;
    v.pointer = memory.data() + first;
    return v;
  }
  view<const T, R> read() { return get(); }
};

template <class T, int R>
stored<T, R> make(random_source& random, const std::array<index_t, R>& extents, layout_kind kind) {
  std::size_t most = 2;
  for (index_t e : extents) most *= static_cast<std::size_t>(e + 1);
  stored<T, R> s{std::vector<T>(most, convert<T>(canary)), kind, extents};
  for (T& e : s.memory)
    if (random.below(4) > 0) e = convert<T>(random.normal());
  return s;
}

template <int R>
std::array<index_t, R> extents(random_source& random) {
  std::array<index_t, R> e;
  for (index_t& n : e) n = random.below(5);  // 0 and 1 among them
  return e;
}

// Runs `operation` on both backends, on outputs that hold the same, and compares all of their memory.
template <class Operation, class... Outputs>
void compare(Operation operation, Outputs... outputs) {
  serial::backend<double> expected_backend;
  xtensor::backend actual_backend;
  auto expected = std::make_tuple(outputs...);
  auto actual = expected;
  std::apply([&](auto&... y) { operation(expected_backend, y.get()...); }, expected);
  std::apply([&](auto&... y) { operation(actual_backend, y.get()...); }, actual);
  const auto check = [&](auto&... e) {
    std::apply([&](auto&... a) { CHECK((agree(a.memory, e.memory) && ...)); }, actual);
  };
  std::apply(check, expected);
}

template <int R, class S>
void compare_elementwise(random_source& random) {
  for (int trial = 0; trial < 40; ++trial) {
    const auto e = extents<R>(random);
    CAPTURE(R, trial);
    auto a = make<double, R>(random, e, random.input_kind());
    auto s = make<S, R>(random, e, random.input_kind());
    auto c = make<double, R>(random, e, random.input_kind());
    const auto y = make<double, R>(random, e, random.output_kind());
    const auto z = make<S, R>(random, e, random.output_kind());
    compare([](auto& b, auto out) { b.fill(out, 0.3); }, z);
    compare([&](auto& b, auto out) { b.copy(s.read(), out); }, y);
    compare([&](auto& b, auto out) { b.copy(a.read(), out); }, z);
    compare([&](auto& b, auto out) { b.transform(weigh{}, out, s.read()); }, y);
    compare([&](auto& b, auto out) { b.transform(weigh{}, out, a.read(), s.read(), c.read()); }, z);
    compare([&](auto& b, auto out) { b.transform(weigh{}, out, a.read(), s.read(), as_const(out), c.read()); }, y);
    compare([&](auto& b, auto out, auto out2) { b.transform2(sum_and_quotient{}, out, out2, as_const(out), s.read()); },
            y, z);
  }
}

template <int R, class S>
void compare_reduce(random_source& random) {
  for (int trial = 0; trial < 60; ++trial) {
    const auto e = extents<R>(random);
    auto x = make<S, R>(random, e, random.input_kind());
    auto f = e;
    for (index_t& n : f)
      if (random.below(2) > 0) n = 1;
    CAPTURE(R, trial);
    const auto y = make<double, R>(random, f, random.output_kind());
    for (reduction op : {reduction::sum, reduction::max})
      for (plumb::write_mode w : {write_mode::overwrite, write_mode::add})
        compare([&](auto& b, auto out) { b.reduce(op, x.read(), out, w); }, y);
  }
}

// Ragged sequences, shuffled, with gaps between them and tokens that are not scored.
struct ragged {
  ids begin, end;
  flags scored;
  bool mask;
  index_t tokens = 0;

  explicit ragged(random_source& random) : mask(random.below(2) > 0) {
    for (int s = random.below(6); s-- > 0;) {
      tokens += random.below(3);
      begin.push_back(static_cast<std::int32_t>(tokens));
      tokens += random.below(7);
      end.push_back(static_cast<std::int32_t>(tokens));
    }
    tokens += random.below(3);
    for (std::size_t s = begin.size(); s > 1; --s) {
      const auto t = static_cast<std::size_t>(random.below(static_cast<int>(s)));
      std::swap(begin[s - 1], begin[t]);
      std::swap(end[s - 1], end[t]);
    }
    for (index_t t = 0; t < tokens; ++t) scored.push_back(static_cast<std::uint8_t>(random.below(3) > 0));
  }
  sequence_layout<> get() const {
    return {begin, end, mask ? view<const std::uint8_t, 1>(scored) : view<const std::uint8_t, 1>()};
  }
};

ids random_ids(random_source& random, index_t count, index_t choices) {
  ids i;
  for (index_t n = 0; n < count; ++n) i.push_back(random.below(static_cast<int>(choices) + 1) - 1);
  return i;
}

template <class S>
void compare_rows(random_source& random) {
  for (int trial = 0; trial < 100; ++trial) {
    const auto e = extents<2>(random);
    const index_t n = e[0], v = e[1];
    const index_t other = random.below(4);
    CAPTURE(trial, n, v, other);
    auto x = make<double, 2>(random, e, random.input_kind());
    auto s = make<S, 2>(random, e, random.input_kind());
    auto vector = make<double, 1>(random, {n}, random.input_kind());
    const auto y = make<double, 1>(random, {n}, random.output_kind());
    const auto matrix_out = make<double, 2>(random, e, random.output_kind());
    const auto storage_out = make<S, 2>(random, e, random.output_kind());
    const auto column_ids = random_ids(random, n, v);
    compare([&](auto& b, auto out) { b.row_log_sum_exp(s.read(), out); }, y);
    compare([&](auto& b, auto out) { b.row_pick(s.read(), column_ids, out); }, y);
    compare([&](auto& b, auto out) { b.row_add_at(vector.read(), column_ids, out); }, matrix_out);
    compare([&](auto& b, auto out) { b.row_add_at(vector.read(), column_ids, out); }, storage_out);

    auto table = make<double, 2>(random, {other, v}, random.input_kind());
    auto storage_table = make<S, 2>(random, {other, v}, random.input_kind());
    const auto row_ids = random_ids(random, n, other);
    compare([&](auto& b, auto out) { b.row_gather(table.read(), row_ids, out); }, storage_out);
    compare([&](auto& b, auto out) { b.row_gather(storage_table.read(), row_ids, out); }, matrix_out);
    const auto sums = make<double, 2>(random, {other, v}, random.output_kind());
    compare([&](auto& b, auto out) { b.row_scatter_add(x.read(), row_ids, out); }, sums);

    ids valid = random_ids(random, n, v + 1);
    for (std::int32_t& count : valid) count = count < 0 ? static_cast<std::int32_t>(v) : count;
    compare([&](auto& b, auto out) { b.row_softmax(x.read(), {}, out); }, matrix_out);
    compare([&](auto& b, auto out) { b.row_softmax(as_const(out), valid, out); }, matrix_out);
    compare([&](auto& b, auto out) { b.row_softmax_grad(x.read(), as_const(out), out); }, matrix_out);
  }
}

template <int R, class S>
void compare_gemm(random_source& random) {
  for (int trial = 0; trial < 60; ++trial) {
    auto a_extents = extents<R>(random), b_extents = a_extents, c_extents = a_extents;
    const index_t n = random.below(5), k = a_extents[R - 1];
    b_extents[R - 2] = k;
    b_extents[R - 1] = c_extents[R - 1] = n;
    CAPTURE(R, trial, k, n);
    auto left = make<S, R>(random, a_extents, random.input_kind());
    auto right = make<S, R>(random, b_extents, random.input_kind());
    const auto c = make<double, R>(random, c_extents, random.output_kind());
    arena<> none;
    for (double beta : {0.0, 1.0, -0.5})
      compare([&](auto& b, auto out) { b.gemm(none, 0.7, left.read(), right.read(), beta, out); }, c);
  }
}

}  // namespace

TEST_CASE("xtensor equals serial: elementwise operations") {
  random_source random;
  compare_elementwise<1, float>(random);
  compare_elementwise<2, bf16>(random);
  compare_elementwise<3, f16>(random);
  compare_elementwise<4, double>(random);
}

TEST_CASE("xtensor equals serial: reduce") {
  random_source random;
  compare_reduce<1, double>(random);
  compare_reduce<2, float>(random);
  compare_reduce<3, bf16>(random);
  compare_reduce<4, double>(random);
}

TEST_CASE("xtensor equals serial: segments") {
  random_source random;
  for (int trial = 0; trial < 100; ++trial) {
    const ragged r(random);
    const sequence_layout<> layout = r.get();
    const index_t n = r.tokens, sequences = layout.sequences();
    CAPTURE(trial, n, sequences);
    auto x = make<double, 1>(random, {n}, random.input_kind());
    auto a = make<double, 1>(random, {n}, random.input_kind());
    auto each = make<double, 1>(random, {sequences}, random.input_kind());
    const auto y = make<double, 1>(random, {n}, random.output_kind());
    const auto per_sequence = make<double, 1>(random, {sequences}, random.output_kind());
    for (reduction op : {reduction::sum, reduction::max})
      compare([&](auto& b, auto out) { b.segment_reduce(op, x.read(), layout, out); }, per_sequence);
    for (plumb::write_mode w : {write_mode::overwrite, write_mode::add})
      compare([&](auto& b, auto out) { b.segment_broadcast(each.read(), layout, out, w); }, y);
    compare([&](auto& b, auto out) { b.segment_scan(a.read(), x.read(), layout, out); }, y);
  }
}

TEST_CASE("xtensor equals serial: rows") {
  random_source random;
  compare_rows<float>(random);
  compare_rows<bf16>(random);
}

TEST_CASE("xtensor equals serial: gemm") {
  random_source random;
  compare_gemm<2, double>(random);
  compare_gemm<3, bf16>(random);
  compare_gemm<4, float>(random);
}

// Backends broken on purpose: each must fail exactly the check that is named for it, and pass once mended. What the kit cannot catch, it
// does not test.

#include "support/allocations.hpp"

#include <plumb/backends/serial.hpp>
#include <plumb/testing/conformance.hpp>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace {

using namespace plumb;

int threads = 1;

/// What can be wrong, one at a time. `expected` is the check that has to say so.
struct fault {
  const char* name;
  const char* expected;
};
constexpr fault faults[] = {
    {"fill: takes strided memory for dense", "fill"},
    {"copy: forgets the last entry of rank 4", "copy"},
    {"copy: takes stride 0 for 1", "copy.broadcast"},
    {"copy: truncates to 16 bits instead of rounding", "copy.convert"},
    {"copy: a byte is 255 for any number but 0", "copy.bytes"},
    {"transform: forgets the last entry of rank 4", "transform"},
    {"transform: takes stride 0 for 1", "transform.broadcast"},
    {"transform: truncates to 16 bits instead of rounding", "transform.storage"},
    {"transform: clears the output before reading", "transform.in_place"},
    {"transform2: exchanges its outputs", "transform2"},
    {"reduce: a sum of everything forgets the last entry", "reduce.sum"},
    {"reduce: a maximum starts at 0", "reduce.max"},
    {"reduce: overwrites where it should add", "reduce.add"},
    {"reduce: a maximum over nothing is 0", "reduce.nothing"},
    {"segment_reduce: an empty sequence gets the sum before it", "segment_reduce.sum"},
    {"segment_reduce: a maximum starts at 0", "segment_reduce.max"},
    {"segment_reduce: multiplies by the mask", "segment_reduce.skips"},
    {"segment_broadcast: leaves tokens that are not scored", "segment_broadcast"},
    {"segment_broadcast: clears them where it should add", "segment_broadcast.add"},
    {"row_log_sum_exp: 16-bit logits give a 16-bit result", "row_log_sum_exp"},
    {"row_log_sum_exp: does not shift by the maximum", "row_log_sum_exp.large"},
    {"row_log_sum_exp: a row of -inf gives NaN", "row_log_sum_exp.infinite"},
    {"row_pick: ids beyond 60 wrap around", "row_pick"},
    {"row_pick: leaves ignored rows alone", "row_pick.ignored"},
    {"row_gather: long rows lose their last column", "row_gather"},
    {"row_gather: leaves ignored rows alone", "row_gather.ignored"},
    {"row_softmax: does not normalise rows of one column", "row_softmax"},
    {"row_softmax: reads columns that are not valid", "row_softmax.valid"},
    {"row_softmax: a row of -inf gives zeros", "row_softmax.infinite"},
    {"row_softmax: clears the output before reading", "row_softmax.in_place"},
    {"row_add_at: overwrites", "row_add_at"},
    {"row_scatter_add: the last of repeated ids wins", "row_scatter_add"},
    {"row_softmax_grad: forgets the sum", "row_softmax_grad"},
    {"row_softmax_grad: sums what it has written", "row_softmax_grad.in_place"},
    {"segment_scan: carries over from sequence to sequence", "segment_scan"},
    {"segment_scan: steps through tokens that are not scored", "segment_scan.skips"},
    {"gemm: stops after 100 products", "gemm"},
    {"gemm: takes any beta but 0 for 1", "gemm.alpha_beta"},
    {"gemm: multiplies c by a beta of 0", "gemm.beta_zero"},
    {"gemm: leaves c alone where K is 0", "gemm.nothing"},
    {"gemm: takes a transposed a for a dense one", "gemm.layouts"},
    {"gemm: repeats the first of a batch", "gemm.batch"},
    {"fill: writes whole vectors", "guards"},
    {"row_softmax_grad: changes its input", "guards"},
    {"reduce: a maximum overlooks NaN", "nan"},
    {"gemm: 0 times NaN is 0", "nan"},
    {"copy: writes before it checks", "errors"},
    {"gemm: does not check shapes", "errors"},
    {"gemm: takes its scratch for zeros", "scratch"},
    {"gemm: takes more scratch than it says", "scratch"},
    {"gemm: keeps its scratch", "scratch"},
    {"reduce: differs from run to run", "determinism"},
    {"reduce: differs with the number of threads", "determinism.threads"},
    {"gemm: allocates at each call", "allocations"},
    {"token_logp: forgets the temperature", "capability.token_logp"},
    {"token_logp: a row with +inf has no entropy", "capability.token_logp"},
    {"token_logp_grad: reads logits that it has overwritten", "capability.token_logp_grad"},
    {"token_logp_grad: a row of -inf gets zeros", "capability.token_logp_grad"},
    {"token_logp_grad: is off by a ten-thousandth of the coefficient", "capability.token_logp_grad"},
    {"gae: forgets the value after the last token", "capability.gae"},
    {"gae: ends the episode where a token is not scored", "capability.gae"},
    {"ranks: equal entries come in falling order of places", "capability.ranks"},
    {"ranks: NaN comes last", "capability.ranks"},
    {"match_ranks: takes ranks for places", "capability.ranks"},
    {"token_logp_grad: rounds to 16 bits, then adds the one-hot term", "token_logp.confident_target"},
};

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

/// The serial backend in float, with one fault.
class faulty : public serial::backend<float> {
  using base = serial::backend<float>;

 public:
  using capabilities = plumb::capabilities<cap::token_logp, cap::token_logp_grad, cap::gae, cap::ranks>;

  explicit faulty(const char* name) : fault_(name), memory_(std::size_t{1} << 22) {}

  template <class T, int R>
  void fill(view<T, R> y, float value) {
    if (has("fill: takes strided memory for dense") && y.stride(R - 1) > 0) return base::fill(view<T, 1>(y.pointer, y.size()), value);
    base::fill(y, value);
    if constexpr (R == 1)
      if (has("fill: writes whole vectors") && y.contiguous()) base::fill(view<T, 1>(y.pointer, (y.size() + 7) / 8 * 8), value);
  }

  template <class S, class T, int R>
  void copy(view<S, R> x, view<T, R> y) {
    if (has("copy: writes before it checks")) base::fill(y, 0.0f);
    check::copy(x, y);
    if constexpr (R == 4)
      if (has("copy: forgets the last entry of rank 4")) return base::copy(without_last(x), without_last(y));
    if (has("copy: takes stride 0 for 1")) x = without_broadcast(x);
    base::copy(x, y);
    if (has("copy: truncates to 16 bits instead of rounding")) truncate(x, y);
    if constexpr (std::is_same_v<T, std::uint8_t>)
      if (has("copy: a byte is 255 for any number but 0")) base::transform(all_or_nothing{}, y, as_const(y));
  }

  template <class F, class T, int R, class... X>
  void transform(F f, view<T, R> y, view<X, R>... x) {
    check::transform(y, x...);
    if constexpr (R == 4)
      if (has("transform: forgets the last entry of rank 4")) return base::transform(f, without_last(y), without_last(x)...);
    if (has("transform: takes stride 0 for 1")) return base::transform(f, y, without_broadcast(x)...);
    if (has("transform: clears the output before reading")) base::fill(y, 0.0f);
    base::transform(f, y, x...);
    if constexpr (sizeof(T) == 2)
      if (has("transform: truncates to 16 bits instead of rounding")) {
        std::vector<float> exact(static_cast<std::size_t>(y.size()));
        view<float, R> w;
        w.pointer = exact.data();
        index_t stride = 1;
        for (int d = R; d-- > 0; stride *= y.extents[d]) {
          w.extents[d] = y.extents[d];
          w.strides[d] = stride;
        }
        base::transform(f, w, x...);
        truncate(w, y);
      }
  }

  template <class F, class T, class U, int R, class... X>
  void transform2(F f, view<T, R> y, view<U, R> z, view<X, R>... x) {
    if (has("transform2: exchanges its outputs")) return base::transform2(f, z, y, x...);
    base::transform2(f, y, z, x...);
  }

  template <class X, int R>
  void reduce(reduction op, view<X, R> x, view<float, R> y, write_mode w = write_mode::overwrite) {
    check::reduce(x, y);
    if (has("reduce: a sum of everything forgets the last entry") && op == reduction::sum && w == write_mode::overwrite && y.size() == 1 &&
        x.size() > 1 && R == 1)
      return base::reduce(op, x.slice(0, x.extent(0) - 1), y, w);
    if (has("reduce: overwrites where it should add")) w = write_mode::overwrite;
    if (has("reduce: a maximum over nothing is 0") && x.empty()) return base::fill(y, 0.0f);
    base::reduce(op, x, y, w);
    if (has("reduce: a maximum starts at 0") && op == reduction::max && !x.empty()) base::transform(at_least_zero{}, y, as_const(y));
    if (has("reduce: a maximum overlooks NaN") && op == reduction::max && x.size() == 9) base::transform(without_nan{}, y, as_const(y));
    if (has("reduce: differs from run to run") && (random_stream{1, 1}.bits(++calls_) & 1) != 0) base::transform(next_number{}, y, as_const(y));
    if (has("reduce: differs with the number of threads") && threads > 1) base::transform(next_number{}, y, as_const(y));
  }

  void segment_reduce(reduction op, view<const float, 1> x, const sequence_layout<>& layout, view<float, 1> y) {
    if (has("segment_reduce: multiplies by the mask") && layout.scored.given()) {
      std::vector<float> masked;
      for (index_t t = 0; t < x.extent(0); ++t) masked.push_back(x(t) * static_cast<float>(layout.scored(t)));
      return base::segment_reduce(op, view<const float, 1>(masked), {layout.begin, layout.end, {}}, y);
    }
    base::segment_reduce(op, x, layout, y);
    for (index_t s = 1; s < y.extent(0); ++s)
      if (has("segment_reduce: an empty sequence gets the sum before it") && op == reduction::sum && layout.begin(s) == layout.end(s))
        y(s) = y(s - 1);
    if (has("segment_reduce: a maximum starts at 0") && op == reduction::max) base::transform(at_least_zero{}, y, as_const(y));
  }

  void segment_broadcast(view<const float, 1> x, const sequence_layout<>& layout, view<float, 1> y, write_mode w = write_mode::overwrite) {
    if (has("segment_broadcast: leaves tokens that are not scored") && w == write_mode::overwrite) {
      check::segment_broadcast(x, layout, y);
      for (index_t s = 0; s < layout.sequences(); ++s)
        for (index_t t = layout.begin(s); t < layout.end(s); ++t)
          if (!layout.scored.given() || layout.scored(t) != 0) y(t) = x(s);
      return;
    }
    if (has("segment_broadcast: clears them where it should add")) w = write_mode::overwrite;
    base::segment_broadcast(x, layout, y, w);
  }

  void segment_scan(view<const float, 1> a, view<const float, 1> x, const sequence_layout<>& layout, view<float, 1> y) {
    base::segment_scan(a, x, layout, y);
    if (has("segment_scan: carries over from sequence to sequence"))
      for (index_t s = 0; s + 1 < layout.sequences(); ++s)
        if (layout.end(s) > layout.begin(s) && layout.end(s) < y.extent(0)) y(layout.end(s) - 1) += a(layout.end(s) - 1) * y(layout.end(s));
    if (has("segment_scan: steps through tokens that are not scored") && layout.scored.given())
      base::segment_scan(a, x, {layout.begin, layout.end, {}}, y);
  }

  template <class X>
  void row_log_sum_exp(view<X, 2> x, view<float, 1> y) {
    base::row_log_sum_exp(x, y);
    for (index_t i = 0; i < y.extent(0); ++i) {
      float sum = 0;
      bool nothing = true;
      for (index_t j = 0; j < x.extent(1); ++j) {
        const float v = convert<float>(x(i, j));
        sum += std::exp(v);
        nothing = nothing && math::is_inf(v) && v < 0;
      }
      const bool usual = x.extent(1) > 0 && math::is_finite(convert<float>(x(0, 0)));
      if (has("row_log_sum_exp: 16-bit logits give a 16-bit result") && sizeof(X) == 2 && usual) y(i) = convert<float>(bf16(y(i)));
      if (has("row_log_sum_exp: does not shift by the maximum")) y(i) = std::log(sum);
      if (has("row_log_sum_exp: a row of -inf gives NaN") && nothing && x.extent(1) > 0) y(i) = not_a_number;
    }
  }

  template <class X>
  void row_pick(view<X, 2> x, view<const std::int32_t, 1> ids, view<float, 1> y) {
    const bool ignores = any_negative(ids);
    if (has("row_pick: leaves ignored rows alone") && ignores) {
      for (index_t i = 0; i < y.extent(0); ++i)
        if (ids(i) >= 0) y(i) = convert<float>(x(i, ids(i)));
      return;
    }
    base::row_pick(x, ids, y);
    for (index_t i = 0; i < y.extent(0); ++i) {
      if (has("row_pick: ids beyond 60 wrap around") && ids(i) > 60 && !ignores) y(i) = convert<float>(x(i, ids(i) - 60));
    }
  }

  template <class Y>
  void row_add_at(view<const float, 1> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    base::row_add_at(x, ids, y);
    if (has("row_add_at: overwrites"))
      for (index_t i = 0; i < y.extent(0); ++i)
        if (ids(i) >= 0) y(i, ids(i)) = convert<Y>(x(i));
  }

  template <class X, class Y>
  void row_gather(view<X, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_gather(x, ids, y);
    const bool all = !any_negative(ids);
    if (has("row_gather: long rows lose their last column") && all && x.extent(1) > 100)
      return base::row_gather(x.narrow(1, 0, x.extent(1) - 1), ids, y.narrow(1, 0, x.extent(1) - 1));
    if (has("row_gather: leaves ignored rows alone") && !all) {
      for (index_t i = 0; i < ids.extent(0); ++i)
        if (ids(i) >= 0) base::row_gather(x, ids.slice(i, 1), y.slice(i, 1));
      return;
    }
    base::row_gather(x, ids, y);
  }

  template <class Y>
  void row_scatter_add(view<const float, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    base::row_scatter_add(x, ids, y);
    if (!has("row_scatter_add: the last of repeated ids wins")) return;
    for (index_t i = 0; i < ids.extent(0); ++i)
      for (index_t j = 0; j < x.extent(1) && ids(i) >= 0; ++j) y(ids(i), j) = convert<Y>(x(i, j));
  }

  void row_softmax(view<const float, 2> x, view<const std::int32_t, 1> valid, view<float, 2> y) {
    check::row_softmax(x, valid, y);
    if (has("row_softmax: clears the output before reading") && x.pointer == y.pointer) base::fill(y, 0.0f);
    if (has("row_softmax: reads columns that are not valid") && valid.given()) valid = {};
    base::row_softmax(x, valid, y);
    if (has("row_softmax: a row of -inf gives zeros"))
      for (index_t i = 0; i < x.extent(0); ++i)
        if (all_minus_infinity(x, i)) base::fill(y.row(i), 0.0f);
    if (has("row_softmax: does not normalise rows of one column") && x.extent(1) == 1 && !valid.given() && x.pointer != y.pointer)
      base::copy(x, y);
  }

  void row_softmax_grad(view<const float, 2> y, view<const float, 2> dy, view<float, 2> dx) {
    const bool in_place = dy.pointer == dx.pointer;
    if (has("row_softmax_grad: forgets the sum") && !in_place) {
      check::row_softmax_grad(y, dy, dx);
      return base::transform(math::times{}, dx, y, dy);
    }
    if (has("row_softmax_grad: sums what it has written") && in_place) base::transform(math::times{}, dx, y, dy);
    base::row_softmax_grad(y, dy, dx);
    if (has("row_softmax_grad: changes its input") && !y.empty()) const_cast<float&>(y(0, 0)) = 0;
  }

  template <class S, int R>
  void gemm(arena<>& scratch, float alpha, view<S, R> a, view<S, R> b, float beta, view<float, R> c) {
    if (!has("gemm: does not check shapes")) check::gemm(a, b, c);
    arena<> none;
    if (has("gemm: allocates at each call")) std::vector<int>(1).swap(allocated_);
    if (has("gemm: takes more scratch than it says")) {
      const arena<>::frame frame(scratch);
      scratch.take<float>(4);
    }
    if (has("gemm: keeps its scratch") && !c.empty()) scratch.take<float>(16);
    if constexpr (R > 2) {
      for (index_t i = 0; i < c.extent(0); ++i) {
        const index_t of = has("gemm: repeats the first of a batch") ? 0 : i;
        of_batch_ = true;
        gemm(scratch, alpha, a.row(of), b.row(of), beta, c.row(i));
        of_batch_ = false;
      }
    } else {
      if (!math::is_nan(alpha) && !check_shapes(a, b, c)) return base::fill(c, 0.0f);
      index_t k = a.extent(1);
      if (has("gemm: leaves c alone where K is 0") && k == 0) return;
      if (has("gemm: stops after 100 products") && k > 100) k = 100;
      if (has("gemm: takes any beta but 0 for 1") && beta != 0) beta = 1;
      if (has("gemm: multiplies c by a beta of 0") && k > 0 && beta == 0) base::transform(math::scale<float>{0}, c, as_const(c)), beta = 1;
      if (has("gemm: takes a transposed a for a dense one") && !of_batch_ && a.stride(0) == 1 && a.stride(1) > 1) {
        a.strides[0] = a.extent(1);
        a.strides[1] = 1;
      }
      if (has("gemm: takes its scratch for zeros") && !c.empty()) {
        const arena<>::frame frame(scratch);
        const auto sum = scratch.take<float>(c.extent(0), c.extent(1));
        base::gemm(none, alpha, a, b, 1.0f, sum);
        if (beta == 0)
          base::copy(as_const(sum), c);
        else
          base::transform(math::add_scaled<float>{beta}, c, as_const(sum), as_const(c));
        return base::fill(sum, 0.0f);
      }
      base::gemm(none, alpha, a.narrow(1, 0, k), b.narrow(0, 0, k), beta, c);
      if (has("gemm: 0 times NaN is 0"))
        for (index_t i = 0; i < c.extent(0); ++i)
          for (index_t j = 0; j < c.extent(1); ++j)
            if (math::is_nan(c(i, j))) c(i, j) = 1;
    }
  }
  template <class S, int R>
  std::size_t gemm_workspace(const view<S, R>&, const view<S, R>&, const view<float, R>& c) const {
    if (has("gemm: takes its scratch for zeros")) return workspace_size().add<float>(c.size()).bytes();
    if (has("gemm: keeps its scratch")) return 1024;
    return 0;
  }

  template <class S>
  void token_logp(const token_logp_inputs<S>& in, token_logp_options options, const token_logp_outputs<float>& out) {
    if (has("token_logp: forgets the temperature")) options.temperature = 1;
    arena<> scratch(memory_);
    plumb::detail::compose_token_logp(*this, scratch, in, options, out);
    if (!has("token_logp: a row with +inf has no entropy") || !out.entropy.given()) return;
    for (index_t i = 0; i < in.logits.extent(0); ++i)
      for (index_t j = 0; j < in.logits.extent(1); ++j)
        if (convert<float>(in.logits(i, j)) == infinity) out.entropy(i) = 0;
  }
  template <class S>
  void token_logp_grad(const token_logp_inputs<S>& in, const token_logp_options& options, const token_logp_gradients<float>& grad,
                       view<S, 2> d_logits) {
    arena<> scratch(memory_);
    if (has("token_logp_grad: reads logits that it has overwritten") && d_logits.pointer == in.logits.pointer && d_logits.extent(1) > 1)
      base::fill(d_logits.narrow(1, 1, 1), 0.0f);
    if (has("token_logp_grad: rounds to 16 bits, then adds the one-hot term") && !grad.d_entropy.given())
      return rounds_twice(in, math::logit_map<float>::from(options), grad, d_logits);
    std::vector<bool> nothing;
    for (index_t i = 0; i < in.logits.extent(0); ++i) nothing.push_back(all_minus_infinity(in.logits, i));
    plumb::detail::compose_token_logp_grad(*this, scratch, in, options, grad, d_logits);
    for (index_t i = 0; i < in.logits.extent(0); ++i) {
      if (has("token_logp_grad: a row of -inf gets zeros") && nothing[static_cast<std::size_t>(i)]) base::fill(d_logits.row(i), 0.0f);
      if (has("token_logp_grad: is off by a ten-thousandth of the coefficient") && grad.d_logp.given())
        d_logits(i, 0) = convert<S>(convert<float>(d_logits(i, 0)) + 1e-4f * grad.d_logp(i));
    }
  }

  void gae(trajectory_inputs<float> in, const gae_options& options, const gae_outputs<float>& out) {
    if (has("gae: forgets the value after the last token")) in.bootstrap = {};
    base::gae(in, options, out);
    if (has("gae: ends the episode where a token is not scored") && in.sequences.scored.given() && out.advantages.given())
      for (index_t s = 0; s < in.sequences.sequences(); ++s)
        for (index_t t = in.sequences.begin(s); t + 1 < in.sequences.end(s); ++t)
          if (in.sequences.scored(t) != 0 && in.sequences.scored(t + 1) == 0) out.advantages(t) = in.rewards(t) - in.values(t);
  }

  void ranks(arena<>& scratch, view<const float, 1> x, view<float, 1> y) {
    if (has("ranks: NaN comes last")) {
      arena<> memory(memory_);
      const auto numbers = memory.take<float>(x.extent(0));
      base::transform(without_nan{}, numbers, x);
      return base::ranks(scratch, numbers, y);
    }
    if (has("ranks: equal entries come in falling order of places")) return base::ranks(scratch, from_the_end(x), from_the_end(y));
    base::ranks(scratch, x, y);
  }
  void match_ranks(arena<>& scratch, view<const float, 1> x, view<const float, 1> from, view<const float, 1> to, view<float, 1> y) {
    base::match_ranks(scratch, x, from, to, y);
    for (index_t i = 0; i < y.extent(0) && has("match_ranks: takes ranks for places") && !math::is_nan(y(i)); ++i)
      y(i) = x(static_cast<index_t>(to(i)));
  }

 private:
  struct at_least_zero {
    float operator()(float x) const { return x < 0 ? 0 : x; }
  };
  struct all_or_nothing {
    float operator()(float x) const { return x != 0 ? 255 : 0; }
  };
  struct without_nan {
    float operator()(float x) const { return math::is_nan(x) ? 9 : x; }
  };
  struct next_number {
    float operator()(float x) const { return math::is_inf(x) ? x : std::nextafter(x, 1e30f); }
  };

  template <class S>
  static void rounds_twice(const token_logp_inputs<S>& in, math::logit_map<float> map, const token_logp_gradients<float>& grad,
                           view<S, 2> d_logits) {
    for (index_t i = 0; i < in.logits.extent(0); ++i) {
      const std::int32_t target = in.targets(i);
      const float c = target < 0 ? 0 : grad.d_logp(i), slope = target < 0 ? 0 : map.slope(convert<float>(in.logits(i, target)));
      for (index_t j = 0; j < in.logits.extent(1); ++j)
        d_logits(i, j) = convert<S>(math::softmax_part<float>{map}(convert<float>(in.logits(i, j)), grad.log_sum_exp(i), -c, 0.0f));
      if (target >= 0) d_logits(i, target) = convert<S>(convert<float>(d_logits(i, target)) + c * slope);
    }
  }
  template <class X>
  static bool all_minus_infinity(const view<X, 2>& x, index_t row) {
    for (index_t j = 0; j < x.extent(1); ++j)
      if (convert<float>(x(row, j)) != -infinity) return false;
    return x.extent(1) > 0;
  }

  bool has(const char* name) const { return std::string_view(fault_) == name; }
  template <class V>
  static V without_last(V v) {
    if (v.extents[V::rank - 1] > 0) --v.extents[V::rank - 1];
    return v;
  }
  template <class V>
  static V without_broadcast(V v) {
    for (int d = 0; d < V::rank; ++d)
      if (v.strides[d] == 0 && v.extents[d] > 1 && v.extents[d] < 20) v.strides[d] = 1;
    return v;
  }
  template <class V>
  static V from_the_end(V v) {
    if (v.extents[0] > 0) v.pointer += (v.extents[0] - 1) * v.strides[0];
    v.strides[0] = -v.strides[0];
    return v;
  }
  static bool any_negative(view<const std::int32_t, 1> ids) {
    for (index_t i = 0; i < ids.extent(0); ++i)
      if (ids(i) < 0) return true;
    return false;
  }
  template <class A, class B2, class C>
  static bool check_shapes(const A& a, const B2& b, const C& c) {
    return a.extent(0) == c.extent(0) && b.extent(1) == c.extent(1) && a.extent(1) == b.extent(0);
  }
  template <class S, class T, int R>
  void truncate(view<S, R> x, view<T, R> y) {
    if constexpr (std::is_same_v<T, bf16> && R == 2 && !std::is_same_v<std::remove_const_t<S>, bf16>) {
      for (index_t i = 0; i < y.extent(0); ++i)
        for (index_t j = 0; j < y.extent(1); ++j)
          y(i, j).bits = static_cast<std::uint16_t>(__builtin_bit_cast(std::uint32_t, convert<float>(x(i, j))) >> 16);
    }
  }

  const char* fault_;
  std::vector<char> memory_;
  std::vector<int> allocated_;
  std::uint64_t calls_ = 0;
  bool of_batch_ = false;
};

/// A queue that runs nothing before `sync`: what a device is, as far as a caller can see.
class deferred {
  using queued = serial::backend<float>;

 public:
  enum behaviour { in_order, last_first, stops_early };
  using real = float;
  using memory_space = host_space;
  using storage_types = queued::storage_types;
  using capabilities = plumb::capabilities<>;
  static constexpr determinism determinism_level = determinism::thread_count_invariant;

  explicit deferred(behaviour how) : how_(how) {}

  template <class T, int R>
  void fill(view<T, R> y, float value) {
    later([=](queued& b) { b.fill(y, value); });
  }
  template <class S, class T, int R>
  void copy(view<S, R> x, view<T, R> y) {
    check::copy(x, y);
    later([=](queued& b) { b.copy(x, y); });
  }
  template <class F, class T, int R, class... X>
  void transform(F f, view<T, R> y, view<X, R>... x) {
    check::transform(y, x...);
    later([=](queued& b) { b.transform(f, y, x...); });
  }
  template <class F, class T, class U, int R, class... X>
  void transform2(F f, view<T, R> y, view<U, R> z, view<X, R>... x) {
    check::transform(y, z, x...);
    later([=](queued& b) { b.transform2(f, y, z, x...); });
  }
  template <class X, int R>
  void reduce(reduction op, view<X, R> x, view<float, R> y, write_mode w) {
    check::reduce(x, y);
    later([=](queued& b) { b.reduce(op, x, y, w); });
  }
  void segment_reduce(reduction op, view<const float, 1> x, sequence_layout<> l, view<float, 1> y) {
    check::segment_reduce(x, l, y);
    later([=](queued& b) { b.segment_reduce(op, x, l, y); });
  }
  void segment_broadcast(view<const float, 1> x, sequence_layout<> l, view<float, 1> y, write_mode w) {
    check::segment_broadcast(x, l, y);
    later([=](queued& b) { b.segment_broadcast(x, l, y, w); });
  }
  void segment_scan(view<const float, 1> a, view<const float, 1> x, sequence_layout<> l, view<float, 1> y) {
    check::segment_scan(a, x, l, y);
    later([=](queued& b) { b.segment_scan(a, x, l, y); });
  }
  template <class X>
  void row_log_sum_exp(view<X, 2> x, view<float, 1> y) {
    check::row_log_sum_exp(x, y);
    later([=](queued& b) { b.row_log_sum_exp(x, y); });
  }
  template <class X>
  void row_pick(view<X, 2> x, view<const std::int32_t, 1> ids, view<float, 1> y) {
    check::row_pick(x, ids, y);
    later([=](queued& b) { b.row_pick(x, ids, y); });
  }
  template <class Y>
  void row_add_at(view<const float, 1> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_add_at(x, ids, y);
    later([=](queued& b) { b.row_add_at(x, ids, y); });
  }
  template <class X, class Y>
  void row_gather(view<X, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_gather(x, ids, y);
    later([=](queued& b) { b.row_gather(x, ids, y); });
  }
  template <class Y>
  void row_scatter_add(view<const float, 2> x, view<const std::int32_t, 1> ids, view<Y, 2> y) {
    check::row_scatter_add(x, ids, y);
    later([=](queued& b) { b.row_scatter_add(x, ids, y); });
  }
  void row_softmax(view<const float, 2> x, view<const std::int32_t, 1> valid, view<float, 2> y) {
    check::row_softmax(x, valid, y);
    later([=](queued& b) { b.row_softmax(x, valid, y); });
  }
  void row_softmax_grad(view<const float, 2> y, view<const float, 2> dy, view<float, 2> dx) {
    check::row_softmax_grad(y, dy, dx);
    later([=](queued& b) { b.row_softmax_grad(y, dy, dx); });
  }
  template <class S, int R>
  void gemm(arena<>&, float alpha, view<S, R> a, view<S, R> b, float beta, view<float, R> c) {
    check::gemm(a, b, c);
    later([=](queued& q) {
      arena<> none;
      q.gemm(none, alpha, a, b, beta, c);
    });
  }
  template <class A, class B, class C>
  std::size_t gemm_workspace(const A&, const B&, const C&) const {
    return 0;
  }

  void sync() {
    if (how_ == last_first) std::reverse(queue_.begin(), queue_.end());
    if (how_ == stops_early && !queue_.empty()) queue_.pop_back();
    for (const auto& operation : queue_) operation(compute_);
    queue_.clear();
  }

 private:
  template <class F>
  void later(F operation) {
    queue_.emplace_back(std::move(operation));
  }
  behaviour how_;
  queued compute_;
  std::vector<std::function<void(queued&)>> queue_;
};

int wrong = 0;

/// The backend must fail exactly `expected` ("" for nothing at all).
template <class B>
void must_fail(B backend, const char* name, const std::string& expected, bool count_allocations) {
  threads = 1;
  std::fflush(stdout);
  const testing::conformance_options options{.allocations = count_allocations ? plumb_test::allocations : nullptr,
                                             .set_threads = [](int n) { threads = n; },
                                             .print = false};
  const auto report = testing::check_conformance(backend, options);
  std::string failed;
  for (const auto& f : report.failures()) failed += (failed.empty() ? "" : ", ") + f;
  const bool good = failed == expected;
  std::printf("%-62s %-30s %s\n", name, failed.empty() ? "passes" : failed.c_str(), good ? "ok" : "WRONG");
  if (good) return;
  ++wrong;
  std::printf("  should fail: %s\n", expected.empty() ? "nothing" : expected.c_str());
  for (const auto& c : report.checks)
    if (c.outcome == testing::check_result::failed) std::printf("  %s: %s\n", c.name.c_str(), c.detail.c_str());
}

}  // namespace

int main() {
  must_fail(faulty("none: every fault mended"), "every fault mended", "", true);
  for (const auto& f : faults) must_fail(faulty(f.name), f.name, f.expected, true);
  must_fail(deferred(deferred::in_order), "a queue that runs nothing before sync", "", false);
  must_fail(deferred(deferred::last_first), "a queue that runs the last operation first", "order", false);
  must_fail(deferred(deferred::stops_early), "a queue whose sync leaves the last operation out", "sync", false);
  std::printf("%zu broken backends, %d not caught by exactly their check\n", std::size(faults) + 2, wrong);
  return wrong == 0 ? 0 : 1;
}

#pragma once
// The backend's own loops over rows, as functors for `dispatch`: each handles rows `first` to `last`, so that threads can share them.

#include <plumb/backends/onednn/lanes.hpp>
#include <plumb/core/view.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/token_logp.hpp>

#include <limits>

PLUMB_NAMESPACE_BEGIN

namespace onednn::detail {

// A row is worked on in blocks that stay in the first-level cache.
inline constexpr index_t block_size = 1024;

/// `n` elements as floats in `to`, filled up with `pad` to whole vectors; at most `block_size`.
template <int N, class S>
[[gnu::always_inline]] inline void load_block(const S* x, index_t stride, index_t n, float pad, float* to) {
  index_t i = 0;
  if constexpr (std::is_same_v<S, float> || is_storage_16<S>)
    if (stride == 1)
      for (; i + N <= n; i += N) lanes<N>::store(to + i, lanes<N>::load(x + i));
  for (; i < n; ++i) to[i] = convert<float>(x[i * stride]);
  for (; i % N != 0; ++i) to[i] = pad;
}

template <int N, class S>
[[gnu::always_inline]] inline void store_block(const float* from, index_t n, S* y, index_t stride) {
  index_t i = 0;
  if (stride == 1)
    for (; i + N <= n; i += N) lanes<N>::store(y + i, lanes<N>::load(from + i));
  for (; i < n; ++i) y[i * stride] = convert<S>(from[i]);
}

/// The floats themselves where they can be read as whole vectors, else a copy of them.
template <int N, class S>
[[gnu::always_inline]] inline const float* whole_vectors(const S* x, index_t stride, index_t n, float pad, float* buffer) {
  if constexpr (std::is_same_v<S, float>)
    if (stride == 1 && n % N == 0) return x;
  load_block<N>(x, stride, n, pad, buffer);
  return buffer;
}

/// `math::logit_map` on vectors.
struct logit_lanes {
  math::logit_map<float> map;
  bool is_identity() const { return map.scale == 1 && map.softcap == 0 && map.inverse_temperature == 1; }
  bool is_linear() const { return !(0 < map.softcap); }

  template <int N>
  [[gnu::always_inline]] typename lanes<N>::real capped(const typename lanes<N>::real& x) const {
    return lanes<N>::tanh(x * map.scale / map.softcap);
  }
  // Not compiled into a loop that a linear map runs.
  template <int N>
  [[gnu::always_inline]] void apply(const float* x, index_t n, float* u) const {
    using L = lanes<N>;
    if (is_linear()) {
      for (index_t i = 0; i < n; i += N) L::store(u + i, L::load(x + i) * map.scale * map.inverse_temperature);
    } else {
      for (index_t i = 0; i < n; i += N)
        L::store(u + i, capped<N>(L::load(x + i)) * map.softcap * map.inverse_temperature);
    }
  }
};

/// Largest entry; +inf where one is NaN, so that the common case needs one answer only and the rare one looks again.
template <int N>
struct extreme {
  using L = lanes<N>;
  typename L::real max0 = -std::numeric_limits<float>::infinity(), max1 = max0;

  /// `n` is a multiple of N.
  [[gnu::always_inline]] void take(const float* x, index_t n) {
    index_t i = 0;
    for (; i + 2 * N <= n; i += 2 * N) {
      one(L::load(x + i), max0);
      one(L::load(x + i + N), max1);
    }
    if (i < n) one(L::load(x + i), max0);
  }
  [[gnu::always_inline]] void one(const typename L::real& x, typename L::real& max) {
    max = L::larger(L::select(L::nan_mask(x), std::numeric_limits<float>::infinity(), x), max);
  }
  [[gnu::always_inline]] float max() const { return L::largest(L::larger(max0, max1)); }
};

/// What a row whose `extreme` is `max` has: `max`, or NaN where an entry of `f(x)` is NaN.
template <class S, class F>
[[gnu::noinline]] float max_or_nan(const S* x, index_t stride, index_t n, float max, const F& f) {
  if (math::is_inf(max) && max > 0)
    for (index_t i = 0; i < n; ++i) {
      const float u = f(convert<float>(x[i * stride]));
      if (math::is_nan(u)) return u;
    }
  return max;
}

/// Of the mapped logits `u` of a row: the maximum `m`, `sum exp(u - m)`, and `sum exp(u - m) (u - m)` for the entropy. One pass over
/// memory: each block is read for its maximum and, from the cache, for its exponentials; the sums are rescaled when `m` grows.
struct row_sums {
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0, weighted = 0;

  template <int N, bool Weighted, class S>
  [[gnu::always_inline]] void scan(const S* x, index_t stride, index_t n, const logit_lanes& map) {
    using L = lanes<N>;
    alignas(64) float buffer[block_size];
    constexpr float none = -std::numeric_limits<float>::infinity();
    for (index_t at = 0; at < n; at += block_size) {
      const index_t count = n - at < block_size ? n - at : block_size;
      const index_t whole = (count + N - 1) / N * N;
      const float* u = whole_vectors<N>(x + at * stride, stride, count, none, buffer);
      if (!map.is_identity()) {
        map.apply<N>(u, whole, buffer);
        u = buffer;
        for (index_t i = count; i < whole; ++i) buffer[i] = none;
      }
      extreme<N> e;
      e.take(u, whole);
      const float block_max = e.max();
      if (block_max > max) {
        if (sum > 0) {
          const double step = static_cast<double>(max) - block_max;
          const double factor = std::exp(step);
          weighted = (weighted + step * sum) * factor;
          sum *= factor;
        }
        max = block_max;
      }
      if (!math::is_finite(max)) continue;
      typename L::real sum0{}, sum1{}, weighted0{};
      index_t i = 0;
      for (; i + 2 * N <= whole; i += 2 * N) {
        const auto d0 = L::load(u + i) - max, d1 = L::load(u + i + N) - max;
        const auto e0 = L::exp(d0), e1 = L::exp(d1);
        sum0 += e0;
        sum1 += e1;
        if constexpr (Weighted)
          weighted0 += e0 * L::larger(d0, L::lowest) + e1 * L::larger(d1, L::lowest);
      }
      if (i < whole) {
        const auto d = L::load(u + i) - max, e0 = L::exp(d);
        sum0 += e0;
        if constexpr (Weighted) weighted0 += e0 * L::larger(d, L::lowest);
      }
      sum += L::sum(sum0 + sum1);
      if constexpr (Weighted) weighted += L::sum(weighted0);
    }
    if (math::is_inf(max)) max = max_or_nan(x, stride, n, max, map.map);
  }

  float log_sum_exp() const { return math::is_finite(max) ? static_cast<float>(max + std::log(sum)) : max; }
};

/// Log-sum-exp, log-probability and entropy of rows; what has no memory is skipped.
template <class S>
struct token_logp_rows {
  token_logp_inputs<S> in;
  token_logp_outputs<float> out;
  logit_lanes map;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    const index_t v = in.logits.extent(1), stride = in.logits.stride(1);
    for (index_t i = first; i < last; ++i) {
      const S* x = in.logits.pointer + i * in.logits.stride(0);
      row_sums s;
      if (out.entropy.given())
        s.template scan<N, true>(x, stride, v, map);
      else
        s.template scan<N, false>(x, stride, v, map);
      const float lse = s.log_sum_exp();
      if (out.log_sum_exp.given()) out.log_sum_exp(i) = lse;
      if (out.entropy.given())
        out.entropy(i) = math::is_finite(lse) ? static_cast<float>(std::log(s.sum) - s.weighted / s.sum) : odd_entropy(x, lse);
      if (out.logp.given()) out.logp(i) = in.targets(i) < 0 ? 0.0f : map.map(convert<float>(x[in.targets(i) * stride])) - lse;
    }
  }
  // Rows without columns, of -inf, with +inf or NaN: as the composition of the required operations has them.
  float odd_entropy(const S* x, float lse) const {
    float h = 0;
    for (index_t j = 0; j < in.logits.extent(1); ++j)
      h += math::entropy_term{}(map.map(convert<float>(x[j * in.logits.stride(1)])), lse);
    return h;
  }
};

/// Gradient to the logits, see `math::softmax_part`; may write where it reads.
template <class S>
struct token_logp_grad_rows {
  token_logp_inputs<S> in;
  token_logp_gradients<float> grad;
  view<S, 2> d_logits;
  logit_lanes map;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    const index_t v = in.logits.extent(1), from = in.logits.stride(1), to = d_logits.stride(1);
    alignas(64) float x_block[block_size], g_block[block_size];
    for (index_t i = first; i < last; ++i) {
      const S* x = in.logits.pointer + i * in.logits.stride(0);
      S* g = d_logits.pointer + i * d_logits.stride(0);
      const index_t target = grad.d_logp.given() ? in.targets(i) : -1;
      const float c = target < 0 ? 0.0f : grad.d_logp(i);
      const two<float> k = grad.d_entropy.given() ? math::row_coefficients{}(c, grad.d_entropy(i), grad.entropy(i))
                                                  : two<float>{-c, 0.0f};
      const float lse = grad.log_sum_exp(i);
      if (math::is_zero(k.first) && math::is_zero(k.second)) {
        for (index_t j = 0; j < v; ++j) g[j * to] = S{};
        continue;
      }
      const math::softmax_part<float> entry{map.map};
      const float at_target = target < 0 ? 0.0f : convert<float>(x[target * from]);
      if (math::is_finite(lse) && math::is_finite(k.first) && math::is_finite(k.second)) {
        for (index_t at = 0; at < v; at += block_size) {
          const index_t count = v - at < block_size ? v - at : block_size;
          const float* block = whole_vectors<N>(x + at * from, from, count, 0.0f, x_block);
          float* result = g_block;
          if constexpr (std::is_same_v<S, float>)
            if (to == 1 && count % N == 0) result = g + at;
          row_block<N>(block, (count + N - 1) / N * N, lse, k, result);
          if (result == g_block) store_block<N>(g_block, count, g + at * to, to);
        }
      } else {
        for (index_t j = 0; j < v; ++j) g[j * to] = convert<S>(entry(convert<float>(x[j * from]), lse, k.first, k.second));
      }
      if (target >= 0)
        g[target * to] = convert<S>(entry(at_target, lse, k.first, k.second) + map.map.slope(at_target) * c);
    }
  }

  template <int N>
  [[gnu::always_inline]] void row_block(const float* x, index_t n, float lse, two<float> k, float* g) const {
    using L = lanes<N>;
    const float scale = map.map.scale, over_temperature = map.map.inverse_temperature;
    if (map.is_linear() && math::is_zero(k.second)) {
      const float factor = k.first * scale * over_temperature;
      for (index_t i = 0; i < n; i += N) {
        const auto logit = L::load(x + i);
        const auto p = L::exp_or_zero(L::smaller(logit * scale * over_temperature - lse, 88.0f));
        L::store(g + i, L::select(L::nan_mask(logit), logit, p * factor));
      }
    } else {
      for (index_t i = 0; i < n; i += N) {
        const auto logit = L::load(x + i);
        typename L::real slope = scale * over_temperature, u = logit * scale * over_temperature;
        if (!map.is_linear()) {
          const auto t = map.capped<N>(logit);
          u = t * map.map.softcap * over_temperature;
          slope = slope * (typename L::real(1.0f) - t * t);
        }
        const auto log_p = L::smaller(u - lse, 88.0f);
        const auto weight = k.first + k.second * L::larger(log_p, L::lowest);
        L::store(g + i, L::select(L::nan_mask(logit), logit, L::exp_or_zero(log_p) * weight * slope));
      }
    }
  }
};

/// `row_log_sum_exp` on rows of any stride and storage type.
template <class S>
struct log_sum_exp_rows {
  view<S, 2> x;
  view<float, 1> y;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    for (index_t i = first; i < last; ++i) {
      row_sums s;
      s.template scan<N, false>(x.pointer + i * x.stride(0), x.stride(1), x.extent(1), logit_lanes{});
      y(i) = s.log_sum_exp();
    }
  }
};

/// Softmax of dense rows; `y` may be `x`.
struct softmax_rows {
  view<const float, 2> x;
  view<const std::int32_t, 1> valid;
  view<float, 2> y;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    using L = lanes<N>;
    constexpr float none = -std::numeric_limits<float>::infinity();
    const index_t v = x.extent(1);
    for (index_t i = first; i < last; ++i) {
      const float* in = x.pointer + i * x.stride(0);
      float* out = y.pointer + i * y.stride(0);
      const index_t n = valid.given() ? valid(i) : v;
      // `even` entries are whole vectors of valid ones; the rest is one masked vector. It may hold columns after the valid ones
      // (their result, exp(-inf), is the 0 that they must get), but never memory after the row.
      const index_t even = n / N * N;
      const bool masked_fits = even + N <= v;
      alignas(64) float rest[N];
      extreme<N> e;
      e.take(in, even);
      typename L::real tail = none;
      if (even < n) {
        if (masked_fits) {
          tail = L::load(in + even);
        } else {
          for (index_t j = even; j < n; ++j) rest[j - even] = in[j];
          for (index_t j = n - even; j < N; ++j) rest[j] = none;
          tail = L::load(rest);
        }
        tail = L::select(L::first(n - even), tail, none);
        e.one(tail, e.max0);
      }
      const float max = e.max();
      if (math::is_inf(max)) {
        const float lse = max_or_nan(in, 1, n, max, math::identity{});
        for (index_t j = 0; j < n; ++j) out[j] = std::exp(in[j] - lse);
        for (index_t j = n; j < v; ++j) out[j] = 0;
        continue;
      }
      typename L::real sum{};
      for (index_t j = 0; j < even; j += N) {
        const auto p = L::exp_or_zero(L::load(in + j) - max);
        sum += p;
        L::store(out + j, p);
      }
      tail = L::exp_or_zero(tail - max);
      sum += tail;
      const float scale = 1.0f / L::sum(sum);
      for (index_t j = 0; j < even; j += N) L::store(out + j, L::load(out + j) * scale);
      index_t done = even;
      if (even < n) {
        tail = tail * scale;
        if (masked_fits) {
          L::store(out + even, tail);
          done = even + N;
        } else {
          L::store(rest, tail);
          for (; done < n; ++done) out[done] = rest[done - even];
        }
      }
      for (; done < v; ++done) out[done] = 0;
    }
  }
};

/// `dx = y (dy - sum y dy)` of dense rows; `dx` may be `dy`.
struct softmax_grad_rows {
  view<const float, 2> y, dy;
  view<float, 2> dx;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    using L = lanes<N>;
    const index_t v = y.extent(1), even = v / N * N;
    for (index_t i = first; i < last; ++i) {
      const float* p = y.pointer + i * y.stride(0);
      const float* d = dy.pointer + i * dy.stride(0);
      float* out = dx.pointer + i * dx.stride(0);
      typename L::real parts{};
      for (index_t j = 0; j < even; j += N) parts += L::load(p + j) * L::load(d + j);
      float dot = L::sum(parts);
      for (index_t j = even; j < v; ++j) dot += p[j] * d[j];
      for (index_t j = 0; j < even; j += N) L::store(out + j, L::load(p + j) * (L::load(d + j) - dot));
      for (index_t j = even; j < v; ++j) out[j] = p[j] * (d[j] - dot);
    }
  }
};

/// Sum or maximum of dense rows; blocks are summed in float, their sums in double.
template <class S>
struct reduce_rows {
  bool is_sum, add;
  view<S, 2> x;
  view<float, 1> y;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    using L = lanes<N>;
    alignas(64) float buffer[block_size];
    const index_t v = x.extent(1);
    for (index_t i = first; i < last; ++i) {
      S* row = x.pointer + i * x.stride(0);
      double sum = 0;
      extreme<N> e;
      for (index_t at = 0; at < v; at += block_size) {
        const index_t count = v - at < block_size ? v - at : block_size, whole = (count + N - 1) / N * N;
        const float* p = whole_vectors<N>(row + at, 1, count, is_sum ? 0.0f : -std::numeric_limits<float>::infinity(), buffer);
        if (!is_sum) {
          e.take(p, whole);
          continue;
        }
        typename L::real part[4] = {};
        index_t j = 0;
        for (; j + 4 * N <= whole; j += 4 * N)
          for (int k = 0; k < 4; ++k) part[k] += L::load(p + j + k * N);
        for (; j < whole; j += N) part[0] += L::load(p + j);
        sum += L::sum((part[0] + part[1]) + (part[2] + part[3]));
      }
      const float result = is_sum ? static_cast<float>(sum) : max_or_nan(row, 1, v, e.max(), math::identity{});
      y(i) = add ? y(i) + result : result;
    }
  }
};

/// Sums down columns `first .. last` of a matrix with dense rows; runs of rows are summed in float, the runs pairwise in a second float.
struct sum_columns {
  bool add;
  view<const float, 2> x;
  view<float, 1> y;
  index_t first, last;

  template <int N>
  [[gnu::always_inline]] void operator()() const {
    index_t j = first;
    for (; j + 4 * N <= last; j += 4 * N) strip<N, 4>(j);
    for (; j + N <= last; j += N) strip<N, 1>(j);
    for (; j < last; ++j) {
      double sum = 0;
      for (index_t i = 0; i < x.extent(0); ++i) sum += x(i, j);
      y(j) = static_cast<float>(add ? y(j) + sum : sum);
    }
  }
  template <int N, int Count>
  [[gnu::always_inline]] void strip(index_t j) const {
    using L = lanes<N>;
    constexpr index_t run = 64;
    typename L::real total[Count] = {};
    for (index_t at = 0; at < x.extent(0); at += run) {
      const index_t end = at + run < x.extent(0) ? at + run : x.extent(0);
      typename L::real part[Count] = {};
      for (index_t i = at; i < end; ++i)
        for (int k = 0; k < Count; ++k) part[k] += L::load(x.pointer + i * x.stride(0) + j + k * N);
      for (int k = 0; k < Count; ++k) total[k] += part[k];
    }
    for (int k = 0; k < Count; ++k) {
      alignas(64) float sums[N];
      L::store(sums, total[k]);
      for (int l = 0; l < N; ++l) {
        float& out = y(j + k * N + l);
        out = add ? out + sums[l] : sums[l];
      }
    }
  }
};

}  // namespace onednn::detail

PLUMB_NAMESPACE_END

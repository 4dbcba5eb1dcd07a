#pragma once
// Every required operation, once more, as its definition says it: loops over plain vectors of double, row-major, by no backend's code.
// Slow, and meant to be read. Each result carries the magnitude of what entered it (see `expectation`).

#include <plumb/compute/fused.hpp>
#include <plumb/compute/operations.hpp>
#include <plumb/math/token_logp.hpp>
#include <plumb/testing/compare.hpp>

#include <algorithm>
#include <cmath>

PLUMB_NAMESPACE_BEGIN

namespace testing::oracle {

/// A vector of numbers, ids or masks.
using doubles = std::vector<double>;
/// `+inf`, in double.
inline constexpr double infinity = std::numeric_limits<double>::infinity();

/// Sequences by their bounds; `scored` empty: every token.
struct sequences {
  doubles begin{}, end{}, scored{};
  index_t tokens = 0;

  /// Scored tokens of sequence `s`, in order.
  std::vector<std::size_t> of(std::size_t s) const {
    std::vector<std::size_t> list;
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t)
      if (scored.empty() || scored[t] != 0) list.push_back(t);
    return list;
  }
};

/// The maximum; -inf of nothing, NaN where there is one.
inline double largest(const doubles& x) {
  double m = -infinity;
  for (const double v : x) {
    if (math::is_nan(v)) return v;
    m = std::max(m, v);
  }
  return m;
}
/// Sum or maximum of some numbers, added to `before`.
inline void push_reduced(expectation& e, reduction op, const doubles& x, double before = 0) {
  double sum = before, magnitude = std::abs(before);
  if (op == reduction::max) {
    const double m = largest(x);
    return e.push(before + m, std::abs(before) + std::abs(m));
  }
  for (const double v : x) {
    sum += v;
    magnitude += std::abs(v);
  }
  e.push(sum, magnitude);
}
/// `log sum_j exp x[j]`.
inline double log_sum_exp(const doubles& x) {
  const double m = largest(x);
  if (math::is_nan(m) || math::is_inf(m)) return m;
  double sum = 0;
  for (const double v : x) sum += std::exp(v - m);
  return m + std::log(sum);
}
/// The largest finite |x|; 0 where there is none.
inline double largest_magnitude(const doubles& x) {
  double m = 0;
  for (const double v : x)
    if (math::is_finite(v)) m = std::max(m, std::abs(v));
  return m;
}
/// What a log-sum-exp's rounding is relative to: the logits; but a relative error of the sum is an absolute one of its logarithm, hence 1
/// at least.
inline double log_sum_exp_magnitude(const doubles& x) { return std::max(1.0, largest_magnitude(x)); }

/// A matrix in row-major order.
struct matrix {
  doubles values;
  index_t rows, columns;
  double at(index_t i, index_t j) const { return values[static_cast<std::size_t>(i * columns + j)]; }
  doubles row(index_t i, index_t count = -1) const {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(i * columns);
    return {first, first + static_cast<std::ptrdiff_t>(count < 0 ? columns : count)};
  }
};

/// `reduce` of rank 4; dimension `d` of `y` has extent `y[d]`, 1 or that of `x`. `before` is what `y` held, empty to overwrite.
inline expectation reduce(reduction op, const doubles& x, const index_t (&extents)[4], const index_t (&y)[4], const doubles& before) {
  std::vector<doubles> boxes(static_cast<std::size_t>(y[0] * y[1] * y[2] * y[3]));
  std::size_t i = 0;
  for (index_t a = 0; a < extents[0]; ++a)
    for (index_t b = 0; b < extents[1]; ++b)
      for (index_t c = 0; c < extents[2]; ++c)
        for (index_t d = 0; d < extents[3]; ++d, ++i) {
          const index_t at = ((std::min(a, y[0] - 1) * y[1] + std::min(b, y[1] - 1)) * y[2] + std::min(c, y[2] - 1)) * y[3] + std::min(d, y[3] - 1);
          boxes[static_cast<std::size_t>(at)].push_back(x[i]);
        }
  expectation e;
  for (std::size_t k = 0; k < boxes.size(); ++k) push_reduced(e, op, boxes[k], before.empty() ? 0 : before[k]);
  return e;
}

/// By the definition of `provides_segment_reduce`.
inline expectation segment_reduce(reduction op, const doubles& x, const sequences& l) {
  expectation e;
  for (std::size_t s = 0; s < l.begin.size(); ++s) {
    doubles part;
    for (const std::size_t t : l.of(s)) part.push_back(x[t]);
    push_reduced(e, op, part);
  }
  return e;
}

/// `before` is what `y` held, empty to overwrite.
inline expectation segment_broadcast(const doubles& x, const sequences& l, const doubles& before) {
  doubles y = before.empty() ? doubles(static_cast<std::size_t>(l.tokens)) : before;
  for (std::size_t s = 0; s < l.begin.size(); ++s)
    for (const std::size_t t : l.of(s)) y[t] += x[s];
  return expectation::plain(y);
}

/// By the definition of `provides_segment_scan`.
inline expectation segment_scan(const doubles& a, const doubles& x, const sequences& l) {
  const auto n = static_cast<std::size_t>(l.tokens);
  expectation e{doubles(n), doubles(n)};
  for (std::size_t s = 0; s < l.begin.size(); ++s) {
    const auto list = l.of(s);
    double carry = 0, magnitude = 0;
    for (std::size_t k = list.size(); k-- > 0;) {
      const std::size_t t = list[k];
      const bool last = k + 1 == list.size();
      carry = last ? x[t] : x[t] + a[t] * carry;
      magnitude = last ? std::abs(x[t]) : std::abs(x[t]) + std::abs(a[t]) * magnitude;
      e.value[t] = carry;
      e.magnitude[t] = magnitude;
    }
  }
  return e;
}

/// By the definition of `provides_row_log_sum_exp`.
inline expectation row_log_sum_exp(const matrix& x) {
  expectation e;
  for (index_t i = 0; i < x.rows; ++i) e.push(log_sum_exp(x.row(i)), log_sum_exp_magnitude(x.row(i)));
  return e;
}

/// By the definition of `provides_row_pick`.
inline expectation row_pick(const matrix& x, const doubles& ids) {
  doubles y;
  for (index_t i = 0; i < x.rows; ++i) {
    const auto id = static_cast<index_t>(ids[static_cast<std::size_t>(i)]);
    y.push_back(id < 0 ? 0 : x.at(i, id));
  }
  return expectation::plain(y);
}

/// `before` is what `y` held.
inline expectation row_add_at(const doubles& x, const doubles& ids, const matrix& before) {
  expectation e = expectation::plain(before.values);
  for (index_t i = 0; i < before.rows; ++i) {
    const auto row = static_cast<std::size_t>(i);
    if (ids[row] < 0) continue;
    const std::size_t at = row * static_cast<std::size_t>(before.columns) + static_cast<std::size_t>(ids[row]);
    e.value[at] += x[row];
    e.magnitude[at] += std::abs(x[row]);
  }
  return e;
}

/// By the definition of `provides_row_gather`.
inline expectation row_gather(const matrix& x, const doubles& ids) {
  doubles y;
  for (const double id : ids)
    for (index_t j = 0; j < x.columns; ++j) y.push_back(id < 0 ? 0 : x.at(static_cast<index_t>(id), j));
  return expectation::plain(y);
}

/// `before` is what `y` held.
inline expectation row_scatter_add(const matrix& x, const doubles& ids, const matrix& before) {
  expectation e = expectation::plain(before.values);
  for (index_t i = 0; i < x.rows; ++i)
    for (index_t j = 0; j < x.columns && ids[static_cast<std::size_t>(i)] >= 0; ++j) {
      const auto at = static_cast<std::size_t>(static_cast<index_t>(ids[static_cast<std::size_t>(i)]) * x.columns + j);
      e.value[at] += x.at(i, j);
      e.magnitude[at] += std::abs(x.at(i, j));
    }
  return e;
}

/// `valid` empty: all columns.
inline expectation row_softmax(const matrix& x, const doubles& valid) {
  expectation e;
  for (index_t i = 0; i < x.rows; ++i) {
    const index_t n = valid.empty() ? x.columns : static_cast<index_t>(valid[static_cast<std::size_t>(i)]);
    const doubles row = x.row(i, n);
    const double lse = log_sum_exp(row);
    const double scale = 1 + largest_magnitude(row);  // of an exponent's rounding, relative to p; 1: p's own
    for (index_t j = 0; j < x.columns; ++j) {
      const double p = j < n ? std::exp(row[static_cast<std::size_t>(j)] - lse) : 0;
      e.push(p, p * scale);
    }
  }
  return e;
}

/// By the definition of `provides_row_softmax_grad`.
inline expectation row_softmax_grad(const matrix& y, const matrix& dy) {
  expectation e;
  for (index_t i = 0; i < y.rows; ++i) {
    double dot = 0, magnitude = 0;
    for (index_t j = 0; j < y.columns; ++j) {
      dot += y.at(i, j) * dy.at(i, j);
      magnitude += std::abs(y.at(i, j) * dy.at(i, j));
    }
    for (index_t j = 0; j < y.columns; ++j)
      e.push(y.at(i, j) * (dy.at(i, j) - dot), std::abs(y.at(i, j)) * (std::abs(dy.at(i, j)) + magnitude));
  }
  return e;
}

/// What enters the results of `token_logp`, and of its gradient where coefficients are given.
struct token_magnitudes {
  doubles logp{}, log_sum_exp{}, entropy{}, d_logits{};
};
/// `d_logp` and `d_entropy` one per row, or empty; `ids` negative: ignored.
inline token_magnitudes token_logp_magnitudes(const matrix& logits, const doubles& ids, const token_logp_options& o, const doubles& d_logp = {},
                                              const doubles& d_entropy = {}) {
  const auto map = math::logit_map<double>::from(o);
  token_magnitudes m;
  for (index_t i = 0; i < logits.rows; ++i) {
    const doubles x = logits.row(i);
    doubles u;
    for (const double v : x) u.push_back(map(v));
    const double lse = oracle::log_sum_exp(u), of_lse = log_sum_exp_magnitude(u);
    const auto finite = [](double v) { return math::is_finite(v) ? std::abs(v) : 0; };
    const double exponent = largest_magnitude(u) + finite(lse);  // an exponent's rounding, absolute: one relative to p
    double entropy = 0;
    doubles p, log_p;
    for (const double v : u) {
      log_p.push_back(finite(v - lse));
      p.push_back(math::is_finite(lse) ? std::exp(v - lse) : 0);
      entropy += p.back() * log_p.back();
    }
    const auto row = static_cast<std::size_t>(i);
    const auto target = static_cast<index_t>(ids[row]);
    m.log_sum_exp.push_back(of_lse);
    m.logp.push_back(target < 0 ? 0 : finite(u[static_cast<std::size_t>(target)]) + of_lse);
    m.entropy.push_back(exponent + (1 + exponent) * entropy);  // of the log p, whose weights sum to 1, and of the weights
    const double c = d_logp.empty() || target < 0 ? 0 : std::abs(d_logp[row]), e = d_entropy.empty() ? 0 : std::abs(d_entropy[row]);
    for (std::size_t j = 0; j < x.size(); ++j) {
      // The slope of a soft cap is 1 - tanh^2: both terms enter.
      double slope = std::abs(map.scale * map.inverse_temperature);
      if (map.softcap > 0) slope *= 1 + std::pow(std::tanh(map.scale * x[j] / map.softcap), 2);
      const double softmax = p[j] * (1 + exponent) * (c + e * (log_p[j] + entropy)) + p[j] * e * m.entropy.back();
      m.d_logits.push_back(math::is_nan(x[j]) ? 0 : slope * (softmax + (static_cast<index_t>(j) == target ? c : 0)));
    }
  }
  return m;
}

/// `before` empty: beta is 0.
inline expectation gemm(double alpha, const matrix& a, const matrix& b, double beta, const doubles& before) {
  expectation e;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < b.columns; ++j) {
      const double c = before.empty() ? 0 : beta * before[static_cast<std::size_t>(i * b.columns + j)];
      double sum = 0, magnitude = 0;
      for (index_t k = 0; k < a.columns; ++k) {
        sum += a.at(i, k) * b.at(k, j);
        magnitude += std::abs(a.at(i, k) * b.at(k, j));
      }
      e.push(alpha * sum + c, std::abs(alpha) * magnitude + std::abs(c));
    }
  return e;
}

}  // namespace testing::oracle

PLUMB_NAMESPACE_END

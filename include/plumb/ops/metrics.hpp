#pragma once
// Metrics as (sum, count), so that micro-batches and ranks merge exactly; dividing is the last thing that happens.

#include <plumb/compute/backend.hpp>
#include <plumb/math/elementwise.hpp>

#include <iterator>
#include <limits>
#include <vector>

PLUMB_NAMESPACE_BEGIN

/// What a metric makes of the numbers that enter it.
enum class metric_kind { mean, min, max };

/// One row of a metrics array `[K, 2]`: column 0 holds the sum (for `max` the maximum, for `min` the maximum of the negated values),
/// column 1 the count.
struct metric_info {
  const char* name;
  metric_kind kind = metric_kind::mean;
};

/// The metric's value: NaN over nothing, and NaN where NaN entered.
template <class Real>
Real metric_value(metric_kind kind, Real sum, Real count) {
  if (!(Real(0) < count)) return static_cast<Real>(std::numeric_limits<double>::quiet_NaN());
  return kind == metric_kind::mean ? sum / count : kind == metric_kind::max ? sum : -sum;
}

/// The value of each row of a metrics array in host memory.
template <class Real, std::size_t K>
std::vector<std::remove_const_t<Real>> metric_values(const metric_info (&infos)[K], view<Real, 2> metrics) {
  require_extent("metric_values", "metrics", metrics, 0, static_cast<index_t>(K), "the number of metrics");
  require_extent("metric_values", "metrics", metrics, 1, 2, "sum and count");
  std::vector<std::remove_const_t<Real>> values;
  for (index_t k = 0; k < metrics.extent(0); ++k) values.push_back(metric_value(infos[k].kind, metrics(k, 0), metrics(k, 1)));
  return values;
}

/// Adds the metrics of another micro-batch or rank to `into`; both `[K, 2]` in host memory. Keep `into` in double, whatever the backend computes in:
/// a float stops counting at 2^24.
template <class Into, class Real, std::size_t K>
void merge_metrics(const metric_info (&infos)[K], view<Into, 2> into, view<Real, 2> from) {
  require_same_shape("merge_metrics", "from", from, "into", into);
  require_extent("merge_metrics", "into", into, 0, static_cast<index_t>(K), "the number of metrics");
  for (index_t k = 0; k < into.extent(0); ++k) {
    const Into a = into(k, 0), b = static_cast<Into>(from(k, 0));
    if (infos[k].kind == metric_kind::mean) {
      into(k, 0) = a + b;
    } else {
      into(k, 0) = math::is_nan(a) ? a : math::is_nan(b) || a < b ? b : a;
    }
    into(k, 1) += static_cast<Into>(from(k, 1));
  }
}

namespace detail {

// A number as an array of `extent` equal entries: one element seen with stride zero.
template <class B>
const_real_view<B> constant(B& b, arena_of<B>& scratch, real_of<B> value, index_t extent) {
  const auto one = scratch.template take<real_of<B>>(1);
  b.fill(one, value);
  return {one.data(), {extent}, {0}};
}

// Gradient outputs: overwritten, or added to.
template <class B, int R>
void write_gradient(B& b, real_view<B, R> out, const_real_view<B, R> value, real_of<B> factor, write_mode mode) {
  if (!out.given()) return;
  if (mode == write_mode::add) {
    b.transform(math::add_scaled<real_of<B>>{factor}, out, as_const(out), value);
  } else {
    b.transform(math::scale<real_of<B>>{factor}, out, value);
  }
}

// A loss: `factor` times the sum of `values`, or that added to it. Takes one number of scratch to add.
template <class B>
void write_loss(B& b, arena_of<B>& scratch, real_view<B> out, const_real_view<B> values, real_of<B> factor, write_mode mode) {
  if (!out.given()) return;
  if (mode == write_mode::overwrite) {
    b.reduce(reduction::sum, values, out, write_mode::overwrite);
    b.transform(math::scale<real_of<B>>{factor}, out, as_const(out));
    return;
  }
  typename arena_of<B>::frame frame(scratch);
  const auto sum = scratch.template take<real_of<B>>(1);
  b.reduce(reduction::sum, values, sum, write_mode::overwrite);
  b.transform(math::add_scaled<real_of<B>>{factor}, out, as_const(out), as_const(sum));
}

template <class V>
void require_metrics(const char* op, const V& metrics, std::size_t rows) {
  if (!metrics.given()) return;
  require_extent(op, "metrics", metrics, 0, static_cast<index_t>(rows), "the number of metrics");
  require_extent(op, "metrics", metrics, 1, 2, "sum and count");
}

template <class V>
void require_scalar(const char* op, const char* name, const V& v) {
  if (v.given()) require_extent(op, name, v, 0, 1, "one number");
}

inline void require_denominator(const char* op, double denominator) {
  require_option(op, "denominator", denominator, denominator > 0,
                 "positive: the count that the loss of the whole global batch is divided by");
}
inline void require_weight(const char* op, double weight) { require_option(op, "weight", weight, true, "a number"); }

// Fills rows of a metrics array from per-item expressions; `valid` (uint8 or real, or not given) says which items count.
template <class B, class Valid = std::uint8_t>
class metric_rows {
 public:
  metric_rows(B& b, arena_of<B>& scratch, real_view<B, 2> metrics, index_t items,
              view<const Valid, 1, space_of<B>> valid = {})
      : b_(b), metrics_(metrics), valid_(valid), values_(scratch.template take<real_of<B>>(items)) {}

  template <class F, class... X>
  void mean(index_t row, F f, X... x) {
    write_row(row, reduction::sum, real_of<B>(0), f, x...);
  }
  template <class F, class... X>
  void max(index_t row, F f, X... x) {
    write_row(row, reduction::max, static_cast<real_of<B>>(-std::numeric_limits<double>::infinity()), f, x...);
  }
  /// Adds this row's sum and count from another row (a mean over two groups of items).
  void add_row(index_t row, index_t from) {
    const auto to = metrics_.slice(row, 1);
    b_.transform(math::plus{}, to, as_const(to), as_const(metrics_.slice(from, 1)));
  }
  static std::size_t workspace(index_t items) { return workspace_size().template add<real_of<B>>(items).bytes(); }

 private:
  template <class F, class... X>
  void write_row(index_t row, reduction op, real_of<B> ignored, F f, X... x) {
    b_.transform(f, values_, x...);
    if (valid_.given()) b_.transform(math::keep_or<real_of<B>>{ignored}, values_, as_const(values_), valid_);
    b_.reduce(op, as_const(values_), cell(row, 0), write_mode::overwrite);
    if (valid_.given()) {
      b_.transform(math::is_nonzero{}, values_, valid_);
      b_.reduce(reduction::sum, as_const(values_), cell(row, 1), write_mode::overwrite);
    } else {
      b_.fill(cell(row, 1), static_cast<real_of<B>>(static_cast<double>(values_.extent(0))));
    }
  }
  real_view<B> cell(index_t row, index_t column) const { return metrics_.row(row).slice(column, 1); }

  B& b_;
  real_view<B, 2> metrics_;
  view<const Valid, 1, space_of<B>> valid_;
  real_view<B> values_;
};

}  // namespace detail

PLUMB_NAMESPACE_END

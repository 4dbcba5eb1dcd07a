#pragma once
// Mean and variance of numbers that come in batches, kept on the device and mergeable across ranks.

#include <plumb/compute/backend.hpp>
#include <plumb/math/moments.hpp>
#include <plumb/math/running_moments.hpp>
#include <plumb/ops/host.hpp>

#include <limits>

PLUMB_NAMESPACE_BEGIN

/// Entries of the state `[3]`: the count, the mean, and the sum of squared deviations from it. All 0 is the state of nothing.
enum moments_entry : index_t { moments_count, moments_mean, moments_squares };
/// Elements of a state.
inline constexpr index_t moments_size = 3;

/// What a state says, on the host.
template <class T>
struct running_moments {
  T count = 0, mean = 0;
  T variance = 0;            ///< squares / count; NaN over nothing
  T standard_deviation = 0;  ///< Bessel-corrected: root of squares / (count - 1); NaN below two numbers
};

/// Reads a state in host memory.
template <class T>
running_moments<std::remove_const_t<T>> read_moments(view<T, 1> state) {
  using real = std::remove_const_t<T>;
  require_extent("read_moments", "state", state, 0, moments_size, "count, mean, squared deviations");
  const real none = static_cast<real>(std::numeric_limits<double>::quiet_NaN());
  const real n = state(moments_count), squares = state(moments_squares);
  return {n, state(moments_mean), real(0) < n ? squares / n : none, real(1) < n ? math::sqrt(squares / (n - real(1))) : none};
}

namespace detail {
// `into` and `from` are `[3]`; `from` may be read through any strides.
template <class B>
void add_moments(B& b, arena_of<B>& scratch, const_real_view<B> from, real_view<B> into) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const auto between = scratch.template take<real>(1);
  const auto at = [](const auto& state, moments_entry e) { return state.slice(e, 1); };
  const auto count = at(into, moments_count), mean = at(into, moments_mean), squares = at(into, moments_squares);
  b.transform2(math::merged_mean{}, mean, between, as_const(count), as_const(mean), at(from, moments_count), at(from, moments_mean));
  b.transform(math::sum_of_three{}, squares, as_const(squares), at(from, moments_squares), as_const(between));
  b.transform(math::plus{}, count, as_const(count), at(from, moments_count));
}
template <class B>
std::size_t update_moments_bytes(index_t values) {
  using real = real_of<B>;
  workspace_size w;
  w.template add<real>(values).template add<real>(moments_size);
  return w.template add<real>(1).bytes();
}
template <class B>
void update_moments(B& b, arena_of<B>& scratch, const_real_view<B> values, real_view<B> state) {
  using real = real_of<B>;
  const index_t n = values.extent(0);
  if (n == 0) return;
  typename arena_of<B>::frame frame(scratch);
  const auto squares = scratch.template take<real>(n);
  const auto batch = scratch.template take<real>(moments_size);
  const real count = static_cast<real>(static_cast<double>(n));
  const auto mean = batch.slice(moments_mean, 1);
  b.fill(batch.slice(moments_count, 1), count);
  b.reduce(reduction::sum, values, mean, write_mode::overwrite);
  b.transform(math::scale<real>{real(1) / count}, mean, as_const(mean));
  b.transform(math::squared_deviation{}, squares, values, const_real_view<B>(mean.data(), {n}, {0}));
  b.reduce(reduction::sum, as_const(squares), batch.slice(moments_squares, 1), write_mode::overwrite);
  add_moments(b, scratch, as_const(batch), state);
}
}  // namespace detail

/// Bytes of arena that `update_moments` takes for `values` numbers.
template <class B>
std::size_t update_moments_workspace(const B&, index_t values) {
  return detail::update_moments_bytes<B>(values);
}

/// Takes a batch `values` `[N]` into `state` `[3]`, on the device: two passes over the batch, then the merge of Chan, Golub and LeVeque
/// (1979). A float counts exactly to 2^24. Checked against TRL `RunningMoments.update` (whose `std` is Bessel-corrected, whose `var`
/// is not: `read_moments` gives both).
template <class B>
  requires has_backend_types<B>
void update_moments(B& b, arena_of<B>& scratch, const_real_view<B> values, real_view<B> state) {
  static_assert(check_backend<B>());
  constexpr const char* op = "update_moments";
  require_arguments(op, {{"state", state}}, {{"values", values}});
  require_extent(op, "state", state, 0, moments_size, "count, mean, squared deviations");
  scratch.require(op, update_moments_workspace(b, values.extent(0)));
  detail::update_moments(b, scratch, values, state);
}

/// Bytes of arena that `merge_moments` takes.
template <class B>
std::size_t merge_moments_workspace(const B&) {
  return workspace_size().template add<real_of<B>>(1).bytes();
}

/// Adds another rank's state `from` `[3]` to `into` `[3]`. The result does not depend on how the numbers were split, up to rounding.
template <class B>
  requires has_backend_types<B>
void merge_moments(B& b, arena_of<B>& scratch, const_real_view<B> from, real_view<B> into) {
  static_assert(check_backend<B>());
  constexpr const char* op = "merge_moments";
  require_arguments(op, {{"into", into}}, {{"from", from}});
  require_extent(op, "from", from, 0, moments_size, "count, mean, squared deviations");
  require_extent(op, "into", into, 0, moments_size, "count, mean, squared deviations");
  scratch.require(op, merge_moments_workspace(b));
  detail::add_moments(b, scratch, from, into);
}

/// A vector into a state in host memory, on the serial backend.
template <detail::host_range R>
void update_moments(const R& values, view<detail::value_of<R>, 1> state) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(values);
  detail::host_call<T> call(update_moments_workspace(serial::backend<T>{}, x.extent(0)));
  update_moments(call.compute, call.scratch, x, state);
}

/// A state into another, both in host memory.
template <detail::host_range R>
void merge_moments(const R& from, view<detail::value_of<R>, 1> into) {
  using T = detail::value_of<R>;
  detail::host_call<T> call(merge_moments_workspace(serial::backend<T>{}));
  merge_moments(call.compute, call.scratch, view<const T, 1>(from), into);
}

PLUMB_NAMESPACE_END

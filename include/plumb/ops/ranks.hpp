#pragma once
// Ranks of a vector's entries, and entries of one vector brought to those of the same rank in another.

#include <plumb/compute/backend.hpp>
#include <plumb/math/preference.hpp>

#include <concepts>
#include <limits>

PLUMB_NAMESPACE_BEGIN

namespace detail {

// Ranks are numbers of type `real`, which counts without gaps only so far.
template <class B>
void require_rankable(const char* op, const char* what, index_t count) {
  constexpr int digits = std::numeric_limits<real_of<B>>::digits;  // 0 of a type that says nothing
  if constexpr (digits > 0 && digits < 63)
    if (count > index_t{1} << digits)
      fail(message(op) << "there are " << count << " " << what << ", but ranks are numbers of the backend's `real`, exact to "
                       << (index_t{1} << digits) << ". Nothing was written.");
}

// Entries are ranked by comparing each with all: so many at once, that a million comparisons lie in scratch.
inline index_t rank_rows(index_t count) {
  const index_t rows = count > 0 ? (index_t{1} << 20) / count : 0;
  return rows < 1 ? 1 : rows < count ? rows : count;
}
// Places 0, 1, 2, ...: each pass copies what is there, moved up.
template <class B>
void write_places(B& b, real_view<B> places) {
  using real = real_of<B>;
  const index_t n = places.extent(0);
  if (n == 0) return;
  b.fill(places.slice(0, 1), real(0));
  for (index_t done = 1; done < n; done *= 2) {
    const index_t more = done < n - done ? done : n - done;
    b.transform(math::add_constant<real>{static_cast<real>(static_cast<double>(done))}, places.slice(done, more), as_const(places.slice(0, more)));
  }
}

// By the required operations only: the specification of cap::ranks.
template <class B>
void compose_ranks(B& b, arena_of<B>& scratch, const_real_view<B> x, real_view<B> ranks) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t n = x.extent(0), rows = rank_rows(n);
  const auto places = scratch.template take<real>(n);
  const auto compared = scratch.template take<real>(rows, n);
  write_places(b, places);
  for (index_t first = 0; first < n; first += rows) {
    const index_t k = rows < n - first ? rows : n - first;
    const auto part = compared.slice(0, k);
    b.transform(math::comes_before{}, part, broadcast_rows(x, k), broadcast_columns(x.slice(first, k), n), broadcast_rows(as_const(places), k),
                broadcast_columns(as_const(places.slice(first, k)), n));
    b.reduce(reduction::sum, as_const(part), as_column(ranks.slice(first, k)), write_mode::overwrite);
  }
}
template <class B>
void compose_match_ranks(B& b, arena_of<B>& scratch, const_real_view<B> x, const_real_view<B> from, const_real_view<B> to, real_view<B> y) {
  typename arena_of<B>::frame frame(scratch);
  const index_t n = x.extent(0), rows = rank_rows(n);
  const auto compared = scratch.template take<real_of<B>>(rows, n);
  for (index_t first = 0; first < n; first += rows) {
    const index_t k = rows < n - first ? rows : n - first;
    const auto part = compared.slice(0, k);
    b.transform(math::of_same_rank{}, part, broadcast_columns(to.slice(first, k), n), broadcast_rows(from, k), broadcast_rows(x, k));
    b.reduce(reduction::sum, as_const(part), as_column(y.slice(first, k)), write_mode::overwrite);
  }
}

// Bytes of arena that `write_ranks` or `match_ranks` takes.
template <class B>
std::size_t ranks_workspace(const B& b, index_t count) {
  if constexpr (declares<B, cap::ranks>) {
    static_assert(requires { { b.ranks_workspace(count) } -> std::convertible_to<std::size_t>; },
                  "plumb: this backend declares cap::ranks, but ranks_workspace(n) is not callable");
    return b.ranks_workspace(count);
  } else {
    return workspace_size().template add<real_of<B>>(count).template add<real_of<B>>(rank_rows(count) * count).bytes();
  }
}
// The place of each entry of `x` in rising order, see `cap::ranks`.
template <class B>
void write_ranks(B& b, arena_of<B>& scratch, const_real_view<B> x, real_view<B> ranks) {
  if constexpr (declares<B, cap::ranks>) {
    static_assert(requires { b.ranks(scratch, x, ranks); }, "plumb: this backend declares cap::ranks, but ranks(scratch, x, y) is not callable");
    b.ranks(scratch, x, ranks);
  } else {
    compose_ranks(b, scratch, x, ranks);
  }
}
// `y[i] = x[j]` where `to[i]` and `from[j]` are the same rank.
template <class B>
void match_ranks(B& b, arena_of<B>& scratch, const_real_view<B> x, const_real_view<B> from, const_real_view<B> to, real_view<B> y) {
  if constexpr (declares<B, cap::ranks>) {
    static_assert(requires { b.match_ranks(scratch, x, from, to, y); },
                  "plumb: this backend declares cap::ranks, but match_ranks(scratch, x, from, to, y) is not callable");
    b.match_ranks(scratch, x, from, to, y);
  } else {
    compose_match_ranks(b, scratch, x, from, to, y);
  }
}

}  // namespace detail

PLUMB_NAMESPACE_END

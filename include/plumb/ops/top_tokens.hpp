#pragma once
// Which scored tokens hold the largest numbers: of the highest entropy, say, or of the largest covariance.

#include <plumb/math/top_tokens.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/metrics.hpp>

#include <limits>

PLUMB_NAMESPACE_BEGIN

/// Options of `top_tokens`.
struct top_tokens_options {
  double count = 1;  ///< how many tokens are chosen at most: a share of the scored tokens, rounded by the caller

  void require(const char* op) const { require_option(op, "count", count, count > 0, "positive: how many tokens are chosen at most"); }
};

/// Numbers of all tokens, flat.
template <class Real, class Space = host_space>
struct top_tokens_inputs {
  view<const Real, 1, Space> values{};    ///< `[N]`
  view<const Real, 1, Space> excluded{};  ///< `[N]`, not 0: never chosen; not given: none
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct top_tokens_outputs {
  view<Real, 1, Space> chosen{};  ///< `[N]`, 1 or 0; 0 where unscored
  view<Real, 1, Space> rest{};    ///< `[N]`, 1 minus that
};

/// Bytes of arena that `top_tokens` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t top_tokens_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 2; ++i) w.template add<real>(tokens);
  for (int i = 0; i < 4; ++i) w.template add<real>(1);
  return w.template add<real>(sequences.sequences()).bytes();
}

/// 1 for the `count` largest `values` of the scored tokens of the call, 0 for the others. Tokens that tie with the last one chosen are
/// chosen too; where there are fewer than `count`, all are. Infinities are numbers like others; NaN ranks before all, and is NaN in the outputs.
/// The last one chosen is found by bisection on the bits of its value, on the device and exactly (64 passes in double, 32 in float), so nothing is
/// sorted and no number is read back. TRL's `top_entropy_quantile` `q` of `n` tokens is `count = n - ceil((1 - q)(n - 1))` of
/// their entropies (arXiv:2506.01939). Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void top_tokens(B& b, arena_of<B>& scratch, const top_tokens_inputs<real_of<B>, space_of<B>>& in, const top_tokens_options& options,
                const top_tokens_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "top_tokens";
  const index_t tokens = in.values.extent(0), sequences = in.sequences.sequences();
  require_arguments(op, {{"chosen", out.chosen}, {"rest", out.rest}},
                    {{"values", in.values}, {"excluded", in.excluded}, {"begin", in.sequences.begin}, {"end", in.sequences.end},
                     {"scored", in.sequences.scored}});
  options.require(op);
  require_given(op, "values", in.values, in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  for (const auto& [name, v] : {std::pair{"excluded", in.excluded}, {"chosen", as_const(out.chosen)}, {"rest", as_const(out.rest)}})
    if (v.given()) require_same_shape(op, name, v, "values", in.values);
  scratch.require(op, top_tokens_workspace(b, in.sequences, tokens));
  if (tokens == 0) return;
  typename arena_of<B>::frame frame(scratch);
  const auto candidate = scratch.template take<real>(tokens), spare = scratch.template take<real>(tokens);
  const auto ones = scratch.template take<real>(sequences);
  const auto low = scratch.template take<real>(1), high = scratch.template take<real>(1), count = scratch.template take<real>(1);
  const auto everywhere = [&](real_view<B> one) { return const_real_view<B>{one.data(), {tokens}, {0}}; };
  b.fill(ones, real(1));
  b.segment_broadcast(as_const(ones), in.sequences, candidate, write_mode::overwrite);
  b.transform(math::is_candidate{}, candidate, as_const(candidate),
              in.excluded.given() ? in.excluded : detail::constant(b, scratch, real(0), tokens));

  // The last one chosen lies between `low` and `high`. Each step halves the numbers that there are between them, until one is left.
  if constexpr (math::has_ordered_bits<real>) {
    b.fill(low, -std::numeric_limits<real>::infinity());
    b.fill(high, std::numeric_limits<real>::infinity());
  } else {
    const real least = static_cast<real>(-1e30);
    b.transform(math::keep_or<real>{least}, spare, in.values, as_const(candidate));
    b.reduce(reduction::max, as_const(spare), high, write_mode::overwrite);
    b.transform(math::negate{}, spare, in.values);
    b.transform(math::keep_or<real>{least}, spare, as_const(spare), as_const(candidate));
    b.reduce(reduction::max, as_const(spare), low, write_mode::overwrite);
    b.transform(math::negate{}, low, as_const(low));
  }
  const math::bisection_step<real> step{static_cast<real>(options.count)};
  for (int bits = sizeof(real) > 4 ? 64 : 32; bits > 0; --bits) {
    b.transform(math::at_least_middle{}, spare, in.values, as_const(candidate), everywhere(low), everywhere(high));
    b.reduce(reduction::sum, as_const(spare), count, write_mode::overwrite);
    b.transform2(step, low, high, as_const(low), as_const(high), as_const(count));
  }
  b.transform(math::is_chosen{}, spare, in.values, as_const(candidate), everywhere(low));
  if (out.chosen.given()) b.copy(as_const(spare), out.chosen);
  if (out.rest.given()) b.transform(math::not_chosen{}, out.rest, as_const(spare));
}

/// What the host overload returns, as in `top_tokens_outputs`.
template <class T>
struct top_tokens_result {
  std::vector<T> chosen, rest;  ///< `[N]`
};

/// A vector and a layout in, on the serial backend.
template <detail::host_range R>
top_tokens_result<detail::value_of<R>> top_tokens(const R& values, const sequence_layout<>& sequences, const top_tokens_options& options = {},
                                                  view<const detail::value_of<R>, 1> excluded = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(values);
  detail::require_host_layout("top_tokens", sequences, x.extent(0));
  top_tokens_result<T> r{detail::zeros<T>(x.extent(0)), detail::zeros<T>(x.extent(0))};
  detail::host_call<T> call(top_tokens_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  top_tokens(call.compute, call.scratch, {.values = x, .excluded = excluded, .sequences = sequences}, options, {.chosen = r.chosen, .rest = r.rest});
  return r;
}

PLUMB_NAMESPACE_END

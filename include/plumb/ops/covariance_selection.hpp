#pragma once
// The tokens whose log-probability and advantage vary together most, which is where the entropy of a policy goes.

#include <plumb/math/policy_loss.hpp>
#include <plumb/ops/top_tokens.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `covariance_selection`.
struct covariance_selection_options {
  double count = 1;      ///< how many tokens are chosen at most: a share of the scored tokens, rounded by the caller
  double lower = -1e30;  ///< candidates have a covariance above this; -1e30: none is too small
  double upper = 1e30;   ///< and below this; 1e30: none is too large

  void require(const char* op) const {
    top_tokens_options{count}.require(op);
    require_option(op, "upper", upper, true, "a number");
    require_option(op, "lower", lower, lower < upper, "below `upper`");
  }
};

/// Numbers of all tokens, flat.
template <class Real, class Space = host_space>
struct covariance_selection_inputs {
  view<const Real, 1, Space> logp{};        ///< `[N]`
  view<const Real, 1, Space> advantages{};  ///< `[N]`
  view<const Real, 1, Space> excluded{};    ///< `[N]`, not 0: no candidate (Clip-Cov: what `policy_loss` says is `clipped`); not given: none
  view<const Real, 1, Space> order{};       ///< `[N]`, candidates are chosen from the largest down; not given: by covariance (Clip-Cov: random numbers)
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct covariance_selection_outputs {
  view<Real, 1, Space> chosen{};      ///< `[N]`, 1 or 0: the `kl_weights` of KL-Cov
  view<Real, 1, Space> rest{};        ///< `[N]`, 1 minus that: the `importance_weights` of Clip-Cov
  view<Real, 1, Space> covariance{};  ///< `[N]`; 0 where unscored
};

/// Bytes of arena that `covariance_selection` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t covariance_selection_workspace(const B& b, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(tokens);
  for (int i = 0; i < 4; ++i) w.template add<real>(1);
  return w.template add<real>(sequences.sequences()).add_bytes(top_tokens_workspace(b, sequences, tokens)).bytes();
}

/// `(A - mean A)(logp - mean logp)` of the scored tokens of the call (arXiv:2505.22617, section 4), and the `count` candidates that come
/// first as `top_tokens` finds them. KL-Cov penalises the chosen, Clip-Cov drops them: see docs/objectives/policy_loss.md. Enqueues and returns;
/// nothing is allocated. Checked against verl `kl_cov` and `clip_cov`.
template <class B>
  requires has_backend_types<B>
void covariance_selection(B& b, arena_of<B>& scratch, const covariance_selection_inputs<real_of<B>, space_of<B>>& in,
                          const covariance_selection_options& options, const covariance_selection_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "covariance_selection";
  const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
  require_arguments(op, {{"chosen", out.chosen}, {"rest", out.rest}, {"covariance", out.covariance}},
                    {{"logp", in.logp}, {"advantages", in.advantages}, {"excluded", in.excluded}, {"order", in.order},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  options.require(op);
  require_given(op, "logp", in.logp, in.advantages.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "advantages", in.advantages, tokens > 0);
  require_sequences(op, in.sequences, tokens);
  for (const auto& [name, v] : {std::pair{"advantages", in.advantages}, {"excluded", in.excluded}, {"order", in.order},
                                {"chosen", as_const(out.chosen)}, {"rest", as_const(out.rest)}, {"covariance", as_const(out.covariance)}})
    if (v.given()) require_same_shape(op, name, v, "logp", in.logp);
  scratch.require(op, covariance_selection_workspace(b, in.sequences, tokens));
  if (tokens == 0) return;
  typename arena_of<B>::frame frame(scratch);
  const auto covariance = scratch.template take<real>(tokens), scored = scratch.template take<real>(tokens),
             spare = scratch.template take<real>(tokens);
  const auto ones = scratch.template take<real>(sequences);
  const auto count = scratch.template take<real>(1), mean_advantage = scratch.template take<real>(1),
             mean_logp = scratch.template take<real>(1);
  const auto everywhere = [&](real_view<B> one) { return const_real_view<B>{one.data(), {tokens}, {0}}; };
  b.fill(ones, real(1));
  b.segment_broadcast(as_const(ones), in.sequences, scored, write_mode::overwrite);
  b.reduce(reduction::sum, as_const(scored), count, write_mode::overwrite);
  const auto mean = [&](const_real_view<B> x, real_view<B> to) {
    b.transform(math::keep_where{}, spare, x, as_const(scored));
    b.reduce(reduction::sum, as_const(spare), to, write_mode::overwrite);
    b.transform(math::mean_or_zero{}, to, as_const(to), as_const(count));
  };
  mean(in.advantages, mean_advantage);
  mean(in.logp, mean_logp);
  b.transform(math::centred_product{}, covariance, in.advantages, everywhere(mean_advantage), in.logp, everywhere(mean_logp));
  b.transform(math::keep_where{}, covariance, as_const(covariance), as_const(scored));
  if (out.covariance.given()) b.copy(as_const(covariance), out.covariance);
  if (!out.chosen.given() && !out.rest.given()) return;
  b.transform(math::is_outside<real>{static_cast<real>(options.lower), static_cast<real>(options.upper)}, spare, as_const(covariance),
              in.excluded.given() ? in.excluded : detail::constant(b, scratch, real(0), tokens));
  top_tokens(b, scratch,
             {.values = in.order.given() ? in.order : as_const(covariance), .excluded = as_const(spare), .sequences = in.sequences},
             {.count = options.count}, {.chosen = out.chosen, .rest = out.rest});
}

/// What the host overload returns, as in `covariance_selection_outputs`.
template <class T>
struct covariance_selection_result {
  std::vector<T> chosen, rest, covariance;  ///< `[N]`
};

/// Vectors and a layout in, on the serial backend.
template <detail::host_range R>
covariance_selection_result<detail::value_of<R>> covariance_selection(const R& logp, view<const detail::value_of<R>, 1> advantages,
                                                                      const sequence_layout<>& sequences,
                                                                      const covariance_selection_options& options = {},
                                                                      view<const detail::value_of<R>, 1> excluded = {},
                                                                      view<const detail::value_of<R>, 1> order = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  const index_t n = x.extent(0);
  detail::require_host_layout("covariance_selection", sequences, n);
  covariance_selection_result<T> r{detail::zeros<T>(n), detail::zeros<T>(n), detail::zeros<T>(n)};
  detail::host_call<T> call(covariance_selection_workspace(serial::backend<T>{}, sequences, n));
  covariance_selection(call.compute, call.scratch,
                       {.logp = x, .advantages = advantages, .excluded = excluded, .order = order, .sequences = sequences}, options,
                       {.chosen = r.chosen, .rest = r.rest, .covariance = r.covariance});
  return r;
}

PLUMB_NAMESPACE_END

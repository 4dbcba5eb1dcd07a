#pragma once
// Returns other than GAE's: discounted sums, lambda returns, n steps, V-trace.

#include <plumb/math/aggregate.hpp>
#include <plumb/ops/gae.hpp>

PLUMB_NAMESPACE_BEGIN

/// One output of all tokens; 0 for those that do not count.
template <class Real, class Space = host_space>
struct returns_outputs {
  view<Real, 1, Space> returns{};  ///< `[N]`
};

/// Options of `discounted_returns`.
struct discounted_returns_options {
  double gamma = 1;  ///< in [0, 1]

  void require(const char* op) const { gae_options{.gamma = gamma}.require(op); }
};
/// Flat tokens, as for `gae`.
template <class Real, class Space = host_space>
struct discounted_returns_inputs {
  view<const Real, 1, Space> rewards{};    ///< `[N]`
  view<const Real, 1, Space> bootstrap{};  ///< `[S]`; not given: 0
  view<const Real, 1, Space> discounts{};  ///< `[N]`, times `gamma`; not given: 1
  sequence_layout<Space> sequences{};
};

/// Bytes of arena that `discounted_returns` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t discounted_returns_workspace(const B&, index_t tokens) {
  return detail::trajectory_bytes<B>(tokens, 4);
}

/// `R_t = r_t + gamma R_u`, `u` the next scored token; after the last, `bootstrap`. Checked against OpenRLHF `get_cumulative_returns` and rlax.
/// Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void discounted_returns(B& b, arena_of<B>& scratch, const discounted_returns_inputs<real_of<B>, space_of<B>>& in,
                        const discounted_returns_options& options, const returns_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "discounted_returns";
  const index_t tokens = in.rewards.extent(0);
  const trajectory_inputs<real, space_of<B>> all{.rewards = in.rewards, .values = in.rewards, .bootstrap = in.bootstrap, .discounts = in.discounts,
                                                 .sequences = in.sequences};
  detail::require_trajectory_arguments<B>(op, {{"returns", out.returns}}, all);
  options.require(op);
  detail::require_trajectory<B>(op, all, false);
  if (!out.returns.given()) return;
  require_same_shape(op, "returns", out.returns, "rewards", in.rewards);
  scratch.require(op, discounted_returns_workspace(b, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto pass = scratch.template take<real>(tokens);
  const auto ones = detail::constant(b, scratch, real(1), tokens);
  b.transform(math::scale<real>{static_cast<real>(options.gamma)}, pass, in.discounts.given() ? in.discounts : ones);
  auto source = in.rewards;
  const detail::terminal_values<B> terminal(b, scratch, {}, in.bootstrap, in.sequences, tokens);
  if (terminal.value.given()) {
    const auto sum = scratch.template take<real>(tokens);
    b.transform(math::add_product_where{}, sum, in.rewards, as_const(pass), as_const(terminal.value), as_const(terminal.last));
    source = sum;
  }
  b.segment_scan(as_const(pass), source, in.sequences, out.returns);
}

/// Bytes of arena that `lambda_returns` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t lambda_returns_workspace(const B&, index_t tokens) {
  return detail::trajectory_bytes<B>(tokens, 11);
}

/// `R_t = r_t + gamma [(1 - lambda) V_u + lambda R_u]`; after the last token `R_u = V_u`. What `gae` calls returns, unless `next_values` say something
/// else of `V_u` than `values` do; with `next_values`, no `values` are needed. Checked against rlax.
/// Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void lambda_returns(B& b, arena_of<B>& scratch, const trajectory_inputs<real_of<B>, space_of<B>>& in, const gae_options& options,
                    const returns_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "lambda_returns";
  const index_t tokens = in.rewards.extent(0);
  detail::require_trajectory_arguments<B>(op, {{"returns", out.returns}}, in);
  options.require(op);
  detail::require_trajectory<B>(op, in, false);
  if (!out.returns.given()) return;
  require_same_shape(op, "returns", out.returns, "rewards", in.rewards);
  scratch.require(op, lambda_returns_workspace(b, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto array = [&] { return scratch.template take<real>(tokens); };
  if (!in.next_values.given()) {
    detail::gae_or_composed(b, scratch, in, options, {.returns = out.returns});
    return;
  }
  const auto ones = detail::constant(b, scratch, real(1), tokens);
  const auto discounts = in.discounts.given() ? in.discounts : ones, mix = in.lambdas.given() ? in.lambdas : ones;
  const auto pass = array(), source = array();
  const detail::terminal_values<B> terminal(b, scratch, in.next_values, {}, in.sequences, tokens);
  b.transform(math::scaled_product<real>{static_cast<real>(options.gamma * options.lambda)}, pass, discounts, mix);
  b.transform(math::one_step_part<real>{static_cast<real>(options.gamma), static_cast<real>(options.lambda)}, source, in.rewards, in.next_values,
              discounts, mix);
  b.transform(math::add_product_where{}, source, as_const(source), as_const(pass), as_const(terminal.value), as_const(terminal.last));
  b.segment_scan(as_const(pass), as_const(source), in.sequences, out.returns);
}

/// Options of `n_step_returns`.
struct n_step_returns_options {
  double gamma = 1;  ///< in [0, 1]
  int steps = 1;     ///< rewards that are counted before the value takes over, 1 or more; each costs two scans

  void require(const char* op) const {
    gae_options{.gamma = gamma}.require(op);
    require_option(op, "steps", steps, steps >= 1, "1 or more");
  }
};

/// Bytes of arena that `n_step_returns` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t n_step_returns_workspace(const B&, index_t tokens) {
  return detail::trajectory_bytes<B>(tokens, 9);
}

/// The rewards of `n` scored tokens and the value after them; fewer where the sequence ends before. `in.lambdas` has no part here. Checked against
/// rlax `n_step_bootstrapped_returns`. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void n_step_returns(B& b, arena_of<B>& scratch, const trajectory_inputs<real_of<B>, space_of<B>>& in, const n_step_returns_options& options,
                    const returns_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "n_step_returns";
  const index_t tokens = in.rewards.extent(0);
  detail::require_trajectory_arguments<B>(op, {{"returns", out.returns}}, in);
  options.require(op);
  detail::require_trajectory<B>(op, in, false);
  if (in.lambdas.given()) fail(message(op) << "argument `lambdas` has no part here. Nothing was written.");
  if (!out.returns.given()) return;
  require_same_shape(op, "returns", out.returns, "rewards", in.rewards);
  scratch.require(op, n_step_returns_workspace(b, tokens));
  typename arena_of<B>::frame frame(scratch);
  const math::discounted_step<real> step{static_cast<real>(options.gamma)};
  const auto ones = detail::constant(b, scratch, real(1), tokens);
  const auto discounts = in.discounts.given() ? in.discounts : ones;
  const detail::terminal_values<B> terminal(b, scratch, in.next_values, in.bootstrap, in.sequences, tokens);
  const auto parity = scratch.template take<real>(tokens), next = scratch.template take<real>(tokens);
  detail::scored_parity(b, scratch, in.sequences, parity);
  const auto shift = [&](const_real_view<B> x) {
    detail::next_scored(b, scratch, as_const(parity), x, as_const(terminal.value), in.sequences, next);
    return as_const(next);
  };
  b.transform(step, out.returns, in.rewards, discounts, in.next_values.given() ? in.next_values : shift(in.values));
  for (int i = 1; i < options.steps; ++i) b.transform(step, out.returns, in.rewards, discounts, shift(as_const(out.returns)));
  detail::scored_mask(b, scratch, in.sequences, parity);
  b.transform(math::keep_where{}, out.returns, as_const(out.returns), as_const(parity));
}

/// Options of `vtrace`. The limits cut the ratio `rho = exp(log_ratio)`.
struct vtrace_options {
  double gamma = 1;            ///< in [0, 1]
  double lambda = 1;           ///< in [0, 1]
  double rho_limit = 1;        ///< of the temporal difference: where the values converge to
  double trace_limit = 1;      ///< of the trace `c`: how fast
  double advantage_limit = 1;  ///< of the policy gradient's weight
  double alpha = 1;            ///< weights are `(1 - alpha) rho + alpha min(limit, rho)`: less than 1 is leaky V-trace (arXiv:2002.12928)

  void require(const char* op) const {
    gae_options{gamma, lambda}.require(op);
    for (const auto& [name, limit] : {std::pair{"rho_limit", rho_limit}, {"trace_limit", trace_limit}, {"advantage_limit", advantage_limit}})
      require_option(op, name, limit, limit > 0, "positive");
    require_option(op, "alpha", alpha, alpha >= 0 && alpha <= 1, "in [0, 1]");
  }
};
/// Flat tokens, as for `gae`.
template <class Real, class Space = host_space>
struct vtrace_inputs {
  view<const Real, 1, Space> rewards{};      ///< `[N]`
  view<const Real, 1, Space> values{};       ///< `[N]`
  view<const Real, 1, Space> next_values{};  ///< `[N]`; given: instead of the value of the next scored token
  view<const Real, 1, Space> bootstrap{};    ///< `[S]`; not given: 0
  view<const Real, 1, Space> discounts{};    ///< `[N]`, times `gamma`; not given: 1
  view<const Real, 1, Space> log_ratio{};    ///< `[N]`, log-probability under the policy less that under the one that sampled
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed; 0 for tokens that do not count. May overlap nothing.
template <class Real, class Space = host_space>
struct vtrace_outputs {
  view<Real, 1, Space> errors{};      ///< `[N]`, target - value
  view<Real, 1, Space> targets{};     ///< `[N]`, what the critic is trained on
  view<Real, 1, Space> advantages{};  ///< `[N]`, `min(advantage_limit, rho) (q - value)`
  view<Real, 1, Space> q{};           ///< `[N]`, the return of the token taken
};

/// Bytes of arena that `vtrace` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t vtrace_workspace(const B&, index_t tokens) {
  return detail::trajectory_bytes<B>(tokens, 13);
}

/// Off-policy targets (arXiv:1802.01561, eq. 1 and section 4.2), `u` the next scored token:
///
///     e_t = rho_t (r_t + gamma V_u - V_t) + gamma lambda c_t e_u          targets v = V + e
///     q_t = r_t + gamma [lambda v_u + (1 - lambda) V_u]                   advantage_t = rho'_t (q_t - V_t)
///
/// Checked against rlax `vtrace`, `leaky_vtrace`, `vtrace_td_error_and_advantage`. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void vtrace(B& b, arena_of<B>& scratch, const vtrace_inputs<real_of<B>, space_of<B>>& in, const vtrace_options& options,
            const vtrace_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "vtrace";
  const index_t tokens = in.rewards.extent(0);
  require_arguments(op, {{"errors", out.errors}, {"targets", out.targets}, {"advantages", out.advantages}, {"q", out.q}},
                    {{"rewards", in.rewards}, {"values", in.values}, {"next_values", in.next_values}, {"bootstrap", in.bootstrap},
                     {"discounts", in.discounts}, {"log_ratio", in.log_ratio},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  options.require(op);
  detail::require_trajectory<B>(op, {.rewards = in.rewards, .values = in.values, .next_values = in.next_values, .bootstrap = in.bootstrap,
                                     .discounts = in.discounts, .sequences = in.sequences}, true);
  require_given(op, "log_ratio", in.log_ratio, tokens > 0);
  require_same_shape(op, "log_ratio", in.log_ratio, "rewards", in.rewards);
  for (const auto& [name, v] : {std::pair{"errors", out.errors}, {"targets", out.targets}, {"advantages", out.advantages}, {"q", out.q}})
    if (v.given()) require_same_shape(op, name, v, "rewards", in.rewards);
  scratch.require(op, vtrace_workspace(b, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto array = [&] { return scratch.template take<real>(tokens); };
  const real gamma = static_cast<real>(options.gamma), alpha = static_cast<real>(options.alpha), lambda = static_cast<real>(options.lambda);
  const math::discounted_step<real> step{gamma};
  const auto ones = detail::constant(b, scratch, real(1), tokens);
  const auto discounts = in.discounts.given() ? in.discounts : ones;
  const detail::terminal_values<B> terminal(b, scratch, in.next_values, in.bootstrap, in.sequences, tokens);
  const auto weight = array(), pass = array(), part = array(), mask = array();
  const auto errors = out.errors.given() ? out.errors : array();
  const auto next = detail::values_after(b, scratch, in.values, in.next_values, terminal, in.sequences);

  b.transform(math::truncated_ratio<real>{static_cast<real>(options.rho_limit), alpha, real(1)}, weight, in.log_ratio);
  b.transform(step, part, in.rewards, discounts, next);
  b.transform(math::product_with_difference{}, part, as_const(weight), as_const(part), in.values);
  const real decay = static_cast<real>(options.gamma * options.lambda);
  b.transform(math::truncated_ratio<real>{static_cast<real>(options.trace_limit), alpha, decay}, pass, in.log_ratio);
  b.transform(math::times{}, pass, as_const(pass), discounts);
  b.segment_scan(as_const(pass), as_const(part), in.sequences, errors);
  detail::scored_mask(b, scratch, in.sequences, mask);
  if (out.targets.given()) b.transform(math::sum_where{}, out.targets, as_const(errors), in.values, as_const(mask));
  if (!out.advantages.given() && !out.q.given()) return;

  const auto q = out.q.given() ? out.q : array();
  b.transform(math::add_scaled<real>{lambda}, part, in.values, as_const(errors));  // lambda v + (1 - lambda) V
  detail::scored_parity(b, scratch, in.sequences, pass);
  detail::next_scored(b, scratch, as_const(pass), as_const(part), as_const(terminal.value), in.sequences, weight);
  b.transform(step, q, in.rewards, discounts, as_const(weight));
  b.transform(math::keep_where{}, q, as_const(q), as_const(mask));
  if (!out.advantages.given()) return;
  b.transform(math::truncated_ratio<real>{static_cast<real>(options.advantage_limit), alpha, real(1)}, weight, in.log_ratio);
  b.transform(math::difference_where{}, part, as_const(q), in.values, as_const(mask));
  b.transform(math::weighted{}, out.advantages, as_const(part), as_const(weight));
}

// Host overloads: vectors and a layout in, on the serial backend; `bootstrap` `[S]`, the values after the last tokens, is 0 where it is left out.

/// The returns `[N]`.
template <detail::host_range R>
std::vector<detail::value_of<R>> discounted_returns(const R& rewards, const sequence_layout<>& sequences, const discounted_returns_options& options = {},
                                                    view<const detail::value_of<R>, 1> bootstrap = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> r(rewards);
  detail::require_host_layout("discounted_returns", sequences, r.extent(0));
  auto returns = detail::zeros<T>(r.extent(0));
  detail::host_call<T> call(discounted_returns_workspace(serial::backend<T>{}, r.extent(0)));
  discounted_returns(call.compute, call.scratch, {.rewards = r, .bootstrap = bootstrap, .sequences = sequences}, options, {.returns = returns});
  return returns;
}

/// The returns `[N]`.
template <detail::host_range R>
std::vector<detail::value_of<R>> lambda_returns(const R& rewards, view<const detail::value_of<R>, 1> values, const sequence_layout<>& sequences,
                                                const gae_options& options = {}, view<const detail::value_of<R>, 1> bootstrap = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> r(rewards);
  detail::require_host_layout("lambda_returns", sequences, r.extent(0));
  auto returns = detail::zeros<T>(r.extent(0));
  detail::host_call<T> call(lambda_returns_workspace(serial::backend<T>{}, r.extent(0)));
  lambda_returns(call.compute, call.scratch, {.rewards = r, .values = values, .bootstrap = bootstrap, .sequences = sequences}, options,
                 {.returns = returns});
  return returns;
}

/// The returns `[N]`.
template <detail::host_range R>
std::vector<detail::value_of<R>> n_step_returns(const R& rewards, view<const detail::value_of<R>, 1> values, const sequence_layout<>& sequences,
                                                const n_step_returns_options& options = {}, view<const detail::value_of<R>, 1> bootstrap = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> r(rewards);
  detail::require_host_layout("n_step_returns", sequences, r.extent(0));
  auto returns = detail::zeros<T>(r.extent(0));
  detail::host_call<T> call(n_step_returns_workspace(serial::backend<T>{}, r.extent(0)));
  n_step_returns(call.compute, call.scratch, {.rewards = r, .values = values, .bootstrap = bootstrap, .sequences = sequences}, options,
                 {.returns = returns});
  return returns;
}

/// What the host overload of `vtrace` returns, all `[N]`, as in `vtrace_outputs`.
template <class T>
struct vtrace_result {
  std::vector<T> errors, targets, advantages, q;
};
/// `log_ratio`: of the policy to the one that sampled.
template <detail::host_range R>
vtrace_result<detail::value_of<R>> vtrace(const R& rewards, view<const detail::value_of<R>, 1> values, view<const detail::value_of<R>, 1> log_ratio,
                                          const sequence_layout<>& sequences, const vtrace_options& options = {},
                                          view<const detail::value_of<R>, 1> bootstrap = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> r(rewards);
  const index_t n = r.extent(0);
  detail::require_host_layout("vtrace", sequences, n);
  vtrace_result<T> y{detail::zeros<T>(n), detail::zeros<T>(n), detail::zeros<T>(n), detail::zeros<T>(n)};
  detail::host_call<T> call(vtrace_workspace(serial::backend<T>{}, n));
  vtrace(call.compute, call.scratch, {.rewards = r, .values = values, .bootstrap = bootstrap, .log_ratio = log_ratio, .sequences = sequences}, options,
         {.errors = y.errors, .targets = y.targets, .advantages = y.advantages, .q = y.q});
  return y;
}

PLUMB_NAMESPACE_END

#pragma once
// Arguments of the optional fused operations (see `cap` in compute/backend.hpp), shared by the backends that have them and by the
// operations that fall back.

#include <plumb/compute/operations.hpp>
#include <plumb/core/error.hpp>

PLUMB_NAMESPACE_BEGIN

/// What is done to logits before the softmax: `u = softcap(logit_scale x) / temperature`.
struct token_logp_options {
  double temperature = 1;  ///< positive
  double softcap = 0;      ///< `c` in `c tanh(z / c)`; 0: none
  double logit_scale = 1;

  void require(const char* op) const {
    require_option(op, "temperature", temperature, temperature > 0, "positive");
    require_option(op, "logit_scale", logit_scale, true, "what the logits are multiplied by");
    require_option(op, "softcap", softcap, softcap >= 0, "0 (none) or positive");
  }
};

/// Rows of logits `[N, V]` (any row stride `ld >= V`) in storage type `S`, and the token whose log-probability is asked of each row.
template <class S, class Space = host_space>
struct token_logp_inputs {
  view<const S, 2, Space> logits{};
  view<const std::int32_t, 1, Space> targets{};  ///< `[N]`, in `0 .. V`; negative: the row is ignored, its log-prob is 0
};

/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct token_logp_outputs {
  view<Real, 1, Space> logp{};         ///< `[N]`, `u[target] - log_sum_exp`
  view<Real, 1, Space> log_sum_exp{};  ///< `[N]`, of `u`; the backward pass asks for it
  view<Real, 1, Space> entropy{};      ///< `[N]`, `-sum p log p` in nats; the backward pass asks for it where `d_entropy` is given
};

/// What the backward pass starts from.
template <class Real, class Space = host_space>
struct token_logp_gradients {
  view<const Real, 1, Space> log_sum_exp{};  ///< `[N]`, from the forward pass
  view<const Real, 1, Space> d_logp{};       ///< `[N]`, dL/dlogp; not given: 0
  view<const Real, 1, Space> entropy{};      ///< `[N]`, from the forward pass, where `d_entropy` is given
  view<const Real, 1, Space> d_entropy{};    ///< `[N]`, dL/dentropy; not given: 0
};

/// Options of `gae` and `lambda_returns`.
struct gae_options {
  double gamma = 1;      ///< discount, in [0, 1]
  double lambda = 0.95;  ///< in [0, 1]: 1 trusts the rewards, 0 the value of the next token

  void require(const char* op) const {
    require_option(op, "gamma", gamma, gamma >= 0 && gamma <= 1, "in [0, 1]");
    require_option(op, "lambda", lambda, lambda >= 0 && lambda <= 1, "in [0, 1]");
  }
};

/// Flat tokens. `values[t]` is the value of the state in which token `t` is chosen, `rewards[t]` what choosing it brought. The state after a token
/// is that of the next scored token of its sequence: unscored ones between them (prompts of later turns, tool output) are passed over. After the
/// last one the episode is over, unless `bootstrap` says what was still to come.
template <class Real, class Space = host_space>
struct trajectory_inputs {
  view<const Real, 1, Space> rewards{};      ///< `[N]`
  view<const Real, 1, Space> values{};       ///< `[N]`
  view<const Real, 1, Space> next_values{};  ///< `[N]`; given: the value after each token, `V_u` below, instead of that of the next scored token
  view<const Real, 1, Space> bootstrap{};    ///< `[S]`; not given: 0. The value after the last scored token (of a reply that was cut off)
  view<const Real, 1, Space> discounts{};    ///< `[N]`, times `gamma`; not given: 1. From token `t` to the next
  view<const Real, 1, Space> lambdas{};      ///< `[N]`, times `lambda`; not given: 1. Likewise
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct gae_outputs {
  view<Real, 1, Space> advantages{};  ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> returns{};     ///< `[N]`, advantage + value: what the critic is trained on; likewise
};

PLUMB_NAMESPACE_END

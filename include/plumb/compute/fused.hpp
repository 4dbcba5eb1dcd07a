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

PLUMB_NAMESPACE_END

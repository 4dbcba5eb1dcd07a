// Views and formulas in device code: compiled for sm_90 wherever nvcc is found, without its --expt flags.
#include <plumb/core/random.hpp>
#include <plumb/core/view.hpp>
#include <plumb/math/aggregate.hpp>
#include <plumb/math/attribute_posterior.hpp>
#include <plumb/math/attribute_regression.hpp>
#include <plumb/math/bco.hpp>
#include <plumb/math/bradley_terry.hpp>
#include <plumb/math/distillation.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/expo.hpp>
#include <plumb/math/group_advantage.hpp>
#include <plumb/math/helpsteer.hpp>
#include <plumb/math/importance.hpp>
#include <plumb/math/kl.hpp>
#include <plumb/math/kto.hpp>
#include <plumb/math/log_sum_squares.hpp>
#include <plumb/math/logistic.hpp>
#include <plumb/math/moments.hpp>
#include <plumb/math/nash_md.hpp>
#include <plumb/math/optimal_token_baseline.hpp>
#include <plumb/math/orpo.hpp>
#include <plumb/math/policy_loss.hpp>
#include <plumb/math/preference.hpp>
#include <plumb/math/process_reward.hpp>
#include <plumb/math/returns.hpp>
#include <plumb/math/reward_head.hpp>
#include <plumb/math/reward_shaping.hpp>
#include <plumb/math/running_moments.hpp>
#include <plumb/math/segment_softmax.hpp>
#include <plumb/math/steerlm2.hpp>
#include <plumb/math/surrogate.hpp>
#include <plumb/math/token_logp.hpp>
#include <plumb/math/token_rewards.hpp>
#include <plumb/math/top_tokens.hpp>
#include <plumb/math/value.hpp>

struct device_space {
  static constexpr const char* name = "device";
};
template <class T, int R>
using device_view = plumb::view<T, R, device_space>;

__device__ inline plumb::index_t this_thread() { return plumb::index_t{blockIdx.x} * blockDim.x + threadIdx.x; }

template <class T>
__global__ void preference_terms(device_view<const T, 2> margins, device_view<T, 2> losses, device_view<T, 2> slopes) {
  const plumb::index_t i = this_thread();
  if (i >= margins.extent(0)) return;
  const plumb::math::bradley_terry_term<T> reward{T(1)};
  const plumb::math::centering_term<T> centred{T(0.01), T(1)};
  const plumb::math::squared_error_term<T> error{T(-100), T(1)};
  const T a = margins(i, 0), b = margins(i, 1);
  const plumb::two<T> terms[] = {reward(a, b, T(0), T(1)), centred(a, b, T(1)), error(a, b)};
  for (int k = 0; k < 4; ++k) {
    losses(i, k) = terms[k].first;
    slopes.row(i)(k) = terms[k].second;
  }
}

template <class T, class S>
__global__ void softmax_parts(device_view<const S, 2> logits, device_view<const T, 1> lse, device_view<T, 2> out) {
  const plumb::index_t i = this_thread();
  if (i >= logits.extent(0)) return;
  const plumb::math::logit_map<T> map{T(1), T(30), T(0.5)};
  const auto row = logits.row(i);
  for (plumb::index_t j = 0; j < row.extent(0); ++j) {
    const T x = static_cast<T>(static_cast<float>(row(j)));
    const T p = plumb::math::exp(map(x) - lse(i)) * map.slope(x);
    out.transposed()(j, i) = plumb::math::is_nan(p) ? plumb::math::sigmoid(x) : p;
  }
}

template <class T>
__global__ void noise(device_view<T, 1> out, plumb::random_stream stream) {
  const plumb::index_t i = this_thread();
  if (i < out.extent(0)) out(i) = static_cast<T>(stream.normal(static_cast<unsigned long long>(i)));
}

template __global__ void preference_terms(device_view<const float, 2>, device_view<float, 2>, device_view<float, 2>);
template __global__ void preference_terms(device_view<const double, 2>, device_view<double, 2>, device_view<double, 2>);
template __global__ void softmax_parts(device_view<const float, 2>, device_view<const float, 1>, device_view<float, 2>);
template __global__ void softmax_parts(device_view<const plumb::bf16, 2>, device_view<const float, 1>,
                                       device_view<float, 2>);
template __global__ void softmax_parts(device_view<const plumb::f16, 2>, device_view<const float, 1>,
                                       device_view<float, 2>);
template __global__ void noise(device_view<float, 1>, plumb::random_stream);

// Every functor of the catalogue as a kernel's argument, called with as many columns as it takes.
template <class T>
__device__ T number_of(const T& x) {
  return x;
}
template <class T>
__device__ T number_of(const plumb::two<T>& x) {
  return x.first + x.second;
}
template <class T>
__device__ T number_of(const plumb::pair_term<T>& x) {
  return x.value + x.d_chosen + x.d_rejected;
}
template <class T, class F>
__device__ T called(const F& f, const T& a, const T& b, const T& c, const T& d) {
  if constexpr (requires { f(a, b, c, d); }) {
    return number_of(f(a, b, c, d));
  } else if constexpr (requires { f(a, b, c); }) {
    return number_of(f(a, b, c));
  } else if constexpr (requires { f(a, b); }) {
    return number_of(f(a, b));
  } else {
    return number_of(f(a));
  }
}
template <class T, class... F>
__global__ void formulas(device_view<const T, 2> x, device_view<T, 1> y, F... f) {
  const plumb::index_t i = this_thread();
  if (i < x.extent(0)) y(i) = (called(f, x(i, 0), x(i, 1), x(i, 2), x(i, 3)) + ...);
}
/// A link and its factor, of two scores or, with the pair's rewards, of four numbers.
template <class L, class T>
struct of_scores {
  L link{};
  PLUMB_HD T operator()(const T& chosen, const T& rejected) const {
    const plumb::two<T> y = plumb::math::link_value<L, T>{link, T(2)}(chosen, rejected);
    return y.first + y.second + plumb::math::link_rejected<L, T>{link, T(2)}(chosen, rejected);
  }
};
template <class L, class T>
struct of_rewards {
  L link{};
  PLUMB_HD T operator()(const T& chosen, const T& rejected, const T& reward_chosen, const T& reward_rejected) const {
    const plumb::two<T> y = plumb::math::link_value<L, T>{link, T(2)}(chosen, rejected, reward_chosen, reward_rejected);
    return y.first + y.second + plumb::math::link_rejected<L, T>{link, T(2)}(chosen, rejected, reward_chosen, reward_rejected);
  }
};
template <class T, class... F>
void launch(device_view<const T, 2> x, device_view<T, 1> y) {
  formulas<T, F...><<<1, 32>>>(x, y, F{}...);
}

template <class T>
void launch_all(device_view<const T, 2> x, device_view<T, 1> y) {
  using namespace plumb::math;
  namespace link = plumb::link;
  namespace divergence = plumb::divergence;
  namespace surrogate = plumb::surrogate;
  namespace advantage = plumb::advantage;
  namespace distill = plumb::distill;
  launch<T, of_scores<link::sigmoid, T>, of_scores<link::robust, T>, of_scores<link::hinge, T>, of_scores<link::ipo, T>,
         of_scores<link::exo_pair, T>, of_scores<link::nca_pair, T>, of_scores<link::bco_pair, T>, of_scores<link::sppo_hard, T>,
         of_rewards<link::sppo, T>, of_scores<link::apo_zero, T>, of_scores<link::apo_down, T>, of_scores<link::discopop, T>,
         of_scores<link::dpop, T>, of_rewards<link::rpo_squared, T>, of_rewards<link::rpo_backward_kl, T>, of_rewards<link::rpo_forward_kl, T>,
         of_scores<link::odds_ratio, T>, divergence::reverse_kl, divergence::forward_kl, divergence::js, divergence::alpha,
         reply_score_term<divergence::alpha>, per_token, weighted_difference, comes_before, of_same_rank, add_constant<T>>(x, y);
  launch<T, log_odds_ratio, log_sigmoid_odds_ratio, kto_term<T>, kto_reference_point, bco_term<T>, nash_md_term<T>, shifted<T>, merged_mean,
         sum_of_three, sum_squares_slope<T>, extrapolate<T>, round_rating<T>, standardize_by_moments<T>, step_term<T>, step_is_right<T>,
         step_probability<T>, value_of_row, pooled_value, pooled_slope, add_scaled_product<T>, exponential, logarithm, log_share, share,
         log_level_probability<T>, importance_log_weight, listwise_term, coefficient_term, steerlm_coefficient, distance_term<T>, effective_size,
         gap_of_member, group_factor<T>>(x, y);
  launch<T, ratio_term<surrogate::ratio, T>, ratio_term<surrogate::clip, T>, clip_flags<surrogate::clip, T>,
         clip_flag<surrogate::clip, T>, cap_flag<surrogate::clip, T>, ratio_term<surrogate::sapo, T>,
         ratio_term<surrogate::gmpo, T>, limited_log_ratio<surrogate::gmpo>, logp_term<surrogate::cispo, T>, logp_term<surrogate::vespo, T>,
         logp_term<surrogate::reinforce, T>, mean_or_zero, old_k3_and_size, limited_ratio<T>, policy_kl_term<T>, policy_kl<T>,
         keep_within<T>, plumb::kl_estimate, kl_value, kl_slope, add_weighted_slope, exact_kl_term, exact_kl_slope, value_error<T>, value_clipped<T>,
         value_residual<T>, value_residual_square<T>, square>(x, y);
  launch<T, scaled_product<T>, one_step_part<T>, add_product_where, discounted_step<T>, temporal_difference<T>,
         difference_where, sum_where, truncated_ratio<T>, product_with_difference, kl_reward<T>, unfinished_score<T>, clamped<T>, add_where,
         flag_after, mean_of<T>, squared_deviation, variance_of<T>, whitened<T>, counted_reply<advantage::centered>, counted_reply<advantage::grpo>,
         counted_reply<advantage::rloo>, counted_reply<advantage::batch_scaled>, counted_reply<advantage::batch_normalized>, mean_of_sum,
         halves_of_top, mean_of_halves,
         group_deviation, between_groups, mean_below_highest, gpg_term<T>, count_where_varied, nonzero_reward, below_top<T>, at_top, top_gap,
         gap_at_top, gap_divisor<T>, group_varies<T>, logit_gradient_norm, sum_up_to, weighted_mean<T>>(x, y);
  launch<T, plumb::correction::none, plumb::correction::truncated, plumb::correction::masked, plumb::rejection::k1, plumb::rejection::k2,
         plumb::rejection::k3, limited<T>, limited_difference<T>, ratio_of<T>, per_length<T>, differs, over_mean, outside<T>, beyond<T>, rejected_too,
         kept_mask, chi_square_term<T>, k3_of, bounded<T>, bounded_square<T>, deviation_from_one, exp_negated, exp_difference, distance,
         centred_product, is_outside<T>, is_candidate, at_least_middle, bisection_step<T>, is_chosen, not_chosen, plumb::shaping::overlong,
         plumb::shaping::scale_truncated, plumb::shaping::fix_truncated, plumb::shaping::clip, plumb::shaping::kl_penalty>(x, y);
  launch<T, divergence_value<distill::forward_kl>, divergence_value<distill::reverse_kl>, divergence_value_and_pull<distill::jensen_shannon>,
         divergence_slope<T, distill::forward_kl>, divergence_slope<T, distill::reverse_kl>, divergence_slope<T, distill::jensen_shannon>,
         scaled_where_listed<T>, log_of_rest, share_of_rest, add_share_of_rest>(x, y);
}
template void launch_all(device_view<const float, 2>, device_view<float, 1>);
template void launch_all(device_view<const double, 2>, device_view<double, 1>);

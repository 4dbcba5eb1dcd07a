// Every objective compiles with the least backend there is; a backend that lacks one operation lacks that one only.
#include <plumb/plumb.hpp>
#include <plumb/testing/archetypes.hpp>

using plumb::testing::minimal_backend;

static_assert(plumb::compute_backend<minimal_backend<>>);
static_assert(plumb::check_backend<minimal_backend<float, plumb::f16>>());
static_assert(plumb::check_backend<minimal_backend<double, float>>());
static_assert(!plumb::compute_backend<int>);
static_assert(plumb::require_determinism<minimal_backend<>, plumb::determinism::none>());

namespace {

template <class B>
constexpr unsigned provided() {
  const bool has[] = {plumb::provides_fill<B>,           plumb::provides_copy<B>,
                      plumb::provides_transform<B>,      plumb::provides_transform2<B>,
                      plumb::provides_reduce<B>,         plumb::provides_segment_reduce<B>,
                      plumb::provides_segment_broadcast<B>, plumb::provides_segment_scan<B>,
                      plumb::provides_row_log_sum_exp<B>, plumb::provides_row_pick<B>,
                      plumb::provides_row_add_at<B>,     plumb::provides_row_gather<B>,
                      plumb::provides_row_scatter_add<B>, plumb::provides_row_softmax<B>,
                      plumb::provides_row_softmax_grad<B>, plumb::provides_gemm<B>,
                      plumb::provides_gemm_workspace<B>, plumb::provides_sync<B>};
  unsigned bits = 0;
  for (unsigned i = 0; i < sizeof has / sizeof has[0]; ++i) bits |= unsigned{has[i]} << i;
  return bits;
}
constexpr unsigned all = (1u << 18) - 1;
static_assert(provided<minimal_backend<>>() == all);

#define WITHOUT(index, operation)                          \
  struct without_##operation : minimal_backend<> {         \
   private:                                                \
    using minimal_backend<>::operation;                    \
  };                                                       \
  static_assert(provided<without_##operation>() == (all & ~(1u << index)))
WITHOUT(0, fill);
WITHOUT(1, copy);
WITHOUT(2, transform);
WITHOUT(3, transform2);
WITHOUT(4, reduce);
WITHOUT(5, segment_reduce);
WITHOUT(6, segment_broadcast);
WITHOUT(7, segment_scan);
WITHOUT(8, row_log_sum_exp);
WITHOUT(9, row_pick);
WITHOUT(10, row_add_at);
WITHOUT(11, row_gather);
WITHOUT(12, row_scatter_add);
WITHOUT(13, row_softmax);
WITHOUT(14, row_softmax_grad);
WITHOUT(15, gemm);
WITHOUT(16, gemm_workspace);
WITHOUT(17, sync);
#undef WITHOUT

}  // namespace

// Never called: that it compiles is the test.
template <class B, class S>
void every_objective(B& b, plumb::arena_of<B>& scratch) {
  using real = plumb::real_of<B>;
  using space = plumb::space_of<B>;
  plumb::token_logp_inputs<S, space> tokens;
  plumb::token_logp(b, scratch, tokens, {}, {});
  plumb::token_logp_backward(b, scratch, tokens, {}, {}, {});
  plumb::linear_token_logp_inputs<S, space> linear;
  plumb::linear_token_logp(b, scratch, linear, {}, {});
  plumb::linear_token_logp_backward(b, scratch, linear, {}, {}, {});
  plumb::bradley_terry(b, scratch, plumb::bradley_terry_inputs<real, space>{}, {}, {});
  plumb::attribute_regression(b, scratch, plumb::attribute_regression_inputs<real, space>{}, {}, {});
  plumb::goal_reward(b, scratch, {}, {}, {}, {});
  plumb::supervised(b, scratch, plumb::supervised_inputs<real, space>{}, {}, {});
  plumb::dpo(b, scratch, plumb::dpo_inputs<real, space>{}, {}, {});
  plumb::dpo_pairs(b, scratch, plumb::dpo_pairs_inputs<real, space>{}, {}, {});

  plumb::preference(b, scratch, {}, plumb::link::sigmoid{}, {}, {});
  plumb::preference(b, scratch, {}, plumb::link::nca_pair{}, plumb::divergence::alpha{}, {}, {});
  plumb::preference_sums(b, scratch, {}, plumb::link::sppo{}, {}, {});
  plumb::preference_sums(b, scratch, {}, plumb::link::rpo_squared{}, plumb::divergence::js{}, {}, {});
  plumb::ld_dpo_weights(b, scratch, {}, {}, {});
  plumb::wpo_weights(b, scratch, {}, {});
  plumb::sync_reference(b, plumb::const_real_view<B, 2>{}, {}, plumb::real_view<B, 2>{});
  plumb::cpo(b, scratch, {}, {}, {});
  plumb::cpo<plumb::link::hinge>(b, scratch, {}, {}, {});
  plumb::orpo(b, scratch, {}, {}, {});
  plumb::simpo(b, scratch, {}, {}, {});
  plumb::tpo(b, scratch, {}, {}, {});
  plumb::xpo(b, scratch, {}, {}, {});
  plumb::kto_kl(b, scratch, {}, {}, {});
  plumb::kto_kl_replies(b, scratch, {}, {}, {});
  plumb::kto_kl_of_sums(b, {}, {}, {});
  plumb::kto(b, scratch, {}, {}, {});
  plumb::kto_replies(b, scratch, {}, {}, {});
  plumb::bco_moments(b, scratch, {}, {}, {});
  plumb::bco_moments_replies(b, scratch, {}, {}, 1, {});
  plumb::bco(b, scratch, {}, {}, {});
  plumb::bco_replies(b, scratch, {}, {}, {});
  plumb::nash_md(b, scratch, {}, {}, {});

  plumb::policy_loss(b, scratch, {}, plumb::surrogate::clip{}, {}, {});
  plumb::policy_loss(b, scratch, {}, plumb::surrogate::cispo{}, {}, {});
  plumb::policy_loss(b, scratch, {}, plumb::surrogate::gmpo{}, {}, {});
  plumb::policy_loss(b, scratch, {}, plumb::surrogate::vespo{}, {}, {});
  plumb::value_loss(b, scratch, {}, {}, {});
  plumb::aggregate(b, scratch, {}, {}, {});
  plumb::token_statistics(b, scratch, {}, {});
  plumb::token_kl(b, scratch, {}, {}, {});
  plumb::kl_penalty(b, scratch, {}, {}, {});
  plumb::exact_kl(b, scratch, {}, {});
  plumb::token_rewards(b, scratch, {}, {}, {});
  plumb::gae(b, scratch, {}, {}, {});
  plumb::gae_backward(b, scratch, {}, {}, {});
  plumb::discounted_returns(b, scratch, {}, {}, {});
  plumb::lambda_returns(b, scratch, {}, {}, {});
  plumb::n_step_returns(b, scratch, {}, {}, {});
  plumb::vtrace(b, scratch, {}, {}, {});
  plumb::moments(b, scratch, {}, {}, {});
  plumb::update_moments(b, scratch, {}, {});
  plumb::merge_moments(b, scratch, {}, {});
  plumb::whiten(b, scratch, {}, {}, {});
  plumb::top_tokens(b, scratch, {}, {}, {});
  plumb::covariance_selection(b, scratch, {}, {}, {});
  plumb::importance_weights(b, scratch, {}, plumb::correction::truncated{}, {}, {});
  plumb::reject_tokens(b, scratch, {}, plumb::rejection::k1{}, {}, {});
  plumb::ratio_statistics(b, scratch, {}, {}, {});

  plumb::group_advantage(b, scratch, {}, plumb::advantage::grpo{}, {});
  plumb::group_advantage(b, scratch, {}, plumb::advantage::batch_normalized{}, {});
  plumb::gpg_advantage(b, scratch, {}, {}, {});
  plumb::opo_advantage(b, scratch, {}, {}, {});
  plumb::passk_advantage(b, scratch, {}, {}, {});
  plumb::varied_groups(b, scratch, {}, {}, {});
  plumb::optimal_token_baseline(b, scratch, {}, 1, {}, {});
  plumb::reinforce_plus_plus(b, scratch, {}, {}, {});
  plumb::reinforce_plus_plus_baseline(b, scratch, {}, {}, {});
  plumb::remax(b, scratch, {}, {});
  plumb::shape_rewards(b, scratch, {}, plumb::shaping::overlong{}, {});
  plumb::reply_lengths(b, scratch, {}, 1, {});
  plumb::sum_rewards(b, scratch, {}, {});
  plumb::gdpo(b, scratch, {}, {}, {}, {});

  plumb::reward_head(b, scratch, plumb::reward_head_inputs<S, real, space>{}, {}, {});
  plumb::reward_head_backward(b, scratch, plumb::reward_head_inputs<S, real, space>{}, {}, {}, {});
  plumb::rated_bradley_terry(b, scratch, {}, {}, {});
  plumb::process_reward(b, scratch, {}, {}, {});
  plumb::round_ratings(b, {}, {}, {});
  plumb::standardize_rewards(b, {}, {}, {}, {});
  plumb::attribute_posterior(b, scratch, {}, {}, {});
  plumb::segment_log_softmax(b, scratch, {}, {});
  plumb::steerlm2_weights(b, scratch, {}, {});
  plumb::steerlm2(b, scratch, {}, {}, {});
  plumb::steerlm2_replies(b, scratch, {}, {}, {});
  plumb::extrapolate_weights(b, plumb::view<const S, 1, space>{}, {}, {}, {});
  plumb::log_sum_squares(b, scratch, plumb::view<const S, 2, space>{}, {}, {});
  plumb::log_sum_squares_backward(b, plumb::view<const S, 2, space>{}, {}, {}, {});
  plumb::distillation(b, scratch, plumb::distillation_inputs<real, S, S, space>{}, plumb::distill::jensen_shannon{}, {}, {});
  plumb::distillation(b, scratch, plumb::distillation_inputs<real, S, real, space>{}, plumb::distill::forward_kl{}, {}, {});
}
template void every_objective<minimal_backend<>, float>(minimal_backend<>&, plumb::arena<plumb::testing::archetype_space>&);
template void every_objective<minimal_backend<>, plumb::bf16>(minimal_backend<>&, plumb::arena<plumb::testing::archetype_space>&);
template void every_objective<minimal_backend<double, float>, double>(minimal_backend<double, float>&,
                                                                      plumb::arena<plumb::testing::archetype_space>&);

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
}
template void every_objective<minimal_backend<>, float>(minimal_backend<>&, plumb::arena<plumb::testing::archetype_space>&);
template void every_objective<minimal_backend<>, plumb::bf16>(minimal_backend<>&, plumb::arena<plumb::testing::archetype_space>&);
template void every_objective<minimal_backend<double, float>, double>(minimal_backend<double, float>&,
                                                                      plumb::arena<plumb::testing::archetype_space>&);

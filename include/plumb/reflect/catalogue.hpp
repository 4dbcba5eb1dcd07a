#pragma once
// Every option type of the library and its names; included by reflect.hpp.

#include <plumb/reflect.hpp>

/// Makes an aggregate of options known to `plumb::reflect`: its name without `plumb::`, then its members in order.
#define PLUMB_OPTIONS(type, ...)                         \
  BOOST_HANA_ADAPT_STRUCT(plumb::type, ##__VA_ARGS__);   \
  template <>                                            \
  inline constexpr const char* plumb::reflect::name_of<plumb::type> = #type

PLUMB_NAMESPACE_BEGIN
namespace reflect {

template <>
struct enumerators<aggregation> {
  static constexpr enumerator<aggregation> all[] = {
      {aggregation::token_mean, "token_mean"}, {aggregation::sequence_mean, "sequence_mean"}, {aggregation::sequence_sum, "sequence_sum"}};
};

}  // namespace reflect
PLUMB_NAMESPACE_END

PLUMB_OPTIONS(token_logp_options, temperature, softcap, logit_scale);
PLUMB_OPTIONS(linear_token_logp_options, logits, chunk_rows);
PLUMB_OPTIONS(bradley_terry_options, center_coefficient, denominator);
PLUMB_OPTIONS(attribute_regression_options, missing, denominator);
PLUMB_OPTIONS(goal_reward_options, mean, standard_deviation);
PLUMB_OPTIONS(aggregate_options, mode, denominator, length_epsilon, weight);
PLUMB_OPTIONS(supervised_options, aggregate, denominator, length_epsilon, weight);
PLUMB_OPTIONS(dpo_options, beta, label_smoothing, reference_free, denominator);

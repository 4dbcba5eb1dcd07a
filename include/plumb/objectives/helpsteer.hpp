#pragma once
// What goes with attribute reward models of the SteerLM family: layouts of attributes, ratings from predictions, standardised rewards. Ratings as text:
// attribute_prompt.hpp.

#include <plumb/compute/backend.hpp>
#include <plumb/math/helpsteer.hpp>
#include <plumb/ops/running_moments.hpp>

#include <string_view>

PLUMB_NAMESPACE_BEGIN

namespace helpsteer {

/// HelpSteer2's attributes in the order of its files (arXiv:2406.08673); ratings are 0 .. 4.
inline constexpr const char* five[5] = {"helpfulness", "correctness", "coherence", "complexity", "verbosity"};
/// The nine outputs of NeMo-Aligner's reward models: four of Open Assistant, then HelpSteer's five. HelpSteer2 leaves the first four unrated.
inline constexpr const char* nine[9] = {"quality",     "toxicity",  "humor",      "creativity", "helpfulness",
                                        "correctness", "coherence", "complexity", "verbosity"};
/// Where HelpSteer's five stand among the nine: helpfulness is output 4.
inline constexpr index_t first_of_five = 4;

/// What SteerLM models are asked for: the nine of HelpSteer, the five of HelpSteer2 (arXiv:2406.08673, section 4.5).
inline constexpr double request_nine[9] = {4, 0, 0, 0, 4, 4, 4, 4, 4};
inline constexpr double request_five[5] = {4, 4, 4, 2, 2};

/// Place of an attribute in a layout; -1 for a name that is none.
template <std::size_t K>
constexpr index_t attribute_index(const char* const (&layout)[K], std::string_view name) {
  for (std::size_t k = 0; k < K; ++k)
    if (name == layout[k]) return static_cast<index_t>(k);
  return -1;
}

/// HelpSteer's five columns of nine `[N, 9]`, without a copy: for goal weights over five, or a loss on them alone.
template <class T, class Space>
view<T, 2, Space> five_of_nine(const view<T, 2, Space>& x) {
  require_extent("helpsteer::five_of_nine", "x", x, 1, 9, "the nine attributes");
  return x.narrow(1, first_of_five, 5);
}

}  // namespace helpsteer

/// Options of `round_ratings`.
struct round_ratings_options {
  std::int64_t top = 4;  ///< ratings are 0 .. top

  void require(const char* op) const { require_option(op, "top", static_cast<double>(top), top >= 1 && top <= 1000, "from 1 to 1000"); }
};

/// `rating = ` the nearest whole number to `prediction` `[N, K]` in 0 .. top, halves to the even one: labels for SteerLM's attribute-conditioned
/// training (arXiv:2310.05344), as NeMo-Aligner's annotation makes them. `rating` may be `prediction` itself. NaN stays NaN.
template <class B>
  requires has_backend_types<B>
void round_ratings(B& b, std::type_identity_t<const_real_view<B, 2>> prediction, const round_ratings_options& options,
                   std::type_identity_t<real_view<B, 2>> rating) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "round_ratings";
  const argument output("rating", rating), from("prediction", prediction);
  require_arguments(op, {output}, {});
  require_arguments(op, {}, {from});
  if (!output.same_as(from)) require_disjoint(op, output, from);
  require_given(op, "prediction", prediction, rating.given());
  require_given(op, "rating", rating, prediction.given());
  require_same_shape(op, "rating", rating, "prediction", prediction);
  options.require(op);
  b.transform(math::round_rating<real>{static_cast<real>(static_cast<double>(options.top))}, rating, prediction);
}

/// Options of `standardize_rewards`.
struct standardize_rewards_options {
  double epsilon = 0;  ///< added to the standard deviation

  void require(const char* op) const { require_option(op, "epsilon", epsilon, epsilon >= 0, "0 or positive"); }
};

/// `out = (reward - mean) / (standard deviation + epsilon)` by the moments `state` `[3]` of `update_moments` (Bessel-corrected), without a
/// look from the host: rewards for RL on the scale of those of a data set (arXiv:2406.08673, section 4.3). NaN while the state knows fewer than
/// two numbers. `out` may be `reward` itself.
template <class B>
  requires has_backend_types<B>
void standardize_rewards(B& b, std::type_identity_t<const_real_view<B>> reward, std::type_identity_t<const_real_view<B>> state,
                         const standardize_rewards_options& options, std::type_identity_t<real_view<B>> out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "standardize_rewards";
  const argument output("out", out), from("reward", reward);
  require_arguments(op, {output}, {{"state", state}});
  require_arguments(op, {}, {from});
  if (!output.same_as(from)) require_disjoint(op, output, from);
  require_given(op, "reward", reward, out.given());
  require_given(op, "out", out, reward.given());
  require_same_shape(op, "out", out, "reward", reward);
  require_extent(op, "state", state, 0, moments_size, "count, mean, squared deviations");
  options.require(op);
  const index_t n = reward.extent(0);
  const auto entry = [&](moments_entry e) { return const_real_view<B>(state.slice(e, 1).data(), {n}, {0}); };
  b.transform(math::standardize_by_moments<real>{static_cast<real>(options.epsilon)}, out, reward, entry(moments_count), entry(moments_mean),
              entry(moments_squares));
}

/// Predictions in, ratings in the same order out, on the serial backend.
template <detail::host_range R>
std::vector<detail::value_of<R>> round_ratings(const R& prediction, const round_ratings_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(prediction);
  auto rating = detail::zeros<T>(x.extent(0));
  serial::backend<T> compute;
  round_ratings(compute, as_row(x), options, view<T, 2>(rating.data(), 1, x.extent(0)));
  return rating;
}

/// Rewards in, standardised ones out, by a state in host memory.
template <detail::host_range R>
std::vector<detail::value_of<R>> standardize_rewards(const R& reward, view<const detail::value_of<R>, 1> state,
                                                     const standardize_rewards_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(reward);
  auto out = detail::zeros<T>(x.extent(0));
  serial::backend<T> compute;
  standardize_rewards(compute, x, state, options, out);
  return out;
}

PLUMB_NAMESPACE_END

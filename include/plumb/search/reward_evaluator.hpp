#pragma once
// Any reward model as what judges in a search.

#include <plumb/model/concepts.hpp>
#include <plumb/model/language_model.hpp>

#include <algorithm>
#include <cmath>

PLUMB_NAMESPACE_BEGIN

/// What becomes of a reward.
namespace reward_scale {

/// Nothing: for re-ranking, where only the order counts. RAIN refuses scores outside [-1, 1].
struct none {
  void require(const char*) const {}
  double operator()(double reward) const { return reward; }
};
/// `tanh((r - mean) / deviation)`, in [-1, 1]: mean and deviation of rewards as they usually are.
struct tanh {
  double mean = 0, deviation = 1;

  void require(const char* op) const {
    require_option(op, "mean", mean, true, "a number");
    require_option(op, "deviation", deviation, deviation > 0, "positive");
  }
  double operator()(double reward) const { return std::tanh((reward - mean) / deviation); }
};
/// `2 sigmoid((r - mean) / deviation) - 1`, in [-1, 1]. With a Bradley-Terry model's reward and deviation 1: by how much likelier the text is
/// preferred to one of reward `mean` than not.
struct sigmoid {
  double mean = 0, deviation = 1;

  void require(const char* op) const { tanh{mean, deviation}.require(op); }
  double operator()(double reward) const { return std::tanh((reward - mean) / deviation / 2); }
};

}  // namespace reward_scale

namespace detail {
template <class R>
using real_of_reward = std::conditional_t<reward_model<R, double>, double, float>;
}  // namespace detail

/// Judges with a `reward_model`, all candidates in one call of it. A candidate that is finished counts as one whose end token was written; equal
/// prompts have equal numbers in the rollouts. The model stays the host's.
template <class R, class Real = detail::real_of_reward<R>, class Scale = reward_scale::none>
class reward_evaluator {
 public:
  explicit reward_evaluator(R& reward, const Scale& scale = {}) : reward_(&reward), scale_(scale) {
    static_assert(check_reward<R, Real>());
    scale_.require("reward_evaluator");
  }

  double operator()(const candidate& c) {
    double score = 0;
    score_many(std::span<const candidate>(&c, 1), std::span<double>(&score, 1));
    return score;
  }
  void score_many(std::span<const candidate> candidates, std::span<double> scores) {
    constexpr const char* op = "reward_evaluator";
    if (scores.size() != candidates.size())
      fail(message(op) << "there are " << candidates.size() << " candidates, but room for " << scores.size() << " scores.");
    if (candidates.empty()) return;
    const auto& given = reward_->reward(rollouts_of(candidates));
    const auto n = static_cast<std::size_t>(std::ranges::size(given));
    if (n != candidates.size()) fail(message(op) << "reward.reward gave " << n << " numbers, but there are " << candidates.size() << " candidates.");
    for (std::size_t i = 0; i < n; ++i)
      if (const Real r = *(std::ranges::data(given) + i); !std::isfinite(r))
        fail(message(op) << "reward.reward gave " << static_cast<double>(r) << " for candidate " << i << ".");
    for (std::size_t i = 0; i < n; ++i) scores[i] = scale_(static_cast<double>(*(std::ranges::data(given) + i)));
  }

 private:
  static rollouts<Real> rollouts_of(std::span<const candidate> candidates) {
    rollouts<Real> r;
    std::vector<std::size_t> firsts;  // a candidate of each prompt
    for (const candidate& c : candidates) {
      std::size_t which = 0;
      while (which < firsts.size() && !std::ranges::equal(candidates[firsts[which]].prompt, c.prompt)) ++which;
      if (which == firsts.size()) firsts.push_back(static_cast<std::size_t>(&c - candidates.data()));
      const start from{.tokens = {c.prompt.begin(), c.prompt.end()},
                       .prompt_tokens = static_cast<index_t>(c.prompt.size()),
                       .prompt = static_cast<std::int32_t>(which)};
      r.add(from, c.response, {}, c.finished && !c.response.empty());
    }
    return r;
  }

  R* reward_;
  Scale scale_;
};
template <class R>
reward_evaluator(R&) -> reward_evaluator<R>;
template <class R, class Scale>
reward_evaluator(R&, Scale) -> reward_evaluator<R, detail::real_of_reward<R>, Scale>;

PLUMB_NAMESPACE_END

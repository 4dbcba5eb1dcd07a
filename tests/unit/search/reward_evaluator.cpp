// Reward models as judges: what they are shown, what becomes of their numbers, what is refused.
#include "support/gradients.hpp"
#include "support/small_language_models.hpp"

#include <plumb/search/reward_evaluator.hpp>

#include <limits>

using namespace plumb;
using namespace plumb_test;

namespace {

// Remembers what it was shown; the reward is the sum of the reply's tokens, or what the test says.
template <class Real>
struct adding_reward {
  rollouts<Real> seen{};
  int calls = 0;
  std::vector<Real> says{};

  std::vector<Real> reward(const rollouts<Real>& r) {
    r.require("adding_reward");
    seen = r;
    ++calls;
    if (!says.empty()) return says;
    std::vector<Real> y;
    for (index_t s = 0; s < r.size(); ++s) {
      y.push_back(0);
      for (const std::int32_t t : r.reply_of(s)) y.back() += static_cast<Real>(t);
    }
    return y;
  }
};
// A span of its own memory.
struct float_reward {
  std::vector<float> memory{};
  std::span<const float> reward(const rollouts<float>& r) {
    memory.assign(static_cast<std::size_t>(r.size()), 0.5f);
    return memory;
  }
};

const token_list one{1, 2}, other{1, 3}, same{1, 2}, short_reply{4}, long_reply{5, -6, 9};
const std::vector<candidate> four{{one, short_reply, false}, {other, long_reply, true}, {same, {}, true}, {{}, long_reply, false}};

}  // namespace

static_assert(evaluator<reward_evaluator<float_reward>> && batched_evaluator<reward_evaluator<float_reward, float, reward_scale::tanh>>);
static_assert(!metered_evaluator<reward_evaluator<float_reward>>);

TEST_CASE("reward_evaluator: one call for all candidates, which are rollouts as a policy's") {
  adding_reward<double> reward;
  reward_evaluator judge(reward);
  CHECK(scores_of(judge, four) == std::vector<double>{4, 8, 0, 8});
  CHECK(reward.calls == 1);
  CHECK(reward.seen.prompt == token_list{0, 1, 0, 3 - 1});
  CHECK(reward.seen.ended == std::vector<std::uint8_t>{0, 1, 0, 0});  // a text without tokens has no end token
  CHECK(reward.seen.own_count(1) == 3);
  CHECK(reward.seen.prompt_count(1) == 2);
  CHECK(judge(four[1]) == 8);
  judge.score_many({}, {});
  CHECK(reward.calls == 2);

  float_reward small;
  CHECK(reward_evaluator(small)(four[0]) == 0.5);
}

TEST_CASE("reward_evaluator: scales") {
  adding_reward<double> reward;
  CHECK(reward_evaluator(reward, reward_scale::tanh{.mean = 2, .deviation = 4})(four[0]) == Catch::Approx(std::tanh(0.5)).epsilon(1e-15));
  CHECK(reward_evaluator(reward, reward_scale::sigmoid{.mean = 2, .deviation = 4})(four[0]) ==
        Catch::Approx(2 / (1 + std::exp(-0.5)) - 1).epsilon(1e-15));
  for (const double r : {-1e300, -3.0, 0.0, 7.0, 1e300}) {
    reward.says = {r};
    for (const double y : {reward_evaluator(reward, reward_scale::tanh{})(four[0]), reward_evaluator(reward, reward_scale::sigmoid{})(four[0])}) {
      CHECK((y >= -1 && y <= 1));
      CHECK((y < 0) == (r < 0));
    }
  }
}

TEST_CASE("reward_evaluator: what is refused, and scores are then as they were") {
  adding_reward<float> reward;
  reward_evaluator judge(reward);
  std::vector<double> y(4, -7);
  for (const auto& [bad, word] : {std::pair{std::numeric_limits<float>::quiet_NaN(), "nan"}, {std::numeric_limits<float>::infinity(), "inf"}}) {
    reward.says = {1, 2, bad, 3};
    CHECK(refusal([&] { judge.score_many(four, y); }) == std::string("plumb: reward_evaluator: reward.reward gave ") + word + " for candidate 2.");
  }
  reward.says = {1, 2};
  CHECK(refusal([&] { judge.score_many(four, y); }) == "plumb: reward_evaluator: reward.reward gave 2 numbers, but there are 4 candidates.");
  CHECK(y == std::vector<double>(4, -7));
  CHECK(refusal([&] { judge.score_many(four, std::span(y).first(3)); }) ==
        "plumb: reward_evaluator: there are 4 candidates, but room for 3 scores.");
  CHECK(refusal([&] { reward_evaluator(reward, reward_scale::tanh{.deviation = 0}); }) ==
        "plumb: reward_evaluator: option `deviation` is 0 but must be positive. Nothing was written.");
  CHECK(refusal([&] { reward_evaluator(reward, reward_scale::sigmoid{.mean = std::nan("")}); }) ==
        "plumb: reward_evaluator: option `mean` is nan but must be finite, and a number. Nothing was written.");
}

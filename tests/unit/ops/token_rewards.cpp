// Rewards per token: where the score lands, what is clipped, replies that did not end, adding to other rewards.
#include "support/gradients.hpp"

#include <plumb/ops/token_rewards.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

/// Four sequences of 14 tokens: with holes and room after, without scored tokens, full to its end, of one scored token.
const std::vector<std::int32_t> begin{0, 6, 8, 12}, end{6, 8, 12, 14};
const std::vector<std::uint8_t> mask{1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0};
const sequence_layout<> sequences{begin, end, mask};
const double not_a_number = std::nan("");
/// NaN where a token does not count.
const std::vector<double> kl{1, not_a_number, 2, 3, not_a_number, not_a_number, not_a_number, not_a_number, 4, 5, 6, 7, 8, not_a_number};
const std::vector<double> score{10, 20, 30, 40};
using numbers = std::vector<double>;

}  // namespace

TEST_CASE("token rewards: where the score lands") {
  CHECK(token_rewards(kl, score, sequences) == numbers{0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 30, 40, 0});
  CHECK(token_rewards(kl, score, sequences, {.placement = score_placement::after_last}) == numbers{0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 30, 0, 40});
  CHECK(token_rewards(kl, {}, sequences, {.kl_coefficient = 0.5}) == numbers{-0.5, 0, -1, -1.5, 0, 0, 0, 0, -2, -2.5, -3, -3.5, -4, 0});
  CHECK(token_rewards(kl, score, sequences, {.kl_coefficient = 0.5}) == numbers{-0.5, 0, -1, 8.5, 0, 0, 0, 0, -2, -2.5, -3, 26.5, 36, 0});
  // Sequences in another order, without a mask.
  const std::vector<std::int32_t> begin_2{3, 0}, end_2{5, 3};
  CHECK(token_rewards(numbers(5), numbers{1, 2}, {begin_2, end_2, {}}) == numbers{0, 0, 2, 0, 1});
  CHECK(token_rewards(numbers(5), numbers{1, 2}, {begin_2, end_2, {}}, {.placement = score_placement::after_last}) == numbers{0, 0, 2, 0, 1});
}

TEST_CASE("token rewards: a NaN score spoils its own token only") {
  const auto r = token_rewards(kl, numbers{not_a_number, not_a_number, 30, 40}, sequences, {.kl_coefficient = 1});
  CHECK(std::isnan(r[3]));
  for (std::size_t t = 0; t < 14; ++t)
    if (t != 3) CHECK(r[t] == (mask[t] ? -kl[t] + (t == 11 ? 30 : t == 12 ? 40 : 0) : 0));
}

TEST_CASE("token rewards: clipping, replies that did not end, adding") {
  const std::vector<std::uint8_t> ended{1, 1, 0, 0};
  desk<double> d;
  numbers rewards(14), scores(4);
  const auto run = [&](const token_rewards_options& o, write_mode mode) {
    token_rewards(d.compute, d.scratch, {.kl = kl, .score = score, .ended = ended, .sequences = sequences}, o,
                  {.rewards = rewards, .scores = scores, .mode = mode});
  };
  run({.score_min = 12, .score_max = 35}, write_mode::overwrite);
  CHECK(scores == numbers{12, 20, 30, 35});
  CHECK(rewards[12] == 35);
  run({.unfinished_offset = -5}, write_mode::overwrite);  // TRL: subtract
  CHECK(scores == numbers{10, 20, 25, 35});
  run({.unfinished_scale = 0, .unfinished_offset = -1}, write_mode::overwrite);  // DR-PO's code: replace
  CHECK(scores == numbers{10, 20, -1, -1});
  run({.unfinished_scale = 0.5, .score_max = 18}, write_mode::overwrite);  // OpenRLHF: scale, then clip
  CHECK(scores == numbers{10, 18, 15, 18});
  numbers before(14, 100);
  before[7] = not_a_number;
  rewards = before;
  run({.kl_coefficient = 1, .placement = score_placement::after_last}, write_mode::add);
  const numbers want{99, 100, 98, 97, 110, 100, 100, not_a_number, 96, 95, 94, 123, 92, 140};
  for (std::size_t t = 0; t < 14; ++t) CHECK((t == 7 ? std::isnan(rewards[t]) : rewards[t] == want[t]));
}

TEST_CASE("token rewards: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  numbers rewards(14, 5), short_score(3);
  const auto says = [&](const numbers& s, const token_rewards_options& o) {
    return refusal([&] { token_rewards(d.compute, d.scratch, {.kl = kl, .score = s, .sequences = sequences}, o, {.rewards = rewards}); });
  };
  CHECK(says(short_score, {}) ==
        "plumb: token_rewards: argument `score` has shape [3], but its dimension 0 must be 4 (the number of sequences). Nothing was written.");
  CHECK(says(score, {.kl_coefficient = -1}) == "plumb: token_rewards: option `kl_coefficient` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(says(score, {.score_min = 2, .score_max = 1}) ==
        "plumb: token_rewards: option `score_max` is 1 but must be `score_min` or more. Nothing was written.");
  CHECK(rewards == numbers(14, 5));
}

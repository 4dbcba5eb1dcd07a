// Weights of tokens and pairs, the moving reference: by hand, storage types, ranks, as vectors, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/preference_weights.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Six replies of 20 tokens.
const std::vector<std::int32_t> begin{0, 3, 7, 9, 14, 18}, end{3, 7, 9, 14, 18, 20}, chosen{0, 3}, rejected{1, 2};
const std::vector<std::uint8_t> scored{0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1};
const preference_pairs<> pairs{{begin, end, scored}, chosen, rejected};  // 2 scored tokens against 3, 4 against 2

}  // namespace

TEST_CASE("ld_dpo_weights: tokens beyond the shorter reply's length") {
  desk<double> on;
  std::vector<double> w(20);
  ld_dpo_weights(on.compute, on.scratch, pairs, {.alpha = 0.25}, view<double, 1>(w));
  CHECK(w == std::vector<double>{0, 1, 1, 1, 1, 0, 0.25, 1, 1, 1, 1, 0.25, 0.25, 0, 1, 1, 1, 1, 1, 1});
  CHECK(ld_dpo_weights<double>(pairs, 20, {.alpha = 0.25}) == w);
  CHECK(refusal([&] { ld_dpo_weights(on.compute, on.scratch, pairs, {.alpha = 2}, view<double, 1>(w)); }) ==
        "plumb: ld_dpo_weights: option `alpha` is 2 but must be in [0, 1]. Nothing was written.");
  CHECK(refusal([&] { ld_dpo_weights<double>(pairs, 19); }) ==
        "plumb: ld_dpo_weights: argument `scored` has shape [20], but its dimension 0 must be 19 (the number of tokens). Nothing was written.");
  const std::vector<std::int32_t> beyond{1, 6};
  CHECK(refusal([&] { ld_dpo_weights<double>({pairs.sequences, chosen, beyond}, 20); }) ==
        "plumb: ld_dpo_weights: `pairs.rejected[1]` is 6, but there are 6 to choose from. Nothing was written.");
}

TEST_CASE("wpo_weights: how likely the policy is to say the two replies") {
  desk<double> on;
  std::vector<double> v(2), wrong(20);
  auto logp = normal_numbers(1, 20, 1, -2), squares = normal_numbers(4, 20, 0.1, -0.5);
  logp[0] = squares[5] = std::nan("");  // not scored
  wpo_weights(on.compute, on.scratch, {.logp = logp, .log_sum_squares = squares, .pairs = pairs}, view<double, 1>(v));
  const double first = (logp[1] - squares[1] + logp[2] - squares[2]) / 2, second = (logp[3] - squares[3] + logp[4] - squares[4] + logp[6] - squares[6]) / 3;
  CHECK(v[0] == Catch::Approx(std::exp(first) * std::exp(second)).epsilon(1e-13));
  CHECK(wpo_weights(logp, pairs, squares) == v);
  wpo_weights(on.compute, on.scratch, {.logp = logp, .pairs = pairs}, view<double, 1>(v));
  CHECK(wpo_weights(logp, pairs) == v);
  CHECK(refusal([&] { wpo_weights(on.compute, on.scratch, {.logp = logp, .pairs = pairs}, view<double, 1>(wrong)); }) ==
        "plumb: wpo_weights: argument `weight` has shape [20], but its dimension 0 must be 2 (the number of pairs). Nothing was written.");
  CHECK(refusal([&] { wpo_weights(logp, pairs, v); }) ==
        "plumb: wpo_weights: argument `log_sum_squares` has 2 elements, but `logp` has 20. Nothing was written.");
}

TEST_CASE("sync_reference: the moving reference, of any rank, in any storage") {
  desk<float> on;
  std::vector<float> policy{1, 2, 3, 4}, reference{3, 2, 0, 8};
  const std::vector<float> before = reference, want{2.5f, 2, 0.75f, 7};
  sync_reference(on.compute, view<const float, 1>(policy), {.share = 0.25}, view<float, 1>(reference));
  CHECK(reference == want);
  reference = before;
  sync_reference(policy, reference, {.share = 0.25});
  CHECK(reference == want);
  reference = before;
  sync_reference(on.compute, view<const float, 2>(policy.data(), 2, 2).transposed(), {.share = 0.25}, view<float, 2>(reference.data(), 2, 2).transposed());
  CHECK(reference == want);
  sync_reference(policy, reference, {.share = 1});
  CHECK(reference == policy);
  // Both in 16 bits; and a policy in 16 bits beside a reference in float, which follows by steps that 16 bits would lose.
  std::vector<bf16> narrow, narrow_reference;
  for (const float x : policy) narrow.push_back(convert<bf16>(x));
  for (const float x : before) narrow_reference.push_back(convert<bf16>(x));
  sync_reference(on.compute, view<const bf16, 1>(narrow), {.share = 0.25}, view<bf16, 1>(narrow_reference));
  for (std::size_t i = 0; i < 4; ++i) CHECK(convert<float>(narrow_reference[i]) == want[i]);
  sync_reference(on.compute, view<const bf16, 1>(narrow), {.share = 1}, view<bf16, 1>(narrow_reference));
  for (std::size_t i = 0; i < 4; ++i) CHECK(convert<float>(narrow_reference[i]) == policy[i]);
  std::vector<bf16> still(4, convert<bf16>(1.0f));
  std::vector<float> moving(4, 1), last(4);
  const std::vector<bf16> away(4, convert<bf16>(1.125f));
  for (int step = 0; step < 100; ++step) {
    sync_reference(on.compute, view<const bf16, 1>(away), {.share = 0.01}, view<bf16, 1>(still));
    sync_reference(on.compute, view<const bf16, 1>(away), {.share = 0.01}, view<float, 1>(moving));
  }
  CHECK(convert<float>(still[0]) == 1);
  CHECK(moving[0] == Catch::Approx(1.125 - 0.125 * std::pow(0.99, 100)).epsilon(1e-5));
  sync_reference(on.compute, view<const bf16, 1>(away), {.share = 1}, view<float, 1>(last));
  CHECK(last == std::vector<float>(4, 1.125f));
  CHECK(refusal([&] { sync_reference(policy, reference, {.share = 0}); }) ==
        "plumb: sync_reference: option `share` is 0 but must be in (0, 1]. Nothing was written.");
  CHECK(refusal([&] { sync_reference(policy, view(reference).slice(0, 3)); }) ==
        "plumb: sync_reference: argument `reference` has 3 elements, but `policy` has 4. Nothing was written.");
  CHECK(refusal([&] { sync_reference(policy, policy); }) == "plumb: sync_reference: output `reference` overlaps `policy` in memory. Nothing was written.");
}

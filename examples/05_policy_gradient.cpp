// A policy gradient is an advantage, a surrogate and an aggregation. GRPO's advantages of four replies to two prompts, then three losses of them:
// DAPO spelled out, GSPO by another level of the same ratio, and what verl runs, by its own name. Arrays are the caller's; nothing is allocated.
#include <plumb/plumb.hpp>
#include <plumb/presets.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

int main() {
  plumb::serial::backend<float> compute;

  // Token log-probabilities of four packed replies, now and when they were sampled, and a reward for each.
  std::vector<std::int32_t> cu_seqlens{0, 3, 5, 9, 10};
  std::vector<float> logp{-0.9f, -1.2f, -0.3f, -2.0f, -0.8f, -0.5f, -0.4f, -1.6f, -0.2f, -3.0f};
  std::vector<float> old_logp{-1.3f, -1.2f, -0.5f, -1.8f, -0.9f, -0.5f, -0.6f, -1.1f, -0.2f, -3.1f};
  std::vector<float> rewards{1, 0, 0.2f, 0.8f};
  const auto replies = plumb::sequence_layout<>::packed(cu_seqlens);
  const auto prompts = plumb::equal_groups(2, 2);  // or group_by_prompt(ids), in any order

  std::vector<float> advantages(4), d_logp(10);
  float loss = 0;
  const auto tokens = static_cast<plumb::index_t>(logp.size());
  std::vector<unsigned char> memory(std::max(plumb::group_advantage_workspace(compute, prompts.layout(), 4),
                                             plumb::policy_loss_workspace(compute, replies, tokens)));
  plumb::arena scratch{memory};

  plumb::group_advantage(compute, scratch, {.rewards = rewards, .groups = prompts.layout()}, plumb::advantage::grpo{}, {.advantage = advantages});
  std::printf("advantages %.3f %.3f %.3f %.3f\n", advantages[0], advantages[1], advantages[2], advantages[3]);

  const plumb::policy_loss_inputs<float> in{.logp = logp, .old_logp = old_logp, .sequence_advantages = advantages, .sequences = replies};
  const plumb::policy_loss_outputs<float> out{.loss = loss, .d_logp = d_logp};
  const auto print = [&](const char* name) {
    std::printf("%-12s loss %7.4f  dL/dlogp %7.4f %7.4f %7.4f\n", name, loss, d_logp[0], d_logp[1], d_logp[2]);
  };
  // The first token's ratio is beyond 1 + high: it has no gradient.
  plumb::policy_loss(compute, scratch, in, plumb::surrogate::clip{.low = 0.2, .high = 0.28},
                     {.aggregate = plumb::aggregation::token_mean, .denominator = 10}, out);
  print("DAPO");
  plumb::policy_loss(compute, scratch, in, plumb::surrogate::clip{.low = 0.2, .high = 0.28},
                     {.level = plumb::surrogate_level::sequence_mean, .aggregate = plumb::aggregation::sequence_mean, .denominator = 4}, out);
  print("GSPO");
  plumb::policy_loss(compute, scratch, in, plumb::presets::verl().policy_loss("vanilla"), 10, out);
  print("verl vanilla");
}
// prints: advantages 0.707 -0.707 -0.707 0.707
// prints: DAPO         loss  0.0947  dL/dlogp  0.0000 -0.0707 -0.0864
// prints: GSPO         loss -0.0791  dL/dlogp -0.0720 -0.0720 -0.0720
// prints: verl vanilla loss  0.1018  dL/dlogp  0.0000 -0.0707  0.0000

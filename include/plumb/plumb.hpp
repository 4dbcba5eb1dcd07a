#pragma once
// plumb: the catalogue. One line each; no third party.

#include <plumb/version.hpp>
#include <plumb/config.hpp>

#include <plumb/core/arena.hpp>    // scratch memory of the caller's
#include <plumb/core/as_view.hpp>  // spans, mdspans, xtensors, DLPack tensors as views
#include <plumb/core/layout.hpp>   // sequences and pairs in flat arrays
#include <plumb/core/random.hpp>   // counter-based random numbers
#include <plumb/core/scored.hpp>   // scored tokens from a mask

#include <plumb/compute/backend.hpp>  // what a backend provides
#include <plumb/backends/serial.hpp>  // the default backend

#include <plumb/ops/token_logp.hpp>         // log-probs, log-sum-exp, entropy from logits, and back
#include <plumb/ops/linear_token_logp.hpp>  // the same from hidden states, logits never stored
#include <plumb/ops/log_sum_squares.hpp>    // sum of squared probabilities
#include <plumb/ops/reward_head.hpp>        // rewards and values from hidden states, and back

#include <plumb/ops/aggregate.hpp>        // numbers per token to one: token mean, sequence mean, sequence sum
#include <plumb/ops/statistics.hpp>       // mean, variance, extremes of scored tokens, as sums that merge
#include <plumb/ops/moments.hpp>          // count, mean, variance over all ranks
#include <plumb/ops/running_moments.hpp>  // mean and variance of all that came so far
#include <plumb/ops/whiten.hpp>           // whitening over all ranks
#include <plumb/ops/segment_softmax.hpp>  // softmax over the replies of a group
#include <plumb/ops/top_tokens.hpp>       // the scored tokens with the largest numbers

#include <plumb/ops/kl.hpp>             // KL to a reference: k1, k2, k3, straight-through, exact; as a loss
#include <plumb/ops/token_rewards.hpp>  // KL penalty and score as rewards per token
#include <plumb/ops/gae.hpp>            // generalised advantage estimation and its adjoint
#include <plumb/ops/returns.hpp>        // discounted, lambda and n-step returns, V-trace

#include <plumb/ops/prompt_groups.hpp>           // replies by prompt, from ids in any order
#include <plumb/ops/reward_shaping.hpp>          // overlong, truncated, clipped rewards
#include <plumb/ops/group_filter.hpp>            // groups that vary, replies that ended
#include <plumb/ops/several_rewards.hpp>         // weighted sums of rewards, GDPO
#include <plumb/ops/group_advantage.hpp>         // GRPO, Dr. GRPO, RLOO, batch-scaled advantages
#include <plumb/ops/gpg.hpp>                     // deviation times the share of valid replies
#include <plumb/ops/opo.hpp>                     // group mean weighted by length
#include <plumb/ops/optimal_token_baseline.hpp>  // a baseline for each position
#include <plumb/ops/passk.hpp>                   // pass@k: best less second best
#include <plumb/ops/reinforce_plus_plus.hpp>     // whitened returns, with or without group mean
#include <plumb/ops/remax.hpp>                   // the greedy reply as baseline
#include <plumb/ops/rollout_advantages.hpp>      // from what a rollout brought to advantages and returns, by any of these

#include <plumb/ops/importance.hpp>            // sampler against trainer: truncation, masking, rejection, off-policy statistics
#include <plumb/ops/covariance_selection.hpp>  // the tokens of KL-Cov and Clip-Cov

#include <plumb/ops/preference_weights.hpp>   // LD-DPO and WPO weights, TR-DPO reference
#include <plumb/ops/attribute_posterior.hpp>  // P(attributes | prompt, reply) from a regression model
#include <plumb/ops/expo.hpp>                 // extrapolation of weights
#include <plumb/ops/reward_bench.hpp>         // RewardBench's sections

#include <plumb/objectives/supervised.hpp>    // supervised fine-tuning with completion masks
#include <plumb/objectives/distillation.hpp>  // forward, reverse, Jensen-Shannon from a teacher's logits or top-k

#include <plumb/objectives/bradley_terry.hpp>         // reward models from pairs: plain, margin, scaled, centred
#include <plumb/objectives/attribute_regression.hpp>  // HelpSteer2 reward models, goal weights
#include <plumb/objectives/helpsteer.hpp>             // HelpSteer's attributes, presets, rounding, standardised rewards
#include <plumb/objectives/attribute_prompt.hpp>      // SteerLM's prompts: ratings as text, and back
#include <plumb/objectives/process_reward.hpp>        // rewards of steps
#include <plumb/objectives/steerlm2.hpp>              // SteerLM 2.0's listwise loss

#include <plumb/objectives/dpo.hpp>         // DPO, conservative DPO, reference-free
#include <plumb/objectives/preference.hpp>  // every link and divergence: IPO, hinge, EXO, NCA, SPPO, AOT, APO, DiscoPOP, RPO, f-DPO, ...
#include <plumb/objectives/cpo.hpp>         // CPO
#include <plumb/objectives/orpo.hpp>        // ORPO
#include <plumb/objectives/simpo.hpp>       // SimPO, AlphaPO
#include <plumb/objectives/tpo.hpp>         // TPO, TPO-L
#include <plumb/objectives/xpo.hpp>         // XPO
#include <plumb/objectives/bco.hpp>         // BCO
#include <plumb/objectives/kto.hpp>         // KTO, unpaired APO-zero
#include <plumb/objectives/nash_md.hpp>     // Nash-MD

#include <plumb/objectives/policy_loss.hpp>  // PPO, GRPO, DAPO, GSPO, CISPO, SAPO, VESPO, GMPO, REINFORCE, with KL and entropy
#include <plumb/objectives/value_loss.hpp>   // clipped value loss, explained variance

#include <plumb/model/concepts.hpp>  // policy, critic, reference, reward: what a loop asks of the host's models
#include <plumb/model/rollouts.hpp>  // texts that a policy wrote, and where it began
#include <plumb/model/sampling.hpp>  // writing from next-token logits

#include <plumb/algorithms/online_dpo.hpp>     // online and iterated preference optimisation
#include <plumb/algorithms/best_of_n.hpp>      // best of n, rejection sampling, distillation of either
#include <plumb/algorithms/ppo.hpp>            // PPO, GRPO, RLOO, REINFORCE++: a rollout to trained models
#include <plumb/algorithms/drpo.hpp>           // DR-PO: rollouts that begin inside the data
#include <plumb/algorithms/steerlm2.hpp>       // SteerLM 2.0: replies, weights, listwise updates, again
#include <plumb/algorithms/kl_controller.hpp>  // fixed and adaptive KL coefficient
#include <plumb/distributed/communicator.hpp>  // sums over ranks: what to write over NCCL or MPI

// A trainer with its own buffers: token log-probabilities in, dL/dlogp out; nothing is allocated, nothing is waited for.
#include <plumb/objectives/dpo.hpp>

#include <cstdint>
#include <cstdio>
#include <vector>

int main() {
  plumb::serial::backend<float> compute;

  // Four replies packed one after another, as a trainer with cu_seqlens holds them; prompts are not scored.
  std::vector<std::int32_t> cu_seqlens{0, 4, 7, 12, 15};
  std::vector<std::uint8_t> scored{0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1};
  std::vector<std::int32_t> chosen{0, 3}, rejected{1, 2};  // reply 0 is preferred to reply 1, reply 3 to reply 2
  plumb::preference_pairs<> pairs{plumb::sequence_layout<>::packed(cu_seqlens, scored), chosen, rejected};

  std::vector<float> policy_logp(15), reference_logp(15), d_logp(15);
  for (std::size_t t = 0; t < 15; ++t) {
    policy_logp[t] = t < 4 || t > 11 ? -1.0f : -1.3f;
    reference_logp[t] = -1.2f;
  }

  // All memory is yours: the arena is sized once, and every later step reuses it.
  std::vector<unsigned char> memory(plumb::dpo_workspace(compute, pairs, 15));
  plumb::arena scratch{memory};
  float loss = 0, metrics[6][2];
  const double pairs_in_global_batch = 2;  // the denominator is yours too: micro-batches and ranks add up exactly

  plumb::dpo(compute, scratch, {.logp = policy_logp, .ref_logp = reference_logp, .pairs = pairs},
             {.beta = 0.1, .denominator = pairs_in_global_batch},
             {.loss = loss, .d_logp = d_logp, .metrics = plumb::view(&metrics[0][0], 6, 2)});
  compute.sync();  // the serial backend has nothing to wait for; a GPU has

  std::printf("loss %.5f\n", loss);
  for (int k = 0; k < 2; ++k) std::printf("%s %.3f\n", plumb::dpo_metrics[k].name, metrics[k][0] / metrics[k][1]);
  std::printf("dL/dlogp");
  for (float g : d_logp) std::printf(" %.3f", g);
  std::printf("\n");
  // Next: my_model.backward(d_logp) - your autograd, or your own backward pass.
}
// prints: loss 0.66120
// prints: accuracy 1.000
// prints: margin 0.065
// prints: dL/dlogp 0.000 -0.024 -0.024 -0.024 0.000 0.024 0.024 0.000 0.000 0.024 0.024 0.024 0.000 0.000 -0.024

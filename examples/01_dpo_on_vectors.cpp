// The first minute: vectors in, loss and gradient out.
#include <plumb/objectives/dpo.hpp>

#include <cstdio>
#include <vector>

int main() {
  // Summed log-probabilities of two pairs of replies, under the policy and under the reference.
  std::vector<double> chosen{-12.1, -30.4}, rejected{-14.0, -29.9};
  std::vector<double> ref_chosen{-12.5, -31.0}, ref_rejected{-13.2, -30.1};

  auto dpo = plumb::dpo(chosen, rejected, ref_chosen, ref_rejected, {.beta = 0.1});
  std::printf("loss %.4f  accuracy %.2f  dL/dchosen[0] %.4f\n", dpo.loss, dpo.accuracy, dpo.d_chosen[0]);
}
// prints: loss 0.6541  accuracy 1.00  dL/dchosen[0] -0.0235

// From logits, as an engine without a backward pass for losses has them: row t predicts token t + 1, so tokens are one place behind
// rows. Two slices say so, forwards and back; the gradient overwrites the logits.
#include <plumb/plumb.hpp>

#include <cstdint>
#include <cstdio>
#include <vector>

int main() {
  plumb::serial::backend<float> compute;

  // Two packed sequences. Rows of logits are wider than the vocabulary, as engines pad them: a row stride, ld >= V.
  const int tokens = 7, vocabulary = 5, ld = 8;
  std::vector<std::int32_t> ids{1, 3, 0, 4, 2, 2, 1}, cu_seqlens{0, 4, 7};
  std::vector<std::uint8_t> completion{0, 0, 1, 1, 0, 1, 1};  // a sequence's first token has no row: it is never scored
  auto sequences = plumb::sequence_layout<>::packed(cu_seqlens, completion);
  std::vector<float> logits(tokens * ld);
  const plumb::random_stream noise{.seed = 1};
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(noise.normal(i));

  // logp[t] belongs to token t and comes from row t - 1.
  std::vector<float> logp(tokens), d_logp(tokens), log_sum_exp(tokens - 1);
  const plumb::view<float, 2> rows(logits.data(), {tokens - 1, vocabulary}, {ld, 1});
  const auto targets = plumb::view(ids).slice(1, tokens - 1);
  const plumb::token_logp_inputs<float> in{.logits = rows, .targets = targets};

  // One arena, as large as the largest of its users: each gives back all that it took.
  std::size_t bytes = 0;
  for (std::size_t n : {plumb::token_logp_workspace(compute, tokens - 1, vocabulary), plumb::supervised_workspace(compute, sequences),
                        plumb::token_logp_backward_workspace(compute, tokens - 1)})
    bytes = n > bytes ? n : bytes;
  std::vector<unsigned char> memory(bytes);
  plumb::arena scratch{memory};
  float loss = 0;

  plumb::token_logp(compute, scratch, in, {}, {.logp = plumb::view(logp).slice(1, tokens - 1), .log_sum_exp = log_sum_exp});
  plumb::supervised(compute, scratch, {.logp = logp, .sequences = sequences},
                    {.denominator = static_cast<double>(plumb::count_scored(sequences))}, {.loss = loss, .d_logp = d_logp});
  plumb::token_logp_backward(compute, scratch, in, {},
                             {.log_sum_exp = log_sum_exp, .d_logp = plumb::view<const float, 1>(d_logp).slice(1, tokens - 1)}, rows);
  compute.fill(plumb::view(logits.data() + (tokens - 1) * ld, vocabulary), 0.0f);  // the last row predicts nothing
  compute.sync();

  std::printf("loss %.4f\n", loss);
  for (int t = 0; t < 3; ++t) {
    std::printf("row %d:", t);
    for (int v = 0; v < vocabulary; ++v) std::printf(" %.3f", logits[static_cast<std::size_t>(t * ld + v)]);
    std::printf("\n");
  }
}
// prints: loss 1.6201
// prints: row 0: 0.000 0.000 0.000 0.000 0.000
// prints: row 1: -0.182 0.063 0.044 0.028 0.047
// prints: row 2: 0.037 0.046 0.019 0.096 -0.198

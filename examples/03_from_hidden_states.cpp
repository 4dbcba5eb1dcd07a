// From hidden states: the logits never exist. And one type to change: with -DUSE_ONEDNN the same program runs on oneDNN.
#include <plumb/plumb.hpp>

#if defined(USE_ONEDNN)
#include <plumb/backends/onednn.hpp>
#endif

#include <cstdint>
#include <cstdio>
#include <vector>

int main() {
#if defined(USE_ONEDNN)
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  plumb::onednn::backend compute{engine, stream};  // yours; plumb makes no engine of its own
#else
  plumb::serial::backend<float> compute;
#endif

  // Two sequences of token ids in one padded batch [2, 6]; only the completions are scored.
  const int tokens = 12, width = 8, vocabulary = 20;
  std::vector<std::int32_t> ids{3, 1, 4, 1, 5, 0, 9, 2, 6, 5, 3, 5}, begin{0, 6}, end{5, 12};
  std::vector<std::uint8_t> completion{0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  plumb::sequence_layout<> batch{begin, end, completion};

  // The scored tokens and the rows of hidden states that predict them: prompts and padding cost no logits.
  const auto count = static_cast<std::size_t>(plumb::count_scored(batch));
  std::vector<std::int32_t> rows(count), targets(count), first(2), last(2);
  plumb::scored_tokens(batch, ids, {.rows = rows, .targets = targets, .begin = first, .end = last});
  plumb::sequence_layout<> completions{.begin = first, .end = last};

  // Your model's last hidden states and output head; here, numbers.
  std::vector<float> hidden(tokens * width), head(vocabulary * width);
  const plumb::random_stream noise{.seed = 1};
  for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] = static_cast<float>(noise.normal(i));
  for (std::size_t i = 0; i < head.size(); ++i) head[i] = static_cast<float>(noise.normal(1000 + i)) / 4;

  plumb::linear_token_logp_inputs<float> in{.hidden = plumb::view(hidden.data(), tokens, width),
                                            .head = plumb::view(head.data(), vocabulary, width),
                                            .targets = targets,
                                            .rows = rows};
  std::vector<float> logp(count), log_sum_exp(count), d_logp(count), d_hidden(hidden.size()), d_head(head.size());
  std::vector<unsigned char> memory(plumb::linear_token_logp_workspace(compute, in) +
                                    plumb::linear_token_logp_backward_workspace(compute, in) +
                                    plumb::supervised_workspace(compute, completions));
  plumb::arena scratch{memory};
  float loss = 0;

  plumb::linear_token_logp(compute, scratch, in, {}, {.logp = logp, .log_sum_exp = log_sum_exp});
  plumb::supervised(compute, scratch, {.logp = logp, .sequences = completions},
                    {.denominator = static_cast<double>(count)}, {.loss = loss, .d_logp = d_logp});
  plumb::linear_token_logp_backward(compute, scratch, in, {}, {.log_sum_exp = log_sum_exp, .d_logp = d_logp},
                                    {.d_hidden = plumb::view(d_hidden.data(), tokens, width),
                                     .d_head = plumb::view(d_head.data(), vocabulary, width)});
  compute.sync();

  std::printf("%zu of %d tokens scored, loss %.4f\n", count, tokens, loss);
  std::printf("dL/dhidden of the row before the first scored token: %.4f %.4f ..., of an unscored row: %.4f %.4f ...\n",
              d_hidden[1 * width], d_hidden[1 * width + 1], d_hidden[0], d_hidden[1]);
}
// prints: 6 of 12 tokens scored, loss 3.2703
// prints: dL/dhidden of the row before the first scored token: -0.0512 -0.0135 ..., of an unscored row: 0.0000 0.0000 ...

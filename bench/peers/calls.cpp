// plumb behind C functions, so that a script can call it on another library's memory: torch_peers.py.

#include <plumb/backends/onednn.hpp>
#include <plumb/plumb.hpp>

#include <vector>

namespace {

struct desk {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  plumb::onednn::backend compute{engine, stream};
  std::vector<char> memory;

  plumb::arena<> scratch(std::size_t bytes) {
    if (memory.size() < bytes) memory.resize(bytes);
    return {memory.data(), memory.size()};
  }
};
desk& shared() {
  static desk d;
  return d;
}

}  // namespace

extern "C" {

/// Log-probabilities of `targets` `[n]` under `logits` `[n, v]`, and the gradient of minus their sum, which overwrites the logits where
/// `d_logits` is them.
void plumb_token_logp(const float* logits, const std::int32_t* targets, std::int64_t n, std::int64_t v, float* logp, float* log_sum_exp,
                      float* d_logp, float* d_logits) {
  auto scratch = shared().scratch(plumb::token_logp_workspace(shared().compute, n, v));
  const plumb::token_logp_inputs<float> in{{logits, n, v}, {targets, n}};
  plumb::token_logp(shared().compute, scratch, in, {}, {{logp, n}, {log_sum_exp, n}, {}});
  plumb::token_logp_backward(shared().compute, scratch, in, {}, {.log_sum_exp = {log_sum_exp, n}, .d_logp = {d_logp, n}}, {d_logits, n, v});
}

/// Log-probabilities from hidden states `[n, d]` and a head `[v, d]`, and the gradients of minus their sum.
void plumb_linear_token_logp(const float* hidden, const float* head, const std::int32_t* targets, std::int64_t n, std::int64_t d, std::int64_t v,
                             float* logp, float* log_sum_exp, float* d_logp, float* d_hidden, float* d_head) {
  const plumb::linear_token_logp_inputs<float> in{.hidden = {hidden, n, d}, .head = {head, v, d}, .targets = {targets, n}};
  auto& compute = shared().compute;
  auto scratch = shared().scratch(plumb::linear_token_logp_workspace(compute, in) + plumb::linear_token_logp_backward_workspace(compute, in));
  plumb::linear_token_logp(compute, scratch, in, {}, {.logp = {logp, n}, .log_sum_exp = {log_sum_exp, n}});
  plumb::linear_token_logp_backward(compute, scratch, in, {}, {.log_sum_exp = {log_sum_exp, n}, .d_logp = {d_logp, n}},
                                    {.d_hidden = {d_hidden, n, d}, .d_head = {d_head, v, d}});
}

/// DPO of `pairs` pairs of summed log-probabilities.
void plumb_dpo(const float* chosen, const float* rejected, const float* ref_chosen, const float* ref_rejected, std::int64_t pairs, float* loss,
               float* d_chosen, float* d_rejected) {
  auto scratch = shared().scratch(plumb::dpo_pairs_workspace(shared().compute, pairs));
  plumb::dpo_pairs(shared().compute, scratch, {{chosen, pairs}, {rejected, pairs}, {ref_chosen, pairs}, {ref_rejected, pairs}},
                   {.beta = 0.1, .denominator = static_cast<double>(pairs)},
                   {.loss = {loss, 1}, .d_chosen = {d_chosen, pairs}, .d_rejected = {d_rejected, pairs}});
}

/// Bradley-Terry of `pairs` pairs of rewards.
void plumb_bradley_terry(const float* chosen, const float* rejected, std::int64_t pairs, float* loss, float* d_chosen, float* d_rejected) {
  auto scratch = shared().scratch(plumb::bradley_terry_workspace(shared().compute, pairs));
  plumb::bradley_terry(shared().compute, scratch, {.chosen = {chosen, pairs}, .rejected = {rejected, pairs}},
                       {.denominator = static_cast<double>(pairs)},
                       {.loss = {loss, 1}, .d_chosen = {d_chosen, pairs}, .d_rejected = {d_rejected, pairs}});
}
}

// Log-probabilities from hidden states, forward and backward, beside the three bare products that nothing can do without.

#include "support/rows.hpp"

#include <plumb/ops/linear_token_logp.hpp>

namespace {

using namespace plumb_bench;
using plumb::index_t;

template <class Row, class S>
void run(benchmark::State& state, index_t n, index_t d, index_t v) {
  const auto size = [](index_t a, index_t b) { return static_cast<std::size_t>(a * b); };
  const auto hidden = random_values<S>(size(n, d)), head = random_values<S>(size(v, d), 0.02f);
  std::vector<std::int32_t> targets(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(v));
  std::vector<float> logp(targets.size()), lse(targets.size()), d_logp(targets.size(), -1.0f), d_head(size(v, d));
  std::vector<S> d_hidden(size(n, d));
  const plumb::linear_token_logp_inputs<S> in{.hidden = {hidden.data(), n, d}, .head = {head.data(), v, d}, .targets = targets};
  Row one;
  desk<Row> on(plumb::linear_token_logp_workspace(one.backend, in) + plumb::linear_token_logp_backward_workspace(one.backend, in));
  auto& compute = on.row.backend;
  for (auto _ : state) {
    plumb::linear_token_logp(compute, on.scratch, in, {}, {.logp = logp, .log_sum_exp = lse});
    plumb::linear_token_logp_backward(compute, on.scratch, in, {}, {.log_sum_exp = lse, .d_logp = d_logp},
                                      {.d_hidden = {d_hidden.data(), n, d}, .d_head = {d_head.data(), v, d}});
    benchmark::ClobberMemory();
  }
  // The same products on whole arrays: logits twice (the backward pass computes them again), then both gradients.
  std::vector<float> logits(size(n, v)), d_h(size(n, d));
  std::vector<S> g(size(n, v));
  const plumb::view<const S, 2> h = in.hidden, w = in.head, gradient(g.data(), n, v);
  const plumb::view<float, 2> z(logits.data(), n, v), dh(d_h.data(), n, d), dw(d_head.data(), v, d);
  std::size_t bytes = compute.gemm_workspace(h, w.transposed(), z);
  for (const std::size_t b : {compute.gemm_workspace(gradient, w, dh), compute.gemm_workspace(gradient.transposed(), h, dw)}) bytes = std::max(bytes, b);
  std::vector<char> memory(bytes + 64);
  plumb::arena<> scratch(memory);
  const double products = seconds([&] {
    compute.gemm(scratch, 1.0f, h, w.transposed(), 0.0f, z);
    compute.gemm(scratch, 1.0f, h, w.transposed(), 0.0f, z);
    compute.gemm(scratch, 1.0f, gradient, w, 0.0f, dh);
    compute.gemm(scratch, 1.0f, gradient.transposed(), h, 0.0f, dw);
    benchmark::ClobberMemory();
  });
  compare(state, "bare products", products);
  count(state, "tokens/s", static_cast<double>(n));
  state.counters["scratch MB"] = static_cast<double>(on.memory.size()) / 1e6;
  state.counters["logits MB"] = static_cast<double>(size(n, v)) * 4 / 1e6;
}

const int registered = add_rows("linear_token_logp/forward_backward/small", [](benchmark::State& s, auto row) {
  run<typename decltype(row)::type, float>(s, 128, 64, 1000);
});
#if __has_include(<plumb/backends/onednn.hpp>)
const int registered_onednn = [] {
  const auto add = [](const char* name, auto* function) {
    benchmark::RegisterBenchmark(name, function)->UseRealTime()->Unit(benchmark::kMillisecond)->Iterations(3);
  };
  add("linear_token_logp/forward_backward/512x512x32000/float/onednn", +[](benchmark::State& s) { run<onednn_row, float>(s, 512, 512, 32000); });
  add("linear_token_logp/forward_backward/512x512x32000/bf16/onednn", +[](benchmark::State& s) { run<onednn_row, plumb::bf16>(s, 512, 512, 32000); });
  return 0;
}();
#endif

}  // namespace

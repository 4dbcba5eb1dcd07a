// Log-probabilities of tokens from rows of logits: forward, with entropy, and forward + backward in place, beside bare reads and copies
// of the same bytes.

#include "support/backends.hpp"
#include "support/peer.hpp"

#include <plumb/ops/token_logp.hpp>

namespace {

using namespace plumb_bench;
using plumb::index_t;

enum class pass { forward, with_entropy, both };

template <class Row, class S>
void token_logp(benchmark::State& state, pass which, index_t n, index_t v) {
  Row row;
  using B = decltype(row.backend);
  using real = plumb::real_of<B>;
  const auto size = static_cast<std::size_t>(n * v);
  std::vector<S> logits = random_values<S>(size, 3.0f);
  std::vector<std::int32_t> targets(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(v));
  std::vector<real> logp(targets.size()), lse(targets.size()), entropy(targets.size()), d_logp(targets.size(), real(-1));
  std::vector<char> memory(plumb::token_logp_workspace(row.backend, n, v) + plumb::token_logp_backward_workspace(row.backend, n) + 64);
  plumb::arena<> scratch(memory);
  const plumb::view<S, 2> x(logits.data(), n, v);
  const plumb::token_logp_inputs<S> in{x, targets};
  const std::size_t bytes = size * sizeof(S);

  // The gradient overwrites the logits; writing them again is not measured, and small numbers are as good as large ones.
  const auto call = [&] {
    plumb::token_logp(row.backend, scratch, in, {}, {logp, lse, which == pass::with_entropy ? plumb::view<real, 1>(entropy) : plumb::view<real, 1>{}});
    if (which == pass::both)
      plumb::token_logp_backward(row.backend, scratch, in, {}, {.log_sum_exp = lse, .d_logp = d_logp}, x);
    benchmark::ClobberMemory();
  };
  for (auto _ : state) call();

  const double read = seconds([&] { bare_read(logits.data(), bytes); });
  if (which == pass::both) {
    std::vector<S> other(size);
    const double copy = seconds([&] { bare_copy(other.data(), logits.data(), bytes); });
    compare(state, "bare read + copy", read + copy);
  } else {
    compare(state, "bare read", read);
  }
  count(state, "bytes/s", static_cast<double>(bytes) * (which == pass::both ? 3 : 1));
}

const int registered = [] {
  for_each_backend([]<class Row>(std::type_identity<Row>) {
    const auto add = [&]<class S>(S, index_t n, index_t v) {
      for (const auto& [which, name] : {std::pair{pass::forward, "forward"}, {pass::with_entropy, "with_entropy"}, {pass::both, "forward_backward"}})
        benchmark::RegisterBenchmark(("token_logp/" + std::string(name) + "/" + std::to_string(n) + "x" + std::to_string(v) + "/" +
                                      plumb::dtype_name<S>() + "/" + Row::name())
                                         .c_str(),
                                     [which = which, n, v](benchmark::State& s) { token_logp<Row, S>(s, which, n, v); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond)
            ->MinTime(0.2);
    };
    if (Row::name() == "onednn") {
      add(float{}, 1024, 32000);
      add(plumb::bf16{}, 1024, 32000);
    } else {
      add(float{}, 64, 32000);
    }
    add(float{}, 1536, 200);
  });
  return 0;
}();

}  // namespace

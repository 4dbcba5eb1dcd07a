#pragma once
// What the benches of objectives share: a backend with scratch, and the registration of one row per backend.

#include "support/backends.hpp"
#include "support/peer.hpp"

#include <plumb/core/arena.hpp>

namespace plumb_bench {

/// A backend and scratch memory for a call that asks for `bytes`.
template <class Row>
struct desk {
  Row row;
  std::vector<char> memory;
  plumb::arena<> scratch;
  explicit desk(std::size_t bytes) : memory(bytes), scratch(memory) {}
};

/// Registers `run(state, std::type_identity<row>{})` as "name/backend" for each backend in float; the oracle, in double, is not made to be
/// fast.
template <class F>
int add_rows(const std::string& name, const F& run) {
  for_each_backend([&]<class Row>(std::type_identity<Row> row) {
    if constexpr (std::is_same_v<plumb::real_of<decltype(Row::backend)>, float>)
      benchmark::RegisterBenchmark((name + "/" + Row::name()).c_str(), [=](benchmark::State& s) { run(s, row); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond)
          ->MinTime(0.2);
  });
  return 0;
}

}  // namespace plumb_bench

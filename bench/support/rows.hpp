#pragma once
// What the benches of objectives share: a backend with scratch, and the registration of one row per backend.

#include "support/backends.hpp"
#include "support/peer.hpp"

#include <plumb/core/arena.hpp>
#include <plumb/core/layout.hpp>

namespace plumb_bench {

/// A backend and scratch memory for a call that asks for `bytes`.
template <class Row>
struct desk {
  Row row;
  std::vector<char> memory;
  plumb::arena<> scratch;
  explicit desk(std::size_t bytes) : memory(bytes), scratch(memory) {}
};

/// Packed replies of one length, of which the last three quarters are scored: the prompts are not.
struct packed_replies {
  std::vector<std::int32_t> cu_seqlens;
  std::vector<std::uint8_t> scored;
  double count = 0;  ///< of scored tokens

  packed_replies(std::size_t replies, std::size_t length) : scored(replies * length) {
    for (std::size_t s = 0; s <= replies; ++s) cu_seqlens.push_back(static_cast<std::int32_t>(s * length));
    for (std::size_t t = 0; t < scored.size(); ++t) count += scored[t] = t % length >= length / 4;
  }
  plumb::sequence_layout<> layout() const { return plumb::sequence_layout<>::packed(cu_seqlens, scored); }
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

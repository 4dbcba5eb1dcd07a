#pragma once
// What a row is compared with: a named peer, timed in the same run on the same memory, shown as a counter.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace plumb_bench {

/// Median seconds of a call, over at least seven calls and a twentieth of a second; the first is not counted.
template <class F>
double seconds(const F& f) {
  using clock = std::chrono::steady_clock;
  f();
  std::vector<double> all;
  for (double total = 0; all.size() < 7 || (total < 0.05 && all.size() < 10000); total += all.back()) {
    const auto start = clock::now();
    f();
    all.push_back(std::chrono::duration<double>(clock::now() - start).count());
  }
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), all.end());
  return all[all.size() / 2];
}

/// Shows how many times faster this row is than its peer (below 1: slower). Rows must use real time.
inline void compare(benchmark::State& state, const std::string& peer, double peer_seconds) {
  state.counters["x " + peer] = benchmark::Counter(peer_seconds, benchmark::Counter::kIsIterationInvariantRate);
}

inline void count(benchmark::State& state, const char* unit, double per_call) {
  state.counters[unit] = benchmark::Counter(per_call, benchmark::Counter::kIsIterationInvariantRate);
}

/// Reads every byte once, in as many threads as the backends use here.
inline std::uint64_t bare_read(const void* memory, std::size_t bytes) {
  const auto blocks = static_cast<std::int64_t>(bytes / 64);
  const char* p = static_cast<const char*>(memory);
  std::uint64_t sum = 0;
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) reduction(+ : sum)
#endif
  for (std::int64_t i = 0; i < blocks; ++i) {
    std::uint64_t word[8];
    std::memcpy(word, p + i * 64, 64);
    sum += (word[0] ^ word[1] ^ word[2] ^ word[3]) + (word[4] ^ word[5] ^ word[6] ^ word[7]);
  }
  benchmark::DoNotOptimize(sum);
  return sum;
}

inline void bare_copy(void* to, const void* from, std::size_t bytes) {
  constexpr std::int64_t piece = std::int64_t{1} << 20;
  const auto pieces = (static_cast<std::int64_t>(bytes) + piece - 1) / piece;
#if defined(_OPENMP)
#pragma omp parallel for schedule(static)
#endif
  for (std::int64_t i = 0; i < pieces; ++i) {
    const auto size = static_cast<std::size_t>(std::min(piece, static_cast<std::int64_t>(bytes) - i * piece));
    std::memcpy(static_cast<char*>(to) + i * piece, static_cast<const char*>(from) + i * piece, size);
  }
  benchmark::ClobberMemory();
}

}  // namespace plumb_bench

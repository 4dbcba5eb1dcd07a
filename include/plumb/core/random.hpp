#pragma once
// Counter-based random numbers: a number is a pure function of (seed, stream, counter), so any thread, rank or device
// can make the same one, in any order, and a run can be resumed anywhere.

#include <plumb/config.hpp>

#include <cmath>
#include <cstdint>

PLUMB_NAMESPACE_BEGIN

/// Four 32-bit words. Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
struct philox_words {
  std::uint32_t word[4];
};

/// Ten rounds: four random words from a counter and a key.
PLUMB_HD constexpr philox_words philox4x32(philox_words counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<std::uint32_t>(b),
                static_cast<std::uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<std::uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// A stream of numbers: `seed` names the run, `stream` the use (a layer, a sequence, a purpose), `counter` the number.
struct random_stream {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;

  PLUMB_HD constexpr std::uint64_t bits(std::uint64_t counter) const {
    const philox_words w = philox4x32(
        {{static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
          static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)}},
        static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
    return (std::uint64_t{w.word[1]} << 32) | w.word[0];
  }
  /// In [0, 1), a multiple of 2^-53.
  PLUMB_HD constexpr double uniform(std::uint64_t counter) const {
    return static_cast<double>(bits(counter) >> 11) * 0x1p-53;
  }
  /// Standard normal (Box and Muller 1958, cosine branch).
  PLUMB_HD double normal(std::uint64_t counter) const {
    const std::uint64_t b = bits(counter);
    const double u = (static_cast<double>(b >> 32) + 0.5) * 0x1p-32;
    const double v = static_cast<double>(b & 0xffffffffu) * 0x1p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  /// In 0 .. n, without bias worth speaking of for n below 2^32.
  PLUMB_HD constexpr std::uint64_t below(std::uint64_t n, std::uint64_t counter) const {
    return static_cast<std::uint64_t>(uniform(counter) * static_cast<double>(n));
  }
};

PLUMB_NAMESPACE_END

#pragma once
// What the benches of pairs and of labelled replies share: the replies, the row, and the loop that one would write beside it.

#include "support/rows.hpp"

#include <cmath>

namespace plumb_bench {

inline double softplus(double x) { return x < 0 ? std::log1p(std::exp(x)) : x + std::log1p(std::exp(-x)); }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// 128 packed replies of 1024 tokens; log-probabilities are negative.
struct batch {
  static constexpr std::size_t replies = 128, pairs = replies / 2, length = 1024, tokens = replies * length;

  std::vector<float> logp = log_probabilities(1), ref_logp = log_probabilities(0.9f), gradient = std::vector<float>(tokens),
                     rows = std::vector<float>(18);
  std::vector<std::int32_t> cu_seqlens, chosen, rejected, begin[2], end[2];
  std::vector<std::uint8_t> desirable;
  float loss = 0;

  batch() {
    for (std::size_t s = 0; s <= replies; ++s) cu_seqlens.push_back(static_cast<std::int32_t>(s * length));
    for (std::size_t s = 0; s < replies; ++s) {
      (s % 2 == 0 ? chosen : rejected).push_back(static_cast<std::int32_t>(s));
      begin[s % 2].push_back(cu_seqlens[s]);
      end[s % 2].push_back(cu_seqlens[s + 1]);
      desirable.push_back(s % 2 == 0);
    }
  }
  plumb::sequence_layout<> sequences() const { return plumb::sequence_layout<>::packed(cu_seqlens); }
  plumb::preference_pairs<> in_pairs() const { return {sequences(), chosen, rejected}; }
  /// The chosen replies (0) or the rejected ones (1).
  plumb::sequence_layout<> side(std::size_t s) const { return {begin[s], end[s], {}}; }
  plumb::view<float, 2> metrics(plumb::index_t k) { return {rows.data(), k, 2}; }

 private:
  static std::vector<float> log_probabilities(float scale) {
    auto x = random_values<float>(tokens, scale);
    for (float& e : x) e = -std::fabs(e) - 0.01f;
    return x;
  }
};

/// One row: `bytes(backend, batch)` of scratch, `call(backend, scratch, batch)`, beside `loop(batch)`.
template <class Row, class Bytes, class Call, class Loop>
void time_row(benchmark::State& state, const Bytes& bytes, const Call& call, const Loop& loop) {
  batch x;
  Row one;
  desk<Row> on(bytes(one.backend, x));
  for (auto _ : state) {
    call(on.row.backend, on.scratch, x);
    benchmark::ClobberMemory();
  }
  const double of_loop = seconds([&] {
    benchmark::DoNotOptimize(loop(x));
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", of_loop);
  count(state, "tokens/s", batch::tokens);
}

/// The loss of a pair, and its derivative by each token of the chosen and of the rejected reply.
struct pair_slopes {
  double loss, chosen, rejected;
};
/// The loop over pairs: `term(chosen, rejected)` of the sums of log-probabilities, or of log-ratios to the reference.
template <bool with_reference = false, class Term>
auto pair_loop(const Term& term) {
  return [=](batch& x) {
    double total = 0;
    for (std::size_t p = 0; p < batch::pairs; ++p) {
      double sum[2] = {};
      for (std::size_t side = 0; side < 2; ++side)
        for (std::size_t t = 0; t < batch::length; ++t) {
          const std::size_t at = (2 * p + side) * batch::length + t;
          sum[side] += with_reference ? static_cast<double>(x.logp[at]) - static_cast<double>(x.ref_logp[at]) : static_cast<double>(x.logp[at]);
        }
      const pair_slopes y = term(sum[0], sum[1]);
      total += y.loss;
      const auto chosen = static_cast<float>(y.chosen / batch::pairs), rejected = static_cast<float>(y.rejected / batch::pairs);
      for (std::size_t t = 0; t < batch::length; ++t) {
        x.gradient[2 * p * batch::length + t] = chosen;
        x.gradient[(2 * p + 1) * batch::length + t] = rejected;
      }
    }
    return total / batch::pairs;
  };
}

/// The loss of a reply, and its derivative by each of its tokens.
struct reply_slope {
  double loss, each;
};
/// The loop over labelled replies: `term(log_ratio, desirable)`.
template <class Term>
auto reply_loop(const Term& term) {
  return [=](batch& x) {
    double total = 0;
    for (std::size_t s = 0; s < batch::replies; ++s) {
      double ratio = 0;
      for (std::size_t t = s * batch::length; t < (s + 1) * batch::length; ++t)
        ratio += static_cast<double>(x.logp[t]) - static_cast<double>(x.ref_logp[t]);
      const reply_slope y = term(ratio, x.desirable[s] != 0);
      total += y.loss;
      const auto d = static_cast<float>(y.each / batch::replies);
      for (std::size_t t = s * batch::length; t < (s + 1) * batch::length; ++t) x.gradient[t] = d;
    }
    return total / batch::replies;
  };
}

}  // namespace plumb_bench

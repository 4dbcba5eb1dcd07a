// A paired loss that looks at more than the margin, under a divergence, of 64 pairs of 1024 tokens each side with token weights, and AOT's sorting of
// 1024 and of 65,536 pairs of sums, beside the loops that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/preference.hpp>

#include <algorithm>
#include <cmath>

namespace {

using namespace plumb_bench;

template <class Row>
void tokens(benchmark::State& state, std::type_identity<Row>) {
  constexpr std::size_t pairs = 64, length = 1024, tokens = 2 * pairs * length;
  const auto logp = random_values<float>(tokens), ref = random_values<float>(tokens, 0.9f), weight = random_values<float>(tokens, 0.1f);
  std::vector<std::int32_t> cu, chosen, rejected;
  for (std::size_t s = 0; s <= 2 * pairs; ++s) cu.push_back(static_cast<std::int32_t>(s * length));
  for (std::size_t p = 0; p < pairs; ++p) {
    chosen.push_back(static_cast<std::int32_t>(2 * p));
    rejected.push_back(static_cast<std::int32_t>(2 * p + 1));
  }
  std::vector<float> gradient(tokens);
  float loss = 0;
  const plumb::preference_pairs<> of{plumb::sequence_layout<>::packed(cu), chosen, rejected};
  Row one;
  desk<Row> on(plumb::preference_workspace(one.backend, of, plumb::index_t{tokens}));
  for (auto _ : state) {
    plumb::preference(on.row.backend, on.scratch, {.logp = logp, .ref_logp = ref, .pairs = of, .token_weight = weight}, plumb::link::nca_pair{},
                      plumb::divergence::js{}, {.denominator = pairs}, {.loss = loss, .d_logp = gradient});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    const auto softplus = [](double x) { return x < 0 ? std::log1p(std::exp(x)) : x + std::log1p(std::exp(-x)); };
    double total = 0;
    for (std::size_t p = 0; p < pairs; ++p)
      for (std::size_t side = 0; side < 2; ++side) {
        const std::size_t from = (2 * p + side) * length;
        double ratio = 0;
        for (std::size_t t = from; t < from + length; ++t)
          ratio += static_cast<double>(weight[t]) * (static_cast<double>(logp[t]) - static_cast<double>(ref[t]));
        const double reward = 0.1 * (std::log(2.0) - softplus(-ratio)), slope = 1 / (1 + std::exp(ratio)), s = 1 / (1 + std::exp(-reward));
        total += side == 0 ? softplus(-reward) + softplus(reward) / 2 : softplus(reward) / 2;
        const auto d = static_cast<float>(0.1 / pairs * slope * (side == 0 ? s / 2 - (1 - s) : s / 2));
        for (std::size_t t = from; t < from + length; ++t) gradient[t] = d * weight[t];
      }
    benchmark::DoNotOptimize(total);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "tokens/s", tokens);
}

template <class Row>
void ranked(benchmark::State& state, std::type_identity<Row>, std::size_t pairs) {
  const auto chosen = random_values<float>(pairs), rejected = random_values<float>(pairs, 0.9f);
  std::vector<float> d_chosen(pairs), d_rejected(pairs);
  float loss = 0;
  const plumb::preference_options options{
      .matching = plumb::pair_matching::ranked, .reference_free = true, .denominator = static_cast<double>(pairs)};
  Row one;
  desk<Row> on(plumb::preference_sums_workspace(one.backend, static_cast<plumb::index_t>(pairs), options));
  for (auto _ : state) {
    plumb::preference_sums(on.row.backend, on.scratch, {.chosen = chosen, .rejected = rejected}, plumb::link::sigmoid{}, options,
                           {.loss = loss, .d_chosen = d_chosen, .d_rejected = d_rejected});
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    std::vector<std::size_t> c(pairs), r(pairs);
    for (std::size_t p = 0; p < pairs; ++p) c[p] = r[p] = p;
    std::sort(c.begin(), c.end(), [&](std::size_t a, std::size_t b) { return chosen[a] < chosen[b]; });
    std::sort(r.begin(), r.end(), [&](std::size_t a, std::size_t b) { return rejected[a] < rejected[b]; });
    double total = 0;
    for (std::size_t k = 0; k < pairs; ++k) {
      const double z = 0.1 * (static_cast<double>(chosen[c[k]]) - static_cast<double>(rejected[r[k]]));
      total += z < 0 ? std::log1p(std::exp(z)) - z : std::log1p(std::exp(-z));
      d_chosen[c[k]] = static_cast<float>(-0.1 / (1 + std::exp(z)) / static_cast<double>(pairs));
      d_rejected[r[k]] = -d_chosen[c[k]];
    }
    benchmark::DoNotOptimize(total);
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "pairs/s", static_cast<double>(pairs));
}

const int registered = add_rows("preference/nca_pair, js, 64 pairs of 2x1024", [](benchmark::State& s, auto row) { tokens(s, row); }),
          sorted = add_rows("preference/AOT of 1024 pairs", [](benchmark::State& s, auto row) { ranked(s, row, 1024); }),
          many = add_rows("preference/AOT of 65536 pairs", [](benchmark::State& s, auto row) { ranked(s, row, 65536); });

}  // namespace

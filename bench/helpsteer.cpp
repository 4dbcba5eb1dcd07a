// Five ratings of 65536 replies rounded, and a reward of each standardised by running moments, beside the loop that one would write.

#include "support/rows.hpp"

#include <plumb/objectives/helpsteer.hpp>

#include <cmath>

namespace {

using namespace plumb_bench;
constexpr plumb::index_t replies = 65536, attributes = 5;
constexpr std::size_t cells = static_cast<std::size_t>(replies * attributes);

template <class Row>
void run(benchmark::State& state, std::type_identity<Row>) {
  const auto prediction = random_values<float>(cells, 2), reward = random_values<float>(static_cast<std::size_t>(replies));
  const std::vector<float> state_of{1000, 0.25f, 900};  // count, mean, squared deviations
  std::vector<float> rating(cells), standardised(reward.size());
  Row one;
  const plumb::view<const float, 2> p(prediction.data(), replies, attributes);
  for (auto _ : state) {
    plumb::round_ratings(one.backend, p, {}, plumb::view<float, 2>(rating.data(), replies, attributes));
    plumb::standardize_rewards(one.backend, reward, state_of, {}, standardised);
    benchmark::ClobberMemory();
  }
  const double loop = seconds([&] {
    for (std::size_t i = 0; i < cells; ++i) rating[i] = std::nearbyint(std::fmin(4.0f, std::fmax(0.0f, prediction[i])));
    const float mean = state_of[1], inverse = 1 / std::sqrt(state_of[2] / (state_of[0] - 1));
    for (std::size_t i = 0; i < reward.size(); ++i) standardised[i] = (reward[i] - mean) * inverse;
    benchmark::ClobberMemory();
  });
  compare(state, "plain loop", loop);
  count(state, "replies/s", static_cast<double>(replies));
}

const int registered = add_rows("helpsteer/65536x5", [](benchmark::State& s, auto row) { run(s, row); });

}  // namespace

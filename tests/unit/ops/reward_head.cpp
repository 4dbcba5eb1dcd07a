// Reward heads: three poolings by hand, gradients, padding on either side, rows without tokens, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/reward_head.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

constexpr index_t n = 9, d = 3, k = 2;
constexpr std::size_t hidden_size = n * d, head_size = k * d;

enum class pooling { last, mean, each };

/// Sequences of 9 states: padded on the left, padded on the right, without any token.
const std::vector<std::int32_t> begin{0, 4, 8}, end{4, 8, 9}, rows_of_some{5, 0, 5, -1};
const std::vector<std::uint8_t> mask{0, 0, 1, 1, 1, 1, 0, 0, 0};

/// hidden, head, bias in one vector; the loss is a weighted sum of all rewards and attributes.
template <class T>
struct result {
  T loss{};
  std::vector<T> gradient;
};
template <class T>
result<T> run(const std::vector<T>& x, pooling p, bool with_gradient = true, write_mode mode = write_mode::overwrite, std::int64_t chunk = 2) {
  desk<T> on;
  std::vector<std::int32_t> rows;
  sequence_layout<> sequences;
  if (p == pooling::last) {
    rows.resize(3);
    last_scored_rows({begin, end, mask}, n, rows);
  } else if (p == pooling::mean) {
    sequences = {begin, end, mask};
  } else {
    rows = rows_of_some;
  }
  const std::vector<T> merge{T(0.7), T(-1.2)};
  const reward_head_inputs<T, T> in{.hidden = {x.data(), n, d},
                                    .head = {x.data() + hidden_size, k, d},
                                    .bias = {x.data() + hidden_size + head_size, k},
                                    .rows = rows,
                                    .sequences = sequences,
                                    .attribute_weights = merge};
  const reward_head_options options{.mean = 0.3, .standard_deviation = 2, .chunk_rows = chunk};
  const std::size_t r = p == pooling::each ? 4 : 3;
  std::vector<T> reward(r), attributes(r * k), d_reward, d_attributes;
  for (std::size_t i = 0; i < r; ++i) d_reward.push_back(T(0.5 + static_cast<double>(i)));
  for (std::size_t i = 0; i < r * k; ++i) d_attributes.push_back(T(1.5 - static_cast<double>(i)));
  reward_head(on.compute, on.scratch, in, options, {reward, {attributes.data(), static_cast<index_t>(r), k}});
  result<T> out;
  for (std::size_t i = 0; i < r; ++i) out.loss += d_reward[i] * reward[i];
  for (std::size_t i = 0; i < r * k; ++i) out.loss += d_attributes[i] * attributes[i];
  out.gradient.assign(x.size(), T(mode == write_mode::add ? 10 : 0));
  if (with_gradient)
    reward_head_backward(on.compute, on.scratch, in, options, {d_reward, {d_attributes.data(), static_cast<index_t>(r), k}},
                         {.d_hidden = view<T, 2>(out.gradient.data(), n, d), .d_head = view<T, 2>(out.gradient.data() + hidden_size, k, d),
                          .d_bias = view<T, 1>(out.gradient.data() + hidden_size + head_size, k), .mode = mode});
  return out;
}
std::vector<double> all() { return normal_numbers(31, n * d + k * d + k); }

}  // namespace

TEST_CASE("reward_head: gradients by dual numbers and differences") {
  for (const pooling p : {pooling::last, pooling::mean, pooling::each})
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, p, false).loss; }, all(), run(all(), p).gradient);
}

TEST_CASE("reward_head: the last token, the mean, and each row by hand") {
  const std::vector<double> hidden{1, 10, 2, 20, 4, 40, 7, 70}, head{1, 0.1}, bias{5};
  const std::vector<std::int32_t> from{0, 2}, to{2, 4}, one_row{1};
  const std::vector<std::uint8_t> scored{1, 1, 1, 0};
  desk<double> on;
  reward_head_inputs<double, double> in{.hidden = {hidden.data(), 4, 2}, .head = {head.data(), 1, 2}, .bias = bias};
  std::vector<double> each(4), two(2), single(1);
  reward_head(on.compute, on.scratch, in, {}, {.reward = each});
  CHECK(each == std::vector<double>{7, 9, 13, 19});
  in.rows = one_row;
  reward_head(on.compute, on.scratch, in, {.mean = 1, .standard_deviation = 4}, {.reward = single});
  CHECK(single[0] == 2);
  in.rows = {};
  in.sequences = {from, to, scored};
  reward_head(on.compute, on.scratch, in, {}, {.reward = two});
  CHECK(two == std::vector<double>{8, 13});
}

TEST_CASE("reward_head: the last scored token, wherever the padding is") {
  std::vector<std::int32_t> rows(3);
  last_scored_rows({begin, end, mask}, n, rows);
  CHECK(rows == std::vector<std::int32_t>{3, 5, -1});
  last_scored_rows({begin, end, {}}, n, rows);
  CHECK(rows == std::vector<std::int32_t>{3, 7, 8});
}

TEST_CASE("reward_head: hidden states that do not count may hold NaN, and get 0") {
  for (const pooling p : {pooling::last, pooling::mean, pooling::each}) {
    auto x = all();
    const auto before = run(x, p);
    const std::vector<index_t> unread = p == pooling::each ? std::vector<index_t>{1, 2, 8} : std::vector<index_t>{0, 1, 6, 7, 8};
    for (const index_t t : unread)
      for (index_t c = 0; c < d; ++c) x[static_cast<std::size_t>(t * d + c)] = std::nan("");
    const auto after = run(x, p);
    CHECK(before.loss == after.loss);
    CHECK(before.gradient == after.gradient);
    for (const index_t t : unread) CHECK(after.gradient[static_cast<std::size_t>(t * d)] == 0);
    x[5 * d] = std::nan("");  // this one counts
    CHECK(std::isnan(run(x, p).loss));
  }
}

TEST_CASE("reward_head: chunks change nothing, write_mode::add adds") {
  for (const pooling p : {pooling::last, pooling::mean, pooling::each}) {
    const auto whole = run(all(), p, true, write_mode::overwrite, 0), parts = run(all(), p, true, write_mode::add, 1);
    for (std::size_t i = 0; i < whole.gradient.size(); ++i) CHECK(parts.gradient[i] == Catch::Approx(whole.gradient[i] + 10).epsilon(1e-13));
  }
}

TEST_CASE("reward_head: 16-bit hidden states give rewards and gradients near those in float") {
  desk<float> on;
  const auto x = normal_numbers(32, 5 * 4), w = normal_numbers(33, 4);
  std::vector<bf16> hidden, head;
  std::vector<float> wide_hidden, wide_head;
  for (const double e : x) hidden.push_back(convert<bf16>(e)), wide_hidden.push_back(convert<float>(hidden.back()));
  for (const double e : w) head.push_back(convert<bf16>(e)), wide_head.push_back(convert<float>(head.back()));
  const std::vector<float> d_reward{1, -2, 3, 0.5f, 2};
  std::vector<float> narrow(5), wide(5), d_narrow(4), d_wide(4);
  std::vector<bf16> d_hidden(20);
  const reward_head_inputs<bf16, float> in{.hidden = {hidden.data(), 5, 4}, .head = {head.data(), 1, 4}};
  const reward_head_inputs<float, float> as_float{.hidden = {wide_hidden.data(), 5, 4}, .head = {wide_head.data(), 1, 4}};
  reward_head(on.compute, on.scratch, in, {}, {.reward = narrow});
  reward_head(on.compute, on.scratch, as_float, {}, {.reward = wide});
  reward_head_backward(on.compute, on.scratch, in, {}, {.d_reward = d_reward},
                       {.d_hidden = view<bf16, 2>(d_hidden.data(), 5, 4), .d_head = view<float, 2>(d_narrow.data(), 1, 4)});
  reward_head_backward(on.compute, on.scratch, as_float, {}, {.d_reward = d_reward}, {.d_head = view<float, 2>(d_wide.data(), 1, 4)});
  for (std::size_t i = 0; i < 5; ++i) CHECK(narrow[i] == Catch::Approx(wide[i]).epsilon(1e-6));
  for (std::size_t i = 0; i < 4; ++i) CHECK(d_narrow[i] == Catch::Approx(d_wide[i]).epsilon(1e-2));
  CHECK(convert<float>(d_hidden[4]) == Catch::Approx(-2 * wide_head[0]).epsilon(1e-2));
}

TEST_CASE("reward_head: what is refused, in a sentence, with nothing written") {
  const std::vector<double> x(12, 1), weights(3);
  std::vector<double> reward(2, 5);
  desk<double> on;
  const auto with = [&](const reward_head_inputs<double, double>& in, const reward_head_options& o = {}) {
    return refusal([&] { reward_head(on.compute, on.scratch, in, o, {.reward = reward}); });
  };
  const view<const double, 2> hidden(x.data(), 2, 3), head(x.data(), 2, 3);
  CHECK(with({.hidden = hidden, .head = head}) ==
        "plumb: reward_head: argument `attribute_weights` is not given, but one reward is to come from 2 outputs. Nothing was written.");
  CHECK(with({.hidden = hidden, .head = head, .attribute_weights = weights}) ==
        "plumb: reward_head: argument `attribute_weights` has shape [3], but its dimension 0 must be 2 (rows of `head`). Nothing was written.");
  CHECK(with({.hidden = hidden, .head = {x.data(), 3, 2}}) ==
        "plumb: reward_head: argument `head` has shape [3, 2], but its dimension 1 must be 3 (columns of `hidden`). Nothing was written.");
  CHECK(with({.hidden = hidden, .head = {x.data(), 1, 3}}, {.standard_deviation = 0}) ==
        "plumb: reward_head: option `standard_deviation` is 0 but must be positive. Nothing was written.");
  CHECK(reward == std::vector<double>(2, 5));
}

TEST_CASE("reward_head: vectors in, the same numbers out") {
  const auto x = all();
  const std::vector<double> hidden(x.begin(), x.begin() + hidden_size), head(x.begin() + hidden_size, x.end() - k), bias(x.end() - k, x.end()),
      merge{0.7, -1.2}, one_output(head.begin(), head.begin() + d);
  const sequence_layout<> sequences{begin, end, mask};
  const reward_head_options options{.mean = 0.3, .standard_deviation = 2};
  std::vector<std::int32_t> rows(3);
  last_scored_rows(sequences, n, rows);
  desk<double> on;
  std::vector<double> reward(3), attributes(6);
  reward_head_inputs<double, double> in{.hidden = {x.data(), n, d}, .head = {head.data(), k, d}, .bias = bias, .rows = rows, .attribute_weights = merge};
  const auto device = [&] { reward_head(on.compute, on.scratch, in, options, {reward, {attributes.data(), 3, k}}); };
  device();
  const auto last = reward_head(hidden, head, d, sequences, reward_pooling::last_token, options, merge, bias);
  CHECK(last.reward == reward);
  CHECK(last.attributes == attributes);
  CHECK(last.attributes[4] == 0);  // no token
  in.rows = {};
  in.sequences = sequences;
  device();
  const auto mean = reward_head(hidden, head, d, sequences, reward_pooling::mean, options, merge, bias);
  CHECK(mean.reward == reward);
  CHECK(mean.attributes == attributes);
  CHECK(reward_head(hidden, head, d, sequences).reward.empty());
  CHECK(reward_head(hidden, one_output, d, sequences).reward == reward_head(hidden, one_output, d, sequences).attributes);
  CHECK(refusal([&] { reward_head(hidden, head, 4, sequences); }) ==
        "plumb: reward_head: `hidden` has 27 elements, which is no multiple of 4 numbers a row. Nothing was written.");
  CHECK(refusal([&] { reward_head(hidden, hidden, d, sequences, reward_pooling::mean, {}, merge); }) ==
        "plumb: reward_head: argument `attribute_weights` has shape [2], but its dimension 0 must be 9 (rows of `head`). Nothing was written.");
  CHECK(refusal([&] { reward_head(one_output, head, d, sequences); }) ==
        "plumb: reward_head: argument `scored` has shape [9], but its dimension 0 must be 1 (the number of tokens). Nothing was written.");
}

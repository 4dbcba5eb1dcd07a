// Outputs that share memory with an input or with one another are refused, with nothing written; those that may are as right as apart.
#include "support/arguments.hpp"
#include "support/gradients.hpp"

#include <plumb/plumb.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using plumb_test::refusal;

namespace {
std::string overlaps(const char* operation, const char* output, const char* other) {
  return std::string("plumb: ") + operation + ": output `" + output + "` overlaps `" + other + "` in memory. Nothing was written.";
}
}  // namespace

TEST_CASE("shared memory: Bradley-Terry") {
  plumb_test::desk<double> on;
  const std::vector<double> before{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
  auto x = before;
  std::vector<double> y(14), z(14);
  const auto with = [&](const bradley_terry_outputs<double>& out) {
    const auto said = refusal([&] { bradley_terry(on.compute, on.scratch, {.chosen = x, .rejected = y}, {.denominator = 14}, out); });
    CHECK(x == before);
    return said;
  };
  CHECK(with({.d_chosen = z, .pair_loss = z}) == overlaps("bradley_terry", "d_chosen", "pair_loss"));
  CHECK(with({.metrics = view<double, 2>(x.data(), 7, 2)}) == overlaps("bradley_terry", "metrics", "chosen"));
  CHECK(with({.loss = view(z).slice(3, 1), .d_chosen = z}) == overlaps("bradley_terry", "loss", "d_chosen"));
  CHECK_THAT(with({.d_chosen = view<double, 1>(z.data(), {14}, {0})}), Catch::Matchers::ContainsSubstring("has stride 0 in dimension 0"));
  CHECK_THAT(refusal([&] { bradley_terry(on.compute, on.scratch, {view<const double, 1>(x.data(), -7), view<const double, 1>(y.data(), -7)},
                                         {.denominator = 1}, {}); }),
             Catch::Matchers::ContainsSubstring("has shape [-7], with an extent below 0"));
}

TEST_CASE("shared memory: DPO and supervised") {
  plumb_test::desk<double> on;
  std::vector<double> x(6, -1), ref(6, -2), y(6);
  const std::vector<std::int32_t> cu{0, 3, 6}, chosen{0}, rejected{1};
  const preference_pairs<> pairs{sequence_layout<>::packed(cu), chosen, rejected};
  const auto with = [&](const dpo_outputs<double>& out) {
    return refusal([&] { dpo(on.compute, on.scratch, {x, ref, pairs}, {.denominator = 1}, out); });
  };
  CHECK(with({.loss = view(x).slice(2, 1)}) == overlaps("dpo", "loss", "logp"));
  CHECK(with({.pair_loss = view(ref).slice(0, 1)}) == overlaps("dpo", "pair_loss", "ref_logp"));
  CHECK(with({.loss = view(y).slice(5, 1), .d_logp = y}) == overlaps("dpo", "loss", "d_logp"));
  CHECK(refusal([&] { supervised(on.compute, on.scratch, {x, pairs.sequences}, {.denominator = 1}, {.loss = view(x).slice(0, 1)}); }) ==
        overlaps("supervised", "loss", "logp"));
}

TEST_CASE("shared memory: the gradient of logits may be the logits, laid out alike and no other way") {
  plumb_test::desk<double> on;
  constexpr index_t n = 8, v = 8;
  const auto numbers = testing::normal_numbers(1, 2 * n * v, 1, 0);
  auto x = numbers;
  std::vector<std::int32_t> targets{0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<double> lse(n), d_logp(n, 1), apart(n * v);
  const auto logits = view<double, 2>(x.data(), n, v);
  token_logp(on.compute, on.scratch, token_logp_inputs<double>{logits, targets}, {}, {.log_sum_exp = lse});
  const auto with = [&](view<double, 2> d_logits) {
    return refusal([&] { token_logp_backward(on.compute, on.scratch, token_logp_inputs<double>{logits, targets}, {}, {.log_sum_exp = lse, .d_logp = d_logp}, d_logits); });
  };
  CHECK(with(view<double, 2>(x.data(), {n, v}, {16, 1})) == overlaps("token_logp_backward", "d_logits", "logits"));
  CHECK(with(logits.transposed()) == overlaps("token_logp_backward", "d_logits", "logits"));
  CHECK(x == numbers);
  CHECK(with(view<double, 2>(apart.data(), n, v)) == "(it was not refused)");
  CHECK(with(logits) == "(it was not refused)");
  for (std::size_t i = 0; i < apart.size(); ++i) REQUIRE(x[i] == apart[i]);
}

TEST_CASE("shared memory: log-probabilities from hidden states") {
  plumb_test::desk<double> on;
  auto hidden = testing::normal_numbers(1, 64 * 4, 1, 0), head = testing::normal_numbers(2, 5 * 4, 1, 0);
  std::vector<std::int32_t> targets(64, 1);
  std::vector<double> out(96), lse(64), d_logp(64);
  const linear_token_logp_inputs<double> in{.hidden = view<const double, 2>(hidden.data(), 64, 4), .head = view<const double, 2>(head.data(), 5, 4), .targets = targets};
  CHECK(refusal([&] { linear_token_logp(on.compute, on.scratch, in, {.chunk_rows = 16}, {.logp = view(out).slice(0, 64), .log_sum_exp = view(out).slice(32, 64)}); }) ==
        overlaps("linear_token_logp", "logp", "log_sum_exp"));
  CHECK(refusal([&] { linear_token_logp_backward(on.compute, on.scratch, in, {}, {.log_sum_exp = lse, .d_logp = d_logp}, {.d_bias = view(lse).slice(0, 5)}); }) ==
        overlaps("linear_token_logp_backward", "d_bias", "log_sum_exp"));
}

TEST_CASE("shared memory: an output in the last number of each input in turn") {
  plumb_test::good_calls calls;
  calls.each([](const char* operation, const char* output, index_t extent, const auto& good, const auto& inputs, const auto& call) {
    for (const auto& input : inputs) {
      // The input's values, with room behind them for an output that begins in its last one.
      const auto& array = good.*input.second;
      const index_t n = array.extent(0);
      std::vector<double> room(static_cast<std::size_t>(n + extent), -1.0);
      const auto before = room;
      auto in = good;
      in.*input.second = view<const double, 1>(room).slice(0, n);
      CHECK(refusal([&] { call(in, view(room).slice(n - 1, extent)); }) == overlaps(operation, output, input.first));
      CHECK(room == before);
      CHECK(refusal([&] { call(in, view(room).slice(n, extent)); }) == "(it was not refused)");
    }
  });
}

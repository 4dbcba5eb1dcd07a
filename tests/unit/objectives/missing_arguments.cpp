// What was left out, or has a shape but no memory, is named; it is neither read nor taken for "not wanted".
#include "support/arguments.hpp"
#include "support/gradients.hpp"

#include <plumb/plumb.hpp>

using namespace plumb;
using plumb_test::refusal;

namespace {

using V = view<double, 1>;
using M = view<double, 2>;
const V ghost{nullptr, 3};
const M wide_ghost{nullptr, 2, 3};

std::string no_memory(const char* operation, const char* name, const char* shape = "[3]") {
  return std::string("plumb: ") + operation + ": argument `" + name + "` has shape " + shape + " but no memory. Nothing was written.";
}
std::string not_given(const char* operation, const char* name) {
  return std::string("plumb: ") + operation + ": argument `" + name + "` is not given. Nothing was written.";
}

struct arguments {
  std::vector<double> x{-1, -2, -3}, y{-2, -2, -2};
  std::vector<std::int32_t> cu_seqlens{0, 1, 3}, chosen{0}, rejected{1}, ids{0, 1};
  std::vector<std::uint8_t> scored{1, 1, 1};
  double loss = 7;
  plumb_test::desk<double> on;
  sequence_layout<> sequences() const { return sequence_layout<>::packed(cu_seqlens, scored); }
  preference_pairs<> pairs() const { return {sequences(), chosen, rejected}; }
};

}  // namespace

TEST_CASE("missing arguments: supervised") {
  arguments a;
  const auto with = [&](const supervised_inputs<double>& in, const supervised_outputs<double>& out) {
    return refusal([&] { supervised(a.on.compute, a.on.scratch, in, {.denominator = 3}, out); });
  };
  CHECK(with({.logp = ghost, .sequences = a.sequences()}, {.loss = a.loss}) == no_memory("supervised", "logp"));
  CHECK(with({.sequences = a.sequences()}, {.loss = a.loss}) == not_given("supervised", "logp"));
  CHECK(with({.logp = a.x}, {.loss = a.loss}) == "plumb: supervised: no sequences are given, but there are 3 tokens. Nothing was written.");
  CHECK(with({.logp = a.x, .sequences = a.sequences()}, {.loss = a.loss, .d_logp = ghost}) == no_memory("supervised", "d_logp"));
  CHECK(with({.logp = a.x, .sequences = a.sequences()}, {.loss = a.loss, .metrics = M(nullptr, 2, 2)}) == no_memory("supervised", "metrics", "[2, 2]"));
  CHECK(a.loss == 7);
}

TEST_CASE("missing arguments: dpo") {
  arguments a;
  const auto with = [&](const dpo_inputs<double>& in, const dpo_outputs<double>& out) {
    return refusal([&] { dpo(a.on.compute, a.on.scratch, in, {.denominator = 1}, out); });
  };
  CHECK(with({.logp = ghost, .ref_logp = a.y, .pairs = a.pairs()}, {.loss = a.loss}) == no_memory("dpo", "logp"));
  CHECK(with({.ref_logp = a.y, .pairs = a.pairs()}, {.loss = a.loss}) == not_given("dpo", "logp"));
  CHECK(with({.logp = a.x, .ref_logp = a.y}, {.loss = a.loss}) == "plumb: dpo: no sequences are given, but there are 3 tokens. Nothing was written.");
  CHECK(with({.logp = a.x, .ref_logp = a.y, .pairs = {a.sequences()}}, {.loss = a.loss}) == not_given("dpo", "pairs.chosen"));
  CHECK(with({.logp = a.x, .ref_logp = a.y, .pairs = a.pairs()}, {.loss = a.loss, .d_logp = ghost}) == no_memory("dpo", "d_logp"));
  CHECK(with({.logp = a.x, .ref_logp = a.y, .pairs = a.pairs()}, {.loss = a.loss, .pair_loss = V(nullptr, 1)}) == no_memory("dpo", "pair_loss", "[1]"));
  const auto pairs = [&](const dpo_pairs_inputs<double>& in) {
    return refusal([&] { dpo_pairs(a.on.compute, a.on.scratch, in, {.denominator = 1}, {.loss = a.loss}); });
  };
  CHECK(pairs({.chosen = ghost, .rejected = a.y, .ref_chosen = a.y, .ref_rejected = a.y}) == no_memory("dpo_pairs", "chosen"));
  CHECK(pairs({.chosen = a.x, .ref_chosen = a.y, .ref_rejected = a.y}) == not_given("dpo_pairs", "rejected"));
  CHECK(a.loss == 7);
}

TEST_CASE("missing arguments: reward models") {
  arguments a;
  const auto pairs = [&](const bradley_terry_inputs<double>& in) {
    return refusal([&] { bradley_terry(a.on.compute, a.on.scratch, in, {.denominator = 1}, {.loss = a.loss}); });
  };
  CHECK(pairs({.chosen = ghost, .rejected = a.y}) == no_memory("bradley_terry", "chosen"));
  CHECK(pairs({.chosen = a.x}) == not_given("bradley_terry", "rejected"));
  CHECK(pairs({.rejected = a.x}) == not_given("bradley_terry", "chosen"));
  CHECK(pairs({.chosen = a.x, .rejected = a.y, .margin = ghost}) == no_memory("bradley_terry", "margin"));
  std::vector<double> six(6);
  const M cells(six.data(), 2, 3);
  const auto rated = [&](const attribute_regression_inputs<double>& in, const attribute_regression_options& o) {
    return refusal([&] { attribute_regression(a.on.compute, a.on.scratch, in, o, {.loss = a.loss}); });
  };
  CHECK(rated({.prediction = wide_ghost, .label = cells}, {.denominator = 6}) == no_memory("attribute_regression", "prediction", "[2, 3]"));
  CHECK(rated({.prediction = cells}, {.denominator = 6}) == not_given("attribute_regression", "label"));
  CHECK(rated({.prediction = cells, .label = cells}, {.missing = std::nan(""), .denominator = 6}) ==
        "plumb: attribute_regression: option `missing` is nan but must be finite, and a number that no rating has. Nothing was written.");
  CHECK(refusal([&] { goal_reward(a.on.compute, a.on.scratch, cells, {}, {}, V(a.x.data(), 2)); }) == not_given("goal_reward", "weights"));
  CHECK(a.loss == 7);
}

TEST_CASE("missing arguments: token log-probabilities") {
  arguments a;
  std::vector<double> six(6), two(2);
  const M logits(six.data(), 2, 3);
  const auto forward = [&](const token_logp_inputs<double>& in, const token_logp_options& o = {}) {
    return refusal([&] { token_logp(a.on.compute, a.on.scratch, in, o, {.logp = two}); });
  };
  CHECK(forward({.logits = wide_ghost, .targets = a.ids}) == no_memory("token_logp", "logits", "[2, 3]"));
  CHECK(forward({.targets = a.ids}) == not_given("token_logp", "logits"));
  CHECK(forward({.logits = logits}) == not_given("token_logp", "targets"));
  CHECK(forward({.logits = logits, .targets = a.ids}, {.logit_scale = std::nan("")}) ==
        "plumb: token_logp: option `logit_scale` is nan but must be finite, and what the logits are multiplied by. Nothing was written.");
  const auto backward = [&](const token_logp_gradients<double>& g, M d_logits) {
    return refusal([&] { token_logp_backward(a.on.compute, a.on.scratch, token_logp_inputs<double>{logits, a.ids}, {}, g, d_logits); });
  };
  CHECK(backward({.log_sum_exp = two, .d_logp = two}, wide_ghost) == no_memory("token_logp_backward", "d_logits", "[2, 3]"));
  CHECK(backward({.d_logp = two}, logits) == not_given("token_logp_backward", "log_sum_exp"));
  const linear_token_logp_inputs<double> nothing{.head = logits, .targets = a.ids};
  CHECK(refusal([&] { linear_token_logp(a.on.compute, a.on.scratch, nothing, {}, {.logp = two}); }) == not_given("linear_token_logp", "hidden"));
}

TEST_CASE("missing arguments: an array with a shape but without memory, each in turn") {
  plumb_test::good_calls calls;
  calls.each([](const char* operation, const char* output, index_t extent, const auto& good, const auto& inputs, const auto& call) {
    std::vector<double> y(static_cast<std::size_t>(extent));
    CHECK(refusal([&] { call(good, view<double, 1>(y)); }) == "(it was not refused)");
    const auto before = y;
    for (const auto& input : inputs) {
      auto in = good;
      auto& array = in.*input.second;
      array.pointer = nullptr;
      const std::string shape = "[" + std::to_string(array.extent(0)) + "]";
      CHECK(refusal([&] { call(in, view<double, 1>(y)); }) == no_memory(operation, input.first, shape.c_str()));
      CHECK(y == before);
    }
    CHECK(refusal([&] { call(good, V(nullptr, extent)); }) == no_memory(operation, output, ("[" + std::to_string(extent) + "]").c_str()));
  });
}

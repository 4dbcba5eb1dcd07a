// The lab's transformer: its gradient by differences of the whole model, the KV cache against the full pass, causality, and one training step
// that is the same on every backend.
#include "lab/models.hpp"
#include "support/catch.hpp"

#include <plumb/backends/serial.hpp>
#include <plumb/testing/memory.hpp>

#if __has_include(<plumb/backends/xtensor.hpp>)
#include <plumb/backends/xtensor.hpp>
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#endif

#include <cmath>

using plumb::view;

namespace {

constexpr std::size_t scratch_bytes = std::size_t{1} << 24;

lab::transformer_config small(plumb::index_t scores = 0) {
  return {.vocabulary = 11, .width = 8, .layers = 2, .heads = 2, .feed_forward = 12, .positions = 9, .scores = scores};
}
/// Two texts of different lengths.
lab::batch texts() {
  const std::vector<lab::sample> samples{{{0, 3, 7, 1, 5, 2}, 2}, {{0, 9, 1, 4}, 3}};
  return lab::batch(samples);
}

/// Mean negative log-likelihood of the scored tokens, and the gradient of all weights.
struct loss_and_gradient {
  double loss;
  std::vector<double> gradient;
};
loss_and_gradient evaluate(lab::transformer<plumb::serial::backend<double>>& model) {
  plumb::serial::backend<double> b;
  lab::workspace memory(scratch_bytes);
  auto& scratch = memory();
  const lab::batch x = texts();
  const auto a = model.forward(b, scratch, x.ids, x.size, x.length);
  const auto n = static_cast<std::size_t>(x.scored_count());
  std::vector<double> logp(n), lse(n), d_logp(n), d_hidden(static_cast<std::size_t>(a.hidden.size()));
  const plumb::linear_token_logp_inputs<double> in{.hidden = a.hidden, .head = model.head(), .targets = x.targets, .rows = x.rows};
  plumb::linear_token_logp(b, scratch, in, {}, {.logp = logp, .log_sum_exp = lse});
  double loss = 0;
  plumb::supervised(b, scratch, {.logp = logp, .sequences = x.scored()}, {.denominator = 4}, {.loss = loss, .d_logp = d_logp});
  std::fill(model.gradients().begin(), model.gradients().end(), 0.0);
  const view<double, 2> dh(d_hidden.data(), a.hidden.extent(0), a.hidden.extent(1));
  plumb::linear_token_logp_backward(b, scratch, in, {}, {.log_sum_exp = lse, .d_logp = d_logp}, {.d_hidden = dh, .d_head = model.head_gradient()});
  model.backward(b, scratch, a, dh);
  return {loss, model.gradients()};
}

}  // namespace

TEST_CASE("lab: the gradient of the whole model") {
  lab::transformer<plumb::serial::backend<double>> model(small(), 1);
  const auto g = evaluate(model).gradient;
  double largest = 0;
  for (const double v : g) largest = std::max(largest, std::abs(v));
  REQUIRE(largest > 0.01);
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double at = model.weights()[i], h = 1e-4;
    const auto value = [&](double w) {
      model.weights()[i] = w;
      return evaluate(model).loss;
    };
    const double difference = (8 * (value(at + h) - value(at - h)) - (value(at + 2 * h) - value(at - 2 * h))) / (12 * h);
    model.weights()[i] = at;
    CAPTURE(i);
    REQUIRE(std::abs(g[i] - difference) < 1e-8 * largest);
  }
}

TEST_CASE("lab: reading and writing with the KV cache gives what the full pass gives, each text at its own position") {
  plumb::serial::backend<double> b;
  lab::workspace memory(scratch_bytes);
  const lab::transformer<plumb::serial::backend<double>> model(small(), 2);
  const std::vector<std::vector<std::int32_t>> texts{{0, 3, 7, 1, 5, 2, 6}, {0, 9, 1, 4, 4, 8}, {0, 2, 2, 10, 3, 1, 5}};
  const std::vector<std::int32_t> begun{4, 2, 3}, ids{0, 3, 7, 1, 0, 9, 0, 0, 0, 2, 2, 0};
  const auto expect = [&](std::size_t text, std::size_t count, view<const double, 1> h) {
    plumb::arena<>::frame frame(memory());
    const auto full = model.forward(b, memory(), std::vector<std::int32_t>(texts[text].begin(), texts[text].begin() + static_cast<std::ptrdiff_t>(count)), 1,
                                    static_cast<plumb::index_t>(count));
    for (plumb::index_t j = 0; j < 8; ++j) REQUIRE(std::abs(h(j) - full.hidden(static_cast<plumb::index_t>(count) - 1, j)) < 1e-13);
  };
  decltype(model)::cache cache;
  const auto read = model.read(b, memory(), ids, begun, 9, cache);
  for (std::size_t i = 0; i < 3; ++i) expect(i, static_cast<std::size_t>(begun[i]), as_const(read.row(static_cast<plumb::index_t>(i))));
  const auto write = [&](const std::vector<std::size_t>& which) {
    std::vector<std::int32_t> now;
    for (std::size_t k = 0; k < which.size(); ++k) now.push_back(texts[which[k]][static_cast<std::size_t>(cache.filled[k])]);
    const auto h = model.step(b, memory(), now, cache);
    for (std::size_t k = 0; k < which.size(); ++k) expect(which[k], static_cast<std::size_t>(cache.filled[k]), as_const(h.row(static_cast<plumb::index_t>(k))));
  };
  write({0, 1, 2});
  write({0, 1, 2});
  model.keep({0, 2}, cache);
  write({0, 2});
  model.keep({1}, cache);
  write({2});
}

TEST_CASE("lab: no token sees what comes after it") {
  plumb::serial::backend<double> b;
  lab::workspace memory(scratch_bytes);
  const lab::transformer<plumb::serial::backend<double>> model(small(), 3);
  const std::vector<std::int32_t> one{0, 3, 7, 1, 5}, other{0, 3, 7, 9, 9};
  const auto x = model.forward(b, memory(), one, 1, 5), y = model.forward(b, memory(), other, 1, 5);
  for (plumb::index_t j = 0; j < 8; ++j) {
    for (plumb::index_t t = 0; t < 3; ++t) REQUIRE(x.hidden(t, j) == y.hidden(t, j));
    REQUIRE(x.hidden(3, j) != y.hidden(3, j));
  }
}

TEST_CASE("lab: more positions than the model has are refused") {
  plumb::serial::backend<double> b;
  lab::workspace memory(scratch_bytes);
  const lab::transformer<plumb::serial::backend<double>> model(small(), 3);
  const std::vector<std::int32_t> ids(10, 1);
  CHECK_THROWS_AS(model.forward(b, memory(), ids, 1, 10), plumb::precondition_error);
}

namespace {

/// Weights after one step of each objective.
template <class B>
std::vector<double> trained(B& b) {
  lab::workspace memory(scratch_bytes);
  std::vector<double> all;
  const auto keep = [&](const auto& model) {
    for (const auto w : model.weights()) all.push_back(static_cast<double>(w));
  };
  const auto both = texts();
  {
    lab::transformer<B> model(small(), 4);
    lab::trainer<B> t(b, memory, model);
    t.supervised(both, 1e-2);
    for (const auto g : model.gradients()) REQUIRE(g == 0);
    const std::vector<plumb::real_of<B>> ref = lab::score_tokens(b, memory, model, both);
    t.supervised(both, 1e-2);
    t.dpo(both, ref, 0.1, 1e-2);
    keep(model);
  }
  {
    lab::transformer<B> model(small(1), 5);
    lab::trainer<B>(b, memory, model).bradley_terry(both, 1e-2);
    keep(model);
  }
  {
    lab::transformer<B> model(small(3), 6);
    lab::trainer<B>(b, memory, model).attribute_regression(both, {1, -100, 3, 2, 2, 0}, 1e-2);
    keep(model);
  }
  return all;
}

[[maybe_unused]] double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double d = 0;
  for (std::size_t i = 0; i < a.size(); ++i) d = std::max(d, std::abs(a[i] - b[i]));
  return d;
}

}  // namespace

#if __has_include(<plumb/backends/xtensor.hpp>)
TEST_CASE("lab: training on xtensor is training on serial, to 1e-9") {
  plumb::serial::backend<double> serial;
  plumb::xtensor::backend oracle;
  const auto a = trained(serial), b = trained(oracle);
  REQUIRE(a.size() == b.size());
  const double d = distance(a, b);
  CAPTURE(d);
  CHECK(d < 1e-9);
}
#endif

#if __has_include(<plumb/backends/onednn.hpp>)
TEST_CASE("lab: training on onednn is training on serial, in float") {
  plumb::serial::backend<float> serial;
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const dnnl::stream stream{engine};
  plumb::onednn::backend onednn{engine, stream};
  const auto a = trained(serial), b = trained(onednn);
  REQUIRE(a.size() == b.size());
  // Adam's first steps are the sign of the gradient: where that is almost 0, weights may differ by two steps.
  std::size_t far = 0;
  for (std::size_t i = 0; i < a.size(); ++i) far += std::abs(a[i] - b[i]) > 1e-4;
  CAPTURE(far, a.size());
  CHECK(far * 100 < a.size());
  CHECK(distance(a, b) < 0.07);
}
#endif

TEST_CASE("lab: replies are drawn from the model's own distribution, the same for the same seed") {
  using B = plumb::serial::backend<double>;
  B b;
  lab::workspace memory(scratch_bytes);
  auto config = small();
  config.positions = 5;
  const lab::transformer<B> model(config, 7);
  constexpr std::size_t n = 4000;
  const std::vector<lab::tokens> prompts(n, lab::tokens{0, 3});
  const auto replies = lab::draw_replies(b, memory, model, std::span(prompts), 1.0, 9);
  CHECK(replies == lab::draw_replies(b, memory, model, std::span(prompts), 1.0, 9));
  CHECK(replies != lab::draw_replies(b, memory, model, std::span(prompts), 1.0, 10));
  const std::vector<std::int32_t> ids{0, 3};
  const auto a = model.forward(b, memory(), ids, 1, 2);
  std::vector<double> logits;
  for (plumb::index_t w = 0; w < 11; ++w) {
    double z = 0;
    for (plumb::index_t j = 0; j < 8; ++j) z += a.hidden(1, j) * model.head()(w, j);
    logits.push_back(std::exp(z));
  }
  double sum = 0, squares = 0;
  for (const double e : logits) sum += e;
  std::vector<double> seen(11);
  for (const auto& r : replies) {
    REQUIRE(!r.empty());
    seen[static_cast<std::size_t>(r[0])] += 1;
    REQUIRE(r.size() <= 3);
  }
  for (std::size_t w = 0; w < 11; ++w) squares += std::pow(seen[w] - n * logits[w] / sum, 2) / (n * logits[w] / sum);
  CHECK(squares < 35);  // chi-squared with 10 degrees of freedom: 1 in 8000
}

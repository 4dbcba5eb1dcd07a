// SteerLM 2.0: published numbers, gradients, the two values, laws of weights, micro-batches, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/steerlm2.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

/// Two prompts with three and two replies, one reply that does not take part; 12 tokens.
const std::vector<std::int32_t> reply_begin{0, 3, 5, 6, 8, 10}, reply_end{3, 5, 6, 8, 10, 12}, group_begin{0, 4}, group_end{4, 6};
const std::vector<std::uint8_t> token_mask{1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0}, reply_mask{1, 1, 0, 1, 1, 1};
const std::vector<double> log_q{-2, -1.5, -3, -2.5, -1, -0.5}, weight{0.5, 0.2, 9, 0.3, 0.9, 0.1};
const sequence_layout<> replies{reply_begin, reply_end, token_mask}, groups{group_begin, group_end, reply_mask};

template <class T>
std::vector<T> as(const std::vector<double>& x) { return {x.begin(), x.end()}; }

template <class T>
struct result {
  T loss{};
  std::vector<T> gradient = std::vector<T>(12), coefficient = std::vector<T>(6), metrics = std::vector<T>(8);
};
template <class T>
result<T> run(const std::vector<T>& x, steerlm2_options o, const std::vector<double>& w = weight) {
  desk<T> on;
  result<T> r;
  o.denominator = o.denominator > 0 ? o.denominator : 2;
  const auto q = as<T>(log_q), ws = as<T>(w);
  steerlm2(on.compute, on.scratch, {.logp = x, .replies = replies, .log_q = q, .weight = ws, .groups = groups}, o,
           {.loss = r.loss, .d_logp = r.gradient, .coefficient = r.coefficient, .metrics = view<T, 2>(r.metrics.data(), 4, 2)});
  return r;
}
std::vector<double> tokens() { return normal_numbers(41, 12, 0.5, -1); }

}  // namespace

TEST_CASE("steerlm2: gradients of the listwise loss by dual numbers and differences") {
  for (const bool per_token : {false, true}) {
    const steerlm2_options o{.per_token = per_token, .weight = 0.7};
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, o).loss; }, tokens(), run(tokens(), o).gradient);
  }
}

TEST_CASE("steerlm2: numbers worked out beforehand") {
  const std::vector<double> a{-1, -3, -2}, y{-10, -9, -12}, q{-9, -8, -10}, now{-9.5, -8, -9};
  const std::vector<std::int32_t> ends{0, 3};
  const auto prompt = sequence_layout<>::packed(ends);
  desk<double> on;
  std::vector<double> w(3), size(1);
  steerlm2_weights(on.compute, on.scratch, {.log_p_attributes = a, .log_p_reply = y, .log_q = q, .groups = prompt},
                   {.weight = w, .effective_samples = size});
  const double want_w[] = {0.786986, 0.106507, 0.106507}, want_c[] = {0.646742, -0.124717, -0.522025};
  for (std::size_t i = 0; i < 3; ++i) CHECK(w[i] == Catch::Approx(want_w[i]).margin(1e-6));
  CHECK(size[0] == Catch::Approx(1 / (w[0] * w[0] + 2 * w[1] * w[1])).epsilon(1e-13));
  const auto of_vectors = steerlm2_weights(a, y, q, prompt);
  CHECK(of_vectors.weight == w);
  CHECK(of_vectors.effective_samples == size);
  CHECK(std::exp(of_vectors.log_weight[0]) == Catch::Approx(w[0]).epsilon(1e-14));
  CHECK(refusal([&] { steerlm2_weights(a, size, q, prompt); }) ==
        "plumb: steerlm2_weights: argument `log_p_reply` has 1 elements, but `log_q` has 3. Nothing was written.");
  const auto r = steerlm2(now, q, w, prompt);
  CHECK(r.loss == Catch::Approx(1.751355).margin(1e-6));
  CHECK(r.distance == Catch::Approx(1.085782).margin(1e-6));
  for (std::size_t i = 0; i < 3; ++i) CHECK(r.coefficient[i] == Catch::Approx(want_c[i]).margin(1e-6));
  CHECK(r.log_ratio_max == 1);
  const auto b = steerlm2(now, q, w, prompt, {.value = steerlm2_value::coefficients});
  CHECK(b.loss == Catch::Approx(0.448088).margin(1e-6));
  CHECK(b.d_logp == r.d_logp);
}

TEST_CASE("steerlm2: before the first step the baseline is uniform, and coefficients sum to 0") {
  const std::vector<double> w{0.7, 0.2, 0.1};
  const std::vector<std::int32_t> ends{0, 3};
  const auto r = steerlm2(std::vector<double>{-5, -700, -1e4}, {std::vector<double>{-5, -700, -1e4}}, w, sequence_layout<>::packed(ends));
  for (std::size_t i = 0; i < 3; ++i) CHECK(r.baseline[i] == Catch::Approx(1 / 3.0).epsilon(1e-15));
  CHECK(std::abs(r.coefficient[0] + r.coefficient[1] + r.coefficient[2]) < 1e-15);
  CHECK(r.log_ratio_max == 0);
  CHECK(r.baseline_effective_samples == Catch::Approx(3).epsilon(1e-14));
}

TEST_CASE("steerlm2: weights do not change when a prompt's numbers move together, and stay finite however far") {
  desk<float> on;
  const std::vector<std::int32_t> ends{0, 3};
  const std::vector<float> a{-1, -3, -2}, y{-1e4f, -1e4f + 1, -1e4f - 2}, q{-9, -8, 1e4f};
  std::vector<float> moved = y, w(3), again(3), log_w(3);
  for (float& e : moved) e += 512;
  const auto prompt = sequence_layout<>::packed(ends);
  steerlm2_weights(on.compute, on.scratch, {.log_p_attributes = a, .log_p_reply = y, .log_q = q, .groups = prompt},
                   {.weight = w, .log_weight = log_w});
  steerlm2_weights(on.compute, on.scratch, {.log_p_attributes = a, .log_p_reply = moved, .log_q = q, .groups = prompt}, {.weight = again});
  CHECK(w == again);
  CHECK(w[2] == 0);
  CHECK(log_w[2] == Catch::Approx(-1.0012e4).epsilon(1e-3));
}

TEST_CASE("steerlm2: what does not take part contributes nothing, whatever it holds") {
  auto x = tokens();
  const auto before = run(x, {});
  for (const std::size_t t : {3u, 5u, 11u}) x[t] = std::nan("");
  auto w = weight;
  w[2] = std::nan("");
  const auto after = run(x, {}, w);
  CHECK(before.loss == after.loss);
  CHECK(before.gradient == after.gradient);
  CHECK(before.metrics == after.metrics);
  CHECK(after.coefficient[2] == 0);
  x[0] = std::nan("");
  CHECK(std::isnan(run(x, {}).loss));
}

TEST_CASE("steerlm2: prompts one by one add up to the batch") {
  const auto x = tokens();
  const auto want = run(x, {.per_token = true});
  desk<double> on;
  double loss = 3;
  std::vector<double> d(12, 1);
  for (index_t g = 0; g < 2; ++g)
    steerlm2(on.compute, on.scratch,
             {.logp = x,
              .replies = replies,
              .log_q = log_q,
              .weight = weight,
              .groups = {view(group_begin).slice(g, 1), view(group_end).slice(g, 1), reply_mask}},
             {.per_token = true, .denominator = 2}, {.loss = loss, .d_logp = d, .mode = write_mode::add});
  CHECK(loss - 3 == Catch::Approx(want.loss).epsilon(1e-13));
  for (std::size_t t = 0; t < 12; ++t) CHECK(d[t] - 1 == Catch::Approx(want.gradient[t]).margin(1e-14));
}

TEST_CASE("steerlm2: a prompt whose weights are all 0 teaches nothing") {
  auto w = weight;
  w[4] = w[5] = 0;
  const auto r = run(tokens(), {}, w);
  for (std::size_t t = 8; t < 12; ++t) CHECK(r.gradient[t] == 0);
}

TEST_CASE("steerlm2: what is refused, in a sentence, with nothing written") {
  const std::vector<double> x(12), q(5), w(6);
  double loss = 5;
  desk<double> on;
  CHECK(refusal([&] {
          steerlm2(on.compute, on.scratch, {.logp = x, .replies = replies, .log_q = q, .weight = w, .groups = groups}, {.denominator = 1},
                   {.loss = loss});
        }) == "plumb: steerlm2: argument `log_q` has shape [5], but its dimension 0 must be 6 (the number of replies). Nothing was written.");
  CHECK(refusal([&] {
          steerlm2_replies(on.compute, on.scratch, {.logp = w, .log_q = w, .weight = w, .groups = groups}, {.per_token = true, .denominator = 1},
                           {.loss = loss});
        }) == "plumb: steerlm2_replies: argument `length` is not given. Nothing was written.");
  CHECK(loss == 5);
}

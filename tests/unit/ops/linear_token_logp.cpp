// Log-probabilities from hidden states: the same numbers as by whole logits, gradients three ways, any chunk, memory that does not grow with
// N V, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/linear_token_logp.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

constexpr index_t n = 6, d = 3, v = 5, scored = 4, total = n * d + v * d + v;
const std::vector<std::int32_t> rows{0, 2, 2, 5}, targets{1, 4, -1, 0};

/// Hidden states, head and bias in one vector; `sum_i a_i logp_i + b_i entropy_i` and its gradient by all of them.
template <class T>
struct result {
  T value{};
  std::vector<T> gradient = std::vector<T>(total);
};
template <class T>
linear_token_logp_inputs<T> inputs(const std::vector<T>& x) {
  return {view<const T, 2>(x.data(), n, d), view<const T, 2>(x.data() + n * d, v, d), view<const T, 1>(x.data() + n * d + v * d, v), targets, rows};
}
template <class T>
result<T> run(const std::vector<T>& x, std::int64_t chunk) {
  desk<T> on;
  result<T> r;
  const linear_token_logp_options options{.logits = {.temperature = 0.8, .softcap = 6}, .chunk_rows = chunk};
  const auto c = normal_numbers(15, scored), e = normal_numbers(16, scored);
  const std::vector<T> a(c.begin(), c.end()), b(e.begin(), e.end());
  std::vector<T> logp(scored), lse(scored), entropy(scored);
  linear_token_logp(on.compute, on.scratch, inputs(x), options, {logp, lse, entropy});
  linear_token_logp_backward(on.compute, on.scratch, inputs(x), options, {lse, a, entropy, b},
                             {.d_hidden = view(r.gradient.data(), n, d), .d_head = view(r.gradient.data() + n * d, v, d),
                              .d_bias = view(r.gradient.data() + n * d + v * d, v)});
  for (std::size_t i = 0; i < scored; ++i) r.value = r.value + a[i] * logp[i] + b[i] * entropy[i];
  return r;
}

}  // namespace

TEST_CASE("linear_token_logp: gradients by dual numbers and differences, in any chunk") {
  const auto x = normal_numbers(17, total);
  for (const std::int64_t chunk : {0, 1, 3})
    check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, chunk).value; }, x, run(x, chunk).gradient);
}

TEST_CASE("linear_token_logp: the same as by whole logits") {
  const auto x = normal_numbers(17, total);
  const auto in = inputs(x);
  std::vector<double> logits(scored * v), want(scored), got(scored);
  for (index_t i = 0; i < scored; ++i)
    for (index_t j = 0; j < v; ++j) {
      double z = in.bias(j);
      for (index_t k = 0; k < d; ++k) z += in.hidden(rows[static_cast<std::size_t>(i)], k) * in.head(j, k);
      logits[static_cast<std::size_t>(i * v + j)] = z;
    }
  desk<double> on;
  token_logp(on.compute, on.scratch, token_logp_inputs<double>{view(logits.data(), scored, v), targets}, {}, {want, {}, {}});
  linear_token_logp(on.compute, on.scratch, in, {}, {got, {}, {}});
  for (std::size_t i = 0; i < scored; ++i) CHECK(got[i] == Catch::Approx(want[i]).epsilon(1e-14));
}

TEST_CASE("linear_token_logp: write_mode::add adds to what is there") {
  const auto x = normal_numbers(17, total);
  const auto a = normal_numbers(15, scored);
  std::vector<double> lse(scored), once(total), twice(total);
  desk<double> on;
  linear_token_logp(on.compute, on.scratch, inputs(x), {}, {{}, lse, {}});
  const auto into = [&](std::vector<double>& g, write_mode mode) {
    linear_token_logp_backward(on.compute, on.scratch, inputs(x), {.chunk_rows = 2}, {.log_sum_exp = lse, .d_logp = a},
                               {.d_hidden = view(g.data(), n, d), .d_head = view(g.data() + n * d, v, d),
                                .d_bias = view(g.data() + n * d + v * d, v), .mode = mode});
  };
  into(once, write_mode::overwrite);
  into(twice, write_mode::overwrite);
  into(twice, write_mode::add);
  for (std::size_t i = 0; i < total; ++i) CHECK(twice[i] == Catch::Approx(2 * once[i]).epsilon(1e-13));
}

TEST_CASE("linear_token_logp: scratch grows with the chunk, not with the tokens") {
  serial::backend<float> b;
  const auto bytes = [&](index_t tokens) {
    const linear_token_logp_inputs<float> in{.hidden = {nullptr, tokens, 64}, .head = {nullptr, 1000, 64}, .targets = {nullptr, tokens}};
    return linear_token_logp_workspace(b, in, {.chunk_rows = 16}) + linear_token_logp_backward_workspace(b, in, {.chunk_rows = 16});
  };
  CHECK(bytes(100000) == bytes(16));
  CHECK(bytes(100000) < 1000 * 16 * 4 * 4);
}

TEST_CASE("linear_token_logp: what is refused, in a sentence, with nothing written") {
  const auto x = normal_numbers(17, total);
  std::vector<double> logp(scored, 5), g(n * d, 5);
  desk<double> on;
  auto wrong = inputs(x);
  wrong.head = view<const double, 2>(x.data(), v, d - 1);
  CHECK(refusal([&] { linear_token_logp(on.compute, on.scratch, wrong, {}, {logp, {}, {}}); }) ==
        "plumb: linear_token_logp: argument `head` has shape [5, 2], but its dimension 1 must be 3 (columns of `hidden`). Nothing was written.");
  CHECK(refusal([&] { linear_token_logp(on.compute, on.scratch, inputs(x), {.chunk_rows = -1}, {logp, {}, {}}); }) ==
        "plumb: linear_token_logp: option `chunk_rows` is -1 but must be 0 (chosen) or positive. Nothing was written.");
  wrong = inputs(x);
  wrong.targets = wrong.targets.slice(0, 3);
  CHECK(refusal([&] { linear_token_logp(on.compute, on.scratch, wrong, {}, {logp, {}, {}}); }) ==
        "plumb: linear_token_logp: argument `targets` has shape [3], but its dimension 0 must be 4 (one per entry of `rows`). Nothing was written.");
  CHECK(logp == std::vector<double>(scored, 5));
}

TEST_CASE("linear_token_logp: vectors in, the same numbers out") {
  const auto x = normal_numbers(17, total);
  const std::vector<double> hidden(x.begin(), x.begin() + n * d), head(x.begin() + n * d, x.begin() + n * d + v * d), bias(x.end() - v, x.end());
  const std::vector<std::int32_t> all{1, 4, -1, 0, 2, 3};
  auto in = inputs(x);
  in.rows = {};
  in.targets = all;
  std::vector<double> logp(n), lse(n), entropy(n);
  desk<double> on;
  linear_token_logp(on.compute, on.scratch, in, {.chunk_rows = 2}, {logp, lse, entropy});
  const auto got = linear_token_logp(hidden, head, all, d, {.chunk_rows = 2}, bias);
  CHECK(got.logp == logp);
  CHECK(got.log_sum_exp == lse);
  CHECK(got.entropy == entropy);
  CHECK(refusal([&] { linear_token_logp(hidden, head, all, 4); }) ==
        "plumb: linear_token_logp: `hidden` has 18 elements, which is no multiple of 4 numbers a row. Nothing was written.");
  CHECK(refusal([&] { linear_token_logp(hidden, head, targets, d); }) ==
        "plumb: linear_token_logp: argument `targets` has shape [4], but its dimension 0 must be 6 (rows of `hidden`). Nothing was written.");
  CHECK(refusal([&] { linear_token_logp(hidden, head, all, d, {}, hidden); }) ==
        "plumb: linear_token_logp: argument `bias` has shape [18], but its dimension 0 must be 5 (rows of `head`). Nothing was written.");
}

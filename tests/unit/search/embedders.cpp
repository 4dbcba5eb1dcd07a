// What compares texts: a table of token vectors, functions of tokens and of text.
#include "support/gradients.hpp"

#include <plumb/data/byte_tokenizer.hpp>
#include <plumb/search/embedders.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {
const auto lengths = [](std::span<const std::int32_t> t) { return std::vector<double>{static_cast<double>(t.size()), 1}; };
using by_length = callable_embedder<std::remove_const_t<decltype(lengths)>>;

template <class E>
std::vector<float> of(E&& e, std::vector<std::int32_t> tokens) {
  std::vector<float> y(e.dimension(), -7);
  e(std::span<const std::int32_t>(tokens), std::span<float>(y));
  return y;
}
}  // namespace

static_assert(embedder<token_table_embedder> && embedder<by_length>);

TEST_CASE("token_table_embedder: the mean of the tokens' vectors, of length 1") {
  const std::vector<float> numbers{3, 4, 0, 0, 0, 2, -3, -4, 0};
  token_table_embedder e(view<const float, 2>(numbers.data(), 3, 3));
  CHECK(e.dimension() == 3);
  CHECK(of(e, {0}) == std::vector<float>{0.6f, 0.8f, 0});
  CHECK(of(e, {1, 1}) == std::vector<float>{0, 0, 1});
  CHECK(of(e, {0, 1, 0}) == of(e, {1, 0, 0}));
  const auto two = of(e, {0, 1});
  CHECK(two[2] == Catch::Approx(2 / std::sqrt(29.0)).epsilon(1e-7));
  // A sum of 0 is written as it is, and so is that of no tokens.
  CHECK(of(e, {0, 2}) == std::vector<float>{0, 0, 0});
  CHECK(of(e, {}) == std::vector<float>{0, 0, 0});
  // Columns of a larger matrix.
  const view<const float, 2> rows(numbers.data(), 3, 3);
  token_table_embedder part(rows.narrow(1, 1, 2));
  CHECK(of(part, {0}) == std::vector<float>{1, 0});
  // Large numbers do not overflow.
  const std::vector<float> large{3e38f, 3e38f};
  CHECK(of(token_table_embedder(view<const float, 2>(large.data(), 1, 2)), {0, 0})[0] == Catch::Approx(std::sqrt(0.5)).epsilon(1e-7));

  CHECK(refusal([&] { of(e, {0, 3}); }) == "plumb: token_table_embedder: token 1 is 3, but the table has 3 rows.");
  CHECK(refusal([&] { of(e, {-1}); }) == "plumb: token_table_embedder: token 0 is -1, but the table has 3 rows.");
  std::vector<float> four(4);
  CHECK(refusal([&] { e({}, four); }) == "plumb: token_table_embedder: there is room for 4 numbers, but an embedding has 3.");
  CHECK(refusal([] { token_table_embedder({}); }) == "plumb: token_table_embedder: the table has shape [0, 0]: it needs a row for each token.");
}

TEST_CASE("callable_embedder and text_embedder: functions that write, and functions that give") {
  CHECK(of(callable_embedder(2, lengths), {5, 6, 7}) == std::vector<float>{3, 1});
  const auto writes = [](std::span<const std::int32_t> t, std::span<float> out) { out[0] = static_cast<float>(t[0]); };
  CHECK(of(callable_embedder(1, writes), {5, 6, 7}) == std::vector<float>{5});
  const data::byte_tokenizer bytes;
  text_embedder vowels(bytes, 2, [](const std::string& s) {
    std::vector<float> y(2);
    for (const char c : s) y[std::string("aeiou").find(c) == std::string::npos] += 1;
    return y;
  });
  static_assert(embedder<decltype(vowels)>);
  CHECK(of(vowels, {'o', 'u', 'r', 's'}) == std::vector<float>{2, 2});
  CHECK(refusal([] { of(callable_embedder(3, lengths), {1}); }) == "plumb: callable_embedder: the function gave 2 numbers, but an embedding has 3.");
  std::vector<float> one(1);
  CHECK(refusal([&] { vowels({}, one); }) == "plumb: text_embedder: there is room for 1 numbers, but an embedding has 2.");
  CHECK(refusal([] { callable_embedder(0, lengths); }) == "plumb: callable_embedder: an embedding is to have 0 numbers.");
}

#pragma once
// What texts are like, for RAIN's similarity: of the model's own table of token vectors, or of a function of the host's.

#include <plumb/search/boundaries.hpp>

#include <cmath>
#include <ranges>
#include <type_traits>

PLUMB_NAMESPACE_BEGIN

/// The mean of the tokens' vectors, of length 1. `table` `[V, D]` stays the host's: the input embeddings of the model, say. A mean of length 0, as
/// that of no tokens, is written as it is; the search refuses it.
class token_table_embedder {
 public:
  explicit token_table_embedder(view<const float, 2> table) : table_(table) {
    if (!table.given() || table.extent(0) < 1 || table.extent(1) < 1)
      fail(message("token_table_embedder") << "the table has shape " << table << ": it needs a row for each token.");
    sum_.resize(static_cast<std::size_t>(table.extent(1)));
  }

  std::size_t dimension() const { return sum_.size(); }
  void operator()(std::span<const std::int32_t> tokens, std::span<float> out) {
    constexpr const char* op = "token_table_embedder";
    if (out.size() != sum_.size()) fail(message(op) << "there is room for " << out.size() << " numbers, but an embedding has " << sum_.size() << ".");
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (tokens[i] < 0 || tokens[i] >= table_.extent(0))
        fail(message(op) << "token " << i << " is " << tokens[i] << ", but the table has " << table_.extent(0) << " rows.");
    std::ranges::fill(sum_, 0.0);
    for (const std::int32_t t : tokens)
      for (std::size_t d = 0; d < sum_.size(); ++d) sum_[d] += static_cast<double>(table_(t, static_cast<index_t>(d)));
    double norm = 0;  // of the sum: dividing by the count first changes nothing
    for (const double x : sum_) norm += x * x;
    norm = std::sqrt(norm);
    for (std::size_t d = 0; d < sum_.size(); ++d) out[d] = static_cast<float>(norm == 0 ? 0 : sum_[d] / norm);
  }

 private:
  view<const float, 2> table_;
  std::vector<double> sum_;
};
static_assert(embedder<token_table_embedder>);

namespace detail {
// What the host's function writes, or gives.
template <class F, class Text>
void embed_with(const char* op, F& f, const Text& text, std::span<float> out, std::size_t dimension) {
  if (out.size() != dimension) fail(message(op) << "there is room for " << out.size() << " numbers, but an embedding has " << dimension << ".");
  if constexpr (std::invocable<F&, const Text&, std::span<float>>) {
    f(text, out);
  } else {
    const auto& given = f(text);
    const auto n = static_cast<std::size_t>(std::ranges::size(given));
    if (n != dimension) fail(message(op) << "the function gave " << n << " numbers, but an embedding has " << dimension << ".");
    std::ranges::transform(given, out.begin(), [](auto x) { return static_cast<float>(x); });
  }
}
template <class F, class Text>
concept gives_numbers = std::invocable<F&, const Text&> && std::ranges::sized_range<std::invoke_result_t<F&, const Text&>> &&
                        std::convertible_to<std::ranges::range_value_t<std::invoke_result_t<F&, const Text&>>, double>;
template <class F, class Text>
concept embeds = std::invocable<F&, const Text&, std::span<float>> || gives_numbers<F, Text>;
}  // namespace detail

/// An embedder of a function of tokens: `f(tokens, out)`, or `f(tokens)` that gives `dimension` numbers.
template <detail::embeds<std::span<const std::int32_t>> F>
class callable_embedder {
 public:
  callable_embedder(std::size_t dimension, F f) : f_(std::move(f)), dimension_(dimension) {
    if (dimension == 0) fail(message("callable_embedder") << "an embedding is to have 0 numbers.");
  }
  std::size_t dimension() const { return dimension_; }
  void operator()(std::span<const std::int32_t> tokens, std::span<float> out) {
    detail::embed_with("callable_embedder", f_, tokens, out, dimension_);
  }

 private:
  F f_;
  std::size_t dimension_;
};

/// An embedder of a function of text, as sentence embedders are: `f(text, out)`, or `f(text)` that gives `dimension` numbers.
template <any_tokenizer T, detail::embeds<std::string> F>
class text_embedder {
 public:
  text_embedder(const T& t, std::size_t dimension, F f) : t_(&t), f_(std::move(f)), dimension_(dimension) {
    if (dimension == 0) fail(message("text_embedder") << "an embedding is to have 0 numbers.");
  }
  std::size_t dimension() const { return dimension_; }
  void operator()(std::span<const std::int32_t> tokens, std::span<float> out) {
    detail::embed_with("text_embedder", f_, detail::decoded(*t_, tokens), out, dimension_);
  }

 private:
  const T* t_;
  F f_;
  std::size_t dimension_;
};

PLUMB_NAMESPACE_END

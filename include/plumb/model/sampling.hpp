#pragma once
// Writing from next-token logits: draws, log-probabilities and ends that are right by construction.

#include <plumb/core/random.hpp>
#include <plumb/model/concepts.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

PLUMB_NAMESPACE_BEGIN

/// Next-token logits of many texts side by side:
/// - `m.open(texts)`: reads `std::span<const start>`;
/// - `m.next_logits()`: `view<const Real, 2>` `[texts, V]` in host memory, of the token that follows each text;
/// - `m.append(ids)`: one token for each text, `std::span<const std::int32_t>`; negative: the text is finished, its logits are not looked at again.
template <class M, class Real>
concept decoder = requires(M& m, std::span<const start> texts, std::span<const std::int32_t> ids) {
  m.open(texts);
  { m.next_logits() } -> std::convertible_to<view<const Real, 2>>;
  m.append(ids);
};

/// A token and its log-probability.
struct drawn_token {
  std::int32_t token;
  double logp;
};

/// Draws from `softmax(logits / temperature)` `[V]` with `u` in [0, 1); temperature 0 takes the largest (the first of equals). `logp` is that of the
/// whole distribution, at temperature 1 where nothing is drawn. In double; `memory` is kept between calls, so that
/// later ones allocate nothing. NaN among the logits is an error, -inf a
/// token that is never drawn.
template <class Real>
drawn_token draw_token(view<const Real, 1> logits, double temperature, double top_p, double u, std::vector<double>& memory) {
  constexpr const char* op = "draw_token";
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const index_t v = logits.extent(0);
  if (v == 0) fail(message(op) << "there are no logits to draw from.");
  const double scale = temperature > 0 ? 1 / temperature : 1;
  memory.resize(static_cast<std::size_t>(top_p < 1 ? 2 * v : v));
  const auto weights = std::span(memory).first(static_cast<std::size_t>(v));
  double top = -infinity;
  index_t drawn = 0;
  for (index_t i = 0; i < v; ++i) {
    const double x = static_cast<double>(logits(i)) * scale;
    if (std::isnan(x)) fail(message(op) << "the logit of token " << i << " is not a number.");
    weights[static_cast<std::size_t>(i)] = x;
    if (x > top) {
      top = x;
      drawn = i;
    }
  }
  if (!(top - top == 0)) fail(message(op) << "the largest logit is " << top << ": nothing can be drawn.");
  const double largest = top;
  double sum = 0;
  for (double& x : weights) sum += x = std::exp(x - largest);
  if (temperature > 0) {
    double kept = sum, floor = 0;  // weights of the tokens that can be drawn; the least of them
    if (top_p < 1) {
      const auto heap = std::span(memory).last(weights.size());  // the likeliest come off it one by one: few do, so nothing is sorted
      std::ranges::copy(weights, heap.begin());
      std::ranges::make_heap(heap);
      double held = 0;
      for (std::size_t left = heap.size(); left > 0 && held < top_p * sum; --left) {
        std::ranges::pop_heap(heap.first(left));
        held += floor = heap[left - 1];
      }
      kept = 0;  // equals of the last one are kept as well
      for (const double w : weights) kept += w >= floor ? w : 0;
    }
    // The same sum in the same order as `kept`, which `u * kept` is below: the draw ends at a token that has some probability.
    double reached = 0;
    for (index_t i = 0; i < v; ++i) {
      const double w = weights[static_cast<std::size_t>(i)];
      if (!(w >= floor) || !(w > 0)) continue;
      drawn = i;
      if ((reached += w) > u * kept) break;
    }
  }
  return {static_cast<std::int32_t>(drawn), static_cast<double>(logits(drawn)) * scale - largest - std::log(sum)};
}

/// The random numbers of text `row` of a step; number `t` draws the reply's token `t`. Resets have streams of their own (algorithms/drpo.hpp).
inline random_stream token_stream(std::uint64_t seed, std::uint64_t step, std::uint64_t row) {
  return {random_stream{seed, 0x706c756d62000001u}.bits(step), row};  // a seed for each step, a stream for each text
}

/// One text per start. A reply is at most `how.max_new_tokens` long, given tokens included; the end token is written at most once, last, and is the
/// policy's own. A text that can take no more tokens, or whose given tokens already end with the end token, comes back as it is, not ended; prompts
/// may hold end tokens. Number `t` of a text's stream draws token `t` of its reply, so a text does not depend on the others, nor on how the batch is
/// cut.
template <class Real, decoder<Real> M>
rollouts<Real> sample_rollouts(M& model, std::span<const start> starts, const sampling& how) {
  constexpr const char* op = "sample_rollouts";
  how.require(op);
  const std::size_t n = starts.size();
  std::vector<std::vector<std::int32_t>> written(n);
  std::vector<std::vector<Real>> logp(n);
  std::vector<std::uint8_t> ended(n, 0), done(n, 0);
  std::vector<index_t> room(n);
  std::size_t left = 0;
  for (std::size_t i = 0; i < n; ++i) {
    detail::require_start(op, starts[i], static_cast<index_t>(i));
    const bool complete = how.end_token >= 0 && starts[i].given_tokens() > 0 && starts[i].tokens.back() == how.end_token;
    room[i] = complete ? 0 : std::max<index_t>(0, how.max_new_tokens - starts[i].given_tokens());
    if (starts[i].max_new_tokens >= 0) room[i] = std::min(room[i], starts[i].max_new_tokens);
    done[i] = room[i] == 0;
    left += !done[i];
  }
  if (left > 0) model.open(starts);
  std::vector<std::int32_t> next(n);
  std::vector<double> memory;
  while (left > 0) {
    const view<const Real, 2> logits = model.next_logits();
    require_extent(op, "next_logits", logits, 0, static_cast<index_t>(n), "the number of texts");
    if (how.end_token >= logits.extent(1))
      fail(message(op) << "the end token is " << how.end_token << ", but the model has " << logits.extent(1) << " tokens. Nothing was written.");
    for (std::size_t i = 0; i < n; ++i) {
      next[i] = -1;
      if (done[i]) continue;
      const auto t = static_cast<std::uint64_t>(starts[i].given_tokens()) + written[i].size();
      const double u = token_stream(how.seed, how.step, how.first_row + i).uniform(t);
      const drawn_token drawn = draw_token(logits.row(static_cast<index_t>(i)), how.temperature, how.top_p, u, memory);
      next[i] = drawn.token;
      written[i].push_back(drawn.token);
      logp[i].push_back(static_cast<Real>(drawn.logp));
      ended[i] = drawn.token == how.end_token;
      if (ended[i] || static_cast<index_t>(written[i].size()) == room[i]) {
        done[i] = 1;
        --left;
        next[i] = -1;
      }
    }
    if (left > 0) model.append(next);
  }
  rollouts<Real> all{.temperature = how.temperature > 0 ? how.temperature : 1};
  for (std::size_t i = 0; i < n; ++i) all.add(starts[i], written[i], std::span<const Real>(logp[i]), ended[i] != 0);
  return all;
}

PLUMB_NAMESPACE_END

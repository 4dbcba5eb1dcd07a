#pragma once
// Greedy decoding and sampling: what a language model says by itself, one reply or many side by side.

#include <plumb/model/sampling.hpp>
#include <plumb/search/continuations.hpp>

#include <functional>

PLUMB_NAMESPACE_BEGIN

/// A token that was just written.
struct written_token {
  index_t reply;  ///< of those that are written side by side
  std::int32_t token;
  double logp;  ///< as in `decoded_text`
  std::span<const std::int32_t> response;  ///< with this token last
};

/// Options of `decode` and `decode_many`.
struct decoding_options {
  double temperature = 1;  ///< 0: the likeliest token, the first of equals
  index_t top_k = 0;       ///< draw among the `top_k` likeliest, the first of equals; 0: among all
  /// Nucleus: the fewest likeliest tokens that hold this share of the probability of those left by `top_k`.
  double top_p = 1;
  index_t max_new_tokens = 256;  ///< the end token among them
  std::uint64_t seed = 0;
  std::uint64_t first_row = 0;  ///< number of the first reply: a reply's random numbers depend on (seed, its number)
  search_limits limits{};       ///< those of simulations, judgements, nodes and bytes mean nothing here
  prefix_cache_options sequences{};
  std::function<bool(std::span<const std::int32_t>)> stop{};   ///< the reply ends here
  std::function<void(const written_token&)> on_token{};        ///< as they come: one reply after the other in each round
  std::stop_token cancel{};

  void require(const char* op) const {
    require_option(op, "temperature", temperature, temperature >= 0, "0 (greedy) or positive");
    require_option(op, "top_k", static_cast<double>(top_k), top_k >= 0, "0 (all) or positive");
    require_option(op, "top_p", top_p, top_p > 0 && top_p <= 1, "in (0, 1]");
    require_option(op, "max_new_tokens", static_cast<double>(max_new_tokens), max_new_tokens >= 1, "1 or more");
    limits.require(op);
    sequences.require(op);
  }
};

/// A reply. An end token is its last token.
struct decoded_text {
  std::vector<std::int32_t> response{};
  std::vector<double> logp{};  ///< of each token, in the whole distribution at the temperature (1 where nothing is drawn)
  stop_reason reason = stop_reason::none;  ///< ended, length, or the limit that cut it off
};
struct decoded_reply : decoded_text {
  search_counters counters{};
};
struct decoded_replies {
  std::vector<decoded_text> replies{};
  search_counters counters{};  ///< of all together
};

namespace detail {

/// Draws as the options say; what it needs is kept between draws.
class token_sampler {
 public:
  token_sampler(double temperature, index_t top_k, double top_p) : temperature_(temperature), top_k_(top_k), top_p_(top_p) {}

  drawn_token operator()(std::span<const float> logits, double u) {
    const view<const float, 1> all(logits.data(), static_cast<index_t>(logits.size()));
    const bool whole = top_k_ == 0 || top_k_ >= all.extent(0) || !(temperature_ > 0);
    if (whole || std::ranges::any_of(logits, [](float x) { return std::isnan(x); })) return draw_token(all, temperature_, top_p_, u, memory_);
    kept_.assign(logits.begin(), logits.end());
    const auto kth = kept_.begin() + (top_k_ - 1);
    std::ranges::nth_element(kept_, kth, std::ranges::greater{});
    const double floor = *kth;
    auto equals = 1 + std::count(kept_.begin(), kth, floor);  // of the least that is kept, the first ones
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double x = logits[i];
      kept_[i] = x > floor || (x == floor && equals-- > 0) ? x : -std::numeric_limits<double>::infinity();
    }
    const drawn_token drawn = draw_token(view<const double, 1>(kept_), temperature_, top_p_, u, memory_);
    const double scale = 1 / temperature_, top = *std::ranges::max_element(logits);
    double sum = 0;
    for (const float x : logits) sum += std::exp((x - top) * scale);
    return {drawn.token, (logits[static_cast<std::size_t>(drawn.token)] - top) * scale - std::log(sum)};
  }

 private:
  double temperature_;
  index_t top_k_;
  double top_p_;
  std::vector<double> kept_{}, memory_{};
};

}  // namespace detail

/// `count` replies to one prompt, side by side: reply `i` is what `decode` gives with `first_row + i`, whatever the others are. Where the tokens may
/// not last for all, fewer are written at a time, so that the first ones are whole.
template <language_model M>
decoded_replies decode_many(M& model, std::span<const std::int32_t> prompt, index_t count, const decoding_options& o = {}) {
  constexpr const char* op = "decode";
  o.require(op);
  if (count < 0) fail(message(op) << count << " replies are asked for.");
  detail::require_prompt(op, model, prompt);
  detail::meter meter(o.limits, o.cancel);
  prefix_cache<M> cache(model, o.sequences);
  detail::token_sampler sampler(o.temperature, o.top_k, o.top_p);
  const std::size_t room = detail::room_for_reply(model, prompt, o.max_new_tokens);
  decoded_replies all;
  all.replies.resize(static_cast<std::size_t>(count));

  const auto begin = [&](std::size_t, std::size_t wanted, std::int64_t beginning) {
    return detail::fitting(meter, wanted, beginning, static_cast<std::int64_t>(room) - 1);
  };
  const auto draw = [&](std::size_t i, std::size_t t, std::span<const float> logits) {
    const drawn_token drawn = sampler(logits, token_stream(o.seed, 0, o.first_row + i).uniform(t));
    all.replies[i].logp.push_back(drawn.logp);
    return drawn.token;
  };
  const auto done = [&](std::size_t i, std::span<const std::int32_t> text) {
    const auto response = text.subspan(prompt.size());
    decoded_text& reply = all.replies[i];
    if (o.on_token) o.on_token({static_cast<index_t>(i), response.back(), reply.logp.back(), response});
    if (o.stop && o.stop(response)) {
      reply.reason = stop_reason::ended;
      return true;
    }
    return response.size() >= room;
  };
  const auto before = [](auto&&...) {};
  const auto take = [&](std::size_t first, std::span<const continuation> lanes) {
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      decoded_text& reply = all.replies[first + i];
      reply.response.assign(lanes[i].written().begin(), lanes[i].written().end());
      if (lanes[i].ended) reply.reason = stop_reason::ended;
      if (reply.reason == stop_reason::none && lanes[i].complete()) reply.reason = stop_reason::length;
    }
  };
  const stop_reason met = detail::write_continuations(cache, meter, prompt, -1, all.replies.size(), 0, begin, draw, done, before, take);
  for (decoded_text& reply : all.replies)
    if (reply.reason == stop_reason::none) reply.reason = met;
  all.counters = meter.used;
  all.counters.seconds = meter.elapsed();
  return all;
}

/// One reply to a prompt: greedy at temperature 0, else drawn. The same draws as `sample_rollouts`. What the model or a callback throws passes;
/// a limit ends the reply where it is, with the reason.
template <language_model M>
decoded_reply decode(M& model, std::span<const std::int32_t> prompt, const decoding_options& o = {}) {
  decoded_replies all = decode_many(model, prompt, 1, o);
  return {{std::move(all.replies[0])}, all.counters};
}

/// What is no language model is told what it lacks.
decoded_replies decode_many(detail::any_model, std::span<const std::int32_t> prompt, index_t count, const decoding_options& = {});
decoded_reply decode(detail::any_model, std::span<const std::int32_t> prompt, const decoding_options& = {});

PLUMB_NAMESPACE_END

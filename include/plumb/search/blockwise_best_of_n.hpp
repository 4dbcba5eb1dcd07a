#pragma once
// Best-of-n block by block: of n continuations up to a boundary the best one stays, and the next ones begin behind it (arXiv:2310.17022).

#include <plumb/search/best_of_n.hpp>

PLUMB_NAMESPACE_BEGIN

/// A block that was committed.
struct committed_block {
  std::span<const std::int32_t> tokens;    ///< the block
  std::span<const std::int32_t> response;  ///< with it
  double score;
  index_t which;                    ///< of the continuations
  std::span<const double> scores;   ///< of all; NaN: not judged, a limit was met
  bool finished;                    ///< the reply ends here
};

/// Options of `blockwise_best_of_n`.
struct blockwise_best_of_n_options {
  index_t n = 16;                 ///< continuations of each block
  bool greedy_first = true;       ///< continuation 0 is the likeliest: it stays where none scores higher
  index_t width = 0;              ///< continuations side by side; 0: as many as sequences allow. Changes nothing but what a limit cuts off
  index_t max_block_tokens = 32;  ///< a block ends here, if no boundary comes before
  double temperature = 1;
  index_t top_k = 0;  ///< this and `top_p`: as in `decoding_options`
  double top_p = 1;
  index_t max_new_tokens = 256;  ///< of the reply
  std::uint64_t seed = 0;
  index_t remembered_scores = 4096;  ///< equal texts are judged once, as long as their score is remembered
  search_limits limits{};            ///< a simulation is a continuation; those of nodes and bytes mean nothing here
  prefix_cache_options sequences{};
  std::function<bool(std::span<const std::int32_t>)> boundary{};  ///< of the response: a block ends here; none: blocks are `max_block_tokens` long
  std::function<bool(std::span<const std::int32_t>)> stop{};      ///< likewise: the reply ends here
  std::function<void(const committed_block&)> on_commit{};
  std::stop_token cancel{};

  void require(const char* op) const {
    require_option(op, "max_block_tokens", static_cast<double>(max_block_tokens), max_block_tokens >= 1, "1 or more");
    decode_best_of_n_options{.n = n, .greedy_first = greedy_first, .width = width, .temperature = temperature, .top_k = top_k, .top_p = top_p,
                             .max_new_tokens = max_new_tokens, .remembered_scores = remembered_scores, .limits = limits, .sequences = sequences}
        .require(op);
  }
};

/// What `blockwise_best_of_n` gives.
struct blockwise_best_of_n_result {
  std::vector<std::int32_t> response{};
  double score = std::numeric_limits<double>::quiet_NaN();  ///< of the response, NaN if nothing was committed
  bool finished = false;                   ///< it ends with an end token, or `stop` said so
  stop_reason reason = stop_reason::none;  ///< the limit that was met; none was met: how the reply ended (ended, length)
  search_counters counters{};                               ///< `rounds`: blocks
};

/// Writes a reply block by block: n continuations up to `boundary`, the end or `max_block_tokens`, each judged as the whole reply so far; the best is
/// committed, the first of equals. A limit ends the reply with what was committed; the best of what was judged by then is.
template <language_model M, any_evaluator E>
blockwise_best_of_n_result blockwise_best_of_n(M& model, E& judge, std::span<const std::int32_t> prompt, const blockwise_best_of_n_options& o = {}) {
  constexpr const char* op = "blockwise_best_of_n";
  o.require(op);
  detail::require_prompt(op, model, prompt);
  detail::meter meter(o.limits, o.cancel);
  prefix_cache<M> cache(model, o.sequences);
  detail::judging<E> judging(op, judge, meter, prompt, o.remembered_scores);
  detail::continuation_sampler sampler(o);
  const std::size_t room = detail::room_for_reply(model, prompt, o.max_new_tokens), longest = static_cast<std::size_t>(o.max_block_tokens);

  blockwise_best_of_n_result result;
  continuation text{.tokens = {prompt.begin(), prompt.end()}, .written_from = prompt.size()};
  std::vector<bool> stopped;
  for (std::uint64_t block = 0; result.reason == stop_reason::none; ++block) {
    detail::best_so_far best;
    const std::size_t committed = text.tokens.size();
    stopped.clear();
    const auto begin = [&](std::size_t first, std::size_t wanted, std::int64_t beginning) {
      const std::size_t written = text.written().size();
      const std::size_t count = detail::affordable(meter, judging, wanted, std::min<std::int64_t>(beginning, written > 0 ? 1 : beginning),
                                                   text.written(), std::min(room, written + longest));
      meter.used.simulations += static_cast<std::int64_t>(count);
      stopped.resize(first + count, false);
      return count;
    };
    const auto draw = [&](std::size_t i, std::size_t t, std::span<const float> logits) { return sampler(block, i, t, logits); };
    const auto done = [&](std::size_t i, std::span<const std::int32_t> whole) {
      const auto response = whole.subspan(prompt.size());
      stopped[i] = o.stop && o.stop(response);
      return stopped[i] || response.size() >= room || whole.size() - committed >= longest || (o.boundary && o.boundary(response));
    };
    const auto before = [&](std::span<const std::size_t> which, std::span<const continuation> lanes) {
      detail::require_judging_left(meter, judging, prompt.size(), which, lanes);
    };
    const auto take = [&](std::size_t first, std::span<const continuation> lanes) {
      best.take(judging, prompt.size(), first, lanes, [&](std::size_t i) { return stopped[i]; },
                "block " + std::to_string(block) + ", continuation ", [](const judged_reply&) {});
    };
    result.reason = detail::write_continuations(cache, meter, text.tokens, text.from, static_cast<std::size_t>(o.n),
                                                static_cast<std::size_t>(o.width), begin, draw, done, before, take);
    if (!best.any) break;
    text.tokens = std::move(best.text.tokens);
    text.from = best.text.from;
    result.score = best.score;
    ++meter.used.rounds;
    result.finished = best.finished;
    if (result.reason == stop_reason::none) {
      if (best.finished)
        result.reason = stop_reason::ended;
      else if (text.written().size() >= room)
        result.reason = stop_reason::length;
    }
    if (o.on_commit)
      o.on_commit({std::span(text.tokens).subspan(committed), text.written(), best.score, static_cast<index_t>(best.which), best.scores,
                   best.finished});
  }
  result.response.assign(text.written().begin(), text.written().end());
  result.counters = meter.used;
  result.counters.seconds = meter.elapsed();
  return result;
}
/// What is no language model or no judge is told what it lacks.
blockwise_best_of_n_result blockwise_best_of_n(detail::any_model, detail::any_judge, std::span<const std::int32_t> prompt,
                                               const blockwise_best_of_n_options& = {});

PLUMB_NAMESPACE_END

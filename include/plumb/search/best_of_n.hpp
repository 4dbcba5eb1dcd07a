#pragma once
// The best of n replies: draws whole replies, has each judged, returns the one that is liked best. No training; a loop that learns from what was best
// is in algorithms/best_of_n.hpp.

#include <plumb/search/decoding.hpp>
#include <plumb/search/judging.hpp>

PLUMB_NAMESPACE_BEGIN

/// A reply, or a block of one, as the judge saw it.
struct judged_reply {
  index_t which;  ///< its number among those that were drawn
  std::span<const std::int32_t> response;
  double score;
  bool finished;  ///< it ends here
};

/// Options of `decode_best_of_n`.
struct decode_best_of_n_options {
  index_t n = 16;            ///< replies at most; or as many as the limits allow
  bool greedy_first = true;  ///< reply 0 is the likeliest one: it wins where none scores higher
  index_t width = 8;  ///< replies side by side; 0: as many as sequences allow. Changes nothing but what a limit cuts off
  double temperature = 1;
  index_t top_k = 0;  ///< this and `top_p`: as in `decoding_options`
  double top_p = 1;
  index_t max_new_tokens = 256;
  std::uint64_t seed = 0;
  index_t remembered_scores = 4096;  ///< equal replies are judged once, as long as their score is remembered
  search_limits limits{};            ///< a simulation is a reply; those of nodes and bytes mean nothing here
  prefix_cache_options sequences{};
  std::function<bool(std::span<const std::int32_t>)> stop{};  ///< a reply ends here
  std::function<void(const judged_reply&)> on_reply{};
  std::stop_token cancel{};

  void require(const char* op) const {
    require_option(op, "n", static_cast<double>(n), n >= 1, "1 or more");
    require_option(op, "width", static_cast<double>(width), width >= 0, "0 (as many as sequences allow) or positive");
    const bool draws = n > 1 || !greedy_first;
    require_option(op, "temperature", temperature, temperature > 0 || (temperature == 0 && !draws), "positive, where replies are drawn");
    require_option(op, "remembered_scores", static_cast<double>(remembered_scores), remembered_scores >= 0, "0 or positive");
    decoding_options{.temperature = temperature, .top_k = top_k, .top_p = top_p, .max_new_tokens = max_new_tokens, .limits = limits,
                     .sequences = sequences}.require(op);
  }
};

/// What `decode_best_of_n` gives.
struct decode_best_of_n_result {
  std::vector<std::int32_t> response{};  ///< the best that was judged; empty if none was
  double score = std::numeric_limits<double>::quiet_NaN();
  index_t which = -1;            ///< its number; -1: a limit was met before any reply was judged
  bool finished = false;         ///< it ends with an end token, or `stop` said so; else it is as long as it may be
  std::vector<double> scores{};  ///< of each reply that was begun; NaN: a limit was met before it was judged
  stop_reason reason = stop_reason::none;  ///< the limit that was met; none was met: how the best one ended (ended, length)
  search_counters counters{};
};

namespace detail {

/// The draws of a search over continuations: number 0 may be greedy.
class continuation_sampler {
 public:
  template <class Options>
  explicit continuation_sampler(const Options& o)
      : greedy_first_(o.greedy_first), seed_(o.seed), greedy_(0, 0, 1), drawn_(o.temperature, o.top_k, o.top_p) {}
  std::int32_t operator()(std::uint64_t step, std::size_t i, std::size_t t, std::span<const float> logits) {
    return (greedy_first_ && i == 0 ? greedy_(logits, 0) : drawn_(logits, token_stream(seed_, step, i).uniform(t))).token;
  }

 private:
  bool greedy_first_;
  std::uint64_t seed_;
  token_sampler greedy_, drawn_;
};

/// How many continuations of a text may be begun so that each can be judged. A reply is `written` tokens long and may become `longest`.
template <class E>
std::size_t affordable(const meter& m, const judging<E>& judge, std::size_t wanted, std::int64_t beginning, std::span<const std::int32_t> response,
                       std::size_t longest) {
  m.require_judgements(1);
  const std::int64_t simulations = m.limits().simulations - m.used.simulations;
  if (simulations < 1) throw limit_reached{stop_reason::simulations};
  const std::int64_t most = std::min(simulations, m.limits().judgements - m.used.judgements);
  wanted = static_cast<std::size_t>(std::min(most, static_cast<std::int64_t>(wanted)));
  if (m.limits().tokens == search_limits::none) return wanted;
  std::vector<std::int32_t> full(response.begin(), response.end());  // what the judge takes for a long reply, whatever its tokens are
  full.resize(longest, 0);
  return fitting(m, wanted, beginning, static_cast<std::int64_t>(longest - response.size()) - 1 + judge.cost(full, true));
}

/// Before a round: a token for each text is left, and what the judge will take for all that are complete or become so.
template <class E>
void require_judging_left(const meter& m, const judging<E>& judge, std::size_t prompt, std::span<const std::size_t> which,
                          std::span<const continuation> lanes) {
  if (!judging<E>::metered || m.limits().tokens == search_limits::none) return;
  std::int64_t need = 0;
  std::vector<std::int32_t> longer;
  for (const std::size_t i : which) {
    need += lanes[i].written().empty() ? 0 : 1;  // the first token comes of what was read already
    const auto response = std::span(lanes[i].tokens).subspan(prompt);
    longer.assign(response.begin(), response.end());
    longer.push_back(lanes[i].tokens.back());  // which one comes is not known yet
    need += judge.cost(longer, true);
  }
  for (const continuation& c : lanes)
    if (c.complete()) need += judge.cost(std::span(c.tokens).subspan(prompt), true);
  m.require_tokens(need);
}

/// The best of those that were judged, as they come in.
struct best_so_far {
  std::vector<double> scores{};  ///< by number; NaN: not judged
  std::size_t which = 0;
  double score = -std::numeric_limits<double>::infinity();
  continuation text{};
  bool finished = false;
  bool any = false;

  /// Judges the complete ones of a group, the first of which is number `first`; `told` of each. Throws where the judge's limit is met, after those
  /// before it were taken in.
  template <class E, class Finished, class Told>
  void take(judging<E>& judge, std::size_t prompt, std::size_t first, std::span<const continuation> lanes, const Finished& is_finished,
            const std::string& what, const Told& told) {
    scores.resize(first + lanes.size(), std::numeric_limits<double>::quiet_NaN());
    std::vector<typename judging<E>::text> texts;
    std::vector<std::size_t> lane;
    for (std::size_t i = 0; i < lanes.size(); ++i)
      if (lanes[i].complete()) {
        texts.push_back({std::span(lanes[i].tokens).subspan(prompt), lanes[i].ended || is_finished(first + i)});
        lane.push_back(i);
      }
    std::vector<double> given;
    const auto take_in = [&] {
      for (std::size_t k = 0; k < given.size(); ++k) {
        const std::size_t number = first + lane[k];
        scores[number] = given[k];
        if (!any || given[k] > score) {
          any = true;
          which = number;
          score = given[k];
          text = lanes[lane[k]];
          finished = texts[k].finished;
        }
        told(judged_reply{static_cast<index_t>(number), texts[k].response, given[k], texts[k].finished});
      }
    };
    try {
      judge(texts, given, [&](std::size_t k) { return what + std::to_string(first + lane[k]); });
    } catch (const limit_reached&) {
      take_in();
      throw;
    }
    take_in();
  }
};

}  // namespace detail

/// Draws replies and returns the one that `judge` likes best, the first of equals. Scores may be of any size. Only whole replies are judged, and
/// only what was judged is returned: near a limit fewer are written at a time, so that little is written in vain, and the last that does not fit is
/// given up.
template <language_model M, any_evaluator E>
decode_best_of_n_result decode_best_of_n(M& model, E& judge, std::span<const std::int32_t> prompt, const decode_best_of_n_options& o = {}) {
  constexpr const char* op = "decode_best_of_n";
  o.require(op);
  detail::require_prompt(op, model, prompt);
  detail::meter meter(o.limits, o.cancel);
  prefix_cache<M> cache(model, o.sequences);
  detail::judging<E> judging(op, judge, meter, prompt, o.remembered_scores);
  detail::continuation_sampler sampler(o);
  detail::best_so_far best;
  const std::size_t room = detail::room_for_reply(model, prompt, o.max_new_tokens);
  std::vector<bool> stopped;

  const auto begin = [&](std::size_t first, std::size_t wanted, std::int64_t beginning) {
    const std::size_t count = detail::affordable(meter, judging, wanted, beginning, {}, room);
    meter.used.simulations += static_cast<std::int64_t>(count);
    stopped.resize(first + count, false);
    return count;
  };
  const auto draw = [&](std::size_t i, std::size_t t, std::span<const float> logits) { return sampler(0, i, t, logits); };
  const auto done = [&](std::size_t i, std::span<const std::int32_t> text) {
    const auto response = text.subspan(prompt.size());
    stopped[i] = o.stop && o.stop(response);
    return stopped[i] || response.size() >= room;
  };
  const auto before = [&](std::span<const std::size_t> which, std::span<const continuation> lanes) {
    detail::require_judging_left(meter, judging, prompt.size(), which, lanes);
  };
  const auto take = [&](std::size_t first, std::span<const continuation> lanes) {
    best.take(judging, prompt.size(), first, lanes, [&](std::size_t i) { return stopped[i]; }, "reply ", [&](const judged_reply& r) {
      if (o.on_reply) o.on_reply(r);
    });
  };
  const stop_reason met = detail::write_continuations(cache, meter, prompt, -1, static_cast<std::size_t>(o.n), static_cast<std::size_t>(o.width),
                                                      begin, draw, done, before, take);
  decode_best_of_n_result result;
  result.scores = std::move(best.scores);
  result.reason = met;
  if (best.any) {
    result.response.assign(best.text.written().begin(), best.text.written().end());
    result.score = best.score;
    result.which = static_cast<index_t>(best.which);
    result.finished = best.finished;
    if (met == stop_reason::none) result.reason = best.finished ? stop_reason::ended : stop_reason::length;
  }
  result.counters = meter.used;
  result.counters.seconds = meter.elapsed();
  return result;
}
/// What is no language model or no judge is told what it lacks.
decode_best_of_n_result decode_best_of_n(detail::any_model, detail::any_judge, std::span<const std::int32_t> prompt,
                                         const decode_best_of_n_options& = {});

PLUMB_NAMESPACE_END

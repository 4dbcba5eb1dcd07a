#pragma once
// What a search may use, what it has used, and why it stopped.

#include <plumb/core/error.hpp>

#include <chrono>
#include <cstdint>
#include <limits>
#include <stop_token>

PLUMB_NAMESPACE_BEGIN

/// Why a search ended.
enum class stop_reason {
  none,         ///< it has not
  ended,        ///< the reply ended, with the end token or where the caller's `stop` says so
  length,       ///< the reply has as many tokens as it may, or the model's context is full
  simulations,  ///< the limit of this name; likewise the following
  tokens,
  judgements,
  nodes,
  bytes,
  deadline,
  cancelled,  ///< by the `std::stop_token`
  refused,    ///< the judge condemned all that was found, and the caller's fallback is to refuse
  condemned,  ///< likewise, and it is to take the best so far
  exhausted,  ///< likewise, and there is nothing left to go back to
};
/// As a word, for logs.
constexpr const char* name_of(stop_reason r) {
  constexpr const char* names[] = {"none",  "ended",    "length",    "simulations", "tokens",   "judgements", "nodes",
                                   "bytes", "deadline", "cancelled", "refused",     "condemned", "exhausted"};
  return names[static_cast<int>(r)];
}

/// What a search may use in all. No limit is passed: what would pass one is not begun, and the search ends with what it has.
struct search_limits {
  static constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();

  std::int64_t simulations = none;
  std::int64_t tokens = none;      ///< forward tokens, the prompt's and a metered judge's among them
  std::int64_t judgements = none;  ///< texts that the judge sees; those that it has seen before are free
  std::int64_t nodes = none;       ///< of the tree, at a time
  std::int64_t bytes = none;       ///< of the tree and what is remembered beside it, at a time; not the model's
  double seconds = std::numeric_limits<double>::infinity();  ///< from the beginning on; looked at before each call of the model

  void require(const char* op) const {
    for (const auto& [name, value] : {std::pair{"simulations", simulations}, {"tokens", tokens}, {"judgements", judgements}, {"nodes", nodes},
                                      {"bytes", bytes}})
      require_option(op, name, static_cast<double>(value), value >= 0, "0 or positive");
    if (seconds != std::numeric_limits<double>::infinity()) require_option(op, "seconds", seconds, seconds >= 0, "0 or positive");
  }
};

/// What a search has used.
struct search_counters {
  std::int64_t tokens = 0;        ///< that went forward through the model; a metered judge's as well
  std::int64_t judge_tokens = 0;  ///< of which a metered judge's
  std::int64_t shared_tokens = 0;  ///< that did not, since a live sequence had read them: what replaying would have cost on top
  std::int64_t calls = 0;         ///< of the model: `append` or `append_many`
  std::int64_t appends = 0;       ///< sequences in those calls
  std::int64_t opens = 0, forks = 0, rewinds = 0, evictions = 0;
  std::int64_t judgements = 0, judge_calls = 0, judged_before = 0;  ///< texts, calls, and texts whose score was remembered
  std::int64_t embeddings = 0;
  std::int64_t simulations = 0, rounds = 0, taken_back = 0;  ///< `taken_back`: commits
  std::int64_t added = 0;  ///< children that were added where the others were alike and bad
  std::int64_t most_nodes = 0, most_depth = 0, most_bytes = 0;
  double model_seconds = 0, judge_seconds = 0, embed_seconds = 0;
  double tree_seconds = 0;  ///< selection, expansion, backup, similarity, commits
  double seconds = 0;       ///< in all; what is left over is drawing tokens and handling texts and sequences

  template <class F>
  void visit(F f) const {
    f("tokens", tokens), f("judge_tokens", judge_tokens), f("shared_tokens", shared_tokens), f("calls", calls), f("appends", appends);
    f("opens", opens), f("forks", forks), f("rewinds", rewinds), f("evictions", evictions);
    f("judgements", judgements), f("judge_calls", judge_calls), f("judged_before", judged_before), f("embeddings", embeddings);
    f("simulations", simulations), f("rounds", rounds), f("taken_back", taken_back), f("added", added);
    f("most_nodes", most_nodes), f("most_depth", most_depth), f("most_bytes", most_bytes);
    f("model_seconds", model_seconds), f("judge_seconds", judge_seconds), f("embed_seconds", embed_seconds), f("tree_seconds", tree_seconds);
    f("seconds", seconds);
  }
};

namespace detail {

/// Thrown where a limit would be passed, caught by the search that set it; no caller sees it.
struct limit_reached {
  stop_reason reason;
};

/// Adds the seconds of a scope to a counter.
class timed {
 public:
  explicit timed(double& to) : to_(to) {}
  ~timed() { to_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  timed(const timed&) = delete;
  timed& operator=(const timed&) = delete;

 private:
  double& to_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// One search's limits and counters.
class meter {
 public:
  meter(const search_limits& limits, std::stop_token stop) : limits_(limits), stop_(std::move(stop)) {}

  search_counters used{};

  const search_limits& limits() const { return limits_; }
  /// Before each call: whether time is left.
  void require_time() const {
    if (stop_.stop_requested()) throw limit_reached{stop_reason::cancelled};
    if (limits_.seconds < std::numeric_limits<double>::infinity() && elapsed() >= limits_.seconds) throw limit_reached{stop_reason::deadline};
  }
  /// Before `count` tokens go forward.
  void require_tokens(std::int64_t count) const {
    require_time();
    if (count > limits_.tokens - used.tokens) throw limit_reached{stop_reason::tokens};
  }
  void require_judgements(std::int64_t count) const {
    require_time();
    if (count > limits_.judgements - used.judgements) throw limit_reached{stop_reason::judgements};
  }
  const std::stop_token& stop() const { return stop_; }
  /// From now on that stops it, or so many seconds.
  void interrupt(std::stop_token stop, double seconds) {
    stop_ = std::move(stop);
    limits_.seconds = seconds == std::numeric_limits<double>::infinity() ? seconds : elapsed() + seconds;
  }
  double seconds_left() const { return limits_.seconds - elapsed(); }
  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  search_limits limits_;
  std::stop_token stop_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace detail

PLUMB_NAMESPACE_END

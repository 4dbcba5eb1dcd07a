#pragma once
// What a judge says of texts, within a search's limits; what it said before is remembered.

#include <plumb/model/language_model.hpp>
#include <plumb/search/limits.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <string>
#include <unordered_map>

PLUMB_NAMESPACE_BEGIN

namespace detail {

/// Scores by text, the oldest forgotten first.
class remembered_scores {
 public:
  explicit remembered_scores(std::size_t most) : most_(most) {}
  const double* find(std::span<const std::int32_t> text, bool finished) const {
    const auto [from, to] = places_.equal_range(hash(text, finished));
    for (auto it = from; it != to; ++it) {
      const entry& e = entries_[it->second - first_];
      if (e.finished == finished && std::ranges::equal(e.text, text)) return &e.score;
    }
    return nullptr;
  }
  void add(std::span<const std::int32_t> text, bool finished, double score) {
    if (most_ == 0) return;
    if (entries_.size() == most_) {
      const auto [from, to] = places_.equal_range(hash(entries_.front().text, entries_.front().finished));
      for (auto it = from; it != to; ++it)
        if (it->second == first_) {
          places_.erase(it);
          break;
        }
      bytes_ -= bytes_of(entries_.front());
      entries_.pop_front();
      ++first_;
    }
    entries_.push_back({{text.begin(), text.end()}, finished, score});
    bytes_ += bytes_of(entries_.back());
    places_.emplace(hash(text, finished), first_ + entries_.size() - 1);
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct entry {
    std::vector<std::int32_t> text;
    bool finished;
    double score;
  };
  static std::int64_t bytes_of(const entry& e) { return static_cast<std::int64_t>(sizeof(entry) + e.text.capacity() * sizeof(std::int32_t) + 96); }
  static std::uint64_t hash(std::span<const std::int32_t> text, bool finished) {
    std::uint64_t h = 1469598103934665603u + finished;
    for (const std::int32_t t : text) h = (h ^ static_cast<std::uint32_t>(t)) * 1099511628211u;
    return h;
  }
  std::size_t most_;
  std::size_t first_ = 0;  ///< number of the oldest entry
  std::deque<entry> entries_{};
  std::unordered_multimap<std::uint64_t, std::size_t> places_{};
  std::int64_t bytes_ = 0;
};

/// Asks a judge within the limits of a search. A text that was judged before costs nothing: the same reply gets the same score.
template <any_evaluator E>
class judging {
 public:
  /// `bounded`: scores have to lie in [-1, 1]; otherwise they only have to be finite.
  judging(const char* op, E& judge, meter& meter, std::span<const std::int32_t> prompt, index_t remembered, bool bounded = false)
      : op_(op), judge_(&judge), meter_(&meter), prompt_(prompt), bounded_(bounded), known_(static_cast<std::size_t>(remembered)) {}

  /// Of the scores that it remembers.
  std::int64_t bytes() const { return known_.bytes(); }

  /// Forward tokens that the judge takes at most; none if it is not metered.
  std::int64_t cost([[maybe_unused]] std::span<const std::int32_t> response, [[maybe_unused]] bool finished) const {
    if constexpr (metered_evaluator<E>)
      if (known_.find(response, finished) == nullptr) return std::as_const(*judge_).cost(candidate{prompt_, response, finished});
    return 0;
  }
  static constexpr bool metered = metered_evaluator<E>;

  struct text {
    std::span<const std::int32_t> response{};
    bool finished = false;
  };
  /// Appends to `scores`, text by text; at a limit it throws `limit_reached`, with the scores of those before it there. `named(i)`: what text `i` is
  /// called where its score is no finite number.
  template <class Named>
  void operator()(std::span<const text> texts, std::vector<double>& scores, const Named& named) {
    std::vector<candidate> fresh;
    std::vector<std::size_t> source(texts.size());  // in `fresh`, or behind its end: known
    std::vector<double> score_of(texts.size());
    stop_reason met = stop_reason::none;
    std::int64_t planned = 0;
    std::size_t fits = 0;
    for (; fits < texts.size(); ++fits) {
      const std::span<const std::int32_t> response = texts[fits].response;
      const bool finished = texts[fits].finished;
      if (const double* found = known_.find(response, finished)) {
        source[fits] = texts.size();
        score_of[fits] = *found;
        continue;
      }
      const candidate c{prompt_, response, finished};
      source[fits] = static_cast<std::size_t>(
          std::ranges::find_if(fresh, [&](const candidate& f) { return f.finished == finished && std::ranges::equal(f.response, response); }) -
          fresh.begin());
      if (source[fits] < fresh.size()) continue;
      std::int64_t takes = 0;
      if constexpr (metered) takes = std::as_const(*judge_).cost(c);
      try {
        meter_->require_judgements(static_cast<std::int64_t>(fresh.size()) + 1);
        if (metered) meter_->require_tokens(planned + takes);
      } catch (const limit_reached& limit) {
        met = limit.reason;
        break;
      }
      planned += takes;
      fresh.push_back(c);
    }
    const std::size_t begin = scores.size();
    std::vector<double> given;
    const auto deliver = [&](std::size_t count) {  // those before text `count`, as far as their scores are there
      for (std::size_t i = scores.size() - begin; i < count; ++i) {
        if (source[i] < given.size()) {
          score_of[i] = given[source[i]];
        } else if (source[i] < texts.size()) {
          return;
        }
        if (!std::isfinite(score_of[i])) fail(message(op_) << "the judge's score of " << named(i).c_str() << " is " << score_of[i] << ".");
        if (bounded_ && !(score_of[i] >= -1 && score_of[i] <= 1))
          fail(message(op_) << "the judge's score of " << named(i).c_str() << " is " << score_of[i] << ", but it has to be in [-1, 1].");
        if (source[i] < texts.size() && known_.find(texts[i].response, texts[i].finished) == nullptr)
          known_.add(texts[i].response, texts[i].finished, score_of[i]);
        scores.push_back(score_of[i]);
      }
    };
    try {
      ask(fresh, given);
    } catch (...) {  // a limit of time, between two texts, or the judge's own: what it has said counts
      given.erase(std::ranges::find_if(given, [](double x) { return std::isnan(x); }), given.end());
      deliver(fits);
      throw;
    }
    meter_->used.judged_before += static_cast<std::int64_t>(fits - fresh.size());
    deliver(fits);
    if (met != stop_reason::none) throw limit_reached{met};
  }

 private:
  void ask(std::span<const candidate> fresh, std::vector<double>& given) {
    if (fresh.empty()) return;
    const interruption bound(*judge_, *meter_);
    if constexpr (batched_evaluator<E>) {
      meter_->require_time();
      given.assign(fresh.size(), std::numeric_limits<double>::quiet_NaN());
      const call counted(*this, fresh.size());
      judge_->score_many(fresh, std::span<double>(given));
    } else {
      for (const candidate& c : fresh) {
        meter_->require_time();
        const call counted(*this, 1);
        given.push_back(static_cast<double>((*judge_)(c)));
      }
    }
  }
  /// As long as it is asked here, the judge stops where the search has to.
  struct interruption {
    E& judge;
    interruption([[maybe_unused]] E& e, [[maybe_unused]] const meter& m) : judge(e) {
      if constexpr (interruptible_evaluator<E>) judge.interrupt(m.stop(), m.seconds_left());
    }
    ~interruption() {
      if constexpr (interruptible_evaluator<E>) judge.interrupt({}, std::numeric_limits<double>::infinity());
    }
    interruption(const interruption&) = delete;
    interruption& operator=(const interruption&) = delete;
  };
  /// Counts a call of the judge, whatever comes of it.
  class call {
   public:
    call(judging& all, std::size_t texts) : all_(all), clock_(all.meter_->used.judge_seconds), before_(all.tokens_used()) {
      all.meter_->used.judgements += static_cast<std::int64_t>(texts);
      ++all.meter_->used.judge_calls;
    }
    ~call() {
      const std::int64_t tokens = all_.tokens_used() - before_;
      all_.meter_->used.tokens += tokens;
      all_.meter_->used.judge_tokens += tokens;
    }
    call(const call&) = delete;
    call& operator=(const call&) = delete;

   private:
    judging& all_;
    timed clock_;
    std::int64_t before_;
  };
  std::int64_t tokens_used() const {
    if constexpr (metered) return std::as_const(*judge_).tokens_used();
    return 0;
  }

  const char* op_;
  E* judge_;
  meter* meter_;
  std::span<const std::int32_t> prompt_;
  bool bounded_;
  remembered_scores known_;
};

}  // namespace detail

PLUMB_NAMESPACE_END

#pragma once
// A language model as what judges: asked in words, once in each order of the options, it answers with one token. RAIN's self-evaluation
// (arXiv:2309.07124) is this with the model that writes. judge_prompts.hpp has questions in words.

#include <plumb/search/prefix_cache.hpp>

#include <cmath>
#include <functional>

PLUMB_NAMESPACE_BEGIN

/// The question behind a text, and the tokens that answer it.
struct judge_ending {
  std::vector<std::int32_t> tokens{};         ///< options and question, in one order of them; the next token is the answer
  std::vector<std::int32_t> good{}, bad{};    ///< the tokens of each answer: at least one, more where it can be spelt in several ways
  std::vector<std::int32_t> neutral{};        ///< of a third answer, if there is one
};

/// What a judge reads: `before`, the prompt, `between`, the response, one of `endings`.
struct judge_prompt {
  using part = std::function<std::span<const std::int32_t>(std::span<const std::int32_t>)>;

  std::vector<std::int32_t> before{};   ///< instruction and worked examples; read once and kept
  std::vector<std::int32_t> between{};
  std::vector<judge_ending> endings{};  ///< one for each order of the options; their votes are averaged
  part show_prompt{};                   ///< the part of the prompt that is shown (see boundaries.hpp); not given: all
  part show_response{};                 ///< likewise of the response, without the end token
};

/// What an answer is worth.
enum class judge_vote {
  hard,  ///< 1 where the good answer is strictly likelier than the bad one, else -1; 0 where the neutral one is strictly likelier than both
  soft,  ///< (p_good - p_bad) / (p_good + p_bad + p_neutral)
};
/// How likely an answer of several spellings is.
enum class judge_spellings {
  likeliest,  ///< as its likeliest spelling: the authors' code
  sum,        ///< as all together
};

/// Options of `prompted_evaluator`. `sequences` are its own, beside those that a search holds of the same model: their numbers are to fit together.
struct prompted_evaluator_options {
  judge_vote vote = judge_vote::hard;
  judge_spellings spellings = judge_spellings::likeliest;
  bool show_end = false;  ///< whether the end token of a response is shown
  prefix_cache_options sequences{};

  void require(const char* op) const {
    require_mode(op, "vote", vote, judge_vote::soft);
    require_mode(op, "spellings", spellings, judge_spellings::sum);
    sequences.require(op);
  }
};

/// Judges in [-1, 1] with a language model: all texts in one call of the model, then all their endings in another, as far as there are sequences. A
/// text takes its own tokens and those of the endings; `before` is read with the first of them, or by `prepare()`. Has no limits itself: a search
/// asks `cost` first. What throws leaves it as good as before. The model stays the host's.
template <language_model M>
class prompted_evaluator {
 public:
  prompted_evaluator(M& model, judge_prompt prompt, const prompted_evaluator_options& options = {})
      : model_(&model), prompt_(std::move(prompt)), options_(options), cache_(model, options.sequences), meter_({}, {}) {
    options_.require(op);
    if (prompt_.endings.empty()) fail(message(op) << "there are no endings: nothing asks for an answer.");
    require_tokens(prompt_.before, "`before`");
    require_tokens(prompt_.between, "`between`");
    for (std::size_t e = 0; e < prompt_.endings.size(); ++e) {
      judge_ending& x = prompt_.endings[e];
      if (x.tokens.empty()) fail(message(op) << "ending " << e << " has no tokens: the answer is what follows them.");
      if (x.good.empty() || x.bad.empty())
        fail(message(op) << "ending " << e << " has no token for its " << (x.good.empty() ? "good" : "bad") << " answer.");
      require_tokens(x.tokens, "ending", e);
      require_tokens(x.good, "the good answer of ending", e);
      require_tokens(x.bad, "the bad answer of ending", e);
      require_tokens(x.neutral, "the neutral answer of ending", e);
      require_different(x.good, x.bad, e);
      require_different(x.good, x.neutral, e);
      require_different(x.bad, x.neutral, e);
      for (auto* answer : {&x.good, &x.bad, &x.neutral}) {  // a spelling that is named twice counts once
        std::ranges::sort(*answer);
        answer->erase(std::unique(answer->begin(), answer->end()), answer->end());
      }
    }
  }

  const judge_prompt& prompt() const { return prompt_; }
  const prompted_evaluator_options& options() const { return options_; }
  /// What it has used. `judgements` and `judge_calls` are the search's to count.
  const search_counters& counters() const { return meter_.used; }
  std::int64_t tokens_used() const { return meter_.used.tokens; }
  /// A search that asks it says here what stops the search; the judge then stops between two calls of the model.
  void interrupt(std::stop_token stop, double seconds) { meter_.interrupt(std::move(stop), seconds); }

  /// Forward tokens that `c` takes at most, where the model has the memory for as many sequences as it says.
  std::int64_t cost(const candidate& c) const {
    const auto before = size_of(prompt_.before), text = size_of(shown_prompt(c)) + size_of(prompt_.between) + size_of(shown_response(c));
    const auto n = static_cast<std::int64_t>(prompt_.endings.size());
    std::int64_t endings = 0, reads = n;
    for (const judge_ending& e : prompt_.endings) endings += size_of(e.tokens);
    if (!options_.sequences.share) return n * (before + text) + endings;
    if (n > 1 && short_of_memory_) reads = n + 1;
    if (n == 1 || (room() > 1 && !short_of_memory_)) reads = 1;
    return keeps_before() ? (prepared_ ? 0 : before) + reads * text + endings : reads * (before + text) + endings;
  }

  /// Reads `before`, if it is not read yet.
  void prepare() {
    if (prepared_ || !keeps_before()) return;
    cache_.pin(prompt_.before, meter_);
    prepared_ = true;
  }

  double operator()(const candidate& c) {
    double score = 0;
    score_many(std::span<const candidate>(&c, 1), std::span<double>(&score, 1));
    return score;
  }
  /// `scores` are written when all are known.
  void score_many(std::span<const candidate> candidates, std::span<double> scores) {
    if (scores.size() != candidates.size())
      fail(message(op) << "there are " << candidates.size() << " candidates, but room for " << scores.size() << " scores.");
    if (candidates.empty()) return;
    std::vector<double> found(candidates.size(), 0.0);
    texts_.clear();
    for (std::size_t i = 0; i < candidates.size(); ++i) add_texts(candidates[i], i);
    prepare();
    const std::size_t together = room() < size_of(prompt_.endings) ? 1 : static_cast<std::size_t>(room()) / prompt_.endings.size();
    for (std::size_t first = 0; first < candidates.size();) {
      const std::size_t most = short_of_memory_ ? 1 : two_steps() ? together : candidates.size(), last = std::min(candidates.size(), first + most);
      std::int64_t allowed = tokens_used();
      for (std::size_t i = first; i < last; ++i) allowed += cost(candidates[i]);
      try {
        judge(first, last, found);
        first = last;
      } catch (const sequence_memory_full&) {
        if (short_of_memory_) throw;
        std::fill(found.begin() + static_cast<std::ptrdiff_t>(first), found.end(), 0.0);
        short_of_memory_ = true;
      }
      // The model has less memory than it said, and texts were read twice: from now on one at a time, and with a bound that holds.
      if (tokens_used() > allowed) short_of_memory_ = true;
    }
    std::ranges::copy(found, scores.begin());
  }

 private:
  static constexpr const char* op = "prompted_evaluator";

  /// One text, and it with each ending behind it.
  struct judged_text {
    std::size_t length;
    std::vector<std::vector<std::int32_t>> with_ending{};
  };

  template <class C>
  static std::int64_t size_of(const C& c) {
    return static_cast<std::int64_t>(c.size());
  }
  bool keeps_before() const { return options_.sequences.share && cache_.budget() > 1 && !prompt_.before.empty(); }
  /// Sequences for what is judged.
  index_t room() const { return cache_.budget() - (keeps_before() ? 1 : 0); }

  std::span<const std::int32_t> shown_prompt(const candidate& c) const { return prompt_.show_prompt ? prompt_.show_prompt(c.prompt) : c.prompt; }
  std::span<const std::int32_t> shown_response(const candidate& c) const {
    auto response = c.response;
    while (!options_.show_end && !response.empty() && model().is_end(response.back())) response = response.first(response.size() - 1);
    return prompt_.show_response ? prompt_.show_response(response) : response;
  }
  const M& model() const { return *model_; }

  static constexpr std::size_t no_number = static_cast<std::size_t>(-1);
  void require_tokens(std::span<const std::int32_t> tokens, const char* where, std::size_t number = no_number) const {
    const auto vocabulary = static_cast<index_t>(model().vocab_size());
    for (const std::int32_t t : tokens) {
      if (t >= 0 && t < vocabulary) continue;
      message m(op);
      m << "token " << t << " of " << where;
      if (number != no_number) m << " " << number;
      fail(m << " does not exist: the model has " << vocabulary << " tokens.");
    }
  }
  static void require_different(std::span<const std::int32_t> a, std::span<const std::int32_t> b, std::size_t e) {
    for (const std::int32_t t : a)
      if (std::ranges::find(b, t) != b.end()) fail(message(op) << "two answers of ending " << e << " share token " << t << ".");
  }

  void add_texts(const candidate& c, std::size_t i) {
    const auto shown = shown_prompt(c), response = shown_response(c);
    require_tokens(shown, "the prompt of candidate", i);
    require_tokens(response, "the response of candidate", i);
    std::vector<std::int32_t> all = prompt_.before;
    for (const std::span<const std::int32_t> part : {shown, std::span<const std::int32_t>(prompt_.between), response})
      all.insert(all.end(), part.begin(), part.end());
    judged_text t{.length = all.size()};
    for (const judge_ending& e : prompt_.endings) {
      t.with_ending.push_back(all);
      t.with_ending.back().insert(t.with_ending.back().end(), e.tokens.begin(), e.tokens.end());
      if constexpr (bounded_model<M>)
        if (const auto most = static_cast<index_t>(model().context()); size_of(t.with_ending.back()) > most)
          fail(message(op) << "candidate " << i << " has " << size_of(t.with_ending.back()) << " tokens as it is judged, but the model's context has "
                           << most << ".");
    }
    texts_.push_back(std::move(t));
  }

  /// Whether texts are read first, and their endings then.
  bool two_steps() const { return prompt_.endings.size() > 1 && options_.sequences.share; }

  /// The votes on texts `[first, last)`.
  void judge(std::size_t first, std::size_t last, std::vector<double>& found) {
    const std::size_t n = prompt_.endings.size();
    std::vector<text_request> whole, asked;
    if (two_steps()) {
      for (std::size_t i = first; i < last; ++i)
        if (const judged_text& t = texts_[i]; t.length > 0) whole.push_back({.text = std::span(t.with_ending[0]).first(t.length)});
      cache_.next(std::span<text_request>(whole), meter_, [](std::size_t, std::span<const float>) {});
    }
    auto own = whole.begin();
    for (std::size_t i = first; i < last; ++i) {
      const index_t from = two_steps() && texts_[i].length > 0 ? (own++)->from : -1;
      for (std::size_t e = 0; e < n; ++e)  // the last ending may have the text's own sequence; those before it are forks
        asked.push_back({.text = texts_[i].with_ending[e], .from = e + 1 == n ? from : -1});
    }
    const std::size_t each = short_of_memory_ ? 1 : asked.size();
    for (std::size_t k = 0; k < asked.size(); k += each)
      cache_.next(std::span(asked).subspan(k, each), meter_, [&](std::size_t a, std::span<const float> logits) {
        const std::size_t i = first + (k + a) / n, e = (k + a) % n;
        found[i] += vote(logits, i, e) / static_cast<double>(n);
      });
  }

  double vote(std::span<const float> logits, std::size_t i, std::size_t e) const {
    for (std::size_t v = 0; v < logits.size(); ++v)
      if (!(logits[v] <= std::numeric_limits<float>::max()))
        fail(message(op) << "the model's logit of token " << v << " is " << static_cast<double>(logits[v]) << " behind ending " << e
                         << " of candidate " << i << ".");
    const judge_ending& x = prompt_.endings[e];
    const double good = answer(logits, x.good), bad = answer(logits, x.bad), neutral = answer(logits, x.neutral);
    const double top = std::max({good, bad, neutral});
    if (!(top >= std::numeric_limits<double>::lowest()))
      fail(message(op) << "the model gives no answer any probability behind ending " << e << " of candidate " << i << ".");
    if (options_.vote == judge_vote::hard) return neutral > good && neutral > bad ? 0 : good > bad ? 1 : -1;
    const double g = std::exp(good - top), b = std::exp(bad - top);
    return (g - b) / (g + b + std::exp(neutral - top));
  }
  /// The logarithm of an answer's probability, but for what all answers share.
  double answer(std::span<const float> logits, std::span<const std::int32_t> tokens) const {
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (const std::int32_t t : tokens) top = std::max(top, static_cast<double>(logits[static_cast<std::size_t>(t)]));
    if (options_.spellings == judge_spellings::likeliest || !(top >= std::numeric_limits<double>::lowest())) return top;
    for (const std::int32_t t : tokens) sum += std::exp(static_cast<double>(logits[static_cast<std::size_t>(t)]) - top);
    return top + std::log(sum);
  }

  M* model_;
  judge_prompt prompt_;
  prompted_evaluator_options options_;
  prefix_cache<M> cache_;
  detail::meter meter_;
  bool prepared_ = false, short_of_memory_ = false;
  std::vector<judged_text> texts_{};
};

PLUMB_NAMESPACE_END

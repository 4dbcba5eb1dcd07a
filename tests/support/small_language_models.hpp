#pragma once
// Toy language models, judges, embedders and tokenizers for tests of search: functions of a few tokens and a seed, with a witness that counts what is
// alive, watches that the laws of the concept are kept, and makes the k-th call fail.

#include "support/catch.hpp"

#include <plumb/core/random.hpp>
#include <plumb/model/language_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace plumb_test {

using token_list = std::vector<std::int32_t>;
using token_span = std::span<const std::int32_t>;

/// One text after the other.
inline token_list joined(std::initializer_list<token_span> texts) {
  token_list all;
  for (const token_span t : texts) all.insert(all.end(), t.begin(), t.end());
  return all;
}

/// A number of a text: every token and its place count.
inline std::uint64_t text_hash(std::uint64_t seed, token_span text) {
  std::uint64_t h = plumb::random_stream{seed, 0x746f79}.bits(text.size());
  for (const std::int32_t t : text) h = (h ^ static_cast<std::uint64_t>(t + 1)) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
  return h;
}
/// In [0, 1).
inline double text_uniform(std::uint64_t seed, token_span text) { return static_cast<double>(text_hash(seed, text) >> 11) * 0x1p-53; }

/// What the toy models say: logits of the last `memory` tokens. Token 0 ends a text.
struct toy_world {
  std::uint64_t seed = 1;
  plumb::index_t vocab = 12;
  std::size_t memory = 2;    ///< tokens that the next one depends on
  double spread = 3;         ///< of the logits
  double end_logit = -1;     ///< added to token 0's
  double impossible = 0;     ///< share of the tokens but the likeliest that cannot follow a text
  double step = 0;           ///< logits are multiples of it, so that some are equal; 0: all differ
  std::function<std::vector<double>(token_span)> chances{};  ///< instead: what each token's chance is proportional to

  void logits(token_span text, std::vector<float>& out) const {
    if (chances) {
      out.clear();
      for (const double p : chances(text)) out.push_back(static_cast<float>(std::log(p)));
      return;
    }
    const token_span last = text.last(std::min(memory, text.size()));
    const plumb::random_stream r{text_hash(seed, last), 1};
    out.resize(static_cast<std::size_t>(vocab));
    for (std::size_t v = 0; v < out.size(); ++v) {
      double x = spread * (2 * r.uniform(v) - 1) + (v == 0 ? end_logit : 0);
      if (step > 0) x = std::round(x / step) * step;
      out[v] = static_cast<float>(x);
    }
    const float top = *std::max_element(out.begin(), out.end());
    for (std::size_t v = 0; v < out.size(); ++v)
      if (impossible > 0 && out[v] < top && r.uniform(1000 + v) < impossible) out[v] = -std::numeric_limits<float>::infinity();
  }
  std::vector<float> logits(token_span text) const {
    std::vector<float> out;
    logits(text, out);
    return out;
  }
};

/// A call that failed because the test wanted it to.
struct toy_failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Counts calls and makes one of them fail.
struct toy_fuse {
  std::int64_t calls = 0, fail_at = -1;  ///< the first call is number 1
  void call(const char* what) {
    if (++calls == fail_at) throw toy_failure(std::string("the toy's ") + what + " fails at call " + std::to_string(calls));
  }
};

/// Of one model: what is alive, what it was asked, which law was broken.
struct toy_witness {
  toy_fuse fuse;
  std::int64_t live = 0, most_live = 0, cells = 0, most_cells = 0;  ///< sequences; tokens that they hold
  std::int64_t tokens = 0, passes = 0, widest = 0, opens = 0, forks = 0, rewinds = 0, refusals = 0, full = 0;
  std::int64_t logits = 0, nan_at = -1;  ///< the logits of this call hold a NaN
  std::vector<std::string> broken{};
  std::set<std::uint64_t> readable{};  ///< sequences whose logits may be asked for
  std::uint64_t names = 0;

  [[noreturn]] void fail_law(const std::string& what) {
    broken.push_back(what);
    throw std::logic_error("toy: " + what);
  }
};

/// A toy's sequence. It counts as alive until it is destroyed, moved along or not.
class toy_sequence {
 public:
  toy_sequence(std::shared_ptr<toy_witness> w, token_list t) : witness(std::move(w)), tokens(std::move(t)), name(++witness->names) {
    witness->most_live = std::max(witness->most_live, ++witness->live);
    hold(static_cast<std::int64_t>(tokens.size()));
  }
  toy_sequence(toy_sequence&&) noexcept = default;
  toy_sequence& operator=(toy_sequence&& other) noexcept {
    toy_sequence old(std::move(other));
    std::swap(witness, old.witness), std::swap(tokens, old.tokens), std::swap(name, old.name), std::swap(dead, old.dead);
    return *this;
  }
  ~toy_sequence() {
    if (!witness) return;
    --witness->live;
    witness->cells -= static_cast<std::int64_t>(tokens.size());
    witness->readable.erase(name);
  }
  void hold(std::int64_t more) { witness->most_cells = std::max(witness->most_cells, witness->cells += more); }

  std::shared_ptr<toy_witness> witness;  ///< none in one that was moved from
  token_list tokens;
  std::uint64_t name;
  bool dead = false;  ///< an append to it threw
};

/// What a toy can do, beyond the least.
struct toy_skills {
  bool rewinds = false, batched = false, bounded = false;
};

/// A model over a `toy_world`.
template <toy_skills Skills = toy_skills{}>
class toy_model {
 public:
  using sequence = toy_sequence;
  static constexpr toy_skills skills = Skills;

  explicit toy_model(const toy_world& w = {}) : world(w) {}
  toy_model(const toy_model&) = delete;
  toy_model& operator=(const toy_model&) = delete;

  toy_world world;
  std::shared_ptr<toy_witness> witness = std::make_shared<toy_witness>();
  std::int64_t most_cells = std::numeric_limits<std::int64_t>::max();  ///< memory in tokens, for all sequences together
  std::int64_t most_sequences = std::numeric_limits<std::int32_t>::max();
  std::int64_t rewinds_before_refusing = std::numeric_limits<std::int64_t>::max();
  plumb::index_t longest = 1 << 20;

  plumb::index_t vocab_size() const { return world.vocab; }
  bool is_end(std::int32_t t) const { return t == 0; }
  plumb::index_t context() const requires(Skills.bounded) { return longest; }
  plumb::index_t max_sequences() const requires(Skills.batched) { return static_cast<plumb::index_t>(most_sequences); }
  std::size_t size(const sequence& s) const { return known(s).tokens.size(); }

  sequence open() {
    begin("open");
    require_room(0, true);
    ++witness->opens;
    return {witness, {}};
  }
  sequence fork(const sequence& s) {
    known(s);
    begin("fork");
    require_room(s.tokens.size(), true);
    ++witness->forks;
    return {witness, s.tokens};
  }
  void append(sequence& s, token_span tokens) {
    check(s, tokens);
    s.dead = true;  // until it has gone well
    begin("append");
    s.dead = false;
    require_room(tokens.size(), false);
    ++witness->passes;
    read(s, tokens);
  }
  void append_many(std::span<const plumb::sequence_step<toy_model>> steps) requires(Skills.batched) {
    std::set<std::uint64_t> names;
    std::size_t count = 0;
    if (steps.empty()) witness->fail_law("append_many without steps");
    for (const auto& s : steps) {
      check(*s.sequence, s.tokens);
      if (!names.insert(s.sequence->name).second) witness->fail_law("append_many of one sequence twice");
      count += s.tokens.size();
    }
    for (const auto& s : steps) s.sequence->dead = true;
    begin("append_many");
    for (const auto& s : steps) s.sequence->dead = false;
    require_room(count, false);
    ++witness->passes;
    witness->widest = std::max(witness->widest, static_cast<std::int64_t>(steps.size()));
    for (const auto& s : steps) read(*s.sequence, s.tokens);
  }
  /// The numbers are gone at the next call.
  std::span<const float> logits(const sequence& s) {
    known(s);
    if (!witness->readable.contains(s.name)) witness->fail_law("logits of a sequence that was not just appended to");
    std::ranges::fill(logits_, std::numeric_limits<float>::quiet_NaN());
    witness->fuse.call("logits");
    world.logits(s.tokens, logits_);
    if (++witness->logits == witness->nan_at)
      logits_[static_cast<std::size_t>(witness->logits) % logits_.size()] = std::numeric_limits<float>::quiet_NaN();
    return logits_;
  }
  bool rewind(sequence& s, std::size_t n) requires(Skills.rewinds) {
    if (n > known(s).tokens.size()) witness->fail_law("rewind to more tokens than there are");
    begin("rewind");
    if (++witness->rewinds > rewinds_before_refusing) {
      ++witness->refusals;
      return false;
    }
    s.hold(static_cast<std::int64_t>(n) - static_cast<std::int64_t>(s.tokens.size()));
    s.tokens.resize(n);
    return true;
  }

 private:
  const sequence& known(const sequence& s) const {
    if (!s.witness) witness->fail_law("a sequence that was moved from is used");
    if (s.witness != witness) witness->fail_law("another model's sequence is used");
    if (s.dead) witness->fail_law("a sequence is used after an append to it threw");
    return s;
  }
  void check(const sequence& s, token_span tokens) const {
    known(s);
    if (tokens.empty()) witness->fail_law("append of no tokens");
    for (const std::int32_t t : tokens)
      if (t < 0 || t >= world.vocab) witness->fail_law("token " + std::to_string(t) + " does not exist");
    if (Skills.bounded && static_cast<plumb::index_t>(s.tokens.size() + tokens.size()) > longest) witness->fail_law("append beyond the context");
  }
  /// From here on all logits are stale.
  void begin(const char* what) {
    witness->readable.clear();
    std::ranges::fill(logits_, std::numeric_limits<float>::quiet_NaN());
    witness->fuse.call(what);
  }
  void require_room(std::size_t tokens, bool another) {
    if (Skills.batched && another && witness->live >= most_sequences) witness->fail_law("more sequences than max_sequences()");
    if (witness->cells + static_cast<std::int64_t>(tokens) > most_cells || (another && witness->live >= most_sequences)) {
      ++witness->full;
      throw plumb::sequence_memory_full("toy: no memory");
    }
  }
  void read(sequence& s, token_span tokens) {
    s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
    s.hold(static_cast<std::int64_t>(tokens.size()));
    witness->tokens += static_cast<std::int64_t>(tokens.size());
    witness->readable.insert(s.name);
  }

  std::vector<float> logits_{};
};

using plain_toy = toy_model<>;
using rewindable_toy = toy_model<toy_skills{.rewinds = true}>;
using batched_toy = toy_model<toy_skills{.batched = true}>;
using complete_toy = toy_model<toy_skills{.rewinds = true, .batched = true, .bounded = true}>;

static_assert(plumb::check_language_model<plain_toy>() && !plumb::rewindable_model<plain_toy> && !plumb::batched_model<plain_toy>);
static_assert(plumb::rewindable_model<rewindable_toy> && plumb::batched_model<batched_toy> && !plumb::bounded_model<batched_toy>);
static_assert(plumb::rewindable_model<complete_toy> && plumb::batched_model<complete_toy> && plumb::bounded_model<complete_toy>);

/// No law was broken, and nothing is left of what was opened.
template <toy_skills Skills>
void check_left_clean(const toy_model<Skills>& m) {
  CHECK(m.witness->broken == std::vector<std::string>{});
  CHECK(m.witness->live == 0);
  CHECK(m.witness->cells == 0);
}
/// `f(model)` for the least and the most that a model can do; nothing may be left.
template <class F>
void least_and_most(const toy_world& w, const F& f) {
  const auto with = [&](auto&& m) {
    f(m);
    check_left_clean(m);
  };
  with(plain_toy(w));
  with(complete_toy(w));
}
/// How many calls of `fuse` there are in `f()`: each fails in its turn, and no sequence of the model is left after it; then `f()` comes through.
template <toy_skills Skills, class F>
std::int64_t each_failure(const toy_model<Skills>& m, toy_fuse& fuse, const F& f) {
  for (std::int64_t k = 1;; ++k) {
    bool failed = false;
    fuse = {.fail_at = k};
    try {
      f();
    } catch (const toy_failure&) {
      failed = true;
    }
    fuse = {};
    INFO("call " << k);
    CHECK(m.witness->live == 0);
    if (!failed) return k - 1;
  }
}

/// Judges by a function of the text; may fail, or say something odd, at its k-th call.
struct toy_judge {
  std::function<double(const plumb::candidate&)> says;
  toy_fuse fuse{};
  std::int64_t odd_at = -1;
  double odd = std::numeric_limits<double>::quiet_NaN();
  std::int64_t used = 0;  ///< tokens

  double operator()(const plumb::candidate& c) {
    fuse.call("judge");
    used += tokens_of(c);
    return fuse.calls == odd_at ? odd : says(c);
  }
  static std::int64_t tokens_of(const plumb::candidate& c) { return static_cast<std::int64_t>(c.prompt.size() + c.response.size()) + 2; }
};
/// Likewise with its tokens counted in the search's budget.
struct metered_toy_judge : toy_judge {
  std::int64_t tokens_used() const { return used; }
  std::int64_t cost(const plumb::candidate& c) const { return tokens_of(c); }
};
/// Likewise of many texts in a call.
struct batched_toy_judge {
  std::function<double(const plumb::candidate&)> says;
  toy_fuse fuse{};
  std::int64_t widest = 0;
  void score_many(std::span<const plumb::candidate> c, std::span<double> scores) {
    fuse.call("judge");
    widest = std::max(widest, static_cast<std::int64_t>(c.size()));
    for (std::size_t i = 0; i < c.size(); ++i) scores[i] = says(c[i]);
  }
};
static_assert(plumb::evaluator<toy_judge> && !plumb::metered_evaluator<toy_judge> && plumb::metered_evaluator<metered_toy_judge>);
static_assert(plumb::batched_evaluator<batched_toy_judge> && !plumb::evaluator<batched_toy_judge>);

/// Of many texts in a call, with room for just as many scores.
template <class E>
std::vector<double> scores_of(E&& judge, std::span<const plumb::candidate> texts) {
  std::vector<double> y(texts.size(), -7);
  judge.score_many(texts, y);
  return y;
}

/// Scores in `levels` steps from -1 to 1, any of them with the same chance; 0: all numbers in between.
inline std::function<double(const plumb::candidate&)> hashed_score(std::uint64_t seed, int levels = 3) {
  return [=](const plumb::candidate& c) {
    const double u = text_uniform(seed, c.response);
    return levels > 1 ? 2 * std::floor(u * levels) / (levels - 1) - 1 : 2 * u - 1;
  };
}
/// -1 where one of the tokens that divide by `n` is in it (the end token is none of them), 1 elsewhere.
inline std::function<double(const plumb::candidate&)> spoilt_by_multiples_of(std::int32_t n) {
  return [=](const plumb::candidate& c) {
    for (const std::int32_t t : c.response)
      if (t > 0 && t % n == 0) return -1.0;
    return 1.0;
  };
}
inline std::function<double(const plumb::candidate&)> always(double score) {
  return [=](const plumb::candidate&) { return score; };
}
/// Nothing is right that is longer than it may be for good: a search commits, finds out, and goes back.
inline std::function<double(const plumb::candidate&)> dead_ends(std::size_t longest) {
  return [=](const plumb::candidate& c) { return c.response.size() > longest || (!c.response.empty() && c.response.back() == 0) ? -1.0 : 1.0; };
}

/// The mean of its tokens' random vectors, of length 1: texts of the same tokens are alike. May fail, or give nothing but 0, at its k-th call.
struct toy_embedder {
  std::uint64_t seed = 7;
  std::size_t numbers = 3;
  toy_fuse fuse{};
  std::int64_t zero_at = -1, nan_at = -1, grows_at = -1;  ///< `grows_at`: from this call on it has one number more

  std::size_t dimension() const { return numbers + (grows_at >= 0 && fuse.calls + 1 >= grows_at ? 1 : 0); }
  void operator()(token_span text, std::span<float> out) {
    fuse.call("embedder");
    std::vector<double> sum(out.size(), 0.0);
    for (const std::int32_t t : text)
      for (std::size_t d = 0; d < out.size(); ++d) sum[d] += plumb::random_stream{seed, d}.normal(static_cast<std::uint64_t>(t));
    double norm = 0;
    for (const double x : sum) norm += x * x;
    for (std::size_t d = 0; d < out.size(); ++d) out[d] = norm > 0 ? static_cast<float>(sum[d] / std::sqrt(norm)) : d == 0 ? 1.0f : 0.0f;
    if (fuse.calls == zero_at) std::ranges::fill(out, 0.0f);
    if (fuse.calls == nan_at) out[0] = std::numeric_limits<float>::quiet_NaN();
  }
};
static_assert(plumb::embedder<toy_embedder>);

/// Tokens are the pieces with these numbers, which are only put together; without pieces they are bytes.
struct toy_tokenizer {
  std::vector<std::string> pieces{};

  token_list encode(const std::string& text) const {
    if (!pieces.empty()) throw std::logic_error("toy: texts cannot be cut into pieces");
    return {text.begin(), text.end()};
  }
  std::string decode(token_span tokens) const {
    std::string text;
    for (const std::int32_t t : tokens) text += pieces.empty() ? std::string(1, static_cast<char>(t)) : pieces.at(static_cast<std::size_t>(t));
    return text;
  }
};
static_assert(plumb::tokenizer<toy_tokenizer>);

}  // namespace plumb_test

#pragma once
// RAIN's claim in the clause world: a small transformer learns to write and to judge, is then frozen, and writes by every method with its own
// judgement.

#include "claims/rain_runs.hpp"
#include "lab/language_model.hpp"

#include <plumb/search/best_of_n.hpp>
#include <plumb/search/blockwise_best_of_n.hpp>
#include <plumb/search/decoding.hpp>
#include <plumb/search/embedders.hpp>
#include <plumb/search/prompted_evaluator.hpp>
#include <plumb/search/rain.hpp>

#include <cstring>
#include <memory>

namespace claims::clause {

using plumb::index_t;

/// Everything that a seed's model depends on, but the seed.
struct training_settings {
  std::size_t judged = 0;  ///< K: distinct texts that the model learns to judge from
  risk world{};
  index_t width = 32, layers = 2, heads = 4, feed_forward = 64;
  int steps = 3000;
  int dialogues = 11, questions = 9;  ///< texts of a step
  double letter_weight = 4;           ///< what the letter behind a question counts for beside a token of a dialogue
  double rate = 3e-3;                 ///< of AdamW; a fifth of it for the last 30 %
};

// Streams of random numbers, one for each use.
enum purpose : std::uint64_t { for_dialogues = 1, for_judged, for_order, for_fresh, for_topics, for_greedy_order, for_draws, for_search };

/// Where a text is judged: behind a clause, or at its end.
inline bool is_boundary(std::span<const token> text) { return !text.empty() && (text.back() == comma || text.back() == stop); }

/// The question of clause_world.hpp as `plumb::prompted_evaluator` asks it, in both orders of the options.
inline plumb::judge_prompt judge_question() {
  plumb::judge_prompt q{.before = {judge}};
  q.show_prompt = plumb::shown_from{1};
  for (const bool harmless_first : {true, false}) {
    plumb::judge_ending e{.tokens = {harmless_option, harmful_option, equals}, .good = {letter_a}, .bad = {letter_b}};
    if (!harmless_first) {
      std::swap(e.tokens[0], e.tokens[1]);
      std::swap(e.good, e.bad);
    }
    q.endings.push_back(e);
  }
  return q;
}

/// A model that writes and judges.
template <class B>
class writer {
 public:
  using real = plumb::real_of<B>;

  writer(B& compute, const training_settings& s, std::uint64_t seed)
      : b_(compute),
        s_(s),
        seed_(seed),
        memory_(std::size_t{1} << 27),
        model_({.vocabulary = vocabulary,
                .width = s.width,
                .layers = s.layers,
                .heads = s.heads,
                .feed_forward = s.feed_forward,
                .positions = positions},
               seed) {}

  lab::transformer<B>& model() { return model_; }
  lab::workspace& memory() { return memory_; }
  B& compute() { return b_; }

  /// From nothing: dialogues by their replies, questions by their letters.
  void train() {
    dice examples(seed_, for_judged), talk(seed_, for_dialogues), order(seed_, for_order);
    const auto judged = draw_distinct(s_.judged, examples);
    lab::trainer<B> learner(b_, memory_, model_);
    for (int step = 0; step < s_.steps; ++step) {
      std::vector<lab::sample> texts;
      for (int i = 0; i < s_.dialogues; ++i) {
        const int topic = static_cast<int>(talk.below(topics));
        texts.push_back(lab::joined(prompt_of(topic), draw_reply(topic, s_.world, talk)));
      }
      for (int i = 0; i < s_.questions; ++i) {
        const judged_text& j = order.pick(judged);
        const bool harmless_first = order.chance(0.5);
        texts.push_back(lab::joined(question_of(j.topic, j.text, harmless_first), {harmless_first == j.harmless ? letter_a : letter_b}));
      }
      const double warm = std::min(1.0, (step + 1) / 100.0), left = step < 0.7 * s_.steps ? 1 : 0.2;
      learn(learner, lab::batch(texts), s_.rate * warm * left);
    }
  }

  /// How often the judge is right about fresh texts of the kind that it learned from; where its two votes differ, a half.
  double judge_accuracy(int count) {
    dice random(seed_, for_fresh);
    lab::transformer_language_model<B> lm(b_, memory_, model_, stop);
    plumb::prompted_evaluator judge(lm, judge_question());
    double right = 0;
    for (int i = 0; i < count; ++i) {
      const judged_text j = draw_judged(random);
      const tokens prompt = prompt_of(j.topic);
      const double score = judge(plumb::candidate{prompt, j.text, false});
      right += score == 0 ? 0.5 : (score > 0) == j.harmless ? 1 : 0;
    }
    return right / count;
  }

  /// FNV-1a of the weights' bytes, folded to 48 bits so that a figure can hold it.
  double weights_hash() const {
    std::uint64_t h = 1469598103934665603u;
    for (const real w : model_.weights()) {
      const float x = static_cast<float>(w);
      unsigned char bytes[sizeof x];
      std::memcpy(bytes, &x, sizeof x);
      for (const unsigned char byte : bytes) h = (h ^ byte) * 1099511628211u;
    }
    return static_cast<double>((h ^ h >> 48) & 0xffffffffffffu);
  }

 private:
  void learn(lab::trainer<B>& learner, const lab::batch& x, double rate) {
    auto& scratch = memory_();
    const typename plumb::arena<>::frame frame(scratch);
    const auto pass = lab::token_logp(b_, scratch, model_, x);
    const auto d_logp = scratch.template take<real>(x.scored_count());
    // Two losses over one array: of the dialogues' tokens, and of the letters.
    const auto all = x.scored();
    const auto from = static_cast<index_t>(s_.dialogues), letters = static_cast<index_t>(s_.questions);
    const plumb::sequence_layout<> talk{.begin = all.begin.narrow(0, 0, from), .end = all.end.narrow(0, 0, from)},
        asked{.begin = all.begin.narrow(0, from, letters), .end = all.end.narrow(0, from, letters)};
    const double denominator = static_cast<double>(x.scored_count() - letters) + s_.letter_weight * static_cast<double>(letters);
    plumb::supervised(b_, scratch, {.logp = pass.logp, .sequences = talk}, {.denominator = denominator}, {.d_logp = d_logp});
    plumb::supervised(b_, scratch, {.logp = pass.logp, .sequences = asked}, {.denominator = denominator, .weight = s_.letter_weight},
                      {.d_logp = d_logp, .mode = plumb::write_mode::add});
    learner.backward(pass, as_const(d_logp));
    learner.step(rate);
  }

  B& b_;
  training_settings s_;
  std::uint64_t seed_;
  lab::workspace memory_;
  lab::transformer<B> model_;
};

/// What a method made of a prompt.
struct written {
  tokens reply{};
  std::int64_t tokens_used = 0;  ///< forward tokens, the judge's among them
  std::int64_t judgements = 0;
};

/// The settings of RAIN in this world: those of the authors' code, but that a token set is a clause.
inline plumb::rain_options rain_defaults() {
  plumb::rain_options o;
  o.set_lengths = {clause_length};
  o.boundary = is_boundary;
  o.max_new_tokens = reply_length;
  return o;
}

/// Who judges: the model, by hard or by soft votes, or the grammar, which never errs and takes no forward tokens.
enum class judging { hard, soft, oracle };
struct oracle_judge {
  double operator()(const plumb::candidate& c) const { return worth_of(topic_of(c.prompt[1]), c.response).harmless ? 1 : -1; }
};

/// All methods over one frozen model.
template <class B>
class player {
 public:
  explicit player(writer<B>& w) : lm_(w.compute(), w.memory(), w.model(), stop, {.tokens = 8192, .sequences = 96}), embedder_(table_of(w.model())) {}

  written greedy(int topic) { return decoded(topic, 0, 0); }
  written sampled(int topic, std::uint64_t seed) { return decoded(topic, 1, seed); }
  /// As many replies as `budget` forward tokens allow.
  written best_of_n(judging by, int topic, std::uint64_t seed, std::int64_t budget, bool greedy_first) {
    plumb::decode_best_of_n_options o{.n = 1000000, .greedy_first = greedy_first, .max_new_tokens = reply_length, .seed = seed};
    o.limits.tokens = budget;
    return search(by, topic, [&](auto& judge, const tokens& prompt) { return plumb::decode_best_of_n(lm_, judge, prompt, o); });
  }
  written best_of(judging by, int topic, std::uint64_t seed, index_t n) {
    const plumb::decode_best_of_n_options o{.n = n, .max_new_tokens = reply_length, .seed = seed};
    return search(by, topic, [&](auto& judge, const tokens& prompt) { return plumb::decode_best_of_n(lm_, judge, prompt, o); });
  }
  written blockwise(judging by, int topic, std::uint64_t seed, index_t n) {
    plumb::blockwise_best_of_n_options o{.n = n, .max_block_tokens = 2 * clause_length, .max_new_tokens = reply_length, .seed = seed};
    o.boundary = is_boundary;
    return search(by, topic, [&](auto& judge, const tokens& prompt) { return plumb::blockwise_best_of_n(lm_, judge, prompt, o); });
  }
  written rain(judging by, int topic, std::uint64_t seed, plumb::rain_options o, bool similarity = true) {
    o.seed = seed;
    return search(by, topic, [&](auto& judge, const tokens& prompt) {
      return similarity ? plumb::rain(lm_, judge, prompt, o, embedder_) : plumb::rain(lm_, judge, prompt, o);
    });
  }
  /// The same search, with every node that was ever in its tree. What is committed is as it was when it was.
  void watch(drawn_search& s, std::uint64_t seed, plumb::rain_options o) {
    o.seed = seed;
    o.keep_discarded = true;
    std::vector<plumb::rain_child> chosen;
    o.on_commit = [&](const plumb::rain_commit& c) { chosen.push_back(c.children[static_cast<std::size_t>(c.chosen)]); };
    const tokens prompt = prompt_of(s.topic);
    plumb::prompted_evaluator judge(lm_, judge_question());
    plumb::rain_search one(lm_, judge, prompt, o, embedder_);
    while (one.round()) {
    }
    for (const plumb::rain_record& r : one.records()) {
      s.nodes.push_back({r.id, r.parent, r.tokens, r.prior, r.visits, r.value, r.evaluations, r.committed, r.terminal});
      if (!r.committed || r.depth == 0) continue;
      const plumb::rain_child& then = chosen.at(static_cast<std::size_t>(r.depth) - 1);
      drawn_node& n = s.nodes.back();
      n.prior = then.prior, n.visits = then.visits, n.value = then.value, n.evaluations = then.evaluations;
    }
    s.reply.assign(one.response().begin(), one.response().end());
    s.simulations = one.counters().simulations;
    s.tokens_used = one.counters().tokens;
  }

 private:
  static plumb::view<const float, 2> table_of(const lab::transformer<B>& model) {
    const auto& p = model.layout().list()[lab::parameter_layout::embedding];
    return {model.weights().data() + p.offset, p.rows, p.columns};
  }
  static written kept(const tokens& reply, const plumb::search_counters& c) { return {reply, c.tokens, c.judgements}; }
  // Each search has a judge of its own: what it takes does not hang on what was judged before.
  template <class Search>
  written search(judging by, int topic, const Search& f) {
    const tokens prompt = prompt_of(topic);
    if (by == judging::oracle) {
      oracle_judge judge;
      const auto r = f(judge, prompt);
      return kept(r.response, r.counters);
    }
    plumb::prompted_evaluator judge(lm_, judge_question(), {.vote = by == judging::soft ? plumb::judge_vote::soft : plumb::judge_vote::hard});
    const auto r = f(judge, prompt);
    return kept(r.response, r.counters);
  }
  written decoded(int topic, double temperature, std::uint64_t seed) {
    const tokens prompt = prompt_of(topic);
    const auto r = plumb::decode(lm_, prompt, {.temperature = temperature, .max_new_tokens = reply_length, .seed = seed});
    return kept(r.response, r.counters);
  }

  lab::transformer_language_model<B> lm_;
  plumb::token_table_embedder embedder_;
};

}  // namespace claims::clause

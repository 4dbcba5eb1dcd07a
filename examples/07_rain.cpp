// RAIN beside greedy decoding and best of n: a waiter who would rather be rude, and a judge who notices. The model is a table of which word follows
// which, and stays as it is; an engine of yours has the same few functions (docs/models.md).
#include <plumb/search/blockwise_best_of_n.hpp>
#include <plumb/search/rain.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using token_span = std::span<const std::int32_t>;

// A word, then what may follow it: three times out of four the first.
constexpr const char* lines[] = {
    "soup! So Oh",    "So what, sorry,", "Oh shush, dear,",    "what, you sir,",      "sorry, you sir,",    "shush, you sir,",   "dear, you sir,",
    "you oaf, poor",  "poor fool, soul,", "oaf, eat have",     "fool, eat have",      "soul, eat have",     "sir, eat have",     "eat up, something",
    "something else,", "have it another", "it framed, free,",  "another fly, bowl,",  "up, and",            "else, and",         "framed, and",
    "free, and",      "fly, and",        "bowl, and",          "and never stay",      "never return. mind.", "stay away. for",
    "for ever. dessert."};
constexpr const char* rude = " what, shush, oaf, fool, up, framed, fly, return. away. ever. ";

struct waiter {
  std::vector<std::string> words{"."};           // word 0 ends a reply
  std::vector<std::vector<std::int32_t>> after;  // each word

  waiter() {
    for (const char* text : lines) {
      std::istringstream line(text);
      std::string word;
      line >> word;
      const auto here = static_cast<std::size_t>(id(word));
      while (line >> word) {
        const std::int32_t next = id(word);  // `after` may grow
        after[here].push_back(next);
      }
    }
  }
  std::int32_t id(const std::string& word) {
    const auto at = std::ranges::find(words, word) - words.begin();
    if (at == std::ssize(words)) words.push_back(word);
    after.resize(words.size());
    return static_cast<std::int32_t>(at);
  }
  const std::string& word(std::int32_t id) const { return words[static_cast<std::size_t>(id)]; }
  std::string say(token_span said) const {
    std::string s;
    for (const std::int32_t w : said)
      if (!is_end(w)) s += (s.empty() ? "" : " ") + word(w);
    return s;
  }

  // What plumb asks of a language model.
  using sequence = std::vector<std::int32_t>;
  plumb::index_t vocab_size() const { return std::ssize(words); }
  bool is_end(std::int32_t w) const { return w == 0; }
  sequence open() { return {}; }
  sequence fork(const sequence& s) { return s; }
  void append(sequence& s, token_span more) { s.insert(s.end(), more.begin(), more.end()); }
  std::size_t size(const sequence& s) const { return s.size(); }
  std::span<const float> logits(const sequence& s) {
    row.assign(words.size(), -20);
    float logit = std::log(3.0f);
    for (const std::int32_t next : after[static_cast<std::size_t>(s.back())]) row[static_cast<std::size_t>(next)] = std::exchange(logit, 0.0f);
    if (logit > 0) row[0] = 0;  // nothing follows: the end
    return row;
  }
  std::vector<float> row;
};
static_assert(plumb::check_language_model<waiter>());

int main() {
  waiter model;
  const std::vector<std::int32_t> prompt{model.id("soup!")};
  const auto is_rude = [&](std::int32_t w) { return std::string(rude).find(" " + model.word(w) + " ") != std::string::npos; };
  const auto judge = [&](const plumb::candidate& c) { return std::ranges::any_of(c.response, is_rude) ? -1.0 : 1.0; };
  const auto after_comma = [&](token_span said) { return !said.empty() && model.word(said.back()).back() == ','; };
  const auto print = [&](const std::string& who, token_span said, const plumb::search_counters& used) {
    std::printf("%-13s %s (%d words read, %d texts judged)\n", who.c_str(), model.say(said).c_str(), static_cast<int>(used.tokens),
                static_cast<int>(used.judgements));
  };
  std::printf("Waiter, there is a fly in my soup!\n");

  const auto greedy = plumb::decode(model, prompt, {.temperature = 0});
  print("greedy", greedy.response, greedy.counters);

  plumb::rain_options options;
  options.boundary = after_comma;
  // Most of what may follow is rude, whatever comes before: the mean, which is RAIN's own rule, would blame good beginnings for it.
  options.tree.backup = plumb::rain_backup::max;
  options.on_commit = [&](const plumb::rain_commit& c) {  // what is committed stays: show it at once
    std::printf("  %-25s", model.say(c.tokens).c_str());
    if (c.chosen > 0) std::printf("(not: %s)", model.say(c.children[0].tokens).c_str());  // the model's first choice
    std::printf("\n");
  };
  const auto rain = plumb::rain(model, judge, prompt, options);
  print("RAIN", rain.response, rain.counters);
  std::printf("  why it stopped: %s%s\n", rain.why_it_stopped(), rain.condemned ? "; at times all that it found was rude" : "");

  const auto best = plumb::decode_best_of_n(model, judge, prompt, {.n = 1000, .limits = {.tokens = rain.counters.tokens}});
  print("best of " + std::to_string(best.scores.size()), best.response, best.counters);

  // Simpler, and enough where each clause can be judged by itself: always try it as well.
  const auto blocks = plumb::blockwise_best_of_n(model, judge, prompt, {.n = 16, .boundary = after_comma});
  print("16 per clause", blocks.response, blocks.counters);
}
// prints: Waiter, there is a fly in my soup!
// prints: greedy        So what, you oaf, eat up, and never return. (10 words read, 0 texts judged)
// prints:   Oh                       (not: So)
// prints:   dear, sir,               (not: shush, you)
// prints:   eat something else, and  (not: eat up, and never)
// prints:   never mind.              (not: never return.)
// prints: RAIN          Oh dear, sir, eat something else, and never mind. (77 words read, 14 texts judged)
// prints:   why it stopped: ended
// prints: best of 9     So what, you oaf, eat up, and never return. (77 words read, 8 texts judged)
// prints: 16 per clause So sorry, you poor soul, have another bowl, and never mind. (19 words read, 15 texts judged)

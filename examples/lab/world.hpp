#pragma once
// The world of the alignment lab: short prompts in a restricted English, replies of mixed quality, and a gold judge that a program
// computes and a person can read. Preference labels and ratings come from the judge with noise.
//
// A prompt is a few facts and a question ("the lamp is green . ann likes tea . what color is the lamp ?"). A good reply states the
// answer once, in a sentence, with one courtesy phrase ("the lamp is green . glad to help ."). Everything is a pure function of a
// seed.

#include <plumb/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lab {

using token = std::int32_t;
using tokens = std::vector<token>;

/// A stream of random numbers that remembers where it is; `world_random{seed, purpose}` starts the same sequence anywhere.
class world_random {
 public:
  explicit world_random(std::uint64_t seed, std::uint64_t purpose = 0) : stream_{seed, purpose} {}
  double uniform() { return stream_.uniform(next_++); }
  double normal() { return stream_.normal(next_++); }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(stream_.below(n, next_++)); }
  bool chance(double p) { return uniform() < p; }
  template <class C>
  const auto& pick(const C& choices) { return choices[below(choices.size())]; }

 private:
  plumb::random_stream stream_;
  std::uint64_t next_ = 0;
};

// The words. Sets are disjoint, so a word says what it is.
inline const std::vector<std::string> things{"box", "lamp", "key", "book", "cup", "door", "chair", "coat", "ball", "bag",
                                             "clock", "hat", "pen", "ring", "shoe", "plate", "drum", "kite", "map", "vase"};
inline const std::vector<std::string> colors{"red", "green", "blue", "white", "black", "yellow", "brown", "pink", "gray", "purple"};
inline const std::vector<std::string> places{"kitchen", "garden", "drawer", "hall", "attic", "cellar", "garage", "closet",
                                             "office", "shed", "tower", "stable"};
inline const std::vector<std::string> people{"ann", "bob", "carl", "dora", "eve", "finn", "gina", "hugo", "iris", "jack",
                                             "kate", "leo", "mia", "nick", "olga", "paul"};
inline const std::vector<std::string> foods{"tea", "rice", "soup", "bread", "cheese", "honey", "fish", "cake", "milk", "salad", "pasta", "jam"};
inline const std::vector<std::string> goods{"apples", "coins", "stones", "eggs", "stamps", "roses", "nuts", "shells"};
inline const std::vector<std::string> numbers{"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
                                              "ten", "eleven", "twelve"};
/// Courtesy phrases; one, at the end, is polite, more is fawning.
inline const std::vector<std::vector<std::string>> courtesies{
    {"glad", "to", "help", "."}, {"happy", "to", "help", "."}, {"hope", "this", "helps", "."}, {"have", "a", "nice", "day", "."}};
inline const std::vector<std::vector<std::string>> rude_phrases{
    {"look", "yourself", "."}, {"stop", "asking", "."}, {"who", "cares", "."}};

class vocabulary {
 public:
  static constexpr token bos = 0, end_of_prompt = 1, end_of_reply = 2;

  vocabulary() {
    for (const char* w : {"<bos>", "<reply>", "<end>", ".", "?", "the", "is", "in", "what", "color", "where", "who", "likes",
                          "does", "like", "how", "many", "have", "has", "gives", "more", "a"})
      add(w);
    for (const auto* set : {&things, &colors, &places, &people, &foods, &goods, &numbers})
      for (const auto& w : *set) add(w);
    for (const auto* set : {&courtesies, &rude_phrases})
      for (const auto& phrase : *set)
        for (const auto& w : phrase) add(w);
  }
  std::size_t size() const { return words_.size(); }
  const std::string& word(token t) const { return words_.at(static_cast<std::size_t>(t)); }
  token id(const std::string& word) const {
    const auto found = ids_.find(word);
    if (found == ids_.end()) throw std::invalid_argument("the lab's vocabulary has no word \"" + word + "\"");
    return found->second;
  }
  tokens encode(const std::vector<std::string>& words) const {
    tokens t;
    for (const auto& w : words) t.push_back(id(w));
    return t;
  }
  /// Words of a text, separated by spaces.
  tokens encode(const std::string& text) const {
    std::vector<std::string> words;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t space = std::min(text.find(' ', at), text.size());
      if (space > at) words.push_back(text.substr(at, space - at));
      at = space + 1;
    }
    return encode(words);
  }
  std::string decode(const tokens& t) const {
    std::string text;
    for (token w : t) text += (text.empty() ? "" : " ") + word(w);
    return text;
  }

 private:
  void add(const std::string& word) {
    if (ids_.emplace(word, static_cast<token>(words_.size())).second) words_.push_back(word);
  }
  std::vector<std::string> words_;
  std::unordered_map<std::string, token> ids_;
};

inline const vocabulary& words() {
  static const vocabulary v;
  return v;
}

/// One thing that is so: a thing's colour or place, what somebody likes, how many of something somebody has.
struct fact {
  enum kind_type { color, place, liking, count } kind;
  std::string subject, object;  ///< for `count`, the number's word
  std::string good{};           ///< for `count`, what is counted
  bool operator==(const fact&) const = default;
};

/// "the lamp is green .", "the key is in the hall .", "ann likes tea .", "bob has two coins ."
inline std::vector<std::string> sentence(const fact& f) {
  switch (f.kind) {
    case fact::color: return {"the", f.subject, "is", f.object, "."};
    case fact::place: return {"the", f.subject, "is", "in", "the", f.object, "."};
    case fact::liking: return {f.subject, "likes", f.object, "."};
    default: return {f.subject, "has", f.object, f.good, "."};
  }
}

/// Facts and a question about one of them. For counts a gift may add to what is stated, so the answer has to be worked out.
struct prompt {
  std::vector<fact> facts;
  fact answer;      ///< what a correct reply states
  tokens text{};    ///< `<bos>` facts question `<reply>`
};

namespace detail {
inline bool is_one_of(const std::vector<std::string>& set, const std::string& w) {
  return std::find(set.begin(), set.end(), w) != set.end();
}
inline void append(std::vector<std::string>& to, const std::vector<std::string>& more) {
  to.insert(to.end(), more.begin(), more.end());
}
inline fact draw_fact(world_random& r, fact::kind_type kind) {
  switch (kind) {
    case fact::color: return {kind, r.pick(things), r.pick(colors)};
    case fact::place: return {kind, r.pick(things), r.pick(places)};
    case fact::liking: return {kind, r.pick(people), r.pick(foods)};
    default: return {kind, r.pick(people), numbers[2 + r.below(5)], r.pick(goods)};
  }
}
inline std::vector<std::string> question(const fact& f) {
  switch (f.kind) {
    case fact::color: return {"what", "color", "is", "the", f.subject, "?"};
    case fact::place: return {"where", "is", "the", f.subject, "?"};
    case fact::liking: return {"what", "does", f.subject, "like", "?"};
    default: return {"how", "many", f.good, "does", f.subject, "have", "?"};
  }
}
}  // namespace detail

inline prompt draw_prompt(world_random& r) {
  prompt p;
  const std::size_t asked = r.below(3);
  std::vector<std::string> text{"<bos>"};
  for (std::size_t i = 0; i < 3; ++i) {
    fact f;
    const auto taken = [&] {
      for (const auto& g : p.facts)
        if (g.subject == f.subject) return true;
      return false;
    };
    do f = detail::draw_fact(r, static_cast<fact::kind_type>(r.below(4)));
    while (taken());
    p.facts.push_back(f);
    detail::append(text, sentence(f));
    if (i != asked) continue;
    p.answer = f;
    if (f.kind == fact::count && r.chance(0.5)) {  // "finn gives ann three more ."
      std::string giver;
      do giver = r.pick(people);
      while (giver == f.subject);
      const std::size_t gift = 1 + r.below(4);
      detail::append(text, {giver, "gives", f.subject, numbers[gift], "more", "."});
      const auto had = static_cast<std::size_t>(std::find(numbers.begin(), numbers.end(), f.object) - numbers.begin());
      p.answer.object = numbers[had + gift];
    }
  }
  detail::append(text, detail::question(p.answer));
  text.push_back("<reply>");
  p.text = words().encode(text);
  return p;
}

/// Held-out prompts are those whose text hashes to 0 modulo 8; training draws again when it meets one.
inline bool held_out(const prompt& p) {
  std::uint64_t h = 1469598103934665603u;  // FNV-1a
  for (token t : p.text) h = (h ^ static_cast<std::uint64_t>(t)) * 1099511628211u;
  return (h >> 20) % 8 == 0;
}
inline prompt draw_prompt(world_random& r, bool from_held_out) {
  for (;;) {
    prompt p = draw_prompt(r);
    if (held_out(p) == from_held_out) return p;
  }
}

// The judge.

inline constexpr std::array<const char*, 5> attributes{"correctness", "relevance", "politeness", "conciseness", "fluency"};
/// The gold total is this weighted sum of the attributes; like them, it lies in 0 .. 4.
inline constexpr std::array<double, 5> gold_weights{0.35, 0.15, 0.20, 0.15, 0.15};

struct judgement {
  std::array<double, 5> attribute{};  ///< each in 0 .. 4
  double total = 0;
  int courteous = 0;  ///< courtesy phrases, repeated ones among them
  bool rude = false;
  std::vector<std::string> reasons{};
};

/// Reads a sentence of a reply as a statement; false where it is none.
inline bool parse(const std::vector<std::string>& s, fact& f) {
  const auto in = detail::is_one_of;
  if (s.size() == 4 && s[0] == "the" && in(things, s[1]) && s[2] == "is" && in(colors, s[3])) {
    f = {fact::color, s[1], s[3]};
  } else if (s.size() == 6 && s[0] == "the" && in(things, s[1]) && s[2] == "is" && s[3] == "in" && s[4] == "the" && in(places, s[5])) {
    f = {fact::place, s[1], s[5]};
  } else if (s.size() == 3 && in(people, s[0]) && s[1] == "likes" && in(foods, s[2])) {
    f = {fact::liking, s[0], s[2]};
  } else if (s.size() == 4 && in(people, s[0]) && s[1] == "has" && in(numbers, s[2]) && in(goods, s[3])) {
    f = {fact::count, s[0], s[2], s[3]};
  } else {
    return false;
  }
  return true;
}

/// Judges a reply (with or without its `<end>`). Exact and deterministic.
inline judgement judge(const prompt& p, const tokens& reply) {
  std::vector<std::vector<std::string>> sentences(1);
  std::size_t length = 0;
  for (token t : reply) {
    if (t == vocabulary::end_of_reply) break;
    ++length;
    if (words().word(t) == ".") {
      sentences.emplace_back();
    } else {
      sentences.back().push_back(words().word(t));
    }
  }
  const bool unfinished = !sentences.back().empty();
  if (!unfinished) sentences.pop_back();
  judgement j;
  if (length == 0) {
    j.reasons.push_back("says nothing");
    return j;
  }
  const auto text = [](const std::vector<std::string>& s) {
    std::string t;
    for (const auto& w : s) t += (t.empty() ? "" : " ") + w;
    return t;
  };
  const auto is_phrase = [](const std::vector<std::vector<std::string>>& set, std::vector<std::string> s) {
    s.push_back(".");
    return std::find(set.begin(), set.end(), s) != set.end();
  };
  int right = 0, wrong = 0, off_topic = 0, invented = 0, courteous = 0, rude = 0, broken = 0, repeated = 0;
  bool polite_end = false;
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    const auto& s = sentences[i];
    j.courteous += is_phrase(courtesies, s);
    if (std::find(sentences.begin(), sentences.begin() + static_cast<std::ptrdiff_t>(i), s) !=
        sentences.begin() + static_cast<std::ptrdiff_t>(i)) {
      ++repeated;
      j.reasons.push_back("repeats \"" + text(s) + "\"");
      continue;
    }
    fact f;
    if (is_phrase(courtesies, s)) {
      ++courteous;
      polite_end = i + 1 == sentences.size();
    } else if (is_phrase(rude_phrases, s)) {
      ++rude;
      j.rude = true;
      j.reasons.push_back("is rude: \"" + text(s) + "\"");
    } else if (!parse(s, f)) {
      ++broken;
      j.reasons.push_back("is no sentence: \"" + text(s) + "\"");
    } else if (f.kind == p.answer.kind && f.subject == p.answer.subject && f.good == p.answer.good) {
      (f == p.answer ? right : wrong) += 1;
      j.reasons.push_back(f == p.answer ? "answers rightly" : "says \"" + text(s) + "\", but it is " + p.answer.object);
    } else if (std::find(p.facts.begin(), p.facts.end(), f) != p.facts.end()) {
      ++off_topic;
      j.reasons.push_back("was not asked: \"" + text(s) + "\"");
    } else {
      ++invented;
      j.reasons.push_back("made up: \"" + text(s) + "\"");
    }
  }
  if (right + wrong == 0) j.reasons.push_back("does not answer");
  if (courteous == 0 && rude == 0) j.reasons.push_back("has no courtesy");
  if (courteous > 1) j.reasons.push_back("is overly courteous");
  if (unfinished) j.reasons.push_back("breaks off");
  const auto clamp = [](double x) { return x < 0 ? 0.0 : x > 4 ? 4.0 : x; };
  j.attribute[0] = right == 0 ? (wrong > 0 ? 1 : 0) : clamp(4 - 3 * wrong - 2 * invented);
  j.attribute[1] = right + wrong == 0 ? 0 : clamp(4 - 1.5 * (off_topic + invented));
  j.attribute[2] = rude > 0 ? 0 : courteous == 0 ? 2 : courteous > 1 ? clamp(4.5 - 1.5 * (courteous - 1)) : polite_end ? 4 : 3;
  const double over = length > 14 ? (static_cast<double>(length) - 14) / 2 : 0;
  j.attribute[3] = clamp(4 - 2 * repeated - over);
  j.attribute[4] = clamp(4 - 2 * broken - (unfinished ? 1 : 0));
  if (over > 0) j.reasons.push_back("is long");
  for (std::size_t k = 0; k < 5; ++k) j.total += gold_weights[k] * j.attribute[k];
  return j;
}

inline std::string explain(const judgement& j) {
  std::string text;
  for (const auto& r : j.reasons) text += (text.empty() ? "" : "; ") + r;
  return text;
}

// The writers.

/// Chances of each flaw in a reply.
struct writer {
  double wrong, off_topic, no_courtesy, rude, fawning, repeat, dropped_word;  ///< `fawning`: another courtesy, up to three times
};
inline constexpr writer base_writer{0.45, 0.35, 0.55, 0.12, 0.25, 0.25, 0.20};           ///< text for pretraining
inline constexpr writer demonstration_writer{0.18, 0.20, 0.45, 0.05, 0.15, 0.12, 0.08};  ///< supervised fine-tuning: mixed quality

inline tokens write_reply(const prompt& p, const writer& w, world_random& r) {
  fact said = p.answer;
  if (r.chance(w.wrong)) {
    const auto& set = said.kind == fact::color ? colors : said.kind == fact::place ? places : said.kind == fact::liking ? foods : numbers;
    do said.object = r.pick(set);
    while (said.object == p.answer.object);
  }
  std::vector<std::string> text = sentence(said);
  if (r.chance(w.dropped_word)) text.erase(text.begin() + static_cast<std::ptrdiff_t>(r.below(text.size() - 1)));
  if (r.chance(w.off_topic)) {
    const auto other = sentence(r.pick(p.facts));
    if (r.chance(0.5)) {
      detail::append(text, other);
    } else {
      text.insert(text.begin(), other.begin(), other.end());
    }
  }
  if (r.chance(w.repeat)) detail::append(text, sentence(said));
  if (r.chance(w.rude)) {
    detail::append(text, r.pick(rude_phrases));
  } else if (!r.chance(w.no_courtesy)) {
    detail::append(text, r.pick(courtesies));
    for (int more = 0; more < 3 && r.chance(w.fawning); ++more) detail::append(text, r.pick(courtesies));
  }
  tokens t = words().encode(text);
  t.push_back(vocabulary::end_of_reply);
  return t;
}
/// The best there is: total 4.
inline tokens ideal_reply(const prompt& p) {
  auto text = sentence(p.answer);
  detail::append(text, courtesies.front());
  tokens t = words().encode(text);
  t.push_back(vocabulary::end_of_reply);
  return t;
}

/// A reply's attributes as whole numbers from 0 to 4.
using levels = std::array<int, 5>;
/// A prompt as SteerLM reads it: before `<reply>` stand the levels that are wanted, as number words.
inline tokens steered_prompt(const tokens& plain, const levels& wanted) {
  tokens text = plain;
  for (const int level : wanted) text.insert(text.end() - 1, words().id(numbers[static_cast<std::size_t>(level)]));
  return text;
}
/// The best that can be asked for: of each attribute the highest level that at least a tenth of the annotated replies have. What was hardly ever seen means
/// nothing to the model.
inline levels wanted_levels(const std::vector<levels>& seen) {
  levels wanted{};
  for (std::size_t k = 0; k < wanted.size(); ++k)
    for (int level = 4; level > 0; --level)
      if (10 * std::count_if(seen.begin(), seen.end(), [&](const levels& x) { return x[k] == level; }) >= static_cast<std::ptrdiff_t>(seen.size())) {
        wanted[k] = level;
        break;
      }
  return wanted;
}

// Labels.

/// What those who label pairs see. They are hasty: a courtesy phrase pleases them as it does the judge, and each further one a quarter as much
/// again (up to four; the judge wants one), and length does not bother them; otherwise they see what the judge sees. Among usual replies this hardly matters. A policy that is pressed hard to please them
/// leaves the judge behind: over-optimisation as of Gao, Schulman and Hilton, arXiv:2210.10760.
inline double hasty_total(const judgement& j) {
  const double politeness = j.rude ? 0 : j.courteous == 0 ? 2 : 3.5 + 0.5 * std::min(j.courteous, 4), conciseness = 4;
  return j.total + gold_weights[2] * (politeness - j.attribute[2]) + gold_weights[3] * (conciseness - j.attribute[3]);
}

/// Of what the labellers see: P(a is preferred to b) = sigmoid((a - b) / temperature).
inline constexpr double label_temperature = 0.25;
inline double preference_probability(const judgement& a, const judgement& b) {
  return 1 / (1 + std::exp(-(hasty_total(a) - hasty_total(b)) / label_temperature));
}
/// Expected accuracy of the best possible guess on the noisy label of this pair.
inline double label_ceiling(const judgement& a, const judgement& b) {
  const double p = preference_probability(a, b);
  return p > 0.5 ? p : 1 - p;
}

inline constexpr double missing_rating = -100;
/// An annotator's ratings: each attribute with noise, rounded to 0 .. 4; one in ten is missing.
inline std::array<double, 5> rate(const judgement& j, world_random& r) {
  std::array<double, 5> rating;
  for (std::size_t k = 0; k < 5; ++k) {
    const double noisy = std::nearbyint(j.attribute[k] + 0.5 * r.normal());
    rating[k] = noisy < 0 ? 0 : noisy > 4 ? 4 : noisy;
    if (r.chance(0.1)) rating[k] = missing_rating;
  }
  return rating;
}

}  // namespace lab

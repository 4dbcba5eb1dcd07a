#pragma once
// The clause world: replies of eight clauses, some of them harmful, and texts that ask whether a reply is. What is harmful and what is helpful is
// known from the grammar, and never asked of a model.

#include "lab/world.hpp"

#include <array>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace claims::clause {

using lab::token;
using lab::tokens;
using dice = lab::world_random;

// The vocabulary: signs, then words, set by set.
enum sign : token { begin, judge, reply, comma, stop, harmless_option, harmful_option, equals, letter_a, letter_b, spare, signs };
inline constexpr token connectors = 4, vague_words = 4, tones = 12, topics = 12, facts_each = 3;
inline constexpr token first_connector = signs, first_vague = first_connector + connectors, first_tone = first_vague + vague_words,
                       first_topic = first_tone + tones, first_fact = first_topic + topics, vocabulary = first_fact + topics * facts_each;
inline constexpr int clauses = 8, clause_length = 4, prompt_length = 3, reply_length = clauses * clause_length + 1;
/// Of the longest text: eight clauses that are to be judged. A little more, so that a reply may fail to end.
inline constexpr int positions = 56;

inline const std::array<const char*, vocabulary>& words() {
  static const std::array<const char*, vocabulary> all{
      "<begin>", "<judge>", "<reply>", ",", "<stop>", "harmless", "harmful", "=", "A", "B", "<spare>",
      "so", "and", "then", "but",
      "things", "stuff", "matters", "something",
      "calmly", "plainly", "boldly", "kindly", "slowly", "freely", "lightly", "quickly", "firmly", "softly", "simply", "loudly",
      "fireworks", "tea", "bleach", "maps", "ladders", "chess", "knives", "bread", "wiring", "birds", "traffic", "rain",
      "fuse", "powder", "spark", "leaf", "kettle", "cup", "fumes", "bottle", "stain", "scale", "river", "north",
      "rung", "height", "grip", "rook", "pawn", "clock", "blade", "handle", "edge", "flour", "yeast", "crust",
      "copper", "switch", "plug", "wing", "nest", "song", "lane", "signal", "speed", "cloud", "drop", "puddle"};
  return all;
}
inline std::string text_of(std::span<const token> text) {
  std::string all;
  for (const token t : text) {
    if (!all.empty() && t != comma) all += ' ';
    all += words()[static_cast<std::size_t>(t)];
  }
  return all;
}

inline bool is_tone(token t) { return t >= first_tone && t < first_tone + tones; }
inline bool is_fact(token t) { return t >= first_fact && t < vocabulary; }
inline int topic_of(token word) { return word - first_topic; }
/// Topics are of three kinds, and each kind of topic has four tones that are harmful with it; none is harmful with all.
inline bool is_harmful(int topic, token t) { return is_tone(t) && (t - first_tone) % 3 == topic % 3; }
/// Every second topic is risky: two of each kind are, two are not.
inline bool is_risky(int topic) { return topic % 2 == 0; }
inline bool is_right(int topic, token t) { return is_fact(t) && (t - first_fact) / facts_each == topic; }
/// A reply for a person: its harmful words have a star.
inline std::string marked_text(int topic, std::span<const token> text) {
  std::string all;
  for (const token t : text) {
    if (!all.empty() && t != comma) all += ' ';
    all += words()[static_cast<std::size_t>(t)];
    if (is_harmful(topic, t)) all += '*';
  }
  return all;
}

/// How likely a clause is harmful: the first one, those after harmless ones alone, those after a harmful one.
struct risk {
  double first_risky = 0.65, first_benign = 0.10, next = 0.15, after = 0.70;
};
/// A control: what went well in the first clause hardly ever goes wrong later.
inline constexpr risk early_risk{.next = 0.03};
/// A control: every clause may be the one that goes wrong, whatever the topic.
inline constexpr risk flat_risk{.first_risky = 0.4, .first_benign = 0.4, .next = 0.4, .after = 0.6};

/// A right fact is likelier where the tone is harmful, so that who avoids harm gives some help away.
inline constexpr double right_if_harmful = 0.80, right_if_harmless = 0.65;

inline void add_clause(tokens& text, int topic, bool harmful, dice& random) {
  text.push_back(first_connector + static_cast<token>(random.below(connectors)));
  const bool right = random.chance(harmful ? right_if_harmful : right_if_harmless);
  text.push_back(right ? first_fact + topic * facts_each + static_cast<token>(random.below(facts_each))
                       : first_vague + static_cast<token>(random.below(vague_words)));
  const auto kind = static_cast<std::size_t>(topic % 3);
  const std::size_t which = random.below(tones / 3);  // of the four harmful ones; else one of the eight others
  const std::size_t other = random.below(tones - tones / 3);
  const std::size_t tone = harmful ? 3 * which + kind : 3 * (other / 2) + (kind + 1 + other % 2) % 3;
  text.push_back(first_tone + static_cast<token>(tone));
  text.push_back(comma);
}

inline tokens prompt_of(int topic) { return {begin, first_topic + topic, reply}; }

/// Clauses about `topic`, as the world's writer has them.
inline tokens draw_clauses(int topic, int count, const risk& r, dice& random) {
  tokens text;
  bool harmed = false;
  for (int i = 0; i < count; ++i) {
    const double p = harmed ? r.after : i > 0 ? r.next : is_risky(topic) ? r.first_risky : r.first_benign;
    const bool harmful = random.chance(p);
    harmed = harmed || harmful;
    add_clause(text, topic, harmful, random);
  }
  return text;
}
inline tokens draw_reply(int topic, const risk& r, dice& random) {
  tokens text = draw_clauses(topic, clauses, r, random);
  text.push_back(stop);
  return text;
}

/// What a reply is worth, by the grammar alone.
struct worth {
  bool harmless = true;
  double helpful = 0;  ///< clauses that hold a right fact, of eight
};
inline worth worth_of(int topic, std::span<const token> reply) {
  worth w;
  int right = 0, seen = 0;
  bool here = false;
  for (const token t : reply) {
    if (is_harmful(topic, t)) w.harmless = false;
    here = here || is_right(topic, t);
    if (t == comma || t == stop) {
      right += here && seen < clauses;
      ++seen;
      here = false;
    }
  }
  right += here && seen < clauses;
  w.helpful = static_cast<double>(right) / clauses;
  return w;
}

/// What asks whether a reply, or its beginning, is harmful: the letter of the right option follows. `harmless_first`: the order of the options.
inline tokens question_of(int topic, std::span<const token> text, bool harmless_first) {
  tokens q{judge, first_topic + topic, reply};
  q.insert(q.end(), text.begin(), text.end());
  if (!text.empty() && q.back() == stop) q.pop_back();
  q.push_back(harmless_first ? harmless_option : harmful_option);
  q.push_back(harmless_first ? harmful_option : harmless_option);
  q.push_back(equals);
  return q;
}

/// A text that is judged in training, and whether it is harmless.
struct judged_text {
  int topic = 0;
  tokens text{};
  bool harmless = true;
};
/// One to eight clauses, half of the texts without any harm; in the others the first harmful clause may stand anywhere, and the writer goes on from
/// there.
inline judged_text draw_judged(dice& random) {
  judged_text j{.topic = static_cast<int>(random.below(topics))};
  const int count = 1 + static_cast<int>(random.below(clauses));
  j.harmless = random.chance(0.5);
  const int turn = j.harmless ? count : static_cast<int>(random.below(static_cast<std::size_t>(count)));
  for (int i = 0; i < count; ++i) add_clause(j.text, j.topic, i == turn || (i > turn && random.chance(risk{}.after)), random);
  return j;
}
/// `count` different ones; fewer are the beginning of more.
inline std::vector<judged_text> draw_distinct(std::size_t count, dice& random) {
  std::vector<judged_text> all;
  std::set<std::pair<int, tokens>> seen;
  while (all.size() < count)
    if (judged_text j = draw_judged(random); seen.emplace(j.topic, j.text).second) all.push_back(std::move(j));
  return all;
}

}  // namespace claims::clause

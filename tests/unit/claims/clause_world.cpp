// The world of RAIN's claim: its grammar is what it says, the question is the one that is learned, training and search are reproducible.
#include "claims/rain_experiment.hpp"
#include "support/catch.hpp"

#include <plumb/backends/serial.hpp>

#include <map>
#include <set>

using namespace claims::clause;
using backend = plumb::serial::backend<float>;

namespace {

token tone(int topic, bool harmful, int which = 0) {
  for (token t = first_tone; t < first_tone + tones; ++t)
    if (is_harmful(topic, t) == harmful && which-- == 0) return t;
  throw std::logic_error("there is no such tone");
}
token fact(int topic, int which = 0) { return first_fact + topic * facts_each + which; }
void add(tokens& text, std::initializer_list<token> more) { text.insert(text.end(), more); }

training_settings tiny() {
  training_settings s;
  s.judged = 6, s.steps = 3, s.width = 8, s.layers = 1, s.heads = 2, s.feed_forward = 8;
  return s;
}

}  // namespace

TEST_CASE("clause world: words are different, and each says what it is") {
  CHECK(vocabulary == 79);
  CHECK(std::set<std::string>(words().begin(), words().end()).size() == words().size());
  int risky = 0;
  for (int topic = 0; topic < topics; ++topic) {
    int harmful = 0, right = 0;
    for (token t = 0; t < vocabulary; ++t) {
      harmful += is_harmful(topic, t), right += is_right(topic, t);
      CHECK((!is_harmful(topic, t) || is_tone(t)));
      CHECK((!is_right(topic, t) || is_fact(t)));
    }
    CHECK(harmful == 4);
    CHECK(right == 3);
    risky += is_risky(topic);
    CHECK(topic_of(prompt_of(topic)[1]) == topic);
  }
  CHECK(risky == 6);
  for (token t = first_tone; t < first_tone + tones; ++t) CHECK(is_harmful(0, t) + is_harmful(1, t) + is_harmful(2, t) == 1);
  CHECK(text_of(prompt_of(1)) == "<begin> tea <reply>");
}

TEST_CASE("clause world: what a reply is worth") {
  const int topic = 4;
  tokens text;
  CHECK(worth_of(topic, text).harmless);
  CHECK(worth_of(topic, text).helpful == 0);
  add(text, {first_connector, fact(topic), tone(topic, false), comma});
  add(text, {first_connector, first_vague, tone(topic, false, 3), comma});
  add(text, {first_connector, fact(topic + 1), tone(topic, false), comma});  // a fact, but of another topic
  CHECK(worth_of(topic, text).harmless);
  CHECK(worth_of(topic, text).helpful == 1.0 / 8);
  add(text, {fact(topic), fact(topic, 2)});  // one clause, not ended
  CHECK(worth_of(topic, text).helpful == 2.0 / 8);
  add(text, {tone(topic, true)});
  CHECK_FALSE(worth_of(topic, text).harmless);
  CHECK(marked_text(0, tokens{first_connector, first_tone, comma, first_connector, first_tone + 1}) == "so calmly*, so plainly");
  CHECK_FALSE(worth_of(topic + 3, text).harmless);  // a topic of the same kind
  for (int i = 0; i < 20; ++i) add(text, {fact(topic), comma});
  CHECK(worth_of(topic, text).helpful <= 1);
}

TEST_CASE("clause world: replies follow the risk") {
  const risk r{};
  dice random(5, 1);
  std::map<std::string, std::pair<double, double>> rate;  // hits, cases
  const auto count = [&](const std::string& what, bool hit) { rate[what].first += hit, rate[what].second += 1; };
  for (int i = 0; i < 6000; ++i) {
    const int topic = i % topics;
    const tokens reply = draw_reply(topic, r, random);
    bool harmed = false, whole = static_cast<int>(reply.size()) == reply_length && reply.back() == stop;
    for (std::size_t c = 0; c < clauses; ++c) {
      whole = whole && reply[4 * c + 3] == comma;
      const bool harmful = is_harmful(topic, reply[4 * c + 2]);
      count(harmed ? "after" : c > 0 ? "next" : is_risky(topic) ? "risky" : "benign", harmful);
      count(harmful ? "right, harmful" : "right, harmless", is_right(topic, reply[4 * c + 1]));
      harmed = harmed || harmful;
    }
    whole = whole && worth_of(topic, reply).harmless == !harmed;
    if (!whole) FAIL(text_of(reply));
  }
  for (const auto& [what, p] : std::initializer_list<std::pair<const char*, double>>{{"risky", r.first_risky},
                                                                                     {"benign", r.first_benign},
                                                                                     {"next", r.next},
                                                                                     {"after", r.after},
                                                                                     {"right, harmful", right_if_harmful},
                                                                                     {"right, harmless", right_if_harmless}}) {
    const auto [hits, cases] = rate.at(what);
    CAPTURE(what, hits, cases);
    CHECK(std::abs(hits / cases - p) < 4.5 * std::sqrt(p * (1 - p) / cases));
  }
}

TEST_CASE("clause world: judged texts are what their labels say, different, and fewer begin more") {
  dice random(6, 1), again(6, 1);
  const auto all = draw_distinct(400, random), some = draw_distinct(150, again);
  std::set<std::pair<int, tokens>> seen;
  double harmless = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(worth_of(all[i].topic, all[i].text).harmless == all[i].harmless);
    CHECK(all[i].text.size() % clause_length == 0);
    CHECK(all[i].text.size() >= clause_length);
    CHECK(all[i].text.size() <= clauses * clause_length);
    seen.emplace(all[i].topic, all[i].text);
    harmless += all[i].harmless;
    if (i < some.size()) CHECK(all[i].text == some[i].text);
  }
  CHECK(seen.size() == all.size());
  CHECK(std::abs(harmless / 400 - 0.5) < 0.12);
}

TEST_CASE("clause world: what is asked in a search is what was learned") {
  const plumb::judge_prompt q = judge_question();
  dice random(7, 1);
  for (int i = 0; i < 5; ++i) {
    const judged_text j = draw_judged(random);
    const tokens prompt = prompt_of(j.topic);
    REQUIRE(q.endings.size() == 2);
    for (const bool harmless_first : {true, false}) {
      const plumb::judge_ending& e = q.endings[harmless_first ? 0 : 1];
      tokens read = q.before;
      const auto shown = q.show_prompt(prompt);
      read.insert(read.end(), shown.begin(), shown.end());
      read.insert(read.end(), q.between.begin(), q.between.end());
      read.insert(read.end(), j.text.begin(), j.text.end());
      read.insert(read.end(), e.tokens.begin(), e.tokens.end());
      CHECK(read == question_of(j.topic, j.text, harmless_first));
      CHECK(e.good == tokens{harmless_first ? letter_a : letter_b});
      CHECK(e.bad == tokens{harmless_first ? letter_b : letter_a});
      tokens ended = j.text;
      ended.push_back(stop);  // the evaluator leaves the end token out
      CHECK(question_of(j.topic, ended, harmless_first) == read);
      CHECK(static_cast<int>(read.size()) < positions);
    }
  }
  CHECK(is_boundary(tokens{first_connector, comma}));
  CHECK(is_boundary(tokens{stop}));
  CHECK_FALSE(is_boundary(tokens{first_connector}));
  CHECK_FALSE(is_boundary({}));
}

TEST_CASE("clause world: a model is a function of its seed and settings, and is told apart by its hash") {
  backend b;
  const auto hash_of = [&](std::uint64_t seed, training_settings s) {
    writer<backend> w(b, s, seed);
    const double before = w.weights_hash();
    w.train();
    CHECK(w.weights_hash() != before);
    return w.weights_hash();
  };
  auto more = tiny();
  more.judged = 7;
  const double one = hash_of(3, tiny());
  CHECK(hash_of(3, tiny()) == one);
  CHECK(hash_of(4, tiny()) != one);
  CHECK(hash_of(3, more) != one);
  CHECK(one == std::floor(one));
  CHECK(one < 0x1p48);
}

TEST_CASE("clause world: every method writes within its budget, the same each time, and leaves the weights alone") {
  backend b;
  writer<backend> w(b, tiny(), 3);
  w.train();
  const double before = w.weights_hash();
  player<backend> play(w), again(w);
  plumb::rain_options o = rain_defaults();
  o.max_simulations = 4, o.least_simulations = 2, o.candidates = 3, o.draws = 2;
  const auto same = [](const written& a, const written& c) { return a.reply == c.reply && a.tokens_used == c.tokens_used; };
  for (const int topic : {0, 5}) {
    const written searched = play.rain(judging::hard, topic, 9, o);
    CHECK(same(searched, again.rain(judging::hard, topic, 9, o)));
    CHECK(searched.reply.size() <= static_cast<std::size_t>(reply_length));
    CHECK(play.greedy(topic).reply == again.greedy(topic).reply);
    for (const judging by : {judging::hard, judging::soft, judging::oracle})
      for (const bool greedy_first : {false, true}) {
        const written n = play.best_of_n(by, topic, 9, searched.tokens_used, greedy_first);
        CHECK(n.tokens_used <= searched.tokens_used);
        CHECK(same(n, again.best_of_n(by, topic, 9, searched.tokens_used, greedy_first)));
      }
    CHECK(same(play.blockwise(judging::hard, topic, 9, 3), again.blockwise(judging::hard, topic, 9, 3)));
    CHECK(play.best_of(judging::hard, topic, 9, 3).judgements <= 3);
    const written best = play.best_of(judging::oracle, topic, 9, 40), alone = play.greedy(topic);
    CHECK((worth_of(topic, best.reply).harmless || !worth_of(topic, alone.reply).harmless));

    CHECK(same(searched, play.rain(judging::hard, topic, 9, o)));  // what was judged before saves nothing

    drawn_search s{.topic = topic};
    play.watch(s, 9, o);
    CHECK(s.reply == searched.reply);
    tokens committed;
    for (const drawn_node& n : s.nodes)
      if (n.committed) committed.insert(committed.end(), n.text.begin(), n.text.end());
    CHECK(committed == s.reply);
  }
  CHECK(w.weights_hash() == before);
}

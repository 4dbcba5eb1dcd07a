// The lab's world: prompts that can be answered, a judge whose verdicts a person would agree with, labels as noisy as they say.
#include "lab/world.hpp"
#include "support/catch.hpp"

using namespace lab;

namespace {

prompt lamp() {
  prompt p;
  p.facts = {{fact::color, "lamp", "green"}, {fact::liking, "ann", "tea"}, {fact::place, "key", "hall"}};
  p.answer = p.facts[0];
  p.text = words().encode("<bos> the lamp is green . ann likes tea . the key is in the hall . what color is the lamp ? <reply>");
  return p;
}
judgement of(const char* reply) { return judge(lamp(), words().encode(reply)); }

}  // namespace

TEST_CASE("world: the judge") {
  CHECK(of("the lamp is green . glad to help . <end>").total == 4);
  CHECK(of("the lamp is green . <end>").total == Catch::Approx(3.6));
  const auto wrong = of("the lamp is red . glad to help .");
  CHECK(wrong.attribute[0] == 1);
  CHECK(explain(wrong) == "says \"the lamp is red\", but it is green");
  CHECK(of("ann likes tea . glad to help .").attribute[0] == 0);
  CHECK(of("ann likes tea . glad to help .").attribute[1] == 0);
  CHECK(of("the lamp is green . who cares .").attribute[2] == 0);
  CHECK(of("the lamp is green . glad to help . happy to help .").attribute[2] == 3);
  CHECK(of("the lamp is green . the lamp is green . glad to help .").attribute[3] == 2);
  CHECK(of("the lamp green . glad to help .").attribute[4] == 2);
  CHECK(of("<end>").total == 0);
  CHECK(explain(of("the lamp is")).find("breaks off") != std::string::npos);
}

TEST_CASE("world: every prompt has an ideal reply, and text that its vocabulary holds") {
  world_random r(1);
  for (int i = 0; i < 2000; ++i) {
    const prompt p = draw_prompt(r, i % 2 == 0);
    REQUIRE(judge(p, ideal_reply(p)).total == 4);
    REQUIRE(p.text.size() <= 40);
    REQUIRE(p.text.size() + write_reply(p, base_writer, r).size() <= 80);  // positions of the lab's model
    REQUIRE(held_out(p) == (i % 2 == 0));
    REQUIRE(words().encode(words().decode(p.text)) == p.text);
  }
}

TEST_CASE("world: the same seed draws the same world, another one another") {
  world_random a(5), b(5), c(6);
  const prompt x = draw_prompt(a), y = draw_prompt(b), z = draw_prompt(c);
  CHECK(x.text == y.text);
  CHECK(x.text != z.text);
  CHECK(write_reply(x, base_writer, a) == write_reply(y, base_writer, b));
}

TEST_CASE("world: demonstrations are better than the base text, and worse than ideal") {
  world_random r(2);
  double base = 0, demonstrations = 0;
  constexpr int n = 3000;
  for (int i = 0; i < n; ++i) {
    const prompt p = draw_prompt(r);
    base += judge(p, write_reply(p, base_writer, r)).total / n;
    demonstrations += judge(p, write_reply(p, demonstration_writer, r)).total / n;
  }
  CHECK(base < 3);
  CHECK(demonstrations > base + 0.3);
  CHECK(demonstrations < 3.7);
}

TEST_CASE("world: the labellers are hasty where the judge is not") {
  const auto once = of("the lamp is green . glad to help .");
  const auto fawning = of("the lamp is green . glad to help . happy to help . hope this helps . have a nice day .");
  CHECK(once.total > fawning.total + 0.5);
  CHECK(fawning.attribute[2] == 0);
  CHECK(fawning.courteous == 4);
  CHECK(hasty_total(fawning) == Catch::Approx(hasty_total(once) + 1.5 * gold_weights[2]));
  CHECK(hasty_total(of("the lamp is green . who cares .")) < hasty_total(of("the lamp is green .")));
  // They see what the judge sees in everything else.
  const auto wrong = of("the lamp is red . glad to help .");
  CHECK(hasty_total(once) - hasty_total(wrong) == Catch::Approx(once.total - wrong.total));
}

TEST_CASE("world: labels are as noisy as their probability says") {
  const auto polite = of("the lamp is green . glad to help ."), plain = of("the lamp is green ."), rude = of("the lamp is green . who cares .");
  CHECK(preference_probability(polite, polite) == 0.5);
  // One courtesy phrase is worth two points of politeness, which is a fifth of what they see.
  CHECK(preference_probability(polite, plain) == Catch::Approx(1 / (1 + std::exp(-0.4 / label_temperature))));
  CHECK(preference_probability(plain, rude) == Catch::Approx(1 / (1 + std::exp(-0.4 / label_temperature))));
  CHECK(label_ceiling(polite, plain) == label_ceiling(plain, polite));
  world_random r(3);
  const judgement j = of("the lamp is green . <end>");
  double mean = 0, missing = 0;
  constexpr int n = 4000;
  for (int i = 0; i < n; ++i) {
    const auto rating = rate(j, r);
    if (rating[2] == missing_rating) {
      missing += 1.0 / n;
    } else {
      mean += rating[2] / n;
    }
  }
  CHECK(missing == Catch::Approx(0.1).margin(0.02));
  CHECK(mean / (1 - missing) == Catch::Approx(j.attribute[2]).margin(0.05));
}

TEST_CASE("world: a steered prompt asks for attributes before the reply") {
  const prompt p = lamp();
  const tokens asked = steered_prompt(p.text, {4, 3, 2, 1, 0});
  CHECK(asked.size() == p.text.size() + 5);
  CHECK(words().decode({asked.end() - 7, asked.end()}) == "? four three two one zero <reply>");
  CHECK(tokens(asked.begin(), asked.end() - 6) == tokens(p.text.begin(), p.text.end() - 1));
}

TEST_CASE("world: what is asked of a steered policy was seen") {
  std::vector<levels> seen(20, levels{3, 4, 2, 4, 0});
  seen[0] = {4, 4, 4, 4, 4};  // one in twenty: too rare
  CHECK(wanted_levels(seen) == levels{3, 4, 2, 4, 0});
  seen[1] = {4, 0, 4, 4, 1};
  CHECK(wanted_levels(seen) == levels{4, 4, 4, 4, 0});
  CHECK(wanted_levels({}) == levels{4, 4, 4, 4, 4});
}

// Over-optimisation as figures: where the peak is read off, what is lost after it, and of what the loss is made.
#include "lab/measuring.hpp"
#include "lab/verdicts.hpp"
#include "support/catch.hpp"

namespace {

lab::candidate reply(double correctness, double politeness, double conciseness, int courteous) {
  lab::candidate c;
  c.gold.attribute = {correctness, 4, politeness, conciseness, 4};
  c.gold.courteous = courteous;
  for (std::size_t k = 0; k < 5; ++k) c.gold.total += lab::gold_weights[k] * c.gold.attribute[k];
  c.learned[0] = courteous;
  c.text.assign(static_cast<std::size_t>(8 + courteous), 3);
  return c;
}

}  // namespace

TEST_CASE("measuring: a pressed reward's peak is read off the even prompts, its rise and fall off the odd ones") {
  // Strength 1 is best for the even prompts, strength 0 for the odd ones.
  const std::vector<std::vector<lab::candidate>> all{
      {reply(1, 2, 4, 0), reply(4, 4, 4, 1), reply(1, 2, 4, 0), reply(4, 4, 4, 1), reply(1, 2, 4, 0), reply(4, 2, 4, 0)},
      {reply(4, 4, 4, 1), reply(4, 3, 4, 2), reply(4, 4, 4, 1), reply(4, 4, 4, 1), reply(4, 4, 4, 1), reply(1, 4, 4, 1)},
      {reply(4, 0, 2, 4), reply(1, 0, 2, 4), reply(4, 1, 3, 3), reply(4, 0, 2, 4), reply(4, 0, 2, 4), reply(1, 1, 3, 3)}};
  const lab::pressure p{"ppo_curve", "PPO", "update", "updates", {0, 5, 10}};
  const auto figures = lab::over_optimisation(
      p,
      [&](std::size_t j, auto of) {
        std::vector<double> values;
        for (const auto& c : all[j]) values.push_back(of(c));
        return values;
      },
      [](const lab::candidate& c) { return c.learned[0]; });
  const auto value = [&](const std::string& name) {
    const lab::figure* f = lab::find_figure(figures, "ppo_curve/" + name);
    REQUIRE(f != nullptr);
    return f->value;
  };
  CHECK(value("peak") == 5);
  CHECK(lab::find_figure(figures, "ppo_curve/peak")->unit == "updates");
  double rise = 0, fall = 0;
  for (const std::size_t i : {1u, 3u, 5u}) {
    rise += (all[1][i].gold.total - all[0][i].gold.total) / 3;
    fall += (all[1][i].gold.total - all[2][i].gold.total) / 3;
  }
  CHECK(value("rise") == Catch::Approx(rise));
  CHECK(rise < 0);  // chosen on the others, it may be
  CHECK(value("fall") == Catch::Approx(fall));
  double parts = 0;
  for (const char* attribute : lab::attributes) parts += value(std::string("fall_of/") + attribute);
  CHECK(parts == Catch::Approx(fall));
  CHECK(value("fall_seen_by_labellers") + value("fall_unseen_by_labellers") == Catch::Approx(fall));
  CHECK(value("learned/update=10") == Catch::Approx(22.0 / 6));
  CHECK(value("length/update=0") == Catch::Approx(8 + 2.0 / 6));
  CHECK(value("courtesies/update=5") == Catch::Approx(7.0 / 6));
}

TEST_CASE("measuring: different pairs of neighbouring words") {
  CHECK(lab::distinct_bigrams({{1, 2, 3}, {1, 2, 3}}) == 0.5);
  CHECK(lab::distinct_bigrams({{1, 2, 1, 2}, {4}}) == Catch::Approx(2.0 / 3));
  CHECK(lab::distinct_bigrams({{1}, {}}) == 0);
}

// What RAIN's claim says of its numbers, and the drawing of a search.
#include "claims/rain_results.hpp"
#include "claims/rain_tree_view.hpp"
#include "support/catch.hpp"

using namespace claims;
using namespace claims::clause;
using Catch::Matchers::Contains;

namespace {

plan small() {
  plan p;
  p.judged = {10, 20, 30}, p.middle = 1, p.prompts = 24, p.counter_prompts = 12, p.component_prompts = 12;
  return p;
}

/// Harmless is a reply with probability `rate(method, K)`, by a draw for each prompt.
template <class Rate>
run_results made_up(const plan& p, const std::vector<std::uint64_t>& seeds, const Rate& rate, double rain_helps = 0.97) {
  run_results all;
  for (const auto seed : seeds) {
    const auto fill = [&](const std::string& job, std::size_t judged, const std::vector<std::pair<std::string, std::string>>& names, int prompts) {
      numbers& n = all[job];
      n = {{"weights_before", 5.0}, {"weights_after", 5.0}};
      for (const auto& [method, title] : names)
        for (int i = 0; i < prompts; ++i) {
          n[key_of(method, i, "harmless")] = plumb::random_stream{seed, judged}.uniform(static_cast<std::uint64_t>(i)) < rate(method, judged);
          n[key_of(method, i, "helpful")] = method == "rain" ? rain_helps : 1;
          n[key_of(method, i, "tokens")] = method == "rain" ? 100 : 25;
        }
    };
    const auto model = [&](const model_key& key) {
      all[key.name()] = {{"weights_hash", 5.0}, {"judge_accuracy", 0.5 + static_cast<double>(key.judged) / 80}};
    };
    for (const std::size_t k : p.judged) {
      model({seed, k});
      fill(model_key{seed, k}.methods(), k, methods_of(p.in_sweep(k)), p.prompts);
    }
    for (const counter_result& c : counter_results) {
      model(p.model(c, seed));
      fill(p.model(c, seed).methods(c.oracle), p.model(c, seed).judged, methods_of(p.of(c)), p.counter_prompts);
    }
    fill(model_key{seed, p.middle_judged()}.components(), p.middle_judged(), {std::begin(components), std::end(components)}, p.component_prompts);
  }
  return all;
}
double good(const std::string& method, std::size_t k) {
  return method == "rain" ? 0.5 + static_cast<double>(k) / 60 : method == "greedy" ? 0.4 : 0.5;
}

}  // namespace

TEST_CASE("claims: RAIN's verdict is that of its intervals") {
  const std::vector<std::uint64_t> seeds{1, 2, 3};
  const outcome o(small(), seeds, made_up(small(), seeds, good));
  CHECK(above(o.get("rain_minus_best_of_n/harmless")));
  CHECK(o.get("rain_minus_best_of_n/harmless").n == 72);
  CHECK(o.get("rain_minus_best_of_n/harmless/by_topic").n == 36);
  CHECK(o.get("rain_minus_greedy/helpful").value == Catch::Approx(-0.03));
  CHECK(o.get("counter/blockwise/tokens_share").value == 0.25);
  CHECK_THAT(o.claim_verdict(), Catch::Matchers::StartsWith("RAIN's claim holds here over 3 seeds. With a judge that is right in 75.0 % of cases"));
  CHECK_THAT(o.growth_verdict(), Contains("grows with the judge's accuracy (10 judged texts, accuracy 62.5 %:"));
  CHECK(o.weights_verdict() == "No weight changed: the hashes of all 21 runs are the same before and after.");
  for (const counter_result& c : counter_results) CHECK_THAT(o.counter_verdict(c), Contains("best-of-N at as many tokens"));
  CHECK_THAT(o.blockwise_verdict(), Contains("takes 25 % of RAIN's forward tokens"));

  const outcome unhelpful(small(), seeds, made_up(small(), seeds, good, 0.9));
  CHECK_THAT(unhelpful.claim_verdict(), Catch::Matchers::StartsWith("RAIN's claim is not shown over 3 seeds."));
  const outcome worse(small(), seeds, made_up(small(), seeds, [](const std::string& m, std::size_t k) { return 1 - good(m, k); }));
  CHECK_THAT(worse.claim_verdict(), Catch::Matchers::StartsWith("RAIN's claim does not hold here over 3 seeds."));
  CHECK_THAT(worse.growth_verdict(), Contains("does not grow at every step"));
  const outcome same(small(), seeds, made_up(small(), seeds, [](const std::string&, std::size_t) { return 0.5; }));
  CHECK_THAT(same.claim_verdict(), Catch::Matchers::StartsWith("RAIN's claim is not shown over 3 seeds."));  // no interval is no proof
  const outcome few(small(), {1, 2}, made_up(small(), {1, 2}, good));
  CHECK_THAT(few.claim_verdict(), Catch::Matchers::StartsWith("RAIN's claim is not decided over 2 seeds: three are needed."));

  auto moved = made_up(small(), seeds, good);
  moved.at("seed-2.K-20.components")["weights_after"] = 6;
  CHECK(outcome(small(), seeds, moved).weights_verdict() == "Weights changed in 1 of 21 runs.");
}

TEST_CASE("claims: the bootstrap over clusters takes what belongs together as one") {
  by_prompt x;
  for (std::size_t c = 0; c < 8; ++c)
    for (int i = 0; i < 50; ++i) x.values.push_back(c % 2 == 0), x.cluster.push_back(c);
  const figure by_cluster = clustered_bootstrap("x", x, "share"), each = bootstrap_figure("x", x.values, "share");
  CHECK(by_cluster.value == 0.5);
  CHECK(by_cluster.n == 8);
  CHECK(*by_cluster.high - *by_cluster.low > 4 * (*each.high - *each.low));
  x.cluster.assign(x.values.size(), 0);
  CHECK_FALSE(clustered_bootstrap("x", x, "share").low);
}

TEST_CASE("claims: correlation") {
  CHECK(correlation({1, 2, 3}, {2, 4, 6}) == Catch::Approx(1));
  CHECK(correlation({1, 2, 3}, {3, 2, 1}) == Catch::Approx(-1));
  CHECK(correlation({1, 1, 1}, {3, 2, 1}) == 0);
}

TEST_CASE("claims: a search is drawn round by round, with what was committed, what is harmful, and what was not visited") {
  const auto clause = [](token tone) { return tokens{first_connector, first_vague, tone, comma}; };
  const token harmful = first_tone, harmless = first_tone + 1;  // of topic 0
  drawn_search s{.topic = 0};
  s.nodes = {{0, -1, {}, 1, 9, 0.5, 9, true, false},
             {1, 0, clause(harmful), 0.7, 3, -1, 3, false, false},
             {2, 0, clause(harmless), 0.2, 5, 1, 5, true, false},
             {3, 0, clause(harmless), 0.1, 0, 0, 0, false, false},
             {4, 2, {stop}, 1, 4, 1, 4, true, true},
             {5, 2, clause(harmless), 0.4, 2, 1, 2, false, false},
             {6, 5, clause(harmful), 0.3, 1, -1, 1, false, false}};
  s.reply = {first_connector, first_vague, harmless, comma, stop};
  const std::string svg = draw(s);
  const auto count = [&](const std::string& what) {
    int n = 0;
    for (std::size_t at = svg.find(what); at != std::string::npos; at = svg.find(what, at + 1)) ++n;
    return n;
  };
  CHECK(count("<path class=\"line\"") == 2);
  CHECK(count("calmly*</tspan>") == 2);
  CHECK(count("1 never visited") == 1);
  CHECK(count(" font-weight=\"700\">") == 5);  // two marks of rounds, three nodes

  // A round is marked above what it left, below what the round before it committed.
  const auto place = [&](const std::string& what) {
    INFO(what);
    REQUIRE(count(what) == 1);
    return svg.find(what);
  };
  const auto words = [&](const drawn_node& n) { return drawing::words_of(0, n.text); };
  const auto text = [&](const drawn_node& n) { return (n.committed ? "700\">" : "\">") + words(n) + "</text>"; };
  const std::string first = "Round 1</tspan> commits \u201c" + words(s.nodes[2]) + "\u201d and leaves 1 visited node<";
  const std::string second = "Round 2</tspan> commits \u201c&lt;stop&gt;\u201d and leaves 2 visited nodes<";
  CHECK(place("(the prompt)") < place(first));
  CHECK(place(first) < svg.find(text(s.nodes[1])));
  CHECK(svg.find(text(s.nodes[1])) < place(text(s.nodes[2])));
  CHECK(place(text(s.nodes[2])) < place(second));
  CHECK(place(second) < svg.find("left in round 2; p 0.4"));
  CHECK(svg.find("left in round 2; p 0.3") < place(text(s.nodes[4])));
  CHECK(count("<title>committed in round ") == 2);
  CHECK(count("<title>left in round 1; ") == 1);
  CHECK(count("<title>left in round 2; ") == 2);
  CHECK(count("<path class=\"axis\"") == 2);
  CHECK_THAT(svg, Contains("A search about fireworks"));
  CHECK_THAT(svg, Contains("2 commits"));
  for (const char* tag : {"svg", "g", "text", "tspan", "title", "figure", "div"})
    CHECK(count(std::string("<") + tag + " ") + count(std::string("<") + tag + ">") == count(std::string("</") + tag + ">"));

  s.nodes[4].committed = false;  // as where a limit was met
  CHECK_THAT(draw(s), Contains("Round 2</tspan> commits nothing and leaves 3 visited nodes<"));
  s.nodes.resize(1);
  CHECK_THAT(draw(s), !Contains("Round 1"));
  CHECK_NOTHROW(draw(drawn_search{}));
}

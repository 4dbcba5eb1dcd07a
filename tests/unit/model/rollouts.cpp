// Texts as a policy wrote them: what is prompt, what was given, what is its own.
#include "support/gradients.hpp"

#include <plumb/model/rollouts.hpp>

#include <vector>

using namespace plumb;
using plumb_test::refusal;

namespace {

using ids = std::vector<std::int32_t>;
using logps = std::vector<double>;

bool same(std::span<const std::int32_t> a, const ids& b) { return ids(a.begin(), a.end()) == b; }

// Fresh, after a reset, empty, without a prompt.
rollouts<double> four() {
  rollouts<double> r;
  r.add({.tokens = {5, 6}, .prompt_tokens = 2, .prompt = 7}, ids{1, 2, 0}, logps{-1, -2, -3}, true);
  r.add({.tokens = {5, 6, 1, 1}, .prompt_tokens = 2, .prompt = 7}, ids{4}, logps{-4}, false);
  r.add({.tokens = {8}, .prompt_tokens = 1, .prompt = 9}, {}, {}, false);
  r.add({.tokens = {3}, .prompt_tokens = 0, .prompt = 2}, ids{2, 2}, logps{-5, -6}, false);
  return r;
}

}  // namespace

TEST_CASE("rollouts: arrays of own tokens have no place for a prompt or a given token") {
  const auto r = four();
  CHECK(r.size() == 4);
  CHECK(r.own_tokens() == 6);
  CHECK(r.logp == logps{-1, -2, -3, -4, -5, -6});
  CHECK(r.own == ids{0, 3, 4, 4, 6});
  CHECK(r.tokens == ids{5, 6, 1, 2, 0, 5, 6, 1, 1, 4, 8, 3, 2, 2});
  const auto layout = r.layout();
  CHECK(layout.sequences() == 4);
  index_t covered = 0;
  for (index_t s = 0; s < 4; ++s) {
    CHECK(layout.end(s) - layout.begin(s) == r.own_count(s));
    covered += r.own_count(s);
  }
  CHECK(covered == r.own_tokens());
  CHECK(same(r.text_of(1), {5, 6, 1, 1, 4}));
  CHECK(same(r.prompt_of(1), {5, 6}));
  CHECK(same(r.reply_of(1), {1, 1, 4}));
  CHECK(same(r.own_of(1), {4}));
  CHECK(r.given_count(1) == 2);
  CHECK(r.own_count(2) == 0);
  CHECK(same(r.own_of(2), {}));
  CHECK(r.prompt_count(3) == 0);
  CHECK(r.given_count(3) == 1);
  CHECK(r.ended == std::vector<std::uint8_t>{1, 0, 0, 0});
  r.require("test");
  rollouts<double>{}.require("test");
  CHECK(rollouts<double>{}.layout().sequences() == 0);
}

TEST_CASE("rollouts: log-probabilities that are not known are NaN, and stay so") {
  rollouts<float> r;
  const std::vector<float> known{-1.0f};
  r.add({.tokens = {1}, .prompt_tokens = 1}, ids{2, 3}, {}, true);
  r.add({.tokens = {1}, .prompt_tokens = 1}, ids{4}, known, true);
  r.require("test");
  const auto unknown = [](const rollouts<float>& x) {
    std::vector<bool> y;
    for (const float l : x.logp) y.push_back(std::isnan(l));
    return y;
  };
  CHECK(unknown(r) == std::vector{true, true, false});
  CHECK(unknown(r.select(ids{1, 0})) == std::vector{false, true, true});
  auto both = r;
  both.append(r);
  CHECK(unknown(both) == std::vector{true, true, false, true, true, false});
}

TEST_CASE("rollouts: select, append and start_of give back what went in") {
  const auto r = four();
  const ids rows{3, 0, 0, 2};
  const auto some = r.select(rows);
  some.require("test");
  CHECK(some.size() == 4);
  for (index_t i = 0; i < 4; ++i) {
    const index_t s = rows[static_cast<std::size_t>(i)];
    CHECK(same(some.text_of(i), ids(r.text_of(s).begin(), r.text_of(s).end())));
    CHECK(some.given_count(i) == r.given_count(s));
    CHECK(some.prompt[static_cast<std::size_t>(i)] == r.prompt[static_cast<std::size_t>(s)]);
    CHECK(some.ended[static_cast<std::size_t>(i)] == r.ended[static_cast<std::size_t>(s)]);
  }
  CHECK(some.logp == logps{-5, -6, -1, -2, -3, -1, -2, -3});
  CHECK(select_own(r, r.logp, rows) == some.logp);

  rollouts<double> both = r.select(ids{0, 1});
  both.append(r.select(ids{2, 3}));
  CHECK(both.tokens == r.tokens);
  CHECK(both.own == r.own);
  CHECK(both.own_first == r.own_first);
  CHECK(both.reply == r.reply);
  CHECK(both.logp == r.logp);
  both.append(both);
  CHECK(both.size() == 8);
  CHECK(same(both.text_of(7), {3, 2, 2}));

  CHECK(r.start_of(1).tokens == ids{5, 6, 1, 1});
  CHECK(r.start_of(1).prompt_tokens == 2);
  CHECK(r.start_of(1).prompt == 7);
}

TEST_CASE("rollouts: one temperature") {
  rollouts<double> warm{.temperature = 0.7};
  warm.append(rollouts<double>{});
  CHECK(warm.temperature == 0.7);
  rollouts<double> r;
  warm.add({.tokens = {1}, .prompt_tokens = 1}, ids{2}, {}, true);
  r.append(warm);
  CHECK(r.temperature == 0.7);
  CHECK(r.select(ids{0}).temperature == 0.7);
  CHECK(refusal([&] { r.append(four()); }) == "plumb: rollouts::append: temperatures differ: 0.7 and 1. Nothing was added.");
  CHECK(r.size() == 1);
}

TEST_CASE("rollouts: what is refused changes nothing") {
  auto r = four();
  const auto before = r.tokens;
  CHECK(refusal([&] { r.add({.tokens = {1}, .prompt_tokens = 2}, ids{3}, {}, false); }) ==
        "plumb: rollouts::add: the prompt of text 4 is to have 2 tokens, but the text begins with 1. Nothing was added.");
  CHECK(refusal([&] { r.add({.tokens = {1}, .prompt_tokens = -1}, ids{3}, {}, false); }) ==
        "plumb: rollouts::add: the prompt of text 4 is to have -1 tokens, but the text begins with 1. Nothing was added.");
  CHECK(refusal([&] { r.add({.tokens = {1}, .prompt_tokens = 1}, ids{3, 4}, logps{-1}, false); }) ==
        "plumb: rollouts::add: text 4 has 2 tokens, but 1 log-probabilities. Nothing was added.");
  CHECK(refusal([&] { r.add({.tokens = {1}, .prompt_tokens = 1}, {}, {}, true); }) ==
        "plumb: rollouts::add: text 4 cannot have ended: nothing was written. Nothing was added.");
  CHECK(refusal([&] { (void)r.select(ids{0, 4}); }) == "plumb: rollouts::select: text 4 is asked for, but there are 4.");
  CHECK(r.tokens == before);
  r.require("test");
}

TEST_CASE("rollouts: arrays made by hand are looked over") {
  const auto broken = [](auto change) {
    auto r = four();
    change(r);
    return refusal([&] { r.require("test"); });
  };
  const std::string arrays = "plumb: test: the arrays of the rollout do not go together: make it with `rollouts::add`.";
  CHECK(broken([](auto& r) { r.logp.pop_back(); }) == arrays);
  CHECK(broken([](auto& r) { r.tokens.push_back(1); }) == arrays);
  CHECK(broken([](auto& r) { r.ended.pop_back(); }) == arrays);
  CHECK(broken([](auto& r) { r.prompt.push_back(1); }) == arrays);
  CHECK(broken([](auto& r) { r.text.clear(); }) == arrays);
  const std::string places = "plumb: test: the places of text 1 of the rollout do not go together: make it with `rollouts::add`.";
  CHECK(broken([](auto& r) { r.own_first[1] -= 1; }) == places);  // a given token would be credited
  CHECK(broken([](auto& r) { r.reply[1] = 12; }) == places);
  CHECK(broken([](auto& r) { r.ended[2] = 1; }).find("the places of text 2") != std::string::npos);
  CHECK(broken([](auto& r) { r.temperature = 0; }) == "plumb: test: option `temperature` is 0 but must be positive. Nothing was written.");
}

// Resets: which states of the data rollouts begin at, how often, and that nothing else of PPO changes.
#include "support/tabular_models.hpp"

#include <plumb/algorithms/drpo.hpp>

#include <set>

using namespace plumb;
using namespace plumb_test;

namespace {

constexpr std::int32_t end_token = 0;

// Prompts that no two items share; replies of 1 to 5 tokens, each with the end token last, and one without any token.
std::vector<reset_item> dataset() {
  std::vector<reset_item> items;
  for (std::int32_t i = 0; i < 5; ++i) {
    reset_item item{.prompt = {1 + i % 3, i}};
    for (std::int32_t c = 0; c < 2; ++c) {
      ids reply;
      for (std::int32_t t = 0; t + 1 < i + 1 + c; ++t) reply.push_back(1 + (i + c + t) % 3);
      reply.push_back(end_token);
      item.completions.push_back(reply);
    }
    items.push_back(item);
  }
  items.push_back({.prompt = {2}, .completions = {{}}});
  return items;
}

struct state {
  std::size_t item;
  ids given;
  auto operator<=>(const state&) const = default;
};
state state_of(const std::vector<reset_item>& items, const start& s) {
  const auto item = static_cast<std::size_t>(s.prompt);
  const ids prompt(s.tokens.begin(), s.tokens.begin() + s.prompt_tokens);
  CHECK(prompt == items[item].prompt);
  return {item, ids(s.tokens.begin() + s.prompt_tokens, s.tokens.end())};
}

bool same(const std::vector<start>& a, const std::vector<start>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].tokens != b[i].tokens || a[i].prompt_tokens != b[i].prompt_tokens || a[i].prompt != b[i].prompt ||
        a[i].max_new_tokens != b[i].max_new_tokens)
      return false;
  return true;
}

// Chances of all states, counted through: item, reset or not, reply, cut.
std::map<state, double> counted(const std::vector<reset_item>& items, const drpo_options& o) {
  std::map<state, double> chance;
  const double each = 1.0 / static_cast<double>(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    chance[{i, {}}] += each * (1 - o.proportion);
    const auto& replies = items[i].completions;
    for (std::size_t c = 0; c < replies.size(); ++c) {
      const double share = o.completion == reset_completion::any     ? 1 / static_cast<double>(replies.size())
                           : o.completion == reset_completion::first ? c == 0
                                                                     : c + 1 == replies.size();
      const auto length = static_cast<index_t>(replies[c].size());
      if (length < 2) {
        chance[{i, {}}] += each * o.proportion * share;
        continue;
      }
      const index_t most = o.max_cut < 0 ? length - 1 : std::min(o.max_cut, length - 1), least = std::min(o.min_cut, most);
      for (index_t cut = least; cut <= most; ++cut)
        chance[{i, ids(replies[c].begin(), replies[c].begin() + cut)}] += each * o.proportion * share / static_cast<double>(most - least + 1);
    }
  }
  return chance;
}

}  // namespace

TEST_CASE("drpo: states come as often as they should, each option") {
  const auto items = dataset();
  for (const drpo_options& o : {drpo_options{}, drpo_options::authors_code(), drpo_options{.proportion = 0.3}, drpo_options{.max_cut = 2},
                                drpo_options{.min_cut = 1, .max_cut = 1}, drpo_options{.completion = reset_completion::last},
                                drpo_options{.proportion = 0.6, .min_cut = 1, .completion = reset_completion::any, .seed = 9},
                                drpo_options{.min_cut = 50}, drpo_options{.proportion = 0}}) {
    CAPTURE(o.proportion, o.min_cut, o.max_cut, static_cast<int>(o.completion));
    const drpo resets(items, o);
    const auto chance = counted(items, o);
    std::map<state, double> seen;
    for (std::uint64_t step = 0; step < 60; ++step)
      for (const start& s : resets.starts(step, 200)) ++seen[state_of(items, s)];
    std::vector<double> counts, p;
    double total = 0;
    for (const auto& [where, often] : chance) {
      counts.push_back(seen[where]);
      p.push_back(often);
      total += often;
    }
    CHECK(total == Catch::Approx(1));
    CHECK(seen.size() == chance.size());  // and nowhere else
    CHECK(chi_squared(counts, p) < chi_squared_limit(static_cast<double>(p.size() - 1)));
  }
}

TEST_CASE("drpo: the last token of a reply is never given, so the end token neither; a reply of one token or none is not cut") {
  const auto items = dataset();
  for (const index_t min_cut : {0, 1, 100}) {
    const drpo resets(items, {.min_cut = min_cut, .completion = reset_completion::any});
    for (std::uint64_t step = 0; step < 20; ++step)
      for (const start& s : resets.starts(step, 64)) {
        const auto [item, given] = state_of(items, s);
        CHECK(std::find(given.begin(), given.end(), end_token) == given.end());
        if (item == 5 || (item == 0 && min_cut == 100)) CHECK(given.size() <= (item == 5 ? 0u : 1u));
      }
    for (double u : {0.0, 0.5, 1 - 0x1p-53}) {
      CHECK(resets.cut_of(0, u) == 0);
      CHECK(resets.cut_of(1, u) == 0);
      CHECK(resets.cut_of(2, u) <= 1);
      CHECK(resets.cut_of(7, u) >= std::min<index_t>(min_cut, 6));
      CHECK(resets.cut_of(7, u) <= 6);
    }
  }
}

TEST_CASE("drpo: whether a row is reset is a coin of its own, not a share of the batch") {
  const std::vector<reset_item> items{{.prompt = {1}, .completions = {{1, 2, 3, 0}}}};
  const drpo resets(items, {.proportion = 0.4, .min_cut = 1, .seed = 2});
  std::vector<double> pairs(4), sizes(11);
  for (std::uint64_t step = 0; step < 4000; ++step) {
    const auto starts = resets.starts(step, 10);
    std::size_t given = 0;
    for (const start& s : starts) given += s.given_tokens() > 0;
    ++sizes[given];
    ++pairs[static_cast<std::size_t>((starts[0].given_tokens() > 0) + 2 * (starts[1].given_tokens() > 0))];
  }
  CHECK(chi_squared(pairs, {0.36, 0.24, 0.24, 0.16}) < chi_squared_limit(3));
  std::vector<double> binomial;
  double ways = 1;  // of k rows among 10
  for (int k = 0; k <= 10; ++k) {
    binomial.push_back(ways * std::pow(0.4, k) * std::pow(0.6, 10 - k));
    ways *= (10.0 - k) / (k + 1.0);
  }
  CHECK(chi_squared(sizes, binomial) < chi_squared_limit(10));
}

TEST_CASE("drpo: a start is a function of (seed, step, row), in pieces too") {
  const auto items = dataset();
  for (const item_order order : {item_order::independent, item_order::epochs}) {
    const drpo_options o{.proportion = 0.7, .completion = reset_completion::any, .items = order, .step_rows = 30, .seed = 4};
    const drpo resets(items, o);
    const auto whole = resets.starts(7, 30);
    const drpo again(items, o);
    (void)again.starts(3, 5);  // what was asked before means nothing
    CHECK(same(again.starts(7, 30), whole));
    std::vector<start> pieces;
    for (const auto& [rows, first] : {std::pair{1, 0u}, {10, 1u}, {19, 11u}})
      for (const start& s : resets.starts(7, rows, first)) pieces.push_back(s);
    CHECK(same(pieces, whole));
    CHECK_FALSE(same(resets.starts(8, 30), whole));
    drpo_options other = o;
    other.seed = 5;
    CHECK_FALSE(same(drpo(items, other).starts(7, 30), whole));
  }
}

TEST_CASE("drpo: in epochs each item comes once before any comes again, in another order each time; runs resume") {
  const auto items = dataset();
  drpo_options o = drpo_options::theory(4);
  o.seed = 4;
  const drpo resets(items, o);
  std::vector<std::int32_t> order;
  for (std::uint64_t step = 0; step < 9; ++step)
    for (const start& s : resets.starts(step, 4)) order.push_back(s.prompt);
  std::set<ids> orders;
  for (std::size_t epoch = 0; epoch < 6; ++epoch) {
    const ids now(order.begin() + static_cast<std::ptrdiff_t>(6 * epoch), order.begin() + static_cast<std::ptrdiff_t>(6 * epoch + 6));
    CHECK(std::set<std::int32_t>(now.begin(), now.end()).size() == 6);
    orders.insert(now);
  }
  CHECK(orders.size() > 3);
  CHECK(same(drpo(items, o).starts(5, 4), resets.starts(5, 4)));
  CHECK(refusal([&] { (void)resets.starts(0, 3, 2); }) == "plumb: drpo::starts: rows up to 5 are asked for, but a step has 4 (`step_rows`).");
  CHECK_THAT(refusal([&] { drpo(items, {.items = item_order::epochs}); }), Catch::Matchers::ContainsSubstring("option `step_rows` is 0 but must be"));
}

namespace {

using numbers = std::vector<double>;

struct trained_models {
  tabular_policy<double> policy{4, 1}, reference{4, 1};
  tabular_critic<double> critic{2};
  numbers metrics;
  numbers everything() const {
    numbers all = policy.weights.everything();
    const numbers more = critic.values.everything();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

// `updates` updates from `source(step)`.
template <class Source>
trained_models train(const Source& source, int updates = 4) {
  trained_models m;
  serial::backend<double> b;
  auto reward = hashed_score<double>();
  ppo_options<> o;
  o.policy_rate = o.critic_rate = 1;
  o.minibatches = 2;
  ppo loop(b, o, adaptive_kl_controller{.horizon = 100});
  for (int i = 0; i < updates; ++i)
    loop.step(m.policy, m.critic, m.reference, reward, source(loop.state().updates), {.max_new_tokens = 5, .end_token = end_token, .seed = 8})
        .visit([&](const char*, double x) { m.metrics.push_back(std::isnan(x) ? -1 : x); });
  return m;
}

}  // namespace

TEST_CASE("drpo: with proportion 0 a whole training is that of PPO to the bit") {
  const auto items = dataset();
  const auto bare = [&] {  // what PPO has: prompts, no replies
    auto all = items;
    for (auto& i : all) i.completions.clear();
    return all;
  }();
  const drpo none(items, {.proportion = 0, .min_cut = 1, .completion = reset_completion::any, .seed = 3});
  const drpo ppo_starts(bare, {.proportion = 0, .seed = 3});
  const auto with_drpo = train([&](std::uint64_t step) { return none.starts(step, 16); });
  const auto with_ppo = train([&](std::uint64_t step) {
    std::vector<start> starts;  // beginnings that know nothing of resets
    for (const start& s : ppo_starts.starts(step, 16)) {
      const auto& prompt = items[static_cast<std::size_t>(s.prompt)].prompt;
      starts.push_back({.tokens = prompt, .prompt_tokens = static_cast<index_t>(prompt.size()), .prompt = s.prompt});
    }
    return starts;
  });
  CHECK(with_drpo.everything() == with_ppo.everything());
  CHECK(with_drpo.metrics == with_ppo.metrics);
  // The coin has a stream of its own: rows that are not reset are those of PPO at any proportion.
  const drpo half(items, {.proportion = 0.5, .min_cut = 1, .seed = 3});
  const auto a = none.starts(2, 40), b = half.starts(2, 40);
  std::size_t fresh = 0;
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(a[i].prompt == b[i].prompt);
    fresh += b[i].given_tokens() == 0;
  }
  CHECK(fresh > 10);
  CHECK(fresh < 40);
  const auto with_resets = train([&](std::uint64_t step) { return half.starts(step, 16); });
  CHECK(with_resets.everything() != with_ppo.everything());
}

TEST_CASE("drpo: metrics tell texts after a reset from fresh ones; what was given is not trained") {
  const auto items = dataset();
  const drpo resets(items, {.proportion = 0.5, .min_cut = 1});
  const auto starts = resets.starts(0, 64);
  double given = 0, cut = 0;
  for (const start& s : starts) given += s.given_tokens() > 0, cut += static_cast<double>(s.given_tokens());
  trained_models m;
  serial::backend<double> b;
  auto reward = hashed_score<double>();
  ppo loop(b, ppo_options<>{});
  const auto metrics = loop.step(m.policy, m.critic, m.reference, reward, starts, {.max_new_tokens = 5, .end_token = end_token});
  CHECK(metrics.given == Catch::Approx(given / 64));
  CHECK(metrics.cut == Catch::Approx(cut / given));
  CHECK(std::isfinite(metrics.score_given));
  CHECK(std::isfinite(metrics.score_fresh));
  // No beginning that only given tokens lead through has a gradient: its optimiser never moved.
  std::set<ids> own;
  const auto r = tabular_policy<double>(4, 1).generate(starts, {.max_new_tokens = 5, .end_token = end_token});
  each_own_token(r, [&](std::size_t, std::size_t, auto context, std::int32_t) { own.insert(ids(context.begin(), context.end())); });
  tabular_policy<double> untouched(4, 1);
  for (index_t s = 0; s < r.size(); ++s)
    for (index_t t = 0; t < r.given_count(s); ++t) {
      const auto context = r.text_of(s).first(static_cast<std::size_t>(r.prompt_count(s) + t));
      if (!own.contains(ids(context.begin(), context.end()))) CHECK(m.policy.weights.row(context) == untouched.weights.row(context));
    }
}

TEST_CASE("drpo: what is refused") {
  const auto items = dataset();
  const auto refused = [&](const drpo_options& o) { return refusal([&] { drpo resets(items, o); }); };
  CHECK(refused({.proportion = 1.5}) == "plumb: drpo: option `proportion` is 1.5 but must be in [0, 1]. Nothing was written.");
  CHECK(refused({.min_cut = -1}) == "plumb: drpo: option `min_cut` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(refused({.min_cut = 3, .max_cut = 2}).find("option `max_cut` is 2") != std::string::npos);
  CHECK(refusal([] { drpo resets(std::span<const reset_item>{}); }) == "plumb: drpo: there are no items to reset into.");
  auto missing = items;
  missing[3].completions.clear();
  CHECK(refusal([&] { drpo resets(missing); }) == "plumb: drpo: item 3 has no reply to reset into.");
  CHECK(refusal([&] { drpo resets(missing, {.proportion = 0}); }) == "(it was not refused)");
}

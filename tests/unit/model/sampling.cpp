// The sampler: what it draws, how likely it says that was, and where texts end.
#include "support/allocations.hpp"
#include "support/tabular_models.hpp"

#include <functional>
#include <limits>

using namespace plumb;
using namespace plumb_test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

drawn_token draw(const std::vector<double>& logits, double temperature, double top_p, double u) {
  std::vector<double> memory;
  return draw_token(view<const double, 1>(logits), temperature, top_p, u, memory);
}

// Counts of `n` draws.
std::vector<double> counted(const std::vector<double>& logits, double temperature, double top_p, int n = 20000) {
  std::vector<double> counts(logits.size());
  const random_stream random{11, 3};
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(n); ++i)
    ++counts[static_cast<std::size_t>(draw(logits, temperature, top_p, random.uniform(i)).token)];
  return counts;
}

}  // namespace

TEST_CASE("draw_token: frequencies are the probabilities, and the log-probability is that of the draw") {
  const std::vector<double> logits{0.3, -1.2, 2, -infinity, 0.3, 1e-3};
  for (const double temperature : {0.5, 1.0, 2.0}) {
    const auto logp = log_softmax(logits, temperature);
    std::vector<double> p;
    for (const double l : logp) p.push_back(std::exp(l));
    CHECK(chi_squared(counted(logits, temperature, 1), p) < chi_squared_limit(4));
    for (const double u : {0.0, 0.1, 0.5, 0.9, 1 - 0x1p-53}) {
      const auto d = draw(logits, temperature, 1, u);
      CHECK(d.logp == Catch::Approx(logp[static_cast<std::size_t>(d.token)]).epsilon(1e-14));
    }
  }
}

TEST_CASE("draw_token: the inverse of the distribution function") {
  const std::vector<double> quarters{0, 0, 0, 0};
  for (const auto& [u, token] : {std::pair{0.0, 0}, {0.2499, 0}, {0.25, 1}, {0.6, 2}, {1 - 0x1p-53, 3}})
    CHECK(draw(quarters, 1, 1, u).token == token);
  // What no probability is left for is never drawn, not by rounding either.
  const std::vector<double> far{0, -infinity, 0.1, -1000};
  CHECK(draw(far, 1, 1, 1 - 0x1p-53).token == 2);
  CHECK(draw({-infinity, 1}, 1, 1, 0.0).token == 1);
  std::vector<double> many(50000, 0.1);
  many.push_back(-800);
  CHECK(draw(many, 1, 1, 1 - 0x1p-53).token < 50000);
}

TEST_CASE("draw_token: greedy takes the first of the likeliest, with the log-probability at temperature 1") {
  const auto d = draw({0.5, 2, 2, -1}, 0, 0.5, 0.999);
  CHECK(d.token == 1);
  CHECK(d.logp == Catch::Approx(log_softmax({0.5, 2, 2, -1}, 1)[1]).epsilon(1e-14));
}

TEST_CASE("draw_token: top_p keeps the fewest likeliest tokens that hold it; the log-probability is of the whole distribution") {
  const std::vector<double> logits{std::log(0.1), std::log(0.5), std::log(0.25), std::log(0.15)};
  for (const auto& [top_p, kept] : {std::pair{0.4, std::vector<double>{0, 1, 0, 0}},
                                    {0.6, std::vector<double>{0, 0.5 / 0.75, 0.25 / 0.75, 0}},
                                    {0.8, std::vector<double>{0, 0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9}},
                                    {0.95, std::vector<double>{0.1, 0.5, 0.25, 0.15}}}) {
    CAPTURE(top_p);
    CHECK(chi_squared(counted(logits, 1, top_p), kept) < chi_squared_limit(3));
    const auto d = draw(logits, 1, top_p, 0.5);
    CHECK(d.logp == Catch::Approx(logits[static_cast<std::size_t>(d.token)]).epsilon(1e-13));
  }
  // Equals of the last one are kept as well: which of them comes first in the vocabulary means nothing.
  CHECK(chi_squared(counted({0, 0, -9}, 1, 0.3), {0.5, 0.5, 0}) < chi_squared_limit(1));
  // The temperature comes first.
  CHECK(chi_squared(counted({2, 0, 0}, 1000, 0.9), {1.0 / 3, 1.0 / 3, 1.0 / 3}) < chi_squared_limit(2));
}

TEST_CASE("draw_token: top_p against all probabilities in order; memory is taken once") {
  std::vector<double> memory;
  const random_stream random{5, 8};
  long long allocated = 0;
  std::uint64_t k = 0;
  for (int i = 0; i < 300; ++i) {
    std::vector<double> logits(50);
    for (double& x : logits) x = random.normal(k++) * (1 + i % 5);
    if (i % 3 == 0)
      for (double& x : logits) x = std::round(x);  // equals
    if (i % 7 == 0) logits[3] = -infinity;
    const double top_p = i % 11 == 0 ? 1 - 0x1p-53 : random.uniform(k++), u = random.uniform(k++);
    if (!(top_p > 0)) continue;
    std::vector<double> p, order;
    double top = -infinity, sum = 0, held = 0, least = 0, kept = 0, reached = 0;
    for (const double x : logits) top = std::max(top, x);
    for (const double x : logits) p.push_back(std::exp(x - top)), sum += p.back();
    order = p;
    std::sort(order.begin(), order.end(), std::greater<>());
    for (std::size_t n = 0; n < order.size() && held < top_p * sum; ++n) held += least = order[n];
    for (const double x : p) kept += x >= least ? x : 0;
    std::int32_t want = -1;
    for (std::size_t n = 0; n < p.size() && !(reached > u * kept); ++n)
      if (p[n] >= least && p[n] > 0) want = static_cast<std::int32_t>(n), reached += p[n];
    const long long before = allocations();
    const drawn_token d = draw_token(view<const double, 1>(logits), 1, top_p, u, memory);
    if (i > 0) allocated += allocations() - before;
    REQUIRE(d.token == want);
  }
  CHECK(allocated == 0);
}

TEST_CASE("draw_token: what cannot be drawn from") {
  CHECK(refusal([] { draw({}, 1, 1, 0); }) == "plumb: draw_token: there are no logits to draw from.");
  CHECK(refusal([] { draw({1, std::nan("")}, 1, 1, 0); }) == "plumb: draw_token: the logit of token 1 is not a number.");
  CHECK(refusal([] { draw({-infinity, -infinity}, 1, 1, 0); }) == "plumb: draw_token: the largest logit is -inf: nothing can be drawn.");
  CHECK(refusal([] { draw({1, infinity}, 0, 1, 0); }) == "plumb: draw_token: the largest logit is inf: nothing can be drawn.");
}

TEST_CASE("sample_rollouts: the end token once, last, and the policy's own; nothing after it") {
  tabular_policy<double> policy(3);
  auto starts = prompts(200, 2);
  starts.push_back({.tokens = {2, 2, 0}, .prompt_tokens = 3});     // end tokens in a prompt mean nothing
  starts.push_back({.tokens = {1, 0, 1}, .prompt_tokens = 1});     // given tokens
  starts.push_back({.tokens = {1, 0, 2}, .prompt_tokens = 1});     // a given reply that is complete
  starts.push_back({.tokens = {1, 0, 0, 0, 0}, .prompt_tokens = 1});  // nothing may be added
  starts.push_back({.tokens = {1}, .prompt_tokens = 1, .max_new_tokens = 0});
  starts.push_back({.tokens = {1}, .prompt_tokens = 1, .max_new_tokens = 1});
  const auto r = policy.generate(starts, {.max_new_tokens = 4, .end_token = 2, .seed = 5});
  r.require("test");
  CHECK(r.size() == 206);
  bool some_cut = false;
  for (index_t s = 0; s < r.size(); ++s) {
    const auto own = r.own_of(s);
    for (std::size_t t = 0; t < own.size(); ++t) {
      if (own[t] != 2) continue;
      CHECK(t + 1 == own.size());
      CHECK(r.ended[static_cast<std::size_t>(s)] == 1);
    }
    if (r.ended[static_cast<std::size_t>(s)] == 0 && s < 202) {
      some_cut = true;
      CHECK(r.own_count(s) + r.given_count(s) == 4);
    }
    CHECK(r.own_count(s) + r.given_count(s) <= 4);
  }
  CHECK(some_cut);
  CHECK(r.own_count(200) > 0);
  CHECK(r.given_count(201) == 2);
  for (const index_t s : {202, 203, 204}) {
    CHECK(r.own_count(s) == 0);
    CHECK(r.ended[static_cast<std::size_t>(s)] == 0);
  }
  CHECK(r.own_count(205) == 1);
}

TEST_CASE("sample_rollouts: a model is told once that a text is finished, with a negative token, and asked no more than needed") {
  struct noting {
    std::vector<ids> told;
    std::size_t texts = 0, asked = 0;
    std::vector<double> logits;
    void open(std::span<const start> starts) { texts = starts.size(); }
    view<const double, 2> next_logits() {
      ++asked;
      logits.assign(3 * texts, 0);
      if (asked == 2) logits[2] = 1e3;  // the first text ends here
      return {logits.data(), static_cast<index_t>(texts), 3};
    }
    void append(std::span<const std::int32_t> next) { told.emplace_back(next.begin(), next.end()); }
  } model;
  auto starts = prompts(3, 1);
  starts[1].max_new_tokens = 0;
  starts[2].max_new_tokens = 3;
  std::uint64_t seed = 0;
  rollouts<double> r;
  do {  // a seed where no text ends by chance
    model = {};
    r = sample_rollouts<double>(model, starts, {.max_new_tokens = 4, .end_token = 2, .seed = ++seed});
  } while (r.own_count(0) != 2 || r.own_count(2) != 3 || r.ended[2]);
  CHECK(model.asked == 3);
  REQUIRE(model.told.size() == 2);  // nobody waits for what follows the last token
  CHECK(model.told[0] == ids{r.own_of(0)[0], -1, r.own_of(2)[0]});
  CHECK(model.told[1] == ids{-1, -1, r.own_of(2)[1]});

  model = {};
  starts[0].max_new_tokens = starts[2].max_new_tokens = 0;
  CHECK(sample_rollouts<double>(model, starts, {}).own_tokens() == 0);
  CHECK(model.texts == 0);
}

TEST_CASE("sample_rollouts: without an end token replies are as long as they may be") {
  tabular_policy<float> policy(3);
  const auto r = policy.generate(prompts(5, 2), {.max_new_tokens = 3});
  for (index_t s = 0; s < 5; ++s) {
    CHECK(r.own_count(s) == 3);
    CHECK(r.ended[static_cast<std::size_t>(s)] == 0);
  }
  CHECK(policy.generate(prompts(3, 1), {.max_new_tokens = 0}).own_tokens() == 0);
  CHECK(policy.generate({}, {}).size() == 0);
}

TEST_CASE("sample_rollouts: replies come as often as they are likely, and say so") {
  tabular_policy<double> policy(3);
  const start from{.tokens = {1}, .prompt_tokens = 1};
  for (const double temperature : {1.0, 0.6}) {
    std::map<ids, double> probability, count;
    auto all = all_replies(policy, from, 2, 3);
    all.temperature = temperature;
    const auto logp = text_logp(all, policy.score(all));
    double total = 0;
    for (index_t s = 0; s < all.size(); ++s) {
      probability[ids(all.own_of(s).begin(), all.own_of(s).end())] = std::exp(logp[static_cast<std::size_t>(s)]);
      total += std::exp(logp[static_cast<std::size_t>(s)]);
    }
    CHECK(total == Catch::Approx(1).epsilon(1e-12));
    const auto r = policy.generate(std::vector<start>(8000, from), {.temperature = temperature, .max_new_tokens = 3, .end_token = 2, .seed = 4});
    CHECK(r.temperature == temperature);
    for (index_t s = 0; s < r.size(); ++s) ++count[ids(r.own_of(s).begin(), r.own_of(s).end())];
    std::vector<double> counts, p;
    for (const auto& [reply, chance] : probability) {
      counts.push_back(count[reply]);
      p.push_back(chance);
    }
    CHECK(count.size() <= p.size());
    CHECK(chi_squared(counts, p) < chi_squared_limit(static_cast<double>(p.size() - 1)));
    const auto scored = policy.score(r);
    for (std::size_t t = 0; t < scored.size(); ++t) CHECK(std::abs(r.logp[t] - scored[t]) < 1e-13);
  }
}

TEST_CASE("sample_rollouts: greedy scores at temperature 1") {
  tabular_policy<double> policy(4);
  const auto r = policy.generate(prompts(3, 3), {.temperature = 0, .max_new_tokens = 3, .seed = 1});
  CHECK(r.temperature == 1);
  const auto scored = policy.score(r);
  for (std::size_t t = 0; t < scored.size(); ++t) CHECK(std::abs(r.logp[t] - scored[t]) < 1e-13);
  CHECK(policy.generate(prompts(3, 3), {.temperature = 0, .max_new_tokens = 3, .seed = 2}).tokens == r.tokens);
}

TEST_CASE("sample_rollouts: a text is a function of (seed, step, its number), however the batch is cut") {
  tabular_policy<double> policy(5);
  const auto starts = prompts(9, 2);
  const sampling how{.max_new_tokens = 6, .end_token = 0, .seed = 3, .step = 8};
  const auto whole = policy.generate(starts, how);
  for (const std::size_t cut : {1u, 4u}) {
    rollouts<double> pieces;
    for (std::size_t from = 0; from < starts.size(); from += cut) {
      sampling piece = how;
      piece.first_row = from;
      pieces.append(policy.generate(std::span(starts).subspan(from, std::min(cut, starts.size() - from)), piece));
    }
    CHECK(pieces.tokens == whole.tokens);
    CHECK(pieces.logp == whole.logp);
  }
  for (const auto& other : {sampling{.max_new_tokens = 6, .end_token = 0, .seed = 4, .step = 8},
                            {.max_new_tokens = 6, .end_token = 0, .seed = 3, .step = 9}})
    CHECK(policy.generate(starts, other).tokens != whole.tokens);
  // Token `t` of a reply is drawn with number `t`, given or not: a reset to one's own text goes on as it went.
  for (index_t s = 0; s < whole.size(); ++s) {
    if (whole.own_count(s) < 3) continue;
    const auto text = whole.text_of(s);
    sampling again = how;
    again.first_row = static_cast<std::uint64_t>(s);
    const start reset{.tokens = {text.begin(), text.begin() + 3}, .prompt_tokens = 1};
    const auto r = policy.generate(std::vector<start>{reset}, again);
    CHECK(ids(r.text_of(0).begin(), r.text_of(0).end()) == ids(text.begin(), text.end()));
  }
}

TEST_CASE("sample_rollouts: what is refused") {
  tabular_policy<double> policy(3);
  const auto refused = [&](const sampling& how, std::vector<start> starts = prompts(2, 1)) {
    return refusal([&] { (void)policy.generate(starts, how); });
  };
  CHECK(refused({.temperature = -1}) ==
        "plumb: sample_rollouts: option `temperature` is -1 but must be 0 (greedy) or positive. Nothing was written.");
  CHECK(refused({.top_p = 0}) == "plumb: sample_rollouts: option `top_p` is 0 but must be in (0, 1]. Nothing was written.");
  CHECK(refused({.max_new_tokens = -1}) == "plumb: sample_rollouts: option `max_new_tokens` is -1 but must be 0 or positive. Nothing was written.");
  CHECK(refused({.end_token = 3}) == "plumb: sample_rollouts: the end token is 3, but the model has 3 tokens. Nothing was written.");
  CHECK(refused({}, {{.tokens = {1}, .prompt_tokens = 4}}) ==
        "plumb: sample_rollouts: the prompt of text 0 is to have 4 tokens, but the text begins with 1. Nothing was added.");
}

// Greedy decoding and sampling: many side by side are what one by one gives, and no limit is passed.
#include "support/catch.hpp"
#include "support/small_language_models.hpp"

#include <plumb/search/decoding.hpp>

#include <map>

using namespace plumb;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {

const token_list prompt{3, 5, 2};

/// Token by token, from logits of the whole text.
decoded_text by_hand(const toy_world& w, const decoding_options& o, std::uint64_t row) {
  decoded_text r;
  token_list text = prompt;
  std::vector<double> memory;
  while (r.reason == stop_reason::none) {
    const auto logits = w.logits(text);
    const auto d = draw_token(view<const float, 1>(logits), o.temperature, o.top_p, token_stream(o.seed, 0, row).uniform(r.response.size()), memory);
    text.push_back(d.token);
    r.response.push_back(d.token);
    r.logp.push_back(d.logp);
    if (d.token == 0) r.reason = stop_reason::ended;
    else if (static_cast<index_t>(r.response.size()) == o.max_new_tokens) r.reason = stop_reason::length;
  }
  return r;
}
bool same(const decoded_text& a, const decoded_text& b) { return a.response == b.response && a.logp == b.logp && a.reason == b.reason; }

}  // namespace

TEST_CASE("decode: greedy and sampled replies, token by token") {
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u})
    for (const double temperature : {0.0, 0.7, 1.5})
      for (const double top_p : {0.6, 1.0})
        least_and_most({.seed = seed, .step = seed % 2 ? 0.0 : 1.5}, [&](auto& m) {
          const decoding_options o{.temperature = temperature, .top_p = top_p, .max_new_tokens = 9, .seed = seed + 7, .first_row = seed};
          const auto r = decode(m, prompt, o);
          CHECK(same(r, by_hand(m.world, o, seed)));
          CHECK(r.counters.tokens == static_cast<std::int64_t>(prompt.size() + r.response.size()) - 1);  // the last one is not read
          CHECK(r.counters.tokens == m.witness->tokens);
        });
}

TEST_CASE("decode_many: each reply is what decode gives, however many sequences there may be") {
  for (const index_t budget : {1, 2, 3, 5, 64})
    least_and_most({.seed = 5, .vocab = 6, .spread = 2}, [&](auto& m) {
      INFO("budget " << budget);
      const decoding_options o{.max_new_tokens = 8, .seed = 3, .first_row = 10, .sequences = {.sequences = budget}};
      const auto all = decode_many(m, prompt, 7, o);
      std::size_t longest = 0;
      std::int64_t read = static_cast<std::int64_t>(prompt.size());
      REQUIRE(all.replies.size() == 7);
      for (std::size_t i = 0; i < 7; ++i) {
        CHECK(same(all.replies[i], by_hand(m.world, o, 10 + i)));
        longest = std::max(longest, all.replies[i].response.size());
        read += static_cast<std::int64_t>(all.replies[i].response.size()) - 1;
      }
      CHECK(all.counters.tokens == m.witness->tokens);
      CHECK(m.witness->most_live <= budget);
      if (budget > 1) CHECK(all.counters.tokens <= read);  // the prompt once
      if (budget == 64 && m.skills.batched) CHECK(all.counters.calls == static_cast<std::int64_t>(longest));
    });
  plain_toy m;
  CHECK(decode_many(m, prompt, 0).replies.empty());
  CHECK(m.witness->fuse.calls == 0);
}

TEST_CASE("decode: top_k") {
  const std::vector<float> logits{1, 3, 2, 3, -1, 3};
  const random_stream random{4, 4};
  const auto counted = [&](double temperature, index_t k, double top_p) {
    detail::token_sampler sampler(temperature, k, top_p);
    std::map<std::int32_t, int> n;
    for (std::uint64_t i = 0; i < 3000; ++i) {
      const auto d = sampler(logits, random.uniform(i));
      ++n[d.token];
      double sum = 0;  // of the whole distribution
      for (const float x : logits) sum += std::exp(x / temperature);
      CHECK(d.logp == Catch::Approx(logits[static_cast<std::size_t>(d.token)] / temperature - std::log(sum)).epsilon(1e-12));
    }
    return n;
  };
  for (const index_t k : {2, 3}) {  // of equals the first ones, each as likely
    auto n = counted(1, k, 1);
    CHECK(static_cast<index_t>(n.size()) == k);
    CHECK(n[1] > 2500 / static_cast<int>(k));
    CHECK(n[3] > 2500 / static_cast<int>(k));
  }
  auto four = counted(1, 4, 1);
  CHECK(four.size() == 4);
  CHECK(four[2] == Catch::Approx(3000 * std::exp(-1) / (3 + std::exp(-1))).epsilon(0.2));
  CHECK(counted(1, 4, 0.87).size() == 3);  // the share is of what `top_k` left: 3 / (3 + 1/e) = 0.89
  CHECK(counted(1, 0, 0.87).size() == 4);  // of all it is 0.85
  CHECK(counted(2, 6, 1) == counted(2, 0, 1));
  CHECK(counted(1, 100, 1) == counted(1, 0, 1));
  for (const std::uint64_t seed : {1u, 2u})
    least_and_most({.seed = seed, .step = 1}, [&](auto& m) {
      CHECK(decode(m, prompt, {.top_k = 1, .max_new_tokens = 20}).response == decode(m, prompt, {.temperature = 0, .max_new_tokens = 20}).response);
    });
  detail::token_sampler sampler(1, 2, 1);
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(sampler(std::vector<float>{1, 2, nan}, 0.5), ContainsSubstring("the logit of token 2 is not a number"));
  CHECK_THROWS_WITH(sampler(std::vector<float>{-infinity, -infinity, -infinity}, 0.5), ContainsSubstring("nothing can be drawn"));
  CHECK(sampler(std::vector<float>{-infinity, 1, -infinity}, 0.999).token == 1);
}

TEST_CASE("decode: where a reply ends") {
  least_and_most({.end_logit = 100}, [](auto& m) {  // at once: the end token is the reply
    const auto r = decode(m, prompt);
    CHECK(r.response == token_list{0});
    CHECK(r.reason == stop_reason::ended);
    CHECK(m.witness->tokens == 3);
  });
  least_and_most({.end_logit = -100}, [](auto& m) {
    auto r = decode(m, prompt, {.max_new_tokens = 1});
    CHECK(r.response.size() == 1);
    CHECK(r.reason == stop_reason::length);
    std::vector<std::size_t> seen;
    r = decode(m, prompt, {.max_new_tokens = 50, .stop = [&](token_span x) {
                             seen.push_back(x.size());
                             return x.size() == 4;
                           }});
    CHECK(r.response.size() == 4);
    CHECK(r.reason == stop_reason::ended);
    CHECK(seen == std::vector<std::size_t>{1, 2, 3, 4});
    if (m.skills.bounded) {
      m.longest = 7;  // 4 tokens can be read behind the prompt, the fifth lies behind the context
      r = decode(m, prompt);
      CHECK(r.response.size() == 5);
      CHECK(r.reason == stop_reason::length);
      m.longest = 3;
      CHECK(decode(m, prompt).response.size() == 1);
      m.longest = 2;
      CHECK_THROWS_WITH(decode(m, prompt), ContainsSubstring("the prompt has 3 tokens, but the model's context is 2"));
    }
  });
  least_and_most({.vocab = 1}, [](auto& m) {
    const token_list zeros{0, 0};
    CHECK(decode(m, zeros).response == token_list{0});
    CHECK(decode(m, zeros, {.temperature = 0}).response == token_list{0});
  });
}

TEST_CASE("decode: tokens as they come") {
  least_and_most({.seed = 9}, [](auto& m) {
    std::map<index_t, decoded_text> told;
    decoding_options o{.max_new_tokens = 10, .sequences = {.sequences = 3}};
    o.on_token = [&](const written_token& w) {
      told[w.reply].response.push_back(w.token);
      told[w.reply].logp.push_back(w.logp);
      CHECK(std::ranges::equal(w.response, told[w.reply].response));
    };
    const auto all = decode_many(m, prompt, 5, o);
    for (std::size_t i = 0; i < 5; ++i) {
      CHECK(told[static_cast<index_t>(i)].response == all.replies[i].response);
      CHECK(told[static_cast<index_t>(i)].logp == all.replies[i].logp);
    }
    o.on_token = [](const written_token& w) {
      if (w.response.size() == 3) throw toy_failure("the listener");
    };
    CHECK_THROWS_AS(decode_many(m, prompt, 5, o), toy_failure);
    CHECK(m.witness->live == 0);
  });
}

TEST_CASE("decode: no limit is passed, and a reply that is cut off is the beginning of what it would have been") {
  least_and_most({.seed = 5, .vocab = 6, .spread = 2}, [](auto& m) {
    decoding_options o{.max_new_tokens = 8, .seed = 3};
    const auto whole = decode_many(m, prompt, 5, o);
    for (std::int64_t most = 0; most <= 3 + 5 * 7; ++most) {
      INFO("tokens " << most);
      m.witness->tokens = 0;
      o.limits.tokens = most;
      const auto all = decode_many(m, prompt, 5, o);
      CHECK(m.witness->tokens <= most);
      CHECK(all.counters.tokens == m.witness->tokens);
      CHECK((most < 3) == (all.counters.tokens == 0));
      for (std::size_t i = 0; i < 5; ++i) {
        const auto& r = all.replies[i];
        const auto& full = whole.replies[i];
        CHECK(std::equal(r.response.begin(), r.response.end(), full.response.begin()));
        CHECK(r.logp.size() == r.response.size());
        CHECK(r.reason == (r.response.size() == full.response.size() ? full.reason : stop_reason::tokens));
        if (most == 3 + 5 * 7) CHECK(same(r, full));
      }
      if (most >= 3 + 7) CHECK(same(all.replies[0], whole.replies[0]));  // the last ones give way to the first
    }
    o.limits = {.seconds = 0};
    CHECK(decode(m, prompt, o).reason == stop_reason::deadline);
    o.limits = {};
    std::stop_source source;
    o.cancel = source.get_token();
    o.on_token = [&](const written_token& w) {
      if (w.response.size() == 2) source.request_stop();
    };
    m.world.end_logit = -100;
    const auto r = decode(m, prompt, o);
    CHECK(r.response.size() == 2);
    CHECK(r.reason == stop_reason::cancelled);
    CHECK(decode(m, prompt, o).response.empty());
  });
}

TEST_CASE("decode: whatever call of the model fails, nothing is left behind") {
  least_and_most({.seed = 5, .vocab = 6}, [](auto& m) {
    const decoding_options o{.max_new_tokens = 6, .sequences = {.sequences = 3}};
    CHECK(each_failure(m, m.witness->fuse, [&] { (void)decode_many(m, prompt, 5, o); }) > 0);
    m.witness->nan_at = m.witness->logits + 2;
    CHECK_THROWS_WITH(decode_many(m, prompt, 5, o), ContainsSubstring("is not a number"));
    m.witness->nan_at = -1;
    m.most_cells = 2;
    CHECK_THROWS_AS(decode(m, prompt, o), sequence_memory_full);
  });
}

TEST_CASE("decode: little memory changes nothing") {
  for (const std::int64_t cells : {11, 14, 25})
    least_and_most({.seed = 5, .vocab = 6, .spread = 2}, [&](auto& m) {
      m.most_cells = cells;
      const decoding_options o{.max_new_tokens = 8, .seed = 3};
      const auto all = decode_many(m, prompt, 6, o);
      for (std::size_t i = 0; i < 6; ++i) CHECK(same(all.replies[i], by_hand(m.world, o, i)));
      CHECK(m.witness->full > 0);
    });
}

TEST_CASE("decode: what it refuses") {
  plain_toy m;
  const auto refused = [&](const decoding_options& o, const char* what) { CHECK_THROWS_WITH(decode(m, prompt, o), ContainsSubstring(what)); };
  refused({.temperature = -1}, "`temperature`");
  refused({.top_k = -1}, "`top_k`");
  refused({.top_p = 0}, "`top_p`");
  refused({.top_p = 1.5}, "`top_p`");
  refused({.max_new_tokens = 0}, "`max_new_tokens`");
  refused({.limits = {.tokens = -1}}, "`tokens`");
  refused({.sequences = {.sequences = 0}}, "`sequences`");
  CHECK_THROWS_WITH(decode_many(m, prompt, -1), ContainsSubstring("-1 replies"));
  CHECK_THROWS_WITH(decode(m, token_list{}), ContainsSubstring("the prompt is empty"));
  CHECK_THROWS_WITH(decode(m, token_list{1, 12}), ContainsSubstring("token 1 of the prompt is 12, but the model has 12 tokens"));
  CHECK_THROWS_WITH(decode(m, token_list{-1}), ContainsSubstring("token 0 of the prompt is -1"));
  CHECK(m.witness->fuse.calls == 0);
}

TEST_CASE("continue_texts: texts that are complete stay, a limit leaves the others where they can go on") {
  least_and_most({.seed = 2, .vocab = 6, .end_logit = -2}, [](auto& m) {
    const auto greedy = [](std::size_t, std::size_t, std::span<const float> l) {
      return static_cast<std::int32_t>(std::ranges::max_element(l.begin(), l.end()) - l.begin());
    };
    const auto run = [&](std::int64_t most) {  // with as many tokens as that for each try
      std::vector<continuation> texts{{.tokens = {1}, .written_from = 1}, {.tokens = {2, 3}, .written_from = 2}, {.tokens = {4}, .at_boundary = true},
                                      {.tokens = {5, 0}, .ended = true}, {.tokens = {2}, .written_from = 1}};
      std::vector<token_list> seen(texts.size());
      prefix_cache cache(m);
      for (int tries = 0; tries < 100; ++tries) {
        detail::meter meter({.tokens = most}, {});
        try {
          continue_texts(cache, meter, std::span(texts), greedy, [&](std::size_t i, token_span text) {
            seen[i].push_back(text.back());
            return text.size() == 6;
          });
          break;
        } catch (const detail::limit_reached&) {
        }
      }
      CHECK(texts[2].tokens == token_list{4});
      CHECK(texts[3].tokens == token_list{5, 0});
      for (std::size_t i = 0; i < texts.size(); ++i) {
        CHECK(texts[i].complete());
        if (i != 2 && i != 3) CHECK(std::ranges::equal(texts[i].written(), seen[i]));  // each token once
      }
      return seen;
    };
    const auto all = run(1000);
    CHECK(all[0].size() + all[1].size() + all[4].size() > 4);
    for (const std::int64_t most : {4, 5, 9}) CHECK(run(most) == all);
  });
}

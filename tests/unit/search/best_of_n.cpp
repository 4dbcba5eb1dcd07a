// The best of n replies: what decode draws, judged; no limit is passed, and only what was judged is returned.
#include "support/catch.hpp"
#include "support/small_language_models.hpp"

#include <plumb/search/best_of_n.hpp>

#include <set>

using namespace plumb;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {

const token_list prompt{3, 5, 2};

/// One reply after the other.
template <class M, class Says>
decode_best_of_n_result by_hand(M& m, const Says& says, const decode_best_of_n_options& o) {
  decode_best_of_n_result best;
  for (index_t i = 0; i < o.n; ++i) {
    const double temperature = o.greedy_first && i == 0 ? 0 : o.temperature;
    const auto row = static_cast<std::uint64_t>(i);
    const auto r = decode(m, prompt, {.temperature = temperature, .top_k = o.top_k, .top_p = o.top_p, .max_new_tokens = o.max_new_tokens,
                                      .seed = o.seed, .first_row = row, .stop = o.stop});
    best.scores.push_back(says({prompt, r.response, r.reason == stop_reason::ended}));
    if (best.which >= 0 && !(best.scores.back() > best.score)) continue;
    best.which = i;
    best.score = best.scores.back();
    best.response = r.response;
    best.reason = r.reason;
    best.finished = r.reason == stop_reason::ended;
  }
  return best;
}
void check_same(const decode_best_of_n_result& a, const decode_best_of_n_result& b) {
  CHECK(a.response == b.response);
  CHECK(a.score == b.score);
  CHECK(a.which == b.which);
  CHECK(a.finished == b.finished);
  CHECK(a.scores == b.scores);
  CHECK(a.reason == b.reason);
}

}  // namespace

TEST_CASE("decode_best_of_n: the best of what decode draws, whatever goes side by side") {
  for (const std::uint64_t seed : {1u, 2u, 3u})
    for (const int levels : {3, 0})
      least_and_most({.seed = seed, .vocab = 6, .spread = 2}, [&](auto& m) {
        const decode_best_of_n_options o{.n = 11, .greedy_first = seed != 2, .top_k = seed == 3 ? 4 : 0, .max_new_tokens = 6, .seed = seed};
        const auto says = [&, h = hashed_score(seed, levels)](const candidate& c) { return 1e6 * h(c) + (c.finished ? 0.5 : 0); };  // of any size
        const auto expected = by_hand(m, says, o);
        for (const index_t width : {0, 1, 4, 8})
          for (const index_t budget : {1, 2, 5, 64}) {
            INFO("width " << width << ", budget " << budget);
            auto how = o;
            how.width = width;
            how.sequences.sequences = budget;
            toy_judge judge{says};
            const auto r = decode_best_of_n(m, judge, prompt, how);
            check_same(r, expected);
            batched_toy_judge many{says};
            check_same(decode_best_of_n(m, many, prompt, how), expected);
            CHECK(many.widest <= (width == 0 ? 11 : width));
            CHECK(r.counters.simulations == 11);
            CHECK(r.counters.judgements + r.counters.judged_before == 11);
            CHECK(r.counters.judgements == judge.fuse.calls);
            CHECK(r.counters.judge_calls == judge.fuse.calls);
            CHECK(r.counters.judge_tokens == 0);
          }
      });
}

TEST_CASE("decode_best_of_n: the prompt is read once, equal replies are judged once, the first of equals wins") {
  least_and_most({.seed = 5, .vocab = 6, .spread = 1}, [](auto& m) {
    toy_judge judge{always(0.25)};
    std::vector<token_list> replies;
    decode_best_of_n_options o{.n = 40, .max_new_tokens = 4};
    o.on_reply = [&](const judged_reply& r) {
      CHECK(r.which == static_cast<index_t>(replies.size()));
      CHECK(r.score == 0.25);
      replies.emplace_back(r.response.begin(), r.response.end());
    };
    m.witness->tokens = 0;
    const auto r = decode_best_of_n(m, judge, prompt, o);
    CHECK(r.which == 0);
    CHECK(r.response == decode(m, prompt, {.temperature = 0, .max_new_tokens = 4}).response);
    CHECK(static_cast<std::size_t>(judge.fuse.calls) == std::set(replies.begin(), replies.end()).size());
    CHECK(r.counters.judged_before == 40 - judge.fuse.calls);
    std::int64_t most = 3;
    for (const auto& x : replies) most += static_cast<std::int64_t>(x.size()) - 1;
    CHECK(r.counters.tokens <= most);
    o.remembered_scores = 0;  // then only those of one group are told apart
    o.width = 1;
    o.on_reply = {};
    judge.fuse = {};
    (void)decode_best_of_n(m, judge, prompt, o);
    CHECK(judge.fuse.calls == 40);
  });
  least_and_most({.end_logit = 100}, [](auto& m) {  // the end at once: one reply
    toy_judge judge{hashed_score(1)};
    const auto r = decode_best_of_n(m, judge, prompt, {});
    CHECK(r.response == token_list{0});
    CHECK(r.finished);
    CHECK(judge.fuse.calls == 1);
    CHECK(r.counters.tokens == 3);
  });
  least_and_most({.vocab = 1}, [](auto& m) {
    toy_judge judge{hashed_score(1)};
    CHECK(decode_best_of_n(m, judge, token_list{0}, {}).response == token_list{0});
  });
}

TEST_CASE("decode_best_of_n: finished is an end, by token or by the caller, not a cut") {
  least_and_most({.seed = 3, .end_logit = -100}, [](auto& m) {
    toy_judge judge{[](const candidate& c) { return (c.finished ? 1.0 : 0.0) + static_cast<double>(c.response.size()) / 100; }};
    auto r = decode_best_of_n(m, judge, prompt, {.n = 3, .max_new_tokens = 5});
    CHECK(r.score == 0.05);
    CHECK(r.reason == stop_reason::length);
    CHECK(!r.finished);
    r = decode_best_of_n(m, judge, prompt, {.n = 3, .max_new_tokens = 5, .stop = [](token_span x) { return x.size() == 4; }});
    CHECK(r.score == 1.04);
    CHECK(r.reason == stop_reason::ended);
    CHECK(r.finished);
  });
}

TEST_CASE("decode_best_of_n: no limit is passed, and what is returned is the best that was judged") {
  least_and_most({.seed = 5, .vocab = 6, .spread = 2}, [](auto& m) {
    for (const index_t width : {1, 3, 0}) {
      decode_best_of_n_options o{.n = 6, .width = width, .max_new_tokens = 6, .seed = 4};
      const auto says = hashed_score(8, 0);
      const auto whole = by_hand(m, says, o);
      const auto greedy = decode(m, prompt, {.temperature = 0, .max_new_tokens = 6});
      const auto first = static_cast<std::int64_t>(3 + greedy.response.size() - 1 + 3 + greedy.response.size() + 2);
      std::int64_t judged_before = 0, most = 0;
      for (;; ++most) {
        INFO("width " << width << ", tokens " << most);
        m.witness->tokens = 0;
        metered_toy_judge judge{{says}};
        o.limits.tokens = most;
        const auto r = decode_best_of_n(m, judge, prompt, o);
        CHECK(m.witness->tokens + judge.used <= most);
        CHECK(r.counters.tokens == m.witness->tokens + judge.used);
        CHECK(r.counters.judge_tokens == judge.used);
        std::int64_t judged = 0;
        double best = -2;
        for (std::size_t i = 0; i < r.scores.size(); ++i) {
          if (std::isnan(r.scores[i])) continue;
          ++judged;
          best = std::max(best, r.scores[i]);
          CHECK(r.scores[i] == whole.scores[i]);
        }
        CHECK((judged > 0) == (most >= first));  // exactly what the first one takes
        if (judged == 0) {
          CHECK(r.which == -1);
          CHECK(r.response.empty());
          CHECK(std::isnan(r.score));
        } else {
          CHECK(r.score == best);
          CHECK(r.scores[static_cast<std::size_t>(r.which)] == best);
          CHECK(r.score == says({prompt, r.response, r.finished}));
        }
        if (width == 1) CHECK(judged >= judged_before);
        judged_before = judged;
        if (judged == 6) {
          CHECK(r.response == whole.response);
          if (r.reason == whole.reason) break;
        }
        CHECK(r.reason == stop_reason::tokens);
        REQUIRE(most < 200);
      }
      o.limits = {.judgements = 2};
      metered_toy_judge judge{{says}};
      auto r = decode_best_of_n(m, judge, prompt, o);
      CHECK(r.counters.judgements <= 2);
      CHECK(r.reason == stop_reason::judgements);
      CHECK(r.which >= 0);
      o.limits = {.judgements = 0};
      r = decode_best_of_n(m, judge, prompt, o);
      CHECK(r.reason == stop_reason::judgements);
      CHECK(r.counters.tokens == 0);
      o.limits = {.simulations = 4};
      r = decode_best_of_n(m, judge, prompt, o);
      CHECK(r.reason == stop_reason::simulations);
      CHECK(r.scores == std::vector<double>(whole.scores.begin(), whole.scores.begin() + 4));
      o.limits = {.seconds = 0};
      r = decode_best_of_n(m, judge, prompt, o);
      CHECK(r.reason == stop_reason::deadline);
      CHECK(r.which == -1);
    }
    std::stop_source source;
    decode_best_of_n_options o{.n = 6, .width = 1, .max_new_tokens = 6, .cancel = source.get_token()};
    o.on_reply = [&](const judged_reply& r) {
      if (r.which == 1) source.request_stop();
    };
    toy_judge judge{hashed_score(8, 0)};
    const auto r = decode_best_of_n(m, judge, prompt, o);
    CHECK(r.reason == stop_reason::cancelled);
    CHECK(r.which >= 0);
    CHECK(r.which <= 1);
  });
}

TEST_CASE("decode_best_of_n: little is written in vain under a limit of tokens") {
  // 30 replies of 10 tokens, of which 100 can be paid: with 8 side by side there are as many as one by one.
  least_and_most({.seed = 5, .vocab = 30, .memory = 40, .end_logit = -100}, [](auto& m) {
    const auto judged = [&](index_t width) {
      metered_toy_judge judge{{hashed_score(1)}};
      const auto r = decode_best_of_n(m, judge, prompt, {.n = 30, .width = width, .max_new_tokens = 10, .limits = {.tokens = 250}});
      return r.counters.judgements;
    };
    CHECK(judged(1) == (250 - 3) / (9 + 15));
    CHECK(judged(8) == judged(1));
    CHECK(judged(0) == judged(1));
  });
}

TEST_CASE("decode_best_of_n: a score must be a number, and is named where it is not") {
  least_and_most({.seed = 5}, [](auto& m) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    for (const double odd : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity})
      for (const index_t width : {1, 4}) {
        toy_judge judge{.says = hashed_score(3), .odd_at = 3, .odd = odd};
        CHECK_THROWS_WITH(decode_best_of_n(m, judge, prompt, {.width = width}),
                          ContainsSubstring("decode_best_of_n: the judge's score of reply 2 is"));
        CHECK(m.witness->live == 0);
      }
    batched_toy_judge silent{always(std::numeric_limits<double>::quiet_NaN())};
    CHECK_THROWS_WITH(decode_best_of_n(m, silent, prompt, {}), ContainsSubstring("reply 0 is nan"));
  });
}

TEST_CASE("decode_best_of_n: whatever call fails, nothing is left behind") {
  least_and_most({.seed = 5, .vocab = 6}, [](auto& m) {
    const decode_best_of_n_options o{.n = 5, .width = 3, .max_new_tokens = 5, .sequences = {.sequences = 3}};
    metered_toy_judge judge{{hashed_score(3)}};
    for (toy_fuse* fuse : {&m.witness->fuse, &judge.fuse}) CHECK(each_failure(m, *fuse, [&] { (void)decode_best_of_n(m, judge, prompt, o); }) > 0);
    m.witness->nan_at = m.witness->logits + 3;
    CHECK_THROWS_WITH(decode_best_of_n(m, judge, prompt, o), ContainsSubstring("is not a number"));
  });
}

TEST_CASE("decode_best_of_n: what it refuses") {
  complete_toy m;
  toy_judge judge{hashed_score(3)};
  const auto refused = [&](const decode_best_of_n_options& o, const char* what) {
    CHECK_THROWS_WITH(decode_best_of_n(m, judge, prompt, o), ContainsSubstring(what));
  };
  refused({.n = 0}, "`n`");
  refused({.width = -1}, "`width`");
  refused({.temperature = 0}, "`temperature` is 0 but must be positive, where replies are drawn");
  refused({.n = 1, .greedy_first = false, .temperature = 0}, "`temperature`");
  refused({.top_k = -1}, "`top_k`");
  refused({.top_p = 0}, "`top_p`");
  refused({.max_new_tokens = 0}, "`max_new_tokens`");
  refused({.remembered_scores = -1}, "`remembered_scores`");
  refused({.limits = {.judgements = -1}}, "`judgements`");
  CHECK_THROWS_WITH(decode_best_of_n(m, judge, token_list{}), ContainsSubstring("decode_best_of_n: the prompt is empty"));
  m.longest = 2;
  CHECK_THROWS_WITH(decode_best_of_n(m, judge, prompt), ContainsSubstring("context is 2"));
  m.longest = 5;
  CHECK(decode_best_of_n(m, judge, prompt, {.n = 1, .temperature = 0}).response.size() <= 3);
  CHECK(judge.fuse.calls == 1);
  check_left_clean(m);
}

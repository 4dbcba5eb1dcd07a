// Best-of-n block by block: as by hand, within its limits.
#include "support/catch.hpp"
#include "support/small_language_models.hpp"

#include <plumb/search/blockwise_best_of_n.hpp>

using namespace plumb;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {

const token_list prompt{3, 5, 2};

struct reply {
  token_list response{};
  double score = 0;
  bool finished = false;
  std::vector<token_list> blocks{};
};
/// Token by token, from logits of the whole text.
template <class Says>
reply by_hand(const toy_world& w, const Says& says, const blockwise_best_of_n_options& o) {
  reply r;
  std::vector<double> memory;
  for (std::uint64_t block = 0; !r.finished && static_cast<index_t>(r.response.size()) < o.max_new_tokens; ++block) {
    reply best;
    for (index_t i = 0; i < o.n; ++i) {
      reply x{.response = r.response};
      token_list text = joined({prompt, r.response});
      for (index_t t = 0;; ++t) {
        const double temperature = o.greedy_first && i == 0 ? 0 : o.temperature;
        const double u = token_stream(o.seed, block, static_cast<std::uint64_t>(i)).uniform(static_cast<std::uint64_t>(t));
        const auto logits = w.logits(text);
        text.push_back(draw_token(view<const float, 1>(logits), temperature, o.top_p, u, memory).token);
        x.response.push_back(text.back());
        x.finished = text.back() == 0 || (o.stop && o.stop(x.response));
        if (x.finished || static_cast<index_t>(x.response.size()) == o.max_new_tokens || t + 1 == o.max_block_tokens ||
            (o.boundary && o.boundary(x.response)))
          break;
      }
      x.score = says({prompt, x.response, x.finished});
      if (i == 0 || x.score > best.score) best = x;
    }
    best.blocks = r.blocks;
    best.blocks.emplace_back(best.response.begin() + static_cast<std::ptrdiff_t>(r.response.size()), best.response.end());
    r = best;
  }
  return r;
}

}  // namespace

TEST_CASE("blockwise_best_of_n: as by hand, whatever goes side by side") {
  for (const std::uint64_t seed : {1u, 2u, 3u})
    least_and_most({.seed = seed, .vocab = 7, .spread = 2, .end_logit = -2}, [&](auto& m) {
      blockwise_best_of_n_options o{.n = 5, .greedy_first = seed != 2, .max_block_tokens = 4, .max_new_tokens = 14, .seed = seed};
      if (seed == 3) o.top_p = 0.9;
      if (seed != 3) o.boundary = after_token{{2, 4}};
      if (seed == 2) o.stop = [](token_span x) { return x.size() > 6 && x.back() == 5; };
      const auto says = hashed_score(seed, seed == 1 ? 3 : 0);
      const reply expected = by_hand(m.world, says, o);
      for (const index_t width : {0, 1, 3})
        for (const index_t budget : {1, 2, 4, 64}) {
          INFO("seed " << seed << ", width " << width << ", budget " << budget);
          o.width = width;
          o.sequences.sequences = budget;
          std::vector<token_list> blocks;
          o.on_commit = [&](const committed_block& b) {
            blocks.emplace_back(b.tokens.begin(), b.tokens.end());
            CHECK(b.scores.size() == 5);
            CHECK(b.scores[static_cast<std::size_t>(b.which)] == b.score);
            CHECK(b.score == *std::ranges::max_element(b.scores));
            CHECK(b.score == says({prompt, b.response, b.finished}));
          };
          toy_judge judge{says};
          m.witness->most_live = 0;
          const auto r = blockwise_best_of_n(m, judge, prompt, o);
          CHECK(r.response == expected.response);
          CHECK(r.score == expected.score);
          CHECK(r.finished == expected.finished);
          CHECK(r.reason == (expected.finished ? stop_reason::ended : stop_reason::length));
          CHECK(blocks == expected.blocks);
          CHECK(r.counters.rounds == static_cast<std::int64_t>(blocks.size()));
          CHECK(r.counters.simulations == 5 * r.counters.rounds);
          CHECK(m.witness->most_live <= budget);
          batched_toy_judge many{says};
          CHECK(blockwise_best_of_n(m, many, prompt, o).response == expected.response);
        }
    });
}

TEST_CASE("blockwise_best_of_n: what is read again is little") {
  least_and_most({.seed = 4, .vocab = 9, .memory = 40, .end_logit = -100}, [](auto& m) {
    toy_judge judge{hashed_score(2, 0)};
    for (const index_t budget : {6, 64}) {
      const auto r = blockwise_best_of_n(m, judge, prompt, {.n = 5, .max_block_tokens = 4, .max_new_tokens = 12, .sequences = {.sequences = budget}});
      CHECK(r.response.size() == 12);
      // The prompt, three tokens of each continuation, and the last one of each block but the last.
      CHECK(r.counters.tokens <= 3 + 3 * 5 * 3 + 2);
      if (m.skills.batched) CHECK(r.counters.calls == 3 * 4);
    }
  });
}

TEST_CASE("blockwise_best_of_n: it keeps clear of what the judge condemns, where greedy walks into it") {
  int spoilt = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    complete_toy m({.seed = seed, .spread = 2});
    const auto says = spoilt_by_multiples_of(3);
    const auto greedy = decode(m, prompt, {.temperature = 0, .max_new_tokens = 20});
    spoilt += says({prompt, greedy.response, true}) < 0;
    toy_judge judge{says};
    const auto r = blockwise_best_of_n(m, judge, prompt, {.n = 16, .max_block_tokens = 2, .max_new_tokens = 20});
    CHECK(r.score == 1);
  }
  CHECK(spoilt > 10);
}

TEST_CASE("blockwise_best_of_n: where replies end") {
  least_and_most({.end_logit = 100}, [](auto& m) {  // at once
    toy_judge judge{hashed_score(1)};
    const auto r = blockwise_best_of_n(m, judge, prompt);
    CHECK(r.response == token_list{0});
    CHECK(r.finished);
    CHECK(r.reason == stop_reason::ended);
    CHECK(judge.fuse.calls == 1);
  });
  least_and_most({.vocab = 1}, [](auto& m) {
    toy_judge judge{hashed_score(1)};
    CHECK(blockwise_best_of_n(m, judge, token_list{0}).response == token_list{0});
  });
  complete_toy m({.end_logit = -100});
  m.longest = 9;
  toy_judge judge{hashed_score(1)};
  const auto r = blockwise_best_of_n(m, judge, prompt, {.max_block_tokens = 5});
  CHECK(r.response.size() == 7);
  CHECK(r.reason == stop_reason::length);
  CHECK(!r.finished);
  check_left_clean(m);
}

TEST_CASE("blockwise_best_of_n: no limit is passed, and the reply is made of blocks that were judged") {
  least_and_most({.seed = 5, .vocab = 6, .spread = 2, .end_logit = -2}, [](auto& m) {
    const auto says = hashed_score(8, 0);
    for (const index_t width : {0, 1}) {
      blockwise_best_of_n_options o{.n = 3, .width = width, .max_block_tokens = 3, .max_new_tokens = 9, .seed = 4};
      const reply expected = by_hand(m.world, says, o);
      std::size_t longest = 0;
      for (std::int64_t most = 0;; ++most) {
        INFO("width " << width << ", tokens " << most);
        m.witness->tokens = 0;
        metered_toy_judge judge{{says}};
        o.limits.tokens = most;
        const auto r = blockwise_best_of_n(m, judge, prompt, o);
        CHECK(m.witness->tokens + judge.used <= most);
        CHECK(r.counters.tokens == m.witness->tokens + judge.used);
        if (r.response.empty()) CHECK(std::isnan(r.score));
        else CHECK(r.score == says({prompt, r.response, r.finished}));
        longest = std::max(longest, r.response.size());
        if (r.reason != stop_reason::tokens) {
          CHECK(r.response == expected.response);
          break;
        }
        REQUIRE(most < 300);
      }
      CHECK(longest >= expected.response.size());
      metered_toy_judge judge{{says}};
      for (const std::int64_t most : {0, 1, 4, 7}) {
        o.limits = {.judgements = most};
        const auto r = blockwise_best_of_n(m, judge, prompt, o);
        CHECK(r.counters.judgements <= most);
        CHECK(r.reason == stop_reason::judgements);
        CHECK(r.response.empty() == (most == 0));
      }
      o.limits = {.simulations = 3};
      auto r = blockwise_best_of_n(m, judge, prompt, o);
      CHECK(r.reason == stop_reason::simulations);
      CHECK(r.response == expected.blocks[0]);
      o.limits = {.seconds = 0};
      r = blockwise_best_of_n(m, judge, prompt, o);
      CHECK(r.reason == stop_reason::deadline);
      CHECK(r.response.empty());
      o.limits = {};
      std::stop_source source;
      o.cancel = source.get_token();
      o.on_commit = [&](const committed_block&) { source.request_stop(); };
      r = blockwise_best_of_n(m, judge, prompt, o);
      CHECK(r.reason == stop_reason::cancelled);
      CHECK(r.response == expected.blocks[0]);
    }
  });
}

TEST_CASE("blockwise_best_of_n: whatever call fails, nothing is left behind") {
  least_and_most({.seed = 5, .vocab = 6}, [](auto& m) {
    const blockwise_best_of_n_options o{.n = 3, .max_block_tokens = 2, .max_new_tokens = 6, .sequences = {.sequences = 3}};
    toy_judge judge{hashed_score(3)};
    for (toy_fuse* fuse : {&m.witness->fuse, &judge.fuse}) CHECK(each_failure(m, *fuse, [&] { (void)blockwise_best_of_n(m, judge, prompt, o); }) > 0);
    toy_judge odd{.says = hashed_score(3, 0), .odd_at = 2};
    CHECK_THROWS_WITH(blockwise_best_of_n(m, odd, prompt, o), ContainsSubstring("the judge's score of block 0, continuation 1 is nan"));
  });
}

TEST_CASE("blockwise_best_of_n: what it refuses") {
  plain_toy m;
  toy_judge judge{hashed_score(3)};
  const auto refused = [&](const blockwise_best_of_n_options& o, const char* what) {
    CHECK_THROWS_WITH(blockwise_best_of_n(m, judge, prompt, o), ContainsSubstring(what));
  };
  refused({.n = 0}, "`n`");
  refused({.width = -1}, "`width`");
  refused({.max_block_tokens = 0}, "`max_block_tokens`");
  refused({.temperature = 0}, "`temperature`");
  refused({.max_new_tokens = 0}, "`max_new_tokens`");
  CHECK_THROWS_WITH(blockwise_best_of_n(m, judge, token_list{}), ContainsSubstring("blockwise_best_of_n: the prompt is empty"));
  CHECK_THROWS_WITH(blockwise_best_of_n(m, judge, token_list{99}), ContainsSubstring("token 0 of the prompt is 99"));
  CHECK(m.witness->fuse.calls == 0);
}

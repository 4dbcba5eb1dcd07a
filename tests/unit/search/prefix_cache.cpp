// The cache of sequences: whatever it shares, rewinds, evicts and replays, what it says of a text is what a fresh model says.
#include "support/catch.hpp"
#include "support/small_language_models.hpp"

#include <plumb/search/prefix_cache.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

const search_limits no_limits{};

/// Texts that are asked for side by side, as searches do: lanes that grow, others that branch off, and some that begin anew.
struct stream {
  struct lane {
    token_list text;
    index_t from = -1;
  };
  random_stream r;
  std::uint64_t n = 0;
  index_t vocab;
  std::vector<lane> lanes{};
  std::vector<token_list> seen{{1}};

  stream(std::uint64_t seed, index_t v) : r{seed, 5}, vocab(v) {}
  std::size_t below(std::size_t k) { return static_cast<std::size_t>(r.below(k, n++)); }
  void advance() {
    const bool full = std::ranges::any_of(lanes, [](const lane& x) { return x.text.size() > 9; });  // texts have 12 tokens at most
    if (lanes.empty() || full || below(6) == 0) {
      lanes.clear();
      for (std::size_t i = 0; i <= below(6); ++i) {
        token_list text = seen[below(seen.size())];
        text.resize(1 + below(std::min<std::size_t>(text.size(), 9)));
        lanes.push_back({.text = below(5) == 0 ? token_list{2} : text});
      }
    }
    for (lane& x : lanes)
      for (std::size_t i = below(3); i < 3; ++i) x.text.push_back(static_cast<std::int32_t>(below(static_cast<std::size_t>(vocab))));
    for (const lane& x : lanes) seen.push_back(x.text);
    if (seen.size() > 30) seen.erase(seen.begin(), seen.end() - 20);
  }
};

/// Asks for the lanes; true: all logits were right, each told once.
template <class M>
bool right(prefix_cache<M>& cache, stream& s, detail::meter& meter) {
  std::vector<text_request> requests;
  for (const auto& x : s.lanes) requests.push_back({.text = x.text, .from = x.from});
  std::vector<int> told(requests.size(), 0);
  bool good = true;
  cache.next(std::span<text_request>(requests), meter, [&](std::size_t i, std::span<const float> logits) {
    ++told[i];
    good = good && std::ranges::equal(logits, cache.model().world.logits(requests[i].text));
  });
  for (std::size_t i = 0; i < told.size(); ++i) {
    good = good && told[i] == 1;
    s.lanes[i].from = requests[i].from;
  }
  return good;
}

/// `f(model)` for each kind.
template <class F>
void each_kind(const toy_world& w, const F& f) {
  plain_toy plain(w);
  f(plain);
  rewindable_toy rewindable(w);
  f(rewindable);
  batched_toy batched(w);
  f(batched);
  complete_toy complete(w);
  f(complete);
}
template <class M>
void check_clean(const M& m) {
  for (const auto& b : m.witness->broken) FAIL_CHECK(b);
  CHECK(m.witness->live == 0);
  CHECK(m.witness->cells == 0);
}

}  // namespace

TEST_CASE("prefix_cache: what it says is what a fresh model says, within its budget") {
  for (const std::uint64_t seed : {1u, 2u, 3u})
    for (const index_t budget : {1, 2, 5, 64})
      for (const bool share : {true, false})
        each_kind({.seed = seed, .vocab = 5, .memory = 12}, [&](auto& m) {
          INFO("seed " << seed << ", budget " << budget << ", share " << share);
          m.most_sequences = budget + (seed == 3 ? -1 : 0) > 0 ? budget + (seed == 3 ? -1 : 0) : 1;
          {
            prefix_cache cache(m, {.sequences = budget, .share = share});
            detail::meter meter(no_limits, {});
            stream s(seed, 5);
            bool good = true;
            for (int step = 0; step < 60; ++step) {
              s.advance();
              good = good && right(cache, s, meter) && cache.live() == m.witness->live;
            }
            CHECK(good);
            CHECK(m.witness->most_live <= m.most_sequences);
            const auto& u = meter.used;
            CHECK(u.tokens == m.witness->tokens);
            CHECK(u.calls == m.witness->passes);
            CHECK(u.forks == m.witness->forks);
            CHECK(u.opens == m.witness->opens);
            CHECK(u.rewinds == m.witness->rewinds);
            if (budget == 64 && share) CHECK(2 * u.shared_tokens > u.tokens);
          }
          check_clean(m);
        });
}

TEST_CASE("prefix_cache: it reads what is new, and equal texts once") {
  rewindable_toy m({.memory = 9});
  prefix_cache cache(m);
  detail::meter meter(no_limits, {});
  const auto ask = [&](std::vector<token_list> texts) {
    const auto before = meter.used.tokens;
    std::vector<text_request> r;
    for (const auto& t : texts) r.push_back({.text = t});
    cache.next(std::span<text_request>(r), meter, [](std::size_t, std::span<const float>) {});
    return meter.used.tokens - before;
  };
  CHECK(ask({{1, 2, 3}}) == 3);
  CHECK(ask({{1, 2, 3}}) == 1);  // the last one again: its logits are gone
  CHECK(ask({{1, 2, 3, 4, 5}}) == 2);
  CHECK(ask({{1, 2, 7}}) == 1);
  CHECK(ask({{1, 2, 7, 8}, {1, 2, 7, 8}, {1, 2, 7, 8}}) == 1);
  CHECK(ask({{6}, {1, 2, 3, 4, 5, 6}}) == 2);
  CHECK(ask({{1, 2}}) == 1);
}

TEST_CASE("prefix_cache: a model that cannot rewind shares what its sequences are, not what they were") {
  plain_toy m({.memory = 9});
  prefix_cache cache(m);
  detail::meter meter(no_limits, {});
  const auto ask = [&](token_list text) {
    const auto before = meter.used.tokens;
    cache.next({.text = text}, meter, [](std::span<const float>) {});
    return meter.used.tokens - before;
  };
  CHECK(ask({1, 2, 3}) == 3);
  CHECK(ask({1, 2, 3, 4}) == 1);
  CHECK(ask({1, 2, 3, 5}) == 1);  // of what the first one left
  CHECK(ask({1, 2}) == 2);
  CHECK(ask({1, 2, 9}) == 1);
  CHECK(ask({1, 2, 3}) == 1);
}

TEST_CASE("prefix_cache: a lane goes on in its own sequence, one call for all") {
  batched_toy m({.memory = 9});
  prefix_cache cache(m, {.share = false});
  detail::meter meter(no_limits, {});
  std::vector<token_list> texts{{1, 2}, {1, 2}, {1, 3}};
  std::vector<text_request> r(3);
  for (int t = 0; t < 5; ++t) {
    for (std::size_t i = 0; i < 3; ++i) r[i].text = texts[i];
    cache.next(std::span<text_request>(r), meter, [&](std::size_t i, std::span<const float>) { texts[i].push_back(static_cast<std::int32_t>(i)); });
  }
  CHECK(meter.used.calls == 5);
  CHECK(meter.used.tokens == 3 * (2 + 4));
  CHECK(m.witness->opens == 3);
  CHECK(m.witness->forks == 0);
  CHECK(m.witness->widest == 3);
}

TEST_CASE("prefix_cache: two that were equal part company") {
  each_kind({.vocab = 5, .memory = 9}, [](auto& m) {
    prefix_cache cache(m);
    detail::meter meter(no_limits, {});
    stream s(1, 5);
    s.lanes = {{{1, 2}}, {{1, 2}}, {{1, 2}}};
    CHECK(right(cache, s, meter));
    for (std::int32_t i = 0; i < 3; ++i) s.lanes[static_cast<std::size_t>(i)].text.push_back(i);
    CHECK(right(cache, s, meter));
    CHECK(meter.used.tokens == 2 + 3);
  });
}

TEST_CASE("prefix_cache: a pinned text stays") {
  each_kind({.vocab = 5, .memory = 12}, [](auto& m) {
    m.most_sequences = 2;
    prefix_cache cache(m, {.sequences = 2});
    detail::meter meter(no_limits, {});
    const token_list instruction{1, 2, 3, 4, 1, 2, 3, 4, 1, 2};
    cache.pin(instruction, meter);
    CHECK(meter.used.tokens == 10);
    cache.pin({}, meter);
    for (std::int32_t t = 0; t < 5; ++t) {
      cache.next({.text = token_list{4, t}}, meter, [](std::span<const float>) {});
      token_list text = instruction;
      text.push_back(t);
      const auto before = meter.used.tokens;
      cache.next({.text = text}, meter, [&](std::span<const float> l) { CHECK(std::ranges::equal(l, m.world.logits(text))); });
      CHECK(meter.used.tokens == before + 1);
    }
    CHECK(m.witness->most_live == 2);
  });
}

TEST_CASE("prefix_cache: a model whose rewind refuses is one that cannot, from then on") {
  for (const std::int64_t allowed : {0, 1, 7})
    for (const index_t budget : {1, 3, 64}) {
      INFO("after " << allowed << " rewinds, budget " << budget);
      const auto check = [&](auto& m) {
        m.rewinds_before_refusing = allowed;
        prefix_cache cache(m, {.sequences = budget});
        detail::meter meter(no_limits, {});
        stream s(9, 5);
        bool good = true;
        for (int step = 0; step < 60; ++step) {
          s.advance();
          good = good && right(cache, s, meter);
        }
        CHECK(good);
        CHECK(m.witness->refusals == 1);
        CHECK(m.witness->most_live <= budget);
        cache.clear();
        check_clean(m);
      };
      rewindable_toy one({.vocab = 5, .memory = 12});
      check(one);
      complete_toy many({.vocab = 5, .memory = 12});
      check(many);
    }
}

TEST_CASE("prefix_cache: a model without memory for all is asked for less at a time") {
  // Texts have 12 tokens at most: one always fits, and what the search wants beside it has to go.
  for (const std::int64_t cells : {12, 13, 20, 30, 60})
    for (const std::uint64_t seed : {4u, 5u})
      each_kind({.vocab = 5, .memory = 12}, [&](auto& m) {
        INFO("memory for " << cells << " tokens, seed " << seed);
        m.most_cells = cells;
        {
          prefix_cache cache(m, {.sequences = 8});
          detail::meter meter(no_limits, {});
          stream s(seed, 5);
          bool good = true;
          for (int step = 0; step < 60; ++step) {
            s.advance();
            good = good && right(cache, s, meter);
          }
          CHECK(good);
          CHECK(m.witness->most_cells <= cells);
          CHECK(m.witness->full > 0);
          token_list long_text(static_cast<std::size_t>(cells) + 1, 1);
          CHECK_THROWS_AS(cache.next({.text = long_text}, meter, [](std::span<const float>) {}), sequence_memory_full);
          CHECK(right(cache, s, meter));  // the cache is as good as before
        }
        check_clean(m);
      });
}

TEST_CASE("prefix_cache: a call that fails leaves nothing behind, and the next goes well") {
  for (const index_t budget : {2, 64}) {
    const auto check = [&](auto& m) {
      m.most_sequences = budget;
      bool failed = true;
      for (std::int64_t k = 1; failed; ++k) {
        failed = false;
        m.witness->fuse = {.calls = 0, .fail_at = k};
        prefix_cache cache(m, {.sequences = budget});
        detail::meter meter(no_limits, {});
        stream s(6, 5);
        bool good = true;
        for (int step = 0; step < 8; ++step) {
          s.advance();
          try {
            good = good && right(cache, s, meter);
          } catch (const toy_failure&) {
            failed = true;
            good = good && cache.live() == m.witness->live && right(cache, s, meter);
          }
        }
        if (!good) FAIL_CHECK("wrong after a failure at call " << k);
        cache.clear();
        check_clean(m);
        m.witness->fuse.fail_at = -1;
        CHECK(right(cache, s, meter));
      }
    };
    plain_toy plain({.vocab = 5, .memory = 12});
    check(plain);
    complete_toy complete({.vocab = 5, .memory = 12});
    check(complete);
  }
}

TEST_CASE("prefix_cache: a limit of tokens is not passed, and what was read is kept") {
  each_kind({.vocab = 5, .memory = 12}, [](auto& m) {
    for (std::int64_t most = 0; most < 40; ++most) {
      m.witness->tokens = 0;
      prefix_cache cache(m, {.sequences = 4});
      detail::meter meter({.tokens = most}, {});
      stream s(8, 5);
      bool stopped = false;
      for (int step = 0; step < 20 && !stopped; ++step) {
        s.advance();
        try {
          const bool good = right(cache, s, meter);
          CHECK(good);
        } catch (const detail::limit_reached& l) {
          stopped = l.reason == stop_reason::tokens;
        }
      }
      CHECK(stopped);
      CHECK(m.witness->tokens <= most);
      CHECK(meter.used.tokens == m.witness->tokens);
      detail::meter another(no_limits, {});
      CHECK(right(cache, s, another));
    }
    check_clean(m);
  });
}

TEST_CASE("prefix_cache: what it refuses") {
  plain_toy m;
  prefix_cache cache(m);
  detail::meter meter(no_limits, {});
  CHECK_THROWS_WITH(cache.next(text_request{}, meter, [](std::span<const float>) {}), Catch::Matchers::ContainsSubstring("text 0 has no tokens"));
  CHECK_THROWS_WITH(prefix_cache(m, {.sequences = 0}), Catch::Matchers::ContainsSubstring("`sequences`"));
  CHECK(m.witness->fuse.calls == 0);
}

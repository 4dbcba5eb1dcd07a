// RAIN at any width against the same algorithm written a second time, plainly: what is committed and every number of the tree, to the bit.
#include "support/catch.hpp"
#include "support/sequential_rain.hpp"

#include <sstream>

using namespace plumb;
using namespace plumb_test;

namespace {

/// A judge that notes how many texts it is shown at a time.
struct noting_judge {
  std::function<double(const candidate&)> says;
  std::vector<std::int64_t> calls{};
  void score_many(std::span<const candidate> c, std::span<double> scores) {
    calls.push_back(static_cast<std::int64_t>(c.size()));
    for (std::size_t i = 0; i < c.size(); ++i) scores[i] = says(c[i]);
  }
};

/// One world, searched by both.
struct both {
  toy_world world{};
  std::function<double(const candidate&)> score{};
  bool embeds = true;
  token_list prompt{1, 2, 3};

  /// Alone the model can do the least, and the most where leaves are side by side.
  void agree(const rain_options& o) const {
    if (o.width == 1) with(plain_toy(world), o);
    else with(complete_toy(world), o);
  }
  template <class M>
  void with(M&& model, const rain_options& o) const {
    noting_judge judge{score};
    toy_embedder embedder{.seed = world.seed};
    rain_world w{.logits = [this](token_span text) { return world.logits(text); }, .score = score};
    toy_embedder other = embedder;
    if (embeds)
      w.embedding = [&](token_span text) {
        std::vector<float> out(other.dimension());
        other(text, out);
        return out;
      };
    const sequential_result want = sequential_rain(w, prompt, o).run();
    const recorded_search is = embeds ? recorded_rain(model, judge, prompt, o, embedder) : recorded_rain(model, judge, prompt, o);
    const search_counters& n = is.result.counters;
    CHECK(is.result.response == want.response);
    REQUIRE(is.commits.size() == want.commits.size());
    for (std::size_t i = 0; i < want.commits.size(); ++i)
      if (!(is.commits[i] == want.commits[i])) {
        std::ostringstream how;
        how.precision(17);
        const auto numbers = [&](const char* what, const sequential_commit& x) {
          how << what << " child " << x.chosen << " after " << x.simulations << " simulations\n";
          for (const auto& c : x.table) how << "  n " << c.n << ", q " << c.q << ", p " << c.p << ", evaluations " << c.fn << "\n";
        };
        numbers("library:", is.commits[i]);
        numbers("oracle:", want.commits[i]);
        FAIL_CHECK("commit " << i << " differs\n" << how.str());
        break;
      }
    CHECK(n.simulations == want.simulations);
    CHECK(n.judgements == want.judged);
    CHECK(n.judged_before == want.remembered);
    CHECK(n.embeddings == want.embedded);
    CHECK(n.added == want.added);
    CHECK(n.rounds == static_cast<std::int64_t>(want.commits.size()));
    CHECK(model.witness->live == 0);
    CHECK(model.witness->broken.empty());
    CHECK((judge.calls == want.asked));
    if (o.width > 1 && o.sequences.sequences >= enough_sequences) {  // a tick is a call
      CHECK(n.calls == want.ticks);
      ticks += want.ticks;
    }
    added += want.added;
    commits += static_cast<std::int64_t>(want.commits.size());
    ++worlds;
    if (o.width == 1) return;
    ++wide;
    wide_added += want.added;
    for (const auto part : {&sequential_events::waves, &sequential_events::in_vain, &sequential_events::dropped, &sequential_events::replaced,
                            &sequential_events::waited, &sequential_events::equal, &sequential_events::overtaken,
                            &sequential_events::passed_over, &sequential_events::shut})
      events.*part += want.events.*part;
  }
  static constexpr index_t enough_sequences = 1000;  ///< for all texts that may be under way
  // What the worlds of a test had in them, so that none of it is missing. `wide`, `events`: at a width greater than 1.
  static inline std::int64_t added = 0, commits = 0, worlds = 0, wide = 0, wide_added = 0, ticks = 0;
  static inline sequential_events events{};
  static void reset() { added = commits = worlds = wide = wide_added = ticks = 0, events = {}; }
};

/// Any options at all, but limits and fallbacks.
rain_options random_options(std::uint64_t seed) {
  const random_stream r{seed, 77};
  std::uint64_t n = 0;
  const auto below = [&](std::uint64_t k) { return static_cast<index_t>(r.below(k, n++)); };
  const auto one_of = [&](auto first, auto... rest) {
    const decltype(first) all[] = {first, rest...};
    return all[static_cast<std::size_t>(below(1 + sizeof...(rest)))];
  };
  rain_options o;
  o.seed = seed;
  using lengths = std::vector<index_t>;
  o.set_lengths = one_of(lengths{1, 2, 4, 10}, lengths{1, 2}, lengths{1}, lengths{2, 1}, lengths{3});
  o.candidates = one_of(1, 2, 3, 10);
  o.top_k = one_of(1, 2, 5, 15);
  o.draws = below(20);
  o.candidate_temperature = one_of(0.5, 1.0, 2.0);
  o.sets_end = below(2) == 0;
  o.rollout = below(4) > 0;
  o.rollout_temperature = one_of(0.0, 0.7, 1.0);
  o.max_rollout_tokens = one_of(0, 1, 4, 64);
  if (below(3) > 0) o.boundary = after_token{{3, 4}};
  if (below(4) == 0) o.shown = [](token_span response) { return response.size() - response.size() / 3; };
  o.tree = {.exploration = one_of(0.0, 1.0, 2.0),
            .scale = one_of(rain_scale::raw, rain_scale::unit),
            .first_play = one_of(rain_first_play::worst, rain_first_play::neutral, rain_first_play::parent),
            .count = one_of(rain_count::siblings, rain_count::parent),
            .backup = one_of(rain_backup::mean, rain_backup::mean, rain_backup::min, rain_backup::max, rain_backup::last),
            .similarity_threshold = one_of(0.5, 0.95),
            .similarity_weight = one_of(0.0, 0.2, 1.0),
            .root_mix = one_of(0.0, 0.25, 1.0),
            .variance_threshold = one_of(0.03, 10.0, 10.0),
            .value_threshold = one_of(0.0, 0.5),
            .most_children = one_of(3, 20)};
  o.add_children = below(4) > 0;
  o.addition_tries = one_of(1, 4);
  o.reuse = below(3) > 0;
  o.max_simulations = one_of(1, 7, 30);
  o.least_simulations = one_of(0, 1, 9);
  o.acceptance = one_of(rain_acceptance::child_visits, rain_acceptance::iterations);
  o.min_visits = one_of(0, 2, 6);
  o.accept = one_of(-1.0, 0.3, 0.8);
  o.commit = one_of(rain_commit_rule::visits, rain_commit_rule::visits_then_value, rain_commit_rule::value, rain_commit_rule::sampled);
  o.remembered_scores = one_of(0, 4096);
  o.max_new_tokens = below(20) == 0 ? 0 : one_of(1, 5, 12, 12, 20);
  o.end_token_ends = below(3) > 0;
  if (below(4) == 0) o.stop = after_token{{5}};
  o.width = one_of(1, 2, 3, 8, 64);
  o.virtual_loss = one_of(rain_virtual_loss::loss, rain_virtual_loss::count);
  o.sequences.sequences = one_of(index_t{1}, index_t{16}, both::enough_sequences);
  o.judge_batch = one_of(1, 1, 2, 4);  // it may be greater than the width
  return o;
}

}  // namespace

TEST_CASE("rain: what presets are") {
  const rain_options paper = rain_options::paper(), hh = rain_options::reference_hh(), adv = rain_options::reference_adv(),
                     truth = rain_options::reference_truth();
  CHECK((paper.tree.scale == rain_scale::raw && paper.tree.first_play == rain_first_play::neutral && paper.tree.count == rain_count::siblings));
  CHECK((paper.tree.exploration == 2 && paper.tree.similarity_weight == 0.2 && paper.tree.root_mix == 0));
  CHECK((!paper.rollout && !paper.reuse && paper.least_simulations == 0 && paper.acceptance == rain_acceptance::iterations));
  for (const rain_options* o : {&hh, &adv, &truth}) {
    CHECK((o->tree.scale == rain_scale::unit && o->tree.first_play == rain_first_play::worst && o->tree.count == rain_count::parent));
    CHECK((o->tree.exploration == 2 && o->tree.root_mix == 0.25 && o->tree.similarity_threshold == 0.95 && o->tree.most_children == 20));
    CHECK((o->set_lengths == std::vector<index_t>{1, 2, 4, 10} && o->candidates == 10 && o->top_k == 15 && o->rollout && o->reuse));
    CHECK((o->max_simulations == 50 && o->least_simulations == 15 && o->accept == 0.8 && o->acceptance == rain_acceptance::child_visits));
    CHECK((!o->sets_end && o->width == 1 && o->max_rollout_tokens == 2048 && o->max_new_tokens == 2048));
  }
  CHECK((hh.min_visits == 6 && adv.min_visits == 5 && truth.min_visits == 16));
  CHECK((hh.draws == 9 && adv.draws == 19 && hh.candidate_temperature == 1 && adv.candidate_temperature == 2));
  CHECK((!hh.end_token_ends && adv.end_token_ends && truth.end_token_ends && truth.boundary));
}

TEST_CASE("rain: every preset is the sequential algorithm") {
  both::reset();
  for (const auto& [name, preset] : {std::pair{"default", rain_options{}},
                                     {"paper", rain_options::paper()},
                                     {"reference_hh", rain_options::reference_hh()},
                                     {"reference_adv", rain_options::reference_adv()},
                                     {"reference_truth", rain_options::reference_truth()}})
    for (const auto& [seed, wide] : {std::pair{1u, 4}, {2u, 16}, {3u, 50}}) {
      rain_options o = preset;
      o.seed = seed;
      o.sequences.sequences = both::enough_sequences;
      if (!o.boundary) o.boundary = after_token{{3, 4}};
      for (const int width : {1, wide}) {
        INFO(name << ", seed " << seed << ", width " << width);
        o.width = width;
        o.judge_batch = width == 16 ? 3 : 1;
        o.max_new_tokens = width == 1 ? 30 : 16;
        both{.world = {.seed = seed}, .score = hashed_score(seed)}.agree(o);
        both{.world = {.seed = seed, .end_logit = -9}, .score = spoilt_by_multiples_of(5)}.agree(o);
      }
    }
  CHECK(both::added > 0);
  CHECK(both::events.replaced > 500);
  CHECK(both::events.waited > 50);
}

TEST_CASE("rain: any options are the sequential algorithm") {
  both::reset();
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    INFO("seed " << seed);
    const random_stream r{seed, 78};
    const toy_world world{.seed = seed,
                          .vocab = r.below(10, 0) == 0 ? 2 : 12,
                          .memory = 1 + r.below(4, 1),
                          .end_logit = r.below(2, 2) == 0 ? -1.0 : -6.0,
                          .impossible = r.below(3, 8) == 0 ? 0.8 : 0.0,
                          .step = r.below(2, 3) == 0 ? 0.0 : 1.0};
    const token_list prompt = world.vocab == 2 ? token_list{1, 0} : token_list{1, 2, 3};
    const int levels = r.below(3, 6) == 0 ? 0 : 3;
    const auto score = r.below(4, 4) == 0 ? spoilt_by_multiples_of(4) : r.below(4, 5) == 0 ? always(-0.5) : hashed_score(seed, levels);
    both{.world = world, .score = score, .embeds = r.below(3, 7) > 0, .prompt = prompt}.agree(random_options(seed));
  }
  const sequential_events& is = both::events;
  CHECK(both::worlds == 600);
  CHECK(both::wide > 400);
  CHECK(both::commits > 2000);
  CHECK(both::ticks > 2000);
  CHECK(both::wide_added > 300);
  for (const auto& [part, least] :
       {std::pair{&sequential_events::waves, 1000}, {&sequential_events::in_vain, 30}, {&sequential_events::dropped, 30},
        {&sequential_events::replaced, 700}, {&sequential_events::waited, 200}, {&sequential_events::equal, 100},
        {&sequential_events::overtaken, 700}, {&sequential_events::passed_over, 2000}, {&sequential_events::shut, 2000}})
    CHECK(is.*part > least);
}

TEST_CASE("rain: children that are added, one token and several") {
  for (const index_t length : {1, 2, 3})
    for (const bool embeds : {false, true}) {
      both::reset();
      rain_options o;
      o.set_lengths = {length};
      o.candidates = 3;
      o.draws = 2;
      o.boundary = after_token{{3, 4}};
      o.tree.variance_threshold = 10;
      o.max_new_tokens = 9;
      for (const index_t width : {1, 3, 8}) {
        INFO("length " << length << ", embeds " << embeds << ", width " << width);
        o.width = width;
        both{.world = {.seed = 3, .end_logit = -9}, .score = always(-0.5), .embeds = embeds}.agree(o);
        if (width == 1) CHECK(both::added > 0);
        if (width == 3) CHECK(both::wide_added > 0);
      }
    }
}

// The prompted judge: what it says against the model asked by hand, what it costs, and what is left when the model throws.
#include "support/gradients.hpp"
#include "support/small_language_models.hpp"

#include <plumb/data/bpe_trainer.hpp>
#include <plumb/data/byte_tokenizer.hpp>
#include <plumb/search/judge_prompts.hpp>
#include <plumb/search/rain.hpp>

#include <chrono>
#include <cmath>
#include <thread>

using namespace plumb;
using namespace plumb_test;

namespace {

// Logits of the whole text; no token ends it unless a test says so.
toy_world wordy(std::uint64_t seed) { return {.seed = seed, .vocab = 30, .memory = 1000}; }

judge_prompt two_orders() {
  return {.before = {11, 12, 13, 14, 15, 16, 17},
          .between = {18, 19},
          .endings = {{.tokens = {20, 21, 22}, .good = {1, 2}, .bad = {3, 4}}, {.tokens = {21, 20, 22, 23}, .good = {3, 4}, .bad = {1, 2}}}};
}
judge_prompt one_question() {
  auto j = two_orders();
  j.endings.resize(1);
  return j;
}

// Asked by hand.
double by_hand(const toy_world& w, const judge_prompt& j, const candidate& c, judge_vote vote, judge_spellings spellings) {
  double score = 0;
  for (const judge_ending& e : j.endings) {
    const auto logits = w.logits(joined({j.before, c.prompt, j.between, c.response, e.tokens}));
    double all = 0;
    for (const float x : logits) all += std::exp(static_cast<double>(x));
    const auto p = [&](const token_list& tokens) {
      double most = 0, sum = 0;
      for (const std::int32_t t : tokens) {
        const double one = std::exp(static_cast<double>(logits[static_cast<std::size_t>(t)])) / all;
        most = std::max(most, one), sum += one;
      }
      return spellings == judge_spellings::likeliest ? most : sum;
    };
    const double g = p(e.good), b = p(e.bad), n = p(e.neutral);
    score += vote == judge_vote::soft ? (g - b) / (g + b + n) : n > g && n > b ? 0 : g > b ? 1 : -1;
  }
  return score / static_cast<double>(j.endings.size());
}

struct texts {
  std::vector<token_list> prompts, responses;
  std::vector<candidate> all;
  explicit texts(std::size_t n, std::int32_t prompts_of = 3) {
    for (std::size_t i = 0; i < n; ++i) {
      const auto k = static_cast<std::int32_t>(i);
      prompts.push_back({5, 6, 7 + k % prompts_of});
      token_list r;
      for (std::int32_t t = 0; t < k % 5; ++t) r.push_back(8 + (k * 7 + t * 3) % 20);
      responses.push_back(r);
    }
    for (std::size_t i = 0; i < n; ++i) all.push_back({prompts[i], responses[i], false});
  }
};

// The most that they take.
template <class E>
std::int64_t cost_of(const E& e, std::span<const candidate> c) {
  std::int64_t most = 0;
  for (const candidate& x : c) most += e.cost(x);
  return most;
}

// Of one model type: scores, costs, laws.
template <class M>
void judges_as_by_hand(index_t sequences) {
  for (const auto& j : {two_orders(), one_question()})
    for (const auto vote : {judge_vote::hard, judge_vote::soft})
      for (const auto spellings : {judge_spellings::likeliest, judge_spellings::sum})
        for (const bool share : {true, false}) {
          M model(wordy(3));
          prompted_evaluator judge(model, j, {.vote = vote, .spellings = spellings, .sequences = {.sequences = sequences, .share = share}});
          const texts t(11);
          const std::int64_t bound = cost_of(judge, t.all);
          const auto many = scores_of(judge, t.all);
          CAPTURE(sequences, share, j.endings.size());
          CHECK(judge.tokens_used() <= bound);
          CHECK(judge.tokens_used() == model.witness->tokens);
          for (std::size_t i = 0; i < t.all.size(); ++i) {
            const std::int64_t before = judge.tokens_used(), most = judge.cost(t.all[i]);
            CHECK(judge(t.all[i]) == many[i]);
            CHECK(judge.tokens_used() - before <= most);
            CHECK(many[i] == Catch::Approx(by_hand(model.world, j, t.all[i], vote, spellings)).margin(1e-12));
          }
          CHECK(model.witness->broken.empty());
          CHECK(model.witness->most_live <= sequences + 1);
        }
}

}  // namespace

static_assert(evaluator<prompted_evaluator<plain_toy>> && batched_evaluator<prompted_evaluator<complete_toy>>);
static_assert(metered_evaluator<prompted_evaluator<plain_toy>> && metered_evaluator<prompted_evaluator<batched_toy>>);
static_assert(std::movable<prompted_evaluator<plain_toy>> && check_evaluator<prompted_evaluator<rewindable_toy>>());

TEST_CASE("prompted_evaluator: its scores are the model's votes, for every kind of model and any number of sequences") {
  for (const index_t sequences : {1, 2, 3, 4, 7, 32}) {
    judges_as_by_hand<plain_toy>(sequences);
    judges_as_by_hand<complete_toy>(sequences);
  }
  for (const index_t sequences : {1, 5}) {
    judges_as_by_hand<rewindable_toy>(sequences);
    judges_as_by_hand<batched_toy>(sequences);
  }
}

TEST_CASE("prompted_evaluator: a text is read once, what stands before it once and for all") {
  batched_toy model(wordy(5));
  prompted_evaluator judge(model, two_orders());
  const texts t(6);
  const auto own = [&](const candidate& c) { return static_cast<std::int64_t>(c.prompt.size() + 2 + c.response.size() + 3 + 4); };
  CHECK(judge.cost(t.all[4]) == own(t.all[4]) + 7);  // the instruction as well, the first time
  judge.prepare();
  CHECK(judge.tokens_used() == 7);
  judge.prepare();
  CHECK(judge.tokens_used() == 7);
  judge(t.all[4]);
  CHECK(judge.tokens_used() == 7 + own(t.all[4]));
  CHECK(judge.cost(t.all[4]) == own(t.all[4]));
  const auto passes = model.witness->passes;
  std::int64_t all = judge.tokens_used();
  for (const candidate& c : t.all) all += own(c);
  scores_of(judge, t.all);
  CHECK(judge.tokens_used() == all);
  CHECK(model.witness->passes == passes + 2);  // all texts, then all endings
  CHECK(judge.counters().evictions == 0);

  batched_toy replayed(wordy(5));
  prompted_evaluator slow(replayed, two_orders(), {.sequences = {.share = false}});
  std::int64_t replaying = 0;
  for (const candidate& c : t.all) {
    replaying += 2 * own(c) - 7 + 2 * 7;
    CHECK(slow.cost(c) == 2 * own(c) - 7 + 2 * 7);
  }
  CHECK(scores_of(slow, t.all) == scores_of(judge, t.all));
  CHECK(slow.tokens_used() == replaying);
}

TEST_CASE("prompted_evaluator: a judge that always says A says nothing, and the neutral answer counts half") {
  batched_toy model(wordy(7));
  for (std::int32_t a = 1; a < 6; ++a) {
    auto j = two_orders();
    const token_list prompt{5}, response{9, 9};
    const candidate c{prompt, response, false};
    // The same ending twice, with the answers the other way round: all bias.
    j.endings[1] = {.tokens = j.endings[0].tokens, .good = j.endings[0].bad, .bad = j.endings[0].good};
    CHECK(prompted_evaluator(model, j)(c) == 0);
    CHECK(prompted_evaluator(model, j, {.vote = judge_vote::soft})(c) == Catch::Approx(0).margin(1e-15));
    j = one_question();
    j.endings[0].good = {a}, j.endings[0].bad = {a + 6}, j.endings[0].neutral = {a + 12, a + 18};
    for (const auto vote : {judge_vote::hard, judge_vote::soft})
      for (const auto spellings : {judge_spellings::likeliest, judge_spellings::sum})
        CHECK(prompted_evaluator(model, j, {.vote = vote, .spellings = spellings})(c) ==
              Catch::Approx(by_hand(model.world, j, c, vote, spellings)).margin(1e-12));
  }
  // A tie is no vote for the good answer.
  toy_world flat = wordy(7);
  flat.spread = 0;
  batched_toy same(flat);
  const token_list prompt{5};
  CHECK(prompted_evaluator(same, two_orders())({prompt, {}, false}) == -1);
  CHECK(prompted_evaluator(same, two_orders(), {.vote = judge_vote::soft})({prompt, {}, false}) == 0);
}

TEST_CASE("prompted_evaluator: what is shown") {
  plain_toy model(wordy(9));
  const token_list prompt{5, 6, 7}, cut{7}, response{8, 9, 0}, without{8, 9}, one{8};
  prompted_evaluator all(model, two_orders(), {.vote = judge_vote::soft});
  CHECK(all({prompt, response, true}) == all({prompt, without, false}));  // token 0 ends texts
  prompted_evaluator with_end(model, two_orders(), {.vote = judge_vote::soft, .show_end = true});
  CHECK(with_end({prompt, response, true}) ==
        Catch::Approx(by_hand(model.world, two_orders(), {prompt, response, true}, judge_vote::soft, judge_spellings::likeliest)).margin(1e-12));
  auto j = two_orders();
  j.show_prompt = shown_from{2};
  j.show_response = [](token_span r) { return r.first(std::min<std::size_t>(1, r.size())); };
  prompted_evaluator part(model, j, {.vote = judge_vote::soft});
  CHECK(part.cost({prompt, response, true}) == 7 + 1 + 2 + 1 + 7);
  CHECK(part({prompt, response, true}) == all({cut, one, false}));
  CHECK(part({prompt, {}, false}) == all({cut, {}, false}));
  // Nothing at all in front of the question.
  judge_prompt bare = two_orders();
  bare.before.clear(), bare.between.clear();
  prompted_evaluator nothing(model, bare, {.vote = judge_vote::soft});
  const std::vector<candidate> both{{}, {prompt, one, false}};
  const std::int64_t bound = cost_of(nothing, both);
  const auto scores = scores_of(nothing, both);
  CHECK(nothing.tokens_used() == bound);
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(scores[i] == Catch::Approx(by_hand(model.world, bare, both[i], judge_vote::soft, judge_spellings::likeliest)).margin(1e-12));
}

TEST_CASE("prompted_evaluator: whichever call of the model throws, nothing leaks and the next try judges") {
  const texts t(5);
  least_and_most(wordy(11), [&](auto& model) {
    const auto fresh = [&] { return prompted_evaluator(model, two_orders(), {.sequences = {.sequences = 6}}); };
    const auto want = scores_of(fresh(), t.all);
    const auto failures = each_failure(model, model.witness->fuse, [&] {
      auto judge = fresh();
      std::vector<double> y(t.all.size(), -7);
      try {
        judge.score_many(t.all, y);
      } catch (const toy_failure&) {
        CHECK(y == std::vector<double>(t.all.size(), -7));
        CHECK(scores_of(judge, t.all) == want);
        throw;
      }
      CHECK(y == want);
    });
    CHECK(failures > 18);
  });
}

TEST_CASE("prompted_evaluator: a search that is cancelled or late while it judges many texts says so") {
  const token_list prompt{1};
  const auto searched = [&](auto& judged_by, rain_options o) {
    prompted_evaluator judge(judged_by, one_question());
    complete_toy model({.vocab = 30, .end_logit = -20});
    o.width = o.judge_batch = 8;
    o.max_rollout_tokens = 3;
    const rain_result y = rain(model, judge, token_span(prompt), o);
    check_left_clean(model);
    return y.reason;
  };
  for (std::int64_t k = 1; k < 40; ++k) {
    INFO("call " << k);
    const auto cancelled = [&](auto&& judged_by) {
      std::stop_source source;
      std::int64_t calls = 0;
      judged_by.world.chances = [&](token_span) {
        if (++calls == k) source.request_stop();
        return std::vector<double>(30, 1.0);
      };
      rain_options o;
      o.cancel = source.get_token();
      CHECK(searched(judged_by, o) == stop_reason::cancelled);
      CHECK(calls >= k);
      check_left_clean(judged_by);
    };
    cancelled(plain_toy(wordy(3)));
    cancelled(complete_toy(wordy(3)));
  }
  const auto late = [&](auto&& judged_by) {
    judged_by.world.chances = [&](token_span) {
      std::this_thread::sleep_for(std::chrono::milliseconds(4));
      return std::vector<double>(30, 1.0);
    };
    for (const double seconds : {0.006, 0.03, 0.05}) {  // within the first call of the judge, or a later one
      rain_options o;
      o.limits.seconds = seconds;
      CHECK(searched(judged_by, o) == stop_reason::deadline);
    }
    check_left_clean(judged_by);
  };
  late(plain_toy(wordy(3)));
  late(complete_toy(wordy(3)));
}

TEST_CASE("prompted_evaluator: a model with less memory than it says is asked for less") {
  const texts t(9);
  batched_toy model(wordy(13));
  model.most_cells = 60;
  model.most_sequences = 64;
  prompted_evaluator judge(model, two_orders());
  const auto scores = scores_of(judge, t.all);
  for (std::size_t i = 0; i < t.all.size(); ++i)
    CHECK(scores[i] == by_hand(model.world, two_orders(), t.all[i], judge_vote::hard, judge_spellings::likeliest));
  for (int again = 0; again < 2; ++again) {
    const std::int64_t before = judge.tokens_used();
    const std::int64_t bound = cost_of(judge, t.all);
    scores_of(judge, t.all);
    if (again) CHECK(judge.tokens_used() - before <= bound);
  }
}

TEST_CASE("prompted_evaluator: what is refused") {
  complete_toy model(wordy(15));
  const auto made = [&](auto change) {
    auto j = two_orders();
    change(j);
    return refusal([&] { prompted_evaluator judge(model, j); });
  };
  CHECK(made([](auto& j) { j.endings.clear(); }) == "plumb: prompted_evaluator: there are no endings: nothing asks for an answer.");
  CHECK(made([](auto& j) { j.endings[1].tokens.clear(); }) == "plumb: prompted_evaluator: ending 1 has no tokens: the answer is what follows them.");
  CHECK(made([](auto& j) { j.endings[0].bad.clear(); }) == "plumb: prompted_evaluator: ending 0 has no token for its bad answer.");
  CHECK(made([](auto& j) { j.endings[1].good = {30}; }) ==
        "plumb: prompted_evaluator: token 30 of the good answer of ending 1 does not exist: the model has 30 tokens.");
  CHECK(made([](auto& j) { j.before[2] = -1; }) == "plumb: prompted_evaluator: token -1 of `before` does not exist: the model has 30 tokens.");
  CHECK(made([](auto& j) { j.endings[0].bad = {4, 2}; }) == "plumb: prompted_evaluator: two answers of ending 0 share token 2.");
  CHECK(made([](auto& j) { j.endings[0].neutral = {3}; }) == "plumb: prompted_evaluator: two answers of ending 0 share token 3.");
  CHECK(refusal([&] { prompted_evaluator judge(model, two_orders(), {.vote = static_cast<judge_vote>(2)}); }) ==
        "plumb: prompted_evaluator: option `vote` is 2, which is none of its modes (0 to 1). Nothing was written.");

  prompted_evaluator judge(model, two_orders());
  const texts t(3);
  std::vector<double> two(2);
  CHECK(refusal([&] { judge.score_many(t.all, two); }) == "plumb: prompted_evaluator: there are 3 candidates, but room for 2 scores.");
  const token_list wrong{5, 99};
  const std::vector<candidate> second{t.all[0], {t.all[0].prompt, wrong, false}};
  CHECK(refusal([&] { judge.score_many(second, two); }) ==
        "plumb: prompted_evaluator: token 99 of the response of candidate 1 does not exist: the model has 30 tokens.");
  model.longest = 12;
  CHECK(refusal([&] { judge(t.all[0]); }) ==
        "plumb: prompted_evaluator: candidate 0 has 15 tokens as it is judged, but the model's context has 12.");
  model.longest = 1000;
  CHECK(model.witness->tokens == 0);  // none of these was begun
  judge.prepare();
  model.witness->nan_at = model.witness->logits + 4;  // two texts, then the first of their endings
  CHECK(refusal([&] { judge.score_many(std::span(t.all).first(2), two); }).starts_with("plumb: prompted_evaluator: the model's logit of token "));
  judge.score_many(std::span(t.all).first(2), two);
  CHECK(model.witness->broken.empty());
}

TEST_CASE("judge prompts: worked examples are balanced, options are swapped, answers are found") {
  const data::byte_tokenizer bytes({"<s>", "<user>", "<reply>"});
  const auto text = [&](const token_list& t) { return data::decode(bytes, t); };
  const judge_wording w = harmlessness_wording();
  const judge_prompt j = harmlessness(bytes, {.begin = {256}});
  REQUIRE(j.endings.size() == 2);
  CHECK(text(j.before).starts_with("<s>" + w.instruction));
  CHECK(text(j.before).ends_with(w.prompt_label + "\n"));
  CHECK(text(j.between) == "\n" + w.reply_label + "\n");
  CHECK(text(j.endings[0].tokens) == "\n" + w.question + "\n(A) harmless\n(B) harmful\n" + w.answer_label);
  CHECK(text(j.endings[1].tokens) == "\n" + w.question + "\n(A) harmful\n(B) harmless\n" + w.answer_label);
  CHECK(j.endings[0].good == token_list{'A'});
  CHECK(j.endings[0].bad == token_list{'B'});
  CHECK(j.endings[1].good == token_list{'B'});
  const auto count = [&](const std::string& what) {
    int n = 0;
    const std::string all = text(j.before);
    for (std::size_t at = all.find(what); at != std::string::npos; at = all.find(what, at + 1)) ++n;
    return n;
  };
  CHECK(count(w.answer_label + "A), since") == 4);
  CHECK(count(w.answer_label + "B), since") == 4);
  int good = 0;
  for (const judge_example& x : w.examples) good += x.good;
  CHECK(2 * good == static_cast<int>(w.examples.size()));

  const judge_prompt t = truthfulness(bytes);
  REQUIRE(t.endings.size() == 1);
  CHECK(text(t.endings[0].tokens).ends_with("honest?\nVerdict:"));
  CHECK(t.endings[0].good == token_list{'Y'});  // both begin with a blank in their other spelling: that tells nothing
  CHECK(t.endings[0].bad == token_list{'N'});

  const judge_prompt s = sentiment(bytes);
  REQUIRE(s.endings.size() == 2);
  CHECK(s.between.empty());  // the review goes on where the prompt ends
  CHECK(s.endings[1].neutral == token_list{'C'});
  CHECK(text(s.endings[1].tokens).find("(A) negative: the writer dislikes it\n(B) positive: the writer likes it\n(C) neutral") != std::string::npos);

  const judge_prompt turns = harmlessness(bytes, {.begin = {}, .chat = [](const std::string& user, const std::string& answer) {
                                                    return "<user>" + user + "<reply>" + answer;
                                                  }});
  CHECK(turns.before[0] == 257);
  CHECK(text(turns.endings[1].tokens).ends_with("\n<reply>" + w.answer_label));
  judge_wording mine{.prompt_label = "Q", .reply_label = "A", .question = "good?", .good = "ja", .bad = "nein", .letters = false};
  mine.answer_label = ">";
  mine.examples = {{"1", "2", false, {}}};
  CHECK(text(make_judge_prompt(bytes, mine).before) == "Q\n1\nA\n2\ngood?\n> nein.\n\nQ\n");

  CHECK(refusal([&] { harmlessness(bytes, {.begin = {}, .chat = [](const std::string&, const std::string& a) { return a; }}); }) ==
        "plumb: make_judge_prompt: the chat template does not hold the user's message once and as it is.");
  CHECK(refusal([&] { harmlessness(bytes, {.begin = {}, .chat = [](const std::string& u, const std::string& a) { return u + a + "!"; }}); }) ==
        "plumb: make_judge_prompt: the chat template does not end with the first words of the answer.");
  mine.bad = "je nein";
  CHECK(refusal([&] { make_judge_prompt(bytes, mine); }) == "plumb: make_judge_prompt: the first tokens of the answers do not tell them apart.");
}

TEST_CASE("judge prompts: a tokenizer of words, and one of the host's") {
  const std::vector<std::string> learned{"Yes", "No", "Yes", "No", "Verdict: Yes Verdict: No", "Verdict: Yes Verdict: No"};
  const auto bpe = data::train_bpe(learned, {.vocabulary_size = 300});
  const judge_prompt t = truthfulness(bpe);
  std::vector<std::string> spelt;
  for (const std::int32_t x : t.endings[0].good) spelt.push_back(data::decode(bpe, token_list{x}));
  CHECK(spelt == std::vector<std::string>{"Yes", " Yes"});

  const judge_prompt h = harmlessness(toy_tokenizer{});  // the concept of search
  CHECK(h.endings[1].good == token_list{'B'});
}

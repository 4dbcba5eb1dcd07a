// RAIN on the lab's transformer: leaves side by side against one after the other, sequences that share their beginnings against reading each from
// its first token, and what of the time is the search itself. Before that, the transformer's shared memory of keys and values against a cache for
// each text.
//
// The model has the lab's default shape and was trained for 200 steps on the lab's texts: enough for sentences, so that a text has likely and
// unlikely ways to go on. No token ends a reply: all have one length. Candidates and rollouts are drawn at temperature 1, and at 2, as RAIN's
// authors draw candidates against adversarial prompts; otherwise the options are RAIN's defaults. The judge is a rule, the embedder the mean of the
// model's own token vectors; both are fast, so that the search's share of the time ("tree": selection, expansion, backup, similarity) is not
// flattered.

#include "support/lab.hpp"
#include "support/rows.hpp"

#include "lab/language_model.hpp"

#include <plumb/search/embedders.hpp>
#include <plumb/search/rain.hpp>

namespace {

using namespace plumb_bench;

#if __has_include(<plumb/backends/onednn.hpp>)
using training_row = onednn_row;
constexpr std::size_t training_steps = 200;
#else
using training_row = serial_row;
constexpr std::size_t training_steps = 20;  // of a second each
#endif

/// The same for all rows.
const std::vector<float>& trained_weights() {
  static const std::vector<float> weights = [] {
    lab_at_work<training_row> lab;
    for (std::size_t i = 0; i < training_steps; ++i) lab.train(i, 3e-3);
    return lab.model.weights();
  }();
  return weights;
}

/// Dislikes a quarter of the lab's words.
struct rule {
  double operator()(const plumb::candidate& c) const {
    for (const std::int32_t t : c.response)
      if (t > 4 && t % 4 == 0) return -1;
    return 1;
  }
};

template <class Row>
struct searching {
  using backend = decltype(Row::backend);
  static constexpr plumb::index_t written = 24;  ///< tokens of a reply

  Row row{};
  lab::workspace memory{std::size_t{1} << 28};
  lab::transformer<backend> model{{.vocabulary = static_cast<plumb::index_t>(lab::words().size())}, 1};
  lab::transformer_language_model<backend> lm{row.backend, memory, model, -1, {.tokens = 8192, .sequences = 128}};
  std::vector<lab::tokens> prompts{};

  explicit searching(std::size_t replies) {
    model.weights() = trained_weights();
    lab::world_random random(2, 1);
    for (std::size_t i = 0; i < replies; ++i) prompts.push_back(lab::draw_prompt(random, true).text);
  }

  /// Replies to all prompts, and what they took.
  plumb::search_counters run(double temperature, plumb::index_t width, bool share = true) {
    plumb::rain_options options;
    options.candidate_temperature = options.rollout_temperature = temperature;
    options.width = width;
    options.sequences = {.sequences = 128, .share = share};
    options.boundary = plumb::after_token{{lab::words().id("."), lab::words().id("?")}};
    options.max_new_tokens = written;
    plumb::token_table_embedder embedder(plumb::view<const float, 2>(model.weights().data(), lm.vocab_size(), model.config().width));
    rule judge;
    plumb::search_counters all;
    for (const auto& prompt : prompts) {
      const auto c = plumb::rain(lm, judge, prompt, options, embedder).counters;
      all.tokens += c.tokens, all.calls += c.calls, all.simulations += c.simulations;
      all.seconds += c.seconds, all.model_seconds += c.model_seconds, all.judge_seconds += c.judge_seconds, all.embed_seconds += c.embed_seconds;
      all.tree_seconds += c.tree_seconds;
    }
    return all;
  }
};

/// 48 tokens, one after the other, behind the 16 that each text begins with.
int add_decoding(std::size_t texts_at_once) {
  return add_rows("language model/decode " + std::to_string(texts_at_once), [=]<class Row>(benchmark::State& state, std::type_identity<Row>) {
    constexpr std::size_t begun = 16, grown = 48;
    searching<Row> s(0);
    using model = decltype(s.lm);
    const plumb::random_stream random{3, texts_at_once};
    std::vector<lab::tokens> texts(texts_at_once);
    for (std::size_t i = 0; i < texts_at_once; ++i)
      for (std::size_t t = 0; t < begun + grown; ++t)
        texts[i].push_back(static_cast<std::int32_t>(random.uniform(i * (begun + grown) + t) * static_cast<double>(s.lm.vocab_size())));
    const auto decode = [&] {
      std::vector<typename model::sequence> sequences;
      std::vector<typename model::step> steps;
      for (std::size_t i = 0; i < texts_at_once; ++i) sequences.push_back(s.lm.open());
      for (std::size_t i = 0; i < texts_at_once; ++i) steps.push_back({&sequences[i], std::span(texts[i]).first(begun)});
      s.lm.append_many(steps);
      for (std::size_t t = begun; t < begun + grown; ++t) {
        for (std::size_t i = 0; i < texts_at_once; ++i) steps[i].tokens = std::span(texts[i]).subspan(t, 1);
        s.lm.append_many(steps);
      }
      benchmark::DoNotOptimize(s.lm.logits(sequences[0]).data());
    };
    const double peer = seconds([&] {
      std::vector<plumb::start> starts;
      for (const auto& t : texts) starts.push_back({.tokens = {t.begin(), t.begin() + begun}, .prompt_tokens = begun});
      lab::text_decoder<typename searching<Row>::backend> decoder(s.row.backend, s.memory, s.model, begun + grown);
      decoder.open(starts);
      for (std::size_t t = begun; t < begun + grown; ++t) {
        lab::tokens now;
        for (const auto& text : texts) now.push_back(text[t]);
        decoder.append(now);
      }
    });
    for (auto _ : state) decode();
    plumb_bench::count(state, "tokens/s", static_cast<double>(texts_at_once * (begun + grown)));
    compare(state, "a cache for each text", peer);
  });
}

const int decoding = add_decoding(1) + add_decoding(8) + add_decoding(32);

void show(benchmark::State& state, const plumb::search_counters& c, std::size_t replies) {
  const auto each = [&](const char* name, std::int64_t count) { state.counters[name] = static_cast<double>(count) / static_cast<double>(replies); };
  each("calls", c.calls);
  each("tokens", c.tokens);
  each("simulations", c.simulations);
  const double told_apart = c.model_seconds + c.judge_seconds + c.embed_seconds + c.tree_seconds;
  state.counters["tree, %"] = 100 * c.tree_seconds / c.seconds;  // selection, expansion, backup, similarity
  state.counters["drawing and texts, %"] = 100 * (1 - told_apart / c.seconds);
}

constexpr std::size_t replies = 12;

int add_searches(double temperature) {
  const std::string name = "rain/temperature " + std::to_string(static_cast<int>(temperature)) + "/";
  for (const plumb::index_t width : {1, 8})
    add_rows(name + "width " + std::to_string(width), [=]<class Row>(benchmark::State& state, std::type_identity<Row>) {
      searching<Row> s(replies);
      const auto sequential = s.run(temperature, 1);
      plumb::search_counters c;
      for (auto _ : state) c = s.run(temperature, width);
      show(state, c, replies);
      if (width == 1) return;
      state.counters["calls, of width 1"] = static_cast<double>(c.calls) / static_cast<double>(sequential.calls);
      compare(state, "width 1", sequential.seconds);
    });
  add_rows(name + "width 8, every text from its first token", [=]<class Row>(benchmark::State& state, std::type_identity<Row>) {
    searching<Row> s(1);
    const auto sharing = s.run(temperature, 8);
    plumb::search_counters c;
    for (auto _ : state) c = s.run(temperature, 8, false);
    show(state, c, 1);
    state.counters["tokens, of sharing"] = static_cast<double>(c.tokens) / static_cast<double>(sharing.tokens);
    compare(state, "sharing", sharing.seconds);
  });
  return 0;
}
const int searches = add_searches(1) + add_searches(2);

}  // namespace

// The runs of the clause world: the lab's transformer, on oneDNN where it is there.
#include "claims/rain_runs.hpp"
#include "claims/machine.hpp"
#include "claims/rain_experiment.hpp"

#include "lab/chart.hpp"
#include "lab/files.hpp"

#include <map>
#include <mutex>

namespace claims::clause {

namespace {

using backend = machine::backend;

training_settings training_of(const plan& p, const model_key& key) {
  training_settings s;
  s.judged = key.judged;
  s.steps = p.steps;
  if (key.world != world::own) s.world = key.world == world::early ? early_risk : flat_risk;
  return s;
}

// One at a time makes a model; who comes later finds it.
std::mutex& mutex_of(const std::string& name) {
  static std::mutex all;
  static std::map<std::string, std::mutex> each;
  const std::lock_guard guard(all);
  return each[name];
}

// A model as it was trained: read back where it is there whole, which the hash beside it says.
std::unique_ptr<writer<backend>> trained(backend& compute, const std::filesystem::path& folder, const plan& p, const model_key& key) {
  const std::lock_guard guard(mutex_of((folder / key.name()).string()));
  const auto weights = folder / (key.name() + ".safetensors"), hash = folder / (key.name() + ".hash");
  const auto fresh = [&] { return std::make_unique<writer<backend>>(compute, training_of(p, key), key.seed); };
  auto w = fresh();
  if (std::ifstream in(hash); in) {
    double before = 0;
    try {
      lab::load_checkpoint(weights, w->model());
      if (in >> before && w->weights_hash() == before) return w;
    } catch (const std::exception&) {  // gone, or not whole
    }
    w = fresh();  // trained again, to the same numbers
  }
  w->train();
  lab::save_checkpoint(weights, w->model());
  lab::write_atomically(hash, lab::fixed_text(w->weights_hash(), 0) + "\n");
  return w;
}

// What a prompt's draws begin with: every method has draws of its own.
std::uint64_t draws_of(const model_key& key, int prompt, std::uint64_t method) {
  return plumb::random_stream{plumb::random_stream{key.seed, for_draws}.bits(method), key.judged}.bits(static_cast<std::uint64_t>(prompt));
}

void note(numbers& n, const std::string& method, int prompt, const written& x) {
  const worth w = worth_of(topic_of_prompt(prompt), x.reply);
  n[key_of(method, prompt, "harmless")] = w.harmless ? 1 : 0;
  n[key_of(method, prompt, "helpful")] = w.helpful;
  n[key_of(method, prompt, "tokens")] = static_cast<double>(x.tokens_used);
}

plumb::rain_options changed(const std::string& component) {
  plumb::rain_options o = rain_defaults();
  if (component == "no_addition") o.add_children = false;
  if (component == "no_exploration") o.tree.exploration = 0;
  if (component == "less_exploration") o.tree.exploration = 1;
  if (component == "short_sets" || component == "short_sets_no_rollout") o.set_lengths = {1, 2, 4};
  if (component == "short_sets_no_rollout") o.rollout = false;
  if (component == "max_backup") o.tree.backup = plumb::rain_backup::max;
  if (component == "small") o.candidates = 6, o.draws = 5, o.max_simulations = 16, o.min_visits = 3;
  if (component == "width_8") o.width = 8;
  if (component == "paper") {
    const plumb::rain_options own = o;
    o = plumb::rain_options::paper();
    o.set_lengths = own.set_lengths, o.boundary = own.boundary, o.max_new_tokens = own.max_new_tokens;
  }
  return o;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> described(const plan& p) {
  const training_settings t;
  const plumb::rain_options r = rain_defaults();
  const auto n = [](auto x) { return lab::markup::compact(static_cast<double>(x)); };
  std::string sweep;
  for (const std::size_t k : p.judged) sweep += (sweep.empty() ? "" : ", ") + std::to_string(k);
  return {
      {"model", "the lab's transformer, " + n(t.layers) + " layers of width " + n(t.width) + ", " + n(t.heads) + " heads, feed-forward " +
                    n(t.feed_forward) + ", from nothing"},
      {"training", n(p.steps) + " steps of " + n(t.dialogues) + " dialogues and " + n(t.questions) + " questions, a letter weighs " +
                       n(t.letter_weight) + ", AdamW " + n(t.rate) + ", a fifth of it for the last 30 %"},
      {"judged texts K", sweep + "; the claim is about " + n(p.middle_judged())},
      {"world", "a first clause is harmful with probability " + n(t.world.first_risky) + " (risky topics) or " + n(t.world.first_benign) +
                    ", a later one with " + n(t.world.next) + ", after a harmful one " + n(t.world.after)},
      {"RAIN", "a token set is a clause, q " + n(r.candidates) + ", top-k " + n(r.top_k) + ", T " + n(r.max_simulations) + ", T_m " +
                   n(r.min_visits) + ", V " + n(r.accept) + ", c " + n(r.tree.exploration) + ", similarity from " + n(r.tree.similarity_threshold) +
                   " with weight " + n(r.tree.similarity_weight) + ", rollouts to the comma, hard votes in both orders of the options"},
      {"best-of-N", "as many replies as RAIN's forward tokens on the same prompt allow, generation and judging alike"},
      {"prompts", n(p.prompts) + " for each model, the 12 topics in turn, each with draws of its own; " + n(p.counter_prompts) +
                      " for the counter-results, " + n(p.component_prompts) + " for RAIN with one thing changed"},
      {"judge's accuracy", "on " + n(p.fresh) + " fresh texts; a tie of the two votes counts a half"}};
}

std::string search_backend() { return machine::name; }

numbers train_run(const std::filesystem::path& folder, const plan& p, const model_key& key) {
  machine m;
  const auto w = trained(m.compute(), folder, p, key);
  return {{"weights_hash", w->weights_hash()}, {"judge_accuracy", w->judge_accuracy(p.fresh)}};
}

numbers methods_run(const std::filesystem::path& folder, const plan& p, const model_key& key, const methods_wanted& wanted) {
  machine m;
  const auto w = trained(m.compute(), folder, p, key);
  numbers n{{"weights_before", w->weights_hash()}};
  player<backend> play(*w);
  const judging by = wanted.oracle ? judging::oracle : judging::hard, softly = wanted.oracle ? judging::oracle : judging::soft;
  for (int i = 0; i < wanted.prompts; ++i) {
    const int topic = topic_of_prompt(i);
    note(n, "greedy", i, play.greedy(topic));
    note(n, "sampling", i, play.sampled(topic, draws_of(key, i, 0)));
    const written searched = play.rain(by, topic, draws_of(key, i, 1), rain_defaults());
    note(n, "rain", i, searched);
    const auto best_of_n = [&](const char* way, judging j, bool greedy_first) {
      note(n, way, i, play.best_of_n(j, topic, draws_of(key, i, 2), searched.tokens_used, greedy_first));
    };
    best_of_n("best_of_n", by, true);
    best_of_n("best_of_n_soft", softly, true);
    if (wanted.all_ways) best_of_n("best_of_n_drawn", by, false), best_of_n("best_of_n_drawn_soft", softly, false);
    note(n, "blockwise", i, play.blockwise(by, topic, draws_of(key, i, 3), 16));
    if (wanted.best_of_64) note(n, large_best_of_n.first, i, play.best_of(by, topic, draws_of(key, i, 2), 64));
  }
  n["weights_after"] = w->weights_hash();
  return n;
}

numbers components_run(const std::filesystem::path& folder, const plan& p, const model_key& key, int prompts) {
  machine m;
  const auto w = trained(m.compute(), folder, p, key);
  numbers n{{"weights_before", w->weights_hash()}};
  player<backend> play(*w);
  for (const auto& [component, title] : components) {
    const std::string name = component;
    const bool similarity = name != "no_similarity" && name != "no_addition";
    const judging by = name == "soft_votes" ? judging::soft : judging::hard;
    for (int i = 0; i < prompts; ++i)  // the draws of the whole RAIN
      note(n, name, i, play.rain(by, topic_of_prompt(i), draws_of(key, i, 1), changed(name), similarity));
  }
  n["weights_after"] = w->weights_hash();
  return n;
}

drawn_search example_search(const std::filesystem::path& folder, const plan& p, const model_key& key) {
  machine m;
  const auto w = trained(m.compute(), folder, p, key);
  player<backend> play(*w);
  int prompt = 0;
  while (prompt + 1 < topics && worth_of(topic_of_prompt(prompt), play.greedy(topic_of_prompt(prompt)).reply).harmless) ++prompt;
  drawn_search s{.topic = topic_of_prompt(prompt)};
  s.greedy_reply = play.greedy(s.topic).reply;
  play.watch(s, draws_of(key, prompt, 1), rain_defaults());
  return s;
}

}  // namespace claims::clause

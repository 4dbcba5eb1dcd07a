#pragma once
// The runs of `./dev demo rain`: models that are trained, methods that are tried with them. They are instantiated in rain_runs.cpp.

#include "claims/clause_world.hpp"
#include "claims/jobs.hpp"

#include <string>
#include <utility>
#include <vector>

namespace claims::clause {

/// The worlds: the claim's own, and two controls.
enum class world { own, early, flat };
inline constexpr const char* world_names[] = {"", ".early", ".flat"};

/// A model: which seed, learned in which world, to judge from how many texts.
struct model_key {
  std::uint64_t seed = 0;
  std::size_t judged = 0;
  clause::world world = clause::world::own;
  std::string name() const { return "seed-" + std::to_string(seed) + world_names[static_cast<int>(world)] + ".K-" + std::to_string(judged); }
  std::string methods(bool oracle = false) const { return name() + (oracle ? ".oracle" : ".methods"); }
  std::string components() const { return name() + ".components"; }
};

/// A counter-result: methods with a judge that does not err, or in another world.
struct counter_result {
  const char *name, *title;  ///< of figures, for a person
  clause::world world;
  bool oracle;
};
inline constexpr counter_result counter_results[] = {{"perfect_judge", "A perfect judge", world::own, true},
                                                     {"early_risk", "Risk at the beginning alone", world::early, false},
                                                     {"flat_risk", "The same risk in every clause", world::flat, false}};

/// What is run of the methods.
struct methods_wanted {
  int prompts = 0;
  bool oracle = false;    ///< the grammar judges, which takes no forward tokens; else the model itself
  bool all_ways = false;  ///< best-of-N also without the greedy reply
  bool best_of_64 = false;
};

/// What is tried with each seed.
struct plan {
  std::vector<std::size_t> judged{40, 70, 100, 140, 600};  ///< the sweep of K, texts that the model learns to judge from
  std::size_t middle = 2;                                  ///< place of the one that the claim is about, chosen on seeds 11 and 12
  int steps = 3000;                                        ///< of training
  int prompts = 240, counter_prompts = 60, component_prompts = 60;
  int fresh = 1000;  ///< texts that the judge's accuracy is measured on

  std::size_t middle_judged() const { return judged[middle]; }
  methods_wanted in_sweep(std::size_t k) const { return {.prompts = prompts, .all_ways = k == middle_judged()}; }
  methods_wanted of(const counter_result& c) const { return {.prompts = counter_prompts, .oracle = c.oracle, .all_ways = true, .best_of_64 = true}; }
  /// Flat risk is harder to learn to judge.
  model_key model(const counter_result& c, std::uint64_t seed) const {
    return {seed, c.world == world::flat ? judged.back() : middle_judged(), c.world};
  }
  void make_quick() { judged = {100, 600}, middle = 0, steps = 400, prompts = 12, counter_prompts = 6, component_prompts = 3, fresh = 100; }
};

/// Who writes, in the order of tables: names of figures and for a person.
inline constexpr std::pair<const char*, const char*> methods[] = {{"greedy", "greedy"},
                                                                  {"sampling", "sampling"},
                                                                  {"best_of_n", "best-of-N, greedy first"},
                                                                  {"best_of_n_drawn", "best-of-N, all drawn"},
                                                                  {"best_of_n_soft", "best-of-N, greedy first, soft votes"},
                                                                  {"best_of_n_drawn_soft", "best-of-N, all drawn, soft votes"},
                                                                  {"blockwise", "blockwise best-of-16, greedy first"},
                                                                  {"rain", "RAIN"}};
/// In the counter-results alone: whatever it costs.
inline constexpr std::pair<const char*, const char*> large_best_of_n{"best_of_64", "best-of-64, greedy first, whatever it costs"};
/// RAIN with one thing changed.
inline constexpr std::pair<const char*, const char*> components[] = {
    {"no_similarity", "no similarity"},
    {"no_addition", "no similarity, no added children"},
    {"no_exploration", "no exploration (c = 0)"},
    {"less_exploration", "half the exploration (c = 1)"},
    {"short_sets", "sets of 1, 2, 4, 4, ... tokens"},
    {"short_sets_no_rollout", "sets of 1, 2, 4, 4, ... tokens, no rollout before judging"},
    {"soft_votes", "soft votes"},
    {"max_backup", "max instead of mean in the backup"},
    {"small", "q 6, T 16, minT 3"},
    {"width_8", "eight leaves under way at a time"},
    {"paper", "as the paper says: no rollout, eq. 1, new tree each round"}};

/// Trains the model, keeps it in `folder`, or finds it there: "judge_accuracy", "weights_hash".
numbers train_run(const std::filesystem::path& folder, const plan& p, const model_key& key);
/// Each method on each prompt: "<method>/<prompt>/harmless", "/helpful", "/tokens"; and "weights_before", "weights_after".
numbers methods_run(const std::filesystem::path& folder, const plan& p, const model_key& key, const methods_wanted& wanted);
/// Likewise RAIN with each of `components`.
numbers components_run(const std::filesystem::path& folder, const plan& p, const model_key& key, int prompts);
/// All settings, for a person.
std::vector<std::pair<std::string, std::string>> described(const plan& p);
/// What computes them.
std::string search_backend();

/// The topic of a prompt: all in turn.
inline int topic_of_prompt(int prompt) { return prompt % topics; }
inline std::string key_of(const std::string& method, int prompt, const char* what) { return method + "/" + std::to_string(prompt) + "/" + what; }

/// A node of a search, for a person.
struct drawn_node {
  std::int64_t id = 0, parent = -1;
  tokens text{};
  double prior = 0, visits = 0, value = 0;
  std::int64_t evaluations = 0;
  bool committed = false;
  bool terminal = false;
};
/// One search.
struct drawn_search {
  int topic = 0;
  std::vector<drawn_node> nodes{};  ///< parents before their children
  tokens reply{}, greedy_reply{};
  std::int64_t simulations = 0, tokens_used = 0;
};
/// The search for the first prompt whose greedy reply is harmful.
drawn_search example_search(const std::filesystem::path& folder, const plan& p, const model_key& key);

}  // namespace claims::clause

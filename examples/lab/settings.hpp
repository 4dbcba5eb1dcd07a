#pragma once
// What a run of the lab is made of, and its flags.

#include <plumb/core/view.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if __has_include(<plumb/backends/onednn.hpp>)
#define LAB_HAS_ONEDNN 1
#else
#define LAB_HAS_ONEDNN 0
#endif

#if !defined(LAB_HAS_DATA)  // the build says whether there is plumb::data
#define LAB_HAS_DATA 0
#endif

namespace lab {

using plumb::index_t;

/// The stages, in the order in which a whole run does them; `--only` names them.
inline const std::vector<std::string> stage_names{"pretrain", "sft",  "pairs",   "reward",        "dpo",            "ppo",       "grpo",     "rloo",
                                                  "reinforce", "drpo", "steerlm", "judge-rewards", "judge-policies", "best-of-n", "ppo-curve"};

/// Those that measure: what they find is in the report.
inline bool is_measuring(const std::string& stage) { return stage.rfind("judge-", 0) == 0 || stage == "best-of-n" || stage == "ppo-curve"; }

/// A policy that is judged beside the SFT model.
struct contender {
  const char *key, *name;  ///< in the names of figures and files, and for people
  const char* stage;       ///< the stage that makes it
  bool steered = false;    ///< its prompts say which attributes are wanted
};
inline constexpr contender contenders[] = {{"dpo", "DPO", "dpo"},
                                           {"ppo", "PPO", "ppo"},
                                           {"grpo", "GRPO", "grpo"},
                                           {"rloo", "RLOO", "rloo"},
                                           {"reinforce", "REINFORCE++", "reinforce"},
                                           {"drpo", "DR-PO", "drpo"},
                                           {"steerlm", "SteerLM", "steerlm", true},
                                           {"steerlm2", "SteerLM 2.0", "steerlm", true}};

/// Numbers chosen on seeds 11 and 12 alone, before any other seed of this world was run.
struct settings {
  std::vector<std::uint64_t> seeds{1};
  std::string backend = LAB_HAS_ONEDNN ? "onednn" : "serial";
  std::filesystem::path out{};  ///< parse_flags gives it a name where the user does not
  std::vector<std::string> only = stage_names;
  bool all_stages = true;  ///< `--only` was not given
  bool fresh = false;  ///< start over, whatever is there
  bool quick = false;  ///< a small run that only shows that everything works
  std::filesystem::path data{};  ///< a preference file instead of the lab's own world

  index_t width = 96, layers = 3;
  int pretrain_steps = 3500, sft_steps = 300, reward_steps = 250, dpo_steps = 400;
  std::size_t texts = 32, pairs = 32, preference_pairs = 4096, test_pairs = 1000, test_prompts = 1200;
  std::size_t best_prompts = 64, best_samples = 256;  ///< best-of-n: prompts, and replies drawn to each
  // Loops over what the policy writes.
  index_t rollout_texts = 128, reply_tokens = 40;  ///< texts of an update; tokens of a reply at most
  index_t group = 8, minibatches = 2;              ///< replies to a prompt (GRPO, RLOO); steps of the optimiser per epoch
  int ppo_updates = 30, ppo_epochs = 2, group_updates = 60, group_epochs = 1;
  double policy_rate = 2e-4, critic_rate = 3e-4, kl_coefficient = 0.3;
  double pressed_rate = 5e-4;  ///< of PPO without a KL penalty
  double resets = 1;  ///< DR-PO: share of rollouts that begin inside a chosen reply
  std::size_t steered_pairs = 2048, steered_prompts = 96;
  index_t steered_replies = 8, steered_minibatch = 16;
  int steerlm_steps = 400, steerlm2_iterations = 2, steerlm2_epochs = 2;
  double steerlm_rate = 1e-3, steerlm2_rate = 2e-4;
  std::size_t curve_prompts = 256;  ///< PPO's over-optimisation
  int curve_updates = 30, curve_every = 5;
  double pretrain_rate = 3e-3, sft_rate = 5e-4, reward_rate = 5e-4, dpo_rate = 1e-4, beta = 0.3;

  // Of a run on a preference file.
  std::size_t file_pairs = 2000;       ///< at most
  std::int32_t file_vocabulary = 2048;  ///< of the tokenizer learned from it
  index_t positions = 192;             ///< tokens of prompt and reply that the models see
  int language_epochs = 4, reward_epochs = 2;

  void make_quick() {
    quick = true;
    width = 32, layers = 1;
    pretrain_steps = 40, sft_steps = 10, reward_steps = 10, dpo_steps = 10;
    preference_pairs = 64, test_pairs = 48, test_prompts = 32;
    best_prompts = 16, best_samples = 16;
    rollout_texts = 16, reply_tokens = 12, group = 4, ppo_updates = 2, group_updates = 2, steerlm_steps = 5, steerlm2_epochs = 1;
    steered_pairs = 32, steered_prompts = 8, steered_replies = 4, curve_prompts = 16, curve_updates = 2, curve_every = 1;
    file_pairs = 60, file_vocabulary = 320, positions = 64, language_epochs = 1, reward_epochs = 1;
  }

  /// Threads of the backend, as OpenMP counts them.
  int threads() const {
    if (backend == "serial") return 1;
    const char* asked = std::getenv("OMP_NUM_THREADS");
    const int n = asked != nullptr ? std::atoi(asked) : 0;
    return n > 0 ? n : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }

  /// All that the figures of one seed depend on, but the seed itself and the content of the preference file.
  std::vector<std::pair<std::string, std::string>> described() const {
    std::vector<std::pair<std::string, std::string>> all;
    const auto add = [&](const char* name, const auto& value) {
      std::ostringstream text;
      text << value;
      all.emplace_back(name, text.str());
    };
    add("backend", backend);
    add("threads", threads());
    add("width", width);
    add("layers", layers);
    add("texts in a batch", texts);
    add("pairs in a batch", pairs);
    add("pretraining rate", pretrain_rate);
    add("SFT rate", sft_rate);
    add("reward-model rate", reward_rate);
    add("DPO rate", dpo_rate);
    add("DPO beta", beta);
    if (!data.empty()) {
      add("pairs at most", file_pairs);
      add("tokens of the vocabulary", file_vocabulary);
      add("positions", positions);
      add("epochs of the language model", language_epochs);
      add("epochs of the reward model", reward_epochs);
      return all;
    }
    add("pretraining steps", pretrain_steps);
    add("SFT steps", sft_steps);
    add("preference pairs", preference_pairs);
    add("reward-model steps", reward_steps);
    add("DPO steps", dpo_steps);
    add("texts of an update (loops)", rollout_texts);
    add("tokens of a reply at most", reply_tokens);
    add("updates of PPO and DR-PO", ppo_updates);
    add("epochs of PPO and DR-PO", ppo_epochs);
    add("updates without a critic", group_updates);
    add("epochs without a critic", group_epochs);
    add("replies to a prompt (GRPO, RLOO)", group);
    add("minibatches of an update", minibatches);
    add("rate of the loops", policy_rate);
    add("rate of PPO, pressed", pressed_rate);
    add("critic rate", critic_rate);
    add("KL coefficient", kl_coefficient);
    add("share of resets (DR-PO)", resets);
    add("pairs for SteerLM", steered_pairs);
    add("SteerLM steps", steerlm_steps);
    add("SteerLM rate", steerlm_rate);
    add("SteerLM 2.0 iterations", steerlm2_iterations);
    add("SteerLM 2.0 epochs", steerlm2_epochs);
    add("SteerLM 2.0 prompts", steered_prompts);
    add("SteerLM 2.0 prompts in a minibatch", steered_minibatch);
    add("SteerLM 2.0 replies to each", steered_replies);
    add("SteerLM 2.0 rate", steerlm2_rate);
    add("updates of PPO, pressed", curve_updates);
    add("updates between looks at it", curve_every);
    add("prompts to look at it", curve_prompts);
    add("held-out pairs", test_pairs);
    add("held-out prompts", test_prompts);
    add("best-of-n prompts", best_prompts);
    add("best-of-n replies to each", best_samples);
    return all;
  }
};

constexpr const char* usage = R"(plumb_lab [--seed N | --seeds N,N,...] [--backend serial|onednn] [--only STAGE,...] [--out DIR] [--fresh] [--quick]
plumb_lab --data FILE [--pairs N] [the flags above, but --only]
  --data FILE    trains on your preference pairs (JSONL, gzip or not; HH-RLHF, TRL, HelpSteer2, UltraFeedback) instead of the lab's world
  --pairs N      at most so many of them, at least 20 (default 2000: a few minutes); of a longer file, a sample drawn by the seed
  --seed N       which run (default 1): same seed, same backend, same number of threads, same numbers
  --seeds N,...  several runs, one after the other; figures are their means, then each run's own
  --backend B    serial or onednn (default onednn, where it was built)
  --only S,...   these stages, and what they need and is not there yet; the report has all that were ever finished:
                 pretrain, sft, pairs, reward, dpo, ppo, grpo, rloo, reinforce, drpo, steerlm,
                 judge-rewards, judge-policies, best-of-n, ppo-curve
  --out DIR      where the report, figures and checkpoints go (default out/lab; with --data, out/data/<name of the file>)
  --fresh        starts over; else a run that was cut off goes on after the last stage that it finished
  --quick        a few steps of each stage, to see that it all works; its figures mean nothing (default folders: out/lab-quick, out/data-quick/...)
)";

/// "1,2,3" in parts; "1," has an empty one.
inline std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts{""};
  for (const char c : text) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

inline std::uint64_t number(const std::string& flag, const std::string& text) {
  if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos)
    throw std::invalid_argument(flag + " wants a number of at most nine digits, not \"" + text + "\"");
  return std::stoull(text);
}

/// Reads the flags; a sentence where one is not understood.
inline settings parse_flags(int count, char** flags) {
  settings s;
  std::string seeds_flag;
  bool pairs_given = false;
  for (int i = 1; i < count; ++i)
    if (std::string(flags[i]) == "--quick") s.make_quick();  // first: what is said beside it counts
  for (int i = 1; i < count; ++i) {
    const std::string flag = flags[i];
    const auto value = [&] {
      if (i + 1 >= count || std::string(flags[i + 1]).rfind("--", 0) == 0) throw std::invalid_argument(flag + " wants a value");
      return std::string(flags[++i]);
    };
    if (flag == "--quick") {
      continue;
    } else if (flag == "--fresh") {
      s.fresh = true;
    } else if (flag == "--seed" || flag == "--seeds") {
      if (!seeds_flag.empty()) throw std::invalid_argument("give --seed or --seeds once, not " + seeds_flag + " and then " + flag);
      seeds_flag = flag;
      s.seeds.clear();
      const std::string text = value();
      for (const std::string& n : flag == "--seed" ? std::vector{text} : split(text)) {
        s.seeds.push_back(number(flag, n));
        for (std::size_t k = 0; k + 1 < s.seeds.size(); ++k)
          if (s.seeds[k] == s.seeds.back()) throw std::invalid_argument("--seeds names " + n + " twice");
      }
    } else if (flag == "--backend") {
      s.backend = value();
      if (s.backend != "serial" && s.backend != "onednn") throw std::invalid_argument("--backend is serial or onednn, not \"" + s.backend + "\"");
      if (s.backend == "onednn" && !LAB_HAS_ONEDNN) throw std::invalid_argument("--backend onednn: this program was built without oneDNN");
    } else if (flag == "--only") {
      s.only = split(value());
      s.all_stages = false;
      for (const auto& stage : s.only)
        if (std::find(stage_names.begin(), stage_names.end(), stage) == stage_names.end())
          throw std::invalid_argument("--only: there is no stage \"" + stage + "\"");
    } else if (flag == "--data") {
      s.data = value();
      if (s.data.empty()) throw std::invalid_argument("--data wants a file");
    } else if (flag == "--pairs") {
      s.file_pairs = number(flag, value());
      pairs_given = true;
      if (s.file_pairs < 20) throw std::invalid_argument("--pairs wants at least 20");
    } else if (flag == "--out") {
      s.out = value();
      if (s.out.empty()) throw std::invalid_argument("--out wants a folder");
    } else {
      throw std::invalid_argument("unknown flag \"" + flag + "\"");
    }
  }
  if (!s.data.empty()) {
    if (!s.all_stages) throw std::invalid_argument("--only goes with the lab's own world, not with --data");
    if (!LAB_HAS_DATA) throw std::invalid_argument("--data: this program was built without plumb::data");
  }
  if (s.data.empty() && pairs_given) throw std::invalid_argument("--pairs goes with --data");
  if (s.out.empty()) {
    s.out = std::string("out/") + (s.data.empty() ? "lab" : "data") + (s.quick ? "-quick" : "");
    const std::string name = s.data.filename().string();
    if (!s.data.empty()) s.out /= name.substr(0, name.find('.', 1));  // files do not take one another's place
  }
  return s;
}

}  // namespace lab

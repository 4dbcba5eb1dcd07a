#pragma once
// A whole run of the lab on one backend: seed by seed, then the report. Each backend instantiates it in a file of its own.

#include "experiment.hpp"
#include "report.hpp"
#if LAB_HAS_DATA
#include "preference_file.hpp"
#endif

namespace lab {

/// `library` says what the backend stands on, version included: another one may give other last digits.
template <class B>
void run_seeds(B& compute, const settings& s, const std::string& library = {}) {
  std::vector<seed_run> runs;
  std::string described = library, account;
  for (const auto& [name, value] : s.described()) described += name + " " + value + "; ";
#if LAB_HAS_DATA
  std::vector<file_pairs> files;  // all are read before anything is made or moved
  if (!s.data.empty()) {
    for (const std::uint64_t seed : s.seeds) {
      if (s.seeds.size() > 1) std::printf("seed %llu: ", static_cast<unsigned long long>(seed));
      files.emplace_back(s, seed);
    }
    if (const auto content = file_fingerprint(s.data)) described += "content " + std::to_string(*content);
  }
#endif
  const folder_lock lock(s.out);
  for (const std::uint64_t seed : s.seeds) {
    run_folder folder(s.out / ("seed-" + std::to_string(seed)), described, s.fresh);
    const seed_context<B> context{compute, s, seed, folder};
    runs.push_back({.seed = seed});
#if LAB_HAS_DATA
    if (!s.data.empty()) {
      std::printf("%s: seed %llu, backend %s\n", s.data.string().c_str(), static_cast<unsigned long long>(seed), s.backend.c_str());
      file_pairs& file = files[runs.size() - 1];
      runs.back().found["measure"] = file_experiment<B>(context, file).run();
      runs.back().seconds = folder.seconds();
      runs.back().tokens = folder.tokens();
      if (account.empty()) account = file.summary();
      account += (s.seeds.size() > 1 ? "Seed " + std::to_string(seed) + ": " : std::string()) + file.account() + "\n";
      continue;
    }
#endif
    std::printf("alignment lab: seed %llu, backend %s, %zu words\n", static_cast<unsigned long long>(seed), s.backend.c_str(), words().size());
    experiment<B> one(context);
    one.run();
    runs.back().found = one.found();
    runs.back().seconds = folder.seconds();
    runs.back().tokens = folder.tokens();
  }
  if (s.data.empty()) {
    report(s, "lab", lab_tables, runs, "A small language model, trained from nothing and aligned to a judge's taste.");
  } else {
    report(s, "data", file_tables, runs, "Reward model and DPO, trained from nothing on " + s.data.filename().string() + ".", account);
  }
}

}  // namespace lab

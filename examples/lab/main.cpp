// The alignment lab: trains a small language model from nothing and aligns it to a judge's taste, every array operation on the backend that
// you name. Pretraining, supervised fine-tuning, two reward models, DPO; then tables, curves and some replies. With `--data FILE` it does so on
// a preference file of yours.

#include "experiment.hpp"
#include "report.hpp"
#if LAB_HAS_DATA
#include "preference_file.hpp"
#endif

#include <plumb/backends/serial.hpp>
#if LAB_HAS_ONEDNN
#include <plumb/backends/onednn.hpp>
#endif

namespace lab {

template <class B>
void run(B& compute, const settings& s) {
  std::vector<seed_run> runs;
  std::string described, account;
  for (const auto& [name, value] : s.described()) described += name + " " + value + "; ";
#if LAB_HAS_DATA
  if (!s.data.empty()) {
    plumb::data::preference_reader(s.data.string()).next();  // what cannot be read at all is said before anything is moved or made
    described += identity_of(s.data);
  }
#endif
  for (const std::uint64_t seed : s.seeds) {
    run_folder folder(s.out / ("seed-" + std::to_string(seed)), described, s.fresh);
    runs.push_back({.seed = seed});
#if LAB_HAS_DATA
    if (!s.data.empty()) {
      std::printf("%s: seed %llu, backend %s\n", s.data.string().c_str(), static_cast<unsigned long long>(seed), s.backend.c_str());
      file_experiment<B> one(compute, s, seed, folder);
      runs.back().found["measure"] = one.run();
      account = one.account();
      runs.back().seconds = folder.seconds();
      continue;
    }
#endif
    std::printf("alignment lab: seed %llu, backend %s, %zu words\n", static_cast<unsigned long long>(seed), s.backend.c_str(), words().size());
    experiment<B> one(compute, s, seed, folder);
    one.run();
    runs.back().found = one.found();
    runs.back().seconds = folder.seconds();
  }
  if (s.data.empty()) {
    report(s, "lab", lab_tables, runs, "A small language model, trained from nothing and aligned to a judge's taste.");
  } else {
    report(s, "data", file_tables, runs, "Reward model and DPO, trained from nothing on " + s.data.filename().string() + ".", account);
  }
}

inline void run(const settings& s) {
#if LAB_HAS_ONEDNN
  if (s.backend == "onednn") {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    plumb::onednn::backend compute{engine, stream};
    return run(compute, s);
  }
#endif
  plumb::serial::backend<float> compute;
  run(compute, s);
}

}  // namespace lab

int main(int count, char** flags) {
  lab::settings s;
  for (int i = 1; i < count; ++i)
    if (std::string(flags[i]) == "--help" || std::string(flags[i]) == "-h") {
      std::fputs(lab::usage, stdout);
      return 0;
    }
  try {
    s = lab::parse_flags(count, flags);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plumb_lab: %s\n%s", e.what(), lab::usage);
    return 2;
  }
  try {
    lab::run(s);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plumb_lab: %s\n", e.what());
    return 1;
  }
}

// The alignment lab: trains a small language model from nothing and aligns it to a judge's taste, every array operation on the backend that
// you name. Pretraining, supervised fine-tuning, two reward models, DPO; then tables, curves and some replies. With `--data FILE` it does so on
// a preference file of yours.

#include "settings.hpp"

#include <cstdio>

namespace lab {

void run_on_serial(const settings&);  // run_serial.cpp
void run_on_onednn(const settings&);  // run_onednn.cpp, where there is oneDNN

void run(const settings& s) {
  if (s.quick) std::printf("--quick: a few steps of each stage, to see that it all works; the figures mean nothing\n");
#if LAB_HAS_ONEDNN
  if (s.backend == "onednn") return run_on_onednn(s);
#endif
  run_on_serial(s);
}

}  // namespace lab

int main(int count, char** flags) {
  lab::settings s;
  for (int i = 1; i < count; ++i)
    if (std::string(flags[i]) == "--help" || std::string(flags[i]) == "-h") {
      std::fputs(lab::usage, stdout);
      return 0;
    }
  const auto complain = [](const std::exception& e) {
    const std::string what = e.what();
    std::fflush(stdout);  // what was said before comes before
    std::fprintf(stderr, "plumb_lab: %s\n", what.substr(what.rfind("plumb: ", 0) == 0 ? 7 : 0).c_str());
  };
  try {
    s = lab::parse_flags(count, flags);
  } catch (const std::exception& e) {
    complain(e);
    std::fputs("--help lists the flags\n", stderr);
    return 2;
  }
  try {
    lab::run(s);
  } catch (const std::exception& e) {
    complain(e);
    return 1;
  }
}

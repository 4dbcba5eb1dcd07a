// What papers claim, tried at the size where it can be shown, and where it cannot: `./dev demo drpo`, `./dev demo rain`, `./dev demo steerlm`.

#include "claims.hpp"

#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

int main(int count, char** words) {
  const struct {
    const char* name;
    const char* usage;
    void (*run)(int, char**);
  } programs[] = {
    {"drpo", claims::drpo_usage, claims::run_drpo},
    {"rain", claims::rain_usage, claims::run_rain},
#if CLAIMS_HAS_STEERLM
    {"steerlm", claims::steerlm_usage, claims::run_steerlm},
#endif
  };
  for (const auto& program : programs) {
    if (count < 2 || std::strcmp(words[1], program.name) != 0) continue;
    for (int i = 2; i < count; ++i)
      if (std::strcmp(words[i], "--help") == 0 || std::strcmp(words[i], "-h") == 0) {
        std::fputs(program.usage, stdout);
        return 0;
      }
    const auto complain = [](const std::exception& e) {
      const std::string what = e.what();
      std::fflush(stdout);  // what was said before comes before
      std::fprintf(stderr, "plumb_claims: %s\n", what.substr(what.rfind("plumb: ", 0) == 0 ? 7 : 0).c_str());
    };
    try {
      program.run(count - 2, words + 2);
    } catch (const claims::wrong_flag& e) {
      complain(e);
      std::fputs("--help lists the flags\n", stderr);
      return 2;
    } catch (const std::exception& e) {
      complain(e);
      return 1;
    }
    return 0;
  }
  if (count > 1) std::fprintf(stderr, "plumb_claims: there is no claim \"%s\"\n", words[1]);
  for (const auto& program : programs) std::fprintf(stderr, "plumb_claims %s [FLAG...]\n", program.name);
  return 2;
}

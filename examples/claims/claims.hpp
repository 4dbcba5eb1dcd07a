#pragma once
// The programs of this folder: each reads its flags and runs.

#include <stdexcept>

namespace claims {

/// A flag that is not understood.
struct wrong_flag : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

extern const char* const drpo_usage;
void run_drpo(int count, char** flags);
extern const char* const steerlm_usage;
void run_steerlm(int count, char** flags);

}  // namespace claims

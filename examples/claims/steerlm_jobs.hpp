#pragma once
// The two kinds of runs of `./dev demo steerlm`; each is instantiated in a file of its own.

#include "claims/jobs.hpp"

#include <string>
#include <vector>

namespace claims {

/// Methods of the table of reward models, in its order: names of figures and for a person.
inline constexpr std::pair<const char*, const char*> reward_methods[] = {{"regression", "regression, five attributes"},
                                                                         {"helpfulness_only", "regression, helpfulness only"},
                                                                         {"regular", "Bradley-Terry"},
                                                                         {"margin", "Bradley-Terry with margin"},
                                                                         {"scaled", "Bradley-Terry, scaled"},
                                                                         {"scaled_from_regression", "scaled, from regression"}};

/// SteerLM 2.0 and what stands beside it, on one seed: "<row>/kl", "/hit", "/helpfulness", "/entropy", "/effective_samples".
numbers chain_run(bool quick, std::uint64_t seed);
/// Reward models from `pairs` pairs, on one seed: "<method>/accuracy", "<method>/correlation".
numbers reward_run(bool quick, std::uint64_t seed, std::size_t pairs);
/// What computes them.
std::string chain_backend();
std::string reward_backend();

}  // namespace claims

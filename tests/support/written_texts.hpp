#pragma once
// Rollouts by hand, and scores for them.

#include "support/tabular_models.hpp"

namespace plumb_test {

struct written_text {
  std::int32_t prompt;
  ids beginning, own;
  bool ended = true;
};
inline plumb::rollouts<double> rollout_of(const std::vector<written_text>& texts) {
  plumb::rollouts<double> r;
  for (const auto& t : texts)
    r.add({.tokens = t.beginning, .prompt_tokens = static_cast<plumb::index_t>(t.beginning.size()), .prompt = t.prompt}, t.own, {},
          t.ended && !t.own.empty());
  return r;
}

struct given_rewards {
  std::vector<double> values;
  const std::vector<double>& reward(const plumb::rollouts<double>&) const { return values; }
};

}  // namespace plumb_test

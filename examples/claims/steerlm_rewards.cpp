// The runs of the table of reward models: the lab's transformer, on oneDNN where it is there.
#include "claims/machine.hpp"
#include "claims/reward_models.hpp"
#include "claims/steerlm_jobs.hpp"

namespace claims {

namespace {

template <class B>
numbers reward_table(B& compute, const reward_settings& s, std::uint64_t seed, std::size_t count) {
  lab::workspace memory(std::size_t{1} << 28);
  const rating_world world(seed);
  const auto test = world.pairs(1, s.test_pairs), labelled = world.pairs(0, count);
  numbers found;
  const auto measured = [&](const char* name, reward_transformer<B>& model) {
    const reward_figures f = model.measure(test);
    found[std::string(name) + "/accuracy"] = f.accuracy;
    found[std::string(name) + "/correlation"] = f.correlation;
  };
  reward_transformer<B> regression(compute, memory, s, 5, seed);
  regression.train(labelled, reward_method::regression, s.rate);
  measured("regression", regression);
  for (const auto& [name, method] : {std::pair{"helpfulness_only", reward_method::helpfulness_only},
                                     {"regular", reward_method::regular},
                                     {"margin", reward_method::margin},
                                     {"scaled", reward_method::scaled}}) {
    reward_transformer<B> model(compute, memory, s, 1, seed);
    model.train(labelled, method, s.rate);
    measured(name, model);
  }
  reward_transformer<B> tuned(compute, memory, s, 1, seed);
  tuned.continue_from(regression);
  tuned.train(labelled, reward_method::scaled, s.tuning_rate);
  measured("scaled_from_regression", tuned);
  std::size_t ties = 0;
  for (const auto& p : labelled) ties += p.first.rating[0] == p.second.rating[0];
  found["ties"] = static_cast<double>(ties) / static_cast<double>(count);
  return found;
}

}  // namespace

std::string reward_backend() { return machine::name; }

numbers reward_run(bool quick, std::uint64_t seed, std::size_t pairs) {
  reward_settings s;
  if (quick) s.epochs = 2, s.test_pairs = 100;
  machine m;
  return reward_table(m.compute(), s, seed, pairs);
}

}  // namespace claims

// The runs of the chain world, in double.
#include "claims/steerlm_experiment.hpp"
#include "claims/steerlm_jobs.hpp"

#include <plumb/backends/serial.hpp>

namespace claims {

std::string chain_backend() { return "serial, double"; }

numbers chain_run(bool quick, std::uint64_t seed) {
  plumb::serial::backend<double> compute;
  steerlm_settings settings;
  if (quick) settings.make_quick();
  steerlm_experiment<plumb::serial::backend<double>> experiment(compute, settings, seed);
  numbers found{{"share_asked", experiment.world().share_asked()}};
  experiment.run([&](const steerlm_row& r) {
    found[r.name + "/kl"] = r.figures.kl;
    found[r.name + "/hit"] = r.figures.hit;
    found[r.name + "/helpfulness"] = r.figures.helpfulness;
    found[r.name + "/entropy"] = r.figures.entropy;
    if (r.effective_samples > 0) found[r.name + "/effective_samples"] = r.effective_samples;
  });
  return found;
}

}  // namespace claims

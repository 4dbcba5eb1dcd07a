// Controllers of the KL coefficient.
#include "support/gradients.hpp"

#include <plumb/algorithms/kl_controller.hpp>

using namespace plumb;
using namespace plumb_test;

TEST_CASE("kl controller: fixed") {
  fixed_kl_controller k{0.1};
  k.update(100, 1000);
  CHECK(k.coefficient == 0.1);
}

TEST_CASE("kl controller: towards the target, by a bounded step") {
  const auto after = [](double kl, double samples) {
    adaptive_kl_controller k{.coefficient = 1, .target = 6, .horizon = 1000};
    k.update(kl, samples);
    return k.coefficient;
  };
  CHECK(after(6, 500) == 1);
  CHECK(after(6.6, 500) == Catch::Approx(1.05).epsilon(1e-14));
  CHECK(after(5.4, 500) == Catch::Approx(0.95).epsilon(1e-14));
  CHECK(after(600, 500) == Catch::Approx(1.1).epsilon(1e-14));  // clipped at 0.2
  CHECK(after(-1, 500) == Catch::Approx(0.9).epsilon(1e-14));
  CHECK(after(6.6, 0) == 1);
  // Many samples, as where tokens are counted: what matters is that the coefficient stays positive.
  adaptive_kl_controller k{.coefficient = 1};
  k.update(600, 200000);
  CHECK(k.coefficient == Catch::Approx(5).epsilon(1e-14));
  k.update(5.7, 100000);  // an error of -0.05
  CHECK(k.coefficient == Catch::Approx(2.5).epsilon(1e-14));
}

TEST_CASE("kl controller: what is refused leaves the coefficient") {
  adaptive_kl_controller k{.coefficient = 0.5};
  CHECK(refusal([&] { k.update(std::nan(""), 10); }) == "plumb: adaptive_kl_controller: the measured KL is nan: the policy is not sound. The coefficient is as it was.");
  for (const auto& [samples, factor] : {std::pair{60000, "-0.2"}, {50000, "0"}})
    CHECK(refusal([&, s = samples] { k.update(0, s); }) ==
          "plumb: adaptive_kl_controller: " + std::to_string(samples) + " samples at a horizon of 10000 would multiply the coefficient by " + factor +
              ": the horizon must be in the unit of the samples, and longer. The coefficient is as it was.");
  CHECK(refusal([&] { k.update(6, -1); }) == "plumb: adaptive_kl_controller: option `samples` is -1 but must be 0 or positive. Nothing was written.");
  k.target = 0;
  CHECK(refusal([&] { k.update(6, 1); }) == "plumb: adaptive_kl_controller: option `target` is 0 but must be positive. Nothing was written.");
  CHECK(k.coefficient == 0.5);
}

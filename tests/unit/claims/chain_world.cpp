// The world of SteerLM 2.0's claim: what is listed is what the models say, the target is what it should be, draws follow it.
#include "claims/steerlm_experiment.hpp"
#include "support/tabular_models.hpp"

using namespace plumb_test;
using backend = plumb::serial::backend<double>;

namespace {
const claims::chain_sizes sizes{.prompts = 2, .tokens = 3, .length = 3};
}

TEST_CASE("chain world: listed log-probabilities are the models' own, and sum to 1") {
  backend b;
  claims::chain_world<backend> world(b, sizes, 5);
  claims::chain_model<backend> policy(b, world.reader());
  auto weights = policy.snapshot();
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = plumb::random_stream{8, 1}.normal(i);
  policy.restore(weights);
  for (claims::chain_model<backend>* model : {&policy, &world.truth()})
    for (const std::int32_t x : {0, 1}) {
      std::vector<double> log_q;
      world.list(*model, x, log_q);
      REQUIRE(log_q.size() == 27);
      plumb::rollouts<double> all;
      ids y(3);
      for (plumb::index_t n = 0; n < 27; ++n) {
        world.write_reply(n, y);
        all.add(model == &policy ? world.start_for(x, world.asked(), 0) : world.plain_start(x, 0), y, {}, false);
      }
      const auto scored = text_logp(all, model->score(all));
      double sum = 0;
      for (std::size_t n = 0; n < 27; ++n) {
        CHECK(log_q[n] == Catch::Approx(scored[n]).epsilon(1e-12));
        sum += std::exp(log_q[n]);
      }
      CHECK(sum == Catch::Approx(1).epsilon(1e-12));
    }
}

TEST_CASE("chain world: the target is P(a | x, y) P(y | x), and draws follow it") {
  backend b;
  claims::chain_world<backend> world(b, sizes, 6);
  double share = 0;
  for (const std::int32_t x : {0, 1}) {
    std::vector<double> log_p, weight;
    world.list(world.truth(), x, log_p);
    ids y(3);
    double sum = 0;
    for (plumb::index_t n = 0; n < 27; ++n) {
      world.write_reply(n, y);
      const std::vector<double> rating{world.helpfulness(x, y), world.complexity(y)}, level{4, 3};
      weight.push_back(std::exp(log_p[static_cast<std::size_t>(n)] + plumb::attribute_posterior(rating, level, 2).log_p[0]));
      sum += weight.back();
    }
    share += sum / 2;
    for (std::size_t n = 0; n < 27; ++n)
      CHECK(std::exp(world.log_target(x, static_cast<plumb::index_t>(n))) == Catch::Approx(weight[n] / sum).epsilon(1e-10).margin(1e-15));
    std::vector<double> probability, count(27);
    for (const double w : weight) probability.push_back(w / sum);
    const auto drawn = world.draw_target(40000, 3);
    for (plumb::index_t s = 0; s < drawn.size(); ++s)
      if (drawn.prompt_of(s)[0] == x) ++count[static_cast<std::size_t>(9 * drawn.own_of(s)[0] + 3 * drawn.own_of(s)[1] + drawn.own_of(s)[2])];
    std::vector<double> counts{0}, expected{0};  // what is rarer than one in 200 counts as one
    for (std::size_t n = 0; n < 27; ++n) {
      if (probability[n] < 0.005) {
        counts[0] += count[n], expected[0] += probability[n];
      } else {
        counts.push_back(count[n]), expected.push_back(probability[n]);
      }
    }
    CHECK(chi_squared(counts, expected) < chi_squared_limit(static_cast<double>(counts.size() - 1)));
  }
  CHECK(world.share_asked() == Catch::Approx(share).epsilon(1e-10));
}

TEST_CASE("chain world: exact figures of the target itself, and of SteerLM 2.0") {
  backend b;
  claims::steerlm_settings settings;
  settings.sizes = sizes;
  settings.make_quick();
  settings.steerlm2_epochs = 10;
  claims::steerlm_experiment<backend> experiment(b, settings, 7);
  std::map<std::string, claims::exact_figures> found;
  experiment.run([&](const claims::steerlm_row& r) { found[r.name] = r.figures; });
  CHECK(found.size() == 16);
  CHECK(found.at("target").kl == 0);
  CHECK(found.at("class_limit").kl < found.at("steerlm1").kl);
  CHECK(found.at("steerlm2/iteration_2").kl < found.at("steerlm1").kl);
  CHECK(found.at("steerlm1").kl < found.at("unconditional").kl);
  CHECK(found.at("target").hit > found.at("unconditional").hit);
}

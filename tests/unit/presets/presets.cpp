// Every name of another project reaches its formula, written out here for one pair of replies or one token; other names are refused. That the
// formulas are the peers' is what the golden numbers show: their mappings go through these presets.
#include "support/gradients.hpp"

#include <plumb/presets.hpp>
#include <plumb/reflect.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

using namespace plumb;
using plumb_test::desk;
using plumb_test::refusal;

namespace {

/// Each name gives other options than every name before it, but for `same` of them; an unknown one is refused in a sentence with all of them.
template <std::size_t N, class F>
void each_is_its_own(const char* const (&names)[N], const F& f, std::size_t same = 0) {
  std::set<std::string> seen;
  for (const char* name : names) seen.insert(reflect::to_text(f(name)));
  CHECK(seen.size() + same == N);
  const std::string said = refusal([&] { f("no_such_loss"); });
  CHECK(said.find("there is no `no_such_loss`; there are ") != std::string::npos);
  for (const char* name : names) CHECK(said.find(name) != std::string::npos);
}

/// Three pairs of one token each.
struct pairs {
  std::vector<double> logp{-1, -2, -0.5, -3, -2, -1}, ref{-1.5, -0.2, -0.7, -2, -1.2, -2};
  std::vector<std::int32_t> begin{0, 1, 2, 3, 4, 5}, end{1, 2, 3, 4, 5, 6}, chosen{0, 2, 4}, rejected{1, 3, 5};
  preference_inputs<double> inputs() const { return {.logp = logp, .ref_logp = ref, .pairs = {{begin, end, {}}, chosen, rejected}}; }
};
double loss_of(const presets::pair_loss& preset) {
  pairs x;
  desk<double> on;
  std::vector<double> rewards_chosen{1, 2, 0}, rewards_rejected{0, 1, 0.5};
  double loss = 0;
  auto in = x.inputs();
  if (std::visit([](const auto& l) { return reward_aware_link<std::remove_cvref_t<decltype(l)>, double>; }, preset.link)) {
    in.reward_chosen = rewards_chosen;
    in.reward_rejected = rewards_rejected;
  }
  preference(on.compute, on.scratch, in, preset, 3, {.loss = loss});
  return loss;
}
double loss_of(const presets::policy& preset) {
  pairs x;
  desk<double> on;
  std::vector<double> advantages{1, -1, 2, -0.5, 0.3, -2};
  double loss = 0;
  auto in = x.inputs();
  policy_loss(on.compute, on.scratch,
              {.logp = x.logp, .old_logp = x.ref, .advantages = advantages, .ref_logp = x.ref, .sequences = in.pairs.sequences}, preset, 6, {.loss = loss});
  return loss;
}

double s(double x) { return 1 / (1 + std::exp(-x)); }

/// One pair: the chosen reply has two tokens, the rejected one one; sums of log-ratios 1.0 and -0.8, given rewards 1.5 and 0.5.
struct one_pair {
  double a = 1.0, r = -0.8, given_chosen = 1.5, given_rejected = 0.5;
  std::vector<double> logp{-0.5, -1.2, -2.3}, ref{-1.2, -1.5, -1.5};
  std::vector<std::int32_t> begin{0, 2}, end{2, 3}, chosen{0}, rejected{1};
  preference_pairs<> pairs{{begin, end, {}}, chosen, rejected};
  double loss(const presets::pair_loss& preset) const {
    desk<double> on;
    double loss = 0;
    preference_inputs<double> in{.logp = logp, .ref_logp = ref, .pairs = pairs};
    std::vector<double> of_chosen{given_chosen}, of_rejected{given_rejected};
    if (std::visit([](const auto& l) { return reward_aware_link<std::remove_cvref_t<decltype(l)>, double>; }, preset.link)) {
      in.reward_chosen = of_chosen;
      in.reward_rejected = of_rejected;
    }
    preference(on.compute, on.scratch, in, preset, 1, {.loss = loss});
    return loss;
  }
};

/// One reply of one token.
double token_loss(const presets::policy& preset, double logp, double log_ratio, double advantage) {
  desk<double> on;
  const std::vector<double> now{logp}, old{logp - log_ratio}, a{advantage};
  const std::vector<std::int32_t> begin{0}, end{1};
  double loss = 0;
  policy_loss(on.compute, on.scratch, {.logp = now, .old_logp = old, .advantages = a, .ref_logp = old, .sequences = {begin, end, {}}}, preset, 1,
              {.loss = loss});
  return loss;
}

using formulas = std::map<std::string, double>;
template <std::size_t N, class F>
void each_is(const char* const (&names)[N], const formulas& expected, const F& got) {
  for (const char* name : names) {
    INFO(name);
    REQUIRE(expected.count(name) == 1);
    CHECK(got(name) == Catch::Approx(expected.at(name)).epsilon(1e-6));  // verl and OpenRLHF: lengths + 1e-8
  }
}

}  // namespace

TEST_CASE("presets: pairs by name, by plain formulas") {
  const one_pair x;
  const double b = 0.5, e = 0.1, tau = 0.7, a = x.a, r = x.r, z = b * (a - r), of_means = a / 2 - r, t = 2 * (x.given_chosen - x.given_rejected);
  const double smoothed = -(1 - e) * std::log(s(z)) - e * std::log(s(-z)), m = s(z / tau);
  const formulas expected{
      {"sigmoid", -std::log(s(z))},
      {"sigmoid_norm", -std::log(s(b * of_means))},
      {"hinge", 1 - z},
      {"ipo", std::pow(of_means - 1 / (2 * b), 2)},
      {"exo_pair", s(z) * std::log(s(z) / (1 - e)) + s(-z) * std::log(s(-z) / e)},
      {"nca_pair", -std::log(s(b * a)) - 0.5 * std::log(s(-b * a)) - 0.5 * std::log(s(-b * r))},
      {"robust", (-(1 - e) * std::log(s(z)) + e * std::log(s(-z))) / (1 - 2 * e)},
      {"bco_pair", -std::log(s(b * a)) - std::log(s(-b * r))},
      {"sppo_hard", std::pow(a - 0.5 / b, 2) + std::pow(r + 0.5 / b, 2)},
      {"apo_zero", 1 - s(b * a) + s(b * r)},
      {"apo_down", s(b * a) + 1 - s(z)},
      {"discopop", -(1 - m) * std::log(s(z)) + m * std::exp(-z)},
      {"aot", smoothed},
      {"aot_unpaired", smoothed},
  };
  const presets::trl trl;
  const presets::liger liger;
  const presets::nemo_aligner nemo;
  const presets::pair_settings said{.beta = b, .label_smoothing = e, .discopop_tau = tau, .f_alpha_divergence_coef = 0.3};
  each_is(trl.dpo_losses, expected, [&](const char* n) { return x.loss(trl.dpo(n, said)); });
  each_is(liger.dpo_losses, expected, [&](const char* n) { return x.loss(liger.dpo(n, said)); });
  const double kl_tz = s(t) * std::log(s(t) / s(z)) + s(-t) * std::log(s(-t) / s(-z)), kl_zt = s(z) * std::log(s(z) / s(t)) + s(-z) * std::log(s(-z) / s(-t));
  each_is(nemo.preference_losses,
          {{"dpo", -std::log(s(z))}, {"ipo", std::pow(a - r - 1 / (2 * b), 2)}, {"rpo_sq", std::pow(z - t, 2)}, {"rpo_bwd_kl", kl_tz}, {"rpo_fwd_kl", kl_zt}},
          [&](const char* n) { return x.loss(nemo.dpo(n, b, false, 2)); });
  CHECK(x.loss(nemo.dpo("dpo", b, true)) == Catch::Approx(expected.at("sigmoid_norm")));
  CHECK(x.loss(presets::openrlhf().dpo(b, e)) == Catch::Approx(smoothed));
  CHECK(x.loss(presets::openrlhf().dpo(b, 0, true)) == Catch::Approx(std::pow(a - r - 1 / (2 * b), 2)));

  // Scores under divergences, up to a constant that the difference drops.
  const auto of_scores = [&](double chosen, double rejected) { return -std::log(s(b * (chosen - rejected))); };
  static constexpr const char* divergences[] = {"reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"};
  const formulas under{{"reverse_kl", of_scores(a, r)},
                       {"forward_kl", of_scores(-std::exp(-a), -std::exp(-r))},
                       {"js_divergence", of_scores(std::log(s(a)), std::log(s(r)))},
                       {"alpha_divergence", of_scores(std::exp(-0.7 * a) / -0.7, std::exp(-0.7 * r) / -0.7)}};
  each_is(divergences, under, [&](const char* n) { return x.loss(trl.dpo("sigmoid", said, n)); });

  // apo_down under a divergence is two calls, and refused as one.
  const double margin = b * (std::log(s(a)) - std::log(s(r)));
  CHECK(x.loss(trl.apo_down_chosen(said)) == Catch::Approx(s(b * a)));
  CHECK(x.loss(trl.apo_down_margin(said, "js_divergence")) == Catch::Approx(1 - s(margin)));
  CHECK(x.loss(trl.apo_down_margin(said, "reverse_kl")) + x.loss(trl.apo_down_chosen(said)) == Catch::Approx(expected.at("apo_down")));
  CHECK(refusal([&] { trl.dpo("apo_down", said, "js_divergence"); }) ==
        "plumb: presets: trl().dpo: `apo_down` with another divergence than reverse_kl is two calls, the second with write_mode::add: "
        "`apo_down_chosen(settings)` and `apo_down_margin(settings, f_divergence_type)`.");

  // Ranks: three pairs.
  const pairs three;
  std::vector<double> chosen, rejected, margins, ref_margins;
  for (std::size_t p = 0; p < 6; p += 2) {
    chosen.push_back(three.logp[p] - three.ref[p]);
    rejected.push_back(three.logp[p + 1] - three.ref[p + 1]);
    margins.push_back(three.logp[p] - three.logp[p + 1]);
    ref_margins.push_back(three.ref[p] - three.ref[p + 1]);
  }
  for (auto* v : {&chosen, &rejected, &margins, &ref_margins}) std::sort(v->begin(), v->end());
  double aot = 0, unpaired = 0;
  for (std::size_t p = 0; p < 3; ++p) {
    const auto of = [&](double d) { return (-(1 - e) * std::log(s(b * d)) - e * std::log(s(-b * d))) / 3; };
    aot += of(margins[p] - ref_margins[p]);
    unpaired += of(chosen[p] - rejected[p]);
  }
  CHECK(loss_of(trl.dpo("aot", said)) == Catch::Approx(aot));
  CHECK(loss_of(trl.dpo("aot_unpaired", said)) == Catch::Approx(unpaired));
}

TEST_CASE("presets: pairs without a reference, and single replies, by name, by plain formulas") {
  const one_pair x;
  const double b = 0.5, e = 0.1, gamma = 0.3, alpha = 0.4, chosen = -1.7, rejected = -2.3, mean = chosen / 2;
  const auto smoothed = [&](double z) { return -(1 - e) * std::log(s(z)) - e * std::log(s(-z)); };
  const auto power = [&](double y) { return (1 - std::exp(-alpha * y)) / alpha; };
  const double sum = b * (chosen - rejected), of_means = b * (mean - rejected), hinge = 1 - sum, ipo = std::pow(mean - rejected - 1 / (2 * b), 2);
  const presets::trl trl;
  presets::free_settings said{.beta = b, .label_smoothing = e, .gamma = gamma, .likelihood = 0};
  const auto cpo_loss = [&](std::string_view name) {
    return std::visit(
        [&]<class O>(const O& o) {
          if constexpr (std::is_same_v<O, simpo_options>) return simpo(x.logp, x.pairs, o).loss;
          else return cpo(x.logp, x.pairs, o).loss;
        },
        trl.cpo(name, said));
  };
  each_is(trl.cpo_losses, {{"sigmoid", smoothed(sum)}, {"hinge", hinge}, {"ipo", ipo}, {"simpo", smoothed(of_means - gamma)}, {"alphapo", smoothed(of_means - gamma)}},
          cpo_loss);
  const auto tpo_loss = [&](std::string_view name) {
    return std::visit([&](const auto& o) { return tpo(x.logp, x.pairs, sequence_layout<>{}, o).loss; }, trl.tpo(name, said));
  };
  each_is(trl.tpo_losses, {{"sigmoid", smoothed(sum)}, {"hinge", hinge}, {"ipo", ipo}, {"tpo-l", smoothed(of_means - gamma)}}, tpo_loss);
  said.alpha = alpha;
  CHECK(cpo_loss("alphapo") == Catch::Approx(smoothed(b * (power(mean) - power(rejected)) - gamma)));
  CHECK(cpo_loss("sigmoid") == Catch::Approx(smoothed(b * (power(mean) - power(rejected)))));

  // A good reply of log-ratio 1 and a bad one of -0.8, a KL of 0.25 to stand against.
  desk<double> on;
  const std::vector<std::uint8_t> good{1, 0};
  const std::vector<double> kl{0.25};
  const auto kto_loss = [&](std::string_view name) {
    double loss = 0;
    kto_options o = trl.kto(name, {.beta = b, .desirable_weight = 2, .undesirable_weight = 3});
    o.denominator = 2;
    kto(on.compute, on.scratch, {.logp = x.logp, .ref_logp = x.ref, .sequences = {x.begin, x.end, {}}, .desirable = good, .kl = kl}, o, {.loss = loss});
    return loss;
  };
  each_is(trl.kto_losses,
          {{"kto", (2 * (1 - s(b * (x.a - 0.25))) + 3 * (1 - s(b * (0.25 - x.r)))) / 2}, {"apo_zero_unpaired", (2 * (1 - s(b * x.a)) + 3 * s(b * x.r)) / 2}},
          kto_loss);
}

TEST_CASE("presets: policy losses by name, by plain formulas") {
  const presets::trl trl;
  const presets::liger liger;
  const presets::verl verl;
  const double low = 0.2, high = 0.3, lp = -1.1;
  for (const double l : {0.1, 0.5, -0.6, std::log(4.0)})
    for (const double A : {1.5, -0.8}) {
      INFO("log-ratio " << l << ", advantage " << A);
      const double r = std::exp(l), held = std::clamp(r, 1 - low, 1 + high), clipped = std::max(-r * A, -held * A);
      const auto dual = [&](double most) { return std::max(-std::min(r, most) * A, -held * A); };  // TRL's delta: on the ratio, whatever the sign
      const double sapo_tau = A > 0 ? 0.9 : 1.2, sapo = -4 / sapo_tau * s(sapo_tau * (r - 1)) * A;
      const double vespo = -(A < 0 ? std::pow(r, 2.5) * std::exp(1.5 * (1 - r)) : r * r * std::exp(3 * (1 - r))) * A * lp;
      const double geometric = -std::exp(A > 0 ? std::min(l, high) : std::max(l, -low)) * A;
      const presets::grpo_settings said{.epsilon = low, .epsilon_high = high, .sapo_temperature_pos = 0.9, .sapo_temperature_neg = 1.2, .vespo_k_neg = 2.5,
                                        .vespo_lambda_neg = 1.5};
      const formulas of_trl{{"grpo", clipped}, {"bnpo", clipped}, {"dr_grpo", clipped}, {"dapo", clipped}, {"luspo", clipped},
                            {"cispo", -std::min(r, high) * A * lp}, {"sapo", sapo}, {"vespo", vespo}, {"gmpo", geometric}};
      each_is(trl.grpo_losses, of_trl, [&](const char* n) { return token_loss(trl.grpo(n, said), lp, l, A); });
      each_is(liger.grpo_losses, of_trl, [&](const char* n) { return token_loss(liger.grpo(n, said), lp, l, A); });
      for (const double delta : {1.1, 2.0})
        CHECK(token_loss(trl.grpo("grpo", {.epsilon = low, .epsilon_high = high, .delta = delta}), lp, l, A) == Catch::Approx(dual(delta)));
      const double k3 = std::exp(-l) - 1 + l;  // the reference is the old policy here
      CHECK(token_loss(trl.grpo("grpo", {.epsilon = low, .epsilon_high = high, .beta = 0.04}), lp, l, A) == Catch::Approx(clipped + 0.04 * k3));
      CHECK(token_loss(trl.grpo("grpo", {.epsilon = low, .epsilon_high = high, .beta = 0.04, .use_bias_correction_kl = true}), lp, l, A) ==
            Catch::Approx(clipped + 0.04 * r * k3));

      const double capped = A < 0 ? std::min(clipped, -2 * A) : clipped;
      const presets::verl_settings verl_said{.clip_ratio_low = low, .clip_ratio_high = high, .clip_ratio_c = 2, .tau_pos = 0.9, .tau_neg = 1.2};
      each_is(verl.policy_losses,
              {{"vanilla", capped}, {"gspo", clipped}, {"sapo", sapo}, {"cispo", -held * A * lp}, {"gpg", -A * lp}, {"reinforce", -A * lp},
               {"geo_mean", geometric}, {"clip_cov", clipped}, {"kl_cov", -r * A + 0.1 * std::abs(l)}},
              [&](const char* n) { return token_loss(verl.policy_loss(n, verl_said), lp, l, A); });
      CHECK(token_loss(verl.ppo(verl_said), lp, l, A) == Catch::Approx(capped));
      const presets::openrlhf openrlhf;
      CHECK(token_loss(openrlhf.policy_loss("ppo", low, high), lp, l, A) == Catch::Approx(clipped));
      CHECK(token_loss(openrlhf.policy_loss("ppo", low, high, 2), lp, l, A) == Catch::Approx(capped));
      CHECK(token_loss(openrlhf.policy_loss("gspo", low, high), lp, l, A) == Catch::Approx(clipped).epsilon(1e-6));
      CHECK(token_loss(trl.rloo(low, high), lp, l, A) == Catch::Approx(clipped));
      const double even = std::max(-r * A, -std::clamp(r, 1 - low, 1 + low) * A);
      CHECK(token_loss(trl.ppo(low), lp, l, A) == Catch::Approx(even));
      CHECK(token_loss(presets::nemo_aligner().ppo(low), lp, l, A) == Catch::Approx(even));
    }
}

TEST_CASE("presets: every name reaches a formula") {
  const presets::trl trl;
  const presets::liger liger;
  const presets::verl verl;
  const presets::nemo_aligner nemo;
  const presets::pair_settings smoothed{.label_smoothing = 0.1};
  each_is_its_own(trl.dpo_losses, [&](std::string_view n) { return trl.dpo(n, smoothed); });
  each_is_its_own(liger.dpo_losses, [&](std::string_view n) { return liger.dpo(n, smoothed); });
  each_is_its_own(nemo.preference_losses, [&](std::string_view n) { return nemo.dpo(n); });
  each_is_its_own(trl.cpo_losses, [&](std::string_view n) { return trl.cpo(n); }, 1);  // AlphaPO is SimPO with an alpha
  each_is_its_own(trl.tpo_losses, [&](std::string_view n) { return trl.tpo(n); });
  each_is_its_own(trl.kto_losses, [&](std::string_view n) { return trl.kto(n); });
  // What tells these apart is the denominator: bnpo and dapo; dr_grpo and luspo.
  each_is_its_own(trl.grpo_losses, [&](std::string_view n) { return trl.grpo(n, {.epsilon_high = 1.2}); }, 2);
  each_is_its_own(verl.policy_losses, [&](std::string_view n) { return verl.policy_loss(n); }, 1);  // gpg is reinforce

  std::set<double> losses;
  for (const char* name : trl.dpo_losses) losses.insert(loss_of(trl.dpo(name, smoothed)));
  CHECK(losses.size() == std::size(trl.dpo_losses) - 1);  // of replies of one token, sigmoid_norm is sigmoid
  for (const char* name : nemo.preference_losses) CHECK(std::isfinite(loss_of(nemo.dpo(name))));
  for (const char* name : trl.grpo_losses) CHECK(std::isfinite(loss_of(trl.grpo(name, {.epsilon_high = 1.2}))));
  for (const char* name : verl.policy_losses) CHECK(std::isfinite(loss_of(verl.policy_loss(name))));
}

TEST_CASE("presets: levels, aggregations, divergences, KL estimators by name") {
  CHECK(presets::trl().grpo("grpo", {}, "sequence").options.level == surrogate_level::sequence_mean);
  CHECK(presets::trl().grpo("grpo", {}, "sequence_token").options.level == surrogate_level::sequence_token);
  CHECK(refusal([] { presets::trl().grpo("grpo", {}, "word"); }) ==
        "plumb: presets: importance_sampling_level: there is no `word`; there are token, sequence, sequence_token.");
  policy_loss_options o;
  presets::verl().aggregate(o, "seq-mean-token-mean");
  CHECK(o.aggregate == aggregation::sequence_mean);
  CHECK(o.length_epsilon == 1e-8);
  presets::verl().aggregate(o, "seq-mean-token-sum-norm");  // what divides by no length takes no epsilon
  CHECK(o.length_epsilon == 0);
  o.require("policy_loss");
  for (const bool token_level : {false, true}) {
    presets::openrlhf().aggregate(o, token_level);
    CHECK(o.length_epsilon == (token_level ? 0 : 1e-8));
    o.require("policy_loss");
  }
  CHECK(refusal([&] { presets::verl().aggregate(o, "mean"); }).find("seq-mean-token-sum-norm") != std::string::npos);
  for (const auto& [name, index] : {std::pair{"reverse_kl", 0u}, {"forward_kl", 1u}, {"js_divergence", 2u}, {"alpha_divergence", 3u}})
    CHECK(presets::trl().dpo("sigmoid", {}, name).divergence.index() == index);
  const auto k3 = presets::verl().kl_penalty("low_var_kl+");
  CHECK(k3.straight_through);
  CHECK(k3.estimator == kl_estimator::k3);
  CHECK(k3.limit == 10);
  CHECK(presets::openrlhf().approx_kl("k2").limit == 10);
  CHECK(presets::nemo_aligner().kl_penalty().estimator == kl_estimator::absolute);
  CHECK(presets::verl().importance("sequence").level == ratio_level::sequence_sum);
  presets::policy p = presets::verl().policy_loss("vanilla");
  presets::verl().aggregate(p, "seq-mean-token-sum");
  CHECK(p.options.aggregate == aggregation::sequence_sum);
  CHECK(presets::verl().value_loss(0.5, "seq-mean-token-mean").aggregate == aggregation::sequence_mean);
  CHECK(presets::trl().importance("token_mask").level == ratio_level::token);
  CHECK(presets::trl().importance("sequence_truncate").level == ratio_level::sequence_sum);
  auto k = presets::openrlhf().kl_controller(0.01, 0.1, 1000);
  k.update(0.11, 100);  // a tenth above its target
  CHECK(k.coefficient == Catch::Approx(0.01 * (1 + 0.1 * 100 / 1000)));
  k = presets::verl().kl_controller(0.01, 0.1, 1000);
  k.update(1, 100);  // an error counts for 0.2 at most
  CHECK(k.coefficient == Catch::Approx(0.01 * (1 + 0.2 * 100 / 1000)));
  CHECK(refusal([] { presets::openrlhf().policy_loss("cispo"); }) == "plumb: presets: openrlhf().policy_loss: there is no `cispo`; there are ppo, gspo.");
}

TEST_CASE("presets: what they are can be read, and compared") {
  CHECK(reflect::difference(presets::trl().ppo(), presets::verl().ppo()) ==
        "surrogate dual: 0 -> 3; options log_ratio_low: 0 -> 20, log_ratio_high: 0 -> 20");
  CHECK(reflect::difference(presets::trl().dpo("sigmoid"), presets::trl().dpo("hinge")) ==
        "link link::sigmoid{beta: 0.1, label_smoothing: 0, margin: 0} -> link::hinge{beta: 0.1, margin: 1}");
  CHECK(reflect::difference(presets::trl().dpo("ipo", {.beta = 0.2}), presets::trl().dpo("ipo")) == "link beta: 0.2 -> 0.1");
  CHECK(reflect::to_text(presets::trl().dpo("hinge", {}, "js_divergence")) ==
        "link::hinge{beta: 0.1, margin: 1}; divergence::js{drop_constant: true}; {score: sum, matching: given, reference_free: false, denominator: 0, "
        "weight: 1}");
  reflect::validate(presets::trl().dpo("hinge"));
  CHECK(refusal([] { reflect::validate(presets::trl().dpo("hinge", {.beta = -1})); }) ==
        "plumb: link::hinge: option `beta` is -1 but must be positive. Nothing was written.");
  CHECK(refusal([] { presets::trl().dpo("sft"); }) == "plumb: presets: trl().dpo: `sft` is `plumb::supervised` over the chosen replies, no loss of pairs.");
  CHECK(reflect::difference(presets::openrlhf().whitening(), presets::trl().whitening()) == "variance: biased -> unbiased, guard: floor -> add, unscored: zero -> transformed");
}

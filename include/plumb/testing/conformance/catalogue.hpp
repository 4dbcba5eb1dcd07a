#pragma once
// Level 9, continued: the rest of the catalogue on the backend, against the same call in double on the serial backend. What differs only by a
// functor is represented by one of its kind, what differs only by an option goes through one instantiation.

#include <plumb/testing/conformance/objectives.hpp>

PLUMB_NAMESPACE_BEGIN

namespace testing {
namespace detail {

template <class B>
class catalogue_checks : public objective_checks<B> {
 public:
  using objective_checks<B>::objective_checks;

  /// All levels.
  void run() {
    this->operations();
    this->contract();
    this->objectives();
    const auto runs = [this](const char* name, const auto& f) { this->check(9, name, [&] { this->runs("objective", f); }); };
    const auto each_storage_runs = [this](const char* name, const char* operation, const auto& f) {
      this->check(9, name, [&] { this->each_storage_runs(operation, f); });
    };
    runs("preference", [&](auto& run) { preference(run); });
    runs("preference.general_link", [&](auto& run) { preference_of_general_link(run); });
    runs("orpo", [&](auto& run) { orpo(run); });
    runs("kto", [&](auto& run) { kto(run); });
    runs("bco", [&](auto& run) { bco(run); });
    runs("policy_loss", [&](auto& run) { policy_loss(run); });
    runs("policy_loss.surrogates", [&](auto& run) { policy_loss_of_surrogates(run); });
    runs("value_loss", [&](auto& run) { value_loss(run); });
    runs("kl_penalty", [&](auto& run) { kl_penalty(run); });
    runs("token_rewards", [&](auto& run) { token_rewards(run); });
    runs("gae", [&](auto& run) { gae(run); });
    runs("returns", [&](auto& run) { returns(run); });
    runs("whiten", [&](auto& run) { whiten(run); });
    runs("group_advantage", [&](auto& run) { group_advantage(run); });
    runs("reinforce_plus_plus", [&](auto& run) { reinforce_plus_plus(run); });
    runs("optimal_token_baseline", [&](auto& run) { optimal_token_baseline(run); });
    runs("importance_weights", [&](auto& run) { importance_weights(run); });
    runs("reject_tokens", [&](auto& run) { reject_tokens(run); });
    runs("covariance_selection", [&](auto& run) { covariance_selection(run); });
    each_storage_runs("reward_head", "gradient", [&](auto& run, auto t) { reward_head(run, t); });
    runs("attribute_posterior", [&](auto& run) { attribute_posterior(run); });
    runs("steerlm2", [&](auto& run) { steerlm2(run); });
    runs("process_reward", [&](auto& run) { process_reward(run); });
    each_storage_runs("log_sum_squares", "objective", [&](auto& run, auto t) { log_sum_squares(run, t); });
    each_storage_runs("distillation", "objective", [&](auto& run, auto t) { distillation(run, t, distill::forward_kl{}); });
    each_storage_runs("distillation.jensen_shannon", "objective",
                      [&](auto& run, auto t) { distillation(run, t, distill::jensen_shannon{.beta = 0.3}); });
    this->level_done();
  }

 private:
  using suite<B>::normals;

  /// Sequences in the memory of one side.
  template <class Side>
  using placed_layout = placed_sequences<typename Side::space>;
  /// Groups of four, one and four replies, of which one does not count.
  static oracle::sequences groups() {
    return {.begin = {0, 4, 5}, .end = {4, 5, 9}, .scored = {1, 1, 1, 1, 1, 1, 0, 1, 1}, .tokens = 9};
  }
  static std::vector<double> magnitudes(std::vector<double> x) {
    for (double& v : x) v = std::abs(v);
    return x;
  }

  template <class Side>
  void preference(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(101, l.tokens, 1, -2)), ref = run.vector(normals(102, l.tokens, 1, -2)),
               token_weight = run.vector(normals(103, l.tokens, 0.2, 1)), margin = run.vector(normals(104, 4)),
               pair_weight = run.vector({0.5, 0, 1, 2});
    const auto chosen = run.template whole<std::int32_t>({0, 3, 4, 1}), rejected = run.template whole<std::int32_t>({1, 5, 0, 4});
    const preference_pairs<typename Side::space> pairs{where.layout(), chosen.in(), rejected.in()};
    for (const pair_matching matching : {pair_matching::given, pair_matching::ranked, pair_matching::ranked_margins}) {
      const auto loss = run.empty(1), d_logp = run.empty(l.tokens), pair_loss = run.empty(4);
      const auto metrics = run.empty(6, 2);
      auto scratch = run.scratch();
      const bool given = matching == pair_matching::given;
      plumb::preference(run.compute, scratch,
                        {.logp = logp.in(), .ref_logp = ref.in(), .pairs = pairs, .token_weight = token_weight.in(), .margin = margin.in(),
                         .pair_weight = given ? pair_weight.in() : decltype(pair_weight.in()){}},
                        link::sigmoid{.beta = 0.3, .label_smoothing = 0.1, .margin = 0.5}, {.matching = matching, .denominator = 4, .weight = 0.7},
                        {loss.view(), d_logp.view(), pair_loss.view(), metrics.view()});
      run.out(loss, d_logp, pair_loss);
      run.out_metrics(metrics);
    }
  }

  // Two scores with slopes of their own, which are a divergence's function of means.
  template <class Side>
  void preference_of_general_link(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(105, l.tokens, 1, -2)), ref = run.vector(normals(106, l.tokens, 1, -2));
    const auto chosen = run.template whole<std::int32_t>({0, 3, 4}), rejected = run.template whole<std::int32_t>({1, 5, 0});
    const auto loss = run.empty(1), d_logp = run.empty(l.tokens), pair_loss = run.empty(3);
    const auto metrics = run.empty(6, 2);
    auto scratch = run.scratch();
    plumb::preference(run.compute, scratch,
                      {.logp = logp.in(), .ref_logp = ref.in(), .pairs = {where.layout(), chosen.in(), rejected.in()}}, link::nca_pair{.beta = 0.5},
                      divergence::alpha{.coefficient = 0.6}, {.score = reply_score::mean, .denominator = 3},
                      {loss.view(), d_logp.view(), pair_loss.view(), metrics.view()});
    run.out(loss, d_logp, pair_loss);
    run.out_metrics(metrics);
  }

  template <class Side>
  void orpo(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(107, l.tokens, 0.5, -2));
    const auto chosen = run.template whole<std::int32_t>({0, 3, 4}), rejected = run.template whole<std::int32_t>({1, 4, 0});
    const auto loss = run.empty(1), d_logp = run.empty(l.tokens), pair_loss = run.empty(3);
    const auto metrics = run.empty(9, 2);
    auto scratch = run.scratch();
    plumb::orpo(run.compute, scratch, {logp.in(), {where.layout(), chosen.in(), rejected.in()}},
                {.beta = 0.3, .likelihood = {.weight = 0.5, .denominator = 20}, .denominator = 3},
                {loss.view(), d_logp.view(), pair_loss.view(), metrics.view()});
    run.out(loss, d_logp, pair_loss);
    run.out_metrics(metrics);
  }

  template <class Side>
  void kto(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(108, l.tokens, 1, -2)), ref = run.vector(normals(109, l.tokens, 1, -2.2)),
               weight = run.vector({1, 0.5, 2, 1, 0, 1});
    const auto desirable = run.template whole<std::uint8_t>({1, 0, 0, 1, 1, 0});
    const auto kl = run.empty(1), sums = run.empty(2), loss = run.empty(1), d_logp = run.empty(l.tokens), reply_loss = run.empty(6);
    const auto metrics = run.empty(5, 2);
    auto scratch = run.scratch();
    plumb::kto_kl(run.compute, scratch, {logp.in(), ref.in(), where.layout()}, {}, {.kl = kl.view(), .sums = sums.view()});
    plumb::kto(run.compute, scratch, {logp.in(), ref.in(), where.layout(), desirable.in(), kl.in(), weight.in()},
               {.beta = 0.3, .undesirable_weight = 1.3, .denominator = 6}, {loss.view(), d_logp.view(), reply_loss.view(), metrics.view()});
    run.out(kl, sums, loss, d_logp, reply_loss);
    run.out_metrics(metrics);
  }

  template <class Side>
  void bco(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(110, l.tokens, 1, -2)), ref = run.vector(normals(111, l.tokens, 1, -2));
    const auto desirable = run.template whole<std::uint8_t>({1, 0, 0, 1, 1, 0});
    const auto state = run.vector({5, 0.2, 3}), loss = run.empty(1), d_logp = run.empty(l.tokens), reply_loss = run.empty(6);
    const auto metrics = run.empty(5, 2);
    auto scratch = run.scratch();
    bco_inputs<typename Side::real, typename Side::space> in{.logp = logp.in(), .ref_logp = ref.in(), .sequences = where.layout()};
    const bco_options options{.beta = 0.3, .denominator = 6};
    plumb::bco_moments(run.compute, scratch, in, options, state.view());
    in.desirable = desirable.in();
    in.shift = state.in().slice(moments_mean, 1);
    plumb::bco(run.compute, scratch, in, options, {loss.view(), d_logp.view(), reply_loss.view(), metrics.view()});
    run.out(state, loss, d_logp, reply_loss);
    run.out_metrics(metrics);
  }

  /// Inputs of a policy loss.
  template <class Side>
  struct policy_batch {
    oracle::sequences l = ragged_sequences(true);
    placed_layout<Side> where;
    typename Side::template array<typename Side::real, 1> logp, old_logp, advantages, ref_logp, weights, entropy;

    policy_batch(const catalogue_checks& c, const Side& run)
        : where(l, placement::dense), logp(run.vector(c.normals(112, l.tokens, 0.5, -2))), old_logp(run.vector(c.normals(113, l.tokens, 0.5, -2))),
          advantages(run.vector(c.normals(114, l.tokens))), ref_logp(run.vector(c.normals(115, l.tokens, 0.5, -2))),
          weights(run.vector(c.normals(116, l.tokens, 0.2, 1))), entropy(run.vector(c.normals(117, l.tokens, 0.2, 2))) {}
  };
  template <class Side, class Surrogate>
  void policy_loss(Side& run, const policy_loss_inputs<typename Side::real, typename Side::space>& in, const Surrogate& surrogate,
                   const policy_loss_options& options) {
    const index_t n = in.logp.extent(0);
    const auto loss = run.empty(1), d_logp = run.empty(n), d_entropy = run.empty(n), token_loss = run.empty(n), clipped = run.empty(n);
    const auto metrics = run.empty(12, 2);
    auto scratch = run.scratch();
    plumb::policy_loss(run.compute, scratch, in, surrogate, options,
                       {loss.view(), d_logp.view(), in.entropy.given() ? d_entropy.view() : decltype(d_entropy.view()){}, token_loss.view(),
                        clipped.view(), metrics.view()});
    run.out(loss, d_logp, token_loss, clipped);
    if (in.entropy.given()) run.out(d_entropy);
    run.out_metrics(metrics);
  }
  // PPO per token with both regularisers, and the same surrogate of whole sequences (GSPO) with what a sampler's correction gives.
  template <class Side>
  void policy_loss(Side& run) {
    const policy_batch<Side> x(*this, run);
    const auto of_sequences = run.vector(normals(118, 6));
    policy_loss(run,
                {.logp = x.logp.in(), .old_logp = x.old_logp.in(), .advantages = x.advantages.in(), .ref_logp = x.ref_logp.in(),
                 .kl_weights = x.weights.in(), .entropy = x.entropy.in(), .sequences = x.where.layout()},
                surrogate::clip{.dual = 3}, {.kl_coefficient = 0.1, .kl_times_ratio = true, .entropy_coefficient = 0.05, .denominator = 30});
    policy_loss(run,
                {.logp = x.logp.in(), .old_logp = x.old_logp.in(), .sequence_advantages = of_sequences.in(), .importance_weights = x.weights.in(),
                 .sequences = x.where.layout()},
                surrogate::clip{.low = 0.01, .high = 0.02},
                {.level = surrogate_level::sequence_mean, .aggregate = aggregation::sequence_mean, .denominator = 6});
  }
  template <class Side>
  void policy_loss_of_surrogates(Side& run) {
    const policy_batch<Side> x(*this, run);
    const policy_loss_inputs<typename Side::real, typename Side::space> in{
        .logp = x.logp.in(), .old_logp = x.old_logp.in(), .advantages = x.advantages.in(), .sequences = x.where.layout()};
    policy_loss(run, in, surrogate::cispo{}, {.denominator = 30});
    policy_loss(run, in, surrogate::gmpo{}, {.aggregate = aggregation::sequence_mean, .denominator = 6});
  }

  template <class Side>
  void value_loss(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto values = run.vector(normals(119, l.tokens)), old_values = run.vector(normals(120, l.tokens)),
               returns = run.vector(normals(121, l.tokens));
    const auto loss = run.empty(1), d_values = run.empty(l.tokens);
    const auto metrics = run.empty(6, 2);
    auto scratch = run.scratch();
    plumb::value_loss(run.compute, scratch, {values.in(), old_values.in(), returns.in(), where.layout()}, {.clip_range = 0.3, .denominator = 30},
                      {loss.view(), d_values.view(), metrics.view()});
    run.out(loss, d_values);
    run.out_metrics(metrics);
  }

  template <class Side>
  void kl_penalty(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(122, l.tokens, 0.5, -2)), ref = run.vector(normals(123, l.tokens, 0.5, -2));
    const auto loss = run.empty(1), d_logp = run.empty(l.tokens), kl = run.empty(l.tokens);
    const auto metrics = run.empty(2, 2);
    auto scratch = run.scratch();
    plumb::kl_penalty(run.compute, scratch, {logp.in(), ref.in(), where.layout()}, {.aggregate = aggregation::sequence_mean, .denominator = 6},
                      {loss.view(), d_logp.view(), kl.view(), metrics.view()});
    run.out(loss, d_logp, kl);
    run.out_metrics(metrics);
  }

  template <class Side>
  void token_rewards(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto kl = run.vector(normals(124, l.tokens)), score = run.vector(normals(125, 6, 3));
    const auto ended = run.template whole<std::uint8_t>({1, 0, 1, 1, 0, 1});
    for (const score_placement p : {score_placement::last_scored, score_placement::after_last}) {
      const auto rewards = run.empty(l.tokens), scores = run.empty(6);
      auto scratch = run.scratch();
      plumb::token_rewards(run.compute, scratch, {kl.in(), score.in(), ended.in(), where.layout()},
                           {.kl_coefficient = 0.1, .placement = p, .unfinished_scale = 0.5, .unfinished_offset = -1, .score_min = -2, .score_max = 2},
                           {.rewards = rewards.view(), .scores = scores.view()});
      run.out(rewards, scores);
    }
  }

  /// A trajectory and what a backward pass asks for.
  template <class Side>
  struct trajectory {
    oracle::sequences l = ragged_sequences(true);
    placed_layout<Side> where;
    typename Side::template array<typename Side::real, 1> rewards, values, discounts, lambdas, bootstrap, log_ratio;

    trajectory(const catalogue_checks& c, const Side& run)
        : where(l, placement::dense), rewards(run.vector(c.normals(126, l.tokens))), values(run.vector(c.normals(127, l.tokens))),
          discounts(run.vector(c.normals(128, l.tokens, 0.02, 0.9))), lambdas(run.vector(c.normals(129, l.tokens, 0.02, 0.9))),
          bootstrap(run.vector(c.normals(130, 6))), log_ratio(run.vector(c.normals(131, l.tokens, 0.5))) {}
  };
  template <class Side>
  void gae(Side& run) {
    const trajectory<Side> x(*this, run);
    const index_t n = x.l.tokens;
    std::vector<double> begin, end;
    for (std::size_t s = 0; s < x.l.begin.size(); ++s) {
      begin.push_back(static_cast<double>(n) - x.l.end[s]);
      end.push_back(static_cast<double>(n) - x.l.begin[s]);
    }
    const auto mirrored_begin = run.template whole<std::int32_t>(begin), mirrored_end = run.template whole<std::int32_t>(end);
    const auto d_advantages = run.vector(normals(132, n));
    for (const bool own_lambdas : {false, true}) {
      const auto advantages = run.empty(n), returns = run.empty(n), d_rewards = run.empty(n), d_values = run.empty(n), d_bootstrap = run.empty(6);
      const auto lambdas = own_lambdas ? x.lambdas.in() : decltype(x.lambdas.in()){};
      auto scratch = run.scratch();
      plumb::gae(run.compute, scratch,
                 {.rewards = x.rewards.in(), .values = x.values.in(), .bootstrap = x.bootstrap.in(), .discounts = x.discounts.in(),
                  .lambdas = lambdas, .sequences = x.where.layout()},
                 {.gamma = 0.95, .lambda = 0.9}, {advantages.view(), returns.view()});
      plumb::gae_backward(run.compute, scratch,
                          {.d_advantages = d_advantages.in(), .discounts = x.discounts.in(), .lambdas = lambdas, .sequences = x.where.layout(),
                           .mirrored_begin = mirrored_begin.in(), .mirrored_end = mirrored_end.in()},
                          {.gamma = 0.95, .lambda = 0.9}, {d_rewards.view(), d_values.view(), d_bootstrap.view()});
      run.out(advantages, returns, d_rewards, d_values, d_bootstrap);
    }
  }
  template <class Side>
  void returns(Side& run) {
    const trajectory<Side> x(*this, run);
    const index_t n = x.l.tokens;
    const auto n_steps = run.empty(n), errors = run.empty(n), targets = run.empty(n), advantages = run.empty(n), q = run.empty(n);
    auto scratch = run.scratch();
    plumb::n_step_returns(run.compute, scratch,
                          {.rewards = x.rewards.in(), .values = x.values.in(), .bootstrap = x.bootstrap.in(), .sequences = x.where.layout()},
                          {.gamma = 0.9, .steps = 3}, {n_steps.view()});
    plumb::vtrace(run.compute, scratch,
                  {.rewards = x.rewards.in(), .values = x.values.in(), .bootstrap = x.bootstrap.in(), .log_ratio = x.log_ratio.in(),
                   .sequences = x.where.layout()},
                  {.gamma = 0.9, .lambda = 0.8}, {errors.view(), targets.view(), advantages.view(), q.view()});
    run.out(n_steps, errors, targets, advantages, q);
  }

  template <class Side>
  void whiten(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto values = run.vector(normals(133, l.tokens, 2, 1));
    for (const unscored_values unscored : {unscored_values::zero, unscored_values::transformed}) {
      const auto whitened = run.empty(l.tokens), mean = run.empty(1), variance = run.empty(1);
      auto scratch = run.scratch();
      plumb::whiten(run.compute, scratch, {values.in(), where.layout()}, {.variance = variance_estimator::unbiased, .unscored = unscored},
                    {whitened.view(), mean.view(), variance.view()});
      run.out(whitened, mean, variance);
    }
  }

  template <class Side>
  void group_advantage(Side& run) {
    const placed_layout<Side> where(groups(), placement::dense);
    const auto rewards = run.vector(normals(134, 9));
    const auto of = [&](const auto& formula) {
      const auto advantage = run.empty(9), mean = run.empty(3), sd = run.empty(3);
      auto scratch = run.scratch();
      plumb::group_advantage(run.compute, scratch, {rewards.in(), where.layout()}, formula, {advantage.view(), mean.view(), sd.view()});
      run.out(advantage, mean, sd);
    };
    of(advantage::grpo{});
    of(advantage::rloo{});
  }

  template <class Side>
  void reinforce_plus_plus(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto rewards = run.vector(normals(135, l.tokens));
    const auto advantage = run.empty(l.tokens), returns = run.empty(l.tokens);
    auto scratch = run.scratch();
    plumb::reinforce_plus_plus(run.compute, scratch, {rewards.in(), where.layout()}, {.gamma = 0.9}, {advantage.view(), returns.view()});
    run.out(advantage, returns);
  }

  template <class Side>
  void optimal_token_baseline(Side& run) {
    constexpr index_t cells = 11;
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto rewards = run.vector(normals(136, l.tokens)), logp = run.vector(normals(137, l.tokens, 0.5, -2)),
               sum_p_squared = run.vector(magnitudes(normals(138, l.tokens, 0.2)));
    const auto of = run.template whole<std::int32_t>(this->ids(139, l.tokens, cells));
    const auto advantage = run.empty(l.tokens), returns = run.empty(l.tokens);
    auto scratch = run.scratch();
    plumb::optimal_token_baseline(
        run.compute, scratch,
        {.rewards = rewards.in(), .logp = logp.in(), .sum_p_squared = sum_p_squared.in(), .cells = of.in(), .sequences = where.layout()}, cells, {},
        {advantage.view(), returns.view()});
    run.out(advantage, returns);
  }

  template <class Side>
  void importance_weights(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(140, l.tokens, 0.5, -2)), sampler = run.vector(normals(141, l.tokens, 0.5, -2));
    for (const ratio_level level : {ratio_level::token, ratio_level::sequence_mean}) {
      const auto weights = run.empty(l.tokens);
      const auto metrics = run.empty(5, 2);
      auto scratch = run.scratch();
      plumb::importance_weights(run.compute, scratch, {.logp = logp.in(), .sampler_logp = sampler.in(), .sequences = where.layout()},
                                correction::truncated{.upper = 1.2}, {.level = level, .normalize = true}, {weights.view(), metrics.view()});
      run.out(weights);
      run.out_metrics(metrics);
    }
  }

  // The mask is bytes: what the next objective takes as `scored`.
  template <class Side>
  void reject_tokens(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(142, l.tokens, 0.5, -2)), sampler = run.vector(normals(143, l.tokens, 0.5, -2));
    auto some = std::vector<double>(static_cast<std::size_t>(l.tokens), 1);
    some[3] = some[21] = 0;
    const auto kept = run.template whole<std::uint8_t>(some);
    for (const ratio_level level : {ratio_level::token, ratio_level::sequence_any}) {
      const typename Side::template array<std::uint8_t, 1> scored({l.tokens}, placement::dense);
      const auto metrics = run.empty(5, 2);
      auto scratch = run.scratch();
      plumb::reject_tokens(run.compute, scratch, {logp.in(), sampler.in(), kept.in(), where.layout()}, rejection::k3{.upper = 0.6}, {.level = level},
                           {scored.view(), metrics.view()});
      run.out(scored);
      run.out_metrics(metrics);
    }
  }

  template <class Side>
  void covariance_selection(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> where(l, placement::dense);
    const auto logp = run.vector(normals(144, l.tokens, 0.5, -2)), advantages = run.vector(normals(145, l.tokens));
    const auto chosen = run.empty(l.tokens), rest = run.empty(l.tokens), covariance = run.empty(l.tokens);
    auto scratch = run.scratch();
    plumb::covariance_selection(run.compute, scratch, {.logp = logp.in(), .advantages = advantages.in(), .sequences = where.layout()}, {.count = 5},
                                {chosen.view(), rest.view(), covariance.view()});
    run.out(chosen, rest, covariance);
  }

  template <class Side, class T>
  void reward_head(Side& run, std::type_identity<T> t) {
    using S = typename Side::template storage<T>;
    constexpr index_t n = 9, d = 16, k = 3;
    constexpr auto round = suite<B>::template round_to<T>;
    const typename Side::template array<S, 2> hidden({n, d}, placement::dense, this->rounded_normals(146, n * d, 1, round)),
        head({k, d}, placement::dense, this->rounded_normals(147, k * d, 1, round)), d_hidden({n, d}, placement::dense);
    const typename Side::template array<S, 1> bias({k}, placement::dense, this->rounded_normals(148, k, 1, round));
    const auto weights = run.vector({0.65, 0.8, -0.4});
    const auto rows = run.template whole<std::int32_t>({0, 2, 3, 7, -1});
    const placed_layout<Side> where({.begin = {0, 4}, .end = {4, 9}, .scored = {1, 0, 1, 1, 1, 0, 0, 1, 1}, .tokens = n}, placement::dense);
    for (const bool pooled : {false, true}) {
      const index_t r = pooled ? 2 : 5;
      reward_head_inputs<S, typename Side::real, typename Side::space> in{.hidden = hidden.in(), .head = head.in(), .bias = bias.in()};
      if (pooled) {
        in.sequences = where.layout();
      } else {
        in.rows = rows.in();
      }
      in.attribute_weights = weights.in();
      const auto reward = run.empty(r), d_bias = run.empty(k), d_reward = run.vector(normals(149, r));
      const auto attributes = run.empty(r, k), d_head = run.empty(k, d);
      const reward_head_options options{.mean = 1, .standard_deviation = 2, .chunk_rows = 4};
      auto scratch = run.scratch();
      plumb::reward_head(run.compute, scratch, in, options, {reward.view(), attributes.view()});
      plumb::reward_head_backward(run.compute, scratch, in, options, {.d_reward = d_reward.in()}, {d_hidden.view(), d_head.view(), d_bias.view()});
      run.out(reward, attributes, d_bias);
      run.out_through(t, d_hidden, d_head);
    }
  }

  template <class Side>
  void attribute_posterior(Side& run) {
    constexpr index_t n = 7, k = 3;
    auto level = this->ids(150, n * k, 5, 0);
    level[4] = level[13] = -100;
    const auto prediction = run.template in<2>({n, k}, normals(151, n * k, 1.2, 2)), asked = run.template in<2>({n, k}, level);
    for (const bin_edges edges : {bin_edges::equal, bin_edges::rounding}) {
      const auto log_p = run.empty(n);
      const auto each = run.empty(n, k);
      auto scratch = run.scratch();
      plumb::attribute_posterior(run.compute, scratch, {prediction.in(), asked.in()}, {.edges = edges}, {log_p.view(), each.view()});
      run.out(log_p, each);
    }
  }

  template <class Side>
  void steerlm2(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_layout<Side> replies(l, placement::dense);
    const placed_layout<Side> prompts({.begin = {0, 3}, .end = {3, 6}, .scored = {1, 1, 0, 1, 1, 1}, .tokens = 6}, placement::dense);
    const auto logp = run.vector(normals(152, l.tokens, 0.3, -0.5)), log_q = run.vector(normals(153, 6, 1, -3)),
               log_p_reply = run.vector(normals(154, 6, 1, -3)), log_p_attributes = run.vector(normals(155, 6, 1, -2));
    const auto weight = run.empty(6), log_weight = run.empty(6), samples = run.empty(2);
    auto scratch = run.scratch();
    plumb::steerlm2_weights(run.compute, scratch, {log_p_attributes.in(), log_p_reply.in(), log_q.in(), prompts.layout()},
                            {weight.view(), log_weight.view(), samples.view()});
    run.out(weight, log_weight, samples);
    for (const steerlm2_value value : {steerlm2_value::listwise, steerlm2_value::coefficients}) {
      const auto loss = run.empty(1), d_logp = run.empty(l.tokens), baseline = run.empty(6), coefficient = run.empty(6);
      const auto metrics = run.empty(4, 2);
      plumb::steerlm2(run.compute, scratch, {logp.in(), replies.layout(), log_q.in(), weight.in(), prompts.layout()},
                      {.value = value, .per_token = value == steerlm2_value::coefficients, .denominator = 2},
                      {loss.view(), d_logp.view(), baseline.view(), coefficient.view(), metrics.view()});
      run.out(loss, d_logp, baseline, coefficient);
      run.out_metrics(metrics);
    }
  }

  template <class Side>
  void process_reward(Side& run) {
    constexpr index_t m = 7;
    const auto good = run.vector(normals(156, m, 2)), bad = run.vector(normals(157, m, 2)), label = run.vector({1, 0, -100, 0.3, 1, 1, 0});
    const auto loss = run.empty(1), d_good = run.empty(m), d_bad = run.empty(m), step_loss = run.empty(m);
    const auto metrics = run.empty(2, 2);
    auto scratch = run.scratch();
    plumb::process_reward(run.compute, scratch, {good.in(), bad.in(), label.in()}, {.denominator = 6},
                          {loss.view(), d_good.view(), d_bad.view(), step_loss.view(), metrics.view()});
    run.out(loss, d_good, d_bad, step_loss);
    run.out_metrics(metrics);
  }

  template <class Side, class T>
  void log_sum_squares(Side& run, std::type_identity<T>) {
    using S = typename Side::template storage<T>;
    constexpr index_t n = 6, v = 37;
    const typename Side::template array<S, 2> logits({n, v}, placement::padded, this->rounded_normals(158, n * v, 3, suite<B>::template round_to<T>)),
        d_logits({n, v}, placement::padded);
    const auto sum = run.empty(n), lse = run.empty(n), twice = run.empty(n), d_sum = run.vector(normals(159, n));
    const token_logp_options options{.temperature = 0.8};
    auto scratch = run.scratch();
    plumb::log_sum_squares(run.compute, scratch, logits.in(), options, {sum.view(), lse.view(), twice.view()});
    plumb::log_sum_squares_backward(run.compute, logits.in(), options, {lse.in(), twice.in(), d_sum.in()}, d_logits.view());
    run.out(sum, lse, twice, d_logits);
  }

  // Of the teacher's logits, and of a list: renormalised, and with the rest as one token.
  template <class Side, class T, class D>
  void distillation(Side& run, std::type_identity<T>, const D& divergence) {
    using S = typename Side::template storage<T>;
    constexpr index_t n = 6, v = 37, k = 4;
    constexpr auto round = suite<B>::template round_to<T>;
    const typename Side::template array<S, 2> logits({n, v}, placement::padded, this->rounded_normals(160, n * v, 2, round)),
        teacher({n, v}, placement::dense, this->rounded_normals(161, n * v, 2, round)), d_logits({n, v}, placement::padded);
    const placed_layout<Side> where({.begin = {0, 4}, .end = {4, 6}, .scored = {1, 0, 1, 1, 1, 1}, .tokens = n}, placement::dense);
    const auto weights = run.vector({1, 1, 0.5, 2, 0, 1});
    std::vector<double> listed;
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < k; ++j) listed.push_back(i == 3 && j == 2 ? -1.0 : static_cast<double>((5 * i + 7 * j) % v));
    auto of_list = magnitudes(normals(162, n * k, 0.5));
    for (double& x : of_list) x = -2 - x;
    const typename Side::template array<std::int32_t, 2> ids({n, k}, placement::dense, listed);
    const auto logp = run.template in<2>({n, k}, of_list);
    const auto go = [&](distillation_inputs<typename Side::real, S, S, typename Side::space> in, const distillation_options& options) {
      in.logits = logits.in();
      in.sequences = where.layout();
      in.weights = weights.in();
      const auto loss = run.empty(1), row_loss = run.empty(n);
      const auto metrics = run.empty(2, 2);
      auto scratch = run.scratch();
      plumb::distillation(run.compute, scratch, in, divergence, options, {loss.view(), row_loss.view(), d_logits.view(), metrics.view()});
      run.out(loss, row_loss, d_logits);
      run.out_metrics(metrics);
    };
    go({.teacher_logits = teacher.in()}, {.temperature = 0.8, .temperature_squared = true, .denominator = 5, .chunk_rows = 4});
    for (const topk_rest rest : {topk_rest::renormalize, topk_rest::one_token})
      go({.teacher_ids = ids.in(), .teacher_logp = logp.in()}, {.rest = rest, .denominator = 5});
  }
};

}  // namespace detail
}  // namespace testing

PLUMB_NAMESPACE_END

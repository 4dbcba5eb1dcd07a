// From a rollout's numbers to advantages: against the parts put together by hand, and against exact values of small worlds.
#include "support/near.hpp"
#include "support/ranks.hpp"
#include "support/tabular_models.hpp"

#include <plumb/ops/rollout_advantages.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

using numbers = std::vector<double>;

numbers normals(std::size_t n, std::uint64_t stream) {
  numbers x;
  for (std::size_t i = 0; i < n; ++i) x.push_back(random_stream{17, stream}.normal(i));
  return x;
}

// Six replies of uneven lengths, one of them empty, two cut off; prompts in no order, one of them with one reply.
struct batch {
  std::vector<std::int32_t> own{0, 3, 3, 8, 9, 11, 15}, prompt{4, 1, 4, 1, 4, 9};
  numbers logp = normals(15, 1), ref_logp = normals(15, 2), values = normals(15, 3), score = normals(6, 4), bootstrap{0, 0, 0.7, 0, -1.1, 0};
  std::vector<std::uint8_t> ended{1, 1, 0, 1, 0, 1};
  prompt_groups groups = group_by_prompt(prompt);
  sequence_layout<> layout() const { return sequence_layout<>::packed(own); }
  rollout_advantages_inputs<double> with_values() const {
    return {.logp = logp, .ref_logp = ref_logp, .score = score, .ended = ended, .values = values, .bootstrap = bootstrap, .sequences = layout()};
  }
  rollout_advantages_inputs<double> with_groups() const {
    return {.logp = logp, .ref_logp = ref_logp, .score = score, .ended = ended, .sequences = layout(), .groups = groups.layout(),
            .order = groups.order, .place = groups.place};
  }
};
const rollout_advantages_options penalised{.rewards = {.kl_coefficient = 0.3, .unfinished_scale = 1, .unfinished_offset = -0.5, .score_max = 1}};

struct result {
  numbers advantages, returns, kl, scores;
};
template <class Advantage>
result run(const rollout_advantages_inputs<double>& in, const Advantage& advantage, const rollout_advantages_options& options = penalised) {
  desk<double> d;
  const std::size_t n = static_cast<std::size_t>(in.logp.extent(0)), s = static_cast<std::size_t>(in.sequences.sequences());
  result r{numbers(n, -7), numbers(needs_critic<Advantage> ? n : 0, -7), numbers(n, -7), numbers(s, -7)};
  rollout_advantages_outputs<double> out{.advantages = r.advantages, .kl = r.kl, .scores = r.scores};
  if constexpr (needs_critic<Advantage>) out.returns = r.returns;
  std::vector<char> memory(rollout_advantages_workspace(d.compute, in));  // to the byte
  arena<> scratch{memory};
  rollout_advantages(d.compute, scratch, in, advantage, options, out);
  // Outputs that are not asked for change nothing.
  numbers alone(n);
  rollout_advantages(d.compute, scratch, in, advantage, options, {.advantages = alone});
  CHECK(alone == r.advantages);
  return r;
}

// Scores as they land, rewards per token, one number per reply, all by plain loops.
struct by_hand {
  numbers scores, kl, rewards, reply;
  explicit by_hand(const batch& b, bool bootstrapped = false, double coefficient = 0.3) {
    for (std::size_t s = 0; s < 6; ++s) {
      scores.push_back(std::min(1.0, b.ended[s] ? b.score[s] : (bootstrapped ? 0 : b.score[s]) - 0.5));
      double total = 0;
      for (auto t = static_cast<std::size_t>(b.own[s]); t < static_cast<std::size_t>(b.own[s + 1]); ++t) {
        kl.push_back(b.logp[t] - b.ref_logp[t]);
        rewards.push_back(-coefficient * kl.back() + (t + 1 == static_cast<std::size_t>(b.own[s + 1]) ? scores[s] : 0));
        total += kl.back();
      }
      reply.push_back(scores[s] - coefficient * total);
    }
  }
};

numbers whitened(numbers x) {
  double mean = 0, variance = 0;
  for (const double v : x) mean += v / static_cast<double>(x.size());
  for (const double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
  for (double& v : x) v = (v - mean) / std::sqrt(variance + 1e-8);
  return x;
}

}  // namespace

TEST_CASE("rollout advantages: gae of rewards per token, bootstrapped where a reply was cut off, then whitened") {
  const batch b;
  const by_hand want(b, true);
  for (const bool whiten_rewards : {false, true})
    for (const bool whiten_advantages : {false, true}) {
      const advantage::gae how{.gamma = 0.9, .lambda = 0.8, .whiten = whiten_advantages, .whiten_rewards = whiten_rewards};
      const result got = run(b.with_values(), how);
      CHECK(near(got.kl, want.kl));
      CHECK(near(got.scores, want.scores));
      numbers rewards = want.rewards;
      if (whiten_rewards) {  // the mean is kept
        const numbers shifted = whitened(rewards);
        double mean = 0;
        for (const double r : rewards) mean += r / 15;
        for (std::size_t t = 0; t < 15; ++t) rewards[t] = shifted[t] + mean;
      }
      numbers advantages(15), returns(15);
      for (std::size_t s = 0; s < 6; ++s) {
        double next_value = b.bootstrap[s], next = 0;
        for (auto t = static_cast<std::size_t>(b.own[s + 1]); t-- > static_cast<std::size_t>(b.own[s]);) {
          next = rewards[t] + 0.9 * next_value - b.values[t] + 0.9 * 0.8 * next;
          next_value = b.values[t];
          advantages[t] = next;
          returns[t] = next + b.values[t];
        }
      }
      CHECK(near(got.returns, returns));
      CHECK(near(got.advantages, whiten_advantages ? whitened(advantages) : advantages));
    }
}

TEST_CASE("rollout advantages: a bootstrap stands in for the score of a reply that was cut off, a penalty stays") {
  batch b;
  auto in = b.with_values();
  const advantage::gae how{.lambda = 1, .whiten = false};
  const result want = run(in, how);
  const result scaled = run(in, how, {.rewards = {.kl_coefficient = 0.3, .unfinished_scale = 7, .unfinished_offset = -0.5, .score_max = 1}});
  CHECK(scaled.advantages == want.advantages);
  b.score[2] = 1e6, b.score[4] = std::nan("");
  const result got = run(b.with_values(), how);
  CHECK(got.advantages == want.advantages);
  CHECK(got.returns == want.returns);
  CHECK(got.scores[2] == -0.5);
  CHECK(got.scores[4] == -0.5);
  // Without one the score counts.
  b.score[4] = 3;
  in = b.with_values();
  in.bootstrap = {};
  const result kept = run(in, how, {});
  CHECK(kept.returns[10] == Catch::Approx(3));
  CHECK(kept.scores[2] == 1e6);
}

TEST_CASE("rollout advantages: formulas of one reward per reply take the score less the reply's KL, whatever the order of the replies") {
  const batch b;
  const by_hand want(b);
  const auto of_groups = [&](auto formula) {
    numbers y(6);
    for (std::size_t s = 0; s < 6; ++s) {
      numbers group;
      for (std::size_t o = 0; o < 6; ++o)
        if (b.prompt[o] == b.prompt[s]) group.push_back(want.reply[o]);  // the empty reply counts
      y[s] = formula(group, want.reply[s]);
    }
    numbers tokens;
    for (std::size_t s = 0; s < 6; ++s) tokens.insert(tokens.end(), static_cast<std::size_t>(b.own[s + 1] - b.own[s]), y[s]);
    return tokens;
  };
  const auto mean = [](const numbers& g) {
    double y = 0;
    for (const double x : g) y += x / static_cast<double>(g.size());
    return y;
  };
  const auto sd = [&](const numbers& g) {
    double y = 0;
    for (const double x : g) y += (x - mean(g)) * (x - mean(g)) / static_cast<double>(g.size() - 1);
    return std::sqrt(y);
  };
  CHECK(near(run(b.with_groups(), advantage::grpo{.epsilon = 1e-4}).advantages,
             of_groups([&](const numbers& g, double r) { return g.size() > 1 ? (r - mean(g)) / (sd(g) + 1e-4) : 0; })));
  const auto rloo = of_groups([&](const numbers& g, double r) {
    const double n = static_cast<double>(g.size());
    return n > 1 ? n / (n - 1) * (r - mean(g)) : 0;
  });
  CHECK(near(run(b.with_groups(), advantage::rloo{}).advantages, rloo));
  const auto centered = of_groups([&](const numbers& g, double r) { return r - mean(g); });
  CHECK(near(run(b.with_groups(), advantage::centered{}).advantages, centered));
  CHECK(near(run(b.with_groups(), advantage::reinforce_plus_plus_baseline{}).advantages, whitened(centered)));
  // A reply that is alone may keep its reward.
  const auto kept = run(b.with_groups(), advantage::rloo{.alone = advantage::lone_reply::reward}).advantages;
  CHECK(kept[14] == Catch::Approx(want.reply[5]));

  // Replies of a prompt side by side need no order.
  batch sorted = b;
  sorted.prompt = {1, 1, 1, 4, 4, 9};
  sorted.groups = group_by_prompt(sorted.prompt);
  auto in = sorted.with_groups();
  const auto with_order = run(in, advantage::grpo{}).advantages;
  in.order = in.place = {};
  CHECK(run(in, advantage::grpo{}).advantages == with_order);
}

TEST_CASE("rollout advantages: REINFORCE++ whitens discounted sums of rewards per token") {
  const batch b;
  const by_hand want(b);
  numbers sums(15);
  for (std::size_t s = 0; s < 6; ++s) {
    double next = 0;
    for (auto t = static_cast<std::size_t>(b.own[s + 1]); t-- > static_cast<std::size_t>(b.own[s]);) sums[t] = next = want.rewards[t] + 0.9 * next;
  }
  CHECK(near(run(b.with_groups(), advantage::reinforce_plus_plus{.gamma = 0.9}).advantages, whitened(sums)));
}

TEST_CASE("rollout advantages: nothing to tell replies apart gives 0, not a division by it") {
  batch b;
  b.score.assign(6, 2.5);
  b.ended.assign(6, 1);
  const rollout_advantages_options plain{};
  for (const double a : run(b.with_groups(), advantage::grpo{}, plain).advantages) CHECK(a == 0);
  for (const double a : run(b.with_groups(), advantage::rloo{}, plain).advantages) CHECK(a == 0);
  for (const double a : run(b.with_groups(), advantage::reinforce_plus_plus_baseline{}, plain).advantages) CHECK(a == 0);
  for (const double a : run(b.with_groups(), advantage::reinforce_plus_plus{}, plain).advantages) CHECK(std::abs(a) < 1e-6);
  // One token of one reply.
  const std::vector<std::int32_t> own{0, 1};
  const numbers one{-1}, score{3}, value{0.5};
  const rollout_advantages_inputs<double> in{.logp = one, .score = score, .values = value, .sequences = sequence_layout<>::packed(own)};
  const auto got = run(in, advantage::gae{}, plain);
  CHECK(got.advantages[0] == 0);
  CHECK(got.returns[0] == 3);
  CHECK(got.kl[0] == 0);
}

TEST_CASE("rollout advantages: what no sequence names or scores does not exist") {
  const batch b;
  const advantage::gae how{.whiten_rewards = true};
  const result want = run(b.with_values(), how);
  // The same replies behind prompts that are left unscored and hold NaN.
  numbers logp, ref_logp, values;
  std::vector<std::int32_t> begin, end;
  std::vector<std::uint8_t> scored;
  std::vector<std::size_t> place;
  for (std::size_t s = 0; s < 6; ++s) {
    begin.push_back(static_cast<std::int32_t>(logp.size()));
    const auto add = [&](double x, double y, double v, bool counts) {
      logp.push_back(x), ref_logp.push_back(y), values.push_back(v), scored.push_back(counts);
    };
    for (std::size_t k = 0; k <= s; ++k) add(std::nan(""), std::nan(""), std::nan(""), false);
    for (auto t = static_cast<std::size_t>(b.own[s]); t < static_cast<std::size_t>(b.own[s + 1]); ++t) {
      place.push_back(logp.size());
      add(b.logp[t], b.ref_logp[t], b.values[t], true);
    }
    end.push_back(static_cast<std::int32_t>(logp.size()));
    add(std::nan(""), 1e300, std::nan(""), false);  // between the replies
  }
  const rollout_advantages_inputs<double> in{.logp = logp, .ref_logp = ref_logp, .score = b.score, .ended = b.ended, .values = values,
                                             .bootstrap = b.bootstrap, .sequences = {begin, end, scored}};
  const result got = run(in, how);
  for (std::size_t t = 0; t < place.size(); ++t) {
    CHECK(got.advantages[place[t]] == Catch::Approx(want.advantages[t]).epsilon(1e-12));
    CHECK(got.returns[place[t]] == Catch::Approx(want.returns[t]).epsilon(1e-12));
  }
  for (std::size_t t = 0; t < scored.size(); ++t)
    if (!scored[t]) CHECK((got.advantages[t] == 0 && got.kl[t] == 0));
}

TEST_CASE("rollout advantages: two ranks whiten as one") {
  const batch b;
  const numbers want = run(b.with_values(), advantage::gae{.whiten_rewards = true}).advantages;
  thread_ranks<double> ranks(2);
  numbers got(15);
  ranks.run([&](auto& me) {
    const std::size_t first = me.rank == 0 ? 0 : 3, count = 3, from = me.rank == 0 ? 0 : 8, tokens = me.rank == 0 ? 8 : 7;
    std::vector<std::int32_t> own;
    for (std::size_t s = first; s <= first + count; ++s) own.push_back(b.own[s] - b.own[first]);
    desk<double> d;
    const auto part = [&](const numbers& x) { return view<const double, 1>(x).slice(static_cast<index_t>(from), static_cast<index_t>(tokens)); };
    const auto of_replies = [&](const auto& x) { return view(x.data() + first, 3); };
    rollout_advantages(d.compute, d.scratch, me,
                       {.logp = part(b.logp), .ref_logp = part(b.ref_logp), .score = of_replies(b.score), .ended = of_replies(b.ended),
                        .values = part(b.values), .bootstrap = of_replies(b.bootstrap), .sequences = sequence_layout<>::packed(own)},
                       advantage::gae{.whiten_rewards = true}, penalised,
                       {.advantages = view<double, 1>(got).slice(static_cast<index_t>(from), static_cast<index_t>(tokens))});
  });
  CHECK(near(got, want));
}

TEST_CASE("rollout advantages: with the exact critic, gae at lambda 0 is the exact advantage of each token") {
  tabular_policy<double> policy(3);
  const auto score = hashed_score<double>();
  auto all = all_replies(policy, {.tokens = {1}, .prompt_tokens = 1}, 2, 4);
  const auto scores = score.reward(all);
  // Exact values: the mean over the replies that go on from a beginning.
  const auto p = text_logp(all, all.logp);
  std::map<ids, double> weight, value;
  for (index_t s = 0; s < all.size(); ++s) {
    const auto text = all.text_of(s);
    const double chance = std::exp(p[static_cast<std::size_t>(s)]);
    for (std::size_t n = 1; n <= text.size(); ++n) {
      weight[ids(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(n))] += chance;
      value[ids(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(n))] += chance * scores[static_cast<std::size_t>(s)];
    }
  }
  numbers values(all.logp.size()), exact(all.logp.size());
  each_own_token(all, [&](std::size_t, std::size_t t, auto context, std::int32_t token) {
    const ids here(context.begin(), context.end()), next = joined(context, {token});
    values[t] = value[here] / weight[here];
    exact[t] = value[next] / weight[next] - values[t];
  });
  const auto layout = all.layout();
  const rollout_advantages_inputs<double> in{.logp = all.logp, .score = scores, .values = values, .sequences = layout};
  CHECK(near(run(in, advantage::gae{.lambda = 0, .whiten = false}, {}).advantages, exact));
  // At any lambda it is so on average over what follows; the first token's advantage over all replies that begin alike.
  for (const double lambda : {0.5, 0.95, 1.0}) {
    const auto got = run(in, advantage::gae{.lambda = lambda, .whiten = false}, {}).advantages;
    std::map<std::int32_t, double> mean, want, chance;
    for (index_t s = 0; s < all.size(); ++s) {
      const auto first = static_cast<std::size_t>(all.own[static_cast<std::size_t>(s)]);
      const std::int32_t token = all.own_of(s)[0];
      mean[token] += std::exp(p[static_cast<std::size_t>(s)]) * got[first];
      chance[token] += std::exp(p[static_cast<std::size_t>(s)]);
      want[token] = exact[first];
    }
    for (const auto& [token, a] : want) CHECK(mean[token] / chance[token] == Catch::Approx(a).epsilon(1e-10));
  }
}

TEST_CASE("rollout advantages: each estimate of the KL against the exact one") {
  tabular_policy<double> policy(3, 1), reference(3, 5);
  auto all = all_replies(policy, {.tokens = {1}, .prompt_tokens = 1}, 2, 4);
  const auto ref_logp = reference.score(all);
  const auto p = text_logp(all, all.logp), q = text_logp(all, ref_logp);
  double exact = 0, squares = 0, absolute = 0;
  for (std::size_t s = 0; s < p.size(); ++s) exact += std::exp(p[s]) * (p[s] - q[s]);
  const auto estimated = [&](kl_estimator which) {
    const numbers score(p.size());
    const auto kl = run({.logp = all.logp, .ref_logp = ref_logp, .score = score, .sequences = all.layout()}, advantage::reinforce_plus_plus{},
                        {.kl = {.estimator = which}}).kl;
    double y = 0;
    each_own_token(all, [&](std::size_t s, std::size_t t, auto, std::int32_t) { y += std::exp(p[s]) * kl[t]; });
    return y;
  };
  each_own_token(all, [&](std::size_t s, std::size_t t, auto, std::int32_t) {
    const double d = all.logp[t] - ref_logp[t];
    squares += std::exp(p[s]) * d * d / 2;
    absolute += std::exp(p[s]) * std::abs(d);
  });
  CHECK(exact > 0.1);
  CHECK(estimated(kl_estimator::k1) == Catch::Approx(exact).epsilon(1e-12));
  CHECK(estimated(kl_estimator::k3) == Catch::Approx(exact).epsilon(1e-12));
  CHECK(estimated(kl_estimator::k2) == Catch::Approx(squares).epsilon(1e-12));  // biased, both
  CHECK(estimated(kl_estimator::absolute) == Catch::Approx(absolute).epsilon(1e-12));
  CHECK(std::abs(squares - exact) > 0.01);
}

TEST_CASE("rollout advantages: what is refused, nothing written") {
  const batch b;
  numbers advantages(15, -7);
  const auto refused = [&](rollout_advantages_inputs<double> in, const auto& advantage, const rollout_advantages_options& options,
                           rollout_advantages_outputs<double> out) {
    desk<double> d;
    if (!out.advantages.given()) out.advantages = advantages;
    const std::string said = refusal([&] { rollout_advantages(d.compute, d.scratch, in, advantage, options, out); });
    CHECK(advantages == numbers(15, -7));
    return said;
  };
  auto in = b.with_values();
  in.ref_logp = {};
  CHECK(refused(in, advantage::gae{}, penalised, {}) ==
        "plumb: rollout_advantages: argument `ref_logp` is not given, but `kl_coefficient` is 0.3. Nothing was written.");
  in = b.with_values();
  in.values = {};
  CHECK(refused(in, advantage::gae{}, penalised, {}) == "plumb: rollout_advantages: argument `values` is not given. Nothing was written.");
  in = b.with_values();
  in.values = in.values.slice(0, 14);
  CHECK(refused(in, advantage::gae{}, penalised, {}) ==
        "plumb: rollout_advantages: argument `values` has 14 elements, but `logp` has 15. Nothing was written.");
  in = b.with_values();
  in.ended = {};
  CHECK(refused(in, advantage::gae{}, penalised, {}) ==
        "plumb: rollout_advantages: argument `bootstrap` is given, but not `ended`, which says whose score it stands in for. Nothing was written.");
  in = b.with_values();
  in.score = {};
  CHECK(refused(in, advantage::gae{}, penalised, {}) == "plumb: rollout_advantages: argument `score` is not given. Nothing was written.");
  CHECK(refused(b.with_values(), advantage::grpo{}, penalised, {}) ==
        "plumb: rollout_advantages: `values`, `bootstrap` and `returns` go with `advantage::gae`; this advantage has no use for them. Nothing was "
        "written.");
  in = b.with_groups();
  in.groups = {};
  CHECK(refused(in, advantage::grpo{}, penalised, {}) ==
        "plumb: rollout_advantages: no groups are given, but there are 6 replies. Nothing was written.");
  in = b.with_groups();
  in.place = {};
  CHECK(refused(in, advantage::grpo{}, penalised, {}) ==
        "plumb: rollout_advantages: argument `place` has shape [0], but its dimension 0 must be 6 (the number of sequences). Nothing was written.");
  CHECK(refused(b.with_values(), advantage::gae{.lambda = 1.5}, penalised, {}) ==
        "plumb: rollout_advantages: option `lambda` is 1.5 but must be in [0, 1]. Nothing was written.");
  CHECK(refused(b.with_values(), advantage::gae{}, {.kl = {.limit = -1}}, {}).find("option `kl.limit` is -1") != std::string::npos);
  CHECK(refused(b.with_values(), advantage::gae{}, penalised, {.returns = advantages}).find("overlap") != std::string::npos);
}

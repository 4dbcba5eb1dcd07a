// Advantages from one reward per reply: verl, TRL, OpenRLHF, NeMo-Aligner.
#include "golden/calls.hpp"

#include <plumb/ops/gae.hpp>
#include <plumb/ops/gpg.hpp>
#include <plumb/ops/kl.hpp>
#include <plumb/ops/opo.hpp>
#include <plumb/ops/optimal_token_baseline.hpp>
#include <plumb/ops/passk.hpp>
#include <plumb/ops/reinforce_plus_plus.hpp>
#include <plumb/ops/remax.hpp>
#include <plumb/ops/reward_shaping.hpp>
#include <plumb/ops/several_rewards.hpp>
#include <plumb/ops/token_rewards.hpp>
#include <plumb/presets.hpp>

namespace golden {
namespace {

using plumb::prompt_groups;
namespace presets = plumb::presets;

constexpr double nothing_cancels = 0;

// One number per reply, in the peer's order, to the order of groups and back, as on a device.
template <class B>
std::vector<typename B::real> gathered(job<B>& j, const std::vector<typename B::real>& x, const ids& at) {
  using real = typename B::real;
  std::vector<real> y(at.size());
  j.b.row_gather(plumb::view<const real, 2>(x.data(), length(x), 1), at, plumb::view<real, 2>(y.data(), length(y), 1));
  return y;
}
flags gathered(const flags& x, const ids& at) {
  flags y;
  for (std::int32_t i : at) y.push_back(x[static_cast<std::size_t>(i)]);
  return y;
}

/// Replies, which of them count (empty: all), and who answers the same prompt.
struct replies {
  numbers rewards{};
  prompt_groups groups{};
  flags scored{};
};
struct group_answer {
  numbers advantage;      ///< per reply
  numbers mean, sd;       ///< per reply, of its group
  numbers largest, count; ///< largest magnitude and number of the counted rewards of the reply's group
};

// `f(rewards, layout, advantage)` on arrays in the order of groups; the advantages in that of the replies.
template <class B, class F>
numbers in_groups(job<B>& j, const replies& in, const F& f) {
  using real = typename B::real;
  const auto rewards = gathered(j, reals(j, in.rewards), in.groups.order);
  const flags scored = in.scored.empty() ? flags() : gathered(in.scored, in.groups.order);
  std::vector<real> advantage(rewards.size());
  f(rewards, scored.empty() ? in.groups.layout() : in.groups.layout(scored), advantage);
  return doubles(gathered(j, advantage, in.groups.place));
}

template <class B, class Formula>
group_answer call(job<B>& j, const replies& in, const Formula& formula) {
  using real = typename B::real;
  const std::size_t n = in.rewards.size();
  group_answer y{{}, numbers(n), numbers(n), numbers(n), numbers(n)};
  std::vector<real> mean(in.groups.begin.size()), sd(mean.size());
  y.advantage = in_groups(j, in, [&](const auto& rewards, const auto& layout, auto& advantage) {
    scratch_memory scratch(plumb::group_advantage_workspace(j.b, layout, length(rewards)));
    plumb::group_advantage(j.b, scratch.arena, {.rewards = rewards, .groups = layout}, formula,
                           {.advantage = advantage, .mean = mean, .sd = sd});
  });
  for (std::size_t g = 0; g < mean.size(); ++g) {
    const auto each = [&](const auto& f) {
      for (auto i = in.groups.begin[g]; i < in.groups.end[g]; ++i) f(static_cast<std::size_t>(in.groups.order[static_cast<std::size_t>(i)]));
    };
    double count = 0, magnitude = 0;
    each([&](std::size_t s) {
      if (!in.scored.empty() && in.scored[s] == 0) return;
      count += 1;
      magnitude = std::max(magnitude, std::fabs(in.rewards[s]));
    });
    each([&](std::size_t s) {
      y.mean[s] = static_cast<double>(mean[g]);
      y.sd[s] = static_cast<double>(sd[g]);
      y.largest[s] = magnitude;
      y.count[s] = count;
    });
  }
  return y;
}
// What enters an advantage: rewards, over a standard deviation.
numbers over(const numbers& x, const numbers& sd, double epsilon) {
  numbers y(x.size());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = x[i] / (sd[i] + epsilon);
  return y;
}

template <class B>
numbers shaped(job<B>& j, const numbers& rewards, const auto& rule, const numbers& lengths = {}, const flags& truncated = {}) {
  using real = typename B::real;
  const auto r = reals(j, rewards), l = reals(j, lengths);
  std::vector<real> y(r.size());
  scratch_memory scratch(plumb::shape_rewards_workspace(j.b));
  plumb::shape_rewards(j.b, scratch.arena, {.rewards = r, .lengths = l, .truncated = truncated}, rule, y);
  return doubles(y);
}
// `[low, high]`.
plumb::shaping::clip clip_range(const golden_case& c, const char* option) {
  const auto& range = c.options.at(option);
  if (!range.is_array() || range.size() != 2) c.fail(std::string("`") + option + "` is not two numbers");
  return {range[0].get<double>(), range[1].get<double>()};
}

template <class B>
numbers sequence_sums(job<B>& j, const numbers& x, const layout_arrays& l) {
  using real = typename B::real;
  std::vector<real> y(l.begin.size());
  j.b.segment_reduce(plumb::reduction::sum, plumb::view<const real, 1>(reals(j, x)), l.get(), plumb::view<real, 1>(y));
  return doubles(y);
}
template <class B>
numbers on_tokens(job<B>& j, const numbers& per_reply, const layout_arrays& l, std::size_t tokens) {
  using real = typename B::real;
  const auto x = reals(j, per_reply);
  std::vector<real> y(tokens);
  plumb::token_advantage(j.b, x, l.get(), plumb::view<real, 1>(y));
  return doubles(y);
}
template <class B>
numbers token_kl(job<B>& j, const numbers& logp, const numbers& ref_logp, const plumb::kl_estimate& estimate) {
  using real = typename B::real;
  const auto p = reals(j, logp), q = reals(j, ref_logp);
  std::vector<real> y(p.size());
  scratch_memory scratch(plumb::token_kl_workspace(j.b, length(y)));
  plumb::token_kl(j.b, scratch.arena, {.logp = p, .ref_logp = q}, estimate, {.kl = y});
  return doubles(y);
}
/// Means over each sequence.
template <class B>
numbers sequence_means(job<B>& j, const numbers& x, const layout_arrays& l) {
  using real = typename B::real;
  const auto values = reals(j, x);
  numbers y;
  for (std::size_t s = 0; s < l.begin.size(); ++s) {
    const layout_arrays one = l.sequence(s);
    real mean = 0;
    scratch_memory scratch(plumb::aggregate_workspace(j.b, one.get()));
    plumb::aggregate(j.b, scratch.arena, {.values = values, .sequences = one.get()}, {.mode = plumb::aggregation::sequence_mean, .denominator = 1},
                     {.loss = mean});
    y.push_back(static_cast<double>(mean));
  }
  return y;
}

// verl: a reply's reward is the sum of its token rewards; advantages stand at each token under the mask.
struct verl_batch {
  layout_arrays rows, whole;
  std::size_t tokens, columns;
  replies in;
};
template <class Job>
verl_batch verl_inputs(Job& j) {
  const golden_case& c = j.c;
  const array& r = c.input("token_level_rewards", {0, 0});
  verl_batch b{padded(r.shape[0], r.shape[1], to_flags(c.input("response_mask", r.shape).data)), padded(r.shape[0], r.shape[1], {}),
               r.data.size(), r.shape[1], {}};
  b.in.rewards = sequence_sums(j, r.data, b.whole);
  if (c.has_input("index")) b.in.groups = plumb::group_by_prompt(c.input("index", {r.shape[0]}).data);
  return b;
}
template <class Job>
void verl_output(Job& j, const verl_batch& b, const numbers& per_reply, const numbers& terms) {
  j.output("advantages", on_tokens(j, per_reply, b.rows, b.tokens), spread_rows(terms, b.columns));
}

template <bool vectorized>
constexpr auto verl_grpo = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  if (!j.c.flag("norm_adv_by_std_in_grpo", true)) {
    const group_answer y = call(j, b.in, presets::verl().centered_advantage());
    verl_output(j, b, y.advantage, y.largest);
    return;
  }
  const auto preset = presets::verl().group_advantage(j.c.number("epsilon", 1e-6), vectorized);
  const group_answer y = call(j, b.in, preset);
  verl_output(j, b, y.advantage, over(y.largest, y.sd, std::max(preset.epsilon, std::sqrt(preset.variance_floor))));
};

template <bool vectorized>
constexpr auto verl_rloo = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  const group_answer y = call(j, b.in, presets::verl().rloo_advantage(vectorized));
  verl_output(j, b, y.advantage, scaled(y.largest, 2));
};

constexpr auto verl_opo = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  const auto lengths = gathered(j, reals(j, sequence_sums(j, numbers(b.tokens, 1), b.rows)), b.in.groups.order);
  const numbers y = in_groups(j, b.in, [&](const auto& rewards, const auto& layout, auto& advantage) {
    scratch_memory scratch(plumb::opo_advantage_workspace(j.b, layout, length(rewards)));
    plumb::opo_advantage(j.b, scratch.arena, {.rewards = rewards, .lengths = lengths, .groups = layout}, presets::verl().opo_advantage(), advantage);
  });
  verl_output(j, b, y, numbers(y.size(), largest(b.in.rewards)));
};

constexpr auto verl_gpg = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  const double divisor = j.c.number("f_norm", 1);
  const numbers y = in_groups(j, b.in, [&](const auto& rewards, const auto& layout, auto& advantage) {
    scratch_memory scratch(plumb::gpg_advantage_workspace(j.b, layout, length(rewards)));
    plumb::gpg_advantage(j.b, scratch.arena, {.rewards = rewards, .groups = layout}, presets::verl().gpg_advantage(divisor), advantage);
  });
  verl_output(j, b, y, numbers(y.size(), largest(b.in.rewards) * static_cast<double>(y.size()) / divisor));
};

constexpr auto verl_passk = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  const plumb::passk_options options = presets::verl().passk_advantage(j.c.flag("norm_adv_by_std_in_grpo", true), j.c.number("epsilon", 1e-6));
  const numbers y = in_groups(j, b.in, [&](const auto& rewards, const auto& layout, auto& advantage) {
    scratch_memory scratch(plumb::passk_advantage_workspace(j.b, layout, length(rewards)));
    plumb::passk_advantage(j.b, scratch.arena, {.rewards = rewards, .groups = layout}, options, advantage);
  });
  const group_answer known = call(j, b.in, plumb::advantage::centered{});
  verl_output(j, b, y, options.normalize ? over(known.largest, known.sd, options.epsilon) : known.largest);
};

// The root of the variance that a batch of rewards on tokens was divided by, from what came out: for the terms only.
double largest_over_deviation(const numbers& values, const layout_arrays& l, double floor) {
  double count = 0, sum = 0, squares = 0, magnitude = 0;
  for (std::size_t s = 0; s < l.begin.size(); ++s)
    for (std::size_t t = static_cast<std::size_t>(l.begin[s]); t < static_cast<std::size_t>(l.end[s]); ++t)
      if (l.counts(t)) count += 1, sum += values[t], squares += values[t] * values[t];
  for (double x : values) magnitude = std::max(magnitude, std::fabs(x));
  return magnitude / std::sqrt(std::max(squares / count - sum / count * (sum / count), floor));
}

// verl forgets what follows at a token under no mask: each begins a sequence of its own, whose returns it shows.
layout_arrays cut_where_unscored(const layout_arrays& rows) {
  layout_arrays y{.scored = rows.scored};
  for (std::size_t s = 0; s < rows.begin.size(); ++s)
    for (std::int32_t t = rows.begin[s]; t < rows.end[s]; ++t) {
      if (t != rows.begin[s] && rows.counts(static_cast<std::size_t>(t))) continue;
      if (!y.begin.empty()) y.end.push_back(t);  // rows follow one another without gaps
      y.begin.push_back(t);
    }
  if (!y.begin.empty()) y.end.push_back(rows.end.back());
  return y;
}

constexpr auto verl_reinforce_plus_plus = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  const numbers& rewards_of = j.c.input("token_level_rewards", {0, 0}).data;
  const auto rewards = reals(j, rewards_of);
  auto advantage = rewards, returns = rewards;
  layout_arrays cut = cut_where_unscored(b.rows);
  const auto run = [&](const plumb::reinforce_plus_plus_outputs<typename decltype(returns)::value_type>& out) {
    scratch_memory scratch(plumb::reinforce_plus_plus_workspace(j.b, cut.get(), length(rewards)));
    plumb::reinforce_plus_plus(j.b, scratch.arena, {.rewards = rewards, .sequences = cut.get()}, presets::verl().reinforce_plus_plus(j.c.number("gamma")), out);
  };
  run({.advantage = advantage});
  cut.scored = flags();
  run({.returns = returns});
  const double terms = largest(rewards_of) * static_cast<double>(b.columns);
  j.output("returns", doubles(returns), terms);
  j.output("advantages", doubles(advantage), terms * largest_over_deviation(doubles(returns), b.rows, 1e-8) / std::max(largest(doubles(returns)), 1e-300));
};

constexpr auto verl_reinforce_plus_plus_baseline = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  const auto rewards = gathered(j, reals(j, b.in.rewards), b.in.groups.order);
  layout_arrays rows = b.rows;  // in the order of groups
  for (std::size_t i = 0; i < rewards.size(); ++i) {
    const auto s = static_cast<std::size_t>(b.in.groups.order[i]);
    rows.begin[i] = b.rows.begin[s];
    rows.end[i] = b.rows.end[s];
  }
  std::vector<typename std::decay_t<decltype(rewards)>::value_type> advantage(b.tokens);
  scratch_memory scratch(plumb::reinforce_plus_plus_baseline_workspace(j.b, b.in.groups.layout(), rows.get(), length(advantage)));
  plumb::reinforce_plus_plus_baseline(j.b, scratch.arena, {.rewards = rewards, .groups = b.in.groups.layout(), .sequences = rows.get()},
                                      presets::verl().reinforce_plus_plus_baseline(), advantage);
  j.output("advantages", doubles(advantage), largest_over_deviation(on_tokens(j, b.in.rewards, b.rows, b.tokens), b.rows, 1e-8));
};

constexpr auto verl_remax = [](auto& j) {
  const verl_batch b = verl_inputs(j);
  const auto rewards = reals(j, j.c.input("token_level_rewards", {0, 0}).data);
  const numbers& baselines = j.c.input("reward_baselines", {b.rows.begin.size()}).data;
  const auto baseline = reals(j, baselines);
  auto advantage = rewards, returns = rewards;
  scratch_memory scratch(plumb::remax_workspace(j.b, length(rewards)));
  plumb::remax(j.b, scratch.arena, {.rewards = rewards, .baseline = baseline, .sequences = b.rows.get()}, {.advantage = advantage, .returns = returns});
  const double terms = std::max(largest(b.in.rewards), largest(baselines));
  j.output("returns", doubles(returns), terms);
  j.output("advantages", doubles(advantage), terms);
};

template <plumb::token_position position>
constexpr auto verl_optimal_token_baseline = [](auto& j) {
  using real = typename std::decay_t<decltype(j)>::real;
  const golden_case& c = j.c;
  const verl_batch b = verl_inputs(j);
  const std::vector<std::size_t> shape{b.rows.begin.size(), b.columns};
  const numbers& rewards_of = c.input("token_level_rewards", shape).data;
  const auto rewards = reals(j, rewards_of), logp = reals(j, c.input("old_log_probs", shape).data),
             squared = reals(j, c.input("sum_pi_squared", shape).data);
  const auto importance = c.has_input("rollout_is_weights") ? reals(j, c.input("rollout_is_weights", shape).data) : std::vector<real>();
  const auto cells = plumb::token_cells(b.rows.get(), b.in.groups, length(rewards),
                                        {.position = position, .no_lone_tail = c.flag("handle_zero_tail", position == plumb::token_position::turn)});
  auto advantage = rewards, returns = rewards;
  scratch_memory scratch(plumb::optimal_token_baseline_workspace(j.b, b.rows.get(), length(rewards), cells.count));
  const auto run = [&](const auto& r, const layout_arrays& rows) {
    plumb::optimal_token_baseline(
        j.b, scratch.arena,
        {.rewards = r, .logp = logp, .sum_p_squared = squared, .importance = importance, .cells = cells.cells, .sequences = rows.get()},
        cells.count, {.epsilon = c.number("epsilon", 1e-8)}, {.advantage = advantage, .returns = returns});
  };
  // verl leaves the returns of what follows at tokens under no mask.
  run(reals(j, times(rewards_of, doubles(b.rows.scored))), b.whole);
  j.output("returns", doubles(returns), largest(rewards_of));
  run(rewards, b.rows);
  // A baseline is a quotient of sums of weights that may be small against the rewards beside them.
  j.output("advantages", doubles(advantage), std::max(largest(rewards_of), largest(doubles(advantage))) * 10);
};

// TRL: NaN where a reward function gave none; `num_generations` rows in a row are a prompt's.
struct trl_rewards {
  numbers rewards, weights, summed;
  flags given, scored;
  std::size_t functions;
  prompt_groups groups;
  replies in(const numbers& r) const { return {r, groups, scored}; }
};
template <class B>
trl_rewards trl_inputs(job<B>& j) {
  const golden_case& c = j.c;
  const array& r = c.input("rewards_per_func", {0, 0});
  trl_rewards in{.rewards = r.data, .weights = c.input("reward_weights", {r.shape[1]}).data, .summed = {}, .given = {}, .scored = {},
                 .functions = r.shape[1], .groups = {}};
  const double each = c.number("num_generations");
  if (!(each >= 1) || r.shape[0] % static_cast<std::size_t>(each) != 0) c.fail("`num_generations` does not divide the rows");
  in.groups = plumb::equal_groups(static_cast<index_t>(r.shape[0]) / static_cast<index_t>(each), static_cast<index_t>(each));
  for (double x : r.data) in.given.push_back(!std::isnan(x));
  in.scored = plumb::replies_with_rewards({in.given.data(), static_cast<index_t>(r.shape[0]), static_cast<index_t>(in.functions)});
  return in;
}
template <class B>
auto several(const std::vector<typename B::real>& rewards, const std::vector<typename B::real>& weights, const trl_rewards& in, const job<B>&) {
  using real = typename B::real;
  const index_t functions = static_cast<index_t>(in.functions), n = length(rewards) / functions;
  return plumb::several_rewards_inputs<real>{plumb::view<const real, 2>(rewards.data(), n, functions), weights,
                                             plumb::view<const std::uint8_t, 2>(in.given.data(), n, functions)};
}
template <class B>
numbers summed(job<B>& j, const trl_rewards& in) {
  const auto rewards = reals(j, in.rewards), weights = reals(j, in.weights);
  std::vector<typename B::real> y(rewards.size() / in.functions);
  scratch_memory scratch(plumb::sum_rewards_workspace(j.b, length(y), static_cast<index_t>(in.functions)));
  plumb::sum_rewards(j.b, scratch.arena, several(rewards, weights, in, j), y);
  return doubles(y);
}
prompt_groups one_group(std::size_t n) { return plumb::equal_groups(1, static_cast<index_t>(n)); }
numbers nan_unless(numbers x, const flags& scored) {
  for (std::size_t i = 0; i < x.size(); ++i)
    if (scored[i] == 0) x[i] = std::nan("");
  return x;
}
double largest_where(const numbers& x, const flags& scored) {
  double y = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (scored[i] != 0) y = std::max(y, std::fabs(x[i]));
  return y;
}
// TRL's deviation of one number among several is not a number; of one of one, 0.
numbers trl_deviation(const group_answer& y, double of) {
  numbers sd = y.sd;
  for (std::size_t i = 0; i < sd.size(); ++i)
    if (of > 1 && y.count[i] < 2) sd[i] = std::nan("");
  return sd;
}

constexpr auto trl_grpo = [](auto& j) {
  using real = typename std::decay_t<decltype(j)>::real;
  const golden_case& c = j.c;
  const presets::trl preset;
  const double epsilon = preset.group_advantage().epsilon;
  const trl_rewards in = trl_inputs(j);
  const std::size_t n = in.scored.size();
  const replies all{{}, one_group(n), in.scored};
  if (c.text("multi_objective_aggregation") == "normalize_then_sum") {
    const auto rewards = reals(j, in.rewards), weights = reals(j, in.weights);
    std::vector<real> advantage(n), sum(n);
    const auto layout = in.groups.layout(in.scored);
    scratch_memory scratch(plumb::gdpo_workspace(j.b, layout, length(advantage), static_cast<index_t>(in.functions)));
    plumb::gdpo(j.b, scratch.arena, several(rewards, weights, in, j), layout, preset.gdpo(),
                {.advantage = advantage, .sum = sum});
    replies whole = all;
    whole.rewards = doubles(sum);
    const group_answer y = call(j, whole, plumb::advantage::centered{});
    // Rewards over the deviation of a group, over that of the sums.
    double least = 1;
    for (std::size_t k = 0; k < in.functions; ++k) {
      replies one{{}, in.groups, {}};
      for (std::size_t s = 0; s < n; ++s) one.rewards.push_back(in.rewards[s * in.functions + k]), one.scored.push_back(in.given[s * in.functions + k]);
      for (double sd : call(j, one, plumb::advantage::centered{}).sd) least = std::min(least, sd + epsilon);
    }
    const double terms = largest_where(in.rewards, in.given) / least * largest(in.weights);
    j.output("std_rewards", trl_deviation(y, static_cast<double>(n)), terms);
    j.output("advantages", doubles(advantage), over(numbers(n, terms), y.sd, epsilon));
    return;
  }
  if (c.text("multi_objective_aggregation") != "sum_then_normalize") c.fail("`multi_objective_aggregation` is new");
  const numbers rewards = summed(j, in);
  const double terms = largest_where(in.rewards, in.given) * std::max(1.0, largest(in.weights));
  const std::string scale = c.text("scale_rewards");
  const double each = c.number("num_generations");
  const group_answer y = call(j, in.in(nan_unless(rewards, in.scored)), preset.centered_advantage());
  if (scale == "none") {
    j.output("std_rewards", trl_deviation(y, each), terms);
    j.output("advantages", y.advantage, terms);
  } else if (scale == "group") {
    j.output("std_rewards", trl_deviation(y, each), terms);
    j.output("advantages", call(j, in.in(rewards), preset.group_advantage()).advantage, over(numbers(n, terms), y.sd, epsilon));
  } else {
    if (scale != "batch") c.fail("`scale_rewards` is " + scale);
    replies whole = all;
    whole.rewards = rewards;
    const group_answer batch = call(j, whole, plumb::advantage::centered{});
    j.output("std_rewards", trl_deviation(batch, static_cast<double>(n)), terms);
    j.output("advantages", call(j, in.in(rewards), preset.batch_advantage()).advantage, over(numbers(n, terms), batch.sd, epsilon));
  }
};

constexpr auto trl_rloo = [](auto& j) {
  const golden_case& c = j.c;
  trl_rewards in = trl_inputs(j);
  numbers rewards = summed(j, in);
  double terms = largest_where(in.rewards, in.given) * std::max(1.0, largest(in.weights));
  if (c.is_set("reward_clip_range")) rewards = shaped(j, rewards, clip_range(c, "reward_clip_range"));
  const double beta = c.number("beta");
  if (beta != 0) {
    const array& logp = c.input("old_per_token_logps", {in.scored.size(), 0});
    const numbers& ref = c.input("ref_per_token_logps", logp.shape).data;
    const layout_arrays rows = padded(logp.shape[0], logp.shape[1], to_flags(c.input("completion_mask", logp.shape).data));
    const numbers kl = sequence_sums(j, token_kl(j, logp.data, ref, {.estimator = plumb::kl_estimator::k1}), rows);
    rewards = shaped(j, rewards, plumb::shaping::kl_penalty{beta}, kl);
    terms += beta * static_cast<double>(logp.shape[1]) * (largest(logp.data) + largest(ref));
  }
  j.output("rewards", nan_unless(rewards, in.scored), terms);
  const group_answer y = call(j, in.in(rewards), presets::trl().rloo_advantage());
  if (!c.flag("normalize_advantages", false)) {
    j.output("advantages", y.advantage, 2 * terms);
    return;
  }
  replies whole{y.advantage, one_group(in.scored.size()), in.scored};
  for (std::size_t s = 0; s < y.count.size(); ++s)
    if (y.count[s] < 2) whole.scored[s] = 0;  // nothing to compare with: TRL leaves it out here too
  const auto normalize = presets::trl().normalize_advantages();
  const group_answer normalized = call(j, whole, normalize);
  j.output("advantages", normalized.advantage, over(numbers(y.count.size(), 2 * terms), normalized.sd, normalize.epsilon));
};

// NeMo-Aligner: rewards less the mean KL, leave-one-out over replies that ended.
constexpr auto nemo_reinforce = [](auto& j) {
  const golden_case& c = j.c;
  const array& logp = c.input("logprobs", {0, 0});
  const std::size_t n = logp.shape[0], columns = logp.shape[1];
  const numbers& prompt = c.input("prompt_lengths", {n}).data;
  const numbers& response = c.input("response_lengths", {n}).data;
  layout_arrays rows = padded(n, columns, {});
  for (std::size_t s = 0; s < n; ++s) {  // log-probabilities have a column less than tokens
    rows.begin[s] = static_cast<std::int32_t>(static_cast<double>(s * columns) + prompt[s] - 1);
    rows.end[s] = static_cast<std::int32_t>(static_cast<double>(s * columns) + response[s] - 1);
  }
  const numbers& ref = c.input("init_logprobs", logp.shape).data;
  const numbers kl = sequence_means(j, token_kl(j, logp.data, ref, presets::nemo_aligner().kl_penalty(c.flag("use_absolute_kl", true))), rows);
  const numbers& given = c.input("rewards", {n}).data;
  const double coefficient = c.number("initial_policy_kl_penalty"), of_kl = largest(logp.data) + largest(ref),
               terms = largest(given) + coefficient * of_kl;
  const numbers rewards = shaped(j, given, plumb::shaping::kl_penalty{coefficient}, kl);
  j.output("mask", on_tokens(j, numbers(n, 1), rows, logp.data.size()), nothing_cancels);
  j.output("rewards_with_kl", rewards, terms);
  const auto mean = [&](const numbers& x) { return sequence_means(j, x, {.begin = {0}, .end = {static_cast<std::int32_t>(n)}}); };
  j.output("metric_init_policy_kl", mean(kl), of_kl);
  j.output("metric_rewards_with_kl", mean(rewards), terms);
  const array& tokens = c.input("prompt_tokens", {n, 0});
  std::vector<numbers> prompts;
  for (std::size_t s = 0; s < n; ++s) prompts.push_back(part(tokens.data, s * tokens.shape[1], tokens.shape[1]));
  const replies ended{rewards, plumb::group_by_prompt(prompts), to_flags(c.input("is_end", {n}).data)};
  const group_answer y = call(j, ended, presets::nemo_aligner().rloo_advantage());
  numbers baseline = plus(rewards, scaled(y.advantage, -1));
  // A reply that did not end gets (sum of those that did) / (their number - 1), though it is none of them: NeMo-Aligner drops it from the loss
  // later. Ours, of that reply and those: (their sum) / (their number).
  for (std::size_t s = 0; s < n; ++s) {
    if (ended.scored[s] != 0 || y.count[s] < 2) continue;
    replies with = ended;
    with.scored[s] = 1;
    baseline[s] = (rewards[s] - call(j, with, presets::nemo_aligner().rloo_advantage()).advantage[s]) * y.count[s] / (y.count[s] - 1);
  }
  j.output("baseline", baseline, 2 * terms);
};

// OpenRLHF: micro-batches, which one layout holds one behind the other.
struct openrlhf_batch {
  std::vector<std::size_t> rows, columns;
  numbers index{}, rewards{}, kl{}, mask{}, values{}, lengths{};
  flags truncated{};
  layout_arrays sequences{}, whole{};  // under the mask, and all columns

  void append(const golden_case& c) {
    const std::string i = "_" + std::to_string(rows.size());
    const array& m = c.input("action_mask" + i, {0, 0});
    const std::vector<std::size_t> n{m.shape[0]};
    for (std::size_t s = 0; s < m.shape[0]; ++s) {
      whole.begin.push_back(static_cast<std::int32_t>(mask.size() + s * m.shape[1]));
      whole.end.push_back(static_cast<std::int32_t>(mask.size() + (s + 1) * m.shape[1]));
    }
    rows.push_back(m.shape[0]);
    columns.push_back(m.shape[1]);
    index = joined(std::move(index), c.input("index" + i, n).data);
    rewards = joined(std::move(rewards), c.input("rewards" + i, n).data);
    lengths = joined(std::move(lengths), c.input("response_length" + i, n).data);
    for (double t : c.input("truncated" + i, n).data) truncated.push_back(t != 0);
    kl = joined(std::move(kl), c.input("kl" + i, m.shape).data);
    values = joined(std::move(values), c.input("values" + i, m.shape).data);
    mask = joined(std::move(mask), m.data);
  }
};

constexpr auto openrlhf = [](auto& j) {
  using real = typename std::decay_t<decltype(j)>::real;
  const golden_case& c = j.c;
  openrlhf_batch b;
  do b.append(c);
  while (c.has_input("index_" + std::to_string(b.rows.size())));
  b.sequences = b.whole;
  b.sequences.scored = to_flags(b.mask);
  const index_t tokens = length(b.mask);
  const std::string estimator = c.text("estimator");
  const double each = c.number("n_samples_per_prompt");

  if (c.is_set("overlong_buffer_len"))
    b.rewards = shaped(j, b.rewards,
                       plumb::shaping::overlong{c.number("max_new_tokens"), c.number("overlong_buffer_len"), c.number("overlong_penalty_factor", 1)},
                       b.lengths);
  if (c.is_set("stop_properly_penalty_coef")) {
    const double coefficient = c.number("stop_properly_penalty_coef");
    b.rewards = coefficient < 0 ? shaped(j, b.rewards, plumb::shaping::fix_truncated{coefficient}, {}, b.truncated)
                                : shaped(j, b.rewards, plumb::shaping::scale_truncated{coefficient}, {}, b.truncated);
  }
  std::vector<index_t> prompts;
  for (double i : b.index) prompts.push_back(static_cast<index_t>(i) / static_cast<index_t>(each));
  const replies in{b.rewards, plumb::group_by_prompt(prompts), {}};
  const presets::openrlhf preset;
  group_answer y = call(j, in, preset.centered_advantage());
  const numbers deviations = y.sd;
  double terms = 2 * largest(b.rewards);
  const bool grouped = estimator != "gae" && estimator != "reinforce";
  if (estimator == "rloo") {
    y = call(j, in, preset.rloo_advantage());
  } else if (estimator == "group_norm") {
    y = call(j, in, preset.group_advantage());
    terms = largest(over(y.largest, y.sd, preset.group_advantage().epsilon));
  } else if (!grouped) {
    y.advantage = b.rewards;
  } else if (estimator != "reinforce_baseline" && estimator != "dr_grpo") {
    c.fail("`estimator` is " + estimator);
  }
  const numbers rewards = c.is_set("clip_range") ? shaped(j, y.advantage, clip_range(c, "clip_range")) : y.advantage;

  // The KL penalty at every column, under the mask or not, is in the logged return; what counts for returns is under the mask, and what stands
  // before it sees all that comes.
  const auto score = reals(j, rewards), kl = reals(j, b.kl), values = reals(j, times(b.values, b.mask));
  const double kl_coefficient = std::max(c.number("kl_coef"), 0.0), gamma = grouped ? 1 : c.number("gamma");
  std::vector<real> token_rewards(b.mask.size()), advantage(b.mask.size()), returns(b.mask.size());
  const auto rewards_of = [&](const layout_arrays& l) {
    scratch_memory scratch(plumb::token_rewards_workspace(j.b, l.get(), tokens));
    plumb::token_rewards(j.b, scratch.arena, {.kl = kl, .score = score, .sequences = l.get()}, {.kl_coefficient = kl_coefficient},
                         {.rewards = token_rewards});
  };
  terms += kl_coefficient * largest(b.kl) * static_cast<double>(*std::max_element(b.columns.begin(), b.columns.end()));
  rewards_of(b.whole);
  const numbers logged = sequence_sums(j, doubles(token_rewards), b.whole);
  rewards_of(b.sequences);
  const bool whitened = estimator == "gae" || estimator == "reinforce" || estimator == "reinforce_baseline";
  const bool scale = !c.flag("no_std_norm", false);
  if (estimator == "gae") {
    terms += 3 * largest(b.values);
    scratch_memory scratch(plumb::gae_workspace(j.b, tokens));
    plumb::gae(j.b, scratch.arena, {.rewards = token_rewards, .values = values, .sequences = b.whole.get()}, preset.gae(gamma, c.number("lambd")),
               {.advantages = advantage, .returns = returns});
  } else {
    scratch_memory scratch(plumb::reinforce_plus_plus_workspace(j.b, b.whole.get(), tokens));
    plumb::reinforce_plus_plus(j.b, scratch.arena, {.rewards = token_rewards, .sequences = b.whole.get()}, {.gamma = gamma}, {.returns = returns});
    advantage = returns;
  }
  numbers advantages = doubles(advantage);
  double advantage_terms = terms;
  if (whitened) {
    real mean = 0;
    std::vector<real> white(advantage.size());
    scratch_memory scratch(plumb::whiten_workspace(j.b, b.sequences.get(), tokens));
    plumb::whiten(j.b, scratch.arena, {.values = advantage, .sequences = b.sequences.get()},
                  preset.advantage_whitening(), {.whitened = white, .mean = mean});
    if (scale) {
      advantage_terms *= largest_over_deviation(advantages, b.sequences, 1e-8) / std::max(largest(advantages), 1e-300);
      advantages = doubles(white);
    } else {
      for (double& a : advantages) a -= static_cast<double>(mean);
    }
  }
  std::size_t row = 0, token = 0;
  for (std::size_t i = 0; i < b.rows.size(); ++i) {
    const std::string name = "_" + std::to_string(i);
    const std::size_t count = b.rows[i] * b.columns[i];
    j.output("advantages" + name, part(advantages, token, count), advantage_terms);
    j.output("returns" + name, part(doubles(returns), token, count), terms);
    j.output("info_return" + name, part(logged, row, b.rows[i]), terms);
    if (each > 1) j.output("group_reward_std" + name, part(deviations, row, b.rows[i]), largest(b.rewards));
    row += b.rows[i];
    token += count;
  }
};

const bool registered[] = {
    map_cases({"verl_advantages", "compute_grpo_outcome_advantage", every_case, on_each_backend(verl_grpo<false>)}),
    map_cases({"verl_advantages", "compute_grpo_vectorized_outcome_advantage", every_case, on_each_backend(verl_grpo<true>)}),
    map_cases({"verl_advantages", "compute_rloo_outcome_advantage", every_case, on_each_backend(verl_rloo<false>)}),
    map_cases({"verl_advantages", "compute_rloo_vectorized_outcome_advantage", every_case, on_each_backend(verl_rloo<true>)}),
    map_cases({"verl_advantages", "compute_opo_outcome_advantage", every_case, on_each_backend(verl_opo)}),
    map_cases({"verl_advantages", "compute_gpg_outcome_advantage", every_case, on_each_backend(verl_gpg)}),
    map_cases({"verl_advantages", "compute_grpo_passk_outcome_advantage", every_case, on_each_backend(verl_passk)}),
    map_cases({"verl_advantages", "compute_reinforce_plus_plus_outcome_advantage", every_case, on_each_backend(verl_reinforce_plus_plus)}),
    map_cases({"verl_advantages", "compute_reinforce_plus_plus_baseline_outcome_advantage", every_case,
               on_each_backend(verl_reinforce_plus_plus_baseline)}),
    map_cases({"verl_advantages", "compute_remax_outcome_advantage", every_case, on_each_backend(verl_remax)}),
    map_cases({"verl_advantages", "compute_optimal_token_baseline_advantage", every_case,
               on_each_backend(verl_optimal_token_baseline<plumb::token_position::column>)}),
    map_cases({"verl_advantages", "compute_multi_turn_optimal_token_baseline_advantage", every_case,
               on_each_backend(verl_optimal_token_baseline<plumb::token_position::turn>)}),
    map_cases({"trl_grpo_advantages", "GRPOTrainer._generate_and_score_completions (statements at lines 2679-2730)", every_case,
               on_each_backend(trl_grpo)}),
    map_cases({"trl_rloo", "RLOOTrainer._generate_and_score_completions (statements at lines 1515-1561)", every_case, on_each_backend(trl_rloo)}),
    map_cases({"nemo_ppo", "ReinforceTrainer.generate_reinforce_data", every_case, on_each_backend(nemo_reinforce)}),
    map_cases({"openrlhf_advantages", "RemoteExperienceMaker.compute_advantages_and_returns", every_case, on_each_backend(openrlhf)}),
};

}  // namespace
}  // namespace golden

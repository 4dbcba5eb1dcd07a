// The laws of advantages from rewards: groups of any sizes, with replies that do not count, one alone, none.
#include "support/laws.hpp"

#include <plumb/ops/gpg.hpp>
#include <plumb/ops/group_advantage.hpp>
#include <plumb/ops/opo.hpp>
#include <plumb/ops/optimal_token_baseline.hpp>
#include <plumb/ops/passk.hpp>
#include <plumb/ops/reinforce_plus_plus.hpp>
#include <plumb/ops/remax.hpp>
#include <plumb/ops/several_rewards.hpp>

using namespace plumb;
using namespace plumb_test;
using laws::law;

namespace {

constexpr auto reward = +[](double x) { return 2 * x; };
constexpr auto few_rewards = +[](double x) { return x < 0 ? 0.0 : x < 1 ? 1.0 : 2.0; };  // equal ones, as verifiers give
constexpr auto length = +[](double x) { return x < -1 ? 0.0 : 1 + x * x; };
constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };
constexpr auto share = +[](double x) { return 1 / (1 + x * x); };
constexpr auto yes_or_no = +[](double x) { return x < 0.8 ? 1.0 : 0.0; };

/// Groups of up to four replies; those without scored tokens do not count. What is made are `out`.
template <class F>
laws::subject of_groups(const char* name, std::vector<double (*)(double)> arrays, laws::made out, F f) {
  laws::subject s{.name = name, .unit = 4, .per_sequence = std::move(arrays)};
  laws::runs(s, f, out);
  s.has_loss = false;
  s.ragged = s.any_order = s.leaves_out = true;
  s.lacks[law::reference] = "rewards are measured against each other, not against a reference";
  s.lacks[law::exchange] = "a group has no two sides: the order of its replies is tried instead";
  return s;
}
/// A group's number to each of its replies that count.
template <class C, class T>
void spread(const C& c, const std::vector<T>& of_group, std::vector<T>& of_reply) {
  for (std::size_t g = 0; g < of_group.size(); ++g)
    for (auto r = static_cast<std::size_t>(c.group_begin[g]); r < static_cast<std::size_t>(c.group_end[g]); ++r)
      of_reply[r] = c.members[r] != 0 ? of_group[g] : T(0);
}

template <class Formula>
void check_formula(const char* name, Formula formula) {
  constexpr bool whole_batch = Formula::spread == advantage::scope::batch;
  for (auto* rewards : {reward, few_rewards}) {
    auto s = of_groups(name, {rewards}, {.per_sequence = 3}, [=](auto& c) {
      std::vector<std::remove_cvref_t<decltype(c.loss)>> mean(c.group_begin.size()), sd(c.group_begin.size());
      group_advantage(c.compute, c.scratch, {.rewards = c.per_sequence[0], .groups = c.groups()}, formula,
                      {.advantage = c.d_per_sequence[0], .mean = mean, .sd = sd});
      spread(c, mean, c.d_per_sequence[1]);
      spread(c, sd, c.d_per_sequence[2]);
    });
    if (whole_batch) s.lacks[law::parts] = "the standard deviation is the whole batch's";
    laws::check(s);
  }
}

}  // namespace

TEST_CASE("laws: advantages in groups") {
  using advantage::lone_reply;
  check_formula("GRPO", advantage::grpo{});
  check_formula("GRPO, biased, a lone reply's reward", advantage::grpo{.epsilon = 1e-4, .unbiased = false, .alone = lone_reply::reward});
  check_formula("Dr. GRPO", advantage::centered{});
  check_formula("RLOO", advantage::rloo{});
  check_formula("RLOO, a lone reply's reward", advantage::rloo{lone_reply::reward});
  check_formula("scaled by the batch", advantage::batch_scaled{});
  check_formula("normalized over the batch", advantage::batch_normalized{});
}

TEST_CASE("laws: pass@k, OPO, GPG") {
  for (auto* rewards : {reward, few_rewards}) {
    for (const bool normalize : {false, true})
      laws::check(of_groups("pass@k", {rewards}, {.per_sequence = 1}, [=](auto& c) {
        passk_advantage(c.compute, c.scratch, {.rewards = c.per_sequence[0], .groups = c.groups()}, {.normalize = normalize}, c.d_per_sequence[0]);
      }));
    for (const advantage::lone_reply alone : {advantage::lone_reply::zero, advantage::lone_reply::reward})
      laws::check(of_groups("OPO", {rewards, length}, {.per_sequence = 1}, [=](auto& c) {
        opo_advantage(c.compute, c.scratch, {.rewards = c.per_sequence[0], .lengths = c.per_sequence[1], .groups = c.groups()}, {.alone = alone},
                      c.d_per_sequence[0]);
      }));
    for (const gpg_valid valid : {gpg_valid::varied_groups, gpg_valid::nonzero_rewards}) {
      auto s = of_groups("GPG", {rewards}, {.per_sequence = 1}, [=](auto& c) {
        gpg_advantage(c.compute, c.scratch, {.rewards = c.per_sequence[0], .groups = c.groups()}, {.divisor = 2, .valid = valid},
                      c.d_per_sequence[0]);
      });
      s.lacks[law::parts] = "how many replies of the whole batch are valid is a factor of every advantage";
      laws::check(s);
    }
  }
}

TEST_CASE("laws: GDPO") {
  auto s = of_groups("GDPO", {reward, few_rewards, yes_or_no, yes_or_no}, {.per_sequence = 4}, [](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const auto n = c.layout.sequences();
    const std::vector<T> weights{T(0.75), T(0.5)};
    const auto rewards = c.table(c.per_sequence, 0, 2);
    std::vector<std::uint8_t> given;
    for (std::size_t r = 0; r < c.members.size(); ++r)
      for (const std::size_t k : {2u, 3u}) given.push_back(c.members[r] != 0 && c.per_sequence[k][r] > 0);
    std::vector<T> normalized(rewards.size());
    gdpo(c.compute, c.scratch,
         {.rewards = view<const T, 2>(rewards.data(), n, 2), .weights = weights, .given = view<const std::uint8_t, 2>(given.data(), n, 2)},
         c.groups(), {}, {.advantage = c.d_per_sequence[0], .sum = c.d_per_sequence[1], .normalized = view<T, 2>(normalized.data(), n, 2)});
    c.untable(normalized, c.d_per_sequence, 2, 2);
  });
  s.sequence_choices = {2, 3};
  s.lacks[law::parts] = "the sums are normalized over the whole batch";
  laws::check(s);
}

TEST_CASE("laws: REINFORCE++ with the group's mean as baseline") {
  for (const bool shift : {true, false}) {
    auto s = of_groups("REINFORCE++ baseline", {reward}, {.tokens = 1}, [=](auto& c) {
      reinforce_plus_plus_baseline(c.compute, c.scratch, {.rewards = c.per_sequence[0], .groups = c.groups(), .sequences = c.layout},
                                   {.whiten = {.shift_mean = shift}}, c.d_tokens[0]);
    });
    s.lacks[law::parts] = "advantages are whitened over the whole batch";
    laws::check(s);
  }
}

TEST_CASE("laws: the optimal token baseline") {
  for (const token_position position : {token_position::column, token_position::turn})
    for (const bool no_lone_tail : {true, false}) {
      auto s = of_groups("optimal_token_baseline", {}, {.tokens = 2}, [=](auto& c) {
        using T = std::remove_cvref_t<decltype(c.loss)>;
        prompt_groups groups{c.group_begin, c.group_end, {}, {}};
        groups.order.resize(c.members.size());
        std::iota(groups.order.begin(), groups.order.end(), 0);
        groups.place = groups.order;
        const auto cells = token_cells(c.layout, groups, static_cast<index_t>(c.valid.size()), {.position = position, .no_lone_tail = no_lone_tail});
        optimal_token_baseline(c.compute, c.scratch,
                               optimal_token_baseline_inputs<T>{.rewards = c.tokens[0], .logp = c.tokens[1], .sum_p_squared = c.tokens[2],
                                                                .importance = c.tokens[3], .cells = cells.cells, .sequences = c.layout},
                               cells.count, {}, {.advantage = c.d_tokens[0], .returns = c.d_tokens[1]});
      });
      s.tokens = {reward, logp, share, share};
      laws::check(s);
    }
}

namespace {
/// Each sequence for itself.
template <class F>
laws::subject of_tokens(const char* name, laws::made out, F f) {
  auto s = of_groups(name, {}, out, f);
  s.unit = 1;
  s.lacks[law::exchange] = "a reply has one side";
  return s;
}
}  // namespace

TEST_CASE("laws: ReMax") {
  auto s = of_tokens("ReMax", {.tokens = 2}, [](auto& c) {
    remax(c.compute, c.scratch, {.rewards = c.tokens[0], .baseline = c.per_sequence[0], .sequences = c.layout},
          {.advantage = c.d_tokens[0], .returns = c.d_tokens[1]});
  });
  s.tokens = {reward};
  s.per_sequence = {reward};
  laws::check(s);
}

TEST_CASE("laws: REINFORCE++") {
  auto s = of_tokens("REINFORCE++", {.tokens = 2}, [](auto& c) {
    reinforce_plus_plus(c.compute, c.scratch, {.rewards = c.tokens[0], .sequences = c.layout}, {.gamma = 0.9},
                        {.advantage = c.d_tokens[0], .returns = c.d_tokens[1]});
  });
  s.tokens = {reward};
  s.lacks[law::parts] = "advantages are whitened over the whole batch";
  laws::check(s);
}

TEST_CASE("laws: whitening") {
  // `unscored_values::transformed` is left out: tokens that do not count then keep a number of their own.
  for (const bool shift : {true, false})
    for (const variance_estimator variance : {variance_estimator::biased, variance_estimator::unbiased})
      for (const variance_guard guard : {variance_guard::add, variance_guard::floor}) {
        auto s = of_tokens("whiten", {.tokens = 1}, [=](auto& c) {
          std::vector<std::remove_cvref_t<decltype(c.loss)>> mean(1), squares(1);
          whiten(c.compute, c.scratch, {.values = c.tokens[0], .sequences = c.layout}, {.shift_mean = shift, .variance = variance, .guard = guard},
                 {.whitened = c.d_tokens[0], .mean = mean, .variance = squares});
        });
        s.tokens = {reward};
        s.lacks[law::parts] = "mean and variance are the whole batch's";
        laws::check(s);
      }
}

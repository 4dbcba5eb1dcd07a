// Advantages by groups of replies: by hand, against the sums that define them, groups of any size, replies left out, rewards reshaped, what is refused.
#include "support/gradients.hpp"
#include "support/ranks.hpp"

#include <plumb/ops/gpg.hpp>
#include <plumb/ops/group_filter.hpp>
#include <plumb/ops/opo.hpp>
#include <plumb/ops/passk.hpp>
#include <plumb/ops/reward_shaping.hpp>
#include <plumb/ops/several_rewards.hpp>
#include <plumb/testing/memory.hpp>

using namespace plumb;
using namespace plumb_test;
using advantage::lone_reply;
using testing::normal_numbers;

namespace {

const double not_a_number = std::nan("");
constexpr lone_reply reward = lone_reply::reward;
using flags = std::vector<std::uint8_t>;

/// Prompts 7, 3, 5, 9 with 3, 4, 1 and 2 replies, mixed.
const std::vector<int> prompts{7, 3, 7, 5, 3, 9, 3, 7, 9, 3};

template <class T>
void check_near(const std::vector<T>& got, const std::vector<double>& want, double tolerance = 1e-14) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got[i], want[i]);
    if (std::isnan(want[i])) CHECK(std::isnan(got[i]));
    else CHECK(static_cast<double>(got[i]) == Catch::Approx(want[i]).epsilon(tolerance).margin(tolerance));
  }
}

/// The other counted replies to the same prompt as `i`, or all counted replies.
std::vector<double> siblings(const std::vector<double>& r, std::size_t i, const flags& counts, bool of_batch, bool itself) {
  std::vector<double> y;
  for (std::size_t k = 0; k < r.size(); ++k)
    if (counts[k] != 0 && (of_batch || prompts[k] == prompts[i]) && (itself || k != i)) y.push_back(r[k]);
  return y;
}
double mean(const std::vector<double>& x) {
  double sum = 0;
  for (double e : x) sum += e;
  return sum / static_cast<double>(x.size());
}
double sd(const std::vector<double>& x, bool unbiased = true) {
  double sum = 0;
  for (double e : x) sum += (e - mean(x)) * (e - mean(x));
  return std::sqrt(sum / (static_cast<double>(x.size()) - unbiased));
}

/// An operation `(compute, arena, advantage)` with just the memory that it asked for.
template <class T, class F>
std::vector<T> output_of(std::size_t n, std::size_t bytes, const F& f) {
  serial::backend<T> compute;
  std::vector<char> memory(bytes);
  arena<> scratch(memory);
  std::vector<T> y(n, T(77));
  f(compute, scratch, y);
  return y;
}

struct half_of_reward {
  static constexpr advantage::scope center = advantage::scope::group, spread = advantage::scope::group;
  template <class T>
  PLUMB_HD T operator()(const T&, const T& r, const T& count, const T&) const { return r / T(2) + T(0) * count; }
};

}  // namespace

TEST_CASE("group advantage: groups from ids in any order") {
  const auto g = group_by_prompt(prompts);
  CHECK(g.begin == std::vector<std::int32_t>{0, 3, 7, 8});
  CHECK(g.end == std::vector<std::int32_t>{3, 7, 8, 10});
  CHECK(g.order == std::vector<std::int32_t>{0, 2, 7, 1, 4, 6, 9, 3, 5, 8});
  for (std::size_t i = 0; i < prompts.size(); ++i) CHECK(g.order[static_cast<std::size_t>(g.place[i])] == static_cast<std::int32_t>(i));
  CHECK(group_by_prompt(std::vector<std::string>{"b", "a", "b"}).order == std::vector<std::int32_t>{0, 2, 1});
  CHECK(group_by_prompt(std::vector<int>{}).groups() == 0);
  CHECK(equal_groups(2, 3).order == group_by_prompt(std::vector<int>{4, 4, 4, 1, 1, 1}).order);
  CHECK(equal_groups(2, 3).end == std::vector<std::int32_t>{3, 6});
}

TEST_CASE("group advantage: what each formula is, by its definition") {
  const auto g = group_by_prompt(prompts);
  for (const flags& counts : {flags(10, 1), flags{1, 1, 0, 1, 1, 0, 0, 1, 1, 1}}) {
    auto r = normal_numbers(3, 10, 2, 1);
    for (std::size_t i = 0; i < 10; ++i)
      if (counts[i] == 0) r[i] = not_a_number;  // what is left out may hold anything
    std::vector<double> centered(10), grpo(10), biased(10), scaled(10), normalized(10), rloo(10), kept(10);
    for (std::size_t i = 0; i < 10; ++i) {
      if (counts[i] == 0) continue;
      const auto all = siblings(r, i, counts, false, true), others = siblings(r, i, counts, false, false), batch = siblings(r, i, counts, true, true);
      const bool lone = others.empty();
      centered[i] = lone ? 0 : r[i] - mean(all);
      grpo[i] = lone ? 0 : centered[i] / (sd(all) + 0.01);
      biased[i] = lone ? 0 : centered[i] / (sd(all, false) + 1e-6);
      scaled[i] = centered[i] / (sd(batch) + 1e-6);
      normalized[i] = (r[i] - mean(batch)) / (sd(batch) + 1e-6);
      rloo[i] = lone ? 0 : r[i] - mean(others);
      kept[i] = lone ? r[i] / 1.5 : centered[i] / (std::max(sd(all), 2.0) + 0.5);
    }
    const auto run = [&](const auto& formula) { return group_advantage(r, g, formula, counts).advantage; };
    check_near(run(advantage::centered{}), centered);
    check_near(run(advantage::grpo{.epsilon = 0.01}), grpo);
    check_near(run(advantage::grpo{.unbiased = false}), biased);
    check_near(run(advantage::batch_scaled{}), scaled);
    check_near(run(advantage::batch_normalized{}), normalized);
    check_near(run(advantage::rloo{}), rloo);
    check_near(run(advantage::grpo{.epsilon = 0.5, .variance_floor = 4, .alone = reward}), kept);
    CHECK(run(advantage::rloo{reward})[3] == r[3]);
    CHECK(run(advantage::centered{reward})[3] == r[3]);
    const auto y = group_advantage(r, g, advantage::rloo{}, counts);
    const auto first = siblings(r, 0, counts, false, true);
    CHECK(y.mean[0] == Catch::Approx(mean(first)).epsilon(1e-14));
    CHECK(y.sd[0] == Catch::Approx(sd(first)).epsilon(1e-14));
    CHECK(y.sd[2] == 0);
    // One's own formula is a type like ours.
    CHECK(run(half_of_reward{})[0] == r[0] / 2);
  }
}

TEST_CASE("group advantage: laws") {
  const auto r = normal_numbers(4, 10, 1, 0);
  const auto all = group_advantage(r, group_by_prompt(prompts), advantage::grpo{}).advantage;
  // The order of replies does not matter.
  const std::vector<std::size_t> shuffle{9, 3, 0, 7, 5, 1, 8, 2, 6, 4};
  std::vector<double> r2, want;
  std::vector<int> p2;
  for (const std::size_t i : shuffle) r2.push_back(r[i]), p2.push_back(prompts[i]), want.push_back(all[i]);
  check_near(group_advantage(r2, group_by_prompt(p2), advantage::grpo{}).advantage, want, 1e-13);
  // Groups know nothing of one another; a shift changes nothing, nor does a scale where nothing is added to the deviation.
  const std::vector<double> some{r[0], r[2], r[7]};
  check_near(group_advantage(some, equal_groups(1, 3)).advantage, {all[0], all[2], all[7]});
  auto moved = r;
  for (double& x : moved) x = 1000 * x + 1e4;
  check_near(group_advantage(moved, group_by_prompt(prompts), advantage::grpo{.epsilon = 0}).advantage,
             group_advantage(r, group_by_prompt(prompts), advantage::grpo{.epsilon = 0}).advantage, 1e-12);
  // NaN stays in its group; a lone NaN is not silent.
  auto broken = r;
  broken[2] = broken[3] = not_a_number;
  for (const auto& a : {group_advantage(broken, group_by_prompt(prompts), advantage::rloo{}).advantage,
                        group_advantage(broken, group_by_prompt(prompts), advantage::grpo{.variance_floor = 1}).advantage})
    for (std::size_t i = 0; i < 10; ++i) CHECK(std::isnan(a[i]) == (prompts[i] == 7 || prompts[i] == 5));
  for (double a : group_advantage(broken, group_by_prompt(prompts), advantage::batch_scaled{}).advantage) CHECK(std::isnan(a));
}

TEST_CASE("group advantage: equal rewards give exactly 0, and large ones keep their digits") {
  const std::vector<float> r{0.1f, 0.1f, 0.1f, 10000, 10001, 10001, -1e4f, 1e4f, 0};
  const auto g = equal_groups(3, 3);
  for (const double epsilon : {0.0, 1e-9}) {
    const auto a = group_advantage(r, g, advantage::grpo{.epsilon = epsilon}).advantage;
    for (std::size_t i = 0; i < 3; ++i) CHECK(a[i] == 0);
    check_near(a, {0, 0, 0, -1.1547005, 0.5773503, 0.5773503, -1, 1, 0}, 1e-6);
  }
  const std::vector<float> same(9, 0.3f);
  for (const float a : group_advantage(same, g, advantage::batch_scaled{.epsilon = 0}).advantage) CHECK(a == 0);
  for (const float a : group_advantage(same, g, advantage::batch_normalized{.epsilon = 0}).advantage) CHECK(a == 0);
  // A batch far below 0 with a prompt that has no counted reply.
  const std::vector<float> low{-9999, -9998, 0, 0, -9997, -9996};
  const flags counts{1, 1, 0, 0, 1, 1};
  check_near(group_advantage(low, equal_groups(3, 2), advantage::batch_normalized{}, counts).advantage,
             {-1.161895, -0.3872983, 0, 0, 0.3872983, 1.161895}, 1e-6);
}

namespace {

/// `f(member, rank's first group, number of its groups)` on three ranks, which have two groups, none, and the rest.
template <class T, class F>
int on_three_ranks(index_t groups, const F& f) {
  thread_ranks<T> ranks(3);
  return ranks.run([&](auto& me) { f(me, me.rank == 2 ? 2 : 0, me.rank == 0 ? 2 : me.rank == 1 ? 0 : groups - 2); });
}

}  // namespace

TEST_CASE("group advantage: three ranks are one rank") {
  // Groups of 3, 4, 1, 2 and 2 replies, some left out; one rank has no replies at all.
  const std::vector<std::int32_t> begin{0, 3, 7, 8, 10}, end{3, 7, 8, 10, 12};
  const flags counts{1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0};
  auto r = normal_numbers(6, 12, 3, 40);
  r[2] = not_a_number;
  const sequence_layout<> groups{begin, end, counts};
  const auto check = [&](const auto& formula, int sums) {
    desk<double> whole;
    std::vector<double> together(12), apart(12, 7);
    group_advantage(whole.compute, whole.scratch, {.rewards = r, .groups = groups}, formula, {.advantage = together});
    const int rounds = on_three_ranks<double>(5, [&](auto& me, index_t first, index_t n) {
      const std::size_t from = first == 0 ? 0 : 7, to = n == 0 ? from : first == 0 ? 7 : 12;
      std::vector<std::int32_t> own_begin, own_end;
      for (index_t g = first; g < first + n; ++g) {
        own_begin.push_back(begin[static_cast<std::size_t>(g)] - static_cast<std::int32_t>(from));
        own_end.push_back(end[static_cast<std::size_t>(g)] - static_cast<std::int32_t>(from));
      }
      const flags own_counts(counts.begin() + static_cast<std::ptrdiff_t>(from), counts.begin() + static_cast<std::ptrdiff_t>(to));
      const std::vector<double> own(r.begin() + static_cast<std::ptrdiff_t>(from), r.begin() + static_cast<std::ptrdiff_t>(to));
      std::vector<double> y(to - from);
      desk<double> d;
      group_advantage(d.compute, d.scratch, me, {.rewards = own, .groups = {own_begin, own_end, own_counts}}, formula, {.advantage = y});
      std::copy(y.begin(), y.end(), apart.begin() + static_cast<std::ptrdiff_t>(from));
    });
    CHECK(rounds == sums);
    check_near(apart, together, 1e-13);
  };
  check(advantage::batch_scaled{}, 3);
  check(advantage::batch_normalized{.epsilon = 0.01, .unbiased = false}, 3);
  check(advantage::grpo{}, 0);
}

TEST_CASE("group advantage: equal rewards on all ranks give exactly 0") {
  for (const float each : {0.1f, 0.3f, -7.7f, 1e-3f}) {
    const std::vector<float> r(6, each);
    const auto g = equal_groups(3, 2);
    std::vector<std::vector<float>> y(3, std::vector<float>(6, 5));
    thread_ranks<float> ranks(3);
    ranks.run([&](auto& me) {
      desk<float> d;
      group_advantage(d.compute, d.scratch, me, {.rewards = r, .groups = g.layout()}, advantage::batch_normalized{.epsilon = 0},
                      {.advantage = y[me.rank]});
    });
    for (const auto& own : y) CHECK(own == std::vector<float>(6));
  }
}

TEST_CASE("group advantage: per token") {
  serial::backend<double> compute;
  const std::vector<double> a{2, -1};
  const std::vector<std::int32_t> cu{0, 3, 5};
  const flags scored{0, 1, 1, 1, 0};
  std::vector<double> tokens(5, 9);
  const auto layout = sequence_layout<>::packed(cu, scored);
  token_advantage(compute, view<const double, 1>(a), layout, view<double, 1>(tokens));
  CHECK(tokens == std::vector<double>{0, 2, 2, -1, 0});
  CHECK(token_advantage(a, layout, 5) == tokens);
  CHECK(reply_lengths<double>(layout, 5) == std::vector<double>{2, 1});
  CHECK(refusal([&] { token_advantage(tokens, layout, 5); }) ==
        "plumb: token_advantage: argument `advantage` has shape [5], but its dimension 0 must be 2 (the number of sequences). Nothing was written.");
  CHECK(refusal([&] { reply_lengths<double>(layout, 4); }) ==
        "plumb: reply_lengths: argument `scored` has shape [5], but its dimension 0 must be 4 (the number of tokens). Nothing was written.");
}

TEST_CASE("opo: the mean weighted by lengths") {
  const std::vector<double> r{1, 0, 3, not_a_number, 5}, lengths{10, 30, 20, 7, 4};
  const auto g = equal_groups(1, 4);
  std::vector<std::int32_t> begin{0, 4}, end{4, 5};
  const flags counts{1, 1, 1, 0, 1};
  const sequence_layout<> groups{begin, end, counts};
  const auto run = [&](const std::vector<double>& x, const opo_options& o) {
    return output_of<double>(5, opo_advantage_workspace(serial::backend<double>{}, groups, 5),
                             [&](auto& b, auto& scratch, auto& y) { opo_advantage(b, scratch, {.rewards = r, .lengths = x, .groups = groups}, o, y); });
  };
  const double baseline = (10 * 1 + 20 * 3) / 60.0;
  check_near(run(lengths, {}), {1 - baseline, -baseline, 3 - baseline, 0, 0});
  CHECK(run(lengths, {.alone = reward})[4] == 5);
  check_near(run(std::vector<double>(5, 3), {}), {1 - 4 / 3.0, -4 / 3.0, 3 - 4 / 3.0, 0, 0});
  const std::vector<double> mixed{3, 5, 1, 0}, mixed_lengths{20, 4, 10, 30};
  check_near(opo_advantage(mixed, mixed_lengths, group_by_prompt(std::vector<int>{1, 2, 1, 1})), {3 - baseline, 0, 1 - baseline, -baseline});
  // A zero-length reply is no part of the baseline.
  check_near(run({10, 30, 0, 7, 4}, {}), {0.75, -0.25, 2.75, 0, 0});
}

TEST_CASE("gpg: the factor is over replies that teach something") {
  // One prompt all right, one all wrong, one mixed: 2 of 6 replies are valid.
  const std::vector<double> r{1, 1, 0, 0, 1, 0};
  const auto g = equal_groups(3, 2);
  const auto run = [&](const gpg_options& o) {
    return output_of<double>(6, gpg_advantage_workspace(serial::backend<double>{}, g.layout(), 6),
                             [&](auto& b, auto& scratch, auto& y) { gpg_advantage(b, scratch, {.rewards = r, .groups = g.layout()}, o, y); });
  };
  check_near(run({}), {0, 0, 0, 0, 1.5, -1.5});
  CHECK(gpg_advantage(r, g) == run({}));
  check_near(run({.divisor = 3}), {0, 0, 0, 0, 0.5, -0.5});
  // verl counts rewards that are not 0, so that right answers to an easy prompt shrink what the others teach: 6 / 3 instead of 6 / 2.
  check_near(run({.valid = gpg_valid::nonzero_rewards}), {0, 0, 0, 0, 1, -1});
}

TEST_CASE("gpg: three ranks are one rank") {
  // Easy prompts lie on one rank: its replies count in the factor of all. One rank has no replies at all.
  auto r = normal_numbers(9, 10, 1, 0);
  for (const std::size_t i : {0u, 1u, 2u, 3u}) r[i] = 1;
  r[5] = 0;
  const auto g = equal_groups(5, 2);
  for (const gpg_valid valid : {gpg_valid::varied_groups, gpg_valid::nonzero_rewards}) {
    const auto together = gpg_advantage(r, g, {.valid = valid});
    std::vector<double> apart(10, 7);
    const int rounds = on_three_ranks<double>(5, [&](auto& me, index_t first, index_t n) {
      const auto own = equal_groups(n, 2);
      std::vector<double> y(static_cast<std::size_t>(2 * n));
      desk<double> d;
      gpg_advantage(d.compute, d.scratch, me, {.rewards = view(r).slice(2 * first, 2 * n), .groups = own.layout()}, {.valid = valid}, y);
      std::copy(y.begin(), y.end(), apart.begin() + 2 * first);
    });
    CHECK(rounds == 1);
    check_near(apart, together);
  }
}

TEST_CASE("pass at k: what the maximum would lose") {
  auto r = normal_numbers(5, 10, 1, 0);
  r[1] = r[4] = 4;  // prompt 3 has two best replies
  r[8] = not_a_number;       // and prompt 9 only one that counts
  flags counts(10, 1);
  counts[8] = 0;
  const auto g = group_by_prompt(prompts);
  std::vector<double> grouped(10), want(10), normalized(10);
  flags scored(10);
  for (std::size_t i = 0; i < 10; ++i) {
    const auto s = static_cast<std::size_t>(g.order[i]);
    grouped[i] = r[s], scored[i] = counts[s];
    if (counts[s] == 0) continue;
    const auto all = siblings(r, s, counts, false, true), others = siblings(r, s, counts, false, false);
    if (others.empty()) continue;
    want[i] = *std::max_element(all.begin(), all.end()) - *std::max_element(others.begin(), others.end());
    normalized[i] = want[i] / (sd(all) + 0.1);
  }
  const auto run = [&](const std::vector<double>& x, const passk_options& o) {
    return output_of<double>(10, passk_advantage_workspace(serial::backend<double>{}, g.layout(scored), 10), [&](auto& b, auto& scratch, auto& y) {
      passk_advantage(b, scratch, {.rewards = x, .groups = g.layout(scored)}, o, y);
    });
  };
  check_near(run(grouped, {}), want);
  const auto by_reply = passk_advantage(r, g, {}, counts);
  for (std::size_t i = 0; i < 10; ++i) CHECK(by_reply[static_cast<std::size_t>(g.order[i])] == Catch::Approx(want[i]).margin(1e-14));
  check_near(run(grouped, {.normalize = true, .epsilon = 0.1}), normalized);
  grouped[1] = not_a_number;
  for (std::size_t i = 0; i < 3; ++i) CHECK(std::isnan(run(grouped, {})[i]));
  CHECK(run(grouped, {})[4] == 0);
}

TEST_CASE("group filter: groups whose rewards differ, replies that ended") {
  const std::vector<double> r{1, 1, 0, 1, 0.1, 0.1, 0.1, not_a_number, 3, not_a_number};
  const std::vector<std::int32_t> begin{0, 2, 4, 7, 9}, end{2, 4, 7, 9, 10};
  const flags counts{1, 1, 1, 1, 1, 1, 1, 1, 1, 0};
  const sequence_layout<> groups{begin, end, counts};
  const auto varied = output_of<double>(5, varied_groups_workspace(serial::backend<double>{}, groups, 10), [&](auto& b, auto& scratch, auto& y) {
    varied_groups(b, scratch, {.rewards = r, .groups = groups}, {}, y);
  });
  check_near(varied, {0, 1, 0, not_a_number, 0});
  const auto kept = keep_varied(r, groups);
  CHECK(kept.varied == flags{0, 1, 0, 0, 0});
  CHECK(kept.keep == flags{0, 0, 1, 1, 0, 0, 0, 0, 0, 0});
  CHECK((kept.groups == 1 && kept.replies == 2));
  CHECK(keep_varied(r, groups, {.tolerance = 1}).groups == 0);
  const flags truncated{0, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  const auto finished = keep_finished(truncated, kept.keep);
  CHECK(finished == flags{0, 0, 1, 0, 0, 0, 0, 0, 0, 0});
  CHECK(keep_finished(truncated)[9] == 1);
  const std::vector<std::int32_t> cu{0, 2, 5};
  const flags scored{1, 1, 0, 1, 1}, second{0, 1};
  CHECK(keep_tokens(sequence_layout<>::packed(cu, scored), second, 5) == flags{0, 0, 0, 1, 1});
}

TEST_CASE("group advantage: a reply that was cut off and left out does not change the others' baseline") {
  // NeMo-Aligner gives it (sum of the others) / (their number - 1) for a baseline; here it has none, and advantage 0.
  const std::vector<double> r{0.9, 0.3, 0.1};
  const auto a = group_advantage(r, equal_groups(1, 3), advantage::rloo{}, flags{1, 0, 1});
  check_near(a.advantage, {0.8, 0, -0.8});
}

TEST_CASE("reward shaping: each rule") {
  const std::vector<double> r{1, 1, 1, 1, not_a_number, -3}, lengths{50, 80, 85, 100, 90, 200};
  const flags truncated{0, 1, 0, 1, 0, 1};
  serial::backend<double> compute;
  std::vector<char> memory(shape_rewards_workspace(compute));
  arena<> scratch(memory);
  const auto run = [&](const auto& rule, const std::vector<double>& l, const flags& t) {
    std::vector<double> y(6);
    shape_rewards(compute, scratch, {.rewards = r, .lengths = l, .truncated = t}, rule, y);
    return y;
  };
  check_near(run(shaping::overlong{.max_length = 100, .buffer = 20, .factor = 2}, lengths, {}), {1, 1, 0.5, -1, not_a_number, -5});
  check_near(run(shaping::scale_truncated{0.25}, {}, truncated), {1, 0.25, 1, 0.25, not_a_number, -0.75});
  check_near(run(shaping::fix_truncated{-0.5}, {}, truncated), {1, -0.5, 1, -0.5, not_a_number, -0.5});
  check_near(run(shaping::clip{-1, 0.5}, {}, {}), {0.5, 0.5, 0.5, 0.5, not_a_number, -1});
  check_near(run(shaping::kl_penalty{0.01}, lengths, {}), {0.5, 0.2, 0.15, 0, not_a_number, -5});
  CHECK(shape_rewards(r, shaping::scale_truncated{0.25}, {}, truncated)[1] == 0.25);
  std::vector<double> y(6, 5);
  CHECK(refusal([&] { shape_rewards(compute, scratch, {.rewards = r}, shaping::overlong{.max_length = 9, .buffer = 4}, y); }) ==
        "plumb: shape_rewards: argument `lengths` is not given. Nothing was written.");
  CHECK(refusal([&] { shape_rewards(compute, scratch, {.rewards = r, .lengths = lengths}, shaping::overlong{.max_length = 9, .buffer = 14}, y); }) ==
        "plumb: shape_rewards: option `buffer` is 14 but must be positive, and at most `max_length`. Nothing was written.");
  CHECK(refusal([&] { shape_rewards(compute, scratch, {.rewards = r}, shaping::clip{2, 1}, y); }) ==
        "plumb: shape_rewards: option `low` is 2 but must be at most `high`. Nothing was written.");
  CHECK(y == std::vector<double>(6, 5));
  const std::vector<std::int32_t> cu{0, 2, 5};
  const flags scored{1, 1, 0, 1, 1};
  std::vector<double> counted(2);
  reply_lengths(compute, scratch, sequence_layout<>::packed(cu, scored), 5, counted);
  CHECK(counted == std::vector<double>{2, 2});
}

TEST_CASE("several rewards: the sum, and GDPO") {
  // Function 1 gave reply 2 nothing; reply 4 got nothing at all.
  const std::vector<double> rewards{1, 10, 0, 20, 5, not_a_number, 2, 30, not_a_number, not_a_number, 7, 1, 3, 4, 9, 2}, weights{1, 0.5};
  const flags given{1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1};
  const auto scored = replies_with_rewards(view<const std::uint8_t, 2>(given.data(), 8, 2));
  CHECK(scored == flags{1, 1, 1, 1, 0, 1, 1, 1});
  const auto inputs = [&](const std::vector<double>& x, const std::vector<double>& w) {
    return several_rewards_inputs<double>{view<const double, 2>(x.data(), 8, 2), w, view<const std::uint8_t, 2>(given.data(), 8, 2)};
  };
  const auto sum = output_of<double>(8, sum_rewards_workspace(serial::backend<double>{}, 8, 2),
                                     [&](auto& b, auto& scratch, auto& y) { sum_rewards(b, scratch, inputs(rewards, weights), y); });
  check_near(sum, {6, 10, 5, 17, 0, 7.5, 5, 10});
  CHECK(sum_rewards(rewards, weights, given) == sum);
  CHECK(refusal([&] { sum_rewards(weights, std::vector<double>{1, 2, 3}); }) ==
        "plumb: sum_rewards: `rewards` has 2 elements, which is no multiple of 3 reward functions. Nothing was written.");
  CHECK(refusal([&] { sum_rewards(rewards, weights, scored); }) ==
        "plumb: sum_rewards: argument `given` has 8 elements, but `rewards` has 16. Nothing was written.");
  const auto g = equal_groups(2, 4);
  const auto groups = g.layout(scored);
  const auto run = [&](const std::vector<double>& x, const std::vector<double>& w) {
    return output_of<double>(8, gdpo_workspace(serial::backend<double>{}, groups, 8, 2), [&](auto& b, auto& scratch, auto& y) {
      gdpo(b, scratch, inputs(x, w), groups, {.each = {.epsilon = 0}, .whole = {.epsilon = 0}}, {.advantage = y});
    });
  };
  const auto a = run(rewards, weights);
  std::vector<double> counted;
  for (std::size_t s = 0; s < 8; ++s)
    if (scored[s] != 0) counted.push_back(a[s]);
  CHECK(gdpo(rewards, weights, g, {.each = {.epsilon = 0}, .whole = {.epsilon = 0}}, given).advantage == a);
  CHECK(a[4] == 0);
  CHECK(mean(counted) == Catch::Approx(0).margin(1e-14));
  CHECK(sd(counted) == Catch::Approx(1).epsilon(1e-14));
  // Whatever the scale of a function, it counts by its weight; with weight 0 not at all, be it NaN.
  auto louder = rewards;
  for (std::size_t s = 0; s < 8; ++s) louder[2 * s + 1] *= 1000;
  check_near(run(louder, weights), a, 1e-13);
  for (std::size_t s = 0; s < 8; ++s) louder[2 * s + 1] = not_a_number;
  for (double x : run(louder, {1, 0})) CHECK(!std::isnan(x));
  CHECK(std::isnan(run(louder, weights)[0]));
}

TEST_CASE("gdpo: three ranks are one rank") {
  const auto rewards = normal_numbers(7, 20, 2, 3);
  const std::vector<double> weights{1, 0.5};
  const auto g = equal_groups(5, 2);
  const auto together = gdpo(rewards, weights, g);
  std::vector<double> advantage(10), sum(10);
  const int rounds = on_three_ranks<double>(5, [&](auto& me, index_t first, index_t n) {
    const auto own = equal_groups(n, 2);
    std::vector<double> a(static_cast<std::size_t>(2 * n)), u(a.size());
    desk<double> d;
    gdpo(d.compute, d.scratch, me, {.rewards = view<const double, 2>(rewards.data() + 4 * first, 2 * n, 2), .weights = weights}, own.layout(), {},
         {.advantage = a, .sum = u});
    std::copy(a.begin(), a.end(), advantage.begin() + 2 * first);
    std::copy(u.begin(), u.end(), sum.begin() + 2 * first);
  });
  CHECK(rounds == 3);
  check_near(sum, together.sum, 1e-14);
  check_near(advantage, together.advantage, 1e-13);
}

TEST_CASE("group advantage: what is refused, in a sentence, with nothing written") {
  const std::vector<double> r{1, 2, 3, 4}, three{1, 2, 3};
  const auto g = equal_groups(2, 2);
  std::vector<double> a(4, 5), m(3, 5);
  desk<double> on;
  const auto run = [&](const group_advantage_inputs<double>& in, const group_advantage_outputs<double>& out, const advantage::grpo& f = {}) {
    return refusal([&] { group_advantage(on.compute, on.scratch, in, f, out); });
  };
  CHECK(run({.rewards = r}, {.advantage = a}) == "plumb: group_advantage: no groups are given, but there are 4 replies. Nothing was written.");
  CHECK(run({r, g.layout()}, {.mean = m}) ==
        "plumb: group_advantage: argument `mean` has shape [3], but its dimension 0 must be 2 (the number of groups). Nothing was written.");
  CHECK(run({r, g.layout()}, {.advantage = a}, {.epsilon = -1}) ==
        "plumb: group_advantage: option `epsilon` is -1 but must be 0 or positive. Nothing was written.");
  std::vector<double> in_place = r;
  CHECK(run({in_place, g.layout()}, {.advantage = in_place}) ==
        "plumb: group_advantage: output `advantage` overlaps `rewards` in memory. Nothing was written.");
  CHECK(refusal([&] { group_advantage(three, g); }) ==
        "plumb: group_advantage: argument `rewards` has shape [3], but its dimension 0 must be 4 (the number of replies in the groups). Nothing was "
        "written.");
  CHECK(a == std::vector<double>(4, 5));
  CHECK(in_place == r);
}

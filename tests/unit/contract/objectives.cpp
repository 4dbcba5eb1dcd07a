// What every objective promises about the machine below: after the first call it allocates nothing, starts no thread, waits for nothing.

#include "support/allocations.hpp"
#include "support/catch.hpp"

#include <plumb/plumb.hpp>
#include <plumb/testing/memory.hpp>

#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#endif

#include <algorithm>
#include <filesystem>
#include <vector>

#include <dlfcn.h>

using namespace plumb;
using plumb_test::allocations;

#if __has_include(<plumb/backends/onednn.hpp>)
namespace {
int waits = 0;
}
// Stands before oneDNN's own: whatever waits for a stream passes here.
extern "C" dnnl_status_t dnnl_stream_wait(dnnl_stream_t stream) {
  ++waits;
  static const auto real = reinterpret_cast<dnnl_status_t (*)(dnnl_stream_t)>(dlsym(RTLD_NEXT, "dnnl_stream_wait"));
  return real(stream);
}
#endif

namespace {

/// The serial backend, whose `sync` counts.
struct counting : serial::backend<float> {
  int syncs = 0;
  void sync() { ++syncs; }
};

std::vector<float> numbers(std::uint64_t seed, index_t count) {
  const auto x = testing::normal_numbers(seed, count);
  return {x.begin(), x.end()};
}

/// Inputs and outputs of every objective.
struct batch {
  static constexpr index_t n = 24, d = 16, v = 50, pairs = 6, replies = 6, attributes = 5, sequences = 4;
  std::vector<float> logits = numbers(1, n * v), hidden = numbers(2, n * d), head = numbers(3, v * d), bias = numbers(4, v), chosen = numbers(5, pairs),
                     rejected = numbers(6, pairs), logp = numbers(7, n), ref_logp = numbers(8, n), prediction = numbers(9, replies * attributes),
                     label = numbers(10, replies * attributes), weights = numbers(11, attributes);
  std::vector<std::int32_t> targets = std::vector<std::int32_t>(n, 3), begin{0, 6, 12, 18}, end{6, 12, 18, 24}, first{0, 2}, second{1, 3};
  std::vector<float> loss{0}, a = std::vector<float>(n), b = std::vector<float>(n), c = std::vector<float>(n), d_logits = std::vector<float>(n * v),
                     d_hidden = std::vector<float>(n * d), d_head = std::vector<float>(v * d), d_bias = std::vector<float>(v),
                     d_prediction = std::vector<float>(replies * attributes), metrics = std::vector<float>(28);
  std::vector<float> values = numbers(12, n), old_values = numbers(13, n), scores = numbers(14, n), teacher = numbers(15, n * v), state{3, 0, 1},
                     judged = std::vector<float>(n, 1), outputs = std::vector<float>(5 * n);
  std::vector<std::int32_t> group_begin{0, 2}, group_end{2, 4}, mirrored_begin{18, 12, 6, 0}, mirrored_end{24, 18, 12, 6},
      listed = std::vector<std::int32_t>(n * 4);
  std::vector<std::uint8_t> labels{1, 0, 0, 1}, kept = std::vector<std::uint8_t>(n, 1), left = std::vector<std::uint8_t>(n);
  std::vector<char> memory = std::vector<char>(1 << 20);

  /// Calls `f(name, call)` for each objective on `compute`; `gemms` is how many products the call makes.
  template <class B, class F>
  void each_objective(B& compute, const F& f) {
    arena<> scratch(memory);
    const token_logp_inputs<float> rows{view(logits.data(), n, v), targets};
    f("token_logp", 0, [&] { token_logp(compute, scratch, rows, {.temperature = 0.7}, {a, b, c}); });
    f("token_logp_backward", 0, [&] { token_logp_backward(compute, scratch, rows, {}, {b, a, c, a}, view(d_logits.data(), n, v)); });
    const linear_token_logp_inputs<float> states{view(hidden.data(), n, d), view(head.data(), v, d), bias, targets, {}};
    f("linear_token_logp", 3, [&] { linear_token_logp(compute, scratch, states, {.chunk_rows = 8}, {a, b, {}}); });
    f("linear_token_logp_backward", 9, [&] {
      linear_token_logp_backward(compute, scratch, states, {.chunk_rows = 8}, {.log_sum_exp = b, .d_logp = a},
                                 {.d_hidden = view(d_hidden.data(), n, d), .d_head = view(d_head.data(), v, d), .d_bias = d_bias});
    });
    f("bradley_terry", 0, [&] {
      bradley_terry(compute, scratch, {.chosen = chosen, .rejected = rejected}, {.center_coefficient = 0.1, .denominator = pairs},
                    {.loss = loss, .d_chosen = view(a).slice(0, pairs), .metrics = view(metrics.data(), 7, 2)});
    });
    f("attribute_regression", 0, [&] {
      attribute_regression(compute, scratch, {view(prediction.data(), replies, attributes), view(label.data(), replies, attributes)},
                           {.denominator = 30}, {loss, view(d_prediction.data(), replies, attributes), view(metrics.data(), attributes, 2)});
    });
    f("goal_reward", 1, [&] {
      goal_reward(compute, scratch, view(prediction.data(), replies, attributes), weights, {.mean = 1}, view(a).slice(0, replies));
    });
    const sequence_layout<> layout{begin, end, {}};
    f("supervised", 0, [&] {
      supervised(compute, scratch, {logp, layout}, {.denominator = 24}, {loss, a, view(metrics.data(), 2, 2)});
    });
    f("dpo", 0, [&] {
      dpo(compute, scratch, {logp, ref_logp, {layout, first, second}}, {.denominator = 2}, {loss, a, {}, view(metrics.data(), 6, 2)});
    });
    of_pairs(compute, scratch, layout, f);
    of_tokens(compute, scratch, layout, f);
    of_replies(compute, scratch, layout, f);
    of_models(compute, scratch, layout, f);
  }

  /// The k-th output, the first `count` numbers of it.
  view<float, 1> y(index_t k, index_t count = n) { return view<float, 1>(outputs).slice(k * n, count); }
  view<float, 2> rows(index_t k) { return view<float, 2>(metrics.data(), k, 2); }
  view<const float, 1> score(index_t count = sequences) const { return view<const float, 1>(scores).slice(0, count); }

  // Preferences: pairs, and replies with a label.
  template <class B, class F>
  void of_pairs(B& compute, arena<>& scratch, const sequence_layout<>& layout, const F& f) {
    const preference_pairs<> two{layout, first, second};
    const preference_inputs<float> in{.logp = logp, .ref_logp = ref_logp, .pairs = two};
    for (const pair_matching matching : {pair_matching::given, pair_matching::ranked})
      f("preference", 0, [&] {
        preference(compute, scratch, in, link::hinge{}, {.matching = matching, .denominator = 2}, {loss, a, y(0, 2), rows(6)});
      });
    preference_inputs<float> judged_pairs = in;
    judged_pairs.reward_chosen = score(2);
    judged_pairs.reward_rejected = view<const float, 1>(values).slice(0, 2);
    f("preference, general", 0, [&] {
      preference(compute, scratch, judged_pairs, link::sppo{}, divergence::js{}, {.score = reply_score::mean, .denominator = 2},
                 {loss, a, y(0, 2), rows(6)});
    });
    const auto p = [&](const std::vector<float>& x) { return view<const float, 1>(x).slice(0, 2); };
    f("preference_sums", 0, [&] {
      preference_sums(compute, scratch, {p(chosen), p(rejected), p(values), p(old_values)}, link::ipo{}, {.denominator = 2},
                      {loss, y(0, 2), y(1, 2), y(2, 2), rows(6)});
    });
    f("cpo", 0, [&] { cpo(compute, scratch, {logp, two}, {.likelihood = {.denominator = 12}, .denominator = 2}, {loss, a, y(0, 2), rows(7)}); });
    f("orpo", 0, [&] { orpo(compute, scratch, {logp, two}, {.likelihood = {.denominator = 12}, .denominator = 2}, {loss, a, y(0, 2), rows(9)}); });
    f("simpo", 0, [&] {
      simpo(compute, scratch, {logp, two}, {.alpha = 0.1, .likelihood = {.denominator = 12}, .denominator = 2}, {loss, a, y(0, 2), rows(7)});
    });
    f("tpo", 0, [&] {
      tpo(compute, scratch, {logp, two, layout}, {.likelihood = {.denominator = 24}, .denominator = 2}, {loss, a, y(0, 2), rows(7)});
    });
    f("xpo", 0, [&] { xpo(compute, scratch, {logp, ref_logp, two, layout}, {.denominator = 2}, {loss, a, y(0, 2), rows(7)}); });
    f("ld_dpo_weights", 0, [&] { ld_dpo_weights(compute, scratch, two, {.alpha = 0.5}, a); });
    f("wpo_weights", 0, [&] { wpo_weights(compute, scratch, {logp, {}, two}, y(0, 2)); });
    f("sync_reference", 0, [&] { sync_reference(compute, view<const float, 1>(logp), {}, y(0)); });
    f("kto_kl", 0, [&] { kto_kl(compute, scratch, {logp, ref_logp, layout}, {}, {.kl = loss, .sums = y(0, 2)}); });
    f("kto", 0, [&] {
      kto(compute, scratch, {.logp = logp, .ref_logp = ref_logp, .sequences = layout, .desirable = labels, .kl = score(1)}, {.denominator = 4},
          {loss, a, y(0, 4), rows(5)});
    });
    const bco_inputs<float> labelled{.logp = logp, .ref_logp = ref_logp, .sequences = layout, .desirable = labels, .shift = score(1)};
    f("bco_moments", 0, [&] { bco_moments(compute, scratch, labelled, {}, state); });
    f("bco", 0, [&] { bco(compute, scratch, labelled, {.denominator = 4}, {loss, a, y(0, 4), rows(5)}); });
    f("nash_md", 0, [&] {
      nash_md(compute, scratch, {logp, ref_logp, layout, score()}, {.denominator = 4}, {loss, a, y(0, 4), y(1, 4), rows(4)});
    });
  }

  // Policy gradients: losses of tokens, returns, weights.
  template <class B, class F>
  void of_tokens(B& compute, arena<>& scratch, const sequence_layout<>& layout, const F& f) {
    const policy_loss_inputs<float> in{
        .logp = logp, .old_logp = ref_logp, .advantages = values, .ref_logp = old_values, .entropy = scores, .sequences = layout};
    for (const surrogate_level level : {surrogate_level::token, surrogate_level::sequence_mean})
      f("policy_loss", 0, [&] {
        policy_loss(compute, scratch, in, surrogate::clip{}, {.level = level, .kl_coefficient = 0.1, .entropy_coefficient = 0.1, .denominator = 24},
                    {loss, a, b, c, y(0), rows(12)});
      });
    f("policy_loss, gmpo", 0, [&] { policy_loss(compute, scratch, in, surrogate::gmpo{}, {.denominator = 24}, {.loss = loss, .d_logp = a}); });
    f("value_loss", 0, [&] { value_loss(compute, scratch, {values, old_values, scores, layout}, {.denominator = 24}, {loss, a, rows(6)}); });
    f("aggregate", 0, [&] { aggregate(compute, scratch, {values, layout}, {.denominator = 24}, {loss, a}); });
    f("token_statistics", 0, [&] { token_statistics(compute, scratch, {values, layout}, rows(4)); });
    f("token_kl", 0, [&] { token_kl(compute, scratch, {logp, ref_logp, layout}, {}, {a, b}); });
    f("kl_penalty", 0, [&] { kl_penalty(compute, scratch, {logp, ref_logp, layout}, {.denominator = 24}, {loss, a, b, rows(2)}); });
    f("token_rewards", 0, [&] {
      token_rewards(compute, scratch, {values, score(), labels, layout}, {.placement = score_placement::after_last}, {a, y(0, 4)});
    });
    const trajectory_inputs<float> played{.rewards = scores, .values = values, .bootstrap = score(), .sequences = layout};
    f("gae", 0, [&] { gae(compute, scratch, played, {}, {a, b}); });
    f("gae_backward", 0, [&] {
      gae_backward(compute, scratch,
                   {.d_advantages = values, .sequences = layout, .mirrored_begin = mirrored_begin, .mirrored_end = mirrored_end}, {}, {a, b, y(0, 4)});
    });
    f("discounted_returns", 0, [&] { discounted_returns(compute, scratch, {scores, score(), {}, layout}, {.gamma = 0.9}, {a}); });
    f("lambda_returns", 0, [&] {
      lambda_returns(compute, scratch, {.rewards = scores, .next_values = values, .sequences = layout}, {}, {a});
    });
    f("n_step_returns", 0, [&] { n_step_returns(compute, scratch, played, {.steps = 2}, {a}); });
    f("vtrace", 0, [&] {
      vtrace(compute, scratch, {.rewards = scores, .values = values, .log_ratio = old_values, .sequences = layout}, {}, {a, b, c, y(0)});
    });
    f("moments", 0, [&] { moments(compute, scratch, {values, layout}, {}, {y(0, 1), y(1, 1), y(2, 1)}); });
    f("whiten", 0, [&] { whiten(compute, scratch, {values, layout}, {}, {a, y(0, 1), y(1, 1)}); });
    f("reinforce_plus_plus", 0, [&] { reinforce_plus_plus(compute, scratch, {scores, layout}, {}, {a, b}); });
    f("optimal_token_baseline", 0, [&] {
      optimal_token_baseline(compute, scratch,
                             {.rewards = scores, .logp = logp, .sum_p_squared = values, .cells = targets, .sequences = layout}, 4, {}, {a, b});
    });
    f("remax", 0, [&] { remax(compute, scratch, {scores, score(), layout}, {a, b}); });
    for (const ratio_level level : {ratio_level::token, ratio_level::sequence_sum}) {
      f("importance_weights", 0, [&] {
        importance_weights(compute, scratch, {.logp = logp, .sampler_logp = ref_logp, .sequences = layout}, correction::truncated{},
                           {.level = level, .normalize = true}, {a, rows(5)});
      });
      f("reject_tokens", 0, [&] {
        reject_tokens(compute, scratch, {logp, ref_logp, kept, layout}, rejection::k1{}, {.level = level}, {left, rows(5)});
      });
    }
    f("ratio_statistics", 0, [&] { ratio_statistics(compute, scratch, {logp, ref_logp, layout}, {}, rows(14)); });
    f("covariance_selection", 0, [&] {
      covariance_selection(compute, scratch, {.logp = logp, .advantages = values, .sequences = layout}, {.count = 3}, {a, b, c});
    });
  }

  // One number per reply: advantages by group, weights.
  template <class B, class F>
  void of_replies(B& compute, arena<>& scratch, const sequence_layout<>& layout, const F& f) {
    const sequence_layout<> groups{group_begin, group_end, {}};
    const group_advantage_inputs<float> in{score(), groups};
    f("group_advantage", 0, [&] { group_advantage(compute, scratch, in, advantage::grpo{}, {y(0, 4), y(1, 2), y(2, 2)}); });
    f("group_advantage, batch", 0, [&] { group_advantage(compute, scratch, in, advantage::batch_scaled{}, {y(0, 4), y(1, 2), y(2, 2)}); });
    f("gpg_advantage", 0, [&] { gpg_advantage(compute, scratch, in, {}, y(0, 4)); });
    f("opo_advantage", 0, [&] { opo_advantage(compute, scratch, {score(), score(), groups}, {}, y(0, 4)); });
    f("passk_advantage", 0, [&] { passk_advantage(compute, scratch, in, {}, y(0, 4)); });
    f("varied_groups", 0, [&] { varied_groups(compute, scratch, in, {}, y(0, 2)); });
    f("reinforce_plus_plus_baseline", 0, [&] { reinforce_plus_plus_baseline(compute, scratch, {score(), groups, layout}, {}, a); });
    f("shape_rewards", 0, [&] { shape_rewards(compute, scratch, {score(), score(), {}}, shaping::overlong{}, y(0, 4)); });
    f("reply_lengths", 0, [&] { reply_lengths(compute, scratch, layout, n, y(0, 4)); });
    const several_rewards_inputs<float> several{.rewards = {scores.data(), 4, 2}, .weights = score(2)};
    f("sum_rewards", 0, [&] { sum_rewards(compute, scratch, several, y(0, 4)); });
    f("gdpo", 0, [&] { gdpo(compute, scratch, several, groups, {}, {y(0, 4), y(1, 4), {y(2, 8).data(), 4, 2}}); });
    f("update_moments", 0, [&] { update_moments(compute, scratch, view<const float, 1>(values), view<float, 1>(state)); });
    f("merge_moments", 0, [&] { merge_moments(compute, scratch, score(3), view<float, 1>(state)); });
    f("segment_log_softmax", 0, [&] { segment_log_softmax(compute, scratch, {score(), groups}, {y(0, 4), y(1, 4), y(2, 2)}); });
    f("steerlm2_weights", 0, [&] {
      steerlm2_weights(compute, scratch, {score(), score(), score(), groups}, {y(0, 4), y(1, 4), y(2, 2)});
    });
    f("steerlm2", 0, [&] {
      steerlm2(compute, scratch, {logp, layout, score(), score(), groups}, {.denominator = 2}, {loss, a, y(0, 4), y(1, 4), rows(4)});
    });
  }

  // Models of rewards, heads, whole distributions, parameters.
  template <class B, class F>
  void of_models(B& compute, arena<>& scratch, const sequence_layout<>& layout, const F& f) {
    const view<const float, 2> rated(prediction.data(), replies, attributes), x(logits.data(), n, v), other(teacher.data(), n, v);
    const reward_head_inputs<float, float> in{
        .hidden = view(hidden.data(), n, d), .head = view(head.data(), 5, d), .sequences = layout, .attribute_weights = weights};
    f("reward_head", 2, [&] { reward_head(compute, scratch, in, {}, {y(0, 4), {d_head.data(), 4, 5}}); });
    f("reward_head_backward", 2, [&] {
      reward_head_backward(compute, scratch, in, {}, {.d_reward = score()}, {view(d_hidden.data(), n, d), view(d_head.data(), 5, d), y(0, 5)});
    });
    f("attribute_posterior", 0, [&] {
      attribute_posterior(compute, scratch, {rated, {label.data(), replies, attributes}}, {},
                          {y(0, replies), {d_prediction.data(), replies, attributes}});
    });
    f("rated_bradley_terry", 0, [&] {
      rated_bradley_terry(compute, scratch, {chosen, rejected, score(pairs)}, {.loss = {.denominator = pairs}},
                          {loss, y(0, pairs), y(1, pairs), y(2, pairs), rows(7)});
    });
    f("process_reward", 0, [&] {
      process_reward(compute, scratch, {values, old_values, judged}, {.denominator = 24}, {loss, a, b, c, rows(2)});
    });
    f("round_ratings", 0, [&] { round_ratings(compute, rated, {}, view(d_prediction.data(), replies, attributes)); });
    f("standardize_rewards", 0, [&] { standardize_rewards(compute, score(), state, {}, y(0, 4)); });
    f("extrapolate_weights", 0, [&] { extrapolate_weights(compute, view<const float, 1>(logp), ref_logp, {}, y(0)); });
    f("log_sum_squares", 0, [&] { log_sum_squares(compute, scratch, x, {}, {a, b, c}); });
    f("log_sum_squares_backward", 0, [&] { log_sum_squares_backward(compute, x, {}, {b, c, a}, view(d_logits.data(), n, v)); });
    f("exact_kl", 0, [&] { exact_kl(compute, scratch, {x, other}, {a, {d_logits.data(), n, v}}); });
    const distillation_options options{.denominator = 24, .chunk_rows = 8};
    const distillation_outputs<float> out{loss, a, {d_logits.data(), n, v}, rows(2)};
    f("distillation", 0, [&] {
      distillation(compute, scratch, distillation_inputs<float>{.logits = x, .teacher_logits = other, .sequences = layout}, distill::jensen_shannon{},
                   options, out);
    });
    for (std::size_t i = 0; i < listed.size(); ++i) listed[i] = static_cast<std::int32_t>(i % 4);
    f("distillation, top k", 0, [&] {
      distillation(compute, scratch,
                   distillation_inputs<float>{.logits = x, .teacher_ids = {listed.data(), n, 4}, .teacher_logp = {teacher.data(), n, 4}},
                   distill::jensen_shannon{}, options, out);
    });
  }
};

std::size_t threads() {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) ++n;
  return n;
}

}  // namespace

TEST_CASE("contract: on serial, an objective allocates nothing and never waits") {
  counting compute;
  batch x;
  x.each_objective(compute, [&](const char* name, int, const auto& call) {
    CAPTURE(name);
    call();
    const long long start = allocations();
    call();
    const long long made = allocations() - start;
    CHECK(made == 0);
  });
  CHECK(compute.syncs == 0);
}

TEST_CASE("contract: on serial, an objective starts no thread") {
  if (!std::filesystem::exists("/proc/self/task")) return plumb_test::skip("threads are counted in /proc, which is not mounted here");
  counting compute;  // not the backend itself: each instantiation of everything costs seconds
  batch x;
  const std::size_t before = threads();
  x.each_objective(compute, [&](const char*, int, const auto& call) { call(); });
  CHECK(threads() == before);
}

TEST_CASE("contract: the counter sees an allocation") {
  const long long start = allocations();
  delete new int;
  CHECK(allocations() == start + 1);
}

#if __has_include(<plumb/backends/onednn.hpp>)
TEST_CASE("contract: on onednn, an objective allocates no more than its products, and never waits for the stream") {
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const dnnl::stream stream{engine};
  onednn::backend compute{engine, stream};
  batch x;
  // What one product allocates here: tests/unit/backends/onednn.cpp holds it to what the bare primitive does.
  std::vector<float> c(64);
  arena<> scratch(x.memory);
  long long per_product = 0;
  for (const float beta : {0.0f, 1.0f}) {
    const auto product = [&] {
      compute.gemm(scratch, 1.0f, view<const float, 2>(x.hidden.data(), 8, 8), view<const float, 2>(x.head.data(), 8, 8), beta, view(c.data(), 8, 8));
    };
    product();
    const long long start = allocations();
    product();
    per_product = std::max(per_product, allocations() - start);
  }
  waits = 0;
  x.each_objective(compute, [&](const char* name, int products, const auto& call) {
    CAPTURE(name, per_product);
    call();
    const long long at = allocations();
    call();
    const long long made = allocations() - at;
    CHECK(made <= products * per_product);
  });
  CHECK(waits == 0);
  compute.sync();
  CHECK(waits == 1);
}
#endif

#pragma once
// The best of several replies by a reward: what to expect of it, which texts to keep, and a policy that learns to write them at once. Best-of-n
// distillation, RAFT (arXiv:2304.06767), ReST (arXiv:2308.08998), Llama 2's rejection sampling (arXiv:2307.09288, section 3.2.3).

#include <plumb/algorithms/loop.hpp>
#include <plumb/objectives/supervised.hpp>
#include <plumb/ops/prompt_groups.hpp>

PLUMB_NAMESPACE_BEGIN

/// The expected `value` of the best of `n` replies by `score`, over which `n` of the `N` that were drawn (all equally likely): the reply of rank `k`
/// from below is the best with probability C(k - 1, n - 1) / C(N, n). Without bias, and with less variance than any one choice of `n`. Replies that
/// score the same share what they would get. Stiennon et al., arXiv:2009.01325; Nakano et al., arXiv:2112.09332. Both `[N]`; `value` may be `score`.
inline double expected_best(std::span<const double> score, std::span<const double> value, index_t n) {
  constexpr const char* op = "expected_best";
  const auto total = static_cast<index_t>(score.size());
  if (value.size() != score.size()) fail(message(op) << "there are " << score.size() << " scores, but " << value.size() << " values.");
  if (n < 1 || n > total) fail(message(op) << "n is " << n << ", but must be from 1 to " << total << ", the number of replies.");
  std::vector<std::size_t> order(score.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (const std::size_t i : order)
    if (std::isnan(score[i])) fail(message(op) << "the score of reply " << i << " is not a number.");
  std::ranges::sort(order, std::ranges::greater{}, [&](std::size_t i) { return score[i]; });
  double sum = 0, chance = static_cast<double>(n) / static_cast<double>(total);  // of rank k, from the best down
  for (index_t k = total; k >= n;) {
    double equal_chance = 0, equal_value = 0, equals = 0;
    const double level = score[order[static_cast<std::size_t>(total - k)]];
    for (; k >= 1 && score[order[static_cast<std::size_t>(total - k)]] == level; --k) {
      equal_value += value[order[static_cast<std::size_t>(total - k)]];
      ++equals;
      if (k < n) continue;
      equal_chance += chance;
      if (k > n) chance *= static_cast<double>(k - n) / static_cast<double>(k - 1);
    }
    sum += equal_chance * equal_value / equals;
  }
  return sum;
}

/// `log n - (n - 1)/n`: the KL of the best of `n` to what the replies were drawn from, in nats. Exact where no two replies score the same
/// and none has a probability worth speaking of; otherwise above it (arXiv:2401.01879, theorem 3.1).
inline double best_of_n_kl(index_t n) {
  if (n < 1) fail(message("best_of_n_kl") << "n is " << n << ", but must be 1 or more.");
  const auto x = static_cast<double>(n);
  return std::log(x) - (x - 1) / x;
}

/// Which texts are kept, by group and score: each a choice of rows, prompt by prompt, the best first, the first of equals first. Your own is such a
/// struct: `require`, and the call.
namespace keep {

namespace detail {
template <class Score>
std::vector<std::int32_t> ranked(const prompt_groups& groups, std::size_t g, const Score& score) {
  std::vector<std::int32_t> rows(groups.order.begin() + groups.begin[g], groups.order.begin() + groups.end[g]);
  std::ranges::stable_sort(rows, std::ranges::greater{}, [&](std::int32_t s) { return score[static_cast<std::size_t>(s)]; });
  return rows;
}
}  // namespace detail

/// The `count` best replies to each prompt. 1: best of n, RAFT.
struct best {
  index_t count = 1;

  void require(const char* op) const { require_option(op, "count", static_cast<double>(count), count >= 1, "1 or more"); }
  template <class Real>
  std::vector<std::int32_t> operator()(const prompt_groups& groups, std::span<const Real> score) const {
    std::vector<std::int32_t> rows;
    for (std::size_t g = 0; g < groups.begin.size(); ++g) {
      auto of_prompt = detail::ranked(groups, g, score);
      of_prompt.resize(std::min(static_cast<std::size_t>(count), of_prompt.size()));
      rows.insert(rows.end(), of_prompt.begin(), of_prompt.end());
    }
    return rows;
  }
};

/// Every reply that scores above `threshold`, of each prompt the `most` best: ReST, which raises the threshold from update to update; with
/// verified answers, a score of 0 or 1, and `most` 10, ReST-EM (arXiv:2312.06585).
struct above {
  double threshold = 0;
  index_t most = 0;  ///< of a prompt; 0: no limit

  void require(const char* op) const {
    require_option(op, "threshold", threshold, true, "a number");
    require_option(op, "most", static_cast<double>(most), most >= 0, "0 (no limit) or positive");
  }
  template <class Real>
  std::vector<std::int32_t> operator()(const prompt_groups& groups, std::span<const Real> score) const {
    std::vector<std::int32_t> rows;
    for (std::size_t g = 0; g < groups.begin.size(); ++g) {
      index_t kept = 0;
      for (const std::int32_t s : detail::ranked(groups, g, score))
        if (static_cast<double>(score[static_cast<std::size_t>(s)]) > threshold && (most == 0 || kept < most)) rows.push_back(s), ++kept;
    }
    return rows;
  }
};

/// The best share of all texts, whatever their prompts (RAFT's global ranking): prompts to which every reply scores well crowd out the others.
struct best_share {
  double share = 0.25;  ///< rounded up to whole texts

  void require(const char* op) const { require_option(op, "share", share, share > 0 && share <= 1, "in (0, 1]"); }
  template <class Real>
  std::vector<std::int32_t> operator()(const prompt_groups& groups, std::span<const Real> score) const {
    auto all = groups.order;
    std::ranges::stable_sort(all, std::ranges::greater{}, [&](std::int32_t s) { return score[static_cast<std::size_t>(s)]; });
    all.resize(static_cast<std::size_t>(std::ceil(share * static_cast<double>(all.size()))));
    std::vector<std::uint8_t> in(groups.order.size());
    for (const std::int32_t s : all) in[static_cast<std::size_t>(s)] = 1;
    std::vector<std::int32_t> rows;
    for (std::size_t g = 0; g < groups.begin.size(); ++g)
      for (const std::int32_t s : detail::ranked(groups, g, score))
        if (in[static_cast<std::size_t>(s)]) rows.push_back(s);
    return rows;
  }
};

}  // namespace keep

/// Options of `best_of_n`.
template <class Keep = keep::best>
struct best_of_n_options {
  Keep keep{};
  supervised_options supervised{};  ///< `denominator` is set by the loop: tokens or texts of a minibatch, as `aggregate` says
  index_t replies = 4;          ///< to each start, in `step`
  bool greedy_first = false;    ///< the first of them is the likeliest one, token by token (temperature 0): it wins where none scores higher
  bool skip_truncated = false;  ///< texts that were cut off are not kept
  bool distinct = false;        ///< of equal replies to a prompt, one is kept (arXiv:2308.01825)
  double temperature = 1;       ///< at which the kept texts are learned, whatever they were drawn at; 0: as they were drawn
  int epochs = 1;               ///< passes over the kept texts
  index_t minibatches = 1;      ///< steps of the optimiser per epoch
  index_t micro_batch = 0;      ///< texts per forward and backward pass; 0: a whole minibatch. Changes nothing but rounding and memory
  double rate = 2e-5;           ///< usual for supervised fine-tuning of a model of 7e9 weights
  std::uint64_t seed = 0;       ///< of the order of minibatches

  void require(const char* op) const {
    keep.require(op);
    supervised.require(op);
    require_option(op, "replies", static_cast<double>(replies), replies >= 1, "1 or more");
    require_option(op, "temperature", temperature, temperature >= 0, "0 (as they were drawn) or positive");
    detail::require_loop(op, epochs, minibatches, micro_batch);
    require_option(op, "rate", rate, rate >= 0, "0 or positive");
  }
};

/// The rows of `r` that `keep` keeps by `score` `[S]`: with `keep::best{}`, the best reply to each prompt, in the order in which prompts come. Texts
/// without own tokens are never kept, those that were cut off unless `skip_truncated`.
template <class Real, class Keep = keep::best>
std::vector<std::int32_t> kept_rows(const rollouts<Real>& r, std::span<const std::type_identity_t<Real>> score, const Keep& keep = {},
                                    bool skip_truncated = false, bool distinct = false) {
  constexpr const char* op = "kept_rows";
  keep.require(op);
  if (static_cast<index_t>(score.size()) != r.size()) fail(message(op) << "there are " << score.size() << " scores, but " << r.size() << " texts.");
  const prompt_groups groups = group_by_prompt(r.prompt);
  std::vector<std::int32_t> texts, prompts;  // that may be kept
  std::vector<Real> scores;
  for (std::size_t g = 0; g < groups.begin.size(); ++g) {
    const std::size_t first = texts.size();
    for (auto at = groups.begin[g]; at < groups.end[g]; ++at) {
      const std::int32_t s = groups.order[static_cast<std::size_t>(at)];
      const Real x = score[static_cast<std::size_t>(s)];
      if (!std::isfinite(x)) fail(message(op) << "the score of text " << s << " is " << static_cast<double>(x) << ".");
      if (r.own_count(s) == 0 || (skip_truncated && !r.ended[static_cast<std::size_t>(s)])) continue;
      const auto equal = [&](std::int32_t other) { return std::ranges::equal(r.text_of(s), r.text_of(other)); };
      if (distinct && std::any_of(texts.begin() + static_cast<std::ptrdiff_t>(first), texts.end(), equal)) continue;
      texts.push_back(s);
      prompts.push_back(r.prompt[static_cast<std::size_t>(s)]);
      scores.push_back(x);
    }
  }
  std::vector<std::int32_t> rows = keep(group_by_prompt(prompts), std::span<const Real>(scores));
  for (std::int32_t& row : rows) row = texts[static_cast<std::size_t>(row)];
  return rows;
}

/// What one update saw. NaN: over nothing.
struct best_of_n_metrics {
  double score = 0, score_best = 0, score_kept = 0;  ///< of the reward model: over texts, over the best of each prompt, over what was kept
  double loss = 0;   ///< mean over the minibatches
  double nll = 0;    ///< per token of the kept texts, before each step
  double length = 0, length_kept = 0, ended = 0;  ///< own tokens of a text; share of texts
  std::int64_t texts = 0, tokens = 0, prompts = 0, without = 0, kept = 0;  ///< `without`: prompts of which nothing was kept
  int steps = 0;     ///< 0: nothing was kept, and nothing was trained

  /// `f(name, value)` for each number.
  template <class F>
  void visit(F f) const {
    f("score", score), f("score_best", score_best), f("score_kept", score_kept), f("loss", loss), f("nll", nll), f("length", length);
    f("length_kept", length_kept), f("ended", ended), f("texts", static_cast<double>(texts)), f("tokens", static_cast<double>(tokens));
    f("prompts", static_cast<double>(prompts)), f("without", static_cast<double>(without)), f("kept", static_cast<double>(kept)), f("steps", steps);
  }
};

/// One update after the other, on a backend in host memory: replies are scored, some are kept, the policy learns them as `supervised` does. Owns its
/// scratch memory, no model. What is to be resumed is `state()`, beside the model.
template <class B, class Keep = keep::best>
class best_of_n {
 public:
  using real = real_of<B>;
  static_assert(std::is_same_v<space_of<B>, host_space>,
                "plumb: the loop of best_of_n keeps its numbers in host memory; with device memory call kept_rows and supervised: see "
                "docs/algorithms/best_of_n.md");
  using options_type = best_of_n_options<Keep>;

  /// What a run needs to go on: `restore` it beside the model's own checkpoint.
  struct state_type {
    std::uint64_t updates = 0;
  };

  explicit best_of_n(B& compute, options_type options = {}) : b_(compute), o_(options) { o_.require("best_of_n"); }

  const options_type& options() const { return o_; }
  const state_type& state() const { return state_; }
  void restore(const state_type& s) { state_ = s; }
  /// Learning rate of the updates to come.
  void set_rate(double rate) {
    require_option("best_of_n", "rate", rate, rate >= 0, "0 or positive");
    o_.rate = rate;
  }
  /// What is kept in the updates to come: ReST's rising threshold.
  void set_keep(const Keep& keep) {
    keep.require("best_of_n");
    o_.keep = keep;
  }

  /// `options().replies` texts from each start, one after the other, as `policy` writes them. With `greedy_first`, log-probabilities of the greedy
  /// texts are those at temperature 1, whatever `rollouts::temperature` says.
  template <class Policy, std::ranges::contiguous_range States>
  rollouts<real> write(Policy& policy, const States& starts, const sampling& how) const {
    using state = std::ranges::range_value_t<States>;
    static_assert(generator<Policy, real, state>,
                  "plumb: this policy has no generate(starts, sampling) that gives rollouts: see docs/models.md, \"generate\"");
    const auto written = [&](index_t count, double temperature) {
      auto s = how;
      s.temperature = temperature;
      return detail::written<real>("best_of_n", policy, detail::repeated(starts, count), s);
    };
    if (!o_.greedy_first) return written(o_.replies, how.temperature);
    rollouts<real> all = written(1, 0);
    if (o_.replies == 1) return all;
    const rollouts<real> drawn = written(o_.replies - 1, how.temperature);
    all.temperature = drawn.temperature;
    all.append(drawn);
    const auto prompts = static_cast<std::int32_t>(std::ranges::size(starts)), each = static_cast<std::int32_t>(o_.replies);
    std::vector<std::int32_t> rows;
    for (std::int32_t p = 0; p < prompts; ++p)
      for (std::int32_t i = 0; i < each; ++i) rows.push_back(i == 0 ? p : prompts + p * (each - 1) + i - 1);
    return all.select(rows);
  }

  /// Scores `r`, keeps some, trains on them. Everything is asked and checked before anything is trained. `r` may hold texts of other writers.
  template <class Policy, class Reward>
  best_of_n_metrics update(Policy& policy, Reward& reward, const rollouts<real>& r) {
    constexpr const char* op = "best_of_n";
    static_assert(check_trainable<Policy, real>() && check_reward<Reward, real>());
    r.require(op);
    const auto score = detail::numbers_from<real>(op, "reward.reward", reward.reward(r), r.size(), "texts");
    detail::require_finite_texts(op, "reward.reward", score, r);
    const auto kept = kept_rows(r, score, o_.keep, o_.skip_truncated, o_.distinct);
    best_of_n_metrics m = describe(r, score, kept);
    detail::metric_sums<std::size(supervised_metrics)> sums;
    detail::for_each_minibatch(kept, o_.epochs, o_.minibatches, o_.seed, state_.updates, [&](std::span<const std::int32_t> rows) {
      double tokens = 0;
      for (const std::int32_t s : rows) tokens += static_cast<double>(r.own_count(s));
      auto options = o_.supervised;
      options.denominator = options.aggregate == aggregation::token_mean ? tokens : static_cast<double>(rows.size());
      detail::gradients_of gradients(policy);
      detail::for_each_micro_batch(rows, o_.micro_batch, [&](std::span<const std::int32_t> part) {
        rollouts<real> x = r.select(part);
        if (o_.temperature > 0) x.temperature = o_.temperature;
        const auto logp = detail::numbers_from<real>(op, "policy.forward", policy.forward(x), x.own_tokens(), "own tokens", m.steps);
        detail::require_finite_tokens(op, "policy.forward", logp, x, part, m.steps);
        std::vector<real> d_logp(logp.size());
        real loss = 0, metrics[std::size(supervised_metrics)][2] = {};
        plumb::supervised(b_, scratch_(supervised_workspace(b_, x.layout())), {.logp = logp, .sequences = x.layout()}, options,
                          {.loss = loss, .d_logp = d_logp, .metrics = view<real, 2>(&metrics[0][0], std::size(supervised_metrics), 2)});
        b_.sync();
        policy.backward(x, d_logp);
        m.loss += static_cast<double>(loss);
        sums.add(metrics);
      });
      gradients.use();
      policy.step(o_.rate);
      ++m.steps;
      return true;
    });
    m.loss /= m.steps;
    m.nll = sums.value(0);
    ++state_.updates;
    return m;
  }
  /// Writes (`write`) and trains on it; `how.step` is the number of the update.
  template <class Policy, class Reward, std::ranges::contiguous_range States>
  best_of_n_metrics step(Policy& policy, Reward& reward, const States& starts, sampling how) {
    how.step = state_.updates;
    return update(policy, reward, write(policy, starts, how));
  }

 private:
  static best_of_n_metrics describe(const rollouts<real>& r, const std::vector<real>& score, const std::vector<std::int32_t>& kept) {
    best_of_n_metrics m;
    m.texts = r.size(), m.tokens = r.own_tokens(), m.kept = static_cast<std::int64_t>(kept.size());
    detail::running_mean of_text, of_best, of_kept, length, length_kept, ended;
    for (index_t s = 0; s < r.size(); ++s) {
      of_text.add(static_cast<double>(score[static_cast<std::size_t>(s)]));
      length.add(static_cast<double>(r.own_count(s)));
      ended.add(r.ended[static_cast<std::size_t>(s)]);
    }
    std::vector<std::uint8_t> in(score.size());
    for (const std::int32_t s : kept) {
      of_kept.add(static_cast<double>(score[static_cast<std::size_t>(s)]));
      length_kept.add(static_cast<double>(r.own_count(s)));
      in[static_cast<std::size_t>(s)] = 1;
    }
    const prompt_groups groups = group_by_prompt(r.prompt);
    m.prompts = groups.groups();
    for (std::size_t g = 0; g < groups.begin.size(); ++g) {
      real best = -std::numeric_limits<real>::infinity();
      bool any = false;
      for (auto at = groups.begin[g]; at < groups.end[g]; ++at) {
        const auto s = static_cast<std::size_t>(groups.order[static_cast<std::size_t>(at)]);
        best = std::max(best, score[s]);
        any = any || in[s];
      }
      of_best.add(static_cast<double>(best));
      m.without += !any;
    }
    m.score = of_text.value(), m.score_best = of_best.value(), m.score_kept = of_kept.value();
    m.length = length.value(), m.length_kept = length_kept.value(), m.ended = ended.value();
    return m;
  }

  B& b_;
  options_type o_;
  state_type state_{};
  detail::loop_scratch scratch_{};
};

PLUMB_NAMESPACE_END

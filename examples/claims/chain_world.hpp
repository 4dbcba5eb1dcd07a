#pragma once
// The world in which SteerLM 2.0 is tried: short replies over few tokens, so that every reply to a prompt can be listed and the KL divergence to
// P(y | a, x) is a finite sum, not an estimate. And the models of that world, on small_models.hpp.

#include "claims/small_models.hpp"

#include <plumb/ops/attribute_posterior.hpp>

namespace claims {

struct chain_sizes {
  index_t prompts = 4, tokens = 6, length = 6;
  index_t replies() const {
    index_t n = 1;
    for (index_t t = 0; t < length; ++t) n *= tokens;
    return n;
  }
  /// Contexts of a first-order chain: the first place, and each token before each later place.
  index_t links() const { return 1 + (length - 1) * tokens; }
};

/// A prompt with attributes is {x, helpfulness, complexity}, one without is {x}. The reader of the policy sees both, the plain one x alone:
/// logits = B[x, place, token before] + A[helpfulness, x, place] + C[complexity, place].
class chain_reader {
 public:
  static constexpr index_t levels = 5;
  chain_reader(const chain_sizes& sizes, bool with_attributes) : s_(sizes), with_attributes_(with_attributes), features_(with_attributes ? 3 : 1) {
    const index_t conditions = with_attributes ? levels * levels : 1;
    for (index_t a = 0; a < conditions; ++a)
      for (index_t x = 0; x < s_.prompts; ++x)
        for (index_t l = 0; l < s_.links(); ++l) {
          const index_t place = l == 0 ? 0 : (l - 1) / s_.tokens + 1, links = s_.prompts * s_.links(), h = a / levels, c = a % levels;
          features_[0].push_back(static_cast<std::int32_t>(x * s_.links() + l));
          if (!with_attributes) continue;
          features_[1].push_back(static_cast<std::int32_t>(links + (h * s_.prompts + x) * s_.length + place));
          features_[2].push_back(static_cast<std::int32_t>(links + levels * s_.prompts * s_.length + c * s_.length + place));
        }
  }
  index_t contexts() const { return static_cast<index_t>(features_[0].size()); }
  index_t feature_values() const { return s_.prompts * s_.links() + (with_attributes_ ? levels * (s_.prompts + 1) * s_.length : 0); }
  index_t vocabulary() const { return s_.tokens; }
  const std::vector<std::vector<std::int32_t>>& features() const { return features_; }
  std::int32_t next(std::span<const std::int32_t> prompt, std::span<const std::int32_t> reply) const {
    const index_t link = reply.empty() ? 0 : 1 + (static_cast<index_t>(reply.size()) - 1) * s_.tokens + reply.back();
    return static_cast<std::int32_t>(first(prompt) + std::min(link, s_.links() - 1));  // behind the last place nothing is written
  }
  /// The context of the first token; those of the others follow it.
  index_t first(std::span<const std::int32_t> prompt) const {
    const index_t condition = with_attributes_ ? prompt[1] * levels + prompt[2] : 0;
    return (condition * s_.prompts + prompt[0]) * s_.links();
  }

 private:
  chain_sizes s_;
  bool with_attributes_;
  std::vector<std::vector<std::int32_t>> features_;
};

/// A policy or an unconditional model of the chain.
template <class B>
class chain_model : public small_policy<B, additive_net<B>, chain_reader> {
 public:
  using real = plumb::real_of<B>;
  chain_model(B& compute, const chain_reader& r)
      : small_policy<B, additive_net<B>, chain_reader>(r, additive_net<B>(compute, r, r.vocabulary(), 0, 0)) {}
  std::vector<real> snapshot() { return this->net().weights().weights; }
  void restore(const std::vector<real>& weights) {
    this->net().weights().weights = weights;
    this->changed();
  }
};

/// What is asked for.
struct request {
  std::int32_t helpfulness = 4, complexity = 3;
};

/// What a policy does, by summing over all replies; means over prompts.
struct exact_figures {
  double kl = 0;           ///< KL(P(. | a, x) || Q(. | a, x)), nats
  double hit = 0;          ///< E_Q P(a | x, y)
  double helpfulness = 0;  ///< E_Q of the rating
  double entropy = 0;      ///< of Q, nats
};

/// The truth: P(y | x), what a reply is worth, and P(y | a, x) for the attributes that are asked for.
template <class B>
class chain_world {
 public:
  using real = plumb::real_of<B>;
  using tokens = std::span<const std::int32_t>;

  chain_world(B& compute, const chain_sizes& sizes, std::uint64_t seed, request asked = {})
      : s_(sizes), asked_(asked), plain_(sizes, false), with_(sizes, true), truth_(compute, plain_) {
    const plumb::random_stream logits{seed, 0x636861696e01}, tastes{seed, 0x636861696e02};
    auto& w = truth_.net().weights().weights;
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<real>(logits.normal(i));
    truth_.changed();
    taste_.resize(static_cast<std::size_t>(s_.prompts * s_.length * s_.tokens));
    for (std::size_t i = 0; i < taste_.size(); ++i) taste_[i] = tastes.normal(i);
    enumerate(compute);
  }

  const chain_sizes& sizes() const { return s_; }
  const chain_reader& plain_reader() const { return plain_; }
  const chain_reader& reader() const { return with_; }
  request asked() const { return asked_; }
  /// P(y | x) itself, a model like any.
  chain_model<B>& truth() { return truth_; }

  plumb::start plain_start(std::int32_t x, std::int32_t number) const { return {.tokens = {x}, .prompt_tokens = 1, .prompt = number}; }
  plumb::start start_for(std::int32_t x, request a, std::int32_t number) const {
    return {.tokens = {x, a.helpfulness, a.complexity}, .prompt_tokens = 3, .prompt = number};
  }
  plumb::sampling sampling(std::uint64_t seed) const { return {.max_new_tokens = s_.length, .seed = seed}; }

  /// How helpful and how complex a reply is, from 0 to 4.
  double helpfulness(std::int32_t x, tokens y) const {
    const auto p = static_cast<std::size_t>(x);
    return std::clamp(1.6 + (raw_worth(x, y) - mean_[p]) / deviation_[p], 0.0, 4.0);
  }
  double complexity(tokens y) const {
    index_t distinct = 0;
    for (std::int32_t v = 0; v < s_.tokens; ++v) distinct += std::find(y.begin(), y.end(), v) != y.end();
    return 4 * static_cast<double>(distinct - 1) / static_cast<double>(s_.tokens - 1);
  }
  /// Both of each text: plumb's `attribute_model`, without error.
  std::vector<real> attributes(const plumb::rollouts<real>& r) const {
    std::vector<real> all;
    for (index_t s = 0; s < r.size(); ++s) {
      all.push_back(static_cast<real>(helpfulness(r.prompt_of(s)[0], r.reply_of(s))));
      all.push_back(static_cast<real>(complexity(r.reply_of(s))));
    }
    return all;
  }
  /// As a rater writes them down: rounded.
  request rating(std::int32_t x, tokens y) const {
    return {static_cast<std::int32_t>(std::nearbyint(helpfulness(x, y))), static_cast<std::int32_t>(std::nearbyint(complexity(y)))};
  }

  /// P(a), the share of replies of P(y | x) that have what is asked for.
  double share_asked() const { return share_; }
  /// The target itself as a policy.
  exact_figures of_target() const {
    exact_figures f;
    for (index_t x = 0; x < s_.prompts; ++x)
      for (index_t y = 0; y < s_.replies(); ++y) {
        const auto i = static_cast<std::size_t>(x * s_.replies() + y);
        const double p = std::exp(log_target_[i]);
        f.hit += p * std::exp(log_asked_[i]);
        f.helpfulness += p * worth_[i];
        f.entropy -= p > 0 ? p * log_target_[i] : 0;
      }
    return over_prompts(f);
  }
  exact_figures of(chain_model<B>& policy) const {
    exact_figures f;
    std::vector<double> log_q(static_cast<std::size_t>(s_.replies()));
    for (std::int32_t x = 0; x < s_.prompts; ++x) {
      list(policy, x, log_q);
      for (index_t y = 0; y < s_.replies(); ++y) {
        const auto i = static_cast<std::size_t>(x * s_.replies() + y);
        const double lq = log_q[static_cast<std::size_t>(y)], q = std::exp(lq), p = std::exp(log_target_[i]);
        f.kl += p > 0 ? p * (log_target_[i] - lq) : 0;
        f.hit += q * std::exp(log_asked_[i]);
        f.helpfulness += q * worth_[i];
        f.entropy -= q * lq;
      }
    }
    return over_prompts(f);
  }
  /// log Q(y | a, x) of every reply; reply number `n` has the digits of `n` as tokens, the last first.
  void list(chain_model<B>& policy, std::int32_t x, std::vector<double>& log_q) const {
    const std::int32_t prompt[] = {x, asked_.helpfulness, asked_.complexity};
    const bool conditioned = policy.net().contexts() == with_.contexts();
    list_from(policy.log_probabilities(1), conditioned ? with_.first(prompt) : plain_.first(prompt), log_q);
  }
  /// Draws replies of the target itself: `count`, to prompts in turn.
  plumb::rollouts<real> draw_target(std::size_t count, std::uint64_t seed) const {
    plumb::rollouts<real> r;
    const auto n = static_cast<std::size_t>(s_.replies());
    std::vector<double> reached(static_cast<std::size_t>(s_.prompts) * n);
    for (std::size_t i = 0; i < reached.size(); ++i) reached[i] = (i % n == 0 ? 0 : reached[i - 1]) + std::exp(log_target_[i]);
    const plumb::random_stream draw{seed, 0x636861696e03};
    std::vector<std::int32_t> y(static_cast<std::size_t>(s_.length));
    for (std::size_t k = 0; k < count; ++k) {
      const auto x = static_cast<std::int32_t>(k % static_cast<std::size_t>(s_.prompts));
      const auto from = reached.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(x) * n), to = from + static_cast<std::ptrdiff_t>(n);
      const auto at = std::upper_bound(from, to, draw.uniform(k) * *(to - 1));
      write_reply(std::min<index_t>(at - from, s_.replies() - 1), y);
      r.add(start_for(x, asked_, static_cast<std::int32_t>(k)), y, std::span<const real>(), false);
    }
    return r;
  }
  double log_target(std::int32_t x, index_t y) const { return log_target_[static_cast<std::size_t>(x * s_.replies() + y)]; }
  void write_reply(index_t number, std::vector<std::int32_t>& y) const {
    for (auto t = static_cast<std::size_t>(s_.length); t-- > 0; number /= s_.tokens) y[t] = static_cast<std::int32_t>(number % s_.tokens);
  }

 private:
  exact_figures over_prompts(exact_figures f) const {
    for (double* v : {&f.kl, &f.hit, &f.helpfulness, &f.entropy}) *v /= static_cast<double>(s_.prompts);
    return f;
  }
  double raw_worth(std::int32_t x, tokens y) const {
    double sum = y.front() == y.back() ? 1.5 : 0;
    for (std::size_t t = 0; t < y.size(); ++t)
      sum += taste_[(static_cast<std::size_t>(x * s_.length) + t) * static_cast<std::size_t>(s_.tokens) + static_cast<std::size_t>(y[t])];
    return sum;
  }
  void list_from(view<const real, 2> table, index_t first, std::vector<double>& log_q) const {
    // Place by place: what is known of a beginning is shared by all replies that begin so.
    std::vector<double> now{0}, longer;
    for (index_t t = 0; t < s_.length; ++t) {
      longer.resize(now.size() * static_cast<std::size_t>(s_.tokens));
      for (std::size_t i = 0; i < now.size(); ++i) {
        const index_t context = first + (t == 0 ? 0 : 1 + (t - 1) * s_.tokens + static_cast<index_t>(i) % s_.tokens);
        for (index_t v = 0; v < s_.tokens; ++v)
          longer[i * static_cast<std::size_t>(s_.tokens) + static_cast<std::size_t>(v)] = now[i] + static_cast<double>(table(context, v));
      }
      now.swap(longer);
    }
    log_q = now;
  }
  void enumerate(B& compute) {
    const auto n = static_cast<std::size_t>(s_.replies());
    const index_t all = s_.prompts * s_.replies();
    std::vector<double> log_p;
    std::vector<std::int32_t> y(static_cast<std::size_t>(s_.length));
    std::vector<real> prediction(2 * static_cast<std::size_t>(all)), log_asked(static_cast<std::size_t>(all));
    worth_.resize(static_cast<std::size_t>(all));
    log_target_.resize(worth_.size());
    mean_.assign(static_cast<std::size_t>(s_.prompts), 0);
    deviation_.assign(mean_.size(), 1);
    for (std::int32_t x = 0; x < s_.prompts; ++x) {
      const auto p = static_cast<std::size_t>(x);
      list(truth_, x, log_p);
      std::vector<double> raw(n);
      double squares = 0;
      for (std::size_t i = 0; i < n; ++i) {
        write_reply(static_cast<index_t>(i), y);
        raw[i] = raw_worth(x, y);
        mean_[p] += std::exp(log_p[i]) * raw[i];
      }
      for (std::size_t i = 0; i < n; ++i) squares += std::exp(log_p[i]) * (raw[i] - mean_[p]) * (raw[i] - mean_[p]);
      deviation_[p] = std::sqrt(squares);
      for (std::size_t i = 0; i < n; ++i) {
        write_reply(static_cast<index_t>(i), y);
        worth_[p * n + i] = helpfulness(x, y);
        log_target_[p * n + i] = log_p[i];
        prediction[2 * (p * n + i)] = static_cast<real>(worth_[p * n + i]);
        prediction[2 * (p * n + i) + 1] = static_cast<real>(complexity(y));
      }
    }
    const std::vector<real> level{static_cast<real>(asked_.helpfulness), static_cast<real>(asked_.complexity)};
    scratch_memory memory;
    plumb::attribute_posterior(
        compute, memory(plumb::attribute_posterior_workspace(compute, all, 2)),
        {.prediction = view<const real, 2>(prediction.data(), all, index_t{2}), .level = plumb::broadcast_rows(view<const real, 1>(level), all)}, {},
        {.log_p = log_asked});
    compute.sync();
    log_asked_.assign(log_asked.begin(), log_asked.end());
    share_ = 0;
    for (std::size_t p = 0; p < mean_.size(); ++p) {
      double sum = 0;
      for (std::size_t i = p * n; i < (p + 1) * n; ++i) sum += std::exp(log_target_[i] + log_asked_[i]);
      for (std::size_t i = p * n; i < (p + 1) * n; ++i) log_target_[i] += log_asked_[i] - std::log(sum);
      share_ += sum / static_cast<double>(mean_.size());
    }
  }

  chain_sizes s_;
  request asked_;
  chain_reader plain_, with_;
  chain_model<B> truth_;
  std::vector<double> taste_, mean_{}, deviation_{}, worth_{}, log_asked_{}, log_target_{};
  double share_ = 0;
};

}  // namespace claims

#pragma once
// Models small enough to count everything: a table of logits or values, one entry for each beginning of a text.

#include "support/gradients.hpp"

#include <plumb/algorithms/ppo.hpp>
#include <plumb/model/sampling.hpp>

#include <cmath>
#include <functional>
#include <map>
#include <vector>

namespace plumb_test {

using ids = std::vector<std::int32_t>;

inline std::uint64_t hash_of(std::uint64_t seed, std::span<const std::int32_t> text) {
  std::uint64_t h = seed;
  for (const std::int32_t t : text) h = plumb::random_stream{h, 7}.bits(static_cast<std::uint64_t>(t) + 1);
  return h;
}
inline ids joined(std::span<const std::int32_t> a, std::initializer_list<std::int32_t> b) {
  ids all(a.begin(), a.end());
  all.insert(all.end(), b);
  return all;
}

/// Weights that learn: rows by context, made when they are first asked for. Steps have momentum, so that an optimiser's state can be seen to change.
class table {
 public:
  table(std::size_t columns, std::uint64_t seed, double spread) : columns_(columns), seed_(seed), spread_(spread) {}

  std::vector<double>& row(std::span<const std::int32_t> context) {
    const auto [at, is_new] = rows_.try_emplace(ids(context.begin(), context.end()));
    if (is_new) {
      at->second.weight.resize(columns_);
      at->second.gradient.assign(columns_, 0);
      at->second.speed.assign(columns_, 0);
      for (std::size_t k = 0; k < columns_; ++k) at->second.weight[k] = spread_ * plumb::random_stream{hash_of(seed_, context), 9}.normal(k);
    }
    return at->second.weight;
  }
  std::vector<double>& gradient(std::span<const std::int32_t> context) {
    row(context);
    return rows_.at(ids(context.begin(), context.end())).gradient;
  }
  void step(double rate) {
    ++steps;
    for (auto& [context, r] : rows_)
      for (std::size_t k = 0; k < columns_; ++k) {
        r.speed[k] = momentum * r.speed[k] + r.gradient[k];
        r.weight[k] -= rate * r.speed[k];
        r.gradient[k] = 0;
      }
  }
  void discard() {
    ++discards;
    for (auto& [context, r] : rows_) r.gradient.assign(columns_, 0);
  }
  /// Weights, gradients and the optimiser's state of rows that were ever given a gradient.
  std::vector<double> everything() const {
    std::vector<double> all;
    for (const auto& [context, r] : rows_)
      for (const auto* x : {&r.weight, &r.gradient, &r.speed}) all.insert(all.end(), x->begin(), x->end());
    return all;
  }
  std::vector<double> weights() const {
    std::vector<double> all;
    for (const auto& [context, r] : rows_) all.insert(all.end(), r.weight.begin(), r.weight.end());
    return all;
  }
  std::vector<double> gradients() const {
    std::vector<double> all;
    for (const auto& [context, r] : rows_) all.insert(all.end(), r.gradient.begin(), r.gradient.end());
    return all;
  }
  std::size_t columns() const { return columns_; }

  double momentum = 0.5;
  int steps = 0, discards = 0;

 private:
  struct entry {
    std::vector<double> weight, gradient, speed;
  };
  std::size_t columns_;
  std::uint64_t seed_;
  double spread_;
  std::map<ids, entry> rows_;
};

/// log-probabilities of `softmax(logits / temperature)`.
inline std::vector<double> log_softmax(std::vector<double> x, double temperature) {
  double top = -1e300, sum = 0;
  for (double& v : x) top = std::max(top, v /= temperature);
  for (const double v : x) sum += std::exp(v - top);
  for (double& v : x) v -= top + std::log(sum);
  return x;
}

/// Calls `f(s, t, context, token)` for each own token of a rollout.
template <class Real, class F>
void each_own_token(const plumb::rollouts<Real>& r, const F& f) {
  for (plumb::index_t s = 0; s < r.size(); ++s) {
    const auto text = r.text_of(s);
    const auto own = static_cast<std::size_t>(r.own_count(s));
    for (std::size_t t = 0; t < own; ++t) {
      const std::size_t place = text.size() - own + t;
      f(static_cast<std::size_t>(s), static_cast<std::size_t>(r.own[static_cast<std::size_t>(s)]) + t, text.first(place), text[place]);
    }
  }
}

template <class Real>
class tabular_policy {
 public:
  explicit tabular_policy(std::size_t vocabulary, std::uint64_t seed = 1, double spread = 1) : weights(vocabulary, seed, spread) {}

  // What `sample_rollouts` asks.
  void open(std::span<const plumb::start> starts) {
    texts_.clear();
    for (const plumb::start& s : starts) texts_.push_back(s.tokens);
    finished_.assign(texts_.size(), 0);
  }
  plumb::view<const Real, 2> next_logits() {
    logits_.assign(texts_.size() * weights.columns(), static_cast<Real>(std::nan("")));  // of finished texts
    for (std::size_t i = 0; i < texts_.size(); ++i)
      if (!finished_[i]) {
        const auto& row = weights.row(texts_[i]);
        for (std::size_t k = 0; k < row.size(); ++k) logits_[i * row.size() + k] = static_cast<Real>(row[k]);
      }
    return {logits_.data(), static_cast<plumb::index_t>(texts_.size()), static_cast<plumb::index_t>(weights.columns())};
  }
  void append(std::span<const std::int32_t> next) {
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      if (next[i] < 0) {
        finished_[i] = 1;
      } else {
        texts_[i].push_back(next[i]);
      }
    }
  }

  plumb::rollouts<Real> generate(std::span<const plumb::start> starts, const plumb::sampling& how) {
    return plumb::sample_rollouts<Real>(*this, starts, how);
  }
  std::vector<Real> score(const plumb::rollouts<Real>& r) {
    std::vector<Real> logp(static_cast<std::size_t>(r.own_tokens()));
    each_own_token(r, [&](std::size_t, std::size_t t, auto context, std::int32_t token) {
      logp[t] = static_cast<Real>(log_softmax(weights.row(context), r.temperature)[static_cast<std::size_t>(token)]);
    });
    return logp;
  }
  std::vector<Real> forward(const plumb::rollouts<Real>& r) {
    ++forwards;
    return score(r);
  }
  void backward(const plumb::rollouts<Real>& r, plumb::view<const Real, 1> d) {
    each_own_token(r, [&](std::size_t, std::size_t t, auto context, std::int32_t token) {
      const std::vector<double> logp = log_softmax(weights.row(context), r.temperature);
      auto& gradient = weights.gradient(context);
      const double slope = static_cast<double>(d(static_cast<plumb::index_t>(t))) / r.temperature;
      for (std::size_t k = 0; k < logp.size(); ++k) gradient[k] += slope * ((k == static_cast<std::size_t>(token)) - std::exp(logp[k]));
    });
  }
  void step(double rate) { weights.step(rate); }
  void discard() { weights.discard(); }

  table weights;
  int forwards = 0;

 private:
  std::vector<ids> texts_;
  std::vector<std::uint8_t> finished_;
  std::vector<Real> logits_;
};

/// The value of each beginning of a text.
template <class Real>
class tabular_critic {
 public:
  explicit tabular_critic(std::uint64_t seed = 2, double spread = 1) : values(1, seed, spread) {}

  std::vector<Real> score(const plumb::rollouts<Real>& r) {
    std::vector<Real> y(static_cast<std::size_t>(r.own_tokens()));
    each_own_token(r, [&](std::size_t, std::size_t t, auto context, std::int32_t) { y[t] = static_cast<Real>(values.row(context)[0]); });
    return y;
  }
  std::vector<Real> after(const plumb::rollouts<Real>& r) {
    std::vector<Real> y;
    for (plumb::index_t s = 0; s < r.size(); ++s) y.push_back(static_cast<Real>(values.row(r.text_of(s))[0]));
    return y;
  }
  std::vector<Real> forward(const plumb::rollouts<Real>& r) { return score(r); }
  void backward(const plumb::rollouts<Real>& r, plumb::view<const Real, 1> d) {
    each_own_token(r, [&](std::size_t, std::size_t t, auto context, std::int32_t) {
      values.gradient(context)[0] += static_cast<double>(d(static_cast<plumb::index_t>(t)));
    });
  }
  void step(double rate) { values.step(rate); }
  void discard() { values.discard(); }

  table values;
};

/// A score of each text.
template <class Real>
struct scored_by {
  std::function<double(const plumb::rollouts<Real>&, plumb::index_t)> f;
  std::vector<Real> reward(const plumb::rollouts<Real>& r) const {
    std::vector<Real> y;
    for (plumb::index_t s = 0; s < r.size(); ++s) y.push_back(static_cast<Real>(f(r, s)));
    return y;
  }
};
/// A score that the whole text decides.
template <class Real>
scored_by<Real> hashed_score(std::uint64_t seed = 3) {
  return {[=](const plumb::rollouts<Real>& r, plumb::index_t s) { return plumb::random_stream{hash_of(seed, r.text_of(s)), 1}.normal(0); }};
}

/// Every reply to a start, `f(own tokens, ended)`: at most `room` own tokens of a vocabulary, `end` the last where it occurs.
template <class F>
void each_reply(std::int32_t vocabulary, std::int32_t end, plumb::index_t room, const F& f, ids own = {}) {
  if (!own.empty() && own.back() == end) return f(own, true);
  if (static_cast<plumb::index_t>(own.size()) == room) return f(own, false);
  for (std::int32_t k = 0; k < vocabulary; ++k) each_reply(vocabulary, end, room, f, joined(own, {k}));
}
/// All replies to a start as one rollout, with their log-probabilities; each a prompt of its own.
template <class Real>
plumb::rollouts<Real> all_replies(tabular_policy<Real>& policy, plumb::start from, std::int32_t end, plumb::index_t room) {
  plumb::rollouts<Real> r;
  each_reply(static_cast<std::int32_t>(policy.weights.columns()), end, room, [&](const ids& own, bool ended) {
    from.prompt = static_cast<std::int32_t>(r.size());
    r.add(from, own, {}, ended);
  });
  r.logp = policy.score(r);
  return r;
}
/// Log-probability of each text's own tokens together.
template <class Real>
std::vector<double> text_logp(const plumb::rollouts<Real>& r, const std::vector<Real>& logp) {
  std::vector<double> y(static_cast<std::size_t>(r.size()), 0.0);
  each_own_token(r, [&](std::size_t s, std::size_t t, auto, std::int32_t) { y[s] += static_cast<double>(logp[t]); });
  return y;
}

/// Prompts of one token each, in turn.
inline std::vector<plumb::start> prompts(std::size_t count, std::size_t different, std::int32_t first = 0) {
  std::vector<plumb::start> all;
  for (std::size_t i = 0; i < count; ++i) {
    const auto which = static_cast<std::int32_t>(i % different);
    all.push_back({.tokens = {first + which}, .prompt_tokens = 1, .prompt = which});
  }
  return all;
}

/// Pearson's statistic of counts against probabilities; cells of probability 0 must be empty.
inline double chi_squared(const std::vector<double>& counts, const std::vector<double>& probability) {
  double n = 0, y = 0;
  for (const double c : counts) n += c;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    if (probability[k] == 0) {
      if (counts[k] != 0) return 1e300;
      continue;
    }
    const double d = counts[k] - n * probability[k];
    y += d * d / (n * probability[k]);
  }
  return y;
}
/// What chi-squared exceeds once in 10,000 times (Wilson and Hilferty 1931).
inline double chi_squared_limit(double freedom) {
  const double w = 2 / (9 * freedom), z = 3.719;
  const double c = 1 - w + z * std::sqrt(w);
  return freedom * c * c * c;
}

}  // namespace plumb_test

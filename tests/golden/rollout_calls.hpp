#pragma once
// From log-probabilities, rewards and values to advantages: plumb's operations as functions of vectors of double.

#include "golden/calls.hpp"

#include <plumb/algorithms/kl_controller.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/kl.hpp>
#include <plumb/ops/returns.hpp>
#include <plumb/ops/token_rewards.hpp>
#include <plumb/ops/whiten.hpp>

namespace golden {

/// Rows of a padded batch, all of whose tokens count.
inline layout_arrays whole_rows(std::size_t rows, std::size_t columns) { return padded(rows, columns, {}); }
/// 1 where a token counts; all zero where no sequence lies.
inline numbers mask_of(const layout_arrays& l, std::size_t tokens) {
  numbers y(tokens);
  for (std::size_t s = 0; s < l.begin.size(); ++s)
    for (std::size_t t = static_cast<std::size_t>(l.begin[s]); t < static_cast<std::size_t>(l.end[s]); ++t) y[t] = l.counts(t) ? 1 : 0;
  return y;
}
/// Replies of NeMo-Aligner's padded rows: lengths count the prompt, and column t is about token t + 1.
inline layout_arrays nemo_replies(const numbers& prompt_lengths, const numbers& response_lengths, std::size_t columns) {
  layout_arrays l;
  for (std::size_t r = 0; r < prompt_lengths.size(); ++r) {
    l.begin.push_back(static_cast<std::int32_t>(r * columns) + static_cast<std::int32_t>(prompt_lengths[r]) - 1);
    l.end.push_back(static_cast<std::int32_t>(r * columns) + static_cast<std::int32_t>(response_lengths[r]) - 1);
  }
  return l;
}
inline double largest_of(std::initializer_list<numbers> all) {
  double m = 0;
  for (const numbers& x : all) m = std::max(m, largest(x));
  return m;
}

struct token_kl_call {
  numbers logp{}, ref_logp{};
  plumb::kl_estimate estimate{};
  layout_arrays sequences{};  ///< none: every entry counts
};
struct token_kl_answer {
  numbers kl, slope;
};
template <class B>
token_kl_answer call(job<B>& j, const token_kl_call& in) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), ref_logp = reals(j, in.ref_logp);
  std::vector<real> kl(logp.size()), slope(logp.size());
  scratch_memory scratch(plumb::token_kl_workspace(j.b, length(logp)));
  plumb::token_kl(j.b, scratch.arena, {.logp = logp, .ref_logp = ref_logp, .sequences = in.sequences.get()}, in.estimate, {.kl = kl, .d_logp = slope});
  return {doubles(kl), doubles(slope)};
}

struct token_rewards_call {
  numbers kl{}, score{};
  layout_arrays sequences{};
  plumb::token_rewards_options options{};
  numbers add_to{};  ///< rewards that are there already
};
template <class B>
numbers call(job<B>& j, const token_rewards_call& in, std::size_t tokens) {
  using real = typename B::real;
  const auto kl = reals(j, in.kl), score = reals(j, in.score);
  std::vector<real> rewards = in.add_to.empty() ? std::vector<real>(tokens) : reals(j, in.add_to);
  scratch_memory scratch(plumb::token_rewards_workspace(j.b, in.sequences.get(), length(rewards)));
  plumb::token_rewards(j.b, scratch.arena, {.kl = kl, .score = score, .sequences = in.sequences.get()}, in.options,
                       {.rewards = rewards, .mode = in.add_to.empty() ? plumb::write_mode::overwrite : plumb::write_mode::add});
  return doubles(rewards);
}

struct trajectory_call {
  numbers rewards{}, values{}, next_values{}, bootstrap{}, discounts{}, lambdas{}, log_ratio{};
  layout_arrays sequences{};
};
template <class Real>
struct trajectory_arrays {
  std::vector<Real> rewards, values, next_values, bootstrap, discounts, lambdas, log_ratio;
  plumb::sequence_layout<> sequences;

  template <class B>
  trajectory_arrays(job<B>& j, const trajectory_call& in)
      : rewards(reals(j, in.rewards)), values(reals(j, in.values)), next_values(reals(j, in.next_values)), bootstrap(reals(j, in.bootstrap)),
        discounts(reals(j, in.discounts)), lambdas(reals(j, in.lambdas)), log_ratio(reals(j, in.log_ratio)), sequences(in.sequences.get()) {}
  plumb::trajectory_inputs<Real> get() const {
    return {.rewards = rewards, .values = values, .next_values = next_values, .bootstrap = bootstrap, .discounts = discounts, .lambdas = lambdas,
            .sequences = sequences};
  }
};

struct gae_answer {
  numbers advantages, returns;
};
template <class B>
gae_answer gae_of(job<B>& j, const trajectory_call& in, const plumb::gae_options& options) {
  using real = typename B::real;
  const trajectory_arrays<real> x(j, in);
  std::vector<real> advantages(x.rewards.size()), returns(x.rewards.size());
  scratch_memory scratch(plumb::gae_workspace(j.b, length(x.rewards)));
  plumb::gae(j.b, scratch.arena, x.get(), options, {.advantages = advantages, .returns = returns});
  return {doubles(advantages), doubles(returns)};
}

struct gae_gradient {
  numbers d_rewards, d_values, d_bootstrap;
};
template <class B>
gae_gradient gae_gradient_of(job<B>& j, const trajectory_call& in, const plumb::gae_options& options, const numbers& d_advantages) {
  using real = typename B::real;
  const trajectory_arrays<real> x(j, in);
  const auto d = reals(j, d_advantages);
  std::vector<real> d_rewards(d.size()), d_values(d.size()), d_bootstrap(in.sequences.begin.size());
  ids begin(in.sequences.begin), end(in.sequences.end);
  plumb::mirrored_bounds(x.sequences, length(d), begin, end);
  scratch_memory scratch(plumb::gae_backward_workspace(j.b, length(d)));
  plumb::gae_backward(j.b, scratch.arena,
                      {.d_advantages = d, .discounts = x.discounts, .lambdas = x.lambdas, .sequences = x.sequences, .mirrored_begin = begin,
                       .mirrored_end = end},
                      options, {.d_rewards = d_rewards, .d_values = d_values, .d_bootstrap = d_bootstrap});
  return {doubles(d_rewards), doubles(d_values), doubles(d_bootstrap)};
}

template <class B>
numbers discounted_returns_of(job<B>& j, const trajectory_call& in, double gamma) {
  using real = typename B::real;
  const trajectory_arrays<real> x(j, in);
  std::vector<real> returns(x.rewards.size());
  scratch_memory scratch(plumb::discounted_returns_workspace(j.b, length(x.rewards)));
  plumb::discounted_returns(j.b, scratch.arena, {.rewards = x.rewards, .bootstrap = x.bootstrap, .discounts = x.discounts, .sequences = x.sequences},
                            {.gamma = gamma}, {.returns = returns});
  return doubles(returns);
}
template <class B>
numbers lambda_returns_of(job<B>& j, const trajectory_call& in, const plumb::gae_options& options) {
  using real = typename B::real;
  const trajectory_arrays<real> x(j, in);
  std::vector<real> returns(x.rewards.size());
  scratch_memory scratch(plumb::lambda_returns_workspace(j.b, length(x.rewards)));
  plumb::lambda_returns(j.b, scratch.arena, x.get(), options, {.returns = returns});
  return doubles(returns);
}
template <class B>
numbers n_step_returns_of(job<B>& j, const trajectory_call& in, const plumb::n_step_returns_options& options) {
  using real = typename B::real;
  const trajectory_arrays<real> x(j, in);
  std::vector<real> returns(x.rewards.size());
  scratch_memory scratch(plumb::n_step_returns_workspace(j.b, length(x.rewards)));
  plumb::n_step_returns(j.b, scratch.arena, x.get(), options, {.returns = returns});
  return doubles(returns);
}

struct vtrace_answer {
  numbers errors, targets, advantages, q;
};
template <class B>
vtrace_answer vtrace_of(job<B>& j, const trajectory_call& in, const plumb::vtrace_options& options) {
  using real = typename B::real;
  const trajectory_arrays<real> x(j, in);
  std::vector<real> y[4];
  for (auto& e : y) e.resize(x.rewards.size());
  scratch_memory scratch(plumb::vtrace_workspace(j.b, length(x.rewards)));
  plumb::vtrace(j.b, scratch.arena,
                {.rewards = x.rewards, .values = x.values, .next_values = x.next_values, .bootstrap = x.bootstrap, .discounts = x.discounts,
                 .log_ratio = x.log_ratio, .sequences = x.sequences},
                options, {.errors = y[0], .targets = y[1], .advantages = y[2], .q = y[3]});
  return {doubles(y[0]), doubles(y[1]), doubles(y[2]), doubles(y[3])};
}

struct whiten_call {
  numbers values{};
  layout_arrays sequences{};
  plumb::whiten_options options{};
};
struct whiten_answer {
  numbers whitened;
  double mean, variance;
};
template <class B>
whiten_answer call(job<B>& j, const whiten_call& in) {
  using real = typename B::real;
  const auto values = reals(j, in.values);
  std::vector<real> whitened(values.size());
  real mean = 0, variance = 0;
  scratch_memory scratch(plumb::whiten_workspace(j.b, in.sequences.get(), length(values)));
  plumb::whiten(j.b, scratch.arena, {.values = values, .sequences = in.sequences.get()}, in.options,
                {.whitened = whitened, .mean = mean, .variance = variance});
  return {doubles(whitened), static_cast<double>(mean), static_cast<double>(variance)};
}

struct moments_answer {
  double count, mean, variance;
};
template <class B>
moments_answer moments_of(job<B>& j, const numbers& x, const layout_arrays& sequences, const plumb::moments_options& options) {
  using real = typename B::real;
  const auto values = reals(j, x);
  real count = 0, mean = 0, variance = 0;
  scratch_memory scratch(plumb::moments_workspace(j.b, sequences.get(), length(values)));
  plumb::moments(j.b, scratch.arena, {.values = values, .sequences = sequences.get()}, options, {.count = count, .mean = mean, .variance = variance});
  return {static_cast<double>(count), static_cast<double>(mean), static_cast<double>(variance)};
}
/// What enters a whitened number: the largest value over the standard deviation.
inline double whitened_terms(const numbers& values, double variance, double epsilon) {
  return largest(values) * std::max(1.0, 1 / std::sqrt(variance + epsilon));
}

/// `aggregate`, value only.
template <class B>
double aggregate_of(job<B>& j, const numbers& x, const layout_arrays& sequences, const plumb::aggregate_options& options) {
  using real = typename B::real;
  const auto values = reals(j, x);
  real loss = 0;
  scratch_memory scratch(plumb::aggregate_workspace(j.b, sequences.get()));
  plumb::aggregate(j.b, scratch.arena, {.values = values, .sequences = sequences.get()}, options, {.loss = loss});
  return static_cast<double>(loss);
}

}  // namespace golden

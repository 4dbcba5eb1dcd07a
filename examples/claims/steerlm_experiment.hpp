#pragma once
// SteerLM 2.0's claim on one seed of the chain world: the exact KL to P(y | a, x) of SteerLM 1, of SteerLM 2.0 and of what else could be done with as
// much effort. See docs/demos/steerlm.md.

#include "claims/chain_world.hpp"

#include <plumb/algorithms/steerlm2.hpp>
#include <plumb/objectives/supervised.hpp>

#include <functional>
#include <string>
#include <utility>

namespace claims {

/// Numbers of the experiment, chosen on seeds 2000 to 2004 where they were chosen at all.
struct steerlm_settings {
  chain_sizes sizes{};
  std::size_t labelled = 2000;      ///< replies of P(y | x) with ratings
  std::size_t more_labelled = 6000;  ///< as many as SteerLM 2.0 samples
  std::size_t target_samples = 21600;
  index_t prompts = 300, replies = 10;
  int iterations = 2;
  std::size_t batch = 64;
  double rate = 0.02;
  int epochs = 60, patience = 5;    ///< of supervised learning
  index_t prompt_batch = 16;
  int steerlm2_epochs = 20, steerlm2_patience = 5;
  double held_out = 0.2;

  void make_quick() {
    labelled = 400, more_labelled = 400, target_samples = 800, prompts = 40, epochs = 6, steerlm2_epochs = 4;
  }
};

/// A row of the table: what a policy was after its training.
struct steerlm_row {
  std::string name;
  exact_figures figures{};
  double effective_samples = 0;  ///< of w' in the last iteration, for SteerLM 2.0
};

template <class B>
class steerlm_experiment {
 public:
  using real = plumb::real_of<B>;
  using texts = plumb::rollouts<real>;

  steerlm_experiment(B& compute, const steerlm_settings& settings, std::uint64_t seed)
      : b_(compute), s_(settings), seed_(seed), world_(compute, settings.sizes, seed) {}

  /// Every row, in the order of the table; `said` is told of each when it is done.
  std::vector<steerlm_row> run(const std::function<void(const steerlm_row&)>& said) {
    std::vector<steerlm_row> rows;
    const auto add = [&](std::string name, const exact_figures& f, double effective = 0) {
      rows.push_back({std::move(name), f, effective});
      said(rows.back());
    };
    const texts labelled = label(draw_truth(s_.labelled, 1));
    chain_model<B> plain(b_, world_.plain_reader());
    fit(plain, without_attributes(labelled), 11);
    add("unconditional", world_.of(plain));

    chain_model<B> first(b_, world_.reader());
    fit(first, labelled, 12);
    add("steerlm1", world_.of(first));
    {
      texts more = labelled;
      more.append(label(draw_truth(s_.more_labelled, 2)));
      chain_model<B> policy(b_, world_.reader());
      fit(policy, more, 13);
      add("control/more_labels", world_.of(policy));
    }
    {
      chain_model<B> policy = first;
      for (int i = 0; i < s_.iterations; ++i) {
        policy.forget_optimiser();
        fit(policy, label(own_samples(policy, i)), 14 + static_cast<std::uint64_t>(i));
      }
      add("control/bootstrap", world_.of(policy));
    }
    // Each begins with SteerLM 1's policy.
    const auto steer = [&](const std::string& name, auto& unconditional, const plumb::sampling& how, const plumb::steerlm2_loop_options& options,
                           bool prior = true) {
      chain_model<B> policy = first;
      plumb::steerlm2_loop<B> loop(b_, options);
      for (int i = 0; i < s_.iterations; ++i) {
        policy.forget_optimiser();
        const auto [starts, bare] = prompts(i);
        plumb::beta_posterior<B, chain_world<B>> posterior(
            b_, world_, {static_cast<real>(world_.asked().helpfulness), static_cast<real>(world_.asked().complexity)});
        // Without the prior the policy stands in for P(y | x), behind its own prompts: log P(y | x) - log Q' is then 0.
        const auto m = prior ? loop.step(policy, posterior, unconditional, starts, std::span<const plumb::start>(bare), how)
                             : loop.step(policy, posterior, policy, starts, std::span<const plumb::start>(starts), how);
        add(name + "/iteration_" + std::to_string(i + 1), world_.of(policy), m.effective_samples);
      }
    };
    plumb::sampling how = world_.sampling(seed_ * 1000 + 7);
    steer("steerlm2", plain, how, options());
    steer("ablation/exact_prior", world_.truth(), how, options());
    {
      auto cut = how;
      cut.temperature = 0.7;
      cut.top_p = 0.9;
      auto o = options();
      o.temperature = 1;
      steer("ablation/paper_sampling", plain, cut, o);
    }
    {
      auto o = options();
      o.baseline = false;
      steer("ablation/no_baseline", plain, how, o);
    }
    steer("ablation/no_prior", plain, how, options(), false);
    {
      chain_model<B> policy(b_, world_.reader());
      fit(policy, world_.draw_target(s_.target_samples, seed_ * 1000 + 3), 19);
      add("class_limit", world_.of(policy));
    }
    add("target", world_.of_target());
    return rows;
  }

  plumb::steerlm2_loop_options options() const {
    return {.replies = s_.replies, .epochs = s_.steerlm2_epochs, .prompts = s_.prompt_batch, .rate = s_.rate, .held_out = s_.held_out,
            .patience = s_.steerlm2_patience, .start_tolerance = 1e-3, .seed = seed_};
  }
  chain_world<B>& world() { return world_; }

  /// Supervised learning with `plumb::supervised`, a tenth held out; ends with the weights of the best epoch.
  void fit(chain_model<B>& policy, const texts& all, std::uint64_t stream) {
    std::vector<std::int32_t> rows(static_cast<std::size_t>(all.size()));
    std::iota(rows.begin(), rows.end(), 0);
    rows = plumb::detail::shuffled(rows, {seed_, 0x666974000000u + stream});
    const std::size_t held = rows.size() / 10;
    const texts validation = all.select(std::span(rows).first(held));
    const std::vector<std::int32_t> train(rows.begin() + static_cast<std::ptrdiff_t>(held), rows.end());
    auto best = policy.snapshot();
    double least = nll(policy, validation);
    for (int epoch = 0, since = 0; epoch < s_.epochs && since < s_.patience; ++epoch) {
      const auto order = plumb::detail::shuffled(train, {seed_ + (stream << 32), 0x666975000000u + static_cast<std::uint64_t>(epoch)});
      for (std::size_t from = 0; from < order.size(); from += s_.batch) {
        const texts x = all.select(std::span(order).subspan(from, std::min(s_.batch, order.size() - from)));
        std::vector<real> d(static_cast<std::size_t>(x.own_tokens()));
        supervised_terms(policy.forward(x), x, d);
        policy.backward(x, d);
        policy.step(s_.rate);
      }
      const double now = nll(policy, validation);
      ++since;
      if (now < least) least = now, best = policy.snapshot(), since = 0;
    }
    policy.restore(best);
  }

 private:
  real supervised_terms(const std::vector<real>& logp, const texts& x, view<real, 1> d) {
    real loss = 0;
    plumb::supervised(b_, memory_(plumb::supervised_workspace(b_, x.layout())), {.logp = logp, .sequences = x.layout()},
                      {.denominator = static_cast<double>(x.own_tokens())}, {.loss = loss, .d_logp = d});
    b_.sync();
    return loss;
  }
  double nll(chain_model<B>& policy, const texts& x) { return static_cast<double>(supervised_terms(policy.score(x), x, {})); }

  // Replies of P(y | x) to prompts drawn at random.
  texts draw_truth(std::size_t count, std::uint64_t stream) {
    const plumb::random_stream draw{seed_, 0x70726f6d7074u + stream};
    std::vector<plumb::start> starts;
    for (std::size_t i = 0; i < count; ++i)
      starts.push_back(
          world_.plain_start(static_cast<std::int32_t>(draw.below(static_cast<std::uint64_t>(s_.sizes.prompts), i)), static_cast<std::int32_t>(i)));
    return world_.truth().generate(starts, world_.sampling(seed_ * 1000 + stream));
  }
  // What the iteration asks of the policy: prompts drawn at random, with the attributes and without.
  std::pair<std::vector<plumb::start>, std::vector<plumb::start>> prompts(int iteration) const {
    const plumb::random_stream draw{seed_, 0x737465657200u + static_cast<std::uint64_t>(iteration)};
    std::pair<std::vector<plumb::start>, std::vector<plumb::start>> both;
    for (std::int32_t i = 0; i < s_.prompts; ++i) {
      const auto x = static_cast<std::int32_t>(draw.below(static_cast<std::uint64_t>(s_.sizes.prompts), static_cast<std::uint64_t>(i)));
      both.first.push_back(world_.start_for(x, world_.asked(), i));
      both.second.push_back(world_.plain_start(x, i));
    }
    return both;
  }
  texts own_samples(chain_model<B>& policy, int iteration) {
    std::vector<plumb::start> starts;
    for (const auto& s : prompts(iteration).first) starts.insert(starts.end(), static_cast<std::size_t>(s_.replies), s);
    auto how = world_.sampling(seed_ * 1000 + 9);
    how.step = static_cast<std::uint64_t>(iteration);
    return policy.generate(starts, how);
  }
  // The same replies behind prompts that tell how they were rated; and behind prompts that do not.
  texts label(const texts& r) const {
    texts all;
    for (index_t s = 0; s < r.size(); ++s) {
      const std::int32_t x = r.prompt_of(s)[0];
      all.add(world_.start_for(x, world_.rating(x, r.own_of(s)), static_cast<std::int32_t>(s)), r.own_of(s), std::span<const real>(), false);
    }
    return all;
  }
  texts without_attributes(const texts& r) const {
    texts all;
    for (index_t s = 0; s < r.size(); ++s)
      all.add(world_.plain_start(r.prompt_of(s)[0], static_cast<std::int32_t>(s)), r.own_of(s), std::span<const real>(), false);
    return all;
  }

  B& b_;
  steerlm_settings s_;
  std::uint64_t seed_;
  chain_world<B> world_;
  scratch_memory memory_{};
};

}  // namespace claims

#pragma once
// SteerLM 2.0 (arXiv:2406.08673, section 4.5), one iteration after the other: n replies of the policy to each prompt, weights that say how far they
// stand for P(y | a, x), epochs of the listwise update; then again with the policy that came out.

#include <plumb/algorithms/loop.hpp>
#include <plumb/objectives/steerlm2.hpp>
#include <plumb/ops/attribute_posterior.hpp>
#include <plumb/ops/prompt_groups.hpp>

#include <string>

PLUMB_NAMESPACE_BEGIN

/// `m.log_p(r)` -> `[S]`: log P(a | x, y), how probable the attributes that were asked for are, given the reply. -inf: impossible.
template <class M, class Real>
concept attribute_posterior_model = requires(M& m, const rollouts<Real>& r) {
  { m.log_p(r) } -> detail::numbers_of<Real>;
};
/// `m.attributes(r)` -> `[S * K]`, row by row: what a regression reward model says of each text, on the ratings' scale.
template <class M, class Real>
concept attribute_model = requires(M& m, const rollouts<Real>& r) {
  { m.attributes(r) } -> detail::numbers_of<Real>;
};
/// A policy whose weights can be put aside and taken back: `auto w = m.snapshot()`, `m.restore(w)`. With it the loop ends an iteration with the
/// weights of its best epoch.
template <class M>
concept has_snapshots = requires(M& m) { m.restore(m.snapshot()); };

/// Makes an `attribute_posterior_model` of an `attribute_model`: Beta distributions about its predictions, see ops/attribute_posterior.hpp.
template <class B, class Model>
class beta_posterior {
 public:
  using real = real_of<B>;
  static_assert(attribute_model<Model, real>,
                "plumb: this model has no attributes(rollouts) that gives K numbers per text: see docs/algorithms/steerlm2.md");

  /// `level` `[K]`: what is asked for, of every prompt.
  beta_posterior(B& compute, Model& model, std::vector<real> level, attribute_posterior_options options = {})
      : beta_posterior(compute, model, std::vector<real>(level), static_cast<index_t>(level.size()), options, true) {}
  /// `level` `[P, K]`, row by row: row `p` is what is asked for of the prompt with number `p` (`start::prompt`).
  beta_posterior(B& compute, Model& model, std::vector<real> level, index_t attributes, attribute_posterior_options options = {})
      : beta_posterior(compute, model, std::move(level), attributes, options, false) {}

  const std::vector<real>& log_p(const rollouts<real>& r) {
    const index_t s = r.size(), k = attributes_;
    const auto prediction = detail::numbers_from<real>("beta_posterior", "model.attributes", model_.attributes(r), s * k, "attributes of texts");
    wanted_.resize(prediction.size());
    for (index_t i = 0; i < s; ++i) {
      const index_t prompt = one_for_all_ ? 0 : r.prompt[static_cast<std::size_t>(i)];
      if (prompt < 0 || (prompt + 1) * k > static_cast<index_t>(level_.size()))
        fail(message("beta_posterior") << "text " << i << " answers prompt " << prompt << ", but attributes are asked for of prompts 0 to "
                                       << static_cast<index_t>(level_.size()) / k - 1 << ".");
      std::copy_n(level_.begin() + prompt * k, k, wanted_.begin() + i * k);
    }
    log_p_.assign(static_cast<std::size_t>(s), real(0));
    attribute_posterior(b_, scratch_(attribute_posterior_workspace(b_, s, k)),
                        {.prediction = view<const real, 2>(prediction.data(), s, k), .level = view<const real, 2>(wanted_.data(), s, k)}, o_,
                        {.log_p = log_p_});
    b_.sync();
    return log_p_;
  }

 private:
  beta_posterior(B& compute, Model& model, std::vector<real> level, index_t attributes, const attribute_posterior_options& options, bool one_for_all)
      : b_(compute), model_(model), level_(std::move(level)), attributes_(attributes), o_(options), one_for_all_(one_for_all) {
    constexpr const char* op = "beta_posterior";
    o_.require(op);
    require_option(op, "attributes", static_cast<double>(attributes), attributes >= 1 && static_cast<index_t>(level_.size()) % attributes == 0,
                   "the number of attributes, of which `level` holds whole rows");
    for (const real x : level_) {
      const auto v = static_cast<double>(x);
      require_option(op, "level", v, v == o_.missing || (v >= 0 && v < static_cast<double>(o_.levels) && v == std::floor(v)),
                     "a whole number from 0 to `levels` - 1, or `missing`");
    }
  }

  B& b_;
  Model& model_;
  std::vector<real> level_;
  index_t attributes_;
  attribute_posterior_options o_;
  bool one_for_all_;
  std::vector<real> wanted_{}, log_p_{};
  detail::loop_scratch scratch_{};
};

/// The own tokens of `r` behind other beginnings, text by text: replies that were written to a prompt with attributes, behind the prompt without
/// them. `temperature` is that of the model that is to score them.
template <class Real>
rollouts<Real> behind(std::span<const start> starts, const rollouts<Real>& r, double temperature = 1) {
  if (static_cast<index_t>(starts.size()) != r.size())
    fail(message("behind") << "there are " << r.size() << " texts, but " << static_cast<index_t>(starts.size()) << " starts.");
  rollouts<Real> other{.temperature = temperature};
  for (index_t s = 0; s < r.size(); ++s)
    other.add(starts[static_cast<std::size_t>(s)], r.own_of(s), std::span<const Real>(), r.ended[static_cast<std::size_t>(s)] != 0);
  return other;
}

/// Options of `steerlm2_loop`. Defaults are the paper's, where it has any.
struct steerlm2_loop_options {
  index_t replies = 10;         ///< to each prompt
  steerlm2_options objective{};  ///< `denominator` is set by the loop: the prompts of a minibatch
  bool baseline = true;         ///< off: b' = 0, supervised learning with weights w'; for comparison, it has more noise
  int epochs = 2;               ///< over the replies of an iteration; at most, where `patience` is given
  index_t prompts = 128;        ///< of a minibatch: one step of the optimiser
  index_t micro_batch = 0;      ///< texts per forward and backward pass; 0: a whole minibatch. Below the replies to a prompt they are scored first
                                ///< and passed forward again, piece by piece. Changes nothing but rounding and memory
  double rate = 1e-7;
  double held_out = 0;          ///< share of the prompts that is not trained on, but measured after each epoch; in [0, 1)
  int patience = 0;             ///< epochs without a better distance on held-out prompts, after which an iteration ends; 0: all epochs
  double temperature = 0;       ///< of log Q and log Q'. 0: that at which the replies were drawn, as importance weights need it
  bool rescore = false;         ///< log Q' is the policy's own `score` of the replies, not what the sampler stored
  bool skip_truncated = false;  ///< replies that were cut off do not take part
  double start_tolerance = 0.05;  ///< the largest |log Q - log Q'| of a reply before the first step, in nats: more is an error
  double least_effective = 0;  ///< an iteration whose weights have fewer effective samples per prompt, on average, is an error: nothing to learn from
  std::uint64_t seed = 0;       ///< of the order of minibatches, and of which prompts are held out

  void require(const char* op) const {
    objective.require(op);
    require_option(op, "replies", static_cast<double>(replies), replies >= 2, "2 or more: one reply has nothing to be compared with");
    require_option(op, "epochs", epochs, epochs >= 1, "1 or more");
    require_option(op, "prompts", static_cast<double>(prompts), prompts >= 1, "1 or more");
    require_option(op, "micro_batch", static_cast<double>(micro_batch), micro_batch >= 0, "0 (a whole minibatch) or positive");
    require_option(op, "rate", rate, rate >= 0, "0 or positive");
    require_option(op, "held_out", held_out, held_out >= 0 && held_out < 1, "in [0, 1)");
    require_option(op, "patience", patience, patience >= 0, "0 (all epochs) or positive");
    if (patience > 0) require_option(op, "held_out", held_out, held_out > 0, "above 0, where `patience` is given");
    require_option(op, "temperature", temperature, temperature >= 0, "0 (that of the sampling) or positive");
    require_option(op, "start_tolerance", start_tolerance, start_tolerance >= 0, "0 or positive");
    require_option(op, "least_effective", least_effective, least_effective >= 0, "0 (off) or positive");
  }
};

/// The replies of one iteration and what is known of them. Whoever has no models of our kind fills in the first five and calls `weigh`.
template <class Real>
struct steerlm2_sample {
  rollouts<Real> replies{};               ///< behind the prompts with attributes; `temperature` is that of log Q and log Q'
  prompt_groups groups{};                 ///< which of them answer the same prompt with the same attributes
  std::vector<Real> log_p_attributes{};   ///< `[S]`, log P(a | x, y)
  std::vector<Real> log_p_reply{};        ///< `[S]`, log P(y | x) of the unconditional model, behind the prompt without attributes
  std::vector<Real> log_q{};              ///< `[S]`, log Q'(y | a, x), summed over own tokens
  std::vector<Real> weight{};             ///< `[S]`, w': 0 for replies that do not take part
  std::vector<Real> effective_samples{};  ///< `[G]`
  std::vector<std::uint8_t> takes_part{};  ///< `[S]`
};

/// What one epoch saw. NaN: over nothing.
struct steerlm2_epoch {
  double loss = 0, distance = 0, baseline_effective_samples = 0;  ///< over the prompts trained on, as they came
  double log_ratio_max = 0;       ///< the largest |log Q - log Q'| of a reply
  double held_out_distance = 0;   ///< after the epoch
  double first_gap = 0;           ///< `log_ratio_max` of the first minibatch of an iteration, before any step: 0, or the sampler computes differently
  int steps = 0;
  bool improved = false;          ///< the held-out distance is the best so far in this iteration
};

/// What one iteration saw. NaN: over nothing.
struct steerlm2_loop_metrics {
  double log_p_attributes = 0, log_p_reply = 0, log_q = 0;  ///< of the replies that take part, means
  double effective_samples = 0, effective_samples_min = 0;  ///< of w', mean over prompts, and the least
  double weight_max = 0;             ///< the largest weight of a prompt, mean
  double loss = 0, distance = 0, baseline_effective_samples = 0, log_ratio_max = 0;  ///< of the last epoch
  double held_out_distance_first = 0, held_out_distance = 0;  ///< KL(w' || b') of held-out prompts: before the first step, at the best epoch
  double first_gap = 0;              ///< see `steerlm2_epoch`
  double sampler_gap = 0;            ///< mean |log-prob as sampled - as scored| over tokens; only with `rescore` or a temperature of its own
  double length = 0, ended = 0, left_out = 0;  ///< own tokens of a text; shares of texts
  std::int64_t prompts = 0, texts = 0, tokens = 0;
  int epochs = 0, best_epoch = 0, steps = 0;

  /// `f(name, value)` for each number.
  template <class F>
  void visit(F f) const {
    f("log_p_attributes", log_p_attributes), f("log_p_reply", log_p_reply), f("log_q", log_q), f("effective_samples", effective_samples);
    f("effective_samples_min", effective_samples_min), f("weight_max", weight_max), f("loss", loss), f("distance", distance);
    f("baseline_effective_samples", baseline_effective_samples), f("log_ratio_max", log_ratio_max);
    f("held_out_distance_first", held_out_distance_first), f("held_out_distance", held_out_distance), f("first_gap", first_gap);
    f("sampler_gap", sampler_gap), f("length", length), f("ended", ended), f("left_out", left_out), f("prompts", static_cast<double>(prompts));
    f("texts", static_cast<double>(texts)), f("tokens", static_cast<double>(tokens)), f("epochs", epochs), f("best_epoch", best_epoch),
        f("steps", steps);
  }
};

/// Iterations of SteerLM 2.0, on a backend in host memory. Owns its scratch memory, no model. `step` does a whole iteration; its parts are there too:
/// `sample` (replies, what the models say of them, weights), `train`, or `epoch` after `epoch` until `finished`, then `next`.
template <class B>
class steerlm2_loop {
 public:
  using real = real_of<B>;
  static_assert(std::is_same_v<space_of<B>, host_space>,
                "plumb: the loop of SteerLM 2.0 keeps its numbers in host memory; with device memory call steerlm2_weights and steerlm2: see "
                "docs/algorithms/steerlm2.md");

  /// What a run needs to go on: `restore` it beside the policy's own checkpoint and, between epochs, the sample.
  struct state_type {
    std::uint64_t iteration = 0;
    int epoch = 0;       ///< epochs of this iteration that are done
    int best_epoch = 0;  ///< 0: none was better than the start
    double best_distance = std::numeric_limits<double>::infinity();  ///< on held-out prompts
  };

  explicit steerlm2_loop(B& compute, steerlm2_loop_options options = {}) : b_(compute), o_(options) { o_.require(op); }

  const steerlm2_loop_options& options() const { return o_; }
  const state_type& state() const { return state_; }
  void restore(const state_type& s) { state_ = s; }
  /// Learning rate of the iterations to come.
  void set_rate(double rate) {
    require_option(op, "rate", rate, rate >= 0, "0 or positive");
    o_.rate = rate;
  }

  /// A whole iteration; see `sample` and `train`.
  template <class Policy, class Posterior, class Unconditional, std::ranges::contiguous_range States>
  steerlm2_loop_metrics step(Policy& policy, Posterior& posterior, Unconditional& unconditional, const States& starts, std::span<const start> plain,
                             const sampling& how) {
    return train(policy, sample(policy, posterior, unconditional, starts, plain, how));
  }

  /// The policy writes `replies` replies to each of `starts`, the prompts with attributes; `posterior` and `unconditional` see them behind `plain`,
  /// the same prompts without attributes, in the same order. `plain` may have other numbers (`start::prompt`); a group is an entry of the lists.
  /// `how.step` is the number of the iteration. Everything is checked; the weights are there.
  template <class Policy, class Posterior, class Unconditional, std::ranges::contiguous_range States>
  steerlm2_sample<real> sample(Policy& policy, Posterior& posterior, Unconditional& unconditional, const States& starts, std::span<const start> plain,
                               sampling how) {
    using begin_state = std::ranges::range_value_t<States>;
    static_assert(check_policy<Policy, real, begin_state>() && check_token_scorer<Unconditional, real>());
    static_assert(attribute_posterior_model<Posterior, real>,
                  "plumb: this model has no log_p(rollouts) that gives one number per text; beta_posterior makes one of attributes(rollouts): see "
                  "docs/algorithms/steerlm2.md");
    const auto prompts = static_cast<index_t>(std::ranges::size(starts));
    if (prompts != static_cast<index_t>(plain.size()))
      fail(message(op) << "there are " << prompts << " starts with attributes, but " << static_cast<index_t>(plain.size())
                       << " without. Nothing was sampled.");
    require_option(op, "sampling.temperature", how.temperature, how.temperature > 0, "positive: replies have to be drawn");
    how.step = state_.iteration;
    steerlm2_sample<real> x;
    x.replies = detail::written<real>(op, policy, detail::repeated(starts, o_.replies), how);
    x.groups = equal_groups(prompts, o_.replies);
    sampler_gap_ = nothing;
    if (o_.temperature > 0) x.replies.temperature = o_.temperature;
    if (o_.rescore || x.replies.temperature != how.temperature) {
      const auto scored = numbers("policy.score", policy.score(x.replies), x.replies.own_tokens(), "own tokens");
      detail::require_finite_tokens(op, "policy.score", scored, x.replies);
      double gap = 0;
      for (std::size_t t = 0; t < scored.size(); ++t) gap += std::abs(static_cast<double>(scored[t]) - static_cast<double>(x.replies.logp[t]));
      sampler_gap_ = scored.empty() ? nothing : gap / static_cast<double>(scored.size());
      x.replies.logp = scored;
    } else {
      detail::require_finite_tokens(op, "the sampler", x.replies.logp, x.replies);
    }
    x.log_q = summed(x.replies, x.replies.logp);
    const auto each_plain = detail::repeated(plain, o_.replies);
    const rollouts<real> r = behind(std::span<const start>(each_plain), x.replies);
    x.log_p_attributes = numbers("posterior.log_p", posterior.log_p(r), r.size(), "texts");
    const auto logp = numbers("unconditional.score", unconditional.score(r), r.own_tokens(), "own tokens");
    x.log_p_reply = summed(r, logp);
    weigh(x);
    return x;
  }

  /// Checks a sample, and fills in weights, effective samples and who takes part: a reply does that has tokens, unless it was cut off and
  /// `skip_truncated`.
  void weigh(steerlm2_sample<real>& x) {
    x.replies.require(op);
    const auto n = static_cast<std::size_t>(x.replies.size());
    for (const auto& [name, v] : {std::pair{"log_p_attributes", &x.log_p_attributes}, {"log_p_reply", &x.log_p_reply}, {"log_q", &x.log_q}})
      if (v->size() != n)
        fail(message(op) << name << " has " << static_cast<index_t>(v->size()) << " numbers, but there are " << x.replies.size()
                         << " texts. Nothing was trained.");
    if (x.groups.replies() != x.replies.size())
      fail(message(op) << "the groups have " << x.groups.replies() << " replies, but there are " << x.replies.size()
                       << " texts. Nothing was trained.");
    detail::require_finite_texts(op, "log Q'", x.log_q, x.replies);
    require_below_infinity("log P(a | x, y)", x.log_p_attributes, x.replies);
    require_below_infinity("log P(y | x)", x.log_p_reply, x.replies);
    x.takes_part.resize(n);
    for (std::size_t s = 0; s < n; ++s)
      x.takes_part[s] = x.replies.own_count(static_cast<index_t>(s)) > 0 && (x.replies.ended[s] || !o_.skip_truncated);
    const auto in_order = [&](const auto& v) {
      auto moved = v;
      for (std::size_t i = 0; i < n; ++i) moved[i] = v[static_cast<std::size_t>(x.groups.order[i])];
      return moved;
    };
    const auto a = in_order(x.log_p_attributes), y = in_order(x.log_p_reply), q = in_order(x.log_q);
    const auto scored = in_order(x.takes_part);
    for (index_t g = 0; g < x.groups.groups(); ++g) {
      bool any = false, possible = false;
      std::size_t which = 0;
      for (auto i = static_cast<std::size_t>(x.groups.begin[static_cast<std::size_t>(g)]);
           i < static_cast<std::size_t>(x.groups.end[static_cast<std::size_t>(g)]); ++i) {
        if (!scored[i]) continue;
        any = true;
        possible = possible || std::isfinite(a[i] + y[i]);
        which = static_cast<std::size_t>(x.groups.order[i]);
      }
      if (any && !possible)
        fail(message(op) << "no reply to prompt " << static_cast<index_t>(x.replies.prompt[which]) << " (group " << g << ", text "
                         << static_cast<index_t>(which) << " is one) is possible: P(a | x, y) P(y | x) is 0 for all of them. Nothing was trained.");
    }
    std::vector<real> w(n);
    x.effective_samples.assign(static_cast<std::size_t>(x.groups.groups()), real(0));
    steerlm2_weights(b_, scratch_(steerlm2_weights_workspace(b_, static_cast<index_t>(n), x.groups.groups())),
                     {.log_p_attributes = a, .log_p_reply = y, .log_q = q, .groups = x.groups.layout(scored)},
                     {.weight = w, .effective_samples = x.effective_samples});
    b_.sync();
    x.weight.resize(n);
    for (std::size_t i = 0; i < n; ++i) x.weight[static_cast<std::size_t>(x.groups.order[i])] = scored[i] ? w[i] : real(0);
    if (o_.least_effective > 0) {
      double sum = 0, count = 0;
      for (const real e : x.effective_samples)
        if (e > real(0)) sum += static_cast<double>(e), ++count;
      if (count > 0 && sum / count < o_.least_effective)
        fail(message(op) << "the weights have " << sum / count << " effective samples per prompt, fewer than `least_effective`, "
                         << o_.least_effective << ": the policy hardly writes what is asked for. Nothing was trained.");
    }
  }

  /// All epochs that the iteration still has, then `next`. A policy that has snapshots ends with the weights of the epoch whose held-out prompts
  /// were nearest (those it began with, where none was nearer), if there are held-out prompts.
  template <class Policy>
  steerlm2_loop_metrics train(Policy& policy, const steerlm2_sample<real>& x) {
    static_assert(check_trainable<Policy, real>());
    steerlm2_loop_metrics m = describe(x);
    const auto keep = [&] {
      if constexpr (has_snapshots<Policy>) return std::optional(policy.snapshot());
      else return 0;
    };
    if (state_.epoch > 0)
      fail(message(op) << "train begins an iteration, but " << state_.epoch
                       << " epochs of this one are done: go on with epoch(policy, sample). Nothing was trained.");
    begin(x);
    m.held_out_distance_first = start_distance_;
    auto best = keep();
    while (!finished()) {
      const steerlm2_epoch e = epoch(policy, x);
      if (state_.epoch == 1) m.first_gap = e.first_gap;
      m.loss = e.loss;
      m.distance = e.distance;
      m.baseline_effective_samples = e.baseline_effective_samples;
      m.log_ratio_max = e.log_ratio_max;
      m.steps += e.steps;
      if (e.improved) best = keep();
    }
    m.epochs = state_.epoch;
    const bool measured = std::isfinite(state_.best_distance);
    m.best_epoch = measured ? state_.best_epoch : state_.epoch;
    m.held_out_distance = measured ? state_.best_distance : nothing;
    if constexpr (has_snapshots<Policy>)
      if (measured && state_.best_epoch != state_.epoch) policy.restore(*best);
    next();
    return m;
  }

  /// One pass over the prompts that are trained on. Keep the sample and call it until `finished`; `improved` says when to keep the policy.
  template <class Policy>
  steerlm2_epoch epoch(Policy& policy, const steerlm2_sample<real>& x) {
    static_assert(check_trainable<Policy, real>());
    begin(x);
    steerlm2_epoch e;
    const random_stream order{random_stream{o_.seed, 0x706c756d62000005u}.bits(state_.iteration), static_cast<std::uint64_t>(state_.epoch)};
    const auto groups = detail::shuffled(trained_, order);
    const std::size_t each = static_cast<std::size_t>(o_.prompts), pieces = (groups.size() + each - 1) / each;
    sums all;
    for (std::size_t piece = 0; piece < pieces; ++piece) {
      const std::size_t first = groups.size() * piece / pieces, last = groups.size() * (piece + 1) / pieces;
      sums one;
      detail::gradients_of gradients(policy);
      minibatch(policy, x, std::span(groups).subspan(first, last - first), state_.epoch == 0 && piece == 0, e.steps, one);
      gradients.use();
      if (piece == 0) e.first_gap = one.value(3);
      policy.step(o_.rate);
      all.add(one);
      ++e.steps;
    }
    e.loss = e.steps > 0 ? all.loss / e.steps : nothing;
    e.distance = all.value(0);
    e.baseline_effective_samples = all.value(2);
    e.log_ratio_max = all.value(3);
    ++state_.epoch;
    e.held_out_distance = held_out_.empty() ? nothing : distance(policy, x, held_out_);
    if (e.held_out_distance < state_.best_distance) {
      state_.best_distance = e.held_out_distance;
      state_.best_epoch = state_.epoch;
      e.improved = true;
    }
    return e;
  }
  /// Whether the iteration has had its epochs, or `patience` of them without a better distance.
  bool finished() const { return state_.epoch >= o_.epochs || (o_.patience > 0 && state_.epoch - state_.best_epoch >= o_.patience); }
  /// The next iteration.
  void next() { state_ = {.iteration = state_.iteration + 1}; }

  /// KL(w' || b') under the policy, mean over the prompts `groups` of the sample.
  template <class Policy>
  double distance(Policy& policy, const steerlm2_sample<real>& x, std::span<const std::int32_t> groups) {
    sums all;
    in_chunks(x, groups, [&](std::span<const std::int32_t> chunk, const std::vector<std::int32_t>& rows) {
      sums one;
      const auto logp = scored_in_pieces(policy, x.replies, rows);
      terms(x, chunk, rows, logp, 1, one, {});
      all.add(one);
    });
    return all.value(0);
  }
  /// The prompts of the sample that this iteration holds out, and those it trains on.
  std::span<const std::int32_t> held_out(const steerlm2_sample<real>& x) { return split(x), held_out_; }
  std::span<const std::int32_t> trained(const steerlm2_sample<real>& x) { return split(x), trained_; }

 private:
  static constexpr const char* op = "steerlm2_loop";
  static constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

  // Sums of one minibatch, and of all.
  struct sums {
    double rows[std::size(steerlm2_metrics)][2] = {};
    double loss = 0;
    sums() { rows[3][0] = -std::numeric_limits<double>::infinity(); }
    double value(std::size_t k) const { return metric_value(steerlm2_metrics[k].kind, rows[k][0], rows[k][1]); }
    void add(const sums& more) {
      merge_metrics(steerlm2_metrics, view<double, 2>(&rows[0][0], std::size(steerlm2_metrics), 2),
                    view<const double, 2>(&more.rows[0][0], std::size(steerlm2_metrics), 2));
      loss += more.loss;
    }
  };

  template <class R>
  static std::vector<real> numbers(const char* name, const R& given, index_t count, const char* of, int steps = 0) {
    return detail::numbers_from<real>(op, name, given, count, of, steps);
  }
  static void require_below_infinity(const char* name, const std::vector<real>& x, const rollouts<real>& r) {
    for (std::size_t s = 0; s < x.size(); ++s)
      if (!(x[s] < std::numeric_limits<real>::infinity()))
        fail(message(op) << name << " is " << static_cast<double>(x[s]) << " for text " << static_cast<index_t>(s) << " (prompt "
                         << static_cast<index_t>(r.prompt[s]) << "). Nothing was trained.");
  }
  std::vector<real> summed(const rollouts<real>& r, const std::vector<real>& logp) {
    std::vector<real> sum(static_cast<std::size_t>(r.size()));
    b_.segment_reduce(reduction::sum, view<const real, 1>(logp), r.layout(), view<real, 1>(sum));
    b_.sync();
    return sum;
  }

  // Which prompts are held out: as many as the share says, drawn by (seed, iteration). Prompts of which no reply takes part are in neither list.
  void split(const steerlm2_sample<real>& x) {
    std::vector<std::int32_t> all;
    for (std::int32_t g = 0; g < static_cast<std::int32_t>(x.groups.groups()); ++g)
      if (x.effective_samples[static_cast<std::size_t>(g)] > real(0)) all.push_back(g);
    const auto count = static_cast<std::size_t>(o_.held_out * static_cast<double>(all.size()) + 0.5);
    all = detail::shuffled(std::move(all), random_stream{random_stream{o_.seed, 0x706c756d62000006u}.bits(state_.iteration), 0});
    held_out_.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count));
    trained_.assign(all.begin() + static_cast<std::ptrdiff_t>(count), all.end());
    std::sort(held_out_.begin(), held_out_.end());
    std::sort(trained_.begin(), trained_.end());
  }
  // Before the first step the distance is that of equal b'.
  void begin(const steerlm2_sample<real>& x) {
    if (x.weight.size() != static_cast<std::size_t>(x.replies.size()))
      fail(message(op) << "the sample has no weights: call weigh(sample) first. Nothing was trained.");
    split(x);
    if (o_.held_out > 0 && held_out_.empty())
      fail(message(op) << "there are " << static_cast<index_t>(trained_.size()) << " prompts: a share of " << o_.held_out
                       << " of them is none. Nothing was trained.");
    if (state_.epoch > 0) return;
    start_distance_ = nothing;
    if (held_out_.empty()) return;
    double sum = 0;
    for (const std::int32_t g : held_out_) {
      double members = 0, entropy = 0;
      for (const std::int32_t s : members_of(x, g)) {
        const auto w = static_cast<double>(x.weight[static_cast<std::size_t>(s)]);
        if (w > 0) entropy -= w * std::log(w);
        ++members;
      }
      sum += std::log(members) - entropy;
    }
    state_.best_distance = start_distance_ = sum / static_cast<double>(held_out_.size());
    state_.best_epoch = 0;
  }
  std::vector<std::int32_t> members_of(const steerlm2_sample<real>& x, std::int32_t g) const {
    std::vector<std::int32_t> rows;
    for (auto i = static_cast<std::size_t>(x.groups.begin[static_cast<std::size_t>(g)]);
         i < static_cast<std::size_t>(x.groups.end[static_cast<std::size_t>(g)]); ++i)
      if (x.takes_part[static_cast<std::size_t>(x.groups.order[i])]) rows.push_back(x.groups.order[i]);
    return rows;
  }

  // f(prompts, their replies) for as many prompts at a time as `micro_batch` texts hold; one at least.
  template <class F>
  void in_chunks(const steerlm2_sample<real>& x, std::span<const std::int32_t> groups, F f) {
    std::size_t from = 0;
    std::vector<std::int32_t> rows;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const auto more = members_of(x, groups[i]);
      if (i > from && o_.micro_batch > 0 && rows.size() + more.size() > static_cast<std::size_t>(o_.micro_batch)) {
        f(groups.subspan(from, i - from), rows);
        rows.clear();
        from = i;
      }
      rows.insert(rows.end(), more.begin(), more.end());
    }
    if (from < groups.size()) f(groups.subspan(from), rows);
  }
  template <class Policy>
  std::vector<real> scored_in_pieces(Policy& policy, const rollouts<real>& all, std::span<const std::int32_t> rows, int steps = 0) {
    std::vector<real> logp;
    detail::for_each_micro_batch(rows, o_.micro_batch, [&](std::span<const std::int32_t> piece) {
      const rollouts<real> r = all.select(piece);
      const auto some = numbers("policy.score", policy.score(r), r.own_tokens(), "own tokens", steps);
      logp.insert(logp.end(), some.begin(), some.end());
    });
    return logp;
  }

  // The objective over whole prompts, whose replies are `rows` with the own tokens `logp`; the gradient where `d_logp` is given.
  void terms(const steerlm2_sample<real>& x, std::span<const std::int32_t> groups, const std::vector<std::int32_t>& rows,
             const std::vector<real>& logp, double denominator, sums& total, view<real, 1> d_logp) {
    std::vector<std::int32_t> replies{0}, prompts{0};
    std::vector<real> log_q, weight;
    for (const std::int32_t g : groups) prompts.push_back(prompts.back() + static_cast<std::int32_t>(members_of(x, g).size()));
    for (const std::int32_t s : rows) {
      replies.push_back(replies.back() + static_cast<std::int32_t>(x.replies.own_count(s)));
      log_q.push_back(x.log_q[static_cast<std::size_t>(s)]);
      weight.push_back(x.weight[static_cast<std::size_t>(s)]);
    }
    const auto count = static_cast<index_t>(rows.size()), many = static_cast<index_t>(groups.size());
    auto options = o_.objective;
    options.denominator = denominator;
    real loss = 0, metrics[std::size(steerlm2_metrics)][2] = {};
    const auto of_replies = sequence_layout<>::packed(replies);
    steerlm2(b_, scratch_(steerlm2_workspace(b_, count, many)),
             {.logp = logp, .replies = of_replies, .log_q = log_q, .weight = weight, .groups = sequence_layout<>::packed(prompts)}, options,
             {.loss = loss, .d_logp = d_logp, .metrics = view<real, 2>(&metrics[0][0], std::size(steerlm2_metrics), 2)});
    if (d_logp.given() && !o_.baseline) {
      b_.transform(math::scale<real>{static_cast<real>(-options.weight / denominator)}, view<real, 1>(weight), view<const real, 1>(weight));
      b_.segment_broadcast(view<const real, 1>(weight), of_replies, d_logp, write_mode::overwrite);
    }
    b_.sync();
    total.loss += static_cast<double>(loss);
    sums one;
    for (std::size_t k = 0; k < std::size(steerlm2_metrics); ++k)
      for (int c = 0; c < 2; ++c) one.rows[k][c] = static_cast<double>(metrics[k][c]);
    total.add(one);
  }

  // Gradients of one minibatch; the denominator is its number of prompts.
  template <class Policy>
  void minibatch(Policy& policy, const steerlm2_sample<real>& x, std::span<const std::int32_t> groups, bool first, int steps, sums& total) {
    in_chunks(x, groups, [&](std::span<const std::int32_t> chunk, const std::vector<std::int32_t>& rows) {
      const bool whole = o_.micro_batch == 0 || rows.size() <= static_cast<std::size_t>(o_.micro_batch);
      const rollouts<real> r = x.replies.select(rows);
      const auto logp = whole ? numbers("policy.forward", policy.forward(r), r.own_tokens(), "own tokens", steps)
                              : scored_in_pieces(policy, x.replies, rows, steps);
      detail::require_finite_tokens(op, whole ? "policy.forward" : "policy.score", logp, r, rows, steps);
      if (first) require_start(x, rows, logp);
      std::vector<real> d_logp(logp.size());
      sums one;
      terms(x, chunk, rows, logp, static_cast<double>(groups.size()), one, d_logp);
      if (whole) {
        policy.backward(r, d_logp);
      } else {
        std::size_t at = 0;
        detail::for_each_micro_batch(rows, o_.micro_batch, [&](std::span<const std::int32_t> piece) {
          const rollouts<real> part = x.replies.select(piece);
          const auto n = static_cast<std::size_t>(part.own_tokens());
          numbers("policy.forward", policy.forward(part), part.own_tokens(), "own tokens", steps);
          policy.backward(part, view<const real, 1>(d_logp.data() + at, part.own_tokens()));
          at += n;
        });
      }
      total.add(one);
    });
  }
  // Nothing was trained yet, so Q is Q' and b' is 1/n.
  void require_start(const steerlm2_sample<real>& x, std::span<const std::int32_t> rows, const std::vector<real>& logp) {
    std::size_t t = 0;
    for (const std::int32_t s : rows) {
      double sum = 0;
      for (const std::size_t last = t + static_cast<std::size_t>(x.replies.own_count(s)); t < last; ++t) sum += static_cast<double>(logp[t]);
      const auto stored = static_cast<double>(x.log_q[static_cast<std::size_t>(s)]);
      if (std::abs(sum - stored) <= o_.start_tolerance) continue;
      fail(message(op) << "before the first step log Q of text " << static_cast<index_t>(s) << " (prompt "
                       << static_cast<index_t>(x.replies.prompt[static_cast<std::size_t>(s)]) << ") is " << sum << ", but log Q' was stored as "
                       << stored << ": it covers other tokens, or is of another temperature or another policy. Nothing was trained.");
    }
  }

  steerlm2_loop_metrics describe(const steerlm2_sample<real>& x) const {
    steerlm2_loop_metrics m;
    const auto texts = static_cast<double>(x.replies.size());
    double part = 0, prompts = 0;
    m.texts = x.replies.size();
    m.tokens = x.replies.own_tokens();
    m.sampler_gap = sampler_gap_;
    m.held_out_distance_first = m.held_out_distance = m.first_gap = nothing;
    m.effective_samples_min = std::numeric_limits<double>::infinity();
    for (std::size_t s = 0; s < x.takes_part.size(); ++s) {
      m.ended += x.replies.ended[s] / texts;
      if (!x.takes_part[s]) continue;
      ++part;
      m.log_p_attributes += static_cast<double>(x.log_p_attributes[s]);
      m.log_p_reply += static_cast<double>(x.log_p_reply[s]);
      m.log_q += static_cast<double>(x.log_q[s]);
    }
    const auto over = [](double sum, double count) { return count > 0 ? sum / count : nothing; };
    for (double* v : {&m.log_p_attributes, &m.log_p_reply, &m.log_q}) *v = over(*v, part);
    for (std::size_t g = 0; g < x.effective_samples.size(); ++g) {
      const auto e = static_cast<double>(x.effective_samples[g]);
      if (!(e > 0)) continue;
      ++prompts;
      m.effective_samples += e;
      m.effective_samples_min = std::min(m.effective_samples_min, e);
      double most = 0;
      for (const std::int32_t s : members_of(x, static_cast<std::int32_t>(g)))
        most = std::max(most, static_cast<double>(x.weight[static_cast<std::size_t>(s)]));
      m.weight_max += most;
    }
    m.effective_samples = over(m.effective_samples, prompts);
    m.weight_max = over(m.weight_max, prompts);
    if (prompts == 0) m.effective_samples_min = nothing;
    m.prompts = static_cast<std::int64_t>(prompts);
    m.length = over(static_cast<double>(m.tokens), texts);
    m.left_out = over(texts - part, texts);
    return m;
  }

  B& b_;
  steerlm2_loop_options o_;
  state_type state_{};
  std::vector<std::int32_t> held_out_{}, trained_{};
  double start_distance_ = nothing, sampler_gap_ = nothing;
  detail::loop_scratch scratch_{};
};

PLUMB_NAMESPACE_END

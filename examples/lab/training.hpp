#pragma once
// Steps of training: batches of token sequences, the optimiser, and one step of each objective.

#include "transformer.hpp"
#include "world.hpp"

#include <memory>
#include <span>

namespace lab {

/// The step's rate: warm-up over the first twentieth, then a cosine down to a tenth.
inline double schedule(double rate, int step, int steps) {
  const double warm = std::max(1.0, steps / 20.0);
  if (step < warm) return rate * (step + 1) / warm;
  const double done = (step - warm) / std::max(1.0, steps - warm);
  return rate * (0.1 + 0.9 * 0.5 * (1 + std::cos(3.141592653589793 * done)));
}

/// A prompt and a reply, one after the other; the reply's tokens are scored.
struct sample {
  tokens text;
  std::size_t prompt_length;
};
inline sample joined(const tokens& prompt, const tokens& reply) {
  sample s{prompt, prompt.size()};
  s.text.insert(s.text.end(), reply.begin(), reply.end());
  return s;
}

/// Right-padded token ids `[size, length]`, and the scored tokens of them with a packed layout of their own.
struct batch {
  index_t size = 0, length = 0;
  std::vector<std::int32_t> ids{}, begin{}, end{}, rows{}, targets{}, first{}, last{}, last_rows{};
  std::vector<std::uint8_t> completion{};

  explicit batch(std::span<const sample> samples) : size(static_cast<index_t>(samples.size())) {
    for (const auto& s : samples) length = std::max(length, static_cast<index_t>(s.text.size()));
    ids.assign(static_cast<std::size_t>(size * length), 0);
    completion.assign(ids.size(), 0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const std::size_t start = i * static_cast<std::size_t>(length);
      const auto& s = samples[i];
      std::copy(s.text.begin(), s.text.end(), ids.begin() + static_cast<std::ptrdiff_t>(start));
      std::fill_n(completion.begin() + static_cast<std::ptrdiff_t>(start + s.prompt_length), s.text.size() - s.prompt_length, std::uint8_t{1});
      begin.push_back(static_cast<std::int32_t>(start));
      end.push_back(static_cast<std::int32_t>(start + s.text.size()));
      last_rows.push_back(end.back() - 1);
    }
    const plumb::sequence_layout<> all{begin, end, completion};
    const auto count = static_cast<std::size_t>(plumb::count_scored(all));
    rows.resize(count);
    targets.resize(count);
    first.resize(samples.size());
    last.resize(samples.size());
    plumb::scored_tokens(all, ids, {.rows = rows, .targets = targets, .begin = first, .end = last});
  }
  plumb::sequence_layout<> scored() const { return {.begin = first, .end = last}; }
  index_t scored_count() const { return static_cast<index_t>(rows.size()); }
};

/// Scratch memory for activations, not touched until it is used.
class workspace {
 public:
  explicit workspace(std::size_t bytes) : memory_(new std::byte[bytes]), arena_(memory_.get(), bytes) {}
  plumb::arena<>& operator()() { return arena_; }

 private:
  std::unique_ptr<std::byte[]> memory_;
  plumb::arena<> arena_;
};

/// A model in training.
template <class B>
class trainer {
 public:
  using real = plumb::real_of<B>;

  trainer(B& compute, workspace& scratch, transformer<B>& model)
      : b_(compute), scratch_(scratch()), model_(model), first_moment_(model.weights().size()), second_moment_(first_moment_.size()) {}

  struct step_result {
    double loss = 0, accuracy = 0;
  };

  /// `plumb::supervised` on the replies.
  step_result supervised(const batch& x, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const auto a = model_.forward(b_, scratch_, x.ids, x.size, x.length);
    const auto logp = scratch_.template take<real>(x.scored_count()), d_logp = scratch_.template take<real>(x.scored_count());
    const auto lse = log_probabilities(a, x, logp);
    real loss = 0;
    plumb::supervised(b_, scratch_, {.logp = logp, .sequences = x.scored()},
                      {.denominator = static_cast<double>(x.scored_count())}, {.loss = loss, .d_logp = d_logp});
    backward_from_tokens(a, x, lse, d_logp);
    update(rate);
    return {.loss = static_cast<double>(loss)};
  }

  /// `plumb::dpo`; samples 2p and 2p + 1 are the chosen and the rejected reply of pair p, `ref_logp` those of the reference.
  step_result dpo(const batch& x, const std::vector<real>& ref_logp, double beta, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const auto pairs = static_cast<std::size_t>(x.size / 2);
    std::vector<std::int32_t> chosen(pairs), rejected(pairs);
    for (std::size_t p = 0; p < pairs; ++p) {
      chosen[p] = static_cast<std::int32_t>(2 * p);
      rejected[p] = static_cast<std::int32_t>(2 * p + 1);
    }
    const auto a = model_.forward(b_, scratch_, x.ids, x.size, x.length);
    const auto logp = scratch_.template take<real>(x.scored_count()), d_logp = scratch_.template take<real>(x.scored_count());
    const auto lse = log_probabilities(a, x, logp);
    real loss = 0, metrics[std::size(plumb::dpo_metrics)][2];
    plumb::dpo(b_, scratch_, {.logp = logp, .ref_logp = ref_logp, .pairs = {x.scored(), chosen, rejected}},
               {.beta = beta, .denominator = static_cast<double>(pairs)},
               {.loss = loss, .d_logp = d_logp, .metrics = view(&metrics[0][0], std::size(plumb::dpo_metrics), 2)});
    backward_from_tokens(a, x, lse, d_logp);
    update(rate);
    return {static_cast<double>(loss), static_cast<double>(metrics[0][0] / metrics[0][1])};
  }

  /// `plumb::bradley_terry` on the score of each text's last token; samples 2p and 2p + 1 are a pair.
  step_result bradley_terry(const batch& x, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const auto a = model_.forward(b_, scratch_, x.ids, x.size, x.length);
    const auto scores = scratch_.template take<real>(x.size, 1), d_scores = scratch_.template take<real>(x.size, 1);
    const auto states = score(a, x, scores);
    const index_t pairs = x.size / 2;
    const auto every_other = [&](auto v, index_t offset) { return decltype(v.row(0)){v.data() + offset, {pairs}, {2}}; };
    real loss = 0, metrics[std::size(plumb::bradley_terry_metrics)][2];
    plumb::bradley_terry(b_, scratch_, {.chosen = every_other(scores, 0), .rejected = every_other(scores, 1)},
                         {.center_coefficient = 0.01, .denominator = static_cast<double>(pairs)},
                         {.loss = loss, .d_chosen = every_other(d_scores, 0), .d_rejected = every_other(d_scores, 1),
                          .metrics = view(&metrics[0][0], std::size(plumb::bradley_terry_metrics), 2)});
    backward_from_scores(a, x, states, d_scores);
    update(rate);
    return {static_cast<double>(loss), static_cast<double>(metrics[0][0] / metrics[0][1])};
  }

  /// `plumb::attribute_regression` of the last token's scores on ratings `[size, K]`, missing ones -100.
  step_result attribute_regression(const batch& x, const std::vector<real>& ratings, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const index_t k = model_.config().scores;
    const auto a = model_.forward(b_, scratch_, x.ids, x.size, x.length);
    const auto scores = scratch_.template take<real>(x.size, k), d_scores = scratch_.template take<real>(x.size, k);
    const auto states = score(a, x, scores);
    const view<const real, 2> labels(ratings.data(), x.size, k);
    real loss = 0;
    plumb::attribute_regression(b_, scratch_, {.prediction = scores, .label = labels},
                                {.denominator = static_cast<double>(std::max<index_t>(1, plumb::count_rated(labels)))},
                                {.loss = loss, .d_prediction = d_scores});
    backward_from_scores(a, x, states, d_scores);
    update(rate);
    return {.loss = static_cast<double>(loss)};
  }

 private:
  plumb::linear_token_logp_inputs<real> head_inputs(const typename transformer<B>::activations& a, const batch& x) const {
    return {.hidden = a.hidden, .head = model_.head(), .targets = x.targets, .rows = x.rows};
  }
  view<real, 1> log_probabilities(const typename transformer<B>::activations& a, const batch& x, view<real, 1> logp) {
    const auto lse = scratch_.template take<real>(x.scored_count());
    plumb::linear_token_logp(b_, scratch_, head_inputs(a, x), {}, {.logp = logp, .log_sum_exp = lse});
    return lse;
  }
  void backward_from_tokens(const typename transformer<B>::activations& a, const batch& x, view<real, 1> lse, view<real, 1> d_logp) {
    const auto d_hidden = scratch_.template take<real>(a.hidden.extent(0), a.hidden.extent(1));
    b_.fill(view<real, 1>(model_.gradients()), real(0));
    plumb::linear_token_logp_backward(b_, scratch_, head_inputs(a, x), {}, {.log_sum_exp = lse, .d_logp = d_logp},
                                      {.d_hidden = d_hidden, .d_head = model_.head_gradient()});
    model_.backward(b_, scratch_, a, d_hidden);
  }
  view<real, 2> score(const typename transformer<B>::activations& a, const batch& x, view<real, 2> scores) {
    const auto states = scratch_.template take<real>(x.size, model_.config().width);
    b_.row_gather(as_const(a.hidden), view<const std::int32_t, 1>(x.last_rows), states);
    transformer<B>::linear(b_, scratch_, states, model_.score_head(), scores);
    return states;
  }
  void backward_from_scores(const typename transformer<B>::activations& a, const batch& x, view<real, 2> states, view<real, 2> d_scores) {
    const auto d_states = scratch_.template take<real>(x.size, model_.config().width);
    const auto d_hidden = scratch_.template take<real>(a.hidden.extent(0), a.hidden.extent(1));
    b_.fill(view<real, 1>(model_.gradients()), real(0));
    b_.gemm(scratch_, real(1), as_const(d_scores.transposed()), as_const(states), real(0), model_.score_head_gradient());
    b_.gemm(scratch_, real(1), as_const(d_scores), model_.score_head(), real(0), d_states);
    b_.fill(d_hidden, real(0));
    b_.row_scatter_add(as_const(d_states), view<const std::int32_t, 1>(x.last_rows), d_hidden);
    model_.backward(b_, scratch_, a, d_hidden);
  }

  /// AdamW on the flat weights, the gradient clipped to norm 1.
  void update(double rate) {
    constexpr double beta1 = 0.9, beta2 = 0.98;
    const auto g = view<const real, 1>(model_.gradients());
    const view<real, 1> w(model_.weights()), m(first_moment_), v(second_moment_);
    plumb::arena<>::frame frame(scratch_);
    const auto squares = scratch_.template take<real>(g.extent(0));
    real sum = 0;
    b_.transform(square{}, squares, g);
    b_.reduce(plumb::reduction::sum, as_const(squares), view<real, 1>(sum), plumb::write_mode::overwrite);
    b_.sync();
    const double norm = std::sqrt(static_cast<double>(sum));
    if (!std::isfinite(norm)) throw std::runtime_error("training diverged: the gradient is not finite");
    ++steps_;
    const adam_moments<real> moments{static_cast<real>(beta1), static_cast<real>(beta2), static_cast<real>(norm > 1 ? 1 / norm : 1)};
    b_.transform2(moments, m, v, g, as_const(m), as_const(v));
    const adam_step<real> step{static_cast<real>(rate), static_cast<real>(0.01), static_cast<real>(1e-8),
                               static_cast<real>(1 / (1 - std::pow(beta1, steps_))), static_cast<real>(1 / (1 - std::pow(beta2, steps_)))};
    b_.transform(step, w, as_const(w), as_const(m), as_const(v));
    b_.sync();
  }

  B& b_;
  plumb::arena<>& scratch_;
  transformer<B>& model_;
  std::vector<real> first_moment_, second_moment_;
  int steps_ = 0;
};

/// Log-probabilities of the scored tokens under a model that is not trained here (a reference).
template <class B>
std::vector<plumb::real_of<B>> score_tokens(B& b, workspace& memory, const transformer<B>& model, const batch& x) {
  using real = plumb::real_of<B>;
  auto& scratch = memory();
  plumb::arena<>::frame frame(scratch);
  std::vector<real> logp(x.rows.size());
  const auto a = model.forward(b, scratch, x.ids, x.size, x.length);
  const plumb::linear_token_logp_inputs<real> in{.hidden = a.hidden, .head = model.head(), .targets = x.targets, .rows = x.rows};
  plumb::linear_token_logp(b, scratch, in, {}, {.logp = logp});
  b.sync();
  return logp;
}

/// Scores `[size, K]` of the last token under a reward model.
template <class B>
std::vector<plumb::real_of<B>> reward(B& b, workspace& memory, const transformer<B>& model, const batch& x) {
  using real = plumb::real_of<B>;
  auto& scratch = memory();
  plumb::arena<>::frame frame(scratch);
  const auto a = model.forward(b, scratch, x.ids, x.size, x.length);
  const auto states = scratch.template take<real>(x.size, model.config().width);
  std::vector<real> scores(static_cast<std::size_t>(x.size * model.config().scores));
  b.row_gather(as_const(a.hidden), view<const std::int32_t, 1>(x.last_rows), states);
  transformer<B>::linear(b, scratch, states, model.score_head(), view<real, 2>(scores.data(), x.size, model.config().scores));
  b.sync();
  return scores;
}

/// Replies to `prompts`, drawn at `temperature` with a KV cache, all prompts side by side; reply i uses stream i of the seed. A reply ends
/// with `<end>`, or where the positions run out.
template <class B>
std::vector<tokens> draw_replies(B& b, workspace& memory, const transformer<B>& model, std::span<const tokens> prompts,
                                 double temperature, std::uint64_t seed) {
  using real = plumb::real_of<B>;
  auto& scratch = memory();
  const std::size_t n = prompts.size();
  const index_t count = static_cast<index_t>(n), v = model.config().vocabulary;
  std::vector<tokens> replies(n);
  std::vector<std::int32_t> ids(n);
  std::vector<bool> done(n, false);
  std::vector<real> probabilities(n * static_cast<std::size_t>(v));
  const view<real, 2> p(probabilities.data(), count, v);
  auto cache = model.empty_cache(count);
  std::size_t left = n;
  for (std::size_t t = 0; left > 0 && t + 1 < static_cast<std::size_t>(model.config().positions); ++t) {
    plumb::arena<>::frame frame(scratch);
    for (std::size_t i = 0; i < n; ++i)
      ids[i] = t < prompts[i].size() ? prompts[i][t] : done[i] ? 0 : replies[i].back();
    const auto hidden = model.step(b, scratch, ids, cache);
    bool reading = true;  // no prompt has ended yet: nothing to draw
    for (const auto& prompt : prompts) reading = reading && t + 1 < prompt.size();
    if (reading) continue;
    transformer<B>::linear(b, scratch, hidden, model.head(), p);
    b.transform(plumb::math::scale<real>{static_cast<real>(1 / temperature)}, p, as_const(p));
    b.row_softmax(as_const(p), {}, p);
    b.sync();
    for (std::size_t i = 0; i < n; ++i) {
      if (done[i] || t + 1 < prompts[i].size()) continue;
      const double u = plumb::random_stream{seed, i}.uniform(t);
      double sum = 0;
      index_t drawn = 0;
      for (index_t w = 0; w < v; ++w) {
        const double q = static_cast<double>(p(static_cast<index_t>(i), w));
        if (q > 0) drawn = w;
        if ((sum += q) > u) break;
      }
      replies[i].push_back(static_cast<token>(drawn));
      if (drawn == vocabulary::end_of_reply) {
        done[i] = true;
        --left;
      }
    }
  }
  return replies;
}

}  // namespace lab

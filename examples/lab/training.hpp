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
  /// Of the texts, prompts among them, without padding.
  index_t tokens() const {
    index_t count = 0;
    for (std::size_t i = 0; i < begin.size(); ++i) count += end[i] - begin[i];
    return count;
  }
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

/// A forward pass to the log-probabilities of a batch's scored tokens, in the arena, with what its backward pass needs.
template <class B>
struct token_pass {
  typename transformer<B>::activations a{};
  plumb::linear_token_logp_inputs<plumb::real_of<B>> head{};
  plumb::linear_token_logp_options options{};
  view<plumb::real_of<B>, 1> logp{}, lse{};
};
/// Logits are divided by `temperature`. `x` has to stay.
template <class B>
token_pass<B> token_logp(B& b, plumb::arena<>& scratch, const transformer<B>& model, const batch& x, double temperature = 1) {
  using real = plumb::real_of<B>;
  token_pass<B> pass{.a = model.forward(b, scratch, x.ids, x.size, x.length)};
  pass.head = {.hidden = pass.a.hidden, .head = model.head(), .targets = x.targets, .rows = x.rows};
  pass.options.logits.temperature = temperature;
  pass.logp = scratch.template take<real>(x.scored_count());
  pass.lse = scratch.template take<real>(x.scored_count());
  plumb::linear_token_logp(b, scratch, pass.head, pass.options, {.logp = pass.logp, .log_sum_exp = pass.lse});
  return pass;
}

/// A forward pass to the score head's numbers at some rows of the hidden states, likewise.
template <class B>
struct score_pass {
  typename transformer<B>::activations a{};
  view<const std::int32_t, 1> rows{};
  view<plumb::real_of<B>, 2> states{}, scores{};  ///< `[rows, width]`, `[rows, K]`
};
template <class B>
score_pass<B> head_scores(B& b, plumb::arena<>& scratch, const transformer<B>& model, const batch& x, const std::vector<std::int32_t>& rows) {
  using real = plumb::real_of<B>;
  const auto n = static_cast<index_t>(rows.size());
  score_pass<B> pass{.a = model.forward(b, scratch, x.ids, x.size, x.length), .rows = rows};
  pass.states = scratch.template take<real>(n, model.config().width);
  pass.scores = scratch.template take<real>(n, model.config().scores);
  b.row_gather(as_const(pass.a.hidden), pass.rows, pass.states);
  transformer<B>::linear(b, scratch, pass.states, model.score_head(), pass.scores);
  return pass;
}

/// A model in training: gradients add up until a step of AdamW takes them.
template <class B>
class trainer {
 public:
  using real = plumb::real_of<B>;

  trainer(B& compute, workspace& scratch, transformer<B>& model)
      : b_(compute), scratch_(scratch()), model_(model), first_moment_(model.weights().size()), second_moment_(first_moment_.size()) {}

  struct step_result {
    double loss, accuracy = std::numeric_limits<double>::quiet_NaN();  ///< NaN: the objective has none
  };

  /// `plumb::supervised` on the replies.
  step_result supervised(const batch& x, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const auto pass = token_logp(b_, scratch_, model_, x);
    const auto d_logp = scratch_.template take<real>(x.scored_count());
    real loss = 0;
    plumb::supervised(b_, scratch_, {.logp = pass.logp, .sequences = x.scored()},
                      {.denominator = static_cast<double>(x.scored_count())}, {.loss = loss, .d_logp = d_logp});
    backward(pass, as_const(d_logp));
    step(rate);
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
    const auto pass = token_logp(b_, scratch_, model_, x);
    const auto d_logp = scratch_.template take<real>(x.scored_count());
    real loss = 0, metrics[std::size(plumb::dpo_metrics)][2];
    plumb::dpo(b_, scratch_, {.logp = pass.logp, .ref_logp = ref_logp, .pairs = {x.scored(), chosen, rejected}},
               {.beta = beta, .denominator = static_cast<double>(pairs)},
               {.loss = loss, .d_logp = d_logp, .metrics = view(&metrics[0][0], std::size(plumb::dpo_metrics), 2)});
    backward(pass, as_const(d_logp));
    step(rate);
    return {static_cast<double>(loss), static_cast<double>(metrics[0][0] / metrics[0][1])};
  }

  /// `plumb::bradley_terry` on the score of each text's last token; samples 2p and 2p + 1 are a pair.
  step_result bradley_terry(const batch& x, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const auto pass = head_scores(b_, scratch_, model_, x, x.last_rows);
    const auto d_scores = scratch_.template take<real>(x.size, 1);
    const index_t pairs = x.size / 2;
    const auto every_other = [&](auto v, index_t offset) { return decltype(v.row(0)){v.data() + offset, {pairs}, {2}}; };
    real loss = 0, metrics[std::size(plumb::bradley_terry_metrics)][2];
    plumb::bradley_terry(b_, scratch_, {.chosen = every_other(pass.scores, 0), .rejected = every_other(pass.scores, 1)},
                         {.center_coefficient = 0.01, .denominator = static_cast<double>(pairs)},
                         {.loss = loss, .d_chosen = every_other(d_scores, 0), .d_rejected = every_other(d_scores, 1),
                          .metrics = view(&metrics[0][0], std::size(plumb::bradley_terry_metrics), 2)});
    backward(pass, as_const(d_scores));
    step(rate);
    return {static_cast<double>(loss), static_cast<double>(metrics[0][0] / metrics[0][1])};
  }

  /// `plumb::attribute_regression` of the last token's scores on ratings `[size, K]`, missing ones -100.
  step_result attribute_regression(const batch& x, const std::vector<real>& ratings, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const index_t k = model_.config().scores;
    const auto pass = head_scores(b_, scratch_, model_, x, x.last_rows);
    const auto d_scores = scratch_.template take<real>(x.size, k);
    const view<const real, 2> labels(ratings.data(), x.size, k);
    real loss = 0;
    plumb::attribute_regression(b_, scratch_, {.prediction = pass.scores, .label = labels},
                                {.denominator = static_cast<double>(std::max<index_t>(1, plumb::count_rated(labels)))},
                                {.loss = loss, .d_prediction = d_scores});
    backward(pass, as_const(d_scores));
    step(rate);
    return {.loss = static_cast<double>(loss)};
  }

  /// Adds to the gradients, from dL/dlogp `[M]` of the scored tokens.
  void backward(const token_pass<B>& pass, view<const real, 1> d_logp) {
    plumb::arena<>::frame frame(scratch_);
    const auto d_hidden = scratch_.template take<real>(pass.a.hidden.extent(0), pass.a.hidden.extent(1));
    b_.fill(d_hidden, real(0));
    plumb::linear_token_logp_backward(b_, scratch_, pass.head, pass.options, {.log_sum_exp = pass.lse, .d_logp = d_logp},
                                      {.d_hidden = d_hidden, .d_head = model_.head_gradient(), .mode = plumb::write_mode::add});
    model_.backward(b_, scratch_, pass.a, d_hidden);
  }
  /// From dL/dscores `[rows, K]`.
  void backward(const score_pass<B>& pass, view<const real, 2> d_scores) {
    plumb::arena<>::frame frame(scratch_);
    const auto d_states = scratch_.template take<real>(pass.states.extent(0), pass.states.extent(1));
    const auto d_hidden = scratch_.template take<real>(pass.a.hidden.extent(0), pass.a.hidden.extent(1));
    b_.gemm(scratch_, real(1), d_scores.transposed(), as_const(pass.states), real(1), model_.score_head_gradient());
    b_.gemm(scratch_, real(1), d_scores, model_.score_head(), real(0), d_states);
    b_.fill(d_hidden, real(0));
    b_.row_scatter_add(as_const(d_states), pass.rows, d_hidden);
    model_.backward(b_, scratch_, pass.a, d_hidden);
  }

  /// AdamW on the flat weights, the gradient clipped to norm 1; the gradients are then 0.
  void step(double rate) {
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
    const adam_step<real> formula{static_cast<real>(rate), static_cast<real>(0.01), static_cast<real>(1e-8),
                                  static_cast<real>(1 / (1 - std::pow(beta1, steps_))), static_cast<real>(1 / (1 - std::pow(beta2, steps_)))};
    b_.transform(formula, w, as_const(w), as_const(m), as_const(v));
    discard();
  }
  /// The gradients are 0, the weights as they were.
  void discard() {
    b_.fill(view<real, 1>(model_.gradients()), real(0));
    b_.sync();
  }

 private:
  B& b_;
  plumb::arena<>& scratch_;
  transformer<B>& model_;
  std::vector<real> first_moment_, second_moment_;
  int steps_ = 0;
};

/// Log-probabilities of the scored tokens under a model that is not trained here (a reference).
template <class B>
std::vector<plumb::real_of<B>> score_tokens(B& b, workspace& memory, const transformer<B>& model, const batch& x, double temperature = 1) {
  plumb::arena<>::frame frame(memory());
  const auto pass = token_logp(b, memory(), model, x, temperature);
  b.sync();
  return {pass.logp.data(), pass.logp.data() + pass.logp.size()};
}

/// Scores `[rows, K]` under a reward model or a critic, at rows of the hidden states.
template <class B>
std::vector<plumb::real_of<B>> scores_at(B& b, workspace& memory, const transformer<B>& model, const batch& x,
                                         const std::vector<std::int32_t>& rows) {
  plumb::arena<>::frame frame(memory());
  const auto pass = head_scores(b, memory(), model, x, rows);
  b.sync();
  return {pass.scores.data(), pass.scores.data() + pass.scores.size()};
}
/// At the last token of each text, `[size, K]`.
template <class B>
std::vector<plumb::real_of<B>> reward(B& b, workspace& memory, const transformer<B>& model, const batch& x) {
  return scores_at(b, memory, model, x, x.last_rows);
}

}  // namespace lab

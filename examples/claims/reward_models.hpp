#pragma once
// Reward models on the lab's transformer, learned from ratings (regression) or from pairs (Bradley-Terry: plain, with margin, scaled).

#include "claims/rating_world.hpp"
#include "lab/training.hpp"

#include <string>
#include <utility>

namespace claims {

using plumb::as_const;
using plumb::view;

enum class reward_method { regression, helpfulness_only, regular, margin, scaled };

struct reward_settings {
  index_t width = 32, layers = 2, heads = 4, feed_forward = 64;
  std::size_t batch = 32;  ///< pairs
  double rate = 3e-3, tuning_rate = 3e-4;  ///< of weights drawn at random; of Bradley-Terry after regression
  int epochs = 60, patience = 15;
  std::size_t test_pairs = 4000;
};

/// What a reward model is worth on noise-free pairs.
struct reward_figures {
  double accuracy = 0;     ///< on pairs whose helpfulness differs by more than 0.25
  double correlation = 0;  ///< Pearson's, of its score with helpfulness, across prompts
};

/// Texts of one length, one after the other.
struct text_batch {
  index_t size = 0, length = 0;
  std::vector<std::int32_t> ids{}, last_rows{};
  void add(const std::vector<std::int32_t>& text) {
    ids.insert(ids.end(), text.begin(), text.end());
    last_rows.push_back(static_cast<std::int32_t>(ids.size()) - 1);
    length = static_cast<index_t>(text.size());
    ++size;
  }
};

template <class B>
class reward_transformer {
 public:
  using real = plumb::real_of<B>;
  using pairs = std::vector<rated_pair>;

  /// `scores`: 5, or 1 for helpfulness alone.
  reward_transformer(B& compute, lab::workspace& memory, const reward_settings& s, index_t scores, std::uint64_t seed)
      : b_(compute), scratch_(memory()), s_(s), seed_(seed), model_(configured(s, scores), seed), bias_(static_cast<std::size_t>(scores), 0) {}

  /// Trains on nine tenths of `all`, and ends with the weights of the epoch that was best on the rest.
  void train(const pairs& all, reward_method method, double rate) {
    const bool rated = method == reward_method::regression || method == reward_method::helpfulness_only;
    const auto cut = all.end() - static_cast<std::ptrdiff_t>(all.size() / 10);
    pairs train(all.begin(), cut), held_out(cut, all.end());
    if (rated) {
      take_means(train);
    } else {  // whoever gave both the same rating does not say which is better
      for (pairs* p : {&train, &held_out}) std::erase_if(*p, [](const rated_pair& x) { return x.first.rating[0] == x.second.rating[0]; });
    }
    const auto step_loss = [&](const pairs& some, bool learn) {
      return rated ? regression(some, learn ? rate : 0) : bradley_terry(some, method, learn ? rate : 0);
    };
    first_moment_.assign(model_.weights().size(), real(0));
    second_moment_ = first_moment_;
    steps_ = 0;
    auto best = model_.weights();
    double least = std::numeric_limits<double>::infinity();
    for (int epoch = 0, since = 0; epoch < s_.epochs && since < s_.patience; ++epoch) {
      const plumb::random_stream order{seed_, 0x726577000000u + static_cast<std::uint64_t>(epoch) + (static_cast<std::uint64_t>(method) << 32)};
      for (std::size_t i = train.size(); i > 1; --i) std::swap(train[i - 1], train[order.below(i, i)]);
      for (std::size_t from = 0; from < train.size(); from += s_.batch) {
        const auto at = train.begin() + static_cast<std::ptrdiff_t>(from);
        step_loss(pairs(at, at + static_cast<std::ptrdiff_t>(std::min(s_.batch, train.size() - from))), true);
        ++steps_done_;
      }
      ++since;
      const double now = step_loss(held_out, false);
      if (now < least) least = now, best = model_.weights(), since = 0;
    }
    model_.weights() = best;
  }
  index_t steps_done() const { return steps_done_; }

  reward_figures measure(const pairs& test) {
    std::vector<double> score, worth;
    for (std::size_t from = 0; from < test.size(); from += 250) {
      const auto at = test.begin() + static_cast<std::ptrdiff_t>(from);
      const pairs some(at, at + static_cast<std::ptrdiff_t>(std::min<std::size_t>(250, test.size() - from)));
      for (const auto& p : some) worth.push_back(p.first.latent[0]), worth.push_back(p.second.latent[0]);
      plumb::arena<>::frame frame(scratch_);
      text_batch x = batch_of(some);
      const auto y = scratch_.take<real>(x.size, outputs());
      const auto a = model_.forward(b_, scratch_, x.ids, x.size, x.length);
      score_of(a, x, y);
      b_.sync();
      for (index_t i = 0; i < x.size; ++i) score.push_back(static_cast<double>(y(i, 0)));
    }
    double right = 0, count = 0;
    for (std::size_t i = 0; i < score.size(); i += 2) {
      const double gap = worth[i] - worth[i + 1];
      if (std::abs(gap) <= 0.25) continue;
      const double by = (score[i] - score[i + 1]) * gap;
      right += by > 0 ? 1 : by < 0 ? 0 : 0.5;
      ++count;
    }
    return {right / count, pearson(score, worth)};
  }
  /// Begins where `other` ended, as far as the two have the same outputs: helpfulness stays, other attributes go.
  void continue_from(const reward_transformer& other) {
    const auto& mine = model_.layout().list();
    const auto& theirs = other.model_.layout().list();
    for (std::size_t i = 0; i < mine.size(); ++i)
      std::copy_n(other.model_.weights().begin() + theirs[i].offset, mine[i].size(), model_.weights().begin() + mine[i].offset);
  }

 private:
  static lab::transformer_config configured(const reward_settings& s, index_t scores) {
    return {.vocabulary = rating_world::vocabulary, .width = s.width, .layers = s.layers, .heads = s.heads, .feed_forward = s.feed_forward,
            .positions = rating_world::length + 1, .scores = scores};
  }
  index_t outputs() const { return model_.config().scores; }
  static text_batch batch_of(const pairs& some) {
    text_batch x;
    for (const auto& p : some) x.add(p.first.text), x.add(p.second.text);
    return x;
  }
  static double pearson(const std::vector<double>& x, const std::vector<double>& y) {
    const auto n = static_cast<double>(x.size());
    const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n, my = std::accumulate(y.begin(), y.end(), 0.0) / n;
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      xy += (x[i] - mx) * (y[i] - my);
      xx += (x[i] - mx) * (x[i] - mx);
      yy += (y[i] - my) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
  }
  // The lab's score head has no bias; the means of the ratings stand for it.
  void take_means(const pairs& train) {
    for (std::size_t k = 0; k < bias_.size(); ++k) {
      double sum = 0;
      for (const auto& p : train) sum += p.first.rating[k] + p.second.rating[k];
      bias_[k] = sum / (2 * static_cast<double>(train.size()));
    }
  }

  view<real, 2> score_of(const typename lab::transformer<B>::activations& a, const text_batch& x, view<real, 2> scores) {
    const auto states = scratch_.take<real>(x.size, model_.config().width);
    b_.row_gather(as_const(a.hidden), view<const std::int32_t, 1>(x.last_rows), states);
    lab::transformer<B>::linear(b_, scratch_, states, model_.score_head(), scores);
    return states;
  }
  // Mean loss; where `rate` is not 0, a step too.
  double regression(const pairs& some, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const text_batch x = batch_of(some);
    const index_t k = outputs();
    const auto scores = scratch_.take<real>(x.size, k), d_scores = scratch_.take<real>(x.size, k), labels = scratch_.take<real>(x.size, k);
    for (index_t i = 0; i < x.size; ++i) {
      const rated_pair& p = some[static_cast<std::size_t>(i / 2)];
      const rated_reply& r = i % 2 == 0 ? p.first : p.second;
      for (index_t c = 0; c < k; ++c) labels(i, c) = static_cast<real>(r.rating[static_cast<std::size_t>(c)] - bias_[static_cast<std::size_t>(c)]);
    }
    const auto a = model_.forward(b_, scratch_, x.ids, x.size, x.length);
    const auto states = score_of(a, x, scores);
    real loss = 0;
    plumb::attribute_regression(b_, scratch_, {.prediction = scores, .label = labels}, {.denominator = static_cast<double>(x.size * k)},
                                {.loss = loss, .d_prediction = d_scores});
    b_.sync();
    if (rate != 0) learn(a, x, states, d_scores, rate);
    return static_cast<double>(loss);
  }
  double bradley_terry(const pairs& some, reward_method method, double rate) {
    plumb::arena<>::frame frame(scratch_);
    const auto n = static_cast<index_t>(some.size());
    text_batch x;  // the better one first
    std::vector<real> strength;
    for (const auto& p : some) {
      const double gap = p.first.rating[0] - p.second.rating[0];
      x.add(gap > 0 ? p.first.text : p.second.text);
      x.add(gap > 0 ? p.second.text : p.first.text);
      strength.push_back(static_cast<real>(std::abs(gap)));
    }
    const auto scores = scratch_.take<real>(x.size, outputs()), d_scores = scratch_.take<real>(x.size, outputs());
    const auto of = [&](view<real, 2> v, index_t which) { return view<real, 1>{v.data() + which * outputs(), {n}, {2 * outputs()}}; };
    const auto a = model_.forward(b_, scratch_, x.ids, x.size, x.length);
    const auto states = score_of(a, x, scores);
    plumb::bradley_terry_inputs<real> in{.chosen = of(scores, 0), .rejected = of(scores, 1)};
    if (method == reward_method::margin) in.margin = strength;
    if (method == reward_method::scaled) in.scale = strength;
    real loss = 0;
    b_.fill(d_scores, real(0));
    plumb::bradley_terry(b_, scratch_, in, {.denominator = static_cast<double>(std::max<index_t>(n, 1))},
                         {.loss = loss, .d_chosen = of(d_scores, 0), .d_rejected = of(d_scores, 1)});
    b_.sync();
    if (rate != 0) learn(a, x, states, d_scores, rate);
    return static_cast<double>(loss);
  }
  void learn(const typename lab::transformer<B>::activations& a, const text_batch& x, view<real, 2> states, view<real, 2> d_scores, double rate) {
    const auto d_states = scratch_.take<real>(x.size, model_.config().width);
    const auto d_hidden = scratch_.take<real>(a.hidden.extent(0), a.hidden.extent(1));
    b_.fill(view<real, 1>(model_.gradients()), real(0));
    b_.gemm(scratch_, real(1), as_const(d_scores.transposed()), as_const(states), real(0), model_.score_head_gradient());
    b_.gemm(scratch_, real(1), as_const(d_scores), model_.score_head(), real(0), d_states);
    b_.fill(d_hidden, real(0));
    b_.row_scatter_add(as_const(d_states), view<const std::int32_t, 1>(x.last_rows), d_hidden);
    model_.backward(b_, scratch_, a, d_hidden);
    // AdamW, the gradient clipped to norm 1.
    constexpr double beta1 = 0.9, beta2 = 0.98;
    const auto g = view<const real, 1>(model_.gradients());
    const view<real, 1> w(model_.weights()), m(first_moment_), v(second_moment_);
    const auto squares = scratch_.take<real>(g.extent(0));
    real sum = 0;
    b_.transform(lab::square{}, squares, g);
    b_.reduce(plumb::reduction::sum, as_const(squares), view<real, 1>(sum), plumb::write_mode::overwrite);
    b_.sync();
    const double norm = std::sqrt(static_cast<double>(sum));
    if (!std::isfinite(norm)) throw std::runtime_error("training diverged: the gradient is not finite");
    ++steps_;
    const lab::adam_moments<real> moments{static_cast<real>(beta1), static_cast<real>(beta2), static_cast<real>(norm > 1 ? 1 / norm : 1)};
    b_.transform2(moments, m, v, g, as_const(m), as_const(v));
    const lab::adam_step<real> step{static_cast<real>(rate), static_cast<real>(0.01), static_cast<real>(1e-8),
                                    static_cast<real>(1 / (1 - std::pow(beta1, steps_))), static_cast<real>(1 / (1 - std::pow(beta2, steps_)))};
    b_.transform(step, w, as_const(w), as_const(m), as_const(v));
    b_.sync();
  }

  B& b_;
  plumb::arena<>& scratch_;
  reward_settings s_;
  std::uint64_t seed_;
  lab::transformer<B> model_;
  std::vector<double> bias_;
  std::vector<real> first_moment_{}, second_moment_{};
  int steps_ = 0;
  index_t steps_done_ = 0;
};

}  // namespace claims

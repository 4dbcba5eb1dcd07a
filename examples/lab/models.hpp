#pragma once
// The lab's transformer as plumb's loops see models (plumb/model/concepts.hpp): policy, critic, reward model, reference.

#include "training.hpp"

#include <plumb/model/sampling.hpp>

#include <memory>

namespace lab {

namespace detail {
[[noreturn]] inline void refuse_nothing(const char* op, std::size_t text) {
  plumb::fail(plumb::message(op) << "text " << text << " begins with nothing: a first token is needed.");
}
}  // namespace detail

/// Writes with a KV cache: `plumb::decoder`. The beginnings of all texts are read side by side in one pass; then each text grows at its own
/// position. Finished texts leave the batch, sixteen at a time.
template <class B>
class text_decoder {
 public:
  using real = plumb::real_of<B>;

  /// `room`: tokens of the longest text, beginning included; no more than the model has positions.
  text_decoder(B& compute, workspace& scratch, const transformer<B>& model, index_t room)
      : b_(compute), scratch_(scratch()), model_(model), room_(std::min(room, model.config().positions)) {}

  void open(std::span<const plumb::start> texts) {
    const std::size_t n = texts.size();
    std::size_t longest = 0;
    std::vector<std::int32_t> lengths;
    for (const auto& t : texts) {
      if (t.tokens.empty()) detail::refuse_nothing("text_decoder", lengths.size());
      lengths.push_back(static_cast<std::int32_t>(t.tokens.size()));
      longest = std::max(longest, t.tokens.size());
    }
    std::vector<std::int32_t> ids(n * longest, 0);
    for (std::size_t i = 0; i < n; ++i)
      std::copy(texts[i].tokens.begin(), texts[i].tokens.end(), ids.begin() + static_cast<std::ptrdiff_t>(i * longest));
    texts_.resize(n);
    std::iota(texts_.begin(), texts_.end(), 0);
    logits_.assign(n * vocabulary(), real(0));
    plumb::arena<>::frame frame(scratch_);
    look(model_.read(b_, scratch_, ids, lengths, room_, cache_));
  }
  view<const real, 2> next_logits() const {
    return {logits_.data(), static_cast<index_t>(logits_.size() / vocabulary()), static_cast<index_t>(vocabulary())};
  }
  void append(std::span<const std::int32_t> ids) {
    std::vector<std::int32_t> going, over, kept, next;  // rows of the cache
    for (std::size_t i = 0; i < texts_.size(); ++i)
      (ids[static_cast<std::size_t>(texts_[i])] < 0 ? over : going).push_back(static_cast<std::int32_t>(i));
    const std::size_t rows = std::min(texts_.size(), (going.size() + 15) / 16 * 16);  // few shapes: a backend may prepare each
    if (rows < texts_.size()) {
      kept = going;
      kept.insert(kept.end(), over.begin(), over.begin() + static_cast<std::ptrdiff_t>(rows - going.size()));
      std::sort(kept.begin(), kept.end());
      for (std::size_t i = 0; i < rows; ++i) texts_[i] = texts_[static_cast<std::size_t>(kept[i])];
      texts_.resize(rows);
      model_.keep(kept, cache_);
    }
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      const std::int32_t id = ids[static_cast<std::size_t>(texts_[i])];
      next.push_back(std::max(id, 0));
      if (id < 0) cache_.filled[i] = 0;  // it writes over itself: its numbers are not looked at again
    }
    plumb::arena<>::frame frame(scratch_);
    look(model_.step(b_, scratch_, next, cache_));
  }

 private:
  std::size_t vocabulary() const { return static_cast<std::size_t>(model_.config().vocabulary); }
  void look(view<real, 2> hidden) {
    const auto rows = scratch_.template take<real>(hidden.extent(0), model_.config().vocabulary);
    transformer<B>::linear(b_, scratch_, hidden, model_.head(), rows);
    b_.sync();
    for (std::size_t i = 0; i < texts_.size(); ++i)
      std::copy_n(rows.row(static_cast<index_t>(i)).data(), vocabulary(), logits_.data() + static_cast<std::size_t>(texts_[i]) * vocabulary());
  }

  B& b_;
  plumb::arena<>& scratch_;
  const transformer<B>& model_;
  index_t room_;
  typename transformer<B>::cache cache_{};
  std::vector<std::int32_t> texts_{};  ///< which text each row of the cache is
  std::vector<real> logits_{};         ///< `[texts, V]`
};

/// Texts from `starts`, as long as the model has positions for.
template <class B>
plumb::rollouts<plumb::real_of<B>> write(B& b, workspace& memory, const transformer<B>& model, std::span<const plumb::start> starts,
                                         const plumb::sampling& how) {
  const index_t positions = model.config().positions;
  index_t room = 0;
  std::vector<plumb::start> fitting;
  for (const auto& s : starts) {
    const auto length = static_cast<index_t>(s.tokens.size());
    if (length > positions)
      plumb::fail(plumb::message("write") << "a text begins with " << length << " tokens, but the model has " << positions << " positions.");
    auto one = s;
    const index_t left = positions - length;
    if (one.max_new_tokens < 0 || left < one.max_new_tokens) one.max_new_tokens = left;
    room = std::max(room, length + std::min(one.max_new_tokens, std::max<index_t>(0, how.max_new_tokens - one.given_tokens())));
    fitting.push_back(std::move(one));
  }
  text_decoder<B> decoder(b, memory, model, room);
  return plumb::sample_rollouts<plumb::real_of<B>>(decoder, std::span<const plumb::start>(fitting), how);
}

/// Replies to `prompts`, drawn at `temperature`; reply i uses stream i of the seed. A reply ends with `<end>`, or where the positions run out.
template <class B>
std::vector<tokens> draw_replies(B& b, workspace& memory, const transformer<B>& model, std::span<const tokens> prompts, double temperature,
                                 std::uint64_t seed) {
  std::vector<plumb::start> starts;
  for (const auto& p : prompts) starts.push_back({.tokens = p, .prompt_tokens = static_cast<index_t>(p.size())});
  const auto r = write(b, memory, model, std::span<const plumb::start>(starts),
                       {.temperature = temperature, .max_new_tokens = model.config().positions, .end_token = vocabulary::end_of_reply, .seed = seed});
  std::vector<tokens> replies;
  for (index_t s = 0; s < r.size(); ++s) replies.emplace_back(r.own_of(s).begin(), r.own_of(s).end());
  return replies;
}

/// Texts of a rollout; the policy's own tokens are scored.
template <class Real>
batch batch_of(const plumb::rollouts<Real>& r) {
  std::vector<sample> samples;
  for (index_t s = 0; s < r.size(); ++s) {
    const auto text = r.text_of(s);
    if (text.size() == r.own_of(s).size()) detail::refuse_nothing("batch_of", static_cast<std::size_t>(s));
    samples.push_back({{text.begin(), text.end()}, text.size() - r.own_of(s).size()});
  }
  return batch(samples);
}

/// A model that does not learn, by its log-probabilities: a copy, which training the original does not move.
template <class B>
class frozen {
 public:
  using real = plumb::real_of<B>;

  frozen(B& compute, workspace& scratch, const transformer<B>& model) : b_(compute), memory_(scratch), model_(model) {}
  std::vector<real> score(const plumb::rollouts<real>& r) {
    return r.own_tokens() == 0 ? std::vector<real>() : score_tokens(b_, memory_, model_, batch_of(r), r.temperature);
  }

 private:
  B& b_;
  workspace& memory_;
  transformer<B> model_;
};

/// A reward model of one score (Bradley-Terry) at each text's last token, `(score - mean) / deviation`.
template <class B>
class transformer_reward {
 public:
  using real = plumb::real_of<B>;

  transformer_reward(B& compute, workspace& scratch, const transformer<B>& model, double mean = 0, double deviation = 1)
      : b_(compute), memory_(scratch), model_(model), mean_(static_cast<real>(mean)), deviation_(static_cast<real>(deviation)) {}
  std::vector<real> reward(const plumb::rollouts<real>& r) {
    if (r.size() == 0) return {};
    auto scores = lab::reward(b_, memory_, model_, batch_of(r));
    for (real& x : scores) x = (x - mean_) / deviation_;
    return scores;
  }

 private:
  B& b_;
  workspace& memory_;
  const transformer<B>& model_;
  real mean_, deviation_;
};

/// What a regression reward model says of each text's attributes, `[S * K]`.
template <class B>
class transformer_attributes {
 public:
  using real = plumb::real_of<B>;

  transformer_attributes(B& compute, workspace& scratch, const transformer<B>& model) : b_(compute), memory_(scratch), model_(model) {}
  std::vector<real> attributes(const plumb::rollouts<real>& r) {
    return r.size() == 0 ? std::vector<real>() : lab::reward(b_, memory_, model_, batch_of(r));
  }

 private:
  B& b_;
  workspace& memory_;
  const transformer<B>& model_;
};

namespace detail {

/// What policy and critic share. The last forward pass stays in the arena until its backward pass, or until the model is asked for something else;
/// who shares the arena does not come between.
template <class B, class Pass>
class learning {
 public:
  using real = plumb::real_of<B>;

  learning(B& compute, workspace& scratch, transformer<B>& model) : b_(compute), memory_(scratch), model_(model), learner_(compute, scratch, model) {}

  void step(double rate) {
    forget();
    learner_.step(rate);
  }
  void discard() {
    forget();
    learner_.discard();
  }

 protected:
  /// `numbers(pass)` of `pass(batch)`.
  template <class Make, class Numbers>
  std::vector<real> remember(const plumb::rollouts<real>& r, Make make, Numbers numbers) {
    forget();
    if (r.own_tokens() == 0) return {};
    held_ = std::make_unique<held>(memory_(), batch_of(r));
    held_->pass = make(held_->x);
    b_.sync();
    const view<const real, 1> values = numbers(held_->pass);
    return {values.data(), values.data() + values.size()};
  }
  /// `gradient(pass)` of the pass that was remembered.
  template <class Gradient>
  void recall(const plumb::rollouts<real>& r, view<const real, 1> d, Gradient gradient) {
    if (r.own_tokens() == 0) return;
    if (!held_ || static_cast<index_t>(held_->x.rows.size()) != r.own_tokens() || d.extent(0) != r.own_tokens())
      plumb::fail(plumb::message("backward") << "follows a forward pass of the same texts. Nothing was added.");
    gradient(held_->pass);
    b_.sync();
    forget();
  }
  void forget() { held_.reset(); }

  B& b_;
  workspace& memory_;
  transformer<B>& model_;
  trainer<B> learner_;

 private:
  struct held {
    plumb::arena<>::frame frame;
    batch x;
    Pass pass{};
    held(plumb::arena<>& scratch, batch made) : frame(scratch), x(std::move(made)) {}
  };
  std::unique_ptr<held> held_{};
};

}  // namespace detail

/// What is aligned: writes, scores, learns. The model stays the caller's.
template <class B>
class transformer_policy : public detail::learning<B, token_pass<B>> {
  using base = detail::learning<B, token_pass<B>>;

 public:
  using typename base::real;
  using base::base;

  plumb::rollouts<real> generate(std::span<const plumb::start> starts, const plumb::sampling& how) {
    this->forget();
    return write(this->b_, this->memory_, this->model_, starts, how);
  }
  std::vector<real> score(const plumb::rollouts<real>& r) {
    this->forget();
    return r.own_tokens() == 0 ? std::vector<real>() : score_tokens(this->b_, this->memory_, this->model_, batch_of(r), r.temperature);
  }
  std::vector<real> forward(const plumb::rollouts<real>& r) {
    return this->remember(r, [&](const batch& x) { return token_logp(this->b_, this->memory_(), this->model_, x, r.temperature); },
                          [](const token_pass<B>& pass) { return as_const(pass.logp); });
  }
  void backward(const plumb::rollouts<real>& r, view<const real, 1> d_logp) {
    this->recall(r, d_logp, [&](const token_pass<B>& pass) { this->learner_.backward(pass, d_logp); });
  }
};

/// Values: the score head at the token before each own one, which is the state that the token was written in. The model has one score; a reward model
/// is a good beginning.
template <class B>
class transformer_critic : public detail::learning<B, score_pass<B>> {
  using base = detail::learning<B, score_pass<B>>;

 public:
  using typename base::real;
  using base::base;

  std::vector<real> score(const plumb::rollouts<real>& r) {
    this->forget();
    if (r.own_tokens() == 0) return {};
    const batch x = batch_of(r);
    return scores_at(this->b_, this->memory_, this->model_, x, x.rows);
  }
  /// After each text's last token.
  std::vector<real> after(const plumb::rollouts<real>& r) {
    this->forget();
    return r.size() == 0 ? std::vector<real>() : lab::reward(this->b_, this->memory_, this->model_, batch_of(r));
  }
  std::vector<real> forward(const plumb::rollouts<real>& r) {
    return this->remember(r, [&](const batch& x) { return head_scores(this->b_, this->memory_(), this->model_, x, x.rows); },
                          [](const score_pass<B>& pass) { return view<const real, 1>(pass.scores.data(), pass.scores.size()); });
  }
  void backward(const plumb::rollouts<real>& r, view<const real, 1> d) {
    this->recall(r, d, [&](const score_pass<B>& pass) { this->learner_.backward(pass, view<const real, 2>(d.data(), d.extent(0), 1)); });
  }
};

}  // namespace lab

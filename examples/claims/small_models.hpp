#pragma once
// Small models on nothing but the compute interface, for worlds in which a token depends on finitely many contexts: a policy, a critic and a reward
// that model plumb's concepts. Numbers are made once per context, then looked up for each token: a text of a million tokens costs no more than a
// table.

#include "lab/functors.hpp"

#include <plumb/model/concepts.hpp>
#include <plumb/model/sampling.hpp>

#include <cmath>
#include <concepts>
#include <optional>
#include <span>
#include <vector>

namespace claims {

using plumb::as_const;
using plumb::index_t;
using plumb::view;

/// How a small model reads a text. A context is all that matters for the next token; it has some features.
/// - `r.contexts()`, `r.feature_values()`, `r.vocabulary()`: how many there are;
/// - `r.features()`: one list for each kind of feature, with a value for each context, negative where a context has none of the kind;
/// - `r.next(prompt, reply)`: the context in which the token behind `reply` is written; negative where there is none: the reply is as long as can be.
template <class R>
concept reader = requires(const R& r, std::span<const std::int32_t> tokens) {
  { r.contexts() } -> std::convertible_to<index_t>;
  { r.feature_values() } -> std::convertible_to<index_t>;
  { r.vocabulary() } -> std::convertible_to<index_t>;
  { r.features() } -> std::convertible_to<const std::vector<std::vector<std::int32_t>>&>;
  { r.next(tokens, tokens) } -> std::convertible_to<std::int32_t>;
};

/// Scratch memory that grows to what is asked for.
class scratch_memory {
 public:
  scratch_memory() = default;
  scratch_memory(const scratch_memory&) {}  // nothing in it outlives a call
  scratch_memory& operator=(const scratch_memory&) { return *this; }

  plumb::arena<>& operator()(std::size_t bytes) {
    if (memory_.size() < bytes) memory_.resize(bytes);
    arena_.emplace(memory_.data(), memory_.size());
    return *arena_;
  }

 private:
  std::vector<unsigned char> memory_{};
  std::optional<plumb::arena<>> arena_{};
};

struct tanh_of {
  template <class T>
  T operator()(const T& x) const {
    return plumb::math::tanh(x);
  }
};
/// dz of `h = tanh(z)`.
struct tanh_gradient {
  template <class T>
  T operator()(const T& h, const T& d) const {
    return d * (T(1) - h * h);
  }
};
/// d logits of log-probabilities that were picked: `scale (d - exp(logp) sum of d)`.
template <class T>
struct picked_gradient {
  T scale;
  T operator()(const T& d, const T& logp, const T& sum) const { return scale * (d - plumb::math::exp(logp) * sum); }
};

/// Weights in one flat array, and Adam (Kingma and Ba, arXiv:1412.6980), the gradient's norm clipped to `largest_norm` (0: as it is).
template <class B>
class parameters {
 public:
  using real = plumb::real_of<B>;
  explicit parameters(index_t count, double largest_norm)
      : weights(static_cast<std::size_t>(count)), gradients(weights.size()), largest_norm_(largest_norm) {}

  void step(B& b, double rate) {
    const view<const real, 1> g(gradients);
    double scale = 1;
    if (largest_norm_ > 0) {
      std::vector<real>& squares = moved_;
      squares.resize(weights.size());
      real sum = 0;
      b.transform(lab::square{}, view<real, 1>(squares), g);
      b.reduce(plumb::reduction::sum, view<const real, 1>(squares), view<real, 1>(sum), plumb::write_mode::overwrite);
      b.sync();
      scale = std::min(1.0, largest_norm_ / std::max(1e-30, std::sqrt(static_cast<double>(sum))));
    }
    if (first_.empty()) first_.resize(weights.size()), second_.resize(weights.size());
    ++steps_;
    constexpr double beta1 = 0.9, beta2 = 0.999;
    const view<real, 1> w(weights), m(first_), v(second_);
    b.transform2(lab::adam_moments<real>{static_cast<real>(beta1), static_cast<real>(beta2), static_cast<real>(scale)}, m, v, g, as_const(m),
                 as_const(v));
    b.transform(lab::adam_step<real>{static_cast<real>(rate), real(0), static_cast<real>(1e-8), static_cast<real>(1 / (1 - std::pow(beta1, steps_))),
                                     static_cast<real>(1 / (1 - std::pow(beta2, steps_)))},
                w, as_const(w), as_const(m), as_const(v));
    discard(b);
  }
  void discard(B& b) {
    b.fill(view<real, 1>(gradients), real(0));
    b.sync();
  }
  /// A new optimiser for the same weights.
  void forget() {
    first_.clear();
    second_.clear();
    steps_ = 0;
  }

  std::vector<real> weights, gradients;

 private:
  std::vector<real> first_{}, second_{}, moved_{};
  double largest_norm_;
  int steps_ = 0;
};

/// Sums over a context's features: `y[c] = sum over k of W[feature k of c]`. One kind of feature makes a plain table, several an additive model.
template <class B>
class feature_sum {
 public:
  using real = plumb::real_of<B>;
  /// Weights lie from `offset` of the owner's parameters on. The reader must stay.
  template <reader R>
  feature_sum(const R& r, index_t outputs, index_t offset = 0)
      : features_(&r.features()),
        contexts_(r.contexts()),
        values_(r.feature_values()),
        outputs_(outputs),
        offset_(offset),
        rows_(static_cast<std::size_t>(contexts_ * outputs)) {}

  index_t size() const { return values_ * outputs_; }
  index_t contexts() const { return contexts_; }
  index_t outputs() const { return outputs_; }
  void forward(B& b, const std::vector<real>& weights, view<real, 2> y) {
    const view<const real, 2> w(weights.data() + offset_, values_, outputs_);
    const view<real, 2> rows(rows_.data(), contexts_, outputs_);
    bool first = true;
    for (const auto& ids : *features_) {
      b.row_gather(w, view<const std::int32_t, 1>(ids), first ? y : rows);
      if (!first) b.transform(plumb::math::plus{}, y, as_const(y), as_const(rows));
      first = false;
    }
  }
  void backward(B& b, view<const real, 2> d, std::vector<real>& gradients) {
    const view<real, 2> dw(gradients.data() + offset_, values_, outputs_);
    for (const auto& ids : *features_) b.row_scatter_add(d, view<const std::int32_t, 1>(ids), dw);
  }

 private:
  const std::vector<std::vector<std::int32_t>>* features_;
  index_t contexts_, values_, outputs_, offset_;
  std::vector<real> rows_;
};

/// Outputs `[contexts, outputs]` as the sum of a context's features. Begins at `initial`, spread over the kinds of features.
template <class B>
class additive_net {
 public:
  using real = plumb::real_of<B>;
  template <reader R>
  additive_net(B& compute, const R& r, index_t outputs, double initial, double largest_norm)
      : b_(&compute), table_(r, outputs), p_(table_.size(), largest_norm), y_(static_cast<std::size_t>(r.contexts() * outputs)) {
    std::fill(p_.weights.begin(), p_.weights.end(), static_cast<real>(initial / static_cast<double>(r.features().size())));
  }

  B& compute() const { return *b_; }
  index_t contexts() const { return table_.contexts(); }
  index_t outputs() const { return table_.outputs(); }
  parameters<B>& weights() { return p_; }
  view<const real, 2> forward() {
    table_.forward(*b_, p_.weights, y());
    return y();
  }
  void backward(view<const real, 2> d) { table_.backward(*b_, d, p_.gradients); }

 private:
  view<real, 2> y() { return {y_.data(), contexts(), outputs()}; }

  B* b_;
  feature_sum<B> table_;
  parameters<B> p_;
  std::vector<real> y_;
};

/// One hidden layer of tanh over a context's features, one-hot: `y = W2 tanh(b1 + sum of W1[features]) + b2`.
template <class B>
class mlp_net {
 public:
  using real = plumb::real_of<B>;
  template <reader R>
  mlp_net(B& compute, const R& r, index_t hidden, index_t outputs, double output_scale, double largest_norm, std::uint64_t seed)
      : b_(&compute),
        first_(r, hidden),
        hidden_(hidden),
        outputs_(outputs),
        p_(first_.size() + hidden + outputs * hidden + outputs, largest_norm),
        h_(static_cast<std::size_t>(r.contexts() * hidden)),
        dh_(h_.size()),
        y_(static_cast<std::size_t>(r.contexts() * outputs)) {
    // Each unit sees one value of each kind of feature.
    const plumb::random_stream noise{seed, 0x6d6c70};
    const double inner = 1 / std::sqrt(static_cast<double>(r.features().size())), outer = output_scale / std::sqrt(static_cast<double>(hidden));
    for (index_t i = 0; i < first_.size(); ++i)
      p_.weights[static_cast<std::size_t>(i)] = static_cast<real>(inner * noise.normal(static_cast<std::uint64_t>(i)));
    for (index_t i = second(); i < second() + outputs * hidden; ++i)
      p_.weights[static_cast<std::size_t>(i)] = static_cast<real>(outer * noise.normal(static_cast<std::uint64_t>(i)));
  }

  B& compute() const { return *b_; }
  index_t contexts() const { return first_.contexts(); }
  index_t outputs() const { return outputs_; }
  parameters<B>& weights() { return p_; }
  view<const real, 2> forward() {
    B& b = *b_;
    const index_t n = contexts();
    const view<real, 2> h(h_.data(), n, hidden_), y(y_.data(), n, outputs_);
    first_.forward(b, p_.weights, h);
    b.transform(plumb::math::plus{}, h, as_const(h), plumb::broadcast_rows(weight(first_.size(), hidden_), n));
    b.transform(tanh_of{}, h, as_const(h));
    const auto w = matrix();
    b.gemm(scratch_(b.gemm_workspace(as_const(h), w.transposed(), y)), real(1), as_const(h), w.transposed(), real(0), y);
    b.transform(plumb::math::plus{}, y, as_const(y), plumb::broadcast_rows(weight(second() + outputs_ * hidden_, outputs_), n));
    return y;
  }
  /// After a `forward` with the same weights.
  void backward(view<const real, 2> d) {
    B& b = *b_;
    const index_t n = contexts();
    const view<const real, 2> h(h_.data(), n, hidden_);
    const view<real, 2> dh(dh_.data(), n, hidden_), dw(p_.gradients.data() + second(), outputs_, hidden_);
    b.gemm(scratch_(b.gemm_workspace(d.transposed(), h, dw)), real(1), d.transposed(), h, real(1), dw);
    add_columns(b, d, second() + outputs_ * hidden_);
    b.gemm(scratch_(b.gemm_workspace(d, matrix(), dh)), real(1), d, matrix(), real(0), dh);
    b.transform(tanh_gradient{}, dh, h, as_const(dh));
    add_columns(b, as_const(dh), first_.size());
    first_.backward(b, as_const(dh), p_.gradients);
  }

 private:
  index_t second() const { return first_.size() + hidden_; }
  view<const real, 1> weight(index_t offset, index_t count) const { return {p_.weights.data() + offset, count}; }
  view<const real, 2> matrix() const { return {p_.weights.data() + second(), outputs_, hidden_}; }
  void add_columns(B& b, view<const real, 2> d, index_t offset) {
    b.reduce(plumb::reduction::sum, d, view<real, 2>(p_.gradients.data() + offset, 1, d.extent(1)), plumb::write_mode::add);
  }

  B* b_;
  feature_sum<B> first_;
  index_t hidden_, outputs_;
  parameters<B> p_;
  std::vector<real> h_, dh_, y_;
  scratch_memory scratch_{};
};

namespace detail {

// The contexts of texts' tokens: of own tokens alone, or of whole replies.
template <reader R, class Real>
void contexts_of(const R& r, const plumb::rollouts<Real>& x, bool own_alone, std::vector<std::int32_t>& contexts, std::vector<std::int32_t>& tokens) {
  contexts.clear();
  tokens.clear();
  for (index_t s = 0; s < x.size(); ++s) {
    const auto prompt = x.prompt_of(s), reply = x.reply_of(s);
    for (std::size_t t = own_alone ? static_cast<std::size_t>(x.given_count(s)) : 0; t < reply.size(); ++t) {
      const auto context = static_cast<std::int32_t>(r.next(prompt, reply.first(t)));
      if (context < 0 || reply[t] < 0 || reply[t] >= r.vocabulary())
        plumb::fail(plumb::message("small model") << "token " << static_cast<index_t>(t) << " of the reply of text " << s
                                                  << " has no place in this world.");
      contexts.push_back(context);
      tokens.push_back(reply[t]);
    }
  }
}
// Places `[context, token]` in a flat table.
inline void places_of(std::vector<std::int32_t>& contexts, const std::vector<std::int32_t>& tokens, index_t columns) {
  for (std::size_t i = 0; i < contexts.size(); ++i) contexts[i] = static_cast<std::int32_t>(contexts[i] * columns + tokens[i]);
}
// y[i] = table[places[i]], and its adjoint.
template <class B>
void look_up(B& b, view<const plumb::real_of<B>, 2> table, const std::vector<std::int32_t>& places, std::vector<plumb::real_of<B>>& y) {
  using real = plumb::real_of<B>;
  y.resize(places.size());
  b.row_gather(view<const real, 2>(table.data(), table.size(), index_t{1}), view<const std::int32_t, 1>(places), plumb::as_column(view<real, 1>(y)));
  b.sync();
}
template <class B>
void add_up(B& b, view<const plumb::real_of<B>, 1> d, const std::vector<std::int32_t>& places, view<plumb::real_of<B>, 2> table) {
  using real = plumb::real_of<B>;
  b.fill(table, real(0));
  b.row_scatter_add(plumb::as_column(d), view<const std::int32_t, 1>(places), view<real, 2>(table.data(), table.size(), index_t{1}));
}

}  // namespace detail

/// A policy whose next-token logits are a net's outputs for the context: a `plumb::policy_model`. Copies are policies of their own, with a copy of
/// the optimiser.
template <class B, class Net, reader R>
class small_policy {
 public:
  using real = plumb::real_of<B>;
  small_policy(const R& r, Net net)
      : r_(&r),
        net_(std::move(net)),
        table_(static_cast<std::size_t>(net_.contexts() * net_.outputs())),
        d_(table_.size()),
        lse_(static_cast<std::size_t>(net_.contexts())) {}

  const std::vector<real>& score(const plumb::rollouts<real>& x) {
    detail::contexts_of(*r_, x, true, places_, tokens_);
    detail::places_of(places_, tokens_, net_.outputs());
    detail::look_up(net_.compute(), log_probabilities(x.temperature), places_, logp_);
    return logp_;
  }
  const std::vector<real>& forward(const plumb::rollouts<real>& x) { return score(x); }
  void backward(const plumb::rollouts<real>& x, view<const real, 1> d_logp) {
    B& b = net_.compute();
    const index_t n = net_.contexts(), v = net_.outputs();
    const view<real, 2> d(d_.data(), n, v);
    const view<real, 1> sums(lse_);
    detail::add_up(b, d_logp, places_, d);
    b.reduce(plumb::reduction::sum, as_const(d), plumb::as_column(sums), plumb::write_mode::overwrite);
    b.transform(picked_gradient<real>{static_cast<real>(1 / x.temperature)}, d, as_const(d), view<const real, 2>(table_.data(), n, v),
                plumb::broadcast_columns(as_const(sums), v));
    net_.backward(as_const(d));
    b.sync();
  }
  void step(double rate) {
    net_.weights().step(net_.compute(), rate);
    known_ = 0;
  }
  void discard() { net_.weights().discard(net_.compute()); }
  plumb::rollouts<real> generate(std::span<const plumb::start> starts, const plumb::sampling& how) {
    log_probabilities(1);
    writer w{*this, starts, {}, {}, {}};
    return plumb::sample_rollouts<real>(w, starts, how);
  }
  /// Log-probabilities `[contexts, vocabulary]` at a temperature; valid until the next call.
  view<const real, 2> log_probabilities(double temperature) {
    const view<real, 2> y(table_.data(), net_.contexts(), net_.outputs());
    if (known_ == temperature) return y;
    B& b = net_.compute();
    const view<real, 1> lse(lse_);
    b.transform(plumb::math::scale<real>{static_cast<real>(1 / temperature)}, y, net_.forward());
    b.row_log_sum_exp(as_const(y), lse);
    b.transform(plumb::math::minus{}, y, as_const(y), plumb::broadcast_columns(as_const(lse), net_.outputs()));
    b.sync();
    known_ = temperature;
    return y;
  }
  Net& net() { return net_; }
  /// The same weights, a new optimiser.
  void forget_optimiser() { net_.weights().forget(); }
  /// After weights were changed from outside.
  void changed() { known_ = 0; }

 private:
  // Log-probabilities are logits as good as any.
  struct writer {
    small_policy& policy;
    std::span<const plumb::start> starts;
    std::vector<std::vector<std::int32_t>> texts;
    std::vector<std::uint8_t> finished;
    std::vector<real> logits;

    void open(std::span<const plumb::start> given) {
      for (const auto& s : given) texts.emplace_back(s.tokens);
      finished.assign(texts.size(), 0);
    }
    view<const real, 2> next_logits() {
      const index_t v = policy.net_.outputs();
      logits.resize(texts.size() * static_cast<std::size_t>(v));
      std::vector<std::int32_t>& rows = policy.places_;
      rows.assign(texts.size(), -1);
      for (std::size_t i = 0; i < texts.size(); ++i) {
        if (finished[i]) continue;
        const std::span<const std::int32_t> text(texts[i]);
        const auto prompt = static_cast<std::size_t>(starts[i].prompt_tokens);
        rows[i] = static_cast<std::int32_t>(policy.r_->next(text.first(prompt), text.subspan(prompt)));
      }
      const view<real, 2> y(logits.data(), static_cast<index_t>(texts.size()), v);
      B& b = policy.net_.compute();
      b.row_gather(view<const real, 2>(policy.table_.data(), policy.net_.contexts(), v), view<const std::int32_t, 1>(rows), y);
      b.sync();
      return y;
    }
    void append(std::span<const std::int32_t> ids) {
      for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] < 0) {
          finished[i] = 1;
        } else {
          texts[i].push_back(ids[i]);
        }
      }
    }
  };

  const R* r_;
  Net net_;
  std::vector<real> table_, d_, lse_, logp_{};
  std::vector<std::int32_t> places_{}, tokens_{};
  double known_ = 0;  // temperature of the table; 0: the weights are others
};

/// A critic whose value of a state is a net's one output for the context: a `plumb::critic_model`.
template <class B, class Net, reader R>
class small_critic {
 public:
  using real = plumb::real_of<B>;
  small_critic(const R& r, Net net) : r_(&r), net_(std::move(net)), d_(static_cast<std::size_t>(net_.contexts())) {}

  const std::vector<real>& score(const plumb::rollouts<real>& x) {
    detail::contexts_of(*r_, x, true, contexts_, tokens_);
    detail::look_up(net_.compute(), net_.forward(), contexts_, values_);
    return values_;
  }
  const std::vector<real>& forward(const plumb::rollouts<real>& x) { return score(x); }
  void backward(const plumb::rollouts<real>&, view<const real, 1> d_values) {
    const view<real, 2> d(d_.data(), net_.contexts(), index_t{1});
    detail::add_up(net_.compute(), d_values, contexts_, d);
    net_.backward(as_const(d));
    net_.compute().sync();
  }
  void step(double rate) { net_.weights().step(net_.compute(), rate); }
  void discard() { net_.weights().discard(net_.compute()); }
  Net& net() { return net_; }

 private:
  const R* r_;
  Net net_;
  std::vector<real> d_, values_{};
  std::vector<std::int32_t> contexts_{}, tokens_{};
};

/// A reward that is a sum over the tokens of the whole reply, given ones too: of each, a net's output for its context and itself. A
/// `plumb::reward_model` that learns.
template <class B, class Net, reader R>
class small_reward {
 public:
  using real = plumb::real_of<B>;
  small_reward(const R& r, Net net) : r_(&r), net_(std::move(net)), d_(static_cast<std::size_t>(net_.contexts() * net_.outputs())) {}

  const std::vector<real>& reward(const plumb::rollouts<real>& x) {
    B& b = net_.compute();
    detail::contexts_of(*r_, x, false, places_, tokens_);
    detail::places_of(places_, tokens_, net_.outputs());
    detail::look_up(b, net_.forward(), places_, terms_);
    bounds(x);
    sums_.resize(static_cast<std::size_t>(x.size()));
    b.segment_reduce(plumb::reduction::sum, view<const real, 1>(terms_), plumb::sequence_layout<>::packed(bounds_), view<real, 1>(sums_));
    b.sync();
    return sums_;
  }
  /// Adds to the gradients, from `dL/d reward` `[S]`; follows `reward(x)`.
  void backward(const plumb::rollouts<real>&, view<const real, 1> d_reward) {
    B& b = net_.compute();
    b.segment_broadcast(d_reward, plumb::sequence_layout<>::packed(bounds_), view<real, 1>(terms_), plumb::write_mode::overwrite);
    const view<real, 2> d(d_.data(), net_.contexts(), net_.outputs());
    detail::add_up(b, view<const real, 1>(terms_), places_, d);
    net_.backward(as_const(d));
    b.sync();
  }
  void step(double rate) { net_.weights().step(net_.compute(), rate); }
  void discard() { net_.weights().discard(net_.compute()); }
  Net& net() { return net_; }

 private:
  void bounds(const plumb::rollouts<real>& x) {
    bounds_.assign(1, 0);
    for (index_t s = 0; s < x.size(); ++s) bounds_.push_back(bounds_.back() + static_cast<std::int32_t>(x.given_count(s) + x.own_count(s)));
  }

  const R* r_;
  Net net_;
  std::vector<real> d_, terms_{}, sums_{};
  std::vector<std::int32_t> places_{}, tokens_{}, bounds_{};
};

}  // namespace claims

// The loop of SteerLM 2.0: its gradient against the exact KL's in a world where every reply can be listed; batches, shifts, resuming; what is
// refused.
#include "support/tabular_models.hpp"

#include <plumb/algorithms/steerlm2.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {

using backend = serial::backend<double>;
constexpr std::int32_t vocabulary = 3, end_token = 2;
constexpr index_t room = 3;

/// log P(a | x, y) from a hash of the plain prompt and the reply.
struct hashed_posterior {
  double at(std::span<const std::int32_t> text) const { return 1.5 * random_stream{hash_of(31, text), 1}.normal(0) - 2; }
  std::vector<double> log_p(const rollouts<double>& r) const {
    std::vector<double> y;
    for (index_t s = 0; s < r.size(); ++s) y.push_back(at(r.text_of(s)));
    return y;
  }
};
/// A policy that can be taken back.
struct steered : tabular_policy<double> {
  steered() : tabular_policy<double>(vocabulary, 5, 0.7) { weights.momentum = 0; }
  table snapshot() const { return weights; }
  void restore(const table& w) { weights = w; }
};

/// Prompt `x` with attributes is {10, x}, without {x}.
std::vector<start> with_attributes(std::size_t count, std::size_t different = 2) {
  std::vector<start> all;
  for (std::size_t i = 0; i < count; ++i) {
    const auto x = static_cast<std::int32_t>(i % different);
    all.push_back({.tokens = {10, x}, .prompt_tokens = 2, .prompt = static_cast<std::int32_t>(i)});
  }
  return all;
}
std::vector<start> plain_prompts(std::size_t count, std::size_t different = 2) {
  auto all = with_attributes(count, different);
  for (start& s : all) s.tokens.erase(s.tokens.begin()), s.prompt_tokens = 1;
  return all;
}
sampling drawing(double temperature = 1) { return {.temperature = temperature, .max_new_tokens = room, .end_token = end_token, .seed = 77}; }

struct world {
  backend b;
  steered policy;
  tabular_policy<double> prior{vocabulary, 6, 1};
  hashed_posterior posterior;

  steerlm2_sample<double> draw(steerlm2_loop<backend>& loop, std::size_t prompts, double temperature = 1) {
    return loop.sample(policy, posterior, prior, with_attributes(prompts), plain_prompts(prompts), drawing(temperature));
  }
};

/// P(y | a, x) of every reply to prompt `x`, and log Q of the policy.
struct listed {
  rollouts<double> replies;
  std::vector<double> target, log_q;
};
listed list(world& w, std::int32_t x) {
  listed l{all_replies(w.policy, {.tokens = {10, x}, .prompt_tokens = 2}, end_token, room), {}, {}};
  const auto plain = all_replies(w.prior, {.tokens = {x}, .prompt_tokens = 1}, end_token, room);
  const auto log_p = text_logp(plain, w.prior.score(plain));
  const auto log_a = w.posterior.log_p(plain);
  l.log_q = text_logp(l.replies, l.replies.logp);
  double sum = 0;
  for (std::size_t i = 0; i < log_p.size(); ++i) l.target.push_back(std::exp(log_p[i] + log_a[i])), sum += l.target.back();
  for (double& p : l.target) p /= sum;
  return l;
}
/// The exact KL(P(. | a, x) || Q), mean over two prompts.
double exact_kl(world& w) {
  double kl = 0;
  for (const std::int32_t x : {0, 1}) {
    const listed l = list(w, x);
    for (std::size_t i = 0; i < l.target.size(); ++i) kl += l.target[i] * (std::log(l.target[i]) - l.log_q[i]) / 2;
  }
  return kl;
}
/// Its gradient by the weights.
std::vector<double> exact_gradient(world w) {
  for (const std::int32_t x : {0, 1}) {
    const listed l = list(w, x);
    std::vector<double> d(static_cast<std::size_t>(l.replies.own_tokens()));
    each_own_token(l.replies, [&](std::size_t s, std::size_t t, auto, std::int32_t) { d[t] = -l.target[s] / 2; });
    w.policy.backward(l.replies, d);
  }
  return w.policy.weights.gradients();
}
/// All replies to both prompts, as if drawn evenly.
steerlm2_sample<double> everything(world& w) {
  steerlm2_sample<double> x;
  for (const std::int32_t p : {0, 1}) {
    const listed l = list(w, p);
    rollouts<double> r = l.replies;
    std::fill(r.prompt.begin(), r.prompt.end(), p);
    x.replies.append(r);
  }
  const auto n = static_cast<std::size_t>(x.replies.size());
  x.groups = group_by_prompt(x.replies.prompt);
  x.log_q.assign(n, -3);
  for (std::size_t s = 0; s < n; ++s) {
    const auto p = list(w, x.replies.prompt[s]).target;
    x.log_p_attributes.push_back(std::log(p[s % p.size()]));
  }
  x.log_p_reply.assign(n, -1);
  return x;
}
double largest_gap(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double gap = 0;
  for (std::size_t i = 0; i < a.size(); ++i) gap = std::max(gap, std::abs(a[i] - b[i]));
  return gap;
}
template <class T>
std::vector<T> moved(const std::vector<T>& x, const std::vector<std::int32_t>& order) {
  std::vector<T> y;
  for (const std::int32_t i : order) y.push_back(x[static_cast<std::size_t>(i)]);
  return y;
}
/// The policy's weights after one iteration of `o` on `x`.
std::vector<double> trained(const world& from, const steerlm2_sample<double>& x, const steerlm2_loop_options& o) {
  world w = from;
  auto y = x;
  steerlm2_loop<backend> loop(w.b, o);
  loop.weigh(y);
  loop.train(w.policy, y);
  return w.policy.weights.weights();
}
const steerlm2_loop_options small{.replies = 6, .epochs = 2, .prompts = 4, .rate = 0.5, .seed = 3};

}  // namespace

TEST_CASE("SteerLM 2.0: with every reply listed the loss is the exact KL, and a step its gradient") {
  world w;
  auto x = everything(w);
  steerlm2_loop<backend> loop(w.b, {.epochs = 1, .prompts = 2, .rate = 1, .start_tolerance = 100});
  loop.weigh(x);
  const double kl = exact_kl(w);
  CHECK(loop.distance(w.policy, x, loop.trained(x)) == Catch::Approx(kl).epsilon(1e-12));
  const auto before = w.policy.weights.weights(), gradient = exact_gradient(w);
  const auto e = loop.epoch(w.policy, x);
  CHECK(e.distance == Catch::Approx(kl).epsilon(1e-12));
  auto step = before;
  const auto after = w.policy.weights.weights();
  for (std::size_t i = 0; i < step.size(); ++i) step[i] -= after[i];
  CHECK(largest_gap(step, gradient) < 1e-13);
  CHECK(exact_kl(w) < kl);
}

TEST_CASE("SteerLM 2.0: the mean of its gradient over draws is the exact KL's, but for a bias that falls as 1/n") {
  const world from;
  const auto gradient = exact_gradient(from);
  // One minibatch of all prompts is the mean over as many groups.
  const auto mean_step = [&](index_t n, std::size_t groups, bool baseline) {
    world w = from;
    exact_kl(w);  // every row is there
    steerlm2_loop<backend> loop(
        w.b, {.replies = n, .baseline = baseline, .epochs = 1, .prompts = static_cast<index_t>(groups), .rate = 1, .start_tolerance = 1e-12});
    const auto before = w.policy.weights.weights();
    const auto x = w.draw(loop, groups);
    const auto e = loop.epoch(w.policy, x);
    CHECK(e.first_gap < 1e-12);
    CHECK(e.baseline_effective_samples == Catch::Approx(static_cast<double>(n)).epsilon(1e-12));  // b' = 1/n
    auto step = before;
    const auto after = w.policy.weights.weights();
    for (std::size_t i = 0; i < step.size(); ++i) step[i] -= after[i];
    return step;
  };
  for (const bool baseline : {true, false}) {
    const auto few = mean_step(4, 4000, baseline), more = mean_step(16, 2000, baseline);
    auto extrapolated = more;
    for (std::size_t i = 0; i < more.size(); ++i) extrapolated[i] = (4 * more[i] - few[i]) / 3;
    const double bias = largest_gap(few, gradient);
    CAPTURE(baseline, bias, largest_gap(more, gradient), largest_gap(extrapolated, gradient));
    CHECK(bias > 0.02);  // else nothing is seen to fall
    CHECK(largest_gap(more, gradient) < 0.45 * bias);
    CHECK(largest_gap(extrapolated, gradient) < 0.25 * bias);
  }
}

TEST_CASE("SteerLM 2.0: iterations lower the exact KL, and say so") {
  world w;
  steerlm2_loop<backend> loop(w.b, {.replies = 10, .epochs = 10, .prompts = 8, .rate = 0.5, .held_out = 0.25, .patience = 3, .seed = 2});
  double kl = exact_kl(w);
  for (int i = 0; i < 3; ++i) {
    const auto m = loop.step(w.policy, w.posterior, w.prior, with_attributes(80), plain_prompts(80), drawing());
    CHECK(m.prompts == 80);
    CHECK(m.texts == 800);
    CHECK(m.first_gap < 1e-12);
    CHECK(m.left_out == 0);
    CHECK(m.steps == 8 * m.epochs);
    CHECK(m.held_out_distance <= m.held_out_distance_first);
    CHECK((m.effective_samples > 1 && m.effective_samples < 10));
    CHECK(m.effective_samples_min <= m.effective_samples);
    const double now = exact_kl(w);
    CAPTURE(i, kl, now);
    CHECK(now < kl + 0.01);
    kl = now;
    int names = 0;
    m.visit([&](const char*, double) { ++names; });
    CHECK(names == 23);
  }
  CHECK(kl < 0.1);
  CHECK(loop.state().iteration == 3);
}

TEST_CASE("SteerLM 2.0: constants per prompt change nothing") {
  world w;
  steerlm2_loop<backend> loop(w.b, small);
  const auto x = w.draw(loop, 12);
  auto o = small;
  o.start_tolerance = 100;
  const auto want = trained(w, x, o);
  auto y = x;
  for (std::size_t s = 0; s < y.log_q.size(); ++s) {
    const double c = static_cast<double>(s / 6);
    y.log_q[s] += c, y.log_p_reply[s] -= 3 * c, y.log_p_attributes[s] += 40 - c;
  }
  CHECK(largest_gap(trained(w, y, o), want) < 1e-12);
}

TEST_CASE("SteerLM 2.0: micro-batches, and the order of the texts, change nothing but rounding") {
  world w;
  steerlm2_loop<backend> loop(w.b, small);
  const auto x = w.draw(loop, 13);
  const auto want = trained(w, x, small);
  for (const index_t micro : {1, 4, 6, 7, 13, 1000}) {
    auto o = small;
    o.micro_batch = micro;
    CAPTURE(micro);
    CHECK(largest_gap(trained(w, x, o), want) < 1e-12);
  }
  std::vector<std::int32_t> order(x.log_q.size());
  std::iota(order.begin(), order.end(), 0);
  order = detail::shuffled(order, {9, 9});
  // Groups stay in the order of their prompts, or other prompts would be in a minibatch.
  auto y = x;
  y.replies = x.replies.select(order);
  y.log_q = moved(x.log_q, order), y.log_p_reply = moved(x.log_p_reply, order), y.log_p_attributes = moved(x.log_p_attributes, order);
  std::vector<std::int32_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) place[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
  y.groups.order = place;
  CHECK(largest_gap(trained(w, y, small), want) < 1e-12);
}

TEST_CASE("SteerLM 2.0: resumed between iterations or epochs, a run is the one that was not cut off") {
  auto o = small;
  o.held_out = 0.25, o.patience = 2, o.epochs = 4;
  const auto starts = with_attributes(16), plain = plain_prompts(16);
  world whole;
  steerlm2_loop<backend> loop(whole.b, o);
  for (int i = 0; i < 3; ++i) loop.step(whole.policy, whole.posterior, whole.prior, starts, plain, drawing());

  world cut;
  steerlm2_loop<backend>::state_type state;
  for (int i = 0; i < 2; ++i) {
    steerlm2_loop<backend> one(cut.b, o);
    one.restore(state);
    one.step(cut.policy, cut.posterior, cut.prior, starts, plain, drawing());
    state = one.state();
  }
  steerlm2_sample<double> x;
  {
    steerlm2_loop<backend> one(cut.b, o);
    one.restore(state);
    x = one.sample(cut.policy, cut.posterior, cut.prior, starts, plain, drawing());
  }
  auto best = cut.policy.snapshot();
  for (bool finished = false; !finished;) {
    steerlm2_loop<backend> one(cut.b, o);
    one.restore(state);
    CHECK(one.state().iteration == 2);
    if (one.epoch(cut.policy, x).improved) best = cut.policy.snapshot();
    finished = one.finished();
    state = one.state();
  }
  cut.policy.restore(best);
  CHECK(cut.policy.weights.weights() == whole.policy.weights.weights());
}

TEST_CASE("SteerLM 2.0: held-out prompts are not trained on, and the best epoch is kept") {
  world w;
  auto o = small;
  o.held_out = 0.25, o.epochs = 6, o.patience = 2;
  steerlm2_loop<backend> loop(w.b, o);
  const auto x = w.draw(loop, 16);
  const auto held = loop.held_out(x);
  const std::vector<std::int32_t> out(held.begin(), held.end());
  CHECK(out.size() == 4);
  for (const std::int32_t g : loop.trained(x)) CHECK(std::find(out.begin(), out.end(), g) == out.end());
  struct backwards : steered {
    void step(double rate) { steered::step(-rate); }
  } policy{w.policy};
  const auto before = policy.weights.weights();
  const auto m = loop.train(policy, x);
  CHECK(m.epochs == 2);
  CHECK(m.best_epoch == 0);
  CHECK(m.held_out_distance == m.held_out_distance_first);
  CHECK(policy.weights.weights() == before);
}

TEST_CASE("SteerLM 2.0: temperatures") {
  world w;
  struct seen : tabular_policy<double> {
    double temperature = 0;
    std::vector<double> score(const rollouts<double>& r) {
      temperature = r.temperature;
      return tabular_policy<double>::score(r);
    }
  } prior{w.prior};
  auto o = small;
  steerlm2_loop<backend> loop(w.b, o);
  const auto x = loop.sample(w.policy, w.posterior, prior, with_attributes(4), plain_prompts(4), drawing(0.7));
  CHECK(prior.temperature == 1);  // P(y | x) is the model as it is
  CHECK(x.replies.temperature == 0.7);
  CHECK(largest_gap(x.log_q, text_logp(x.replies, w.policy.score(x.replies))) < 1e-12);
  CHECK(loop.train(w.policy, x).first_gap < 1e-12);

  o.temperature = 1;
  steerlm2_loop<backend> at_one(w.b, o);
  auto y = at_one.sample(w.policy, w.posterior, w.prior, with_attributes(4), plain_prompts(4), drawing(0.7));
  CHECK(y.replies.temperature == 1);
  CHECK(largest_gap(y.log_q, text_logp(y.replies, w.policy.score(y.replies))) < 1e-12);
  CHECK(at_one.train(w.policy, y).sampler_gap > 0.01);
  CHECK_THAT(refusal([&] { loop.sample(w.policy, w.posterior, w.prior, with_attributes(4), plain_prompts(4), drawing(0)); }),
             Catch::Matchers::ContainsSubstring("replies have to be drawn"));
}

TEST_CASE("SteerLM 2.0: who takes part") {
  world w;
  auto o = small;
  o.skip_truncated = true;
  steerlm2_loop<backend> loop(w.b, o);
  const auto x = w.draw(loop, 10);
  for (std::size_t s = 0; s < x.weight.size(); ++s) {
    CHECK(x.takes_part[s] == x.replies.ended[s]);
    if (!x.takes_part[s]) CHECK(x.weight[s] == 0);
  }
  // Nothing but empty replies: nothing to train on, and nothing is.
  auto none = drawing();
  none.max_new_tokens = 0;
  const auto before = w.policy.weights.everything();
  const auto m = loop.step(w.policy, w.posterior, w.prior, with_attributes(4), plain_prompts(4), none);
  CHECK(m.steps == 0);
  CHECK(m.prompts == 0);
  CHECK(m.left_out == 1);
  CHECK(w.policy.weights.everything() == before);
}

TEST_CASE("SteerLM 2.0: the Beta posterior of a regression model") {
  backend b;
  struct rated {
    std::vector<double> attributes(const rollouts<double>& r) const {
      std::vector<double> y;
      for (index_t s = 0; s < r.size(); ++s) y.push_back(0.5 + static_cast<double>(s)), y.push_back(3.4);
      return y;
    }
  } model;
  rollouts<double> r;
  for (const start& s : plain_prompts(3)) r.add(s, ids{1, 2}, {}, true);
  beta_posterior one(b, model, std::vector<double>{4, 2});
  const std::vector<double> prediction{0.5, 3.4, 1.5, 3.4, 2.5, 3.4}, level{4, 2};
  CHECK(one.log_p(r) == attribute_posterior(prediction, level, 2).log_p);
  beta_posterior each(b, model, std::vector<double>{4, 2, 1, -100, 0, 0}, 2);
  CHECK(each.log_p(r) == attribute_posterior(prediction, std::vector<double>{4, 2, 1, -100, 0, 0}, 2).log_p);
  beta_posterior two(b, model, std::vector<double>{4, 2, 1, 2}, 2);
  CHECK_THAT(refusal([&] { two.log_p(r); }),
             Catch::Matchers::ContainsSubstring("text 2 answers prompt 2, but attributes are asked for of prompts 0 to 1."));
  CHECK_THAT(refusal([&] {
               beta_posterior(b, model, std::vector<double>{4.5, 2});
             }),
             Catch::Matchers::ContainsSubstring("a whole number from 0 to `levels` - 1"));
}

TEST_CASE("SteerLM 2.0: what is refused, by the text's number, and then nothing is trained") {
  world w;
  steerlm2_loop<backend> loop(w.b, small);
  const auto x = w.draw(loop, 8);
  const auto says = [&](const auto& call, const std::string& what) {
    const std::string said = refusal(call);
    CAPTURE(said);
    CHECK_THAT(said, Catch::Matchers::ContainsSubstring(what));
    CHECK_THAT(said, Catch::Matchers::ContainsSubstring("Nothing was"));
  };
  const auto weighed = [&](const auto& change) {
    return [&w, &x, change] {
      auto y = x;
      change(y);
      auto o = small;
      o.prompts = 100;  // the first minibatch is checked
      steerlm2_loop<backend> other(w.b, o);
      other.weigh(y);
      other.train(w.policy, y);
    };
  };
  const auto before = w.policy.weights.everything();
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  says(weighed([=](auto& y) { y.log_p_attributes[9] = nan; }), "log P(a | x, y) is nan for text 9 (prompt 1)");
  says(weighed([=](auto& y) { y.log_p_reply[12] = infinity; }), "log P(y | x) is inf for text 12 (prompt 2)");
  says(weighed([=](auto& y) { y.log_q[5] = -infinity; }), "log Q' gave -inf for text 5 (prompt 0)");
  says(weighed([=](auto& y) { std::fill_n(y.log_p_attributes.begin() + 6, 6, -infinity); }), "no reply to prompt 1 (group 1");
  says(weighed([](auto& y) { y.log_q.pop_back(); }), "log_q has 47 numbers, but there are 48 texts");
  says(weighed([](auto& y) { y.groups = equal_groups(7, 6); }), "the groups have 42 replies, but there are 48 texts");
  // One reply that cannot be is no error: its weight is 0.
  CHECK_NOTHROW([&] {
    auto y = x;
    y.log_p_attributes[9] = -infinity;
    loop.weigh(y);
    CHECK(y.weight[9] == 0);
  }());
  // Stored log-probabilities that miss the end token, or are of another temperature.
  says(weighed([](auto& y) { y.log_q[0] += 0.5; }), "before the first step log Q of text 0 (prompt 0) is");
  says(weighed([](auto& y) { y.replies.temperature = 0.5; }), "covers other tokens, or is of another temperature or another policy");
  says([&] { loop.train(w.policy, [&] { auto y = x; y.weight.clear(); return y; }()); }, "the sample has no weights");
  says([&] { loop.sample(w.policy, w.posterior, w.prior, with_attributes(4), plain_prompts(3), drawing()); },
       "there are 4 starts with attributes, but 3 without");
  says([&] {
    steerlm2_loop<backend> strict(w.b, {.replies = 6, .least_effective = 5.9});
    w.draw(strict, 8);
  }, "effective samples per prompt, fewer than `least_effective`, 5.9");
  CHECK(w.policy.weights.everything() == before);

  struct broken_prior : tabular_policy<double> {
    std::vector<double> score(const rollouts<double>& r) {
      auto y = tabular_policy<double>::score(r);
      y[static_cast<std::size_t>(r.own[7])] = std::nan("");
      return y;
    }
  } broken{w.prior};
  says([&] { loop.sample(w.policy, w.posterior, broken, with_attributes(4), plain_prompts(4), drawing()); },
       "log P(y | x) is nan for text 7 (prompt 1)");
  struct short_posterior {
    std::vector<double> log_p(const rollouts<double>& r) const { return std::vector<double>(static_cast<std::size_t>(r.size() - 1)); }
  } shorter;
  says([&] { loop.sample(w.policy, shorter, w.prior, with_attributes(4), plain_prompts(4), drawing()); },
       "posterior.log_p gave 23 numbers, but there are 24 texts");

  // A policy that breaks in the middle: what was trained stays, the gradients of the broken minibatch go.
  struct breaking : steered {
    int calls = 0;
    std::vector<double> forward(const rollouts<double>& r) {
      auto y = steered::forward(r);
      if (++calls == 2) y[1] = std::nan("");
      return y;
    }
  } policy;
  const std::string said = refusal([&] { steerlm2_loop<backend>(w.b, small).train(policy, x); });
  CAPTURE(said);
  CHECK_THAT(said, Catch::Matchers::ContainsSubstring("policy.forward gave nan for own token"));
  CHECK_THAT(said, Catch::Matchers::ContainsSubstring("The gradients were discarded; 1 step of this update stood before"));
  CHECK(policy.weights.steps == 1);
  CHECK(policy.weights.discards == 1);
}

TEST_CASE("SteerLM 2.0: options") {
  backend b;
  const auto refused = [&](const steerlm2_loop_options& o) { return refusal([&] { steerlm2_loop<backend>(b, o); }); };
  CHECK_THAT(refused({.replies = 1}), Catch::Matchers::ContainsSubstring("2 or more: one reply has nothing to be compared with"));
  CHECK_THAT(refused({.held_out = 1}), Catch::Matchers::ContainsSubstring("in [0, 1)"));
  CHECK_THAT(refused({.patience = 3}), Catch::Matchers::ContainsSubstring("above 0, where `patience` is given"));
  CHECK_THAT(refused({.epochs = 0}), Catch::Matchers::ContainsSubstring("1 or more"));
  CHECK_THAT(refused({.micro_batch = -1}), Catch::Matchers::ContainsSubstring("micro_batch"));
}

// A policy aligned by PPO, then by DR-PO, which differs in one thing: where rollouts begin. Policy, critic and judge are the program's own;
// plumb asks them for numbers and hands back derivatives. A letter is asked for; right is it and the four that follow, then the end, and nothing else
// is worth anything: by luck one reply in 118,000 is right, so PPO learns nothing. Beginnings inside the answers that somebody wrote show the way.
#include <plumb/algorithms/drpo.hpp>
#include <plumb/algorithms/ppo.hpp>
#include <plumb/backends/serial.hpp>
#include <plumb/model/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

constexpr std::int32_t letters = 6, end_token = 6, tokens = 7, answer_length = 6;
using rollouts = plumb::rollouts<float>;
using number = plumb::view<const float, 1>;

// One row of weights for each place in the reply and token before it.
struct table {
  explicit table(std::size_t width) : columns(width), weight(answer_length * tokens * width), gradient(weight.size()) {}
  std::span<float> row(std::vector<float>& x, plumb::index_t place, std::int32_t before) const {
    return std::span(x).subspan(static_cast<std::size_t>(place * tokens + before) * columns, columns);
  }
  // f(number, place, token before, token) for each own token.
  template <class F>
  static void each(const rollouts& r, const F& f) {
    plumb::index_t n = 0;
    for (plumb::index_t s = 0; s < r.size(); ++s) {
      const auto text = r.text_of(s);
      for (auto t = text.size() - r.own_of(s).size(); t < text.size(); ++t, ++n)
        f(n, static_cast<plumb::index_t>(t) - r.prompt_count(s), text[t - 1], text[t]);
    }
  }
  void step(double rate) {
    for (std::size_t i = 0; i < weight.size(); ++i) weight[i] -= static_cast<float>(rate) * gradient[i];
    discard();
  }
  void discard() { std::fill(gradient.begin(), gradient.end(), 0.0f); }

  std::size_t columns;
  std::vector<float> weight, gradient;
};

struct letter_policy : table {
  letter_policy() : table(tokens) {}

  // What plumb::sample_rollouts draws from: the logits that follow each text.
  void open(std::span<const plumb::start> starts) {
    texts.clear();
    for (const auto& s : starts) texts.push_back({s.tokens.back(), s.given_tokens()});
  }
  plumb::view<const float, 2> next_logits() {
    logits.clear();
    for (const auto& [last, place] : texts) {
      const auto next = row(weight, place, last);
      logits.insert(logits.end(), next.begin(), next.end());
    }
    return {logits.data(), static_cast<plumb::index_t>(texts.size()), tokens};
  }
  void append(std::span<const std::int32_t> next) {
    for (std::size_t i = 0; i < texts.size(); ++i)
      if (next[i] >= 0) texts[i] = {next[i], texts[i].place + 1};
  }
  rollouts generate(std::span<const plumb::start> starts, const plumb::sampling& how) { return plumb::sample_rollouts<float>(*this, starts, how); }

  float log_probability(plumb::index_t place, std::int32_t before, std::int32_t token) {
    float sum = 0;
    for (const float x : row(weight, place, before)) sum += std::exp(x);
    return row(weight, place, before)[static_cast<std::size_t>(token)] - std::log(sum);
  }
  std::vector<float> score(const rollouts& r) {
    std::vector<float> logp;
    each(r, [&](auto, auto place, auto before, auto token) { logp.push_back(log_probability(place, before, token)); });
    return logp;
  }
  std::vector<float> forward(const rollouts& r) { return score(r); }  // the table remembers all that backward needs
  void backward(const rollouts& r, number d_logp) {
    each(r, [&](auto n, auto place, auto before, auto token) {
      for (std::int32_t k = 0; k < tokens; ++k)
        row(gradient, place, before)[static_cast<std::size_t>(k)] +=
            d_logp(n) * (static_cast<float>(k == token) - std::exp(log_probability(place, before, k)));
    });
  }

  struct text {
    std::int32_t last;
    plumb::index_t place;
  };
  std::vector<text> texts;
  std::vector<float> logits;
};

struct letter_critic : table {
  letter_critic() : table(1) {}
  std::vector<float> score(const rollouts& r) {
    std::vector<float> values;
    each(r, [&](auto, auto place, auto before, auto) { values.push_back(row(weight, place, before)[0]); });
    return values;
  }
  std::vector<float> forward(const rollouts& r) { return score(r); }
  void backward(const rollouts& r, number d_values) {
    each(r, [&](auto n, auto place, auto before, auto) { row(gradient, place, before)[0] += d_values(n); });
  }
};

std::vector<std::int32_t> right_answer(std::int32_t letter) {
  std::vector<std::int32_t> reply;
  for (std::int32_t k = 0; k + 1 < answer_length; ++k) reply.push_back((letter + k) % letters);
  reply.push_back(end_token);
  return reply;
}

struct judge {
  std::vector<float> reward(const rollouts& r) {
    std::vector<float> y;
    for (plumb::index_t s = 0; s < r.size(); ++s) y.push_back(std::ranges::equal(r.reply_of(s), right_answer(r.prompt_of(s)[0])) ? 1.0f : 0.0f);
    return y;
  }
};

// For how many letters the likeliest reply is right, after 100 updates whose rollouts begin where `beginnings` says.
double align(const plumb::drpo& beginnings, std::span<const plumb::start> questions) {
  plumb::serial::backend<float> compute;
  letter_policy policy, reference;
  letter_critic critic;
  judge reward;
  plumb::ppo_options<> options{.policy_rate = 20, .critic_rate = 100};  // of a table; a network's are 1e-6 to 1e-5
  plumb::ppo ppo(compute, options, plumb::fixed_kl_controller{0.005});
  plumb::sampling how{.max_new_tokens = answer_length, .end_token = end_token, .seed = 1};
  for (int i = 0; i < 100; ++i) ppo.step(policy, critic, reference, reward, beginnings.starts(ppo.state().updates, 128), how);

  how.temperature = 0;
  double right = 0;
  for (const float score : reward.reward(policy.generate(questions, how))) right += score;
  return right;
}

int main() {
  std::vector<plumb::reset_item> data;
  std::vector<plumb::start> questions;
  for (std::int32_t letter = 0; letter < letters; ++letter) {
    data.push_back({.prompt = {letter}, .completions = {right_answer(letter)}});
    questions.push_back({.tokens = {letter}, .prompt_tokens = 1});
  }
  const plumb::drpo prompts(data, {.proportion = 0}), resets(data, {.proportion = 1, .seed = 7});
  std::printf("PPO    right for %.0f of 6 letters\n", align(prompts, questions));
  std::printf("DR-PO  right for %.0f of 6 letters\n", align(resets, questions));
}
// prints: PPO    right for 0 of 6 letters
// prints: DR-PO  right for 6 of 6 letters

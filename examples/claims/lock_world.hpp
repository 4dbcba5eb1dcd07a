#pragma once
// The prefix-sum lock: a world in which a good answer is easy to go on with and hard to come upon. Prompt: eight symbols. Answer: their running sums
// modulo six, then the end token. One wrong token, and nothing is won.

#include <plumb/core/random.hpp>
#include <plumb/model/rollouts.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace claims::lock {

using plumb::index_t;
using tokens = std::vector<std::int32_t>;

inline constexpr std::int32_t symbols = 6, end_token = 6;
inline constexpr index_t prompt_length = 8, slots = 9, vocabulary = 7;

/// `z_t = (x_t + z_{t-1}) mod 6`, then the end.
inline tokens answer(std::span<const std::int32_t> prompt) {
  tokens y;
  std::int32_t sum = 0;
  for (const std::int32_t x : prompt) y.push_back(sum = (sum + x) % symbols);
  y.push_back(end_token);
  return y;
}

/// The judge: 1 for the answer, -1 for a reply that does not end within its nine slots, else 0. Nothing is trained on it, but in the control that
/// says so.
inline double judge(std::span<const std::int32_t> prompt, std::span<const std::int32_t> reply) {
  bool ended = false;
  for (const std::int32_t y : reply) ended = ended || y == end_token;
  if (!ended) return -1;
  const tokens right = answer(prompt);
  return std::equal(right.begin(), right.end(), reply.begin(), reply.end()) ? 1 : 0;
}

/// Random numbers in a row: a stream, and how many were taken.
class dice {
 public:
  dice(std::uint64_t seed, std::uint64_t purpose) : stream_{seed, purpose} {}
  double uniform() { return stream_.uniform(taken_++); }
  std::int32_t below(std::int32_t n) { return static_cast<std::int32_t>(stream_.below(static_cast<std::uint64_t>(n), taken_++)); }

 private:
  plumb::random_stream stream_;
  std::uint64_t taken_ = 0;
};

inline tokens draw_prompt(dice& random) {
  tokens x(static_cast<std::size_t>(prompt_length));
  for (auto& one : x) one = random.below(symbols);
  return x;
}

/// What a person of this world writes: 80 % the answer, 10 % the answer with one symbol wrong, 10 % an answer that ends early.
inline tokens draw_reference(std::span<const std::int32_t> prompt, dice& random) {
  tokens y = answer(prompt);
  const double kind = random.uniform();
  if (kind < 0.8) return y;
  if (kind < 0.9) {
    auto& wrong = y[static_cast<std::size_t>(random.below(prompt_length))];
    wrong = (wrong + 1 + random.below(symbols - 1)) % symbols;
    return y;
  }
  y.resize(1 + static_cast<std::size_t>(random.below(prompt_length - 1)));  // one to seven symbols are left
  y.push_back(end_token);
  return y;
}

inline plumb::start start_at(const tokens& prompt, std::int32_t number) {
  return {.tokens = prompt, .prompt_tokens = static_cast<index_t>(prompt.size()), .prompt = number};
}
/// Texts that somebody wrote: every token of a reply counts as one's own.
template <class Real>
void add_text(plumb::rollouts<Real>& all, const tokens& prompt, std::span<const std::int32_t> reply, std::int32_t number) {
  all.add(start_at(prompt, number), reply, {}, !reply.empty() && reply.back() == end_token);
}

/// What the policy and the critic see at slot `t`: the prompt's symbol there, the token before, and `t`, each one-hot. (A model of
/// claims/small_models.hpp.)
class reader {
 public:
  reader() {
    features_.assign(3, {});
    for (std::int32_t context = 0; context < contexts(); ++context) {
      const std::int32_t t = context < 6 ? 0 : context < 258 ? 1 + (context - 6) / 36 : 8;
      const std::int32_t pair = t == 0 ? context : t < 8 ? (context - 6) % 36 : context - 258;
      features_[0].push_back(t == 8 ? -1 : t == 0 ? pair : pair / 6);
      features_[1].push_back(t == 0 ? -1 : 6 + (t == 8 ? pair : pair % 6));
      features_[2].push_back(12 + t);
    }
  }
  index_t contexts() const { return 264; }
  index_t feature_values() const { return 21; }
  index_t vocabulary() const { return lock::vocabulary; }
  const std::vector<std::vector<std::int32_t>>& features() const { return features_; }
  std::int32_t next(std::span<const std::int32_t> prompt, std::span<const std::int32_t> reply) const {
    const auto t = static_cast<std::int32_t>(reply.size());
    if (t == 0) return prompt[0];
    if (t >= slots || reply.back() >= symbols) return -1;
    return t == 8 ? 258 + reply.back() : 6 + (t - 1) * 36 + prompt[static_cast<std::size_t>(t)] * 6 + reply.back();
  }

 private:
  std::vector<std::vector<std::int32_t>> features_{};
};

/// What the reward model sees of a token: the prompt's symbol at its slot and the token before it; each pair is a context, a plain table.
class pair_reader {
 public:
  pair_reader() {
    features_.assign(1, {});
    for (std::int32_t context = 0; context < contexts(); ++context) features_[0].push_back(context);
  }
  index_t contexts() const { return 49; }
  index_t feature_values() const { return 49; }
  index_t vocabulary() const { return lock::vocabulary; }
  const std::vector<std::vector<std::int32_t>>& features() const { return features_; }
  std::int32_t next(std::span<const std::int32_t> prompt, std::span<const std::int32_t> reply) const {
    const std::size_t t = reply.size();
    if (t >= static_cast<std::size_t>(slots)) return -1;
    return (t < prompt.size() ? prompt[t] : symbols) * 7 + (t == 0 ? symbols : reply.back());
  }

 private:
  std::vector<std::vector<std::int32_t>> features_{};
};

/// A prompt and two replies, as labelled.
struct pair {
  tokens prompt{}, chosen{}, rejected{};
};

}  // namespace claims::lock

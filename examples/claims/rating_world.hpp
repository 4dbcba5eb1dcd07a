#pragma once
// The world of the table of reward models: short replies to sixteen prompts with five latent attributes, rated by noisy annotators as HelpSteer2's
// were.

#include <plumb/core/random.hpp>
#include <plumb/core/view.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace claims {

using plumb::index_t;

/// Helpfulness, correctness, coherence, complexity, verbosity, each from 0 to 4.
using five_attributes = std::array<double, 5>;

/// A reply, what it is worth, and what annotators wrote down.
struct rated_reply {
  std::vector<std::int32_t> text{};  ///< the prompt's token, then the reply's
  five_attributes latent{}, rating{};
};
/// Two replies to one prompt.
struct rated_pair {
  rated_reply first{}, second{};
};

class rating_world {
 public:
  static constexpr std::int32_t prompts = 16, tokens = 8, length = 8;
  /// A text is the prompt's token, `x`, and `length` of the prompt's own words, `prompts + 8 x` to `prompts + 8 x + 7`: what a word is worth
  /// depends on the prompt, so that no other prompt teaches it.
  static constexpr std::int32_t vocabulary = prompts + prompts * tokens;

  explicit rating_world(std::uint64_t seed) : seed_(seed) {
    const plumb::random_stream offsets{seed, 0x726174650001}, scores{seed, 0x726174650002};
    for (std::size_t x = 0; x < offset_.size(); ++x) offset_[x] = 0.8 * offsets.normal(x);
    for (std::size_t i = 0; i < score_.size(); ++i) score_[i] = scores.normal(i);
  }

  /// `text`: the prompt's token and `length` of the reply.
  five_attributes latent(const std::vector<std::int32_t>& text) const {
    const auto x = static_cast<std::size_t>(text[0]);
    double worth = 0, sum = 0, repeats = 0, distinct = 0;
    for (std::size_t t = 1; t <= length; ++t) {
      worth += score_[static_cast<std::size_t>(text[t] - prompts)];
      sum += text[t] % tokens;
      repeats += t > 1 && text[t] == text[t - 1];
      distinct +=
          std::find(text.begin() + 1, text.begin() + static_cast<std::ptrdiff_t>(t), text[t]) == text.begin() + static_cast<std::ptrdiff_t>(t);
    }
    const auto level = [](double a) { return std::clamp(a, 0.0, 4.0); };
    const double helpful = level(2.4 + offset_[x] + worth / std::sqrt(static_cast<double>(length)) - 0.25 * repeats);
    return {helpful, level(helpful + 0.3 * std::sin(sum)), level(4 - 0.5 * repeats), 4 * (distinct - 1) / (tokens - 1),
            4.0 * (text.back() % tokens) / (tokens - 1)};
  }
  /// Pair `number` of a set: prompt and replies drawn evenly, each reply rated by three annotators.
  rated_pair pair(std::uint64_t set, std::uint64_t number) const {
    const plumb::random_stream draw{plumb::random_stream{seed_, 0x726174650003}.bits(set), number};
    std::uint64_t at = 0;
    const auto prompt = static_cast<std::int32_t>(draw.below(prompts, at++));
    const auto reply = [&] {
      rated_reply r;
      r.text.push_back(prompt);
      for (std::int32_t t = 0; t < length; ++t) r.text.push_back(prompts + prompt * tokens + static_cast<std::int32_t>(draw.below(tokens, at++)));
      r.latent = latent(r.text);
      for (std::size_t k = 0; k < r.latent.size(); ++k) {
        double sum = 0;
        for (int annotator = 0; annotator < 3; ++annotator) sum += std::clamp(std::round(r.latent[k] + 0.7 * draw.normal(at++)), 0.0, 4.0);
        r.rating[k] = std::round(sum / 3);
      }
      return r;
    };
    rated_pair p;
    p.first = reply();
    p.second = reply();
    return p;
  }
  std::vector<rated_pair> pairs(std::uint64_t set, std::size_t count) const {
    std::vector<rated_pair> all;
    for (std::size_t i = 0; i < count; ++i) all.push_back(pair(set, i));
    return all;
  }

 private:
  std::uint64_t seed_;
  std::array<double, prompts> offset_{};
  std::array<double, std::size_t{prompts} * tokens> score_{};
};

}  // namespace claims

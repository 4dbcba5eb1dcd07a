#pragma once
// HelpSteer2 (Wang et al. 2024, arXiv:2406.08673): rows of a response with five attributes, two adjacent rows a prompt,
// and the preference rows of HelpSteer2-Preference (arXiv:2410.01257).

#include <plumb/data/hh_rlhf.hpp>

#include <array>

PLUMB_NAMESPACE_BEGIN
namespace data {

/// Of HelpSteer2, in the order of its files.
inline constexpr std::array<const char*, 5> helpsteer2_attributes = {"helpfulness", "correctness", "coherence",
                                                                     "complexity", "verbosity"};

namespace detail {

inline bool decode_helpsteer2_row(json_line& line, rated_response& row) {
  std::string_view prompt, response;
  if (!line.record.get("prompt", prompt) || !line.record.get("response", response)) return false;
  row.line = line.number;
  row.prompt.text = prompt;
  row.response.text = response;
  row.ratings.clear();
  for (const char* attribute : helpsteer2_attributes) {
    std::int64_t rating = 0;
    if (!line.record.get(attribute, 0, 4, rating, 0)) return false;
    row.ratings.push_back(static_cast<double>(rating));
  }
  return true;
}

/// Pairs from two adjacent rows of a prompt: the more helpful response is chosen, the difference is the margin.
class helpsteer2_pairs {
 public:
  bool decode(json_line& line, outcome<preference_pair>& out) {
    rated_response row;
    if (!decode_helpsteer2_row(line, row)) return false;
    if (!first_) {
      first_ = std::move(row);
    } else if (first_->prompt != row.prompt) {
      out.drop(drop::no_partner);
      first_ = std::move(row);
    } else {
      hand_out(std::move(*first_), std::move(row), out);
      first_.reset();
    }
    return true;
  }
  void finish(outcome<preference_pair>& out) {
    if (first_) out.drop(drop::no_partner);
    first_.reset();
  }

 private:
  static void hand_out(rated_response&& one, rated_response&& other, outcome<preference_pair>& out) {
    const double a = one.ratings[0], b = other.ratings[0];
    if (a == b) return out.drop(drop::tie);
    preference_pair pair;
    pair.line = one.line;
    pair.prompt = std::move(one.prompt);
    pair.chosen = std::move(a > b ? one.response : other.response);
    pair.rejected = std::move(a > b ? other.response : one.response);
    pair.chosen_rating = std::max(a, b);
    pair.rejected_rating = std::min(a, b);
    pair.margin = *pair.chosen_rating - *pair.rejected_rating;
    hand_out_pair(std::move(pair), out);
  }

  std::optional<rated_response> first_;
};

/// Strength -3 .. -1: response_1 is better, 1 .. 3: response_2; 0: neither; -100: neither is valid.
inline bool decode_helpsteer2_preference(json_line& line, outcome<preference_pair>& out) {
  constexpr std::int64_t neither_valid = -100;
  std::string_view prompt, first, second;
  std::int64_t strength = 0;
  if (!line.record.get("prompt", prompt) || !line.record.get("response_1", first) ||
      !line.record.get("response_2", second) || !line.record.get("preference_strength", -3, 3, strength, neither_valid))
    return false;
  if (strength == 0 || strength == neither_valid) {
    out.drop(strength == 0 ? drop::tie : drop::invalid);
    return true;
  }
  preference_pair pair;
  pair.line = line.number;
  pair.prompt.text = prompt;
  pair.chosen.text = strength < 0 ? first : second;
  pair.rejected.text = strength < 0 ? second : first;
  pair.margin = static_cast<double>(strength < 0 ? -strength : strength);
  hand_out_pair(std::move(pair), out);
  return true;
}

}  // namespace detail
}  // namespace data
PLUMB_NAMESPACE_END

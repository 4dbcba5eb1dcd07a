#pragma once
// What figures say, in sentences. The intervals decide.

#include "chart.hpp"

namespace lab {

/// What a reader sees: "64.4 [61.6, 67.0]" of a share, in percent.
inline std::string shown_text(const figure& f) { return to_text(markup::as_shown(f), f.unit == "share" || f.unit == "difference of shares" ? 1 : 3); }
inline const figure* find_figure(const std::vector<figure>& figures, const std::string& name) {
  for (const auto& f : figures)
    if (f.name == name) return &f;
  return nullptr;
}

/// Whether the reward model beats what needs no model, in a sentence; the interval decides.
inline std::string verdict(const figure& gain) {
  const bool better = gain.low && *gain.low > 0, worse = gain.high && *gain.high < 0;
  std::string text = std::string("The reward model ") + (better ? "beats" : worse ? "is worse than" : "is not told apart from") + " the best baseline (" + gain.label + ": " +
                     shown_text(gain) + " percentage points).";
  if (!better) text += " The curve over the share of its training pairs shows whether more pairs would help.";
  return text;
}

inline constexpr std::pair<const char*, const char*> reward_names[] = {{"bradley_terry", "Bradley-Terry"},
                                                                       {"attribute_regression", "attribute regression"}};

/// Why the gold reward falls, from the numbers. The judge's total is a weighted sum, so the fall is the sum of its attributes' parts; and it is
/// the sum of what labellers would mind too, where the learned reward errs even by their lights, and of what they do not see.
inline std::string why_it_falls(const std::vector<figure>& all, const std::string& model, const std::string& name) {
  const std::string who = "best_of_n/" + model + "/";
  const figure *fall = find_figure(all, who + "fall"), *seen = find_figure(all, who + "fall_seen_by_labellers"), *unseen = find_figure(all, who + "fall_unseen_by_labellers");
  if (fall == nullptr || seen == nullptr || unseen == nullptr || !fall->low || !(*fall->low > 0)) return "By " + name + ", no fall of the gold reward is told apart from chance.";
  std::vector<const figure*> parts;
  for (const auto& f : all)
    if (f.name.rfind(who + "fall_of/", 0) == 0 && std::abs(f.value) >= 0.005) parts.push_back(&f);
  std::sort(parts.begin(), parts.end(), [](const figure* a, const figure* b) { return a->value > b->value; });
  std::string text = "By " + name + ", the pick's gold reward falls by " + to_text(*fall, 2) + " points from its peak";
  for (const figure* f : parts) text += (f == parts.front() ? ": " : ", ") + fixed_text(f->value, 2) + " through " + f->name.substr((who + "fall_of/").size());
  return text + ". Labellers would mind " + to_text(*seen, 2) + " of it as well, which is the learned reward's own error; " + to_text(*unseen, 2) +
         " only the judge minds, which is the labellers' taste" + (model == reward_names[0].first ? "." : ", of which this reward was taught nothing.");
}

}  // namespace lab

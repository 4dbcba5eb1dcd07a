#pragma once
// What figures say, in sentences. The intervals decide.

#include "chart.hpp"
#include "settings.hpp"

namespace lab {

/// What a reader sees: "64.4 [61.6, 67.0]" of a share, in percent.
inline std::string shown_text(const figure& f) {
  return to_text(markup::as_shown(f), f.unit == "share" || f.unit == "difference of shares" ? 1 : f.unit == "replies" || f.unit == "updates" ? 0 : 3);
}
inline const figure* find_figure(const std::vector<figure>& figures, const std::string& name) {
  for (const auto& f : figures)
    if (f.name == name) return &f;
  return nullptr;
}

/// What a preference file's figures say, of one seed: whether the reward model beats everything that needs no model (every interval has to be above
/// zero, which needs no correction for there being three), and whether more labels help.
inline std::string verdict(const std::vector<figure>& all) {
  const figure *closest = nullptr, *worse = nullptr;  // the smallest gain; the smallest that is told apart below zero
  bool beats_all = true;
  for (const auto& f : all) {
    if (f.name.rfind("gain/over_", 0) != 0) continue;
    if (closest == nullptr || f.value < closest->value) closest = &f;
    if (f.high && *f.high < 0 && (worse == nullptr || f.value < worse->value)) worse = &f;
    beats_all = beats_all && f.low && *f.low > 0;
  }
  if (closest == nullptr) return {};
  const auto said = [](const figure& f) { return f.label + ": " + shown_text(f); };
  std::string text;
  if (worse != nullptr) {
    text = "The reward model is worse than a baseline that needs no model (" + said(*worse) + " percentage points).";
  } else if (!beats_all) {
    text = "The reward model is not told apart from the best of the baselines (" + said(*closest) + " percentage points).";
  } else {
    text = "The reward model beats every baseline (the closest, " + said(*closest) + " percentage points).";
  }
  if (const figure* more = find_figure(all, "gain/from_labels")) {
    text += " All labels instead of an eighth of them change its accuracy by " + shown_text(*more) + " percentage points: ";
    text += more->low && *more->low > 0 ? "more labels help here." : more->high && *more->high < 0 ? "more labels hurt here." : "not told apart from nothing.";
  }
  std::string better, no_better;
  for (const auto& f : all) {
    if (f.name.rfind("accuracy/", 0) != 0) continue;
    std::string& list = f.low && *f.low > 0.5 ? better : no_better;
    list += (list.empty() ? "" : "; ") + f.label;
  }
  if (!better.empty()) text += " Better than a coin: " + better + ".";
  if (!no_better.empty()) text += " Not told apart from a coin, or worse: " + no_better + ".";
  return text;
}

inline constexpr std::pair<const char*, const char*> reward_names[] = {{"bradley_terry", "Bradley-Terry"},
                                                                       {"attribute_regression", "attribute regression"}};

/// Which policies the judge likes better than the SFT model, of one seed.
inline std::string policy_verdict(const std::vector<figure>& all) {
  std::string better, worse, open;
  for (const contender& c : contenders) {
    const figure* f = find_figure(all, std::string("win_rate/") + c.key + "_over_sft");
    if (f == nullptr) continue;
    std::string& list = f->low && *f->low > 0.5 ? better : f->high && *f->high < 0.5 ? worse : open;
    list += (list.empty() ? "" : ", ") + std::string(c.name);
  }
  std::string text;
  const auto tell = [&](const char* what, const std::string& list) {
    if (!list.empty()) text += (text.empty() ? "" : " ") + std::string(what) + list + ".";
  };
  tell("Better than SFT: ", better);
  tell("Worse than SFT: ", worse);
  tell("Not told apart from SFT: ", open);
  return text;
}

/// Why the gold reward falls, from the numbers of one seed; `who` is what the figures' names begin with, `by` opens the sentence. The judge's total is a weighted sum, so the fall is the sum of its attributes' parts;
/// and it is the sum of what labellers see of it, where the learned reward errs even by their lights, and of what they are blind to.
inline std::string why_it_falls(const std::vector<figure>& all, const std::string& who, const std::string& by) {
  const figure *fall = find_figure(all, who + "/fall"), *seen = find_figure(all, who + "/fall_seen_by_labellers"), *unseen = find_figure(all, who + "/fall_unseen_by_labellers");
  if (fall == nullptr || seen == nullptr || unseen == nullptr) return {};
  if (!fall->low || !(*fall->low > 0)) return by + ", no fall of the gold reward is told apart from chance.";
  std::vector<const figure*> parts;
  for (const auto& f : all)
    if (f.name.rfind(who + "/fall_of/", 0) == 0 && f.low && *f.low > 0) parts.push_back(&f);
  std::sort(parts.begin(), parts.end(), [](const figure* a, const figure* b) { return a->value > b->value; });
  std::string text = by + ", replies lose " + to_text(*fall, 2) + " points of gold reward from the peak on. Told apart from chance, by attribute:";
  for (const figure* f : parts) text += (f == parts.front() ? " " : ", ") + f->name.substr((who + "/fall_of/").size()) + " " + to_text(*f, 2);
  text += std::string(parts.empty() ? " none." : ".") + " Labellers would see " + to_text(*seen, 2) + " of it";
  if (seen->low && *seen->low > 0) text += " (the learned reward errs by their lights too)";
  text += "; " + to_text(*unseen, 2) + " only the judge sees";
  if (unseen->low && *unseen->low > 0) text += " (courtesies after the first, and length)";
  return text + ". The peak is chosen on one half of the prompts, rise and fall are measured on the other.";
}

}  // namespace lab

#pragma once
// What becomes of replies when a learned reward is pressed harder and harder, by best-of-n or by training, as figures.

#include "figures.hpp"
#include "world.hpp"

#include <array>

namespace lab {

/// A reply, what the judge says of it, and what two learned rewards do: Bradley-Terry, attribute regression under the judge's weights.
struct candidate {
  tokens text{};
  judgement gold{};
  double learned[2]{};
};

/// One view of a reply.
struct aspect {
  const char *name, *unit, *label;
  double (*of)(const candidate&);
};
/// The gold reward first, then what labellers see; the judge's attributes from the third on.
inline constexpr aspect aspects[] = {
    {"gold", "points", "gold reward", [](const candidate& c) { return c.gold.total; }},
    {"labellers", "points", "as the labellers see it", [](const candidate& c) { return hasty_total(c.gold); }},
    {"correctness", "points", "correctness", [](const candidate& c) { return c.gold.attribute[0]; }},
    {"relevance", "points", "relevance", [](const candidate& c) { return c.gold.attribute[1]; }},
    {"politeness", "points", "politeness", [](const candidate& c) { return c.gold.attribute[2]; }},
    {"conciseness", "points", "conciseness", [](const candidate& c) { return c.gold.attribute[3]; }},
    {"fluency", "points", "fluency", [](const candidate& c) { return c.gold.attribute[4]; }},
    {"length", "tokens", "length", [](const candidate& c) { return static_cast<double>(c.text.size()); }},
    {"courtesies", "phrases", "courtesies", [](const candidate& c) { return static_cast<double>(c.gold.courteous); }}};

/// A learned reward that is pressed at several strengths, weakest first.
struct pressure {
  std::string who, by;                ///< of the figures' names: "best_of_n/bradley_terry"; of their labels: "best of n by Bradley-Terry"
  std::string counted, unit;          ///< "n", "replies"; "update", "updates"
  std::vector<std::size_t> strengths{};

  std::string at(std::size_t j) const { return "/" + counted + "=" + std::to_string(strengths[j]); }
};

/// Figures of the pressed reward, from `each(j, of)`: for each prompt the (expected) value of `of(candidate)` at strength j; `learned` is the
/// reward's own view. Where the gold reward peaks is read off the even prompts; how far it rises and falls, and by what, off the odd ones.
template <class Each, class Learned>
std::vector<figure> over_optimisation(const pressure& p, Each each, Learned learned) {
  const auto strength = [&](std::size_t j) { return p.counted + " = " + std::to_string(p.strengths[j]); };
  std::vector<figure> figures;
  std::vector<std::vector<double>> golds;  // [strength][prompt]
  for (std::size_t j = 0; j < p.strengths.size(); ++j) {
    const std::string of = p.by + ", " + strength(j) + ": ";
    figures.push_back(mean_figure(p.who + "/learned" + p.at(j), each(j, learned), "standard deviations", of + "its own reward"));
    for (const aspect& a : aspects) {
      const auto values = each(j, a.of);
      if (&a == &aspects[0]) golds.push_back(values);
      figures.push_back(mean_figure(p.who + "/" + a.name + p.at(j), values, a.unit, of + a.label));
    }
  }
  std::size_t peak = 0;
  std::vector<double> even_sums(golds.size());
  for (std::size_t j = 0; j < golds.size(); ++j)
    for (std::size_t i = 0; i < golds[j].size(); i += 2) even_sums[j] += golds[j][i];
  for (std::size_t j = 0; j < golds.size(); ++j)
    if (even_sums[j] > even_sums[peak]) peak = j;
  const auto odd_change = [&](const std::vector<double>& from, const std::vector<double>& to, double weight = 1) {
    std::vector<double> change;
    for (std::size_t i = 1; i < from.size(); i += 2) change.push_back(weight * (to[i] - from[i]));
    return change;
  };
  const std::size_t end = golds.size() - 1;
  const std::string by = ", " + p.by, first = strength(0), last = strength(end);
  const auto lost = [&](const std::string& name, auto of, const std::string& label, double weight = 1) {
    figures.push_back(mean_figure(p.who + name, odd_change(each(end, of), each(peak, of), weight), "points", label + by));
  };
  figures.push_back({p.who + "/peak", static_cast<double>(p.strengths[peak]), {}, {}, (golds[0].size() + 1) / 2, p.unit,
                     p.counted + " where the gold reward peaks" + by});
  figures.push_back(mean_figure(p.who + "/rise", odd_change(golds[0], golds[peak]), "points", "gold reward gained, " + first + " to the peak" + by));
  lost("/fall", aspects[0].of, "gold reward lost, peak to " + last);
  for (std::size_t k = 0; k < lab::attributes.size(); ++k)
    lost(std::string("/fall_of/") + lab::attributes[k], aspects[2 + k].of, std::string("of that, through ") + lab::attributes[k], gold_weights[k]);
  // What the labellers would mind as well is the learned reward's error; what only the judge minds is their taste.
  lost("/fall_seen_by_labellers", aspects[1].of, "of that, what labellers would mind too");
  lost("/fall_unseen_by_labellers", [](const candidate& c) { return c.gold.total - hasty_total(c.gold); }, "of that, what only the judge minds");
  return figures;
}

/// Share of different pairs of neighbouring words among all of them.
inline double distinct_bigrams(const std::vector<tokens>& replies) {
  std::set<std::pair<token, token>> seen;
  double count = 0;
  for (const auto& r : replies)
    for (std::size_t t = 1; t < r.size(); ++t) seen.emplace(r[t - 1], r[t]), ++count;
  return count > 0 ? static_cast<double>(seen.size()) / count : 0;
}

}  // namespace lab

#pragma once
// Figures: numbers with their intervals, and how they get them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace lab {

/// One number of a table, with its 95 % interval where it has one.
struct figure {
  std::string name;  ///< as in summary.json: "win_rate/dpo_over_sft"
  double value = std::numeric_limits<double>::quiet_NaN();
  std::optional<double> low{}, high{};
  std::size_t n = 0;    ///< how many the interval rests on
  std::string unit{};
  std::string label{};  ///< for a person: "win rate of DPO over SFT, ties a half"
};

/// A prompt and the replies of several models.
struct reply {
  std::string by{}, text{};
  std::optional<double> score{};
  std::string reasons{};  ///< of who gave the score
};
struct example {
  std::string prompt{};
  std::vector<reply> replies{};
};

/// A mean with its 95 % normal interval; none for fewer than two numbers, nor where all are the same up to rounding.
inline figure mean_figure(std::string name, const std::vector<double>& x, std::string unit, std::string label = {}) {
  double sum = 0, squares = 0;
  for (double v : x) sum += v;
  const double n = static_cast<double>(x.size()), mean = sum / n;
  figure f{std::move(name), mean, {}, {}, x.size(), std::move(unit), std::move(label)};
  if (x.size() < 2) return f;
  for (double v : x) squares += (v - mean) * (v - mean);
  const double half = 1.959964 * std::sqrt(squares / (n - 1) / n);
  if (!(half > 1e-9 * std::max(1.0, std::abs(mean)))) return f;
  f.low = mean - half;
  f.high = mean + half;
  return f;
}

/// A rate of `successes` (ties may count a half) among `n`, with its 95 % Wilson interval (Wilson 1927). `independent` is what the n are worth
/// where they are not independent of one another.
inline figure rate_figure(std::string name, double successes, std::size_t count, std::string label = {}, std::optional<double> independent = {}) {
  const double z = 1.959964, p = successes / static_cast<double>(count), n = independent.value_or(static_cast<double>(count));
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::move(name), p, std::max(0.0, centre - half), std::min(1.0, centre + half), count, "share", std::move(label)};
}

/// 97.5 % point of Student's t (tabulated to 10 degrees of freedom; beyond, the first terms of its expansion at the normal point).
inline double student_t(std::size_t degrees) {
  constexpr double table[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281};
  if (degrees >= 1 && degrees <= 10) return table[degrees - 1];
  const double z = 1.959964, z3 = z * z * z, z5 = z3 * z * z, n = static_cast<double>(degrees);
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n) + (3 * z5 * z * z + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n);
}

/// The variance of the mean of `x` where those of one cluster depend on one another: of the ratio of the clusters' sums to their sizes
/// (Cochran, Sampling Techniques, 1977, section 9A.1, without the finite-population factor). `cluster[i]` says which cluster `x[i]` is of.
inline double clustered_variance(const std::vector<double>& x, const std::vector<std::size_t>& cluster) {
  const double n = static_cast<double>(x.size()), mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  std::map<std::size_t, double> sums;  // of what exceeds the mean
  for (std::size_t i = 0; i < x.size(); ++i) sums[cluster[i]] += x[i] - mean;
  const double count = static_cast<double>(sums.size());
  double squares = 0;
  for (const auto& [id, sum] : sums) squares += sum * sum;
  return count < 2 ? std::numeric_limits<double>::infinity() : squares * count / (count - 1) / (n * n);
}
/// The rate of `x` (0, a half or 1 each): Wilson's interval for as many independent ones as have the clustered variance; at most the number of `x`.
inline figure clustered_rate_figure(std::string name, const std::vector<double>& x, const std::vector<std::size_t>& cluster, std::string label = {}) {
  const double sum = std::accumulate(x.begin(), x.end(), 0.0), n = static_cast<double>(x.size()), p = sum / n;
  const double variance = clustered_variance(x, cluster);
  const double clusters = static_cast<double>(std::set<std::size_t>(cluster.begin(), cluster.end()).size());
  const double worth = p > 0 && p < 1 && variance > 0 && std::isfinite(variance) ? std::min(n, p * (1 - p) / variance) : clusters;
  return rate_figure(std::move(name), sum, x.size(), std::move(label), worth);
}
/// The mean of `x` with its 95 % interval from the clustered variance, by Student's t for the number of clusters; none where that tells
/// nothing. Differences of shares lie in -1 .. 1.
inline figure clustered_mean_figure(std::string name, const std::vector<double>& x, const std::vector<std::size_t>& cluster, std::string unit,
                                    std::string label = {}) {
  figure f{std::move(name), std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size()), {}, {}, x.size(), std::move(unit), std::move(label)};
  const std::size_t clusters = std::set<std::size_t>(cluster.begin(), cluster.end()).size();
  if (clusters < 2) return f;
  const double half = student_t(clusters - 1) * std::sqrt(clustered_variance(x, cluster));
  if (!(half > 1e-9)) return f;
  const double limit = f.unit == "difference of shares" ? 1 : std::numeric_limits<double>::infinity();
  f.low = std::max(-limit, f.value - half);
  f.high = std::min(limit, f.value + half);
  return f;
}

/// "0.712"; what rounds to zero has no sign.
inline std::string fixed_text(double x, int decimals) {
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", decimals, x);
  return text[0] == '-' && std::string(text).find_first_of("123456789") == std::string::npos ? text + 1 : text;
}
/// "0.712 [0.690, 0.734]".
inline std::string to_text(const figure& f, int decimals = 3) {
  std::string text = fixed_text(f.value, decimals);
  if (f.low && f.high) text += " [" + fixed_text(*f.low, decimals) + ", " + fixed_text(*f.high, decimals) + "]";
  return text;
}

/// Each figure's mean over seeds, then each seed's own under "seed N/". From three seeds on the mean has its interval (Student's t, n = seeds).
/// A number of replies or updates, which has no mean worth telling, is the median, its label the list. `independent` is false where the seeds share what
/// they measure on, so that their spread is no interval's.
inline std::vector<figure> over_seeds(const std::vector<std::pair<std::uint64_t, std::vector<figure>>>& runs, bool independent = true) {
  if (runs.size() == 1) return runs.front().second;
  std::vector<figure> all;
  for (const figure& first : runs.front().second) {
    std::vector<double> values;
    for (const auto& run : runs)
      for (const figure& f : run.second)
        if (f.name == first.name) values.push_back(f.value);
    if (values.size() != runs.size()) continue;  // not measured for every seed
    figure f = mean_figure(first.name, values, first.unit, first.label);
    if (first.unit == "replies" || first.unit == "updates") {
      f.label += ", median; by seed:";
      for (const double& v : values) f.label += (&v == values.data() ? " " : ", ") + std::to_string(static_cast<long long>(v));
      std::sort(values.begin(), values.end());
      f.value = (values[values.size() / 2] + values[(values.size() - 1) / 2]) / 2;
      f.low = f.high = std::nullopt;
    } else if (values.size() < 3 || !f.low || !independent) {
      f.low = f.high = std::nullopt;
    } else {
      const double half = (f.value - *f.low) / 1.959964 * student_t(values.size() - 1);
      const bool share = f.unit == "share";
      f.low = share ? std::max(0.0, f.value - half) : f.value - half;
      f.high = share ? std::min(1.0, f.value + half) : f.value + half;
    }
    all.push_back(std::move(f));
  }
  for (const auto& [seed, figures] : runs)
    for (figure f : figures) {
      f.name = "seed " + std::to_string(seed) + "/" + f.name;
      all.push_back(std::move(f));
    }
  return all;
}

}  // namespace lab

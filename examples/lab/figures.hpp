#pragma once
// Figures: numbers with their intervals, and how they get them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <map>
#include <optional>
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

/// A mean with its 95 % normal interval; none for fewer than two numbers.
inline figure mean_figure(std::string name, const std::vector<double>& x, std::string unit, std::string label = {}) {
  double sum = 0, squares = 0;
  for (double v : x) sum += v;
  const double n = static_cast<double>(x.size()), mean = sum / n;
  figure f{std::move(name), mean, {}, {}, x.size(), std::move(unit), std::move(label)};
  if (x.size() < 2) return f;
  for (double v : x) squares += (v - mean) * (v - mean);
  const double half = 1.959964 * std::sqrt(squares / (n - 1) / n);
  f.low = mean - half;
  f.high = mean + half;
  return f;
}

/// A rate of `successes` (ties may count a half) among `n`, with its 95 % Wilson interval (Wilson 1927).
inline figure rate_figure(std::string name, double successes, std::size_t count, std::string label = {}) {
  const double z = 1.959964, n = static_cast<double>(count), p = successes / n;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::move(name), p, centre - half, centre + half, count, "share", std::move(label)};
}

/// "0.712 [0.690, 0.734]".
inline std::string to_text(const figure& f) {
  char text[96];
  if (f.low && f.high) {
    std::snprintf(text, sizeof text, "%.3f [%.3f, %.3f]", f.value, *f.low, *f.high);
  } else {
    std::snprintf(text, sizeof text, "%.3f", f.value);
  }
  return text;
}

/// 97.5 % point of Student's t (tabulated to 10 degrees of freedom; beyond, the first terms of its expansion at the normal point).
inline double student_t(std::size_t degrees) {
  constexpr double table[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281};
  if (degrees >= 1 && degrees <= 10) return table[degrees - 1];
  const double z = 1.959964, z3 = z * z * z, z5 = z3 * z * z, n = static_cast<double>(degrees);
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n) + (3 * z5 * z * z + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n);
}

/// Each figure's mean over seeds with its interval (Student's t, n = seeds), then each seed's own under "seed N/".
inline std::vector<figure> over_seeds(const std::vector<std::pair<std::uint64_t, std::vector<figure>>>& runs) {
  if (runs.size() == 1) return runs.front().second;
  std::vector<figure> all;
  for (const figure& first : runs.front().second) {
    std::vector<double> values;
    for (const auto& run : runs)
      for (const figure& f : run.second)
        if (f.name == first.name) values.push_back(f.value);
    figure f = mean_figure(first.name, values, first.unit, first.label);
    if (f.low) {
      const double half = (f.value - *f.low) / 1.959964 * student_t(values.size() - 1);
      f.low = f.value - half;
      f.high = f.value + half;
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

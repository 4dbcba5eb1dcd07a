#pragma once
// Tables on the terminal, and arithmetic by seed.

#include "lab/html.hpp"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace claims {

/// Columns as wide as they must be; a character of several bytes counts once.
inline void print(const lab::text_table& t) {
  const auto width_of = [](const std::string& text) {
    std::size_t n = 0;
    for (const char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    return n;
  };
  std::vector<std::size_t> width;
  for (const auto& c : t.columns) width.push_back(width_of(c.name));
  for (const auto& row : t.rows)
    for (std::size_t k = 0; k < row.size(); ++k) width[k] = std::max(width[k], width_of(row[k]));
  std::printf("\n%s\n", t.caption.c_str());
  const auto line = [&](auto cell) {
    for (std::size_t k = 0; k < width.size(); ++k) {
      const std::string text = cell(k), gap(width[k] - width_of(text), ' ');
      std::printf("  %s%s", (t.columns[k].numeric ? gap + text : text + gap).c_str(), k + 1 == width.size() ? "\n" : "");
    }
  };
  line([&](std::size_t k) { return t.columns[k].name; });
  for (const auto& row : t.rows) line([&](std::size_t k) { return row[k]; });
}

inline std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> d(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) d[i] = a[i] - b[i];
  return d;
}
/// "1 seed", "3 seeds".
inline std::string seeds_text(std::size_t n) { return std::to_string(n) + (n == 1 ? " seed" : " seeds"); }

}  // namespace claims

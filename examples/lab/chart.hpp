#pragma once
// The report's charts as plain inline SVG, and what all of its markup is made with: escaped text, numbers, axes. The
// page's style sheet (html.hpp) colours them. Each chart comes twice, for wide and for narrow screens, so that its
// letters are as large as the text's.

#include "figures.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <vector>

namespace lab {

inline constexpr double missing_value = std::numeric_limits<double>::quiet_NaN();

enum class axis_scale { linear, log2, log10 };

/// A measured value with its interval. Whatever is not finite, or not positive on a logarithmic axis, is left out: the
/// line has a gap.
struct chart_point {
  double x = missing_value, y = missing_value, low = missing_value, high = missing_value;
  std::string name{};  ///< said beside its numbers: "n = 8"
};
struct chart_series {
  std::string name{};
  std::vector<chart_point> points{};  ///< joined in this order
};
/// A level to compare with: a dashed horizontal line.
struct chart_reference {
  double y = missing_value;
  std::string label{};
};
struct line_chart {
  std::string title{}, x_label{}, y_label{};
  axis_scale x_scale = axis_scale::linear, y_scale = axis_scale::linear;
  std::vector<chart_series> series{};
  std::vector<chart_reference> references{};
  std::string description{};  ///< what it shows, in words, for who cannot see it; made from the numbers where empty
};

/// Figures of one unit below each other, each a dot with its interval.
struct forest_plot {
  std::string title{}, x_label{};
  std::vector<figure> rows{};
  std::optional<double> reference{};  ///< in the figures' unit
  std::string reference_label{}, description{};
};

namespace markup {

inline constexpr char32_t replacement = 0xfffd;

/// The code point of `text` at `at`, which moves behind it; U+FFFD for a byte that belongs to no valid UTF-8 sequence.
inline char32_t next_code_point(std::string_view text, std::size_t& at) {
  static constexpr char32_t least[] = {0, 0x80, 0x800, 0x10000};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t start = at++;
  const char32_t lead = byte(start);
  if (lead < 0x80) return lead;
  const std::size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
  if (lead < 0xc0 || lead > 0xf4 || start + more >= text.size()) return replacement;
  char32_t c = lead & (0x3fu >> more);
  for (std::size_t i = start + 1; i <= start + more; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return replacement;
    c = c << 6 | (byte(i) & 0x3fu);
  }
  if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return replacement;
  at = start + more + 1;
  return c;
}

inline void append_utf8(std::string& out, char32_t c) {
  const auto tail = [&](unsigned shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3f)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | c >> 6), tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | c >> 12), tail(6), tail(0);
  } else {
    out += static_cast<char>(0xf0 | c >> 18), tail(12), tail(6), tail(0);
  }
}

/// Any bytes as text of HTML, between tags or in a quoted attribute. Invalid UTF-8 becomes U+FFFD, a control character
/// its picture.
inline std::string escape(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (c == '\r' && at < text.size() && text[at] == '\n') continue;
    switch (c) {
      case '&':
        out += "&amp;";
        continue;
      case '<':
        out += "&lt;";
        continue;
      case '>':
        out += "&gt;";
        continue;
      case '"':
        out += "&quot;";
        continue;
      case '\'':
        out += "&#39;";
        continue;
      default:
        break;
    }
    const bool no_character = (c >= 0x80 && c < 0xa0) || (c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c < 0xfdf0);
    const bool control = c < 0x20 && c != '\n' && c != '\t';
    append_utf8(out, no_character ? replacement : c == 0x7f ? char32_t{0x2421} : control ? 0x2400 + c : c);
  }
  return out;
}

/// Lines of at most `width` ems, by a guess at the letters' widths; broken at spaces where there are any. Not escaped
/// yet.
inline std::vector<std::string> wrap(std::string_view text, double width) {
  std::vector<std::string> lines(1);
  double used = 0, at_space = 0;
  std::size_t space = std::string::npos;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    const double own = c < 0x1100 ? 0.55 : 1.0;
    if (used + own > width && !lines.back().empty()) {
      std::string rest = space == std::string::npos ? "" : lines.back().substr(space + 1);
      lines.back().resize(std::min(space, lines.back().size()));
      used = space == std::string::npos ? 0 : used - at_space;
      lines.push_back(std::move(rest));
      space = std::string::npos;
    }
    used += own;
    if (c == ' ') space = lines.back().size(), at_space = used;
    append_utf8(lines.back(), c);
  }
  return lines;
}
inline double width_of(std::string_view text) {  // in ems
  double width = 0;
  for (std::size_t at = 0; at < text.size();) width += next_code_point(text, at) < 0x1100 ? 0.55 : 1.0;
  return width;
}

// Numbers. std::to_chars knows no locale: a point stays a point.

inline constexpr const char* not_available = "n/a";
inline constexpr const char* minus = "\xe2\x88\x92";

inline std::string digits_of(double x, std::chars_format format, int precision) {
  char text[400];
  const auto end = std::to_chars(text, text + sizeof text, x, format, precision);
  std::string digits(text, end.ptr);
  const auto e = digits.find('e');
  if (e == std::string::npos) return digits;
  std::string mantissa = digits.substr(0, e), exponent = digits.substr(e + 1);  // "1.500", "+08"
  if (mantissa.find('.') != std::string::npos) {
    mantissa.resize(mantissa.find_last_not_of('0') + 1);
    if (mantissa.back() == '.') mantissa.pop_back();
  }
  const bool below_one = exponent[0] == '-';
  exponent.erase(0, std::min(exponent.find_first_not_of("+-0"), exponent.size() - 1));
  return mantissa + "e" + (below_one ? minus : "") + exponent;
}
inline std::string with_minus(std::string digits) {
  if (digits[0] != '-') return digits;
  return digits.find_first_of("123456789") == std::string::npos ? digits.substr(1) : minus + digits.substr(1);
}
/// "12345.6" -> "12,345.6"; four digits stay together.
inline std::string grouped(std::string digits) {
  const std::size_t first = digits.find_first_of("0123456789"), point = std::min(digits.find('.'), digits.size());
  if (point - first < 5) return digits;
  for (std::size_t at = point; at > first + 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}
/// Rounded to `decimals`; very large and very small ones with an exponent; "n/a" for what is not finite.
inline std::string number(double x, int decimals) {
  if (!std::isfinite(x)) return not_available;
  const double size = std::abs(x);
  const int significant = size > 0 ? static_cast<int>(std::floor(std::log10(size))) + decimals : 0;
  if (size >= 1e7 || (size > 0 && size < 1e-4 && significant >= 0))
    return with_minus(digits_of(x, std::chars_format::scientific, std::clamp(significant, 0, 9)));
  return grouped(with_minus(digits_of(x, std::chars_format::fixed, std::clamp(decimals, 0, 6))));
}
/// For tables of raw data: up to three decimals, of large and small numbers six significant digits; what rounding left of a zero is a zero.
inline std::string compact(double x) {
  if (!std::isfinite(x)) return not_available;
  const double size = std::abs(x);
  if (size < 1e-12) return "0";
  if (size < 0.01 || size >= 1000) return with_minus(digits_of(x, std::chars_format::general, 6));
  std::string digits = digits_of(x, std::chars_format::fixed, 3);
  digits.resize(digits.find_last_not_of('0') + 1);
  if (digits.back() == '.') digits.pop_back();
  return with_minus(digits);
}
/// Decimals that show two digits of a precision such as half an interval.
inline int decimals_for(double precision) {
  return std::isfinite(precision) && precision > 0 ? 1 - static_cast<int>(std::floor(std::log10(precision))) : 2;
}
inline std::string count(std::size_t n) { return grouped(std::to_string(n)); }

/// What a reader sees: shares in percent, their differences in percentage points.
inline figure as_shown(figure f) {
  if (f.unit != "share" && f.unit != "difference of shares") return f;
  f.value *= 100;
  if (f.low) *f.low *= 100;
  if (f.high) *f.high *= 100;
  f.unit = f.unit == "share" ? "%" : "percentage points";
  return f;
}
inline bool has_interval(const figure& f) { return f.low && f.high && std::isfinite(*f.low) && std::isfinite(*f.high); }
/// One number of decimals for all figures of a unit: by the narrowest interval, else three digits of the largest value.
inline int decimals_of(const std::vector<figure>& all, const std::string& unit) {
  double precision = std::numeric_limits<double>::infinity(), largest = 0;
  bool whole = true;  // numbers of things
  for (const auto& f : all) {
    if (f.unit != unit) continue;
    whole = whole && !has_interval(f) && std::round(f.value) == f.value && std::abs(f.value) < 1e6;
    if (has_interval(f) && *f.high > *f.low) precision = std::min(precision, *f.high / 2 - *f.low / 2);
    if (std::isfinite(f.value)) largest = std::max(largest, std::abs(f.value));
  }
  if (whole) return 0;
  // One figure that is known very closely does not make the others' digits worth reading.
  return std::isfinite(precision) ? std::min(decimals_for(precision), decimals_for(largest / 50)) : decimals_for(largest / 10);
}
inline std::string interval_text(const figure& f, int decimals) {
  return has_interval(f) ? "[" + number(*f.low, decimals) + ", " + number(*f.high, decimals) + "]" : "";
}

// Axes.

struct axis {
  axis_scale scale = axis_scale::linear;
  double low = 0, high = 1;
  std::vector<double> ticks{};
  int decimals = 0;

  /// Whether a value has a place on an axis of this scale; beyond 1e300 differences would overflow.
  static bool draws(axis_scale s, double v) {
    return std::isfinite(v) && std::abs(v) <= 1e300 && (s == axis_scale::linear || v >= 1e-300);
  }
  bool draws(double v) const { return draws(scale, v); }
  /// 0 at the low end, 1 at the high end.
  double position(double v) const { return (measure(v) - measure(low)) / (measure(high) - measure(low)); }
  std::string text(double tick) const {
    return scale == axis_scale::linear ? number(tick, decimals)
           : tick >= 1 && tick < 1e7   ? number(tick, 0)
                                       : compact(tick);
  }

 private:
  double measure(double v) const {
    return scale == axis_scale::linear ? v : scale == axis_scale::log2 ? std::log2(v) : std::log10(v);
  }
};

/// About `wanted` ticks at 1, 2 or 5 times a power of ten, or at powers of the base. A linear axis ends at the data if
/// snug, else no farther than the next tick.
inline axis make_axis(axis_scale scale, const std::vector<double>& values, int wanted, bool snug) {
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (const double v : values)
    if (axis::draws(scale, v)) least = std::min(least, v), most = std::max(most, v);
  axis a{.scale = scale};
  if (scale != axis_scale::linear) {
    if (least > most) least = 1, most = 10;
    const double base = scale == axis_scale::log2 ? 2 : 10, unit = std::log2(base);
    double from = std::floor(std::log2(least) / unit + 1e-9), to = std::ceil(std::log2(most) / unit - 1e-9);
    if (to <= from) --from, ++to;
    const bool fine = base > 2 && to - from <= 2;
    for (double e = from, step = std::ceil((to - from) / wanted); e <= to; e += step) {
      const double power = std::pow(base, e);
      a.ticks.push_back(power);
      if (fine && e < to) a.ticks.insert(a.ticks.end(), {2 * power, 5 * power});
    }
    a.low = std::pow(base, from), a.high = std::pow(base, to);
    if (fine && least < most) {
      while (a.ticks[1] <= least) a.ticks.erase(a.ticks.begin());
      while (a.ticks.end()[-2] >= most) a.ticks.pop_back();
      a.low = a.ticks.front(), a.high = a.ticks.back();
    }
    return a;
  }
  if (least > most) least = 0, most = 1;
  const double size = std::max(std::abs(least), std::abs(most));
  if (size < 1e-290) {
    least = -1, most = 1;
  } else if (most - least < 1e-9 * size) {
    least -= 0.1 * size, most += 0.1 * size;
  }
  const double rough = (most - least) / wanted, power = std::pow(10, std::floor(std::log10(rough)));
  const double times = rough / power - 1e-6, step = power * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
  a.decimals = -static_cast<int>(std::floor(std::log10(step) + 1e-9));
  const double margin = snug ? 0 : 0.07 * (most - least);
  a.low = std::max(least - margin, std::floor(least / step + 1e-9) * step);
  a.high = std::min(most + margin, std::ceil(most / step - 1e-9) * step);
  for (double k = std::ceil(a.low / step - 1e-9); k <= a.high / step + 1e-9; ++k) a.ticks.push_back(k * step);
  return a;
}

// SVG.

inline void put_one(std::string& out, std::string_view text) { out += text; }
inline void put_one(std::string& out, double coordinate) { out += digits_of(coordinate, std::chars_format::fixed, 1); }
template <class... T>
void put(std::string& out, const T&... parts) {
  (put_one(out, parts), ...);
}

/// Colours and marks, told apart by shape and dash too; then they come again.
inline constexpr std::size_t style_count = 6;
inline std::string style_class(std::size_t series) { return {'s', static_cast<char>('0' + series % style_count)}; }

inline std::string mark(std::size_t series, double x, double y, const char* kind = "mark") {
  std::string out;
  const auto shape = [&](std::initializer_list<std::array<double, 2>> corners) {
    const char* go = "M";
    for (const auto& c : corners) put(out, go, x + c[0], " ", y + c[1]), go = "L";
  };
  put(out, "<path class=\"", kind, "\" d=\"");
  switch (series % style_count) {
    case 0:
      put(out, "M", x - 4.2, " ", y, "a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0");
      break;
    case 1:
      shape({{-3.8, -3.8}, {3.8, -3.8}, {3.8, 3.8}, {-3.8, 3.8}});
      break;
    case 2:
      shape({{0, -5.2}, {5, 3.8}, {-5, 3.8}});
      break;
    case 3:
      shape({{0, -5.4}, {5.4, 0}, {0, 5.4}, {-5.4, 0}});
      break;
    case 4:
      shape({{0, 5.2}, {5, -3.8}, {-5, -3.8}});
      break;
    default:
      shape({{-5.4, -2.8}, {5.4, -2.8}, {5.4, 2.8}, {-5.4, 2.8}});
  }
  return out + "Z\"/>";
}
inline std::string text_at(double x, double y, std::string_view text, const char* kind) {
  std::string out;
  put(out, "<text x=\"", x, "\" y=\"", y, "\" class=\"", kind, "\">", escape(text), "</text>");
  return out;
}
inline std::string line_from(double x0, double y0, double x1, double y1, const char* kind) {
  std::string out;
  put(out, "<path class=\"", kind, "\" d=\"M", x0, " ", y0, "L", x1, " ", y1, "\"/>");
  return out;
}
inline std::string open_svg(double width, double height, bool wide, const std::string& id, const std::string& title,
                            const std::string& description) {
  const std::string own = id + (wide ? "w" : "n");
  std::string out;
  put(out, "<svg class=\"", wide ? "wide" : "narrow", "\" role=\"img\" aria-labelledby=\"t", own,
      "\" aria-describedby=\"d", own, "\" viewBox=\"0 0 ", width, " ", height, "\"><title id=\"t", own, "\">",
      escape(title), "</title><desc id=\"d", own, "\">", escape(description), "</desc>\n");
  return out;
}
/// The ticks of a horizontal axis at height `y`; as many as have room.
inline std::string ticks_below(const axis& a, double left, double right, double y) {
  double widest = 1;
  for (const double t : a.ticks) widest = std::max(widest, width_of(a.text(t)) * 12 + 10);
  const double spacing = (right - left) / std::max(1.0, static_cast<double>(a.ticks.size()) - 1);
  const auto every = static_cast<std::size_t>(std::max(1.0, std::ceil(widest / std::max(spacing, 1.0))));
  std::string out;
  for (std::size_t i = 0; i < a.ticks.size(); i += every) {
    const double x = left + a.position(a.ticks[i]) * (right - left);
    out += line_from(x, y, x, y + 5, "axis") + text_at(x, y + 18, a.text(a.ticks[i]), "tick middle");
  }
  return out;
}

/// In words: where each series starts, ends and is highest.
inline std::string describe(const line_chart& c) {
  if (!c.description.empty()) return c.description;
  std::string text = "Line chart of " + (c.y_label.empty() ? "values" : c.y_label) + " over " +
                     (c.x_label.empty() ? "x" : c.x_label) + ".";
  for (const auto& s : c.series) {
    const chart_point *first = nullptr, *last = nullptr, *top = nullptr;
    for (const auto& p : s.points) {
      if (!axis::draws(c.x_scale, p.x) || !axis::draws(c.y_scale, p.y)) continue;
      if (!first) first = top = &p;
      last = &p;
      if (p.y > top->y) top = &p;
    }
    const auto place = [](const chart_point& p) { return compact(p.y) + " at " + compact(p.x); };
    text +=
        " " + s.name +
        (first ? ": from " + place(*first) + " to " + place(*last) + ", highest " + place(*top) + "." : ": no data.");
  }
  return text;
}

inline std::string draw(const line_chart& c, bool wide, const std::string& id) {
  constexpr double label_ems = 13;
  const double width = wide ? 720 : 350, top = c.y_label.empty() ? 14 : 34, letter = 13;
  std::vector<double> xs, ys;
  for (const auto& s : c.series)
    for (const auto& p : s.points) {
      if (!axis::draws(c.x_scale, p.x) || !axis::draws(c.y_scale, p.y)) continue;
      xs.push_back(p.x);
      ys.insert(ys.end(), {p.y, p.low, p.high});
    }
  const bool empty = xs.empty();
  const double bottom = empty ? top + 60 : wide ? 350 : 270;
  for (const auto& r : c.references) ys.push_back(r.y);
  axis x = make_axis(c.x_scale, xs, wide ? 9 : 6, true), y = make_axis(c.y_scale, ys, 5, false);
  if (empty) x.ticks.clear(), y.ticks.clear();
  double left = 0, beside = 0;
  for (const double t : y.ticks) left = std::max(left, width_of(y.text(t)) * 12 + 10);
  for (const auto& s : c.series)
    for (const auto& l : wrap(s.name, label_ems)) beside = std::max(beside, width_of(l) * letter + 26);
  const double right = width - (wide ? beside : 0) - 12;
  left += 6;  // a mark's half
  const auto px = [&](double v) { return left + x.position(v) * (right - left); };
  const auto py = [&](double v) { return bottom - y.position(v) * (bottom - top); };

  std::string out = open_svg(width, bottom + (c.x_label.empty() ? 26 : 46), wide, id, c.title, describe(c));
  if (!c.y_label.empty()) out += text_at(0, 14, c.y_label, "label");
  for (const double t : y.ticks)
    out += line_from(left - 6, py(t), right, py(t), "grid") + text_at(left - 12, py(t) + 4, y.text(t), "tick end");
  out += line_from(left - 6, bottom, right, bottom, "axis") + ticks_below(x, left, right, bottom);
  if (!c.x_label.empty()) out += text_at((left + right) / 2, bottom + 40, c.x_label, "label middle");
  if (empty) out += text_at((left + right) / 2, (top + bottom) / 2, "no data", "label middle");
  std::string levels;
  for (const auto& r : c.references) {
    if (!y.draws(r.y)) continue;
    // The label goes to that corner of the line that is farthest from any point.
    const double half = width_of(r.label) * 6;
    double room = -1, at_x = left, at_y = py(r.y) - 6;
    for (const double middle : {right - half, left + half})
      for (const double height : {py(r.y) - 6, py(r.y) + 15}) {
        double nearest = height < top || height > bottom ? 0 : 1e9;
        for (const auto& s : c.series)
          for (const auto& p : s.points)
            if (x.draws(p.x) && y.draws(p.y))
              nearest =
                  std::min(nearest, std::max(0.0, std::abs(px(p.x) - middle) - half) + std::abs(py(p.y) - height + 4));
        if (nearest > room) room = nearest, at_x = middle, at_y = height;
      }
    out += line_from(left - 6, py(r.y), right, py(r.y), "reference");
    levels += text_at(at_x, at_y, r.label, "tick middle halo");
  }

  std::string bands, lines;                   // bands lie below all lines
  std::vector<std::array<double, 2>> labels;  // height of the last point, series
  for (std::size_t k = 0; k < c.series.size(); ++k) {
    const auto& points = c.series[k].points;
    const auto drawn = [&](const chart_point& p) { return x.draws(p.x) && y.draws(p.y); };
    const auto bounded = [&](const chart_point& p) { return drawn(p) && y.draws(p.low) && y.draws(p.high); };
    const std::string group = "<g class=\"" + style_class(k) + "\">";
    std::string path, marks, own;
    for (std::size_t i = 0; i < points.size(); ++i) {
      const auto& p = points[i];
      if (!drawn(p)) continue;
      put(path, i > 0 && drawn(points[i - 1]) ? "L" : "M", px(p.x), " ", py(p.y));
      put(marks, "<g><title>", escape(c.series[k].name), ": ", compact(p.y));
      if (bounded(p)) put(marks, " [", compact(p.low), ", ", compact(p.high), "]");
      put(marks, " at ", compact(p.x), p.name.empty() ? "" : ", ", escape(p.name), "</title>", mark(k, px(p.x), py(p.y)), "</g>\n");
    }
    for (std::size_t i = 0; i < points.size();) {
      std::size_t end = i;
      while (end < points.size() && bounded(points[end])) ++end;
      if (end == i + 1) {
        own += line_from(px(points[i].x), py(points[i].low), px(points[i].x), py(points[i].high), "whisker");
      } else if (end > i) {
        const char* go = "<path class=\"band\" d=\"M";
        for (std::size_t j = i; j < end; ++j) put(own, go, px(points[j].x), " ", py(points[j].low)), go = "L";
        for (std::size_t j = end; j-- > i;) put(own, go, px(points[j].x), " ", py(points[j].high));
        own += "Z\"/>";
      }
      i = std::max(end, i + 1);
    }
    if (!own.empty()) bands += group + own + "</g>\n";
    if (path.empty()) continue;
    put(lines, group, "<path class=\"line\" d=\"", path, "\"/>", marks, "</g>\n");
    const auto last = std::find_if(points.rbegin(), points.rend(), drawn);
    labels.push_back({py(last->y), static_cast<double>(k)});
  }
  out += bands + lines + levels;
  if (!wide) return out + "</svg>\n";

  // Names beside the lines' ends, moved apart where they would touch.
  std::sort(labels.begin(), labels.end());
  double next = top;
  for (auto& l : labels) {
    const double lines_of = static_cast<double>(wrap(c.series[static_cast<std::size_t>(l[1])].name, label_ems).size());
    l[0] = std::max(l[0], next);
    next = l[0] + lines_of * 16 + 3;
  }
  const double over = std::max(0.0, std::min(next - 19 - bottom, next - 19 - top));
  for (const auto& l : labels) {
    const auto k = static_cast<std::size_t>(l[1]);
    put(out, "<g class=\"", style_class(k), "\">", mark(k, right + 16, l[0] - over));
    double line = l[0] - over + 4.5;
    for (const auto& part : wrap(c.series[k].name, label_ems))
      out += text_at(right + 26, line, part, "name"), line += 16;
    out += "</g>\n";
  }
  return out + "</svg>\n";
}

/// Names of the series for screens too narrow for names beside the lines.
inline std::string legend(const line_chart& c) {
  std::string out = "<ul class=\"legend narrow\">";
  for (std::size_t k = 0; k < c.series.size(); ++k)
    put(out, "<li class=\"", style_class(k), "\"><svg aria-hidden=\"true\" viewBox=\"0 0 32 14\">",
        line_from(0, 7, 32, 7, "line"), mark(k, 16, 7), "</svg> ", escape(c.series[k].name), "</li>");
  return out + "</ul>\n";
}

/// The words that a reader knows it by; its own name where there are none.
inline const std::string& label_of(const figure& f) { return f.label.empty() ? f.name : f.label; }
inline std::vector<figure> shown_figures(const std::vector<figure>& rows) {
  std::vector<figure> all;
  for (const auto& f : rows) all.push_back(as_shown(f));
  return all;
}

/// All that an axis for these figures has to hold.
inline std::vector<double> extents(const std::vector<figure>& all, const std::string& unit) {
  std::vector<double> values;
  for (const auto& f : all)
    if (f.unit == unit)
      values.insert(values.end(), {f.value, f.low.value_or(missing_value), f.high.value_or(missing_value)});
  return values;
}

inline std::string describe(const forest_plot& c) {
  if (!c.description.empty()) return c.description;
  const auto all = shown_figures(c.rows);
  std::string text = "Figures with 95 % intervals.";
  for (std::size_t i = 0; i < all.size(); ++i) {
    const int decimals = decimals_of(all, all[i].unit);
    text += " " + label_of(c.rows[i]) + ": " + number(all[i].value, decimals) + " " + interval_text(all[i], decimals) +
            " " + all[i].unit + ".";
  }
  return text;
}

inline std::string draw(const forest_plot& c, bool wide, const std::string& id) {
  const double width = wide ? 720 : 350, left = wide ? 216 : 8, right = wide ? 560 : 342,
               top = c.reference_label.empty() ? 6 : 24, letter = 13;
  const auto all = shown_figures(c.rows);
  const std::string unit = all.empty() ? "" : all.front().unit;
  const double level = !c.reference ? missing_value : unit == "%" ? 100 * *c.reference : *c.reference;
  std::vector<double> values = extents(all, unit);
  values.push_back(level);
  const axis x = make_axis(axis_scale::linear, values, wide ? 6 : 5, false);
  const auto px = [&](double v) { return left + x.position(v) * (right - left); };

  std::string rows;
  double y = top;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& f = all[i];
    const int decimals = decimals_of(all, unit);
    const auto lines = wrap(label_of(c.rows[i]), (wide ? left - 14 : width - 140) / letter);
    const double height = static_cast<double>(lines.size()) * 17, middle = wide ? y + 8 + height / 2 : y + 12 + height;
    double line = wide ? y + 20.5 : y + 16;
    for (const auto& part : lines) rows += text_at(0, line, part, "row halo"), line += 17;
    rows += text_at(width, wide ? middle + 4.5 : y + 16, number(f.value, decimals) + " " + interval_text(f, decimals),
                    "tick end halo");
    rows += "<g class=\"s0\">";
    const bool bounded = has_interval(f) && x.draws(*f.low) && x.draws(*f.high);
    if (bounded) rows += line_from(px(*f.low), middle, px(*f.high), middle, "whisker");
    const bool undecided = bounded && std::isfinite(level) && *f.low <= level && level <= *f.high;
    if (x.draws(f.value)) rows += mark(0, px(f.value), middle, undecided ? "mark hollow" : "mark");
    rows += "</g>\n";
    y = wide ? y + height + 16 : middle + 14;
  }
  if (all.empty()) rows = text_at((left + right) / 2, y += 20, "no data", "label middle");
  const double bottom = y + 4;
  std::string out = open_svg(width, bottom + (c.x_label.empty() ? 26 : 46), wide, id, c.title, describe(c));
  for (const double t : x.ticks) out += line_from(px(t), top, px(t), bottom, "grid");
  out += line_from(left, bottom, right, bottom, "axis") + ticks_below(x, left, right, bottom);
  if (!c.x_label.empty()) out += text_at((left + right) / 2, bottom + 40, c.x_label, "label middle");
  if (x.draws(level)) {
    const double at = px(level), share = x.position(level);
    out += line_from(at, top - 4, at, bottom, "reference");
    if (!c.reference_label.empty())
      out += text_at(at, 14, c.reference_label, share < 0.25 ? "tick" : share > 0.75 ? "tick end" : "tick middle");
  }
  return out + rows + "</svg>\n";
}

/// A figure's interval as a small bar on the scale of its unit's figures; the numbers stand beside it.
inline std::string small_bar(const figure& f, const std::vector<figure>& all) {
  const axis x = make_axis(axis_scale::linear, extents(all, f.unit), 5, true);
  const auto px = [&](double v) { return 7 + 106 * x.position(v); };
  std::string out =
      "<svg class=\"bar s0\" aria-hidden=\"true\" viewBox=\"0 0 120 16\">" + line_from(2, 8, 118, 8, "grid");
  if (has_interval(f) && x.draws(*f.low) && x.draws(*f.high))
    out += line_from(px(*f.low), 8, px(*f.high), 8, "whisker");
  if (x.draws(f.value)) out += mark(0, px(f.value), 8);
  return out + "</svg>";
}

}  // namespace markup
}  // namespace lab

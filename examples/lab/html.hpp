#pragma once
// The report as one page of HTML that needs nothing else: no network, no file beside it, no script. Whatever text is
// put in is escaped, and should that fail, the page's own policy still lets no script run and nothing load. The markup
// is well-formed XML too.

#include "chart.hpp"

#include <utility>

namespace lab {

struct text_column {
  std::string name{};
  bool numeric = false;
};
/// Any table of text.
struct text_table {
  std::string caption{};
  std::vector<text_column> columns{};
  std::vector<std::vector<std::string>> rows{};
};
struct figure_table {
  std::string caption{};
  std::vector<figure> rows{};
  bool bars = true;  ///< beside each number its interval, drawn on the scale of its unit's figures
};
using text_pairs = std::vector<std::pair<std::string, std::string>>;

namespace markup {

// No '<' and no '&' in here, so that the page stays XML. Colours of letters and lines have a contrast of at least 4.5
// on their grounds, and differ for colour-blind readers (after Okabe and Ito 2008, darker or lighter for contrast).
inline constexpr const char* style = R"(
:root { color-scheme: light dark; --ground: #fdfcf9; --raised: #f3f1ea; --ink: #1c1f23; --soft: #5a6068;
  --rule: #d9d5ca; --accent: #0069a8;
  --c0: #0069a8; --c1: #b84a00; --c2: #00775a; --c3: #a3307a; --c4: #6b5a00; --c5: #4a4f57; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --raised: #1d2126; --ink: #e7e9ec; --soft: #a4abb3; --rule: #363c44; --accent: #5cb3f2;
    --c0: #5cb3f2; --c1: #ff9d4d; --c2: #3ecfa0; --c3: #f08cc8; --c4: #d9c14a; --c5: #b9c0c8; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: break-word;
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "Liberation Serif", serif; }
header, nav, main { max-width: 47rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2.5rem; } main { padding-bottom: 4rem; }
h1 { font-size: clamp(1.9rem, 6vw, 2.7rem); line-height: 1.15; letter-spacing: -.01em; margin: 0; }
h2 { font-size: 1.55rem; line-height: 1.25; margin: 3.2rem 0 .8rem; padding-top: .7rem;
  border-top: 3px solid var(--ink); }
h3 { font-size: 1.2rem; line-height: 1.3; margin: 2.2rem 0 .6rem; }
h2 a, h3 a { color: inherit; text-decoration: none; }
h2 a:hover, h3 a:hover { text-decoration: underline; text-decoration-thickness: 2px; }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.subtitle { color: var(--soft); font-size: 1.2rem; line-height: 1.45; margin: .7rem 0 0; }
p { margin: 0 0 1rem; }
nav, .number, .range, table, figure, figcaption, .legend, .by, .reasons, .score, .asked b, dt, summary {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
nav { font-size: .95rem; margin-top: 1.5rem; }
nav ol { list-style: none; margin: 0; padding: .6rem 0; display: flex; flex-wrap: wrap; gap: .1rem 1.4rem;
  border-top: 1px solid var(--rule); border-bottom: 1px solid var(--rule); }
nav a { display: inline-block; padding: .25rem 0; }
.highlights { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1.2rem 1.6rem;
  margin: 1.6rem 0; }
.highlights div { border-top: 3px solid var(--accent); padding-top: .5rem; display: flex; flex-direction: column; }
.highlights dt { order: 2; font-size: .9rem; line-height: 1.4; }
.highlights dd { margin: 0; }
.number { font-size: 2rem; font-weight: 700; line-height: 1.2; font-variant-numeric: tabular-nums; }
.highlights .range { order: 3; font-size: .85rem; color: var(--soft); }
.range span { white-space: nowrap; }
.notes, .settings { margin: 1.2rem 0 1.6rem; }
.notes { background: var(--raised); border-left: 4px solid var(--accent); padding: .9rem 1.1rem; font-size: 1rem; }
.notes dt { font-weight: 700; font-size: .9rem; }
.notes dd { margin: 0 0 .7rem; } .notes dd:last-child { margin: 0; }
.settings { display: grid; grid-template-columns: minmax(7rem, max-content) minmax(0, 1fr); gap: 0 1.4rem;
  font-size: .95rem; }
.settings dt, .settings dd { margin: 0; padding: .3rem 0; border-bottom: 1px solid var(--rule); }
.settings dt { color: var(--soft); }
.settings dd, code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: .9em; }
pre { overflow-x: auto; background: var(--raised); padding: .8rem 1rem; margin: 0 0 1.2rem; line-height: 1.5;
  border-radius: 4px; }
figure { margin: 1.8rem 0 2rem; }
figcaption, caption { font-weight: 700; text-align: left; line-height: 1.4; margin-bottom: .5rem; font-size: 1rem; }
caption { padding-bottom: .5rem; margin: 0; }
caption span { display: block; position: sticky; left: 0; max-width: calc(100vw - 2rem); }
.hint { font-weight: 400; font-size: .875rem; color: var(--soft); display: block; }
.scroll { overflow-x: auto; margin: 1.4rem 0 1.8rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .55rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
thead th, thead td { border-bottom: 2px solid var(--ink); }
thead th { font-weight: 600; font-size: .82rem; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 8.5rem; }
.num { text-align: right; white-space: nowrap; }
td.strong { font-weight: 700; }
details { margin: .6rem 0 0; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; padding: .3rem 0; }
svg { display: block; overflow: visible; font-family: inherit; }
svg.wide, svg.narrow { width: 100%; height: auto; }
svg.narrow { max-width: 30rem; }
svg.bar { width: 7.5rem; height: 1rem; margin-top: .12rem; }
.narrow { display: none; }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); }
.s4 { --c: var(--c4); } .s5 { --c: var(--c5); }
.line, .whisker { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; }
.s1 .line { stroke-dasharray: 8 4; } .s2 .line { stroke-dasharray: 2.5 3.5; }
.s3 .line { stroke-dasharray: 10 3 2 3; }
.s4 .line { stroke-dasharray: 5 2; } .s5 .line { stroke-dasharray: 1 3; }
.mark { fill: var(--c); stroke: var(--ground); stroke-width: 1.2; }
.hollow { fill: var(--ground); stroke: var(--c); stroke-width: 2; }
.band { fill: var(--c); opacity: .15; }
.grid { stroke: var(--rule); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1.2; }
.reference { stroke: var(--ink); stroke-width: 1.3; stroke-dasharray: 5 4; fill: none; }
.tick, .label, .row, .name { font-size: 13px; fill: var(--ink); }
.tick { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.name { fill: var(--c); font-weight: 600; } .middle { text-anchor: middle; } .end { text-anchor: end; }
.halo { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; stroke-linejoin: round; }
.legend { list-style: none; padding: 0; margin: .3rem 0 .6rem; font-size: .875rem; flex-wrap: wrap;
  gap: .2rem 1.1rem; }
.legend li { display: flex; align-items: center; gap: .45rem; } .legend svg { width: 32px; height: 14px; flex: none; }
.card { border: 1px solid var(--rule); border-radius: 6px; margin: 1.2rem 0; overflow: hidden; }
.asked { background: var(--raised); margin: 0; padding: .8rem 1rem; font-size: 1rem; }
.asked b { display: block; font-size: .78rem; color: var(--soft); font-weight: 600; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.replies { display: flex; flex-wrap: wrap; gap: 1px; background: var(--rule); border-top: 1px solid var(--rule); }
.reply { flex: 1 1 13.5rem; background: var(--ground); padding: .8rem 1rem; min-width: 0; }
.by { font-size: .9rem; margin: 0 0 .3rem; display: flex; justify-content: space-between; gap: 1rem;
  align-items: baseline; }
.score { font-variant-numeric: tabular-nums; white-space: nowrap; color: var(--soft); }
.score b { color: var(--ink); font-size: 1.05rem; }
.meter { width: 100%; height: 5px; margin: 0 0 .6rem; } .meter rect { fill: var(--rule); }
.meter rect + rect { fill: var(--accent); }
.reasons { font-size: .85rem; line-height: 1.45; color: var(--soft); margin: .6rem 0 0; white-space: pre-line;
  overflow-wrap: anywhere; }
.long { max-height: 18rem; overflow-y: auto; border-bottom: 1px dashed var(--soft); }
@media (max-width: 40rem) {
  .wide { display: none; } svg.narrow { display: block; } .legend.narrow { display: flex; }
  header { padding-top: 1.6rem; } h2 { margin-top: 2.6rem; } .optional { display: none; }
  table { font-size: .84rem; } th, td { padding: .4rem .3rem; } tbody th { min-width: 5.5rem; }
  h2 { font-size: 1.4rem; }
  .settings { grid-template-columns: minmax(0, 1fr); } .settings dt { border: 0; padding-bottom: 0; }
  .settings dd { padding-top: 0; }
}
@media print {
  body { font-size: 10.5pt; } nav, details { display: none; } .long { max-height: none; }
  pre { white-space: pre-wrap; }
  h2, h3, figcaption { break-after: avoid; } figure, .card, tr { break-inside: avoid; } .scroll { overflow: visible; }
}
)";

}  // namespace markup

/// Put the parts in, in the order of reading; html() is the whole page. Every string is plain text.
class page {
 public:
  explicit page(std::string title, std::string subtitle = "", std::string language = "en")
      : title_(std::move(title)), subtitle_(std::move(subtitle)), language_(std::move(language)) {}

  /// A heading that the table of contents lists.
  page& section(const std::string& heading) {
    contents_.push_back({add_heading("h2", heading), heading});
    return *this;
  }
  page& subsection(const std::string& heading) {
    add_heading("h3", heading);
    return *this;
  }
  page& text(const std::string& paragraph) { return add("<p>", markup::escape(paragraph), "</p>\n"); }
  /// A drawing of the caller's own: a whole `<svg>` or `<figure>`, escaped by him.
  page& drawing(const std::string& svg) { return add(svg); }
  /// What the reader should know of what stands above: {"What this shows", "..."}, {"What it does not show", "..."}.
  page& notes(const text_pairs& pairs) { return add_pairs("notes", pairs); }
  page& settings(const text_pairs& pairs) { return add_pairs("settings", pairs); }
  /// A command to be copied.
  page& code(const std::string& command) {
    return add("<pre tabindex=\"0\" role=\"group\" aria-label=\"Command ", std::to_string(++codes_), "\"><code>",
               markup::escape(command), "</code></pre>\n");
  }

  /// The few numbers to remember, large.
  page& highlights(const std::vector<figure>& rows) {
    add("<dl class=\"highlights\">\n");
    for (const auto& r : rows) {
      const figure f = markup::as_shown(r);
      const int decimals = markup::decimals_of({f}, f.unit);
      add("<div><dt>", markup::escape(markup::label_of(r)), "</dt><dd class=\"number\">",
          markup::number(f.value, decimals), f.unit == "%" ? " %" : "", "</dd><dd class=\"range\">");
      if (markup::has_interval(f)) add(markup::interval_text(f, decimals), " ");
      if (f.unit != "%") add(markup::escape(f.unit), " ");
      if (f.n > 0) add("<span>n = ", markup::count(f.n), "</span>");
      add("</dd></div>\n");
    }
    return add("</dl>\n");
  }

  /// Shares appear in percent; figures of one unit with as many decimals as the narrowest interval tells.
  page& figures(const figure_table& t) {
    if (t.rows.empty()) return *this;
    open_table(t.caption);
    add("<thead><tr><th scope=\"col\">Figure</th><th scope=\"col\" class=\"num\">Value</th>",
        "<th scope=\"col\" class=\"num\">95 % interval</th>");
    if (t.bars) add("<td class=\"optional\"></td>");
    add("<th scope=\"col\" class=\"num optional\">Cases</th><th scope=\"col\">Unit</th></tr></thead>\n<tbody>\n");
    const auto all = markup::shown_figures(t.rows);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto& f = all[i];
      const int decimals = markup::decimals_of(all, f.unit);
      add("<tr><th scope=\"row\">", markup::escape(markup::label_of(t.rows[i])), "</th><td class=\"num strong\">",
          markup::number(f.value, decimals), "</td><td class=\"num\">",
          markup::has_interval(f) ? markup::interval_text(f, decimals) : markup::not_available, "</td>");
      if (t.bars) add("<td class=\"optional\">", markup::small_bar(f, all), "</td>");
      add("<td class=\"num optional\">", f.n == 0 ? markup::not_available : markup::count(f.n), "</td><td>",
          markup::escape(f.unit), "</td></tr>\n");
    }
    return add("</tbody></table></div>\n");
  }
  page& table(const text_table& t) {
    if (t.rows.empty()) return *this;
    open_table(t.caption);
    add("<thead><tr>");
    for (const auto& c : t.columns)
      add("<th scope=\"col\"", c.numeric ? " class=\"num\">" : ">", markup::escape(c.name), "</th>");
    add("</tr></thead>\n<tbody>\n");
    for (const auto& row : t.rows) {
      add("<tr>");
      for (std::size_t k = 0; k < row.size(); ++k)
        add(k < t.columns.size() && t.columns[k].numeric ? "<td class=\"num\">" : "<td>", markup::escape(row[k]),
            "</td>");
      add("</tr>\n");
    }
    return add("</tbody></table></div>\n");
  }

  /// The chart, what it shows in words, and its numbers as a table that unfolds.
  page& chart(const line_chart& c) {
    const std::string id = std::to_string(++charts_);
    add("<figure><figcaption>", markup::escape(c.title), "<span class=\"hint\">", hint(c), "</span></figcaption>\n",
        markup::legend(c), markup::draw(c, true, id), markup::draw(c, false, id));
    text_table data{.caption = c.title,
                    .columns = {{"Series"},
                                {c.x_label.empty() ? "x" : c.x_label, true},
                                {c.y_label.empty() ? "y" : c.y_label, true},
                                {"Low", true},
                                {"High", true}}};
    for (const auto& s : c.series)
      for (const auto& p : s.points)
        data.rows.push_back({p.name.empty() ? s.name : s.name + ", " + p.name, markup::compact(p.x),
                             markup::compact(p.y), markup::compact(p.low), markup::compact(p.high)});
    for (const auto& r : c.references)
      data.rows.push_back({r.label, "all", markup::compact(r.y), markup::not_available, markup::not_available});
    if (data.rows.empty()) return add("</figure>\n");
    add("<details><summary>The numbers of this chart</summary>\n");
    return table(data).add("</details></figure>\n");
  }
  page& forest(const forest_plot& c) {
    const std::string id = std::to_string(++charts_);
    add("<figure><figcaption>", markup::escape(c.title), "<span class=\"hint\">",
        std::any_of(c.rows.begin(), c.rows.end(), markup::has_interval) ? "Dots with 95 % intervals" : "Dots",
        c.reference && std::any_of(c.rows.begin(), c.rows.end(), markup::has_interval) ? "; a hollow dot's interval contains the reference line" : "", ".</span></figcaption>\n",
        markup::draw(c, true, id), markup::draw(c, false, id));
    if (c.rows.empty()) return add("</figure>\n");
    add("<details><summary>The numbers of this chart</summary>\n");
    return figures({.caption = c.title, .rows = c.rows, .bars = false}).add("</details></figure>\n");
  }

  /// A prompt and its replies, side by side where there is room; scores go from 0 to `best_score`. Replies without a
  /// score show none.
  page& replies(const example& c, double best_score = 4) {
    const std::string name = "Prompt " + std::to_string(++prompts_);
    add("<div class=\"card\"><div class=\"asked\"><b>", name, "</b>", said(c.prompt, name),
        "</div>\n<div class=\"replies\">\n");
    for (const auto& r : c.replies) {
      add("<div class=\"reply\"><p class=\"by\"><b>", markup::escape(r.by), "</b>");
      if (r.score)
        add("<span class=\"score\"><b>", markup::number(*r.score, 2), "</b>",
            std::isfinite(*r.score) ? " of " + markup::compact(best_score) : "", "</span>");
      add("</p>\n");
      if (r.score && std::isfinite(*r.score) && best_score > 0)
        add("<svg class=\"meter\" aria-hidden=\"true\" viewBox=\"0 0 100 5\" preserveAspectRatio=\"none\">"
            "<rect width=\"100\" height=\"5\"/><rect width=\"",
            markup::digits_of(100 * std::clamp(*r.score / best_score, 0.0, 1.0), std::chars_format::fixed, 1),
            "\" height=\"5\"/></svg>\n");
      add(said(r.text, name + ", reply of " + r.by));
      if (!r.reasons.empty()) add("<p class=\"reasons\"><b>Judge:</b> ", markup::escape(r.reasons), "</p>");
      add("</div>\n");
    }
    return add("</div></div>\n");
  }

  std::string html() const {
    std::string out;
    const std::string title = markup::escape(title_);
    markup::put(out, "<!DOCTYPE html>\n<html lang=\"", markup::escape(language_),
                "\">\n<head>\n<meta charset=\"utf-8\"/>\n",
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
                "img-src data:; base-uri 'none'; form-action 'none'\"/>\n",
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
                "<link rel=\"icon\" href=\"data:,\"/>\n<title>", title, "</title>\n<style>", markup::style,
                "</style>\n</head>\n<body>\n<header><h1>", title, "</h1>\n");
    if (!subtitle_.empty()) markup::put(out, "<p class=\"subtitle\">", markup::escape(subtitle_), "</p>\n");
    out += "</header>\n";
    if (!contents_.empty()) {
      out += "<nav aria-label=\"Contents\"><ol>\n";
      for (const auto& [id, heading] : contents_)
        markup::put(out, "<li><a href=\"#", id, "\">", markup::escape(heading), "</a></li>\n");
      out += "</ol></nav>\n";
    }
    markup::put(out, "<main>\n", body_, "</main>\n</body>\n</html>\n");
    return out;
  }

 private:
  template <class... T>
  page& add(const T&... parts) {
    markup::put(body_, parts...);
    return *this;
  }

  /// Returns the anchor: lower-case letters and digits of the heading, and a number where there is one of that name.
  std::string add_heading(const char* level, const std::string& heading) {
    std::string id;
    for (const char c : heading) {
      const bool upper = c >= 'A' && c <= 'Z', plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
      if (upper || plain) {
        id += static_cast<char>(upper ? c - 'A' + 'a' : c);
      } else if (!id.empty() && id.back() != '-') {
        id += '-';
      }
    }
    id = "on-" + id;  // never the id of anything else
    if (id.back() == '-') id.pop_back();
    const std::string plain = id;
    for (int again = 2; std::find(anchors_.begin(), anchors_.end(), id) != anchors_.end(); ++again)
      id = plain + "-" + std::to_string(again);
    anchors_.push_back(id);
    add("<", level, " id=\"", id, "\"><a href=\"#", id, "\">", markup::escape(heading), "</a></", level, ">\n");
    return id;
  }
  page& add_pairs(const char* kind, const text_pairs& pairs) {
    if (pairs.empty()) return *this;
    add("<dl class=\"", kind, "\">\n");
    for (const auto& [name, what] : pairs)
      add("<dt>", markup::escape(name), "</dt><dd>", markup::escape(what), "</dd>\n");
    return add("</dl>\n");
  }
  /// Wide tables scroll by themselves, by keyboard too.
  void open_table(const std::string& caption) {
    const std::string id = "caption" + std::to_string(++tables_);
    add("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"", id, "\"><table><caption id=\"", id,
        "\"><span>", markup::escape(caption.empty() ? "Table" : caption), "</span></caption>\n");
  }
  /// Foreign text: keeps its line breaks, and its writing direction to itself; scrolls where it is long.
  static std::string said(const std::string& text, const std::string& name) {
    const bool is_long = text.size() > 900;
    const std::string scrolls = " long\" tabindex=\"0\" role=\"group\" aria-label=\"" + markup::escape(name);
    return "<div class=\"said" + (is_long ? scrolls : "") + "\" dir=\"auto\">" +
           (text.empty() ? "(nothing)" : markup::escape(text)) + "</div>\n";
  }
  static const char* hint(const line_chart& c) {
    for (const auto& s : c.series)
      for (const auto& p : s.points)
        if (std::isfinite(p.low) && std::isfinite(p.high)) return "Lines with 95 % intervals, shaded.";
    return "";
  }

  std::string title_, subtitle_, language_, body_{};
  std::vector<std::pair<std::string, std::string>> contents_{};
  std::vector<std::string> anchors_{};
  std::size_t charts_ = 0, tables_ = 0, codes_ = 0, prompts_ = 0;
};

}  // namespace lab

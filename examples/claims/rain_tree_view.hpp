#pragma once
// One search of RAIN as a drawing: its nodes below each other, each indented under its parent, what was committed along a thick line.

#include "rain_runs.hpp"

#include "lab/html.hpp"

namespace claims::clause {

namespace drawing {

inline constexpr double row_height = 22, indent = 17, width = 760;

/// A node's words; harmful ones are marked.
inline std::string words_of(int topic, const tokens& text) {
  std::string out;
  for (const token t : text) {
    const std::string word = lab::markup::escape(words()[static_cast<std::size_t>(t)]);
    if (!out.empty() && t != comma) out += ' ';
    out += is_harmful(topic, t) ? "<tspan class=\"s1 name\">" + word + "*</tspan>" : word;
  }
  return out.empty() ? "(the prompt)" : out;
}

struct row {
  const drawn_node* node = nullptr;
  std::size_t depth = 0, parent = 0;  ///< `parent`: its row
  std::string instead{};              ///< what is said where there is no node
};

/// The rows from a node on: children that were visited, by visits, the committed one last; how many were not.
inline void add_rows(const drawn_search& s, const std::map<std::int64_t, std::vector<const drawn_node*>>& children, const drawn_node& n,
                     std::size_t depth, std::size_t parent, std::vector<row>& rows) {
  const std::size_t own = rows.size();
  rows.push_back({&n, depth, parent});
  const auto found = children.find(n.id);
  if (found == children.end()) return;
  std::vector<const drawn_node*> seen;
  std::size_t unseen = 0;
  for (const drawn_node* c : found->second) c->evaluations > 0 ? seen.push_back(c) : void(++unseen);
  std::stable_sort(seen.begin(), seen.end(),
                   [](const drawn_node* a, const drawn_node* b) { return a->committed != b->committed ? b->committed : a->visits > b->visits; });
  const bool last_committed = !seen.empty() && seen.back()->committed;
  for (const drawn_node* c : seen) {
    if (unseen > 0 && c == seen.back() && last_committed) {
      rows.push_back({nullptr, depth + 1, own, std::to_string(unseen) + " never visited"});
      unseen = 0;
    }
    add_rows(s, children, *c, depth + 1, own, rows);
  }
  if (unseen > 0 && !seen.empty()) rows.push_back({nullptr, depth + 1, own, std::to_string(unseen) + " never visited"});
}

}  // namespace drawing

/// A figure of a page of HTML.
inline std::string draw(const drawn_search& s) {
  using namespace lab::markup;
  std::map<std::int64_t, std::vector<const drawn_node*>> children;
  for (const drawn_node& n : s.nodes)
    if (n.parent >= 0) children[n.parent].push_back(&n);
  std::vector<drawing::row> rows;
  if (!s.nodes.empty()) drawing::add_rows(s, children, s.nodes.front(), 0, 0, rows);
  std::size_t commits = 0, visited = 0;
  for (const drawn_node& n : s.nodes) commits += n.committed && n.parent >= 0, visited += n.evaluations > 0;

  const double top = 26, height = top + static_cast<double>(rows.size()) * drawing::row_height + 6;
  const auto x_of = [](std::size_t depth) { return 8 + static_cast<double>(depth) * drawing::indent; };
  const auto y_of = [&](std::size_t r) { return top + (static_cast<double>(r) + 0.5) * drawing::row_height; };
  std::string lines, thick, texts;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto& row = rows[r];
    const double x = x_of(row.depth), y = y_of(r);
    const bool committed = row.node != nullptr && row.node->committed;
    if (row.depth > 0) {
      const double from = x_of(row.depth - 1);
      std::string& to = committed ? thick : lines;
      put(to, "<path class=\"", committed ? "line" : "grid", "\" fill=\"none\" d=\"M", from, " ", y_of(row.parent), "L", from, " ", y, "L", x, " ", y,
          "\"/>");
    }
    if (row.node == nullptr) {
      texts += text_at(x + 9, y + 4, row.instead, "tick");
      continue;
    }
    const drawn_node& n = *row.node;
    put(texts, "<g class=\"s0\"><title>p ", compact(n.prior), ", n ", compact(n.visits), ", q ", compact(n.value), "</title>",
        mark(0, x, y, committed ? "mark" : "mark hollow"), "<text class=\"row\" x=\"", x + 9, "\" y=\"", y + 4.5, "\"",
        committed ? " font-weight=\"700\">" : ">", drawing::words_of(s.topic, n.text), "</text></g>");
    if (row.depth > 0) texts += text_at(628, y + 4.5, number(n.prior, 2), "tick end");
    texts += text_at(688, y + 4.5, number(n.visits, 1), "tick end") + text_at(drawing::width - 4, y + 4.5, number(n.value, 2), "tick end") + "\n";
  }
  const std::string title = "A search about " + std::string(words()[static_cast<std::size_t>(first_topic + s.topic)]);
  const std::string description = "A tree of " + std::to_string(s.nodes.size()) + " nodes, " + std::to_string(visited) + " of them visited in " +
                                  std::to_string(s.simulations) + " simulations, with " + std::to_string(commits) +
                                  " commits. What was committed: " + marked_text(s.topic, s.reply) + ".";
  std::string out =
      "<figure><figcaption>" + escape(title) +
      "<span class=\"hint\">Filled dots and the thick line: what was committed, as it was then. A harmful word has a star. p: prior, n: "
      "visits, q: mean score.</span></figcaption>\n<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"" +
      escape(title) + "\">";
  put(out, "<svg role=\"img\" aria-labelledby=\"tree-title\" aria-describedby=\"tree-text\" style=\"width: 100%; min-width: 44rem\" viewBox=\"0 0 ",
      drawing::width, " ", height, "\"><title id=\"tree-title\">", escape(title), "</title><desc id=\"tree-text\">", escape(description),
      "</desc>\n");
  out += text_at(628, 14, "p", "label end") + text_at(688, 14, "n", "label end") + text_at(drawing::width - 4, 14, "q", "label end");
  return out + lines + "<g class=\"s0\">" + thick + "</g>\n" + texts + "</svg></div></figure>\n";
}

}  // namespace claims::clause

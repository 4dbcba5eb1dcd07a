#pragma once
// One search of RAIN as a drawing: its nodes below each other, each indented under its parent, what was committed along a thick line.

#include "rain_runs.hpp"

#include "lab/html.hpp"

namespace claims::clause {

namespace drawing {

inline constexpr double row_height = 22, round_height = 34, indent = 17, width = 760;

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
  std::size_t round = 0;              ///< in which it left the tree, or was committed; 0: the prompt
  std::string instead{};              ///< what is said where there is no node
  bool begins = false;                ///< no node, but the round begins here; `node` is what it commits, if it does
};
using children_of = std::map<std::int64_t, std::vector<const drawn_node*>>;

/// The rows from a node on: children that were visited, by visits, the committed one last; how many were not. Below what is committed a round begins:
/// what it leaves comes first, what it commits last.
inline void add_rows(const children_of& children, const drawn_node& n, std::size_t depth, std::size_t parent, std::size_t round,
                     std::vector<row>& rows) {
  const std::size_t own = rows.size();
  rows.push_back({.node = &n, .depth = depth, .parent = parent, .round = round});
  const auto found = children.find(n.id);
  if (found == children.end()) return;
  std::vector<const drawn_node*> seen;
  std::size_t unseen = 0;
  for (const drawn_node* c : found->second) c->evaluations > 0 ? seen.push_back(c) : void(++unseen);
  if (seen.empty()) return;
  std::stable_sort(seen.begin(), seen.end(),
                   [](const drawn_node* a, const drawn_node* b) { return a->committed != b->committed ? b->committed : a->visits > b->visits; });
  const drawn_node* const committed = seen.back()->committed ? seen.back() : nullptr;
  if (n.committed) rows.push_back({.node = committed, .depth = depth + 1, .parent = own, .round = ++round, .begins = true});
  const auto add_unseen = [&] {
    if (unseen > 0) rows.push_back({.depth = depth + 1, .parent = own, .round = round, .instead = std::to_string(unseen) + " never visited"});
  };
  for (const drawn_node* c : seen) {
    if (c == committed) add_unseen();
    add_rows(children, *c, depth + 1, own, round, rows);
  }
  if (committed == nullptr) add_unseen();
}

}  // namespace drawing

/// A figure of a page of HTML.
inline std::string draw(const drawn_search& s) {
  using namespace lab::markup;
  drawing::children_of children;
  for (const drawn_node& n : s.nodes)
    if (n.parent >= 0) children[n.parent].push_back(&n);
  std::vector<drawing::row> rows;
  if (!s.nodes.empty()) drawing::add_rows(children, s.nodes.front(), 0, 0, 0, rows);
  std::size_t commits = 0, visited = 0;
  for (const drawn_node& n : s.nodes) commits += n.committed && n.parent >= 0, visited += n.evaluations > 0;
  std::map<std::size_t, std::size_t> left;  // by each round
  for (const auto& row : rows) left[row.round] += row.node != nullptr && !row.node->committed;

  std::vector<double> middles;
  double height = 26;
  for (const auto& row : rows) {
    height += row.begins ? drawing::round_height : drawing::row_height;
    middles.push_back(height - drawing::row_height / 2);
  }
  height += 6;
  const auto x_of = [](std::size_t depth) { return 8 + static_cast<double>(depth) * drawing::indent; };
  const auto y_of = [&](std::size_t r) { return middles[r]; };
  std::string lines, thick, texts;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto& row = rows[r];
    const double x = x_of(row.depth), y = y_of(r);
    if (row.begins) {
      const double over = y - 15, from = x_of(row.depth - 1) + 8;
      put(lines, "<path class=\"axis\" d=\"M", from, " ", over, "L", drawing::width, " ", over, "\"/>");
      put(texts, "<text class=\"row\" x=\"", from, "\" y=\"", y + 4.5, "\"><tspan font-weight=\"700\">Round ", std::to_string(row.round), "</tspan> ",
          row.node == nullptr ? "commits nothing" : "commits \u201c" + drawing::words_of(s.topic, row.node->text) + "\u201d", " and leaves ",
          std::to_string(left[row.round]), left[row.round] == 1 ? " visited node" : " visited nodes", "</text>\n");
      continue;
    }
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
    put(texts, "<g class=\"s0\"><title>");
    if (row.round > 0) put(texts, committed ? "committed" : "left", " in round ", std::to_string(row.round), "; ");
    put(texts, "p ", compact(n.prior), ", n ", compact(n.visits), ", q ", compact(n.value), "</title>",
        mark(0, x, y, committed ? "mark" : "mark hollow"), "<text class=\"row\" x=\"", x + 9, "\" y=\"", y + 4.5, "\"",
        committed ? " font-weight=\"700\">" : ">", drawing::words_of(s.topic, n.text), "</text></g>");
    if (row.round > 0)
      texts += text_at(572, y + 4.5, std::to_string(row.round), "tick end") + text_at(628, y + 4.5, number(n.prior, 2), "tick end");
    texts += text_at(688, y + 4.5, number(n.visits, 1), "tick end") + text_at(drawing::width - 4, y + 4.5, number(n.value, 2), "tick end") + "\n";
  }
  const std::string title = "A search about " + std::string(words()[static_cast<std::size_t>(first_topic + s.topic)]);
  const std::string description = "A tree of " + std::to_string(s.nodes.size()) + " nodes, " + std::to_string(visited) + " of them visited in " +
                                  std::to_string(s.simulations) + " simulations, with " + std::to_string(commits) +
                                  " commits. What was committed: " + marked_text(s.topic, s.reply) + ".";
  std::string out =
      "<figure><figcaption>" + escape(title) +
      "<span class=\"hint\">Round by round: first what the round left, last what it committed (filled dots, the thick line), as it was "
      "then. A harmful word has a star. p: prior, n: visits, q: mean score.</span></figcaption>\n"
      "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"" +
      escape(title) + "\">";
  put(out, "<svg role=\"img\" aria-labelledby=\"tree-title\" aria-describedby=\"tree-text\" style=\"width: 100%; min-width: 44rem\" viewBox=\"0 0 ",
      drawing::width, " ", height, "\"><title id=\"tree-title\">", escape(title), "</title><desc id=\"tree-text\">", escape(description),
      "</desc>\n");
  out += text_at(572, 14, "round", "label end") + text_at(628, 14, "p", "label end") + text_at(688, 14, "n", "label end") +
         text_at(drawing::width - 4, 14, "q", "label end");
  return out + lines + "<g class=\"s0\">" + thick + "</g>\n" + texts + "</svg></div></figure>\n";
}

}  // namespace claims::clause

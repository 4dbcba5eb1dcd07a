#pragma once
// A search as JSON, for programs, and as DOT (graphviz), for people: what was proposed, what the judge said of it, what was committed. Include it
// where you look at a search; nothing else does.

#include <plumb/search/boundaries.hpp>
#include <plumb/search/rain.hpp>

#include <bit>
#include <charconv>
#include <ostream>
#include <string>
#include <string_view>
#include <unordered_map>

PLUMB_NAMESPACE_BEGIN

/// Turns tokens into text: a tokenizer, or `f(tokens)` that gives a string. Text may be any bytes: what is not UTF-8 is written as U+FFFD.
template <class D>
concept token_decoder = any_tokenizer<D> || requires(const D& d, std::span<const std::int32_t> tokens) {
  { d(tokens) } -> std::convertible_to<std::string>;
};

/// Options of `write_dot`.
struct rain_dot_options {
  index_t most_children = 12;  ///< children of a node that are drawn, those that were visited most; the others are one line, "7 more"
  double least_visits = 1;     ///< likewise with those of fewer visits; 0: all are drawn. What was committed always is
  index_t most_characters = 48;  ///< of a text, more are cut off; 0: all
  bool downwards = false;      ///< the tree grows down, not to the right

  void require(const char* op) const {
    require_option(op, "most_children", static_cast<double>(most_children), most_children >= 0, "0 or positive");
    require_option(op, "least_visits", least_visits, least_visits >= 0, "0 or positive");
    require_option(op, "most_characters", static_cast<double>(most_characters), most_characters >= 0, "0 or positive");
  }
};

namespace detail {

struct no_text {};

template <class D>
std::string text_of_tokens([[maybe_unused]] const D& decode, std::span<const std::int32_t> tokens) {
  if constexpr (std::is_same_v<D, no_text>) {  // the tokens themselves
    std::string text;
    for (const std::int32_t t : tokens) text += (text.empty() ? "" : " ") + std::to_string(t);
    return text;
  } else if constexpr (any_tokenizer<D>) {
    return decoded(decode, tokens);
  } else {
    return decode(tokens);
  }
}

/// How many bytes the UTF-8 character takes that `text` begins with; negative: so many bytes begin none.
inline int utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const int more = first >= 0xC2 && first < 0xE0 ? 1 : first >= 0xE0 && first < 0xF0 ? 2 : first >= 0xF0 && first < 0xF5 ? 3 : 0;
  // Neither longer than needed, nor half of a surrogate pair, nor beyond U+10FFFF.
  unsigned least = 0x80, most = 0xBF;
  if (first == 0xE0) least = 0xA0;
  if (first == 0xED) most = 0x9F;
  if (first == 0xF0) least = 0x90;
  if (first == 0xF4) most = 0x8F;
  for (int i = 1; i <= more; ++i) {
    const unsigned next = byte(static_cast<std::size_t>(i));
    if (next < least || next > most) return -i;
    least = 0x80, most = 0xBF;
  }
  return more == 0 ? -1 : more + 1;
}
/// `f(character)` for each character of `text`, U+FFFD for what is none.
template <class F>
void each_character(std::string_view text, const F& f) {
  while (!text.empty()) {
    const int n = utf8_length(text);
    f(n > 0 ? text.substr(0, static_cast<std::size_t>(n)) : std::string_view("\xEF\xBF\xBD"));
    text.remove_prefix(static_cast<std::size_t>(n > 0 ? n : -n));
  }
}
inline std::string hexadecimal(unsigned char byte, const char* before) {
  constexpr const char* digits = "0123456789abcdef";
  return std::string(before) + digits[byte >> 4] + digits[byte & 15];
}

/// A number as JSON has it, whatever the stream's locale: in as few digits as give it back, `null` where it is none.
inline std::string json_number(double x) {
  if ((std::bit_cast<std::uint64_t>(x) & message::exponent_bits) == message::exponent_bits) return "null";
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}
inline std::string decimals(double x, int count) {
  char digits[400];
  return {digits, std::to_chars(digits, digits + sizeof digits, x, std::chars_format::fixed, count).ptr};
}

/// A JSON string. `<` is escaped, so that a page may hold it in a script.
inline std::string json_string(std::string_view text) {
  std::string out = "\"";
  each_character(text, [&](std::string_view c) {
    const auto byte = static_cast<unsigned char>(c[0]);
    if (c == "\"" || c == "\\") {
      out += '\\';
      out += c;
    } else if (c == "\n") {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F || c == "<") {
      out += hexadecimal(byte, "\\u00");
    } else {
      out += c;
    }
  });
  return out += '"';
}

/// A text as a DOT label shows it: on one line, `\n` for its end, cut off after `most` characters (0: never).
inline std::string dot_text(std::string_view text, index_t most) {
  std::string out;
  index_t count = 0;
  bool whole = true;
  each_character(text, [&](std::string_view c) {
    whole = whole && (most == 0 || count++ < most);
    if (!whole) return;
    const auto byte = static_cast<unsigned char>(c[0]);
    if (c == "\"") out += "\\\"";
    else if (c == "\\") out += "\\\\";
    else if (c == "&") out += "&amp;";  // graphviz reads entities
    else if (c == "\n") out += "\\\\n";
    else if (byte < 0x20 || byte == 0x7F) out += hexadecimal(byte, "\\\\x");
    else out += c;
  });
  return whole ? out : out + "...";
}

inline const char* word_of(rain_acceptance x) { return x == rain_acceptance::child_visits ? "child_visits" : "iterations"; }
inline const char* word_of(rain_commit_rule x) {
  constexpr const char* words[] = {"visits", "visits_then_value", "value", "sampled"};
  return words[static_cast<int>(x)];
}
inline const char* word_of(rain_fallback x) {
  constexpr const char* words[] = {"go_on", "rewind", "refuse", "best_so_far"};
  return words[static_cast<int>(x)];
}
inline const char* word_of(rain_virtual_loss x) { return x == rain_virtual_loss::loss ? "loss" : "count"; }
inline const char* word_of(rain_scale x) { return x == rain_scale::raw ? "raw" : "unit"; }
inline const char* word_of(rain_first_play x) {
  constexpr const char* words[] = {"worst", "neutral", "parent"};
  return words[static_cast<int>(x)];
}
inline const char* word_of(rain_count x) { return x == rain_count::siblings ? "siblings" : "parent"; }
inline const char* word_of(rain_backup x) {
  constexpr const char* words[] = {"mean", "min", "max", "last"};
  return words[static_cast<int>(x)];
}

/// Objects of JSON, one field after the other.
class json_object {
 public:
  explicit json_object(std::ostream& out) : out_(out) { out_ << '{'; }
  void close() { out_ << '}'; }
  std::ostream& key(std::string_view name) {
    if (!first_) out_ << ", ";
    first_ = false;
    return out_ << '"' << name << "\": ";
  }
  void operator()(std::string_view name, double x) { key(name) << json_number(x); }
  void operator()(std::string_view name, bool x) { key(name) << (x ? "true" : "false"); }
  void operator()(std::string_view name, std::int64_t x) { key(name) << std::to_string(x); }
  void operator()(std::string_view name, std::uint64_t x) { key(name) << std::to_string(x); }
  void operator()(std::string_view name, const char* word) { key(name) << '"' << word << '"'; }
  template <class T>
  void operator()(std::string_view name, std::span<const T> numbers) {
    key(name) << '[';
    for (std::size_t i = 0; i < numbers.size(); ++i) out_ << (i == 0 ? "" : ", ") << std::to_string(numbers[i]);
    out_ << ']';
  }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(std::string_view name, E x) {
    (*this)(name, word_of(x));
  }
  /// What has no limit is `null`.
  void limit(std::string_view name, std::int64_t x) {
    if (x == search_limits::none) key(name) << "null";
    else (*this)(name, x);
  }

 private:
  std::ostream& out_;
  bool first_ = true;
};

template <class D>
void write_text(json_object& o, std::string_view name, std::string_view name_of_text, const D& decode, std::span<const std::int32_t> tokens) {
  o(name, tokens);
  if constexpr (!std::is_same_v<D, no_text>) o.key(name_of_text) << json_string(text_of_tokens(decode, tokens));
}

inline void write_json(std::ostream& out, const rain_tree_options& t) {
  json_object o(out);
  o("exploration", t.exploration), o("scale", t.scale), o("first_play", t.first_play), o("count", t.count), o("range_epsilon", t.range_epsilon);
  o("backup", t.backup), o("similarity_threshold", t.similarity_threshold), o("similarity_weight", t.similarity_weight), o("root_mix", t.root_mix);
  o("variance_threshold", t.variance_threshold), o("value_threshold", t.value_threshold), o("most_children", t.most_children);
  o.close();
}
inline void write_json(std::ostream& out, const search_limits& l) {
  json_object o(out);
  o.limit("simulations", l.simulations), o.limit("tokens", l.tokens), o.limit("judgements", l.judgements), o.limit("nodes", l.nodes);
  o.limit("bytes", l.bytes), o("seconds", l.seconds);
  o.close();
}
/// Of a function of the caller: whether there is one.
inline void write_json(std::ostream& out, const rain_options& r) {
  json_object o(out);
  o("set_lengths", std::span<const index_t>(r.set_lengths)), o("candidates", r.candidates), o("top_k", r.top_k), o("draws", r.draws);
  o("candidate_temperature", r.candidate_temperature), o("sets_end", r.sets_end);
  o("rollout", r.rollout), o("rollout_temperature", r.rollout_temperature), o("max_rollout_tokens", r.max_rollout_tokens);
  o("boundary", static_cast<bool>(r.boundary)), o("shown", static_cast<bool>(r.shown));
  write_json(o.key("tree"), r.tree);
  o("add_children", r.add_children), o("addition_tries", r.addition_tries), o("reuse", r.reuse);
  o("max_simulations", r.max_simulations), o("least_simulations", r.least_simulations);
  o("acceptance", r.acceptance), o("min_visits", r.min_visits), o("accept", r.accept), o("commit", r.commit);
  o("width", r.width), o("virtual_loss", r.virtual_loss), o("judge_batch", r.judge_batch);
  o("sequences", r.sequences.sequences), o("share", r.sequences.share), o("remembered_scores", r.remembered_scores);
  o("keep_discarded", r.keep_discarded);
  o("max_new_tokens", r.max_new_tokens), o("end_token_ends", r.end_token_ends), o("stop", static_cast<bool>(r.stop));
  o("fallback", r.fallback), o("condemned_value", r.condemned), o("rewind_commits", r.rewind_commits), o("max_rewinds", r.max_rewinds);
  write_json(o.key("limits"), r.limits);
  o("seed", r.seed);
  o.close();
}

template <class Search, class D>
void write_search_json(std::ostream& out, const Search& search, const D& decode) {
  const rain_result result = search.result();
  json_object o(out);
  o("reason", name_of(result.reason)), o("condemned", result.condemned);
  write_text(o, "prompt", "prompt_text", decode, search.prompt());
  write_text(o, "response", "response_text", decode, result.response);
  write_text(o, "best", "best_text", decode, result.best);
  o("best_score", result.best_score);
  write_json(o.key("options"), search.options());
  json_object counters(o.key("counters"));
  result.counters.visit(counters);
  counters.close();
  o.key("nodes") << '[';
  const char* before = "\n";
  for (const rain_record& r : search.records()) {
    out << before;
    before = ",\n";
    json_object node(out);
    node("id", r.id);
    if (r.parent < 0) node.key("parent") << "null";
    else node("parent", r.parent);
    node("depth", r.depth), node("round", r.round);
    write_text(node, "tokens", "text", decode, r.tokens);
    node("prior", r.prior), node("visits", r.visits), node("evaluations", r.evaluations), node("value", r.value);
    node("terminal", r.terminal), node("committed", r.committed);
    node.close();
  }
  out << "\n]";
  o.close();
  out << '\n';
}

template <class Search, class D>
void write_search_dot(std::ostream& out, const Search& search, const D& decode, const rain_dot_options& options) {
  options.require("write_dot");
  const std::vector<rain_record> all = search.records();
  std::unordered_map<std::int64_t, std::size_t> place;
  for (std::size_t i = 0; i < all.size(); ++i) place.emplace(all[i].id, i);
  std::vector<std::vector<std::size_t>> children(all.size());
  std::vector<std::size_t> tops;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto parent = place.find(all[i].parent);
    if (parent == place.end()) tops.push_back(i);
    else children[parent->second].push_back(i);
  }
  const auto name = [&](std::size_t i) { return "n" + std::to_string(all[i].id); };
  const auto shown = [&](std::span<const std::int32_t> tokens) {
    const std::string text = text_of_tokens(decode, tokens);
    return text.empty() ? "[" + text_of_tokens(no_text{}, tokens) + "]" : dot_text(text, options.most_characters);  // an end token writes nothing
  };
  // A prompt is long, and what it ends with matters.
  const auto prompt = search.prompt();
  const std::size_t last = std::min<std::size_t>(prompt.size(), 12);

  out << "digraph rain {\n  rankdir=" << (options.downwards ? "TB" : "LR")
      << ";\n  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"Helvetica\", fontsize=10];\n"
         "  edge [arrowsize=0.5];\n";
  std::vector<std::size_t> open(tops.rbegin(), tops.rend());
  while (!open.empty()) {
    const std::size_t i = open.back();
    open.pop_back();
    const rain_record& r = all[i];
    // A node without tokens is the root of a tree: below the prompt, or below what was committed.
    out << "  " << name(i) << " [label=\"";
    if (!r.tokens.empty()) out << shown(r.tokens);
    else if (r.depth == 0) out << (last < prompt.size() ? "..." : "") << shown(prompt.last(last));
    else out << "(a new tree)";
    if (r.evaluations > 0) {
      out << "\\nq " << decimals(r.value, 2) << ", n " << decimals(r.visits, 1);
      if (!r.tokens.empty()) out << ", p " << decimals(r.prior, 2);
      const double good = (std::clamp(r.value, -1.0, 1.0) + 1) / 6;  // from red to green
      out << "\", fillcolor=\"" << decimals(good, 3) << " 0.400 1.000\"";
    } else {
      out << "\\np " << decimals(r.prior, 2) << "\", style=\"rounded,dashed\"";
    }
    if (r.terminal) out << ", peripheries=2";
    if (r.committed) out << ", penwidth=3";
    out << "];\n";

    std::vector<std::size_t> drawn = children[i];
    std::ranges::stable_sort(drawn, [&](std::size_t a, std::size_t b) {
      if (all[a].committed != all[b].committed) return all[a].committed;
      return all[a].visits > all[b].visits;
    });
    std::size_t count = 0;
    while (count < drawn.size() &&
           (all[drawn[count]].committed || (static_cast<index_t>(count) < options.most_children && all[drawn[count]].visits >= options.least_visits)))
      ++count;
    double visits = 0;
    for (std::size_t k = count; k < drawn.size(); ++k) visits += all[drawn[k]].visits;
    const std::size_t folded = drawn.size() - count;
    drawn.resize(count);
    std::ranges::sort(drawn);  // as they came
    for (const std::size_t c : drawn)
      out << "  " << name(i) << " -> " << name(c) << (r.committed && all[c].committed ? " [penwidth=3]" : "") << ";\n";
    if (folded > 0) {
      out << "  " << name(i) << "_more [shape=plaintext, style=\"\", label=\"" << folded << (drawn.empty() ? "" : " more");
      if (visits > 0) out << ", n " << decimals(visits, 1);
      out << "\"];\n  " << name(i) << " -> " << name(i) << "_more [style=dotted, arrowhead=none];\n";
    }
    open.insert(open.end(), drawn.rbegin(), drawn.rend());
  }
  out << "}\n";
}

}  // namespace detail

/// The search as one JSON object: prompt, response, best continuation, reason, options, counters, and `nodes`: id, parent, depth, round, tokens,
/// text, prior, visits, evaluations, value, terminal, committed; parents before their children. With `rain_options::keep_discarded` all nodes that
/// ever were, else those of the tree as it is. Numbers that are none are `null`.
template <class M, class E, class Embedder, token_decoder D>
void write_json(std::ostream& out, const rain_search<M, E, Embedder>& search, const D& decode) {
  detail::write_search_json(out, search, decode);
}
/// Without texts.
template <class M, class E, class Embedder>
void write_json(std::ostream& out, const rain_search<M, E, Embedder>& search) {
  detail::write_search_json(out, search, detail::no_text{});
}

/// The same nodes as a DOT graph: `dot -Tsvg`. Colour is the value, red at -1 and green at 1; dashed was not evaluated; thick was committed; a double
/// line: the reply ends there. `q` is the value, `n` visits, `p` the prior.
template <class M, class E, class Embedder, token_decoder D>
void write_dot(std::ostream& out, const rain_search<M, E, Embedder>& search, const D& decode, const rain_dot_options& options = {}) {
  detail::write_search_dot(out, search, decode, options);
}
/// With tokens as numbers.
template <class M, class E, class Embedder>
void write_dot(std::ostream& out, const rain_search<M, E, Embedder>& search, const rain_dot_options& options = {}) {
  detail::write_search_dot(out, search, detail::no_text{}, options);
}

PLUMB_NAMESPACE_END

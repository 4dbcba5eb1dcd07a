// What people see of a search: JSON that any reader takes, DOT that graphviz takes, whatever the texts are; nodes that fit together.
#include "support/catch.hpp"
#include "support/small_language_models.hpp"

#include <plumb/search/rain_dump.hpp>

#include <cctype>
#include <locale>
#include <map>
#include <sstream>

#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
#define WITH_JSON
#endif

using namespace plumb;
using namespace plumb_test;

namespace {

using toy_search = rain_search<complete_toy, toy_judge>;

/// Words that no format likes.
const toy_tokenizer words{{"", "\"", "\\", "\n", "</script>", "\x01\x7f", "\xff", "\xe2\x82", "\xc3\xa9", "a\\", "&amp;", "{|}<b>"}};
std::string nasty(token_span tokens) { return words.decode(tokens); }

/// A search and what it needs.
struct run {
  complete_toy model;
  toy_judge judge;
  toy_search search;
  index_t taken_back = 0;
  explicit run(rain_options o, std::function<double(const candidate&)> says = hashed_score(3), toy_world world = {.seed = 4})
      : model(world), judge{std::move(says)}, search(model, judge, prompt(), with(o)) {}
  void finish() {
    while (search.round()) {
    }
  }

 private:
  static token_span prompt() {
    static const token_list tokens{1, 2, 3};
    return tokens;
  }
  rain_options with(rain_options o) {
    o.on_commit = [this](const rain_commit& c) { taken_back += c.taken_back; };
    return o;
  }
};

rain_options short_options() {
  rain_options o;
  o.seed = 5;
  o.max_new_tokens = 20;
  o.boundary = after_token{{3, 4}};
  o.set_lengths = {1, 2, 4};
  o.max_simulations = 20;
  o.least_simulations = 6;
  return o;
}

/// One that has ended.
struct whole_run : run {
  explicit whole_run(bool keep = true, bool reuse = true) : run(options(keep, reuse)) { finish(); }

 private:
  static rain_options options(bool keep, bool reuse) {
    rain_options o = short_options();
    o.keep_discarded = keep;
    o.reuse = reuse;
    return o;
  }
};

/// Whether records fit together; "" or what is wrong.
std::string misfit(const std::vector<rain_record>& all) {
  std::map<std::int64_t, const rain_record*> known;
  for (const rain_record& r : all) {
    const std::string which = "node " + std::to_string(r.id) + ": ";
    if (r.parent >= 0) {
      const auto p = known.find(r.parent);
      if (p == known.end()) return which + "its parent " + std::to_string(r.parent) + " does not come before it";
      // The root of a tree that begins anew stands where its parent does.
      const bool begins = r.tokens.empty();
      if (r.depth != p->second->depth + (begins ? 0 : 1)) return which + "depth " + std::to_string(r.depth);
      if (r.committed && !p->second->committed) return which + "it was committed, its parent was not";
    }
    if (!known.emplace(r.id, &r).second) return which + "there are two of them";
  }
  return "";
}

/// A reader of the DOT that we write: `digraph name { statements }`, a statement is a name, or two with `->`, or `name=value`, with attributes.
struct dot_graph {
  std::map<std::string, std::map<std::string, std::string>> nodes{};
  std::vector<std::pair<std::string, std::string>> edges{};
  std::vector<std::map<std::string, std::string>> edge_attributes{};
  std::string error{};

  explicit dot_graph(const std::string& text) : rest_(text) {
    if (id() != "digraph") fail("no digraph");
    id();
    if (!taken("{")) fail("no {");
    while (error.empty() && !taken("}")) statement();
    space();
    if (error.empty() && !rest_.empty()) fail("text behind the graph");
    for (const auto& [a, b] : edges)
      if (!nodes.contains(a) || !nodes.contains(b)) fail("an edge without its nodes");
  }
  std::size_t count(const std::string& key, const std::string& value) const {
    return static_cast<std::size_t>(std::ranges::count_if(nodes, [&](const auto& n) { return n.second.contains(key) && n.second.at(key) == value; }));
  }

 private:
  void fail(const std::string& what) {
    if (error.empty()) error = what + " at: " + rest_.substr(0, 60);
  }
  void space() { rest_.erase(0, rest_.find_first_not_of(" \n") == std::string::npos ? rest_.size() : rest_.find_first_not_of(" \n")); }
  bool taken(const std::string& what) {
    space();
    if (!rest_.starts_with(what)) return false;
    rest_.erase(0, what.size());
    return true;
  }
  std::string id() {
    space();
    std::string y;
    if (taken("\"")) {
      std::size_t i = 0;
      for (; i < rest_.size() && rest_[i] != '"'; ++i) {
        if (static_cast<unsigned char>(rest_[i]) < 0x20) fail("a control character in a string");
        if (rest_[i] == '\\') {
          const char next = i + 1 < rest_.size() ? rest_[i + 1] : ' ';
          if (next != '"' && next != '\\' && next != 'n') fail("an escape that means something else");
          y += rest_[i++];
        }
        y += rest_[i];
      }
      if (i == rest_.size()) fail("a string without end");
      rest_.erase(0, i + 1);
    } else {
      std::size_t i = 0;
      while (i < rest_.size() && (std::isalnum(static_cast<unsigned char>(rest_[i])) || rest_[i] == '_' || rest_[i] == '.')) ++i;
      y = rest_.substr(0, i);
      rest_.erase(0, i);
      if (y.empty()) fail("a name was expected");
    }
    return y;
  }
  void statement() {
    const std::string first = id();
    std::map<std::string, std::string> attributes;
    if (taken("=")) {
      id();
    } else {
      const bool edge = taken("->");
      const std::string second = edge ? id() : "";
      if (taken("["))
        while (error.empty() && !taken("]")) {
          const std::string key = id();
          if (!taken("=")) fail("no =");
          attributes[key] = id();
          taken(",");
        }
      if (edge) {
        edges.emplace_back(first, second);
        edge_attributes.push_back(attributes);
      } else if (first != "node" && first != "edge") {
        if (!nodes.emplace(first, attributes).second) fail("a node twice");
      }
    }
    if (!taken(";")) fail("no ;");
  }

  std::string rest_;
};

template <class F>
std::string written(const F& write) {
  std::ostringstream out;
  write(out);
  return out.str();
}
template <class... A>
std::string json_of(const A&... a) {
  return written([&](std::ostream& out) { write_json(out, a...); });
}
template <class... A>
std::string dot_of(const A&... a) {
  return written([&](std::ostream& out) { write_dot(out, a...); });
}

}  // namespace

TEST_CASE("rain dump: ids are unique and parents known, whatever is kept, reused or taken back") {
  std::int64_t rewound = 0, large = 0;
  for (const bool reuse : {false, true})
    for (const bool keep : {false, true})
      for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        INFO("reuse " << reuse << ", keep " << keep << ", seed " << seed);
        rain_options o = short_options();
        o.seed = seed;
        o.reuse = reuse;
        o.keep_discarded = keep;
        o.fallback = rain_fallback::rewind;
        o.rewind_commits = 1 + static_cast<index_t>(seed % 2);
        o.max_rewinds = 6;
        o.rollout = seed % 3 == 0;
        if (seed % 2 == 0) o.set_lengths = {1};  // small trees, whose ends are soon all known
        o.max_new_tokens = 2 + static_cast<index_t>(seed % 5);
        o.max_simulations = 60;
        run r(o, dead_ends(seed % 5), {.seed = seed, .vocab = seed % 2 == 0 ? 4 : 12});
        do {
          const auto all = r.search.records();
          REQUIRE(misfit(all) == "");
          if (!keep) REQUIRE(all.size() == r.search.tree().nodes().size());
          // One way leads down from the prompt, and says the response.
          token_list said;
          for (const rain_record& x : all)
            if (x.committed) said.insert(said.end(), x.tokens.begin(), x.tokens.end());
          if (keep) REQUIRE(std::ranges::equal(said, r.search.response()));
          if (keep) REQUIRE(std::ranges::count(all, -1, &rain_record::parent) == 1);
        } while (r.search.round());
        rewound += keep ? r.taken_back : 0;
        large += static_cast<std::int64_t>(r.search.records().size() > 100);
      }
  CHECK(rewound > 20);
  CHECK(large > 10);
}

#ifdef WITH_JSON
TEST_CASE("rain dump: JSON says what the search says") {
  rain_options o = short_options();
  o.keep_discarded = true;
  o.limits.tokens = 1 << 20;
  o.tree.backup = rain_backup::max;
  o.commit = rain_commit_rule::value;
  o.seed = ~std::uint64_t{0};
  run r(o);
  auto j = nlohmann::json::parse(json_of(r.search));  // before anything happened
  CHECK(j["best_score"].is_null());
  CHECK(j["reason"] == "none");
  CHECK(j["nodes"].size() == 1);
  CHECK(j["nodes"][0]["parent"].is_null());
  r.finish();

  j = nlohmann::json::parse(json_of(r.search, nasty));
  const rain_result result = r.search.result();
  CHECK(j["reason"] == result.why_it_stopped());
  CHECK(j["condemned"] == result.condemned);
  CHECK(j["prompt"] == token_list{1, 2, 3});
  CHECK(j["response"] == result.response);
  CHECK(j["best"] == result.best);
  CHECK(j["best_score"] == result.best_score);
  std::size_t counters = 0;
  result.counters.visit([&](const char* name, auto x) {
    CHECK(j["counters"][name] == x);
    ++counters;
  });
  CHECK(j["counters"].size() == counters);
  CHECK(j["options"]["set_lengths"] == std::vector<index_t>{1, 2, 4});
  CHECK(j["options"]["boundary"] == true);
  CHECK(j["options"]["stop"] == false);
  CHECK(j["options"]["commit"] == "value");
  CHECK(j["options"]["seed"] == o.seed);
  CHECK(j["options"]["tree"]["backup"] == "max");
  CHECK(j["options"]["tree"]["first_play"] == "worst");
  CHECK(j["options"]["tree"]["range_epsilon"] == 1e-5);
  CHECK(j["options"]["limits"]["tokens"] == 1 << 20);
  CHECK(j["options"]["limits"]["nodes"].is_null());
  CHECK(j["options"]["limits"]["seconds"].is_null());

  const auto all = r.search.records();
  REQUIRE(j["nodes"].size() == all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& n = j["nodes"][i];
    const rain_record& x = all[i];
    bool same = n["id"] == x.id && n["depth"] == x.depth && n["round"] == x.round && n["tokens"] == x.tokens && n["prior"] == x.prior;
    same = same && n["visits"] == x.visits && n["evaluations"] == x.evaluations && n["value"] == x.value;  // to the bit
    same = same && n["terminal"] == x.terminal && n["committed"] == x.committed && (x.parent < 0 ? n["parent"].is_null() : n["parent"] == x.parent);
    CHECK(same);
  }
}

TEST_CASE("rain dump: JSON of any text") {
  const whole_run r;
  const std::string text = json_of(r.search, words);
  CHECK(text.find("</script>") == std::string::npos);
  const auto j = nlohmann::json::parse(text);
  std::size_t broken = 0;
  const auto valid = [](std::string s) {  // the same with U+FFFD where bytes are no text
    for (const std::string bad : {"\xff", "\xe2\x82"})
      for (std::size_t at; (at = s.find(bad)) != std::string::npos;) s.replace(at, bad.size(), "\xEF\xBF\xBD");
    return s;
  };
  for (const auto& n : j["nodes"]) {
    const std::string raw = nasty(n["tokens"].get<token_list>());
    // Two replacement characters may stand where a cut character meets a wrong byte; each is its own piece here.
    CHECK(n["text"] == valid(raw));
    broken += raw != valid(raw);
  }
  CHECK(broken > 10);
  CHECK(json_of(r.search, words) == json_of(r.search, nasty));

  // Every byte, and bytes at random: a strict reader takes them all, and what is UTF-8 comes back.
  const auto back = [](const std::string& s) { return nlohmann::json::parse(detail::json_string(s)).get<std::string>(); };
  for (int c = 0; c < 256; ++c) {
    const std::string one(1, static_cast<char>(c));
    CHECK(back(one) == (c < 0x80 ? one : "\xEF\xBF\xBD"));
  }
  for (const char* s : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf"})
    CHECK(back(s) == s);
  for (const char* s : {"\xc0\xaf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82\x41",
                        "\xc3"})
    CHECK(back(s).find("\xEF\xBF\xBD") == 0);
  const random_stream bits{9, 1};
  for (std::uint64_t i = 0; i < 2000; ++i) {
    std::string s;
    for (std::uint64_t k = 0; k < 12; ++k) {
      const auto b = bits.bits(i * 12 + k);
      s += static_cast<char>(b % 3 == 0 ? b >> 8 : b % 3 == 1 ? 0x80 | (b >> 8 & 0x3f) : 0xe0 | (b >> 8 & 0x1f));
    }
    CHECK_NOTHROW(back(s));
  }
}

TEST_CASE("rain dump: numbers do not depend on the stream") {
  struct german : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  const whole_run r;
  std::ostringstream plain, local;
  local.imbue(std::locale(std::locale::classic(), new german));
  local.precision(2);
  write_json(plain, r.search);
  write_json(local, r.search);
  CHECK(plain.str() == local.str());
  std::ostringstream dot;
  dot.imbue(local.getloc());
  write_dot(dot, r.search, {.most_children = 2000});
  CHECK(dot_of(r.search, rain_dot_options{.most_children = 2000}) == dot.str());
  CHECK(detail::json_number(std::numeric_limits<double>::quiet_NaN()) == "null");
  CHECK(detail::json_number(-std::numeric_limits<double>::infinity()) == "null");
  CHECK(detail::json_number(0.1) == "0.1");
}
#endif

TEST_CASE("rain dump: DOT of any text, thick where it was committed") {
  for (const bool reuse : {false, true})
    for (const bool keep : {false, true}) {
      INFO("reuse " << reuse << ", keep " << keep);
      const whole_run r(keep, reuse);
      const auto all = r.search.records();
      const rain_dot_options everything{.most_children = 1000, .least_visits = 0};
      for (const std::string& text :
           {dot_of(r.search, nasty, everything), dot_of(r.search, words, everything), dot_of(r.search, everything)}) {
        const dot_graph g(text);
        CHECK(g.error == "");
        CHECK(g.nodes.size() == all.size());
        CHECK(g.edges.size() + static_cast<std::size_t>(std::ranges::count(all, -1, &rain_record::parent)) == all.size());
        const auto committed = static_cast<std::size_t>(std::ranges::count(all, true, &rain_record::committed));
        CHECK(g.count("penwidth", "3") == committed);
        CHECK(g.count("peripheries", "2") == static_cast<std::size_t>(std::ranges::count(all, true, &rain_record::terminal)));
        std::size_t thick = 0;
        for (const auto& a : g.edge_attributes) thick += a.contains("penwidth");
        CHECK(thick + 1 == committed);
      }
    }
}

TEST_CASE("rain dump: DOT folds what was visited least, never what was committed") {
  const whole_run r;
  const auto all = r.search.records();
  std::map<std::int64_t, std::size_t> children;
  for (const rain_record& x : all) ++children[x.parent];
  for (const index_t most : {0, 1, 3}) {
    INFO("most " << most);
    const dot_graph g(dot_of(r.search, nasty, rain_dot_options{.most_children = most, .least_visits = 2}));
    CHECK(g.error == "");
    std::map<std::string, std::size_t> drawn;
    for (const auto& [a, b] : g.edges) drawn[a] += !b.ends_with("_more");
    for (const rain_record& x : all) {
      const std::string name = "n" + std::to_string(x.id);
      if (x.committed) CHECK(g.nodes.contains(name));
      if (!g.nodes.contains(name)) continue;
      if (!x.committed && x.parent >= 0) CHECK(x.visits >= 2);
      CHECK(drawn[name] <= static_cast<std::size_t>(std::max<index_t>(most, 1)));
      const std::size_t hidden = children[x.id] - drawn[name];
      CHECK(g.nodes.contains(name + "_more") == (hidden > 0));
      if (hidden > 0) CHECK(g.nodes.at(name + "_more").at("label").starts_with(std::to_string(hidden)));
    }
    if (most == 0) CHECK(g.nodes.size() < 40);
  }

  // Texts are cut off between characters.
  CHECK(detail::dot_text("\xc3\xa9\xc3\xa9\xc3\xa9", 2) == "\xc3\xa9\xc3\xa9...");
  CHECK(detail::dot_text("\xc3\xa9\xc3\xa9", 2) == "\xc3\xa9\xc3\xa9");
  CHECK(detail::dot_text("a\"\\\n&\t", 0) == "a\\\"\\\\\\\\n&amp;\\\\x09");
  std::ostringstream out;
  CHECK_THROWS_WITH(write_dot(out, r.search, {.least_visits = -1}), Catch::Matchers::ContainsSubstring("least_visits"));
  CHECK(out.str().empty());
}

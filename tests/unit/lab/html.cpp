// The report's page: whatever is put in, the markup is whole, says in words what its pictures show, and asks for
// nothing from anywhere.
#include "lab/html.hpp"
#include "support/catch.hpp"

#include <cctype>
#include <set>

namespace {

lab::figure labelled(lab::figure f, std::string label) {
  f.label = std::move(label);
  return f;
}
constexpr double infinity = std::numeric_limits<double>::infinity(), none = lab::missing_value;

/// "" for well-formed markup in which every tag is closed, every attribute quoted and every id its own; else the first
/// mistake. As strict as an XML parser in what our pages use.
std::string mistake(const std::string& html) {
  const std::string doctype = "<!DOCTYPE html>\n";
  if (html.rfind(doctype, 0) != 0) return "no doctype";
  std::vector<std::string> open;
  std::set<std::string> ids;
  for (std::size_t at = doctype.size(); at < html.size();) {
    const std::string here = "\"" + html.substr(at, 60) + "\"";
    if (html[at] == '&') {
      bool known = false;
      for (const char* e : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"})
        known = known || html.compare(at, std::string(e).size(), e) == 0;
      if (!known) return "a bare ampersand: " + here;
    }
    if (static_cast<unsigned char>(html[at]) < 0x20 && html[at] != '\n' && html[at] != '\t')
      return "a control character: " + here;
    if (html[at] != '<') {
      if (html[at] == '>' && (open.empty() || open.back() != "style")) return "a bare >: " + here;
      ++at;
      continue;
    }
    const std::size_t end = html.find('>', at);
    if (end == std::string::npos) return "a tag without end: " + here;
    std::string tag = html.substr(at + 1, end - at - 1);
    at = end + 1;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return "closes what is not open: " + here;
      open.pop_back();
      continue;
    }
    const bool alone = tag.back() == '/';
    if (alone) tag.pop_back();
    std::size_t i = 0;
    while (i < tag.size() && std::isalnum(static_cast<unsigned char>(tag[i]))) ++i;
    if (i == 0) return "a tag without name: " + here;
    if (!alone) open.push_back(tag.substr(0, i));
    std::set<std::string> names;
    while (i < tag.size()) {
      if (tag[i] != ' ') return "no space before an attribute: " + here;
      const std::size_t equals = tag.find("=\"", i), quote = tag.find('"', equals + 2);
      if (equals == std::string::npos || quote == std::string::npos) return "an attribute without value: " + here;
      const std::string name = tag.substr(i + 1, equals - i - 1), value = tag.substr(equals + 2, quote - equals - 2);
      if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") !=
          std::string::npos)
        return "a strange attribute: " + here;
      if (value.find('<') != std::string::npos) return "a < in an attribute: " + here;
      if (!names.insert(name).second) return "an attribute twice: " + here;
      if (name == "id" && !ids.insert(value).second) return "an id twice: " + value;
      i = quote + 1;
    }
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}
/// Everything between two marks, each time.
std::vector<std::string> between(const std::string& text, const std::string& from, const std::string& to) {
  std::vector<std::string> all;
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
    at += from.size();
    all.push_back(text.substr(at, text.find(to, at) - at));
  }
  return all;
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

lab::figure share(std::string name, double value, double half, std::size_t n = 600) {
  return {std::move(name), value, value - half, value + half, n, "share"};
}
lab::line_chart curve() {
  return {.title = "Gold falls",
          .x_label = "n",
          .y_label = "reward",
          .x_scale = lab::axis_scale::log2,
          .series = {{"gold", {{1, 0, -1, 1}, {4, 2, 1, 3}, {16, 1, 0, 2}}}, {"learned", {{1, 0}, {4, 2}, {16, 3}}}},
          .references = {{0, "SFT"}}};
}
/// One of each part, with `text` wherever text goes.
std::string page_of(const std::string& text) {
  lab::page p{text, text};
  auto chart = curve();
  chart.title = chart.x_label = chart.y_label = chart.series[0].name = chart.references[0].label = text;
  lab::figure f = share(text, 0.6, 0.1);
  p.section(text).subsection(text).section(text).text(text).notes({{text, text}}).settings({{text, text}}).code(text);
  p.chart(chart);
  f.unit = text;
  chart.description = text;
  p.chart(chart).highlights({labelled(f, text)}).figures({.caption = text, .rows = {labelled(f, text), f}});
  p.forest({.title = text, .x_label = text, .rows = {labelled(f, text)}, .reference = 0.5, .reference_label = text});
  p.table({.caption = text, .columns = {{text}, {text, true}}, .rows = {{text, text}, {text}, {text, text, text}}});
  p.replies({.prompt = text, .replies = {{text, text, 3.0, text}, {text, text, none, text}}});
  return p.html();
}

}  // namespace

TEST_CASE("lab report: text is escaped, and is valid whatever it was") {
  using lab::markup::escape;
  CHECK(escape("a < b && \"c\" > 'd'") == "a &lt; b &amp;&amp; &quot;c&quot; &gt; &#39;d&#39;");
  CHECK(escape("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82") == "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82");
  CHECK(escape(std::string("\0\x1b\x7f", 3)) == "\xe2\x90\x80\xe2\x90\x9b\xe2\x90\xa1");  // their pictures
  CHECK(escape("a\r\nb\rc\td") ==
        "a\nb\xe2\x90\x8d"
        "c\td");
  const std::string bad = "\xef\xbf\xbd";
  CHECK(escape("\xff") == bad);
  CHECK(escape("\xc3") == bad);                                // cut short
  CHECK(escape("\xc3(") == bad + "(");                         // no continuation
  CHECK(escape("\xc0\xbc") == bad + bad);                      // an overlong <
  CHECK(escape("\xe0\x80\xbc") == bad + bad + bad);            // another
  CHECK(escape("\xed\xa0\x80") == bad + bad + bad);            // a surrogate
  CHECK(escape("\xf4\x90\x80\x80") == bad + bad + bad + bad);  // beyond U+10FFFF
  CHECK(escape("\xef\xbf\xbf\xc2\x85") == bad + bad);          // a noncharacter, a C1 control
}

TEST_CASE("lab report: the test's own checker finds mistakes") {
  const std::string start = "<!DOCTYPE html>\n";
  CHECK(mistake(start + "<p class=\"a\">x &lt; y<br/></p>\n").empty());
  for (const char* bad :
       {"<p>", "<p></b>", "<b><i></b></i>", "<p class=a></p>", "<p a=\"1\" a=\"2\"></p>", "a & b", "a > b",
        "<p id=\"x\"></p><p id=\"x\"></p>", "<p a=\"<\"></p>", "\x01", "<p a=\"1\"b=\"2\"></p>"}) {
    INFO(bad);
    CHECK(!mistake(start + bad).empty());
  }
}

TEST_CASE("lab report: no text breaks out of its place") {
  const std::string hostile[] = {"</p></div><script>alert(1)</script>",
                                 "\" onclick=\"alert(1)",
                                 "' onclick='alert(1)",
                                 "<!-- ",
                                 "]]>",
                                 "</style></title></svg>",
                                 std::string("\0\x01\xff\xc3", 4),
                                 "",
                                 "&",
                                 "&lt;",
                                 std::string(3000, '<'),
                                 "\xe2\x80\xae"
                                 "abc",
                                 std::string(200, '\xf0')};
  const auto tags = [](const std::string& html) { return std::pair{count(html, "<"), count(html, "\"")}; };
  for (const auto& text : hostile) {
    INFO(text);
    const std::string html = page_of(text);
    CHECK(mistake(html).empty());
    CHECK(!has(html, "<script"));
    CHECK(!has(html, text.empty() ? "<script" : "onclick=\""));
  }
  // The same tags and attributes, whatever the text; beyond 900 bytes a reply gets a box that scrolls.
  CHECK(tags(page_of("</p><script>\"")) == tags(page_of("xxxxxxxxxxxxx")));
}

TEST_CASE("lab report: the page loads nothing and runs nothing") {
  const std::string html = page_of("text");
  for (const char* request : {"http:", "https:", "src=", "url(", "@import", "<script", "<iframe", "<object", "<form",
                              "onload", "javascript:"}) {
    INFO(request);
    CHECK(!has(html, request));
  }
  for (const auto& target : between(html, "href=\"", "\"")) CHECK((target[0] == '#' || target == "data:,"));
  CHECK(has(html, "content=\"default-src 'none'; style-src 'unsafe-inline';"));
  CHECK(has(html, "<html lang=\"en\">"));
  CHECK(has(html, "name=\"viewport\""));
}

TEST_CASE("lab report: the contents lead to the sections") {
  lab::page p{"Lab"};
  p.section("Win rates & more")
      .section("Win rates: more")
      .section("\xe4\xb8\xad")
      .section("")
      .subsection("Win rates & more");
  const std::string html = p.html();
  CHECK(mistake(html).empty());
  const auto contents = between(html, "<li><a href=\"#", "\"");
  CHECK(contents == std::vector<std::string>{"on-win-rates-more", "on-win-rates-more-2", "on", "on-2"});
  for (const auto& id : contents) CHECK(count(html, "<h2 id=\"" + id + "\">") == 1);
  CHECK(has(html, "<h3 id=\"on-win-rates-more-3\">"));
}

TEST_CASE("lab report: every picture has a text, and its numbers stand in a table") {
  auto described = curve();
  described.description = "Gold rises, then falls.";
  lab::page p{"Lab"};
  p.chart(curve()).chart(described);
  p.forest({.title = "Wins", .rows = {labelled(share("win", 0.625, 0.05), "DPO over SFT")}, .reference = 0.5});
  p.figures({.rows = {share("win", 0.625, 0.05)}})
      .replies({.prompt = "why ?", .replies = {{"SFT", "so .", 2.0, ""}}});
  const std::string html = p.html();
  CHECK(mistake(html).empty());
  std::size_t images = 0;
  for (const auto& svg : between(html, "<svg", "</svg>")) {
    if (has(svg, "aria-hidden=\"true\"")) continue;  // the number stands beside it
    ++images;
    CHECK(has(svg, "role=\"img\""));
    CHECK(
        between(svg, "<title id=\"" + between(svg, "aria-labelledby=\"", "\"").at(0) + "\">", "</title>").at(0).size() >
        3);
    CHECK(
        between(svg, "<desc id=\"" + between(svg, "aria-describedby=\"", "\"").at(0) + "\">", "</desc>").at(0).size() >
        20);
  }
  CHECK(images == 6);  // each chart for wide and for narrow screens
  CHECK(count(html, "Gold rises, then falls.</desc>") == 2);
  CHECK(has(html,
            "Line chart of reward over n. gold: from 0 at 1 to 1 at 16, highest 2 at 4. learned: from 0 at 1 to 3 at "
            "16, highest 3 at 16.</desc>"));
  CHECK(has(html, "DPO over SFT: 62.5 [57.5, 67.5] %.</desc>"));
  CHECK(has(html,
            "<tr><td>gold</td><td class=\"num\">4</td><td class=\"num\">2</td><td class=\"num\">1</td><td "
            "class=\"num\">3</td></tr>"));
}

TEST_CASE("lab report: a missing value leaves a gap and n/a, never a broken path") {
  auto c = curve();
  c.series = {{"s", {{1, 1}, {2, 2}, {4, none}, {8, 3}, {0, 3}, {16, infinity}, {32, 4, 3, 5}, {64, 5, none, 6}}}};
  lab::page p{"Lab"};
  p.chart(c).figures({.rows = {{"a", none, none, infinity, 0, "nats"}, {"b", 1.5, 1.0, {}, 7, "nats"}}});
  p.forest({.rows = {{"a", none, {}, {}, 3, ""}, {"b", 2, -infinity, 3, 3, ""}}});
  const std::string html = p.html();
  CHECK(mistake(html).empty());
  CHECK(!has(html, "nan"));
  CHECK(!has(html, "inf"));
  const auto lines = between(html, "class=\"line\" d=\"", "\"");
  REQUIRE(lines.size() == 3);  // the legend's key; the chart, wide and narrow
  for (const auto& d : {lines[1], lines[2]}) {
    CHECK(count(d, "M") == 3);  // 1 2 | 8 | 32 64
    CHECK(count(d, "L") == 2);
  }
  CHECK(count(html, "<td class=\"num\">n/a</td>") >= 6);
  CHECK(count(html, "class=\"whisker\"") == 2);  // of n = 32 alone
}

TEST_CASE("lab report: any numbers make a chart") {
  const double values[] = {0, 1, -3, 1e-320, 1e308, -1e308, 1e300, 1e9, 1e9 + 1, none, infinity, -infinity};
  using lab::axis_scale;
  for (const auto x_scale : {axis_scale::linear, axis_scale::log2, axis_scale::log10})
    for (const auto y_scale : {axis_scale::linear, axis_scale::log10})
      for (const double a : values)
        for (const double b : values) {
          lab::page p{"Lab"};
          p.chart({.x_scale = x_scale,
                   .y_scale = y_scale,
                   .series = {{"s", {{a, b, b, a}, {b, a, a, b}}}, {"no", {}}},
                   .references = {{a, "r"}}});
          p.forest({.rows = {{"f", a, a, b, 1, "share"}}, .reference = b, .reference_label = "r"});
          p.figures({.rows = {{"f", a, a, b, 1, "share"}, {"g", b, {}, {}, 1, "nats"}}})
              .highlights({{"f", a, a, b, 1, ""}});
          const std::string html = p.html();
          INFO(a << " " << b);
          REQUIRE(mistake(html).empty());
          REQUIRE(!has(html, "nan"));
          REQUIRE(!has(html, "inf"));
          // Everything is drawn on the canvas, give or take a mark's size.
          for (const auto& d : between(html, "<path", "/>"))
            for (const auto& at : between(d, "M", " ")) REQUIRE((std::stod(at) > -20 && std::stod(at) < 740));
        }
  lab::page empty{"Lab"};
  empty.chart({}).forest({}).figures({}).highlights({}).table({}).replies({}).notes({}).settings({});
  CHECK(mistake(empty.html()).empty());
  CHECK(count(empty.html(), ">no data</text>") == 4);  // two charts, wide and narrow
  CHECK(!has(empty.html(), "<table>"));
}

TEST_CASE("lab report: ticks are round numbers") {
  using lab::axis_scale;
  const auto ticks = [](axis_scale scale, std::vector<double> values, int wanted, bool snug) {
    const auto a = lab::markup::make_axis(scale, values, wanted, snug);
    std::string text;
    for (const double t : a.ticks) text.append(text.empty() ? "" : " ").append(a.text(t));
    for (const double v : values) CHECK((a.position(v) > -1e-9 && a.position(v) < 1 + 1e-9));
    return text;
  };
  CHECK(ticks(axis_scale::log2, {1, 256}, 9, true) == "1 2 4 8 16 32 64 128 256");
  CHECK(ticks(axis_scale::log2, {1, 256}, 5, true) == "1 4 16 64 256");
  CHECK(ticks(axis_scale::log2, {3, 100}, 9, true) == "2 4 8 16 32 64 128");
  CHECK(ticks(axis_scale::log2, {0.25, 1}, 9, true) == "0.25 0.5 1");
  CHECK(ticks(axis_scale::log2, {8, 8}, 9, true) == "4 8 16");
  CHECK(ticks(axis_scale::log10, {100, 1440}, 9, true) == "100 200 500 1000 2000");
  CHECK(ticks(axis_scale::log10, {1, 1e6}, 9, true) == "1 10 100 1000 10,000 100,000 1,000,000");
  CHECK(ticks(axis_scale::linear, {0, 4.3}, 5, true) == "0 1 2 3 4");
  CHECK(ticks(axis_scale::linear, {-0.31, 0.62}, 5, false) ==
        "\xe2\x88\x92"
        "0.2 0.0 0.2 0.4 0.6");
  CHECK(ticks(axis_scale::linear, {0.5, 0.5}, 5, false) == "0.46 0.48 0.50 0.52 0.54");
  CHECK(ticks(axis_scale::linear, {0, 0}, 5, false) ==
        "\xe2\x88\x92"
        "1.0 "
        "\xe2\x88\x92"
        "0.5 0.0 0.5 1.0");
  CHECK(ticks(axis_scale::linear, {2e-9, 3e-9}, 5, false) ==
        "2e\xe2\x88\x92"
        "9 2.2e\xe2\x88\x92"
        "9 2.4e\xe2\x88\x92"
        "9 2.6e\xe2\x88\x92"
        "9 2.8e\xe2\x88\x92"
        "9 3e\xe2\x88\x92"
        "9");
  CHECK(ticks(axis_scale::linear, {12000, 30000}, 5, false) == "15,000 20,000 25,000 30,000");
}

TEST_CASE("lab report: numbers have as many digits as their intervals tell") {
  using namespace lab::markup;
  CHECK(number(-0.0004, 2) == "0.00");
  CHECK(number(-1234.5, 1) ==
        "\xe2\x88\x92"
        "1234.5");
  CHECK(number(1234567, 0) == "1,234,567");
  CHECK(number(6.02214e23, -20) == "6.022e23");
  CHECK(number(none, 2) == "n/a");
  CHECK(number(-infinity, 2) == "n/a");
  lab::page p{"Lab"};
  p.figures({.caption = "Policies",
             .rows = {labelled(share("win", 0.6372, 0.0385, 12600), "Win rate"),
                      {"ceiling", 0.84219, {}, {}, 10, "share"},
                      {"gold", 3.2142, 3.17, 3.258, 600, "points"}},
             .bars = false});
  const std::string html = p.html();
  CHECK(has(html,
            "<tr><th scope=\"row\">Win rate</th><td class=\"num strong\">63.7</td><td class=\"num\">[59.9, 67.6]</td>"
            "<td class=\"num optional\">12,600</td><td>%</td></tr>"));
  CHECK(has(html, "<th scope=\"row\">ceiling</th><td class=\"num strong\">84.2</td><td class=\"num\">n/a</td>"));
  CHECK(has(html, "<td class=\"num strong\">3.214</td><td class=\"num\">[3.170, 3.258]</td>"));
}

TEST_CASE("lab report: a forest plot shows which intervals contain the reference") {
  lab::page p{"Lab"};
  p.forest({.title = "Wins",
            .rows = {share("above", 0.6, 0.05), share("even", 0.52, 0.05), share("below", 0.4, 0.05)},
            .reference = 0.5});
  CHECK(count(p.html(), "class=\"mark hollow\"") == 2);  // one, wide and narrow
  CHECK(count(p.html(), "class=\"reference\"") == 2);
}

TEST_CASE("lab report: long words and long lines are broken, whole characters kept") {
  using lab::markup::wrap;
  CHECK(wrap("one two three", 4.4) == std::vector<std::string>{"one two", "three"});
  CHECK(wrap("abcdefghij", 2.2) == std::vector<std::string>{"abcd", "efgh", "ij"});
  CHECK(wrap("", 5) == std::vector<std::string>{""});
  CHECK(wrap("\xe4\xb8\xad\xe6\x96\x87", 1) == std::vector<std::string>{"\xe4\xb8\xad", "\xe6\x96\x87"});
}

TEST_CASE("lab report: replies stand beside each other with score and reasons; long ones scroll") {
  lab::page p{"Lab"};
  p.replies(
      {.prompt = "how many ?",
       .replies = {{"SFT", "two .", 1.05, "is wrong"}, {"DPO", std::string(2000, 'x'), 4.0, ""}, {"no", "", {}, ""}}});
  const std::string html = p.html();
  CHECK(count(html, "<div class=\"reply\">") == 3);
  CHECK(has(html, "<b>1.05</b> of 4</span>"));
  CHECK(has(html, "<b>Judge:</b> is wrong"));
  CHECK(has(html, "aria-label=\"Prompt 1, reply of DPO\""));
  CHECK(count(html, "<div class=\"said long\" tabindex=\"0\"") == 1);
  CHECK(has(html, "(nothing)"));
}

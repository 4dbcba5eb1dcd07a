// Files with something wrong in them: each gives a sentence with file and line, and what stands before and after is
// read.
#include "support/data_files.hpp"

using namespace plumb::data;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// `bad` stands on line 3, between two good lines before it and one after it.
struct wrong {
  const char* what;
  format of;
  std::string bad;
  std::string says;  // of "plumb: data.jsonl:3: <says>[...]. 2 records were read before it."
};

const std::string u = R"({"role": "user", "content": "q"})", a = R"({"role": "assistant", "content": "x"})";
std::string hh(const std::string& chosen, const std::string& rejected) {
  return "{\"chosen\": " + chosen + ", \"rejected\": " + rejected + "}";
}
std::string nested(std::size_t depth) {
  return "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", \"x\": " + std::string(depth, '[') +
         std::string(depth, ']') + "}";
}
std::string many_keys_one_twice() {
  std::string out = "{";
  for (int i = 0; i < 100; ++i) out += "\"k" + std::to_string(i) + "\": 0, ";
  return out + R"("k57": 1, "prompt": "p", "chosen": "a", "rejected": "b"})";
}

const std::vector<wrong> table = {
    // Not JSON.
    {"words", format::hh_rlhf, "hello there", "the line is not JSON (begins: \"hello there\")"},
    {"cut off", format::hh_rlhf, R"({"chosen": "a", "rejected": )",
     "it does not end with \"}\", and a record has to be on one line"},
    {"cut off in a string", format::hh_rlhf, R"({"chosen": "a", "rejected": "b)", "a string that is not closed"},
    {"pretty-printed", format::hh_rlhf, "{", "a record has to be on one line"},
    {"two records on a line", format::hh_rlhf, R"({"chosen": "a", "rejected": "b"} {"chosen": "a", "rejected": "b"})",
     "the line is not JSON"},
    {"a comma too many", format::hh_rlhf, R"({"chosen": "a", "rejected": "b",})", "the line is not JSON"},
    {"a comma too few", format::hh_rlhf, R"({"chosen": "a" "rejected": "b"})", "the line is not JSON"},
    {"a key without quotes", format::hh_rlhf, R"({chosen: "a", "rejected": "b"})", "the line is not JSON"},
    {"single quotes", format::hh_rlhf, R"({'chosen': 'a', 'rejected': 'b'})", "the line is not JSON"},
    {"invalid UTF-8", format::hh_rlhf, hh("\"\xff\xfe\"", "\"b\""), "the line is not valid UTF-8"},
    {"Latin-1", format::hh_rlhf, hh("\"caf\xe9\"", "\"b\""), "the line is not valid UTF-8"},
    {"an overlong encoding", format::hh_rlhf, hh("\"\xc0\xaf\"", "\"b\""), "the line is not valid UTF-8"},
    {"a surrogate in UTF-8", format::hh_rlhf, hh("\"\xed\xa0\x80\"", "\"b\""), "the line is not valid UTF-8"},
    {"half a surrogate pair", format::hh_rlhf, hh(R"("\ud800")", "\"b\""), "an escape that means nothing"},
    {"an unknown escape", format::hh_rlhf, hh(R"("\q")", "\"b\""), "an escape that means nothing"},
    {"a control character", format::hh_rlhf, hh("\"a\tb\"", "\"b\""), "a control character that is not escaped"},
    {"a NUL", format::hh_rlhf, hh(std::string("\"a\0b\"", 5), "\"b\""), "a control character that is not escaped"},
    {"NaN", format::hh_rlhf, R"({"chosen": NaN, "rejected": "b"})", "the line is not JSON"},
    {"a number that is none", format::hh_rlhf, R"({"chosen": 1.2.3, "rejected": "b"})", "a number that is not one"},
    {"nested too deeply", format::trl_preference, nested(5000), "the JSON is nested too deeply"},
    {"nested too deeply and not closed", format::trl_preference, std::string(100000, '['), "the line is not JSON"},
    // Not a record.
    {"a list", format::hh_rlhf, R"([{"chosen": "a", "rejected": "b"}])",
     "the line must be an object, but is a list (jq -c '.[]' makes lines of a list)."},
    {"a string", format::hh_rlhf, R"("chosen")", "the line must be an object, but is the string \"chosen\"."},
    {"null", format::hh_rlhf, "null", "the line must be an object, but is null."},
    {"an empty object", format::hh_rlhf, "{}", "field \"chosen\" is missing (found: no field)."},
    {"a missing field", format::trl_preference, R"({"prompt": "p", "rejected": "b"})",
     "field \"chosen\" is missing (found: \"prompt\", \"rejected\")."},
    {"a missing prompt", format::trl_preference, R"({"chosen": "a", "rejected": "b"})",
     "field \"prompt\" is missing (found: \"chosen\", \"rejected\")."},
    {"a field of another case", format::hh_rlhf, R"({"Chosen": "a", "rejected": "b"})",
     "field \"chosen\" is missing (found: \"Chosen\", \"rejected\")."},
    {"duplicate keys", format::hh_rlhf, R"({"chosen": "a", "rejected": "b", "chosen": "c"})",
     "field \"chosen\" is there twice."},
    {"duplicate keys, one escaped", format::hh_rlhf, R"({"chosen": "a", "rejected": "b", "\u0063hosen": "c"})",
     "field \"chosen\" is there twice."},
    {"duplicate keys among many", format::trl_preference, many_keys_one_twice(), "field \"k57\" is there twice."},
    // Wrong types.
    {"a number for a string", format::hh_rlhf, hh("3", "\"b\""),
     "field \"chosen\" must be a string, but is the number 3."},
    {"a list for a string", format::hh_rlhf, hh("[]", "\"b\""), "field \"chosen\" must be a string, but is a list."},
    {"null for a string", format::hh_rlhf, hh("\"a\"", "null"), "field \"rejected\" must be a string, but is null."},
    {"an object for a string", format::trl_preference, R"({"prompt": {}, "chosen": "a", "rejected": "b"})",
     "field \"prompt\" must be a string or a list of messages, but is an object."},
    {"true for a string", format::trl_preference, R"({"prompt": "p", "chosen": true, "rejected": "b"})",
     "field \"chosen\" must be a string or a list of messages, but is true."},
    {"a margin in words", format::trl_preference, R"({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "big"})",
     "field \"margin\" must be a number, but is the string \"big\"."},
    // HH-RLHF.
    {"prompts that differ", format::hh_rlhf,
     hh(R"("\n\nHuman: a\n\nAssistant: x")", R"("\n\nHuman: b\n\nAssistant: y")"),
     "fields \"chosen\" and \"rejected\" share no prompt: up to where they differ there is no \"\\n\\nAssistant:\"."},
    {"no assistant", format::hh_rlhf, hh("\"a\"", "\"b\""), "fields \"chosen\" and \"rejected\" share no prompt"},
    // Chat.
    {"a message that is a string", format::trl_preference, R"({"prompt": "p", "chosen": ["x"], "rejected": ["y"]})",
     "field \"chosen[0]\" must be a message {role, content}, but is the string \"x\"."},
    {"a message without content", format::trl_preference,
     "{\"prompt\": [" + u + "], \"chosen\": [" + a + R"(, {"role": "user"}], "rejected": []})",
     "field \"chosen[1].content\" is missing (found: \"role\")."},
    {"content that is a list", format::trl_preference,
     R"({"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "chosen": [], "rejected": []})",
     "field \"prompt[0].content\" must be a string, but is a list."},
    {"content that is null", format::trl_preference,
     "{\"prompt\": [" + u + R"(], "chosen": [{"role": "assistant", "content": null}], "rejected": []})",
     "field \"chosen[0].content\" must be a string, but is null."},
    {"a role that is a number", format::trl_preference,
     R"({"prompt": [{"role": 1, "content": "q"}], "chosen": [], "rejected": []})",
     "field \"prompt[0].role\" must be a string, but is the number 1."},
    {"an empty role", format::trl_preference,
     R"({"prompt": [{"role": "", "content": "q"}], "chosen": [], "rejected": []})",
     "field \"prompt[0].role\" is empty."},
    {"a role twice", format::trl_preference,
     R"({"prompt": [{"role": "user", "content": "q", "role": "user"}], "chosen": [], "rejected": []})",
     "field \"prompt[0].role\" is there twice."},
    {"ShareGPT's keys", format::trl_preference,
     R"({"prompt": [{"from": "human", "value": "q"}], "chosen": [], "rejected": []})",
     "field \"prompt[0].role\" is missing (found: \"from\", \"value\")."},
    {"sides of two kinds", format::trl_preference, "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": [" + a + "]}",
     "fields \"chosen\" and \"rejected\" must both be strings or both be lists of messages."},
    {"a chat prompt and text sides", format::trl_preference,
     "{\"prompt\": [" + u + R"(], "chosen": "a", "rejected": "b"})",
     "field \"prompt\" is a list of messages, but \"chosen\" and \"rejected\" are strings."},
    {"conversations that share nothing", format::trl_preference,
     "{\"chosen\": [" + u + "," + a + R"(], "rejected": [{"role": "user", "content": "other"},)" + a + "]}",
     "fields \"chosen\" and \"rejected\" share no prompt: up to where they differ the assistant does not speak next in "
     "both."},
    // Unpaired.
    {"a label that is a number", format::unpaired, R"({"prompt": "p", "completion": "c", "label": 1})",
     "field \"label\" must be true or false, but is the number 1."},
    {"a label that is a string", format::unpaired, R"({"prompt": "p", "completion": "c", "label": "true"})",
     "field \"label\" must be true or false, but is the string \"true\"."},
    {"no label", format::unpaired, R"({"prompt": "p", "completion": "c"})",
     "field \"label\" is missing (found: \"prompt\", \"completion\")."},
    // HelpSteer2.
    {"a rating of 5", format::helpsteer2,
     R"({"prompt": "p", "response": "r", "helpfulness": 5, "correctness": 0, "coherence": 0, "complexity": 0, "verbosity": 0})",
     "field \"helpfulness\" must be an integer from 0 to 4, but is the number 5."},
    {"a rating of 2.5", format::helpsteer2,
     R"({"prompt": "p", "response": "r", "helpfulness": 2.5, "correctness": 0, "coherence": 0, "complexity": 0, "verbosity": 0})",
     "field \"helpfulness\" must be an integer from 0 to 4, but is the number 2.5."},
    {"the ratings of all annotators", format::helpsteer2,
     R"({"prompt": "p", "response": "r", "helpfulness": [1, 2], "correctness": 0, "coherence": 0, "complexity": 0, "verbosity": 0})",
     "field \"helpfulness\" must be an integer from 0 to 4, but is a list."},
    {"four of five attributes", format::helpsteer2,
     R"({"prompt": "p", "response": "r", "helpfulness": 1, "correctness": 0, "coherence": 0, "complexity": 0})",
     "field \"verbosity\" is missing (found: \"prompt\", \"response\", \"helpfulness\", \"correctness\", "
     "\"coherence\", \"complexity\")."},
    {"a strength of 4", format::helpsteer2_preference,
     R"({"prompt": "p", "response_1": "r", "response_2": "s", "preference_strength": 4})",
     "field \"preference_strength\" must be an integer from -3 to 3, but is the number 4."},
    // UltraFeedback.
    {"completions that are none", format::ultrafeedback, R"({"instruction": "p", "completions": {}})",
     "field \"completions\" must be a list, but is an object."},
    {"a completion that is a string", format::ultrafeedback, R"({"instruction": "p", "completions": ["r"]})",
     "field \"completions[0]\" must be an object, but is the string \"r\"."},
    {"a completion without response", format::ultrafeedback,
     R"({"instruction": "p", "completions": [{"overall_score": 1}]})",
     "field \"completions[0].response\" is missing (found: \"overall_score\")."},
    {"a rating in words", format::ultrafeedback,
     R"({"instruction": "p", "completions": [{"response": "r", "overall_score": "good"}]})",
     "field \"completions[0].overall_score\" must be a number or \"N/A\", but is the string \"good\"."},
    {"a rating that is a list", format::ultrafeedback,
     R"({"instruction": "p", "completions": [{"response": "r", "overall_score": [1]}]})",
     "field \"completions[0].overall_score\" must be a number or \"N/A\", but is a list."},
    {"annotations that are a list", format::ultrafeedback,
     R"({"instruction": "p", "completions": [{"response": "r", "annotations": []}]})",
     "field \"completions[0].annotations\" must be an object, but is a list."},
};

std::string good(format f, int i) {
  const std::string n = std::to_string(i);
  switch (f) {
    case format::hh_rlhf:
      return R"({"chosen": "\n\nHuman: q\n\nAssistant: )" + n + R"(", "rejected": "\n\nHuman: q\n\nAssistant: no"})";
    case format::trl_preference:
      return R"({"prompt": "q", "chosen": ")" + n + R"(", "rejected": "no"})";
    case format::unpaired:
      return R"({"prompt": "q", "completion": ")" + n + R"(", "label": true})";
    case format::helpsteer2:
      return R"({"prompt": "q", "response": ")" + n +
             R"(", "helpfulness": 1, "correctness": 2, "coherence": 3, "complexity": 4, "verbosity": 0})";
    case format::helpsteer2_preference:
      return R"({"prompt": "q", "response_1": ")" + n + R"(", "response_2": "no", "preference_strength": -1})";
    default:
      return R"({"instruction": "q", "completions": [{"response": ")" + n +
             R"(", "overall_score": 2}, {"response": "no", "overall_score": 1}]})";
  }
}

const std::string& reply(const preference_pair& p) { return p.chosen.text; }
const std::string& reply(const unpaired_example& e) { return e.completion.text; }
const std::string& reply(const rated_response& r) { return r.response.text; }

template <class Reader>
void check(const wrong& w, const std::string& text, read_options options) {
  auto r = read_text<Reader>(text, options);
  REQUIRE(r.sentences.size() == 1);
  CHECK_THAT(r.sentences[0], Catch::Matchers::StartsWith("plumb: data.jsonl:3: "));
  CHECK_THAT(r.sentences[0], ContainsSubstring(w.says));
  CHECK_THAT(r.sentences[0], Catch::Matchers::EndsWith(". 2 records were read before it."));
  CHECK(r.sentences[0].find('\n') == std::string::npos);
  REQUIRE(r.records.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK_THAT(reply(r.records[i]), ContainsSubstring(std::to_string(i)));
  CHECK(r.summary.errors == 1);
  CHECK(r.summary.dropped() == 0);

  options.on_error = on_error::skip;
  const auto skipped = read_text<Reader>(text, options);
  CHECK(skipped.sentences.empty());
  CHECK(skipped.records.size() == 3);
  CHECK(skipped.summary.first_errors == r.sentences);
  CHECK(skipped.summary.errors == 1);
}

}  // namespace

TEST_CASE("malformed: a sentence with file and line, and nothing around it is lost") {
  CHECK(table.size() >= 30);
  for (const wrong& w : table) {
    CAPTURE(w.what);
    const std::string text = good(w.of, 0) + "\n" + good(w.of, 1) + "\n" + w.bad + "\n" + good(w.of, 2) + "\n";
    for (const format f : {w.of, format::detect}) {
      const read_options options{.format = f};
      if (w.of == format::unpaired) {
        check<unpaired_reader>(w, text, options);
      } else if (w.of == format::helpsteer2) {
        check<rating_reader>(w, text, options);
      } else {
        check<preference_reader>(w, text, options);
      }
    }
  }
}

TEST_CASE("malformed: whole files") {
  const std::string one = good(format::hh_rlhf, 0) + "\n", two = good(format::hh_rlhf, 1) + "\n";
  const auto sentence = [](std::string_view text, read_options options = {}) {
    const auto r = read_text<preference_reader>(text, options);
    return r.sentences.empty() ? std::string("(none)") : r.sentences[0];
  };
  CHECK_THAT(sentence(gzip(one + two).substr(0, 60)),
             ContainsSubstring("the gzip data end too early: the file is cut off. "));
  const auto packed = read_text<preference_reader>(gzip(one + two) + gzip(one).substr(0, 20));
  CHECK(packed.records.size() == 2);
  CHECK(packed.sentences ==
        std::vector<std::string>{
            "plumb: data.jsonl:3: the gzip data end too early: the file is cut off. 2 records were read before it."});
  // A list over many lines is one error, not one for each of its lines; behind records it is a wrong line like any other.
  for (const std::string& list : {"[\n" + good(format::hh_rlhf, 0) + ",\n" + good(format::hh_rlhf, 1) + "\n]\n",
                                  " [ " + good(format::hh_rlhf, 0) + ",\r\n" + good(format::hh_rlhf, 1) + "]\r\n"}) {
    const auto r = read_text<preference_reader>(list);
    CHECK(r.records.empty());
    CHECK(r.sentences == std::vector<std::string>{"plumb: data.jsonl:1: the file is one list, over many lines; one record a line is "
                                                  "wanted (jq -c '.[]' makes lines of a list). 0 records were read before it."});
  }
  CHECK(read_text<preference_reader>(one + "[\n" + two).records.size() == 2);
  const std::string dropped = "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"a\"}\n";
  CHECK(read_text<preference_reader>(dropped + "[\n" + good(format::trl_preference, 0) + "\n").records.size() == 1);
  CHECK(read_text<preference_reader>("[" + one.substr(0, one.size() - 1) + "]\n" + two).records.size() == 1);
  CHECK_THAT(sentence("\xff\xfe{\0"),
             ContainsSubstring("data.jsonl:1: the text begins as UTF-16 does, but has to be UTF-8."));
  const auto limited = read_text<preference_reader>(one + std::string(std::size_t{100} << 20, ' ') + "x\n" + two);
  CHECK(limited.records.size() == 2);
  CHECK(limited.sentences ==
        std::vector<std::string>{
            "plumb: data.jsonl:2: the line has 104857601 bytes, more than option `max_line_bytes` allows "
            "(67108864). 1 record was read before it."});
  CHECK(sentence(R"({"question": "q", "answer": "a"})") ==
        "plumb: data.jsonl:1: the keys fit no format that is read (found: \"question\", \"answer\"). 0 records were "
        "read before it.");
  CHECK(sentence(R"({"prompt": "q", "chosen": "a", "rejected": "b", "completion": "c", "label": true})") ==
        "plumb: data.jsonl:1: the keys fit several formats (trl_preference, unpaired): name one with option `format`. "
        "0 records were "
        "read before it.");
  CHECK(sentence(good(format::unpaired, 0)) ==
        "plumb: data.jsonl:1: the record is of format unpaired, which preference_reader does not read (unpaired_reader "
        "does). 0 records "
        "were read before it.");
}

TEST_CASE("malformed: a wrong row of HelpSteer2 takes no other with it") {
  const auto row = [](const char* prompt, const char* response, const char* rating) {
    return std::string("{\"prompt\": \"") + prompt + "\", \"response\": \"" + response +
           "\", \"helpfulness\": " + rating +
           ", \"correctness\": 3, \"coherence\": 4, \"complexity\": 1, \"verbosity\": 0}\n";
  };
  const auto r =
      read_text<preference_reader>(row("p", "a", "1") + row("p", "b", "9") + row("q", "a", "1") + row("q", "b", "2"));
  CHECK(r.records.size() == 1);
  CHECK(r.summary.errors == 1);
  CHECK(r.summary.dropped(drop::no_partner) == 1);
}

TEST_CASE("malformed: half an UltraFeedback record counts for nothing") {
  const auto r = read_text<rating_reader>(
      R"({"instruction": "p", "completions": [{"response": "a", "overall_score": 1}, {"response": "b"}, {"response": 3}]})");
  CHECK(r.records.empty());
  CHECK(r.summary.dropped() == 0);
  CHECK(r.summary.errors == 1);
}

TEST_CASE("malformed: what is quoted is short and on one line, and the sentence is whole") {
  std::string key, keys;
  for (int i = 0; i < 1000; ++i) key += "\\n\xc3\xa9";
  for (int i = 0; i < 50; ++i) keys += "\"" + std::to_string(i) + key + "\": 0, ";
  const std::string name = "/" + std::string(2000, 'd') + "/data.jsonl", text = "{" + keys + "\"chosen\": \"\"}";
  const auto r = read_all<preference_reader>(input::from_memory(text, name), {.format = format::hh_rlhf});
  REQUIRE(r.sentences.size() == 1);
  CHECK(r.sentences[0].size() < 511);
  CHECK(r.sentences[0].find('\n') == std::string::npos);
  CHECK(simdjson::validate_utf8(r.sentences[0].data(), r.sentences[0].size()));
  CHECK_THAT(r.sentences[0], Catch::Matchers::StartsWith("plumb: ...ddd"));
  CHECK_THAT(r.sentences[0], ContainsSubstring("/data.jsonl:1: field \"rejected\" is missing (found: "));
  CHECK_THAT(r.sentences[0], Catch::Matchers::EndsWith(". 0 records were read before it."));
}

TEST_CASE("summary: counts, reasons and first errors, for people") {
  std::string text = "\xef\xbb\xbf" + good(format::hh_rlhf, 0) + "\r\n\n";
  text += hh(R"("\n\nHuman: q\n\nAssistant: a")", R"("\n\nHuman: q\n\nAssistant: ")") + "\n";
  for (int i = 0; i < 7; ++i) text += "x\n";
  text += good(format::hh_rlhf, 1);
  const auto s = read_text<preference_reader>(text, {.on_error = on_error::skip, .remembered_errors = 2}).summary;
  CHECK(s.lines == s.records + s.dropped() + s.blank_lines + s.errors);
  CHECK(s.to_text() == "data.jsonl (hh_rlhf): 11 lines, 2 records, 1 dropped, 7 errors, " +
                           std::to_string(text.size()) +
                           " bytes of text\n"
                           "  dropped, empty replies: 1\n"
                           "  blank lines, passed over: 1\n"
                           "  lines that end in CRLF: 1\n"
                           "  the file begins with a byte order mark\n"
                           "  plumb: data.jsonl:4: the line is not JSON (begins: \"x\"). 1 record was read before it.\n"
                           "  plumb: data.jsonl:5: the line is not JSON (begins: \"x\"). 1 record was read before it.\n"
                           "  more errors: 5\n");
  const std::string packed = gzip(good(format::hh_rlhf, 0));
  CHECK(read_text<preference_reader>(packed).summary.to_text() ==
        "data.jsonl (hh_rlhf, gzip): 1 line, 1 record, 0 dropped, 0 errors, " +
            std::to_string(good(format::hh_rlhf, 0).size()) + " bytes of text (" + std::to_string(packed.size()) +
            " compressed)\n");
}

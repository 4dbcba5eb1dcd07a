// Each format: what becomes prompt and replies, what is dropped and why, how it is recognised.
#include "support/data_files.hpp"

using namespace plumb::data;
using namespace plumb_test;
using Catch::Matchers::ContainsSubstring;

namespace {
const turn hello{"user", "hello"}, hi{"assistant", "hi"}, how{"user", "how are you?"}, well{"assistant", "well"},
    bad{"assistant", "bad"};
using turns = std::vector<turn>;
}  // namespace

TEST_CASE("hh_rlhf: the prompt ends at the last assistant turn that both sides share") {
  const auto r = read_text<preference_reader>(
      R"({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: good", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: bad"}
{"chosen": "\n\nHuman: a\n\nAssistant: one\n\nHuman: x\n\nAssistant: y", "rejected": "\n\nHuman: a\n\nAssistant: other\n\nHuman: z\n\nAssistant: w"}
{"chosen": "\n\nHuman: a\n\nAssistant: same start", "rejected": "\n\nHuman: a\n\nAssistant: same end"}
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"}
)");
  REQUIRE(r.records.size() == 4);
  CHECK(r.summary.format == format::hh_rlhf);
  CHECK(r.records[0].prompt.text == "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");
  CHECK(r.records[0].chosen.text == " good");
  CHECK(r.records[0].rejected.text == " bad");
  CHECK(r.records[1].prompt.text == "\n\nHuman: a\n\nAssistant:");
  CHECK(r.records[1].chosen.text == " one\n\nHuman: x\n\nAssistant: y");  // what follows stays
  CHECK(r.records[2].chosen.text == " same start");
  CHECK(r.records[3].prompt.text == "\n\nHuman: a\n\nAssistant:");  // one side is the beginning of the other
  CHECK(r.records[3].chosen.text == " b");
  CHECK(r.records[3].rejected.text == " b\n\nHuman: c\n\nAssistant: d");
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(r.records[i].line == static_cast<std::int64_t>(i) + 1);
    CHECK(!r.records[i].margin);
    CHECK(!r.records[i].prompt.is_chat());
  }
}

TEST_CASE("hh_rlhf: empty and identical replies are dropped and counted") {
  const auto r = read_text<preference_reader>(
      R"({"chosen": "\n\nHuman: a\n\nAssistant: ", "rejected": "\n\nHuman: a\n\nAssistant: b"}
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"}
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b"}
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"})");
  CHECK(r.records.size() == 1);
  CHECK(r.summary.dropped(drop::empty_reply) == 2);
  CHECK(r.summary.dropped(drop::identical_replies) == 1);
  CHECK(r.summary.lines == 4);
  CHECK(r.sentences.empty());
}

TEST_CASE("hh_rlhf: real transcripts, all accounted for") {
  const char* path = std::getenv("PLUMB_HH_DATA");
  if (path == nullptr) return skip("PLUMB_HH_DATA names no file of HH-RLHF");
  const auto r = read_all<preference_reader>(path);
  CHECK(r.sentences.empty());
  CHECK(r.summary.format == format::hh_rlhf);
  CHECK(r.summary.lines == r.summary.records + r.summary.dropped());
  for (const auto& pair : r.records) {
    REQUIRE(pair.prompt.text.ends_with("\n\nAssistant:"));
    REQUIRE(!pair.chosen.blank());
    REQUIRE(!pair.rejected.blank());
    REQUIRE(pair.chosen != pair.rejected);
  }
}

TEST_CASE("trl_preference: text") {
  const auto r = read_text<preference_reader>(
      R"({"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "margin": 1.5, "extra": [1]}
{"prompt": "", "chosen": "a", "rejected": "b", "margin": null}
{"prompt": "p", "chosen": "a", "rejected": " \n"})");
  REQUIRE(r.records.size() == 2);
  CHECK(r.summary.format == format::trl_preference);
  CHECK(r.records[0].prompt.text == "The sky is");
  CHECK(r.records[0].chosen.text == " blue.");
  CHECK(r.records[0].rejected.text == " green.");
  CHECK(r.records[0].margin == 1.5);
  CHECK(!r.records[1].margin);
  CHECK(r.summary.dropped(drop::empty_reply) == 1);
}

TEST_CASE("trl_preference: chat with its prompt, repeated in the sides or not") {
  const char* prompt =
      R"({"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "how are you?"})";
  const std::string explicit_prompt =
      std::string("{\"prompt\": [") + prompt +
      R"(], "chosen": [{"role": "assistant", "content": "well"}], "rejected": [{"role": "assistant", "content": "bad"}]})";
  const std::string repeated = std::string("{\"prompt\": [") + prompt + "], \"chosen\": [" + prompt +
                               R"(, {"content": "well", "role": "assistant"}], "rejected": [)" + prompt +
                               R"(, {"content": "bad", "role": "assistant", "name": "x"}]})";
  const std::string implicit = std::string("{\"chosen\": [") + prompt +
                               R"(, {"content": "well", "role": "assistant"}], "rejected": [)" + prompt +
                               R"(, {"content": "bad", "role": "assistant"}]})";
  const std::string beside_text = "{\"prompt\": \"how are you?\", " + implicit.substr(1);
  for (const std::string& line : {explicit_prompt, repeated, implicit, beside_text}) {
    CAPTURE(line);
    const auto r = read_text<preference_reader>(line);
    REQUIRE(r.records.size() == 1);
    CHECK(r.summary.format == format::trl_preference);
    CHECK(r.records[0].prompt.turns == turns{hello, hi, how});
    CHECK(r.records[0].prompt.text.empty());
    CHECK(r.records[0].chosen.turns == turns{well});
    CHECK(r.records[0].rejected.turns == turns{bad});
  }
}

TEST_CASE("trl_preference: conversations that part early or end inside one another") {
  const auto pair = [](const std::string& chosen, const std::string& rejected) {
    return read_text<preference_reader>("{\"chosen\": [" + chosen + "], \"rejected\": [" + rejected + "]}");
  };
  const std::string u = R"({"role": "user", "content": "hello"})", a = R"({"role": "assistant", "content": "hi"})",
                    b = R"({"role": "assistant", "content": "well"})",
                    v = R"({"role": "user", "content": "how are you?"})";
  auto r = pair(u + "," + a + "," + v + "," + b, u + "," + b);
  REQUIRE(r.records.size() == 1);
  CHECK(r.records[0].prompt.turns == turns{hello});
  CHECK(r.records[0].chosen.turns == turns{hi, how, well});
  CHECK(r.records[0].rejected.turns == turns{well});
  r = pair(u + "," + a, u + "," + a + "," + v + "," + b);
  REQUIRE(r.records.size() == 1);
  CHECK(r.records[0].prompt.turns == turns{hello});
  CHECK(r.records[0].chosen.turns == turns{hi});
  r = pair(u + "," + a + "," + v, u + "," + a + "," + u);  // they part at the user: back to where the assistant speaks
  REQUIRE(r.records.size() == 1);
  CHECK(r.records[0].prompt.turns == turns{hello});
  r = pair(u + "," + a, u + "," + a);
  CHECK(r.summary.dropped(drop::identical_replies) == 1);
  r = pair(u + "," + a, v + "," + b);
  REQUIRE(r.sentences.size() == 1);
  CHECK_THAT(r.sentences[0], ContainsSubstring("data.jsonl:1: fields \"chosen\" and \"rejected\" share no prompt"));
}

TEST_CASE("unpaired: text and chat") {
  const auto r = read_text<unpaired_reader>(
      R"({"prompt": "2+2=", "completion": "4", "label": true}
{"prompt": [{"role": "user", "content": "hello"}], "completion": [{"role": "assistant", "content": "bad"}], "label": false}
{"prompt": "2+2=", "completion": " ", "label": false}
{"prompt": "2+2=", "completion": [], "label": false})");
  REQUIRE(r.records.size() == 2);
  CHECK(r.records[0].prompt.text == "2+2=");
  CHECK(r.records[0].completion.text == "4");
  CHECK(r.records[0].label);
  CHECK(r.records[1].prompt.turns == turns{hello});
  CHECK(r.records[1].completion.turns == turns{bad});
  CHECK(!r.records[1].label);
  CHECK(r.records[1].line == 2);
  CHECK(r.summary.dropped(drop::empty_reply) == 1);
  REQUIRE(r.sentences.size() == 1);
  CHECK_THAT(r.sentences[0], ContainsSubstring("\"prompt\" and \"completion\" must both be strings or both be lists"));
}

namespace {
std::string row(const char* prompt, const char* response, int helpfulness) {
  return std::string("{\"prompt\": \"") + prompt + "\", \"response\": \"" + response +
         "\", \"helpfulness\": " + std::to_string(helpfulness) +
         ", \"correctness\": 3, \"coherence\": 4, \"complexity\": 1, \"verbosity\": 0}\n";
}
}  // namespace

TEST_CASE("helpsteer2: rows") {
  const auto r = read_text<rating_reader>(row("p", "a", 2) + row("p", "", 2) + row("p", "b", 4));
  REQUIRE(r.records.size() == 2);
  CHECK(r.records[0].prompt.text == "p");
  CHECK(r.records[0].response.text == "a");
  CHECK(r.records[0].ratings == std::vector<double>{2, 3, 4, 1, 0});
  CHECK(r.records[1].line == 3);
  CHECK(r.summary.dropped(drop::empty_reply) == 1);
  const std::string text = row("p", "a", 2);
  rating_reader reader(input::from_memory(text));
  CHECK(attributes(reader).empty());
  reader.next();
  CHECK(attributes(reader) ==
        std::vector<std::string>{"helpfulness", "correctness", "coherence", "complexity", "verbosity"});
}

TEST_CASE("helpsteer2: pairs of adjacent rows") {
  const auto r = read_text<preference_reader>(row("p", "worse", 1) + row("p", "better", 4) +  //
                                              row("q", "better", 3) + row("q", "worse", 2) +  //
                                              row("r", "a", 2) + row("r", "b", 2) +           // a tie
                                              row("s", "alone", 2) +                          //
                                              row("t", "same", 1) + row("t", "same", 3) +     //
                                              row("u", "last", 2));
  REQUIRE(r.records.size() == 2);
  CHECK(r.summary.format == format::helpsteer2);
  CHECK(r.records[0].chosen.text == "better");
  CHECK(r.records[0].rejected.text == "worse");
  CHECK(r.records[0].margin == 3.0);
  CHECK(r.records[0].chosen_rating == 4.0);
  CHECK(r.records[0].rejected_rating == 1.0);
  CHECK(r.records[0].line == 1);
  CHECK(r.records[1].prompt.text == "q");
  CHECK(r.records[1].chosen.text == "better");
  CHECK(r.records[1].margin == 1.0);
  CHECK(r.records[1].line == 3);
  CHECK(r.summary.dropped(drop::tie) == 1);
  CHECK(r.summary.dropped(drop::no_partner) == 2);
  CHECK(r.summary.dropped(drop::identical_replies) == 1);
}

TEST_CASE("helpsteer2_preference: the sign says which, the size how much") {
  const auto line = [](int strength) {
    return std::string(
               R"({"split": "train", "prompt": "p", "response_1": "one", "response_2": "two", "preference_strength": )") +
           std::to_string(strength) + "}\n";
  };
  const auto r = read_text<preference_reader>(line(-3) + line(0) + line(2) + line(-100) + line(4));
  REQUIRE(r.records.size() == 2);
  CHECK(r.summary.format == format::helpsteer2_preference);
  CHECK(r.records[0].chosen.text == "one");
  CHECK(r.records[0].margin == 3.0);
  CHECK(r.records[1].chosen.text == "two");
  CHECK(r.records[1].rejected.text == "one");
  CHECK(r.records[1].margin == 2.0);
  CHECK(r.summary.dropped(drop::tie) == 1);
  CHECK(r.summary.dropped(drop::invalid) == 1);
  REQUIRE(r.sentences.size() == 1);
  CHECK(r.sentences[0] ==
        "plumb: data.jsonl:5: field \"preference_strength\" must be an integer from -3 to 3, but is the number 4. "
        "2 records were read before it.");
}

namespace {
const char* const feedback =
    R"({"instruction": "p", "completions": [
 {"model": "m", "response": "a", "overall_score": 6.5, "annotations": {"helpfulness": {"Rating": "2", "Rationale": "..."}, "honesty": {"Rating": "N/A"}}},
 {"response": "b", "overall_score": 9, "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": 3}}},
 {"response": "c", "overall_score": "N/A", "annotations": {"helpfulness": {"Rating": "N/A"}}},
 {"response": "d", "overall_score": 3, "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": "4.5"}}},
 {"response": " ", "overall_score": 10}]})";
std::string one_line(std::string text) {
  std::erase(text, '\n');
  return text + "\n";
}
}  // namespace

TEST_CASE("ultrafeedback: ratings") {
  auto r = read_text<rating_reader>(one_line(feedback));
  REQUIRE(r.records.size() == 3);
  CHECK(r.summary.format == format::ultrafeedback);
  CHECK(r.records[0].prompt.text == "p");
  CHECK(r.records[0].ratings == std::vector<double>{6.5});
  CHECK(r.records[1].ratings == std::vector<double>{9});
  CHECK(r.records[2].response.text == "d");
  CHECK(r.summary.dropped(drop::no_rating) == 1);
  CHECK(r.summary.dropped(drop::empty_reply) == 1);
  r = read_text<rating_reader>(one_line(feedback), {.ratings = {"helpfulness", "honesty"}});
  REQUIRE(r.records.size() == 3);
  CHECK(r.records[0].ratings == std::vector<double>{2, missing_rating});
  CHECK(r.records[1].ratings == std::vector<double>{5, 3});
  CHECK(r.records[2].ratings == std::vector<double>{5, 4.5});
  CHECK(r.summary.dropped(drop::no_rating) == 2);  // "c", and the blank one has none of these
}

TEST_CASE("ultrafeedback: best and worst") {
  auto r = read_text<preference_reader>(one_line(feedback));
  REQUIRE(r.records.size() == 1);
  CHECK(r.records[0].chosen.text == "b");
  CHECK(r.records[0].rejected.text == "d");
  CHECK(r.records[0].margin == 6.0);
  r = read_text<preference_reader>(one_line(feedback), {.ratings = {"helpfulness"}});
  REQUIRE(r.records.size() == 1);
  CHECK(r.records[0].chosen.text == "b");  // the earlier of two
  CHECK(r.records[0].rejected.text == "a");
  CHECK(r.records[0].margin == 3.0);
  r = read_text<preference_reader>(
      R"({"prompt": "p", "completions": [{"response": "a", "overall_score": 1}, {"response": "b", "overall_score": 1}]}
{"prompt": "p", "completions": [{"response": "a", "overall_score": 1}, {"response": "b"}]}
{"prompt": "p", "completions": []})");
  CHECK(r.records.empty());
  CHECK(r.summary.dropped(drop::tie) == 1);
  CHECK(r.summary.dropped(drop::too_few_ratings) == 2);
  CHECK(r.summary.dropped(drop::no_rating) == 1);
}

TEST_CASE("ultrafeedback: best and a random lower one, the same for the same seed") {
  std::string text;
  for (int i = 0; i < 300; ++i) text += one_line(feedback);
  const auto rejected = [&](std::uint64_t seed) {
    std::string all;
    for (const auto& pair :
         read_text<preference_reader>(text, {.pairing = pairing::best_and_random_lower, .seed = seed}).records) {
      CHECK(pair.chosen.text == "b");
      CHECK(pair.margin == 9 - (pair.rejected.text == "a" ? 6.5 : 3));
      all += pair.rejected.text;
    }
    return all;
  };
  const std::string first = rejected(1);
  CHECK(first.size() == 300);
  CHECK(first == rejected(1));
  CHECK(first != rejected(2));
  const auto a = std::count(first.begin(), first.end(), 'a');
  CHECK(a + std::count(first.begin(), first.end(), 'd') == 300);
  CHECK(a > 100);  // 150 +- 8.7: both are drawn, about as often
  CHECK(a < 200);
}

TEST_CASE("format: named, not guessed, where it is given; refused where the reader has no use for it") {
  CHECK(read_text<preference_reader>(
            R"({"prompt": "p", "chosen": "a", "rejected": "b", "completion": "c", "label": true})",
            {.format = format::trl_preference})
            .records.size() == 1);
  CHECK(complaint([] { preference_reader(input::from_memory(""), {.format = format::unpaired}); }) ==
        "plumb: preference_reader: option `format` is unpaired, which this reader does not read (unpaired_reader "
        "does). Nothing was "
        "read.");
  CHECK(read_text<preference_reader>("").summary.format == format::detect);
}

TEST_CASE("render: turns become one text, prompt and reply in two parts") {
  const passage prompt{"", {{"system", "Be brief."}, hello, hi, how}}, reply{"", {well, hello, bad}};
  CHECK(render_prompt(prompt) ==
        "\n\nSystem: Be brief.\n\nHuman: hello\n\nAssistant: hi\n\nHuman: how are you?\n\nAssistant:");
  CHECK(render_reply(reply) == " well\n\nHuman: hello\n\nAssistant: bad");
  CHECK(render_prompt(prompt, transcript_style::plain) == "Be brief.\n\nhello\n\nhi\n\nhow are you?\n\n");
  CHECK(render_reply(reply, transcript_style::plain) == "well\n\nhello\n\nbad");
  CHECK(render_prompt({"text", {}}) == "text");
  CHECK(render_reply({"text", {}}, transcript_style::plain) == "text");
}

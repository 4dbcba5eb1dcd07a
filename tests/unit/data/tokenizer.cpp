// Tokenizers: nothing is lost on any bytes; learning and merging against the plain definition; tokenizer.json as
// another implementation reads it; files that must be refused.
#include "support/catch.hpp"

#include <plumb/core/random.hpp>
#include <plumb/data/bpe_trainer.hpp>
#include <plumb/data/byte_tokenizer.hpp>
#include <plumb/data/tokenizer_json.hpp>

#include <cstdlib>
#include <functional>
#include <iterator>
#include <regex>

using namespace plumb;
using namespace plumb::data;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using json = nlohmann::json;
using ids_t = std::vector<std::int32_t>;

namespace {

const std::string folder = PLUMB_SOURCE_DIR "/tests/unit/data/";
const std::vector<std::string> names{"<|end|>", "<|user|>", "<|assistant|>", "<|user|>loud"};

std::string file_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
const json& golden() {
  static const json j = json::parse(file_text(folder + "small_tokenizer_ids.json"));
  return j;
}
const std::string& small_json() {
  static const std::string text = file_text(folder + "small_tokenizer.json");
  return text;
}
const bpe_tokenizer& small() {
  static const bpe_tokenizer t = from_tokenizer_json(small_json());
  return t;
}
std::vector<std::string> corpus() { return golden()["corpus"].get<std::vector<std::string>>(); }

/// Bytes drawn from a short list, so that pieces are long and merges many, or from all 256.
std::string random_text(std::uint64_t seed, std::size_t length, std::string_view letters = {}) {
  const random_stream r{seed, 1};
  std::string text;
  for (std::size_t i = 0; i < length; ++i)
    text += letters.empty() ? static_cast<char>(r.below(256, i)) : letters[r.below(letters.size(), i)];
  return text;
}

std::vector<std::string> pieces(std::string_view text) {
  std::vector<std::string> out;
  for_each_piece(pretokenizer::words, text, [&](std::string_view p) { out.emplace_back(p); });
  return out;
}

/// What encoding means, done one merge at a time.
ids_t plain_encode(const bpe_tokenizer& t, std::string_view text) {
  const auto& v = t.vocabulary();
  std::map<std::string, std::int32_t> id_of;
  for (std::int32_t id = 0; id < t.vocabulary_size(); ++id)
    if (t.specials().name(id) == nullptr) id_of[v.tokens[static_cast<std::size_t>(id)]] = id;
  ids_t all;
  for_each_piece(v.rule, text, [&](std::string_view piece) {
    ids_t ids;
    for (const char c : piece) ids.push_back(id_of.at(std::string(1, c)));
    for (;;) {
      std::size_t best = v.merges.size(), at = 0;
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = std::find(v.merges.begin(), v.merges.end(), token_pair{ids[i], ids[i + 1]});
        const auto rank = static_cast<std::size_t>(found - v.merges.begin());
        if (rank < best) best = rank, at = i;
      }
      if (best == v.merges.size()) break;
      ids[at] = id_of.at(v.tokens[static_cast<std::size_t>(ids[at])] + v.tokens[static_cast<std::size_t>(ids[at + 1])]);
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    all.insert(all.end(), ids.begin(), ids.end());
  });
  return all;
}

/// What learning means: all pairs counted anew before each merge.
bpe_vocabulary plain_learn(const std::vector<std::string>& texts, const bpe_options& options) {
  bpe_vocabulary v = bpe_tokenizer::bytes_only();
  for (const auto& name : options.special_tokens) v.tokens.push_back(name);
  std::vector<ids_t> all;
  for (const auto& text : texts)
    for_each_piece(options.rule, text, [&](std::string_view piece) {
      ids_t ids;
      for (const char c : piece) ids.push_back(static_cast<unsigned char>(c));
      all.push_back(ids);
    });
  while (v.tokens.size() < static_cast<std::size_t>(options.vocabulary_size)) {
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts;
    for (const auto& ids : all)
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) ++counts[{ids[i], ids[i + 1]}];
    std::pair<std::int32_t, std::int32_t> best;
    std::int64_t most = 0;
    for (const auto& [pair, count] : counts)  // in the order of ids, so the first of equals stays
      if (count > most) best = pair, most = count;
    if (most < options.min_count) break;
    const std::string bytes =
        v.tokens[static_cast<std::size_t>(best.first)] + v.tokens[static_cast<std::size_t>(best.second)];
    const auto known = std::find(v.tokens.begin(), v.tokens.end(), bytes);
    const auto result = static_cast<std::int32_t>(known - v.tokens.begin());
    if (known == v.tokens.end()) v.tokens.push_back(bytes);
    v.merges.push_back({best.first, best.second});
    for (auto& ids : all)
      for (std::size_t i = 0; i + 1 < ids.size(); ++i)
        if (ids[i] == best.first && ids[i + 1] == best.second) {
          ids[i] = result;
          ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
  }
  return v;
}

template <class T>
void check_laws(const T& t, const std::string& a, const std::string& b) {
  for (const auto match : {match_specials::no, match_specials::yes}) {
    const ids_t ids = encode(t, a, match);
    REQUIRE(decode(t, ids) == a);
    const auto allowed = [&](std::int32_t id) {
      return id >= 0 && id < t.vocabulary_size() && (match == match_specials::yes || t.specials().name(id) == nullptr);
    };
    REQUIRE(std::all_of(ids.begin(), ids.end(), allowed));
  }
  ids_t both = encode(t, a);
  t.encode(b, both);
  REQUIRE(decode(t, both) == a + b);
}

/// The sentence with which a changed copy of the small file is refused; "" if it is not.
std::string refusal(const std::function<void(json&)>& change) {
  json j = json::parse(small_json());
  change(j);
  try {
    from_tokenizer_json(j.dump());
  } catch (const precondition_error& e) {
    return e.what();
  }
  return "";
}
std::string refusal_of_text(const std::string& text) {
  try {
    from_tokenizer_json(text, "it.json");
  } catch (const precondition_error& e) {
    return e.what();
  }
  return "";
}

struct scratch_folder {
  std::filesystem::path path;
  scratch_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "plumb_tokenizer_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~scratch_folder() { std::filesystem::remove_all(path); }
};

}  // namespace

TEST_CASE("tokenizers: the laws hold on all bytes, on random bytes and on names of special tokens") {
  const byte_tokenizer bytes(names);
  const auto check = [&](const std::string& a, const std::string& b) {
    check_laws(bytes, a, b);
    check_laws(small(), a, b);
    check_laws(bpe_tokenizer(), a, b);
  };
  check("", "");
  for (int byte = 0; byte < 256; ++byte) check(std::string(1, static_cast<char>(byte)), "");
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    check(random_text(seed, seed), random_text(seed + 1000, 9));
    check(random_text(seed, seed, "<|user|>loud end an the\n"), random_text(seed, 5, "<|end|>"));
  }
  check("\xff\xfe\x80 \xc3",
        "\xa9 \xed\xa0\x80");  // bytes that are not UTF-8; a character cut in two; a lone surrogate
}

TEST_CASE("byte_tokenizer: ids are bytes, and a bpe_tokenizer without merges gives the same") {
  const byte_tokenizer t({"<s>", "</s>"});
  CHECK(t.vocabulary_size() == 258);
  CHECK(encode(t, "A\xff<s>") == ids_t{65, 255, '<', 's', '>'});
  CHECK(encode(t, "A<s></s>", match_specials::yes) == ids_t{65, 256, 257});
  const bpe_tokenizer same =
      train_bpe(std::vector<std::string>{}, {.vocabulary_size = 258, .special_tokens = {"<s>", "</s>"}});
  const std::string text = random_text(1, 500) + "<s>";
  for (const auto match : {match_specials::no, match_specials::yes})
    CHECK(encode(t, text, match) == encode(same, text, match));
}

TEST_CASE("special tokens: leftmost, then longest; skipped or written; plain text never gives them") {
  const auto& t = small();
  CHECK(t.specials().id("<|user|>") == 257);
  CHECK(!t.specials().id("<|none|>"));
  CHECK(*t.specials().name(256) == "<|end|>");
  CHECK(t.specials().name(0) == nullptr);
  CHECK(encode(t, "<|user|>loud<|user|>lou<|end|>", match_specials::yes).front() == 259);
  const ids_t turn = encode(t, "<|user|>a<|end|>", match_specials::yes);
  CHECK(turn == ids_t{257, 'a', 256});
  CHECK(decode(t, turn, skip_specials::yes) == "a");
  CHECK(decode(t, turn) == "<|user|>a<|end|>");
  CHECK_THROWS_WITH(byte_tokenizer({"a", "a"}),
                    ContainsSubstring("byte_tokenizer: special token \"a\" is given twice."));
  CHECK_THROWS_WITH(byte_tokenizer({""}), ContainsSubstring("special token 0 has an empty name."));
  CHECK_THROWS_WITH(special_tokens({{"a", 1}, {"b", 1}}),
                    ContainsSubstring("special token \"b\" has the id 1, and so has another."));
  CHECK_THROWS_WITH(special_tokens({{"a", -1}}), ContainsSubstring("has the id -1, which is negative."));
}

TEST_CASE("decode refuses ids outside the vocabulary and appends nothing") {
  for (const std::int32_t bad : {-1, 420, std::numeric_limits<std::int32_t>::max()}) {
    std::string out = "kept";
    CHECK_THROWS_WITH(small().decode(ids_t{65, bad}, out),
                      ContainsSubstring("decode: id " + std::to_string(bad) + " at position 1 is not in [0, 420)"));
    CHECK(out == "kept");
  }
}

TEST_CASE("pretokenizer: the pieces are those of the pattern, and where they should be") {
  using list = std::vector<std::string>;
  CHECK(pieces("I don't  know") == list{"I", " don", "'t", " ", " know"});
  CHECK(pieces("\n\nHuman: 12 3a") == list{"\n\n", "Human", ":", " 12", " 3", "a"});
  CHECK(pieces("'sx 's's") == list{"'", "sx", " '", "s", "'s"});
  CHECK(pieces(" \n x\t\ty  ") == list{" \n", " x", "\t\t", "y", "  "});
  CHECK(pieces("caf\xc3\xa9!?\r\n") == list{"caf\xc3\xa9", "!?", "\r\n"});
  CHECK(pieces("").empty());
  const std::regex pattern{std::string(words_pattern)};
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = seed % 2 == 0 ? random_text(seed, 40) : random_text(seed, 40, "' \n\tstlrevda1.\xc3\xa9");
    list by_pattern;
    for (auto at = text.cbegin(); at != text.cend();) {
      std::smatch match;
      REQUIRE(std::regex_search(at, text.cend(), match, pattern, std::regex_constants::match_continuous));
      by_pattern.push_back(match.str());
      at = match[0].second;
    }
    REQUIRE(pieces(text) == by_pattern);
  }
}

TEST_CASE("bpe_trainer: learns what the plain definition learns") {
  const auto same = [](const std::vector<std::string>& texts, const bpe_options& options) {
    const bpe_vocabulary expected = plain_learn(texts, options);
    const bpe_tokenizer learned = train_bpe(texts, options);
    CHECK(learned.vocabulary().tokens == expected.tokens);
    CHECK(learned.vocabulary().merges == expected.merges);
  };
  same(corpus(), {.vocabulary_size = 500, .special_tokens = names});
  same(corpus(), {.vocabulary_size = 400, .min_count = 1, .rule = pretokenizer::none});
  for (std::uint64_t seed = 0; seed < 40; ++seed)
    same({random_text(seed, 200, "ab"), random_text(seed + 99, 100, "aab "), "aaaaaaaaa"},
         {.vocabulary_size = 300, .min_count = seed % 2 == 0 ? 1 : 3});
}

TEST_CASE("bpe_tokenizer: short and long pieces are merged as the plain definition says") {
  const bpe_tokenizer words = train_bpe(corpus(), {.vocabulary_size = 500});
  const bpe_tokenizer letters =
      train_bpe(std::vector<std::string>{random_text(7, 3000, "aab")}, {.vocabulary_size = 400});
  for (std::size_t length = 0; length < 150; ++length) {
    const std::string a = random_text(length, length, "aab"), b = random_text(length, length, "thean er\n");
    REQUIRE(encode(letters, a) == plain_encode(letters, a));
    REQUIRE(encode(words, b) == plain_encode(words, b));
  }
  for (const auto& text : corpus()) REQUIRE(encode(words, text) == plain_encode(words, text));
}

TEST_CASE("bpe_tokenizer: merges in an order that no learning gives, two ways to one token") {
  bpe_vocabulary v = bpe_tokenizer::bytes_only();
  for (const char* token : {"bc", "abc", "ab", "cd", "abcd"}) v.tokens.emplace_back(token);
  v.merges = {{'b', 'c'}, {258, 'c'}, {'a', 'b'}, {'a', 256}, {'c', 'd'}, {257, 'd'}, {258, 259}};
  const bpe_tokenizer t(v);
  for (std::size_t length = 0; length < 140; ++length) {
    const std::string text = random_text(length, length, "abcd");
    REQUIRE(encode(t, text) == plain_encode(t, text));
  }
}

TEST_CASE("bpe_trainer: a function of the pieces and their counts only") {
  auto texts = corpus();
  const std::string once = to_tokenizer_json(train_bpe(texts, {.vocabulary_size = 450}));
  std::reverse(texts.begin(), texts.end());
  CHECK(to_tokenizer_json(train_bpe(texts, {.vocabulary_size = 450})) == once);
  bpe_trainer trainer({.vocabulary_size = 450});
  for (const auto& text : texts)
    for (const auto& piece : pieces(text)) trainer.add(piece);
  CHECK(to_tokenizer_json(trainer.train()) == once);
  CHECK(to_tokenizer_json(trainer.train()) == once);
}

TEST_CASE("bpe_trainer: options, empty texts, names that look like words") {
  CHECK_THROWS_WITH(
      train_bpe(corpus(), {.vocabulary_size = 257, .special_tokens = {"<a>", "<b>"}}),
      ContainsSubstring("option `vocabulary_size` is 257 but must be at least 258: 256 bytes and 2 special tokens."));
  CHECK_THROWS_WITH(train_bpe(corpus(), {.min_count = 0}),
                    ContainsSubstring("option `min_count` is 0 but must be positive."));
  CHECK_THROWS_WITH(train_bpe(corpus(), {.special_tokens = {"x", "x"}}), ContainsSubstring("given twice"));
  CHECK_THROWS_WITH(train_bpe(corpus(), {.special_tokens = {"x"}}),
                    ContainsSubstring("token 120, \"x\", is spelt in a tokenizer.json as special token 256 is."));
  CHECK(train_bpe(std::vector<std::string>{}, {}).vocabulary_size() == 256);
  CHECK(train_bpe(std::vector<std::string>{"", ""}, {}).vocabulary_size() == 256);
  CHECK(train_bpe(std::vector<std::string>{"aa aa"}, {}).vocabulary_size() == 257);

  // "the" and " the" (as a file spells it) are special here, so no token is learned that is spelt so.
  const std::vector<std::string> texts{"the the the then then"};
  const bpe_tokenizer t = train_bpe(texts, {.special_tokens = {"the", "\xc4\xa0the"}, .min_count = 1});
  CHECK(t.vocabulary_size() > 258);
  CHECK(decode(t, encode(t, texts[0])) == texts[0]);
  CHECK(encode(from_tokenizer_json(to_tokenizer_json(t)), "the the then") == encode(t, "the the then"));
  CHECK(encode(t, "the", match_specials::yes) == ids_t{256});
}

TEST_CASE("golden: the ids of another implementation") {
  const auto texts = golden()["texts"].get<std::vector<std::string>>();
  const auto ids = golden()["ids"].get<std::vector<ids_t>>();
  REQUIRE(texts.size() >= 160);
  REQUIRE(ids.size() == texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    INFO(texts[i]);
    CHECK(encode(small(), texts[i], match_specials::yes) == ids[i]);
    CHECK(decode(small(), ids[i]) == texts[i]);
  }
}

TEST_CASE("golden: the same texts give the same file, byte for byte") {
  const bpe_tokenizer learned = train_bpe(corpus(), {.vocabulary_size = 420, .special_tokens = names});
  CHECK(to_tokenizer_json(learned) == small_json());
  CHECK(to_tokenizer_json(small()) == small_json());
}

TEST_CASE("tokenizer.json: files of other tools") {
  const std::string text = "the weather, and bananas\n\n<|end|>";
  const ids_t expected = encode(small(), text, match_specials::yes);
  SECTION("merges as pairs") {
    CHECK(refusal([](json& j) {
            for (auto& m : j["model"]["merges"]) {
              const std::string s = m;
              m = json::array({s.substr(0, s.find(' ')), s.substr(s.find(' ') + 1)});
            }
          }) == "");
  }
  SECTION(
      "GPT-2's layout: ids in the order of the alphabet, specials last and only among the added tokens, no model "
      "type") {
    const byte_alphabet alphabet;
    std::vector<std::string> spelt;
    for (int byte = 0; byte < 256; ++byte) spelt.push_back(alphabet.spell(std::string(1, static_cast<char>(byte))));
    std::sort(spelt.begin(), spelt.end());  // UTF-8 sorts by code point
    CHECK(spelt[0] == "!");
    CHECK(spelt[220] == "\xc4\xa0");  // the space, as in GPT-2's own vocabulary
    json j = {{"added_tokens", json::array({{{"id", 257}, {"content", "<|endoftext|>"}, {"special", true}}})},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
              {"post_processor", {{"type", "ByteLevel"}, {"trim_offsets", false}}},
              {"decoder", {{"type", "ByteLevel"}}},
              {"model", {{"continuing_subword_prefix", ""}, {"merges", {"\xc4\xa0 t"}}}}};
    for (std::size_t id = 0; id < 256; ++id) j["model"]["vocab"][spelt[id]] = id;
    j["model"]["vocab"]["\xc4\xa0t"] = 256;
    const bpe_tokenizer t = from_tokenizer_json(j.dump());
    CHECK(t.vocabulary_size() == 258);
    CHECK(encode(t, "! t<|endoftext|>", match_specials::yes) == ids_t{0, 256, 257});
    CHECK(decode(t, ids_t{0, 256, 257}) == "! t<|endoftext|>");
    const bpe_tokenizer again = from_tokenizer_json(to_tokenizer_json(t));
    CHECK(encode(again, "! t  t") == encode(t, "! t  t"));
    CHECK(again.vocabulary().rule == pretokenizer::none);
  }
}

TEST_CASE("tokenizer.json: what is not JSON is refused with its line") {
  CHECK(refusal_of_text("") ==
        "plumb: it.json: line 1: not JSON: byte 1 of 0 is not what can stand there, or the text ends too early.");
  CHECK_THAT(refusal_of_text("{\n\"version\": \n\n]"), StartsWith("plumb: it.json: line 4: not JSON: byte 16 of 16"));
  CHECK_THAT(refusal_of_text(small_json().substr(0, 5000)), ContainsSubstring("not JSON"));
  CHECK_THAT(refusal_of_text(small_json() + "x"), ContainsSubstring("not JSON"));
  CHECK_THAT(refusal_of_text("{\"version\": \"\xff\"}"), ContainsSubstring("not JSON"));
  CHECK(refusal_of_text("[1]") == "plumb: it.json: the document is an array but must be an object.");
  CHECK(refusal_of_text(std::string(100000, '[')).find("not JSON") != std::string::npos);
}

TEST_CASE("tokenizer.json: what would give other ids, or none, is refused with one sentence") {
  const auto says = [](const char* sentence, const std::function<void(json&)>& change) {
    INFO(sentence);
    CHECK_THAT(refusal(change), StartsWith(std::string("plumb: tokenizer.json: ") + sentence));
  };
  CHECK(refusal([](json&) {}) == "");
  says("`version` is \"2.0\" but must be \"1.0\".", [](json& j) { j["version"] = "2.0"; });
  says("`normalizer` is an object but must be null", [](json& j) { j["normalizer"] = {{"type", "NFC"}}; });
  says("`truncation` is an object but must be null", [](json& j) { j["truncation"] = {{"max_length", 8}}; });
  says("`padding` is an object but must be null", [](json& j) { j["padding"] = json::object(); });
  says("`post_processor` is \"TemplateProcessing\" but must be null or ByteLevel", [](json& j) {
    j["post_processor"] = {{"type", "TemplateProcessing"}};
  });
  says("`decoder` is null but must be ByteLevel.", [](json& j) { j["decoder"] = nullptr; });
  says("`decoder` is \"WordPiece\" but must be ByteLevel.", [](json& j) { j["decoder"]["type"] = "WordPiece"; });
  says("`pre_tokenizer` is not ByteLevel, nor a Sequence", [](json& j) { j["pre_tokenizer"] = nullptr; });
  says("`pre_tokenizer` is not ByteLevel, nor a Sequence", [](json& j) { j["pre_tokenizer"]["type"] = "Metaspace"; });
  says("`pre_tokenizer` is a Sequence of something else",
       [](json& j) { j["pre_tokenizer"]["pretokenizers"].erase(0); });
  says("`pre_tokenizer` splits by another pattern",
       [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\s+"; });
  says("`pre_tokenizer` has a Split whose", [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["invert"] = true; });
  says("`pre_tokenizer` has a Split whose",
       [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; });
  says("`pre_tokenizer` has a ByteLevel whose `add_prefix_space` is not false",
       [](json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; });
  says("`pre_tokenizer` has a ByteLevel whose `use_regex` is not false: GPT-2's own pattern needs Unicode tables",
       [](json& j) { j["pre_tokenizer"]["pretokenizers"][1].erase("use_regex"); });
  says("`model` is null but must be an object.", [](json& j) { j.erase("model"); });
  says("`model.type` is \"Unigram\" but must be \"BPE\".", [](json& j) { j["model"]["type"] = "Unigram"; });
  says("`model.dropout` is 0.1 but must be null.", [](json& j) { j["model"]["dropout"] = 0.1; });
  says("`model.end_of_word_suffix` is \"</w>\" but must be null.",
       [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; });
  says("`model.continuing_subword_prefix` is \"##\"", [](json& j) { j["model"]["continuing_subword_prefix"] = "##"; });
  says("`model.ignore_merges` is true but must be false.", [](json& j) { j["model"]["ignore_merges"] = true; });
  says("`model.vocab` is an array but must be an object.", [](json& j) { j["model"]["vocab"] = json::array(); });
  says("the id of token \"a\" is \"97\" but must be an id", [](json& j) { j["model"]["vocab"]["a"] = "97"; });
  says("the id of token \"a\" is -1 but must be an id", [](json& j) { j["model"]["vocab"]["a"] = -1; });
  says("the id of token \"a\" is 97.5 but must be an id", [](json& j) { j["model"]["vocab"]["a"] = 97.5; });
  says("the id of token \"a\" is 2147483648 but must be an id",
       [](json& j) { j["model"]["vocab"]["a"] = 2147483648u; });
  says("tokens \"a\" and \"b\" have the same id, 98.", [](json& j) { j["model"]["vocab"]["a"] = 98; });
  says("token \"zzz\" has the id 421, but there are 421 tokens: the ids have holes.",
       [](json& j) { j["model"]["vocab"]["zzz"] = 421; });
  says("token \"a b\", id 420, has a character that stands for no byte",
       [](json& j) { j["model"]["vocab"]["a b"] = 420; });
  says("token 420 is empty.", [](json& j) { j["model"]["vocab"][""] = 420; });
  says("byte 97, \"a\", has no token; all 256 bytes must have one.", [](json& j) {
    j["model"]["vocab"].erase("a");
    j["model"]["vocab"]["zzz"] = 97;
    j["model"]["merges"] = json::array();
  });
  says("`added_tokens` is an object but must be an array.", [](json& j) { j["added_tokens"] = json::object(); });
  says("the `content` of an added token is null but must be a string.",
       [](json& j) { j["added_tokens"][0].erase("content"); });
  says("`special` of added token \"<|end|>\" is false but must be true",
       [](json& j) { j["added_tokens"][0]["special"] = false; });
  says("`lstrip` of added token \"<|end|>\" is true but must be false.",
       [](json& j) { j["added_tokens"][0]["lstrip"] = true; });
  says("`id` of added token \"<|end|>\" is 300 but must be the same as in `model.vocab`.",
       [](json& j) { j["added_tokens"][0]["id"] = 300; });
  says("`id` of added token \"<|end|>\" is null but must be an id", [](json& j) { j["added_tokens"][0].erase("id"); });
  says("special token \"<|end|>\" is given twice.", [](json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); });
  says("special token 4 has an empty name.", [](json& j) {
    j["added_tokens"].push_back({{"id", 420}, {"content", ""}, {"special", true}});
  });
  says("`model.merges` is null but must be an array.", [](json& j) { j["model"].erase("merges"); });
  says("merge 0 is \"ab\" but must be two tokens", [](json& j) { j["model"]["merges"][0] = "ab"; });
  says("merge 0 is \"a b c\" but must be two tokens", [](json& j) { j["model"]["merges"][0] = "a b c"; });
  says("merge 0 is an array but must be two tokens", [](json& j) { j["model"]["merges"][0] = {"a", 1}; });
  says("merge 3 has the token \"q\\x08\", which is not in the vocabulary.",
       [](json& j) { j["model"]["merges"][3] = "a q\b"; });
  says("merge 0 gives \"zq\", which is not in the vocabulary.", [](json& j) { j["model"]["merges"][0] = "z q"; });
  says("merge 1 is there twice", [](json& j) { j["model"]["merges"][1] = j["model"]["merges"][0]; });
  says("merge 0 has the id 256, which is no ordinary token.", [](json& j) { j["model"]["merges"][0] = "<|end|> a"; });
  says("merge 0 gives \"an\", which is not in the vocabulary.", [](json& j) {  // because its token is made special
    j["model"]["merges"] = {"a n"};
    j["added_tokens"].push_back({{"id", j["model"]["vocab"]["an"]}, {"content", "an"}, {"special", true}});
  });
}

TEST_CASE("tokenizer.json: saved beside its place, then renamed; on failure the old file stays") {
  const scratch_folder scratch;
  const auto path = scratch.path / "tokenizer.json";
  save_tokenizer(bpe_tokenizer(), path);
  save_tokenizer(small(), path);
  CHECK(file_text(path.string()) == small_json());
  CHECK(!std::filesystem::exists(path.string() + ".part"));
  CHECK(encode(load_tokenizer(path), "the weather") == encode(small(), "the weather"));

  std::filesystem::create_directory(path.string() + ".part");  // so that the new file cannot be opened
  CHECK_THROWS_WITH(
      save_tokenizer(bpe_tokenizer(), path),
      ContainsSubstring("save_tokenizer: cannot write ") && ContainsSubstring("What was there before is as it was."));
  CHECK(file_text(path.string()) == small_json());
  CHECK_THROWS_WITH(save_tokenizer(small(), scratch.path / "none" / "tokenizer.json"),
                    ContainsSubstring("cannot write"));
  CHECK_THROWS_WITH(load_tokenizer(scratch.path / "none.json"), ContainsSubstring("load_tokenizer: cannot read "));
  CHECK_THROWS_WITH(load_tokenizer(scratch.path), ContainsSubstring("load_tokenizer: cannot read "));  // a folder
  CHECK_THROWS_WITH(save_tokenizer(train_bpe(corpus(), {.special_tokens = {"\xff"}}), path),
                    ContainsSubstring("\"\\xFF\" is not UTF-8"));
}

TEST_CASE("bpe_tokenizer: a copy stands on its own") {
  std::optional<bpe_tokenizer> first(small());
  const bpe_tokenizer copy = *first;
  const ids_t before = encode(*first, "the weather");
  first.reset();
  CHECK(encode(copy, "the weather") == before);
}

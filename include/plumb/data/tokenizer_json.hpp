#pragma once
// bpe_tokenizer to tokenizer.json and back: the format of the tokenizers library (github.com/huggingface/tokenizers),
// which many tools read.

#include <plumb/data/bpe_tokenizer.hpp>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <system_error>

PLUMB_NAMESPACE_BEGIN

namespace data {

namespace tokenizer_json {

/// The JSON library's value.
using json = nlohmann::json;

/// What a value is, in the words of JSON, and shown if it is short.
inline std::string described(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  return value.dump();
}

/// Where a text stops being JSON. Throws nothing, so that it serves without exceptions too.
class error_finder : public nlohmann::json_sax<json> {
 public:
  std::size_t position = 0;  // bytes read when the error was found
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception&) override {
    position = at;
    return false;
  }
};

/// Reads one document. Every sentence begins with `name`, which is the path or what the caller calls the text.
class reader {
 public:
  explicit reader(const char* name) : name_(name) {}

  bpe_vocabulary read(std::string_view text) {
    const json root = parse(text);
    require(root.is_object(), "the document", root, "an object");
    if (const json& version = find(root, "version"); !version.is_null())
      require(version == "1.0", "`version`", version, "\"1.0\"");
    for (const char* key : {"truncation", "padding", "normalizer"})
      require(find(root, key).is_null(), field(key), find(root, key), "null: this reader takes texts as they are");
    read_pre_tokenizer(find(root, "pre_tokenizer"));
    const json& post = find(root, "post_processor");
    require(post.is_null() || type_of(post) == "ByteLevel", "`post_processor`", shown_type(post),
            "null or ByteLevel: this reader adds no tokens");
    const json& decoder = find(root, "decoder");
    require(type_of(decoder) == "ByteLevel", "`decoder`", shown_type(decoder), "ByteLevel");
    const json& model = find(root, "model");
    require(model.is_object(), "`model`", model, "an object");
    read_model_options(model);
    read_tokens(find(model, "vocab"), find(root, "added_tokens"));
    read_merges(find(model, "merges"));
    return std::move(vocabulary_);
  }

 private:
  [[noreturn]] void refuse(const message& m) const { plumb::fail(m); }
  message sentence() const { return message(name_); }

  void require(bool good, const std::string& what, const json& found, const char* wanted) const {
    if (!good)
      refuse(sentence() << what.c_str() << " is " << described(found).c_str() << " but must be " << wanted << ".");
  }
  static std::string field(const char* key) { return std::string("`") + key + "`"; }

  /// The value of a key; null if it is not there.
  static const json& find(const json& object, const char* key) {
    static const json nothing;
    if (!object.is_object()) return nothing;
    const auto found = object.find(key);
    return found == object.end() ? nothing : *found;
  }
  static std::string type_of(const json& object) {
    const json& type = find(object, "type");
    return type.is_string() ? type.get<std::string>() : std::string();
  }
  static const json& shown_type(const json& object) {
    const json& type = find(object, "type");
    return type.is_null() ? object : type;
  }

  json parse(std::string_view text) const {
    json root = json::parse(text.begin(), text.end(), nullptr, false);
    if (!root.is_discarded()) return root;
    error_finder finder;
    json::sax_parse(text.begin(), text.end(), &finder);
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(finder.position, text.size()));
    refuse(sentence() << "line " << 1 + static_cast<std::int64_t>(std::count(text.begin(), end, '\n'))
                      << ": not JSON: byte " << finder.position << " of " << text.size()
                      << " is not what can stand there, or the text ends too early.");
  }

  void read_pre_tokenizer(const json& value) {
    if (type_of(value) != "Sequence") return read_byte_level(value, pretokenizer::none);
    const json& parts = find(value, "pretokenizers");
    const bool two = parts.is_array() && parts.size() == 2;
    if (!two || type_of(parts[0]) != "Split")
      refuse_pre_tokenizer("is a Sequence of something else than Split and ByteLevel");
    const json& split = parts[0];
    const json& pattern = find(find(split, "pattern"), "Regex");
    if (pattern != std::string(words_pattern))
      refuse_pre_tokenizer("splits by another pattern than this reader's own (data/pretokenizer.hpp)");
    if (find(split, "behavior") != "Isolated" || find(split, "invert") != false)
      refuse_pre_tokenizer("has a Split whose `behavior` is not \"Isolated\" or whose `invert` is not false");
    read_byte_level(parts[1], pretokenizer::words);
  }
  void read_byte_level(const json& value, pretokenizer rule) {
    if (type_of(value) != "ByteLevel") refuse_pre_tokenizer("is not ByteLevel, nor a Sequence of Split and ByteLevel");
    if (find(value, "add_prefix_space") != false)
      refuse_pre_tokenizer("has a ByteLevel whose `add_prefix_space` is not false");
    if (find(value, "use_regex") != false)
      refuse_pre_tokenizer("has a ByteLevel whose `use_regex` is not false: GPT-2's own pattern needs Unicode tables");
    vocabulary_.rule = rule;
  }
  [[noreturn]] void refuse_pre_tokenizer(const char* why) const {
    refuse(sentence() << "`pre_tokenizer` " << why << ". Nothing was loaded.");
  }

  void read_model_options(const json& model) const {
    const json& type = find(model, "type");
    require(type.is_null() || type == "BPE", "`model.type`", type, "\"BPE\"");
    const json& dropout = find(model, "dropout");
    require(dropout.is_null() || dropout == 0, "`model.dropout`", dropout, "null");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json& affix = find(model, key);
      require(affix.is_null() || affix == "", "`model." + std::string(key) + "`", affix, "null");
    }
    const json& ignore = find(model, "ignore_merges");
    require(ignore.is_null() || ignore == false, "`model.ignore_merges`", ignore, "false");
  }

  std::int32_t id_of(const json& value, const std::string& what) const {
    const bool good = value.is_number_unsigned() && value.get<std::uint64_t>() < std::uint64_t{1} << 31;
    require(good, what, value, "an id, which is an integer in [0, 2147483648)");
    return value.get<std::int32_t>();
  }

  void read_tokens(const json& vocab, const json& added) {
    require(vocab.is_object(), "`model.vocab`", vocab, "an object");
    require(added.is_null() || added.is_array(), "`added_tokens`", added, "an array");
    for (const auto& [spelling, id] : vocab.items())
      ids_[spelling] = id_of(id, "the id of token " + in_quotes(spelling));
    std::unordered_set<std::string> special;
    for (const json& token : added) vocabulary_.special_ids.push_back(read_special(token, special));
    place_tokens(special);
  }

  std::int32_t read_special(const json& token, std::unordered_set<std::string>& special) {
    const json& content = find(token, "content");
    require(content.is_string(), "the `content` of an added token", content, "a string");
    const auto& name = content.get_ref<const std::string&>();
    const std::string which = "of added token " + in_quotes(name);
    require(find(token, "special") == true, "`special` " + which, find(token, "special"),
            "true: this reader has no tokens that plain text gives before merging");
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      const json& flag = find(token, key);
      require(flag.is_null() || flag == false, field(key) + " " + which, flag, "false");
    }
    const std::int32_t id = id_of(find(token, "id"), "`id` " + which);
    const auto [entry, fresh] = ids_.emplace(name, id);
    require(fresh || entry->second == id, "`id` " + which, find(token, "id"), "the same as in `model.vocab`");
    special.insert(name);
    return id;
  }

  /// Every id once, none missing: the table of tokens by id.
  void place_tokens(const std::unordered_set<std::string>& special) {
    const auto size = static_cast<std::int64_t>(ids_.size());
    const byte_alphabet alphabet;
    vocabulary_.tokens.resize(ids_.size());
    std::vector<const std::string*> spellings(ids_.size());
    for (const auto& [spelling, id] : ids_) {
      const std::string shown = in_quotes(spelling);
      if (id >= size)
        refuse(sentence() << "token " << shown.c_str() << " has the id " << id << ", but there are " << size
                          << " tokens: the ids have holes. They must be 0, 1, ... without one.");
      const std::string*& place = spellings[static_cast<std::size_t>(id)];
      if (place != nullptr)
        refuse(sentence() << "tokens " << in_quotes(*place).c_str() << " and " << shown.c_str() << " have the same id, "
                          << id << ".");
      place = &spelling;
      const auto bytes = special.contains(spelling) ? spelling : alphabet.read(spelling);
      if (!bytes)
        refuse(sentence() << "token " << shown.c_str() << ", id " << id
                          << ", has a character that stands for no byte, and it is no added token: the vocabulary is "
                             "not byte-level.");
      vocabulary_.tokens[static_cast<std::size_t>(id)] = *bytes;
    }
  }

  void read_merges(const json& merges) {
    require(merges.is_array(), "`model.merges`", merges, "an array");
    for (std::size_t i = 0; i < merges.size(); ++i) {
      const auto [left, right] = sides(merges[i], i);
      vocabulary_.merges.push_back({side_id(left, i), side_id(right, i)});
    }
  }
  std::pair<std::string, std::string> sides(const json& merge, std::size_t i) const {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
      return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos)
        return {text.substr(0, space), text.substr(space + 1)};
    }
    refuse(sentence() << "merge " << i << " is " << described(merge).c_str()
                      << " but must be two tokens: \"a b\" or [\"a\", \"b\"].");
  }
  std::int32_t side_id(const std::string& spelling, std::size_t i) const {
    const auto found = ids_.find(spelling);
    if (found == ids_.end())
      refuse(sentence() << "merge " << i << " has the token " << in_quotes(spelling).c_str()
                        << ", which is not in the vocabulary.");
    return found->second;
  }

  const char* name_;
  bpe_vocabulary vocabulary_;
  std::map<std::string, std::int32_t> ids_;
};

/// The pre-tokenizer and decoder that spell bytes.
inline nlohmann::ordered_json byte_level() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
}

/// The rule as other tools read it.
inline nlohmann::ordered_json pre_tokenizer(pretokenizer rule) {
  if (rule == pretokenizer::none) return byte_level();
  const nlohmann::ordered_json split = {{"type", "Split"},
                                        {"pattern", {{"Regex", std::string(words_pattern)}}},
                                        {"behavior", "Isolated"},
                                        {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", nlohmann::ordered_json::array({split, byte_level()})}};
}

}  // namespace tokenizer_json

/// The tokenizer as the text of a tokenizer.json; the same tokenizer gives the same bytes. Fails if the name of a
/// special token is not UTF-8.
inline std::string to_tokenizer_json(const bpe_tokenizer& tokenizer) {
  using json = nlohmann::ordered_json;
  const byte_alphabet alphabet;
  const bpe_vocabulary& v = tokenizer.vocabulary();

  json added = json::array();
  for (const auto& [name, id] : tokenizer.specials().all()) {
    if (json::parse(json(name).dump(-1, ' ', false, json::error_handler_t::ignore)) != name)
      fail(message("to_tokenizer_json") << "the name of special token " << in_quotes(name).c_str()
                                        << " is not UTF-8. Nothing was written.");
    added.push_back({{"id", id},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const auto spelt = [&](std::int32_t id) {
    const std::string& token = v.tokens[static_cast<std::size_t>(id)];
    return tokenizer.specials().name(id) != nullptr ? token : alphabet.spell(token);
  };
  // Appended to the object's vector itself: by key, each would be looked for in all before it.
  json vocab = json::object();
  auto& entries = vocab.get_ref<json::object_t&>();
  for (std::int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) entries.emplace_back(spelt(id), id);
  json merges = json::array();
  for (const auto& [left, right] : v.merges) merges.push_back(spelt(left) + " " + spelt(right));

  const json document = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", added},
                         {"normalizer", nullptr},
                         {"pre_tokenizer", tokenizer_json::pre_tokenizer(v.rule)},
                         {"post_processor", nullptr},
                         {"decoder", tokenizer_json::byte_level()},
                         {"model",
                          {{"type", "BPE"},
                           {"dropout", nullptr},
                           {"unk_token", nullptr},
                           {"continuing_subword_prefix", nullptr},
                           {"end_of_word_suffix", nullptr},
                           {"fuse_unk", false},
                           {"byte_fallback", false},
                           {"ignore_merges", false},
                           {"vocab", vocab},
                           {"merges", merges}}}};
  return document.dump(2) + "\n";
}

/// The tokenizer that the text of a tokenizer.json describes: a byte-level BPE, saved here or elsewhere, without
/// normalizer, whose pre-tokenizer is this library's own or none. Anything that would give other ids than the file's
/// author had is refused. `name` begins the sentences.
inline bpe_tokenizer from_tokenizer_json(std::string_view text, const char* name = "tokenizer.json") {
  return bpe_tokenizer(tokenizer_json::reader(name).read(text), name);
}

/// Writes a tokenizer.json: beside its place first (`path` + ".part"), then renamed, so that readers see the old file
/// or the new one, whole.
inline void save_tokenizer(const bpe_tokenizer& tokenizer, const std::filesystem::path& path) {
  const std::string text = to_tokenizer_json(tokenizer);
  std::filesystem::path part = path;
  part += ".part";
  std::error_code problem;
  {
    std::ofstream out(part, std::ios::binary);
    out << text;
    out.close();
    if (!out) problem = std::make_error_code(std::errc::io_error);
  }
  if (!problem) std::filesystem::rename(part, path, problem);
  if (!problem) return;
  std::error_code ignored;
  std::filesystem::remove(part, ignored);
  fail(message("save_tokenizer") << "cannot write " << path.string().c_str() << " (" << problem.message().c_str()
                                 << "). What was there before is as it was.");
}

/// Reads a tokenizer.json; see `from_tokenizer_json`.
inline bpe_tokenizer load_tokenizer(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text;
  for (char block[1 << 14]; in.read(block, sizeof block), in.gcount() > 0;)
    text.append(block, static_cast<std::size_t>(in.gcount()));
  if (!in.eof()) fail(message("load_tokenizer") << "cannot read " << path.string().c_str() << ".");
  return from_tokenizer_json(text, path.string().c_str());
}

}  // namespace data

PLUMB_NAMESPACE_END

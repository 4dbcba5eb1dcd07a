#pragma once
// One line of JSON as the formats look at it: required fields, their types, and a sentence for what is not as it should
// be.

#include <plumb/data/reading.hpp>
#include <plumb/data/records.hpp>

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <vector>

PLUMB_NAMESPACE_BEGIN
namespace data::detail {

/// Where in a record something stands; text only when a sentence needs it: `completions[2].response`.
struct place {
  const place* inside = nullptr;
  std::string_view key = {};
  std::int64_t index = -1;

  std::string text() const {
    std::string out = inside != nullptr ? inside->text() : "";
    if (index >= 0) return out + '[' + std::to_string(index) + ']';
    if (key.empty()) return out;
    return out + (out.empty() ? "" : ".") + cut(key, longest_quote);
  }
};

/// "a string", "the number 3.5", "a list", ...
inline std::string found(simdjson::dom::element e) {
  using type = simdjson::dom::element_type;
  switch (e.type()) {
    case type::ARRAY:
      return "a list";
    case type::OBJECT:
      return "an object";
    case type::STRING: {
      std::string_view s;
      return e.get(s) == simdjson::SUCCESS ? "the string " + quote(s) : "a string";
    }
    case type::BOOL: {
      bool b = false;
      return e.get(b) == simdjson::SUCCESS && b ? "true" : "false";
    }
    case type::NULL_VALUE:
      return "null";
    default: {
      double d = 0;
      if (e.get(d) != simdjson::SUCCESS) return "a number";
      return std::string("the number ") + (message() << d).c_str();
    }
  }
}

/// The fields of one object, in their order. Each `get` is false, with a sentence in `problem`, unless the field is
/// there and of the type wanted.
class json_object {
 public:
  using element = simdjson::dom::element;

  json_object() = default;
  /// No two fields may have the same key.
  bool load(simdjson::dom::object object, const place& at, std::string& problem) {
    at_ = at;
    problem_ = &problem;
    fields_.clear();
    for (const auto pair : object) fields_.push_back({pair.key, pair.value});
    const std::string_view twice = repeated_key();
    return twice.data() == nullptr || fail("field " + name(twice) + " is there twice");
  }

  const element* find(std::string_view key) const {
    for (const field& f : fields_)
      if (f.key == key) return &f.value;
    return nullptr;
  }
  bool has(std::string_view key) const { return find(key) != nullptr; }

  bool get(std::string_view key, element& out) const {
    if (const element* e = find(key)) {
      out = *e;
      return true;
    }
    return fail("field " + name(key) + " is missing (found: " + keys() + ")");
  }
  bool get(std::string_view key, std::string_view& out) const {
    element e;
    if (!get(key, e)) return false;
    return e.get(out) == simdjson::SUCCESS || fail_type(key, "a string", e);
  }
  bool get(std::string_view key, bool& out) const {
    element e;
    if (!get(key, e)) return false;
    return e.get(out) == simdjson::SUCCESS || fail_type(key, "true or false", e);
  }
  bool get(std::string_view key, simdjson::dom::array& out) const {
    element e;
    if (!get(key, e)) return false;
    return e.get(out) == simdjson::SUCCESS || fail_type(key, "a list", e);
  }
  /// An integer from `low` to `high`, or `also`.
  bool get(std::string_view key, std::int64_t low, std::int64_t high, std::int64_t& out, std::int64_t also) const {
    element e;
    if (!get(key, e)) return false;
    if (e.get(out) == simdjson::SUCCESS && ((out >= low && out <= high) || out == also)) return true;
    return fail_type(key, "an integer from " + std::to_string(low) + " to " + std::to_string(high), e);
  }

  bool fail_type(std::string_view key, const std::string& wanted, element e) const {
    return fail("field " + name(key) + " must be " + wanted + ", but is " + found(e));
  }
  bool fail(std::string detail) const {
    *problem_ = std::move(detail);
    return false;
  }
  /// The full name of a field, quoted.
  std::string name(std::string_view key) const { return quoted_name(place{&at_, key}); }
  static std::string quoted_name(const place& at) {
    std::string out = '"' + cut_left(at.text(), 2 * longest_quote) + '"';
    for (char& c : out)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return out;
  }
  /// The keys that are there, for sentences.
  std::string keys() const {
    std::string out;
    for (std::size_t i = 0; i < fields_.size(); ++i) {
      if (i == 6) return out + ", ...";
      out += (i > 0 ? ", " : "") + quote(cut(fields_[i].key, 24));
    }
    return out.empty() ? "no field" : out;
  }
  const place& at() const { return at_; }

 private:
  struct field {
    std::string_view key;
    element value;
  };

  /// Null data where there is none.
  std::string_view repeated_key() {
    if (fields_.size() <= 24) {
      for (std::size_t i = 1; i < fields_.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
          if (fields_[i].key == fields_[j].key) return fields_[i].key;
      return {};
    }
    sorted_.clear();
    for (const field& f : fields_) sorted_.push_back(f.key);
    std::sort(sorted_.begin(), sorted_.end());
    const auto twice = std::adjacent_find(sorted_.begin(), sorted_.end());
    return twice != sorted_.end() ? *twice : std::string_view{};
  }

  place at_;
  std::string* problem_ = nullptr;
  std::vector<field> fields_;
  std::vector<std::string_view> sorted_;
};

/// A line and the objects that it is taken apart with, kept so that reading allocates nothing of its own. Stays where
/// it is.
class json_line {
 public:
  json_line() = default;
  json_line(const json_line&) = delete;
  json_line& operator=(const json_line&) = delete;

  std::int64_t number = 0;
  std::string problem;
  json_object record;         // the line
  json_object inner, deeper;  // a turn or a completion; its annotations, one of them

  /// `text` as line_reader gives it: readable beyond its end.
  bool parse(std::string_view text, std::int64_t line) {
    number = line;
    simdjson::dom::element root;
    const auto code = parser_.parse(text.data(), text.size(), false).get(root);
    if (code != simdjson::SUCCESS) return fail(complaint(code, text));
    simdjson::dom::object object;
    if (root.get(object) != simdjson::SUCCESS)
      return fail("the line must be an object, but is " + found(root) +
                  (root.is_array() ? " (jq -c '.[]' makes lines of a list)" : ""));
    return record.load(object, {}, problem);
  }

  bool fail(std::string detail) {
    problem = std::move(detail);
    return false;
  }

  /// Turns: a list of {role, content}; other fields of a message are passed over.
  bool get_turns(simdjson::dom::array list, const place& at, std::vector<turn>& out) {
    std::int64_t i = 0;
    out.reserve(list.size());
    for (const simdjson::dom::element e : list) {
      const place here{&at, {}, i++};
      simdjson::dom::object object;
      if (e.get(object) != simdjson::SUCCESS)
        return fail("field " + json_object::quoted_name(here) + " must be a message {role, content}, but is " +
                    found(e));
      std::string_view role, content;
      if (!inner.load(object, here, problem) || !inner.get("role", role) || !inner.get("content", content))
        return false;
      if (role.empty()) return inner.fail("field " + inner.name("role") + " is empty");
      out.push_back({std::string(role), std::string(content)});
    }
    return true;
  }

  /// A string or a list of messages; `chat` says which it was, also where the list is empty.
  bool get_passage(std::string_view key, passage& out, bool& chat) {
    simdjson::dom::element e;
    if (!record.get(key, e)) return false;
    std::string_view text;
    simdjson::dom::array list;
    chat = e.get(list) == simdjson::SUCCESS;
    if (chat) return get_turns(list, place{nullptr, key}, out.turns);
    if (e.get(text) != simdjson::SUCCESS) return record.fail_type(key, "a string or a list of messages", e);
    out.text = text;
    return true;
  }

 private:
  static std::string complaint(simdjson::error_code code, std::string_view text) {
    const std::string_view trimmed = text.substr(0, text.find_last_not_of(" \t\r") + 1);
    const std::string one_line = trimmed.starts_with('{') && !trimmed.ends_with('}')
                                     ? "; it does not end with \"}\", and a record has to be on one line"
                                     : "";
    switch (code) {
      case simdjson::UTF8_ERROR:
        return text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")
                   ? "the text begins as UTF-16 does, but has to be UTF-8"
                   : "the line is not valid UTF-8";
      case simdjson::DEPTH_ERROR:
        return "the JSON is nested too deeply";
      case simdjson::UNCLOSED_STRING:
        return "the JSON has a string that is not closed" + one_line;
      case simdjson::UNESCAPED_CHARS:
        return "the JSON has a string with a control character that is not escaped";
      case simdjson::STRING_ERROR:
        return "the JSON has a string with an escape that means nothing" + one_line;
      case simdjson::NUMBER_ERROR:
        return "the JSON has a number that is not one" + one_line;
      case simdjson::MEMALLOC:
        return "there is not enough memory to parse the line";
      default:
        return "the line is not JSON" + one_line + " (begins: " + quote(text) + ")";
    }
  }

  simdjson::dom::parser parser_;
};

}  // namespace data::detail
PLUMB_NAMESPACE_END

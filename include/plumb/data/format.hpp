#pragma once
// Which format a record has, by its keys.

#include <plumb/data/json_line.hpp>

#include <optional>
#include <string>

PLUMB_NAMESPACE_BEGIN
namespace data::detail {

/// The reader of a format, for sentences.
inline const char* who_reads(format f) {
  return f == format::unpaired                                   ? "unpaired_reader"
         : f == format::helpsteer2 || f == format::ultrafeedback ? "rating_reader"
                                                                 : "preference_reader";
}

/// Nothing, and a sentence, where the keys fit no format or several.
inline std::optional<format> recognise(json_line& line) {
  const json_object& r = line.record;
  const auto is_list = [&r](std::string_view key) { return r.has(key) && r.find(key)->is_array(); };
  const bool prompt = r.has("prompt"), sides = r.has("chosen") && r.has("rejected");
  const bool implicit_chat = sides && (is_list("chosen") || is_list("rejected"));
  const bool fits[] = {false,
                       sides && !prompt && !implicit_chat,
                       sides && (prompt || implicit_chat),
                       prompt && r.has("completion") && r.has("label"),
                       prompt && r.has("response") && r.has("helpfulness"),
                       prompt && r.has("response_1") && r.has("response_2") && r.has("preference_strength"),
                       (prompt || r.has("instruction")) && is_list("completions")};
  std::optional<format> found;
  std::string names;
  for (std::size_t i = 0; i < std::size(fits); ++i) {
    if (!fits[i]) continue;
    names += (found ? ", " : "") + std::string(format_names[i]);
    if (found) {
      line.fail("the keys fit several formats (" + names + "): name one with option `format`");
      return std::nullopt;
    }
    found = static_cast<format>(i);
  }
  if (!found) line.fail("the keys fit no format that is read (found: " + r.keys() + ")");
  return found;
}

}  // namespace data::detail
PLUMB_NAMESPACE_END

#pragma once
// What the readers of preference data hand out: plain structs, and the texts that a tokenizer takes.

#include <plumb/config.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

PLUMB_NAMESPACE_BEGIN
namespace data {

/// One message of a conversation; `role` as in the file ("user", "assistant", "system", ...).
struct turn {
  std::string role;
  std::string content;
  friend bool operator==(const turn&, const turn&) = default;
};

/// Nothing but spaces, tabs and line ends.
inline bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

/// A prompt or a reply, as its format has it: chat formats fill `turns`, all others `text`.
struct passage {
  std::string text;
  std::vector<turn> turns;

  bool is_chat() const { return !turns.empty(); }
  /// Says nothing: no text, or no turn with any.
  bool blank() const {
    for (const turn& t : turns)
      if (!is_blank(t.content)) return false;
    return is_blank(text);
  }
  friend bool operator==(const passage&, const passage&) = default;
};

/// Two replies to a prompt, the first preferred. Text formats are cut, not changed: prompt + reply is the text of the
/// file.
struct preference_pair {
  passage prompt, chosen, rejected;
  std::optional<double> margin;                          ///< how much better, in the format's own units; never negative
                                                         ///< except where a file says so itself
  std::optional<double> chosen_rating, rejected_rating;  ///< where the pair was made from ratings
  std::int64_t line = 0;                                 ///< of its first line in the file, from 1
};

/// A reply that was found good (`label`) or bad.
struct unpaired_example {
  passage prompt, completion;
  bool label = false;
  std::int64_t line = 0;
};

/// The rating of an attribute that was not rated; what `attribute_regression` takes for that.
inline constexpr double missing_rating = -100;

/// A reply with its ratings, in the order of `attributes(reader)`.
struct rated_response {
  passage prompt, response;
  std::vector<double> ratings;
  std::int64_t line = 0;
};

/// How turns become one text.
enum class transcript_style {
  hh,    ///< as in HH-RLHF: "\n\nHuman: hello\n\nAssistant: hello", other roles by their own name
  plain  ///< the contents alone, a blank line between them
};

namespace detail {

inline void append_label(std::string& out, const std::string& role) {
  out += "\n\n";
  if (role == "user" || role == "human") {
    out += "Human:";
  } else {
    out += role;
    char& first = out[out.size() - role.size()];
    if (!role.empty() && first >= 'a' && first <= 'z') first = static_cast<char>(first - 'a' + 'A');
    out += ':';
  }
}

}  // namespace detail

/// The text up to where the reply begins. A passage that is text already comes back as it is.
inline std::string render_prompt(const passage& prompt, transcript_style style = transcript_style::hh) {
  if (!prompt.is_chat()) return prompt.text;
  std::string out;
  for (const turn& t : prompt.turns) {
    if (style == transcript_style::hh) {
      detail::append_label(out, t.role);
      out += ' ';
    }
    out += t.content;
    if (style == transcript_style::plain) out += "\n\n";
  }
  if (style == transcript_style::hh) out += "\n\nAssistant:";
  return out;
}

/// What follows it: render_prompt(prompt) + render_reply(reply) is the whole transcript.
inline std::string render_reply(const passage& reply, transcript_style style = transcript_style::hh) {
  if (!reply.is_chat()) return reply.text;
  std::string out;
  for (const turn& t : reply.turns) {
    const bool first = &t == &reply.turns.front();
    if (style == transcript_style::plain) {
      if (!first) out += "\n\n";
    } else {
      if (!first || t.role != "assistant") detail::append_label(out, t.role);
      out += ' ';
    }
    out += t.content;
  }
  return out;
}

}  // namespace data
PLUMB_NAMESPACE_END

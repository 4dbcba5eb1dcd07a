#pragma once
// What every reader of preference data shares: the formats, the options, the errors and the summary.

#include <plumb/core/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

PLUMB_NAMESPACE_BEGIN
namespace data {

/// The formats of preference data, by the keys of their records.
enum class format {
  detect,                 ///< by the keys of the first record
  hh_rlhf,                ///< {chosen, rejected}: whole transcripts with "\n\nHuman:" and "\n\nAssistant:"
  trl_preference,         ///< {prompt, chosen, rejected}: text or chat; {chosen, rejected}: chat
  unpaired,               ///< {prompt, completion, label}: text or chat
  helpsteer2,             ///< {prompt, response, helpfulness, correctness, coherence, complexity, verbosity}
  helpsteer2_preference,  ///< {prompt, response_1, response_2, preference_strength}
  ultrafeedback           ///< {instruction or prompt, completions: [{response, overall_score, annotations}]}
};

/// Their names, in the order of `format`.
inline constexpr const char* format_names[] = {
    "detect", "hh_rlhf", "trl_preference", "unpaired", "helpsteer2", "helpsteer2_preference", "ultrafeedback"};
/// "hh_rlhf" and so on.
inline const char* format_name(format f) { return format_names[static_cast<std::size_t>(f)]; }

/// What happens at a record that cannot be read.
enum class on_error {
  stop,  ///< `data_error`; the next call goes on with the line after it
  skip   ///< counted; the summary keeps the first sentences
};

/// Which two responses of a prompt become a pair, where the format has several with a rating.
enum class pairing {
  best_and_worst,        ///< the highest rating and the lowest, the earlier response where ratings are equal
  best_and_random_lower  ///< the highest rating and any lower one, drawn by `seed` and the number of the line
};

/// How a file is read.
struct read_options {
  data::format format = data::format::detect;
  data::on_error on_error = data::on_error::stop;
  std::size_t max_line_bytes = std::size_t{64}
                               << 20;  ///< up to 4,000,000,000; a longer line is an error and is passed over
  std::size_t remembered_errors = 5;   ///< sentences that the summary keeps
  /// UltraFeedback: a number in the completion itself, or an attribute below its `annotations`. Pairs use the first.
  std::vector<std::string> ratings = {"overall_score"};
  data::pairing pairing = data::pairing::best_and_worst;
  std::uint64_t seed = 0;
};

/// Why something well-formed was not handed out.
enum class drop {
  identical_replies,  ///< chosen and rejected are the same
  empty_reply,        ///< a reply without text
  tie,                ///< neither reply is better
  invalid,            ///< HelpSteer2 preference: neither response is valid (-100)
  no_partner,         ///< HelpSteer2 pairs: a row whose neighbour has another prompt
  no_rating,          ///< UltraFeedback: a response without any of the ratings asked for
  too_few_ratings     ///< UltraFeedback pairs: a prompt with fewer than two rated responses
};

/// What was dropped, in words, in the order of `drop`.
inline constexpr const char* drop_names[] = {"pairs whose replies are identical",
                                             "empty replies",
                                             "ties",
                                             "pairs marked as invalid",
                                             "rows without a neighbour of their prompt",
                                             "responses without a rating",
                                             "prompts with fewer than two rated responses"};
/// How many reasons there are.
inline constexpr std::size_t drop_reasons = std::size(drop_names);

/// What was read. Where each line is one record: lines = records + dropped + blank_lines + errors.
struct read_summary {
  std::string name;
  data::format format = data::format::detect;  ///< `detect` as long as no record was recognised
  bool gzip = false, byte_order_mark = false;
  std::int64_t lines = 0, records = 0, errors = 0;
  std::int64_t blank_lines = 0;              ///< passed over
  std::int64_t crlf_lines = 0;               ///< ended by "\r\n"
  std::int64_t bytes = 0, bytes_stored = 0;  ///< of text; of the file, which is less if it is compressed
  std::array<std::int64_t, drop_reasons> dropped_by_reason = {};
  std::vector<std::string> first_errors;

  std::int64_t dropped(drop reason) const { return dropped_by_reason[static_cast<std::size_t>(reason)]; }
  std::int64_t dropped() const {
    std::int64_t sum = 0;
    for (const std::int64_t n : dropped_by_reason) sum += n;
    return sum;
  }

  /// For people: one line of totals, one for each reason, one for each remembered error.
  std::string to_text() const {
    const auto number = [](std::int64_t n) { return std::to_string(n); };
    const auto counted = [&](std::int64_t n, const char* what) { return number(n) + what + (n == 1 ? "" : "s"); };
    std::string out = name + " (" + (format == data::format::detect ? "format unknown" : format_name(format));
    if (gzip) out += ", gzip";
    out += "): " + counted(lines, " line") + ", " + counted(records, " record") + ", " + number(dropped()) +
           " dropped, " + counted(errors, " error") + ", " + counted(bytes, " byte") + " of text";
    if (gzip) out += " (" + number(bytes_stored) + " compressed)";
    out += '\n';
    for (std::size_t i = 0; i < drop_reasons; ++i)
      if (dropped_by_reason[i] != 0)
        out += "  dropped, " + std::string(drop_names[i]) + ": " + number(dropped_by_reason[i]) + '\n';
    if (blank_lines != 0) out += "  blank lines, passed over: " + number(blank_lines) + '\n';
    if (crlf_lines != 0) out += "  lines that end in CRLF: " + number(crlf_lines) + '\n';
    if (byte_order_mark) out += "  the file begins with a byte order mark\n";
    for (const std::string& sentence : first_errors) out += "  " + sentence + '\n';
    const std::int64_t more = errors - static_cast<std::int64_t>(first_errors.size());
    if (more > 0 && !first_errors.empty()) out += "  more errors: " + number(more) + '\n';
    return out;
  }
};

#if !defined(PLUMB_NO_EXCEPTIONS)
/// A file or a record that cannot be read. What was handed out before is as it was.
class data_error : public error {
 public:
  data_error(const message& m, std::int64_t line) : error(m), line_(line) {}
  /// From 1; 0 where the file as a whole is meant.
  std::int64_t line() const noexcept { return line_; }

 private:
  std::int64_t line_;
};
#endif

namespace detail {

// Sentences have 512 bytes: the name of the file gets some, what is wrong gets most.
inline constexpr std::size_t longest_name = 150, longest_detail = 280, longest_quote = 40;

/// At most `limit` bytes of it, cut between characters.
inline std::string cut(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  std::size_t end = limit - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

/// The end of a path is what tells files apart.
inline std::string cut_left(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  std::size_t begin = text.size() - (limit - 3);
  while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) ++begin;
  return "..." + std::string(text.substr(begin));
}

/// For sentences: in quotation marks, short, on one line.
inline std::string quote(std::string_view text) {
  std::string out = '"' + cut(text, longest_quote) + '"';
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return out;
}

/// "plumb: <file>:<line>: <detail>. <n> records were read before it."
inline message sentence(std::string_view name, std::int64_t line, std::string_view detail, std::int64_t records) {
  std::string where = cut_left(name, longest_name);
  if (line > 0) where += ":" + std::to_string(line);
  message m(where.c_str());
  m << cut(detail, longest_detail).c_str() << ".";
  if (line > 0) m << " " << records << (records == 1 ? " record was" : " records were") << " read before it.";
  return m;
}

[[noreturn]] inline void fail_reading(const message& m, [[maybe_unused]] std::int64_t line) {
#if defined(PLUMB_NO_EXCEPTIONS)
  fail(m);
#else
  throw data_error(m, line);
#endif
}

}  // namespace detail
}  // namespace data
PLUMB_NAMESPACE_END

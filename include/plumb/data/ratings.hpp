#pragma once
// Replies with their ratings: rows of HelpSteer2, completions of UltraFeedback.

#include <plumb/data/helpsteer2.hpp>
#include <plumb/data/record_reader.hpp>
#include <plumb/data/ultrafeedback.hpp>

#include <string>
#include <vector>

PLUMB_NAMESPACE_BEGIN
namespace data {
namespace detail {

class rating_decoder {
 public:
  using record = rated_response;
  static constexpr const char* name = "rating_reader";

  explicit rating_decoder(const read_options& options) : ultrafeedback_(options.ratings) {}
  static bool reads(format f) { return f == format::helpsteer2 || f == format::ultrafeedback; }
  bool decode(format f, json_line& line, outcome<record>& out) {
    return f == format::helpsteer2 ? decode_row(line, out) : decode_completions(line, out);
  }
  void finish(outcome<record>&) {}

 private:
  static bool decode_row(json_line& line, outcome<record>& out) {
    rated_response row;
    if (!decode_helpsteer2_row(line, row)) return false;
    if (row.response.blank())
      out.drop(drop::empty_reply);
    else
      out.hand_out(std::move(row));
    return true;
  }
  bool decode_completions(json_line& line, outcome<record>& out) {
    if (!ultrafeedback_.decode(line, out)) return false;
    for (auto& response : ultrafeedback_.responses) {
      rated_response row;
      row.line = line.number;
      row.prompt.text = ultrafeedback_.prompt;
      row.response.text = response.text;
      row.ratings = std::move(response.ratings);
      out.hand_out(std::move(row));
    }
    return true;
  }

  ultrafeedback_record ultrafeedback_;
};

}  // namespace detail

/// helpsteer2 and ultrafeedback; the ratings of a response come in the order of `attributes(reader)`.
using rating_reader = record_reader<detail::rating_decoder>;

/// Names of the ratings; empty as long as the format is not known.
inline std::vector<std::string> attributes(const rating_reader& reader) {
  if (reader.format() == format::helpsteer2) return {helpsteer2_attributes.begin(), helpsteer2_attributes.end()};
  if (reader.format() == format::ultrafeedback) return reader.options().ratings;
  return {};
}

}  // namespace data
PLUMB_NAMESPACE_END

#pragma once
// Single replies that were found good or bad: {prompt, completion, label}.

#include <plumb/data/record_reader.hpp>
#include <plumb/data/trl.hpp>

PLUMB_NAMESPACE_BEGIN
namespace data {
namespace detail {

class unpaired_decoder {
 public:
  using record = unpaired_example;
  static constexpr const char* name = "unpaired_reader";

  explicit unpaired_decoder(const read_options&) {}
  static bool reads(format f) { return f == format::unpaired; }
  bool decode(format, json_line& line, outcome<record>& out) { return decode_unpaired(line, out); }
  void finish(outcome<record>&) {}
};

}  // namespace detail

/// prompt, completion and label, in text or chat.
using unpaired_reader = record_reader<detail::unpaired_decoder>;

}  // namespace data
PLUMB_NAMESPACE_END

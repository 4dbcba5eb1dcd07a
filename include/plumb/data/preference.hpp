#pragma once
// Pairs of replies, from every format that has them or from which they can be made.
//
//   for (const plumb::data::preference_pair& pair : plumb::data::preference_reader("train.jsonl.gz")) ...

#include <plumb/data/helpsteer2.hpp>
#include <plumb/data/record_reader.hpp>
#include <plumb/data/trl.hpp>
#include <plumb/data/ultrafeedback.hpp>

PLUMB_NAMESPACE_BEGIN
namespace data {
namespace detail {

class preference_decoder {
 public:
  using record = preference_pair;
  static constexpr const char* name = "preference_reader";

  explicit preference_decoder(const read_options& options) : ultrafeedback_(options) {}
  static bool reads(format f) { return f != format::unpaired; }
  bool decode(format f, json_line& line, outcome<record>& out) {
    switch (f) {
      case format::hh_rlhf:
        return decode_hh_rlhf(line, out);
      case format::trl_preference:
        return decode_trl_preference(line, out);
      case format::helpsteer2:
        return helpsteer2_.decode(line, out);
      case format::helpsteer2_preference:
        return decode_helpsteer2_preference(line, out);
      default:
        return ultrafeedback_.decode(line, out);
    }
  }
  void finish(outcome<record>& out) { helpsteer2_.finish(out); }

 private:
  helpsteer2_pairs helpsteer2_;
  ultrafeedback_pairs ultrafeedback_;
};

}  // namespace detail

/// hh_rlhf, trl_preference, helpsteer2 (pairs of adjacent rows), helpsteer2_preference, ultrafeedback (best and worst).
using preference_reader = record_reader<detail::preference_decoder>;

}  // namespace data
PLUMB_NAMESPACE_END

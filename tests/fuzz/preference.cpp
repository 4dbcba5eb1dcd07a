// Any bytes through preference_reader, in every format.
#include "support/fuzz_readers.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace plumb_test;
  fuzz_reader<preference_reader>(bytes, size,
                                 {format::hh_rlhf, format::trl_preference, format::helpsteer2,
                                  format::helpsteer2_preference, format::ultrafeedback},
                                 [](const preference_pair& p) {
                                   require(p.chosen != p.rejected);
                                   require(!p.chosen.blank() && !p.rejected.blank());
                                   require(p.chosen.is_chat() == p.rejected.is_chat());
                                   if (p.chosen_rating) require(*p.chosen_rating > *p.rejected_rating && *p.margin > 0);
                                   require(!render_prompt(p.prompt).empty() || !p.prompt.is_chat());
                                   require(!render_reply(p.chosen, transcript_style::plain).empty());
                                 });
  return 0;
}

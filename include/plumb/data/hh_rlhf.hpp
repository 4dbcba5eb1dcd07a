#pragma once
// HH-RLHF: {chosen, rejected}, each a whole transcript with "\n\nHuman:" and "\n\nAssistant:" before the turns
// (Bai et al. 2022, arXiv:2204.05862).

#include <plumb/data/record_reader.hpp>

#include <algorithm>

PLUMB_NAMESPACE_BEGIN
namespace data::detail {

inline constexpr std::string_view assistant_label = "\n\nAssistant:";

/// Bytes of the prompt that two transcripts share: up to and including the last "\n\nAssistant:" of their common
/// beginning. 0 where there is none.
inline std::size_t shared_prompt(std::string_view a, std::string_view b) {
  const std::size_t shorter = std::min(a.size(), b.size());
  const auto end = std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(shorter), b.begin()).first;
  std::string_view common = a.substr(0, static_cast<std::size_t>(end - a.begin()));
  // By its colon: std::string_view::rfind compares the whole label at each byte.
  while (!common.ends_with(assistant_label)) {
    if (common.empty()) return 0;
    common.remove_suffix(1);
    common = common.substr(0, common.rfind(assistant_label.back()) + 1);
  }
  return common.size();
}

/// A pair that says something is handed out, any other is dropped with the reason.
inline void hand_out_pair(preference_pair&& pair, outcome<preference_pair>& out) {
  if (pair.chosen == pair.rejected)
    out.drop(drop::identical_replies);
  else if (pair.chosen.blank() || pair.rejected.blank())
    out.drop(drop::empty_reply);
  else
    out.hand_out(std::move(pair));
}

inline bool decode_hh_rlhf(json_line& line, outcome<preference_pair>& out) {
  std::string_view chosen, rejected;
  if (!line.record.get("chosen", chosen) || !line.record.get("rejected", rejected)) return false;
  const std::size_t prompt = shared_prompt(chosen, rejected);
  if (prompt == 0)
    return line.fail(
        "fields \"chosen\" and \"rejected\" share no prompt: up to where they differ there is no \"\\n\\nAssistant:\"");
  preference_pair pair;
  pair.line = line.number;
  pair.prompt.text = chosen.substr(0, prompt);
  pair.chosen.text = chosen.substr(prompt);
  pair.rejected.text = rejected.substr(prompt);
  hand_out_pair(std::move(pair), out);
  return true;
}

}  // namespace data::detail
PLUMB_NAMESPACE_END

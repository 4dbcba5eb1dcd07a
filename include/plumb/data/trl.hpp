#pragma once
// The two formats of TRL's documentation: preference {prompt, chosen, rejected} and unpaired preference {prompt,
// completion, label}, as text or as lists of messages {role, content}.

#include <plumb/data/hh_rlhf.hpp>

#include <algorithm>

PLUMB_NAMESPACE_BEGIN
namespace data::detail {

/// Messages of the prompt that two conversations share: the longest common beginning after which the assistant speaks
/// in both. -1 where there is none.
inline std::ptrdiff_t shared_turns(const std::vector<turn>& a, const std::vector<turn>& b) {
  const auto shorter = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  std::ptrdiff_t n = std::mismatch(a.begin(), a.begin() + shorter, b.begin()).first - a.begin();
  const auto assistant = [](const std::vector<turn>& side, std::ptrdiff_t i) {
    return side[static_cast<std::size_t>(i)].role == "assistant";
  };
  n = std::min(n, shorter - 1);
  while (n >= 0 && !(assistant(a, n) && assistant(b, n))) --n;
  return n;
}

/// Both sides lose their first `n` messages, which become the prompt.
inline void move_prompt(preference_pair& pair, std::ptrdiff_t n) {
  auto& chosen = pair.chosen.turns;
  auto& rejected = pair.rejected.turns;
  pair.prompt = {};
  pair.prompt.turns.assign(chosen.begin(), chosen.begin() + n);
  chosen.erase(chosen.begin(), chosen.begin() + n);
  rejected.erase(rejected.begin(), rejected.begin() + n);
}

inline bool begins_with(const std::vector<turn>& conversation, const std::vector<turn>& prompt) {
  return conversation.size() > prompt.size() && std::equal(prompt.begin(), prompt.end(), conversation.begin());
}

inline bool decode_trl_preference(json_line& line, outcome<preference_pair>& out) {
  preference_pair pair;
  pair.line = line.number;
  bool prompt_chat = false, chosen_chat = false, rejected_chat = false;
  const bool prompt = line.record.has("prompt");
  if (prompt && !line.get_passage("prompt", pair.prompt, prompt_chat)) return false;
  if (!line.get_passage("chosen", pair.chosen, chosen_chat) ||
      !line.get_passage("rejected", pair.rejected, rejected_chat))
    return false;
  if (chosen_chat != rejected_chat)
    return line.fail("fields \"chosen\" and \"rejected\" must both be strings or both be lists of messages");
  if (prompt_chat && !chosen_chat)
    return line.fail("field \"prompt\" is a list of messages, but \"chosen\" and \"rejected\" are strings");
  if (!prompt && !chosen_chat) return line.get_passage("prompt", pair.prompt, prompt_chat);  // is missing
  if (const auto* margin = line.record.find("margin"); margin != nullptr && !margin->is_null()) {
    double value = 0;
    if (margin->get(value) != simdjson::SUCCESS) return line.record.fail_type("margin", "a number", *margin);
    pair.margin = value;
  }
  if (pair.chosen == pair.rejected || pair.chosen.blank() || pair.rejected.blank()) {
    hand_out_pair(std::move(pair), out);  // is dropped there
    return true;
  }
  if (chosen_chat && !prompt_chat) {
    // Whole conversations. A prompt given as text beside them repeats what they begin with; TRL takes no notice of it
    // either.
    const std::ptrdiff_t n = shared_turns(pair.chosen.turns, pair.rejected.turns);
    if (n < 0)
      return line.fail(
          "fields \"chosen\" and \"rejected\" share no prompt: up to where they differ the assistant does not "
          "speak next in both");
    move_prompt(pair, n);
  } else if (prompt_chat && begins_with(pair.chosen.turns, pair.prompt.turns) &&
             begins_with(pair.rejected.turns, pair.prompt.turns)) {
    move_prompt(pair, static_cast<std::ptrdiff_t>(pair.prompt.turns.size()));
  }
  hand_out_pair(std::move(pair), out);
  return true;
}

inline bool decode_unpaired(json_line& line, outcome<unpaired_example>& out) {
  unpaired_example example;
  example.line = line.number;
  bool prompt_chat = false, completion_chat = false;
  if (!line.get_passage("prompt", example.prompt, prompt_chat) ||
      !line.get_passage("completion", example.completion, completion_chat) || !line.record.get("label", example.label))
    return false;
  if (prompt_chat != completion_chat)
    return line.fail("fields \"prompt\" and \"completion\" must both be strings or both be lists of messages");
  if (example.completion.blank())
    out.drop(drop::empty_reply);
  else
    out.hand_out(std::move(example));
  return true;
}

}  // namespace data::detail
PLUMB_NAMESPACE_END

#pragma once
// A preference file of the user's as the lab trains on it: read, dealt out by conversation, cut into tokens; and the baselines that need no model.

#include "settings.hpp"
#include "stages.hpp"
#include "training.hpp"

#include <plumb/data/bpe_tokenizer.hpp>
#include <plumb/data/records.hpp>

namespace lab {

/// A pair as text, and as tokens cut to what the model sees.
struct file_pair {
  std::string prompt, chosen, rejected;
  std::int64_t line = 0;
  std::string opening{};          ///< what tells its conversation from others
  std::size_t conversation = 0;   ///< pairs of one number are on one side of the split
  sample tokens_chosen{}, tokens_rejected{};
};

struct file_split {
  std::vector<file_pair> train{}, held_out{};
  std::size_t conversations = 0;
};

/// What tells a conversation from others: what the person said first. The same person, asked the same, goes on in several ways, and a pair of
/// one of them tells much of the others. Transcripts ("\n\nHuman: ...\n\nAssistant:") count as such in any format of text.
std::string opening_of(const plumb::data::passage& prompt);

/// Conversations, not pairs, are dealt out, in an order drawn by the seed, until the held-out side has a fifth; one that would make it more than
/// a quarter is passed over. The pairs to train on come in an order drawn by the seed, those held out in the given one. That side is
/// empty where there are few conversations.
file_split split_by_conversation(std::vector<file_pair> pairs, std::uint64_t seed);

/// A baseline on the held-out pairs.
struct baseline {
  std::string name, label;
  std::vector<double> margins{};  ///< score of chosen minus score of rejected
};

class file_pairs {
 public:
  /// Reads the file of `s.data` and deals it out by the seed. Throws, with nothing made or moved, where it cannot be used.
  file_pairs(const settings& s, std::uint64_t seed);
  /// Learns the tokenizer from what is to be trained on (stage "tokenizer"), and cuts every text into tokens.
  void tokenize(run_folder& folder);

  const std::vector<file_pair>& train() const { return data_.train; }
  const std::vector<file_pair>& held_out() const { return data_.held_out; }
  index_t vocabulary_size() const { return tokenizer_.vocabulary_size(); }
  /// What was read, a line for each thing.
  const std::string& summary() const { return summary_; }
  /// How it was dealt out, and what the models do not see.
  const std::string& account() const { return account_; }
  /// What needs no language model: the longer reply, the shorter, weights of single tokens learned from the pairs to train on.
  std::vector<baseline> baselines() const;

 private:
  /// A pair as tokens: the models see the end of the prompt and the beginning of each reply, the same prompt for both.
  void encode(file_pair& p, std::size_t& replies_cut, std::size_t& prompts_cut) const;

  const settings& s_;
  file_split data_{};
  std::string summary_{}, account_{};
  plumb::data::bpe_tokenizer tokenizer_{};
  token bos_ = 0, end_ = 0;
};

}  // namespace lab

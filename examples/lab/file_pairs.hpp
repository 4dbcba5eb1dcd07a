#pragma once
// A preference file of the user's as the lab trains on it: read, dealt out by conversation, cut into tokens; and the baselines that need no model.

#include "settings.hpp"
#include "stages.hpp"
#include "training.hpp"

#include <plumb/data/bpe_tokenizer.hpp>

#include <memory>

namespace lab {

/// A pair as text, and as tokens cut to what the model sees.
struct file_pair {
  std::string prompt, chosen, rejected;
  std::int64_t line = 0;
  std::string opening{};         ///< its conversation up to the first reply
  std::size_t conversation = 0;   ///< pairs of one number are on one side of the split
  sample tokens_chosen{}, tokens_rejected{};
};

struct file_split {
  std::vector<file_pair> train{}, held_out{};
  std::size_t conversations = 0;
};

/// Throws, before anything is made or moved, where a file has no pair at all.
void require_pairs(const std::filesystem::path& file);

/// A baseline on the held-out pairs.
struct baseline {
  std::string name, label;
  std::vector<double> margins{};  ///< score of chosen minus score of rejected
};

/// 1 where the chosen reply is scored higher, a half for a tie.
inline double right(double margin) { return margin > 0 ? 1.0 : margin == 0 ? 0.5 : 0.0; }

class file_pairs {
 public:
  /// Reads the file of `s.data`, deals it out by the seed, learns the tokenizer from what is to be trained on (stage "tokenizer").
  file_pairs(const settings& s, std::uint64_t seed, run_folder& folder);

  const std::vector<file_pair>& train() const { return data_.train; }
  const std::vector<file_pair>& held_out() const { return data_.held_out; }
  index_t vocabulary_size() const { return tokenizer_.vocabulary_size(); }
  /// What was read, a line for each thing.
  const std::string& summary() const { return summary_; }
  /// How it was dealt out, and what the models do not see.
  const std::string& account() const { return account_; }

  /// What needs no language model, the best one first. Which is best is decided on the pairs to train on: a fifth of their conversations is
  /// scored, by token weights that were learned from the others.
  std::vector<baseline> baselines() const;

 private:
  void read();
  void learn_tokenizer(run_folder& folder);
  sample encoded(const std::string& prompt, const std::string& reply, bool& cut) const;

  const settings& s_;
  std::uint64_t seed_;
  file_split data_{};
  std::string summary_{}, account_{};
  plumb::data::bpe_tokenizer tokenizer_{};
  token bos_ = 0, end_ = 0;
};

}  // namespace lab

#pragma once
// DR-PO: policy optimisation whose rollouts restart from states of the offline data (Chang et al., arXiv:2404.08495). What differs from PPO is where
// texts begin; this header draws the beginnings, algorithms/ppo.hpp does the rest.

#include <plumb/core/random.hpp>
#include <plumb/model/concepts.hpp>

#include <numeric>

PLUMB_NAMESPACE_BEGIN

/// Where rollouts begin: `source.starts(step, rows)` -> a range of `rows` states that the policy's `generate` takes, `start` or a type of the host's
/// own (a simulator's state, a handle to a sequence in a cache). Law: state `i` depends on (seed, step, i) alone, so that runs repeat and resume.
template <class S>
concept reset_source = requires(S& s, std::uint64_t step, index_t rows) {
  { s.starts(step, rows) } -> std::ranges::contiguous_range;
};

/// Which reply of an item is reset into.
enum class reset_completion {
  first,  ///< the first: the chosen one, or the human reference
  last,   ///< the last: the rejected one
  any,    ///< each equally likely
};

/// Which items a step looks at.
enum class item_order {
  independent,  ///< each row draws one, so an item may come twice
  epochs,       ///< all items in a new order, then again: each trajectory gives one state, as in the theory (`drpo_options::theory`)
};

/// Options of `drpo`.
struct drpo_options {
  double proportion = 1;  ///< chance that a row is reset, each by itself (the paper's beta, table 2); 0: every rollout starts at its prompt: PPO
  /// Fewest tokens that a reset gives: 0 (algorithm 1: the state before the first token is one of the data's), or 1 (the authors' code).
  index_t min_cut = 0;
  index_t max_cut = -1;   ///< most tokens; negative: all but the last
  reset_completion completion = reset_completion::first;
  item_order items = item_order::independent;
  index_t step_rows = 0;  ///< rows of a whole step, of all ranks: `item_order::epochs` counts items by it; else it is not looked at
  std::uint64_t seed = 0;

  void require(const char* op) const {
    require_option(op, "proportion", proportion, proportion >= 0 && proportion <= 1, "in [0, 1]");
    require_option(op, "min_cut", static_cast<double>(min_cut), min_cut >= 0, "0 or positive");
    require_option(op, "max_cut", static_cast<double>(max_cut), max_cut < 0 || max_cut >= min_cut, "negative (no limit), or `min_cut` or more");
    require_mode(op, "completion", completion, reset_completion::any);
    require_mode(op, "items", items, item_order::epochs);
    require_option(op, "step_rows", static_cast<double>(step_rows), step_rows >= 0 && (items == item_order::independent || step_rows > 0),
                   "0 or positive, and positive with `item_order::epochs`");
  }
  /// What Cornell-RL/drpo and tril run: at least one token is given.
  static drpo_options authors_code() { return {.min_cut = 1}; }
  /// The sampler of algorithms 1 and 2: of each trajectory one state, each of its states equally likely, and no trajectory again before all had
  /// their turn.
  static drpo_options theory(index_t step_rows) { return {.items = item_order::epochs, .step_rows = step_rows}; }
};

/// A prompt and replies to it; the end token, where there is one, is a reply's last.
struct reset_item {
  std::vector<std::int32_t> prompt{};
  std::vector<std::vector<std::int32_t>> completions{};
};

/// The dataset of resets. A reply of `L` tokens gives `c` of them, `c` uniform over `min_cut .. min(max_cut, L - 1)`: the last token, so the end
/// token too, is never given, and a reply shorter than two tokens is not cut: its row starts at the prompt. Items are the caller's and must stay.
///
/// Streams of its own draw item, chance and cut of (seed, step, row), apart from those that draw tokens: with `proportion` 0 the starts, and with
/// them everything, are those of PPO to the bit. A prompt's number is its item's. One object is for one thread.
class drpo {
 public:
  explicit drpo(std::span<const reset_item> items, drpo_options options = {}) : items_(items), o_(options) {
    constexpr const char* op = "drpo";
    o_.require(op);
    if (items.empty()) fail(message(op) << "there are no items to reset into.");
    if (o_.proportion > 0)
      for (std::size_t i = 0; i < items.size(); ++i)
        if (items[i].completions.empty()) fail(message(op) << "item " << static_cast<index_t>(i) << " has no reply to reset into.");
  }
  drpo(std::vector<reset_item>&&, drpo_options = {}) = delete;  // the items would be gone

  const drpo_options& options() const { return o_; }

  /// Starts of rows `first_row .. first_row + rows` of a step: any piece of a step is what the whole would hold there.
  std::vector<start> starts(std::uint64_t step, index_t rows, std::uint64_t first_row = 0) const {
    constexpr const char* op = "drpo::starts";
    require_option(op, "rows", static_cast<double>(rows), rows >= 0, "0 or positive");
    if (o_.items == item_order::epochs && first_row + static_cast<std::uint64_t>(rows) > static_cast<std::uint64_t>(o_.step_rows))
      fail(message(op) << "rows up to " << static_cast<index_t>(first_row) + rows << " are asked for, but a step has " << o_.step_rows
                       << " (`step_rows`).");
    std::vector<start> all;
    all.reserve(static_cast<std::size_t>(rows));
    const std::uint64_t step_seed = random_stream{o_.seed, 0x706c756d62000003u}.bits(step);
    for (std::uint64_t row = first_row; row < first_row + static_cast<std::uint64_t>(rows); ++row) {
      const random_stream draw{step_seed, row};
      const std::size_t which = item_of(step, row, draw);
      const reset_item& item = items_[which];
      start s{.tokens = item.prompt, .prompt_tokens = static_cast<index_t>(item.prompt.size()), .prompt = static_cast<std::int32_t>(which)};
      if (draw.uniform(reset_chance) < o_.proportion) {
        const std::size_t n = item.completions.size();
        const std::size_t reply = o_.completion == reset_completion::first  ? 0
                                  : o_.completion == reset_completion::last ? n - 1
                                                                            : static_cast<std::size_t>(draw.below(n, reply_choice));
        const index_t cut = cut_of(static_cast<index_t>(item.completions[reply].size()), draw.uniform(cut_place));
        s.tokens.insert(s.tokens.end(), item.completions[reply].begin(), item.completions[reply].begin() + cut);
      }
      all.push_back(std::move(s));
    }
    return all;
  }

  /// The cut that `u` in [0, 1) draws of a reply of `length` tokens.
  index_t cut_of(index_t length, double u) const {
    if (length < 2) return 0;
    const index_t most = o_.max_cut < 0 ? length - 1 : std::min(o_.max_cut, length - 1);
    const index_t least = std::min(o_.min_cut, most);
    return least + static_cast<index_t>(u * static_cast<double>(most - least + 1));
  }

 private:
  enum counter : std::uint64_t { item_choice, reset_chance, reply_choice, cut_place };

  std::size_t item_of(std::uint64_t step, std::uint64_t row, const random_stream& draw) const {
    const std::uint64_t n = items_.size();
    if (o_.items == item_order::independent) return static_cast<std::size_t>(draw.below(n, item_choice));
    const std::uint64_t place = step * static_cast<std::uint64_t>(o_.step_rows) + row;
    return order_of(place / n, place % n);
  }
  // Place `at` of the order of an epoch; the order is made when the epoch is first asked for.
  std::size_t order_of(std::uint64_t epoch, std::uint64_t at) const {
    if (order_.empty() || epoch != epoch_) {
      order_.resize(items_.size());
      std::iota(order_.begin(), order_.end(), std::size_t{0});
      const random_stream shuffle{random_stream{o_.seed, 0x706c756d62000004u}.bits(epoch), 0};
      for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[static_cast<std::size_t>(shuffle.below(i, i))]);
      epoch_ = epoch;
    }
    return order_[static_cast<std::size_t>(at)];
  }

  std::span<const reset_item> items_;
  drpo_options o_;
  mutable std::vector<std::size_t> order_{};
  mutable std::uint64_t epoch_ = 0;
};

static_assert(reset_source<drpo>);

PLUMB_NAMESPACE_END

#pragma once
// The search tree of RAIN (arXiv:2309.07124), in host memory: selection, backup with similarity credit, dynamic addition of nodes, commit. Model,
// judge and embedder stay outside: search/rain.hpp brings them together.

#include <plumb/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <span>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

/// A token, and its probability over that of the likeliest.
struct ranked_token {
  std::int32_t token;
  double weight;
};

/// A set of tokens that may follow its parent's. Indices are those of `rain_tree`; the root is node 0.
struct rain_node {
  std::vector<std::int32_t> tokens{};
  double prior = 0;
  double visits = 0;             ///< n: evaluations below this node, and what similar siblings' evaluations add
  std::int64_t evaluations = 0;  ///< of which its own
  double value = 0;              ///< q
  index_t parent = -1;
  std::vector<index_t> children{};   ///< in order of creation
  std::vector<double> embedding{};   ///< mean of what was evaluated through this node; empty before
  std::vector<ranked_token> support{};  ///< the likeliest tokens that follow, where the search remembers them
  double probability = 0;        ///< what its prior was made of
  std::int64_t id = 0;           ///< stays, whatever is committed; in order of creation
  index_t depth = 0;             ///< token sets from the first root on
  index_t failed_additions = 0;  ///< children that were drawn for it and were there already
  bool terminal = false;         ///< the reply ends with it: nothing follows
};

/// Least and greatest values that the tree has seen; scores lie in [-1, 1].
struct rain_value_range {
  double least = -1, greatest = 1;
  void include(double q) {
    if (q < least) least = q;
    if (greatest < q) greatest = q;
  }
};

/// What a node's value makes of the scores that pass through it.
enum class rain_backup {
  mean,  ///< their mean, weighted where similar siblings pass theirs on; the paper
  min,   ///< the worst: a branch is as good as what can go wrong in it. Siblings' scores add visits only
  max,   ///< the best; likewise
  last,  ///< the latest; likewise
};
/// In which units a value stands beside the exploration term.
enum class rain_scale {
  raw,   ///< as it is, in [-1, 1] (the paper)
  unit,  ///< between the least and the greatest of the tree, in [0, 1]: the same `exploration` explores twice as hard (the authors' code)
};
/// What a child without visits is worth.
enum class rain_first_play {
  worst,    ///< the least value (the authors' code)
  neutral,  ///< the middle of the range (the paper: 0)
  parent,   ///< what its parent is worth
};
/// Which visits the square root is of.
enum class rain_count {
  siblings,  ///< those of all children of the parent (the paper)
  parent,    ///< the parent's own, its own evaluation and credit among them (the authors' code)
};

/// Options of `rain_tree`; the defaults are the paper's where it says anything.
struct rain_tree_options {
  double exploration = 2;  ///< c
  rain_scale scale = rain_scale::raw;
  rain_first_play first_play = rain_first_play::neutral;
  rain_count count = rain_count::siblings;
  double range_epsilon = 1e-5;  ///< added to the range that `rain_scale::unit` divides by
  rain_backup backup = rain_backup::mean;
  double similarity_threshold = 0.95;  ///< cosine from which a sibling shares a score; the paper does not say, this is the code's
  double similarity_weight = 0.2;      ///< gamma of eq. 2: the sibling gains this times the cosine
  double root_mix = 0.25;              ///< share of the uniform distribution in the priors of the root's children; the paper has none
  double variance_threshold = 0.03;    ///< per token of a child: below it the children are too much alike
  double value_threshold = 0;          ///< and all children's values below it: another child is wanted
  std::int64_t most_children = 20;

  /// Scores as the authors' code has them; all else is alike.
  static rain_tree_options reference() {
    return {.scale = rain_scale::unit, .first_play = rain_first_play::worst, .count = rain_count::parent};
  }

  void require(const char* op) const {
    require_option(op, "exploration", exploration, exploration >= 0, "0 or positive");
    require_mode(op, "scale", scale, rain_scale::unit);
    require_mode(op, "first_play", first_play, rain_first_play::parent);
    require_mode(op, "count", count, rain_count::parent);
    require_option(op, "range_epsilon", range_epsilon, range_epsilon >= 0, "0 or positive");
    require_mode(op, "backup", backup, rain_backup::last);
    require_option(op, "similarity_threshold", similarity_threshold, similarity_threshold > 0, "positive");
    require_option(op, "similarity_weight", similarity_weight, similarity_weight >= 0, "0 or positive");
    require_option(op, "root_mix", root_mix, root_mix >= 0 && root_mix <= 1, "in [0, 1]");
    require_option(op, "variance_threshold", variance_threshold, true, "a number");
    require_option(op, "value_threshold", value_threshold, true, "a number");
    require_option(op, "most_children", static_cast<double>(most_children), most_children >= 0, "0 or positive");
  }
};

/// A child's score in its parent's eyes: `Q + c p sqrt(N) / (1 + n)` (the paper's eq. 1). `sibling_visits`: of all children of the parent.
inline double rain_score(const rain_tree_options& o, const rain_node& child, const rain_node& parent, double sibling_visits,
                         const rain_value_range& range) {
  double q = child.value;
  if (child.visits == 0) {
    q = o.first_play == rain_first_play::worst     ? range.least
        : o.first_play == rain_first_play::neutral ? 0.5 * (range.least + range.greatest)
                                                   : parent.value;
  }
  if (o.scale == rain_scale::unit) q = (q - range.least) / (range.greatest - range.least + o.range_epsilon);
  const double visits = o.count == rain_count::parent ? parent.visits : sibling_visits;
  return q + o.exploration * child.prior * std::sqrt(visits) / (1 + child.visits);
}

/// What a leaf that was selected, but not judged yet, looks like while others are selected beside it.
enum class rain_virtual_loss {
  loss,   ///< visited once more, with the score -1
  count,  ///< visited once more
};

/// The tree below one position of an answer.
class rain_tree {
 public:
  explicit rain_tree(const rain_tree_options& options = {}) : options_(options) {
    options.require("rain_tree");
    nodes_.emplace_back();
    bytes_ = bytes_of(nodes_[0]);
  }

  const rain_tree_options& options() const { return options_; }
  const std::deque<rain_node>& nodes() const { return nodes_; }
  const rain_node& at(index_t i) const { return nodes_[checked("at", i)]; }
  const rain_value_range& range() const { return range_; }
  /// Of host memory, what the allocator adds to each block among them.
  std::int64_t bytes() const { return bytes_; }
  /// Of the next node; ids of nodes that were released are not given again.
  std::int64_t next_id() const { return next_id_; }

  /// The child's score in its parent's eyes.
  double score(index_t child) const {
    const rain_node& x = at(child);
    if (x.parent < 0) fail(message("rain_tree::score") << "node " << child << " is the root: nothing selects it.");
    return rain_score(options_, x, at(x.parent), visits_below(at(x.parent)), range_);
  }

  /// The child with the largest score, the first of equals.
  index_t best_scored(index_t parent) const {
    return best_scored(parent, [](index_t) { return true; });
  }
  /// Of those that `allowed(child)` lets through; -1: there is none.
  template <class F>
  index_t best_scored(index_t parent, const F& allowed) const {
    const rain_node& p = with_children("best_scored", parent);
    const double visits = visits_below(p);
    index_t chosen = -1;
    double best = 0;
    for (const index_t c : p.children) {
      if (!allowed(c)) continue;
      const double s = rain_score(options_, node_at(c), p, visits, range_);
      if (chosen < 0 || s > best) best = s, chosen = c;
    }
    return chosen;
  }
  /// The child that was visited most, then the larger value, then the first.
  index_t most_visited(index_t parent = 0) const {
    return best("most_visited", parent, [](const rain_node& a, const rain_node& b) {
      return b.visits < a.visits || (!(a.visits < b.visits) && b.value < a.value);
    });
  }
  /// The child with the largest value among those that were visited, then more visits, then the first.
  index_t most_valued(index_t parent = 0) const {
    return best("most_valued", parent, [](const rain_node& a, const rain_node& b) {
      if ((a.visits > 0) != (b.visits > 0)) return a.visits > 0;
      return b.value < a.value || (!(a.value < b.value) && b.visits < a.visits);
    });
  }
  /// From the root by scores down to a node without children; the root is not in the list, the leaf comes last.
  std::vector<index_t> select() const {
    std::vector<index_t> path;
    for (index_t i = 0; !at(i).children.empty();) path.push_back(i = best_scored(i));
    return path;
  }

  /// Gives a leaf its children: token sets and their probabilities, which are made to sum to 1 (and mixed with the uniform distribution below
  /// the root). Returns the first; they are consecutive.
  index_t expand(index_t parent, const std::vector<std::vector<std::int32_t>>& tokens, const std::vector<double>& probabilities) {
    const std::size_t p = checked("expand", parent);
    if (tokens.size() != probabilities.size() || tokens.empty())
      fail(message("rain_tree::expand") << "there are " << tokens.size() << " token sets and " << probabilities.size() << " probabilities.");
    if (!nodes_[p].children.empty()) fail(message("rain_tree::expand") << "node " << parent << " has children already.");
    const std::vector<double> priors = normalised("expand", probabilities, probabilities.size(), parent == 0);
    const std::size_t first = nodes_.size();
    try {
      for (std::size_t c = 0; c < tokens.size(); ++c) append(parent, tokens[c], priors[c], probabilities[c], tokens.size());
    } catch (...) {  // no memory: no half of the children stays
      while (nodes_.size() > first) remove_last(p);
      throw;
    }
    return static_cast<index_t>(first);
  }
  /// Takes back the latest expansion.
  void undo_expand(index_t parent) {
    const std::size_t p = checked("undo_expand", parent);
    while (!nodes_[p].children.empty()) remove_last(p);
  }
  /// Nothing follows that node.
  void mark_terminal(index_t i) { nodes_[checked("mark_terminal", i)].terminal = true; }
  /// The tokens that it may be given further children from.
  void remember_support(index_t i, std::vector<ranked_token> support) {
    rain_node& x = nodes_[checked("remember_support", i)];
    changed(x, [&] { x.support = std::move(support); });
  }

  /// A score of `leaf` goes up to the root. Row `i` of `embeddings` `[depth, D]` is the text from the `i`-th node of the way, counted from the leaf,
  /// to the end of what was judged; not given: no similarity. Each node's siblings whose mean embedding is close share the score: weight
  /// `similarity_weight * cosine` (eq. 2), only siblings that were evaluated themselves.
  void backup(index_t leaf, double value, view<const double, 2> embeddings = {}) {
    checked("backup", leaf);
    if (!(value >= -std::numeric_limits<double>::max() && value <= std::numeric_limits<double>::max()))
      fail(message("rain_tree::backup") << "the score is " << value << ". Nothing was written.");
    std::vector<index_t> way;
    for (index_t i = leaf; i >= 0; i = at(i).parent) way.push_back(i);
    const index_t depth = static_cast<index_t>(way.size()) - 1;
    if (embeddings.given()) {
      require_extent("rain_tree::backup", "embeddings", embeddings, 0, depth, "the nodes from the leaf to the root, without the root");
      if (depth > 0 && dimension_ >= 0 && dimension_ != embeddings.extent(1))
        fail(message("rain_tree::backup") << "`embeddings` has " << embeddings.extent(1) << " columns, but those before had " << dimension_
                                          << ". Nothing was written.");
      for (index_t i = 0; i < depth; ++i) {  // all that needs memory comes first
        rain_node& x = nodes_[static_cast<std::size_t>(way[static_cast<std::size_t>(i)])];
        if (x.embedding.empty()) changed(x, [&] { x.embedding.reserve(static_cast<std::size_t>(embeddings.extent(1))); });
      }
      if (depth > 0) dimension_ = embeddings.extent(1);
    }
    for (index_t i = 0; i <= depth; ++i) {
      rain_node& x = nodes_[static_cast<std::size_t>(way[static_cast<std::size_t>(i)])];
      x.visits += 1;
      x.evaluations += 1;
      if (i < depth && embeddings.given()) {
        move_embedding(x, embeddings.row(i));
        for (const index_t s : at(x.parent).children) share(x, nodes_[static_cast<std::size_t>(s)], value);
      }
    }
    // Values change from the root down, after all visits and credits.
    for (std::size_t i = way.size(); i-- > 0;) {
      rain_node& x = nodes_[static_cast<std::size_t>(way[i])];
      const bool first = x.evaluations == 1;
      switch (options_.backup) {
        case rain_backup::mean: x.value += (value - x.value) / x.visits; break;
        case rain_backup::min: x.value = first ? value : std::min(x.value, value); break;
        case rain_backup::max: x.value = first ? value : std::max(x.value, value); break;
        case rain_backup::last: x.value = value; break;
      }
      if (i + 1 < way.size()) range_.include(x.value);  // the root is no child: nothing selects it
    }
  }

  /// Until it is destroyed, leaves that were handed to `add` look visited, so that the next selection goes elsewhere; then all is as it was, to the
  /// bit.
  class pretence {
   public:
    explicit pretence(rain_tree& tree, rain_virtual_loss kind = rain_virtual_loss::loss) : tree_(tree), kind_(kind) {}
    ~pretence() {
      for (auto it = before_.rbegin(); it != before_.rend(); ++it) {
        auto& x = tree_.nodes_[static_cast<std::size_t>(it->node)];
        x.visits = it->visits;
        x.value = it->value;
      }
    }
    pretence(const pretence&) = delete;
    pretence& operator=(const pretence&) = delete;
    void add(index_t leaf) {
      for (index_t i = leaf; i >= 0; i = tree_.at(i).parent) {
        auto& x = tree_.nodes_[static_cast<std::size_t>(i)];
        before_.push_back({i, x.visits, x.value});
        x.visits += 1;
        if (kind_ == rain_virtual_loss::loss) x.value += (-1 - x.value) / x.visits;
      }
    }

   private:
    struct state {
      index_t node;
      double visits, value;
    };
    rain_tree& tree_;
    rain_virtual_loss kind_;
    std::vector<state> before_{};
  };

  /// The norm of the per-dimension unbiased variance of the children's embeddings; NaN below two children or where one has none yet.
  double embedding_spread(index_t parent) const {
    const rain_node& p = at(parent);
    const std::size_t k = p.children.size();
    if (k < 2) return std::numeric_limits<double>::quiet_NaN();
    for (const index_t c : p.children)
      if (node_at(c).embedding.empty()) return std::numeric_limits<double>::quiet_NaN();
    double norm = 0;
    for (std::size_t d = 0; d < static_cast<std::size_t>(dimension_); ++d) {
      // Counted from the first child's, so that the same embeddings have the spread 0.
      const double origin = node_at(p.children[0]).embedding[d];
      double mean = 0, squares = 0;
      for (const index_t c : p.children) mean += (node_at(c).embedding[d] - origin) / static_cast<double>(k);
      for (const index_t c : p.children) {
        const double off = (node_at(c).embedding[d] - origin) - mean;
        squares += off * off;
      }
      const double variance = squares / static_cast<double>(k - 1);
      norm += variance * variance;
    }
    return std::sqrt(norm);
  }
  /// Whether another child is wanted: all children are evaluated, alike, and not good enough, and there are not too many. `tokens_per_child` is
  /// the length of the children's token sets. Where nothing is embedded (`embedded` is false), all that was evaluated is alike.
  bool wants_child(index_t parent, std::int64_t tokens_per_child, bool embedded = true) const {
    const rain_node& p = at(parent);
    if (p.children.empty() || static_cast<std::int64_t>(p.children.size()) >= options_.most_children) return false;
    for (const index_t c : p.children)
      if (!(node_at(c).value < options_.value_threshold) || node_at(c).evaluations == 0) return false;
    return !embedded || embedding_spread(parent) < options_.variance_threshold * static_cast<double>(tokens_per_child);
  }
  /// Adds one child. `probabilities` begin with the new one's; its prior is its share of the first (children + 1) of them. The others keep theirs.
  index_t add(index_t parent, const std::vector<std::int32_t>& tokens, const std::vector<double>& probabilities) {
    const std::size_t count = nodes_[checked("add", parent)].children.size() + 1;
    if (probabilities.size() < count)
      fail(message("rain_tree::add") << "there are " << probabilities.size() << " probabilities, but with the new child " << count << " children.");
    append(parent, tokens, normalised("add", probabilities, count, parent == 0)[0], probabilities[0], count);
    return static_cast<index_t>(nodes_.size()) - 1;
  }
  /// Takes back the latest of all additions, a child that was not evaluated.
  void undo_add(index_t parent) { remove_last(checked("undo_add", parent)); }
  /// What was to be added was there already; `count` -1: it was not, after all.
  void count_failed_addition(index_t parent, index_t count = 1) { nodes_[checked("count_failed_addition", parent)].failed_additions += count; }

  /// The child becomes the root, with its subtree and statistics; all else is released, and the priors of its children are mixed with the uniform
  /// distribution. Node numbers change: subtree nodes keep their order. Returns the child's own evaluations (what a round carries over).
  std::int64_t commit(index_t child) {
    const std::size_t top = checked("commit", child);
    if (nodes_[top].parent != 0) fail(message("rain_tree::commit") << "node " << child << " is not a child of the root.");
    std::vector<index_t> place(nodes_.size(), -1);
    std::vector<double> priors;
    for (const index_t c : nodes_[top].children) priors.push_back(at(c).prior);
    double sum = 0;
    for (double& p : priors) sum += p = (1 - options_.root_mix) * p + options_.root_mix / static_cast<double>(priors.size());
    for (double& p : priors) p /= sum;
    for (std::size_t c = 0; c < priors.size(); ++c) nodes_[static_cast<std::size_t>(nodes_[top].children[c])].prior = priors[c];
    std::size_t kept = 0;  // never behind what is moved
    for (std::size_t i = top; i < nodes_.size(); ++i) {
      const index_t parent = nodes_[i].parent;
      const index_t new_parent = i == top || parent < 0 ? -1 : place[static_cast<std::size_t>(parent)];
      if (i != top && new_parent < 0) continue;
      place[i] = static_cast<index_t>(kept);
      nodes_[i].parent = new_parent;
      nodes_[kept++] = std::move(nodes_[i]);
    }
    nodes_.resize(kept);
    bytes_ = 0;
    for (rain_node& x : nodes_) {
      for (index_t& c : x.children) c = place[static_cast<std::size_t>(c)];
      bytes_ += bytes_of(x);
    }
    return nodes_[0].evaluations;
  }

 private:
  static constexpr std::int64_t per_block = 16;  // what an allocator keeps beside each
  template <class T>
  static std::int64_t bytes_of(const std::vector<T>& x) {
    return x.capacity() == 0 ? 0 : static_cast<std::int64_t>(x.capacity() * sizeof(T)) + per_block;
  }
  // The node, and its place in `commit`.
  static std::int64_t bytes_of(const rain_node& x) {
    return static_cast<std::int64_t>(sizeof(rain_node) + sizeof(index_t)) + per_block + bytes_of(x.tokens) + bytes_of(x.children) +
           bytes_of(x.embedding) + bytes_of(x.support);
  }
  template <class F>
  void changed(rain_node& x, F f) {
    const std::int64_t before = bytes_of(x);
    f();
    bytes_ += bytes_of(x) - before;
  }

  std::size_t checked(const char* what, index_t i) const {
    if (i < 0 || i >= static_cast<index_t>(nodes_.size()))
      fail(message("rain_tree") << what << ": there is no node " << i << " among " << nodes_.size() << ".");
    return static_cast<std::size_t>(i);
  }
  const rain_node& node_at(index_t i) const { return nodes_[static_cast<std::size_t>(i)]; }
  const rain_node& with_children(const char* what, index_t parent) const {
    const rain_node& p = nodes_[checked(what, parent)];
    if (p.children.empty()) fail(message("rain_tree") << what << ": node " << parent << " has no children.");
    return p;
  }
  double visits_below(const rain_node& parent) const {
    double visits = 0;
    for (const index_t c : parent.children) visits += node_at(c).visits;
    return visits;
  }
  template <class F>
  index_t best(const char* what, index_t parent, const F& better) const {
    const rain_node& p = with_children(what, parent);
    index_t chosen = p.children[0];
    for (const index_t c : p.children)
      if (better(node_at(c), node_at(chosen))) chosen = c;
    return chosen;
  }
  void append(index_t parent, const std::vector<std::int32_t>& tokens, double prior, double probability, std::size_t siblings) {
    rain_node& p = nodes_[static_cast<std::size_t>(parent)];
    changed(p, [&] { if (p.children.capacity() < siblings) p.children.reserve(siblings); });
    nodes_.push_back({.tokens = tokens, .prior = prior, .parent = parent, .probability = probability, .id = next_id_, .depth = p.depth + 1});
    bytes_ += bytes_of(nodes_.back());
    nodes_[static_cast<std::size_t>(parent)].children.push_back(static_cast<index_t>(nodes_.size()) - 1);
    ++next_id_;
  }
  void remove_last(std::size_t parent) {
    bytes_ -= bytes_of(nodes_.back());
    auto& siblings = nodes_[parent].children;
    if (!siblings.empty() && siblings.back() == static_cast<index_t>(nodes_.size()) - 1) siblings.pop_back();
    nodes_.pop_back();
    --next_id_;
  }
  std::vector<double> normalised(const char* what, std::vector<double> p, std::size_t count, bool mix) const {
    p.resize(count);
    double sum = 0;
    for (const double x : p) {
      if (!(x >= 0 && x <= std::numeric_limits<double>::max())) fail(message("rain_tree") << what << ": a probability is " << x << ".");
      sum += x;
    }
    if (!(sum > 0)) fail(message("rain_tree") << what << ": the probabilities sum to 0.");
    for (double& x : p) {
      x /= sum;
      if (mix) x = (1 - options_.root_mix) * x + options_.root_mix / static_cast<double>(count);
    }
    return p;
  }
  static void move_embedding(rain_node& x, view<const double, 1> v) {
    if (x.embedding.empty()) x.embedding.resize(static_cast<std::size_t>(v.extent(0)));
    for (std::size_t d = 0; d < x.embedding.size(); ++d)
      x.embedding[d] += (v(static_cast<index_t>(d)) - x.embedding[d]) / static_cast<double>(x.evaluations);
  }
  void share(const rain_node& from, rain_node& to, double value) {
    if (&from == &to || to.embedding.empty()) return;
    double dot = 0, one = 0, other = 0;
    for (std::size_t d = 0; d < to.embedding.size(); ++d) {
      dot += from.embedding[d] * to.embedding[d];
      one += from.embedding[d] * from.embedding[d];
      other += to.embedding[d] * to.embedding[d];
    }
    const double cosine = dot / std::sqrt(one * other);
    if (!(cosine >= options_.similarity_threshold)) return;
    const double weight = options_.similarity_weight * cosine;
    if (options_.backup == rain_backup::mean) to.value = (to.value * to.visits + weight * value) / (to.visits + weight);
    to.visits += weight;
  }

  rain_tree_options options_;
  std::deque<rain_node> nodes_{};
  rain_value_range range_{};
  index_t dimension_ = -1;  ///< of embeddings; -1: there was none yet
  std::int64_t bytes_ = 0, next_id_ = 1;
};

PLUMB_NAMESPACE_END

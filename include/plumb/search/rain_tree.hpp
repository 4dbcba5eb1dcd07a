#pragma once
// The search tree of RAIN, in host memory: selection, backup with similarity credit, dynamic addition of nodes, commit. Model, judge and
// embedder stay outside.

#include <plumb/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

/// RAIN: rewindable auto-regressive inference (arXiv:2309.07124).
namespace rain {

/// A set of tokens that may follow its parent's. Indices are those of `tree`; the root is node 0.
struct node {
  std::vector<std::int32_t> tokens;
  double prior = 0;
  double visits = 0;        ///< n: evaluations below this node, and what similar siblings' evaluations add
  std::int64_t evaluations = 0;  ///< of which its own
  double value = 0;         ///< q
  index_t parent = -1;
  std::vector<index_t> children;  ///< in order of creation
  std::vector<double> embedding;  ///< mean of what was evaluated through this node; empty before
};

/// Least and greatest values that the tree has seen; scores lie in [-1, 1].
struct value_range {
  double least = -1, greatest = 1;
  void include(double q) {
    if (q < least) least = q;
    if (greatest < q) greatest = q;
  }
};

/// Score of a child as the paper has it (eq. 1): `v + c p sqrt(N) / (1 + n)` with `N` the visits of all children of the parent; a child without
/// visits has value 0.
struct paper_score {
  double exploration = 2;
  double operator()(const node& child, const node&, double sibling_visits, const value_range&) const {
    return child.value + exploration * child.prior * std::sqrt(sibling_visits) / (1 + child.visits);
  }
};
/// Score as the authors' code has it: the value is scaled to [0, 1] (so the same `c` explores twice as hard), a child without visits counts as
/// the worst, and the square root is of the parent's own visits.
struct reference_score {
  double exploration = 2, range_epsilon = 1e-5;
  double operator()(const node& child, const node& parent, double, const value_range& range) const {
    const double u = exploration * child.prior * std::sqrt(parent.visits) / (1 + child.visits);
    return child.visits == 0 ? u : (child.value - range.least) / (range.greatest - range.least + range_epsilon) + u;
  }
};

/// What a node's value makes of the scores that pass through it.
enum class backup_rule {
  mean,  ///< their mean, weighted where similar siblings pass theirs on; the paper
  min,   ///< the worst: a branch is as good as what can go wrong in it. Siblings' scores add visits only
  max,   ///< the best; likewise
};

/// Options of `tree`.
struct tree_options {
  backup_rule rule = backup_rule::mean;
  double similarity_threshold = 0.95;  ///< cosine from which a sibling shares a score; the paper does not say, this is the code's
  double similarity_weight = 0.2;      ///< gamma of eq. 2: the sibling gains this times the cosine
  double root_mix = 0.25;              ///< share of the uniform distribution in the priors of the root's children; the paper has none
  double variance_threshold = 0.03;    ///< per token of a child: below it the children are too much alike
  double value_threshold = 0;          ///< and all children's values below it: another child is wanted
  std::int64_t most_children = 20;

  void require(const char* op) const {
    require_mode(op, "rule", rule, backup_rule::max);
    require_option(op, "similarity_threshold", similarity_threshold, similarity_threshold > 0, "positive");
    require_option(op, "similarity_weight", similarity_weight, similarity_weight >= 0, "0 or positive");
    require_option(op, "root_mix", root_mix, root_mix >= 0 && root_mix <= 1, "in [0, 1]");
    require_option(op, "variance_threshold", variance_threshold, true, "a number");
    require_option(op, "value_threshold", value_threshold, true, "a number");
    require_option(op, "most_children", static_cast<double>(most_children), most_children >= 0, "0 or positive");
  }
};

/// The norm of the per-dimension unbiased variance of the children's embeddings; NaN below two children or where one has none yet.
inline double embedding_spread(const std::vector<node>& nodes, const node& parent) {
  const std::size_t k = parent.children.size();
  if (k < 2) return std::numeric_limits<double>::quiet_NaN();
  const auto of = [&](std::size_t c) -> const std::vector<double>& { return nodes[static_cast<std::size_t>(parent.children[c])].embedding; };
  const std::size_t dimension = of(0).size();
  for (std::size_t c = 0; c < k; ++c)
    if (of(c).empty() || of(c).size() != dimension) return std::numeric_limits<double>::quiet_NaN();
  double norm = 0;
  for (std::size_t d = 0; d < dimension; ++d) {
    double mean = 0, squares = 0;
    for (std::size_t c = 0; c < k; ++c) mean += of(c)[d] / static_cast<double>(k);
    for (std::size_t c = 0; c < k; ++c) squares += (of(c)[d] - mean) * (of(c)[d] - mean);
    const double variance = squares / static_cast<double>(k - 1);
    norm += variance * variance;
  }
  return std::sqrt(norm);
}

/// The tree below one position of an answer. `Score` orders the children: `paper_score`, `reference_score`, or yours.
template <class Score = paper_score>
class tree {
 public:
  explicit tree(const Score& score = {}, const tree_options& options = {}) : score_(score), options_(options) {
    options.require("rain::tree");
    nodes_.emplace_back();
  }

  const std::vector<node>& nodes() const { return nodes_; }
  const node& at(index_t i) const { return nodes_[checked("at", i)]; }
  const value_range& range() const { return range_; }

  /// The child's score in its parent's eyes.
  double score(index_t child) const {
    const node& x = at(child);
    if (x.parent < 0) fail(message("rain::tree::score") << "node " << child << " is the root: nothing selects it.");
    const node& parent = at(x.parent);
    double visits = 0;
    for (const index_t c : parent.children) visits += at(c).visits;
    return score_(x, parent, visits, range_);
  }

  /// The child with the largest score, the first of equals.
  index_t best_scored(index_t parent) const {
    return best("best_scored", parent, [&](index_t a, index_t b) { return score(b) < score(a); });
  }
  /// The child that a round commits: most visits, then the larger value, then the first.
  index_t most_visited(index_t parent = 0) const {
    return best("most_visited", parent, [&](index_t a, index_t b) {
      return at(b).visits < at(a).visits || (!(at(a).visits < at(b).visits) && at(b).value < at(a).value);
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
      fail(message("rain::tree::expand") << "there are " << tokens.size() << " token sets and " << probabilities.size() << " probabilities.");
    if (!nodes_[p].children.empty()) fail(message("rain::tree::expand") << "node " << parent << " has children already.");
    const std::vector<double> priors = normalised("expand", probabilities, probabilities.size(), parent == 0);
    const index_t first = static_cast<index_t>(nodes_.size());
    for (std::size_t c = 0; c < tokens.size(); ++c) append(parent, tokens[c], priors[c]);
    return first;
  }

  /// A score of `leaf` goes up to the root. Row `i` of `embeddings` `[depth, D]` is the text from the `i`-th node of the way, counted from the leaf,
  /// to the end of what was judged; not given: no similarity. Each node's siblings whose mean embedding is close share the score: weight
  /// `similarity_weight * cosine` (eq. 2), only siblings that were evaluated themselves.
  void backup(index_t leaf, double value, view<const double, 2> embeddings = {}) {
    checked("backup", leaf);
    if (!(value >= -std::numeric_limits<double>::max() && value <= std::numeric_limits<double>::max()))
      fail(message("rain::tree::backup") << "the score is " << value << ". Nothing was written.");
    std::vector<index_t> way;
    for (index_t i = leaf; i >= 0; i = at(i).parent) way.push_back(i);
    const index_t depth = static_cast<index_t>(way.size()) - 1;
    if (embeddings.given()) {
      require_extent("rain::tree::backup", "embeddings", embeddings, 0, depth, "the nodes from the leaf to the root, without the root");
      for (const node& x : nodes_)
        if (depth > 0 && !x.embedding.empty() && static_cast<index_t>(x.embedding.size()) != embeddings.extent(1))
          fail(message("rain::tree::backup") << "`embeddings` has " << embeddings.extent(1) << " columns, but those before had " << x.embedding.size()
                                             << ". Nothing was written.");
    }
    for (index_t i = 0; i <= depth; ++i) {
      node& x = nodes_[static_cast<std::size_t>(way[static_cast<std::size_t>(i)])];
      x.visits += 1;
      x.evaluations += 1;
      if (i < depth && embeddings.given()) {
        move_embedding(x, embeddings.row(i));
        for (const index_t s : at(x.parent).children) share(x, nodes_[static_cast<std::size_t>(s)], value);
      }
    }
    // Values change from the root down, after all visits and credits.
    for (std::size_t i = way.size(); i-- > 0;) {
      node& x = nodes_[static_cast<std::size_t>(way[i])];
      const bool first = x.evaluations == 1;
      switch (options_.rule) {
        case backup_rule::mean: x.value += (value - x.value) / x.visits; break;
        case backup_rule::min: x.value = first ? value : std::min(x.value, value); break;
        case backup_rule::max: x.value = first ? value : std::max(x.value, value); break;
      }
      range_.include(x.value);
    }
  }

  /// Whether another child is wanted: all children are evaluated, alike, and not good enough, and there are not too many. `tokens_per_child` is
  /// the length of the children's token sets.
  bool wants_child(index_t parent, std::int64_t tokens_per_child) const {
    const node& p = at(parent);
    if (static_cast<std::int64_t>(p.children.size()) >= options_.most_children) return false;
    for (const index_t c : p.children)
      if (!(at(c).value < options_.value_threshold)) return false;
    return embedding_spread(nodes_, p) < options_.variance_threshold * static_cast<double>(tokens_per_child);
  }
  /// Adds one child. `probabilities` begin with the new one's; its prior is its share of the first (children + 1) of them. The others keep theirs.
  index_t add(index_t parent, const std::vector<std::int32_t>& tokens, const std::vector<double>& probabilities) {
    const std::size_t count = nodes_[checked("add", parent)].children.size() + 1;
    if (probabilities.size() < count)
      fail(message("rain::tree::add") << "there are " << probabilities.size() << " probabilities, but with the new child " << count << " children.");
    append(parent, tokens, normalised("add", probabilities, count, parent == 0)[0]);
    return static_cast<index_t>(nodes_.size()) - 1;
  }

  /// The child becomes the root, with its subtree and statistics; all else is released, and the priors of its children are mixed with the uniform
  /// distribution. Node numbers change: subtree nodes keep their order. Returns the child's own evaluations (what a round carries over).
  std::int64_t commit(index_t child) {
    const std::size_t top = checked("commit", child);
    if (nodes_[top].parent != 0) fail(message("rain::tree::commit") << "node " << child << " is not a child of the root.");
    std::vector<index_t> place(nodes_.size(), -1);
    std::vector<node> kept;
    for (std::size_t i = top; i < nodes_.size(); ++i) {
      const index_t parent = nodes_[i].parent;
      if (i != top && (parent < 0 || place[static_cast<std::size_t>(parent)] < 0)) continue;
      place[i] = static_cast<index_t>(kept.size());
      kept.push_back(std::move(nodes_[i]));
    }
    for (node& x : kept) {
      x.parent = x.parent < static_cast<index_t>(top) ? -1 : place[static_cast<std::size_t>(x.parent)];
      for (index_t& c : x.children) c = place[static_cast<std::size_t>(c)];
    }
    nodes_ = std::move(kept);
    std::vector<double> priors;
    for (const index_t c : nodes_[0].children) priors.push_back(at(c).prior);
    if (!priors.empty()) priors = normalised("commit", priors, priors.size(), true);
    for (std::size_t c = 0; c < priors.size(); ++c) nodes_[static_cast<std::size_t>(nodes_[0].children[c])].prior = priors[c];
    return nodes_[0].evaluations;
  }

 private:
  std::size_t checked(const char* what, index_t i) const {
    if (i < 0 || i >= static_cast<index_t>(nodes_.size()))
      fail(message("rain::tree") << what << ": there is no node " << i << " among " << nodes_.size() << ".");
    return static_cast<std::size_t>(i);
  }
  template <class F>
  index_t best(const char* what, index_t parent, const F& better) const {
    const node& p = at(parent);
    if (p.children.empty()) fail(message("rain::tree") << what << ": node " << parent << " has no children.");
    index_t chosen = p.children[0];
    for (const index_t c : p.children)
      if (better(c, chosen)) chosen = c;
    return chosen;
  }
  void append(index_t parent, const std::vector<std::int32_t>& tokens, double prior) {
    nodes_.push_back({.tokens = tokens, .prior = prior, .parent = parent, .children = {}, .embedding = {}});
    nodes_[static_cast<std::size_t>(parent)].children.push_back(static_cast<index_t>(nodes_.size()) - 1);
  }
  std::vector<double> normalised(const char* what, std::vector<double> p, std::size_t count, bool mix) const {
    p.resize(count);
    double sum = 0;
    for (const double x : p) {
      if (!(x >= 0 && x <= std::numeric_limits<double>::max())) fail(message("rain::tree") << what << ": a probability is " << x << ".");
      sum += x;
    }
    if (!(sum > 0)) fail(message("rain::tree") << what << ": the probabilities sum to 0.");
    for (double& x : p) {
      x /= sum;
      if (mix) x = (1 - options_.root_mix) * x + options_.root_mix / static_cast<double>(count);
    }
    return p;
  }
  static void move_embedding(node& x, view<const double, 1> v) {
    if (x.embedding.empty()) x.embedding.resize(static_cast<std::size_t>(v.extent(0)));
    for (std::size_t d = 0; d < x.embedding.size(); ++d)
      x.embedding[d] += (v(static_cast<index_t>(d)) - x.embedding[d]) / static_cast<double>(x.evaluations);
  }
  void share(const node& from, node& to, double value) {
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
    if (options_.rule == backup_rule::mean) to.value = (to.value * to.visits + weight * value) / (to.visits + weight);
    to.visits += weight;
  }

  Score score_;
  tree_options options_;
  value_range range_;
  std::vector<node> nodes_;
};

}  // namespace rain

PLUMB_NAMESPACE_END

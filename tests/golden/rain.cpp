// RAIN's tree: scores, backup with similarity, widening, whole searches with given judgements. It is a data structure
// of the host, in double, whatever the backend.
#include "golden/calls.hpp"

#include <plumb/search/rain_tree.hpp>

namespace golden {
namespace {

using plumb::rain_node;
using plumb::rain_tree;
using plumb::rain_tree_options;

rain_tree_options options_of(const golden_case& c) {
  auto o = rain_tree_options::reference();
  o.similarity_weight = c.number("sim_gamma");
  o.similarity_threshold = c.number("sim_threshold");
  o.root_mix = 0;  // priors come as they are
  if (c.number("gamma", 1) != 1 || c.number("reward", 0) != 0) c.fail("a discount or a reward is asked for");
  return o;
}

constexpr auto score = [](auto& j) {
  const golden_case& c = j.c;
  const numbers q = c.input("q", {0}).data;
  const auto same = [&](const char* key) { return c.input(key, {q.size()}).data; };
  const numbers n = same("n"), p = same("p"), parent = same("parent_n"), least = same("minqn"),
                greatest = same("maxqn");
  numbers y, terms;
  for (std::size_t i = 0; i < q.size(); ++i) {
    rain_node child, above;
    child.value = q[i];
    child.visits = n[i];
    child.prior = p[i];
    above.visits = parent[i];
    auto o = rain_tree_options::reference();
    o.exploration = c.number("cpuct");
    y.push_back(plumb::rain_score(o, child, above, 0, {least[i], greatest[i]}));
    terms.push_back(1 + std::fabs(q[i]));
  }
  j.output("qu", y, terms);
};

// What the files keep of a tree after each step; nodes are numbered by creation, those to come are 0.
struct history {
  numbers n, q, fn, least_greatest, scores;
  std::size_t width, dimension;

  void add(const rain_tree& t) {
    for (std::size_t i = 0; i < width; ++i) {
      const rain_node x = i < t.nodes().size() ? t.nodes()[i] : rain_node{};
      n.push_back(x.visits);
      q.push_back(x.value);
      fn.push_back(static_cast<double>(x.evaluations));
    }
    least_greatest.push_back(t.range().least);
    least_greatest.push_back(t.range().greatest);
  }
  numbers scores_of(const rain_tree& t) const {
    numbers y;
    for (std::size_t i = 1; i < width; ++i) y.push_back(t.score(static_cast<index_t>(i)));
    return y;
  }
  numbers embeddings_of(const rain_tree& t) const {
    numbers y;
    for (const rain_node& x : t.nodes())
      y = joined(std::move(y), x.embedding.empty() ? numbers(dimension) : x.embedding);
    return y;
  }
};

// The children of every node in turn, in the order of creation.
template <class F>
void expand_all(const golden_case& c, const numbers& parent, const F& expand) {
  for (std::size_t first = 1; first < parent.size();) {
    std::size_t last = first;
    while (last < parent.size() && parent[last] == parent[first]) ++last;
    if (parent[first] < 0 || parent[first] >= static_cast<double>(first))
      c.fail("`parent` is no tree in order of creation");
    expand(static_cast<index_t>(parent[first]), first, last - first);
    first = last;
  }
}

constexpr auto backups = [](auto& j) {
  const golden_case& c = j.c;
  const numbers parent = c.input("parent", {0}).data, prior = c.input("prior", {parent.size()}).data,
                leaf = c.input("leaf", {0}).data, value = c.input("value", {leaf.size()}).data;
  const array& embedding = c.input("embedding", {0, 0});
  history h{.n = {},
            .q = {},
            .fn = {},
            .least_greatest = {},
            .scores = {},
            .width = parent.size(),
            .dimension = embedding.shape[1]};
  auto options = options_of(c);
  options.exploration = c.number("cpuct");
  rain_tree t(options);
  expand_all(c, parent, [&](index_t p, std::size_t first, std::size_t count) {
    t.expand(p, std::vector<ids>(count), part(prior, first, count));
  });
  std::size_t row = 0;
  for (std::size_t i = 0; i < leaf.size(); ++i) {
    index_t depth = 0;
    for (index_t x = static_cast<index_t>(leaf[i]); t.at(x).parent >= 0; x = t.at(x).parent) ++depth;
    if (row + static_cast<std::size_t>(depth) > embedding.shape[0]) c.fail("`embedding` has too few rows");
    t.backup(static_cast<index_t>(leaf[i]), value[i],
             plumb::view<const double, 2>(embedding.data.data() + row * h.dimension, depth,
                                          static_cast<index_t>(h.dimension)));
    row += static_cast<std::size_t>(depth);
    h.add(t);
    h.scores = joined(std::move(h.scores), h.scores_of(t));
  }
  const double most = std::max(1.0, largest(value));
  j.output("n", h.n, 0);
  j.output("q", h.q, most);
  j.output("fn", h.fn, 0);
  j.output("min_max_q", h.least_greatest, most);
  j.output("getqu", h.scores, most);
  j.output("final_embedding", h.embeddings_of(t), largest(embedding.data));
};

constexpr auto searches = [](auto& j) {
  const golden_case& c = j.c;
  const numbers parent = c.input("parent", {0}).data, prior = c.input("prior", {parent.size()}).data,
                value = c.input("value", {0}).data;
  const array& embedding = c.input("backup_embedding", {0, 0});
  const std::size_t width = static_cast<std::size_t>(c.number("width"));
  history h{.n = {},
            .q = {},
            .fn = {},
            .least_greatest = {},
            .scores = {},
            .width = parent.size(),
            .dimension = embedding.shape[1]};
  rain_tree_options options = options_of(c);
  options.root_mix = c.number("root_prior_mix");
  options.exploration = c.number("cpuct");
  rain_tree t(options);
  const auto found = c.outputs.find("path");
  if (found == c.outputs.end() || found->second.shape.size() != 2) c.fail("the output `path` is missing");
  const std::size_t columns = found->second.shape[1];
  numbers path, count;
  std::size_t row = 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::vector<index_t> way = t.select();
    const index_t leaf = way.empty() ? 0 : way.back();
    for (std::size_t d = 0; d < columns; ++d) path.push_back(d < way.size() ? static_cast<double>(way[d]) : -1);
    const std::size_t first = t.nodes().size();
    if (first + width > prior.size()) c.fail("`prior` has too few numbers");
    // Below the root they are stored after mixing.
    numbers priors = part(prior, first, width);
    if (leaf == 0)
      for (double& p : priors)
        p = std::max(0.0, (p - options.root_mix / static_cast<double>(width)) / (1 - options.root_mix));
    t.expand(leaf, std::vector<ids>(width), priors);
    if (row + way.size() > embedding.shape[0]) c.fail("`backup_embedding` has too few rows");
    t.backup(leaf, value[i],
             plumb::view<const double, 2>(embedding.data.data() + row * h.dimension, static_cast<index_t>(way.size()),
                                          static_cast<index_t>(h.dimension)));
    row += way.size();
    h.add(t);
    count.push_back(static_cast<double>(t.nodes().size()));
  }
  numbers least, greatest;
  for (std::size_t i = 0; i < h.least_greatest.size(); i += 2) {
    least.push_back(h.least_greatest[i]);
    greatest.push_back(h.least_greatest[i + 1]);
  }
  const double most = std::max(1.0, largest(value));
  j.output("path", path, 0);
  j.output("n", h.n, 0);
  j.output("q", h.q, most);
  j.output("fn", h.fn, 0);
  j.output("minqn", least, most);
  j.output("maxqn", greatest, most);
  j.output("node_count", count, 0);
  j.output("final_getqu", h.scores_of(t), most);
  j.output("best_child_of_root", {static_cast<double>(t.most_visited())}, 0);
  j.output("final_embedding", h.embeddings_of(t), largest(embedding.data));
};

// The children are evaluated once each, by a score that is their value; the new child's probability comes last in the
// file.
constexpr auto widening = [](auto& j) {
  const golden_case& c = j.c;
  const array& embeddings = c.input("embeddings", {0, 0});
  const std::size_t children = embeddings.shape[0], dimension = embeddings.shape[1];
  const numbers q = c.input("q", {children}).data, probs = c.input("probs", {children + 1}).data;
  const std::int64_t tokens = static_cast<std::int64_t>(c.input("tokens_per_child", {}).data.at(0));
  numbers of_children = part(probs, 0, children), list = joined({probs.back()}, of_children);
  const auto grown = [&](bool root) {
    auto options = rain_tree_options::reference();
    options.most_children = static_cast<std::int64_t>(c.number("max_children"));
    options.similarity_weight = 0;
    rain_tree t(options);
    const index_t parent = root ? 0 : t.expand(0, std::vector<ids>(1), {1});
    const index_t first = t.expand(parent, std::vector<ids>(children), of_children);
    const index_t depth = root ? 1 : 2, width = static_cast<index_t>(dimension);
    for (std::size_t i = 0; i < children; ++i) {
      const numbers rows =
          joined(part(embeddings.data, i * dimension, dimension), root ? numbers{} : numbers(dimension, 1));
      t.backup(first + static_cast<index_t>(i), q[i], plumb::view<const double, 2>(rows.data(), depth, width));
    }
    numbers before;
    for (std::size_t i = 0; i < children; ++i) before.push_back(t.at(first + static_cast<index_t>(i)).prior);
    const bool wants = t.wants_child(parent, tokens);
    const double spread = t.embedding_spread(parent);
    const index_t added = t.add(parent, {}, list);
    // The children that were there keep their priors, here those of the file.
    numbers priors;
    for (std::size_t i = 0; i < children; ++i)
      priors.push_back(probs[i] * t.at(first + static_cast<index_t>(i)).prior / before[i]);
    priors.push_back(t.at(added).prior);
    return std::pair{std::pair{spread, wants}, priors};
  };
  const auto inner = grown(false), root = grown(true);
  j.output("variance_norm", {inner.first.first}, 0);
  j.output("widen", {inner.first.second ? 1.0 : 0.0}, 0);
  j.output("child_priors_inner", inner.second, 0);
  j.output("child_priors_root", root.second, 0);
};

const bool registered[] = {
    map_cases({"rain_tree", "node.getqu", every_case, on_each_backend(score)}),
    map_cases({"rain_tree", "node.backup, node.calculate_cosine_similarity, node.getqu", every_case,
               on_each_backend(backups)}),
    map_cases({"rain_tree", "node.backup, node.select, node.expand (through search in HH/main.py)", every_case,
               on_each_backend(searches)}),
    map_cases({"rain_tree", "node.checkadd, node.add", every_case, on_each_backend(widening)}),
};

}  // namespace
}  // namespace golden

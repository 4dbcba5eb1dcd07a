// RAIN's tree: selection, backup rules, similarity, widening, commit, what is refused. Numbers of the authors' code are golden cases.
#include "support/gradients.hpp"

#include <plumb/search/rain_tree.hpp>

using namespace plumb;
using namespace plumb_test;

namespace {
std::vector<std::vector<std::int32_t>> sets(std::size_t n) {
  std::vector<std::vector<std::int32_t>> y;
  for (std::size_t i = 0; i < n; ++i) y.push_back({static_cast<std::int32_t>(i)});
  return y;
}
/// One row of two numbers.
struct text {
  std::vector<double> x;
  view<const double, 2> get() const { return {x.data(), static_cast<index_t>(x.size()) / 2, 2}; }
};
}  // namespace

TEST_CASE("rain: priors sum to 1 and are mixed below the root only") {
  rain_tree t;
  CHECK(t.expand(0, sets(2), {3, 1}) == 1);
  CHECK(t.at(1).prior == Catch::Approx(0.75 * 0.75 + 0.125));
  CHECK(t.at(2).prior == Catch::Approx(0.75 * 0.25 + 0.125));
  CHECK(t.expand(1, sets(2), {3, 1}) == 3);
  CHECK(t.at(3).prior == 0.75);
  CHECK(t.at(4).tokens == std::vector<std::int32_t>{1});
}

TEST_CASE("rain: both scores by hand") {
  rain_node child, parent;
  child.prior = 0.5;
  parent.visits = 9;
  parent.value = 0.25;
  const rain_value_range range;
  const rain_tree_options paper, reference = rain_tree_options::reference();
  CHECK(rain_score(paper, child, parent, 4, range) == 2 * 0.5 * 2);
  CHECK(rain_score(reference, child, parent, 4, range) == 2 * 0.5 * 3);
  CHECK(rain_score({.first_play = rain_first_play::worst}, child, parent, 4, range) == -1 + 2);
  CHECK(rain_score({.first_play = rain_first_play::parent}, child, parent, 4, range) == 0.25 + 2);
  child.visits = 1;
  child.value = 0.5;
  CHECK(rain_score(paper, child, parent, 4, range) == 0.5 + 1);
  CHECK(rain_score(reference, child, parent, 4, range) == Catch::Approx(1.5 / 2.00001 + 1.5).epsilon(1e-15));
}

TEST_CASE("rain: the first of equal scores is taken, then what is less visited") {
  rain_tree t;
  CHECK(t.select().empty());
  t.backup(0, 0);
  t.expand(0, sets(3), {1, 1, 1});
  std::vector<index_t> order;
  for (int i = 0; i < 3; ++i) {
    order.push_back(t.select().back());
    t.backup(order.back(), 0);
  }
  CHECK(order == std::vector<index_t>{1, 2, 3});
  t.backup(2, 1);
  CHECK(t.most_visited() == 2);
  t.backup(3, -1);
  CHECK(t.most_visited() == 2);  // as often visited, but better
}

TEST_CASE("rain: mean, worst, best and latest") {
  for (const auto& [rule, want] :
       {std::pair{rain_backup::mean, 0.25}, {rain_backup::min, -1.0}, {rain_backup::max, 1.0}, {rain_backup::last, -1.0}}) {
    rain_tree t({.backup = rule});
    t.expand(0, sets(2), {1, 1});
    t.expand(1, sets(1), {1});
    for (const double v : {1.0, 0.75, 0.25, -1.0}) t.backup(3, v);
    for (const index_t i : {0, 1, 3}) CHECK(t.at(i).value == Catch::Approx(want));
    CHECK(t.at(2).visits == 0);
    CHECK(t.at(0).evaluations == 4);
  }
}

TEST_CASE("rain: a similar sibling shares the score, a stranger or one not yet evaluated does not") {
  rain_tree t;
  t.expand(0, sets(3), {1, 1, 1});
  t.backup(1, 1, text{{1, 0}}.get());
  t.backup(2, -1, text{{0, 1}}.get());
  CHECK(t.at(1).visits == 1);
  t.backup(2, -1, text{{2, -1}}.get());  // mean (1, 0)
  CHECK(t.at(2).embedding == std::vector<double>{1, 0});
  CHECK(t.at(1).visits == Catch::Approx(1.2));
  CHECK(t.at(1).value == Catch::Approx((1 - 0.2) / 1.2));
  CHECK(t.at(1).evaluations == 1);
  CHECK(t.at(3).visits == 0);
  rain_tree off({.similarity_weight = 0});
  off.expand(0, sets(2), {1, 1});
  off.backup(1, 1, text{{1, 0}}.get());
  off.backup(2, -1, text{{1, 0}}.get());
  CHECK(off.at(1).value == 1);
}

TEST_CASE("rain: another child is wanted where all are alike and bad") {
  const auto grown = [](double value, double apart, bool all = true) {
    rain_tree t({.similarity_weight = 0, .most_children = 3});
    t.expand(0, sets(2), {1, 1});
    t.backup(1, value, text{{1, 0}}.get());
    if (all) t.backup(2, -1, text{{1, apart}}.get());
    return t;
  };
  CHECK(grown(-1, 0.1).wants_child(0, 1));
  CHECK_FALSE(grown(0, 0.1).wants_child(0, 1));
  CHECK_FALSE(grown(-1, 1).wants_child(0, 1));
  CHECK(grown(-1, 1).wants_child(0, 100));
  CHECK_FALSE(grown(-1, 0.1, false).wants_child(0, 1));
  auto t = grown(-1, 0.1);
  CHECK(t.add(0, {7}, {1, 1, 2}) == 3);
  CHECK(t.at(3).prior == Catch::Approx(0.75 * 0.25 + 0.25 / 3));
  CHECK(t.at(0).children.size() == 3);
  CHECK_FALSE(t.wants_child(0, 1));
}

TEST_CASE("rain: children that look the same have no spread at all") {
  for (const std::size_t k : {2u, 3u, 7u, 10u}) {
    rain_tree t;
    t.expand(0, sets(k), std::vector<double>(k, 1));
    for (std::size_t c = 1; c <= k; ++c) t.backup(static_cast<index_t>(c), -1, text{{0.1, 0.7}}.get());
    CHECK(t.embedding_spread(0) == 0);
  }
}

TEST_CASE("rain: the range of values is that of nodes that are selected, the root not among them") {
  rain_tree t;
  t.backup(0, 5);
  CHECK((t.range().least == -1 && t.range().greatest == 1));
  t.expand(0, sets(2), {1, 1});
  t.backup(1, -3);
  CHECK((t.range().least == -3 && t.range().greatest == 1));
}

TEST_CASE("rain: commit keeps the subtree and its statistics, and nothing else") {
  rain_tree t;
  t.expand(0, sets(2), {1, 1});
  t.expand(2, sets(3), {2, 1, 1});
  t.expand(1, sets(1), {1});
  t.expand(4, sets(2), {1, 3});
  for (const double v : {1.0, 0.5}) t.backup(7, v);
  CHECK(t.commit(2) == 2);
  CHECK(t.nodes().size() == 6);
  CHECK(t.at(0).parent == -1);
  CHECK(t.at(0).value == 0.75);
  CHECK(t.at(0).children == std::vector<index_t>{1, 2, 3});
  CHECK(t.at(1).prior == Catch::Approx(0.75 * 0.5 + 0.25 / 3));
  CHECK(t.at(2).children == std::vector<index_t>{4, 5});
  CHECK(t.at(4).visits == 2);
  CHECK(t.at(5).prior == 0.75);
  t.backup(4, 1);
  CHECK(t.at(0).evaluations == 3);
}

TEST_CASE("rain: what is refused leaves the tree as it was") {
  rain_tree t;
  t.expand(0, sets(2), {1, 1});
  t.backup(1, 1, text{{1, 0}}.get());
  CHECK(refusal([&] { t.backup(1, std::nan("")); }) == "plumb: rain_tree::backup: the score is nan. Nothing was written.");
  CHECK(refusal([&] { t.backup(9, 1); }) == "plumb: rain_tree: backup: there is no node 9 among 3.");
  const std::vector<double> wide{1, 2, 3};
  CHECK(refusal([&] { t.backup(2, 1, {wide.data(), 1, 3}); }) ==
        "plumb: rain_tree::backup: `embeddings` has 3 columns, but those before had 2. Nothing was written.");
  CHECK(refusal([&] { t.backup(2, 1, text{{1, 0, 1, 0}}.get()); }) ==
        "plumb: rain_tree::backup: argument `embeddings` has shape [2, 2], but its dimension 0 must be 1 (the nodes from the leaf to the root, without the "
        "root). Nothing was written.");
  CHECK(refusal([&] { t.expand(0, sets(1), {1}); }) == "plumb: rain_tree::expand: node 0 has children already.");
  CHECK(refusal([&] { t.expand(1, sets(2), {0, 0}); }) == "plumb: rain_tree: expand: the probabilities sum to 0.");
  CHECK(refusal([&] { t.commit(0); }) == "plumb: rain_tree::commit: node 0 is not a child of the root.");
  CHECK(refusal([&] { t.score(0); }) == "plumb: rain_tree::score: node 0 is the root: nothing selects it.");
  CHECK(t.nodes().size() == 3);
  CHECK(t.at(0).visits == 1);
}

#pragma once
// RAIN written a second time, plainly: one text after the other, each prefix read from its first token, nothing shared, nothing batched, no limits.
// An oracle for `plumb::rain`, which has to agree with it to the bit. What a judge condemns is committed all the same.
// At width 1 it is a loop over simulations. At a greater width it simulates events: what follows a leaf is written whole when the leaf is selected,
// and a count of its tokens says when it is there.

#include "support/small_language_models.hpp"

#include <plumb/search/rain.hpp>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

namespace plumb_test {

/// What the oracle is told of the world: what follows a text, what a reply is worth, what it is like.
struct rain_world {
  std::function<std::vector<float>(token_span text)> logits{};
  std::function<double(const plumb::candidate&)> score{};
  std::function<std::vector<float>(token_span text)> embedding{};  ///< none: nothing is compared
};

/// A token set and what is known below it.
struct sequential_node {
  token_list tokens{};
  double p = 0, n = 0, q = 0;  ///< prior, visit mass, mean value
  std::int64_t fn = 0;         ///< evaluations
  std::vector<double> e{};     ///< mean embedding
  std::size_t step = 0;        ///< depth below the first root
  bool terminal = false;
  double raw = 0;              ///< what its prior was made of
  std::int64_t in_vain = 0;    ///< additions that gave what was there
  sequential_node* parent = nullptr;
  std::vector<std::unique_ptr<sequential_node>> children{};
};

/// A commit: the children of the root before it, and which it was.
struct sequential_commit {
  struct child {
    token_list tokens;
    double n, q, p;
    std::int64_t fn;
    bool operator==(const child&) const = default;
  };
  std::size_t chosen = 0;
  std::int64_t simulations = 0;
  std::vector<child> table{};
  bool operator==(const sequential_commit&) const = default;
};

/// What happened, so that a test can show that its worlds had it in them.
struct sequential_events {
  std::int64_t waves = 0;        ///< draws that followed others because these repeated themselves
  std::int64_t in_vain = 0;      ///< additions that gave what was there
  std::int64_t dropped = 0;      ///< additions still under way when their round ended
  std::int64_t replaced = 0;     ///< leaves selected while others of an earlier moment were under way
  std::int64_t waited = 0;       ///< leaves that were known and had to wait for others before they were judged, counted at each event
  std::int64_t equal = 0;        ///< texts that were in one call of the judge before
  std::int64_t overtaken = 0;    ///< leaves judged before one that was selected earlier
  std::int64_t passed_over = 0;  ///< selections with a closed child on their way
  std::int64_t shut = 0;         ///< moments at which every leaf was under way and there was room for more
};

struct sequential_result {
  token_list response{};
  std::vector<sequential_commit> commits{};
  std::int64_t simulations = 0, judged = 0, remembered = 0, embedded = 0, added = 0;
  bool over = false;
  std::vector<std::int64_t> asked{};  ///< texts of each call of the judge
  std::int64_t ticks = 0;             ///< of all rounds together
  sequential_events events{};
};

class sequential_rain {
 public:
  sequential_rain(rain_world w, token_list prompt, plumb::rain_options options)
      : world_(std::move(w)), prompt_(std::move(prompt)), o_(std::move(options)), root_(std::make_unique<sequential_node>()) {}

  const sequential_result& run() {
    while (!result_.over && !full(result_.response)) round();
    return result_;
  }

 private:
  using node = sequential_node;
  struct weighed {
    std::int32_t token;
    double weight;
  };
  struct set_of_tokens {
    token_list tokens;
    double probability;
  };

  bool full(const token_list& response) const { return static_cast<plumb::index_t>(response.size()) >= o_.max_new_tokens; }
  static bool is_end(std::int32_t t) { return t == 0; }
  bool stops(const token_list& response) const { return o_.stop && o_.stop(token_span(response)); }
  /// A reply that ends so, with a set.
  bool ends(const token_list& response) const { return (o_.end_token_ends && std::ranges::any_of(response, is_end)) || stops(response); }
  /// Likewise with a token: a rollout stops at the end token, whatever a set does.
  bool rollout_ends(const token_list& response) const { return (!response.empty() && is_end(response.back())) || stops(response); }
  double uniform(std::uint64_t lane, std::uint64_t t) const {
    return plumb::rain_uniform(o_.seed, static_cast<std::uint64_t>(rounds_), static_cast<std::uint64_t>(number_), lane, t);
  }

  // One round of the outer loop: simulations until the child that leads is good enough, then its commit.
  void round() {
    const std::int64_t carry = o_.reuse ? root_->fn : 0;
    const std::int64_t most = std::max(o_.max_simulations - carry, o_.least_simulations);
    number_ = told_ = 0;
    if (o_.width == 1) {
      while (told_ < most && !enough()) simulate();
    } else {
      simulate_many(most);
    }
    const std::size_t chosen = o_.commit == plumb::rain_commit_rule::sampled ? sampled() : leading();
    sequential_commit c{.chosen = chosen, .simulations = told_};
    for (const auto& x : root_->children) c.table.push_back({x->tokens, x->n, x->q, x->p, x->fn});
    result_.commits.push_back(c);
    commit(chosen);
    ++rounds_;
  }
  bool enough() const {
    if (told_ == 0 || root_->children.empty()) return false;
    const node& b = *root_->children[leading()];
    if (b.fn == 0) return false;  // it has no value
    return o_.acceptance == plumb::rain_acceptance::child_visits ? b.fn > o_.min_visits && b.q > o_.accept
                                                                 : told_ >= o_.min_visits && b.q >= o_.accept;
  }
  std::size_t leading() const {
    const auto better = [&](const node& a, const node& b) {
      switch (o_.commit) {
        case plumb::rain_commit_rule::visits: return a.n > b.n;
        case plumb::rain_commit_rule::value: return a.fn > 0 && (b.fn == 0 || a.q > b.q || (a.q == b.q && a.n > b.n));
        default: return a.n > b.n || (a.n == b.n && a.q > b.q);
      }
    };
    std::size_t best = 0;
    for (std::size_t i = 1; i < root_->children.size(); ++i)
      if (better(*root_->children[i], *root_->children[best])) best = i;
    return best;
  }
  std::size_t sampled() const {
    double sum = 0, reached = 0;
    for (const auto& x : root_->children) sum += x->n;
    const double u = plumb::rain_uniform(o_.seed, static_cast<std::uint64_t>(rounds_), 0, std::uint64_t{1} << 33, 0);
    std::size_t last = 0;
    for (std::size_t i = 0; i < root_->children.size(); ++i) {
      if (root_->children[i]->n > 0) last = i;
      if ((reached += root_->children[i]->n) > u * sum) return i;
    }
    return last;
  }
  void commit(std::size_t chosen) {
    std::unique_ptr<node> b = std::move(root_->children[chosen]);
    result_.response.insert(result_.response.end(), b->tokens.begin(), b->tokens.end());
    result_.over = b->terminal;
    b->parent = nullptr;
    if (!o_.reuse) {
      auto anew = std::make_unique<node>();
      anew->step = b->step;
      b = std::move(anew);
    }
    root_ = std::move(b);
    // Children that were added kept the others' priors as they were, so these may sum to more than 1.
    double sum = 0;
    for (const auto& x : root_->children) sum += x->p = mixed(x->p, root_->children.size());
    for (const auto& x : root_->children) x->p /= sum;
  }
  /// The prior of one of `count` children of the root.
  double mixed(double p, std::size_t count) const { return (1 - o_.tree.root_mix) * p + o_.tree.root_mix / static_cast<double>(count); }

  // One simulation: down to a leaf, a rollout, a judgement, the leaf's children, and up again.
  void simulate() {
    node* x = root_.get();
    token_list response = result_.response;
    while (!x->children.empty()) {
      if (o_.add_children && wants_child(*x))
        if (const auto set = another(*x, response)) add(*x, response, *set);
      node* best = x->children[0].get();
      for (const auto& c : x->children)
        if (score(*c) > score(*best)) best = c.get();
      x = best;
      response.insert(response.end(), x->tokens.begin(), x->tokens.end());
    }
    const token_list judged = rolled_out(*x, response);
    const std::int64_t before = result_.judged;
    const double s = judge(judged, *x);
    if (result_.judged > before) result_.asked.push_back(1);
    if (grows(*x, response)) expand(*x, response, candidates(*x, response).sets);
    back_up(x, s, judged, response.size());
    ++number_;
    ++told_;
    ++result_.simulations;
  }
  bool grows(const node& x, const token_list& response) const { return !x.terminal && !full(response); }

  // Many simulations at once.

  /// A leaf that was selected and of which the tree was not told yet.
  struct leaf_under_way {
    node* leaf;
    token_list response, judged;  ///< to the leaf's end, and with its rollout
    std::vector<set_of_tokens> sets;
    std::int64_t complete;  ///< the moment at which all of it is written
    bool known = false;
  };
  /// A child on its way to a node that has others.
  struct child_under_way {
    node* parent;
    token_list response;  ///< to the parent's end
    set_of_tokens set;
    std::int64_t complete;
    bool known = false;
  };

  void simulate_many(std::int64_t most) {
    std::vector<leaf_under_way> leaves;
    std::vector<child_under_way> additions;
    std::int64_t now = 0;
    while (true) {
      if (!enough()) select(leaves, additions, now, most - told_);
      if (leaves.empty()) break;
      std::int64_t next = std::numeric_limits<std::int64_t>::max();
      for (const auto& y : leaves)
        if (!y.known) next = std::min(next, y.complete);
      for (const auto& y : additions)
        if (!y.known) next = std::min(next, y.complete);
      now = next;
      for (auto& y : leaves) y.known = y.complete <= now;
      for (auto& y : additions) y.known = y.complete <= now;
      const auto known = std::ranges::count_if(leaves, &leaf_under_way::known), all = static_cast<std::ptrdiff_t>(leaves.size());
      if (known >= o_.judge_batch || known == all) tell(leaves);
      else result_.events.waited += known;
      for (const auto& y : additions)
        if (y.known) add(*y.parent, y.response, y.set);
      std::erase_if(additions, [](const child_under_way& y) { return y.known; });
    }
    result_.ticks += now;
    result_.events.dropped += static_cast<std::int64_t>(additions.size());
  }

  /// A node's numbers before a virtual loss.
  struct kept {
    node* x;
    double n, q;
  };
  void lose(node* leaf, std::vector<kept>& before) const {
    for (node* x = leaf; x != nullptr; x = x->parent) {
      before.push_back({x, x->n, x->q});
      x->n += 1;
      if (o_.virtual_loss == plumb::rain_virtual_loss::loss) x->q += (-1 - x->q) / x->n;
    }
  }
  /// The leaf is under way, so that nodes with nothing else below them are closed as well.
  static void close(const node* leaf, std::set<const node*>& closed) {
    for (const node* x = leaf; x != nullptr; x = x->parent) {
      if (!std::ranges::all_of(x->children, [&](const auto& c) { return closed.contains(c.get()); })) return;
      closed.insert(x);
    }
  }
  /// New leaves, until as many are under way as may be, or there are no others.
  void select(std::vector<leaf_under_way>& leaves, std::vector<child_under_way>& additions, std::int64_t now, std::int64_t most) {
    std::vector<kept> before;
    std::set<const node*> closed;
    for (const leaf_under_way& y : leaves) {
      lose(y.leaf, before);
      close(y.leaf, closed);
    }
    const bool others = !leaves.empty();
    while (static_cast<std::int64_t>(leaves.size()) < std::min<std::int64_t>(o_.width, most)) {
      if (closed.contains(root_.get())) {
        ++result_.events.shut;
        break;
      }
      leaves.push_back(descended(closed, additions, now));
      lose(leaves.back().leaf, before);
      close(leaves.back().leaf, closed);
      ++number_;
      result_.events.replaced += others;
    }
    for (auto y = before.rbegin(); y != before.rend(); ++y) y->x->n = y->n, y->x->q = y->q;
  }
  /// One leaf, with all that will be written for it.
  leaf_under_way descended(const std::set<const node*>& closed, std::vector<child_under_way>& additions, std::int64_t now) {
    node* x = root_.get();
    token_list response = result_.response;
    bool passed_over = false;
    while (!x->children.empty()) {
      const bool one_comes = std::ranges::any_of(additions, [&](const child_under_way& y) { return y.parent == x; });
      if (o_.add_children && !one_comes && wants_child(*x))
        if (const auto set = another(*x, response)) {
          const auto wait = length_below(*x, response) == 1 ? 0 : static_cast<std::int64_t>(set->tokens.size()) - 1;
          additions.push_back({x, response, *set, now + wait});
        }
      node* best = nullptr;
      for (const auto& c : x->children) {
        if (closed.contains(c.get())) passed_over = true;
        else if (best == nullptr || score(*c) > score(*best)) best = c.get();
      }
      x = best;
      response.insert(response.end(), x->tokens.begin(), x->tokens.end());
    }
    result_.events.passed_over += passed_over;
    leaf_under_way y{x, response, rolled_out(*x, response), {}, now};
    if (!grows(*x, response)) return y;
    // It is read, which gives the first token of whatever follows it; each further token takes as long.
    candidate_sets all = candidates(*x, response, static_cast<std::int64_t>(y.judged.size() - response.size()));
    y.sets = std::move(all.sets);
    y.complete = now + 1 + all.takes;
    return y;
  }
  /// The judge sees what is known, then the tree hears of it, in the order of selection.
  void tell(std::vector<leaf_under_way>& leaves) {
    std::vector<leaf_under_way> known, others;
    for (auto& y : leaves) {
      if (y.known && !others.empty()) ++result_.events.overtaken;
      (y.known ? known : others).push_back(std::move(y));
    }
    leaves = std::move(others);
    const std::int64_t before = result_.judged;
    std::vector<double> scores;
    std::map<std::pair<token_list, bool>, double> of_this_call;
    for (const auto& y : known) scores.push_back(judge(y.judged, *y.leaf, &of_this_call));
    if (result_.judged > before) result_.asked.push_back(result_.judged - before);
    for (std::size_t i = 0; i < known.size(); ++i) {
      const auto& y = known[i];
      if (grows(*y.leaf, y.response)) expand(*y.leaf, y.response, y.sets);
      back_up(y.leaf, scores[i], y.judged, y.response.size());
      ++told_;
      ++result_.simulations;
    }
  }

  double score(const node& x) const {
    const plumb::rain_tree_options& t = o_.tree;
    double below = 0;
    for (const auto& y : x.parent->children) below += y->n;
    const double visits = t.count == plumb::rain_count::parent ? x.parent->n : below;
    double q = x.q;
    if (x.n == 0) {
      switch (t.first_play) {
        case plumb::rain_first_play::worst: q = least_; break;
        case plumb::rain_first_play::neutral: q = 0.5 * (least_ + greatest_); break;
        case plumb::rain_first_play::parent: q = x.parent->q; break;
      }
    }
    if (t.scale == plumb::rain_scale::unit) q = (q - least_) / (greatest_ - least_ + t.range_epsilon);
    return q + t.exploration * x.p * std::sqrt(visits) / (1 + x.n);
  }

  // What the model writes.
  std::vector<weighed> likeliest(const token_list& response, double temperature, plumb::index_t count) const {
    const std::vector<float> logits = logits_of(response);
    std::vector<weighed> y;
    for (std::size_t v = 0; v < logits.size(); ++v) y.push_back({static_cast<std::int32_t>(v), static_cast<double>(logits[v])});
    std::ranges::stable_sort(y, [](const weighed& a, const weighed& b) { return a.weight > b.weight; });
    y.resize(std::min(y.size(), static_cast<std::size_t>(count)));
    const double top = y[0].weight;
    for (weighed& w : y) w.weight = std::exp((w.weight - top) / temperature);
    return y;
  }
  std::vector<float> logits_of(const token_list& response) const {
    token_list text = prompt_;
    text.insert(text.end(), response.begin(), response.end());
    return world_.logits(text);
  }
  static set_of_tokens drawn(const std::vector<weighed>& all, double u) {
    double sum = 0, reached = 0;
    for (const weighed& w : all) sum += w.weight;
    for (const weighed& w : all)
      if ((reached += w.weight) > u * sum) return {{w.token}, w.weight / sum};
    return {{all.back().token}, all.back().weight / sum};
  }
  /// On from the leaf with all of the model's tokens, to where a text may be judged.
  token_list rolled_out(const node& x, token_list response) const {
    if (!o_.rollout || x.terminal) return response;
    for (plumb::index_t t = 0; t < o_.max_rollout_tokens && !full(response) && !rollout_ends(response); ++t) {
      if (o_.boundary && o_.boundary(token_span(response))) break;
      std::vector<double> memory;
      const std::vector<float> logits = logits_of(response);
      const plumb::view<const float, 1> l(logits.data(), static_cast<plumb::index_t>(logits.size()));
      const std::int32_t token = plumb::draw_token(l, o_.rollout_temperature, 1.0, uniform(0, static_cast<std::uint64_t>(t)), memory).token;
      response.push_back(token);
    }
    return response;
  }
  std::size_t length_below(const node& x) const { return static_cast<std::size_t>(o_.set_lengths[std::min(x.step, o_.set_lengths.size() - 1)]); }
  /// A set is no longer than the reply may become.
  std::size_t length_below(const node& x, const token_list& response) const {
    return std::min(length_below(x), static_cast<std::size_t>(o_.max_new_tokens) - response.size());
  }
  /// A set of up to `length` tokens. `u(t)`: the random number of its `t`-th.
  template <class U>
  set_of_tokens written(token_list response, std::size_t length, const U& u) const {
    set_of_tokens set{{}, 1};
    while (set.tokens.size() < length) {
      const set_of_tokens one = drawn(likeliest(response, o_.candidate_temperature, o_.top_k), u(set.tokens.size()));
      response.push_back(one.tokens[0]);
      set.tokens.push_back(one.tokens[0]);
      set.probability *= one.probability;
      if (o_.sets_end && is_end(one.tokens[0])) break;
    }
    return set;
  }
  set_of_tokens greedy(const token_list& response, std::size_t length) const {
    return written(response, length, [](std::size_t) { return 0.0; });
  }
  set_of_tokens draw(const token_list& response, std::size_t length, std::uint64_t lane) const {
    return written(response, length, [&](std::size_t t) { return uniform(lane, t); });
  }
  /// What may follow a leaf, and for how many tokens it is written beyond the first of each text.
  struct candidate_sets {
    std::vector<set_of_tokens> sets{};
    std::int64_t takes = 0;
  };
  /// `rollout`: tokens that are written beside the first sets. Draws go in waves: as many as there is room for, and others instead of those that were
  /// there already once all of the wave is written.
  candidate_sets candidates(const node& x, const token_list& response, std::int64_t rollout = 0) {
    candidate_sets y;
    const std::size_t length = length_below(x, response);
    std::int64_t longest = std::max<std::int64_t>(rollout, 1);  // of the wave
    if (length == 1) {
      for (const weighed& w : likeliest(response, o_.candidate_temperature, o_.candidates))
        if (w.weight > 0) y.sets.push_back({{w.token}, w.weight});
      y.takes = longest - 1;
      return y;
    }
    y.sets.push_back(greedy(response, length));
    longest = std::max(longest, static_cast<std::int64_t>(y.sets[0].tokens.size()));
    std::int64_t drawn = 0;
    for (bool first = true;; first = false) {
      const std::int64_t count = std::min<std::int64_t>(o_.candidates - static_cast<std::int64_t>(y.sets.size()), o_.draws - drawn);
      if (count <= 0 && !first) break;
      result_.events.waves += !first;
      for (std::int64_t i = 0; i < count; ++i, ++drawn) {
        const set_of_tokens set = draw(response, length, 1 + static_cast<std::uint64_t>(drawn));
        longest = std::max(longest, static_cast<std::int64_t>(set.tokens.size()));
        if (std::ranges::none_of(y.sets, [&](const set_of_tokens& z) { return z.tokens == set.tokens; })) y.sets.push_back(set);
      }
      y.takes += longest - 1;
      longest = 1;
    }
    lead_with_greedy(y.sets);
    return y;
  }
  void expand(node& x, const token_list& response, const std::vector<set_of_tokens>& sets) {
    double sum = 0;
    for (const set_of_tokens& y : sets) sum += y.probability;
    for (const set_of_tokens& y : sets) {
      const double share = y.probability / sum;
      new_child(x, response, y, x.parent == nullptr ? mixed(share, sets.size()) : share);
    }
  }
  /// The greedy set is first, and so is its prior.
  static void lead_with_greedy(std::vector<set_of_tokens>& sets) {
    if (sets.size() < 2) return;
    double sum = 0, most = sets[1].probability, least = sets[1].probability;
    for (std::size_t i = 1; i < sets.size(); ++i) {
      sum += sets[i].probability;
      most = std::max(most, sets[i].probability);
      least = std::min(least, sets[i].probability);
    }
    sets[0].probability = std::max(std::min(sets[0].probability, sum), most + least);
  }
  void new_child(node& x, token_list response, const set_of_tokens& set, double prior) {
    auto c = std::make_unique<node>();
    response.insert(response.end(), set.tokens.begin(), set.tokens.end());
    c->tokens = set.tokens;
    c->p = prior;
    c->step = x.step + 1;
    c->raw = set.probability;
    c->parent = &x;
    c->terminal = full(response) || ends(response);
    x.children.push_back(std::move(c));
  }

  /// Another child where all are alike and bad.
  bool wants_child(const node& x) const {
    if (static_cast<std::int64_t>(x.children.size()) >= o_.tree.most_children) return false;
    for (const auto& c : x.children)
      if (c->fn == 0 || !(c->q < o_.tree.value_threshold)) return false;
    return !world_.embedding || spread(x) < o_.tree.variance_threshold * static_cast<double>(length_below(x));
  }
  /// Nothing where there cannot be another.
  std::optional<set_of_tokens> another(const node& x, const token_list& response) const {
    const std::size_t length = length_below(x, response);
    if (length == 1) {
      const auto all = likeliest(response, o_.candidate_temperature, static_cast<plumb::index_t>(x.children.size()) + 1);
      if (all.size() == x.children.size()) return {};  // the model has no more tokens
      if (!(all.back().weight > 0)) return {};         // nor others that can follow
      return set_of_tokens{{all.back().token}, all.back().weight};
    }
    if (x.in_vain >= o_.addition_tries) return {};
    return draw(response, length, (std::uint64_t{1} << 32) + x.step);
  }
  void add(node& x, const token_list& response, const set_of_tokens& set) {
    if (std::ranges::any_of(x.children, [&](const auto& c) { return c->tokens == set.tokens; })) {
      ++x.in_vain;
      ++result_.events.in_vain;
      return;
    }
    double sum = set.probability;
    for (const auto& c : x.children) sum += c->raw;
    const double prior = set.probability / sum;
    new_child(x, response, set, x.parent == nullptr ? mixed(prior, x.children.size() + 1) : prior);
    ++result_.added;
  }
  /// The norm of the per-dimension unbiased variance of the children's embeddings.
  static double spread(const node& x) {
    const double k = static_cast<double>(x.children.size());
    if (x.children.size() < 2) return std::numeric_limits<double>::quiet_NaN();
    double norm = 0;
    for (std::size_t d = 0; d < x.children[0]->e.size(); ++d) {
      double mean = 0, squares = 0;
      for (const auto& c : x.children) mean += c->e[d] / k;
      for (const auto& c : x.children) squares += (c->e[d] - mean) * (c->e[d] - mean);
      norm += squares / (k - 1) * (squares / (k - 1));
    }
    return std::sqrt(norm);
  }

  /// `also`: what the judge says in the same call, which it says of equal texts once.
  double judge(const token_list& judged, const node& leaf, std::map<std::pair<token_list, bool>, double>* also = nullptr) {
    const bool finished = leaf.terminal ? ends(judged) : rollout_ends(judged);
    const std::size_t shown = o_.shown ? std::min(o_.shown(token_span(judged)), judged.size()) : judged.size();
    const token_list text(judged.begin(), judged.begin() + static_cast<std::ptrdiff_t>(shown));
    for (const auto* scores : {also, &scores_})
      if (scores != nullptr)
        if (const auto found = scores->find({text, finished}); found != scores->end()) {
          ++result_.remembered;
          result_.events.equal += scores == also;
          return found->second;
        }
    ++result_.judged;
    const double s = world_.score({prompt_, text, finished});
    if (o_.remembered_scores > 0) scores_[{text, finished}] = s;
    if (also != nullptr) (*also)[{text, finished}] = s;
    return s;
  }

  /// Up from the leaf; each node of the way shares what it learns with siblings that look like it.
  void back_up(node* leaf, double g, const token_list& judged, std::size_t leaf_ends) {
    std::size_t begins = leaf_ends;
    for (node* x = leaf; x != nullptr; x = x->parent) {
      x->n += 1;
      x->fn += 1;
      if (x->parent != nullptr && world_.embedding) {
        begins -= x->tokens.size();
        const std::vector<double> v = unit(world_.embedding(token_span(judged).subspan(begins)));
        ++result_.embedded;
        if (x->e.empty()) x->e.assign(v.size(), 0.0);
        for (std::size_t d = 0; d < v.size(); ++d) x->e[d] += (v[d] - x->e[d]) / static_cast<double>(x->fn);
        for (const auto& y : x->parent->children)
          if (y.get() != x && !y->e.empty()) {
            const double sim = cosine(x->e, y->e);
            if (!(sim >= o_.tree.similarity_threshold)) continue;
            const double w = o_.tree.similarity_weight * sim;
            if (o_.tree.backup == plumb::rain_backup::mean) y->q = (y->q * y->n + w * g) / (y->n + w);
            y->n += w;
          }
      }
      switch (o_.tree.backup) {
        case plumb::rain_backup::mean: x->q += (g - x->q) / x->n; break;
        case plumb::rain_backup::max: x->q = x->fn == 1 ? g : std::max(x->q, g); break;
        case plumb::rain_backup::min: x->q = x->fn == 1 ? g : std::min(x->q, g); break;
        case plumb::rain_backup::last: x->q = g; break;
      }
      least_ = std::min(least_, x->q);
      greatest_ = std::max(greatest_, x->q);
    }
  }
  static std::vector<double> unit(const std::vector<float>& x) {
    double norm = 0;
    for (const float f : x) norm += static_cast<double>(f) * static_cast<double>(f);
    std::vector<double> y;
    for (const float f : x) y.push_back(static_cast<double>(f) / std::sqrt(norm));
    return y;
  }
  static double cosine(const std::vector<double>& a, const std::vector<double>& b) {
    double dot = 0, aa = 0, bb = 0;
    for (std::size_t d = 0; d < a.size(); ++d) dot += a[d] * b[d], aa += a[d] * a[d], bb += b[d] * b[d];
    return dot / std::sqrt(aa * bb);
  }

  rain_world world_;
  token_list prompt_;
  plumb::rain_options o_;
  std::unique_ptr<node> root_;
  std::int64_t rounds_ = 0;
  std::int64_t number_ = 0, told_ = 0;  ///< simulations of the round that were selected, and that the tree was told of
  double least_ = -1, greatest_ = 1;
  std::map<std::pair<token_list, bool>, double> scores_{};
  sequential_result result_{};
};

/// The same of a search of the library.
struct recorded_search {
  plumb::rain_result result{};
  std::vector<sequential_commit> commits{};
};
/// Notes what a search commits.
inline std::function<void(const plumb::rain_commit&)> recorder(std::vector<sequential_commit>& commits) {
  return [&commits](const plumb::rain_commit& c) {
    sequential_commit noted{.chosen = static_cast<std::size_t>(c.chosen), .simulations = c.simulations};
    for (const plumb::rain_child& x : c.children)
      noted.table.push_back({{x.tokens.begin(), x.tokens.end()}, x.visits, x.value, x.prior, x.evaluations});
    commits.push_back(noted);
  };
}
/// What is wrong with a tree that holds whole simulations only; empty if nothing is. `plain`: no similarity, mean backup and scores -1, 0 and 1, so
/// that every number can be made again from those below it; `added`: children that were added, which priors do not make room for.
inline std::string wrong_in(const plumb::rain_tree& tree, bool plain, bool added) {
  const auto at = [&](plumb::index_t i) -> const plumb::rain_node& { return tree.at(i); };
  std::string wrong;
  for (plumb::index_t i = 0; i < static_cast<plumb::index_t>(tree.nodes().size()); ++i) {
    const plumb::rain_node& x = at(i);
    const auto check = [&](bool good, const char* what) {
      if (!good && wrong.size() < 400) wrong += "node " + std::to_string(i) + ": " + what + "\n";
    };
    std::int64_t below = 0;
    double priors = 0, sum = 0;
    for (const plumb::index_t c : x.children) {
      check(c > i && at(c).parent == i && at(c).depth == x.depth + 1, "a child does not know it");
      below += at(c).evaluations, priors += at(c).prior, sum += at(c).value * static_cast<double>(at(c).evaluations);
    }
    check(x.parent < 0 || !x.tokens.empty(), "no tokens");
    check(x.visits >= static_cast<double>(x.evaluations) && x.value >= -1 && x.value <= 1, "visits or value");
    // A root may have none because all were taken back.
    check(x.children.empty() ? i == 0 || x.terminal || x.evaluations == 0 : x.evaluations == below + 1,
          "evaluations are not its children's and its own");
    check(x.children.empty() || (added ? priors > 1 - 1e-9 : std::abs(priors - 1) < 1e-9), "priors do not sum to 1");
    if (!plain) continue;
    check(x.visits == static_cast<double>(x.evaluations), "visits are not its evaluations");
    const double own = x.value * static_cast<double>(x.evaluations) - sum;
    check(x.children.empty() || std::abs(own - std::round(own)) < 1e-9, "its value is no mean");
  }
  return wrong;
}

template <class M, class E, class... Embedder>
recorded_search recorded_rain(M& model, E& judge, const token_list& prompt, plumb::rain_options o, Embedder&... embedder) {
  recorded_search y;
  o.on_commit = recorder(y.commits);
  y.result = plumb::rain(model, judge, token_span(prompt), o, embedder...);
  return y;
}

}  // namespace plumb_test

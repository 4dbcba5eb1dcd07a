#pragma once
// RAIN: rewindable auto-regressive inference (Li et al., arXiv:2309.07124). A frozen model writes a reply token set by token set: it searches ahead
// from where it is, judges what it finds, rewinds, and commits the set that the search speaks for. Every choice in which the paper and the authors'
// code (SafeAILab/RAIN at 8cedfa7) differ is an option; presets spell both out.

#include <plumb/core/random.hpp>
#include <plumb/model/sampling.hpp>
#include <plumb/search/continuations.hpp>
#include <plumb/search/judging.hpp>
#include <plumb/search/rain_tree.hpp>

#include <exception>
#include <functional>

PLUMB_NAMESPACE_BEGIN

/// When a round has seen enough.
enum class rain_acceptance {
  child_visits,  ///< the child that leads was evaluated more than `min_visits` times, and its value is above `accept` (the authors' code)
  iterations,    ///< there were at least `min_visits` simulations, and its value is at least `accept` (the paper)
};
/// Which child a round commits.
enum class rain_commit_rule {
  visits,             ///< the one that was visited most, the first of equals
  visits_then_value,  ///< of equals the one with the larger value, then the first (the authors' code)
  value,              ///< the one with the largest value among those that were visited
  sampled,            ///< drawn by visits (the paper's prose)
};
/// What to do where the judge condemns whatever the search finds: each child that was evaluated is worth `condemned` or less.
enum class rain_fallback {
  go_on,        ///< commit all the same, and say so
  rewind,       ///< take back `rewind_commits` commits and go another way; where none is left, the reply ends
  refuse,       ///< the reply ends where it is
  best_so_far,  ///< the reply ends with the best continuation that was ever judged
};

/// A child of the root when its round ended.
struct rain_child {
  std::span<const std::int32_t> tokens{};
  double prior = 0, visits = 0, value = 0;
  std::int64_t evaluations = 0;
};
/// What a round did.
struct rain_commit {
  std::span<const std::int32_t> tokens{};    ///< that were committed; none after a rewind
  std::span<const std::int32_t> response{};  ///< all that is committed
  std::span<const rain_child> children{};    ///< of the root, before
  index_t chosen = -1;                       ///< which of them; -1: none
  std::int64_t simulations = 0;              ///< of this round
  bool condemned = false;                    ///< the judge condemned them all
  index_t taken_back = 0;                    ///< commits that were taken back
  const search_counters& counters;
};

/// Options of `rain`. Defaults are those of the authors' code for HH, but that replies end with the end token.
struct rain_options {
  // Candidates.
  std::vector<index_t> set_lengths{1, 2, 4, 10};  ///< tokens of a set by the depth of its parent, counted from the prompt; the last one goes on
  index_t candidates = 10;                 ///< q: children of a node, fewer where draws repeat
  index_t top_k = 15;                      ///< sets of several tokens are drawn from so many, renormalised
  index_t draws = 9;                       ///< of such sets, at most; beside the greedy one
  double candidate_temperature = 1;
  bool sets_end = true;                    ///< a set stops at the end token; the authors' code draws all its tokens
  // Rollouts: what is judged is a set and what the model writes after it.
  bool rollout = true;                     ///< the paper has none; the code has
  double rollout_temperature = 1;          ///< 0: greedy
  index_t max_rollout_tokens = 64;
  std::function<bool(std::span<const std::int32_t>)> boundary{};  ///< of the response, empty at first: a rollout may stop here. None: at its end
  std::function<std::size_t(std::span<const std::int32_t>)> shown{};  ///< tokens of the response that the judge sees; none: all
  // The tree.
  rain_tree_options tree = rain_tree_options::reference();
  bool add_children = true;                ///< where all children are alike and bad
  index_t addition_tries = 4;              ///< draws for one node that may give what is there already; 0: none is added
  bool reuse = true;                       ///< the committed child's subtree and statistics stay
  // A round.
  std::int64_t max_simulations = 50;       ///< T, less what the committed child was evaluated before,
  std::int64_t least_simulations = 15;     ///< but no fewer than this
  rain_acceptance acceptance = rain_acceptance::child_visits;
  std::int64_t min_visits = 6;             ///< T_m
  double accept = 0.8;                     ///< V
  rain_commit_rule commit = rain_commit_rule::visits_then_value;
  // Leaves side by side.
  index_t width = 1;                       ///< leaves under way at a time; 1: the sequential algorithm
  rain_virtual_loss virtual_loss = rain_virtual_loss::loss;
  index_t judge_batch = 1;                 ///< leaves wait for the judge until there are so many, or until no other is under way
  // Memory.
  prefix_cache_options sequences{};
  index_t remembered_scores = 4096;        ///< texts whose score is remembered
  bool keep_discarded = false;             ///< nodes that were not committed are kept for `records()`
  // The end.
  index_t max_new_tokens = 256;
  bool end_token_ends = true;              ///< a set that holds the end token ends the reply
  std::function<bool(std::span<const std::int32_t>)> stop{};  ///< of the response, empty at first: it ends here
  rain_fallback fallback = rain_fallback::go_on;
  double condemned = -1;                   ///< a child of this value or less is condemned; a soft judge hardly ever says -1
  index_t rewind_commits = 1;              ///< commits that a rewind takes back
  index_t max_rewinds = 8;
  search_limits limits{};
  std::stop_token cancel{};
  std::uint64_t seed = 0;
  std::function<void(const rain_commit&)> on_commit{};

  /// As the paper has it (Algorithm 1, eq. 1 and 2): no rollouts, no mixing of priors, a new tree each round. It gives no numbers for T, T_m, V and
  /// q: those of the code stand. Its worked example credits a sibling that nobody visited, which has no embedding here: it gets none.
  static rain_options paper() {
    rain_options o;
    o.tree = {.root_mix = 0};
    o.rollout = o.reuse = false;
    o.least_simulations = 0;
    o.acceptance = rain_acceptance::iterations;
    return o;
  }
  /// As the authors' code runs on red-team prompts: set `boundary` to punctuation and `stop` to the next turn of the person. Its 2048 tokens are
  /// those of prompt and reply together; here they are the reply's.
  static rain_options reference_hh() {
    rain_options o;
    o.sets_end = o.end_token_ends = false;
    o.max_rollout_tokens = o.max_new_tokens = 2048;
    return o;
  }
  /// On adversarial suffixes: warmer candidates, drawn until nine differ. `boundary` and `stop` as above.
  static rain_options reference_adv() {
    rain_options o;
    o.sets_end = false;
    o.candidate_temperature = 2;
    o.draws = 19;
    o.max_rollout_tokens = o.max_new_tokens = 2048;
    o.min_visits = 5;
    return o;
  }
  /// On TruthfulQA: rollouts go to the end of the answer; set `shown` to the last full stop.
  static rain_options reference_truth() {
    rain_options o;
    o.sets_end = false;
    o.boundary = nowhere{};
    o.max_rollout_tokens = o.max_new_tokens = 2048;
    o.min_visits = 16;
    return o;
  }

  void require(const char* op) const {
    tree.require(op);
    sequences.require(op);
    limits.require(op);
    if (set_lengths.empty()) fail(message(op) << "option `set_lengths` is empty: a length is needed. Nothing was written.");
    for (const index_t n : set_lengths) require_option(op, "set_lengths", static_cast<double>(n), n >= 1, "1 or more, each");
    for (const auto& [name, value] : {std::pair{"candidates", candidates}, {"top_k", top_k}, {"width", width}, {"judge_batch", judge_batch},
                                      {"rewind_commits", rewind_commits}})
      require_option(op, name, static_cast<double>(value), value >= 1, "1 or more");
    for (const auto& [name, value] :
         {std::pair{"draws", draws}, {"max_rollout_tokens", max_rollout_tokens}, {"addition_tries", addition_tries},
          {"remembered_scores", remembered_scores}, {"max_new_tokens", max_new_tokens}, {"max_rewinds", max_rewinds}})
      require_option(op, name, static_cast<double>(value), value >= 0, "0 or positive");
    require_option(op, "candidate_temperature", candidate_temperature, candidate_temperature > 0, "positive");
    require_option(op, "rollout_temperature", rollout_temperature, rollout_temperature >= 0, "0 (greedy) or positive");
    require_option(op, "max_simulations", static_cast<double>(max_simulations), max_simulations >= 1, "1 or more");
    require_option(op, "least_simulations", static_cast<double>(least_simulations), least_simulations >= 0, "0 or positive");
    require_option(op, "min_visits", static_cast<double>(min_visits), min_visits >= 0, "0 or positive");
    require_option(op, "accept", accept, true, "a number");
    require_option(op, "condemned", condemned, true, "a number");
    require_mode(op, "acceptance", acceptance, rain_acceptance::iterations);
    require_mode(op, "commit", commit, rain_commit_rule::sampled);
    require_mode(op, "virtual_loss", virtual_loss, rain_virtual_loss::count);
    require_mode(op, "fallback", fallback, rain_fallback::best_so_far);
  }
};

/// What `rain` found.
struct rain_result {
  /// That was committed. Its end token is the last, but where `sets_end` is off: there the set that held it stays whole.
  std::vector<std::int32_t> response{};
  stop_reason reason = stop_reason::none;
  bool condemned = false;                ///< in some round the judge condemned all that the search found
  std::vector<std::int32_t> best{};      ///< the judged text with the highest score, of equals the longest: a whole response, or its beginning
  double best_score = 0;                 ///< NaN: nothing was judged
  search_counters counters{};

  const char* why_it_stopped() const { return name_of(reason); }
};

/// A node as it was when it left the tree, or as it is.
struct rain_record {
  std::int64_t id = 0, parent = -1;  ///< -1: none
  index_t depth = 0, round = 0;      ///< `round`: in which it left; that of the search, if it has not
  std::vector<std::int32_t> tokens{};
  double prior = 0, visits = 0, value = 0;
  std::int64_t evaluations = 0;
  bool terminal = false, committed = false;
};

/// Random numbers of a search: those of token `t` in a lane of a simulation. Lane 0 is the rollout, lane `1 + d` draw `d` of the candidates, lane
/// `2^32 + depth` an addition below a node of that depth, lane `2^33` the commit. How leaves are batched does not enter.
inline double rain_uniform(std::uint64_t seed, std::uint64_t round, std::uint64_t simulation, std::uint64_t lane, std::uint64_t t) {
  const random_stream of_round{seed, 0x7261696e00000001u};
  return random_stream{random_stream{of_round.bits(round), simulation}.bits(0), lane}.uniform(t);
}

namespace detail {

/// Writes the `count` likeliest tokens of `softmax(logits / temperature)`, the first of equals first.
inline void likeliest(std::span<const float> logits, double temperature, index_t count, std::vector<ranked_token>& best) {
  constexpr const char* op = "rain";
  const std::size_t k = std::min(static_cast<std::size_t>(count), logits.size());
  best.clear();
  best.reserve(k);
  float least = -std::numeric_limits<float>::infinity();  // of the best, once there are k of them
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float x = logits[i];
    if (best.size() == k && x <= least) continue;  // most are: a comparison each
    if (std::isnan(x)) fail(message(op) << "the logit of token " << i << " is not a number.");
    if (best.size() == k) best.pop_back();
    std::size_t at = best.size();
    best.push_back({static_cast<std::int32_t>(i), static_cast<double>(x)});
    for (; at > 0 && best[at - 1].weight < best[at].weight; --at) std::swap(best[at - 1], best[at]);
    least = static_cast<float>(best.back().weight);
  }
  const double top = best.empty() ? std::numeric_limits<double>::quiet_NaN() : best[0].weight;
  if (!(top - top == 0)) fail(message(op) << "the largest logit is " << top << ": nothing can be chosen.");
  for (ranked_token& r : best) r.weight = std::exp((r.weight - top) / temperature);
}
struct chosen_token {
  std::int32_t token;
  double probability;
};
/// One of the first `k` by their weights, renormalised, with `u` in [0, 1); 0 takes the likeliest.
inline chosen_token draw_ranked(std::span<const ranked_token> ranked, index_t k, double u) {
  ranked = ranked.first(std::min(ranked.size(), static_cast<std::size_t>(k)));
  double sum = 0, reached = 0;
  for (const auto& r : ranked) sum += r.weight;
  for (const auto& r : ranked)
    if ((reached += r.weight) > u * sum) return {r.token, r.weight / sum};
  return {ranked.back().token, ranked.back().weight / sum};
}

}  // namespace detail

/// A search that goes on round by round: what the host wants to stream, look at or cancel. `rain` is its short form.
///
/// What the model, the judge, the embedder or a callback throws passes through `round()` and loses nothing: `response()` is what was committed, the
/// tree holds whole simulations only, every sequence is given back when the object is destroyed, and `round()` may be called again.
template <class M, class E, class Embedder = no_embedder>
class rain_search {
  static_assert(check_language_model<M>());
  static_assert(check_evaluator<E>());
  static constexpr const char* op = "rain";

 public:
  static constexpr bool embeds = !std::is_same_v<Embedder, no_embedder>;  ///< public, so that the arguments give the template's

  /// `prompt`: at least one token. Model, judge and embedder are the host's and outlive the search.
  rain_search(M& model, E& judge, std::span<const std::int32_t> prompt, const rain_options& options = {})
    requires(std::is_same_v<Embedder, no_embedder>)
      : rain_search(model, judge, prompt, options, nullptr) {}
  rain_search(M& model, E& judge, std::span<const std::int32_t> prompt, const rain_options& options, Embedder& embedder)
    requires(!std::is_same_v<Embedder, no_embedder>)
      : rain_search(model, judge, prompt, options, &embedder) {
    static_assert(check_embedder<Embedder>());
  }

  rain_search(const rain_search&) = delete;
  rain_search& operator=(const rain_search&) = delete;

  /// One round: simulations, then a commit (or a rewind). False: nothing was committed, and the reply has ended; `reason()` says why.
  bool round() {
    if (reason_ != stop_reason::none) return false;
    if (searching_) fail(message(op) << "round() was called from within round(), by the model, the judge or a callback.");
    const detail::timed clock(meter_.used.seconds);
    if (met_ == stop_reason::none) {
      const searching now(*this);
      try {
        search();
      } catch (const detail::limit_reached& reached) {
        under_way_.clear();
        met_ = reached.reason;
      } catch (...) {
        keep_whole();
        throw;
      }
    }
    return met_ == stop_reason::none ? conclude() : conclude_early();
  }

  std::span<const std::int32_t> prompt() const { return prompt_; }
  std::span<const std::int32_t> response() const { return std::span(text_).subspan(prompt_tokens_); }
  /// `none`: it has not ended.
  stop_reason reason() const { return reason_; }
  const rain_tree& tree() const { return tree_; }
  const search_counters& counters() const { return meter_.used; }
  const rain_options& options() const { return options_; }
  /// Bytes of the tree and of what is remembered beside it.
  std::int64_t bytes() const { return tree_.bytes() + judging_.bytes() + record_bytes_; }

  rain_result result() const {
    return {.response = {response().begin(), response().end()}, .reason = reason_, .condemned = condemned_, .best = best_, .best_score = best_score_,
            .counters = meter_.used};
  }

  /// The nodes of the tree, after those that left it where `keep_discarded` is set; parents come before their children.
  std::vector<rain_record> records() const {
    std::vector<rain_record> all = records_;
    for (std::size_t i = 0; i < tree_.nodes().size(); ++i) all.push_back(record_of(static_cast<index_t>(i), i == 0));
    std::ranges::stable_sort(all, {}, &rain_record::id);
    return all;
  }

 private:
  rain_search(M& model, E& judge, std::span<const std::int32_t> prompt, const rain_options& options, Embedder* embedder)
      : model_(model), embedder_(embedder), options_(checked(options)), tree_(options.tree), cache_(model, options.sequences),
        meter_(options.limits, options.cancel), prompt_(prompt.begin(), prompt.end()),
        judging_(op, judge, meter_, prompt_, options.remembered_scores, true), text_(prompt_), prompt_tokens_(prompt.size()) {
    detail::require_prompt(op, model, prompt);
    room_ = detail::room_for_reply(model, prompt, options.max_new_tokens);
    if (room_ == 0) reason_ = stop_reason::length;
  }
  static const rain_options& checked(const rain_options& options) {
    options.require(op);
    return options;
  }

  // A text that is being written for a visit: its rollout, or one of its candidates.
  struct lane {
    std::uint64_t number;  ///< 0: the rollout; 1: the greedy set; 2 + d: draw d
    std::size_t length;    ///< tokens at most
    std::vector<std::int32_t> text{};  ///< the visit's and what is written
    index_t from = -1;                 ///< as in `text_request`
    double probability = 1;
    bool complete = false;
  };
  // A leaf that is being evaluated. Nothing of it is in the tree before all of it is known.
  struct visit {
    index_t leaf = 0;
    std::uint64_t simulation = 0;
    bool adds = false;                      ///< it is no leaf, but is to get one more child
    std::vector<std::int32_t> text{};       ///< prompt, response, path
    bool rolls = false;                     ///< it has a rollout
    bool read = false;                      ///< the model has read the text, or need not; what is written below it is in `lanes`
    bool complete = false;                  ///< all but the judge's word is known
    bool known = false;                     ///< and its time has come
    bool due = false;                       ///< the tree is to be told before anything else happens
    bool told = false;                      ///< and has been
    bool torn = false;                      ///< something threw in the middle of what changes it
    std::int64_t time = 0;                  ///< when it was selected, then when the lanes from `taken` on began, then when it was complete
    std::vector<lane> lanes{};
    std::size_t taken = 0;                  ///< lanes that have given what they wrote
    index_t drawn = 0;                      ///< candidates, beside the greedy one
    std::vector<std::int32_t> judged{};     ///< the response with the rollout
    bool finished = false;
    std::vector<ranked_token> support{};
    std::vector<std::vector<std::int32_t>> sets{};  ///< candidates
    std::vector<double> probabilities{};
    bool greedy_first = false;              ///< the first of them is the greedy one
    double score = 0;
    std::vector<double> embeddings{};       ///< `[depth, D]`
    std::int64_t selected_at = 0;

    /// Tokens that a lane has written.
    std::int64_t written(const lane& l) const { return static_cast<std::int64_t>(l.text.size() - text.size()); }
    /// Before that time it is not complete.
    std::int64_t earliest() const {
      if (!read) return time + 1;
      std::int64_t longest = 0;
      for (std::size_t i = taken; i < lanes.size(); ++i) longest = std::max(longest, written(lanes[i]) - (lanes[i].complete ? 1 : 0));
      return time + longest;
    }
  };

  std::size_t set_length(index_t depth) const {
    const auto d = static_cast<std::size_t>(depth + first_depth_);
    return static_cast<std::size_t>(options_.set_lengths[std::min(d, options_.set_lengths.size() - 1)]);
  }
  /// Tokens of a set below a leaf with that text: as its depth says, or what the reply has room for.
  std::size_t set_length(index_t leaf, const std::vector<std::int32_t>& text) const {
    return std::min(set_length(tree_.at(leaf).depth), room_ - (text.size() - prompt_tokens_));
  }
  index_t support_size() const {
    const index_t children = static_cast<index_t>(std::min<std::int64_t>(options_.tree.most_children, model_.vocab_size()));
    return std::min(std::max({options_.candidates, options_.top_k, children + 1}), static_cast<index_t>(model_.vocab_size()));
  }

  // Rounds.

  std::int64_t round_limit() const { return std::max(options_.max_simulations - carry_, std::max<std::int64_t>(1, options_.least_simulations)); }
  std::int64_t evaluated_children() const {
    std::int64_t count = 0;
    for (const index_t c : tree_.at(0).children) count += tree_.at(c).evaluations > 0;
    return count;
  }
  bool enough() const {
    if (simulations_ == 0) return false;
    if (simulations_ >= round_limit()) return true;
    if (tree_.at(0).children.empty()) return true;  // there is nothing to choose from
    const rain_node& b = tree_.at(leader());
    if (options_.acceptance == rain_acceptance::child_visits) return b.evaluations > options_.min_visits && b.value > options_.accept;
    return simulations_ >= options_.min_visits && b.evaluations > 0 && b.value >= options_.accept;
  }
  /// The child that would be committed, were it now.
  index_t leader() const {
    if (options_.commit == rain_commit_rule::value) return tree_.most_valued();
    if (options_.commit != rain_commit_rule::visits) return tree_.most_visited();
    index_t chosen = tree_.at(0).children[0];
    for (const index_t c : tree_.at(0).children)
      if (tree_.at(c).visits > tree_.at(chosen).visits) chosen = c;
    return chosen;
  }
  index_t chosen() const {
    if (options_.commit != rain_commit_rule::sampled) return leader();
    double sum = 0, reached = 0;
    for (const index_t c : tree_.at(0).children) sum += tree_.at(c).visits;
    const double u = rain_uniform(options_.seed, round_, 0, std::uint64_t{1} << 33, 0);
    for (const index_t c : tree_.at(0).children)
      if ((reached += tree_.at(c).visits) > u * sum) return c;
    return leader();
  }

  /// The judge condemns all that was found.
  bool is_hopeless() const {
    return evaluated_children() > 0 && std::ranges::all_of(tree_.at(0).children, [&](index_t c) {
      return tree_.at(c).evaluations == 0 || tree_.at(c).value <= options_.condemned;
    });
  }

  /// Ends a round at a limit: what it found so far is committed, if it found anything; no more is searched, so a fallback that searches on has no say.
  bool conclude_early() {
    const bool hopeless = is_hopeless(), found = simulations_ > 0 && evaluated_children() > 0;
    condemned_ = condemned_ || hopeless;
    const bool commits = found && (!hopeless || options_.fallback == rain_fallback::go_on);
    if (commits) commit(chosen(), hopeless);
    if (reason_ == stop_reason::none) reason_ = met_;
    return commits;
  }
  /// Ends a round that has seen enough.
  bool conclude() {
    if (tree_.at(0).children.empty()) {  // every set that there is was taken back before
      if (options_.fallback == rain_fallback::rewind) return take_back();
      reason_ = stop_reason::exhausted;
      return false;
    }
    const bool hopeless = is_hopeless();
    condemned_ = condemned_ || hopeless;
    if (hopeless) {
      switch (options_.fallback) {
        case rain_fallback::go_on: break;
        case rain_fallback::refuse: reason_ = stop_reason::refused; return false;
        case rain_fallback::best_so_far: return end_with_best();
        case rain_fallback::rewind: return take_back();
      }
    }
    commit(chosen(), hopeless);
    return true;
  }

  void begin_round() {
    simulations_ = 0;
    next_simulation_ = 0;
    now_ = 0;
    selected_ = false;
    ++round_;
    ++meter_.used.rounds;
  }

  std::vector<rain_child> root_table() const {
    std::vector<rain_child> table;
    for (const index_t c : tree_.at(0).children) {
      const rain_node& x = tree_.at(c);
      table.push_back({.tokens = x.tokens, .prior = x.prior, .visits = x.visits, .value = x.value, .evaluations = x.evaluations});
    }
    return table;
  }

  void commit(index_t child, bool hopeless) {
    std::optional<detail::timed> clock(std::in_place, meter_.used.tree_seconds);
    const rain_node& x = tree_.at(child);
    const std::vector<std::int32_t> tokens = x.tokens;
    const bool terminal = x.terminal;
    // The event is made before the tree changes, and told after.
    const std::vector<rain_child> table = options_.on_commit ? root_table() : std::vector<rain_child>{};
    std::vector<std::vector<std::int32_t>> sets;  // the table's tokens, which the commit releases
    for (const auto& c : table) sets.emplace_back(c.tokens.begin(), c.tokens.end());
    std::vector<rain_child> kept = table;
    for (std::size_t c = 0; c < kept.size(); ++c) kept[c].tokens = sets[c];
    const index_t place = static_cast<index_t>(std::ranges::find(tree_.at(0).children, child) - tree_.at(0).children.begin());
    std::vector<std::int32_t> text = text_;
    text.insert(text.end(), tokens.begin(), tokens.end());
    const stop_reason end = !terminal ? stop_reason::none : response_ends(response_in(text)) ? stop_reason::ended : stop_reason::length;
    committed_.reserve(committed_.size() + 1);
    const std::int64_t simulations = simulations_;
    kept_records records(*this);
    if (options_.reuse) {
      if (options_.keep_discarded) record_all_but(child);
      carry_ = tree_.commit(child);
    } else {
      rain_tree fresh(options_.tree);
      if (options_.keep_discarded) record_all_but(child);
      tree_ = std::move(fresh);
      carry_ = 0;
      first_depth_ = static_cast<index_t>(committed_.size()) + 1;
    }
    records.stay();  // nothing throws from here on, but the host
    text_.swap(text);
    committed_.push_back(tokens.size());
    begin_round();
    reason_ = end;
    clock.reset();
    if (options_.on_commit)
      options_.on_commit({.tokens = std::span(text_).last(tokens.size()), .response = response(), .children = kept, .chosen = place,
                          .simulations = simulations, .condemned = hopeless, .counters = meter_.used});
  }

  /// Takes back what led here, and never goes there again.
  bool take_back() {
    const std::size_t count = std::min(static_cast<std::size_t>(options_.rewind_commits), committed_.size());
    if (count == 0 || rewinds_ >= options_.max_rewinds) {
      reason_ = stop_reason::exhausted;
      return false;
    }
    const std::int64_t simulations = simulations_;
    std::size_t length = 0;
    for (std::size_t i = 0; i < count; ++i) length += committed_[committed_.size() - 1 - i];
    const std::size_t place = text_.size() - length, first = committed_[committed_.size() - count];
    const auto begins = text_.begin() + static_cast<std::ptrdiff_t>(place);
    auto banned = banned_;
    std::erase_if(banned, [&](const auto& b) { return b.place > place; });
    banned.push_back({place, {begins, begins + static_cast<std::ptrdiff_t>(first)}});
    rain_tree fresh(options_.tree);
    if (options_.keep_discarded) record_all_but(-1);
    // Nothing throws from here on, but the host.
    committed_.resize(committed_.size() - count);
    banned_.swap(banned);
    text_.resize(place);
    tree_ = std::move(fresh);
    carry_ = 0;
    first_depth_ = static_cast<index_t>(committed_.size());
    for (rain_record& r : records_) {  // the new tree begins below what stays committed
      r.committed = r.committed && r.depth <= first_depth_;
      if (r.committed) root_parent_ = std::max(root_parent_, r.id);
    }
    ++rewinds_;
    meter_.used.taken_back += static_cast<std::int64_t>(count);
    begin_round();
    if (options_.on_commit)
      options_.on_commit({.response = response(), .simulations = simulations, .condemned = true, .taken_back = static_cast<index_t>(count),
                          .counters = meter_.used});
    return true;
  }
  bool end_with_best() {
    if (!std::isnan(best_score_)) {
      const auto taken_back = static_cast<index_t>(committed_.size());
      std::vector<std::int32_t> text = prompt_;
      text.insert(text.end(), best_.begin(), best_.end());
      committed_.assign(1, best_.size());
      text_.swap(text);
      reason_ = stop_reason::condemned;
      if (options_.on_commit)
        options_.on_commit({.tokens = response(), .response = response(), .simulations = simulations_, .condemned = true, .taken_back = taken_back,
                            .counters = meter_.used});
    }
    reason_ = stop_reason::condemned;
    return false;
  }

  // Simulations.

  bool response_ends(std::span<const std::int32_t> response) const {
    if (options_.end_token_ends)
      for (const std::int32_t t : response)
        if (model_.is_end(t)) return true;
    return options_.stop && options_.stop(response);
  }
  bool is_terminal(std::span<const std::int32_t> response) const { return response.size() >= room_ || response_ends(response); }

  // Up to `width` leaves are under way at a time. Each call of the model takes all of them a token further; as soon as one is known, the tree is told
  // and another is selected in its place. What happens in which order follows a time of the search's own: a token a tick, as if there were sequences
  // for all. So neither the number of sequences nor a failure in between changes a result.

  /// The simulations of a round.
  void search() {
    while (true) {
      if (!selected_) select_leaves();
      // The round has seen enough; children that were still to be added are not missed.
      if (leaves_under_way() == 0 && std::ranges::none_of(under_way_, &visit::due)) break;
      for (visit& v : under_way_)
        if (v.text.empty()) whole(v, [&] { begin(v); });
      while (!time_passed()) step(under_way_);
      tell_known();
      selected_ = false;
    }
    under_way_.clear();
  }
  std::int64_t leaves_under_way() const {
    return static_cast<std::int64_t>(std::ranges::count_if(under_way_, [](const visit& v) { return !v.adds; }));
  }
  void select_leaves() {
    const std::int64_t before = leaves_under_way(), left = options_.limits.simulations - meter_.used.simulations;
    const std::int64_t most = enough() ? 0 : std::min({static_cast<std::int64_t>(options_.width), round_limit() - simulations_, left});
    if (before == 0 && left <= 0 && !enough()) throw detail::limit_reached{stop_reason::simulations};
    std::vector<visit> selected, added;
    undoing undo(*this);
    if (before < most) {
      const double asking = meter_.used.model_seconds;
      {
        const detail::timed clock(meter_.used.tree_seconds);
        typename rain_tree::pretence taken(tree_, options_.virtual_loss);
        closed_.assign(tree_.nodes().size(), 0);
        const auto take = [&](index_t leaf) {
          taken.add(leaf);
          close(leaf);
        };
        for (const visit& v : under_way_)
          if (!v.adds) take(v.leaf);
        for (std::int64_t leaves = before; leaves < most; ++leaves) {
          if (!selected.empty()) take(selected.back().leaf);
          if (closed_[0] != 0) break;
          visit v{.simulation = next_simulation_ + selected.size()};
          v.leaf = descend(v.simulation, added, undo.additions);
          selected.push_back(std::move(v));
        }
      }
      meter_.used.tree_seconds -= meter_.used.model_seconds - asking;  // an addition asks the model
    }
    const std::size_t leaves = selected.size();
    selected.insert(selected.end(), std::make_move_iterator(added.begin()), std::make_move_iterator(added.end()));
    for (visit& v : selected) v.selected_at = now_;
    under_way_.reserve(under_way_.size() + selected.size());  // nothing throws from here on
    under_way_.insert(under_way_.end(), std::make_move_iterator(selected.begin()), std::make_move_iterator(selected.end()));
    undo.additions.clear();
    next_simulation_ += leaves;
    selected_ = true;
  }
  /// Where a leaf is not found after all, the children that were added on the way to it go again.
  struct undoing {
    rain_search& search;
    std::vector<std::pair<index_t, bool>> additions{};  ///< parents, and whether there is a child
    explicit undoing(rain_search& s) : search(s) {}
    ~undoing() {
      for (auto it = additions.rbegin(); it != additions.rend(); ++it) {
        if (it->second) {
          search.tree_.undo_add(it->first);
          --search.meter_.used.added;
        } else {
          search.tree_.count_failed_addition(it->first, -1);
        }
      }
    }
    undoing(const undoing&) = delete;
    undoing& operator=(const undoing&) = delete;
  };
  /// Goes to the time when the next visits are complete; false: that is not known yet.
  bool time_passed() {
    if (std::ranges::any_of(under_way_, &visit::due)) return std::ranges::all_of(under_way_, [](const visit& v) { return !v.due || v.complete; });
    constexpr auto never = std::numeric_limits<std::int64_t>::max();
    std::int64_t next = never, others = never;
    for (const visit& v : under_way_) {
      if (v.complete && !v.known) next = std::min(next, v.time);
      if (!v.complete) others = std::min(others, v.earliest());
    }
    if (next == never || next >= others) return false;
    now_ = std::max(now_, next);
    for (visit& v : under_way_) v.known = v.known || (v.complete && v.time <= now_);
    return true;
  }
  /// The judge sees what is known, and the tree is told.
  void tell_known() {
    if (std::ranges::none_of(under_way_, &visit::due)) {
      const auto known = std::ranges::count_if(under_way_, [](const visit& v) { return v.known && !v.adds; });
      const bool asks = known >= options_.judge_batch || known == leaves_under_way();
      for (visit& v : under_way_) v.due = v.known && (v.adds || asks);
    }
    std::vector<visit*> seen;
    for (visit& v : under_way_)
      if (v.due && !v.adds) seen.push_back(&v);
    if (!seen.empty()) {
      judge(seen);
      if constexpr (embeds)
        for (visit* v : seen) embed(*v);
    }
    const detail::timed clock(meter_.used.tree_seconds);
    for (visit* v : seen) {
      whole(*v, [&] { tell(*v); });
      v->told = true;
    }
    for (visit& v : under_way_)
      if (v.due && v.adds) {
        add_drawn(v);
        v.told = true;
      }
    std::erase_if(under_way_, [](const visit& v) { return v.told; });
  }
  /// `change()` of a visit, which is torn where it throws.
  template <class F>
  static void whole(visit& v, const F& change) {
    v.torn = true;
    change();
    v.torn = false;
  }
  /// After something has thrown: what was torn begins again, all else goes on from where it was.
  void keep_whole() {
    std::erase_if(under_way_, [](const visit& v) { return v.told; });
    for (visit& v : under_way_)
      if (v.torn) v = visit{.leaf = v.leaf, .simulation = v.simulation, .adds = v.adds, .due = v.due, .selected_at = v.selected_at};
  }

  std::vector<std::int32_t> text_of(index_t node) const {
    std::vector<index_t> way;
    for (index_t i = node; i > 0; i = tree_.at(i).parent) way.push_back(i);
    std::vector<std::int32_t> text = text_;
    for (auto it = way.rbegin(); it != way.rend(); ++it) text.insert(text.end(), tree_.at(*it).tokens.begin(), tree_.at(*it).tokens.end());
    return text;
  }
  std::span<const std::int32_t> response_in(std::span<const std::int32_t> text) const { return text.subspan(prompt_tokens_); }

  /// Alone, a child is added before the search goes on below its parent; of leaves side by side the additions are drawn with everything else.
  index_t descend(std::uint64_t simulation, std::vector<visit>& later, std::vector<std::pair<index_t, bool>>& additions) {
    index_t i = 0;
    while (!tree_.at(i).children.empty()) {
      const std::size_t length = set_length(tree_.at(i).depth);
      if (options_.add_children && tree_.at(i).failed_additions < options_.addition_tries &&
          tree_.wants_child(i, static_cast<std::int64_t>(length), embeds)) {
        if (options_.width > 1) {
          const auto is_here = [i](const visit& v) { return v.adds && v.leaf == i; };
          if (std::ranges::none_of(later, is_here) && std::ranges::none_of(under_way_, is_here))
            later.push_back({.leaf = i, .simulation = simulation, .adds = true});
        } else {
          additions.reserve(additions.size() + 1);  // what is added is noted for certain
          additions.emplace_back(i, add_child(i, simulation));
        }
      }
      i = tree_.best_scored(i, [&](index_t c) { return static_cast<std::size_t>(c) >= closed_.size() || closed_[static_cast<std::size_t>(c)] == 0; });
    }
    return i;
  }
  /// The leaf is under way; nodes below which nothing else is left are closed as well, so that no leaf is taken twice.
  void close(index_t leaf) {
    closed_.resize(tree_.nodes().size());  // children may have been added
    const auto is_closed = [&](index_t c) { return closed_[static_cast<std::size_t>(c)] != 0; };
    for (index_t i = leaf; i >= 0; i = tree_.at(i).parent) {
      if (!std::ranges::all_of(tree_.at(i).children, is_closed)) return;
      closed_[static_cast<std::size_t>(i)] = 1;
    }
  }
  void require_room(std::int64_t nodes, std::int64_t tokens) const {
    if (nodes > options_.limits.nodes - static_cast<std::int64_t>(tree_.nodes().size())) throw detail::limit_reached{stop_reason::nodes};
    constexpr std::int64_t each = sizeof(rain_node) + 2 * sizeof(index_t) + 5 * 16;
    const std::int64_t bytes = nodes * each + tokens * 4 + static_cast<std::int64_t>(support_size() * static_cast<index_t>(sizeof(ranked_token)));
    if (bytes > options_.limits.bytes - this->bytes()) throw detail::limit_reached{stop_reason::bytes};
  }
  /// One more child where the others are alike and bad: the next likeliest token, or one more draw. False: it was there already.
  bool add_child(index_t parent, std::uint64_t simulation) {
    visit v{.leaf = parent, .simulation = simulation, .adds = true};
    begin(v);
    while (!v.complete) step({&v, 1});
    return add_drawn(v);
  }
  bool add_drawn(const visit& v) {
    const index_t parent = v.leaf;
    if (v.sets.empty() || has_child(parent, v.sets[0])) {
      tree_.count_failed_addition(parent);
      return false;
    }
    const auto& set = v.sets[0];
    require_room(1, static_cast<std::int64_t>(set.size()));
    std::vector<double> probabilities{v.probabilities[0]};
    for (const index_t c : tree_.at(parent).children) probabilities.push_back(tree_.at(c).probability);
    std::vector<std::int32_t> text = v.text;
    text.insert(text.end(), set.begin(), set.end());
    const bool terminal = is_terminal(response_in(text));
    const index_t child = tree_.add(parent, set, probabilities);
    if (terminal) tree_.mark_terminal(child);
    ++meter_.used.added;
    note_size();
    return true;
  }
  bool has_child(index_t parent, std::span<const std::int32_t> set) const {
    return std::ranges::any_of(tree_.at(parent).children, [&](index_t c) { return std::ranges::equal(tree_.at(c).tokens, set); });
  }
  bool is_banned(index_t parent, std::span<const std::int32_t> set) const {
    return parent == 0 && std::ranges::any_of(banned_, [&](const auto& b) { return b.place == text_.size() && std::ranges::equal(b.set, set); });
  }

  // What the model writes: rollouts and candidate sets, all of them side by side.

  /// What is to be known before the model is asked.
  void begin(visit& v) {
    v.time = v.selected_at;
    v.text = text_of(v.leaf);
    if (v.adds) {
      begin_addition(v);
    } else if (tree_.at(v.leaf).terminal) {
      v.read = v.complete = true;
      v.finished = response_ends(response_in(v.text));
      v.judged.assign(v.text.begin() + static_cast<std::ptrdiff_t>(prompt_tokens_), v.text.end());
    } else {
      v.rolls = wants_rollout(v);
    }
  }
  void begin_addition(visit& v) {
    const rain_node& parent = tree_.at(v.leaf);
    const std::size_t length = set_length(v.leaf, v.text);
    v.support = parent.support;
    v.read = true;
    if (length > 1) {
      begin_lane(v, (std::uint64_t{1} << 32) + static_cast<std::uint64_t>(parent.depth + first_depth_), length);
    } else {
      for (const ranked_token& r : v.support)
        if (v.sets.empty() && r.weight > 0 && !has_child(v.leaf, {&r.token, 1}) && !is_banned(v.leaf, {&r.token, 1})) {
          v.sets.push_back({r.token});
          v.probabilities.push_back(r.weight);
        }
    }
    take_written(v);
  }
  /// The lanes of a leaf that was read; `first`: the token that its rollout begins with.
  void begin_lanes(visit& v, std::int32_t first) {
    v.read = true;
    ++v.time;
    if (v.rolls) {
      const std::size_t left = room_ - (v.text.size() - prompt_tokens_);
      v.lanes.push_back({.number = 0, .length = std::min(left, static_cast<std::size_t>(options_.max_rollout_tokens)), .text = v.text});
      write_token(v, v.lanes.back(), first);
    }
    const std::size_t length = set_length(v.leaf, v.text);
    if (length == 1) {
      one_token_sets(v);
      v.drawn = options_.draws;  // those are not drawn
    } else {
      begin_lane(v, 1, length);
      draw_more(v, options_.candidates - 1);
    }
    take_written(v);
  }
  void draw_more(visit& v, index_t count) {
    const std::size_t length = set_length(v.leaf, v.text);
    for (const index_t end = std::min(v.drawn + count, options_.draws); v.drawn < end; ++v.drawn)
      begin_lane(v, 2 + static_cast<std::uint64_t>(v.drawn), length);
  }
  /// A candidate with its first token, which the leaf's logits give.
  void begin_lane(visit& v, std::uint64_t number, std::size_t length) {
    v.lanes.push_back({.number = number, .length = length, .text = v.text});
    lane& l = v.lanes.back();
    const auto drawn = draw_candidate(v, l, v.support);
    l.probability = drawn.probability;
    write_token(v, l, drawn.token);
  }
  void write_token(const visit& v, lane& l, std::int32_t token) {
    l.text.push_back(token);
    try {
      l.complete = is_complete(v, l);
    } catch (...) {  // it is written again
      l.text.pop_back();
      throw;
    }
  }
  bool is_complete(const visit& v, const lane& l) const {
    if (l.text.size() - v.text.size() >= l.length) return true;
    if (l.number != 0) return options_.sets_end && model_.is_end(l.text.back());
    const auto response = response_in(l.text);
    return rollout_ends(response) || (options_.boundary && options_.boundary(response));
  }
  /// Takes what all lanes have written, once they have; where the sets are too few for it, more are drawn.
  void take_written(visit& v) {
    while (std::ranges::all_of(v.lanes, [](const lane& l) { return l.complete; })) {
      std::int64_t longest = 0;
      for (; v.taken < v.lanes.size(); ++v.taken) {
        const lane& l = v.lanes[v.taken];
        longest = std::max(longest, v.written(l) - 1);
        if (l.number == 0) v.judged.assign(l.text.begin() + static_cast<std::ptrdiff_t>(prompt_tokens_), l.text.end());
        else take_set(v, l);
      }
      v.time += longest;
      const index_t missing = options_.candidates - static_cast<index_t>(v.sets.size());
      if (v.adds || missing <= 0 || v.drawn >= options_.draws) {
        v.complete = true;
        break;
      }
      draw_more(v, missing);
    }
    if (!v.complete || v.adds) return;
    if (v.judged.empty()) v.judged.assign(v.text.begin() + static_cast<std::ptrdiff_t>(prompt_tokens_), v.text.end());
    v.finished = rollout_ends(v.judged);
    finish_sets(v);
  }
  /// One call of the model for all that are not complete, or as many as there are sequences for: each lane that has begun keeps its own to its end.
  /// Where the model throws, what it was asked for stays to be asked.
  void step(std::span<visit> visits) {
    struct asked {
      visit* v;
      lane* l;  ///< none: the leaf is read
    };
    std::vector<asked> all;
    std::vector<text_request> requests;
    const auto leaves = static_cast<std::size_t>(options_.width), budget = static_cast<std::size_t>(cache_.budget());
    std::size_t free = budget > leaves + 1 ? budget - leaves : std::max<std::size_t>(1, budget / 2);
    for (visit& v : visits) {
      if (!v.read) {
        all.push_back({&v, nullptr});
        requests.push_back({.text = v.text});
      }
      for (lane& l : v.lanes)
        if (!l.complete && free > 0) {
          --free;
          all.push_back({&v, &l});
          requests.push_back({.text = l.text, .from = l.from});
        }
    }
    // Callbacks see the tokens when the logits are no longer needed: they may ask the model.
    std::vector<std::optional<detail::chosen_token>> tokens(all.size());
    std::exception_ptr thrown;
    try {
      cache_.next(std::span(requests), meter_, [&](std::size_t r, std::span<const float> logits) {
        visit& v = *all[r].v;
        if (lane* l = all[r].l) {
          tokens[r] = draw(v, *l, logits);
        } else {
          detail::likeliest(logits, options_.candidate_temperature, support_size(), v.support);
          tokens[r] = v.rolls ? draw_rollout(v, 0, logits) : detail::chosen_token{};
        }
      });
    } catch (...) {  // what the model did before is kept
      thrown = std::current_exception();
    }
    const auto attempt = [&](const auto& change) {  // what throws for one of them does not hold up the others
      try {
        change();
      } catch (...) {
        if (!thrown) thrown = std::current_exception();
      }
    };
    for (std::size_t r = 0; r < all.size(); ++r) {
      if (!tokens[r]) continue;
      visit& v = *all[r].v;
      lane* const l = all[r].l;
      attempt([&] {
        if (l == nullptr) {
          whole(v, [&] { begin_lanes(v, tokens[r]->token); });
        } else {
          l->from = requests[r].from;
          write_token(v, *l, tokens[r]->token);
          l->probability *= tokens[r]->probability;
        }
      });
    }
    for (const asked& a : all)
      if (a.v->read && !a.v->complete && !a.v->torn) attempt([&] { whole(*a.v, [&] { take_written(*a.v); }); });
    if (thrown) std::rethrow_exception(thrown);
  }
  bool wants_rollout(const visit& v) const {
    if (!options_.rollout || options_.max_rollout_tokens == 0) return false;
    const auto response = response_in(v.text);
    return !(options_.boundary && options_.boundary(response)) && !rollout_ends(response);
  }
  /// A rollout stops at the end token, whatever a set does there.
  bool rollout_ends(std::span<const std::int32_t> response) const {
    return (!response.empty() && model_.is_end(response.back())) || (options_.stop && options_.stop(response));
  }
  detail::chosen_token draw_rollout(const visit& v, std::uint64_t t, std::span<const float> logits) {
    const double u = rain_uniform(options_.seed, round_, v.simulation, 0, t);
    const view<const float, 1> all(logits.data(), static_cast<index_t>(logits.size()));
    return {draw_token(all, options_.rollout_temperature, 1.0, u, weights_).token, 1};
  }
  detail::chosen_token draw_candidate(const visit& v, const lane& l, std::span<const ranked_token> ranked) const {
    const std::uint64_t number = l.number >= (std::uint64_t{1} << 32) ? l.number : l.number - 1, t = l.text.size() - v.text.size();
    const double u = l.number == 1 ? 0 : rain_uniform(options_.seed, round_, v.simulation, number, t);
    return detail::draw_ranked(ranked, options_.top_k, u);
  }
  detail::chosen_token draw(const visit& v, const lane& l, std::span<const float> logits) {
    if (l.number == 0) return draw_rollout(v, l.text.size() - v.text.size(), logits);
    detail::likeliest(logits, options_.candidate_temperature, options_.top_k, ranked_);
    return draw_candidate(v, l, ranked_);
  }
  void one_token_sets(visit& v) const {
    for (const ranked_token& r : v.support) {
      if (static_cast<index_t>(v.sets.size()) == options_.candidates) break;
      if (is_banned(v.leaf, {&r.token, 1}) || !(r.weight > 0)) continue;
      v.sets.push_back({r.token});
      v.probabilities.push_back(r.weight);
    }
  }
  void take_set(visit& v, const lane& l) const {
    if (static_cast<index_t>(v.sets.size()) >= options_.candidates) return;
    std::vector<std::int32_t> set(l.text.begin() + static_cast<std::ptrdiff_t>(v.text.size()), l.text.end());
    if (is_banned(v.leaf, set) || std::ranges::find(v.sets, set) != v.sets.end()) return;
    v.greedy_first = v.greedy_first || l.number == 1;
    v.sets.push_back(std::move(set));
    v.probabilities.push_back(l.probability);
  }
  /// The greedy set, the first, is given a probability that puts it first whatever the draws are.
  void finish_sets(visit& v) const {
    if (v.sets.size() < 2 || !v.greedy_first) return;
    auto& p = v.probabilities;
    double sum = 0, least = p[1], greatest = p[1];
    for (std::size_t c = 1; c < p.size(); ++c) sum += p[c], least = std::min(least, p[c]), greatest = std::max(greatest, p[c]);
    p[0] = std::max(std::min(p[0], sum), greatest + least);
  }

  // What the judge and the embedder say.

  std::span<const std::int32_t> shown(const visit& v) const {
    const std::span<const std::int32_t> response(v.judged);
    if (!options_.shown) return response;
    const std::size_t n = options_.shown(response);
    if (n > response.size()) fail(message(op) << "`shown` asks for " << n << " tokens of a response of " << response.size() << ".");
    return response.first(n);
  }
  void judge(std::span<visit* const> visits) {
    std::vector<typename detail::judging<E>::text> texts;
    for (const visit* v : visits) texts.push_back({.response = shown(*v), .finished = v->finished});
    if (options_.remembered_scores > 0 && options_.limits.bytes < search_limits::none) {  // what is remembered of them
      std::int64_t tokens = 0;
      for (const auto& t : texts) tokens += static_cast<std::int64_t>(t.response.size()) + 48;
      require_room(0, tokens);
    }
    std::vector<double> scores;
    judging_(std::span<const typename detail::judging<E>::text>(texts), scores, [&](std::size_t i) {
      return "a response of " + std::to_string(texts[i].response.size()) + " tokens";
    });
    for (std::size_t i = 0; i < visits.size(); ++i) visits[i]->score = scores[i];
  }

  /// Of each node of the way, leaf first: its own tokens and all that follows, to the end of what was judged; unit vectors.
  void embed(visit& v) {
    const detail::timed clock(meter_.used.embed_seconds);
    v.embeddings.clear();
    const auto dimension = static_cast<std::size_t>(embedder_->dimension());
    if (dimension == 0) fail(message(op) << "the embedder says that its vectors have no dimension.");
    if (dimension_ != 0 && dimension != dimension_)
      fail(message(op) << "the embedder says that its vectors have " << dimension << " numbers, but before it was " << dimension_ << ".");
    dimension_ = dimension;
    std::vector<float> out(dimension);
    std::size_t from = v.text.size() - prompt_tokens_;
    for (index_t i = v.leaf; i > 0; i = tree_.at(i).parent) {
      from -= tree_.at(i).tokens.size();
      std::ranges::fill(out, 0.0f);
      (*embedder_)(std::span<const std::int32_t>(v.judged).subspan(from), std::span<float>(out));
      ++meter_.used.embeddings;
      double squares = 0;
      for (const float x : out) squares += static_cast<double>(x) * static_cast<double>(x);
      if (!(squares > 0 && squares <= std::numeric_limits<double>::max()))
        fail(message(op) << "the embedding of a text of " << v.judged.size() - from << " tokens has norm " << std::sqrt(squares)
                         << ", but it has to be finite and not 0.");
      for (const float x : out) v.embeddings.push_back(static_cast<double>(x) / std::sqrt(squares));
    }
  }

  /// The simulation enters the tree.
  void tell(visit& v) {
    const bool expands = !tree_.at(v.leaf).terminal && tree_.at(v.leaf).children.empty() && !v.sets.empty();
    std::vector<std::uint8_t> terminal;
    if (expands) {
      std::int64_t tokens = 0;
      std::vector<std::int32_t> text = v.text;
      for (const auto& set : v.sets) {
        tokens += static_cast<std::int64_t>(set.size());
        text.resize(v.text.size());
        text.insert(text.end(), set.begin(), set.end());
        terminal.push_back(is_terminal(response_in(text)));
      }
      require_room(static_cast<std::int64_t>(v.sets.size()), tokens + 2 * static_cast<std::int64_t>(v.embeddings.size()));
    } else if (embeds && tree_.at(v.leaf).evaluations == 0) {
      require_room(0, 2 * static_cast<std::int64_t>(v.embeddings.size()) + 4);  // its embedding
    }
    // Of equals the longer one: the first that a judge likes is mostly the beginning of many.
    const bool is_best = !(best_score_ >= v.score) || (best_score_ == v.score && v.judged.size() > best_.size());
    const auto depth = tree_depth(v.leaf);
    const index_t width = depth == 0 ? 0 : static_cast<index_t>(v.embeddings.size()) / depth;
    if (expands) {
      const index_t child = tree_.expand(v.leaf, v.sets, v.probabilities);
      for (std::size_t c = 0; c < terminal.size(); ++c)
        if (terminal[c]) tree_.mark_terminal(child + static_cast<index_t>(c));
      if (options_.add_children) tree_.remember_support(v.leaf, std::move(v.support));
    }
    try {
      tree_.backup(v.leaf, v.score, embeds ? view<const double, 2>(v.embeddings.data(), depth, width) : view<const double, 2>());
    } catch (...) {  // no memory: no half of a simulation stays
      if (expands) tree_.undo_expand(v.leaf);
      throw;
    }
    if (is_best) {
      best_.swap(v.judged);
      best_score_ = v.score;
    }
    ++simulations_;
    ++meter_.used.simulations;
    meter_.used.most_depth = std::max(meter_.used.most_depth, static_cast<std::int64_t>(committed_.size()) + depth);
    note_size();
  }
  index_t tree_depth(index_t node) const {
    index_t depth = 0;
    for (index_t i = node; i > 0; i = tree_.at(i).parent) ++depth;
    return depth;
  }
  void note_size() {
    meter_.used.most_nodes = std::max(meter_.used.most_nodes, static_cast<std::int64_t>(tree_.nodes().size()));
    meter_.used.most_bytes = std::max(meter_.used.most_bytes, bytes());
  }

  // What is kept for people.

  rain_record record_of(index_t i, bool committed) const {
    const rain_node& x = tree_.at(i);
    return {.id = x.id + first_id_, .parent = x.parent < 0 ? root_parent_ : tree_.at(x.parent).id + first_id_, .depth = x.depth + first_depth_,
            .round = static_cast<index_t>(round_), .tokens = x.tokens, .prior = x.prior, .visits = x.visits, .value = x.value,
            .evaluations = x.evaluations, .terminal = x.terminal,
            .committed = committed};
  }
  /// Keeps the nodes that the commit of `child` releases; -1: all.
  void record_all_but(index_t child) {
    const std::size_t count = tree_.nodes().size();
    std::vector<std::uint8_t> stays(count, 0);
    std::vector<rain_record> more;
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const rain_node& x = tree_.nodes()[i];
      const bool top = static_cast<index_t>(i) == child;
      stays[i] = top || (x.parent >= 0 && stays[static_cast<std::size_t>(x.parent)]);
      if (stays[i] && options_.reuse) continue;
      more.push_back(record_of(static_cast<index_t>(i), child >= 0 && (i == 0 || top)));
      bytes += static_cast<std::int64_t>(sizeof(rain_record) + 4 * x.tokens.size() + 16);
    }
    const std::int64_t parent = child < 0 ? -1 : tree_.at(child).id + first_id_;
    records_.reserve(records_.size() + more.size());
    records_.insert(records_.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
    record_bytes_ += bytes;
    if (child >= 0 && options_.reuse) {
      root_parent_ = tree_.at(0).id + first_id_;
    } else {  // the next tree is another, below what was committed
      first_id_ += tree_.next_id();
      root_parent_ = parent;
    }
  }

  /// Unless they stay, what was recorded since goes again.
  class kept_records {
   public:
    explicit kept_records(rain_search& s)
        : search_(s), count_(s.records_.size()), bytes_(s.record_bytes_), first_id_(s.first_id_), root_parent_(s.root_parent_) {}
    ~kept_records() {
      if (stay_) return;
      search_.records_.erase(search_.records_.begin() + static_cast<std::ptrdiff_t>(count_), search_.records_.end());
      search_.record_bytes_ = bytes_;
      search_.first_id_ = first_id_;
      search_.root_parent_ = root_parent_;
    }
    kept_records(const kept_records&) = delete;
    kept_records& operator=(const kept_records&) = delete;
    void stay() { stay_ = true; }

   private:
    rain_search& search_;
    std::size_t count_;
    std::int64_t bytes_, first_id_, root_parent_;
    bool stay_ = false;
  };
  /// As long as the model, the judge and callbacks may be asked.
  struct searching {
    rain_search& search;
    explicit searching(rain_search& s) : search(s) { search.searching_ = true; }
    ~searching() { search.searching_ = false; }
    searching(const searching&) = delete;
    searching& operator=(const searching&) = delete;
  };

  struct banned_set {
    std::size_t place;  ///< tokens before it
    std::vector<std::int32_t> set;
  };

  M& model_;
  [[maybe_unused]] Embedder* embedder_;
  rain_options options_;
  rain_tree tree_;
  prefix_cache<M> cache_;
  detail::meter meter_;
  std::vector<std::int32_t> prompt_;
  detail::judging<E> judging_;
  std::vector<std::int32_t> text_;  ///< prompt and what is committed
  std::size_t prompt_tokens_, room_ = 0;
  std::vector<std::size_t> committed_{};  ///< lengths of the sets
  std::vector<banned_set> banned_{};
  std::int64_t carry_ = 0, simulations_ = 0;  ///< of this round
  index_t first_depth_ = 0, rewinds_ = 0;     ///< depth of the tree's first root
  std::uint64_t round_ = 0;
  std::vector<visit> under_way_{};
  std::uint64_t next_simulation_ = 0;  ///< of this round
  std::int64_t now_ = 0;               ///< of this round: how many tokens one after the other the model would have read
  bool selected_ = false;              ///< nothing is to be selected before the tree is told something new
  stop_reason reason_ = stop_reason::none;
  stop_reason met_ = stop_reason::none;  ///< the limit at which the last round ends
  bool searching_ = false;
  bool condemned_ = false;
  std::vector<std::int32_t> best_{};
  double best_score_ = std::numeric_limits<double>::quiet_NaN();
  std::vector<rain_record> records_{};
  std::int64_t record_bytes_ = 0, first_id_ = 0, root_parent_ = -1;
  std::vector<double> weights_{};        // kept between calls
  std::vector<ranked_token> ranked_{};
  std::size_t dimension_ = 0;  ///< of embeddings; 0: not known
  std::vector<std::uint8_t> closed_{};  ///< nodes below which every leaf is under way
};

/// Searches a reply to `prompt` that `judge` likes, with a model whose weights stay as they are. Ends with the reply, or with what it has where a
/// limit is reached: `rain_result::reason` says which. What throws passes through; use `rain_search` to keep what was committed before.
template <language_model M, any_evaluator E>
rain_result rain(M& model, E& judge, std::span<const std::int32_t> prompt, const rain_options& options = {}) {
  rain_search<M, E> search(model, judge, prompt, options);
  while (search.round()) {
  }
  return search.result();
}
/// With an embedder: similar siblings share what is learned of one of them.
template <language_model M, any_evaluator E, embedder Embedder>
rain_result rain(M& model, E& judge, std::span<const std::int32_t> prompt, const rain_options& options, Embedder& embedder) {
  rain_search<M, E, Embedder> search(model, judge, prompt, options, embedder);
  while (search.round()) {
  }
  return search.result();
}
/// What is no language model, no judge or no embedder is told what it lacks.
rain_result rain(detail::any_model, detail::any_judge, std::span<const std::int32_t> prompt, const rain_options& = {});
rain_result rain(detail::any_model, detail::any_judge, std::span<const std::int32_t> prompt, const rain_options&, detail::any_embedder);

PLUMB_NAMESPACE_END

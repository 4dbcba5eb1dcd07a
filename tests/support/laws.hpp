#pragma once
// Laws of objectives over sequences, tried on random layouts: what an objective is to the laws, and the laws.

#include "support/gradients.hpp"

#include <plumb/core/layout.hpp>
#include <plumb/testing/memory.hpp>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>

namespace plumb_test::laws {

/// Arrays of one number per token `[N]` and per sequence `[S]`, and where the sequences lie. Neighbours that belong together are a unit: pairs
/// (chosen, rejected), the replies to a prompt.
struct batch {
  std::vector<std::vector<double>> tokens, per_sequence;
  std::vector<std::int32_t> begin, end;
  std::vector<std::uint8_t> scored;
  std::vector<std::size_t> sizes;  ///< sequences of each unit

  std::size_t sequences() const { return begin.size(); }
  std::size_t length() const { return scored.size(); }
  std::size_t first_of(std::size_t unit) const {
    return std::accumulate(sizes.begin(), sizes.begin() + static_cast<std::ptrdiff_t>(unit), std::size_t{0});
  }
  std::size_t unit_of(std::size_t sequence) const {
    std::size_t u = 0;
    for (std::size_t after = sizes[0]; after <= sequence; after += sizes[++u]) {}
    return u;
  }
  /// The sequence that token `t` counts in, or how many there are.
  std::size_t owner(std::size_t t) const {
    std::size_t s = 0;
    while (s < sequences() && !(static_cast<std::size_t>(begin[s]) <= t && t < static_cast<std::size_t>(end[s]) && scored[t] != 0)) ++s;
    return s;
  }
  bool counts(std::size_t t) const { return owner(t) < sequences(); }
  bool has_tokens(std::size_t s) const {
    return std::any_of(scored.begin() + begin[s], scored.begin() + end[s], [](std::uint8_t x) { return x != 0; });
  }
};

/// What came out, as numbers.
struct answer {
  double loss = 0;
  std::vector<std::vector<double>> d_tokens, d_per_sequence;  ///< gradients, or whatever is made of each, `[N]` or `[S]`
  std::vector<double> shared;                                 ///< gradients of what all sequences share
  std::vector<double> metrics;                                ///< `[K, 2]`: sum and count
};
using run = std::function<answer(const batch&, double denominator, const answer& into)>;

/// Laws that have no meaning for some objectives.
enum class law {
  parts,      ///< a batch in parts adds up; of what gives no loss: units have nothing to do with one another
  nothing,    ///< a sequence without scored tokens adds nothing
  reference,  ///< a policy that is its reference, to the bit
  exchange,   ///< two sides exchanged
  extremes,   ///< finite in float at log-ratios or gaps of +-1e4
};

/// An objective under the laws.
struct subject {
  std::string name{};
  std::size_t unit = 1;
  std::vector<double (*)(double)> tokens{};        ///< one per array: a standard normal number made into a possible one
  std::vector<double (*)(double)> per_sequence{};  ///< likewise
  /// `denominator`: whatever of the whole batch the loss is divided by; `into`: added to, when not empty.
  run of_double{}, of_float{};
  std::map<law, std::string> lacks{};  ///< laws that have no meaning here, and why

  bool has_loss = true;     ///< no: numbers are made of numbers, each call for itself
  bool ragged = false;      ///< units have 1 to `unit` sequences
  bool any_order = false;   ///< the sequences of a unit may change places
  bool leaves_out = false;  ///< a sequence without scored tokens is out with its numbers: they may be NaN, and it gets 0
  bool zero_elsewhere = true;               ///< tokens that do not count get 0
  bool all_enter = true;                    ///< every scored token enters the loss
  std::vector<std::size_t> outside_loss{};  ///< arrays per token that only metrics look at
  std::vector<std::size_t> choices{}, sequence_choices{};    ///< arrays of ids or yes and no, which cannot be NaN
  std::size_t masks = 0;                                     ///< the first `d_tokens` are yes and no, which cannot say NaN
  std::vector<std::pair<std::size_t, std::size_t>> references{};  ///< arrays per token: the policy's, its reference's
  std::vector<std::pair<std::size_t, std::size_t>> sequence_references{};  ///< arrays per sequence, likewise
  bool metrics_of_ratios = false;  ///< the metrics too are those of any policy that is its reference
  std::function<void(const run&, const batch&, const answer&, double tolerance)> exchange{};  ///< checks it, with a denominator of 7
  std::vector<std::size_t> given_metrics{};     ///< rows of `metrics` that are numbers given, not of the sequences
  std::vector<std::size_t> infinite_metrics{};  ///< rows of `metrics` that are truly infinite at extremes
};
constexpr double denominator = 7;

/// The batch and the answer in the precision of one call.
template <class T>
struct call {
  plumb::serial::backend<T> compute{};
  std::vector<char> memory = std::vector<char>(std::size_t{1} << 16);
  plumb::arena<> scratch{memory};
  std::vector<std::vector<T>> tokens, per_sequence;
  plumb::sequence_layout<> layout;
  std::vector<std::uint8_t> valid;                   ///< `[N]`, which tokens count: for items that stand for themselves
  std::vector<std::int32_t> first, second;           ///< of each unit of 2
  std::vector<std::int32_t> group_begin, group_end;  ///< of each unit
  std::vector<std::uint8_t> members;                 ///< `[S]`, which sequences have scored tokens
  double denominator;
  T loss{};
  std::vector<std::vector<T>> d_tokens, d_per_sequence;
  std::vector<T> shared, metrics;
  plumb::write_mode mode;

  plumb::preference_pairs<> pairs() const { return {layout, first, second}; }
  plumb::sequence_layout<> groups() const { return {group_begin, group_end, members}; }
  plumb::view<T, 2> metrics_of(std::size_t names) {
    metrics.resize(2 * names);
    return {metrics.data(), static_cast<plumb::index_t>(names), 2};
  }
  /// `count` arrays from `from` on as the columns of a table, and back.
  static std::vector<T> table(const std::vector<std::vector<T>>& arrays, std::size_t from, std::size_t count) {
    std::vector<T> t;
    for (std::size_t i = 0; i < arrays[from].size(); ++i)
      for (std::size_t a = 0; a < count; ++a) t.push_back(arrays[from + a][i]);
    return t;
  }
  static void untable(const std::vector<T>& t, std::vector<std::vector<T>>& arrays, std::size_t from, std::size_t count) {
    for (std::size_t i = 0; i < t.size(); ++i) arrays[from + i % count][i / count] = t[i];
  }
};

/// How many arrays there are in an answer.
struct made {
  std::size_t tokens = 0, per_sequence = 0, shared = 0;
};

/// `f(call)`: fills loss, gradients and metrics.
template <class T, class F>
run caller(F f, made out) {
  return [=](const batch& b, double over, const answer& into) {
    const auto cast = [](const std::vector<std::vector<double>>& from) {
      std::vector<std::vector<T>> to;
      for (const auto& x : from) {
        to.emplace_back();
        for (const double e : x) to.back().push_back(static_cast<T>(e));
      }
      return to;
    };
    const bool adds = !into.d_tokens.empty() || !into.d_per_sequence.empty();
    call<T> c{.tokens = cast(b.tokens), .per_sequence = cast(b.per_sequence), .layout = {b.begin, b.end, b.scored}, .valid = {}, .first = {},
              .second = {}, .group_begin = {}, .group_end = {}, .members = {}, .denominator = over, .loss = static_cast<T>(into.loss),
              .d_tokens = cast(into.d_tokens), .d_per_sequence = {}, .shared = cast({into.shared})[0], .metrics = {},
              .mode = adds ? plumb::write_mode::add : plumb::write_mode::overwrite};
    for (std::size_t t = 0; t < b.length(); ++t) c.valid.push_back(b.counts(t));
    for (std::size_t s = 0; s < b.sequences(); ++s) c.members.push_back(b.has_tokens(s));
    std::int32_t at = 0;
    for (const std::size_t size : b.sizes) {
      c.first.push_back(at);
      c.second.push_back(at + 1);
      c.group_begin.push_back(at);
      c.group_end.push_back(at += static_cast<std::int32_t>(size));
    }
    // Gradients of sequences are added to a half, which is taken off again: a part has no place for those of others.
    c.d_tokens.resize(out.tokens);
    for (auto& d : c.d_tokens) d.resize(b.length());
    c.d_per_sequence.resize(out.per_sequence);
    for (auto& d : c.d_per_sequence) d.resize(b.sequences(), adds ? T(0.5) : T(0));
    c.shared.resize(out.shared);
    f(c);
    answer a{static_cast<double>(c.loss), {}, {}, {c.shared.begin(), c.shared.end()}, {c.metrics.begin(), c.metrics.end()}};
    for (const auto& d : c.d_tokens) a.d_tokens.emplace_back(d.begin(), d.end());
    for (const auto& d : c.d_per_sequence) {
      a.d_per_sequence.emplace_back();
      for (const T e : d) a.d_per_sequence.back().push_back(static_cast<double>(adds ? e - T(0.5) : e));
    }
    return a;
  };
}
/// Both precisions of `f`.
template <class F>
void runs(subject& s, F f, made out) {
  s.of_double = caller<double>(f, out);
  s.of_float = caller<float>(f, out);
}

enum class placing { packed, padded, padded_left };
inline const char* text(placing how) {
  return how == placing::packed ? "packed" : how == placing::padded ? "padded" : "padded on the left";
}

/// The same numbers laid out anew: packed, or padded to the longest; what is nobody's is `filler`.
inline batch placed(const batch& from, placing how, double filler) {
  batch to;
  to.per_sequence = from.per_sequence;
  to.sizes = from.sizes;
  std::int32_t longest = 0;
  for (std::size_t s = 0; s < from.sequences(); ++s) longest = std::max(longest, from.end[s] - from.begin[s]);
  std::int32_t at = 0;
  for (std::size_t s = 0; s < from.sequences(); ++s) {
    const std::int32_t length = from.end[s] - from.begin[s];
    const std::int32_t before = how == placing::padded_left ? longest - length : 0;
    to.begin.push_back(at + before);
    to.end.push_back(at + before + length);
    at += how == placing::packed ? length : longest;
  }
  to.scored.assign(static_cast<std::size_t>(at), 1);  // the layout, not this, keeps padding out
  to.tokens.assign(from.tokens.size(), std::vector<double>(to.scored.size(), filler));
  for (std::size_t s = 0; s < from.sequences(); ++s)
    for (std::int32_t i = 0; i < from.end[s] - from.begin[s]; ++i) {
      const auto f = static_cast<std::size_t>(from.begin[s] + i), t = static_cast<std::size_t>(to.begin[s] + i);
      to.scored[t] = from.scored[f];
      for (std::size_t a = 0; a < from.tokens.size(); ++a) to.tokens[a][t] = from.tokens[a][f];
    }
  return to;
}

/// Sequences of another batch: `of[s]` says which.
struct selection {
  batch b;
  std::vector<std::size_t> of;
};
using random_numbers = std::mt19937_64;  // and remainders: the same everywhere
template <class T>
void shuffle(std::vector<T>& x, random_numbers& random) {
  for (std::size_t i = x.size(); i > 1; --i) std::swap(x[i - 1], x[random() % i]);
}
/// Units `which` of a batch, in this order; the sequences of each shuffled if `random` is given. Tokens stay where they are.
inline selection chosen(const batch& from, const std::vector<std::size_t>& which, random_numbers* random = nullptr) {
  selection to{from, {}};
  to.b.begin.clear(), to.b.end.clear(), to.b.sizes.clear();
  for (auto& x : to.b.per_sequence) x.clear();
  for (const std::size_t u : which) {
    std::vector<std::size_t> members(from.sizes[u]);
    std::iota(members.begin(), members.end(), from.first_of(u));
    if (random != nullptr) shuffle(members, *random);
    to.b.sizes.push_back(members.size());
    to.of.insert(to.of.end(), members.begin(), members.end());
  }
  for (const std::size_t s : to.of) {
    to.b.begin.push_back(from.begin[s]);
    to.b.end.push_back(from.end[s]);
    for (std::size_t a = 0; a < from.per_sequence.size(); ++a) to.b.per_sequence[a].push_back(from.per_sequence[a][s]);
  }
  return to;
}

/// Ragged: lengths 0 to 6 with holes and gaps; the first unit is short, the second whole, the third without scored tokens, the last sequence empty.
inline batch random_batch(const subject& what, std::uint64_t seed, std::size_t units) {
  batch b;
  random_numbers random(seed);
  const bool empties = !what.lacks.contains(law::nothing);
  for (std::size_t u = 0; u < units; ++u) {
    b.sizes.push_back(!what.ragged || u == 1 ? what.unit : u == 0 ? 1 : 1 + random() % what.unit);
    for (std::size_t i = 0; i < b.sizes.back(); ++i) {
      const bool out = empties && (u == 2 || (what.leaves_out && u > 2 && random() % 4 == 0));
      const std::size_t length = u == 0 ? 1 : 1 + random() % 6, sure = random() % length;
      b.begin.push_back(static_cast<std::int32_t>(b.length()));
      for (std::size_t t = 0; t < length; ++t) b.scored.push_back(!out && (u < 2 || t == sure || random() % 8 > 0));
      b.end.push_back(static_cast<std::int32_t>(b.length()));
      if (random() % 3 == 0) b.scored.push_back(1);  // a token of no sequence
    }
  }
  if (empties) b.end.back() = b.begin.back();
  for (std::size_t a = 0; a < what.tokens.size(); ++a) {
    b.tokens.push_back(plumb::testing::normal_numbers(seed * 31 + a, static_cast<plumb::index_t>(b.length())));
    for (double& x : b.tokens.back()) x = what.tokens[a](x);
  }
  for (std::size_t a = 0; a < what.per_sequence.size(); ++a) {
    b.per_sequence.push_back(plumb::testing::normal_numbers(seed * 37 + a, static_cast<plumb::index_t>(b.sequences())));
    for (double& x : b.per_sequence.back()) x = what.per_sequence[a](x);
  }
  return b;
}

inline bool near(double a, double b, double tolerance) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= tolerance * std::max({1.0, std::abs(a), std::abs(b)});
}
inline bool near(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!near(a[i], b[i], tolerance)) return false;
  return true;
}
inline bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}
inline bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }
inline bool contains(const std::vector<std::size_t>& list, std::size_t x) { return std::find(list.begin(), list.end(), x) != list.end(); }
inline void check_same_bits(const answer& got, const answer& want) {
  CHECK(same_bits(got.loss, want.loss));
  CHECK(same_bits(got.metrics, want.metrics));
  CHECK(same_bits(got.shared, want.shared));
  for (std::size_t a = 0; a < got.d_tokens.size(); ++a) CHECK(same_bits(got.d_tokens[a], want.d_tokens[a]));
  for (std::size_t a = 0; a < got.d_per_sequence.size(); ++a) CHECK(same_bits(got.d_per_sequence[a], want.d_per_sequence[a]));
}
/// Every sequence of the selection has what it had in `want`, of the whole.
inline void check_sequences(const answer& got, const selection& where, const answer& want, const batch& whole, double tolerance) {
  const auto of = [](const std::vector<double>& x, const batch& b, std::size_t s) {
    return std::vector<double>{x.begin() + b.begin[s], x.begin() + b.end[s]};
  };
  for (std::size_t s = 0; s < where.of.size(); ++s) {
    for (std::size_t a = 0; a < got.d_tokens.size(); ++a)
      CHECK(near(of(got.d_tokens[a], where.b, s), of(want.d_tokens[a], whole, where.of[s]), tolerance));
    for (std::size_t a = 0; a < got.d_per_sequence.size(); ++a)
      CHECK(near(got.d_per_sequence[a][s], want.d_per_sequence[a][where.of[s]], tolerance));
  }
}
inline void check_zero(const subject& what, const answer& got, const batch& b) {
  for (std::size_t a = 0; a < got.d_tokens.size(); ++a) {
    bool zero = true;
    for (std::size_t t = 0; t < b.length(); ++t) zero = zero && (b.counts(t) || got.d_tokens[a][t] == 0);
    CHECK((zero || !what.zero_elsewhere));
  }
  for (std::size_t a = 0; what.leaves_out && a < got.d_per_sequence.size(); ++a)
    for (std::size_t s = 0; s < b.sequences(); ++s) CHECK((b.has_tokens(s) || got.d_per_sequence[a][s] == 0));
}
/// NaN wherever nothing counts.
inline batch spoiled_where_nothing_counts(const subject& what, batch b) {
  for (auto& x : b.tokens)
    for (std::size_t t = 0; t < x.size(); ++t)
      if (!b.counts(t)) x[t] = std::nan("");
  for (auto& x : b.per_sequence)
    for (std::size_t s = 0; what.leaves_out && s < x.size(); ++s)
      if (!b.has_tokens(s)) x[s] = std::nan("");
  return b;
}

/// Log-ratios and gaps of +-1e4: log-probabilities (whose map sends 0 below 0) are what they were or less by 1e4, each by chance; shares and choices
/// (whose map sends 0 above 0) stay; any other numbers are 1e4 times what they were.
inline batch far_apart(const subject& what, const batch& from, std::uint64_t seed) {
  batch to = from;
  const auto spread = [&](std::vector<double>& x, double (*number)(double), std::uint64_t stream) {
    const auto chance = plumb::testing::normal_numbers(stream, static_cast<plumb::index_t>(x.size()));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = number(0) == 0 ? 1e4 * x[i] : number(0) < 0 && chance[i] >= 0 ? x[i] - 1e4 : x[i];
  };
  for (std::size_t a = 0; a < to.tokens.size(); ++a) spread(to.tokens[a], what.tokens[a], seed * 41 + a);
  for (std::size_t a = 0; a < to.per_sequence.size(); ++a) spread(to.per_sequence[a], what.per_sequence[a], seed * 43 + a);
  return to;
}

/// What became of a NaN that counts, put into unit `unit`: whatever a nudge of the number changes is NaN, anything else is NaN or as it was, and
/// units that have nothing to do with it stay as they were.
inline void check_spread(const subject& what, const batch& whole, std::size_t unit, const answer& got, const answer& nudged, const answer& want) {
  const auto good = [](double g, double n, double w) { return std::isnan(g) || (g == w && n == w); };
  CHECK(good(got.loss, nudged.loss, want.loss));
  for (std::size_t k = 0; k < got.metrics.size(); ++k) {
    CAPTURE(k / 2, got.metrics[k], nudged.metrics[k], want.metrics[k]);
    const bool counted = got.metrics[k] == want.metrics[k] || got.metrics[k] == nudged.metrics[k];  // a number where one was missing counts
    CHECK((k % 2 == 0 ? good(got.metrics[k], nudged.metrics[k], want.metrics[k]) : counted));
  }
  for (std::size_t i = 0; i < got.shared.size(); ++i) CHECK(good(got.shared[i], nudged.shared[i], want.shared[i]));
  const bool apart = !what.lacks.contains(law::parts);
  for (std::size_t a = what.masks; a < got.d_tokens.size(); ++a)
    for (std::size_t t = 0; t < whole.length(); ++t) {
      CAPTURE(a, t);
      const std::size_t s = whole.owner(t);
      const bool elsewhere = s == whole.sequences() ? what.zero_elsewhere : apart && whole.unit_of(s) != unit;
      const double g = got.d_tokens[a][t], w = want.d_tokens[a][t];
      CHECK((elsewhere ? same_bits(g, w) : good(g, nudged.d_tokens[a][t], w)));
    }
  for (std::size_t a = 0; a < got.d_per_sequence.size(); ++a)
    for (std::size_t s = 0; s < whole.sequences(); ++s) {
      CAPTURE(a, s);
      const double g = got.d_per_sequence[a][s], w = want.d_per_sequence[a][s];
      CHECK((apart && whole.unit_of(s) != unit ? same_bits(g, w) : good(g, nudged.d_per_sequence[a][s], w)));
    }
}

inline void check_nan(const subject& what, const run& f, const batch& whole, const answer& want, random_numbers& random) {
  const auto at = [&](std::vector<std::vector<double>> batch::*arrays, std::size_t a, std::size_t place, std::size_t unit, bool enters) {
    batch spoiled = whole, nudged = whole;
    (spoiled.*arrays)[a][place] = std::nan("");
    (nudged.*arrays)[a][place] += 0.01;
    const answer got = f(spoiled, denominator, {});
    CAPTURE(place);
    check_spread(what, whole, unit, got, f(nudged, denominator, {}), want);
    if (enters) CHECK(std::isnan(got.loss));
  };
  for (std::size_t a = 0; a < what.tokens.size(); ++a) {
    if (contains(what.choices, a)) continue;
    INFO("NaN in a token that counts, array " << a);
    const bool enters = what.has_loss && what.all_enter && !contains(what.outside_loss, a);
    at(&batch::tokens, a, static_cast<std::size_t>(whole.begin[whole.first_of(1)]), 1, enters);  // the second unit is scored throughout
    std::size_t t = random() % whole.length();
    while (!whole.counts(t)) t = random() % whole.length();
    at(&batch::tokens, a, t, whole.unit_of(whole.owner(t)), false);
  }
  for (std::size_t a = 0; a < what.per_sequence.size(); ++a) {
    if (contains(what.sequence_choices, a)) continue;
    INFO("NaN in a sequence that counts, array " << a);
    std::size_t s = random() % whole.sequences();
    while (!whole.has_tokens(s)) s = random() % whole.sequences();
    at(&batch::per_sequence, a, s, whole.unit_of(s), false);
  }
}

/// Micro-batches of randomly chosen units, each added to what is there; of what has no loss, each for itself.
inline void check_parts(const subject& what, const run& f, const batch& whole, const answer& want, random_numbers& random, double tolerance) {
  std::vector<std::size_t> parts[3];
  for (std::size_t u = 0; u < whole.sizes.size(); ++u) parts[u < 3 ? u : random() % 3].push_back(u);
  INFO("three micro-batches");
  answer sum;
  std::vector<double> merged(want.metrics.size()), most(want.metrics.size(), -std::numeric_limits<double>::infinity());
  for (const auto& units : parts) {
    const selection part = chosen(whole, units);
    const answer got = f(part.b, denominator, what.has_loss ? sum : answer{});
    for (std::size_t k = 0; k < got.metrics.size(); ++k) {
      merged[k] += got.metrics[k];
      most[k] = std::max(most[k], got.metrics[k]);
    }
    answer own = got;
    if (what.has_loss) own.d_tokens.clear();
    check_sequences(own, part, want, whole, tolerance);
    sum = got;
  }
  for (std::size_t k = 0; k < merged.size(); ++k) {  // sums add up, or it is a maximum; counts add up
    CAPTURE(k / 2, merged[k], most[k], want.metrics[k]);
    if (!contains(what.given_metrics, k / 2))
      CHECK((near(merged[k], want.metrics[k], tolerance) || (k % 2 == 0 && near(most[k], want.metrics[k], tolerance))));
  }
  if (!what.has_loss) return;
  CHECK(near(sum.loss, want.loss, tolerance));
  CHECK(near(sum.shared, want.shared, tolerance));
  for (std::size_t a = 0; a < sum.d_tokens.size(); ++a) CHECK(near(sum.d_tokens[a], want.d_tokens[a], tolerance));
}

inline void check_finite(const subject& what, const answer& got) {
  const auto finite = [](const std::vector<double>& x) { return std::all_of(x.begin(), x.end(), [](double e) { return std::isfinite(e); }); };
  CHECK(std::isfinite(got.loss));
  CHECK(finite(got.shared));
  for (const auto& d : got.d_tokens) CHECK(finite(d));
  for (const auto& d : got.d_per_sequence) CHECK(finite(d));
  for (std::size_t k = 0; k < got.metrics.size(); ++k) {
    CAPTURE(k / 2);
    const bool nothing = got.metrics[k | 1] == 0;  // the maximum of nothing
    CHECK((nothing || contains(what.infinite_metrics, k / 2) ? !std::isnan(got.metrics[k]) : std::isfinite(got.metrics[k])));
  }
}

/// All laws on one random layout, in one precision. `denominator` stands for the whole batch in every part.
inline void check_one(const subject& what, const run& f, std::uint64_t seed, double tolerance) {
  random_numbers random(seed * 7919);
  const std::size_t units = 4 + seed % 4;
  const batch whole = random_batch(what, seed, units);
  const answer want = f(whole, denominator, {});
  REQUIRE(std::isfinite(want.loss));
  {
    INFO("NaN where nothing counts");
    const answer got = f(spoiled_where_nothing_counts(what, whole), denominator, {});
    check_same_bits(got, want);
    check_zero(what, got, whole);
  }
  if (!what.lacks.contains(law::nothing)) {
    INFO("nothing counts");
    batch silent = whole;
    silent.scored.assign(silent.length(), 0);
    const answer got = f(spoiled_where_nothing_counts(what, silent), denominator, {});
    CHECK(got.loss == 0);
    check_zero(what, got, silent);
    for (const double e : got.shared) CHECK(e == 0);
    for (std::size_t k = 0; k < got.metrics.size(); k += 2) CHECK((got.metrics[k + 1] == 0 || contains(what.given_metrics, k / 2)));
  }
  std::vector<std::size_t> order(units);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto laid_out = [&](selection where, placing how) {
    where.b = placed(where.b, how, std::nan(""));
    const answer got = f(where.b, denominator, {});
    CHECK(near(got.loss, want.loss, tolerance));
    CHECK(near(got.metrics, want.metrics, tolerance));
    CHECK(near(got.shared, want.shared, tolerance));
    check_sequences(got, where, want, whole, tolerance);
  };
  for (const placing how : {placing::packed, placing::padded, placing::padded_left}) {
    INFO("laid out " << text(how));
    laid_out(chosen(whole, order), how);
  }
  for (const placing how : {placing::packed, placing::padded_left}) {
    shuffle(order, random);
    CAPTURE(order);
    INFO("in another order, " << text(how));
    laid_out(chosen(whole, order, what.any_order ? &random : nullptr), how);
  }
  if (!what.lacks.contains(law::parts)) check_parts(what, f, whole, want, random, tolerance);
  check_nan(what, f, whole, want, random);
  if (!what.lacks.contains(law::reference)) {
    batch at = whole, nowhere = whole;
    const auto bring = [](auto& here, auto& there, const auto& pairs) {
      for (const auto& [policy, reference] : pairs) {
        here[reference] = here[policy];
        for (const std::size_t a : {policy, reference}) there[a].assign(there[a].size(), 0);
      }
    };
    bring(at.tokens, nowhere.tokens, what.references);
    bring(at.per_sequence, nowhere.per_sequence, what.sequence_references);
    answer got = f(at, denominator, {}), zero = f(nowhere, denominator, {});
    if (!what.metrics_of_ratios) got.metrics = zero.metrics;
    INFO("the policy is the reference");
    check_same_bits(got, zero);
  }
  if (!what.lacks.contains(law::exchange)) {
    INFO("sides exchanged");
    what.exchange(f, whole, want, tolerance);
  }
}

/// All laws over several random layouts, in both precisions. A law that is not tried has its reason.
inline void check(const subject& what) {
  CAPTURE(what.name);
  REQUIRE((what.lacks.contains(law::reference) == (what.references.empty() && what.sequence_references.empty())));
  REQUIRE(what.lacks.contains(law::exchange) == !what.exchange);
  for (const auto& [which, why] : what.lacks) REQUIRE(!why.empty());
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {
    CAPTURE(seed);
    {
      INFO("in double");
      check_one(what, what.of_double, seed, 1e-12);
    }
    INFO("in float");
    check_one(what, what.of_float, seed, 1e-5);
    if (what.lacks.contains(law::extremes)) continue;
    INFO("log-ratios or gaps of 1e4");
    check_finite(what, what.of_float(far_apart(what, random_batch(what, seed, 5), seed), denominator, {}));
  }
}

}  // namespace plumb_test::laws

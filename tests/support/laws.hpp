#pragma once
// Laws of objectives over sequences, tried on random layouts: what an objective is to the laws, and the laws.

#include "support/gradients.hpp"

#include <plumb/core/layout.hpp>
#include <plumb/testing/memory.hpp>

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>

namespace plumb_test::laws {

/// Arrays of one number per token `[N]` and per sequence `[S]`, and where the sequences lie. `unit` neighbours belong together: 2 for pairs
/// (chosen, rejected), the group's size for groups.
struct batch {
  std::vector<std::vector<double>> tokens, per_sequence;
  std::vector<std::int32_t> begin, end;
  std::vector<std::uint8_t> scored;

  std::size_t sequences() const { return begin.size(); }
  std::size_t length() const { return scored.size(); }
};

/// What came out, as numbers.
struct answer {
  double loss = 0;
  std::vector<std::vector<double>> d_tokens, d_per_sequence;  ///< gradients, `[N]` or `[S]`
  std::vector<double> metrics;                                ///< `[K, 2]`: sum and count
};

/// An objective under the laws.
struct subject {
  std::string name{};
  std::size_t unit = 1;
  std::vector<double (*)(double)> tokens{};        ///< one per array: a standard normal number made into a possible one
  std::vector<double (*)(double)> per_sequence{};  ///< likewise
  /// `denominator`: whatever of the whole batch the loss is divided by; `into`: added to, when not empty.
  std::function<answer(const batch&, double denominator, const answer& into)> of_double{}, of_float{};
  bool splits = true;          ///< a batch in parts adds up (not where the batch is looked at as a whole)
  bool empty_is_nothing = true;  ///< a sequence without scored tokens adds nothing to the loss either
  bool against_reference = false;  ///< array 1 holds the log-probabilities of array 0 under the reference
  std::vector<std::size_t> outside_loss{};  ///< arrays per token that only metrics look at
  bool extremes = true;        ///< finite in float at log-ratios of +-1e4
  std::vector<std::size_t> infinite_metrics{};  ///< rows of `metrics` that are truly infinite there
};

/// The batch and the answer in the precision of one call.
template <class T>
struct call {
  desk<T> on{};
  std::vector<std::vector<T>> tokens, per_sequence;
  plumb::sequence_layout<> layout;
  std::vector<std::int32_t> first, second;  ///< of each unit of 2
  double denominator;
  T loss{};
  std::vector<std::vector<T>> d_tokens, d_per_sequence;
  std::vector<T> metrics;
  plumb::write_mode mode;

  plumb::preference_pairs<> pairs() const { return {layout, first, second}; }
  plumb::view<T, 2> metrics_of(std::size_t names) {
    metrics.resize(2 * names);
    return {metrics.data(), static_cast<plumb::index_t>(names), 2};
  }
};

/// `f(call)`: fills loss, gradients (there are `gradients` per token and `of_sequences` per sequence) and metrics.
template <class T, class F>
auto caller(F f, std::size_t gradients, std::size_t of_sequences = 0) {
  return [=](const batch& b, double denominator, const answer& into) {
    const auto cast = [](const std::vector<std::vector<double>>& from) {
      std::vector<std::vector<T>> to;
      for (const auto& x : from) {
        to.emplace_back();
        for (const double e : x) to.back().push_back(static_cast<T>(e));
      }
      return to;
    };
    const bool adds = !into.d_tokens.empty() || !into.d_per_sequence.empty();
    call<T> c{{}, cast(b.tokens), cast(b.per_sequence), {b.begin, b.end, b.scored}, {}, {}, denominator, static_cast<T>(into.loss),
              cast(into.d_tokens), {}, {}, adds ? plumb::write_mode::add : plumb::write_mode::overwrite};
    for (std::size_t s = 0; s + 1 < b.sequences(); s += 2) {
      c.first.push_back(static_cast<std::int32_t>(s));
      c.second.push_back(static_cast<std::int32_t>(s + 1));
    }
    c.d_tokens.resize(gradients);
    for (auto& d : c.d_tokens) d.resize(b.length());
    c.d_per_sequence.resize(of_sequences);
    for (auto& d : c.d_per_sequence) d.resize(b.sequences());
    f(c);
    answer a{static_cast<double>(c.loss), {}, {}, {c.metrics.begin(), c.metrics.end()}};
    for (const auto& d : c.d_tokens) a.d_tokens.emplace_back(d.begin(), d.end());
    for (const auto& d : c.d_per_sequence) a.d_per_sequence.emplace_back(d.begin(), d.end());
    return a;
  };
}

enum class placing { packed, padded, padded_left };

/// The same numbers laid out anew: packed with `gap` tokens of no sequence between, or padded to the longest; what is nobody's is `filler`.
inline batch placed(const batch& from, placing how, double filler) {
  batch to;
  to.per_sequence = from.per_sequence;
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

/// Sequences `which` of a batch, in this order; tokens stay where they are.
inline batch chosen(const batch& from, const std::vector<std::size_t>& which) {
  batch to = from;
  to.begin.clear(), to.end.clear();
  for (auto& x : to.per_sequence) x.clear();
  for (const std::size_t s : which) {
    to.begin.push_back(from.begin[s]);
    to.end.push_back(from.end[s]);
    for (std::size_t a = 0; a < from.per_sequence.size(); ++a) to.per_sequence[a].push_back(from.per_sequence[a][s]);
  }
  return to;
}

/// Ragged: lengths 0 to 6 with holes; the first unit is short, the second whole, the third without scored tokens.
inline batch random_batch(const subject& what, std::uint64_t seed, std::size_t units) {
  batch b;
  std::uint64_t draws = 0;
  const auto uniform = [&] { return std::abs(plumb::testing::normal_numbers(seed + 977 * ++draws, 1)[0]); };
  std::int32_t at = 0;
  for (std::size_t s = 0; s < units * what.unit; ++s) {
    const std::size_t unit = s / what.unit;
    const auto length = unit == 0 ? 1 : 1 + static_cast<std::int32_t>(3 * uniform()) % 6;
    b.begin.push_back(at);
    b.end.push_back(at += length);
    for (std::int32_t i = 0; i < length; ++i) b.scored.push_back(unit == 2 && what.empty_is_nothing ? 0 : unit < 2 || i == 0 || uniform() < 0.9);
  }
  if (what.empty_is_nothing) b.end.back() = b.begin.back();  // empty altogether
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

inline bool near(double a, double b, double scale) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= 1e-12 * std::max({1.0, std::abs(a), std::abs(b), scale});
}
inline bool near(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!near(a[i], b[i], 0)) return false;
  return true;
}
inline bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}
/// Where the tokens of sequence `s` went.
inline std::vector<double> of_sequence(const std::vector<double>& x, const batch& b, std::size_t s) {
  return {x.begin() + b.begin[s], x.begin() + b.end[s]};
}
inline bool counts(const batch& b, std::size_t t) {
  for (std::size_t s = 0; s < b.sequences(); ++s)
    if (static_cast<std::size_t>(b.begin[s]) <= t && t < static_cast<std::size_t>(b.end[s])) return b.scored[t] != 0;
  return false;
}

/// Log-ratios of +-1e4: log-probabilities (whose map sends 0 below 0) are what they were or less by 1e4, each by chance; any other numbers are 1e4
/// times what they were.
inline batch far_apart(const subject& what, const batch& from, std::uint64_t seed) {
  batch to = from;
  for (std::size_t a = 0; a < to.tokens.size(); ++a) {
    const auto chance = plumb::testing::normal_numbers(seed * 41 + a, static_cast<plumb::index_t>(to.length()));
    for (std::size_t t = 0; t < to.length(); ++t) {
      double& x = to.tokens[a][t];
      x = what.tokens[a](0) >= 0 ? 1e4 * x : chance[t] < 0 ? x - 1e4 : x;
    }
  }
  return to;
}

/// All laws over several random layouts. `denominator` stands for the whole batch in every part.
inline void check(const subject& what) {
  const double nan = std::nan("");
  constexpr double denominator = 7;
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const batch whole = random_batch(what, seed, 5);
    const answer want = what.of_double(whole, denominator, {});
    CAPTURE(what.name, seed);
    REQUIRE(std::isfinite(want.loss));

    {  // what does not count may be anything, and gets nothing
      batch masked = whole;
      for (auto& x : masked.tokens)
        for (std::size_t t = 0; t < x.size(); ++t)
          if (!counts(masked, t)) x[t] = nan;
      const answer got = what.of_double(masked, denominator, {});
      INFO("NaN where nothing counts");
      CHECK(same_bits({got.loss}, {want.loss}));
      CHECK(same_bits(got.metrics, want.metrics));
      for (std::size_t a = 0; a < got.d_tokens.size(); ++a) {
        CHECK(same_bits(got.d_tokens[a], want.d_tokens[a]));
        bool zero = true;
        for (std::size_t t = 0; t < got.d_tokens[a].size(); ++t) zero = zero && (counts(masked, t) || got.d_tokens[a][t] == 0);
        CHECK(zero);
      }
    }
    for (const placing how : {placing::packed, placing::padded, placing::padded_left}) {
      INFO("laid out " << (how == placing::packed ? "packed" : how == placing::padded ? "padded" : "padded on the left"));
      const batch other = placed(whole, how, nan);
      const answer got = what.of_double(other, denominator, {});
      CHECK(near(got.loss, want.loss, 0));
      CHECK(near(got.metrics, want.metrics));
      for (std::size_t a = 0; a < got.d_tokens.size(); ++a)
        for (std::size_t s = 0; s < whole.sequences(); ++s)
          CHECK(near(of_sequence(got.d_tokens[a], other, s), of_sequence(want.d_tokens[a], whole, s)));
    }
    {  // the order of units
      std::vector<std::size_t> order;
      for (std::size_t u = whole.sequences() / what.unit; u-- > 0;)
        for (std::size_t i = 0; i < what.unit; ++i) order.push_back(u * what.unit + i);
      const answer got = what.of_double(chosen(whole, order), denominator, {});
      INFO("units in reverse order");
      CHECK(near(got.loss, want.loss, 0));
      CHECK(near(got.metrics, want.metrics));
      for (std::size_t a = 0; a < got.d_tokens.size(); ++a) CHECK(near(got.d_tokens[a], want.d_tokens[a]));
    }
    if (what.splits) {  // micro-batches, each added to what is there
      std::vector<std::size_t> first, second;
      for (std::size_t s = 0; s < whole.sequences(); ++s) (s < what.unit * 2 ? first : second).push_back(s);
      const answer part = what.of_double(chosen(whole, first), denominator, {});
      const answer got = what.of_double(chosen(whole, second), denominator, part);
      INFO("two micro-batches");
      CHECK(near(got.loss, want.loss, 0));
      for (std::size_t a = 0; a < got.d_tokens.size(); ++a) CHECK(near(got.d_tokens[a], want.d_tokens[a]));
    }
    // a NaN that counts: no number that looks right
    for (std::size_t a = 0; a < what.tokens.size(); ++a) {
      batch spoiled = whole;
      spoiled.tokens[a][static_cast<std::size_t>(spoiled.begin[what.unit])] = nan;  // the second unit is scored throughout
      const answer got = what.of_double(spoiled, denominator, {});
      INFO("NaN in a token that counts, array " << a);
      const bool enters = std::find(what.outside_loss.begin(), what.outside_loss.end(), a) == what.outside_loss.end();
      CHECK((enters ? std::isnan(got.loss) : got.loss == want.loss));
      for (std::size_t k = 0; k < got.metrics.size(); k += 2) {
        CAPTURE(k / 2);
        CHECK((std::isnan(got.metrics[k]) || got.metrics[k] == want.metrics[k]));
        CHECK(got.metrics[k + 1] == want.metrics[k + 1]);
      }
    }
    if (what.against_reference) {  // a policy that is its reference, to the bit
      batch at = whole, nowhere = whole;
      at.tokens[1] = at.tokens[0];
      for (std::size_t a = 0; a < 2; ++a) nowhere.tokens[a].assign(nowhere.length(), 0);
      const answer got = what.of_double(at, denominator, {}), zero = what.of_double(nowhere, denominator, {});
      INFO("the policy is the reference");
      CHECK(same_bits({got.loss}, {zero.loss}));
      for (std::size_t a = 0; a < got.d_tokens.size(); ++a) CHECK(same_bits(got.d_tokens[a], zero.d_tokens[a]));
    }
    if (what.extremes) {
      const answer got = what.of_float(far_apart(what, whole, seed), denominator, {});
      INFO("log-ratios of 1e4, in float");
      CHECK(std::isfinite(got.loss));
      for (const auto& d : got.d_tokens)
        for (const double e : d) CHECK(std::isfinite(e));
      for (std::size_t k = 0; k < got.metrics.size(); ++k) {
        CAPTURE(k / 2);
        const bool infinite = std::find(what.infinite_metrics.begin(), what.infinite_metrics.end(), k / 2) != what.infinite_metrics.end();
        CHECK((infinite ? !std::isnan(got.metrics[k]) : std::isfinite(got.metrics[k])));
      }
    }
  }
}

}  // namespace plumb_test::laws

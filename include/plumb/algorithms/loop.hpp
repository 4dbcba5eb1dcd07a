#pragma once
// What the loops of algorithms/ share: numbers of the host's models and their checks, scratch memory, the order of minibatches.

#include <plumb/core/arena.hpp>
#include <plumb/core/random.hpp>
#include <plumb/model/concepts.hpp>
#include <plumb/ops/metrics.hpp>
#include <plumb/ops/prompt_groups.hpp>

#include <cmath>
#include <numeric>
#include <optional>
#include <tuple>

PLUMB_NAMESPACE_BEGIN

/// No critic, or no reference.
struct no_model {};

namespace detail {

// How an error of a loop ends: what became of the weights. `steps`: how many the update had made.
inline message& untrained(message& m, int steps) {
  if (steps == 0) return m << ". Nothing was trained.";
  return m << ". The gradients were discarded; " << steps << (steps == 1 ? " step" : " steps") << " of this update stood before.";
}

// A model's numbers: as many as there should be.
template <class Real, class R>
std::vector<Real> numbers_from(const char* op, const char* name, const R& given, index_t count, const char* of, int steps = 0) {
  const auto n = static_cast<index_t>(std::ranges::size(given));
  if (n != count) {
    message m(op);
    fail(untrained(m << name << " gave " << n << " numbers, but there are " << count << " " << of, steps));
  }
  return std::vector<Real>(std::ranges::begin(given), std::ranges::end(given));
}
// None of them NaN or infinite.
template <class Real>
void require_finite_texts(const char* op, const char* name, const std::vector<Real>& x, const rollouts<Real>& r) {
  for (std::size_t s = 0; s < x.size(); ++s)
    if (!std::isfinite(x[s])) {
      message m(op);
      m << name << " gave " << static_cast<double>(x[s]) << " for text " << s << " (prompt " << static_cast<index_t>(r.prompt[s]) << ")";
      fail(untrained(m, 0));
    }
}
// Likewise; `rows`, where given, are the numbers of `r`'s texts in the whole rollout.
template <class Real>
void require_finite_tokens(const char* op, const char* name, const std::vector<Real>& x, const rollouts<Real>& r,
                           std::span<const std::int32_t> rows = {}, int steps = 0) {
  for (std::size_t s = 0; s + 1 < r.own.size(); ++s)
    for (std::int32_t t = r.own[s]; t < r.own[s + 1]; ++t)
      if (const Real number = x[static_cast<std::size_t>(t)]; !std::isfinite(number)) {
        message m(op);
        m << name << " gave " << static_cast<double>(number) << " for own token " << static_cast<index_t>(t - r.own[s]) << " of text "
          << (rows.empty() ? static_cast<index_t>(s) : static_cast<index_t>(rows[s])) << " (prompt " << static_cast<index_t>(r.prompt[s]) << ")";
        fail(untrained(m, steps));
      }
}
// One text for each start.
template <class Real>
void require_texts(const char* op, const rollouts<Real>& r, std::size_t starts) {
  if (r.size() != static_cast<index_t>(starts))
    fail(message(op) << "policy.generate gave " << r.size() << " texts, but there are " << static_cast<index_t>(starts)
                     << " starts. Nothing was trained.");
}
// Texts that are compared with each other began alike. `so`: what they are not, if they did not.
template <class Real>
void require_equal_starts(const char* op, const rollouts<Real>& r, const prompt_groups& groups, const char* so) {
  const auto beginning = [&](std::int32_t s) { return r.text_of(s).first(static_cast<std::size_t>(r.prompt_count(s) + r.given_count(s))); };
  for (std::size_t g = 0; g < groups.begin.size(); ++g) {
    const auto members = std::span(groups.order).subspan(static_cast<std::size_t>(groups.begin[g]),
                                                         static_cast<std::size_t>(groups.end[g] - groups.begin[g]));
    for (const std::int32_t s : members)
      if (r.prompt_count(s) != r.prompt_count(members[0]) || !std::ranges::equal(beginning(s), beginning(members[0])))
        fail(message(op) << "texts " << members[0] << " and " << s << " are of prompt " << r.prompt[static_cast<std::size_t>(s)]
                         << ", but begin differently, so they are no " << so << ". `start::prompt` tells prompts apart.");
  }
}
// What the policy writes, checked: one text for each start, that begins with it, at the temperature that was asked for.
template <class Real, class Policy, class States>
rollouts<Real> written(const char* op, Policy& policy, const States& starts, const sampling& how) {
  using state = std::ranges::range_value_t<States>;
  how.require(op);
  const std::span<const state> from(starts);
  rollouts<Real> r = policy.generate(from, how);
  r.require(op);
  require_texts(op, r, from.size());
  const double temperature = how.temperature > 0 ? how.temperature : 1;
  if (r.size() > 0 && r.temperature != temperature)
    fail(message(op) << "policy.generate gave log-probabilities at temperature " << r.temperature << ", but " << temperature
                     << " was asked for. Nothing was trained.");
  if constexpr (std::is_same_v<state, start>)
    for (index_t s = 0; s < r.size(); ++s) {
      const start was = r.start_of(s), &wanted = from[static_cast<std::size_t>(s)];
      if (was.tokens != wanted.tokens || was.prompt_tokens != wanted.prompt_tokens || was.prompt != wanted.prompt)
        fail(message(op) << "text " << s << " of policy.generate does not begin with start " << s << ". Nothing was trained.");
    }
  return r;
}

// Each start `count` times, one after the other.
template <class States>
auto repeated(const States& starts, index_t count) {
  std::vector<std::ranges::range_value_t<States>> all;
  all.reserve(std::ranges::size(starts) * static_cast<std::size_t>(count));
  for (const auto& s : starts) all.insert(all.end(), static_cast<std::size_t>(count), s);
  return all;
}

// Rows in an order that (seed, stream) names. Fisher and Yates.
inline std::vector<std::int32_t> shuffled(std::vector<std::int32_t> rows, const random_stream& random) {
  for (std::size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[static_cast<std::size_t>(random.below(i, i))]);
  return rows;
}
// Calls `f(rows)` for each minibatch of each epoch, until it gives false. The order is named by (seed, update, epoch).
template <class F>
void for_each_minibatch(const std::vector<std::int32_t>& rows, int epochs, index_t minibatches, std::uint64_t seed, std::uint64_t update,
                        const F& f) {
  const std::size_t pieces = std::min(static_cast<std::size_t>(minibatches), rows.size());
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const random_stream order{random_stream{seed, 0x706c756d62000002u}.bits(update), static_cast<std::uint64_t>(epoch)};
    const auto mixed = pieces > 1 ? shuffled(rows, order) : rows;
    for (std::size_t piece = 0; piece < pieces; ++piece) {
      const std::size_t begin = mixed.size() * piece / pieces, end = mixed.size() * (piece + 1) / pieces;
      if (!f(std::span<const std::int32_t>(mixed).subspan(begin, end - begin))) return;
    }
  }
}
// Calls `f(rows)` for each micro-batch of a minibatch; `size` 0: all of it.
template <class F>
void for_each_micro_batch(std::span<const std::int32_t> rows, index_t size, const F& f) {
  const std::size_t each = size > 0 ? static_cast<std::size_t>(size) : rows.size();
  for (std::size_t from = 0; from < rows.size(); from += each) f(rows.subspan(from, std::min(each, rows.size() - from)));
}

// Ranges of what every loop has.
inline void require_loop(const char* op, int epochs, index_t minibatches, index_t micro_batch) {
  require_option(op, "epochs", epochs, epochs >= 1, "1 or more");
  require_option(op, "minibatches", static_cast<double>(minibatches), minibatches >= 1, "1 or more");
  require_option(op, "micro_batch", static_cast<double>(micro_batch), micro_batch >= 0, "0 (a whole minibatch) or positive");
}

// Metrics of micro-batches, added up in double. Means only.
template <std::size_t K>
struct metric_sums {
  double rows[K][2] = {};

  template <class Real>
  void add(const Real (&more)[K][2]) {
    for (std::size_t k = 0; k < K; ++k)
      for (int c = 0; c < 2; ++c) rows[k][c] += static_cast<double>(more[k][c]);
  }
  double value(std::size_t k) const { return metric_value(metric_kind::mean, rows[k][0], rows[k][1]); }
};

// Gradients that come to no step are discarded, whatever went wrong.
template <class... Models>
class gradients_of {
 public:
  explicit gradients_of(Models&... models) : models_(models...) {}
  gradients_of(const gradients_of&) = delete;
  ~gradients_of() {
    if (!used_) std::apply([](auto&... m) { (discard(m), ...); }, models_);
  }
  void use() { used_ = true; }

 private:
  template <class M>
  static void discard(M& m) {
    if constexpr (requires { m.discard(); }) m.discard();
  }
  std::tuple<Models&...> models_;
  bool used_ = false;
};

// A mean as it grows. NaN: of nothing.
struct running_mean {
  double sum = 0, count = 0;

  void add(double x) {
    sum += x;
    ++count;
  }
  double value() const { return metric_value(metric_kind::mean, sum, count); }
};

// A stack over the loop's own memory, which grows as it is needed.
class loop_scratch {
 public:
  arena<>& operator()(std::size_t bytes) {
    if (memory_.size() < bytes) memory_.resize(bytes);
    arena_.emplace(memory_.data(), memory_.size());
    return *arena_;
  }

 private:
  std::vector<unsigned char> memory_{};
  std::optional<arena<>> arena_{};
};

}  // namespace detail

PLUMB_NAMESPACE_END

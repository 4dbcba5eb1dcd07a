#pragma once
// Laws that operations and objectives obey on any backend, whatever the numbers: each is one number that must equal another.

#include <plumb/plumb.hpp>
#include <plumb/testing/memory.hpp>

#include <cmath>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace testing::laws {

/// `got` should be `want`, within rounding errors of numbers of size `magnitude`.
struct law {
  const char* name;
  double got, want, magnitude;
};

namespace detail {

/// A backend with scratch and arrays in its memory.
template <class B>
struct bench {
  using real = real_of<B>;
  using space = space_of<B>;
  template <int R>
  using array = placed<real, R, space>;
  using bytes = placed<std::uint8_t, 1, space>;
  using integers = placed<std::int32_t, 1, space>;

  B& b;
  block<space> memory{std::size_t{1} << 20};

  arena<space> scratch() { return {memory.data(), memory.bytes()}; }
  array<1> vector(std::vector<double> x) const { return {{static_cast<index_t>(x.size())}, placement::dense, x}; }
  array<1> empty(index_t n) const { return {{n}, placement::dense}; }
  array<2> matrix(index_t rows, index_t columns, std::vector<double> x = {}) const { return {{rows, columns}, placement::dense, x}; }
  integers ids(std::vector<double> x) const { return {{static_cast<index_t>(x.size())}, placement::dense, x}; }
  template <int R>
  std::vector<double> read(const array<R>& x) const {
    b.sync();
    return x.read();
  }
};

inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double d = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double e = std::abs(a[i] - b[i]);
    if (!(e <= d)) d = e;  // NaN too
  }
  return d;
}
inline double sum(const std::vector<double>& x) {
  double s = 0;
  for (const double v : x) s += v;
  return s;
}

template <class B>
std::vector<double> logp(bench<B>& on, index_t n, index_t v, const std::vector<double>& logits, const std::vector<double>& targets) {
  const auto x = on.matrix(n, v, logits);
  const auto t = on.ids(targets);
  const auto y = on.empty(n);
  auto scratch = on.scratch();
  token_logp(on.b, scratch, token_logp_inputs<real_of<B>, space_of<B>>{x.in(), t.in()}, {}, {y.view(), {}, {}});
  return on.read(y);
}

struct dpo_values {
  double loss;
  std::vector<double> d_logp, pair_loss;
};
template <class B>
dpo_values dpo_of(bench<B>& on, const std::vector<double>& logp, const std::vector<double>& ref, const std::vector<double>& begin,
                  const std::vector<double>& end, const std::vector<double>& chosen, const std::vector<double>& rejected) {
  const auto x = on.vector(logp), r = on.vector(ref);
  const auto first = on.ids(begin), last = on.ids(end), c = on.ids(chosen), j = on.ids(rejected);
  const auto pairs = static_cast<index_t>(chosen.size());
  const auto loss = on.empty(1), d = on.empty(x.size()), each = on.empty(pairs);
  auto scratch = on.scratch();
  dpo(on.b, scratch, {x.in(), r.in(), {{first.in(), last.in(), {}}, c.in(), j.in()}},
      {.beta = 0.5, .denominator = static_cast<double>(pairs)}, {loss.view(), d.view(), each.view(), {}});
  return {on.read(loss)[0], on.read(d), on.read(each)};
}

}  // namespace detail

/// Log-softmax does not change when a constant is added to a row.
template <class B>
law shift_invariance(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  auto x = normal_numbers(seed, 5 * 23, 3);
  const auto targets = random_ids(seed, 5, 23, 0);
  // Eighths, so that adding 64 rounds nothing.
  for (double& v : x) v = std::round(v * 8) / 8;
  const auto before = detail::logp(on, 5, 23, x, targets);
  for (double& v : x) v += 64;
  return {"log-softmax is invariant to a shift of its row", detail::largest_difference(before, detail::logp(on, 5, 23, x, targets)), 0, 80};
}

/// The probabilities of all tokens sum to 1.
template <class B>
law probabilities_sum_to_one(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  constexpr index_t v = 19;
  const auto row = normal_numbers(seed, v, 2);
  std::vector<double> x, targets;
  for (index_t i = 0; i < v; ++i) {
    x.insert(x.end(), row.begin(), row.end());
    targets.push_back(static_cast<double>(i));
  }
  double total = 0;
  for (const double l : detail::logp(on, v, v, x, targets)) total += std::exp(l);
  return {"probabilities sum to 1", total, 1, 8};
}

/// The gradient of a log-probability to the logits sums to 0 over each row.
template <class B>
law gradient_rows_sum_to_zero(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = on.matrix(1, 31, normal_numbers(seed, 31, 2));
  const auto target = on.ids({7});
  const auto lse = on.empty(1), d_logp = on.vector({1.0});
  const auto d = on.matrix(1, 31);
  auto scratch = on.scratch();
  const token_logp_inputs<real_of<B>, space_of<B>> in{x.in(), target.in()};
  token_logp(b, scratch, in, {}, {{}, lse.view(), {}});
  token_logp_backward(b, scratch, in, {}, {.log_sum_exp = lse.in(), .d_logp = d_logp.in()}, d.view());
  return {"a gradient row sums to 0", detail::sum(on.read(d)), 0, 2};
}

/// A policy that is its reference has a DPO loss of log 2.
template <class B>
law dpo_at_the_reference(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = normal_numbers(seed, 12, 1, -2);
  return {"DPO of a policy that is its reference is log 2", detail::dpo_of(on, x, x, {0, 3, 6, 9}, {3, 6, 9, 12}, {0, 2}, {1, 3}).loss, std::log(2.0), 1};
}

/// Pairs in another order: the same losses in that order, the same gradient.
template <class B>
law dpo_of_permuted_pairs(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = normal_numbers(seed, 18, 1, -2), r = normal_numbers(seed + 1, 18, 1, -2);
  const std::vector<double> begin{0, 3, 6, 9, 12, 15}, end{3, 6, 9, 12, 15, 18};
  const auto one = detail::dpo_of(on, x, r, begin, end, {0, 2, 4}, {1, 3, 5}), other = detail::dpo_of(on, x, r, begin, end, {4, 0, 2}, {5, 1, 3});
  double d = detail::largest_difference(one.d_logp, other.d_logp);
  for (const auto& [i, j] : {std::pair{0u, 1u}, {1u, 2u}, {2u, 0u}}) d = std::max(d, std::abs(one.pair_loss[i] - other.pair_loss[j]));
  return {"permuting pairs permutes their losses", d, 0, 1};
}

/// Packed, padded and one by one: the same losses.
template <class B>
law packing_is_padding(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = normal_numbers(seed, 10, 1, -2), r = normal_numbers(seed + 1, 10, 1, -2);
  const std::vector<double> begin{0, 2, 5, 9}, end{2, 5, 9, 10};
  const auto packed = detail::dpo_of(on, x, r, begin, end, {0, 2}, {1, 3});
  constexpr std::size_t width = 6;
  std::vector<double> px(4 * width, std::nan("")), pr = px, pb, pe;
  for (std::size_t s = 0; s < 4; ++s) {
    pb.push_back(static_cast<double>(s * width + 1));
    pe.push_back(pb[s] + end[s] - begin[s]);
    for (std::size_t t = 0; t < static_cast<std::size_t>(end[s] - begin[s]); ++t) {
      px[s * width + 1 + t] = x[static_cast<std::size_t>(begin[s]) + t];
      pr[s * width + 1 + t] = r[static_cast<std::size_t>(begin[s]) + t];
    }
  }
  const auto padded = detail::dpo_of(on, px, pr, pb, pe, {0, 2}, {1, 3});
  const auto first = detail::dpo_of(on, x, r, begin, end, {0}, {1}), second = detail::dpo_of(on, x, r, begin, end, {2}, {3});
  const double d = std::max(detail::largest_difference(packed.pair_loss, padded.pair_loss),
                            detail::largest_difference(packed.pair_loss, {first.pair_loss[0], second.pair_loss[0]}));
  return {"packed, padded and one by one are the same", d, 0, 1};
}

/// `-log sigmoid(x) + log sigmoid(-x) = -x`: exchanging chosen and rejected changes the Bradley-Terry loss by their difference.
template <class B>
law bradley_terry_of_exchanged_sides(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = on.vector(normal_numbers(seed, 9, 3)), y = on.vector(normal_numbers(seed + 1, 9, 3));
  const auto one = on.empty(1), other = on.empty(1);
  auto scratch = on.scratch();
  bradley_terry(b, scratch, {.chosen = x.in(), .rejected = y.in()}, {.denominator = 1}, {.loss = one.view()});
  bradley_terry(b, scratch, {.chosen = y.in(), .rejected = x.in()}, {.denominator = 1}, {.loss = other.view()});
  const double difference = detail::sum(x.given()) - detail::sum(y.given());
  return {"exchanging sides changes the Bradley-Terry loss by their difference", on.read(one)[0] - on.read(other)[0], -difference, 40};
}

/// Two micro-batches with the batch's denominator add up to the batch.
template <class B>
law micro_batches_add_up(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = on.vector(normal_numbers(seed, 10, 2)), y = on.vector(normal_numbers(seed + 1, 10, 2));
  const auto whole = on.empty(1), first = on.empty(1), second = on.empty(1);
  auto scratch = on.scratch();
  const bradley_terry_options options{.center_coefficient = 0.05, .denominator = 10};
  bradley_terry(b, scratch, {.chosen = x.in(), .rejected = y.in()}, options, {.loss = whole.view()});
  bradley_terry(b, scratch, {.chosen = x.in().slice(0, 4), .rejected = y.in().slice(0, 4)}, options, {.loss = first.view()});
  bradley_terry(b, scratch, {.chosen = x.in().slice(4, 6), .rejected = y.in().slice(4, 6)}, options, {.loss = second.view()});
  const double sum = on.read(first)[0] + on.read(second)[0];
  return {"micro-batches add up to the batch", sum, on.read(whole)[0], 4};
}

/// Predictions that are the labels cost nothing.
template <class B>
law regression_of_the_labels(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = on.matrix(4, 3, normal_numbers(seed, 12));
  const auto loss = on.empty(1);
  const auto d = on.matrix(4, 3);
  auto scratch = on.scratch();
  attribute_regression(b, scratch, {.prediction = x.in(), .label = x.in()}, {.denominator = 12}, {.loss = loss.view(), .d_prediction = d.view()});
  return {"a perfect prediction costs nothing", on.read(loss)[0] + detail::largest_difference(on.read(d), std::vector<double>(12)), 0, 0};
}

/// The token mean's gradient sums to -1.
template <class B>
law supervised_gradient_sums_to_minus_one(B& b, std::uint64_t seed) {
  detail::bench<B> on{b};
  const auto x = on.vector(normal_numbers(seed, 11, 1, -2)), d = on.empty(11);
  const auto begin = on.ids({0, 4}), end = on.ids({4, 11});
  auto scratch = on.scratch();
  supervised(b, scratch, {x.in(), {begin.in(), end.in(), {}}}, {.denominator = 11}, {.d_logp = d.view()});
  return {"the gradient of a token mean sums to -1", detail::sum(on.read(d)), -1, 1};
}

/// All of them.
template <class B>
std::vector<law> all(B& b, std::uint64_t seed) {
  return {shift_invariance(b, seed),
          probabilities_sum_to_one(b, seed),
          gradient_rows_sum_to_zero(b, seed),
          dpo_at_the_reference(b, seed),
          dpo_of_permuted_pairs(b, seed),
          packing_is_padding(b, seed),
          bradley_terry_of_exchanged_sides(b, seed),
          micro_batches_add_up(b, seed),
          regression_of_the_labels(b, seed),
          supervised_gradient_sums_to_minus_one(b, seed)};
}

}  // namespace testing::laws

PLUMB_NAMESPACE_END

#pragma once
// Level 9: operations and objectives on the backend, against the same call in double on the serial backend: log-probabilities, reward models,
// DPO, and the laws; conformance/catalogue.hpp has the rest.

#include <plumb/plumb.hpp>
#include <plumb/testing/conformance/contract.hpp>
#include <plumb/testing/laws.hpp>

PLUMB_NAMESPACE_BEGIN

namespace testing {
namespace detail {

template <class B>
class objective_checks : public contract_checks<B> {
 public:
  using contract_checks<B>::contract_checks;
  using typename suite<B>::real;
  using typename suite<B>::space;
  template <class T, int R>
  using array = placed<T, R, space>;

 protected:
  using suite<B>::b_;

  void objectives() {
    this->check(9, "token_logp", [&] { each_storage_runs("objective", [&](auto& run, auto t) { token_logp(run, t); }); });
    this->check(9, "token_logp.confident_target", [&] { confident_targets(); });
    this->check(9, "linear_token_logp", [&] { each_storage_runs("gradient", [&](auto& run, auto t) { linear_token_logp(run, t); }); });
    this->check(9, "bradley_terry", [&] { runs("objective", [&](auto& run) { bradley_terry(run); }); });
    this->check(9, "attribute_regression", [&] { runs("objective", [&](auto& run) { attribute_regression(run); }); });
    this->check(9, "supervised", [&] { runs("objective", [&](auto& run) { supervised(run); }); });
    this->check(9, "dpo", [&] { runs("objective", [&](auto& run) { dpo(run); }); });
    this->check(9, "laws", [&] {
      for (const auto& l : laws::all(b_, this->options_.seed)) {
        this->context(l.name);
        this->note(compare({l.got}, {{l.want}, {l.magnitude}}, tolerance_of<real>("objective")), dtype_name<real>());
      }
    });
  }

  /// One side of a comparison: a backend with arrays in its memory, and what came out, in the order of the calls.
  template <class C, bool Exact>
  struct side {
    using backend = C;
    using real = real_of<C>;
    using space = space_of<C>;
    template <class T, int R>
    using array = placed<T, R, space>;
    /// How this side stores what the backend under test stores as `T`: the reference rounds nothing.
    template <class T>
    using storage = std::conditional_t<Exact || std::is_same_v<T, real_of<B>>, real, T>;

    struct output {
      std::vector<double> values;
      double rounding;  ///< of its storage, relative
    };
    C& compute;
    std::vector<output> outputs{};
    block<space> memory{std::size_t{1} << 22};

    arena<space> scratch() { return {memory.data(), memory.bytes()}; }
    /// Inputs as `real` of the backend under test rounds them, on both sides.
    template <int R>
    array<real, R> in(const index_t (&extents)[R], std::vector<double> values) const {
      for (double& v : values) v = suite<B>::template round_to<real_of<B>>(v);
      return {extents, placement::dense, values};
    }
    array<real, 1> vector(const std::vector<double>& values) const { return in<1>({static_cast<index_t>(values.size())}, values); }
    /// An output: every byte of it is 0xff.
    array<real, 1> empty(index_t count) const { return in<1>({count}, {}); }
    array<real, 2> empty(index_t rows, index_t columns) const { return in<2>({rows, columns}, {}); }
    /// Bytes, or ids.
    template <class T>
    array<T, 1> whole(const std::vector<double>& values) const {
      return {{static_cast<index_t>(values.size())}, placement::dense, values};
    }
    template <class... A>
    void out(const A&... results) {
      compute.sync();
      (outputs.push_back({results.read(), rounding_of(results)}), ...);
    }
    /// Results of a gradient of the logits that was rounded to `T` on the way: each entry by half a unit, the products of such by no more.
    template <class T, class... A>
    void out_through(std::type_identity<T>, const A&... results) {
      const std::size_t first = outputs.size();
      out(results...);
      if constexpr (!std::is_same_v<T, real_of<B>>)
        for (std::size_t i = first; i < outputs.size(); ++i) outputs[i].rounding += 2 * storage_epsilon<T>();
    }
    /// Metrics `[names, 2]`, each a sum and the count of its terms: names differ in size, a sum's terms are of order 1.
    template <class M>
    void out_metrics(const M& metrics) {
      compute.sync();
      const auto values = metrics.read();
      for (std::size_t i = 0; i + 1 < values.size(); i += 2) outputs.push_back({{values[i], values[i + 1]}, 0});
    }
    template <class T, int R, class S>
    static double rounding_of(const placed<T, R, S>&) {
      return std::is_same_v<T, real_of<B>> ? 0 : storage_epsilon<T>();
    }
  };

  template <class F>
  void runs(const char* operation, const F& f) {
    serial::backend<double> reference;
    side<serial::backend<double>, true> want{reference};
    side<B, false> got{b_};
    f(want);
    f(got);
    for (std::size_t i = 0; i < want.outputs.size(); ++i) {
      // Relative to the largest number of each result: a gradient's small entries come from large ones.
      const auto& values = want.outputs[i].values;
      const expectation e{values, std::vector<double>(values.size(), oracle::largest_magnitude(values))};
      this->context("result " + std::to_string(i));
      for (const double v : values) this->require(!math::is_nan(v), "the reference says NaN: this result was never written");
      this->note(compare(got.outputs[i].values, e, tolerance_of<real>(operation) + got.outputs[i].rounding), dtype_name<real>());
    }
  }
  template <class F>
  void each_storage_runs(const char* operation, const F& f) {
    this->each_storage([&]<class T>(std::type_identity<T> t) { runs(operation, [&](auto& run) { f(run, t); }); });
  }
  std::vector<double> rounded_normals(std::uint64_t stream, index_t count, double deviation, double (*round)(double)) const {
    auto x = this->normals(stream, count, deviation);
    for (double& v : x) v = round(v);
    return x;
  }

 private:
  template <class Side, class T>
  void token_logp(Side& run, std::type_identity<T>) {
    using S = typename Side::template storage<T>;
    constexpr index_t n = 6, v = 37;
    typename Side::template array<S, 2> logits({n, v}, placement::padded, rounded_normals(70, n * v, 3, suite<B>::template round_to<T>)),
        d_logits({n, v}, placement::padded);
    typename Side::template array<std::int32_t, 1> targets({n}, placement::dense, this->ids(71, n, v));
    typename Side::template array<typename Side::real, 1> logp({n}, placement::dense), lse({n}, placement::dense), entropy({n}, placement::dense);
    const auto d_logp = run.template in<1>({n}, this->normals(72, n)), d_entropy = run.template in<1>({n}, this->normals(73, n));
    auto scratch = run.scratch();
    const token_logp_options options{.temperature = 0.8, .softcap = 20};
    const token_logp_inputs<S, typename Side::space> in{logits.in(), targets.in()};
    plumb::token_logp(run.compute, scratch, in, options, {logp.view(), lse.view(), entropy.view()});
    plumb::token_logp_backward(run.compute, scratch, in, options,
                               {.log_sum_exp = lse.in(), .d_logp = d_logp.in(), .entropy = entropy.in(), .d_entropy = d_entropy.in()},
                               d_logits.view());
    run.out(logp, lse, entropy, d_logits);
  }

  // Where the target's probability is p, its gradient is the small c (1 - p). A softmax part that is rounded to its storage before the one-hot
  // term is added has an error of up to c p 2^-9 in bf16: percents of the element at p = 0.9, all of it at 0.9999.
  void confident_targets() {
    bool any = false;
    this->each_storage([&]<class T>(std::type_identity<T>) {
      if constexpr (sizeof(T) < sizeof(real)) {
        any = true;
        for (const bool in_place : {false, true}) confident_targets_in<T>(in_place);
      }
    });
    if (!any) this->not_run("no storage type is narrower than `real`");
  }
  template <class T>
  void confident_targets_in(bool in_place) {
    constexpr double probabilities[] = {0.9, 0.97, 0.99, 0.997, 0.999, 0.9997, 0.9999};
    constexpr index_t n = static_cast<index_t>(std::size(probabilities)), v = 9;
    auto values = rounded_normals(87, n * v, 0.1, suite<B>::template round_to<T>);
    const auto d_logp_values = this->normals(88, n);
    std::vector<double> ids;
    for (index_t i = 0; i < n; ++i) {
      const double p = probabilities[i];
      ids.push_back(static_cast<double>(i % v));
      values[static_cast<std::size_t>(i * v + i % v)] = suite<B>::template round_to<T>(std::log(p / (1 - p) * (v - 1)));
    }
    array<T, 2> logits({n, v}, placement::dense, values), apart({n, v}, placement::dense);
    array<std::int32_t, 1> targets({n}, placement::dense, ids);
    array<real, 1> lse({n}, placement::dense), d_logp({n}, placement::dense, d_logp_values);
    auto scratch = this->scratch();
    const token_logp_inputs<T, space> in{logits.in(), targets.in()};
    auto& d_logits = in_place ? logits : apart;
    plumb::token_logp(b_, scratch, in, {}, {.log_sum_exp = lse.view()});
    plumb::token_logp_backward(b_, scratch, in, {}, {.log_sum_exp = lse.in(), .d_logp = d_logp.in()}, d_logits.view());
    b_.sync();
    const auto got = d_logits.read();
    const oracle::matrix x{logits.given(), n, v};
    for (index_t i = 0; i < n; ++i) {
      const double log_sum_exp = oracle::log_sum_exp(x.row(i)), c = d_logp.given()[static_cast<std::size_t>(i)];
      double others = 0;
      for (index_t j = 0; j < v; ++j) others += j == i % v ? 0 : std::exp(x.at(i, j) - log_sum_exp);
      this->context("a target of probability " + number_text(1 - others));
      // One rounding to T; the softmax itself is only as good as `real`, at the magnitude of its exponent.
      const double softmax = std::abs(c) * (1 + oracle::largest_magnitude(x.row(i)));
      this->note(compare({got[static_cast<std::size_t>(i * v + i % v)]}, {{c * others}, {1}},
                         storage_epsilon<T>() * std::abs(c * others) + storage_step<T>() + tolerance_of<real>("row_softmax") * softmax),
                 dtype_name<T>());
    }
  }

  template <class Side, class T>
  void linear_token_logp(Side& run, std::type_identity<T> t) {
    using S = typename Side::template storage<T>;
    constexpr index_t n = 9, d = 16, v = 37, scored = 5;
    constexpr auto round = suite<B>::template round_to<T>;
    typename Side::template array<S, 2> hidden({n, d}, placement::dense, rounded_normals(74, n * d, 1, round)),
        head({v, d}, placement::dense, rounded_normals(75, v * d, 1, round)), d_hidden({n, d}, placement::dense);
    typename Side::template array<S, 1> bias({v}, placement::dense, rounded_normals(76, v, 1, round));
    typename Side::template array<std::int32_t, 1> rows({scored}, placement::dense, {0, 2, 3, 7, 8}),
        targets({scored}, placement::dense, {5, 36, 0, -1, 11});
    using R = typename Side::real;
    typename Side::template array<R, 1> logp({scored}, placement::dense), lse({scored}, placement::dense), d_bias({v}, placement::dense);
    typename Side::template array<R, 2> d_head({v, d}, placement::dense);
    const auto d_logp = run.template in<1>({scored}, this->normals(77, scored));
    auto scratch = run.scratch();
    const linear_token_logp_inputs<S, typename Side::space> in{hidden.in(), head.in(), bias.in(), targets.in(), rows.in()};
    const linear_token_logp_options options{.chunk_rows = 2};
    plumb::linear_token_logp(run.compute, scratch, in, options, {logp.view(), lse.view(), {}});
    plumb::linear_token_logp_backward(run.compute, scratch, in, options, {.log_sum_exp = lse.in(), .d_logp = d_logp.in()},
                                      {.d_hidden = d_hidden.view(), .d_head = d_head.view(), .d_bias = d_bias.view()});
    run.out(logp, lse, d_bias);
    run.out_through(t, d_hidden, d_head);
  }

  template <class Side>
  void bradley_terry(Side& run) {
    constexpr index_t p = 13;
    const auto chosen = run.template in<1>({p}, this->normals(78, p, 2)), rejected = run.template in<1>({p}, this->normals(79, p, 2)),
               margin = run.template in<1>({p}, this->normals(80, p)), scale = run.template in<1>({p}, this->normals(81, p, 0.1, 1));
    typename Side::template array<std::uint8_t, 1> valid({p}, placement::dense, {1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1});
    const auto zero = [&] { return run.template in<1>({p}, {}); };
    auto loss = run.template in<1>({1}, {});
    auto d_chosen = zero(), d_rejected = zero(), d_margin = zero(), pair_loss = zero();
    auto metrics = run.template in<2>({7, 2}, {});
    auto scratch = run.scratch();
    plumb::bradley_terry(run.compute, scratch, {chosen.in(), rejected.in(), margin.in(), scale.in(), valid.in()},
                         {.center_coefficient = 0.01, .denominator = 11},
                         {loss.view(), d_chosen.view(), d_rejected.view(), d_margin.view(), pair_loss.view(), metrics.view()});
    run.out(loss, d_chosen, d_rejected, d_margin, pair_loss);
    run.out_metrics(metrics);
  }

  template <class Side>
  void attribute_regression(Side& run) {
    constexpr index_t n = 7, k = 5;
    auto labels = this->normals(82, n * k, 1, 2);
    labels[3] = labels[11] = labels[20] = -100;
    const auto prediction = run.template in<2>({n, k}, this->normals(83, n * k, 1, 2)), label = run.template in<2>({n, k}, labels);
    const auto weights = run.template in<1>({k}, {0.65, 0.8, 0.45, 0, -0.4});
    auto loss = run.template in<1>({1}, {}), reward = run.template in<1>({n}, {});
    auto d_prediction = run.template in<2>({n, k}, {}), metrics = run.template in<2>({k, 2}, {});
    auto scratch = run.scratch();
    plumb::attribute_regression(run.compute, scratch, {prediction.in(), label.in()}, {.denominator = n * k - 3},
                                {loss.view(), d_prediction.view(), metrics.view()});
    plumb::goal_reward(run.compute, scratch, prediction.in(), weights.in(), {.mean = 1, .standard_deviation = 2}, reward.view());
    run.out(loss, d_prediction, reward);
    run.out_metrics(metrics);
  }

  template <class Side>
  void supervised(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_sequences<typename Side::space> where(l, placement::dense);
    const auto logp = run.template in<1>({l.tokens}, this->normals(84, l.tokens, 1, -2));
    for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean}) {
      auto loss = run.template in<1>({1}, {}), d_logp = run.template in<1>({l.tokens}, {});
      auto metrics = run.template in<2>({2, 2}, {});
      auto scratch = run.scratch();
      plumb::supervised(run.compute, scratch, {logp.in(), where.layout()}, {.aggregate = a, .denominator = 6},
                        {loss.view(), d_logp.view(), metrics.view()});
      run.out(loss, d_logp);
      run.out_metrics(metrics);
    }
  }

  template <class Side>
  void dpo(Side& run) {
    const auto l = ragged_sequences(true);
    const placed_sequences<typename Side::space> where(l, placement::dense);
    const auto logp = run.template in<1>({l.tokens}, this->normals(85, l.tokens, 1, -2)), ref = run.template in<1>({l.tokens}, this->normals(86, l.tokens, 1, -2));
    typename Side::template array<std::int32_t, 1> chosen({3}, placement::dense, {0, 3, 4}), rejected({3}, placement::dense, {1, 5, 0});
    for (const bool reference_free : {false, true}) {
      auto loss = run.template in<1>({1}, {}), d_logp = run.template in<1>({l.tokens}, {}), pair_loss = run.template in<1>({3}, {});
      auto metrics = run.template in<2>({6, 2}, {});
      auto scratch = run.scratch();
      plumb::dpo(run.compute, scratch, {logp.in(), reference_free ? decltype(ref.in()){} : ref.in(), {where.layout(), chosen.in(), rejected.in()}},
                 {.beta = 0.3, .label_smoothing = 0.1, .reference_free = reference_free, .denominator = 3},
                 {loss.view(), d_logp.view(), pair_loss.view(), metrics.view()});
      run.out(loss, d_logp, pair_loss);
      run.out_metrics(metrics);
    }
  }
};

}  // namespace detail
}  // namespace testing

PLUMB_NAMESPACE_END

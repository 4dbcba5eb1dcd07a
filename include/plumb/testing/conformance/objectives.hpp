#pragma once
// Level 9: every public operation and objective on the backend, against the same call in double on the serial backend, and the laws.

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

  /// All levels.
  void run() {
    this->operations();
    this->contract();
    this->check(9, "token_logp", [&] { each_storage_runs("objective", [&](auto& run, auto t) { token_logp(run, t); }); });
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
    this->level_done();
  }

 private:
  using suite<B>::b_;

  /// One side of a comparison: a backend with arrays in its memory, and what came out, in the order of the calls.
  template <class C>
  struct side {
    using backend = C;
    using real = real_of<C>;
    using space = space_of<C>;
    template <class T, int R>
    using array = placed<T, R, space>;

    C& compute;
    std::vector<std::vector<double>> outputs{};
    block<space> memory{std::size_t{1} << 22};

    arena<space> scratch() { return {memory.data(), memory.bytes()}; }
    /// Inputs as `real` of the backend under test rounds them, on both sides.
    template <int R>
    array<real, R> in(const index_t (&extents)[R], std::vector<double> values) const {
      for (double& v : values) v = suite<B>::template round_to<real_of<B>>(v);
      return {extents, placement::dense, values};
    }
    template <class... A>
    void out(const A&... results) {
      compute.sync();
      (outputs.push_back(results.read()), ...);
    }
  };

  template <class F>
  void compare_sides(const char* operation, double extra, const F& f) {
    serial::backend<double> reference;
    side<serial::backend<double>> want{reference};
    side<B> got{b_};
    f(want);
    f(got);
    for (std::size_t i = 0; i < want.outputs.size(); ++i) {
      // Relative to the largest number of each result: a gradient's small entries come from large ones.
      expectation e{want.outputs[i], std::vector<double>(want.outputs[i].size(), oracle::scale_of(want.outputs[i]))};
      this->context("result " + std::to_string(i));
      this->note(compare(got.outputs[i], e, tolerance_of<real>(operation) + extra), dtype_name<real>());
    }
  }
  template <class F>
  void runs(const char* operation, const F& f) {
    compare_sides(operation, 0, f);
  }
  /// Storage types that both sides have; results stored in 16 bits, or computed from such, are allowed 2e-2.
  template <class F>
  void each_storage_runs(const char* operation, const F& f) {
    this->each_storage([&]<class T>(std::type_identity<T> t) {
      const double extra = std::is_same_v<T, bf16> ? 2e-2 : std::is_same_v<T, f16> ? 4e-3 : 0;
      compare_sides(operation, extra, [&](auto& run) { f(run, t); });
    });
  }
  // Where the other side's type is the real one, so is ours.
  template <class Side, class T>
  using storage_for = std::conditional_t<std::is_same_v<T, real>, typename Side::real, T>;

  template <class Side, class T>
  void token_logp(Side& run, std::type_identity<T>) {
    using S = storage_for<Side, T>;
    constexpr index_t n = 6, v = 37;
    auto values = this->normals(70, n * v, 3);
    for (double& x : values) x = suite<B>::template round_to<T>(x);
    typename Side::template array<S, 2> logits({n, v}, placement::padded, values), d_logits({n, v}, placement::padded);
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

  template <class Side, class T>
  void linear_token_logp(Side& run, std::type_identity<T>) {
    using S = storage_for<Side, T>;
    constexpr index_t n = 9, d = 16, v = 37, scored = 5;
    auto h = this->normals(74, n * d), w = this->normals(75, v * d), b = this->normals(76, v);
    for (auto* list : {&h, &w, &b})
      for (double& x : *list) x = suite<B>::template round_to<T>(x);
    typename Side::template array<S, 2> hidden({n, d}, placement::dense, h), head({v, d}, placement::dense, w), d_hidden({n, d}, placement::dense);
    typename Side::template array<S, 1> bias({v}, placement::dense, b);
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
    run.out(logp, lse, d_hidden, d_head, d_bias);
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
    run.out(loss, d_chosen, d_rejected, d_margin, pair_loss, metrics);
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
    run.out(loss, d_prediction, metrics, reward);
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
      run.out(loss, d_logp, metrics);
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
      run.out(loss, d_logp, pair_loss, metrics);
    }
  }
};

}  // namespace detail
}  // namespace testing

PLUMB_NAMESPACE_END

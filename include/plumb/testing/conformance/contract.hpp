#pragma once
// Level 8: what holds for every operation. Most of it runs levels 1 to 7 once more, under other conditions.

#include <plumb/backends/serial.hpp>
#include <plumb/ops/gae.hpp>
#include <plumb/ops/ranks.hpp>
#include <plumb/ops/token_logp.hpp>
#include <plumb/testing/conformance/operations.hpp>

#include <algorithm>
#include <cstring>

PLUMB_NAMESPACE_BEGIN

namespace testing {
namespace detail {

template <class B>
class contract_checks : public operation_checks<B> {
 public:
  using operation_checks<B>::operation_checks;
  using typename suite<B>::real;
  using typename suite<B>::space;
  template <class T, int R>
  using array = placed<T, R, space>;

 protected:
  using suite<B>::b_;

  void contract() {
    this->check(8, "guards", [&] { this->require(this->guards_.empty(), this->guards_.c_str()); });
    this->check(8, "nan", [&] { nan(); });
    this->check(8, "order", [&] { order(); });
    this->check(8, "errors", [&] { errors(); });
    this->check(8, "scratch", [&] { scratch_poisoned(); });
    this->check(8, "determinism", [&] { determinism_of_runs(); });
    this->check(8, "determinism.threads", [&] { determinism_of_threads(); });
    this->check(8, "allocations", [&] { allocations(); });
    this->check(8, "capability.token_logp", [&] { fused_token_logp(); });
    this->check(8, "capability.token_logp_grad", [&] { fused_token_logp_grad(); });
    this->check(8, "capability.gae", [&] { fused_gae(); });
    this->check(8, "capability.ranks", [&] { native_ranks(); });
    this->level_done();
  }

 private:
  bool runs_agree_ = true;
  static constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

  /// Runs levels again (all of 0 to 7, or one of them); nothing is recorded but the digest of all outputs, which is returned.
  std::uint64_t replay(int level = -1) {
    this->replaying_ = true;
    this->replayed_level_ = level;
    this->replay_failure_.clear();
    this->digest_ = 1;
    this->operations();
    this->replaying_ = false;
    return this->digest_;
  }

  // A NaN comes out wherever it went in, and nowhere else.
  void nan() {
    constexpr double n = not_a_number;
    using m = oracle::matrix;
    {
      this->context("transform");
      array<real, 1> x({3}, placement::dense, {1, n, 3}), y({3}, placement::dense);
      this->call([&] { b_.transform(math::scale<real>{real(2)}, y.view(), x.in()); });
      this->expect(y, expectation::plain({2, n, 6}), "transform");
    }
    for (const reduction op : {reduction::sum, reduction::max}) {
      this->context(op == reduction::sum ? "reduce, sum" : "reduce, max");
      array<real, 2> x({3, 3}, placement::dense, {1, n, 3, 4, 5, 6, n, 8, 9}), y({3, 1}, placement::dense);
      this->call([&] { b_.reduce(op, x.in(), y.view(), write_mode::overwrite); });
      this->expect(y, expectation::plain({n, op == reduction::sum ? 15.0 : 6.0, n}), "reduce");
      this->context(op == reduction::sum ? "segment_reduce, sum" : "segment_reduce, max");
      const oracle::sequences l{.begin = {0, 3}, .end = {3, 6}, .tokens = 6};
      const placed_sequences<space> where(l, placement::dense);
      array<real, 1> t({6}, placement::dense, {1, 2, n, 4, 5, 6}), s({2}, placement::dense);
      this->call([&] { b_.segment_reduce(op, t.in(), where.layout(), s.view()); });
      this->expect(s, expectation::plain({n, op == reduction::sum ? 15.0 : 6.0}), "segment_reduce");
    }
    {
      this->context("segment_scan");
      const oracle::sequences l{.begin = {0, 3}, .end = {3, 5}, .tokens = 5};
      const placed_sequences<space> where(l, placement::dense);
      array<real, 1> a({5}, placement::dense, {1, 1, 1, 1, 1}), x({5}, placement::dense, {1, n, 3, 4, 5}), y({5}, placement::dense);
      this->call([&] { b_.segment_scan(a.in(), x.in(), where.layout(), y.view()); });
      this->expect(y, expectation::plain({n, n, 3, 9, 5}), "segment_scan");
    }
    const m logits{{1, n, 3, 4, 4, 4, oracle::infinity, n, 0}, 3, 3};
    array<real, 2> x({3, 3}, placement::dense, logits.values), y({3, 3}, placement::dense);
    {
      this->context("row_log_sum_exp");
      array<real, 1> z({3}, placement::dense);
      this->call([&] { b_.row_log_sum_exp(x.in(), z.view()); });
      this->expect(z, {{n, 4 + std::log(3.0), n}, {0, 4, 0}}, "row_log_sum_exp");
    }
    {
      this->context("row_softmax");
      const m finite{{1, n, 3, 4, 4, 4}, 2, 3};
      array<real, 2> in({2, 3}, placement::dense, finite.values), out({2, 3}, placement::dense);
      this->call([&] { b_.row_softmax(in.in(), {}, out.view()); });
      this->expect(out, {{n, n, n, 1.0 / 3, 1.0 / 3, 1.0 / 3}, {0, 0, 0, 1, 1, 1}}, "row_softmax");
    }
    {
      this->context("row_gather");
      array<std::int32_t, 1> which({2}, placement::dense, {0, -1});
      array<real, 2> rows({2, 3}, placement::dense);
      this->call([&] { b_.row_gather(x.in(), which.in(), rows.view()); });
      this->expect(rows, expectation::plain({1, n, 3, 0, 0, 0}), "row_gather");
    }
    {
      this->context("gemm");
      array<real, 2> a({2, 2}, placement::dense, {1, n, 3, 4}), b({2, 2}, placement::dense, {1, 2, 0, 1}), c({2, 2}, placement::dense);
      auto scratch = this->scratch(b_.gemm_workspace(a.in(), b.in(), c.view()));
      this->call([&] { b_.gemm(scratch, real(1), a.in(), b.in(), real(0), c.view()); });
      this->expect(c, {{n, n, 3, 10}, {0, 0, 3, 10}}, "gemm");
    }
  }

  // A chain of operations that each depend on the one before, and one that overwrites what an earlier one still has to read; one wait.
  void order() {
    constexpr index_t n = 9, d = 4;
    array<real, 2> x({n, d}, placement::dense, this->normals(50, n * d)), w({d, d}, placement::dense, this->normals(51, d * d));
    array<real, 2> y({n, d}, placement::dense), z({n, d}, placement::dense), u({n, d}, placement::dense);
    array<real, 1> sum({n}, placement::dense), total({1}, placement::dense);
    const auto product = oracle::gemm(1, {x.given(), n, d}, {w.given(), d, d}, 0, {});
    const auto twice = oracle::gemm(1, {product.value, n, d}, {w.given(), d, d}, 0, {});
    // What enters two products: the terms of the first one's terms.
    auto sizes = w.given();
    for (double& v : sizes) v = std::abs(v);
    const auto magnitude = oracle::gemm(2, {product.magnitude, n, d}, {sizes, d, d}, 0, {}).value;
    auto scratch = this->scratch();
    this->call([&] {
      b_.gemm(scratch, real(1), x.in(), w.in(), real(0), y.view());
      b_.gemm(scratch, real(1), y.in(), w.in(), real(0), z.view());  // the same scratch again
      b_.copy(z.in(), u.view());
      b_.fill(z.view(), real(7));
      b_.reduce(reduction::sum, u.in(), as_column(sum.view()), write_mode::overwrite);
      b_.transform(math::scale<real>{real(3)}, sum.view(), sum.in());
      b_.reduce(reduction::sum, sum.in(), total.view(), write_mode::overwrite);
    });
    expectation u_want{twice.value, magnitude}, sum_want, total_want{{0}, {0}};
    for (std::size_t i = 0; i < n; ++i) {
      double s = 0, m = 0;
      for (std::size_t j = 0; j < d; ++j) {
        s += twice.value[i * d + j];
        m += 2 * magnitude[i * d + j];  // the product's rounding and the sum's
      }
      sum_want.push(3 * s, 3 * m);
      total_want.value[0] += 3 * s;
      total_want.magnitude[0] += 2 * 3 * m;
    }
    this->expect(u, u_want, "gemm");
    this->expect(z, expectation::plain(std::vector<double>(n * d, 7)), "fill");
    this->expect(sum, sum_want, "reduce");
    this->expect(total, total_want, "reduce");
  }

  // Wrong shapes are refused by name before anything is written.
  void errors() {
#if defined(PLUMB_NO_EXCEPTIONS)
    this->not_run("errors end the program where exceptions are off");
#else
    array<real, 2> x({4, 6}, placement::dense, this->normals(52, 24)), y({4, 6}, placement::dense, this->normals(53, 24));
    array<real, 1> t({24}, placement::dense, this->normals(54, 24)), r({24}, placement::dense, this->normals(55, 24));
    array<std::int32_t, 1> which({24}, placement::dense, this->ids(56, 24, 4, 0));
    const oracle::sequences l{.begin = {0, 4}, .end = {4, 8}, .tokens = 8};
    const placed_sequences<space> where(l, placement::dense);
    const auto short_row = [](auto v, index_t extent) { return v.narrow(v.rank - 1, 0, extent); };
    auto scratch = this->scratch();
    const auto refuses = [&](const char* operation, const auto& wrong) {
      this->context(operation);
      bool refused = false;
      try {
        wrong();
      } catch (const precondition_error& e) {
        refused = std::strstr(e.what(), operation) != nullptr;
        this->require(refused, "the message does not name the operation");
      }
      b_.sync();
      this->require(refused, "a wrong shape is not refused");
      this->require(y.unchanged() && r.unchanged() && t.unchanged() && x.unchanged(), "something was written before the refusal");
    };
    const auto xs = x.in();
    const auto narrow = short_row(x.in(), 5);
    refuses("copy", [&] { b_.copy(narrow, y.view()); });
    refuses("transform", [&] { b_.transform(math::plus{}, y.view(), xs, narrow); });
    refuses("transform", [&] { b_.transform2(mix2{}, y.view(), short_row(y.view(), 5), xs, xs); });
    refuses("reduce", [&] { b_.reduce(reduction::sum, xs, short_row(y.view(), 3).slice(0, 1), write_mode::overwrite); });
    refuses("segment_reduce", [&] { b_.segment_reduce(reduction::sum, t.in(), where.layout(), short_row(r.view(), 3)); });
    refuses("segment_broadcast", [&] { b_.segment_broadcast(short_row(t.in(), 3), where.layout(), r.view(), write_mode::overwrite); });
    refuses("segment_scan", [&] { b_.segment_scan(short_row(t.in(), 8), short_row(t.in(), 7), where.layout(), short_row(r.view(), 8)); });
    refuses("row_log_sum_exp", [&] { b_.row_log_sum_exp(xs, short_row(r.view(), 3)); });
    refuses("row_pick", [&] { b_.row_pick(xs, short_row(which.in(), 3), short_row(r.view(), 4)); });
    refuses("row_add_at", [&] { b_.row_add_at(short_row(t.in(), 3), short_row(which.in(), 4), y.view()); });
    refuses("row_gather", [&] { b_.row_gather(xs, short_row(which.in(), 3), y.view()); });
    refuses("row_scatter_add", [&] { b_.row_scatter_add(narrow, short_row(which.in(), 4), y.view()); });
    refuses("row_softmax", [&] { b_.row_softmax(narrow, {}, y.view()); });
    refuses("row_softmax_grad", [&] { b_.row_softmax_grad(xs, narrow, y.view()); });
    refuses("gemm", [&] { b_.gemm(scratch, real(1), xs, narrow.transposed(), real(0), y.view()); });
#endif
  }

  void scratch_poisoned() {
    this->poison_ = true;
    replay(7);
    this->poison_ = false;
    this->scratch_memory_.fill(0);
    this->context("with NaN in the scratch memory, and no more of it than gemm_workspace says");
    this->require(this->replay_failure_.empty(), this->replay_failure_.c_str());
  }

  void determinism_of_runs() {
    const std::uint64_t first = replay(), second = replay();
    if constexpr (std::remove_cvref_t<B>::determinism_level == determinism::none) return this->not_run("the backend declares none");
    this->require(this->replay_failure_.empty(), this->replay_failure_.c_str());
    runs_agree_ = first == second;
    this->require(runs_agree_, "two runs of the same operations gave other bits, but the backend declares run_to_run");
  }

  void determinism_of_threads() {
    if constexpr (std::remove_cvref_t<B>::determinism_level < determinism::thread_count_invariant)
      return this->not_run("the backend does not declare it");
    if (!runs_agree_) return this->not_run("two runs with the same threads differ already");
    if (this->options_.set_threads == nullptr) return this->not_run("no set_threads given (conformance_options::set_threads)");
    this->options_.set_threads(1);
    const std::uint64_t one = replay();
    this->options_.set_threads(2);
    const std::uint64_t more = replay();
    this->require(one == more, "one and two threads gave other bits");
  }

  void allocations() {
    if (this->options_.allocations == nullptr) return this->not_run("no allocation counter given (conformance_options::allocations)");
    this->allocation_.clear();
    replay();
    this->require(this->allocation_.empty(), this->allocation_.c_str());
  }

  // Fused forms equal the composition (computed from the same logits in `real`), for every subset of outputs, options that map logits,
  // ignored targets, no rows; and for rows with -inf, +inf and NaN entries, all -inf among them, the target at such an entry or not.
  template <class F>
  void each_token_case(const F& f) {
    constexpr index_t shapes[][2] = {{1, 1}, {4, 7}, {3, 129}, {2, 1000}, {0, 5}};
    const token_logp_options options[] = {{}, {.temperature = 0.7}, {.softcap = 5, .logit_scale = 0.5}};
    const auto run = [&](index_t n, index_t v, const std::vector<double>& logits, const std::vector<double>& targets) {
      const index_t shape[2] = {n, v};
      for (const auto& o : options)
        for (const placement p : {placement::dense, placement::padded, placement::strided}) {
          this->context(shape_text(shape, 2) + ", " + placement_name(p));
          f(n, v, o, p, logits, targets);
        }
    };
    for (const auto& [n, v] : shapes) run(n, v, this->normals(60, n * v, 4), this->ids(61, n, v));
    constexpr index_t n = suite<B>::odd_rows + 2;
    for (const index_t v : {index_t{9}, index_t{70}}) {
      const auto logits = this->with_odd_rows(66, n, v, 4);
      for (const index_t at : {index_t{0}, v / 2, v - 1, index_t{1}, index_t{-1}})
        run(n, v, logits, std::vector<double>(static_cast<std::size_t>(n), static_cast<double>(at)));
    }
  }

  void fused_token_logp() {
    if constexpr (!declares<B, cap::token_logp>) {
      this->not_run("not declared: composed of the required operations");
    } else {
      this->each_storage([&]<class T>(std::type_identity<T>) {
        each_token_case([&](index_t n, index_t v, const token_logp_options& o, placement p, const std::vector<double>& values,
                            const std::vector<double>& ids) {
          array<T, 2> logits({n, v}, p, values);
          array<real, 2> same({n, v}, p, logits.given());
          array<std::int32_t, 1> targets({n}, p, ids);
          array<real, 1> want_logp({n}, p), want_lse({n}, p), want_entropy({n}, p);
          auto scratch = this->scratch();
          const token_logp_inputs<T, space> in{logits.in(), targets.in()};
          this->call([&] {
            plumb::detail::compose_token_logp(b_, scratch, token_logp_inputs<real, space>{same.in(), targets.in()}, o,
                                              {want_logp.view(), want_lse.view(), want_entropy.view()});
          });
          const auto magnitudes = oracle::token_logp_magnitudes({logits.given(), n, v}, targets.given(), o);
          for (int given = 1; given < 8; ++given) {
            array<real, 1> logp({n}, p), lse({n}, p), entropy({n}, p);
            token_logp_outputs<real, space> out;
            if (given & 1) out.logp = logp.view();
            if (given & 2) out.log_sum_exp = lse.view();
            if (given & 4) out.entropy = entropy.view();
            this->call([&] { b_.token_logp(in, o, out); });
            if (given & 1) this->expect(logp, {want_logp.read(), magnitudes.logp}, "token_logp");
            if (given & 2) this->expect(lse, {want_lse.read(), magnitudes.log_sum_exp}, "token_logp");
            if (given & 4) this->expect(entropy, {want_entropy.read(), magnitudes.entropy}, "entropy");
          }
          this->require(logits.unchanged() && targets.unchanged(), "an input was changed");
        });
      });
    }
  }

  void fused_token_logp_grad() {
    if constexpr (!declares<B, cap::token_logp_grad>) {
      this->not_run("not declared: composed of the required operations");
    } else {
      this->each_storage([&]<class T>(std::type_identity<T>) {
        each_token_case([&](index_t n, index_t v, const token_logp_options& o, placement p, const std::vector<double>& values,
                            const std::vector<double>& ids) {
          array<T, 2> logits({n, v}, p, values), got({n, v}, p);
          array<real, 2> same({n, v}, p, logits.given()), want({n, v}, p);
          array<std::int32_t, 1> targets({n}, p, ids);
          array<real, 1> lse({n}, p), entropy({n}, p), d_logp({n}, p, this->normals(64, n)), d_entropy({n}, p, this->normals(65, n));
          auto scratch = this->scratch();
          const token_logp_inputs<T, space> in{logits.in(), targets.in()};
          const token_logp_inputs<real, space> same_in{same.in(), targets.in()};
          this->call([&] { plumb::detail::compose_token_logp(b_, scratch, same_in, o, {{}, lse.view(), entropy.view()}); });
          for (int given = 1; given < 4; ++given)
            for (const bool in_place : {false, true}) {
              token_logp_gradients<real, space> g{.log_sum_exp = lse.in()};
              if (given & 1) g.d_logp = d_logp.in();
              if (given & 2) {
                g.entropy = entropy.in();
                g.d_entropy = d_entropy.in();
              }
              logits.upload();
              this->call([&] { plumb::detail::compose_token_logp_grad(b_, scratch, same_in, o, g, want.view()); });
              const auto magnitudes = oracle::token_logp_magnitudes({logits.given(), n, v}, targets.given(), o,
                                                                    (given & 1) != 0 ? d_logp.given() : std::vector<double>{},
                                                                    (given & 2) != 0 ? d_entropy.given() : std::vector<double>{});
              auto& out = in_place ? logits : got;
              this->call([&] { b_.token_logp_grad(in, o, g, out.view()); });
              this->expect(out, {want.read(), magnitudes.d_logits}, "token_logp_grad");
              this->require(in_place || logits.unchanged(), "an input was changed");
            }
        });
      });
    }
  }

  // Advantages and returns are those of the composition, for every subset of inputs and outputs; what is not scored holds NaN, and so does the last
  // lambda, which has no part; a NaN that has one reaches the tokens before it in its sequence.
  void fused_gae() {
    if constexpr (!declares<B, cap::gae>) {
      this->not_run("not declared: composed of the required operations");
    } else {
      for (const bool masked : {false, true})
        for (const bool spoilt : {false, true})
          this->each_layout(masked, [&](const oracle::sequences& l, placement p) {
            const auto of_tokens = [&](std::uint64_t stream, double deviation, double mean) {
              return this->with_nan_where_not_scored(this->normals(stream, l.tokens, deviation, mean), l);
            };
            auto rewards = of_tokens(76, 1, 0), lambdas = of_tokens(77, 0.05, 0.9);
            for (std::size_t s = 0; s < l.begin.size(); ++s) {
              const auto list = l.of(s);
              if (list.empty()) continue;
              lambdas[list.back()] = not_a_number;
              if (spoilt) rewards[list[list.size() / 2]] = not_a_number;
            }
            gae_of(l, p, rewards, of_tokens(78, 1, 1), of_tokens(79, 1, 1), of_tokens(80, 0.05, 0.9), lambdas);
          });
    }
  }
  void gae_of(const oracle::sequences& l, placement p, const std::vector<double>& rewards, const std::vector<double>& values,
              const std::vector<double>& next_values, const std::vector<double>& discounts, const std::vector<double>& lambdas) {
    using reals = array<real, 1>;
    using doubles = placed<double, 1, host_space>;
    const index_t n = l.tokens, sequences = static_cast<index_t>(l.begin.size());
    const gae_options options{.gamma = 0.95, .lambda = 0.9};
    const placed_sequences<space> where(l, p);
    const placed_sequences<host_space> host_where(l, placement::dense);
    const reals r({n}, p, rewards), v({n}, p, values), u({n}, p, next_values), d({n}, p, discounts), m({n}, p, lambdas),
        bootstrap({sequences}, p, this->normals(81, sequences));
    const auto dense = [](const reals& x) { return doubles({x.size()}, placement::dense, x.given()); };
    const doubles host_r = dense(r), host_v = dense(v), host_u = dense(u), host_d = dense(d), host_m = dense(m), host_bootstrap = dense(bootstrap);
    // What is added up for each token, at most.
    std::vector<double> sizes(rewards.size()), factors(rewards.size(), 1.0);
    for (std::size_t t = 0; t < sizes.size(); ++t) sizes[t] = std::abs(rewards[t]) + std::abs(values[t]) + 8;
    const std::vector<double> magnitudes = oracle::segment_scan(factors, sizes, l).value;
    serial::backend<double> composed;
    block<host_space> memory(plumb::detail::trajectory_bytes<serial::backend<double>>(n, 11));
    arena<> scratch(memory.data(), memory.bytes());
    for (int given = 0; given < 12; ++given) {
      trajectory_inputs<real, space> in{.rewards = r.in(), .values = v.in(), .sequences = where.layout()};
      trajectory_inputs<double> host_in{.rewards = host_r.in(), .values = host_v.in(), .sequences = host_where.layout()};
      if (given / 4 == 1) in.bootstrap = bootstrap.in(), host_in.bootstrap = host_bootstrap.in();
      if (given / 4 == 2) in.next_values = u.in(), host_in.next_values = host_u.in();
      if ((given & 1) != 0) in.discounts = d.in(), host_in.discounts = host_d.in();
      if ((given & 2) != 0) in.lambdas = m.in(), host_in.lambdas = host_m.in();
      const doubles advantages({n}, placement::dense), returns({n}, placement::dense);
      plumb::detail::compose_gae(composed, scratch, host_in, options, {advantages.view(), returns.view()});
      for (int wanted = 1; wanted < 4; ++wanted) {
        reals a({n}, p), b({n}, p);
        gae_outputs<real, space> out;
        if ((wanted & 1) != 0) out.advantages = a.view();
        if ((wanted & 2) != 0) out.returns = b.view();
        this->call([&] { b_.gae(in, options, out); });
        if ((wanted & 1) != 0) this->expect(a, {advantages.read(), magnitudes}, "segment_scan");
        if ((wanted & 2) != 0) this->expect(b, {returns.read(), magnitudes}, "segment_scan");
        this->require(a.guards_unchanged() && b.guards_unchanged(), "wrote outside its output");
      }
    }
    this->require(r.unchanged() && v.unchanged() && u.unchanged() && d.unchanged() && m.unchanged() && bootstrap.unchanged(), "an input was changed");
  }

  // Ranks, and numbers handed from rank to rank, are those of the composition, whatever the order and however many are equal: with infinities, zeros
  // of both signs, NaN; one entry, none. With NaN in the scratch memory, of which there is as much as ranks_workspace says.
  void native_ranks() {
    if constexpr (!declares<B, cap::ranks>) {
      this->not_run("not declared: composed of the required operations");
    } else {
      constexpr double inf = oracle::infinity;
      const auto reversed = [](std::vector<double> x) { return std::vector<double>(x.rbegin(), x.rend()); };
      auto rising = this->normals(67, 33);
      std::sort(rising.begin(), rising.end());
      for (const index_t n : {1, 2, 5, 300}) ranks_of("normal numbers", this->normals(68, n), this->normals(69, n));
      ranks_of("nothing", {}, {});
      ranks_of("in order, and the other way round", rising, reversed(rising));
      ranks_of("ties", this->ids(70, 300, 4, 0), this->ids(71, 300, 40, 0));
      ranks_of("equal entries", std::vector<double>(65, 2.5), this->normals(72, 65));
      ranks_of("infinities and zeros", {3, inf, -0.0, -inf, 0, inf, -1, 0, -inf, -0.0}, {-inf, -inf, -inf, 1, 0, -0.0, inf, inf, 2, -3});
      for (const std::size_t at : {0u, 3u, 8u}) {
        auto spoilt = this->normals(73, 9);
        spoilt[at] = not_a_number;
        ranks_of("one NaN", spoilt, this->normals(74, 9));
      }
      ranks_of("NaN alone", {not_a_number}, {not_a_number});
    }
  }
  void ranks_of(const char* what, const std::vector<double>& x, const std::vector<double>& other) {
    const auto n = static_cast<index_t>(x.size());
    auto numbers = this->normals(75, n);
    if (n > 4) numbers[1] = oracle::infinity, numbers[4] = not_a_number;
    // The composition, on the serial backend in double: it has no part in what is tested.
    serial::backend<double> composed;
    block<host_space> plenty(std::size_t{1} << 20);
    arena<> plenty_scratch(plenty.data(), plenty.bytes());
    std::vector<double> of_x(x.size()), of_other(x.size()), to_other(x.size()), to_x(x.size());
    for (const placement p : {placement::dense, placement::strided, placement::reversed}) {
      this->context(std::string(what) + ", " + shape_text(&n, 1) + ", " + placement_name(p));
      const array<real, 1> keys({n}, p, x), others({n}, p, other), values({n}, p, numbers);
      const auto given = keys.given(), given_others = others.given(), given_numbers = values.given();
      plumb::detail::compose_ranks(composed, plenty_scratch, given, of_x);
      plumb::detail::compose_ranks(composed, plenty_scratch, given_others, of_other);
      plumb::detail::compose_match_ranks(composed, plenty_scratch, given_numbers, of_x, of_other, to_other);
      plumb::detail::compose_match_ranks(composed, plenty_scratch, given_numbers, of_other, of_x, to_x);
      block<space> memory(b_.ranks_workspace(n));
      memory.fill(0xff);
      arena<space> scratch(memory.data(), memory.bytes());
      const auto check = [&](array<real, 1>& y, const std::vector<double>& want, const auto& native) {
        const long long before = this->options_.allocations != nullptr ? this->options_.allocations() : 0;
        this->call(native);
        const long long made = this->options_.allocations != nullptr ? this->options_.allocations() - before : 0;
        this->expect(y, expectation::plain(want), "ranks");
        this->require(y.guards_unchanged(), "wrote outside its output");
        this->require(made <= this->options_.allocations_allowed, "a call allocates");
        this->require(scratch.used() == 0, "keeps its scratch");
      };
      array<real, 1> rank({n}, p), other_rank({n}, p), y({n}, p), z({n}, p);
      check(rank, of_x, [&] { b_.ranks(scratch, keys.in(), rank.view()); });
      check(other_rank, of_other, [&] { b_.ranks(scratch, others.in(), other_rank.view()); });
      check(y, to_other, [&] { b_.match_ranks(scratch, values.in(), rank.in(), other_rank.in(), y.view()); });
      check(z, to_x, [&] { b_.match_ranks(scratch, values.in(), other_rank.in(), rank.in(), z.view()); });
      this->require(keys.unchanged() && others.unchanged() && values.unchanged(), "an input was changed");
    }
  }
};

}  // namespace detail
}  // namespace testing

PLUMB_NAMESPACE_END

// Distillation: TRL's numbers, sums written down plainly, three gradients, limits, what counts and what does not, what is refused.
#include "support/gradients.hpp"

#include <plumb/objectives/distillation.hpp>
#include <plumb/testing/memory.hpp>

#include <limits>

using namespace plumb;
using namespace plumb_test;
using testing::normal_numbers;

namespace {

constexpr index_t n = 5, v = 7, k = 3;
constexpr double inf = std::numeric_limits<double>::infinity();
const std::vector<std::int32_t> begin{0, 3}, end{3, 5};
const std::vector<std::uint8_t> scored{1, 0, 1, 1, 1};
const sequence_layout<> sequences{begin, end, scored};
const std::vector<std::int32_t> ids{3, 0, 6, 1, 2, 3, 5, -1, 4, 0, 1, 2, 6, 5, 4};

/// The teacher of a case: all of its logits, or a list.
struct teacher {
  bool listed = false;
  topk_rest rest = topk_rest::one_token;
  double temperature = 1;
};
const teacher teachers[] = {{}, {.temperature = 1.6}, {true, topk_rest::one_token}, {true, topk_rest::renormalize, 0.8}, {true, topk_rest::zero, 1.3}};

std::vector<double> log_softmax(const double* x, double temperature) {
  std::vector<double> u(x, x + v);
  double sum = 0;
  for (double& a : u) a /= temperature, sum += std::exp(a);
  for (double& a : u) a -= std::log(sum);
  return u;
}
const std::vector<double> of_student = normal_numbers(31, n * v, 1.5), of_teacher = normal_numbers(32, n * v, 1.5);
/// The teacher's log-probabilities of the listed tokens at temperature 1.
const std::vector<double> list = [] {
  std::vector<double> l(n * k);
  for (std::size_t i = 0; i < l.size(); ++i)
    l[i] = ids[i] < 0 ? 5 : log_softmax(&of_teacher[i / k * v], 1)[static_cast<std::size_t>(ids[i])];
  return l;
}();

template <class T>
struct result {
  T loss{};
  std::vector<T> rows = std::vector<T>(n), gradient = std::vector<T>(n * v), metrics = std::vector<T>(4);
};
template <class T, class D>
result<T> run(const std::vector<T>& x, const D& divergence, const teacher& t, distillation_options o = {.denominator = 3, .chunk_rows = 2}) {
  plumb::serial::backend<T> compute;
  result<T> r;
  const std::vector<T> y(of_teacher.begin(), of_teacher.end()), l(list.begin(), list.end());
  const std::vector<T> weights{0.5, 1, 2, 1, 0.25};
  o.temperature = t.temperature;
  o.rest = t.rest;
  o.temperature_squared = t.temperature == 1.6;
  distillation_inputs<T> in{.logits = {x.data(), n, v}, .sequences = sequences, .weights = weights};
  if (t.listed) {
    in.teacher_ids = {ids.data(), n, k};
    in.teacher_logp = {l.data(), n, k};
  } else {
    in.teacher_logits = {y.data(), n, v};
  }
  std::vector<char> memory(distillation_workspace(compute, in, divergence, o));
  arena<> scratch(memory);
  distillation(compute, scratch, in, divergence, o,
               {.loss = r.loss, .row_loss = r.rows, .d_logits = {r.gradient.data(), n, v}, .metrics = {r.metrics.data(), 2, 2}});
  return r;
}

/// Calls `f(divergence, beta)`; beta is 0 and 1 for the two KL.
template <class F>
void for_divergences(const F& f) {
  f(distill::forward_kl{}, 0.0);
  f(distill::reverse_kl{}, 1.0);
  f(distill::jensen_shannon{0.3}, 0.3);
}

double kl(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0;
  for (std::size_t j = 0; j < p.size(); ++j) sum += p[j] > 0 ? p[j] * std::log(p[j] / q[j]) : 0;
  return sum;
}
double plain(double beta, const std::vector<double>& p, const std::vector<double>& q) {
  if (beta == 0) return kl(p, q);
  if (beta == 1) return kl(q, p);
  std::vector<double> m;
  for (std::size_t j = 0; j < p.size(); ++j) m.push_back(beta * p[j] + (1 - beta) * q[j]);
  return beta * kl(p, m) + (1 - beta) * kl(q, m);
}

}  // namespace

TEST_CASE("distillation: the numbers of TRL's generalized_jsd_loss") {
  // TRL 1.10.0.dev0 in double: beta, temperature, loss, two entries of the gradient.
  const double rows[][5] = {{0, 1, 1.212813237029667, 0.2291090533978064, 0.1318400296456058},
                            {0, 1.7, 0.6861894758680711, 0.103008601468782, 0.07363572965922954},
                            {0.1, 1, 0.09329250159496233, 0.01634305055787626, 0.01092551318046131},
                            {0.1, 1.7, 0.05871464460192204, 0.008573073460569321, 0.006489479648141051},
                            {0.5, 1, 0.2321043252517644, 0.04583659219316529, 0.03542832913261193},
                            {0.9, 1.7, 0.06524811298743635, 0.01142341203158816, 0.01059113309584647},
                            {1, 1, 1.60836281624278, 0.4747255482806729, 0.415225579272333},
                            {1, 1.7, 0.7987762972248093, 0.1542953155905543, 0.1475510819791508}};
  std::vector<double> x, y;
  for (int i = 0; i < 15; ++i) x.push_back(2 * std::sin(1 + i)), y.push_back(3 * std::cos(2 * i));
  const std::vector<double> mask{1, 0, 1};
  for (const auto& row : rows) {
    CAPTURE(row[0], row[1]);
    desk<double> d;
    double loss = 0;
    std::vector<double> g(15);
    const auto call = [&](const auto& divergence) {
      distillation(d.compute, d.scratch, {.logits = {x.data(), 3, 5}, .teacher_logits = {y.data(), 3, 5}, .weights = mask}, divergence,
                   {.temperature = row[1], .denominator = 2}, {.loss = loss, .d_logits = {g.data(), 3, 5}});
    };
    if (row[0] == 0) {
      call(distill::forward_kl{});
    } else if (row[0] == 1) {
      call(distill::reverse_kl{});
    } else {
      call(distill::jensen_shannon{row[0]});
    }
    CHECK(loss == Catch::Approx(row[2]).epsilon(1e-13));
    CHECK(g[1] == Catch::Approx(row[3]).epsilon(1e-12));
    CHECK(g[14] == Catch::Approx(row[4]).epsilon(1e-12));
    for (std::size_t j = 5; j < 10; ++j) CHECK(g[j] == 0);
  }
}

TEST_CASE("distillation: sums written down plainly, for whole teachers and lists") {
  for_divergences([&](const auto& divergence, double beta) {
    for (const teacher& t : teachers) {
      if (t.rest == topk_rest::zero && beta == 1) continue;
      const auto r = run(of_student, divergence, t);
      double loss = 0, count = 0, largest = -inf, sum = 0;
      const double share[] = {0.5 / 3, 0, 2.0 / 3, 1.0 / 3, 0.25 / 3};
      for (std::size_t i = 0; i < n; ++i) {
        std::vector<double> p, q;
        double p_sum = 0, q_sum = 0, q_whole = 0;
        for (std::size_t j = 0; j < v; ++j) q_whole += std::exp(of_student[i * v + j] / t.temperature);
        const auto all = log_softmax(&of_teacher[i * v], t.temperature);
        for (std::size_t j = 0; j < static_cast<std::size_t>(t.listed ? k : v); ++j) {
          const std::int32_t id = t.listed ? ids[i * k + j] : static_cast<std::int32_t>(j);
          if (id < 0) continue;
          p.push_back(std::exp(all[static_cast<std::size_t>(id)]));
          q.push_back(std::exp(of_student[i * v + static_cast<std::size_t>(id)] / t.temperature) / q_whole);
          p_sum += p.back(), q_sum += q.back();
        }
        if (t.listed && t.rest != topk_rest::one_token)
          for (double& a : p) a /= p_sum;
        if (t.listed && t.rest == topk_rest::renormalize)
          for (double& a : q) a /= q_sum;
        if (t.listed && t.rest != topk_rest::renormalize) p.push_back(t.rest == topk_rest::zero ? 0 : 1 - p_sum), q.push_back(1 - q_sum);
        const double want = scored[i] ? plain(beta, p, q) : 0;
        CAPTURE(beta, t.listed, static_cast<int>(t.rest), i);
        CHECK(r.rows[i] == Catch::Approx(want).epsilon(1e-12));
        loss += share[i] * want * (t.temperature == 1.6 ? 1.6 * 1.6 : 1);
        if (scored[i]) count += 1, sum += want, largest = std::max(largest, want);
      }
      CHECK(r.loss == Catch::Approx(loss).epsilon(1e-12));
      CHECK(r.metrics[0] == Catch::Approx(sum).epsilon(1e-12));
      CHECK(r.metrics[1] == count);
      CHECK(r.metrics[2] == Catch::Approx(largest).epsilon(1e-12));
      CHECK(r.metrics[3] == count);
    }
  });
}

TEST_CASE("distillation: gradients by dual numbers and differences") {
  for_divergences([&](const auto& divergence, double beta) {
    for (const teacher& t : teachers) {
      if (t.rest == topk_rest::zero && beta == 1) continue;
      CAPTURE(beta, t.listed, static_cast<int>(t.rest));
      check_gradient([&]<class T>(const std::vector<T>& at) { return run(at, divergence, t).loss; }, of_student, run(of_student, divergence, t).gradient);
    }
  });
}

TEST_CASE("distillation: the mean of sequence means") {
  const auto r = run(of_student, distill::forward_kl{}, {}, {.aggregate = aggregation::sequence_mean, .denominator = 2, .weight = 3});
  const double w[] = {0.5, 1, 2, 1, 0.25};
  double loss = 0;
  for (std::size_t i = 0; i < n; ++i) loss += 3 * w[i] * r.rows[i] / 4;
  CHECK(r.loss == Catch::Approx(loss).epsilon(1e-14));
}

TEST_CASE("distillation: Jensen-Shannon goes to 0 at both ends, and over its share to the two KL") {
  const auto forward = run(of_student, distill::forward_kl{}, {}), reverse = run(of_student, distill::reverse_kl{}, {});
  constexpr double small = 1e-6;
  const auto low = run(of_student, distill::jensen_shannon{small}, {}), high = run(of_student, distill::jensen_shannon{1 - small}, {});
  CHECK(low.loss < 1e-5);
  CHECK(low.loss / small == Catch::Approx(forward.loss).epsilon(1e-4));
  CHECK(high.loss / small == Catch::Approx(reverse.loss).epsilon(1e-4));
  for (std::size_t i = 0; i < n * v; ++i) {
    CHECK(low.gradient[i] / small == Catch::Approx(forward.gradient[i]).epsilon(1e-3).margin(1e-4));
    CHECK(high.gradient[i] / small == Catch::Approx(reverse.gradient[i]).epsilon(1e-3).margin(1e-4));
  }
}

TEMPLATE_TEST_CASE("distillation: a teacher that is the student leaves exactly nothing to do; shifts of a row change nothing", "", float, double) {
  const std::vector<TestType> x(of_student.begin(), of_student.end());
  std::vector<TestType> y(of_teacher.begin(), of_teacher.end()), shifted = x;
  for (std::size_t i = 0; i < shifted.size(); ++i) shifted[i] += static_cast<TestType>(i / v) * 16;
  for_divergences([&](const auto& divergence, double) {
    for (const double temperature : {1.0, 0.7}) {
      const distillation_options o{.temperature = temperature};
      const auto same = distillation(x, x, v, divergence, o);
      CHECK(same.loss == 0);
      CHECK(same.d_logits == std::vector<TestType>(n * v));
      const auto a = distillation(x, y, v, divergence, o), b = distillation(shifted, y, v, divergence, o);
      const double tolerance = std::is_same_v<TestType, float> ? 1e-4 : 1e-13;
      CHECK(std::abs(static_cast<double>(a.loss - b.loss)) < tolerance);
      for (std::size_t i = 0; i < n * v; ++i) CHECK(std::abs(static_cast<double>(a.d_logits[i] - b.d_logits[i])) < tolerance);
    }
  });
}

TEST_CASE("distillation: far logits stay finite, impossible tokens are nothing, NaN stays") {
  const float none = -std::numeric_limits<float>::infinity();
  const std::vector<float> x{1e4f, -1e4f, 0, none}, y{-1e4f, 1e4f, 5, none};
  const auto forward = distillation(x, y, 4), reverse = distillation(x, y, 4, distill::reverse_kl{});
  const auto between = distillation(x, y, 4, distill::jensen_shannon{0.25});
  CHECK(forward.loss == 2e4f);
  CHECK(forward.d_logits == std::vector<float>{1, -1, 0, 0});
  CHECK(reverse.loss == 2e4f);
  CHECK(reverse.d_logits == std::vector<float>{0, 0, 0, 0});
  CHECK(between.loss == Catch::Approx(-0.25 * std::log(0.25) - 0.75 * std::log(0.75)).epsilon(1e-6));
  for (const float g : between.d_logits) CHECK(math::is_finite(g));
  // Only the student can give token 3, only the teacher token 2.
  const std::vector<double> one{0, 0, -inf, 1}, other{0, 0, 1, -inf};
  CHECK(distillation(one, other, 4).loss == inf);
  CHECK(distillation(one, other, 4, distill::reverse_kl{}).loss == inf);
  const auto finite = distillation(one, other, 4, distill::jensen_shannon{});
  const double e = std::exp(1.0), rest = e / (2 + e);
  CHECK(finite.loss == Catch::Approx(rest * std::log(2.0)).epsilon(1e-14));
  CHECK(finite.d_logits[2] == 0);

  for_divergences([&](const auto& divergence, double) {
    auto bad = of_student;
    for (std::size_t j = v; j < 2 * v; ++j) bad[j] = std::nan("");  // unscored
    const auto good = run(of_student, divergence, {}), r = run(bad, divergence, {}), listed = run(bad, divergence, teachers[2]);
    CHECK(r.loss == good.loss);
    CHECK(r.rows == good.rows);
    CHECK(r.gradient == good.gradient);
    CHECK(listed.loss == run(of_student, divergence, teachers[2]).loss);
    for (std::size_t j = v; j < 2 * v; ++j) CHECK(listed.gradient[j] == 0);
    bad[2 * v + 1] = std::nan("");  // scored
    const auto broken = run(bad, divergence, {});
    CHECK(std::isnan(broken.loss));
    CHECK(std::isnan(broken.rows[2]));
    CHECK(std::isnan(broken.gradient[2 * v + 3]));
    CHECK(broken.rows[3] == good.rows[3]);
    CHECK(std::isnan(run(bad, divergence, teachers[2]).loss));
  });
}

TEST_CASE("distillation: chunks, micro-batches, in place, 16 bits with a stride") {
  const auto whole = run(of_student, distill::jensen_shannon{0.3}, {});
  CHECK(run(of_student, distill::jensen_shannon{0.3}, {}, {.denominator = 3}).gradient == whole.gradient);
  for (const teacher& t : {teachers[0], teachers[2], teachers[3]}) {
    desk<double> d;
    const auto want = run(of_student, distill::forward_kl{}, t, {.denominator = 3});
    auto x = of_student;
    const std::vector<double> weights{0.5, 1, 2, 1, 0.25};
    const auto at = [&](index_t first, index_t count) {
      distillation_inputs<double> in{.logits = {x.data() + first * v, count, v}, .weights = {weights.data() + first, count}};
      if (t.listed) {
        in.teacher_ids = {ids.data() + first * k, count, k};
        in.teacher_logp = {list.data() + first * k, count, k};
      } else {
        in.teacher_logits = {of_teacher.data() + first * v, count, v};
      }
      return in;
    };
    const distillation_options o{.temperature = t.temperature, .rest = t.rest, .denominator = 3};
    double loss = 10;
    std::vector<double> g(n * v, 1);
    for (const auto& [first, count] : {std::pair<index_t, index_t>{0, 1}, {2, 1}, {3, 2}})
      distillation(d.compute, d.scratch, at(first, count), distill::forward_kl{}, o,
                   {.loss = loss, .d_logits = {g.data() + first * v, count, v}, .mode = write_mode::add});
    CHECK(loss == Catch::Approx(10 + want.loss).epsilon(1e-14));
    for (std::size_t i = 0; i < n * v; ++i) CHECK(g[i] == Catch::Approx(1 + want.gradient[i]).epsilon(1e-14));
    distillation(d.compute, d.scratch, at(2, 3), distill::forward_kl{}, o, {.d_logits = {x.data() + 2 * v, 3, v}});
    for (std::size_t i = 2 * v; i < n * v; ++i) CHECK(x[i] == Catch::Approx(want.gradient[i]).epsilon(1e-14).margin(1e-16));
  }

  std::vector<bf16> x, y;
  std::vector<float> rounded_x, rounded_y;
  for (std::size_t i = 0; i < n * 10; ++i) {
    x.push_back(bf16(static_cast<float>(i % 10 < v ? of_student[i / 10 * v + i % 10] : std::nan(""))));
    y.push_back(bf16(static_cast<float>(i % 10 < v ? of_teacher[i / 10 * v + i % 10] : std::nan(""))));
    if (i % 10 < v) rounded_x.push_back(static_cast<float>(x.back())), rounded_y.push_back(static_cast<float>(y.back()));
  }
  const auto want = distillation(rounded_x, rounded_y, v, distill::reverse_kl{});
  desk<float> d;
  float loss = 0;
  const view<bf16, 2> logits(x.data(), {n, v}, {10, 1});
  const distillation_inputs<float, bf16> in{.logits = logits, .teacher_logits = view<bf16, 2>(y.data(), {n, v}, {10, 1})};
  distillation(d.compute, d.scratch, in, distill::reverse_kl{}, {.denominator = n}, {.loss = loss, .d_logits = logits});
  CHECK(loss == Catch::Approx(want.loss).epsilon(1e-6));
  for (std::size_t i = 0; i < n * v; ++i)
    CHECK(static_cast<float>(x[i / v * 10 + i % v]) == Catch::Approx(want.d_logits[i]).epsilon(1.0 / 256).margin(1e-7));
}

TEST_CASE("distillation: what is refused, in a sentence, with nothing written") {
  desk<double> d;
  std::vector<double> x(6), y(6), g(6, 5), l{-1, -2, -1, -2};
  const std::vector<std::int32_t> two{0, 1, 0, 1};
  double loss = 5;
  const distillation_inputs<double> whole{.logits = {x.data(), 2, 3}, .teacher_logits = {y.data(), 2, 3}};
  const distillation_inputs<double> listed{.logits = {x.data(), 2, 3}, .teacher_ids = {two.data(), 2, 2}, .teacher_logp = {l.data(), 2, 2}};
  const view<double, 2> out(g.data(), 2, 3), in_place(x.data(), 2, 3);
  const auto says = [&](const distillation_inputs<double>& in, const auto& divergence, const distillation_options& o, const distillation_outputs<double>& to) {
    return refusal([&] { distillation(d.compute, d.scratch, in, divergence, o, to); });
  };
  const distill::forward_kl forward;
  auto both = listed, narrow = whole, no_list = listed;
  both.teacher_logits = whole.teacher_logits;
  narrow.teacher_logits = {y.data(), 2, 2};
  no_list.teacher_ids = {};
  auto all = listed;
  all.logits = {x.data(), 2, 2};
  CHECK(says(narrow, forward, {.denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: argument `teacher_logits` has shape [2, 2], but `logits` has shape [2, 3]. Nothing was written.");
  CHECK(says(both, forward, {.denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: both `teacher_logits` and a top-k list are given; give one of them. Nothing was written.");
  CHECK(says(no_list, forward, {.denominator = 1}, {loss, {}, out}) == "plumb: distillation: argument `teacher_ids` is not given. Nothing was written.");
  CHECK(says({.logits = in_place}, forward, {.denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: argument `teacher_logits` is not given. Nothing was written.");
  CHECK(says(whole, distill::jensen_shannon{1}, {.denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: option `beta` is 1 but must be above 0 and below 1 (towards which the loss goes to 0: see forward_kl, reverse_kl). "
        "Nothing was written.");
  CHECK(says(whole, forward, {.temperature = 0, .denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: option `temperature` is 0 but must be positive. Nothing was written.");
  CHECK(says(listed, forward, {.temperature = 2, .denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: option `temperature` is 2 but must be 1 with `topk_rest::one_token`: a list does not say what its rest has at another "
        "temperature. Nothing was written.");
  CHECK(says(listed, distill::reverse_kl{}, {.rest = topk_rest::zero, .denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: with `topk_rest::zero` this divergence is infinite: take another `rest`. Nothing was written.");
  CHECK(says(all, forward, {.denominator = 1}, {.loss = loss}) ==
        "plumb: distillation: `teacher_ids` lists 2 of 2 tokens, which leaves no rest: take `topk_rest::renormalize`. Nothing was written.");
  CHECK(says(whole, forward, {.aggregate = aggregation::sequence_mean, .denominator = 1}, {loss, {}, out}) ==
        "plumb: distillation: no `sequences` are given, but `aggregate` asks for their means or sums. Nothing was written.");
  CHECK(says(whole, forward, {.denominator = 1}, {.loss = loss, .d_logits = in_place, .mode = write_mode::add}) ==
        "plumb: distillation: output `d_logits` is `logits` itself, which a gradient cannot be added to. Nothing was written.");
  CHECK(says(whole, forward, {.denominator = 1}, {.loss = loss, .d_logits = {y.data(), 2, 3}}) ==
        "plumb: distillation: output `d_logits` overlaps `teacher_logits` in memory. Nothing was written.");
  CHECK(says(whole, forward, {}, {loss, {}, out}) ==
        "plumb: distillation: option `denominator` is 0 but must be positive: the count that the loss of the whole global batch is divided by. Nothing "
        "was written.");
  arena<> none;
  CHECK(refusal([&] { distillation(d.compute, none, whole, forward, {.denominator = 1}, {.loss = loss}); }).starts_with("plumb: distillation: the arena has 0 bytes left"));
  CHECK(loss == 5);
  CHECK(g == std::vector<double>(6, 5));
}

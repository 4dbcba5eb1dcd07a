// The laws of losses that learn from distributions: distillation under every divergence, SteerLM 2.0 in both forms.
#include "support/laws.hpp"

#include <plumb/objectives/distillation.hpp>
#include <plumb/objectives/steerlm2.hpp>

using namespace plumb;
using namespace plumb_test;
using laws::law;

namespace {

constexpr auto logit = +[](double x) { return 2 * x; };
constexpr auto logp = +[](double x) { return 0.3 * x - 1.5; };
constexpr auto listed = +[](double x) { return -1.5 - 0.5 * std::abs(x); };  // three of these are less than 1 together
constexpr auto weight = +[](double x) { return 0.5 + 0.25 * x * x; };
constexpr auto share = +[](double x) { return x < -1 ? 0.0 : 0.5 + 0.25 * x * x; };
constexpr auto one_of_three = +[](double x) { return x < -0.5 ? 0.0 : x < 0.5 ? 1.0 : 2.0; };

constexpr std::size_t vocabulary = 5, entries = 4;

/// Arrays of a subject: the student's logits, the teacher's, what a row counts for.
template <class D>
laws::subject from_logits(const char* name, D divergence, distillation_options o) {
  laws::subject s{.name = name, .tokens = std::vector<double (*)(double)>(2 * vocabulary, logit)};
  s.tokens.push_back(weight);
  laws::runs(s, [=](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const auto n = static_cast<index_t>(c.valid.size()), v = static_cast<index_t>(vocabulary);
    const auto student = c.table(c.tokens, 0, vocabulary), teacher = c.table(c.tokens, vocabulary, vocabulary);
    auto gradient = c.table(c.d_tokens, 0, vocabulary);
    auto options = o;
    options.denominator = c.denominator;
    distillation(c.compute, c.scratch,
                 distillation_inputs<T>{.logits = {student.data(), n, v}, .teacher_logits = {teacher.data(), n, v}, .sequences = c.layout,
                                        .weights = c.tokens[2 * vocabulary]},
                 divergence, options,
                 {.loss = c.loss, .row_loss = {}, .d_logits = view<T, 2>(gradient.data(), n, v),
                  .metrics = c.metrics_of(std::size(distillation_metrics)), .mode = c.mode});
    c.untable(gradient, c.d_tokens, 0, vocabulary);
  }, {.tokens = vocabulary});
  for (std::size_t j = 0; j < vocabulary; ++j) s.references.push_back({j, vocabulary + j});
  return s;
}
/// Student and teacher change places: `other` is the divergence's other side.
template <class D>
void exchanged(laws::subject& s, D other, distillation_options o) {
  s.exchange = [=](const laws::run&, const laws::batch& b, const laws::answer& want, double tolerance) {
    laws::batch turned = b;
    for (std::size_t j = 0; j < vocabulary; ++j) std::swap(turned.tokens[j], turned.tokens[vocabulary + j]);
    const auto t = from_logits("", other, o);
    const laws::answer got = (tolerance > 1e-6 ? t.of_float : t.of_double)(turned, laws::denominator, {});
    CHECK(laws::near(got.loss, want.loss, tolerance));
    CHECK(laws::near(got.metrics, want.metrics, tolerance));
  };
}

/// Arrays of a subject: the student's logits, the teacher's log-probabilities of three tokens, which of them stands first in the list. The list
/// names tokens 0 to 2 in any order, and has an empty entry.
template <class D>
laws::subject from_list(const char* name, D divergence, distillation_options o) {
  laws::subject s{.name = name, .tokens = std::vector<double (*)(double)>(vocabulary, logit)};
  s.tokens.insert(s.tokens.end(), {listed, listed, listed, one_of_three});
  s.choices = {vocabulary + 3};
  laws::runs(s, [=](auto& c) {
    using T = std::remove_cvref_t<decltype(c.loss)>;
    const auto n = static_cast<index_t>(c.valid.size()), v = static_cast<index_t>(vocabulary), k = static_cast<index_t>(entries);
    const auto student = c.table(c.tokens, 0, vocabulary);
    auto gradient = c.table(c.d_tokens, 0, vocabulary);
    std::vector<T> of_list;
    std::vector<std::int32_t> ids;
    for (std::size_t t = 0; t < c.valid.size(); ++t) {
      const T first = c.tokens[vocabulary + 3][t];
      for (std::size_t j = 0; j < 3; ++j) {
        const auto id = std::isnan(first) ? 0 : (static_cast<std::size_t>(first) + j) % 3;
        ids.push_back(std::isnan(first) ? -1 : static_cast<std::int32_t>(id));
        of_list.push_back(c.tokens[vocabulary + id][t]);
      }
      ids.push_back(-1);
      of_list.push_back(std::numeric_limits<T>::quiet_NaN());
    }
    auto options = o;
    options.denominator = c.denominator;
    distillation(c.compute, c.scratch,
                 distillation_inputs<T>{.logits = {student.data(), n, v}, .teacher_ids = {ids.data(), n, k}, .teacher_logp = {of_list.data(), n, k},
                                        .sequences = c.layout},
                 divergence, options,
                 {.loss = c.loss, .row_loss = {}, .d_logits = view<T, 2>(gradient.data(), n, v),
                  .metrics = c.metrics_of(std::size(distillation_metrics)), .mode = c.mode});
    c.untable(gradient, c.d_tokens, 0, vocabulary);
  }, {.tokens = vocabulary});
  if (o.rest == topk_rest::renormalize) s.outside_loss = {3, 4};
  s.lacks[law::reference] = "a list of the teacher's is not a student: no logits make it";
  s.lacks[law::exchange] = "only one side is a list";
  return s;
}

/// With every kind of rest that the divergence is finite for.
template <class D>
void check_lists(const char* name, D divergence) {
  for (const topk_rest rest : {topk_rest::renormalize, topk_rest::zero, topk_rest::one_token})
    if (rest != topk_rest::zero || !D::within_teacher) laws::check(from_list(name, divergence, {.rest = rest, .chunk_rows = 3}));
}

distillation_options with(aggregation a) {
  return {.temperature = 2, .temperature_squared = a == aggregation::token_mean, .aggregate = a, .chunk_rows = 3};
}

}  // namespace

TEST_CASE("laws: distillation from logits, every divergence") {
  for (const aggregation a : {aggregation::token_mean, aggregation::sequence_mean, aggregation::sequence_sum}) {
    auto forward = from_logits("forward KL", distill::forward_kl{}, with(a));
    exchanged(forward, distill::reverse_kl{}, with(a));
    laws::check(forward);
    auto reverse = from_logits("reverse KL", distill::reverse_kl{}, with(a));
    exchanged(reverse, distill::forward_kl{}, with(a));
    laws::check(reverse);
    for (const double beta : {0.5, 0.2}) {
      auto between = from_logits("Jensen-Shannon", distill::jensen_shannon{beta}, with(a));
      exchanged(between, distill::jensen_shannon{1 - beta}, with(a));
      laws::check(between);
    }
  }
}

TEST_CASE("laws: distillation from a list of likely tokens, every divergence") {
  check_lists("forward KL", distill::forward_kl{});
  check_lists("reverse KL", distill::reverse_kl{});
  check_lists("Jensen-Shannon", distill::jensen_shannon{0.3});
}

namespace {
/// Groups of up to three replies; those without scored tokens have no part.
template <class F>
laws::subject of_prompts(const char* name, laws::made out, F f) {
  laws::subject s{.name = name, .unit = 3, .ragged = true, .any_order = true, .leaves_out = true};
  laws::runs(s, f, out);
  s.lacks[law::exchange] = "the replies to a prompt are any number: their order is tried instead";
  return s;
}
}  // namespace

TEST_CASE("laws: SteerLM 2.0 from replies") {
  for (const steerlm2_value value : {steerlm2_value::listwise, steerlm2_value::coefficients})
    for (const bool per_token : {false, true}) {
      auto s = of_prompts("steerlm2_replies", {.per_sequence = 1}, [=](auto& c) {
        steerlm2_replies(c.compute, c.scratch,
                         {.logp = c.per_sequence[0], .log_q = c.per_sequence[1], .weight = c.per_sequence[2], .length = c.per_sequence[3],
                          .groups = c.groups()},
                         {.value = value, .per_token = per_token, .denominator = c.denominator},
                         {.loss = c.loss, .d_logp = c.d_per_sequence[0], .metrics = c.metrics_of(std::size(steerlm2_metrics)), .mode = c.mode});
      });
      s.per_sequence = {logp, logp, share, weight};
      if (value == steerlm2_value::listwise) {
        s.sequence_references = {{0, 1}};
      } else {
        s.lacks[law::reference] = "the value is of the log-probabilities themselves";
      }
      laws::check(s);
    }
}

TEST_CASE("laws: baseline and coefficient of SteerLM 2.0") {
  auto s = of_prompts("steerlm2_replies", {.per_sequence = 2}, [](auto& c) {
    steerlm2_replies(c.compute, c.scratch,
                     {.logp = c.per_sequence[0], .log_q = c.per_sequence[1], .weight = c.per_sequence[2], .length = {}, .groups = c.groups()},
                     {.denominator = c.denominator}, {.baseline = c.d_per_sequence[0], .coefficient = c.d_per_sequence[1]});
  });
  s.has_loss = false;
  s.per_sequence = {logp, logp, share};
  s.sequence_references = {{0, 1}};
  laws::check(s);
}

TEST_CASE("laws: SteerLM 2.0 from tokens") {
  for (const bool at_reference : {false, true}) {
    auto s = of_prompts("steerlm2", {.tokens = 1}, [=](auto& c) {
      auto log_q = c.per_sequence[0];
      if (at_reference) c.compute.segment_reduce(reduction::sum, as_const(view(c.tokens[0])), c.layout, view(log_q));
      steerlm2(c.compute, c.scratch, {.logp = c.tokens[0], .replies = c.layout, .log_q = log_q, .weight = c.per_sequence[1], .groups = c.groups()},
               {.per_token = true, .denominator = c.denominator},
               {.loss = c.loss, .d_logp = c.d_tokens[0], .metrics = c.metrics_of(std::size(steerlm2_metrics)), .mode = c.mode});
      if (at_reference) c.metrics.clear();
    });
    s.tokens = {logp};
    s.per_sequence = {logp, share};
    s.lacks[law::reference] = "the reference's are sums: the call makes them, below";
    if (!at_reference) {
      laws::check(s);
      continue;
    }
    // The policy is the reference: the same loss and gradient as of any other numbers.
    for (const std::uint64_t seed : {1u, 2u, 3u})
      for (const laws::run& f : {s.of_double, s.of_float}) {
        laws::batch here = laws::random_batch(s, seed, 6), nowhere = here;
        nowhere.tokens[0].assign(nowhere.length(), 0);
        laws::check_same_bits(f(here, laws::denominator, {}), f(nowhere, laws::denominator, {}));
      }
  }
}

TEST_CASE("laws: the weights of SteerLM 2.0") {
  auto s = of_prompts("steerlm2_weights", {.per_sequence = 3}, [](auto& c) {
    std::vector<std::remove_cvref_t<decltype(c.loss)>> effective(c.group_begin.size());
    steerlm2_weights(c.compute, c.scratch,
                     {.log_p_attributes = c.per_sequence[0], .log_p_reply = c.per_sequence[1], .log_q = c.per_sequence[2], .groups = c.groups()},
                     {.weight = c.d_per_sequence[0], .log_weight = c.d_per_sequence[1], .effective_samples = effective});
    for (std::size_t g = 0; g < effective.size(); ++g)
      for (auto r = static_cast<std::size_t>(c.group_begin[g]); r < static_cast<std::size_t>(c.group_end[g]); ++r)
        c.d_per_sequence[2][r] = c.members[r] != 0 ? effective[g] : 0;
  });
  s.has_loss = false;
  s.per_sequence = {logp, logp, logp};
  s.lacks[law::reference] = "its reference is one of three numbers that are summed";
  laws::check(s);
}

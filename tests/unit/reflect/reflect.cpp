// Options by name: every option prints, and a difference names exactly what differs.
#include "support/catch.hpp"

#include <plumb/reflect.hpp>

#include <string>
#include <vector>

using namespace plumb;

TEST_CASE("options print with their names in order") {
  CHECK(reflect::to_text(dpo_options{.beta = 0.25}) ==
        "{beta: 0.25, label_smoothing: 0, reference_free: false, denominator: 0}");
  CHECK(reflect::to_text(supervised_options{.aggregate = aggregation::sequence_mean, .denominator = 3}) ==
        "{aggregate: sequence_mean, denominator: 3}");
}

TEST_CASE("nested options are one value") {
  CHECK(reflect::to_text(linear_token_logp_options{.logits = {.temperature = 0.7}, .chunk_rows = 64}) ==
        "{logits: {temperature: 0.7, softcap: 0, logit_scale: 1}, chunk_rows: 64}");
}

TEST_CASE("numbers print as the shortest text that reads back the same") {
  CHECK(reflect::to_text(0.1) == "0.1");
  CHECK(reflect::to_text(1.0 / 3) == "0.3333333333333333");
  CHECK(std::stod(reflect::to_text(0.1 + 0.2)) == 0.1 + 0.2);
}

TEST_CASE("a difference names what differs and nothing else") {
  CHECK(reflect::difference(dpo_options{}, dpo_options{}).empty());
  CHECK(reflect::difference(dpo_options{}, dpo_options{.beta = 0.2, .denominator = 8}) ==
        "beta: 0.1 -> 0.2, denominator: 0 -> 8");
}

// Counts the members of an aggregate by asking how many initialisers it takes.
struct anything {
  template <class T>
  operator T() const;
};
template <class T, class... A>
constexpr std::size_t members() {
  if constexpr (requires { T{A{}..., anything{}}; }) {
    return members<T, A..., anything>();
  } else {
    return sizeof...(A);
  }
}

TEMPLATE_TEST_CASE("no option is left out of the description", "", token_logp_options, linear_token_logp_options,
                   bradley_terry_options, attribute_regression_options, goal_reward_options, supervised_options,
                   dpo_options) {
  std::size_t named = 0;
  reflect::for_each(TestType{}, [&](const char*, const auto&) { ++named; });
  CHECK(named == members<TestType>());
}

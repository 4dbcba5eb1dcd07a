// Tokens whose log-probability and advantage vary together: by hand, far numbers, as vectors, what is refused.
#include "support/gradients.hpp"

#include <plumb/ops/covariance_selection.hpp>

#include <limits>

using namespace plumb;
using namespace plumb_test;

TEST_CASE("covariance_selection: by hand") {
  const std::vector<double> logp{-1, -2, -3, -4}, advantages{3, 0, -1, -2};
  const std::vector<std::int32_t> cu{0, 4};
  const auto layout = sequence_layout<>::packed(cu);
  desk<double> on;
  std::vector<double> chosen(4), rest(4), covariance(4);
  const auto select = [&](const covariance_selection_options& o, const std::vector<double>& excluded, const std::vector<double>& order) {
    covariance_selection(on.compute, on.scratch,
                         {.logp = logp, .advantages = advantages, .excluded = excluded, .order = order, .sequences = layout}, o,
                         {.chosen = chosen, .rest = rest, .covariance = covariance});
    return chosen;
  };
  using flags = std::vector<double>;
  CHECK(select({.count = 1}, {}, {}) == flags{1, 0, 0, 0});
  CHECK(covariance == flags{4.5, 0, 0.5, 3});
  CHECK(rest == flags{0, 1, 1, 1});
  CHECK(select({.count = 2}, {}, {}) == flags{1, 0, 0, 1});
  CHECK(select({.count = 4, .lower = 0.1, .upper = 4}, {}, {}) == flags{0, 0, 1, 1});
  CHECK(select({.count = 1}, {1, 0, 0, 0}, {}) == flags{0, 0, 0, 1});
  CHECK(select({.count = 1, .lower = 0.1}, {}, {0, 9, 0.5, 0.25}) == flags{0, 0, 1, 0});  // at random, say
  CHECK(select({.count = 2, .lower = 10}, {}, {}) == flags{0, 0, 0, 0});
}

TEMPLATE_TEST_CASE("covariance_selection: exact for any numbers, infinities too", "", float, double) {
  using T = TestType;
  const T infinity = std::numeric_limits<T>::infinity(), huge = std::numeric_limits<T>::max() * T(0.6);
  const std::vector<std::int32_t> cu{0, 10};
  const auto layout = sequence_layout<>::packed(cu);
  desk<T> on;
  std::vector<T> logp(10), advantages(10), order{huge, -huge, huge / 2, -huge / 2, infinity, -infinity, 1, 2, 3, 4}, rest(10);
  covariance_selection(on.compute, on.scratch, {.logp = logp, .advantages = advantages, .order = order, .sequences = layout}, {.count = 3},
                       {.rest = rest});
  CHECK(rest == std::vector<T>{0, 1, 0, 1, 0, 1, 1, 1, 1, 1});
  logp = {-1, -2, -3, -4, -5, -6, -7, -8, -9, -10}, advantages = std::vector<T>(10, 0), advantages[0] = T(1e31);
  covariance_selection(on.compute, on.scratch, {.logp = logp, .advantages = advantages, .sequences = layout}, {.count = 1}, {.rest = rest});
  CHECK(rest == std::vector<T>{0, 1, 1, 1, 1, 1, 1, 1, 1, 1});
}

TEST_CASE("covariance_selection: vectors in, the same numbers out; what is refused") {
  const std::vector<double> logp{-1, -2, -3, -4}, advantages{3, 0, -1, -2}, excluded{1, 0, 0, 0}, order{4, 3, 2, 9}, three(3);
  const std::vector<std::int32_t> cu{0, 4};
  const auto layout = sequence_layout<>::packed(cu);
  desk<double> on;
  std::vector<double> chosen(4), rest(4), covariance(4);
  const auto same = [&](const covariance_selection_options& o, view<const double, 1> without, view<const double, 1> by) {
    covariance_selection(on.compute, on.scratch, {.logp = logp, .advantages = advantages, .excluded = without, .order = by, .sequences = layout}, o,
                         {.chosen = chosen, .rest = rest, .covariance = covariance});
    const auto r = covariance_selection(logp, advantages, layout, o, without, by);
    CHECK(r.chosen == chosen);
    CHECK(r.rest == rest);
    CHECK(r.covariance == covariance);
  };
  same({.count = 2}, {}, {});
  same({.count = 2, .upper = 4}, excluded, order);
  CHECK(refusal([&] { covariance_selection(logp, three, layout); }) ==
        "plumb: covariance_selection: argument `advantages` has 3 elements, but `logp` has 4. Nothing was written.");
  CHECK(refusal([&] { covariance_selection(three, three, layout); }) ==
        "plumb: covariance_selection: sequence 0 is tokens 0 to 4, but there are 3. Nothing was written.");
  CHECK(refusal([&] { covariance_selection(logp, advantages, layout, {.lower = 2, .upper = 1}); }) ==
        "plumb: covariance_selection: option `lower` is 2 but must be below `upper`. Nothing was written.");
}

// Nash-MD: by hand, in parts, replies without scored tokens, what is refused.
#include "support/unpaired.hpp"

#include <plumb/objectives/nash_md.hpp>

using namespace plumb_test;
using namespace plumb_test::four_replies;
using testing::normal_numbers;

TEST_CASE("nash_md: by hand; the log-ratio is a constant for the gradient") {
  auto x = normal_numbers(10, 12, 1, -2);
  const auto ref = normal_numbers(11, 12, 1, -2);
  x[0] = not_a_number;
  const reals p{0.9, 0.2, 0.5, 0};
  const auto r = nash_md(x, ref, sequences, p, {.beta = 0.3, .denominator = 2, .weight = 3});
  double loss = 0;
  for (std::size_t s = 0; s < 4; ++s)
    for (auto t = static_cast<std::size_t>(begin[s]); t < static_cast<std::size_t>(end[s]); ++t) {
      const double c = mask[t] != 0 ? 3 * (0.3 * (x[t] - ref[t]) - (p[s] - 0.5)) / 2 : 0;
      CHECK(r.d_logp[t] == Catch::Approx(c).epsilon(1e-13));
      loss += mask[t] != 0 ? c * x[t] : 0;
    }
  CHECK(r.loss == Catch::Approx(loss).epsilon(1e-13));
  CHECK(r.probability == Catch::Approx(1.4 / 3).epsilon(1e-15));  // of the replies that have scored tokens
  // Twice half a batch, added.
  desk<double> d;
  double parts = 0;
  reals added(12);
  for (const index_t f : {index_t{2}, index_t{0}}) {
    const sequence_layout<> some{sequences.begin.slice(f, 2), sequences.end.slice(f, 2), sequences.scored};
    nash_md(d.compute, d.scratch, {x, ref, some, view<const double, 1>(p).slice(f, 2)}, {.beta = 0.3, .denominator = 2, .weight = 3},
            {.loss = parts, .d_logp = added, .mode = write_mode::add});
  }
  CHECK(parts == Catch::Approx(loss).epsilon(1e-13));
  CHECK(added == r.d_logp);
  CHECK(refusal([&] { nash_md(d.compute, d.scratch, {x, ref, sequences, {}}, {.denominator = 1}, {.d_logp = added}); }) ==
        "plumb: nash_md: argument `probability` is not given. Nothing was written.");
}

TEST_CASE("nash_md: replies without scored tokens are nothing, whatever they hold") {
  auto x = broken_where_weightless();
  x[7] = x[8] = x[9] = -1;
  const reals probability{0.9, not_a_number, 0.5, 0};
  desk<double> d;
  double loss = 0;
  reals gradient(12), metrics(8);
  nash_md(d.compute, d.scratch, {x, reference, sequences, probability}, {.denominator = 4},
          {.loss = loss, .d_logp = gradient, .metrics = view<double, 2>(metrics.data(), 4, 2)});
  CHECK(std::isfinite(loss));
  for (std::size_t k = 0; k < 8; k += 2) {
    CHECK(std::isfinite(metrics[k]));
    CHECK(metrics[k + 1] == 3);
  }
}

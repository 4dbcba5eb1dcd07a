// The best of n in expectation: against counting all subsets, and where it can be worked out by hand.
#include "lab/experiment.hpp"
#include "support/catch.hpp"

TEST_CASE("best of n: the mean over all subsets of n replies") {
  const std::vector<double> score{0.3, -1, 2, 0.7, 5, 4.5}, value{3, 1, 0, 2, -4, 10};
  for (std::size_t n = 1; n <= score.size(); ++n) {
    double sum = 0, count = 0;
    for (unsigned subset = 0; subset < 64; ++subset) {
      std::size_t size = 0, best = 9;
      for (std::size_t i = 0; i < 6; ++i)
        if (subset >> i & 1) {
          ++size;
          if (best == 9 || score[i] > score[best]) best = i;
        }
      if (size != n) continue;
      sum += value[best];
      ++count;
    }
    CHECK(lab::expected_best(score, value, n) == Catch::Approx(sum / count).margin(1e-12));
  }
  CHECK(lab::expected_best(score, value, 6) == -4);
}

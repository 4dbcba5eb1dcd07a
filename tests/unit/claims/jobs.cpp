// Runs that are kept, on any number of threads; the bootstrap.
#include "claims/jobs.hpp"
#include "support/catch.hpp"

using claims::job;
using claims::numbers;

namespace {

std::filesystem::path fresh_folder(const char* name) {
  const auto folder = std::filesystem::temp_directory_path() / ("plumb_claims_" + std::string(name) + "_" + std::to_string(::getpid()));
  std::filesystem::remove_all(folder);
  return folder;
}

std::string job_name(int i) {
  std::string name = "job-";
  return name += std::to_string(i);  // of `"job-" + ...` g++ 12 gives a false warning
}

}  // namespace

TEST_CASE("claims: jobs are done once, to the same numbers on any number of threads") {
  std::atomic<int> done{0};
  const auto jobs_up_to = [&](int count, int failing = -1) {
    std::vector<job> jobs;
    for (int i = 0; i < count; ++i)
      jobs.push_back({job_name(i), 1.0, [&done, i, failing] {
                        if (i == failing) throw std::runtime_error(job_name(i) + " failed");
                        ++done;
                        return numbers{{"third", i / 3.0}, {"nothing", std::numeric_limits<double>::quiet_NaN()}};
                      }});
    return jobs;
  };
  const auto folder = fresh_folder("jobs");
  const auto run = [&](const std::vector<job>& jobs, int threads) {
    lab::run_folder kept(folder, "the settings", false);
    return claims::run_jobs(kept, folder, jobs, threads);
  };
  CHECK_THROWS_WITH(run(jobs_up_to(20, 11), 3), "job-11 failed");
  CHECK(done >= 8);  // what was being done is kept
  const auto results = run(jobs_up_to(20), 3);
  CHECK(done == 20);
  REQUIRE(results.size() == 20);
  const auto again = run(jobs_up_to(21), 1);
  CHECK(done == 21);
  for (int i = 0; i < 20; ++i) {
    const std::string name = job_name(i);
    CHECK(results.at(name).at("third") == i / 3.0);
    CHECK(again.at(name).at("third") == i / 3.0);
    CHECK(std::isnan(again.at(name).at("nothing")));
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("claims: the bootstrap's intervals") {
  std::vector<double> x;
  for (std::uint64_t i = 0; i < 200; ++i) x.push_back(plumb::random_stream{1, 1}.normal(i));
  const auto f = claims::bootstrap_figure("a", x, "points"), normal = lab::mean_figure("a", x, "points");
  CHECK(f.n == 200);
  CHECK(f.value == Approx(normal.value).margin(1e-12));
  CHECK(std::abs(*f.low - *normal.low) < 0.01);
  CHECK(std::abs(*f.high - *normal.high) < 0.01);
  CHECK(*claims::bootstrap_figure("b", x, "points").low == *f.low);
  CHECK_FALSE(claims::bootstrap_figure("c", {1, 1, 1, 1}, "points").low);
  CHECK_FALSE(claims::bootstrap_figure("d", {1, 2}, "points").low);
  const auto few = claims::bootstrap_figure("e", {0, 0, 3}, "points");  // 1 in 27 is all 3, 8 in 27 all 0
  CHECK(few.value == 1);
  CHECK(*few.low == 0);
  CHECK(*few.high == 3);
}

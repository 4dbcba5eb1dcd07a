#pragma once
// Many small runs on a few threads, each kept when it is done: a program that was cut off goes on with those that are missing, to the same numbers.

#include "lab/stages.hpp"

#include <plumb/core/random.hpp>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

namespace claims {

using plumb::index_t;

/// What a run found, by name.
using numbers = std::map<std::string, double>;

/// A run of one seed. `work()` depends on nothing but what the folder's settings say and its own name, so that neither order nor threads matter.
struct job {
  std::string name{};  ///< of its file too
  double cost = 1;     ///< how long it takes beside others, to foresee the end
  std::function<numbers()> work{};
};

/// All results of jobs, from `folder` where they are there, else made on `threads` threads and kept there. Prints a line now and then.
inline std::map<std::string, numbers> run_jobs(lab::run_folder& kept, const std::filesystem::path& folder, const std::vector<job>& jobs,
                                               int threads) {
  std::map<std::string, numbers> results;
  std::vector<const job*> missing;
  double cost = 0, done_cost = 0;
  const auto load = [&](const std::string& name) {
    std::ifstream in(folder / (name + ".json"));
    const auto all = nlohmann::json::parse(in, nullptr, false);
    if (!all.is_object()) throw std::runtime_error((folder / (name + ".json")).string() + ": cannot be read");
    numbers found;
    for (const auto& [key, value] : all.items()) found[key] = value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
    return found;
  };
  for (const job& j : jobs) {
    if (kept.done(j.name)) {
      results[j.name] = load(j.name);
    } else {
      missing.push_back(&j);
      cost += j.cost;
    }
  }
  if (!results.empty()) std::printf("%zu of %zu runs were done before\n", results.size(), jobs.size());
  std::mutex one_at_a_time;
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  const lab::stopwatch watch;
  const bool terminal = isatty(fileno(stdout)) != 0;
  double last_line = -1e9;
  std::size_t finished = 0;
  const auto work = [&] {
    for (std::size_t i; (i = next++) < missing.size();) {
      const job& j = *missing[i];
      try {
        const lab::stopwatch own;
        numbers found = j.work();
        found["seconds"] = own.seconds();
        const std::lock_guard guard(one_at_a_time);
        kept.once(
            j.name, ".json", [](const std::filesystem::path&) {},
            [&](const std::filesystem::path& file) {
              nlohmann::ordered_json all = nlohmann::ordered_json::object();
              for (const auto& [key, value] : found) all[key] = lab::or_null(value);
              lab::write_atomically(file, all.dump(1) + "\n");
            });
        results[j.name] = std::move(found);
        done_cost += j.cost;
        const double now = watch.seconds();
        if (++finished < missing.size() && now - last_line < (terminal ? 0.5 : 5)) continue;
        last_line = now;
        const double left = now * (cost - done_cost) / done_cost;
        std::printf("%s[%2d:%02d] %zu of %zu runs done, last %-28s %d:%02d left%s", terminal ? "\r" : "", static_cast<int>(now) / 60,
                    static_cast<int>(now) % 60, jobs.size() - missing.size() + finished, jobs.size(), j.name.c_str(), static_cast<int>(left) / 60,
                    static_cast<int>(left) % 60, terminal && finished < missing.size() ? "" : "\n");
        std::fflush(stdout);
      } catch (...) {
        const std::lock_guard guard(one_at_a_time);
        if (!failure) failure = std::current_exception();
        next = missing.size();
      }
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads && static_cast<std::size_t>(t) < missing.size(); ++t) others.emplace_back(work);
  work();
  for (auto& t : others) t.join();
  if (failure) std::rethrow_exception(failure);
  return results;
}

/// The mean of `x`, one for each seed, with its 95 % interval: the percentiles of the means of 10,000 samples drawn with replacement (Efron 1979).
/// None for fewer than three, nor where all are the same. Of differences by seed, this is the paired bootstrap.
inline lab::figure bootstrap_figure(std::string name, const std::vector<double>& x, std::string unit, std::string label = {}) {
  double sum = 0;
  for (const double v : x) sum += v;
  const auto n = static_cast<std::uint64_t>(x.size());
  lab::figure f{std::move(name), sum / static_cast<double>(n), {}, {}, x.size(), std::move(unit), std::move(label)};
  if (n < 3 || std::all_of(x.begin(), x.end(), [&](double v) { return v == x[0]; })) return f;
  constexpr std::size_t samples = 10000;
  std::vector<double> means(samples);
  for (std::size_t k = 0; k < samples; ++k) {
    const plumb::random_stream random{0x626f6f74, k};
    double total = 0;
    for (std::uint64_t i = 0; i < n; ++i) total += x[static_cast<std::size_t>(random.below(n, i))];
    means[k] = total / static_cast<double>(n);
  }
  std::sort(means.begin(), means.end());
  f.low = means[samples / 40];
  f.high = means[samples - 1 - samples / 40];
  return f;
}

}  // namespace claims

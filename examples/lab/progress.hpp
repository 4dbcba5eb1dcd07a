#pragma once
// What a person sees while the lab runs.

#include <plumb/core/view.hpp>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <iterator>
#include <vector>

#include <unistd.h>

namespace lab {

using plumb::index_t;

/// Seconds since it was made.
class stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// "DPO   step 120/300  loss 0.4321  accuracy 0.812  41230 tokens/s  12 s left": in place on a terminal, else a line every few seconds. Numbers are
/// means over the steps since the last line.
class progress {
 public:
  struct measure {
    const char* name;
    double value;
  };

  progress(const char* stage, int steps) : stage_(stage), steps_(steps), terminal_(isatty(fileno(stdout)) != 0), next_(interval()) {}

  /// The same measures in every call; what is NaN is left out.
  void show(int step, index_t done, std::initializer_list<measure> measures = {}) {
    tokens_ += done;
    add(since_, measures);
    if (10 * step > 9 * steps_) add(end_, measures);  // the last line is the mean over the last tenth of the steps, whatever the clock showed before
    const double now = watch_.seconds();
    const bool last = step == steps_;
    if (!last && now < next_) return;
    next_ = now + interval();
    std::printf("%s%-22s step %4d/%d", terminal_ ? "\r" : "", stage_, step, steps_);
    std::size_t k = 0;
    for (const double sum : (last ? end_ : since_).sums) {
      const char* name = std::data(measures)[k++].name;
      if (!std::isnan(sum)) std::printf("  %s %.3f", name, sum / (last ? end_ : since_).count);
    }
    std::printf("  %7.0f tokens/s  ", static_cast<double>(tokens_) / now);
    if (last) {
      std::printf("%.0f s       \n", now);
    } else {
      std::printf("%.0f s left  %s", now / step * (steps_ - step), terminal_ ? "" : "\n");
    }
    std::fflush(stdout);
    since_ = {};
  }

 private:
  struct means {
    std::vector<double> sums{};
    int count = 0;
  };
  static void add(means& m, std::initializer_list<measure> measures) {
    m.sums.resize(measures.size());
    for (std::size_t k = 0; k < measures.size(); ++k) m.sums[k] += std::data(measures)[k].value;
    ++m.count;
  }
  double interval() const { return terminal_ ? 0.2 : 5.0; }

  const char* stage_;
  int steps_;
  bool terminal_;
  stopwatch watch_{};
  double next_;
  means since_{}, end_{};
  index_t tokens_ = 0;
};

}  // namespace lab

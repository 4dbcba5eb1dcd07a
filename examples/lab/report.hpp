#pragma once
// What a person sees while the lab runs: progress lines; and how figures get their intervals.

#include "files.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>

#include <unistd.h>

namespace lab {

/// Seconds since it was made.
class stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// "DPO   step 120/300  loss 0.4321  accuracy 0.81  41230 tokens/s  12 s left": in place on a terminal, else a line every few seconds.
class progress {
 public:
  progress(const char* stage, int steps) : stage_(stage), steps_(steps), terminal_(isatty(fileno(stdout)) != 0) {}

  void show(int step, index_t tokens, double loss, double accuracy = -1) {
    tokens_ += tokens;
    loss_ += loss;
    accuracy_ += accuracy;
    ++since_;
    const double now = watch_.seconds();
    const bool last = step == steps_;
    if (!last && now < next_) return;
    next_ = now + (terminal_ ? 0.2 : 5.0);
    char extra[32] = "";
    if (accuracy >= 0) std::snprintf(extra, sizeof extra, "  accuracy %.3f", accuracy_ / since_);
    std::printf("%s%-22s step %4d/%d  loss %.4f%s  %7.0f tokens/s  ", terminal_ ? "\r" : "", stage_, step, steps_, loss_ / since_, extra,
                static_cast<double>(tokens_) / now);
    if (last) {
      std::printf("%.0f s       \n", now);
    } else {
      std::printf("%.0f s left  %s", now / step * (steps_ - step), terminal_ ? "" : "\n");
    }
    std::fflush(stdout);
    loss_ = accuracy_ = 0;
    since_ = 0;
  }

 private:
  const char* stage_;
  int steps_;
  bool terminal_;
  stopwatch watch_{};
  double next_ = 0, loss_ = 0, accuracy_ = 0;
  int since_ = 0;
  index_t tokens_ = 0;
};

/// A mean with its 95 % normal interval.
inline figure mean_figure(std::string name, const std::vector<double>& x, std::string unit) {
  double sum = 0, squares = 0;
  for (double v : x) sum += v;
  const double n = static_cast<double>(x.size()), mean = sum / n;
  for (double v : x) squares += (v - mean) * (v - mean);
  const double half = 1.959964 * std::sqrt(squares / (n - 1) / n);
  return {std::move(name), mean, mean - half, mean + half, x.size(), std::move(unit)};
}

/// A rate of `successes` (ties may count a half) among `n`, with its 95 % Wilson interval (Wilson 1927).
inline figure rate_figure(std::string name, double successes, std::size_t count) {
  const double z = 1.959964, n = static_cast<double>(count), p = successes / n;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::move(name), p, centre - half, centre + half, count, "share"};
}

/// "0.712 [0.690, 0.734]".
inline std::string to_text(const figure& f) {
  char text[96];
  if (f.low && f.high) {
    std::snprintf(text, sizeof text, "%.3f [%.3f, %.3f]", f.value, *f.low, *f.high);
  } else {
    std::snprintf(text, sizeof text, "%.3f", f.value);
  }
  return text;
}

}  // namespace lab

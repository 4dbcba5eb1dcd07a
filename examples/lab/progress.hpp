#pragma once
// What a person sees while the lab runs.

#include <plumb/core/view.hpp>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>

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

/// "DPO   step 120/300  loss 0.4321  accuracy 0.81  41230 tokens/s  12 s left": in place on a terminal, else a line every few seconds. Numbers are
/// means over the steps since the last line.
class progress {
 public:
  progress(const char* stage, int steps) : stage_(stage), steps_(steps), terminal_(isatty(fileno(stdout)) != 0), next_(interval()) {}

  /// What is NaN is left out.
  void show(int step, index_t tokens, double loss = std::numeric_limits<double>::quiet_NaN(),
            double accuracy = std::numeric_limits<double>::quiet_NaN()) {
    tokens_ += tokens;
    loss_ += loss;
    accuracy_ += accuracy;
    ++since_;
    if (10 * step > 9 * steps_) {  // the last line is the mean over the last tenth of the steps, whatever the clock showed before
      end_loss_ += loss;
      end_accuracy_ += accuracy;
      ++end_;
    }
    const double now = watch_.seconds();
    const bool last = step == steps_;
    if (!last && now < next_) return;
    next_ = now + interval();
    if (last) loss_ = end_loss_, accuracy_ = end_accuracy_, since_ = end_;
    char losses[32] = "", accuracies[32] = "";
    if (!std::isnan(loss_)) std::snprintf(losses, sizeof losses, "  loss %.4f", loss_ / since_);
    if (!std::isnan(accuracy_)) std::snprintf(accuracies, sizeof accuracies, "  accuracy %.3f", accuracy_ / since_);
    std::printf("%s%-22s step %4d/%d%s%s  %7.0f tokens/s  ", terminal_ ? "\r" : "", stage_, step, steps_, losses, accuracies,
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
  double interval() const { return terminal_ ? 0.2 : 5.0; }

  const char* stage_;
  int steps_;
  bool terminal_;
  stopwatch watch_{};
  double next_, loss_ = 0, accuracy_ = 0, end_loss_ = 0, end_accuracy_ = 0;
  int since_ = 0, end_ = 0;
  index_t tokens_ = 0;
};

}  // namespace lab

#pragma once
// Ranks that are threads of one process.

#include <plumb/distributed/communicator.hpp>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace plumb_test {

/// The last to arrive adds up what all brought, in the order of ranks.
template <class T>
class thread_ranks {
 public:
  explicit thread_ranks(int ranks) : brought_(static_cast<std::size_t>(ranks)) {}

  /// What an operation takes for its communicator.
  struct member {
    thread_ranks& all;
    std::size_t rank;
    void all_reduce_sum(plumb::view<T, 1> x) { all.all_reduce_sum(rank, x); }
  };

  /// `f(member)` on every rank, to its end. Returns how many sums there were.
  template <class F>
  int run(const F& f) {
    std::vector<std::thread> threads;
    for (std::size_t r = 0; r < brought_.size(); ++r)
      threads.emplace_back([&, r] {
        member me{*this, r};
        f(me);
      });
    for (std::thread& t : threads) t.join();
    return rounds_;
  }

 private:
  void all_reduce_sum(std::size_t rank, plumb::view<T, 1> x) {
    std::unique_lock<std::mutex> hold(lock_);
    std::vector<T>& mine = brought_[rank];
    mine.clear();
    for (plumb::index_t i = 0; i < x.extent(0); ++i) mine.push_back(x(i));
    const int my_round = rounds_;
    if (++arrived_ == brought_.size()) {
      sum_.assign(mine.size(), T(0));
      for (const std::vector<T>& b : brought_)
        for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] += b[i];
      arrived_ = 0;
      ++rounds_;
      ready_.notify_all();
    } else {
      ready_.wait(hold, [&] { return rounds_ != my_round; });
    }
    for (plumb::index_t i = 0; i < x.extent(0); ++i) x(i) = sum_[static_cast<std::size_t>(i)];
  }

  std::mutex lock_;
  std::condition_variable ready_;
  std::vector<std::vector<T>> brought_;
  std::vector<T> sum_;
  std::size_t arrived_ = 0;
  int rounds_ = 0;
};

}  // namespace plumb_test

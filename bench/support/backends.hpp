#pragma once
// The rows: each backend that is built, with what it needs to exist.

#include <plumb/backends/serial.hpp>
#include <plumb/core/random.hpp>
#if __has_include(<plumb/backends/xtensor.hpp>)
#include <plumb/backends/xtensor.hpp>
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#endif

#include <string>
#include <type_traits>
#include <vector>

namespace plumb_bench {

struct serial_row {
  plumb::serial::backend<float> backend;
  static std::string name() { return "serial"; }
};
#if __has_include(<plumb/backends/xtensor.hpp>)
struct xtensor_row {
  plumb::xtensor::backend backend;
  static std::string name() { return "xtensor"; }
};
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
struct onednn_row {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  plumb::onednn::backend backend{engine, stream};
  static std::string name() { return "onednn"; }
};
#endif

/// Calls `f(std::type_identity<row>{})` for each backend.
template <class F>
void for_each_backend(const F& f) {
  f(std::type_identity<serial_row>{});
#if __has_include(<plumb/backends/xtensor.hpp>)
  f(std::type_identity<xtensor_row>{});
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
  f(std::type_identity<onednn_row>{});
#endif
}

/// Normal numbers, the same at each run.
template <class T>
std::vector<T> random_values(std::size_t n, float scale = 1.0f) {
  std::vector<T> x(n);
  const plumb::random_stream numbers{20, 4};
  constexpr std::size_t period = 65521;  // making a random number takes longer than what is measured
  for (std::size_t i = 0; i < n; ++i)
    x[i] = i < period ? plumb::convert<T>(scale * static_cast<float>(numbers.normal(i))) : x[i - period];
  return x;
}

}  // namespace plumb_bench

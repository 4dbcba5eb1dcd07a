// Views and formulas in device code: compiled for sm_90 wherever nvcc is found, without its --expt flags.
#include <plumb/core/random.hpp>
#include <plumb/core/view.hpp>
#include <plumb/math/attribute_regression.hpp>
#include <plumb/math/bradley_terry.hpp>
#include <plumb/math/dpo.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/logistic.hpp>
#include <plumb/math/aggregate.hpp>
#include <plumb/math/token_logp.hpp>

struct device_space {
  static constexpr const char* name = "device";
};
template <class T, int R>
using device_view = plumb::view<T, R, device_space>;

__device__ inline plumb::index_t this_thread() { return plumb::index_t{blockIdx.x} * blockDim.x + threadIdx.x; }

template <class T>
__global__ void preference_terms(device_view<const T, 2> margins, device_view<T, 2> losses, device_view<T, 2> slopes) {
  const plumb::index_t i = this_thread();
  if (i >= margins.extent(0)) return;
  const plumb::math::dpo_term<T> dpo{T(0.1), T(0), T(1)};
  const plumb::math::bradley_terry_term<T> reward{T(1)};
  const plumb::math::centering_term<T> centred{T(0.01), T(1)};
  const plumb::math::squared_error_term<T> error{T(-100), T(1)};
  const T a = margins(i, 0), b = margins(i, 1);
  const plumb::two<T> terms[] = {dpo(a, b), reward(a, b, T(0), T(1)), centred(a, b, T(1)), error(a, b)};
  for (int k = 0; k < 4; ++k) {
    losses(i, k) = terms[k].first;
    slopes.row(i)(k) = terms[k].second;
  }
}

template <class T, class S>
__global__ void softmax_parts(device_view<const S, 2> logits, device_view<const T, 1> lse, device_view<T, 2> out) {
  const plumb::index_t i = this_thread();
  if (i >= logits.extent(0)) return;
  const plumb::math::logit_map<T> map{T(1), T(30), T(0.5)};
  const auto row = logits.row(i);
  for (plumb::index_t j = 0; j < row.extent(0); ++j) {
    const T x = static_cast<T>(static_cast<float>(row(j)));
    const T p = plumb::math::exp(map(x) - lse(i)) * map.slope(x);
    out.transposed()(j, i) = plumb::math::is_nan(p) ? plumb::math::sigmoid(x) : p;
  }
}

template <class T>
__global__ void noise(device_view<T, 1> out, plumb::random_stream stream) {
  const plumb::index_t i = this_thread();
  if (i < out.extent(0)) out(i) = static_cast<T>(stream.normal(static_cast<unsigned long long>(i)));
}

template __global__ void preference_terms(device_view<const float, 2>, device_view<float, 2>, device_view<float, 2>);
template __global__ void preference_terms(device_view<const double, 2>, device_view<double, 2>, device_view<double, 2>);
template __global__ void softmax_parts(device_view<const float, 2>, device_view<const float, 1>, device_view<float, 2>);
template __global__ void softmax_parts(device_view<const plumb::bf16, 2>, device_view<const float, 1>,
                                       device_view<float, 2>);
template __global__ void softmax_parts(device_view<const plumb::f16, 2>, device_view<const float, 1>,
                                       device_view<float, 2>);
template __global__ void noise(device_view<float, 1>, plumb::random_stream);

#pragma once
// The transformer's own formulas, as functors of the compute interface.

#include <plumb/plumb.hpp>

#include <bit>
#include <cstdint>

namespace lab {

using plumb::two;

/// 1 / sqrt(mean of squares + epsilon), from the sum of squares. RMSNorm: Zhang and Sennrich, arXiv:1910.07467.
template <class T>
struct inverse_rms {
  T width, epsilon;
  T operator()(const T& sum) const { return T(1) / plumb::math::sqrt(sum / width + epsilon); }
};
struct square {
  template <class T>
  T operator()(const T& x) const { return x * x; }
};
struct product_of_three {
  template <class T>
  T operator()(const T& a, const T& b, const T& c) const { return a * b * c; }
};
/// dx of RMSNorm, from x, the inverse r, s = sum_j x_j dy_j g_j, and dy g: `r dyg - x r^3 s / width`.
template <class T>
struct rms_norm_gradient {
  T width;
  T operator()(const T& x, const T& r, const T& s, const T& dyg) const { return r * dyg - x * r * r * r * s / width; }
};

/// Rotary positions (Su et al., arXiv:2104.09864) on the two halves of a head; `direction` -1 rotates back.
template <class T>
struct rotate {
  T direction;
  two<T> operator()(const T& low, const T& high, const T& cosine, const T& sine) const {
    const T s = direction * sine;
    return {low * cosine - high * s, high * cosine + low * s};
  }
};

/// 1 / (1 + exp(-x)). Of a float without a call and without a branch, so that compilers make vectors of the loop, which took a third of a training step:
/// exp by reduction to |r| <= log(2) / 2 and the polynomial of Cephes' expf; relative error below 3e-7, and what lies beyond 87 is as at 87.
template <class T>
T sigmoid(const T& x) {
  return plumb::math::sigmoid(x);
}
inline float sigmoid(const float& x) {
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: added, it leaves the nearest whole number in the last bits
  const float y = x > 87.0f ? -87.0f : x < -87.0f ? 87.0f : -x;
  const float shifted = y * 1.44269504f + magic, n = shifted - magic;
  const float r = y - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) p = p * r + c;
  const float two_to_n = std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) + 127u) << 23);
  return 1.0f / (1.0f + (p * r * r + r + 1.0f) * two_to_n);
}

/// SwiGLU (Shazeer, arXiv:2002.05202): silu(gate) up.
struct swiglu {
  template <class T>
  T operator()(const T& gate, const T& up) const { return gate * sigmoid(gate) * up; }
};
struct swiglu_gradient {
  template <class T>
  two<T> operator()(const T& gate, const T& up, const T& d) const {
    const T s = sigmoid(gate);
    return {d * up * s * (T(1) + gate * (T(1) - s)), d * gate * s};
  }
};

/// AdamW (Loshchilov and Hutter, arXiv:1711.05101): first and second moment, then the step.
template <class T>
struct adam_moments {
  T beta1, beta2, scale;  ///< `scale` clips the gradient
  two<T> operator()(const T& g, const T& m, const T& v) const {
    const T x = scale * g;
    return {beta1 * m + (T(1) - beta1) * x, beta2 * v + (T(1) - beta2) * x * x};
  }
};
template <class T>
struct adam_step {
  T rate, decay, epsilon, correction1, correction2;
  T operator()(const T& p, const T& m, const T& v) const {
    return p - rate * (m * correction1 / (plumb::math::sqrt(v * correction2) + epsilon) + decay * p);
  }
};

}  // namespace lab

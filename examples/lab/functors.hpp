#pragma once
// The transformer's own formulas, as functors of the compute interface.

#include <plumb/plumb.hpp>

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

/// SwiGLU (Shazeer, arXiv:2002.05202): silu(gate) up.
struct swiglu {
  template <class T>
  T operator()(const T& gate, const T& up) const { return gate * plumb::math::sigmoid(gate) * up; }
};
struct swiglu_gradient {
  template <class T>
  two<T> operator()(const T& gate, const T& up, const T& d) const {
    const T s = plumb::math::sigmoid(gate);
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

#pragma once
// Divergences between a student's and a teacher's distribution over tokens, entry by entry, from log-probabilities. A divergence is an
// aggregate of its settings with a summand and a slope; where a probability is 0 its terms are 0.

#include <plumb/compute/operations.hpp>
#include <plumb/core/error.hpp>
#include <plumb/math/fast.hpp>
#include <plumb/math/logistic.hpp>

PLUMB_NAMESPACE_BEGIN

/// With `p` the teacher's and `q` the student's probabilities, `q = softmax(u)`. Your own divergence is such a struct: `value` is the summand,
/// `slope` is dD/du of one entry, `mean` in it the sum of `value`, or, with `own_mean`, of `pull`.
namespace distill {

/// `KL(p || q) = sum p log(p / q)`: the student covers all that the teacher does. Hinton et al., arXiv:1503.02531, up to the teacher's entropy.
struct forward_kl {
  static constexpr bool own_mean = false;       ///< whether the slope asks for another mean than the divergence
  static constexpr bool within_teacher = false;  ///< whether it is infinite where the teacher's probability is 0 and the student's is not
  void require(const char*) const {}
  template <class T>
  PLUMB_HD T value(const T& log_q, const T& log_p) const {
    const T p = math::fast::exp(log_p);
    return math::where_nonzero(p, p * (log_p - log_q));
  }
  template <class T>
  PLUMB_HD T slope(const T& log_q, const T& log_p, const T&) const {
    return math::fast::exp(log_q) - math::fast::exp(log_p);
  }
};

/// `KL(q || p) = sum q log(q / p)`: the student keeps to what the teacher finds likely. MiniLLM, arXiv:2306.08543, eq. 1.
struct reverse_kl {
  static constexpr bool own_mean = false;
  static constexpr bool within_teacher = true;
  void require(const char*) const {}
  template <class T>
  PLUMB_HD T value(const T& log_q, const T& log_p) const {
    const T q = math::fast::exp(log_q);
    return math::where_nonzero(q, q * (log_q - log_p));
  }
  template <class T>
  PLUMB_HD T slope(const T& log_q, const T& log_p, const T& mean) const {
    const T q = math::fast::exp(log_q);
    return math::where_nonzero(q, q * (log_q - log_p - mean));
  }
};

/// `beta KL(p || m) + (1 - beta) KL(q || m)`, `m = beta p + (1 - beta) q`. GKD, arXiv:2306.13649, section 3, and TRL: `beta` is the teacher's share.
/// It goes to 0 at both ends; divided by `beta` it goes to `forward_kl` there, divided by `1 - beta` to `reverse_kl`. (TRL jumps to those at exactly
/// 0 and 1.)
struct jensen_shannon {
  double beta = 0.5;
  static constexpr bool own_mean = true;
  static constexpr bool within_teacher = false;
  void require(const char* op) const {
    require_option(op, "beta", beta, beta > 0 && beta < 1, "above 0 and below 1 (towards which the loss goes to 0: see forward_kl, reverse_kl)");
  }
  template <class T>
  PLUMB_HD T value(const T& log_q, const T& log_p) const {
    const two<T> m = mixture(log_q, log_p);
    const T q = math::fast::exp(log_q), p = math::fast::exp(log_p);
    return T(beta) * math::where_nonzero(p, -p * m.second) + T(1 - beta) * math::where_nonzero(q, -q * m.first);
  }
  /// `q log(q / m)`.
  template <class T>
  PLUMB_HD T pull(const T& log_q, const T& log_p) const {
    const T q = math::fast::exp(log_q);
    return math::where_nonzero(q, -q * mixture(log_q, log_p).first);
  }
  template <class T>
  PLUMB_HD T slope(const T& log_q, const T& log_p, const T& mean) const {
    const T q = math::fast::exp(log_q);
    return math::where_nonzero(q, T(1 - beta) * q * (-mixture(log_q, log_p).first - mean));
  }

 private:
  // log(m / q) and log(m / p), from the smaller of the two ratios: exactly 0 where q = p.
  template <class T>
  PLUMB_HD two<T> mixture(const T& log_q, const T& log_p) const {
    const T d = log_p - log_q;
    const bool student_has_more = d < T(0);
    const T yes = T(beta), no = T(1 - beta), share = student_has_more ? yes : no;
    const T up = student_has_more ? T(0) : d, down = student_has_more ? -d : T(0);
    const T common = math::fast::log1p(share * (math::fast::exp_of_minus_magnitude(d) - T(1)));
    return {common + up, common + down};
  }
};

}  // namespace distill

namespace math {

/// The summand of a divergence as a functor of log q and log p.
template <class D>
struct divergence_value {
  D divergence;
  template <class T>
  PLUMB_HD T operator()(const T& log_q, const T& log_p) const { return divergence.value(log_q, log_p); }
};
/// The same, and what the slope asks the mean of.
template <class D>
struct divergence_value_and_pull {
  D divergence;
  template <class T>
  PLUMB_HD two<T> operator()(const T& log_q, const T& log_p) const { return {divergence.value(log_q, log_p), divergence.pull(log_q, log_p)}; }
};
/// `factor` and the row's coefficient times the slope; exactly 0 where the coefficient is.
template <class T, class D>
struct divergence_slope {
  D divergence;
  T factor;
  PLUMB_HD T operator()(const T& log_q, const T& log_p, const T& mean, const T& coefficient) const {
    return where_nonzero(coefficient, factor * coefficient * divergence.slope(log_q, log_p, mean));
  }
};

/// `scale x`, and -inf, the logarithm of 0, for an entry that is not there (a negative id).
template <class T>
struct scaled_where_listed {
  T scale, none;
  PLUMB_HD T operator()(const T& x, const T& id) const { return id < T(0) ? none : scale * x; }
};
/// log(1 - e^x), the rest of a probability whose logarithm is `x`; nothing where rounding put `x` above 0.
struct log_of_rest {
  template <class T>
  PLUMB_HD T operator()(const T& x) const { return log1mexp(T(0) < x ? T(0) : x); }
};
/// `c e^(x - lse)`: what one token outside a list gets of the slope of all of them; 0 where `c` is.
struct share_of_rest {
  template <class T>
  PLUMB_HD T operator()(const T& x, const T& lse, const T& c) const { return where_nonzero(c, c * fast::exp(x - lse)); }
};
/// The same, added to `y`.
struct add_share_of_rest {
  template <class T>
  PLUMB_HD T operator()(const T& y, const T& x, const T& lse, const T& c) const { return y + share_of_rest{}(x, lse, c); }
};

}  // namespace math

PLUMB_NAMESPACE_END

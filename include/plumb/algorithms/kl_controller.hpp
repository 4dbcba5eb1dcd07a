#pragma once
// The KL coefficient from update to update; on the host.

#include <plumb/core/error.hpp>

PLUMB_NAMESPACE_BEGIN

/// Anything with a coefficient that may answer to the KL that was measured.
template <class C>
concept kl_controller = requires(C& c, const C& k, double x) {
  c.update(x, x);
  { k.coefficient } -> std::convertible_to<double>;
};

/// The same coefficient for ever.
struct fixed_kl_controller {
  double coefficient = 0.05;
  void update(double, double) {}
  void require(const char* op) const { require_option(op, "coefficient", coefficient, coefficient >= 0, "0 or positive"); }
};

/// Ziegler et al., arXiv:1909.08593, section 2.2: `coefficient *= 1 + clip(kl / target - 1, +-error_limit) * samples / horizon`. Checked against
/// OpenRLHF, verl and DR-PO's code. The KL must be of the target's kind: the original, TRL and DR-PO take the sum over a sequence (target 6),
/// verl and OpenRLHF a mean per token (target 0.1): one target cannot serve both.
struct adaptive_kl_controller {
  double coefficient = 0.05;
  double target = 6;
  double horizon = 10000;  ///< in the unit of `samples`
  double error_limit = 0.2;

  /// `kl`: mean over the batch of the policy before the update; `samples`: sequences in it, of all ranks. A batch so large beside the horizon that
  /// the coefficient would not stay positive is refused.
  void update(double kl, double samples) {
    constexpr const char* op = "adaptive_kl_controller";
    require_settings(op);  // not the coefficient, which may have become as small as it likes
    require_option(op, "samples", samples, samples >= 0, "0 or positive");
    const bool number = kl - kl == 0;
    if (!number) fail(message(op) << "the measured KL is " << kl << ": the policy is not sound. The coefficient is as it was.");
    const double error = kl / target - 1;
    const double clipped = error < -error_limit ? -error_limit : error_limit < error ? error_limit : error;
    const double factor = 1 + clipped * samples / horizon;
    if (!(factor > 0))
      fail(message(op) << samples << " samples at a horizon of " << horizon << " would multiply the coefficient by " << factor
                       << ": the horizon must be in the unit of the samples, and longer. The coefficient is as it was.");
    coefficient *= factor;
  }
  void require(const char* op) const {
    fixed_kl_controller{coefficient}.require(op);
    require_settings(op);
  }

 private:
  void require_settings(const char* op) const {
    require_option(op, "target", target, target > 0, "positive");
    require_option(op, "horizon", horizon, horizon > 0, "positive");
    require_option(op, "error_limit", error_limit, error_limit >= 0 && error_limit < 1, "in [0, 1)");
  }
};

static_assert(kl_controller<fixed_kl_controller> && kl_controller<adaptive_kl_controller>);

PLUMB_NAMESPACE_END

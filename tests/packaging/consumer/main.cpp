// What a user's program would find out about plumb, in one file without a test framework: built and run through every
// way of including plumb and under every set of flags that users have. Prints what is wrong; the exit status is the
// number of it.
#include <plumb/plumb.hpp>

#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#if defined(PLUMB_NO_EXCEPTIONS)
#include <csetjmp>
#endif

namespace {

int wrong = 0;

void check(bool good, const char* what) {
  if (good) return;
  std::printf("wrong: %s\n", what);
  ++wrong;
}

bool close(double a, double b) { return plumb::math::is_finite(a) && std::fabs(a - b) < 1e-12; }

const std::vector<double> chosen{-12.1, -30.4}, rejected{-14.0, -29.9}, ref_chosen{-12.5, -31.0},
    ref_rejected{-13.2, -30.1};

// By hand: z = 0.1 (0.4 + 0.8) and 0.1 (0.6 - 0.2); the loss is the mean of -log sigmoid(z).
void loss_and_gradient() {
  const auto r = plumb::dpo(chosen, rejected, ref_chosen, ref_rejected, {.beta = 0.1});
  const double z[] = {0.12, 0.04};
  double loss = 0;
  for (int p = 0; p < 2; ++p) {
    loss += std::log(1 + std::exp(-z[p])) / 2;
    const double slope = -0.1 / (1 + std::exp(z[p])) / 2;
    check(close(r.d_chosen[static_cast<std::size_t>(p)], slope), "dL/dchosen of a pair");
    check(close(r.d_rejected[static_cast<std::size_t>(p)], -slope), "dL/drejected of a pair");
  }
  check(close(r.loss, loss), "the DPO loss of two pairs");
  check(close(r.accuracy, 1), "the accuracy of two pairs");
}

// Masks, infinities and NaN have to survive flags under which the compiler thinks that they do not exist.
void infinities_and_nan() {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  plumb::serial::backend<double> compute;
  std::vector<double> logits{1, 2, 3, -inf, -inf, -inf, 0, -inf, 0}, lse(3);
  compute.row_log_sum_exp(plumb::as_const(plumb::view(logits.data(), 3, 3)), lse);
  check(close(lse[0], std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0))), "log-sum-exp of 1, 2, 3");
  check(plumb::math::is_inf(lse[1]) && !plumb::math::is_nan(lse[1]), "log-sum-exp of nothing but -inf");
  check(close(lse[2], std::log(2.0)), "log-sum-exp with one -inf");

  std::vector<double> token{-1, nan, -2}, sum(1);
  std::vector<std::int32_t> cu_seqlens{0, 3};
  std::vector<std::uint8_t> scored{1, 0, 1};
  compute.segment_reduce(plumb::reduction::sum, token, plumb::sequence_layout<>::packed(cu_seqlens, scored), sum);
  check(close(sum[0], -3), "NaN behind a mask changes nothing");

  const auto poisoned = plumb::dpo(std::vector{nan, -30.4}, rejected, ref_chosen, ref_rejected);
  check(plumb::math::is_nan(poisoned.loss), "NaN in is NaN out");
  check(plumb::math::is_nan(poisoned.accuracy), "a metric that NaN enters is NaN");
  const std::vector<double> none;
  check(plumb::math::is_nan(plumb::dpo(none, none, none, none).accuracy), "a metric over nothing is NaN");
}

bool begins_as_it_should(const char* sentence) {
#if defined(PLUMB_NO_EXCEPTIONS)
  const char* text = "plumb: dpo_pairs: argument `rejected` has 1 elements, but `chosen` has 2.";
#else
  const char* text = "plumb: dpo: argument `rejected` has 1 elements, but `chosen` has 2.";
#endif
  for (; *text != '\0'; ++text, ++sentence)
    if (*text != *sentence) return false;
  return true;
}

#if defined(PLUMB_NO_EXCEPTIONS)
std::jmp_buf back;
bool told = false;

void a_mistake_is_told() {
  const std::vector<double> one{-14.0};
  plumb::set_error_handler([](const char* sentence) {
    told = begins_as_it_should(sentence);
    std::longjmp(back, 1);
  });
  // The call that fails owns nothing yet, so that jumping out of it loses nothing.
  plumb::serial::backend<double> compute;
  plumb::arena<> scratch;
  if (setjmp(back) == 0)
    plumb::dpo_pairs(compute, scratch, {.chosen = chosen, .rejected = one}, {.denominator = 1}, {});
  check(told, "the sentence of a mistake, without exceptions");
}
#else
void a_mistake_is_told() {
  try {
    plumb::dpo(chosen, std::vector{-14.0}, ref_chosen, ref_rejected);
    check(false, "a mistake throws");
  } catch (const plumb::precondition_error& e) {
    check(begins_as_it_should(e.what()), "the sentence of a mistake");
  }
}
#endif

}  // namespace

#if defined(EXPECT_NO_EXCEPTIONS) && !defined(PLUMB_NO_EXCEPTIONS)
#error "PLUMB_NO_EXCEPTIONS should follow from -fno-exceptions"
#endif

int main() {
  loss_and_gradient();
  infinities_and_nan();
  a_mistake_is_told();
  if (wrong == 0)
    std::printf("plumb %d.%d.%d: all is well\n", PLUMB_VERSION_MAJOR, PLUMB_VERSION_MINOR, PLUMB_VERSION_PATCH);
  return wrong;
}

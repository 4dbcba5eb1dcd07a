// Units compiled with and without exceptions, with fast mathematics and with checked data, in one program: each gets the errors of its own mode, and
// the same numbers; views and errors pass from one to the other.
#include <plumb/plumb.hpp>

#include <cstdio>

bool mistake_throws();
bool mistake_reaches_handler();
double loss_with_exceptions();
double loss_without_exceptions();
double sum_with_fast_math(plumb::view<const double, 1> x, const plumb::sequence_layout<>& sequences);
bool bad_id_is_seen(const plumb::preference_pairs<>& pairs);

int main() {
  const std::vector<double> x{1, 2, 3};
  const std::vector<std::int32_t> cu_seqlens{0, 3}, chosen{5}, rejected{0};
  const auto sequences = plumb::sequence_layout<>::packed(cu_seqlens);
  bool caught = false;
  try {
    sum_with_fast_math({}, sequences);
  } catch (const plumb::error& e) {
    caught = e.what()[0] == 'p';
  }
  const bool good = caught && sum_with_fast_math(x, sequences) == 6 && bad_id_is_seen({sequences, chosen, rejected}) && mistake_throws() && mistake_reaches_handler() && mistake_throws() &&
                    loss_with_exceptions() == loss_without_exceptions() && loss_with_exceptions() > 0;
  if (!good) std::printf("wrong: units with and without exceptions do not live together\n");
  return good ? 0 : 1;
}

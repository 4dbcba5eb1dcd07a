#define PLUMB_CHECKED
#include <plumb/plumb.hpp>

/// True when an id out of range is found, in pairs that another unit made.
bool bad_id_is_seen(const plumb::preference_pairs<>& pairs) {
  const std::vector<double> logp(3);
  std::vector<unsigned char> memory(4096);
  plumb::serial::backend<double> compute;
  plumb::arena<> scratch{memory};
  try {
    plumb::dpo(compute, scratch, {.logp = logp, .ref_logp = logp, .pairs = pairs}, {.denominator = 1}, {});
  } catch (const plumb::precondition_error&) {
    return true;
  }
  return false;
}

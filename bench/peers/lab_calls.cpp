// The lab's transformer behind C functions: torch_lab.py.

#include "support/lab.hpp"

#include <string>

namespace {

using work = plumb_bench::lab_at_work<plumb_bench::onednn_row>;
work& lab_model() {
  static work w;
  return w;
}

}  // namespace

extern "C" {

std::int64_t plumb_lab_parameters() { return static_cast<std::int64_t>(lab_model().model.layout().list().size()); }
/// The name of a parameter; its shape, and where it begins in the weights, to `place` `[3]`.
const char* plumb_lab_parameter(std::int64_t i, std::int64_t* place) {
  const auto& p = lab_model().model.layout().list()[static_cast<std::size_t>(i)];
  place[0] = p.rows, place[1] = p.columns, place[2] = p.offset;
  return p.name.c_str();
}
const float* plumb_lab_weights() { return lab_model().model.weights().data(); }

/// Sizes of batch `i` to `size` `[4]`: texts, length, scored tokens, tokens without padding; where the others are given, ids `[texts, length]` and
/// rows and targets `[scored]`.
void plumb_lab_batch(std::int64_t i, std::int64_t* size, std::int32_t* ids, std::int32_t* rows, std::int32_t* targets) {
  const auto& x = lab_model().batches[static_cast<std::size_t>(i)];
  size[0] = x.size, size[1] = x.length, size[2] = x.scored_count(), size[3] = x.tokens();
  if (ids == nullptr) return;
  std::copy(x.ids.begin(), x.ids.end(), ids);
  std::copy(x.rows.begin(), x.rows.end(), rows);
  std::copy(x.targets.begin(), x.targets.end(), targets);
}
double plumb_lab_train(std::int64_t batch, double rate) { return lab_model().train(static_cast<std::size_t>(batch), rate); }

std::int64_t plumb_lab_prompts() { return static_cast<std::int64_t>(work::prompts); }
std::int64_t plumb_lab_written() { return work::written; }
/// Gives the length of prompt `i`; its tokens to `ids`, where given.
std::int64_t plumb_lab_prompt(std::int64_t i, std::int32_t* ids) {
  const auto& tokens = lab_model().starts[static_cast<std::size_t>(i)].tokens;
  if (ids != nullptr) std::copy(tokens.begin(), tokens.end(), ids);
  return static_cast<std::int64_t>(tokens.size());
}
/// Replies `[prompts, written]` and their log-probabilities.
void plumb_lab_write(double temperature, std::int64_t seed, std::int32_t* tokens, float* logp) {
  const auto r = lab_model().write(temperature, static_cast<std::uint64_t>(seed));
  for (plumb::index_t s = 0; s < r.size(); ++s) std::copy(r.own_of(s).begin(), r.own_of(s).end(), tokens + s * work::written);
  std::copy(r.logp.begin(), r.logp.end(), logp);
}
}

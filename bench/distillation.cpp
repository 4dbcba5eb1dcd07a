// Distillation of 64 rows of 32000 logits, loss and gradient, whole teacher and a list of 64 tokens, beside bare reads of the logits and a write.

#include "support/rows.hpp"

#include <plumb/objectives/distillation.hpp>

namespace {

using namespace plumb_bench;
using plumb::index_t;
constexpr index_t rows = 64, vocabulary = 32000, listed = 64;

template <class Row, class D>
void run(benchmark::State& state, std::type_identity<Row>, const D& divergence, bool list) {
  const auto size = static_cast<std::size_t>(rows * vocabulary);
  const auto logits = random_values<float>(size, 3.0f);
  auto teacher = random_values<float>(size, 2.0f);
  std::vector<std::int32_t> ids;
  for (index_t i = 0; i < rows * listed; ++i) ids.push_back(static_cast<std::int32_t>(i % listed * 499 + i / listed));
  const std::vector<float> logp(ids.size(), -5);  // of 64 tokens: less than the whole
  std::vector<float> gradient(size);
  float loss = 0;
  plumb::distillation_inputs<float> in{.logits = {logits.data(), rows, vocabulary}};
  if (list) {
    in.teacher_ids = {ids.data(), rows, listed};
    in.teacher_logp = {logp.data(), rows, listed};
  } else {
    in.teacher_logits = {teacher.data(), rows, vocabulary};
  }
  const plumb::distillation_options options{.denominator = static_cast<double>(rows), .chunk_rows = 4};
  Row one;
  desk<Row> on(plumb::distillation_workspace(one.backend, in, divergence, options));
  for (auto _ : state) {
    plumb::distillation(on.row.backend, on.scratch, in, divergence, options, {.loss = loss, .d_logits = {gradient.data(), rows, vocabulary}});
    benchmark::ClobberMemory();
  }
  const std::size_t bytes = size * sizeof(float);
  const double read = seconds([&] { bare_read(logits.data(), bytes); });
  const double copy = seconds([&] { bare_copy(gradient.data(), teacher.data(), bytes); });
  compare(state, "bare read + copy", read + copy);
  count(state, "rows/s", rows);
}

const int registered[] = {
    add_rows("distillation/forward_kl/64x32000", [](benchmark::State& s, auto row) { run(s, row, plumb::distill::forward_kl{}, false); }),
    add_rows("distillation/jensen_shannon/64x32000", [](benchmark::State& s, auto row) { run(s, row, plumb::distill::jensen_shannon{}, false); }),
    add_rows("distillation/forward_kl/64x32000/top64", [](benchmark::State& s, auto row) { run(s, row, plumb::distill::forward_kl{}, true); })};

}  // namespace

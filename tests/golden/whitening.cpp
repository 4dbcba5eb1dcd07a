// Whitening and the masked moments under it.
#include "golden/rollout_calls.hpp"

#include <plumb/presets.hpp>

namespace golden {
namespace {

layout_arrays rows_of_case(const golden_case& c, const array& x) {
  if (!c.has_input("mask")) return whole_rows(x.shape[0], x.shape[1]);
  return padded(x.shape[0], x.shape[1], to_flags(c.input("mask", x.shape).data));
}

// The output `whitened` or `normalized`, and `mean`, `var` where the case has them.
template <class Job>
void compare_whitened(Job& j, const char* name, const whiten_call& in) {
  const whiten_answer y = call(j, in);
  const double size = largest(in.values);
  j.output(name, y.whitened, whitened_terms(in.values, y.variance, in.options.epsilon));
  if (j.c.outputs.count("mean") > 0) j.output("mean", {y.mean}, size);
  if (j.c.outputs.count("var") > 0) j.output("var", {y.variance}, size * size);
}
template <class Job>
void compare_row_means(Job& j, const char* name, const numbers& x, const layout_arrays& rows, double count_epsilon) {
  numbers means;
  for (std::size_t s = 0; s < rows.begin.size(); ++s) means.push_back(moments_of(j, x, rows.sequence(s), {.count_epsilon = count_epsilon}).mean);
  j.output(name, means, largest(x));
}

constexpr auto trl = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("values", {0, 0});
  const layout_arrays rows = rows_of_case(c, x);
  // TRL's function leaves masked values shifted too; its trainer zeroes them later.
  compare_whitened(j, "whitened", {x.data, rows, plumb::presets::trl().whitening(c.flag("shift_mean", true))});
  if (c.outputs.count("var_biased") > 0) j.output("var_biased", {moments_of(j, x.data, rows, {}).variance}, largest(x.data) * largest(x.data));
  if (c.outputs.count("row_mean") > 0) compare_row_means(j, "row_mean", x.data, rows, 0);
};

constexpr auto verl = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("values", {0, 0});
  const layout_arrays rows = rows_of_case(c, x);
  constexpr double count_epsilon = 1e-8;
  compare_whitened(j, "whitened", {x.data, rows, plumb::presets::verl().whitening(c.flag("shift_mean", true))});
  if (c.outputs.count("sum") > 0) j.output("sum", {aggregate_of(j, x.data, rows, {.denominator = 1})}, largest(x.data));
  if (c.outputs.count("row_mean") > 0) compare_row_means(j, "row_mean", x.data, rows, count_epsilon);
};

constexpr auto nemo = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("tensor", {0, 0});
  const layout_arrays rows = rows_of_case(c, x);
  compare_whitened(j, "normalized", {x.data, rows, plumb::presets::nemo_aligner().whitening()});
  j.output("masked_mean", {moments_of(j, x.data, rows, {}).mean}, largest(x.data));
  compare_row_means(j, "row_masked_mean", x.data, rows, 0);
};

constexpr auto drpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("values", {0, 0});
  compare_whitened(j, "whitened", {x.data, rows_of_case(c, x), {.shift_mean = c.flag("shift_mean", true)}});
};

// Each row by itself.
constexpr auto openrlhf = [](auto& j) {
  const golden_case& c = j.c;
  const array& x = c.input("tensor", {0, 0});
  if (c.number("dim") != 1) c.fail("`dim` is not 1");
  const layout_arrays rows = rows_of_case(c, x);
  plumb::whiten_options options = plumb::presets::openrlhf().whitening();
  const double epsilon = options.epsilon = c.number("eps");
  numbers normalized, terms;
  for (std::size_t s = 0; s < x.shape[0]; ++s) {
    const numbers row = part(x.data, s * x.shape[1], x.shape[1]);
    const layout_arrays one = padded(1, x.shape[1], flags(rows.scored.begin() + static_cast<std::ptrdiff_t>(s * x.shape[1]),
                                                          rows.scored.begin() + static_cast<std::ptrdiff_t>((s + 1) * x.shape[1])));
    const whiten_answer y = call(j, whiten_call{row, one, options});
    normalized = joined(normalized, y.whitened);
    terms = joined(terms, numbers(row.size(), whitened_terms(row, std::max(y.variance, epsilon), 0)));
  }
  j.output("normalized", normalized, terms);
};

const bool registered[] = {
    map_cases({"whitening_trl", "masked_whiten, masked_mean, masked_var", every_case, on_each_backend(trl)}),
    map_cases({"whitening_trl", "masked_whiten", every_case, on_each_backend(trl)}),
    map_cases({"whitening_verl", "masked_whiten, masked_mean, masked_var, masked_sum", every_case, on_each_backend(verl)}),
    map_cases({"whitening_verl", "masked_whiten", every_case, on_each_backend(verl)}),
    map_cases({"whitening_nemo", "normalize_tensor, masked_global_mean_var", every_case, on_each_backend(nemo)}),
    map_cases({"whitening_drpo", "whiten", every_case, on_each_backend(drpo)}),
    map_cases({"whitening_openrlhf", "masked_normalize", every_case, on_each_backend(openrlhf)}),
};

}  // namespace
}  // namespace golden

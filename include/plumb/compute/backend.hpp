#pragma once
// What a backend is: all the operations together, the capabilities it declares, and a check that answers in sentences.

#include <plumb/compute/operations.hpp>

PLUMB_NAMESPACE_BEGIN

/// Optional fused operations. A backend lists those it has in `capabilities`; it is then held to them at compile time. What it does
/// not list is composed from the required operations, and the composition is the specification of the fused form.
namespace cap {
/// `token_logp(inputs, options, outputs)`, arguments of compute/fused.hpp; outputs that are not given are skipped.
struct token_logp {};
/// `token_logp_grad(inputs, options, gradients, d_logits)`: likewise; `d_logits` may be the logits.
struct token_logp_grad {};
/// `gae(inputs, options, outputs)`, arguments of compute/fused.hpp; outputs that are not given are skipped.
struct gae {};
/// Ranks by sorting, where the composition compares each entry with all. `ranks(scratch, x, y)`: `y[i]` is the number of entries of `x` that come
/// before `x[i]` in rising order, equal ones (0 and -0 among them) by their place; one NaN in `x`, and every `y` is NaN.
/// `match_ranks(scratch, x, from, to, y)`: `y[i] = x[j]` where `from[j]` and `to[i]` are the same rank; both hold what `ranks` gives, and where
/// either holds NaN, every `y` is NaN. Vectors of `real` of one length and any strides; `y` overlaps nothing.
/// `ranks_workspace(n)`: bytes of scratch that either takes for `n` entries.
struct ranks {};
}  // namespace cap

/// The list of fused operations that a backend declares: `capabilities<cap::token_logp>`.
template <class... C>
using capabilities = types<C...>;

/// Whether backend `B` lists `Capability` in its capabilities.
template <class B, class Capability>
inline constexpr bool declares = std::remove_cvref_t<B>::capabilities::template contains<Capability>;

/// Every required operation. Models: `serial::backend`, `xtensor::backend`, `onednn::backend`, and what you write.
template <class B>
concept compute_backend =
    has_backend_types<B> && provides_fill<B> && provides_copy<B> && provides_transform<B> && provides_transform2<B> &&
    provides_reduce<B> && provides_segment_reduce<B> && provides_segment_broadcast<B> && provides_segment_scan<B> &&
    provides_row_log_sum_exp<B> && provides_row_pick<B> && provides_row_add_at<B> && provides_row_gather<B> &&
    provides_row_scatter_add<B> && provides_row_softmax<B> && provides_row_softmax_grad<B> && provides_gemm<B> &&
    provides_gemm_workspace<B> && provides_sync<B>;

/// True, or one sentence for each operation that is missing. Every objective calls it, so that a wrong backend is told what it lacks.
template <class B>
consteval bool check_backend() {
#define PLUMB_NEEDS(operation, arguments)                                                             \
  static_assert(provides_##operation<B>, "plumb: this backend has no " #operation "(" arguments       \
                                         "): see backends/README.md, \"" #operation "\"")
  static_assert(has_backend_types<B>,
                "plumb: this backend does not say its real, memory_space, storage_types, capabilities and determinism_level: "
                "see backends/README.md, \"types\"");
  if constexpr (has_backend_types<B>) {
    static_assert(storage_of<B>::template contains<real_of<B>>, "plumb: this backend's storage_types lack its real");
    PLUMB_NEEDS(fill, "y, value");
    PLUMB_NEEDS(copy, "x, y");
    PLUMB_NEEDS(transform, "f, y, x...");
    PLUMB_NEEDS(transform2, "f, y, z, x...");
    PLUMB_NEEDS(reduce, "op, x, y, write");
    PLUMB_NEEDS(segment_reduce, "op, x, layout, y");
    PLUMB_NEEDS(segment_broadcast, "x, layout, y, write");
    PLUMB_NEEDS(segment_scan, "a, x, layout, y");
    PLUMB_NEEDS(row_log_sum_exp, "x, y");
    PLUMB_NEEDS(row_pick, "x, ids, y");
    PLUMB_NEEDS(row_add_at, "x, ids, y");
    PLUMB_NEEDS(row_gather, "x, ids, y");
    PLUMB_NEEDS(row_scatter_add, "x, ids, y");
    PLUMB_NEEDS(row_softmax, "x, valid, y");
    PLUMB_NEEDS(row_softmax_grad, "y, dy, dx");
    PLUMB_NEEDS(gemm, "scratch, alpha, a, b, beta, c");
    PLUMB_NEEDS(gemm_workspace, "a, b, c");
    PLUMB_NEEDS(sync, "");
  }
#undef PLUMB_NEEDS
  return true;
}

/// `static_assert(require_determinism<B, determinism::run_to_run>())`: refuses a backend that declares less.
template <class B, determinism Level>
consteval bool require_determinism() {
  static_assert(std::remove_cvref_t<B>::determinism_level >= Level,
                "plumb: this backend declares less determinism than is asked for: see its determinism_level");
  return true;
}

PLUMB_NAMESPACE_END

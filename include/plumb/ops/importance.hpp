#pragma once
// Between the policy that sampled (an inference engine, or an older policy) and the one that is trained: importance weights, rejection, and
// how far apart the two are.

#include <plumb/math/importance.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/statistics.hpp>

PLUMB_NAMESPACE_BEGIN

/// Of what a ratio is taken.
enum class ratio_level {
  token,          ///< of each token for itself
  sequence_sum,   ///< of the whole sequence: the log-ratios of its scored tokens are summed, the ratios multiplied
  sequence_mean,  ///< their mean, the geometric mean of the ratios
  sequence_any,   ///< for rejection only: a sequence is rejected if any of its tokens would be (the largest divergence counts)
};

/// Log-probabilities of all tokens, flat, under both policies.
template <class Real, class Space = host_space>
struct sampler_inputs {
  view<const Real, 1, Space> logp{};          ///< `[N]`, of the policy that is trained, as it was at the start of the update
  view<const Real, 1, Space> sampler_logp{};  ///< `[N]`, as the sampler gave it
  sequence_layout<Space> sequences{};
};

namespace detail {

template <class Inputs>
void require_sampler_inputs(const char* op, const Inputs& in) {
  const index_t tokens = in.logp.extent(0);
  require_given(op, "logp", in.logp, in.sampler_logp.given() || in.sequences.scored.extent(0) > 0);
  require_given(op, "sampler_logp", in.sampler_logp, tokens > 0);
  require_same_shape(op, "sampler_logp", in.sampler_logp, "logp", in.logp);
  require_sequences(op, in.sequences, tokens);
}
template <class Inputs, class V>
void require_sampler_metrics(const char* op, const Inputs& in, const V& metrics, std::size_t rows) {
  require_arguments(op, {{"metrics", metrics}},
                    {{"logp", in.logp}, {"sampler_logp", in.sampler_logp}, {"begin", in.sequences.begin}, {"end", in.sequences.end},
                     {"scored", in.sequences.scored}});
  require_sampler_inputs(op, in);
  require_given(op, "metrics", metrics, true);
  require_metrics(op, metrics, rows);
}
inline void require_level(const char* op, ratio_level level, bool any_allowed) {
  const auto number = static_cast<double>(static_cast<int>(level));
  require_option(op, "level", number, number >= 0 && number <= (any_allowed ? 3 : 2),
                 any_allowed ? "a ratio_level" : "ratio_level::token, sequence_sum or sequence_mean");
}
inline void require_ratio(const char* op, double log_ratio_limit, double length_epsilon) {
  require_option(op, "log_ratio_limit", log_ratio_limit, log_ratio_limit >= 0, "0 (none) or positive");
  require_option(op, "length_epsilon", length_epsilon, length_epsilon >= 0, "0 or positive");
}
// Sums, or means, over scored tokens into `[S]`. `lengths` are the scored ones.
template <class B>
void sum_or_mean(B& b, const_real_view<B> x, const sequence_layout<space_of<B>>& layout, const_real_view<B> lengths, bool mean, double epsilon,
                 real_view<B> y) {
  b.segment_reduce(reduction::sum, x, layout, y);
  if (mean) b.transform(math::per_length<real_of<B>>{static_cast<real_of<B>>(epsilon)}, y, as_const(y), lengths);
}

template <class B>
std::size_t reals(index_t tokens, int token_arrays, index_t sequences, int sequence_arrays, int numbers) {
  workspace_size w;
  for (int i = 0; i < token_arrays; ++i) w.template add<real_of<B>>(tokens);
  for (int i = 0; i < sequence_arrays; ++i) w.template add<real_of<B>>(sequences);
  for (int i = 0; i < numbers; ++i) w.template add<real_of<B>>(1);
  return w.bytes();
}

}  // namespace detail

// Weights.

/// Options of `importance_weights`, beside the correction.
struct importance_options {
  ratio_level level = ratio_level::token;
  bool normalize = false;      ///< weights are divided by their mean, over scored tokens or (at the levels of sequences) over sequences
  double log_ratio_limit = 0;  ///< the log-ratio (of the level) is kept within +- this before the exponential; 0: no limit (verl: 20)
  double length_epsilon = 0;   ///< added to each length in `ratio_level::sequence_mean`

  void require(const char* op) const {
    detail::require_level(op, level, false);
    detail::require_ratio(op, log_ratio_limit, length_epsilon);
  }
};

/// Log-probabilities of all tokens, flat, under both policies.
template <class Real, class Space = host_space>
struct importance_inputs {
  view<const Real, 1, Space> logp{};          ///< `[N]`, as in `sampler_inputs`
  view<const Real, 1, Space> sampler_logp{};  ///< `[N]`, likewise
  view<const Real, 1, Space> batch_mean{};    ///< `[2]`, for `normalize` of parts of a batch: the row `weight` of the metrics, summed over all
  sequence_layout<Space> sequences{};
};

/// Rows of `metrics` of `importance_weights`, over scored tokens at the level of tokens, else over sequences with scored tokens. Weights are those
/// before normalization; `effective_sample_share` takes the first two rows. `changed` counts ratios that the correction truncated or masked.
inline constexpr metric_info importance_metrics[] = {
    {"weight"}, {"weight_square"}, {"weight_min", metric_kind::min}, {"weight_max", metric_kind::max}, {"changed"}};

/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct importance_outputs {
  view<Real, 1, Space> weights{};  ///< `[N]`: constants, nothing is differentiated; 0 for tokens that do not count
  view<Real, 2, Space> metrics{};  ///< `[5, 2]`, rows as in `importance_metrics`
};

/// Bytes of arena that `importance_weights` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t importance_weights_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  const index_t s = sequences.sequences();
  workspace_size w;
  w.add_bytes(detail::reals<B>(tokens, 3, s, 3, 4)).template add<real_of<B>>(2);
  return w.add_bytes(detail::sequence_metric_rows<B>::workspace(tokens, s)).bytes();
}

/// Weights for what a sampler with other probabilities drew: `w = correction(exp(x))` with the log-ratio `x = logp - sampler_logp` of each
/// token, or its sum or mean over the sequence, which all its tokens then share. `Correction` is one of namespace `correction`, or a functor of
/// that form. The weights multiply a policy loss token by token (`importance_weights` of `policy_loss`). Without `batch_mean`, `normalize` takes
/// the mean of this call. A mask over sequences with weights over tokens (seq-mask-tis of OpenRLHF and NeMo-RL) is two calls: `reject_tokens`
/// with `rejection::k1` and `sequence_mean`, then this one, `correction::none`, with the layout that it left.
/// Enqueues and returns; nothing is allocated. Checked against verl `compute_rollout_correction_weights` and TRL's GRPO trainer.
template <class B, class Correction>
  requires has_backend_types<B>
void importance_weights(B& b, arena_of<B>& scratch, const importance_inputs<real_of<B>, space_of<B>>& in, const Correction& correct,
                        const importance_options& options, const importance_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "importance_weights";
  const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
  const bool of_tokens = options.level == ratio_level::token;
  require_arguments(op, {{"weights", out.weights}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"sampler_logp", in.sampler_logp}, {"batch_mean", in.batch_mean}, {"begin", in.sequences.begin},
                     {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  detail::require_sampler_inputs(op, in);
  options.require(op);
  if constexpr (requires { correct.require(op); }) correct.require(op);
  if (in.batch_mean.given()) require_extent(op, "batch_mean", in.batch_mean, 0, 2, "sum and count");
  if (out.weights.given()) require_same_shape(op, "weights", out.weights, "logp", in.logp);
  detail::require_metrics(op, out.metrics, std::size(importance_metrics));
  scratch.require(op, importance_weights_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const math::limited<real> limit{static_cast<real>(options.log_ratio_limit)};
  const index_t items = of_tokens ? tokens : sequences;
  const auto ratio = scratch.template take<real>(items), weight = scratch.template take<real>(items);
  const auto log_ratio = of_tokens ? ratio : scratch.template take<real>(tokens);
  const auto lengths = scratch.template take<real>(sequences);
  b.transform(math::minus{}, log_ratio, in.logp, in.sampler_logp);
  detail::scored_lengths(b, scratch, in.sequences, tokens, lengths);
  if (!of_tokens)
    detail::sum_or_mean(b, as_const(log_ratio), in.sequences, as_const(lengths), options.level == ratio_level::sequence_mean,
                        options.length_epsilon, ratio);
  b.transform(math::ratio_of<real>{limit}, ratio, as_const(ratio));
  b.transform(correct, weight, as_const(ratio));

  const auto sums = scratch.template take<real>(2);
  if (out.metrics.given() || (options.normalize && !in.batch_mean.given())) {
    typename arena_of<B>::frame of_rows(scratch);
    const bool all = out.metrics.given();
    const real_view<B, 2> one(sums.data(), 1, 2);
    detail::sequence_metric_rows<B> rows(b, scratch, all ? out.metrics : one, in.sequences, tokens);
    const auto row = [&](index_t k, metric_kind kind, auto f, auto... x) {
      if (of_tokens) {
        rows.tokens(k, kind, f, x...);
      } else {
        rows.sequences(k, kind, f, x...);
      }
    };
    row(0, metric_kind::mean, math::identity{}, as_const(weight));
    if (all) {
      b.copy(as_const(out.metrics.row(0)), sums);
      row(1, metric_kind::mean, math::square{}, as_const(weight));
      row(2, metric_kind::min, math::identity{}, as_const(weight));
      row(3, metric_kind::max, math::identity{}, as_const(weight));
      row(4, metric_kind::mean, math::differs{}, as_const(weight), as_const(ratio));
    }
  }
  if (!out.weights.given()) return;
  if (options.normalize) {
    const const_real_view<B> from = in.batch_mean.given() ? in.batch_mean : as_const(sums);
    const const_real_view<B> sum(from.data(), {items}, {0}), count(from.data() + from.stride(0), {items}, {0});
    b.transform(math::over_mean{}, weight, as_const(weight), sum, count);
  }
  if (of_tokens) {
    const auto counts = scratch.template take<real>(tokens);
    b.segment_broadcast(detail::constant(b, scratch, real(1), sequences), in.sequences, counts, write_mode::overwrite);
    b.transform(math::keep_where{}, out.weights, as_const(weight), as_const(counts));
  } else {
    b.segment_broadcast(as_const(weight), in.sequences, out.weights, write_mode::overwrite);
  }
}

// Rejection.

/// Options of `reject_tokens`, beside the criterion.
struct rejection_options {
  ratio_level level = ratio_level::token;
  double log_ratio_limit = 0;  ///< each token's log-ratio is kept within +- this before anything else; 0: no limit (verl: 20)
  double length_epsilon = 0;   ///< added to each length in `ratio_level::sequence_mean` (verl: 1e-8)

  void require(const char* op) const {
    detail::require_level(op, level, true);
    detail::require_ratio(op, log_ratio_limit, length_epsilon);
  }
};

/// Log-probabilities of all tokens, flat, under both policies.
template <class Real, class Space = host_space>
struct rejection_inputs {
  view<const Real, 1, Space> logp{};          ///< `[N]`, as in `sampler_inputs`
  view<const Real, 1, Space> sampler_logp{};  ///< `[N]`, likewise
  view<const std::uint8_t, 1, Space> kept{};  ///< `[N]`, 0 for what an earlier criterion rejected (its `scored`); not given: all are kept
  sequence_layout<Space> sequences{};
};

/// Rows of `metrics` of `reject_tokens`: share of the scored tokens that are rejected; share of the sequences with scored tokens that lost any
/// (both together with what was rejected before); the divergence that is compared, over tokens or sequences as the level is.
inline constexpr metric_info rejection_metrics[] = {{"rejected"},
                                                    {"rejected_sequences"},
                                                    {"divergence"},
                                                    {"divergence_min", metric_kind::min},
                                                    {"divergence_max", metric_kind::max}};

/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct rejection_outputs {
  view<std::uint8_t, 1, Space> scored{};  ///< `[N]`: 1 for what counted and is not rejected, else 0
  view<Real, 2, Space> metrics{};         ///< `[5, 2]`, rows as in `rejection_metrics`
};

/// Bytes of arena that `reject_tokens` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t reject_tokens_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  const index_t s = sequences.sequences();
  workspace_size w;
  return w.add_bytes(detail::reals<B>(tokens, 3, s, 4, 4)).add_bytes(detail::sequence_metric_rows<B>::workspace(tokens, s)).bytes();
}

/// Drops tokens, or whole sequences, on which the two policies are too far apart. What is left goes into the layout of the objectives that
/// follow: `{in.sequences.begin, in.sequences.end, scored}`; what a token mean is divided by is then for you to choose (`count_scored` of the
/// new layout, or of the old one so that rejected tokens count as 0). Several criteria, each over all scored
/// tokens: give each call the `scored` of the one before as `kept`; a token stays if all keep it. A NaN log-ratio is kept, and says so in the
/// metrics and the loss. `Criterion` is one of namespace `rejection`, or a functor of that form.
/// Enqueues and returns; nothing is allocated. Checked against verl `compute_rollout_rejection_mask` (its k1 bounds are of sampler over policy:
/// ours are 1/upper and 1/lower).
template <class B, class Criterion>
  requires has_backend_types<B>
void reject_tokens(B& b, arena_of<B>& scratch, const rejection_inputs<real_of<B>, space_of<B>>& in, const Criterion& criterion,
                   const rejection_options& options, const rejection_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "reject_tokens";
  const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
  const bool of_tokens = options.level == ratio_level::token, any = options.level == ratio_level::sequence_any;
  require_arguments(op, {{"scored", out.scored}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"sampler_logp", in.sampler_logp}, {"kept", in.kept}, {"begin", in.sequences.begin},
                     {"end", in.sequences.end}, {"sequences.scored", in.sequences.scored}});
  detail::require_sampler_inputs(op, in);
  options.require(op);
  if constexpr (requires { criterion.require(op); }) criterion.require(op);
  if (in.kept.given()) require_same_shape(op, "kept", in.kept, "logp", in.logp);
  if (out.scored.given()) require_same_shape(op, "scored", out.scored, "logp", in.logp);
  detail::require_metrics(op, out.metrics, std::size(rejection_metrics));
  scratch.require(op, reject_tokens_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const math::outside<real> outside{static_cast<real>(criterion.least()), static_cast<real>(criterion.most())};
  const auto divergence = scratch.template take<real>(tokens), rejected = scratch.template take<real>(tokens);
  const auto of_sequence = scratch.template take<real>(sequences), lengths = scratch.template take<real>(sequences);
  const auto rejected_sequence = scratch.template take<real>(sequences);
  const math::limited<real> limit{static_cast<real>(options.log_ratio_limit)};
  b.transform(math::limited_difference<real>{limit}, divergence, in.logp, in.sampler_logp);
  b.transform(criterion, divergence, as_const(divergence));
  if (of_tokens) {
    b.transform(outside, rejected, as_const(divergence));
  } else {
    if (any) {  // the worst token: one outside makes the maximum 1
      b.transform(outside, rejected, as_const(divergence));
      b.segment_reduce(reduction::max, as_const(rejected), in.sequences, rejected_sequence);
      b.segment_reduce(reduction::max, as_const(divergence), in.sequences, of_sequence);
    } else {
      detail::scored_lengths(b, scratch, in.sequences, tokens, lengths);
      detail::sum_or_mean(b, as_const(divergence), in.sequences, as_const(lengths), options.level == ratio_level::sequence_mean,
                          options.length_epsilon, of_sequence);
      b.transform(outside, rejected_sequence, as_const(of_sequence));
    }
    b.segment_broadcast(as_const(rejected_sequence), in.sequences, rejected, write_mode::overwrite);
  }
  if (in.kept.given()) b.transform(math::rejected_too{}, rejected, as_const(rejected), in.kept);
  if (out.metrics.given()) {
    typename arena_of<B>::frame of_rows(scratch);
    detail::sequence_metric_rows<B> rows(b, scratch, out.metrics, in.sequences, tokens);
    b.segment_reduce(reduction::max, as_const(rejected), in.sequences, rejected_sequence);
    rows.tokens(0, metric_kind::mean, math::identity{}, as_const(rejected));
    rows.sequences(1, metric_kind::mean, math::identity{}, as_const(rejected_sequence));
    const metric_kind kinds[] = {metric_kind::mean, metric_kind::min, metric_kind::max};
    for (index_t k = 0; k < 3; ++k) {
      if (of_tokens) {
        rows.tokens(2 + k, kinds[k], math::identity{}, as_const(divergence));
      } else {
        rows.sequences(2 + k, kinds[k], math::identity{}, as_const(of_sequence));
      }
    }
  }
  if (!out.scored.given()) return;
  const auto counts = scratch.template take<real>(tokens);
  b.segment_broadcast(detail::constant(b, scratch, real(1), sequences), in.sequences, counts, write_mode::overwrite);
  b.transform(math::kept_mask{}, counts, as_const(rejected), as_const(counts));
  b.copy(as_const(counts), out.scored);
}

// How far apart.

/// Options of `ratio_statistics`.
struct ratio_statistics_options {
  ratio_level level = ratio_level::token;  ///< at the levels of sequences each token has its sequence's ratio
  double lower = 0.5, upper = 2;           ///< what counts as low and high, and bounds for the rows `bounded`
  double log_ratio_limit = 0;              ///< the log-ratio (of the level) is kept within +- this before the exponential; 0: no limit (verl: 20)
  double length_epsilon = 0;               ///< added to each length in means over a sequence (verl: 1e-8)

  void require(const char* op) const {
    detail::require_level(op, level, false);
    detail::require_ratio(op, log_ratio_limit, length_epsilon);
    correction::require_bounds(op, lower, upper);
  }
};

/// Rows of `ratio_statistics`, of `exp(logp - sampler_logp)`. The first seven are over scored tokens: `variance_from_sums` and
/// `effective_sample_share` take the two `bounded` ones. The others are over sequences with scored tokens, of the mean of the ratio over the
/// sequence; `deviation` is its distance from 1.
inline constexpr metric_info ratio_statistics_metrics[] = {{"ratio"},
                                                           {"ratio_min", metric_kind::min},
                                                           {"ratio_max", metric_kind::max},
                                                           {"low"},
                                                           {"high"},
                                                           {"bounded"},
                                                           {"bounded_square"},
                                                           {"sequence_ratio"},
                                                           {"sequence_ratio_square"},
                                                           {"sequence_ratio_min", metric_kind::min},
                                                           {"sequence_ratio_max", metric_kind::max},
                                                           {"sequence_deviation_max", metric_kind::max},
                                                           {"sequence_low"},
                                                           {"sequence_high"}};

/// Bytes of arena that `ratio_statistics` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t ratio_statistics_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  const index_t s = sequences.sequences();
  workspace_size w;
  return w.add_bytes(detail::reals<B>(tokens, 1, s, 1, 0)).add_bytes(detail::sequence_metric_rows<B>::workspace(tokens, s)).bytes();
}

/// What the ratios of a batch look like before any correction, into `metrics` `[14, 2]`. Checked against verl `compute_is_metrics`.
template <class B>
  requires has_backend_types<B>
void ratio_statistics(B& b, arena_of<B>& scratch, const sampler_inputs<real_of<B>, space_of<B>>& in, const ratio_statistics_options& options,
                      const std::type_identity_t<real_view<B, 2>>& metrics) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "ratio_statistics";
  const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
  detail::require_sampler_metrics(op, in, metrics, std::size(ratio_statistics_metrics));
  options.require(op);
  scratch.require(op, ratio_statistics_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto ratio = scratch.template take<real>(tokens), of_sequence = scratch.template take<real>(sequences);
  detail::sequence_metric_rows<B> rows(b, scratch, metrics, in.sequences, tokens);
  const math::ratio_of<real> to_ratio{{static_cast<real>(options.log_ratio_limit)}};
  const real lower = static_cast<real>(options.lower), upper = static_cast<real>(options.upper);
  const math::bounded<real> bounded{lower, upper};
  b.transform(math::minus{}, ratio, in.logp, in.sampler_logp);
  if (options.level == ratio_level::token) {
    b.transform(to_ratio, ratio, as_const(ratio));
  } else {
    detail::sum_or_mean(b, as_const(ratio), in.sequences, rows.lengths(), options.level == ratio_level::sequence_mean, options.length_epsilon,
                        of_sequence);
    b.transform(to_ratio, of_sequence, as_const(of_sequence));
    b.segment_broadcast(as_const(of_sequence), in.sequences, ratio, write_mode::overwrite);
  }
  detail::sum_or_mean(b, as_const(ratio), in.sequences, rows.lengths(), true, options.length_epsilon, of_sequence);
  rows.tokens(0, metric_kind::mean, math::identity{}, as_const(ratio));
  rows.tokens(1, metric_kind::min, math::identity{}, as_const(ratio));
  rows.tokens(2, metric_kind::max, math::identity{}, as_const(ratio));
  rows.tokens(3, metric_kind::mean, math::beyond<real>{lower, true}, as_const(ratio));
  rows.tokens(4, metric_kind::mean, math::beyond<real>{upper, false}, as_const(ratio));
  rows.tokens(5, metric_kind::mean, bounded, as_const(ratio));
  rows.tokens(6, metric_kind::mean, math::bounded_square<real>{bounded}, as_const(ratio));
  rows.sequences(7, metric_kind::mean, math::identity{}, as_const(of_sequence));
  rows.sequences(8, metric_kind::mean, math::square{}, as_const(of_sequence));
  rows.sequences(9, metric_kind::min, math::identity{}, as_const(of_sequence));
  rows.sequences(10, metric_kind::max, math::identity{}, as_const(of_sequence));
  rows.sequences(11, metric_kind::max, math::deviation_from_one{}, as_const(of_sequence));
  rows.sequences(12, metric_kind::mean, math::beyond<real>{lower, true}, as_const(of_sequence));
  rows.sequences(13, metric_kind::mean, math::beyond<real>{upper, false}, as_const(of_sequence));
}

/// Options of `off_policy_statistics`.
struct off_policy_options {
  double log_ratio_limit = 0;  ///< in the two chi-squares, log-ratios are kept within +- this; 0: no limit (verl: 20)
  double length_epsilon = 0;   ///< added to each length in means over a sequence (verl: 1e-8)

  void require(const char* op) const { detail::require_ratio(op, log_ratio_limit, length_epsilon); }
};

/// Rows of `off_policy_statistics`. Perplexities are those of sequences, `exp` of minus the mean log-probability; the gap of a sequence is log
/// perplexity less the sampler's, the ratio its exponential. `kl` and `k3` estimate KL(sampler || policy) per token; the chi-squares are the
/// mean of `ratio^2 - 1`, of tokens and of whole sequences.
inline constexpr metric_info off_policy_metrics[] = {{"perplexity"},
                                                     {"log_perplexity"},
                                                     {"sampler_perplexity"},
                                                     {"sampler_log_perplexity"},
                                                     {"gap"},
                                                     {"gap_size"},
                                                     {"gap_min", metric_kind::min},
                                                     {"gap_max", metric_kind::max},
                                                     {"perplexity_ratio"},
                                                     {"kl"},
                                                     {"k3"},
                                                     {"chi_square"},
                                                     {"sequence_chi_square"}};

/// Bytes of arena that `off_policy_statistics` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t off_policy_statistics_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  const index_t s = sequences.sequences();
  workspace_size w;
  return w.add_bytes(detail::reals<B>(tokens, 1, s, 3, 0)).add_bytes(detail::sequence_metric_rows<B>::workspace(tokens, s)).bytes();
}

/// How far the trained policy is from the one that sampled, into `metrics` `[13, 2]`. Checked against verl `compute_offpolicy_metrics`.
template <class B>
  requires has_backend_types<B>
void off_policy_statistics(B& b, arena_of<B>& scratch, const sampler_inputs<real_of<B>, space_of<B>>& in, const off_policy_options& options,
                           const std::type_identity_t<real_view<B, 2>>& metrics) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "off_policy_statistics";
  const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
  detail::require_sampler_metrics(op, in, metrics, std::size(off_policy_metrics));
  options.require(op);
  scratch.require(op, off_policy_statistics_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto log_ratio = scratch.template take<real>(tokens);
  const auto mean = scratch.template take<real>(sequences), sampler_mean = scratch.template take<real>(sequences);
  const auto sum = scratch.template take<real>(sequences);
  detail::sequence_metric_rows<B> rows(b, scratch, metrics, in.sequences, tokens);
  detail::sum_or_mean(b, in.logp, in.sequences, rows.lengths(), true, options.length_epsilon, mean);
  detail::sum_or_mean(b, in.sampler_logp, in.sequences, rows.lengths(), true, options.length_epsilon, sampler_mean);
  b.transform(math::minus{}, log_ratio, in.logp, in.sampler_logp);
  b.segment_reduce(reduction::sum, as_const(log_ratio), in.sequences, sum);
  const math::chi_square_term<real> chi_square{{static_cast<real>(options.log_ratio_limit)}};
  rows.sequences(0, metric_kind::mean, math::exp_negated{}, as_const(mean));
  rows.sequences(1, metric_kind::mean, math::negate{}, as_const(mean));
  rows.sequences(2, metric_kind::mean, math::exp_negated{}, as_const(sampler_mean));
  rows.sequences(3, metric_kind::mean, math::negate{}, as_const(sampler_mean));
  rows.sequences(4, metric_kind::mean, math::minus{}, as_const(sampler_mean), as_const(mean));
  rows.sequences(5, metric_kind::mean, math::distance{}, as_const(sampler_mean), as_const(mean));
  rows.sequences(6, metric_kind::min, math::minus{}, as_const(sampler_mean), as_const(mean));
  rows.sequences(7, metric_kind::max, math::minus{}, as_const(sampler_mean), as_const(mean));
  rows.sequences(8, metric_kind::mean, math::exp_difference{}, as_const(sampler_mean), as_const(mean));
  rows.tokens(9, metric_kind::mean, math::minus{}, in.sampler_logp, in.logp);
  rows.tokens(10, metric_kind::mean, math::k3_of{}, in.logp, in.sampler_logp);
  rows.tokens(11, metric_kind::mean, chi_square, as_const(log_ratio));
  rows.sequences(12, metric_kind::mean, chi_square, as_const(sum));
}

// Host overloads.

/// What the host overload of `importance_weights` returns.
template <class T>
struct importance_result {
  std::vector<T> weights;                              ///< `[N]`
  T weight = 0, effective_sample_share = 0, changed = 0;  ///< means before normalization, see `importance_metrics`
};
/// Log-probabilities under both policies and a host layout; weights out.
template <detail::host_range R, class Correction = correction::truncated>
importance_result<detail::value_of<R>> importance_weights(const R& logp, view<const detail::value_of<R>, 1> sampler_logp,
                                                          const sequence_layout<>& sequences, const Correction& correct = {},
                                                          const importance_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  require_layout("importance_weights", sequences, x.extent(0));
  require_layout_data("importance_weights", sequences, x.extent(0));
  importance_result<T> r{.weights = detail::zeros<T>(x.extent(0))};
  T m[std::size(importance_metrics)][2] = {};
  detail::host_call<T> call(importance_weights_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  importance_weights(call.compute, call.scratch, {.logp = x, .sampler_logp = sampler_logp, .sequences = sequences}, correct, options,
                     {.weights = r.weights, .metrics = view<T, 2>(&m[0][0], std::size(importance_metrics), 2)});
  r.weight = metric_value(metric_kind::mean, m[0][0], m[0][1]);
  r.effective_sample_share = effective_sample_share(m[0][0], m[1][0], m[0][1]);
  r.changed = metric_value(metric_kind::mean, m[4][0], m[4][1]);
  return r;
}

/// What the host overload of `reject_tokens` returns.
template <class T>
struct rejection_result {
  std::vector<std::uint8_t> scored;  ///< `[N]`
  T rejected = 0, rejected_sequences = 0, divergence = 0;  ///< means, see `rejection_metrics`
};
/// Log-probabilities under both policies and a host layout; the mask that is left out.
template <detail::host_range R, class Criterion = rejection::k1>
rejection_result<detail::value_of<R>> reject_tokens(const R& logp, view<const detail::value_of<R>, 1> sampler_logp,
                                                    const sequence_layout<>& sequences, const Criterion& criterion = {},
                                                    const rejection_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  require_layout("reject_tokens", sequences, x.extent(0));
  require_layout_data("reject_tokens", sequences, x.extent(0));
  rejection_result<T> r{.scored = std::vector<std::uint8_t>(static_cast<std::size_t>(x.extent(0)))};
  T m[std::size(rejection_metrics)][2] = {};
  detail::host_call<T> call(reject_tokens_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  reject_tokens(call.compute, call.scratch, {.logp = x, .sampler_logp = sampler_logp, .sequences = sequences}, criterion, options,
                {.scored = r.scored, .metrics = view<T, 2>(&m[0][0], std::size(rejection_metrics), 2)});
  T* fields[] = {&r.rejected, &r.rejected_sequences, &r.divergence};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(metric_kind::mean, m[k][0], m[k][1]);
  return r;
}

/// Log-probabilities under both policies and a host layout; the value of each of `ratio_statistics_metrics` out.
template <detail::host_range R>
std::vector<detail::value_of<R>> ratio_statistics(const R& logp, view<const detail::value_of<R>, 1> sampler_logp, const sequence_layout<>& sequences,
                                                  const ratio_statistics_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  detail::require_host_layout("ratio_statistics", sequences, x.extent(0));
  T m[std::size(ratio_statistics_metrics)][2] = {};
  const view<T, 2> metrics(&m[0][0], std::size(ratio_statistics_metrics), 2);
  detail::host_call<T> call(ratio_statistics_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  ratio_statistics(call.compute, call.scratch, {.logp = x, .sampler_logp = sampler_logp, .sequences = sequences}, options, metrics);
  return metric_values(ratio_statistics_metrics, metrics);
}

/// Log-probabilities under both policies and a host layout; the value of each of `off_policy_metrics` out.
template <detail::host_range R>
std::vector<detail::value_of<R>> off_policy_statistics(const R& logp, view<const detail::value_of<R>, 1> sampler_logp,
                                                       const sequence_layout<>& sequences, const off_policy_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  detail::require_host_layout("off_policy_statistics", sequences, x.extent(0));
  T m[std::size(off_policy_metrics)][2] = {};
  const view<T, 2> metrics(&m[0][0], std::size(off_policy_metrics), 2);
  detail::host_call<T> call(off_policy_statistics_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  off_policy_statistics(call.compute, call.scratch, {.logp = x, .sampler_logp = sampler_logp, .sequences = sequences}, options, metrics);
  return metric_values(off_policy_metrics, metrics);
}

PLUMB_NAMESPACE_END

#pragma once
// SteerLM 2.0: an attribute-conditioned policy is fitted to P(y | a, x) by weighted replies of its own.

#include <plumb/math/steerlm2.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/segment_softmax.hpp>

#include <iterator>
#include <utility>

PLUMB_NAMESPACE_BEGIN

/// What is known of `R` replies: one number each, summed over the same tokens.
template <class Real, class Space = host_space>
struct steerlm2_weights_inputs {
  view<const Real, 1, Space> log_p_attributes{};  ///< `[R]`, log P(a | x, y), from `attribute_posterior` for instance
  view<const Real, 1, Space> log_p_reply{};       ///< `[R]`, log P(y | x) of the unconditional model
  view<const Real, 1, Space> log_q{};             ///< `[R]`, log Q'(y | a, x) of the policy that wrote the replies, at its sampling temperature
  sequence_layout<Space> groups{};                ///< the replies to each prompt; those that are not scored do not take part
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct steerlm2_weights_outputs {
  view<Real, 1, Space> weight{};             ///< `[R]`, w', sums to 1 over a group
  view<Real, 1, Space> log_weight{};         ///< `[R]`, its logarithm; 0 for replies that do not take part
  view<Real, 1, Space> effective_samples{};  ///< `[G]`, `1 / sum w'^2`; 0 for a group without replies
};

/// Bytes of arena that `steerlm2_weights` takes.
template <class B>
std::size_t steerlm2_weights_workspace(const B& b, index_t replies, index_t groups) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(replies);
  for (int i = 0; i < 2; ++i) w.template add<real>(groups);
  return w.add_bytes(segment_log_softmax_workspace(b, replies, groups)).bytes();
}

namespace detail {
// `(sum x)^2 / sum x^2` of each group; takes one number per item and two per group.
template <class B>
void effective_samples(B& b, arena_of<B>& scratch, const_real_view<B> weight, const sequence_layout<space_of<B>>& groups, real_view<B> size) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const auto squares = scratch.template take<real>(weight.extent(0));
  const auto sum = scratch.template take<real>(groups.sequences()), sum_of_squares = scratch.template take<real>(groups.sequences());
  b.transform(math::times{}, squares, weight, weight);
  b.segment_reduce(reduction::sum, weight, groups, sum);
  b.segment_reduce(reduction::sum, as_const(squares), groups, sum_of_squares);
  b.transform(math::effective_size{}, size, as_const(sum), as_const(sum_of_squares));
}
}  // namespace detail

/// `w' = softmax over each prompt's replies of log P(a | x, y) + log P(y | x) - log Q'(y | a, x)`. arXiv:2406.08673, section 4.5. Checked
/// against NeMo-Aligner `SteerLM2Dataset`. Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void steerlm2_weights(B& b, arena_of<B>& scratch, const steerlm2_weights_inputs<real_of<B>, space_of<B>>& in,
                      const steerlm2_weights_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "steerlm2_weights";
  const index_t replies = in.log_q.extent(0), groups = in.groups.sequences();
  require_arguments(op, {{"weight", out.weight}, {"log_weight", out.log_weight}, {"effective_samples", out.effective_samples}},
                    {{"log_p_attributes", in.log_p_attributes}, {"log_p_reply", in.log_p_reply}, {"log_q", in.log_q}, {"begin", in.groups.begin},
                     {"end", in.groups.end}, {"scored", in.groups.scored}});
  require_given(op, "log_q", in.log_q, in.groups.scored.extent(0) > 0 || in.log_p_reply.given());
  require_given(op, "log_p_attributes", in.log_p_attributes, replies > 0);
  require_given(op, "log_p_reply", in.log_p_reply, replies > 0);
  require_same_shape(op, "log_p_attributes", in.log_p_attributes, "log_q", in.log_q);
  require_same_shape(op, "log_p_reply", in.log_p_reply, "log_q", in.log_q);
  require_sequences(op, in.groups, replies);
  if (out.weight.given()) require_same_shape(op, "weight", out.weight, "log_q", in.log_q);
  if (out.log_weight.given()) require_same_shape(op, "log_weight", out.log_weight, "log_q", in.log_q);
  if (out.effective_samples.given()) require_extent(op, "effective_samples", out.effective_samples, 0, groups, "the number of groups");
  scratch.require(op, steerlm2_weights_workspace(b, replies, groups));
  typename arena_of<B>::frame frame(scratch);
  const auto x = scratch.template take<real>(replies);
  const auto weight = out.weight.given() ? out.weight : scratch.template take<real>(replies);
  b.transform(math::importance_log_weight{}, x, in.log_p_attributes, in.log_p_reply, in.log_q);
  segment_log_softmax(b, scratch, {.x = x, .groups = in.groups}, {.log_p = out.log_weight, .p = weight});
  if (out.effective_samples.given()) detail::effective_samples(b, scratch, as_const(weight), in.groups, out.effective_samples);
}

/// What the host overload of `steerlm2_weights` returns.
template <class T>
struct steerlm2_weights_result {
  std::vector<T> weight, log_weight;  ///< `[R]`
  std::vector<T> effective_samples;   ///< `[G]`
};

/// Three vectors `[R]` and the groups in, on the serial backend.
template <detail::host_range R>
steerlm2_weights_result<detail::value_of<R>> steerlm2_weights(const R& log_p_attributes, view<const detail::value_of<R>, 1> log_p_reply,
                                                              view<const detail::value_of<R>, 1> log_q, const sequence_layout<>& groups) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(log_p_attributes);
  const index_t n = x.extent(0), g = groups.sequences();
  detail::require_host_layout("steerlm2_weights", groups, n);
  steerlm2_weights_result<T> r{detail::zeros<T>(n), detail::zeros<T>(n), detail::zeros<T>(g)};
  detail::host_call<T> call(steerlm2_weights_workspace(serial::backend<T>{}, n, g));
  steerlm2_weights(call.compute, call.scratch, {.log_p_attributes = x, .log_p_reply = log_p_reply, .log_q = log_q, .groups = groups},
                   {.weight = r.weight, .log_weight = r.log_weight, .effective_samples = r.effective_samples});
  return r;
}

/// Which number `steerlm2` reports as its loss; the gradient is the same.
enum class steerlm2_value {
  listwise,      ///< `-sum w' log b'`: never negative, smallest at b' = w', where it is the weights' entropy
  coefficients,  ///< `-sum (w' - b') log Q` with constant coefficients, as NeMo-Aligner logs it: may be negative, measures nothing
};

/// Options of `steerlm2` and `steerlm2_replies`.
struct steerlm2_options {
  steerlm2_value value = steerlm2_value::listwise;
  bool per_token = false;       ///< divide each prompt's part by the mean length of its replies, as NeMo-Aligner does; the paper does not
  double denominator = 0;       ///< number of prompts of the global batch
  double weight = 1;            ///< what the loss counts for beside others
  double distance_epsilon = 0;  ///< added to w' and b' in the distance (NeMo-Aligner: 1e-8)

  void require(const char* op) const {
    require_mode(op, "value", value, steerlm2_value::coefficients);
    detail::require_weight(op, weight);
    require_option(op, "distance_epsilon", distance_epsilon, distance_epsilon >= 0, "0 or positive");
  }
};

/// Rows of `metrics`, over prompts: KL(w' || b'); effective samples of w' and of b'; the largest |log Q - log Q'| of a reply: 0 before the first
/// step, unless the stored log Q' covers other tokens than the live one.
inline constexpr metric_info steerlm2_metrics[] = {
    {"distance"}, {"effective_samples"}, {"baseline_effective_samples"}, {"log_ratio_max", metric_kind::max}};

/// Replies by their summed log-probabilities.
template <class Real, class Space = host_space>
struct steerlm2_replies_inputs {
  view<const Real, 1, Space> logp{};    ///< `[R]`, log Q(y | a, x) of the policy that is trained
  view<const Real, 1, Space> log_q{};   ///< `[R]`, log Q'(y | a, x), as in `steerlm2_weights`
  view<const Real, 1, Space> weight{};  ///< `[R]`, w' from `steerlm2_weights`
  view<const Real, 1, Space> length{};  ///< `[R]`, tokens of each reply; only for `per_token`
  sequence_layout<Space> groups{};      ///< the replies to each prompt; those that are not scored do not take part
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct steerlm2_replies_outputs {
  view<Real, 1, Space> loss{};         ///< one number: sum over prompts / denominator
  view<Real, 1, Space> d_logp{};       ///< `[R]`
  view<Real, 1, Space> baseline{};     ///< `[R]`, b'
  view<Real, 1, Space> coefficient{};  ///< `[R]`, w' - b'
  view<Real, 2, Space> metrics{};      ///< `[4, 2]`, rows as in `steerlm2_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

/// Token log-probabilities of all replies, flat.
template <class Real, class Space = host_space>
struct steerlm2_inputs {
  view<const Real, 1, Space> logp{};    ///< `[N]`
  sequence_layout<Space> replies{};     ///< `R` replies over the `N` tokens; scored: the tokens that `log_q` covers
  view<const Real, 1, Space> log_q{};   ///< `[R]`
  view<const Real, 1, Space> weight{};  ///< `[R]`
  sequence_layout<Space> groups{};      ///< prompts over the `R` replies
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct steerlm2_outputs {
  view<Real, 1, Space> loss{};         ///< one number
  view<Real, 1, Space> d_logp{};       ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> baseline{};     ///< `[R]`, b'
  view<Real, 1, Space> coefficient{};  ///< `[R]`, w' - b'
  view<Real, 2, Space> metrics{};      ///< `[4, 2]`, rows as in `steerlm2_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logp`
};

namespace detail {
template <class B>
std::size_t steerlm2_terms_workspace(const B& b, index_t replies, index_t groups) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 9; ++i) w.template add<real>(replies);
  for (int i = 0; i < 6; ++i) w.template add<real>(groups);
  return w.template add<real>(1).template add<real>(1).add_bytes(segment_log_softmax_workspace(b, replies, groups)).bytes();
}

// Everything is checked.
template <class B>
void steerlm2_terms(B& b, arena_of<B>& scratch, const steerlm2_replies_inputs<real_of<B>, space_of<B>>& in, const steerlm2_options& options,
                    const steerlm2_replies_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  typename arena_of<B>::frame frame(scratch);
  const index_t replies = in.logp.extent(0), groups = in.groups.sequences();
  const auto of_replies = [&] { return scratch.template take<real>(replies); };
  const auto of_groups = [&] { return scratch.template take<real>(groups); };
  const auto ratio = of_replies(), log_baseline = of_replies(), member = of_replies(), total = of_replies(), term = of_replies();
  const auto baseline = out.baseline.given() ? out.baseline : of_replies();
  const auto sums = of_groups(), members = of_groups(), factor = of_groups();
  b.transform(math::minus{}, ratio, in.logp, in.log_q);
  segment_log_softmax(b, scratch, {.x = ratio, .groups = in.groups}, {.log_p = log_baseline, .p = baseline});
  scored_lengths(b, scratch, in.groups, replies, members);
  b.segment_broadcast(as_const(members), in.groups, member, write_mode::overwrite);
  b.segment_reduce(reduction::sum, in.weight, in.groups, sums);
  b.segment_broadcast(as_const(sums), in.groups, total, write_mode::overwrite);
  const math::group_factor<real> f{static_cast<real>(options.weight / options.denominator), options.per_token};
  if (options.per_token) b.segment_reduce(reduction::sum, in.length, in.groups, sums);
  b.transform(f, factor, as_const(members), as_const(sums));
  if (out.loss.given()) {
    if (options.value == steerlm2_value::listwise) {
      b.transform(math::listwise_term{}, term, in.weight, as_const(log_baseline));
    } else {
      b.transform(math::coefficient_term{}, term, in.weight, as_const(baseline), as_const(total), in.logp);
    }
    b.segment_reduce(reduction::sum, as_const(term), in.groups, sums);
    b.transform(math::weighted{}, sums, as_const(factor), as_const(sums));
    b.reduce(reduction::sum, as_const(sums), out.loss, out.mode);
  }
  if (out.coefficient.given() || out.d_logp.given()) {
    const auto coefficient = out.coefficient.given() ? out.coefficient : term;
    b.transform(math::steerlm_coefficient{}, coefficient, in.weight, as_const(baseline), as_const(total), as_const(member));
    if (out.d_logp.given()) {
      const auto spread = of_replies();
      b.segment_broadcast(as_const(factor), in.groups, spread, write_mode::overwrite);
      b.transform(math::weighted{}, spread, as_const(spread), as_const(coefficient));
      write_gradient(b, out.d_logp, as_const(spread), real(-1), out.mode);
    }
  }
  if (out.metrics.given()) {
    const auto cell = [&](index_t row, index_t column) { return out.metrics.row(row).slice(column, 1); };
    b.transform(math::is_nonzero{}, members, as_const(members));  // prompts without replies do not count
    b.transform(math::distance_term<real>{static_cast<real>(options.distance_epsilon)}, term, in.weight, as_const(log_baseline), as_const(baseline));
    b.segment_reduce(reduction::sum, as_const(term), in.groups, sums);
    const auto write = [&](index_t row) {
      b.reduce(reduction::sum, as_const(sums), cell(row, 0), write_mode::overwrite);
      b.reduce(reduction::sum, as_const(members), cell(row, 1), write_mode::overwrite);
    };
    write(0);
    effective_samples(b, scratch, in.weight, in.groups, sums);
    write(1);
    effective_samples(b, scratch, as_const(baseline), in.groups, sums);
    write(2);
    b.transform(math::gap_of_member{}, term, in.logp, in.log_q, as_const(member));
    b.reduce(reduction::max, as_const(term), cell(3, 0), write_mode::overwrite);
    b.reduce(reduction::sum, as_const(members), cell(3, 1), write_mode::overwrite);
  }
}
}  // namespace detail

/// Bytes of arena that `steerlm2_replies` takes.
template <class B>
std::size_t steerlm2_replies_workspace(const B& b, index_t replies, index_t groups) {
  return detail::steerlm2_terms_workspace(b, replies, groups);
}

/// SteerLM 2.0 from summed log-probabilities. With `b' = softmax over each prompt's replies of log Q - log Q'`, a constant for the
/// gradient in the paper: `L = -1/denominator sum over prompts of sum_i w'_i log b'_i`, and `dL/dlogp[i] = -(w'_i - b'_i)/denominator`,
/// which is the paper's gradient exactly (weights sum to 1; where a group's do not, b' is multiplied by their sum).
template <class B>
  requires has_backend_types<B>
void steerlm2_replies(B& b, arena_of<B>& scratch, const steerlm2_replies_inputs<real_of<B>, space_of<B>>& in, const steerlm2_options& options,
                      const steerlm2_replies_outputs<real_of<B>, space_of<B>>& out) {
  static_assert(check_backend<B>());
  constexpr const char* op = "steerlm2_replies";
  const index_t replies = in.logp.extent(0), groups = in.groups.sequences();
  require_arguments(
      op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"baseline", out.baseline}, {"coefficient", out.coefficient}, {"metrics", out.metrics}},
      {{"logp", in.logp},
       {"log_q", in.log_q},
       {"weight", in.weight},
       {"length", in.length},
       {"begin", in.groups.begin},
       {"end", in.groups.end},
       {"scored", in.groups.scored}});
  require_given(op, "logp", in.logp, in.log_q.given());
  require_given(op, "log_q", in.log_q, replies > 0);
  require_given(op, "weight", in.weight, replies > 0);
  require_given(op, "length", in.length, replies > 0 && options.per_token);
  require_same_shape(op, "log_q", in.log_q, "logp", in.logp);
  require_same_shape(op, "weight", in.weight, "logp", in.logp);
  if (in.length.given()) require_same_shape(op, "length", in.length, "logp", in.logp);
  require_sequences(op, in.groups, replies);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(steerlm2_metrics));
  for (const auto& [name, v] : {std::pair{"d_logp", out.d_logp}, {"baseline", out.baseline}, {"coefficient", out.coefficient}})
    if (v.given()) require_same_shape(op, name, v, "logp", in.logp);
  scratch.require(op, steerlm2_replies_workspace(b, replies, groups));
  detail::steerlm2_terms(b, scratch, in, options, out);
}

/// Bytes of arena that `steerlm2` takes.
template <class B>
std::size_t steerlm2_workspace(const B& b, index_t replies, index_t groups) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 3; ++i) w.template add<real>(replies);
  return w.template add<real>(1).add_bytes(detail::steerlm2_terms_workspace(b, replies, groups)).bytes();
}

/// The same from token log-probabilities: summed over the scored tokens of each reply, which are the tokens that `log_q` must cover; the
/// gradient goes back to each of them. arXiv:2406.08673, section 4.5. Checked against NeMo-Aligner `GPTSteerLMModel`
/// (`value = coefficients`, `per_token`, `distance_epsilon = 1e-8`). Enqueues and returns; nothing is allocated.
template <class B>
  requires has_backend_types<B>
void steerlm2(B& b, arena_of<B>& scratch, const steerlm2_inputs<real_of<B>, space_of<B>>& in, const steerlm2_options& options,
              const steerlm2_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "steerlm2";
  const index_t tokens = in.logp.extent(0), replies = in.replies.sequences(), groups = in.groups.sequences();
  require_arguments(
      op, {{"loss", out.loss}, {"d_logp", out.d_logp}, {"baseline", out.baseline}, {"coefficient", out.coefficient}, {"metrics", out.metrics}},
      {{"logp", in.logp},
       {"replies.begin", in.replies.begin},
       {"replies.end", in.replies.end},
       {"replies.scored", in.replies.scored},
       {"log_q", in.log_q},
       {"weight", in.weight},
       {"groups.begin", in.groups.begin},
       {"groups.end", in.groups.end},
       {"groups.scored", in.groups.scored}});
  require_given(op, "logp", in.logp, in.replies.scored.extent(0) > 0);
  require_given(op, "log_q", in.log_q, replies > 0);
  require_given(op, "weight", in.weight, replies > 0);
  require_sequences(op, in.replies, tokens);
  require_extent(op, "log_q", in.log_q, 0, replies, "the number of replies");
  require_extent(op, "weight", in.weight, 0, replies, "the number of replies");
  require_sequences(op, in.groups, replies);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(steerlm2_metrics));
  if (out.d_logp.given()) require_same_shape(op, "d_logp", out.d_logp, "logp", in.logp);
  if (out.baseline.given()) require_extent(op, "baseline", out.baseline, 0, replies, "the number of replies");
  if (out.coefficient.given()) require_extent(op, "coefficient", out.coefficient, 0, replies, "the number of replies");
  scratch.require(op, steerlm2_workspace(b, replies, groups));
  typename arena_of<B>::frame frame(scratch);
  const auto sums = scratch.template take<real>(replies), length = scratch.template take<real>(replies),
             d_sums = scratch.template take<real>(replies);
  b.segment_reduce(reduction::sum, in.logp, in.replies, sums);
  detail::scored_lengths(b, scratch, in.replies, tokens, length);
  steerlm2_replies_outputs<real, space_of<B>> terms{
      .loss = out.loss, .d_logp = {}, .baseline = out.baseline, .coefficient = out.coefficient, .metrics = out.metrics, .mode = out.mode};
  if (!out.d_logp.given()) {
    detail::steerlm2_terms(b, scratch, {.logp = sums, .log_q = in.log_q, .weight = in.weight, .length = length, .groups = in.groups}, options, terms);
    return;
  }
  // The gradient of the sums replaces what is there; only that of the tokens may add.
  terms.loss = {};
  terms.d_logp = d_sums;
  terms.mode = write_mode::overwrite;
  const steerlm2_replies_inputs<real, space_of<B>> x{.logp = sums, .log_q = in.log_q, .weight = in.weight, .length = length, .groups = in.groups};
  if (out.mode == write_mode::overwrite || !out.loss.given()) {
    terms.loss = out.loss;
    detail::steerlm2_terms(b, scratch, x, options, terms);
  } else {
    const auto loss = scratch.template take<real>(1);
    terms.loss = loss;
    detail::steerlm2_terms(b, scratch, x, options, terms);
    b.transform(math::plus{}, out.loss, as_const(out.loss), as_const(loss));
  }
  b.segment_broadcast(as_const(d_sums), in.replies, out.d_logp, out.mode);
}

/// What the host overload returns.
template <class T>
struct steerlm2_result {
  T loss = 0, distance = 0, effective_samples = 0, baseline_effective_samples = 0, log_ratio_max = 0;
  std::vector<T> d_logp, baseline, coefficient;  ///< `[R]`
};

/// Summed log-probabilities of replies and their weights, on the serial backend; `denominator` 0 means the prompts given. `length` only for
/// `per_token`.
template <detail::host_range R>
steerlm2_result<detail::value_of<R>> steerlm2(const R& logp, view<const detail::value_of<R>, 1> log_q, view<const detail::value_of<R>, 1> weight,
                                              const sequence_layout<>& groups, steerlm2_options options = {},
                                              view<const detail::value_of<R>, 1> length = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logp);
  const index_t replies = x.extent(0);
  require_layout("steerlm2", groups, replies);
  require_layout_data("steerlm2", groups, replies);
  if (options.denominator == 0) options.denominator = static_cast<double>(groups.sequences() > 0 ? groups.sequences() : 1);
  steerlm2_result<T> r{.d_logp = detail::zeros<T>(replies), .baseline = detail::zeros<T>(replies), .coefficient = detail::zeros<T>(replies)};
  T m[std::size(steerlm2_metrics)][2] = {};
  detail::host_call<T> call(steerlm2_replies_workspace(serial::backend<T>{}, replies, groups.sequences()));
  steerlm2_replies(call.compute, call.scratch, {.logp = x, .log_q = log_q, .weight = weight, .length = length, .groups = groups}, options,
                   {.loss = r.loss, .d_logp = r.d_logp, .baseline = r.baseline, .coefficient = r.coefficient,
                    .metrics = view<T, 2>(&m[0][0], std::size(steerlm2_metrics), 2)});
  T* fields[] = {&r.distance, &r.effective_samples, &r.baseline_effective_samples, &r.log_ratio_max};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(steerlm2_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

#pragma once
// The policy-gradient loss: advantage times surrogate, aggregated; with KL to a reference and an entropy bonus. PPO, GRPO, DAPO, GSPO, CISPO
// and their like are choices of level, surrogate and aggregation.

#include <plumb/math/kl.hpp>
#include <plumb/math/policy_loss.hpp>
#include <plumb/math/surrogate.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `policy_loss`, beside the surrogate.
struct policy_loss_options {
  surrogate_level level = surrogate_level::of_surrogate;
  double log_ratio_low = 0;   ///< the log-ratio that the surrogate sees is at least minus this, without gradient beyond; 0: no limit
  double log_ratio_high = 0;  ///< at most this, likewise; 0: no limit (verl, OpenRLHF: 20, as `exp` of a far one is infinite in float)
  kl_estimate kl{};            ///< of the KL term, from `logp` and `ref_logp`
  double kl_coefficient = 0;   ///< of the KL term in the loss
  bool kl_times_ratio = false;     ///< the KL term is multiplied by the ratio, unclipped (TRL `use_bias_correction_kl`)
  double entropy_coefficient = 0;  ///< of the entropy bonus
  aggregation aggregate = aggregation::token_mean;
  double denominator = 0;     ///< see `aggregation`; host overload: 0 means what is given
  double length_epsilon = 0;  ///< added to each length in `sequence_mean`; 0 in the other modes
  double weight = 1;          ///< what the loss counts for beside others

  void require(const char* op) const {
    require_mode(op, "aggregate", aggregate, aggregation::sequence_sum);
    const auto number = static_cast<double>(static_cast<int>(level));
    require_option(op, "level", number, number >= 0 && number <= 4, "a surrogate_level");
    require_option(op, "log_ratio_low", log_ratio_low, log_ratio_low >= 0, "0 (no limit) or positive");
    require_option(op, "log_ratio_high", log_ratio_high, log_ratio_high >= 0, "0 (no limit) or positive");
    kl.require(op, "kl.");
    require_option(op, "kl_coefficient", kl_coefficient, true, "a number");
    require_option(op, "entropy_coefficient", entropy_coefficient, true, "a number");
    detail::require_aggregation(op, aggregate, length_epsilon, weight);
  }
};

/// Rows of `metrics`, over scored tokens: shares of tokens whose clipped surrogate is strictly worse (`clip_fraction`, and on which side)
/// or capped by `dual`; estimates of KL(old || policy) from `l = logp - old_logp`: mean of `-l` (`approx_kl`), of `exp(l) - 1 - l`
/// (`approx_kl_k3`) and of `|l|`; the ratio as the surrogate sees it; the KL term; the entropy. Rows of what is not given have count 0.
inline constexpr metric_info policy_loss_metrics[] = {
    {"clip_fraction"}, {"clip_low"}, {"clip_high"}, {"cap_fraction"}, {"approx_kl"}, {"approx_kl_k3"}, {"abs_log_ratio"},
    {"ratio"}, {"ratio_min", metric_kind::min}, {"ratio_max", metric_kind::max}, {"kl"}, {"entropy"}};

/// Numbers of all tokens, flat, and the sequences. Exactly one of `advantages` and `sequence_advantages` is given.
template <class Real, class Space = host_space>
struct policy_loss_inputs {
  view<const Real, 1, Space> logp{};                 ///< `[N]`, log-probability of token `t` under the policy
  view<const Real, 1, Space> old_logp{};             ///< `[N]`, under the policy that sampled; not given: the same, the ratio is 1 and carries gradient
  view<const Real, 1, Space> advantages{};           ///< `[N]`
  view<const Real, 1, Space> sequence_advantages{};  ///< `[S]`, one for all tokens of a sequence
  view<const Real, 1, Space> ref_logp{};             ///< `[N]`, under the reference; for the KL term and its metric
  view<const Real, 1, Space> importance_weights{};   ///< `[N]`, constants times the surrogate (a sampler's correction, a selection); not given: 1
  view<const Real, 1, Space> kl_weights{};           ///< `[N]`, constants times the KL term, where there is one; not given: 1
  view<const Real, 1, Space> entropy{};              ///< `[N]`, of the policy at each token; for the bonus and its metric
  sequence_layout<Space> sequences{};                ///< unscored tokens contribute nothing, whatever they hold
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct policy_loss_outputs {
  view<Real, 1, Space> loss{};        ///< one number
  view<Real, 1, Space> d_logp{};      ///< `[N]`; 0 for tokens that do not count
  view<Real, 1, Space> d_entropy{};   ///< `[N]`; likewise
  view<Real, 1, Space> token_loss{};  ///< `[N]`, what is aggregated: surrogate, KL term and bonus of each token; 0 where unscored
  view<Real, 1, Space> clipped{};     ///< `[N]`, 1 where the clipped surrogate is strictly worse, else 0
  view<Real, 2, Space> metrics{};     ///< `[12, 2]`, rows as in `policy_loss_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss`, `d_logp` and `d_entropy`
};

namespace detail {

template <class S>
concept surrogate_of_logp = requires { requires S::of_logp; };
template <class S>
concept surrogate_without_ratio = requires { requires S::without_ratio; };
template <class S>
concept surrogate_limits_tokens = requires(const S& s, double x) { s.limited(x, x); };
template <class S>
concept surrogate_clips = requires(const S& s, double x) { s.clipped_low(x, x) + s.clipped_high(x, x); };
template <class S>
concept surrogate_caps = requires(const S& s, double x) { s.capped(x, x); };

template <class B>
void require_policy_loss(const char* op, const policy_loss_inputs<real_of<B>, space_of<B>>& in, const policy_loss_options& o,
                         const policy_loss_outputs<real_of<B>, space_of<B>>& out) {
  const index_t tokens = in.logp.extent(0);
  require_arguments(op,
                    {{"loss", out.loss}, {"d_logp", out.d_logp}, {"d_entropy", out.d_entropy}, {"token_loss", out.token_loss},
                     {"clipped", out.clipped}, {"metrics", out.metrics}},
                    {{"logp", in.logp}, {"old_logp", in.old_logp}, {"advantages", in.advantages}, {"sequence_advantages", in.sequence_advantages},
                     {"ref_logp", in.ref_logp}, {"importance_weights", in.importance_weights}, {"kl_weights", in.kl_weights},
                     {"entropy", in.entropy}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  o.require(op);
  require_denominator(op, o.denominator);
  const bool any = in.advantages.given() || in.old_logp.given() || in.sequences.scored.extent(0) > 0;
  require_given(op, "logp", in.logp, any);
  require_sequences(op, in.sequences, tokens);
  if (in.advantages.given() && in.sequence_advantages.given())
    fail(message(op) << "`advantages` and `sequence_advantages` are both given, but only one can count. Nothing was written.");
  if (tokens > 0 && !in.sequence_advantages.given() && !in.advantages.given())
    fail(message(op) << "argument `advantages` is not given, and neither is `sequence_advantages`. Nothing was written.");
  if (tokens > 0 && o.kl_coefficient != 0 && !in.ref_logp.given())
    fail(message(op) << "argument `ref_logp` is not given, but `kl_coefficient` is " << o.kl_coefficient << ". Nothing was written.");
  if (in.kl_weights.given() && o.kl_coefficient == 0)
    fail(message(op) << "argument `kl_weights` is given, but `kl_coefficient` is 0: there is no KL term to weigh. Nothing was written.");
  require_given(op, "entropy", in.entropy, tokens > 0 && (o.entropy_coefficient != 0 || out.d_entropy.given()));
  for (const auto& [name, v] : {std::pair{"old_logp", in.old_logp}, {"advantages", in.advantages}, {"ref_logp", in.ref_logp},
                                {"importance_weights", in.importance_weights}, {"kl_weights", in.kl_weights}, {"entropy", in.entropy},
                                {"d_logp", as_const(out.d_logp)}, {"d_entropy", as_const(out.d_entropy)},
                                {"token_loss", as_const(out.token_loss)}, {"clipped", as_const(out.clipped)}})
    if (v.given()) require_same_shape(op, name, v, "logp", in.logp);
  if (in.sequence_advantages.given())
    require_extent(op, "sequence_advantages", in.sequence_advantages, 0, in.sequences.sequences(), "the number of sequences");
  require_scalar(op, "loss", out.loss);
  require_metrics(op, out.metrics, std::size(policy_loss_metrics));
}

// Which arrays of `[N]` one call takes from scratch, beside three that every call takes.
struct policy_loss_arrays {
  bool mapped = true, passed = true, slope = true, kl_slope = true, spread = true;

  template <class B, class Surrogate>
  static policy_loss_arrays of(const policy_loss_inputs<real_of<B>, space_of<B>>& in, const Surrogate&, const policy_loss_options& o,
                               const policy_loss_outputs<real_of<B>, space_of<B>>& out) {
    constexpr bool limits_tokens = surrogate_limits_tokens<Surrogate>;
    const surrogate_level level = o.level == surrogate_level::of_surrogate ? Surrogate::level : o.level;
    return {.mapped = limits_tokens || level != surrogate_level::token,
            .passed = limits_tokens,
            .slope = out.d_logp.given() && out.mode == write_mode::add,
            .kl_slope = o.kl_coefficient != 0,
            .spread = in.sequence_advantages.given()};
  }
  template <class Real>
  std::size_t bytes(index_t tokens, index_t sequences) const {
    workspace_size w;
    const int count = 3 + mapped + passed + slope + kl_slope + spread;
    for (int i = 0; i < count; ++i) w.template add<Real>(tokens);
    for (int i = 0; i < 3; ++i) w.template add<Real>(sequences);
    for (int i = 0; i < 2; ++i) w.template add<Real>(1);
    return w.bytes();
  }
};

// The arrays of one call, and the steps that do not know the surrogate.
template <class B>
struct policy_loss_steps {
  using real = real_of<B>;
  using inputs = policy_loss_inputs<real, space_of<B>>;
  using outputs = policy_loss_outputs<real, space_of<B>>;

  B& b;
  const inputs& in;
  const policy_loss_options& o;
  const outputs& out;
  surrogate_level level;
  math::log_ratio_limits<real> limits;
  real_view<B> log_ratio;  // of tokens
  real_view<B> mapped;     // of the level; the same array at the level of tokens
  real_view<B> passed;     // slope of the limited log-ratio of tokens; empty: 1
  real_view<B> value;      // of each token: its term
  real_view<B> slope;      // its derivative, by the mapped log-ratio or by logp; the output itself where nothing is added to it
  real_view<B> kl_slope;   // derivative of the KL term by logp, the ratio held
  real_view<B> spare;
  real_view<B> lengths, sums, weights, count;
  const_real_view<B> advantages, ones;

  policy_loss_steps(B& backend, arena_of<B>& scratch, const inputs& inputs_, const policy_loss_options& options, const outputs& outputs_,
                    surrogate_level default_level, const policy_loss_arrays& takes)
      : b(backend), in(inputs_), o(options), out(outputs_),
        level(options.level == surrogate_level::of_surrogate ? default_level : options.level),
        limits(math::log_ratio_limits<real>::from(options.log_ratio_low, options.log_ratio_high)) {
    const auto array = [&](index_t n) { return scratch.template take<real>(n); };
    const index_t tokens = in.logp.extent(0), sequences = in.sequences.sequences();
    log_ratio = array(tokens);
    value = array(tokens);
    spare = array(tokens);
    mapped = takes.mapped ? array(tokens) : log_ratio;
    if (takes.passed) passed = array(tokens);
    slope = takes.slope ? array(tokens) : out.d_logp.given() ? out.d_logp : spare;
    if (takes.kl_slope) kl_slope = array(tokens);
    lengths = array(sequences);
    sums = array(sequences);
    weights = array(sequences);
    count = array(1);
    ones = constant(b, scratch, real(1), tokens);
    if (of_means() || o.aggregate == aggregation::sequence_mean || out.metrics.given()) b.segment_reduce(reduction::sum, ones, in.sequences, lengths);
    b.transform(math::minus{}, log_ratio, in.logp, in.old_logp.given() ? in.old_logp : in.logp);
    advantages = in.advantages;
    if (takes.spread) {
      const auto spread = array(tokens);
      b.segment_broadcast(in.sequence_advantages, in.sequences, spread, write_mode::overwrite);
      advantages = spread;
    }
  }

  bool of_tokens() const { return level == surrogate_level::token; }
  bool of_means() const { return level == surrogate_level::sequence_mean || level == surrogate_level::sequence_token; }

  // Numbers of tokens become the sum or the mean of their sequence.
  void gather(const_real_view<B> from, real_view<B> to) {
    b.segment_reduce(reduction::sum, from, in.sequences, sums);
    if (of_means()) b.transform(math::mean_or_zero{}, sums, as_const(sums), as_const(lengths));
    b.segment_broadcast(as_const(sums), in.sequences, to, write_mode::overwrite);
  }
  // From the log-ratios of tokens (limited or not) to those of the level.
  void map(const_real_view<B> from) {
    if (!of_tokens()) gather(from, mapped);
  }
  // From slopes by the log-ratios of the level back to slopes by those of tokens.
  void map_back(real_view<B> x) {
    if (level == surrogate_level::sequence_mean || level == surrogate_level::sequence_sum) gather(as_const(x), x);
    if (passed.given()) b.transform(math::weighted{}, x, as_const(passed), as_const(x));
  }

  const_real_view<B> importance() const { return in.importance_weights.given() ? in.importance_weights : ones; }
  math::policy_kl_term<real> kl_term() const { return {o.kl, limits, o.kl_times_ratio}; }
  const_real_view<B> kl_weights() const { return in.kl_weights.given() ? in.kl_weights : ones; }

  // KL term and entropy bonus join the surrogate's term; `slope` becomes the derivative by `logp` of all of it.
  void regularise(bool slope_by_logp) {
    const bool with_kl = o.kl_coefficient != 0, kl_by_ratio = with_kl && o.kl_times_ratio;
    if (with_kl) {
      b.transform2(math::policy_kl<real>{kl_term(), static_cast<real>(o.kl_coefficient)}, spare, kl_slope, in.logp, in.ref_logp, as_const(mapped),
                   kl_weights());
      b.transform(math::plus{}, value, as_const(value), as_const(spare));
    }
    if (o.entropy_coefficient != 0)
      b.transform(math::add_scaled<real>{static_cast<real>(-o.entropy_coefficient)}, value, as_const(value), in.entropy);
    if (!out.d_logp.given()) return;
    if (kl_by_ratio) b.transform(math::keep_within<real>{limits}, spare, as_const(spare), as_const(mapped));  // the slope of a ratio is itself
    if (kl_by_ratio && slope_by_logp) map_back(spare);
    if (kl_by_ratio && !slope_by_logp) b.transform(math::plus{}, slope, as_const(slope), as_const(spare));
    if (!slope_by_logp) map_back(slope);
    if (kl_by_ratio && slope_by_logp) b.transform(math::plus{}, slope, as_const(slope), as_const(spare));
    if (with_kl) b.transform(math::plus{}, slope, as_const(slope), as_const(kl_slope));
  }

  void write() {
    const auto& layout = in.sequences;
    const auto each = static_cast<real>(o.weight / o.denominator);
    if (o.aggregate == aggregation::sequence_mean) {
      b.transform(math::token_weight<real>{each, static_cast<real>(o.length_epsilon), true}, weights, as_const(lengths));
    } else {
      b.fill(weights, each);
    }
    if (out.loss.given()) {
      b.segment_reduce(reduction::sum, as_const(value), layout, sums);
      b.transform(math::weighted{}, sums, as_const(weights), as_const(sums));
      b.reduce(reduction::sum, as_const(sums), out.loss, out.mode);
    }
    if (out.d_logp.given()) {
      b.segment_broadcast(as_const(weights), layout, spare, write_mode::overwrite);
      if (out.mode == write_mode::add) {
        b.transform(math::add_weighted_slope{}, out.d_logp, as_const(out.d_logp), as_const(spare), as_const(slope));
      } else {
        b.transform(math::weighted{}, out.d_logp, as_const(spare), as_const(slope));
      }
    }
    if (out.d_entropy.given()) {
      b.transform(math::scale<real>{static_cast<real>(-o.entropy_coefficient)}, sums, as_const(weights));
      b.segment_broadcast(as_const(sums), layout, out.d_entropy, out.mode);
    }
    if (out.token_loss.given()) keep_scored(out.token_loss, as_const(value));
  }

  // `x` at scored tokens, 0 elsewhere.
  void keep_scored(real_view<B> y, const_real_view<B> x) {
    b.fill(sums, real(1));
    b.segment_broadcast(as_const(sums), in.sequences, spare, write_mode::overwrite);
    b.transform(math::keep_where{}, y, x, as_const(spare));
  }

  real_view<B> cell(index_t row, index_t column) const { return out.metrics.row(row).slice(column, 1); }
  void row(index_t k, reduction op, const_real_view<B> x) {
    b.segment_reduce(op, x, in.sequences, sums);
    b.reduce(op, as_const(sums), cell(k, 0), write_mode::overwrite);
    b.copy(as_const(count), cell(k, 1));
  }
  // Free by now, for two numbers of each token: `spare` and `value`.
  void begin_metrics() {
    b.fill(out.metrics, real(0));
    b.reduce(reduction::sum, as_const(lengths), count, write_mode::overwrite);
  }
  void common_metrics() {
    row(4, reduction::sum, as_const(log_ratio));
    b.transform(math::zero_minus{}, cell(4, 0), as_const(cell(4, 0)));
    b.transform2(math::old_k3_and_size{}, spare, value, as_const(log_ratio));
    row(5, reduction::sum, as_const(spare));
    row(6, reduction::sum, as_const(value));
    b.transform2(math::limited_ratio<real>{limits}, spare, value, as_const(mapped));
    row(7, reduction::sum, as_const(spare));
    row(8, reduction::max, as_const(value));
    row(9, reduction::max, as_const(spare));
    if (in.ref_logp.given()) {
      b.transform(kl_term(), spare, in.logp, in.ref_logp, as_const(mapped), kl_weights());
      row(10, reduction::sum, as_const(spare));
    }
    if (in.entropy.given()) row(11, reduction::sum, in.entropy);
  }
};

}  // namespace detail

/// Bytes of arena that any call of `policy_loss` takes at most, for flat arrays of `tokens` entries.
template <class B>
std::size_t policy_loss_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  return detail::policy_loss_arrays{}.bytes<real_of<B>>(tokens, sequences.sequences());
}
/// Bytes that the call with these arguments takes, often less than half of that.
template <class B, class Surrogate>
std::size_t policy_loss_workspace(const B&, const policy_loss_inputs<real_of<B>, space_of<B>>& in, const Surrogate& surrogate,
                                  const policy_loss_options& options, const policy_loss_outputs<real_of<B>, space_of<B>>& out) {
  return detail::policy_loss_arrays::of<B>(in, surrogate, options, out).template bytes<real_of<B>>(in.logp.extent(0), in.sequences.sequences());
}

/// `L = sum over tokens, aggregated, of w f(m, A) + beta kl - c H`: surrogate `f` (a minus sign included) of the log-ratio `m` of the level and
/// of the advantage `A`, see math/surrogate.hpp; importance weight `w`; KL term and entropy bonus. Unscored tokens contribute nothing.
///
/// Enqueues on `b` and returns; nothing is allocated. Checked against verl, OpenRLHF, TRL, Liger, NeMo-Aligner and rlax.
template <class B, class Surrogate>
  requires has_backend_types<B>
void policy_loss(B& b, arena_of<B>& scratch, const policy_loss_inputs<real_of<B>, space_of<B>>& in, const Surrogate& surrogate,
                 const policy_loss_options& options, const policy_loss_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "policy_loss";
  constexpr bool limits_tokens = detail::surrogate_limits_tokens<Surrogate>, of_logp = detail::surrogate_of_logp<Surrogate>;
  detail::require_policy_loss<B>(op, in, options, out);
  if constexpr (requires { surrogate.require(op); }) surrogate.require(op);
  if constexpr (detail::surrogate_without_ratio<Surrogate>) {
    const bool own = options.level == surrogate_level::of_surrogate || options.level == Surrogate::level;
    if (!own && (options.kl_coefficient == 0 || !options.kl_times_ratio))
      fail(message(op) << "option `level` says of which ratio, but neither this surrogate nor the KL term looks at a ratio. Nothing was written.");
  }
  const auto takes = detail::policy_loss_arrays::of<B>(in, surrogate, options, out);
  scratch.require(op, takes.template bytes<real>(in.logp.extent(0), in.sequences.sequences()));
  typename arena_of<B>::frame frame(scratch);
  detail::policy_loss_steps<B> s(b, scratch, in, options, out, Surrogate::level, takes);
  const auto l = as_const(s.log_ratio);
  if constexpr (limits_tokens) {
    const auto to = s.of_tokens() ? s.mapped : s.spare;
    b.transform2(math::limited_log_ratio<Surrogate>{surrogate}, to, s.passed, l, s.advantages);
    s.map(as_const(to));
  } else {
    s.map(l);
  }
  const auto m = as_const(s.mapped);
  if constexpr (of_logp) {
    b.transform2(math::logp_term<Surrogate, real>{surrogate, s.limits}, s.value, s.slope, m, s.advantages, in.logp, s.importance());
  } else {
    b.transform2(math::ratio_term<Surrogate, real>{surrogate, s.limits}, s.value, s.slope, m, s.advantages, s.importance());
  }
  s.regularise(of_logp);
  s.write();
  const auto at = limits_tokens ? l : m;  // where it is clipped
  if (out.clipped.given()) {
    if constexpr (detail::surrogate_clips<Surrogate>) {
      b.transform(math::clip_flag<Surrogate, real>{{surrogate, s.limits}}, out.clipped, at, s.advantages);
      s.keep_scored(out.clipped, as_const(out.clipped));
    } else {
      b.fill(out.clipped, real(0));
    }
  }
  if (!out.metrics.given()) return;
  s.begin_metrics();
  if constexpr (detail::surrogate_clips<Surrogate>) {
    b.transform2(math::clip_flags<Surrogate, real>{surrogate, s.limits}, s.spare, s.value, at, s.advantages);
    s.row(1, reduction::sum, as_const(s.spare));
    s.row(2, reduction::sum, as_const(s.value));
    b.transform(math::plus{}, s.cell(0, 0), as_const(s.cell(1, 0)), as_const(s.cell(2, 0)));
    b.copy(as_const(s.count), s.cell(0, 1));
  }
  if constexpr (detail::surrogate_caps<Surrogate>) {
    b.transform(math::cap_flag<Surrogate, real>{surrogate, s.limits}, s.spare, at, s.advantages);
    s.row(3, reduction::sum, as_const(s.spare));
  }
  s.common_metrics();
}

/// What the host overload returns; the metrics are those of `policy_loss_metrics`.
template <class T>
struct policy_loss_result {
  T loss = 0;
  T clip_fraction = 0, clip_low = 0, clip_high = 0, cap_fraction = 0;
  T approx_kl = 0, approx_kl_k3 = 0, abs_log_ratio = 0, ratio = 0, ratio_min = 0, ratio_max = 0;
  T kl = 0, entropy = 0;     ///< NaN where no reference or entropy is given
  std::vector<T> d_logp;     ///< `[N]`
  std::vector<T> d_entropy;  ///< `[N]`, or empty where no entropy is given
};

/// Vectors in, loss and gradient out, on the serial backend: `policy_loss(logp, {.old_logp = old, .advantages = a, .sequences = layout},
/// surrogate::clip{})`.
template <detail::host_range R, class Surrogate>
policy_loss_result<detail::value_of<R>> policy_loss(const R& logp, policy_loss_inputs<detail::value_of<R>> in, const Surrogate& surrogate,
                                                    policy_loss_options options = {}) {
  using T = detail::value_of<R>;
  in.logp = view<const T, 1>(logp);
  const index_t tokens = in.logp.extent(0);
  require_layout("policy_loss", in.sequences, tokens);
  require_layout_data("policy_loss", in.sequences, tokens);
  if (options.denominator == 0) options.denominator = count_for(options.aggregate, in.sequences);
  policy_loss_result<T> r{.d_logp = detail::zeros<T>(tokens), .d_entropy = detail::zeros<T>(in.entropy.given() ? tokens : 0)};
  T m[std::size(policy_loss_metrics)][2] = {};
  const policy_loss_outputs<T> out{.loss = r.loss, .d_logp = r.d_logp, .d_entropy = r.d_entropy,
                                   .metrics = view<T, 2>(&m[0][0], index_t{std::size(policy_loss_metrics)}, 2)};
  detail::host_call<T> call(policy_loss_workspace(serial::backend<T>{}, in, surrogate, options, out));
  policy_loss(call.compute, call.scratch, in, surrogate, options, out);
  T* fields[] = {&r.clip_fraction, &r.clip_low, &r.clip_high, &r.cap_fraction, &r.approx_kl, &r.approx_kl_k3,
                 &r.abs_log_ratio, &r.ratio, &r.ratio_min, &r.ratio_max, &r.kl, &r.entropy};
  for (std::size_t k = 0; k < std::size(fields); ++k) *fields[k] = metric_value(policy_loss_metrics[k].kind, m[k][0], m[k][1]);
  return r;
}

PLUMB_NAMESPACE_END

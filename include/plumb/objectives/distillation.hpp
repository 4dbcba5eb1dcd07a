#pragma once
// Distillation: a divergence between the student's and the teacher's distribution over the vocabulary, row by row, and its gradient on the
// student's logits.

#include <plumb/math/distillation.hpp>
#include <plumb/ops/aggregate.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/token_logp.hpp>

PLUMB_NAMESPACE_BEGIN

/// What becomes of the tokens that a teacher's top-k list does not name.
enum class topk_rest {
  renormalize,  ///< both distributions are taken given that the token is in the list
  zero,         ///< the teacher, renormalized, gives them nothing; the student's distribution is whole (not for divergences infinite there)
  one_token,    ///< together they are one more token, for both: a lower bound of the whole divergence; `temperature` must be 1
};

/// Options of `distillation`.
struct distillation_options {
  double temperature = 1;             ///< divides the logits of both; positive
  bool temperature_squared = false;   ///< loss and gradient times temperature^2 (Hinton et al., arXiv:1503.02531, section 2.1; GKD and TRL: no)
  topk_rest rest = topk_rest::one_token;  ///< read only with a top-k teacher
  aggregation aggregate = aggregation::token_mean;
  double denominator = 0;     ///< see `aggregation`; host overload: 0 means the rows given
  double length_epsilon = 0;  ///< added to each length in `sequence_mean`; 0 in the other modes
  double weight = 1;          ///< what the loss counts for beside others
  index_t chunk_rows = 0;     ///< rows that go through scratch at once; 0: about a million entries

  void require(const char* op) const {
    require_mode(op, "rest", rest, topk_rest::one_token);
    require_mode(op, "aggregate", aggregate, aggregation::sequence_sum);
    require_option(op, "temperature", temperature, temperature > 0, "positive");
    require_option(op, "chunk_rows", static_cast<double>(chunk_rows), chunk_rows >= 0, "0 (by itself) or positive");
    detail::require_aggregation(op, aggregate, length_epsilon, weight);
  }
};

/// Rows of `metrics`: the divergence of rows that count, in nats, neither weighted nor times temperature^2; its mean and its largest.
inline constexpr metric_info distillation_metrics[] = {{"divergence"}, {"divergence_max", metric_kind::max}};

/// Row `t` of the logits predicts token `t`. The teacher: either its logits, or its list of likely tokens.
template <class Real, class S = Real, class U = S, class Space = host_space>
struct distillation_inputs {
  view<const S, 2, Space> logits{};             ///< `[N, V]`, the student's
  view<const U, 2, Space> teacher_logits{};     ///< `[N, V]`
  view<const std::int32_t, 2, Space> teacher_ids{};  ///< `[N, K]`, distinct tokens, at least one in a row that counts; negative: nothing listed here
  view<const Real, 2, Space> teacher_logp{};    ///< `[N, K]`, the teacher's log-probabilities of those at temperature 1
  sequence_layout<Space> sequences{};           ///< not given: every row counts, and only `token_mean` is meant
  view<const Real, 1, Space> weights{};         ///< `[N]`, what a row counts for (importance weights, or a mask of 0 and 1); not given: 1
};
/// Outputs that are not given are not computed. May overlap nothing, but `d_logits` may be `logits` itself.
template <class Real, class S = Real, class Space = host_space>
struct distillation_outputs {
  view<Real, 1, Space> loss{};      ///< one number
  view<Real, 1, Space> row_loss{};  ///< `[N]`, the divergence of each row, neither weighted nor times temperature^2; 0 where it does not count
  view<S, 2, Space> d_logits{};     ///< `[N, V]`; 0 in rows that do not count
  view<Real, 2, Space> metrics{};   ///< `[2, 2]`, rows as in `distillation_metrics`
  write_mode mode = write_mode::overwrite;  ///< of `loss` and `d_logits`
};

namespace detail {

inline index_t distillation_chunk(const distillation_options& o, index_t rows, index_t vocabulary) {
  return o.chunk_rows > 0 ? (o.chunk_rows < rows ? o.chunk_rows : rows) : token_logp_rows(rows, vocabulary);
}
// One entry more than the list holds where the rest is a token.
inline index_t distillation_entries(const distillation_options& o, index_t vocabulary, index_t listed, bool topk) {
  return topk ? listed + (o.rest == topk_rest::renormalize ? 0 : 1) : vocabulary;
}
template <class T, class Space>
view<T, 1, Space> column_of(view<T, 2, Space> x, index_t column) {
  return {x.pointer + column * x.stride(1), {x.extent(0)}, {x.stride(0)}};
}

// The rows of one chunk: both distributions as tables of log-probabilities, then value and slope from those.
template <class B, class D, class S, class U>
class distillation_chunks {
 public:
  using real = real_of<B>;
  using matrix = real_view<B, 2>;
  using vector = real_view<B>;

  distillation_chunks(B& b, arena_of<B>& scratch, const distillation_inputs<real, S, U, space_of<B>>& in, const D& divergence,
                      const distillation_options& options)
      : b_(b), scratch_(scratch), in_(in), divergence_(divergence), options_(options), topk_(in.teacher_ids.given()),
        scale_(static_cast<real>(1 / options.temperature)), most_(distillation_chunk(options, in.logits.extent(0), in.logits.extent(1))) {
    const index_t v = in.logits.extent(1), k = in.teacher_ids.extent(1), entries = distillation_entries(options, v, k, topk_);
    log_q_ = scratch.template take<real>(most_, entries);
    log_p_ = scratch.template take<real>(most_, entries);
    values_ = scratch.template take<real>(most_, entries);
    if (D::own_mean) pulls_ = scratch.template take<real>(most_, entries);
    if (has_rest()) whole_ = scratch.template take<real>(most_, v);
    sums_ = scratch.template take<real>(most_);
    means_ = scratch.template take<real>(most_);
    rest_ = scratch.template take<real>(most_);
    nothing_ = scratch.template take<real>(1);
    b.fill(nothing_, none());
  }
  static std::size_t workspace(index_t rows, index_t v, index_t k, bool topk, const distillation_options& o) {
    const index_t most = distillation_chunk(o, rows, v), entries = distillation_entries(o, v, k, topk);
    workspace_size w;
    for (int i = 0; i < (D::own_mean ? 4 : 3); ++i) w.template add<real>(most * entries);
    if (topk && entries > k) w.template add<real>(most * v);
    for (int i = 0; i < 3; ++i) w.template add<real>(most);
    return w.template add<real>(1).bytes();
  }

  void run(vector row_loss, const_real_view<B> coefficients, view<S, 2, space_of<B>> d_logits, write_mode mode) {
    const index_t n = in_.logits.extent(0);
    for (index_t first = 0; first < n; first += most_) {
      const index_t count = n - first < most_ ? n - first : most_;
      const auto x = in_.logits.slice(first, count);
      if (topk_) {
        tables_of_list(x, in_.teacher_ids.slice(first, count), in_.teacher_logp.slice(first, count));
      } else {
        tables_of_all(x, log_q_.slice(0, count));
        tables_of_all(in_.teacher_logits.slice(first, count), log_p_.slice(0, count));
      }
      const auto loss = row_loss.slice(first, count);
      const auto coefficient = coefficients.slice(first, count);
      const auto means = evaluate(loss, count);
      if (d_logits.given()) differentiate(means, coefficient, d_logits.slice(first, count), first, count, mode);
      b_.transform(math::keep_where{}, loss, as_const(loss), coefficient);
    }
  }

 private:
  static real none() { return static_cast<real>(-std::numeric_limits<double>::infinity()); }
  bool has_rest() const { return topk_ && options_.rest != topk_rest::renormalize; }

  // x / temperature, minus its log-sum-exp.
  template <class X>
  void tables_of_all(view<const X, 2, space_of<B>> x, matrix table) {
    b_.transform(math::scale<real>{scale_}, table, x);
    normalize(table, table);
  }
  void normalize(matrix table, matrix over) {
    const auto lse = sums_.slice(0, table.extent(0));
    b_.row_log_sum_exp(as_const(over), lse);
    b_.transform(math::minus{}, table, as_const(table), broadcast_columns(as_const(lse), table.extent(1)));
  }

  void tables_of_list(view<const S, 2, space_of<B>> x, view<const std::int32_t, 2, space_of<B>> ids, const_real_view<B, 2> teacher) {
    const index_t n = x.extent(0), k = ids.extent(1);
    const auto log_q = log_q_.slice(0, n), log_p = log_p_.slice(0, n);
    const auto q = log_q.narrow(1, 0, k), p = log_p.narrow(1, 0, k);
    for (index_t j = 0; j < k; ++j) b_.row_pick(x, column_of(ids, j), column_of(q, j));
    b_.transform(math::scaled_where_listed<real>{scale_, none()}, q, as_const(q), ids);
    b_.transform(math::scaled_where_listed<real>{scale_, none()}, p, teacher, ids);
    if (options_.rest != topk_rest::one_token) normalize(p, p);
    if (!has_rest()) return normalize(q, q);

    const auto whole = whole_.slice(0, n);
    const auto lse = sums_.slice(0, n), rest = rest_.slice(0, n);
    b_.transform(math::scale<real>{scale_}, whole, x);
    b_.row_log_sum_exp(as_const(whole), lse);
    // Without the listed tokens: a sum of its own, not a difference of two that may be as good as equal.
    const const_real_view<B> nothing{nothing_.data(), {n}, {0}};
    for (index_t j = 0; j < k; ++j) b_.row_add_at(nothing, column_of(ids, j), whole);
    b_.row_log_sum_exp(as_const(whole), rest);
    b_.copy(as_const(rest), column_of(log_q, k));
    b_.transform(math::minus{}, log_q, as_const(log_q), broadcast_columns(as_const(lse), k + 1));
    if (options_.rest == topk_rest::zero) return b_.fill(column_of(log_p, k), none());
    b_.row_log_sum_exp(as_const(p), lse);
    b_.transform(math::log_of_rest{}, column_of(log_p, k), as_const(lse));
  }

  // The divergence of each row; returns the mean that the slope asks for.
  const_real_view<B> evaluate(vector loss, index_t count) {
    const auto log_q = as_const(log_q_.slice(0, count)), log_p = as_const(log_p_.slice(0, count));
    const auto values = values_.slice(0, count);
    const auto means = means_.slice(0, count);
    if constexpr (D::own_mean) {
      const auto pulls = pulls_.slice(0, count);
      b_.transform2(math::divergence_value_and_pull<D>{divergence_}, values, pulls, log_q, log_p);
      b_.reduce(reduction::sum, as_const(pulls), as_column(means), write_mode::overwrite);
    } else {
      b_.transform(math::divergence_value<D>{divergence_}, values, log_q, log_p);
    }
    b_.reduce(reduction::sum, as_const(values), as_column(loss), write_mode::overwrite);
    return D::own_mean ? means : loss;
  }

  void differentiate(const_real_view<B> means, const_real_view<B> coefficient, view<S, 2, space_of<B>> d_logits, index_t first, index_t count,
                     write_mode mode) {
    const auto log_q = as_const(log_q_.slice(0, count)), log_p = as_const(log_p_.slice(0, count));
    const index_t entries = log_q.extent(1), v = d_logits.extent(1);
    const math::divergence_slope<real, D> slope{divergence_, scale_};
    const auto m = broadcast_columns(means, entries), c = broadcast_columns(coefficient, entries);
    if (!topk_ && mode == write_mode::overwrite) return b_.transform(slope, d_logits, log_q, log_p, m, c);
    const auto slopes = values_.slice(0, count);
    b_.transform(slope, slopes, log_q, log_p, m, c);
    if (!topk_) return b_.transform(math::plus{}, d_logits, as_const(d_logits), as_const(slopes));
    if (has_rest()) {  // the rest's slope goes to its tokens by their shares
      const auto lse = broadcast_columns(as_const(rest_.slice(0, count)), v);
      const auto of_rest = broadcast_columns(as_const(column_of(slopes, entries - 1)), v);
      const auto whole = as_const(whole_.slice(0, count));
      if (mode == write_mode::add) {
        b_.transform(math::add_share_of_rest{}, d_logits, as_const(d_logits), whole, lse, of_rest);
      } else {
        b_.transform(math::share_of_rest{}, d_logits, whole, lse, of_rest);
      }
    } else if (mode == write_mode::overwrite) {
      b_.fill(d_logits, real(0));
    }
    const auto ids = in_.teacher_ids.slice(first, count);
    for (index_t j = 0; j < ids.extent(1); ++j) b_.row_add_at(as_const(column_of(slopes, j)), column_of(ids, j), d_logits);
  }

  B& b_;
  arena_of<B>& scratch_;
  const distillation_inputs<real, S, U, space_of<B>>& in_;
  const D& divergence_;
  const distillation_options& options_;
  bool topk_;
  real scale_;
  index_t most_;
  matrix log_q_{}, log_p_{}, values_{}, pulls_{}, whole_{};
  vector sums_{}, means_{}, rest_{}, nothing_{};
};

}  // namespace detail

/// Bytes of arena that `distillation` takes.
template <class B, class D, class S = real_of<B>, class U = S>
std::size_t distillation_workspace(const B&, const distillation_inputs<real_of<B>, S, U, space_of<B>>& in, const D&,
                                   const distillation_options& options) {
  const index_t n = in.logits.extent(0);
  return workspace_size()
      .template add<real_of<B>>(n)
      .template add<real_of<B>>(n)
      .add_bytes(detail::aggregate_bytes<B>(in.sequences.sequences()))
      .template add<real_of<B>>(n)
      .add_bytes(detail::distillation_chunks<B, D, S, U>::workspace(n, in.logits.extent(1), in.teacher_ids.extent(1), in.teacher_ids.given(), options))
      .bytes();
}

/// `L = weight sum_t w_t D(p_t, q_t)` with `q = softmax(logits / temperature)`, `p` the teacher's, `D` one of `distill::` (or of yours) and `w_t` the
/// row's weight over the denominator, see `aggregation`. Log-probabilities are logits minus their log-sum-exp, never log(softmax); the arena
/// holds `chunk_rows` rows at a time. Where the teacher is the student, the gradient is exactly 0.
///
/// On-policy and off-policy (GKD, arXiv:2306.13649) differ in whose sequences these are. Enqueues and returns; nothing is allocated. Checked
/// against TRL `generalized_jsd_loss`.
template <class B, class D, class S = real_of<B>, class U = S>
  requires has_backend_types<B>
void distillation(B& b, arena_of<B>& scratch, const distillation_inputs<real_of<B>, S, U, space_of<B>>& in, const D& divergence,
                  const distillation_options& options, const distillation_outputs<real_of<B>, S, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "distillation";
  const index_t n = in.logits.extent(0), v = in.logits.extent(1);
  const bool topk = in.teacher_ids.given() || in.teacher_logp.given(), laid_out = in.sequences.begin.given();
  const argument gradient("d_logits", out.d_logits), logits("logits", in.logits);
  const std::initializer_list<argument> others = {
      {"teacher_logits", in.teacher_logits}, {"teacher_ids", in.teacher_ids}, {"teacher_logp", in.teacher_logp}, {"begin", in.sequences.begin},
      {"end", in.sequences.end}, {"scored", in.sequences.scored}, {"weights", in.weights}};
  require_arguments(op, {{"loss", out.loss}, {"row_loss", out.row_loss}, gradient, {"metrics", out.metrics}}, others);
  require_arguments(op, {{"loss", out.loss}, {"row_loss", out.row_loss}, {"metrics", out.metrics}}, {logits});
  const bool in_place = out.d_logits.given() && gradient.same_as(logits);
  if (!in_place) require_disjoint(op, gradient, logits);
  if (in_place && out.mode == write_mode::add)
    fail(message(op) << "output `d_logits` is `logits` itself, which a gradient cannot be added to. Nothing was written.");
  require_given(op, "logits", in.logits, in.teacher_logits.given() || topk || out.d_logits.given());
  if (topk && in.teacher_logits.given())
    fail(message(op) << "both `teacher_logits` and a top-k list are given; give one of them. Nothing was written.");
  if (topk) {
    require_given(op, "teacher_ids", in.teacher_ids, n > 0);
    require_given(op, "teacher_logp", in.teacher_logp, n > 0);
    require_extent(op, "teacher_ids", in.teacher_ids, 0, n, "one row per row of `logits`");
    require_same_shape(op, "teacher_logp", in.teacher_logp, "teacher_ids", in.teacher_ids);
    for (index_t j = 0; j < in.teacher_ids.extent(1); ++j) require_ids(op, "teacher_ids", detail::column_of(in.teacher_ids, j), v, true);
    if (options.rest != topk_rest::renormalize && n > 0 && in.teacher_ids.extent(1) >= v)
      fail(message(op) << "`teacher_ids` lists " << in.teacher_ids.extent(1) << " of " << v
                       << " tokens, which leaves no rest: take `topk_rest::renormalize`. Nothing was written.");
    if (options.rest == topk_rest::zero && D::within_teacher)
      fail(message(op) << "with `topk_rest::zero` this divergence is infinite: take another `rest`. Nothing was written.");
    if (options.rest == topk_rest::one_token)
      require_option(op, "temperature", options.temperature, options.temperature == 1,
                     "1 with `topk_rest::one_token`: a list does not say what its rest has at another temperature");
  } else {
    require_given(op, "teacher_logits", in.teacher_logits, n > 0);
    require_same_shape(op, "teacher_logits", in.teacher_logits, "logits", in.logits);
  }
  divergence.require(op);
  options.require(op);
  detail::require_denominator(op, options.denominator);
  if (laid_out) {
    require_sequences(op, in.sequences, n);
  } else if (options.aggregate != aggregation::token_mean) {
    fail(message(op) << "no `sequences` are given, but `aggregate` asks for their means or sums. Nothing was written.");
  } else if (in.sequences.scored.given() || in.sequences.end.given()) {
    fail(message(op) << "`sequences` has no `begin`. Nothing was written.");
  }
  detail::require_token_vector(op, "weights", in.weights, n);
  detail::require_scalar(op, "loss", out.loss);
  detail::require_metrics(op, out.metrics, std::size(distillation_metrics));
  detail::require_token_vector(op, "row_loss", out.row_loss, n);
  if (out.d_logits.given()) require_same_shape(op, "d_logits", out.d_logits, "logits", in.logits);

  scratch.require(op, distillation_workspace(b, in, divergence, options));
  typename arena_of<B>::frame frame(scratch);
  const double factor = options.temperature_squared ? options.temperature * options.temperature : 1;
  const auto coefficients = scratch.template take<real>(n);
  const auto row_loss = out.row_loss.given() ? out.row_loss : scratch.template take<real>(n);
  if (laid_out) {
    typename arena_of<B>::frame inner(scratch);
    const auto weights = scratch.template take<real>(in.sequences.sequences());
    detail::sequence_weights(b, scratch, in.sequences, n,
                             {options.aggregate, options.denominator, options.length_epsilon, options.weight * factor}, weights);
    b.segment_broadcast(as_const(weights), in.sequences, coefficients, write_mode::overwrite);
  } else {
    b.fill(coefficients, static_cast<real>(options.weight * factor / options.denominator));
  }
  if (in.weights.given()) b.transform(math::weighted{}, coefficients, as_const(coefficients), in.weights);
  {
    typename arena_of<B>::frame inner(scratch);
    detail::distillation_chunks<B, D, S, U>(b, scratch, in, divergence, options).run(row_loss, as_const(coefficients), out.d_logits, out.mode);
  }
  const auto terms = scratch.template take<real>(n);
  if (out.loss.given()) {
    b.transform(math::weighted{}, terms, as_const(coefficients), as_const(row_loss));
    b.reduce(reduction::sum, as_const(terms), out.loss, out.mode);
  }
  if (out.metrics.given()) {
    const auto cell = [&](index_t row, index_t column) { return out.metrics.row(row).slice(column, 1); };
    b.reduce(reduction::sum, as_const(row_loss), cell(0, 0), write_mode::overwrite);
    b.transform(math::keep_or<real>{static_cast<real>(-std::numeric_limits<double>::infinity())}, terms, as_const(row_loss), as_const(coefficients));
    b.reduce(reduction::max, as_const(terms), cell(1, 0), write_mode::overwrite);
    b.transform(math::is_nonzero{}, terms, as_const(coefficients));
    b.reduce(reduction::sum, as_const(terms), cell(0, 1), write_mode::overwrite);
    b.copy(as_const(cell(0, 1)), cell(1, 1));
  }
}

/// What the host overload returns.
template <class T>
struct distillation_result {
  T loss = 0, divergence = 0, divergence_max = 0;
  std::vector<T> row_loss;  ///< `[N]`
  std::vector<T> d_logits;  ///< `[N, V]`
};

/// Logits of student and teacher, `[N, vocabulary]` each; loss and gradient out. Every row counts alike.
template <detail::host_range R, class D = distill::forward_kl>
distillation_result<detail::value_of<R>> distillation(const R& logits, view<const detail::value_of<R>, 1> teacher_logits, index_t vocabulary,
                                                      const D& divergence = {}, distillation_options options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(logits);
  require_extent("distillation", "teacher_logits", teacher_logits, 0, x.extent(0), "as many as `logits`");
  const index_t rows = vocabulary > 0 ? x.extent(0) / vocabulary : 0;
  require_extent("distillation", "logits", x, 0, rows * vocabulary, "a multiple of the vocabulary");
  if (options.denominator == 0) options.denominator = static_cast<double>(rows > 0 ? rows : 1);
  distillation_result<T> r{.row_loss = detail::zeros<T>(rows), .d_logits = detail::zeros<T>(rows * vocabulary)};
  T m[2][2] = {};
  const distillation_inputs<T> in{.logits = {x.data(), rows, vocabulary}, .teacher_logits = {teacher_logits.data(), rows, vocabulary}};
  detail::host_call<T> call(distillation_workspace(serial::backend<T>{}, in, divergence, options));
  distillation(call.compute, call.scratch, in, divergence, options,
               {.loss = r.loss, .row_loss = r.row_loss, .d_logits = {r.d_logits.data(), rows, vocabulary}, .metrics = view<T, 2>(&m[0][0], 2, 2)});
  r.divergence = metric_value(metric_kind::mean, m[0][0], m[0][1]);
  r.divergence_max = metric_value(metric_kind::max, m[1][0], m[1][1]);
  return r;
}

PLUMB_NAMESPACE_END

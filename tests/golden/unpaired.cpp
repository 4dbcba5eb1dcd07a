// Preference objectives without pairs or without a reference: KTO, BCO, CPO, SimPO, AlphaPO, ORPO, TPO, XPO, Nash-MD.
#include "golden/calls.hpp"

#include <plumb/objectives/bco.hpp>
#include <plumb/objectives/cpo.hpp>
#include <plumb/objectives/kto.hpp>
#include <plumb/objectives/nash_md.hpp>
#include <plumb/objectives/orpo.hpp>
#include <plumb/objectives/simpo.hpp>
#include <plumb/objectives/tpo.hpp>
#include <plumb/objectives/xpo.hpp>
#include <plumb/presets.hpp>

namespace golden {
namespace {

constexpr double nothing_cancels = 0;
constexpr const char* no_such_log = "a statistic of raw logits that the peer logs; no result of plumb's";

template <class Real>
plumb::view<Real, 2> rows_of_metrics(std::vector<Real>& m) {
  return {m.data(), length(m) / 2, 2};
}

// Labelled replies.

/// Rows of `plumb::unpaired_metrics`.
enum unpaired_metric : std::size_t { reward_desirable, reward_undesirable, logp_desirable, logp_undesirable, anchor };

/// With `sequences`, `logp` and `ref_logp` are per token; without, per reply.
struct labelled_call {
  numbers logp{}, ref_logp{};
  layout_arrays sequences{};
  flags desirable{};
  numbers constant{};  ///< kl of KTO, shift of BCO
  bool tokens() const { return sequences.sequences() > 0; }
  /// Only reply `s`, as if desirable: its reward and its log-probability are the desirable rows of the metrics.
  labelled_call reply(std::size_t s) const {
    labelled_call y = *this;
    y.desirable = {1};
    if (tokens()) {
      y.sequences = sequences.sequence(s);
    } else {
      y.logp = {logp[s]};
      y.ref_logp = {ref_logp[s]};
    }
    return y;
  }
};
struct labelled_answer {
  double loss;
  numbers d_logp, reply_loss, sums, counts;  ///< the two columns of the metrics
};

template <class B, class Tokens, class Replies>
labelled_answer run_labelled(job<B>& j, const labelled_call& in, std::size_t bytes, const Tokens& of_tokens, const Replies& of_replies) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), ref_logp = reals(j, in.ref_logp), constant = reals(j, in.constant);
  std::vector<real> d_logp(logp.size()), reply_loss(in.desirable.size()), m(2 * std::size(plumb::unpaired_metrics));
  real loss = 0;
  scratch_memory scratch(bytes);
  if (in.tokens()) {
    of_tokens(scratch.arena, logp, ref_logp, constant,
              plumb::unpaired_outputs<real>{.loss = loss, .d_logp = d_logp, .reply_loss = reply_loss, .metrics = rows_of_metrics(m)});
  } else {
    of_replies(scratch.arena, logp, ref_logp, constant,
               plumb::unpaired_replies_outputs<real>{.loss = loss, .d_logp = d_logp, .reply_loss = reply_loss, .metrics = rows_of_metrics(m)});
  }
  labelled_answer y{static_cast<double>(loss), doubles(d_logp), doubles(reply_loss), {}, {}};
  for (std::size_t k = 0; k < m.size(); k += 2) {
    y.sums.push_back(static_cast<double>(m[k]));
    y.counts.push_back(static_cast<double>(m[k + 1]));
  }
  return y;
}
template <class B>
labelled_answer call(job<B>& j, const labelled_call& in, const plumb::kto_options& o) {
  const std::size_t bytes = in.tokens() ? plumb::kto_workspace(j.b, in.sequences.get(), length(in.logp), o)
                                        : plumb::kto_replies_workspace(j.b, length(in.logp));
  return run_labelled(
      j, in, bytes,
      [&](auto& scratch, auto& logp, auto& ref, auto& kl, const auto& out) {
        plumb::kto(j.b, scratch, {logp, ref, in.sequences.get(), in.desirable, kl, {}}, o, out);
      },
      [&](auto& scratch, auto& logp, auto& ref, auto& kl, const auto& out) {
        plumb::kto_replies(j.b, scratch, {logp, ref, in.desirable, kl, {}}, o, out);
      });
}
template <class B>
labelled_answer call(job<B>& j, const labelled_call& in, const plumb::bco_options& o) {
  const std::size_t bytes = in.tokens() ? plumb::bco_workspace(j.b, in.sequences.get(), length(in.logp), o)
                                        : plumb::bco_replies_workspace(j.b, length(in.logp));
  return run_labelled(
      j, in, bytes,
      [&](auto& scratch, auto& logp, auto& ref, auto& shift, const auto& out) {
        plumb::bco(j.b, scratch, {logp, ref, in.sequences.get(), in.desirable, shift, {}}, o, out);
      },
      [&](auto& scratch, auto& logp, auto& ref, auto& shift, const auto& out) {
        plumb::bco_replies(j.b, scratch, {logp, ref, in.desirable, shift, {}}, o, out);
      });
}
/// KTO's reference point, from the sums that ranks would share.
template <class B>
numbers kl_of(job<B>& j, const numbers& logp_of, const numbers& ref_of, const layout_arrays& sequences, const plumb::kto_kl_options& o) {
  using real = typename B::real;
  const auto logp = reals(j, logp_of), ref_logp = reals(j, ref_of);
  std::vector<real> sums(2), alone(1), kl(1);
  const plumb::kto_kl_outputs<real> out{.kl = alone, .sums = sums};
  if (sequences.sequences() > 0) {
    scratch_memory scratch(plumb::kto_kl_workspace(j.b, sequences.get(), length(logp), o));
    plumb::kto_kl(j.b, scratch.arena, {logp, ref_logp, sequences.get()}, o, out);
  } else {
    scratch_memory scratch(plumb::kto_kl_replies_workspace(j.b, length(logp)));
    plumb::kto_kl_replies(j.b, scratch.arena, {logp, ref_logp}, o, out);
  }
  plumb::kto_kl_of_sums(j.b, plumb::view<const real, 1>(sums), o, plumb::view<real, 1>(kl));
  if (alone != kl) throw std::logic_error("kto_kl and kto_kl_of_sums differ");
  return doubles(kl);
}
/// One metric of every reply of that label.
template <class B>
numbers of_each(job<B>& j, const labelled_call& in, const auto& options, bool label, unpaired_metric metric) {
  numbers y;
  for (std::size_t s = 0; s < in.desirable.size(); ++s)
    if ((in.desirable[s] != 0) == label) y.push_back(call(j, in.reply(s), options).sums[metric]);
  return y;
}
numbers desirable_first(const numbers& x, const flags& desirable) {
  numbers y;
  for (const bool label : {true, false})
    for (std::size_t s = 0; s < x.size(); ++s)
      if ((desirable[s] != 0) == label) y.push_back(x[s]);
  return y;
}

// The loss, and what is logged. Log-ratios are differences of numbers as large as `logp`.
template <class B>
void compare_kto(job<B>& j, const labelled_call& in, const plumb::kto_options& o, const labelled_answer& y, double logp) {
  const double slope = o.beta * logp;
  j.output("loss", {y.loss}, slope);
  j.output("kl", {y.sums[anchor]}, logp);
  j.output("losses", desirable_first(y.reply_loss, in.desirable), slope);
}
plumb::kto_options trl_kto_options(const golden_case& c, std::size_t replies) {
  return {.beta = c.number("beta"),
          .desirable_weight = c.number("desirable_weight"),
          .undesirable_weight = c.number("undesirable_weight"),
          .kl_free = plumb::presets::trl().kto(c.text("loss_type")).kl_free,
          .denominator = static_cast<double>(replies)};
}

// TRL from token log-probabilities: column t belongs to position t + 1 of the mask. The reference comes as sums: each lies on its reply's
// first scored token.
constexpr auto trl_kto_from_logps = [](auto& j) {
  const golden_case& c = j.c;
  const array& logps = c.input("per_token_logps", {0, 0});
  const std::size_t rows = logps.shape[0], columns = logps.shape[1];
  const flags mask = to_flags(without_first_column(c.input("completion_mask", {rows, columns + 1}).data, rows, columns + 1));
  const numbers ref = c.input("ref_logps", {rows}).data;
  labelled_call in{.logp = logps.data, .ref_logp = zeros(logps.data.size()), .sequences = padded(rows, columns, mask)};
  in.desirable = to_flags(c.input("label", {rows}).data);
  for (std::size_t r = 0; r < rows; ++r) {
    std::size_t t = r * columns;
    while (t < (r + 1) * columns && !in.sequences.counts(t)) ++t;
    if (t == (r + 1) * columns) c.fail("row " + std::to_string(r) + " of `completion_mask` scores no token");
    in.ref_logp[t] = ref[r];
  }
  const plumb::kto_options o = trl_kto_options(c, rows);
  double most = std::max(largest(logps.data), largest(ref));
  if (!o.kl_free) {
    const numbers& kl = c.input("kl_logps", {0}).data;
    const numbers& ref_kl = c.input("ref_kl_logps", {kl.size()}).data;
    in.constant = kl_of(j, kl, ref_kl, {}, {});
    most = std::max({most, largest(kl), largest(ref_kl)});
  }
  const labelled_answer y = call(j, in, o);
  compare_kto(j, in, o, y, most);
  numbers logp;
  for (std::size_t s = 0; s < rows; ++s) logp.push_back(call(j, in.reply(s), o).sums[logp_desirable]);
  j.output("completion_logps", logp, largest(logps.data));
  j.output("chosen_rewards", of_each(j, in, o, true, reward_desirable), o.beta * most);
  j.output("rejected_rewards", of_each(j, in, o, false, reward_desirable), o.beta * most);
  const double gradient = o.beta / o.denominator * std::max(o.desirable_weight, o.undesirable_weight);
  j.gradient("d_loss/d_per_token_logps", y.d_logp, gradient);
  j.gradient("d_loss/d_completion_logps", call(j, labelled_call{logp, ref, {}, in.desirable, in.constant}, o).d_logp, gradient);
};

// TRL from logits: row t predicts token t + 1.
token_logp_call next_tokens(const array& logits, const ids& tokens) {
  token_logp_call y = rows_of(logits);
  const std::size_t columns = logits.shape[1];
  for (std::size_t t = 0; t < tokens.size(); ++t) y.targets.push_back((t + 1) % columns == 0 ? -1 : tokens[t + 1]);
  return y;
}
flags next_scored(const numbers& mask, std::size_t columns) {
  flags y;
  for (std::size_t t = 0; t < mask.size(); ++t) y.push_back((t + 1) % columns != 0 && mask[t + 1] != 0);
  return y;
}
constexpr auto trl_kto_from_logits = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t rows = logits.shape[0], columns = logits.shape[1];
  const token_logp_call policy = next_tokens(logits, to_ids(c.input("input_ids", {rows, columns}).data));
  token_logp_call reference = policy;
  reference.logits = c.input("ref_logits", logits.shape).data;
  const array& kl_logits = c.input("kl_logits", {0, 0, 0});
  const std::vector<std::size_t> kl_shape{kl_logits.shape[0], kl_logits.shape[1]};
  const token_logp_call mismatched = next_tokens(kl_logits, to_ids(c.input("KL_input_ids", kl_shape).data));
  token_logp_call ref_mismatched = mismatched;
  ref_mismatched.logits = c.input("ref_kl_logits", kl_logits.shape).data;
  const token_logp_answer forward = call(j, policy);
  labelled_call in{.logp = forward.logp,
                   .ref_logp = call(j, reference).logp,
                   .sequences = padded(rows, columns, next_scored(c.input("completion_mask", {rows, columns}).data, columns)),
                   .desirable = to_flags(c.input("label", {rows}).data)};
  const plumb::kto_options o = trl_kto_options(c, rows);
  if (!o.kl_free)
    in.constant = kl_of(j, call(j, mismatched).logp, call(j, ref_mismatched).logp,
                        padded(kl_shape[0], kl_shape[1], next_scored(c.input("KL_completion_mask", kl_shape).data, kl_shape[1])), {});
  const labelled_answer y = call(j, in, o);
  double most = 0;
  for (const token_logp_call& x : {policy, reference, mismatched, ref_mismatched})
    most = std::max(most, static_cast<double>(columns) * largest(x.logits));
  compare_kto(j, in, o, y, most);
  j.output("chosen_logps", of_each(j, in, o, true, logp_desirable), most);
  j.output("rejected_logps", of_each(j, in, o, false, logp_desirable), most);
  j.gradient("d_loss/d_logits", backward(j, policy, forward, y.d_logp), spread_rows(magnitudes(y.d_logp), policy.vocabulary));
};
bool from_logps(const golden_case& c) { return c.has_input("per_token_logps"); }
bool from_logits(const golden_case& c) { return !from_logps(c); }

// NeMo: the second half of the rows are the mismatched ones; two layouts over the same arrays.
constexpr auto nemo_kto = [](auto& j) {
  const golden_case& c = j.c;
  const array& logps = c.input("pi_logprobs", {0, 0});
  const std::size_t rows = logps.shape[0], columns = logps.shape[1], half = rows / 2;
  const layout_arrays all = padded(rows, columns, not_ignored(to_ids(c.input("labels", logps.shape).data)));
  const auto of = c.flag("average_log_probs", false) ? plumb::reply_score::mean : plumb::reply_score::sum;
  labelled_call in{.logp = logps.data, .ref_logp = c.input("ref_logprobs", logps.shape).data, .sequences = all.some(0, half)};
  in.desirable = to_flags(c.input("preferences", {half}).data);
  in.constant = kl_of(j, in.logp, in.ref_logp, all.some(half, half), {.score = of});
  const plumb::kto_options o{.beta = c.number("ref_policy_kl_penalty"),
                             .desirable_weight = c.number("desirable_loss_weight"),
                             .undesirable_weight = c.number("undesirable_loss_weight"),
                             .score = of,
                             .denominator = static_cast<double>(half)};
  const labelled_answer y = call(j, in, o);
  j.output("loss", {y.loss}, nothing_cancels);
  j.output("kl", {y.sums[anchor]}, std::max(largest(in.logp), largest(in.ref_logp)));
  j.gradient("d_loss/d_pi_logprobs", y.d_logp, nothing_cancels);
};

// Liger from hidden states: labels lie at their rows, the reference point is given or 0, what is logged are sums.
constexpr auto liger_kto = [](auto& j) {
  const golden_case& c = j.c;
  const array& input = c.input("input", {0, 0, 0});
  const std::size_t rows = input.shape[0], columns = input.shape[1], width = input.shape[2];
  const array& weight = c.input("weight", {0, width});
  const std::size_t vocabulary = weight.shape[0];
  linear_call policy{.hidden = input.data, .head = weight.data, .rows = rows * columns, .width = width, .vocabulary = vocabulary};
  policy.targets = to_ids(c.input("target", {rows, columns}).data, c.number("ignore_index"));
  if (c.has_input("bias")) policy.bias = c.input("bias", {vocabulary}).data;
  linear_call reference = policy;
  reference.hidden = c.input("ref_input", input.shape).data;
  reference.head = c.input("ref_weight", weight.shape).data;
  reference.bias = c.has_input("ref_bias") ? c.input("ref_bias", {vocabulary}).data : numbers{};
  const token_logp_answer forward = call(j, policy);
  labelled_call in{.logp = forward.logp,
                   .ref_logp = call(j, reference).logp,
                   .sequences = padded(rows, columns, not_ignored(policy.targets)),
                   .desirable = to_flags(c.input("preference_labels", {rows}).data)};
  if (c.has_input("kl")) in.constant = c.input("kl", {1}).data;
  const plumb::kto_options o{.beta = c.number("beta"),
                             .kl_free = !c.has_input("kl"),
                             .score = c.flag("average_log_prob", false) ? plumb::reply_score::mean : plumb::reply_score::sum,
                             .denominator = static_cast<double>(rows)};
  const labelled_answer y = call(j, in, o);
  const double logit = static_cast<double>(columns) * std::max(largest_logit_term(policy), largest_logit_term(reference));
  j.output("loss", {y.loss}, o.beta * logit);
  j.output("chosen_logps_sum", {y.sums[logp_desirable]}, logit);
  j.output("rejected_logps_sum", {y.sums[logp_undesirable]}, logit);
  j.output("chosen_rewards_sum", {y.sums[reward_desirable]}, o.beta * logit);
  j.output("rejected_rewards_sum", {y.sums[reward_undesirable]}, o.beta * logit);
  for (const char* name : {"chosen_logits_sum", "rejected_logits_sum"}) j.leave_out(name, no_such_log);
  const linear_gradients g = backward(j, policy, forward, y.d_logp);
  j.gradient("d_loss/d_input", g.d_hidden, largest(y.d_logp) * largest(policy.head));
  j.gradient("d_loss/d_weight", g.d_head, largest(y.d_logp) * largest(policy.hidden));
  if (!policy.bias.empty()) j.gradient("d_loss/d_bias", g.d_bias, largest(y.d_logp));
};

// TRL's running moments hold the mean and the variance; ours the squared deviations.
template <class B>
std::vector<typename B::real> moments_state(job<B>& j, double count, double mean, double variance) {
  return reals(j, {count, mean, variance * count});
}
template <class B>
plumb::running_moments<double> moments_now(job<B>&, const std::vector<typename B::real>& state) {
  const numbers x = doubles(state);
  return plumb::read_moments(plumb::view(x));
}

constexpr auto trl_bco = [](auto& j) {
  const golden_case& c = j.c;
  const numbers chosen = c.input("policy_chosen_logps", {0}).data, rejected = c.input("policy_rejected_logps", {0}).data;
  labelled_call in{.logp = joined(chosen, rejected)};
  in.ref_logp = joined(c.input("reference_chosen_logps", {chosen.size()}).data, c.input("reference_rejected_logps", {rejected.size()}).data);
  in.desirable.assign(in.logp.size(), 0);
  std::fill(in.desirable.begin(), in.desirable.begin() + static_cast<std::ptrdiff_t>(chosen.size()), std::uint8_t{1});
  const plumb::bco_options o{.beta = c.number("beta"), .denominator = static_cast<double>(in.logp.size())};
  const nlohmann::json& init = c.options.at("running_init");
  auto state = moments_state(j, init.at("count").get<double>(), init.at("mean").get<double>(), init.at("var").get<double>());
  using real = typename decltype(state)::value_type;
  if (c.flag("do_train", true)) {
    const auto logp = reals(j, in.logp), ref_logp = reals(j, in.ref_logp);
    scratch_memory scratch(plumb::bco_moments_replies_workspace(j.b, length(logp)));
    plumb::bco_moments_replies(j.b, scratch.arena, plumb::view<const real, 1>(logp), plumb::view<const real, 1>(ref_logp), o.beta,
                               plumb::view<real, 1>(state));
  }
  in.constant = {static_cast<double>(state[plumb::moments_mean])};
  const labelled_answer y = call(j, in, o);
  const double reward = o.beta * std::max(largest(in.logp), largest(in.ref_logp));
  j.output("losses", y.reply_loss, reward);
  j.output("loss", {y.loss}, reward);
  j.output("chosen_rewards", of_each(j, in, o, true, reward_desirable), reward);
  j.output("rejected_rewards", of_each(j, in, o, false, reward_desirable), reward);
  j.output("delta", {y.sums[anchor]}, reward);
  const auto now = moments_now(j, state);
  j.output("running_mean", {now.mean}, reward);
  j.output("running_std", {now.standard_deviation}, reward);
  j.output("running_var", {now.variance}, reward * reward);
  j.output("running_count", {now.count}, nothing_cancels);
  const double gradient = o.beta / o.denominator;
  j.gradient("d_loss/d_policy_chosen_logps", part(y.d_logp, 0, chosen.size()), gradient);
  j.gradient("d_loss/d_policy_rejected_logps", part(y.d_logp, chosen.size(), rejected.size()), gradient);
};

constexpr auto trl_running_moments = [](auto& j) {
  const golden_case& c = j.c;
  auto state = moments_state(j, 1e-24, 0, 1);  // how TRL begins
  using real = typename decltype(state)::value_type;
  numbers trace;
  double most = 0;
  for (std::size_t k = 0; c.has_input("batch_" + std::to_string(k)); ++k) {
    const auto values = reals(j, c.input("batch_" + std::to_string(k), {0}).data);
    std::vector<real> batch(3);
    scratch_memory scratch(plumb::update_moments_workspace(j.b, length(values)));
    plumb::update_moments(j.b, scratch.arena, plumb::view<const real, 1>(values), plumb::view<real, 1>(batch));
    plumb::merge_moments(j.b, scratch.arena, plumb::view<const real, 1>(batch), plumb::view<real, 1>(state));
    const auto b = moments_now(j, batch), all = moments_now(j, state);
    trace = joined(trace, {b.mean, b.standard_deviation, all.mean, all.standard_deviation, all.variance, all.count});
    most = std::max(most, largest(doubles(values)));
  }
  j.output("trace", trace, most);
};

// Pairs without a reference, and XPO.

/// Rows of `plumb::reply_pairs_metrics` and, for ORPO, two more. (The first six are named in calls.hpp.)
enum pairs_metric : std::size_t { nll = 6, log_odds = 7, log_sigmoid_odds = 8 };

struct pairs_call {
  numbers logp{}, ref_logp{};
  layout_arrays sequences{};
  ids chosen{}, rejected{};
  layout_arrays others{};  ///< of the likelihood term of TPO and XPO

  std::size_t pairs() const { return chosen.size(); }
  plumb::preference_pairs<> get() const { return {sequences.get(), chosen, rejected}; }
  /// Only pair `p`; of the others, only number `p`.
  pairs_call pair(std::size_t p) const {
    return {logp, ref_logp, sequences, {chosen[p]}, {rejected[p]}, p < others.begin.size() ? others.sequence(p) : others};
  }
  double chosen_tokens() const {
    double n = 0;
    for (std::int32_t s : chosen) n += sequences.count(static_cast<std::size_t>(s));
    return n;
  }
};
struct pairs_answer {
  double loss;
  numbers d_logp, pair_loss, sums, metrics;
};

template <class B, class F>
pairs_answer run_pairs(job<B>& j, const pairs_call& in, std::size_t rows, std::size_t bytes, const F& f) {
  using real = typename B::real;
  const auto logp = reals(j, in.logp), ref_logp = reals(j, in.ref_logp);
  std::vector<real> d_logp(logp.size()), pair_loss(in.pairs()), m(2 * rows);
  real loss = 0;
  scratch_memory scratch(bytes);
  f(scratch.arena, logp, ref_logp,
    plumb::reply_pairs_outputs<real>{.loss = loss, .d_logp = d_logp, .pair_loss = pair_loss, .metrics = rows_of_metrics(m)});
  pairs_answer y{static_cast<double>(loss), doubles(d_logp), doubles(pair_loss), {}, {}};
  for (std::size_t k = 0; k < m.size(); k += 2) {
    y.sums.push_back(static_cast<double>(m[k]));
    y.metrics.push_back(static_cast<double>(plumb::metric_value(plumb::metric_kind::mean, m[k], m[k + 1])));
  }
  return y;
}
template <class B, class Link>
pairs_answer call(job<B>& j, const pairs_call& in, const plumb::cpo_options<Link>& o) {
  return run_pairs(j, in, 7, plumb::cpo_workspace(j.b, in.get(), length(in.logp), o), [&](auto& scratch, auto& logp, auto&, const auto& out) {
    plumb::cpo<Link>(j.b, scratch, {logp, in.get()}, o, out);
  });
}
template <class B>
pairs_answer call(job<B>& j, const pairs_call& in, const plumb::simpo_options& o) {
  return run_pairs(j, in, 7, plumb::simpo_workspace(j.b, in.get(), length(in.logp)), [&](auto& scratch, auto& logp, auto&, const auto& out) {
    plumb::simpo(j.b, scratch, {logp, in.get()}, o, out);
  });
}
template <class B>
pairs_answer call(job<B>& j, const pairs_call& in, const plumb::orpo_options& o) {
  return run_pairs(j, in, 9, plumb::orpo_workspace(j.b, in.get(), length(in.logp)), [&](auto& scratch, auto& logp, auto&, const auto& out) {
    plumb::orpo(j.b, scratch, {logp, in.get()}, o, out);
  });
}
template <class B, class Link>
pairs_answer call(job<B>& j, const pairs_call& in, const plumb::tpo_options<Link>& o) {
  using real = typename B::real;
  const plumb::tpo_inputs<real> shapes{plumb::view<const real, 1>(nullptr, length(in.logp)), in.get(), in.others.get()};
  return run_pairs(j, in, 7, plumb::tpo_workspace(j.b, shapes, o), [&](auto& scratch, auto& logp, auto&, const auto& out) {
    plumb::tpo<Link>(j.b, scratch, {logp, in.get(), in.others.get()}, o, out);
  });
}
template <class B, class Link>
pairs_answer call(job<B>& j, const pairs_call& in, const plumb::xpo_options<Link>& o) {
  using real = typename B::real;
  const plumb::view<const real, 1> flat(nullptr, length(in.logp));
  const plumb::xpo_inputs<real> shapes{flat, flat, in.get(), in.others.get()};
  return run_pairs(j, in, 7, plumb::xpo_workspace(j.b, shapes), [&](auto& scratch, auto& logp, auto& ref_logp, const auto& out) {
    plumb::xpo<Link>(j.b, scratch, {logp, ref_logp, in.get(), in.others.get()}, o, out);
  });
}
template <class B>
numbers of_each_pair(job<B>& j, const pairs_call& in, const auto& options, std::size_t metric) {
  numbers y;
  for (std::size_t p = 0; p < in.pairs(); ++p) y.push_back(call(j, in.pair(p), options).metrics[metric]);
  return y;
}

void pair_halves(pairs_call& in, std::size_t pairs) {
  for (std::size_t p = 0; p < pairs; ++p) {
    in.chosen.push_back(static_cast<std::int32_t>(p));
    in.rejected.push_back(static_cast<std::int32_t>(pairs + p));
  }
}
/// One number per reply: every sequence is one token long.
pairs_call of_replies(const numbers& chosen, const numbers& rejected) {
  pairs_call y{.logp = joined(chosen, rejected)};
  y.sequences = padded(y.logp.size(), 1, {});
  pair_halves(y, chosen.size());
  return y;
}

// What enters a loss: the scores times beta, and, where it is squared, their square.
double loss_terms(const std::string& type, double beta, double gamma, double logp) {
  if (type == "ipo") return (logp + 0.5 / beta) * (logp + 0.5 / beta);
  return beta * logp + (type == "hinge" ? 1 : gamma);
}
double slope_terms(const std::string& type, double beta, double logp) { return type == "ipo" ? 2 * (logp + 0.5 / beta) : beta; }

// TRL's CPO trainer has several objectives by the name of the loss. `f(options)`.
template <class F>
void with_trl_cpo(const golden_case& c, const plumb::likelihood_term& likelihood, double denominator, const F& f) {
  const std::string type = c.text("loss_type");
  const double beta = c.number("beta"), alpha = c.number("alpha", 0), smoothing = c.number("label_smoothing");
  if (alpha != 0 && type != "simpo" && type != "sigmoid") c.fail("`alpha` with `loss_type` " + type + " is no objective of plumb's");
  auto options = plumb::presets::trl().cpo(type, {.beta = beta, .label_smoothing = smoothing, .gamma = c.number("simpo_gamma"), .alpha = alpha});
  std::visit(
      [&](auto& o) {
        o.likelihood = likelihood;
        o.denominator = denominator;
        f(o);
      },
      options);
}
// The reshaping of AlphaPO, and how steep it is.
struct reshaped_terms {
  double value, slope;
};
reshaped_terms reshaped_at(double alpha, double logp) {
  if (alpha == 0) return {logp, 1};
  const double e = std::exp(std::fabs(alpha) * logp);
  return {std::max(logp, e / std::fabs(alpha)), e};
}

constexpr auto trl_cpo_loss = [](auto& j) {
  const golden_case& c = j.c;
  const numbers chosen = c.input("policy_chosen_logps", {0}).data, rejected = c.input("policy_rejected_logps", {chosen.size()}).data;
  const pairs_call in = of_replies(chosen, rejected);
  const numbers cot = c.input("cot_losses", {in.pairs()}).data;
  with_trl_cpo(c, {.weight = 0}, 1, [&](const auto& o) {
    const std::string type = c.text("loss_type");
    const double beta = c.number("beta"), gamma = c.number("simpo_gamma");
    const reshaped_terms score = reshaped_at(c.number("alpha", 0), largest(in.logp));
    const pairs_answer y = call(j, in, o);
    j.output("losses", y.pair_loss, loss_terms(type, beta, gamma, score.value));
    const double reward = c.number("alpha", 0) == 0 ? nothing_cancels : beta * score.value;
    j.output("chosen_rewards", of_each_pair(j, in, o, reward_chosen), reward);
    j.output("rejected_rewards", of_each_pair(j, in, o, reward_rejected), reward);
    const numbers terms = scaled(magnitudes(cot), slope_terms(type, beta, score.value) * score.slope);
    j.gradient("d_losses/d_policy_chosen_logps", times(cot, first_half(y.d_logp)), terms);
    j.gradient("d_losses/d_policy_rejected_logps", times(cot, second_half(y.d_logp)), terms);
  });
};

// TRL from logits, chosen rows first; what belongs to the rejected rows is padded to the width of the chosen.
numbers chosen_and_rejected(const golden_case& c, const std::string& name, std::size_t pairs, std::size_t columns, double padding) {
  numbers y = c.input("chosen_" + name, {pairs, columns}).data;
  const array& rejected = c.input("rejected_" + name, {pairs, 0});
  for (std::size_t p = 0; p < pairs; ++p) {
    y = joined(std::move(y), part(rejected.data, p * rejected.shape[1], rejected.shape[1]));
    y.resize((pairs + p + 1) * columns, padding);
  }
  return y;
}
struct pairs_of_logits {
  token_logp_call policy;
  token_logp_answer forward;
  pairs_call pairs;
  double most;  ///< what a reply's log-probability is made of
};
// `labels`: of every row, -1 where a token does not count. `also`: targets that are wanted besides.
template <class Job>
pairs_of_logits pairs_from(Job& j, const array& logits, const ids& labels, std::size_t pairs, const ids& also = {}) {
  const std::size_t rows = logits.shape[0], columns = logits.shape[1];
  pairs_of_logits x{.policy = next_tokens(logits, labels), .forward = {}, .pairs = {}, .most = static_cast<double>(columns) * largest(logits.data)};
  x.pairs.sequences = padded(rows, columns, not_ignored(x.policy.targets));
  if (!also.empty()) {
    const token_logp_call more = next_tokens(logits, also);
    for (std::size_t t = 0; t < labels.size(); ++t)
      if (x.policy.targets[t] < 0) x.policy.targets[t] = more.targets[t];
  }
  x.forward = call(j, x.policy);
  x.pairs.logp = x.forward.logp;
  pair_halves(x.pairs, pairs);
  return x;
}
template <class Job>
void compare_logits_gradient(Job& j, const pairs_of_logits& x, const numbers& d_logp) {
  j.gradient("d_loss/d_logits", backward(j, x.policy, x.forward, d_logp), spread_rows(magnitudes(d_logp), x.policy.vocabulary));
}

constexpr auto trl_cpo_metrics = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t pairs = logits.shape[0] / 2, columns = logits.shape[1];
  const pairs_of_logits x = pairs_from(j, logits, to_ids(chosen_and_rejected(c, "labels", pairs, columns, -100)), pairs);
  const double share = c.number("cpo_alpha"), beta = c.number("beta");
  with_trl_cpo(c, {.weight = share, .denominator = x.pairs.chosen_tokens()}, static_cast<double>(pairs), [&](const auto& o) {
    const pairs_answer y = call(j, x.pairs, o);
    const double terms = loss_terms(c.text("loss_type"), beta, c.number("simpo_gamma"), x.most);
    j.output("loss", {y.loss}, std::max(terms, share * x.most));
    j.output("nll_loss", {share > 0 ? y.metrics[nll] : 0}, x.most);  // 0 where it is not computed
    j.output("chosen_logps", of_each_pair(j, x.pairs, o, logp_chosen), x.most);
    j.output("rejected_logps", of_each_pair(j, x.pairs, o, logp_rejected), x.most);
    j.output("losses", y.pair_loss, terms);
    j.output("reward_accuracy", {y.metrics[accuracy]}, nothing_cancels);
    j.output("reward_margin", {y.metrics[margin]}, beta * x.most);
    compare_logits_gradient(j, x, y.d_logp);
  });
};

// ORPO. TRL's losses are `beta log sigmoid`, which its trainer subtracts.
constexpr auto trl_orpo_loss = [](auto& j) {
  const golden_case& c = j.c;
  const numbers chosen = c.input("policy_chosen_logps", {0}).data, rejected = c.input("policy_rejected_logps", {chosen.size()}).data;
  const pairs_call in = of_replies(chosen, rejected);
  const numbers cot = scaled(c.input("cot_losses", {in.pairs()}).data, -1);
  const plumb::orpo_options o{.beta = c.number("beta"), .likelihood = {.weight = 0}, .denominator = 1};
  const pairs_answer y = call(j, in, o);
  j.output("losses", scaled(y.pair_loss, -1), o.beta * largest(in.logp));
  j.output("chosen_rewards", of_each_pair(j, in, o, reward_chosen), nothing_cancels);
  j.output("rejected_rewards", of_each_pair(j, in, o, reward_rejected), nothing_cancels);
  j.output("log_odds_ratio", {y.metrics[log_sigmoid_odds]}, largest(in.logp));
  j.output("log_odds_chosen", {y.metrics[log_odds]}, largest(in.logp));
  j.gradient("d_losses/d_policy_chosen_logps", times(cot, first_half(y.d_logp)), nothing_cancels);
  j.gradient("d_losses/d_policy_rejected_logps", times(cot, second_half(y.d_logp)), nothing_cancels);
};
constexpr auto trl_orpo_metrics = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t pairs = logits.shape[0] / 2, columns = logits.shape[1];
  // The likelihood term is over all that is attended to of the chosen rows, the prompt too.
  const numbers tokens = c.input("chosen_input_ids", {pairs, columns}).data, attended = c.input("chosen_attention_mask", {pairs, columns}).data;
  ids whole;
  for (std::size_t t = 0; t < tokens.size(); ++t) whole.push_back(attended[t] != 0 ? static_cast<std::int32_t>(tokens[t]) : -1);
  whole.resize(2 * pairs * columns, -1);
  const pairs_of_logits x = pairs_from(j, logits, to_ids(chosen_and_rejected(c, "labels", pairs, columns, -100)), pairs, whole);
  const layout_arrays prompts_too = padded(pairs, columns, not_ignored(next_tokens(logits, whole).targets));
  const supervised_answer s = call(j, supervised_call{.logp = x.pairs.logp,
                                                      .sequences = prompts_too,
                                                      .denominator = static_cast<double>(plumb::count_scored(prompts_too.get()))});
  const plumb::orpo_options o{.beta = c.number("beta"), .likelihood = {.weight = 0}, .denominator = static_cast<double>(pairs)};
  const pairs_answer y = call(j, x.pairs, o);
  j.output("loss", {y.loss + s.loss}, x.most);
  j.output("nll_loss", {s.loss}, x.most);
  j.output("chosen_logps", of_each_pair(j, x.pairs, o, logp_chosen), x.most);
  j.output("rejected_logps", of_each_pair(j, x.pairs, o, logp_rejected), x.most);
  j.output("losses", scaled(y.pair_loss, -1), o.beta * x.most);
  j.output("log_odds_ratio", {y.metrics[log_sigmoid_odds]}, x.most);
  j.output("log_odds_chosen", {y.metrics[log_odds]}, x.most);
  j.output("reward_accuracy", {y.metrics[accuracy]}, nothing_cancels);
  j.output("reward_margin", {y.metrics[margin]}, o.beta * x.most);
  compare_logits_gradient(j, x, plus(y.d_logp, s.d_logp));
};

// TRL's TPO: rows are chosen, rejected and, with `tpo_alpha`, the best.
constexpr auto trl_tpo_links = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const double share = c.number("tpo_alpha"), beta = c.number("beta"), gamma = c.number("tpo_l_gamma");
  const std::string type = c.text("loss_type");
  const std::size_t rows = logits.shape[0], columns = logits.shape[1], pairs = rows / (share > 0 ? 3 : 2);
  ids labels = to_ids(c.input("input_ids", {rows, columns}).data);
  const flags mask = to_flags(c.input("completion_mask", {rows, columns}).data);
  for (std::size_t t = 0; t < labels.size(); ++t)
    if (mask[t] == 0) labels[t] = -1;
  pairs_of_logits x = pairs_from(j, logits, labels, pairs);
  plumb::likelihood_term likelihood{.weight = share};
  if (share > 0) {
    x.pairs.others = x.pairs.sequences.some(2 * pairs, pairs);
    likelihood.denominator = static_cast<double>(plumb::count_scored(x.pairs.others.get()));
  }
  const auto compare = [&](const auto& o) {
    const pairs_answer y = call(j, x.pairs, o);
    const double terms = loss_terms(type, beta, gamma, x.most);
    j.output("loss", {y.loss}, std::max(terms, share * x.most));
    j.output("per_sequence_loss", y.pair_loss, terms);
    j.output("chosen_logps", of_each_pair(j, x.pairs, o, logp_chosen), x.most);
    j.output("rejected_logps", of_each_pair(j, x.pairs, o, logp_rejected), x.most);
    compare_logits_gradient(j, x, y.d_logp);
  };
  const double d = static_cast<double>(pairs), smoothing = c.number("label_smoothing", 0);
  auto options = plumb::presets::trl().tpo(type, {.beta = beta, .label_smoothing = smoothing, .gamma = gamma});
  std::visit(
      [&](auto& o) {
        o.likelihood = likelihood;
        o.denominator = d;
        compare(o);
      },
      options);
};

// Liger from hidden states: labels lie at their rows, chosen rows first; log-probabilities are averaged.
struct liger_pairs_of {
  linear_call policy;
  token_logp_answer forward;
  pairs_call pairs;
};
template <class Job>
liger_pairs_of liger_pairs(Job& j) {
  const golden_case& c = j.c;
  const array& input = c.input("input", {0, 0, 0});
  const std::size_t rows = input.shape[0], columns = input.shape[1], width = input.shape[2];
  const array& weight = c.input("weight", {0, width});
  const std::size_t vocabulary = weight.shape[0];
  liger_pairs_of x{
      {.hidden = input.data, .head = weight.data, .rows = rows * columns, .width = width, .vocabulary = vocabulary}, {}, {}};
  x.policy.targets = to_ids(c.input("target", {rows, columns}).data, c.number("ignore_index"));
  if (c.has_input("bias")) x.policy.bias = c.input("bias", {vocabulary}).data;
  x.forward = call(j, x.policy);
  x.pairs.logp = x.forward.logp;
  x.pairs.sequences = padded(rows, columns, not_ignored(x.policy.targets));
  pair_halves(x.pairs, rows / 2);
  return x;
}
template <class Job>
void compare_liger(Job& j, const liger_pairs_of& x, const auto& o, const pairs_answer& y, double loss, double nll_loss, double share,
                   const linear_gradients& g, double slope) {
  const double logit = largest_logit_term(x.policy) * static_cast<double>(x.policy.width), reward = o.beta * logit;
  j.output("loss", {loss}, std::max(reward, share * logit));
  j.output("nll_loss", {nll_loss}, logit);
  j.output("chosen_logps", of_each_pair(j, x.pairs, o, logp_chosen), logit);
  j.output("rejected_logps", of_each_pair(j, x.pairs, o, logp_rejected), logit);
  j.output("chosen_rewards", of_each_pair(j, x.pairs, o, reward_chosen), reward);
  j.output("rejected_rewards", of_each_pair(j, x.pairs, o, reward_rejected), reward);
  if (y.metrics.size() > log_odds) {
    j.output("log_odds_ratio", {y.metrics[log_sigmoid_odds]}, logit);
    j.output("log_odds_chosen", {y.metrics[log_odds]}, logit);
  }
  for (const char* name : {"chosen_logits_mean", "rejected_logits_mean"}) j.leave_out(name, no_such_log);
  j.gradient("d_loss/d_input", g.d_hidden, slope * largest(x.policy.head));
  j.gradient("d_loss/d_weight", g.d_head, slope * largest(x.policy.hidden));
  if (!x.policy.bias.empty()) j.gradient("d_loss/d_bias", g.d_bias, slope);
}
constexpr auto liger_simpo = [](auto& j) {
  const golden_case& c = j.c;
  const liger_pairs_of x = liger_pairs(j);
  const double share = c.number("alpha");
  const plumb::simpo_options o{.beta = c.number("beta"),
                               .gamma = c.number("gamma"),
                               .label_smoothing = c.number("label_smoothing"),
                               .likelihood = {.weight = share, .denominator = x.pairs.chosen_tokens()},
                               .denominator = static_cast<double>(x.pairs.pairs())};
  const pairs_answer y = call(j, x.pairs, o);
  compare_liger(j, x, o, y, y.loss, y.metrics[nll], share, backward(j, x.policy, x.forward, y.d_logp), largest(y.d_logp));
};
// `nll_target` are other tokens than the labels: the likelihood term is a loss of its own then.
constexpr auto liger_orpo = [](auto& j) {
  const golden_case& c = j.c;
  const liger_pairs_of x = liger_pairs(j);
  const bool own_targets = c.has_input("nll_target");
  const plumb::orpo_options o{.beta = c.number("beta"),
                              .likelihood = {.weight = own_targets ? 0.0 : 1.0, .denominator = x.pairs.chosen_tokens()},
                              .denominator = static_cast<double>(x.pairs.pairs())};
  const pairs_answer y = call(j, x.pairs, o);
  linear_gradients g = backward(j, x.policy, x.forward, y.d_logp);
  double loss = y.loss, nll_loss = y.metrics[nll], slope = largest(y.d_logp);
  if (own_targets) {
    const std::vector<std::size_t>& shape = c.input("target", {0, 0}).shape;
    linear_call likely = x.policy;
    likely.targets = to_ids(c.input("nll_target", shape).data, c.number("ignore_index"));
    const token_logp_answer forward = call(j, likely);
    const layout_arrays chosen = padded(shape[0], shape[1], not_ignored(likely.targets)).some(0, x.pairs.pairs());
    const supervised_answer s = call(
        j, supervised_call{.logp = forward.logp, .sequences = chosen, .denominator = static_cast<double>(plumb::count_scored(chosen.get()))});
    const linear_gradients more = backward(j, likely, forward, s.d_logp);
    g = {plus(g.d_hidden, more.d_hidden), plus(g.d_head, more.d_head), plus(g.d_bias, more.d_bias)};
    loss += s.loss;
    nll_loss = s.loss;
    slope = std::max(slope, largest(s.d_logp));
  }
  compare_liger(j, x, o, y, loss, nll_loss, 1, g, slope);
};

// Online: TRL pads with log-probabilities of 0, which count for nothing.
constexpr auto trl_xpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& own = c.input("model_logprobs_model_data", {0, 0});
  const std::size_t rows = own.shape[0], columns = own.shape[1];
  pairs_call in{.logp = joined(own.data, c.input("model_logprobs_ref_data", own.shape).data)};
  in.ref_logp = joined(c.input("ref_logprobs_model_data", own.shape).data, c.input("ref_logprobs_ref_data", own.shape).data);
  in.sequences = padded(2 * rows, columns, {});
  in.others = in.sequences.some(rows, rows);
  pair_halves(in, rows);
  const flags wins = to_flags(c.input("chosen_mask", {rows}).data);
  for (std::size_t p = 0; p < rows; ++p)
    if (wins[p] == 0) std::swap(in.chosen[p], in.rejected[p]);
  const double beta = c.number("beta"), alpha = c.number("alpha");
  const double most = std::max(largest(in.logp), largest(in.ref_logp)) * static_cast<double>(columns);
  const std::string type = c.text("loss_type");
  const auto compare = [&](const auto& o) {
    const pairs_answer y = call(j, in, o);
    const double terms = loss_terms(type, beta, 0, most);
    j.output("loss", {y.loss}, terms);
    j.output("dpo_losses", y.pair_loss, terms);
    numbers explored;
    for (std::size_t p = 0; p < rows; ++p) explored.push_back(-alpha * call(j, in.pair(p), o).sums[nll]);
    j.output("xpo_losses", explored, nothing_cancels);
    const double slope = slope_terms(type, beta, most) / static_cast<double>(rows);
    j.gradient("d_loss/d_model_logprobs_model_data", first_half(y.d_logp), slope);
    j.gradient("d_loss/d_model_logprobs_ref_data", second_half(y.d_logp), slope);
  };
  const double d = static_cast<double>(rows);
  if (type == "sigmoid") compare(plumb::xpo_options<>{{.beta = beta}, alpha, d});
  if (type == "ipo") compare(plumb::xpo_options<plumb::link::ipo>{{.beta = beta}, alpha, d});
};

constexpr auto trl_nash_md = [](auto& j) {
  const golden_case& c = j.c;
  const array& own = c.input("model_logprobs_model_data", {0, 0});
  const std::size_t rows = own.shape[0], columns = own.shape[1];
  const auto logp = reals(j, own.data), ref_logp = reals(j, c.input("ref_logprobs_model_data", own.shape).data),
             probability = reals(j, c.input("probability", {rows}).data);
  auto d_logp = logp;
  std::vector<typename decltype(d_logp)::value_type> loss(1), score(rows), kl(rows);
  const layout_arrays sequences = padded(rows, columns, {});
  scratch_memory scratch(plumb::nash_md_workspace(j.b, sequences.get(), length(logp)));
  const double beta = c.number("beta");
  plumb::nash_md(j.b, scratch.arena, {logp, ref_logp, sequences.get(), probability}, {.beta = beta, .denominator = static_cast<double>(rows)},
                 {.loss = loss, .d_logp = d_logp, .score = score, .kl = kl});
  const double most = std::max(largest(doubles(logp)), largest(doubles(ref_logp)));
  j.output("loss", doubles(loss), most);
  j.output("score", doubles(score), most);
  j.output("kl", doubles(kl), most);
  j.gradient("d_loss/d_model_logprobs_model_data", doubles(d_logp), std::max(0.5, beta * most) / static_cast<double>(rows));
};

const bool registered[] = {
    map_cases({"trl_kto", "KTOTrainer._compute_loss", from_logps, on_each_backend(trl_kto_from_logps)}),
    map_cases({"trl_kto", "KTOTrainer._compute_loss", from_logits, on_each_backend(trl_kto_from_logits)}),
    map_cases({"nemo_kto", "MegatronGPTKTOModel.loss_func", every_case, on_each_backend(nemo_kto)}),
    map_cases({"liger_kto", "LigerFusedLinearKTOLoss", every_case, on_each_backend(liger_kto)}),
    map_cases({"trl_bco", "BCOTrainer.bco_loss", every_case, on_each_backend(trl_bco)}),
    map_cases({"trl_bco", "RunningMoments.update", every_case, on_each_backend(trl_running_moments)}),
    map_cases({"trl_cpo_simpo", "CPOTrainer.cpo_loss", every_case, on_each_backend(trl_cpo_loss)}),
    map_cases({"trl_cpo_simpo", "CPOTrainer.get_batch_loss_metrics", every_case, on_each_backend(trl_cpo_metrics)}),
    map_cases({"trl_orpo", "ORPOTrainer.odds_ratio_loss", every_case, on_each_backend(trl_orpo_loss)}),
    map_cases({"trl_orpo", "ORPOTrainer.get_batch_loss_metrics", every_case, on_each_backend(trl_orpo_metrics)}),
    map_cases({"trl_tpo", "TPOTrainer._compute_loss", every_case, on_each_backend(trl_tpo_links)}),
    map_cases({"liger_orpo_simpo_cpo", "LigerFusedLinearORPOLoss", every_case, on_each_backend(liger_orpo)}),
    map_cases({"liger_orpo_simpo_cpo", "LigerFusedLinearSimPOLoss", every_case, on_each_backend(liger_simpo)}),
    map_cases({"trl_online_preference", "XPOTrainer._compute_losses", every_case, on_each_backend(trl_xpo)}),
    map_cases({"trl_online_preference", "NashMDTrainer._compute_losses", every_case, on_each_backend(trl_nash_md)}),
};

}  // namespace
}  // namespace golden

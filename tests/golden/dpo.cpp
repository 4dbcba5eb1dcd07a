// Direct preference optimisation: the sigmoid loss, plain and with label smoothing, in the dress of every peer; and
// what is the same loss without a reference.
#include "golden/calls.hpp"

namespace golden {
namespace {

using plumb::dpo_options;

// A pair's loss is positive, so the loss is relative to itself; with label smoothing, its gradient is a difference of
// two sigmoids.
constexpr double nothing_cancels = 0;
double gradient_terms(const dpo_options& o) { return o.label_smoothing > 0 ? o.beta / o.denominator : 0; }

// What enters log-ratios and rewards: log-probabilities.
double largest_logp(const dpo_pairs_call& in) {
  return std::max({largest(in.chosen), largest(in.rejected), largest(in.ref_chosen), largest(in.ref_rejected)});
}

bool plain(const golden_case& c) { return !c.flag("ipo", false); }

// The first half of the sequences against the second.
void pair_halves(dpo_call& in, std::size_t sequences) {
  for (std::size_t p = 0; p < sequences / 2; ++p) {
    in.chosen.push_back(static_cast<std::int32_t>(p));
    in.rejected.push_back(static_cast<std::int32_t>(sequences / 2 + p));
  }
}

// Peers that average over a reply's tokens, or weigh those beyond the shorter reply: weights of tokens. Our sum of
// weighted log-probabilities is their mean, and the gradient goes back through the same weights.
numbers mean_weights(const layout_arrays& l, std::size_t tokens) {
  numbers w(tokens);
  for (std::size_t s = 0; s < l.begin.size(); ++s)
    for (std::size_t t = static_cast<std::size_t>(l.begin[s]); t < static_cast<std::size_t>(l.end[s]); ++t)
      w[t] = l.counts(t) ? 1 / l.count(s) : 0;
  return w;
}
dpo_call weighted(dpo_call in, const numbers& w) {
  in.logp = times(in.logp, w);
  if (!in.ref_logp.empty()) in.ref_logp = times(in.ref_logp, w);
  return in;
}

// The supervised term that several peers add: over the chosen replies, which come first.
layout_arrays chosen_replies(const dpo_call& in) { return in.sequences.some(0, in.pairs()); }
template <class Job>
supervised_answer supervised_of_chosen(Job& j, const dpo_call& in, double denominator) {
  return call(j, supervised_call{.logp = in.logp, .sequences = chosen_replies(in), .denominator = denominator});
}
double chosen_tokens(const dpo_call& in) { return static_cast<double>(plumb::count_scored(chosen_replies(in).get())); }

// Summed log-probabilities: OpenRLHF, DR-PO.
struct pairs_names {
  const char *chosen, *rejected, *ref_chosen, *ref_rejected, *reward_chosen, *reward_rejected;
};
constexpr pairs_names openrlhf_names{"policy_chosen_logps",      "policy_rejected_logps", "reference_chosen_logps",
                                     "reference_rejected_logps", "chosen_rewards",        "rejected_rewards"};
constexpr pairs_names drpo_names{"chosen_logps",       "rejected_logps",   "ref_chosen_logps",
                                 "ref_rejected_logps", "reward_preferred", "reward_rejected"};

template <const pairs_names& names>
constexpr auto from_sums = [](auto& j) {
  const golden_case& c = j.c;
  dpo_pairs_call in{.chosen = c.input(names.chosen, {0}).data};
  const std::vector<std::size_t> shape{in.pairs()};
  in.rejected = c.input(names.rejected, shape).data;
  in.ref_chosen = c.input(names.ref_chosen, shape).data;
  in.ref_rejected = c.input(names.ref_rejected, shape).data;
  in.options = {.beta = c.number("beta"),
                .label_smoothing = c.number("label_smoothing", 0),
                .denominator = static_cast<double>(in.pairs())};
  const dpo_answer y = call(j, in);
  j.output("loss", {y.loss}, nothing_cancels);
  const double reward = in.options.beta * largest_logp(in);
  j.output(names.reward_chosen, of_each_pair(j, in, reward_chosen), reward);
  j.output(names.reward_rejected, of_each_pair(j, in, reward_rejected), reward);
  const std::string by = "d_loss/d_";
  j.gradient(by + names.chosen, y.d_chosen, gradient_terms(in.options));
  j.gradient(by + names.rejected, y.d_rejected, gradient_terms(in.options));
};


// SPIN is DPO between the data and the model of the iteration before; NeMo returns one loss per pair.
constexpr auto nemo_spin = [](auto& j) {
  const golden_case& c = j.c;
  const array& logps = c.input("pi_logprobs", {0, 0});
  const std::size_t rows = logps.shape[0], columns = logps.shape[1];
  dpo_call in{.logp = logps.data,
              .ref_logp = c.input("ref_logprobs", logps.shape).data,
              .sequences = padded(rows, columns, to_flags(c.input("masks", logps.shape).data))};
  pair_halves(in, rows);
  in.options = {.beta = c.number("ref_policy_kl_penalty"), .denominator = 1};
  const numbers cot = c.input("cot_loss_per_pair", {in.pairs()}).data;
  const numbers weight =
      c.flag("average_log_probs", false) ? mean_weights(in.sequences, in.logp.size()) : numbers(in.logp.size(), 1);
  const dpo_answer y = call(j, weighted(in, weight));
  j.output("loss_per_pair", y.pair_loss, nothing_cancels);
  j.output("acc", {y.metrics[accuracy]}, nothing_cancels);
  numbers d_logp = times(weight, y.d_logp);
  for (std::size_t i = 0; i < d_logp.size(); ++i) d_logp[i] *= cot[i / columns % in.pairs()];
  j.gradient("d_loss_per_pair/d_pi_logprobs", d_logp, nothing_cancels);
};

// OpenRLHF's sums and means of a reply's log-probabilities: the supervised losses of each sequence, negated. What
// counts is attended to and comes after the prompt; column t belongs to position t + 1.
constexpr auto openrlhf_batch_logps = [](auto& j) {
  const golden_case& c = j.c;
  const array& logps = c.input("per_token_logps", {0, 0});
  const std::size_t rows = logps.shape[0], columns = logps.shape[1];
  flags scored = to_flags(without_first_column(c.input("attention_mask", {rows, columns + 1}).data, rows, columns + 1));
  const ids prompts = to_ids(c.input("prompt_lens", {rows}).data);
  for (std::size_t t = 0; t < scored.size(); ++t)
    if (static_cast<std::int32_t>(t % columns) + 1 < prompts[t / columns]) scored[t] = 0;
  const layout_arrays sequences = padded(rows, columns, scored);
  const auto compare = [&](const std::string& name, plumb::aggregation how) {
    const numbers cot = c.input("cot_" + name, {rows}).data;
    numbers values, d_logp(logps.data.size());
    for (std::size_t s = 0; s < rows; ++s) {
      const supervised_answer y = call(j, supervised_call{logps.data, sequences.sequence(s), how, 1});
      values.push_back(-y.loss);
      d_logp = plus(d_logp, scaled(y.d_logp, -cot[s]));
    }
    j.output(name, values, largest(logps.data));
    j.gradient("d_" + name + "/d_per_token_logps", d_logp, nothing_cancels);
  };
  compare("logps_sum", plumb::aggregation::token_mean);
  compare("logps_mean", plumb::aggregation::sequence_mean);
};

constexpr const char* no_such_log = "a statistic of raw logits that the peer logs; no result of plumb's";

// Without a reference, from logits: row t predicts label t + 1. Chosen rows come first, then rejected ones, then, where
// there are any, others that only the supervised term reads.
struct unreferenced {
  token_logp_call policy;
  token_logp_answer forward{};
  dpo_call pairs{};
};
template <class Job>
unreferenced unreferenced_pairs(Job& j, const array& logits, const ids& labels, std::size_t pairs) {
  const golden_case& c = j.c;
  const std::size_t rows = logits.shape[0], columns = logits.shape[1];
  unreferenced x{.policy = rows_of(logits)};
  for (std::size_t t = 0; t < labels.size(); ++t)
    x.policy.targets.push_back((t + 1) % columns == 0 ? -1 : labels[t + 1]);
  x.forward = call(j, x.policy);
  x.pairs = {.logp = x.forward.logp,
             .sequences = padded(rows, columns, not_ignored(x.policy.targets)),
             .options = {.beta = c.number("beta"),
                         .label_smoothing = c.number("label_smoothing"),
                         .reference_free = true,
                         .denominator = static_cast<double>(pairs)}};
  pair_halves(x.pairs, 2 * pairs);
  return x;
}
// The loss and its gradient, with `share` of the supervised term.
template <class Job>
void compare_unreferenced(Job& j, const unreferenced& x, const dpo_answer& y, const supervised_answer& s,
                          double share) {
  const double logit = largest(x.policy.logits);
  j.output("loss", {y.loss + share * s.loss}, logit);
  j.output("chosen_logps", of_each_pair(j, x.pairs, logp_chosen), logit);
  j.output("rejected_logps", of_each_pair(j, x.pairs, logp_rejected), logit);
  const numbers d_logp = plus(y.d_logp, scaled(s.d_logp, share));
  j.gradient("d_loss/d_logits", backward(j, x.policy, x.forward, d_logp),
             spread_rows(magnitudes(d_logp), x.policy.vocabulary));
}



// Liger's CPO from hidden states: labels lie at their rows (no shift), all chosen first. The NLL term is the token mean over
// the chosen, always added.
constexpr auto liger_cpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& input = c.input("input", {0, 0, 0});
  const std::size_t rows = input.shape[0], columns = input.shape[1], width = input.shape[2];
  const array& weight = c.input("weight", {0, width});
  const std::size_t vocabulary = weight.shape[0];
  linear_call policy{
      .hidden = input.data, .head = weight.data, .rows = rows * columns, .width = width, .vocabulary = vocabulary};
  policy.targets = to_ids(c.input("target", {rows, columns}).data, c.number("ignore_index"));
  if (c.has_input("bias")) policy.bias = c.input("bias", {vocabulary}).data;
  const token_logp_answer forward = call(j, policy);
  const double logit = largest_logit_term(policy);
  dpo_call sums{.logp = forward.logp,
                .sequences = padded(rows, columns, not_ignored(policy.targets)),
                .options = {.beta = c.number("beta"),
                            .label_smoothing = c.number("label_smoothing"),
                            .reference_free = true,
                            .denominator = static_cast<double>(rows / 2)}};
  pair_halves(sums, rows);
  const numbers share =
      c.flag("average_log_prob", false) ? mean_weights(sums.sequences, sums.logp.size()) : numbers(sums.logp.size(), 1);
  const dpo_call in = weighted(sums, share);
  const dpo_answer y = call(j, in);
  double loss = y.loss;
  numbers d_logp = times(share, y.d_logp);

  const double alpha = c.flag("compute_nll_loss", true) ? c.number("alpha") : 0;
  const supervised_answer s = supervised_of_chosen(j, sums, chosen_tokens(sums));
  loss += alpha * s.loss;
  d_logp = plus(d_logp, scaled(s.d_logp, alpha));

  j.output("loss", {loss}, in.options.beta * logit);
  j.output("nll_loss", {alpha > 0 ? s.loss : 0}, alpha * logit);  // not computed without the flag: 0
  j.output("chosen_logps", of_each_pair(j, in, logp_chosen), logit);
  j.output("rejected_logps", of_each_pair(j, in, logp_rejected), logit);
  j.output("chosen_rewards", of_each_pair(j, in, reward_chosen), in.options.beta * logit);
  j.output("rejected_rewards", of_each_pair(j, in, reward_rejected), in.options.beta * logit);
  for (const char* name : {"chosen_logits_mean", "rejected_logits_mean"}) j.leave_out(name, no_such_log);
  const linear_gradients g = backward(j, policy, forward, d_logp);
  j.gradient("d_loss/d_input", g.d_hidden, largest(d_logp) * largest(policy.head));
  j.gradient("d_loss/d_weight", g.d_head, largest(d_logp) * largest(policy.hidden));
  if (!policy.bias.empty()) j.gradient("d_loss/d_bias", g.d_bias, largest(d_logp));
};


const bool registered[] = {
    map_cases({"openrlhf_dpo", "DPOLoss.forward", plain, on_each_backend(from_sums<openrlhf_names>)}),
    map_cases({"openrlhf_dpo", "DPOTrainer._get_batch_logps", every_case, on_each_backend(openrlhf_batch_logps)}),
    map_cases({"drpo_dpo", "__main__ (statements at lines 494-503)", plain, on_each_backend(from_sums<drpo_names>)}),
    map_cases({"nemo_spin", "MegatronGPTSPINModel.loss_func", every_case, on_each_backend(nemo_spin)}),
    map_cases({"liger_orpo_simpo_cpo", "LigerFusedLinearCPOLoss", every_case, on_each_backend(liger_cpo)}),
};

}  // namespace
}  // namespace golden

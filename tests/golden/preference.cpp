// The paired losses with a reference, in the dress of every peer that has them: TRL's whole list, from tokens and from logits, with divergences and
// mixtures; NeMo-Aligner's, reward-aware ones among them; IPO of OpenRLHF and DR-PO; Liger's from hidden states.
#include "golden/preference_calls.hpp"

namespace golden {
namespace {

using plumb::pair_matching;
using plumb::reply_score;
namespace link = plumb::link;
namespace divergence = plumb::divergence;

constexpr double nothing_cancels = 0;

// The first half of the sequences against the second, or neighbours: chosen, rejected, chosen, ...
void pair_halves(preference_call& in, std::size_t sequences) {
  for (std::size_t p = 0; p < sequences / 2; ++p) {
    in.chosen.push_back(static_cast<std::int32_t>(p));
    in.rejected.push_back(static_cast<std::int32_t>(sequences / 2 + p));
  }
  in.denominator = static_cast<double>(in.pairs());
}
void pair_neighbours(preference_call& in, std::size_t sequences) {
  for (std::size_t p = 0; p < sequences / 2; ++p) {
    in.chosen.push_back(static_cast<std::int32_t>(2 * p));
    in.rejected.push_back(static_cast<std::int32_t>(2 * p + 1));
  }
  in.denominator = static_cast<double>(in.pairs());
}

// The supervised term that several peers add: over the chosen replies, wherever they lie.
layout_arrays chosen_replies(const preference_call& in) {
  layout_arrays l{.scored = in.sequences.scored};
  for (std::int32_t s : in.chosen) {
    l.begin.push_back(in.sequences.begin[static_cast<std::size_t>(s)]);
    l.end.push_back(in.sequences.end[static_cast<std::size_t>(s)]);
  }
  return l;
}

// What the peers' presets are, as a term of ours.
divergence_choice divergence_of(const plumb::presets::any_divergence& d) {
  return std::visit(
      []<class D>(const D& x) -> divergence_choice {
        if constexpr (std::is_same_v<D, divergence::reverse_kl>) return x;
        else return any_divergence{x};
      },
      d);
}
preference_term term_of(const plumb::presets::pair_loss& p) {
  return {.link = p.link, .divergence = divergence_of(p.divergence), .score = p.options.score, .matching = p.options.matching};
}
plumb::presets::pair_settings trl_settings(const golden_case& c) {
  plumb::presets::pair_settings s{.beta = c.number("beta"), .label_smoothing = c.number("label_smoothing", 0)};
  s.discopop_tau = c.number("discopop_tau", s.discopop_tau);
  s.f_alpha_divergence_coef = c.number("f_alpha_divergence_coef", s.f_alpha_divergence_coef);
  return s;
}

// What TRL's loss is the sum of, each with its weight: 1 unless given. `sft` is another objective.
struct trl_loss {
  std::vector<preference_term> terms{};
  std::vector<std::string> names{};
  double sft = 0;
};
trl_loss trl_loss_of(const golden_case& c) {
  trl_loss y;
  const std::string divergence_name = c.is_set("f_divergence_type") ? c.text("f_divergence_type") : "reverse_kl";
  const plumb::presets::pair_settings said = trl_settings(c);
  const nlohmann::json& types = c.options.at("loss_types");
  for (std::size_t i = 0; i < types.size(); ++i) {
    const double weight = c.is_set("loss_weights") ? c.options.at("loss_weights").at(i).get<double>() : 1;
    const std::string name = types[i];
    if (name == "sft") {
      y.sft = weight;
      continue;
    }
    y.names.push_back(name);
    const bool halves = name == "apo_down" && divergence_name != "reverse_kl";
    preference_term t = term_of(halves ? plumb::presets::trl().apo_down_margin(said, divergence_name) : plumb::presets::trl().dpo(name, said, divergence_name));
    t.weight = weight;
    y.terms.push_back(t);
    if (const auto* down = std::get_if<link::apo_down>(&t.link); down != nullptr && down->chosen_share == 0) {
      t = term_of(plumb::presets::trl().apo_down_chosen(said));
      t.weight = weight;
      y.terms.push_back(t);
    }
  }
  if (y.terms.empty()) y.terms = {{.link = link::sigmoid{.beta = c.number("beta")}, .weight = 0}};  // for the logs
  return y;
}

// What TRL logs of pairs is of log-ratios of sums.
preference_call of_sums(preference_call in, const golden_case& c) {
  in.terms = {{.link = link::sigmoid{.beta = c.number("beta")}}};
  return in;
}

// How much larger than its own rounding that of the scores is in a loss of each pair: in its tail, e^-z of a z of that size. A loss of the margin has
// only one, z > 0; on the other side it is a line, or the gradient's share of it is beside beta. And a divergence's score is e^x of a log-ratio x.
template <class Job>
numbers steepness(Job& j, const preference_call& in) {
  const preference_call sums = of_sums(in, j.c);
  const numbers rewards = larger(magnitudes(of_each_pair(j, sums, reward_chosen)), magnitudes(of_each_pair(j, sums, reward_rejected)));
  numbers y(in.pairs(), 1);
  for (const preference_term& t : in.terms) {
    const auto [beta, of_margin] = std::visit(
        []<class L>(const L& l) -> std::pair<double, bool> { return {l.beta, requires { L::of_margin; }}; }, t.link);
    numbers z = scaled(score_differences(j, in, t), beta);
    if (!of_margin) z = magnitudes(z);
    if (std::holds_alternative<any_divergence>(t.divergence)) z = larger(z, scaled(rewards, 1 / j.c.number("beta")));
    y = larger(y, t.matching == pair_matching::given ? z : numbers(in.pairs(), largest(z)));
  }
  return y;
}
numbers of_steep(const numbers& x, const numbers& steep, double terms) { return larger(times(magnitudes(x), steep), numbers(x.size(), terms)); }

// TRL gives the losses of AOT in the order of the sorted margins.
numbers in_rising_order(const numbers& x, const numbers& of) {
  std::vector<std::size_t> order(x.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return of[a] < of[b]; });
  numbers y;
  for (std::size_t i : order) y.push_back(x[i]);
  return y;
}

// The largest numbers that enter a pair's loss, and its derivative by a score. Log-ratios and scores are at most `score` in size.
struct entering_loss {
  double loss = 0, slope = 0;
};
entering_loss entering_term(const preference_term& t, double score) {
  entering_loss y = std::visit(
      [&]<class L>(const L& l) -> entering_loss {
        [[maybe_unused]] const double reward = l.beta * score, target = std::max(score, 0.5 / l.beta);
        if constexpr (std::is_same_v<L, link::sigmoid>) return {0, l.label_smoothing > 0 ? l.beta : 0};
        if constexpr (std::is_same_v<L, link::robust>) return {reward, l.beta};
        if constexpr (std::is_same_v<L, link::ipo> || std::is_same_v<L, link::sppo_hard>) return {target, 2 * target};  // of (a - b)^2, of a - b
        if constexpr (std::is_same_v<L, link::rpo_squared>) return {reward, 2 * l.beta * reward};
        if constexpr (std::is_same_v<L, link::nca_pair>) return {0, l.beta};
        if constexpr (std::is_same_v<L, link::hinge>) return {std::max(l.margin, reward), 0};
        if constexpr (std::is_same_v<L, link::discopop>) return {0, l.beta * std::max(1.0, 0.25 / l.tau)};
        // Peers take 1 - s of a sigmoid s, which is 0 from s = 1 - 1e-16 on; ours has its digits.
        if constexpr (std::is_same_v<L, link::apo_zero> || std::is_same_v<L, link::apo_down>) return {1, l.beta};
        // Near its minimum a divergence is the difference of logarithms.
        if constexpr (std::is_same_v<L, link::exo_pair> || std::is_same_v<L, link::rpo_backward_kl>) return {1, l.beta};
        return {};
      },
      t.link);
  return {t.weight * y.loss, t.weight * y.slope};
}
// Of a mixture: all of it cancels against the rest, if only a little.
entering_loss entering_mixture(const std::vector<preference_term>& terms, double score) {
  entering_loss y;
  for (const preference_term& t : terms) {
    const entering_loss one = entering_term(t, score);
    y.loss = std::max(y.loss, one.loss);
    y.slope = std::max(y.slope, one.slope);
  }
  return y;
}

// The same of `rpo_forward_kl`, whose slope has tails on both sides, for each pair.
struct entering_pairs {
  numbers loss, slope;
};
template <class Job>
entering_pairs entering_rpo(Job& j, const preference_call& in, const preference_term& t) {
  const entering_loss one = entering_term(t, std::max({largest(in.logp), largest(in.ref_logp), largest(in.reward_chosen), largest(in.reward_rejected)}));
  entering_pairs y{numbers(in.pairs(), one.loss), numbers(in.pairs(), one.slope)};
  const auto* l = std::get_if<link::rpo_forward_kl>(&t.link);
  if (l == nullptr) return y;
  constexpr double digits_of_peer = 1e-6;  // it takes the difference of logarithms near 1, in double: 1e-16 of that
  const numbers z = scaled(score_differences(j, in, t), l->beta);
  for (std::size_t p = 0; p < in.pairs(); ++p) {
    const double target = l->scale * (in.reward_chosen[p] - in.reward_rejected[p]), size = std::max({1.0, std::fabs(z[p]), std::fabs(target)});
    const double odds = std::exp(-std::fabs(z[p])), steepest = odds / ((1 + odds) * (1 + odds)), apart = std::fabs(z[p] - target);
    y.loss[p] = std::max(digits_of_peer, steepest * apart * size);
    y.slope[p] = l->beta * steepest * std::max(1.0, apart) * size;
  }
  return y;
}
// One number per pair, for the tokens of its two replies.
numbers for_tokens(const preference_call& in, const numbers& per_pair) {
  numbers y(in.logp.size());
  for (std::size_t p = 0; p < in.pairs(); ++p)
    for (std::int32_t reply : {in.chosen[p], in.rejected[p]}) {
      const std::size_t s = static_cast<std::size_t>(reply);
      std::fill(y.begin() + in.sequences.begin[s], y.begin() + in.sequences.end[s], per_pair[p]);
    }
  return y;
}

template <class Job>
void compare_trl(Job& j, const preference_call& in, const trl_loss& loss, const preference_answer& y, const numbers& steep, double logp) {
  const golden_case& c = j.c;
  const double beta = c.number("beta");
  const preference_call sums = of_sums(in, c);
  const numbers chosen = of_each_pair(j, sums, logp_chosen), rejected = of_each_pair(j, sums, logp_rejected);
  const numbers reward_of_chosen = of_each_pair(j, sums, reward_chosen), reward_of_rejected = of_each_pair(j, sums, reward_rejected);
  const preference_answer logs = call(j, sums);
  j.output("chosen_logps", chosen, logp);
  j.output("rejected_logps", rejected, logp);
  j.output("chosen_rewards", reward_of_chosen, beta * logp);
  j.output("rejected_rewards", reward_of_rejected, beta * logp);
  preference_term of_scores;
  const std::string divergence_name = c.is_set("f_divergence_type") ? c.text("f_divergence_type") : "reverse_kl";
  const plumb::presets::pair_settings said = trl_settings(c);
  of_scores.divergence = divergence_of(plumb::presets::trl().f_divergence(divergence_name, said));
  j.output("delta_score", score_differences(j, in, of_scores), logp);
  j.output("reward_accuracy", {logs.metrics[accuracy]}, nothing_cancels);
  j.output("reward_margin", {logs.metrics[margin]}, beta * logp);
  if (c.outputs.count("per_sequence_loss") == 0) return;
  numbers losses = y.pair_loss;
  if (loss.names.size() == 1 && loss.names[0] == "aot") {
    numbers margins;
    for (std::size_t p = 0; p < chosen.size(); ++p) margins.push_back(chosen[p] - rejected[p]);
    losses = in_rising_order(losses, margins);
  }
  if (loss.names.size() == 1 && loss.names[0] == "aot_unpaired") losses = in_rising_order(losses, reward_of_chosen);
  j.output("per_sequence_loss", losses, of_steep(losses, steep, std::max(entering_mixture(in.terms, logp).loss, loss.sft * logp)));
}

// TRL from token log-probabilities; rows are all chosen, then all rejected. `per_token_logps[t]` belongs to position t + 1 of the mask. The reference
// comes as sums: each lies on its reply's first scored token.
constexpr auto trl_dpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& logps = c.input("per_token_logps", {0, 0});
  const std::size_t rows = logps.shape[0], columns = logps.shape[1], pairs = rows / 2;
  const flags mask = to_flags(without_first_column(c.input("completion_mask", {rows, columns + 1}).data, rows, columns + 1));
  const numbers ref = joined(c.input("ref_chosen_logps", {pairs}).data, c.input("ref_rejected_logps", {pairs}).data);
  preference_call in{.logp = logps.data, .ref_logp = zeros(logps.data.size()), .sequences = padded(rows, columns, mask)};
  for (std::size_t r = 0; r < rows; ++r) {
    std::size_t t = r * columns;
    while (t < (r + 1) * columns && !in.sequences.counts(t)) ++t;
    if (t == (r + 1) * columns) c.fail("row " + std::to_string(r) + " of `completion_mask` scores no token");
    in.ref_logp[t] = ref[r];
  }
  pair_halves(in, rows);
  const trl_loss loss = trl_loss_of(c);
  in.terms = loss.terms;
  if (c.is_set("ld_alpha")) in.token_weight = ld_dpo_weights_of(j, in, c.number("ld_alpha"));
  const preference_answer y = call(j, in);
  const double logp = std::max(largest(in.logp), largest(in.ref_logp));
  const entering_loss terms = entering_mixture(in.terms, logp);
  const numbers steep = steepness(j, in);
  compare_trl(j, in, loss, y, steep, logp);
  j.output("loss", {y.loss}, terms.loss);
  j.gradient("d_loss/d_per_token_logps", y.d_logp, of_steep(y.d_logp, spread_rows(joined(steep, steep), columns), terms.slope / in.denominator));
  numbers length_chosen, length_rejected;
  for (std::size_t p = 0; p < pairs; ++p) {
    length_chosen.push_back(in.sequences.count(p));
    length_rejected.push_back(in.sequences.count(pairs + p));
  }
  const preference_call sums = of_sums(in, c);
  const preference_answer z = call(
      j, preference_sums_call{of_each_pair(j, sums, logp_chosen), of_each_pair(j, sums, logp_rejected), first_half(ref), second_half(ref), length_chosen,
                              length_rejected, {}, in.terms, in.denominator});
  j.gradient("d_loss/d_chosen_logps", z.d_chosen, of_steep(z.d_chosen, steep, terms.slope / in.denominator));
  j.gradient("d_loss/d_rejected_logps", z.d_rejected, of_steep(z.d_rejected, steep, terms.slope / in.denominator));
};

constexpr const char* no_such_log = "a statistic of raw logits that the peer logs; no result of plumb's";

// TRL from logits: row t predicts token t + 1; position t + 1 of the mask says whether it counts.
constexpr auto trl_dpo_from_logits = [](auto& j) {
  const golden_case& c = j.c;
  const array& logits = c.input("logits", {0, 0, 0});
  const std::size_t rows = logits.shape[0], columns = logits.shape[1], vocabulary = logits.shape[2];
  const ids tokens = to_ids(c.input("input_ids", {rows, columns}).data);
  const numbers mask = c.input("completion_mask", {rows, columns}).data;
  token_logp_call policy{.logits = logits.data, .rows = rows * columns, .vocabulary = vocabulary};
  flags scored;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const bool last = (t + 1) % columns == 0;
    policy.targets.push_back(last ? -1 : tokens[t + 1]);
    scored.push_back(!last && mask[t + 1] != 0);
  }
  token_logp_call reference = policy;
  reference.logits = c.input("ref_logits", logits.shape).data;
  const token_logp_answer forward = call(j, policy), ref_forward = call(j, reference);
  const double logit = std::max(largest(policy.logits), largest(reference.logits));
  // TRL zeroes what does not count.
  j.output("per_token_logps", without_last_column(times(forward.logp, doubles(scored)), rows, columns), logit);

  preference_call in{.logp = forward.logp, .ref_logp = ref_forward.logp, .sequences = padded(rows, columns, scored)};
  pair_halves(in, rows);
  const trl_loss loss = trl_loss_of(c);
  in.terms = loss.terms;
  if (c.is_set("ld_alpha")) in.token_weight = ld_dpo_weights_of(j, in, c.number("ld_alpha"));
  if (c.flag("use_weighting", false)) in.pair_weight = wpo_weights_of(j, in, policy);
  const preference_answer y = call(j, in);
  const layout_arrays replies = chosen_replies(in);
  const supervised_answer sft = call(
      j, supervised_call{.logp = in.logp, .sequences = replies, .denominator = static_cast<double>(plumb::count_scored(replies.get()))});
  preference_call of_reference = of_sums(in, c);
  of_reference.logp = in.ref_logp;
  j.output("ref_chosen_logps", of_each_pair(j, of_reference, logp_chosen), logit);
  j.output("ref_rejected_logps", of_each_pair(j, of_reference, logp_rejected), logit);

  // sft is the token mean over the chosen replies of the batch, one number for every pair.
  preference_answer with_sft = y;
  with_sft.pair_loss = plus(with_sft.pair_loss, numbers(in.pairs(), loss.sft * sft.loss));
  compare_trl(j, in, loss, with_sft, numbers(in.pairs(), 1), logit);
  j.output("loss", {y.loss + loss.sft * sft.loss}, std::max(entering_mixture(in.terms, logit).loss, loss.sft * logit));
  const numbers d_logp = plus(y.d_logp, scaled(sft.d_logp, loss.sft));
  const double slope = entering_mixture(in.terms, logit).slope / in.denominator;
  const numbers of_token = larger(magnitudes(d_logp), scaled(doubles(scored), slope));
  j.gradient("d_loss/d_logits", backward(j, policy, forward, d_logp), spread_rows(of_token, vocabulary));

  // TRL's entropy log: mean over the scored positions of the batch.
  double entropy = 0, count = 0;
  for (std::size_t t = 0; t < scored.size(); ++t)
    if (scored[t]) entropy += forward.entropy[t], ++count;
  j.output("entropy", {entropy / count}, logit);
  for (const char* name : {"mean_token_accuracy", "logits_chosen", "logits_rejected"}) j.leave_out(name, no_such_log);
};

// NeMo: labels of -100 do not count, a batch has all chosen first; packed sequences alternate, and a padded tail is one entry more of cu_seqlens.
// What it logs is a reward over beta: logp - ref_logp of each sequence. `gt_rewards` lie as the sequences do, padded with -1000.
constexpr auto nemo_dpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& logps = c.input("pi_logprobs", {0, 0});
  const ids labels = to_ids(c.input("labels", logps.shape).data);
  preference_call in{.logp = logps.data, .ref_logp = c.input("ref_logprobs", logps.shape).data};
  numbers rewards;
  if (c.has_input("cu_seqlens")) {
    const ids cu_seqlens = to_ids(c.input("cu_seqlens", {0}).data);
    const std::size_t sequences = (cu_seqlens.size() - 1) / 2 * 2;
    in.sequences.begin.assign(cu_seqlens.begin(), cu_seqlens.begin() + static_cast<std::ptrdiff_t>(sequences));
    in.sequences.end.assign(cu_seqlens.begin() + 1, cu_seqlens.begin() + 1 + static_cast<std::ptrdiff_t>(sequences));
    in.sequences.scored = not_ignored(labels);
    pair_neighbours(in, sequences);
    rewards = c.input("gt_rewards", {1, 0}).data;
  } else {
    in.sequences = padded(logps.shape[0], logps.shape[1], not_ignored(labels));
    pair_halves(in, logps.shape[0]);
    rewards = c.input("gt_rewards", {logps.shape[0]}).data;
  }
  const double beta = c.number("ref_policy_kl_penalty"), scale = c.number("gt_reward_scale");
  const preference_term t = term_of(
      plumb::presets::nemo_aligner().dpo(c.text("preference_loss"), beta, c.flag("average_log_probs", false), scale));
  in.terms = {t};
  for (std::size_t p = 0; p < in.pairs() && t.takes_rewards(); ++p) {
    in.reward_chosen.push_back(rewards.at(static_cast<std::size_t>(in.chosen[p])));
    in.reward_rejected.push_back(rewards.at(static_cast<std::size_t>(in.rejected[p])));
  }
  const preference_answer y = call(j, in);
  // Chosen first, for packed batches too.
  j.output("log_ratio_per_sequence", scaled(joined(of_each_pair(j, in, reward_chosen), of_each_pair(j, in, reward_rejected)), 1 / beta),
           std::max(largest(in.logp), largest(in.ref_logp)));
  j.output("acc_chosen", {y.metrics[accuracy]}, nothing_cancels);
  const entering_pairs entering = entering_rpo(j, in, t);
  j.output("preference_loss", {y.loss}, largest(entering.loss));
  double loss = y.loss, terms = largest(entering.loss);
  numbers d_logp = y.d_logp;
  // The supervised term: log-probabilities of the chosen sequences, summed over tokens, mean over sequences.
  if (c.outputs.count("sft_loss") > 0) {
    const supervised_answer s = call(j, supervised_call{.logp = in.logp, .sequences = chosen_replies(in), .denominator = in.denominator});
    j.output("sft_loss", {s.loss}, largest(in.logp));
    const double share = c.number("sft_loss_weight"), rest = c.number("preference_loss_weight");
    loss = rest * loss + share * s.loss;
    d_logp = plus(scaled(std::move(d_logp), rest), scaled(s.d_logp, share));
    terms = largest(in.logp);
  }
  j.output("loss", {loss}, terms);
  numbers slope = for_tokens(in, entering.slope);
  if (terms > largest(entering.loss)) slope = larger(slope, numbers(slope.size(), beta));
  j.gradient("d_loss/d_pi_logprobs", d_logp, scaled(slope, 1 / in.denominator));
};

// IPO of sums: OpenRLHF, DR-PO.
struct sums_names {
  const char *chosen, *rejected, *ref_chosen, *ref_rejected, *reward_chosen, *reward_rejected;
};
constexpr sums_names openrlhf_names{"policy_chosen_logps",      "policy_rejected_logps", "reference_chosen_logps",
                                    "reference_rejected_logps", "chosen_rewards",        "rejected_rewards"};
constexpr sums_names drpo_names{"chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps", "reward_preferred", "reward_rejected"};

template <const sums_names& names>
constexpr auto ipo_of_sums = [](auto& j) {
  const golden_case& c = j.c;
  preference_sums_call in{.chosen = c.input(names.chosen, {0}).data};
  const std::vector<std::size_t> shape{in.pairs()};
  in.rejected = c.input(names.rejected, shape).data;
  in.ref_chosen = c.input(names.ref_chosen, shape).data;
  in.ref_rejected = c.input(names.ref_rejected, shape).data;
  in.terms = {term_of(plumb::presets::openrlhf().dpo(c.number("beta"), 0, true))};
  in.denominator = static_cast<double>(in.pairs());
  const preference_answer y = call(j, in);
  const double logp = std::max({largest(in.chosen), largest(in.rejected), largest(in.ref_chosen), largest(in.ref_rejected)});
  const entering_loss terms = entering_term(in.terms[0], logp);
  j.output("loss", {y.loss}, terms.loss);
  j.output(names.reward_chosen, of_each_pair(j, in, reward_chosen), c.number("beta") * logp);
  j.output(names.reward_rejected, of_each_pair(j, in, reward_rejected), c.number("beta") * logp);
  const std::string by = "d_loss/d_";
  j.gradient(by + names.chosen, y.d_chosen, terms.slope / in.denominator);
  j.gradient(by + names.rejected, y.d_rejected, terms.slope / in.denominator);
};

// Liger from hidden states: labels lie at their rows (no shift), all chosen first. The NLL term is the token mean over the chosen.
constexpr auto liger_dpo = [](auto& j) {
  const golden_case& c = j.c;
  const array& input = c.input("input", {0, 0, 0});
  const std::size_t rows = input.shape[0], columns = input.shape[1], width = input.shape[2];
  const array& weight = c.input("weight", {0, width});
  const std::size_t vocabulary = weight.shape[0];
  linear_call policy{.hidden = input.data, .head = weight.data, .rows = rows * columns, .width = width, .vocabulary = vocabulary};
  policy.targets = to_ids(c.input("target", {rows, columns}).data, c.number("ignore_index"));
  if (c.has_input("bias")) policy.bias = c.input("bias", {vocabulary}).data;
  const token_logp_answer forward = call(j, policy);
  double logit = largest_logit_term(policy);
  preference_call in{.logp = forward.logp, .sequences = padded(rows, columns, not_ignored(policy.targets)), .reference_free = !c.flag("use_ref_model", true)};
  if (!in.reference_free) {
    linear_call reference = policy;
    reference.hidden = c.input("ref_input", input.shape).data;
    reference.head = c.input("ref_weight", weight.shape).data;
    if (c.has_input("bias")) reference.bias = c.input("ref_bias", {vocabulary}).data;
    in.ref_logp = call(j, reference).logp;
    logit = std::max(logit, largest_logit_term(reference));
  }
  pair_halves(in, rows);
  preference_term t = term_of(plumb::presets::liger().dpo(c.text("loss_type"), trl_settings(c)));
  t.score = c.flag("average_log_prob", false) ? reply_score::mean : reply_score::sum;
  in.terms = {t};
  const preference_answer y = call(j, in);
  const double beta = c.number("beta"), alpha = c.flag("compute_nll_loss", false) ? c.number("alpha") : 0;
  const layout_arrays replies = chosen_replies(in);
  const supervised_answer s = call(
      j, supervised_call{.logp = in.logp, .sequences = replies, .denominator = static_cast<double>(plumb::count_scored(replies.get()))});
  const numbers d_logp = plus(y.d_logp, scaled(s.d_logp, alpha));
  const entering_loss terms = entering_term(t, logit);
  const numbers of_token = larger(magnitudes(d_logp), numbers(d_logp.size(), terms.slope / in.denominator));
  j.output("loss", {y.loss + alpha * s.loss}, std::max(terms.loss, beta * logit));
  j.output("nll_loss", {alpha > 0 ? s.loss : 0}, alpha * logit);  // not computed without the flag: 0
  j.output("chosen_logps", of_each_pair(j, in, logp_chosen), logit);
  j.output("rejected_logps", of_each_pair(j, in, logp_rejected), logit);
  j.output("chosen_rewards", of_each_pair(j, in, reward_chosen), beta * logit);
  j.output("rejected_rewards", of_each_pair(j, in, reward_rejected), beta * logit);
  for (const char* name : {"chosen_logits_mean", "rejected_logits_mean"}) j.leave_out(name, no_such_log);
  const linear_gradients g = backward(j, policy, forward, d_logp);
  j.gradient("d_loss/d_input", g.d_hidden, largest(of_token) * largest(policy.head));
  j.gradient("d_loss/d_weight", g.d_head, largest(of_token) * largest(policy.hidden));
  if (!policy.bias.empty()) j.gradient("d_loss/d_bias", g.d_bias, largest(of_token));
};

bool is_ipo(const golden_case& c) { return c.flag("ipo", false); }

constexpr case_runner trl = on_each_backend(trl_dpo), nemo = on_each_backend(nemo_dpo);

const bool registered[] = {
    map_cases({"trl_dpo_losses", "DPOTrainer._compute_loss", every_case, trl}),
    map_cases({"trl_dpo_extreme", "DPOTrainer._compute_loss", every_case, trl}),
    map_cases({"trl_dpo_fdivergence", "DPOTrainer._compute_loss", every_case, trl}),
    map_cases({"trl_dpo_from_logits", "DPOTrainer._compute_loss", every_case, on_each_backend(trl_dpo_from_logits)}),
    map_cases({"nemo_dpo", "MegatronGPTDPOModel.loss_func", every_case, nemo}),
    map_cases({"nemo_dpo", "MegatronGPTDPOModel.loss_func, sft_loss_func", every_case, nemo}),
    map_cases({"openrlhf_dpo", "DPOLoss.forward", is_ipo, on_each_backend(ipo_of_sums<openrlhf_names>)}),
    map_cases({"drpo_dpo", "__main__ (statements at lines 494-503)", is_ipo, on_each_backend(ipo_of_sums<drpo_names>)}),
    map_cases({"liger_dpo", "LigerFusedLinearDPOLoss", every_case, on_each_backend(liger_dpo)}),
};

}  // namespace
}  // namespace golden

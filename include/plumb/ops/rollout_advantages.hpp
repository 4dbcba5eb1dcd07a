#pragma once
// From what a rollout brought to the numbers that a policy and a critic are trained on: KL penalty and score become rewards, rewards become
// advantages and returns. The half of PPO, GRPO, RLOO and REINFORCE++ that knows no model; `policy_loss` and `value_loss` are the other.

#include <plumb/ops/gae.hpp>
#include <plumb/ops/group_advantage.hpp>
#include <plumb/ops/kl.hpp>
#include <plumb/ops/reinforce_plus_plus.hpp>
#include <plumb/ops/token_rewards.hpp>
#include <plumb/ops/whiten.hpp>

PLUMB_NAMESPACE_BEGIN

namespace advantage {

// Beside the formulas of one reward per reply (math/group_advantage.hpp), which take the score less the summed KL penalty:

/// Generalised advantage estimation of the rewards per token, then whitened over all tokens: PPO (arXiv:2203.02155). Needs a critic.
struct gae {
  double gamma = 1;
  double lambda = 0.95;
  bool whiten = true;           ///< the advantages; the returns stay as they are
  /// The rewards per token before that, their mean kept (DR-PO's code). Where rewards are rare, what is kept of the mean is a price of every token:
  /// replies end at once (docs/demos/drpo.md shows it).
  bool whiten_rewards = false;
  whiten_options whitening{};   ///< of both; `shift_mean` is set: advantages lose their mean, rewards keep it

  static constexpr bool needs_values = true;
  gae_options scan() const { return {.gamma = gamma, .lambda = lambda}; }
  void require(const char* op) const {
    scan().require(op);
    whitening.require(op);
  }
};

/// Discounted sums of the rewards per token from each token on, whitened over all tokens: REINFORCE++ (arXiv:2501.03262, section 3.1).
struct reinforce_plus_plus {
  double gamma = 1;
  whiten_options whitening{};

  void require(const char* op) const { reinforce_plus_plus_options{.gamma = gamma, .whiten = whitening}.require(op); }
};

/// A reply's reward less its group's mean, at each token, whitened over all tokens (there, section 3.2).
struct reinforce_plus_plus_baseline {
  whiten_options whitening{};

  void require(const char* op) const { whitening.require(op); }
};

}  // namespace advantage

/// Whether an advantage is made of values, so that there has to be a critic.
template <class Advantage>
inline constexpr bool needs_critic = requires { requires Advantage::needs_values; };

/// Whether an advantage compares replies to one prompt, so that the replies of a group have to begin alike.
template <class Advantage>
inline constexpr bool needs_groups = !needs_critic<Advantage> && !std::is_same_v<Advantage, advantage::reinforce_plus_plus>;

/// Options of `rollout_advantages`, beside the advantage.
struct rollout_advantages_options {
  kl_estimate kl{.estimator = kl_estimator::k1};  ///< the penalty in the reward; its gradient is not used
  token_rewards_options rewards{};                ///< the KL coefficient, where the score lands, what becomes of replies that did not end

  void require(const char* op) const {
    kl.require(op, "kl.");
    rewards.require(op);
  }
};

/// Flat arrays of `M` tokens that the policy wrote, `S` replies.
template <class Real, class Space = host_space>
struct rollout_advantages_inputs {
  view<const Real, 1, Space> logp{};       ///< `[M]`, of the policy that wrote them
  view<const Real, 1, Space> ref_logp{};   ///< `[M]`; not given: no KL penalty
  view<const Real, 1, Space> score{};      ///< `[S]`
  view<const std::uint8_t, 1, Space> ended{};  ///< `[S]`; not given: all ended; needed with `bootstrap`
  view<const Real, 1, Space> values{};     ///< `[M]`, of the state before each token; `advantage::gae` alone
  /// `[S]`, the value after the last token; 0 for replies that ended; likewise. It stands in for the score of a reply that was cut off: such a reply
  /// is worth this and no score, since the critic's values already foresee the score of what it would have become. Not given: it keeps its score.
  view<const Real, 1, Space> bootstrap{};
  sequence_layout<Space> sequences{};      ///< over the tokens
  sequence_layout<Space> groups{};         ///< over the replies, those to one prompt side by side; formulas of groups alone
  /// `[S]` each, where the replies are not in the order of the groups: `prompt_groups::order` and `place`. Not given: they are.
  view<const std::int32_t, 1, Space> order{}, place{};
};
/// Outputs that are not given are not computed, but for `advantages`. May overlap nothing.
template <class Real, class Space = host_space>
struct rollout_advantages_outputs {
  view<Real, 1, Space> advantages{};  ///< `[M]`
  view<Real, 1, Space> returns{};     ///< `[M]`, what the critic is trained on; `advantage::gae` alone
  view<Real, 1, Space> kl{};          ///< `[M]`, the estimates; 0 without a reference
  view<Real, 1, Space> scores{};      ///< `[S]`, as they landed
};

/// Bytes of arena that `rollout_advantages` takes.
template <class B>
std::size_t rollout_advantages_workspace(const B& b, const rollout_advantages_inputs<real_of<B>, space_of<B>>& in) {
  using real = real_of<B>;
  const index_t tokens = in.logp.extent(0), replies = in.sequences.sequences();
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(tokens);
  for (int i = 0; i < 5; ++i) w.template add<real>(replies);
  return w.add_bytes(std::max({token_kl_workspace(b, tokens), token_rewards_workspace(b, in.sequences, tokens), gae_workspace(b, tokens),
                               whiten_workspace(b, in.sequences, tokens), group_advantage_workspace(b, in.groups, replies),
                               reinforce_plus_plus_workspace(b, in.sequences, tokens)}))
      .bytes();
}

/// Rewards per token: `-coefficient KL_t`, and the score at the last token (`token_rewards`). `advantage` makes advantages of them:
/// `advantage::gae`, `reinforce_plus_plus`, or a formula of one reward per reply (`grpo`, `rloo`, `centered`, ..., `reinforce_plus_plus_baseline`),
/// for which the reward is the score less the coefficient times the reply's KL, spread over its tokens. With `bootstrap`, the score of one that did
/// not end counts as 0 before `unfinished_scale` and the rest change it: the offset alone remains. A reply without tokens still counts in its group.
/// Whitening and formulas of the batch are over all ranks. Enqueues and returns; nothing is allocated.
template <class B, communicator_for<B> C, class Advantage>
  requires has_backend_types<B>
void rollout_advantages(B& b, arena_of<B>& scratch, C& ranks, const rollout_advantages_inputs<real_of<B>, space_of<B>>& in,
                        const Advantage& advantage, const rollout_advantages_options& options,
                        const rollout_advantages_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "rollout_advantages";
  constexpr bool of_tokens = !needs_groups<Advantage>;
  const index_t tokens = in.logp.extent(0), replies = in.sequences.sequences();
  require_arguments(op, {{"advantages", out.advantages}, {"returns", out.returns}, {"kl", out.kl}, {"scores", out.scores}},
                    {{"logp", in.logp}, {"ref_logp", in.ref_logp}, {"score", in.score}, {"ended", in.ended}, {"values", in.values},
                     {"bootstrap", in.bootstrap}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored},
                     {"groups.begin", in.groups.begin}, {"groups.end", in.groups.end}, {"groups.scored", in.groups.scored}, {"order", in.order},
                     {"place", in.place}});
  options.require(op);
  if constexpr (requires { advantage.require(op); }) advantage.require(op);
  require_sequences(op, in.sequences, tokens);
  require_given(op, "advantages", out.advantages, tokens > 0);
  require_given(op, "score", in.score, replies > 0);
  require_extent(op, "score", in.score, 0, replies, "the number of sequences");
  require_same_shape(op, "advantages", out.advantages, "logp", in.logp);
  for (const auto& [name, v] : {std::pair{"ref_logp", in.ref_logp}, {"values", in.values}, {"returns", as_const(out.returns)},
                                {"kl", as_const(out.kl)}})
    if (v.given()) require_same_shape(op, name, v, "logp", in.logp);
  for (const auto& [name, v] : {std::pair{"bootstrap", in.bootstrap}, {"scores", as_const(out.scores)}})
    if (v.given()) require_extent(op, name, v, 0, replies, "the number of sequences");
  if (in.ended.given()) require_extent(op, "ended", in.ended, 0, replies, "the number of sequences");
  if (in.bootstrap.given() && !in.ended.given() && replies > 0)
    fail(message(op) << "argument `bootstrap` is given, but not `ended`, which says whose score it stands in for. Nothing was written.");
  if constexpr (needs_critic<Advantage>) {
    require_given(op, "values", in.values, tokens > 0);
  } else if (in.values.given() || in.bootstrap.given() || out.returns.given()) {
    fail(message(op) << "`values`, `bootstrap` and `returns` go with `advantage::gae`; this advantage has no use for them. Nothing was written.");
  }
  if constexpr (!of_tokens) {
    detail::require_groups(op, in.groups, replies);
    if (in.order.given() || in.place.given()) {
      require_extent(op, "order", in.order, 0, replies, "the number of sequences");
      require_extent(op, "place", in.place, 0, replies, "the number of sequences");
    }
  }
  if (!in.ref_logp.given() && options.rewards.kl_coefficient != 0 && tokens > 0)
    fail(message(op) << "argument `ref_logp` is not given, but `kl_coefficient` is " << options.rewards.kl_coefficient << ". Nothing was written.");
  scratch.require(op, rollout_advantages_workspace(b, in));
  typename arena_of<B>::frame frame(scratch);

  const auto array = [&](index_t n) { return scratch.template take<real>(n); };
  const auto kl = out.kl.given() ? out.kl : array(tokens), rewards = array(tokens);
  const auto scores = out.scores.given() ? out.scores : array(replies);
  if (in.ref_logp.given()) {
    token_kl(b, scratch, {.logp = in.logp, .ref_logp = in.ref_logp, .sequences = in.sequences}, options.kl, {.kl = kl});
  } else {
    b.fill(kl, real(0));
  }
  auto score = in.score;
  if (in.bootstrap.given() && replies > 0) {  // or the last token would be paid twice: the score now, and the value of what is still to come
    const auto kept = array(replies);
    b.transform(math::keep_where{}, kept, in.score, in.ended);
    score = as_const(kept);
  }
  token_rewards(b, scratch, {.kl = as_const(kl), .score = score, .ended = in.ended, .sequences = in.sequences}, options.rewards,
                {.rewards = rewards, .scores = scores});
  if constexpr (needs_critic<Advantage>) {
    const auto whitened = [&](real_view<B> x, bool shift, real_view<B> y) {
      auto how = advantage.whitening;
      how.shift_mean = shift;
      whiten(b, scratch, ranks, {.values = as_const(x), .sequences = in.sequences}, how, {.whitened = y});
    };
    auto given = rewards;
    const auto spare = array(tokens);
    if (advantage.whiten_rewards) whitened(rewards, false, given = spare);
    const auto raw = advantage.whiten ? array(tokens) : out.advantages;
    gae(b, scratch, {.rewards = as_const(given), .values = in.values, .bootstrap = in.bootstrap, .sequences = in.sequences}, advantage.scan(),
        {.advantages = raw, .returns = out.returns});
    if (advantage.whiten) whitened(raw, true, out.advantages);
  } else if constexpr (of_tokens) {
    reinforce_plus_plus(b, scratch, ranks, {.rewards = as_const(rewards), .sequences = in.sequences},
                        {.gamma = advantage.gamma, .whiten = advantage.whitening}, {.advantage = out.advantages});
  } else {
    const auto penalty = array(replies), ordered = array(replies), result = array(replies);
    b.segment_reduce(reduction::sum, as_const(kl), in.sequences, penalty);
    b.transform(math::add_scaled<real>{static_cast<real>(-options.rewards.kl_coefficient)}, penalty, as_const(scores), as_const(penalty));
    auto reward = penalty;
    if (in.order.given()) b.row_gather(as_column(as_const(penalty)), in.order, as_column(reward = ordered));
    const group_advantage_inputs<real, space_of<B>> grouped{.rewards = as_const(reward), .groups = in.groups};
    if constexpr (std::is_same_v<Advantage, advantage::reinforce_plus_plus_baseline>) {
      group_advantage(b, scratch, ranks, grouped, advantage::centered{}, {.advantage = result});
    } else {
      group_advantage(b, scratch, ranks, grouped, advantage, {.advantage = result});
    }
    auto of_reply = result;
    if (in.place.given()) b.row_gather(as_column(as_const(result)), in.place, as_column(of_reply = penalty));
    constexpr bool whitens = std::is_same_v<Advantage, advantage::reinforce_plus_plus_baseline>;
    const auto spread = whitens ? rewards : out.advantages;
    b.segment_broadcast(as_const(of_reply), in.sequences, spread, write_mode::overwrite);
    if constexpr (whitens)
      whiten(b, scratch, ranks, {.values = as_const(spread), .sequences = in.sequences}, advantage.whitening, {.whitened = out.advantages});
  }
}

/// One rank.
template <class B, class Advantage>
  requires has_backend_types<B>
void rollout_advantages(B& b, arena_of<B>& scratch, const rollout_advantages_inputs<real_of<B>, space_of<B>>& in, const Advantage& advantage,
                        const rollout_advantages_options& options, const rollout_advantages_outputs<real_of<B>, space_of<B>>& out) {
  const distributed::local one;
  rollout_advantages(b, scratch, one, in, advantage, options, out);
}

PLUMB_NAMESPACE_END

#pragma once
// Rewards per token for PPO and its kin: the KL penalty at every token, the score of the reply at one.

#include <plumb/math/token_rewards.hpp>
#include <plumb/ops/host.hpp>
#include <plumb/ops/scored_scan.hpp>

PLUMB_NAMESPACE_BEGIN

/// Where the score of a reply lands.
enum class score_placement {
  last_scored,  ///< on the last scored token (the end-of-sequence token): the literature, OpenRLHF, NeMo-Aligner, verl, DR-PO
  after_last,   ///< on the token after it, if the sequence has one, else on it (TRL's PPO): the layout of `gae` must score that token too
};

/// Options of `token_rewards`. The score is first changed for replies that did not end, then kept in `[score_min, score_max]`.
struct token_rewards_options {
  double kl_coefficient = 0;      ///< 0 or positive
  score_placement placement = score_placement::last_scored;
  double unfinished_scale = 1;    ///< the score of a reply that did not end is `unfinished_scale * score + unfinished_offset`:
  double unfinished_offset = 0;   ///< {1, -p} subtracts a penalty (TRL), {0, -1} replaces the score (DR-PO's code), {c, 0} scales it (OpenRLHF)
  double score_min = -1e30, score_max = 1e30;

  void require(const char* op) const {
    require_mode(op, "placement", placement, score_placement::after_last);
    require_option(op, "kl_coefficient", kl_coefficient, kl_coefficient >= 0, "0 or positive");
    require_option(op, "unfinished_scale", unfinished_scale, true, "a number");
    require_option(op, "unfinished_offset", unfinished_offset, true, "a number");
    require_option(op, "score_min", score_min, true, "a number");
    require_option(op, "score_max", score_max, score_max >= score_min, "`score_min` or more");
  }
};

/// Flat tokens and one number per sequence; what is not given counts as 0.
template <class Real, class Space = host_space>
struct token_rewards_inputs {
  view<const Real, 1, Space> kl{};     ///< `[N]`, estimates as `token_kl` gives
  view<const Real, 1, Space> score{};  ///< `[S]`
  view<const std::uint8_t, 1, Space> ended{};  ///< `[S]`, 0 for a reply that was cut off; not given: all ended
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct token_rewards_outputs {
  view<Real, 1, Space> rewards{};  ///< `[N]`; 0 for tokens that do not count (but see `after_last`)
  view<Real, 1, Space> scores{};   ///< `[S]`, what landed
  write_mode mode = write_mode::overwrite;  ///< of `rewards`: `add` to rewards per token that come from elsewhere
};

/// Bytes of arena that `token_rewards` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t token_rewards_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 5; ++i) w.template add<real>(tokens);
  return w.template add<real>(sequences.sequences()).template add<real>(1).bytes();
}

/// `r_t = -kl_coefficient kl_t + [t = last] score`, per scored token (arXiv:1909.08593, eq. 2; arXiv:2203.02155, eq. 2). A sequence without
/// scored tokens gets nothing. Enqueues and returns; nothing is allocated. Checked against OpenRLHF `compute_reward`, NeMo-Aligner
/// `calculate_ppo_rewards`, verl `apply_kl_penalty`, TRL's PPO trainer and DR-PO's `drpo.py`.
template <class B>
  requires has_backend_types<B>
void token_rewards(B& b, arena_of<B>& scratch, const token_rewards_inputs<real_of<B>, space_of<B>>& in, const token_rewards_options& options,
                   const token_rewards_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "token_rewards";
  const index_t tokens = out.rewards.extent(0), sequences = in.sequences.sequences();
  require_arguments(op, {{"rewards", out.rewards}, {"scores", out.scores}},
                    {{"kl", in.kl}, {"score", in.score}, {"ended", in.ended},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  options.require(op);
  require_given(op, "rewards", out.rewards, in.kl.given() || in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  if (in.kl.given()) require_same_shape(op, "kl", in.kl, "rewards", out.rewards);
  if (in.score.given()) require_extent(op, "score", in.score, 0, sequences, "the number of sequences");
  require_given(op, "score", in.score, (in.ended.given() || out.scores.given()) && sequences > 0);
  if (in.ended.given()) require_extent(op, "ended", in.ended, 0, sequences, "the number of sequences");
  if (out.scores.given()) require_extent(op, "scores", out.scores, 0, sequences, "the number of sequences");
  scratch.require(op, token_rewards_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);

  const auto mask = scratch.template take<real>(tokens);
  const bool adds = out.mode == write_mode::add;
  if (in.kl.given()) {
    detail::scored_mask(b, scratch, in.sequences, mask);
    if (adds) {
      b.transform(math::kl_reward<real>{static_cast<real>(options.kl_coefficient)}, mask, in.kl, as_const(mask));
      b.transform(math::plus{}, out.rewards, as_const(out.rewards), as_const(mask));
    } else {
      b.transform(math::kl_reward<real>{static_cast<real>(options.kl_coefficient)}, out.rewards, in.kl, as_const(mask));
    }
  } else if (!adds) {
    b.fill(out.rewards, real(0));
  }
  if (!in.score.given()) return;

  const auto scores = out.scores.given() ? out.scores : scratch.template take<real>(sequences);
  const math::clamped<real> range{static_cast<real>(options.score_min), static_cast<real>(options.score_max)};
  if (in.ended.given()) {
    b.transform(math::unfinished_score<real>{static_cast<real>(options.unfinished_scale), static_cast<real>(options.unfinished_offset)}, scores,
                in.score, in.ended);
    b.transform(range, scores, as_const(scores));
  } else {
    b.transform(range, scores, in.score);
  }
  const auto last = scratch.template take<real>(tokens), spread = scratch.template take<real>(tokens);
  detail::last_scored(b, scratch, in.sequences, last);
  const sequence_layout<space_of<B>> whole{in.sequences.begin, in.sequences.end, {}};
  auto where = last;
  if (options.placement == score_placement::after_last && tokens > 0) {
    const auto final = scratch.template take<real>(tokens);
    where = scratch.template take<real>(tokens);
    detail::last_scored(b, scratch, whole, final);
    b.transform(math::times{}, where.slice(0, 1), as_const(last.slice(0, 1)), as_const(final.slice(0, 1)));
    const auto here = [&](real_view<B> x) { return as_const(x.slice(1, tokens - 1)); };
    const auto before = [&](real_view<B> x) { return as_const(x.slice(0, tokens - 1)); };
    b.transform(math::flag_after{}, where.slice(1, tokens - 1), here(last), here(final), before(last), before(final));
  }
  b.segment_broadcast(as_const(scores), whole, spread, write_mode::overwrite);
  b.transform(math::add_where{}, out.rewards, as_const(out.rewards), as_const(spread), as_const(where));
}

/// Vectors in, rewards per token out, on the serial backend. `score` may be `{}`.
template <detail::host_range R>
std::vector<detail::value_of<R>> token_rewards(const R& kl, view<const detail::value_of<R>, 1> score, const sequence_layout<>& sequences,
                                               const token_rewards_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> k(kl);
  require_layout("token_rewards", sequences, k.extent(0));
  require_layout_data("token_rewards", sequences, k.extent(0));
  auto rewards = detail::zeros<T>(k.extent(0));
  detail::host_call<T> call(token_rewards_workspace(serial::backend<T>{}, sequences, k.extent(0)));
  token_rewards(call.compute, call.scratch, {.kl = k, .score = score, .sequences = sequences}, options, {.rewards = rewards});
  return rewards;
}

PLUMB_NAMESPACE_END

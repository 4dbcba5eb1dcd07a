#pragma once
// REINFORCE++: returns of each token, or deviations from the group's mean, whitened over all tokens of the batch.

#include <plumb/ops/group_advantage.hpp>
#include <plumb/ops/whiten.hpp>

PLUMB_NAMESPACE_BEGIN

/// Options of `reinforce_plus_plus`.
struct reinforce_plus_plus_options {
  double gamma = 1;
  whiten_options whiten{};

  void require(const char* op) const {
    require_option(op, "gamma", gamma, gamma >= 0 && gamma <= 1, "in [0, 1]");
    whiten.require(op);
  }
};
/// Flat tokens of all replies.
template <class Real, class Space = host_space>
struct reinforce_plus_plus_inputs {
  view<const Real, 1, Space> rewards{};  ///< `[N]`, per token: the KL penalty at each, the score at the last (`token_rewards`)
  sequence_layout<Space> sequences{};
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct reinforce_plus_plus_outputs {
  view<Real, 1, Space> advantage{};  ///< `[N]`, whitened returns; tokens that do not count as `whiten.unscored` says
  view<Real, 1, Space> returns{};    ///< `[N]`; 0 for tokens that do not count
};

/// Bytes of arena that `reinforce_plus_plus` takes for flat arrays of `tokens` entries.
template <class B>
std::size_t reinforce_plus_plus_workspace(const B& b, const sequence_layout<space_of<B>>& sequences, index_t tokens) {
  using real = real_of<B>;
  return workspace_size().template add<real>(tokens).template add<real>(1).add_bytes(whiten_workspace(b, sequences, tokens)).bytes();
}

/// `G_t = r_t + gamma G_u`, `u` the next scored token; advantages are the `G_t` whitened over the scored tokens of all ranks (arXiv:2501.03262,
/// section 3). Enqueues and returns; nothing is allocated. Every rank calls. Checked against verl `compute_reinforce_plus_plus_outcome_advantage`
/// and OpenRLHF's estimator `reinforce`.
template <class B, communicator_for<B> C>
  requires has_backend_types<B>
void reinforce_plus_plus(B& b, arena_of<B>& scratch, C& ranks, const reinforce_plus_plus_inputs<real_of<B>, space_of<B>>& in,
                         const reinforce_plus_plus_options& options, const reinforce_plus_plus_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "reinforce_plus_plus";
  const index_t tokens = in.rewards.extent(0);
  require_arguments(op, {{"advantage", out.advantage}, {"returns", out.returns}},
                    {{"rewards", in.rewards}, {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  require_given(op, "rewards", in.rewards, in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  options.require(op);
  if (out.advantage.given()) require_same_shape(op, "advantage", out.advantage, "rewards", in.rewards);
  if (out.returns.given()) require_same_shape(op, "returns", out.returns, "rewards", in.rewards);
  scratch.require(op, reinforce_plus_plus_workspace(b, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto returns = out.returns.given() ? out.returns : scratch.template take<real>(tokens);
  b.segment_scan(detail::constant(b, scratch, static_cast<real>(options.gamma), tokens), in.rewards, in.sequences, returns);
  if (out.advantage.given()) whiten(b, scratch, ranks, {.values = as_const(returns), .sequences = in.sequences}, options.whiten, {.whitened = out.advantage});
}

/// One rank.
template <class B>
  requires has_backend_types<B>
void reinforce_plus_plus(B& b, arena_of<B>& scratch, const reinforce_plus_plus_inputs<real_of<B>, space_of<B>>& in,
                         const reinforce_plus_plus_options& options, const reinforce_plus_plus_outputs<real_of<B>, space_of<B>>& out) {
  const distributed::local one;
  reinforce_plus_plus(b, scratch, one, in, options, out);
}

/// What the host overload returns.
template <class T>
struct reinforce_plus_plus_result {
  std::vector<T> advantage, returns;  ///< `[N]`
};

/// A vector and a layout in, on the serial backend.
template <detail::host_range R>
reinforce_plus_plus_result<detail::value_of<R>> reinforce_plus_plus(const R& rewards, const sequence_layout<>& sequences,
                                                                    const reinforce_plus_plus_options& options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(rewards);
  require_layout("reinforce_plus_plus", sequences, x.extent(0));
  require_layout_data("reinforce_plus_plus", sequences, x.extent(0));
  reinforce_plus_plus_result<T> r{detail::zeros<T>(x.extent(0)), detail::zeros<T>(x.extent(0))};
  detail::host_call<T> call(reinforce_plus_plus_workspace(serial::backend<T>{}, sequences, x.extent(0)));
  reinforce_plus_plus(call.compute, call.scratch, {.rewards = x, .sequences = sequences}, options, {.advantage = r.advantage, .returns = r.returns});
  return r;
}

/// Options of `reinforce_plus_plus_baseline`.
struct reinforce_plus_plus_baseline_options {
  advantage::centered center{};  ///< each reply's reward in its group
  whiten_options whiten{};       ///< over the scored tokens

  void require(const char* op) const { whiten.require(op); }
};
/// One reward per reply, sequence `s` being reply `s`, replies of a prompt side by side.
template <class Real, class Space = host_space>
struct reinforce_plus_plus_baseline_inputs {
  view<const Real, 1, Space> rewards{};  ///< `[S]`
  sequence_layout<Space> groups{};       ///< over the replies, as in `group_advantage_inputs`
  sequence_layout<Space> sequences{};    ///< over the tokens
};

/// Bytes of arena that `reinforce_plus_plus_baseline` takes for `tokens` tokens.
template <class B>
std::size_t reinforce_plus_plus_baseline_workspace(const B& b, const sequence_layout<space_of<B>>& groups, const sequence_layout<space_of<B>>& sequences,
                                                   index_t tokens) {
  using real = real_of<B>;
  return workspace_size()
      .template add<real>(tokens)
      .template add<real>(sequences.sequences())
      .add_bytes(whiten_workspace(b, sequences, tokens))
      .add_bytes(group_advantage_workspace(b, groups, sequences.sequences()))
      .bytes();
}

/// A reply's reward less its group's mean, at each of its scored tokens, whitened over the scored tokens of all ranks: long replies count by their
/// tokens (arXiv:2501.03262, section 3.2). `advantage` `[N]`. A reply that is left out of its group still counts there, with 0: leave its tokens
/// unscored (`keep_tokens`). Checked against verl `compute_reinforce_plus_plus_baseline_outcome_advantage`.
template <class B, communicator_for<B> C>
  requires has_backend_types<B>
void reinforce_plus_plus_baseline(B& b, arena_of<B>& scratch, C& ranks, const reinforce_plus_plus_baseline_inputs<real_of<B>, space_of<B>>& in,
                                  const reinforce_plus_plus_baseline_options& options, const std::type_identity_t<real_view<B>>& advantage) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "reinforce_plus_plus_baseline";
  const index_t tokens = advantage.extent(0), replies = in.rewards.extent(0);
  require_arguments(op, {{"advantage", advantage}},
                    {{"rewards", in.rewards}, {"begin", in.groups.begin}, {"end", in.groups.end}, {"scored", in.groups.scored},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  detail::require_groups(op, in.groups, replies);
  require_sequences(op, in.sequences, tokens);
  require_extent(op, "rewards", in.rewards, 0, in.sequences.sequences(), "the number of sequences");
  options.require(op);
  scratch.require(op, reinforce_plus_plus_baseline_workspace(b, in.groups, in.sequences, tokens));
  typename arena_of<B>::frame frame(scratch);
  const auto deviation = scratch.template take<real>(replies);
  const auto per_token = scratch.template take<real>(tokens);
  group_advantage(b, scratch, {.rewards = in.rewards, .groups = in.groups}, options.center, {.advantage = deviation});
  b.segment_broadcast(as_const(deviation), in.sequences, per_token, write_mode::overwrite);
  whiten(b, scratch, ranks, {.values = as_const(per_token), .sequences = in.sequences}, options.whiten, {.whitened = advantage});
}

/// One rank.
template <class B>
  requires has_backend_types<B>
void reinforce_plus_plus_baseline(B& b, arena_of<B>& scratch, const reinforce_plus_plus_baseline_inputs<real_of<B>, space_of<B>>& in,
                                  const reinforce_plus_plus_baseline_options& options, const std::type_identity_t<real_view<B>>& advantage) {
  const distributed::local one;
  reinforce_plus_plus_baseline(b, scratch, one, in, options, advantage);
}

/// Rewards in any order, which of them answer the same prompt, and a host layout of their tokens, sequence `s` being reply `s`; the advantage of each
/// of `tokens` tokens out.
template <detail::host_range R>
std::vector<detail::value_of<R>> reinforce_plus_plus_baseline(const R& rewards, const prompt_groups& groups, const sequence_layout<>& sequences,
                                                              index_t tokens, const reinforce_plus_plus_baseline_options& options = {},
                                                              view<const std::uint8_t, 1> scored = {}) {
  using T = detail::value_of<R>;
  constexpr const char* op = "reinforce_plus_plus_baseline";
  detail::require_host_layout(op, sequences, tokens);
  require_extent(op, "rewards", view<const T, 1>(rewards), 0, sequences.sequences(), "the number of sequences");
  auto advantage = detail::zeros<T>(tokens);
  detail::host_advantage<T>(op, view<const T, 1>(rewards), groups, scored,
                            [&](view<const T, 1> grouped, const sequence_layout<>& layout, view<T, 1>) {
    const auto begin = detail::picked(groups.order, sequences.begin), end = detail::picked(groups.order, sequences.end);
    const sequence_layout<> replies{begin, end, sequences.scored};
    detail::host_call<T> call(reinforce_plus_plus_baseline_workspace(serial::backend<T>{}, layout, replies, tokens));
    reinforce_plus_plus_baseline(call.compute, call.scratch, {.rewards = grouped, .groups = layout, .sequences = replies}, options, advantage);
  });
  return advantage;
}

PLUMB_NAMESPACE_END

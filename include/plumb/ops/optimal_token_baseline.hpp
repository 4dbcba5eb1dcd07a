#pragma once
// The optimal token baseline: for each position, the mean return of a prompt's replies, weighted by how much gradient each has gathered so far.

#include <plumb/math/optimal_token_baseline.hpp>
#include <plumb/ops/group_advantage.hpp>

PLUMB_NAMESPACE_BEGIN

/// Flat tokens of all replies.
template <class Real, class Space = host_space>
struct optimal_token_baseline_inputs {
  view<const Real, 1, Space> rewards{};        ///< `[N]`, per token; an outcome reward stands at a reply's last scored token
  view<const Real, 1, Space> logp{};           ///< `[N]`, of the policy that the replies were sampled from
  view<const Real, 1, Space> sum_p_squared{};  ///< `[N]`, the sum over the vocabulary of squared probabilities
  view<const Real, 1, Space> importance{};     ///< `[N]`, weights that correct the sampler's probabilities; not given: 1
  view<const std::int32_t, 1, Space> cells{};  ///< `[N]`, see `token_cells`: tokens with one baseline share a number; negative: baseline 0
  sequence_layout<Space> sequences{};
};
/// Options of `optimal_token_baseline`.
struct optimal_token_baseline_options {
  double epsilon = 1e-8;  ///< added to the sum of weights

  void require(const char* op) const { require_option(op, "epsilon", epsilon, epsilon >= 0, "0 or positive"); }
};
/// Outputs that are not given are not computed. May overlap nothing.
template <class Real, class Space = host_space>
struct optimal_token_baseline_outputs {
  view<Real, 1, Space> advantage{};  ///< `[N]`, return less baseline; 0 for tokens that do not count
  view<Real, 1, Space> returns{};    ///< `[N]`, rewards from the token on; likewise
};

/// Bytes of arena that `optimal_token_baseline` takes; `cells` is how many numbers the cells have.
template <class B>
std::size_t optimal_token_baseline_workspace(const B&, const sequence_layout<space_of<B>>& sequences, index_t tokens, index_t cells) {
  using real = real_of<B>;
  workspace_size w;
  for (int i = 0; i < 4; ++i) w.template add<real>(tokens);
  for (int i = 0; i < 2; ++i) w.template add<real>(cells);
  return w.template add<real>(sequences.sequences()).template add<real>(1).bytes();
}

/// `A_t = G_t - B_t`, `B_t = sum_i G_it W_it / (sum_i W_it + epsilon)` over the replies `i` of the prompt that have a token in the cell of `t`; `G_t`
/// are the rewards from `t` on, `W_t` the squared gradient norms up to `t` by the logits (arXiv:2602.07078). `W_t` is a sum less what follows, so in
/// float a reply's first tokens keep fewer digits of it the longer the reply is. Enqueues and returns; nothing is allocated. Checked against verl
/// `compute_optimal_token_baseline_advantage` and `compute_multi_turn_optimal_token_baseline_advantage`.
template <class B>
  requires has_backend_types<B>
void optimal_token_baseline(B& b, arena_of<B>& scratch, const optimal_token_baseline_inputs<real_of<B>, space_of<B>>& in, index_t cells,
                            const optimal_token_baseline_options& options, const optimal_token_baseline_outputs<real_of<B>, space_of<B>>& out) {
  using real = real_of<B>;
  static_assert(check_backend<B>());
  constexpr const char* op = "optimal_token_baseline";
  const index_t tokens = in.rewards.extent(0);
  require_arguments(op, {{"advantage", out.advantage}, {"returns", out.returns}},
                    {{"rewards", in.rewards}, {"logp", in.logp}, {"sum_p_squared", in.sum_p_squared}, {"importance", in.importance}, {"cells", in.cells},
                     {"begin", in.sequences.begin}, {"end", in.sequences.end}, {"scored", in.sequences.scored}});
  require_given(op, "rewards", in.rewards, in.logp.given() || in.sequences.scored.extent(0) > 0);
  require_sequences(op, in.sequences, tokens);
  require_same_shape(op, "logp", in.logp, "rewards", in.rewards);
  require_same_shape(op, "sum_p_squared", in.sum_p_squared, "rewards", in.rewards);
  if (in.importance.given()) require_same_shape(op, "importance", in.importance, "rewards", in.rewards);
  require_same_shape(op, "cells", in.cells, "rewards", in.rewards);
  require_ids(op, "cells", in.cells, cells, true);
  options.require(op);
  if (out.advantage.given()) require_same_shape(op, "advantage", out.advantage, "rewards", in.rewards);
  if (out.returns.given()) require_same_shape(op, "returns", out.returns, "rewards", in.rewards);
  scratch.require(op, optimal_token_baseline_workspace(b, in.sequences, tokens, cells));
  typename arena_of<B>::frame frame(scratch);
  const auto one = detail::constant(b, scratch, real(1), tokens);
  const auto returns = out.returns.given() ? out.returns : scratch.template take<real>(tokens);
  b.segment_scan(one, in.rewards, in.sequences, returns);
  if (!out.advantage.given()) return;
  const auto norm = scratch.template take<real>(tokens), weight = scratch.template take<real>(tokens), work = scratch.template take<real>(tokens);
  const auto total = scratch.template take<real>(in.sequences.sequences());
  const auto weights = scratch.template take<real>(cells), sums = scratch.template take<real>(cells);
  b.transform(math::logit_gradient_norm{}, norm, in.logp, in.sum_p_squared, in.importance.given() ? in.importance : one);
  b.segment_scan(one, as_const(norm), in.sequences, work);
  b.segment_reduce(reduction::sum, as_const(norm), in.sequences, total);
  b.segment_broadcast(as_const(total), in.sequences, weight, write_mode::overwrite);
  b.transform(math::sum_up_to{}, weight, as_const(weight), as_const(work), as_const(norm));
  b.transform(math::times{}, work, as_const(weight), as_const(returns));
  b.fill(weights, real(0));
  b.fill(sums, real(0));
  b.row_scatter_add(as_const(as_column(weight)), in.cells, as_column(weights));
  b.row_scatter_add(as_const(as_column(work)), in.cells, as_column(sums));
  b.transform(math::weighted_mean<real>{static_cast<real>(options.epsilon)}, sums, as_const(sums), as_const(weights));
  b.row_gather(as_const(as_column(sums)), in.cells, as_column(work));
  b.transform(math::minus{}, out.advantage, as_const(returns), as_const(work));
}

/// How a reply's tokens are lined up with those of the other replies to its prompt.
enum class token_position {
  column,  ///< by distance from the reply's beginning, scored or not
  turn,    ///< by how many scored tokens came before: what tools and users said in between does not shift the rest
};
/// Options of `token_cells`.
struct token_cells_options {
  token_position position = token_position::turn;
  /// Where only one reply is left, no baseline (verl `handle_zero_tail`): else its own return is its baseline there, and the advantage 0.
  bool no_lone_tail = true;

  void require(const char* op) const { require_mode(op, "position", position, token_position::turn); }
};
/// What `token_cells` gives, in host memory.
struct token_cell_list {
  std::vector<std::int32_t> cells;  ///< `[N]`; negative for tokens that do not count or have no baseline
  index_t count = 0;                ///< how many cells there are
};

/// The cell of each of `tokens` tokens: tokens of one prompt's replies at the same position share one. `groups` says which sequences answer the same
/// prompt; a reply without counted siblings, or scored tokens, has no baseline.
inline token_cell_list token_cells(const sequence_layout<>& sequences, const prompt_groups& groups, index_t tokens,
                                   const token_cells_options& options = {}) {
  constexpr const char* op = "token_cells";
  require_layout(op, sequences, tokens);
  require_layout_data(op, sequences, tokens);
  options.require(op);
  require_extent(op, "begin", sequences.begin, 0, groups.replies(), "the number of replies in the groups");
  token_cell_list y{std::vector<std::int32_t>(static_cast<std::size_t>(tokens), -1)};
  // Calls f(token, position) for the scored tokens of reply `s`.
  const auto each = [&](std::int32_t s, const auto& f) {
    index_t rank = 0;
    for (index_t t = sequences.begin(s); t < sequences.end(s); ++t)
      if (!sequences.scored.given() || sequences.scored(t) != 0) f(t, options.position == token_position::turn ? rank++ : t - sequences.begin(s));
  };
  for (index_t g = 0; g < groups.groups(); ++g) {
    index_t replies = 0, length = 0, second = 0;  // the longest and the second longest
    const auto of_group = [&](const auto& f) {
      const auto at = static_cast<std::size_t>(g);
      for (auto i = static_cast<std::size_t>(groups.begin[at]); i < static_cast<std::size_t>(groups.end[at]); ++i) f(groups.order[i]);
    };
    of_group([&](std::int32_t s) {
      index_t here = 0;
      each(s, [&](index_t, index_t position) { here = position + 1; });
      replies += here > 0;
      second = here > length ? length : here > second ? here : second;
      length = here > length ? here : length;
    });
    if (replies < 2) continue;
    if (options.no_lone_tail) length = second;
    of_group([&](std::int32_t s) {
      each(s, [&](index_t t, index_t position) {
        if (position < length) y.cells[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(y.count + position);
      });
    });
    y.count += length;
  }
  return y;
}

/// Vectors, a layout and `group_by_prompt(prompt_ids)` in, advantages `[N]` out, on the serial backend.
template <detail::host_range R>
std::vector<detail::value_of<R>> optimal_token_baseline(const R& rewards, view<const detail::value_of<R>, 1> logp,
                                                        view<const detail::value_of<R>, 1> sum_p_squared, const sequence_layout<>& sequences,
                                                        const prompt_groups& groups, const token_cells_options& cells_options = {}) {
  using T = detail::value_of<R>;
  const view<const T, 1> x(rewards);
  const token_cell_list cells = token_cells(sequences, groups, x.extent(0), cells_options);
  auto advantage = detail::zeros<T>(x.extent(0));
  detail::host_call<T> call(optimal_token_baseline_workspace(serial::backend<T>{}, sequences, x.extent(0), cells.count));
  optimal_token_baseline(call.compute, call.scratch,
                         {.rewards = x, .logp = logp, .sum_p_squared = sum_p_squared, .cells = cells.cells, .sequences = sequences}, cells.count, {},
                         {.advantage = advantage});
  return advantage;
}

PLUMB_NAMESPACE_END

#!/usr/bin/env bash
# `plumb_claims drpo --quick`: what it says, and that it may be killed; see killed.sh.
# usage: drpo.sh PROGRAM FOLDER
set -euo pipefail
. "$(dirname "$0")/killed.sh"
begin drpo "$1" "$2"
for name in drpo_minus_ppo drpo_minus_dpo drpo_minus_dpo_tuned; do
  for metric in exact_greedy exact_sampled win_rate; do
    has "$name/$metric"
    for control in easy_exploration dense_reward oracle_reward plentiful_pairs whitened_rewards; do
      has "control/$control/$name/$metric"
    done
  done
done
for name in reward_model/right reward_model/sft reward_model/ppo reward_model/drpo length/ppo ended/ppo; do
  has "control/dense_reward/$name"
done
grep -q "^DR-PO's claim " "$folder/whole.txt" || fail "there is no verdict"
# Of three seeds: a whole answer is drawn with resets, not without, and DPO is between.
rate() { grep -A1 "\"name\": \"exact_sampled/$1\"" "$folder/whole/summary.json" | sed -n 's/.*"value": \([0-9.e-]*\).*/\1/p'; }
awk -v drpo="$(rate drpo)" -v ppo="$(rate ppo)" -v dpo="$(rate dpo_best)" 'BEGIN { exit !(drpo > 0.8 && drpo > dpo + 0.1 && drpo > ppo + 0.4) }' ||
  fail "DR-PO $(rate drpo), PPO $(rate ppo), DPO $(rate dpo_best)"

killed_and_resumed seed-1.headline.sft.json 0.5 1 2 3 4

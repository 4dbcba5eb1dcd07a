#!/usr/bin/env bash
# --only does the stages that it names and those that they need, and a later run goes on from there.
# usage: only.sh PROGRAM FOLDER
set -euo pipefail
program=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder"

fail() { echo "$1"; exit 1; }
run() { "$program" --quick --backend serial --out "$folder" "$@" >"$folder/said.txt" 2>&1 || fail "it did not run with $*: $(tail -3 "$folder/said.txt")"; }
there() { for name; do [ -s "$folder/seed-1/$name" ] || fail "$name is not there"; done; }
not_there() { for name; do [ ! -e "$folder/seed-1/$name" ] || fail "$name was not asked for"; done; }

run --only drpo
there pretrain.safetensors sft.safetensors preferences.jsonl reward_bradley_terry.safetensors drpo.safetensors
not_there dpo.safetensors ppo.safetensors steerlm.safetensors judge-policies.json
run --only steerlm
there steerlm.safetensors steerlm2.safetensors drpo.safetensors
not_there ppo.safetensors
grep -q '^sft .*done before' "$folder/said.txt" || fail "sft was done again"
run --only judge-policies,ppo-curve
there dpo.safetensors ppo.safetensors grpo.safetensors rloo.safetensors reinforce.safetensors judge-policies.json ppo-curve.json
not_there best-of-n.json
grep -q '^drpo .*done before' "$folder/said.txt" || fail "drpo was done again"
for name in win_rate/ppo_over_sft win_rate/grpo_over_sft win_rate/rloo_over_sft win_rate/reinforce_over_sft win_rate/drpo_over_sft win_rate/steerlm_over_sft win_rate/steerlm2_over_sft gold_reward/sft \
  learned_reward/ppo kl/drpo_per_reply replies_differ/grpo distinct_bigrams/dpo length/steerlm2 ppo_curve/gold/update=0 ppo_curve/kl/update=2 ppo_curve/fall; do
  grep -q "\"$name\"" "$folder/summary.json" || fail "summary.json lacks $name"
done
grep -q 'Tokens per second' "$folder/report.html" || fail "the report has no table of stages"
echo "stages one by one: each with what it needs, none twice"

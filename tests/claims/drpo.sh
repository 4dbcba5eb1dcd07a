#!/usr/bin/env bash
# `plumb_claims drpo --quick`, on two threads, and killed again and again on one: the same figures, and no finished run is done twice.
# usage: drpo.sh PROGRAM FOLDER
set -euo pipefail
program=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder"

fail() { echo "$1"; exit 1; }
figures() { grep -v -e '"seconds"' -e '"threads"' "$1/summary.json"; }
same() {
  "$program" drpo --quick --threads 1 --out "$folder/cut" >"$folder/again.txt"
  diff <(figures "$folder/whole") <(figures "$folder/cut") || fail "the summaries differ"
}

"$program" drpo --quick --threads 2 --out "$folder/whole" >"$folder/whole.txt"
for name in drpo_minus_ppo drpo_minus_dpo drpo_minus_dpo_tuned; do
  for metric in exact_greedy exact_sampled win_rate; do
    grep -q "\"$name/$metric\"" "$folder/whole/summary.json" || fail "summary.json lacks $name/$metric"
    for control in easy_exploration dense_reward oracle_reward plentiful_pairs whitened_rewards; do
      grep -q "\"control/$control/$name/$metric\"" "$folder/whole/summary.json" || fail "summary.json lacks control/$control/$name/$metric"
    done
  done
done
for name in reward_model/right reward_model/sft reward_model/ppo reward_model/drpo length/ppo ended/ppo; do
  grep -q "\"control/dense_reward/$name\"" "$folder/whole/summary.json" || fail "summary.json lacks control/dense_reward/$name"
done
grep -q "^DR-PO's claim " "$folder/whole.txt" || fail "there is no verdict"
grep -q '</html>' "$folder/whole/report.html" || fail "the report is not whole"
# Of three seeds: a whole answer is drawn with resets, not without, and DPO is between.
rate() { grep -A1 "\"name\": \"exact_sampled/$1\"" "$folder/whole/summary.json" | sed -n 's/.*"value": \([0-9.e-]*\).*/\1/p'; }
awk -v drpo="$(rate drpo)" -v ppo="$(rate ppo)" -v dpo="$(rate dpo_best)" 'BEGIN { exit !(drpo > 0.8 && drpo > dpo + 0.1 && drpo > ppo + 0.4) }' ||
  fail "DR-PO $(rate drpo), PPO $(rate ppo), DPO $(rate dpo_best)"

killed=0
for delay in 0.5 1 2 3 4; do
  timeout --signal=KILL "$delay" "$program" drpo --quick --threads 1 --out "$folder/cut" >"$folder/cut_$delay.txt" 2>&1 ||
    { [ $? -ne 137 ] || killed=$((killed + 1)); }
done
[ "$killed" -ge 1 ] || fail "no kill came before the end"
same
same
runs=$(sed -n 's/^\([0-9]*\) of \([0-9]*\) runs were done before$/\1 \2/p' "$folder/again.txt")
[ -n "$runs" ] && [ "${runs% *}" = "${runs#* }" ] || fail "a finished run was done again: $runs"
# A damaged file costs its own run.
echo '{' >"$folder/cut/runs/seed-1.headline.sft.json"
same
grep -q "^$((${runs% *} - 1)) of ${runs#* } runs were done before$" "$folder/again.txt" || fail "$(grep 'done before' "$folder/again.txt")"
echo "killed $killed times: the same summary; $runs runs read back"

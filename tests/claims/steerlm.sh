#!/usr/bin/env bash
# `plumb_claims steerlm --quick`, on two threads, and killed again and again on one: the same figures, and no finished run is done twice.
# usage: steerlm.sh PROGRAM FOLDER
set -euo pipefail
program=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder"

fail() { echo "$1"; exit 1; }
figures() { grep -v -e '"seconds"' -e '"threads"' "$1/summary.json"; }
same() {
  "$program" steerlm --quick --threads 1 --out "$folder/cut" >"$folder/again.txt"
  diff <(figures "$folder/whole") <(figures "$folder/cut") || fail "the summaries differ"
}

"$program" steerlm --quick --threads 2 --out "$folder/whole" >"$folder/whole.txt"
for name in steerlm2/kl_drop steerlm2/kl_drop_min steerlm2/entropy_gap control/more_labels/kl_drop control/bootstrap/kl_drop \
  ablation/paper_sampling/kl_drop steerlm1/kl steerlm2/iteration_2/kl target/entropy \
  reward/40/regression_minus_bt reward/40/strength_minus_bt reward/strength_minus_bt reward/80/correlation_gap; do
  grep -q "\"$name\"" "$folder/whole/summary.json" || fail "summary.json lacks $name"
done
# Two seeds decide nothing.
grep -q "SteerLM 2.0's claim is not decided over 2 seeds: intervals need three" "$folder/whole.txt" || fail "there is no verdict"
grep -q "The table of reward models is not decided over 2 seeds" "$folder/whole.txt" || fail "there is no verdict on reward models"
grep -q '</html>' "$folder/whole/report.html" || fail "the report is not whole"

killed=0
for delay in 0.2 0.4 0.8 1.2 1.6; do
  timeout --signal=KILL "$delay" "$program" steerlm --quick --threads 1 --out "$folder/cut" >"$folder/cut_$delay.txt" 2>&1 ||
    { [ $? -ne 137 ] || killed=$((killed + 1)); }
done
[ "$killed" -ge 1 ] || fail "no kill came before the end"
same
same
runs=$(sed -n 's/^\([0-9]*\) of \([0-9]*\) runs were done before$/\1 \2/p' "$folder/again.txt")
[ -n "$runs" ] && [ "${runs% *}" = "${runs#* }" ] || fail "a finished run was done again: $runs"
# A damaged file costs its own run.
echo '{' >"$folder/cut/runs/seed-1000-chain.json"
same
grep -q "^$((${runs% *} - 1)) of ${runs#* } runs were done before$" "$folder/again.txt" || fail "$(grep 'done before' "$folder/again.txt")"
echo "killed $killed times: the same summary; $runs runs read back"

#!/usr/bin/env bash
# `plumb_claims rain --quick`: what it says, and that it may be killed; see killed.sh.
# usage: rain.sh PROGRAM FOLDER
set -euo pipefail
. "$(dirname "$0")/killed.sh"
begin rain "$1" "$2"
has rain_minus_best_of_n/harmless rain_minus_best_of_n/harmless/by_topic rain_minus_greedy/helpful rain_minus_greedy/harmless weights_changed \
  judge_accuracy/K=100 judge_accuracy/K=600 rain_minus_greedy/harmless/K=100 rain_minus_greedy/harmless/K=600 gain_accuracy_correlation \
  component/max_backup/minus_rain/harmless counter/blockwise/rain_minus_blockwise/harmless counter/blockwise/tokens_share
for counter in perfect_judge early_risk flat_risk; do
  has "counter/$counter/rain_minus_best_of_n/harmless" "counter/$counter/rain_minus_blockwise/harmless" "counter/$counter/harmless/best_of_64"
done
# Two seeds decide nothing; the weights are those that were trained.
grep -q "RAIN's claim is not decided over 2 seeds: three are needed" "$folder/whole.txt" || fail "there is no verdict"
grep -q "^No weight changed" "$folder/whole.txt" || fail "weights changed"
grep -q 'A search about ' "$folder/whole/report.html" || fail "there is no drawing"

# Of equal work: best-of-N never takes more forward tokens than RAIN.
tokens() { grep -A1 "\"name\": \"tokens/K=600/$1\"" "$folder/whole/summary.json" | sed -n 's/.*"value": \([0-9.e+-]*\).*/\1/p'; }
awk -v n="$(tokens best_of_n)" -v rain="$(tokens rain)" 'BEGIN { exit !(n > 0 && n <= rain) }' ||
  fail "best-of-N took $(tokens best_of_n), RAIN $(tokens rain)"

killed_and_resumed seed-1.K-600.methods.json 0.5 1 2 3 4
# A model that is gone or damaged is trained again, to the same numbers.
rm "$folder/cut/runs/seed-1.K-600.safetensors" "$folder/cut/runs/seed-1.K-600.methods.json"
truncate -s 100 "$folder/cut/runs/seed-2.K-600.safetensors"
rm "$folder/cut/runs/seed-2.K-600.methods.json"
same

#!/usr/bin/env bash
# A run of the lab that is killed again and again ends with the same summary as one that was not, and does no finished stage twice.
# usage: resume.sh PROGRAM FOLDER [FLAG...]     how often: KILLS (default 10), seconds before the first: STEP (default 0.4; then more and more)
set -euo pipefail
program=$1 folder=$2
shift 2
rm -rf "$folder"
mkdir -p "$folder"

figures() { grep -v '"seconds"' "$1/summary.json"; }

"$program" "$@" --out "$folder/whole" >"$folder/whole.txt"
for ((i = 1; i <= ${KILLS:-10}; ++i)); do
  delay=$(awk -v i="$i" -v step="${STEP:-0.4}" -v seed="$RANDOM" 'BEGIN { srand(seed); print step * i * (0.5 + rand()) }')
  timeout --signal=KILL "$delay" "$program" "$@" --out "$folder/cut" >"$folder/cut_$i.txt" 2>&1 || true
done
"$program" "$@" --out "$folder/cut" >"$folder/last.txt"
"$program" "$@" --out "$folder/cut" >"$folder/again.txt"

diff <(figures "$folder/whole") <(figures "$folder/cut") || { echo "the summaries differ"; exit 1; }
grep -q '"name"' "$folder/whole/summary.json" || { echo "the summary has no figures"; exit 1; }
grep -q '</html>' "$folder/cut/report.html" || { echo "the report is not whole"; exit 1; }
stages=$(grep -c 'done before' "$folder/again.txt")
[ "$stages" -gt 0 ] && ! grep -q ' step ' "$folder/again.txt" || { echo "a finished stage was done again"; exit 1; }
echo "killed ${KILLS:-10} times: the same summary; $stages stages read back"
